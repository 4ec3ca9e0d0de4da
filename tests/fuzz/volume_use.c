// SPDX-License-Identifier: Apache-2.0
/* Everything that one can do with a volume that somebody may have damaged. */
#include <dirent.h>
#include <errno.h>
#include <unistd.h>

#include "fs/check.h"
#include "fs/image.h"
#include "tests/fuzz/volume.h"

#define VISITS_MAX	60u	/* objects that a walk looks at … */
#define ALL_VISITS_MAX	400u	/* … and one that looks for files */
#define EMIT_MAX	40u	/* names of a directory that it takes */
#define DEPTH		6u

struct walk {
	struct fs *fs;
	unsigned int visits, visits_max;
	uint64_t visited[ALL_VISITS_MAX];
	bool change, images;
	const struct volume_run *run;
	const struct volume *look_for;	/* whose files it looks for, or NULL */
	bool found[FILES_MAX];
	void *buf;		/* 64 KiB */
	struct fs_cred cred;
};

struct names {
	unsigned int count;
	uint64_t next;
	struct dirent_info d[EMIT_MAX];
};

/* Whatever goes wrong is an error number, not anything else. */
static void sane(int err)
{
	FUZZ_CHECK(err <= 0 && err > -4096);
}

static int emit(void *arg, const struct dirent_info *d)
{
	struct names *n = arg;

	if (n->count == EMIT_MAX)
		return 1;
	FUZZ_CHECK(d->name_len && strlen(d->name) == d->name_len && !strchr(d->name, '/'));
	n->d[n->count++] = *d;
	n->next = d->hash + 1;
	return 0;
}

static void read_attributes(struct walk *w, uint64_t id)
{
	char names[4096], path[64];
	size_t len, left;
	const char *p = names;

	fs_path(w->fs, id, path, sizeof(path));
	if (xattr_list(w->fs, id, names, sizeof(names), &left))
		return;
	FUZZ_CHECK(left <= sizeof(names));
	for (; left; left -= strlen(p) + 1, p += strlen(p) + 1) {
		FUZZ_CHECK(strnlen(p, left) < left);
		sane(xattr_get(w->fs, id, p, w->buf, 65536, &len));
	}
}

static void change_file(struct walk *w, struct fs_file *f, uint64_t size)
{
	struct fs_attr a = { .size = size / 2, .mode = 0640, .mtime_ns = 1 };
	size_t done;

	memset(w->buf, 'y', 8192);
	sane(fs_write(w->fs, f, size - size % 3, w->buf, 5000, false, &done));
	sane(fs_write(w->fs, f, 4096, w->buf, 8192, false, &done));
	sane(fs_write(w->fs, f, 31 * GIB, w->buf, 100, false, &done));
	sane(fs_fallocate(w->fs, f, 0, size, 1 * MIB));
	sane(fs_fallocate(w->fs, f, FILE_PUNCH | FILE_KEEP_SIZE, 4096, size));
	sane(fs_fsync(w->fs, f, false));
	sane(fs_setattr(w->fs, f->id, FS_SET_SIZE | FS_SET_MODE | FS_SET_MTIME, &a));
}

static bool is_like_others(const struct walk *w, uint64_t id)
{
	const struct volume *v = w->run->v;

	for (unsigned int i = 0; i < v->file_count; i++)
		if (v->files[i].id == id)
			return w->run->like_others[i];
	return false;
}

static void find_file(struct walk *w, struct fs_file *f)
{
	uint32_t sum;

	if (volume_sum(w->fs, f, &sum)) {
		fprintf(stderr, "inode %llu cannot be read: %d\n",
			(unsigned long long)f->id, volume_sum(w->fs, f, &sum));
		FUZZ_CHECK(false);
	}
	for (unsigned int i = 0; i < w->look_for->file_count; i++)
		w->found[i] |= sum == w->look_for->files[i].sum;
}

