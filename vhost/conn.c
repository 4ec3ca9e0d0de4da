/* SPDX-License-Identifier: Apache-2.0 */
/* The socket: messages with descriptors in, answers out.  It never waits for the peer. */
#include "vhost/internal.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#define MESSAGES_A_ROUND	32	/* then the rest of the reactor has its turn */

static size_t msg_wanted(const struct vhu *v)
{
	return v->msg_have < sizeof(v->msg.hdr) ? sizeof(v->msg.hdr) :
	       sizeof(v->msg.hdr) + v->msg.hdr.size;
}

static uint8_t *msg_at(struct vhu *v, size_t at)
{
	/* Header and payload are received one after the other, each where it belongs. */
	return at < sizeof(v->msg.hdr) ? (uint8_t *)&v->msg.hdr + at :
	       v->msg.p.bytes + (at - sizeof(v->msg.hdr));
}

/* Keeps the descriptors that came; too many is the peer's fault.  Return: 0 or -EPROTO. */
static int keep_fds(struct vhu *v, struct msghdr *mh)
{
	int err = mh->msg_flags & MSG_CTRUNC ? -EPROTO : 0;
	struct cmsghdr *c;

	for (c = CMSG_FIRSTHDR(mh); c; c = CMSG_NXTHDR(mh, c)) {
		size_t n, i;
		int fd;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (i = 0; i < n; i++) {
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (v->msg.fd_count < VHU_FDS_MAX) {
				v->msg.fds[v->msg.fd_count++] = fd;
				continue;
			}
			server_discard(v->p.server, fd);
			err = -EPROTO;
		}
	}
	return err;
}

/* Receives up to the end of header or payload.  Return: 1 more came; 0 later; -errno. */
static int receive_some(struct vhu *v)
{
	union {
		char space[CMSG_SPACE(VHU_FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control;
	size_t want = msg_wanted(v) - v->msg_have;
	struct iovec iov = { .iov_base = msg_at(v, v->msg_have), .iov_len = want };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space,
			     .msg_controllen = sizeof(control.space) };
	ssize_t n = recvmsg(v->conn.fd, &mh, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (keep_fds(v, &mh))
		return -EPROTO;
	if (!n)
		return -ECONNRESET;
	v->msg_have += (size_t)n;
	return 1;
}

static int header_check(const struct msg_hdr_wire *h)
{
	return (h->flags & VHU_VERSION_MASK) == VHU_VERSION && !(h->flags & VHU_FLAG_REPLY) &&
	       h->size <= sizeof(union payload_wire) ? 0 : -EPROTO;
}

/* Receives until a message is whole.  Return: 1 it is; 0 later; -errno. */
static int receive_message(struct vhu *v)
{
	for (;;) {
		int ret;

		if (v->msg_have >= sizeof(v->msg.hdr)) {
			if (header_check(&v->msg.hdr))
				return -EPROTO;
			if (v->msg_have == msg_wanted(v))
				return 1;
		}
		ret = receive_some(v);
		if (ret <= 0)
			return ret;
	}
}

static void message_end(struct vhu *v)
{
	msg_discard_fds(v);
	memset(&v->msg, 0, sizeof(v->msg));
	v->msg_have = 0;
}

static void conn_ready(struct reactor_fd *f, uint32_t events)
{
	struct vhu *v = container_of(f, struct vhu, conn);
	int i;

	(void)events;
	for (i = 0; i < MESSAGES_A_ROUND && !v->cut && !v->drained; i++) {
		int ret = receive_message(v);

		if (!ret)
			return;
		if (ret == -ECONNRESET) {
			vhu_cut(v, VHU_END_CLOSED, "the front end closed the connection");
		} else if (ret < 0) {
			vhu_cut(v, VHU_END_PROTOCOL, "what it sends is no vhost-user message");
		} else {
			msg_serve(v);
			if (!v->drained)
				message_end(v);
		}
	}
}

void vhu_conn_resume(struct vhu *v)
{
	message_end(v);
	if (v->cut || v->conn.added)
		return;
	if (reactor_add(v->r, &v->conn, EPOLLIN))
		vhu_cut(v, VHU_END_PROTOCOL, "its socket cannot be watched");
}

void conn_reply(struct vhu *v, size_t size, int fd)
{
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { .space = { 0 } };
	struct msg_hdr_wire h = { .request = v->msg.hdr.request,
				  .flags = VHU_VERSION | VHU_FLAG_REPLY, .size = (uint32_t)size };
	struct iovec iov[2] = { { &h, sizeof(h) }, { v->msg.p.bytes, size } };
	struct msghdr mh = { .msg_iov = iov, .msg_iovlen = 2 };

	if (fd >= 0) {
		mh.msg_control = control.space;
		mh.msg_controllen = sizeof(control.space);
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.align), &fd, sizeof(fd));
	}
	/* Answers are small: a peer for which there is no room does not read them. */
	if (sendmsg(v->conn.fd, &mh, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)(sizeof(h) + size))
		vhu_cut(v, VHU_END_PROTOCOL, "it does not take our answers");
}

void conn_ack(struct vhu *v, int err)
{
	if (v->protocol_features & FEATURE(VHU_PF_REPLY_ACK) &&
	    v->msg.hdr.flags & VHU_FLAG_NEED_REPLY) {
		v->msg.p.u64 = err ? 1 : 0;
		conn_reply(v, sizeof(uint64_t), -1);
	}
}

void conn_send_config_change(struct vhu *v)
{
	struct msg_hdr_wire h = { .request = VHU_BACKEND_CONFIG_CHANGE, .flags = VHU_VERSION };

	if (v->backend_fd < 0)
		return;
	if (send(v->backend_fd, &h, sizeof(h), MSG_DONTWAIT | MSG_NOSIGNAL) != sizeof(h))
		log_warning(v->env, v->name, "the front end could not be told of the new size; "
			    "the guest sees it when it is restarted");
}

int conn_open(struct vhu *v, int fd)
{
	int err;

	v->conn = (struct reactor_fd){ .fd = fd, .ready = conn_ready };
	v->msg_have = 0;
	memset(&v->msg, 0, sizeof(v->msg));
	err = reactor_add(v->r, &v->conn, EPOLLIN);
	if (err)
		v->conn.fd = -1;
	return err;
}

void vhu_conn_close(struct vhu *v)
{
	reactor_remove(v->r, &v->conn);
	message_end(v);
	close(v->conn.fd);
	v->conn.fd = -1;
	if (v->backend_fd >= 0)
		close(v->backend_fd);
	v->backend_fd = -1;
}
