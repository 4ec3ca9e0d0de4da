// SPDX-License-Identifier: Apache-2.0
/* What scripts do, noted for the model before and after. */
#include "fs/grow.h"
#include "fs/image.h"
#include "tests/fs/disk_rig.h"
#include "tests/sim/cut.h"

static const struct fs_cred cred = { .uid = 0, .gid = 0, .pid = 7, .comm = "script" };
static const char *const host_names[HOSTS_MAX] = { "alpha", "beta" };

/* ---- notes ---- */

static size_t op_begin(struct recording *r, enum what what, unsigned int host,
		       const char *path, const char *to)
{
	struct op *op;

	if (r->op_count == r->op_max) {
		r->op_max = r->op_max ? 2 * r->op_max : 64;
		r->ops = realloc(r->ops, r->op_max * sizeof(*r->ops));
		MUST(r->ops);
	}
	op = &r->ops[r->op_count];
	memset(op, 0, sizeof(*op));
	op->what = what;
	op->host = host;
	op->actor = r->hosts[host].actor;
	MUST(strlen(path) < sizeof(op->path) && strlen(to) < sizeof(op->to));
	strcpy(op->path, path);
	strcpy(op->to, to);
	op->end = NEVER;
	if (what == OP_SNAPSHOT || what == OP_CLONE || what == OP_REVERT)
		MUST(model_object(r, r->op_count, path, &op->src));
	if (what == OP_CREATE || what == OP_MKDIR || what == OP_SYMLINK || what == OP_SNAPSHOT ||
	    what == OP_CLONE || what == OP_REVERT)
		op->obj = (unsigned int)r->op_count + 1;
	else if (what != OP_SYNC && what != OP_MKFS && what != OP_ATTACH && what != OP_DETACH &&
		 what != OP_GROW)
		MUST(model_object(r, r->op_count, path, &op->obj));
	op->begin = record_moment(r, MOMENT_BEGIN, r->op_count);
	return r->op_count++;
}

static void op_end(struct recording *r, size_t i, int err, bool must)
{
	if (err && must) {
		fprintf(stderr, "script %s: operation %zu (%d, %s): %s\n", r->w->name, i,
			r->ops[i].what, r->ops[i].path, strerror(-err));
		abort();
	}
	r->ops[i].err = err;
	r->ops[i].end = record_moment(r, MOMENT_END, i);
}

/* ---- hosts ---- */

void do_sleep(struct recording *r, uint64_t ms)
{
	env_sleep_until(r->env, env_now_ns(r->env) + ms * NSEC_PER_MSEC);
}

void cut_from_here(struct recording *r)
{
	r->cut_from = r->moment_count;
}

void do_mkfs(struct recording *r)
{
	struct mkfs_params p = { .env = r->env, .label = "ds1",
				 .journal_size = r->w->journal_size,
				 .slot_count = r->w->slots, .size = r->w->volume };
	size_t i = op_begin(r, OP_MKFS, 0, "", "");
	struct super s;
	char why[400] = "";

	p.dev = record_open(r, r->env);
	if (mkfs(&p, &s, why, sizeof(why))) {
		fprintf(stderr, "script %s: mkfs: %s\n", r->w->name, why);
		abort();
	}
	blkdev_close(p.dev);
	op_end(r, i, 0, true);
}

void new_actor(struct recording *r, unsigned int host)
{
	r->hosts[host].actor = ++r->actors;
	MUST(r->actors < ACTORS_MAX);
}

void do_attach(struct recording *r, unsigned int host)
{
	struct member *m = &r->hosts[host];
	struct fs_attach_params p = { .pid = 100 + host, .pid_start = ++r->attaches };
	size_t i;
	char why[400] = "";
	int err;

	new_actor(r, host);
	i = op_begin(r, OP_ATTACH, host, "", "");
	if (!m->env || sim_host_crashed(m->env)) {
		m->env = sim_host(r->sim, host_names[host]);
		sim_host_log(m->env, NULL, NULL);
	}
	m->dev = record_open(r, m->env);
	m->hb_dev = record_open(r, m->env);
	p.env = m->env;
	p.dev = m->dev;
	p.hb_dev = m->hb_dev;
	memset(p.host_id, (int)host + 1, sizeof(p.host_id));
	env_random(r->env, p.boot_id, sizeof(p.boot_id));
	snprintf(p.host_name, sizeof(p.host_name), "%s", host_names[host]);
	p.flags = r->w->copied ? FS_RESIGNATURE : 0;
	err = fs_attach(&p, &m->fs, why, sizeof(why));
	if (err)
		fprintf(stderr, "%s\n", why);
	op_end(r, i, err, true);
}

