/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/vhost_bench/histogram.h"

void histogram_merge(struct histogram *to, const struct histogram *from)
{
	to->count += from->count;
	to->sum_ns += from->sum_ns;
	if (from->max_ns > to->max_ns)
		to->max_ns = from->max_ns;
	for (unsigned int i = 0; i < HISTOGRAM_CLASSES; i++)
		to->classes[i] += from->classes[i];
}

/* The upper end of class @i. */
static uint64_t class_end(unsigned int i)
{
	unsigned int shift = i >> HISTOGRAM_SUB_BITS;
	uint64_t sub = i & ((1u << HISTOGRAM_SUB_BITS) - 1);

	if (!shift)
		return sub;
	return (((1ULL << HISTOGRAM_SUB_BITS) + sub + 1) << (shift - 1)) - 1;
}

uint64_t histogram_percentile(const struct histogram *h, unsigned int permille)
{
	uint64_t wanted = (h->count * permille + 999) / 1000, seen = 0;

	for (unsigned int i = 0; i < HISTOGRAM_CLASSES && wanted; i++) {
		seen += h->classes[i];
		if (seen >= wanted)
			return class_end(i) < h->max_ns ? class_end(i) : h->max_ns;
	}
	return h->max_ns;
}
