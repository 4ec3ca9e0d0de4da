// SPDX-License-Identifier: Apache-2.0
/*
 * Sees every command that the LUN applies, and knows what nobody may do (R1, R3, R4, R5).
 *
 * What covers a block follows from its own header: metadata names its owner, and so do the
 * cells that the workload writes.  Locks and slots are read from the LUN itself.
 */
#include "tests/sim/cluster/sim.h"

#include "base/crc32c.h"

#define TXNS_MAX	512u

/* A transaction in a slot's ring, by its descriptor. */
struct ring_txn {
	uint64_t sequence, block;
	uint32_t count;
	bool used;
};

struct ring_state {
	struct ring_txn txns[TXNS_MAX];
	unsigned int count;
	uint64_t tail_version, tail_sequence;	/* as written */
	uint64_t durable_sequence;		/* as flushed since */
};

struct rules {
	struct ring_state rings[SLOT_COUNT_MAX];
};

static uint32_t magic_of(const void *block)
{
	return le32_to_cpu(((const struct meta_hdr_disk *)block)->magic);
}

static bool slot_at(struct world *w, uint32_t index, struct slot *s)
{
	uint64_t addr = w->super.slots_addr + (uint64_t)index * BLOCK_SIZE;
	uint8_t sector[META_SECTOR_SIZE];

	simdisk_peek(w->disk, addr, sector, sizeof(sector));
	return slot_decode(sector, w->super.volume, addr, index, s, NULL, 0) == 0;
}

static bool lock_at(struct world *w, uint64_t addr, struct lockrec *r)
{
	uint8_t sector[META_SECTOR_SIZE];

	simdisk_peek(w->disk, addr, sector, sizeof(sector));
	return lockrec_decode(sector, w->super.volume, addr, r, NULL, 0) == 0;
}

static bool is_stale(struct world *w, uint32_t slot, uint32_t generation)
{
	struct slot s;

	if (slot >= w->super.slot_count || !slot_at(w, slot, &s))
		return false;
	return s.generation > generation || (s.generation == generation && s.state == SLOT_FREE);
}

/*
 * Whether @life may act for (slot, generation): its own, or one that it recovers, or began to:
 * what it replays is what the next one will replay, until it is fenced itself.
 */
static bool acts_for(struct world *w, const struct life *life, uint32_t slot, uint32_t generation)
{
	struct slot s;

	if (slot == life->slot && generation == life->generation)
		return true;
	return slot < w->super.slot_count && slot_at(w, slot, &s) &&
	       s.state == SLOT_RECOVERING && s.generation == generation &&
	       life->claimed[slot] == generation;
}

/* ---- what covers a block (R1) ---- */

/* Address of the lock that covers @block, which goes to @addr; 0: not known. */
static uint64_t cover_of(struct world *w, uint64_t addr, const uint8_t *block)
{
	const struct meta_hdr_disk *h = (const void *)block;
	uint64_t owner = le64_to_cpu(h->owner), words[2];

	memcpy(words, block, sizeof(words));
	if (words[0] == CELL_MAGIC)
		return inode_lock_addr(words[1]);
	if (memcmp(h->volume, w->super.volume, 16) != 0 || le64_to_cpu(h->addr) != addr)
		return 0;
	switch (magic_of(block)) {
	case META_AG:
	case META_BITMAP:
	case META_ITABLE:
		return super_ag_addr(&w->super, (uint32_t)owner);
	case META_INODE:
	case META_MAP_NODE:
	case META_MAP_LEAF:
	case META_DIR_NODE:
	case META_DIR_LEAF:
	case META_XATTR:
		return inode_lock_addr(owner);
	default:
		return 0;
	}
}

static bool may_write(struct world *w, const struct life *life, const struct lockrec *r)
{
	if (r->mode == LOCK_EXCLUSIVE)
		return acts_for(w, life, r->owner, r->owner_generation);
	if (r->mode == LOCK_MULTI)
		return life->slot < SLOT_COUNT_MAX && r->sharers[life->slot] == life->generation;
	return false;
}

/*
 * A power cut takes back lock records too, so what the dead left to be replayed may be covered by
 * a record that names an earlier holder, dead as well, or nobody.
 */
