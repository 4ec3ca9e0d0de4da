// SPDX-License-Identifier: Apache-2.0
/*
 * A virtual disk on a device that ends requests while they are submitted, as one does that refuses
 * them at once (a shrunk LUN, a lost slot), and whose users submit when theirs end.
 */
#include "fs/image.h"
#include "tests/fs/attached.h"
#include "tests/fs/disk_rig.h"

#define VOLUME	(128 * MIB)
#define DISK	(2 * MIB)
#define PIECES	30u		/* of one request; the next has as many blocks */
#define SINGLES	62u		/* with two pieces they fill a batch */
#define LARGE	5u

/* Between the disk and the volume's device: what it does not refuse or keep goes on. */
struct lower {
	struct blkdev	dev;
	struct blkdev_ops ops;
	struct blkdev	*below;
	struct blk_io	*refused;	/* ends at once; the disk sends it on as it is */
	bool		keeps;
	struct blk_io	*kept[512];
	unsigned int	kept_count;
};

struct request {
	struct blk_io	io;
	struct iovec	iov;
	struct request	*then;		/* submitted when this one ends */
	struct world	*w;
	bool		ended;
	int		err;
};

struct world {
	struct cluster	*c;
	struct disk_rig	rig;
	struct lower	lower;
	struct request	large[LARGE], singles[SINGLES];
	struct reactor_call call;
	bool		called;
};

static void lower_submit(struct blkdev *dev, struct blk_io **ios, unsigned int count)
{
	struct lower *l = container_of(dev, struct lower, dev);

	for (unsigned int i = 0; i < count; i++) {
		if (ios[i] == l->refused)
			ios[i]->done(ios[i], -EIO);
		else if (l->keeps)
			l->kept[l->kept_count++] = ios[i];
		else
			blkdev_submit(l->below, &ios[i], 1);
	}
}

static void request_done(struct blk_io *io, int err)
{
	struct request *r = container_of(io, struct request, io);
	struct blk_io *next = r->then ? &r->then->io : NULL;

	r->ended = true;
	r->err = err;
	if (next)
		blkdev_submit(r->w->rig.dev, &next, 1);
}

/* Reads the disk's first @blocks blocks. */
static void request_init(struct world *w, struct request *r, unsigned int blocks)
{
	r->w = w;
	r->iov = (struct iovec){ .iov_base = blkdev_alloc(blocks * 4096), .iov_len = blocks * 4096 };
	r->io = (struct blk_io){ .op = BLK_READ, .len = blocks * 4096, .iov = &r->iov, .iovcnt = 1,
				 .done = request_done };
}

/* In the owner's thread, as a reactor does: three large reads are under way, one more is cut. */
static void submit_all(struct reactor_call *call)
{
	struct world *w = container_of(call, struct world, call);
	struct blk_io *ios[SINGLES + 1];

	for (unsigned int i = 0; i < 3; i++) {
		ios[0] = &w->large[i].io;
		blkdev_submit(w->rig.dev, ios, 1);
	}
	w->lower.refused = &w->singles[0].io;
	w->singles[0].then = &w->large[4];
	for (unsigned int i = 0; i < SINGLES; i++)
		ios[i] = &w->singles[i].io;
	ios[SINGLES] = &w->large[3].io;
	blkdev_submit(w->rig.dev, ios, SINGLES + 1);
	w->called = true;
}

/* Blocks that lie by turns in the disk and in its snapshot: as many pieces as blocks. */
static void in_pieces(struct world *w)
{
	uint8_t *buf = blkdev_alloc(64 * 4096);
	struct fs_attr attr;
	uint64_t pause_ns;

	memset(buf, 1, 64 * 4096);
	CU_ASSERT_EQUAL(blkdev_write(w->rig.dev, 0, buf, 64 * 4096), 0);
	CU_ASSERT_EQUAL(disk_snapshot(w->rig.disk, fs_root(w->c->fs), "disk", "snap", &attr,
				      &pause_ns), 0);
	for (unsigned int i = 0; i < 64; i += 2)
		CU_ASSERT_EQUAL(blkdev_write(w->rig.dev, i * 4096, buf, 4096), 0);
	CU_ASSERT_EQUAL(blkdev_flush(w->rig.dev), 0);
	CU_ASSERT_EQUAL(blkdev_read(w->rig.dev, 0, buf, 64 * 4096), 0);
	free(buf);
}

static void begin(struct world *w)
{
	struct fs_attr attr = { 0 };

	cluster_alone(w->c);
	CU_ASSERT_EQUAL_FATAL(fs_create(w->c->fs, fs_root(w->c->fs), "disk", S_IFREG | 0600, 0,
					&cluster_cred, &attr), 0);
	attr.size = DISK;
	CU_ASSERT_EQUAL(fs_setattr(w->c->fs, attr.id, FS_SET_SIZE, &attr), 0);
	w->lower.below = w->c->fs->dev;
	w->lower.ops.submit = lower_submit;
	w->lower.dev = (struct blkdev){ .ops = &w->lower.ops, .env = w->c->hosts[0].env,
					.info = w->c->fs->dev->info };
	w->rig.lower = &w->lower.dev;
	CU_ASSERT_EQUAL_FATAL(disk_rig_open(&w->rig, w->c->hosts[0].env, w->c->fs, attr.id), 0);
	in_pieces(w);
	for (unsigned int i = 0; i < LARGE; i++)
		request_init(w, &w->large[i], PIECES);
	for (unsigned int i = 0; i < SINGLES; i++)
		request_init(w, &w->singles[i], 1);
}

static void finish(struct world *w)
{
	for (unsigned int i = 0; i < LARGE; i++) {
		CU_ASSERT(w->large[i].ended && !w->large[i].err);
		free(w->large[i].iov.iov_base);
	}
	for (unsigned int i = 0; i < SINGLES; i++) {
		CU_ASSERT(w->singles[i].ended && w->singles[i].err == (i ? 0 : -EIO));
		free(w->singles[i].iov.iov_base);
	}
	CU_ASSERT_EQUAL(disk_rig_close(&w->rig), 0);
}

static void nested_body(struct cluster *c)
{
	struct world *w = calloc(1, sizeof(*w));

	w->c = c;
	begin(w);
	w->lower.keeps = true;
	w->call.fn = submit_all;
	sim_owner_post(&w->rig.owner.owner, &w->call);
	cluster_sleep(c, 100);
	CU_ASSERT(w->called);
	CU_ASSERT(w->singles[0].ended && !w->large[3].ended && !w->large[4].ended);
	w->lower.refused = NULL;
	w->lower.keeps = false;
	for (unsigned int i = 0; i < w->lower.kept_count; i++)
		blkdev_submit(w->lower.below, &w->lower.kept[i], 1);
	cluster_sleep(c, 1000);
	finish(w);
	free(w);
}

/*
 * The request that is submitted amid the pieces of another took the memory that those were planned
 * for, and an assertion ended the daemon.
 */
static void what_is_submitted_amid_pieces_waits(void)
{
	cluster_run(5, VOLUME, nested_body);
}

UNIT_MAIN("disk_lower",
	UNIT_TEST(what_is_submitted_amid_pieces_waits)
);