void do_detach(struct recording *r, unsigned int host)
{
	struct member *m = &r->hosts[host];
	size_t i = op_begin(r, OP_DETACH, host, "", "");
	int err = fs_detach(m->fs);

	m->fs = NULL;
	blkdev_close(m->hb_dev);
	blkdev_close(m->dev);
	op_end(r, i, err, true);
}

void do_crash(struct recording *r, unsigned int host)
{
	sim_host_crash(r->hosts[host].env);
	record_crash(r, r->hosts[host].env);
	r->hosts[host].fs = NULL;
	r->hosts[host].held = NULL;
	r->hosts[host].disk = NULL;
}

void do_power_cut(struct recording *r)
{
	/* Whether a flush has been executed that nobody knows to have ended only the LUN knows. */
	while (r->flushes)
		env_sleep_until(r->env, env_now_ns(r->env) + 10000);
	for (unsigned int i = 0; i < HOSTS_MAX; i++)
		if (r->hosts[i].fs)
			do_crash(r, i);
	simdisk_power_cut(r->disk, SIMDISK_KEEP_NONE);
	record_cut(r);
}

struct env_thread *do_start(struct recording *r, unsigned int host, void (*fn)(void *r))
{
	struct env_thread *thread;

	MUST(!env_thread_start(r->hosts[host].env, "second", fn, r, &thread));
	return thread;
}

void do_join(struct recording *r, unsigned int host, struct env_thread *thread)
{
	env_thread_join(r->hosts[host].env, thread);
}

/* ---- names ---- */

/* The directory that @path lies in, and the last name of it. */
static uint64_t parent_of(struct fs *fs, const char *path, const char **name)
{
	char dir[PATH_SIZE];
	struct fs_attr attr;

	*name = strrchr(path, '/') + 1;
	snprintf(dir, sizeof(dir), "%.*s", (int)(*name - path), path);
	if (strlen(dir) > 1)
		dir[strlen(dir) - 1] = 0;
	MUST(!fs_resolve(fs, dir, &attr));
	return attr.id;
}

static uint64_t id_of(struct fs *fs, const char *path)
{
	struct fs_attr attr;

	MUST(!fs_resolve(fs, path, &attr));
	return attr.id;
}

static int make(struct recording *r, unsigned int host, enum what what, const char *path,
		uint32_t mode, bool must)
{
	size_t i = op_begin(r, what, host, path, "");
	struct fs *fs = r->hosts[host].fs;
	struct fs_attr attr;
	const char *name;
	uint64_t dir = parent_of(fs, path, &name);

	int err = fs_create(fs, dir, name, mode, 0, &cred, &attr);

	op_end(r, i, err, must || err != -ENOSPC);
	return err;
}

void do_create(struct recording *r, unsigned int host, const char *path)
{
	make(r, host, OP_CREATE, path, S_IFREG | 0644, true);
}

bool do_try_create(struct recording *r, unsigned int host, const char *path)
{
	return !make(r, host, OP_CREATE, path, S_IFREG | 0644, false);
}

void do_mkdir(struct recording *r, unsigned int host, const char *path)
{
	make(r, host, OP_MKDIR, path, S_IFDIR | 0755, true);
}

void do_symlink(struct recording *r, unsigned int host, const char *path, const char *target)
{
	size_t i = op_begin(r, OP_SYMLINK, host, path, target);
	struct fs *fs = r->hosts[host].fs;
	struct fs_attr attr;
	const char *name;
	uint64_t dir = parent_of(fs, path, &name);

	op_end(r, i, fs_symlink(fs, dir, name, target, &cred, &attr), true);
}

