/* SPDX-License-Identifier: Apache-2.0 */
/*
 * iscsi_bench [options] ADDRESS PORT IQN LUN: a load on an iSCSI unit, and what it cost.
 *
 *	-w		write (read)
 *	-s		sequential (random)
 *	-b BYTES	of a command (4096)
 *	-q DEPTH	commands under way, of each session (1); 0: log in and do nothing
 *	-n SESSIONS	(1)
 *	-t SECONDS	of measuring (2), after a tenth of that to warm up
 *	-p PID,PID…	processes of the server, whose processor time is measured
 *
 * Prints one line of JSON: iops, mib_s, p50_us, p99_us; client_us and server_us of processor
 * time a command; client_busy and server_busy, in processors.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tools/bench/iscsi_load.h"

#define SESSIONS_MAX	64
#define PIDS_MAX	16
#define NSEC		1000000000ULL
/* Latencies in classes of 1/32 of a power of two: 3 % wide. */
#define SUB_BITS	5
#define CLASSES		(64 << SUB_BITS)

struct bench {
	struct load_spec spec;
	struct load	*loads[SESSIONS_MAX];
	bool		blocked[SESSIONS_MAX];
	int		epoll_fd;
	double		seconds;
	int		pids[PIDS_MAX];
	unsigned int	pid_count;
	bool		counting;
	uint64_t	ended;
	uint64_t	classes[CLASSES];
};

/* ---- latencies ---- */

static unsigned int class_of(uint64_t ns)
{
	unsigned int power = ns >> SUB_BITS ? 63 - (unsigned int)__builtin_clzll(ns) - SUB_BITS : 0;

	return (power << SUB_BITS) + (unsigned int)(ns >> power);
}

/* The middle of a class. */
static double class_ns(unsigned int class)
{
	unsigned int power = class >> SUB_BITS ? (class >> SUB_BITS) - 1 : 0;
	uint64_t low = (uint64_t)(class - (power << SUB_BITS)) << power;

	return (double)low + (double)(1ULL << power) / 2;
}

static double percentile_us(const struct bench *b, double part)
{
	uint64_t want = (uint64_t)((double)b->ended * part), seen = 0;
	unsigned int i;

	for (i = 0; i < CLASSES - 1; i++) {
		seen += b->classes[i];
		if (seen > want)
			break;
	}
	return b->ended ? class_ns(i) / 1000 : 0;
}

static void io_ended(void *arg, uint64_t ns)
{
	struct bench *b = arg;

	if (!b->counting)
		return;
	b->ended++;
	b->classes[class_of(ns)]++;
}

/* ---- processor time ---- */

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NSEC + (uint64_t)ts.tv_nsec;
}

static uint64_t client_cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * NSEC + (uint64_t)ts.tv_nsec;
}

/* Of all threads that there are; the kernel counts it in nanoseconds. */
static uint64_t process_cpu_ns(int pid)
{
	unsigned long long ns, sum = 0;
	struct dirent *e;
	char path[64 + sizeof(e->d_name)];
	FILE *in;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	d = opendir(path);
	while (d && (e = readdir(d))) {
		snprintf(path, sizeof(path), "/proc/%d/task/%s/schedstat", pid, e->d_name);
		in = e->d_name[0] == '.' ? NULL : fopen(path, "r");
		if (!in)
			continue;
		if (fscanf(in, "%llu", &ns) == 1)
			sum += ns;
		fclose(in);
	}
	if (d)
		closedir(d);
	return sum;
}

static uint64_t server_cpu_ns(const struct bench *b)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < b->pid_count; i++)
		sum += process_cpu_ns(b->pids[i]);
	return sum;
}

/* ---- the load ---- */

static int watch(struct bench *b, unsigned int i, int op, bool blocked)
{
	struct epoll_event ev = { .events = EPOLLIN | (blocked ? EPOLLOUT : 0), .data.u32 = i };

	b->blocked[i] = blocked;
	return epoll_ctl(b->epoll_fd, op, load_fd(b->loads[i]), &ev) ? -errno : 0;
}

static int run_one(struct bench *b, unsigned int i)
{
	int ret = load_run(b->loads[i]);

	if (ret < 0)
		return ret;
	return b->blocked[i] == (ret > 0) ? 0 : watch(b, i, EPOLL_CTL_MOD, ret > 0);
}

/* Until @end_ns, or with 0 until nothing is under way. */
static int run_until(struct bench *b, uint64_t end_ns)
{
	struct epoll_event ev[SESSIONS_MAX];

	for (;;) {
		uint64_t now = end_ns ? now_ns() : 0;
		unsigned int busy = 0;
		int n, err;

		if (end_ns && now >= end_ns)
			return 0;
		for (unsigned int i = 0; i < b->spec.sessions; i++)
			busy += load_under_way(b->loads[i]);
		if (!end_ns && !busy)
			return 0;
		n = epoll_wait(b->epoll_fd, ev, SESSIONS_MAX,
			       end_ns ? (int)((end_ns - now) / 1000000 + 1) : 10000);
		if (!end_ns && !n) {
			fprintf(stderr, "iscsi_bench: the target does not answer %u commands\n", busy);
			return -ETIMEDOUT;
		}
		for (int i = 0; i < n; i++) {
			err = run_one(b, ev[i].data.u32);
			if (err)
				return err;
		}
	}
}

