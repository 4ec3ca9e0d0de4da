/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A check reads all metadata there is, and nothing else.  So a dump is what passes when one runs:
 * the device that it is given notes each block on its way.
 *
 * The file is gzip: a header, then records of address and block, ended by one of address 2^64 - 1.
 */
#include "tools/debug_dump.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "base/table.h"
#include "base/text.h"
#include "fs/check.h"
#include "tools/debug_scramble.h"

#define DUMP_MAGIC	"LUNDUMP1"

struct dump_head_disk {
	char	magic[8];		/*  0 */
	le64	size;			/*  8  of the volume, bytes */
	uint8_t	zero[48];		/* 16 */
};
static_assert(sizeof(struct dump_head_disk) == 64, "a dump's header");

struct dump_record_disk {
	le64	addr;			/*  0  UINT64_MAX: the end, nothing follows */
	uint8_t	block[BLOCK_SIZE];	/*  8 */
};
static_assert(sizeof(struct dump_record_disk) == BLOCK_SIZE + 8, "a dump's record");

/* ---- the device in between ---- */

struct noted { struct table_node node; };	/* key: address */

struct recorder {
	struct blkdev	dev;
	struct blkdev	*lower;
	gzFile		out;
	struct table	seen;
	uint64_t	blocks;
	struct scramble	*scramble;	/* NULL: names as they are */
	int		err;
};

/* What a small file holds is no metadata, though it lies within.  In a journal it stays: the
 * transaction would not count any more. */
static void leave_contents_out(struct inode_disk *d, uint64_t addr)
{
	uint64_t number = le64_to_cpu(d->hdr.owner);
	struct meta_expect e = { META_INODE, d->hdr.volume, inode_block_addr(number), number, 0 };
	uint8_t volume[16];

	if (e.addr != addr || meta_verify(d, &e, NULL, 0) || !S_ISREG(le32_to_cpu(d->mode)) ||
	    !(le32_to_cpu(d->flags) & INODE_INLINE))
		return;
	memcpy(volume, d->hdr.volume, sizeof(volume));
	e.volume = volume;
	memset(d->root, 'x', sizeof(d->root));
	meta_seal(d, &e, meta_version(d));
}

/* Of a journal that holds nothing any more only the tail: its ring still has the old names. */
static bool is_old_journal(const struct super *s, uint64_t addr)
{
	uint64_t off = addr - s->journals_addr;

	return addr >= s->journals_addr && off < s->slot_count * s->journal_size &&
	       off % s->journal_size >= JOURNAL_TAIL_BLOCKS * BLOCK_SIZE;
}

static int note_block(struct recorder *r, uint64_t addr, const uint8_t *block)
{
	struct dump_record_disk rec = { .addr = cpu_to_le64(addr) };
	struct noted *n;

	if (table_find(&r->seen, addr) || (r->scramble && is_old_journal(r->scramble->s, addr)))
		return 0;
	n = malloc(sizeof(*n));
	if (!n || table_insert(&r->seen, &n->node, addr)) {
		free(n);
		return -ENOMEM;
	}
	memcpy(rec.block, block, BLOCK_SIZE);
	leave_contents_out((struct inode_disk *)(void *)rec.block, addr);
	if (r->scramble)
		scramble_block(r->scramble, addr, rec.block);
	r->blocks++;
	return gzwrite(r->out, &rec, sizeof(rec)) == sizeof(rec) ? 0 : -EIO;
}

static int recorder_run(struct blkdev *dev, struct blk_io *io)
{
	struct recorder *r = container_of(dev, struct recorder, dev);
	uint64_t off = io->off;
	int err = io->op == BLK_READ ? 0 : -EROFS;

	for (int i = 0; i < io->iovcnt && !err; i++) {
		const struct iovec *v = &io->iov[i];

		err = blkdev_read(r->lower, off, v->iov_base, v->iov_len);
		for (size_t at = 0; !err && !r->err && at + BLOCK_SIZE <= v->iov_len;
		     at += BLOCK_SIZE)
			r->err = note_block(r, off + at, (const uint8_t *)v->iov_base + at);
		off += v->iov_len;
	}
	return err;
}

static void recorder_submit(struct blkdev *dev, struct blk_io **ios, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		ios[i]->done(ios[i], recorder_run(dev, ios[i]));
}

static void recorder_close(struct blkdev *dev)
{
	(void)dev;	/* on its user's stack */
}

static const struct blkdev_ops recorder_ops = {
	.submit = recorder_submit, .run = recorder_run, .close = recorder_close,
};

static void forget(struct table_node *n, void *arg)
{
	table_remove(arg, n);
	free(container_of(n, struct noted, node));
}

/* ---- dumping ---- */

static void ignore(void *arg, const struct check_finding *f)
{
	(void)arg;	/* whoever restores it will find the same */
	(void)f;
}

