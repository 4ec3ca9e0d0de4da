/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether what a look at one object found is so.
 *
 * Claim: if the blocks that a look read (the evidence) are at home, byte for byte, the same in a
 * second look, and if between the two looks no journal held an image of any of them, then at
 * the time of the first look they were, all together, what the volume says.
 *
 * For take a change of one of them that the first look did not see, though it was committed before.
 * It was not at home then.  If it was when the second look read it, the bytes differ, for versions
 * only rise.  If not, no tail had moved past it (journal.h), and it was in the journal when that was
 * read, which was after the commit.  A write home that was under way is a case of the first kind:
 * its image is in the journal until it has ended.  A block that was freed and serves
 * another is one, too: its freeing is at home before that (quarantine).
 *
 * What would break it: journals read before the first look; a journal whose tail moves while it is
 * read, and whose newer transactions overwrite what was to be read (the tail is read again); a
 * torn tail that makes the older one count (of a host that lives both must be whole); the slot of
 * a host that joins after it was found free (what it commits comes after the first look).
 *
 * The cluster lock of an inode, shared, and a settle are only to make it stand still: without them
 * what changes all the time would never be proved.  Held for as long as two short looks take.
 */
#include "fs/check/online.h"

#include <errno.h>
#include <stdlib.h>

#include "fs/internal.h"
#include "fs/journal_ring.h"

#define TRIES		6u
#define PAUSE_NS	(40 * NSEC_PER_MSEC)	/* before the second; twice as long each time */
#define SCANS		4u			/* of a journal whose tail moves */
#define LOCKED_BLOCKS	256u			/* a look under a lock reads no more */

/* ---- journals ---- */

struct wanted_images {
	const uint64_t *addrs;		/* sorted */
	size_t	count;
	bool	met;
};

