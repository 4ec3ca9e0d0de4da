/* SPDX-License-Identifier: Apache-2.0 */
/* What repairs are made of: writing, space, inodes. */
#include "fs/check/fix.h"

#include <errno.h>
#include <stdlib.h>

int fix_begin(struct check *c)
{
	c->fix = calloc(1, sizeof(*c->fix));
	if (!c->fix)
		return -ENOMEM;
	table_init(&c->fix->twice);
	c->fix->twice_end = c->fix->found_end = UINT64_MAX;
	return 0;
}

static void free_twice(struct table_node *n, void *arg)
{
	table_remove(arg, n);
	free(container_of(n, struct chk_twice, node));
}

void fix_end(struct check *c)
{
	table_each(&c->fix->twice, free_twice, &c->fix->twice);
	table_fini(&c->fix->twice);
	free(c->fix->indices);
	free(c->fix->names);
	free(c->fix->found);
	free(c->fix);
	c->fix = NULL;
}

/* ---- writing ---- */

int fix_tell_before(struct check *c, uint64_t addr, size_t len)
{
	uint8_t *old;
	int err;

	if (!c->p->before_write)
		return 0;
	old = blkdev_alloc(len);
	if (!old)
		return -ENOMEM;
	/* What cannot be read cannot be brought back; zeros stand for it. */
	if (blkdev_read(c->dev, addr, old, len))
		memset(old, 0, len);
	err = c->p->before_write(c->p->arg, addr, old, len);
	free(old);
	return err;
}

int fix_write(struct check *c, uint64_t addr, const void *data, size_t len)
{
	int err = c->fix->err;

	if (!err)
		err = fix_tell_before(c, addr, len);
	if (err) {
		c->fix->err = err;
		return err;
	}
	err = blkdev_write(c->dev, addr, data, len);
	if (err) {
		chk_report(c, CHECK_UNWRITABLE, addr, "%zu bytes cannot be written: %s", len,
			   strerror(-err));
		c->fix->err = err;
		return err;
	}
	chk_ahead_wrote(c, addr, data, len);
	return 0;
}

int fix_flush(struct check *c)
{
	int err = blkdev_flush(c->dev);

	if (err)
		chk_report(c, CHECK_UNWRITABLE, 0, "what was repaired cannot be made durable: %s",
			   strerror(-err));
	return err;
}

int fix_seal(struct check *c, void *block, const struct meta_expect *e)
{
	meta_seal(block, e, meta_version(block) + 1);
	return fix_write(c, e->addr, block, BLOCK_SIZE);
}

int fix_inode(struct check *c, struct inode_disk *d, uint64_t number)
{
	struct meta_expect e = { META_INODE, c->s->volume, inode_block_addr(number), number, 0 };

	return fix_seal(c, d, &e);
}

int fix_read_inode(struct check *c, uint64_t number, struct inode_disk *d)
{
	struct meta_expect e = { META_INODE, c->s->volume, inode_block_addr(number), number, 0 };
	int err;

	if (!super_is_space(c->s, number, 2))
		return -EUCLEAN;
	err = blkdev_read(c->dev, e.addr, d, BLOCK_SIZE);
	return err ? err : meta_verify(d, &e, NULL, 0);
}

void fix_lock(struct check *c, uint64_t addr)
{
	uint8_t block[BLOCK_SIZE] BLKDEV_ALIGNED = { 0 };
	struct lockrec r;

	lockrec_init(c->p->env, &r);
	lockrec_encode(&r, c->s->volume, addr, block, BLOCK_SIZE);
	fix_write(c, addr, block, BLOCK_SIZE);
}

/* ---- space ---- */

/*
 * What may not be allocated in this part of a group: what something refers to, and, unless all
 * is known, what its bitmap calls in use.
 */
