/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/checker.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/store_internal.h"
#include "fs/journal.h"

#define ABANDONED_NS	(10 * NSEC_PER_SEC)	/* without a question a check is nobody's */
#define LOOK_NS		(20 * NSEC_PER_MSEC)	/* between looks at whether to go on */
#define FIRST_NS	(2 * NSEC_PER_SEC)	/* from the attach to the first pass … */
#define REST_NS		(10 * NSEC_PER_SEC)	/* … and between two */
#define HOSTS_NS	(5 * NSEC_PER_SEC)	/* between counts of the hosts */
#define PATH_MAX_SHOWN	1024u

static const char scrub_source[] = "scrub";

/* ---- whether to go on, and how fast ---- */

/* stores->mutex held.  Everything but work in the background has gone, or wants to. */
static bool must_end(const struct checking *k, uint64_t now)
{
	const struct store *s = k->store;

	if (s->all->stopping || __atomic_load_n(&s->leaving, __ATOMIC_RELAXED))
		return true;
	if (s->implicit && list_empty(&s->mounts) && s->refs == s->background)
		return true;
	return !k->is_scrub &&
	       now > __atomic_load_n(&k->asked_ns, __ATOMIC_RELAXED) + ABANDONED_NS;
}

/* Until @until_ns (env_now_ns()).  Return: 0, -ECANCELED. */
static int go_on(struct checking *k, uint64_t until_ns)
{
	struct stores *all = k->store->all;
	struct env *env = env_posix();
	uint64_t now = env_now_ns(env);
	int err = 0;

	pthread_mutex_lock(&all->mutex);
	for (;;) {
		struct timespec t;
		uint64_t at;

		err = must_end(k, now) ? -ECANCELED : 0;
		k->ending = k->ending || err;
		if (err || now >= until_ns)
			break;
		clock_gettime(CLOCK_REALTIME, &t);
		at = (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec + (until_ns - now);
		if (until_ns - now > NSEC_PER_SEC)
			at -= until_ns - now - NSEC_PER_SEC;
		t.tv_sec = (time_t)(at / NSEC_PER_SEC);
		t.tv_nsec = (long)(at % NSEC_PER_SEC);
		pthread_cond_timedwait(&all->changed, &all->mutex, &t);
		now = env_now_ns(env);
	}
	pthread_mutex_unlock(&all->mutex);
	k->looked_ns = now;
	return err;
}

static unsigned int live_hosts(struct store *s)
{
	struct lockd_peer *peers = calloc(SLOT_COUNT_MAX, sizeof(*peers));
	unsigned int live = 0;

	for (uint32_t i = 0, n = peers ? lockd_peers(s->fs->lockd, peers) : 0; i < n; i++)
		live += peers[i].valid && peers[i].slot.state == SLOT_LIVE &&
			(peers[i].self || peers[i].breakable_ms);
	free(peers);
	return live ? live : 1;
}

/* The thread's: what was read since @from_ns counts against the share that holds now. */
static void renew_share(struct checking *k, uint64_t now)
{
	struct store_checks *c = k->store->checks;
	unsigned int hosts;

	if (!k->is_scrub || (k->hosts_ns && now - k->hosts_ns < HOSTS_NS))
		return;
	hosts = live_hosts(k->store);
	pthread_mutex_lock(&c->mutex);
	k->hosts = hosts;
	pthread_mutex_unlock(&c->mutex);
	k->hosts_ns = k->from_ns = now;
	k->bytes = 0;
}

static int pace(void *arg, uint32_t blocks)
{
	struct checking *k = arg;
	uint64_t now = env_now_ns(env_posix()), until = now, rate = k->rate;

	renew_share(k, now);
	if (k->is_scrub)
		rate = rate / k->hosts ? rate / k->hosts : 1;
	k->bytes += (uint64_t)blocks * BLOCK_SIZE;
	if (rate)
		until = k->from_ns + (uint64_t)((double)k->bytes / (double)rate * NSEC_PER_SEC);
	if (until <= now && now - k->looked_ns < LOOK_NS)
		return 0;
	return go_on(k, until);
}

/* ---- what it finds ---- */

static void on_progress(void *arg, const char *phase, uint64_t done, uint64_t total)
{
	struct checking *k = arg;
	struct store_checks *c = k->store->checks;

	pthread_mutex_lock(&c->mutex);
	k->phase = phase;
	k->done = done;
	k->total = total;
	pthread_mutex_unlock(&c->mutex);
}

/* mutex held.  The finding, if it is known already. */
static struct checker_finding *known(struct checking *k, const struct check_finding *f)
{
	for (unsigned int i = 0; i < k->count; i++)
		if (k->findings[i].code == f->code && k->findings[i].addr == f->addr &&
		    !strcmp(k->findings[i].text ? k->findings[i].text : "", f->text))
			return &k->findings[i];
	return NULL;
}

/* mutex held.  Return: whether it is remembered. */
static bool remember(struct checking *k, const struct check_finding *f, const char *path)
{
	struct checker_finding *to;

	if (!k->findings)
		k->findings = calloc(CHECKER_FINDINGS, sizeof(*k->findings));
	if (!k->findings || k->count == CHECKER_FINDINGS)
		return false;
	to = &k->findings[k->count++];
	*to = (struct checker_finding){ .code = f->code, .addr = f->addr, .pass = k->passes,
					.inode = inode_id_number(f->inode), .text = strdup(f->text),
					.path = path ? strdup(path) : NULL };
	return true;
}

static void on_finding(void *arg, const struct check_finding *f)
{
	const struct check_code_info *info = check_code_info(f->code);
	struct checking *k = arg;
	struct store_checks *c = k->store->checks;
	struct checker_finding *old;
	char path[PATH_MAX_SHOWN];
	bool fresh = true, has_path = false;

	if (f->inode)
		has_path = fs_path(k->store->fs, f->inode, path, sizeof(path))[0] == '/';
	pthread_mutex_lock(&c->mutex);
	old = k->is_scrub ? known(k, f) : NULL;
	if (old)
		old->pass = k->passes;
	else
		fresh = remember(k, f, has_path ? path : NULL);
	pthread_mutex_unlock(&c->mutex);
	if (!old && fresh && k->is_scrub)
		log_error(env_posix(), k->store->fs->label, "%s: LUN-%04u %s at 0x%llx: %s%s%s%s; detach "
			  "it everywhere and run fsck.lunfs", scrub_source, info->number, info->name,
			  (unsigned long long)f->addr, f->text, has_path ? " (" : "",
			  has_path ? path : "", has_path ? ")" : "");
}

static void forget_finding(struct checker_finding *f)
{
	free(f->text);
	free(f->path);
}

/* mutex held. */
static void forget_all(struct checking *k)
{
	for (unsigned int i = 0; i < k->count; i++)
		forget_finding(&k->findings[i]);
	k->count = 0;
}

/* mutex held.  A complete pass has not met them: they are whole again, or gone. */
static void forget_old(struct checking *k)
{
	unsigned int kept = 0;

	for (unsigned int i = 0; i < k->count; i++) {
		if (k->findings[i].pass == k->passes)
			k->findings[kept++] = k->findings[i];
		else
			forget_finding(&k->findings[i]);
	}
	k->count = kept;
}

/* ---- running ---- */

static int run_once(struct checking *k, struct check_online_result *r)
{
	struct check_online_params p = { .fs = k->store->fs, .shallow = k->is_scrub, .arg = k,
					 .report = on_finding, .progress = on_progress, .pace = pace };
	/* What this host has done a moment ago counts: so far it may lie in its journal alone. */
	int err = k->is_scrub ? 0 : journal_settle(k->store->fs);

	memset(r, 0, sizeof(*r));
	k->from_ns = env_now_ns(env_posix());
	k->bytes = 0;
	return err ? err : check_online(&p, r);
}

static void leave(struct checking *k)
{
	struct store *s = k->store;
	struct stores *all = s->all;

	pthread_mutex_lock(&all->mutex);
	s->background--;
	store_put_locked(s);
	pthread_mutex_unlock(&all->mutex);
}

static void *run_check(void *arg)
{
	struct checking *k = arg;
	struct stores *all = k->store->all;
	struct store_checks *c = k->store->checks;
	struct check_online_result r;
	int err = run_once(k, &r);

	pthread_mutex_lock(&all->mutex);
	k->ending = false;
	pthread_mutex_lock(&c->mutex);
	k->result = r;
	k->err = err;
	k->state = err ? CHECKER_FAILED : CHECKER_DONE;
	pthread_mutex_unlock(&c->mutex);
	pthread_mutex_unlock(&all->mutex);
	leave(k);
	return NULL;
}

static void pass_ended(struct checking *k, const struct check_online_result *r)
{
	struct store_checks *c = k->store->checks;

	pthread_mutex_lock(&c->mutex);
	forget_old(k);
	k->result = *r;
	k->passes++;
	k->passed_ns = env_realtime_ns(env_posix());
	pthread_mutex_unlock(&c->mutex);
}

static void *run_scrub(void *arg)
{
	struct checking *k = arg;
	struct store_checks *c = k->store->checks;
	struct check_online_result r;
	uint64_t rest = FIRST_NS;
	int err = 0;

	while (err != -ECANCELED && !fs_is_lost(k->store->fs) &&
	       !go_on(k, env_now_ns(env_posix()) + rest)) {
		rest = REST_NS;
		err = run_once(k, &r);
		if (!err)
			pass_ended(k, &r);
		on_progress(k, "waiting", 0, 0);
	}
	pthread_mutex_lock(&c->mutex);
	k->state = CHECKER_NEVER;
	pthread_mutex_unlock(&c->mutex);
	leave(k);
	return NULL;
}

/* stores->mutex held, and a reference for the thread to give back. */
static int start_thread(struct checking *k, void *(*run)(void *arg))
{
	pthread_attr_t attr;
	pthread_t thread;
	int err;

	k->state = CHECKER_RUNNING;
	k->phase = "waiting";
	k->done = k->total = 0;
	k->hosts = 1;
	k->hosts_ns = k->looked_ns = 0;
	k->ending = false;
	k->store->refs++;
	k->store->background++;
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	err = -pthread_create(&thread, &attr, run, k);
	pthread_attr_destroy(&attr);
	if (!err)
		return 0;
	k->state = CHECKER_NEVER;
	k->store->refs--;
	k->store->background--;
	return err;
}

int checker_start(struct store *s, uint64_t rate, bool *joined)
{
	struct checking *k = &s->checks->check;
	int err = 0;

	if (!s->fs->lockd || s->fs->rescue)
		return -ENOTSUP;
	checker_asked(s);
	pthread_mutex_lock(&s->all->mutex);
	/* One that nobody asked for any more ends without a result: it is not to be joined. */
	while (k->ending)
		pthread_cond_wait(&s->all->changed, &s->all->mutex);
	pthread_mutex_lock(&s->checks->mutex);
	*joined = k->state == CHECKER_RUNNING;
	if (!*joined) {
		forget_all(k);
		k->rate = rate;
		err = start_thread(k, run_check);
	}
	pthread_mutex_unlock(&s->checks->mutex);
	pthread_mutex_unlock(&s->all->mutex);
	return err;
}

void checker_asked(struct store *s)
{
	__atomic_store_n(&s->checks->check.asked_ns, env_now_ns(env_posix()), __ATOMIC_RELAXED);
}

/* ---- datastores ---- */

struct store_checks *checker_new(struct store *s)
{
	struct store_checks *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	pthread_mutex_init(&c->mutex, NULL);
	c->check.store = c->scrub.store = s;
	c->scrub.is_scrub = true;
	return c;
}

void checker_free(struct store_checks *c)
{
	if (!c)
		return;
	forget_all(&c->check);
	forget_all(&c->scrub);
	free(c->check.findings);
	free(c->scrub.findings);
	pthread_mutex_destroy(&c->mutex);
	free(c);
}

/* stores->mutex held. */
static void start_scrub(struct store *s, uint64_t rate)
{
	struct checking *k = &s->checks->scrub;

	if (s->state != STORE_ATTACHED || !s->fs->lockd || s->fs->rescue || fs_is_lost(s->fs) ||
	    __atomic_load_n(&s->leaving, __ATOMIC_RELAXED) || (s->implicit && list_empty(&s->mounts)))
		return;
	pthread_mutex_lock(&s->checks->mutex);
	if (k->state != CHECKER_RUNNING) {
		k->rate = rate;
		start_thread(k, run_scrub);
	}
	pthread_mutex_unlock(&s->checks->mutex);
}

/* Each datastore that has come gets its scrub, until the daemon ends. */
static void *start_scrubs(void *arg)
{
	struct stores *all = arg;
	struct store *s, *tmp;

	pthread_mutex_lock(&all->mutex);
	while (!all->stopping) {
		list_for_each(s, tmp, &all->list, node)
			start_scrub(s, all->scrub_rate);
		pthread_cond_wait(&all->changed, &all->mutex);
	}
	pthread_mutex_unlock(&all->mutex);
	return NULL;
}

int scrubber_start(struct stores *all, uint64_t rate)
{
	pthread_t thread;
	int err;

	all->scrub_rate = rate;
	if (!rate)
		return 0;
	err = -pthread_create(&thread, NULL, start_scrubs, all);
	if (!err)
		pthread_detach(thread);
	return err;
}
