/* SPDX-License-Identifier: Apache-2.0 */
/*
 * check_bench plan [--files N] [--size SIZE] [--repair] [--damage WHAT]: the check of fsck.lunfs, on
 *	a volume that is worked out while it is read (many.h): time, peak memory, commands, bytes.
 *	WHAT: no-dirs, nowhere, twice; it is repaired.
 * check_bench write FILE [--files N] [--size SIZE]: the same volume as a sparse file.
 * check_bench raw FILE: the check of that, and then the same reads, in the same order and
 *	sizes, by libaio alone.
 * Each prints one JSON object.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <libaio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/text.h"
#include "block/blkopen.h"
#include "fs/check.h"
#include "tools/bench/many.h"

#define RAW_DEPTH	64
#define RAW_ROUNDS	5
#define RAW_SIZE_MAX	(512 * KIB)

/* ---- a device in front of another that notes what is read ---- */

struct read_note {
	uint64_t off;
	uint32_t len;
};

struct meter {
	struct blkdev dev;
	struct blkdev *lower;
	bool	keep;
	struct read_note *reads;
	size_t	count, room;
	uint64_t bytes, writes;
};

static void note(struct meter *m, const struct blk_io *io)
{
	if (io->op == BLK_WRITE)
		m->writes++;
	if (io->op != BLK_READ)
		return;
	m->bytes += io->len;
	if (m->keep && m->count == m->room) {
		m->room = m->room ? 2 * m->room : 4096;
		m->reads = realloc(m->reads, m->room * sizeof(*m->reads));
		if (!m->reads)
			abort();
	}
	if (m->keep)
		m->reads[m->count] = (struct read_note){ io->off, (uint32_t)io->len };
	m->count++;
}

/* The check asks from one thread. */
static void meter_submit(struct blkdev *dev, struct blk_io **ios, unsigned int count)
{
	struct meter *m = container_of(dev, struct meter, dev);

	for (unsigned int i = 0; i < count; i++)
		note(m, ios[i]);
	m->lower->ops->submit(m->lower, ios, count);
}

static int meter_run(struct blkdev *dev, struct blk_io *io)
{
	struct meter *m = container_of(dev, struct meter, dev);

	note(m, io);
	return m->lower->ops->run(m->lower, io);
}

static const struct blkdev_ops meter_ops = { .submit = meter_submit, .run = meter_run };

static void meter_init(struct meter *m, struct blkdev *lower, bool keep)
{
	*m = (struct meter){ .dev = { .ops = &meter_ops, .env = lower->env, .info = lower->info },
			     .lower = lower, .keep = keep };
}

/* ---- what is measured ---- */

static uint64_t status_kib(const char *field)
{
	unsigned long long kib = 0;
	FILE *f = fopen("/proc/self/status", "r");
	char line[200];

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, field, strlen(field)))
			sscanf(line + strlen(field), ": %llu", &kib);
	if (f)
		fclose(f);
	return kib;
}

static double seconds_since(uint64_t began)
{
	return (double)(env_now_ns(env_posix()) - began) / NSEC_PER_SEC;
}

