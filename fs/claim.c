/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/claim.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/text.h"
#include "fs/journal.h"
#include "lockd/lockd.h"

#define PATIENCE	4u	/* times the suspicion time, for all dead hosts to be recovered */

struct claim {
	struct claim_params p;
	struct super super;
	struct lockd *lockd;
	bool	joined;
	char	label[LABEL_MAX + 1];
	bool	damaged[SLOT_COUNT_MAX];	/* its journal cannot be replayed; fenced it is */
};

/* ---- what lockd asks of us ---- */

static int nothing_to_settle(void *arg)
{
	(void)arg;
	return 0;
}

static void nothing_to_forget(void *arg, struct lock *lock)
{
	(void)arg;
	(void)lock;
}

/*
 * A journal that is damaged is the repair's affair.  The slot of a dead host stays ours until then;
 * the one by which we join (its old owner, if any, is fenced) we need, and not its journal.
 */
static int claim_replay(void *arg, struct blkdev *dev, uint32_t slot)
{
	struct claim *c = arg;
	int err = journal_replay(c->p.env, dev, &c->super, slot, NULL);

	if (err != -EUCLEAN && err != -EBADMSG)
		return err;
	__atomic_store_n(&c->damaged[slot], true, __ATOMIC_RELEASE);
	return __atomic_load_n(&c->joined, __ATOMIC_ACQUIRE) ? err : 0;
}

/* What a dead host was deleting waits on its list for the slot's next owner. */
static int nothing_to_adopt(void *arg, uint32_t slot)
{
	(void)arg;
	(void)slot;
	return 0;
}

static void claim_lost(void *arg)
{
	(void)arg;	/* every I/O fails from now on */
}

static const struct lockd_client client = {
	.settle = nothing_to_settle,
	.forget = nothing_to_forget,
	.replay = claim_replay,
	.adopt = nothing_to_adopt,
	.lost = claim_lost,
};

/* ---- the others ---- */

static uint64_t suspicion_ns(const struct claim *c)
{
	return (uint64_t)(c->super.timing.lease_ms + c->super.timing.margin_ms) * NSEC_PER_MSEC;
}

/*
 * Whether slot @i keeps nobody from repairing: free, ours, dead with a damaged journal, or in the
 * hands of a recoverer that cannot be, which is no better than a block that cannot be believed.
 */
static bool is_out_of_the_way(struct claim *c, uint32_t i, const struct slot *s)
{
	return s->state == SLOT_FREE || i == lockd_slot(c->lockd) ||
	       (s->state == SLOT_RECOVERING && s->recoverer >= c->super.slot_count) ||
	       __atomic_load_n(&c->damaged[i], __ATOMIC_ACQUIRE);
}

/*
 * The first slot that is in the way, read from the device; -1: none.  A block that cannot be
 * believed stands for nobody: its owner, if any, has stalled for good.
 */
static int find_other(struct claim *c, struct slot *s)
{
	uint8_t block[BLOCK_SIZE] BLKDEV_ALIGNED;
	int found = -1;

	for (uint32_t i = 0; i < c->super.slot_count && found < 0; i++) {
		uint64_t addr = c->super.slots_addr + (uint64_t)i * BLOCK_SIZE;

		if (blkdev_read(lockd_dev(c->lockd), addr, block, BLOCK_SIZE))
			found = (int)i;
		else if (!slot_decode(block, c->super.volume, addr, i, s, NULL, 0) &&
			 !is_out_of_the_way(c, i, s))
			found = (int)i;
	}
	return found;
}

/* Until nobody is in the way, or somebody lives, or too long. */
static int wait_alone(struct claim *c, char *why, size_t why_size)
{
	struct env *env = c->p.env;
	uint64_t began_ns = env_now_ns(env), sequence = 0;
	int last = -1, other;
	struct slot s = { .host_name = "unreadable" };
	char name[64];

	while ((other = find_other(c, &s)) >= 0) {
		uint64_t waited_ns = env_now_ns(env) - began_ns;
		bool lives = other == last && s.state == SLOT_LIVE && s.sequence != sequence;

		if (lockd_lost(c->lockd))
			return -ESTALE;
		if ((lives && waited_ns > suspicion_ns(c)) ||
		    waited_ns > PATIENCE * suspicion_ns(c)) {
			text_printable(s.host_name, 32, name, sizeof(name));
			return text_refuse(-EBUSY, why, why_size, "%s: host %s (slot %d, process "
					   "%u) %s", c->p.dev->info.name, name, other, s.pid,
					   lives ? "has the volume attached: detach it there first" :
					   "is dead and cannot be recovered; see the log");
		}
		last = other;
		sequence = s.sequence;
		env_sleep_until(env, env_now_ns(env) +
				(uint64_t)c->super.timing.beat_ms * NSEC_PER_MSEC * 3 / 2);
	}
	return 0;
}

/* ---- slots that cannot be believed ---- */

/*
 * With no slot left to join by, what cannot be believed is made anew.  Nobody lives there: a host
 * whose slot is not as it left it does not get its lease renewed, so after the suspicion time it
 * has none, and what it had under way when the lease ended has ended as well or has been cut.
 */
