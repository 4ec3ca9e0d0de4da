// SPDX-License-Identifier: Apache-2.0
/* Real files and threads without memory: an error, and nothing is left open. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/table.h"
#include "block/blkfile.h"
#include "lockd/gate.h"
#include "base/reactor.h"
#include "tests/nomem/each.h"

static char dir[64], path[96], why[512];

static void make_file(void)
{
	const char *tmp = getenv("TMPDIR");
	int fd;

	snprintf(dir, sizeof(dir), "%.40s/nomem-XXXXXX", tmp ? tmp : "/tmp");
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(dir));
	setenv("LUNFS_LOCK_DIR", dir, 1);
	snprintf(path, sizeof(path), "%s/lun.img", dir);
	fd = open(path, O_CREAT | O_RDWR, 0600);
	CU_ASSERT_FATAL(fd >= 0 && ftruncate(fd, 4 * MIB) == 0);
	close(fd);
}

static unsigned int open_descriptors(void)
{
	unsigned int n = 0;

	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static uint64_t open_close(void *arg, uint64_t n, uint64_t count)
{
	unsigned int before = open_descriptors();
	struct blkdev *dev = NULL;
	uint64_t hits;
	int err;

	(void)arg;
	nomem_arm(n, count);
	err = blkfile_open(env_posix(), path, 0, &dev, why, sizeof(why));
	hits = nomem_disarm();
	CU_ASSERT_EQUAL(err, hits ? -ENOMEM : 0);
	if (err)
		CU_ASSERT_NOT_EQUAL(why[0], '\0');
	blkdev_close(dev);
	CU_ASSERT_EQUAL(open_descriptors(), before);
	return hits;
}

static void a_file_is_opened_or_not_at_all(void)
{
	struct each each = { .count = 1, .stride = 1, .run = open_close };
	char command[128];

	make_file();
	each_allocation(&each);
	nomem_note("open of a device");
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	CU_ASSERT_EQUAL(system(command), 0);
}

static void nothing(void *arg)
{
	(void)arg;
}

static uint64_t start_thread(void *arg, uint64_t n, uint64_t count)
{
	struct env_thread *t;
	uint64_t hits;
	int err;

	(void)arg;
	nomem_arm(n, count);
	err = env_thread_start(env_posix(), "nomem", nothing, NULL, &t);
	hits = nomem_disarm();
	CU_ASSERT_EQUAL(err, hits ? -ENOMEM : 0);
	if (!err)
		env_thread_join(env_posix(), t);
	return hits;
}

static void a_thread_is_started_or_not_at_all(void)
{
	struct each each = { .count = 1, .stride = 1, .run = start_thread };

	each_allocation(&each);
	nomem_note("start of a thread");
}

/* A device that cannot zero by itself has zeros written, from memory. */
static void submit_simple(struct blkdev *dev, struct blk_io **ios, unsigned int count)
{
	(void)dev;
	for (unsigned int i = 0; i < count; i++)
		ios[i]->done(ios[i], ios[i]->op == BLK_ZERO ? -ENOTSUP : 0);
}

static uint64_t zero_device(void *arg, uint64_t n, uint64_t count)
{
	static const struct blkdev_ops ops = { .submit = submit_simple };
	struct blkdev dev = { .ops = &ops, .env = env_posix(),
			      .info = { .size = MIB, .sector = 512, .mem_align = 512 } };
	uint64_t hits;
	int err;

	(void)arg;
	nomem_arm(n, count);
	err = blkdev_zero(&dev, 4096, 8192);
	hits = nomem_disarm();
	CU_ASSERT_EQUAL(err, hits ? -ENOMEM : 0);
	return hits;
}

static void zeros_are_written_or_refused(void)
{
	struct each each = { .count = 1, .stride = 1, .run = zero_device };

	each_allocation(&each);
	nomem_note("zeroing");
}

/* The lease gate, and a reactor's own way through it. */
static uint64_t open_gate(void *arg, uint64_t n, uint64_t count)
{
	static const struct blkdev_ops ops = { .submit = submit_simple };
	struct blkdev dev = { .ops = &ops, .env = env_posix(),
			      .info = { .size = MIB, .sector = 512, .mem_align = 512 } };
	struct blkdev *port = NULL;
	struct gate *gate = NULL;
	uint64_t hits;
	int err;

	(void)arg;
	nomem_arm(n, count);
	err = gate_new(env_posix(), &dev, &gate);
	if (!err)
		err = gate_port_new(gate, &dev, &port);
	hits = nomem_disarm();
	CU_ASSERT_EQUAL(err, hits ? -ENOMEM : 0);
	blkdev_close(port);
	if (gate)
		gate_free(gate);
	return hits;
}

static void a_gate_is_made_or_not_at_all(void)
{
	struct each each = { .count = 1, .stride = 1, .run = open_gate };

	each_allocation(&each);
	nomem_note("the lease gate");
}

/* Growing is optional: without memory a table only gets slower. */
static uint64_t fill_table(void *arg, uint64_t n, uint64_t count)
{
	static struct table_node nodes[100];
	struct table t;
	uint64_t hits;

	(void)arg;
	table_init(&t);
	nomem_arm(n, count);
	if (table_reserve(&t))
		CU_ASSERT_EQUAL(table_reserve(&t), 0);
	for (unsigned int i = 0; i < 100; i++)
		CU_ASSERT_EQUAL(table_insert(&t, &nodes[i], i), 0);
	hits = nomem_disarm();
	for (unsigned int i = 0; i < 100; i++) {
		CU_ASSERT_PTR_EQUAL(table_find(&t, i), &nodes[i]);
		table_remove(&t, &nodes[i]);
	}
	table_fini(&t);
	return hits;
}

static void a_table_works_without_growing(void)
{
	struct each each = { .count = 1, .stride = 1, .run = fill_table };

	each_allocation(&each);
	nomem_note("tables");
}

static uint64_t make_reactor(void *arg, uint64_t n, uint64_t count)
{
	struct reactor *r;
	uint64_t hits;
	int err;

	(void)arg;
	nomem_arm(n, count);
	err = reactor_create(env_posix(), "nomem", 0, 4, &r);
	hits = nomem_disarm();
	CU_ASSERT_TRUE(err == 0 || err == -ENOMEM || err == -EAGAIN);
	if (!err)
		reactor_destroy(r);
	return hits;
}

static void a_reactor_is_made_or_not_at_all(void)
{
	struct each each = { .count = 1, .stride = 1, .run = make_reactor };

	each_allocation(&each);
	nomem_note("reactors");
}

UNIT_MAIN("nomem block",
	UNIT_TEST(a_reactor_is_made_or_not_at_all),
	UNIT_TEST(a_file_is_opened_or_not_at_all),
	UNIT_TEST(a_thread_is_started_or_not_at_all),
	UNIT_TEST(zeros_are_written_or_refused),
	UNIT_TEST(a_gate_is_made_or_not_at_all),
	UNIT_TEST(a_table_works_without_growing)
);
