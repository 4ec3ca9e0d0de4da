/* SPDX-License-Identifier: Apache-2.0 */
/* Datastores and disks that nobody has to ask for: those of the daemon before us, and those of
 * the configuration.  What cannot be had yet is tried again. */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/text.h"
#include "daemon/disks.h"

/* A daemon on its way out lets go soon, what an administrator has to mend takes longer. */
#define AGAIN_MS_FIRST	100u
#define AGAIN_MS_MAX	2000u
#define RESTORERS	16u	/* disks at a time */

#define SAY(level, ...)	env_log(env_posix(), level, "lunfsd", __VA_ARGS__)

/* What is still to be done. */
struct restore {
	struct disks	*all;
	struct disks_saved *saved;	/* of the state file */
	unsigned int	saved_count;
	bool		*given_done;
	bool		quiet;		/* said already what does not work */
	atomic_uint	next;		/* of saved, for whichever thread */
	atomic_bool	left;		/* some are to be tried again */
};

static void complain(const struct restore *r, const char *what, const char *why)
{
	if (!r->quiet)
		SAY(LOG_LEVEL_WARNING, "%s cannot be served yet: %s; trying again", what, why);
}

/* What is called like that device now may be another volume, with a disk of the same name. */
static int check_volume(const struct store *s, const struct disks_saved *saved, char *why,
			size_t why_size)
{
	char volume[UUID_TEXT_SIZE];

	text_format_uuid(s->fs->super.volume_id, volume);
	if (!saved->volume[0] || !strcmp(volume, saved->volume))
		return 0;
	return text_refuse(-ENOENT, why, why_size, "volume %s is there now, and it was attached of %s",
			   volume, saved->volume);
}

/* true: done with it, well or not. */
static bool restore_disk(struct restore *r, const struct disks_saved *saved)
{
	char why[STORE_WHY_SIZE] = "";
	struct store *s;
	int err = store_attach(r->all->stores, saved->device, 0, -1, false, &s, why, sizeof(why));

	if (!err) {
		err = check_volume(s, saved, why, sizeof(why));
		if (!err)
			err = disks_attach_saved(r->all, s, saved, why, sizeof(why));
		store_put(s);
	}
	if (!err || err == -EEXIST || err == -ESHUTDOWN)
		return true;
	if (err == -ENOENT || err == -EINVAL) {
		SAY(LOG_LEVEL_ERROR, "%s of %s is not served any more: %s", saved->path,
		    saved->device, why);
		disks_state_clear(r->all, saved->record);
		pthread_mutex_lock(&r->all->mutex);
		r->all->record_used[saved->record] = false;
		pthread_mutex_unlock(&r->all->mutex);
		return true;
	}
	complain(r, saved->path, why);
	return false;
}

static int attach_given_disk(struct restore *r, char *text, char *why, size_t why_size)
{
	char *path = strstr(text, ":/") + 1, *option, *next = NULL;
	struct disk_options options = { 0 };
	struct attachment *a;
	struct store *s;
	int err = 0;

	path[-1] = '\0';
	strtok_r(path, ",", &next);
	while (!err && (option = strtok_r(NULL, ",", &next)))
		err = disks_option(&options, option, why, why_size);
	if (err) {
		SAY(LOG_LEVEL_ERROR, "disk %s:%s of the configuration: %s", text, path, why);
		return 0;
	}
	err = store_get(r->all->stores, text, false, &s, why, why_size);
	if (err)
		return err;
	err = disks_attach(r->all, s, path, &options, &a, why, why_size);
	if (!err)
		disks_put(a);
	store_put(s);
	return err;
}

static bool restore_given(struct restore *r, const struct rpc_given *g)
{
	char why[STORE_WHY_SIZE] = "", text[PATH_MAX];
	struct store *s;
	int err;

	if (g->is_disk) {
		strcpy(text, g->text);
		err = attach_given_disk(r, text, why, sizeof(why));
	} else {
		err = store_attach(r->all->stores, g->text, 0, -1, false, &s, why, sizeof(why));
		if (!err)
			store_put(s);
	}
	if (err && err != -ESHUTDOWN)
		complain(r, g->text, why);
	return !err || err == -ESHUTDOWN;
}

