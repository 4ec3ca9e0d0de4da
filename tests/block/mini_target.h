/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A scripted iSCSI target in threads of the test's own process: a small disk in memory whose
 * answers, silences and broken connections a test decides.  Tests only; it believes its peer,
 * and is no atomic anything but by a mutex.
 */
#ifndef LUNFS_TESTS_MINI_TARGET_H
#define LUNFS_TESTS_MINI_TARGET_H

#include <pthread.h>

#include "base/types.h"

#define MINI_SIZE	(8 * MIB)
#define MINI_RULES	8
#define MINI_CONNS	32
#define MINI_NEXUSES	64
#define MINI_IQN	"iqn.2026-11.test:mini"

enum mini_action {
	MINI_SENSE,		/* CHECK CONDITION, not executed */
	MINI_STATUS,		/* this status, not executed */
	MINI_DROP,		/* the connection is closed, not executed */
	MINI_DROP_DONE,		/* executed, then the connection is closed without an answer */
	MINI_SILENT,		/* executed, never answered */
	MINI_SHORT,		/* GOOD, with one sector less than was asked for, and no residual */
	MINI_EMPTY,		/* GOOD, without the data */
};

struct mini_rule {
	uint8_t	opcode;
	unsigned int skip;	/* so many commands of it first */
	unsigned int count;	/* then for so many; 0: the rule is free */
	enum mini_action action;
	uint8_t	status;
	uint8_t	key;
	uint16_t asc;
	bool	descriptor;	/* sense in descriptor format */
	uint64_t lba;		/* INFORMATION; 0: none */
};

/* Who is registered: initiator name and ISID. */
struct mini_pr {
	uint32_t generation;
	uint8_t	type;			/* 0: not reserved */
	uint64_t holder;		/* key */
	struct { uint64_t nexus, key; } reg[MINI_NEXUSES];	/* key 0: free */
};

struct mini_conn {
	struct mini_target *t;
	pthread_t thread;
	int	fd;		/* -1: free */
	uint32_t stat_sn;
	uint64_t nexus;		/* once logged in */
	char	initiator[224];
	bool	ended;
};

struct mini_target {
	/* What it is: set before mini_start(), or while no command is under way. */
	uint64_t size;			/* bytes; 0: MINI_SIZE */
	uint32_t sector;
	bool	wce, no_fua;		/* caching page and DPOFUA */
	uint8_t	identity;		/* last byte of the NAA name */
	uint32_t rw_max;		/* MAXIMUM TRANSFER LENGTH, in blocks */
	uint32_t same_max;		/* MAXIMUM WRITE SAME LENGTH, in blocks */
	bool	reservations;		/* has them */
	bool	broken_caw;		/* compares, and writes some time later */

	int	listen_fd;
	uint16_t port;
	pthread_t thread;
	/*
	 * Everything below.  A test reads @data, @fua and @biggest without it once the only command
	 * that changes them has been answered; sessions come and go by themselves: mini_logins().
	 */
	pthread_mutex_t mutex;
	uint8_t	*data;
	struct mini_pr	pr;
	struct mini_rule rules[MINI_RULES];
	struct mini_conn conns[MINI_CONNS];
	unsigned int seen[256];		/* commands by opcode */
	unsigned int fua[256];		/* of these with FUA */
	unsigned int logins;
	uint8_t	isids[MINI_CONNS][6];	/* of the logins, in order */
	uint32_t biggest;		/* transfer seen, in bytes */
};

/** mini_start() - serves LUN 0 of MINI_IQN on 127.0.0.1; @t->sector is set, the rest defaults. */
int mini_start(struct mini_target *t);
void mini_stop(struct mini_target *t);
/** mini_url() - its URL with @params ("" or "?…"). */
const char *mini_url(const struct mini_target *t, const char *params, char buf[256]);
/** mini_rule_add() - from now on. */
void mini_rule_add(struct mini_target *t, struct mini_rule rule);
/** mini_cut() - closes every connection. */
void mini_cut(struct mini_target *t);
unsigned int mini_seen(struct mini_target *t, uint8_t opcode);
/** mini_logins() - how many there were; the ISIDs of so many may be read from then on. */
unsigned int mini_logins(struct mini_target *t);

/* ---- mini_target_pr.c; mutex held ---- */

/** mini_pr_conflict() - whether a command of @nexus meets a reservation conflict. */
bool mini_pr_conflict(const struct mini_target *t, uint64_t nexus, uint8_t opcode);
/** mini_pr_out() - Return: a status, 0x02 for an invalid field. */
uint8_t mini_pr_out(struct mini_target *t, uint64_t nexus, const uint8_t *cdb,
		    const uint8_t *param);
/** mini_pr_in() - Return: bytes of @out, 0 for an invalid field. */
uint32_t mini_pr_in(const struct mini_target *t, const uint8_t *cdb, uint8_t out[2048]);

#endif
