// SPDX-License-Identifier: Apache-2.0
#include "iscsi/scsi_sense.h"

#include "iscsi/scsi_internal.h"

static unsigned int make_descriptors(uint8_t *buf, const uint64_t *info, const uint8_t *sks)
{
	unsigned int len = 8;

	if (info) {
		buf[len] = 0x00;	/* information */
		buf[len + 1] = 0x0a;
		buf[len + 2] = 0x80;	/* VALID */
		put_be64(buf + len + 4, *info);
		len += 12;
	}
	if (sks) {
		buf[len] = 0x02;	/* sense key specific */
		buf[len + 1] = 0x06;
		memcpy(buf + len + 4, sks, 3);
		len += 8;
	}
	buf[7] = (uint8_t)(len - 8);
	return len;
}

unsigned int scsi_sense_make(uint8_t *buf, bool descriptors, enum scsi_sense_key key,
			     enum scsi_asc asc, const uint64_t *info, const uint8_t *sks)
{
	memset(buf, 0, SCSI_SENSE_MAX);
	if (descriptors) {
		buf[0] = 0x72;
		buf[1] = (uint8_t)key;
		put_be16(buf + 2, asc);
		return make_descriptors(buf, info, sks);
	}
	buf[0] = 0x70;
	buf[2] = (uint8_t)key;
	/* A larger address does not fit: then the field is not valid (SPC-5, 4.4.3). */
	if (info && *info <= UINT32_MAX) {
		buf[0] |= 0x80;
		put_be32(buf + 3, *info);
	}
	buf[7] = 10;
	put_be16(buf + 12, asc);
	if (sks)
		memcpy(buf + 15, sks, 3);
	return 18;
}

static void set(struct scsi_cmd *cmd, enum scsi_sense_key key, enum scsi_asc asc,
		const uint64_t *info, const uint8_t *sks)
{
	bool descriptors = cmd->unit && atomic_load_explicit(&cmd->unit->descriptor_sense,
							     memory_order_relaxed);

	cmd->status = SCSI_CHECK_CONDITION;
	cmd->in_len = 0;
	cmd->sense_len = scsi_sense_make(cmd->sense, descriptors, key, asc, info, sks);
}

void scsi_sense(struct scsi_cmd *cmd, enum scsi_sense_key key, enum scsi_asc asc)
{
	set(cmd, key, asc, NULL, NULL);
}

void scsi_sense_info(struct scsi_cmd *cmd, enum scsi_sense_key key, enum scsi_asc asc,
		     uint64_t info)
{
	set(cmd, key, asc, &info, NULL);
}

void scsi_sense_progress(struct scsi_cmd *cmd, enum scsi_sense_key key, enum scsi_asc asc,
			 uint16_t progress)
{
	uint8_t sks[3] = { 0x80 };

	put_be16(sks + 1, progress);
	set(cmd, key, asc, NULL, sks);
}

static void field(struct scsi_cmd *cmd, enum scsi_asc asc, unsigned int byte, int bit)
{
	uint8_t sks[3] = { 0x80 };

	if (asc == ASC_INVALID_FIELD_IN_CDB)
		sks[0] |= 0x40;
	if (bit >= 0)
		sks[0] |= (uint8_t)(0x08 | (bit & 7));
	put_be16(sks + 1, byte);
	set(cmd, KEY_ILLEGAL_REQUEST, asc, NULL, sks);
}

bool scsi_bad_field(struct scsi_cmd *cmd, unsigned int byte, int bit)
{
	field(cmd, ASC_INVALID_FIELD_IN_CDB, byte, bit);
	return false;
}

void scsi_bad_param(struct scsi_cmd *cmd, unsigned int byte, int bit)
{
	field(cmd, ASC_INVALID_FIELD_IN_PARAMS, byte, bit);
}