static void use_file(struct walk *w, uint64_t id, uint64_t size)
{
	const uint64_t at[] = { 0, 60 * MIB, 70 * MIB, 30 * GIB, size > 4096 ? size - 4096 : 0 };
	struct lock_holder holder;
	struct fs_file *f;
	uint64_t found;
	size_t done;
	int err;

	err = fs_open(w->fs, id, w->change ? FS_OPEN_WRITE : 0, &w->cred, &f, &holder);
	sane(err);
	if (err)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(at); i++) {
		done = 0;
		sane(fs_read(w->fs, f, at[i], w->buf, 65536, &done));
		FUZZ_CHECK(done <= 65536);
		sane(fs_seek(w->fs, f, at[i], SEEK_DATA, &found));
		sane(fs_seek(w->fs, f, at[i], SEEK_HOLE, &found));
	}
	if (w->look_for)
		find_file(w, f);
	if (w->change && !is_like_others(w, id))
		change_file(w, f, size);
	sane(fs_close(w->fs, f));
}

static void change_names(struct walk *w, uint64_t dir, const struct names *n)
{
	struct fs_attr a;
	char long_name[256];

	memset(long_name, 'n', 255);
	long_name[255] = '\0';
	sane(fs_create(w->fs, dir, long_name, S_IFREG | 0644, 0, &w->cred, &a));
	sane(fs_create(w->fs, dir, "new-dir", S_IFDIR | 0755, 0, &w->cred, &a));
	sane(fs_symlink(w->fs, dir, "new-link", long_name, &w->cred, &a));
	sane(fs_rename(w->fs, dir, long_name, dir, "renamed", 0));
	if (n->count > 1) {
		sane(fs_rename(w->fs, dir, n->d[0].name, dir, "moved", 0));
		sane(fs_rename(w->fs, dir, n->d[1].name, dir, "renamed", RENAME_EXCHANGE));
	}
	for (unsigned int i = 2; i < n->count; i += 2) {
		sane(fs_link(w->fs, n->d[i].id, dir, "hard", &a));
		sane(xattr_set(w->fs, n->d[i].id, "user.new", w->buf, 100, 0));
		sane(fs_unlink(w->fs, dir, n->d[i].name));
		sane(fs_rmdir(w->fs, dir, n->d[i].name));
	}
}

/* Snapshots, clones, merges, and a disk, of the first few files. */
static void use_images(struct walk *w, uint64_t dir, const struct names *n)
{
	struct image_info info;
	struct fs_attr a;
	char name[24];

	for (unsigned int i = 0; i < n->count && i < 12; i++) {
		uint64_t id = n->d[i].id;

		if (n->d[i].type != DT_REG)
			continue;
		sane(fs_image_info(w->fs, id, &info));
		if (!w->change || i % 3)
			continue;
		snprintf(name, sizeof(name), "snap-%u", i);
		sane(fs_snapshot(w->fs, dir, n->d[i].name, name, NULL, &a));
		volume_use_disk(w->fs, dir, n->d[i].name);
		snprintf(name, sizeof(name), "clone-%u", i);
		sane(fs_clone(w->fs, id, dir, name, false, &w->cred, &a));
		sane(fs_clone(w->fs, id, dir, n->d[i].name, true, &w->cred, &a));
		snprintf(name, sizeof(name), "snap-%u", i);
		sane(fs_unlink(w->fs, dir, i % 2 ? name : n->d[i].name));
	}
}

static void visit(struct walk *w, uint64_t id, unsigned int depth);

static void use_directory(struct walk *w, uint64_t id, unsigned int depth)
{
	struct names *n = calloc(1, sizeof(*n));
	struct fs_attr a;
	unsigned int times = 0;

	FUZZ_CHECK(n);
	/* From the beginning, and from somewhere in the middle. */
	for (uint64_t from = 0; times < (w->look_for ? 20 : 3); times++) {
		n->count = 0;
		sane(fs_readdir(w->fs, id, from, emit, n));
		for (unsigned int i = 0; i < n->count; i++) {
			if (i < 3)
				sane(fs_lookup(w->fs, id, n->d[i].name, &a));
			if (depth < DEPTH)
				visit(w, n->d[i].id, depth + 1);
		}
		if (w->images && times == 0)
			use_images(w, id, n);
		if (w->change && times == 0)
			change_names(w, id, n);
		from = times && !w->look_for ? 1ULL << 62 : n->next;
	}
	free(n);
}

