/* SPDX-License-Identifier: Apache-2.0 */
/* The iSCSI backend as a struct blkdev: how requests end, the loop, its life. */
#include "block/blkiscsi_internal.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define NO_PATH_NS	(30 * NSEC_PER_SEC)	/* without a lease gate nobody waits longer */
#define NO_PATH_HB_NS	(500 * NSEC_PER_MSEC)	/* the heartbeat tries again by itself */
#define TICK_BUSY_MS	50
#define TICK_IDLE_MS	1000
#define HEARTBEAT_MS	2000u	/* an answer later than that is of no use to a lease of 5 s */
#define EVENTS		(BLKISCSI_PORTALS_MAX + 2)

void ini_wake(struct ini_dev *d)
{
	uint64_t one = 1;

	if (write(d->wake_fd, &one, sizeof(one)) < 0) {
		/* Full: then it is readable already. */
	}
}

/* ---- ending requests ---- */

static void io_end(struct ini_dev *d, struct blk_io *io)
{
	int err = ini_io(io)->err;

	if (!err && io->op == BLK_FLUSH && ini_io(io)->wseq > d->flushed_seq)
		d->flushed_seq = ini_io(io)->wseq;
	io->done(io, err);
	if (atomic_fetch_sub(&d->outstanding, 1) != 1)
		return;
	pthread_mutex_lock(&d->mutex);
	pthread_cond_broadcast(&d->changed);
	pthread_mutex_unlock(&d->mutex);
}

void ini_io_fail(struct ini_dev *d, struct blk_io *io, int err)
{
	struct ini_io *s = ini_io(io);

	if (!s->err)
		s->err = err;
	if (s->queued) {
		list_del(&io->node);
		s->queued = 0;
	}
	if (!s->pending)
		io_end(d, io);
}

static void admin_end(struct ini_dev *d, struct ini_admin *a, int err)
{
	pthread_mutex_lock(&d->mutex);
	a->err = err;
	a->done = true;
	pthread_cond_broadcast(&d->changed);
	pthread_mutex_unlock(&d->mutex);
}

static void cmd_free(struct ini_dev *d, struct ini_cmd *cmd)
{
	list_add_head(&d->free, &cmd->node);
	d->free_count++;
}

void ini_cmd_finish(struct ini_dev *d, struct ini_cmd *cmd, int err)
{
	struct ini_admin *a = cmd->admin;
	struct blk_io *io = cmd->io;
	struct ini_io *s;

	if (a) {
		a->got = a->len - (uint32_t)(cmd->task.residual_status == SCSI_RESIDUAL_UNDERFLOW &&
					    cmd->task.residual <= a->len ? cmd->task.residual : 0);
		cmd_free(d, cmd);
		admin_end(d, a, err);
		return;
	}
	s = ini_io(io);
	cmd_free(d, cmd);
	s->pending--;
	if (err)
		ini_io_fail(d, io, err);
	else if (!s->pending && !s->queued)
		io_end(d, io);
}

/* Whether what @cmd did is durable only after a flush. */
static bool cmd_is_volatile(const struct ini_dev *d, const struct ini_cmd *cmd)
{
	return cmd->io->op == BLK_WRITE && d->limits.wce && cmd->phase == INI_DO &&
	       !(cmd->task.cdb[1] & 0x08);
}

/* What FUA cannot do a flush must, before the request is told to have succeeded. */
static bool cmd_wants_sync(const struct ini_dev *d, const struct ini_cmd *cmd)
{
	if (cmd->phase == INI_SYNC || !d->limits.wce)
		return false;
	return cmd->io->op == BLK_ZERO || (cmd->io->op == BLK_CAW && !d->limits.fua) ||
	       (cmd->io->op == BLK_WRITE && !d->limits.fua && (cmd->io->flags & BLK_FUA));
}

void ini_cmd_answered(struct ini_dev *d, struct ini_cmd *cmd, int err, uint64_t pause_ns)
{
	if (err == 1 && ++cmd->tries > INI_RETRIES)
		err = -EIO;
	if (!err && cmd->io && cmd_is_volatile(d, cmd))
		d->wseq++;
	if (!err && cmd->io && cmd_wants_sync(d, cmd)) {
		cmd->phase = INI_SYNC;
		err = 1;
	}
	if (err != 1) {
		ini_cmd_finish(d, cmd, err);
		return;
	}
	cmd->again_ns = pause_ns ? ini_now(d) + pause_ns : 0;
	list_add_tail(&d->again, &cmd->node);
}

