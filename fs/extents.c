/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/extents.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES	(EXTENTS_CHUNK * sizeof(struct extent))
static_assert(CHUNK_BYTES == 4096, "a chunk is a page");

#define GUESS_ERROR	4u	/* runs, a line of the processor's cache */

/* Where a run is, or would be. */
struct place {
	unsigned int chunk, run;
};

void extents_init(struct extents *x, size_t bytes)
{
	memset(x, 0, sizeof(*x));
	x->max = (unsigned int)(bytes / (CHUNK_BYTES + sizeof(*x->chunks)));
	assert(x->max >= 4);
}

void extents_fini(struct extents *x)
{
	for (unsigned int i = 0; i < x->count; i++)
		free(x->chunks[i].runs);
	free(x->chunks);
	memset(x, 0, sizeof(*x));
}

size_t extents_bytes(const struct extents *x)
{
	return x->count * CHUNK_BYTES + x->room * sizeof(*x->chunks);
}

static uint64_t run_end(const struct extent *e)
{
	return e->start + e->len;
}

/* ---- searching ---- */

/*
 * Where a disk is in many pieces, under many snapshots say, this is what a request costs more than on
 * one in a single piece.  So: steps without branches, of which a processor guesses half wrong, each for
 * the time of several steps; and few lines of memory, for most are not in its cache.
 */

/* The last chunk that begins at or before @block; the first if none does. */
static unsigned int chunk_find(const struct extents *x, uint64_t block)
{
	const struct extents_chunk *at = x->chunks;
	unsigned int half;

	for (unsigned int n = x->count; n > 1; n -= half) {
		half = n / 2;
		at += half & -(unsigned int)(at[half].start <= block);
	}
	return (unsigned int)(at - x->chunks);
}

/* The last of @n runs that begins at or before @block; the first if none does. */
static unsigned int run_search(const struct extent *runs, unsigned int n, uint64_t block)
{
	const struct extent *at = runs;
	unsigned int half;

	for (; n > 1; n -= half) {
		half = n / 2;
		at += half & -(unsigned int)(at[half].start <= block);
	}
	return (unsigned int)(at - runs);
}

/* The same of chunk @i.  Its runs are mostly about as long: near where @block would be then. */
static unsigned int run_near(const struct extents *x, unsigned int i, uint64_t block)
{
	const struct extents_chunk *c = &x->chunks[i];
	unsigned int guess, low, high, first = 0, end = c->count;
	uint64_t next;

	if (end <= 2 * GUESS_ERROR || block <= c->start)
		return run_search(c->runs, end, block);
	next = i + 1 < x->count ? x->chunks[i + 1].start : run_end(&c->runs[end - 1]);
	if (block >= next)
		return end - 1;
	guess = (unsigned int)((block - c->start) * end / (next - c->start));
	if (c->runs[guess].start <= block && run_end(&c->runs[guess]) > block)
		return guess;
	low = guess > GUESS_ERROR ? guess - GUESS_ERROR : 0;
	high = guess + GUESS_ERROR < end ? guess + GUESS_ERROR : end;
	if (c->runs[low].start > block)
		end = low;
	else if (high < end && c->runs[high].start <= block)
		first = high;
	else {
		first = low;
		end = high;
	}
	return first + run_search(c->runs + first, end - first, block);
}

/* The first run of chunk @i that ends behind @block; its count if none does. */
static unsigned int run_find(const struct extents *x, unsigned int i, uint64_t block)
{
	unsigned int at = run_near(x, i, block);

	return at + (run_end(&x->chunks[i].runs[at]) <= block);
}

/* The first run that ends behind @block.  NULL: none. */
static struct extent *seek(const struct extents *x, uint64_t block, struct place *p)
{
	if (!x->count)
		return NULL;
	p->chunk = chunk_find(x, block);
	p->run = run_find(x, p->chunk, block);
	if (p->run == x->chunks[p->chunk].count) {
		if (++p->chunk == x->count)
			return NULL;
		p->run = 0;
	}
	return &x->chunks[p->chunk].runs[p->run];
}

/* Shortens @e by @by blocks at its beginning. */
static void run_advance(struct extent *e, uint64_t by)
{
	*e = extent_make(e->start + by, e->len - by, e->kind,
			 e->kind == EXTENT_ZERO ? 0 : e->block + by);
}

bool extents_find(struct extents *x, uint64_t block, struct extent *e)
{
	struct place p;
	const struct extent *found = seek(x, block, &p);

	if (!found || found->start > block)
		return false;
	x->chunks[p.chunk].used = 1;
	*e = *found;
	run_advance(e, block - e->start);
	return true;
}

/* ---- chunks ---- */

static void chunk_remove(struct extents *x, unsigned int i)
{
	free(x->chunks[i].runs);
	x->count--;
	memmove(x->chunks + i, x->chunks + i + 1, (x->count - i) * sizeof(*x->chunks));
	if (x->hand > i)
		x->hand--;
}

