/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/disks.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/machine.h"
#include "base/text.h"

#define WORKERS		16u	/* for what blocks: misses, space, flushes, opening, closing */
#define QUEUES_DEFAULT	16u
#define TIMERS		(2 * DISKS_MAX + 64 + EXPORTS_TIMERS)

/* ---- what a front end does, and what follows ---- */

static void claim_set(struct attachment *a, bool has)
{
	struct disk_claim claim = { 0 };

	if (has && (a->options.read_only || disk_claim(a->disk, &claim)))
		has = false;
	pthread_mutex_lock(&a->all->mutex);
	a->has_claim = has;
	a->claim = claim;
	if (!a->all->stopping)
		disks_state_save(a);
	pthread_mutex_unlock(&a->all->mutex);
}

/* "beta (web1)": the host, and who it was opened for there. */
static void name_holder(const struct lock_holder *h, char *buf, size_t size)
{
	char host[64], user[32];

	text_printable(h->host_name, sizeof(h->host_name), host, sizeof(host));
	text_printable(h->comm, sizeof(h->comm), user, sizeof(user));
	snprintf(buf, size, "%s%s%s%s", host[0] ? host : "this host", user[0] ? " (" : "", user,
		 user[0] ? ")" : "");
}

static void say_not_opened(struct attachment *a, int err, const struct lock_holder *h)
{
	pthread_mutex_lock(&a->all->mutex);
	a->holder[0] = '\0';
	if (err == -ESTALE && !a->ended[0])
		snprintf(a->ended, sizeof(a->ended), "it was used elsewhere since its front end had "
			 "it; end that guest, detach the disk and attach it anew");
	else if (err == -EBUSY)
		name_holder(h, a->holder, sizeof(a->holder));
	pthread_mutex_unlock(&a->all->mutex);
	if (err == -ESTALE)
		log_error(env_posix(), a->object, "%s", a->ended);
	else if (err == -EBUSY)
		log_error(env_posix(), a->object, "cannot be served: %s has it open; close it there",
			  h->host_name[0] ? h->host_name : "this host itself");
	else
		log_error(env_posix(), a->object, "cannot be opened: %s", strerror(-err));
}

/*
 * Since it was attached a snapshot, on whichever host, may have made the inode that the name led to
 * the snapshot's, which cannot be written: the disk is what the name leads to now.
 */
static bool leads_elsewhere(struct attachment *a)
{
	struct fs_attr attr;

	return !a->resume && !fs_resolve(a->store->fs, a->path, &attr) &&
	       attr.id != disk_id(a->disk) && !disk_retarget(a->disk, attr.id);
}

/* Takes the lock; a front end may or may not be there already. */
static int attachment_open(struct attachment *a)
{
	struct lock_holder h = { 0 };
	int err = a->ended[0] ? -ESTALE : disk_open(a->disk, a->resume ? &a->claim : NULL, &h);

	if ((err == -EPERM || err == -ENOENT || err == -ESTALE) && !a->ended[0] &&
	    leads_elsewhere(a))
		err = disk_open(a->disk, NULL, &h);
	if (!err) {
		a->resume = false;
		a->holder[0] = '\0';
		claim_set(a, true);
	} else {
		say_not_opened(a, err, &h);
	}
	return err;
}

static void attachment_closed(struct attachment *a)
{
	int err;

	if (a->all->stopping)
		return;		/* the next daemon goes on from the claim */
	err = disk_shut(a->disk);
	if (err)
		log_error(env_posix(), a->object, "closed, but what was written last may be lost: %s",
			  strerror(-err));
	claim_set(a, false);
}

