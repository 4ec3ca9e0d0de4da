/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtual disks served by iSCSI: portals of this daemon, each with a target for every disk that
 * is attached to it.
 *
 * A portal comes with its first disk and goes with its last one.  Its sessions live on the reactors
 * of disks.c; a disk's requests go to the reactor that owns it (disk_blkdev()).  The parent opens
 * the listening socket, and the file of secrets, which it checks.
 *
 * Threads: everything here blocks, and is called by no reactor.  Never with the mutex of struct
 * disks held.
 */
#ifndef LUNFS_DAEMON_EXPORTS_H
#define LUNFS_DAEMON_EXPORTS_H

#include <pthread.h>

#include "base/reactor.h"
#include "block/blkdev.h"
#include "daemon/rpc_client.h"

#define EXPORTS_PORTAL_DEFAULT	"127.0.0.1:3260"
#define EXPORTS_PORTAL_SIZE	64	/* "[2001:db8::1]:3260" */
#define EXPORTS_PORTALS_MAX	8u
#define EXPORTS_CONNECTIONS_MAX	256u	/* of a portal */
#define EXPORTS_HALF_OPEN_MAX	64u	/* not logged in yet */
/* Of a reactor, which may have all connections: a few each, and of logical units some. */
#define EXPORTS_TIMERS		(EXPORTS_PORTALS_MAX * 4 * (EXPORTS_CONNECTIONS_MAX + \
							    EXPORTS_HALF_OPEN_MAX) + 2048)

struct export;
struct export_portal;

struct exports {
	struct rpc_client *rpc;
	struct reactor	**reactors;	/* borrowed */
	unsigned int	reactor_count;
	uint64_t	patience_ns;	/* of export_close() */
	pthread_mutex_t	mutex;		/* what follows; held while portals and targets come and go */
	bool		stopping;	/* none comes any more */
	struct list	portals;
};

struct export_params {
	const char	*portal;	/* as exports_portal() made it */
	const char	*name;		/* of the target, behind the prefix of all of them */
	const char	*object;	/* for log lines */
	struct blkdev	*disk;		/* borrowed until export_free() */
	void		(*abandon)(void *arg);	/* what waits in it may end with an error now */
	void		*arg;
	uint8_t		id[16];		/* of the disk, the same for ever */
	const char	*serial;
	uint32_t	block_size;
	bool		read_only;
};

/** exports_init() - no portal yet. */
void exports_init(struct exports *x, struct rpc_client *rpc, struct reactor **reactors,
		  unsigned int reactor_count);

/**
 * exports_stop() - cuts every connection and closes every portal: initiators come again to the next
 * daemon.  What they had under way is abandoned where it waits; no device is waited for, that is
 * export_close()'s, which is to follow for each, and export_free()'s.
 */
void exports_stop(struct exports *x);

/** exports_portal() - "ADDRESS[:PORT]" as it is compared and shown.  -EINVAL with @why. */
int exports_portal(const char *text, char out[EXPORTS_PORTAL_SIZE], char *why, size_t why_size);

/** exports_address() - of such a one.  exports_is_loopback() - nobody else reaches it. */
int exports_address(const char *portal, struct sockaddr_storage *addr, char *why, size_t why_size);
bool exports_is_loopback(const struct sockaddr_storage *addr);

/**
 * exports_hold() - a portal, opened if need be, that stays until exports_release(): before the disk
 * is opened, so that one that cannot be offered stays as it was left.
 * Return: 0; -EADDRINUSE, -EADDRNOTAVAIL, -EPERM, …, with @why.
 */
int exports_hold(struct exports *x, const char *portal, struct export_portal **out, char *why,
		 size_t why_size);
void exports_release(struct exports *x, struct export_portal *p);

/** export_new() - offers an open disk.  As exports_hold(). */
int export_new(struct exports *x, const struct export_params *p, struct export **out, char *why,
	       size_t why_size);

/**
 * export_retire() - nobody can log in any more, if nobody has.
 * Return: 0; -EBUSY somebody has, all is as it was.
 */
int export_retire(struct export *e);

/**
 * export_close() - offers it no longer: initiators are asked to log out, what they had under way is
 * aborted, and abandoned where it waits.  Afterwards nobody submits anything to the disk, but a device
 * that does not answer for longer than some seconds may still have what was submitted.
 */
void export_close(struct export *e);

/** export_free() - of a closed one.  Waits until the disk has answered all: shut it before. */
void export_free(struct export *e);

/** export_resized() - initiators are told that the disk has grown. */
void export_resized(struct export *e);

/** export_connections() - initiators that are logged in. */
unsigned int export_connections(struct export *e);

/** export_url() - "iscsi://127.0.0.1:3260/iqn…/0"; returns @buf. */
char *export_url(const struct export *e, char *buf, size_t size);

#endif