/* The big directory's names are of one file: once is enough. */
static bool is_news(struct walk *w, uint64_t id)
{
	for (unsigned int i = 0; i < w->visits; i++)
		if (w->visited[i] == id)
			return false;
	if (w->visits == w->visits_max)
		return false;
	w->visited[w->visits++] = id;
	return true;
}

static void visit(struct walk *w, uint64_t id, unsigned int depth)
{
	struct fs_attr a;
	uint64_t parent;

	if (!is_news(w, id) || fs_getattr(w->fs, id, &a))
		return;
	read_attributes(w, id);
	sane(fs_parent(w->fs, id, &parent));
	if (S_ISDIR(a.mode))
		use_directory(w, id, depth);
	else if (S_ISREG(a.mode))
		use_file(w, id, a.size);
	else if (S_ISLNK(a.mode))
		sane(fs_readlink(w->fs, id, w->buf, 65536));
}

static void use_attached(struct volume_run *run, struct fs *fs, bool change)
{
	struct walk *w = calloc(1, sizeof(*w));
	struct statvfs st;
	struct fs_attr a;

	FUZZ_CHECK(w);
	*w = (struct walk){ .fs = fs, .run = run, .change = change, .buf = blkdev_alloc(65536),
			    .images = run->uses & USE_IMAGES, .visits_max = VISITS_MAX,
			    .cred = { .pid = 1 } };
	FUZZ_CHECK(w->buf);
	visit(w, fs_root(fs), 0);
	sane(fs_resolve(fs, "/d/sub/deep", &a));
	sane(fs_statfs(fs, &st));
	sane(fs_sync(fs));
	/* The reaper and the writeback have their turn. */
	env_sleep_until(fs->env, env_now_ns(fs->env) + 2 * NSEC_PER_SEC);
	sane(fs_statfs(fs, &st));
	free(w->buf);
	free(w);
}

/* After a repair: files that the damage had nothing to do with are all there. */
static void find_intact(struct volume_run *run, struct fs *fs)
{
	struct walk *w = calloc(1, sizeof(*w));

	FUZZ_CHECK(w);
	*w = (struct walk){ .fs = fs, .run = run, .buf = blkdev_alloc(65536), .look_for = run->v,
			    .visits_max = ALL_VISITS_MAX, .cred = { .pid = 1 } };
	FUZZ_CHECK(w->buf);
	visit(w, fs_root(fs), 0);
	for (unsigned int i = 0; i < run->v->file_count; i++) {
		bool lost = run->intact[i] && run->v->files[i].sum && !w->found[i];

		if (lost)
			fprintf(stderr, "the contents of \"%s\" are gone\n", run->v->files[i].name);
		FUZZ_CHECK(!lost);
	}
	free(w->buf);
	free(w);
}

static int kill_holder(void *arg, const struct slot *victim)
{
	(void)arg;
	(void)victim;
	return 0;
}

static int attach(struct volume_run *run, unsigned int use, struct fs_attach_params *p,
		  struct fs **fs)
{
	char why[400];
	int err;

	*p = (struct fs_attach_params){ .env = run->env, .pid = 2, .pid_start = 2,
					.host_name = "fuzz", .own_slot_is_dead = true,
					.kill = kill_holder };
	p->dev = simdisk_open(run->disk, run->env);
	p->hb_dev = simdisk_open(run->disk, run->env);
	memcpy(p->host_id, volume_host_id, 16);
	memcpy(p->boot_id, volume_boot_id, 16);
	p->flags = use == USE_RESCUE ? FS_RESCUE : use == USE_READ ? FS_READ_ONLY : 0;
	if (use == USE_OTHER)
		p->host_id[0] = 'O';
	err = fs_attach(p, fs, why, sizeof(why));
	sane(err);
	FUZZ_CHECK(!err || why[0]);
	if (err && getenv("FUZZ_SHOW"))
		fprintf(stderr, "attach: %s\n", why);
	return err;
}

static void leave(struct fs_attach_params *p)
{
	blkdev_close(p->hb_dev);
	blkdev_close(p->dev);
}

static void attach_and_use(struct volume_run *run, unsigned int use)
{
	struct fs_attach_params p;
	struct fs *fs;

	if (!attach(run, use, &p, &fs)) {
		if (use == USE_OTHER)	/* until the dead one is recovered, if it can be */
			env_sleep_until(run->env, env_now_ns(run->env) + 10 * NSEC_PER_SEC);
		use_attached(run, fs, use == USE_CHANGE || use == USE_OTHER);
		sane(fs_detach(fs));
	}
	leave(&p);
}

