/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/super.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/text.h"

#define FIRST_CLUSTER_BLOCKS	(1u + CLUSTER_BLOCKS)	/* index block and cluster */
#define AG_REST_MIN	MIB	/* of space beside its metadata: less does not make a group */

/* ---- places ---- */

uint32_t super_ag_blocks(const struct super *s, uint32_t ag)
{
	uint64_t start = super_ag_addr(s, ag);
	uint64_t end = super_groups_end(s);
	uint64_t len = end > start ? end - start : 0;

	if (len > s->ag_size)
		len = s->ag_size;
	return (uint32_t)(len >> BLOCK_SHIFT);
}

int super_ag_of(const struct super *s, uint64_t addr, uint32_t *ag)
{
	uint64_t index;

	if (addr < s->ag_addr)
		return -ERANGE;
	index = (addr - s->ag_addr) / s->ag_size;
	if (index >= super_ag_count(s))
		return -ERANGE;
	if ((addr - super_ag_addr(s, (uint32_t)index)) >> BLOCK_SHIFT >=
	    super_ag_blocks(s, (uint32_t)index))
		return -ERANGE;
	*ag = (uint32_t)index;
	return 0;
}

bool super_is_space(const struct super *s, uint64_t block, uint64_t count)
{
	uint64_t copy = s->copy_addr >> BLOCK_SHIFT, first;
	uint32_t ag, blocks;

	if (!count || count > s->ag_size >> BLOCK_SHIFT || block >= super_size(s) >> BLOCK_SHIFT ||
	    super_ag_of(s, block << BLOCK_SHIFT, &ag))
		return false;
	blocks = super_ag_blocks(s, ag);
	first = block - (super_ag_addr(s, ag) >> BLOCK_SHIFT);
	if (first < super_ag_meta(s) || first + count > blocks)
		return false;
	return copy < block || copy >= block + count;
}

uint64_t super_copy_place(const struct super *s)
{
	uint64_t addr = 0;
	uint32_t ag;

	for (unsigned int i = 0; i < SUPER_CANDIDATES; i++) {
		addr = super_copy_candidate(s->size, i);
		if (super_ag_of(s, addr, &ag))
			break;	/* fixed metadata: super_decode() refuses such a layout */
		if ((addr - super_ag_addr(s, ag)) >> BLOCK_SHIFT >=
		    super_ag_meta(s) + FIRST_CLUSTER_BLOCKS)
			break;
	}
	return addr;
}

uint64_t super_groups_fitting(const struct super *s)
{
	uint64_t end = super_groups_end(s), len = end > s->ag_addr ? end - s->ag_addr : 0;
	uint64_t least = ((uint64_t)super_ag_meta(s) << BLOCK_SHIFT) + AG_REST_MIN;

	return len / s->ag_size + (len % s->ag_size >= least);
}

uint32_t ag_new_free(const struct super *s, uint32_t ag)
{
	uint32_t blocks = super_ag_blocks(s, ag);
	uint32_t copy_ag;

	blocks -= super_ag_meta(s);
	if (super_ag_of(s, s->copy_addr, &copy_ag) == 0 && copy_ag == ag)
		blocks--;
	return blocks;
}

/* Sets bits [@from, @to) of a bitmap block. */
static void bits_set(uint8_t *bits, uint32_t from, uint32_t to)
{
	while (from < to && from % 8) {
		bits[from / 8] |= (uint8_t)(1u << from % 8);
		from++;
	}
	if (from + 8 <= to)
		memset(bits + from / 8, 0xff, (to - from) / 8);
	for (from += (to - from) / 8 * 8; from < to; from++)
		bits[from / 8] |= (uint8_t)(1u << from % 8);
}

void ag_bitmap_fresh(const struct super *s, uint32_t ag, uint32_t blocks, uint32_t index,
		     uint8_t bits[BITMAP_BYTES])
{
	uint32_t first = index * BITMAP_BITS;
	uint32_t here = blocks > first ? blocks - first : 0;
	uint32_t copy_ag, copy;

	memset(bits, 0, BITMAP_BYTES);
	if (index == 0)
		bits_set(bits, 0, super_ag_meta(s));
	bits_set(bits, here < BITMAP_BITS ? here : BITMAP_BITS, BITMAP_BITS);
	if (super_ag_of(s, s->copy_addr, &copy_ag) || copy_ag != ag)
		return;
	copy = (uint32_t)((s->copy_addr - super_ag_addr(s, ag)) >> BLOCK_SHIFT);
	if (copy / BITMAP_BITS == index)
		bits_set(bits, copy % BITMAP_BITS, copy % BITMAP_BITS + 1);
}

