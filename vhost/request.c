/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request from its buffers to its status byte.
 *
 *   request_start ── read, write, aligned ────────────► device ──► request_end
 *        │    └───── read, write, misaligned ──► bounce buffer ◄─► device, piece by piece
 *        │    └───── discard, write zeroes ────► device, range by range
 *        └── nonsense, GET_ID ──────────────────────────────────► request_end
 */
#include "vhost/internal.h"

#include <errno.h>
#include <stdlib.h>

/* What zeroes are written from where the device cannot make them itself. */
static uint8_t zeros[BOUNCE_SIZE] __attribute__((aligned(4096)));

static void request_step(struct request *r, int err);
static void handed_over(struct reactor_call *call);

/* ---- the pool ---- */

int requests_init(struct vhu *v)
{
	/* Pages of either that are never needed are never there. */
	v->requests = calloc(REQUESTS_MAX, sizeof(*v->requests));
	v->bounce = aligned_alloc(4096, (size_t)BOUNCE_COUNT * BOUNCE_SIZE);
	v->bounce_free = (1u << BOUNCE_COUNT) - 1;
	list_init(&v->requests_free);
	list_init(&v->bounce_waiting);
	v->handed_call.fn = handed_over;
	if (v->requests && v->bounce)
		return 0;
	requests_fini(v);
	return -ENOMEM;
}

void requests_fini(struct vhu *v)
{
	free(v->requests);
	free(v->bounce);
	v->requests = NULL;
	v->bounce = NULL;
}

/* The one that was used last is the one that is in the cache. */
struct request *request_get(struct vhu *v)
{
	struct request *r;

	if (!list_empty(&v->requests_free)) {
		r = list_first(&v->requests_free, struct request, node);
		list_del(&r->node);
		return r;
	}
	if (v->requests_used == REQUESTS_MAX)
		return NULL;
	r = &v->requests[v->requests_used++];
	list_init(&r->node);
	return r;
}

void request_put(struct vhu *v, struct request *r)
{
	list_add_head(&v->requests_free, &r->node);
}

/* ---- the end ---- */

static void request_log(const struct request *r)
{
	struct vhu *v = r->q->v;
	int i;

	if (!has_feature(v, VHU_F_LOG_ALL))
		return;
	for (i = 0; r->type != BLK_T_OUT && i < r->data_count; i++)
		mem_log_host(&v->mem, r->data[i].iov_base, r->data[i].iov_len);
	mem_log_host(&v->mem, r->status, 1);
}

static void request_count(const struct request *r, uint8_t status)
{
	struct vhu_stats *s = &r->q->v->stats;

	if (status != BLK_S_OK)
		s->errors++;
	switch (r->type) {
	case BLK_T_IN:
	case BLK_T_OUT:
		s->ops[r->type]++;
		s->bytes[r->type] += r->len;
		break;
	case BLK_T_FLUSH:
		s->ops[2]++;
		break;
	case BLK_T_DISCARD:
	case BLK_T_WRITE_ZEROES:
		s->ops[3]++;
		break;
	default:
		break;
	}
}

static void request_end(struct request *r, uint8_t status)
{
	struct vhu_queue *q = r->q;
	struct vhu *v = q->v;

	/* Cut off: it stays in flight, for whoever serves the ring next to do it again. */
	if (!v->cut) {
		*r->status = status;
		request_log(r);
		queue_push(q, r, r->in_len);
		request_count(r, status);
	}
	q->in_flight--;
	v->in_flight--;
	v->bytes_in_flight -= r->charge;
	request_put(v, r);
	if (v->cut || v->drained)
		reactor_at_end(v->r, &v->end);
}

static uint8_t status_of(int err)
{
	if (!err)
		return BLK_S_OK;
	return err == -ENOTSUP ? BLK_S_UNSUPP : BLK_S_IOERR;
}

/* ---- to the device and back ---- */

static void handed_over(struct reactor_call *call)
{
	struct vhu *v = container_of(call, struct vhu, handed_call);
	struct request *r, *next;

	for (r = atomic_exchange(&v->handed, NULL); r; r = next) {
		next = r->handed_next;
		request_step(r, r->handed_err);
	}
}

