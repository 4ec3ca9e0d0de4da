/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/env.h"
#include "base/text.h"

#define FIRST_NS	NSEC_PER_SEC
#define TTY_NS		(200 * NSEC_PER_MSEC)	/* between two states of the bar */
#define LINE_NS		(5 * NSEC_PER_SEC)	/* between two lines */
#define BAR_WIDTH	30

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

void progress_start(struct progress *p, const char *what, bool quiet)
{
	memset(p, 0, sizeof(*p));
	p->what = what;
	p->quiet = quiet;
	p->tty = isatty(STDERR_FILENO);
	p->start_ns = now_ns();
}

static void show_bar(const struct progress *p, double part, const char *amounts)
{
	static const char full[] = "##############################";
	int width = (int)(part * BAR_WIDTH);

	fprintf(stderr, "\r%.40s [%-*.*s] %3.0f%%  %s\033[K", p->what, BAR_WIDTH, width, full,
		part * 100, amounts);
	fflush(stderr);
}

/* Whether it is time to show anything. */
static bool is_due(const struct progress *p, uint64_t now)
{
	uint64_t since = now - (p->shown_ns ? p->shown_ns : p->start_ns);

	return !p->quiet && since >= (!p->shown_ns ? FIRST_NS : p->tty ? TTY_NS : LINE_NS);
}

static void show(struct progress *p, uint64_t now, double part, const char *amounts)
{
	p->shown_ns = now;
	if (p->tty)
		show_bar(p, part, amounts);
	else
		fprintf(stderr, "%s: %.0f%%, %s\n", p->what, part * 100, amounts);
	p->shown = p->tty;
}

void progress_show_count(struct progress *p, uint64_t done, uint64_t total)
{
	uint64_t now = now_ns();
	char amounts[80];

	if (!is_due(p, now))
		return;
	if (done > total)
		done = total;
	snprintf(amounts, sizeof(amounts), "%" PRIu64 " of %" PRIu64, done, total);
	show(p, now, total ? (double)done / (double)total : 0, amounts);
}

void progress_show(struct progress *p, uint64_t done, uint64_t total)
{
	uint64_t now = now_ns();
	double seconds = (double)(now - p->start_ns) / NSEC_PER_SEC, part, left;
	char a[24], b[24], rate[24], amounts[120];

	if (!is_due(p, now))
		return;
	if (done > total)
		done = total;
	part = total ? (double)done / (double)total : 1;
	left = part > 0 ? seconds / part - seconds : 0;
	snprintf(amounts, sizeof(amounts), "%s of %s, %s/s, %.0f s left",
		 text_format_size(done, a, sizeof(a)), text_format_size(total, b, sizeof(b)),
		 text_format_size((uint64_t)((double)done / seconds), rate, sizeof(rate)), left);
	show(p, now, part, amounts);
}

double progress_end(struct progress *p)
{
	if (p->shown)
		fputs("\r\033[K", stderr);
	p->shown = false;
	return (double)(now_ns() - p->start_ns) / NSEC_PER_SEC;
}
