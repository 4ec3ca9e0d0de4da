/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything that fs/ keeps on disk.  docs/FORMAT.md is the normative description; slots and
 * lock records are in lockd/slot.h and lockd/lockrec.h, the block header in base/meta.h.
 */
#ifndef LUNFS_FS_FORMAT_H
#define LUNFS_FS_FORMAT_H

#include "block/blkdev.h"
#include "lockd/lockd.h"
#include "lockd/lockrec.h"

#define FORMAT_VERSION		1	/* FORMAT.md, "Later versions" */
#define BLOCK_SIZE		META_BLOCK_SIZE
#define BLOCK_SHIFT		META_BLOCK_SHIFT
#define SUPER_ADDR		(64 * KIB)	/* the first copy; also at size / 2 and at the end */
#define VOLUME_SIZE_MIN		(64 * MIB)
#define LABEL_MAX		63
#define EXTENTS_MAX		16

/* ---- superblock ---- */

enum super_incompat {		/* unknown bits: refuse */
	INCOMPAT_REPAIR	= 1 << 0,	/* claimed for a repair, or left half repaired (fs/claim.h) */
	INCOMPAT_KNOWN	= INCOMPAT_REPAIR,
};
enum super_ro_compat { RO_COMPAT_KNOWN = 0 };	/* unknown bits: read-only */
enum super_compat { COMPAT_KNOWN = 0 };		/* unknown bits: no repair */

struct super_extent_disk {
	uint8_t	device[16];	/* UUID of the LUN; today the volume's own */
	le64	start;		/* volume byte address of the extent */
	le64	length;		/* bytes */
};

struct super_disk {
	struct meta_hdr_disk hdr;	/*    0  META_SUPER, owner 0, addr of this copy */
	le32	format_version;		/*   64 */
	le32	block_size;		/*   68  4096 */
	le64	compat;			/*   72  feature masks */
	le64	ro_compat;		/*   80 */
	le64	incompat;		/*   88 */
	uint8_t	volume_id[16];		/*   96  what people see; hdr.volume changes never */
	char	label[64];		/*  112  UTF-8, NUL-terminated */
	le64	size;			/*  176  bytes of the volume */
	le32	sector;			/*  184  512 or 4096, of the device it was made on */
	le32	caw;			/*  188  enum blk_caw */
	le32	beat_ms;		/*  192 */
	le32	lease_ms;		/*  196 */
	le32	margin_ms;		/*  200 */
	le32	slot_count;		/*  204 */
	le64	lock_addr;		/*  208  the superblock's own lock block */
	le64	scratch_addr;		/*  216  two blocks for the compare-and-write self-test */
	le64	slots_addr;		/*  224 */
	le64	orphans_addr;		/*  232 */
	le32	orphan_blocks;		/*  240  a slot */
	le32	ag_count;		/*  244 */
	le64	journals_addr;		/*  248 */
	le64	journal_size;		/*  256  bytes a slot */
	le64	ag_addr;		/*  264  of group 0 */
	le64	ag_size;		/*  272  bytes, a power of two; the last may be short */
	le64	root;			/*  280  inode id of the root directory */
	le64	copy_addr;		/*  288  of the copy in the middle */
	uint8_t	hash_key[16];		/*  296  SipHash key of directory names */
	uint8_t	machine_id[16];		/*  312  BLK_CAW_LOCAL: the machine whose volume this is */
	char	identity[128];		/*  328  device identity at mkfs or resignature */
	le64	created;		/*  456  realtime ns */
	le32	extent_count;		/*  464  1 today */
	le32	zero0;			/*  468 */
	struct super_extent_disk extents[EXTENTS_MAX];	/* 472 */
	uint8_t	zero[4096 - 472 - 32 * EXTENTS_MAX];
};
static_assert(sizeof(struct super_disk) == BLOCK_SIZE, "the superblock fills its block");
static_assert(offsetof(struct super_disk, size) == 176, "FORMAT.md, Superblock");
static_assert(offsetof(struct super_disk, journals_addr) == 248, "FORMAT.md, Superblock");
static_assert(offsetof(struct super_disk, extents) == 472, "FORMAT.md, Superblock");

