/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attached virtual disks: each with a socket for front ends (vhost-user-blk), on a reactor.
 *
 *   disks_attach() ──► LISTENING ──rings start: lock──► OPEN ──front end closes: R4──► LISTENING
 *                          └── changed by others meanwhile ──► ENDED (only disks_detach() helps)
 *
 * Or, with options.portal, a LUN of a portal (exports.h): OPEN from the beginning to the end, for
 * initiators come back without a word and take what they find for what they left.
 *
 * What is attached is written down (disks_state.c), so that a daemon that was killed, or
 * upgraded, serves it again under guests that run on: the lock is taken back only from exactly
 * the record that was left.
 */
#ifndef LUNFS_DAEMON_DISKS_H
#define LUNFS_DAEMON_DISKS_H

#include <pthread.h>

#include "base/text.h"
#include "block/blkpoll.h"
#include "daemon/exports.h"
#include "daemon/store.h"
#include "fs/disk.h"
#include "vhost/vhu.h"

#define DISKS_MAX		1024
#define DISKS_REACTORS_MAX	32
#define DISKS_WRITERS	16
#define DISK_SERIAL_MAX		VHU_SERIAL_SIZE
#define DISK_USER_MAX		24	/* as long as a lock record tells */
#define DISK_ENDED_SIZE		128
#define NAME_TRIES		8u	/* a name may be given to another inode that often meanwhile */

struct disks;
struct merger;

struct disk_options {
	bool		read_only;
	enum disk_enospc enospc;
	struct disk_limits limits;
	unsigned int	queues;			/* 0: as the back end chooses */
	char		serial[DISK_SERIAL_MAX + 1];	/* "": made of volume and path */
	char		user[DISK_USER_MAX + 1];	/* whom it is for, for people; "": unknown */
	char		portal[EXPORTS_PORTAL_SIZE];	/* iscsi[=]: served there; "": vhost-user-blk */
	unsigned int	incoming_s;		/* for which the first open waits for the lock */
	bool		cut_if_lost;		/* on-lost=disconnect: the guest sees no error */
};

/* A datastore's device for one reactor, and who has which turn there; for the disks of both. */
struct disks_port {
	struct list	node;		/* disks.ports */
	struct store	*store;
	unsigned int	reactor;
	unsigned int	users;
	bool		opening;	/* nobody has it yet; changed tells when */
	struct blkdev	*raw, *dev;	/* the handle, and the lease gate's port in front of it; … */
	struct blkdev	*lower;		/* … or fs->dev, and those are NULL */
	struct shares	shares;		/* the reactor's */
	struct blkpoll	poll;
	int		err;
};

enum { ATTACHMENT_EVENTS = 8 };
enum attachment_event { ATTACHMENT_START = 1, ATTACHMENT_STOPPED, ATTACHMENT_CLOSED };

struct attachment {
	struct list	node;		/* disks.list */
	struct disks	*all;
	struct store	*store;		/* referenced */
	unsigned int	refs;		/* commands that use it; disks.mutex */
	bool		detaching;
	bool		ending;		/* by the daemon's end; in disks.list until it is freed */
	const char	*_Atomic step;	/* what its end waits for just now */
	char		path[PATH_MAX];	/* within the datastore, as it was attached */
	char		name[RPC_SOCKET_NAME_SIZE];
	char		object[PATH_MAX + 64];	/* "ds1:/vm1/root.disk", for log lines */
	struct disk_options options;
	uint64_t	birth;		/* another after each attaching, the same over restarts */
	unsigned int	reactor;
	struct disks_port *port;
	struct disk_fresh *fresh;	/* mapped from the state file */
	struct disk	*disk;
	uint64_t	saved_id;	/* the inode of what was written down, until there is a disk */
	struct vhu	*vhu;		/* its front ends, or … */
	struct export	*export;	/* … its initiators; neither if it has ended */
	bool		attached;	/* what there is of it is whole */
	unsigned int	record;		/* in the state file */
	bool		forgotten;	/* its record was cleared, and is perhaps another's */
	bool		keep_record;	/* it stays there: another attempt is to follow */

