/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading ahead: who knows what will be read says it, as a lane of places in the order in which they
 * are looked at; while one window of them is looked at the device fills the next.
 *
 * A check has a main lane (groups' headers, inode clusters, directories, bitmaps: one after the
 * other), a following one for what its blocks point to (index blocks, roots of maps and
 * directories), and one for each level of a tree.  chk_read() finds what is there by its address;
 * what is not is read then.
 *
 * Invariant: a window is what the device has, a repair's own writes included.  A write that fell
 * between a window's read and its look would otherwise be undone when the stale block is sealed
 * and written again: chk_ahead_wrote().
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fs/check/online.h"

#define PLACES_MAX	1024u		/* of a window */
#define ONLINE_BLOCKS	256u		/* of a window: hosts want the device, too */
#define IO_BLOCKS	128u		/* a request: neighbours are read together */
#define LEVEL_BLOCKS	256u		/* of a window of a tree's level */
#define WINDOWS_MAX	3u		/* of the main lane, for one of them is followed */

struct slot_at {
	struct table_node node;		/* key: address */
	struct window *w;
	uint32_t at, blocks;		/* in w->mem */
	unsigned int io;
};

struct window {
	struct lane *lane;
	unsigned int wanted;		/* of @places */
	unsigned int count, io_count;
	unsigned int pending;		/* requests, under ahead->mutex */
	uint32_t limit, room, used;	/* blocks: at most, of @mem, read */
	uint8_t	*mem;
	/* What they hold is what was added: a new window has but what is above cleared. */
	struct chk_place places[PLACES_MAX];
	struct slot_at slots[PLACES_MAX];
	struct blk_io ios[PLACES_MAX];
	struct iovec iovs[PLACES_MAX];
	int	errs[PLACES_MAX];	/* by request */
	bool	told[PLACES_MAX];	/* that it failed */
};

struct lane {
	struct chk_ahead *ahead;
	struct chk_source source;
	struct chk_place next;		/* what did not fit any more; blocks 0: nothing */
	bool	ended;
	unsigned int now, window_count;	/* the window that is being looked at */
	struct window *windows[WINDOWS_MAX];
};

struct chk_ahead {
	struct env *env;
	struct env_mutex mutex;
	struct env_cond cond;
	struct table table;		/* struct slot_at */
	/* The window of the following lane that is being filled, and how full it is. */
	struct window *following;
	uint32_t following_blocks;
	struct lane lanes[CHK_LANES];
};

/* ---- requests ---- */

static void window_done(struct blk_io *io, int err)
{
	struct window *w = io->arg;
	struct chk_ahead *a = w->lane->ahead;

	env_mutex_lock(a->env, &a->mutex);
	w->errs[io - w->ios] = err;
	if (--w->pending == 0)
		env_cond_broadcast(a->env, &a->cond);
	env_mutex_unlock(a->env, &a->mutex);
}

static void window_wait(struct window *w)
{
	struct chk_ahead *a = w->lane->ahead;

	env_mutex_lock(a->env, &a->mutex);
	while (w->pending)
		env_cond_wait(a->env, &a->cond, &a->mutex, UINT64_MAX);
	env_mutex_unlock(a->env, &a->mutex);
}

static int by_addr(const void *a, const void *b)
{
	const struct chk_place *x = a, *y = b;

	return x->addr < y->addr ? -1 : x->addr > y->addr;
}

/* Adds one place to the last request, or to a new one. */
static void window_add(struct window *w, const struct chk_place *p)
{
	struct blk_io *io = w->io_count ? &w->ios[w->io_count - 1] : NULL;
	struct slot_at *s = &w->slots[w->count];
	uint64_t len = (uint64_t)p->blocks * BLOCK_SIZE;

	if (!io || io->off + io->len != p->addr || io->len + len > IO_BLOCKS * BLOCK_SIZE) {
		struct iovec *iov = &w->iovs[w->io_count];

		io = &w->ios[w->io_count];
		w->errs[w->io_count] = 0;
		w->told[w->io_count++] = false;
		*iov = (struct iovec){ .iov_base = w->mem + (size_t)w->used * BLOCK_SIZE };
		*io = (struct blk_io){ .op = BLK_READ, .off = p->addr, .iov = iov, .iovcnt = 1,
				       .done = window_done, .arg = w };
	}
	io->len += len;
	w->iovs[w->io_count - 1].iov_len += len;
	*s = (struct slot_at){ .w = w, .at = w->used, .blocks = p->blocks, .io = w->io_count - 1 };
	/* Cannot fail: table_reserve(). */
	if (!table_insert(&w->lane->ahead->table, &s->node, p->addr))
		w->count++;
	w->used += p->blocks;
}