static void attachment_work(struct work *work)
{
	struct attachment *a = container_of(work, struct attachment, work);
	enum attachment_event e;

	pthread_mutex_lock(&a->all->mutex);
	while (a->event_count || a->resized) {
		if (a->resized) {
			struct export *x = a->export;

			a->resized = false;
			pthread_mutex_unlock(&a->all->mutex);
			if (x)
				export_resized(x);
			pthread_mutex_lock(&a->all->mutex);
			continue;
		}
		e = a->events[0];
		memmove(a->events, a->events + 1, --a->event_count * sizeof(a->events[0]));
		pthread_mutex_unlock(&a->all->mutex);
		if (e == ATTACHMENT_START)
			vhu_start_done(a->vhu, attachment_open(a));
		else
			attachment_closed(a);
		pthread_mutex_lock(&a->all->mutex);
	}
	a->working = false;
	pthread_cond_broadcast(&a->all->changed);
	pthread_mutex_unlock(&a->all->mutex);
}

/* From the reactor: the mutex is held for moments only, but for the writing of a record. */
static void post_event(struct attachment *a, enum attachment_event e)
{
	bool post;

	pthread_mutex_lock(&a->all->mutex);
	if (e == ATTACHMENT_CLOSED)
		a->connected = false;
	/* A front end starts, is gone, and no other is let in before the start is answered. */
	assert(a->event_count < ATTACHMENT_EVENTS);
	a->events[a->event_count++] = e;
	post = !a->working;
	a->working = true;
	pthread_mutex_unlock(&a->all->mutex);
	a->work.fn = attachment_work;
	if (post)
		workers_post(a->all->workers, &a->work);
}

static void front_end_starts(struct vhu *v, void *arg)
{
	(void)v;
	post_event(arg, ATTACHMENT_START);
}

static void front_end_closed(struct vhu *v, void *arg, enum vhu_end end, const char *why)
{
	struct attachment *a = arg;

	(void)v;
	(void)end;
	log_info(env_posix(), a->object, "its front end is gone: %s", why);
	post_event(a, ATTACHMENT_CLOSED);
}

static void front_end_connected(struct vhu *v, void *arg)
{
	struct attachment *a = arg;

	(void)v;
	pthread_mutex_lock(&a->all->mutex);
	a->connected = true;
	pthread_mutex_unlock(&a->all->mutex);
	log_info(env_posix(), a->object, "a front end has connected");
}

static const struct vhu_ops vhu_ops = {
	.connected = front_end_connected, .start = front_end_starts, .closed = front_end_closed,
};

/* The same for initiators, of whom a reactor cannot wait. */
static void post_resized(struct attachment *a)
{
	bool post;

	pthread_mutex_lock(&a->all->mutex);
	post = !a->working && a->export;
	a->resized = a->export != NULL;
	a->working = a->working || post;
	pthread_mutex_unlock(&a->all->mutex);
	a->work.fn = attachment_work;
	if (post)
		workers_post(a->all->workers, &a->work);
}

static void disk_resized(void *arg)
{
	struct attachment *a = arg;

	if (a->vhu)
		vhu_resized(a->vhu);
	else
		post_resized(a);
}

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
 * Before the first request fails for it: a launcher that ends its guest when its lock is gone
 * wants the guest to have seen nothing of that, for there is no telling what it would do.
 */
static void disk_lost(void *arg)
{
	struct attachment *a = arg;

	if (a->options.cut_if_lost && a->vhu)
		vhu_disconnect(a->vhu, "the disk's lock is lost");
}

static int make_disk(struct attachment *a, uint64_t id)
{
	struct disks *all = a->all;
	struct disk_params p = {
		.fs = a->store->fs, .id = id, .name = a->object,
		.reactor = all->reactors[a->reactor], .workers = all->workers,
		.lower = a->store->fs->dev, .read_only = a->options.read_only,
		.enospc = a->options.enospc, .limits = a->options.limits,
		.events = { .resized = disk_resized, .lost = disk_lost }, .arg = a,
	};
	int err;

	strcpy(p.user, a->options.user);
	err = disks_port_get(all, a->store, a->reactor, &a->port);
	if (!err)
		p.lower = a->port->dev;
	else if (err == -ENOTSUP)
		err = 0;
	if (!err)
		err = disks_state_map(all, a->record, &a->fresh);
	if (err)
		return err;
	p.fresh = a->fresh;
	return disk_new(&p, &a->disk);
}

