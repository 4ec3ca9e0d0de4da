/* SPDX-License-Identifier: Apache-2.0 */
/* Who this machine and its processes are; for programs only, never for fs/ or lockd/. */
#ifndef LUNFS_BASE_MACHINE_H
#define LUNFS_BASE_MACHINE_H

#include "base/types.h"

/**
 * machine_id() - the same for every process of this machine, also after a restart.
 *
 * /etc/machine-id, or where there is none a random one kept in /var/lib/lunfs/host-id, which
 * root's first call makes.  Daemon and mkfs must agree on it: volumes for one machine name it.
 * Return: 0; -ENOENT neither exists and it cannot be made; -EINVAL not an id; others of open().
 */
int machine_id(uint8_t id[16]);

/** machine_boot_id() - /proc/sys/kernel/random/boot_id.  Return: 0 or negative errno. */
int machine_boot_id(uint8_t id[16]);

/**
 * machine_derive_id() - the host id of the host that is called @name on machine @id: always
 * the same one, and another one for each name.  A UUID of version 8 (RFC 9562).
 */
void machine_derive_id(const uint8_t id[16], const char *name, uint8_t host_id[16]);

/**
 * machine_process_start() - when process @pid began, in clock ticks since boot: with the boot
 * id it tells it from a later one of that number.
 * @state: if not NULL, receives its state letter as in proc(5).
 * Return: 0; -ESRCH there is none.
 */
int machine_process_start(uint32_t pid, uint64_t *start, char *state);

/** machine_parse_stat() - state and start time from the text of a /proc/PID/stat.
 * Return: 0 or -EINVAL. */
int machine_parse_stat(const char *text, uint64_t *start, char *state);

#endif
