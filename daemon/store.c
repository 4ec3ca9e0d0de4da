/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "base/workers.h"
#include "daemon/checker.h"
#include "daemon/guard.h"
#include "daemon/store_internal.h"

/* ---- finding ---- */

/* Two URLs may name one LUN by other portals and parameters. */
static bool same_device(const char *a, const char *b)
{
	return !strcmp(a, b) || (blkiscsi_is_url(a) && blkiscsi_is_url(b) && blkiscsi_same(a, b));
}

static struct store *find_device(struct stores *all, const char *device, bool rescue)
{
	struct store *s, *tmp;

	list_for_each(s, tmp, &all->list, node)
		if (same_device(s->device, device) && !(s->flags & FS_RESCUE) == !rescue)
			return s;
	return NULL;
}

/* Another store of the same device as @new, whatever path it was given. */
static struct store *find_backing(struct store *new)
{
	struct store *s, *tmp;

	list_for_each(s, tmp, &new->all->list, node)
		if (s != new && s->backing_dev == new->backing_dev &&
		    s->backing_ino == new->backing_ino &&
		    (s->backing_dev || s->backing_ino) &&
		    !(s->flags & FS_RESCUE) == !(new->flags & FS_RESCUE))
			return s;
	return NULL;
}

/* Another store on the same LUN, as an iSCSI URL and as a disk of the kernel's say. */
static struct store *find_identity(struct store *new)
{
	struct store *s, *tmp;

	list_for_each(s, tmp, &new->all->list, node)
		if (s != new && s->lun[0] && !strcmp(s->lun, new->lun) &&
		    !((s->flags | new->flags) & FS_RESCUE))
			return s;
	return NULL;
}

/* Attached twice, the second would take the first one's slot for one of a dead daemon of ours. */
static int refuse_twice(struct store *s, char *why, size_t why_size)
{
	struct store *other;

	pthread_mutex_lock(&s->all->mutex);
	if (s->info.caw == BLK_CAW_SCSI)
		memcpy(s->lun, s->info.identity, sizeof(s->lun));
	other = find_identity(s);
	if (other)
		snprintf(why, why_size, "%.200s: is the LUN that is attached as %.200s already",
			 s->device, other->device);
	pthread_mutex_unlock(&s->all->mutex);
	return other ? -EALREADY : 0;
}

/*
 * The same for another daemon that is this very host: host_lock_fd is of the way to the LUN that
 * was asked for, and it may have come by another one (an iSCSI URL, a disk of the kernel's).
 */
static int hold_lun(struct store *s, char *why, size_t why_size)
{
	struct rpc_request rq = { .op = RPC_HOLD };
	struct rpc_reply reply;
	int fds[PACKET_FDS_MAX], err;
	unsigned int fd_count = 0;

	if (!s->lun[0] || s->host_lock_fd < 0)
		return 0;
	snprintf(rq.hold.identity, sizeof(rq.hold.identity), "%s", s->lun);
	snprintf(rq.hold.device, sizeof(rq.hold.device), "%.255s", s->device);
	err = rpc_call(s->all->rpc, &rq, -1, &reply, fds, &fd_count);
	if (!err && fd_count == 1) {
		s->lun_lock_fd = fds[0];
		return 0;
	}
	packet_close_fds(fds, fd_count);
	snprintf(why, why_size, "%s", err ? reply.why : "the privileged half sent no lock");
	return err ? err : -EPROTO;
}

static bool is_called(const struct store *s, const char *name)
{
	uint8_t id[16];

	if (s->state != STORE_ATTACHED)
		return false;
	if (same_device(s->device, name) || !strcmp(s->fs->super.label, name))
		return true;
	return !text_parse_uuid(name, id) && !memcmp(id, s->fs->super.volume_id, sizeof(id));
}

static bool same_volume(const struct store *a, const struct store *b)
{
	return !memcmp(a->fs->super.volume_id, b->fs->super.volume_id, 16);
}

static int say_ambiguous(const char *name, const struct store *a, const struct store *b, char *why,
			 size_t why_size)
{
	char ua[UUID_TEXT_SIZE], ub[UUID_TEXT_SIZE];

	snprintf(why, why_size, "%.100s: several attached volumes have this label: %s (%.100s) and "
		 "%s (%.100s); name one by its UUID", name,
		 text_format_uuid(a->fs->super.volume_id, ua), a->device,
		 text_format_uuid(b->fs->super.volume_id, ub), b->device);
	return -ENOTUNIQ;
}

