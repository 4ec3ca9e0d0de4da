/* SPDX-License-Identifier: Apache-2.0 */
/* Superblocks, host slots, lock records, journals. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/text.h"
#include "fs/check/fix.h"
#include "fs/check/online.h"
#include "fs/journal_ring.h"

/* ---- superblocks ---- */

static void check_super(struct check *c, uint64_t addr, const char *which)
{
	void *block = c->levels[0];
	struct super s;
	char why[300];
	bool fix = false;

	if (chk_read(c, addr, block, 1))
		return;
	if (super_decode(block, addr, &s, why, sizeof(why)))
		fix = chk_report(c, CHECK_SUPER_DAMAGED, addr, "%s: %s", which, why);
	else if (memcmp(s.volume, c->s->volume, 16) != 0)
		fix = chk_report(c, CHECK_SUPER_DIFFERS, addr, "%s: belongs to another volume",
				 which);
	else if (s.version > c->s->version)
		fix = chk_report(c, CHECK_SUPER_DIFFERS, addr,
				 "%s: version: expected %llu, found %llu", which,
				 (unsigned long long)c->s->version, (unsigned long long)s.version);
	else if (s.version < c->s->version)
		fix = chk_report(c, CHECK_SUPER_OLD, addr, "%s: version %llu, the newest is %llu",
				 which, (unsigned long long)s.version,
				 (unsigned long long)c->s->version);
	if (!fix)
		return;
	super_encode(c->s, addr, block);
	fix_write(c, addr, block, BLOCK_SIZE);
}

/* The chosen superblock and its copies, and the lock blocks beside it. */
void chk_supers(struct check *c)
{
	uint8_t *block = c->levels[0];

	check_super(c, SUPER_ADDR, "first superblock");
	check_super(c, c->s->copy_addr, "superblock copy in the middle");
	check_super(c, super_end_addr(c->s), "superblock copy at the end");
	/* Who repairs has marked it himself. */
	if (c->s->incompat & INCOMPAT_REPAIR && c->p->repair == CHECK_REPAIR_NONE)
		chk_report(c, CHECK_SUPER_REPAIR, SUPER_ADDR, "superblock: marked for a repair; if "
			   "none is running, fsck.lunfs -y goes on with it");
	if (chk_read(c, c->s->lock_addr, block, 1) == 0)
		chk_lock(c, block, c->s->lock_addr, "superblock");
}

/* ---- slots ---- */

static uint64_t slot_addr(const struct check *c, uint32_t index)
{
	return c->s->slots_addr + (uint64_t)index * BLOCK_SIZE;
}

bool chk_slot(struct check *c, uint32_t i)
{
	uint8_t *block = c->levels[0];
	struct slot *slot = &c->slots[i];
	uint64_t addr = slot_addr(c, i);
	char why[300];

	c->subject = i;
	c->slot_valid[i] = false;
	if (chk_read(c, addr, block, 1))
		return false;
	if (slot_decode(block, c->s->volume, addr, i, slot, why, sizeof(why))) {
		if (chk_report(c, CHECK_SLOT_DAMAGED, addr, "slot %u: %s", i, why))
			fix_slot(c, i, true);
		return false;
	}
	c->slot_valid[i] = true;
	if (slot->state == SLOT_RECOVERING && slot->recoverer >= c->s->slot_count &&
	    chk_report(c, CHECK_SLOT_RECOVERER, addr, "slot %u: is being recovered by "
		       "slot %u, of %u", i, slot->recoverer, c->s->slot_count))
		fix_slot(c, i, false);
	if (slot->generation >= SLOT_GENERATION_LAST)
		chk_report(c, CHECK_SLOT_USED_UP, addr, "slot %u: generation %u", i,
			   slot->generation);
	return true;
}

void chk_slots(struct check *c)
{
	for (uint32_t i = 0; i < c->s->slot_count; i++)
		chk_slot(c, i);
}

/* ---- lock records ---- */

/* A host may have joined since the slots were read: look again before calling it wrong. */
static bool generation_is_future(struct check *c, uint32_t slot, uint32_t generation)
{
	uint64_t addr = slot_addr(c, slot);
	struct slot now;
	uint8_t *block;
	bool future;

	if (!c->slot_valid[slot] || generation <= c->slots[slot].generation)
		return false;
	block = blkdev_alloc(BLOCK_SIZE);
	if (!block) {
		c->no_memory = true;
		return false;
	}
	future = blkdev_read(c->dev, addr, block, BLOCK_SIZE) == 0 &&
		 slot_decode(block, c->s->volume, addr, slot, &now, NULL, 0) == 0 &&
		 generation > now.generation;
	free(block);
	return future;
}

