/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/journal_ring.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/crc32c.h"
#include "base/mutant.h"
#include "base/table.h"
#include "fs/journal.h"
#include "fs/super.h"

/* ---- the ring ---- */

void ring_init(struct ring *r, struct blkdev *dev, const struct super *s, uint32_t slot)
{
	memset(r, 0, sizeof(*r));
	r->dev = dev;
	r->orphans_start = s->orphans_addr;
	r->orphans_end = super_orphan_addr(s, s->slot_count, 0);
	r->groups_start = s->ag_addr;
	r->groups_end = super_end_addr(s);
	r->group_size = s->ag_size;
	r->super_copy = s->copy_addr;
	memcpy(r->volume, s->volume, sizeof(r->volume));
	r->slot = slot;
	r->addr = super_journal_addr(s, slot);
	r->blocks = s->journal_size / BLOCK_SIZE - JOURNAL_TAIL_BLOCKS;
}

int ring_rw(const struct ring *r, enum blk_op op, uint64_t block, void *buf, uint64_t count)
{
	uint64_t first = r->blocks - block;
	int err;

	assert(block < r->blocks && count <= r->blocks);
	if (first > count)
		first = count;
	err = blkdev_rw(r->dev, op, 0, ring_addr(r, block), buf, first * BLOCK_SIZE);
	if (err || first == count)
		return err;
	return blkdev_rw(r->dev, op, 0, ring_addr(r, 0), (uint8_t *)buf + first * BLOCK_SIZE,
			 (count - first) * BLOCK_SIZE);
}

static struct meta_expect ring_expect(const struct ring *r, enum meta_type type, uint64_t addr)
{
	return (struct meta_expect){
		.type = type, .volume = r->volume, .addr = addr, .owner = r->slot };
}

void ring_seal(const struct ring *r, enum meta_type type, uint64_t block, uint64_t sequence,
	       void *data)
{
	struct meta_expect e = ring_expect(r, type, ring_addr(r, block));

	meta_seal(data, &e, sequence);
}

/* ---- the tail ---- */

#define COUNTER_MAX	(1ULL << 63)
#define READS_MAX	3u	/* of a tail that does not verify */

static uint64_t tail_addr(const struct ring *r, uint64_t version)
{
	return r->addr + version % JOURNAL_TAIL_BLOCKS * BLOCK_SIZE;
}

static void tail_encode(const struct ring *r, struct journal_tail_disk *d, uint64_t sequence,
			uint64_t block, uint64_t version)
{
	struct meta_expect e = ring_expect(r, META_TAIL, tail_addr(r, version));

	memset(d, 0, sizeof(*d));
	d->sequence = cpu_to_le64(sequence);
	d->block = cpu_to_le64(block);
	meta_seal(d, &e, version);
}

static int tail_decode(struct ring *r, const struct journal_tail_disk *d, unsigned int index,
		       char *why, size_t why_size)
{
	struct meta_expect e = ring_expect(r, META_TAIL, r->addr + index * BLOCK_SIZE);
	uint64_t version;
	int err;

	err = meta_verify(d, &e, why, why_size);
	if (err)
		return err;
	version = meta_version(d);
	/* Both are counted up from there, and no journal comes near the end (R9). */
	if (version % JOURNAL_TAIL_BLOCKS != index || version > COUNTER_MAX ||
	    le64_to_cpu(d->block) >= r->blocks || !le64_to_cpu(d->sequence) ||
	    le64_to_cpu(d->sequence) > COUNTER_MAX) {
		if (why)
			snprintf(why, why_size, "journal tail at 0x%llx: values out of range",
				 (unsigned long long)e.addr);
		return -EUCLEAN;
	}
	if (version > r->version) {
		r->version = version;
		r->sequence = le64_to_cpu(d->sequence);
		r->block = le64_to_cpu(d->block);
	}
	return 0;
}

