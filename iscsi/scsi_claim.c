// SPDX-License-Identifier: Apache-2.0
/*
 * Who may execute when: the one place where a command passes from "asked for" to "may reach
 * the device", and back.
 *
 *   begin ──► BEGUN ──run──► (checks) ──► RUNNING ──► claim_leave(), done()
 *                │               │ blocks of an exclusive claim
 *                │               ▼
 *                │            BLOCKED ──the exclusive one left──► (checks again)
 *                └── marked aborted: ends when it is run
 *
 * Invariants:
 * 1. Checks (reservations, state of the unit, exclusive claims) and entry into the running
 *    list happen under one hold of the shard's mutex; whatever changes what is checked holds
 *    all shards' mutexes.  So after a change every running command was admitted before it and
 *    is seen in the lists, and every later one is checked against the new state.
 * 2. An exclusive claim is on the unit's list before it looks for running claims on its
 *    blocks: whoever is not found there is blocked by it.  It starts when those are gone.
 *    Hence COMPARE AND WRITE is atomic against every write to its blocks.
 * 3. A claim leaves only when the device has answered all that was sent for it.  Whoever
 *    aborts (task management, PREEMPT AND ABORT) marks claims and waits for the running
 *    ones to leave: nothing of them can land later.
 */
#include "iscsi/scsi_internal.h"

#define CONFLICT_LOG_NS	(10 * NSEC_PER_SEC)

/* ---- locks ---- */

void unit_lock(struct scsi_lun *lun)
{
	struct env *env = lun->target->env;

	env_mutex_lock(env, &lun->mutex);
	for (unsigned int i = 0; i < lun->shard_count; i++)
		env_mutex_lock(env, &lun->shards[i].mutex);
}

void unit_unlock(struct scsi_lun *lun)
{
	struct env *env = lun->target->env;

	for (unsigned int i = lun->shard_count; i-- > 0;)
		env_mutex_unlock(env, &lun->shards[i].mutex);
	env_mutex_unlock(env, &lun->mutex);
}

/* ---- checks ---- */

bool lun_is_write_protected(const struct scsi_lun *lun)
{
	return lun->config.read_only || lun->state.mode.swp;
}

static bool is_denied(const struct scsi_cmd *cmd)
{
	uint32_t flags = cmd->op->flags;
	uint8_t deny = scsi_itl(cmd)->deny;

	if (!deny)
		return false;
	return ((deny & DENY_ALL) && !(flags & OP_RESERVED_OK)) ||
	       ((deny & DENY_READ) && (flags & OP_READS)) ||
	       ((deny & DENY_WRITE) && (flags & OP_WRITES));
}

/* False: the unit is sanitizing, or could not be sanitized (SBC-4, 4.11). */
static bool admit_sanitize(struct scsi_cmd *cmd)
{
	const struct scsi_sanitize_state *s = &cmd->unit->state.sanitize;
	uint32_t flags = cmd->op->flags;

	if (s->method == SANITIZE_NONE)
		return true;
	if (!s->failed && !(flags & OP_SANITIZE_OK)) {
		scsi_sense_progress(cmd, KEY_NOT_READY, ASC_SANITIZE_IN_PROGRESS,
				    (uint16_t)atomic_load(&cmd->unit->sanitize_progress));
		return false;
	}
	if (s->failed && !(flags & (OP_SANITIZE_OK | OP_SANITIZE_FAILED_OK))) {
		scsi_sense(cmd, KEY_MEDIUM_ERROR, ASC_SANITIZE_FAILED);
		return false;
	}
	return true;
}

bool claim_admit(struct scsi_cmd *cmd)
{
	const struct scsi_lun *lun = cmd->unit;
	uint32_t flags = cmd->op->flags;

	if (lun->removed) {
		scsi_sense(cmd, KEY_ILLEGAL_REQUEST, ASC_NO_LOGICAL_UNIT);
		return false;
	}
	if (is_denied(cmd)) {
		cmd->status = SCSI_RESERVATION_CONFLICT;
		return false;
	}
	if (!admit_sanitize(cmd))
		return false;
	if ((flags & OP_MEDIUM) && lun->ejected) {
		scsi_sense(cmd, KEY_NOT_READY, ASC_NO_MEDIUM);
		return false;
	}
	if ((flags & OP_PROTECTED) && lun_is_write_protected(lun)) {
		scsi_sense(cmd, KEY_DATA_PROTECT, ASC_WRITE_PROTECTED);
		return false;
	}
	return true;
}

