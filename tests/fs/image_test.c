/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images on images: whatever is written, cut, snapshotted, cloned, reverted, deleted and
 * merged, in any order and with crashes between, each image shows what it should.
 */
#include "fs/image.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/fs/attached.h"

#define VOLUME		(256 * MIB)
#define IMAGES		8u
#define BYTES		(1280 * KIB)	/* five units */

struct shown {
	bool	exists, frozen;
	uint64_t size;
	uint8_t	data[BYTES];
};

/* The world's images by name: "image-0" … in the root directory. */
struct images {
	struct cluster *c;
	struct shown now[IMAGES];
	unsigned int snapshots, clones, reverts, merges, moved, copied, deleted;
};

static uint64_t roll(struct images *im, uint64_t below)
{
	return env_random_below(im->c->env, below);
}

static const char *name_of(unsigned int i)
{
	static char names[IMAGES][16];

	snprintf(names[i], sizeof(names[i]), "image-%u", i);
	return names[i];
}

static uint64_t id_of(struct images *im, unsigned int i)
{
	struct fs_attr attr = { 0 };

	CU_ASSERT_EQUAL(fs_lookup(im->c->fs, fs_root(im->c->fs), name_of(i), &attr), 0);
	CU_ASSERT_EQUAL(attr.size, im->now[i].size);
	return attr.id;
}

static struct fs_file *open_of(struct images *im, unsigned int i, unsigned int flags)
{
	struct fs_file *f = NULL;
	int err = fs_open(im->c->fs, id_of(im, i), flags, &cluster_cred, &f, NULL);

	CU_ASSERT_EQUAL(err, 0);
	if (err)
		fprintf(stderr, "  open of image %u: %d\n", i, err);
	return f;
}

/* ---- what is done to one image ---- */

static void do_write(struct images *im, unsigned int i)
{
	static uint8_t buf[BYTES] __attribute__((aligned(4096)));
	struct fs_file *f = open_of(im, i, FS_OPEN_WRITE);
	uint64_t off = roll(im, BYTES), len = 1 + roll(im, roll(im, 3) ? 9000 : BYTES);
	uint8_t seed = (uint8_t)(1 + roll(im, 255));
	size_t done = 0;

	if (roll(im, 2))
		off = ALIGN_DOWN(off, 4096);
	len = len < BYTES - off ? len : BYTES - off;
	for (uint64_t k = 0; k < len; k++)
		buf[k] = (uint8_t)(seed + (off + k) * 7 + ((off + k) >> 8));
	CU_ASSERT_EQUAL(fs_write(im->c->fs, f, off, buf, len, false, &done), 0);
	CU_ASSERT_EQUAL(done, len);
	memcpy(im->now[i].data + off, buf, len);
	if (off + len > im->now[i].size)
		im->now[i].size = off + len;
	fs_close(im->c->fs, f);
}

static void drop_zeros(struct fs *fs, struct fs_file *f)
{
	void *buf = blkdev_alloc(UNIT_SIZE);
	uint64_t unit = 0, dropped = 0;
	int err;

	do {
		err = fs_drop_zeros(fs, f, &unit, buf, &dropped);
	} while (err > 0);
	CU_ASSERT_EQUAL(err, 0);
	free(buf);
}

static void do_allocate(struct images *im, unsigned int i)
{
	static const unsigned int kinds[] = { FILE_PUNCH | FILE_KEEP_SIZE, FILE_ZERO,
					      FILE_ZERO | FILE_KEEP_SIZE, FILE_KEEP_SIZE, 0 };
	struct fs_file *f = open_of(im, i, FS_OPEN_WRITE);
	unsigned int kind = kinds[roll(im, ARRAY_SIZE(kinds))];
	uint64_t off = roll(im, BYTES), len = 1 + roll(im, BYTES);
	struct shown *s = &im->now[i];

	if (roll(im, 2)) {
		off = ALIGN_DOWN(off, 256 * KIB);
		len = ALIGN_UP(len, 256 * KIB);
	}
	len = len < BYTES - off ? len : BYTES - off;
	CU_ASSERT_EQUAL(fs_fallocate(im->c->fs, f, kind & FILE_PUNCH ? FILE_PUNCH : kind, off,
				     len), 0);
	if (kind & (FILE_PUNCH | FILE_ZERO))
		memset(s->data + off, 0, len);
	if (!(kind & FILE_KEEP_SIZE) && off + len > s->size)
		s->size = off + len;
	if (!roll(im, 3))
		drop_zeros(im->c->fs, f);
	fs_close(im->c->fs, f);
}