/* How many of the tail blocks at @d are believed; the newest of them is in @r then. */
static unsigned int tails_decode(struct ring *r, const struct journal_tail_disk *d, int *bad,
				 char *why, size_t why_size)
{
	unsigned int i, good = 0;
	int err;

	for (i = 0; i < JOURNAL_TAIL_BLOCKS; i++) {
		err = tail_decode(r, &d[i], i, good ? NULL : why, why_size);
		good += err == 0;
		*bad = err ? err : *bad;
	}
	return good;
}

int ring_read_tail(struct ring *r, char *why, size_t why_size)
{
	struct journal_tail_disk d[JOURNAL_TAIL_BLOCKS] BLKDEV_ALIGNED;
	unsigned int tries, good = 0;
	int err = 0, bad = 0;

	r->version = 0;
	/*
	 * A bit that flips on the way must not bring the older tail into force: replaying from
	 * there would write over what others own by now (R1).
	 */
	for (tries = 0; !err && good < JOURNAL_TAIL_BLOCKS && tries < READS_MAX; tries++) {
		err = blkdev_read(r->dev, r->addr, d, sizeof(d));
		if (!err)
			good = tails_decode(r, d, &bad, why, why_size);
	}
	if (err && why)
		snprintf(why, why_size, "journal of slot %u at 0x%llx cannot be read: %s", r->slot,
			 (unsigned long long)r->addr, strerror(-err));
	/* One bad block is what a crash amid ring_write_tail() leaves; two are damage. */
	if (!err && !r->version)
		err = bad ? bad : -EUCLEAN;
	return err;
}

int ring_write_tail(struct ring *r, uint64_t sequence, uint64_t block)
{
	struct journal_tail_disk d BLKDEV_ALIGNED;
	uint64_t version = r->version + 1;
	int err;

	tail_encode(r, &d, sequence, block, version);
	err = blkdev_write(r->dev, tail_addr(r, version), &d, BLOCK_SIZE);
	if (!err) {
		r->version = version;
		r->sequence = sequence;
		r->block = block;
	}
	return err;
}

int journal_format(struct env *env, struct blkdev *dev, const struct super *s, uint32_t slot)
{
	struct journal_tail_disk d[JOURNAL_TAIL_BLOCKS] BLKDEV_ALIGNED;
	uint64_t sequence = 1 + env_random_below(env, 1ULL << 31);
	struct ring r;

	ring_init(&r, dev, s, slot);
	tail_encode(&r, &d[0], sequence, 0, 2);
	tail_encode(&r, &d[1], sequence, 0, 1);
	return blkdev_write(dev, r.addr, d, sizeof(d));
}

/* ---- reading transactions ---- */

#define WINDOW_FIRST	16u	/* blocks read at once: an empty journal is told by one … */
#define WINDOW_BLOCKS	512u	/* … and twice as many each time, up to that */
static_assert(WINDOW_BLOCKS >= JOURNAL_ENTRIES + 2, "any transaction fits");

/* A stretch of the ring in memory: reading it transaction by transaction takes a round trip each. */
struct window {
	const struct ring *ring;
	uint8_t *blocks;	/* @room of them: most journals are empty, and there are many */
	uint64_t room;
	uint64_t first;		/* ring index of the first … */
	uint64_t count;		/* … and how many are in memory */
	uint64_t next;		/* how many to read next time */
};

/* One transaction within the window: descriptor, images, commit record. */
struct txn_blocks {
	struct window window;
	const struct journal_desc_disk *desc;
	const uint8_t *images;
	uint64_t count;		/* images; 0: the descriptor itself does not verify */
};

/* Room for @w->next blocks; what is in memory is lost. */
static int window_room(struct window *w)
{
	if (w->next <= w->room)
		return 0;
	free(w->blocks);
	w->blocks = blkdev_alloc(w->next * BLOCK_SIZE);
	w->room = w->blocks ? w->next : 0;
	return w->blocks ? 0 : -ENOMEM;
}

