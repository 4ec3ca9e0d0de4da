/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether looking for work again and again pays at present, for a thread that could sleep instead.
 *
 * It is looked for where the last came soon enough after the one before.  Looking that finds something saves a wake-up on either side.  Looking in vain costs the time that
 * it took, and more where cores are scarce: whoever would bring the work waits for the one that we
 * burn.  So what was found is credited and what was not is charged; who is in debt sleeps at once
 * for a while, twice as long each time, and then tries again.
 *
 *	paying ──in debt──► sleeping at once, for 1, 2, 4 … 128 ms ──over──► paying, with no credit
 *
 * Pure arithmetic over the times that it is told.
 */
#ifndef LUNFS_BASE_POLLING_H
#define LUNFS_BASE_POLLING_H

#include "base/types.h"

struct polling {
	uint64_t	max_ns;		/* how long to look after work was found; below 1,000: never */
	uint64_t	looked_ns;	/* when it was looked last; 0: not since work was found */
	uint64_t	again_ns;	/* until then it sleeps at once … */
	uint64_t	rest_ns;	/* … which was so long a time */
	int64_t		credit_ns;
	uint64_t	found_ns;	/* when work was found last … */
	bool		soon;		/* … and that was no longer than max_ns after the one before */
};

/** polling_init() - @now_ns: it begins as if there had been work just now. */
void polling_init(struct polling *p, uint64_t max_ns, uint64_t now_ns);

/**
 * polling_goes_on() - at @now_ns nothing was found, as ever since @work_ns.
 * Return: whether to look again instead of going to sleep.
 */
bool polling_goes_on(struct polling *p, uint64_t now_ns, uint64_t work_ns);

/** polling_found() - there was work at @now_ns. */
void polling_found(struct polling *p, uint64_t now_ns);

#endif
