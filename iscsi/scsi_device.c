// SPDX-License-Identifier: Apache-2.0
/*
 * TEST UNIT READY, REQUEST SENSE, REPORT LUNS, START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL,
 * RESERVE and RELEASE, REPORT TARGET PORT GROUPS (SPC-5, SBC-4; SPC-2 for RESERVE).
 */
#include "iscsi/scsi_internal.h"

void test_ready_run(struct scsi_cmd *cmd)
{
	scsi_finish(cmd);	/* what could be said against it, claim_admit() has said */
}

/* ---- REQUEST SENSE ---- */

bool request_sense_begin(struct scsi_cmd *cmd)
{
	scsi_want_reply(cmd, cmd->cdb[4]);
	return true;
}

/* What is to be reported, as the data of a command that succeeds. */
static unsigned int pollable_sense(struct scsi_cmd *cmd, uint8_t *d)
{
	bool desc = cmd->cdb[1] & 0x01;
	struct scsi_lun *lun = cmd->unit;
	uint8_t sks[3] = { 0x80 };
	bool sanitizing, ejected;
	uint16_t ua;

	if (!lun)
		return scsi_sense_make(d, desc, KEY_ILLEGAL_REQUEST, ASC_NO_LOGICAL_UNIT, NULL, NULL);
	ua = scsi_ua_take(scsi_itl(cmd));
	if (ua)
		return scsi_sense_make(d, desc, KEY_UNIT_ATTENTION, (enum scsi_asc)ua, NULL, NULL);
	unit_lock(lun);
	sanitizing = lun->state.sanitize.method != SANITIZE_NONE && !lun->state.sanitize.failed;
	put_be16(sks + 1, atomic_load(&lun->sanitize_progress));
	ejected = lun->ejected;
	unit_unlock(lun);
	if (sanitizing)
		return scsi_sense_make(d, desc, KEY_NOT_READY, ASC_SANITIZE_IN_PROGRESS, NULL, sks);
	if (ejected)
		return scsi_sense_make(d, desc, KEY_NOT_READY, ASC_NO_MEDIUM, NULL, NULL);
	return scsi_sense_make(d, desc, KEY_NO_SENSE, ASC_NONE, NULL, NULL);
}

void request_sense_run(struct scsi_cmd *cmd)
{
	uint8_t d[SCSI_SENSE_MAX];
	unsigned int len = pollable_sense(cmd, d);

	scsi_reply(cmd, d, len, cmd->cdb[4]);
	scsi_finish(cmd);
}

/* ---- REPORT LUNS ---- */

bool report_luns_begin(struct scsi_cmd *cmd)
{
	uint32_t alloc = get_be32(cmd->cdb + 6);

	/* Logical units; well-known ones, of which there are none; all. */
	if (cmd->cdb[2] > 2)
		return scsi_bad_field(cmd, 2, -1);
	if (alloc < 16)
		return scsi_bad_field(cmd, 6, -1);
	scsi_want_reply(cmd, alloc);
	return true;
}

void report_luns_run(struct scsi_cmd *cmd)
{
	const struct scsi_target *t = cmd->nexus->target;
	uint8_t d[8 + 8 * SCSI_LUNS_MAX] = { 0 };
	unsigned int count = 0;

	for (unsigned int i = 0; i < SCSI_LUNS_MAX && cmd->cdb[2] != 1; i++) {
		if (!atomic_load(&t->luns[i]))
			continue;
		d[8 + 8 * count + 1] = (uint8_t)i;	/* peripheral device addressing */
		count++;
	}
	/* Who has read the list knows of its changes. */
	for (unsigned int i = 0; i < SCSI_LUNS_MAX; i++)
		atomic_fetch_and(&cmd->nexus->itl[i].ua, ~(1u << UA_LUNS));
	put_be32(d, 8 * count);
	scsi_reply(cmd, d, 8 + 8 * count, get_be32(cmd->cdb + 6));
	scsi_finish(cmd);
}

/* ---- START STOP UNIT ---- */

bool start_stop_begin(struct scsi_cmd *cmd)
{
	const uint8_t *cdb = cmd->cdb;

	/* LOEJ without removable medium. */
	if (!(cdb[4] >> 4) && (cdb[4] & 0x02) && !cmd->unit->config.removable)
		return scsi_bad_field(cmd, 4, 1);
	return true;
}

/* unit_lock() and the target's mutex held. */
static bool removal_is_prevented(const struct scsi_lun *lun)
{
	struct scsi_nexus *n, *tmp;

	list_for_each(n, tmp, &lun->target->nexuses, node)
		if (n->itl[lun->number].prevent)
			return true;
	return false;
}

static void load_or_eject(struct scsi_cmd *cmd, bool load)
{
	struct scsi_lun *lun = cmd->unit;

	/* Neither out nor in (SBC-4, 5.35). */
	if (removal_is_prevented(lun)) {
		scsi_sense(cmd, KEY_ILLEGAL_REQUEST, ASC_MEDIUM_REMOVAL_PREVENTED);
		return;
	}
	if (load && lun->ejected)
		scsi_ua_raise(lun, UA_MEDIUM, cmd->nexus);
	lun->ejected = !load;
}

static void started(struct scsi_cmd *cmd, int err)
{
	scsi_finish_err(cmd, err);
}

