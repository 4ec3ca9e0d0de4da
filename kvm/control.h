/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A running machine's control socket: a word and a newline in, a line of JSON out.  After
 * "console" the connection is the console.  docs/LUNVM.md, "Control".
 */
#ifndef LUNFS_KVM_CONTROL_H
#define LUNFS_KVM_CONTROL_H

#include "kvm/machine.h"

struct control;

/**
 * control_new() - serves @listen_fd, a listening Unix socket, taken over.  Whoever can connect
 * may ask: the socket is root's.
 * Context: before the reactor has anything else to do with it; any thread but its own.
 * Return: 0 or -errno.
 */
int control_new(struct machine *m, int listen_fd, struct control **out);

#endif