/* @count blocks from ring index @block on in memory, @room of them and more can be read. */
static int window_get(struct window *w, uint64_t block, uint64_t count, uint64_t room,
		      const uint8_t **out)
{
	uint64_t skip = (block + w->ring->blocks - w->first) % w->ring->blocks;
	int err;

	assert(count <= room && count <= WINDOW_BLOCKS);
	if (skip + count > w->count) {
		w->count = 0;
		while (w->next < count)
			w->next *= 2;
		if (w->next > room)
			w->next = room;
		if (w->next > WINDOW_BLOCKS)
			w->next = WINDOW_BLOCKS;
		err = window_room(w);
		if (err)
			return err;
		err = ring_rw(w->ring, BLK_READ, block, w->blocks, w->next);
		if (err)
			return err;
		w->first = block;
		w->count = w->next;
		w->next *= 2;
		skip = 0;
	}
	*out = w->blocks + skip * BLOCK_SIZE;
	return 0;
}

static bool desc_check(const struct ring *r, const struct journal_desc_disk *d, uint64_t sequence,
		       uint64_t block, uint64_t room)
{
	struct meta_expect e = ring_expect(r, META_DESC, ring_addr(r, block));
	uint32_t count = le32_to_cpu(d->count);

	return !meta_verify(d, &e, NULL, 0) && le64_to_cpu(d->sequence) == sequence &&
	       meta_version(d) == sequence && count > 0 && count <= JOURNAL_ENTRIES &&
	       count + 2 <= room;
}

static bool commit_check(const struct ring *r, const struct txn_blocks *t, uint64_t sequence,
			 uint64_t block)
{
	const struct journal_commit_disk *c =
		(const void *)(t->images + t->count * BLOCK_SIZE);
	uint64_t index = (block + t->count + 1) % r->blocks;
	struct meta_expect e = ring_expect(r, META_COMMIT, ring_addr(r, index));

	return !meta_verify(c, &e, NULL, 0) && le64_to_cpu(c->sequence) == sequence &&
	       meta_version(c) == sequence && le32_to_cpu(c->count) == t->count &&
	       le32_to_cpu(c->desc_crc) == crc32c(0, t->desc, BLOCK_SIZE);
}

static bool images_check(const struct txn_blocks *t)
{
	uint64_t i;

	for (i = 0; i < t->count; i++)
		if (crc32c(0, t->images + i * BLOCK_SIZE, BLOCK_SIZE) !=
		    le32_to_cpu(t->desc->entries[i].crc))
			return false;
	return true;
}

/*
 * The transaction @sequence at ring index @block, if it is complete there.
 * @room: ring blocks that are not taken by older transactions.
 * Return: 1 complete; 0 not; negative errno.
 */
static int txn_read(const struct ring *r, uint64_t sequence, uint64_t block, uint64_t room,
		    struct txn_blocks *t)
{
	const uint8_t *found;
	uint64_t count;
	int err;

	t->count = 0;
	if (room < 3)
		return 0;
	err = window_get(&t->window, block, 1, room, &found);
	if (err)
		return err;
	t->desc = (const void *)found;
	if (!desc_check(r, t->desc, sequence, block, room))
		return 0;
	count = le32_to_cpu(t->desc->count);
	err = window_get(&t->window, block, count + 2, room, &found);
	if (err)
		return err;
	/* Read again, perhaps: what is believed from here on is what is checked here. */
	t->desc = (const void *)found;
	t->images = found + BLOCK_SIZE;
	if (!desc_check(r, t->desc, sequence, block, room) || le32_to_cpu(t->desc->count) != count)
		return 0;
	t->count = count;
	if (MUTANT("torn-commit-believed"))
		return 1;
	return commit_check(r, t, sequence, block) && images_check(t);
}