	/* What its front end does, in the order in which it does it; disks.mutex. */
	struct work	work;
	enum attachment_event events[ATTACHMENT_EVENTS];
	unsigned int	event_count;
	bool		working;
	bool		resized;	/* initiators have to be told … */
	bool		telling;	/* … or are just being told */
	bool		connected;	/* a front end is there */
	pthread_mutex_t	claiming;	/* disks_claim_set(); taken before the disk's and ours */
	bool		has_claim;	/* the last incarnation's, or ours while it is open */
	bool		resume;		/* the next open continues that one */
	struct disk_claim claim;
	struct disk_claim shut;		/* disk_left() of the one that is not open; generation 0: none */
	struct disk_claim next;		/* with resume or shut: what the next record of ours is to be */
	char		handover[33];	/* the host that may have it when the rings stop; "": none */
	bool		left;		/* given up for that host; its worker's */
	uint64_t	incoming_until_ns;	/* a front end's start waits for the lock; 0: none does */
	unsigned int	looks;		/* at the lock meanwhile */
	struct reactor_call again_call;
	struct reactor_timer again;
	char		ended[DISK_ENDED_SIZE];	/* why it is for good; "": it is not */
	char		holder[128];	/* who had it when it could not be opened */
};

struct disks {
	struct stores	*stores;
	struct rpc_client *rpc;
	const struct rpc_hello *hello;
	struct vhu_server *server;
	struct exports	exports;
	struct reactor	*reactors[DISKS_REACTORS_MAX];
	unsigned int	reactor_count;
	int		state_fd;
	/* Of the state file, record i by [i % DISKS_WRITERS]: held while it is written, outside of mutex. */
	pthread_mutex_t	writing[DISKS_WRITERS];
	pthread_mutex_t	mutex;		/* what follows; a leaf, and reactors wait for it: no I/O under it */
	pthread_cond_t	changed;
	struct list	list, ports;
	unsigned int	count;
	unsigned int	alive;		/* those that are on their way in or out, too */
	unsigned int	load[DISKS_REACTORS_MAX];	/* disks of each reactor */
	bool		record_used[DISKS_MAX];	/* of the state file */
	uint64_t	record_seqs[DISKS_MAX];	/* writing */
	atomic_bool	stopping;	/* set under mutex */
	unsigned int	enders;		/* threads of the daemon's end */
	unsigned int	end_patience_ms;	/* before it is said what that waits for */
	struct merger	*merger;	/* told of what is there to be merged; NULL: not running */
	pthread_t	restorer;
	bool		restoring;
	pthread_t	watchdog;	/* if watching */
	bool		watching;
	struct rpc_given *given;	/* of the configuration */
	unsigned int	given_count;
};

/**
 * disks_init() - reactors and workers; attaches again what was attached, and what the
 * configuration says, in a thread of its own.
 * @given: allocated; freed by disks_shutdown().
 */
int disks_init(struct disks *all, struct stores *stores, struct rpc_client *rpc,
	       const struct rpc_hello *hello, int state_fd, struct rpc_given *given);

/** disks_give_up() - cuts front ends off and gives the disks up, to be attached again by the next
 * daemon, in threads of its own: a datastore can be detached when its own disks are given up, whatever
 * others wait for.  Before stores_shutdown(); does not wait for a device. */
void disks_give_up(struct disks *all);

/** disks_shutdown() - behind disks_give_up(), when nobody asks about disks any more and the workers of all
 * datastores, who post to reactors, have ended (stores_shutdown()): waits for that, frees all
 * but what the end of the process, which is to follow, is faster at. */
void disks_shutdown(struct disks *all);

/**
 * disks_attach() - serves the disk at @path of @s; if it is served already, that one, with new
 * limits.  Waits a while for who is attaching or detaching it.
 * @out: referenced; disks_put().
 * Return: 0; as disk_new(); -EMFILE; with @why.
 */
