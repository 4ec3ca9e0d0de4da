/* SPDX-License-Identifier: Apache-2.0 */
/* A volume made by hand, and one way to damage it for each thing that a check can find. */
#ifndef LUNFS_TESTS_FS_WRECKS_H
#define LUNFS_TESTS_FS_WRECKS_H

#include <dirent.h>
#include <sys/stat.h>

#include "base/crc32c.h"
#include "base/siphash.h"
#include "fs/check.h"
#include "fs/image_list.h"
#include "fs/journal_ring.h"
#include "tests/fs/volume.h"

/*
 * The volume that the tests damage, made by hand so that what is right here depends on
 * FORMAT.md and on no code that is checked elsewhere:
 *
 *	/file	inode 1, 256 KiB in one unit, an attribute block
 *	/sub	inode 2, a directory whose names are in a leaf
 *	/sub/x	inode 3, a map of depth 1, 4 KiB
 *	-	inode 4, unlinked and open: on the orphan list of slot 1
 *	-	inode 5, the list of the children of /file, on which /sub/x stands
 */
#define GENERATION	7u
#define UNIT_REL	64u	/* blocks of group 0, relative to it */
#define LEAF_REL	128u
#define DATA_REL	129u
#define XATTR_REL	130u
#define DIR_REL		131u
#define BLOCKS_USED	(64u + 4u)
#define BIRTH		3u

static uint64_t number_of(const struct volume *v, unsigned int n)
{
	return inode_id_number(v->s.root) + 2 * n;
}

static uint64_t id_of(const struct volume *v, unsigned int n)
{
	return n ? inode_id_make(number_of(v, n), GENERATION) : v->s.root;
}

static uint64_t block_of(const struct volume *v, uint32_t rel)
{
	return (v->s.ag_addr >> BLOCK_SHIFT) + rel;
}

static uint64_t addr_of(const struct volume *v, uint32_t rel)
{
	return block_of(v, rel) << BLOCK_SHIFT;
}

/* Changes a block and seals it again: @code sees it as struct @st *d. */
#define EDIT(v, st, kind, at, of, stamp, ...)					\
	do {									\
		struct st *d = (v)->block;					\
		struct meta_expect e_ = { kind, (v)->s.volume, at, of, stamp };	\
		simdisk_peek((v)->disk, e_.addr, d, BLOCK_SIZE);		\
		__VA_ARGS__;							\
		meta_seal(d, &e_, 2);						\
		simdisk_poke((v)->disk, e_.addr, d, BLOCK_SIZE);		\
	} while (0)

#define INODE(v, n, ...)							\
	EDIT(v, inode_disk, META_INODE, inode_block_addr(number_of(v, n)),	\
	     number_of(v, n), 0, __VA_ARGS__)
#define AG(v, ...)								\
	EDIT(v, ag_disk, META_AG, (v)->s.ag_addr + BLOCK_SIZE, 0, 0, __VA_ARGS__)
#define BITMAP(v, ...)								\
	EDIT(v, bitmap_disk, META_BITMAP, (v)->s.ag_addr + 2 * BLOCK_SIZE, 0, 0, __VA_ARGS__)
#define ITABLE(v, ...)								\
	EDIT(v, itable_disk, META_ITABLE, (number_of(v, 0) - 1) << BLOCK_SHIFT, 0, 0, __VA_ARGS__)
#define MAP_LEAF(v, ...)							\
	EDIT(v, map_leaf_disk, META_MAP_LEAF, addr_of(v, LEAF_REL), id_of(v, 3), BIRTH, __VA_ARGS__)
#define DIR_LEAF(v, ...)							\
	EDIT(v, dir_leaf_disk, META_DIR_LEAF, addr_of(v, DIR_REL), id_of(v, 2), BIRTH, __VA_ARGS__)
#define XATTR(v, ...)								\
	EDIT(v, xattr_disk, META_XATTR, addr_of(v, XATTR_REL), id_of(v, 1), BIRTH, __VA_ARGS__)
#define ORPHAN(v, slot, ...)							\
	EDIT(v, orphan_disk, META_ORPHAN, super_orphan_addr(&(v)->s, slot, 0), slot, 0, __VA_ARGS__)

/* Flips one byte without sealing: a checksum that is wrong. */
static void spoil(struct volume *v, uint64_t addr)
{
	uint8_t byte;

	simdisk_peek(v->disk, addr + 300, &byte, 1);
	byte ^= 0x55;
	simdisk_poke(v->disk, addr + 300, &byte, 1);
}

/* ---- making it ---- */

static uint64_t hash_of(const struct volume *v, const char *name)
{
	return siphash24(v->s.hash_key, name, strlen(name)) & ~(1ULL << 63);
}

/* Appends an entry; returns the bytes in use afterwards. */
static uint32_t put_entry(const struct volume *v, uint8_t *bytes, uint32_t used,
			  const char *name, uint64_t id, uint8_t type)
{
	struct dir_entry_disk e = { cpu_to_le64(id), cpu_to_le64(hash_of(v, name)), type,
				    (uint8_t)strlen(name) };

	memcpy(bytes + used, &e, sizeof(e));
	memcpy(bytes + used + sizeof(e), name, strlen(name));
	return used + (uint32_t)(sizeof(e) + strlen(name));
}