static void finding(void *arg, const struct check_finding *f)
{
	(void)arg;
	if (getenv("FUZZ_SHOW"))
		fprintf(stderr, "%s%s at 0x%llx: %s\n", f->repaired ? "repaired: " : "",
			check_code_info(f->code)->name, (unsigned long long)f->addr, f->text);
	FUZZ_CHECK(f->text && f->text[0] && check_code_info(f->code));
}

static int look_at_image(void *arg, uint64_t addr, const void *block)
{
	uint64_t *sum = arg;

	(void)addr;	/* where images may lie, replay and check judge */
	*sum += ((const uint8_t *)block)[BLOCK_SIZE - 1];
	return 0;
}

static void check_and_replay(struct volume_run *run)
{
	struct blkdev *dev = simdisk_open(run->disk, run->env);
	struct check_params p = { .env = run->env, .dev = dev, .report = finding };
	const struct super *s = &run->v->super;
	struct check_result r;
	unsigned int transactions;
	uint64_t sum = 0;
	char why[400];

	if (run->uses & USE_CHECK)
		sane(check_volume(&p, &r, why, sizeof(why)));
	for (uint32_t i = 0; i < s->slot_count && run->uses & USE_REPLAY; i++) {
		sane(journal_scan(run->env, dev, s, i, look_at_image, &sum, &transactions, why,
				  sizeof(why)));
		sane(journal_replay(run->env, dev, s, i, &transactions));
	}
	if (run->uses & USE_REPLAY && run->uses & USE_CHECK)
		sane(check_volume(&p, &r, why, sizeof(why)));
	blkdev_close(dev);
}

/* Return: whether it is clean, but for a mark of a repair that the damage left behind. */
static bool is_clean(struct volume_run *run, bool *marked)
{
	struct blkdev *dev = simdisk_open(run->disk, run->env);
	struct check_params p = { .env = run->env, .dev = dev, .report = finding };
	struct check_result r;
	char why[400];

	FUZZ_CHECK(!check_volume(&p, &r, why, sizeof(why)));
	blkdev_close(dev);
	*marked = r.super.incompat & INCOMPAT_REPAIR;
	return *marked ? r.errors == 1 : !r.errors;
}

/*
 * Whatever was done to it: if there is a superblock, one run makes it clean.
 * Return: whether there was, and hosts may use it again.
 */
static bool repair(struct volume_run *run)
{
	struct blkdev *dev = simdisk_open(run->disk, run->env);
	struct check_params p = { .env = run->env, .dev = dev, .report = finding,
				  .repair = CHECK_REPAIR_LOSS, .own_slot = SLOT_NONE };
	struct check_result r;
	bool marked = true;
	char why[400];
	int err;

	run->repairing = true;
	err = check_volume(&p, &r, why, sizeof(why));
	run->repairing = false;
	sane(err);
	blkdev_close(dev);
	if (!err) {
		FUZZ_CHECK(!r.errors);
		FUZZ_CHECK(is_clean(run, &marked));
	}
	return !err && !marked;
}

/* A host gets on, finds what is to be there, changes everything, and leaves it clean. */
static void use_repaired(struct volume_run *run)
{
	struct fs_attach_params p;
	struct fs *fs;
	bool marked;
	int err = attach(run, USE_CHANGE, &p, &fs);

	FUZZ_CHECK(!err || run->may_refuse);
	if (!err) {
		if (run->intact)
			find_intact(run, fs);
		use_attached(run, fs, true);
		FUZZ_CHECK(fs_detach(fs) == 0 || run->may_refuse);
	}
	leave(&p);
	FUZZ_CHECK(is_clean(run, &marked));
}

void volume_use(struct volume_run *run)
{
	if (run->uses & USE_REPAIR)
		repair(run);
	check_and_replay(run);
	for (unsigned int use = USE_RESCUE; use <= USE_OTHER; use <<= 1)
		if (run->uses & use)
			attach_and_use(run, use);
	if (run->uses & USE_IMAGES && repair(run))
		use_repaired(run);
}
