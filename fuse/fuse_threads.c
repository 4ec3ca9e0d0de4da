/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The threads of a mount.
 *
 *   parked ◄──── more than WAIT_MAX wait ──── waiting ◄──────── nothing to read ────┐
 *      │                                         │ request                          │
 *      └──── nobody waits, and a request ──► waiting ──► serving: plain ones are ───┘
 *            that may take long is served                prepared and submitted as a batch,
 *                                                        others executed here
 *
 * All wait at one edge-triggered epoll: a request wakes one of them, which reads until there
 * is no more.  Whoever begins with something that may take long hands on what it has not read.
 * Few wait at a time, since every arrival wakes one of them, needed or not.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "fuse/internal.h"

#define THREADS_DEFAULT	16u	/* before more are started for requests that wait for locks */
#define THREADS_MAX	192u
#define WAIT_MAX	2u

static __thread struct mnt_thread *this_thread;

uint8_t *mnt_data(void)
{
	return slot_data(this_thread->slot);
}

const struct mnt_thread *mnt_this_thread(void)
{
	return this_thread;
}

static void *thread_main(void *arg);

/* mutex held. */
static int thread_add(struct mnt *m)
{
	struct mnt_thread *t = calloc(1, sizeof(*t));
	int err = -ENOMEM;

	if (!t)
		return err;
	t->mnt = m;
	t->slot = mnt_slot_new(m);
	if (!t->slot)
		goto free_thread;
	atomic_fetch_add(&m->waiting, 1);
	err = -pthread_create(&t->thread, NULL, thread_main, t);
	if (err)
		goto free_slot;
	t->next = m->threads;
	m->threads = t;
	m->thread_count++;
	return 0;

free_slot:
	atomic_fetch_sub(&m->waiting, 1);
	mnt_slot_free(t->slot);
free_thread:
	free(t);
	return err;
}

/* ---- who waits ---- */

/* mutex held: one more thread is to wait for requests. */
static void unpark_locked(struct mnt *m)
{
	if (m->parked > m->wanted) {
		m->wanted++;
		atomic_fetch_add(&m->waiting, 1);
		pthread_cond_signal(&m->unparked);
	} else if (m->thread_count < THREADS_MAX) {
		thread_add(m);
	}
}

/* Before something that may take long: is there anybody to take the next request? */
static void leave_to_others(struct mnt *m)
{
	if (atomic_load(&m->waiting))
		return;
	pthread_mutex_lock(&m->mutex);
	if (!atomic_load(&m->waiting) && !atomic_load(&m->stopping))
		unpark_locked(m);
	pthread_mutex_unlock(&m->mutex);
}

/* What nobody has read yet is announced again. */
static void hand_on(struct mnt *m)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLET };

	epoll_ctl(m->epoll, EPOLL_CTL_MOD, m->fd, &event);
}

void mnt_threads_tick(struct mnt *m)
{
	unsigned long requests = atomic_load(&m->requests);

	/* Perhaps all are stuck with what should have been quick. */
	if (requests == m->ticked && !m->ended && !atomic_load(&m->stopping)) {
		if (!atomic_load(&m->waiting))
			unpark_locked(m);
		hand_on(m);
	}
	m->ticked = requests;
}

/* One of those that wait becomes one too many.  By compare-and-swap: the last one that goes
 * to work must see that it is the last. */
static bool too_many_wait(struct mnt *m)
{
	unsigned int n = atomic_load(&m->waiting);

	while (n > WAIT_MAX)
		if (atomic_compare_exchange_weak(&m->waiting, &n, n - 1))
			return true;
	return false;
}

/* The calling thread, counted in m->waiting, parks if enough others wait. */
static void park(struct mnt *m)
{
	if (atomic_load(&m->waiting) <= WAIT_MAX)
		return;
	pthread_mutex_lock(&m->mutex);
	if (!atomic_load(&m->stopping) && too_many_wait(m)) {
		m->parked++;
		while (!m->wanted && !atomic_load(&m->stopping))
			pthread_cond_wait(&m->unparked, &m->mutex);
		m->parked--;
		if (m->wanted)
			m->wanted--;	/* counted as waiting by who wanted it */
		else
			atomic_fetch_add(&m->waiting, 1);
	}
	pthread_mutex_unlock(&m->mutex);
}

/* ---- requests ---- */

/* Return: bytes; 0 there is none now; -1 the connection has ended. */
static ssize_t receive(struct mnt_thread *t)
{
	ssize_t n;

	for (;;) {
		n = read(t->mnt->fd, slot_request(t->slot), MNT_IO_MAX + BLOCK_SIZE);
		if (n > 0) {
			atomic_fetch_add_explicit(&t->mnt->requests, 1, memory_order_relaxed);
			return n;
		}
		if (n < 0 && errno == EAGAIN)
			return 0;
		/* ENOENT: the request was interrupted before anybody read it. */
		if (!n || (errno != EINTR && errno != ENOENT) || atomic_load(&t->mnt->stopping))
			return -1;
	}
}

static ssize_t wait_for_request(struct mnt_thread *t)
{
	struct epoll_event event;
	ssize_t n;

	for (;;) {
		n = receive(t);
		if (n || atomic_load(&t->mnt->stopping))
			return n;
		epoll_wait(t->mnt->epoll, &event, 1, -1);
	}
}

