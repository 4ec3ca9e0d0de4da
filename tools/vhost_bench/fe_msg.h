/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of a front end: one goes out and, if it has an answer, that is waited for. */
#ifndef LUNFS_VHOST_BENCH_FE_MSG_H
#define LUNFS_VHOST_BENCH_FE_MSG_H

#include "tools/vhost_bench/fe.h"

/**
 * fe_msg_set() - sends a message that wants no data back.
 *
 * Where the server acknowledges (REPLY_ACK) this waits until it has.
 * Return: 0; -EINVAL the server says no; -ECONNRESET it hung up; -ETIMEDOUT it does not answer;
 * -EPROTO its answer is none; with f->why.
 */
int fe_msg_set(struct fe *f, unsigned int type, const void *payload, size_t size, const int *fds,
	       unsigned int fd_count);

/** fe_msg_set_u64() - the same with a number, and @fd unless it is -1. */
int fe_msg_set_u64(struct fe *f, unsigned int type, uint64_t u, int fd);

/**
 * fe_msg_get() - sends @payload and receives the answer, of @want bytes, into @answer.
 * @fd: not NULL: receives the descriptor that comes with it.
 * Return: as fe_msg_set().
 */
int fe_msg_get(struct fe *f, unsigned int type, const void *payload, size_t size, void *answer,
	       size_t want, int *fd);

int fe_msg_get_u64(struct fe *f, unsigned int type, uint64_t *u);

#endif