/* That fencing has struck is news to an administrator, but a host that goes on trying is not. */
static void log_conflict(const struct scsi_cmd *cmd)
{
	const struct scsi_lun *lun = cmd->unit;
	struct env *env = lun->target->env;
	struct scsi_itl *itl = scsi_itl(cmd);
	uint64_t now, next;

	/* Of no blocks it is a question: is there such a command? */
	if (cmd->status != SCSI_RESERVATION_CONFLICT ||
	    (!cmd->out_len && cmd->claim.lba == cmd->claim.end))
		return;
	now = env_now_ns(env);
	next = atomic_load(&itl->conflict_log_ns);
	if (now < next ||
	    !atomic_compare_exchange_strong(&itl->conflict_log_ns, &next, now + CONFLICT_LOG_NS))
		return;
	log_info(env, cmd->nexus->name, "%s, LUN %u: RESERVATION CONFLICT: %s is refused%s",
		 lun->target->iqn, lun->number, cmd->op->name,
		 itl->registered ? "" : "; it has no registration");
}

static bool overlap(const struct scsi_claim *a, const struct scsi_claim *b)
{
	return a->lba < b->end && b->lba < a->end;
}

/* Whether @a and @b, one of them exclusive, must not run together. */
static bool excludes(const struct scsi_claim *exclusive, const struct scsi_claim *other)
{
	return exclusive != other && overlap(exclusive, other) &&
	       (other->writes || exclusive->exclusive_reads || other->exclusive);
}

static bool is_blocked(const struct scsi_lun *lun, const struct scsi_claim *claim)
{
	const struct scsi_claim *c, *tmp;

	if (!lun->exclusive_count)
		return false;
	list_for_each(c, tmp, &lun->exclusive, exclusive_node)
		if (excludes(c, claim))
			return true;
	return false;
}

/* ---- entering ---- */

static void enter(struct scsi_claim *c, uint8_t state, struct list *list)
{
	list_del(&c->node);
	c->state = state;
	list_add_tail(list, &c->node);
}

enum entry { ENTRY_REFUSED, ENTRY_BLOCKED, ENTRY_WAITS, ENTRY_RUNS };

static int watch_get(struct scsi_lun *lun)
{
	for (int i = 0; i < SCSI_WATCHES; i++)
		if (!lun->watches[i].used)
			return i;
	return -EBUSY;
}

/* The running claims in the way of @mine are waited for.  unit_lock() held. */
static enum entry wait_for_running(struct scsi_lun *lun, struct scsi_claim *mine)
{
	struct scsi_claim *c, *tmp;
	int slot = watch_get(lun);
	struct scsi_watch *w;

	if (slot < 0)
		return ENTRY_REFUSED;
	w = &lun->watches[slot];
	w->count = 0;
	for (unsigned int i = 0; i < lun->shard_count; i++) {
		list_for_each(c, tmp, &lun->shards[i].running, node) {
			if (!excludes(mine, c))
				continue;
			c->watch |= 1ULL << slot;
			w->count++;
		}
	}
	if (!w->count)
		return ENTRY_RUNS;
	w->used = true;
	w->reactor = mine->cmd->reactor;
	w->call = &mine->cmd->call;
	w->left = NULL;
	return ENTRY_WAITS;
}

/* unit_lock() held, and the command admitted. */
static enum entry enter_exclusive(struct scsi_claim *c)
{
	struct scsi_shard *shard = c->shard;
	struct scsi_lun *lun = shard->lun;
	enum entry entry;

	if (is_blocked(lun, c)) {
		enter(c, CLAIM_BLOCKED, &shard->blocked);
		return ENTRY_BLOCKED;
	}
	entry = wait_for_running(lun, c);
	if (entry == ENTRY_REFUSED) {
		c->cmd->status = SCSI_TASK_SET_FULL;
		return entry;
	}
	list_add_tail(&lun->exclusive, &c->exclusive_node);
	lun->exclusive_count++;
	enter(c, CLAIM_RUNNING, &shard->running);
	return entry;
}

static enum entry enter_shared(struct scsi_claim *c)
{
	struct scsi_shard *shard = c->shard;

