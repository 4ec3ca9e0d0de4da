/* SPDX-License-Identifier: Apache-2.0 */
/* Load: threads that keep the rings of a front end full, and measure. */
#ifndef LUNFS_VHOST_BENCH_LOAD_H
#define LUNFS_VHOST_BENCH_LOAD_H

#include <pthread.h>
#include <stdatomic.h>

#include "tools/vhost_bench/fe.h"
#include "tools/vhost_bench/histogram.h"
#include "tools/vhost_bench/ledger.h"

enum load_op { LOAD_READ, LOAD_WRITE, LOAD_FLUSH, LOAD_DISCARD, LOAD_ZERO, LOAD_OPS };

struct load_params {
	uint64_t	offset;		/* the part of the disk, bytes */
	uint64_t	size;
	uint32_t	block_size;	/* bytes of a request, a multiple of 512 */
	bool		random;
	bool		once;		/* sequential: ends when all of it was done once */
	unsigned int	read_percent;	/* of reads and writes */
	unsigned int	discard_percent; /* of all */
	unsigned int	zero_percent;
	unsigned int	flush_every;	/* a flush after so many writes of a queue; 0: none */
	unsigned int	segments;	/* that the data of a request is cut into */
	unsigned int	threads;	/* that the queues are spread over */
	bool		poll;		/* do not sleep while waiting for completions */
	bool		check_only;	/* read what the ledger knows, once */
	bool		measured;	/* from its first request on, without load_measure() */
	uint64_t	seed;
	struct ledger	*ledger;	/* NULL: contents do not matter */
};

struct load_counts {
	uint64_t	ops[LOAD_OPS];	/* while measured */
	uint64_t	bytes[2];
	uint64_t	errors;		/* ever: answered with another status than OK */
	uint64_t	checked;	/* ever: blocks that were compared */
	uint64_t	wrong;		/* ever: and were not what they had to be */
	uint64_t	kicks;		/* while measured */
	uint64_t	sleeps;
	struct histogram latency[LOAD_OPS];
};

struct load_thread;

struct load {
	struct load_params p;
	struct fe	*fe;
	struct load_thread *threads;
	atomic_bool	measuring;
	atomic_bool	stopping;	/* no new requests */
	atomic_bool	abandoned;	/* what is under way never comes back */
	atomic_bool	parking;	/* the rings are not to be touched */
	pthread_mutex_t	mutex;
	pthread_cond_t	changed;
	unsigned int	parked;		/* under mutex */
	unsigned int	ended;
	char		why[FE_WHY_SIZE];	/* under mutex: the first thing that was wrong */
};

/** load_start() - threads begin.  @fe is open and stays the caller's.  0 or -errno. */
int load_start(struct load *l, struct fe *fe, const struct load_params *p);

/** load_measure() - what ends from now on counts, or does no more. */
void load_measure(struct load *l, bool on);

/** load_stop() - no new requests; load_ended() becomes true when those under way are back. */
void load_stop(struct load *l);
bool load_ended(struct load *l);

/** load_park() - returns when no thread touches the rings; load_unpark() lets them go on. */
void load_park(struct load *l);
void load_unpark(struct load *l);

/** load_abandon() - the threads end although requests are under way: the server is gone. */
void load_abandon(struct load *l);

/** load_finish() - joins the threads (which have ended or soon will) and sums up. */
void load_finish(struct load *l, struct load_counts *sum);

#endif
