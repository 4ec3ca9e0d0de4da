// SPDX-License-Identifier: Apache-2.0
/*
 * Sees every command that the LUN applies, and knows what nobody may do (R1, R3, R4, R5).
 *
 * What covers a block follows from its own header: metadata names its owner, and so do the
 * cells that the workload writes.  Locks and slots are read from the LUN itself.
 */
#include "tests/sim/cluster/rules.h"

#include "base/crc32c.h"

uint32_t magic_of(const void *block)
{
	return le32_to_cpu(((const struct meta_hdr_disk *)block)->magic);
}

bool slot_at(struct world *w, uint32_t index, struct slot *s)
{
	uint64_t addr = w->super.slots_addr + (uint64_t)index * BLOCK_SIZE;
	uint8_t sector[META_SECTOR_SIZE];

	simdisk_peek(w->disk, addr, sector, sizeof(sector));
	return slot_decode(sector, w->super.volume, addr, index, s, NULL, 0) == 0;
}

bool lock_at(struct world *w, uint64_t addr, struct lockrec *r)
{
	uint8_t sector[META_SECTOR_SIZE];

	simdisk_peek(w->disk, addr, sector, sizeof(sector));
	return lockrec_decode(sector, w->super.volume, addr, r, NULL, 0) == 0;
}

bool is_stale(struct world *w, uint32_t slot, uint32_t generation)
{
	struct slot s;

	if (slot >= w->super.slot_count || !slot_at(w, slot, &s))
		return false;
	return s.generation > generation || (s.generation == generation && s.state == SLOT_FREE);
}

bool acts_for(struct world *w, const struct life *life, uint32_t slot, uint32_t generation)
{
	struct slot s;

	if (slot == life->slot && generation == life->generation)
		return true;
	return slot < w->super.slot_count && slot_at(w, slot, &s) &&
	       s.state == SLOT_RECOVERING && s.generation == generation &&
	       life->claimed[slot] == generation;
}

/* ---- what covers a block (R1) ---- */

/* Of a block of data by the first cell in it that was ever written.  A disk's: see below. */
static uint64_t cover_of_cells(const uint8_t *block)
{
	uint64_t tag;

	return cell_tag(block, &tag) && !model_is_family(tag) ? inode_lock_addr(tag) : 0;
}

uint64_t cover_of(struct world *w, uint64_t addr, const uint8_t *block)
{
	const struct meta_hdr_disk *h = (const void *)block;
	uint64_t owner = le64_to_cpu(h->owner);

	if (memcmp(h->volume, w->super.volume, 16) != 0 || le64_to_cpu(h->addr) != addr)
		return cover_of_cells(block);
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
	/* Left to an heir, nobody has it. */
	if (r->heir_generation)
		return false;
	if (r->mode == LOCK_EXCLUSIVE)
		return acts_for(w, life, r->owner, r->owner_generation);
	if (r->mode == LOCK_MULTI)
		return life->slot < SLOT_COUNT_MAX && r->sharers[life->slot] == life->generation;
	return false;
}

/*
 * A block of a disk may have been any of its family's: snapshots and merges hand it on as it is.
 * Who writes it has one of them open for writing, or merges below one that it has.
 */
static void check_family(struct world *w, struct life *life, uint64_t addr, uint64_t family)
{
	for (unsigned int i = 0; i < FAMILIES * IMAGES; i++) {
		const struct mimage *im = &w->model->images[i];
		struct lockrec r;

		if (im->family == family && im->file->id &&
		    lock_at(w, inode_lock_addr(im->file->id), &r) && may_write(w, life, &r))
			return;
	}
	world_violation(w, "R1: life %u (slot %u/%u) writes block %#llx of the disks of family %llu, and "
			"has none of them", life->pid, life->slot, life->generation,
			(unsigned long long)addr, (unsigned long long)family);
}

static void check_cover(struct world *w, struct life *life, uint64_t addr, const uint8_t *block,
			const char *what)
{
	uint64_t lock = cover_of(w, addr, block), tag;
	struct lockrec r, group;
	uint32_t ag;

	if (!lock && cell_tag(block, &tag) && model_is_family(tag))
		check_family(w, life, addr, tag);
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
	if (!may_write(w, life, &r))
		world_violation(w, "R1: life %u (slot %u/%u) %s %s block %#llx covered by lock %#llx, "
				"%s by %u/%u", life->pid, life->slot, life->generation, what,
				meta_type_name(magic_of(block)), (unsigned long long)addr,
				(unsigned long long)lock, lock_mode_name(r.mode), r.owner,
				r.owner_generation);
}

/* ---- locks ---- */

