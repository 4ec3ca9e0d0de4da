/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk's requests: translated and sent on in the owner's thread.
 *
 *   submitted ─┬─ one run, in place ────────────► device ──► done    (in turn: shares.h)
 *              ├─ several: pieces, each ─────────► device ──► done
 *              └─ waits: for the map, for space, for a busy block, for a pause, for a limit,
 *                 and is looked at again when something of that has ended
 */
#include "fs/disk_internal.h"

#define IN_PLACE	UINT32_MAX	/* disk_req.pending: no pieces */

/* ---- where requests are ---- */

static void wait_for_it(struct disk *d, struct blk_io *io)
{
	list_add_tail(&d->waiting, &io->node);
}

static void flight_begin(struct disk *d, struct blk_io *io)
{
	struct disk_req *q = disk_req(io);

	q->epoch = (uint8_t)d->epoch;
	q->in_flight = true;
	d->in_flight[q->epoch]++;
	STAT_ADD(d->stats.in_flight, 1);
}

static void flight_end(struct disk *d, struct blk_io *io)
{
	struct disk_req *q = disk_req(io);

	if (!q->in_flight)
		return;
	q->in_flight = false;
	d->in_flight[q->epoch]--;
	STAT_ADD(d->stats.in_flight, -1u);
	if (d->exclusive)
		disk_exclusive_run(d);
	if (d->quiet_wanted)
		disk_check_quiet(d);
}

static enum disk_op op_of(const struct blk_io *io)
{
	switch (io->op) {
	case BLK_READ:
		return DISK_READ;
	case BLK_WRITE:
		return DISK_WRITE;
	case BLK_FLUSH:
		return DISK_FLUSH;
	default:
		return DISK_DISCARD;
	}
}

static void count(struct disk *d, const struct blk_io *io, int err)
{
	uint64_t ns = disk_now_ns(d) - disk_req((struct blk_io *)(uintptr_t)io)->start_ns;
	unsigned int bucket = ns < 2048 ? 0 : 63u - (unsigned int)__builtin_clzll(ns) - 10;
	enum disk_op op = op_of(io);

	if (err)
		STAT_ADD(d->stats.errors, 1);
	STAT_ADD(d->stats.ops[op], 1);
	STAT_ADD(d->stats.bytes[op], io->len);
	STAT_ADD(d->stats.latency_ns[op], ns);
	STAT_ADD(d->stats.latency[op][bucket < DISK_LATENCIES ? bucket : DISK_LATENCIES - 1], 1);
}

static void note_lost(struct disk *d)
{
	if (d->lost || !fs_is_lost(d->fs))
		return;
	d->lost = true;
	__atomic_store_n(&d->stats.lost, true, __ATOMIC_RELAXED);
	log_error(d->fs->env, d->name, "this host has lost its slot: every request fails from now "
		  "on; detach the disk, and attach the datastore anew");
	if (d->p.events.lost)
		d->p.events.lost(d->p.arg);
}

/* By its FUA alone, for its block is in the map for certain. */
static bool is_durable(const struct disk *d, const struct blk_io *io, int err)
{
	return !err && io->flags & BLK_FUA && disk_map_is_clean(d) &&
	       disk_req((struct blk_io *)(uintptr_t)io)->pending == IN_PLACE;
}

void disk_finish(struct disk *d, struct blk_io *io, int err)
{
	struct disk_req *q = disk_req(io);
	bool wrote = io->op == BLK_WRITE || io->op == BLK_ZERO;

	if (wrote && !q->flushed && is_durable(d, io, err)) {
		q->flushed = true;
	} else if (wrote && !q->flushed) {
		d->writes++;
		if (!err && io->flags & BLK_FUA) {
			q->flushed = true;
			list_add_tail(&d->flushes, &io->node);
			flight_end(d, io);
			disk_slow_commit(d);
			return;
		}
	}
	if (err)
		note_lost(d);
	count(d, io, err);
	io->off = q->off;
	io->done = q->done;
	flight_end(d, io);
	io->done(io, err);
}

/* ---- completions ---- */

static void part_put(struct disk *d, struct disk_part *part)
{
	list_add_head(&d->parts_free, &part->node);
	d->parts_left++;
	disk_retry(d);
}

