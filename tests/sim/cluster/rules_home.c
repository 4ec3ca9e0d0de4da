// SPDX-License-Identifier: Apache-2.0
/* Home is current when free (R4): journals, what is under way, what is not flushed. */
#include "tests/sim/cluster/rules.h"

/* ---- journals (R4) ---- */

static uint64_t ring_blocks(struct world *w)
{
	return w->super.journal_size / BLOCK_SIZE - JOURNAL_TAIL_BLOCKS;
}

static uint64_t ring_place(struct world *w, uint32_t slot, uint64_t block)
{
	return super_journal_addr(&w->super, slot) +
	       (JOURNAL_TAIL_BLOCKS + block % ring_blocks(w)) * BLOCK_SIZE;
}

static void ring_trim(struct ring_state *r)
{
	unsigned int kept = 0;

	for (unsigned int i = 0; i < r->count; i++)
		if (r->txns[i].sequence >= r->durable_sequence)
			r->txns[kept++] = r->txns[i];
	r->count = kept;
}

void ring_saw(struct world *w, uint32_t slot, uint64_t addr, const uint8_t *block)
{
	struct ring_state *r = &w->rules->rings[slot];
	const struct journal_tail_disk *t = (const void *)block;
	const struct journal_desc_disk *d = (const void *)block;
	uint64_t index = (addr - super_journal_addr(&w->super, slot)) / BLOCK_SIZE;

	if (le64_to_cpu(d->hdr.addr) != addr)
		return;
	if (index < JOURNAL_TAIL_BLOCKS && magic_of(block) == META_TAIL &&
	    le64_to_cpu(t->hdr.version) > r->tail_version) {
		r->tail_version = le64_to_cpu(t->hdr.version);
		r->tail_sequence = le64_to_cpu(t->sequence);
	}
	if (index < JOURNAL_TAIL_BLOCKS || magic_of(block) != META_DESC)
		return;
	if (r->count == TXNS_MAX) {
		world_violation(w, "simulator: too many transactions of slot %u pending", slot);
		return;
	}
	r->txns[r->count++] = (struct ring_txn){
		.sequence = le64_to_cpu(d->sequence), .block = index - JOURNAL_TAIL_BLOCKS,
		.count = le32_to_cpu(d->count) };
}

struct tails {
	struct world *w;
	bool pending[SLOT_COUNT_MAX];
};

static void saw_volatile(void *arg, uint64_t off, const void *data, uint64_t len)
{
	struct tails *t = arg;
	const struct super *s = &t->w->super;
	const struct journal_tail_disk *tail = data;
	uint64_t slot;

	if (len < BLOCK_SIZE || !in_region(off, s->journals_addr, s->journal_size * s->slot_count) ||
	    (off - s->journals_addr) % s->journal_size >= JOURNAL_TAIL_BLOCKS * BLOCK_SIZE)
		return;
	slot = (off - s->journals_addr) / s->journal_size;
	if (le64_to_cpu(tail->hdr.version) == t->w->rules->rings[slot].tail_version)
		t->pending[slot] = true;
}

void rings_flushed(struct world *w)
{
	struct tails t = { .w = w };

	/* A tail whose write had not completed when the flush was sent is still volatile. */
	simdisk_each_volatile(w->disk, NULL, saw_volatile, &t);
	for (uint32_t i = 0; i < w->super.slot_count; i++) {
		struct ring_state *r = &w->rules->rings[i];

		if (r->durable_sequence == r->tail_sequence || t.pending[i])
			continue;
		r->durable_sequence = r->tail_sequence;
		ring_trim(r);
	}
}

/* ---- giving a lock up ---- */

