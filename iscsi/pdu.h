/* SPDX-License-Identifier: Apache-2.0 */
/*
 * iSCSI PDUs as they cross the socket: every basic header segment of RFC 7143, section 11.
 *
 * A PDU is a basic header segment of 48 bytes, additional header segments, the header digest,
 * a data segment padded to a multiple of 4, and the data digest.  All structs here are bytes
 * only: they may lie at any address of a receive buffer.
 */
#ifndef LUNFS_ISCSI_PDU_H
#define LUNFS_ISCSI_PDU_H

#include "base/types.h"

enum {
	PDU_BHS_LEN		= 48,
	PDU_AHS_LEN_MAX	= 255 * 4,
	PDU_DIGEST_LEN	= 4,
	PDU_DATA_LEN_MAX	= (1 << 24) - 1,
	PDU_LOGIN_DATA_MAX	= 8192,	/* MaxRecvDataSegmentLength until it is negotiated */
	TGT_PORT		= 3260,
};

#define PDU_TAG_NONE		0xffffffffu	/* ITT, TTT: no task, no transfer */

enum pdu_opcode {
	/* initiator */
	PDU_NOP_OUT		= 0x00,
	PDU_SCSI_COMMAND	= 0x01,
	PDU_TMF_REQUEST	= 0x02,
	PDU_LOGIN_REQUEST	= 0x03,
	PDU_TEXT_REQUEST	= 0x04,
	PDU_DATA_OUT		= 0x05,
	PDU_LOGOUT_REQUEST	= 0x06,
	PDU_SNACK		= 0x10,
	/* target */
	PDU_NOP_IN		= 0x20,
	PDU_SCSI_RESPONSE	= 0x21,
	PDU_TMF_RESPONSE	= 0x22,
	PDU_LOGIN_RESPONSE	= 0x23,
	PDU_TEXT_RESPONSE	= 0x24,
	PDU_DATA_IN		= 0x25,
	PDU_LOGOUT_RESPONSE	= 0x26,
	PDU_R2T		= 0x31,
	PDU_ASYNC_MESSAGE	= 0x32,
	PDU_REJECT		= 0x3f,

	PDU_OPCODE_MASK	= 0x3f,
	PDU_IMMEDIATE		= 0x40,	/* the I bit, beside a request's opcode */
};

enum {
	PDU_FINAL		= 0x80,	/* the F bit of every opcode that has one */

	PDU_CMD_READ		= 0x40,
	PDU_CMD_WRITE		= 0x20,
	PDU_CMD_ATTR_MASK	= 0x07,

	PDU_RSP_BIDI_OVERFLOW	= 0x10,
	PDU_RSP_BIDI_UNDERFLOW = 0x08,
	PDU_RSP_OVERFLOW	= 0x04,	/* also of Data-In with status */
	PDU_RSP_UNDERFLOW	= 0x02,
	PDU_DATA_IN_ACK	= 0x40,
	PDU_DATA_IN_STATUS	= 0x01,

	PDU_LOGIN_TRANSIT	= 0x80,
	PDU_LOGIN_CONTINUE	= 0x40,	/* also of text requests and responses */
	PDU_LOGIN_CSG_SHIFT	= 2,
	PDU_LOGIN_STAGE_MASK	= 0x03,
};

/* Task attributes of a SCSI Command, 11.3.1.1. */
enum pdu_attr {
	PDU_ATTR_UNTAGGED, PDU_ATTR_SIMPLE, PDU_ATTR_ORDERED, PDU_ATTR_HEAD_OF_QUEUE,
	PDU_ATTR_ACA,
};

/* Stages of login, 11.12.3. */
enum pdu_stage {
	PDU_STAGE_SECURITY = 0, PDU_STAGE_OPERATIONAL = 1, PDU_STAGE_FULL_FEATURE = 3,
};

