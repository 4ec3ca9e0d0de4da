/* SPDX-License-Identifier: Apache-2.0 */
/* The worker's side of rpc.h: calls from any thread, many at a time. */
#ifndef LUNFS_DAEMON_RPC_CLIENT_H
#define LUNFS_DAEMON_RPC_CLIENT_H

#include <pthread.h>

#include "daemon/rpc.h"

struct rpc_client {
	int		sock;
	pthread_t	reader;
	pthread_mutex_t	mutex;	/* the list and the ids; a leaf */
	struct list	calls;	/* under way */
	uint64_t	last_id;
};

/**
 * rpc_client_start() - takes replies off @sock from now on, in a thread of its own.
 * When the parent is gone that thread ends the process.  Return: 0 or -errno.
 */
int rpc_client_start(struct rpc_client *c, int sock);

/**
 * rpc_call() - one request and its reply.
 * @rq:     op and its arguments set; the rest is filled in.
 * @fd:     to be passed along, or -1.
 * @reply:  receives the reply; its why[] is always a text when the answer is an error.
 * @fds:    receives descriptors, PACKET_FDS_MAX of room; *@fd_count of them; NULL: none expected.
 * Context: blocks as long as the operation takes.  Return: 0 or negative errno.
 */
int rpc_call(struct rpc_client *c, struct rpc_request *rq, int fd, struct rpc_reply *reply,
	     int *fds, unsigned int *fd_count);

#endif
