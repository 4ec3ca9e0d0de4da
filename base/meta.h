/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The header that every metadata block of a volume begins with (R6).
 *
 * It says what the block is, which volume, address and owner it belongs to and how new it
 * is; the checksum covers all of that and the contents.  FORMAT.md, "Block header".
 */
#ifndef LUNFS_BASE_META_H
#define LUNFS_BASE_META_H

#include "base/env.h"

#define META_BLOCK_SIZE		4096u
#define META_BLOCK_SHIFT	12
#define META_SECTOR_SIZE	512u	/* lock records and slots: one compare-and-write */

enum meta_type {
	META_SUPER	= 0x53464e4c,	/* "LNFS" */
	META_SLOT	= 0x544c534c,	/* "LSLT" */
	META_LOCK	= 0x4b434c4c,	/* "LLCK" */
	META_TAIL	= 0x4c544a4c,	/* "LJTL" journal tail */
	META_DESC	= 0x43444a4c,	/* "LJDC" journal descriptor */
	META_COMMIT	= 0x4d434a4c,	/* "LJCM" journal commit record */
	META_AG		= 0x5047414c,	/* "LAGP" allocation group header */
	META_BITMAP	= 0x5041424c,	/* "LBAP" */
	META_ITABLE	= 0x4254494c,	/* "LITB" index of inode clusters */
	META_INODE	= 0x444f4e49,	/* "INOD" */
	META_MAP_NODE	= 0x444e4d4c,	/* "LMND" interior map block */
	META_MAP_LEAF	= 0x464c4d4c,	/* "LMLF" */
	META_DIR_NODE	= 0x444e444c,	/* "LDND" interior directory block */
	META_DIR_LEAF	= 0x464c444c,	/* "LDLF" */
	META_XATTR	= 0x5441584c,	/* "LXAT" */
	META_ORPHAN	= 0x4e504f4c,	/* "LOPN" a slot's orphan list */
};

struct meta_hdr_disk {
	le32	magic;		/*  0  enum meta_type */
	le32	crc;		/*  4  CRC32C of the @length bytes, this field as zero */
	le32	length;		/*  8  bytes covered: 512 (slot, lock) or 4096 */
	le32	birth;		/* 12  stamp repeated in the pointer to this block, 16 bits; else 0 */
	uint8_t	volume[16];	/* 16  UUID of the volume's metadata */
	le64	addr;		/* 32  this block's own byte address */
	le64	owner;		/* 40  inode id, AG number, slot; 0 for the superblock */
	le64	version;	/* 48  the owner's version in the transaction that wrote it */
	uint8_t	zero[8];	/* 56  written as zero, checked as zero */
};
static_assert(sizeof(struct meta_hdr_disk) == 64, "FORMAT.md, Block header");
static_assert(offsetof(struct meta_hdr_disk, volume) == 16, "FORMAT.md, Block header");
static_assert(offsetof(struct meta_hdr_disk, version) == 48, "FORMAT.md, Block header");

/* What a block's header must say; meta_verify() compares. */
struct meta_expect {
	enum meta_type	type;
	const uint8_t	*volume;	/* 16 bytes, or NULL where it is not known yet */
	uint64_t	addr;
	uint64_t	owner;
	uint32_t	birth;
};

/** meta_length() - how many bytes of a block of @type the checksum covers. */
uint32_t meta_length(enum meta_type type);

/**
 * meta_seal() - fills in the header of @block as @e says, with @version, and the checksum.
 * @block: at least meta_length() bytes, contents complete.
 */
void meta_seal(void *block, const struct meta_expect *e, uint64_t version);

/**
 * meta_verify() - believes @block or says why not.
 * @why: if not NULL, receives one line naming block, field, expected and found (R6).
 *
 * Return: 0; -EUCLEAN a field differs; -EBADMSG the checksum is wrong.
 */
int meta_verify(const void *block, const struct meta_expect *e, char *why, size_t why_size);

/** meta_version() - the version in a verified block's header. */
uint64_t meta_version(const void *block);

/** meta_type_name() - "inode", "map leaf", …; "unknown" for any other number. */
const char *meta_type_name(uint32_t magic);

#endif