static void part_finish(struct disk *d, struct disk_part *part, int err)
{
	struct blk_io *of = part->of;
	struct disk_req *q = disk_req(of);

	if (part->fill)
		disk_fill_end(d, part->fill, part->bits, err);
	part_put(d, part);
	if (err && !q->err)
		q->err = err;
	if (--q->pending == 0)
		disk_finish(d, of, q->err);
}

/* A lower request, whole or in part, has ended.  Owner's thread. */
static void ended(struct disk *d, struct blk_io *io, int err)
{
	if (disk_req(io)->shared) {
		disk_req(io)->shared = false;
		if (shares_ended(d->p.shares))
			disk_post(d, &d->p.shares->call);
	}
	if (err == -ETIMEDOUT) {
		/* It may still land: until that is settled it is under way (R4). */
		list_add_tail(&d->timed_out, &io->node);
		disk_slow_drain(d);
	} else if (disk_req(io)->done) {
		disk_finish(d, io, err);
	} else {
		part_finish(d, container_of(io, struct disk_part, io), err);
	}
}

/* Of a request that timed out, and whose command cannot land any more. */
static void disk_drained(struct disk *d, struct blk_io *io)
{
	if (disk_req(io)->done)
		disk_finish(d, io, -ETIMEDOUT);
	else
		part_finish(d, container_of(io, struct disk_part, io), -ETIMEDOUT);
}

void disk_end_drained(struct disk *d)
{
	struct list all;

	list_init(&all);
	list_splice_tail(&all, &d->draining);
	while (!list_empty(&all)) {
		struct blk_io *io = list_first(&all, struct blk_io, node);

		list_del(&io->node);
		disk_drained(d, io);
	}
}

/* Called by the lower device, in whatever thread. */
static void lower_done(struct blk_io *io, int err)
{
	struct disk_req *q = disk_req(io);
	struct disk *d = q->d;

	if (disk_is_mine(d)) {
		ended(d, io, err);
		return;
	}
	q->posted_err = err;
	q->posted_next = atomic_load_explicit(&d->ended, memory_order_relaxed);
	while (!atomic_compare_exchange_weak(&d->ended, &q->posted_next, io))
		;
	disk_post(d, &d->ended_call);
}

void disk_ended(struct reactor_call *call)
{
	struct disk *d = container_of(call, struct disk, ended_call);
	struct blk_io *io, *next;

	for (io = atomic_exchange(&d->ended, NULL); io; io = next) {
		next = disk_req(io)->posted_next;
		ended(d, io, disk_req(io)->posted_err);
	}
	disk_send(d);
}

/* ---- sending ---- */

static void send_batch(struct disk *d)
{
	struct blk_io *batch[DISK_BATCH];
	unsigned int n = d->batch_count;

	if (!n)
		return;
	/* done() may run within, and add to the next batch. */
	memcpy(batch, d->batch, n * sizeof(batch[0]));
	d->batch_count = 0;
	if (!shares_are_used(d->p.shares)) {
		blkdev_submit(d->lower, batch, n);
		return;
	}
	for (unsigned int i = 0; i < n; i++)
		disk_req(batch[i])->shared = true;
	STAT_ADD(d->stats.share_waits,
		 shares_submit(d->p.shares, &d->share, batch, n, disk_now_ns(d)));
}

void disk_send(struct disk *d)
{
	send_batch(d);
	disk_space_run(d);
}

static void send_io(struct disk *d, struct blk_io *io)
{
	io->done = lower_done;
	d->batch[d->batch_count++] = io;
	if (d->batch_count == DISK_BATCH)
		send_batch(d);
}

/* ---- pieces ---- */

/* Where in a request's buffers its next piece begins. */
struct cursor {
	const struct iovec *iov;
	size_t skip;
};

static void cursor_zero(struct cursor *c, size_t len)
{
	while (len) {
		size_t n = c->iov->iov_len - c->skip;

		n = n < len ? n : len;
		memset((uint8_t *)c->iov->iov_base + c->skip, 0, n);
		c->skip += n;
		len -= n;
		if (c->skip == c->iov->iov_len) {
			c->iov++;
			c->skip = 0;
		}
	}
}

