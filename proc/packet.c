/* SPDX-License-Identifier: Apache-2.0 */
#include "proc/packet.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

/* Space for PACKET_FDS_MAX descriptors, aligned as the kernel wants it. */
union control_buf {
	char bytes[CMSG_SPACE(PACKET_FDS_MAX * sizeof(int))];
	struct cmsghdr align;
};

int packet_send(int sock, const void *msg, size_t len, const int *fds, unsigned int fd_count)
{
	union control_buf control;
	struct iovec iov = { (void *)(uintptr_t)msg, len };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *cm;
	ssize_t n;

	assert(fd_count <= PACKET_FDS_MAX);
	if (fd_count) {
		memset(&control, 0, sizeof(control));
		mh.msg_control = control.bytes;
		mh.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
		cm = CMSG_FIRSTHDR(&mh);
		cm->cmsg_level = SOL_SOCKET;
		cm->cmsg_type = SCM_RIGHTS;
		cm->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
		memcpy(CMSG_DATA(cm), fds, fd_count * sizeof(int));
	}
	do {
		n = sendmsg(sock, &mh, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return (size_t)n == len ? 0 : -EPROTO;
}

int packet_send_now(int sock, const void *msg, size_t len)
{
	ssize_t n = send(sock, msg, len, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n < 0)
		return -errno;
	return (size_t)n == len ? 0 : -EPROTO;
}

void packet_close_fds(const int *fds, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		close(fds[i]);
}

static void take_fds(struct msghdr *mh, int fds[PACKET_FDS_MAX], unsigned int *fd_count)
{
	for (struct cmsghdr *cm = CMSG_FIRSTHDR(mh); cm; cm = CMSG_NXTHDR(mh, cm)) {
		unsigned int n;

		if (cm->cmsg_level != SOL_SOCKET || cm->cmsg_type != SCM_RIGHTS)
			continue;
		n = (unsigned int)((cm->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		if (n > PACKET_FDS_MAX - *fd_count)	/* the buffer holds no more */
			n = PACKET_FDS_MAX - *fd_count;
		memcpy(fds + *fd_count, CMSG_DATA(cm), n * sizeof(int));
		*fd_count += n;
	}
}

int packet_recv(int sock, void *msg, size_t len, int fds[PACKET_FDS_MAX], unsigned int *fd_count)
{
	union control_buf control;
	struct iovec iov = { msg, len };
	struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes,
			     .msg_controllen = sizeof(control.bytes) };
	ssize_t n;

	*fd_count = 0;
	do {
		n = recvmsg(sock, &mh, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n <= 0)
		return n < 0 && errno != ECONNRESET ? -errno : -EPIPE;
	take_fds(&mh, fds, fd_count);
	if ((size_t)n == len && !(mh.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
		return 0;
	packet_close_fds(fds, *fd_count);
	*fd_count = 0;
	return -EPROTO;
}