/*
 * mutex held.  Whether @s is meant rather than @other, if a name fits both: the volume as it is
 * attached, and for rescue besides.  To be detached: what can be.
 */
static bool is_meant(const struct store *s, const struct store *other, bool to_detach)
{
	bool can = list_empty(&s->mounts) && !s->disks;
	bool other_can = list_empty(&other->mounts) && !other->disks;

	if (to_detach && can != other_can)
		return can;
	return other->flags & FS_RESCUE;
}

int store_get(struct stores *all, const char *name, bool to_detach, struct store **out, char *why,
	      size_t why_size)
{
	struct store *s, *tmp, *found = NULL;
	int err = 0;

	pthread_mutex_lock(&all->mutex);
	list_for_each(s, tmp, &all->list, node) {
		if (!is_called(s, name))
			continue;
		if (found && !same_volume(s, found)) {
			err = say_ambiguous(name, found, s, why, why_size);
			break;
		}
		if (!found || is_meant(s, found, to_detach))
			found = s;
	}
	if (!err && !found) {
		snprintf(why, why_size, "%.200s: no datastore of that label, UUID or device is "
			 "attached; \"lunfs status\" lists them", name);
		err = -ENOENT;
	}
	if (!err) {
		found->refs++;
		*out = found;
	}
	pthread_mutex_unlock(&all->mutex);
	return err;
}

/* ---- attaching ---- */

static_assert(STORES_MAX == GUARD_WORDS && GUARD_WORDS == 64, "each datastore has a word, and a bit");

/* mutex held; there are as many as datastores. */
static unsigned int take_word(struct stores *all)
{
	unsigned int word = (unsigned int)__builtin_ctzll(~all->words_used);

	all->words_used |= 1ull << word;
	return word;
}

/* mutex held. */
static void forget_store(struct store *s)
{
	s->all->words_used &= ~(1ull << s->word);
	list_del(&s->node);
	s->all->count--;
	pthread_cond_broadcast(&s->all->changed);
	pthread_mutex_destroy(&s->mounts_mutex);
	checker_free(s->checks);
	free(s);
}

/* mutex held. */
static struct store *new_store(struct stores *all, const char *device, unsigned int flags,
			       bool implicit)
{
	struct store *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->checks = checker_new(s);
	if (!s->checks) {
		free(s);
		return NULL;
	}
	s->all = all;
	snprintf(s->device, sizeof(s->device), "%s", device);
	s->flags = flags & ~STORE_READ_ONLY_WILL_DO;
	s->state = STORE_ATTACHING;
	s->implicit = implicit;
	s->word = take_word(all);
	s->refs = 1;
	s->data_fd = -1;
	s->lock_fd = -1;
	s->host_lock_fd = -1;
	s->lun_lock_fd = -1;
	list_init(&s->mounts);
	pthread_mutex_init(&s->mounts_mutex, NULL);
	list_add_tail(&all->list, &s->node);
	all->count++;
	return s;
}

static void close_devices(struct store *s)
{
	blkdev_close(s->dev);
	blkdev_close(s->hb_dev);
	if (s->data_fd >= 0)
		close(s->data_fd);
	if (s->lock_fd >= 0)
		close(s->lock_fd);
	/* Last: who gets it next may skip the wait for our lease. */
	if (s->lun_lock_fd >= 0)
		close(s->lun_lock_fd);
	if (s->host_lock_fd >= 0)
		close(s->host_lock_fd);
	s->dev = NULL;
	s->hb_dev = NULL;
	s->data_fd = -1;
	s->lock_fd = -1;
	s->host_lock_fd = -1;
	s->lun_lock_fd = -1;
}

/* Called by the handle's own threads: the parent makes the connection. */
static int dial(void *arg, const char *portal, uint32_t timeout_ms)
{
	struct store *s = arg;
	struct rpc_request rq = { .op = RPC_DIAL, .dial = { .timeout_ms = timeout_ms } };
	struct rpc_reply reply;
	int fds[PACKET_FDS_MAX], err;
	unsigned int fd_count = 0;

	snprintf(rq.dial.portal, sizeof(rq.dial.portal), "%s", portal);
	err = rpc_call(s->all->rpc, &rq, -1, &reply, fds, &fd_count);
	if (!err && fd_count == 1)
		return fds[0];
	packet_close_fds(fds, fd_count);
	return err ? err : -EPROTO;
}