struct super {
	uint8_t	volume[16];	/* in every block header */
	uint8_t	volume_id[16];
	uint64_t version;
	uint64_t compat, ro_compat, incompat;
	char	label[LABEL_MAX + 1];
	uint64_t size;
	uint32_t sector;
	enum blk_caw caw;
	struct lockd_timing timing;
	uint32_t slot_count;
	uint64_t lock_addr, scratch_addr, slots_addr, orphans_addr;
	uint32_t orphan_blocks, ag_count;
	uint64_t journals_addr, journal_size;
	uint64_t ag_addr, ag_size;
	uint64_t root, copy_addr;
	uint8_t	hash_key[16], machine_id[16];
	char	identity[128];
	uint64_t created;
};

/* ---- allocation groups ---- */

/*
 * A group: block 0 its lock block, 1 its header, 2… its bitmap blocks, then space.  Numbers
 * in it are block indices relative to the group's start.
 */
#define AG_LOCK_BLOCK	0u
#define AG_HEADER_BLOCK	1u
#define AG_BITMAP_BLOCK	2u
#define AG_COUNT_MAX	4096u
#define AG_SIZE_MIN	GIB
#define AG_SIZE_MAX	(64 * GIB)

#define BITMAP_BYTES	(BLOCK_SIZE - 64)
#define BITMAP_BITS	(BITMAP_BYTES * 8)	/* 32256 blocks, 126 MiB */
#define BITMAPS_MAX	1024	/* groups up to 64 GiB, volumes up to 256 TiB */

struct ag_disk {
	struct meta_hdr_disk hdr;	/*   0  META_AG, owner = AG number */
	le32	blocks;			/*  64  in this group, its own metadata included */
	le32	free_blocks;		/*  68 */
	le32	inodes_free;		/*  72  in initialised clusters */
	le32	inodes_used;		/*  76 */
	le64	itable;			/*  80  block pointer: first index block; 0 none */
	le32	bitmap_count;		/*  88 */
	le32	zero0;			/*  92 */
	uint8_t	bitmap_ready[BITMAPS_MAX / 8];	/* 96  bit set: block is initialised;
						 * unset: all its space is free, contents unknown */
	uint8_t	zero[4096 - 96 - BITMAPS_MAX / 8];
};
static_assert(sizeof(struct ag_disk) == BLOCK_SIZE, "a group header fills its block");
static_assert(offsetof(struct ag_disk, bitmap_ready) == 96, "FORMAT.md, Allocation group");

struct bitmap_disk {
	struct meta_hdr_disk hdr;	/*   0  META_BITMAP, owner = AG number */
	uint8_t	bits[BITMAP_BYTES];	/*  64  bit set: in use; LSB first; bits past the end: set */
};
static_assert(sizeof(struct bitmap_disk) == BLOCK_SIZE, "a bitmap block");

/* An inode cluster: COUNT adjacent inodes of two blocks each.  Once inodes, always inodes. */
#define CLUSTER_INODES	16u
#define CLUSTER_BLOCKS	(CLUSTER_INODES * 2)

struct itable_entry_disk {
	le32	block;		/* first block of the cluster, relative to the group */
	le16	used;		/* bit i: inode i is allocated */
	le16	count;		/* inodes in the cluster, 1…16 */
};

#define ITABLE_ENTRIES	((BLOCK_SIZE - 80) / 8)	/* 502 */

struct itable_disk {
	struct meta_hdr_disk hdr;	/*   0  META_ITABLE, owner = AG number */
	le64	next;			/*  64  block pointer, 0: last */
	le32	count;			/*  72  entries in use, without gaps */
	le32	zero0;
	struct itable_entry_disk entries[ITABLE_ENTRIES];	/* 80 */
};
static_assert(sizeof(struct itable_disk) == BLOCK_SIZE, "an index block");

/* ---- inodes ---- */

/*
 * Inode id: bits 0–39 the block number (address / 4096) of its lock block, bits 40–63 the
 * inode's generation, which is raised each time it is allocated.  The inode proper is the
 * next block.
 */
#define INODE_NUMBER_BITS	40
#define INODE_GENERATION_MASK	0xffffffu