void ini_cmd_settled(struct ini_dev *d, struct ini_cmd *cmd)
{
	/* It may have landed, as a plain write: a flush must not say otherwise (R7). */
	if (cmd_is_volatile(d, cmd))
		d->wseq++;
	if (cmd->io->op == BLK_CAW)
		ini_cmd_finish(d, cmd, -EIO);	/* unclear: its owner reads back */
	else if (cmd->timeouts >= (ini_has_lease(d) ? 1 : INI_TIMEOUTS) ||
		 (!ini_has_lease(d) && cmd->losses >= INI_LOSSES))
		ini_cmd_finish(d, cmd, -ETIMEDOUT);
	else if (ini_has_lease(d))
		ini_cmd_finish(d, cmd, -ECONNRESET);
	else
		list_add_tail(&d->again, &cmd->node);
}

void ini_session_lost(struct ini_dev *d)
{
	if (d->wseq > d->flushed_seq)
		d->lost_seq = d->wseq;
}

/* ---- by the clock ---- */

static void take_incoming(struct ini_dev *d)
{
	pthread_mutex_lock(&d->mutex);
	list_splice_tail(&d->queue, &d->incoming);
	list_splice_tail(&d->admins, &d->admins_in);
	pthread_mutex_unlock(&d->mutex);
}

/* A lapsed lease: nothing that is queued in a socket may still get out. */
static void cut_if_lapsed(struct ini_dev *d, uint64_t now)
{
	uint64_t lease = atomic_load(&d->lease_ns);

	if (now < lease)
		return;
	for (unsigned int i = 0; i < d->t.portal_count; i++)
		if (d->paths[i].state == INI_UP && d->paths[i].active_count)
			ini_path_drop(&d->paths[i], -ECONNRESET, "the lease has lapsed: cut, so that "
				      "nothing under way can land later");
	/* What is issued from here on looks at the clock, or at a lease that was renewed. */
	atomic_store(&d->cut_ns, lease);
}

/* Who has no lease gate to wait at is not kept waiting for ever. */
static void give_up_without_path(struct ini_dev *d, uint64_t now)
{
	uint64_t wait_ns = d->o.flags & BLKISCSI_HEARTBEAT ? NO_PATH_HB_NS : NO_PATH_NS;
	struct ini_admin *a, *tmp_a;
	struct ini_cmd *cmd, *tmp_c;
	struct blk_io *io, *tmp;

	list_for_each(a, tmp_a, &d->admins, node) {
		const struct ini_path *p = a->path < 0 ? NULL : &d->paths[a->path];

		if ((p && p->state == INI_UP) || now - a->since_ns < wait_ns)
			continue;
		list_del(&a->node);
		admin_end(d, a, -ETIMEDOUT);
	}
	if (!d->no_path_ns || now - d->no_path_ns < wait_ns || ini_has_lease(d))
		return;
	list_for_each(cmd, tmp_c, &d->again, node) {
		list_del(&cmd->node);
		ini_cmd_finish(d, cmd, -ETIMEDOUT);
	}
	list_for_each(io, tmp, &d->queue, node)
		ini_io_fail(d, io, -ETIMEDOUT);
}

static int tick_ms(const struct ini_dev *d, uint64_t now)
{
	bool busy = atomic_load(&d->outstanding) || !list_empty(&d->again) ||
		    !list_empty(&d->admins);
	uint64_t lease = atomic_load(&d->lease_ns);
	int ms = busy ? TICK_BUSY_MS : TICK_IDLE_MS;

	for (unsigned int i = 0; i < d->t.portal_count; i++)
		if (d->paths[i].state != INI_UP)
			ms = TICK_BUSY_MS;
	/* Not later than the lease ends, if anything can be under way then. */
	if (busy && lease > now && lease - now < (uint64_t)ms * NSEC_PER_MSEC)
		ms = (int)((lease - now) / NSEC_PER_MSEC);
	return ms;
}

/* ---- the loop ---- */