static void request_done(struct blk_io *io, int err)
{
	struct request *r = container_of(io, struct request, io);
	struct vhu *v = r->q->v;

	if (reactor_current() == v->r) {
		request_step(r, err);
		return;
	}
	r->handed_err = err;
	r->handed_next = atomic_load_explicit(&v->handed, memory_order_relaxed);
	while (!atomic_compare_exchange_weak(&v->handed, &r->handed_next, r))
		;
	reactor_post(v->r, &v->handed_call);
}

void requests_submit(struct vhu *v)
{
	struct blk_io *batch[SUBMIT_BATCH];
	unsigned int n = v->batch_count;

	if (!n)
		return;
	/* done() may run within and add to the next batch. */
	memcpy(batch, v->batch, n * sizeof(struct blk_io *));
	v->batch_count = 0;
	blkdev_submit(v->dev, batch, n);
}

static bool writes_through(const struct vhu *v)
{
	/* A driver that cannot flush must not need to (virtio 5.2.5.2). */
	return !has_feature(v, BLK_F_FLUSH) ||
	       (has_feature(v, BLK_F_CONFIG_WCE) && !v->writeback);
}

static void request_issue(struct request *r, enum blk_op op, uint64_t off, uint64_t len,
			  const struct iovec *iov, int iovcnt)
{
	struct vhu *v = r->q->v;
	bool fua = (op == BLK_WRITE || op == BLK_ZERO) && writes_through(v);

	r->io.op = op;
	r->io.flags = fua ? BLK_FUA : 0;
	r->io.off = off;
	r->io.len = len;
	r->io.iov = iov;
	r->io.iovcnt = iovcnt;
	r->io.done = request_done;
	v->batch[v->batch_count++] = &r->io;
	if (v->batch_count == SUBMIT_BATCH)
		requests_submit(v);
	else if (v->batch_count == 1)
		reactor_at_end(v->r, &v->end);
}

/* ---- buffers that the device cannot take ---- */

static bool data_is_aligned(const struct vhu *v, const struct request *r)
{
	uintptr_t bases = 0;
	size_t sizes = 0;
	int i;

	for (i = 0; i < r->data_count; i++) {
		bases |= (uintptr_t)r->data[i].iov_base;
		sizes |= r->data[i].iov_len;
	}
	return !(bases & (v->dev->info.mem_align - 1)) && !(sizes & (v->dev->info.sector - 1));
}

/* Copies @len bytes at @r->moved of the guest's buffers, to or from the bounce buffer. */
static void bounce_copy(const struct request *r, size_t len, bool to_guest)
{
	uint64_t skip = r->moved;
	uint8_t *b = r->bounce;
	int i;

	for (i = 0; i < r->data_count && len; i++) {
		uint8_t *p = r->data[i].iov_base;
		size_t n = r->data[i].iov_len;

		if (skip >= n) {
			skip -= n;
			continue;
		}
		p += skip;
		n -= skip;
		skip = 0;
		if (n > len)
			n = len;
		if (to_guest)
			memcpy(p, b, n);
		else
			memcpy(b, p, n);
		b += n;
		len -= n;
	}
}

static void bounce_issue(struct request *r)
{
	uint64_t n = r->len - r->moved;

	if (n > BOUNCE_SIZE)
		n = BOUNCE_SIZE;
	if (r->type == BLK_T_OUT)
		bounce_copy(r, n, false);
	r->bounce_iov = (struct iovec){ .iov_base = r->bounce, .iov_len = n };
	request_issue(r, r->type == BLK_T_IN ? BLK_READ : BLK_WRITE, r->off + r->moved, n,
		      &r->bounce_iov, 1);
}

static void bounce_start(struct request *r)
{
	struct vhu *v = r->q->v;
	int i = __builtin_ffs((int)v->bounce_free);

	if (!i) {
		list_add_tail(&v->bounce_waiting, &r->node);
		return;
	}
	v->bounce_free &= ~(1u << (i - 1));
	r->bounce = v->bounce + (size_t)(i - 1) * BOUNCE_SIZE;
	v->stats.bounced++;
	bounce_issue(r);
}