/* ---- encode and decode ---- */

static void encode_layout(const struct super *s, struct super_disk *d)
{
	d->slot_count = cpu_to_le32(s->slot_count);
	d->lock_addr = cpu_to_le64(s->lock_addr);
	d->scratch_addr = cpu_to_le64(s->scratch_addr);
	d->slots_addr = cpu_to_le64(s->slots_addr);
	d->orphans_addr = cpu_to_le64(s->orphans_addr);
	d->orphan_blocks = cpu_to_le32(s->orphan_blocks);
	d->ag_count = cpu_to_le32(s->ag_count);
	d->journals_addr = cpu_to_le64(s->journals_addr);
	d->journal_size = cpu_to_le64(s->journal_size);
	d->ag_addr = cpu_to_le64(s->ag_addr);
	d->ag_size = cpu_to_le64(s->ag_size);
	d->root = cpu_to_le64(s->root);
	d->copy_addr = cpu_to_le64(s->copy_addr);
	d->extent_count = cpu_to_le32(1);
	memcpy(d->extents[0].device, s->volume_id, 16);
	d->extents[0].length = cpu_to_le64(s->size);
}

void super_encode(const struct super *s, uint64_t addr, void *block)
{
	struct super_disk *d = block;
	struct meta_expect e = { META_SUPER, s->volume, addr, 0, 0 };

	memset(d, 0, sizeof(*d));
	d->format_version = cpu_to_le32(FORMAT_VERSION);
	d->block_size = cpu_to_le32(BLOCK_SIZE);
	d->compat = cpu_to_le64(s->compat);
	d->ro_compat = cpu_to_le64(s->ro_compat);
	d->incompat = cpu_to_le64(s->incompat);
	memcpy(d->volume_id, s->volume_id, 16);
	memcpy(d->label, s->label, strnlen(s->label, LABEL_MAX));
	d->size = cpu_to_le64(s->size);
	d->sector = cpu_to_le32(s->sector);
	d->caw = cpu_to_le32(s->caw);
	d->beat_ms = cpu_to_le32(s->timing.beat_ms);
	d->lease_ms = cpu_to_le32(s->timing.lease_ms);
	d->margin_ms = cpu_to_le32(s->timing.margin_ms);
	encode_layout(s, d);
	memcpy(d->hash_key, s->hash_key, 16);
	memcpy(d->machine_id, s->machine_id, 16);
	memcpy(d->identity, s->identity, strnlen(s->identity, sizeof(d->identity) - 1));
	d->created = cpu_to_le64(s->created);
	meta_seal(d, &e, s->version);
}

static void decode_fields(const struct super_disk *d, struct super *s)
{
	memset(s, 0, sizeof(*s));
	memcpy(s->volume, d->hdr.volume, 16);
	memcpy(s->volume_id, d->volume_id, 16);
	s->version = meta_version(d);
	s->compat = le64_to_cpu(d->compat);
	s->ro_compat = le64_to_cpu(d->ro_compat);
	s->incompat = le64_to_cpu(d->incompat);
	memcpy(s->label, d->label, LABEL_MAX);
	s->size = le64_to_cpu(d->size);
	s->sector = le32_to_cpu(d->sector);
	s->caw = (enum blk_caw)le32_to_cpu(d->caw);
	s->timing.beat_ms = le32_to_cpu(d->beat_ms);
	s->timing.lease_ms = le32_to_cpu(d->lease_ms);
	s->timing.margin_ms = le32_to_cpu(d->margin_ms);
	s->slot_count = le32_to_cpu(d->slot_count);
	s->lock_addr = le64_to_cpu(d->lock_addr);
	s->scratch_addr = le64_to_cpu(d->scratch_addr);
	s->slots_addr = le64_to_cpu(d->slots_addr);
	s->orphans_addr = le64_to_cpu(d->orphans_addr);
	s->orphan_blocks = le32_to_cpu(d->orphan_blocks);
	s->ag_count = le32_to_cpu(d->ag_count);
	s->journals_addr = le64_to_cpu(d->journals_addr);
	s->journal_size = le64_to_cpu(d->journal_size);
	s->ag_addr = le64_to_cpu(d->ag_addr);
	s->ag_size = le64_to_cpu(d->ag_size);
	s->root = le64_to_cpu(d->root);
	s->copy_addr = le64_to_cpu(d->copy_addr);
	memcpy(s->hash_key, d->hash_key, 16);
	memcpy(s->machine_id, d->machine_id, 16);
	memcpy(s->identity, d->identity, sizeof(s->identity) - 1);
	s->created = le64_to_cpu(d->created);
}

