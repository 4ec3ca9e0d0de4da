/* SPDX-License-Identifier: Apache-2.0 */
/* What simdev*.c share: the LUN, its paths, the commands under way. */
#ifndef LUNFS_BLOCK_SIMDEV_INTERNAL_H
#define LUNFS_BLOCK_SIMDEV_INTERNAL_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "block/simdev.h"
#include "block/simstore.h"

struct rule {
	struct list node;
	struct simdisk_rule is;
	uint64_t passed;	/* matching commands that were let through */
	uint64_t hit;
};

/* A host as the LUN knows it (an I_T nexus): all its paths share one registration. */
struct nexus {
	struct list node;
	struct env *host;
	bool registered;
	uint64_t key;
	uint64_t stall_ns;
	struct simdisk_stats stats;
};

struct path {
	struct blkdev dev;
	struct list node;
	struct simdisk *disk;
	struct nexus *nexus;
	unsigned int outstanding;	/* requests whose done() has not returned */
	bool closed;
};

struct cmd {
	struct list node;	/* disk->cmds */
	struct simdisk *disk;
	struct nexus *nexus;
	struct path *path;
	struct blk_io *io;	/* the submitter's, until done() is called */
	struct blk_io copy;	/* ours, for as long as the command lives */
	struct iovec iov[2];	/* into data */
	uint8_t *data;
	bool faulty;		/* a rule struck */
	bool held;		/* not sent yet: its host stands still */
	bool corrupt;		/* a read: a bit of it flips, where @rule allows that */
	struct simdisk_rule rule;	/* what struck */
	int err;		/* what the device says */
	int err_forced;		/* what a rule, or an abort, makes of it */
	bool apply_due;		/* its event is under way */
	bool applying;
	bool complete_due;	/* not answered yet */
	bool complete_under_way;	/* its event is under way */
	bool delivering;	/* the host's interrupt is under way */
	uint64_t apply_ns, complete_ns;
	uint64_t covers;	/* a flush: how many writes had completed when it was submitted */
	uint64_t write_number;	/* in the store; 0: none */
};

struct simdisk {
	struct sim *sim;
	struct simdisk_params params;
	struct simstore store;
	struct list cmds, paths, nexuses, rules;
	uint64_t stall_ns;
	bool reserved;
	uint32_t pr_generation;
	void (*observe)(void *arg, struct env *host, const struct blk_io *io);
	void *observe_arg;
	void (*observe_submit)(void *arg, struct env *host, const struct blk_io *io);
	void *observe_submit_arg;
	struct simdisk_fates fates;
};

struct simdisk_image {
	struct simstore *store;	/* also of the disks that were restored from it */
	uint64_t size;
};

static inline struct path *path_of(struct blkdev *dev)
{
	return container_of(dev, struct path, dev);
}

/* Zeroed; aborts when there is none. */
static inline void *simdev_alloc(size_t size)
{
	void *p = calloc(1, size);

	if (!p)
		abort();
	return p;
}

/** simdev_stalled_until() - when a stall of @n, or of all, ends; 0: there is none. */
uint64_t simdev_stalled_until(const struct simdisk *disk, const struct nexus *n);

/** simdev_poll_wait() - sleeps, a little longer each time; @interval_ns begins at 0. */
void simdev_poll_wait(struct env *env, uint64_t *interval_ns);

/** simdev_abort_nexus() - all commands of @n that have reached the LUN end with -EIO. */
void simdev_abort_nexus(struct simdisk *disk, const struct nexus *n);

/* ---- simdev_pr.c ---- */

int simdev_pr_register(struct blkdev *dev, uint64_t old_key, uint64_t new_key);
int simdev_pr_reserve(struct blkdev *dev, uint64_t key);
int simdev_pr_preempt_abort(struct blkdev *dev, uint64_t key, uint64_t victim);
int simdev_pr_clear(struct blkdev *dev, uint64_t key);
int simdev_pr_read(struct blkdev *dev, struct blkdev_pr_state *state);

#endif