static void started(void *arg)
{
	struct store *s = arg;

	if (s->all->may_beat)
		s->all->may_beat(s->all->may_beat_arg);	/* makes the thread a real-time one */
}

static int open_lun(struct store *s, struct rpc_reply *reply, const int *fds,
		    unsigned int fd_count, char *why, size_t why_size)
{
	struct blkiscsi_options o = { .dial = dial, .dial_arg = s };
	int err = -EPROTO;

	if (fd_count != reply->open.has_host_lock) {
		packet_close_fds(fds, fd_count);
		snprintf(why, why_size, "%.200s: the privileged half sent %u descriptors",
			 s->device, fd_count);
	} else {
		if (fd_count)
			s->host_lock_fd = fds[0];
		o.flags = s->flags & FS_RESCUE ? BLKISCSI_READ_ONLY : 0;
		err = blkiscsi_open(env_posix(), &reply->open.lun, &o, &s->dev, why, why_size);
	}
	if (!err) {
		o.flags |= BLKISCSI_HEARTBEAT;
		o.started = started;
		o.started_arg = s;
		err = blkiscsi_open(env_posix(), &reply->open.lun, &o, &s->hb_dev, why, why_size);
	}
	explicit_bzero(&reply->open.lun, sizeof(reply->open.lun));
	if (!err)
		s->info = s->dev->info;
	return err;
}

/* The next @count descriptors become those of @lanes. */
static unsigned int take_lanes(struct blkfile_handle *h, const int *fds, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		h->lanes[i] = fds[i];
	h->lane_count = count;
	return count;
}

static bool is_complete(const struct rpc_reply *reply, unsigned int fd_count)
{
	const uint32_t *lanes = reply->open.lane_count;

	return lanes[0] <= BLKSCSI_LANES_MAX && lanes[1] <= BLKSCSI_LANES_MAX &&
	       fd_count == 2 + (reply->open.has_locks ? 2 : 0) + lanes[0] + lanes[1] +
			   reply->open.has_host_lock;
}

/* In the order of struct rpc_reply. */
static void take_handles(struct store *s, const struct rpc_reply *reply, const int *fds,
			 struct blkfile_handle h[2])
{
	unsigned int next = 2;

	for (unsigned int i = 0; i < 2; i++) {
		h[i] = (struct blkfile_handle){ .fd = fds[i], .lock_fd = -1,
						.info = reply->open.info, .scsi = reply->open.scsi };
		if (reply->open.has_locks)
			h[i].lock_fd = fds[next++];
	}
	for (unsigned int i = 0; i < 2; i++)
		next += take_lanes(&h[i], fds + next, reply->open.lane_count[i]);
	/* What is unclear of the last life of this host was data. */
	h[1].scsi.unclear = false;
	if (reply->open.has_host_lock)
		s->host_lock_fd = fds[next];
	/* Reads and writes of its own need no more, where no path has to be registered first. */
	if (!reply->open.lane_count[0])
		s->data_fd = fcntl(fds[0], F_DUPFD_CLOEXEC, 0);
	/* Only to name the device to the parent: a dup excludes nobody. */
	if (reply->open.has_locks)
		s->lock_fd = fcntl(h[0].lock_fd, F_DUPFD_CLOEXEC, 0);
}

static int take_devices(struct store *s, const struct rpc_reply *reply, const int *fds,
			unsigned int fd_count, char *why, size_t why_size)
{
	struct blkfile_handle h[2];
	int err;

	if (!is_complete(reply, fd_count)) {
		packet_close_fds(fds, fd_count);
		snprintf(why, why_size, "%.200s: the privileged half sent %u descriptors", s->device,
			 fd_count);
		return -EPROTO;
	}
	s->info = reply->open.info;
	take_handles(s, reply, fds, h);
	err = blkfile_new(env_posix(), &h[0], &s->dev);
	if (err) {
		blkfile_handle_close(&h[0]);
		blkfile_handle_close(&h[1]);
	} else {
		err = blkfile_new(env_posix(), &h[1], &s->hb_dev);
		if (err)
			blkfile_handle_close(&h[1]);
	}
	if (err)
		snprintf(why, why_size, "%.200s: %s", s->device, strerror(-err));
	return err;
}