static bool is_replay_after_cut(struct world *w, const struct life *life, const struct lockrec *r)
{
	const struct life *holder = life_of_slot(w, r->owner, r->owner_generation);
	struct slot s;

	if (r->mode == LOCK_EXCLUSIVE && holder && holder >= &w->lives[w->lives_cut])
		return false;
	for (uint32_t i = 0; i < w->super.slot_count; i++) {
		const struct life *dead;

		if (!life->claimed[i] || !slot_at(w, i, &s) || s.state != SLOT_RECOVERING ||
		    s.generation != life->claimed[i])
			continue;
		dead = life_of_slot(w, i, s.generation);
		if (dead && dead < &w->lives[w->lives_cut])
			return true;
	}
	return false;
}

static void check_cover(struct world *w, struct life *life, uint64_t addr, const uint8_t *block,
			const char *what)
{
	uint64_t lock = cover_of(w, addr, block);
	struct lockrec r, group;
	uint32_t ag;

	if (!lock)
		return;
	if (!lock_at(w, lock, &r)) {
		world_violation(w, "R1: %s of %s block %#llx, whose lock record at %#llx is not one",
				what, meta_type_name(magic_of(block)), (unsigned long long)addr,
				(unsigned long long)lock);
		return;
	}
	/* A new cluster's free inodes belong to their group until one is taken. */
	if (r.mode == LOCK_FREE && magic_of(block) == META_INODE &&
	    !le32_to_cpu(((const struct inode_disk *)(const void *)block)->mode) &&
	    !super_ag_of(&w->super, addr, &ag) && lock_at(w, super_ag_addr(&w->super, ag), &group) &&
	    may_write(w, life, &group))
		return;
	if (!may_write(w, life, &r) && !is_replay_after_cut(w, life, &r))
		world_violation(w, "R1: life %u (slot %u/%u) %s %s block %#llx covered by lock %#llx, "
				"%s by %u/%u", life->pid, life->slot, life->generation, what,
				meta_type_name(magic_of(block)), (unsigned long long)addr,
				(unsigned long long)lock, lock_mode_name(r.mode), r.owner,
				r.owner_generation);
}

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

static void ring_saw(struct world *w, uint32_t slot, uint64_t addr, const uint8_t *block)
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

/* A flush makes every tail durable that was written before. */
static void rings_flushed(struct world *w)
{
	for (uint32_t i = 0; i < w->super.slot_count; i++) {
		struct ring_state *r = &w->rules->rings[i];

		if (r->durable_sequence == r->tail_sequence)
			continue;
		r->durable_sequence = r->tail_sequence;
		ring_trim(r);
	}
}

/* Is a block that @lock covers still to be replayed from @slot's journal? */
static void check_settled(struct world *w, uint32_t slot, uint64_t lock, const char *what)
{
	struct ring_state *r = &w->rules->rings[slot];
	uint8_t desc[BLOCK_SIZE], image[BLOCK_SIZE];
	const struct journal_desc_disk *d = (const void *)desc;

	for (unsigned int i = 0; i < r->count; i++) {
		simdisk_peek(w->disk, ring_place(w, slot, r->txns[i].block), desc, sizeof(desc));
		if (magic_of(desc) != META_DESC || le64_to_cpu(d->sequence) != r->txns[i].sequence)
			continue;
		for (uint32_t j = 0; j < r->txns[i].count && j < JOURNAL_ENTRIES; j++) {
			uint64_t home = le64_to_cpu(d->entries[j].addr);

			simdisk_peek(w->disk, ring_place(w, slot, r->txns[i].block + 1 + j), image,
				     sizeof(image));
			if (cover_of(w, home, image) != lock)
				continue;
			world_violation(w, "R4: lock %#llx is %s, and transaction %llu in the journal "
					"of slot %u holds block %#llx of it",
					(unsigned long long)lock, what,
					(unsigned long long)r->txns[i].sequence, slot,
					(unsigned long long)home);
			return;
		}
	}
}

/* Committed transactions that nobody has written home. */
static void check_replayed(struct world *w, uint32_t slot)
{
	struct ring_state *r = &w->rules->rings[slot];

	if (r->count)
		world_violation(w, "R3: slot %u is retired with %u transactions in its journal, the "
				"first %llu, tail %llu", slot, r->count,
				(unsigned long long)r->txns[0].sequence,
				(unsigned long long)r->durable_sequence);
}

/* ---- slots (R5) ---- */

