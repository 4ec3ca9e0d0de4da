// SPDX-License-Identifier: Apache-2.0
#include "block/simstore.h"

#include <stdlib.h>

#define PAGE_SIZE	4096u
#define TEAR_MIN	512u
#define SECTORS		(PAGE_SIZE / TEAR_MIN)

/* More is written back at once, as any device does: heartbeats alone must not eat memory. */
#define VOLATILE_BYTES_MAX	(64 * MIB)

struct page {
	struct table_node node;
	uint8_t data[PAGE_SIZE];	/* as reads see it */
	uint8_t *durable;		/* as a power cut would leave it; NULL: the same */
	unsigned int writes;		/* volatile writes that touch it */
	uint64_t hardened[SECTORS];	/* number of the write that is durable there */
};

struct write {
	struct list node;
	uint64_t number;
	uint64_t completion;		/* its place among completed writes; 0: not completed */
	uint64_t off, len;
	uint8_t *data;			/* NULL: zeros */
	const void *writer;
};

/* Not zeroed. */
static void *must_alloc(size_t size)
{
	void *p = malloc(size);

	if (!p)
		abort();
	return p;
}

void simstore_init(struct simstore *s, uint32_t sector, bool garbage, uint64_t garbage_seed)
{
	memset(s, 0, sizeof(*s));
	table_init(&s->pages);
	list_init(&s->writes);
	s->sector = sector;
	s->garbage = garbage;
	s->garbage_seed = garbage_seed;
}

static void page_free(struct table_node *node, void *arg)
{
	struct page *p = container_of(node, struct page, node);
	struct simstore *s = arg;

	table_remove(&s->pages, node);
	free(p->durable);
	free(p);
}

static void write_free(struct simstore *s, struct write *w)
{
	list_del(&w->node);
	s->writes_bytes -= w->len;
	free(w->data);
	free(w);
}

static void share_end(struct simstore *s)
{
	if (s->share)
		simstore_put(s->share);
	s->share = NULL;
}

void simstore_put(struct simstore *s)
{
	if (--s->users)
		return;
	simstore_fini(s);
	free(s);
}

void simstore_fini(struct simstore *s)
{
	struct write *w, *tmp;

	list_for_each(w, tmp, &s->writes, node)
		write_free(s, w);
	table_each(&s->pages, page_free, s);
	table_fini(&s->pages);
	share_end(s);
}

/* What a page holds that nobody has written: the same in each run of a seed. */
static void page_garbage(const struct simstore *s, uint64_t index, uint8_t *data)
{
	uint64_t x = s->garbage_seed ^ (index + 1) * 0x9e3779b97f4a7c15;

	if (!s->garbage) {
		memset(data, 0, PAGE_SIZE);
		return;
	}
	for (unsigned int i = 0; i < PAGE_SIZE; i += sizeof(x)) {
		x ^= x << 13;	/* xorshift64 (Marsaglia 2003) */
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(data + i, &x, sizeof(x));
	}
}

/* For reading: it may be shared. */
static const struct page *page_look(const struct simstore *s, uint64_t index)
{
	struct table_node *node = table_find(&s->pages, index);

	if (!node && s->share)
		node = table_find(&s->share->pages, index);
	return node ? container_of(node, struct page, node) : NULL;
}

/* One that a volatile write touches is never shared. */
static struct page *page_find(const struct simstore *s, uint64_t index)
{
	struct table_node *node = table_find(&s->pages, index);

	return node ? container_of(node, struct page, node) : NULL;
}

static struct page *page_add(struct simstore *s, uint64_t index, const struct page *from)
{
	struct page *p = must_alloc(sizeof(*p));

	if (from) {
		*p = *from;
	} else {
		memset(p->hardened, 0, sizeof(p->hardened));
		p->durable = NULL;
		p->writes = 0;
		page_garbage(s, index, p->data);
	}
	if (table_insert(&s->pages, &p->node, index))
		abort();
	return p;
}

static struct page *page_get(struct simstore *s, uint64_t index)
{
	struct page *p = page_find(s, index);

	return p ? p : page_add(s, index, page_look(s, index));
}

static uint8_t *copied(const uint8_t *data, size_t len)
{
	return memcpy(must_alloc(len), data, len);
}

struct copying {
	struct simstore *to;
	bool volatile_only;
};

static void page_copy(struct table_node *node, void *arg)
{
	const struct page *from = container_of(node, struct page, node);
	const struct copying *copying = arg;
	struct page *to;

	if (page_find(copying->to, node->key) || (copying->volatile_only && !from->writes))
		return;
	to = page_add(copying->to, node->key, from);
	if (from->durable)
		to->durable = copied(from->durable, PAGE_SIZE);
}

