/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a target serves, to whom, and where: lunfs-target.conf(5).  Read once, then only
 * looked at; a new reading makes a new one.
 */
#ifndef LUNFS_ISCSI_CONFIG_H
#define LUNFS_ISCSI_CONFIG_H

#include <limits.h>
#include <netinet/in.h>
#include <stdio.h>

#include "iscsi/chap.h"
#include "iscsi/tgt.h"

#define TGT_CONFIG_FILE		"/etc/lunfs/lunfs-target.conf"
#define TGT_STATE_DIR		"/var/lib/lunfs/target"
#define TGT_DEFAULT_IQN		"iqn.2026-01.org.lunfs"
#define TGT_POLL_US_DEFAULT	200	/* with less than two wake-ups take it never begins */

enum {
	TGT_PORTALS_MAX		= 32,
	TGT_TARGETS_MAX		= 1024,
	TGT_INITIATORS_MAX	= 1024,	/* of a target */
	TGT_USERS_MAX		= 1024,	/* of a secrets file */
	TGT_REACTORS_MAX	= 64,
};

struct tgt_user {
	char	name[TGT_VALUE_MAX + 1];
	struct tgt_secret secret;
};

/* How initiators prove who they are, and we to them. */
struct tgt_auth {
	bool		required;	/* CHAP, or nobody gets in */
	unsigned int	algs;		/* 1 << enum tgt_chap_alg */
	struct tgt_user	*incoming;	/* any of them */
	unsigned int	incoming_count;
	bool		mutual;		/* outgoing is there */
	struct tgt_user	outgoing;
	char		path[PATH_MAX];	/* of the secrets file; "" without */
};

/* Who may use a target. */
struct tgt_initiator {
	char	name[SCSI_NAME_MAX];	/* normalised; a '*' at the end stands for anything */
	char	user[TGT_VALUE_MAX + 1];	/* the CHAP user it has to be; "": any */
};

enum tgt_lun_flags {
	TGT_LUN_READ_ONLY	= 1 << 0,
	TGT_LUN_THICK		= 1 << 1,	/* no unmap */
	TGT_LUN_WRITE_THROUGH	= 1 << 2,	/* no volatile write cache is reported */
	TGT_LUN_REMOVABLE	= 1 << 3,	/* may be ejected: for conformance tests */
};

struct tgt_lun {
	unsigned int	number;
	char		path[PATH_MAX];
	uint32_t	block_size;	/* 512 or 4096 */
	uint32_t	physical_block_size;	/* what initiators shall align to; 0: block_size */
	uint64_t	create_size;	/* make a thin file of that size if there is none; or 0 */
	unsigned int	flags;		/* enum tgt_lun_flags */
	uint64_t	sanitize_bps;	/* bytes a second that sanitize overwrites; 0: unbounded */
};

struct tgt_target {
	char		iqn[SCSI_NAME_MAX];
	char		alias[TGT_VALUE_MAX + 1];
	struct tgt_initiator *initiators;
	unsigned int	initiator_count;
	struct tgt_auth	auth;
	struct tgt_lun	*luns;		/* in ascending order of their numbers */
	unsigned int	lun_count;
	unsigned int	line;		/* of the file, for messages */
};

struct tgt_portal {
	struct sockaddr_storage addr;	/* with the port */
	uint16_t	group;		/* portal group tag */
};

struct tgt_config {
	struct tgt_portal portals[TGT_PORTALS_MAX];
	unsigned int	portal_count;
	struct tgt_target *targets;
	unsigned int	target_count;
	struct tgt_auth	discovery;	/* for discovery sessions */
	struct tgt_limits limits;
	struct tgt_params ours;		/* outer limits of negotiation */
	unsigned int	reactors;	/* 0: as many as there are CPUs */
	unsigned int	poll_us;	/* busy polling after the last work; 0: sleep at once */
	char		user[64];	/* of the worker; "": lunfs if it exists, else nobody */
	char		state_dir[PATH_MAX];
	enum log_level	log_level;
};

/** tgt_config_create() - the defaults: no portal, no target.  Return: 0 or -ENOMEM. */
int tgt_config_create(struct tgt_config **out);

/** tgt_config_destroy() - frees, after overwriting the secrets; NULL is allowed. */
void tgt_config_destroy(struct tgt_config *config);

/** tgt_config_target() - the target of that (normalised) name, or NULL. */
const struct tgt_target *tgt_config_target(const struct tgt_config *config, const char *iqn);

/**
 * tgt_target_admits() - the entry by which @initiator (normalised) may use @target, or NULL:
 * an entry of its whole name before the longest one with a star.
 */
const struct tgt_initiator *tgt_target_admits(const struct tgt_target *target,
					      const char *initiator);

/* ---- putting one together; messages in @why, of which the caller knows the place ---- */

/** tgt_config_add_portal() - "ADDRESS[:PORT]", IPv6 in brackets.  Return: 0, -EINVAL, -ENOSPC. */
int tgt_config_add_portal(struct tgt_config *config, const char *text, uint16_t group,
			  char *why, size_t why_size);

/** tgt_config_add_target() - Return: 0 with @out, -EINVAL, -EEXIST, -ENOSPC, -ENOMEM. */
int tgt_config_add_target(struct tgt_config *config, const char *iqn, struct tgt_target **out,
			  char *why, size_t why_size);

/** tgt_target_add_initiator() - "NAME[*]" with the CHAP user it has to be, or NULL. */
int tgt_target_add_initiator(struct tgt_target *target, const char *name, const char *user,
			     char *why, size_t why_size);

/**
 * tgt_target_add_lun() - "PATH[,OPTION…]"; @preset holds what options leave open.
 * Return: 0; -EINVAL; -EEXIST the number is taken; -ENOMEM.
 */
int tgt_target_add_lun(struct tgt_target *target, const struct tgt_lun *preset, const char *text,
		       char *why, size_t why_size);

/**
 * tgt_config_read() - everything in @in, of which @name tells messages.
 * @why: on failure "NAME:LINE:COLUMN: what is wrong".
 * The secrets files that it names are not read: see tgt_auth_read_secrets().
 * Return: 0; -EINVAL, -EIO, -ENOMEM, with @config half changed.
 */
int tgt_config_read(struct tgt_config *config, FILE *in, const char *name, char *why,
		    size_t why_size);

/** tgt_config_check() - what only the whole can tell.  Return: 0 or -EINVAL with @why. */
int tgt_config_check(const struct tgt_config *config, char *why, size_t why_size);

/**
 * tgt_auth_read_secrets() - users and secrets from @in, of which @name tells messages.
 *
 * Each line: "incoming USER SECRET" or "outgoing USER SECRET"; the secret is the rest of the
 * line.  No message shows any part of a secret.  Return: 0; -EINVAL, -ENOMEM with @why.
 */
int tgt_auth_read_secrets(struct tgt_auth *auth, FILE *in, const char *name, char *why,
			  size_t why_size);

/** tgt_portal_format() - "192.0.2.1:3260", "[2001:db8::1]:3260"; @buf of 64 bytes; returns it. */
char *tgt_portal_format(const struct sockaddr_storage *addr, char buf[64]);

#endif