/* Of an eventfd or timerfd: not readable any more. */
static void clear_fd(int fd)
{
	uint64_t count;

	if (read(fd, &count, sizeof(count)) < 0) {
		/* Somebody else was faster. */
	}
}

/* One round: events, time, new requests.  Return: how long the next one may wait. */
static int loop_round(struct ini_dev *d, int wait_ms)
{
	struct epoll_event ev[EVENTS];
	int n = epoll_wait(d->epfd, ev, EVENTS, wait_ms);
	uint64_t now;

	cut_if_lapsed(d, ini_now(d));
	for (int i = 0; i < n; i++) {
		int revents = 0;

		if (ev[i].data.ptr == &d->wake_fd || ev[i].data.ptr == &d->timer_fd) {
			clear_fd(*(const int *)ev[i].data.ptr);
			continue;
		}
		revents |= ev[i].events & EPOLLIN ? POLLIN : 0;
		revents |= ev[i].events & EPOLLOUT ? POLLOUT : 0;
		revents |= ev[i].events & EPOLLERR ? POLLERR : 0;
		revents |= ev[i].events & EPOLLHUP ? POLLHUP : 0;
		ini_path_serve(ev[i].data.ptr, revents);
	}
	now = ini_now(d);
	take_incoming(d);
	for (unsigned int i = 0; i < d->t.portal_count; i++)
		ini_path_step(&d->paths[i], now);
	ini_issue(d, now);
	/* At once to the sockets, without asking whether they take it. */
	for (unsigned int i = 0; i < d->t.portal_count; i++)
		if (d->paths[i].ctx && iscsi_out_queue_length(d->paths[i].ctx))
			ini_path_serve(&d->paths[i], d->paths[i].state >= INI_LOGIN ? POLLOUT : 0);
	give_up_without_path(d, now);
	return tick_ms(d, now);
}

/* Whether the loop may sleep: after this whoever brings something wakes it. */
static bool loop_may_sleep(struct ini_dev *d, bool *stop)
{
	bool idle;

	pthread_mutex_lock(&d->mutex);
	idle = list_empty(&d->incoming) && list_empty(&d->admins_in);
	d->awake = !idle;
	*stop = d->stopping;
	pthread_mutex_unlock(&d->mutex);
	return idle;
}

static void log_out(struct ini_dev *d)
{
	for (unsigned int i = 0; i < d->t.portal_count; i++)
		ini_path_logout(&d->paths[i]);
}

static void *loop_main(void *arg)
{
	struct ini_dev *d = arg;
	bool stop = false;
	sigset_t pipe;
	int wait_ms = 0;

	/* libiscsi writes to sockets that may be closed already. */
	sigemptyset(&pipe);
	sigaddset(&pipe, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &pipe, NULL);
	if (d->o.started)
		d->o.started(d->o.started_arg);
	while (!stop) {
		wait_ms = loop_round(d, wait_ms);
		if (!loop_may_sleep(d, &stop))
			wait_ms = 0;
	}
	if (d->closing)
		log_out(d);
	return NULL;
}

/* ---- struct blkdev ---- */

static void ini_submit(struct blkdev *dev, struct blk_io **ios, unsigned int count)
{
	struct ini_dev *d = ini_dev(dev);
	bool wake;

	atomic_fetch_add(&d->outstanding, count);
	for (unsigned int i = 0; i < count; i++) {
		memset(ini_io(ios[i]), 0, sizeof(struct ini_io));
		ini_io(ios[i])->queued = 1;
	}
	pthread_mutex_lock(&d->mutex);
	for (unsigned int i = 0; i < count; i++)
		list_add_tail(&d->incoming, &ios[i]->node);
	wake = !d->awake;
	d->awake = true;
	pthread_mutex_unlock(&d->mutex);
	if (wake)
		ini_wake(d);
}

static void refuse(struct blk_io *io)
{
	io->done(io, -ENOTSUP);
}

/* What the device cannot do is told without troubling it. */
static void ini_submit_supported(struct blkdev *dev, struct blk_io **ios, unsigned int count)
{
	const struct ini_limits *l = &ini_dev(dev)->limits;
	unsigned int start = 0;

	for (unsigned int i = 0; i < count; i++) {
		enum blk_op op = ios[i]->op;

		if (!(op == BLK_DISCARD && !l->unmap_max) && !(op == BLK_ZERO && !l->same_max) &&
		    !(op == BLK_CAW && dev->info.caw == BLK_CAW_NONE))
			continue;
		if (i > start)
			ini_submit(dev, ios + start, i - start);
		start = i + 1;
		refuse(ios[i]);
	}
	if (count > start)
		ini_submit(dev, ios + start, count - start);
}

