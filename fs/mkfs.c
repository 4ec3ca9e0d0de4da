/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/mkfs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/text.h"
#include "fs/journal.h"
#include "fs/super.h"
#include "lockd/slot.h"

#define ROOT_BLOCKS	(1u + CLUSTER_BLOCKS)	/* group 0's first index block and cluster */

/* ---- layout ---- */

static uint32_t default_slots(uint64_t size)
{
	if (size >= 10 * GIB)
		return 64;
	return size >= GIB ? 16 : 4;
}

/* 0.08 % of the volume for all of them, within bounds: metadata stays under 0.1 %. */
static uint64_t default_journal(uint64_t size, uint32_t slots)
{
	uint64_t each = size / 10000 * 8 / slots;

	if (size < GIB)
		return JOURNAL_SIZE_MIN;
	if (each < MIB)
		return MIB;
	if (each > 64 * MIB)
		return 64 * MIB;
	return ALIGN_DOWN(each, MIB);
}

/* Large enough that the volume can grow to eight times its size. */
static uint64_t default_ag_size(uint64_t size)
{
	uint64_t ag = AG_SIZE_MIN;

	while (DIV_ROUND_UP(size, ag) > AG_COUNT_MAX / 8 && ag < AG_SIZE_MAX)
		ag *= 2;
	return ag;
}

/* What a label may be: people type it, "label:/path" must stay unambiguous. */
static int check_label(const char *label, char *why, size_t why_size)
{
	if (strlen(label) > LABEL_MAX)
		return text_refuse(-EINVAL, why, why_size, "label: %zu bytes, at most %d",
			      strlen(label), LABEL_MAX);
	for (const char *c = label; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 127 || *c == '/' || *c == ':')
			return text_refuse(-EINVAL, why, why_size, "label: control characters, "
				      "\"/\" and \":\" are not allowed");
	return 0;
}

static int check_device(const struct mkfs_params *p, uint64_t size, char *why, size_t why_size)
{
	const struct blkdev_info *info = &p->dev->info;
	char text[24];

	if (size < VOLUME_SIZE_MIN)
		return text_refuse(-ENOSPC, why, why_size,
			      "%s: %s is too small: a volume has 64 MiB at least", info->name,
			      text_format_size(size, text, sizeof(text)));
	if (info->read_only)
		return text_refuse(-EROFS, why, why_size, "%s: is read-only", info->name);
	if (info->caw == BLK_CAW_NONE)
		return text_refuse(-EOPNOTSUPP, why, why_size,
			      "%s: no compare-and-write here, which hosts need to share it; if "
			      "only this machine will ever use it, say --caw=local", info->name);
	return 0;
}

static void place_regions(struct super *s)
{
	uint64_t slots = s->slot_count;

	s->lock_addr = SUPER_ADDR + BLOCK_SIZE;
	s->scratch_addr = s->lock_addr + BLOCK_SIZE;
	s->slots_addr = s->scratch_addr + 2 * BLOCK_SIZE;
	s->orphans_addr = s->slots_addr + slots * BLOCK_SIZE;
	s->journals_addr = s->orphans_addr + slots * s->orphan_blocks * BLOCK_SIZE;
	s->ag_addr = ALIGN_UP(s->journals_addr + slots * s->journal_size, MIB);
}

static int place_groups(struct super *s, char *why, size_t why_size)
{
	uint64_t count, root;
	char a[24], b[24];

	if (s->ag_addr > s->size / 2)
		return text_refuse(-ENOSPC, why, why_size,
			      "%u host slots with journals of %s fill more than half of %s: "
			      "choose fewer or smaller ones", s->slot_count,
			      text_format_size(s->journal_size, a, sizeof(a)),
			      text_format_size(s->size, b, sizeof(b)));
	count = super_groups_fitting(s);
	if (count > AG_COUNT_MAX)
		return text_refuse(-E2BIG, why, why_size,
			      "%s: %llu allocation groups of %s, at most %u",
			      text_format_size(s->size, a, sizeof(a)), (unsigned long long)count,
			      text_format_size(s->ag_size, b, sizeof(b)), AG_COUNT_MAX);
	s->ag_count = (uint32_t)count;
	root = (s->ag_addr >> BLOCK_SHIFT) + super_ag_meta(s) + 1;
	s->root = inode_id_make(root, 1);
	s->copy_addr = super_copy_place(s);
	return 0;
}

