/* SPDX-License-Identifier: Apache-2.0 */
#include "fuse/internal.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

int mnt_errno(const struct mnt *m, int err)
{
	switch (err) {
	case -EUCLEAN:		/* damage: logged where it was found */
	case -EBADMSG:
	case -EBADE:
	case -ETIMEDOUT:
	case -EHOSTDOWN:
		return EIO;
	case -ESTALE:
		return fs_is_lost(m->fs) ? EIO : ESTALE;
	default:
		return -err;
	}
}

void mnt_error(fuse_req_t req, int err)
{
	fuse_reply_err(req, mnt_errno(mnt_of(req), err));
}

bool mnt_writable(fuse_req_t req)
{
	if (!mnt_of(req)->o.read_only)
		return true;
	fuse_reply_err(req, EROFS);
	return false;
}

/* The name of process @pid, remembered for a moment: asking costs a round trip. */
static void comm_of(struct mnt *m, uint32_t pid, char comm[25])
{
	struct mnt_comm *c = &m->comms[pid % MNT_COMMS];
	uint64_t now = env_now_ns(m->fs->env);
	bool known;

	comm[0] = '\0';
	if (!m->o.comm_of)
		return;
	pthread_mutex_lock(&m->mutex);
	known = c->pid == pid && now < c->until_ns;
	if (known)
		memcpy(comm, c->comm, sizeof(c->comm));
	pthread_mutex_unlock(&m->mutex);
	if (known)
		return;
	m->o.comm_of(m->o.arg, pid, comm);
	pthread_mutex_lock(&m->mutex);
	c->pid = pid;
	c->until_ns = now + 2 * NSEC_PER_SEC;
	memcpy(c->comm, comm, sizeof(c->comm));
	pthread_mutex_unlock(&m->mutex);
}

void mnt_cred(fuse_req_t req, bool comm, struct fs_cred *cred)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);

	memset(cred, 0, sizeof(*cred));
	cred->uid = ctx->uid;
	cred->gid = ctx->gid;
	cred->pid = (uint32_t)ctx->pid;
	cred->umask = ctx->umask;
	if (comm)
		comm_of(mnt_of(req), cred->pid, cred->comm);
}

static struct timespec timespec_of(int64_t ns)
{
	struct timespec ts = { .tv_sec = ns / (int64_t)NSEC_PER_SEC,
			       .tv_nsec = ns % (int64_t)NSEC_PER_SEC };

	if (ts.tv_nsec < 0) {
		ts.tv_nsec += (long)NSEC_PER_SEC;
		ts.tv_sec--;
	}
	return ts;
}

void mnt_stat(const struct fs_attr *attr, struct stat *st)
{
	memset(st, 0, sizeof(*st));
	st->st_ino = attr->ino;
	st->st_mode = attr->mode;
	st->st_nlink = attr->nlink;
	st->st_uid = attr->uid;
	st->st_gid = attr->gid;
	st->st_rdev = attr->rdev;
	st->st_size = (off_t)attr->size;
	st->st_blksize = BLOCK_SIZE;
	st->st_blocks = (blkcnt_t)(attr->blocks * (BLOCK_SIZE / 512));
	st->st_atim = timespec_of(attr->atime_ns);
	st->st_mtim = timespec_of(attr->mtime_ns);
	st->st_ctim = timespec_of(attr->ctime_ns);
}

double mnt_timeout(const struct fs_attr *attr)
{
	return attr->covered ? COVERED_TIMEOUT_S : UNCOVERED_TIMEOUT_S;
}

/*
 * The kernel counts from when it has woken who waits for the answer, so it hears of less than there
 * is; what comes later than that is looked up again.
 */
static double name_timeout(const struct mnt *m, const struct fs_attr *attr)
{
	uint64_t now = env_now_ns(m->fs->env) + NAME_LATE_NS;

	return attr->name_until_ns > now ? (double)(attr->name_until_ns - now) / 1e9 : 0;
}

void mnt_entry(const struct mnt *m, const struct fs_attr *attr, struct fuse_entry_param *e)
{
	memset(e, 0, sizeof(*e));
	e->ino = mnt_nodeid(m, attr->id);
	e->generation = attr->generation;
	e->attr_timeout = mnt_timeout(attr);
	e->entry_timeout = name_timeout(m, attr);
	mnt_stat(attr, &e->attr);
}

/* ---- session ---- */

