// SPDX-License-Identifier: Apache-2.0
/* Directories: many names, long names, every shape of the tree, hostile blocks. */
#include "fs/dir.h"

#include <stdio.h>

#include "fs/dir_tree.h"
#include "tests/fs/attached.h"

#define SIZE	(512 * MIB)

static uint64_t make(struct cluster *c, const char *name, uint32_t mode)
{
	struct fs_attr attr = { 0 };

	CU_ASSERT_EQUAL_FATAL(fs_create(c->fs, fs_root(c->fs), name, mode, 0, &cluster_cred, &attr),
			      0);
	return attr.id;
}

/* Names of one file: a name costs no inode, so that a test can have many. */
struct names {
	struct cluster *c;
	uint64_t dir;
	uint64_t files[2];
};

static void names_begin(struct cluster *c, struct names *n)
{
	cluster_alone(c);
	n->c = c;
	n->dir = make(c, "dir", S_IFDIR | 0755);
	n->files[0] = make(c, "file0", S_IFREG | 0644);
	n->files[1] = make(c, "file1", S_IFREG | 0644);
}

static int name_add(struct names *n, unsigned int i, const char *name)
{
	struct fs_attr attr;

	return fs_link(n->c->fs, n->files[i % 2], n->dir, name, &attr);
}

static bool name_is_there(struct names *n, unsigned int i, const char *name)
{
	struct dirent_info info;

	return dir_lookup_shared(n->c->fs, n->dir, name, strlen(name), &info) == 0 &&
	       info.id == n->files[i % 2] && strcmp(info.name, name) == 0;
}

static struct inode_disk inode_now(struct names *n)
{
	struct inode_disk di;
	struct inode *ino;

	CU_ASSERT_EQUAL_FATAL(inode_get(n->c->fs, inode_id_number(n->dir), &ino), 0);
	CU_ASSERT_EQUAL_FATAL(inode_lock(n->c->fs, ino, n->dir, LOCK_SHARED, 0, NULL), 0);
	di = *inode_disk(ino);
	inode_unlock(n->c->fs, ino, LOCK_SHARED, 0);
	inode_put(n->c->fs, ino);
	return di;
}

struct listing { uint64_t last; unsigned int count, stop_after; bool sorted; };

static int listing_emit(void *arg, const struct dirent_info *d)
{
	struct listing *l = arg;

	if (l->stop_after && l->count == l->stop_after)
		return 1;
	if (l->count && d->hash < l->last)
		l->sorted = false;
	l->last = d->hash;
	l->count++;
	return 0;
}

/* ---- many names ---- */

#ifdef __SANITIZE_ADDRESS__
#define MANY	30000u
#else
#define MANY	100000u
#endif

/* A directory of a mail spool or of a build: each name must cost the same as the first. */
static void hundred_thousand_names_stay_fast(struct cluster *c)
{
	struct listing l = { .sorted = true };
	char name[64];
	struct names n;
	unsigned int i, bad = 0;

	names_begin(c, &n);
	for (i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "file-%06u.txt", i);
		bad += name_add(&n, i, name) != 0;
	}
	CU_ASSERT_EQUAL(bad, 0);
	for (i = 0; i < MANY; i += 7) {
		snprintf(name, sizeof(name), "file-%06u.txt", i);
		bad += !name_is_there(&n, i, name);
	}
	CU_ASSERT_EQUAL(bad, 0);
	CU_ASSERT_EQUAL(fs_readdir(c->fs, n.dir, 0, listing_emit, &l), 0);
	CU_ASSERT_EQUAL(l.count, MANY);
	CU_ASSERT_TRUE(l.sorted);
	CU_ASSERT_EQUAL(le64_to_cpu(inode_now(&n).entries), MANY);
	CU_ASSERT_TRUE(le32_to_cpu(inode_now(&n).depth) >= 2);
}

/* ---- any order of coming and going ---- */

#define MODEL	3000u

static void long_name(unsigned int i, char *name, size_t len)
{
	snprintf(name, 16, "%05u-", i);
	memset(name + 6, 'a' + (int)(i % 26), len - 6);
	name[len] = '\0';
}

