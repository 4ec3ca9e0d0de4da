// SPDX-License-Identifier: Apache-2.0
/*
 * What things cost in commands to the LUN, with few and with many hosts: a lock, an allocation, a
 * recovery, and doing nothing.  No faults; every rule is checked all the same.
 */
#include "tests/sim/cluster/rules.h"
#include "tests/sim/cluster/soak.h"
#include "tests/sim/cluster/work.h"

#include <sys/wait.h>
#include <unistd.h>

#define FILES	8u
#define UNITS	64u
#define IDLE_S	5u
#define ROWS	16u

enum place { PLACE_SLOT, PLACE_SCAN, PLACE_LOCK, PLACE_JOURNAL, PLACE_META, PLACE_DATA, PLACES };

struct costs_row {
	const char *text, *unit;
	double value;
};

struct costs {
	struct world *w;
	bool counting;
	uint64_t n[HOSTS_MAX][PLACES][OPS];
	uint32_t dead_slot;			/* whose block counts as PLACE_SLOT, too */
	uint64_t recovery_slot;			/* commands to it by others */
	struct costs_row rows[ROWS];
	unsigned int row_count;
};

static bool is_cell(const struct blk_io *io)
{
	uint64_t tag;

	return io->op == BLK_WRITE && io->len >= BLOCK_SIZE && cell_tag(io->iov[0].iov_base, &tag);
}

static enum place place_of(const struct world *w, const struct blk_io *io)
{
	const struct super *s = &w->super;
	uint64_t slots = (uint64_t)s->slot_count * BLOCK_SIZE;

	if (io->off >= s->slots_addr && io->off < s->slots_addr + slots)
		return io->len > BLOCK_SIZE ? PLACE_SCAN : PLACE_SLOT;
	if (io->off >= s->journals_addr && io->off < s->journals_addr + s->slot_count * s->journal_size)
		return PLACE_JOURNAL;
	if (io->len == META_SECTOR_SIZE)
		return PLACE_LOCK;
	return is_cell(io) ? PLACE_DATA : PLACE_META;
}

static void count(void *arg, struct life *life, const struct blk_io *io)
{
	struct costs *c = arg;
	enum place p = place_of(c->w, io);
	uint64_t dead = c->w->super.slots_addr + (uint64_t)c->dead_slot * BLOCK_SIZE;

	if (!c->counting || life->host->number >= HOSTS_MAX)
		return;
	c->n[life->host->number][p][io->op]++;
	c->recovery_slot += p == PLACE_SLOT && io->off == dead && life->slot != c->dead_slot;
}

static void start(struct costs *c)
{
	memset(c->n, 0, sizeof(c->n));
	c->recovery_slot = 0;
	c->counting = true;
}

/* Commands of host @host (HOSTS_MAX: of all) to @place (PLACES: to all but scans and slots). */
static uint64_t counted(const struct costs *c, unsigned int host, enum place place)
{
	uint64_t sum = 0;

	for (unsigned int h = 0; h < HOSTS_MAX; h++)
		for (unsigned int p = 0; p < PLACES; p++)
			for (unsigned int op = 0; op < OPS; op++)
				if ((host == HOSTS_MAX || host == h) &&
				    (place == p || (place == PLACES && p > PLACE_SCAN)))
					sum += c->n[h][p][op];
	return sum;
}

static void row(struct costs *c, const char *text, const char *unit, double value)
{
	assert(c->row_count < ROWS);
	c->rows[c->row_count++] = (struct costs_row){ text, unit, value };
}

static struct fs *fs_of(struct costs *c, unsigned int host)
{
	return c->w->hosts[host].life->fs;
}

static void must(struct costs *c, int err, const char *what)
{
	if (err)
		world_violation(c->w, "costs: %s: %d", what, err);
}

/* ---- what is measured ---- */

static void make_files(struct costs *c, unsigned int host, unsigned int round, uint64_t *ids)
{
	struct fs_attr attr = { 0 };
	char name[32];

	for (unsigned int i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "file-%u-%u", round, i);
		must(c, fs_create(fs_of(c, host), fs_root(fs_of(c, host)), name, S_IFREG | 0644, 0,
				  &work_cred, &attr), "create");
		ids[i] = attr.id;
	}
	must(c, fs_sync(fs_of(c, host)), "sync");
}