static void ini_lease(struct blkdev *dev, uint64_t until_ns)
{
	struct ini_dev *d = ini_dev(dev);
	uint64_t before = atomic_exchange(&d->lease_ns, until_ns);

	if (until_ns < before)
		ini_wake(d);
}

static bool ini_is_silent(struct blkdev *dev)
{
	struct ini_dev *d = ini_dev(dev);
	uint64_t lease = atomic_load(&d->lease_ns);

	return ini_now(d) >= lease && atomic_load(&d->cut_ns) == lease;
}

/* Every request is answered only when nothing of it is under way any more. */
static int ini_drain(struct blkdev *dev)
{
	return ini_dev(dev)->o.flags & BLKISCSI_HEARTBEAT ? -ETIMEDOUT : 0;
}

static void stop_thread(struct ini_dev *d)
{
	if (!d->threaded)
		return;
	pthread_mutex_lock(&d->mutex);
	d->stopping = true;
	pthread_mutex_unlock(&d->mutex);
	ini_wake(d);
	pthread_join(d->thread, NULL);
	d->threaded = false;
	d->stopping = false;
}

static int ini_set_polled(struct blkdev *dev)
{
	struct ini_dev *d = ini_dev(dev);
	struct itimerspec every = {
		.it_interval = { .tv_nsec = TICK_BUSY_MS * (long)NSEC_PER_MSEC },
		.it_value = { .tv_nsec = TICK_BUSY_MS * (long)NSEC_PER_MSEC },
	};

	stop_thread(d);
	d->polled = true;
	return timerfd_settime(d->timer_fd, 0, &every, NULL) ? -errno : 0;
}

static int ini_poll_fd(struct blkdev *dev)
{
	return ini_dev(dev)->epfd;
}

static unsigned int ini_poll(struct blkdev *dev)
{
	struct ini_dev *d = ini_dev(dev);
	unsigned int before = atomic_load(&d->outstanding), after;
	bool stop;

	do {
		loop_round(d, 0);
	} while (!loop_may_sleep(d, &stop));
	after = atomic_load(&d->outstanding);
	return before > after ? before - after : 0;
}

static void ini_wake_dev(struct blkdev *dev)
{
	ini_wake(ini_dev(dev));
}

/* ---- life ---- */

static void free_dev(struct ini_dev *d)
{
	for (unsigned int i = 0; i < d->t.portal_count; i++)
		ini_path_fini(&d->paths[i]);
	if (d->timer_fd >= 0)
		close(d->timer_fd);
	if (d->wake_fd >= 0)
		close(d->wake_fd);
	if (d->epfd >= 0)
		close(d->epfd);
	pthread_cond_destroy(&d->changed);
	pthread_mutex_destroy(&d->mutex);
	explicit_bzero(&d->t, sizeof(d->t));
	free(d->cmds);
	free(d);
}

static void ini_close(struct blkdev *dev)
{
	struct ini_dev *d = ini_dev(dev);

	/* Without a gate nobody waits for ever: give_up_without_path(). */
	atomic_store(&d->lease_ns, UINT64_MAX);
	if (d->polled) {
		while (atomic_load(&d->outstanding))
			loop_round(d, TICK_BUSY_MS);
	} else {
		ini_wake(d);
		pthread_mutex_lock(&d->mutex);
		while (atomic_load(&d->outstanding))
			pthread_cond_wait(&d->changed, &d->mutex);
		pthread_mutex_unlock(&d->mutex);
	}
	d->closing = true;
	if (d->polled)
		log_out(d);
	stop_thread(d);
	free_dev(d);
}

