// SPDX-License-Identifier: Apache-2.0
#include "proc/packet.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit.h"

/* Descriptors arrive once, and none leaks when a packet is refused. */
static void packets_carry_descriptors_and_refused_ones_leak_none(void)
{
	int sock[2], fds[PACKET_FDS_MAX], sent[2], before, after;
	unsigned int count = 99;
	struct stat { char c[8]; } msg = { "1234567" }, got;

	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sock), 0);
	CU_ASSERT_EQUAL_FATAL(pipe(sent), 0);
	CU_ASSERT_EQUAL(packet_send(sock[0], &msg, sizeof(msg), sent, 2), 0);
	CU_ASSERT_EQUAL(packet_recv(sock[1], &got, sizeof(got), fds, &count), 0);
	CU_ASSERT_EQUAL(count, 2);
	CU_ASSERT_STRING_EQUAL(got.c, "1234567");
	CU_ASSERT_EQUAL(fcntl(fds[0], F_GETFD), FD_CLOEXEC);
	packet_close_fds(fds, count);

	before = dup(0);
	close(before);
	CU_ASSERT_EQUAL(packet_send(sock[0], &msg, 3, sent, 2), 0);
	CU_ASSERT_EQUAL(packet_recv(sock[1], &got, sizeof(got), fds, &count), -EPROTO);
	CU_ASSERT_EQUAL(count, 0);
	after = dup(0);
	close(after);
	CU_ASSERT_EQUAL(before, after);
	close(sock[0]);
	CU_ASSERT_EQUAL(packet_recv(sock[1], &got, sizeof(got), fds, &count), -EPIPE);
	close(sock[1]);
	packet_close_fds(sent, 2);
}

UNIT_MAIN("packet", UNIT_TEST(packets_carry_descriptors_and_refused_ones_leak_none));
