/* SPDX-License-Identifier: Apache-2.0 */
/* Many hosts and many faults at once: the rules hold whatever the order of events. */
#include "tests/lockd/cluster.h"

/* Hosts freeze, crash and hang as they like: no fenced host ever writes, the dead are freed,
 * and whoever lives is left alone. */
static void chaos_of_hosts_breaks_no_rule(void)
{
	struct simdisk_params p = { .reservations = true };

	for (uint64_t seed = 100; seed < 108; seed++) {
		struct cluster *c = cluster_new(seed, 8, seed % 2 ? &p : NULL);
		unsigned int up = 6;

		for (unsigned int i = 0; i < up; i++)
			host_up(c, i, "host");
		cluster_run(c, 3 * SEC);
		for (unsigned int step = 0; step < 6; step++) {
			struct host *h = &c->hosts[sim_random(c->sim) % (up - 1)];
			uint64_t ns = sim_random(c->sim) % (12 * SEC);

			if (!sim_host_crashed(h->env)) {
				if (sim_random(c->sim) % 3 == 0)
					sim_host_crash(h->env);
				else if (sim_random(c->sim) % 2)
					sim_host_freeze(h->env, sim_now_ns(c->sim) + ns);
				else
					host_stall(h, sim_now_ns(c->sim) + ns);
			}
			cluster_run_more(c, sim_random(c->sim) % (6 * SEC));
		}
		cluster_run_more(c, 60 * SEC);
		/* The last one was never touched: it lives, and nobody else is left half dead. */
		CU_ASSERT_EQUAL(c->hosts[up - 1].losses, 0);
		CU_ASSERT_EQUAL(c->hosts[up - 1].write_err, 0);
		for (uint32_t i = 0; i < 8; i++) {
			enum slot_state state = cluster_slot(c, i).state;

			CU_ASSERT(state == SLOT_FREE || state == SLOT_LIVE);
		}
		cluster_end(c);
	}
}

UNIT_MAIN("lockd/cluster",
	  UNIT_TEST(chaos_of_hosts_breaks_no_rule));
