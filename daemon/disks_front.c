/* SPDX-License-Identifier: Apache-2.0 */
/* What those who use an attached disk do, and what follows: its lock, its file, its record. */
#include <errno.h>
#include <stdio.h>

#include "base/text.h"
#include "daemon/disks.h"

/* ---- what a front end does, and what follows ---- */

/*
 * What the last incarnation left stands until it has been continued: a guest may come back for it
 * however many front ends, and daemons, were refused before.
 */
void disks_claim_set(struct attachment *a)
{
	struct disk_claim claim, shut = { 0 };
	bool has, has_shut;

	/* What is found and what is written down are of one moment: a merge may end as a front end starts. */
	pthread_mutex_lock(&a->claiming);
	has = !a->options.read_only && !disk_claim(a->disk, &claim);
	has_shut = !has && !a->options.read_only && disk_left(a->disk, &shut);
	pthread_mutex_lock(&a->all->mutex);
	if (!a->resume) {
		a->has_claim = has;
		a->claim = has ? claim : (struct disk_claim){ 0 };
		a->shut = has || has_shut ? shut : a->shut;
		a->next = (struct disk_claim){ 0 };
	}
	pthread_mutex_unlock(&a->all->mutex);
	disks_state_save(a);
	pthread_mutex_unlock(&a->claiming);
}

static void claim_note(void *arg)
{
	struct attachment *a = arg;

	disks_state_save(a);
}

struct foretelling {
	struct attachment *a;
	struct disk_claim shut, next;
};

static void foretold(void *arg)
{
	struct foretelling *f = arg;
	struct attachment *a = f->a;

	pthread_mutex_lock(&a->all->mutex);
	a->shut = f->shut;
	a->next = f->next;
	pthread_mutex_unlock(&a->all->mutex);
	disks_state_save(a);
}

/* Before the lock of a disk that was shut is taken again: a daemon that is killed then knows its record. */
static int foretell(struct attachment *a, uint64_t id, struct disk_claim shut)
{
	struct foretelling f = { .a = a, .shut = shut, .next = a->next };

	return disk_foretell(a->store->fs, id, &f.shut, &f.next, foretold, &f);
}

int disks_take_back(struct attachment *a)
{
	struct fs *fs = a->store->fs;

	if (a->ended[0])
		return 0;
	if (a->resume)
		return disk_take_back(fs, a->saved_id, &a->claim, &a->next, claim_note, a);
	return a->shut.generation ? foretell(a, a->saved_id, a->shut) : 0;
}

int disks_expect(struct attachment *a)
{
	int err;

	if (a->resume || a->ended[0] || !a->shut.generation)
		return 0;
	err = disk_expect(a->disk, &a->shut);
	if (!err)
		disks_claim_set(a);
	return err;
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
	bool ends = false;

	pthread_mutex_lock(&a->all->mutex);
	a->holder[0] = '\0';
	if (err == -ESTALE && !a->ended[0]) {
		snprintf(a->ended, sizeof(a->ended), "it was, or may have been, used elsewhere since its "
			 "front end had it; end that guest, detach the disk and attach it anew");
		ends = true;
	} else if (err == -EBUSY) {
		name_holder(h, a->holder, sizeof(a->holder));
	}
	pthread_mutex_unlock(&a->all->mutex);
	if (ends)
		disks_state_save(a);	/* the next daemon does not serve it either */
	if (err == -ESTALE)
		log_error(env_posix(), a->object, "%s", a->ended);
	else if (err == -EBUSY && a->options.incoming_s)
		log_debug(env_posix(), a->object, "is not handed over yet");
	else if (err == -EBUSY)
		log_error(env_posix(), a->object, "cannot be served: %s has it open; close it there",
			  h->host_name[0] ? h->host_name : "this host itself");
	else
		log_error(env_posix(), a->object, "cannot be opened: %s", strerror(-err));
}

