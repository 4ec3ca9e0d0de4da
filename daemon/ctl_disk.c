/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtual disks by the control socket: made, grown, snapshotted, cloned, merged.  What takes
 * long is done a piece a request, so that the client can show how far it is, and give up.
 */
#include "daemon/ctl_disk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "daemon/ctl_json.h"
#include "daemon/merger.h"
#include "fs/image.h"

#define PIECE_NS	(300 * NSEC_PER_MSEC)	/* of work in one request */
#define PIECE_BYTES	(64 * MIB)
#define DISK_SIZE_MIN	(1 * MIB)
#define SNAPSHOT_NAME_MAX 64u
#define BRANCHES_MAX	16u	/* shown of one image */

static const struct fs_cred ctl_cred = { .comm = "lunfs disk" };

/* ---- errors ---- */

static int say(struct store *s, const char *path, int err, char *why, size_t why_size)
{
	static const struct { int err; const char *text; } texts[] = {
		{ -EBUSY, "in use: \"lunfs lock show\" says by whom; close it there first" },
		{ -EPERM, "a snapshot, a file of several writers, or one of several names" },
		{ -ELOOP, "it stands on as many images as can be: delete snapshots first" },
		{ -EEXIST, "exists already: choose another name" },
		{ -EISDIR, "a directory: a virtual disk is a file" },
		{ -EINVAL, "no virtual disk: that is a file, of at least 1 MiB and whole sectors" },
		{ -ENOSPC, "the datastore is full: delete something, or grow it" },
	};
	const char *text = strerror(-err);

	if (why[0])
		return err;
	for (unsigned int i = 0; i < ARRAY_SIZE(texts); i++)
		if (texts[i].err == err)
			text = texts[i].text;
	snprintf(why, why_size, "%.100s:%.300s: %s", s->fs->label, path, text);
	return err;
}

/* ---- names ---- */

/* "/vm1/root.disk" as its directory's id and its last name, which points into @path. */
static int split(struct store *s, const char *path, uint64_t *dir, const char **name)
{
	const char *slash = strrchr(path, '/');
	char parent[PATH_MAX];
	struct fs_attr attr;
	int err;

	*name = slash + 1;
	if (!**name)
		return -EINVAL;
	snprintf(parent, sizeof(parent), "%.*s", slash == path ? 1 : (int)(slash - path), path);
	err = fs_resolve(s->fs, parent, &attr);
	if (!err)
		*dir = attr.id;
	return err;
}

/* The file that a snapshot @snap of @name is: name@snap. */
static int snapshot_name(const char *name, const char *snap, char *buf, size_t size, char *why,
			 size_t why_size)
{
	if (strlen(snap) > SNAPSHOT_NAME_MAX || strpbrk(snap, "/@") ||
	    strlen(name) + strlen(snap) + 2 > size)
		return text_refuse(-EINVAL, why, why_size, "\"%.80s\" cannot name a snapshot: at "
				   "most %u bytes, without / and @", snap, SNAPSHOT_NAME_MAX);
	strcpy(stpcpy(stpcpy(buf, name), "@"), snap);
	return 0;
}

static int open_disk(struct store *s, const char *path, unsigned int flags, struct fs_file **f,
		     struct fs_attr *attr)
{
	int err = fs_resolve(s->fs, path, attr);

	return err ? err : fs_open(s->fs, attr->id, flags, &ctl_cred, f, NULL);
}

/* ---- create, allocate, grow ---- */

static int check_size(struct store *s, uint64_t size, char *why, size_t why_size)
{
	if (size >= DISK_SIZE_MIN && size % s->fs->super.sector == 0)
		return 0;
	return text_refuse(-EINVAL, why, why_size, "a disk has at least 1 MiB and whole sectors "
			   "of %u bytes", s->fs->super.sector);
}

static int disk_create(struct store *s, const struct ctl_request *rq, json_t **out, char *why,
		       size_t why_size)
{
	struct fs_attr attr;
	const char *name;
	uint64_t dir;
	int err = check_size(s, rq->size, why, why_size);

	if (!err)
		err = split(s, rq->path, &dir, &name);
	if (!err)
		err = fs_create(s->fs, dir, name, S_IFREG | 0600, 0, &ctl_cred, &attr);
	if (err)
		return err;
	attr.size = rq->size;
	err = fs_setattr(s->fs, attr.id, FS_SET_SIZE, &attr);
	if (!err)
		err = fs_sync(s->fs);
	if (err) {
		fs_unlink(s->fs, dir, name);
		return err;
	}
	*out = json_object();
	put_attr(*out, &attr);
	return 0;
}