/* Status-Class << 8 | Status-Detail of a login response, 11.13.5. */
enum pdu_login_status {
	PDU_LOGIN_SUCCESS		= 0x0000,
	PDU_LOGIN_MOVED_TEMPORARILY	= 0x0101,
	PDU_LOGIN_MOVED_PERMANENTLY	= 0x0102,
	PDU_LOGIN_INITIATOR_ERROR	= 0x0200,
	PDU_LOGIN_AUTH_FAILURE	= 0x0201,
	PDU_LOGIN_FORBIDDEN		= 0x0202,
	PDU_LOGIN_NOT_FOUND		= 0x0203,
	PDU_LOGIN_REMOVED		= 0x0204,
	PDU_LOGIN_BAD_VERSION		= 0x0205,
	PDU_LOGIN_TOO_MANY_CONNECTIONS = 0x0206,
	PDU_LOGIN_MISSING_PARAMETER	= 0x0207,
	PDU_LOGIN_CANNOT_INCLUDE	= 0x0208,	/* session lacks what this wants */
	PDU_LOGIN_SESSION_TYPE	= 0x0209,
	PDU_LOGIN_NO_SESSION		= 0x020a,
	PDU_LOGIN_INVALID_REQUEST	= 0x020b,
	PDU_LOGIN_TARGET_ERROR	= 0x0300,
	PDU_LOGIN_UNAVAILABLE		= 0x0301,
	PDU_LOGIN_NO_RESOURCES	= 0x0302,
};

/* 11.4.3 */
enum pdu_response { PDU_RSP_COMPLETED = 0x00, PDU_RSP_TARGET_FAILURE = 0x01 };

/* 11.14.1 and 11.15.1 */
enum pdu_logout_reason {
	PDU_LOGOUT_SESSION = 0, PDU_LOGOUT_CONNECTION = 1, PDU_LOGOUT_FOR_RECOVERY = 2,
	PDU_LOGOUT_REASON_MASK = 0x7f,
};

enum pdu_logout_response {
	PDU_LOGOUT_DONE = 0, PDU_LOGOUT_NO_CID = 1, PDU_LOGOUT_NO_RECOVERY = 2,
	PDU_LOGOUT_CLEANUP_FAILED = 3,
};

/* 11.17.1 */
enum pdu_reject_reason {
	PDU_REJECT_DATA_DIGEST	= 0x02,
	PDU_REJECT_SNACK		= 0x03,
	PDU_REJECT_PROTOCOL_ERROR	= 0x04,
	PDU_REJECT_NOT_SUPPORTED	= 0x05,
	PDU_REJECT_IMMEDIATE		= 0x06,	/* too many immediate commands */
	PDU_REJECT_TASK_IN_PROGRESS	= 0x07,
	PDU_REJECT_INVALID_DATA_ACK	= 0x08,
	PDU_REJECT_INVALID_FIELD	= 0x09,
	PDU_REJECT_OUT_OF_RESOURCES	= 0x0a,
	PDU_REJECT_NEGOTIATION_RESET	= 0x0b,
	PDU_REJECT_WAITING_FOR_LOGOUT	= 0x0c,
};

/* 11.9.1 */
enum pdu_async_event {
	PDU_ASYNC_SCSI = 0, PDU_ASYNC_LOGOUT = 1, PDU_ASYNC_DROP_CONNECTION = 2,
	PDU_ASYNC_DROP_SESSION = 3, PDU_ASYNC_RENEGOTIATE = 4, PDU_ASYNC_TASKS_ENDED = 5,
};

/* 11.2.2.1 */
enum pdu_ahs_type { PDU_AHS_EXTENDED_CDB = 1, PDU_AHS_BIDI_READ_LENGTH = 2 };

struct pdu_ahs_wire {
	be16	len;		/* 0  bytes after the type, without padding */
	uint8_t	type;		/* 2  enum pdu_ahs_type */
	uint8_t	specific[1];	/* 3  reserved, or the first byte of what follows */
};
static_assert(sizeof(struct pdu_ahs_wire) == 4, "RFC 7143, 11.2.2");