static void fill_inode(struct inode_disk *d, uint32_t mode, uint32_t nlink, uint32_t flags,
		       uint64_t parent, const char *name)
{
	d->generation = cpu_to_le32(GENERATION);
	d->mode = cpu_to_le32(mode);
	d->nlink = cpu_to_le32(nlink);
	d->flags = cpu_to_le32(flags);
	d->parent = cpu_to_le64(parent);
	d->name_len = cpu_to_le16((uint16_t)strlen(name));
	memcpy(d->name, name, strlen(name));
}

static struct map_entry_disk *entry_of(void *d)
{
	return (void *)((struct inode_disk *)d)->root;
}

static void make_root(struct volume *v)
{
	bool file_first = hash_of(v, "file") < hash_of(v, "sub");

	INODE(v, 0, {
		uint32_t used = 0;

		for (int i = 0; i < 2; i++)
			if ((i == 0) == file_first)
				used = put_entry(v, d->root, used, "file", id_of(v, 1), DT_REG);
			else
				used = put_entry(v, d->root, used, "sub", id_of(v, 2), DT_DIR);
		d->root_count = cpu_to_le32(used);
		d->size = cpu_to_le64(used);
		d->entries = cpu_to_le64(2);
		d->nlink = cpu_to_le32(3);
	});
}

static void make_files(struct volume *v)
{
	INODE(v, 1, {
		fill_inode(d, S_IFREG | 0644, 1, 0, id_of(v, 0), "file");
		d->size = cpu_to_le64(UNIT_SIZE);
		d->blocks = cpu_to_le64(UNIT_BLOCKS + 1);
		d->xattr = cpu_to_le64(BPTR(block_of(v, XATTR_REL), BIRTH));
		d->root_count = cpu_to_le32(1);
		entry_of(d)->unit = cpu_to_le64(6ULL << ENTRY_ORDER_SHIFT | block_of(v, UNIT_REL));
		entry_of(d)->valid = cpu_to_le64(UINT64_MAX);
	});
	INODE(v, 3, {
		fill_inode(d, S_IFREG | 0644, 1, 0, id_of(v, 2), "x");
		d->size = cpu_to_le64(BLOCK_SIZE);
		d->blocks = cpu_to_le64(2);
		d->depth = cpu_to_le32(1);
		d->root_count = cpu_to_le32(1);
		((le64 *)(void *)d->root)[0] = cpu_to_le64(BPTR(block_of(v, LEAF_REL), BIRTH));
	});
	INODE(v, 4, fill_inode(d, S_IFREG | 0644, 0, INODE_INLINE | INODE_ORPHAN, id_of(v, 0),
			       "gone"));
	MAP_LEAF(v, {
		memset(d, 0, sizeof(*d));
		d->entries[0].unit = cpu_to_le64(block_of(v, DATA_REL));
		d->entries[0].valid = cpu_to_le64(1);
	});
	XATTR(v, {
		memset(d, 0, sizeof(*d));
		memcpy(d->entries, "\x01\x00\x06\x00user.av", 11);
		d->used = cpu_to_le32(11);
		d->count = cpu_to_le32(1);
	});
	ORPHAN(v, 1, d->ids[5] = cpu_to_le64(id_of(v, 4)));
}

static void make_sub(struct volume *v)
{
	INODE(v, 2, {
		struct dir_index_disk *index = (void *)d->root;

		fill_inode(d, S_IFDIR | 0755, 2, 0, id_of(v, 0), "sub");
		d->size = cpu_to_le64(19);
		d->blocks = cpu_to_le64(1);
		d->entries = cpu_to_le64(1);
		d->depth = cpu_to_le32(1);
		d->root_count = cpu_to_le32(1);
		index->pointer = cpu_to_le64(BPTR(block_of(v, DIR_REL), BIRTH));
	});
	DIR_LEAF(v, {
		memset(d, 0, sizeof(*d));
		d->used = cpu_to_le32(put_entry(v, d->entries, 0, "x", id_of(v, 3), DT_REG));
		d->count = cpu_to_le32(1);
	});
}

static void make_images(struct volume *v)
{
	char name[IMAGE_LIST_NAME];

	image_list_name(id_of(v, 3), name);
	INODE(v, 1, {
		d->flags = cpu_to_le32(le32_to_cpu(d->flags) | INODE_FROZEN);
		d->image_children = cpu_to_le64(id_of(v, 5));
	});
	INODE(v, 3, {
		d->image_parent = cpu_to_le64(id_of(v, 1));
		d->image_limit = cpu_to_le64(BLOCK_SIZE);
		d->image_rank = cpu_to_le32(1);
	});
	INODE(v, 5, {
		uint32_t used = put_entry(v, d->root, 0, name, id_of(v, 3), DT_REG);

		fill_inode(d, S_IFDIR | 0700, 2, INODE_INLINE | INODE_CHILDREN, id_of(v, 1), "");
		d->root_count = cpu_to_le32(used);
		d->size = cpu_to_le64(used);
		d->entries = cpu_to_le64(1);
	});
}