static bool room_for_one(struct extents *x)
{
	unsigned int room = x->room ? 2 * x->room : 16;
	struct extents_chunk *chunks;

	if (x->count < x->room)
		return true;
	room = room < x->max ? room : x->max;
	chunks = realloc(x->chunks, room * sizeof(*chunks));
	if (!chunks)
		return false;
	x->chunks = chunks;
	x->room = room;
	return true;
}

/* Forgets one chunk, not @keep, that was not used for a while. */
static void evict(struct extents *x, unsigned int keep)
{
	for (unsigned int i = 0; i < 2 * x->count + 2; i++) {
		if (x->hand >= x->count)
			x->hand = 0;
		if (x->hand != keep && !x->chunks[x->hand].used) {
			x->evictions++;
			chunk_remove(x, x->hand);
			return;
		}
		x->chunks[x->hand++].used = 0;
	}
}

/* A new chunk, of no runs yet, behind @*i, which may move.  false: no memory. */
static bool chunk_new(struct extents *x, unsigned int *i)
{
	const struct extent *kept = x->count ? x->chunks[*i].runs : NULL;
	struct extent *runs;

	while (x->count >= x->max) {
		evict(x, *i);
		if (*i >= x->count || x->chunks[*i].runs != kept)
			--*i;
	}
	runs = room_for_one(x) ? malloc(CHUNK_BYTES) : NULL;
	if (!runs)
		return false;
	if (kept)
		++*i;
	memmove(x->chunks + *i + 1, x->chunks + *i, (x->count - *i) * sizeof(*x->chunks));
	if (x->hand > *i)
		x->hand++;
	x->chunks[*i] = (struct extents_chunk){ .used = 1, .runs = runs };
	x->count++;
	return true;
}

/* Its first run is another one, or begins elsewhere. */
static void chunk_note_start(struct extents *x, unsigned int i)
{
	x->chunks[i].start = x->chunks[i].runs[0].start;
}

static void run_remove(struct extents *x, struct place p)
{
	struct extents_chunk *c = &x->chunks[p.chunk];

	c->count--;
	if (!c->count) {
		chunk_remove(x, p.chunk);
		return;
	}
	memmove(c->runs + p.run, c->runs + p.run + 1, (c->count - p.run) * sizeof(c->runs[0]));
	chunk_note_start(x, p.chunk);
}

/* The full chunk @p->chunk becomes two; @p moves with its run.  false: no memory. */
static bool chunk_split(struct extents *x, struct place *p)
{
	unsigned int half = EXTENTS_CHUNK / 2, at = p->chunk;
	struct extents_chunk *c, *behind;

	/* Runs come mostly in order: a chunk that grows at its end stays full. */
	if (p->run == EXTENTS_CHUNK)
		half = EXTENTS_CHUNK - 1;
	if (!chunk_new(x, &at))
		return false;
	behind = &x->chunks[at];
	c = behind - 1;
	behind->count = (EXTENTS_CHUNK - half) & 511;
	memcpy(behind->runs, c->runs + half, behind->count * sizeof(c->runs[0]));
	c->count = half & 511;
	chunk_note_start(x, at);
	p->chunk = at - 1;
	if (p->run >= half) {
		p->chunk = at;
		p->run -= half;
	}
	return true;
}

/* Puts @e where @p says; nothing there overlaps it. */
static void run_insert(struct extents *x, struct place p, const struct extent *e)
{
	struct extents_chunk *c;

	if (!x->count) {
		p = (struct place){ 0 };
		if (!chunk_new(x, &p.chunk))
			return;
	} else if (x->chunks[p.chunk].count == EXTENTS_CHUNK && !chunk_split(x, &p)) {
		return;
	}
	c = &x->chunks[p.chunk];
	memmove(c->runs + p.run + 1, c->runs + p.run, (c->count - p.run) * sizeof(c->runs[0]));
	c->runs[p.run] = *e;
	c->count++;
	c->used = 1;
	chunk_note_start(x, p.chunk);
}

/* ---- changing ---- */

static bool follows(const struct extent *a, const struct extent *b)
{
	return a->kind == b->kind && run_end(a) == b->start &&
	       (a->kind == EXTENT_ZERO || a->block + a->len == b->block) &&
	       (uint64_t)a->len + b->len <= EXTENT_LEN_MAX;
}

/* Where a run that begins at @start is to stand: behind the last that begins before it. */
static struct place place_of(const struct extents *x, uint64_t start)
{
	struct place p = { 0 };

	if (!x->count)
		return p;
	p.chunk = chunk_find(x, start);
	p.run = run_find(x, p.chunk, start);
	return p;
}

