/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An attached datastore, and everything a front end can do with it.
 *
 * Objects are named by inode ids (format.h).  Errors are negative errno, as the system call
 * of that name would return them, and: -ESTALE the id names an inode that is gone; -EIO also
 * when our slot is lost (front ends see no -ESTALE for that: fs_is_lost() tells).
 * Context: all block; any number of threads.  Permissions are checked by the caller (FUSE:
 * the kernel, default_permissions).
 */
#ifndef LUNFS_FS_FS_H
#define LUNFS_FS_FS_H

#include <stdatomic.h>
#include <sys/statvfs.h>

#include "fs/dir.h"
#include "fs/file.h"
#include "fs/orphan.h"
#include "fs/super.h"
#include "fs/xattr.h"

struct fs {
	struct env	*env;
	struct blkdev	*raw;		/* borrowed */
	struct blkdev	*dev;		/* behind the lease gate; raw in rescue mode */
	struct super	super;		/* it may grow: super_size(), fs_super_copy() */
	struct env_mutex super_mutex;	/* its changes; a leaf */
	struct lockd	*lockd;		/* NULL in rescue mode */
	struct buf_cache *bufs;
	struct journal	*journal;
	struct alloc	*alloc;
	struct inode_cache *inodes;
	struct orphans	*orphans;
	char		label[LABEL_MAX + 1];	/* for log lines */
	bool		read_only;
	bool		rescue;		/* takes no locks, reads home blocks only */
	bool		lost;		/* our slot is gone: read it with fs_is_lost() */
	_Atomic uint64_t full_ns;	/* when the device last refused a write for want of space; 0 */
	struct cover	super_cover;	/* the superblock's lock: directories that change parents */
	struct env_mutex rename_mutex;	/* the same among this host's threads, before it */
	struct env_mutex image_mutex;	/* every inode's chain of images; before lockd's and open_mutex */
	struct env_cond	image_linked;	/* a link of a chain has been made, or could not be */
	struct env_mutex open_mutex;	/* every inode's opens and caches; a leaf but for lockd */
	struct env_cond	brief_over;	/* an open with FS_OPEN_BRIEF has ended */
	unsigned int	caches;		/* front ends that cache contents; atomic */
	struct env_mutex attach_mutex;	/* attached; a leaf */
	struct env_cond	attach_changed;
	enum { FS_ATTACHING, FS_ATTACHED, FS_DETACHING } attached;
	struct env_rwlock settle_lock;	/* journal may not go away while lockd settles */
	/* Told when what the kernel may have cached of an inode is no longer covered. */
	void		(*invalidate)(void *arg, uint64_t id);
	/* Told, with its lock held, what lost its last name here.  Who has one yet may ask what it was. */
	void		(*gone)(void *arg, const struct fs_attr *attr);
	void		*invalidate_arg;
};

enum fs_attach_flags {
	FS_RESCUE	= 1 << 0,	/* read-only, no locks, no slot */
	FS_READ_ONLY	= 1 << 1,	/* takes a slot and shared locks, never writes files */
	FS_RESIGNATURE	= 1 << 2,	/* accept a copied device: give it a new volume id */
	FS_FORCE_UNSAFE	= 1 << 3,	/* allow fencing rung C */
};

struct fs_attach_params {
	struct env	*env;
	struct blkdev	*dev, *hb_dev;	/* borrowed until fs_detach() */
	unsigned int	flags;
	uint8_t		host_id[16], boot_id[16], machine_id[16];
	char		host_name[33];
	uint32_t	pid;
	uint64_t	pid_start;
	bool		watchdog, own_slot_is_dead;
	uint32_t	watchdog_ms;		/* these three: struct lockd_params */
	_Atomic uint64_t *guard;
	lockd_kill_fn	kill;
	void		*kill_arg;
	bool		(*may_beat)(void *arg);
	void		*may_beat_arg;
};

/**
 * fs_attach() - joins the volume on @p->dev: superblock, slot, replay, journal.
 * @why: on failure one line: object, cause, way out.
 * Return: 0; what super_read() and lockd_join() return; -ENOTUNIQ the device is a copy of
 * the volume's (needs FS_RESIGNATURE); -EPERM a local volume of another machine; -EROFS.
 */
