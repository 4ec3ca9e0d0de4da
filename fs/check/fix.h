/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a repairing round does beside looking.
 *
 * What a finding's own block can put right is written where it is found: an entry cleared, a
 * count corrected.  What needs all the others is noted, and done when the volume was read: inodes
 * that are lost or were found again, directories written anew, blocks that two files had.
 * Consequences are left to the next round, which reads everything again; so each repair is
 * one or few writes, after any of which another run comes to the same end.
 *
 * Invariants:
 *  - nothing is freed in a round that does not know everything that is in use (@hold, @left),
 *    and nothing allocated in one but what the bitmaps call free, too: what was found again
 *    might own it; so a bitmap block that is damaged stays that until such rounds are over;
 *  - the superblock says where the root is: of an index that has its two blocks for anything else,
 *    that is struck; the other inodes that are found again enter an index only where neither a
 *    cluster nor an index block is, and have their blocks before any space is allocated: what one
 *    round strikes no other puts back;
 *  - what is written anew lies in free blocks until one write of an inode refers to it;
 *  - an inode, or a block, is believed because something believed refers to it, never because it
 *    looks like one: guests can write forgeries into their disks.
 *
 * Notes are bounded, whatever is damaged (FIX_*_MAX).  What there is no room for is left to a later
 * round (check.later), which finds it again; a round that was cut off does only what is right
 * without the rest:
 *  - of blocks that two things refer to those are noted that lie before one address (@twice_end), all
 *    of them and with every claim: so each has its right owner, and no entry is moved of which
 *    a part lies behind;
 *  - a name is given back to each inode by itself; who gets none now still has none then;
 *  - inodes that were found again are noted up to one number (@found_end); that there are more is hidden
 *    from nobody: those that are noted set @hold.
 */
#ifndef LUNFS_FS_CHECK_FIX_H
#define LUNFS_FS_CHECK_FIX_H

#include "fs/check/internal.h"

/*
 * With ten million files a check takes 440 of its 512 MiB.  Notes of a kind may have 8 MiB, and as much
 * while they are sorted; so may a directory's entries, while it is written anew.
 */
#define FIX_NAMES_MAX	(1u << 19)
#define FIX_FOUND_MAX	(1u << 19)
#define FIX_TWICE_MAX	(1u << 17)
#define FIX_ENTRIES_MAX	(1u << 17)	/* of a directory, sorted at a time, if of this length: */
#define FIX_ENTRY_BYTES	64u

/* A name that a directory is to get: what the inode itself states, or its number. */
struct fix_name {
	uint64_t dir : INODE_NUMBER_BITS;	/* inode number of the directory */
	uint64_t stated : 1;
	uint64_t taken : 1;	/* by another inode: gets its number behind it */
	uint64_t id;
};
static_assert(sizeof(struct fix_name) == 16, "the bound of a repair's memory");

struct fix {
	bool	hold;		/* see above */
	int	err;		/* of a write: nothing more is written in this round */
	uint64_t repaired;	/* findings */
	uint64_t left;		/* findings of damage that are not */
	struct table twice;	/* struct chk_twice */
	uint64_t twice_end;	/* blocks from here on are left to a later round */
	uint64_t *indices;	/* pointers to index blocks */
	size_t	index_count, index_room;
	struct fix_name *names;
	size_t	name_count, name_room;
	uint32_t nameless;	/* inodes that are to get one in this round */
	uint64_t *found;	/* ids of inodes that no index has */
	size_t	found_count, found_room;
	uint64_t found_end;	/* numbers from here on are left to a later round */
	struct chk_inode *home;	/* lost+found, once @looked_home; NULL: there is none yet */
	bool	looked_home, home_coming;
	uint64_t spares[64];	/* numbers of free inodes */
	unsigned int spare_count;
	bool	no_root;
	uint32_t ag, ag_part;	/* where the next allocation looks first: a bitmap block */
};

/* ---- fix.c: writing, space, inodes ---- */

int fix_begin(struct check *c);
void fix_end(struct check *c);

/** fix_write() - [@addr, +@len) becomes @data; tells before_write() what was there. */
int fix_write(struct check *c, uint64_t addr, const void *data, size_t len);

/** fix_tell_before() - tells before_write() alone: somebody else writes. */
int fix_tell_before(struct check *c, uint64_t addr, size_t len);

