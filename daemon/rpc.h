/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the unprivileged worker asks of its privileged parent, over one SOCK_SEQPACKET pair.
 *
 * Both ends are the same executable, so the structs travel as they are; each packet is one of
 * them, with descriptors beside it.  The parent believes nothing that it reads (R9): see
 * rpc_request_check() and what parent_ops.c verifies before it acts.  docs/CONTROL.md tells
 * who may ask for what.
 */
#ifndef LUNFS_DAEMON_RPC_H
#define LUNFS_DAEMON_RPC_H

#include <limits.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "block/blkfile.h"
#include "block/blkiscsi.h"
#include "lockd/slot.h"
#include "proc/packet.h"

#define RPC_WHY_SIZE	512
#define RPC_MAGIC	0x4c524643u

enum rpc_op {
	RPC_READY = 1,	/* the worker serves; no reply */
	RPC_OPEN,	/* open a device twice (data, heartbeat) and take its host lock */
	RPC_MOUNT,	/* mount FUSE on a directory */
	RPC_UMOUNT,	/* unmount what RPC_MOUNT mounted */
	RPC_KILL,	/* end the process that a slot names */
	RPC_COMM,	/* the name of a process */
	RPC_REALTIME,	/* let a thread of the worker, its heartbeat, run in real time */
	RPC_DIAL,	/* connect to a portal of an iSCSI LUN that was opened */
	RPC_LISTEN,	/* a socket for a virtual disk's front ends */
	RPC_UNLISTEN,	/* away with it */
	RPC_ALIVE,	/* every reactor has run a call of late; no reply */
	RPC_HOLD,	/* the lock of this host on a LUN, by the name that the LUN has everywhere */
	RPC_PORTAL,	/* a listening socket for an iSCSI portal of virtual disks */
	RPC_METRICS,	/* the listening socket of the configuration's metrics-port */
	RPC_USERS,	/* who keeps what RPC_MOUNT mounted from ending */
	RPC_CLOSED,	/* a datastore that was opened is not attached any more; no reply */
};

enum rpc_open_flags {
	RPC_OPEN_READ_ONLY	= 1 << 0,
	RPC_OPEN_NO_HOST_LOCK	= 1 << 1,	/* rescue: takes no slot */
};

/*
 * Beside it: the connection on which root asks for just this (parent_asked.c); or nothing, if
 * root has asked for it before, and it was not closed since.
 */
struct rpc_open {
	char	path[PATH_MAX];
	uint32_t flags;
};

/* Beside it: as in struct rpc_open. */
struct rpc_mount {
	char	source[PATH_MAX];	/* shown by mount(8) */
	char	dir[PATH_MAX];
	uint64_t flags;			/* MS_* of mount(2), a subset */
	uint32_t max_read;
};

/* The mount that RPC_MOUNT reported, in the parent's mountinfo.  Of RPC_USERS, the first two. */
struct rpc_umount {
	char	dir[PATH_MAX];
	uint32_t dev_minor;
	bool	lazy;
	bool	dead;	/* nobody serves it any more: what answers there is another mount */
};

/* Beside it: our lock file of the device, so that only users of that device can be killed. */
struct rpc_kill {
	uint8_t	host_id[16];
	uint8_t	boot_id[16];
	uint32_t pid;
	uint64_t pid_start;
};

/* A portal as RPC_OPEN reported it. */
struct rpc_dial {
	char	portal[BLKISCSI_PORTAL_SIZE];
	uint32_t timeout_ms;
};

/* Whatever way leads to it: of two daemons that are the same host only one may have a LUN. */
struct rpc_hold {
	char	identity[128];
	char	device[256];		/* for messages */
};

/* Letters, digits, '-', '_' and '.', which is not the first. */
#define RPC_SOCKET_NAME_SIZE 48
struct rpc_socket {
	char	name[RPC_SOCKET_NAME_SIZE];
};

/* How a process uses a mount: it stands in a directory; it has the mount in another namespace. */
enum rpc_use { RPC_USE_NONE, RPC_USE_FILE, RPC_USE_DIR, RPC_USE_NAMESPACE };

#define RPC_USERS_MAX	4u	/* that are named */
struct rpc_users {
	bool	mounted;	/* at @dir, which any umount(8) sees: then no users are looked for */
	char	dir[PATH_MAX];
	uint32_t count;		/* processes, perhaps more than are named */
	struct {
		uint32_t pid;
		uint32_t use;	/* enum rpc_use */
		char	comm[25];
	} list[RPC_USERS_MAX];
};