static void do_truncate(struct images *im, unsigned int i)
{
	struct fs_attr attr = { .size = roll(im, BYTES) };
	uint64_t id = id_of(im, i);
	struct shown *s = &im->now[i];

	CU_ASSERT_EQUAL(fs_setattr(im->c->fs, id, FS_SET_SIZE, &attr), 0);
	if (attr.size < s->size)
		memset(s->data + attr.size, 0, s->size - attr.size);
	s->size = attr.size;
}

/* What @f, an open of image @i, shows. */
static void compare_open(struct images *im, struct fs *fs, struct fs_file *f, unsigned int i)
{
	static uint8_t buf[BYTES] __attribute__((aligned(4096)));
	const struct shown *s = &im->now[i];
	uint64_t at;
	size_t done = 0;

	CU_ASSERT_EQUAL(fs_read(fs, f, 0, buf, sizeof(buf), &done), 0);
	CU_ASSERT_EQUAL(done, s->size);
	for (at = 0; at < done && at < s->size && buf[at] == s->data[at]; at++)
		;
	if (at < s->size)
		fprintf(stderr, "  image %u of %llu bytes differs at %llu: %u, expected %u\n", i,
			(unsigned long long)s->size, (unsigned long long)at, buf[at], s->data[at]);
	CU_ASSERT_EQUAL(at, s->size);
	/* What SEEK_HOLE calls a hole is zeros. */
	if (s->size && !fs_seek(fs, f, roll(im, s->size), SEEK_HOLE, &at) && at < s->size)
		CU_ASSERT_EQUAL(s->data[at], 0);
}

static void compare_with(struct images *im, struct fs *fs, unsigned int i)
{
	struct fs_file *f = NULL;
	struct fs_attr attr;

	CU_ASSERT_EQUAL(fs_lookup(fs, fs_root(fs), name_of(i), &attr), 0);
	CU_ASSERT_EQUAL(fs_open(fs, attr.id, 0, &cluster_cred, &f, NULL), 0);
	if (!f)
		return;
	compare_open(im, fs, f, i);
	fs_close(fs, f);
}

static void compare(struct images *im, unsigned int i)
{
	compare_with(im, im->c->fs, i);
}

/* ---- what makes and removes images ---- */

/* A name that is free; IMAGES: none. */
static unsigned int free_name(struct images *im)
{
	unsigned int start = (unsigned int)roll(im, IMAGES);

	for (unsigned int k = 0; k < IMAGES; k++)
		if (!im->now[(start + k) % IMAGES].exists)
			return (start + k) % IMAGES;
	return IMAGES;
}

static void do_create(struct images *im, unsigned int i)
{
	struct fs_attr attr;

	CU_ASSERT_EQUAL(fs_create(im->c->fs, fs_root(im->c->fs), name_of(i), S_IFREG | 0644, 0,
				  &cluster_cred, &attr), 0);
	memset(&im->now[i], 0, sizeof(im->now[i]));
	im->now[i].exists = true;
}

static void do_snapshot(struct images *im, unsigned int i)
{
	unsigned int to = free_name(im);
	struct fs_file *f = NULL;
	struct fs_attr attr;
	size_t done;
	uint8_t byte = 7;

	if (to == IMAGES)
		return;
	if (roll(im, 2))
		f = open_of(im, i, FS_OPEN_WRITE);
	CU_ASSERT_EQUAL(fs_snapshot(im->c->fs, fs_root(im->c->fs), name_of(i), name_of(to), f,
				    &attr), 0);
	CU_ASSERT_EQUAL(attr.size, im->now[i].size);
	memcpy(&im->now[to], &im->now[i], sizeof(im->now[to]));
	im->now[to].frozen = true;
	im->snapshots++;
	if (!f)
		return;
	/* The open goes on, on the new image. */
	CU_ASSERT_EQUAL(f->id, attr.id);
	if (im->now[i].size) {
		CU_ASSERT_EQUAL(fs_write(im->c->fs, f, im->now[i].size - 1, &byte, 1, false,
					 &done), 0);
		im->now[i].data[im->now[i].size - 1] = byte;
	}
	fs_close(im->c->fs, f);
}

