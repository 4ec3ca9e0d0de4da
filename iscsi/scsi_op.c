// SPDX-License-Identifier: Apache-2.0
/*
 * The commands that there are: one table from which CDBs are checked, reservations and states
 * of the unit are applied, and REPORT SUPPORTED OPERATION CODES answers (SPC-5, 6.37).
 *
 * Flags for reservations follow SPC-5, table "PERSISTENT RESERVE commands that are allowed",
 * and SBC-4, table "SBC-4 commands that are allowed in the presence of various reservations".
 */
#include "iscsi/scsi_internal.h"

/* Fields as they recur: 1 = the bit is evaluated. */
#define LBA4		0xff, 0xff, 0xff, 0xff
#define LBA8		LBA4, LBA4
#define LEN2		0xff, 0xff
#define LEN4		LBA4
#define GROUP		0x3f
#define RW		0x1a	/* DPO, FUA, FUA_NV */
#define DPO_BYTCHK	0x16
#define ZERO4		0, 0, 0, 0

#define READS		(OP_READS | OP_MEDIUM)
#define WRITES		(OP_WRITES | OP_MEDIUM | OP_PROTECTED)
#define ALWAYS		(OP_SANITIZE_OK | OP_SANITIZE_FAILED_OK)
#define ANYWHERE	(OP_ANY_LUN | OP_NO_UA | OP_RESERVED_OK | ALWAYS)

