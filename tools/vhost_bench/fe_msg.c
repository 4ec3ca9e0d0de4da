/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/vhost_bench/fe_msg.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/text.h"

static int fail(struct fe *f, int err, unsigned int type, const char *what)
{
	return text_refuse(err, f->why, sizeof(f->why), "message %u: %s", type, what);
}

static int fail_errno(struct fe *f, unsigned int type)
{
	int err = errno == EPIPE ? -ECONNRESET : -errno;

	return fail(f, err, type, err == -ECONNRESET ? "the server hung up" : strerror(-err));
}

/* Header and payload in one piece: they are small against any socket's buffer. */
static int send_message(struct fe *f, unsigned int type, uint32_t flags, const void *payload,
			size_t size, const int *fds, unsigned int fd_count)
{
	union {
		char space[CMSG_SPACE(VHU_FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control = { .space = { 0 } };
	struct msg_hdr_wire h = { .request = type, .flags = VHU_VERSION | flags,
				  .size = (uint32_t)size };
	struct iovec iov[2] = { { &h, sizeof(h) }, { (void *)(uintptr_t)payload, size } };
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = 2 };

	if (fd_count) {
		mh.msg_control = control.space;
		mh.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(fd_count * sizeof(int));
		memcpy(CMSG_DATA(&control.align), fds, fd_count * sizeof(int));
	}
	if (sendmsg(f->fd, &mh, MSG_NOSIGNAL) != (ssize_t)(sizeof(h) + size))
		return fail_errno(f, type);
	return 0;
}

/* @size bytes, and a descriptor that comes with the first of them. */
static int receive(struct fe *f, unsigned int type, void *buf, size_t size, int *fd)
{
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	size_t have = 0;

	while (have < size) {
		struct iovec iov = { (uint8_t *)buf + have, size - have };
		struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1,
				     .msg_control = control.space,
				     .msg_controllen = sizeof(control.space) };
		struct pollfd p = { .fd = f->fd, .events = POLLIN };
		struct cmsghdr *c;
		ssize_t n;

		if (poll(&p, 1, FE_ANSWER_MS) <= 0)
			return fail(f, -ETIMEDOUT, type, "the server does not answer");
		n = recvmsg(f->fd, &mh, MSG_CMSG_CLOEXEC);
		if (n < 0)
			return fail_errno(f, type);
		if (!n)
			return fail(f, -ECONNRESET, type, "the server hung up");
		c = CMSG_FIRSTHDR(&mh);
		if (c && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)) &&
		    fd && *fd < 0)
			memcpy(fd, CMSG_DATA(c), sizeof(*fd));
		have += (size_t)n;
	}
	return 0;
}

static int receive_answer(struct fe *f, unsigned int type, void *answer, size_t want, int *fd)
{
	struct msg_hdr_wire h;
	uint8_t rest[64];
	int err = receive(f, type, &h, sizeof(h), fd);

	if (err)
		return err;
	if (h.request != type || !(h.flags & VHU_FLAG_REPLY))
		return fail(f, -EPROTO, type, "the server answers something else");
	if (h.size < want) {
		/* The way in which some of them say no. */
		if (h.size <= sizeof(rest))
			receive(f, type, rest, h.size, fd);
		return fail(f, -EPROTO, type, "the server's answer is too short");
	}
	err = receive(f, type, answer, want, fd);
	for (h.size -= (uint32_t)want; h.size && !err;) {
		size_t n = h.size < sizeof(rest) ? h.size : sizeof(rest);

		err = receive(f, type, rest, n, fd);
		h.size -= (uint32_t)n;
	}
	return err;
}

int fe_msg_set(struct fe *f, unsigned int type, const void *payload, size_t size, const int *fds,
	       unsigned int fd_count)
{
	bool ack = f->protocol & FEATURE(VHU_PF_REPLY_ACK) && type != VHU_SET_PROTOCOL_FEATURES;
	uint64_t result = 0;
	int err = send_message(f, type, ack ? VHU_FLAG_NEED_REPLY : 0, payload, size, fds,
			       fd_count);

	if (!err && ack)
		err = receive_answer(f, type, &result, sizeof(result), NULL);
	if (!err && result)
		err = fail(f, -EINVAL, type, "the server says no");
	return err;
}

int fe_msg_set_u64(struct fe *f, unsigned int type, uint64_t u, int fd)
{
	return fe_msg_set(f, type, &u, sizeof(u), &fd, fd >= 0);
}

int fe_msg_get(struct fe *f, unsigned int type, const void *payload, size_t size, void *answer,
	       size_t want, int *fd)
{
	int err = send_message(f, type, 0, payload, size, NULL, 0);

	if (fd)
		*fd = -1;
	if (!err)
		err = receive_answer(f, type, answer, want, fd);
	if (!err && fd && *fd < 0)
		err = fail(f, -EPROTO, type, "a descriptor is missing in the server's answer");
	return err;
}

int fe_msg_get_u64(struct fe *f, unsigned int type, uint64_t *u)
{
	return fe_msg_get(f, type, NULL, 0, u, sizeof(*u), NULL);
}