/* Space for a piece of the disk from rq->from on; none of it is written. */
static int disk_allocate(struct store *s, const struct ctl_request *rq, json_t **out)
{
	uint64_t end = env_now_ns(s->fs->env) + PIECE_NS, at = rq->from;
	struct fs_attr attr;
	struct fs_file *f;
	int err = open_disk(s, rq->path, FS_OPEN_WRITE, &f, &attr);

	if (err)
		return err;
	while (!err && at < attr.size && env_now_ns(s->fs->env) < end) {
		uint64_t len = attr.size - at < PIECE_BYTES ? attr.size - at : PIECE_BYTES;

		err = fs_fallocate(s->fs, f, FILE_KEEP_SIZE, at, len);
		at += len;
	}
	if (!err && at >= attr.size)
		err = fs_fsync(s->fs, f, false);
	fs_close(s->fs, f);
	if (err)
		return err;
	*out = json_object();
	put_int(*out, "size", attr.size);
	put_int(*out, "next", at);
	put_bool(*out, "more", at < attr.size);
	return 0;
}

/* One that a guest has open is grown under it, and the guest is told. */
static int grow_inode(struct disks *disks, struct store *s, uint64_t size, struct fs_attr *attr)
{
	struct attachment *a = disks_find_id(disks, s, attr->id);
	int err = a ? disk_grow(a->disk, size) : -ENOMEDIUM;

	if (a && !err)
		disks_wait_told(a);
	if (a)
		disks_put(a);
	if (!err)
		return fs_getattr(s->fs, attr->id, attr);
	if (err != -ENOMEDIUM)
		return err;
	attr->size = size;
	return fs_setattr(s->fs, attr->id, FS_SET_SIZE, attr);
}

static int do_grow(struct disks *disks, struct store *s, const struct ctl_request *rq, json_t **out, char *why,
		     size_t why_size)
{
	char old[24], new[24];
	struct fs_attr attr;
	int err = check_size(s, rq->size, why, why_size);

	if (!err)
		err = fs_resolve(s->fs, rq->path, &attr);
	if (!err && rq->size < attr.size)
		return text_refuse(-EINVAL, why, why_size, "%.300s has %s; a disk is not made "
				   "smaller, to %s", rq->path,
				   text_format_size(attr.size, old, sizeof(old)),
				   text_format_size(rq->size, new, sizeof(new)));
	if (!err)
		err = grow_inode(disks, s, rq->size, &attr);
	if (!err)
		err = fs_sync(s->fs);
	if (err)
		return err;
	*out = json_object();
	put_attr(*out, &attr);
	return 0;
}

/* ---- what it stands on ---- */

/* Images that stand on one, but for the one through which we came to it. */
struct branches {
	struct store *s;
	json_t	*paths;
	uint64_t from;
};

static int add_branch(void *arg, uint64_t child)
{
	struct branches *b = arg;
	char path[PATH_MAX];

	if (child != b->from)
		json_array_append_new(b->paths, json_string(fs_path(b->s->fs, child, path,
								    sizeof(path))));
	return json_array_size(b->paths) >= BRANCHES_MAX;
}

static void put_branches(struct store *s, json_t *o, const struct image_info *i, uint64_t from)
{
	struct branches b = { .s = s, .paths = json_array(), .from = from };

	/* For people: what cannot be read now is not shown, and the number of children is. */
	if (i->children > (from ? 1 : 0))
		fs_image_children(s->fs, i->id, add_branch, &b);
	json_object_set_new(o, "branches", b.paths);
}

/* @merge: of the disk. */
static void put_merged(json_t *o, const struct image_info *i, const struct merge *merge)
{
	uint64_t bytes = merge->unit * UNIT_SIZE;

	if (i->merging && merge->image == i->id)
		put_int(o, "merged", bytes < i->size ? bytes : i->size);
}

static void put_image(struct store *s, json_t *o, const struct image_info *i)
{
	char path[PATH_MAX];

	if (i->nlink)
		put_text(o, "path", fs_path(s->fs, i->id, path, sizeof(path)));
	put_int(o, "size", i->size);
	put_int(o, "allocated", i->blocks << BLOCK_SHIFT);
	put_int(o, "created", (uint64_t)i->btime_ns / NSEC_PER_SEC);
	put_int(o, "children", i->children);
	put_bool(o, "snapshot", i->frozen);
	put_bool(o, "deleted", !i->nlink);
	put_bool(o, "merging", i->merging);
}

