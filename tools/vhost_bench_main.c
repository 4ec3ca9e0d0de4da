/* SPDX-License-Identifier: Apache-2.0 */
/* lunfs-vhost-bench: loads and measures vhost-user-blk servers. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

#include "base/env.h"
#include "base/program.h"
#include "base/text.h"
#include "tools/vhost_bench/exercise.h"
#include "tools/vhost_bench/options.h"

#define TICK_MS		100		/* how often a wait looks at the time */
#define RETRY_NS	(20 * NSEC_PER_MSEC)
#define DRAIN_NS	(30 * NSEC_PER_SEC)	/* requests that do not come back by then never do */

enum { EXIT_FINE, EXIT_WRONG, EXIT_USAGE, EXIT_TROUBLE = 4 };

struct bench {
	struct options	o;
	struct fe	fe;
	struct load	load;
	struct ledger	ledger;
	struct cpu_watch watch;
	/* Of the time that is measured. */
	uint64_t	start_ns, start_server_ns, start_own_ns;
	uint64_t	seen_server_ns;	/* of the server that there is: when last looked at */
	uint64_t	gone_server_ns;	/* of those that are gone */
	uint64_t	wall_ns, server_ns, own_ns;
	unsigned int	reconnects;
	unsigned int	resizes;
	uint64_t	away_ns;	/* the longest time without a server */
};

/* SIGINT or SIGTERM: what is there is measured, checked and reported. */
static volatile sig_atomic_t told_to_end;

static void tell_to_end(int sig)
{
	(void)sig;
	told_to_end = 1;
}

static uint64_t now_ns(void)
{
	return env_now_ns(env_posix());
}

static int trouble(const struct bench *b, const char *why)
{
	fprintf(stderr, "lunfs-vhost-bench: %s: %s\n", b->o.fe.socket, why);
	return EXIT_TROUBLE;
}

static void watch_server(struct bench *b)
{
	b->watch = b->o.watch;
	if (!b->watch.count && b->fe.server_pid > 0)
		cpu_watch_tree(&b->watch, b->fe.server_pid);
}

/* ---- the time that is measured ---- */

static void measure_begin(struct bench *b)
{
	b->start_server_ns = b->seen_server_ns = cpu_watch_ns(&b->watch);
	b->gone_server_ns = 0;
	b->start_own_ns = cpu_own_ns();
	b->start_ns = now_ns();
	load_measure(&b->load, true);
}

static void measure_end(struct bench *b)
{
	b->server_ns = b->gone_server_ns + cpu_watch_ns(&b->watch) - b->start_server_ns;
	load_measure(&b->load, false);
	b->wall_ns = now_ns() - b->start_ns;
	b->own_ns = cpu_own_ns() - b->start_own_ns;
}

/* ---- servers that go and come ---- */

static int reconnect(struct bench *b)
{
	uint64_t since = now_ns();
	int err;

	if (!b->o.reconnect_ns)
		return trouble(b, "the server hung up");
	load_park(&b->load);
	do {
		env_sleep_until(env_posix(), now_ns() + RETRY_NS);
		err = fe_reconnect(&b->fe);
	} while ((err == -ECONNREFUSED || err == -ENOENT || err == -ECONNRESET ||
		  err == -EAGAIN) && now_ns() - since < b->o.reconnect_ns);
	if (err)
		return trouble(b, b->fe.why);
	b->reconnects++;
	b->gone_server_ns += b->seen_server_ns - b->start_server_ns;
	b->start_server_ns = b->seen_server_ns = 0;
	if (now_ns() - since > b->away_ns)
		b->away_ns = now_ns() - since;
	watch_server(b);
	load_unpark(&b->load);
	return EXIT_FINE;
}

/* Looks after the connection until @deadline, or until the load has ended; @ends: or is told to. */
static int attend(struct bench *b, uint64_t deadline, bool ends)
{
	while (now_ns() < deadline && !load_ended(&b->load) && !(ends && told_to_end)) {
		uint64_t left = (deadline - now_ns()) / NSEC_PER_MSEC;
		uint64_t cpu_ns = cpu_watch_ns(&b->watch);
		bool changed;

		if (cpu_ns > b->seen_server_ns)
			b->seen_server_ns = cpu_ns;	/* one that is dead has used nothing */
		if (fe_lost(&b->fe, left < TICK_MS ? (int)left + 1 : TICK_MS, &changed)) {
			int status = reconnect(b);

			if (status)
				return status;
		}
		if (changed && !fe_config_get(&b->fe, 0, sizeof(b->fe.config), &b->fe.config))
			b->resizes++;
	}
	return EXIT_FINE;
}

/* Waits until all requests are back. */
static int drain(struct bench *b)
{
	int status;

	load_stop(&b->load);
	status = attend(b, now_ns() + DRAIN_NS, false);
	if (!status && !load_ended(&b->load))
		status = trouble(b, "requests do not come back");
	return status;
}

