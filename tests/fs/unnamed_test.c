// SPDX-License-Identifier: Apache-2.0
/* Files without a name (O_TMPFILE): they go with their last close or a crash, unless they get one. */
#include "fs/orphan.h"
#include "tests/fs/attached.h"

#define SIZE		(256 * MIB)
#define CONTENTS	"of a file without a name"

#define IN_CLUSTER(body) static void test_##body(void) { cluster_run(21, SIZE, body); }

static struct fs_file *make(struct fs *fs, uint64_t *id)
{
	struct fs_attr attr;
	struct fs_file *f;
	size_t done;

	CU_ASSERT_EQUAL_FATAL(fs_create_unnamed(fs, fs_root(fs), 0640, &cluster_cred, FS_OPEN_WRITE, &f,
						&attr), 0);
	CU_ASSERT_EQUAL(attr.mode, S_IFREG | 0640);
	CU_ASSERT_EQUAL(attr.nlink, 0);
	CU_ASSERT_EQUAL(fs_write(fs, f, 300000, CONTENTS, sizeof(CONTENTS), false, &done), 0);
	*id = attr.id;
	return f;
}

static bool reads_back(struct fs *fs, uint64_t id)
{
	char buf[sizeof(CONTENTS)] = "";
	struct fs_file *f;
	size_t done = 0;

	if (fs_open(fs, id, 0, &cluster_cred, &f, NULL))
		return false;
	CU_ASSERT_EQUAL(fs_read(fs, f, 300000, buf, sizeof(buf), &done), 0);
	CU_ASSERT_EQUAL(fs_close(fs, f), 0);
	return done == sizeof(buf) && memcmp(buf, CONTENTS, sizeof(buf)) == 0;
}

static void it_goes_with_its_last_close(struct cluster *c)
{
	struct fs_attr attr;
	struct fs_file *f, *again;
	uint64_t id;

	cluster_alone(c);
	f = make(c->fs, &id);
	orphan_wait(c->fs, 5000);
	CU_ASSERT_EQUAL_FATAL(fs_open(c->fs, id, 0, &cluster_cred, &again, NULL), 0);
	CU_ASSERT_EQUAL(fs_close(c->fs, f), 0);
	orphan_wait(c->fs, 5000);
	CU_ASSERT_EQUAL(fs_getattr(c->fs, id, &attr), 0);
	CU_ASSERT_EQUAL(fs_close(c->fs, again), 0);
	orphan_wait(c->fs, 5000);
	CU_ASSERT_EQUAL(fs_getattr(c->fs, id, &attr), -ESTALE);
}

static void it_stays_with_a_name(struct cluster *c)
{
	struct fs_attr attr;
	struct fs_file *f;
	uint64_t id;

	cluster_alone(c);
	f = make(c->fs, &id);
	CU_ASSERT_EQUAL(fs_link(c->fs, id, fs_root(c->fs), "name", &attr), 0);
	CU_ASSERT_EQUAL(attr.nlink, 1);
	CU_ASSERT_EQUAL(fs_link(c->fs, id, fs_root(c->fs), "name", &attr), -EEXIST);
	CU_ASSERT_EQUAL(fs_link(c->fs, id, fs_root(c->fs), "other", &attr), 0);
	CU_ASSERT_EQUAL(attr.nlink, 2);
	CU_ASSERT_EQUAL(fs_close(c->fs, f), 0);
	orphan_wait(c->fs, 5000);
	CU_ASSERT_TRUE(reads_back(c->fs, id));
	CU_ASSERT_EQUAL(fs_unlink(c->fs, fs_root(c->fs), "other"), 0);
	CU_ASSERT_TRUE(reads_back(c->fs, id));
}

