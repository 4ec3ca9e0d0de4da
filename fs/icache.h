/* SPDX-License-Identifier: Apache-2.0 */
/* What fs/inode.c and fs/icache.c share. */
#ifndef LUNFS_FS_ICACHE_H
#define LUNFS_FS_ICACHE_H

#include "fs/inode.h"

#define INODE_CACHE_MAX	65536u
#define STAT_ENTRIES	2048u
#define STAT_CACHE_NS	(200 * NSEC_PER_MSEC)	/* well below the second that hosts may differ */

struct stat_entry {
	struct fs_attr	attr;
	uint64_t	until_ns;
};

struct inode_cache {
	struct fs	*fs;
	struct env_mutex mutex;		/* the cache's tables, refs; a leaf but for inode_forget() */
	struct table	table;		/* struct inode, by number */
	struct list	unused;		/* refs == 0, longest unused first */
	uint64_t	times_pass;	/* newest of inode_flush_times_all() */
	size_t		max;		/* objects, unless more are referenced */
	struct stat_entry stats[STAT_ENTRIES];
};

/** inode_find() - a reference if there is an object for @number, else NULL. */
struct inode *inode_find(struct fs *fs, uint64_t number);

/* Attributes read without a lock at @read_ns, believed for STAT_CACHE_NS. */
bool inode_stat_recall(struct fs *fs, uint64_t id, struct fs_attr *attr);
void inode_stat_remember(struct fs *fs, const struct fs_attr *attr, uint64_t read_ns);

/** inode_stat_drop() - forgets them: we are about to know better. */
void inode_stat_drop(struct fs *fs, uint64_t number);

#endif