static void submit(struct mnt_thread *t)
{
	if (t->batched)
		mnt_data_submit(t->mnt, t->batch, t->batched);
	t->batched = 0;
}

/* The request in t->slot, of @n bytes, here and now. */
static void execute(struct mnt_thread *t, size_t n)
{
	struct fuse_buf buf = { .mem = slot_request(t->slot) };

	buf.size = mnt_newer_request(t, buf.mem, n);
	submit(t);
	leave_to_others(t->mnt);
	hand_on(t->mnt);
	fuse_session_process_buf(t->mnt->se, &buf);
}

/* A plain request, prepared, joins the batch; false: there is no other slot to go on with. */
static bool enqueue(struct mnt_thread *t)
{
	struct mnt_slot *other = mnt_slot_take(t->mnt);

	if (!other)
		return false;
	t->batch[t->batched++] = t->slot;
	t->slot = other;
	if (t->batched == FS_IO_BATCH)
		submit(t);
	return true;
}

/* Nothing more to read: a single request is quickest in its own thread. */
static void end_batch(struct mnt_thread *t)
{
	struct mnt_slot *s;

	if (t->batched != 1 || atomic_load(&t->mnt->under_way)) {
		submit(t);
		return;
	}
	t->batched = 0;
	s = t->slot;
	t->slot = t->batch[0];
	mnt_slot_give(s);
	leave_to_others(t->mnt);
	mnt_data_run(t->slot);
}

/* Where the device is the page cache, its commands are carried out by who submits them. */
static void serve_plain(struct mnt_thread *t)
{
	if (t->mnt->fs->dev->info.direct && enqueue(t))
		return;
	submit(t);
	if (t->mnt->fs->dev->info.direct) {
		leave_to_others(t->mnt);
		hand_on(t->mnt);
	}
	mnt_data_run(t->slot);
}

static ssize_t serve(struct mnt_thread *t, ssize_t n)
{
	while (n > 0) {
		if (mnt_data_prepare(t->slot, (size_t)n))
			serve_plain(t);
		else
			execute(t, (size_t)n);
		n = receive(t);
	}
	end_batch(t);
	return n;
}

/* The first thread to see the end of the connection tells the owner. */
static void connection_ended(struct mnt *m)
{
	bool first;

	pthread_mutex_lock(&m->mutex);
	first = !m->ended && !atomic_load(&m->stopping);
	m->ended = true;
	pthread_mutex_unlock(&m->mutex);
	if (first && m->o.unmounted)
		m->o.unmounted(m->o.arg);
}

static void *thread_main(void *arg)
{
	struct mnt_thread *t = arg;
	struct mnt *m = t->mnt;
	ssize_t n;

	this_thread = t;
	for (;;) {
		park(m);
		n = wait_for_request(t);
		atomic_fetch_sub(&m->waiting, 1);
		if (n > 0)
			n = serve(t, n);
		if (n < 0 || atomic_load(&m->stopping) || fuse_session_exited(m->se))
			break;
		atomic_fetch_add(&m->waiting, 1);
	}
	connection_ended(m);
	return NULL;
}

/* ---- life ---- */

static void on_wakeup(int signal)
{
	(void)signal;	/* its only purpose is to end epoll_wait(2) with EINTR */
}

static int watch(struct mnt *m)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLET };
	int flags = fcntl(m->fd, F_GETFL);

	if (flags < 0 || fcntl(m->fd, F_SETFL, flags | O_NONBLOCK))
		return -errno;
	m->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (m->epoll < 0)
		return -errno;
	if (epoll_ctl(m->epoll, EPOLL_CTL_ADD, m->fd, &event)) {
		close(m->epoll);
		return -errno;
	}
	return 0;
}

int mnt_threads_start(struct mnt *m)
{
	struct sigaction wakeup = { .sa_handler = on_wakeup };
	unsigned int i, count = m->o.threads ? m->o.threads : THREADS_DEFAULT;
	int err = watch(m);

	if (err)
		return err;
	sigaction(SIGUSR1, &wakeup, NULL);
	err = mnt_slots_init(m);
	pthread_mutex_lock(&m->mutex);
	for (i = 0; i < count && !err; i++)
		err = thread_add(m);
	if (m->thread_count)
		err = 0;	/* fewer than wished for serve as well */
	pthread_mutex_unlock(&m->mutex);
	if (err) {
		mnt_slots_fini(m);
		close(m->epoll);
	}
	return err;
}

void mnt_threads_stop(struct mnt *m)
{
	struct mnt_thread *t;

	pthread_mutex_lock(&m->mutex);
	atomic_store(&m->stopping, true);
	pthread_cond_broadcast(&m->unparked);
	pthread_mutex_unlock(&m->mutex);
	while ((t = m->threads)) {
		/* A signal may come just before the wait: again until it has ended. */
		while (pthread_tryjoin_np(t->thread, NULL) == EBUSY) {
			pthread_kill(t->thread, SIGUSR1);
			usleep(1000);
		}
		m->threads = t->next;
		mnt_slot_free(t->slot);
		free(t);
	}
	while (atomic_load(&m->under_way))
		usleep(1000);
	mnt_slots_fini(m);
	close(m->epoll);
}
