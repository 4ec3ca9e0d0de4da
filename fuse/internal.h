/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of fuse/ share. */
#ifndef LUNFS_FUSE_INTERNAL_H
#define LUNFS_FUSE_INTERNAL_H

#define FUSE_USE_VERSION 312

#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/uio.h>

#include "base/table.h"
#include "fs/fs_io.h"
#include "fuse/fuse_mount.h"

#define MNT_IO_MAX	(1 * MIB)	/* largest read or write */
#define MNT_COMMS	64		/* process names remembered */
#define MNT_REMOVED	4096		/* things without names remembered */
#define MNT_ASKED	64		/* that were told to look a name up again */

/*
 * How long the kernel may believe what it was told, in seconds.  Attributes that this host's
 * locks cover: until we say otherwise (mnt_invalidate()), but not much longer than a moment,
 * in case a notice is late; others not at all, because another host may change them.  Names:
 * as long as this host keeps the directory's lock for that (dir_names_keep()), less NAME_LATE_NS.
 */
#define COVERED_TIMEOUT_S	0.5
#define UNCOVERED_TIMEOUT_S	0.0
#define NAME_LATE_NS		(150 * NSEC_PER_MSEC)	/* an answer's way into the kernel */

struct mnt_comm {
	uint32_t pid;
	uint64_t until_ns;
	char	comm[25];
};

struct mnt_removed {
	struct table_node node;
	struct list	link;
	struct fs_attr	attr;
};

/* A thread that wanted to write a snapshot. */
struct mnt_asked {
	uint64_t id, until_ns;
	uint32_t pid;
};

/*
 * A request of the kernel, received into memory laid out so that the data of a WRITE begins
 * at a page boundary: it goes to the device from there.  The data of a READ is fetched into
 * the same pages, which a READ request leaves unused; there is room for the answer's header
 * before them.
 */
#define REQUEST_HEADER	80u	/* struct fuse_in_header and struct fuse_write_in */
#define SLOT_BYTES	(MNT_IO_MAX + 64 * KIB)
#define SLOTS_SPARE	64u	/* requests under way beside those that threads work on */
#define TICK_NS		(100 * (long)NSEC_PER_MSEC)

struct mnt_slot {
	struct fs_io	fio;
	struct mnt	*mnt;
	struct mnt_slot	*next;	/* spare, or late */
	uint8_t		*memory;
	uint64_t	unique;	/* the kernel's name for the request */
	int		err;	/* of a late one */
};

static inline uint8_t *slot_request(struct mnt_slot *s)
{
	return s->memory + BLOCK_SIZE - REQUEST_HEADER;
}

static inline uint8_t *slot_data(struct mnt_slot *s)
{
	return s->memory + BLOCK_SIZE;
}

/* Agreed on with the kernel beside libfuse, see fuse_newer.c; written before anything else is under way. */
struct mnt_newer {
	uint64_t	unique;		/* of INIT … */
	bool		answer;		/* … whose answer is to come */
	uint32_t	flags, flags2;
};

struct mnt_thread {
	struct mnt	*mnt;
	struct mnt_thread *next;
	pthread_t	thread;
	struct mnt_slot	*slot;		/* what it receives into */
	/* Of the request that it executes, what libfuse cannot say: see fuse_newer.c. */
	bool		acl_kills_sgid;	/* SETXATTR of an ACL */
	bool		unnamed;	/* CREATE is TMPFILE */
	struct mnt_slot	*batch[FS_IO_BATCH];	/* prepared, not submitted */
	unsigned int	batched;
};

struct mnt {
	struct fs	*fs;
	struct fuse_session *se;
	struct mnt_options o;
	char		dir[256];
	int		fd;		/* /dev/fuse: the session's */
	int		epoll;		/* has it, edge-triggered */
	struct mnt_newer newer;

	atomic_uint	waiting;	/* threads that wait for a request, or are about to */
	atomic_uint	under_way;	/* requests that no thread works on */
	atomic_bool	stopping;

	pthread_mutex_t	slot_mutex;
	struct mnt_slot	*spare;

	pthread_mutex_t	mutex;		/* everything below but the counters */
	pthread_cond_t	changed;
	pthread_cond_t	unparked;
	struct mnt_thread *threads;
	unsigned int	thread_count;
	unsigned int	parked;		/* threads that are not needed now */
	unsigned int	wanted;		/* … of which so many are to wake up */
	unsigned long	ticked;		/* requests at the last tick */
	struct mnt_slot	*late;		/* timed out: their ends may take long */
	bool		notifier_stop;
	bool		ended;		/* unmounted() was or is being called */
	struct list	files;		/* open: struct mnt_file.node */
	struct mnt_comm	comms[MNT_COMMS];

	/*
	 * What lost its last name on this host and the kernel has not forgotten yet: those who still
	 * stand in a directory find it empty, and who has something open, be it with O_PATH, finds what
	 * it was, as everywhere; ESTALE is for what another host removed.
	 */
	struct table	removed;	/* struct mnt_removed.node, by id */
	struct list	removed_order;	/* .link, oldest first: one too many makes room */
	atomic_uint	removed_count;

	/* Who was told that a snapshot's inode is stale, and may come again by its right name. */
	struct mnt_asked asked[MNT_ASKED];
	unsigned int	asked_next;