static int by_addr(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static int meet_image(void *arg, uint64_t addr, const void *block)
{
	struct wanted_images *w = arg;

	(void)block;
	w->met = w->met || bsearch(&addr, w->addrs, w->count, sizeof(addr), by_addr);
	return 0;
}

/* Both tail blocks are whole, and the newer one is version @version. */
static bool tail_is(struct check *c, uint32_t slot, uint64_t version)
{
	uint8_t blocks[JOURNAL_TAIL_BLOCKS * BLOCK_SIZE] BLKDEV_ALIGNED;
	uint64_t addr = super_journal_addr(c->s, slot), newest = 0;

	if (blkdev_read(c->dev, addr, blocks, sizeof(blocks)))
		return false;
	for (uint32_t i = 0; i < JOURNAL_TAIL_BLOCKS; i++) {
		struct meta_expect e = { META_TAIL, c->s->volume, addr + i * BLOCK_SIZE, slot, 0 };
		const void *block = blocks + i * BLOCK_SIZE;

		if (meta_verify(block, &e, NULL, 0))
			return false;
		if (meta_version(block) > newest)
			newest = meta_version(block);
	}
	return newest == version;
}

/* 0: @slot's journal holds none of them; -EAGAIN: it does, or that cannot be said now. */
static int scan_slot(struct check *c, uint32_t slot, struct wanted_images *w)
{
	struct ring_head head;
	struct ring r;
	int err;

	for (unsigned int i = 0; i < SCANS; i++) {
		ring_init(&r, c->dev, c->s, slot);
		err = ring_scan(&r, meet_image, w, &head, NULL, 0);
		if (err == -ENOMEM)
			return err;
		if (w->met)
			return -EAGAIN;
		if (!err && tail_is(c, slot, r.version))
			return 0;
	}
	return -EAGAIN;
}

/* Whether no journal holds an image of what @ev read. */
static int scan_all(struct check *c, struct evidence *ev)
{
	struct wanted_images w = { ev->addrs, ev->count, false };
	uint8_t *block = c->levels[0];
	struct slot slot;
	int err = 0;

	if (ev->count)
		qsort(ev->addrs, ev->count, sizeof(*ev->addrs), by_addr);
	for (uint32_t i = 0; i < c->s->slot_count && !err; i++) {
		uint64_t addr = c->s->slots_addr + (uint64_t)i * BLOCK_SIZE;

		if (blkdev_read(c->dev, addr, block, BLOCK_SIZE))
			return -EAGAIN;
		/* Who has left has everything at home, and so has who was recovered. */
		if (!slot_decode(block, c->s->volume, addr, i, &slot, NULL, 0) &&
		    slot.state == SLOT_FREE)
			continue;
		err = scan_slot(c, i, &w);
	}
	return err;
}

/* ---- a look ---- */

static void want_leaves(struct chk_online *o)
{
	o->filter = true;
	o->only_count = 0;
	memset(o->codes, 0, sizeof(o->codes));
	for (size_t i = 0; i < o->what_count; i++) {
		unsigned int code = o->what[i].code;

		o->codes[code / 64] |= 1ULL << code % 64;
		if (code == CHECK_INODE_BLOCKS || code == CHECK_INODE_SIZE ||
		    code == CHECK_INODE_INVALID || o->only_count == FOUND_MAX)
			o->filter = false;
		else
			o->only[o->only_count++] = o->what[i].addr;
	}
	if (o->what->kind == ON_LINKS)
		o->filter = false;
	for (size_t i = 0; i < o->of_count && o->filter; i++) {
		o->filter = o->only_count < FOUND_MAX;
		if (o->filter)
			o->only[o->only_count++] = o->of[i].from;
	}
}

/* The volume as it is now: it may have grown. */
static int renew_super(struct check *c)
{
	struct chk_online *o = c->online;
	uint32_t groups = o->super.ag_count;
	int err = super_find(c->dev, &o->super, NULL, 0);

	if (err || o->super.ag_count == groups)
		return err;
	chk_close(c);
	c->groups = NULL;
	c->cluster = NULL;
	c->clusters = c->looking = NULL;
	c->layers = NULL;
	c->inodes = NULL;
	c->cluster_count = c->cluster_room = c->layer_count = c->layer_room = 0;
	c->inode_count = c->inode_room = 0;
	memset(c->levels, 0, sizeof(c->levels));
	return chk_open(c);
}

/* Return: 0, what it found is in c->online; -EAGAIN it could not be done; -ENOMEM, as pace(). */
static int look(struct check *c)
{
	struct chk_online *o = c->online;
	int err;

	o->found_count = 0;
	o->ev.count = 0;
	o->ev.crc = 0;
	o->reads = 0;
	o->mute = false;
	err = renew_super(c);
	if (err)
		return err == -ENOMEM ? err : -EAGAIN;
	for (uint32_t ag = 0; ag < c->s->ag_count; ag++)
		c->groups[ag].blocks = super_ag_blocks(c->s, ag);
	c->layer_count = c->inode_count = c->cluster_count = 0;
	relook(c);
	if (c->no_memory)
		return o->stop ? o->stop : -ENOMEM;
	return o->reads > RELOOK_READS_MAX ? -EAGAIN : 0;
}

/* ---- standing still ---- */

struct held {
	struct inode *ino;
	bool	super;
};

/*
 * What can be locked is; NULL and false in @h: nothing was.  Whoever waits for a lock that
 * another host's open has asks it, and is denied within a beat or two.
 */
static void hold(struct check *c, struct held *h)
{
	struct chk_online *o = c->online;
	struct fs *fs = o->fs;

	memset(h, 0, sizeof(*h));
	if (o->what->kind == ON_SUPER)
		h->super = !cluster_get(fs, &fs->super_cover.lock, LOCK_EXCLUSIVE, 0, NULL);
	else if (o->what->kind >= ON_INODE && o->what->kind <= ON_LAYER && o->id &&
		 o->reads <= LOCKED_BLOCKS && inode_lock_shared(fs, o->id, &h->ino))
		h->ino = NULL;
	o->locked = h->ino || h->super;
	/* Under the lock nobody changes it; what this host has changed before goes home. */
	if (fs->journal && !fs->read_only)
		journal_settle(fs);
}

static void let_go(struct check *c, struct held *h)
{
	struct fs *fs = c->online->fs;

	c->online->locked = false;
	if (h->ino)
		inode_unlock_free(fs, h->ino);
	if (h->super)
		cluster_put(fs, &fs->super_cover.lock, LOCK_EXCLUSIVE, 0);
}

/* ---- the proof ---- */

/* What the look found, once and for all.  Return: 0 proved or dismissed; -EAGAIN neither. */
static int compare(struct check *c)
{
	struct chk_online *o = c->online;
	struct evidence first;
	int err = look(c);

	if (err || !o->found_count)
		return err;
	first = o->ev;
	err = scan_all(c, &o->ev);
	if (!err)
		err = look(c);
	if (!err && (o->ev.crc != first.crc || o->ev.count != first.count))
		err = -EAGAIN;
	return err;
}

static void report(struct check *c)
{
	struct chk_online *o = c->online;

	for (unsigned int i = 0; i < o->found_count; i++) {
		struct check_finding f = { o->found[i].code, o->found[i].addr, o->found[i].text,
					   o->found[i].inode, false };

		if (f.inode && o->id)
			f.inode = o->id;


		o->r->errors++;
		o->r->unreadable += f.code == CHECK_UNREADABLE;
		o->p->report(o->p->arg, &f);
	}
}

static int prove(struct check *c)
{
	struct chk_online *o = c->online;
	struct held h;
	int err = -EAGAIN;

	o->r->looked_again++;
	o->id = 0;
	want_leaves(o);
	for (unsigned int i = 0; i < TRIES && err == -EAGAIN; i++) {
		if (i)
			env_sleep_until(c->p->env, env_now_ns(c->p->env) + (PAUSE_NS << i));
		err = look(c);
		if (!err && !o->found_count)
			return 0;	/* it was in motion */
		if (err)
			continue;
		hold(c, &h);
		err = compare(c);
		let_go(c, &h);
	}
	if (!err)
		report(c);
	o->r->unproved += err == -EAGAIN;
	return err == -EAGAIN ? 0 : err;
}

/* The struct check of all looks at single objects. */
static struct check *looker_new(const struct check *main)
{
	struct check *c = calloc(1, sizeof(*c));
	struct chk_online *o = calloc(1, sizeof(*o));

	if (!c || !o)
		goto failed;
	o->blocks_mem = blkdev_alloc((size_t)4 * BLOCK_SIZE);
	if (!o->blocks_mem)
		goto failed;
	o->p = main->online->p;
	o->r = main->online->r;
	o->fs = main->online->fs;
	o->relook = o->no_claims = true;
	o->main = main;
	o->super = *main->s;
	c->online = o;
	c->p = main->p;
	c->r = main->r;
	c->s = &o->super;
	c->dev = main->dev;
	memcpy(c->slots, main->slots, sizeof(c->slots));
	memcpy(c->slot_valid, main->slot_valid, sizeof(c->slot_valid));
	if (!chk_open(c))
		return c;
	chk_close(c);
	free(o->blocks_mem);
failed:
	free(o);
	free(c);
	return NULL;
}

static void looker_free(struct check *c)
{
	struct chk_online *o = c->online;

	chk_close(c);
	free(o->ev.addrs);
	free(o->blocks_mem);
	free(o);
	free(c);
}

/* Those of @all that have a block in common, from *@at on. */
static void owners_of(struct chk_online *o, const struct chk_online *all, uint64_t block, size_t *at)
{
	while (*at < all->owner_count && all->owners[*at].block < block)
		++*at;
	o->of = all->owners + *at;
	for (o->of_count = 0; *at + o->of_count < all->owner_count &&
			      o->of[o->of_count].block == block; o->of_count++)
		;
}

int prove_all(struct check *main, const struct suspicion *list, size_t count)
{
	struct check *c = count ? looker_new(main) : NULL;
	size_t end, owner = 0;
	int err = count && !c ? -ENOMEM : 0;

	for (size_t i = 0; i < count && !err; i = end) {
		for (end = i + 1; end < count && list[end].kind == list[i].kind &&
				  list[end].key == list[i].key; end++)
			;
		c->online->what = list + i;
		c->online->what_count = end - i;
		if (list[i].kind == ON_BLOCK)
			owners_of(c->online, main->online, list[i].key, &owner);
		chk_progress(main, "again", end, count);
		if (list[i].kind != ON_BLOCK || c->online->of_count)
			err = prove(c);
	}
	if (c)
		looker_free(c);
	return err;
}
