/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In-flight tracking: which requests were taken and not given back, in memory that the front
 * end keeps while we are away.  Source: vhost-user.rst, "Inflight I/O tracking", whose order
 * of steps makes each crash between two of them recoverable.
 *
 * The memory is shared with the front end, so all that is read from it is checked; while a
 * queue runs nothing is read from it.
 */
#ifndef LUNFS_VHOST_INFLIGHT_H
#define LUNFS_VHOST_INFLIGHT_H

#include <stdatomic.h>

#include "vhost/proto.h"
#include "vhost/vhu.h"

struct request;
struct vhu_queue;
struct desc;

struct inflight_split_desc {
	uint8_t		inflight;	/* 0 */
	uint8_t		padding[5];	/* 1 */
	uint16_t	next;		/* 6  the one given back before it in the last batch */
	uint64_t	counter;	/* 8  order of taking */
};
static_assert(sizeof(struct inflight_split_desc) == 16, "vhost-user.rst, DescStateSplit");

struct inflight_split {
	uint64_t	features;	/*  0 */
	uint16_t	version;	/*  8  1; 0: not initialised */
	uint16_t	desc_num;	/* 10 */
	uint16_t	last_batch_head; /* 12 */
	uint16_t	used_idx;	/* 14 */
	struct inflight_split_desc desc[];
};
static_assert(sizeof(struct inflight_split) == 16, "vhost-user.rst, QueueRegionSplit");

struct inflight_packed_desc {
	uint8_t		inflight;	/*  0 */
	uint8_t		padding;	/*  1 */
	uint16_t	next;		/*  2  of the free list, or of this request */
	uint16_t	last;		/*  4  last entry of the request; in its head only */
	uint16_t	num;		/*  6  entries of the request; in its head only */
	uint64_t	counter;	/*  8 */
	uint16_t	id;		/* 16  the ring's descriptor from here on */
	uint16_t	flags;		/* 18 */
	uint32_t	len;		/* 20 */
	uint64_t	addr;		/* 24 */
};
static_assert(sizeof(struct inflight_packed_desc) == 32, "vhost-user.rst, DescStatePacked");

struct inflight_packed {
	uint64_t	features;	/*  0 */
	uint16_t	version;	/*  8 */
	uint16_t	desc_num;	/* 10 */
	uint16_t	free_head;	/* 12 */
	uint16_t	old_free_head;	/* 14 */
	uint16_t	used_idx;	/* 16 */
	uint16_t	old_used_idx;	/* 18 */
	uint8_t		used_wrap_counter;	/* 20 */
	uint8_t		old_used_wrap_counter;	/* 21 */
	uint8_t		padding[7];	/* 22 */
	struct inflight_packed_desc desc[];
};
static_assert(offsetof(struct inflight_packed, desc) == 32, "vhost-user.rst, QueueRegionPacked");

/* The whole area, of all queues. */
struct inflight_area {
	void		*map;		/* NULL: none */
	size_t		map_size;
	uint8_t		*start;
	uint64_t	size;
	unsigned int	queue_count;
	unsigned int	queue_size;
};

/* One queue's part of it while the queue runs. */
struct inflight_queue {
	struct inflight_split *split;	/* NULL: none */
	struct inflight_packed *packed;
	uint64_t	counter;
	/* What is to be done again after a reconnect, oldest first. */
	unsigned int	again_count;
	unsigned int	again_next;
	uint16_t	again[VHU_QUEUE_SIZE_MAX];
	/* Packed: the free list once more, where nobody else can write. */
	uint16_t	next[VHU_QUEUE_SIZE_MAX];
	uint16_t	free_head;
	uint16_t	last[VHU_QUEUE_SIZE_MAX];	/* of the request whose head this is */
};

/** inflight_create() - a new area.  @fd: receives its descriptor.  0 or -errno. */
int inflight_create(struct inflight_area *a, unsigned int queue_count, unsigned int queue_size,
		    atomic_bool *broken, int *fd);

/** inflight_set() - the area of before.  Return: 0; -EBADF; -EINVAL; -errno. */
int inflight_set(struct inflight_area *a, const struct inflight_wire *wire, atomic_bool *broken,
		 int fd);

void inflight_clear(struct inflight_area *a);

/**
 * inflight_start() - finds @q's part, completes what was begun, collects what is to be done
 * again and says where the ring stands: q->avail_next, used_next and their wrap counters.
 * Return: 0; -EINVAL the area does not fit the queue, or makes no sense.
 */
int inflight_start(struct vhu_queue *q);

/** inflight_stop() - nothing of @q is under way, and the front end knows where it stands. */
void inflight_stop(struct vhu_queue *q);

/** inflight_forget() - the guest has reset the device: nothing is to be done again. */
void inflight_forget(struct vhu_queue *q);

/* A request is taken; split: by its head, packed: by its descriptors (@descs, @count). */
void inflight_take_split(struct vhu_queue *q, uint16_t head);
uint16_t inflight_take_packed(struct vhu_queue *q, const struct desc *descs, uint16_t count);

/* It is placed in the used ring; then the batch becomes visible between the two others. */
void inflight_push(struct vhu_queue *q, uint16_t entry);
void inflight_before_publish(struct vhu_queue *q);
void inflight_after_publish(struct vhu_queue *q);

/* Packed: descriptor @i of the request at @entry as it was taken; -EINVAL nonsense. */
int inflight_packed_desc(struct vhu_queue *q, uint16_t entry, struct desc *descs,
			 uint16_t *count);

#endif