static void bits_in_use(struct check *c, uint32_t ag, uint32_t index, const struct ag_disk *header,
			uint8_t *bits)
{
	uint64_t addr = super_ag_addr(c->s, ag) + (uint64_t)(AG_BITMAP_BLOCK + index) * BLOCK_SIZE;
	struct meta_expect e = { META_BITMAP, c->s->volume, addr, ag, 0 };
	uint8_t block[BLOCK_SIZE] BLKDEV_ALIGNED;
	const struct bitmap_disk *d = (const void *)block;

	chk_bits_expected(c, ag, index, bits);
	if (!c->fix->hold || !(header->bitmap_ready[index / 8] & 1u << index % 8))
		return;
	if (blkdev_read(c->dev, addr, block, BLOCK_SIZE) || meta_verify(block, &e, NULL, 0)) {
		memset(bits, 0xff, BITMAP_BYTES);
		return;
	}
	for (uint32_t i = 0; i < BITMAP_BYTES; i++)
		bits[i] |= d->bits[i];
}

/* @run free blocks end before block @i of @bits: how many do behind word @i / 64? */
static uint32_t skip_word(const uint8_t *bits, uint32_t i, uint32_t run)
{
	uint64_t word;

	memcpy(&word, bits + i / 8, sizeof(word));
	return word == UINT64_MAX ? 0 : word == 0 ? run + 64 : UINT32_MAX;
}

/*
 * The first run of @count blocks of group @ag that may be allocated, from its bitmap block @from
 * on; *@found: the bitmap block that it ends in.
 */
static uint64_t find_free(struct check *c, uint32_t ag, uint32_t from, uint32_t count,
			  uint32_t *found)
{
	uint64_t start = super_ag_addr(c->s, ag) >> BLOCK_SHIFT;
	uint64_t addr = super_ag_addr(c->s, ag) + AG_HEADER_BLOCK * BLOCK_SIZE;
	struct meta_expect e = { META_AG, c->s->volume, addr, ag, 0 };
	uint32_t parts = super_ag_bitmaps(c->s), run = 0;
	uint8_t header[BLOCK_SIZE] BLKDEV_ALIGNED;
	uint8_t bits[BITMAP_BYTES];

	if (blkdev_read(c->dev, addr, header, BLOCK_SIZE) || meta_verify(header, &e, NULL, 0))
		return 0;
	for (uint32_t index = from; index < parts; index++) {
		bits_in_use(c, ag, index, (const struct ag_disk *)header, bits);
		*found = index;
		for (uint32_t i = 0; i < BITMAP_BITS; i++) {
			uint32_t next = i % 64 ? UINT32_MAX : skip_word(bits, i, run);

			if (next < count) {
				run = next;
				i += 63;
				continue;
			}
			run = bits[i / 8] & 1u << i % 8 ? 0 : run + 1;
			if (run == count)
				return start + (uint64_t)index * BITMAP_BITS + i + 1 - count;
		}
	}
	return 0;
}

uint64_t fix_alloc_in(struct check *c, uint32_t ag, uint32_t count)
{
	struct fix *f = c->fix;
	uint32_t from = ag == f->ag ? f->ag_part : 0, found;
	uint64_t block = find_free(c, ag, from, count, &found);

	/* In front of it are runs that were too short for others. */
	if (!block && from)
		block = find_free(c, ag, 0, count, &found);
	if (!block)
		return 0;
	f->ag = ag;
	f->ag_part = found;
	chk_claim(c, block, count, "a repair");
	return block;
}

uint64_t fix_alloc(struct check *c, uint32_t count)
{
	for (uint32_t i = 0; i < c->s->ag_count; i++) {
		uint32_t ag = (c->fix->ag + i) % c->s->ag_count;
		uint64_t block = fix_alloc_in(c, ag, count);

		if (block)
			return block;
	}
	return 0;
}

