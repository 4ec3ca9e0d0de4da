// SPDX-License-Identifier: Apache-2.0
/*
 * The volume that the fuzzer damages: small, but with every type of block on it, an orphan, and
 * a journal that was not replayed, as a host leaves it that dies.
 */
#include <fcntl.h>

#include "fs/mkfs.h"
#include "tests/fuzz/volume.h"

#define NAMES		4400u	/* of 200 bytes: enough leaves for a level of nodes above them */

const uint8_t volume_host_id[16] = "host of a volume";
const uint8_t volume_boot_id[16] = "boot of a volume";

struct maker {
	struct volume *v;
	struct sim *sim;
	struct simdisk *disk;
	struct env *env;
	struct fs *fs;
	struct fs_cred cred;
	bool images;
	struct simdisk_image *old;	/* an earlier state */
};

static uint64_t make(struct maker *m, uint64_t dir, const char *name, uint32_t mode)
{
	struct fs_attr a;

	must(fs_create(m->fs, dir, name, mode, 0, &m->cred, &a));
	return a.id;
}

static void put(struct maker *m, uint64_t id, uint64_t off, size_t len)
{
	uint8_t *buf = blkdev_alloc(ALIGN_UP(len, (size_t)BLOCK_SIZE));
	struct fs_file *f;
	size_t done;

	memset(buf, 'x', len);
	must(fs_open(m->fs, id, FS_OPEN_WRITE, &m->cred, &f, NULL));
	must(fs_write(m->fs, f, off, buf, len, false, &done));
	must(fs_close(m->fs, f));
	free(buf);
}

static void make_big_directory(struct maker *m, uint64_t root)
{
	uint64_t dir = make(m, root, NAME_BIG, S_IFDIR | 0755);
	uint64_t file = make(m, dir, "0", S_IFREG | 0644);
	struct fs_attr a;
	char name[201];

	for (unsigned int i = 0; i < NAMES; i++) {
		snprintf(name, sizeof(name), "%0200u", i);
		must(fs_link(m->fs, file, dir, name, &a));
	}
}

static void make_files(struct maker *m, uint64_t root)
{
	static const char acl[] = "\2\0\0\0" "\1\0\6\0\377\377\377\377" "\4\0\4\0\377\377\377\377"
				  "\40\0\4\0\377\377\377\377";
	uint64_t id = make(m, root, "inline", S_IFREG | 0644);
	uint64_t dir = make(m, root, "d", S_IFDIR | 02755);
	struct fs_attr a;

	put(m, id, 0, 100);
	must(xattr_set(m->fs, id, "user.note", "hello", 5, 0));
	must(xattr_set(m->fs, id, "system.posix_acl_access", acl, sizeof(acl) - 1, 0));
	put(m, make(m, dir, "small", S_IFREG | 0600), 0, 20000);
	id = make(m, dir, NAME_SPARSE, S_IFREG | 0600);
	put(m, id, 0, 4096);
	put(m, id, 60 * MIB, 8192);
	put(m, id, 30 * GIB, 4096);		/* by a node */
	put(m, make(m, dir, "leaf.img", S_IFREG | 0600), 70 * MIB, 100);
	must(fs_symlink(m->fs, dir, "link", "../inline", &m->cred, &a));
	make(m, dir, "fifo", S_IFIFO | 0600);
	make(m, make(m, dir, "sub", S_IFDIR | 0700), "deep", S_IFREG | 0600);
}

/* ---- what there is on it ---- */

static bool is_valid(struct volume *v, uint64_t addr, const void *block)
{
	const struct meta_hdr_disk *h = block;
	struct meta_expect e = { le32_to_cpu(h->magic), v->super.volume, addr,
				 le64_to_cpu(h->owner), le32_to_cpu(h->birth) };

	return strcmp(meta_type_name(e.type), "unknown") && !meta_verify(block, &e, NULL, 0);
}

static void add_block(struct maker *m, uint64_t addr, unsigned int txn)
{
	struct volume *v = m->v;
	struct mblock *b = &v->blocks[v->count++];

	FUZZ_CHECK(v->count <= BLOCKS_MAX);
	simdisk_peek(m->disk, addr, b->data, BLOCK_SIZE);
	b->addr = addr;
	b->type = le32_to_cpu(((struct meta_hdr_disk *)b->data)->magic);
	b->txn = txn;
}

/* As they were a few changes ago: what a lost write leaves behind. */
static void add_old(struct maker *m)
{
	struct simdisk_image *now = simdisk_snapshot(m->disk);

	simdisk_restore(m->disk, m->old);
	for (unsigned int i = 0; i < m->v->count; i++) {
		struct mblock *b = &m->v->blocks[i];

		simdisk_peek(m->disk, b->addr, b->old, BLOCK_SIZE);
		b->has_old = memcmp(b->old, b->data, BLOCK_SIZE) != 0;
	}
	simdisk_restore(m->disk, now);
	simdisk_image_free(now);
	simdisk_image_free(m->old);
}

/* A few of each type are enough. */
static void add_home_blocks(struct maker *m)
{
	static const struct { enum meta_type type; unsigned int max, images_max; } wanted[] = {
		{ META_SUPER, 3, 3 }, { META_AG, 8, 8 }, { META_BITMAP, 3, 3 },
		{ META_ITABLE, 8, 8 }, { META_INODE, 16, 64 }, { META_MAP_NODE, 4, 8 },
		{ META_MAP_LEAF, 6, 16 }, { META_DIR_NODE, 4, 0 }, { META_DIR_LEAF, 6, 12 },
		{ META_XATTR, 4, 4 }, { META_ORPHAN, 9, 9 }, { META_TAIL, 4, 4 },
		{ META_SLOT, 3, 3 }, { META_LOCK, 12, 12 },
	};
	uint8_t block[BLOCK_SIZE];

	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++) {
		unsigned int count = 0, max = m->images ? wanted[i].images_max : wanted[i].max;

		for (uint64_t addr = SUPER_ADDR; addr < VOLUME_SIZE && count < max;
		     addr += BLOCK_SIZE) {
			simdisk_peek(m->disk, addr, block, BLOCK_SIZE);
			if (le32_to_cpu(((struct meta_hdr_disk *)block)->magic) != wanted[i].type ||
			    !is_valid(m->v, addr, block))
				continue;
			add_block(m, addr, 0);
			count++;
		}
		FUZZ_CHECK(count || !max);
	}
}