static void bounce_end(struct request *r, uint8_t status)
{
	struct vhu *v = r->q->v;
	struct request *next;

	v->bounce_free |= 1u << ((size_t)(r->bounce - v->bounce) / BOUNCE_SIZE);
	r->bounce = NULL;
	request_end(r, status);
	if (list_empty(&v->bounce_waiting))
		return;
	next = list_first(&v->bounce_waiting, struct request, node);
	list_del(&next->node);
	bounce_start(next);
}

static void bounce_step(struct request *r, int err)
{
	if (!err && r->type == BLK_T_IN && !r->q->v->cut)
		bounce_copy(r, r->io.len, true);
	r->moved += r->io.len;
	if (err || r->moved >= r->len || r->q->v->cut)
		bounce_end(r, status_of(err));
	else
		bounce_issue(r);
}

/* ---- discard, write zeroes ---- */

static void range_issue(struct request *r)
{
	const struct range *range = &r->ranges[r->range_next];

	r->moved = 0;
	request_issue(r, r->type == BLK_T_DISCARD ? BLK_DISCARD : BLK_ZERO, range->off,
		      range->len, NULL, 0);
}

static void zeros_issue(struct request *r)
{
	const struct range *range = &r->ranges[r->range_next];
	uint64_t n = range->len - r->moved;

	if (n > BOUNCE_SIZE)
		n = BOUNCE_SIZE;
	r->bounce_iov = (struct iovec){ .iov_base = zeros, .iov_len = n };
	request_issue(r, BLK_WRITE, range->off + r->moved, n, &r->bounce_iov, 1);
}

static void range_step(struct request *r, int err)
{
	bool writing = r->io.op == BLK_WRITE;

	if (r->io.op == BLK_ZERO && err == -ENOTSUP) {
		zeros_issue(r);
		return;
	}
	if (err || r->q->v->cut) {
		request_end(r, status_of(err));
		return;
	}
	r->moved += r->io.len;
	if (writing && r->moved < r->ranges[r->range_next].len)
		zeros_issue(r);
	else if (++r->range_next < r->range_count)
		range_issue(r);
	else
		request_end(r, BLK_S_OK);
}

static void request_step(struct request *r, int err)
{
	if (r->bounce)
		bounce_step(r, err);
	else if (r->range_count)
		range_step(r, err);
	else
		request_end(r, status_of(err));
}

/* ---- the beginning ---- */

/* Takes the header off the front and the status byte off the end; the rest is data. */
static int request_frame(struct request *r, struct blk_header_wire *h)
{
	uint8_t *p = (uint8_t *)h;
	size_t need = sizeof(*h);
	int i = 0, in = r->iov_count - r->out_count;
	struct iovec *last = &r->iov[r->iov_count - 1];

	if (r->out_bytes < sizeof(*h) || !r->in_bytes)
		return -EPROTO;
	while (need) {
		struct iovec *iov = &r->iov[i];
		size_t n = iov->iov_len < need ? iov->iov_len : need;

		memcpy(p, iov->iov_base, n);
		p += n;
		need -= n;
		iov->iov_base = (uint8_t *)iov->iov_base + n;
		iov->iov_len -= n;
		if (!iov->iov_len)
			i++;
	}
	r->status = (uint8_t *)last->iov_base + --last->iov_len;
	if (!last->iov_len)
		in--;
	r->in_len = r->in_bytes < UINT32_MAX ? (uint32_t)r->in_bytes : UINT32_MAX;
	r->type = le32_to_cpu(h->type);
	if (r->type == BLK_T_IN || r->type == BLK_T_GET_ID) {
		r->data = &r->iov[r->out_count];
		r->data_count = in;
		r->len = r->in_bytes - 1;
	} else {
		r->data = &r->iov[i];
		r->data_count = r->out_count - i;
		r->len = r->out_bytes - sizeof(*h);
	}
	return 0;
}

/* Whether [@sector, +@len bytes) lies on the disk; @off receives it in bytes. */
static bool on_disk(const struct vhu *v, uint64_t sector, uint64_t len, uint64_t *off)
{
	uint64_t size = v->dev->info.size;

	if (sector > size / BLK_SECTOR)
		return false;
	*off = sector * BLK_SECTOR;
	return len <= size - *off;
}

