/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Host slots: one 4 KiB block a host, its proof that it is alive.  FORMAT.md, "Host slot".
 *
 * Everything lies in the first 512 bytes, which only compare-and-write changes; the rest of
 * the block is zeros from mkfs on.
 */
#ifndef LUNFS_LOCKD_SLOT_H
#define LUNFS_LOCKD_SLOT_H

#include "base/meta.h"

#define SLOT_COUNT_MAX		96
#define SLOT_NONE		UINT32_MAX
#define SLOT_WANTS		8	/* locks that a host can wait for publicly at a time */
#define SLOT_DENIALS		4
#define SLOT_GENERATION_LAST	0xfffffff0u	/* a slot at this generation is never used again */
#define SLOT_VERSION_SIZE	12

enum slot_state {
	SLOT_FREE	= 0,	/* its generation is retired: locks naming it are stale (R5) */
	SLOT_LIVE	= 1,
	SLOT_RECOVERING	= 2,	/* by (recoverer, recoverer_generation) */
	SLOT_JOINING	= 3,	/* claimed, own journal being replayed, key being registered */
};

/* "I wait for the lock at addr": the owner of a merely cached lock gives it up. */
struct slot_want_disk {
	le64	addr;		/* 0: unused */
	le32	mode;		/* enum lock_mode */
	le32	stamp;		/* which request: a denial repeats it */
};

/* "I hold the lock at addr for an open, slot X's request is refused." */
struct slot_denial_disk {
	le64	addr;
	le32	slot;
	le32	stamp;
};

struct slot_disk {
	struct meta_hdr_disk hdr;	/*   0  META_SLOT, length 512, owner = slot index */
	uint8_t	host_id[16];		/*  64  machine UUID, the same after a reboot */
	uint8_t	boot_id[16];		/*  80  /proc/sys/kernel/random/boot_id */
	le64	sequence;		/*  96  +1 each change of this block */
	le32	generation;		/* 104  R5: random start, then +1, never back */
	le32	state;			/* 108  enum slot_state */
	le32	recoverer;		/* 112  slot index or SLOT_NONE */
	le32	recoverer_generation;	/* 116 */
	le64	key;			/* 120  persistent reservation key, 0: none */
	le32	pid;			/* 128  the process that does the I/O */
	le32	flags;			/* 132  enum slot_flags */
	le64	pid_start;		/* 136  its start time, /proc/PID/stat field 22 */
	char	host_name[32];		/* 144  UTF-8, NUL-padded, for people only */
	char	software[SLOT_VERSION_SIZE]; /* 176  version, NUL-padded */
	le32	want_stamp;		/* 188  stamp of the newest want */
	struct slot_want_disk wants[SLOT_WANTS];	/* 192 */
	struct slot_denial_disk denials[SLOT_DENIALS];	/* 320 */
	le64	since;			/* 384  realtime ns at which it went live */
	uint8_t	zero[4096 - 392];	/* 392  written as zero, checked as zero up to 512 */
};
static_assert(sizeof(struct slot_disk) == META_BLOCK_SIZE, "a slot fills its block");
static_assert(offsetof(struct slot_disk, sequence) == 96, "FORMAT.md, Host slot");
static_assert(offsetof(struct slot_disk, wants) == 192, "FORMAT.md, Host slot");
static_assert(offsetof(struct slot_disk, zero) <= META_SECTOR_SIZE, "changes stay in one sector");

enum slot_flags {
	SLOT_WATCHDOG	= 1 << 0,	/* something kills this host if it freezes (rung B) */
	SLOT_DRAINED	= 1 << 1,	/* it gave up, and said so after its last command had ended */
};

struct slot_want { uint64_t addr; uint32_t mode; uint32_t stamp; };
struct slot_denial { uint64_t addr; uint32_t slot; uint32_t stamp; };

struct slot {
	uint32_t index;
	uint8_t	host_id[16];
	uint8_t	boot_id[16];
	uint64_t sequence;
	uint32_t generation;
	enum slot_state state;
	uint32_t recoverer;
	uint32_t recoverer_generation;
	uint64_t key;
	uint32_t pid;
	uint32_t flags;
	uint64_t pid_start;
	char	host_name[33];
	char	software[SLOT_VERSION_SIZE + 1];
	uint32_t want_stamp;
	struct slot_want wants[SLOT_WANTS];
	struct slot_denial denials[SLOT_DENIALS];
	uint64_t since;
};

/** slot_encode() - @sector receives META_SECTOR_SIZE bytes, zero-padded to @sector_size. */
void slot_encode(const struct slot *s, const uint8_t volume[16], uint64_t addr, void *sector,
		 uint32_t sector_size);

/**
 * slot_decode() - believes a slot block read from @addr, or not (R6).
 * @why: as in meta_verify().
 * Return: 0; -EUCLEAN, -EBADMSG; *@s is untouched on failure.
 */
int slot_decode(const void *sector, const uint8_t volume[16], uint64_t addr, uint32_t index,
		struct slot *s, char *why, size_t why_size);

/**
 * slot_rebuilt() - a free slot in place of one that cannot be believed, when nobody lives there.
 *
 * Its generation is later than any that the old one can have had (R5: never back): they start
 * below 2^31 and count incarnations, so none gets near 2^31 by itself, and a slot that is rebuilt
 * again gets a later one by the clock.
 */
void slot_rebuilt(struct env *env, uint32_t index, struct slot *s);

/** slot_state_name() - "free", "live", "recovering", "joining". */
const char *slot_state_name(enum slot_state state);

#endif