static void *restore_saved(void *arg)
{
	struct restore *r = arg;
	unsigned int i;

	while ((i = atomic_fetch_add(&r->next, 1)) < r->saved_count) {
		if (!r->saved[i].device[0])
			continue;
		if (restore_disk(r, &r->saved[i]))
			r->saved[i].device[0] = '\0';
		else
			atomic_store(&r->left, true);
	}
	return NULL;
}

/*
 * Guests stand still until their disks are there, and each of these waits for some commands of the device:
 * many at a time; and one whose device hangs keeps those of others waiting only when there are many of it.
 */
static void restore_all_saved(struct restore *r)
{
	pthread_t threads[RESTORERS];
	unsigned int count = 0;

	atomic_store(&r->next, 0);
	while (count + 1 < RESTORERS && count + 1 < r->saved_count &&
	       !pthread_create(&threads[count], NULL, restore_saved, r))
		count++;
	restore_saved(r);
	while (count--)
		pthread_join(threads[count], NULL);
}

/* One look at everything that is left; true: nothing is. */
static bool restore_round(struct restore *r)
{
	bool done;

	atomic_store(&r->left, false);
	restore_all_saved(r);
	done = !atomic_load(&r->left);
	for (unsigned int i = 0; i < r->all->given_count; i++) {
		if (!r->given_done[i])
			r->given_done[i] = restore_given(r, &r->all->given[i]);
		done = done && r->given_done[i];
	}
	return done;
}

/* false: the daemon ends. */
static bool wait_a_while(struct disks *all, unsigned int ms)
{
	struct timespec until;
	bool go_on;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += (long)(ms * NSEC_PER_MSEC);
	until.tv_sec += until.tv_nsec / (long)NSEC_PER_SEC;
	until.tv_nsec %= (long)NSEC_PER_SEC;
	pthread_mutex_lock(&all->mutex);
	while (!all->stopping &&
	       pthread_cond_timedwait(&all->changed, &all->mutex, &until) != ETIMEDOUT)
		;
	go_on = !all->stopping;
	pthread_mutex_unlock(&all->mutex);
	return go_on;
}

static void restore_all(struct restore *r)
{
	unsigned int ms = AGAIN_MS_FIRST;

	while (!restore_round(r) && wait_a_while(r->all, ms)) {
		r->quiet = true;
		ms = ms * 2 < AGAIN_MS_MAX ? ms * 2 : AGAIN_MS_MAX;
	}
}

static void *restore_main(void *arg)
{
	struct restore *r = arg;

	restore_all(r);
	free(r->saved);
	free(r->given_done);
	free(r);
	return NULL;
}

static int load_saved(struct restore *r)
{
	struct disks *all = r->all;
	struct disks_saved *one = malloc(sizeof(*one)), *more;
	int err = one ? 0 : -ENOMEM;

	for (unsigned int i = 0; i < DISKS_MAX && !err; i++) {
		if (!disks_state_load(all, i, one))
			continue;
		more = realloc(r->saved, (r->saved_count + 1) * sizeof(*more));
		if (!more) {
			err = -ENOMEM;
			break;
		}
		r->saved = more;
		r->saved[r->saved_count++] = *one;
		all->record_used[i] = true;	/* also of what cannot be had yet */
	}
	free(one);
	return err;
}

int disks_restore_start(struct disks *all)
{
	struct restore *r = calloc(1, sizeof(*r));
	int err = -ENOMEM;

	if (!r)
		return err;
	r->all = all;
	r->given_done = calloc(all->given_count + 1, sizeof(bool));
	if (r->given_done)
		err = load_saved(r);
	if (!err && pthread_create(&all->restorer, NULL, restore_main, r))
		err = -EAGAIN;
	if (err) {
		free(r->saved);
		free(r->given_done);
		free(r);
		return err;
	}
	all->restoring = true;
	return 0;
}

void disks_restore_stop(struct disks *all)
{
	pthread_mutex_lock(&all->mutex);
	pthread_cond_broadcast(&all->changed);
	pthread_mutex_unlock(&all->mutex);
	if (all->restoring)
		pthread_join(all->restorer, NULL);
	all->restoring = false;
}