/* A reservation lets others start the unit, not stop it. */
static bool may_stop(const struct scsi_cmd *cmd)
{
	return !(scsi_itl(cmd)->deny & DENY_WRITE);
}

void start_stop_run(struct scsi_cmd *cmd)
{
	struct scsi_target *t = cmd->nexus->target;
	struct scsi_lun *lun = cmd->unit;
	uint8_t bits = cmd->cdb[4];
	bool start = bits & 0x01, flush = false;

	env_mutex_lock(t->env, &t->mutex);
	unit_lock(lun);
	if (!may_stop(cmd) && !(start && !(bits >> 4))) {
		cmd->status = SCSI_RESERVATION_CONFLICT;
	} else if (bits >> 4) {
		;	/* power conditions: nothing to turn off */
	} else {
		if (bits & 0x02)
			load_or_eject(cmd, start);
		/*
		 * What is stopped may be taken away: the cache is written back (SBC-4, 5.35).
		 * Nothing turns, so that it is ready again at once.
		 */
		flush = !start && !(bits & 0x04) && cmd->status == SCSI_GOOD;
	}
	unit_unlock(lun);
	env_mutex_unlock(t->env, &t->mutex);
	if (!flush) {
		scsi_finish(cmd);
		return;
	}
	cmd->io = (struct blk_io){ .op = BLK_FLUSH };
	scsi_submit(cmd, started);
}

/* ---- PREVENT ALLOW MEDIUM REMOVAL ---- */

bool prevent_allow_begin(struct scsi_cmd *cmd)
{
	if ((cmd->cdb[4] & 0x03) > 1)
		return scsi_bad_field(cmd, 4, 1);
	return true;
}

void prevent_allow_run(struct scsi_cmd *cmd)
{
	unit_lock(cmd->unit);
	if ((cmd->cdb[4] & 0x01) && (scsi_itl(cmd)->deny & DENY_WRITE))
		cmd->status = SCSI_RESERVATION_CONFLICT;
	else
		scsi_itl(cmd)->prevent = cmd->cdb[4] & 0x01;
	unit_unlock(cmd->unit);
	scsi_finish(cmd);
}

/* ---- RESERVE, RELEASE ---- */

/*
 * SPC-2 reservations beside persistent ones (SPC-4, 5.12.3, compatible reservation handling):
 * who is registered gets GOOD and no effect, who is not gets a conflict.
 */
static bool reserve_is_compatible(struct scsi_cmd *cmd)
{
	if (!cmd->unit->state.pr.count)
		return false;
	if (!scsi_itl(cmd)->registered)
		cmd->status = SCSI_RESERVATION_CONFLICT;
	return true;
}

void reserve_run(struct scsi_cmd *cmd)
{
	struct scsi_target *t = cmd->nexus->target;
	struct scsi_lun *lun = cmd->unit;

	env_mutex_lock(t->env, &t->mutex);
	unit_lock(lun);
	if (!reserve_is_compatible(cmd)) {
		if (lun->reserved_by && lun->reserved_by != cmd->nexus)
			cmd->status = SCSI_RESERVATION_CONFLICT;
		else
			lun->reserved_by = cmd->nexus;
		unit_refresh_denials(lun);
	}
	unit_unlock(lun);
	env_mutex_unlock(t->env, &t->mutex);
	scsi_finish(cmd);
}

void release_run(struct scsi_cmd *cmd)
{
	struct scsi_target *t = cmd->nexus->target;
	struct scsi_lun *lun = cmd->unit;

	env_mutex_lock(t->env, &t->mutex);
	unit_lock(lun);
	/* Of another's reservation it does nothing, and says GOOD. */
	if (!reserve_is_compatible(cmd) && lun->reserved_by == cmd->nexus) {
		lun->reserved_by = NULL;
		unit_refresh_denials(lun);
	}
	unit_unlock(lun);
	env_mutex_unlock(t->env, &t->mutex);
	scsi_finish(cmd);
}

/* ---- REPORT TARGET PORT GROUPS ---- */

bool report_ports_begin(struct scsi_cmd *cmd)
{
	if (cmd->cdb[1] >> 5 > 1)
		return scsi_bad_field(cmd, 1, 7);
	scsi_want_reply(cmd, get_be32(cmd->cdb + 6));
	return true;
}

/* One group with all ports, active and optimized: every path is as good as any other. */
void report_ports_run(struct scsi_cmd *cmd)
{
	struct scsi_target *t = cmd->nexus->target;
	bool extended = cmd->cdb[1] >> 5 == 1;
	uint8_t d[8 + 8 + 4 * SCSI_PORTS_MAX] = { 0 }, *g = d + (extended ? 8 : 4);
	size_t len;

	if (extended)
		d[4] = 0x10;
	g[0] = 0x00;		/* active/optimized */
	g[1] = 0x01;		/* AO_SUP */
	put_be16(g + 2, 1);
	env_mutex_lock(t->env, &t->mutex);
	g[7] = (uint8_t)t->port_count;
	for (unsigned int i = 0; i < t->port_count; i++)
		put_be16(g + 8 + 4 * i + 2, t->ports[i]);
	len = (size_t)(g + 8 - d) + 4 * t->port_count;
	env_mutex_unlock(t->env, &t->mutex);
	put_be32(d, len - 4);
	scsi_reply(cmd, d, len, get_be32(cmd->cdb + 6));
	scsi_finish(cmd);
}
