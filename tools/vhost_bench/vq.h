/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver's side of a virtqueue, split or packed.  Source: virtio 1.2, 2.7 and 2.8.
 *
 * Requests have numbers, "slots", from 0 to depth - 1; each slot may be in the ring once.
 * One thread uses a queue.
 */
#ifndef LUNFS_VHOST_BENCH_VQ_H
#define LUNFS_VHOST_BENCH_VQ_H

#include "vhost/proto.h"
#include "vhost/virtio.h"

#define VQ_BUFS_MAX	130	/* buffers that one request may have */

/* A buffer by its guest address. */
struct vq_buf {
	uint64_t	addr;
	uint32_t	len;
	bool		device_writes;
};

struct vq {
	unsigned int	size;		/* of the ring */
	unsigned int	depth;		/* slots */
	unsigned int	bufs_max;	/* of one request */
	bool		is_packed;
	bool		event_idx;
	bool		indirect;
	bool		calls_wanted;
	uint64_t	features;

	/* In shared memory. */
	struct desc_wire *desc;
	struct avail_wire *avail;
	struct used_wire *used;
	struct packed_desc_wire *packed;
	struct packed_event_wire *driver_event;
	struct packed_event_wire *device_event;
	struct desc_wire *tables;	/* indirect: bufs_max a slot */
	uint64_t	tables_gpa;

	/* Ours alone. */
	uint16_t	avail_next;
	uint16_t	published;	/* avail_next when kicks were last thought about */
	uint16_t	used_next;
	bool		avail_wrap;
	bool		used_wrap;
	uint16_t	*ring_slots;	/* entries that a slot takes; split: 1; 0: not in the ring */
};

/** vq_bytes() - shared memory that vq_init() lays its rings out in; a multiple of 4096. */
size_t vq_bytes(unsigned int size, unsigned int depth, unsigned int bufs_max);

/**
 * vq_init() - an empty ring.
 * @q:   size, depth, bufs_max and features are set; the ring has room for all slots at once.
 * @mem: vq_bytes() of zeros in shared memory, which is at guest address @gpa.
 * Return: 0 or -ENOMEM.  vq_fini() frees what it allocated.
 */
int vq_init(struct vq *q, uint8_t *mem, uint64_t gpa);
void vq_fini(struct vq *q);

/** vq_entries() - the smallest ring for @depth requests of @bufs_max buffers. */
unsigned int vq_entries(uint64_t features, unsigned int depth, unsigned int bufs_max);

/** vq_add() - puts request @slot into the ring; vq_publish() shows it. */
void vq_add(struct vq *q, unsigned int slot, const struct vq_buf *bufs, unsigned int count);

/** vq_publish() - shows what was added.  Return: whether the device wants to be kicked. */
bool vq_publish(struct vq *q);

/**
 * vq_next_used() - the next request that came back.
 * Return: 1 with @slot and @len; 0 none; -EPROTO the device wrote nonsense.
 */
int vq_next_used(struct vq *q, unsigned int *slot, uint32_t *len);

/**
 * vq_want_calls() - whether the device is to signal the next completion.
 * Return: whether there is one already.
 */
bool vq_want_calls(struct vq *q, bool wanted);

/** vq_base() - where the ring stands, as SET_VRING_BASE has it, if all before is given back. */
uint32_t vq_base(const struct vq *q);

#endif