/* What all basic header segments have in common, 11.2.1. */
struct pdu_bhs_wire {
	uint8_t	opcode;		/*  0  enum pdu_opcode, with the I bit in a request */
	uint8_t	flags;		/*  1  the F bit, the rest depends on the opcode */
	uint8_t	specific_2[2];	/*  2 */
	uint8_t	ahs_len;	/*  4  TotalAHSLength, 4-byte words */
	be24	data_len;	/*  5  DataSegmentLength, bytes without padding */
	uint8_t	lun[8];		/*  8  or depends on the opcode */
	be32	itt;		/* 16  Initiator Task Tag */
	uint8_t	specific_20[28];
};
static_assert(sizeof(struct pdu_bhs_wire) == PDU_BHS_LEN, "RFC 7143, 11.2.1");
static_assert(offsetof(struct pdu_bhs_wire, itt) == 16, "RFC 7143, 11.2.1");

/* Of every request but Data-Out and SNACK. */
struct pdu_request_wire {
	uint8_t	opcode;
	uint8_t	flags;
	uint8_t	specific_2[2];
	uint8_t	ahs_len;
	be24	data_len;
	uint8_t	lun[8];
	be32	itt;
	be32	specific_20;
	be32	cmd_sn;		/* 24 */
	be32	exp_stat_sn;	/* 28 */
	uint8_t	specific_32[16];
};
static_assert(sizeof(struct pdu_request_wire) == PDU_BHS_LEN, "RFC 7143, 11.2.1");
static_assert(offsetof(struct pdu_request_wire, cmd_sn) == 24, "RFC 7143, 11.3");

/* Of every PDU of a target. */
struct pdu_reply_wire {
	uint8_t	opcode;
	uint8_t	flags;
	uint8_t	specific_2[2];
	uint8_t	ahs_len;
	be24	data_len;
	uint8_t	lun[8];
	be32	itt;
	be32	ttt;
	be32	stat_sn;	/* 24 */
	be32	exp_cmd_sn;	/* 28 */
	be32	max_cmd_sn;	/* 32 */
	uint8_t	specific_36[12];
};
static_assert(sizeof(struct pdu_reply_wire) == PDU_BHS_LEN, "RFC 7143, 11.4");
static_assert(offsetof(struct pdu_reply_wire, stat_sn) == 24, "RFC 7143, 11.4");
static_assert(offsetof(struct pdu_reply_wire, max_cmd_sn) == 32, "RFC 7143, 11.4");

struct pdu_scsi_command_wire {	/* 11.3 */
	uint8_t	opcode;
	uint8_t	flags;		/*  1  F, R, W, attribute */
	uint8_t	zero_2[2];
	uint8_t	ahs_len;
	be24	data_len;	/*  5  immediate data */
	uint8_t	lun[8];
	be32	itt;
	be32	expected_len;	/* 20  Expected Data Transfer Length */
	be32	cmd_sn;
	be32	exp_stat_sn;
	uint8_t	cdb[16];	/* 32 */
};
static_assert(sizeof(struct pdu_scsi_command_wire) == PDU_BHS_LEN, "RFC 7143, 11.3");
static_assert(offsetof(struct pdu_scsi_command_wire, cdb) == 32, "RFC 7143, 11.3");

struct pdu_scsi_response_wire {	/* 11.4 */
	uint8_t	opcode;
	uint8_t	flags;		/*  1  F, residual flags */
	uint8_t	response;	/*  2  enum pdu_response */
	uint8_t	status;		/*  3  SAM-5 status */
	uint8_t	ahs_len;
	be24	data_len;	/*  5  SenseLength and sense data */
	uint8_t	zero_8[8];
	be32	itt;
	be32	snack_tag;
	be32	stat_sn;
	be32	exp_cmd_sn;
	be32	max_cmd_sn;
	be32	exp_data_sn;	/* 36  Data-In and R2T PDUs sent for the command */
	be32	bidi_residual;
	be32	residual;	/* 44 */
};
static_assert(sizeof(struct pdu_scsi_response_wire) == PDU_BHS_LEN, "RFC 7143, 11.4");
static_assert(offsetof(struct pdu_scsi_response_wire, residual) == 44, "RFC 7143, 11.4");

