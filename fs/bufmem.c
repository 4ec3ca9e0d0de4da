/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/bufmem.h"

#include <stdlib.h>

#include "block/blkdev.h"
#include "fs/format.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else	/* who uses a block that was put back is found out only there */
#define ASAN_POISON_MEMORY_REGION(p, size)	((void)(p), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(p, size)	((void)(p), (void)(size))
#endif

#define CHUNK_BLOCKS	64u
#define ALL_FREE	UINT64_MAX

struct bufmem {
	struct env	*env;
	struct env_mutex mutex;
	struct list	chunks;		/* those with free blocks first */
	unsigned int	empty;		/* chunks of which nothing is used: one is kept */
};

struct bufmem_chunk {
	struct list	node;
	struct bufmem	*mem;
	uint8_t		*memory;
	uint64_t	free;		/* a bit a block */
};

struct bufmem *bufmem_new(struct env *env)
{
	struct bufmem *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->env = env;
	env_mutex_init(env, &m->mutex);
	list_init(&m->chunks);
	return m;
}

static void chunk_free(struct bufmem_chunk *c)
{
	list_del(&c->node);
	ASAN_UNPOISON_MEMORY_REGION(c->memory, CHUNK_BLOCKS * BLOCK_SIZE);
	free(c->memory);
	free(c);
}

void bufmem_free(struct bufmem *m)
{
	if (!m)
		return;
	while (!list_empty(&m->chunks)) {
		struct bufmem_chunk *c = list_first(&m->chunks, struct bufmem_chunk, node);

		assert(c->free == ALL_FREE);
		chunk_free(c);
	}
	env_mutex_fini(m->env, &m->mutex);
	free(m);
}

static struct bufmem_chunk *chunk_new(struct bufmem *m)
{
	struct bufmem_chunk *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	/* Not blkdev_alloc(): pages that no block needs yet are not touched. */
	c->memory = aligned_alloc(BLOCK_SIZE, CHUNK_BLOCKS * BLOCK_SIZE);
	if (!c->memory) {
		free(c);
		return NULL;
	}
	ASAN_POISON_MEMORY_REGION(c->memory, CHUNK_BLOCKS * BLOCK_SIZE);
	c->mem = m;
	c->free = ALL_FREE;
	list_add_head(&m->chunks, &c->node);
	m->empty++;
	return c;
}

void *bufmem_get(struct bufmem *m, struct bufmem_chunk **chunk)
{
	struct bufmem_chunk *c = NULL;
	uint8_t *data = NULL;
	int i;

	env_mutex_lock(m->env, &m->mutex);
	if (!list_empty(&m->chunks))
		c = list_first(&m->chunks, struct bufmem_chunk, node);
	if (!c || !c->free)
		c = chunk_new(m);
	if (c) {
		m->empty -= c->free == ALL_FREE;
		i = __builtin_ctzll(c->free);
		c->free &= c->free - 1;
		data = c->memory + (size_t)i * BLOCK_SIZE;
		if (!c->free) {
			list_del(&c->node);
			list_add_tail(&m->chunks, &c->node);
		}
	}
	env_mutex_unlock(m->env, &m->mutex);
	if (!data)
		return NULL;
	ASAN_UNPOISON_MEMORY_REGION(data, BLOCK_SIZE);
	memset(data, 0, BLOCK_SIZE);
	*chunk = c;
	return data;
}

void bufmem_put(struct bufmem_chunk *c, void *data)
{
	struct bufmem *m = c->mem;
	size_t i = (size_t)((uint8_t *)data - c->memory) / BLOCK_SIZE;

	ASAN_POISON_MEMORY_REGION(data, BLOCK_SIZE);
	env_mutex_lock(m->env, &m->mutex);
	assert(i < CHUNK_BLOCKS && !(c->free >> i & 1));
	if (!c->free) {
		list_del(&c->node);
		list_add_head(&m->chunks, &c->node);
	}
	c->free |= 1ULL << i;
	if (c->free == ALL_FREE && m->empty++) {
		m->empty--;
		chunk_free(c);
	}
	env_mutex_unlock(m->env, &m->mutex);
}