static void do_clone(struct images *im, unsigned int i)
{
	unsigned int to = free_name(im);
	struct fs_attr attr;

	if (to == IMAGES)
		return;
	CU_ASSERT_EQUAL(fs_clone(im->c->fs, id_of(im, i), fs_root(im->c->fs), name_of(to), false,
				 &cluster_cred, &attr), 0);
	memcpy(&im->now[to], &im->now[i], sizeof(im->now[to]));
	im->now[to].frozen = false;
	im->clones++;
}

static void do_revert(struct images *im, unsigned int i)
{
	unsigned int to = (unsigned int)roll(im, IMAGES);
	struct fs_attr attr;

	if (!im->now[to].exists || im->now[to].frozen)
		return;
	CU_ASSERT_EQUAL(fs_clone(im->c->fs, id_of(im, i), fs_root(im->c->fs), name_of(to), true,
				 &cluster_cred, &attr), 0);
	memcpy(&im->now[to], &im->now[i], sizeof(im->now[to]));
	im->now[to].frozen = false;
	im->reverts++;
}

static void do_unlink(struct images *im, unsigned int i)
{
	CU_ASSERT_EQUAL(fs_unlink(im->c->fs, fs_root(im->c->fs), name_of(i)), 0);
	im->now[i].exists = false;
	im->deleted++;
}

static void do_merge(struct images *im, unsigned int i)
{
	struct fs_file *f = open_of(im, i, FS_OPEN_WRITE);
	struct merge m = { 0 };
	unsigned int steps = (unsigned int)roll(im, 12);
	int more = 1;

	while (more > 0 && steps--)
		more = fs_merge_step(im->c->fs, f, &m);
	CU_ASSERT(more >= 0);
	if (more < 0)
		fprintf(stderr, "  merge: %d\n", more);
	im->merges++;
	im->moved += (unsigned int)m.units_moved;
	im->copied += (unsigned int)m.blocks_copied;
	/* Through the images below as they are in memory, and not only as the next open finds them. */
	compare_open(im, im->c->fs, f, i);
	fs_close(im->c->fs, f);
}

static void step(struct images *im)
{
	unsigned int i = (unsigned int)roll(im, IMAGES);
	struct shown *s = &im->now[i];

	if (!s->exists) {
		if (!roll(im, 4))
			do_create(im, i);
		return;
	}
	switch (roll(im, 16)) {
	case 0: case 1:
		compare(im, i);
		break;
	case 2:
		do_unlink(im, i);
		break;
	case 3: case 4:
		if (s->frozen)
			do_clone(im, i);
		else
			do_snapshot(im, i);
		break;
	case 5:
		if (s->frozen)
			do_revert(im, i);
		break;
	case 6: case 7:
		if (!s->frozen)
			do_merge(im, i);
		break;
	case 8: case 9:
		if (!s->frozen)
			do_allocate(im, i);
		break;
	case 10:
		if (!s->frozen)
			do_truncate(im, i);
		break;
	default:
		if (!s->frozen)
			do_write(im, i);
	}
}

static void compare_all(struct images *im)
{
	for (unsigned int i = 0; i < IMAGES; i++)
		if (im->now[i].exists)
			compare(im, i);
}

/* Everything so far is durable; then the host is gone, or leaves, and comes back. */
static void come_back(struct images *im)
{
	struct cluster *c = im->c;

	CU_ASSERT_EQUAL(fs_sync(c->fs), 0);
	if (roll(im, 2)) {
		cluster_crash(c, 0);
		cluster_sleep(c, 20000);
	} else {
		CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);
		cluster_check(c);
	}
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 0, 0), 0);
	compare_all(im);
}

static void random_body(struct cluster *c)
{
	struct images *im = calloc(1, sizeof(*im));

	im->c = c;
	cluster_alone(c);
	for (unsigned int round = 0; round < 6 && !CU_get_number_of_failures(); round++) {
		for (unsigned int n = 0; n < 150 && !CU_get_number_of_failures(); n++)
			step(im);
		come_back(im);
	}
	for (unsigned int i = 0; i < IMAGES; i++)
		if (im->now[i].exists)
			do_unlink(im, i);
	fprintf(stderr, "  %u snapshots, %u clones, %u reverts, %u deletions, %u merges: %u units "
		"moved, %u blocks copied\n", im->snapshots, im->clones, im->reverts, im->deleted,
		im->merges, im->moved, im->copied);
	free(im);
}

