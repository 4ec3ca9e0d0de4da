/* SPDX-License-Identifier: Apache-2.0 */
/* What a login has agreed on: RFC 7143, section 13, and who the two sides are. */
#ifndef LUNFS_ISCSI_PARAMS_H
#define LUNFS_ISCSI_PARAMS_H

#include "iscsi/scsi.h"

struct tgt_params {
	/* who */
	char		initiator[SCSI_NAME_MAX];	/* NUL-terminated, normalised */
	char		initiator_alias[256];
	char		target[SCSI_NAME_MAX];		/* "" in a discovery session */
	uint8_t		isid[6];
	uint16_t	cid;
	uint16_t	tsih;		/* 0: a new session */
	bool		discovery;
	char		user[256];	/* that it has proved to be (CHAP); "": none */

	/* of the connection */
	bool		header_digest;	/* CRC32C */
	bool		data_digest;
	uint32_t	recv_dsl_max;	/* data segment that we take: our MaxRecvDataSegmentLength */
	uint32_t	send_dsl_max;	/* data segment that the initiator takes: its own */

	/* of the session; settled by its first connection */
	uint16_t	connections_max;
	bool		initial_r2t;
	bool		immediate_data;
	uint32_t	burst_max;	/* MaxBurstLength */
	uint32_t	first_burst;	/* FirstBurstLength, <= burst_max */
	uint16_t	outstanding_r2t_max;
	bool		data_pdu_in_order;
	bool		data_sequence_in_order;
	uint16_t	time2wait_s;
	uint16_t	time2retain_s;
	uint8_t		error_recovery_level;
	bool		task_reporting_fast_abort;	/* RFC 5048: TaskReporting=FastAbort */
};

#endif
