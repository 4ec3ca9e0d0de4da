// SPDX-License-Identifier: Apache-2.0
/* INQUIRY and the vital product data pages (SPC-5, 6.6 and 7.7; SBC-4, 6.6). */
#include <stdio.h>

#include "iscsi/scsi_internal.h"

#define VENDOR	"LUNFS   "
#define PRODUCT	"LUNFS DISK      "
#define REVISION	"0001"

enum { VPD_MAX = 1024 };

bool inquiry_begin(struct scsi_cmd *cmd)
{
	/* A page code without EVPD has no meaning. */
	if (!(cmd->cdb[1] & 0x01) && cmd->cdb[2])
		return scsi_bad_field(cmd, 2, -1);
	scsi_want_reply(cmd, get_be16(cmd->cdb + 3));
	return true;
}

static size_t standard(const struct scsi_cmd *cmd, uint8_t *d)
{
	/* SAM-5, iSCSI, SPC-5, SBC-4, SPC-4, SBC-3: no version of a draft is claimed. */
	static const uint16_t versions[] = { 0x00a0, 0x0960, 0x05c0, 0x0600, 0x0460, 0x04c0 };
	const struct scsi_lun *lun = cmd->unit;

	if (!lun)
		d[0] = 0x7f;	/* no unit here, none can be */
	d[1] = lun && lun->config.removable ? 0x80 : 0x00;
	d[2] = 0x06;		/* SPC-4: some initiators know no later one */
	d[3] = 0x10 | 0x02;	/* HISUP, response data format */
	d[4] = 96 - 5;
	d[5] = 0x10 | 0x08;	/* TPGS: implicit; 3PC */
	d[6] = 0x10;		/* MULTIP */
	d[7] = 0x02;		/* CMDQUE */
	memcpy(d + 8, VENDOR PRODUCT REVISION, 8 + 16 + 4);
	for (unsigned int i = 0; i < ARRAY_SIZE(versions); i++)
		put_be16(d + 58 + 2 * i, versions[i]);
	return 96;
}

/* ---- 83h: who it is ---- */

size_t vpd_designator_lun(const struct scsi_lun *lun, uint8_t *d)
{
	d[0] = 0x01;		/* binary */
	d[1] = 0x03;		/* of the logical unit, NAA */
	d[3] = 16;
	memcpy(d + 4, lun->config.naa, 16);
	return 20;
}

static size_t designator_number(uint8_t *d, uint8_t type, uint16_t number)
{
	d[0] = 0x50 | 0x01;	/* iSCSI; binary */
	d[1] = (uint8_t)(0x80 | 0x10 | type);	/* PIV, of the target port */
	d[3] = 4;
	put_be16(d + 6, number);
	return 8;
}

/* A SCSI name string: UTF-8, terminated, padded to a multiple of 4. */
static size_t designator_name(uint8_t *d, uint8_t association, const char *name)
{
	size_t len = ALIGN_UP(strlen(name) + 1, 4);

	d[0] = 0x50 | 0x03;
	d[1] = (uint8_t)(0x80 | association << 4 | 0x08);
	d[3] = (uint8_t)len;
	memcpy(d + 4, name, strlen(name) + 1);
	return 4 + len;
}

static size_t designator_t10(const struct scsi_lun *lun, uint8_t *d)
{
	size_t len = strlen(lun->config.serial);

	d[0] = 0x02;		/* ASCII */
	d[1] = 0x01;
	d[3] = (uint8_t)(8 + len);
	memcpy(d + 4, VENDOR, 8);
	memcpy(d + 12, lun->config.serial, len);
	return 12 + len;
}

static size_t vpd_identification(const struct scsi_cmd *cmd, uint8_t *d)
{
	const struct scsi_lun *lun = cmd->unit;
	uint16_t port = cmd->nexus->port;
	char name[SCSI_NAME_MAX + 12];
	size_t len = 0;

	len += vpd_designator_lun(lun, d + len);
	len += designator_t10(lun, d + len);
	len += designator_number(d + len, 0x04, port);	/* relative target port */
	len += designator_number(d + len, 0x05, 1);	/* target port group */
	snprintf(name, sizeof(name), "%s,t,0x%04x", lun->target->iqn, port);
	len += designator_name(d + len, 1, name);
	return len + designator_name(d + len, 2, lun->target->iqn);
}

/* ---- the other pages ---- */

static size_t vpd_serial(const struct scsi_cmd *cmd, uint8_t *d)
{
	size_t len = strlen(cmd->unit->config.serial);

	memcpy(d, cmd->unit->config.serial, len);
	return len;
}

static size_t vpd_extended(const struct scsi_cmd *cmd, uint8_t *d)
{
	(void)cmd;
	d[1] = 0x20 | 0x10 | 0x04 | 0x02 | 0x01; /* UASK_SUP, GROUP_SUP, HEADSUP, ORDSUP, SIMPSUP */
	d[2] = 0x01;		/* V_SUP: there may be a volatile cache */
	d[3] = 0x00;
	return 60;
}