static int make_vhu(struct attachment *a)
{
	struct vhu_params p = {
		.server = a->all->server, .reactor = a->all->reactors[a->reactor],
		.dev = disk_blkdev(a->disk), .name = a->object, .read_only = a->options.read_only,
		.discard = true, .queues_max = a->options.queues, .io_opt = UNIT_SIZE,
		.ops = &vhu_ops, .arg = a,
	};

	strcpy(p.serial, a->options.serial);
	return vhu_new(&p, &a->vhu);
}

struct listen_call {
	struct attachment *a;
	int fd, err;
};

static void listen_now(void *arg)
{
	struct listen_call *c = arg;

	c->err = vhu_listen(c->a->vhu, c->fd);
}

static int begin_listening(struct attachment *a, char *why, size_t why_size)
{
	struct rpc_request rq = { .op = RPC_LISTEN };
	struct rpc_reply reply;
	int fds[PACKET_FDS_MAX];
	unsigned int fd_count = 0;
	struct listen_call c = { .a = a };

	snprintf(rq.socket.name, sizeof(rq.socket.name), "%s", a->name);
	c.err = rpc_call(a->all->rpc, &rq, -1, &reply, fds, &fd_count);
	if (c.err) {
		snprintf(why, why_size, "%s", reply.why);
		return c.err;
	}
	c.fd = fds[0];
	reactor_call_sync(a->all->reactors[a->reactor], listen_now, &c);
	if (c.err)
		packet_close_fds(fds, fd_count);
	return c.err;
}

static void end_listening(struct attachment *a)
{
	struct rpc_request rq = { .op = RPC_UNLISTEN };
	struct rpc_reply reply;

	if (!a->vhu)
		return;
	snprintf(rq.socket.name, sizeof(rq.socket.name), "%s", a->name);
	rpc_call(a->all->rpc, &rq, -1, &reply, NULL, NULL);
}

/* Whatever there is of it; it is in no list. */
static void attachment_free(struct attachment *a)
{
	disks_export_stop(a);
	if (a->vhu)
		vhu_close_sync(a->vhu);
	pthread_mutex_lock(&a->all->mutex);
	while (a->working)
		pthread_cond_wait(&a->all->changed, &a->all->mutex);
	a->all->load[a->reactor]--;
	pthread_mutex_unlock(&a->all->mutex);
	if (a->disk)
		disk_shut(a->disk);
	if (a->disk && a->detaching)
		disk_let_go(a->disk);
	disk_free(a->disk);
	disks_state_unmap(a->fresh);
	disks_port_put(a->all, a->port);
	pthread_mutex_lock(&a->store->all->mutex);
	a->store->disks--;
	pthread_mutex_unlock(&a->store->all->mutex);
	store_put(a->store);
	free(a);
}