/* A lock as it was left by the last compare-and-write of it. */
struct lock_note {
	struct table_node node;
	struct lockrec rec;
};

/* The slot of somebody for whom @r still holds; SLOT_NONE: for nobody. */
static uint32_t rec_holder(struct world *w, const struct lockrec *r)
{
	for (uint32_t i = 0; i < w->super.slot_count; i++) {
		uint32_t g = r->mode == LOCK_EXCLUSIVE ? r->owner_generation : r->sharers[i];

		if (r->mode == LOCK_FREE || (r->mode == LOCK_EXCLUSIVE && r->owner != i) || !g)
			continue;
		if (!is_stale(w, i, g))
			return i;
	}
	return SLOT_NONE;
}

/*
 * What somebody holds changes by compare-and-write, and by nothing else.  (A cluster of inodes
 * whose creation was undone by a crash becomes free space: nobody holds anything there.)
 */
static void check_no_lock(struct world *w, struct life *life, uint64_t off, uint64_t len)
{
	for (uint64_t i = off / BLOCK_SIZE; i * BLOCK_SIZE < off + len; i++) {
		struct table_node *n = table_find(&w->rules->lock_records, i);
		struct lock_note *note = n ? container_of(n, struct lock_note, node) : NULL;
		uint32_t holder = note ? rec_holder(w, &note->rec) : SLOT_NONE;

		if (holder != SLOT_NONE)
			world_violation(w, "R1: life %u writes over the lock record at %#llx, held by slot "
					"%u", life->pid, (unsigned long long)(i * BLOCK_SIZE), holder);
		if (!note)
			continue;
		table_remove(&w->rules->lock_records, n);
		free(note);
	}
}

static void remember_lock(struct world *w, uint64_t addr, const struct lockrec *rec)
{
	struct table_node *n = table_find(&w->rules->lock_records, addr / BLOCK_SIZE);
	struct lock_note *note = n ? container_of(n, struct lock_note, node) : NULL;

	if (!note) {
		note = calloc(1, sizeof(*note));
		if (!note || table_insert(&w->rules->lock_records, &note->node, addr / BLOCK_SIZE))
			abort();
	}
	note->rec = *rec;
}

static void forget_lock(struct table_node *n, void *arg)
{
	struct rules *r = arg;

	table_remove(&r->lock_records, n);
	free(container_of(n, struct lock_note, node));
}

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
			w->counters[b->mode == LOCK_MULTI ? COUNT_lock_downgrade_multi :
				    COUNT_lock_downgrade]++;
			check_settled(w, life, addr, "downgraded", b->mode != LOCK_MULTI);
			continue;
		}
		if (rec_names(b, i, g))
			continue;
		if (is_stale(w, i, g)) {
			w->counters[a->mode == LOCK_EXCLUSIVE ? COUNT_lock_stale :
				    COUNT_lock_stale_sharer]++;
			continue;
		}
		if (a->heir_generation == life->generation && a->heir == life->slot)
			continue;
		if (i != life->slot || g != life->generation)
			world_violation(w, "R1: lock %#llx, %s by %u/%u, is taken away by life %u (%u/%u)",
					(unsigned long long)addr, lock_mode_name(a->mode), i, g,
					life->pid, life->slot, life->generation);
		else
			check_settled(w, life, addr, "released", true);
	}
}

static bool is_same_but_sequence(const struct lockrec *a, const struct lockrec *b)
{
	return a->mode == b->mode && a->owner == b->owner &&
	       a->owner_generation == b->owner_generation && a->pid == b->pid &&
	       a->since == b->since && a->heir_generation == b->heir_generation && !memcmp(a->sharers, b->sharers, sizeof(a->sharers));
}

