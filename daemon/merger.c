/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/merger.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "daemon/store_internal.h"

#define LOOK_NS		(10 * NSEC_PER_SEC)	/* between looks at what could not be done */
#define REST_MIN_NS	(5 * NSEC_PER_MSEC)
#define CLIENT_NS	(3 * NSEC_PER_SEC)	/* after its last step a client is believed gone */

static const struct fs_cred merger_cred = { .comm = "lunfsd merging" };

/* ---- one step ---- */

/* mutex held.  The place of disk @id; the one that has not been used for longest; NULL: all are. */
static struct store_merge *place_of(struct store *s, uint64_t id)
{
	struct store_merge *p, *oldest = NULL;

	for (p = s->merges; p < s->merges + STORE_MERGES; p++) {
		if (p->disk == id)
			return p;
		if (!p->busy && (!oldest || p->used_ns < oldest->used_ns))
			oldest = p;
	}
	if (oldest)
		*oldest = (struct store_merge){ .disk = id };
	return oldest;
}

/*
 * The place of disk @id, where nobody else does anything until place_put().  NULL: a client is
 * about to (@is_client: it is this one), who would find the disk in use if we came in between.
 */
static struct store_merge *place_get(struct store *s, uint64_t id, bool is_client)
{
	uint64_t now = env_now_ns(env_posix());
	struct store_merge *p;

	pthread_mutex_lock(&s->all->mutex);
	while (!(p = place_of(s, id)) || p->busy)
		pthread_cond_wait(&s->all->changed, &s->all->mutex);
	p->used_ns = now;
	if (is_client)
		p->asked_ns = now;
	if (p->asked_ns && now - p->asked_ns > CLIENT_NS)
		p->asked_ns = 0;
	if (is_client || !p->asked_ns)
		p->busy = true;
	else
		p = NULL;
	pthread_mutex_unlock(&s->all->mutex);
	return p;
}

static void place_put(struct store *s, struct store_merge *p, const struct merge *m)
{
	pthread_mutex_lock(&s->all->mutex);
	p->m = *m;
	p->busy = false;
	pthread_cond_broadcast(&s->all->changed);
	pthread_mutex_unlock(&s->all->mutex);
}

bool merger_place(struct store *s, uint64_t id, struct merge *m)
{
	bool found = false;

	pthread_mutex_lock(&s->all->mutex);
	for (unsigned int i = 0; i < STORE_MERGES && !found; i++) {
		found = s->merges[i].disk == id;
		*m = s->merges[i].m;
	}
	pthread_mutex_unlock(&s->all->mutex);
	return found;
}

static int step(struct disks *disks, struct store *s, uint64_t id, struct merge *m)
{
	struct attachment *a = disks_find_id(disks, s, id);
	struct fs_file *f;
	int err;

	if (a) {
		err = disk_merge_step(a->disk, m);
		if (err >= 0)
			disks_moved(a);
		disks_put(a);
		return err;
	}
	err = fs_open(s->fs, id, FS_OPEN_WRITE | FS_OPEN_BRIEF, &merger_cred, &f, NULL);
	if (err)
		return err;
	err = fs_merge_step(s->fs, f, m);
	fs_close(s->fs, f);
	return err;
}

int merger_step(struct disks *disks, struct store *s, uint64_t id, bool is_client, struct merge *m)
{
	struct store_merge *p = place_get(s, id, is_client);
	struct merge at;
	int err;

	if (!p)
		return 0;
	at = p->m;	/* nobody changes it while the place is busy */
	at.units_moved = m->units_moved;
	at.blocks_copied = m->blocks_copied;
	err = step(disks, s, id, &at);
	*m = at;
	place_put(s, p, &at);
	return err;
}

/* ---- by itself ---- */

/* Until @ns have passed, it is stopped, or (@kicks) it is kicked.  False: stopped. */
static bool rest(struct merger *m, uint64_t ns, bool kicks)
{
	struct timespec until;
	uint64_t at;
	bool going;

	clock_gettime(CLOCK_MONOTONIC, &until);
	at = (uint64_t)until.tv_sec * NSEC_PER_SEC + (uint64_t)until.tv_nsec + ns;
	until.tv_sec = (time_t)(at / NSEC_PER_SEC);
	until.tv_nsec = (long)(at % NSEC_PER_SEC);
	pthread_mutex_lock(&m->mutex);
	while (!m->stopping && !(kicks && m->kicked) &&
	       pthread_cond_timedwait(&m->changed, &m->mutex, &until) != ETIMEDOUT)
		;
	if (kicks)
		m->kicked = false;
	going = !m->stopping;
	pthread_mutex_unlock(&m->mutex);
	return going;
}

/* What is to be merged below disk @id, as far as that goes now. */
static void merge_below(struct merger *m, struct store *s, uint64_t id)
{
	struct env *env = env_posix();
	struct merge merge = { 0 };
	uint64_t began, took;
	int more = 1;

	while (more > 0 && !__atomic_load_n(&s->leaving, __ATOMIC_RELAXED)) {
		began = env_now_ns(env);
		more = merger_step(m->disks, s, id, false, &merge);
		took = env_now_ns(env) - began;
		if (!rest(m, took > REST_MIN_NS ? took : REST_MIN_NS, false))
			return;
	}
}

static void look_at(struct merger *m, struct store *s)
{
	uint32_t from = 0;
	uint64_t top;

	while (!fs_is_lost(s->fs) && !__atomic_load_n(&s->leaving, __ATOMIC_RELAXED) &&
	       fs_merge_find(s->fs, &from, &top) > 0) {
		merge_below(m, s, top);
		if (!rest(m, 0, false))
			return;
	}
}

/* The datastores there are, each used while it is looked at. */
static void look(struct merger *m)
{
	struct store *s, *tmp, *used[STORES_MAX];
	unsigned int count = 0;

	pthread_mutex_lock(&m->stores->mutex);
	list_for_each(s, tmp, &m->stores->list, node) {
		if (s->state != STORE_ATTACHED || s->fs->read_only || m->stores->stopping)
			continue;
		s->refs++;
		s->background++;
		used[count++] = s;
	}
	pthread_mutex_unlock(&m->stores->mutex);
	for (unsigned int i = 0; i < count; i++) {
		look_at(m, used[i]);
		pthread_mutex_lock(&m->stores->mutex);
		used[i]->background--;
		store_put_locked(used[i]);
		pthread_mutex_unlock(&m->stores->mutex);
	}
}

static void *run(void *arg)
{
	struct merger *m = arg;

	while (rest(m, LOOK_NS, true))
		look(m);
	return NULL;
}

void merger_kick(struct merger *m)
{
	pthread_mutex_lock(&m->mutex);
	m->kicked = true;
	pthread_cond_broadcast(&m->changed);
	pthread_mutex_unlock(&m->mutex);
}

int merger_start(struct merger *m, struct stores *stores, struct disks *disks)
{
	pthread_condattr_t attr;

	memset(m, 0, sizeof(*m));
	m->stores = stores;
	m->disks = disks;
	disks->merger = m;
	pthread_mutex_init(&m->mutex, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&m->changed, &attr);
	pthread_condattr_destroy(&attr);
	return -pthread_create(&m->thread, NULL, run, m);
}

void merger_stop(struct merger *m)
{
	pthread_mutex_lock(&m->mutex);
	m->stopping = true;
	pthread_cond_broadcast(&m->changed);
	pthread_mutex_unlock(&m->mutex);
	pthread_join(m->thread, NULL);
}
