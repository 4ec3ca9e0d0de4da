/* SPDX-License-Identifier: Apache-2.0 */
/* Latencies: counts in classes that are at most 3 % wide, up to about an hour. */
#ifndef LUNFS_VHOST_BENCH_HISTOGRAM_H
#define LUNFS_VHOST_BENCH_HISTOGRAM_H

#include "base/types.h"

#define HISTOGRAM_SUB_BITS	5
#define HISTOGRAM_OCTAVES	38
#define HISTOGRAM_CLASSES	(HISTOGRAM_OCTAVES << HISTOGRAM_SUB_BITS)

struct histogram {
	uint64_t count;
	uint64_t sum_ns;
	uint64_t max_ns;
	uint64_t classes[HISTOGRAM_CLASSES];
};

/* The class of a latency: exact below 32 ns, then 32 classes for each power of two. */
static inline unsigned int histogram_class(uint64_t ns)
{
	unsigned int shift, i;

	if (ns < 1u << HISTOGRAM_SUB_BITS)
		return (unsigned int)ns;
	shift = (unsigned int)(63 - __builtin_clzll(ns)) - HISTOGRAM_SUB_BITS;
	i = ((shift + 1) << HISTOGRAM_SUB_BITS) +
	    (unsigned int)(ns >> shift & ((1u << HISTOGRAM_SUB_BITS) - 1));
	return i < HISTOGRAM_CLASSES ? i : HISTOGRAM_CLASSES - 1;
}

static inline void histogram_add(struct histogram *h, uint64_t ns)
{
	h->classes[histogram_class(ns)]++;
	h->count++;
	h->sum_ns += ns;
	if (ns > h->max_ns)
		h->max_ns = ns;
}

/** histogram_merge() - adds what @from counted to @to. */
void histogram_merge(struct histogram *to, const struct histogram *from);

/** histogram_percentile() - the latency that @permille of 1,000 do not exceed; 0 if empty. */
uint64_t histogram_percentile(const struct histogram *h, unsigned int permille);

#endif