static inline uint64_t inode_id_make(uint64_t number, uint32_t generation)
{
	return (uint64_t)(generation & INODE_GENERATION_MASK) << INODE_NUMBER_BITS | number;
}

static inline uint64_t inode_id_number(uint64_t id)
{
	return id & ((1ULL << INODE_NUMBER_BITS) - 1);
}

static inline uint32_t inode_id_generation(uint64_t id)
{
	return (uint32_t)(id >> INODE_NUMBER_BITS);
}

static inline uint64_t inode_lock_addr(uint64_t id)
{
	return inode_id_number(id) << BLOCK_SHIFT;
}

static inline uint64_t inode_block_addr(uint64_t id)
{
	return inode_lock_addr(id) + BLOCK_SIZE;
}

/* Block pointer: bits 0–47 block number, 48–63 the birth stamp that the block repeats. */
#define BPTR_BLOCK_BITS	48
#define BPTR(block, birth)	((uint64_t)(birth) << BPTR_BLOCK_BITS | (block))

static inline uint64_t bptr_addr(uint64_t p)
{
	return (p & ((1ULL << BPTR_BLOCK_BITS) - 1)) << BLOCK_SHIFT;
}

static inline uint32_t bptr_birth(uint64_t p)
{
	return (uint32_t)(p >> BPTR_BLOCK_BITS);
}

/* Map entry: 256 KiB of a file. */
#define UNIT_BLOCKS	64u
#define UNIT_SIZE	(UNIT_BLOCKS * (uint64_t)BLOCK_SIZE)
#define ENTRY_BLOCK_BITS	48
#define ENTRY_ORDER_SHIFT	48	/* 4 bits: 1 << order blocks are allocated, 0…6 */
#define ENTRY_DETACHED		(1ULL << 60)	/* unset bits read as zeros although a parent exists */

struct map_entry_disk {
	le64	unit;		/* first block number, order, flags; 0: hole */
	le64	valid;		/* bit i: block i of the unit holds data; unset: reads zeros/parent */
};

/*
 * No block that begins at or beyond a file's end is valid.  What the last valid block holds
 * beyond the end is undefined: whoever makes the file longer zeroes it first.
 */

enum inode_flags {
	INODE_INLINE		= 1 << 0,	/* contents (file, symlink, directory) are inline */
	INODE_ORPHAN		= 1 << 1,	/* on its owner's orphan list: unlinked or shrinking */
	INODE_MULTI		= 1 << 2,	/* multi-writer: fully allocated, map frozen (R1) */
	INODE_LINKED		= 1 << 3,	/* parent/name below may not be its only or any name */
	INODE_FROZEN		= 1 << 4,	/* a base of other images: contents never change */
	INODE_CHILDREN		= 1 << 5,	/* the list of an image's children: a directory without name */
	INODE_MERGING		= 1 << 6,	/* frozen, unlinked, moving into its only child */
};

#define INODE_FLAGS_KNOWN	(INODE_INLINE | INODE_ORPHAN | INODE_MULTI | INODE_LINKED | \
				 INODE_FROZEN | INODE_CHILDREN | INODE_MERGING)

#define INLINE_SIZE	3584u
#define INLINE_ENTRIES	(INLINE_SIZE / 16)	/* map entries, or directory node entries: 224 */
#define INLINE_POINTERS	(INLINE_SIZE / 8)	/* block pointers to map nodes or leaves: 448 */
#define NAME_BYTES_MAX	255
#define DEPTH_MAX	3
#define FILE_SIZE_MAX	(1ULL << 60)
#define LINK_COUNT_MAX	65000u
#define XATTR_BYTES_MAX	(BLOCK_SIZE - 72)

