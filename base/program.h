/* SPDX-License-Identifier: Apache-2.0 */
/* What every program does first and last. */
#ifndef LUNFS_BASE_PROGRAM_H
#define LUNFS_BASE_PROGRAM_H

/**
 * program_begin() - descriptors 0 to 2 are open: where whoever started us has closed one, it is
 * /dev/null, so that no device is opened in its place and gets our messages; and a file that may not
 * grow any more (setrlimit(2)) is an error, EFBIG, instead of the end.
 *
 * Ends the process with status 1 where even that cannot be had.  Context: first in main().
 */
void program_begin(void);

/**
 * program_checks_output() - at exit, standard output that could not be written is told on standard
 * error and makes the status 1: what goes into a file is there, or its writer fails.
 * @name: the program's, before the message; has to last.
 */
void program_checks_output(const char *name);

#endif