/* All but the pages. */
static void copy_begin(struct simstore *to, const struct simstore *from)
{
	struct write *w, *tmp;

	*to = *from;
	table_init(&to->pages);
	list_init(&to->writes);
	to->share = NULL;
	to->users = 1;
	list_for_each(w, tmp, (struct list *)&from->writes, node) {
		struct write *copy = must_alloc(sizeof(*copy));

		*copy = *w;
		if (w->data)
			copy->data = copied(w->data, w->len);
		list_add_tail(&to->writes, &copy->node);
	}
}

void simstore_copy(struct simstore *to, const struct simstore *from)
{
	struct copying copying = { to, false };

	copy_begin(to, from);
	table_each((struct table *)&from->pages, page_copy, &copying);
	if (from->share)
		table_each(&from->share->pages, page_copy, &copying);
}

void simstore_share(struct simstore *to, struct simstore *from)
{
	struct copying copying = { to, true };

	assert(!from->share);
	copy_begin(to, from);
	table_each(&from->pages, page_copy, &copying);
	to->share = from;
	from->users++;
}

void simstore_read(struct simstore *s, uint64_t off, void *buf, uint64_t len)
{
	uint8_t unwritten[PAGE_SIZE], *to = buf;

	while (len) {
		uint64_t in_page = off % PAGE_SIZE;
		uint64_t n = len < PAGE_SIZE - in_page ? len : PAGE_SIZE - in_page;
		const struct page *p = page_look(s, off / PAGE_SIZE);

		if (!p)
			page_garbage(s, off / PAGE_SIZE, unwritten);
		memcpy(to, (p ? p->data : unwritten) + in_page, n);
		off += n;
		to += n;
		len -= n;
	}
}

/* Copies the part of [@off, +@len) that lies in page @index; @data NULL: zeros. */
static void copy_into_page(uint8_t *page, uint64_t index, uint64_t off, const uint8_t *data,
			   uint64_t len)
{
	uint64_t start = index * PAGE_SIZE > off ? index * PAGE_SIZE : off;
	uint64_t end = (index + 1) * PAGE_SIZE < off + len ? (index + 1) * PAGE_SIZE : off + len;

	if (data)
		memcpy(page + start % PAGE_SIZE, data + (start - off), end - start);
	else
		memset(page + start % PAGE_SIZE, 0, end - start);
}

/* One sector of @w, which lies in @p, becomes durable, unless a newer write already is there. */
static void harden_sector(const struct simstore *s, struct page *p, const struct write *w,
			  uint64_t off)
{
	for (uint64_t end = off + s->sector; off < end; off += TEAR_MIN) {
		unsigned int sector = (unsigned int)(off % PAGE_SIZE / TEAR_MIN);

		if (p->hardened[sector] > w->number)
			continue;
		p->hardened[sector] = w->number;
		if (w->data)
			memcpy(p->durable + off % PAGE_SIZE, w->data + (off - w->off), TEAR_MIN);
		else
			memset(p->durable + off % PAGE_SIZE, 0, TEAR_MIN);
	}
}

/* @w is volatile no more, whatever became of it. */
static void write_retire(struct simstore *s, struct write *w)
{
	for (uint64_t i = w->off / PAGE_SIZE; i * PAGE_SIZE < w->off + w->len; i++) {
		struct page *p = page_find(s, i);

		if (--p->writes)
			continue;
		/* After a power cut this is what is left; otherwise the two are equal. */
		memcpy(p->data, p->durable, PAGE_SIZE);
		free(p->durable);
		p->durable = NULL;
	}
	write_free(s, w);
}

static void write_harden(struct simstore *s, struct write *w)
{
	struct page *p = NULL;

	for (uint64_t off = w->off; off < w->off + w->len; off += s->sector) {
		if (!p || off % PAGE_SIZE == 0)
			p = page_find(s, off / PAGE_SIZE);
		harden_sector(s, p, w, off);
	}
	write_retire(s, w);
}

uint64_t simstore_write(struct simstore *s, uint64_t off, const void *data, uint64_t len)
{
	struct write *w = must_alloc(sizeof(*w));

	assert(off % s->sector == 0 && len % s->sector == 0 && len);
	*w = (struct write){ .number = ++s->sequence, .off = off, .len = len, .writer = s->writer,
			     .data = data ? copied(data, len) : NULL };
	for (uint64_t i = off / PAGE_SIZE; i * PAGE_SIZE < off + len; i++) {
		struct page *p = page_get(s, i);

		if (!p->writes++)
			p->durable = copied(p->data, PAGE_SIZE);
		copy_into_page(p->data, i, off, data, len);
	}
	list_add_tail(&s->writes, &w->node);
	s->writes_bytes += len;
	while (s->writes_bytes > VOLATILE_BYTES_MAX)
		write_harden(s, list_first(&s->writes, struct write, node));
	return s->sequence;
}

