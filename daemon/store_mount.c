/* SPDX-License-Identifier: Apache-2.0 */
/* Mounts of attached datastores: made on demand, ended when the kernel says so. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/store_internal.h"

#define MAX_READ	(1u << 20)

static void comm_of(void *arg, uint32_t pid, char comm[25])
{
	struct mount *m = arg;
	struct rpc_request rq = { .op = RPC_COMM, .comm_pid = pid };
	struct rpc_reply reply;

	comm[0] = '\0';
	if (!rpc_call(m->store->all->rpc, &rq, -1, &reply, NULL, NULL))
		memcpy(comm, reply.comm, 24);
	comm[24] = '\0';
}

/* From a thread of the mount itself, which cannot wait for its own end: the reaper does. */
static void unmounted(void *arg)
{
	struct mount *m = arg;
	struct stores *all = m->store->all;

	pthread_mutex_lock(&all->mutex);
	m->ended = true;
	pthread_cond_broadcast(&all->changed);
	pthread_mutex_unlock(&all->mutex);
}

enum umount_how { UMOUNT_NORMAL, UMOUNT_LAZY, UMOUNT_DEAD };

static int ask_umount(struct stores *all, const char *dir, uint32_t dev_minor,
		      enum umount_how how)
{
	struct rpc_request rq = { .op = RPC_UMOUNT };
	struct rpc_reply reply;

	snprintf(rq.umount.dir, sizeof(rq.umount.dir), "%s", dir);
	rq.umount.dev_minor = dev_minor;
	rq.umount.lazy = how != UMOUNT_NORMAL;
	rq.umount.dead = how == UMOUNT_DEAD;
	return rpc_call(all->rpc, &rq, -1, &reply, NULL, NULL);
}

static int ask_mount(struct store *s, const struct store_mount_params *p, struct rpc_reply *reply,
		     int *fds, unsigned int *fd_count)
{
	struct rpc_request rq = { .op = RPC_MOUNT };

	snprintf(rq.mount.source, sizeof(rq.mount.source), "%s", p->source);
	snprintf(rq.mount.dir, sizeof(rq.mount.dir), "%s", p->dir);
	rq.mount.flags = p->flags;
	rq.mount.max_read = MAX_READ;
	return rpc_call(s->all->rpc, &rq, p->asker, reply, fds, fd_count);
}

static int start_mount(struct mount *m, const struct store_mount_params *p, const int *fds,
		       unsigned int fd_count)
{
	struct mnt_options o = {
		.dir = m->dir, .threads = m->store->all->hello->threads, .max_read = MAX_READ,
		.comm_of = comm_of, .unmounted = unmounted, .arg = m,
		.read_only = p->read_only || m->store->fs->read_only,
	};

	if (fd_count != 1) {
		packet_close_fds(fds, fd_count);
		return -EPROTO;
	}
	return mnt_start(m->store->fs, fds[0], &o, &m->mnt);
}

/* The mount is known and counted before its first request, which may end it. */
static int serve_mount(struct mount *m, const struct store_mount_params *p, const int *fds,
		       unsigned int fd_count)
{
	struct store *s = m->store;
	int err = start_mount(m, p, fds, fd_count);

	if (err) {
		ask_umount(s->all, m->dir, m->dev_minor, UMOUNT_DEAD);
		return err;
	}
	pthread_mutex_lock(&s->all->mutex);
	s->refs++;
	pthread_mutex_lock(&s->mounts_mutex);
	list_add_tail(&s->mounts, &m->node);
	pthread_mutex_unlock(&s->mounts_mutex);
	/* The daemon's end, if it has begun, waits for the command, and then finds the mount. */
	pthread_cond_broadcast(&s->all->changed);
	pthread_mutex_unlock(&s->all->mutex);
	return 0;
}

/* Whether @m is at @dir and one of @of; NULL: wherever, of whichever. */
static bool is_meant(const struct mount *m, const struct store *of, const char *dir)
{
	return (!of || m->store == of) && (!dir || !strcmp(m->dir, dir));
}

/* mutex held.  Whether there is one that the kernel has ended or that we are ending. */
static bool is_ending(struct stores *all, const struct store *of, const char *dir)
{
	struct store *s, *stmp;
	struct mount *m, *mtmp;

	list_for_each(m, mtmp, &all->ending, node)
		if (is_meant(m, of, dir))
			return true;
	list_for_each(s, stmp, &all->list, node)
		list_for_each(m, mtmp, &s->mounts, node)
			if (is_meant(m, of, dir) && (m->claimed || mnt_is_over(m->mnt)))
				return true;
	return false;
}

