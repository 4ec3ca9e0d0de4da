/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The datastores that this daemon has attached, and their mounts.
 *
 *              store_attach()                 store_detach(), last umount
 *   (none) ──────────────────► ATTACHING ─► ATTACHED ─► DETACHING ─► (gone)
 *                                  └── failed ──────────────────────────┘
 *
 * Attaching and detaching take as long as the device does; the list's mutex is never held
 * meanwhile, so that everything else goes on.
 */
#ifndef LUNFS_DAEMON_STORE_H
#define LUNFS_DAEMON_STORE_H

#include <limits.h>
#include <pthread.h>

#include "daemon/rpc_client.h"
#include "fs/image.h"
#include "fuse/fuse_mount.h"

#define STORES_MAX	64
#define STORE_WORKERS	16u	/* for what blocks: misses, space, flushes, opening, closing of disks */
#define STORE_WHY_SIZE	512

struct stores;
struct store_checks;

/* Beside enum fs_attach_flags: a datastore that is attached read-only will do. */
#define STORE_READ_ONLY_WILL_DO	(1u << 31)

/* How far the merge below a disk has come; stores->mutex. */
#define STORE_MERGES	16u
struct store_merge {
	uint64_t	disk;		/* id; 0: none */
	bool		busy;		/* somebody does a step */
	uint64_t	asked_ns;	/* when a client last did one; 0: none has */
	uint64_t	used_ns;
	struct merge	m;
};

enum store_state { STORE_ATTACHING, STORE_ATTACHED, STORE_DETACHING };

struct store {
	struct list	node;		/* in stores->list */
	struct stores	*all;
	char		device[PATH_MAX];	/* canonical path */
	uint64_t	backing_dev, backing_ino;	/* the same for every path to the device */
	unsigned int	flags;		/* enum fs_attach_flags */
	enum store_state state;
	bool		implicit;	/* a mount attached it: the last umount detaches it */
	unsigned int	refs;		/* commands, mounts and virtual disks that use it */
	unsigned int	background;	/* of these, work that gives way to a detach … */
	bool		leaving;	/* … which waits for that; atomic */
	unsigned int	disks;		/* of these, virtual disks */
	struct workers	*workers;	/* of its disks, from the first one on: of nobody else's */
	unsigned int	disks_ending;	/* by the daemon's end; disks.mutex */
	struct store_merge merges[STORE_MERGES];	/* merger.c */
	struct store_checks *checks;	/* checker.c */
	struct list	mounts;		/* struct mount; changed under both mutexes */
	pthread_mutex_t	mounts_mutex;	/* a leaf: lockd's threads walk the list */

	/* While ATTACHED. */
	struct fs	*fs;
	struct blkdev	*dev, *hb_dev;
	struct blkdev_info info;
	char		lun[sizeof(((struct blkdev_info *)NULL)->identity)];	/* mutex; of a SCSI LUN */
	int		data_fd;	/* to be dup()ed by who wants a handle of his own; -1: none may */
	unsigned int	word;		/* of the guard's */
	bool		is_lun;		/* this process speaks iSCSI itself */
	int		lock_fd;	/* names the device to RPC_KILL; -1: no fencing by killing */
	int		host_lock_fd;	/* held: no other process is this host there … */
	int		lun_lock_fd;	/* … and this: by no other way to the same LUN either */
};

struct mount {
	struct list	node;		/* in store->mounts, at its end in stores->ending */
	struct store	*store;
	struct mnt	*mnt;
	char		dir[PATH_MAX];
	uint32_t	dev_minor;
	bool		ended;		/* the kernel is through with it */
	bool		claimed;	/* somebody is ending it */
	bool		forgotten;	/* unmounted by our parent, who knows nothing of it any more */
};

struct stores {
	struct rpc_client *rpc;
	const struct rpc_hello *hello;
	uint64_t	pid_start;	/* of this process */
	struct guard_page *guard;	/* NULL: none */
	uint64_t	words_used;	/* mutex: bits, of the guard's words */
	bool		(*may_beat)(void *arg);
	void		*may_beat_arg;
	pthread_mutex_t	mutex;		/* everything below, and every store's state */
	pthread_cond_t	changed;
	struct list	list;
	struct list	ending;		/* struct mount */
	unsigned int	count;
	bool		stopping;
	uint64_t	scrub_rate;	/* bytes a second; 0: no scrub */
	pthread_t	reaper;		/* ends what was unmounted */
};

/** stores_init() - an empty list, and the thread that ends unmounted mounts. */
int stores_init(struct stores *all, struct rpc_client *rpc, const struct rpc_hello *hello,
		uint64_t pid_start, struct guard_page *guard, bool (*may_beat)(void *arg),
		void *may_beat_arg);

/** stores_shutdown() - unmounts and detaches everything; refuses all that comes later.
 * Return: 0; the first error, with everything tried all the same. */
int stores_shutdown(struct stores *all);

/**
 * store_attach() - the datastore on @device, attached already or now.
 * @asker:    the root client's connection, as proof for the parent; -1: root has asked for it
 *            before, to the daemon's last incarnation or in the configuration.
 * @implicit: detach it again with its last mount.
 * @out:      receives a reference, to be given back with store_put().
 * Return: 0; what fs_attach() returns; -ESHUTDOWN; -EMFILE; with @why.
 */
int store_attach(struct stores *all, const char *device, unsigned int flags, int asker,
		 bool implicit, struct store **out, char *why, size_t why_size);

/**
 * store_detach() - gives the reference back and detaches.
 * @force: unmounts it first, whoever uses what is mounted.
 * Return: 0; -EBUSY it has mounts, or disks are attached; what fs_detach() returns, and it is
 * detached; with @why.
 */
int store_detach(struct store *s, bool force, char *why, size_t why_size);

/**
 * store_get() - an attached datastore by label, UUID or device path.
 * @to_detach: of a volume that is attached for rescue besides, the one that nothing uses.
 * Return: 0, with a reference; -ENOENT; -ENOTUNIQ several have that label; with @why.
 */
int store_get(struct stores *all, const char *name, bool to_detach, struct store **out, char *why,
	      size_t why_size);
void store_put(struct store *s);

struct store_mount_params {
	const char *source;	/* as the administrator wrote it; shown by mount(8) */
	const char *dir;
	unsigned long flags;	/* of mount(2) */
	bool read_only;		/* one of them */
	int asker;		/* as in store_attach() */
};

/** store_mount() - mounts; @dir receives the mount point as the kernel names it. */
int store_mount(struct store *s, const struct store_mount_params *p, char dir[PATH_MAX],
		char *why, size_t why_size);

#endif
