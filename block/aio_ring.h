/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Completions of a libaio context without a system call: io_setup() maps the kernel's ring
 * (fs/aio.c) into the process, and the context's "handle" is its address.  Whoever takes
 * events moves head; the kernel moves tail.
 */
#ifndef LUNFS_BLOCK_AIO_RING_H
#define LUNFS_BLOCK_AIO_RING_H

#include <libaio.h>

#include "base/types.h"

struct aio_ring {
	uint32_t	id;
	uint32_t	nr;		/* how many events it has room for */
	uint32_t	head;
	uint32_t	tail;
	uint32_t	magic;
	uint32_t	compat_features;
	uint32_t	incompat_features;
	uint32_t	header_length;
	struct io_event	events[];
};
static_assert(sizeof(struct aio_ring) == 32, "the events follow 32 bytes of header");

#define AIO_RING_MAGIC	0xa10a10a1

/* A kernel may have another ring one day. */
static inline bool aio_ring_is_known(const struct aio_ring *ring)
{
	return ring->magic == AIO_RING_MAGIC && !ring->incompat_features &&
	       ring->header_length == sizeof(*ring);
}

/**
 * aio_ring_count() - how many completed events are to be taken; 0 also if that cannot be seen.
 * Context: the thread that takes them.
 */
static inline unsigned int aio_ring_count(io_context_t ctx)
{
	const struct aio_ring *ring = (const struct aio_ring *)(void *)ctx;
	uint32_t tail;

	if (!aio_ring_is_known(ring))
		return 0;
	tail = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);
	return tail >= ring->head ? tail - ring->head : tail + ring->nr - ring->head;
}

/**
 * aio_ring_take() - takes up to @max completed events, without waiting.
 * Context: one thread a context.  Return: how many.
 */
static inline unsigned int aio_ring_take(io_context_t ctx, struct io_event *events,
					 unsigned int max)
{
	struct aio_ring *ring = (struct aio_ring *)(void *)ctx;
	struct timespec none = { 0 };
	unsigned int n = 0;
	uint32_t head, tail;
	int ret;

	if (!aio_ring_is_known(ring)) {
		ret = io_getevents(ctx, 0, max, events, &none);
		return ret > 0 ? (unsigned int)ret : 0;
	}
	head = ring->head;
	tail = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);
	while (head != tail && n < max) {
		events[n++] = ring->events[head];
		head = head + 1 < ring->nr ? head + 1 : 0;
	}
	if (n)
		__atomic_store_n(&ring->head, head, __ATOMIC_RELEASE);
	return n;
}

#endif