/* Where the name leads, certainly; a name that is gone leads where it led before. */
static uint64_t named_id(struct attachment *a)
{
	struct fs_attr attr;

	return fs_resolve(a->store->fs, a->path, &attr) ? disk_id(a->disk) : attr.id;
}

/*
 * Since it was attached a snapshot, on whichever host, may have made the inode that the name led to
 * the snapshot's: the disk is what the name leads to now.  Not if its guest has had another before.
 */
static bool leads_elsewhere(struct attachment *a)
{
	uint64_t id = named_id(a);

	return id != disk_id(a->disk) && !disk_retarget(a->disk, id);
}

/*
 * An open keeps the name from being given to another inode, by a snapshot or a removal, but one may
 * have come before it.  What can be written any more is the disk; of what only reads the name tells.
 */
static bool was_overtaken(struct attachment *a, int err)
{
	if (err)
		return err == -EPERM || err == -ENOENT || err == -ESTALE;
	return a->options.read_only && named_id(a) != disk_id(a->disk);
}

static int open_named(struct attachment *a, struct lock_holder *h)
{
	int err;

	for (unsigned int i = 0; i < NAME_TRIES; i++) {
		err = disk_open(a->disk, NULL, h);
		if (!was_overtaken(a, err))
			return err;
		if (!err)
			disk_shut(a->disk);
		if (!leads_elsewhere(a) && err)
			return err;
	}
	return -EAGAIN;
}

/* If its rings only start again, whatever became of the name, its guest has this disk. */
static int open_shut(struct attachment *a, struct lock_holder *h)
{
	struct disk_claim shut;
	int err = 0;

	if (disk_is_open(a->disk))
		return 0;
	if (disk_left(a->disk, &shut))
		err = foretell(a, disk_id(a->disk), shut);
	return err ? err : open_named(a, h);
}

int disks_open(struct attachment *a)
{
	struct lock_holder h = { 0 };
	int err = a->ended[0] ? -ESTALE : a->resume ? disk_open(a->disk, &a->claim, &h) :
						      open_shut(a, &h);

	if (!err) {
		pthread_mutex_lock(&a->all->mutex);
		a->resume = false;
		a->holder[0] = '\0';
		pthread_mutex_unlock(&a->all->mutex);
		a->left = false;
		disks_claim_set(a);
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
	disks_claim_set(a);
	disks_leave_nothing(a);
}

static void attachment_starts(struct attachment *a)
{
	int err;

	/* Gone while it waited: nobody is there to be answered but the device itself. */
	pthread_mutex_lock(&a->all->mutex);
	err = a->connected ? 0 : -ECANCELED;
	pthread_mutex_unlock(&a->all->mutex);
	if (!err)
		err = disks_is_held(a) ? -EBUSY : disks_open(a);
	if (!disks_waits_for_lock(a, err))
		vhu_start_done(a->vhu, err);
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
			a->telling = true;
			pthread_mutex_unlock(&a->all->mutex);
			if (x)
				export_resized(x);
			pthread_mutex_lock(&a->all->mutex);
			a->telling = false;
			pthread_cond_broadcast(&a->all->changed);
			continue;
		}
		e = a->events[0];
		memmove(a->events, a->events + 1, --a->event_count * sizeof(a->events[0]));
		pthread_mutex_unlock(&a->all->mutex);
		if (e == ATTACHMENT_START)
			attachment_starts(a);
		else if (e == ATTACHMENT_STOPPED)
			disks_leave(a);
		else
			attachment_closed(a);
		pthread_mutex_lock(&a->all->mutex);
	}
	a->working = false;
	pthread_cond_broadcast(&a->all->changed);
	pthread_mutex_unlock(&a->all->mutex);
}

