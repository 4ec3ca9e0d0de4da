// SPDX-License-Identifier: Apache-2.0
/* A fresh host on a volume that lost power: it attaches, and finds what may be there. */
#include "fs/check.h"
#include "tests/sim/cut.h"

#define RUN_NS_MAX	(900 * NSEC_PER_SEC)
#define RECOVER_MS_MAX	120000u
#define PROBE_SIZE	20000u
#define REAP_MS_MAX	5000u

struct judge {
	const struct recording *r;
	struct sim *sim;
	struct simdisk *disk;
	struct env *env;		/* the observer's */
	struct env *host;
	struct fs *fs;
	size_t moment;
	uint64_t seed;
	bool verbose, failed;
	bool fs_was_there;		/* a host has attached: what it mends is mended */
	const char *stage;
	struct tree tree;
};

static void complain(struct judge *j, const char *what, const char *detail)
{
	j->failed = true;
	fprintf(stderr, "  %s: %s%s%s\n", j->stage, what, *detail ? ": " : "", detail);
}

static void complain_errno(struct judge *j, const char *what, int err)
{
	complain(j, what, strerror(-err));
}

/* ---- the volume as a whole ---- */

static bool was_interrupted(const struct judge *j, enum what what)
{
	for (size_t i = 0; i < j->r->op_count; i++) {
		const struct op *op = &j->r->ops[i];

		if (op->what == what && op->begin <= j->moment && op->end > j->moment)
			return true;
	}
	return false;
}

static bool mkfs_was_interrupted(const struct judge *j)
{
	return was_interrupted(j, OP_MKFS);
}

static void finding(void *arg, const struct check_finding *f)
{
	const struct check_code_info *info = check_code_info(f->code);
	struct judge *j = arg;

	/* The old volume without some copies, or the new one before it has all. */
	if (f->code == CHECK_SUPER_DAMAGED && mkfs_was_interrupted(j))
		return;
	/* One copy may be torn until somebody attaches, who writes it anew. */
	if (f->code == CHECK_SUPER_DAMAGED && was_interrupted(j, OP_GROW) && !j->fs_was_there)
		return;
	/* No script has two hosts at one file: none leaves entries that mean nothing. */
	if (info->severity == CHECK_ERROR || f->code == CHECK_ORPHAN_UNMARKED ||
	    f->code == CHECK_ORPHAN_VOID)
		complain(j, info->name, f->text);
}

/* How many deleted snapshots may still wait for their last child to go, or to be merged. */
static uint64_t orphans_allowed(const struct judge *j)
{
	uint64_t n = 0;

	for (size_t i = 0; i < j->r->op_count; i++) {
		const struct op *op = &j->r->ops[i];

		for (size_t k = 0; k < i; k++)
			if (op->what == OP_UNLINK && op->begin <= j->moment &&
			    j->r->ops[k].what == OP_SNAPSHOT && j->r->ops[k].obj == op->obj) {
				n++;
				break;
			}
	}
	return n;
}

static void check(struct judge *j, bool settled)
{
	struct blkdev *dev = simdisk_open(j->disk, j->env);
	struct check_params p = { .env = j->env, .dev = dev, .report = finding, .arg = j };
	struct check_result result;
	char why[400] = "";

	if (check_volume(&p, &result, why, sizeof(why)))
		complain(j, "the check failed", why);
	/* Everybody dead was recovered and everybody left: what has no name is gone by then. */
	if (settled && result.orphans > orphans_allowed(j))
		complain(j, "an orphan was left behind", "");
	blkdev_close(dev);
}

/* ---- what is there ---- */

static struct found *tree_add(struct tree *t)
{
	if (t->count == t->max) {
		t->max = t->max ? 2 * t->max : 64;
		t->found = realloc(t->found, t->max * sizeof(*t->found));
		MUST(t->found);
	}
	memset(&t->found[t->count], 0, sizeof(*t->found));
	return &t->found[t->count++];
}

static void add_extent(struct found *f, uint64_t off, uint64_t len, uint8_t *data)
{
	f->extents = realloc(f->extents, (f->extent_count + 1) * sizeof(*f->extents));
	MUST(f->extents);
	f->extents[f->extent_count++] = (struct extent){ off, len, data };
}

static int read_extents(struct judge *j, struct fs_file *file, struct found *f)
{
	uint64_t off = 0, data, hole;
	int err;

	while (off < f->size) {
		uint8_t *buf;
		size_t done;

		err = fs_seek(j->fs, file, off, SEEK_DATA, &data);
		if (err)
			return err == -ENXIO ? 0 : err;
		err = fs_seek(j->fs, file, data, SEEK_HOLE, &hole);
		if (err)
			return err;
		buf = blkdev_alloc(hole - data);
		MUST(buf);
		add_extent(f, data, hole - data, buf);
		err = fs_read(j->fs, file, data, buf, hole - data, &done);
		if (err || done != hole - data)
			return err ? err : -EPROTO;
		off = hole;
	}
	return 0;
}