/* More of them for whoever has the time. */
static uint64_t seeds(void)
{
	const char *wanted = getenv("SEEDS");

	return wanted ? strtoull(wanted, NULL, 10) : 8;
}

/* ---- a crash with nothing synced ---- */

/* What is there now, whatever it is. */
static void learn(struct images *im, unsigned int i)
{
	struct fs *fs = im->c->fs;
	struct shown *s = &im->now[i];
	struct image_info info;
	struct fs_attr attr;
	struct fs_file *f;
	size_t done = 0;

	s->exists = !fs_lookup(fs, fs_root(fs), name_of(i), &attr);
	if (!s->exists)
		return;
	memset(s->data, 0, sizeof(s->data));
	s->size = attr.size;
	CU_ASSERT_EQUAL(fs_image_info(fs, attr.id, &info), 0);
	s->frozen = info.frozen;
	f = open_of(im, i, 0);
	CU_ASSERT_EQUAL(fs_read(fs, f, 0, s->data, sizeof(s->data), &done), 0);
	CU_ASSERT_EQUAL(done, s->size);
	fs_close(fs, f);
}

/* Snapshots that were durable and are still there have not changed; all can be read. */
static void cut(struct images *im)
{
	static uint64_t ids[IMAGES];
	static struct shown safe[IMAGES];
	struct cluster *c = im->c;
	struct fs_attr attr;

	CU_ASSERT_EQUAL(fs_sync(c->fs), 0);
	memcpy(safe, im->now, sizeof(safe));
	for (unsigned int i = 0; i < IMAGES; i++)
		ids[i] = safe[i].exists && safe[i].frozen ? id_of(im, i) : 0;
	for (uint64_t n = roll(im, 40); n--; )
		step(im);
	cluster_crash(c, 0);
	cluster_sleep(c, 20000);
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 0, 0), 0);
	for (unsigned int i = 0; i < IMAGES; i++) {
		learn(im, i);
		if (!im->now[i].exists || !ids[i] ||
		    fs_lookup(c->fs, fs_root(c->fs), name_of(i), &attr) || attr.id != ids[i])
			continue;
		CU_ASSERT_EQUAL(safe[i].size, im->now[i].size);
		CU_ASSERT_EQUAL(memcmp(safe[i].data, im->now[i].data, sizeof(safe[i].data)), 0);
	}
}

static void cut_body(struct cluster *c)
{
	struct images *im = calloc(1, sizeof(*im));

	im->c = c;
	cluster_alone(c);
	for (unsigned int round = 0; round < 8 && !CU_get_number_of_failures(); round++) {
		for (unsigned int n = 0; n < 60 && !CU_get_number_of_failures(); n++)
			step(im);
		cut(im);
		CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);
		cluster_check(c);
		CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 0, 0), 0);
		compare_all(im);
	}
	free(im);
}

static void a_crash_anywhere_leaves_snapshots_as_they_were(void)
{
	for (uint64_t seed = 1; seed <= seeds() && !CU_get_number_of_failures(); seed++)
		cluster_run(1000 + seed, VOLUME, cut_body);
}

/* ---- several hosts ---- */

