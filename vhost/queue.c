/* SPDX-License-Identifier: Apache-2.0 */
#include "vhost/internal.h"

#include <errno.h>
#include <unistd.h>

/* A kick ends the reactor's sleep; the poller does the rest. */
static void kick_ready(struct reactor_fd *f, uint32_t events)
{
	struct vhu_queue *q = container_of(f, struct vhu_queue, kick);

	/* Only a descriptor that hangs up is ready for ever. */
	if (events & (EPOLLHUP | EPOLLERR))
		reactor_remove(q->v->r, f);
}

void queue_init(struct vhu *v, struct vhu_queue *q, unsigned int index)
{
	q->v = v;
	q->index = index;
	q->kick = (struct reactor_fd){ .fd = -1, .ready = kick_ready };
	q->call_fd = -1;
	q->err_fd = -1;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* They were checked to be eventfds: closing them waits for nobody. */
void queue_reset_fds(struct vhu_queue *q)
{
	reactor_remove(q->v->r, &q->kick);
	close_fd(&q->kick.fd);
	close_fd(&q->call_fd);
	close_fd(&q->err_fd);
	q->kick_set = false;
}

void queue_reset(struct vhu_queue *q)
{
	struct vhu *v = q->v;
	unsigned int index = q->index;

	assert(!q->running && !q->in_flight);
	queue_reset_fds(q);
	memset(q, 0, sizeof(*q));
	queue_init(v, q, index);
}

int queue_set_kick(struct vhu_queue *q, int fd, bool polled)
{
	int err = 0;

	reactor_remove(q->v->r, &q->kick);
	close_fd(&q->kick.fd);
	q->kick_set = polled || fd >= 0;
	if (fd < 0)
		return 0;
	q->kick.fd = fd;
	/* Edges: it is never read, so that nothing of its owner's can keep us. */
	err = reactor_add(q->v->r, &q->kick, EPOLLIN | EPOLLET);
	if (err) {
		q->kick.fd = -1;
		q->kick_set = false;
	}
	return err;
}

uint32_t queue_get_base(const struct vhu_queue *q)
{
	if (!has_feature(q->v, VIRTIO_F_RING_PACKED))
		return q->avail_next;
	return (uint32_t)q->avail_next | (uint32_t)q->avail_wrap << 15 |
	       (uint32_t)q->used_next << 16 | (uint32_t)q->used_wrap << 31;
}

void queue_set_base(struct vhu_queue *q, uint32_t base)
{
	if (!has_feature(q->v, VIRTIO_F_RING_PACKED)) {
		q->avail_next = (uint16_t)base;
		return;
	}
	q->avail_next = base & 0x7fff;
	q->avail_wrap = base >> 15 & 1;
	q->used_next = base >> 16 & 0x7fff;
	q->used_wrap = base >> 31;
}

int queue_map(struct vhu_queue *q)
{
	return ring_ops(q)->map(q);
}

/* Everything that a ring needs before it can be served. */
static bool queue_is_ready(const struct vhu_queue *q)
{
	return q->size && q->addr_set && q->kick_set && !q->running && !q->broken &&
	       (q->enabled || !has_feature(q->v, VHU_F_PROTOCOL_FEATURES));
}

static int queue_start(struct vhu_queue *q)
{
	struct vhu *v = q->v;
	int err;

	if (has_feature(v, VIRTIO_F_RING_PACKED) &&
	    (q->avail_next >= q->size || q->used_next >= q->size))
		return -EINVAL;
	err = queue_map(q);
	if (!err)
		err = inflight_start(q);
	if (err) {
		log_error(v->env, v->name, "queue %u cannot start: its rings or its in-flight "
			  "area are not where the front end says", q->index);
		return err;
	}
	q->batch_count = 0;
	q->announced = q->used_next;
	q->unasked = 0;
	q->took = q->at_once = false;
	q->call_always = true;	/* one that our predecessor owed may never have been sent */
	q->running = true;
	v->running++;
	if (!v->polling) {
		v->polling = true;
		reactor_poller_add(v->r, &v->poller);
	}
	if (q->inflight.again_count)
		log_info(v->env, v->name, "queue %u goes on with %u requests that were under way",
			 q->index, q->inflight.again_count);
	return 0;
}

int queue_try_start(struct vhu_queue *q)
{
	struct vhu *v = q->v;

	if (!queue_is_ready(q))
		return 0;
	if (v->lock == LOCK_NONE) {
		if (!v->p.ops || !v->p.ops->start) {
			v->lock = LOCK_GRANTED;
		} else {
			v->lock = LOCK_ASKED;
			v->p.ops->start(v, v->p.arg);
		}
	}
	return v->lock == LOCK_GRANTED ? queue_start(q) : 0;
}

/* What was pushed becomes visible first, unless nobody is to see it. */
void queue_stop(struct vhu_queue *q)
{
	struct vhu *v = q->v;

	if (!q->running)
		return;
	q->running = false;
	v->running--;
	if (!v->running && v->polling) {
		v->polling = false;
		reactor_poller_remove(v->r, &v->poller);
	}
}

void queue_break(struct vhu_queue *q, const char *why)
{
	struct vhu *v = q->v;

	if (q->broken)
		return;
	q->broken = true;
	log_error(v->env, v->name, "queue %u is not served any more: %s; reset the guest's "
		  "device", q->index, why);
	if (q->err_fd >= 0) {
		notify_add(&v->notify, q->err_fd);
		reactor_at_end(v->r, &v->end);
	}
}

static bool queue_is_served(const struct vhu_queue *q)
{
	return q->running && !q->broken && !q->v->cut &&
	       (q->enabled || !has_feature(q->v, VHU_F_PROTOCOL_FEATURES));
}

/* The next request, one of before a restart first. */
static int queue_pop(struct vhu_queue *q, struct request *r)
{
	struct inflight_queue *i = &q->inflight;

	if (i->again_next < i->again_count)
		return ring_ops(q)->pop_again(q, r, i->again[i->again_next++]);
	return ring_ops(q)->pop(q, r);
}

/* Whether one more may be taken; else the next that ends goes on with the ring. */
static bool has_room(const struct vhu *v)
{
	return v->in_flight < REQUESTS_MAX && v->bytes_in_flight < BYTES_MAX;
}

/*
 * How many to take in this round.  While a device that is done with everything at once works on all that
 * waits, its driver has nothing to do and falls asleep, and once it is told so do we: both wait in turn, and
 * each wake-up costs more than the requests.  A part of what waits at a time is given back while there is
 * more to do, and the driver has brought more by the time that we are done with that.  Any other device gets all
 * that there is in one batch.
 */
static unsigned int queue_share(struct vhu_queue *q)
{
	unsigned int share;

	if (q->took)
		q->at_once = !q->in_flight;
	if (!q->at_once)
		return POP_BATCH;
	share = ring_ops(q)->waiting(q) / POP_PARTS;
	if (q->unasked >= AWAKE_AFTER && share < POP_PART_LEAST)
		share = POP_PART_LEAST;
	return share < 1 ? 1 : share < POP_BATCH ? share : POP_BATCH;
}

unsigned int queue_poll(struct vhu_queue *q)
{
	struct vhu *v = q->v;
	unsigned int n, share;
	uint64_t bytes_max;

	if (!queue_is_served(q))
		return 0;
	share = queue_share(q);
	bytes_max = share < POP_BATCH ? v->bytes_in_flight + POP_PART_BYTES : BYTES_MAX;
	for (n = 0; n < share && queue_is_served(q) && has_room(v) &&
	     v->bytes_in_flight < bytes_max; n++) {
		struct request *r = request_get(v);
		int ret;

		if (!r)
			break;	/* the rest waits in the ring */
		ret = queue_pop(q, r);
		if (ret <= 0) {
			request_put(v, r);
			if (ret < 0)
				queue_break(q, "a descriptor or an index makes no sense");
			break;
		}
		r->q = q;
		q->in_flight++;
		v->in_flight++;
		if (request_start(r)) {
			q->in_flight--;
			v->in_flight--;
			request_put(v, r);
			queue_break(q, "a request has no header or no status byte");
		}
	}
	q->took = n > 0;
	return n;
}

bool queue_arm(struct vhu_queue *q)
{
	if (!queue_is_served(q))
		return false;
	if (q->inflight.again_next < q->inflight.again_count || ring_ops(q)->arm(q))
		return has_room(q->v);
	return q->kick.fd < 0;	/* to be polled, for that is what the front end asked for */
}

void queue_disarm(struct vhu_queue *q)
{
	if (queue_is_served(q))
		ring_ops(q)->disarm(q);
}

void queue_push(struct vhu_queue *q, struct request *r, uint32_t written)
{
	if (q->batch_count == q->size)
		queue_publish(q);
	ring_ops(q)->push(q, r, written);
	reactor_at_end(q->v->r, &q->v->end);
}

void queue_publish(struct vhu_queue *q)
{
	bool call;

	if (!q->batch_count)
		return;
	inflight_before_publish(q);
	ring_ops(q)->publish(q);
	inflight_after_publish(q);
	call = ring_ops(q)->wants_call(q) || q->call_always;
	q->call_always = false;
	q->unasked = call ? 0 : q->unasked + q->batch_count;
	q->batch_count = 0;
	if (!call || q->call_fd < 0)
		return;
	notify_add(&q->v->notify, q->call_fd);
	q->v->stats.calls++;
}