void do_link(struct recording *r, unsigned int host, const char *path, const char *to)
{
	size_t i = op_begin(r, OP_LINK, host, path, to);
	struct fs *fs = r->hosts[host].fs;
	struct fs_attr attr;
	const char *name;
	uint64_t id = id_of(fs, path), dir = parent_of(fs, to, &name);

	op_end(r, i, fs_link(fs, id, dir, name, &attr), true);
}

void do_unlink(struct recording *r, unsigned int host, const char *path)
{
	size_t i = op_begin(r, OP_UNLINK, host, path, "");
	struct fs *fs = r->hosts[host].fs;
	const char *name;
	uint64_t dir = parent_of(fs, path, &name);

	op_end(r, i, fs_unlink(fs, dir, name), true);
}

void do_rmdir(struct recording *r, unsigned int host, const char *path)
{
	size_t i = op_begin(r, OP_RMDIR, host, path, "");
	struct fs *fs = r->hosts[host].fs;
	const char *name;
	uint64_t dir = parent_of(fs, path, &name);

	op_end(r, i, fs_rmdir(fs, dir, name), true);
}

void do_rename(struct recording *r, unsigned int host, const char *path, const char *to,
	       unsigned int flags)
{
	size_t i = op_begin(r, OP_RENAME, host, path, to);
	struct fs *fs = r->hosts[host].fs;
	const char *name, *new_name;
	uint64_t dir = parent_of(fs, path, &name), new_dir = parent_of(fs, to, &new_name);

	r->ops[i].flags = flags;
	op_end(r, i, fs_rename(fs, dir, name, new_dir, new_name, flags), true);
}

/* ---- contents ---- */

static struct fs_file *open_file(struct fs *fs, const char *path, unsigned int flags)
{
	struct lock_holder holder;
	struct fs_file *f;

	MUST(!fs_open(fs, id_of(fs, path), flags, &cred, &f, &holder));
	return f;
}

void do_hold(struct recording *r, unsigned int host, const char *path)
{
	MUST(!r->hosts[host].held);
	r->hosts[host].held = open_file(r->hosts[host].fs, path, FS_OPEN_WRITE);
}

void do_drop(struct recording *r, unsigned int host)
{
	fs_close(r->hosts[host].fs, r->hosts[host].held);
	r->hosts[host].held = NULL;
}

uint64_t do_write(struct recording *r, unsigned int host, const char *path, uint64_t off,
		  uint64_t len)
{
	size_t i = op_begin(r, OP_WRITE, host, path, ""), done = 0;
	struct fs *fs = r->hosts[host].fs;
	uint8_t *data = blkdev_alloc(len);
	struct fs_file *f;
	int err;

	MUST(data);
	r->ops[i].off = off;
	r->ops[i].len = len;
	pattern(i, off, data, len);
	f = open_file(fs, path, FS_OPEN_WRITE);
	err = fs_write(fs, f, off, data, len, false, &done);
	MUST(!err || err == -ENOSPC);
	r->ops[i].len = err ? 0 : done;
	op_end(r, i, err, false);
	fs_close(fs, f);
	free(data);
	return err ? 0 : done;
}

void do_truncate(struct recording *r, unsigned int host, const char *path, uint64_t size)
{
	size_t i = op_begin(r, OP_TRUNCATE, host, path, "");
	struct fs *fs = r->hosts[host].fs;
	struct fs_attr attr = { .size = size };

	r->ops[i].len = size;
	op_end(r, i, fs_setattr(fs, id_of(fs, path), FS_SET_SIZE, &attr), true);
}

static int fallocate_file(struct recording *r, unsigned int host, enum what what,
			  const char *path, unsigned int flags, uint64_t off, uint64_t len)
{
	size_t i = op_begin(r, what, host, path, "");
	struct fs *fs = r->hosts[host].fs;
	struct fs_file *f = open_file(fs, path, FS_OPEN_WRITE);
	int err;

	r->ops[i].off = off;
	r->ops[i].len = len;
	r->ops[i].flags = flags;
	err = fs_fallocate(fs, f, flags, off, len);
	op_end(r, i, err, what != OP_ALLOCATE);
	fs_close(fs, f);
	return err;
}

