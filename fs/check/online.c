/* SPDX-License-Identifier: Apache-2.0 */
/* The look at everything while hosts use the volume, and what it makes of what it finds. */
#include "fs/check/online.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/crc32c.h"
#include "fs/check/fix.h"
#include "fs/internal.h"
#include "fs/journal.h"

#define SUSPICIONS_MAX	(1u << 20)

/* ---- what can be proved, and by looking at what ---- */

enum online_kind online_kind(enum check_code code)
{
	switch (code) {
	case CHECK_UNREADABLE:
		return ON_READ;
	case CHECK_SUPER_DAMAGED: case CHECK_SUPER_DIFFERS:
		return ON_SUPER;
	case CHECK_SLOT_DAMAGED: case CHECK_SLOT_RECOVERER:
		return ON_SLOT;
	case CHECK_LOCK_DAMAGED: case CHECK_LOCK_HOLDER: case CHECK_LOCK_FUTURE:
		return ON_LOCK;
	case CHECK_JOURNAL_DAMAGED:
		return ON_JOURNAL;
	case CHECK_MAP_DAMAGED: case CHECK_MAP_POINTER: case CHECK_MAP_VALID:
	case CHECK_MAP_RESERVED: case CHECK_MAP_OUTSIDE: case CHECK_MAP_PAST_END:
	case CHECK_INODE_DAMAGED: case CHECK_INODE_INVALID: case CHECK_INODE_MASK:
	case CHECK_INODE_BLOCKS: case CHECK_INODE_SIZE:
	case CHECK_DIR_DAMAGED: case CHECK_DIR_POINTER: case CHECK_DIR_ENTRY: case CHECK_DIR_HASH:
	case CHECK_DIR_ORDER: case CHECK_DIR_DUPLICATE: case CHECK_DIR_TARGET: case CHECK_DIR_TYPE:
	case CHECK_XATTR_DAMAGED: case CHECK_XATTR_POINTER: case CHECK_XATTR_ENTRY:
	case CHECK_CHILDREN_ENTRY:
		return ON_INODE;
	case CHECK_INODE_LINKS: case CHECK_INODE_NO_NAME: case CHECK_INODE_NAME_BACK:
	case CHECK_ORPHAN_LOST:
		return ON_LINKS;
	case CHECK_ORPHAN_DAMAGED:
		return ON_ORPHANS;
	case CHECK_AG_DAMAGED: case CHECK_AG_INVALID: case CHECK_AG_FREE: case CHECK_AG_INODES:
	case CHECK_BITMAP_DAMAGED: case CHECK_ITABLE_DAMAGED: case CHECK_ITABLE_POINTER:
	case CHECK_ITABLE_ENTRY:
		return ON_GROUP;
	case CHECK_BITMAP_FREE: case CHECK_BITMAP_NOT_READY: case CHECK_BLOCK_TWICE:
		return ON_BLOCK;
	case CHECK_IMAGE_PARENT: case CHECK_IMAGE_RANK: case CHECK_IMAGE_LIMIT:
	case CHECK_IMAGE_UNLISTED: case CHECK_IMAGE_NO_LIST: case CHECK_CHILDREN_LOST:
		return ON_LAYER;
	/*
	 * Left to a quiet volume: what needs all of it at one time, what only a repair or an attach
	 * can meet, and notes, which are no damage.
	 */
	case CHECK_UNWRITABLE: case CHECK_SUPER_REPAIR: case CHECK_SUPER_OLD: case CHECK_SLOT_USED_UP:
	case CHECK_JOURNAL_TARGET: case CHECK_JOURNAL_TWICE: case CHECK_JOURNAL_REPLAY:
	case CHECK_DIR_PARENTS: case CHECK_DIR_UNREACHABLE:
	case CHECK_ORPHAN_TARGET: case CHECK_ORPHAN_UNMARKED: case CHECK_ORPHAN_VOID:
	case CHECK_AG_SHORT: case CHECK_BITMAP_LEAK: case CHECK_INODE_NOT_INDEXED:
	case CHECK_CODE_COUNT:
		break;
	}
	return ON_NOTHING;
}

bool check_online_proves(enum check_code code)
{
	return online_kind(code) != ON_NOTHING;
}

static uint64_t key_of(const struct check *c, enum online_kind kind, uint64_t addr)
{
	switch (kind) {
	case ON_SUPER:
		return 0;
	case ON_LOCK: case ON_ORPHANS: case ON_READ:
		return addr;
	case ON_BLOCK:
		return addr >> BLOCK_SHIFT;
	default:
		return c->subject & ~SUBJECT_GROUP;
	}
}

/* ---- findings ---- */