/* Names of 255 bytes make deep trees of few entries; what is gone and what is there is known. */
static void random_names_match_a_model(struct cluster *c)
{
	static bool there[MODEL];
	char name[NAME_BYTES_MAX + 1];
	unsigned int step, i, count = 0, bad = 0;
	struct names n;

	memset(there, 0, sizeof(there));
	names_begin(c, &n);
	for (step = 0; step < 12000; step++) {
		i = (unsigned int)(sim_random(c->sim) % MODEL);
		long_name(i, name, 40 + i % 216);
		/* It grows for a while, then shrinks. */
		if (there[i] == ((sim_random(c->sim) % 4 != 0) == (step < 8000)))
			continue;
		if (there[i])
			bad += fs_unlink(c->fs, n.dir, name) != 0;
		else
			bad += name_add(&n, i, name) != 0;
		there[i] = !there[i];
		count += there[i] ? 1u : -1u;
	}
	CU_ASSERT_EQUAL(bad, 0);
	for (i = 0; i < MODEL; i++) {
		long_name(i, name, 40 + i % 216);
		bad += name_is_there(&n, i, name) != there[i];
	}
	CU_ASSERT_EQUAL(bad, 0);
	CU_ASSERT_EQUAL(le64_to_cpu(inode_now(&n).entries), count);
}

/* What grew must shrink: an emptied directory takes no block and can be removed. */
static void emptied_directory_is_inline_again(struct cluster *c)
{
	char name[NAME_BYTES_MAX + 1];
	struct inode_disk di;
	struct names n;
	unsigned int i, bad = 0;

	names_begin(c, &n);
	for (i = 0; i < MODEL; i++) {
		long_name(i, name, NAME_BYTES_MAX);
		bad += name_add(&n, i, name) != 0;
	}
	di = inode_now(&n);
	CU_ASSERT_EQUAL(le32_to_cpu(di.depth), 2);
	CU_ASSERT_TRUE(le64_to_cpu(di.blocks) > 200);
	for (i = 0; i < MODEL; i++) {
		long_name(i, name, NAME_BYTES_MAX);
		bad += fs_unlink(c->fs, n.dir, name) != 0;
	}
	CU_ASSERT_EQUAL(bad, 0);
	di = inode_now(&n);
	CU_ASSERT_EQUAL(le32_to_cpu(di.depth), 0);
	CU_ASSERT_EQUAL(le64_to_cpu(di.blocks), 0);
	CU_ASSERT_EQUAL(le64_to_cpu(di.size), 0);
	CU_ASSERT_EQUAL(fs_rmdir(c->fs, fs_root(c->fs), "dir"), 0);
}

struct first_names { char names[64][NAME_BYTES_MAX + 1]; unsigned int count; };

static int first_names_emit(void *arg, const struct dirent_info *d)
{
	struct first_names *f = arg;

	if (f->count == ARRAY_SIZE(f->names))
		return 1;
	strcpy(f->names[f->count++], d->name);
	return 0;
}

/* Removes what a listing shows, as rm -r does: the first leaves and nodes of the tree go first. */
static unsigned int remove_in_order(struct names *n, unsigned int max, unsigned int *bad)
{
	struct first_names f;
	unsigned int i, removed = 0;

	do {
		f.count = 0;
		*bad += fs_readdir(n->c->fs, n->dir, 0, first_names_emit, &f) != 0;
		for (i = 0; i < f.count && removed < max; i++, removed++)
			*bad += fs_unlink(n->c->fs, n->dir, f.names[i]) != 0;
	} while (i && removed < max);
	return removed;
}