/* @how: "held by", or "left to". */
static bool check_holder(struct check *c, uint64_t addr, const char *who, const char *how,
			 uint32_t slot, uint32_t generation)
{
	if (slot >= c->s->slot_count)
		return chk_report(c, CHECK_LOCK_HOLDER, addr, "lock of %s: %s slot %u, of %u", who, how,
				  slot, c->s->slot_count);
	if (!generation_is_future(c, slot, generation))
		return false;
	return chk_report(c, CHECK_LOCK_FUTURE, addr,
			  "lock of %s: %s slot %u at generation %u, the slot is at %u", who, how,
			  slot, generation, c->slots[slot].generation);
}

/* A host whose sectors are larger compares the whole of the first one. */
static bool check_rest(struct check *c, const uint8_t *block, uint64_t addr, const char *who)
{
	for (uint32_t i = META_SECTOR_SIZE; i < BLOCK_SIZE; i++)
		if (block[i])
			return chk_report(c, CHECK_LOCK_DAMAGED, addr, "lock of %s: byte %u behind the"
					  " record is 0x%02x, expected zeros", who, i, block[i]);
	return false;
}

void chk_lock(struct check *c, const void *block, uint64_t addr, const char *who)
{
	unsigned int sharers = 0;
	struct lockrec r;
	char why[300];
	bool fix = false;

	/* A record has nothing to do with what it covers: it is looked at again by itself. */
	if (c->online && c->online->relook && c->online->what->kind != ON_LOCK)
		return;
	if (lockrec_decode(block, c->s->volume, addr, &r, why, sizeof(why))) {
		if (chk_report(c, CHECK_LOCK_DAMAGED, addr, "lock of %s: %s", who, why))
			fix_lock(c, addr);
		return;
	}
	fix |= check_rest(c, block, addr, who);
	if (r.mode == LOCK_EXCLUSIVE)
		fix |= check_holder(c, addr, who, "held by", r.owner, r.owner_generation);
	if (r.heir_generation)
		fix |= check_holder(c, addr, who, "left to", r.heir, r.heir_generation);
	for (uint32_t i = 0; i < SLOT_COUNT_MAX; i++)
		if (r.sharers[i]) {
			fix |= check_holder(c, addr, who, "held by", i, r.sharers[i]);
			sharers++;
		}
	if ((r.mode == LOCK_SHARED || r.mode == LOCK_MULTI) && !sharers)
		fix |= chk_report(c, CHECK_LOCK_HOLDER, addr, "lock of %s: %s, but held by nobody",
				  who, lock_mode_name(r.mode));
	if (fix)
		fix_lock(c, addr);
}

/* ---- journals ---- */

/* Whether a journal may hold an image of @addr: orphan lists, superblock, groups' metadata. */
static bool target_ok(const struct check *c, uint64_t addr)
{
	const struct super *s = c->s;
	uint64_t orphans_end = s->orphans_addr +
			       (uint64_t)s->slot_count * s->orphan_blocks * BLOCK_SIZE;
	uint32_t ag;

	if (addr % BLOCK_SIZE)
		return false;
	if (addr >= s->orphans_addr && addr < orphans_end)
		return true;
	if (super_ag_of(s, addr, &ag))
		return false;
	return addr != super_ag_addr(s, ag) && addr != s->copy_addr;
}

/* Called oldest first: a later image takes the place of an earlier one. */
static int keep_image(void *arg, uint64_t addr, const void *block)
{
	struct check *c = arg;
	struct table_node *n = table_find(&c->images, addr);
	struct chk_image *image;

	if (!target_ok(c, addr)) {
		c->journal_bad[c->scanning] |=
			chk_report(c, CHECK_JOURNAL_TARGET, addr, "journal of slot %u: holds an "
				   "image of this block", c->scanning);
		return 0;
	}
	if (n) {
		image = container_of(n, struct chk_image, node);
		if (image->slot != c->scanning)
			c->journal_bad[c->scanning] |=
				chk_report(c, CHECK_JOURNAL_TWICE, addr, "journals of slots %u and "
					   "%u hold images of it", image->slot, c->scanning);
		/* Of two journals' the one that was written under the later lock. */
		if (image->slot != c->scanning && c->fix &&
		    meta_version(image->data) > meta_version(block))
			return 0;
	} else {
		image = malloc(sizeof(*image));
		if (!image || table_insert(&c->images, &image->node, addr)) {
			free(image);
			return -ENOMEM;
		}
	}
	image->slot = c->scanning;
	memcpy(image->data, block, BLOCK_SIZE);
	return 0;
}