static void make_volume(struct volume *v)
{
	CU_ASSERT_EQUAL_FATAL(volume_format(v), 0);
	make_root(v);
	make_files(v);
	make_sub(v);
	make_images(v);
	ITABLE(v, d->entries[0].used = cpu_to_le16(0x3f));
	BITMAP(v, for (uint32_t i = UNIT_REL; i < UNIT_REL + BLOCKS_USED; i++)
		d->bits[i / 8] |= (uint8_t)(1u << i % 8));
	AG(v, {
		d->free_blocks = cpu_to_le32(le32_to_cpu(d->free_blocks) - BLOCKS_USED);
		d->inodes_used = cpu_to_le32(6);
		d->inodes_free = cpu_to_le32(10);
	});
}

/* A committed transaction of one image in @slot's journal that nobody has written home. */
static void journal_put(struct volume *v, uint32_t slot, uint64_t addr, const void *image)
{
	struct journal_desc_disk *desc = blkdev_alloc(BLOCK_SIZE);
	struct journal_commit_disk *commit = blkdev_alloc(BLOCK_SIZE);
	struct ring r;

	ring_init(&r, v->dev, &v->s, slot);
	CU_ASSERT_EQUAL_FATAL(ring_read_tail(&r, v->why, sizeof(v->why)), 0);
	desc->sequence = cpu_to_le64(r.sequence);
	desc->count = cpu_to_le32(1);
	desc->generation = cpu_to_le32(1);
	desc->entries[0].addr = cpu_to_le64(addr);
	desc->entries[0].crc = cpu_to_le32(crc32c(0, image, BLOCK_SIZE));
	ring_seal(&r, META_DESC, r.block, r.sequence, desc);
	commit->sequence = cpu_to_le64(r.sequence);
	commit->count = cpu_to_le32(1);
	commit->desc_crc = cpu_to_le32(crc32c(0, desc, BLOCK_SIZE));
	ring_seal(&r, META_COMMIT, r.block + 2, r.sequence, commit);
	simdisk_poke(v->disk, ring_addr(&r, r.block), desc, BLOCK_SIZE);
	simdisk_poke(v->disk, ring_addr(&r, r.block + 1), image, BLOCK_SIZE);
	simdisk_poke(v->disk, ring_addr(&r, r.block + 2), commit, BLOCK_SIZE);
	free(desc);
	free(commit);
}

/* ---- one case of damage for each code ---- */

static void d_unreadable(struct volume *v)
{
	struct simdisk_rule rule = { .fault = SIMDISK_FAIL, .ops = 1u << BLK_READ,
				     .off = addr_of(v, LEAF_REL), .len = BLOCK_SIZE };

	simdisk_inject(v->disk, &rule);
}

/* Something to repair, which the device does not take; everything can be read. */
static void d_unwritable(struct volume *v)
{
	struct simdisk_rule rule = { .fault = SIMDISK_FAIL, .ops = 1u << BLK_WRITE,
				     .off = v->s.ag_addr + 2 * BLOCK_SIZE, .len = BLOCK_SIZE };

	BITMAP(v, d->bits[300] |= 4);
	simdisk_inject(v->disk, &rule);
}

static void d_super_damaged(struct volume *v)
{
	spoil(v, v->s.copy_addr);
}

static void d_super_old(struct volume *v)
{
	v->s.version = 0;
	super_encode(&v->s, v->s.copy_addr, v->block);
	simdisk_poke(v->disk, v->s.copy_addr, v->block, BLOCK_SIZE);
}

static void d_super_differs(struct volume *v)
{
	v->s.volume[3] ^= 1;
	super_encode(&v->s, v->s.copy_addr, v->block);
	simdisk_poke(v->disk, v->s.copy_addr, v->block, BLOCK_SIZE);
	v->s.volume[3] ^= 1;
}

/* A group that has not been given what the superblock gives it: the header says less. */
static void d_ag_short(struct volume *v)
{
	uint64_t addr = super_ag_addr(&v->s, v->s.ag_count - 1) + AG_HEADER_BLOCK * BLOCK_SIZE;
	struct meta_expect e = { META_AG, v->s.volume, addr, v->s.ag_count - 1, 0 };
	struct ag_disk *d = (void *)v->block;
	uint32_t blocks, index;
	bool ready;

	simdisk_peek(v->disk, addr, d, BLOCK_SIZE);
	blocks = le32_to_cpu(d->blocks) - 100;
	index = blocks / BITMAP_BITS;
	CU_ASSERT_EQUAL_FATAL((blocks + 99) / BITMAP_BITS, index);
	ready = d->bitmap_ready[index / 8] & 1u << index % 8;
	d->blocks = cpu_to_le32(blocks);
	d->free_blocks = cpu_to_le32(le32_to_cpu(d->free_blocks) - 100);
	meta_seal(d, &e, 99);
	simdisk_poke(v->disk, addr, d, BLOCK_SIZE);
	if (!ready)
		return;
	addr += (1 + index) * BLOCK_SIZE;
	simdisk_peek(v->disk, addr, v->block, BLOCK_SIZE);
	for (uint32_t bit = blocks % BITMAP_BITS, n = 0; n < 100; bit++, n++)
		((struct bitmap_disk *)v->block)->bits[bit / 8] |= (uint8_t)(1u << bit % 8);
	e = (struct meta_expect){ META_BITMAP, v->s.volume, addr, v->s.ag_count - 1, 0 };
	meta_seal(v->block, &e, 99);
	simdisk_poke(v->disk, addr, v->block, BLOCK_SIZE);
}

