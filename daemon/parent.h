/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lunfsd's privileged half.  It opens devices, mounts, unmounts and kills, when the worker
 * asks and only what may be asked for; it reads nothing from the network, the disk's contents
 * or a client beyond the requests of rpc.h.
 */
#ifndef LUNFS_DAEMON_PARENT_H
#define LUNFS_DAEMON_PARENT_H

#include "daemon/config.h"
#include "daemon/rpc.h"

#define PARENT_MOUNTS_MAX	256
#define PARENT_PORTALS_MAX	128
#define PARENT_OPENED_MAX	64	/* datastores */
#define PARENT_DISKS_DIR	"disks"	/* in the run directory: sockets of virtual disks */
#define PARENT_STATE_FILE	"attachments"	/* the same: what the worker remembers of them */
#define PARENT_CONTROL_SOCKET	"control"	/* in the run directory */

/* What the parent's child processes need to know of it. */
struct parent {
	struct rpc_hello hello;
	pid_t	worker;
	int	rpc;		/* to the worker; replies go out here */
	char	control_path[PATH_MAX];
};

/* Where the worker's connections may lead: to what root once asked to open. */
struct parent_portals {
	unsigned int count;
	char	portals[PARENT_PORTALS_MAX][BLKISCSI_PORTAL_SIZE];
};

/* Datastores that root asked to open, here or in the configuration, and that are attached. */
struct parent_opened {
	unsigned int count;
	bool	kept[PARENT_OPENED_MAX];	/* in the run directory's file, for our successor */
	char	paths[PARENT_OPENED_MAX][PATH_MAX];
};

/** parent_run() - the daemon: returns its exit status when it has ended. */
int parent_run(const struct config *c);

/* ---- parent_ops.c: in a child process of its own each, so that none can hold up another ---- */

/**
 * parent_open() - RPC_OPEN.  @fds: what came with the request.
 * @out: descriptors for the reply, at most PACKET_FDS_MAX; *@out_count of them.
 * Return: 0 or negative errno with @reply->why.  The same for the others.
 */
int parent_open(const struct parent *p, const struct rpc_open *rq, const int *fds,
		struct rpc_reply *reply, int *out, unsigned int *out_count);
int parent_mount(const struct parent *p, const struct rpc_mount *rq, const int *fds,
		 struct rpc_reply *reply, int *out, unsigned int *out_count);
int parent_umount(const struct rpc_umount *rq, struct rpc_reply *reply);

/** parent_read_comm() - the name of process @pid; @comm stays as it is when it is gone. */
void parent_read_comm(uint32_t pid, char comm[25]);

/** parent_users() - RPC_USERS, of LunFS device @minor: parent_users.c. */
int parent_users(uint32_t minor, struct rpc_reply *reply);

/** parent_take_host_lock() - lock file @name, of this host for @device; *@out is to be kept. */
int parent_take_host_lock(const struct parent *p, const char *name, const char *device, int *out,
			  struct rpc_reply *reply);

/** parent_hold() - RPC_HOLD. */
int parent_hold(const struct parent *p, const struct rpc_hold *rq, struct rpc_reply *reply, int *out,
		unsigned int *out_count);

/* ---- parent_scsi.c ---- */

/**
 * parent_lock_disk() - the lock of a SCSI disk of the kernel's: one host a machine, since all of a
 * machine's commands come from the same initiator.  @h: learns whether the last one left in order.
 */
int parent_lock_disk(const struct parent *p, struct blkfile_handle h[2], const char *path, int *out,
		     struct rpc_reply *reply);
/** parent_start_agent() - who executes what the worker may not, on data and heartbeat handle @h,
 * which receive their lanes to it.  It holds @host_lock as long as it lives. */
int parent_start_agent(struct blkfile_handle h[2], int host_lock, struct rpc_reply *reply);

/* ---- parent_lun.c ---- */

/** parent_open_lun() - RPC_OPEN of an iSCSI LUN's URL, which root was found to ask for. */
int parent_open_lun(const struct parent *p, const struct rpc_open *rq, struct rpc_reply *reply,
		    int *out, unsigned int *out_count);
/** parent_portals_add() - the worker may connect to the portals of @t from now on. */
void parent_portals_add(struct parent_portals *known, const struct blkiscsi_target *t);
bool parent_portal_is_known(const struct parent_portals *known, const char *portal);
/** parent_dial() - RPC_DIAL, of a portal that is known. */
int parent_dial(const struct rpc_dial *rq, struct rpc_reply *reply, int *out,
		unsigned int *out_count);

/* ---- parent_disk.c ---- */

/** parent_listen() - RPC_LISTEN: a virtual disk's socket; its descriptor is in the reply. */
int parent_listen(const struct parent *p, const struct rpc_socket *rq, struct rpc_reply *reply,
		  int *out, unsigned int *out_count);
int parent_unlisten(const struct parent *p, const struct rpc_socket *rq, struct rpc_reply *reply);

/* ---- parent_portal.c ---- */

/** parent_portal() - RPC_PORTAL: on loopback, or where @c says; the socket is in the reply, and the
 * file of secrets if @c names one. */
int parent_portal(const struct config *c, const struct sockaddr_storage *a, struct rpc_reply *reply,
		  int *out, unsigned int *out_count);

/** parent_metrics() - RPC_METRICS: the socket of @c's metrics-port.  -ENOENT: it has none. */
int parent_metrics(const struct config *c, struct rpc_reply *reply, int *out,
		   unsigned int *out_count);

/** parent_find_disk_group() - who may connect to them, beside root. */
int parent_find_disk_group(const char *name, struct rpc_hello *h);

/*
 * What root asked to open once the worker may open again without being asked: when the daemon
 * was killed and guests wait for it.
 */
bool parent_opened_has(const struct parent_opened *o, const char *path);
void parent_opened_add(struct parent_opened *o, const char *path, bool keep, int run_dir);
void parent_opened_remove(struct parent_opened *o, const char *path, int run_dir);
/** parent_opened_read() - those that a daemon which did not end in order had. */
void parent_opened_read(struct parent_opened *o, int run_dir);

/* ---- parent_asked.c ---- */

/**
 * parent_asked_open(), parent_asked_mount() - whether root asks for exactly this, on
 * connection @fd to our control socket.
 *
 * The worker, which hands @fd in, may have been taken over.  It cannot make a connection as
 * root, nor change what the client has sent and not yet got an answer to: the kernel vouches
 * for both.
 * Return: 0; -EPERM with @reply->why.
 */
int parent_asked_open(const struct parent *p, int fd, const struct rpc_open *rq,
		      struct rpc_reply *reply);
int parent_asked_mount(const struct parent *p, int fd, const struct rpc_mount *rq,
		       struct rpc_reply *reply);

/* ---- parent_volume.c ---- */

/**
 * parent_check_volume() - a worker gets nothing but volumes into its hands, even if root asks
 * for something else by mistake.  Whether the superblock is whole, the worker finds out.
 * @flags: enum blkfile_flags with which the volume wants its device opened are added.
 */
int parent_check_volume(const struct blkfile_handle *h, const char *dev, unsigned int *flags,
			struct rpc_reply *reply);

/* ---- parent_kill.c ---- */
int parent_kill(const struct parent *p, const struct rpc_kill *rq, const int *fds,
		struct rpc_reply *reply);

#endif
