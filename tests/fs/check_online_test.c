/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/check_online.h"
#include "fs/image.h"

#include "tests/fs/attached.h"
#include "tests/fs/wrecks.h"

#define SIZE	(64 * MIB)

struct findings {
	uint64_t seen[CHECK_CODE_COUNT];
	uint64_t inode[CHECK_CODE_COUNT];	/* of the last */
	bool	show;
	struct env *env;
	uint64_t pause_ns;			/* before each block that is read */
};

static void note_finding(void *arg, const struct check_finding *f)
{
	struct findings *fs = arg;

	fs->seen[f->code]++;
	fs->inode[f->code] = inode_id_number(f->inode);
	if (fs->show)
		fprintf(stderr, "  %s at 0x%llx: %s\n", check_code_info(f->code)->name,
			(unsigned long long)f->addr, f->text);
}

/* So slowly that everything changes between two looks. */
static int slowly(void *arg, uint32_t blocks)
{
	struct findings *found = arg;

	if (found->pause_ns)
		env_sleep_until(found->env, env_now_ns(found->env) + blocks * found->pause_ns);
	return 0;
}

static struct check_online_result check(struct fs *fs, struct findings *found, bool shallow)
{
	struct check_online_params p = { .fs = fs, .shallow = shallow, .report = note_finding,
					 .pace = slowly, .arg = found };
	struct check_online_result r;

	CU_ASSERT_EQUAL(check_online(&p, &r), 0);
	return r;
}

/* ---- damage ---- */

static unsigned int which;

/* The inode that shows it, of those that the wrecked volume has. */
static bool names_an_inode(enum check_code code)
{
	return code == CHECK_MAP_DAMAGED || code == CHECK_INODE_DAMAGED ||
	       code == CHECK_DIR_DAMAGED || code == CHECK_INODE_BLOCKS ||
	       code == CHECK_INODE_NO_NAME || code == CHECK_IMAGE_RANK;
}

static void damaged(struct cluster *c)
{
	struct volume v = { .sim = c->sim, .disk = c->disk, .host = c->env };
	enum check_code code = cases[which].code;
	struct findings found = { .show = false };
	struct check_online_result r;

	v.block = blkdev_alloc(BLOCK_SIZE);
	v.dev = simdisk_open(c->disk, c->env);
	make_volume(&v);
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 0, 0), 0);
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 1, 0), 0);
	r = check(c->fs, &found, false);
	CU_ASSERT_EQUAL(r.errors, 0);
	cases[which].damage(&v);
	/* Another host's idle locks are no obstacle. */
	memset(&found, 0, sizeof(found));
	r = check(c->fs, &found, false);
	if (check_online_proves(code)) {
		CU_ASSERT(found.seen[code] > 0);
		CU_ASSERT_EQUAL(r.unproved, 0);
		if (!found.seen[code])
			fprintf(stderr, "case %u: no %s; %llu unproved\n", which,
				check_code_info(code)->name, (unsigned long long)r.unproved);
		if (names_an_inode(code))
			CU_ASSERT(found.inode[code] >= number_of(&v, 0));
	} else if (check_code_info(code)->severity == CHECK_NOTE) {
		CU_ASSERT_EQUAL(r.errors, 0);
	}
	CU_ASSERT_EQUAL(found.seen[CHECK_BITMAP_LEAK], 0);
	sim_host_crash(c->hosts[0].env);
	sim_host_crash(c->hosts[1].env);
	c->hosts[0].fs = c->hosts[1].fs = NULL;
	cluster_sleep(c, 1000);
	CU_ASSERT_EQUAL(volume_format(&v), 0);
	blkdev_close(v.dev);
	free(v.block);
}

/* Damage is found while hosts use the volume, but for what only a quiet one can tell. */
static void damage_is_found_while_two_hosts_use_the_volume(void)
{
	/* In that world they have slots 0 and 3, and nothing to do with what the wrecks are about. */
	for (which = 0; which < ARRAY_SIZE(cases); which++)
		if (cases[which].code != CHECK_UNWRITABLE)
			cluster_run(7, SIZE, damaged);
}

/* ---- load ---- */

struct load {
	struct cluster *c;
	unsigned int host, seed;
	bool stop;
	uint64_t steps;
};

static unsigned int choose(struct load *l, unsigned int below)
{
	l->seed = l->seed * 1103515245 + 12345;
	return (l->seed >> 16) % below;
}

