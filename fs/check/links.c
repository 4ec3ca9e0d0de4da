/* SPDX-License-Identifier: Apache-2.0 */
/* What only all names and lists together tell: link counts, orphans, reachability. */
#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>

#include "fs/check/fix.h"
#include "fs/check/online.h"

/* ---- orphan lists ---- */

/* Whether there was such an inode: generations of a place only rise. */
static bool orphan_was(struct check *c, uint64_t id)
{
	uint64_t number = inode_id_number(id);
	struct meta_expect e = { META_INODE, c->s->volume, inode_block_addr(number), number, 0 };
	const struct inode_disk *d = (const void *)c->levels[1];
	char why[400];
	uint32_t ag;

	return !super_ag_of(c->s, inode_lock_addr(number), &ag) &&
	       !super_ag_of(c->s, e.addr, &ag) && !chk_read(c, e.addr, c->levels[1], 1) &&
	       !meta_verify(d, &e, why, sizeof(why)) &&
	       inode_id_generation(id) <= le32_to_cpu(d->generation);
}

/*
 * A host that could not finish a truncation keeps the entry and gives up the inode's lock; the
 * next holder finishes it, or deletes the file, and cannot strike the entry.  It is void then.
 * Returns whether the entry is to be struck.
 */
static bool check_orphan(struct check *c, uint32_t slot, uint64_t addr, uint64_t id)
{
	struct chk_inode *ino = chk_find(c, id);
	char who[48];

	snprintf(who, sizeof(who), "orphan list of slot %u", slot);
	if (!ino)
		return !fix_reference(c, id, addr, who) &&
		       chk_report(c, orphan_was(c, id) ? CHECK_ORPHAN_VOID : CHECK_ORPHAN_TARGET,
				  addr, "%s: inode %llu generation %u is not in use", who,
				  (unsigned long long)inode_id_number(id),
				  inode_id_generation(id));
	if (ino->flags & CHK_LISTED)
		return chk_report(c, CHECK_ORPHAN_UNMARKED, addr,
				  "%s: inode %llu is on a list already", who,
				  (unsigned long long)inode_id_number(id));
	/* A void entry gets nobody deleted: an inode without a name is lost all the same. */
	if (ino->type && !(ino->flags & CHK_ORPHAN))
		return chk_report(c, CHECK_ORPHAN_UNMARKED, addr,
				  "%s: inode %llu is not marked as orphan", who,
				  (unsigned long long)inode_id_number(id));
	ino->flags |= CHK_LISTED;
	c->r->orphans++;
	return false;
}

void chk_orphan_block(struct check *c, uint32_t slot, uint32_t i)
{
	uint64_t addr = super_orphan_addr(c->s, slot, i);
	struct meta_expect e = { META_ORPHAN, c->s->volume, addr, slot, 0 };
	struct orphan_disk *d = (void *)c->levels[0];
	bool changed = false;

	if (chk_block(c, &e, d, CHECK_ORPHAN_DAMAGED, "orphan list")) {
		if (!c->verify_repair)
			return;
		/* Whose entry was lost with it is found without one. */
		memset(d, 0, sizeof(*d));
		fix_seal(c, d, &e);
		return;
	}
	if (c->online && c->online->no_claims)
		return;
	for (uint32_t k = 0; k < ORPHAN_ENTRIES; k++) {
		uint64_t id = le64_to_cpu(d->ids[k]);

		if (!id || !check_orphan(c, slot, addr, id))
			continue;
		d->ids[k] = cpu_to_le64(0);
		changed = true;
	}
	if (changed)
		fix_seal(c, d, &e);
}

static bool next_orphans(struct check *c, void *arg, struct chk_place *p)
{
	uint32_t *n = arg, blocks = c->s->orphan_blocks;

	if (*n == c->s->slot_count * blocks)
		return false;
	*p = (struct chk_place){ super_orphan_addr(c->s, *n / blocks, *n % blocks), 1 };
	(*n)++;
	return true;
}

void chk_orphans(struct check *c)
{
	uint32_t next = 0;
	struct chk_source source = { next_orphans, &next, NULL, false };

	chk_ahead_begin(c, CHK_LANE_MAIN, &source);
	for (uint32_t slot = 0; slot < c->s->slot_count; slot++)
		for (uint32_t i = 0; i < c->s->orphan_blocks; i++)
			chk_orphan_block(c, slot, i);
	chk_ahead_end(c, CHK_LANE_MAIN);
}

/* ---- names and links ---- */

static bool is_root(const struct check *c, const struct chk_inode *ino)
{
	return ino == c->root;
}

static void fix_link_count(struct check *c, uint64_t number, uint32_t nlink)
{
	struct inode_disk *d = (void *)c->levels[0];

	if (fix_read_inode(c, number, d))
		return;
	d->nlink = cpu_to_le32(nlink);
	if (!S_ISDIR(le32_to_cpu(d->mode)) && nlink > 1)
		d->flags = cpu_to_le32(le32_to_cpu(d->flags) | INODE_LINKED);
	fix_inode(c, d, number);
}

/* Once one of several names is removed, nothing but the mark tells which one is left. */
static void check_mark(struct check *c, const struct chk_inode *ino)
{
	uint64_t number = chk_number(c, ino);

	if (chk_report(c, CHECK_INODE_NAME_BACK, inode_block_addr(number),
		       "inode %llu: has %u names, and is not marked to have others than the one "
		       "that it states", (unsigned long long)number, ino->names))
		fix_link_count(c, number, ino->names);
}

