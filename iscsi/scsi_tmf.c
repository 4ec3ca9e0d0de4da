// SPDX-License-Identifier: Apache-2.0
/*
 * Task management (SAM-5, 7): marks the commands that a function affects and answers when
 * those that had reached the device are gone (scsi_claim.c, invariant 3).
 */
#include "iscsi/scsi_internal.h"

static bool affects_task(const struct scsi_claim *c, void *arg)
{
	const struct scsi_tmf *tmf = arg;

	return c->cmd->nexus == tmf->nexus && c->cmd->tag == tmf->tag;
}

static bool affects_nexus(const struct scsi_claim *c, void *arg)
{
	const struct scsi_tmf *tmf = arg;

	return c->cmd->nexus == tmf->nexus;
}

static bool affects_all(const struct scsi_claim *c, void *arg)
{
	(void)c;
	(void)arg;
	return true;
}

/* ---- functions on one logical unit ---- */

static bool find_task(struct scsi_lun *lun, struct scsi_tmf *tmf,
		      bool (*affects)(const struct scsi_claim *c, void *arg))
{
	for (unsigned int i = 0; i < lun->shard_count; i++) {
		struct list *lists[] = { &lun->shards[i].begun, &lun->shards[i].blocked,
					 &lun->shards[i].running };
		struct scsi_claim *c, *tmp;

		for (unsigned int k = 0; k < ARRAY_SIZE(lists); k++)
			list_for_each(c, tmp, lists[k], node)
				if (affects(c, tmf))
					return true;
	}
	return false;
}

/* Others whose commands went away hear of it, unless each was answered TASK ABORTED. */
static void tell_cleared(struct scsi_lun *lun, const struct scsi_nexus *by)
{
	struct scsi_nexus *n, *tmp;

	if (lun->state.mode.tas)
		return;
	list_for_each(n, tmp, &lun->target->nexuses, node) {
		struct scsi_tmf probe = { .nexus = n };

		if (n != by && find_task(lun, &probe, affects_nexus))
			atomic_fetch_or(&n->itl[lun->number].ua, 1u << UA_COMMANDS_CLEARED);
	}
}

/* Return: as unit_abort(). */
static int abort_on(struct scsi_lun *lun, struct scsi_tmf *tmf, bool reset)
{
	struct scsi_target *t = lun->target;
	bool all = reset || tmf->fn == SCSI_TMF_CLEAR_TASK_SET;
	bool (*affects)(const struct scsi_claim *c, void *arg) = all ? affects_all : affects_nexus;
	int ret;

	if (tmf->fn == SCSI_TMF_ABORT_TASK)
		affects = affects_task;
	env_mutex_lock(t->env, &t->mutex);
	unit_lock(lun);
	if (all)
		tell_cleared(lun, tmf->nexus);
	ret = unit_abort(lun, affects, tmf, tmf->nexus, tmf->reactor, &tmf->call, &tmf->left);
	if (reset && ret != -EBUSY)
		unit_reset(lun);
	unit_unlock(lun);
	env_mutex_unlock(t->env, &t->mutex);
	return ret;
}

static void query(struct scsi_lun *lun, struct scsi_tmf *tmf)
{
	bool found;

	unit_lock(lun);
	found = find_task(lun, tmf, tmf->fn == SCSI_TMF_QUERY_TASK ? affects_task : affects_nexus);
	unit_unlock(lun);
	/* RFC 7144: "function succeeded" says that there is such a task. */
	tmf->response = found ? SCSI_TMF_SUCCEEDED : SCSI_TMF_COMPLETE;
}

/* ---- all units at once: one that hangs keeps no other from its reset ---- */

static bool is_target_wide(const struct scsi_tmf *tmf)
{
	return tmf->fn == SCSI_TMF_TARGET_WARM_RESET || tmf->fn == SCSI_TMF_TARGET_COLD_RESET ||
	       tmf->fn == SCSI_TMF_I_T_NEXUS_RESET;
}

static bool resets(const struct scsi_tmf *tmf)
{
	return tmf->fn == SCSI_TMF_LUN_RESET || tmf->fn == SCSI_TMF_TARGET_WARM_RESET ||
	       tmf->fn == SCSI_TMF_TARGET_COLD_RESET;
}

/* The next unit that the function concerns, or NULL. */
static struct scsi_lun *next_unit(struct scsi_tmf *tmf)
{
	struct scsi_target *t = tmf->nexus->target;

	if (!is_target_wide(tmf))
		return tmf->unit++ ? NULL : scsi_lun_find(t, tmf->lun);
	while (tmf->unit < SCSI_LUNS_MAX) {
		struct scsi_lun *lun = atomic_load(&t->luns[tmf->unit++]);

		if (lun)
			return lun;
	}
	return NULL;
}

static void all_gone(struct reactor_call *call)
{
	struct scsi_tmf *tmf = container_of(call, struct scsi_tmf, call);

	tmf->done(tmf);
}

static void advance_call(struct reactor_call *call);

/* tmf->left is one more than the units waited for until the last one has been asked. */
static void advance(struct scsi_tmf *tmf)
{
	struct scsi_lun *lun;

	while ((lun = next_unit(tmf)) != NULL) {
		tmf->call.fn = all_gone;
		if (abort_on(lun, tmf, resets(tmf)) != -EBUSY)
			continue;
		/* All watches in use: once more in the next round. */
		tmf->unit--;
		tmf->call.fn = advance_call;
		reactor_post(tmf->reactor, &tmf->call);
		return;
	}
	if (atomic_fetch_sub(&tmf->left, 1) == 1)
		tmf->done(tmf);
}

static void advance_call(struct reactor_call *call)
{
	advance(container_of(call, struct scsi_tmf, call));
}

void scsi_tmf(struct scsi_tmf *tmf)
{
	struct scsi_lun *lun = scsi_lun_find(tmf->nexus->target, tmf->lun);
	bool found = true;

	tmf->unit = 0;
	memset(&tmf->call, 0, sizeof(tmf->call));
	atomic_init(&tmf->left, 1);
	tmf->response = SCSI_TMF_COMPLETE;
	if (!is_target_wide(tmf) && !lun) {
		tmf->response = SCSI_TMF_NO_LUN;
		tmf->done(tmf);
		return;
	}
	switch (tmf->fn) {
	case SCSI_TMF_QUERY_TASK:
	case SCSI_TMF_QUERY_TASK_SET:
		query(lun, tmf);
		break;
	case SCSI_TMF_QUERY_ASYNC:
		tmf->response = atomic_load(&tmf->nexus->itl[lun->number].ua) ?
				SCSI_TMF_SUCCEEDED : SCSI_TMF_COMPLETE;
		break;
	case SCSI_TMF_ABORT_TASK:
		unit_lock(lun);
		found = find_task(lun, tmf, affects_task);
		unit_unlock(lun);
		if (found) {
			advance(tmf);
			return;
		}
		tmf->response = SCSI_TMF_NO_TASK;
		break;
	case SCSI_TMF_ABORT_TASK_SET:
	case SCSI_TMF_CLEAR_TASK_SET:
	case SCSI_TMF_LUN_RESET:
	case SCSI_TMF_TARGET_WARM_RESET:
	case SCSI_TMF_TARGET_COLD_RESET:
	case SCSI_TMF_I_T_NEXUS_RESET:
		advance(tmf);
		return;
	default:
		tmf->response = SCSI_TMF_UNSUPPORTED;
		break;
	}
	tmf->done(tmf);
}
