/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "block/blkfile.h"
#include "tests/unit.h"

#define SIZE	(4 * MIB)

static char dir[64];
static char path[96];
static char why[512];

static unsigned int punches;
static off64_t punched, longest_punch;

/* In the place of the C library's, for the product, too. */
int fallocate64(int fd, int mode, off64_t off, off64_t len)
{
	punches++;
	punched += len;
	longest_punch = len > longest_punch ? len : longest_punch;
	return (int)syscall(SYS_fallocate, fd, mode, off, len);
}

static void make_file(const char *base)
{
	int fd;

	snprintf(dir, sizeof(dir), "%s/blkfile-XXXXXX", base);
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(dir));
	setenv("LUNFS_LOCK_DIR", dir, 1);
	snprintf(path, sizeof(path), "%s/lun.img", dir);
	fd = open(path, O_CREAT | O_RDWR, 0600);
	CU_ASSERT_FATAL(fd >= 0 && ftruncate(fd, SIZE) == 0);
	close(fd);
}

static struct blkdev *open_file(unsigned int flags)
{
	struct blkdev *dev = NULL;
	int err = blkfile_open(env_posix(), path, flags, &dev, why, sizeof(why));

	CU_ASSERT_EQUAL_FATAL(err, 0);
	return dev;
}

static void remove_files(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", dir);
	CU_ASSERT_EQUAL(system(command), 0);
}

/* What is written through one handle is what another one reads, by every way there is. */
static void round_trip(unsigned int flags, uint32_t sector)
{
	struct blkdev *a, *b;
	uint8_t *out, *in;
	struct iovec iov[2][2];
	struct blk_io ios[2];
	int i;

	a = open_file(flags);
	b = open_file(flags);
	CU_ASSERT_EQUAL(a->info.sector, sector);
	CU_ASSERT_EQUAL(a->info.size, SIZE);
	out = blkdev_alloc(65536);
	in = blkdev_alloc(65536);
	for (i = 0; i < 65536; i++)
		out[i] = (uint8_t)(i * 7 + i / 256);
	CU_ASSERT_EQUAL(blkdev_write(a, 8192, out, 65536), 0);
	CU_ASSERT_EQUAL(blkdev_flush(a), 0);
	CU_ASSERT_EQUAL(blkdev_read(b, 8192, in, 65536), 0);
	CU_ASSERT_EQUAL(memcmp(in, out, 65536), 0);

	memset(in, 0, 65536);
	memset(ios, 0, sizeof(ios));
	for (i = 0; i < 2; i++) {
		iov[i][0] = (struct iovec){ in + 16384 * i, 4096 };
		iov[i][1] = (struct iovec){ in + 16384 * i + 4096, 12288 };
		ios[i] = (struct blk_io){ .op = BLK_READ, .off = 8192 + 16384 * (uint64_t)i,
					  .len = 16384, .iov = iov[i], .iovcnt = 2 };
	}
	CU_ASSERT_EQUAL(blkdev_rw_batch(b, ios, 2), 0);
	CU_ASSERT_EQUAL(memcmp(in, out, 32768), 0);

	CU_ASSERT_EQUAL(blkdev_zero(a, 8192, 4096), 0);
	CU_ASSERT_EQUAL(blkdev_read(b, 8192, in, 4096), 0);
	for (i = 0; i < 4096; i++)
		CU_ASSERT_EQUAL_FATAL(in[i], 0);
	CU_ASSERT_EQUAL(blkdev_discard(a, 16384, 4096), 0);
	free(out);
	free(in);
	blkdev_close(a);
	blkdev_close(b);
}

static void file_on_disk_reads_back_what_was_written(void)
{
	struct blkdev *dev;

	make_file("/var/tmp");
	round_trip(0, 512);
	round_trip(BLKFILE_SECTOR_4K, 4096);
	round_trip(BLKFILE_BUFFERED, 512);
	dev = open_file(BLKFILE_BUFFERED);
	CU_ASSERT_FALSE(dev->info.direct);
	blkdev_close(dev);
	remove_files();
}

/* Where O_DIRECT is refused the file opens all the same, and says so. */
static void file_on_tmpfs_reads_back_what_was_written(void)
{
	make_file("/dev/shm");
	round_trip(0, 512);
	remove_files();
}

