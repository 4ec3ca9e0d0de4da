// SPDX-License-Identifier: Apache-2.0
#include "base/table.h"

#include "tests/unit.h"

#define COUNT	5000u

static struct table_node nodes[COUNT];

static uint64_t key_of(unsigned int i)
{
	return (uint64_t)i * 4096;	/* block addresses: low bits all zero */
}

static void fill(struct table *t)
{
	table_init(t);
	for (unsigned int i = 0; i < COUNT; i++)
		CU_ASSERT_EQUAL_FATAL(table_insert(t, &nodes[i], key_of(i)), 0);
}

static void remove_each(struct table_node *node, void *arg)
{
	table_remove(arg, node);
}

static void remove_odd(struct table_node *node, void *arg)
{
	if (node->key / 4096 % 2)
		table_remove(arg, node);
}

static void empty_table_finds_nothing(void)
{
	struct table t;

	table_init(&t);
	CU_ASSERT_PTR_NULL(table_find(&t, 0));
	table_each(&t, remove_each, &t);
	table_fini(&t);
}

static void every_node_is_found_after_growing(void)
{
	struct table t;

	fill(&t);
	CU_ASSERT_EQUAL(t.count, COUNT);
	CU_ASSERT_TRUE(t.bucket_count >= COUNT / 2);
	for (unsigned int i = 0; i < COUNT; i++)
		CU_ASSERT_PTR_EQUAL(table_find(&t, key_of(i)), &nodes[i]);
	CU_ASSERT_PTR_NULL(table_find(&t, 1));
	CU_ASSERT_PTR_NULL(table_find(&t, key_of(COUNT)));
	table_each(&t, remove_each, &t);
	table_fini(&t);
}

/* A cache drops buffers while it walks over them. */
static void walk_may_remove_the_current_node(void)
{
	struct table t;

	fill(&t);
	table_each(&t, remove_odd, &t);
	CU_ASSERT_EQUAL(t.count, COUNT / 2);
	for (unsigned int i = 0; i < COUNT; i++)
		CU_ASSERT_PTR_EQUAL(table_find(&t, key_of(i)), i % 2 ? NULL : &nodes[i]);
	table_each(&t, remove_each, &t);
	CU_ASSERT_EQUAL(t.count, 0);
	table_fini(&t);
}

/* Keys are aligned addresses; all in one chain would make every lookup a walk. */
static void aligned_keys_spread_over_the_buckets(void)
{
	unsigned int longest = 0;
	struct table t;

	fill(&t);
	for (size_t i = 0; i < t.bucket_count; i++) {
		unsigned int length = 0;

		for (struct table_node *n = t.buckets[i]; n; n = n->next)
			length++;
		if (length > longest)
			longest = length;
	}
	CU_ASSERT_TRUE(longest <= 12);
	table_each(&t, remove_each, &t);
	table_fini(&t);
}

UNIT_MAIN("table",
	UNIT_TEST(empty_table_finds_nothing),
	UNIT_TEST(every_node_is_found_after_growing),
	UNIT_TEST(walk_may_remove_the_current_node),
	UNIT_TEST(aligned_keys_spread_over_the_buckets));