/* One load from start to end.  @counts: adds to what is there. */
static int run_load(struct bench *b, const struct load_params *p, bool measured,
		    struct load_counts *counts)
{
	bool timed = !p->once && !p->check_only;
	struct load_params params = *p;
	int err, status;

	params.measured = measured && !timed;
	if (params.measured)
		measure_begin(b);
	err = load_start(&b->load, &b->fe, &params);
	if (err)
		return trouble(b, strerror(-err));
	status = timed ? attend(b, now_ns() + b->o.ramp_ns, true) : EXIT_FINE;
	if (measured && timed)
		measure_begin(b);
	if (!status)
		status = attend(b, timed ? now_ns() + b->o.runtime_ns : UINT64_MAX, timed);
	if (measured)
		measure_end(b);
	if (!status)
		status = drain(b);
	if (!status && atomic_load(&b->load.abandoned))
		status = trouble(b, b->load.why);
	if (status) {
		load_abandon(&b->load);
		load_unpark(&b->load);
	}
	load_finish(&b->load, counts);
	return status;
}

/* ---- results ---- */

static const char *const op_names[LOAD_OPS] = { "read", "write", "flush", "discard", "zeroes" };

static uint64_t all_ops(const struct load_counts *c)
{
	uint64_t n = 0;

	for (unsigned int op = 0; op < LOAD_OPS; op++)
		n += c->ops[op];
	return n;
}

static double per_second(const struct bench *b, uint64_t n)
{
	return b->wall_ns ? (double)n * 1e9 / (double)b->wall_ns : 0;
}

static double percent_of_core(const struct bench *b, uint64_t cpu_ns)
{
	return b->wall_ns ? 100.0 * (double)cpu_ns / (double)b->wall_ns : 0;
}

static double us_per_request(uint64_t cpu_ns, uint64_t n)
{
	return n ? (double)cpu_ns / 1e3 / (double)n : 0;
}

static double us(uint64_t ns)
{
	return (double)ns / 1e3;
}

static void print_text(const struct bench *b, const struct load_counts *c)
{
	uint64_t n = all_ops(c);

	for (unsigned int op = 0; op < LOAD_OPS; op++) {
		const struct histogram *h = &c->latency[op];

		if (!c->ops[op])
			continue;
		printf("%-8s %10.0f IOPS", op_names[op], per_second(b, c->ops[op]));
		if (op <= LOAD_WRITE)
			printf(" %8.1f MiB/s", per_second(b, c->bytes[op]) / (double)MIB);
		else
			printf(" %14s", "");
		printf("   p50 %.1f  p99 %.1f  p99.9 %.1f  max %.1f us\n",
		       us(histogram_percentile(h, 500)), us(histogram_percentile(h, 990)),
		       us(histogram_percentile(h, 999)), us(h->max_ns));
	}
	if (b->wall_ns)
		printf("CPU      server %.1f %% of a core, %.2f us a request; this side %.1f %%, "
		       "%.2f us\n", percent_of_core(b, b->server_ns),
		       us_per_request(b->server_ns, n), percent_of_core(b, b->own_ns),
		       us_per_request(b->own_ns, n));
	if (b->reconnects)
		printf("server   came back %u times, away for %.0f ms at most\n", b->reconnects,
		       (double)b->away_ns / 1e6);
	if (b->resizes)
		printf("disk     announced another size %u times, now %" PRIu64 " bytes\n",
		       b->resizes, fe_capacity(&b->fe));
	if (b->ledger.map)
		printf("contents %" PRIu64 " blocks were compared, %" PRIu64 " were wrong\n",
		       c->checked, c->wrong);
	if (c->errors)
		printf("errors   %" PRIu64 "\n", c->errors);
}

static json_t *json_op(const struct bench *b, const struct load_counts *c, unsigned int op)
{
	const struct histogram *h = &c->latency[op];

	return json_pack("{sI sf sf s{sf sf sf sf sf}}", "requests", (json_int_t)c->ops[op],
			 "iops", per_second(b, c->ops[op]), "bytes_per_second",
			 op <= LOAD_WRITE ? per_second(b, c->bytes[op]) : 0.0, "latency_us",
			 "mean", h->count ? us(h->sum_ns / h->count) : 0.0,
			 "p50", us(histogram_percentile(h, 500)),
			 "p99", us(histogram_percentile(h, 990)),
			 "p99.9", us(histogram_percentile(h, 999)), "max", us(h->max_ns));
}