int disks_attach(struct disks *all, struct store *s, const char *path,
		 const struct disk_options *options, struct attachment **out, char *why,
		 size_t why_size);

/**
 * disks_detach() - @force: also under a front end.  Waits as disks_attach() does.
 * Return: 0; -EBUSY: a front end has it; -ENOENT; with @why.
 */
int disks_detach(struct disks *all, struct store *s, const char *path, bool force, char *why,
		 size_t why_size);

/** disks_find() - the attachment of @path, referenced, or of inode @id.  NULL: there is none. */
struct attachment *disks_find(struct disks *all, struct store *s, const char *path);
struct attachment *disks_find_id(struct disks *all, struct store *s, uint64_t id);
void disks_put(struct attachment *a);

/**
 * disks_is_idle() - no front end has @a, nor one of before this daemon was started that may come
 * back to it, nor does it serve initiators.  A moment old: disks_detach() looks again for the former.
 */
bool disks_is_idle(struct attachment *a);

/** disks_moved() - the disk is another inode now (a snapshot): that is written down. */
void disks_moved(struct attachment *a);

/** disks_each() - calls @fn for each, referenced meanwhile; no mutex is held. */
void disks_each(struct disks *all, void (*fn)(struct attachment *a, void *arg), void *arg);

/** disks_connected() - somebody uses it: a front end, or an initiator.  Blocks. */
bool disks_connected(struct attachment *a);

/** disks_socket() - where it is served: the path of its socket, or the URL of the LUN; @buf of
 * PATH_MAX; returns it. */
char *disks_socket(const struct attachment *a, char *buf);

/** disks_option() - "ro", "enospc=report", "iops=N", …  Return: 0; -EINVAL with @why. */
int disks_option(struct disk_options *o, const char *text, char *why, size_t why_size);

/** disks_end_begin() - of disks_give_up(): every disk is given up, to be attached again; by threads.
 * disks_end_wait() - until it is so. */
void disks_end_begin(struct disks *all);
void disks_end_wait(struct disks *all);

/** disks_leave_list() - mutex held: @a is in no list any more. */
void disks_leave_list(struct attachment *a);

/** disks_free_attachment() - whatever there is of @a; nobody finds or uses it. */
void disks_free_attachment(struct attachment *a);

/** disks_wait_unused() - mutex held, and released meanwhile: until no command uses @a. */
void disks_wait_unused(struct attachment *a);

/* ---- disks_front.c: none holds the mutex ---- */

/** disks_open() - takes the lock; who uses it may or may not be there already.  As disk_open(). */
int disks_open(struct attachment *a);

/** disks_take_back() - the lock of what a killed daemon left, before anything of it is looked at. */
int disks_take_back(struct attachment *a);

/** disks_expect() - what nobody had open when the last daemon ended is opened only if nobody else has had it. */
int disks_expect(struct attachment *a);

/** disks_front_new() - a->vhu; disks_listen() - a socket for its front ends, with @why where there
 * can be none; disks_unlisten() - without it. */
int disks_front_new(struct attachment *a);
int disks_listen(struct attachment *a, char *why, size_t why_size);
void disks_unlisten(struct attachment *a);

/**
 * disks_retire() - nobody can come to use it any more, if nobody does: no moment lies in between.
 * The caller detaches it then.  Return: 0; -EBUSY.
 */
int disks_retire(struct attachment *a);

/** disks_wait_told() - behind disk_grow(): the next command of each initiator hears of it. */
void disks_wait_told(struct attachment *a);

/** disks_post_event() - @e has happened; a worker does what follows.  Any thread. */
void disks_post_event(struct attachment *a, enum attachment_event e);

/** disks_resized(), disks_lost() - the disk's events; @arg is its attachment. */
void disks_resized(void *arg);
void disks_lost(void *arg);