/*
 * The same, read again if it is not: that ends the journal, and a bit that flipped on the way must
 * not undo what was acknowledged (R7).
 */
static int txn_read_sure(const struct ring *r, uint64_t sequence, uint64_t block, uint64_t room,
			 struct txn_blocks *t)
{
	int found = txn_read(r, sequence, block, room, t);

	if (found)
		return found;
	t->window.count = 0;	/* what is in memory is what is doubted */
	t->window.next = WINDOW_FIRST;
	return txn_read(r, sequence, block, room, t);
}

/* The image says itself what it is; the place it is for must be its own (R6). */
static int image_check(const struct ring *r, uint64_t addr, const void *image, char *why,
		       size_t why_size)
{
	const struct meta_hdr_disk *h = image;
	struct meta_expect e = { .volume = r->volume, .addr = addr };

	e.type = le32_to_cpu(h->magic);
	e.owner = le64_to_cpu(h->owner);
	e.birth = le32_to_cpu(h->birth);
	return meta_verify(image, &e, why, why_size);
}

static int txn_emit(const struct ring *r, const struct txn_blocks *t, ring_image_fn image,
		    void *arg, char *why, size_t why_size)
{
	uint64_t i, addr;
	int err;

	for (i = 0; i < t->count; i++) {
		addr = le64_to_cpu(t->desc->entries[i].addr);
		err = image_check(r, addr, t->images + i * BLOCK_SIZE, why, why_size);
		if (!err && image)
			err = image(arg, addr, t->images + i * BLOCK_SIZE);
		if (err)
			return err;
	}
	return 0;
}

/*
 * A transaction that does not count is the last one, cut off by a crash: the next is only
 * written after it is durable.  If the next one is there, what we cannot read was durable
 * once, and leaving it out would silently undo it.
 */
static int end_check(const struct ring *r, const struct ring_head *head, uint64_t room,
		     struct txn_blocks *t, char *why, size_t why_size)
{
	uint64_t skip = t->count + 2;
	int found;

	if (!t->count)
		return 0;
	found = txn_read_sure(r, head->sequence + 1, (head->block + skip) % r->blocks, room - skip, t);
	if (found <= 0)
		return found;
	if (why)
		snprintf(why, why_size,
			 "journal of slot %u: transaction %llu at 0x%llx is damaged, its successor is not",
			 r->slot, (unsigned long long)head->sequence,
			 (unsigned long long)ring_addr(r, head->block));
	return -EBADMSG;
}

static int scan_txns(const struct ring *r, struct txn_blocks *t, ring_image_fn image, void *arg,
		     struct ring_head *head, char *why, size_t why_size)
{
	uint64_t room = r->blocks;
	int found, err;

	while ((found = txn_read_sure(r, head->sequence, head->block, room, t)) == 1) {
		err = txn_emit(r, t, image, arg, why, why_size);
		if (err)
			return err;
		room -= t->count + 2;
		head->block = (head->block + t->count + 2) % r->blocks;
		head->sequence++;
		head->transactions++;
	}
	if (found == 0)
		found = end_check(r, head, room, t, why, why_size);
	if (found < 0 && found != -EBADMSG && why)
		snprintf(why, why_size, "journal of slot %u cannot be read: %s", r->slot,
			 strerror(-found));
	return found;
}

int ring_scan(struct ring *r, ring_image_fn image, void *arg, struct ring_head *head,
	      char *why, size_t why_size)
{
	struct txn_blocks t = { .window = { .ring = r, .next = WINDOW_FIRST } };
	int err;

	err = ring_read_tail(r, why, why_size);
	if (err)
		return err;
	head->sequence = r->sequence;
	head->block = r->block;
	head->transactions = 0;
	err = scan_txns(r, &t, image, arg, head, why, why_size);
	free(t.window.blocks);
	return err;
}

