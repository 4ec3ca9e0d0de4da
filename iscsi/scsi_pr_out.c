// SPDX-License-Identifier: Apache-2.0
/*
 * PERSISTENT RESERVE OUT (SPC-5, 6.17): one at a time works on a draft, which is made durable
 * where APTPL asks for it, and put in force in one step (scsi_state.h).
 *
 * PREEMPT AND ABORT: in that step the victims' commands are marked too.  Those that had been
 * admitted are waited for; those that were not are checked against the new reservation.
 */
#include <stdio.h>
#include <stdlib.h>

#include "iscsi/scsi_pr.h"

enum pr_action {
	PR_REGISTER = 0, PR_RESERVE = 1, PR_RELEASE = 2, PR_CLEAR = 3, PR_PREEMPT = 4,
	PR_PREEMPT_ABORT = 5, PR_REGISTER_IGNORE = 6, PR_REGISTER_MOVE = 7,
};

/* What a change means for other nexuses; kept in cmd->own. */
struct pr_out {
	enum pr_action	action;
	const uint8_t	*list;
	uint32_t	len;
	uint64_t	key, action_key;
	uint8_t		type;
	bool		spec_i_pt, all_tg_pt, aptpl;
	bool		changed;	/* the draft differs from what is in force */
	unsigned int	removed;	/* registrations that PREEMPT took away */
	bool		released;	/* others that stay registered hear RESERVATIONS RELEASED */
};

static struct pr_out *pr_out(struct scsi_cmd *cmd)
{
	return cmd->own;
}

static enum pr_action action_of(const struct scsi_cmd *cmd)
{
	return (enum pr_action)(cmd->cdb[1] & 0x1f);
}

/* ---- the draft ---- */

static int add(struct scsi_pr *pr, const char *name, const uint8_t isid[6], uint16_t port,
	       bool all_ports, uint64_t key)
{
	struct scsi_pr_reg *r;

	if (pr->count == SCSI_PR_REGS_MAX)
		return -ENOSPC;
	r = &pr->regs[pr->count];
	memset(r, 0, sizeof(*r));
	snprintf(r->name, sizeof(r->name), "%s", name);
	memcpy(r->isid, isid, sizeof(r->isid));
	r->port = port;
	r->all_ports = all_ports;
	r->key = key;
	return pr->count++;
}

static void release(struct scsi_pr *pr, struct pr_out *p)
{
	/* Registrants-only and all-registrants: the others lose what they had. */
	if (pr->type >= PR_WRITE_EXCLUSIVE_RO)
		p->released = true;
	pr->type = PR_NONE;
	pr->holder = 0;
}

/* Registration @i goes; with the reservation, if it was the last one that held it. */
static void drop(struct scsi_pr *pr, int i, struct pr_out *p)
{
	bool last = pr_is_all_registrants(pr) ? pr->count == 1 : pr_holds(pr, i);

	if (pr->type && last)
		release(pr, p);
	pr->count--;
	memmove(&pr->regs[i], &pr->regs[i + 1], (pr->count - (size_t)i) * sizeof(pr->regs[0]));
	if (pr->type && !pr_is_all_registrants(pr) && pr->holder > i)
		pr->holder--;
	if (pr_is_all_registrants(pr))
		pr->holder = 0;
}

/* ---- REGISTER ---- */

/* Registers one port of another initiator, or all of its ports that are logged in. */
static int register_port(struct scsi_cmd *cmd, struct scsi_pr *pr, const struct pr_port *port)
{
	struct pr_out *p = pr_out(cmd);
	struct scsi_target *t = cmd->nexus->target;
	struct scsi_nexus *n, *tmp;
	int err = 0;

	if (!port->any_isid) {
		int i = pr_find(pr, port->name, port->isid, cmd->nexus->port);

		/* Whoever is registered already may not be taken over by this (SPC-5, 5.14.7). */
		return i >= 0 ? -EEXIST : add(pr, port->name, port->isid, cmd->nexus->port,
					      p->all_tg_pt, p->action_key);
	}
	env_mutex_lock(t->env, &t->mutex);
	list_for_each(n, tmp, &t->nexuses, node) {
		if (strcmp(n->name, port->name) || pr_find_nexus(pr, n) >= 0 || err < 0)
			continue;
		if (!p->all_tg_pt && n->port != cmd->nexus->port)
			continue;
		err = add(pr, n->name, n->isid, n->port, p->all_tg_pt, p->action_key);
	}
	env_mutex_unlock(t->env, &t->mutex);
	return err;
}

