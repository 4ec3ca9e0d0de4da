/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the check share. */
#ifndef LUNFS_FS_CHECK_INTERNAL_H
#define LUNFS_FS_CHECK_INTERNAL_H

#include "base/table.h"
#include "fs/check.h"
#include "fs/super.h"
#include "lockd/slot.h"

#define CHK_BACK_BITS	60
#define CHK_NUMBER_MASK	((1ULL << INODE_NUMBER_BITS) - 1)
#define CHK_COUNT_MAX	UINT16_MAX

/*
 * What is remembered of each inode in use, from the clusters to the count of its names.  Ten million
 * of them take 240 MB: what a check may have is 512 MiB.  Its number follows from its place.
 */
struct chk_inode {
	/* Beware: an expression of a field is no wider than the field. */
	uint64_t parent : INODE_NUMBER_BITS;	/* as the inode states it: the number */
	uint64_t generation : 64 - INODE_NUMBER_BITS;
	uint64_t back : CHK_BACK_BITS;	/* its name, and the parent's generation: chk_states() */
	uint64_t type : 64 - CHK_BACK_BITS;	/* DT_*, 0: its block is damaged, nothing is known */
	uint16_t nlink;
	uint16_t names;			/* directory entries found, at most CHK_COUNT_MAX */
	uint16_t subdirs;		/* likewise */
	uint16_t flags;			/* enum chk_inode_flags */
};
static_assert(sizeof(struct chk_inode) == 24, "the bound of a check's memory");
static_assert(LINK_COUNT_MAX < CHK_COUNT_MAX, "one too many can be told");

/* An image with a parent or children, or a list of children. */
struct chk_layer {
	uint64_t id;
	uint64_t parent;		/* image; of a list: whose it is */
	uint64_t children;		/* the list of a frozen image */
	uint64_t limit, size;
	uint32_t rank, nlink;
	bool	is_list, frozen;
	bool	listed;			/* in its parent's list */
};

enum chk_inode_flags {
	CHK_LINKED	= 1 << 0,	/* INODE_LINKED */
	CHK_ORPHAN	= 1 << 1,	/* INODE_ORPHAN */
	CHK_LISTED	= 1 << 2,	/* on an orphan list */
	CHK_LED_BACK	= 1 << 3,	/* found under the parent and name that it states */
	CHK_REACHED	= 1 << 4,	/* a path from the root leads to it */
	CHK_ON_PATH	= 1 << 5,	/* links.c, while it looks for loops */
	CHK_CHILDREN	= 1 << 6,	/* INODE_CHILDREN */
	/* What a repair has to do with it. */
	CHK_REBUILD	= 1 << 7,	/* a directory to be written anew from its entries */
	CHK_MAKE_DIR	= 1 << 8,	/* lost, and a directory: names lead to it or below it */
	CHK_RECONNECT	= 1 << 9,	/* needs a name */
	CHK_UNLINK	= 1 << 10,	/* loses the names that it has */
	CHK_RENAME	= 1 << 11,	/* states a name that is not its own */
	CHK_LOST	= 1 << 12,	/* its block is to be given up */
	CHK_RELIST	= 1 << 13,	/* to be put on an orphan list */
	CHK_ONE_NAME	= 1 << 14,	/* a directory that loses all names but one */
};

struct chk_part;

struct chk_group {
	struct chk_part **parts;	/* one a bitmap block: part.c */
	struct chk_part **meta;		/* what of these metadata has; of META_NOTED_MAX, in repairs */
	uint32_t inodes_used, inodes_free;
	uint32_t blocks;		/* as the header says, if that can be */
	uint8_t	ready[BITMAPS_MAX / 8];	/* bitmap blocks that the header calls initialised */
};

/* The newest image of a block in any journal. */
struct chk_image {
	struct table_node node;		/* key: home address */
	uint32_t slot;
	uint8_t	data[BLOCK_SIZE];
};

/* An inode cluster, as its group's index has it. */
struct chk_cluster {
	uint64_t first;			/* block number */
	uint32_t base;			/* of its inodes that are remembered: where they begin */
	uint16_t known;			/* which these are */
	uint16_t used;			/* by the index */
	uint16_t count;
	uint16_t ag;
};
static_assert(sizeof(struct chk_cluster) == 24 && AG_COUNT_MAX <= UINT16_MAX,
	      "the bound of a check's memory");

