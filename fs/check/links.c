/* SPDX-License-Identifier: Apache-2.0 */
/* What only all names and lists together tell: link counts, orphans, reachability. */
#include <dirent.h>

#include "fs/check/internal.h"

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
 */
static void check_orphan(struct check *c, uint32_t slot, uint64_t addr, uint64_t id)
{
	struct chk_inode *ino = chk_find(c, id);

	if (!ino) {
		chk_report(c, orphan_was(c, id) ? CHECK_ORPHAN_VOID : CHECK_ORPHAN_TARGET, addr,
			   "orphan list of slot %u: inode %llu generation %u is not in use", slot,
			   (unsigned long long)inode_id_number(id), inode_id_generation(id));
		return;
	}
	if (ino->flags & CHK_LISTED)
		chk_report(c, CHECK_ORPHAN_UNMARKED, addr,
			   "orphan list of slot %u: inode %llu is on a list already", slot,
			   (unsigned long long)ino->number);
	else if (ino->type && !(ino->flags & CHK_ORPHAN))
		chk_report(c, CHECK_ORPHAN_UNMARKED, addr,
			   "orphan list of slot %u: inode %llu is not marked as orphan", slot,
			   (unsigned long long)ino->number);
	/* A void entry gets nobody deleted: an inode without a name is lost all the same. */
	if (ino->type && !(ino->flags & CHK_ORPHAN))
		return;
	ino->flags |= CHK_LISTED;
	c->r->orphans++;
}

void chk_orphans(struct check *c)
{
	const struct orphan_disk *d = (const void *)c->levels[0];

	for (uint32_t slot = 0; slot < c->s->slot_count; slot++)
		for (uint32_t i = 0; i < c->s->orphan_blocks; i++) {
			uint64_t addr = super_orphan_addr(c->s, slot, i);
			struct meta_expect e = { META_ORPHAN, c->s->volume, addr, slot, 0 };

			if (chk_block(c, &e, c->levels[0], CHECK_ORPHAN_DAMAGED, "orphan list"))
				continue;
			for (uint32_t k = 0; k < ORPHAN_ENTRIES; k++)
				if (le64_to_cpu(d->ids[k]))
					check_orphan(c, slot, addr, le64_to_cpu(d->ids[k]));
		}
}

/* ---- names and links ---- */

static bool is_root(const struct check *c, const struct chk_inode *ino)
{
	return ino->number == inode_id_number(c->s->root);
}

static void check_names_back(struct check *c, const struct chk_inode *ino)
{
	bool one = ino->type == DT_DIR || ino->nlink <= 1;

	if (ino->names == 0 || (ino->flags & (CHK_LINKED | CHK_LED_BACK)) || !one)
		return;
	chk_report(c, CHECK_INODE_NAME_BACK, inode_block_addr(ino->number),
		   "inode %llu: states directory inode %llu, which does not have it under the "
		   "name that it states", (unsigned long long)ino->number,
		   (unsigned long long)inode_id_number(ino->parent));
}

static void check_links(struct check *c, const struct chk_inode *ino)
{
	uint64_t addr = inode_block_addr(ino->number);
	bool named = ino->names || is_root(c, ino);
	uint32_t want = ino->names;

	if (!ino->type || ino->flags & CHK_CHILDREN)
		return;
	if (ino->flags & CHK_ORPHAN && !(ino->flags & CHK_LISTED))
		chk_report(c, CHECK_ORPHAN_LOST, addr, "inode %llu",
			   (unsigned long long)ino->number);
	if (!named && !(ino->flags & (CHK_LISTED | CHK_ORPHAN))) {
		chk_report(c, CHECK_INODE_NO_NAME, addr, "inode %llu: link count %u, no name "
			   "found", (unsigned long long)ino->number, ino->nlink);
		return;
	}
	if (ino->type == DT_DIR)
		want = named ? 2 + ino->subdirs : 0;
	if (ino->nlink != want)
		chk_report(c, CHECK_INODE_LINKS, addr,
			   "inode %llu: link count: expected %u, found %u",
			   (unsigned long long)ino->number, want, ino->nlink);
	if (ino->type == DT_DIR && ino->names > (is_root(c, ino) ? 0 : 1))
		chk_report(c, CHECK_DIR_PARENTS, addr, "directory inode %llu has %u names",
			   (unsigned long long)ino->number, ino->names);
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
	up = chk_find(c, ino->parent);
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
	if (loop)
		chk_report(c, CHECK_DIR_UNREACHABLE, inode_block_addr(start->number),
			   "directory inode %llu: its parents lead in a circle",
			   (unsigned long long)start->number);
	for (ino = start; ino && ino->flags & CHK_ON_PATH; ino = parent_of(c, ino)) {
		ino->flags &= (uint8_t)~CHK_ON_PATH;
		if (reached)
			ino->flags |= CHK_REACHED;
	}
}

void chk_links(struct check *c)
{
	struct chk_inode *root = chk_find(c, c->s->root);

	if (root && (root->type == DT_DIR || !root->type))
		root->flags |= CHK_REACHED;
	else
		chk_report(c, CHECK_DIR_UNREACHABLE, inode_block_addr(c->s->root),
			   "the root directory is missing");
	for (size_t i = 0; i < c->inode_count; i++) {
		check_links(c, &c->inodes[i]);
		if (c->inodes[i].type == DT_DIR)
			check_path(c, &c->inodes[i]);
	}
}
