/* SPDX-License-Identifier: Apache-2.0 */
/* Many runs: one process a seed. */
#ifndef LUNFS_TESTS_SIM_SOAK_H
#define LUNFS_TESTS_SIM_SOAK_H

#include "tests/sim/cluster/sim.h"

struct run_params {
	uint64_t seed, steps;
	unsigned int hosts;	/* 0: as the seed says */
	bool trace;
	uint64_t watch;		/* an address to show all commands of; 0: none */
	int costs_fd;		/* no faults, but what things cost, written there; 0: none */
};

struct run_result {
	unsigned int violations;
	bool unsafe;		/* rung C: violations are to be expected */
	unsigned int hosts;
	uint64_t hash, commands, ns;
	uint64_t counters[COUNTER_COUNT];
	uint64_t struck[FAULTS][OPS];
	char first[400];
};

/** run_seed() - one run, in this process. */
void run_seed(const struct run_params *p, struct run_result *r);

/** costs_run() - in @w's world before its first host: measures, and writes its rows to @fd. */
void costs_run(struct world *w, int fd);
/** costs_print() - the table for few and many hosts; returns an exit status. */
int costs_print(void);

#endif
