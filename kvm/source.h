/* SPDX-License-Identifier: Apache-2.0 */
/* Where a machine's disks, kernel and configuration come from: lunfsd, or (not disks) the host. */
#ifndef LUNFS_KVM_SOURCE_H
#define LUNFS_KVM_SOURCE_H

#include "kvm/config.h"

/* What a disk that is in use is known by, so that it is found again and given back. */
struct source_hold {
	bool		made;		/* it was attached for us, not by the administrator */
	uint64_t	birth;		/* of its attachment (docs/CONTROL.md); 0: not attached yet */
};

/**
 * source_connect() - a connection to the server of disk @d.
 * @vm:      the machine, which others that want the disk are told of.
 * @run_dir: of the lunfsd to ask.
 * @hold:    zeroed the first time; later, as it was left: the disk has to be the same attachment
 *           as before, and if the connection was lost because the disk is not ours, that is said.
 * @status:  on failure, how the launcher ends for it: VM_EXIT_LOCKED, VM_EXIT_NO_DAEMON …
 * @why:     on failure, names disk, cause and way out.
 * Context: blocks, as long as a dead host's recovery takes.
 * Return: the descriptor; -errno.
 */
int source_connect(const struct config_disk *d, const char *vm, const char *run_dir,
		   struct source_hold *hold, enum vm_exit *status, char *why, size_t why_size);

/** source_release() - detaches a disk that was attached for us.  Waits a little until it is. */
void source_release(const struct config_disk *d, const char *run_dir);

/**
 * source_open() - a file to read: "/PATH" of this host, or "DS:/PATH" of a datastore, then a
 * copy in memory.
 * Return: the descriptor; -errno with @status and @why.
 */
int source_open(const char *name, const char *run_dir, enum vm_exit *status, char *why,
		size_t why_size);

/** source_is_datastore() - "DS:/PATH". */
bool source_is_datastore(const char *name);

#endif
