/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/vhost_bench/cpu.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

void cpu_watch_tree(struct cpu_watch *w, int pid)
{
	char path[64];
	FILE *f;
	int child;

	if (w->count == CPU_PIDS_MAX)
		return;
	w->pids[w->count++] = pid;
	/* Of its first thread: that is who forks. */
	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, pid);
	f = fopen(path, "re");
	if (!f)
		return;
	while (fscanf(f, "%d", &child) == 1)
		cpu_watch_tree(w, child);
	fclose(f);
}

int cpu_watch_parse(struct cpu_watch *w, const char *list)
{
	while (*list) {
		char *end;
		long pid = strtol(list, &end, 10);

		if (end == list || pid <= 0 || pid > INT_MAX || w->count == CPU_PIDS_MAX ||
		    (*end && *end != ','))
			return -EINVAL;
		w->pids[w->count++] = (int)pid;
		list = *end ? end + 1 : end;
	}
	return w->count ? 0 : -EINVAL;
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec t;

	if (clock_gettime(clock, &t))
		return 0;
	return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

uint64_t cpu_watch_ns(const struct cpu_watch *w)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < w->count; i++) {
		clockid_t clock;

		if (!clock_getcpuclockid(w->pids[i], &clock))
			sum += clock_ns(clock);
	}
	return sum;
}

uint64_t cpu_own_ns(void)
{
	return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}
