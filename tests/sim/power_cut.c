// SPDX-License-Identifier: Apache-2.0
/*
 * power_cut [-n STATES] [-j JOBS] [-f] [-w WORKLOAD [-c MOMENT -s STATE]] [-l]: records scripts and
 * cuts the power at every moment of them.  Each state is judged in a process of its own, which
 * finds the recording and the durable part of the LUN in its memory.
 */
#include <getopt.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/sim/cut.h"

#define JOBS_MAX	64u
#define JUDGE_S_MAX	120u
#define FAILURES_MAX	10u	/* -f: 1 */

struct run {
	struct recording r;
	uint64_t budget;		/* states of each workload; 0: all there are */
	unsigned int jobs, running, failures_max;
	uint64_t states, total;
	unsigned int failures;
	struct child { pid_t pid; size_t moment; uint64_t state; } children[JOBS_MAX];
};

/* ---- children ---- */

static void failed(struct run *run, const struct child *c, int status)
{
	const char *name = run->r.w->name;

	run->failures++;
	if (WIFSIGNALED(status))
		fprintf(stderr, "  ended by signal %d\n", WTERMSIG(status));
	printf("FAIL: powercut %s, cut at moment %zu, subset %llu, after %llu states; see it again "
	       "with:\n  build/tests/sim/power_cut -w %s -c %zu -s %llu\n", name, c->moment,
	       (unsigned long long)c->state, (unsigned long long)run->states, name, c->moment,
	       (unsigned long long)c->state);
	fflush(stdout);
}

static void reap(struct run *run)
{
	int status;
	pid_t pid = wait(&status);

	MUST(pid > 0);
	for (unsigned int i = 0; i < run->jobs; i++) {
		if (run->children[i].pid != pid)
			continue;
		run->children[i].pid = 0;
		run->running--;
		if (!WIFEXITED(status) || WEXITSTATUS(status))
			failed(run, &run->children[i], status);
	}
}

static void judge_here(struct run *run, size_t moment, uint64_t state, bool verbose)
{
	struct recording *r = &run->r;

	alarm(JUDGE_S_MAX);
	cuts_choose(r, r->disk, moment, state, verbose);
	_exit(judge(r, r->sim, r->disk, moment, state, verbose) ? 0 : 1);
}

static void spawn(struct run *run, size_t moment, uint64_t state)
{
	unsigned int i;
	pid_t pid;

	while (run->running == run->jobs)
		reap(run);
	fflush(stdout);
	pid = fork();
	MUST(pid >= 0);
	if (!pid)
		judge_here(run, moment, state, false);
	for (i = 0; run->children[i].pid; i++)
		;
	run->children[i] = (struct child){ pid, moment, state };
	run->running++;
	run->states++;
}

/* ---- a workload ---- */

#define BUDGET_LONG	1000u	/* from here on each moment is cut at least twice */

/* Of more states than the budget a sample, the same in each run. */
static bool is_sampled(const struct run *run, size_t moment, uint64_t state)
{
	if (!run->budget || run->total <= run->budget)
		return true;
	if (run->budget >= BUDGET_LONG && state < 2)
		return true;
	return mix64(mix64(moment + 1) ^ state) % run->total < run->budget;
}

static void cut_everywhere(struct run *run)
{
	const struct recording *r = &run->r;

	for (size_t m = 0; m < r->moment_count; m++)
		run->total += cuts_count(r, m);
	for (size_t m = 0; m < r->moment_count && run->failures < run->failures_max; m++) {
		uint64_t count = cuts_count(r, m);

		if (m)
			cuts_advance(r, r->disk, m - 1, m);
		for (uint64_t s = 0; s < count && run->failures < run->failures_max; s++)
			if (is_sampled(run, m, s))
				spawn(run, m, s);
	}
	while (run->running)
		reap(run);
}

static bool run_workload(const struct workload *w, uint64_t budget, unsigned int jobs,
			 unsigned int failures_max)
{
	struct run *run = calloc(1, sizeof(*run));
	bool ok;

	MUST(run);
	run->budget = budget;
	run->jobs = jobs;
	run->failures_max = failures_max;
	record_run(&run->r, w);
	cut_everywhere(run);
	ok = !run->failures;
	if (ok)
		printf("PASS: powercut %s (%llu of %llu states)\n", w->name,
		       (unsigned long long)run->states, (unsigned long long)run->total);
	fflush(stdout);
	/* The recording stays: the next workload runs in another process. */
	return ok;
}

/* A process for each workload, so that one ends with what it has made. */
static bool run_apart(const struct workload *w, uint64_t budget, unsigned int jobs,
		      unsigned int failures_max)
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	MUST(pid >= 0);
	if (!pid)
		_exit(run_workload(w, budget, jobs, failures_max) ? 0 : 1);
	MUST(waitpid(pid, &status, 0) == pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) < 2)
		return WEXITSTATUS(status) == 0;
	printf("FAIL: powercut %s: the script did not come to its end\n", w->name);
	return false;
}

/* One state, in this process. */
static void replay(const struct workload *w, size_t moment, uint64_t state)
{
	struct run *run = calloc(1, sizeof(*run));

	MUST(run);
	record_run(&run->r, w);
	MUST(moment < run->r.moment_count && state < cuts_count(&run->r, moment));
	for (size_t m = 1; m <= moment; m++)
		cuts_advance(&run->r, run->r.disk, m - 1, m);
	for (size_t i = 0; i < run->r.op_count; i++) {
		const struct op *op = &run->r.ops[i];

		if (op->begin <= moment)
			fprintf(stderr, "    operation %zu: kind %d, host %u, %s %s %llu +%llu, "
				"moments %zu to %zd\n", i, op->what, op->host, op->path, op->to,
				(unsigned long long)op->off, (unsigned long long)op->len,
				op->begin, (ssize_t)op->end);
	}
	judge_here(run, moment, state, true);
}

static const struct workload *workload_find(const char *name)
{
	for (size_t i = 0; i < workload_count; i++)
		if (!strcmp(workloads[i].name, name))
			return &workloads[i];
	fprintf(stderr, "power_cut: no workload %s\n", name);
	exit(2);
}

static int list_workloads(void)
{
	for (size_t i = 0; i < workload_count; i++)
		puts(workloads[i].name);
	return 0;
}

int main(int argc, char **argv)
{
	const struct workload *only = NULL;
	uint64_t budget = 0, moment = 0, state = 0;
	unsigned int jobs = (unsigned int)sysconf(_SC_NPROCESSORS_ONLN), failures_max = FAILURES_MAX;
	bool one = false, ok = true;
	int c;

	while ((c = getopt(argc, argv, "n:j:fw:c:s:l")) != -1) {
		switch (c) {
		case 'n': budget = strtoull(optarg, NULL, 0); break;
		case 'j': jobs = (unsigned int)strtoul(optarg, NULL, 0); break;
		case 'f': failures_max = 1; break;
		case 'w': only = workload_find(optarg); break;
		case 'c': moment = strtoull(optarg, NULL, 0); one = true; break;
		case 's': state = strtoull(optarg, NULL, 0); break;
		case 'l': return list_workloads();
		default: return 2;
		}
	}
	jobs = jobs < 1 ? 1 : jobs > JOBS_MAX ? JOBS_MAX : jobs;
	if (one && only)
		replay(only, moment, state);
	for (size_t i = 0; i < workload_count; i++)
		if (!only || only == &workloads[i])
			ok = run_apart(&workloads[i], budget, jobs, failures_max) && ok;
	return ok ? 0 : 1;
}