static void start_rw(struct request *r, uint64_t sector)
{
	struct vhu *v = r->q->v;

	/* More than fits into the segments that were offered: the same memory named many times, say. */
	if ((r->type == BLK_T_OUT && v->read_only) || r->len % BLK_SECTOR || r->len > DATA_MAX ||
	    !on_disk(v, sector, r->len, &r->off))
		request_end(r, BLK_S_IOERR);
	else if (!r->len)
		request_end(r, BLK_S_OK);
	else if (data_is_aligned(v, r))
		request_issue(r, r->type == BLK_T_IN ? BLK_READ : BLK_WRITE, r->off, r->len,
			      r->data, r->data_count);
	else
		bounce_start(r);
}

/* Copies the ranges out of the guest's memory, then checks them.  Return: a status. */
static uint8_t copy_ranges(struct request *r)
{
	struct blk_range_wire wire[RANGES_MAX];
	struct vhu *v = r->q->v;
	size_t have = 0, count;
	int i;

	count = r->len / sizeof(wire[0]);
	if (!count || r->len % sizeof(wire[0]) || count > RANGES_MAX)
		return BLK_S_IOERR;
	for (i = 0; i < r->data_count; i++) {
		memcpy((uint8_t *)wire + have, r->data[i].iov_base, r->data[i].iov_len);
		have += r->data[i].iov_len;
	}
	for (size_t n = 0; n < count; n++) {
		struct range *range = &r->ranges[r->range_count];
		uint32_t flags = le32_to_cpu(wire[n].flags);
		uint32_t sectors = le32_to_cpu(wire[n].sectors);

		if (flags & ~(r->type == BLK_T_WRITE_ZEROES ? 1u : 0u))
			return BLK_S_UNSUPP;
		range->len = (uint64_t)sectors * BLK_SECTOR;
		if (sectors > RANGE_SECTORS_MAX ||
		    !on_disk(v, le64_to_cpu(wire[n].sector), range->len, &range->off))
			return BLK_S_IOERR;
		if (sectors)
			r->range_count++;
	}
	return BLK_S_OK;
}

static void start_ranges(struct request *r)
{
	struct vhu *v = r->q->v;
	unsigned int bit = r->type == BLK_T_DISCARD ? BLK_F_DISCARD : BLK_F_WRITE_ZEROES;
	uint8_t status = BLK_S_UNSUPP;

	if (has_feature(v, bit))
		status = v->read_only ? BLK_S_IOERR : copy_ranges(r);
	if (status != BLK_S_OK || !r->range_count) {
		r->range_count = 0;
		request_end(r, status);
		return;
	}
	r->range_next = 0;
	range_issue(r);
}

static void start_get_id(struct request *r)
{
	const char *serial = r->q->v->p.serial;
	size_t left = r->len < VHU_SERIAL_SIZE ? r->len : VHU_SERIAL_SIZE;
	int i;

	for (i = 0; i < r->data_count && left; i++) {
		size_t n = r->data[i].iov_len < left ? r->data[i].iov_len : left;

		memcpy(r->data[i].iov_base, serial, n);
		serial += n;
		left -= n;
	}
	request_end(r, BLK_S_OK);
}

int request_start(struct request *r)
{
	struct blk_header_wire h;

	if (request_frame(r, &h))
		return -EPROTO;
	r->moved = 0;
	r->bounce = NULL;
	r->range_count = 0;
	r->charge = r->type == BLK_T_IN || r->type == BLK_T_OUT ? r->len : 0;
	r->q->v->bytes_in_flight += r->charge;
	switch (r->type) {
	case BLK_T_IN:
	case BLK_T_OUT:
		start_rw(r, le64_to_cpu(h.sector));
		break;
	case BLK_T_FLUSH:
		request_issue(r, BLK_FLUSH, 0, 0, NULL, 0);
		break;
	case BLK_T_GET_ID:
		start_get_id(r);
		break;
	case BLK_T_DISCARD:
	case BLK_T_WRITE_ZEROES:
		start_ranges(r);
		break;
	default:
		request_end(r, BLK_S_UNSUPP);
		break;
	}
	return 0;
}
