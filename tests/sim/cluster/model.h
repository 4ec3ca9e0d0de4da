/* SPDX-License-Identifier: Apache-2.0 */
/* Which names and contents are allowed, given what was acknowledged and what was made durable. */
#ifndef LUNFS_TESTS_SIM_MODEL_H
#define LUNFS_TESTS_SIM_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fs/format.h"

struct life;
struct world;

#define HOSTS_MAX	64u
#define DIRS		4u
#define NAMES		16u	/* a directory */
#define CELL		512u
#define WINDOWS		5u
#define WINDOW_CELLS	64u
#define CELLS		(WINDOWS * WINDOW_CELLS)
#define XATTRS		2u	/* a file */
#define XATTR_MAX	1800u	/* bytes; two of them and their names fill a block */
#define MULTIS		2u	/* files of several writers */
#define MULTI_BLOCKS	16u
#define MULTI_CELLS	(MULTI_BLOCKS * BLOCK_SIZE / CELL)
#define FAMILIES	2u	/* disks, with their snapshots and clones */
#define IMAGES		6u	/* a family */

/* Values that something may have after a crash; the oldest first. */
struct chance {
	uint64_t cur;			/* while certain: what readers must see */
	bool certain;
	bool any;			/* too many to tell apart */
	uint8_t count;
	uint64_t of[12];
	const struct life *by;	/* who wrote it last: what others left unsynced is not its affair */
};

struct mname {
	struct chance id;		/* of what it names; 0: nothing */
	struct life *writer;		/* of the newest change */
	uint64_t change;		/* which one of model->changes that was */
	struct life *busy;		/* an operation on it is under way */
	bool creating;			/* it gives an id that is not known yet */
	char name[200];
	uint64_t past[32];		/* ids it ever had */
	unsigned int past_count;
};

struct mfile {
	struct mfile *next;
	uint64_t id;			/* inode; of an image 0: not known */
	uint64_t tag;			/* in its cells: its id, or an image's family */
	bool is_dir;
	struct life *writer;		/* who had it open for writing last */
	struct life *busy[HOSTS_MAX + 1];
	struct chance cells[CELLS];
	/* Attributes: stamps of values, 0: it has none. */
	struct chance xattrs[XATTRS];
	struct life *xattr_writer, *xattr_busy;
	uint64_t xattr_change;
};

struct mdir {
	uint64_t id;
	char name[16];
	struct mname names[NAMES];
};

/*
 * A name in the directory of disks.  What it shows follows the name, not the inode: a snapshot
 * gives the disk's inode another name, and the disk another inode.
 */
struct mimage {
	char name[16];
	uint64_t family;
	struct mfile *file;
	struct chance there;		/* 1: it exists */
	struct chance before;		/* what it was before the operation that is under way */
	bool frozen;			/* a snapshot, if it exists */
	struct life *busy;		/* as of a name */
	uint64_t change;
	/* By host: whose change of the name, or attempt at one, is not known to be durable. */
	struct life *unsynced[HOSTS_MAX + 1];
};

/* Blocks of which each has one host that writes it while several have it open. */
struct mmulti {
	uint64_t id;
	char name[16];
	struct chance cells[MULTI_CELLS];
	unsigned int writing[MULTI_BLOCKS];	/* under way */
	uint64_t version[MULTI_BLOCKS];		/* rises with each write */
	struct life *busy[HOSTS_MAX + 1];
};

struct model {
	struct world *w;
	struct mdir dirs[DIRS];
	struct mfile *files;
	uint64_t images_dir;
	struct mimage images[FAMILIES * IMAGES];
	struct mmulti multis[MULTIS];
	uint64_t stamp;
	uint64_t changes;		/* of names, attributes and images, so far */
};

void model_start(struct world *w);
/** image_changed() - @life's change of the name, and nobody else's, is what may still be lost. */
void image_changed(struct mimage *im, struct life *life);
/** image_durable() - nothing of it may. */
void image_durable(struct mimage *im);
/** image_home() - @life has the directory's lock: what others did is durable (R4). */
void image_home(struct mimage *im, const struct life *life);
void chance_issue(struct chance *c, uint64_t value);
void chance_ack(struct chance *c, uint64_t value);
void chance_durable(struct chance *c);
void chance_doubt(struct chance *c);
/** chance_settle() - @value was seen, and nothing that could change it is under way. */
void chance_settle(struct chance *c, uint64_t value);
/** chance_set() - @value, durable, whatever there was before. */
void chance_set(struct chance *c, uint64_t value);
bool chance_allows(const struct chance *c, uint64_t value);

struct mfile *model_file(struct model *m, uint64_t id);
struct mfile *model_add(struct model *m, uint64_t id, bool is_dir);
/** model_claim() - @f has inode @id from now on, and no other file has. */
void model_claim(struct model *m, struct mfile *f, uint64_t id);
/** model_opened() - @life has the file's lock: what others left is durable, or in doubt. */
void model_opened(struct mfile *f, struct life *life, bool write);
/** model_synced() - an fs_sync() of @life was acknowledged that began after @change. */
void model_synced(struct model *m, struct life *life, uint64_t change);
/** model_died() - nothing of @life that is not durable is certain any more. */
void model_died(struct model *m, struct life *life);

uint64_t cell_off(unsigned int cell);
void cell_fill(uint64_t tag, unsigned int cell, uint64_t stamp, uint8_t *buf);
/** cell_parse() - the stamp in @buf (0: zeros); false: neither zeros nor this file's cell. */
bool cell_parse(uint64_t tag, unsigned int cell, const uint8_t *buf, uint64_t *stamp);
/** cell_tag() - the tag of the first cell in @block that was ever written; false: there is none. */
bool cell_tag(const uint8_t *block, uint64_t *tag);
/** model_is_family() - whether @tag is that of disks; inode ids are larger. */
static inline bool model_is_family(uint64_t tag)
{
	return tag && tag <= FAMILIES;
}

/** xattr_name(), xattr_fill() - attribute @i of file @id with @stamp; returns its length. */
const char *xattr_name(unsigned int i);
size_t xattr_fill(uint64_t id, unsigned int i, uint64_t stamp, uint8_t *buf);
/** xattr_parse() - the stamp of a value; false: nobody wrote that there. */
bool xattr_parse(uint64_t id, unsigned int i, const uint8_t *buf, size_t len, uint64_t *stamp);

#define CELL_MAGIC	0x4c4c45434d495321ull

#endif
