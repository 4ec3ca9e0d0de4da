/* SPDX-License-Identifier: Apache-2.0 */
/* The control commands on virtual disks: docs/CONTROL.md, "disk-…". */
#ifndef LUNFS_DAEMON_CTL_DISK_H
#define LUNFS_DAEMON_CTL_DISK_H

#include "daemon/ctl.h"
#include "daemon/disks.h"

/** ctl_disk_run() - does what @rq, a disk command, says on @s.  As ctl_run(). */
int ctl_disk_run(struct disks *disks, struct store *s, const struct ctl_request *rq, json_t **out,
		 char *why, size_t why_size);

/**
 * ctl_disk_hold() - opens a disk so that nobody changes it as long as @conn lasts.
 * A connection holds one.  ctl_disk_release() ends that.
 */
int ctl_disk_hold(struct ctl *c, struct store *s, const struct ctl_request *rq,
		  struct ctl_conn *conn, json_t **out, char *why, size_t why_size);
void ctl_disk_release(struct ctl *c, struct ctl_conn *conn);

/** ctl_disk_read() - a piece of the disk that @conn holds, in @conn->bytes (ctl_read.c). */
int ctl_disk_read(struct ctl_conn *conn, const struct ctl_request *rq, json_t **out,
		  char *why, size_t why_size);

/* ---- ctl_attach.c ---- */

/** ctl_attachment() - what is told of an attached disk; a new reference. */
json_t *ctl_attachment(struct attachment *a);

int ctl_disk_attach(struct disks *disks, struct store *s, const struct ctl_request *rq, json_t **out,
		    char *why, size_t why_size);
int ctl_disk_detach(struct disks *disks, struct store *s, const struct ctl_request *rq, json_t **out,
		    char *why, size_t why_size);
int ctl_disk_handover(struct disks *disks, struct store *s, const struct ctl_request *rq, json_t **out,
		      char *why, size_t why_size);
/** ctl_disk_list() - of @s, or of all datastores if it is NULL. */
void ctl_disk_list(struct disks *disks, struct store *s, json_t **out);

#endif