static void open_files(struct costs *c, unsigned int host, unsigned int flags, const uint64_t *ids)
{
	struct fs_file *f;
	int err;

	for (unsigned int i = 0; i < FILES; i++) {
		err = fs_open(fs_of(c, host), ids[i], flags, &work_cred, &f, NULL);
		must(c, err, "open");
		if (!err)
			fs_close(fs_of(c, host), f);
	}
}

static void measure_locks(struct costs *c)
{
	uint64_t wanted[FILES], to_read[FILES], to_write[FILES];

	make_files(c, 1, 0, wanted);
	make_files(c, 1, 1, to_read);
	make_files(c, 1, 2, to_write);
	start(c);
	open_files(c, 0, FS_OPEN_WRITE, wanted);
	row(c, "lock that another host has cached: its record, by the taker", "a lock",
	    (double)counted(c, 0, PLACE_LOCK) / FILES);
	row(c, "lock that another host has cached: its record, by the holder", "a lock",
	    (double)counted(c, 1, PLACE_LOCK) / FILES);
	start(c);
	open_files(c, 0, FS_OPEN_WRITE, wanted);
	row(c, "lock that this host has cached: all", "a lock", (double)counted(c, 0, PLACES) / FILES);
	world_sleep(c->w, 8 * SEC);
	start(c);
	world_sleep(c->w, IDLE_S * SEC);
	row(c, "a host that does nothing: heartbeats", "a second",
	    (double)counted(c, 0, PLACE_SLOT) / IDLE_S);
	row(c, "a host that does nothing: scans of all slots", "a second",
	    (double)counted(c, 0, PLACE_SCAN) / IDLE_S);
	row(c, "a host that does nothing: everything else", "a second",
	    (double)counted(c, 0, PLACES) / IDLE_S);
	/* Idle for so long that they are given up. */
	world_sleep(c->w, 20 * SEC);
	start(c);
	open_files(c, 0, 0, to_read);
	row(c, "lock that is free, to read: its record", "a lock",
	    (double)counted(c, 0, PLACE_LOCK) / FILES);
	start(c);
	open_files(c, 0, FS_OPEN_WRITE, to_write);
	row(c, "lock that is free, to write: its record", "a lock",
	    (double)counted(c, 0, PLACE_LOCK) / FILES);
}

static void measure_allocation(struct costs *c)
{
	uint8_t *buf = blkdev_alloc(UNIT_SIZE);
	struct fs_attr attr = { 0 };
	struct fs_file *f = NULL;
	size_t done;

	for (unsigned int i = 0; i < UNIT_SIZE / CELL; i++)
		cell_fill(1, i, 1, buf + i * CELL);
	must(c, fs_create(fs_of(c, 0), fs_root(fs_of(c, 0)), "large", S_IFREG | 0644, 0, &work_cred,
			  &attr), "create");
	model_claim(c->w->model, c->w->model->images[0].file, attr.id);
	must(c, fs_open(fs_of(c, 0), attr.id, FS_OPEN_WRITE, &work_cred, &f, NULL), "open");
	start(c);
	for (unsigned int i = 0; f && i < UNITS; i++)
		must(c, fs_write(fs_of(c, 0), f, i * UNIT_SIZE, buf, UNIT_SIZE, false, &done), "write");
	if (f)
		must(c, fs_fsync(fs_of(c, 0), f, false), "fsync");
	row(c, "16 MiB written anew, and an fsync: space, map and journal", "a file",
	    (double)(counted(c, 0, PLACES) - counted(c, 0, PLACE_DATA)));
	row(c, "16 MiB written anew: records of locks", "a file", (double)counted(c, 0, PLACE_LOCK));
	if (f)
		fs_close(fs_of(c, 0), f);
	free(buf);
}

