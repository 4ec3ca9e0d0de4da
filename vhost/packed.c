/* SPDX-License-Identifier: Apache-2.0 */
/* The packed ring: virtio 2.8.  One ring that both sides write; flags say whose a slot is. */
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

static void log_slot(struct vhu_queue *q, unsigned int slot)
{
	if (q->addr.flags & VHU_VRING_F_LOG)
		mem_log_host(&q->v->mem, &q->packed[slot], sizeof(q->packed[slot]));
}

static void log_event(struct vhu_queue *q)
{
	if (q->addr.flags & VHU_VRING_F_LOG)
		mem_log(&q->v->mem, q->addr.log, sizeof(struct packed_event_wire));
}

static int packed_map(struct vhu_queue *q)
{
	struct mem *m = &q->v->mem;

	q->packed = mem_at_user(m, q->addr.desc, q->size * sizeof(struct packed_desc_wire));
	q->driver_event = mem_at_user(m, q->addr.avail, sizeof(struct packed_event_wire));
	q->device_event = mem_at_user(m, q->addr.used, sizeof(struct packed_event_wire));
	if (!q->packed || !q->driver_event || !q->device_event)
		return -EINVAL;
	return (uintptr_t)q->packed % 16 || (uintptr_t)q->driver_event % 4 ||
	       (uintptr_t)q->device_event % 4 ? -EINVAL : 0;
}

/* Virtio 2.8.1: available as long as "avail" is the driver's wrap counter and "used" is not. */
static bool flags_available(uint16_t flags, bool wrap)
{
	return !!(flags & PACKED_F_AVAIL) == wrap && !!(flags & PACKED_F_USED) != wrap;
}

static bool packed_available(const struct vhu_queue *q)
{
	return flags_available(load16(&q->packed[q->avail_next].flags), q->avail_wrap);
}

/* Turns copied descriptors into buffers. */
static int packed_collect(struct vhu_queue *q, struct request *r, const struct desc *descs,
			  uint16_t count)
{
	struct mem *m = &q->v->mem;
	uint16_t i;

	chain_begin(r);
	r->id = descs[count - 1].next;
	r->descs = count;
	if (descs[0].flags & DESC_F_INDIRECT)
		return count == 1 ? chain_add_indirect(m, r, &descs[0], true) : -EPROTO;
	for (i = 0; i < count; i++)
		if ((descs[i].flags & DESC_F_INDIRECT) || chain_add(m, r, &descs[i]))
			return -EPROTO;
	return 0;
}

/* Copies the chain at the next slot.  Return: how many descriptors; 0 too many. */
static uint16_t packed_copy(struct vhu_queue *q, struct desc *descs)
{
	unsigned int slot = q->avail_next;
	uint16_t n = 0;

	while (n < DESCS_MAX && q->slots + n < q->size) {
		struct packed_desc_wire *w = &q->packed[slot];
		struct desc *d = &descs[n++];

		d->flags = load16(&w->flags);
		d->addr = le64_to_cpu(w->addr);
		d->len = le32_to_cpu(w->len);
		d->next = le16_to_cpu(w->id);
		if (!(d->flags & DESC_F_NEXT))
			return n;
		slot = slot + 1 < q->size ? slot + 1 : 0;
	}
	return 0;
}

static int packed_pop(struct vhu_queue *q, struct request *r)
{
	struct desc descs[DESCS_MAX];
	uint16_t n;

	if (!packed_available(q))
		return 0;
	n = packed_copy(q, descs);
	if (!n)
		return -EPROTO;
	r->entry = inflight_take_packed(q, descs, n);
	q->slots += n;
	q->avail_next = (uint16_t)(q->avail_next + n);
	if (q->avail_next >= q->size) {
		q->avail_next = (uint16_t)(q->avail_next - q->size);
		q->avail_wrap = !q->avail_wrap;
	}
	return packed_collect(q, r, descs, n) ? -EPROTO : 1;
}

/* Nobody counts them: looks as far as twice as far as the last that was there. */
static unsigned int packed_waiting(const struct vhu_queue *q)
{
	unsigned int n;

	for (n = 1; n <= POP_BATCH && n <= q->size; n *= 2) {
		unsigned int slot = q->avail_next + n - 1;
		bool wraps = slot >= q->size;

		if (!flags_available(load16(&q->packed[wraps ? slot - q->size : slot].flags),
				     q->avail_wrap != wraps))
			break;
	}
	return n / 2;
}

static int packed_pop_again(struct vhu_queue *q, struct request *r, uint16_t entry)
{
	struct desc descs[DESCS_MAX];
	uint16_t n = 0;

	r->entry = entry;
	if (inflight_packed_desc(q, entry, descs, &n))
		return -EPROTO;
	return packed_collect(q, r, descs, n) ? -EPROTO : 1;
}

static void packed_push(struct vhu_queue *q, struct request *r, uint32_t written)
{
	struct packed_desc_wire *w = &q->packed[q->used_next];
	uint16_t flags = q->used_wrap ? PACKED_F_AVAIL | PACKED_F_USED : 0;

	if (written)
		flags |= DESC_F_WRITE;
	w->id = cpu_to_le16(r->id);
	w->len = cpu_to_le32(written);
	inflight_push(q, r->entry);
	/* The driver stops at the first: with its flags, written last, it sees all of them. */
	if (!q->batch_count) {
		q->batch_first = q->used_next;
		q->batch_first_flags = flags;
	} else {
		store16(&w->flags, flags);
		log_slot(q, q->used_next);
	}
	q->batch_count++;
	q->slots -= r->descs;
	q->used_next = (uint16_t)(q->used_next + r->descs);
	if (q->used_next >= q->size) {
		q->used_next = (uint16_t)(q->used_next - q->size);
		q->used_wrap = !q->used_wrap;
		q->announced = (uint16_t)(q->announced - q->size);
	}
}

static void packed_publish(struct vhu_queue *q)
{
	store16(&q->packed[q->batch_first].flags, q->batch_first_flags);
	log_slot(q, q->batch_first);
}

static bool packed_wants_call(struct vhu_queue *q)
{
	uint16_t old = q->announced, flags, off_wrap, event;

	q->announced = q->used_next;
	ring_fence();
	flags = load16(&q->driver_event->flags);
	if (flags == PACKED_EVENT_DISABLE)
		return false;
	if (flags != PACKED_EVENT_DESC || !has_feature(q->v, VIRTIO_F_EVENT_IDX))
		return true;
	off_wrap = load16(&q->driver_event->off_wrap);
	event = off_wrap & 0x7fff;
	if (!!(off_wrap >> 15) != q->used_wrap)
		event = (uint16_t)(event - q->size);
	return (uint16_t)(q->used_next - event - 1) < (uint16_t)(q->used_next - old);
}

static bool packed_arm(struct vhu_queue *q)
{
	store16(&q->device_event->flags, PACKED_EVENT_ENABLE);
	log_event(q);
	ring_fence();
	return packed_available(q);
}

static void packed_disarm(struct vhu_queue *q)
{
	store16(&q->device_event->flags, PACKED_EVENT_DISABLE);
	log_event(q);
}

const struct ring_ops packed_ops = {
	.map = packed_map,
	.pop = packed_pop,
	.waiting = packed_waiting,
	.pop_again = packed_pop_again,
	.push = packed_push,
	.publish = packed_publish,
	.wants_call = packed_wants_call,
	.arm = packed_arm,
	.disarm = packed_disarm,
};
