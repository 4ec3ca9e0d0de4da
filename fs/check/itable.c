/* SPDX-License-Identifier: Apache-2.0 */
/* Groups' headers, their indices of inode clusters, and every inode in these. */
#include <stdio.h>
#include <stdlib.h>

#include "fs/check/internal.h"

struct chk_inode *chk_find(struct check *c, uint64_t id)
{
	uint64_t number = inode_id_number(id);
	size_t low = 0, high = c->inode_count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (c->inodes[mid].number < number)
			low = mid + 1;
		else
			high = mid;
	}
	if (low == c->inode_count || c->inodes[low].number != number)
		return NULL;
	if (c->inodes[low].type && c->inodes[low].generation != inode_id_generation(id))
		return NULL;
	return &c->inodes[low];
}

static int by_number(const void *a, const void *b)
{
	const struct chk_inode *x = a, *y = b;

	return x->number < y->number ? -1 : x->number > y->number;
}

/* One inode and its lock; @used as the index says. */
static void check_pair(struct check *c, uint32_t ag, uint64_t number, const uint8_t *pair,
		       bool used)
{
	uint64_t addr = inode_block_addr(number);
	struct meta_expect e = { META_INODE, c->s->volume, addr, number, 0 };
	const struct inode_disk *d = (const void *)(pair + BLOCK_SIZE);
	char who[64];

	snprintf(who, sizeof(who), "inode %llu", (unsigned long long)number);
	chk_lock(c, pair, inode_lock_addr(number), who);
	if (used)
		c->groups[ag].inodes_used++;
	else
		c->groups[ag].inodes_free++;
	if (chk_verify(c, d, &e, CHECK_INODE_DAMAGED, who)) {
		if (used)
			chk_inode(c, number, NULL);
		return;
	}
	if (used != (le32_to_cpu(d->mode) != 0))
		chk_report(c, CHECK_INODE_MASK, addr, "%s: mode is 0%o, the index of group %u "
			   "says %s", who, le32_to_cpu(d->mode), ag, used ? "in use" : "free");
	if (le32_to_cpu(d->mode) != 0)
		chk_inode(c, number, d);
}

/* One entry of an index block: a cluster. */
static void check_cluster(struct check *c, uint32_t ag, uint64_t index_addr,
			  const struct itable_entry_disk *e)
{
	uint32_t count = le16_to_cpu(e->count), used = le16_to_cpu(e->used);
	uint64_t first = (super_ag_addr(c->s, ag) >> BLOCK_SHIFT) + le32_to_cpu(e->block);
	char who[64];

	if (count < 1 || count > CLUSTER_INODES || used >> count) {
		chk_report(c, CHECK_ITABLE_ENTRY, index_addr, "group %u: cluster of %u inodes, "
			   "of which 0x%x are in use", ag, count, used);
		return;
	}
	if (le32_to_cpu(e->block) >= super_ag_blocks(c->s, ag) ||
	    !chk_space_ok(c, first, 2 * count)) {
		chk_report(c, CHECK_ITABLE_POINTER, index_addr, "group %u: cluster at its block "
			   "%u: no space for inodes", ag, le32_to_cpu(e->block));
		return;
	}
	snprintf(who, sizeof(who), "inode cluster of group %u", ag);
	if (!chk_claim(c, first, 2 * count, who) ||
	    chk_read(c, first << BLOCK_SHIFT, c->cluster, 2 * count))
		return;
	for (uint32_t i = 0; i < count && !c->no_memory; i++)
		check_pair(c, ag, first + 2 * i, c->cluster + (size_t)i * 2 * BLOCK_SIZE,
			   used & 1u << i);
}

/* One block of the index; returns the pointer to the next, 0 at the end. */
static uint64_t check_index_block(struct check *c, uint32_t ag, uint64_t pointer,
				  struct itable_disk *d)
{
	struct meta_expect e = { META_ITABLE, c->s->volume, bptr_addr(pointer), ag,
				 bptr_birth(pointer) };
	uint32_t count;
	char who[64];