/* Host 1 dies with @FILES locks and a journal; whoever notices recovers it. */
static void measure_recovery(struct costs *c)
{
	struct world *w = c->w;
	struct life *dead = w->hosts[1].life;
	uint64_t ids[FILES], begin;
	struct slot s;

	make_files(c, 1, 3, ids);
	c->dead_slot = dead->slot;
	begin = sim_now_ns(w->sim);
	host_crash(&w->hosts[1], "to be recovered");
	start(c);
	do {
		world_sleep(w, 20 * MSEC);
	} while (slot_at(w, c->dead_slot, &s) && s.state != SLOT_FREE &&
		 sim_now_ns(w->sim) - begin < 60 * SEC);
	row(c, "recovery of a host: its slot, by all", "a recovery", (double)c->recovery_slot);
	row(c, "recovery of a host: journals, by all", "a recovery",
	    (double)counted(c, HOSTS_MAX, PLACE_JOURNAL));
	row(c, "recovery of a host: what its journal brings home, and flushes", "a recovery",
	    (double)(counted(c, HOSTS_MAX, PLACES) - counted(c, HOSTS_MAX, PLACE_JOURNAL)));
	row(c, "recovery of a host: from the crash on", "seconds",
	    (double)(sim_now_ns(w->sim) - begin) / 1e9);
	start(c);
	open_files(c, 0, FS_OPEN_WRITE, ids);
	row(c, "lock that a dead host had: its record and its holder's slot", "a lock",
	    (double)(counted(c, 0, PLACE_LOCK) + c->recovery_slot) / FILES);
}

static void attach_thread(void *arg)
{
	struct life *life = arg;

	if (life_attach(life))
		world_violation(life->w, "costs: a host cannot attach");
}

/* All at once: each looks at the slots for a while before it has one. */
static void attach_all(struct costs *c)
{
	struct env_thread *threads[HOSTS_MAX];
	struct world *w = c->w;

	for (unsigned int i = 0; i < w->host_count; i++) {
		struct life *life = life_new(&w->hosts[i]);

		if (env_thread_start(life->env, "attach", attach_thread, life, &threads[i]))
			abort();
	}
	for (unsigned int i = 0; i < w->host_count; i++)
		env_thread_join(w->env, threads[i]);
}

void costs_run(struct world *w, int fd)
{
	struct costs *c = calloc(1, sizeof(*c));

	if (!c)
		abort();
	c->w = w;
	w->also = count;
	w->also_arg = c;
	attach_all(c);
	if (!w->violations) {
		measure_locks(c);
		measure_allocation(c);
		measure_recovery(c);
	}
	c->counting = false;
	/* Texts are the program's: its parent has them at the same place. */
	if (write(fd, c->rows, sizeof(c->rows)) != sizeof(c->rows))
		abort();
	w->also = NULL;
	/* The run ends when nobody is left. */
	for (unsigned int i = 0; i < w->host_count; i++)
		host_crash(&w->hosts[i], "measured");
	free(c);
}

/* ---- the table ---- */

static const unsigned int host_counts[] = { 2, 8, 64 };

/* One run, in a process of its own: the rows it found. */
static bool measure(unsigned int hosts, struct costs_row rows[ROWS])
{
	struct run_params p = { .seed = 1, .hosts = hosts };
	struct run_result r = { 0 };
	int fds[2], status;
	ssize_t got;
	pid_t pid;

	fflush(stdout);
	if (pipe(fds))
		abort();
	pid = fork();
	if (pid < 0)
		abort();
	if (!pid) {
		p.costs_fd = fds[1];
		run_seed(&p, &r);
		if (r.violations)
			fprintf(stderr, "FAIL: %u hosts: %s\n", hosts, r.first);
		_exit(r.violations != 0);
	}
	close(fds[1]);
	got = read(fds[0], rows, ROWS * sizeof(*rows));
	close(fds[0]);
	return waitpid(pid, &status, 0) == pid && !status && got == (ssize_t)(ROWS * sizeof(*rows));
}

int costs_print(void)
{
	struct costs_row rows[ARRAY_SIZE(host_counts)][ROWS] = { 0 };
	bool ok = true;

	for (unsigned int i = 0; i < ARRAY_SIZE(host_counts); i++)
		ok = measure(host_counts[i], rows[i]) && ok;
	printf("%-66s %-11s", "Commands to the LUN, with reservations (rung A)", "each");
	for (unsigned int i = 0; i < ARRAY_SIZE(host_counts); i++)
		printf(" %3u hosts", host_counts[i]);
	printf("\n");
	for (unsigned int k = 0; k < ROWS && rows[0][k].text; k++) {
		printf("%-66s %-11s", rows[0][k].text, rows[0][k].unit);
		for (unsigned int i = 0; i < ARRAY_SIZE(host_counts); i++)
			printf("%10.1f", rows[i][k].value);
		printf("\n");
	}
	return ok ? 0 : 1;
}