/* From the reactor: the mutex is held for moments only. */
void disks_post_event(struct attachment *a, enum attachment_event e)
{
	bool post, again;

	pthread_mutex_lock(&a->all->mutex);
	if (e == ATTACHMENT_CLOSED) {
		a->connected = false;
		a->handover[0] = '\0';
	}
	/*
	 * A front end starts, is gone, and no other is let in before the start is answered.  But any
	 * number may come and go that never start: the disk is closed after them once.  And who asks
	 * for a hand-over of stopped rings again, while the first one hangs in the device, asks for that.
	 */
	again = e != ATTACHMENT_START && a->event_count && a->events[a->event_count - 1] == e;
	assert(again || a->event_count < ATTACHMENT_EVENTS);
	if (!again)
		a->events[a->event_count++] = e;
	post = !a->working;
	a->working = true;
	pthread_mutex_unlock(&a->all->mutex);
	a->work.fn = attachment_work;
	if (post)
		workers_post(a->store->workers, &a->work);
}

static void front_end_starts(struct vhu *v, void *arg)
{
	(void)v;
	disks_post_event(arg, ATTACHMENT_START);
}

/* What waits for space waits for nobody: it would keep the lock, and the disk from being detached. */
static void front_end_cut(struct vhu *v, void *arg)
{
	struct attachment *a = arg;

	(void)v;
	disk_abandon(a->disk);
}

static void front_end_stopped(struct vhu *v, void *arg)
{
	(void)v;
	disks_post_event(arg, ATTACHMENT_STOPPED);
}

static void front_end_closed(struct vhu *v, void *arg, enum vhu_end end, const char *why)
{
	struct attachment *a = arg;

	(void)v;
	(void)end;
	log_info(env_posix(), a->object, "its front end is gone: %s", why);
	disks_post_event(a, ATTACHMENT_CLOSED);
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
	.connected = front_end_connected, .start = front_end_starts, .stopped = front_end_stopped,
	.cut = front_end_cut, .closed = front_end_closed,
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
		workers_post(a->store->workers, &a->work);
}

void disks_resized(void *arg)
{
	struct attachment *a = arg;

	if (a->vhu)
		vhu_resized(a->vhu);
	else
		post_resized(a);
}

/*
 * Before the first request fails for it: a launcher that ends its guest when its lock is gone
 * wants the guest to have seen nothing of that, for there is no telling what it would do.
 */
void disks_lost(void *arg)
{
	struct attachment *a = arg;

	if (a->options.cut_if_lost && a->vhu)
		vhu_disconnect(a->vhu, "the disk's lock is lost");
}

/* ---- the socket ---- */

int disks_front_new(struct attachment *a)
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

int disks_listen(struct attachment *a, char *why, size_t why_size)
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

void disks_unlisten(struct attachment *a)
{
	struct rpc_request rq = { .op = RPC_UNLISTEN };
	struct rpc_reply reply;

	if (!a->vhu)
		return;
	snprintf(rq.socket.name, sizeof(rq.socket.name), "%s", a->name);
	rpc_call(a->all->rpc, &rq, -1, &reply, NULL, NULL);
}

void disks_wait_told(struct attachment *a)
{
	pthread_mutex_lock(&a->all->mutex);
	while (a->resized || a->telling)
		pthread_cond_wait(&a->all->changed, &a->all->mutex);
	pthread_mutex_unlock(&a->all->mutex);
}

struct retire_call {
	struct attachment *a;
	int err;
};

static void retire_now(void *arg)
{
	struct retire_call *c = arg;

	c->err = vhu_retire(c->a->vhu);
}

int disks_retire(struct attachment *a)
{
	struct retire_call c = { .a = a };
	char why[512] = "";

	if (a->export)
		return export_retire(a->export);
	if (!a->vhu)
		return 0;
	reactor_call_sync(a->all->reactors[a->reactor], retire_now, &c);
	if (c.err != -EAGAIN)
		return c.err;
	/* It came at the last moment, by the socket that was to go. */
	if (disks_listen(a, why, sizeof(why)))
		log_error(env_posix(), a->object, "no other front end can connect until it is detached "
			  "and attached anew: %s", why);
	return -EBUSY;
}

void disks_moved(struct attachment *a)
{
	disks_claim_set(a);
}