static const struct blkdev_ops ini_ops = {
	.submit = ini_submit_supported,
	.drain = ini_drain,
	.refresh = ini_refresh,
	.lease = ini_lease,
	.is_silent = ini_is_silent,
	.set_polled = ini_set_polled,
	.poll_fd = ini_poll_fd,
	.poll = ini_poll,
	.wake = ini_wake_dev,
	.pr_register = ini_pr_register,
	.pr_reserve = ini_pr_reserve,
	.pr_preempt_abort = ini_pr_preempt_abort,
	.pr_clear = ini_pr_clear,
	.pr_read = ini_pr_read,
	.close = ini_close,
};

static int init_fds(struct ini_dev *d)
{
	struct epoll_event wake = { .events = EPOLLIN, .data.ptr = &d->wake_fd };
	struct epoll_event timer = { .events = EPOLLIN, .data.ptr = &d->timer_fd };

	d->epfd = epoll_create1(EPOLL_CLOEXEC);
	d->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	d->timer_fd = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	if (d->epfd < 0 || d->wake_fd < 0 || d->timer_fd < 0 ||
	    epoll_ctl(d->epfd, EPOLL_CTL_ADD, d->wake_fd, &wake) ||
	    epoll_ctl(d->epfd, EPOLL_CTL_ADD, d->timer_fd, &timer))
		return -errno;
	return 0;
}

static void limit(uint32_t *ms, uint32_t max)
{
	if (*ms > max)
		*ms = max;
}

static struct ini_dev *new_dev(struct env *env, const struct blkiscsi_target *t,
			       const struct blkiscsi_options *o)
{
	struct ini_dev *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->dev.env = env;
	d->dev.ops = &ini_ops;
	d->t = *t;
	d->o = *o;
	if (o->flags & BLKISCSI_HEARTBEAT) {
		limit(&d->t.timeout_ms, HEARTBEAT_MS);
		limit(&d->t.dead_ms, HEARTBEAT_MS);
		limit(&d->t.login_ms, HEARTBEAT_MS);
	}
	d->epfd = d->wake_fd = d->timer_fd = -1;
	atomic_store(&d->lease_ns, UINT64_MAX);
	atomic_store(&d->cut_ns, UINT64_MAX);
	pthread_mutex_init(&d->mutex, NULL);
	pthread_cond_init(&d->changed, NULL);
	list_init(&d->incoming);
	list_init(&d->admins_in);
	list_init(&d->queue);
	list_init(&d->admins);
	list_init(&d->again);
	list_init(&d->free);
	for (unsigned int i = 0; i < t->portal_count; i++)
		ini_path_init(d, i);
	d->no_path_ns = ini_now(d);
	env_random(env, &d->mark, sizeof(d->mark));
	d->cmds = calloc(INI_CMDS, sizeof(*d->cmds));
	for (unsigned int i = 0; d->cmds && i < INI_CMDS; i++)
		cmd_free(d, &d->cmds[i]);
	if (d->cmds && !init_fds(d))
		return d;
	free_dev(d);
	return NULL;
}

/* Until one path is up, or each has failed once.  Return: 0 or how the first failed. */
static int wait_for_path(struct ini_dev *d, char *why, size_t why_size)
{
	const struct ini_path *p = &d->paths[0];
	bool up;

	pthread_mutex_lock(&d->mutex);
	while (!d->paths_up && d->paths_failed < d->t.portal_count)
		pthread_cond_wait(&d->changed, &d->mutex);
	up = d->paths_up;
	pthread_mutex_unlock(&d->mutex);
	if (up)
		return 0;
	stop_thread(d);
	snprintf(why, why_size, "%s: cannot log in through %s: %s", d->t.name,
		 d->t.portals[p->portal], p->why);
	return p->err;
}

int blkiscsi_open(struct env *env, const struct blkiscsi_target *t,
		  const struct blkiscsi_options *o, struct blkdev **out, char *why,
		  size_t why_size)
{
	struct ini_dev *d = new_dev(env, t, o);
	int err;

	if (!d) {
		snprintf(why, why_size, "%s: cannot be opened: %s", t->name, strerror(ENOMEM));
		return -ENOMEM;
	}
	err = -pthread_create(&d->thread, NULL, loop_main, d);
	d->threaded = !err;
	if (!err)
		err = wait_for_path(d, why, why_size);
	if (!err)
		err = ini_learn(d, why, why_size);
	if (err) {
		stop_thread(d);
		free_dev(d);
		return err;
	}
	*out = &d->dev;
	return 0;
}
