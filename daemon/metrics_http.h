/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GET /metrics by HTTP/1.1 on a listening socket, for Prometheus: one thread, and nothing that
 * clients do costs anybody else more than that.
 *
 * Hostile clients (R9): METRICS_CLIENTS_MAX connections, of which the oldest gives way to a new one;
 * a request of at most METRICS_REQUEST_MAX bytes; so many seconds for asking and as many for taking
 * the answer, whatever trickles in or out, and the time that we take is not counted; the text is made
 * at most four times a second, and shared by all who ask.
 */
#ifndef LUNFS_DAEMON_METRICS_HTTP_H
#define LUNFS_DAEMON_METRICS_HTTP_H

#include <pthread.h>

#include "base/env.h"

#define METRICS_CLIENTS_MAX	8u
#define METRICS_REQUEST_MAX	4096u
#define METRICS_CLIENT_NS	(5 * NSEC_PER_SEC)
#define METRICS_FRESH_NS	(NSEC_PER_SEC / 4)	/* for which a text is good */

struct metrics_http_params {
	int	sock;			/* listening, non-blocking; taken over */
	char	*(*text)(void *arg);	/* allocated; NULL: out of memory.  In the thread; may block. */
	void	*arg;
	uint64_t client_ns;		/* to ask, and to take the answer; 0: METRICS_CLIENT_NS */
};

struct metrics_http;

/** metrics_http_start() - serves until metrics_http_stop().  Return: 0 or -errno; sock is closed. */
int metrics_http_start(const struct metrics_http_params *p, struct metrics_http **out);

/** metrics_http_end() - nobody is served any more, soon.  Does not wait.  NULL: nothing. */
void metrics_http_end(struct metrics_http *h);

/** metrics_http_stop() - waits for that, and for a text that is being made; frees @h.  NULL: nothing. */
void metrics_http_stop(struct metrics_http *h);

/**
 * metrics_http_judge() - what a request deserves: a status of HTTP (200, 400, 404, 405, 431, 505), or 0
 * as long as it is not whole.  @head: 200 is for HEAD: without the text.
 */
unsigned int metrics_http_judge(const char *request, size_t len, bool *head);

#endif
