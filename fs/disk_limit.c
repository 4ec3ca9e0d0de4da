/* SPDX-License-Identifier: Apache-2.0 */
/* Limits of a disk: two buckets of tokens, for requests and for bytes. */
#include "fs/disk_internal.h"

enum { TOKENS_IOS, TOKENS_BYTES };

static uint64_t burst_of(uint64_t rate, uint64_t burst)
{
	return burst ? burst : rate;
}

void disk_limits_init(struct disk *d, const struct disk_limits *limits)
{
	d->limits = *limits;
	d->tokens[TOKENS_IOS] = (double)burst_of(limits->iops, limits->iops_burst);
	d->tokens[TOKENS_BYTES] = (double)burst_of(limits->bytes, limits->bytes_burst);
	d->tokens_ns = disk_now_ns(d);
	if (d->p.shares)
		share_set(d->p.shares, &d->share, limits->shares);
}

static void fill(double *tokens, uint64_t rate, uint64_t burst, uint64_t ns)
{
	double most = (double)burst_of(rate, burst);

	*tokens += (double)rate * (double)ns / (double)NSEC_PER_SEC;
	if (*tokens > most)
		*tokens = most;
}

static void buckets_fill(struct disk *d)
{
	uint64_t now = disk_now_ns(d), ns = now - d->tokens_ns;

	d->tokens_ns = now;
	fill(&d->tokens[TOKENS_IOS], d->limits.iops, d->limits.iops_burst, ns);
	fill(&d->tokens[TOKENS_BYTES], d->limits.bytes, d->limits.bytes_burst, ns);
}

/* Nanoseconds until there is a token of each kind that is limited; 0: there is. */
static uint64_t wait_ns(const struct disk *d)
{
	uint64_t rates[2] = { d->limits.iops, d->limits.bytes }, longest = 0;

	for (int i = 0; i < 2; i++) {
		double lack = 1.0 - d->tokens[i];
		uint64_t ns;

		if (!rates[i] || lack <= 0)
			continue;
		ns = (uint64_t)(lack * (double)NSEC_PER_SEC / (double)rates[i]) + 1;
		longest = ns > longest ? ns : longest;
	}
	return longest;
}

/* A request larger than what is left goes into debt: later ones wait the longer. */
static void charge(struct disk *d, struct blk_io *io)
{
	disk_req(io)->charged = true;
	d->tokens[TOKENS_IOS] -= 1.0;
	d->tokens[TOKENS_BYTES] -= (double)io->len;
}

bool disk_may_start(struct disk *d, struct blk_io *io)
{
	uint64_t ns;

	if ((!d->limits.iops && !d->limits.bytes) || disk_req(io)->charged)
		return true;
	ns = 1;
	if (list_empty(&d->throttled)) {
		buckets_fill(d);
		ns = wait_ns(d);
		if (!ns) {
			charge(d, io);
			return true;
		}
	}
	STAT_ADD(d->stats.throttled, 1);
	if (list_empty(&d->throttled) && d->p.reactor)
		reactor_timer_set(d->p.reactor, &d->throttle, d->tokens_ns + ns);
	list_add_tail(&d->throttled, &io->node);
	return false;
}

void disk_throttle_tick(struct reactor_timer *t)
{
	struct disk *d = container_of(t, struct disk, throttle);
	bool limited = d->limits.iops || d->limits.bytes;
	struct list go;
	uint64_t ns = 0;

	list_init(&go);
	buckets_fill(d);
	while (!list_empty(&d->throttled)) {
		struct blk_io *io = list_first(&d->throttled, struct blk_io, node);

		ns = limited && d->open ? wait_ns(d) : 0;
		if (ns)
			break;
		list_del(&io->node);
		charge(d, io);
		list_add_tail(&go, &io->node);
	}
	if (!list_empty(&d->throttled))
		reactor_timer_set(d->p.reactor, t, d->tokens_ns + ns);
	while (!list_empty(&go)) {
		struct blk_io *io = list_first(&go, struct blk_io, node);

		list_del(&io->node);
		disk_start(d, io);
	}
	disk_send(d);
}