static void put_attachment(struct disks *disks, struct store *s, uint64_t id, json_t *o)
{
	struct attachment *a = disks_find_id(disks, s, id);

	if (!a)
		return;
	json_object_set_new(o, "attached", ctl_attachment(a));
	disks_put(a);
}

static int disk_info(struct disks *disks, struct store *s, const struct ctl_request *rq, json_t **out)
{
	json_t *below = json_array(), *o;
	struct image_info i = { 0 };
	uint64_t own = 0, total = 0, id, from = 0;
	struct merge merge = { 0 };
	struct fs_attr attr;
	int err = fs_resolve(s->fs, rq->path, &attr);

	if (!err && !S_ISREG(attr.mode))
		err = -EINVAL;
	*out = NULL;
	if (!err)
		merger_place(s, attr.id, &merge);
	for (id = attr.id; !err && id; from = id, id = i.parent) {
		err = fs_image_info(s->fs, id, &i);
		if (err)
			break;
		total += i.blocks << BLOCK_SHIFT;
		o = json_object();
		put_image(s, o, &i);
		put_branches(s, o, &i, from);
		put_merged(o, &i, &merge);
		if (id == attr.id) {
			own = total;
			*out = o;
		} else {
			json_array_append_new(below, o);
		}
	}
	if (err) {
		json_decref(*out);
		json_decref(below);
		*out = NULL;
		return err;
	}
	put_int(*out, "own", own);
	put_int(*out, "shared", total - own);
	put_int(*out, "total", total);
	json_object_set_new(*out, "stands_on", below);
	put_attachment(disks, s, attr.id, *out);
	return 0;
}

/* ---- snapshots and clones ---- */

/* The attachment of the disk that @path names now, referenced; NULL: it has none. */
static struct attachment *attachment_of(struct disks *disks, struct store *s, const char *path)
{
	struct fs_attr attr;

	return fs_resolve(s->fs, path, &attr) ? NULL : disks_find_id(disks, s, attr.id);
}

/* Under a guest its requests wait for a moment. */
static int do_snapshot(struct disks *disks, struct store *s, const struct ctl_request *rq,
		       json_t **out, char *why, size_t why_size)
{
	char snap[NAME_BYTES_MAX + 1];
	struct attachment *a;
	uint64_t dir, pause_ns = 0;
	struct fs_attr attr;
	const char *name;
	int err = split(s, rq->path, &dir, &name);

	if (!err)
		err = snapshot_name(name, rq->name, snap, sizeof(snap), why, why_size);
	if (err)
		return err;
	a = attachment_of(disks, s, rq->path);
	if (a) {
		err = disk_snapshot(a->disk, dir, name, snap, &attr, &pause_ns);
		disks_moved(a);
		disks_put(a);
	} else {
		err = fs_snapshot(s->fs, dir, name, snap, NULL, &attr);
	}
	if (err)
		return err;
	*out = json_object();
	json_object_set_new(*out, "pause_ms", json_real((double)pause_ns / NSEC_PER_MSEC));
	return 0;
}

/* The id of rq's snapshot; it has to be one. */
static int find_snapshot(struct store *s, const struct ctl_request *rq, uint64_t *dir,
			 char snap[NAME_BYTES_MAX + 1], uint64_t *id, char *why, size_t why_size)
{
	struct image_info info;
	struct fs_attr attr = { 0 };
	const char *name;
	int err = split(s, rq->path, dir, &name);

	if (!err)
		err = snapshot_name(name, rq->name, snap, NAME_BYTES_MAX + 1, why, why_size);
	if (!err)
		err = fs_lookup(s->fs, *dir, snap, &attr);
	if (!err)
		err = fs_image_info(s->fs, attr.id, &info);
	if (err == -ENOENT || (!err && !info.frozen))
		return text_refuse(-ENOENT, why, why_size, "%.100s:%.300s has no snapshot \"%.80s\"",
				   s->fs->label, rq->path, rq->name);
	if (!err)
		*id = attr.id;
	return err;
}

static int disk_snapshot_delete(struct disks *disks, struct store *s, const struct ctl_request *rq,
				json_t **out, char *why, size_t why_size)
{
	char snap[NAME_BYTES_MAX + 1];
	struct image_info info = { 0 };
	uint64_t dir, id;
	int err = find_snapshot(s, rq, &dir, snap, &id, why, why_size);

	if (!err)
		err = fs_image_info(s->fs, id, &info);
	if (!err)
		err = fs_unlink(s->fs, dir, snap);
	if (!err)
		err = fs_sync(s->fs);
	if (err)
		return err;
	/* At once, also if the client that asked goes away before it asks for the merge. */
	merger_kick(disks->merger);
	*out = json_object();
	put_int(*out, "children", info.children);
	return 0;
}

