/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a SCSI logical unit says of itself, whoever carries the commands: libiscsi
 * (blkiscsi_admin.c) or the kernel (blkscsi.c).  Its answers are foreign bytes, believed only within
 * bounds (R9).
 */
#ifndef LUNFS_BLOCK_LU_H
#define LUNFS_BLOCK_LU_H

#include "block/blkdev.h"

#define LU_CDB_SIZE		16
#define LU_VPD_STANDARD		(-1)	/* of lu_inquiry(): no page */
#define LU_VPD_IDENTIFICATION	0x83
#define LU_VPD_LIMITS		0xb0
#define LU_VPD_PROVISIONING	0xb2
#define LU_COMPARE_AND_WRITE	0x89
#define LU_PR_OUT		0x5f
#define LU_PR_TYPE_WEAR		7	/* write exclusive, all registrants; scope: logical unit */

/* A command that somebody waits for. */
struct lu_cmd {
	uint8_t		cdb[LU_CDB_SIZE];
	int		cdb_size;
	bool		out;		/* @buf is sent, else received */
	void		*buf;
	uint32_t	len;
	uint32_t	got;		/* bytes received */
};

/*
 * Who carries them.  @run: 0; -ENOTSUP no such command; -EINVAL a field it does not have; -EBADE
 * reservation conflict; -EIO anything else.  A unit attention is met by asking again.
 */
struct lu {
	int (*run)(struct lu *lu, struct lu_cmd *cmd);
};

/**
 * lu_inquiry() - standard data (@page LU_VPD_STANDARD) or a vital product data page.
 * Return: bytes received, at least 4 of a page; -ENOTSUP it has no such page; -errno of run().
 */
int lu_inquiry(struct lu *lu, int page, uint8_t *buf, uint32_t size);

/**
 * lu_has_caw() - whether COMPARE AND WRITE is there.  @limits: @n bytes of LU_VPD_LIMITS.
 *
 * A target may announce a length for it and not have the command (Debian's tgt).  One of no blocks
 * compares and writes nothing (SBC-4, 5.3): that is tried.
 */
bool lu_has_caw(struct lu *lu, const uint8_t *limits, int n);

/** lu_has_pr() - whether it has persistent reservations of our type.  @aptpl: through power loss. */
bool lu_has_pr(struct lu *lu, bool *aptpl);

/** lu_pr_read() - READ KEYS and READ RESERVATION.  Return: 0; -EPROTO; -ENOMEM; of run(). */
int lu_pr_read(struct lu *lu, struct blkdev_pr_state *state);

/** lu_identity() - the name of the LUN in VPD page 83h, as sysfs writes it: "naa.…",
 * "eui.…", "t10.…"; "" if the page has none. */
void lu_identity(const uint8_t *page, size_t len, char *out, size_t out_size);

/** lu_port_group() - the target portal group in the target port's name on that page
 * (SPC-4, 7.8.6.10: "IQN,t,0xTTTT"); -1 if it does not tell. */
int lu_port_group(const uint8_t *page, size_t len);

struct lu_sense {
	uint8_t	key;
	uint16_t asc;		/* additional sense code and qualifier: 0x2903 */
	bool	has_lba;
	uint64_t lba;		/* INFORMATION: where a medium error is */
};

/** lu_sense() - fixed or descriptor format.  Return: whether it is sense data at all. */
bool lu_sense(const uint8_t *data, size_t len, struct lu_sense *out);

#endif
