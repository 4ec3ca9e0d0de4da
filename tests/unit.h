/* SPDX-License-Identifier: Apache-2.0 */
/* A CUnit program in one line: UNIT_MAIN("suite", { "claim", test_function }, …). */
#ifndef LUNFS_TESTS_UNIT_H
#define LUNFS_TESTS_UNIT_H

#include <CUnit/Basic.h>
#include <stdio.h>
#include <stdlib.h>

#define UNIT_TEST(fn)	{ #fn, fn }

#define UNIT_MAIN(suite_name, ...)							\
int main(void)										\
{											\
	static CU_TestInfo tests[] = { __VA_ARGS__, CU_TEST_INFO_NULL };		\
											\
	return unit_run(suite_name, NULL, NULL, tests);					\
}											\
extern int unit_main_needs_a_semicolon

/**
 * unit_run() - runs @tests, which end with CU_TEST_INFO_NULL, between @begin and @end (or NULL).
 * Return: the program's exit status, 0 only if every test ran and passed.
 */
int unit_run(const char *suite, CU_InitializeFunc begin, CU_CleanupFunc end, CU_TestInfo *tests);

/**
 * unit_watch() - told to end (SIGTERM), this process from now on says first in which case it is,
 * and shows the stack of each of its threads.  unit_run() does it.
 */
void unit_watch(void);

#endif