static void d_super_repair(struct volume *v)
{
	const uint64_t places[] = { SUPER_ADDR, v->s.copy_addr, super_end_addr(&v->s) };

	v->s.incompat |= INCOMPAT_REPAIR;
	for (unsigned int i = 0; i < ARRAY_SIZE(places); i++) {
		super_encode(&v->s, places[i], v->block);
		simdisk_poke(v->disk, places[i], v->block, BLOCK_SIZE);
	}
}

static void put_slot(struct volume *v, uint32_t i, enum slot_state state, uint32_t generation,
		     uint32_t recoverer)
{
	uint64_t addr = v->s.slots_addr + i * BLOCK_SIZE;
	struct slot slot;

	simdisk_peek(v->disk, addr, v->block, BLOCK_SIZE);
	CU_ASSERT_EQUAL_FATAL(slot_decode(v->block, v->s.volume, addr, i, &slot, NULL, 0), 0);
	slot.state = state;
	slot.generation = generation;
	slot.recoverer = recoverer;
	slot.recoverer_generation = recoverer == SLOT_NONE ? 0 : 1;
	slot.sequence++;
	slot_encode(&slot, v->s.volume, addr, v->block, v->s.sector);
	simdisk_poke(v->disk, addr, v->block, v->s.sector);
}

static void d_slot_damaged(struct volume *v) { spoil(v, v->s.slots_addr); }
static void d_slot_recoverer(struct volume *v) { put_slot(v, 0, SLOT_RECOVERING, 5, 50); }
static void d_slot_used_up(struct volume *v)
{
	put_slot(v, 0, SLOT_FREE, SLOT_GENERATION_LAST, SLOT_NONE);
}

static void put_lockrec(struct volume *v, unsigned int n, const struct lockrec *r)
{
	uint64_t addr = inode_lock_addr(number_of(v, n));

	lockrec_encode(r, v->s.volume, addr, v->block, v->s.sector);
	simdisk_poke(v->disk, addr, v->block, v->s.sector);
}

static void put_lock(struct volume *v, unsigned int n, enum lock_mode mode, uint32_t owner,
		     uint32_t generation)
{
	struct lockrec r;

	lockrec_init(v->host, &r);
	r.mode = mode;
	r.owner = owner;
	r.owner_generation = generation;
	put_lockrec(v, n, &r);
}

static void d_lock_damaged(struct volume *v) { spoil(v, v->s.ag_addr); }
static void d_lock_holder(struct volume *v) { put_lock(v, 1, LOCK_EXCLUSIVE, 60, 1); }
static void d_lock_nobody(struct volume *v) { put_lock(v, 1, LOCK_SHARED, SLOT_NONE, 0); }
static void d_lock_future(struct volume *v)
{
	put_lock(v, 1, LOCK_EXCLUSIVE, 1, UINT32_MAX - 1);
}

static void d_lock_heir(struct volume *v)
{
	struct lockrec r = { .sequence = 99, .mode = LOCK_EXCLUSIVE, .owner = 1, .owner_generation = 1,
			     .heir = 60, .heir_generation = 1 };

	put_lockrec(v, 1, &r);
}
static void d_lock_heir_future(struct volume *v)
{
	struct lockrec r = { .sequence = 99, .mode = LOCK_EXCLUSIVE, .owner = 1, .owner_generation = 1,
			     .heir = 2, .heir_generation = UINT32_MAX - 1 };

	put_lockrec(v, 1, &r);
}
static void d_lock_sequence(struct volume *v)
{
	struct lockrec r = { .sequence = UINT64_MAX, .owner = SLOT_NONE };

	put_lockrec(v, 1, &r);
}
static void d_lock_rest(struct volume *v)
{
	uint64_t addr = inode_lock_addr(number_of(v, 1));

	simdisk_peek(v->disk, addr, v->block, BLOCK_SIZE);
	((uint8_t *)v->block)[BLOCK_SIZE - 1] = 1;
	simdisk_poke(v->disk, addr, v->block, BLOCK_SIZE);
}

static void d_journal_damaged(struct volume *v)
{
	spoil(v, super_journal_addr(&v->s, 2));
	spoil(v, super_journal_addr(&v->s, 2) + BLOCK_SIZE);
}

static void d_journal_target(struct volume *v)
{
	simdisk_peek(v->disk, v->s.copy_addr, v->block, BLOCK_SIZE);
	journal_put(v, 0, v->s.copy_addr, v->block);
}