static void slot_claimed(struct world *w, struct life *life, const struct slot *s,
			 uint32_t generation)
{
	struct life *old = life_of_slot(w, s->index, s->generation);

	if (old && old != life && s->generation != generation)
		old->dead = old->dead || s->state == SLOT_FREE;
	life->slot = s->index;
	life->generation = generation;
	/* Fenced while it was about to join, and joining again: what it had under way is over. */
	life->fenced = false;
	life->dead = life->dead && life->attached;
}

static void count_change(struct world *w, const struct slot *a, const struct slot *b)
{
	uint64_t *n = w->counters;
	bool self = b->recoverer == b->index;

	for (unsigned int i = 0; i < SLOT_WANTS; i++)
		n[COUNT_slot_want] += b->wants[i].addr && b->wants[i].addr != a->wants[i].addr;
	for (unsigned int i = 0; i < SLOT_DENIALS; i++)
		n[COUNT_slot_denial] += b->denials[i].addr && b->denials[i].stamp != a->denials[i].stamp;
	n[COUNT_slot_beat] += a->state == b->state;
	n[COUNT_slot_claim] += a->state == SLOT_FREE && b->state == SLOT_JOINING;
	n[COUNT_slot_live] += a->state == SLOT_JOINING && b->state == SLOT_LIVE;
	n[COUNT_slot_leave] += a->state != SLOT_RECOVERING && a->state != SLOT_FREE &&
			       b->state == SLOT_FREE;
	n[COUNT_slot_retire] += a->state == SLOT_RECOVERING && b->state == SLOT_FREE;
	n[COUNT_slot_self_live] += a->state == SLOT_RECOVERING && b->state == SLOT_LIVE;
	n[COUNT_slot_drained] += !(a->flags & SLOT_DRAINED) && b->flags & SLOT_DRAINED;
	if (b->state != SLOT_RECOVERING)
		return;
	n[COUNT_slot_recover_self] += a->state != SLOT_RECOVERING && self;
	n[COUNT_slot_recover] += a->state == SLOT_LIVE && !self;
	n[COUNT_slot_recover_joining] += a->state == SLOT_JOINING && !self;
	n[COUNT_slot_reclaim] += a->state == SLOT_RECOVERING &&
				 (a->recoverer != b->recoverer ||
				  a->recoverer_generation != b->recoverer_generation);
}

static void slot_changed(struct world *w, struct life *life, const struct blk_io *io)
{
	uint32_t index = (uint32_t)((io->off - w->super.slots_addr) / BLOCK_SIZE);
	struct slot a, b;

	if (slot_decode(io->iov[0].iov_base, w->super.volume, io->off, index, &a, NULL, 0) ||
	    slot_decode(io->iov[1].iov_base, w->super.volume, io->off, index, &b, NULL, 0)) {
		world_violation(w, "slot %u becomes something that is not a slot", index);
		return;
	}
	if (b.generation < a.generation || b.sequence <= a.sequence)
		world_violation(w, "R5: slot %u goes from generation %u/%llu to %u/%llu", index,
				a.generation, (unsigned long long)a.sequence, b.generation,
				(unsigned long long)b.sequence);
	if (a.state == SLOT_FREE && b.generation <= a.generation)
		world_violation(w, "R5: slot %u is claimed at %u, which is retired", index,
				b.generation);
	count_change(w, &a, &b);
	if (a.state != b.state || a.generation != b.generation || a.recoverer != b.recoverer ||
	    a.recoverer_generation != b.recoverer_generation)
		world_trace(w, "  slot %u: %s %u -> %s %u (recoverer %d) by life %u", index,
			    slot_state_name(a.state), a.generation, slot_state_name(b.state),
			    b.generation, (int)b.recoverer, life->pid);
	if (a.state == SLOT_FREE && b.state == SLOT_JOINING)
		slot_claimed(w, life, &b, b.generation);
	if (b.state == SLOT_RECOVERING && b.recoverer == index &&
	    (a.recoverer != index || a.recoverer_generation != b.recoverer_generation ||
	     life->slot != index))
		slot_claimed(w, life, &b, b.recoverer_generation);
	if (b.state == SLOT_RECOVERING && b.recoverer == life->slot)
		life->claimed[index] = b.generation;
	if (b.state == SLOT_RECOVERING && b.recoverer != index)
		chaos_saw_recovery(life);
	if (b.state == SLOT_FREE || (a.state == SLOT_RECOVERING && b.state == SLOT_LIVE))
		check_replayed(w, index);
	if (b.state == SLOT_FREE) {
		struct life *l = life_of_slot(w, index, b.generation);

		if (l)
			l->fenced = true;
	}
}

