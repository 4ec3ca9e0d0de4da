/* SPDX-License-Identifier: Apache-2.0 */
/* The port of metrics, under scrapers and under clients that mean no good. */
#include "daemon/metrics_http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit.h"

#define GET	"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
#define LARGE	(8 * MIB)

static struct metrics_http *http;
static struct sockaddr_in addr;
static unsigned int made;	/* texts */
static size_t text_len;
static bool no_memory;
static bool hangs;		/* in a text, until told to go on */
static sem_t hanging, goes_on;

static char *text(void *arg)
{
	char *t = no_memory ? NULL : malloc(text_len + 1);

	(void)arg;
	__atomic_add_fetch(&made, 1, __ATOMIC_RELAXED);
	if (hangs) {
		sem_post(&hanging);
		sem_wait(&goes_on);
	}
	if (!t)
		return NULL;
	memset(t, 'm', text_len);
	t[text_len] = '\0';
	return t;
}

/* Who connects from here on, and may ask, is served once that has begun. */
static struct metrics_http_params listening(uint64_t client_ms, size_t len)
{
	struct metrics_http_params p = { .text = text, .client_ns = client_ms * NSEC_PER_MSEC };
	socklen_t addr_len = sizeof(addr);

	addr = (struct sockaddr_in){ .sin_family = AF_INET,
				     .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	p.sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	CU_ASSERT_EQUAL_FATAL(bind(p.sock, (struct sockaddr *)&addr, addr_len), 0);
	CU_ASSERT_EQUAL_FATAL(listen(p.sock, 64), 0);
	CU_ASSERT_EQUAL(getsockname(p.sock, (struct sockaddr *)&addr, &addr_len), 0);
	made = 0;
	text_len = len;
	no_memory = false;
	return p;
}

static void start(uint64_t client_ms, size_t len)
{
	struct metrics_http_params p = listening(client_ms, len);

	CU_ASSERT_EQUAL_FATAL(metrics_http_start(&p, &http), 0);
}

static int dial(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CU_ASSERT_EQUAL_FATAL(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

/* Everything until the server closes; the status, or 0 if it said nothing. */
static unsigned int reply(int fd, size_t *body)
{
	static char buf[LARGE + 4096];
	size_t len = 0;
	unsigned int status = 0;
	char *end;
	ssize_t n;

	while (len < sizeof(buf) - 1 && (n = recv(fd, buf + len, sizeof(buf) - 1 - len, 0)) > 0)
		len += (size_t)n;
	buf[len] = '\0';
	close(fd);
	end = strstr(buf, "\r\n\r\n");
	if (!end || sscanf(buf, "HTTP/1.1 %u ", &status) != 1)
		return 0;
	if (body)
		*body = len - (size_t)(end + 4 - buf);
	return status;
}

static unsigned int ask(const char *request, size_t *body)
{
	int fd = dial();

	CU_ASSERT(send(fd, request, strlen(request), MSG_NOSIGNAL) > 0);
	return reply(fd, body);
}

static void requests_are_judged(void)
{
	static const struct { const char *text; unsigned int status; } cases[] = {
		{ GET, 200 }, { "GET /metrics?x=y HTTP/1.0\r\n\r\n", 200 },
		{ "HEAD /metrics HTTP/1.1\r\n\r\n", 200 }, { "GET / HTTP/1.1\r\n\r\n", 404 },
		{ "GET /metricsx HTTP/1.1\r\n\r\n", 404 }, { "GET /metric HTTP/1.1\r\n\r\n", 404 },
		{ "POST /metrics HTTP/1.1\r\n\r\n", 405 }, { "get /metrics HTTP/1.1\r\n\r\n", 405 },
		{ "GET /metrics HTTP/2.0\r\n\r\n", 505 }, { "GET /metrics HTTP/1.11\r\n\r\n", 505 },
		{ "GET /metrics\r\n\r\n", 400 }, { "\r\n\r\n", 400 }, { " \r\n\r\n", 400 },
		{ "GET  HTTP/1.1\r\n\r\n", 404 }, { "nonsense\r\n\r\n", 400 },
		{ "", 0 }, { "GET /metrics HTTP/1.1\r\n", 0 }, { "GET /metrics HTTP/1.1\n\n", 0 },
	};
	char full[METRICS_REQUEST_MAX];
	bool head;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		size_t len = strlen(cases[i].text);
		char *exact = malloc(len + 1);	/* so that a byte too far is noticed */

		memcpy(exact, cases[i].text, len);
		CU_ASSERT_EQUAL(metrics_http_judge(exact, len, &head), cases[i].status);
		CU_ASSERT_EQUAL(head, cases[i].text[0] == 'H');
		free(exact);
	}
	CU_ASSERT_EQUAL(metrics_http_judge("G\0T /metrics HTTP/1.1\r\n\r\n", 25, &head), 400);
	memset(full, 'x', sizeof(full));
	CU_ASSERT_EQUAL(metrics_http_judge(full, sizeof(full) - 1, &head), 0);
	CU_ASSERT_EQUAL(metrics_http_judge(full, sizeof(full), &head), 431);
}

static void a_scraper_gets_the_whole_text(void)
{
	size_t body = 0;

	start(20000, LARGE);
	CU_ASSERT_EQUAL(ask(GET, &body), 200);
	CU_ASSERT_EQUAL(body, LARGE);
	CU_ASSERT_EQUAL(ask("HEAD /metrics HTTP/1.1\r\n\r\n", &body), 200);
	CU_ASSERT_EQUAL(body, 0);
	CU_ASSERT_EQUAL(ask("GET / HTTP/1.1\r\n\r\n", &body), 404);
	metrics_http_stop(http);
}

static void who_asks_all_the_time_makes_no_work(void)
{
	uint64_t began = env_now_ns(env_posix()), rounds;

	start(20000, 1000);
	for (unsigned int i = 0; i < 100; i++)
		CU_ASSERT_EQUAL(ask(GET, NULL), 200);
	rounds = (env_now_ns(env_posix()) - began) / METRICS_FRESH_NS + 1;
	CU_ASSERT(__atomic_load_n(&made, __ATOMIC_RELAXED) <= rounds);
	metrics_http_stop(http);
}

/* One that sends a byte now and then, one that reads nothing, one that says nothing. */
static void who_is_slow_is_cut_off(void)
{
	int slow, deaf, mute, small = 4096;
	struct metrics_http_params p = listening(300, LARGE);
	uint64_t began = env_now_ns(env_posix());
	ssize_t n = 1;

	deaf = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(deaf, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	CU_ASSERT_EQUAL_FATAL(connect(deaf, (struct sockaddr *)&addr, sizeof(addr)), 0);
	CU_ASSERT(send(deaf, GET, strlen(GET), MSG_NOSIGNAL) > 0);
	CU_ASSERT_EQUAL_FATAL(metrics_http_start(&p, &http), 0);
	slow = dial();
	mute = dial();
	for (unsigned int i = 0; i < 1000 && n > 0; i++) {
		struct pollfd pfd = { .fd = slow, .events = POLLIN };

		n = send(slow, "G", 1, MSG_NOSIGNAL);
		if (poll(&pfd, 1, 20) > 0)
			n = 0;
	}
	CU_ASSERT(n <= 0);
	CU_ASSERT(env_now_ns(env_posix()) - began > 250 * NSEC_PER_MSEC);
	CU_ASSERT_EQUAL(recv(mute, &small, 1, 0), 0);
	CU_ASSERT_EQUAL(reply(deaf, NULL), 200);	/* as far as it got */
	close(slow);
	close(mute);
	metrics_http_stop(http);
}

static void who_holds_connections_keeps_nobody_out(void)
{
	int held[4 * METRICS_CLIENTS_MAX];

	start(60000, 1000);
	for (unsigned int i = 0; i < ARRAY_SIZE(held); i++)
		held[i] = dial();
	CU_ASSERT_EQUAL(ask(GET, NULL), 200);
	CU_ASSERT_EQUAL(ask(GET, NULL), 200);
	for (unsigned int i = 0; i < ARRAY_SIZE(held); i++)
		close(held[i]);
	no_memory = true;
	env_sleep_until(env_posix(), env_now_ns(env_posix()) + METRICS_FRESH_NS + NSEC_PER_MSEC);
	CU_ASSERT_EQUAL(ask(GET, NULL), 503);
	held[0] = dial();
	metrics_http_stop(http);	/* with somebody connected */
	close(held[0]);
}

/* A text that takes longer than clients may, for a datastore hangs: neither who it is made for is cut off, nor the next. */
static void who_waits_for_a_text_is_not_slow(void)
{
	struct metrics_http_params p = listening(300, 1000);
	size_t body = 0;
	int first, next;

	sem_init(&hanging, 0, 0);
	sem_init(&goes_on, 0, 0);
	hangs = true;
	next = dial();
	first = dial();
	CU_ASSERT(send(first, GET, strlen(GET), MSG_NOSIGNAL) > 0);
	CU_ASSERT_EQUAL_FATAL(metrics_http_start(&p, &http), 0);
	sem_wait(&hanging);
	CU_ASSERT(send(next, GET, strlen(GET), MSG_NOSIGNAL) > 0);
	env_sleep_until(env_posix(), env_now_ns(env_posix()) + 350 * NSEC_PER_MSEC);
	hangs = false;
	sem_post(&goes_on);
	CU_ASSERT_EQUAL(reply(first, &body), 200);
	CU_ASSERT_EQUAL(body, 1000);
	CU_ASSERT_EQUAL(reply(next, NULL), 200);
	metrics_http_stop(http);
}

/* A daemon that ends gives its disks up between the two, also if a datastore hangs whose metrics are asked for. */
static void who_ends_it_does_not_wait_for_a_text(void)
{
	int fd;

	sem_init(&hanging, 0, 0);
	sem_init(&goes_on, 0, 0);
	start(0, 100);
	hangs = true;
	fd = dial();
	CU_ASSERT_EQUAL(send(fd, GET, strlen(GET), MSG_NOSIGNAL), (ssize_t)strlen(GET));
	sem_wait(&hanging);
	metrics_http_end(http);
	hangs = false;
	sem_post(&goes_on);
	metrics_http_stop(http);
	close(fd);
	CU_ASSERT_EQUAL(made, 1);
}

UNIT_MAIN("metrics_http",
	  UNIT_TEST(requests_are_judged),
	  UNIT_TEST(a_scraper_gets_the_whole_text),
	  UNIT_TEST(who_asks_all_the_time_makes_no_work),
	  UNIT_TEST(who_is_slow_is_cut_off),
	  UNIT_TEST(who_holds_connections_keeps_nobody_out),
	  UNIT_TEST(who_waits_for_a_text_is_not_slow),
	  UNIT_TEST(who_ends_it_does_not_wait_for_a_text));