struct inode_disk {
	struct meta_hdr_disk hdr;	/*   0  META_INODE, owner = inode number; version = R6, seqlock */
	le32	generation;		/*  64  low 24 bits are in its id */
	le32	mode;			/*  68  S_IFMT and permissions; 0: free */
	le32	uid;			/*  72 */
	le32	gid;			/*  76 */
	le32	nlink;			/*  80 */
	le32	flags;			/*  84  enum inode_flags */
	le64	rdev;			/*  88 */
	le64	size;			/*  96  bytes; directory: of its entries */
	le64	blocks;			/* 104  4 KiB blocks allocated, metadata included */
	le64	atime;			/* 112  ns since 1970, signed */
	le64	mtime;			/* 120 */
	le64	ctime;			/* 128 */
	le64	btime;			/* 136 */
	le64	parent;			/* 144  id of the directory that holds its (newest) name */
	le64	xattr;			/* 152  block pointer, 0: none */
	le64	entries;		/* 160  directory: names in it; else 0 */
	le64	shrink_to;		/* 168  INODE_ORPHAN and nlink > 0: bytes beyond go;
				 * FILE_SIZE_MAX: they are gone */
	le64	image_parent;		/* 176  id of the image that shows where this one has nothing */
	le64	birth_counter;		/* 184  last birth stamp given out */
	le32	depth;			/* 192  levels of blocks below the root: 0…3 */
	le32	root_count;		/* 196  entries in the root area below that are in use */
	le64	image_children;		/* 200  INODE_FROZEN: id of the list of its children */
	le64	image_limit;		/* 208  bytes of the parent that show, whole blocks */
	le32	image_rank;		/* 216  above the parent's: no image is its own ancestor */
	uint8_t	reserved[28];		/* 220  zero; encryption and format fields, later */
	le16	name_len;		/* 248 */
	uint8_t	zero0[6];		/* 250 */
	uint8_t	name[256];		/* 256  not terminated, name_len bytes */
	uint8_t	root[INLINE_SIZE];	/* 512  see FORMAT.md, "Inode, root area" */
};
static_assert(sizeof(struct inode_disk) == BLOCK_SIZE, "an inode fills its block");
static_assert(offsetof(struct inode_disk, parent) == 144, "FORMAT.md, Inode");
static_assert(offsetof(struct inode_disk, depth) == 192, "FORMAT.md, Inode");
static_assert(offsetof(struct inode_disk, image_children) == 200, "FORMAT.md, Inode");
static_assert(offsetof(struct inode_disk, root) == 512, "FORMAT.md, Inode");

/*
 * Root area of a regular file: INODE_INLINE: its bytes; depth 0: map entries by unit index
 * (root_count of them, the rest holes); depth d > 0: block pointers, each covering
 * LEAF_ENTRIES * NODE_POINTERS^(d-1) units.  Fast and long symlinks: as a file.
 */
#define LEAF_ENTRIES	((BLOCK_SIZE - 64) / 16)	/* 252 units, 63 MiB */
#define NODE_POINTERS	((BLOCK_SIZE - 64) / 8)		/* 504 */

struct map_leaf_disk {
	struct meta_hdr_disk hdr;	/* META_MAP_LEAF, owner = inode id, birth */
	struct map_entry_disk entries[LEAF_ENTRIES];
};
static_assert(sizeof(struct map_leaf_disk) == BLOCK_SIZE, "a map leaf");

struct map_node_disk {
	struct meta_hdr_disk hdr;	/* META_MAP_NODE, owner = inode id, birth */
	le64	pointers[NODE_POINTERS];
};
static_assert(sizeof(struct map_node_disk) == BLOCK_SIZE, "a map node");

/* ---- directories ---- */

/*
 * A B+tree by the SipHash of the name, top bit clear.  Inline: packed entries in the root
 * area, sorted by hash, preceded by nothing; root_count is the number of bytes used.  depth
 * d > 0: root_count node entries, sorted, the first with hash 0; they point to nodes of level
 * d - 1, level 0 being leaves.  A child's hashes are at least its entry's and below the next
 * entry's.  A leaf may be empty (count 0); a node never is.  The inode's size is the sum of
 * all entries' bytes, its block count that of leaves, nodes and attribute block.
 */
struct dir_entry_disk {		/* packed, followed by the name */
	le64	id;		/* inode id */
	le64	hash;
	uint8_t	type;		/* DT_REG, DT_DIR, … */
	uint8_t	name_len;	/* 1…255 */
};
static_assert(sizeof(struct dir_entry_disk) == 18, "FORMAT.md, Directory");

#define DIR_LEAF_BYTES	(BLOCK_SIZE - 72)

