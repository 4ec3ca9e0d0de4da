/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LUNFS_KVM_PARENT_H
#define LUNFS_KVM_PARENT_H

#include "kvm/config.h"
#include "kvm/report.h"

#define LUNVM_DEFAULT_RUN_DIR	"/run/lunvm"

struct run_options {
	const char	*run_dir;	/* of lunvm: sockets and locks */
	const char	*daemon_dir;	/* of the lunfsd to ask for disks */
	const char	*user;		/* whom the machine runs as; "" the default */
	bool		detach;		/* return when the guest runs */
	bool		json;		/* standard output is for events, a line of JSON each, not the console */
	uint64_t	start_ns;	/* CLOCK_BOOTTIME when the program began */
};

/**
 * parent_run() - runs the machine of @c, which vm_config_check() found fine, until it ends.
 * Prints one line that says how.  Return: enum vm_exit; with options.detach VM_EXIT_POWER_OFF
 * once it runs.  With options.json {"event":"running"}, "restarting" and "ended", each with "name".
 */
int parent_run(const struct vm_config *c, const struct run_options *options);

/** parent_socket_path() - the control socket of machine @name.  Return: 0 or -ENAMETOOLONG. */
int parent_socket_path(const char *run_dir, const char *name, char *path, size_t path_size);

#endif
