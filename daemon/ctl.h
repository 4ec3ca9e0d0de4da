/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket: one JSON object a line, a reply for each.  docs/CONTROL.md.
 *
 * Clients are other processes and not to be trusted (R9): sizes, depths, numbers of
 * connections and idle times are bounded, and every request is checked against the table of
 * ctl_request.c before a command sees it.
 */
#ifndef LUNFS_DAEMON_CTL_H
#define LUNFS_DAEMON_CTL_H

#include <jansson.h>
#include <sys/socket.h>

#include "daemon/disks.h"

#define CTL_LINE_MAX	(32 * 1024)	/* bytes of a request */
#define CTL_CLIENTS_MAX	32		/* connections at a time */
#define CTL_OTHERS_MAX	24		/* of these, of others than root */
#define CTL_IDLE_S	60		/* without a complete request */
#define CTL_LIST_MAX	1000		/* names in one reply */

struct ctl {
	int		sock;
	struct stores	*stores;
	struct disks	*disks;
	const struct rpc_hello *hello;
	pthread_t	acceptor;
	pthread_mutex_t	mutex;		/* all below */
	pthread_cond_t	changed;
	unsigned int	clients, others;
	unsigned int	commands;	/* under way */
	bool		ending;		/* nobody gets hold of a disk any more … */
	bool		stopped;	/* … and no command begins */
	struct list	holders;	/* struct ctl_conn that hold a disk */
};

/* One client's connection, as commands see it. */
struct ctl_conn {
	int		fd;
	struct list	node;		/* in ctl->holders, while it holds a disk: */
	struct store	*store;
	struct fs_file	*disk;
	void		*bytes;		/* what follows the reply as it is (disk-read); or NULL */
	size_t		byte_count;
};

/** ctl_start() - accepts connections on @sock, which listens already.  Return: 0 or -errno. */
int ctl_start(struct ctl *c, int sock, struct stores *stores, struct disks *disks,
	      const struct rpc_hello *hello);

/** ctl_end() - the daemon is shutting down: ends every connection that holds a disk, and lets none hold one. */
void ctl_end(struct ctl *c);

/** ctl_stop() - no command begins any more, and those under way have ended when it returns. */
void ctl_stop(struct ctl *c);

/**
 * ctl_begin() - a command, which may use datastores and disks until ctl_done().
 * Return: 0; -ESHUTDOWN with @why.
 */
int ctl_begin(struct ctl *c, char *why, size_t why_size);
void ctl_done(struct ctl *c);

/** ctl_peer_allowed() - whether a peer with @cred and @groups may ask at all. */
bool ctl_peer_allowed(const struct rpc_hello *h, const struct ucred *cred, const gid_t *groups,
		      unsigned int group_count);

/* ---- ctl_request.c ---- */

enum ctl_cmd {
	CTL_PING, CTL_STATUS, CTL_HOSTS, CTL_ATTACH, CTL_DETACH, CTL_MOUNT, CTL_LOCK_SHOW,
	CTL_LOCK_BREAK, CTL_DF, CTL_LS, CTL_INFO,
	CTL_DISK_CREATE, CTL_DISK_ALLOCATE, CTL_DISK_GROW, CTL_DISK_INFO, CTL_DISK_SNAPSHOT,
	CTL_DISK_SNAPSHOT_DELETE, CTL_DISK_REVERT, CTL_DISK_CLONE, CTL_DISK_MERGE,
	CTL_DISK_HOLD, CTL_DISK_READ, CTL_DISK_DISCARD, CTL_DISK_ATTACH, CTL_DISK_DETACH,
	CTL_DISK_HANDOVER, CTL_DISK_LIST,
	CTL_VOLUME_GROW, CTL_VOLUME_RECLAIM, CTL_METRICS, CTL_CHECK_START, CTL_CHECK_STATUS,
};

/* A request that is well-formed and permitted; texts live as long as @json. */
struct ctl_request {
	json_t		*json;
	json_t		*id;		/* to be repeated in the reply, or NULL */
	enum ctl_cmd	cmd;
	const char	*ds, *device, *dir, *path, *source;
	const char	*name;		/* of a snapshot */
	const char	*to;		/* path of a clone */
	uint64_t	size;		/* bytes */
	uint64_t	rate;		/* bytes a second; 0: not stated */
	uint64_t	from;		/* where a listing, or long work, goes on */
	unsigned int	attach_flags;	/* enum fs_attach_flags */
	unsigned long	mount_flags;	/* of mount(2) */
	bool		read_only;	/* one of them */
	bool		force;
	bool		changes;	/* the command does more than to tell */
};

/**
 * ctl_request_parse() - @line of @len bytes, as it came from a client.
 * @is_root: whether the client may change things.
 * Return: 0, to be given to ctl_request_free(); -EINVAL, -EPERM, -ENOMEM with @why; @rq->id
 * may be set then too and is freed in the same way.
 */
int ctl_request_parse(const char *line, size_t len, bool is_root, struct ctl_request *rq,
		      char *why, size_t why_size);
void ctl_request_free(struct ctl_request *rq);

/* ---- ctl_commands.c ---- */

/**
 * ctl_run() - does what @rq says.
 * @conn: the client's connection.
 * @out:   receives the result, a new reference, on success.
 * Return: 0 or negative errno with @why.
 */
int ctl_run(struct ctl *c, const struct ctl_request *rq, struct ctl_conn *conn, json_t **out,
	    char *why, size_t why_size);

/** ctl_reply_line() - the reply as one line, with its newline; NULL when memory ran out for it
 * or for anything since ctl_request_parse().  @result: borrowed; used when @err is 0. */
char *ctl_reply_line(const struct ctl_request *rq, int err, json_t *result, const char *why);

/** ctl_reply_short() - what is sent then, in @buf: of a change that was made that it was made. */
#define CTL_SHORT_MAX	160
char *ctl_reply_short(const struct ctl_request *rq, int err, char buf[CTL_SHORT_MAX]);

#endif