	snprintf(who, sizeof(who), "inode index of group %u", ag);
	if (!chk_space_ok(c, e.addr >> BLOCK_SHIFT, 1)) {
		chk_report(c, CHECK_ITABLE_POINTER, e.addr, "%s: no place for a block of it",
			   who);
		return 0;
	}
	if (!chk_claim(c, e.addr >> BLOCK_SHIFT, 1, who) ||
	    chk_block(c, &e, d, CHECK_ITABLE_DAMAGED, who))
		return 0;
	count = le32_to_cpu(d->count);
	if (count > ITABLE_ENTRIES) {
		chk_report(c, CHECK_ITABLE_ENTRY, e.addr, "%s: %u entries, at most %zu", who,
			   count, (size_t)ITABLE_ENTRIES);
		return 0;
	}
	for (uint32_t i = 0; i < count && !c->no_memory; i++)
		check_cluster(c, ag, e.addr, &d->entries[i]);
	return le64_to_cpu(d->next);
}

static void check_header(struct check *c, uint32_t ag, uint64_t addr, const struct ag_disk *d)
{
	uint32_t blocks = super_ag_blocks(c->s, ag);
	uint32_t count = ag_bitmap_count(blocks);

	if (le32_to_cpu(d->blocks) != blocks)
		chk_report(c, CHECK_AG_INVALID, addr, "group %u: blocks: expected %u, found %u",
			   ag, blocks, le32_to_cpu(d->blocks));
	if (le32_to_cpu(d->bitmap_count) != count)
		chk_report(c, CHECK_AG_INVALID, addr,
			   "group %u: bitmap blocks: expected %u, found %u", ag, count,
			   le32_to_cpu(d->bitmap_count));
	for (uint32_t i = count; i < BITMAPS_MAX; i++)
		if (d->bitmap_ready[i / 8] & 1u << i % 8) {
			chk_report(c, CHECK_AG_INVALID, addr, "group %u: bitmap block %u is "
				   "marked ready, it has %u", ag, i, count);
			break;
		}
}

/* @pair: lock block and header; @index: a block for the index. */
static void check_group(struct check *c, uint32_t ag, uint8_t *pair, struct itable_disk *index)
{
	uint64_t start = super_ag_addr(c->s, ag), addr = start + AG_HEADER_BLOCK * BLOCK_SIZE;
	struct meta_expect e = { META_AG, c->s->volume, addr, ag, 0 };
	const struct ag_disk *d = (const void *)(pair + BLOCK_SIZE);
	struct chk_group *g = &c->groups[ag];
	uint64_t next;
	char who[64];

	snprintf(who, sizeof(who), "group %u", ag);
	if (chk_read(c, start, pair, 2))
		return;
	chk_lock(c, pair, start, who);
	if (chk_verify(c, d, &e, CHECK_AG_DAMAGED, who))
		return;
	check_header(c, ag, addr, d);
	next = le64_to_cpu(d->itable);
	while (next && !c->no_memory)
		next = check_index_block(c, ag, next, index);
	if (g->inodes_used != le32_to_cpu(d->inodes_used) ||
	    g->inodes_free != le32_to_cpu(d->inodes_free))
		chk_report(c, CHECK_AG_INODES, addr,
			   "%s: inodes used and free: expected %u and %u, found %u and %u", who,
			   g->inodes_used, g->inodes_free, le32_to_cpu(d->inodes_used),
			   le32_to_cpu(d->inodes_free));
}

void chk_groups(struct check *c)
{
	uint8_t *pair = blkdev_alloc(3 * BLOCK_SIZE);

	if (!pair) {
		c->no_memory = true;
		return;
	}
	for (uint32_t ag = 0; ag < c->s->ag_count && !c->no_memory; ag++) {
		check_group(c, ag, pair, (void *)(pair + 2 * BLOCK_SIZE));
		chk_progress(c, "inodes", ag + 1, c->s->ag_count);
	}
	free(pair);
	if (c->inode_count)
		qsort(c->inodes, c->inode_count, sizeof(*c->inodes), by_number);
}
