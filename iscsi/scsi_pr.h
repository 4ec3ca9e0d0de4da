/* SPDX-License-Identifier: Apache-2.0 */
/* Persistent reservations: what the files of it share. */
#ifndef LUNFS_ISCSI_SCSI_PR_H
#define LUNFS_ISCSI_SCSI_PR_H

#include "iscsi/scsi_internal.h"

/* An initiator port, as a TransportID names it. */
struct pr_port {
	char	name[SCSI_NAME_MAX];
	uint8_t	isid[6];
	bool	any_isid;	/* format 00b: the initiator device */
};

/** pr_find() - the registration of an initiator port through a target port; -1: none. */
int pr_find(const struct scsi_pr *pr, const char *name, const uint8_t isid[6], uint16_t port);

static inline int pr_find_nexus(const struct scsi_pr *pr, const struct scsi_nexus *n)
{
	return pr_find(pr, n->name, n->isid, n->port);
}

static inline bool pr_is_all_registrants(const struct scsi_pr *pr)
{
	return pr->type == PR_WRITE_EXCLUSIVE_AR || pr->type == PR_EXCLUSIVE_ACCESS_AR;
}

/** pr_holds() - whether registration @i holds the reservation. */
static inline bool pr_holds(const struct scsi_pr *pr, int i)
{
	return pr->type && i >= 0 && (pr_is_all_registrants(pr) || pr->holder == i);
}

/**
 * transport_id_decode() - a TransportID of iSCSI (SPC-5, 7.6.4.6).
 * Return: its length; -EINVAL not one, or longer than @room.
 */
int transport_id_decode(const uint8_t *d, size_t room, struct pr_port *port);

/** transport_id_encode() - Return: its length, at most 4 + SCSI_NAME_MAX + 24. */
size_t transport_id_encode(const struct scsi_pr_reg *reg, uint8_t *d);

#endif
