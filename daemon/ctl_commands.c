/* SPDX-License-Identifier: Apache-2.0 */
/* What the commands of the control socket do.  docs/CONTROL.md lists their results. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/text.h"
#include "daemon/ctl.h"
#include "daemon/ctl_check.h"
#include "daemon/ctl_disk.h"
#include "daemon/ctl_json.h"
#include "daemon/ctl_volume.h"
#include "daemon/metrics.h"
#include "fs/grow.h"

/* ---- status, hosts ---- */

static json_t *mounts_json(struct store *s)
{
	struct mount *m, *tmp;
	json_t *list = json_array();

	pthread_mutex_lock(&s->mounts_mutex);
	list_for_each(m, tmp, &s->mounts, node)
		json_array_append_new(list, ctl_text(m->dir));
	pthread_mutex_unlock(&s->mounts_mutex);
	return list;
}

/* What is asked of the device itself, before the mutex is taken. */
struct asked {
	struct store *s;
	json_t	*reservation;		/* NULL: there is none */
};

static json_t *ask_reservation(struct lockd *ld)
{
	struct lockd_peer *peers = calloc(SLOT_COUNT_MAX, sizeof(*peers));
	struct lockd_reservation *r = calloc(1, sizeof(*r));
	json_t *o = NULL;

	if (peers && r) {
		lockd_reservation(ld, r);
		if (r->used)
			o = reservation_json(r, peers, lockd_peers(ld, peers));
	}
	free(r);
	free(peers);
	return o;
}

/* Asks every datastore that is fenced by reservations; a device that hangs delays nobody else. */
static unsigned int ask_stores(struct stores *all, struct asked asked[STORES_MAX])
{
	unsigned int count = 0;
	struct store *s, *tmp;

	pthread_mutex_lock(&all->mutex);
	list_for_each(s, tmp, &all->list, node) {
		if (s->state != STORE_ATTACHED || !s->info.reservations || !s->fs->lockd ||
		    count == STORES_MAX)
			continue;
		s->refs++;
		asked[count++].s = s;
	}
	pthread_mutex_unlock(&all->mutex);
	for (unsigned int i = 0; i < count; i++)
		asked[i].reservation = ask_reservation(asked[i].s->fs->lockd);
	return count;
}

/* stores->mutex held: the state cannot change under us. */
static json_t *store_json(struct store *s, const struct asked *asked, unsigned int count)
{
	static const char *const states[] = { "attaching", "attached", "detaching" };
	json_t *o = json_object();

	put_text(o, "device", s->device);
	put_text(o, "state", states[s->state]);
	if (s->state != STORE_ATTACHED)
		return o;
	put_text(o, "label", s->fs->super.label);
	put_uuid(o, "uuid", s->fs->super.volume_id);
	put_text(o, "mode", s->fs->rescue ? "rescue" : s->fs->read_only ? "read-only" : "read-write");
	put_int(o, "size", super_size(&s->fs->super));
	put_bool(o, "o_direct", s->info.direct);
	put_bool(o, "lost", fs_is_lost(s->fs));
	json_object_set_new(o, "mounts", mounts_json(s));
	if (s->fs->lockd)
		put_lockd(o, s->fs->lockd);
	if (s->fs->lockd && !s->fs->rescue)
		put_scrub(o, s);
	for (unsigned int i = 0; i < count; i++)
		if (asked[i].s == s && asked[i].reservation)
			json_object_set(o, "reservation", asked[i].reservation);
	return o;
}

static json_t *status(struct ctl *c)
{
	struct stores *all = c->stores;
	struct store *s, *tmp;
	struct asked asked[STORES_MAX];
	unsigned int count = ask_stores(all, asked);
	json_t *o = json_object(), *list = json_array();

	put_text(o, "version", LUNFS_VERSION);
	put_text(o, "host_name", c->hello->host_name);
	put_uuid(o, "host_id", c->hello->host_id);
	put_int(o, "pid", (uint64_t)c->hello->parent);
	put_int(o, "worker_pid", (uint64_t)getpid());
	put_text(o, "watchdog", !c->hello->has_guard ? "none" : c->hello->guard_device[0] ?
		 c->hello->guard_device : "guard");
	pthread_mutex_lock(&all->mutex);
	list_for_each(s, tmp, &all->list, node)
		json_array_append_new(list, store_json(s, asked, count));
	pthread_mutex_unlock(&all->mutex);
	for (unsigned int i = 0; i < count; i++) {
		json_decref(asked[i].reservation);
		store_put(asked[i].s);
	}
	json_object_set_new(o, "datastores", list);
	return o;
}