int fs_attach(const struct fs_attach_params *p, struct fs **out, char *why, size_t why_size);

/**
 * fs_detach() - settles and leaves; no file may be open.  @fs is gone in every case.  Deletions
 * that the reaper can finish within three seconds are finished; the rest stays on the slot's
 * list for its next owner.
 */
int fs_detach(struct fs *fs);

bool fs_is_lost(struct fs *fs);
uint64_t fs_root(const struct fs *fs);

/* ---- names (namei.c) ---- */

struct fs_file;

/*
 * Who asks.  @umask: applied to new objects unless the directory has a default ACL, which
 * takes its place (front ends that mask themselves pass 0).
 */
struct fs_cred { uint32_t uid, gid; uint32_t pid; uint32_t umask; char comm[25]; };

/*
 * Of a name that any host made, moved or removed the new state is seen by whoever asks after that
 * host was told that it is done.  Attributes that were read while another host has the file's lock
 * may be as old as that host's last checkpoint, under a second.  None of these answers without a
 * valid lease (R2): they stall with it, and fail with -EIO when the slot is lost.
 */

/** fs_lookup() - under the directory's lock, see dir_lookup_shared(); "." and ".." too. */
int fs_lookup(struct fs *fs, uint64_t dir, const char *name, struct fs_attr *attr);
/**
 * fs_lookup_shown() - the same for who only shows the name: if another host lives, but does not get on
 * with what it changed there (its writes wait for space, its device hangs), what lies at home is shown
 * after some 5 s instead of -EBUSY, not to be cached.  That there is no such name is never said so.
 */
int fs_lookup_shown(struct fs *fs, uint64_t dir, const char *name, struct fs_attr *attr);
/** fs_resolve() - "/a/b/c" from the root, not following symbolic links: a fs_lookup() each. */
int fs_resolve(struct fs *fs, const char *path, struct fs_attr *attr);
int fs_getattr(struct fs *fs, uint64_t id, struct fs_attr *attr);

enum fs_set { FS_SET_MODE = 1, FS_SET_UID = 2, FS_SET_GID = 4, FS_SET_SIZE = 8,
	      FS_SET_ATIME = 16, FS_SET_MTIME = 32, FS_SET_CTIME = 64, FS_CLEAR_SET_ID = 128 };
/** fs_setattr() - those of @attr that @set names; returns all in @attr.  FS_CLEAR_SET_ID: as
 * fs_drop_privileges(), of the mode as it is then. */
int fs_setattr(struct fs *fs, uint64_t id, unsigned int set, struct fs_attr *attr);

/** fs_create() - any type: mode with S_IFMT; a setgid @dir hands its group (and, to
 * directories, the bit) down.  -EEXIST. */
int fs_create(struct fs *fs, uint64_t dir, const char *name, uint32_t mode, uint64_t rdev,
	      const struct fs_cred *cred, struct fs_attr *attr);
/**
 * fs_create_unnamed() - a regular file without a name (O_TMPFILE), opened with @open_flags: it goes with its last
 * close, or a crash, unless fs_link() gives it a name before.  @dir lends it group, default ACL and place.
 */
int fs_create_unnamed(struct fs *fs, uint64_t dir, uint32_t mode, const struct fs_cred *cred,
		      unsigned int open_flags, struct fs_file **out, struct fs_attr *attr);
int fs_symlink(struct fs *fs, uint64_t dir, const char *name, const char *target,
	       const struct fs_cred *cred, struct fs_attr *attr);
/** fs_readlink() - @buf of at least 4096 bytes; terminated. */
int fs_readlink(struct fs *fs, uint64_t id, char *buf, size_t size);
/** fs_link() - -ENOENT what has lost its last name. */
int fs_link(struct fs *fs, uint64_t id, uint64_t dir, const char *name, struct fs_attr *attr);
int fs_unlink(struct fs *fs, uint64_t dir, const char *name);
int fs_rmdir(struct fs *fs, uint64_t dir, const char *name);
/** fs_rename() - @flags: 0, RENAME_NOREPLACE or RENAME_EXCHANGE of <linux/fs.h>. */
int fs_rename(struct fs *fs, uint64_t dir, const char *name, uint64_t new_dir,
	      const char *new_name, unsigned int flags);