int journal_scan(struct env *env, struct blkdev *dev, const struct super *s, uint32_t slot,
		 int (*image)(void *arg, uint64_t addr, const void *block), void *arg,
		 unsigned int *transactions, char *why, size_t why_size)
{
	struct ring_head head;
	struct ring r;
	int err;

	(void)env;
	ring_init(&r, dev, s, slot);
	err = ring_scan(&r, image, arg, &head, why, why_size);
	if (!err && transactions)
		*transactions = head.transactions;
	return err;
}

/* ---- writing home ---- */

#define HOME_IOV	256u	/* blocks a batch … */
#define HOME_IOS	32u	/* … of so many requests */

static bool home_is_inode(const struct home_block *b)
{
	return le32_to_cpu(((const struct meta_hdr_disk *)b->data)->magic) == META_INODE;
}

/* Inodes after everything else, each part by address. */
static int home_cmp(const void *a, const void *b)
{
	const struct home_block *x = a, *y = b;

	if (home_is_inode(x) != home_is_inode(y))
		return home_is_inode(x) ? 1 : -1;
	return x->addr < y->addr ? -1 : x->addr > y->addr;
}

/* A run of adjacent blocks, at most @count, as one request; returns how many. */
static size_t home_prepare(const struct home_block *blocks, size_t count, struct iovec *iov,
			   struct blk_io *io)
{
	size_t n;

	for (n = 0; n < count; n++) {
		if (blocks[n].addr != blocks[0].addr + n * BLOCK_SIZE)
			break;
		iov[n].iov_base = (void *)(uintptr_t)blocks[n].data;
		iov[n].iov_len = BLOCK_SIZE;
	}
	memset(io, 0, sizeof(*io));
	io->op = BLK_WRITE;
	io->off = blocks[0].addr;
	io->len = n * BLOCK_SIZE;
	io->iov = iov;
	io->iovcnt = (int)n;
	return n;
}

static int home_write_wave(struct blkdev *dev, const struct home_block *blocks, size_t count)
{
	struct iovec iov[HOME_IOV];
	struct blk_io ios[HOME_IOS];
	unsigned int n;
	size_t i = 0, end, used;
	int err = 0;

	while (!err && i < count) {
		end = count - i < HOME_IOV ? count : i + HOME_IOV;
		used = 0;
		for (n = 0; n < HOME_IOS && i < end; n++) {
			size_t run = home_prepare(blocks + i, end - i, iov + used, &ios[n]);

			used += run;
			i += run;
		}
		err = blkdev_rw_batch(dev, ios, n);
	}
	return err;
}

int home_write(struct blkdev *dev, struct home_block *blocks, size_t count)
{
	size_t others = 0;
	int err;

	if (!count)
		return 0;
	qsort(blocks, count, sizeof(*blocks), home_cmp);
	while (others < count && !home_is_inode(&blocks[others]))
		others++;
	err = home_write_wave(dev, blocks, others);
	if (err)
		return err;
	return home_write_wave(dev, blocks + others, count - others);
}

/* ---- replay ---- */

struct replay_image {
	struct table_node node;		/* key: address */
	void *data;
};

/* Blocks that lie at home only by other means than the journal: never written by a replay. */
static bool type_is_journalled(uint32_t type)
{
	switch (type) {
	case META_AG:
	case META_BITMAP:
	case META_ITABLE:
	case META_INODE:
	case META_MAP_NODE:
	case META_MAP_LEAF:
	case META_DIR_NODE:
	case META_DIR_LEAF:
	case META_XATTR:
	case META_ORPHAN:
		return true;
	default:
		return false;
	}
}

static bool addr_is_journalled(const struct ring *r, uint64_t addr)
{
	if (addr % BLOCK_SIZE)
		return false;
	if (addr >= r->orphans_start && addr < r->orphans_end)
		return true;
	return addr >= r->groups_start && addr < r->groups_end && addr != r->super_copy &&
	       (addr - r->groups_start) % r->group_size >= AG_HEADER_BLOCK * BLOCK_SIZE;
}

