/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the iSCSI backend share.
 *
 * A request (struct blk_io) is cut into commands (struct ini_cmd); a command travels
 *
 *   issue ──► path->active ── answered ──► finished, or sent again (unit attention, busy)
 *                  │
 *                  └ path lost ──► path->limbo ── the old session is known to be dead ──►
 *                       finished with -ECONNRESET if a lease gate is in front of us: it sends
 *                       the request again once the lease is valid; else sent again by us
 *
 * "Known to be dead": the session was logged in anew under the same ISID, whereby the target
 * ended the old one with its tasks (RFC 7143, 6.3.5, session reinstatement), or the longest
 * life of a command has passed.  Until then nothing is said about the fate of a write, so no
 * older copy of it can land after a newer one.
 *
 * One thread, or the owner that polls (blkdev_set_polled()), runs the loop; everything here is
 * its own except what is marked "mutex" or atomic.
 */
#ifndef LUNFS_BLOCK_BLKISCSI_INTERNAL_H
#define LUNFS_BLOCK_BLKISCSI_INTERNAL_H

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/bytes.h"
#include "block/blkiscsi.h"
#include "block/lu.h"

#define INI_CMDS	256u	/* under way in one handle */
#define INI_IOVS	64u	/* memory segments of a command */
#define INI_CDB_SIZE	16
#define INI_SEGMENTS_MAX	(INI_IOVS)
#define INI_RETRIES	16u	/* of a command that met unit attentions or a busy target */
#define INI_TIMEOUTS	2u	/* a command that got no answer that often has failed */
#define INI_LOSSES	5u	/* so has one whose connection was lost that often */

struct ini_dev;

enum ini_path_state {
	INI_DOWN,	/* until retry_ns */
	INI_DIALING,	/* a helper thread makes the connection */
	INI_CONNECTING,	/* libiscsi does */
	INI_LOGIN,
	INI_PROBE,	/* clears unit attentions, looks whether it is (still) the same LUN */
	INI_UP,
};

struct ini_path {
	struct ini_dev	*d;
	unsigned int	index;
	enum ini_path_state state;
	struct iscsi_context *ctx;
	uint32_t	isid;		/* random part: the same for the life of the handle */
	unsigned int	portal;		/* in use, or tried last */
	int		group;		/* portal group tag, -1: not told */
	bool		failed;		/* to be dropped once libiscsi has returned */
	bool		dropping;	/* its callbacks mean nothing any more */
	bool		was_up;		/* a session may be alive at the target */
	bool		complained;	/* of the present trouble */
	int		err;		/* how the last attempt failed */
	char		why[200];
	char		said[200];	/* libiscsi's text about the last command that failed */
	bool		live;		/* has been up since it was down last */
	bool		suspect;	/* the target says that the LUN has changed: to be asked */
	uint64_t	up_ns;		/* when it came up, if live */
	uint64_t	retry_ns, backoff_ns;
	uint64_t	deadline_ns;	/* of the attempt to come up */
	uint64_t	rx_ns;		/* when bytes came last */
	uint64_t	ping_ns;	/* when a NOP-Out was sent that is not answered; 0 */
	uint32_t	events;		/* as epoll has them */
	unsigned int	probes;		/* unit attentions seen */
	struct list	active, limbo;	/* struct ini_cmd */
	unsigned int	active_count;
	uint64_t	lost_ns;	/* when what is in limbo got there */
	/* DIALING; mutex. */
	pthread_t	dialer;
	bool		dialed;		/* dialed_fd is valid: a descriptor or -errno */
	int		dialed_fd;
};

/* A command for its own sake, of a thread that waits for it. */
struct ini_admin {
	struct list	node;
	uint8_t		cdb[INI_CDB_SIZE];
	int		cdb_size;
	bool		out;		/* @buf is sent, else received */
	void		*buf;
	uint32_t	len;
	int		path;		/* index; -1: any */
	uint64_t	since_ns;
	int		err;
	uint32_t	got;		/* bytes received */
	bool		done;		/* mutex */
};

enum ini_phase { INI_DO, INI_SYNC };	/* the command itself; SYNCHRONIZE CACHE after it */

