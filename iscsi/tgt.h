/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The iSCSI transport: portals, connections, sessions, data transfer (RFC 7143).
 *
 * Connections are accepted and log in on the first reactor; a session then lives on one
 * reactor with all its connections, so that it needs no lock.
 */
#ifndef LUNFS_ISCSI_TGT_H
#define LUNFS_ISCSI_TGT_H

#include "iscsi/params.h"

struct tgt;
struct tgt_portal;		/* everything that one process serves */
struct tgt_config;	/* config.h: what the login checks against */

/* Bounds; each has a name in lunfs-target.conf(5). */
struct tgt_limits {
	unsigned int	connections_max;		/* in full feature phase */
	unsigned int	connections_address_max;	/* from one address, half-open included */
	unsigned int	session_connections_max;	/* MC/S */
	unsigned int	sessions_max;
	unsigned int	half_open_max;			/* not logged in: the oldest goes */
	unsigned int	half_open_address_max;
	unsigned int	login_timeout_ms;
	unsigned int	nop_interval_ms;		/* silence before a NOP-In; 0: never */
	unsigned int	nop_timeout_ms;			/* silence after it before the end */
	unsigned int	commands_max;			/* CmdSN window of a session */
	uint64_t	memory_max;			/* data buffers of all reactors, bytes */
};

/** tgt_limits_default() - what a small server can bear. */
void tgt_limits_default(struct tgt_limits *limits);

struct tgt_options {
	struct env	*env;
	struct reactor	**reactors;
	unsigned int	reactor_count;
	struct tgt_limits limits;
	const struct tgt_config *config;	/* borrowed; tgt_set_config() changes it */
	/* The logical units of a target name that a login has accepted, or NULL: not found. */
	struct scsi_target *(*find_target)(void *arg, const char *iqn);
	void		*arg;
};

/** tgt_create() - Return: 0 or -errno.  Context: none of the reactors. */
int tgt_create(const struct tgt_options *options, struct tgt **out);

/**
 * tgt_listen() - serves a portal.
 * @fd: bound, listening, non-blocking socket; the portal's from now on (also on failure).
 * @portal_group: its TPGT; portals whose sessions may share connections have the same.
 * Return: 0 or -errno.  Context: none of the reactors.
 */
int tgt_listen(struct tgt *tgt, int fd, uint16_t portal_group);

/**
 * tgt_listen_only() - closes the portals whose addresses are not among @portals.
 *
 * Nobody gets in there any more; who is connected stays.  Any thread but a reactor's.
 */
void tgt_listen_only(struct tgt *tgt, const struct tgt_portal *portals, unsigned int count);

/**
 * tgt_set_config() - logins that begin from now on see @config; until tgt_config_unused() says
 * otherwise the old one may still be looked at.  Sessions that could not log in under it (target
 * gone, initiator not admitted, CHAP user not listed) are asked to log out and ended 3 s later.
 * Return: 0 or -ENOMEM.
 */
int tgt_set_config(struct tgt *tgt, const struct tgt_config *config);

/** tgt_config_unused() - true once no connection uses @config any more; it is forgotten then. */
bool tgt_config_unused(struct tgt *tgt, const struct tgt_config *config);

/**
 * tgt_logout_all() - asks every initiator of @iqn (NULL: of all) to log out (Async Message 1)
 * and closes what is left of their connections after @timeout_ms.
 */
void tgt_logout_all(struct tgt *tgt, const char *iqn, unsigned int timeout_ms);

/**
 * tgt_retire() - calls @fn(@arg) if @iqn has no session, while none can begin: find_target() is
 * asked before or after it, and what @fn says there holds for every later login.
 * Return: how many sessions there are; with any @fn was not called.
 */
unsigned int tgt_retire(struct tgt *tgt, const char *iqn, void (*fn)(void *arg), void *arg);

/**
 * tgt_stop() - portals and connections are closed: no initiator is answered any more.  Commands at
 * work go on; tgt_destroy() is to follow.
 */
void tgt_stop(struct tgt *tgt);

/** tgt_destroy() - closes portals and connections, waits until every command is accounted for. */
void tgt_destroy(struct tgt *tgt);

/* What the status shows; a snapshot. */
struct tgt_connection_status {
	char		initiator[SCSI_NAME_MAX];
	char		target[SCSI_NAME_MAX];
	char		user[256];	/* CHAP; "": none */
	char		address[64];	/* "192.0.2.1:34567" */
	uint16_t	tsih;
	uint16_t	cid;
	unsigned int	reactor;
	uint64_t	commands;	/* finished */
	uint64_t	bytes_in;	/* payload from the initiator */
	uint64_t	bytes_out;
};

/** tgt_each_connection() - calls @fn for every logged-in connection.  Context: no reactor. */
void tgt_each_connection(struct tgt *tgt,
			 void (*fn)(void *arg, const struct tgt_connection_status *status),
			 void *arg);

#endif