/* ---- disks_handover.c ---- */

/**
 * disks_handover() - when the rings of @a stop the next time (or now, if they are), the disk is given
 * up so that @host can have it; if they start again before it does, it is taken back.  Until its
 * front end is gone.
 * @host: NULL: that is called off.
 * Return: 0; -ENOENT no such host is there, -ENOTCONN no guest has it, -EINVAL; with @why.
 */
int disks_handover(struct attachment *a, const char *host, char *why, size_t why_size);
bool disks_is_handed_over(struct attachment *a, char host[33]);

/**
 * disks_leave() - the rings of @a have stopped: gives the disk up for the host that it is handed over
 * to, or, if that was called off meanwhile, for all.  disks_leave_nothing(): for all, if it was given
 * up for one.  In its worker, or when that has ended.
 */
void disks_leave(struct attachment *a);
void disks_leave_nothing(struct attachment *a);

/** disks_claim_set() - writes down whether the lock is ours, and by which record. */
void disks_claim_set(struct attachment *a);

/** disks_waits_for_lock() - the open ended with @err: is it tried again soon, so that the front end is
 * not answered yet?  (options.incoming_s) */
bool disks_waits_for_lock(struct attachment *a, int err);

/** disks_is_held() - a start of @a waits already, and nothing has changed about the lock. */
bool disks_is_held(struct attachment *a);

/** disks_handover_init() - of a new attachment. */
void disks_handover_init(struct attachment *a);

/* ---- disks_export.c ---- */

/** disks_export_check() - that @o is for iSCSI, if it is.  -EINVAL with @why. */
int disks_export_check(const struct disk_options *o, char *why, size_t why_size);

/** disks_export_start() - offers the open disk of @a. */
int disks_export_start(struct attachment *a, char *why, size_t why_size);
/** disks_export_stop() - ends that, if it is so.  Return: for export_free(), once the disk is shut; or NULL. */
struct export *disks_export_stop(struct attachment *a);

/* ---- disks_state.c: the mutex is not held; the file's writes may block ---- */

/** disks_state_save() - writes @a down as it is now, unless it is forgotten.  Also while the daemon
 * ends: the next one goes by what is written here. */
void disks_state_save(struct attachment *a);
/** disks_state_clear() - what record @i was about is not attached any more; it is still in use. */
void disks_state_clear(struct disks *all, unsigned int i);

/** disks_state_map() - the memory of record @i that outlives us.  Return: 0 or -errno. */
int disks_state_map(struct disks *all, unsigned int i, struct disk_fresh **out);
void disks_state_unmap(struct disk_fresh *fresh);

/* One that was written down. */
struct disks_saved {
	char		device[PATH_MAX], path[PATH_MAX], name[RPC_SOCKET_NAME_SIZE];
	char		volume[UUID_TEXT_SIZE];	/* empty in records of before it was kept */
	struct disk_options options;
	bool		has_claim;
	struct disk_claim claim, shut, next;
	char		ended[DISK_ENDED_SIZE];
	uint64_t	id;		/* inode */
	uint64_t	birth;
	unsigned int	record;
};

/** disks_state_load() - record @i; false: there is none. */
bool disks_state_load(struct disks *all, unsigned int i, struct disks_saved *saved);

/* ---- disks_port.c ---- */

/** disks_port_get() - of @s for reactor @r; where it can have no handle of its own, with fs->dev. */
int disks_port_get(struct disks *all, struct store *s, unsigned int r, struct disks_port **out);
void disks_port_put(struct disks *all, struct disks_port *p);

/* ---- disks_restore.c ---- */

/** disks_restore_start() - in a thread of its own: what was attached is again. */
int disks_restore_start(struct disks *all);
void disks_restore_stop(struct disks *all);

/** disks_attach_saved() - disks_attach() of what was written down. */
int disks_attach_saved(struct disks *all, struct store *s, const struct disks_saved *saved,
		       char *why, size_t why_size);

#endif