static int read_file(struct judge *j, uint64_t id, struct found *f)
{
	static const struct fs_cred cred = { .comm = "judge" };
	struct lock_holder holder;
	struct fs_file *file;
	int err = fs_open(j->fs, id, 0, &cred, &file, &holder);

	if (err)
		return err;
	err = read_extents(j, file, f);
	fs_close(j->fs, file);
	return err;
}

static int read_xattrs(struct judge *j, uint64_t id, struct found *f)
{
	char names[4096];
	size_t len = 0;
	int err = xattr_list(j->fs, id, names, sizeof(names), &len);

	for (size_t i = 0; !err && i < len; i += strlen(names + i) + 1) {
		struct found_xattr *x = &f->xattrs[f->xattr_count++];
		size_t n = 0;

		MUST(f->xattr_count <= XATTRS_MAX);
		snprintf(x->name, sizeof(x->name), "%s", names + i);
		x->value = malloc(4096);
		MUST(x->value);
		err = xattr_get(j->fs, id, names + i, x->value, 4096, &n);
		x->len = n;
	}
	return err;
}

struct listing { char names[700][256]; size_t count; };

static int emit(void *arg, const struct dirent_info *d)
{
	struct listing *l = arg;

	MUST(l->count < ARRAY_SIZE(l->names));
	memcpy(l->names[l->count++], d->name, sizeof(d->name));
	return 0;
}

static int read_dir(struct judge *j, uint64_t dir, const char *path);

static int read_object(struct judge *j, uint64_t dir, const char *path, const char *name)
{
	struct found *f = tree_add(&j->tree);
	struct fs_attr attr;
	char own[PATH_SIZE], target[4096];
	int err = fs_lookup(j->fs, dir, name, &attr);

	snprintf(f->path, sizeof(f->path), "%s/%s", path, name);
	if (err)
		return err;
	f->mode = attr.mode;
	f->nlink = attr.nlink;
	f->size = attr.size;
	f->ino = attr.ino;
	err = read_xattrs(j, attr.id, f);
	if (!err && S_ISLNK(f->mode)) {
		err = fs_readlink(j->fs, attr.id, target, sizeof(target));
		snprintf(f->target, sizeof(f->target), "%.500s", target);
	}
	if (!err && S_ISREG(f->mode))
		err = read_file(j, attr.id, f);
	strcpy(own, f->path);	/* the tree moves as it grows */
	if (!err && S_ISDIR(attr.mode))
		err = read_dir(j, attr.id, own);
	return err;
}

static int read_dir(struct judge *j, uint64_t dir, const char *path)
{
	struct listing *l = calloc(1, sizeof(*l));
	int err;

	MUST(l);
	err = fs_readdir(j->fs, dir, 0, emit, l);
	for (size_t i = 0; !err && i < l->count; i++) {
		err = read_object(j, dir, path, l->names[i]);
		if (err)
			complain(j, "cannot be read", l->names[i]);
	}
	free(l);
	return err;
}

/* ---- the host ---- */

static int attach(struct judge *j, struct blkdev *dev, struct blkdev *hb_dev)
{
	struct fs_attach_params p = { .env = j->host, .dev = dev, .hb_dev = hb_dev, .pid = 900,
				      .pid_start = 77 };
	char why[400] = "";
	int err;

	/* One of those that were there comes back after a reboot, or a new one comes. */
	memset(p.host_id, (int)(1 + j->seed % 3), sizeof(p.host_id));
	memset(p.boot_id, 0xee, sizeof(p.boot_id));
	strcpy(p.host_name, "judge");
	p.flags = j->r->w->copied ? FS_RESIGNATURE : 0;
	err = fs_attach(&p, &j->fs, why, sizeof(why));
	if (err)
		complain(j, "no attach", why);
	return err;
}

/* Everybody else is dead and must be recovered without being asked. */
static void wait_for_recovery(struct judge *j)
{
	struct lockd_peer *peers = calloc(SLOT_COUNT_MAX, sizeof(*peers));
	uint64_t waited;

	MUST(peers);
	for (waited = 0; waited < RECOVER_MS_MAX; waited += 500) {
		uint32_t n = lockd_peers(j->fs->lockd, peers), taken = 0;

		for (uint32_t i = 0; i < n; i++)
			taken += !peers[i].self && (!peers[i].valid ||
						    peers[i].slot.state != SLOT_FREE);
		if (!taken)
			break;
		env_sleep_until(j->env, env_now_ns(j->env) + 500 * NSEC_PER_MSEC);
	}
	if (waited >= RECOVER_MS_MAX)
		complain(j, "a dead slot is not recovered", "");
	free(peers);
}