/* A whole node goes while others stay; what is left is found, added to, removed. */
static void removal_in_order_of_listing(struct cluster *c)
{
	char name[NAME_BYTES_MAX + 1];
	unsigned int i, there = 0, bad = 0;
	struct names n;

	names_begin(c, &n);
	for (i = 0; i < MODEL * 2; i++) {
		long_name(i, name, NAME_BYTES_MAX);
		bad += name_add(&n, i, name) != 0;
	}
	CU_ASSERT_TRUE(le32_to_cpu(inode_now(&n).root_count) >= 3);	/* nodes */
	CU_ASSERT_EQUAL(remove_in_order(&n, MODEL, &bad), MODEL);
	for (i = 0; i < MODEL * 2; i++) {
		long_name(i, name, NAME_BYTES_MAX);
		there += name_is_there(&n, i, name);
	}
	CU_ASSERT_EQUAL(there, MODEL);
	for (i = MODEL * 2; i < MODEL * 2 + 100; i++) {
		long_name(i, name, NAME_BYTES_MAX);
		bad += name_add(&n, i, name) != 0;
	}
	CU_ASSERT_EQUAL(remove_in_order(&n, UINT32_MAX, &bad), MODEL + 100);
	CU_ASSERT_EQUAL(bad, 0);
	CU_ASSERT_EQUAL(le64_to_cpu(inode_now(&n).entries), 0);
	CU_ASSERT_EQUAL(fs_rmdir(c->fs, fs_root(c->fs), "dir"), 0);
	cluster_sleep(c, 2000);		/* the reaper frees what was left of the tree */
}

/* Renaming within one directory inserts and removes in one transaction, splits included. */
static void renames_within_a_full_directory(struct cluster *c)
{
	char name[NAME_BYTES_MAX + 1], other[NAME_BYTES_MAX + 1];
	struct names n;
	unsigned int i, bad = 0;

	names_begin(c, &n);
	for (i = 0; i < 400; i++) {
		long_name(i, name, 200);
		bad += name_add(&n, i, name) != 0;
	}
	for (i = 0; i < 400; i++) {
		long_name(i, name, 200);
		long_name(i + 400, other, 255);
		bad += fs_rename(c->fs, n.dir, name, n.dir, other, 0) != 0;
		bad += name_is_there(&n, i, name) || !name_is_there(&n, i, other);
	}
	CU_ASSERT_EQUAL(bad, 0);
}

/* readdir goes on where it stopped, whatever happens to other names meanwhile. */
static void listing_goes_on_where_it_stopped(struct cluster *c)
{
	struct listing l = { .sorted = true };
	char name[64];
	struct names n;
	unsigned int i, total = 0;
	uint64_t from = 0;

	names_begin(c, &n);
	for (i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "some-name-%u", i);
		CU_ASSERT_EQUAL(name_add(&n, i, name), 0);
	}
	do {
		l = (struct listing){ .sorted = true, .stop_after = 17 };
		CU_ASSERT_EQUAL(fs_readdir(c->fs, n.dir, from, listing_emit, &l), 0);
		total += l.count;
		from = l.last + 1;
		snprintf(name, sizeof(name), "new-name-%u", total);
		CU_ASSERT_EQUAL(name_add(&n, 0, name), 0);
		CU_ASSERT_EQUAL(fs_unlink(c->fs, n.dir, name), 0);
	} while (l.count);
	CU_ASSERT_EQUAL(total, 1000);
}

/* ---- another host reads while this one writes ---- */

/* Without the lock a reader sees each name that was there all along, in every state on disk. */
static void unlocked_readers_miss_nothing(struct cluster *c)
{
	char name[NAME_BYTES_MAX + 1];
	struct dirent_info info;
	struct listing l;
	struct names n;
	unsigned int i, bad = 0;

	names_begin(c, &n);
	for (i = 0; i < 200; i++) {
		long_name(i, name, 100);
		bad += name_add(&n, i, name) != 0;
	}
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 1, 0), 0);
	for (i = 200; i < 500; i++) {
		long_name(i, name, 100);
		bad += name_add(&n, i, name) != 0;
		cluster_sleep(c, 20);
		long_name(i * 7 % 200, name, 100);
		bad += dir_lookup_shared(c->hosts[1].fs, n.dir, name, strlen(name), &info) != 0;
		if (i % 50)
			continue;
		l = (struct listing){ .sorted = true };
		bad += fs_readdir(c->hosts[1].fs, n.dir, 0, listing_emit, &l) != 0;
		bad += !l.sorted || l.count < 200;
	}
	CU_ASSERT_EQUAL(bad, 0);
}

/* ---- blocks that are not to be believed ---- */