static void insert_merged(struct extents *x, const struct extent *e)
{
	struct place p = place_of(x, e->start), next;
	struct extent *before, *behind;

	if (x->count && p.run) {
		before = &x->chunks[p.chunk].runs[p.run - 1];
		if (follows(before, e)) {
			before->len += e->len;
			x->chunks[p.chunk].used = 1;
			/* Perhaps a hole between two runs was filled. */
			behind = seek(x, run_end(before), &next);
			if (behind && follows(before, behind)) {
				before->len += behind->len;
				run_remove(x, next);
			}
			return;
		}
	}
	if (x->count && p.run < x->chunks[p.chunk].count) {
		behind = &x->chunks[p.chunk].runs[p.run];
		if (follows(e, behind)) {
			behind->start = e->start;
			behind->len += e->len;
			if (e->kind != EXTENT_ZERO)
				behind->block = e->block;
			chunk_note_start(x, p.chunk);
			return;
		}
	}
	run_insert(x, p, e);
}

void extents_forget(struct extents *x, uint64_t start, uint64_t len)
{
	uint64_t end = start + len;
	struct extent *e, rest;
	struct place p;

	while ((e = seek(x, start, &p)) && e->start < end) {
		rest = *e;
		if (e->start < start) {
			*e = extent_make(e->start, start - e->start, e->kind, e->block);
			if (run_end(&rest) > end) {
				run_advance(&rest, end - rest.start);
				run_insert(x, place_of(x, rest.start), &rest);
			}
		} else if (run_end(e) > end) {
			run_advance(e, end - e->start);
			chunk_note_start(x, p.chunk);
		} else {
			run_remove(x, p);
		}
	}
}

/* Appends @e to the @n runs at @runs, or to the last of them.  Return: how many they are then. */
static unsigned int run_append(struct extent *runs, unsigned int n, const struct extent *e)
{
	if (n && follows(&runs[n - 1], e)) {
		runs[n - 1].len += e->len;
		return n;
	}
	runs[n] = *e;
	return n + 1;
}

/*
 * @e lies within one run, of another kind, that is not at an edge of its chunk: what a first write
 * does, with one search.  false: it is to be set as anything else.
 */
static bool set_within(struct extents *x, const struct extent *e)
{
	struct extent runs[5], rest;
	struct extents_chunk *c;
	struct extent *old;
	unsigned int n = 0;
	struct place p;

	old = seek(x, e->start, &p);
	if (!old || old->start > e->start || run_end(old) < run_end(e))
		return false;
	c = &x->chunks[p.chunk];
	if (!p.run || p.run + 1 == c->count || c->count + 2u > EXTENTS_CHUNK)
		return false;
	n = run_append(runs, n, old - 1);
	if (old->start < e->start) {
		rest = extent_make(old->start, e->start - old->start, old->kind, old->block);
		n = run_append(runs, n, &rest);
	}
	n = run_append(runs, n, e);
	if (run_end(old) > run_end(e)) {
		rest = *old;
		run_advance(&rest, run_end(e) - rest.start);
		n = run_append(runs, n, &rest);
	}
	n = run_append(runs, n, old + 1);
	/* @n runs for three. */
	memmove(c->runs + p.run - 1 + n, c->runs + p.run + 2,
		(c->count - p.run - 2) * sizeof(c->runs[0]));
	memcpy(c->runs + p.run - 1, runs, n * sizeof(runs[0]));
	c->count = (c->count + n - 3) & 511;
	c->used = 1;
	return true;
}

void extents_set(struct extents *x, uint64_t start, uint64_t len, enum extent_kind kind,
		 uint64_t block)
{
	struct extent e;

	if (len <= EXTENT_LEN_MAX) {
		e = extent_make(start, len, kind, kind == EXTENT_ZERO ? 0 : block);
		if (len && set_within(x, &e))
			return;
	}
	extents_forget(x, start, len);
	while (len) {
		e = extent_make(start, len < EXTENT_LEN_MAX ? len : EXTENT_LEN_MAX, kind,
				kind == EXTENT_ZERO ? 0 : block);
		insert_merged(x, &e);
		start += e.len;
		block += e.len;
		len -= e.len;
	}
}

void extents_room(struct extents *x, uint64_t start, uint64_t len, uint64_t block)
{
	uint64_t at = start, end = start + len, n;
	struct extent e;

	for (; at < end; at += n) {
		if (!extents_find(x, at, &e)) {
			n = 1;
			continue;
		}
		n = e.len < end - at ? e.len : end - at;
		if (e.kind == EXTENT_ZERO)
			extents_set(x, at, n, EXTENT_ROOM, block + (at - start));
	}
}

void extents_freeze(struct extents *x)
{
	for (unsigned int i = 0; i < x->count; i++) {
		for (unsigned int k = 0; k < x->chunks[i].count; k++) {
			struct extent *e = &x->chunks[i].runs[k];

			if (e->kind == EXTENT_OWN)
				e->kind = EXTENT_BELOW;
			else if (e->kind == EXTENT_ROOM)
				*e = extent_make(e->start, e->len, EXTENT_ZERO, 0);
		}
	}
}
