/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checks of datastores that are in use: one at a time that somebody asked for (lunfs check), and
 * the scrub, which goes round and round by itself.
 *
 * The scrub reads all metadata for what single blocks and objects tell of themselves.  Each host
 * reads the whole volume, by its own paths, at the rate divided by the number of hosts that live:
 * the LUN sees the rate, whoever comes or goes, and nobody has to agree on parts.
 */
#ifndef LUNFS_DAEMON_CHECKER_H
#define LUNFS_DAEMON_CHECKER_H

#include "daemon/store.h"
#include "fs/check_online.h"

#define CHECKER_FINDINGS	1000u	/* that are remembered; more are counted */

struct checker_finding {
	enum check_code code;
	uint64_t addr, inode;		/* number; 0: none */
	char	*text, *path;		/* path: NULL if it is about no inode */
	uint64_t pass;			/* of the scrub that met it last */
};

enum checker_state { CHECKER_NEVER, CHECKER_RUNNING, CHECKER_DONE, CHECKER_FAILED };

/* A check that goes on, or the last one; or the scrub. */
struct checking {
	struct store	*store;
	bool		is_scrub;
	enum checker_state state;
	uint64_t	rate;		/* bytes a second; 0: as fast as it goes */
	const char	*phase;
	uint64_t	done, total;
	struct checker_finding *findings;
	unsigned int	count;
	struct check_online_result result;	/* of what is done */
	int		err;		/* why it failed */
	/* A check. */
	uint64_t	asked_ns;	/* when somebody last wanted to know: else it ends */
	bool		ending;		/* it has seen that it is to; stores->mutex */
	/* The scrub. */
	uint64_t	passes;		/* complete ones */
	uint64_t	passed_ns;	/* realtime of the last one's end */
	unsigned int	hosts;		/* among which the rate is divided */
	/* Its thread's own. */
	uint64_t	from_ns, bytes, looked_ns, hosts_ns;
};

struct store_checks {
	pthread_mutex_t	mutex;		/* a leaf: all but what says otherwise */
	struct checking	check, scrub;
};

/** checker_new(), checker_free() - for a datastore; NULL: no memory.  None may be running. */
struct store_checks *checker_new(struct store *s);
void checker_free(struct store_checks *c);

/**
 * checker_start() - a check of @s at @rate begins, or the one that runs is joined (*@joined).
 * It ends by itself when nobody has asked for it for ten seconds: checker_asked().  Waits for one that
 * is just ending so.
 * Return: 0; -ENOTSUP it takes no part in locking; -ENOMEM, -EAGAIN.
 */
int checker_start(struct store *s, uint64_t rate, bool *joined);
void checker_asked(struct store *s);

/** scrubber_start() - from now on datastores are scrubbed, at @rate bytes a second; 0: not. */
int scrubber_start(struct stores *all, uint64_t rate);

#endif