/* Searched from the newest: those that are asked for were written a moment ago. */
static struct write *write_find(struct simstore *s, uint64_t number)
{
	for (struct list *l = s->writes.prev; l != &s->writes; l = l->prev) {
		struct write *w = list_entry(l, struct write, node);

		if (w->number <= number)
			return w->number == number ? w : NULL;
	}
	return NULL;
}

void simstore_complete(struct simstore *s, uint64_t number)
{
	struct write *w = write_find(s, number);

	s->completions++;
	if (w && !w->completion)
		w->completion = s->completions;
}

void simstore_harden(struct simstore *s, uint64_t number)
{
	struct write *w = write_find(s, number);

	if (w)
		write_harden(s, w);
}

void simstore_flush(struct simstore *s, uint64_t completions)
{
	struct write *w, *tmp;

	list_for_each(w, tmp, &s->writes, node) {
		if (w->completion && w->completion <= completions)
			write_harden(s, w);
	}
}

void simstore_discard(struct simstore *s, struct sim *sim, uint64_t off, uint64_t len)
{
	uint64_t end = (off + len) / PAGE_SIZE;

	/* A page that was never written keeps its old contents, which is allowed (R8). */
	for (uint64_t i = DIV_ROUND_UP(off, PAGE_SIZE); i < end; i++) {
		if (page_look(s, i) && sim_random(sim) % 2)
			simstore_complete(s, simstore_write(s, i * PAGE_SIZE, NULL, PAGE_SIZE));
	}
}

/* Of each write all, nothing or some sectors get through, in the order of writing. */
static void write_tear(struct simstore *s, struct sim *sim, struct write *w)
{
	uint64_t fate = sim_random(sim) % 4;	/* 0, 1: nothing; 2: all; 3: torn */

	s->cut_lost += fate < 2;
	s->cut_kept += fate == 2;
	s->cut_torn += fate == 3;
	for (uint64_t off = w->off; off < w->off + w->len; off += s->sector) {
		if (fate == 2 || (fate == 3 && sim_random(sim) % 2))
			harden_sector(s, page_find(s, off / PAGE_SIZE), w, off);
	}
	write_retire(s, w);
}

void simstore_each_volatile(struct simstore *s, const void *writer,
			    void (*fn)(void *arg, uint64_t off, const void *data, uint64_t len),
			    void *arg)
{
	struct write *w, *tmp;

	list_for_each(w, tmp, &s->writes, node) {
		if (!writer || w->writer == writer)
			fn(arg, w->off, w->data, w->len);
	}
}

void simstore_power_cut(struct simstore *s, struct sim *sim, enum simdisk_keep keep)
{
	struct write *w, *tmp;

	list_for_each(w, tmp, &s->writes, node) {
		if (keep == SIMDISK_KEEP_ALL)
			write_harden(s, w);
		else if (keep == SIMDISK_KEEP_NONE)
			write_retire(s, w);
		else
			write_tear(s, sim, w);
	}
}

void simstore_poke(struct simstore *s, uint64_t off, const void *buf, uint64_t len)
{
	s->sequence++;
	for (uint64_t i = off / PAGE_SIZE; i * PAGE_SIZE < off + len; i++) {
		struct page *p = page_get(s, i);

		copy_into_page(p->data, i, off, buf, len);
		if (!p->durable)
			continue;
		copy_into_page(p->durable, i, off, buf, len);
		for (unsigned int n = 0; n < SECTORS; n++) {
			uint64_t sector = i * PAGE_SIZE + n * TEAR_MIN;

			/* Older volatile writes must not come back over it. */
			if (sector + TEAR_MIN > off && sector < off + len)
				p->hardened[n] = s->sequence;
		}
	}
}

struct cut {
	struct simstore *s;
	uint64_t size;
};

static void page_cut(struct table_node *node, void *arg)
{
	struct cut *cut = arg;

	if (node->key * PAGE_SIZE >= cut->size)
		page_free(node, cut->s);
}

void simstore_truncate(struct simstore *s, uint64_t size)
{
	struct cut cut = { s, size };
	struct copying copying = { s, false };

	simstore_power_cut(s, NULL, SIMDISK_KEEP_ALL);
	if (s->share)
		table_each(&s->share->pages, page_copy, &copying);
	share_end(s);
	table_each(&s->pages, page_cut, &cut);
}