struct dir_leaf_disk {
	struct meta_hdr_disk hdr;	/*  0  META_DIR_LEAF, owner = inode id, birth */
	le32	used;			/* 64  bytes of entries */
	le32	count;			/* 68  entries */
	uint8_t	entries[DIR_LEAF_BYTES];/* 72 */
};
static_assert(sizeof(struct dir_leaf_disk) == BLOCK_SIZE, "a directory leaf");

struct dir_index_disk {
	le64	hash;		/* first hash below it */
	le64	pointer;	/* block pointer */
};

#define DIR_NODE_ENTRIES	((BLOCK_SIZE - 72) / 16)	/* 251 */

struct dir_node_disk {
	struct meta_hdr_disk hdr;	/*  0  META_DIR_NODE, owner = inode id, birth */
	le32	count;			/* 64 */
	le32	level;			/* 68  1: above leaves */
	struct dir_index_disk entries[DIR_NODE_ENTRIES];	/* 72 */
	uint8_t	zero[8];
};
static_assert(sizeof(struct dir_node_disk) == BLOCK_SIZE, "a directory node");

/* ---- extended attributes: one block an inode ---- */

struct xattr_entry_disk {	/* packed, followed by name and value */
	le16	value_len;
	uint8_t	name_len;	/* full name with its prefix, "user.x" */
	uint8_t	zero;
};

struct xattr_disk {
	struct meta_hdr_disk hdr;	/*  0  META_XATTR, owner = inode id, birth */
	le32	used;			/* 64 */
	le32	count;			/* 68 */
	uint8_t	entries[XATTR_BYTES_MAX];	/* 72 */
};
static_assert(sizeof(struct xattr_disk) == BLOCK_SIZE, "an attribute block");

/* ---- orphan lists: ORPHAN_BLOCKS blocks a slot ---- */

#define ORPHAN_BLOCKS	8u
#define ORPHAN_ENTRIES	((BLOCK_SIZE - 64) / 8)		/* 504 */

struct orphan_disk {
	struct meta_hdr_disk hdr;	/* META_ORPHAN, owner = slot index */
	le64	ids[ORPHAN_ENTRIES];	/* inode ids, 0: unused */
};
static_assert(sizeof(struct orphan_disk) == BLOCK_SIZE, "an orphan block");

/* ---- journals ---- */

/*
 * A slot's journal: blocks 0 and 1 the tail, written alternately; the rest a ring of
 * transactions: descriptor, images, commit record, each a block, sequence +1 each.
 */
#define JOURNAL_TAIL_BLOCKS	2u
#define JOURNAL_SIZE_MIN	(512 * KIB)

struct journal_tail_disk {
	struct meta_hdr_disk hdr;	/*  0  META_TAIL, owner = slot; version = counter, newest wins */
	le64	sequence;		/* 64  of the first transaction that is not at home */
	le64	block;			/* 72  ring index at which it begins */
	uint8_t	zero[4096 - 80];
};
static_assert(sizeof(struct journal_tail_disk) == BLOCK_SIZE, "a journal tail");

struct journal_entry_disk {
	le64	addr;		/* home address of the image */
	le32	crc;		/* CRC32C of its 4096 bytes */
	le32	zero;
};

#define JOURNAL_ENTRIES	((BLOCK_SIZE - 80) / 16)	/* 251 images a transaction */

struct journal_desc_disk {
	struct meta_hdr_disk hdr;	/*  0  META_DESC, owner = slot, version = sequence */
	le64	sequence;		/* 64 */
	le32	count;			/* 72  images that follow */
	le32	generation;		/* 76  of the slot when it was written */
	struct journal_entry_disk entries[JOURNAL_ENTRIES];	/* 80 */
};
static_assert(sizeof(struct journal_desc_disk) == BLOCK_SIZE, "a descriptor");

struct journal_commit_disk {
	struct meta_hdr_disk hdr;	/*  0  META_COMMIT, owner = slot, version = sequence */
	le64	sequence;		/* 64 */
	le32	count;			/* 72 */
	le32	desc_crc;		/* 76  CRC32C of the whole descriptor block: binds the images */
	uint8_t	zero[4096 - 80];
};
static_assert(sizeof(struct journal_commit_disk) == BLOCK_SIZE, "a commit record");

#endif