/* Reads the journal of c->scanning.  @at: how far, also where it cannot be believed any further. */
static int scan_journal(struct check *c, ring_image_fn image, struct chk_journal *at,
			unsigned int *transactions, char *why, size_t why_size)
{
	struct ring_head head = { .transactions = 0 };
	struct ring r;
	int err;

	ring_init(&r, c->dev, c->s, c->scanning);
	err = ring_scan(&r, image, c, &head, why, why_size);
	*at = (struct chk_journal){ r.version, head.sequence };
	if (!err)
		*transactions = head.transactions;
	return err;
}

static int check_journal(struct check *c, uint32_t slot)
{
	char why[300] = "";
	int err;

	c->scanning = slot;
	err = scan_journal(c, keep_image, &c->journals[slot], &c->transactions[slot], why,
			   sizeof(why));
	if (err == -ENOMEM)
		return err;
	if (err)
		c->journal_bad[slot] |=
			chk_report(c, err == -EUCLEAN || err == -EBADMSG ? CHECK_JOURNAL_DAMAGED :
				   CHECK_UNREADABLE, super_journal_addr(c->s, slot),
				   "journal of slot %u: %s", slot,
				   why[0] ? why : strerror(-err));
	else
		c->r->transactions += c->transactions[slot];
	return 0;
}

int chk_journals(struct check *c)
{
	int err = 0;

	for (uint32_t i = 0; i < c->s->slot_count && !err; i++) {
		err = check_journal(c, i);
		chk_progress(c, "journals", i + 1, c->s->slot_count);
	}
	if (!err && c->fix)
		fix_journals(c);
	return err;
}

/* Whether nobody changed metadata since chk_journals(): struct chk_journal says why. */
static bool journals_unchanged(struct check *c)
{
	unsigned int transactions;
	struct chk_journal now;
	bool same = true;

	for (c->scanning = 0; c->scanning < c->s->slot_count; c->scanning++) {
		const struct chk_journal *before = &c->journals[c->scanning];

		if (scan_journal(c, NULL, &now, &transactions, NULL, 0) == -ENOMEM)
			c->no_memory = true;
		if (now.tail != before->tail || now.next != before->next)
			same = false;
	}
	return same;
}

/* ---- who lives ---- */

static bool slot_moved(struct check *c, uint32_t i)
{
	uint64_t addr = slot_addr(c, i);
	struct slot now;

	return chk_read(c, addr, c->levels[0], 1) == 0 &&
	       slot_decode(c->levels[0], c->s->volume, addr, i, &now, NULL, 0) == 0 &&
	       now.sequence != c->slots[i].sequence;
}

static void check_host(struct check *c, uint32_t i)
{
	if (slot_moved(c, i)) {
		c->r->hosts_live++;
		return;
	}
	if (c->slots[i].state != SLOT_FREE)
		c->r->hosts_silent++;
	if (c->transactions[i])
		chk_report(c, CHECK_JOURNAL_REPLAY, super_journal_addr(c->s, i),
			   "slot %u: %u transactions: the check saw the volume as after their "
			   "replay", i, c->transactions[i]);
}

void chk_hosts_after(struct check *c, uint64_t began_ns)
{
	bool taken = false, unknown = false;

	for (uint32_t i = 0; i < c->s->slot_count; i++) {
		taken = taken || (c->slot_valid[i] && c->slots[i].state != SLOT_FREE);
		unknown = unknown || !c->slot_valid[i];
	}
	if (taken)
		env_sleep_until(c->p->env, began_ns + 2 * NSEC_PER_MSEC * c->s->timing.beat_ms);
	for (uint32_t i = 0; i < c->s->slot_count; i++)
		if (c->slot_valid[i] &&
		    !(c->p->repair != CHECK_REPAIR_NONE && i == c->p->own_slot))
			check_host(c, i);
	/* Who is silent, or has a slot that cannot be believed, may write all the same. */
	c->r->quiet = (!taken && !unknown && !c->r->hosts_live) || journals_unchanged(c);
}