static size_t vpd_third_party(const struct scsi_cmd *cmd, uint8_t *d)
{
	/* Supported commands: EXTENDED COPY (LID1), RECEIVE COPY (status, parameters). */
	static const uint8_t commands[] = {
		0x00, 0x01, 0x00, 0x0c, 0x08, 0x83, 0x01, 0x00, 0x84, 0x02, 0x00, 0x03,
		0x00, 0x00, 0x00, 0x00,
	};
	static const uint8_t parameters[] = {	/* parameter data */
		0x00, 0x04, 0x00, 0x1c, 0, 0, 0, 0,
		0, COPY_TARGETS_MAX, 0, COPY_SEGMENTS_MAX, 0, 0, COPY_LIST_MAX >> 8,
		COPY_LIST_MAX & 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
	};
	static const uint8_t descriptors[] = {	/* supported descriptors */
		0x00, 0x08, 0x00, 0x04, 0x02, 0x02, 0xe4, 0x00,
	};
	static const uint8_t general[] = {	/* general copy operations */
		0x80, 0x01, 0x00, 0x20,
		0, 0, 0, 1, 0, 0, 0, 1, 12, 12, 12, 0,
		0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
	};
	size_t len = 0;

	(void)cmd;
	memcpy(d, commands, sizeof(commands));
	len += sizeof(commands);
	memcpy(d + len, parameters, sizeof(parameters));
	len += sizeof(parameters);
	memcpy(d + len, descriptors, sizeof(descriptors));
	len += sizeof(descriptors);
	memcpy(d + len, general, sizeof(general));
	return len + sizeof(general);
}

static size_t vpd_limits(const struct scsi_cmd *cmd, uint8_t *d)
{
	const struct scsi_lun *lun = cmd->unit;
	uint32_t bs = lun->block_size;

	d -= 4;		/* offsets as in SBC-4, table 260 */
	d[4] = 0x01;	/* WSNZ */
	d[5] = (uint8_t)(SCSI_SCRATCH_LEN / bs < 255 ? SCSI_SCRATCH_LEN / bs : 255);
	put_be16(d + 6, 4096 / bs);	/* optimal granularity */
	put_be32(d + 8, SCSI_TRANSFER_MAX / bs);
	put_be32(d + 12, MIB / bs);	/* optimal length */
	put_be32(d + 16, SCSI_TRANSFER_MAX / bs);	/* PRE-FETCH */
	if (lun->config.thin) {
		put_be32(d + 20, SCSI_UNMAP_BLOCKS_MAX);
		put_be32(d + 24, (SCSI_PARAM_LEN_MAX - 8) / 16);
		put_be32(d + 28, 4096 / bs);
		put_be32(d + 32, 0x80000000u);	/* UGAVALID, aligned to 0 */
	}
	put_be64(d + 36, SCSI_WRITE_SAME_MAX / bs);
	if (lun->config.state_fd >= 0)
		put_be32(d + 44, SCSI_ATOMIC_MAX / bs);
	return 60;
}

static size_t vpd_characteristics(const struct scsi_cmd *cmd, uint8_t *d)
{
	put_be16(d, 1);		/* does not rotate */
	/* After a block erase everything reads as zeros. */
	if (cmd->unit->config.thin)
		d[3] = 0x40;	/* WABEREQ 01b */
	return 60;
}

static size_t vpd_provisioning(const struct scsi_cmd *cmd, uint8_t *d)
{
	if (cmd->unit->config.thin) {
		d[1] = 0x80 | 0x40 | 0x20 | 0x04;	/* LBPU, LBPWS, LBPWS10, LBPRZ */
		d[2] = 0x02;				/* thin */
	}
	return 4;
}

static size_t vpd_pages(const struct scsi_cmd *cmd, uint8_t *d);

static const struct {
	uint8_t code;
	size_t (*make)(const struct scsi_cmd *cmd, uint8_t *d);
} pages[] = {
	{ 0x00, vpd_pages }, { 0x80, vpd_serial }, { 0x83, vpd_identification },
	{ 0x86, vpd_extended }, { 0x8f, vpd_third_party }, { 0xb0, vpd_limits },
	{ 0xb1, vpd_characteristics }, { 0xb2, vpd_provisioning },
};

static size_t vpd_pages(const struct scsi_cmd *cmd, uint8_t *d)
{
	(void)cmd;
	for (unsigned int i = 0; i < ARRAY_SIZE(pages); i++)
		d[i] = pages[i].code;
	return ARRAY_SIZE(pages);
}

void inquiry_run(struct scsi_cmd *cmd)
{
	uint16_t alloc = get_be16(cmd->cdb + 3);
	uint8_t d[VPD_MAX] = { 0 };

	if (!(cmd->cdb[1] & 0x01)) {
		scsi_reply(cmd, d, standard(cmd, d), alloc);
		scsi_finish(cmd);
		return;
	}
	for (unsigned int i = 0; cmd->unit && i < ARRAY_SIZE(pages); i++) {
		size_t len;

		if (pages[i].code != cmd->cdb[2])
			continue;
		len = pages[i].make(cmd, d + 4);
		d[1] = pages[i].code;
		put_be16(d + 2, len);
		scsi_reply(cmd, d, 4 + len, alloc);
		scsi_finish(cmd);
		return;
	}
	scsi_bad_field(cmd, 2, -1);
	scsi_finish(cmd);
}
