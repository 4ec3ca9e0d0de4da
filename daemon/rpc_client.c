/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/rpc_client.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

/* A call under way, on its caller's stack. */
struct call {
	struct list	node;
	uint64_t	id;
	struct rpc_reply *reply;
	int		*fds;
	unsigned int	fd_count;
	bool		done;
	pthread_cond_t	answered;
};

static struct call *find_call(struct rpc_client *c, uint64_t id)
{
	struct call *call, *tmp;

	list_for_each(call, tmp, &c->calls, node)
		if (call->id == id)
			return call;
	return NULL;
}

static void take_reply(struct rpc_client *c, const struct rpc_reply *reply, const int *fds,
		       unsigned int fd_count)
{
	struct call *call;

	pthread_mutex_lock(&c->mutex);
	call = find_call(c, reply->id);
	if (call) {
		*call->reply = *reply;
		call->reply->why[RPC_WHY_SIZE - 1] = '\0';
		if (call->fds) {
			memcpy(call->fds, fds, fd_count * sizeof(*fds));
			call->fd_count = fd_count;
		}
		list_del(&call->node);
		call->done = true;
		pthread_cond_signal(&call->answered);
	}
	if (!call || !call->fds)
		packet_close_fds(fds, fd_count);
	pthread_mutex_unlock(&c->mutex);
}

static void *read_replies(void *arg)
{
	struct rpc_client *c = arg;
	struct rpc_reply reply;
	int fds[PACKET_FDS_MAX];
	unsigned int fd_count;

	for (;;) {
		int err = packet_recv(c->sock, &reply, sizeof(reply), fds, &fd_count);

		/* Without its parent a worker can neither fence nor unmount: it ends with it. */
		if (err == -EPIPE)
			_exit(1);
		if (!err && reply.magic == RPC_MAGIC)
			take_reply(c, &reply, fds, fd_count);
		else if (!err)
			packet_close_fds(fds, fd_count);
	}
	return NULL;
}

int rpc_client_start(struct rpc_client *c, int sock)
{
	c->sock = sock;
	c->last_id = 0;
	list_init(&c->calls);
	pthread_mutex_init(&c->mutex, NULL);
	return -pthread_create(&c->reader, NULL, read_replies, c);
}

int rpc_call(struct rpc_client *c, struct rpc_request *rq, int fd, struct rpc_reply *reply,
	     int *fds, unsigned int *fd_count)
{
	struct call call = { .reply = reply, .fds = fds };
	int err;

	memset(reply, 0, sizeof(*reply));
	pthread_cond_init(&call.answered, NULL);
	pthread_mutex_lock(&c->mutex);
	call.id = rq->id = ++c->last_id;
	rq->magic = RPC_MAGIC;
	list_add_tail(&c->calls, &call.node);
	pthread_mutex_unlock(&c->mutex);

	err = packet_send(c->sock, rq, sizeof(*rq), &fd, fd >= 0);

	pthread_mutex_lock(&c->mutex);
	while (!err && !call.done)
		pthread_cond_wait(&call.answered, &c->mutex);
	if (err && !call.done)
		list_del(&call.node);
	pthread_mutex_unlock(&c->mutex);
	pthread_cond_destroy(&call.answered);
	if (err)
		snprintf(reply->why, sizeof(reply->why), "the privileged half cannot be asked: %s",
			 strerror(-err));
	if (fd_count)
		*fd_count = call.fd_count;
	return err ? err : reply->err;
}