static void change_file(struct load *l, struct fs *fs, uint64_t id)
{
	static const char data[300000] = "x";
	struct fs_attr attr = { 0 };
	struct fs_file *f;
	size_t done;

	if (fs_open(fs, id, FS_OPEN_WRITE, &cluster_cred, &f, NULL))
		return;
	fs_write(fs, f, choose(l, 40) * 70000ULL, data, 1 + choose(l, sizeof(data) - 1), false, &done);
	if (choose(l, 3) == 0) {
		attr.size = choose(l, 500000);
		fs_setattr(fs, id, FS_SET_SIZE, &attr);
	}
	if (choose(l, 4) == 0)
		fs_fsync(fs, f, false);
	fs_close(fs, f);
}

static void step(struct load *l)
{
	struct fs *fs = l->c->hosts[l->host].fs;
	struct fs_attr dir, other, attr = { .mode = 0600 };
	char name[32], to[32];

	/* Mostly in a directory of its own: what both want passes on slowly. */
	snprintf(name, sizeof(name), "d%u", choose(l, 12) ? l->host : 2);
	snprintf(to, sizeof(to), "d%u", choose(l, 12) ? l->host : 2);
	if (fs_lookup(fs, fs_root(fs), name, &dir)) {
		fs_create(fs, fs_root(fs), name, S_IFDIR | 0755, 0, &cluster_cred, &attr);
		return;
	}
	if (fs_lookup(fs, fs_root(fs), to, &other))
		other = dir;
	/* Long names: directories get blocks, and give them back. */
	snprintf(name, sizeof(name), "name-%015u", choose(l, 60));
	snprintf(to, sizeof(to), "name-%015u", choose(l, 60));
	switch (choose(l, 9)) {
	case 0: case 1: case 2:
		fs_create(fs, dir.id, name, S_IFREG | 0600, 0, &cluster_cred, &attr);
		break;
	case 3:
		fs_unlink(fs, dir.id, name);
		break;
	case 4:
		fs_rename(fs, dir.id, name, other.id, to, 0);
		break;
	case 5:
		if (!fs_lookup(fs, dir.id, name, &attr))
			fs_link(fs, attr.id, other.id, to, &attr);
		break;
	case 6:
		fs_snapshot(fs, dir.id, name, to, NULL, &attr);
		break;
	default:
		if (!fs_lookup(fs, dir.id, name, &attr) && S_ISREG(attr.mode))
			change_file(l, fs, attr.id);
	}
	l->steps++;
}

static void load_thread(void *arg)
{
	struct load *l = arg;

	while (!l->stop)
		step(l);
}

static unsigned int checks = 30;
static uint64_t looked_again;

static void under_load(struct cluster *c)
{
	struct load loads[4];
	struct env_thread *threads[4];
	struct findings found = { .show = true };

	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 0, 0), 0);
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 1, 0), 0);
	for (unsigned int i = 0; i < 4; i++) {
		loads[i] = (struct load){ .c = c, .host = i % 2, .seed = 77 + i };
		CU_ASSERT_EQUAL_FATAL(env_thread_start(c->hosts[i % 2].env, "load", load_thread,
						       &loads[i], &threads[i]), 0);
	}
	for (unsigned int n = 0; n < checks; n++) {
		struct check_online_result r;

		cluster_sleep(c, 50 + 37 * n % 400);
		found.env = c->env;
		found.pause_ns = n % 3 * NSEC_PER_MSEC;
		r = check(c->hosts[n % 2].fs, &found, n % 4 == 3);
		CU_ASSERT_EQUAL(r.errors, 0);
		looked_again += r.looked_again;
	}
	for (unsigned int i = 0; i < 4; i++)
		loads[i].stop = true;
	for (unsigned int i = 0; i < 4; i++) {
		env_thread_join(c->hosts[i % 2].env, threads[i]);
		CU_ASSERT(loads[i].steps > 100);
	}
}

/*
 * Whatever is read one after the other seems wrong while it changes.  A check that says so is
 * worse than none: somebody would repair a volume that is whole.
 */
static void nothing_is_accused_while_two_hosts_change_everything(void)
{
	looked_again = 0;
	cluster_run(11, 4 * GIB, under_load);
	cluster_run(12, 2 * GIB, under_load);
	/* It has seen enough to be wrong about. */
	CU_ASSERT(looked_again > 100);
}

/* ---- damage under load ---- */

