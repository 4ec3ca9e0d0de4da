/* SPDX-License-Identifier: Apache-2.0 */
/* What the parent opens for the worker: portals, and files and devices behind logical units. */
#ifndef LUNFS_TARGET_OPEN_H
#define LUNFS_TARGET_OPEN_H

#include "block/blkfile.h"
#include "iscsi/config.h"

/* A logical unit's file.  Once it is sent only the lock remains open here, and there. */
struct target_lun_file {
	char	iqn[SCSI_NAME_MAX];
	unsigned int number;
	char	path[PATH_MAX];
	int	lock_fd;	/* holds the flock() that keeps another target away */
	int	state_fd;	/* or -1 */
	struct blkfile_handle handle;
	bool	sent;
};

struct target_files {
	int	portals[TGT_PORTALS_MAX];
	unsigned int portal_count;
	struct target_lun_file *luns;
	unsigned int lun_count;
	int	control;	/* listening socket, or -1 */
	char	control_path[PATH_MAX];	/* "": none */
};

void target_files_init(struct target_files *files);
void target_files_close(struct target_files *files);

/**
 * target_portals_open() - binds and listens.  A port of 0 in @config becomes the one that the
 * kernel has chosen.  Waits a moment for a target that is ending.  Return: 0; -errno with @why.
 */
int target_portals_open(struct target_files *files, struct tgt_config *config, char *why,
			size_t why_size);

/**
 * target_portals_change() - the same for those of @config that are new; @old[i], as it was asked
 * for once, is served already at @bound[i].
 *
 * A portal that stays gets its address, with the port, and its group from @bound.  On failure
 * nothing is left open.
 */
int target_portals_change(struct target_files *files, const struct tgt_portal *old,
			  const struct tgt_portal *bound, unsigned int count,
			  struct tgt_config *config, char *why, size_t why_size);

/** target_portals_drop() - closes what was opened and not yet given to the worker. */
void target_portals_drop(struct target_files *files);


/**
 * target_files_open() - opens what @config names and is not open yet.
 * @state: with a state file for each in config->state_dir; or without.
 * Return: 0; -EBUSY another target serves the file, and did not end within a moment; -errno;
 * with @why, and nothing opened.
 */
int target_files_open(struct target_files *files, const struct tgt_config *config, bool state,
		      char *why, size_t why_size);

/**
 * target_control_open() - the socket in @state_dir that `--status` asks at.  Another target's
 * that uses the same directory stays; without a socket everything else works.
 * Return: 0; -errno with @why.
 */
int target_control_open(struct target_files *files, const char *state_dir, char *why,
			size_t why_size);

/** target_files_forget() - those that @config has no more; the worker closes its own. */
void target_files_forget(struct target_files *files, const struct tgt_config *config);

/** target_file_sent() - the worker has them: closes what this side does not need. */
void target_file_sent(struct target_lun_file *f);

#endif
