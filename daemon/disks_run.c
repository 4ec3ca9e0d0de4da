/* SPDX-License-Identifier: Apache-2.0 */
/* What all attached disks run on: reactors, and the service manager's watchdog. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "daemon/disks.h"

#define END_PATIENCE_MS	3000u
#define TIMERS		(3 * DISKS_MAX + 64 + EXPORTS_TIMERS)

/* ---- all of them ---- */

static unsigned int count_reactors(const struct rpc_hello *h)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	if (h->reactors)
		return h->reactors < DISKS_REACTORS_MAX ? h->reactors : DISKS_REACTORS_MAX;
	/* Half of the machine at most, guests need the rest; one that has little to do sleeps. */
	cpus = (cpus + 1) / 2;
	return cpus < 1 ? 1 : cpus > 8 ? 8 : (unsigned int)cpus;
}

static int start_threads(struct disks *all)
{
	unsigned int count = count_reactors(all->hello);
	int err = vhu_server_new(env_posix(), &all->server);
	char name[16];

	for (unsigned int i = 0; i < count && !err; i++) {
		snprintf(name, sizeof(name), "reactor-%u", i % 100);
		err = reactor_create(env_posix(), name, all->hello->poll_us * 1000ULL, TIMERS,
				     &all->reactors[i]);
		if (!err)
			all->reactor_count++;
	}
	return err;
}

/* ---- the watchdog ---- */

static void is_alive(void *arg)
{
	(void)arg;
}

/* A reactor that hangs keeps this thread here, and the service manager from hearing of us. */
static void *watchdog_main(void *arg)
{
	struct rpc_request rq = { .op = RPC_ALIVE, .magic = RPC_MAGIC };
	struct disks *all = arg;
	struct timespec until;
	bool stopping = false;

	while (!stopping) {
		for (unsigned int i = 0; i < all->reactor_count; i++)
			reactor_call_sync(all->reactors[i], is_alive, NULL);
		packet_send(all->rpc->sock, &rq, sizeof(rq), NULL, 0);
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec += all->hello->watchdog_ms / 1000;
		until.tv_nsec += all->hello->watchdog_ms % 1000 * 1000000L;
		until.tv_sec += until.tv_nsec / 1000000000L;
		until.tv_nsec %= 1000000000L;
		pthread_mutex_lock(&all->mutex);
		while (!all->stopping &&
		       pthread_cond_timedwait(&all->changed, &all->mutex, &until) != ETIMEDOUT)
			;
		stopping = all->stopping;
		pthread_mutex_unlock(&all->mutex);
	}
	return NULL;
}

static int watchdog_start(struct disks *all)
{
	if (!all->hello->watchdog_ms)
		return 0;
	all->watching = !pthread_create(&all->watchdog, NULL, watchdog_main, all);
	return all->watching ? 0 : -EAGAIN;
}

int disks_init(struct disks *all, struct stores *stores, struct rpc_client *rpc,
	       const struct rpc_hello *hello, int state_fd, struct rpc_given *given)
{
	int err;

	memset(all, 0, sizeof(*all));
	all->stores = stores;
	all->rpc = rpc;
	all->hello = hello;
	all->state_fd = state_fd;
	all->given = given;
	all->given_count = hello->given_count;
	list_init(&all->list);
	list_init(&all->ports);
	all->end_patience_ms = END_PATIENCE_MS;
	pthread_mutex_init(&all->mutex, NULL);
	for (unsigned int i = 0; i < DISKS_WRITERS; i++)
		pthread_mutex_init(&all->writing[i], NULL);
	pthread_cond_init(&all->changed, NULL);
	err = start_threads(all);
	exports_init(&all->exports, rpc, all->reactors, all->reactor_count);
	if (!err)
		err = watchdog_start(all);
	return err ? err : disks_restore_start(all);
}

void disks_give_up(struct disks *all)
{
	pthread_mutex_lock(&all->mutex);
	all->stopping = true;
	pthread_cond_broadcast(&all->changed);
	pthread_mutex_unlock(&all->mutex);
	exports_stop(&all->exports);
	disks_end_begin(all);
}

void disks_shutdown(struct disks *all)
{
	disks_end_wait(all);
	/* Not before: either may wait for a device that hangs. */
	disks_restore_stop(all);
	if (all->watching)
		pthread_join(all->watchdog, NULL);
	for (unsigned int i = 0; i < all->reactor_count; i++)
		reactor_destroy(all->reactors[i]);
	/*
	 * Not all->server: it gives contexts of asynchronous I/O back, each for 30 ms, one after the other, and
	 * guests wait for the next daemon, which waits for our end.  The kernel does all at once then.
	 */
	free(all->given);
}