struct pdu_tmf_request_wire {		/* 11.5 */
	uint8_t	opcode;
	uint8_t	function;	/*  1  F, enum scsi_tmf_fn */
	uint8_t	zero_2[2];
	uint8_t	ahs_len;
	be24	data_len;
	uint8_t	lun[8];
	be32	itt;
	be32	ref_itt;	/* 20  Referenced Task Tag */
	be32	cmd_sn;
	be32	exp_stat_sn;
	be32	ref_cmd_sn;	/* 32 */
	be32	exp_data_sn;
	uint8_t	zero_40[8];
};
static_assert(sizeof(struct pdu_tmf_request_wire) == PDU_BHS_LEN, "RFC 7143, 11.5");
static_assert(offsetof(struct pdu_tmf_request_wire, ref_cmd_sn) == 32, "RFC 7143, 11.5");

struct pdu_tmf_response_wire {	/* 11.6 */
	uint8_t	opcode;
	uint8_t	flags;
	uint8_t	response;	/*  2  enum scsi_tmf_response */
	uint8_t	zero_3;
	uint8_t	ahs_len;
	be24	data_len;
	uint8_t	zero_8[8];
	be32	itt;
	uint8_t	zero_20[4];
	be32	stat_sn;
	be32	exp_cmd_sn;
	be32	max_cmd_sn;
	uint8_t	zero_36[12];
};
static_assert(sizeof(struct pdu_tmf_response_wire) == PDU_BHS_LEN, "RFC 7143, 11.6");

struct pdu_data_out_wire {		/* 11.7 */
	uint8_t	opcode;
	uint8_t	flags;
	uint8_t	zero_2[2];
	uint8_t	ahs_len;
	be24	data_len;
	uint8_t	lun[8];
	be32	itt;
	be32	ttt;		/* 20  of the R2T, or PDU_TAG_NONE: unsolicited */
	uint8_t	zero_24[4];
	be32	exp_stat_sn;
	uint8_t	zero_32[4];
	be32	data_sn;	/* 36 */
	be32	offset;		/* 40  Buffer Offset */
	uint8_t	zero_44[4];
};
static_assert(sizeof(struct pdu_data_out_wire) == PDU_BHS_LEN, "RFC 7143, 11.7");
static_assert(offsetof(struct pdu_data_out_wire, offset) == 40, "RFC 7143, 11.7");

struct pdu_data_in_wire {		/* 11.7 */
	uint8_t	opcode;
	uint8_t	flags;		/*  1  F, A, O, U, S */
	uint8_t	zero_2;
	uint8_t	status;		/*  3  with S */
	uint8_t	ahs_len;
	be24	data_len;
	uint8_t	lun[8];		/*  8  with a TTT */
	be32	itt;
	be32	ttt;
	be32	stat_sn;	/* 24  with S */
	be32	exp_cmd_sn;
	be32	max_cmd_sn;
	be32	data_sn;	/* 36 */
	be32	offset;		/* 40  Buffer Offset */
	be32	residual;	/* 44  with S */
};
static_assert(sizeof(struct pdu_data_in_wire) == PDU_BHS_LEN, "RFC 7143, 11.7");
static_assert(offsetof(struct pdu_data_in_wire, residual) == 44, "RFC 7143, 11.7");

struct pdu_r2t_wire {			/* 11.8 */
	uint8_t	opcode;
	uint8_t	flags;
	uint8_t	zero_2[2];
	uint8_t	ahs_len;
	be24	data_len;
	uint8_t	lun[8];
	be32	itt;
	be32	ttt;
	be32	stat_sn;	/* 24  the next one, not counted up */
	be32	exp_cmd_sn;
	be32	max_cmd_sn;
	be32	r2t_sn;		/* 36 */
	be32	offset;		/* 40 */
	be32	desired_len;	/* 44 */
};
static_assert(sizeof(struct pdu_r2t_wire) == PDU_BHS_LEN, "RFC 7143, 11.8");
static_assert(offsetof(struct pdu_r2t_wire, desired_len) == 44, "RFC 7143, 11.8");