/* Only what never had a name gets one. */
static void what_lost_its_name_gets_none(struct cluster *c)
{
	struct fs_attr attr;
	struct fs_file *f;
	uint64_t id;

	cluster_alone(c);
	f = make(c->fs, &id);
	CU_ASSERT_EQUAL(fs_link(c->fs, id, fs_root(c->fs), "name", &attr), 0);
	CU_ASSERT_EQUAL(fs_unlink(c->fs, fs_root(c->fs), "name"), 0);
	CU_ASSERT_EQUAL(fs_link(c->fs, id, fs_root(c->fs), "again", &attr), -ENOENT);
	CU_ASSERT_EQUAL(fs_close(c->fs, f), 0);
	orphan_wait(c->fs, 5000);
	CU_ASSERT_EQUAL(fs_getattr(c->fs, id, &attr), -ESTALE);
}

/* The dead host's: the one without a name is deleted, the other one is there. */
static void a_crash_deletes_it_unless_it_has_a_name(struct cluster *c)
{
	struct fs_attr attr;
	uint64_t none, named;

	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 0, 0), 0);
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 1, 0), 0);
	make(c->hosts[0].fs, &none);
	make(c->hosts[0].fs, &named);
	CU_ASSERT_EQUAL(fs_link(c->hosts[0].fs, named, fs_root(c->hosts[0].fs), "name", &attr), 0);
	CU_ASSERT_EQUAL(fs_sync(c->hosts[0].fs), 0);
	cluster_crash(c, 0);
	cluster_sleep(c, 15000);
	CU_ASSERT_EQUAL(fs_getattr(c->hosts[1].fs, none, &attr), -ESTALE);
	CU_ASSERT_EQUAL(fs_lookup(c->hosts[1].fs, fs_root(c->hosts[1].fs), "name", &attr), 0);
	CU_ASSERT_EQUAL(attr.id, named);
	CU_ASSERT_EQUAL(attr.nlink, 1);
	CU_ASSERT_TRUE(reads_back(c->hosts[1].fs, named));
}

/* Power fails just after each step, of what was not flushed any part may be gone: no fault, and all or nothing. */
static void power_cut(struct cluster *c)
{
	struct fs_attr attr;
	struct fs_file *f;
	uint64_t id;
	int err;

	cluster_alone(c);
	f = make(c->fs, &id);
	CU_ASSERT_EQUAL(fs_fsync(c->fs, f, false), 0);
	CU_ASSERT_EQUAL(fs_link(c->fs, id, fs_root(c->fs), "name", &attr), 0);
	cluster_sleep(c, sim_random(c->sim) % 5);
	cluster_crash(c, 0);
	simdisk_power_cut(c->disk, SIMDISK_KEEP_RANDOM);
	cluster_check(c);
	CU_ASSERT_EQUAL_FATAL(cluster_attach(c, 0, 0), 0);
	cluster_sleep(c, 5000);
	err = fs_lookup(c->fs, fs_root(c->fs), "name", &attr);
	CU_ASSERT_TRUE(err == 0 || err == -ENOENT);
	if (!err)
		CU_ASSERT_TRUE(attr.id == id && reads_back(c->fs, id));
	if (err)
		CU_ASSERT_EQUAL(fs_getattr(c->fs, id, &attr), -ESTALE);
}

static void test_a_power_cut_leaves_all_or_nothing(void)
{
	for (uint64_t seed = 40; seed < 50; seed++)
		cluster_run(seed, SIZE, power_cut);
}

IN_CLUSTER(it_goes_with_its_last_close)
IN_CLUSTER(it_stays_with_a_name)
IN_CLUSTER(what_lost_its_name_gets_none)
IN_CLUSTER(a_crash_deletes_it_unless_it_has_a_name)

UNIT_MAIN("unnamed",
	UNIT_TEST(test_it_goes_with_its_last_close),
	UNIT_TEST(test_it_stays_with_a_name),
	UNIT_TEST(test_what_lost_its_name_gets_none),
	UNIT_TEST(test_a_crash_deletes_it_unless_it_has_a_name),
	UNIT_TEST(test_a_power_cut_leaves_all_or_nothing)
);