static void check_names_back(struct check *c, struct chk_inode *ino)
{
	uint64_t number;

	if (ino->flags & CHK_LINKED)
		return;
	if (ino->type != DT_DIR && ino->names > 1) {
		check_mark(c, ino);
		return;
	}
	if (ino->names == 0 || ino->flags & CHK_LED_BACK)
		return;
	number = chk_number(c, ino);
	if (chk_report(c, CHECK_INODE_NAME_BACK, inode_block_addr(number),
		       "inode %llu: states directory inode %llu, which does not have it under the "
		       "name that it states", (unsigned long long)number,
		       (unsigned long long)ino->parent))
		ino->flags |= CHK_RENAME;
}

/* Nothing is to be said of most. */
static bool one_right_name(const struct check *c, const struct chk_inode *ino)
{
	return ino->type && ino->type != DT_DIR && ino->names == 1 && ino->nlink == 1 &&
	       !(ino->flags & CHK_ORPHAN) && ino->flags & (CHK_LINKED | CHK_LED_BACK) &&
	       !is_root(c, ino);
}

static void check_links(struct check *c, struct chk_inode *ino)
{
	uint64_t number = chk_number(c, ino), addr = inode_block_addr(number);
	bool named = ino->names || is_root(c, ino);
	uint32_t want = ino->names;

	c->subject = number;
	if (!ino->type || ino->flags & CHK_CHILDREN)
		return;
	if (ino->flags & CHK_ORPHAN && !(ino->flags & CHK_LISTED) &&
	    chk_report(c, CHECK_ORPHAN_LOST, addr, "inode %llu", (unsigned long long)number))
		ino->flags |= CHK_RELIST;
	if (!named && !(ino->flags & (CHK_LISTED | CHK_ORPHAN))) {
		c->later = !fix_may_name(c, ino);
		if (chk_report(c, CHECK_INODE_NO_NAME, addr, "inode %llu: link count %u, no name "
			       "found", (unsigned long long)number, ino->nlink))
			ino->flags |= CHK_RECONNECT;
		return;
	}
	if (ino->type == DT_DIR)
		want = named ? 2 + ino->subdirs : 0;
	if (ino->nlink != want &&
	    chk_report(c, CHECK_INODE_LINKS, addr, "inode %llu: link count: expected %u, found %u",
		       (unsigned long long)number, want, ino->nlink)) {
		/* Who is being deleted gets no name back. */
		if (ino->flags & CHK_ORPHAN && !ino->nlink)
			ino->flags |= CHK_UNLINK;
		else
			fix_link_count(c, number, want);
	}
	if (ino->type == DT_DIR && ino->names > (is_root(c, ino) ? 0 : 1) &&
	    chk_report(c, CHECK_DIR_PARENTS, addr, "directory inode %llu has %u names",
		       (unsigned long long)number, ino->names))
		ino->flags |= CHK_ONE_NAME;
	if (!is_root(c, ino))
		check_names_back(c, ino);
}

/* ---- loops ---- */

/* One step up, or NULL where the chain of names is broken (reported elsewhere). */
static struct chk_inode *parent_of(struct check *c, const struct chk_inode *ino)
{
	struct chk_inode *up;

	if (!(ino->flags & CHK_LED_BACK))
		return NULL;
	up = chk_find_number(c, ino->parent);
	return up && up->type == DT_DIR ? up : NULL;
}

/* Goes up until something is known; then marks the whole path with what it is. */
static void check_path(struct check *c, struct chk_inode *start)
{
	struct chk_inode *ino = start;
	bool loop, reached;

	while (ino && !(ino->flags & (CHK_REACHED | CHK_ON_PATH))) {
		ino->flags |= CHK_ON_PATH;
		ino = parent_of(c, ino);
	}
	reached = ino && ino->flags & CHK_REACHED;
	loop = ino && !reached;
	c->later = loop && !fix_may_name(c, start);
	if (loop && chk_report(c, CHECK_DIR_UNREACHABLE, inode_block_addr(chk_number(c, start)),
			       "directory inode %llu: its parents lead in a circle",
			       (unsigned long long)chk_number(c, start)))
		start->flags |= CHK_UNLINK | CHK_RECONNECT;
	for (ino = start; ino && ino->flags & CHK_ON_PATH; ino = parent_of(c, ino)) {
		ino->flags &= (uint16_t)~CHK_ON_PATH;
		if (reached)
			ino->flags |= CHK_REACHED;
	}
}

void chk_links(struct check *c)
{
	struct chk_inode *root = chk_find(c, c->s->root);

	c->root = chk_find_number(c, inode_id_number(c->s->root));
	if (root && (root->type == DT_DIR || !root->type))
		root->flags |= CHK_REACHED;
	else if (!fix_reference(c, c->s->root, SUPER_ADDR, "the superblock") &&
		 chk_report(c, CHECK_DIR_UNREACHABLE, inode_block_addr(c->s->root),
			    "the root directory is missing"))
		c->fix->no_root = true;
	for (size_t i = 0; i < c->inode_count; i++) {
		if (!one_right_name(c, &c->inodes[i]))
			check_links(c, &c->inodes[i]);
		if (c->inodes[i].type == DT_DIR)
			check_path(c, &c->inodes[i]);
	}
}