	if (is_blocked(shard->lun, c)) {
		enter(c, CLAIM_BLOCKED, &shard->blocked);
		return ENTRY_BLOCKED;
	}
	enter(c, CLAIM_RUNNING, &shard->running);
	return ENTRY_RUNS;
}

static enum entry try_enter(struct scsi_claim *c)
{
	struct scsi_shard *shard = c->shard;
	struct scsi_lun *lun = shard->lun;
	struct env *env = lun->target->env;
	enum entry entry = ENTRY_REFUSED;

	if (c->exclusive)
		unit_lock(lun);
	else
		env_mutex_lock(env, &shard->mutex);
	if (!c->aborted && claim_admit(c->cmd))
		entry = c->exclusive ? enter_exclusive(c) : enter_shared(c);
	if (c->exclusive)
		unit_unlock(lun);
	else
		env_mutex_unlock(env, &shard->mutex);
	return entry;
}

static void go(struct scsi_cmd *cmd)
{
	/* Marked while it waited for its turn: the device has nothing of it. */
	if (scsi_was_aborted(cmd))
		scsi_finish(cmd);
	else
		cmd->op->run(cmd);
}

static void go_called(struct reactor_call *call)
{
	go(container_of(call, struct scsi_cmd, call));
}

bool claim_begin(struct scsi_cmd *cmd)
{
	struct env *env = cmd->unit->target->env;
	struct scsi_claim *c = &cmd->claim;
	bool ok;

	env_mutex_lock(env, &c->shard->mutex);
	ok = claim_admit(cmd);
	if (ok)
		enter(c, CLAIM_BEGUN, &c->shard->begun);
	env_mutex_unlock(env, &c->shard->mutex);
	if (!ok)
		log_conflict(cmd);
	return ok;
}

void claim_run(struct scsi_cmd *cmd)
{
	enum entry entry;

	/* Before it can be watched, or woken up. */
	cmd->call.fn = go_called;
	entry = try_enter(&cmd->claim);
	if (entry == ENTRY_REFUSED) {
		log_conflict(cmd);
		scsi_finish(cmd);
	} else if (entry == ENTRY_RUNS) {
		cmd->op->run(cmd);
	}
}

void claim_extend(struct scsi_cmd *cmd, uint64_t lba, uint64_t end)
{
	struct env *env = cmd->unit->target->env;
	struct scsi_claim *c = &cmd->claim;
	struct scsi_shard *shard = c->shard;
	bool blocked, aborted;

	assert(c->state == CLAIM_RUNNING && c->lba == c->end && !c->exclusive);
	env_mutex_lock(env, &shard->mutex);
	c->lba = lba;
	c->end = end;
	c->writes = true;
	aborted = c->aborted;
	blocked = !aborted && is_blocked(cmd->unit, c);
	if (blocked)
		enter(c, CLAIM_BLOCKED, &shard->blocked);
	env_mutex_unlock(env, &shard->mutex);
	if (aborted)
		scsi_finish(cmd);
	else if (!blocked)
		cmd->op->run(cmd);
}

/*
 * Blocked ones of a shard try again, in the order in which they came.  Each stays on its list
 * until it is decided: whoever aborts finds it there.
 */
void shard_wake(struct reactor_call *call)
{
	struct scsi_shard *shard = container_of(call, struct scsi_shard, wake);
	struct env *env = shard->lun->target->env;
	struct scsi_claim *c, *tmp;
	unsigned int count = 0;

	env_mutex_lock(env, &shard->mutex);
	list_for_each(c, tmp, &shard->blocked, node)
		count++;
	env_mutex_unlock(env, &shard->mutex);
	while (count--) {
		env_mutex_lock(env, &shard->mutex);
		c = list_empty(&shard->blocked) ? NULL :
		    list_first(&shard->blocked, struct scsi_claim, node);
		env_mutex_unlock(env, &shard->mutex);
		if (!c)
			return;
		claim_run(c->cmd);
	}
}

static void wake_blocked(struct scsi_lun *lun)
{
	for (unsigned int i = 0; i < lun->shard_count; i++) {
		struct scsi_shard *shard = &lun->shards[i];

		if (!list_empty(&shard->blocked))
			reactor_post(shard->reactor, &shard->wake);
	}
}

