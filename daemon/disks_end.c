/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon's end: each disk is given up by a thread of its own, so that one whose device hangs keeps
 * none of the others; many of a datastore that hangs keep none of another one's.
 *
 * The daemon ends when all of them are given up, or when its parent has waited for that long enough
 * (stop-timeout): then whoever serves them next finds them as after a kill.
 */
#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "daemon/disks.h"

#define END_OF_A_STORE	16u	/* disks of one datastore at a time */
#define END_NAMED	8u	/* of which so much is said */
#define END_LINE_SIZE	400

/* mutex held.  One that nobody is attaching or detaching, of a datastore that has not its number yet. */
static struct attachment *find_next(struct disks *all)
{
	struct attachment *a, *tmp;

	list_for_each(a, tmp, &all->list, node)
		if (a->attached && !a->detaching && a->store->disks_ending < END_OF_A_STORE)
			return a;
	return NULL;
}

/* Its socket stays: who looks for it meanwhile is told to try again, not that there is none. */
static void *end_one(void *arg)
{
	struct attachment *a = arg;
	struct disks *all = a->all;

	pthread_mutex_lock(&all->mutex);
	disks_wait_unused(a);
	pthread_mutex_unlock(&all->mutex);
	disks_free_attachment(a);
	pthread_mutex_lock(&all->mutex);
	all->enders--;
	pthread_cond_broadcast(&all->changed);
	pthread_mutex_unlock(&all->mutex);
	return NULL;
}

static int start_thread(void *(*fn)(void *arg), void *arg)
{
	pthread_t thread;
	int err = pthread_create(&thread, NULL, fn, arg);

	if (!err)
		pthread_detach(thread);
	return err;
}

/* mutex held, and released meanwhile: who reads what is logged may be slow. */
static void say_what_is_left(struct disks *all)
{
	char lines[END_NAMED][END_LINE_SIZE], objects[END_NAMED][END_LINE_SIZE];
	struct attachment *a, *tmp;
	unsigned int n = 0;

	list_for_each(a, tmp, &all->list, node) {
		if (n < END_NAMED) {
			snprintf(objects[n], END_LINE_SIZE, "%.*s", END_LINE_SIZE - 1, a->object);
			snprintf(lines[n], END_LINE_SIZE, "is not given up yet: %s; does %.200s hang?",
				 a->step, a->store->device);
		}
		n++;
	}
	pthread_mutex_unlock(&all->mutex);
	for (unsigned int i = 0; i < n && i < END_NAMED; i++)
		log_warning(env_posix(), objects[i], "%s", lines[i]);
	if (n > END_NAMED)
		log_warning(env_posix(), "lunfsd", "%u more disks are not given up yet", n - END_NAMED);
	pthread_mutex_lock(&all->mutex);
}

/* mutex held, and released meanwhile.  What is being attached or detached is seen to by who does that. */
static void wait_for_change(struct disks *all, const struct timespec *until, bool *said)
{
	if (*said) {
		pthread_cond_wait(&all->changed, &all->mutex);
	} else if (pthread_cond_timedwait(&all->changed, &all->mutex, until) == ETIMEDOUT) {
		*said = true;
		say_what_is_left(all);
	}
}

static void *end_all(void *arg)
{
	struct disks *all = arg;
	struct attachment *a;
	struct timespec until;
	bool said = false;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += all->end_patience_ms / 1000;
	until.tv_nsec += all->end_patience_ms % 1000 * (long)NSEC_PER_MSEC;
	until.tv_sec += until.tv_nsec / (long)NSEC_PER_SEC;
	until.tv_nsec %= (long)NSEC_PER_SEC;
	pthread_mutex_lock(&all->mutex);
	while (all->alive) {
		a = find_next(all);
		if (!a) {
			wait_for_change(all, &until, &said);
			continue;
		}
		a->detaching = a->ending = true;
		a->store->disks_ending++;
		all->enders++;
		if (!start_thread(end_one, a))
			continue;
		/* No memory for a thread: here, then. */
		pthread_mutex_unlock(&all->mutex);
		end_one(a);
		pthread_mutex_lock(&all->mutex);
	}
	all->enders--;
	pthread_cond_broadcast(&all->changed);
	pthread_mutex_unlock(&all->mutex);
	return NULL;
}

void disks_end_begin(struct disks *all)
{
	pthread_mutex_lock(&all->mutex);
	all->enders++;
	pthread_mutex_unlock(&all->mutex);
	if (start_thread(end_all, all))
		end_all(all);
}

void disks_end_wait(struct disks *all)
{
	pthread_mutex_lock(&all->mutex);
	while (all->enders)
		pthread_cond_wait(&all->changed, &all->mutex);
	pthread_mutex_unlock(&all->mutex);
}
