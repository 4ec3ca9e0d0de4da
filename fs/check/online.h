/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A check while hosts use the volume.
 *
 * First a look at everything, as fsck.lunfs does it on a quiet volume, but for journals: what it
 * finds are *suspicions*, for what is read one after the other need never have been there at one
 * time.  Then each object that raised any is looked at again (relook.c), and a finding counts
 * only if it is proved (prove.c).
 */
#ifndef LUNFS_FS_CHECK_ONLINE_INTERNAL_H
#define LUNFS_FS_CHECK_ONLINE_INTERNAL_H

#include <sys/stat.h>

#include "fs/check/internal.h"
#include "fs/check_online.h"

#define SUBJECT_GROUP	(1ULL << 63)	/* in an owner: a group, not an inode */

/* What a finding is about, and so what is to be looked at again. */
enum online_kind {
	ON_NOTHING,			/* left to a check on a quiet volume */
	ON_SUPER,			/* key: 0 */
	ON_SLOT,			/* slot */
	ON_JOURNAL,			/* slot */
	ON_LOCK,			/* address of the record */
	ON_ORPHANS,			/* address of the block */
	ON_GROUP,			/* group */
	ON_INODE,			/* inode number: its fields, map, attributes, names */
	ON_LINKS,			/* inode number: its names */
	ON_LAYER,			/* inode number: images */
	ON_READ,			/* address */
	ON_BLOCK,			/* block number: who refers to it, and its bit */
};

struct suspicion {
	uint64_t key, addr;		/* of the object; of the block that shows it */
	uint8_t	kind, code;
	uint16_t blocks;		/* of ON_READ */
};

/* Who refers to a block that is suspected to have two owners or none. */
struct online_owner {
	uint64_t block, owner, from;
};

#define RELOOK_READS_MAX	(1u << 18)	/* blocks of a look at one object: 1 GiB */
#define FOUND_MAX	64u		/* findings of one look at one object */

struct online_finding {
	enum check_code code;
	uint64_t addr, inode;
	char text[640];
};

/* All that a look at one object rested on. */
struct evidence {
	uint64_t *addrs;		/* of blocks */
	size_t	count, room;
	uint32_t crc;			/* of places and contents, and of the findings */
};

struct chk_online {
	const struct check_online_params *p;
	struct check_online_result *r;
	struct check_params params;	/* of all looks */
	struct fs *fs;
	bool	shallow, no_claims;
	int	stop;			/* what pace() returned */
	bool	locked;			/* a lock is held: no waiting */

	/* The look at everything. */
	struct suspicion *list;
	size_t	count, room;
	uint32_t blocks;		/* of the read that is about to be reported */
	const struct suspicion *wanted;	/* ON_BLOCK, sorted: owners are being looked for */
	size_t	wanted_count;
	struct online_owner *owners;
	size_t	owner_count, owner_room;

	/* A look at one object; in the struct check made for that. */
	bool	relook, mute;
	const struct check *main;	/* the look at everything */
	struct super super;		/* as it is now */
	const struct suspicion *what;	/* why: @what_count of them, of one object */
	size_t	what_count;
	const struct online_owner *of;	/* ON_BLOCK: its owners */
	size_t	of_count;
	bool	filter;			/* of leaves only those that @only names */
	uint64_t only[FOUND_MAX];
	size_t	only_count;
	uint64_t codes[2];		/* bits: suspected */
	uint64_t target;		/* block whose claims are counted … */
	unsigned int hits;
	char	target_who[64];		/* … and who made the last of them */
	bool	bitmap_lost;
	uint64_t reads;
	uint64_t id;			/* of the inode that was looked at; 0: unknown */
	struct evidence ev;
	struct online_finding found[FOUND_MAX];
	unsigned int found_count;
	struct chk_inode inode;		/* relook_find() */
	struct chk_layer layers[8];	/* relook_layer_find() */
	unsigned int layer_next;
	uint8_t	*blocks_mem;		/* 4 blocks */
};

/* ---- online.c ---- */

enum online_kind online_kind(enum check_code code);
void online_found(struct check *c, enum check_code code, uint64_t addr, const char *text);
/** online_may_read() - before @blocks blocks are read.  Return: 0 or why not. */
int online_may_read(struct check *c, uint64_t addr, uint32_t blocks);
void online_has_read(struct check *c, uint64_t addr, const void *buf, uint32_t blocks);
void online_claim(struct check *c, uint64_t block, uint32_t count, const char *who);

/** online_passes_over() - whether the leaf at @addr need not be looked at (again). */
static inline bool online_passes_over(const struct check *c, uint64_t addr)
{
	if (!c->online || !c->online->filter)
		return false;
	for (size_t i = 0; i < c->online->only_count; i++)
		if (c->online->only[i] == addr)
			return false;
	return true;
}

/** online_counts() - whether all of an object is looked at, so that its counts can be compared. */
static inline bool online_counts(const struct check *c)
{
	return !c->online || !c->online->filter;
}

static inline bool online_suspects(const struct check *c, enum check_code code)
{
	return c->online->codes[code / 64] >> code % 64 & 1;
}

/** online_targets() - whether to follow the names of the leaf, or inode, at @addr. */
static inline bool online_targets(const struct check *c, uint64_t addr)
{
	if (!c->online)
		return true;
	if (!c->online->relook)
		return !c->online->shallow;
	return (online_suspects(c, CHECK_DIR_TARGET) || online_suspects(c, CHECK_DIR_TYPE) ||
		online_suspects(c, CHECK_CHILDREN_ENTRY)) && !online_passes_over(c, addr);
}

/** online_forgets() - whether inode @d (NULL: a damaged one) need not be remembered. */
static inline bool online_forgets(const struct check *c, const struct inode_disk *d)
{
	return c->online && (c->online->shallow || c->online->wanted) &&
	       (!d || !S_ISDIR(le32_to_cpu(d->mode)));
}

/** online_gives_up() - whether @blocks are more than an object of @stated blocks can have: without
 * claims nothing else ends a loop of pointers. */
static inline bool online_gives_up(const struct check *c, uint64_t blocks, uint64_t stated)
{
	return c->online && c->online->no_claims && blocks > stated && blocks - stated > 4096;
}

/* ---- relook.c: one object ---- */

/** relook() - looks at what @c->online->what is about; findings and evidence are in @c->online. */
void relook(struct check *c);
struct chk_inode *relook_find(struct check *c, uint64_t id);
struct chk_layer *relook_layer_find(struct check *c, uint64_t id);

/* ---- prove.c ---- */

/**
 * prove_all() - @list, sorted, of @c's first look: proves and reports, or dismisses.
 * Return: 0; -ENOMEM, what pace() returned.
 */
int prove_all(struct check *c, const struct suspicion *list, size_t count);

#endif