/* A block that two things refer to; only repairs remember them. */
struct chk_twice {
	struct table_node node;		/* key: block number */
	uint64_t changed_ns;		/* of the owner; UINT64_MAX: it is metadata */
	uint64_t owner;			/* id of the inode that keeps it */
	uint64_t unit;			/* of that inode */
};

/*
 * Where a journal stands.  Metadata at home changes by nothing but journals, and either number only
 * grows: while both stay nothing was committed, and nothing of what the journal holds was left to
 * the next owner of its lock.  What it holds does not tell: it may be empty, be filled, written
 * home and be empty again.
 */
struct chk_journal {
	uint64_t tail;			/* version of the tail; 0: that cannot be believed */
	uint64_t next;			/* sequence of the first transaction that is not in it */
};

struct check {
	const struct check_params *p;
	struct check_result *r;
	const struct super *s;
	struct blkdev *dev;
	struct slot slots[SLOT_COUNT_MAX];
	bool	slot_valid[SLOT_COUNT_MAX];
	unsigned int transactions[SLOT_COUNT_MAX];	/* that a replay would write */
	bool	journal_bad[SLOT_COUNT_MAX];	/* to begin anew, with what it holds gone home */
	struct chk_journal journals[SLOT_COUNT_MAX];	/* where each stood when it was read */
	struct table images;
	uint32_t scanning;		/* slot whose journal is being read */
	struct chk_group *groups;
	struct chk_inode *inodes;	/* in the order of their numbers, as the clusters are */
	size_t	inode_count, inode_room;
	struct chk_inode *root;		/* links.c: what is at the root's place */
	struct chk_layer *layers;	/* sorted by id once all clusters are read */
	size_t	layer_count, layer_room;
	struct chk_cluster *clusters;
	size_t	cluster_count, cluster_room;
	struct chk_cluster *looking;	/* the one that is being looked at */
	struct chk_ahead *ahead;
	uint8_t	*cluster;		/* CLUSTER_BLOCKS blocks, for I/O */
	uint8_t	*levels[DEPTH_MAX + 1];	/* a block for each level of a tree */
	bool	no_memory;			/* ends everything */
	uint64_t subject;		/* number of the inode, group or slot that is being looked at */
	uint64_t from;			/* address of the block that makes the next claim */
	struct chk_online *online;	/* hosts use the volume meanwhile: online.h; NULL: they do not */
	struct fix *fix;		/* NULL: this round only looks */
	/* What chk_report() answered within the last chk_claim() and chk_verify() that failed. */
	bool	twice_repair, verify_repair;
	bool	only_data;		/* within chk_claim_meta(): what was before is no metadata */
	bool	data;			/* within chk_claim(): by the entry of a map */
	bool	later;			/* what chk_report() gets next is left to a later round: fix.h */
	uint64_t meta_noted;		/* blocks that groups[].meta was told of in this round */
};

/* ---- check.c ---- */

/**
 * chk_report() - tells of a finding.
 * Return: whether it is to be repaired, by the caller, now or with a note in c->fix.
 */
