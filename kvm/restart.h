/* SPDX-License-Identifier: Apache-2.0 */
/* The time between two lives of a machine whose guest resets it. */
#ifndef LUNFS_KVM_RESTART_H
#define LUNFS_KVM_RESTART_H

#include "kvm/config.h"

#define RESTART_QUICK_MS	10000u	/* a life as short as that is no working guest's */
#define RESTART_PAUSE_MS_MAX	30000u

/**
 * restart_pause_ms() - how long to wait before the next life: no time, unless the guest has reset
 * soon after it began more than once in a row: then 1 s, 2 s, 4 s … up to RESTART_PAUSE_MS_MAX.
 * @quick: how many short lives there were in a row; counted here, 0 at first.
 * @lived_ms: how long the last one was.
 */
unsigned int restart_pause_ms(unsigned int *quick, uint64_t lived_ms);

/**
 * restart_wait() - lets @ms go by, answering on the control socket @listen_fd for a worker that is
 * not there: "status" says when it goes on, "stop" and "kill" end the machine, and so does a signal
 * other than SIGCHLD at the signalfd @signals.
 * Return: whether the machine is to be started again.
 */
bool restart_wait(const struct vm_config *c, int listen_fd, int signals, unsigned int ms);

#endif
