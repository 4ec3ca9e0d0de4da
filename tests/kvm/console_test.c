/* SPDX-License-Identifier: Apache-2.0 */
/* What the guest writes, and how it reaches who reads it slowly, or not at all. */
#include "kvm/console.h"

#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit.h"

#define WAIT_S		30	/* then a reactor that is held up ends the test */

static struct reactor *r;
static struct console c;
static struct uart uart;

static void out(void *arg, uint8_t byte)
{
	(void)arg;
	(void)byte;
}

static void nothing(void *arg)
{
	(void)arg;
}

static const struct uart_ops uart_ops = { out, nothing, nothing };

static void flush(void *arg)
{
	console_flush(&c);
	*(uint64_t *)arg = console_behind(&c);
}

/* Short lines: a terminal that makes "\r\n" of their ends fills up in the middle of a piece. */
static uint8_t nth(unsigned int i)
{
	return i % 21 == 20 ? '\n' : (uint8_t)('a' + i % 26);
}

static void say_all(void *arg)
{
	for (unsigned int i = 0; i < CONSOLE_SIZE; i++)
		console_put(&c, nth(i));
	flush(arg);
}

/*
 * A terminal is "ready" with less room than a piece: whoever blocks in it holds up the machine's disks and
 * whoever asks for its status, until somebody reads, which after Ctrl-S may be never.
 */
static void terminal_that_nobody_reads_holds_nothing_up_and_loses_nothing(void)
{
	uint64_t behind = 0;
	unsigned int got = 0;
	int other, ours;

	CU_ASSERT_EQUAL_FATAL(openpty(&other, &ours, NULL, NULL, NULL), 0);
	fcntl(ours, F_SETFL, O_NONBLOCK);
	console_init(&c, r, &uart, ours);
	alarm(WAIT_S);
	reactor_call_sync(r, say_all, &behind);
	CU_ASSERT(behind > 0);	/* a terminal takes less than that */
	while (got < CONSOLE_SIZE) {
		uint8_t buf[4096];
		ssize_t n = read(other, buf, sizeof(buf));

		CU_ASSERT_FATAL(n > 0);
		for (ssize_t i = 0; i < n; i++)
			if (buf[i] != '\r' && buf[i] != nth(got++))
				CU_FAIL_FATAL("a byte is missing");
	}
	do {
		reactor_call_sync(r, flush, &behind);
	} while (behind);
	alarm(0);
	close(other);
	close(ours);
}

static void look(void *arg)
{
	int *fd = arg;

	CU_ASSERT(console_has_room(&c));
	CU_ASSERT_EQUAL(console_view(&c, *fd), 0);
}

static void look_in_vain(void *arg)
{
	int *fd = arg;

	CU_ASSERT(!console_has_room(&c));
	CU_ASSERT_EQUAL(console_view(&c, *fd), -EUSERS);
}

/* One that comes when there are as many as can be has to be told, not shown nothing. */
static void ninth_viewer_is_refused(void)
{
	int fds[CONSOLE_VIEWERS_MAX + 1][2];

	console_init(&c, r, &uart, -1);
	for (unsigned int i = 0; i <= CONSOLE_VIEWERS_MAX; i++) {
		CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_STREAM, 0, fds[i]), 0);
		reactor_call_sync(r, i < CONSOLE_VIEWERS_MAX ? look : look_in_vain, &fds[i][0]);
	}
	close(fds[CONSOLE_VIEWERS_MAX][0]);
	for (unsigned int i = 0; i <= CONSOLE_VIEWERS_MAX; i++)
		close(fds[i][1]);
}

static CU_TestInfo tests[] = {
	UNIT_TEST(terminal_that_nobody_reads_holds_nothing_up_and_loses_nothing),
	UNIT_TEST(ninth_viewer_is_refused),
	CU_TEST_INFO_NULL,
};

static int setup(void)
{
	uart_init(&uart, &uart_ops, NULL);
	return reactor_create(env_posix(), "test", 0, CONSOLE_TIMERS, &r) != 0;
}

static int teardown(void)
{
	reactor_destroy(r);
	return 0;
}

int main(void)
{
	return unit_run("console", setup, teardown, tests);
}