/* As much of @len bytes as @part takes; returns how much. */
static size_t cursor_take(struct cursor *c, struct disk_part *part, size_t len)
{
	size_t taken = 0;
	int i;

	for (i = 0; i < (int)DISK_PART_IOVS && taken < len; i++) {
		size_t n = c->iov->iov_len - c->skip;

		n = n < len - taken ? n : len - taken;
		part->iov[i] = (struct iovec){
			.iov_base = (uint8_t *)c->iov->iov_base + c->skip, .iov_len = n,
		};
		c->skip += n;
		taken += n;
		if (c->skip == c->iov->iov_len) {
			c->iov++;
			c->skip = 0;
		}
	}
	part->io.iovcnt = i;
	part->io.len = taken;
	return taken;
}

/* [@addr, +@len) of the device is a piece, or more, of @io. */
static void send_pieces(struct disk *d, struct blk_io *io, struct cursor *c, uint64_t addr,
			uint64_t len, struct disk_fill *fill, uint64_t pos)
{
	struct disk_req *q = disk_req(io);

	while (len) {
		struct disk_part *part = list_first(&d->parts_free, struct disk_part, node);
		size_t n;

		assert(d->parts_left);
		list_del(&part->node);
		d->parts_left--;
		n = cursor_take(c, part, len);
		part->of = io;
		part->fill = NULL;
		part->io.op = io->op;
		part->io.flags = 0;
		part->io.off = addr;
		part->io.iov = part->iov;
		if (fill) {
			uint32_t first = (uint32_t)(pos % UNIT_SIZE / BLOCK_SIZE);
			uint32_t end = (uint32_t)DIV_ROUND_UP(pos % UNIT_SIZE + n, BLOCK_SIZE);

			part->bits = block_mask(first, end) & ~(fill->valid | fill->fresh);
			part->fill = part->bits ? fill : NULL;
			if (part->bits)
				disk_fill_begin(fill, part->bits);
		}
		q->pending++;
		STAT_ADD(d->stats.pieces, 1);
		send_io(d, &part->io);
		addr += n;
		pos += n;
		len -= n;
	}
}

static void send_read(struct disk *d, struct blk_io *io)
{
	uint64_t pos = io->off, end = io->off + io->len, n;
	struct cursor c = { io->iov, 0 };
	struct extent e;
	bool found;

	for (; pos < end; pos += n) {
		found = extents_find(&d->map, pos / BLOCK_SIZE, &e);
		assert(found);
		n = (uint64_t)e.len * BLOCK_SIZE - pos % BLOCK_SIZE;
		n = n < end - pos ? n : end - pos;
		if (e.kind == EXTENT_ZERO || e.kind == EXTENT_ROOM)
			cursor_zero(&c, n);
		else
			send_pieces(d, io, &c, ((uint64_t)e.block << BLOCK_SHIFT) + pos % BLOCK_SIZE,
				    n, NULL, pos);
	}
}

static void send_write(struct disk *d, struct blk_io *io)
{
	uint64_t pos = io->off, end = io->off + io->len, n, addr;
	struct cursor c = { io->iov, 0 };
	struct disk_fill *fill;
	struct extent e;
	bool found;

	STAT_ADD(d->stats.first_writes, 1);
	for (; pos < end; pos += n) {
		n = UNIT_SIZE - pos % UNIT_SIZE;
		fill = disk_fill_find(d, pos / UNIT_SIZE);
		if (fill) {
			addr = (fill->block << BLOCK_SHIFT) + pos % UNIT_SIZE;
		} else {
			uint64_t run;

			found = extents_find(&d->map, pos / BLOCK_SIZE, &e);
			assert(found && e.kind == EXTENT_OWN);
			addr = ((uint64_t)e.block << BLOCK_SHIFT) + pos % BLOCK_SIZE;
			run = (uint64_t)e.len * BLOCK_SIZE - pos % BLOCK_SIZE;
			n = run < n ? run : n;
		}
		n = n < end - pos ? n : end - pos;
		send_pieces(d, io, &c, addr, n, fill, pos);
	}
}

/* ---- what a request needs ---- */

enum plan {
	PLAN_GO,
	PLAN_WAIT,	/* for something that has been asked for, or will end by itself */
	PLAN_WORKER,	/* a worker does it */
};