	/*
	 * Inodes to tell the kernel about.  What does not fit is lost, and nobody is deceived for
	 * long: attributes are believed for COVERED_TIMEOUT_S, contents are looked at by each open.
	 */
	uint64_t	stale[1024];
	unsigned int	stale_head, stale_count;
	bool		notifying;	/* the notifier is in the kernel, which may wait for a reply … */
	bool		quiet;		/* … so it goes there no more: the replies are about to end */
	pthread_t	notifier;

	atomic_ulong	requests, reads, writes, open_files;
};

/* An open file: what fi->fh points to. */
struct mnt_file {
	struct list	node;
	struct fs_file	*file;
};

/*
 * Whether a write past the kernel's cache, or a truncation, clears set-id bits; of what its cache takes it has
 * done so before.  The kernel does not say who has CAP_FSETID.
 */
static inline bool mnt_clears_set_id(uint32_t uid)
{
	return uid != 0;
}

static inline struct mnt *mnt_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* The kernel calls the root 1; LunFS calls it by its inode id. */
static inline uint64_t mnt_id(const struct mnt *m, fuse_ino_t ino)
{
	return ino == FUSE_ROOT_ID ? fs_root(m->fs) : ino;
}

static inline fuse_ino_t mnt_nodeid(const struct mnt *m, uint64_t id)
{
	return id == fs_root(m->fs) ? FUSE_ROOT_ID : id;
}

/** mnt_error() - answers @req with @err (negative errno); what only we know becomes EIO. */
void mnt_error(fuse_req_t req, int err);

/** mnt_cred() - who asks; with the process's name only if @comm, since that costs a call. */
void mnt_cred(fuse_req_t req, bool comm, struct fs_cred *cred);

/** mnt_stat() - @attr as the kernel wants it. */
void mnt_stat(const struct fs_attr *attr, struct stat *st);

/** mnt_entry() - the answer to a lookup, a creation or a directory entry. */
void mnt_entry(const struct mnt *m, const struct fs_attr *attr, struct fuse_entry_param *e);

/** mnt_timeout() - for how long @attr may be believed. */
double mnt_timeout(const struct fs_attr *attr);

/** mnt_errno() - @err (negative errno) as the kernel is told. */
int mnt_errno(const struct mnt *m, int err);

/**
 * mnt_maybe_stale() - @err of a change of inode @id, or -ESTALE: a snapshot was made of the file a
 * moment ago, on whichever host, and what the kernel took for the file is the snapshot.  It looks the
 * name up again then; who asks again has named the snapshot.
 */
int mnt_maybe_stale(fuse_req_t req, uint64_t id, int err);

/** mnt_data() - the calling thread's aligned buffer of MNT_IO_MAX bytes. */
uint8_t *mnt_data(void);

/** mnt_writable() - answers EROFS and returns false on a read-only mount. */
bool mnt_writable(fuse_req_t req);

/* fuse_data.c */
int mnt_slots_init(struct mnt *m);
void mnt_slots_fini(struct mnt *m);
struct mnt_slot *mnt_slot_new(struct mnt *m);
void mnt_slot_free(struct mnt_slot *s);
/** mnt_slot_take() - a spare one, or NULL. */
struct mnt_slot *mnt_slot_take(struct mnt *m);
void mnt_slot_give(struct mnt_slot *s);

/**
 * mnt_data_prepare() - whether the request of @n bytes in @s is a plain read or write: then
 * one of the next two must follow, before anything that may wait.
 */
bool mnt_data_prepare(struct mnt_slot *s, size_t n);
/** mnt_data_run() - executes and answers it in the calling thread, which keeps @s. */
void mnt_data_run(struct mnt_slot *s);
/** mnt_data_submit() - starts them; whoever completes them answers, and they become spare. */
void mnt_data_submit(struct mnt *m, struct mnt_slot **slots, unsigned int count);
/** mnt_data_late() - the end of one that timed out; may block. */
void mnt_data_late(struct mnt_slot *s);

/* fuse_newer.c */
/** mnt_newer_request() - @request of @n bytes, before libfuse sees it.  Return: its bytes from here on. */
size_t mnt_newer_request(struct mnt_thread *t, void *request, size_t n);
/** mnt_newer_answer() - an answer, before the kernel sees it. */
void mnt_newer_answer(struct mnt *m, const struct iovec *iov, int count);

/* fuse_threads.c */
/** mnt_this_thread() - whose request is being executed. */
const struct mnt_thread *mnt_this_thread(void);
int mnt_threads_start(struct mnt *m);
void mnt_threads_stop(struct mnt *m);
/** mnt_threads_tick() - now and then, mutex held: is there anybody to take a request? */
void mnt_threads_tick(struct mnt *m);
/* fuse_files.c */
void mnt_file_ops(struct fuse_lowlevel_ops *ops);
void mnt_file_close(struct mnt *m, struct mnt_file *f);
/* fuse_names.c */
void mnt_name_ops(struct fuse_lowlevel_ops *ops);
/** mnt_forgotten() - the kernel knows nothing of @id any more. */
void mnt_forgotten(struct mnt *m, uint64_t id);
/** mnt_forget_all() - frees what was remembered of things without names. */
void mnt_forget_all(struct mnt *m);
/* fuse_readdir.c */
void mnt_readdir_ops(struct fuse_lowlevel_ops *ops);

#endif