/** fix_flush() - makes durable what was written; a failure is reported.  Return: blkdev_flush(). */
int fix_flush(struct check *c);

/** fix_seal() - seals @block one version later and writes it to @e->addr. */
int fix_seal(struct check *c, void *block, const struct meta_expect *e);

/** fix_inode() - the same for an inode. */
int fix_inode(struct check *c, struct inode_disk *d, uint64_t number);

/** fix_read_inode() - the inode block of @number, believed.  Return: 0 or negative errno. */
int fix_read_inode(struct check *c, uint64_t number, struct inode_disk *d);

/** fix_alloc() - @count blocks that nothing refers to, in one group.  Return: 0 none. */
uint64_t fix_alloc(struct check *c, uint32_t count);

/** fix_alloc_in() - the same in group @ag. */
uint64_t fix_alloc_in(struct check *c, uint32_t ag, uint32_t count);

/** fix_alloc_blind() - a block of group @ag where a bitmap block is lost, and nothing that is known
 * refers to it: the last one, since hosts begin with the first.  Return: 0 none. */
uint64_t fix_alloc_blind(struct check *c, uint32_t ag);

/** fix_lock() - a free lock record at @addr. */
void fix_lock(struct check *c, uint64_t addr);

/** fix_append() - @item to a growing array; notes a want of memory. */
void *fix_append(struct check *c, void **array, size_t *count, size_t *room, size_t size);

/** fix_most() - how many notes of a kind there may be: @usual, or what the caller of the check says. */
size_t fix_most(const struct check *c, size_t usual);

/** fix_twice() - @block is referred to once more. */
void fix_twice(struct check *c, uint64_t block);

/* ---- fix_host.c: slots and journals ---- */

/** fix_slot() - slot @index becomes free: at its generation, or, if @rebuild, at a later one. */
void fix_slot(struct check *c, uint32_t index, bool rebuild);
/** fix_journals() - what all journals hold goes home; those that held something, or are
 * damaged, begin anew. */
void fix_journals(struct check *c);

/* ---- fix_inode.c: inodes that are lost, or found again ---- */

/** fix_believable() - whether there is an inode @id at its place (in no index). */
bool fix_believable(struct check *c, uint64_t id);
/** fix_reference() - something believed refers to @id, which no index has; reports it.
 * Return: whether it is found again. */
bool fix_reference(struct check *c, uint64_t id, uint64_t addr, const char *who);
/** fix_inode_new() - a free inode becomes @mode under @parent.  Return: its id, 0: none. */
uint64_t fix_inode_new(struct check *c, uint32_t mode, uint32_t flags, uint64_t parent,
		       const char *name);
/** fix_free() - @number becomes a free inode, of a generation that nothing refers to. */
void fix_free(struct check *c, uint64_t number);
void fix_root(struct check *c);
void fix_found(struct check *c);
void fix_lost(struct check *c);
/** fix_orphans() - puts orphans that no list has on one. */
void fix_orphans(struct check *c);

/* ---- fix_dir.c: directories written anew ---- */

/** dir_each() - every entry of directory @d that can be told, in no order, as often as it
 * occurs.  Nothing is reported; its blocks are claimed.  @fn: non-zero ends it. */
typedef int (*dir_each_fn)(void *arg, const struct dir_entry_disk *e, const uint8_t *name);
int dir_each(struct check *c, const struct inode_disk *d, dir_each_fn fn, void *arg);

/** fix_directories() - writes those anew that need it. */
void fix_directories(struct check *c);

/* ---- fix_names.c: names ---- */

/** fix_may_name() - whether @ino, which has no name, may get one in this round, and takes room for it. */
bool fix_may_name(struct check *c, const struct chk_inode *ino);

/** fix_names() - notes names for inodes that have none, and lets inodes state their own. */
void fix_names(struct check *c);

/** fix_name_text() - the name that @n has for its inode, whose type becomes *@type; @name is written
 * to.  Return: its length; 0 the inode cannot be read. */
uint8_t fix_name_text(struct check *c, const struct fix_name *n, uint8_t name[NAME_BYTES_MAX],
		      uint8_t *type);

/* ---- fix_twice.c: blocks that two files had ---- */

void fix_shared(struct check *c);

#endif
