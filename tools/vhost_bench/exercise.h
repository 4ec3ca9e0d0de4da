/* SPDX-License-Identifier: Apache-2.0 */
/* What a vhost-user-blk server must do beside reading and writing fast. */
#ifndef LUNFS_VHOST_BENCH_EXERCISE_H
#define LUNFS_VHOST_BENCH_EXERCISE_H

#include "tools/vhost_bench/fe.h"

/**
 * exercise_run() - goes through all of it with queue 0 of @f, overwriting the disk's first
 * megabyte; prints "ok: …", "failed: …", "not offered: …" lines on stdout.
 * @f: open, nothing under way; two segments a request or more, 128 KiB of data a request.
 * Return: how many failed; -errno the connection is gone, with f->why.
 */
int exercise_run(struct fe *f);

#endif
