// SPDX-License-Identifier: Apache-2.0
/*
 * Requests as long as a guest likes: whoever is served by the same thread, or from the same memory, does
 * not wait or pay for them.
 */
#include "tests/fs/attached.h"
#include "tests/fs/disk_rig.h"

#define VOLUME	(256 * MIB)
#define DISK	(16 * MIB)
#define LARGE	(8 * MIB)	/* more than the owner's thread does by itself */

struct world {
	struct cluster	*c;
	struct disk_rig	rig;
	uint8_t		*model, *buf;
};

static void world_begin(struct world *w, struct cluster *c)
{
	struct fs_attr attr = { .size = DISK };

	memset(w, 0, sizeof(*w));
	w->c = c;
	w->model = calloc(1, DISK);
	w->buf = blkdev_alloc(DISK);
	cluster_alone(c);
	CU_ASSERT_EQUAL_FATAL(fs_create(c->fs, fs_root(c->fs), "disk", S_IFREG | 0600, 0, &cluster_cred,
					&attr), 0);
	attr.size = DISK;
	CU_ASSERT_EQUAL(fs_setattr(c->fs, attr.id, FS_SET_SIZE, &attr), 0);
	CU_ASSERT_EQUAL_FATAL(disk_rig_open(&w->rig, c->hosts[0].env, c->fs, attr.id), 0);
}

static void world_end(struct world *w)
{
	CU_ASSERT_EQUAL(disk_rig_close(&w->rig), 0);
	free(w->model);
	free(w->buf);
}

static uint64_t slow(struct world *w)
{
	struct disk_stats st;

	disk_stats(w->rig.disk, &st);
	return st.slow;
}

/* In buffers that end nowhere near where a worker's pieces do. */
static void transfer(struct world *w, enum blk_op op, uint64_t off, uint64_t len)
{
	uint64_t a = len / 3 / 512 * 512 + 512, b = MIB / 2 + 1536;
	struct iovec iov[3] = { { w->buf, a }, { w->buf + a, b }, { w->buf + a + b, len - a - b } };

	CU_ASSERT_EQUAL(blkdev_rwv(w->rig.dev, op, 0, off, iov, 3), 0);
}

static void read_and_compare(struct world *w, uint64_t off, uint64_t len)
{
	memset(w->buf, 0x5a, len);
	transfer(w, BLK_READ, off, len);
	CU_ASSERT_EQUAL(memcmp(w->buf, w->model + off, len), 0);
}

static void write_and_keep(struct world *w, uint64_t off, uint64_t len, unsigned int seed)
{
	for (uint64_t i = 0; i < len; i++)
		w->model[off + i] = (uint8_t)(seed + i * 7 + (i >> 9));
	memcpy(w->buf, w->model + off, len);
	transfer(w, BLK_WRITE, off, len);
}

static void zeros_body(struct cluster *c)
{
	struct world w;
	uint64_t before;

	world_begin(&w, c);
	/* What lies there is known from now on. */
	read_and_compare(&w, 0, DISK);
	before = slow(&w);
	read_and_compare(&w, 0, 2 * MIB);
	CU_ASSERT_EQUAL(slow(&w), before);
	/* Many guests' worth of time to clear, and no device is asked for anything. */
	read_and_compare(&w, 512, LARGE);
	CU_ASSERT_EQUAL(slow(&w), before + 1);
	world_end(&w);
}

static void pieces_body(struct cluster *c)
{
	struct world w;
	uint64_t before;

	world_begin(&w, c);
	for (uint64_t off = 0; off < LARGE; off += 128 * KIB)
		CU_ASSERT_EQUAL(blkdev_write(w.rig.dev, off, memset(w.buf, 0x33, 4096), 4096), 0);
	for (uint64_t off = 0; off < LARGE; off += 128 * KIB)
		memset(w.model + off, 0x33, 4096);
	read_and_compare(&w, 0, DISK);
	before = slow(&w);
	read_and_compare(&w, 0, 2 * MIB);
	read_and_compare(&w, 3584, LARGE);
	CU_ASSERT_TRUE(slow(&w) > before);
	world_end(&w);
}

static void writes_body(struct cluster *c)
{
	struct world w;

	world_begin(&w, c);
	/* Parts of blocks at both ends: by a worker, and piece by piece there. */
	write_and_keep(&w, 512, LARGE + 1024, 1);
	read_and_compare(&w, 0, DISK);
	/* More than 32 units that have no space yet, and over what is there. */
	write_and_keep(&w, 4096, DISK - 8192, 2);
	write_and_keep(&w, 3 * MIB - 512, 3 * MIB, 3);
	read_and_compare(&w, 0, DISK);
	world_end(&w);
}

static void many_zeros_are_made_by_a_worker(void)
{
	cluster_run(1, VOLUME, zeros_body);
}

static void what_is_in_many_pieces_is_read_by_a_worker(void)
{
	cluster_run(2, VOLUME, pieces_body);
}

static void what_a_worker_writes_piece_by_piece_is_all_there(void)
{
	cluster_run(3, VOLUME, writes_body);
}

UNIT_MAIN("fs/disk_large",
	  UNIT_TEST(many_zeros_are_made_by_a_worker),
	  UNIT_TEST(what_is_in_many_pieces_is_read_by_a_worker),
	  UNIT_TEST(what_a_worker_writes_piece_by_piece_is_all_there));