/* A request outside the device must not reach the kernel: a file would grow. */
static void request_out_of_range_or_misaligned_is_refused(void)
{
	struct blkdev *dev;
	struct stat st;
	uint8_t *buf;

	make_file("/var/tmp");
	dev = open_file(0);
	buf = blkdev_alloc(8192);
	CU_ASSERT_EQUAL(blkdev_write(dev, SIZE, buf, 4096), -EINVAL);
	CU_ASSERT_EQUAL(blkdev_write(dev, SIZE - 512, buf, 4096), -EINVAL);
	CU_ASSERT_EQUAL(blkdev_write(dev, UINT64_MAX - 511, buf, 4096), -EINVAL);
	CU_ASSERT_EQUAL(blkdev_write(dev, 100, buf, 4096), -EINVAL);
	CU_ASSERT_EQUAL(blkdev_write(dev, 0, buf, 100), -EINVAL);
	CU_ASSERT_EQUAL(blkdev_write(dev, 0, buf + 8, 4096), -EINVAL);
	CU_ASSERT_EQUAL(stat(path, &st), 0);
	CU_ASSERT_EQUAL(st.st_size, SIZE);
	free(buf);
	blkdev_close(dev);
	remove_files();
}

static void read_only_handle_refuses_writes(void)
{
	struct blkdev *dev;
	uint8_t *buf;

	make_file("/var/tmp");
	dev = open_file(BLKFILE_READ_ONLY);
	buf = blkdev_alloc(4096);
	CU_ASSERT_EQUAL(blkdev_read(dev, 0, buf, 4096), 0);
	CU_ASSERT_EQUAL(blkdev_write(dev, 0, buf, 4096), -EROFS);
	CU_ASSERT_EQUAL(blkdev_caw(dev, 0, buf, buf), -EROFS);
	free(buf);
	blkdev_close(dev);
	remove_files();
}

static void caw_writes_only_what_compares_equal(void)
{
	struct blkdev *dev;
	uint8_t *old, *new, *in;

	make_file("/var/tmp");
	dev = open_file(0);
	old = blkdev_alloc(4096);
	new = blkdev_alloc(4096);
	in = blkdev_alloc(4096);
	memset(new, 'n', 4096);
	CU_ASSERT_EQUAL(blkdev_caw(dev, 4096, old, new), 0);
	CU_ASSERT_EQUAL(blkdev_read(dev, 4096, in, 4096), 0);
	CU_ASSERT_EQUAL(memcmp(in, new, 512), 0);
	CU_ASSERT_EQUAL(in[512], 0);
	CU_ASSERT_EQUAL(blkdev_caw(dev, 4096, old, new), -EILSEQ);
	free(old);
	free(new);
	free(in);
	blkdev_close(dev);
	remove_files();
}

#define ADDERS	4
#define ADDS	200

/* Adds one to the counter in sector 0, ADDS times, by compare-and-write. */
static void *adder(void *arg)
{
	struct blkdev *dev = arg;
	uint64_t *old = blkdev_alloc(4096), *new = blkdev_alloc(4096);
	int i;

	for (i = 0; i < ADDS; i++) {
		int err;

		do {
			CU_ASSERT_EQUAL_FATAL(blkdev_read(dev, 0, old, 512), 0);
			new[0] = old[0] + 1;
			err = blkdev_caw(dev, 0, old, new);
		} while (err == -EILSEQ || err == -EBUSY);
		CU_ASSERT_EQUAL(err, 0);
	}
	free(old);
	free(new);
	return NULL;
}

/* Two handles (two hosts) and two threads on each: not one addition is lost. */
static void concurrent_caws_lose_no_update(void)
{
	struct blkdev *dev[2];
	pthread_t threads[ADDERS];
	uint64_t *in = blkdev_alloc(4096);
	int i;

	make_file("/var/tmp");
	dev[0] = open_file(0);
	dev[1] = open_file(0);
	for (i = 0; i < ADDERS; i++)
		pthread_create(&threads[i], NULL, adder, dev[i % 2]);
	for (i = 0; i < ADDERS; i++)
		pthread_join(threads[i], NULL);
	CU_ASSERT_EQUAL(blkdev_read(dev[0], 0, in, 512), 0);
	CU_ASSERT_EQUAL(in[0], ADDERS * ADDS);
	free(in);
	blkdev_close(dev[0]);
	blkdev_close(dev[1]);
	remove_files();
}

/* A process stopped inside its compare-and-write must not stop everybody else's. */
static void caw_of_another_sector_passes_a_held_one(void)
{
	struct blkdev *dev;
	struct blkfile_handle h;
	struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 4096, .l_len = 512 };
	uint8_t *buf = blkdev_alloc(4096);

	make_file("/var/tmp");
	dev = open_file(0);
	CU_ASSERT_EQUAL_FATAL(blkfile_handle_open(path, 0, &h, why, sizeof(why)), 0);
	CU_ASSERT_EQUAL_FATAL(fcntl(h.lock_fd, F_OFD_SETLK, &fl), 0);
	CU_ASSERT_EQUAL(blkdev_caw(dev, 4096, buf, buf), -EBUSY);
	CU_ASSERT_EQUAL(blkdev_caw(dev, 8192, buf, buf), 0);
	blkfile_handle_close(&h);
	CU_ASSERT_EQUAL(blkdev_caw(dev, 4096, buf, buf), 0);
	free(buf);
	blkdev_close(dev);
	remove_files();
}

