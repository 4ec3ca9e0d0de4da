/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lunfs-target's two halves.  The parent reads the configuration and the secrets, opens
 * files, devices and portals, and hands them over; the worker, unprivileged and confined,
 * does everything else.  The parent reads nothing from the network and, after the start,
 * nothing from the worker but that it is ready.
 */
#ifndef LUNFS_TARGET_TARGET_H
#define LUNFS_TARGET_TARGET_H

#include "block/blkdev.h"
#include "iscsi/config.h"

#define TARGET_MAGIC	0x4c545247u
#define TARGET_NAME	"lunfs-target"

/* From the parent to the worker; what comes beside each as descriptors. */
enum target_op {
	TARGET_HELLO = 1,	/* the first; none */
	TARGET_CONFIG,		/* the packed configuration that what follows belongs to */
	TARGET_PORTAL,		/* a listening socket */
	TARGET_LUN,		/* file or device, its lock[, state] */
	TARGET_CONTROL,		/* the listening socket that status is asked by */
	TARGET_SERVE,		/* nothing more is coming: serve by it; none */

	TARGET_READY,		/* the answer; from the worker */
};

struct target_packet {
	uint32_t magic;
	uint32_t op;
	union {
		struct {
			pid_t	parent;
			uid_t	uid;
			gid_t	gid;
		} hello;
		uint16_t portal_group;
		struct {
			char	iqn[SCSI_NAME_MAX];
			unsigned int number;
			struct blkdev_info info;
		} lun;
		int	err;		/* TARGET_READY: 0, or why not; the log says more */
	};
};

/* What the command line says; the rest is in the configuration. */
struct target_options {
	const char	*config_path;	/* NULL: everything is in config already */
	bool		state;		/* keep what survives a power loss in config->state_dir */
};

/**
 * target_read_config() - reads the file at @path and the secrets that it names.
 * Return: 0; negative errno with @why, which names file, line and column.
 */
int target_read_config(const char *path, struct tgt_config **out, char *why, size_t why_size);

/**
 * target_read_secrets() - fills @auth from the file that it names, which must belong to whom
 * we run as and be readable by nobody else.
 */
int target_read_secrets(struct tgt_auth *auth, char *why, size_t why_size);

/* In the state directory, which only its owner may enter: where status is asked for. */
#define TARGET_CONTROL_NAME	"control"

/** target_status_show() - asks the target that keeps its state in @state_dir, and prints what it
 * says, as JSON or for people.  Return: exit status. */
int target_status_show(const char *state_dir, bool json);

/** target_parent_run() - the program: returns its exit status when it has ended. */
int target_parent_run(const struct target_options *options, struct tgt_config *config);

/** target_worker_run() - the worker, with the descriptors of proc/spawn.h. */
int target_worker_run(void);

#endif