/* SPEC_I_PT: the initiator ports that the list names as well.  False: error set. */
static bool register_list(struct scsi_cmd *cmd, struct scsi_pr *pr)
{
	struct pr_out *p = pr_out(cmd);
	uint32_t off = 28, len;

	if (p->len < 28 || get_be32(p->list + 24) > p->len - 28) {
		scsi_sense(cmd, KEY_ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH);
		return false;
	}
	len = 28 + get_be32(p->list + 24);
	while (off < len) {
		struct pr_port port;
		int n = transport_id_decode(p->list + off, len - off, &port);

		if (n < 0) {
			scsi_bad_param(cmd, off, -1);
			return false;
		}
		off += (uint32_t)n;
		n = register_port(cmd, pr, &port);
		if (n == -ENOSPC) {
			scsi_sense(cmd, KEY_ILLEGAL_REQUEST, ASC_INSUFFICIENT_REGISTRATIONS);
			return false;
		}
		if (n < 0) {
			scsi_bad_param(cmd, off, -1);
			return false;
		}
	}
	return true;
}

/* With ALL_TG_PT one registration stands for every target port: others of ours give way. */
static void drop_other_ports(struct scsi_cmd *cmd, struct scsi_pr *pr, struct pr_out *p)
{
	for (int i = pr->count - 1; i >= 0; i--)
		if (!strcmp(pr->regs[i].name, cmd->nexus->name) &&
		    !memcmp(pr->regs[i].isid, cmd->nexus->isid, 6))
			drop(pr, i, p);
}

static void do_register(struct scsi_cmd *cmd, struct scsi_pr *pr, int me)
{
	struct pr_out *p = pr_out(cmd);
	bool ignore = p->action == PR_REGISTER_IGNORE;

	if (p->spec_i_pt && (ignore || me >= 0)) {
		scsi_bad_param(cmd, 20, 3);
		return;
	}
	if (!ignore && p->key != (me >= 0 ? pr->regs[me].key : 0)) {
		cmd->status = SCSI_RESERVATION_CONFLICT;
		return;
	}
	p->changed = true;
	if (me >= 0 && p->action_key) {
		pr->regs[me].key = p->action_key;
	} else if (me >= 0) {
		drop(pr, me, p);
	} else if (!p->action_key) {
		p->changed = false;	/* nothing to remove */
		return;
	} else {
		if (p->all_tg_pt)
			drop_other_ports(cmd, pr, p);
		me = add(pr, cmd->nexus->name, cmd->nexus->isid, cmd->nexus->port, p->all_tg_pt,
			 p->action_key);
		if (me < 0) {
			scsi_sense(cmd, KEY_ILLEGAL_REQUEST, ASC_INSUFFICIENT_REGISTRATIONS);
			return;
		}
		if (p->spec_i_pt && !register_list(cmd, pr))
			return;
	}
	pr->aptpl = p->aptpl;
	pr->generation++;
}

/* ---- RESERVE, RELEASE, CLEAR ---- */

static bool type_is_valid(uint8_t type)
{
	return type == PR_WRITE_EXCLUSIVE || type == PR_EXCLUSIVE_ACCESS ||
	       (type >= PR_WRITE_EXCLUSIVE_RO && type <= PR_EXCLUSIVE_ACCESS_AR);
}

static void do_reserve(struct scsi_cmd *cmd, struct scsi_pr *pr, int me)
{
	struct pr_out *p = pr_out(cmd);

	if (!type_is_valid(p->type)) {
		scsi_bad_field(cmd, 2, 3);
		return;
	}
	if (pr->type) {
		if (!pr_holds(pr, me) || pr->type != p->type)
			cmd->status = SCSI_RESERVATION_CONFLICT;
		return;
	}
	pr->type = p->type;
	pr->holder = pr_is_all_registrants(pr) ? 0 : (uint16_t)me;
	p->changed = true;
}