static void op_init(void *arg, struct fuse_conn_info *conn)
{
	static const unsigned int wanted =
		FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_ATOMIC_O_TRUNC |
		FUSE_CAP_DONT_MASK | FUSE_CAP_POSIX_ACL | FUSE_CAP_PARALLEL_DIROPS |
		FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_EXPORT_SUPPORT;

	(void)arg;
	/* Locks of flock(2) and fcntl(2) are kept by the kernel, for this host. */
	conn->want = conn->capable & wanted;
	conn->max_write = MNT_IO_MAX;
	conn->max_readahead = MNT_IO_MAX;
	conn->max_background = 128;
	conn->congestion_threshold = 96;
	conn->time_gran = 1;
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs st;
	int err;

	(void)ino;
	err = fs_statfs(mnt_of(req)->fs, &st);
	if (err)
		mnt_error(req, err);
	else
		fuse_reply_statfs(req, &st);
}

/* Inodes are found again by their id: nothing is kept for the kernel's sake but of what has no name. */
static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
	(void)nlookup;
	mnt_forgotten(mnt_of(req), mnt_id(mnt_of(req), ino));
	fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		mnt_forgotten(mnt_of(req), mnt_id(mnt_of(req), forgets[i].ino));
	fuse_reply_none(req);
}

static ssize_t session_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	mnt_newer_answer(userdata, iov, count);
	return writev(fd, iov, count);
}

/* libfuse wants one; requests are received by our own threads. */
static ssize_t session_read(int fd, void *buf, size_t len, void *userdata)
{
	(void)userdata;
	return read(fd, buf, len);
}

static int session_new(struct mnt *m, int fuse_fd)
{
	static const struct fuse_custom_io io = { .writev = session_writev, .read = session_read };
	static char *argv[] = { (char *)"lunfs", NULL };
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);
	struct fuse_lowlevel_ops ops = {
		.init = op_init,
		.statfs = op_statfs,
		.forget = op_forget,
		.forget_multi = op_forget_multi,
	};

	mnt_name_ops(&ops);
	mnt_file_ops(&ops);
	mnt_readdir_ops(&ops);
	m->se = fuse_session_new(&args, &ops, sizeof(ops), m);
	fuse_opt_free_args(&args);
	if (!m->se) {
		close(fuse_fd);
		return -ENOMEM;
	}
	/* The descriptor, mounted already, is libfuse's to close from here on. */
	if (fuse_session_custom_io(m->se, &io, fuse_fd)) {
		fuse_session_destroy(m->se);
		close(fuse_fd);
		return -EPROTO;
	}
	m->fd = fuse_fd;
	return 0;
}

/* ---- what the kernel should forget ---- */

/* mutex held. */
static bool is_stale_already(const struct mnt *m, uint64_t id)
{
	unsigned int last = (m->stale_head + m->stale_count - 1) % ARRAY_SIZE(m->stale);

	return m->stale_count && m->stale[last] == id;
}

void mnt_invalidate(struct mnt *m, uint64_t id)
{
	pthread_mutex_lock(&m->mutex);
	/* A full ring loses a notice: then the kernel believes for COVERED_TIMEOUT_S more. */
	if (m->stale_count < ARRAY_SIZE(m->stale) && !is_stale_already(m, id)) {
		m->stale[(m->stale_head + m->stale_count++) % ARRAY_SIZE(m->stale)] = id;
		pthread_cond_broadcast(&m->changed);
	}
	pthread_mutex_unlock(&m->mutex);
}

/* mutex held, released around it. */
static void notify_stale(struct mnt *m)
{
	uint64_t id = m->stale[m->stale_head];

	m->stale_head = (m->stale_head + 1) % ARRAY_SIZE(m->stale);
	m->stale_count--;
	if (m->ended || m->quiet)
		return;
	m->notifying = true;
	pthread_mutex_unlock(&m->mutex);
	fuse_lowlevel_notify_inval_inode(m->se, mnt_nodeid(m, id), 0, 0);
	pthread_mutex_lock(&m->mutex);
	m->notifying = false;
	pthread_cond_broadcast(&m->changed);
}

/*
 * A notice waits in the kernel for pages that are being read, and those for our replies: it has
 * to end while requests are still served.
 */
static void notices_end(struct mnt *m)
{
	pthread_mutex_lock(&m->mutex);
	m->quiet = true;
	while (m->notifying)
		pthread_cond_wait(&m->changed, &m->mutex);
	pthread_mutex_unlock(&m->mutex);
}