static uint32_t put_entry(uint8_t *bytes, uint64_t hash, uint8_t name_len)
{
	struct dir_entry_disk d = { cpu_to_le64(1), cpu_to_le64(hash), 8, name_len };

	memcpy(bytes, &d, sizeof(d));
	memset(bytes + sizeof(d), 'n', name_len);
	return (uint32_t)sizeof(d) + name_len;
}

/* A leaf from a broken or hostile disk must not lead outside its block (R9). */
static void test_hostile_entries_are_refused(void)
{
	uint8_t bytes[1024] = { 0 };
	struct dir_ents e = { bytes, 0 };
	uint32_t count;

	e.used = put_entry(bytes, 5, 10);
	e.used += put_entry(bytes + e.used, 9, 255);
	CU_ASSERT_TRUE(dir_ents_check(&e, 0, 10, &count));
	CU_ASSERT_EQUAL(count, 2);
	CU_ASSERT_FALSE(dir_ents_check(&e, 6, 10, NULL));	/* below the leaf's range */
	CU_ASSERT_FALSE(dir_ents_check(&e, 0, 9, NULL));	/* above it */
	e.used--;
	CU_ASSERT_FALSE(dir_ents_check(&e, 0, 10, NULL));	/* the name is cut off */
	e.used = put_entry(bytes, 5, 0);
	CU_ASSERT_FALSE(dir_ents_check(&e, 0, 10, NULL));	/* no name */
	e.used = 7;
	CU_ASSERT_FALSE(dir_ents_check(&e, 0, 10, NULL));	/* less than a header */
	e.used = put_entry(bytes, 7, 3);
	e.used += put_entry(bytes + e.used, 6, 3);
	CU_ASSERT_FALSE(dir_ents_check(&e, 0, 10, NULL));	/* out of order */
}

static void test_hostile_nodes_are_refused(void)
{
	struct dir_index_disk d[3] = {
		{ cpu_to_le64(0), cpu_to_le64(7) }, { cpu_to_le64(5), cpu_to_le64(8) },
		{ cpu_to_le64(9), cpu_to_le64(9) },
	};
	struct dir_index x = { d, 3 };

	CU_ASSERT_TRUE(dir_index_check(&x, 3, 0, 10));
	CU_ASSERT_EQUAL(dir_index_find(&x, 0), 0);
	CU_ASSERT_EQUAL(dir_index_find(&x, 5), 1);
	CU_ASSERT_EQUAL(dir_index_find(&x, 100), 2);
	CU_ASSERT_FALSE(dir_index_check(&x, 2, 0, 10));	/* more than fit */
	CU_ASSERT_FALSE(dir_index_check(&x, 3, 1, 10));	/* begins elsewhere */
	CU_ASSERT_FALSE(dir_index_check(&x, 3, 0, 9));	/* ends elsewhere */
	d[2].pointer = cpu_to_le64(BPTR(0, 77));
	CU_ASSERT_FALSE(dir_index_check(&x, 3, 0, 10));	/* points to nothing */
	x.count = 0;
	CU_ASSERT_FALSE(dir_index_check(&x, 3, 0, 10));
}

#define IN_CLUSTER(fn) static void test_##fn(void) { cluster_run(31, SIZE, fn); }

IN_CLUSTER(hundred_thousand_names_stay_fast)
IN_CLUSTER(random_names_match_a_model)
IN_CLUSTER(emptied_directory_is_inline_again)
IN_CLUSTER(removal_in_order_of_listing)
IN_CLUSTER(renames_within_a_full_directory)
IN_CLUSTER(listing_goes_on_where_it_stopped)
IN_CLUSTER(unlocked_readers_miss_nothing)

UNIT_MAIN("dir",
	UNIT_TEST(test_hostile_entries_are_refused),
	UNIT_TEST(test_hostile_nodes_are_refused),
	UNIT_TEST(test_hundred_thousand_names_stay_fast),
	UNIT_TEST(test_random_names_match_a_model),
	UNIT_TEST(test_emptied_directory_is_inline_again),
	UNIT_TEST(test_removal_in_order_of_listing),
	UNIT_TEST(test_renames_within_a_full_directory),
	UNIT_TEST(test_listing_goes_on_where_it_stopped),
	UNIT_TEST(test_unlocked_readers_miss_nothing)
);