static void hosts_body(struct cluster *c)
{
	static uint8_t data[MIB] __attribute__((aligned(4096)));
	uint64_t root;
	struct fs_attr base, a, b;
	struct fs_file *fa, *fb;
	size_t done;

	cluster_alone(c);
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 1, 0), 0);
	root = fs_root(c->fs);
	CU_ASSERT_EQUAL(fs_create(c->fs, root, "base", S_IFREG | 0644, 0, &cluster_cred, &base), 0);
	CU_ASSERT_EQUAL(fs_open(c->fs, base.id, FS_OPEN_WRITE, &cluster_cred, &fa, NULL), 0);
	memset(data, 'b', sizeof(data));
	CU_ASSERT_EQUAL(fs_write(c->fs, fa, 0, data, sizeof(data), false, &done), 0);
	CU_ASSERT_EQUAL(fs_snapshot(c->fs, root, "base", "snap", fa, &a), 0);
	/* Alpha goes on writing; beta makes a clone of the snapshot and writes to that. */
	CU_ASSERT_EQUAL(fs_clone(c->hosts[1].fs, base.id, root, "clone", false, &cluster_cred, &b),
			0);
	CU_ASSERT_EQUAL(fs_open(c->hosts[1].fs, b.id, FS_OPEN_WRITE, &cluster_cred, &fb, NULL), 0);
	memset(data, 'A', 8192);
	CU_ASSERT_EQUAL(fs_write(c->fs, fa, 4096, data, 8192, false, &done), 0);
	memset(data, 'B', 8192);
	CU_ASSERT_EQUAL(fs_write(c->hosts[1].fs, fb, 8192, data, 8192, false, &done), 0);
	CU_ASSERT_EQUAL(fs_read(c->fs, fa, 0, data, sizeof(data), &done), 0);
	CU_ASSERT(data[4095] == 'b' && data[4096] == 'A' && data[12287] == 'A' &&
		  data[12288] == 'b');
	CU_ASSERT_EQUAL(fs_read(c->hosts[1].fs, fb, 0, data, sizeof(data), &done), 0);
	CU_ASSERT(data[8191] == 'b' && data[8192] == 'B' && data[16383] == 'B' &&
		  data[16384] == 'b' && data[sizeof(data) - 1] == 'b');
	/* The base is in use on both: nobody takes it away, and nobody writes to it. */
	CU_ASSERT_EQUAL(fs_unlink(c->fs, root, "snap"), -EBUSY);
	CU_ASSERT_EQUAL(fs_close(c->hosts[1].fs, fb), 0);
	CU_ASSERT_EQUAL(fs_open(c->fs, base.id, FS_OPEN_WRITE, &cluster_cred, &fb, NULL), -EPERM);
	CU_ASSERT_EQUAL(fs_close(c->fs, fa), 0);
}

static void clones_of_one_base_are_written_on_two_hosts(void)
{
	cluster_run(4711, VOLUME, hosts_body);
}

/* ---- merging below what is open ---- */

/* A new disk, open to write, that stands on the snapshot "lower" of @data. */
static struct fs_file *open_on_lower(struct cluster *c, const void *data, size_t len)
{
	uint64_t root = fs_root(c->fs);
	struct fs_file *f;
	struct fs_attr a;
	size_t done;

	CU_ASSERT_EQUAL(fs_create(c->fs, root, "disk", S_IFREG | 0644, 0, &cluster_cred, &a), 0);
	CU_ASSERT_EQUAL_FATAL(fs_open(c->fs, a.id, FS_OPEN_WRITE, &cluster_cred, &f, NULL), 0);
	CU_ASSERT_EQUAL(fs_write(c->fs, f, 0, data, len, false, &done), 0);
	CU_ASSERT_EQUAL(fs_snapshot(c->fs, root, "disk", "lower", f, &a), 0);
	return f;
}

/* Of disk on two snapshots the lower one goes: the upper one shows what it has taken over at once. */
static void merged_below_body(struct cluster *c)
{
	static uint8_t data[64 * KIB];
	struct merge m = { 0 };
	struct fs_file *f;
	struct fs_attr a;
	uint64_t root;
	size_t done;
	int err;

	cluster_alone(c);
	root = fs_root(c->fs);
	memset(data, 'l', sizeof(data));
	f = open_on_lower(c, data, sizeof(data));
	memset(data, 'u', 4096);
	CU_ASSERT_EQUAL(fs_write(c->fs, f, 4096, data, 4096, false, &done), 0);
	CU_ASSERT_EQUAL(fs_snapshot(c->fs, root, "disk", "upper", f, &a), 0);
	CU_ASSERT_EQUAL(fs_unlink(c->fs, root, "lower"), 0);
	while ((err = fs_merge_step(c->fs, f, &m)) > 0)
		;
	CU_ASSERT_EQUAL(err, 0);
	CU_ASSERT_TRUE(m.blocks_copied > 0);
	CU_ASSERT_EQUAL(fs_read(c->fs, f, 0, data, sizeof(data), &done), 0);
	CU_ASSERT(data[0] == 'l' && data[4095] == 'l' && data[4096] == 'u' && data[8191] == 'u' &&
		  data[8192] == 'l' && data[sizeof(data) - 1] == 'l');
	fs_close(c->fs, f);
}