/* Whatever a reader would refuse must not be written: ask the reader. */
static int check_readable(const struct super *s, char *why, size_t why_size)
{
	void *block = blkdev_alloc(BLOCK_SIZE);
	struct super got;
	int err;

	if (!block)
		return -ENOMEM;
	super_encode(s, SUPER_ADDR, block);
	err = super_decode(block, SUPER_ADDR, &got, why, why_size);
	free(block);
	return err ? -EINVAL : 0;
}

int mkfs_layout(const struct mkfs_params *p, struct super *s, char *why, size_t why_size)
{
	static const struct lockd_timing timing_default = { 1000, 5000, 1000 };
	const struct blkdev_info *info = &p->dev->info;
	const char *label = p->label ? p->label : "";
	struct super l = { .size = p->size ? p->size : info->size };
	int err;

	if (l.size > info->size)
		l.size = info->size;
	l.size = ALIGN_DOWN(l.size, (uint64_t)BLOCK_SIZE);

	err = check_label(label, why, why_size);
	if (!err)
		err = check_device(p, l.size, why, why_size);
	if (err)
		return err;
	l.version = 1;
	memcpy(l.label, label, strlen(label));
	l.sector = info->sector;
	l.caw = info->caw;
	l.timing = p->timing;
	if (!l.timing.beat_ms)
		l.timing.beat_ms = timing_default.beat_ms;
	if (!l.timing.lease_ms)
		l.timing.lease_ms = 5 * l.timing.beat_ms;
	if (!l.timing.margin_ms)
		l.timing.margin_ms = l.timing.lease_ms / 5;
	l.slot_count = p->slot_count ? p->slot_count : default_slots(l.size);
	if (l.slot_count > SLOT_COUNT_MAX)
		return text_refuse(-EINVAL, why, why_size, "%u host slots, at most %u", l.slot_count,
			      SLOT_COUNT_MAX);
	l.orphan_blocks = ORPHAN_BLOCKS;
	l.journal_size = p->journal_size ? p->journal_size : default_journal(l.size, l.slot_count);
	if (l.journal_size < JOURNAL_SIZE_MIN || l.journal_size > GIB)
		return text_refuse(-EINVAL, why, why_size,
			      "the journal size is not within 512 KiB to 1 GiB");
	l.journal_size = ALIGN_DOWN(l.journal_size, (uint64_t)BLOCK_SIZE);
	l.ag_size = p->ag_size ? p->ag_size : default_ag_size(l.size);
	if (l.ag_size < AG_SIZE_MIN || (l.ag_size & (l.ag_size - 1)))
		return text_refuse(-EINVAL, why, why_size, "the allocation group size is not a power "
			      "of two from 1 GiB up");
	place_regions(&l);
	err = place_groups(&l, why, why_size);
	if (!err)
		err = check_readable(&l, why, why_size);
	if (!err)
		*s = l;
	return err;
}

uint64_t mkfs_free_bytes(const struct super *s)
{
	uint64_t blocks = 0;

	for (uint32_t ag = 0; ag < s->ag_count; ag++)
		blocks += ag_new_free(s, ag) - (ag == 0 ? ROOT_BLOCKS : 0);
	return blocks << BLOCK_SHIFT;
}

/* ---- writing, many blocks at a time ---- */

#define BATCH_IOS	128u
#define BATCH_BLOCKS	256u

struct batch {
	struct blkdev *dev;
	uint8_t	*mem;			/* BATCH_BLOCKS blocks, filled in order */
	unsigned int blocks, ios;
	struct blk_io io[BATCH_IOS];
	struct iovec iov[BATCH_IOS];
	int	err;			/* the first error; nothing is written after it */
};