static void do_release(struct scsi_cmd *cmd, struct scsi_pr *pr, int me)
{
	struct pr_out *p = pr_out(cmd);

	if (!pr_holds(pr, me))
		return;
	if (pr->type != p->type) {
		scsi_sense(cmd, KEY_ILLEGAL_REQUEST, ASC_INVALID_RELEASE);
		return;
	}
	release(pr, p);
	p->changed = true;
}

static void do_clear(struct scsi_cmd *cmd, struct scsi_pr *pr, int me)
{
	(void)me;
	pr->type = PR_NONE;
	pr->holder = 0;
	pr->count = 0;
	pr->generation++;
	pr_out(cmd)->changed = true;
}

/* ---- PREEMPT ---- */

/* Removes the registrations with @key (all: any), but not @me; returns how many. */
static unsigned int remove_key(struct scsi_pr *pr, const struct scsi_nexus *me, uint64_t key,
			       bool all)
{
	unsigned int removed = 0;

	for (int i = pr->count - 1; i >= 0; i--) {
		if (i == pr_find_nexus(pr, me) || (!all && pr->regs[i].key != key))
			continue;
		pr->count--;
		memmove(&pr->regs[i], &pr->regs[i + 1],
			(pr->count - (size_t)i) * sizeof(pr->regs[0]));
		if (!pr_is_all_registrants(pr) && pr->type && pr->holder > i)
			pr->holder--;
		removed++;
	}
	return removed;
}

static void do_preempt(struct scsi_cmd *cmd, struct scsi_pr *pr, int me)
{
	struct pr_out *p = pr_out(cmd);
	bool all = pr->type && pr_is_all_registrants(pr) && !p->action_key;
	bool takes = all || (pr->type && !pr_is_all_registrants(pr) &&
			     pr->regs[pr->holder].key == p->action_key);
	uint8_t old_type = pr->type;
	unsigned int removed;

	(void)me;
	if (!p->action_key && !all) {
		scsi_bad_param(cmd, 8, -1);
		return;
	}
	if (takes && !type_is_valid(p->type)) {
		scsi_bad_field(cmd, 2, 3);
		return;
	}
	if (takes)
		pr->type = PR_NONE;	/* whose holder goes, perhaps ourselves */
	removed = remove_key(pr, cmd->nexus, p->action_key, all);
	if (!removed && !takes) {
		cmd->status = SCSI_RESERVATION_CONFLICT;
		return;
	}
	if (takes) {
		pr->type = p->type;
		pr->holder = pr_is_all_registrants(pr) ? 0 :
			     (uint16_t)pr_find_nexus(pr, cmd->nexus);
		p->released = old_type != p->type && old_type >= PR_WRITE_EXCLUSIVE_RO;
	}
	pr->generation++;
	p->removed = removed;
	p->changed = true;
}

/* ---- REGISTER AND MOVE ---- */

static void do_move(struct scsi_cmd *cmd, struct scsi_pr *pr, int me)
{
	struct pr_out *p = pr_out(cmd);
	uint16_t target_port = get_be16(p->list + 18);
	struct pr_port port;
	uint8_t type = pr->type;
	int to, n;

	if (!pr->type) {
		scsi_bad_field(cmd, 1, 4);
		return;
	}
	if (!pr_holds(pr, me) || pr_is_all_registrants(pr)) {
		cmd->status = SCSI_RESERVATION_CONFLICT;
		return;
	}
	if (!p->action_key) {
		scsi_bad_param(cmd, 8, -1);
		return;
	}
	n = transport_id_decode(p->list + 24, p->len - 24, &port);
	if (n < 0 || port.any_isid || get_be32(p->list + 20) != p->len - 24) {
		scsi_bad_param(cmd, 24, -1);
		return;
	}
	to = pr_find(pr, port.name, port.isid, target_port);
	if (to == me) {
		scsi_bad_param(cmd, 24, -1);
		return;
	}
	if (to < 0)
		to = add(pr, port.name, port.isid, target_port, false, p->action_key);
	if (to < 0) {
		scsi_sense(cmd, KEY_ILLEGAL_REQUEST, ASC_INSUFFICIENT_REGISTRATIONS);
		return;
	}
	pr->regs[to].key = p->action_key;
	pr->holder = (uint16_t)to;
	if (p->list[17] & 0x02)		/* UNREG */
		drop(pr, me, p);
	assert(pr->type == type);
	pr->aptpl = p->aptpl;
	pr->generation++;
	p->changed = true;
}

