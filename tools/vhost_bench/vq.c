/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/vhost_bench/vq.h"

#include <errno.h>
#include <stdlib.h>

#define PAGE	4096u

static uint16_t load16(const uint16_t *p)
{
	return le16toh(__atomic_load_n(p, __ATOMIC_ACQUIRE));
}

static void store16(uint16_t *p, uint16_t v)
{
	__atomic_store_n(p, htole16(v), __ATOMIC_RELEASE);
}

/* What was stored before is seen before what is loaded after. */
static void fence(void)
{
#ifdef __SANITIZE_THREAD__	/* knows no fences; a locked instruction is one */
	static int any;

	__atomic_fetch_add(&any, 1, __ATOMIC_SEQ_CST);
#else
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

static size_t desc_bytes(unsigned int size)
{
	return ALIGN_UP(size * sizeof(struct desc_wire), PAGE);
}

static size_t avail_bytes(unsigned int size)
{
	return ALIGN_UP(sizeof(struct avail_wire) + 2 * size + 2, PAGE);
}

static size_t used_bytes(unsigned int size)
{
	return ALIGN_UP(sizeof(struct used_wire) + size * sizeof(struct used_elem_wire) + 2, PAGE);
}

size_t vq_bytes(unsigned int size, unsigned int depth, unsigned int bufs_max)
{
	/* Packed rings want less than split ones. */
	return desc_bytes(size) + avail_bytes(size) + used_bytes(size) +
	       ALIGN_UP((size_t)depth * bufs_max * sizeof(struct desc_wire), PAGE);
}

unsigned int vq_entries(uint64_t features, unsigned int depth, unsigned int bufs_max)
{
	unsigned int wanted = features & FEATURE(VIRTIO_F_INDIRECT_DESC) ? depth :
			      depth * bufs_max;
	unsigned int size = 2;

	while (size < wanted)
		size *= 2;
	return size;
}

int vq_init(struct vq *q, uint8_t *mem, uint64_t gpa)
{
	size_t rings = desc_bytes(q->size) + avail_bytes(q->size) + used_bytes(q->size);
	uint8_t *avail = mem + desc_bytes(q->size);
	uint8_t *used = avail + avail_bytes(q->size);

	q->is_packed = q->features & FEATURE(VIRTIO_F_RING_PACKED);
	q->event_idx = q->features & FEATURE(VIRTIO_F_EVENT_IDX);
	q->indirect = q->features & FEATURE(VIRTIO_F_INDIRECT_DESC);
	q->desc = (struct desc_wire *)(void *)mem;
	q->packed = (struct packed_desc_wire *)(void *)mem;
	q->avail = (struct avail_wire *)(void *)avail;
	q->driver_event = (struct packed_event_wire *)(void *)avail;
	q->used = (struct used_wire *)(void *)used;
	q->device_event = (struct packed_event_wire *)(void *)used;
	q->tables = (struct desc_wire *)(void *)(mem + rings);
	q->tables_gpa = gpa + rings;
	q->avail_next = q->used_next = q->published = 0;
	q->avail_wrap = q->used_wrap = true;
	q->calls_wanted = true;
	q->ring_slots = calloc(q->depth, sizeof(*q->ring_slots));
	return q->ring_slots ? 0 : -ENOMEM;
}

void vq_fini(struct vq *q)
{
	free(q->ring_slots);
	q->ring_slots = NULL;
}

uint32_t vq_base(const struct vq *q)
{
	uint32_t at;

	if (!q->is_packed)
		return q->used_next;
	at = (uint32_t)q->used_next | (uint32_t)q->used_wrap << 15;
	return at | at << 16;
}

/* ---- split ---- */

static unsigned int split_head(const struct vq *q, unsigned int slot)
{
	return q->indirect ? slot : slot * q->bufs_max;
}

/* Descriptors from @first of @table on, linked one to the next. */
static void split_chain(struct desc_wire *table, unsigned int first, const struct vq_buf *bufs,
			unsigned int count)
{
	for (unsigned int i = 0; i < count; i++) {
		unsigned int flags = (bufs[i].device_writes ? DESC_F_WRITE : 0) |
				     (i + 1 < count ? DESC_F_NEXT : 0);

		table[first + i] = (struct desc_wire){
			.addr = cpu_to_le64(bufs[i].addr), .len = cpu_to_le32(bufs[i].len),
			.flags = cpu_to_le16((uint16_t)flags),
			.next = cpu_to_le16((uint16_t)(first + i + 1)) };
	}
}

static void split_add(struct vq *q, unsigned int slot, const struct vq_buf *bufs,
		      unsigned int count)
{
	unsigned int head = split_head(q, slot);

	if (q->indirect) {
		split_chain(q->tables + (size_t)slot * q->bufs_max, 0, bufs, count);
		q->desc[head] = (struct desc_wire){
			.addr = cpu_to_le64(q->tables_gpa +
					    (uint64_t)slot * q->bufs_max * sizeof(*q->desc)),
			.len = cpu_to_le32((uint32_t)(count * sizeof(*q->desc))),
			.flags = cpu_to_le16(DESC_F_INDIRECT) };
	} else {
		split_chain(q->desc, head, bufs, count);
	}
	q->avail->ring[q->avail_next & (q->size - 1)] = htole16((uint16_t)head);
	q->avail_next++;
	q->ring_slots[slot] = 1;
}

static bool split_publish(struct vq *q)
{
	uint16_t old = q->published, event;

	store16(&q->avail->idx, q->avail_next);
	q->published = q->avail_next;
	fence();
	if (!q->event_idx)
		return !(load16(&q->used->flags) & USED_F_NO_NOTIFY);
	event = load16((const uint16_t *)(const void *)&q->used->ring[q->size]);
	return (uint16_t)(q->avail_next - event - 1) < (uint16_t)(q->avail_next - old);
}

static int split_next_used(struct vq *q, unsigned int *slot, uint32_t *len)
{
	struct used_elem_wire elem;
	uint32_t id;

	if (load16(&q->used->idx) == q->used_next)
		return 0;
	memcpy(&elem, &q->used->ring[q->used_next & (q->size - 1)], sizeof(elem));
	id = le32_to_cpu(elem.id);
	*slot = q->indirect ? id : id / q->bufs_max;
	*len = le32_to_cpu(elem.len);
	q->used_next++;
	if (*slot >= q->depth || id != split_head(q, *slot) || !q->ring_slots[*slot])
		return -EPROTO;
	q->ring_slots[*slot] = 0;
	return 1;
}

static bool split_want_calls(struct vq *q, bool wanted)
{
	if (!q->event_idx)
		store16(&q->avail->flags, (uint16_t)(wanted ? 0 : AVAIL_F_NO_INTERRUPT));
	else	/* one that was passed long ago asks for nothing */
		store16(&q->avail->ring[q->size],
			wanted ? q->used_next : (uint16_t)(q->used_next - 0x8000));
	fence();
	return load16(&q->used->idx) != q->used_next;
}

/* ---- packed ---- */

static unsigned int packed_flags(bool wrap)
{
	return wrap ? PACKED_F_AVAIL : PACKED_F_USED;
}

static void packed_table(struct vq *q, unsigned int slot, const struct vq_buf *bufs,
			 unsigned int count)
{
	struct packed_desc_wire *table =
		(struct packed_desc_wire *)(void *)(q->tables + (size_t)slot * q->bufs_max);

	for (unsigned int i = 0; i < count; i++)
		table[i] = (struct packed_desc_wire){
			.addr = cpu_to_le64(bufs[i].addr), .len = cpu_to_le32(bufs[i].len),
			.flags = htole16(bufs[i].device_writes ? DESC_F_WRITE : 0) };
}

static void packed_add(struct vq *q, unsigned int slot, const struct vq_buf *bufs,
		       unsigned int count)
{
	struct packed_desc_wire *first = &q->packed[q->avail_next];
	uint16_t first_flags = 0;
	struct vq_buf table;

	if (q->indirect) {
		packed_table(q, slot, bufs, count);
		table = (struct vq_buf){
			.addr = q->tables_gpa + (uint64_t)slot * q->bufs_max * sizeof(*q->desc),
			.len = (uint32_t)(count * sizeof(*q->desc)) };
		bufs = &table;
		count = 1;
	}
	for (unsigned int i = 0; i < count; i++) {
		struct packed_desc_wire *d = &q->packed[q->avail_next];
		unsigned int flags = packed_flags(q->avail_wrap) |
				     (q->indirect ? DESC_F_INDIRECT : 0) |
				     (bufs[i].device_writes ? DESC_F_WRITE : 0) |
				     (i + 1 < count ? DESC_F_NEXT : 0);

		d->addr = cpu_to_le64(bufs[i].addr);
		d->len = cpu_to_le32(bufs[i].len);
		d->id = cpu_to_le16((uint16_t)slot);
		if (i)
			store16(&d->flags, (uint16_t)flags);
		else
			first_flags = (uint16_t)flags;
		if (++q->avail_next == q->size) {
			q->avail_next = 0;
			q->avail_wrap = !q->avail_wrap;
			q->published = (uint16_t)(q->published - q->size);
		}
	}
	q->ring_slots[slot] = (uint16_t)count;
	store16(&first->flags, first_flags);	/* last: the whole chain is there */
}

static bool packed_publish(struct vq *q)
{
	uint16_t old = q->published, flags, off_wrap, event;

	q->published = q->avail_next;
	fence();
	flags = load16(&q->device_event->flags);
	if (flags != PACKED_EVENT_DESC || !q->event_idx)
		return flags != PACKED_EVENT_DISABLE;
	off_wrap = load16(&q->device_event->off_wrap);
	event = off_wrap & 0x7fff;
	if (!!(off_wrap >> 15) != q->avail_wrap)
		event = (uint16_t)(event - q->size);
	return (uint16_t)(q->avail_next - event - 1) < (uint16_t)(q->avail_next - old);
}

static bool packed_is_used(const struct vq *q)
{
	uint16_t flags = load16(&q->packed[q->used_next].flags);

	return !!(flags & PACKED_F_AVAIL) == q->used_wrap &&
	       !!(flags & PACKED_F_USED) == q->used_wrap;
}

static int packed_next_used(struct vq *q, unsigned int *slot, uint32_t *len)
{
	const struct packed_desc_wire *d = &q->packed[q->used_next];

	if (!packed_is_used(q))
		return 0;
	*slot = le16_to_cpu(d->id);
	*len = le32_to_cpu(d->len);
	if (*slot >= q->depth || !q->ring_slots[*slot])
		return -EPROTO;
	q->used_next = (uint16_t)(q->used_next + q->ring_slots[*slot]);
	q->ring_slots[*slot] = 0;
	if (q->used_next >= q->size) {
		q->used_next = (uint16_t)(q->used_next - q->size);
		q->used_wrap = !q->used_wrap;
	}
	return 1;
}

static bool packed_want_calls(struct vq *q, bool wanted)
{
	if (wanted && q->event_idx) {
		store16(&q->driver_event->off_wrap,
			(uint16_t)(q->used_next | (unsigned int)q->used_wrap << 15));
		store16(&q->driver_event->flags, PACKED_EVENT_DESC);
	} else {
		store16(&q->driver_event->flags,
			(uint16_t)(wanted ? PACKED_EVENT_ENABLE : PACKED_EVENT_DISABLE));
	}
	fence();
	return packed_is_used(q);
}

/* ---- both ---- */

void vq_add(struct vq *q, unsigned int slot, const struct vq_buf *bufs, unsigned int count)
{
	assert(slot < q->depth && count && count <= q->bufs_max);
	if (q->is_packed)
		packed_add(q, slot, bufs, count);
	else
		split_add(q, slot, bufs, count);
}

bool vq_publish(struct vq *q)
{
	return q->is_packed ? packed_publish(q) : split_publish(q);
}

int vq_next_used(struct vq *q, unsigned int *slot, uint32_t *len)
{
	return q->is_packed ? packed_next_used(q, slot, len) : split_next_used(q, slot, len);
}

bool vq_want_calls(struct vq *q, bool wanted)
{
	q->calls_wanted = wanted;
	return q->is_packed ? packed_want_calls(q, wanted) : split_want_calls(q, wanted);
}