static void damage_under_load(struct cluster *c)
{
	struct load loads[2];
	struct env_thread *threads[2];
	struct findings found = { .show = false };
	struct fs_attr attr = { .mode = 0600 };
	struct check_online_result r;
	struct meta_expect e = { .type = META_INODE };
	uint8_t block[BLOCK_SIZE] BLKDEV_ALIGNED;
	struct inode_disk *d = (void *)block;

	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 0, 0), 0);
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 1, 0), 0);
	CU_ASSERT_EQUAL(fs_create(c->fs, fs_root(c->fs), "victim", S_IFREG | 0600, 0,
				  &cluster_cred, &attr), 0);
	fs_sync(c->fs);
	for (unsigned int i = 0; i < 2; i++) {
		loads[i] = (struct load){ .c = c, .host = i, .seed = 5 + i };
		CU_ASSERT_EQUAL_FATAL(env_thread_start(c->hosts[i].env, "load", load_thread,
						       &loads[i], &threads[i]), 0);
	}
	cluster_sleep(c, 2000);
	/* At home, with a checksum that is right: only a comparison tells. */
	e.volume = c->fs->super.volume;
	e.addr = inode_block_addr(attr.id);
	e.owner = inode_id_number(attr.id);
	simdisk_peek(c->disk, e.addr, block, sizeof(block));
	CU_ASSERT_EQUAL(meta_verify(block, &e, NULL, 0), 0);
	d->blocks = cpu_to_le64(99);
	meta_seal(block, &e, meta_version(block));
	simdisk_poke(c->disk, e.addr, block, sizeof(block));
	for (unsigned int n = 0; n < 5; n++) {
		memset(&found, 0, sizeof(found));
		r = check(c->hosts[n % 2].fs, &found, n % 2);
		CU_ASSERT_EQUAL(r.errors, 1);
		CU_ASSERT_EQUAL(found.seen[CHECK_INODE_BLOCKS], 1);
		CU_ASSERT_EQUAL(found.inode[CHECK_INODE_BLOCKS], inode_id_number(attr.id));
	}
	d->blocks = cpu_to_le64(0);
	meta_seal(block, &e, meta_version(block));
	simdisk_poke(c->disk, e.addr, block, sizeof(block));
	for (unsigned int i = 0; i < 2; i++)
		loads[i].stop = true;
	for (unsigned int i = 0; i < 2; i++)
		env_thread_join(c->hosts[i].env, threads[i]);
}

static void damage_is_found_under_load_and_nothing_else(void)
{
	cluster_run(21, 256 * MIB, damage_under_load);
}

/* ---- damage of what never stands still ---- */

struct writer {
	struct fs *fs;
	uint64_t id;
	bool stop;
	unsigned int writes;
};

/* Each one changes the inode, and is in the journal at once. */
static void write_thread(void *arg)
{
	struct writer *w = arg;
	struct fs_file *f;
	size_t done;

	CU_ASSERT_EQUAL(fs_open(w->fs, w->id, FS_OPEN_WRITE, &cluster_cred, &f, NULL), 0);
	for (; !w->stop; w->writes++) {
		CU_ASSERT_EQUAL(fs_write(w->fs, f, w->writes % 15000 * BLOCK_SIZE, "x", 1, false,
					 &done), 0);
		CU_ASSERT_EQUAL(fs_fsync(w->fs, f, false), 0);
	}
	CU_ASSERT_EQUAL(fs_close(w->fs, f), 0);
}

/* The second leaf of the map of @id. */
static uint64_t second_leaf(struct cluster *c, uint64_t id)
{
	uint8_t block[BLOCK_SIZE] BLKDEV_ALIGNED;
	const struct inode_disk *d = (const void *)block;
	le64 pointers[2];

	simdisk_peek(c->disk, inode_block_addr(id), block, sizeof(block));
	CU_ASSERT_EQUAL(le32_to_cpu(d->depth), 1);
	memcpy(pointers, d->root, sizeof(pointers));
	return bptr_addr(le64_to_cpu(pointers[1]));
}

static void hot_and_damaged(struct cluster *c)
{
	struct volume v = { .disk = c->disk };
	struct writer w = { 0 };
	struct fs_attr attr = { .mode = 0600 };
	struct findings found = { .show = false };
	struct check_online_result r;
	struct env_thread *thread;
	struct fs_file *f;
	uint64_t leaf;
	size_t done;

	cluster_alone(c);
	CU_ASSERT_EQUAL(fs_create(c->fs, fs_root(c->fs), "hot", S_IFREG | 0600, 0, &cluster_cred,
				  &attr), 0);
	CU_ASSERT_EQUAL(fs_open(c->fs, attr.id, FS_OPEN_WRITE, &cluster_cred, &f, NULL), 0);
	CU_ASSERT_EQUAL(fs_write(c->fs, f, 0, "x", 1, false, &done), 0);
	CU_ASSERT_EQUAL(fs_write(c->fs, f, 300 * UNIT_SIZE, "x", 1, false, &done), 0);
	CU_ASSERT_EQUAL(fs_close(c->fs, f), 0);
	/* Nothing of it is in memory any more. */
	CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);
	cluster_alone(c);
	leaf = second_leaf(c, attr.id);
	spoil(&v, leaf);
	w.fs = c->fs;
	w.id = attr.id;
	CU_ASSERT_EQUAL_FATAL(env_thread_start(c->hosts[0].env, "writer", write_thread, &w,
					       &thread), 0);
	cluster_sleep(c, 500);
	for (unsigned int n = 0; n < 5; n++) {
		memset(&found, 0, sizeof(found));
		r = check(c->fs, &found, n % 2);
		CU_ASSERT_EQUAL(found.seen[CHECK_MAP_DAMAGED], 1);
		/* What the leaf has is missing in the inode's count, as fsck.lunfs says too. */
		CU_ASSERT_EQUAL(r.errors, 1 + found.seen[CHECK_INODE_BLOCKS]);
	}
	CU_ASSERT(w.writes > 100);
	w.stop = true;
	env_thread_join(c->hosts[0].env, thread);
	spoil(&v, leaf);	/* whole again */
}

