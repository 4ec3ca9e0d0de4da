/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The backend for iSCSI LUNs, in user space over libiscsi.
 *
 * A LUN is named iscsi://[USER@]HOST[:PORT]/IQN/LUN[?NAME=VALUE[&NAME=VALUE...]]; more portals
 * of it make a path each.  docs/ARCHITECTURE.md, "iSCSI LUNs", tells how paths, time limits,
 * resending and durability work; blkiscsi_parse() lists the parameters.
 */
#ifndef LUNFS_BLOCK_BLKISCSI_H
#define LUNFS_BLOCK_BLKISCSI_H

#include "block/blkdev.h"

#define BLKISCSI_PORTALS_MAX	8
#define BLKISCSI_NAME_SIZE	224	/* RFC 7143, 4.2.7.1: 223 bytes */
#define BLKISCSI_PORTAL_SIZE	96
#define BLKISCSI_SECRET_SIZE	128
#define BLKISCSI_DEFAULT_CHAP	"/etc/lunfs/iscsi.chap"
#define BLKISCSI_INITIATOR_FILE	"/etc/iscsi/initiatorname.iscsi"

/* When a write survives a crash of the target that has a volatile cache. */
enum blkiscsi_durable {
	BLKISCSI_DURABLE_WRITE,	/* each by itself (FUA): a lost session loses nothing */
	BLKISCSI_DURABLE_FLUSH,	/* from the next flush on; a lost session fails that flush */
};

/* A LUN and how to get at it.  Plain data: it travels from a privileged parent to its worker. */
struct blkiscsi_target {
	char	name[384];	/* the URL without its parameters: for messages */
	char	iqn[BLKISCSI_NAME_SIZE];
	uint32_t lun;
	uint32_t portal_count;
	char	portals[BLKISCSI_PORTALS_MAX][BLKISCSI_PORTAL_SIZE];	/* "host:port", "[v6]:port" */
	char	initiator[BLKISCSI_NAME_SIZE];	/* "": to be chosen by whoever opens */
	char	user[BLKISCSI_SECRET_SIZE], secret[BLKISCSI_SECRET_SIZE];
	char	mutual_user[BLKISCSI_SECRET_SIZE], mutual_secret[BLKISCSI_SECRET_SIZE];
	char	chap_file[256];
	bool	header_digest;
	bool	no_reservations;	/* the target's are not to be relied on */
	uint32_t durable;	/* enum blkiscsi_durable */
	uint32_t timeout_ms;	/* a command that takes longer has failed */
	uint32_t dead_ms;	/* a path that is silent for that long is dead */
	uint32_t login_ms;	/* for connecting and logging in, each attempt */
};

/** blkiscsi_is_url() - whether @name is meant as an iSCSI LUN rather than a path. */
bool blkiscsi_is_url(const char *name);

/**
 * blkiscsi_parse() - what @url says; everything else gets its default.
 *
 * Parameters: portal=HOST[:PORT] (again for each further one; all of one portal group),
 * chap-file=FILE, initiator=IQN, header-digest=none|crc32c, durable=write|flush,
 * reservations=yes|no, timeout=S, path-timeout=S, login-timeout=S (seconds).  A secret in the
 * URL is refused, for everybody who can run ps would see it.  Reads nothing.
 * Return: 0; -EINVAL; -EPERM a secret; with @why.
 */
int blkiscsi_parse(const char *url, struct blkiscsi_target *t, char *why, size_t why_size);

/** blkiscsi_same() - whether two URLs name the same LUN: by its target and number. */
bool blkiscsi_same(const char *a, const char *b);

/**
 * blkiscsi_load() - reads what @t needs of this machine: CHAP names and secrets from its file,
 * if @t names one or a user, and the initiator name where neither the URL nor the caller gave
 * one (/etc/iscsi/initiatorname.iscsi, else made from the machine's id).
 * A file of secrets that others may read is refused.
 * Return: 0; -EACCES; -ENOENT; -EINVAL; with @why.
 */
int blkiscsi_load(struct blkiscsi_target *t, char *why, size_t why_size);

/** blkiscsi_default_initiator() - the name of the host whose id is @host_id. */
void blkiscsi_default_initiator(const uint8_t host_id[16], char name[BLKISCSI_NAME_SIZE]);

/** blkiscsi_resolve() - turns host names into addresses.  Blocks on the resolver.
 * Return: 0 or -EHOSTUNREACH with @why. */
int blkiscsi_resolve(struct blkiscsi_target *t, char *why, size_t why_size);

/**
 * blkiscsi_dial() - a TCP connection to @portal (of a resolved target).
 * Return: a descriptor, non-blocking; -ETIMEDOUT; others of connect(2).  Blocks.
 */
int blkiscsi_dial(const char *portal, uint32_t timeout_ms);

enum blkiscsi_flags {
	BLKISCSI_READ_ONLY	= 1 << 0,
	BLKISCSI_HEARTBEAT	= 1 << 1,	/* answers soon or fails: nothing is sent again */
};

struct blkiscsi_options {
	unsigned int flags;		/* enum blkiscsi_flags */
	/* Optional: makes connections where the process itself may not, as blkiscsi_dial(). */
	int	(*dial)(void *arg, const char *portal, uint32_t timeout_ms);
	void	*dial_arg;
	/* Optional: called first by the handle's thread. */
	void	(*started)(void *arg);
	void	*started_arg;
};

/**
 * blkiscsi_open() - logs in to the LUN of @t, resolved and loaded, and learns all about it.
 *
 * Each call makes sessions of its own: one a portal.  Fails only if no portal works.
 * Context: blocks, at most login_ms and a few commands.
 * Return: 0; -EACCES wrong name or secret; -ENXIO no such LUN; -EMEDIUMTYPE no disk;
 * -ETIMEDOUT, -EIO nothing answers; with @why: object, cause, way out.
 */
int blkiscsi_open(struct env *env, const struct blkiscsi_target *t,
		  const struct blkiscsi_options *o, struct blkdev **out, char *why,
		  size_t why_size);

#endif