static int print_json(const struct bench *b, const struct load_counts *c)
{
	uint64_t n = all_ops(c);
	json_t *root = json_pack(
		"{ss sI sf s{sf sf} s{sf sf} sI sI sI sI sI si sf si}",
		"socket", b->o.fe.socket, "size", (json_int_t)fe_capacity(&b->fe),
		"seconds", (double)b->wall_ns / 1e9,
		"server_cpu", "percent", percent_of_core(b, b->server_ns), "us_per_request",
		us_per_request(b->server_ns, n),
		"own_cpu", "percent", percent_of_core(b, b->own_ns), "us_per_request",
		us_per_request(b->own_ns, n),
		"kicks", (json_int_t)c->kicks, "sleeps", (json_int_t)c->sleeps,
		"errors", (json_int_t)c->errors, "blocks_checked", (json_int_t)c->checked,
		"blocks_wrong", (json_int_t)c->wrong, "reconnects", (int)b->reconnects,
		"longest_away_ms", (double)b->away_ns / 1e6, "resizes", (int)b->resizes);

	for (unsigned int op = 0; op < LOAD_OPS && root; op++)
		if (c->ops[op])
			json_object_set_new(root, op_names[op], json_op(b, c, op));
	if (!root || json_dumpf(root, stdout, JSON_INDENT(2)))
		return EXIT_TROUBLE;
	putchar('\n');
	json_decref(root);
	return EXIT_FINE;
}

/* ---- what there is to do ---- */

static int open_ledger(struct bench *b)
{
	struct load_params *p = &b->o.load;
	char why[FE_WHY_SIZE];
	uint64_t seed;

	if (!b->o.verify)
		return EXIT_FINE;
	env_random(env_posix(), &seed, sizeof(seed));
	if (ledger_open(&b->ledger, b->o.ledger, seed, p->offset, p->size / p->block_size,
			p->block_size, why, sizeof(why))) {
		fprintf(stderr, "lunfs-vhost-bench: %s\n", why);
		return EXIT_USAGE;
	}
	p->ledger = &b->ledger;
	return EXIT_FINE;
}

static int load_and_report(struct bench *b, struct load_counts *c)
{
	struct load_params check = b->o.load;
	bool only = check.check_only;
	char why[FE_WHY_SIZE];
	int status = open_ledger(b);

	check.ledger = b->o.load.ledger;
	check.check_only = true;
	if (!status && !only)
		status = run_load(b, &b->o.load, true, c);
	memcpy(why, b->load.why, sizeof(why));
	if (!status && check.ledger)
		status = run_load(b, &check, false, c);
	if (status)
		return status;
	if (b->o.json)
		status = print_json(b, c);
	else
		print_text(b, c);
	if (why[0] || b->load.why[0])
		fprintf(stderr, "lunfs-vhost-bench: %s: %s\n", b->o.fe.socket,
			why[0] ? why : b->load.why);
	return c->wrong || c->errors ? EXIT_WRONG : status;
}

/* A server with a connection and running rings, and nothing to do. */
static int idle_and_report(struct bench *b, struct load_counts *c)
{
	uint64_t server = cpu_watch_ns(&b->watch), start = now_ns();
	bool changed;

	while (now_ns() - start < b->o.runtime_ns)
		if (fe_lost(&b->fe, TICK_MS, &changed))
			return trouble(b, "the server hung up");
	b->server_ns = cpu_watch_ns(&b->watch) - server;
	b->wall_ns = now_ns() - start;
	if (b->o.json)
		return print_json(b, c);
	printf("CPU      server %.2f %% of a core while idle\n", percent_of_core(b, b->server_ns));
	return EXIT_FINE;
}

static int exercise_and_report(struct bench *b)
{
	int failed = exercise_run(&b->fe);

	if (failed < 0)
		return trouble(b, b->fe.why);
	return failed ? EXIT_WRONG : EXIT_FINE;
}

static int features_suffice(const struct bench *b)
{
	const struct load_params *p = &b->o.load;
	uint64_t f = b->fe.features;

	if ((p->read_percent < 100 || p->discard_percent || p->zero_percent) && !p->check_only &&
	    f & FEATURE(BLK_F_RO))
		return trouble(b, "the disk is read-only");
	if (p->discard_percent && !(f & FEATURE(BLK_F_DISCARD)))
		return trouble(b, "the server does not offer discard");
	if (p->zero_percent && !(f & FEATURE(BLK_F_WRITE_ZEROES)))
		return trouble(b, "the server does not offer write zeroes");
	return EXIT_FINE;
}

static int bench_run(struct bench *b)
{
	static struct load_counts counts;
	int status;

	if (fe_open(&b->fe, &b->o.fe))
		return trouble(b, b->fe.why);
	watch_server(b);
	if (b->o.exercise)
		return exercise_and_report(b);
	if (b->o.idle)
		return idle_and_report(b, &counts);
	if (options_fit(&b->o, fe_capacity(&b->fe)))
		return EXIT_USAGE;
	status = features_suffice(b);
	return status ? status : load_and_report(b, &counts);
}

int main(int argc, char **argv)
{
	static struct bench b;
	int status;

	program_begin();
	program_checks_output("lunfs-vhost-bench");
	status = options_parse(&b.o, argc, argv);
	if (status >= 0)
		return status;
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGINT, tell_to_end);
	signal(SIGTERM, tell_to_end);
	status = bench_run(&b);
	ledger_close(&b.ledger);
	fe_close(&b.fe);
	return status;
}
