/* SPDX-License-Identifier: Apache-2.0 */
#include "base/polling.h"

#define GAIN_NS		10000		/* two wake-ups, about */
#define CREDIT_NS_MAX	(20 * GAIN_NS)
#define PREEMPTED_NS	200000		/* between two looks: others want this core */
#define REST_NS_MIN	1000000ULL
#define REST_NS_MAX	(128 * REST_NS_MIN)

void polling_init(struct polling *p, uint64_t max_ns, uint64_t now_ns)
{
	*p = (struct polling){ .max_ns = max_ns, .found_ns = now_ns, .soon = true };
}

static void charge(struct polling *p, uint64_t now_ns, uint64_t in_vain_ns)
{
	p->looked_ns = 0;
	p->credit_ns -= (int64_t)in_vain_ns;
	if (p->credit_ns >= 0)
		return;
	p->rest_ns = p->rest_ns ? 2 * p->rest_ns : REST_NS_MIN;
	if (p->rest_ns > REST_NS_MAX)
		p->rest_ns = REST_NS_MAX;
	p->again_ns = now_ns + p->rest_ns;
	p->credit_ns = 0;
}

bool polling_goes_on(struct polling *p, uint64_t now_ns, uint64_t work_ns)
{
	uint64_t idle_ns = now_ns - work_ns;

	if (p->max_ns < 1000 || !p->soon || now_ns < p->again_ns)
		return false;
	if (idle_ns >= p->max_ns) {
		if (p->looked_ns)
			charge(p, now_ns, idle_ns);
		return false;
	}
	p->looked_ns = now_ns;
	return true;
}

void polling_found(struct polling *p, uint64_t now_ns)
{
	p->soon = now_ns - p->found_ns <= p->max_ns;
	p->found_ns = now_ns;
	if (!p->looked_ns)
		return;
	if (now_ns - p->looked_ns > PREEMPTED_NS) {
		charge(p, now_ns, CREDIT_NS_MAX + 1);
		return;
	}
	p->looked_ns = 0;
	p->credit_ns += GAIN_NS;
	if (p->credit_ns < CREDIT_NS_MAX)
		return;
	p->credit_ns = CREDIT_NS_MAX;
	p->rest_ns = 0;
}