/* Whether buffers may be cut where blocks of the file end: the device wants aligned ones. */
static bool can_be_cut(const struct disk *d, const struct blk_io *io)
{
	uint64_t align = d->lower->info.mem_align, sum = io->off;

	if (align <= d->lower->info.sector)
		return true;
	for (int i = 0; i < io->iovcnt - 1; i++)
		sum |= io->iov[i].iov_len;
	return sum % align == 0;
}

static enum plan plan_pieces(const struct disk *d, const struct blk_io *io, unsigned int pieces)
{
	/* Each piece may end within a buffer; each part takes so many buffers. */
	unsigned int parts = pieces + (unsigned int)io->iovcnt / (DISK_PART_IOVS - 1) + 1;

	if (parts > DISK_PIECES_MAX || (pieces > 1 && !can_be_cut(d, io)))
		return PLAN_WORKER;
	return parts <= d->parts_left ? PLAN_GO : PLAN_WAIT;
}

static bool has_lease(const struct disk *d)
{
	return !d->fs->lockd || lockd_has_lease(d->fs->lockd);
}

static enum plan plan_read(struct disk *d, const struct blk_io *io)
{
	uint64_t block = io->off / BLOCK_SIZE, end = DIV_ROUND_UP(io->off + io->len, BLOCK_SIZE);
	uint64_t zeros = 0;
	unsigned int pieces = 0;
	bool on_device = false, in_place;
	struct extent e;

	/* How long a request is its guest says: others of this thread do not wait for more than a part. */
	for (; block < end; block += e.len) {
		if (pieces++ == DISK_PIECES_MAX || zeros > DISK_ZEROS_MAX)
			return PLAN_WORKER;
		if (!extents_find(&d->map, block, &e)) {
			disk_slow_load(d, block / UNIT_BLOCKS);
			return PLAN_WAIT;
		}
		in_place = e.kind == EXTENT_OWN || e.kind == EXTENT_BELOW;
		on_device |= in_place;
		zeros += in_place ? 0 : e.len < end - block ? e.len : end - block;
	}
	if (zeros > DISK_ZEROS_MAX)
		return PLAN_WORKER;
	/* Zeros that no device is asked for: it would wait for the lease (R2), and so does a worker. */
	if (!on_device && !has_lease(d))
		return PLAN_WORKER;
	return plan_pieces(d, io, pieces);
}

/* What the cache says of blocks of a unit. */
struct unit_view {
	uint64_t own;		/* the image's own */
	uint64_t room;		/* of the rest, those that have their space: the unit's at … */
	uint64_t block;
};

static enum plan plan_own(struct disk *d, uint64_t unit, uint64_t mask, struct unit_view *view,
			  unsigned int *pieces)
{
	uint64_t block = unit * UNIT_BLOCKS + (uint64_t)__builtin_ctzll(mask);
	uint64_t end = unit * UNIT_BLOCKS + 64 - (uint64_t)__builtin_clzll(mask);
	struct extent e;

	*view = (struct unit_view){ 0 };
	for (; block < end; block += e.len) {
		uint32_t first = (uint32_t)(block - unit * UNIT_BLOCKS), stop;

		if (!extents_find(&d->map, block, &e)) {
			disk_slow_load(d, unit);
			return PLAN_WAIT;
		}
		stop = e.len < end - block ? first + e.len : (uint32_t)(end - unit * UNIT_BLOCKS);
		if (e.kind == EXTENT_OWN)
			view->own |= block_mask(first, stop);
		if (e.kind == EXTENT_ROOM) {
			view->room |= block_mask(first, stop);
			view->block = e.block - first;
		}
		++*pieces;
	}
	return PLAN_GO;
}

/* Whether there is a part of a block of @unit at @pos that is not the image's own yet. */
static bool has_part_of(struct disk *d, uint64_t pos, uint64_t unit, uint64_t own)
{
	struct extent e;

	if (pos % BLOCK_SIZE == 0 || pos / UNIT_SIZE != unit ||
	    own >> (pos % UNIT_SIZE / BLOCK_SIZE) & 1)
		return false;
	/* A fill need not know of all. */
	return !extents_find(&d->map, pos / BLOCK_SIZE, &e) || e.kind != EXTENT_OWN;
}