struct ini_cmd {
	struct list	node;
	struct scsi_task task;
	struct ini_path	*path;
	struct blk_io	*io;		/* of which it is a piece; NULL: admin */
	struct ini_admin *admin;
	enum ini_phase	phase;
	uint64_t	off;
	uint64_t	len;
	uint64_t	sent_ns, again_ns;
	uint64_t	mark;		/* of a read: what its buffer holds where no data has come */
	unsigned int	tries, timeouts, losses;
	int		iovcnt;
	struct iovec	iov[INI_IOVS];
	uint8_t		param[24];	/* UNMAP's list */
};

/* In blk_io.priv while the request is ours. */
struct ini_io {
	uint64_t issued;	/* bytes, from the start */
	uint64_t iov_off;	/* the next piece begins there in iov[iov_index] */
	uint64_t wseq;		/* FLUSH: what it covers */
	int32_t	err;
	uint32_t iov_index;
	uint32_t pending;	/* commands */
	uint32_t queued;	/* on dev->queue */
};
static_assert(sizeof(struct ini_io) <= sizeof(((struct blk_io *)NULL)->priv),
	      "a request holds what we know of it");

struct ini_limits {
	uint64_t rw_max;		/* bytes of a READ or WRITE */
	uint64_t unmap_max, same_max;	/* bytes; 0: cannot */
	bool	wce;			/* the target has a volatile write cache */
	bool	fua;			/* and takes FUA */
	bool	same_unmap;		/* WRITE SAME with UNMAP leaves zeros */
	bool	pr_aptpl;
};

struct ini_dev {
	struct blkdev	dev;
	struct blkiscsi_target t;
	struct blkiscsi_options o;
	struct ini_limits limits;
	int		epfd, wake_fd, timer_fd;
	bool		polled, threaded;
	pthread_t	thread;

	pthread_mutex_t	mutex;
	pthread_cond_t	changed;	/* a path came up or failed, an admin is done */
	struct list	incoming;	/* mutex: struct blk_io */
	struct list	admins_in;	/* mutex */
	bool		awake;		/* mutex: the loop will look at them by itself */
	bool		stopping;	/* mutex */
	bool		closing;	/* the loop logs out before it ends */
	unsigned int	paths_up;	/* mutex */
	bool		path_is_up[BLKISCSI_PORTALS_MAX];	/* mutex */
	unsigned int	paths_failed;	/* mutex: at least once, and none up since */
	atomic_uint	outstanding;	/* requests accepted and not completed */

	/* R2: commands are sent only before lease_ns; UINT64_MAX: no lease in front of us. */
	_Atomic uint64_t lease_ns;
	_Atomic uint64_t cut_ns;	/* the lease after whose end everything was cut */

	struct list	queue;		/* struct blk_io with something left to be issued */
	struct list	admins;
	struct list	again;		/* struct ini_cmd to be sent once more */
	struct list	free;
	unsigned int	free_count;
	struct ini_path	paths[BLKISCSI_PORTALS_MAX];
	struct ini_cmd	*cmds;
	unsigned int	turn;		/* round-robin among equally busy paths */
	uint64_t	mark;		/* of the last read */
	uint64_t	no_path_ns;	/* since when there is none; 0: there is one */
	uint64_t	medium_log_ns;	/* no line about the medium before that */
	char		identity[128];	/* as the first path saw it */
	atomic_uint	sector;		/* as it was when the LUN was opened; 0: not yet known */

	/* R7, durable=flush: writes completed, of these flushed, of these perhaps lost. */
	uint64_t	wseq, flushed_seq, lost_seq;
};

static inline struct ini_dev *ini_dev(struct blkdev *dev)
{
	return container_of(dev, struct ini_dev, dev);
}

static inline struct ini_io *ini_io(struct blk_io *io)
{
	return (struct ini_io *)(void *)io->priv;
}

static inline uint64_t ini_now(const struct ini_dev *d)
{
	return env_now_ns(d->dev.env);
}