static int batch_new(struct blkdev *dev, struct batch **out)
{
	struct batch *b = calloc(1, sizeof(*b));

	if (!b)
		return -ENOMEM;
	b->dev = dev;
	b->mem = blkdev_alloc((size_t)BATCH_BLOCKS * BLOCK_SIZE);
	if (!b->mem) {
		free(b);
		return -ENOMEM;
	}
	*out = b;
	return 0;
}

static void batch_flush(struct batch *b)
{
	if (!b->err && b->ios)
		b->err = blkdev_rw_batch(b->dev, b->io, b->ios);
	b->ios = 0;
	b->blocks = 0;
}

static int batch_free(struct batch *b)
{
	int err;

	batch_flush(b);
	err = b->err;
	free(b->mem);
	free(b);
	return err;
}

/* A zeroed block that will be written to @addr, joined to the request before it if it can. */
static void *batch_block(struct batch *b, uint64_t addr)
{
	struct blk_io *io = b->ios ? &b->io[b->ios - 1] : NULL;
	uint8_t *block;

	if (b->blocks == BATCH_BLOCKS || (b->ios == BATCH_IOS && io->off + io->len != addr)) {
		batch_flush(b);
		io = NULL;
	}
	block = b->mem + (size_t)b->blocks++ * BLOCK_SIZE;
	memset(block, 0, BLOCK_SIZE);
	if (io && io->off + io->len == addr) {
		io->len += BLOCK_SIZE;
		b->iov[b->ios - 1].iov_len += BLOCK_SIZE;
		return block;
	}
	b->iov[b->ios] = (struct iovec){ block, BLOCK_SIZE };
	b->io[b->ios] = (struct blk_io){ .op = BLK_WRITE, .off = addr, .len = BLOCK_SIZE,
					 .iov = &b->iov[b->ios], .iovcnt = 1 };
	b->ios++;
	return block;
}

/* ---- contents ---- */

static void write_lock(struct env *env, const struct super *s, struct batch *b, uint64_t addr)
{
	struct lockrec r;

	lockrec_init(env, &r);
	lockrec_encode(&r, s->volume, addr, batch_block(b, addr), s->sector);
}

/* Generation and sequence start at random: nothing of an older volume can match (R5). */
static void write_slots(struct env *env, const struct super *s, struct batch *b)
{
	for (uint32_t i = 0; i < s->slot_count; i++) {
		uint64_t addr = s->slots_addr + (uint64_t)i * BLOCK_SIZE;
		struct slot slot = { .index = i, .state = SLOT_FREE, .recoverer = SLOT_NONE };

		slot.generation = 1 + (uint32_t)env_random_below(env, (1u << 31) - 1);
		slot.sequence = 1 + env_random_below(env, 1ULL << 62);
		slot_encode(&slot, s->volume, addr, batch_block(b, addr), s->sector);
	}
}

static void write_orphans(const struct super *s, struct batch *b)
{
	for (uint32_t slot = 0; slot < s->slot_count; slot++)
		for (uint32_t i = 0; i < s->orphan_blocks; i++) {
			uint64_t addr = super_orphan_addr(s, slot, i);
			struct meta_expect e = { META_ORPHAN, s->volume, addr, slot, 0 };

			meta_seal(batch_block(b, addr), &e, 1);
		}
}

static void write_bitmap(const struct super *s, struct batch *b, uint32_t ag, uint32_t index)
{
	uint64_t addr = super_ag_addr(s, ag) + (uint64_t)(AG_BITMAP_BLOCK + index) * BLOCK_SIZE;
	struct meta_expect e = { META_BITMAP, s->volume, addr, ag, 0 };
	struct bitmap_disk *d = batch_block(b, addr);
	uint32_t first = super_ag_meta(s);

	ag_bitmap_fresh(s, ag, super_ag_blocks(s, ag), index, d->bits);
	if (ag == 0 && index == 0)
		for (uint32_t i = first; i < first + ROOT_BLOCKS; i++)
			d->bits[i / 8] |= (uint8_t)(1u << i % 8);
	meta_seal(d, &e, 1);
}

