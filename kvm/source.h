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

/* What a disk's lock says of the machine that had it. */
enum source_past {
	SOURCE_FREE,		/* it does not run, or its machine was stopped; who has it is no machine */
	SOURCE_LEFT,		/* its host died with it */
	SOURCE_HELD,		/* it runs, on this host or another */
};

/** source_past() - of disk @d, whose machine is @vm.  Return: 0; -errno with @why. */
int source_past(const struct config_disk *d, const char *vm, const char *run_dir,
		enum source_past *past, char *why, size_t why_size);

/**
 * source_datastores() - labels of the datastores that lunfsd has, at most @max of them.
 * Return: how many; -errno with @why.
 */
#define SOURCE_DS_SIZE	128
int source_datastores(const char *run_dir, char (*names)[SOURCE_DS_SIZE], unsigned int max,
		      char *why, size_t why_size);

/**
 * source_each_directory() - calls @fn for each directory in the root of datastore @ds.
 * Return: 0; -errno with @why.
 */
int source_each_directory(const char *ds, const char *run_dir,
			  void (*fn)(const char *ds, const char *name, void *arg), void *arg,
			  char *why, size_t why_size);

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