static void what_merged_below_an_open_image_shows_at_once(void)
{
	cluster_run(4714, VOLUME, merged_below_body);
}

/*
 * Two who merge below one disk, as the background and an administrator do: one is half-way through
 * the upper image when the other completes it.  Where it was says nothing of the lower image; what
 * it skipped there would be lost with that.
 */
static void two_mergers_body(struct cluster *c)
{
	static uint8_t data[12 * UNIT_SIZE];
	struct merge one = { 0 }, other = { 0 };
	struct fs_file *f;
	struct fs_attr a;
	uint64_t root, upper;
	size_t done;
	int err;

	cluster_alone(c);
	root = fs_root(c->fs);
	memset(data, 'l', sizeof(data));
	f = open_on_lower(c, data, sizeof(data));
	for (uint64_t off = 0; off < sizeof(data); off += UNIT_SIZE)
		CU_ASSERT_EQUAL(fs_write(c->fs, f, off, "u", 1, false, &done), 0);
	upper = f->id;
	CU_ASSERT_EQUAL(fs_snapshot(c->fs, root, "disk", "upper", f, &a), 0);
	CU_ASSERT(!fs_unlink(c->fs, root, "lower") && !fs_unlink(c->fs, root, "upper"));
	CU_ASSERT_EQUAL(fs_merge_step(c->fs, f, &one), 1);
	CU_ASSERT(one.image == upper && one.unit == MERGE_UNITS);
	do {
		err = fs_merge_step(c->fs, f, &other);
	} while (err > 0 && other.image == upper && other.unit);
	CU_ASSERT_EQUAL(err, 1);	/* the upper one is done, the lower one is left */
	while ((err = fs_merge_step(c->fs, f, &one)) > 0)
		;
	CU_ASSERT_EQUAL(err, 0);
	CU_ASSERT_EQUAL(fs_read(c->fs, f, 0, data, sizeof(data), &done), 0);
	for (size_t i = 0; i < sizeof(data); i++)
		if (data[i] != (i % UNIT_SIZE ? 'l' : 'u'))
			CU_FAIL_FATAL("data is lost");
	fs_close(c->fs, f);
}

static void a_merge_begins_anew_with_each_image(void)
{
	cluster_run(4715, VOLUME, two_mergers_body);
}

/* ---- a parent whose lock hangs ---- */

struct opening {
	struct cluster *c;
	uint64_t id, took_ns;
	int err;
};

static void opening_thread(void *arg)
{
	struct opening *o = arg;
	struct env *env = o->c->hosts[0].env;
	uint64_t begin = env_now_ns(env);
	struct fs_file *f;

	o->err = fs_open(o->c->fs, o->id, FS_OPEN_WRITE, &cluster_cred, &f, NULL);
	o->took_ns = env_now_ns(env) - begin;
	if (!o->err)
		fs_close(o->c->fs, f);
}

/* An image with a parent, once opened by alpha, so that its own lock is alpha's. */
static uint64_t make_image(struct cluster *c, const char *name, const char *snap)
{
	struct fs_attr attr = { 0 };
	struct opening o = { .c = c };

	CU_ASSERT_EQUAL(fs_create(c->fs, fs_root(c->fs), name, S_IFREG | 0644, 0, &cluster_cred,
				  &attr), 0);
	CU_ASSERT_EQUAL(fs_snapshot(c->fs, fs_root(c->fs), name, snap, NULL, &attr), 0);
	o.id = attr.id;
	opening_thread(&o);
	CU_ASSERT_EQUAL(o.err, 0);
	return attr.id;
}

/*
 * Beta dies with the lock of a snapshot: alpha's opens of what stands on it wait for its
 * recovery, two of them for one link, and nobody else's.
 */