/* Room for @blocks: small volumes have few places, and are not to pay for large ones. */
static bool window_room(struct window *w, uint32_t blocks)
{
	uint32_t room = 2 * blocks < w->limit ? 2 * blocks : w->limit;

	if (blocks <= w->room)
		return true;
	free(w->mem);
	w->mem = blkdev_alloc((size_t)room * BLOCK_SIZE);
	w->room = w->mem ? room : 0;
	return w->mem != NULL;
}

/* Reads what is wanted, of @blocks blocks in all, but for what is being read already. */
static void window_read(struct check *c, struct window *w, uint32_t blocks)
{
	struct blk_io *batch[PLACES_MAX];

	if (!window_room(w, blocks)) {
		c->no_memory = true;
		return;
	}
	if (w->wanted > 1)
		qsort(w->places, w->wanted, sizeof(*w->places), by_addr);
	for (unsigned int i = 0; i < w->wanted; i++)
		if (!table_find(&w->lane->ahead->table, w->places[i].addr))
			window_add(w, &w->places[i]);
	for (unsigned int i = 0; i < w->io_count; i++)
		batch[i] = &w->ios[i];
	if (c->online)
		online_may_read(c, 0, w->used);
	w->pending = w->io_count;
	if (w->io_count)
		blkdev_submit(c->dev, batch, w->io_count);
}

/* What it holds was looked at, or will not be. */
static void window_empty(struct window *w)
{
	window_wait(w);
	for (unsigned int i = 0; i < w->count; i++)
		table_remove(&w->lane->ahead->table, &w->slots[i].node);
	w->wanted = w->count = w->io_count = 0;
	w->used = 0;
}

/* Return: whether there is room for @p. */
static bool window_want(struct window *w, const struct chk_place *p, uint32_t *blocks)
{
	if (w->wanted == PLACES_MAX || *blocks + p->blocks > w->limit)
		return false;
	*blocks += p->blocks;
	w->places[w->wanted++] = *p;
	return true;
}

/* ---- lanes ---- */

static void window_fill(struct check *c, struct lane *l, struct window *w)
{
	uint32_t blocks = 0;

	window_empty(w);
	while (!l->ended) {
		if (!l->next.blocks && !l->source.next(c, l->source.arg, &l->next))
			l->ended = true;
		if (l->ended || !window_want(w, &l->next, &blocks))
			break;
		l->next.blocks = 0;
	}
	window_read(c, w, blocks);
}

/* What the blocks of window @nth point to is read while the window before is looked at. */
static void follow(struct check *c, struct lane *l, unsigned int nth)
{
	struct chk_ahead *a = c->ahead;
	struct window *w = l->windows[nth % l->window_count];
	/* Of the window before the last one, which was looked at. */
	struct window *f = a->lanes[CHK_LANE_FOLLOW].windows[nth % 2];

	if (!l->source.follow)
		return;
	window_wait(w);
	window_empty(f);
	a->following = f;
	a->following_blocks = 0;
	for (unsigned int i = 0; i < w->count; i++)
		if (!w->errs[w->slots[i].io])
			l->source.follow(c, w->mem + (size_t)w->slots[i].at * BLOCK_SIZE,
					 w->slots[i].blocks);
	window_read(c, f, a->following_blocks);
	a->following = NULL;
}

void chk_ahead_follow(struct check *c, uint64_t pointer)
{
	struct chk_place p = { bptr_addr(pointer), 1 };

	if (pointer && chk_space_ok(c, p.addr >> BLOCK_SHIFT, 1))
		window_want(c->ahead->following, &p, &c->ahead->following_blocks);
}

static int lane_windows(struct check *c, enum chk_lane lane)
{
	struct chk_ahead *a = c->ahead;
	bool main = lane == CHK_LANE_MAIN, level = lane >= CHK_LANE_LEVEL;
	struct lane *l = &a->lanes[lane];

	l->ahead = a;
	while (l->window_count < (main ? WINDOWS_MAX : 2u)) {
		struct window *w = malloc(sizeof(*w));

		if (!w)
			return -ENOMEM;
		memset(w, 0, offsetof(struct window, places));
		w->lane = l;
		w->limit = c->online ? ONLINE_BLOCKS : level ? LEVEL_BLOCKS : PLACES_MAX;
		l->windows[l->window_count++] = w;
	}
	return 0;
}

static int ahead_new(struct check *c)
{
	struct chk_ahead *a = calloc(1, sizeof(*a));

	if (!a)
		return -ENOMEM;
	table_init(&a->table);
	if (table_reserve(&a->table)) {
		free(a);
		return -ENOMEM;
	}
	a->env = c->p->env;
	env_mutex_init(a->env, &a->mutex);
	env_cond_init(a->env, &a->cond);
	c->ahead = a;
	return 0;
}