struct pdu_async_wire {		/* 11.9 */
	uint8_t	opcode;
	uint8_t	flags;
	uint8_t	zero_2[2];
	uint8_t	ahs_len;
	be24	data_len;
	uint8_t	lun[8];
	be32	itt;		/* 16  PDU_TAG_NONE */
	uint8_t	zero_20[4];
	be32	stat_sn;
	be32	exp_cmd_sn;
	be32	max_cmd_sn;
	uint8_t	event;		/* 36  enum pdu_async_event */
	uint8_t	vendor_code;
	be16	parameter1;	/* 38  CID */
	be16	parameter2;	/* 40  Time2Wait */
	be16	parameter3;	/* 42  Time2Retain, or for a logout the time until it is asked for */
	uint8_t	zero_44[4];
};
static_assert(sizeof(struct pdu_async_wire) == PDU_BHS_LEN, "RFC 7143, 11.9");
static_assert(offsetof(struct pdu_async_wire, parameter3) == 42, "RFC 7143, 11.9");

struct pdu_text_request_wire {	/* 11.10 */
	uint8_t	opcode;
	uint8_t	flags;		/*  1  F, C */
	uint8_t	zero_2[2];
	uint8_t	ahs_len;
	be24	data_len;
	uint8_t	lun[8];
	be32	itt;
	be32	ttt;
	be32	cmd_sn;
	be32	exp_stat_sn;
	uint8_t	zero_32[16];
};
static_assert(sizeof(struct pdu_text_request_wire) == PDU_BHS_LEN, "RFC 7143, 11.10");

struct pdu_text_response_wire {	/* 11.11 */
	uint8_t	opcode;
	uint8_t	flags;
	uint8_t	zero_2[2];
	uint8_t	ahs_len;
	be24	data_len;
	uint8_t	lun[8];
	be32	itt;
	be32	ttt;
	be32	stat_sn;
	be32	exp_cmd_sn;
	be32	max_cmd_sn;
	uint8_t	zero_36[12];
};
static_assert(sizeof(struct pdu_text_response_wire) == PDU_BHS_LEN, "RFC 7143, 11.11");

struct pdu_login_request_wire {	/* 11.12 */
	uint8_t	opcode;
	uint8_t	flags;		/*  1  T, C, CSG, NSG */
	uint8_t	version_max;
	uint8_t	version_min;
	uint8_t	ahs_len;
	be24	data_len;
	uint8_t	isid[6];	/*  8 */
	be16	tsih;		/* 14 */
	be32	itt;
	be16	cid;		/* 20 */
	uint8_t	zero_22[2];
	be32	cmd_sn;
	be32	exp_stat_sn;
	uint8_t	zero_32[16];
};
static_assert(sizeof(struct pdu_login_request_wire) == PDU_BHS_LEN, "RFC 7143, 11.12");
static_assert(offsetof(struct pdu_login_request_wire, cid) == 20, "RFC 7143, 11.12");

struct pdu_login_response_wire {	/* 11.13 */
	uint8_t	opcode;
	uint8_t	flags;
	uint8_t	version_max;
	uint8_t	version_active;
	uint8_t	ahs_len;
	be24	data_len;
	uint8_t	isid[6];
	be16	tsih;
	be32	itt;
	uint8_t	zero_20[4];
	be32	stat_sn;
	be32	exp_cmd_sn;
	be32	max_cmd_sn;
	be16	status;		/* 36  enum pdu_login_status */
	uint8_t	zero_38[10];
};
static_assert(sizeof(struct pdu_login_response_wire) == PDU_BHS_LEN, "RFC 7143, 11.13");
static_assert(offsetof(struct pdu_login_response_wire, status) == 36, "RFC 7143, 11.13");

struct pdu_logout_request_wire {	/* 11.14 */
	uint8_t	opcode;
	uint8_t	reason;		/*  1  F, enum pdu_logout_reason */
	uint8_t	zero_2[2];
	uint8_t	ahs_len;
	be24	data_len;
	uint8_t	zero_8[8];
	be32	itt;
	be16	cid;		/* 20  unless the session is logged out */
	uint8_t	zero_22[2];
	be32	cmd_sn;
	be32	exp_stat_sn;
	uint8_t	zero_32[16];
};
static_assert(sizeof(struct pdu_logout_request_wire) == PDU_BHS_LEN, "RFC 7143, 11.14");
static_assert(offsetof(struct pdu_logout_request_wire, cid) == 20, "RFC 7143, 11.14");