/* A copy of a LUN must be told from the original; a moved or reopened one must not. */
static void identity_survives_a_rename_and_differs_in_a_copy(void)
{
	char command[512], first[128];
	struct blkfile_handle h;

	make_file("/var/tmp");
	CU_ASSERT_EQUAL_FATAL(blkfile_handle_open(path, 0, &h, why, sizeof(why)), 0);
	snprintf(first, sizeof(first), "%s", h.info.identity);
	blkfile_handle_close(&h);
	CU_ASSERT_NOT_EQUAL(first[0], '\0');
	snprintf(command, sizeof(command), "mv %s %s.moved && cp -a %s.moved %s", path, path, path,
		 path);
	CU_ASSERT_EQUAL_FATAL(system(command), 0);
	CU_ASSERT_EQUAL_FATAL(blkfile_handle_open(path, 0, &h, why, sizeof(why)), 0);
	CU_ASSERT_STRING_NOT_EQUAL(h.info.identity, first);
	blkfile_handle_close(&h);
	snprintf(command, sizeof(command), "%s.moved", path);
	CU_ASSERT_EQUAL_FATAL(blkfile_handle_open(command, 0, &h, why, sizeof(why)), 0);
	CU_ASSERT_STRING_EQUAL(h.info.identity, first);
	blkfile_handle_close(&h);
	remove_files();
}

/* The file is locked while a hole is punched: others' writes wait, but not for a whole disk. */
static void long_discard_is_cut_into_pieces(void)
{
	const uint64_t len = 200 * MIB;

	make_file("/var/tmp");
	CU_ASSERT_EQUAL_FATAL(truncate(path, (off_t)len + 16384), 0);
	for (int i = 0; i < 2; i++) {
		struct blkdev *dev;
		uint8_t *buf = blkdev_alloc(4096);

		memset(buf, 1, 4096);
		dev = open_file(0);
		/* The last block of it, and the ones on either side. */
		CU_ASSERT_EQUAL(blkdev_write(dev, 4096, buf, 4096), 0);
		CU_ASSERT_EQUAL(blkdev_write(dev, 8192 + len - 4096, buf, 4096), 0);
		CU_ASSERT_EQUAL(blkdev_write(dev, 8192 + len, buf, 4096), 0);
		punches = 0;
		punched = longest_punch = 0;
		CU_ASSERT_EQUAL(i ? blkdev_zero(dev, 8192, len) : blkdev_discard(dev, 8192, len), 0);
		CU_ASSERT_EQUAL(punches, 4);
		CU_ASSERT_EQUAL(punched, (off64_t)len);
		CU_ASSERT(longest_punch <= (off64_t)(64 * MIB));
		CU_ASSERT_EQUAL(blkdev_read(dev, 8192 + len - 4096, buf, 4096), 0);
		CU_ASSERT(!buf[0] && !memcmp(buf, buf + 1, 4095));
		for (int k = 0; k < 2; k++) {
			CU_ASSERT_EQUAL(blkdev_read(dev, k ? 8192 + len : 4096, buf, 4096), 0);
			CU_ASSERT(buf[0] == 1 && !memcmp(buf, buf + 1, 4095));
		}
		free(buf);
		blkdev_close(dev);
	}
	remove_files();
}

static void what_is_no_device_is_refused_with_its_name(void)
{
	struct blkfile_handle h;

	make_file("/var/tmp");
	CU_ASSERT_EQUAL(blkfile_handle_open(dir, BLKFILE_READ_ONLY | BLKFILE_BUFFERED, &h, why,
					    sizeof(why)), -ENOTBLK);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, dir));
	CU_ASSERT_EQUAL(blkfile_handle_open("/nonexistent/lun", 0, &h, why, sizeof(why)), -ENOENT);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "/nonexistent/lun"));
	remove_files();
}

UNIT_MAIN("block/blkfile",
	  UNIT_TEST(file_on_disk_reads_back_what_was_written),
	  UNIT_TEST(file_on_tmpfs_reads_back_what_was_written),
	  UNIT_TEST(request_out_of_range_or_misaligned_is_refused),
	  UNIT_TEST(read_only_handle_refuses_writes),
	  UNIT_TEST(caw_writes_only_what_compares_equal),
	  UNIT_TEST(concurrent_caws_lose_no_update),
	  UNIT_TEST(caw_of_another_sector_passes_a_held_one),
	  UNIT_TEST(identity_survives_a_rename_and_differs_in_a_copy),
	  UNIT_TEST(long_discard_is_cut_into_pieces),
	  UNIT_TEST(what_is_no_device_is_refused_with_its_name));