/* The longest that a command can live after its connection was cut, or that it was sent. */
static inline uint64_t ini_life_ns(const struct ini_dev *d)
{
	return ((uint64_t)d->t.timeout_ms + d->t.dead_ms) * NSEC_PER_MSEC;
}

static inline bool ini_has_lease(const struct ini_dev *d)
{
	return atomic_load(&d->lease_ns) != UINT64_MAX;
}

/* ---- blkiscsi_path.c ---- */

void ini_path_init(struct ini_dev *d, unsigned int index);
/** ini_path_step() - what is due by the clock: retries, time limits, pings. */
void ini_path_step(struct ini_path *p, uint64_t now);
/** ini_path_serve() - lets libiscsi act on @revents, and drops the path if it failed. */
void ini_path_serve(struct ini_path *p, int revents);
/** ini_path_drop() - cuts the connection: what is queued in the socket is never sent. */
void ini_path_drop(struct ini_path *p, int err, const char *why);
/** ini_path_logout() - ends an idle session politely, for a second at most. */
void ini_path_logout(struct ini_path *p);
void ini_path_fini(struct ini_path *p);

/* ---- blkiscsi_cmd.c ---- */

/** ini_cmd_send() - hands @cmd, built, to libiscsi on @p. */
void ini_cmd_send(struct ini_cmd *cmd, struct ini_path *p);
/** ini_cmd_build_io(), ini_cmd_build_admin() - task and CDB of a command, anew for each try. */
void ini_cmd_build_io(struct ini_cmd *cmd);
void ini_cmd_build_admin(struct ini_cmd *cmd);
/** ini_judge() - what an answer means.  Return: 0, a negative errno as struct blk_io says, or
 * 1: was not executed, try again (@pause_ns later). */
int ini_judge(struct ini_dev *d, struct ini_cmd *cmd, int status, uint64_t *pause_ns);

/** ini_tells_of_change() - whether a unit attention says that the LUN may be another one. */
bool ini_tells_of_change(uint16_t asc);

/* ---- blkiscsi_dev.c ---- */

/** ini_cmd_answered() - @cmd is off its path; @err as ini_judge(). */
void ini_cmd_answered(struct ini_dev *d, struct ini_cmd *cmd, int err, uint64_t pause_ns);
/** ini_cmd_settled() - the path of @cmd was lost, and now it is dead for certain. */
void ini_cmd_settled(struct ini_dev *d, struct ini_cmd *cmd);
/** ini_cmd_finish() - ends the command with @err. */
void ini_cmd_finish(struct ini_dev *d, struct ini_cmd *cmd, int err);
/** ini_session_lost() - what was not flushed may be lost (R7). */
void ini_session_lost(struct ini_dev *d);
/** ini_io_fail() - ends @io with @err, or as soon as its last command has come back. */
void ini_io_fail(struct ini_dev *d, struct blk_io *io, int err);
void ini_wake(struct ini_dev *d);

/* ---- blkiscsi_issue.c ---- */

/** ini_path_changed() - a path came up or an attempt failed. */
void ini_path_changed(struct ini_path *p, bool up);
/** ini_lease_lapsed() - R2, as near to the wire as we get. */
bool ini_lease_lapsed(const struct ini_dev *d, uint64_t now);
/** ini_issue() - sends what can be sent now. */
void ini_issue(struct ini_dev *d, uint64_t now);

/* ---- blkiscsi_admin.c ---- */

/** ini_admin_run() - one command, waited for.  Any thread but the loop's. */
int ini_admin_run(struct ini_dev *d, struct ini_admin *a);
/** ini_learn() - geometry, limits and capabilities into info and limits. */
int ini_learn(struct ini_dev *d, char *why, size_t why_size);
int ini_refresh(struct blkdev *dev);
int ini_pr_register(struct blkdev *dev, uint64_t old_key, uint64_t new_key);
int ini_pr_reserve(struct blkdev *dev, uint64_t key);
int ini_pr_preempt_abort(struct blkdev *dev, uint64_t key, uint64_t victim);
int ini_pr_clear(struct blkdev *dev, uint64_t key);
int ini_pr_read(struct blkdev *dev, struct blkdev_pr_state *state);

#endif