static int no_lockd(const struct store *s, char *why, size_t why_size)
{
	snprintf(why, why_size, "%.100s: attached for rescue: it takes no part in locking and watches "
		 "no hosts; attach it for that, with -o ro if nothing is to be written", s->fs->label);
	return -ENOTSUP;
}

static int hosts(struct store *s, json_t **out, char *why, size_t why_size)
{
	struct lockd_peer *peers;
	uint32_t count;

	if (!s->fs->lockd)
		return no_lockd(s, why, why_size);
	peers = calloc(SLOT_COUNT_MAX, sizeof(*peers));
	if (!peers)
		return -ENOMEM;
	count = lockd_peers(s->fs->lockd, peers);
	*out = json_object();
	put_text(*out, "label", s->fs->super.label);
	put_int(*out, "slots", count);
	json_object_set_new(*out, "hosts", peers_json(peers, count));
	free(peers);
	return 0;
}

static int metrics(struct ctl *c, json_t **out)
{
	char *text = metrics_text(c->stores, c->disks);

	if (!text)
		return -ENOMEM;
	*out = json_object();
	put_text(*out, "text", text);
	free(text);
	return 0;
}

/* ---- attach, detach, mount ---- */

static int attach(struct ctl *c, const struct ctl_request *rq, int asker, json_t **out, char *why,
		  size_t why_size)
{
	struct store *s;
	unsigned int flags = rq->attach_flags | (rq->read_only ? FS_READ_ONLY : 0);
	int err = store_attach(c->stores, rq->device, flags, asker, false, &s, why, why_size);

	if (err)
		return err;
	*out = json_object();
	put_text(*out, "label", s->fs->super.label);
	put_uuid(*out, "uuid", s->fs->super.volume_id);
	store_put(s);
	return 0;
}

static int detach(struct ctl *c, const struct ctl_request *rq, json_t **out, char *why,
		  size_t why_size)
{
	struct store *s;
	int err = store_get(c->stores, rq->ds, true, &s, why, why_size);

	if (!err)
		err = store_detach(s, rq->force, why, why_size);
	if (!err)
		*out = json_object();
	return err;
}

/*
 * A mount read-only takes its slot and its locks like any other: the datastore stays
 * writable for other mounts.
 */
static int do_mount(struct ctl *c, const struct ctl_request *rq, int asker, json_t **out, char *why,
		    size_t why_size)
{
	struct store_mount_params p = {
		.source = rq->source ? rq->source : rq->device, .dir = rq->dir,
		.flags = rq->mount_flags, .read_only = rq->read_only, .asker = asker,
	};
	char dir[PATH_MAX];
	unsigned int flags = rq->attach_flags | (rq->read_only ? STORE_READ_ONLY_WILL_DO : 0);
	struct store *s;
	int err = store_attach(c->stores, rq->device, flags, asker, true, &s, why, why_size);

	if (err)
		return err;
	err = store_mount(s, &p, dir, why, why_size);
	if (!err) {
		*out = json_object();
		put_text(*out, "label", s->fs->super.label);
		put_text(*out, "dir", dir);
	}
	store_put(s);
	return err;
}

/* ---- files ---- */

static int resolve(struct store *s, const char *path, struct fs_attr *attr, char *why,
		   size_t why_size)
{
	int err = fs_resolve(s->fs, path, attr);

	if (err)
		snprintf(why, why_size, "%.100s:%.300s: %s", s->fs->label, path,
			 strerror(-err));
	return err;
}