static int kill_peer(void *arg, const struct slot *victim)
{
	struct store *s = arg;
	struct rpc_request rq = { .op = RPC_KILL };
	struct rpc_reply reply;
	int err;

	memcpy(rq.kill.host_id, victim->host_id, sizeof(rq.kill.host_id));
	memcpy(rq.kill.boot_id, victim->boot_id, sizeof(rq.kill.boot_id));
	rq.kill.pid = victim->pid;
	rq.kill.pid_start = victim->pid_start;
	err = rpc_call(s->all->rpc, &rq, s->lock_fd, &reply, NULL, NULL);
	if (err)
		log_warning(env_posix(), s->device, "host %.32s in slot %u cannot be fenced: %s",
			    victim->host_name, victim->index, reply.why);
	return err == 0 || err == -EPERM || err == -ETIMEDOUT ? err : -EPERM;
}

/* From any thread of lockd: what the kernel caches of the inode has to go, in every mount. */
static void invalidate(void *arg, uint64_t id)
{
	struct store *s = arg;
	struct mount *m, *tmp;

	pthread_mutex_lock(&s->mounts_mutex);
	list_for_each(m, tmp, &s->mounts, node)
		mnt_invalidate(m->mnt, id);
	pthread_mutex_unlock(&s->mounts_mutex);
}

/* From whoever removes a name: a mount, a command, a merge. */
static void gone(void *arg, const struct fs_attr *attr)
{
	struct store *s = arg;
	struct mount *m, *tmp;

	pthread_mutex_lock(&s->mounts_mutex);
	list_for_each(m, tmp, &s->mounts, node)
		mnt_gone(m->mnt, attr);
	pthread_mutex_unlock(&s->mounts_mutex);
}

static int attach_fs(struct store *s, char *why, size_t why_size)
{
	const struct rpc_hello *h = s->all->hello;
	struct fs_attach_params p = {
		.env = env_posix(), .dev = s->dev, .hb_dev = s->hb_dev, .flags = s->flags,
		.pid = (uint32_t)getpid(), .pid_start = s->all->pid_start,
		.own_slot_is_dead = s->host_lock_fd >= 0,
		.kill = s->lock_fd >= 0 ? kill_peer : NULL, .kill_arg = s,
		.may_beat = s->all->may_beat, .may_beat_arg = s->all->may_beat_arg,
	};
	int err;

	memcpy(p.host_id, h->host_id, sizeof(p.host_id));
	memcpy(p.boot_id, h->boot_id, sizeof(p.boot_id));
	memcpy(p.machine_id, h->machine_id, sizeof(p.machine_id));
	memcpy(p.host_name, h->host_name, sizeof(p.host_name));
	/* Of what the kernel or an agent sends for us its end proves nothing: only our own sockets. */
	if (s->all->guard && s->is_lun) {
		p.watchdog = true;
		p.watchdog_ms = h->guard_device_ms;
		p.guard = &s->all->guard->words[s->word];
	}
	why[0] = '\0';
	err = fs_attach(&p, &s->fs, why, why_size);
	if (err) {
		if (!why[0])
			snprintf(why, why_size, "%.200s: cannot be attached: %s", s->device,
				 strerror(-err));
		return err;
	}
	s->fs->invalidate_arg = s;
	s->fs->invalidate = invalidate;
	s->fs->gone = gone;
	return 0;
}

static void log_attached(const struct store *s)
{
	if (!s->info.direct)
		log_warning(env_posix(), s->fs->label, "%s: O_DIRECT is not in force here: data "
			    "passes the page cache, a flush is fdatasync", s->device);
	log_info(env_posix(), s->fs->label, "attached %s%s", s->device,
		 s->flags & FS_RESCUE ? " for rescue, read-only" :
		 s->flags & FS_READ_ONLY ? " read-only" : "");
}

