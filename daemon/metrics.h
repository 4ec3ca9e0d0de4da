/* SPDX-License-Identifier: Apache-2.0 */
/* What the daemon has counted, in Prometheus' text format 0.0.4.  docs/CONTROL.md, "Metrics". */
#ifndef LUNFS_DAEMON_METRICS_H
#define LUNFS_DAEMON_METRICS_H

#include "daemon/disks.h"

/**
 * metrics_text() - all of it, now.  The counters are those of each reactor and thread; nobody
 * who counts waits for us.
 * Return: text, to be freed; NULL when out of memory.
 */
char *metrics_text(struct stores *stores, struct disks *disks);

#endif
