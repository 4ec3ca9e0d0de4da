/* SPDX-License-Identifier: Apache-2.0 */
/* Flush, FUA, unmap, zeroing: that they are there, touch nothing else, and how long they take. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/selftest/internal.h"

#define FLUSHES		32u
#define BLOCK		4096u

struct times {
	uint64_t ns, ns_max;
	unsigned int count;
};

static void count_time(struct times *t, uint64_t ns)
{
	t->ns += ns;
	t->count++;
	if (ns > t->ns_max)
		t->ns_max = ns;
}

static int flush_each(struct run *r, uint8_t *block, struct times *flush, struct times *fua)
{
	struct blkdev *dev = r->t->devs[0];
	uint64_t addr = r->t->off + AT_FENCE, start;
	int err = 0;

	for (unsigned int i = 0; !err && i < FLUSHES; i++) {
		memset(block, (int)i, BLOCK);
		err = blkdev_write(dev, addr + i * BLOCK, block, BLOCK);
		start = now_ns(r);
		if (!err)
			err = blkdev_flush(dev);
		count_time(flush, now_ns(r) - start);
		start = now_ns(r);
		if (!err)
			err = blkdev_rw(dev, BLK_WRITE, BLK_FUA, addr + i * BLOCK, block, BLOCK);
		count_time(fua, now_ns(r) - start);
	}
	return err;
}

int test_flush(struct run *r)
{
	struct selftest_property *p = &r->t->properties[SELFTEST_FLUSH];
	uint8_t block[BLOCK] BLKDEV_ALIGNED;
	struct times flush = { 0 }, fua = { 0 };
	int err;

	if (r->board.rank) {
		verdict(p, SELFTEST_PASS, "tried by another host");
		return 0;
	}
	err = flush_each(r, block, &flush, &fua);
	if (err) {
		verdict(p, SELFTEST_FAIL, "a flush or a write with FUA failed: %s", strerror(-err));
		return 0;
	}
	figure(p, "flush_mean_ms", (double)flush.ns / flush.count / 1e6);
	figure(p, "flush_longest_ms", (double)flush.ns_max / 1e6);
	figure(p, "fua_mean_ms", (double)fua.ns / fua.count / 1e6);
	figure(p, "fua_longest_ms", (double)fua.ns_max / 1e6);
	verdict(p, SELFTEST_PASS, "both are executed; what they keep only a power cut can tell");
	return 0;
}

/* ---- unmap ---- */

#define FILL	0x5a

static bool all(const uint8_t *buf, uint64_t from, uint64_t to, int byte)
{
	for (uint64_t i = from; i < to; i++)
		if (buf[i] != byte)
			return false;
	return true;
}

/* [@from, @to) of the area was unmapped or zeroed: the rest is untouched. */
static bool edges_stay(const uint8_t *buf, uint64_t from, uint64_t to)
{
	return all(buf, 0, from, FILL) && all(buf, to, UNMAP_SIZE, FILL);
}

static int try_unmap(struct run *r, struct selftest_property *p, uint8_t *buf, uint64_t from, uint64_t to)
{
	struct blkdev *dev = r->t->devs[0];
	uint64_t at = r->t->off + AT_UNMAP, start = now_ns(r);
	int err = blkdev_discard(dev, at + from, to - from);

	if (err) {
		verdict(p, SELFTEST_WEAK, "it announces unmap and refuses it: %s", strerror(-err));
		return 0;
	}
	figure(p, "unmap_ms", (double)(now_ns(r) - start) / 1e6);
	err = blkdev_read(dev, at, buf, UNMAP_SIZE);
	if (err)
		return err;
	if (!edges_stay(buf, from, to))
		verdict(p, SELFTEST_FAIL, "it unmapped more than it was told to");
	else
		verdict(p, SELFTEST_PASS, "touches what it is told to only; unmapped blocks read %s",
			all(buf, from, to, 0) ? "zeros" : all(buf, from, to, FILL) ? "what they held" :
			"anything");
	return 0;
}

static int try_zero(struct run *r, struct selftest_property *p, uint8_t *buf, uint64_t from, uint64_t to)
{
	struct blkdev *dev = r->t->devs[0];
	uint64_t at = r->t->off + AT_UNMAP, start = now_ns(r);
	int err = blkdev_zero(dev, at + from, to - from);

	if (err)
		return err;
	figure(p, "zero_ms", (double)(now_ns(r) - start) / 1e6);
	err = blkdev_read(dev, at, buf, UNMAP_SIZE);
	if (!err && !all(buf, from, to, 0))
		verdict(p, SELFTEST_FAIL, "what was zeroed does not read zeros");
	else if (!err && !edges_stay(buf, from, to))
		verdict(p, SELFTEST_FAIL, "it zeroed more than it was told to");
	return err;
}

static int fill(struct run *r, uint8_t *buf)
{
	memset(buf, FILL, UNMAP_SIZE);
	return blkdev_write(r->t->devs[0], r->t->off + AT_UNMAP, buf, UNMAP_SIZE);
}

static int unmap_and_zero(struct run *r, struct selftest_property *p, uint8_t *buf)
{
	struct blkdev *dev = r->t->devs[0];
	uint64_t grain = dev->info.discard_granularity;
	uint64_t at = r->t->off + AT_UNMAP, from = 0, to = 0;
	int err = fill(r, buf);

	if (grain && grain <= UNMAP_SIZE / 4) {
		from = ALIGN_DOWN(at + UNMAP_SIZE / 4 + grain - 1, grain) - at;
		to = ALIGN_DOWN(at + 3 * (UNMAP_SIZE / 4), grain) - at;
	}
	if (!err && from < to)
		err = try_unmap(r, p, buf, from, to);
	else
		verdict(p, SELFTEST_SKIPPED, grain ? "it unmaps in pieces that are larger than the area" :
			"it does not unmap: nothing to get back from it");
	if (!err)
		err = fill(r, buf);
	return err ? err : try_zero(r, p, buf, UNMAP_SIZE / 4 + BLOCK, 3 * (UNMAP_SIZE / 4) - BLOCK);
}

int test_unmap(struct run *r)
{
	struct selftest_property *p = &r->t->properties[SELFTEST_UNMAP];
	uint8_t *buf;
	int err;

	if (r->board.rank) {
		verdict(p, SELFTEST_PASS, "tried by another host");
		return 0;
	}
	buf = blkdev_alloc(UNMAP_SIZE);
	if (!buf)
		return -ENOMEM;
	err = unmap_and_zero(r, p, buf);
	if (err)
		snprintf(r->why, r->why_size, "%s: unmap and zeroing: %s", r->t->devs[0]->info.name,
			 strerror(-err));
	free(buf);
	return err;
}