struct replay {
	struct ring ring;
	char why[200];
	struct table images;		/* newest of each block */
	struct home_block *blocks;
	size_t count;
};

static int replay_add(void *arg, uint64_t addr, const void *block)
{
	struct replay *rp = arg;
	struct table_node *n = table_find(&rp->images, addr);
	uint32_t type = le32_to_cpu(((const struct meta_hdr_disk *)block)->magic);
	struct replay_image *im;

	if (!addr_is_journalled(&rp->ring, addr) || !type_is_journalled(type)) {
		snprintf(rp->why, sizeof(rp->why), "it holds an image of type 0x%08x for 0x%llx",
			 type, (unsigned long long)addr);
		return -EUCLEAN;
	}
	if (n) {
		im = container_of(n, struct replay_image, node);
		memcpy(im->data, block, BLOCK_SIZE);
		return 0;
	}
	im = calloc(1, sizeof(*im));
	if (!im)
		return -ENOMEM;
	im->data = blkdev_alloc(BLOCK_SIZE);
	if (!im->data || table_insert(&rp->images, &im->node, addr)) {
		free(im->data);
		free(im);
		return -ENOMEM;
	}
	memcpy(im->data, block, BLOCK_SIZE);
	return 0;
}

static void replay_list(struct table_node *n, void *arg)
{
	struct replay *rp = arg;

	rp->blocks[rp->count].addr = n->key;
	rp->blocks[rp->count++].data = container_of(n, struct replay_image, node)->data;
}

static void replay_free(struct table_node *n, void *arg)
{
	struct replay_image *im = container_of(n, struct replay_image, node);
	struct replay *rp = arg;

	table_remove(&rp->images, n);
	free(im->data);
	free(im);
}

/*
 * Even an empty journal gets a new tail: the remains of a transaction that a crash cut off
 * carry the sequence that the next one would have had, so it is skipped.
 */
static int replay_write(struct replay *rp, const struct ring_head *head)
{
	struct ring *r = &rp->ring;
	int err = 0;

	if (rp->images.count) {
		rp->blocks = calloc(rp->images.count, sizeof(*rp->blocks));
		if (!rp->blocks)
			return -ENOMEM;
		table_each(&rp->images, replay_list, rp);
		/* The host may have died before its own flush: what was read may be lost yet. */
		err = MUTANT("no-flush-before-replay") ? 0 : blkdev_flush(r->dev);
		if (!err)
			err = home_write(r->dev, rp->blocks, rp->count);
		if (!err && !MUTANT("no-flush-after-replay"))
			err = blkdev_flush(r->dev);
	}
	if (!err)
		err = ring_write_tail(r, head->sequence + !MUTANT("same-sequence-after-replay"),
				      head->block);
	if (!err)
		err = blkdev_flush(r->dev);
	return err;
}

int journal_replay(struct env *env, struct blkdev *dev, const struct super *s, uint32_t slot,
		   unsigned int *replayed)
{
	struct replay rp = { .blocks = NULL };
	struct ring_head head;
	char object[32];
	int err;

	snprintf(object, sizeof(object), "journal of slot %u", slot);
	table_init(&rp.images);
	ring_init(&rp.ring, dev, s, slot);
	err = ring_scan(&rp.ring, replay_add, &rp, &head, rp.why, sizeof(rp.why));
	if (!err)
		err = replay_write(&rp, &head);
	if (err)
		log_error(env, object, "cannot be replayed: %s",
			  rp.why[0] ? rp.why : strerror(-err));
	else if (head.transactions)
		log_info(env, object, "replayed %u transactions, %zu blocks", head.transactions,
			 rp.count);
	if (!err && replayed)
		*replayed = head.transactions;
	table_each(&rp.images, replay_free, &rp);
	table_fini(&rp.images);
	free(rp.blocks);
	return err;
}
