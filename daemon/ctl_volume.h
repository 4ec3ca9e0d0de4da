/* SPDX-License-Identifier: Apache-2.0 */
/* The control commands on whole volumes: docs/CONTROL.md, "volume-…". */
#ifndef LUNFS_DAEMON_CTL_VOLUME_H
#define LUNFS_DAEMON_CTL_VOLUME_H

#include "daemon/ctl.h"

/** ctl_volume_grow() - as ctl_run(). */
int ctl_volume_grow(struct store *s, const struct ctl_request *rq, json_t **out, char *why,
		    size_t why_size);

/** ctl_volume_reclaim() - a piece; as ctl_run(). */
int ctl_volume_reclaim(struct store *s, const struct ctl_request *rq, json_t **out, char *why,
		       size_t why_size);

#endif