#define CMD(op_, sa_, len_, flags_, timeout_, fn_, name_, ...) \
	{ .opcode = (op_), .sa = (sa_), .len = (len_), .flags = (flags_), .timeout_s = (timeout_), \
	  .begin = fn_##_begin, .run = fn_##_run, .name = (name_), .usage = { (op_), __VA_ARGS__ } }

/* Sorted by code, then by service action. */
const struct scsi_op scsi_ops[] = {
	CMD(0x00, OP_NO_SA, 6, OP_MEDIUM, 10, test_ready, "TEST UNIT READY", 0, 0, 0, 0, 0),
	CMD(0x03, OP_NO_SA, 6, ANYWHERE, 10, request_sense, "REQUEST SENSE", 0x01, 0, 0, 0xff, 0),
	CMD(0x08, OP_NO_SA, 6, READS, 60, read, "READ(6)", 0x1f, 0xff, 0xff, 0xff, 0),
	CMD(0x0a, OP_NO_SA, 6, WRITES, 60, write, "WRITE(6)", 0x1f, 0xff, 0xff, 0xff, 0),
	CMD(0x12, OP_NO_SA, 6, ANYWHERE, 10, inquiry, "INQUIRY", 0x01, 0xff, LEN2, 0),
	CMD(0x15, OP_NO_SA, 6, OP_WRITES, 60, mode_select, "MODE SELECT(6)", 0x11, 0, 0, 0xff, 0),
	CMD(0x16, OP_NO_SA, 6, ALWAYS, 10, reserve, "RESERVE(6)", 0, 0, 0, 0, 0),
	CMD(0x17, OP_NO_SA, 6, ALWAYS | OP_RESERVED_OK, 10, release, "RELEASE(6)", 0, 0, 0, 0, 0),
	CMD(0x1a, OP_NO_SA, 6, ALWAYS, 10, mode_sense, "MODE SENSE(6)", 0x08, 0xff, 0xff, 0xff, 0),
	CMD(0x1b, OP_NO_SA, 6, OP_SANITIZE_FAILED_OK, 60, start_stop, "START STOP UNIT",
	    0x01, 0, 0x0f, 0xf7, 0),
	CMD(0x1e, OP_NO_SA, 6, OP_RESERVED_OK | ALWAYS, 10, prevent_allow,
	    "PREVENT ALLOW MEDIUM REMOVAL", 0, 0, 0, 0x03, 0),
	CMD(0x25, OP_NO_SA, 10, OP_MEDIUM | OP_SANITIZE_FAILED_OK, 10, capacity10,
	    "READ CAPACITY(10)", 0, LBA4, 0, 0, 0x01, 0),
	CMD(0x28, OP_NO_SA, 10, READS, 60, read, "READ(10)", RW, LBA4, GROUP, LEN2, 0),
	CMD(0x2a, OP_NO_SA, 10, WRITES, 60, write, "WRITE(10)", RW, LBA4, GROUP, LEN2, 0),
	CMD(0x2e, OP_NO_SA, 10, WRITES, 60, write_verify, "WRITE AND VERIFY(10)",
	    DPO_BYTCHK, LBA4, GROUP, LEN2, 0),
	CMD(0x2f, OP_NO_SA, 10, READS, 60, verify, "VERIFY(10)", DPO_BYTCHK, LBA4, GROUP, LEN2, 0),
	CMD(0x34, OP_NO_SA, 10, READS, 60, prefetch, "PRE-FETCH(10)", 0x02, LBA4, GROUP, LEN2, 0),
	CMD(0x35, OP_NO_SA, 10, OP_WRITES | OP_MEDIUM, 60, sync, "SYNCHRONIZE CACHE(10)",
	    0x06, LBA4, GROUP, LEN2, 0),
	CMD(0x37, OP_NO_SA, 10, READS, 10, defects, "READ DEFECT DATA(10)",
	    0, 0x1f, 0, 0, 0, 0, LEN2, 0),
	CMD(0x41, OP_NO_SA, 10, WRITES, 300, write_same, "WRITE SAME(10)",
	    0x18, LBA4, GROUP, LEN2, 0),
	CMD(0x42, OP_NO_SA, 10, WRITES | OP_THIN, 300, unmap, "UNMAP", 0x01, ZERO4, GROUP, LEN2, 0),
	CMD(0x48, 0x01, 10, WRITES | OP_SANITIZE_FAILED_OK, 10, sanitize, "SANITIZE OVERWRITE",
	    0xbf, 0, 0, 0, 0, 0, LEN2, 0),
	CMD(0x48, 0x02, 10, WRITES | OP_THIN | OP_SANITIZE_FAILED_OK, 10, sanitize, "SANITIZE BLOCK ERASE",
	    0xbf, 0, 0, 0, 0, 0, LEN2, 0),
	CMD(0x48, 0x1f, 10, OP_WRITES | OP_MEDIUM | OP_SANITIZE_FAILED_OK, 10, sanitize,
	    "SANITIZE EXIT FAILURE MODE", 0xbf, 0, 0, 0, 0, 0, LEN2, 0),
	CMD(0x55, OP_NO_SA, 10, OP_WRITES, 60, mode_select, "MODE SELECT(10)",
	    0x11, 0, 0, 0, 0, 0, LEN2, 0),
	CMD(0x56, OP_NO_SA, 10, ALWAYS, 10, reserve, "RESERVE(10)", 0, 0, 0, 0, 0, 0, 0, 0, 0),
	CMD(0x57, OP_NO_SA, 10, ALWAYS | OP_RESERVED_OK, 10, release, "RELEASE(10)",
	    0, 0, 0, 0, 0, 0, 0, 0, 0),
	CMD(0x5a, OP_NO_SA, 10, ALWAYS, 10, mode_sense, "MODE SENSE(10)",
	    0x18, 0xff, 0xff, 0, 0, 0, LEN2, 0),
	CMD(0x5e, 0x00, 10, ALWAYS, 10, pr_in, "PERSISTENT RESERVE IN, READ KEYS",
	    0x1f, 0, 0, 0, 0, 0, LEN2, 0),
	CMD(0x5e, 0x01, 10, ALWAYS, 10, pr_in, "PERSISTENT RESERVE IN, READ RESERVATION",
	    0x1f, 0, 0, 0, 0, 0, LEN2, 0),
	CMD(0x5e, 0x02, 10, ALWAYS, 10, pr_in, "PERSISTENT RESERVE IN, REPORT CAPABILITIES",
	    0x1f, 0, 0, 0, 0, 0, LEN2, 0),
	CMD(0x5e, 0x03, 10, ALWAYS, 10, pr_in, "PERSISTENT RESERVE IN, READ FULL STATUS",
	    0x1f, 0, 0, 0, 0, 0, LEN2, 0),
#define PR_OUT(sa, what) \
	CMD(0x5f, sa, 10, ALWAYS, 60, pr_out, "PERSISTENT RESERVE OUT, " what, \
	    0x1f, 0xff, 0, 0, LEN4, 0)
	PR_OUT(0x00, "REGISTER"),
	PR_OUT(0x01, "RESERVE"),
	PR_OUT(0x02, "RELEASE"),
	PR_OUT(0x03, "CLEAR"),
	PR_OUT(0x04, "PREEMPT"),
	PR_OUT(0x05, "PREEMPT AND ABORT"),
	PR_OUT(0x06, "REGISTER AND IGNORE EXISTING KEY"),
	PR_OUT(0x07, "REGISTER AND MOVE"),
	CMD(0x83, 0x00, 16, OP_WRITES | OP_MEDIUM, 600, copy, "EXTENDED COPY(LID1)",
	    0x1f, ZERO4, ZERO4, LEN4, 0, 0),
	CMD(0x84, 0x00, 16, OP_READS, 10, copy_results, "RECEIVE COPY STATUS(LID1)",
	    0x1f, 0xff, ZERO4, 0, 0, 0, LEN4, 0, 0),
	CMD(0x84, 0x03, 16, OP_READS, 10, copy_results, "RECEIVE COPY OPERATING PARAMETERS",
	    0x1f, 0, ZERO4, 0, 0, 0, LEN4, 0, 0),
	CMD(0x88, OP_NO_SA, 16, READS, 60, read, "READ(16)", RW, LBA8, LEN4, GROUP, 0),
	CMD(0x89, OP_NO_SA, 16, WRITES, 60, caw, "COMPARE AND WRITE",
	    RW, LBA8, 0, 0, 0, 0xff, GROUP, 0),
	CMD(0x8a, OP_NO_SA, 16, WRITES, 60, write, "WRITE(16)", RW, LBA8, LEN4, GROUP, 0),
	CMD(0x8b, OP_NO_SA, 16, WRITES, 60, orwrite, "ORWRITE(16)", RW, LBA8, LEN4, GROUP, 0),
	CMD(0x8e, OP_NO_SA, 16, WRITES, 60, write_verify, "WRITE AND VERIFY(16)",
	    DPO_BYTCHK, LBA8, LEN4, GROUP, 0),
	CMD(0x8f, OP_NO_SA, 16, READS, 60, verify, "VERIFY(16)", DPO_BYTCHK, LBA8, LEN4, GROUP, 0),
	CMD(0x90, OP_NO_SA, 16, READS, 60, prefetch, "PRE-FETCH(16)", 0x02, LBA8, LEN4, GROUP, 0),
	CMD(0x91, OP_NO_SA, 16, OP_WRITES | OP_MEDIUM, 60, sync, "SYNCHRONIZE CACHE(16)",
	    0x06, LBA8, LEN4, GROUP, 0),
	CMD(0x93, OP_NO_SA, 16, WRITES, 300, write_same, "WRITE SAME(16)",
	    0x19, LBA8, LEN4, GROUP, 0),
	CMD(0x9c, OP_NO_SA, 16, WRITES | OP_STATE, 60, write_atomic, "WRITE ATOMIC(16)",
	    RW, LBA8, LEN4, GROUP, 0),
	CMD(0x9e, 0x10, 16, OP_MEDIUM | OP_SANITIZE_FAILED_OK, 10, capacity16,
	    "READ CAPACITY(16)", 0x1f, ZERO4, ZERO4, LEN4, 0, 0),
	CMD(0x9e, 0x12, 16, OP_MEDIUM, 60, lba_status, "GET LBA STATUS",
	    0x1f, LBA8, LEN4, 0, 0),
	CMD(0xa0, OP_NO_SA, 12, ANYWHERE, 10, report_luns, "REPORT LUNS",
	    0, 0xff, 0, 0, 0, LEN4, 0, 0),
	CMD(0xa3, 0x0a, 12, ALWAYS, 10, report_ports, "REPORT TARGET PORT GROUPS",
	    0xff, 0, 0, 0, 0, LEN4, 0, 0),
	CMD(0xa3, 0x0c, 12, ALWAYS, 10, report_opcodes, "REPORT SUPPORTED OPERATION CODES",
	    0x1f, 0x87, 0xff, LEN2, LEN4, 0, 0),
	CMD(0xa3, 0x0d, 12, ALWAYS, 10, report_tmfs, "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
	    0x1f, 0x80, 0, 0, 0, LEN4, 0, 0),
	CMD(0xa8, OP_NO_SA, 12, READS, 60, read, "READ(12)", RW, LBA4, LEN4, GROUP, 0),
	CMD(0xaa, OP_NO_SA, 12, WRITES, 60, write, "WRITE(12)", RW, LBA4, LEN4, GROUP, 0),
	CMD(0xae, OP_NO_SA, 12, WRITES, 60, write_verify, "WRITE AND VERIFY(12)",
	    DPO_BYTCHK, LBA4, LEN4, GROUP, 0),
	CMD(0xaf, OP_NO_SA, 12, READS, 60, verify, "VERIFY(12)", DPO_BYTCHK, LBA4, LEN4, GROUP, 0),
	CMD(0xb7, OP_NO_SA, 12, READS, 10, defects, "READ DEFECT DATA(12)",
	    0x1f, LBA4, LEN4, 0, 0),
};

const unsigned int scsi_op_count = ARRAY_SIZE(scsi_ops);

/* ---- finding one ---- */

void scsi_op_index(struct scsi_target *target)
{
	static_assert(ARRAY_SIZE(scsi_ops) < 255, "an index fits a byte");
	memset(target->op_first, 255, sizeof(target->op_first));
	for (unsigned int i = scsi_op_count; i-- > 0;)
		target->op_first[scsi_ops[i].opcode] = (uint8_t)i;
}

const struct scsi_op *scsi_op_find(const struct scsi_target *target, const uint8_t *cdb,
				   bool *known)
{
	unsigned int i = target->op_first[cdb[0]];

	*known = i != 255;
	for (; i < scsi_op_count && scsi_ops[i].opcode == cdb[0]; i++) {
		if (scsi_ops[i].sa == OP_NO_SA || scsi_ops[i].sa == (cdb[1] & 0x1f))
			return &scsi_ops[i];
	}
	return NULL;
}

bool scsi_op_is_offered(const struct scsi_lun *lun, const struct scsi_op *op)
{
	if ((op->flags & OP_THIN) && !lun->config.thin)
		return false;
	return !(op->flags & OP_STATE) || lun->config.state_fd >= 0;
}

/* ---- REPORT SUPPORTED OPERATION CODES ---- */

enum { RSOC_ALL = 0, RSOC_OPCODE = 1, RSOC_ACTION = 2, RSOC_EITHER = 3 };

bool report_opcodes_begin(struct scsi_cmd *cmd)
{
	if ((cmd->cdb[2] & 0x07) > RSOC_EITHER)
		return scsi_bad_field(cmd, 2, 2);
	scsi_want_reply(cmd, get_be32(cmd->cdb + 6));
	return true;
}

static size_t put_timeouts(const struct scsi_op *op, uint8_t *d)
{
	put_be16(d, 10);
	put_be32(d + 8, op->timeout_s);	/* recommended; the nominal one is not known */
	return 12;
}

static void report_all(struct scsi_cmd *cmd, bool rctd)
{
	uint8_t d[4 + 20 * 255] = { 0 };
	size_t len = 4;

	for (unsigned int i = 0; i < scsi_op_count; i++) {
		const struct scsi_op *op = &scsi_ops[i];
		uint8_t *e = d + len;

		if (!scsi_op_is_offered(cmd->unit, op))
			continue;
		e[0] = op->opcode;
		if (op->sa != OP_NO_SA) {
			put_be16(e + 2, op->sa);
			e[5] |= 0x01;	/* SERVACTV */
		}
		if (rctd)
			e[5] |= 0x02;	/* CTDP */
		put_be16(e + 6, op->len);
		len += 8;
		if (rctd)
			len += put_timeouts(op, d + len);
	}
	put_be32(d, len - 4);
	scsi_reply(cmd, d, len, get_be32(cmd->cdb + 6));
}

/* The operation asked for; *@known: the opcode exists, with or without actions. */
static const struct scsi_op *asked_op(const struct scsi_cmd *cmd, bool *known, bool *actions)
{
	uint16_t sa = get_be16(cmd->cdb + 4);
	const struct scsi_op *found = NULL;

	*known = *actions = false;
	for (unsigned int i = 0; i < scsi_op_count; i++) {
		const struct scsi_op *op = &scsi_ops[i];

		if (op->opcode != cmd->cdb[3])
			continue;
		*known = true;
		*actions = op->sa != OP_NO_SA;
		if (scsi_op_is_offered(cmd->unit, op) && (!*actions || op->sa == sa))
			found = op;
	}
	return found;
}

static void report_one(struct scsi_cmd *cmd, unsigned int option, bool rctd)
{
	uint8_t d[4 + 32 + 12] = { 0 };
	const struct scsi_op *op;
	bool known, actions;
	size_t len = 4;

	op = asked_op(cmd, &known, &actions);
	if (known && ((option == RSOC_OPCODE && actions) || (option == RSOC_ACTION && !actions))) {
		scsi_bad_field(cmd, 2, 2);
		return;
	}
	d[1] = op ? 0x03 : 0x01;	/* as the standard has it; not supported */
	if (op) {
		put_be16(d + 2, op->len);
		memcpy(d + 4, op->usage, op->len);
		if (op->sa != OP_NO_SA) {
			d[5] = (uint8_t)((d[5] & 0xe0) | op->sa);
		}
		len += op->len;
		if (rctd) {
			d[1] |= 0x80;	/* CTDP */
			len += put_timeouts(op, d + len);
		}
	}
	scsi_reply(cmd, d, len, get_be32(cmd->cdb + 6));
}

void report_opcodes_run(struct scsi_cmd *cmd)
{
	unsigned int option = cmd->cdb[2] & 0x07;
	bool rctd = cmd->cdb[2] & 0x80;

	if (option == RSOC_ALL)
		report_all(cmd, rctd);
	else
		report_one(cmd, option, rctd);
	scsi_finish(cmd);
}

/* ---- REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS ---- */

bool report_tmfs_begin(struct scsi_cmd *cmd)
{
	if (get_be32(cmd->cdb + 6) < 4)
		return scsi_bad_field(cmd, 6, -1);
	scsi_want_reply(cmd, get_be32(cmd->cdb + 6));
	return true;
}

void report_tmfs_run(struct scsi_cmd *cmd)
{
	/* ATS, ATSS, CTSS, LURS, QTS, TRS; QAES?, QTSS, ITNRS: SPC-5, 6.38. */
	uint8_t d[16] = { 0x80 | 0x40 | 0x10 | 0x08 | 0x04 | 0x02, 0x02 | 0x01, 0, 12 };
	bool extended = cmd->cdb[2] & 0x80;

	if (!extended)
		d[3] = 0;
	scsi_reply(cmd, d, extended ? 16 : 4, get_be32(cmd->cdb + 6));
	scsi_finish(cmd);
}

/* Commands without anything to parse. */
bool test_ready_begin(struct scsi_cmd *cmd)
{
	(void)cmd;
	return true;
}

bool reserve_begin(struct scsi_cmd *cmd)
{
	(void)cmd;
	return true;
}

bool release_begin(struct scsi_cmd *cmd)
{
	(void)cmd;
	return true;
}
