// SPDX-License-Identifier: Apache-2.0
/* The program: one seed with its trace, a list of seeds, or new ones for some time. */
#include "tests/sim/cluster/soak.h"

#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define JOBS_MAX	64u
#define HOSTS_MIN	3u
#define STEPS_DEFAULT	20000u
#define RUN_SECONDS_MAX	120u	/* of the processor, whatever else it does: a run that hangs ends */
#define COVERED_SEEDS	300u	/* from so many on a counter of zero fails the run */

struct job {
	pid_t pid;
	int fd;
	uint64_t seed;
};

struct soak {
	struct run_params p;
	bool soak, list;
	unsigned int seconds, jobs;
	struct job job[JOBS_MAX];
	uint64_t next_seed, end_seed;
	uint64_t seeds, failed, unsafe, unsafe_broken, commands, ns;
	uint64_t counters[COUNTER_COUNT];
	uint64_t struck[FAULTS][OPS];
	uint64_t hosts[HOSTS_MAX + 1];	/* runs, by how many */
	time_t end;
};

static void job_start(struct soak *s, struct job *j)
{
	struct run_params p = s->p;
	struct run_result r = { 0 };
	int fds[2];

	if (pipe(fds))
		abort();
	j->seed = p.seed = s->next_seed++;
	j->pid = fork();
	if (j->pid < 0)
		abort();
	if (!j->pid) {
		close(fds[0]);
		setrlimit(RLIMIT_CPU, &(struct rlimit){ RUN_SECONDS_MAX, RUN_SECONDS_MAX });
		run_seed(&p, &r);
		if (write(fds[1], &r, sizeof(r)) != sizeof(r))
			_exit(2);
		_exit(0);
	}
	close(fds[1]);
	j->fd = fds[0];
}

static void report(struct soak *s, uint64_t seed, const char *what)
{
	s->failed++;
	printf("FAIL: seed %" PRIu64 ": %s\n  replay: make sim SEED=%" PRIu64 " STEPS=%" PRIu64 "\n",
	       seed, what, seed, s->p.steps);
	fflush(stdout);
}

static uint64_t takeovers(const uint64_t *counters)
{
	return counters[COUNT_slot_retire] + counters[COUNT_slot_self_live];
}

/* A run without its share of hosts, commands, crashes and takeovers has not shown enough. */
static void check_share(struct soak *s, const struct job *j, const struct run_result *r)
{
	char what[160];

	if (r->hosts >= HOSTS_MIN && r->commands >= s->p.steps &&
	    r->counters[COUNT_crash] >= CRASHES_MIN && takeovers(r->counters) >= TAKEOVERS_MIN &&
	    r->counters[COUNT_detach] && r->counters[COUNT_slot_claim])
		return;
	snprintf(what, sizeof(what), "too little happened: %u hosts, %" PRIu64 " commands, %" PRIu64
		 " crashes, %" PRIu64 " takeovers, %" PRIu64 " detaches in %.0f s", r->hosts,
		 r->commands, r->counters[COUNT_crash], takeovers(r->counters),
		 r->counters[COUNT_detach], (double)r->ns / 1e9);
	report(s, j->seed, what);
}

static void add_result(struct soak *s, const struct job *j, const struct run_result *r)
{
	s->commands += r->commands;
	s->ns += r->ns;
	s->unsafe += r->unsafe;
	s->unsafe_broken += r->unsafe && r->violations;
	s->hosts[r->hosts]++;
	for (unsigned int i = 0; i < COUNTER_COUNT; i++)
		s->counters[i] += r->counters[i];
	for (unsigned int i = 0; i < FAULTS * OPS; i++)
		s->struck[i / OPS][i % OPS] += r->struck[i / OPS][i % OPS];
	if (r->unsafe)
		return;
	if (r->violations)
		report(s, j->seed, r->first);
	else
		check_share(s, j, r);
}

static void job_end(struct soak *s, struct job *j)
{
	struct run_result r = { 0 };
	ssize_t n = read(j->fd, &r, sizeof(r));
	char what[64];
	int status = 0;

	close(j->fd);
	waitpid(j->pid, &status, 0);
	j->pid = 0;
	s->seeds++;
	if (n == sizeof(r) && WIFEXITED(status) && !WEXITSTATUS(status)) {
		add_result(s, j, &r);
		return;
	}
	snprintf(what, sizeof(what), "the process ended with status %#x", (unsigned int)status);
	report(s, j->seed, what);
}

static bool more(const struct soak *s)
{
	return s->soak ? time(NULL) < s->end && s->failed < 20 : s->next_seed < s->end_seed;
}

static void run_jobs(struct soak *s)
{
	struct pollfd fds[JOBS_MAX];
	unsigned int n;

	do {
		n = 0;
		for (unsigned int i = 0; i < s->jobs; i++) {
			if (!s->job[i].pid && more(s))
				job_start(s, &s->job[i]);
			fds[i] = (struct pollfd){ .fd = s->job[i].pid ? s->job[i].fd : -1,
						  .events = POLLIN };
			n += s->job[i].pid != 0;
		}
		if (n && poll(fds, s->jobs, -1) < 0)
			abort();
		for (unsigned int i = 0; i < s->jobs; i++)
			if (s->job[i].pid && fds[i].revents)
				job_end(s, &s->job[i]);
	} while (n);
}

