/* SPDX-License-Identifier: Apache-2.0 */
/* Attached disks: how they come, go and are found. */
#include "daemon/disks.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/machine.h"
#include "base/text.h"

#define SETTLE_S	10	/* a command's patience with who attaches or detaches the same disk */

/* ---- attaching ---- */

static void name_attachment(struct attachment *a, const uint8_t id[16])
{
	const char *base = strrchr(a->path, '/') + 1;
	unsigned int n = 0;

	for (; *base && n < 24; base++)
		if (isalnum((unsigned char)*base) || *base == '-' || (n && *base == '.'))
			a->name[n++] = *base;
	snprintf(a->name + n, sizeof(a->name) - n, "%s%02x%02x%02x%02x", n ? "-" : "", id[0], id[1],
		 id[2], id[3]);
}

static void make_names(struct attachment *a)
{
	uint8_t id[16];

	/* The same after a restart, a snapshot and on every host: guests know disks by it. */
	machine_derive_id(a->store->fs->super.volume_id, a->path, id);
	name_attachment(a, id);
	snprintf(a->object, sizeof(a->object), "%s:%s", a->store->fs->label, a->path);
	if (a->options.serial[0])
		return;
	for (unsigned int i = 0; i < DISK_SERIAL_MAX / 2; i++)
		sprintf(a->options.serial + 2 * i, "%02x", id[i]);
}

static unsigned int least_loaded(const struct disks *all)
{
	unsigned int best = 0;

	for (unsigned int i = 1; i < all->reactor_count; i++)
		if (all->load[i] < all->load[best])
			best = i;
	return best;
}

/*
 * mutex held.  Turns are of one reactor: disks with shares of a datastore are all on the same one.
 * Return: false: no disk of @s has shares, but @but.
 */
static bool reactor_of_shares(struct disks *all, const struct store *s, const struct attachment *but,
			      unsigned int *r)
{
	struct attachment *a, *tmp;

	list_for_each(a, tmp, &all->list, node) {
		if (a == but || a->store != s || !a->options.limits.shares)
			continue;
		*r = a->reactor;
		return true;
	}
	return false;
}

static int make_disk(struct attachment *a, uint64_t id)
{
	struct disks *all = a->all;
	struct disk_params p = {
		.fs = a->store->fs, .id = id, .name = a->object,
		.reactor = all->reactors[a->reactor], .workers = a->store->workers,
		.read_only = a->options.read_only,
		.enospc = a->options.enospc, .limits = a->options.limits,
		.events = { .resized = disks_resized, .lost = disks_lost }, .arg = a,
	};
	int err;

	strcpy(p.user, a->options.user);
	err = disks_port_get(all, a->store, a->reactor, &a->port);
	if (!err)
		err = disks_state_map(all, a->record, &a->fresh);
	if (err)
		return err;
	p.lower = a->port->lower;
	p.shares = &a->port->shares;
	p.fresh = a->fresh;
	return disk_new(&p, &a->disk);
}

/* make_disk() undone. */
static void unmake_disk(struct attachment *a)
{
	disk_free(a->disk);
	a->disk = NULL;
	disks_state_unmap(a->fresh);
	a->fresh = NULL;
	disks_port_put(a->all, a->port);
	a->port = NULL;
}

