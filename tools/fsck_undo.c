/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a repair has overwritten, so that it can be taken back.
 *
 * A header, then records in the order of the writes: each is on its way to disk before the write
 * that it undoes.  Little-endian; a record that was cut off is that of a write that never was.
 */
#include "tools/fsck.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/text.h"

#define UNDO_MAGIC	"LUNUNDO1"
#define RECORD_MAGIC	0x44524e55u	/* "UNRD" */
#define RECORD_MAX	(64 * MIB)

struct undo_head_disk {
	char	magic[8];		/*  0 */
	uint8_t	volume[16];		/*  8  hdr.volume of its blocks */
	uint8_t	zero[36];		/* 24 */
	le32	crc;			/* 60  CRC32C of the 60 bytes before */
};
static_assert(sizeof(struct undo_head_disk) == 64, "an undo file's header");

struct undo_record_disk {
	le32	magic;			/*  0 */
	le32	length;			/*  4  bytes of data, which follow */
	le64	addr;			/*  8  on the volume */
	le64	number;			/* 16  from 0 */
	le32	data_crc;		/* 24 */
	le32	crc;			/* 28  CRC32C of the 28 bytes before */
};
static_assert(sizeof(struct undo_record_disk) == 32, "an undo file's record");

struct undo_writer {
	int	fd;
	uint64_t count;
};