/* A fill of a unit that has its space.  NULL: not now. */
static struct disk_fill *fill_known(struct disk *d, uint64_t unit, const struct unit_view *view)
{
	struct map_entry e = { .block = view->block, .valid = view->own, .order = UNIT_ORDER };

	return disk_fill_add(d, unit, &e);
}

static enum plan plan_write(struct disk *d, const struct blk_io *io)
{
	uint64_t end = io->off + io->len, first = io->off / UNIT_SIZE, unit, mask, last;
	struct unit_view view = { 0 };
	unsigned int pieces = 0;
	struct disk_fill *fill;
	enum plan plan;

	last = (end - 1) / UNIT_SIZE;
	for (unit = first; unit <= last; unit++) {
		if (pieces > DISK_PIECES_MAX)
			return PLAN_WORKER;
		mask = block_mask(unit == first ?
				  (uint32_t)(io->off % UNIT_SIZE / BLOCK_SIZE) : 0,
				  unit == last ?
				  (uint32_t)DIV_ROUND_UP(end - unit * UNIT_SIZE, BLOCK_SIZE) : 64);
		fill = disk_fill_find(d, unit);
		if (fill) {
			if (fill->busy & mask)
				return PLAN_WAIT;
			view.own = fill->valid | fill->fresh;
			pieces++;
		} else {
			plan = plan_own(d, unit, mask, &view, &pieces);
			if (plan != PLAN_GO)
				return plan;
		}
		if (has_part_of(d, io->off, unit, view.own) || has_part_of(d, end, unit, view.own))
			return PLAN_WORKER;
		if (fill || !(mask & ~view.own))
			continue;
		if (mask & ~view.own & ~view.room)
			disk_slow_space(d, unit, last + 1);
		else if (fill_known(d, unit, &view))
			continue;
		return PLAN_WAIT;
	}
	return plan_pieces(d, io, pieces);
}

static void send_all(struct disk *d, struct blk_io *io)
{
	struct disk_req *q = disk_req(io);

	flight_begin(d, io);
	q->pending = 1;
	q->err = 0;
	if (io->op == BLK_READ)
		send_read(d, io);
	else
		send_write(d, io);
	if (--q->pending == 0)
		disk_finish(d, io, q->err);
}

static void start_pieces(struct disk *d, struct blk_io *io)
{
	enum plan plan;

	/*
	 * Submitted by the done() of what the lower device has just refused, amid the pieces of another:
	 * it would take the parts that those were planned for.
	 */
	if (d->sending) {
		wait_for_it(d, io);
		disk_retry(d);
		return;
	}
	disk_fills_reserve(d);
	d->sending = true;
	plan = io->op == BLK_READ ? plan_read(d, io) : plan_write(d, io);
	if (plan == PLAN_GO)
		send_all(d, io);
	d->sending = false;
	if (plan == PLAN_WORKER &&
	    disk_slow_exclusive(d, io->op == BLK_READ ? SLOW_READ : SLOW_WRITE, io, io->off,
				io->len))
		return;
	if (plan != PLAN_GO)
		wait_for_it(d, io);
}

static void start_rw(struct disk *d, struct blk_io *io)
{
	uint64_t first = io->off / BLOCK_SIZE, end = DIV_ROUND_UP(io->off + io->len, BLOCK_SIZE);
	struct extent e;

	if (disk_is_blocked(d, first / UNIT_BLOCKS, DIV_ROUND_UP(end, UNIT_BLOCKS))) {
		wait_for_it(d, io);
	} else if (extents_find(&d->map, first, &e) && e.len >= end - first &&
		   (e.kind == EXTENT_OWN || (e.kind == EXTENT_BELOW && io->op == BLK_READ))) {
		flight_begin(d, io);
		disk_req(io)->pending = IN_PLACE;
		io->off = ((uint64_t)e.block << BLOCK_SHIFT) + io->off % BLOCK_SIZE;
		send_io(d, io);
	} else {
		start_pieces(d, io);
	}
}

/* ---- the rest ---- */

static void start_flush(struct disk *d, struct blk_io *io)
{
	if (disk_is_clean(d)) {
		disk_finish(d, io, 0);
		return;
	}
	list_add_tail(&d->flushes, &io->node);
	disk_slow_commit(d);
}