void do_punch(struct recording *r, unsigned int host, const char *path, uint64_t off,
	      uint64_t len)
{
	fallocate_file(r, host, OP_PUNCH, path, FILE_PUNCH | FILE_KEEP_SIZE, off, len);
}

void do_zero(struct recording *r, unsigned int host, const char *path, uint64_t off,
	     uint64_t len)
{
	fallocate_file(r, host, OP_ZERO, path, FILE_ZERO, off, len);
}

int do_allocate(struct recording *r, unsigned int host, const char *path, unsigned int flags,
		uint64_t off, uint64_t len)
{
	return fallocate_file(r, host, OP_ALLOCATE, path, flags, off, len);
}

/* ---- images ---- */

void do_snapshot(struct recording *r, unsigned int host, const char *path, const char *to)
{
	size_t i = op_begin(r, OP_SNAPSHOT, host, path, to);
	struct fs *fs = r->hosts[host].fs;
	const char *name, *snap_name;
	struct fs_attr attr;
	uint64_t dir = parent_of(fs, path, &name);

	MUST(parent_of(fs, to, &snap_name) == dir);
	op_end(r, i, fs_snapshot(fs, dir, name, snap_name, NULL, &attr), true);
}

static void clone(struct recording *r, unsigned int host, enum what what, const char *path,
		  const char *to)
{
	size_t i = op_begin(r, what, host, path, to);
	struct fs *fs = r->hosts[host].fs;
	struct fs_attr attr;
	const char *name;
	uint64_t base = id_of(fs, path), dir = parent_of(fs, to, &name);

	op_end(r, i, fs_clone(fs, base, dir, name, what == OP_REVERT, &cred, &attr), true);
}

void do_clone(struct recording *r, unsigned int host, const char *path, const char *to)
{
	clone(r, host, OP_CLONE, path, to);
}

void do_revert(struct recording *r, unsigned int host, const char *path, const char *to)
{
	clone(r, host, OP_REVERT, path, to);
}

void do_merge(struct recording *r, unsigned int host, const char *path, unsigned int steps)
{
	struct fs *fs = r->hosts[host].fs;
	struct fs_file *f = open_file(fs, path, FS_OPEN_WRITE);
	size_t i = op_begin(r, OP_MERGE, host, path, "");
	struct merge m = { 0 };
	int err = 1;

	while (steps-- && err > 0)
		err = fs_merge_step(fs, f, &m);
	op_end(r, i, err > 0 ? 0 : err, true);
	fs_close(fs, f);
}

/* ---- attributes ---- */

void do_setxattr(struct recording *r, unsigned int host, const char *path, const char *name,
		 uint64_t len)
{
	size_t i = op_begin(r, OP_SETXATTR, host, path, name);
	struct fs *fs = r->hosts[host].fs;
	uint8_t value[4096];

	MUST(len <= sizeof(value));
	r->ops[i].len = len;
	pattern(i, 0, value, len);
	op_end(r, i, xattr_set(fs, id_of(fs, path), name, value, len, 0), true);
}

void do_mark(struct recording *r, unsigned int host, const char *path, bool multi)
{
	size_t i = op_begin(r, multi ? OP_SETXATTR : OP_REMOVEXATTR, host, path, XATTR_MULTI);
	struct fs *fs = r->hosts[host].fs;
	uint64_t id = id_of(fs, path);

	r->ops[i].len = 1;
	op_end(r, i, multi ? xattr_set(fs, id, XATTR_MULTI, "1", 1, 0) :
	       xattr_remove(fs, id, XATTR_MULTI), true);
}

void do_removexattr(struct recording *r, unsigned int host, const char *path,
		    const char *name)
{
	size_t i = op_begin(r, OP_REMOVEXATTR, host, path, name);
	struct fs *fs = r->hosts[host].fs;

	op_end(r, i, xattr_remove(fs, id_of(fs, path), name), true);
}