static int lock_show_cmd(struct store *s, const struct ctl_request *rq, json_t **out, char *why,
			 size_t why_size)
{
	const struct super *sb = &s->fs->super;
	struct lock_holder h = { 0 };
	struct fs_attr attr;
	int err = resolve(s, rq->path, &attr, why, why_size);

	if (err)
		return err;
	if (s->fs->lockd)
		err = lock_show(s->fs->lockd, inode_lock_addr(attr.id), &h);
	else
		err = lock_show_dev(s->fs->dev, sb->volume, sb->slots_addr, sb->slot_count,
				    inode_lock_addr(attr.id), &h);
	if (err)
		return err;
	*out = holder_json(&h);
	put_text(*out, "path", rq->path);
	return 0;
}

static int lock_break_cmd(struct store *s, const struct ctl_request *rq, json_t **out, char *why,
			  size_t why_size)
{
	struct lock_holder h = { 0 };
	struct fs_attr attr;
	int err;

	if (!s->fs->lockd)
		return no_lockd(s, why, why_size);
	err = resolve(s, rq->path, &attr, why, why_size);
	if (err)
		return err;
	err = lock_break(s->fs->lockd, inode_lock_addr(attr.id), &h);
	if (err == -EBUSY)
		snprintf(why, why_size, "%.100s:%.200s: not broken: host %s lives (last heartbeat "
			 "%.1f s ago); stop it, or wait until it is silent for good",
			 s->fs->label, rq->path, h.host_name, (double)h.silent_ms / 1000);
	if (err == -EHOSTDOWN)
		snprintf(why, why_size, "%.100s:%.200s: not broken: the death of host %s cannot be "
			 "proven; end its process or its power, then try again",
			 s->fs->label, rq->path, h.host_name);
	if (!err)
		*out = holder_json(&h);
	return err;
}

static int df(struct store *s, json_t **out)
{
	struct statvfs st;
	int err = fs_statfs(s->fs, &st);

	if (err)
		return err;
	*out = json_object();
	put_text(*out, "label", s->fs->super.label);
	put_uuid(*out, "uuid", s->fs->super.volume_id);
	put_int(*out, "size", (uint64_t)st.f_blocks * st.f_frsize);
	put_int(*out, "used", (uint64_t)(st.f_blocks - st.f_bfree) * st.f_frsize);
	put_int(*out, "free", (uint64_t)st.f_bavail * st.f_frsize);
	put_int(*out, "files", st.f_files - st.f_ffree);
	put_int(*out, "files_free", st.f_ffree);
	return 0;
}

/* Names of one reply; the client asks again from where it ended. */
struct listing {
	json_t	*names;
	uint64_t next;
	uint64_t ids[CTL_LIST_MAX];
	unsigned int count;
};

static int add_name(void *arg, const struct dirent_info *d)
{
	struct listing *l = arg;
	json_t *o;

	/* A reply ends between two hashes, for it goes on from a hash. */
	if (l->count >= CTL_LIST_MAX / 2 && d->hash != l->next - 1)
		return 1;
	if (l->count == CTL_LIST_MAX)
		return 1;
	o = json_object();
	put_text(o, "name", d->name);
	put_text(o, "type", type_name((uint32_t)d->type << 12));
	json_array_append_new(l->names, o);
	l->ids[l->count++] = d->id;
	l->next = d->hash + 1;
	return 0;
}

static void add_attributes(struct store *s, struct listing *l)
{
	for (unsigned int i = 0; i < l->count; i++) {
		struct fs_attr attr;

		/* Gone since it was listed, or unreadable: its name alone says so. */
		if (!fs_getattr(s->fs, l->ids[i], &attr))
			put_attr(json_array_get(l->names, i), &attr);
	}
}

static int ls(struct store *s, const struct ctl_request *rq, json_t **out, char *why,
	      size_t why_size)
{
	struct listing *l;
	struct fs_attr attr;
	int err = resolve(s, rq->path, &attr, why, why_size);

	if (err)
		return err;
	if (!S_ISDIR(attr.mode)) {
		snprintf(why, why_size, "%.100s:%.300s: not a directory; \"lunfs info\" shows it",
			 s->fs->label, rq->path);
		return -ENOTDIR;
	}
	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	l->names = json_array();
	err = fs_readdir(s->fs, attr.id, rq->from, add_name, l);
	if (err >= 0) {
		add_attributes(s, l);
		*out = json_object();
		json_object_set(*out, "entries", l->names);
		if (l->count >= CTL_LIST_MAX / 2)
			put_int(*out, "next", l->next);
		err = 0;
	}
	json_decref(l->names);
	free(l);
	return err;
}

