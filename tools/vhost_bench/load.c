/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a request costs here is taken from what the server can do: descriptors are written
 * once a request, the clock is read once a batch, the server is kicked once a batch.
 */
#include "tools/vhost_bench/load.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"

#define AT_RANGE	64u	/* in the page before a request's data; the header is at 0 */
#define AT_STATUS	128u

struct load_slot {
	uint8_t		*mem;		/* header, range, status; then data */
	uint64_t	gpa;
	uint64_t	start_ns;
	uint64_t	block;
	uint8_t		op;		/* enum load_op */
};

struct load_queue {
	struct fe_queue	*fq;
	struct load_slot *slots;
	uint16_t	*free;		/* a stack */
	unsigned int	free_count;
	uint64_t	first;		/* blocks [first, first + blocks) are this queue's */
	uint64_t	blocks;
	uint64_t	next;		/* sequential */
	bool		exhausted;	/* all was done once */
	unsigned int	writes;		/* since the last flush */
	uint64_t	*busy;		/* with a ledger: a bit a block, one request at a time */
};

struct load_thread {
	struct load	*l;
	pthread_t	thread;
	bool		started;
	struct load_queue *queues;
	unsigned int	queue_count;
	uint64_t	random;
	struct load_counts counts;
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

/* xorshift64*: a few instructions. */
static uint64_t random_next(struct load_thread *t)
{
	uint64_t x = t->random;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	t->random = x;
	return x * 0x2545f4914f6cdd1dULL;
}

static uint64_t random_below(struct load_thread *t, uint64_t bound)
{
	return (uint64_t)((unsigned __int128)random_next(t) * bound >> 64);
}

/* ---- which request next ---- */

static bool is_busy(const struct load_queue *q, uint64_t i)
{
	return q->busy && q->busy[i / 64] >> (i % 64) & 1;
}

static void mark_busy(struct load_queue *q, uint64_t i)
{
	if (q->busy)
		q->busy[i / 64] ^= 1ULL << (i % 64);
}

/* The next block of a queue's part.  Return: false if there is none at present. */
static bool pick_block(struct load_thread *t, struct load_queue *q, uint64_t *block)
{
	const struct load_params *p = &t->l->p;
	uint64_t i, tries;

	if (p->random && !p->check_only) {
		i = random_below(t, q->blocks);
		for (tries = 0; is_busy(q, i); tries++) {
			if (tries == q->blocks)
				return false;
			i = i + 1 < q->blocks ? i + 1 : 0;
		}
		*block = q->first + i;
		return true;
	}
	while (p->check_only && q->next < q->blocks &&
	       !ledger_is_known(p->ledger, q->first + q->next))
		q->next++;
	if (q->next >= q->blocks) {
		q->exhausted = p->once || p->check_only;
		if (q->exhausted)
			return false;
		q->next = 0;
	}
	if (is_busy(q, q->next))
		return false;
	*block = q->first + q->next++;
	return true;
}

static enum load_op pick_op(struct load_thread *t, struct load_queue *q)
{
	const struct load_params *p = &t->l->p;
	unsigned int dice = 0;

	if (p->check_only)
		return LOAD_READ;
	if (p->flush_every && q->writes >= p->flush_every) {
		q->writes = 0;
		return LOAD_FLUSH;
	}
	if (p->discard_percent || p->zero_percent) {
		dice = (unsigned int)random_below(t, 100);
		if (dice < p->discard_percent)
			return LOAD_DISCARD;
		if (dice < p->discard_percent + p->zero_percent)
			return LOAD_ZERO;
	}
	if (p->read_percent == 100)
		return LOAD_READ;
	if (p->read_percent && random_below(t, 100) < p->read_percent)
		return LOAD_READ;
	q->writes++;
	return LOAD_WRITE;
}

/* ---- into the ring ---- */

static const uint32_t op_types[LOAD_OPS] = {
	[LOAD_READ] = BLK_T_IN, [LOAD_WRITE] = BLK_T_OUT, [LOAD_FLUSH] = BLK_T_FLUSH,
	[LOAD_DISCARD] = BLK_T_DISCARD, [LOAD_ZERO] = BLK_T_WRITE_ZEROES,
};

static uint64_t first_sector(const struct load_params *p, const struct load_slot *s)
{
	return (p->offset + s->block * p->block_size) / BLK_SECTOR;
}

/* The buffers between header and status.  Return: how many. */
static unsigned int data_bufs(const struct load_params *p, const struct load_slot *s,
			      struct vq_buf *bufs)
{
	uint32_t piece = p->block_size / p->segments, at = 0;
	struct blk_range_wire range = {
		.sector = cpu_to_le64(first_sector(p, s)),
		.sectors = cpu_to_le32(p->block_size / BLK_SECTOR),
		.flags = cpu_to_le32(s->op == LOAD_ZERO) };
	unsigned int i;