void chk_ahead_begin(struct check *c, enum chk_lane lane, const struct chk_source *source)
{
	struct lane *l;

	/* While hosts change the rest it is read as late as can be. */
	if (c->online && !source->online)
		return;
	if ((!c->ahead && ahead_new(c)) || lane_windows(c, lane) ||
	    (source->follow && !c->online && lane_windows(c, CHK_LANE_FOLLOW))) {
		c->no_memory = true;
		return;
	}
	chk_ahead_end(c, lane);
	l = &c->ahead->lanes[lane];
	l->source = *source;
	if (c->online)
		l->source.follow = NULL;
	l->ended = false;
	l->next.blocks = 0;
	l->now = 0;
	for (unsigned int i = 0; i < l->window_count; i++)
		window_fill(c, l, l->windows[i]);
	follow(c, l, 0);
	follow(c, l, 1);
}

void chk_ahead_end(struct check *c, enum chk_lane lane)
{
	struct lane *l = c->ahead ? &c->ahead->lanes[lane] : NULL;

	if (!l)
		return;
	l->ended = true;
	for (unsigned int i = 0; i < l->window_count; i++)
		window_empty(l->windows[i]);
	if (lane == CHK_LANE_MAIN)
		chk_ahead_end(c, CHK_LANE_FOLLOW);
}

void chk_ahead_free(struct check *c)
{
	struct chk_ahead *a = c->ahead;

	if (!a)
		return;
	for (unsigned int n = 0; n < CHK_LANES; n++) {
		chk_ahead_end(c, n);
		for (unsigned int i = 0; i < a->lanes[n].window_count; i++) {
			free(a->lanes[n].windows[i]->mem);
			free(a->lanes[n].windows[i]);
		}
	}
	c->ahead = NULL;
	table_fini(&a->table);
	env_cond_fini(a->env, &a->cond);
	env_mutex_fini(a->env, &a->mutex);
	free(a);
}

/* ---- who reads ---- */

/* Until it is @w that is looked at; what was passed over is read anew with what comes. */
static void advance(struct check *c, const struct window *w)
{
	struct lane *l = w->lane;

	while (l->source.next && l->windows[l->now % l->window_count] != w) {
		window_fill(c, l, l->windows[l->now % l->window_count]);
		l->now++;
		follow(c, l, l->now + 1);
	}
}

/*
 * A request failed: that is told once, and the volume is not called clean, even if its parts can
 * be read one by one.  Return: -EIO what failed alone would fail again; -EAGAIN.
 */
static int request_failed(struct check *c, struct window *w, const struct slot_at *s)
{
	const struct blk_io *io = &w->ios[s->io];

	if (c->online)
		c->online->blocks = (uint32_t)(io->len / BLOCK_SIZE);
	if (!w->told[s->io])
		chk_report(c, CHECK_UNREADABLE, io->off, "%u blocks cannot be read: %s",
			   (unsigned int)(io->len / BLOCK_SIZE), strerror(-w->errs[s->io]));
	w->told[s->io] = true;
	return io->len == (uint64_t)s->blocks * BLOCK_SIZE ? -EIO : -EAGAIN;
}

int chk_ahead_get(struct check *c, uint64_t addr, uint32_t blocks, uint8_t **data)
{
	struct table_node *n = c->ahead ? table_find(&c->ahead->table, addr) : NULL;
	struct slot_at *s = n ? container_of(n, struct slot_at, node) : NULL;

	/* A part of a place is somebody's pointer into it: that must not take the present window away. */
	if (!s || s->blocks != blocks)
		return -ENOENT;
	advance(c, s->w);
	window_wait(s->w);
	if (s->w->errs[s->io])
		return request_failed(c, s->w, s);
	*data = s->w->mem + (size_t)s->at * BLOCK_SIZE;
	return 0;
}

static void window_wrote(struct window *w, uint64_t addr, const uint8_t *data, size_t len)
{
	for (unsigned int i = 0; i < w->io_count; i++) {
		const struct blk_io *io = &w->ios[i];
		uint64_t from = addr > io->off ? addr : io->off;
		uint64_t to = addr + len < io->off + io->len ? addr + len : io->off + io->len;

		if (from >= to)
			continue;
		window_wait(w);
		/* It may be the very block that was changed in place. */
		memmove((uint8_t *)w->iovs[i].iov_base + (from - io->off), data + (from - addr),
			to - from);
	}
}

void chk_ahead_wrote(struct check *c, uint64_t addr, const void *data, size_t len)
{
	for (unsigned int n = 0; c->ahead && n < CHK_LANES; n++)
		for (unsigned int i = 0; i < c->ahead->lanes[n].window_count; i++)
			window_wrote(c->ahead->lanes[n].windows[i], addr, data, len);
}