static int run_check(struct recorder *r, char *why, size_t why_size)
{
	struct check_params p = { .env = env_posix(), .dev = &r->dev, .report = ignore };
	struct dump_record_disk end = { .addr = cpu_to_le64(UINT64_MAX) };
	struct check_result result;
	int err = check_volume(&p, &result, why, why_size);

	if (!err)
		err = r->err;
	if (!err && r->scramble && (result.transactions || result.hosts_live))
		return text_refuse(-EBUSY, why, why_size, "%s: names are not scrambled while hosts use "
				   "the volume or journals hold what is not at home; detach it, "
				   "after a crash attach and detach it once", r->lower->info.name);
	if (!err && gzwrite(r->out, &end, sizeof(end.addr)) != sizeof(end.addr))
		err = -EIO;
	return err;
}

/* A new file: what is there already may be worth more. */
static int create(const char *path, int *fd, char *why, size_t why_size)
{
	*fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	return *fd >= 0 ? 0 : text_refuse(-errno, why, why_size, "%s: %s", path, strerror(errno));
}

int debug_dump(struct blkdev *dev, const char *path, bool scramble,
	       uint64_t *blocks, char *why, size_t why_size)
{
	struct recorder r = { .dev = { .ops = &recorder_ops, .info = dev->info }, .lower = dev };
	struct dump_head_disk head = { .magic = DUMP_MAGIC };
	struct scramble names;
	struct super s;
	int fd, err = super_find(dev, &s, why, why_size);

	if (!err)
		err = create(path, &fd, why, why_size);
	if (err)
		return err;
	table_init(&r.seen);
	head.size = cpu_to_le64(s.size);
	r.out = gzdopen(fd, "wb");
	if (!r.out)
		close(fd);
	err = r.out && gzwrite(r.out, &head, sizeof(head)) == sizeof(head) ? 0 : -EIO;
	if (!err && scramble) {
		err = scramble_init(&names, dev, &s);
		r.scramble = &names;
	}
	if (!err)
		err = run_check(&r, why, why_size);
	if (r.out && gzclose(r.out) != Z_OK && !err)
		err = -EIO;
	if (r.scramble)
		scramble_fini(r.scramble);
	table_each(&r.seen, forget, &r.seen);
	table_fini(&r.seen);
	*blocks = r.blocks;
	if (err) {
		unlink(path);
		if (!why[0])
			text_refuse(err, why, why_size, "%s: %s", path, strerror(-err));
	}
	return err;
}

/* ---- restoring ---- */

static int read_head(gzFile in, uint64_t *size)
{
	struct dump_head_disk head;

	if (gzread(in, &head, sizeof(head)) != sizeof(head) ||
	    memcmp(head.magic, DUMP_MAGIC, sizeof(head.magic)) != 0)
		return -EINVAL;
	*size = le64_to_cpu(head.size);
	return *size >= VOLUME_SIZE_MIN && *size <= 1ULL << 60 ? 0 : -EBADMSG;
}

/* Return: 1 one block more; 0 the end; negative errno. */
static int restore_one(gzFile in, int fd, uint64_t size)
{
	struct dump_record_disk rec;
	uint64_t addr;

	if (gzread(in, &rec.addr, sizeof(rec.addr)) != sizeof(rec.addr))
		return -EBADMSG;
	addr = le64_to_cpu(rec.addr);
	if (addr == UINT64_MAX)
		return 0;
	if (addr % BLOCK_SIZE || addr > size - BLOCK_SIZE ||
	    gzread(in, rec.block, BLOCK_SIZE) != (int)BLOCK_SIZE)
		return -EBADMSG;
	return pwrite(fd, rec.block, BLOCK_SIZE, (off_t)addr) == (ssize_t)BLOCK_SIZE ? 1 :
	       errno ? -errno : -EIO;
}

static int restore_all(gzFile in, const char *path, uint64_t *blocks, char *why, size_t why_size)
{
	uint64_t size;
	int fd, more, err = read_head(in, &size);

	if (!err)
		err = create(path, &fd, why, why_size);
	if (err)
		return err;
	more = ftruncate(fd, (off_t)size) ? -errno : 1;
	for (*blocks = 0; more > 0; *blocks += more > 0)
		more = restore_one(in, fd, size);
	if (close(fd) && !more)
		more = -errno;
	if (more)
		unlink(path);
	return more;
}

int debug_restore(const char *dump, const char *path, uint64_t *blocks, char *why, size_t why_size)
{
	gzFile in = gzopen(dump, "rbe");
	int err;

	if (!in)
		return text_refuse(-errno, why, why_size, "%s: %s", dump, strerror(errno));
	why[0] = '\0';
	err = restore_all(in, path, blocks, why, why_size);
	gzclose(in);
	if (err && !why[0])
		text_refuse(err, why, why_size, "%s: %s", err == -EINVAL || err == -EBADMSG ? dump :
			    path, err == -EINVAL ? "is no dump of lunfs debug" :
			    err == -EBADMSG ? "is damaged, or cut off" : strerror(-err));
	return err;
}