void disks_free_attachment(struct attachment *a)
{
	struct export *e;

	a->step = "requests that its device has are waited for";
	e = disks_export_stop(a);
	if (a->vhu)
		vhu_close_sync(a->vhu);
	pthread_mutex_lock(&a->all->mutex);
	while (a->working)
		pthread_cond_wait(&a->all->changed, &a->all->mutex);
	a->all->load[a->reactor]--;
	pthread_mutex_unlock(&a->all->mutex);
	/* What this host has done with the lock since its front end left is no stranger's doing. */
	if (a->disk && a->attached && a->all->stopping && !a->has_claim)
		disks_claim_set(a);
	a->step = "what was written is flushed, and its lock released";
	if (a->disk)
		disk_shut(a->disk);
	a->step = "its last requests are waited for";
	if (e)
		export_free(e);
	disks_leave_nothing(a);
	if (a->disk && a->detaching)
		disk_let_go(a->disk);
	disk_free(a->disk);
	disks_state_unmap(a->fresh);
	/* Not before: the record has the memory of a->fresh. */
	pthread_mutex_lock(&a->all->mutex);
	a->all->record_used[a->record] = a->keep_record;
	if (a->ending) {
		a->store->disks_ending--;
		disks_leave_list(a);
	}
	pthread_mutex_unlock(&a->all->mutex);
	disks_port_put(a->all, a->port);
	pthread_mutex_lock(&a->store->all->mutex);
	a->store->disks--;
	pthread_mutex_unlock(&a->store->all->mutex);
	store_put(a->store);
	pthread_mutex_lock(&a->all->mutex);
	a->all->alive--;
	pthread_cond_broadcast(&a->all->changed);
	pthread_mutex_unlock(&a->all->mutex);
	free(a);
}

/*
 * A reference more to the store, which the caller has one to, and threads for what blocks: its own, for
 * of one whose device hangs all of them may hang.  Return: whether it has these.
 */
static int store_hold(struct store *s)
{
	int err = 0;

	pthread_mutex_lock(&s->all->mutex);
	s->refs++;
	s->disks++;
	if (!s->workers)
		err = workers_create(env_posix(), "disk", STORE_WORKERS, &s->workers);
	pthread_mutex_unlock(&s->all->mutex);
	return err;
}

static int explain(const struct attachment *a, int err, char *why, size_t why_size)
{
	if (why[0])
		return err;
	if (err == -EINVAL)
		return text_refuse(err, why, why_size, "%.300s: no virtual disk: it has to be a file "
				   "of at least 1 MiB and of whole sectors of %u bytes", a->object,
				   a->store->fs->super.sector);
	return text_refuse(err, why, why_size, "%.300s: %s", a->object, strerror(-err));
}

/* mutex held. */
static struct attachment *find(struct disks *all, const struct store *s, const char *path)
{
	struct attachment *a, *tmp;

	list_for_each(a, tmp, &all->list, node)
		if (a->store == s && !strcmp(a->path, path))
			return a;
	return NULL;
}

/* mutex held: nobody is attaching or detaching it. */
static bool is_served(const struct attachment *a)
{
	return a->attached && !a->detaching;
}

/* mutex held.  @a with a reference more if it is served; else, or if there is none, NULL. */
static struct attachment *hold_served(struct attachment *a)
{
	if (!a || !is_served(a))
		return NULL;
	a->refs++;
	return a;
}

/* mutex held.  0: there is room for @a, and it is the only one of its path. */
static int enter(struct attachment *a, const struct disks_saved *saved, char *why, size_t why_size)
{
	struct disks *all = a->all;
	unsigned int i = saved ? saved->record : 0;

	if (all->stopping)
		return text_refuse(-ESHUTDOWN, why, why_size, "the daemon is shutting down");
	if (find(all, a->store, a->path))
		return text_refuse(-EEXIST, why, why_size, "%.300s: it is being attached "
				   "or detached still; try again", a->object);
	while (!saved && i < DISKS_MAX && all->record_used[i])
		i++;
	if (i == DISKS_MAX)
		return text_refuse(-EMFILE, why, why_size, "this daemon has %u disks already",
				   DISKS_MAX);
	all->record_used[i] = true;
	a->record = i;
	if (!a->options.limits.shares || !reactor_of_shares(all, a->store, a, &a->reactor))
		a->reactor = least_loaded(all);
	all->load[a->reactor]++;
	all->count++;
	all->alive++;
	list_add_tail(&all->list, &a->node);
	return 0;
}

void disks_leave_list(struct attachment *a)
{
	list_del(&a->node);
	a->all->count--;
}