static void hanging_body(struct cluster *c)
{
	struct opening hanging[2] = { { .c = c }, { .c = c } }, other = { .c = c };
	struct env_thread *threads[2], *thread;
	struct fs_attr attr = { .mode = 0600 };
	struct fs *beta;

	cluster_alone(c);
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 1, 0), 0);
	beta = c->hosts[1].fs;
	hanging[0].id = hanging[1].id = make_image(c, "disk", "snap");
	other.id = make_image(c, "other", "other-snap");
	CU_ASSERT_EQUAL(fs_lookup(beta, fs_root(beta), "snap", &attr), 0);
	attr.mode = 0600;
	CU_ASSERT_EQUAL(fs_setattr(beta, attr.id, FS_SET_MODE, &attr), 0);
	cluster_crash(c, 1);
	for (unsigned int i = 0; i < 2; i++)
		CU_ASSERT_EQUAL_FATAL(env_thread_start(c->hosts[0].env, "opens", opening_thread,
						       &hanging[i], &threads[i]), 0);
	cluster_sleep(c, 500);
	CU_ASSERT_EQUAL_FATAL(env_thread_start(c->hosts[0].env, "opens", opening_thread, &other,
					       &thread), 0);
	env_thread_join(c->env, thread);
	CU_ASSERT_EQUAL(other.err, 0);
	CU_ASSERT_TRUE(other.took_ns < 500 * NSEC_PER_MSEC);
	for (unsigned int i = 0; i < 2; i++) {
		env_thread_join(c->env, threads[i]);
		CU_ASSERT_EQUAL(hanging[i].err, 0);
		CU_ASSERT_TRUE(hanging[i].took_ns > 3 * NSEC_PER_SEC);
	}
}

static void an_open_whose_parent_hangs_delays_no_other(void)
{
	cluster_run(4713, VOLUME, hanging_body);
}

/* ---- limits ---- */

static void deep_body(struct cluster *c)
{
	struct fs_attr attr;
	uint64_t root;
	char name[16];
	int err = 0;

	cluster_alone(c);
	root = fs_root(c->fs);
	CU_ASSERT_EQUAL(fs_create(c->fs, root, "disk", S_IFREG | 0644, 0, &cluster_cred, &attr), 0);
	for (unsigned int i = 0; i < IMAGE_DEPTH_MAX; i++) {
		snprintf(name, sizeof(name), "s%u", i);
		CU_ASSERT_EQUAL(fs_snapshot(c->fs, root, "disk", name, NULL, &attr), 0);
	}
	err = fs_snapshot(c->fs, root, "disk", "one too many", NULL, &attr);
	CU_ASSERT_EQUAL(err, -ELOOP);
	/* The oldest are deleted first: each moves up, and there is room again. */
	for (unsigned int i = 0; i < IMAGE_DEPTH_MAX; i += 2) {
		struct merge m = { 0 };
		struct fs_file *f;

		snprintf(name, sizeof(name), "s%u", i);
		CU_ASSERT_EQUAL(fs_unlink(c->fs, root, name), 0);
		CU_ASSERT_EQUAL(fs_lookup(c->fs, root, "disk", &attr), 0);
		CU_ASSERT_EQUAL(fs_open(c->fs, attr.id, FS_OPEN_WRITE, NULL, &f, NULL), 0);
		while ((err = fs_merge_step(c->fs, f, &m)) > 0)
			;
		CU_ASSERT_EQUAL(err, 0);
		fs_close(c->fs, f);
	}
	CU_ASSERT_EQUAL(fs_snapshot(c->fs, root, "disk", "again", NULL, &attr), 0);
}

static void sixty_four_deep_and_no_deeper(void)
{
	cluster_run(4712, VOLUME, deep_body);
}

static void every_image_shows_what_was_written_to_it(void)
{
	for (uint64_t seed = 1; seed <= seeds() && !CU_get_number_of_failures(); seed++) {
		cluster_run(seed, VOLUME, random_body);
	}
}

UNIT_MAIN("fs/image",
	UNIT_TEST(every_image_shows_what_was_written_to_it),
	UNIT_TEST(a_crash_anywhere_leaves_snapshots_as_they_were),
	UNIT_TEST(clones_of_one_base_are_written_on_two_hosts),
	UNIT_TEST(what_merged_below_an_open_image_shows_at_once),
	UNIT_TEST(a_merge_begins_anew_with_each_image),
	UNIT_TEST(an_open_whose_parent_hangs_delays_no_other),
	UNIT_TEST(sixty_four_deep_and_no_deeper));