bool store_is_ending(const struct store *s)
{
	return is_ending(s->all, s, NULL);
}

/* mutex held, and released meanwhile. */
static void wait_for_ending(struct stores *all, const struct store *of, const char *dir)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += UMOUNT_WAIT_SECONDS;
	while (!all->stopping && is_ending(all, of, dir))
		if (pthread_cond_timedwait(&all->changed, &all->mutex, &until) == ETIMEDOUT)
			break;
}

/*
 * umount(8) returns before we have ended its mount.  Were the next one there by then, our parent
 * would have to look at it to tell them apart, and a umount(8) in that moment would find it busy.
 */
static void wait_for_last_mount(struct stores *all, const char *dir)
{
	pthread_mutex_lock(&all->mutex);
	wait_for_ending(all, NULL, dir);
	pthread_mutex_unlock(&all->mutex);
}

int store_mount(struct store *s, const struct store_mount_params *p, char dir[PATH_MAX],
		char *why, size_t why_size)
{
	struct mount *m = calloc(1, sizeof(*m));
	struct rpc_reply reply;
	int fds[PACKET_FDS_MAX], err;
	unsigned int fd_count = 0;

	if (!m)
		return -ENOMEM;
	m->store = s;
	wait_for_last_mount(s->all, p->dir);
	err = ask_mount(s, p, &reply, fds, &fd_count);
	if (err) {
		snprintf(why, why_size, "%s", reply.why);
		goto free_mount;
	}
	memcpy(m->dir, reply.mount.dir, sizeof(m->dir));
	m->dir[sizeof(m->dir) - 1] = '\0';
	m->dev_minor = reply.mount.dev_minor;
	err = serve_mount(m, p, fds, fd_count);
	if (err) {
		snprintf(why, why_size, "%.200s: cannot be served: %s", p->dir, strerror(-err));
		goto free_mount;
	}
	log_info(env_posix(), s->fs->label, "mounted on %s", reply.mount.dir);
	strcpy(dir, reply.mount.dir);
	return 0;

free_mount:
	free(m);
	return err;
}

/* ---- the end of a mount ---- */

/* mutex held, and released meanwhile; @m is claimed.  Frees it, and perhaps its store. */
static void end_mount(struct mount *m)
{
	struct store *s = m->store;
	struct stores *all = s->all;

	/* Off the list first: nobody asks for invalidation of what mnt_stop() frees. */
	pthread_mutex_lock(&s->mounts_mutex);
	list_del(&m->node);
	pthread_mutex_unlock(&s->mounts_mutex);
	list_add_tail(&all->ending, &m->node);
	pthread_mutex_unlock(&all->mutex);
	mnt_stop(m->mnt);
	/* Most often it is unmounted already: then the parent only forgets it. */
	if (!m->forgotten)
		ask_umount(all, m->dir, m->dev_minor, UMOUNT_DEAD);
	log_info(env_posix(), s->fs->label, "unmounted from %s", m->dir);
	pthread_mutex_lock(&all->mutex);
	list_del(&m->node);
	free(m);
	pthread_cond_broadcast(&all->changed);
	store_put_locked(s);
}

/* mutex held. */
static struct mount *find_mount(struct stores *all, bool ended)
{
	struct store *s, *stmp;
	struct mount *m, *mtmp;

	list_for_each(s, stmp, &all->list, node)
		list_for_each(m, mtmp, &s->mounts, node)
			if (!m->claimed && (m->ended || !ended))
				return m;
	return NULL;
}

static void *reap(void *arg)
{
	struct stores *all = arg;

	pthread_mutex_lock(&all->mutex);
	for (;;) {
		struct mount *m = find_mount(all, true);

		if (m) {
			m->claimed = true;
			end_mount(m);
		} else {
			pthread_cond_wait(&all->changed, &all->mutex);
		}
	}
	return NULL;
}

int stores_init(struct stores *all, struct rpc_client *rpc, const struct rpc_hello *hello,
		uint64_t pid_start, struct guard_page *guard, bool (*may_beat)(void *arg), void *may_beat_arg)
{
	memset(all, 0, sizeof(*all));
	all->rpc = rpc;
	all->hello = hello;
	all->pid_start = pid_start;
	all->guard = guard;
	all->may_beat = may_beat;
	all->may_beat_arg = may_beat_arg;
	pthread_mutex_init(&all->mutex, NULL);
	pthread_cond_init(&all->changed, NULL);
	list_init(&all->list);
	list_init(&all->ending);
	return -pthread_create(&all->reaper, NULL, reap, all);
}

