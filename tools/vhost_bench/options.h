/* SPDX-License-Identifier: Apache-2.0 */
/* What lunfs-vhost-bench is asked for. */
#ifndef LUNFS_VHOST_BENCH_OPTIONS_H
#define LUNFS_VHOST_BENCH_OPTIONS_H

#include "tools/vhost_bench/cpu.h"
#include "tools/vhost_bench/load.h"

struct options {
	struct fe_params fe;
	struct load_params load;
	struct cpu_watch watch;		/* of --server-pid */
	uint64_t	runtime_ns;
	uint64_t	ramp_ns;
	uint64_t	reconnect_ns;	/* how long to wait for a new server; 0: not at all */
	const char	*ledger;	/* NULL: in memory */
	bool		verify;
	bool		idle;
	bool		exercise;
	bool		json;
};

/**
 * options_parse() - reads the command line; says what is wrong with it.
 * Return: -1 go on; else the exit status.
 */
int options_parse(struct options *o, int argc, char **argv);

/** options_fit() - fits them to the disk of @capacity bytes.  0, or -EINVAL, having said why. */
int options_fit(struct options *o, uint64_t capacity);

#endif