static int serve_front_ends(struct attachment *a, char *why, size_t why_size)
{
	int err = disks_front_new(a);

	if (!err && a->resume)
		disks_open(a);	/* now, before anybody else of this host can */
	return err ? err : disks_listen(a, why, why_size);
}

/* One that has ended stays in the list, served to nobody: it says why. */
static int serve_initiators(struct attachment *a, char *why, size_t why_size)
{
	struct export_portal *portal;
	int err = exports_hold(&a->all->exports, a->options.portal, &portal, why, why_size);

	if (err)
		return err;
	err = disks_open(a);
	if (err == -EBUSY)
		text_refuse(err, why, why_size, "%.300s: %s has it open; close it there",
			    a->object, a->holder);
	if (!err)
		err = disks_export_start(a, why, why_size);
	exports_release(&a->all->exports, portal);
	return a->ended[0] ? 0 : err;
}

/* "/vm/d", "//vm/d" and the name it had before a rename: a snapshot would move one of them on only. */
static int refuse_alias(struct attachment *a, uint64_t id, char *why, size_t why_size)
{
	struct attachment *other = disks_find_id(a->all, a->store, id);
	int err;

	if (!other)
		return 0;
	err = text_refuse(-EBUSY, why, why_size, "%.300s: the same disk is attached as %.300s; use "
			  "that, or detach it first", a->object, other->object);
	disks_put(other);
	return err;
}

static int make_checked_disk(struct attachment *a, uint64_t id, char *why, size_t why_size)
{
	int err = refuse_alias(a, id, why, why_size);

	return err ? err : make_disk(a, id);
}

/*
 * What the name leads to, before and after: a snapshot in between, on whichever host, has made of the
 * inode what cannot be written, and the disk would be one that only reads.
 */
static int make_named_disk(struct attachment *a, char *why, size_t why_size)
{
	struct fs_attr attr, now;
	int err = fs_resolve(a->store->fs, a->path, &attr);

	for (unsigned int i = 0; i < NAME_TRIES && !err; i++) {
		err = make_checked_disk(a, attr.id, why, why_size);
		if (!err)
			err = fs_resolve(a->store->fs, a->path, &now);
		if (err || now.id == attr.id)
			return err;
		unmake_disk(a);
		attr = now;
	}
	return err ? err : -EAGAIN;
}

static int attach_new(struct attachment *a, const struct disks_saved *saved, char *why,
		      size_t why_size)
{
	struct fs_attr attr;
	int err = disks_take_back(a);

	if (err)
		return explain(a, err, why, why_size);
	err = saved ? fs_getattr(a->store->fs, saved->id, &attr) : -ESTALE;
	/* Its guest may still be there: of what it had, not of what the name leads to by now. */
	err = err ? make_named_disk(a, why, why_size) :
		    make_checked_disk(a, saved->id, why, why_size);
	if (!err)
		err = disks_expect(a);
	if (!err)
		err = a->options.portal[0] ? serve_initiators(a, why, why_size) :
					     serve_front_ends(a, why, why_size);
	return explain(a, err, why, why_size);
}

/* @saved: as it was written down; NULL: it is new. */
static int attach(struct disks *all, struct store *s, const char *path,
		  const struct disk_options *options, const struct disks_saved *saved,
		  struct attachment **out, char *why, size_t why_size)
{
	struct attachment *a = calloc(1, sizeof(*a));
	int err = disks_export_check(options, why, why_size);

