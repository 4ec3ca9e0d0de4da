/* SPDX-License-Identifier: Apache-2.0 */
/* What lunfsd is told by its configuration file and command line.  lunfsd.conf(5). */
#ifndef LUNFS_DAEMON_CONFIG_H
#define LUNFS_DAEMON_CONFIG_H

#include <limits.h>
#include <stdio.h>

#include "base/env.h"

#define CONFIG_DEFAULT_FILE	"/etc/lunfs/lunfsd.conf"
#define CONFIG_DEFAULT_RUN_DIR	"/run/lunfs"
#define CONFIG_NAME_MAX		32	/* bytes of a host name, as a slot holds it */
#define CONFIG_THREADS_MAX	64
#define CONFIG_REACTORS_MAX	32
#define CONFIG_POLL_US_MAX	100000
#define CONFIG_POLL_US_DEFAULT	100
#define CONFIG_SHARES_DEPTH_MAX	1024
#define CONFIG_SHARES_DEPTH_DEFAULT 32
#define CONFIG_SCRUB_DEFAULT	(1024 * 1024)
#define CONFIG_SCRUB_MIN	4096
#define CONFIG_SCRUB_MAX	(1024ULL * 1024 * 1024 * 1024)
#define CONFIG_GIVEN_MAX	64u	/* datastores and disks together */
#define CONFIG_PORTALS_MAX	8u
#define CONFIG_STOP_MAX		3600
#define CONFIG_STOP_DEFAULT	45	/* below that of lunfsd.service, which kills */

struct config {
	char	run_dir[PATH_MAX];
	char	host_name[CONFIG_NAME_MAX + 1];	/* "": the machine's */
	uint8_t	host_id[16];
	bool	has_host_id;
	char	user[64];		/* of the worker; "": lunfs if it exists, else nobody */
	char	group[64];		/* who may ask for status; "": root only */
	enum log_level log_level;
	unsigned int threads;		/* that serve a mount; 0: chosen */
	unsigned int stop_timeout;	/* seconds in which everything is given back */
	char	disk_group[64];		/* who may connect to virtual disks; "": root only */
	unsigned int reactors;		/* that serve virtual disks; 0: chosen */
	unsigned int poll_us;		/* that one polls after the last work; 0: sleeps at once */
	unsigned int shares_depth;	/* requests at a device while disks with shares compete */
	uint64_t scrub_rate;		/* bytes a second; 0: no scrub */
	bool	guard;			/* a process ends a frozen worker: fencing rung B */
	char	watchdog[PATH_MAX];	/* a device that it feeds; "": none */
	char	iscsi_portals[CONFIG_PORTALS_MAX][64];	/* beyond loopback, of exported disks */
	unsigned int iscsi_portal_count;
	char	metrics_port[64];	/* "127.0.0.1:9100": loopback; "": none */
	char	iscsi_secrets[PATH_MAX];	/* CHAP of exported disks; "": none */
	unsigned int given_count;
	struct config_given {
		bool	is_disk;	/* DS:/path[,option…]; else a device to attach */
		char	text[PATH_MAX];
	} given[CONFIG_GIVEN_MAX];
};

/** config_init() - the defaults. */
void config_init(struct config *c);

/**
 * config_set() - one setting, as the file or the command line names it.
 * @why: on failure, what is wrong with it.
 * Return: 0; -ENOENT no such setting; -EINVAL a value that it cannot have.
 */
int config_set(struct config *c, const char *key, const char *value, char *why, size_t why_size);

/**
 * config_read() - settings from @in, of which @name tells messages.
 * @why: on failure "NAME:LINE:COLUMN: what is wrong".
 * Return: 0; -EINVAL, with @c half changed; -EIO.
 */
int config_read(struct config *c, FILE *in, const char *name, char *why, size_t why_size);

#endif
