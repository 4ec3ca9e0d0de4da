// SPDX-License-Identifier: Apache-2.0
/* Files of the fuzzer's second volume: images on images, and contents that can be told apart. */
#include <errno.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "fs/image.h"
#include "tests/fuzz/volume.h"

#define NAME_DELETED	"mid"	/* it is there for its child only */
#define SMALL		40u	/* files with long names: some leaves of a directory */
#define FAR		(70 * MIB)	/* where a map has leaves */

struct filler {
	struct volume *v;
	struct fs *fs;
	const struct fs_cred *cred;
	uint64_t dir;
	uint8_t next;		/* what the next write writes */
};

static void note(struct filler *f, const char *name, uint64_t id, uint64_t parent)
{
	struct mfile *m = &f->v->files[f->v->file_count++];

	FUZZ_CHECK(f->v->file_count <= FILES_MAX);
	snprintf(m->name, sizeof(m->name), "%s", name);
	m->id = id;
	m->parent = parent;
}

static void put(struct filler *f, uint64_t id, uint64_t off, size_t len)
{
	uint8_t *buf = blkdev_alloc(ALIGN_UP(len, (size_t)BLOCK_SIZE));
	struct fs_file *file;
	size_t done;

	FUZZ_CHECK(buf);
	memset(buf, ++f->next, len);
	must(fs_open(f->fs, id, FS_OPEN_WRITE, f->cred, &file, NULL));
	must(fs_write(f->fs, file, off, buf, len, false, &done));
	must(fs_close(f->fs, file));
	free(buf);
}

static uint64_t make(struct filler *f, const char *name, uint64_t off, size_t len)
{
	struct fs_attr a;

	must(fs_create(f->fs, f->dir, name, S_IFREG | 0644, 0, f->cred, &a));
	put(f, a.id, off, len);
	return a.id;
}

/* @name goes on as a new image on top of @id.  Return: the new image. */
static uint64_t snapshot(struct filler *f, const char *name, const char *snap)
{
	struct fs_attr a;

	must(fs_snapshot(f->fs, f->dir, name, snap, NULL, &a));
	return a.id;
}

static uint64_t clone(struct filler *f, uint64_t base, const char *name)
{
	struct fs_attr a;

	must(fs_clone(f->fs, base, f->dir, name, false, f->cred, &a));
	return a.id;
}

/* base.snap ← mid (deleted, half merged) ← base; clones on base.snap; far.snap ← far */
static void make_images(struct filler *f)
{
	uint64_t base = make(f, "base", 0, 12 * KIB), mid, top, id;
	struct merge merge = { 0 };
	struct fs_file *file;

	for (unsigned int i = 1; i < 24; i += 3)
		put(f, base, i * UNIT_SIZE + 8 * KIB, 8 * KIB);
	mid = snapshot(f, "base", "base.snap");
	note(f, "base.snap", base, 0);
	put(f, mid, 4 * KIB, 4 * KIB);
	put(f, mid, 22 * UNIT_SIZE, 4 * KIB);
	id = clone(f, base, "clone");
	put(f, id, 2 * UNIT_SIZE, 100);
	note(f, "clone", id, base);
	note(f, "clone.empty", clone(f, base, "clone.empty"), base);
	top = snapshot(f, "base", "mid.snap");
	note(f, NAME_DELETED, mid, base);
	put(f, top, 7 * UNIT_SIZE, 4 * KIB);
	note(f, "base", top, mid);
	must(fs_unlink(f->fs, f->dir, "mid.snap"));
	must(fs_open(f->fs, top, FS_OPEN_WRITE, f->cred, &file, NULL));
	FUZZ_CHECK(fs_merge_step(f->fs, file, &merge) == 1);
	must(fs_close(f->fs, file));
	id = make(f, "far", FAR, 4 * KIB);
	put(f, id, 20 * MIB, 8 * KIB);
	note(f, "far.snap", id, 0);
	top = snapshot(f, "far", "far.snap");
	put(f, top, FAR + 2 * UNIT_SIZE, 4 * KIB);
	note(f, "far", top, id);
}

static void make_small(struct filler *f)
{
	char name[201];
	uint64_t id = 0;
	struct fs_attr a;

	for (unsigned int i = 0; i < SMALL; i++) {
		snprintf(name, sizeof(name), "%0200u", i);
		id = make(f, name, 0, 1 + 70 * i);
		note(f, name + 195, id, 0);
		f->v->files[f->v->file_count - 1].small = true;
	}
	must(fs_link(f->fs, id, f->dir, "hard", &a));
	id = make(f, "shared", 0, 64 * KIB);
	must(xattr_set(f->fs, id, XATTR_MULTI, "1", 1, 0));
	note(f, "shared", id, 0);
}

void volume_fill_images(struct volume *v, struct fs *fs, const struct fs_cred *cred)
{
	struct filler f = { .v = v, .fs = fs, .cred = cred };
	struct fs_attr a;

	must(fs_create(fs, fs_root(fs), "img", S_IFDIR | 0755, 0, cred, &a));
	f.dir = a.id;
	make_images(&f);
	make_small(&f);
}

/* ---- telling contents apart ---- */

static uint32_t add_blocks(uint32_t sum, uint64_t off, const uint8_t *p, size_t len)
{
	static const uint8_t zeros[BLOCK_SIZE];

	for (size_t i = 0; i < len; i += BLOCK_SIZE, off += BLOCK_SIZE) {
		size_t n = len - i < BLOCK_SIZE ? len - i : BLOCK_SIZE;
		le64 at = cpu_to_le64(off);

		if (!memcmp(p + i, zeros, n))
			continue;
		sum = crc32c(sum, &at, sizeof(at));
		sum = crc32c(sum, p + i, n);
	}
	return sum;
}

int volume_sum(struct fs *fs, struct fs_file *f, uint32_t *sum)
{
	const size_t room = 64 * KIB;
	uint8_t *buf = blkdev_alloc(room);
	uint64_t off = 0, from;
	size_t done = 1;
	int err = 0;

	FUZZ_CHECK(buf);
	*sum = 0;
	while (done && !err) {
		err = fs_seek(fs, f, off, SEEK_DATA, &from);
		if (err)
			break;
		off = ALIGN_DOWN(from, BLOCK_SIZE);
		done = 0;
		err = fs_read(fs, f, off, buf, room, &done);
		if (!err)
			*sum = add_blocks(*sum, off, buf, done);
		off += room;
	}
	free(buf);
	return err == -ENXIO ? 0 : err;
}

void volume_sum_all(struct volume *v, struct fs *fs, const struct fs_cred *cred)
{
	struct fs_file *file;

	for (unsigned int i = 0; i < v->file_count; i++) {
		struct mfile *m = &v->files[i];

		if (strcmp(m->name, NAME_DELETED) == 0)
			continue;
		must(fs_open(fs, m->id, 0, cred, &file, NULL));
		must(volume_sum(fs, file, &m->sum));
		must(fs_close(fs, file));
	}
}
