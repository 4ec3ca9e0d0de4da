/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LUNFS_KVM_AUTOSTART_H
#define LUNFS_KVM_AUTOSTART_H

#include "kvm/parent.h"

/**
 * autostart() - starts the machines whose configuration, DS:/NAME/NAME.conf, says so.
 * @names: datastores to look in; none: all that lunfsd has.
 * @watch: go on, looking every few seconds for machines whose host has died.
 *
 * A disk's lock decides: whoever claims it runs the machine, and nobody else does.
 * Return: exit status: 0; VM_EXIT_NO_DAEMON; VM_EXIT_FAILED if one could not be started,
 * or has a configuration with a mistake.
 */
int autostart(const struct run_options *options, char **names, unsigned int count, bool watch);

#endif