static void suspect(struct check *c, enum check_code code, uint64_t addr)
{
	struct chk_online *o = c->online;
	enum online_kind kind = online_kind(code);
	struct suspicion *s;

	if (kind == ON_NOTHING || o->wanted)
		return;
	if (o->count == SUSPICIONS_MAX) {
		o->r->unproved++;
		return;
	}
	s = fix_append(c, (void **)&o->list, &o->count, &o->room, sizeof(*s));
	if (s)
		*s = (struct suspicion){ .kind = kind, .code = code, .addr = addr,
					 .blocks = o->blocks > UINT16_MAX ? UINT16_MAX :
									    (uint16_t)o->blocks,
					 .key = key_of(c, kind, addr) };
}

void online_found(struct check *c, enum check_code code, uint64_t addr, const char *text)
{
	struct chk_online *o = c->online;
	struct online_finding *f = &o->found[o->found_count];

	if (!o->relook) {
		suspect(c, code, addr);
		return;
	}
	if (o->mute || online_kind(code) == ON_NOTHING)
		return;
	o->ev.crc = crc32c(o->ev.crc, &code, sizeof(code));
	o->ev.crc = crc32c(o->ev.crc, &addr, sizeof(addr));
	if (o->found_count == FOUND_MAX)
		return;
	f->code = code;
	f->addr = addr;
	f->inode = o->what->kind >= ON_INODE && o->what->kind <= ON_LAYER ? o->what->key : 0;
	snprintf(f->text, sizeof(f->text), "%s", text);
	o->found_count++;
}

/* ---- reading ---- */

int online_may_read(struct check *c, uint64_t addr, uint32_t blocks)
{
	struct chk_online *o = c->online;

	(void)addr;
	o->blocks = blocks;
	o->r->blocks_read += blocks;
	if (o->stop)
		return o->stop;
	if (o->relook && (o->reads += blocks) > RELOOK_READS_MAX)
		return -EFBIG;
	if (fs_is_lost(o->fs))
		o->stop = -EIO;
	else if (o->p->pace && !o->locked)
		o->stop = o->p->pace(o->p->arg, blocks);
	/* Ends every loop, and nothing is concluded any more. */
	c->no_memory = c->no_memory || o->stop;
	return o->stop;
}

/* Whether a lock record lies there: it changes all the time, and is evidence of nothing. */
static bool is_group_lock(const struct check *c, uint64_t addr)
{
	uint32_t ag;

	return addr == c->s->lock_addr ||
	       (!super_ag_of(c->s, addr, &ag) && addr == super_ag_addr(c->s, ag));
}

void online_has_read(struct check *c, uint64_t addr, const void *buf, uint32_t blocks)
{
	struct chk_online *o = c->online;

	for (uint32_t i = 0; o->relook && i < blocks; i++) {
		uint64_t at = addr + (uint64_t)i * BLOCK_SIZE, *seen;

		if (is_group_lock(c, at))
			continue;
		seen = fix_append(c, (void **)&o->ev.addrs, &o->ev.count, &o->ev.room, sizeof(*seen));
		if (!seen)
			return;
		*seen = at;
		o->ev.crc = crc32c(o->ev.crc, &at, sizeof(at));
		o->ev.crc = crc32c(o->ev.crc, (const uint8_t *)buf + (size_t)i * BLOCK_SIZE,
				   BLOCK_SIZE);
	}
}

/* ---- who refers to what ---- */

static void note_owner(struct check *c, uint64_t block)
{
	struct chk_online *o = c->online;
	struct online_owner *w = fix_append(c, (void **)&o->owners, &o->owner_count, &o->owner_room,
					    sizeof(*w));

	if (w)
		*w = (struct online_owner){ block, c->subject, c->from };
}

void online_claim(struct check *c, uint64_t block, uint32_t count, const char *who)
{
	struct chk_online *o = c->online;
	size_t low = 0, high = o->wanted_count;

	if (o->relook) {
		if (o->target >= block && o->target - block < count) {
			o->hits++;
			snprintf(o->target_who, sizeof(o->target_who), "%s", who);
		}
		return;
	}
	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (o->wanted[mid].key < block)
			low = mid + 1;
		else
			high = mid;
	}
	for (; low < o->wanted_count && o->wanted[low].key - block < count; low++)
		if (!low || o->wanted[low].key != o->wanted[low - 1].key)
			note_owner(c, o->wanted[low].key);
}

/* ---- the look at everything ---- */

/* Journals of hosts that live change all the time, and these hosts notice by themselves. */
static void look_at_journals(struct check *c)
{
	for (uint32_t i = 0; i < c->s->slot_count; i++) {
		int err;

		c->subject = i;
		if (!c->slot_valid[i] || c->slots[i].state != SLOT_FREE)
			continue;
		err = journal_scan(c->p->env, c->dev, c->s, i, NULL, NULL, NULL, NULL, 0);
		if (err == -EUCLEAN || err == -EBADMSG)
			suspect(c, CHECK_JOURNAL_DAMAGED, super_journal_addr(c->s, i));
	}
}