static int revert_inode(struct store *s, const struct ctl_request *rq, json_t **out, char *why,
			size_t why_size)
{
	char snap[NAME_BYTES_MAX + 1];
	struct fs_attr attr;
	const char *name;
	uint64_t dir, id;
	int err = find_snapshot(s, rq, &dir, snap, &id, why, why_size);

	if (!err)
		err = split(s, rq->path, &dir, &name);
	if (!err)
		err = fs_clone(s->fs, id, dir, name, true, NULL, &attr);
	if (!err)
		*out = json_object();
	return err;
}

/*
 * As of a machine that is powered off: it is attached anew, at the same socket and with the same
 * options, and whoever remembers the disk of before can tell (attachment.birth).
 */
static int revert_attached(struct disks *disks, struct store *s, const struct ctl_request *rq,
			   struct attachment *a, json_t **out, char *why, size_t why_size)
{
	struct disk_options options = a->options;
	char path[PATH_MAX], attach_why[512] = "";
	int err, e;

	strcpy(path, a->path);
	disks_put(a);
	err = disks_detach(disks, s, path, false, why, why_size);
	if (err)
		return err;
	err = revert_inode(s, rq, out, why, why_size);
	e = disks_attach(disks, s, path, &options, &a, attach_why, sizeof(attach_why));
	if (!e)
		disks_put(a);
	if (e && !err) {
		json_decref(*out);
		*out = NULL;
		err = text_refuse(e, why, why_size, "%.100s:%.300s is reverted, but not attached any "
				  "more: %.300s; attach it again", s->fs->label, path, attach_why);
	}
	return err;
}

static int disk_revert(struct disks *disks, struct store *s, const struct ctl_request *rq,
		       json_t **out, char *why, size_t why_size)
{
	char snap[NAME_BYTES_MAX + 1];
	struct attachment *a;
	uint64_t dir, id;
	int err = find_snapshot(s, rq, &dir, snap, &id, why, why_size);

	if (err)
		return err;
	a = attachment_of(disks, s, rq->path);
	if (!a)
		return revert_inode(s, rq, out, why, why_size);
	if (disks_is_idle(a))
		return revert_attached(disks, s, rq, a, out, why, why_size);
	disks_put(a);
	return text_refuse(-EBUSY, why, why_size, "%.100s:%.300s: a guest is using it, or may come back "
			   "to it, and would not know what happens to it; end that guest (or detach "
			   "the disk with --force), then revert", s->fs->label, rq->path);
}

static int disk_clone(struct store *s, const struct ctl_request *rq, json_t **out, char *why,
		      size_t why_size)
{
	struct fs_attr attr, made;
	const char *name;
	uint64_t dir;
	int err = fs_resolve(s->fs, rq->path, &attr);

	if (err)
		return say(s, rq->path, err, why, why_size);
	err = split(s, rq->to, &dir, &name);
	if (!err)
		err = fs_clone(s->fs, attr.id, dir, name, false, &ctl_cred, &made);
	if (err == -EINVAL)
		return text_refuse(err, why, why_size, "%.300s is no snapshot: make one of it "
				   "first, and clone that", rq->path);
	if (!err) {
		*out = json_object();
		put_attr(*out, &made);
	}
	return err;
}

/* A piece of what deleted snapshots below the disk have to move into the next image. */
static int disk_merge(struct disks *disks, struct store *s, const struct ctl_request *rq,
		      json_t **out)
{
	uint64_t end = env_now_ns(s->fs->env) + PIECE_NS;
	struct merge m = { 0 };
	struct fs_attr attr;
	int more = 1, err = fs_resolve(s->fs, rq->path, &attr);

	if (err)
		return err;
	while (more > 0 && env_now_ns(s->fs->env) < end)
		more = merger_step(disks, s, attr.id, true, &m);
	if (more < 0)
		return more;
	*out = json_object();
	put_bool(*out, "more", more);
	put_int(*out, "next", m.unit);
	put_int(*out, "moved", m.units_moved * UNIT_SIZE);
	put_int(*out, "copied", m.blocks_copied * BLOCK_SIZE);
	return 0;
}

/* ---- held while it is copied ---- */

int ctl_disk_hold(struct ctl *c, struct store *s, const struct ctl_request *rq,
		  struct ctl_conn *conn, json_t **out, char *why, size_t why_size)
{
	struct fs_attr attr;
	struct fs_file *f;
	bool ending;
	int err;