/* The ring index at which the slot's oldest transaction begins. */
static uint64_t journal_begin(struct maker *m, uint64_t start)
{
	struct journal_tail_disk t, newest = { .block = cpu_to_le64(0) };

	for (unsigned int i = 0; i < JOURNAL_TAIL_BLOCKS; i++) {
		simdisk_peek(m->disk, start + i * BLOCK_SIZE, &t, sizeof(t));
		if (meta_version(&t) > meta_version(&newest))
			newest = t;
	}
	return le64_to_cpu(newest.block);
}

static void add_journal(struct maker *m, uint32_t slot)
{
	struct blkdev *dev = simdisk_open(m->disk, m->env);
	uint64_t start = super_journal_addr(&m->v->super, slot), at = journal_begin(m, start);
	uint64_t ring = m->v->super.journal_size / BLOCK_SIZE - JOURNAL_TAIL_BLOCKS;
	unsigned int live = 0;
	char why[200];

	must(journal_scan(m->env, dev, &m->v->super, slot, NULL, NULL, &live, why, sizeof(why)));
	blkdev_close(dev);
	FUZZ_CHECK(live && live < TXNS_MAX);
	while (live--) {
		struct mtxn *t = &m->v->txns[m->v->txn_count++];
		unsigned int i = 0;

		t->desc = m->v->count;
		do {
			add_block(m, start + (JOURNAL_TAIL_BLOCKS + at) * BLOCK_SIZE,
				  m->v->txn_count);
			if (!i)
				t->count = le32_to_cpu(((struct journal_desc_disk *)
							m->v->blocks[t->desc].data)->count);
			at = (at + 1) % ring;
		} while (i++ <= t->count);
	}
}

/* ---- the world in which it is made ---- */

static void attach(struct maker *m, struct blkdev *dev, struct blkdev *hb_dev)
{
	struct fs_attach_params p = { .env = m->env, .dev = dev, .hb_dev = hb_dev, .pid = 1,
				      .pid_start = 1, .host_name = "fuzz" };
	char why[400];

	memcpy(p.host_id, volume_host_id, 16);
	memcpy(p.boot_id, volume_boot_id, 16);
	must(fs_attach(&p, &m->fs, why, sizeof(why)));
}

/* A clean state at home, then changes that are in the journal only. */
static void fill(struct maker *m)
{
	struct lock_holder holder;
	struct fs_file *open;
	uint64_t root = fs_root(m->fs), id;

	make_files(m, root);
	if (m->images)
		volume_fill_images(m->v, m->fs, &m->cred);
	else
		make_big_directory(m, root);
	must(journal_settle(m->fs));
	m->old = simdisk_snapshot(m->disk);
	id = make(m, root, "unlinked", S_IFREG | 0600);
	must(fs_open(m->fs, id, FS_OPEN_WRITE, &m->cred, &open, &holder));
	must(fs_unlink(m->fs, root, "unlinked"));
	must(fs_sync(m->fs));
	must(journal_settle(m->fs));
	make(m, root, "in-the-journal", S_IFDIR | 0755);
	must(fs_sync(m->fs));
	put(m, make(m, root, "also", S_IFREG | 0600), 0, 9000);
	must(fs_sync(m->fs));
	if (m->images)
		volume_sum_all(m->v, m->fs, &m->cred);
	m->v->image = simdisk_snapshot(m->disk);
	add_home_blocks(m);
	add_journal(m, lockd_slot(m->fs->lockd));
	add_old(m);
	must(fs_close(m->fs, open));
}

static void maker_thread(void *arg)
{
	struct maker *m = arg;
	struct blkdev *dev = simdisk_open(m->disk, m->env);
	struct blkdev *hb_dev = simdisk_open(m->disk, m->env);
	struct mkfs_params p = { .env = m->env, .dev = dev, .label = "fuzz", .slot_count = 3 };
	char why[400];

	must(mkfs(&p, &m->v->super, why, sizeof(why)));
	attach(m, dev, hb_dev);
	fill(m);
	must(fs_detach(m->fs));
	blkdev_close(hb_dev);
	blkdev_close(dev);
}

void volume_make(struct volume *v, bool images)
{
	struct simdisk_params p = { .size = VOLUME_SIZE, .sector = 512, .reservations = true,
				    .latency_min_ns = 1000, .latency_max_ns = 1000 };
	struct maker m = { .v = v, .sim = sim_new(7), .cred = { .uid = 1, .gid = 1, .pid = 1 },
			   .images = images };
	struct env_thread *thread;

	v->blocks = calloc(BLOCKS_MAX, sizeof(*v->blocks));
	m.disk = simdisk_new(m.sim, &p);
	m.env = sim_host(m.sim, "fuzz");
	FUZZ_CHECK(v->blocks);
	must(env_thread_start(m.env, "make", maker_thread, &m, &thread));
	FUZZ_CHECK(sim_run(m.sim, 3600 * NSEC_PER_SEC));
	env_thread_join(m.env, thread);
	simdisk_free(m.disk);
	sim_free(m.sim);
}
