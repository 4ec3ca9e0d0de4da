/* SPDX-License-Identifier: Apache-2.0 */
/* The control commands on checks: docs/CONTROL.md, "check-…"; and what status says of the scrub. */
#ifndef LUNFS_DAEMON_CTL_CHECK_H
#define LUNFS_DAEMON_CTL_CHECK_H

#include "daemon/ctl.h"

/** ctl_check_start(), ctl_check_status() - as ctl_run(). */
int ctl_check_start(struct store *s, const struct ctl_request *rq, json_t **out, char *why,
		    size_t why_size);
int ctl_check_status(struct store *s, const struct ctl_request *rq, json_t **out, char *why,
		     size_t why_size);

/** put_scrub() - how far it is, and what it has found, as "scrub" of @o. */
void put_scrub(json_t *o, struct store *s);

#endif