/* One range check: what is wrong, or NULL. */
static const char *check_numbers(const struct super *s)
{
	const struct lockd_timing *t = &s->timing;

	if (s->size < VOLUME_SIZE_MIN || s->size > 1ULL << 60 || s->size % BLOCK_SIZE)
		return "size is out of range";
	if (s->sector != 512 && s->sector != 4096)
		return "sector size is neither 512 nor 4096";
	if (s->caw < BLK_CAW_LOCAL || s->caw > BLK_CAW_SIM)
		return "the compare-and-write primitive is unknown";
	if (t->beat_ms < 10 || t->beat_ms > 60000)
		return "the heartbeat interval is not within 10 ms to 60 s";
	if (t->lease_ms < 2 * t->beat_ms || t->lease_ms > 600000)
		return "the lease is not within twice the heartbeat interval to 10 minutes";
	if (t->margin_ms < t->lease_ms / 20 || t->margin_ms < 1 || t->margin_ms > 600000)
		return "the margin is not within a twentieth of the lease to 10 minutes";
	if (s->slot_count < 1 || s->slot_count > SLOT_COUNT_MAX)
		return "the number of host slots is not within 1 to 96";
	if (s->orphan_blocks != ORPHAN_BLOCKS)
		return "the orphan lists have an unknown size";
	if (s->journal_size < JOURNAL_SIZE_MIN || s->journal_size > GIB ||
	    s->journal_size % BLOCK_SIZE)
		return "the journal size is not within 512 KiB to 1 GiB";
	if (s->ag_count < 1 || s->ag_count > AG_COUNT_MAX)
		return "the number of allocation groups is not within 1 to 4096";
	if (s->ag_size < AG_SIZE_MIN || (s->ag_size & (s->ag_size - 1)) ||
	    s->ag_size > AG_SIZE_MAX)
		return "the allocation group size is not a power of two from 1 GiB to 64 GiB";
	return NULL;
}

/* The regions follow one another in a fixed order, without overlap. */
static const char *check_regions(const struct super *s)
{
	const uint64_t slots = s->slot_count;
	const uint64_t bounds[][2] = {
		{ SUPER_ADDR, BLOCK_SIZE },
		{ s->lock_addr, BLOCK_SIZE },
		{ s->scratch_addr, 2 * BLOCK_SIZE },
		{ s->slots_addr, slots * BLOCK_SIZE },
		{ s->orphans_addr, slots * s->orphan_blocks * BLOCK_SIZE },
		{ s->journals_addr, slots * s->journal_size },
		{ s->ag_addr, 0 },
	};
	uint64_t end = SUPER_ADDR;

	for (size_t i = 0; i < ARRAY_SIZE(bounds); i++) {
		if (bounds[i][0] < end || bounds[i][0] % BLOCK_SIZE ||
		    bounds[i][0] > s->size / 2)
			return "the regions overlap, are misaligned or fill half of the volume";
		end = bounds[i][0] + bounds[i][1];
	}
	return NULL;
}

/* In the middle when the volume was made; where that was when it has grown since. */
static bool copy_is_placed(const struct super *s)
{
	uint32_t ag;

	return s->copy_addr % BLOCK_SIZE == 0 &&
	       s->copy_addr <= super_copy_candidate(s->size, SUPER_CANDIDATES - 1) &&
	       !super_ag_of(s, s->copy_addr, &ag) &&
	       (s->copy_addr - super_ag_addr(s, ag)) >> BLOCK_SHIFT >=
	       super_ag_meta(s) + FIRST_CLUSTER_BLOCKS;
}

static const char *check_groups(const struct super *s)
{
	uint64_t number = inode_id_number(s->root);
	uint32_t ag, block;

	if (s->ag_addr % MIB)
		return "group 0 is not aligned to 1 MiB";
	if (s->ag_count != super_groups_fitting(s))
		return "the allocation groups do not fit the volume";
	if (!copy_is_placed(s))
		return "the copy in the middle is where it cannot be";
	if (number > s->size >> BLOCK_SHIFT ||
	    super_ag_of(s, number << BLOCK_SHIFT, &ag))
		return "the root directory lies outside the allocation groups";
	block = (uint32_t)(((number << BLOCK_SHIFT) - super_ag_addr(s, ag)) >> BLOCK_SHIFT);
	if (block < super_ag_meta(s))
		return "the root directory lies in a group's own metadata";
	return NULL;
}

