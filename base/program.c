/* SPDX-License-Identifier: Apache-2.0 */
#include "base/program.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *program_name;

void program_begin(void)
{
	int fd;

	/* The lowest free number is taken: each round fills the next gap. */
	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd < 0)
		_exit(1);
	close(fd);
	/* A file that ulimit -f does not let grow is an error like others (EFBIG), with a word about it. */
	signal(SIGXFSZ, SIG_IGN);
}

static void check_output(void)
{
	int failed = ferror(stdout);

	errno = 0;
	failed |= fflush(stdout);
	if (!failed)
		return;
	if (errno != EPIPE)	/* whoever reads has seen enough */
		fprintf(stderr, "%s: writing the result failed%s%s\n", program_name,
			errno ? ": " : "", errno ? strerrordesc_np(errno) : "");
	_exit(1);
}

void program_checks_output(const char *name)
{
	program_name = name;
	atexit(check_output);
}
