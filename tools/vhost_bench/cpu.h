/* SPDX-License-Identifier: Apache-2.0 */
/* CPU time of other processes, threads that have ended included. */
#ifndef LUNFS_VHOST_BENCH_CPU_H
#define LUNFS_VHOST_BENCH_CPU_H

#include "base/types.h"

#define CPU_PIDS_MAX	32

struct cpu_watch {
	int		pids[CPU_PIDS_MAX];
	unsigned int	count;
};

/** cpu_watch_tree() - adds @pid and the processes below it, as far as there is room. */
void cpu_watch_tree(struct cpu_watch *w, int pid);

/** cpu_watch_parse() - adds the processes of "1234" or "1234,1240".  0 or -EINVAL. */
int cpu_watch_parse(struct cpu_watch *w, const char *list);

/** cpu_watch_ns() - what they have used so far; those that are gone count as nothing. */
uint64_t cpu_watch_ns(const struct cpu_watch *w);

/** cpu_own_ns() - what this process has used. */
uint64_t cpu_own_ns(void);

#endif
