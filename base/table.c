// SPDX-License-Identifier: Apache-2.0
#include "base/table.h"

#include <errno.h>
#include <stdlib.h>

#define BUCKETS_MIN	16

static size_t bucket_of(uint64_t key, size_t bucket_count)
{
	/* Fibonacci hashing: keys are addresses and ids, alike in their low bits. */
	uint64_t h = key * 0x9e3779b97f4a7c15;

	return (size_t)(h >> 32) & (bucket_count - 1);
}

void table_init(struct table *t)
{
	memset(t, 0, sizeof(*t));
}

void table_fini(struct table *t)
{
	assert(t->count == 0);
	free(t->buckets);
	memset(t, 0, sizeof(*t));
}

static void push(struct table_node **buckets, size_t bucket_count, struct table_node *node)
{
	struct table_node **head = &buckets[bucket_of(node->key, bucket_count)];

	node->next = *head;
	*head = node;
}

/* Doubles the buckets; without memory the chains merely get longer. */
static void grow(struct table *t)
{
	size_t bucket_count = t->bucket_count ? 2 * t->bucket_count : BUCKETS_MIN;
	struct table_node **buckets = calloc(bucket_count, sizeof(struct table_node *));

	if (!buckets)
		return;
	for (size_t i = 0; i < t->bucket_count; i++) {
		struct table_node *node = t->buckets[i], *next;

		for (; node; node = next) {
			next = node->next;
			push(buckets, bucket_count, node);
		}
	}
	free(t->buckets);
	t->buckets = buckets;
	t->bucket_count = bucket_count;
}

int table_reserve(struct table *t)
{
	if (!t->bucket_count)
		grow(t);
	return t->bucket_count ? 0 : -ENOMEM;
}

int table_insert(struct table *t, struct table_node *node, uint64_t key)
{
	assert(!table_find(t, key));
	if (t->count >= t->bucket_count)
		grow(t);
	if (!t->bucket_count)
		return -ENOMEM;
	node->key = key;
	push(t->buckets, t->bucket_count, node);
	t->count++;
	return 0;
}

struct table_node *table_find(const struct table *t, uint64_t key)
{
	struct table_node *node;

	if (!t->bucket_count)
		return NULL;
	node = t->buckets[bucket_of(key, t->bucket_count)];
	while (node && node->key != key)
		node = node->next;
	return node;
}

void table_remove(struct table *t, struct table_node *node)
{
	struct table_node **link = &t->buckets[bucket_of(node->key, t->bucket_count)];

	while (*link != node) {
		assert(*link);	/* not in this table */
		link = &(*link)->next;
	}
	*link = node->next;
	node->next = NULL;
	t->count--;
}

void table_each(struct table *t, void (*fn)(struct table_node *node, void *arg), void *arg)
{
	for (size_t i = 0; i < t->bucket_count; i++) {
		struct table_node *node = t->buckets[i], *next;

		for (; node; node = next) {
			next = node->next;
			fn(node, arg);
		}
	}
}