/* A piece of a discard, or of zeroes: whole blocks of the former. */
static void start_range(struct disk *d, struct blk_io *io)
{
	struct disk_req *q = disk_req(io);
	uint64_t from = io->off + q->next, end = io->off + io->len, stop;
	bool discard = io->op == BLK_DISCARD;

	if (discard) {
		from = ALIGN_UP(from, BLOCK_SIZE);
		end = end == d->dev.info.size ? end : ALIGN_DOWN(end, BLOCK_SIZE);
	}
	if (from >= end) {
		disk_finish(d, io, 0);
		return;
	}
	stop = ALIGN_DOWN(from + DISK_CHUNK_BYTES, DISK_CHUNK_BYTES);
	stop = stop < end ? stop : end;
	if (!disk_slow_exclusive(d, discard ? SLOW_DISCARD : SLOW_ZERO, io, from, stop - from))
		wait_for_it(d, io);
}

void disk_start(struct disk *d, struct blk_io *io)
{
	if (!d->open || d->abandoned) {
		disk_finish(d, io, -ENOMEDIUM);
	} else if (d->pauses) {
		wait_for_it(d, io);
	} else if (io->op == BLK_READ || io->op == BLK_WRITE) {
		if (disk_may_start(d, io))
			start_rw(d, io);
	} else if (io->op == BLK_FLUSH) {
		start_flush(d, io);
	} else if (io->op == BLK_DISCARD || io->op == BLK_ZERO) {
		start_range(d, io);
	} else {
		disk_finish(d, io, -ENOTSUP);
	}
}

void disk_retry_now(struct reactor_call *call)
{
	struct disk *d = container_of(call, struct disk, retry_call);
	struct list again;

	list_init(&again);
	list_splice_tail(&again, &d->waiting);
	while (!list_empty(&again)) {
		struct blk_io *io = list_first(&again, struct blk_io, node);

		list_del(&io->node);
		disk_start(d, io);
	}
	disk_send(d);
}

void disk_fail_waiting(struct disk *d, uint64_t first, uint64_t end, bool writes_only, int err)
{
	struct list all;

	list_init(&all);
	list_splice_tail(&all, &d->waiting);
	while (!list_empty(&all)) {
		struct blk_io *io = list_first(&all, struct blk_io, node);
		bool rw = io->op == BLK_WRITE || (io->op == BLK_READ && !writes_only);

		list_del(&io->node);
		if (rw && io->off < end * UNIT_SIZE && io->off + io->len > first * UNIT_SIZE)
			disk_finish(d, io, err);
		else
			list_add_tail(&d->waiting, &io->node);
	}
}

/* ---- submission ---- */

static void take(struct disk *d, struct blk_io *io)
{
	struct disk_req *q = disk_req(io);

	q->d = d;
	q->done = io->done;
	q->off = io->off;
	q->start_ns = disk_now_ns(d);
	q->pending = 0;
	q->err = 0;
	q->next = 0;
	q->in_flight = false;
	q->flushed = false;
	q->charged = false;
	q->shared = false;
	disk_start(d, io);
}

void disk_incoming(struct reactor_call *call)
{
	struct disk *d = container_of(call, struct disk, incoming_call);
	struct blk_io *io, *next, *first = NULL;

	/* The last one submitted is the first of the list. */
	for (io = atomic_exchange(&d->incoming, NULL); io; io = next) {
		next = disk_req(io)->posted_next;
		disk_req(io)->posted_next = first;
		first = io;
	}
	for (io = first; io; io = next) {
		next = disk_req(io)->posted_next;
		take(d, io);
	}
	disk_send(d);
}

void disk_submit(struct blkdev *dev, struct blk_io **ios, unsigned int count)
{
	struct disk *d = container_of(dev, struct disk, dev);

	if (disk_is_mine(d)) {
		for (unsigned int i = 0; i < count; i++)
			take(d, ios[i]);
		disk_send(d);
		return;
	}
	for (unsigned int i = 0; i < count; i++) {
		struct disk_req *q = disk_req(ios[i]);

		q->posted_next = atomic_load_explicit(&d->incoming, memory_order_relaxed);
		while (!atomic_compare_exchange_weak(&d->incoming, &q->posted_next, ios[i]))
			;
	}
	disk_post(d, &d->incoming_call);
}