/* Whether bitmap block @index of @ag, which the header calls initialised, cannot be believed. */
static bool bitmap_lost(struct check *c, uint32_t ag, uint32_t index)
{
	uint64_t addr = super_ag_addr(c->s, ag) + (uint64_t)(AG_BITMAP_BLOCK + index) * BLOCK_SIZE;
	struct meta_expect e = { META_BITMAP, c->s->volume, addr, ag, 0 };
	uint8_t block[BLOCK_SIZE] BLKDEV_ALIGNED;

	return c->groups[ag].ready[index / 8] & 1u << index % 8 &&
	       !blkdev_read(c->dev, addr, block, BLOCK_SIZE) && meta_verify(block, &e, NULL, 0);
}

uint64_t fix_alloc_blind(struct check *c, uint32_t ag)
{
	uint64_t start = super_ag_addr(c->s, ag) >> BLOCK_SHIFT;
	uint8_t bits[BITMAP_BYTES];

	for (uint32_t index = super_ag_bitmaps(c->s); index-- > 0;) {
		if (!bitmap_lost(c, ag, index))
			continue;
		chk_bits_expected(c, ag, index, bits);
		for (uint32_t i = BITMAP_BITS; i-- > 0;) {
			uint64_t block = start + (uint64_t)index * BITMAP_BITS + i;

			if (bits[i / 8] & 1u << i % 8)
				continue;
			chk_claim(c, block, 1, "a repair");
			return block;
		}
	}
	return 0;
}

/* ---- notes ---- */

void *fix_append(struct check *c, void **array, size_t *count, size_t *room, size_t size)
{
	if (*count == *room) {
		size_t more = *room ? 2 * *room : 64;
		void *bigger = realloc(*array, more * size);

		if (!bigger) {
			c->no_memory = true;
			return NULL;
		}
		*array = bigger;
		*room = more;
	}
	return memset((uint8_t *)*array + (*count)++ * size, 0, size);
}

size_t fix_most(const struct check *c, size_t usual)
{
	return c->p->notes ? c->p->notes : usual;
}

struct split {
	uint64_t end;		/* of the notes before it … */
	size_t before;		/* … that is how many there are */
	uint64_t first;
};

static void count_note(struct table_node *n, void *arg)
{
	struct split *s = arg;

	s->before += n->key < s->end;
	if (n->key < s->first)
		s->first = n->key;
}

/* Half of the notes are of blocks before it; found without memory for all of them. */
static struct split half_of_twice(struct fix *f)
{
	struct split s = { .first = UINT64_MAX };
	uint64_t low = 0, high = f->twice_end;

	while (low + 1 < high) {
		s.end = low + (high - low) / 2;
		s.before = 0;
		table_each(&f->twice, count_note, &s);
		if (s.before > f->twice.count / 2)
			high = s.end;
		else
			low = s.end;
	}
	s.end = high;
	return s;
}

static void drop_behind(struct table_node *n, void *arg)
{
	struct fix *f = arg;

	if (n->key >= f->twice_end)
		free_twice(n, &f->twice);
}

/*
 * Half of the notes are given up, those of the blocks that lie last.  However few are left, every
 * entry that has the first of them lies before the end: each round gets on.
 */
static void fewer_twice(struct fix *f)
{
	struct split half = half_of_twice(f);

	f->twice_end = half.end < half.first + UNIT_BLOCKS ? half.first + UNIT_BLOCKS : half.end;
	table_each(&f->twice, drop_behind, f);
}

void fix_twice(struct check *c, uint64_t block)
{
	size_t most = fix_most(c, FIX_TWICE_MAX);
	struct chk_twice *t;

	if (block >= c->fix->twice_end || table_find(&c->fix->twice, block))
		return;
	t = calloc(1, sizeof(*t));
	if (!t || table_insert(&c->fix->twice, &t->node, block)) {
		free(t);
		c->no_memory = true;
		return;
	}
	if (c->fix->twice.count > (most > UNIT_BLOCKS ? most : UNIT_BLOCKS))
		fewer_twice(c->fix);
}