static void count_lock(struct world *w, const struct life *life, const struct lockrec *a,
		       const struct lockrec *b)
{
	bool had = rec_names(a, life->slot, life->generation);
	bool has = rec_names(b, life->slot, life->generation);

	w->counters[COUNT_lock_take] += a->mode == LOCK_FREE && has;
	w->counters[COUNT_lock_bump] += is_same_but_sequence(a, b);
	w->counters[COUNT_lock_take_shared] += a->mode == LOCK_FREE && has && b->mode == LOCK_SHARED;
	w->counters[COUNT_lock_multi] += a->mode == LOCK_FREE && has && b->mode == LOCK_MULTI;
	w->counters[COUNT_lock_multi_join] += a->mode == LOCK_MULTI && !had && has &&
					      b->mode == LOCK_MULTI;
	w->counters[COUNT_lock_multi_leave] += had && !has && b->mode == LOCK_MULTI;
	w->counters[COUNT_lock_multi_only] += a->mode == LOCK_MULTI && had &&
					      b->mode == LOCK_EXCLUSIVE;
	w->counters[COUNT_lock_share] += a->mode == LOCK_SHARED && !had && has &&
					 b->mode == LOCK_SHARED;
	w->counters[COUNT_lock_upgrade] += a->mode == LOCK_SHARED && had &&
					   b->mode == LOCK_EXCLUSIVE;
	w->counters[COUNT_lock_release] += had && b->mode == LOCK_FREE;
	w->counters[COUNT_lock_unshare] += had && !has && b->mode == LOCK_SHARED;
	w->counters[COUNT_lock_left] += !a->heir_generation && b->heir_generation;
	w->counters[COUNT_lock_heir] += a->heir_generation && !had && has && a->heir == life->slot &&
					a->heir_generation == life->generation;
	w->counters[COUNT_lock_left_back] += a->heir_generation && had && has && !b->heir_generation;
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
	remember_lock(w, io->off, &b);
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
	if (b.heir_generation)
		check_settled(w, life, io->off, "left", true);
	count_lock(w, life, &a, &b);
	check_taken(w, life, io->off, &a, &b);
}

/* ---- every command ---- */

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

/*
 * The orphan list of a slot belongs to its owner, or to who recovers it, or to who replays what a
 * recoverer of it had committed.
 */
static void orphans_written(struct world *w, struct life *life, uint64_t off)
{
	uint32_t slot = (uint32_t)((off - w->super.orphans_addr) / BLOCK_SIZE / w->super.orphan_blocks);
	struct slot s;

	if (slot == life->slot || !slot_at(w, slot, &s) || acts_for(w, life, slot, s.generation) ||
	    (s.state == SLOT_RECOVERING && acts_for(w, life, s.recoverer, s.recoverer_generation)))
		return;
	world_violation(w, "R1: life %u (slot %u) writes the orphans of slot %u", life->pid,
				life->slot, slot);
}

static void block_written(struct world *w, struct life *life, uint64_t off, const uint8_t *block)
{
	const struct super *s = &w->super;

	if (off < s->orphans_addr || off == s->copy_addr || off == super_end_addr(s))
		world_violation(w, "R1: life %u writes over %s at %#llx", life->pid,
				off < s->slots_addr ? "the superblock" : "slots or the superblock's "
				"copies", (unsigned long long)off);
	else if (in_region(off, s->orphans_addr,
			   (uint64_t)s->slot_count * s->orphan_blocks * BLOCK_SIZE))
		orphans_written(w, life, off);
	else if (in_region(off, s->journals_addr, s->journal_size * s->slot_count))
		journal_written(w, life, off, block);
	else if (off >= s->ag_addr)
		check_cover(w, life, off, block, "writes");
}

static void written(struct world *w, struct life *life, const struct blk_io *io)
{
	if (io->op == BLK_WRITE || io->op == BLK_DISCARD || io->op == BLK_ZERO)
		check_no_lock(w, life, io->off, io->len);
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

/* For people: what befalls one address, or what one life does (--watch).  Not part of the hash. */
static void show_watched(struct world *w, const struct life *life, const struct blk_io *io)
{
	const uint8_t *block = io->iov && io->op != BLK_READ ? io->iov[io->op == BLK_CAW].iov_base : NULL;

	if (!w->watch || ((!life || w->watch != life->pid) &&
			  (w->watch < io->off || w->watch >= io->off + io->len)))
		return;
	if (block && io->op != BLK_CAW && w->watch >= io->off)
		block += (w->watch - io->off) / BLOCK_SIZE * BLOCK_SIZE;
	printf("%10.4f   %s of %#llx +%#llx by life %u: %s, covered by %#llx\n",
	       (double)sim_now_ns(w->sim) / 1e9, sim_op_names[io->op], (unsigned long long)io->off,
	       (unsigned long long)io->len, life ? life->pid : 0,
	       block ? meta_type_name(magic_of(block)) : "-",
	       block ? (unsigned long long)cover_of(w, le64_to_cpu(((const struct meta_hdr_disk *)
								   (const void *)block)->addr), block) : 0);
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
	show_watched(w, life, io);
	if (!life)
		return;
	if (w->also)
		w->also(w->also_arg, life, io);
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

void rules_power_cut(struct world *w)
{
	table_each(&w->rules->lock_records, forget_lock, w->rules);
	rings_power_cut(w);
}

void rules_start(struct world *w)
{
	w->rules = calloc(1, sizeof(*w->rules));
	if (!w->rules)
		abort();
	table_init(&w->rules->lock_records);
	simdisk_observe(w->disk, saw, w);
}
