/* SPDX-License-Identifier: Apache-2.0 */
/* A CUnit program in one line: UNIT_MAIN("suite", { "claim", test_function }, …). */
#ifndef LUNFS_TESTS_UNIT_H
#define LUNFS_TESTS_UNIT_H

#include <CUnit/Basic.h>
#include <stdio.h>
#include <stdlib.h>

#define UNIT_TEST(fn)	{ #fn, fn }

/* Exit status 0 only if every test ran and passed. */
#define UNIT_MAIN(suite_name, ...)							\
int main(void)										\
{											\
	static CU_TestInfo tests[] = { __VA_ARGS__, CU_TEST_INFO_NULL };		\
	CU_SuiteInfo suites[] = {							\
		{ suite_name, NULL, NULL, NULL, NULL, tests }, CU_SUITE_INFO_NULL };	\
	unsigned int bad;								\
											\
	if (CU_initialize_registry() != CUE_SUCCESS ||					\
	    CU_register_suites(suites) != CUE_SUCCESS)					\
		return 2;								\
	CU_basic_set_mode(CU_BRM_NORMAL);						\
	CU_basic_run_tests();								\
	bad = CU_get_number_of_failures() + CU_get_number_of_tests_failed();		\
	if (CU_get_number_of_tests_run() == 0)						\
		bad = 1;								\
	CU_cleanup_registry();								\
	return bad ? 1 : 0;								\
}											\
extern int unit_main_needs_a_semicolon

#endif