/* mutex held, and released meanwhile; @m is claimed. */
static void unmount_claimed(struct mount *m)
{
	struct stores *all = m->store->all;

	pthread_mutex_unlock(&all->mutex);
	/* While it is still served: what the kernel has not written yet comes now. */
	m->forgotten = !ask_umount(all, m->dir, m->dev_minor, UMOUNT_NORMAL);
	if (!m->forgotten) {
		log_warning(env_posix(), m->dir, "in use: its users will see ENOTCONN");
		m->forgotten = !ask_umount(all, m->dir, m->dev_minor, UMOUNT_LAZY);
	}
	pthread_mutex_lock(&all->mutex);
	end_mount(m);
}

/* ---- before a datastore is detached ---- */

/* As umount(8) returns, what it unmounted is not yet ended. */
void store_wait_for_mounts(struct store *s)
{
	wait_for_ending(s->all, s, NULL);
}

/* mutex held. */
static struct mount *unclaimed(struct store *s)
{
	struct mount *m, *tmp;

	list_for_each(m, tmp, &s->mounts, node)
		if (!m->claimed)
			return m;
	return NULL;
}

void store_end_mounts(struct store *s)
{
	struct mount *m;

	while ((m = unclaimed(s)) || store_is_ending(s)) {
		if (!m) {
			pthread_cond_wait(&s->all->changed, &s->all->mutex);
			continue;
		}
		m->claimed = true;
		log_warning(env_posix(), m->dir, "unmounted by force: who still uses it sees ENOTCONN");
		unmount_claimed(m);
	}
}

/* "process 12 (dd: open file), 34 (bash: directory) and 3 more" */
static void list_users(const struct rpc_users *u, char *text, size_t size)
{
	static const char *const uses[] = {
		[RPC_USE_FILE] = "open file", [RPC_USE_DIR] = "directory",
		[RPC_USE_NAMESPACE] = "another mount namespace",
	};
	uint32_t named = u->count < RPC_USERS_MAX ? u->count : RPC_USERS_MAX;
	size_t len = 0;

	text[0] = '\0';
	for (uint32_t i = 0; i < named && len < size; i++)
		len += (size_t)snprintf(text + len, size - len, "%s%u (%.24s: %s)",
					i ? ", " : "process ", u->list[i].pid, u->list[i].comm,
					uses[u->list[i].use]);
	if (u->count > named && len < size)
		snprintf(text + len, size - len, " and %u more", u->count - named);
}

void store_say_mounted(struct store *s, char *why, size_t why_size)
{
	const struct mount *m = list_first(&s->mounts, struct mount, node);
	struct rpc_request rq = { .op = RPC_USERS };
	struct rpc_reply reply;
	char users[256];
	int err;

	memcpy(rq.umount.dir, m->dir, sizeof(rq.umount.dir));
	rq.umount.dev_minor = m->dev_minor;
	pthread_mutex_unlock(&s->all->mutex);
	err = rpc_call(s->all->rpc, &rq, -1, &reply, NULL, NULL);
	if (err || reply.users.mounted) {
		snprintf(why, why_size, "%.100s: mounted on %.200s; umount that first", s->fs->label,
			 err ? rq.umount.dir : reply.users.dir);
	} else if (!reply.users.count) {
		snprintf(why, why_size, "%.64s: unmounted from %.150s, but no process is seen that "
			 "keeps it from ending: a loop device, an NFS export? End that, or cut it off: "
			 "\"lunfs detach --force\"", s->fs->label, rq.umount.dir);
	} else {
		list_users(&reply.users, users, sizeof(users));
		snprintf(why, why_size, "%.64s: unmounted from %.120s, but still in use by %s; end "
			 "that, or cut it off: \"lunfs detach --force\"", s->fs->label, rq.umount.dir,
			 users);
	}
	pthread_mutex_lock(&s->all->mutex);
}

int stores_shutdown(struct stores *all)
{
	struct mount *m;
	int err = 0;

	pthread_mutex_lock(&all->mutex);
	all->stopping = true;
	pthread_cond_broadcast(&all->changed);
	for (;;) {
		while ((m = find_mount(all, false))) {
			m->claimed = true;
			unmount_claimed(m);
		}
		/* A command that had begun before may have made another one. */
		if (store_detach_one(all, &err))
			break;
	}
	pthread_mutex_unlock(&all->mutex);
	return err;
}