/* Return: 0; -EEXIST *@other is the same device; errors. */
static int attach_new(struct store *s, int asker, struct store **other, char *why, size_t why_size)
{
	struct rpc_request rq = { .op = RPC_OPEN };
	struct rpc_reply reply;
	int fds[PACKET_FDS_MAX], err;
	unsigned int fd_count = 0;

	snprintf(rq.open.path, sizeof(rq.open.path), "%s", s->device);
	if (s->flags & FS_RESCUE)
		rq.open.flags = RPC_OPEN_READ_ONLY | RPC_OPEN_NO_HOST_LOCK;
	err = rpc_call(s->all->rpc, &rq, asker, &reply, fds, &fd_count);
	pthread_mutex_lock(&s->all->mutex);
	s->backing_dev = reply.open.backing_dev;
	s->backing_ino = reply.open.backing_ino;
	*other = find_backing(s);
	pthread_mutex_unlock(&s->all->mutex);
	if (*other) {
		packet_close_fds(fds, fd_count);
		return -EEXIST;
	}
	if (err) {
		snprintf(why, why_size, "%s", reply.why);
		return err;
	}
	s->is_lun = reply.open.is_lun;
	if (s->is_lun)
		err = open_lun(s, &reply, fds, fd_count, why, why_size);
	else
		err = take_devices(s, &reply, fds, fd_count, why, why_size);
	if (!err)
		err = refuse_twice(s, why, why_size);
	if (!err)
		err = hold_lun(s, why, why_size);
	if (!err)
		err = attach_fs(s, why, why_size);
	if (err)
		close_devices(s);
	else
		log_attached(s);
	return err;
}

/* mutex held; waits while another thread attaches or detaches it. */
static int join_existing(struct store *s, unsigned int flags, bool implicit, struct store **out,
			 char *why, size_t why_size)
{
	if (s->state != STORE_ATTACHED) {
		pthread_cond_wait(&s->all->changed, &s->all->mutex);
		return -EAGAIN;	/* it may be gone: look again */
	}
	if (s->flags & FS_READ_ONLY && !(flags & (FS_READ_ONLY | STORE_READ_ONLY_WILL_DO))) {
		snprintf(why, why_size, "%.200s: attached read-only here; detach it first", s->device);
		return -EBUSY;
	}
	if (fs_is_lost(s->fs)) {
		snprintf(why, why_size, "%.200s: this host has lost its slot there; unmount what is "
			 "mounted of it and detach it (\"lunfs detach --force\" does both), then attach "
			 "it anew", s->device);
		return -EBUSY;
	}
	if (!implicit)
		s->implicit = false;	/* asked for by name: it stays */
	s->refs++;
	*out = s;
	return 0;
}

/*
 * mutex held, and released meanwhile.  umount(8) returns before we have ended the mount, and a
 * command may still use what had only that: what stands in the way may be gone in a moment.
 * Return: false if not, or when it had its time.
 */
static bool wait_for_end(struct store *s, const struct timespec *until)
{
	return s->implicit && !s->disks && (list_empty(&s->mounts) || store_is_ending(s)) &&
	       pthread_cond_timedwait(&s->all->changed, &s->all->mutex, until) != ETIMEDOUT;
}

/* mutex held.  Return: 0 *@out is to be attached; 1 it is; negative errno. */
static int begin_attach(struct stores *all, const char *device, unsigned int flags, bool implicit,
			struct store **out, char *why, size_t why_size)
{
	struct timespec until;
	struct store *s;
	int err;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += UMOUNT_WAIT_SECONDS;
	do {
		if (all->stopping) {
			snprintf(why, why_size, "the daemon is shutting down");
			return -ESHUTDOWN;
		}
		s = find_device(all, device, flags & FS_RESCUE);
		err = s ? join_existing(s, flags, implicit, out, why, why_size) : 0;
	} while (err == -EAGAIN || (err == -EBUSY && wait_for_end(s, &until)));
	if (err || s)
		return err ? err : 1;
	if (all->count >= STORES_MAX) {
		snprintf(why, why_size, "this daemon has %d datastores already", STORES_MAX);
		return -EMFILE;
	}
	*out = new_store(all, device, flags, implicit);
	return *out ? 0 : -ENOMEM;
}

int store_attach(struct stores *all, const char *device, unsigned int flags, int asker,
		 bool implicit, struct store **out, char *why, size_t why_size)
{
	struct store *s, *other = NULL;
	int err;

	pthread_mutex_lock(&all->mutex);
	err = begin_attach(all, device, flags, implicit, &s, why, why_size);
	pthread_mutex_unlock(&all->mutex);
	if (err) {
		*out = err == 1 ? s : NULL;
		return err == 1 ? 0 : err;
	}
	err = attach_new(s, asker, &other, why, why_size);
	pthread_mutex_lock(&all->mutex);
	if (err) {
		forget_store(s);
		while (other && (err == -EEXIST || err == -EAGAIN)) {
			/* The other one may have gone while the mutex was free or waited with. */
			err = store_is_listed(all, other) ?
			      join_existing(other, flags, implicit, out, why, why_size) : -ENXIO;
		}
		if (err == -ENXIO)
			snprintf(why, why_size, "%.200s: it was just detached; try again", device);
	} else {
		s->state = STORE_ATTACHED;
		*out = s;
		pthread_cond_broadcast(&all->changed);
	}
	pthread_mutex_unlock(&all->mutex);
	return err;
}