/* The bitmap block that holds the middle copy, UINT32_MAX if that lies in another group. */
static uint32_t copy_bitmap(const struct super *s, uint32_t ag)
{
	uint32_t copy_ag;

	if (super_ag_of(s, s->copy_addr, &copy_ag) || copy_ag != ag)
		return UINT32_MAX;
	return (uint32_t)((s->copy_addr - super_ag_addr(s, ag)) >> BLOCK_SHIFT) / BITMAP_BITS;
}

static void write_group(struct env *env, const struct super *s, struct batch *b, uint32_t ag)
{
	uint64_t addr = super_ag_addr(s, ag) + AG_HEADER_BLOCK * BLOCK_SIZE;
	struct meta_expect e = { META_AG, s->volume, addr, ag, 0 };
	uint32_t blocks = super_ag_blocks(s, ag);
	uint32_t copy = copy_bitmap(s, ag);
	struct ag_disk *d;

	write_lock(env, s, b, super_ag_addr(s, ag) + AG_LOCK_BLOCK * BLOCK_SIZE);
	d = batch_block(b, addr);
	d->blocks = cpu_to_le32(blocks);
	d->free_blocks = cpu_to_le32(ag_new_free(s, ag) - (ag == 0 ? ROOT_BLOCKS : 0));
	d->bitmap_count = cpu_to_le32(super_ag_bitmaps(s));
	if (ag == 0) {
		d->inodes_used = cpu_to_le32(1);
		d->inodes_free = cpu_to_le32(CLUSTER_INODES - 1);
		d->itable = cpu_to_le64(inode_id_number(s->root) - 1);
		d->bitmap_ready[0] |= 1;
	}
	if (copy != UINT32_MAX)
		d->bitmap_ready[copy / 8] |= (uint8_t)(1u << copy % 8);
	meta_seal(d, &e, 1);
	if (ag == 0)
		write_bitmap(s, b, ag, 0);
	if (copy != UINT32_MAX && (ag != 0 || copy != 0))
		write_bitmap(s, b, ag, copy);
}

static void fill_root(struct env *env, const struct super *s, struct inode_disk *d)
{
	le64 now = cpu_to_le64(env_realtime_ns(env));

	d->generation = cpu_to_le32(inode_id_generation(s->root));
	d->mode = cpu_to_le32(S_IFDIR | 0755);
	d->nlink = cpu_to_le32(2);
	d->flags = cpu_to_le32(INODE_INLINE);
	d->atime = d->mtime = d->ctime = d->btime = now;
	d->parent = cpu_to_le64(s->root);
}

/* Group 0's first index block and inode cluster; its inode 0 is the root directory. */
static void write_root(struct env *env, const struct super *s, struct batch *b)
{
	uint64_t first = inode_id_number(s->root);
	uint64_t addr = (first - 1) << BLOCK_SHIFT;
	struct meta_expect e = { META_ITABLE, s->volume, addr, 0, 0 };
	struct itable_disk *index = batch_block(b, addr);

	index->count = cpu_to_le32(1);
	index->entries[0].block = cpu_to_le32((uint32_t)(first - (s->ag_addr >> BLOCK_SHIFT)));
	index->entries[0].used = cpu_to_le16(1);
	index->entries[0].count = cpu_to_le16(CLUSTER_INODES);
	meta_seal(index, &e, 1);
	for (uint64_t i = 0; i < CLUSTER_INODES; i++) {
		struct inode_disk *d;

		addr = (first + 2 * i) << BLOCK_SHIFT;
		write_lock(env, s, b, addr);
		addr += BLOCK_SIZE;
		d = batch_block(b, addr);
		if (i == 0)
			fill_root(env, s, d);
		e = (struct meta_expect){ META_INODE, s->volume, addr, first + 2 * i, 0 };
		meta_seal(d, &e, 1);
	}
}

int mkfs_groups(struct env *env, struct blkdev *dev, const struct super *s, uint32_t from)
{
	struct batch *b;
	int err = batch_new(dev, &b);

	if (err)
		return err;
	for (uint32_t ag = from; ag < s->ag_count && !b->err; ag++)
		write_group(env, s, b, ag);
	return batch_free(b);
}

