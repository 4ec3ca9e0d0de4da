/* SPDX-License-Identifier: Apache-2.0 */
/* The worker's logical units: files that the parent opened, behind SCSI targets. */
#ifndef LUNFS_TARGET_UNITS_H
#define LUNFS_TARGET_UNITS_H

#include "target/target.h"

struct unit;		/* a file that the parent sent */
struct unit_target;

struct units {
	struct reactor	**reactors;	/* borrowed */
	unsigned int	reactor_count;
	struct env_mutex mutex;		/* targets: units_find() is called from reactors; a leaf */
	struct list	targets;
	struct list	files;
};

int units_init(struct units *units, struct reactor **reactors, unsigned int reactor_count);

/** units_fini() - every session has ended. */
void units_fini(struct units *units);

/**
 * units_take() - a file for a logical unit that units_apply() will find in its configuration.
 * @fds: file, its lock[, state]; taken over.  Return: 0; -EPROTO, -ENOMEM.
 */
int units_take(struct units *units, const struct target_packet *packet, const int *fds,
	       unsigned int fd_count);

/**
 * units_apply() - makes targets and logical units of @config that are not there yet, and has
 * the others look at their sizes again.  Context: none of the reactors.
 * Return: 0, or the first error; the rest is done all the same.
 */
int units_apply(struct units *units, const struct tgt_config *config);

/**
 * units_remove() - takes away the logical units that @config has no more; units_close_removed() is to
 * follow.  Context: none of the reactors; no device is waited for.
 */
void units_remove(struct units *units, const struct tgt_config *config);

/**
 * units_close_removed() - closes what they stood on, of each once its device has answered all.
 * @patience_ns: for all together.  Context: none of the reactors.
 * Return: whether there are some yet: to be called again.
 */
bool units_close_removed(struct units *units, uint64_t patience_ns);

/** units_look_at_sizes() - units whose files have grown hear of it.  As units_apply(). */
void units_look_at_sizes(struct units *units);

/** units_find() - the SCSI target of that name, or NULL.  @arg: struct units.  Any thread. */
struct scsi_target *units_find(void *arg, const char *iqn);

#endif