struct rpc_request {
	uint32_t magic;
	uint32_t op;		/* enum rpc_op */
	uint64_t id;		/* the reply repeats it */
	union {
		struct rpc_open	open;
		struct rpc_mount mount;
		struct rpc_umount umount;
		struct rpc_kill	kill;
		struct rpc_dial	dial;
		struct rpc_hold	hold;
		struct rpc_socket socket;
		struct sockaddr_storage portal;	/* with its port */
		uint32_t	comm_pid;
		uint32_t	realtime_tid;
	};
};

struct rpc_reply {
	uint32_t magic;
	int32_t	err;		/* 0 or negative errno */
	uint64_t id;
	char	why[RPC_WHY_SIZE];
	union {
		/*
		 * fds: data, heartbeat[, data's lock, heartbeat's lock][, lanes of data, of
		 * heartbeat][, host lock]; of an iSCSI LUN, which the worker opens itself: [host lock].
		 */
		struct {
			struct blkdev_info info;
			struct blkscsi scsi;
			uint32_t lane_count[2];	/* to the agent of a SCSI disk: data, heartbeat */
			bool	is_lun;
			struct blkiscsi_target lun;
			bool	has_locks, has_host_lock;
			uint64_t backing_dev, backing_ino;	/* the same for every path to it */
		} open;
		/* RPC_DIAL, RPC_LISTEN, RPC_METRICS and RPC_HOLD have no more than a descriptor: the
		 * connection, the socket, the lock. */
		/* RPC_PORTAL, fds: the socket[, the file of CHAP secrets]. */
		/* fds: /dev/fuse */
		struct {
			char	dir[PATH_MAX];	/* as the kernel names it */
			uint32_t dev_minor;	/* names the mount to RPC_UMOUNT */
		} mount;
		struct rpc_users users;
		char	comm[25];
	};
};

/* What the worker needs to know and cannot find out for itself; the first packet it gets. */
struct rpc_hello {
	uint32_t magic;
	pid_t	parent;
	uint8_t	host_id[16], boot_id[16], machine_id[16];
	char	host_name[33];
	char	run_dir[PATH_MAX];
	uid_t	uid;
	gid_t	gid;
	gid_t	control_gid;
	bool	has_control_group;
	gid_t	disk_gid;		/* who may connect to virtual disks, beside root */
	bool	has_disk_group;
	uint32_t log_level;
	uint32_t threads;
	uint32_t reactors;		/* 0: chosen */
	uint32_t poll_us;
	uint32_t shares_depth;
	uint64_t scrub_rate;		/* bytes a second of a volume's metadata; 0: no scrub */
	uint32_t watchdog_ms;		/* RPC_ALIVE is wanted that often; 0: never */
	bool has_guard;			/* somebody ends a frozen worker: RPC_FD_GUARD */
	uint32_t guard_device_ms;	/* in which its watchdog device strikes; 0: it has none */
	char guard_device[64];		/* for people */
	bool	has_metrics;		/* RPC_METRICS has a socket */
	uint32_t given_count;		/* of the packets that follow */
};

/* A line of the configuration that the worker acts on by itself. */
struct rpc_given {
	uint32_t magic;
	bool	is_disk;		/* "DS:/path[,option…]"; else a device to attach */
	char	text[PATH_MAX];
};

enum { RPC_FD_CONTROL = 5, RPC_FD_STATE, RPC_FD_GUARD };	/* beside SPAWN_FD_RPC; see SPAWN_FD_MORE */

#define RPC_HEARTBEAT_PRIORITY	5	/* of SCHED_RR */

/**
 * rpc_request_check() - whether a request is well-formed, before anything is done about it.
 * @fd_count: descriptors that came with it.
 * Return: 0 or -EINVAL with @why.
 */
int rpc_request_check(const struct rpc_request *rq, unsigned int fd_count, char *why,
		      size_t why_size);

/**
 * rpc_mount_option() - adds what mount option @name means to @flags of mount(2).
 * Return: 0; -ENOENT it is none that is passed to the kernel.
 */
int rpc_mount_option(const char *name, unsigned long *flags);

#endif