static int rebuild_slots(struct claim *c)
{
	uint8_t block[BLOCK_SIZE] BLKDEV_ALIGNED;
	struct slot s;
	int err = 0;

	env_sleep_until(c->p.env, env_now_ns(c->p.env) + suspicion_ns(c) +
			c->p.dev->info.inflight_ns_max);
	for (uint32_t i = 0; !err && i < c->super.slot_count; i++) {
		uint64_t addr = c->super.slots_addr + (uint64_t)i * BLOCK_SIZE;

		err = blkdev_read(c->p.dev, addr, block, BLOCK_SIZE);
		if (err || !slot_decode(block, c->super.volume, addr, i, &s, NULL, 0))
			continue;
		memset(block, 0, sizeof(block));
		slot_rebuilt(c->p.env, i, &s);
		slot_encode(&s, c->super.volume, addr, block, BLOCK_SIZE);
		err = blkdev_write(c->p.dev, addr, block, BLOCK_SIZE);
	}
	return err ? err : blkdev_flush(c->p.dev);
}

static bool no_slot_is_believable(struct claim *c)
{
	uint8_t block[BLOCK_SIZE] BLKDEV_ALIGNED;
	bool none = true;
	struct slot s;

	for (uint32_t i = 0; none && i < c->super.slot_count; i++) {
		uint64_t addr = c->super.slots_addr + (uint64_t)i * BLOCK_SIZE;

		none = !blkdev_read(c->p.dev, addr, block, BLOCK_SIZE) &&
		       slot_decode(block, c->super.volume, addr, i, &s, NULL, 0);
	}
	return none;
}

/* ---- the claim ---- */

static int claim_join(struct claim *c, char *why, size_t why_size)
{
	const struct claim_params *p = &c->p;
	struct lockd_params lp = {
		.env = p->env, .dev = p->dev, .hb_dev = p->hb_dev, .datastore = c->label,
		.slots_addr = c->super.slots_addr, .slot_count = c->super.slot_count,
		.timing = c->super.timing, .pid = p->pid, .pid_start = p->pid_start,
		.kill = p->kill, .kill_arg = p->kill_arg, .client = &client, .client_arg = c,
	};
	int err;

	memcpy(lp.volume, c->super.volume, 16);
	memcpy(lp.host_id, p->host_id, 16);
	memcpy(lp.boot_id, p->boot_id, 16);
	memcpy(lp.host_name, p->host_name, sizeof(lp.host_name));
	if (no_slot_is_believable(c)) {
		err = rebuild_slots(c);
		if (err)
			return err;
	}
	err = lockd_join(&lp, &c->lockd, why, why_size);
	__atomic_store_n(&c->joined, !err, __ATOMIC_RELEASE);
	return err;
}

static int write_mark(struct claim *c, bool mark)
{
	struct super s = c->super;
	int err;

	s.incompat = mark ? s.incompat | INCOMPAT_REPAIR : s.incompat & ~(uint64_t)INCOMPAT_REPAIR;
	s.version++;
	err = super_write(lockd_dev(c->lockd), &s);
	if (!err)
		c->super = s;
	return err;
}

/* To who does not know a feature its traces are damage: a repair would take them away. */
static int knows_features(const struct claim *c, char *why, size_t why_size)
{
	uint64_t unknown = (c->super.compat & ~(uint64_t)COMPAT_KNOWN) |
			   (c->super.ro_compat & ~(uint64_t)RO_COMPAT_KNOWN);

	return !unknown ? 0 :
	       text_refuse(-EPROTONOSUPPORT, why, why_size, "%s: the volume has features 0x%llx that "
			   "this version does not know: use a newer fsck.lunfs to repair it",
			   c->p.dev->info.name, (unsigned long long)unknown);
}

int claim_take(const struct claim_params *p, struct claim **out, char *why, size_t why_size)
{
	struct claim *c = calloc(1, sizeof(*c));
	bool marked;
	int err;

	if (!c)
		return -ENOMEM;
	c->p = *p;
	err = super_find(p->dev, &c->super, why, why_size);
	if (!err) {
		text_printable(c->super.label, LABEL_MAX, c->label, sizeof(c->label));
		if (!c->label[0])
			text_format_uuid(c->super.volume_id, c->label);
		err = knows_features(c, why, why_size);
	}
	if (!err)
		err = claim_join(c, why, why_size);
	if (err) {
		free(c);
		return err;
	}
	marked = c->super.incompat & INCOMPAT_REPAIR;
	why[0] = '\0';
	err = wait_alone(c, why, why_size);
	if (!err)
		err = write_mark(c, true);
	if (!err)
		err = wait_alone(c, why, why_size);
	if (err) {
		if (!why[0])
			snprintf(why, why_size, "%s: cannot be claimed: %s", p->dev->info.name,
				 strerror(-err));
		claim_release(c, !marked);
		return err;
	}
	*out = c;
	return 0;
}

struct blkdev *claim_dev(const struct claim *c)
{
	return lockd_dev(c->lockd);
}

uint32_t claim_slot(const struct claim *c)
{
	return lockd_slot(c->lockd);
}

int claim_release(struct claim *c, bool whole)
{
	bool marked = c->super.incompat & INCOMPAT_REPAIR;
	int err = lockd_lost(c->lockd) ? -ESTALE : 0, left;

	if (!err && whole && marked)
		err = write_mark(c, false);
	left = lockd_leave(c->lockd);
	free(c);
	return err ? err : left;
}