static void look(struct check *c)
{
	chk_supers(c);
	chk_slots(c);
	look_at_journals(c);
	chk_groups(c);
	chk_layers_sort(c);
	if (!c->no_memory)
		chk_directories(c);
	if (!c->no_memory && !c->online->shallow)
		chk_layers(c);
	if (!c->no_memory)
		chk_orphans(c);
	if (!c->no_memory && !c->online->shallow)
		chk_links(c);
	if (!c->no_memory)
		chk_bitmaps(c);
}

static int by_object(const void *a, const void *b)
{
	const struct suspicion *x = a, *y = b;

	if (x->kind != y->kind)
		return x->kind < y->kind ? -1 : 1;
	if (x->key != y->key)
		return x->key < y->key ? -1 : 1;
	return x->addr < y->addr ? -1 : x->addr > y->addr;
}

static int by_block(const void *a, const void *b)
{
	const struct online_owner *x = a, *y = b;

	if (x->block != y->block)
		return x->block < y->block ? -1 : 1;
	return x->owner < y->owner ? -1 : x->owner > y->owner;
}

/* Everything is read once more for who has the blocks that @from[0 … @count - 1] suspect. */
static int find_owners(struct check *c, const struct check_params *p, struct check_result *r,
		       const struct suspicion *from, size_t count)
{
	struct check *again = calloc(1, sizeof(*again));
	struct chk_online *o = c->online;
	int err = -ENOMEM;

	if (!again)
		return err;
	again->p = p;
	again->r = r;
	again->s = c->s;
	again->dev = c->dev;
	again->online = o;
	o->wanted = from;
	o->wanted_count = count;
	err = chk_open(again);
	if (!err) {
		chk_groups(again);
		if (!again->no_memory)
			chk_directories(again);
		err = !again->no_memory ? 0 : o->stop ? o->stop : -ENOMEM;
	}
	chk_close(again);
	free(again);
	o->wanted = NULL;
	o->wanted_count = 0;
	if (o->owner_count)
		qsort(o->owners, o->owner_count, sizeof(*o->owners), by_block);
	return err;
}

static int look_again(struct check *c, const struct check_params *p, struct check_result *r)
{
	struct chk_online *o = c->online;
	size_t blocks = o->count;
	int err = 0;

	if (!o->count)
		return 0;
	/* Of the look only the clusters are still needed; who has what is found out again. */
	chk_space_free(c);
	c->groups = NULL;
	free(c->inodes);
	c->inodes = NULL;
	c->inode_count = c->inode_room = 0;
	qsort(o->list, o->count, sizeof(*o->list), by_object);
	while (blocks && o->list[blocks - 1].kind == ON_BLOCK)
		blocks--;
	err = prove_all(c, o->list, blocks);
	if (!err && blocks < o->count)
		err = find_owners(c, p, r, o->list + blocks, o->count - blocks);
	if (!err)
		err = prove_all(c, o->list + blocks, o->count - blocks);
	return err;
}

static void pass_on_progress(void *arg, const char *phase, uint64_t done, uint64_t total)
{
	struct chk_online *o = arg;

	if (o->p->progress)
		o->p->progress(o->p->arg, phase, done, total);
}

static int run(struct check *c, struct chk_online *o, const struct check_online_params *p)
{
	struct check_result *cr = calloc(1, sizeof(*cr)), *cr2 = calloc(1, sizeof(*cr2));
	int err = -ENOMEM;

	o->params = (struct check_params){ .env = p->fs->env, .dev = p->fs->dev, .arg = o,
					   .progress = pass_on_progress };
	if (cr && cr2) {
		c->p = &o->params;
		c->r = cr;
		c->s = &cr->super;
		c->dev = o->params.dev;
		c->online = o;
		err = super_find(c->dev, &cr->super, NULL, 0);
	}
	if (!err)
		err = chk_open(c);
	if (!err) {
		look(c);
		err = !c->no_memory ? 0 : o->stop ? o->stop : -ENOMEM;
	}
	if (!err) {
		o->r->directories = cr->directories;
		o->r->files = cr->files;
		o->r->others = cr->others;
		err = look_again(c, &o->params, cr2);
	}
	chk_close(c);
	free(cr);
	free(cr2);
	return err;
}

int check_online(const struct check_online_params *p, struct check_online_result *r)
{
	struct check *c = calloc(1, sizeof(*c));
	struct chk_online *o = calloc(1, sizeof(*o));
	int err = -ENOMEM;

	memset(r, 0, sizeof(*r));
	if (c && o) {
		o->p = p;
		o->r = r;
		o->fs = p->fs;
		o->shallow = o->no_claims = p->shallow;
		err = run(c, o, p);
		free(o->list);
		free(o->owners);
	}
	free(o);
	free(c);
	return err;
}
