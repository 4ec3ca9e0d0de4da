/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Intrusive hash table keyed by a 64-bit number, growing by doubling.
 *
 * Not locked: the owner of the table serialises.  Nodes belong to the caller.
 */
#ifndef LUNFS_BASE_TABLE_H
#define LUNFS_BASE_TABLE_H

#include "base/types.h"

struct table_node {
	struct table_node *next;
	uint64_t key;
};

struct table {
	struct table_node **buckets;
	size_t bucket_count;	/* a power of two; 0 until the first insertion */
	size_t count;		/* nodes in the table */
};

/** table_init() - an empty table; allocates nothing. */
void table_init(struct table *t);

/** table_fini() - frees the buckets; the table must be empty. */
void table_fini(struct table *t);

/** table_reserve() - from now on table_insert() cannot fail.  Return: 0 or -ENOMEM. */
int table_reserve(struct table *t);

/**
 * table_insert() - adds @node under @key, which must not be present.
 * Return: 0; -ENOMEM only if the table has no buckets at all yet (growing is optional).
 */
int table_insert(struct table *t, struct table_node *node, uint64_t key);

/** table_find() - the node under @key, or NULL. */
struct table_node *table_find(const struct table *t, uint64_t key);

/** table_remove() - takes @node, which must be in the table, out of it. */
void table_remove(struct table *t, struct table_node *node);

/**
 * table_each() - calls @fn for every node, in no particular order; @fn may remove the node
 * that it is given and no other.
 */
void table_each(struct table *t, void (*fn)(struct table_node *node, void *arg), void *arg);

#endif