static int write_all(int fd, const void *data, size_t len)
{
	const uint8_t *p = data;

	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

int undo_create(const char *path, const uint8_t volume[16], struct undo_writer **out, char *why,
		size_t why_size)
{
	struct undo_head_disk head = { .magic = UNDO_MAGIC };
	struct undo_writer *u = calloc(1, sizeof(*u));
	int err;

	if (!u)
		return -ENOMEM;
	memcpy(head.volume, volume, 16);
	head.crc = cpu_to_le32(crc32c(0, &head, offsetof(struct undo_head_disk, crc)));
	u->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	err = u->fd < 0 ? -errno : write_all(u->fd, &head, sizeof(head));
	if (!err && fsync(u->fd))
		err = -errno;
	if (!err) {
		*out = u;
		return 0;
	}
	if (u->fd >= 0)
		close(u->fd);
	free(u);
	return text_refuse(err, why, why_size, "undo file %s: %s", path, strerror(-err));
}

int undo_write(struct undo_writer *u, uint64_t addr, const void *old, size_t len)
{
	struct undo_record_disk r = {
		.magic = cpu_to_le32(RECORD_MAGIC), .length = cpu_to_le32((uint32_t)len),
		.addr = cpu_to_le64(addr), .number = cpu_to_le64(u->count),
		.data_crc = cpu_to_le32(crc32c(0, old, len)),
	};
	int err;

	r.crc = cpu_to_le32(crc32c(0, &r, offsetof(struct undo_record_disk, crc)));
	err = write_all(u->fd, &r, sizeof(r));
	if (!err)
		err = write_all(u->fd, old, len);
	if (!err && fdatasync(u->fd))
		err = -errno;
	u->count += !err;
	return err;
}

uint64_t undo_close(struct undo_writer *u)
{
	uint64_t count = u->count;

	close(u->fd);
	free(u);
	return count;
}

/* ---- taking back ---- */

struct place { off_t data; uint64_t addr; uint32_t len, crc; };

struct undo_reader {
	int	fd;
	char	path[256];		/* for messages */
	struct super super;
	struct place *places;
	uint64_t count, room;
};

static int read_at(int fd, off_t at, void *data, size_t len)
{
	ssize_t n = pread(fd, data, len, at);

	return n < 0 ? -errno : (size_t)n == len ? 0 : -ENODATA;
}

static int read_head(const struct undo_reader *u, char *why, size_t why_size)
{
	struct undo_head_disk head;
	int err = read_at(u->fd, 0, &head, sizeof(head));

	if (err && err != -ENODATA)
		return text_refuse(err, why, why_size, "undo file %s: %s", u->path, strerror(-err));
	if (err || memcmp(head.magic, UNDO_MAGIC, sizeof(head.magic)) != 0 ||
	    le32_to_cpu(head.crc) != crc32c(0, &head, offsetof(struct undo_head_disk, crc)))
		return text_refuse(-EINVAL, why, why_size, "%s: is no undo file of fsck.lunfs",
				   u->path);
	if (memcmp(head.volume, u->super.volume, 16) != 0)
		return text_refuse(-ESTALE, why, why_size, "%s: is of a repair of another volume",
				   u->path);
	return 0;
}

/* One record at @at.  Return: 1; 0 the end, or one that was cut off; negative errno. */
static int read_place(const struct undo_reader *u, off_t at, struct place *p)
{
	struct undo_record_disk r;
	int err = read_at(u->fd, at, &r, sizeof(r));
	uint64_t addr = le64_to_cpu(r.addr);
	uint32_t len = le32_to_cpu(r.length);

	if (err)
		return err == -ENODATA ? 0 : err;
	if (le32_to_cpu(r.magic) != RECORD_MAGIC || le64_to_cpu(r.number) != u->count ||
	    le32_to_cpu(r.crc) != crc32c(0, &r, offsetof(struct undo_record_disk, crc)) ||
	    len > RECORD_MAX || len % BLOCK_SIZE || addr % BLOCK_SIZE || addr > u->super.size ||
	    len > u->super.size - addr)
		return -EBADMSG;
	*p = (struct place){ at + (off_t)sizeof(r), addr, len, le32_to_cpu(r.data_crc) };
	return 1;
}

/* What a record that is whole says is kept; returns 1, or 0 where its data was cut off. */
static int check_data(const struct undo_reader *u, const struct place *p)
{
	uint8_t *data = blkdev_alloc(p->len ? p->len : BLOCK_SIZE);
	int err = data ? read_at(u->fd, p->data, data, p->len) : -ENOMEM;

	if (!err && crc32c(0, data, p->len) != p->crc)
		err = -EBADMSG;
	free(data);
	return err == -ENODATA ? 0 : err ? err : 1;
}

static int read_places(struct undo_reader *u)
{
	off_t at = sizeof(struct undo_head_disk);
	struct place p;
	int found;

	for (;;) {
		found = read_place(u, at, &p);
		if (found > 0)
			found = check_data(u, &p);
		if (found <= 0)
			return found;
		if (u->count == u->room) {
			uint64_t room = 2 * u->room + 64;
			struct place *bigger = realloc(u->places, room * sizeof(p));

			if (!bigger)
				return -ENOMEM;
			u->places = bigger;
			u->room = room;
		}
		u->places[u->count++] = p;
		at = p.data + (off_t)p.len;
	}
}

int undo_open(const char *path, const struct super *s, struct undo_reader **out, char *why,
	      size_t why_size)
{
	struct undo_reader *u = calloc(1, sizeof(*u));
	int err;

	if (!u)
		return -ENOMEM;
	snprintf(u->path, sizeof(u->path), "%s", path);
	u->super = *s;
	u->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (u->fd < 0)
		err = text_refuse(-errno, why, why_size, "undo file %s: %s", u->path,
				  strerror(errno));
	else
		err = read_head(u, why, why_size);
	if (!err) {
		err = read_places(u);
		if (err)
			text_refuse(err, why, why_size, "undo file %s: %s", u->path,
				    err == -EBADMSG ? "is damaged" : strerror(-err));
	}
	if (err)
		undo_free(u);
	else
		*out = u;
	return err;
}

uint64_t undo_count(const struct undo_reader *u)
{
	return u->count;
}

/* Whoever takes back holds a slot and has marked the superblock. */
static bool is_claims_own(const struct super *s, uint64_t addr)
{
	return addr == SUPER_ADDR || addr == s->copy_addr || addr == super_end_addr(s) ||
	       (addr >= s->slots_addr &&
		addr < s->slots_addr + (uint64_t)s->slot_count * BLOCK_SIZE);
}

static int write_back(const struct undo_reader *u, const struct place *p, struct blkdev *dev)
{
	uint8_t *data;
	int err;

	if (!p->len || is_claims_own(&u->super, p->addr))
		return 0;
	data = blkdev_alloc(p->len);
	if (!data)
		return -ENOMEM;
	err = read_at(u->fd, p->data, data, p->len);
	if (!err && crc32c(0, data, p->len) != p->crc)
		err = -EBADMSG;
	if (!err)
		err = blkdev_write(dev, p->addr, data, p->len);
	free(data);
	return err;
}

int undo_apply(struct undo_reader *u, struct blkdev *dev, char *why, size_t why_size)
{
	int err = 0;

	for (uint64_t i = u->count; i-- && !err;)
		err = write_back(u, &u->places[i], dev);
	if (!err)
		err = blkdev_flush(dev);
	if (err)
		text_refuse(err, why, why_size, "undo file %s: cannot be written back: %s; the "
			    "volume is half restored: try again", u->path, strerror(-err));
	return err;
}

void undo_free(struct undo_reader *u)
{
	if (u->fd >= 0)
		close(u->fd);
	free(u->places);
	free(u);
}