/* A reference more to the store, which the caller has one to. */
static void store_hold(struct store *s)
{
	pthread_mutex_lock(&s->all->mutex);
	s->refs++;
	s->disks++;
	pthread_mutex_unlock(&s->all->mutex);
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

/* mutex held.  0: there is room for @a, and it is the only one of its path. */
static int enter(struct attachment *a, const struct disks_saved *saved, char *why, size_t why_size)
{
	struct disks *all = a->all;
	unsigned int i = saved ? saved->record : 0;

	if (all->stopping)
		return text_refuse(-ESHUTDOWN, why, why_size, "the daemon is shutting down");
	if (find(all, a->store, a->path))
		return text_refuse(-EEXIST, why, why_size, "%.300s: it is being attached", a->object);
	while (!saved && i < DISKS_MAX && all->record_used[i])
		i++;
	if (i == DISKS_MAX)
		return text_refuse(-EMFILE, why, why_size, "this daemon has %u disks already",
				   DISKS_MAX);
	all->record_used[i] = true;
	a->record = i;
	a->reactor = least_loaded(all);
	all->load[a->reactor]++;
	all->count++;
	list_add_tail(&all->list, &a->node);
	return 0;
}

/* mutex held. */
static void leave(struct attachment *a)
{
	list_del(&a->node);
	a->all->record_used[a->record] = false;
	a->all->count--;
}

static int find_inode(struct attachment *a, const struct disks_saved *saved, uint64_t *id)
{
	struct fs_attr attr;
	int err;

	if (saved && !fs_getattr(a->store->fs, saved->id, &attr)) {
		*id = saved->id;
		return 0;
	}
	err = fs_resolve(a->store->fs, a->path, &attr);
	*id = attr.id;
	return err;
}

static int serve_front_ends(struct attachment *a, char *why, size_t why_size)
{
	int err = make_vhu(a);

	if (!err && a->resume)
		attachment_open(a);	/* now, before anybody else of this host can */
	return err ? err : begin_listening(a, why, why_size);
}

/* One that has ended stays in the list, served to nobody: it says why. */
static int serve_initiators(struct attachment *a, char *why, size_t why_size)
{
	struct export_portal *portal;
	int err = exports_hold(&a->all->exports, a->options.portal, &portal, why, why_size);

	if (err)
		return err;
	err = attachment_open(a);
	if (err == -EBUSY)
		text_refuse(err, why, why_size, "%.300s: %s has it open; close it there",
			    a->object, a->holder);
	if (!err)
		err = disks_export_start(a, why, why_size);
	exports_release(&a->all->exports, portal);
	return a->ended[0] ? 0 : err;
}

static int attach_new(struct attachment *a, const struct disks_saved *saved, char *why,
		      size_t why_size)
{
	uint64_t id = 0;
	int err = find_inode(a, saved, &id);

	if (!err)
		err = make_disk(a, id);
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
	a->options = *options;
	snprintf(a->path, sizeof(a->path), "%s", path);
	make_names(a);
	/* By the clock: of two attachings of a disk no two are at the same time. */
	a->birth = saved ? saved->birth : env_realtime_ns(env_posix());
	if (saved) {
		snprintf(a->name, sizeof(a->name), "%s", saved->name);
		a->claim = saved->claim;
		a->resume = a->has_claim = saved->has_claim;
	}
	list_init(&a->node);
	why[0] = '\0';
	pthread_mutex_lock(&all->mutex);
	err = enter(a, saved, why, why_size);
	pthread_mutex_unlock(&all->mutex);
	if (err) {
		free(a);
		return err;
	}
	store_hold(s);
	err = attach_new(a, saved, why, why_size);
	pthread_mutex_lock(&all->mutex);
	a->attached = !err;
	if (err)
		leave(a);
	else if (!all->stopping)
		disks_state_save(a);
	pthread_mutex_unlock(&all->mutex);
	if (err) {
		attachment_free(a);
		return err;
	}
	log_info(env_posix(), a->object, "attached%s", a->options.read_only ? " read-only" : "");
	*out = a;
	return 0;
}

int disks_attach(struct disks *all, struct store *s, const char *path,
		 const struct disk_options *options, struct attachment **out, char *why,
		 size_t why_size)
{
	struct attachment *a = disks_find(all, s, path);

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
	disk_set_limits(a->disk, &options->limits);
	pthread_mutex_lock(&all->mutex);
	a->options.limits = options->limits;
	disks_state_save(a);
	pthread_mutex_unlock(&all->mutex);
	*out = a;
	return 0;
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

/* mutex held, and released meanwhile: waits for commands that use it. */
static void wait_unused(struct attachment *a)
{
	while (a->refs)
		pthread_cond_wait(&a->all->changed, &a->all->mutex);
}

int disks_detach(struct disks *all, struct store *s, const char *path, bool force, char *why,
		 size_t why_size)
{
	struct attachment *a = disks_find(all, s, path);
	bool connected = a && disks_connected(a);
	int err = 0;

	if (a)
		disks_put(a);
	pthread_mutex_lock(&all->mutex);
	a = find(all, s, path);
	if (!a || a->detaching || !a->attached)
		err = text_refuse(-ENOENT, why, why_size, "%.100s:%.300s is not attached; \"lunfs disk "
				  "list\" shows what is", s->fs->label, path);
	else if (!force && connected)
		err = text_refuse(-EBUSY, why, why_size, "%.300s: a guest is using it; end that, or "
				  "take the disk from under it with --force", a->object);
	if (!err) {
		a->detaching = true;
		wait_unused(a);
	}
	pthread_mutex_unlock(&all->mutex);
	if (err)
		return err;
	end_listening(a);
	pthread_mutex_lock(&all->mutex);
	disks_state_clear(all, a->record);
	leave(a);
	pthread_mutex_unlock(&all->mutex);
	log_info(env_posix(), a->object, "detached");
	attachment_free(a);
	return 0;
}

/* ---- finding ---- */

struct attachment *disks_find(struct disks *all, struct store *s, const char *path)
{
	struct attachment *a;

	pthread_mutex_lock(&all->mutex);
	a = find(all, s, path);
	if (a && (a->detaching || !a->attached))
		a = NULL;
	if (a)
		a->refs++;
	pthread_mutex_unlock(&all->mutex);
	return a;
}

struct attachment *disks_find_id(struct disks *all, struct store *s, uint64_t id)
{
	struct attachment *a, *tmp, *found = NULL;

	pthread_mutex_lock(&all->mutex);
	list_for_each(a, tmp, &all->list, node)
		if (a->store == s && !a->detaching && a->attached && disk_id(a->disk) == id)
			found = a;
	if (found)
		found->refs++;
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

void disks_moved(struct attachment *a)
{
	claim_set(a, a->has_claim);
}

void disks_each(struct disks *all, void (*fn)(struct attachment *a, void *arg), void *arg)
{
	struct attachment *a, *tmp, *all_of_them[DISKS_MAX];
	unsigned int n = 0;

	pthread_mutex_lock(&all->mutex);
	list_for_each(a, tmp, &all->list, node) {
		if (a->detaching || !a->attached)
			continue;
		a->refs++;
		all_of_them[n++] = a;
	}
	pthread_mutex_unlock(&all->mutex);
	for (unsigned int i = 0; i < n; i++) {
		fn(all_of_them[i], arg);
		disks_put(all_of_them[i]);
	}
}

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

	if (!err)
		err = workers_create(env_posix(), "disk", WORKERS, &all->workers);
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
	return pthread_create(&all->watchdog, NULL, watchdog_main, all) ? -EAGAIN : 0;
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
	pthread_mutex_init(&all->mutex, NULL);
	pthread_cond_init(&all->changed, NULL);
	err = start_threads(all);
	exports_init(&all->exports, rpc, all->reactors, all->reactor_count);
	if (!err)
		err = watchdog_start(all);
	return err ? err : disks_restore_start(all);
}

void disks_shutdown(struct disks *all)
{
	struct attachment *a;

	pthread_mutex_lock(&all->mutex);
	all->stopping = true;
	pthread_mutex_unlock(&all->mutex);
	disks_restore_stop(all);
	if (all->hello->watchdog_ms)
		pthread_join(all->watchdog, NULL);
	exports_stop(&all->exports);
	pthread_mutex_lock(&all->mutex);
	while (!list_empty(&all->list)) {
		a = list_first(&all->list, struct attachment, node);
		a->detaching = true;
		wait_unused(a);
		leave(a);
		pthread_mutex_unlock(&all->mutex);
		/* Its socket stays: who looks for it meanwhile is told to try again, not that there is none. */
		attachment_free(a);
		pthread_mutex_lock(&all->mutex);
	}
	pthread_mutex_unlock(&all->mutex);
	for (unsigned int i = 0; i < all->reactor_count; i++)
		reactor_destroy(all->reactors[i]);
	workers_destroy(all->workers);
	vhu_server_free(all->server);
	free(all->given);
}