	switch (s->op) {
	case LOAD_FLUSH:
		return 0;
	case LOAD_DISCARD:
	case LOAD_ZERO:
		memcpy(s->mem + AT_RANGE, &range, sizeof(range));
		bufs[0] = (struct vq_buf){ s->gpa + AT_RANGE, sizeof(range), false };
		return 1;
	default:
		for (i = 0; i < p->segments; i++, at += piece)
			bufs[i] = (struct vq_buf){ s->gpa + FE_SLOT_HEAD + at,
						   i + 1 < p->segments ? piece :
						   p->block_size - at, s->op == LOAD_READ };
		return p->segments;
	}
}

static void issue(struct load_thread *t, struct load_queue *q, unsigned int slot)
{
	const struct load_params *p = &t->l->p;
	struct load_slot *s = &q->slots[slot];
	struct blk_header_wire h = { .type = cpu_to_le32(op_types[s->op]) };
	struct vq_buf bufs[VQ_BUFS_MAX];
	unsigned int n = 0;

	if (s->op <= LOAD_WRITE)
		h.sector = cpu_to_le64(first_sector(p, s));
	if (p->ledger && s->op != LOAD_FLUSH)
		mark_busy(q, s->block - q->first);
	if (p->ledger && s->op != LOAD_READ && s->op != LOAD_FLUSH)
		ledger_issue(p->ledger, s->block, s->op == LOAD_WRITE ? LEDGER_WRITE :
			     s->op == LOAD_ZERO ? LEDGER_ZERO : LEDGER_DISCARD,
			     s->mem + FE_SLOT_HEAD);
	memcpy(s->mem, &h, sizeof(h));
	s->mem[AT_STATUS] = 0xff;
	bufs[n++] = (struct vq_buf){ s->gpa, sizeof(h), false };
	n += data_bufs(p, s, bufs + n);
	bufs[n++] = (struct vq_buf){ s->gpa + AT_STATUS, 1, true };
	vq_add(&q->fq->vq, slot, bufs, n);
}

/* Fills the ring.  Return: how many were added. */
static unsigned int refill(struct load_thread *t, struct load_queue *q, uint64_t now)
{
	unsigned int added = 0;

	while (q->free_count && !q->exhausted) {
		unsigned int slot = q->free[q->free_count - 1];
		struct load_slot *s = &q->slots[slot];
		uint64_t block;

		if (!pick_block(t, q, &block))
			break;
		s->op = (uint8_t)pick_op(t, q);
		if (s->op == LOAD_FLUSH && !t->l->p.random)
			q->next--;	/* the block has its turn after the flush */
		s->block = block;
		s->start_ns = now;
		q->free_count--;
		issue(t, q, slot);
		added++;
	}
	return added;
}

static void kick(struct load_thread *t, struct load_queue *q, bool measuring)
{
	uint64_t one = 1;

	if (!vq_publish(&q->fq->vq))
		return;
	if (write(q->fq->kick_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		abort();	/* an eventfd of our own */
	t->counts.kicks += measuring;
}

/* ---- out of the ring ---- */

/* The first thing that is wrong is the one to be told. */
static void complain(struct load *l, const char *why)
{
	pthread_mutex_lock(&l->mutex);
	if (!l->why[0])
		text_refuse(0, l->why, sizeof(l->why), "%s", why);
	pthread_mutex_unlock(&l->mutex);
}

static void check_contents(struct load_thread *t, const struct load_slot *s)
{
	struct ledger *ledger = t->l->p.ledger;
	char why[FE_WHY_SIZE];

	if (!ledger_is_known(ledger, s->block))
		return;
	t->counts.checked++;
	if (!ledger_check(ledger, s->block, s->mem + FE_SLOT_HEAD, why, sizeof(why)))
		return;
	t->counts.wrong++;
	complain(t->l, why);
}

static void failed(struct load_thread *t, const struct load_slot *s)
{
	static const char *const names[LOAD_OPS] = { "read", "write", "flush", "discard",
						     "write zeroes" };
	char why[FE_WHY_SIZE];

	t->counts.errors++;
	snprintf(why, sizeof(why), "a %s at sector %" PRIu64 " was answered with status %u",
		 names[s->op], s->op == LOAD_FLUSH ? 0 : first_sector(&t->l->p, s),
		 s->mem[AT_STATUS]);
	complain(t->l, why);
}

static void complete(struct load_thread *t, struct load_queue *q, unsigned int slot, uint64_t now,
		     bool measuring)
{
	struct load_slot *s = &q->slots[slot];
	const struct load_params *p = &t->l->p;
	bool ok = s->mem[AT_STATUS] == BLK_S_OK;

	if (!ok)
		failed(t, s);
	if (p->ledger && s->op != LOAD_FLUSH) {
		mark_busy(q, s->block - q->first);
		if (ok && s->op == LOAD_READ)
			check_contents(t, s);
		else if (ok)
			ledger_done(p->ledger, s->block);
	}
	if (measuring) {
		t->counts.ops[s->op]++;
		if (s->op <= LOAD_WRITE)
			t->counts.bytes[s->op] += p->block_size;
		histogram_add(&t->counts.latency[s->op], now - s->start_ns);
	}
	q->free[q->free_count++] = (uint16_t)slot;
}

/* Takes what came back.  Return: how many; the clock is read with the first. */
static unsigned int collect(struct load_thread *t, struct load_queue *q, uint64_t *now,
			    bool measuring)
{
	unsigned int slot, n = 0;
	uint32_t len;
	int ret;

	while ((ret = vq_next_used(&q->fq->vq, &slot, &len)) > 0) {
		if (!*now)
			*now = now_ns();
		complete(t, q, slot, *now, measuring);
		n++;
	}
	if (ret < 0) {
		complain(t->l, "the server gave a request back that it was not given");
		atomic_store(&t->l->abandoned, true);
	}
	return n;
}

/* ---- the thread ---- */

static bool nothing_under_way(const struct load_thread *t)
{
	unsigned int depth = t->l->fe->p.depth;

	for (unsigned int i = 0; i < t->queue_count; i++)
		if (t->queues[i].free_count != depth)
			return false;
	return true;
}

static void park(struct load *l)
{
	pthread_mutex_lock(&l->mutex);
	l->parked++;
	pthread_cond_broadcast(&l->changed);
	while (atomic_load(&l->parking))
		pthread_cond_wait(&l->changed, &l->mutex);
	l->parked--;
	pthread_mutex_unlock(&l->mutex);
}

/* Sleeps until a call; all queues of a thread share the first one's descriptor. */
static void wait_for_call(struct load_thread *t, bool measuring)
{
	struct pollfd p = { .fd = t->queues[0].fq->call_fd, .events = POLLIN };
	uint64_t count;

	for (unsigned int i = 0; i < t->queue_count; i++)
		if (vq_want_calls(&t->queues[i].fq->vq, true))
			return;
	t->counts.sleeps += measuring;
	/* One call where it blocks; servers may make it non-blocking at any time. */
	if (read(p.fd, &count, sizeof(count)) < 0 && errno == EAGAIN)
		poll(&p, 1, -1);
	/* With EVENT_IDX what was asked for has happened; without, it would go on. */
	for (unsigned int i = 0; i < t->queue_count && !t->queues[i].fq->vq.event_idx; i++)
		vq_want_calls(&t->queues[i].fq->vq, false);
}

static unsigned int round_run(struct load_thread *t)
{
	struct load *l = t->l;
	bool measuring = atomic_load_explicit(&l->measuring, memory_order_relaxed);
	bool stopping = atomic_load_explicit(&l->stopping, memory_order_relaxed);
	unsigned int work = 0;
	uint64_t now = 0;

	for (unsigned int i = 0; i < t->queue_count; i++) {
		struct load_queue *q = &t->queues[i];
		unsigned int added;

		work += collect(t, q, &now, measuring);
		if (stopping || !q->free_count)
			continue;
		if (!now)
			now = now_ns();
		added = refill(t, q, now);
		if (added)
			kick(t, q, measuring);
		work += added;
	}
	return work;
}

static bool is_over(const struct load_thread *t)
{
	bool exhausted = true;

	if (!nothing_under_way(t))
		return atomic_load(&t->l->abandoned);
	for (unsigned int i = 0; i < t->queue_count; i++)
		exhausted = exhausted && t->queues[i].exhausted;
	return exhausted || atomic_load(&t->l->stopping);
}

static void *thread_main(void *arg)
{
	struct load_thread *t = arg;
	struct load *l = t->l;

	for (unsigned int i = 0; i < t->queue_count && l->p.poll; i++)
		vq_want_calls(&t->queues[i].fq->vq, false);
	while (!is_over(t)) {
		if (atomic_load_explicit(&l->parking, memory_order_relaxed))
			park(l);
		if (round_run(t))
			continue;
		if (l->p.poll)
			__builtin_ia32_pause();
		else
			wait_for_call(t, atomic_load(&l->measuring));
	}
	pthread_mutex_lock(&l->mutex);
	l->ended++;
	pthread_cond_broadcast(&l->changed);
	pthread_mutex_unlock(&l->mutex);
	return NULL;
}

/* ---- life ---- */

/* The part of the disk that is queue @i's: with a ledger, parts do not overlap. */
static void share_out(struct load *l, struct load_queue *q, unsigned int i)
{
	uint64_t blocks = l->p.size / l->p.block_size, each = blocks / l->fe->p.queues;

	q->first = 0;
	q->blocks = blocks;
	if (l->p.random && !l->p.ledger)
		return;
	q->first = i * each;
	q->blocks = i + 1 < l->fe->p.queues ? each : blocks - q->first;
}

static int queue_open(struct load *l, struct load_queue *q, unsigned int i)
{
	unsigned int depth = l->fe->p.depth;

	q->fq = &l->fe->queues[i];
	share_out(l, q, i);
	q->slots = calloc(depth, sizeof(*q->slots));
	q->free = calloc(depth, sizeof(*q->free));
	if (l->p.ledger)
		q->busy = calloc(q->blocks / 64 + 1, sizeof(*q->busy));
	if (!q->slots || !q->free || (l->p.ledger && !q->busy))
		return -ENOMEM;
	for (unsigned int s = 0; s < depth; s++) {
		q->slots[s].mem = fe_slot_mem(l->fe, i, s, &q->slots[s].gpa);
		q->free[q->free_count++] = (uint16_t)(depth - 1 - s);
	}
	return 0;
}

static int thread_open(struct load *l, unsigned int n)
{
	struct load_thread *t = &l->threads[n];
	int err = 0;

	t->l = l;
	t->random = (l->p.seed + n + 1) * 0x9e3779b97f4a7c15ULL | 1;
	t->queues = calloc(l->fe->p.queues, sizeof(*t->queues));
	if (!t->queues)
		return -ENOMEM;
	for (unsigned int i = n; i < l->fe->p.queues && !err; i += l->p.threads)
		err = queue_open(l, &t->queues[t->queue_count++], i);
	/* What is written is not all the same, lest somebody compresses it. */
	for (unsigned int i = 0; i < t->queue_count && !err; i++)
		for (unsigned int s = 0; s < l->fe->p.depth; s++)
			for (uint32_t at = 0; at < l->p.block_size; at += sizeof(uint64_t)) {
				uint64_t x = random_next(t);

				memcpy(t->queues[i].slots[s].mem + FE_SLOT_HEAD + at, &x, sizeof(x));
			}
	return err;
}

static void threads_free(struct load *l)
{
	for (unsigned int n = 0; l->threads && n < l->p.threads; n++) {
		struct load_thread *t = &l->threads[n];

		for (unsigned int i = 0; i < t->queue_count; i++) {
			free(t->queues[i].slots);
			free(t->queues[i].free);
			free(t->queues[i].busy);
		}
		free(t->queues);
	}
	free(l->threads);
	l->threads = NULL;
	pthread_cond_destroy(&l->changed);
	pthread_mutex_destroy(&l->mutex);
}

int load_start(struct load *l, struct fe *fe, const struct load_params *p)
{
	int err = -ENOMEM;

	*l = (struct load){ .p = *p, .fe = fe, .measuring = p->measured };
	pthread_mutex_init(&l->mutex, NULL);
	pthread_cond_init(&l->changed, NULL);
	l->threads = calloc(p->threads, sizeof(*l->threads));
	if (!l->threads)
		goto free_all;
	for (unsigned int n = 0; n < p->threads; n++) {
		err = thread_open(l, n);
		if (err)
			goto free_all;
	}
	for (unsigned int n = 0; n < p->threads; n++) {
		err = -pthread_create(&l->threads[n].thread, NULL, thread_main, &l->threads[n]);
		if (err)
			break;
		l->threads[n].started = true;
	}
	if (!err)
		return 0;
	load_stop(l);
	load_finish(l, NULL);
	return err;

free_all:
	threads_free(l);
	return err;
}

/* Threads that sleep look at the flags again. */
static void wake(struct load *l)
{
	uint64_t one = 1;

	for (unsigned int n = 0; n < l->p.threads && !l->p.poll; n++)
		if (write(l->fe->queues[n].call_fd, &one, sizeof(one)) < 0)
			abort();
}

void load_measure(struct load *l, bool on)
{
	atomic_store(&l->measuring, on);
}

void load_stop(struct load *l)
{
	atomic_store(&l->stopping, true);
	wake(l);
}

void load_abandon(struct load *l)
{
	atomic_store(&l->stopping, true);
	atomic_store(&l->abandoned, true);
	wake(l);
}

bool load_ended(struct load *l)
{
	bool ended;

	pthread_mutex_lock(&l->mutex);
	ended = l->ended == l->p.threads;
	pthread_mutex_unlock(&l->mutex);
	return ended;
}

void load_park(struct load *l)
{
	atomic_store(&l->parking, true);
	wake(l);
	pthread_mutex_lock(&l->mutex);
	while (l->parked + l->ended < l->p.threads)
		pthread_cond_wait(&l->changed, &l->mutex);
	pthread_mutex_unlock(&l->mutex);
}

void load_unpark(struct load *l)
{
	pthread_mutex_lock(&l->mutex);
	atomic_store(&l->parking, false);
	pthread_cond_broadcast(&l->changed);
	pthread_mutex_unlock(&l->mutex);
}

static void counts_add(struct load_counts *to, const struct load_counts *from)
{
	for (unsigned int op = 0; op < LOAD_OPS; op++) {
		to->ops[op] += from->ops[op];
		histogram_merge(&to->latency[op], &from->latency[op]);
	}
	to->bytes[LOAD_READ] += from->bytes[LOAD_READ];
	to->bytes[LOAD_WRITE] += from->bytes[LOAD_WRITE];
	to->errors += from->errors;
	to->checked += from->checked;
	to->wrong += from->wrong;
	to->kicks += from->kicks;
	to->sleeps += from->sleeps;
}

void load_finish(struct load *l, struct load_counts *sum)
{
	for (unsigned int n = 0; n < l->p.threads; n++) {
		if (l->threads[n].started)
			pthread_join(l->threads[n].thread, NULL);
		if (sum)
			counts_add(sum, &l->threads[n].counts);
	}
	threads_free(l);
}