static const char *check_text(const struct super_disk *d, const struct super *s)
{
	if (d->label[LABEL_MAX] != 0)
		return "the label is not terminated";
	if (d->identity[sizeof(d->identity) - 1] != 0)
		return "the device identity is not terminated";
	if (le32_to_cpu(d->extent_count) != 1 || le64_to_cpu(d->extents[0].start) != 0 ||
	    le64_to_cpu(d->extents[0].length) != s->size)
		return "the extent table is not one extent of the volume's size";
	return NULL;
}

int super_decode(const void *block, uint64_t addr, struct super *s, char *why, size_t why_size)
{
	const struct super_disk *d = block;
	struct meta_expect e = { META_SUPER, NULL, addr, 0, 0 };
	const char *bad;
	struct super got;
	int err;

	err = meta_verify(block, &e, why, why_size);
	if (err)
		return err;
	if (le32_to_cpu(d->format_version) != FORMAT_VERSION)
		return text_refuse(-EPROTONOSUPPORT, why, why_size,
			      "superblock at 0x%llx: format version %u, this program knows "
			      "version %u: use a newer one", (unsigned long long)addr,
			      le32_to_cpu(d->format_version), FORMAT_VERSION);
	if (le64_to_cpu(d->incompat) & ~(uint64_t)INCOMPAT_KNOWN)
		return text_refuse(-EPROTONOSUPPORT, why, why_size,
			      "superblock at 0x%llx: unknown incompatible features 0x%llx: use "
			      "a newer version", (unsigned long long)addr,
			      (unsigned long long)le64_to_cpu(d->incompat));
	decode_fields(d, &got);
	bad = le32_to_cpu(d->block_size) != BLOCK_SIZE ? "block size is not 4096" : NULL;
	if (!bad)
		bad = check_numbers(&got);
	if (!bad)
		bad = check_regions(&got);
	if (!bad)
		bad = check_groups(&got);
	if (!bad)
		bad = check_text(d, &got);
	if (bad)
		return text_refuse(-EUCLEAN, why, why_size, "superblock at 0x%llx: %s",
			      (unsigned long long)addr, bad);
	*s = got;
	return 0;
}

/* ---- reading and writing the copies ---- */

static int read_copy(struct blkdev *dev, uint64_t addr, void *block, struct super *s, char *why,
		     size_t why_size)
{
	int err;

	if (addr + BLOCK_SIZE > blkdev_size(dev))
		return text_refuse(-EUCLEAN, why, why_size,
			      "superblock copy at 0x%llx: beyond the end of the device",
			      (unsigned long long)addr);
	err = blkdev_read(dev, addr, block, BLOCK_SIZE);
	if (err)
		return text_refuse(err, why, why_size, "superblock copy at 0x%llx: cannot be read: %s",
			      (unsigned long long)addr, strerror(-err));
	return super_decode(block, addr, s, why, why_size);
}

/* The first copy is gone: the end of the device, then the places in the middle. */
static int read_spare(struct blkdev *dev, void *block, struct super *s)
{
	uint64_t end = ALIGN_DOWN(blkdev_size(dev), (uint64_t)BLOCK_SIZE) - BLOCK_SIZE;

	if (blkdev_size(dev) < VOLUME_SIZE_MIN)
		return -EUCLEAN;
	if (read_copy(dev, end, block, s, NULL, 0) == 0 && super_end_addr(s) == end)
		return 0;
	for (unsigned int i = 0; i < SUPER_CANDIDATES; i++) {
		uint64_t addr = super_copy_candidate(blkdev_size(dev), i);

		if (read_copy(dev, addr, block, s, NULL, 0) == 0 && s->copy_addr == addr)
			return 0;
	}
	return -EUCLEAN;
}

/* A crash within super_write() leaves the copies newer than the first. */
static void read_newer(struct blkdev *dev, void *block, struct super *s)
{
	const uint64_t places[] = { super_end_addr(s), s->copy_addr };
	struct super got;

	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		if (read_copy(dev, places[i], block, &got, NULL, 0) == 0 &&
		    memcmp(got.volume, s->volume, 16) == 0 && got.version > s->version)
			*s = got;
}

const char *super_caw_name(enum blk_caw caw)
{
	switch (caw) {
	case BLK_CAW_LOCAL:	return "local (lock files of one machine)";
	case BLK_CAW_SCSI:	return "SCSI COMPARE AND WRITE";
	case BLK_CAW_SIM:	return "simulated";
	case BLK_CAW_NONE:	break;
	}
	return "none";
}