static void d_journal_twice(struct volume *v)
{
	uint64_t addr = inode_block_addr(number_of(v, 1));

	simdisk_peek(v->disk, addr, v->block, BLOCK_SIZE);
	journal_put(v, 0, addr, v->block);
	journal_put(v, 1, addr, v->block);
}

/* What is at home is torn; the journal has it whole. */
static void d_journal_replay(struct volume *v)
{
	uint64_t addr = inode_block_addr(number_of(v, 1));

	simdisk_peek(v->disk, addr, v->block, BLOCK_SIZE);
	journal_put(v, 0, addr, v->block);
	spoil(v, addr);
}

static void d_map_damaged(struct volume *v) { spoil(v, addr_of(v, LEAF_REL)); }
static void d_map_pointer(struct volume *v)
{
	INODE(v, 3, ((le64 *)(void *)d->root)[0] = cpu_to_le64(BPTR(1, BIRTH)));
}
static void d_map_valid(struct volume *v)
{
	MAP_LEAF(v, d->entries[0].valid = cpu_to_le64(3));
}
static void d_map_reserved(struct volume *v)
{
	INODE(v, 1, entry_of(d)->unit.b[7] |= 0x80);
}
static void d_map_small(struct volume *v)	/* only the first unit may have less than 64 blocks */
{
	INODE(v, 1, {
		entry_of(d)[1].unit = cpu_to_le64(block_of(v, DATA_REL) + 1);
		d->root_count = cpu_to_le32(2);
	});
}
static void d_map_outside(struct volume *v)
{
	INODE(v, 1, entry_of(d)->unit = cpu_to_le64(6ULL << ENTRY_ORDER_SHIFT | 1ULL << 40));
}
static void d_map_past_end(struct volume *v)
{
	INODE(v, 1, d->size = cpu_to_le64(UNIT_SIZE - BLOCK_SIZE));
}
static void d_inode_damaged(struct volume *v) { spoil(v, inode_block_addr(number_of(v, 1))); }
static void d_inode_invalid(struct volume *v) { INODE(v, 1, d->depth = cpu_to_le32(9)); }
static void d_dir_not_inline(struct volume *v)	/* names would be added that nobody finds */
{
	INODE(v, 0, d->flags = cpu_to_le32(0));
}
/* Several writers of a file whose contents lie in its inode. */
static void d_multi_inline(struct volume *v)
{
	INODE(v, 4, d->flags = cpu_to_le32(INODE_INLINE | INODE_ORPHAN | INODE_MULTI));
}
/* /sub is deleted, with what is in it. */
static void d_dir_unlinked(struct volume *v)
{
	INODE(v, 0, {
		memset(d->root, 0, sizeof(d->root));
		d->root_count = cpu_to_le32(put_entry(v, d->root, 0, "file", id_of(v, 1), DT_REG));
		d->size = cpu_to_le64(le32_to_cpu(d->root_count));
		d->entries = cpu_to_le64(1);
		d->nlink = cpu_to_le32(2);
	});
	INODE(v, 2, {
		d->flags = cpu_to_le32(INODE_ORPHAN);
		d->nlink = cpu_to_le32(0);
	});
}
static void d_inode_mask(struct volume *v)
{
	ITABLE(v, d->entries[0].used = cpu_to_le16(0x7f));
}
static void d_inode_blocks(struct volume *v) { INODE(v, 1, d->blocks = cpu_to_le64(64)); }
static void d_inode_size(struct volume *v) { INODE(v, 0, d->entries = cpu_to_le64(3)); }
static void d_inode_links(struct volume *v) { INODE(v, 0, d->nlink = cpu_to_le32(2)); }
static void d_inode_no_name(struct volume *v)
{
	INODE(v, 4, d->flags = cpu_to_le32(INODE_INLINE));
	ORPHAN(v, 1, d->ids[5] = cpu_to_le64(0));
}
static void d_name_back(struct volume *v) { INODE(v, 3, d->name[0] = 'y'); }
static void d_not_marked(struct volume *v)	/* two names, and no INODE_LINKED */
{
	INODE(v, 0, {
		uint32_t used = le32_to_cpu(d->root_count);

		used = put_entry(v, d->root, used, "other", id_of(v, 1), DT_REG);
		d->root_count = cpu_to_le32(used);
		d->size = cpu_to_le64(used);
		d->entries = cpu_to_le64(le64_to_cpu(d->entries) + 1);
	});
	INODE(v, 1, d->nlink = cpu_to_le32(2));
}
static void d_parent_back(struct volume *v) { INODE(v, 3, d->parent = cpu_to_le64(id_of(v, 0))); }
static void d_dir_damaged(struct volume *v) { spoil(v, addr_of(v, DIR_REL)); }
static void d_dir_pointer(struct volume *v)
{
	INODE(v, 2, ((struct dir_index_disk *)(void *)d->root)->pointer = cpu_to_le64(1));
}
static void d_dir_entry(struct volume *v) { DIR_LEAF(v, d->entries[18] = '/'); }
static void d_dir_cut(struct volume *v) { DIR_LEAF(v, d->entries[17] = 200); }
static void d_dir_hash(struct volume *v) { DIR_LEAF(v, d->entries[18] = 'y'); }
static void d_dir_order(struct volume *v)
{
	INODE(v, 2, ((struct dir_index_disk *)(void *)d->root)->hash = cpu_to_le64(1ULL << 62 |
		hash_of(v, "x")));
}
static void d_dir_duplicate(struct volume *v)
{
	DIR_LEAF(v, {
		d->used = cpu_to_le32(put_entry(v, d->entries, 19, "x", id_of(v, 3), DT_REG));
		d->count = cpu_to_le32(2);
	});
}
static void d_dir_target(struct volume *v)
{
	DIR_LEAF(v, ((struct dir_entry_disk *)(void *)d->entries)->id = cpu_to_le64(id_of(v, 9)));
}
static void d_dir_generation(struct volume *v)
{
	DIR_LEAF(v, ((struct dir_entry_disk *)(void *)d->entries)->id =
		 cpu_to_le64(inode_id_make(number_of(v, 3), GENERATION + 1)));
}
static void d_dir_type(struct volume *v) { DIR_LEAF(v, d->entries[16] = DT_LNK); }
static void d_dir_parents(struct volume *v)
{
	DIR_LEAF(v, {
		put_entry(v, d->entries, 0, "x", id_of(v, 2), DT_DIR);
	});
}
/* /sub names itself as its parent, under which it is indeed found; the root lost it. */
static void d_dir_unreachable(struct volume *v)
{
	DIR_LEAF(v, put_entry(v, d->entries, 0, "x", id_of(v, 2), DT_DIR));
	INODE(v, 2, fill_inode(d, S_IFDIR | 0755, 3, 0, id_of(v, 2), "x"); d->name_len =
	      cpu_to_le16(1));
	INODE(v, 0, d->root_count = cpu_to_le32(0));
}
static void d_image_parent(struct volume *v)
{
	INODE(v, 1, d->flags = cpu_to_le32(le32_to_cpu(d->flags) & ~(uint32_t)INODE_FROZEN);
	      d->image_children = cpu_to_le64(0));
}
static void d_image_rank(struct volume *v) { INODE(v, 1, d->image_rank = cpu_to_le32(1)); }
static void d_image_limit(struct volume *v)
{
	INODE(v, 3, d->image_limit = cpu_to_le64(MIB));
}
static void d_image_unlisted(struct volume *v)
{
	INODE(v, 5, d->root_count = cpu_to_le32(0); d->size = cpu_to_le64(0);
	      d->entries = cpu_to_le64(0));
}
static void d_image_no_list(struct volume *v)
{
	INODE(v, 1, d->image_children = cpu_to_le64(id_of(v, 2)));
}
static void d_list_unmarked(struct volume *v)	/* a directory like others, it seems */
{
	INODE(v, 5, d->flags = cpu_to_le32(INODE_INLINE | INODE_ORPHAN));
}
static void d_children_entry(struct volume *v)
{
	INODE(v, 5, ((struct dir_entry_disk *)(void *)d->root)->id = cpu_to_le64(id_of(v, 4)));
}
static void d_children_lost(struct volume *v)
{
	INODE(v, 5, d->parent = cpu_to_le64(id_of(v, 4)));
}
static void mark_as_list(struct volume *v, unsigned int n)
{
	INODE(v, n, d->flags = cpu_to_le32(le32_to_cpu(d->flags) | INODE_CHILDREN | INODE_ORPHAN));
}
static void d_root_as_list(struct volume *v)
{
	mark_as_list(v, 0);
	INODE(v, 0, d->parent = cpu_to_le64(id_of(v, 1)));
}
static void d_dir_as_list(struct volume *v) { mark_as_list(v, 2); }
static void d_list_moved(struct volume *v) { INODE(v, 5, d->parent = cpu_to_le64(id_of(v, 2))); }
static void d_xattr_damaged(struct volume *v) { spoil(v, addr_of(v, XATTR_REL)); }
static void d_xattr_pointer(struct volume *v) { INODE(v, 1, d->xattr = cpu_to_le64(5)); }
static void d_xattr_entry(struct volume *v) { XATTR(v, d->entries[2] = 200); }
static void d_orphan_damaged(struct volume *v) { spoil(v, super_orphan_addr(&v->s, 3, 7)); }
/* Of a generation that its inode has not reached. */
static void d_orphan_target(struct volume *v)
{
	INODE(v, 8, d->generation = cpu_to_le32(GENERATION));
	ORPHAN(v, 1, d->ids[6] = cpu_to_le64(inode_id_make(number_of(v, 8), GENERATION + 1)));
}
/* No inode lies there. */
static void d_orphan_nowhere(struct volume *v)
{
	ORPHAN(v, 1, d->ids[6] = cpu_to_le64(inode_id_make(block_of(v, UNIT_REL), 1)));
}
/* Not on this volume. */
static void d_orphan_outside(struct volume *v)
{
	ORPHAN(v, 1, d->ids[6] = cpu_to_le64(UINT64_MAX));
}
static void d_orphan_void(struct volume *v)
{
	INODE(v, 8, d->generation = cpu_to_le32(GENERATION));
	ORPHAN(v, 1, d->ids[6] = cpu_to_le64(id_of(v, 8)));
}
static void d_orphan_unmarked(struct volume *v)
{
	ORPHAN(v, 1, d->ids[6] = cpu_to_le64(id_of(v, 1)));
}
static void d_orphan_lost(struct volume *v) { ORPHAN(v, 1, d->ids[5] = cpu_to_le64(0)); }
static void d_ag_damaged(struct volume *v) { spoil(v, v->s.ag_addr + BLOCK_SIZE); }
static void d_ag_invalid(struct volume *v) { AG(v, d->blocks = cpu_to_le32(1)); }
/* As of a volume that has grown, but for the free blocks behind it. */
static void d_ag_cut(struct volume *v) { AG(v, d->blocks = cpu_to_le32(UNIT_REL + 400)); }
/* How many bitmap blocks there are follows from the superblock. */
static void d_ag_bitmaps(struct volume *v) { AG(v, d->bitmap_count = cpu_to_le32(BITMAPS_MAX + 1)); }
static void d_ag_no_bitmaps(struct volume *v) { AG(v, d->bitmap_count = cpu_to_le32(0)); }
static void d_ag_free(struct volume *v) { AG(v, d->free_blocks = cpu_to_le32(1)); }
static void d_ag_inodes(struct volume *v) { AG(v, d->inodes_used = cpu_to_le32(1)); }
static void d_bitmap_damaged(struct volume *v) { spoil(v, v->s.ag_addr + 2 * BLOCK_SIZE); }
static void d_bitmap_free(struct volume *v)
{
	BITMAP(v, d->bits[DATA_REL / 8] &= (uint8_t)~(1u << DATA_REL % 8));
}
static void d_bitmap_leak(struct volume *v) { BITMAP(v, d->bits[300] |= 4); }
static void d_block_twice(struct volume *v)
{
	MAP_LEAF(v, d->entries[0].unit = cpu_to_le64(block_of(v, UNIT_REL + 9)));
}
static void d_not_ready(struct volume *v) { AG(v, d->bitmap_ready[0] = 0); }
static void d_itable_damaged(struct volume *v) { spoil(v, (number_of(v, 0) - 1) << BLOCK_SHIFT); }
static void d_itable_pointer(struct volume *v) { AG(v, d->itable = cpu_to_le64(3)); }
static void d_itable_loop(struct volume *v) { ITABLE(v, d->next = cpu_to_le64(number_of(v, 0) - 1)); }
/* Each entry of a map node leads back to the node itself: 504^2 visits if one followed. */
static void d_map_bush(struct volume *v)
{
	uint64_t pointer = BPTR(block_of(v, LEAF_REL), BIRTH);

	INODE(v, 3, {
		d->depth = cpu_to_le32(3);
		((le64 *)(void *)d->root)[0] = cpu_to_le64(pointer);
	});
	EDIT(v, map_node_disk, META_MAP_NODE, addr_of(v, LEAF_REL), id_of(v, 3), BIRTH,
	     for (unsigned int i = 0; i < NODE_POINTERS; i++)
		d->pointers[i] = cpu_to_le64(pointer));
}
/* A directory's attributes where a file has its data. */
static void d_dir_xattr(struct volume *v)
{
	EDIT(v, xattr_disk, META_XATTR, addr_of(v, DATA_REL), id_of(v, 2), BIRTH,
	     memset(d, 0, sizeof(*d)));
	INODE(v, 2, {
		d->xattr = cpu_to_le64(BPTR(block_of(v, DATA_REL), BIRTH));
		d->blocks = cpu_to_le64(2);
	});
}
static void d_itable_entry(struct volume *v)
{
	ITABLE(v, d->entries[0].count = cpu_to_le16(17));
}

