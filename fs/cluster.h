/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cluster locks as fs/ takes them.  Without lockd (fs->lockd == NULL: tools and unit tests
 * that own the device alone) every lock is granted; a rescue mount gets none.
 */
#ifndef LUNFS_FS_CLUSTER_H
#define LUNFS_FS_CLUSTER_H

#include <errno.h>

#include "fs/fs.h"

/** cluster_get() - lock_get() of the datastore's lockd; -EROFS on a rescue mount. */
static inline int cluster_get(struct fs *fs, struct lock *lock, enum lock_mode mode,
			      unsigned int flags, struct lock_holder *holder)
{
	if (fs->lockd)
		return lock_get(fs->lockd, lock, mode, flags, holder);
	return fs->rescue ? -EROFS : 0;
}

static inline void cluster_put(struct fs *fs, struct lock *lock, enum lock_mode mode,
			       unsigned int flags)
{
	if (fs->lockd)
		lock_put(fs->lockd, lock, mode, flags);
}

/** cluster_held() - the mode that this host holds right now; may be dropped if unused. */
static inline enum lock_mode cluster_held(struct fs *fs, struct lock *lock)
{
	if (fs->lockd)
		return lock_held(fs->lockd, lock);
	return fs->rescue ? LOCK_FREE : LOCK_EXCLUSIVE;
}

/** cluster_evict() - lock_evict(); without lockd there is nothing to give up. */
static inline int cluster_evict(struct fs *fs, struct lock *lock)
{
	return fs->lockd ? lock_evict(fs->lockd, lock) : 0;
}

#endif