/* The address of a block of transaction @t of @slot that @lock covers; 0: there is none. */
static uint64_t txn_covered(struct world *w, uint32_t slot, const struct ring_txn *t, uint64_t lock)
{
	uint8_t desc[BLOCK_SIZE], image[BLOCK_SIZE];
	const struct journal_desc_disk *d = (const void *)desc;

	simdisk_peek(w->disk, ring_place(w, slot, t->block), desc, sizeof(desc));
	if (magic_of(desc) != META_DESC || le64_to_cpu(d->sequence) != t->sequence)
		return 0;
	for (uint32_t j = 0; j < t->count && j < JOURNAL_ENTRIES; j++) {
		uint64_t home = le64_to_cpu(d->entries[j].addr);

		simdisk_peek(w->disk, ring_place(w, slot, t->block + 1 + j), image, sizeof(image));
		if (cover_of(w, home, image) == lock)
			return home;
	}
	return 0;
}

struct giving_up {
	struct world *w;
	struct life *life;
	uint64_t lock;
	const char *what;
	bool contents;
	unsigned int found;
};

static void look_at_blocks(struct giving_up *g, uint64_t off, const uint8_t *data, uint64_t len,
			   const char *state)
{
	uint64_t tag;

	if (!data || off < g->w->super.ag_addr || off % BLOCK_SIZE)
		return;
	for (uint64_t i = 0; i + BLOCK_SIZE <= len && !g->found; i += BLOCK_SIZE) {
		if (cover_of(g->w, off + i, data + i) != g->lock ||
		    (!g->contents && cell_tag(data + i, &tag)))
			continue;
		g->found++;
		world_violation(g->w, "R4: lock %#llx is %s by life %u, whose write to block %#llx of it "
				"is %s", (unsigned long long)g->lock, g->what, g->life->pid,
				(unsigned long long)(off + i), state);
	}
}

static void look_at_pending(void *arg, const struct blk_io *io)
{
	struct giving_up *g = arg;

	if (io->op == BLK_WRITE && io->dev == g->life->dev)
		look_at_blocks(g, io->off, io->iov[0].iov_base, io->len, "still under way");
}

static void look_at_volatile(void *arg, uint64_t off, const void *data, uint64_t len)
{
	look_at_blocks(arg, off, data, len, "not flushed");
}

void check_settled(struct world *w, struct life *life, uint64_t lock, const char *what,
		   bool contents)
{
	struct ring_state *r = &w->rules->rings[life->slot];
	struct giving_up g = { .w = w, .life = life, .lock = lock, .what = what,
			       .contents = contents };
	uint64_t home;

	for (unsigned int i = 0; i < r->count; i++) {
		home = txn_covered(w, life->slot, &r->txns[i], lock);
		if (!home)
			continue;
		world_violation(w, "R4: lock %#llx is %s, and transaction %llu in the journal of slot "
				"%u holds block %#llx of it", (unsigned long long)lock, what,
				(unsigned long long)r->txns[i].sequence, life->slot,
				(unsigned long long)home);
		return;
	}
	simdisk_each_pending(w->disk, life->env, look_at_pending, &g);
	simdisk_each_volatile(w->disk, life->dev, look_at_volatile, &g);
	w->counters[COUNT_check_free]++;
}

/* Committed transactions that nobody has written home. */
void check_replayed(struct world *w, uint32_t slot)
{
	struct ring_state *r = &w->rules->rings[slot];

	if (r->count)
		world_violation(w, "R3: slot %u is retired with %u transactions in its journal, the "
				"first %llu, tail %llu", slot, r->count,
				(unsigned long long)r->txns[0].sequence,
				(unsigned long long)r->durable_sequence);
}

void rings_power_cut(struct world *w)
{
	uint8_t block[BLOCK_SIZE];

	for (uint32_t i = 0; i < w->super.slot_count; i++) {
		struct ring_state *r = &w->rules->rings[i];

		memset(r, 0, sizeof(*r));
		for (uint64_t j = 0; j < JOURNAL_TAIL_BLOCKS; j++) {
			uint64_t addr = super_journal_addr(&w->super, i) + j * BLOCK_SIZE;

			simdisk_peek(w->disk, addr, block, sizeof(block));
			if (magic_of(block) == META_TAIL)
				ring_saw(w, i, addr, block);
		}
		r->durable_sequence = r->tail_sequence;
	}
}