static int info(struct store *s, const struct ctl_request *rq, json_t **out, char *why,
		size_t why_size)
{
	struct blkdev_info now = s->info;
	struct super super;
	struct fs_attr attr;
	int err;

	if (!rq->path) {
		fs_super_copy(s->fs, &super);
		now.size = blkdev_size(s->fs->raw);
		*out = super_json(&super, &now);
		return 0;
	}
	err = resolve(s, rq->path, &attr, why, why_size);
	if (err)
		return err;
	*out = json_object();
	put_text(*out, "path", rq->path);
	put_attr(*out, &attr);
	put_int(*out, "inode_id", attr.id);
	return 0;
}

/* ---- which ---- */

static int run_on_store(struct ctl *c, struct store *s, const struct ctl_request *rq, json_t **out, char *why,
			size_t why_size)
{
	switch (rq->cmd) {
	case CTL_HOSTS:
		return hosts(s, out, why, why_size);
	case CTL_LOCK_SHOW:
		return lock_show_cmd(s, rq, out, why, why_size);
	case CTL_LOCK_BREAK:
		return lock_break_cmd(s, rq, out, why, why_size);
	case CTL_DF:
		return df(s, out);
	case CTL_LS:
		return ls(s, rq, out, why, why_size);
	case CTL_INFO:
		return info(s, rq, out, why, why_size);
	case CTL_DISK_ATTACH:
		return ctl_disk_attach(c->disks, s, rq, out, why, why_size);
	case CTL_DISK_DETACH:
		return ctl_disk_detach(c->disks, s, rq, out, why, why_size);
	case CTL_DISK_HANDOVER:
		return ctl_disk_handover(c->disks, s, rq, out, why, why_size);
	case CTL_DISK_LIST:
		ctl_disk_list(c->disks, s, out);
		return 0;
	case CTL_CHECK_START:
		return ctl_check_start(s, rq, out, why, why_size);
	case CTL_CHECK_STATUS:
		return ctl_check_status(s, rq, out, why, why_size);
	case CTL_VOLUME_GROW:
		return ctl_volume_grow(s, rq, out, why, why_size);
	case CTL_VOLUME_RECLAIM:
		return ctl_volume_reclaim(s, rq, out, why, why_size);
	default:
		return ctl_disk_run(c->disks, s, rq, out, why, why_size);
	}
}

static void say_what_failed(struct store *s, int err, char *why, size_t why_size)
{
	if (fs_is_lost(s->fs))
		snprintf(why, why_size, "%.100s: this host has lost its slot there; unmount what is "
			 "mounted of it and detach it (\"lunfs detach --force\" does both), then attach "
			 "it anew", s->fs->super.label);
	else
		snprintf(why, why_size, "%.100s: %s", s->fs->super.label, strerror(-err));
}

int ctl_run(struct ctl *c, const struct ctl_request *rq, struct ctl_conn *conn, json_t **out,
	    char *why, size_t why_size)
{
	struct store *s;
	int err;

	switch (rq->cmd) {
	case CTL_PING:
		*out = json_object();
		return 0;
	case CTL_STATUS:
		*out = status(c);
		return 0;
	case CTL_METRICS:
		return metrics(c, out);
	case CTL_ATTACH:
		return attach(c, rq, conn->fd, out, why, why_size);
	case CTL_DETACH:
		return detach(c, rq, out, why, why_size);
	case CTL_MOUNT:
		return do_mount(c, rq, conn->fd, out, why, why_size);
	case CTL_DISK_READ:
		return ctl_disk_read(conn, rq, out, why, why_size);
	default:
		if (rq->cmd == CTL_DISK_LIST && !rq->ds) {
			ctl_disk_list(c->disks, NULL, out);
			return 0;
		}
		err = store_get(c->stores, rq->ds, false, &s, why, why_size);
		if (err)
			return err;
		err = rq->cmd == CTL_DISK_HOLD ?
		      ctl_disk_hold(c, s, rq, conn, out, why, why_size) :
		      run_on_store(c, s, rq, out, why, why_size);
		if (err && !why[0])
			say_what_failed(s, err, why, why_size);
		store_put(s);
		return err;
	}
}