/* Notices to the kernel, and what may wait a long time on behalf of those who must not. */
static void *notifier_main(void *arg)
{
	struct mnt *m = arg;
	struct mnt_slot *late;

	pthread_mutex_lock(&m->mutex);
	while (!m->notifier_stop) {
		if (m->stale_count) {
			notify_stale(m);
		} else if ((late = m->late)) {
			m->late = late->next;
			pthread_mutex_unlock(&m->mutex);
			mnt_data_late(late);
			pthread_mutex_lock(&m->mutex);
		} else {
			struct timespec until;

			clock_gettime(CLOCK_REALTIME, &until);
			until.tv_nsec += TICK_NS;
			if (until.tv_nsec >= (long)NSEC_PER_SEC) {
				until.tv_nsec -= (long)NSEC_PER_SEC;
				until.tv_sec++;
			}
			if (pthread_cond_timedwait(&m->changed, &m->mutex, &until))
				mnt_threads_tick(m);
		}
	}
	pthread_mutex_unlock(&m->mutex);
	return NULL;
}

/* ---- life ---- */

static struct mnt *mnt_alloc(struct fs *fs, const struct mnt_options *o)
{
	struct mnt *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->fs = fs;
	m->o = *o;
	m->o.read_only = o->read_only || fs->read_only;
	snprintf(m->dir, sizeof(m->dir), "%s", o->dir);
	m->o.dir = m->dir;
	pthread_mutex_init(&m->mutex, NULL);
	pthread_mutex_init(&m->slot_mutex, NULL);
	pthread_cond_init(&m->changed, NULL);
	pthread_cond_init(&m->unparked, NULL);
	list_init(&m->files);
	table_init(&m->removed);
	list_init(&m->removed_order);
	return m;
}

static void mnt_free(struct mnt *m)
{
	mnt_forget_all(m);
	pthread_cond_destroy(&m->unparked);
	pthread_cond_destroy(&m->changed);
	pthread_mutex_destroy(&m->slot_mutex);
	pthread_mutex_destroy(&m->mutex);
	free(m);
}

static void notifier_stop(struct mnt *m)
{
	pthread_mutex_lock(&m->mutex);
	m->notifier_stop = true;
	pthread_cond_broadcast(&m->changed);
	pthread_mutex_unlock(&m->mutex);
	pthread_join(m->notifier, NULL);
}

int mnt_start(struct fs *fs, int fuse_fd, const struct mnt_options *o, struct mnt **out)
{
	struct mnt *m = mnt_alloc(fs, o);
	int err;

	if (!m) {
		close(fuse_fd);
		return -ENOMEM;
	}
	err = session_new(m, fuse_fd);
	if (err)
		goto free_mnt;
	__atomic_fetch_add(&fs->caches, 1, __ATOMIC_RELAXED);
	err = pthread_create(&m->notifier, NULL, notifier_main, m);
	if (err) {
		err = -err;
		goto free_session;
	}
	err = mnt_threads_start(m);
	if (err)
		goto stop_notifier;
	*out = m;
	return 0;

stop_notifier:
	notifier_stop(m);
free_session:
	__atomic_fetch_sub(&fs->caches, 1, __ATOMIC_RELAXED);
	fuse_session_destroy(m->se);	/* closes fuse_fd */
free_mnt:
	mnt_free(m);
	return err;
}

void mnt_stop(struct mnt *m)
{
	struct mnt_file *f, *next;

	notices_end(m);
	fuse_session_exit(m->se);
	mnt_threads_stop(m);
	notifier_stop(m);
	list_for_each(f, next, &m->files, node)
		mnt_file_close(m, f);
	__atomic_fetch_sub(&m->fs->caches, 1, __ATOMIC_RELAXED);
	fuse_session_destroy(m->se);
	mnt_free(m);
}

bool mnt_is_over(const struct mnt *m)
{
	struct pollfd pfd = { .fd = m->fd };

	return poll(&pfd, 1, 0) == 1 && pfd.revents & POLLERR;
}

void mnt_status(struct mnt *m, struct mnt_status *st)
{
	st->requests = atomic_load(&m->requests);
	st->reads = atomic_load(&m->reads);
	st->writes = atomic_load(&m->writes);
	st->open_files = atomic_load(&m->open_files);
}
