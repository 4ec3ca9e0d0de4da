/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Data buffers of one reactor: a fixed amount of memory in slabs of 256 KiB, each whole or
 * cut into equal chunks.  Nothing is touched before it is used; nobody else takes part.
 */
#ifndef LUNFS_ISCSI_POOL_H
#define LUNFS_ISCSI_POOL_H

#include <sys/uio.h>

#include "base/list.h"

enum {
	POOL_SLAB		= 256 * 1024,
	POOL_TRANSFER_MAX	= 8 << 20,	/* the largest buffer */
	POOL_IOV_MAX		= POOL_TRANSFER_MAX / POOL_SLAB,
	POOL_CLASSES		= 4,		/* 4, 16, 64 and 256 KiB */
	POOL_SMALL		= 64 * 1024,	/* buffers up to here may use the reserve */
};

struct pool_slab;

struct pool {
	uint8_t		*base;
	size_t		len;
	struct pool_slab *slabs;
	unsigned int	slab_count;
	unsigned int	slabs_free;
	unsigned int	reserve;	/* slabs that small buffers are entitled to */
	unsigned int	small_slabs;	/* that they have */
	struct list	free;		/* whole slabs, the last used first */
	struct list	partial[POOL_CLASSES];	/* cut slabs with a free chunk */
};

/* What a task has of it.  Each base is aligned to 4096, and each length but the last a multiple. */
struct pool_buf {
	struct iovec	iov[POOL_IOV_MAX];
	int		count;
	uint32_t	len;		/* bytes asked for; the memory reaches to a multiple of 4096 */
};

/** pool_init() - @len bytes, rounded down to slabs.  Return: 0 or -ENOMEM. */
int pool_init(struct pool *pool, size_t len);
/** pool_fini() - every buffer has been given back. */
void pool_fini(struct pool *pool);

/**
 * pool_get() - a buffer of @len bytes, 0 < @len <= POOL_TRANSFER_MAX; contents undefined.
 *
 * Large ones leave what small ones have not used of an eighth of the memory: few large ones
 * cannot keep out everybody.
 * Return: whether there was one; all or nothing, so that nobody waits with half of it.
 */
bool pool_get(struct pool *pool, uint32_t len, struct pool_buf *buf);
/** pool_put() - gives it back; nothing if @buf is empty. */
void pool_put(struct pool *pool, struct pool_buf *buf);
/** pool_buf_trim() - uses only the first @len bytes from now on, 0 < @len <= buf->len. */
void pool_buf_trim(struct pool *pool, struct pool_buf *buf, uint32_t len);
/** pool_is_entitled() - a buffer of @len bytes takes nothing that large ones could have. */
bool pool_is_entitled(const struct pool *pool, uint32_t len);
/** pool_is_low() - less than a quarter is left. */
static inline bool pool_is_low(const struct pool *pool)
{
	return pool->slabs_free < pool->slab_count / 4;
}

#endif