/* ---- locks ---- */

static bool rec_names(const struct lockrec *r, uint32_t slot, uint32_t generation)
{
	if (r->mode == LOCK_EXCLUSIVE)
		return r->owner == slot && r->owner_generation == generation;
	return r->mode != LOCK_FREE && slot < SLOT_COUNT_MAX && r->sharers[slot] == generation;
}

/* Everybody whom @a names and @b does not must be the writer itself, or stale (R5). */
static void check_taken(struct world *w, struct life *life, uint64_t addr,
			const struct lockrec *a, const struct lockrec *b)
{
	for (uint32_t i = 0; i < w->super.slot_count; i++) {
		uint32_t g = a->mode == LOCK_EXCLUSIVE ? a->owner_generation : a->sharers[i];

		if (a->mode == LOCK_FREE || (a->mode == LOCK_EXCLUSIVE && a->owner != i) || !g)
			continue;
		if (a->mode == LOCK_EXCLUSIVE && rec_names(b, i, g) && b->mode != a->mode &&
		    i == life->slot && g == life->generation) {
			w->counters[COUNT_lock_downgrade]++;
			check_settled(w, i, addr, "downgraded");
			continue;
		}
		if (rec_names(b, i, g))
			continue;
		if (is_stale(w, i, g)) {
			w->counters[COUNT_lock_stale]++;
			continue;
		}
		if (i != life->slot || g != life->generation)
			world_violation(w, "R1: lock %#llx, %s by %u/%u, is taken away by life %u (%u/%u)",
					(unsigned long long)addr, lock_mode_name(a->mode), i, g,
					life->pid, life->slot, life->generation);
		else
			check_settled(w, i, addr, "released");
	}
}

static void count_lock(struct world *w, const struct life *life, const struct lockrec *a,
		       const struct lockrec *b)
{
	bool had = rec_names(a, life->slot, life->generation);
	bool has = rec_names(b, life->slot, life->generation);

	w->counters[COUNT_lock_take] += a->mode == LOCK_FREE && has;
	w->counters[COUNT_lock_share] += a->mode == LOCK_SHARED && !had && has &&
					 b->mode == LOCK_SHARED;
	w->counters[COUNT_lock_upgrade] += a->mode == LOCK_SHARED && had &&
					   b->mode == LOCK_EXCLUSIVE;
	w->counters[COUNT_lock_release] += had && b->mode == LOCK_FREE;
	w->counters[COUNT_lock_unshare] += had && !has && b->mode == LOCK_SHARED;
	w->counters[COUNT_lock_user] += had && has && b->pid && b->pid != a->pid;
}

static void lock_changed(struct world *w, struct life *life, const struct blk_io *io)
{
	struct lockrec a, b;

	if (lockrec_decode(io->iov[0].iov_base, w->super.volume, io->off, &a, NULL, 0) ||
	    lockrec_decode(io->iov[1].iov_base, w->super.volume, io->off, &b, NULL, 0)) {
		world_violation(w, "lock at %#llx becomes something that is not a lock record",
				(unsigned long long)io->off);
		return;
	}
	if (b.sequence <= a.sequence)
		world_violation(w, "lock %#llx goes back in sequence", (unsigned long long)io->off);
	for (uint32_t i = 0; i < w->super.slot_count; i++) {
		uint32_t g = b.mode == LOCK_EXCLUSIVE ? b.owner_generation : b.sharers[i];

		if (b.mode == LOCK_FREE || (b.mode == LOCK_EXCLUSIVE && b.owner != i) || !g)
			continue;
		if (!rec_names(&a, i, g) && (i != life->slot || g != life->generation))
			world_violation(w, "R1: life %u (%u/%u) gives lock %#llx to %u/%u", life->pid,
					life->slot, life->generation, (unsigned long long)io->off, i, g);
	}
	count_lock(w, life, &a, &b);
	check_taken(w, life, io->off, &a, &b);
}

/* ---- every command ---- */

static bool in_region(uint64_t off, uint64_t start, uint64_t len)
{
	return off >= start && off < start + len;
}

static void journal_written(struct world *w, struct life *life, uint64_t off,
			    const uint8_t *block)
{
	uint32_t slot = (uint32_t)((off - w->super.journals_addr) / w->super.journal_size);
	struct slot s;

	if (slot != life->slot && slot_at(w, slot, &s) && !acts_for(w, life, slot, s.generation))
		world_violation(w, "R1: life %u (slot %u) writes to the journal of slot %u", life->pid,
				life->slot, slot);
	ring_saw(w, slot, off, block);
}