static void print(const struct bench *b, double elapsed, uint64_t client, uint64_t server)
{
	double n = b->ended ? (double)b->ended : 1;

	printf("{\"iops\": %.1f, \"mib_s\": %.1f, \"p50_us\": %.1f, \"p99_us\": %.1f, "
	       "\"client_us\": %.2f, \"server_us\": %.2f, \"client_busy\": %.3f, "
	       "\"server_busy\": %.4f}\n", (double)b->ended / elapsed,
	       (double)b->ended * b->spec.io_len / elapsed / (1 << 20), percentile_us(b, 0.5),
	       percentile_us(b, 0.99), (double)client / n / 1000, (double)server / n / 1000,
	       (double)client / elapsed / 1e9, (double)server / elapsed / 1e9);
}

static int measure(struct bench *b)
{
	uint64_t start = now_ns(), client, server;
	int err = 0;

	for (unsigned int i = 0; i < b->spec.sessions && !err; i++)
		err = run_one(b, i);
	if (!err)
		err = run_until(b, start + (uint64_t)(b->seconds * 1e8));
	start = now_ns();
	client = client_cpu_ns();
	server = server_cpu_ns(b);
	b->counting = true;
	if (!err)
		err = run_until(b, start + (uint64_t)(b->seconds * 1e9));
	b->counting = false;
	client = client_cpu_ns() - client;
	server = server_cpu_ns(b) - server;
	if (err)
		return err;
	print(b, (double)(now_ns() - start) / 1e9, client, server);
	for (unsigned int i = 0; i < b->spec.sessions; i++)
		load_stop(b->loads[i]);
	return run_until(b, 0);
}

static int open_sessions(struct bench *b)
{
	b->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (b->epoll_fd < 0)
		return -errno;
	for (unsigned int i = 0; i < b->spec.sessions; i++) {
		struct load_spec spec = b->spec;
		int err, fd;

		spec.session = i;
		spec.ended = io_ended;
		spec.arg = b;
		err = load_open(&spec, &b->loads[i]);
		if (err)
			return err;
		fd = load_fd(b->loads[i]);
		err = fcntl(fd, F_SETFL, O_NONBLOCK) ? -errno : watch(b, i, EPOLL_CTL_ADD, false);
		if (err)
			return err;
	}
	return 0;
}

/* ---- arguments ---- */

static int resolve(struct load_spec *spec, const char *host, const char *port)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST }, *ai;
	int err = getaddrinfo(host, port, &hints, &ai);

	if (err) {
		fprintf(stderr, "iscsi_bench: %s: %s\n", host, gai_strerror(err));
		return -EINVAL;
	}
	memcpy(&spec->addr, ai->ai_addr, ai->ai_addrlen);
	spec->addr_len = ai->ai_addrlen;
	freeaddrinfo(ai);
	return 0;
}

static void parse_pids(struct bench *b, char *list)
{
	for (char *p = strtok(list, ","); p && b->pid_count < PIDS_MAX; p = strtok(NULL, ","))
		b->pids[b->pid_count++] = atoi(p);
}

static int parse(struct bench *b, int argc, char **argv)
{
	struct load_spec *s = &b->spec;
	int opt;

	s->io_len = 4096;
	s->depth = 1;
	s->sessions = 1;
	b->seconds = 2;
	while ((opt = getopt(argc, argv, "wsb:q:n:t:p:")) != -1) {
		switch (opt) {
		case 'w': s->write = true; break;
		case 's': s->sequential = true; break;
		case 'b': s->io_len = (uint32_t)strtoul(optarg, NULL, 10); break;
		case 'q': s->depth = (unsigned int)strtoul(optarg, NULL, 10); break;
		case 'n': s->sessions = (unsigned int)strtoul(optarg, NULL, 10); break;
		case 't': b->seconds = strtod(optarg, NULL); break;
		case 'p': parse_pids(b, optarg); break;
		default: return -EINVAL;
		}
	}
	if (argc - optind != 4 || !s->io_len || s->io_len > 8 << 20 || !s->sessions ||
	    s->sessions > SESSIONS_MAX || s->depth > 4096 || b->seconds <= 0) {
		fprintf(stderr, "usage: iscsi_bench [-ws] [-b BYTES] [-q DEPTH] [-n SESSIONS] "
			"[-t SECONDS] [-p PID,…] ADDRESS PORT IQN LUN\n");
		return -EINVAL;
	}
	snprintf(s->iqn, sizeof(s->iqn), "%s", argv[optind + 2]);
	s->lun = (unsigned int)atoi(argv[optind + 3]);
	return resolve(s, argv[optind], argv[optind + 1]);
}

int main(int argc, char **argv)
{
	static struct bench b;	/* large */
	int err = parse(&b, argc, argv);

	if (err)
		return 2;
	err = open_sessions(&b);
	if (!err)
		err = measure(&b);
	for (unsigned int i = 0; i < b.spec.sessions; i++)
		load_close(b.loads[i]);
	return err ? 1 : 0;
}