/* Of all threads of this program: a measure that other work on the machine disturbs less. */
static double cpu_seconds(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void report(void *arg, const struct check_finding *f)
{
	unsigned int *shown = arg;

	if ((*shown)++ < 10)
		fprintf(stderr, "%s: %s%s\n", check_code_info(f->code)->name, f->text,
			f->repaired ? " (repaired)" : "");
}

/* Return: whether it could be checked. */
static bool run_check(struct meter *m, enum check_repair repair, struct check_result *r, double *took)
{
	unsigned int shown = 0;
	struct check_params p = { .env = env_posix(), .dev = &m->dev, .repair = repair,
				  .own_slot = SLOT_NONE, .report = report, .arg = &shown };
	uint64_t began = env_now_ns(env_posix());
	char why[400];

	if (check_volume(&p, r, why, sizeof(why))) {
		fprintf(stderr, "check_bench: %s\n", why);
		return false;
	}
	*took = seconds_since(began);
	return true;
}

static void print_check(const struct meter *m, const struct check_result *r, double took)
{
	printf("\"files\": %llu, \"directories\": %llu, \"errors\": %llu, \"repaired\": %llu, "
	       "\"rounds\": %u, \"seconds\": %.3f, \"reads\": %zu, \"read_bytes\": %llu, "
	       "\"writes\": %llu, \"mib_per_second\": %.1f",
	       (unsigned long long)r->files, (unsigned long long)r->directories,
	       (unsigned long long)r->errors, (unsigned long long)r->repaired, r->rounds, took,
	       m->count, (unsigned long long)m->bytes, (unsigned long long)m->writes,
	       (double)m->bytes / MIB / took);
}

/* ---- plan ---- */

/* A group that counts a free block too many, and a file's block that its bitmap calls free. */
static bool damage(struct many *m)
{
	uint8_t block[BLOCK_SIZE] BLKDEV_ALIGNED;
	struct ag_disk *header = (void *)block;
	struct bitmap_disk *bitmap = (void *)block;
	struct meta_expect e = { META_AG, m->s.volume, 0, 0, 0 };
	uint64_t start, bit;
	uint32_t ag;

	if (super_ag_of(&m->s, many_first(m) << BLOCK_SHIFT, &ag))
		return false;
	start = super_ag_addr(&m->s, ag) >> BLOCK_SHIFT;
	bit = many_first(m) - start;
	if (bit >= BITMAP_BITS)
		return false;
	e.addr = (start + AG_HEADER_BLOCK) << BLOCK_SHIFT;
	e.owner = ag;
	many_block(m, start + 1, block);
	header->free_blocks = cpu_to_le32(le32_to_cpu(header->free_blocks) + 1);
	meta_seal(block, &e, 9);
	if (many_write(m, start + 1, block))
		return false;
	e.addr = (start + AG_BITMAP_BLOCK) << BLOCK_SHIFT;
	e.type = META_BITMAP;
	many_block(m, start + AG_BITMAP_BLOCK, block);
	bitmap->bits[bit / 8] &= (uint8_t)~(1u << bit % 8);
	meta_seal(block, &e, 9);
	return !many_write(m, start + AG_BITMAP_BLOCK, block);
}

static int plan(struct many *m, bool repair)
{
	bool mass = m->damage != MANY_GOOD;
	uint64_t before = status_kib("VmRSS");
	struct blkdev *dev = many_open(m, env_posix());
	struct check_result r;
	struct meter meter;
	double took;
	bool good;

	if (!dev || (repair && !damage(m)))
		return 1;
	repair |= mass;
	meter_init(&meter, dev, false);
	good = run_check(&meter, repair ? CHECK_REPAIR_LOSS : CHECK_REPAIR_NONE, &r, &took);
	if (good) {
		printf("{\"size\": %llu, ", (unsigned long long)m->s.size);
		print_check(&meter, &r, took);
		printf(", \"before_kib\": %llu, \"peak_kib\": %llu}\n",
		       (unsigned long long)before, (unsigned long long)status_kib("VmHWM"));
	}
	blkdev_close(dev);
	return good && !r.errors && (mass || r.repaired == (repair ? 2 : 0)) ? 0 : 1;
}

/* ---- write ---- */

static int write_block(void *arg, uint64_t number, const void *block)
{
	const int *fd = arg;

	return pwrite(*fd, block, BLOCK_SIZE, (off_t)(number << BLOCK_SHIFT)) == BLOCK_SIZE ?
	       0 : -EIO;
}

static int write_file(struct many *m, const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	bool good = fd >= 0 && !ftruncate(fd, (off_t)m->s.size) && !many_each(m, write_block, &fd) &&
		    !fsync(fd);

	if (!good)
		fprintf(stderr, "check_bench: %s: %s\n", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return !good;
}

/* ---- raw ---- */

static int open_raw(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);

	return fd >= 0 ? fd : open(path, O_RDONLY | O_CLOEXEC);
}

/* Return: seconds, negative if it failed. */
static double read_raw(const char *path, const struct meter *m)
{
	uint64_t began = env_now_ns(env_posix());
	uint8_t *mem = blkdev_alloc(RAW_DEPTH * RAW_SIZE_MAX);
	struct iocb cbs[RAW_DEPTH], *free_cbs[RAW_DEPTH];
	struct io_event events[RAW_DEPTH];
	unsigned int idle = RAW_DEPTH;
	int fd = open_raw(path), n = 0;
	io_context_t aio = NULL;
	size_t next = 0;

	if (fd < 0 || !mem || io_setup(RAW_DEPTH, &aio))
		return -1;
	for (unsigned int i = 0; i < RAW_DEPTH; i++)
		free_cbs[i] = &cbs[i];
	while (n >= 0 && (next < m->count || idle < RAW_DEPTH)) {
		struct iocb *batch[RAW_DEPTH];
		unsigned int count = 0;

		while (idle && next < m->count) {
			const struct read_note *r = &m->reads[next++];
			struct iocb *cb = free_cbs[--idle];

			io_prep_pread(cb, fd, mem + (size_t)(cb - cbs) * RAW_SIZE_MAX,
				      r->len < RAW_SIZE_MAX ? r->len : RAW_SIZE_MAX,
				      (long long)r->off);
			batch[count++] = cb;
		}
		if (count && io_submit(aio, count, batch) != (int)count)
			return -1;
		n = io_getevents(aio, 1, RAW_DEPTH, events, NULL);
		for (int i = 0; i < n; i++) {
			if ((long)events[i].res <= 0)
				return -1;
			free_cbs[idle++] = events[i].obj;
		}
	}
	io_destroy(aio);
	close(fd);
	free(mem);
	return seconds_since(began);
}

static int by_time(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* The check that only tells what it reads, then both in turn; the medians count. */
static int raw(const char *path)
{
	double checks[RAW_ROUNDS], bares[RAW_ROUNDS], took, bare, check_cpu = 0, bare_cpu = 0;
	struct blkdev *dev;
	struct check_result r;
	struct meter meter, again;
	char why[400];

	if (blkopen(env_posix(), path, BLKFILE_READ_ONLY, &dev, why, sizeof(why))) {
		fprintf(stderr, "check_bench: %s\n", why);
		return 1;
	}
	meter_init(&meter, dev, true);
	meter_init(&again, dev, false);
	if (!run_check(&meter, CHECK_REPAIR_NONE, &r, &took))
		return 1;
	for (unsigned int i = 0; i < RAW_ROUNDS; i++) {
		double began = cpu_seconds(), between;

		bares[i] = read_raw(path, &meter);
		between = cpu_seconds();
		bare_cpu += between - began;
		if (bares[i] < 0) {
			fprintf(stderr, "check_bench: %s: reading failed\n", path);
			return 1;
		}
		if (!run_check(&again, CHECK_REPAIR_NONE, &r, &checks[i]))
			return 1;
		check_cpu += cpu_seconds() - between;
	}
	blkdev_close(dev);
	qsort(checks, RAW_ROUNDS, sizeof(*checks), by_time);
	qsort(bares, RAW_ROUNDS, sizeof(*bares), by_time);
	took = checks[RAW_ROUNDS / 2];
	bare = bares[RAW_ROUNDS / 2];
	printf("{");
	print_check(&meter, &r, took);
	printf(", \"raw_seconds\": %.3f, \"raw_mib_per_second\": %.1f, \"ratio\": %.3f, "
	       "\"cpu_seconds\": %.3f, \"raw_cpu_seconds\": %.3f, \"peak_kib\": %llu}\n", bare,
	       (double)meter.bytes / MIB / bare, bare / took, check_cpu / RAW_ROUNDS,
	       bare_cpu / RAW_ROUNDS, (unsigned long long)status_kib("VmHWM"));
	free(meter.reads);
	return r.errors != 0;
}

/* ---- the program ---- */

static int usage(void)
{
	fputs("usage: check_bench plan [--files n] [--size size] [--repair] [--damage what]\n"
	      "       check_bench write file [--files n] [--size size]\n"
	      "       check_bench raw file\n", stderr);
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "files", required_argument, NULL, 'f' }, { "size", required_argument, NULL, 's' },
		{ "repair", no_argument, NULL, 'r' }, { "damage", required_argument, NULL, 'd' },
		{ NULL, 0, NULL, 0 } };
	static const char *const damages[] = { "", "no-dirs", "nowhere", "twice" };
	unsigned int damaged = MANY_GOOD;
	uint64_t files = 100000, size = 64 * TIB;
	const char *what = argc > 1 ? argv[1] : "", *path;
	bool repair = false;
	static struct many m;
	char why[400] = "out of memory";
	int c, status;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'f')
			files = strtoull(optarg, NULL, 10);
		else if (c == 's' && text_parse_size(optarg, &size))
			return usage();
		else if (c == 'r')
			repair = true;
		else if (c == 'd')
			while (damaged < ARRAY_SIZE(damages) && strcmp(optarg, damages[damaged]) != 0)
				damaged++;
		else if (c == '?')
			return usage();
	}
	path = argc > optind + 1 ? argv[optind + 1] : NULL;
	if (!strcmp(what, "raw") && path)
		return raw(path);
	if (!files || damaged == ARRAY_SIZE(damages) || (strcmp(what, "plan") != 0 && (strcmp(what, "write") != 0 || !path)))
		return usage();
	if (many_init(&m, env_posix(), size, files, why, sizeof(why))) {
		fprintf(stderr, "check_bench: %s\n", why);
		return 1;
	}
	m.damage = damaged;
	status = !strcmp(what, "plan") ? plan(&m, repair) : write_file(&m, path);
	many_fini(&m);
	return status;
}
