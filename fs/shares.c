/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/shares.h"

#include <assert.h>
#include <string.h>

#define TAG_SCALE	(1u << 20)	/* of a cost of one with one share; 2^64 is never reached */

#define BATCH		64u

static void turn(struct reactor_call *call)
{
	struct shares *g = container_of(call, struct shares, call);

	shares_turn(g, env_now_ns(g->lower->env));
}

void shares_init(struct shares *g, struct blkdev *lower, unsigned int depth)
{
	memset(g, 0, sizeof(*g));
	list_init(&g->turns);
	g->call.fn = turn;
	g->lower = lower;
	g->depth = depth;
}

void share_init(struct share *s)
{
	memset(s, 0, sizeof(*s));
	list_init(&s->node);
	list_init(&s->queue);
}

static uint64_t weight_of(const struct share *s)
{
	return s->shares ? s->shares : SHARES_DEFAULT;
}

static uint64_t cost_of(const struct share *s, const struct blk_io *io)
{
	uint64_t cost = 1 + io->len / SHARES_COST_BYTES;

	return cost * TAG_SCALE / weight_of(s);
}

/* To its place among those that wait, behind its equals; mostly that is near the end. */
static void take_place(struct shares *g, struct share *s)
{
	struct list *before = g->turns.prev;

	while (before != &g->turns && container_of(before, struct share, node)->tag > s->tag)
		before = before->prev;
	list_insert(&s->node, before->next);
}

/*
 * The least tag that who had nothing waiting begins with.  Who rested has no claim on what others had
 * meanwhile; but a guest whose processor was another's for a moment did not rest: what it missed for
 * that it has first, up to so many requests.
 */
static uint64_t floor_of(const struct shares *g, const struct share *s, uint64_t now_ns)
{
	uint64_t missed = (uint64_t)SHARES_LATE_DEPTHS * g->depth * TAG_SCALE / weight_of(s);

	if (now_ns - s->empty_ns > SHARES_MEMORY_NS || missed > g->now)
		return g->now;
	return g->now - missed;
}

static void enqueue(struct shares *g, struct share *s, struct blk_io *io, uint64_t now_ns)
{
	uint64_t least;

	list_add_tail(&s->queue, &io->node);
	if (s->queued++)
		return;
	least = floor_of(g, s, now_ns);
	if (s->tag < least)
		s->tag = least;
	take_place(g, s);
}

static struct blk_io *dequeue(struct shares *g, uint64_t now_ns)
{
	struct share *s = list_first(&g->turns, struct share, node);
	struct blk_io *io = list_first(&s->queue, struct blk_io, node);

	list_del(&io->node);
	list_del(&s->node);
	/* Never back: one that is late has its turn before it. */
	if (s->tag > g->now)
		g->now = s->tag;
	s->tag += cost_of(s, io);
	if (--s->queued)
		take_place(g, s);
	else
		s->empty_ns = now_ns;
	g->at_device++;
	return io;
}

static bool has_room(const struct shares *g, uint64_t now_ns)
{
	return g->at_device < g->depth || now_ns >= g->compete_until_ns || !g->members;
}

void shares_turn(struct shares *g, uint64_t now_ns)
{
	struct blk_io *batch[BATCH];
	unsigned int n;

	/* A request that ends within, and what its submitter sends then, is found by the loop. */
	if (g->sending)
		return;
	g->sending = true;
	do {
		for (n = 0; n < BATCH && !list_empty(&g->turns) && has_room(g, now_ns); n++)
			batch[n] = dequeue(g, now_ns);
		if (n)
			blkdev_submit(g->lower, batch, n);
	} while (n);
	g->sending = false;
}

void share_set(struct shares *g, struct share *s, unsigned int shares)
{
	if (shares && !s->shares)
		g->members++;
	else if (!shares && s->shares)
		g->members--;
	s->shares = shares;
	if (!shares && g->last == s)
		g->last = NULL;
	if (!g->members)
		shares_turn(g, UINT64_MAX);
}

unsigned int shares_submit(struct shares *g, struct share *s, struct blk_io **ios,
			   unsigned int count, uint64_t now_ns)
{
	if (g->last != s) {
		if (g->last)
			g->compete_until_ns = now_ns + SHARES_MEMORY_NS;
		g->last = s;
	}
	for (unsigned int i = 0; i < count; i++)
		enqueue(g, s, ios[i], now_ns);
	shares_turn(g, now_ns);
	return s->queued < count ? s->queued : count;
}

bool shares_ended(struct shares *g)
{
	assert(g->at_device);
	g->at_device--;
	return !list_empty(&g->turns);
}