static void block_written(struct world *w, struct life *life, uint64_t off, const uint8_t *block)
{
	const struct super *s = &w->super;

	if (in_region(off, s->journals_addr, s->journal_size * s->slot_count))
		journal_written(w, life, off, block);
	else if (off >= s->ag_addr)
		check_cover(w, life, off, block, "writes");
}

static void written(struct world *w, struct life *life, const struct blk_io *io)
{
	if (io->op != BLK_WRITE || io->off % BLOCK_SIZE)
		return;
	for (uint64_t i = 0; i + BLOCK_SIZE <= io->len; i += BLOCK_SIZE)
		block_written(w, life, io->off + i, (const uint8_t *)io->iov[0].iov_base + i);
}

static void life_fenced(struct world *w, struct life *victim, const struct life *by)
{
	victim->fenced = true;
	w->counters[COUNT_replay]++;
	world_trace(w, "  journal of life %u is read by life %u", victim->pid, by->pid);
	model_died(w->model, victim);
}

/* The recoverer reads the dead host's journal: from here on nothing of it may land (R3). */
static void journal_read(struct world *w, struct life *life, uint64_t off)
{
	uint32_t slot = (uint32_t)((off - w->super.journals_addr) / w->super.journal_size);
	struct slot s;

	if (!slot_at(w, slot, &s) || s.state != SLOT_RECOVERING ||
	    !acts_for(w, life, slot, s.generation))
		return;
	if (s.recoverer != life->slot || s.recoverer_generation != life->generation)
		return;
	for (unsigned int i = 0; i < w->life_count; i++) {
		struct life *v = &w->lives[i];

		if (v != life && v->slot == slot && !v->fenced &&
		    (v->generation == s.generation || v->claimed[slot] == s.generation))
			life_fenced(w, v, life);
	}
}

static void check_fenced(struct world *w, struct life *life, const struct blk_io *io)
{
	if (io->op == BLK_READ || io->op == BLK_FLUSH)
		return;
	if (life->fenced)
		world_violation(w, "R3: life %u (slot %u/%u) is fenced, and its command %d at %#llx +%#llx "
				"is applied", life->pid, life->slot, life->generation, (int)io->op,
				(unsigned long long)io->off, (unsigned long long)io->len);
	else if (life->slot == SLOT_NONE && io->off >= w->super.orphans_addr)
		world_violation(w, "R1: life %u has no slot, and writes at %#llx", life->pid,
				(unsigned long long)io->off);
}

static void saw(void *arg, struct env *env, const struct blk_io *io)
{
	struct world *w = arg;
	struct life *life = life_of_dev(w, io->dev);
	const struct super *s = &w->super;

	(void)env;
	w->commands++;
	world_mix(w, sim_now_ns(w->sim));
	world_mix(w, (uint64_t)io->op << 56 | (life ? life->pid : 0));
	world_mix(w, io->off);
	world_mix(w, io->len);
	if (io->iov && io->iovcnt && (io->op == BLK_WRITE || io->op == BLK_CAW))
		world_mix(w, crc32c(0, io->iov[io->op == BLK_CAW].iov_base, io->len));
	if (!life)
		return;
	if (io->op == BLK_CAW && in_region(io->off, s->slots_addr, s->slot_count * BLOCK_SIZE)) {
		slot_changed(w, life, io);
		return;
	}
	if (in_region(io->off, s->scratch_addr, 2 * BLOCK_SIZE))
		return;
	check_fenced(w, life, io);
	if (io->op == BLK_CAW)
		lock_changed(w, life, io);
	else if (io->op == BLK_FLUSH)
		rings_flushed(w);
	else if (io->op == BLK_READ && in_region(io->off, s->journals_addr,
						 s->journal_size * s->slot_count))
		journal_read(w, life, io->off);
	else
		written(w, life, io);
}

/* What was written and not flushed may be gone: begin again with the tails that are there. */
void rules_power_cut(struct world *w)
{
	uint8_t block[BLOCK_SIZE];

	w->lives_cut = w->life_count;
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

void rules_start(struct world *w)
{
	w->rules = calloc(1, sizeof(*w->rules));
	if (!w->rules)
		abort();
	simdisk_observe(w->disk, saw, w);
}
