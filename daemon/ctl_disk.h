/* SPDX-License-Identifier: Apache-2.0 */
/* The control commands on virtual disks: docs/CONTROL.md, "disk-…". */
#ifndef LUNFS_DAEMON_CTL_DISK_H
#define LUNFS_DAEMON_CTL_DISK_H

#include "daemon/ctl.h"

/** ctl_disk_run() - does what @rq, a disk command, says on @s.  As ctl_run(). */
int ctl_disk_run(struct store *s, const struct ctl_request *rq, json_t **out, char *why,
		 size_t why_size);

#endif