/* ---- putting it in force ---- */

static bool is_victim(const struct scsi_claim *c, void *arg)
{
	const struct scsi_itl *itl = &c->cmd->nexus->itl[*(unsigned int *)arg];

	return itl->preempted;
}

/* Who hears what, and whose commands end.  target->mutex and unit_lock() held. */
static void tell(struct scsi_cmd *cmd)
{
	const struct scsi_pr *was = &cmd->unit->state.pr, *is = &cmd->unit->next.pr;
	struct scsi_nexus *n, *tmp;
	struct pr_out *p = pr_out(cmd);

	list_for_each(n, tmp, &cmd->nexus->target->nexuses, node) {
		struct scsi_itl *itl = &n->itl[cmd->unit->number];
		bool had = pr_find_nexus(was, n) >= 0, has = pr_find_nexus(is, n) >= 0;

		itl->preempted = false;
		if (n == cmd->nexus || !had)
			continue;
		if (p->action == PR_CLEAR) {
			atomic_fetch_or(&itl->ua, 1u << UA_RESERVATIONS_PREEMPTED);
		} else if (!has && (p->action == PR_PREEMPT || p->action == PR_PREEMPT_ABORT)) {
			atomic_fetch_or(&itl->ua, 1u << UA_REGISTRATIONS_PREEMPTED);
			itl->preempted = p->action == PR_PREEMPT_ABORT;
		} else if (has && p->released) {
			atomic_fetch_or(&itl->ua, 1u << UA_RESERVATIONS_RELEASED);
		}
	}
}

static void victims_gone(struct scsi_cmd *cmd, int err)
{
	(void)err;
	scsi_finish(cmd);
}

static void abort_victims(struct scsi_cmd *cmd, int err);

static void victims_gone_call(struct reactor_call *call)
{
	victims_gone(container_of(call, struct scsi_cmd, call), 0);
}

/* target->mutex and unit_lock() held.  Return: as unit_abort(). */
static int mark_victims(struct scsi_cmd *cmd)
{
	cmd->call.fn = victims_gone_call;
	return unit_abort(cmd->unit, is_victim, &cmd->unit->number, cmd->nexus, cmd->reactor,
			  &cmd->call, NULL);
}

/* Every watch was in use when the reservation changed: the victims are still marked. */
static void abort_victims(struct scsi_cmd *cmd, int err)
{
	struct scsi_target *t = cmd->nexus->target;
	int ret;

	(void)err;
	env_mutex_lock(t->env, &t->mutex);
	unit_lock(cmd->unit);
	ret = mark_victims(cmd);
	unit_unlock(cmd->unit);
	env_mutex_unlock(t->env, &t->mutex);
	if (ret == -EBUSY)
		scsi_post(cmd, abort_victims, 0);
	else if (ret == -ENOENT)
		scsi_finish(cmd);
}

static void install(struct scsi_cmd *cmd, int err)
{
	struct scsi_lun *lun = cmd->unit;
	struct scsi_target *t = lun->target;
	int ret = -ENOENT;

	if (err) {
		state_release(lun);
		scsi_sense(cmd, KEY_HARDWARE_ERROR, ASC_INTERNAL_FAILURE);
		scsi_finish(cmd);
		return;
	}
	env_mutex_lock(t->env, &t->mutex);
	unit_lock(lun);
	tell(cmd);
	lun->state.pr = lun->next.pr;
	unit_refresh_denials(lun);
	if (pr_out(cmd)->action == PR_PREEMPT_ABORT)
		ret = mark_victims(cmd);
	unit_unlock(lun);
	env_mutex_unlock(t->env, &t->mutex);
	state_release(lun);
	if (pr_out(cmd)->removed)
		log_info(t->env, cmd->nexus->name, "%s, LUN %u: preempts key 0x%llx: %u registrations "
			 "are gone", t->iqn, lun->number, (unsigned long long)
			 pr_out(cmd)->action_key, pr_out(cmd)->removed);
	if (ret == -EBUSY)
		scsi_post(cmd, abort_victims, 0);
	else if (ret == -ENOENT)
		scsi_finish(cmd);
}

