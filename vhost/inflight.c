/* SPDX-License-Identifier: Apache-2.0 */
#include "vhost/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define INFLIGHT_VERSION	1
#define INFLIGHT_ALIGN		64
#define INFLIGHT_BYTES_MAX	(1 * GIB)	/* more than 256 queues of the longest can need */

/*
 * The order of the stores is what a crash between two of them is recovered by.  The reader
 * is another process on the same machine, after we are gone: only the compiler must be kept
 * from reordering.
 */
static void ordered(void)
{
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

/* ---- the area ---- */

static uint64_t stride_of(bool packed, unsigned int queue_size)
{
	uint64_t bytes = packed ?
		sizeof(struct inflight_packed) + queue_size * sizeof(struct inflight_packed_desc) :
		sizeof(struct inflight_split) + queue_size * sizeof(struct inflight_split_desc);

	return ALIGN_UP(bytes, INFLIGHT_ALIGN);
}

void inflight_clear(struct inflight_area *a)
{
	if (a->map)
		shm_unmap(a->map, a->map_size);
	*a = (struct inflight_area){ 0 };
}

int inflight_create(struct inflight_area *a, unsigned int queue_count, unsigned int queue_size,
		    atomic_bool *broken, int *out)
{
	/* Room for either format: the driver's choice may not be known yet. */
	struct inflight_wire wire = {
		.mmap_size = stride_of(true, queue_size) * queue_count,
		.queue_count = (uint16_t)queue_count,
		.queue_size = (uint16_t)queue_size,
	};
	int fd, err;

	fd = memfd_create("lunfs-inflight", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	err = ftruncate(fd, (off_t)wire.mmap_size) ? -errno : 0;
	if (!err && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		err = -errno;
	if (!err)
		err = inflight_set(a, &wire, broken, fd);
	if (err) {
		close(fd);
		return err;
	}
	*out = fd;
	return 0;
}

int inflight_set(struct inflight_area *a, const struct inflight_wire *wire, atomic_bool *broken,
		 int fd)
{
	struct inflight_area new = {
		.size = wire->mmap_size, .queue_count = wire->queue_count,
		.queue_size = wire->queue_size,
	};
	int err;

	if (!new.queue_count || !new.queue_size || new.queue_size > VHU_QUEUE_SIZE_MAX ||
	    stride_of(false, new.queue_size) * new.queue_count > new.size ||
	    wire->mmap_offset % 8 || new.size > INFLIGHT_BYTES_MAX)
		return -EINVAL;
	err = shm_map(fd, wire->mmap_offset, wire->mmap_size, broken, &new.map, &new.map_size,
		      &new.start);
	if (err)
		return err;
	inflight_clear(a);
	*a = new;
	return 0;
}

/* ---- in order of taking ---- */

struct aged {
	uint64_t counter;
	uint16_t entry;
};

static int aged_compare(const void *a, const void *b)
{
	const struct aged *x = a, *y = b;

	return x->counter < y->counter ? -1 : x->counter > y->counter;
}

static void again_sort(struct inflight_queue *i, struct aged *aged, unsigned int count)
{
	qsort(aged, count, sizeof(*aged), aged_compare);
	for (unsigned int n = 0; n < count; n++) {
		i->again[n] = aged[n].entry;
		if (aged[n].counter >= i->counter)
			i->counter = aged[n].counter + 1;
	}
	i->again_count = count;
	i->again_next = 0;
}

/* ---- split ---- */

static void split_fresh(struct vhu_queue *q, struct inflight_split *s)
{
	s->version = 0;
	ordered();
	memset(s->desc, 0, q->size * sizeof(s->desc[0]));
	s->features = 0;
	s->desc_num = (uint16_t)q->size;
	s->last_batch_head = 0;
	s->used_idx = q->used_next;
	ordered();
	s->version = INFLIGHT_VERSION;
}

/* We died between making a batch visible and saying that it was: say it now. */
static int split_commit(struct vhu_queue *q, struct inflight_split *s, uint16_t used)
{
	uint16_t left = (uint16_t)(used - s->used_idx);
	uint16_t i = s->last_batch_head;

	if (left > q->size)
		return -EINVAL;
	while (left--) {
		if (i >= q->size)
			return -EINVAL;
		s->desc[i].inflight = 0;
		i = s->desc[i].next;
	}
	ordered();
	s->used_idx = used;
	return 0;
}

static int split_start(struct vhu_queue *q, struct inflight_split *s)
{
	struct aged aged[VHU_QUEUE_SIZE_MAX];
	uint16_t used = le16toh(__atomic_load_n(&q->used->idx, __ATOMIC_ACQUIRE));
	unsigned int count = 0, i;

	q->inflight.split = s;
	q->used_next = used;
	if (s->version != INFLIGHT_VERSION || s->desc_num != q->size) {
		split_fresh(q, s);
		return 0;
	}
	if (s->used_idx != used && split_commit(q, s, used))
		return -EINVAL;
	for (i = 0; i < q->size; i++)
		if (s->desc[i].inflight)
			aged[count++] = (struct aged){ s->desc[i].counter, (uint16_t)i };
	again_sort(&q->inflight, aged, count);
	/* All that was taken was given back or is on that list; the rest is in the ring. */
	q->avail_next = (uint16_t)(used + count);
	return 0;
}

void inflight_take_split(struct vhu_queue *q, uint16_t head)
{
	struct inflight_split *s = q->inflight.split;

	if (!s)
		return;
	s->desc[head].counter = q->inflight.counter++;
	ordered();
	s->desc[head].inflight = 1;
	ordered();
}

static void split_before_publish(struct vhu_queue *q, struct inflight_split *s)
{
	unsigned int n;

	for (n = 0; n < q->batch_count; n++) {
		uint16_t i = q->batch_ids[n];

		s->desc[i].next = n ? q->batch_ids[n - 1] : 0;
		ordered();
		s->last_batch_head = i;
	}
}

static void split_after_publish(struct vhu_queue *q, struct inflight_split *s)
{
	unsigned int n;

	for (n = 0; n < q->batch_count; n++)
		s->desc[q->batch_ids[n]].inflight = 0;
	ordered();
	s->used_idx = q->used_next;
}

/* ---- packed ---- */

/*
 * Entries are either free, in a list that ends with an index out of range, or belong to one
 * request each, linked in the order of its descriptors.  Taking them from the front of the
 * free list leaves them linked so.
 */
static void packed_fresh(struct vhu_queue *q, struct inflight_packed *s)
{
	uint16_t i;

	s->version = 0;
	ordered();
	memset(s->desc, 0, q->size * sizeof(s->desc[0]));
	s->features = 0;
	s->desc_num = (uint16_t)q->size;
	for (i = 0; i < q->size; i++) {
		q->inflight.next[i] = (uint16_t)(i + 1);
		s->desc[i].next = (uint16_t)(i + 1);
	}
	s->free_head = 0;
	s->old_free_head = 0;
	q->inflight.free_head = 0;
	s->used_idx = q->used_next;
	s->old_used_idx = q->used_next;
	s->used_wrap_counter = q->used_wrap;
	s->old_used_wrap_counter = q->used_wrap;
	ordered();
	s->version = INFLIGHT_VERSION;
}

/* What is being given back becomes what was given back. */
static void packed_commit(struct inflight_packed *s)
{
	ordered();
	s->old_free_head = s->free_head;
	s->old_used_wrap_counter = s->used_wrap_counter;
	ordered();
	s->old_used_idx = s->used_idx;
	ordered();
}

/* Where the ring stands as the area has it, read once: whoever shares it may write there meanwhile. */
struct packed_state {
	uint16_t free_head, old_free_head, used_idx, old_used_idx;
	bool	used_wrap, old_used_wrap;
};

static struct packed_state packed_read(const struct inflight_packed *shared)
{
	const volatile struct inflight_packed *s = shared;

	return (struct packed_state){
		.free_head = s->free_head, .old_free_head = s->old_free_head,
		.used_idx = s->used_idx, .old_used_idx = s->old_used_idx,
		.used_wrap = s->used_wrap_counter, .old_used_wrap = s->old_used_wrap_counter,
	};
}

/*
 * We died while giving a batch back: either the driver can see it, or it never was.  That it can shows
 * in "used" alone: with all the ring its own again it may have made the slot available anew.
 */
static bool packed_was_seen(const struct vhu_queue *q, const struct packed_state *s)
{
	uint16_t old = s->old_used_idx, flags;
	bool wrap = s->old_used_wrap, same_round = s->used_wrap == wrap;

	if (same_round && s->used_idx == old)
		return false;	/* there is no batch */
	/* We died within packed_commit(), between the counter and the index. */
	if (same_round && s->used_idx < old)
		return true;
	flags = le16toh(__atomic_load_n(&q->packed[old].flags, __ATOMIC_ACQUIRE));
	return !!(flags & PACKED_F_USED) == wrap;
}

static int packed_commit_or_undo(struct vhu_queue *q, struct inflight_packed *s)
{
	struct packed_state p = packed_read(s);

	if (p.old_used_idx >= q->size || p.used_idx >= q->size)
		return -EINVAL;
	if (packed_was_seen(q, &p)) {
		packed_commit(s);
		p.old_free_head = p.free_head;
		p.old_used_idx = p.used_idx;
		p.old_used_wrap = p.used_wrap;
	}
	s->free_head = p.old_free_head;
	s->used_idx = p.old_used_idx;
	s->used_wrap_counter = p.old_used_wrap;
	q->used_next = p.old_used_idx;
	q->used_wrap = p.old_used_wrap;
	return 0;
}

/*
 * What is free is not in flight, whatever its flag says: it belongs to the batch of before,
 * or we died while taking it.  As many steps as there are entries, should the list be a circle.
 */
static void packed_clear_free(struct vhu_queue *q, struct inflight_packed *s)
{
	uint16_t i = s->free_head;
	unsigned int n;

	for (n = 0; n < q->size && i < q->size; n++) {
		s->desc[i].inflight = 0;
		i = s->desc[i].next;
	}
}

/* The entries of the request at @head, each of them in no other.  Return: how many; 0 bad. */
static unsigned int packed_claim(struct vhu_queue *q, const struct inflight_packed *s,
				 uint16_t head, bool *claimed)
{
	unsigned int num = s->desc[head].num, n;
	uint16_t i = head;

	for (n = 0; n < num; n++) {
		if (i >= q->size || claimed[i])
			return 0;
		claimed[i] = true;
		q->inflight.last[head] = i;
		q->inflight.next[i] = s->desc[i].next;
		i = q->inflight.next[i];
	}
	return num;
}

/* Everything that no request claims is free: a list that nobody else could have bent. */
static void packed_rebuild_free(struct vhu_queue *q, struct inflight_packed *s,
				const bool *claimed)
{
	uint16_t first = (uint16_t)q->size;

	for (unsigned int i = q->size; i-- > 0;) {
		if (claimed[i])
			continue;
		q->inflight.next[i] = first;
		s->desc[i].next = first;
		first = (uint16_t)i;
	}
	q->inflight.free_head = first;
	ordered();
	s->free_head = first;
	s->old_free_head = first;
}

/*
 * A batch that we died over may have left descriptors behind that say "used", all but the
 * first, which the driver would take for the next batch's once that one's first is there.
 * What is in flight is ours: it says "available" again.
 */
static void packed_hide_used(struct vhu_queue *q, unsigned int slots)
{
	unsigned int i = q->used_next;
	bool wrap = q->used_wrap;

	while (slots--) {
		uint16_t flags = wrap ? PACKED_F_AVAIL : PACKED_F_USED;

		__atomic_store_n(&q->packed[i].flags, htole16(flags), __ATOMIC_RELEASE);
		if (q->addr.flags & VHU_VRING_F_LOG)
			mem_log_host(&q->v->mem, &q->packed[i], sizeof(q->packed[i]));
		if (++i == q->size) {
			i = 0;
			wrap = !wrap;
		}
	}
}

static int packed_start(struct vhu_queue *q, struct inflight_packed *s)
{
	struct aged aged[VHU_QUEUE_SIZE_MAX];
	bool claimed[VHU_QUEUE_SIZE_MAX] = { false };
	unsigned int count = 0, slots = 0, i, n;

	q->inflight.packed = s;
	if (s->version != INFLIGHT_VERSION || s->desc_num != q->size) {
		packed_fresh(q, s);
		return 0;
	}
	if (packed_commit_or_undo(q, s))
		return -EINVAL;
	packed_clear_free(q, s);
	for (i = 0; i < q->size; i++) {
		if (!s->desc[i].inflight)
			continue;
		n = packed_claim(q, s, (uint16_t)i, claimed);
		if (!n)
			return -EINVAL;
		slots += n;
		aged[count++] = (struct aged){ s->desc[i].counter, (uint16_t)i };
	}
	again_sort(&q->inflight, aged, count);
	packed_rebuild_free(q, s, claimed);
	packed_hide_used(q, slots);
	q->slots = slots;
	q->avail_next = (uint16_t)(q->used_next + slots);
	q->avail_wrap = q->used_wrap;
	if (q->avail_next >= q->size) {
		q->avail_next = (uint16_t)(q->avail_next - q->size);
		q->avail_wrap = !q->avail_wrap;
	}
	return 0;
}

uint16_t inflight_take_packed(struct vhu_queue *q, const struct desc *descs, uint16_t count)
{
	struct inflight_packed *s = q->inflight.packed;
	uint16_t head = q->inflight.free_head, i = head, last = head, n;

	if (!s)
		return 0;
	s->desc[head].num = 0;
	s->desc[head].counter = q->inflight.counter++;
	ordered();
	s->desc[head].inflight = 1;
	for (n = 0; n < count; n++) {
		struct inflight_packed_desc *e = &s->desc[i];

		/* Slots in flight never exceed the queue: nor do the entries. */
		assert(i < q->size);
		e->addr = descs[n].addr;
		e->len = descs[n].len;
		e->flags = descs[n].flags;
		e->id = descs[n].next;
		last = i;
		i = q->inflight.next[i];
	}
	s->desc[head].last = last;
	s->desc[head].num = count;
	q->inflight.last[head] = last;
	q->inflight.free_head = i;
	s->free_head = i;
	ordered();
	s->old_free_head = i;	/* from here on it is taken */
	ordered();
	return head;
}

int inflight_packed_desc(struct vhu_queue *q, uint16_t entry, struct desc *descs,
			 uint16_t *count)
{
	const struct inflight_packed *s = q->inflight.packed;
	uint16_t i = entry, n = 0;

	for (;;) {
		const struct inflight_packed_desc *e = &s->desc[i];

		if (n == DESCS_MAX)
			return -EINVAL;
		descs[n++] = (struct desc){ .addr = e->addr, .len = e->len, .flags = e->flags,
					    .next = e->id };
		if (i == q->inflight.last[entry])
			break;
		i = q->inflight.next[i];
	}
	*count = n;
	return 0;
}

static void packed_before_publish(struct vhu_queue *q, struct inflight_packed *s)
{
	unsigned int n;

	for (n = 0; n < q->batch_count; n++) {
		uint16_t head = q->batch_ids[n], last = q->inflight.last[head];

		q->inflight.next[last] = q->inflight.free_head;
		s->desc[last].next = q->inflight.free_head;
		ordered();
		q->inflight.free_head = head;
		s->free_head = head;
		ordered();
	}
	s->used_wrap_counter = q->used_wrap;
	s->used_idx = q->used_next;
}

static void packed_after_publish(struct vhu_queue *q, struct inflight_packed *s)
{
	unsigned int n;

	for (n = 0; n < q->batch_count; n++)
		s->desc[q->batch_ids[n]].inflight = 0;
	packed_commit(s);
}

/* ---- both ---- */

int inflight_start(struct vhu_queue *q)
{
	struct inflight_area *a = &q->v->inflight;
	bool packed = has_feature(q->v, VIRTIO_F_RING_PACKED);
	uint64_t stride;
	uint8_t *part;

	q->inflight.split = NULL;
	q->inflight.packed = NULL;
	q->inflight.again_count = 0;
	q->inflight.again_next = 0;
	q->inflight.counter = 0;
	q->slots = 0;
	if (!packed)
		q->used_next = le16toh(__atomic_load_n(&q->used->idx, __ATOMIC_ACQUIRE));
	if (!a->map)
		return 0;
	stride = stride_of(packed, a->queue_size);
	if (q->index >= a->queue_count || q->size > a->queue_size ||
	    stride * a->queue_count > a->size)
		return -EINVAL;
	part = a->start + q->index * stride;
	return packed ? packed_start(q, (struct inflight_packed *)(void *)part) :
			split_start(q, (struct inflight_split *)(void *)part);
}

void inflight_forget(struct vhu_queue *q)
{
	if (q->inflight.split)
		q->inflight.split->version = 0;
	if (q->inflight.packed)
		q->inflight.packed->version = 0;
}

void inflight_stop(struct vhu_queue *q)
{
	/*
	 * The front end learns where the ring stands and says so when it starts it again,
	 * unless the guest made a new one meanwhile: then what stands here would be wrong.
	 */
	inflight_forget(q);
	q->inflight.split = NULL;
	q->inflight.packed = NULL;
}

void inflight_push(struct vhu_queue *q, uint16_t entry)
{
	q->batch_ids[q->batch_count] = entry;
}

void inflight_before_publish(struct vhu_queue *q)
{
	if (q->inflight.split)
		split_before_publish(q, q->inflight.split);
	if (q->inflight.packed)
		packed_before_publish(q, q->inflight.packed);
	ordered();
}

void inflight_after_publish(struct vhu_queue *q)
{
	ordered();
	if (q->inflight.split)
		split_after_publish(q, q->inflight.split);
	if (q->inflight.packed)
		packed_after_publish(q, q->inflight.packed);
	ordered();
}