/* ---- detaching ---- */

bool store_is_listed(struct stores *all, const struct store *wanted)
{
	struct store *s, *tmp;

	list_for_each(s, tmp, &all->list, node)
		if (s == wanted)
			return true;
	return false;
}

/* Nobody may open it again but for root; at our own end everybody who comes back may. */
static void tell_closed(struct store *s)
{
	struct rpc_request rq = { .op = RPC_CLOSED, .magic = RPC_MAGIC };

	if (s->all->stopping)
		return;
	snprintf(rq.open.path, sizeof(rq.open.path), "%s", s->device);
	packet_send(s->all->rpc->sock, &rq, sizeof(rq), NULL, 0);
}

/* mutex held, and released meanwhile; the last reference is the caller's.  Frees @s. */
static int detach_now(struct store *s)
{
	struct stores *all = s->all;
	char label[sizeof(s->fs->label)];
	int err;

	s->state = STORE_DETACHING;
	pthread_mutex_unlock(&all->mutex);
	strcpy(label, s->fs->label);
	workers_destroy(s->workers);
	s->workers = NULL;
	err = fs_detach(s->fs);
	close_devices(s);
	tell_closed(s);
	if (err)
		log_warning(env_posix(), label, "detached %s, but not cleanly: %s; other hosts will "
			    "recover this host's slot", s->device, strerror(-err));
	else
		log_info(env_posix(), label, "detached %s", s->device);
	pthread_mutex_lock(&all->mutex);
	forget_store(s);
	return err;
}

int store_detach(struct store *s, bool force, char *why, size_t why_size)
{
	struct stores *all = s->all;
	int err = 0;

	pthread_mutex_lock(&all->mutex);
	if (force && !s->disks)
		store_end_mounts(s);
	else
		store_wait_for_mounts(s);
	/* After that, which gives others time to begin something. */
	__atomic_store_n(&s->leaving, true, __ATOMIC_RELAXED);
	while (s->background)
		pthread_cond_wait(&all->changed, &all->mutex);
	__atomic_store_n(&s->leaving, false, __ATOMIC_RELAXED);
	if (!list_empty(&s->mounts) && !(force && s->disks)) {
		store_say_mounted(s, why, why_size);
		err = -EBUSY;
	} else if (s->disks) {
		snprintf(why, why_size, "%.100s: %u virtual disks of it are attached (\"lunfs disk "
			 "list\"); detach them first", s->fs->label, s->disks);
		err = -EBUSY;
	} else if (s->refs > 1) {
		snprintf(why, why_size, "%.100s: another command is using it; try again",
			 s->fs->label);
		err = -EBUSY;
	}
	/* What was mounted may have ended while it was said so. */
	if (err)
		store_put_locked(s);
	else
		err = detach_now(s);
	pthread_mutex_unlock(&all->mutex);
	if (err && err != -EBUSY)
		snprintf(why, why_size, "detached, but not cleanly: %s; other hosts will recover "
			 "this host's slot", strerror(-err));
	return err;
}

/* mutex held. */
void store_put_locked(struct store *s)
{
	if (s->refs == 1 && s->implicit && list_empty(&s->mounts) && s->state == STORE_ATTACHED) {
		detach_now(s);
		return;
	}
	s->refs--;
	pthread_cond_broadcast(&s->all->changed);
}

void store_put(struct store *s)
{
	struct stores *all = s->all;

	pthread_mutex_lock(&all->mutex);
	store_put_locked(s);
	pthread_mutex_unlock(&all->mutex);
}

bool store_detach_one(struct stores *all, int *err)
{
	struct store *s, *tmp;
	int e;

	if (list_empty(&all->list))
		return true;
	list_for_each(s, tmp, &all->list, node) {
		if (s->state != STORE_ATTACHED || s->refs)
			continue;
		s->refs++;
		e = detach_now(s);
		*err = *err ? *err : e;
		return false;
	}
	pthread_cond_wait(&all->changed, &all->mutex);
	return false;
}
