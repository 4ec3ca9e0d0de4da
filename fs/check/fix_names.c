/* SPDX-License-Identifier: Apache-2.0 */
/* Names: inodes that need one get it back, or one in lost+found; each states its own. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/siphash.h"
#include "fs/check/fix.h"

#define LOST_FOUND	"lost+found"

/* ---- inodes that state another name than they have ---- */

struct seek {
	struct check *c;
	struct chk_inode *dir;
	uint64_t id;
};

static void state_name(struct check *c, struct chk_inode *ino, uint64_t number, uint64_t dir,
		       const uint8_t *name, uint8_t len)
{
	uint8_t block[BLOCK_SIZE] BLKDEV_ALIGNED;
	struct inode_disk *d = (void *)block;

	ino->flags &= (uint16_t)~CHK_RENAME;
	chk_states(ino, dir, siphash24(c->s->hash_key, name, len));
	if (fix_read_inode(c, number, d))
		return;
	d->parent = cpu_to_le64(dir);
	d->name_len = cpu_to_le16(len);
	memset(d->name, 0, sizeof(d->name));
	memcpy(d->name, name, len);
	fix_inode(c, d, number);
}

static int look_at_name(void *arg, const struct dir_entry_disk *e, const uint8_t *name)
{
	struct seek *k = arg;
	struct chk_inode *ino = chk_find(k->c, le64_to_cpu(e->id));

	if (!ino)
		return 0;
	if (ino->flags & CHK_RENAME && chk_name_ok(name, e->name_len))
		state_name(k->c, ino, inode_id_number(le64_to_cpu(e->id)), k->id, name,
			   e->name_len);
	if (ino->flags & CHK_UNLINK ||
	    (ino->flags & CHK_ONE_NAME &&
	     !chk_leads_back(ino, k->id, siphash24(k->c->s->hash_key, name, e->name_len))))
		k->dir->flags |= CHK_REBUILD;
	return 0;
}

static void look_at_names(struct check *c)
{
	uint8_t block[BLOCK_SIZE] BLKDEV_ALIGNED;
	struct inode_disk *d = (void *)block;

	for (size_t i = 0; i < c->inode_count && !c->fix->err; i++) {
		struct seek k = { .c = c, .dir = &c->inodes[i] };
		uint64_t number;

		if (k.dir->type != DT_DIR || k.dir->flags & CHK_CHILDREN)
			continue;
		number = chk_number(c, k.dir);
		if (fix_read_inode(c, number, d) || !S_ISDIR(le32_to_cpu(d->mode)))
			continue;
		k.id = inode_id_make(number, le32_to_cpu(d->generation));
		if (dir_each(c, d, look_at_name, &k) == -ENOMEM)
			c->no_memory = true;
	}
}

/* ---- inodes without a name ---- */

static bool is_lost_found_by_name(const struct check *c, const struct chk_inode *ino)
{
	return ino->type == DT_DIR &&
	       chk_leads_back(ino, c->s->root,
			      siphash24(c->s->hash_key, LOST_FOUND, strlen(LOST_FOUND)));
}

/*
 * One without its name, because a repair was cut off before it had that, may always: what waits for
 * it would wait for ever.
 */
bool fix_may_name(struct check *c, const struct chk_inode *ino)
{
	struct fix *f = c->fix;

	if (!f)
		return true;
	if (f->nameless < fix_most(c, FIX_NAMES_MAX)) {
		f->nameless++;
		return true;
	}
	if (f->home_coming || !is_lost_found_by_name(c, ino))
		return false;
	f->home_coming = true;
	return true;
}

static void add_name(struct check *c, struct chk_inode *dir, uint64_t id, bool stated)
{
	struct fix_name *n = fix_append(c, (void **)&c->fix->names, &c->fix->name_count,
					&c->fix->name_room, sizeof(*n));

	if (!n)
		return;
	*n = (struct fix_name){ .dir = chk_number(c, dir) & CHK_NUMBER_MASK, .stated = stated, .id = id };
	dir->flags |= CHK_REBUILD;
}

