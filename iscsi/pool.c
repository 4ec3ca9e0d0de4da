// SPDX-License-Identifier: Apache-2.0
#include "iscsi/pool.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

static const uint32_t class_len[POOL_CLASSES] = { 4096, 16384, 65536, POOL_SLAB };

struct pool_slab {
	struct list	node;		/* pool->free or pool->partial */
	uint64_t	used;		/* a bit for each chunk */
	uint8_t		class;		/* while it is in use */
};

static unsigned int chunk_count(unsigned int class)
{
	return POOL_SLAB / class_len[class];
}

static bool is_small(unsigned int class)
{
	return class_len[class] <= POOL_SMALL;
}

static uint64_t all_used(unsigned int class)
{
	return UINT64_MAX >> (64 - chunk_count(class));
}

int pool_init(struct pool *pool, size_t len)
{
	unsigned int i;

	pool->slab_count = (unsigned int)(len / POOL_SLAB);
	pool->slabs_free = pool->slab_count;
	pool->reserve = pool->slab_count / 8;
	pool->len = (size_t)pool->slab_count * POOL_SLAB;
	assert(pool->len >= 2 * POOL_TRANSFER_MAX);
	pool->slabs = calloc(pool->slab_count, sizeof(*pool->slabs));
	if (!pool->slabs)
		return -ENOMEM;
	pool->base = mmap(NULL, pool->len, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (pool->base == MAP_FAILED) {
		free(pool->slabs);
		return -ENOMEM;
	}
	/* Direct I/O pins each page, and copies meet each page's translation: the fewer, the better. */
	madvise(pool->base, pool->len, MADV_HUGEPAGE);
	list_init(&pool->free);
	for (i = 0; i < POOL_CLASSES; i++)
		list_init(&pool->partial[i]);
	for (i = 0; i < pool->slab_count; i++)
		list_add_tail(&pool->free, &pool->slabs[i].node);
	return 0;
}

void pool_fini(struct pool *pool)
{
	assert(pool->slabs_free == pool->slab_count);
	munmap(pool->base, pool->len);
	free(pool->slabs);
}

static uint8_t *slab_memory(const struct pool *pool, const struct pool_slab *slab)
{
	return pool->base + (size_t)(slab - pool->slabs) * POOL_SLAB;
}

/* A chunk of @class, or NULL. */
static uint8_t *chunk_get(struct pool *pool, unsigned int class)
{
	struct list *partial = &pool->partial[class];
	struct pool_slab *slab;
	unsigned int i;

	if (list_empty(partial)) {
		if (!pool->slabs_free)
			return NULL;
		slab = list_first(&pool->free, struct pool_slab, node);
		list_del(&slab->node);
		pool->slabs_free--;
		slab->class = (uint8_t)class;
		pool->small_slabs += is_small(class);
		list_add_head(partial, &slab->node);
	}
	slab = list_first(partial, struct pool_slab, node);
	i = (unsigned int)__builtin_ctzll(~slab->used);
	slab->used |= 1ULL << i;
	if (slab->used == all_used(class))
		list_del(&slab->node);
	return slab_memory(pool, slab) + (size_t)i * class_len[class];
}

static void chunk_put(struct pool *pool, const void *chunk)
{
	size_t off = (size_t)((const uint8_t *)chunk - pool->base);
	struct pool_slab *slab = &pool->slabs[off / POOL_SLAB];
	unsigned int i = (unsigned int)(off % POOL_SLAB / class_len[slab->class]);

	assert(slab->used & 1ULL << i);
	if (slab->used == all_used(slab->class))
		list_add_head(&pool->partial[slab->class], &slab->node);
	slab->used &= ~(1ULL << i);
	if (slab->used)
		return;
	list_del(&slab->node);
	list_add_head(&pool->free, &slab->node);
	pool->slabs_free++;
	pool->small_slabs -= is_small(slab->class);
}

static unsigned int class_of(uint32_t len)
{
	unsigned int class = 0;

	while (len > class_len[class])
		class++;
	return class;
}

void pool_put(struct pool *pool, struct pool_buf *buf)
{
	int i;

	for (i = 0; i < buf->count; i++)
		chunk_put(pool, buf->iov[i].iov_base);
	buf->count = 0;
	buf->len = 0;
}

/* What large buffers have to leave. */
static unsigned int reserved(const struct pool *pool)
{
	return pool->small_slabs < pool->reserve ? pool->reserve - pool->small_slabs : 0;
}

bool pool_is_entitled(const struct pool *pool, uint32_t len)
{
	return len <= POOL_SMALL && (reserved(pool) || !list_empty(&pool->partial[class_of(len)]));
}

bool pool_get(struct pool *pool, uint32_t len, struct pool_buf *buf)
{
	uint32_t left;

	assert(len && len <= POOL_TRANSFER_MAX);
	buf->count = 0;
	if (len > POOL_SMALL && DIV_ROUND_UP(len, POOL_SLAB) + reserved(pool) > pool->slabs_free)
		return false;
	for (left = len; left;) {
		uint32_t n = left < POOL_SLAB ? left : POOL_SLAB;
		uint8_t *chunk = chunk_get(pool, class_of(n));

		if (!chunk) {
			pool_put(pool, buf);
			return false;
		}
		buf->iov[buf->count].iov_base = chunk;
		buf->iov[buf->count].iov_len = n;
		buf->count++;
		left -= n;
	}
	buf->len = len;
	return true;
}

void pool_buf_trim(struct pool *pool, struct pool_buf *buf, uint32_t len)
{
	uint32_t at = 0;
	int i, keep = 0;

	assert(len && len <= buf->len);
	for (i = 0; i < buf->count; i++) {
		uint32_t n = (uint32_t)buf->iov[i].iov_len;

		if (at >= len) {
			chunk_put(pool, buf->iov[i].iov_base);
			continue;
		}
		if (n > len - at)
			buf->iov[i].iov_len = len - at;
		at += n;
		keep++;
	}
	buf->count = keep;
	buf->len = len;
}
