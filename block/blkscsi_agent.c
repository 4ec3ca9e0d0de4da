/* SPDX-License-Identifier: Apache-2.0 */
/* Requests of who may not execute them by himself, and who does it for him. */
#include "block/blkscsi.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/env.h"

#define REQUEST_NS	NSEC_PER_SEC	/* that old it may get before it is executed */

/* ---- asking ---- */

void blkscsi_port_init(struct blkscsi_port *p, const struct blkscsi *s, int fd, const int *lanes,
		       unsigned int lane_count)
{
	assert(lane_count <= BLKSCSI_LANES_MAX);
	*p = (struct blkscsi_port){ .s = *s, .fd = fd, .lane_count = lane_count,
				    .free = (1u << lane_count) - 1 };
	for (unsigned int i = 0; i < lane_count; i++)
		p->lanes[i] = lanes[i];
	pthread_mutex_init(&p->mutex, NULL);
	pthread_cond_init(&p->idle, NULL);
}

void blkscsi_port_fini(struct blkscsi_port *p)
{
	for (unsigned int i = 0; i < p->lane_count; i++)
		close(p->lanes[i]);
	pthread_cond_destroy(&p->idle);
	pthread_mutex_destroy(&p->mutex);
}

static unsigned int take_lane(struct blkscsi_port *p)
{
	unsigned int lane;

	pthread_mutex_lock(&p->mutex);
	while (!p->free)
		pthread_cond_wait(&p->idle, &p->mutex);
	lane = (unsigned int)__builtin_ctz(p->free);
	p->free &= ~(1u << lane);
	pthread_mutex_unlock(&p->mutex);
	return lane;
}

static void give_lane(struct blkscsi_port *p, unsigned int lane)
{
	pthread_mutex_lock(&p->mutex);
	p->free |= 1u << lane;
	pthread_cond_signal(&p->idle);
	pthread_mutex_unlock(&p->mutex);
}

/* An agent that is gone may have executed it. */
static int ask(int lane, const struct blkscsi_request *rq, struct blkscsi_reply *reply)
{
	ssize_t n;

	do {
		n = send(lane, rq, sizeof(*rq), MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n != sizeof(*rq))
		return -EBUSY;
	do {
		n = recv(lane, reply, sizeof(*reply), 0);
	} while (n < 0 && errno == EINTR);
	return n == sizeof(*reply) && reply->err <= 0 ? reply->err : -EIO;
}

int blkscsi_call(struct blkscsi_port *p, struct blkscsi_request *rq, struct blkscsi_reply *reply)
{
	unsigned int lane;
	int err;

	if (!p->lane_count) {
		blkscsi_execute(p->fd, &p->s, rq, reply);
		return reply->err;
	}
	lane = take_lane(p);
	rq->until_ns = env_now_ns(env_posix()) + REQUEST_NS;
	err = ask(p->lanes[lane], rq, reply);
	give_lane(p, lane);
	return err;
}

/* ---- executing ---- */

static bool request_is_right(const struct blkscsi_agent *a, const struct blkscsi_request *rq,
			     ssize_t len)
{
	if (len != sizeof(*rq))
		return false;
	if (rq->op != BLKSCSI_CAW)
		return rq->op >= BLKSCSI_REGISTER && rq->op <= BLKSCSI_BYE;
	return rq->sector == a->sector && rq->off % a->sector == 0 && rq->off < a->size &&
	       a->size - rq->off >= a->sector;
}

static void serve(const struct blkscsi_agent *a, const struct blkscsi_request *rq, ssize_t len,
		  struct blkscsi_reply *reply)
{
	memset(reply, 0, sizeof(*reply));
	if (!request_is_right(a, rq, len))
		reply->err = -EINVAL;
	else if (env_now_ns(env_posix()) > rq->until_ns)
		reply->err = -EBUSY;
	else
		blkscsi_execute(a->fd, &a->s, rq, reply);
	if (!reply->err && rq->op == BLKSCSI_BYE && a->mark_fd >= 0 && ftruncate(a->mark_fd, 0))
		reply->err = -errno;
}

void blkscsi_agent_serve(const struct blkscsi_agent *a, int lane)
{
	struct blkscsi_request *rq = blkdev_alloc(sizeof(*rq));
	struct blkscsi_reply reply;
	ssize_t n;

	while (rq) {
		n = recv(lane, rq, sizeof(*rq), MSG_TRUNC);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		serve(a, rq, n, &reply);
		if (send(lane, &reply, sizeof(reply), MSG_NOSIGNAL) != sizeof(reply))
			break;
	}
	free(rq);
}
