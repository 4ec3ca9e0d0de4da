/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LUNFS_PROC_NOTIFY_H
#define LUNFS_PROC_NOTIFY_H

/**
 * notify_send() - tells systemd @state, such as "READY=1", if it started us and wants to know.
 * The protocol of sd_notify(3): a datagram to the socket that NOTIFY_SOCKET names.
 */
void notify_send(const char *state);

/** notify_watchdog_ms() - how often at least systemd wants to hear "WATCHDOG=1" (WatchdogSec=);
 * 0: it does not. */
unsigned int notify_watchdog_ms(void);

#endif