	if (!a || err) {
		free(a);
		return err ? err : -ENOMEM;
	}
	a->all = all;
	a->store = s;
	a->refs = 1;
	a->step = "it is being attached";
	a->options = *options;
	snprintf(a->path, sizeof(a->path), "%s", path);
	make_names(a);
	disks_handover_init(a);
	/* By the clock: of two attachings of a disk no two are at the same time. */
	a->birth = saved ? saved->birth : env_realtime_ns(env_posix());
	if (saved) {
		snprintf(a->name, sizeof(a->name), "%s", saved->name);
		a->claim = saved->claim;
		a->resume = a->has_claim = saved->has_claim;
		a->shut = saved->shut;
		a->next = saved->next;
		a->saved_id = saved->id;
		strcpy(a->ended, saved->ended);
	}
	list_init(&a->node);
	pthread_mutex_init(&a->claiming, NULL);
	why[0] = '\0';
	pthread_mutex_lock(&all->mutex);
	err = enter(a, saved, why, why_size);
	pthread_mutex_unlock(&all->mutex);
	if (err) {
		free(a);
		return err;
	}
	err = store_hold(s);
	err = err ? explain(a, err, why, why_size) : attach_new(a, saved, why, why_size);
	pthread_mutex_lock(&all->mutex);
	a->attached = !err;
	a->keep_record = err && saved;	/* it is tried again */
	if (err)
		disks_leave_list(a);
	/* The daemon's end waits for those that are being attached. */
	pthread_cond_broadcast(&all->changed);
	pthread_mutex_unlock(&all->mutex);
	if (err) {
		disks_free_attachment(a);
		return err;
	}
	disks_state_save(a);
	log_info(env_posix(), a->object, "attached%s", a->options.read_only ? " read-only" : "");
	*out = a;
	return 0;
}

/* New limits of an attached disk; with shares only if it competes where the others do. */
static int change_limits(struct attachment *a, const struct disk_limits *limits, char *why,
			 size_t why_size)
{
	unsigned int r = a->reactor;
	bool apart;

	pthread_mutex_lock(&a->all->mutex);
	apart = limits->shares && reactor_of_shares(a->all, a->store, a, &r) && r != a->reactor;
	if (!apart)
		a->options.limits = *limits;
	pthread_mutex_unlock(&a->all->mutex);
	if (apart)
		return text_refuse(-EBUSY, why, why_size, "%.300s: it was attached without shares, and is "
				   "served by another thread than the disks that have some; detach it "
				   "first", a->object);
	disk_set_limits(a->disk, limits);
	disks_state_save(a);
	return 0;
}

/*
 * disks_find() once nobody is attaching or detaching it: a daemon that has just started takes back what
 * it served while commands come already.
 */
static struct attachment *find_settled(struct disks *all, const struct store *s, const char *path)
{
	struct timespec until;
	struct attachment *a;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += SETTLE_S;
	pthread_mutex_lock(&all->mutex);
	while ((a = find(all, s, path)) && !is_served(a) && !all->stopping)
		if (pthread_cond_timedwait(&all->changed, &all->mutex, &until) == ETIMEDOUT)
			break;
	a = hold_served(a);
	pthread_mutex_unlock(&all->mutex);
	return a;
}

int disks_attach(struct disks *all, struct store *s, const char *path,
		 const struct disk_options *options, struct attachment **out, char *why,
		 size_t why_size)
{
	struct attachment *a = find_settled(all, s, path);
	int err;

	if (!a)
		return attach(all, s, path, options, NULL, out, why, why_size);
	if (strcmp(a->options.portal, options->portal)) {
		disks_put(a);
		return text_refuse(-EBUSY, why, why_size, "%.300s: attached already, %s%s; detach it "
				   "first", path, a->options.portal[0] ? "by iSCSI at " :
				   "by vhost-user-blk", a->options.portal);
	}
	if (a->options.read_only != options->read_only || a->options.enospc != options->enospc) {
		disks_put(a);
		return text_refuse(-EBUSY, why, why_size, "%.300s: attached with other options; detach "
				   "it first", path);
	}
	err = change_limits(a, &options->limits, why, why_size);
	if (err)
		disks_put(a);
	else
		*out = a;
	return err;
}

int disks_attach_saved(struct disks *all, struct store *s, const struct disks_saved *saved,
		       char *why, size_t why_size)
{
	struct attachment *a;
	int err = attach(all, s, saved->path, &saved->options, saved, &a, why, why_size);

	if (!err)
		disks_put(a);
	return err;
}

/* ---- detaching ---- */

