/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A volume with millions of files that nobody wrote: each metadata block is worked out when it
 * is read.  Ten million inodes would be 80 GB of blocks else.
 *
 * Inodes lie in clusters, spread evenly over all groups; each cluster has a cell of its group to
 * itself, in which its files' blocks are scattered: small files of 1 to 32 blocks, whole units, one
 * file in 16 with a map leaf.  A directory has up to 1000 files.
 */
#ifndef LUNFS_TOOLS_BENCH_MANY_H
#define LUNFS_TOOLS_BENCH_MANY_H

#include <pthread.h>

#include "base/table.h"
#include "fs/super.h"
#include "lockd/lockrec.h"

#define MANY_DIR_FILES	1000u
#define MANY_CACHE	8u

/* What is wrong with all of it. */
enum many_damage {
	MANY_GOOD,
	MANY_NO_DIRS,		/* the inodes of directories are lost */
	MANY_NOWHERE,		/* they are free */
	MANY_TWICE,		/* every other file has the blocks of the one before it */
};

/* Names of a directory in the order of their hashes. */
struct many_name {
	uint64_t hash;
	uint32_t index;
};

struct many_names {
	uint64_t dir;			/* UINT64_MAX: none */
	uint32_t count;
	struct many_name *list;
};

struct many {
	struct super s;
	struct lockrec lock;		/* every lock block, free */
	uint64_t files, inodes, cells;	/* inodes: files and directories below the root */
	uint32_t dirs;
	enum many_damage damage;	/* GOOD after many_init() */
	uint32_t full_groups;		/* that have cells */
	uint32_t copy_ag, copy_cell;	/* place of a cell in which the superblock copy lies: unused */
	uint32_t base, stride;		/* blocks: the first cell of a group; from one to the next */
	struct many_names root;
	struct many_names cache[MANY_CACHE];
	unsigned int cache_next;
	/* What was written, by mkfs, by a repair: where in an unnamed file. */
	struct table written;
	uint32_t written_blocks;
	int	fd;
	pthread_mutex_t mutex;		/* all of the above that changes */
};

/**
 * many_init() - @m becomes a volume of @size bytes with @files files.
 * Return: 0; -EINVAL, -ENOSPC, -ENOMEM with @why.
 */
int many_init(struct many *m, struct env *env, uint64_t size, uint64_t files, char *why,
	      size_t why_size);
void many_fini(struct many *m);

/** many_block() - what block @number holds, by the plan or because it was written. */
void many_block(struct many *m, uint64_t number, void *block);

/** many_first() - the block at which the first of its inode clusters begins. */
uint64_t many_first(const struct many *m);

/** many_write() - from now on it holds this.  Return: 0, -ENOMEM, -EIO. */
int many_write(struct many *m, uint64_t number, const void *block);

/** many_each() - calls @fn for every block that is not all zeros, in order; an error ends it. */
int many_each(struct many *m, int (*fn)(void *arg, uint64_t number, const void *block), void *arg);

/** many_open() - a device that holds it; @m must outlive it. */
struct blkdev *many_open(struct many *m, struct env *env);

#endif