/* ---- leaving ---- */

uint64_t claim_leave(struct scsi_claim *c)
{
	struct scsi_shard *shard = c->shard;
	struct scsi_lun *lun = shard->lun;
	struct env *env = lun->target->env;
	uint64_t watches;

	if (c->exclusive && c->state == CLAIM_RUNNING) {
		unit_lock(lun);
		list_del(&c->exclusive_node);
		lun->exclusive_count--;
	} else {
		env_mutex_lock(env, &shard->mutex);
	}
	list_del(&c->node);
	watches = c->watch;
	c->watch = 0;
	if (c->exclusive && c->state == CLAIM_RUNNING) {
		wake_blocked(lun);
		c->state = CLAIM_NONE;
		unit_unlock(lun);
	} else {
		c->state = CLAIM_NONE;
		env_mutex_unlock(env, &shard->mutex);
	}
	return watches;
}

void claim_notify(struct scsi_lun *lun, uint64_t watches)
{
	unit_lock(lun);
	for (unsigned int i = 0; i < SCSI_WATCHES; i++) {
		struct scsi_watch *w = &lun->watches[i];

		if (!(watches & 1ULL << i) || --w->count)
			continue;
		w->used = false;
		if (!w->left || atomic_fetch_sub(w->left, 1) == 1)
			reactor_post(w->reactor, w->call);
	}
	unit_unlock(lun);
}

void claim_cancel(struct scsi_cmd *cmd)
{
	struct scsi_lun *lun = cmd->unit;
	uint64_t watches;

	assert(cmd->claim.state == CLAIM_BEGUN);
	watches = claim_leave(&cmd->claim);
	if (watches)
		claim_notify(lun, watches);
}

bool scsi_was_aborted(struct scsi_cmd *cmd)
{
	struct env *env = cmd->unit->target->env;
	bool aborted;

	env_mutex_lock(env, &cmd->claim.shard->mutex);
	aborted = cmd->claim.aborted;
	env_mutex_unlock(env, &cmd->claim.shard->mutex);
	return aborted;
}

/* ---- aborts ---- */

static void mark(struct list *list, bool (*affects)(const struct scsi_claim *c, void *arg),
		 void *arg, const struct scsi_nexus *by, struct scsi_watch *w, uint64_t bit)
{
	struct scsi_claim *c, *tmp;

	list_for_each(c, tmp, list, node) {
		if (!affects(c, arg))
			continue;
		if (!c->aborted) {
			c->aborted = true;
			c->aborted_by_other = c->cmd->nexus != by;
		}
		if (bit) {
			c->watch |= bit;
			w->count++;
		}
	}
}

void unit_mark(struct scsi_lun *lun, bool (*affects)(const struct scsi_claim *c, void *arg),
	       void *arg, const struct scsi_nexus *by)
{
	for (unsigned int i = 0; i < lun->shard_count; i++) {
		struct scsi_shard *shard = &lun->shards[i];

		mark(&shard->begun, affects, arg, by, NULL, 0);
		mark(&shard->blocked, affects, arg, by, NULL, 0);
		mark(&shard->running, affects, arg, by, NULL, 0);
	}
	wake_blocked(lun);
}

int unit_abort(struct scsi_lun *lun, bool (*affects)(const struct scsi_claim *c, void *arg),
	       void *arg, const struct scsi_nexus *by, struct reactor *reactor,
	       struct reactor_call *call, atomic_uint *left)
{
	int slot = watch_get(lun);
	struct scsi_watch *w;

	if (slot < 0)
		return -EBUSY;
	w = &lun->watches[slot];
	w->count = 0;
	for (unsigned int i = 0; i < lun->shard_count; i++) {
		struct scsi_shard *shard = &lun->shards[i];

		mark(&shard->begun, affects, arg, by, w, 0);
		/* Blocked ones end at once; they are waited for so that done() comes before. */
		mark(&shard->blocked, affects, arg, by, w, 1ULL << slot);
		mark(&shard->running, affects, arg, by, w, 1ULL << slot);
	}
	wake_blocked(lun);
	if (!w->count)
		return -ENOENT;
	w->used = true;
	w->reactor = reactor;
	w->call = call;
	w->left = left;
	if (left)
		atomic_fetch_add(left, 1);
	return slot;
}