static int fits_device(const struct blkdev *dev, const struct super *s, char *why,
		       size_t why_size)
{
	char a[24], b[24];

	if (s->size > blkdev_size(dev))
		return text_refuse(-ENOSPC, why, why_size,
			      "%s: the volume has %s, the device only %s: the device shrank; "
			      "give it its size back", dev->info.name,
			      text_format_size(s->size, a, sizeof(a)),
			      text_format_size(blkdev_size(dev), b, sizeof(b)));
	if (s->sector != dev->info.sector)
		return text_refuse(-EMEDIUMTYPE, why, why_size,
			      "%s: the volume was made for %u-byte sectors, the device has %u: "
			      "attach it in the way it was formatted", dev->info.name, s->sector,
			      dev->info.sector);
	if (s->caw != dev->info.caw)
		return text_refuse(-EMEDIUMTYPE, why, why_size,
			      "%s: the volume's hosts use compare-and-write \"%s\", here it is "
			      "\"%s\": attach it in the way the other hosts do", dev->info.name,
			      super_caw_name(s->caw), super_caw_name(dev->info.caw));
	return 0;
}

/* One line for people who named the wrong device, and for those whose volume is damaged. */
static void explain(const struct blkdev *dev, int err, bool absent, char *why, size_t why_size)
{
	char cause[300];

	if (!why || !why_size)
		return;
	if (absent) {
		text_refuse(err, why, why_size, "%s: not a LunFS volume (no superblock at 64 KiB and "
		       "no copy of one); mkfs.lunfs makes one", dev->info.name);
		return;
	}
	snprintf(cause, sizeof(cause), "%s", why);
	snprintf(why, why_size, "%s: %s (%s)", dev->info.name,
		 err == -EPROTONOSUPPORT ? "the volume needs a newer version" :
		 "the superblock cannot be believed, nor a copy of it", cause);
}

int super_find(struct blkdev *dev, struct super *s, char *why, size_t why_size)
{
	void *block = blkdev_alloc(BLOCK_SIZE);
	struct super got;
	bool absent;
	int err;

	if (!block)
		return -ENOMEM;
	if (why && why_size)
		why[0] = 0;
	err = read_copy(dev, SUPER_ADDR, block, &got, why, why_size);
	absent = err == -EUCLEAN && le32_to_cpu(((struct meta_hdr_disk *)block)->magic) != META_SUPER;
	/* A newer format says so in its own words; older copies of it do not help. */
	if (err && err != -EPROTONOSUPPORT && err != -ENOMEM && read_spare(dev, block, &got) == 0)
		err = 0;
	if (!err) {
		read_newer(dev, block, &got);
		*s = got;
	} else {
		explain(dev, err, absent, why, why_size);
	}
	free(block);
	return err;
}

/* Whoever reads the message has many devices. */
static void name_device(const struct blkdev *dev, char *why, size_t why_size)
{
	char bare[512];

	if (!why || !why_size || !why[0] || strstr(why, dev->info.name))
		return;
	snprintf(bare, sizeof(bare), "%s", why);
	snprintf(why, why_size, "%s: %s", dev->info.name, bare);
}

int super_read(struct blkdev *dev, struct super *s, char *why, size_t why_size)
{
	struct super got;
	int err;

	err = super_find(dev, &got, why, why_size);
	if (!err)
		err = fits_device(dev, &got, why, why_size);
	name_device(dev, why, why_size);
	if (!err)
		*s = got;
	return err;
}

int super_is_whole(struct blkdev *dev, const struct super *s)
{
	const uint64_t places[] = { super_end_addr(s), s->copy_addr, SUPER_ADDR };
	void *block = blkdev_alloc(BLOCK_SIZE);
	int whole = 1, err = 0;
	struct super got;

	if (!block)
		return -ENOMEM;
	for (size_t i = 0; i < ARRAY_SIZE(places) && whole; i++) {
		err = read_copy(dev, places[i], block, &got, NULL, 0);
		whole = !err && got.version == s->version && !memcmp(got.volume, s->volume, 16);
	}
	free(block);
	return err && err != -EUCLEAN && err != -EBADMSG && err != -EPROTONOSUPPORT ? err : whole;
}

int super_write(struct blkdev *dev, const struct super *s)
{
	void *block = blkdev_alloc(BLOCK_SIZE);
	const uint64_t places[] = { super_end_addr(s), s->copy_addr, SUPER_ADDR };
	int err = 0;

	if (!block)
		return -ENOMEM;
	for (size_t i = 0; i < ARRAY_SIZE(places) && !err; i++) {
		super_encode(s, places[i], block);
		err = blkdev_write(dev, places[i], block, BLOCK_SIZE);
		if (!err)
			err = blkdev_flush(dev);
	}
	free(block);
	return err;
}