/* The volume can be used: what is written there does not meet anything else. */
static void probe(struct judge *j)
{
	static const struct fs_cred cred = { .comm = "judge" };
	uint8_t *data = blkdev_alloc(PROBE_SIZE);
	struct lock_holder holder;
	struct fs_attr attr;
	struct fs_file *f;
	size_t done;
	int err = fs_create(j->fs, fs_root(j->fs), ".probe", S_IFREG | 0600, 0, &cred, &attr);

	MUST(data);
	memset(data, 0xa5, PROBE_SIZE);
	if (!err)
		err = fs_open(j->fs, attr.id, FS_OPEN_WRITE, &cred, &f, &holder);
	if (!err) {
		err = fs_write(j->fs, f, 0, data, PROBE_SIZE, false, &done);
		if (!err)
			err = fs_fsync(j->fs, f, false);
		fs_close(j->fs, f);
	}
	if (err && err != -ENOSPC)
		complain_errno(j, "the volume cannot be written", err);
	free(data);
}

/* A volume has the size that it last had for certain, or one that was under way. */
static void look_at_size(struct judge *j)
{
	uint64_t least = 0, most = 0, size;

	for (size_t i = 0; i < j->r->op_count; i++) {
		const struct op *op = &j->r->ops[i];

		if (op->what != OP_GROW || op->begin > j->moment)
			continue;
		least = op->end <= j->moment ? op->len : most ? most : op->off;
		most = op->len;
	}
	size = super_size(&j->fs->super);
	if (least && size != least && size != most)
		complain(j, "the volume has neither the old nor the new size", "");
}

static void look(struct judge *j)
{
	char why[600] = "no order of operations makes this tree";

	j->stage = "recovery";
	wait_for_recovery(j);
	j->stage = "contents";
	if (!read_dir(j, fs_root(j->fs), "") &&
	    !model_allows(j->r, j->moment, &j->tree, j->verbose, why, sizeof(why)))
		complain(j, why, "");
	j->stage = "use";
	if (j->seed % 4 < 2)
		probe(j);
	/* What has no name is freed in the background. */
	env_sleep_until(j->env, env_now_ns(j->env) + REAP_MS_MAX * NSEC_PER_MSEC);
}

/* An interrupted mkfs leaves no volume, or a whole one. */
static bool no_volume_is_fine(struct judge *j)
{
	struct blkdev *dev = simdisk_open(j->disk, j->env);
	struct super s;
	char why[400];
	int err = super_read(dev, &s, why, sizeof(why));

	blkdev_close(dev);
	return err == -EUCLEAN && mkfs_was_interrupted(j);
}

static void judge_thread(void *arg)
{
	struct judge *j = arg;
	struct blkdev *dev, *hb_dev;
	int err;

	if (no_volume_is_fine(j))
		return;
	j->stage = "check before";
	if (j->seed % 3 == 0)
		check(j, false);
	dev = simdisk_open(j->disk, j->host);
	hb_dev = simdisk_open(j->disk, j->host);
	if (j->r->w->copied)
		snprintf(dev->info.identity, sizeof(dev->info.identity), COPY_IDENTITY);
	j->stage = "attach";
	err = attach(j, dev, hb_dev);
	if (!err) {
		j->fs_was_there = true;
		look_at_size(j);
		look(j);
		j->stage = "detach";
		err = fs_detach(j->fs);
		if (err)
			complain_errno(j, "did not end well", err);
		j->stage = "check after";
		check(j, !err);
	}
	blkdev_close(hb_dev);
	blkdev_close(dev);
}

static void show_log(void *arg, enum log_level level, const char *line)
{
	struct judge *j = arg;

	if (level > LOG_LEVEL_ERROR || mkfs_was_interrupted(j))
		return;
	fprintf(stderr, "  log: %s\n", line);
	j->failed = true;
}

bool judge(const struct recording *r, struct sim *sim, struct simdisk *disk, size_t moment,
	   uint64_t state, bool verbose)
{
	struct judge j = { .r = r, .sim = sim, .disk = disk, .moment = moment,
			   .seed = mix64(moment << 20 ^ state), .verbose = verbose };
	struct env_thread *thread;

	/* Hosts draw from streams by their number: other choices than the script's hosts made. */
	for (uint64_t i = 100 + j.seed % 16; i; i--)
		sim_host(sim, "nobody");
	j.env = sim_host(sim, "observer");
	j.host = sim_host(sim, "judge");
	sim_host_log(j.host, show_log, &j);
	MUST(!env_thread_start(j.env, "judge", judge_thread, &j, &thread));
	if (!sim_run(sim, RUN_NS_MAX))
		complain(&j, "it did not come to an end", "");
	return !j.failed;
}
