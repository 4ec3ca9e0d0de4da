/* SPDX-License-Identifier: Apache-2.0 */
/* The split ring: virtio 2.7.  Every index that the guest writes is read once and checked. */
#include "vhost/internal.h"

#include <errno.h>

static uint16_t load16(const uint16_t *p)
{
	return le16toh(__atomic_load_n(p, __ATOMIC_ACQUIRE));
}

static void store16(uint16_t *p, uint16_t v)
{
	__atomic_store_n(p, htole16(v), __ATOMIC_RELEASE);
}

static uint16_t *avail_event(struct vhu_queue *q)
{
	return (uint16_t *)(void *)&q->used->ring[q->size];
}

/* A write to the used ring at @offset, for live migration. */
static void log_used(struct vhu_queue *q, size_t offset, size_t len)
{
	if (q->addr.flags & VHU_VRING_F_LOG)
		mem_log(&q->v->mem, q->addr.log + offset, len);
}

static int split_map(struct vhu_queue *q)
{
	struct mem *m = &q->v->mem;
	uint64_t n = q->size;

	if (n & (n - 1))
		return -EINVAL;
	q->desc = mem_at_user(m, q->addr.desc, n * sizeof(struct desc_wire));
	q->avail = mem_at_user(m, q->addr.avail, sizeof(struct avail_wire) + 2 * n + 2);
	q->used = mem_at_user(m, q->addr.used, sizeof(struct used_wire) +
			      n * sizeof(struct used_elem_wire) + 2);
	if (!q->desc || !q->avail || !q->used)
		return -EINVAL;
	return (uintptr_t)q->desc % 16 || (uintptr_t)q->avail % 2 || (uintptr_t)q->used % 4 ?
	       -EINVAL : 0;
}

/* Collects the chain that begins at @head. */
static int split_collect(struct vhu_queue *q, struct request *r, uint16_t head)
{
	struct mem *m = &q->v->mem;
	unsigned int i = head, n;

	chain_begin(r);
	r->id = head;
	for (n = 0; n < q->size && n < DESCS_MAX; n++) {
		struct desc_wire w;
		struct desc d;

		if (i >= q->size)
			return -EPROTO;
		memcpy(&w, &q->desc[i], sizeof(w));
		d = (struct desc){ .addr = le64_to_cpu(w.addr), .len = le32_to_cpu(w.len),
				   .flags = le16_to_cpu(w.flags), .next = le16_to_cpu(w.next) };
		if (d.flags & DESC_F_INDIRECT)
			return d.flags & DESC_F_NEXT ? -EPROTO :
			       chain_add_indirect(m, r, &d, false);
		if (chain_add(m, r, &d))
			return -EPROTO;
		if (!(d.flags & DESC_F_NEXT))
			return 0;
		i = d.next;
	}
	return -EPROTO;	/* too long, or round and round */
}

static unsigned int split_waiting(const struct vhu_queue *q)
{
	return (uint16_t)(load16(&q->avail->idx) - q->avail_next);
}

static int split_pop(struct vhu_queue *q, struct request *r)
{
	unsigned int waiting = split_waiting(q);
	uint16_t head;

	if (!waiting)
		return 0;
	/* Those that we hold are not available again: more than that is a jump of the index. */
	if (waiting > q->size - q->in_flight)
		return -EPROTO;
	head = load16(&q->avail->ring[q->avail_next & (q->size - 1)]);
	if (head >= q->size)
		return -EPROTO;
	inflight_take_split(q, head);
	q->avail_next++;
	return split_collect(q, r, head) ? -EPROTO : 1;
}

static int split_pop_again(struct vhu_queue *q, struct request *r, uint16_t entry)
{
	return split_collect(q, r, entry) ? -EPROTO : 1;
}

static void split_push(struct vhu_queue *q, struct request *r, uint32_t written)
{
	uint16_t slot = (uint16_t)(q->used_next + q->batch_count) & (uint16_t)(q->size - 1);
	struct used_elem_wire elem = { .id = cpu_to_le32(r->id), .len = cpu_to_le32(written) };

	memcpy(&q->used->ring[slot], &elem, sizeof(elem));
	log_used(q, offsetof(struct used_wire, ring) + slot * sizeof(elem), sizeof(elem));
	inflight_push(q, r->id);
	q->batch_count++;
}

static void split_publish(struct vhu_queue *q)
{
	q->used_next = (uint16_t)(q->used_next + q->batch_count);
	store16(&q->used->idx, q->used_next);
	log_used(q, offsetof(struct used_wire, idx), 2);
}

static bool split_wants_call(struct vhu_queue *q)
{
	uint16_t old = q->announced, event;

	q->announced = q->used_next;
	/* The index must be visible before we look whether somebody waits for it. */
	ring_fence();
	if (!has_feature(q->v, VIRTIO_F_EVENT_IDX))
		return !(load16(&q->avail->flags) & AVAIL_F_NO_INTERRUPT);
	event = load16(&q->avail->ring[q->size]);
	/* Has the index passed "event" since the last time? */
	return (uint16_t)(q->used_next - event - 1) < (uint16_t)(q->used_next - old);
}

static bool split_arm(struct vhu_queue *q)
{
	if (has_feature(q->v, VIRTIO_F_EVENT_IDX)) {
		store16(avail_event(q), q->avail_next);
		log_used(q, offsetof(struct used_wire, ring) +
			 q->size * sizeof(struct used_elem_wire), 2);
	} else {
		store16(&q->used->flags, 0);
		log_used(q, 0, 2);
	}
	ring_fence();
	return load16(&q->avail->idx) != q->avail_next;
}

static void split_disarm(struct vhu_queue *q)
{
	/* With EVENT_IDX an index that stays behind asks for nothing. */
	if (has_feature(q->v, VIRTIO_F_EVENT_IDX))
		return;
	store16(&q->used->flags, USED_F_NO_NOTIFY);
	log_used(q, 0, 2);
}

const struct ring_ops split_ops = {
	.map = split_map,
	.pop = split_pop,
	.waiting = split_waiting,
	.pop_again = split_pop_again,
	.push = split_push,
	.publish = split_publish,
	.wants_call = split_wants_call,
	.arm = split_arm,
	.disarm = split_disarm,
};