	if (conn->disk)
		return text_refuse(-EBUSY, why, why_size, "this connection holds a disk already");
	err = open_disk(s, rq->path, FS_OPEN_DENY_WRITE, &f, &attr);
	if (err == -EBUSY)
		text_refuse(err, why, why_size, "%.100s:%.300s: somebody has it open for writing: "
			    "copy a snapshot of it instead, or close it there", s->fs->label,
			    rq->path);
	if (err)
		return say(s, rq->path, err, why, why_size);
	pthread_mutex_lock(&c->mutex);
	ending = c->ending;
	if (!ending) {
		conn->store = s;
		conn->disk = f;
		list_add_tail(&c->holders, &conn->node);
	}
	pthread_mutex_unlock(&c->mutex);
	if (ending) {
		/* Nobody would end this connection any more. */
		fs_close(s->fs, f);
		return text_refuse(-ESHUTDOWN, why, why_size, "the daemon is shutting down");
	}
	pthread_mutex_lock(&s->all->mutex);
	s->refs++;
	pthread_mutex_unlock(&s->all->mutex);
	*out = json_object();
	put_attr(*out, &attr);
	return 0;
}

void ctl_disk_release(struct ctl *c, struct ctl_conn *conn)
{
	if (!conn->disk)
		return;
	pthread_mutex_lock(&c->mutex);
	list_del(&conn->node);
	pthread_mutex_unlock(&c->mutex);
	fs_close(conn->store->fs, conn->disk);
	conn->disk = NULL;
	store_put(conn->store);
}

/* A piece of the disk from unit rq->from on: blocks that hold zeros go back to the volume. */
static int disk_discard(struct store *s, const struct ctl_request *rq, json_t **out)
{
	uint64_t end = env_now_ns(s->fs->env) + PIECE_NS, unit = rq->from, dropped = 0;
	void *buf = blkdev_alloc(UNIT_SIZE);
	struct fs_attr attr;
	struct fs_file *f;
	int more = 1, err = buf ? 0 : -ENOMEM;

	/* Alone: whoever has the disk open may know where its blocks lie. */
	if (!err)
		err = open_disk(s, rq->path, FS_OPEN_WRITE | FS_OPEN_DENY_WRITE, &f, &attr);
	if (!err) {
		while (more > 0 && env_now_ns(s->fs->env) < end)
			more = fs_drop_zeros(s->fs, f, &unit, buf, &dropped);
		err = more < 0 ? more : !more ? fs_fsync(s->fs, f, false) : 0;
		fs_close(s->fs, f);
	}
	free(buf);
	if (err)
		return err;
	*out = json_object();
	put_bool(*out, "more", more);
	put_int(*out, "next", unit);
	put_int(*out, "size", attr.size);
	put_int(*out, "at", more && unit * UNIT_SIZE < attr.size ? unit * UNIT_SIZE : attr.size);
	put_int(*out, "freed", dropped * BLOCK_SIZE);
	return 0;
}

/* ---- which ---- */

int ctl_disk_run(struct disks *disks, struct store *s, const struct ctl_request *rq, json_t **out, char *why,
		 size_t why_size)
{
	int err = -ENOSYS;

	switch (rq->cmd) {
	case CTL_DISK_CREATE:
		err = disk_create(s, rq, out, why, why_size);
		break;
	case CTL_DISK_ALLOCATE:
		err = disk_allocate(s, rq, out);
		break;
	case CTL_DISK_GROW:
		err = do_grow(disks, s, rq, out, why, why_size);
		break;
	case CTL_DISK_INFO:
		err = disk_info(disks, s, rq, out);
		break;
	case CTL_DISK_SNAPSHOT:
		err = do_snapshot(disks, s, rq, out, why, why_size);
		break;
	case CTL_DISK_SNAPSHOT_DELETE:
		err = disk_snapshot_delete(disks, s, rq, out, why, why_size);
		break;
	case CTL_DISK_REVERT:
		err = disk_revert(disks, s, rq, out, why, why_size);
		break;
	case CTL_DISK_CLONE:
		err = disk_clone(s, rq, out, why, why_size);
		break;
	case CTL_DISK_DISCARD:
		err = disk_discard(s, rq, out);
		break;
	case CTL_DISK_MERGE:
		err = disk_merge(disks, s, rq, out);
		break;
	default:
		break;
	}
	return err && !fs_is_lost(s->fs) ? say(s, rq->to ? rq->to : rq->path, err, why, why_size) :
					   err;
}