/* A disk whose guest writes all day must not hide its damage by that: its lock makes it stand still. */
static void damage_of_a_file_that_changes_all_the_time_is_proved_under_its_lock(void)
{
	cluster_run(41, 2 * GIB, hot_and_damaged);
}

/* ---- ending it ---- */

static int stop_at_once(void *arg, uint32_t blocks)
{
	unsigned int *left = arg;

	(void)blocks;
	return (*left)-- ? 0 : -ECANCELED;
}

static void stopped(struct cluster *c)
{
	for (unsigned int n = 0; n < 42; n += 6) {
		unsigned int left = n;
		struct check_online_params p = { .fs = NULL, .report = note_finding,
						 .pace = stop_at_once, .arg = &left };
		struct check_online_result r;

		if (!c->fs)
			cluster_alone(c);
		p.fs = c->fs;
		CU_ASSERT_EQUAL(check_online(&p, &r), -ECANCELED);
		CU_ASSERT_EQUAL(r.errors, 0);
	}
}

/* A detach does not wait for it, and what was not read is not called missing. */
static void a_check_ends_when_it_is_told_to(void)
{
	cluster_run(31, SIZE, stopped);
}

/* ---- what is damaged, and changes ---- */

struct changing {
	struct simdisk	*disk;
	uint64_t	addr;
	uint8_t		*block;
};

static struct changing *changing;	/* NULL: it stands still */

/* Before each read: still damaged, and not as it was. */
static int change_again(void *arg, uint32_t blocks)
{
	struct changing *ch = changing;

	(void)arg;
	(void)blocks;
	if (!ch)
		return 0;
	ch->block[200]++;
	simdisk_poke(ch->disk, ch->addr, ch->block, BLOCK_SIZE);
	return 0;
}

static void changing_body(struct cluster *c)
{
	struct changing ch = { .disk = c->disk, .block = blkdev_alloc(BLOCK_SIZE) };
	struct findings found = { .show = false };
	struct check_online_params p = { .report = note_finding, .pace = change_again, .arg = &found };
	struct check_online_result r;
	uint8_t byte;

	cluster_alone(c);
	p.fs = c->fs;
	ch.addr = super_orphan_addr(&c->fs->super, (lockd_slot(c->fs->lockd) + 1) %
							   c->fs->super.slot_count, 0);
	CU_ASSERT_EQUAL(blkdev_read(c->fs->dev, ch.addr, ch.block, BLOCK_SIZE), 0);
	byte = ch.block[200];
	ch.block[100] ^= 1;
	changing = &ch;
	CU_ASSERT_EQUAL(check_online(&p, &r), 0);
	CU_ASSERT_EQUAL(r.errors, 0);
	CU_ASSERT_EQUAL(r.unproved, 1);
	/* It stands still: now it is proved. */
	changing = NULL;
	CU_ASSERT_EQUAL(check_online(&p, &r), 0);
	CU_ASSERT(r.errors == 1 && found.seen[CHECK_ORPHAN_DAMAGED] == 1);
	ch.block[100] ^= 1;
	ch.block[200] = byte;
	simdisk_poke(c->disk, ch.addr, ch.block, BLOCK_SIZE);
	free(ch.block);
	CU_ASSERT_EQUAL(cluster_detach(c, 0), 0);
}

/* Two looks that find the same in other bytes prove nothing: somebody is writing. */
static void what_changes_between_two_looks_is_not_accused(void)
{
	cluster_run(32, SIZE, changing_body);
}

UNIT_MAIN("check_online",
	  UNIT_TEST(damage_is_found_while_two_hosts_use_the_volume),
	  UNIT_TEST(damage_is_found_under_load_and_nothing_else),
	  UNIT_TEST(nothing_is_accused_while_two_hosts_change_everything),
	  UNIT_TEST(damage_of_a_file_that_changes_all_the_time_is_proved_under_its_lock),
	  UNIT_TEST(what_changes_between_two_looks_is_not_accused),
	  UNIT_TEST(a_check_ends_when_it_is_told_to));