/* Returns how many of those that chaos can make never happened. */
static unsigned int print_struck(const struct soak *s)
{
	unsigned int zeros = 0;

	printf("  %-26s", "fault: command");
	for (unsigned int op = 0; op < OPS; op++)
		if (op != BLK_ZERO)
			printf("%10s", sim_op_names[op]);
	printf("\n");
	for (unsigned int f = 0; f < FAULTS; f++) {
		printf("  %-26s", sim_fault_names[f]);
		for (unsigned int op = 0; op < OPS; op++) {
			if (op == BLK_ZERO)
				continue;
			if (!sim_fault_can(f, op)) {
				printf("%10s", "-");
				continue;
			}
			printf("%10" PRIu64, s->struck[f][op]);
			zeros += !s->struck[f][op];
		}
		printf("\n");
	}
	return zeros;
}

static unsigned int print_counters(const struct soak *s)
{
	unsigned int zeros = 0;

	for (unsigned int i = 0; i < COUNTER_COUNT; i++) {
		printf("  %10" PRIu64 "  %s\n", s->counters[i], sim_counter_names[i]);
		/* What the protocol rules out, and lockd mends all the same, need not happen. */
		zeros += !s->counters[i] && strncmp(sim_counter_names[i], "defence:", 8) != 0;
	}
	printf("  hosts:");
	for (unsigned int i = 0; i <= HOSTS_MAX; i++)
		if (s->hosts[i])
			printf(" %u in %" PRIu64 " runs;", i, s->hosts[i]);
	printf("\n");
	return zeros;
}

static bool print_totals(struct soak *s)
{
	unsigned int zeros = print_struck(s) + print_counters(s);

	printf("expected-unsafe (rung C): %" PRIu64 " seeds, %" PRIu64 " of them broke a rule; none "
	       "of them counts as safe\n", s->unsafe, s->unsafe_broken);
	zeros += !s->unsafe_broken;
	if (zeros && s->seeds >= COVERED_SEEDS) {
		printf("FAIL: %u of these were never hit\n", zeros);
		s->failed++;
	}
	printf("seeds %" PRIu64 " safe and %" PRIu64 " unsafe, simulated hours %.1f, device commands %"
	       PRIu64 ", crashes %" PRIu64 ", takeovers %" PRIu64 "\n", s->seeds - s->unsafe,
	       s->unsafe, (double)s->ns / 3600e9, s->commands, s->counters[COUNT_crash],
	       takeovers(s->counters));
	printf("each safe one had at least %u hosts, %" PRIu64 " commands, %u crashes, %u takeover and "
	       "1 detach, or counts as failed\n", HOSTS_MIN, s->p.steps, CRASHES_MIN, TAKEOVERS_MIN);
	printf("%" PRIu64 " seeds failed\n", s->failed);
	return !s->failed;
}

static int run_one(const struct run_params *p)
{
	struct run_result r = { 0 };

	run_seed(p, &r);
	printf("%u hosts, %" PRIu64 " commands, %.1f simulated seconds\n", r.hosts, r.commands,
	       (double)r.ns / 1e9);
	if (r.violations)
		printf("%s: %s\n", r.unsafe ? "expected-unsafe (rung C)" : "FAIL", r.first);
	printf("hash: %016" PRIx64 "\n", r.hash);
	fflush(stdout);
	_exit(r.violations && !r.unsafe);
}

static int usage(void)
{
	fprintf(stderr, "usage: lunfs_sim --seed N [--steps N] [--hosts N] [--trace] [--watch ADDRESS]\n"
		"       lunfs_sim --seed N --count N [--jobs N]   seeds N, N+1, ...\n"
		"       lunfs_sim --soak SECONDS [--seed FIRST] [--jobs N]\n"
		"       lunfs_sim --costs\n");
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seed", 1, NULL, 's' }, { "steps", 1, NULL, 'n' }, { "hosts", 1, NULL, 'h' },
		{ "trace", 0, NULL, 't' }, { "soak", 1, NULL, 'k' }, { "jobs", 1, NULL, 'j' },
		{ "count", 1, NULL, 'c' }, { "watch", 1, NULL, 'w' },
		{ "costs", 0, NULL, 'C' }, { NULL, 0, NULL, 0 } };
	struct soak s = { .p = { .seed = 0, .steps = STEPS_DEFAULT } };
	bool seeded = false;
	int c;

	s.jobs = (unsigned int)sysconf(_SC_NPROCESSORS_ONLN);
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		uint64_t v = optarg ? strtoull(optarg, NULL, 0) : 0;

		switch (c) {
		case 's': s.p.seed = v; seeded = true; break;
		case 'n': s.p.steps = v; break;
		case 'h': s.p.hosts = v < HOSTS_MAX ? (unsigned int)v : HOSTS_MAX; break;
		case 't': s.p.trace = true; break;
		case 'w': s.p.watch = v; break;
		case 'k': s.soak = true; s.seconds = (unsigned int)v; break;
		case 'j': s.jobs = (unsigned int)v; break;
		case 'C': return costs_print();
		case 'c': s.list = true; s.end_seed = v; break;
		default: return usage();
		}
	}
	if (!s.soak && !seeded)
		return usage();
	if (!s.soak && !s.list)
		return run_one(&s.p);
	s.jobs = s.jobs < 1 ? 1 : s.jobs > JOBS_MAX ? JOBS_MAX : s.jobs;
	s.next_seed = seeded ? s.p.seed : (uint64_t)time(NULL) * 1000;
	s.end_seed += s.next_seed;
	s.end = time(NULL) + s.seconds;
	run_jobs(&s);
	return print_totals(&s) ? 0 : 1;
}
