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
#define RESTORERS	16u	/* disks of one datastore at a time */

#define SAY(level, ...)	env_log(env_posix(), level, "lunfsd", __VA_ARGS__)

/* What is still to be done. */
struct restore {
	struct disks	*all;
	struct disks_saved *saved;	/* of the state file, by device */
	atomic_bool	*done;		/* with each of these */
	unsigned int	saved_count;
	struct restore_group *groups;
	unsigned int	group_count;
	bool		*given_done;
	bool		quiet;		/* said already what does not work */
};

/* Those of one device, which may hang: by threads of their own. */
struct restore_group {
	struct restore	*r;
	unsigned int	first, end;	/* of r->saved */
	pthread_t	thread;
	bool		started;
	bool		quiet;
	atomic_uint	next;		/* for whichever thread */
	atomic_bool	left;		/* some are to be tried again */
};

static void complain(bool quiet, const char *what, const char *why)
{
	if (!quiet)
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
static bool restore_disk(struct restore *r, const struct disks_saved *saved, bool quiet)
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
	complain(quiet, saved->path, why);
	return false;
}

/* Whether a disk is still to be had as it was left: that comes before it is had anew. */
static bool is_left(const struct restore *r, const struct store *s, const char *path)
{
	for (unsigned int i = 0; i < r->saved_count; i++)
		if (!atomic_load(&r->done[i]) && !strcmp(r->saved[i].device, s->device) &&
		    !strcmp(r->saved[i].path, path))
			return true;
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
	if (is_left(r, s, path))
		err = text_refuse(-EAGAIN, why, why_size, "it was attached before, and is still being "
				  "restored");
	else
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
		complain(r->quiet, g->text, why);
	return !err || err == -ESHUTDOWN;
}

static void *restore_saved(void *arg)
{
	struct restore_group *g = arg;
	struct restore *r = g->r;
	unsigned int i;

	while ((i = atomic_fetch_add(&g->next, 1)) < g->end) {
		if (atomic_load(&r->done[i]))
			continue;
		if (restore_disk(r, &r->saved[i], g->quiet))
			atomic_store(&r->done[i], true);
		else
			atomic_store(&g->left, true);
	}
	return NULL;
}

/* Guests stand still until their disks are there, and each of these waits for some commands of the device:
 * many at a time.  Return: nothing is left. */
static bool restore_round(struct restore_group *g)
{
	pthread_t threads[RESTORERS];
	unsigned int count = 0;

	atomic_store(&g->left, false);
	atomic_store(&g->next, g->first);
	while (count + 1 < RESTORERS && count + 1 < g->end - g->first &&
	       !pthread_create(&threads[count], NULL, restore_saved, g))
		count++;
	restore_saved(g);
	while (count--)
		pthread_join(threads[count], NULL);
	return !atomic_load(&g->left);
}

/* One look at what the configuration says; true: nothing is left. */
static bool restore_given_round(struct restore *r)
{
	bool done = true;

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

static unsigned int longer(unsigned int ms)
{
	return ms * 2 < AGAIN_MS_MAX ? ms * 2 : AGAIN_MS_MAX;
}

static void *restore_group(void *arg)
{
	struct restore_group *g = arg;

	for (unsigned int ms = AGAIN_MS_FIRST; !restore_round(g) && wait_a_while(g->r->all, ms);
	     ms = longer(ms))
		g->quiet = true;
	return NULL;
}

static int compare_devices(const void *a, const void *b)
{
	const struct disks_saved *x = a, *y = b;

	return strcmp(x->device, y->device);
}

static void start_groups(struct restore *r)
{
	struct restore_group *g = NULL;

	for (unsigned int i = 0; i < r->saved_count; i++) {
		if (!i || strcmp(r->saved[i].device, r->saved[i - 1].device)) {
			g = &r->groups[r->group_count++];
			*g = (struct restore_group){ .r = r, .first = i };
		}
		g->end = i + 1;
	}
	for (unsigned int i = 0; i < r->group_count; i++) {
		g = &r->groups[i];
		g->started = !pthread_create(&g->thread, NULL, restore_group, g);
		if (!g->started)
			restore_group(g);
	}
}

static void restore_free(struct restore *r)
{
	free(r->saved);
	free(r->done);
	free(r->groups);
	free(r->given_done);
	free(r);
}

static void *restore_main(void *arg)
{
	struct restore *r = arg;

	start_groups(r);
	for (unsigned int ms = AGAIN_MS_FIRST; !restore_given_round(r) && wait_a_while(r->all, ms);
	     ms = longer(ms))
		r->quiet = true;
	for (unsigned int i = 0; i < r->group_count; i++)
		if (r->groups[i].started)
			pthread_join(r->groups[i].thread, NULL);
	restore_free(r);
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
	if (err || !r->saved_count)
		return err;
	qsort(r->saved, r->saved_count, sizeof(*r->saved), compare_devices);
	r->done = calloc(r->saved_count, sizeof(*r->done));
	r->groups = calloc(r->saved_count, sizeof(*r->groups));
	return r->done && r->groups ? 0 : -ENOMEM;
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
		restore_free(r);
		return err;
	}
	all->restoring = true;
	return 0;
}

void disks_restore_stop(struct disks *all)
{
	if (all->restoring)
		pthread_join(all->restorer, NULL);
	all->restoring = false;
}