static int write_contents(struct env *env, struct blkdev *dev, const struct super *s)
{
	struct batch *b;
	int err;

	err = batch_new(dev, &b);
	if (err)
		return err;
	write_lock(env, s, b, s->lock_addr);
	write_lock(env, s, b, s->scratch_addr);
	write_lock(env, s, b, s->scratch_addr + BLOCK_SIZE);
	write_slots(env, s, b);
	write_orphans(s, b);
	write_root(env, s, b);
	err = batch_free(b);
	if (!err)
		err = mkfs_groups(env, dev, s, 0);
	for (uint32_t i = 0; i < s->slot_count && !err; i++)
		err = journal_format(env, dev, s, i);
	return err;
}

/* ---- the old and the new superblock ---- */

/*
 * Every place at which a reader of this device would look for a superblock, and those of
 * the volume that lies on it now, which may know another size.
 */
static int destroy_old(struct blkdev *dev)
{
	uint64_t places[4 + SUPER_CANDIDATES];	/* all that are added below */
	unsigned int count = 0;
	struct super old;
	struct batch *b;
	int err;

	places[count++] = SUPER_ADDR;
	places[count++] = ALIGN_DOWN(dev->info.size, (uint64_t)BLOCK_SIZE) - BLOCK_SIZE;
	for (unsigned int i = 0; i < SUPER_CANDIDATES; i++)
		places[count++] = super_copy_candidate(dev->info.size, i);
	if (super_find(dev, &old, NULL, 0) == 0) {
		places[count++] = super_end_addr(&old);
		places[count++] = old.copy_addr;
	}
	err = batch_new(dev, &b);
	if (err)
		return err;
	for (unsigned int i = 0; i < count; i++)
		if (places[i] + BLOCK_SIZE <= dev->info.size)
			batch_block(b, places[i]);
	err = batch_free(b);
	return err ? err : blkdev_flush(dev);
}

static void uuid_random(struct env *env, uint8_t uuid[16])
{
	env_random(env, uuid, 16);
	uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x40);	/* RFC 4122, version 4 */
	uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
}

static void fill_identity(const struct mkfs_params *p, struct super *s)
{
	uuid_random(p->env, s->volume);
	memcpy(s->volume_id, p->volume_id ? p->volume_id : s->volume, 16);
	env_random(p->env, s->hash_key, sizeof(s->hash_key));
	if (s->caw == BLK_CAW_LOCAL)
		memcpy(s->machine_id, p->machine_id, 16);
	memcpy(s->identity, p->dev->info.identity, sizeof(s->identity) - 1);
	s->created = env_realtime_ns(p->env);
}

int mkfs_clear_reservation(struct blkdev *dev)
{
	uint32_t nonce;

	if (!dev->info.reservations || !dev->ops->pr_clear)
		return 0;
	env_random(dev->env, &nonce, sizeof(nonce));
	return dev->ops->pr_clear(dev, fence_tool_key(nonce));
}

int mkfs(const struct mkfs_params *p, struct super *s, char *why, size_t why_size)
{
	struct blkdev *dev = p->dev;
	struct super l;
	int err;

	err = mkfs_layout(p, &l, why, why_size);
	if (err)
		return err;
	fill_identity(p, &l);
	err = mkfs_clear_reservation(dev);
	if (err)
		return text_refuse(err, why, why_size, "%s: its persistent reservations cannot be "
				   "cleared: %s", dev->info.name, strerror(-err));
	err = destroy_old(dev);
	if (!err && p->discard && dev->info.discard_granularity)
		/* Only a courtesy to thin devices: whether it worked does not matter. */
		(void)blkdev_discard(dev, 0, l.size);
	if (!err)
		err = write_contents(p->env, dev, &l);
	if (!err)
		err = blkdev_flush(dev);
	if (!err)
		err = super_write(dev, &l);
	if (err)
		return text_refuse(err, why, why_size, "%s: writing the volume failed: %s; the device "
			      "holds no volume now", dev->info.name, strerror(-err));
	*s = l;
	return 0;
}