/** fs_readdir() - as dir_list_shared(): certain if it begins at 0; the caller adds . and ... */
int fs_readdir(struct fs *fs, uint64_t dir, uint64_t from, dir_emit_fn emit, void *arg);
/** fs_parent() - the directory that holds @id's name (for ".."). */
int fs_parent(struct fs *fs, uint64_t id, uint64_t *parent);

/** fs_path() - "/vm1/disk.img", by the names that lead back; "inode N" where they do not.
 * For people: takes no lock and may be a moment old.  Returns @buf. */
char *fs_path(struct fs *fs, uint64_t id, char *buf, size_t size);

/* ---- open files ---- */

enum fs_open_flags {
	FS_OPEN_WRITE	= 1 << 0,
	FS_OPEN_TRUNCATE = 1 << 1,
	FS_OPEN_MULTI	= 1 << 2,
	/* To read what nobody changes meanwhile: not even this host has it open for writing,
	 * or opens it so; -EBUSY. */
	FS_OPEN_DENY_WRITE = 1 << 3,
	/* To write what nobody else of this host opens meanwhile, nor cuts; -EBUSY. */
	FS_OPEN_SOLE	= 1 << 4,
	/*
	 * For a moment, to write: who wants the file meanwhile, here or elsewhere, waits rather than
	 * being refused; while somebody does it is this open that gets -EBUSY, without a log line.
	 */
	FS_OPEN_BRIEF	= 1 << 5,
};

struct fs_file {
	struct inode	*ino;
	uint64_t	id;
	unsigned int	flags;
	enum lock_mode	mode;
	bool		chained;	/* image_open()ed */
	bool		kept;		/* contents unchanged since this host last had it open */
	const void	*cache;		/* see fs_cache_open() */
	uint64_t	cache_gen;
};

/**
 * fs_open() - takes the file's lock (shared to read, exclusive to write) for the open's life.
 * @holder: filled in on -EBUSY.  -EBUSY is logged, naming the holder.
 */
int fs_open(struct fs *fs, uint64_t id, unsigned int flags, const struct fs_cred *cred,
	    struct fs_file **out, struct lock_holder *holder);
int fs_close(struct fs *fs, struct fs_file *f);

/**
 * fs_cache_open() - whether what front end @cache (any address of its own; NULL: it caches
 * nothing of this open) has cached of the contents may stay; else it must drop that.
 * fs_cache_opened(): it has (an open whose answer never arrived has not).  Writes through other
 * front ends end in fs->invalidate().
 */
bool fs_cache_open(struct fs *fs, struct fs_file *f, const void *cache);
void fs_cache_opened(struct fs *fs, struct fs_file *f);
int fs_read(struct fs *fs, struct fs_file *f, uint64_t off, void *buf, size_t len, size_t *done);
/** fs_write() - as file_write().  A file of several writers: whole blocks within its size,
 * else -EINVAL and -EPERM. */
int fs_write(struct fs *fs, struct fs_file *f, uint64_t off, const void *buf, size_t len,
	     bool append, size_t *done);
int fs_fsync(struct fs *fs, struct fs_file *f, bool data_only);
int fs_fallocate(struct fs *fs, struct fs_file *f, unsigned int file_flags, uint64_t off,
		 uint64_t len);
/** fs_drop_zeros() - as file_drop_zeros(); @f is open for writing. */
int fs_drop_zeros(struct fs *fs, struct fs_file *f, uint64_t *unit, void *buf,
		  uint64_t *dropped);
int fs_seek(struct fs *fs, struct fs_file *f, uint64_t off, int whence, uint64_t *found);

/** fs_sync() - everything of this host durable. */
int fs_sync(struct fs *fs);
/** fs_sync_names() - every name made, moved or removed so far: fsync(2) of a directory. */
int fs_sync_names(struct fs *fs);
int fs_statfs(struct fs *fs, struct statvfs *st);

#endif
