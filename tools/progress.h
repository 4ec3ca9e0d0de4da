/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far long work is: a bar on a terminal, a line now and then elsewhere, nothing for
 * somebody who wants JSON.  On standard error.
 */
#ifndef LUNFS_TOOLS_PROGRESS_H
#define LUNFS_TOOLS_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
	const char	*what;		/* "importing disk.qcow2"; borrowed */
	bool		quiet, tty;
	uint64_t	start_ns, shown_ns;
	bool		shown;		/* a bar stands on the terminal */
};

/** progress_start() - nothing is shown within the first second. */
void progress_start(struct progress *p, const char *what, bool quiet);

/** progress_show() - @done of @total bytes; as often as one likes. */
void progress_show(struct progress *p, uint64_t done, uint64_t total);

/** progress_show_count() - the same of things that are no bytes. */
void progress_show_count(struct progress *p, uint64_t done, uint64_t total);

/** progress_end() - the bar is taken away.  Return: seconds since the start. */
double progress_end(struct progress *p);

#endif