void do_chmod(struct recording *r, unsigned int host, const char *path, uint32_t mode)
{
	size_t i = op_begin(r, OP_CHMOD, host, path, "");
	struct fs *fs = r->hosts[host].fs;
	struct fs_attr attr = { .mode = mode };

	r->ops[i].flags = mode;
	op_end(r, i, fs_setattr(fs, id_of(fs, path), FS_SET_MODE, &attr), true);
}

/* ---- durability ---- */

void do_fsync(struct recording *r, unsigned int host, const char *path, bool data_only)
{
	struct fs *fs = r->hosts[host].fs;
	struct fs_file *f = open_file(fs, path, FS_OPEN_WRITE);
	size_t i = op_begin(r, OP_FSYNC, host, path, "");

	r->ops[i].flags = data_only;
	op_end(r, i, fs_fsync(fs, f, data_only), true);
	fs_close(fs, f);
}

void do_sync(struct recording *r, unsigned int host)
{
	size_t i = op_begin(r, OP_SYNC, host, "", "");

	op_end(r, i, fs_sync(r->hosts[host].fs), true);
}

/* ---- virtual disks ---- */

void do_disk_open(struct recording *r, unsigned int host, const char *path)
{
	struct member *m = &r->hosts[host];

	m->disk = calloc(1, sizeof(*m->disk));
	MUST(m->disk);
	MUST(!disk_rig_open(m->disk, m->env, m->fs, id_of(m->fs, path)));
}

/* It is a flush, too, but nobody relies on that. */
void do_disk_close(struct recording *r, unsigned int host)
{
	struct member *m = &r->hosts[host];

	MUST(!disk_rig_close(m->disk));
	free(m->disk);
	m->disk = NULL;
}

void do_disk_write(struct recording *r, unsigned int host, const char *path, uint64_t off,
		   uint64_t len, unsigned int flags)
{
	size_t i = op_begin(r, OP_WRITE, host, path, "");
	struct blkdev *dev = r->hosts[host].disk->dev;
	uint8_t *data = blkdev_alloc(len);

	MUST(data);
	r->ops[i].off = off;
	r->ops[i].len = len;
	pattern(i, off, data, len);
	MUST(!blkdev_rw(dev, BLK_WRITE, flags, off, data, len));
	op_end(r, i, 0, true);
	/* Scripts flush what came before: then this is as good as a flush that covers it. */
	if (flags & BLK_FUA) {
		i = op_begin(r, OP_FSYNC, host, path, "");
		r->ops[i].flags = true;
		op_end(r, i, 0, true);
	}
	free(data);
}

void do_disk_flush(struct recording *r, unsigned int host, const char *path)
{
	size_t i = op_begin(r, OP_FSYNC, host, path, "");

	r->ops[i].flags = true;
	op_end(r, i, blkdev_flush(r->hosts[host].disk->dev), true);
}

static void disk_range(struct recording *r, unsigned int host, const char *path, enum blk_op op,
		       uint64_t off, uint64_t len)
{
	size_t i = op_begin(r, OP_PUNCH, host, path, "");
	struct blkdev *dev = r->hosts[host].disk->dev;

	r->ops[i].off = off;
	r->ops[i].len = len;
	r->ops[i].flags = FILE_PUNCH | FILE_KEEP_SIZE;
	op_end(r, i, op == BLK_DISCARD ? blkdev_discard(dev, off, len) :
		     blkdev_zero(dev, off, len), true);
}

void do_disk_discard(struct recording *r, unsigned int host, const char *path, uint64_t off,
		     uint64_t len)
{
	disk_range(r, host, path, BLK_DISCARD, off, len);
}

void do_disk_zero(struct recording *r, unsigned int host, const char *path, uint64_t off,
		  uint64_t len)
{
	disk_range(r, host, path, BLK_ZERO, off, len);
}

void do_grow(struct recording *r, unsigned int host, uint64_t size)
{
	size_t i = op_begin(r, OP_GROW, host, "", "");
	uint64_t old = 0, now = 0;
	char why[400] = "";
	int err = fs_grow(r->hosts[host].fs, size, &old, &now, why, sizeof(why));

	r->ops[i].off = old;
	r->ops[i].len = now;
	op_end(r, i, err, true);
}
