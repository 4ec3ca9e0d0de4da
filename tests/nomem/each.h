/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs what is under test again and again, each time with one more allocation that succeeds
 * before one (or, told so, all that follow) fails, until none is left to fail.
 */
#ifndef LUNFS_TESTS_NOMEM_EACH_H
#define LUNFS_TESTS_NOMEM_EACH_H

#include <stdio.h>
#include <stdlib.h>

#include "tests/nomem/nomem.h"
#include "tests/unit.h"

#define EACH_MAX	20000u		/* more runs than that have no end */
#define EACH_ALL	UINT32_MAX	/* all allocations from the n-th on fail */

struct each {
	uint64_t count;		/* how many fail, from the n-th on */
	uint64_t stride;	/* n grows by that */
	bool	crashes;	/* a crashed host's memory is lost: always the same amount */
	/* Arms n and count where its preparations are done; returns how many failed. */
	uint64_t (*run)(void *arg, uint64_t n, uint64_t count);
	void	*arg;
};

/*
 * Leaks are counted here in every build.  The address sanitizer, six times slower, looks at a
 * sample only; LUNFS_NOMEM_ALL=1 makes it look at all.
 */
static inline uint64_t each_stride(uint64_t stride)
{
	if (getenv("LUNFS_NOMEM_ALL"))
		return 1;
#ifdef __SANITIZE_ADDRESS__
	stride *= 11;
#endif
	return stride;
}

/* The n-th run; returns how much memory it has not given back. */
static inline int64_t each_run(const struct each *e, uint64_t n, uint64_t *hits)
{
	int64_t live = nomem_live();

	*hits = e->run(e->arg, n, e->count);
	return nomem_live() - live;
}

/* each_allocation() - LUNFS_NOMEM_FROM=n begins there, to look at one case. */
static inline void each_allocation(const struct each *e)
{
	const char *from = getenv("LUNFS_NOMEM_FROM");
	unsigned int before = CU_get_number_of_failures();
	uint64_t n = from ? strtoull(from, NULL, 10) : 1, hits;
	int64_t lost = 0, always = each_run(e, 0, &hits);

	CU_ASSERT_TRUE(always == 0 || e->crashes);
	for (; CU_get_number_of_failures() == before && n < EACH_MAX; n += each_stride(e->stride)) {
		lost = each_run(e, n, &hits);
		CU_ASSERT_EQUAL(lost, always);
		if (!hits || CU_get_number_of_failures() != before)
			break;
	}
	CU_ASSERT_TRUE(n < EACH_MAX);
	if (CU_get_number_of_failures() == before)
		return;
	fprintf(stderr, "  failed with allocation %llu (and %llu after it) failing; %lld pieces lost\n",
		(unsigned long long)n, (unsigned long long)e->count - 1,
		(long long)(lost - always));
	nomem_where();
}

#endif
