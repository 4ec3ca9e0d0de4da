/* SPDX-License-Identifier: Apache-2.0 */
/* A worker that was taken over gets nothing but what root is asking for (R9). */
#include "daemon/parent.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "daemon/ctl.h"

static int refuse(struct rpc_reply *reply, const char *why)
{
	snprintf(reply->why, sizeof(reply->why), "%s", why);
	return -EPERM;
}

/* A connection that root made to our socket, and still waits on. */
static int check_connection(const struct parent *p, int fd, struct rpc_reply *reply)
{
	struct sockaddr_un addr = { 0 };
	socklen_t addr_len = sizeof(addr) - 1, cred_len = sizeof(struct ucred);
	struct ucred cred = { 0 };
	struct pollfd gone = { .fd = fd };

	if (getsockname(fd, (struct sockaddr *)&addr, &addr_len) || addr.sun_family != AF_UNIX ||
	    strcmp(addr.sun_path, p->control_path) ||
	    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &cred_len) ||
	    cred_len != sizeof(cred) || cred.uid != 0)
		return refuse(reply, "only root may ask for this");
	if (poll(&gone, 1, 0))
		return refuse(reply, "who asked for this has gone");
	return 0;
}

/* The worker leaves a request in the socket until it is answered. */
static int read_asked(const struct parent *p, int fd, struct ctl_request *asked,
		      struct rpc_reply *reply)
{
	char *line = malloc(CTL_LINE_MAX), *end = NULL;
	int err = check_connection(p, fd, reply);
	ssize_t n;

	memset(asked, 0, sizeof(*asked));
	if (!err && line) {
		n = recv(fd, line, CTL_LINE_MAX, MSG_PEEK | MSG_DONTWAIT);
		end = n > 0 ? memchr(line, '\n', (size_t)n) : NULL;
	}
	if (!err && !line)
		err = refuse(reply, "out of memory; try again");
	if (!err)
		err = end ? ctl_request_parse(line, (size_t)(end - line), true, asked, reply->why,
					      sizeof(reply->why)) :
			    refuse(reply, "nobody is asking for this");
	free(line);
	return err ? -EPERM : 0;
}

static bool open_is_asked(const struct ctl_request *asked, const struct rpc_open *rq)
{
	unsigned int flags = asked->attach_flags & FS_RESCUE ?
			     RPC_OPEN_READ_ONLY | RPC_OPEN_NO_HOST_LOCK : 0;

	return (asked->cmd == CTL_ATTACH || asked->cmd == CTL_MOUNT) && rq->flags == flags &&
	       !strcmp(asked->device, rq->path);
}

static bool mount_is_asked(const struct ctl_request *asked, const struct rpc_mount *rq)
{
	return asked->cmd == CTL_MOUNT && rq->flags == asked->mount_flags &&
	       !strcmp(asked->dir, rq->dir) &&
	       !strcmp(asked->source ? asked->source : asked->device, rq->source);
}

int parent_asked_open(const struct parent *p, int fd, const struct rpc_open *rq,
		      struct rpc_reply *reply)
{
	struct ctl_request asked;
	int err = read_asked(p, fd, &asked, reply);

	if (!err && !open_is_asked(&asked, rq))
		err = refuse(reply, "root asked to open something else");
	ctl_request_free(&asked);
	return err;
}

int parent_asked_mount(const struct parent *p, int fd, const struct rpc_mount *rq,
		       struct rpc_reply *reply)
{
	struct ctl_request asked;
	int err = read_asked(p, fd, &asked, reply);

	if (!err && !mount_is_asked(&asked, rq))
		err = refuse(reply, "root asked to mount something else");
	ctl_request_free(&asked);
	return err;
}