bool chk_report(struct check *c, enum check_code code, uint64_t addr, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/** chk_read() - @blocks blocks as they would be after replay; errors are reported. */
int chk_read(struct check *c, uint64_t addr, void *buf, uint32_t blocks);

/** chk_at() - the same without a copy where it was read ahead, else in @buf; may be changed.
 * Return: NULL they cannot be read, which was reported. */
uint8_t *chk_at(struct check *c, uint64_t addr, void *buf, uint32_t blocks);

/** chk_verify() - believes @block or reports @code, naming @who. */
int chk_verify(struct check *c, const void *block, const struct meta_expect *e,
	       enum check_code code, const char *who);

/** chk_block() - both. */
int chk_block(struct check *c, const struct meta_expect *e, void *block, enum check_code code,
	      const char *who);

void chk_progress(struct check *c, const char *phase, uint64_t done, uint64_t total);

/** chk_open() - memory for a look at volume @c->s.  Return: 0, -ENOMEM; chk_close() frees either way. */
int chk_open(struct check *c);
void chk_close(struct check *c);

/* ---- host.c: superblocks, slots, lock records, journals ---- */

void chk_supers(struct check *c);
void chk_slots(struct check *c);
/** chk_slot() - reads one anew.  Return: whether it is believed, and in c->slots. */
bool chk_slot(struct check *c, uint32_t index);
void chk_lock(struct check *c, const void *block, uint64_t addr, const char *who);
int chk_journals(struct check *c);
/** chk_hosts_after() - who lives, who needs replay, and whether anything changed meanwhile. */
void chk_hosts_after(struct check *c, uint64_t began_ns);

/* ---- ahead.c: reading ahead ---- */

enum chk_lane {
	CHK_LANE_MAIN,
	CHK_LANE_FOLLOW,		/* filled by the main lane's follow() */
	CHK_LANE_LEVEL,			/* + level of the node, or depth of the root: its children */
	CHK_LANES = CHK_LANE_LEVEL + DEPTH_MAX + 1,
};

struct chk_place {
	uint64_t addr;
	uint32_t blocks;
};

/* Where a lane has its places from. */
struct chk_source {
	/* Return: false there is none any more. */
	bool (*next)(struct check *c, void *arg, struct chk_place *p);
	void *arg;			/* lives as long as the lane */
	/* Optional, main lane: @data was read, and not verified; chk_ahead_follow() what it points to. */
	void (*follow)(struct check *c, const uint8_t *data, uint32_t blocks);
	bool online;			/* also while hosts use the volume, then without follow() */
};

/** chk_ahead_begin() - the places of @source will be read in this order; notes a want of memory. */
void chk_ahead_begin(struct check *c, enum chk_lane lane, const struct chk_source *source);
/** chk_next_cluster() - a source's: the inode clusters in their order; @arg: size_t, from 0. */
bool chk_next_cluster(struct check *c, void *arg, struct chk_place *p);
/** chk_ahead_end() - nothing of the lane will be read any more. */
void chk_ahead_end(struct check *c, enum chk_lane lane);
void chk_ahead_free(struct check *c);
/** chk_ahead_follow() - the block that @pointer leads to will be read; only from follow(). */
void chk_ahead_follow(struct check *c, uint64_t pointer);
/** chk_ahead_get() - *@data: @blocks blocks from @addr on, good until the lane has gone on by a
 * window; may be changed.  Return: 0; -ENOENT they were not read ahead; -EAGAIN more than
 * these could not be read together, which was reported; -EIO they cannot be read, likewise. */
int chk_ahead_get(struct check *c, uint64_t addr, uint32_t blocks, uint8_t **data);
/** chk_ahead_wrote() - [@addr, +@len) became @data: what was read ahead of it becomes that too. */
void chk_ahead_wrote(struct check *c, uint64_t addr, const void *data, size_t len);

/* ---- part.c: a set of the blocks that one bitmap block describes ---- */

#define PART_WORDS	(BITMAP_BITS / 64)

/** chk_part_word() - 64 of the blocks, from 64 * @w on.  @part: NULL is the empty set. */
uint64_t chk_part_word(const struct chk_part *part, uint32_t w);
/** chk_part_add() - sets the bits of all its blocks in a bitmap block's @bits. */
void chk_part_add(const struct chk_part *part, uint8_t *bits);
/** chk_part_set() - they become @word.  Return: 0, -ENOMEM. */
int chk_part_set(struct chk_part **part, uint32_t w, uint64_t word);
void chk_part_free(struct chk_part *part);

/* ---- space.c: claims and bitmaps ---- */

/** chk_space_ok() - whether a file can have blocks [@block, +@count). */
bool chk_space_ok(struct check *c, uint64_t block, uint64_t count);
/**
 * chk_claim() - they are referred to by @who; each claim but the first is reported.
 * Return: false if one was claimed before: who would read a block then stops, so that no
 * loop or bush of pointers keeps the check busy.
 */
bool chk_claim(struct check *c, uint64_t block, uint32_t count, const char *who);
/** chk_claim_meta() - the same for metadata. */
bool chk_claim_meta(struct check *c, uint64_t block, uint32_t count, const char *who);
/**
 * chk_claim_anyway() - whether a repair leaves metadata @e, whose chk_claim_meta() just failed,
 * to who made that claim: only a file's data was before, and the block is what it should be.
 */
bool chk_claim_anyway(struct check *c, const struct meta_expect *e, void *block);
/**
 * chk_unclaim() - the pointer that claimed @block, first, is struck: what it led to may be
 * another's, whose own pointer comes later and must not be taken for the second.
 */
void chk_unclaim(struct check *c, uint64_t block);
/** chk_claim_quietly() - the same, and nothing is reported. */
bool chk_claim_quietly(struct check *c, uint64_t block, uint32_t count);
/** chk_group_space() - the bitmap blocks of one group, and its count of free blocks. */
void chk_group_space(struct check *c, uint32_t ag);
/** chk_bits_expected() - what bitmap block @index of @ag should say, by the claims so far. */
void chk_bits_expected(struct check *c, uint32_t ag, uint32_t index, uint8_t *bits);
void chk_bitmaps(struct check *c);
void chk_space_free(struct check *c);

/* ---- itable.c: groups' headers, indices, clusters ---- */

void chk_groups(struct check *c);
/** chk_find() - inode @id, or what is at its place and damaged; NULL: there is none. */
struct chk_inode *chk_find(struct check *c, uint64_t id);
/** chk_find_number() - the inode at @number, of whatever generation. */
struct chk_inode *chk_find_number(struct check *c, uint64_t number);

/** chk_first_index() - the block where mkfs puts group 0's first index block: before the root directory. */
static inline uint64_t chk_first_index(const struct check *c)
{
	return inode_id_number(c->s->root) - 1;
}

/** chk_cluster_of() - the cluster that has block @number, or NULL. */
struct chk_cluster *chk_cluster_of(const struct check *c, uint64_t number);
uint64_t chk_number(const struct check *c, const struct chk_inode *ino);
/** chk_states() - @ino states a name in directory @dir; @hash: siphash24() of the name. */
void chk_states(struct chk_inode *ino, uint64_t dir, uint64_t hash);
/** chk_leads_back() - whether it states this one. */
bool chk_leads_back(const struct chk_inode *ino, uint64_t dir, uint64_t hash);
/** chk_member() - inode @i of cluster @cl, whose block is @d. */
void chk_member(struct check *c, struct chk_cluster *cl, uint32_t i, struct inode_disk *d);
/** chk_group() - header and index of one group; @pair: 2 blocks, @index: one. */
void chk_group(struct check *c, uint32_t ag, uint8_t *pair, struct itable_disk *index);
/** chk_counts() - a group's counts of inodes. */
void chk_counts(struct check *c, uint32_t ag);

/* ---- inode.c: one inode, its map and attributes ---- */

/** chk_inode() - @d is believed; a repair may change it. */
void chk_inode(struct check *c, uint64_t number, struct inode_disk *d);
/** chk_inode_lost() - there is one, and nothing can be said of it; @fix: it is given up. */
void chk_inode_lost(struct check *c, uint64_t number, bool fix);

/* ---- layers.c: images on top of images ---- */

void chk_layer_add(struct check *c, uint64_t number, const struct inode_disk *d);
/** chk_layers_sort() - once all inodes are known, and before any name is: directories that are lists
 * of children by mistake, or are not, are settled. */
void chk_layers_sort(struct check *c);
/** chk_layer_child() - list @list, at @addr, has @child under @name.
 * Return: whether it has not, and the list is to be written anew. */
bool chk_layer_child(struct check *c, uint64_t list, uint64_t child, const char *name,
		     uint64_t addr);
struct chk_layer *chk_layer_find(struct check *c, uint64_t id);
void chk_layers(struct check *c);
/** chk_layer() - one of them. */
void chk_layer(struct check *c, const struct chk_layer *l);
/** chk_layer_of() - what @d of inode @number says of layers.  False: nothing. */
bool chk_layer_of(uint64_t number, const struct inode_disk *d, struct chk_layer *l);

/* ---- dir.c: directories, second pass ---- */

/** chk_name_ok() - whether a name can be that. */
bool chk_name_ok(const uint8_t *name, size_t len);
void chk_directories(struct check *c);

/* ---- links.c: what only all names together tell ---- */

void chk_orphans(struct check *c);
/** chk_orphan_block() - block @i of @slot's list. */
void chk_orphan_block(struct check *c, uint32_t slot, uint32_t i);
void chk_links(struct check *c);

#endif
