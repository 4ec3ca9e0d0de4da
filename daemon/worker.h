/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lunfsd's unprivileged half: everything that faces clients, kernels' requests and disks.
 * Started by parent.c as this same program with --role=worker.
 */
#ifndef LUNFS_DAEMON_WORKER_H
#define LUNFS_DAEMON_WORKER_H

#include "daemon/ctl.h"
#include "daemon/disks.h"
#include "daemon/merger.h"
#include "daemon/metrics_http.h"
#include "daemon/store.h"

/* What serves, from the worker's start to its end. */
struct serving {
	struct stores	stores;
	struct disks	disks;
	struct merger	merger;
	struct metrics_http *metrics;	/* NULL: no port */
	struct ctl	ctl;
};

/**
 * serving_end() - gives all disks and datastores up.  Who asks meanwhile is answered; nothing is freed
 * before the last such command has ended, and none begins any more.
 * Return: 0; as stores_shutdown().
 */
int serving_end(struct serving *s);

/** worker_run() - with the descriptors of rpc.h; returns the exit status. */
int worker_run(void);

#endif