void disks_wait_unused(struct attachment *a)
{
	a->step = "a command that uses it is waited for";
	while (a->refs)
		pthread_cond_wait(&a->all->changed, &a->all->mutex);
}

static int not_attached(struct store *s, const char *path, char *why, size_t why_size)
{
	return text_refuse(-ENOENT, why, why_size, "%.100s:%.300s is not attached; \"lunfs disk list\" "
			   "shows what is", s->fs->label, path);
}

/* Referenced by the caller, whose reference this is the end of; alone then.  false: another has done it. */
static bool begin_detaching(struct attachment *a)
{
	bool mine;

	pthread_mutex_lock(&a->all->mutex);
	a->refs--;
	pthread_cond_broadcast(&a->all->changed);
	mine = !a->detaching;
	if (mine) {
		a->detaching = true;
		disks_wait_unused(a);
	}
	pthread_mutex_unlock(&a->all->mutex);
	return mine;
}

int disks_detach(struct disks *all, struct store *s, const char *path, bool force, char *why,
		 size_t why_size)
{
	struct attachment *a = find_settled(all, s, path);

	if (!a)
		return not_attached(s, path, why, why_size);
	if (!force && disks_retire(a)) {
		text_refuse(-EBUSY, why, why_size, "%.300s: a guest is using it; end that, or "
			    "take the disk from under it with --force", a->object);
		disks_put(a);
		return -EBUSY;
	}
	if (!begin_detaching(a))
		return not_attached(s, path, why, why_size);
	disks_unlisten(a);
	pthread_mutex_lock(&all->mutex);
	a->forgotten = true;
	pthread_mutex_unlock(&all->mutex);
	disks_state_clear(all, a->record);
	pthread_mutex_lock(&all->mutex);
	disks_leave_list(a);
	pthread_mutex_unlock(&all->mutex);
	log_info(env_posix(), a->object, "detached");
	disks_free_attachment(a);
	return 0;
}

/* ---- finding ---- */

struct attachment *disks_find(struct disks *all, struct store *s, const char *path)
{
	struct attachment *a;

	pthread_mutex_lock(&all->mutex);
	a = hold_served(find(all, s, path));
	pthread_mutex_unlock(&all->mutex);
	return a;
}

struct attachment *disks_find_id(struct disks *all, struct store *s, uint64_t id)
{
	struct attachment *a, *tmp, *found = NULL;

	pthread_mutex_lock(&all->mutex);
	list_for_each(a, tmp, &all->list, node)
		if (a->store == s && is_served(a) && disk_id(a->disk) == id)
			found = a;
	found = hold_served(found);
	pthread_mutex_unlock(&all->mutex);
	return found;
}

void disks_put(struct attachment *a)
{
	pthread_mutex_lock(&a->all->mutex);
	a->refs--;
	pthread_cond_broadcast(&a->all->changed);
	pthread_mutex_unlock(&a->all->mutex);
}

bool disks_is_idle(struct attachment *a)
{
	bool idle;

	pthread_mutex_lock(&a->all->mutex);
	/*
	 * Of a read-only one nothing tells whether somebody had it before the daemon was restarted;
	 * an initiator that has lost its connections comes back to what it remembers.
	 */
	idle = !a->connected && !a->working && !a->has_claim && !a->resume &&
	       !a->options.read_only && !a->options.portal[0];
	pthread_mutex_unlock(&a->all->mutex);
	return idle;
}

void disks_each(struct disks *all, void (*fn)(struct attachment *a, void *arg), void *arg)
{
	struct attachment *a, *tmp, *all_of_them[DISKS_MAX];
	unsigned int n = 0;

	pthread_mutex_lock(&all->mutex);
	list_for_each(a, tmp, &all->list, node)
		if (hold_served(a))
			all_of_them[n++] = a;
	pthread_mutex_unlock(&all->mutex);
	for (unsigned int i = 0; i < n; i++) {
		fn(all_of_them[i], arg);
		disks_put(all_of_them[i]);
	}
}
