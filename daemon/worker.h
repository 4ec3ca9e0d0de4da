/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lunfsd's unprivileged half: everything that faces clients, kernels' requests and disks.
 * Started by parent.c as this same program with --role=worker.
 */
#ifndef LUNFS_DAEMON_WORKER_H
#define LUNFS_DAEMON_WORKER_H

/** worker_run() - with the descriptors of rpc.h; returns the exit status. */
int worker_run(void);

#endif