static const struct {
	void (*damage)(struct volume *v);
	enum check_code code;
} cases[] = {
	{ d_unreadable, CHECK_UNREADABLE }, { d_unwritable, CHECK_UNWRITABLE },
	{ d_super_damaged, CHECK_SUPER_DAMAGED }, { d_super_differs, CHECK_SUPER_DIFFERS },
	{ d_super_old, CHECK_SUPER_OLD }, { d_ag_short, CHECK_AG_SHORT },
	{ d_super_repair, CHECK_SUPER_REPAIR },
	{ d_slot_damaged, CHECK_SLOT_DAMAGED }, { d_slot_recoverer, CHECK_SLOT_RECOVERER },
	{ d_slot_used_up, CHECK_SLOT_USED_UP }, { d_lock_damaged, CHECK_LOCK_DAMAGED },
	{ d_lock_holder, CHECK_LOCK_HOLDER }, { d_lock_nobody, CHECK_LOCK_HOLDER },
	{ d_lock_future, CHECK_LOCK_FUTURE },
	{ d_lock_heir, CHECK_LOCK_HOLDER }, { d_lock_heir_future, CHECK_LOCK_FUTURE },
	{ d_lock_sequence, CHECK_LOCK_DAMAGED }, { d_lock_rest, CHECK_LOCK_DAMAGED },
	{ d_journal_damaged, CHECK_JOURNAL_DAMAGED },
	{ d_journal_target, CHECK_JOURNAL_TARGET }, { d_journal_twice, CHECK_JOURNAL_TWICE },
	{ d_journal_replay, CHECK_JOURNAL_REPLAY }, { d_map_damaged, CHECK_MAP_DAMAGED },
	{ d_map_pointer, CHECK_MAP_POINTER }, { d_map_valid, CHECK_MAP_VALID },
	{ d_map_reserved, CHECK_MAP_RESERVED }, { d_map_small, CHECK_MAP_RESERVED },
	{ d_map_outside, CHECK_MAP_OUTSIDE }, { d_map_past_end, CHECK_MAP_PAST_END },
	{ d_inode_damaged, CHECK_INODE_DAMAGED },
	{ d_inode_invalid, CHECK_INODE_INVALID },
	{ d_dir_not_inline, CHECK_INODE_INVALID }, { d_dir_unlinked, CHECK_INODE_INVALID },
	{ d_multi_inline, CHECK_INODE_INVALID }, { d_inode_mask, CHECK_INODE_MASK },
	{ d_inode_blocks, CHECK_INODE_BLOCKS }, { d_inode_size, CHECK_INODE_SIZE },
	{ d_inode_links, CHECK_INODE_LINKS }, { d_inode_no_name, CHECK_INODE_NO_NAME },
	{ d_name_back, CHECK_INODE_NAME_BACK }, { d_not_marked, CHECK_INODE_NAME_BACK },
	{ d_parent_back, CHECK_INODE_NAME_BACK },
	{ d_dir_damaged, CHECK_DIR_DAMAGED }, { d_dir_pointer, CHECK_DIR_POINTER },
	{ d_dir_entry, CHECK_DIR_ENTRY }, { d_dir_cut, CHECK_DIR_ENTRY },
	{ d_dir_hash, CHECK_DIR_HASH }, { d_dir_order, CHECK_DIR_ORDER },
	{ d_dir_duplicate, CHECK_DIR_DUPLICATE }, { d_dir_target, CHECK_DIR_TARGET },
	{ d_dir_generation, CHECK_DIR_TARGET }, { d_dir_type, CHECK_DIR_TYPE },
	{ d_dir_parents, CHECK_DIR_PARENTS }, { d_dir_unreachable, CHECK_DIR_UNREACHABLE },
	{ d_xattr_damaged, CHECK_XATTR_DAMAGED }, { d_xattr_pointer, CHECK_XATTR_POINTER },
	{ d_image_parent, CHECK_IMAGE_PARENT }, { d_image_rank, CHECK_IMAGE_RANK },
	{ d_image_limit, CHECK_IMAGE_LIMIT }, { d_image_unlisted, CHECK_IMAGE_UNLISTED },
	{ d_image_no_list, CHECK_IMAGE_NO_LIST }, { d_list_unmarked, CHECK_IMAGE_NO_LIST },
	{ d_children_entry, CHECK_CHILDREN_ENTRY },
	{ d_children_lost, CHECK_CHILDREN_LOST }, { d_root_as_list, CHECK_CHILDREN_LOST },
	{ d_dir_as_list, CHECK_CHILDREN_LOST }, { d_list_moved, CHECK_CHILDREN_LOST },
	{ d_xattr_entry, CHECK_XATTR_ENTRY }, { d_orphan_damaged, CHECK_ORPHAN_DAMAGED },
	{ d_orphan_target, CHECK_ORPHAN_TARGET }, { d_orphan_nowhere, CHECK_ORPHAN_TARGET },
	{ d_orphan_outside, CHECK_ORPHAN_TARGET }, { d_orphan_void, CHECK_ORPHAN_VOID },
	{ d_orphan_unmarked, CHECK_ORPHAN_UNMARKED },
	{ d_orphan_lost, CHECK_ORPHAN_LOST }, { d_ag_damaged, CHECK_AG_DAMAGED },
	{ d_ag_invalid, CHECK_AG_INVALID },
	{ d_ag_bitmaps, CHECK_AG_INVALID }, { d_ag_no_bitmaps, CHECK_AG_INVALID },
	{ d_ag_cut, CHECK_AG_INVALID }, { d_ag_free, CHECK_AG_FREE },
	{ d_ag_inodes, CHECK_AG_INODES }, { d_bitmap_damaged, CHECK_BITMAP_DAMAGED },
	{ d_bitmap_free, CHECK_BITMAP_FREE }, { d_bitmap_leak, CHECK_BITMAP_LEAK },
	{ d_block_twice, CHECK_BLOCK_TWICE }, { d_not_ready, CHECK_BITMAP_NOT_READY },
	{ d_itable_damaged, CHECK_ITABLE_DAMAGED }, { d_itable_damaged, CHECK_INODE_NOT_INDEXED },
	{ d_itable_pointer, CHECK_ITABLE_POINTER },
	{ d_itable_loop, CHECK_BLOCK_TWICE }, { d_map_bush, CHECK_BLOCK_TWICE },
	{ d_dir_xattr, CHECK_BLOCK_TWICE }, { d_itable_entry, CHECK_ITABLE_ENTRY },
};

#endif