/* ---- the command ---- */

bool pr_out_begin(struct scsi_cmd *cmd)
{
	uint32_t len = get_be32(cmd->cdb + 5);

	if (action_of(cmd) >= PR_RESERVE && action_of(cmd) <= PR_PREEMPT_ABORT &&
	    (cmd->cdb[2] & 0xf0))
		return scsi_bad_field(cmd, 2, 7);	/* SCOPE: the logical unit, nothing else */
	if (len < 24 || len > SCSI_PARAM_LEN_MAX || len > cmd->expected_out) {
		scsi_sense(cmd, KEY_ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH);
		return false;
	}
	scsi_want_out(cmd, len);
	return true;
}

/* False: error set. */
static bool decode(struct scsi_cmd *cmd, const uint8_t *list)
{
	struct pr_out *p = pr_out(cmd);
	bool registers;

	p->action = action_of(cmd);
	p->list = list;
	p->len = cmd->out_len;
	p->key = get_be64(list);
	p->action_key = get_be64(list + 8);
	p->type = cmd->cdb[2] & 0x0f;
	registers = p->action == PR_REGISTER || p->action == PR_REGISTER_IGNORE;
	p->spec_i_pt = registers && (list[20] & 0x08);
	p->all_tg_pt = registers && (list[20] & 0x04);
	p->aptpl = registers ? list[20] & 0x01 :
		   p->action == PR_REGISTER_MOVE && (list[17] & 0x01);
	if (p->aptpl && cmd->unit->config.state_fd < 0) {
		scsi_bad_param(cmd, registers ? 20 : 17, 0);
		return false;
	}
	if (p->action != PR_REGISTER_MOVE && !p->spec_i_pt && p->len != 24) {
		scsi_sense(cmd, KEY_ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH);
		return false;
	}
	return true;
}

static void my_turn(struct scsi_cmd *cmd, int err)
{
	static void (*const actions[])(struct scsi_cmd *cmd, struct scsi_pr *pr, int me) = {
		[PR_REGISTER] = do_register, [PR_RESERVE] = do_reserve,
		[PR_RELEASE] = do_release, [PR_CLEAR] = do_clear,
		[PR_PREEMPT] = do_preempt, [PR_PREEMPT_ABORT] = do_preempt,
		[PR_REGISTER_IGNORE] = do_register, [PR_REGISTER_MOVE] = do_move,
	};
	struct scsi_lun *lun = cmd->unit;
	struct pr_out *p = pr_out(cmd);
	struct scsi_pr *pr = &lun->next.pr;
	int me = pr_find_nexus(pr, cmd->nexus);
	bool registers = p->action == PR_REGISTER || p->action == PR_REGISTER_IGNORE;

	(void)err;
	/* All others want the key of a registration of ours. */
	if (!registers && (me < 0 || pr->regs[me].key != p->key))
		cmd->status = SCSI_RESERVATION_CONFLICT;
	else
		actions[p->action](cmd, pr, me);
	if (cmd->status != SCSI_GOOD || !p->changed) {
		state_release(lun);
		scsi_finish(cmd);
		return;
	}
	state_commit(cmd, lun->state.pr.aptpl || pr->aptpl, install);
}

void pr_out_run(struct scsi_cmd *cmd)
{
	const uint8_t *list = scsi_params(cmd, 24);

	cmd->own = list ? calloc(1, sizeof(struct pr_out)) : NULL;
	if (list && !cmd->own)
		scsi_fail_err(cmd, -ENOMEM);
	if (!cmd->own || !decode(cmd, list)) {
		scsi_finish(cmd);
		return;
	}
	state_change(cmd, my_turn);
}
