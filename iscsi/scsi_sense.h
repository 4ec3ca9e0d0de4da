/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sense data: why a command ended with CHECK CONDITION (SPC-5, 4.4), in the format that the
 * unit's control mode page asks for.
 */
#ifndef LUNFS_ISCSI_SCSI_SENSE_H
#define LUNFS_ISCSI_SCSI_SENSE_H

#include "base/types.h"

struct scsi_cmd;

enum scsi_sense_key {
	KEY_NO_SENSE = 0x0, KEY_RECOVERED = 0x1, KEY_NOT_READY = 0x2, KEY_MEDIUM_ERROR = 0x3,
	KEY_HARDWARE_ERROR = 0x4, KEY_ILLEGAL_REQUEST = 0x5, KEY_UNIT_ATTENTION = 0x6,
	KEY_DATA_PROTECT = 0x7, KEY_COPY_ABORTED = 0xa, KEY_ABORTED_COMMAND = 0xb,
	KEY_MISCOMPARE = 0xe,
};

/* Additional sense code << 8 | qualifier. */
enum scsi_asc {
	ASC_NONE			= 0x0000,
	ASC_NOT_READY_INTERVENTION	= 0x0403,
	ASC_NOT_READY_START		= 0x0402,
	ASC_SANITIZE_IN_PROGRESS	= 0x041b,
	ASC_COMMUNICATION_TIMEOUT	= 0x0801,
	ASC_OPERATION_IN_PROGRESS	= 0x0016,
	ASC_WRITE_ERROR			= 0x0c00,
	ASC_THIRD_PARTY_FAILURE		= 0x0d01,
	ASC_SAVING_NOT_SUPPORTED	= 0x3900,
	ASC_COPY_TARGET_UNREACHABLE	= 0x0d02,
	ASC_INVALID_FIELD_IN_IU		= 0x0e03,
	ASC_UNRECOVERED_READ_ERROR	= 0x1100,
	ASC_PARAMETER_LIST_LENGTH	= 0x1a00,
	ASC_DEFECT_LIST_NOT_FOUND	= 0x1c00,
	ASC_MISCOMPARE			= 0x1d00,
	ASC_INVALID_OPCODE		= 0x2000,
	ASC_LBA_OUT_OF_RANGE		= 0x2100,
	ASC_INVALID_FIELD_IN_CDB	= 0x2400,
	ASC_NO_LOGICAL_UNIT		= 0x2500,
	ASC_INVALID_FIELD_IN_PARAMS	= 0x2600,
	ASC_INVALID_RELEASE		= 0x2604,
	ASC_TOO_MANY_COPY_TARGETS	= 0x2606,
	ASC_UNSUPPORTED_COPY_TARGET	= 0x2607,
	ASC_TOO_MANY_COPY_SEGMENTS	= 0x2608,
	ASC_UNSUPPORTED_COPY_SEGMENT	= 0x2609,
	ASC_WRITE_PROTECTED		= 0x2700,
	ASC_SPACE_ALLOCATION_FAILED	= 0x2707,
	ASC_MEDIUM_CHANGED		= 0x2800,
	ASC_POWER_ON			= 0x2900,	/* the general one: initiators know it best */
	ASC_DEVICE_RESET		= 0x2903,
	ASC_NEXUS_LOSS			= 0x2907,
	ASC_MODE_CHANGED		= 0x2a01,
	ASC_RESERVATIONS_PREEMPTED	= 0x2a03,
	ASC_RESERVATIONS_RELEASED	= 0x2a04,
	ASC_REGISTRATIONS_PREEMPTED	= 0x2a05,
	ASC_CAPACITY_CHANGED		= 0x2a09,
	ASC_COMMAND_SEQUENCE		= 0x2c00,
	ASC_COMMANDS_CLEARED		= 0x2f00,
	ASC_SANITIZE_FAILED		= 0x3103,
	ASC_NO_MEDIUM			= 0x3a00,
	ASC_LUNS_CHANGED		= 0x3f0e,
	ASC_INTERNAL_FAILURE		= 0x4400,
	ASC_MEDIUM_REMOVAL_PREVENTED	= 0x5302,
	ASC_INSUFFICIENT_RESOURCES	= 0x5503,
	ASC_INSUFFICIENT_REGISTRATIONS	= 0x5504,
};

/** scsi_sense() - @cmd ends with CHECK CONDITION, this key and code. */
void scsi_sense(struct scsi_cmd *cmd, enum scsi_sense_key key, enum scsi_asc asc);

/** scsi_sense_info() - the same with an INFORMATION field (an address, an offset). */
void scsi_sense_info(struct scsi_cmd *cmd, enum scsi_sense_key key, enum scsi_asc asc,
		     uint64_t info);

/** scsi_sense_progress() - the same with a progress indication, of 65536. */
void scsi_sense_progress(struct scsi_cmd *cmd, enum scsi_sense_key key, enum scsi_asc asc,
			 uint16_t progress);

/**
 * scsi_bad_field() - ILLEGAL REQUEST, INVALID FIELD IN CDB, with a pointer to @byte and @bit
 * (-1: all of the byte).  Return: false, for begin functions to return.
 */
bool scsi_bad_field(struct scsi_cmd *cmd, unsigned int byte, int bit);

/** scsi_bad_param() - the same of the parameter list. */
void scsi_bad_param(struct scsi_cmd *cmd, unsigned int byte, int bit);

/**
 * scsi_sense_make() - sense data in @buf (252 bytes).
 * @sks: 3 bytes of sense key specific data, or NULL.  Return: its length.
 */
unsigned int scsi_sense_make(uint8_t *buf, bool descriptors, enum scsi_sense_key key,
			     enum scsi_asc asc, const uint64_t *info, const uint8_t *sks);

#endif