struct pdu_logout_response_wire {	/* 11.15 */
	uint8_t	opcode;
	uint8_t	flags;
	uint8_t	response;	/*  2  enum pdu_logout_response */
	uint8_t	zero_3;
	uint8_t	ahs_len;
	be24	data_len;
	uint8_t	zero_8[8];
	be32	itt;
	uint8_t	zero_20[4];
	be32	stat_sn;
	be32	exp_cmd_sn;
	be32	max_cmd_sn;
	uint8_t	zero_36[4];
	be16	time2wait;	/* 40  seconds */
	be16	time2retain;	/* 42 */
	uint8_t	zero_44[4];
};
static_assert(sizeof(struct pdu_logout_response_wire) == PDU_BHS_LEN, "RFC 7143, 11.15");
static_assert(offsetof(struct pdu_logout_response_wire, time2wait) == 40, "RFC 7143, 11.15");

struct pdu_snack_wire {		/* 11.16 */
	uint8_t	opcode;
	uint8_t	flags;		/*  1  F, type */
	uint8_t	zero_2[2];
	uint8_t	ahs_len;
	be24	data_len;
	uint8_t	lun[8];
	be32	itt;
	be32	ttt;
	uint8_t	zero_24[4];
	be32	exp_stat_sn;
	uint8_t	zero_32[8];
	be32	beg_run;	/* 40 */
	be32	run_length;
};
static_assert(sizeof(struct pdu_snack_wire) == PDU_BHS_LEN, "RFC 7143, 11.16");
static_assert(offsetof(struct pdu_snack_wire, beg_run) == 40, "RFC 7143, 11.16");

struct pdu_reject_wire {		/* 11.17 */
	uint8_t	opcode;
	uint8_t	flags;
	uint8_t	reason;		/*  2  enum pdu_reject_reason */
	uint8_t	zero_3;
	uint8_t	ahs_len;
	be24	data_len;	/*  5  the header that is rejected */
	uint8_t	zero_8[8];
	be32	itt;		/* 16  PDU_TAG_NONE */
	uint8_t	zero_20[4];
	be32	stat_sn;
	be32	exp_cmd_sn;
	be32	max_cmd_sn;
	be32	data_sn;	/* 36  or R2TSN, when the PDU was a SNACK or Data-Out */
	uint8_t	zero_40[8];
};
static_assert(sizeof(struct pdu_reject_wire) == PDU_BHS_LEN, "RFC 7143, 11.17");
static_assert(offsetof(struct pdu_reject_wire, data_sn) == 36, "RFC 7143, 11.17");

struct pdu_nop_out_wire {		/* 11.18 */
	uint8_t	opcode;
	uint8_t	flags;
	uint8_t	zero_2[2];
	uint8_t	ahs_len;
	be24	data_len;
	uint8_t	lun[8];
	be32	itt;		/* 16  PDU_TAG_NONE: wants no answer */
	be32	ttt;		/* 20  copied from the NOP-In it answers */
	be32	cmd_sn;
	be32	exp_stat_sn;
	uint8_t	zero_32[16];
};
static_assert(sizeof(struct pdu_nop_out_wire) == PDU_BHS_LEN, "RFC 7143, 11.18");

struct pdu_nop_in_wire {		/* 11.19 */
	uint8_t	opcode;
	uint8_t	flags;
	uint8_t	zero_2[2];
	uint8_t	ahs_len;
	be24	data_len;
	uint8_t	lun[8];
	be32	itt;
	be32	ttt;
	be32	stat_sn;
	be32	exp_cmd_sn;
	be32	max_cmd_sn;
	uint8_t	zero_36[12];
};
static_assert(sizeof(struct pdu_nop_in_wire) == PDU_BHS_LEN, "RFC 7143, 11.19");

/** pdu_padded() - @len with the padding that follows a data segment of that length. */
static inline uint32_t pdu_padded(uint32_t len)
{
	return (len + 3) & ~3u;
}

/** sn_before() - serial number arithmetic of RFC 1982: @a comes before @b. */
static inline bool sn_before(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

#endif