uint8_t fix_name_text(struct check *c, const struct fix_name *n, uint8_t name[NAME_BYTES_MAX],
		      uint8_t *type)
{
	const struct chk_inode *ino = chk_find(c, n->id);
	uint8_t block[BLOCK_SIZE] BLKDEV_ALIGNED;
	struct inode_disk *d = (void *)block;
	unsigned long long number = inode_id_number(n->id);
	char behind[24] = "";
	uint32_t len, more;

	/* lost+found, just made, is none of the inodes that this round has read. */
	*type = ino ? ino->type : DT_DIR;
	if (n->stated) {
		if (fix_read_inode(c, number, d))
			return 0;
		len = le16_to_cpu(d->name_len);
		len = len < NAME_BYTES_MAX ? len : NAME_BYTES_MAX;
		memcpy(name, d->name, len);
	} else {
		len = (uint32_t)snprintf((char *)name, NAME_BYTES_MAX, "#%llu", number);
	}
	if (n->taken)
		snprintf(behind, sizeof(behind), ".%llu", number);
	more = (uint32_t)strlen(behind);
	len = len < NAME_BYTES_MAX - more ? len : NAME_BYTES_MAX - more;
	memcpy(name + len, behind, more);
	return (uint8_t)(len + more);
}

struct found_dir { uint64_t id; };

static int is_lost_found(void *arg, const struct dir_entry_disk *e, const uint8_t *name)
{
	struct found_dir *f = arg;

	if (e->type != DT_DIR || e->name_len != strlen(LOST_FOUND) ||
	    memcmp(name, LOST_FOUND, e->name_len) != 0)
		return 0;
	f->id = le64_to_cpu(e->id);
	return 1;
}

/* Whether there is one without its name: a repair was cut off before it had that. */
static bool is_coming(const struct check *c)
{
	for (size_t i = 0; i < c->inode_count; i++)
		if (c->inodes[i].flags & CHK_RECONNECT && is_lost_found_by_name(c, &c->inodes[i]))
			return true;
	return false;
}

/* The directory for what has no other place; where there is none it is made, with its name, and
 * used from the next round on. */
static struct chk_inode *find_lost_found(struct check *c)
{
	uint8_t block[BLOCK_SIZE] BLKDEV_ALIGNED;
	struct inode_disk *d = (void *)block;
	struct chk_inode *root = chk_find(c, c->s->root), *dir;
	struct found_dir f = { 0 };

	if (!root || fix_read_inode(c, inode_id_number(c->s->root), d))
		return NULL;
	if (dir_each(c, d, is_lost_found, &f) == -ENOMEM) {
		c->no_memory = true;
		return NULL;
	}
	dir = f.id ? chk_find(c, f.id) : NULL;
	if (dir && dir->type == DT_DIR)
		return dir;
	if (is_coming(c))
		return NULL;
	f.id = fix_inode_new(c, S_IFDIR | 0700, INODE_INLINE, c->s->root, LOST_FOUND);
	if (f.id)
		add_name(c, root, f.id, true);
	return NULL;
}

static struct chk_inode *lost_found(struct check *c)
{
	if (!c->fix->looked_home)
		c->fix->home = find_lost_found(c);
	c->fix->looked_home = true;
	return c->fix->home;
}

/* Back to where it says it was; else to lost+found, under its number. */
static void reconnect(struct check *c, struct chk_inode *ino)
{
	uint8_t block[BLOCK_SIZE] BLKDEV_ALIGNED;
	struct inode_disk *d = (void *)block;
	uint64_t number = chk_number(c, ino), id;
	struct chk_inode *dir;

	if (fix_read_inode(c, number, d))
		return;
	id = inode_id_make(number, le32_to_cpu(d->generation));
	dir = chk_find(c, le64_to_cpu(d->parent));
	if (!(ino->flags & CHK_UNLINK) && dir && dir->type == DT_DIR && dir != ino &&
	    dir->nlink && !(dir->flags & (CHK_CHILDREN | CHK_LOST)) &&
	    chk_name_ok(d->name, le16_to_cpu(d->name_len))) {
		add_name(c, dir, id, true);
		return;
	}
	dir = lost_found(c);
	if (dir)
		add_name(c, dir, id, false);
}

void fix_names(struct check *c)
{
	uint16_t any = 0;

	for (size_t i = 0; i < c->inode_count; i++)
		any |= c->inodes[i].flags;
	if (any & (CHK_RENAME | CHK_UNLINK | CHK_ONE_NAME))
		look_at_names(c);
	/* Not while there may be more to be found: the directory that it says it was in, say. */
	if (c->fix->hold)
		return;
	for (size_t i = 0; any & CHK_RECONNECT && i < c->inode_count && !c->no_memory; i++)
		if (c->inodes[i].flags & CHK_RECONNECT)
			reconnect(c, &c->inodes[i]);
}
