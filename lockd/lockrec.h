/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lock records: who may write what.  FORMAT.md, "Lock record".
 *
 * A record is the first 512 bytes of a 4 KiB lock block; only compare-and-write changes it.
 */
#ifndef LUNFS_LOCKD_LOCKREC_H
#define LUNFS_LOCKD_LOCKREC_H

#include "lockd/slot.h"

/*
 * Of what a sound volume can have: records start anywhere in 1 … 2^63 - 1, and a change each microsecond
 * for a hundred thousand years does not reach the end.  So no sequence wraps, and 0 means "not known".
 */
#define LOCK_SEQUENCE_MAX	(3ull << 62)

enum lock_mode {
	LOCK_FREE	= 0,
	LOCK_SHARED	= 1,
	LOCK_EXCLUSIVE	= 2,
	LOCK_MULTI	= 3,	/* several writers, frozen map (R1) */
};

struct lockrec_disk {
	struct meta_hdr_disk hdr;	/*   0  META_LOCK, length 512, owner 0 */
	le64	sequence;		/*  64  +1 each change, random start; LOCK_SEQUENCE_MAX */
	le32	mode;			/*  72  enum lock_mode */
	le32	owner;			/*  76  exclusive: slot; else SLOT_NONE */
	le32	owner_generation;	/*  80  exclusive: never 0; else 0 */
	le32	pid;			/*  84  for people: process that opened it, or 0 */
	le64	since;			/*  88  realtime ns of the last change */
	char	comm[24];		/*  96  for people: process or VM, NUL-padded */
	le32	heir;			/* 120  exclusive: slot that may take it from the owner, or 0 */
	le32	heir_generation;	/* 124  0: nobody */
	le32	sharers[SLOT_COUNT_MAX];/* 128  shared, multi: generation per slot, 0: none */
};
static_assert(sizeof(struct lockrec_disk) == META_SECTOR_SIZE, "a lock record is a sector");
static_assert(offsetof(struct lockrec_disk, heir) == 120, "FORMAT.md, Lock record");
static_assert(offsetof(struct lockrec_disk, sharers) == 128, "FORMAT.md, Lock record");

struct lockrec {
	uint64_t sequence;
	enum lock_mode mode;
	uint32_t owner;
	uint32_t owner_generation;
	uint32_t pid;
	uint64_t since;
	char	comm[25];
	uint32_t heir, heir_generation;	/* generation 0: there is none */
	uint32_t sharers[SLOT_COUNT_MAX];
};

/** lockrec_encode() - @sector receives META_SECTOR_SIZE bytes, zero-padded to @sector_size. */
void lockrec_encode(const struct lockrec *r, const uint8_t volume[16], uint64_t addr,
		    void *sector, uint32_t sector_size);

/** lockrec_decode() - as slot_decode().  A generation of 0 never owns anything. */
int lockrec_decode(const void *sector, const uint8_t volume[16], uint64_t addr,
		   struct lockrec *r, char *why, size_t why_size);

/** lockrec_init() - a free record with a random sequence, for mkfs and new inode clusters. */
void lockrec_init(struct env *env, struct lockrec *r);

/** lock_mode_name() - "free", "shared", "exclusive", "multi-writer". */
const char *lock_mode_name(enum lock_mode mode);

#endif
