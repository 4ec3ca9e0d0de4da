/* SPDX-License-Identifier: Apache-2.0 */
/* Slots that cannot be believed, and journals: nobody is attached but who holds the claim. */
#include <stdlib.h>

#include "fs/check/fix.h"
#include "fs/journal.h"

/* ---- slots ---- */

void fix_slot(struct check *c, uint32_t index, bool rebuild)
{
	uint64_t addr = c->s->slots_addr + (uint64_t)index * BLOCK_SIZE;
	uint8_t block[BLOCK_SIZE] BLKDEV_ALIGNED = { 0 };
	struct slot *slot = &c->slots[index];

	if (index == c->p->own_slot)
		return;
	if (rebuild)
		slot_rebuilt(c->p->env, index, slot);
	slot->sequence++;
	slot->state = SLOT_FREE;
	slot->recoverer = SLOT_NONE;
	slot->recoverer_generation = 0;
	slot_encode(slot, c->s->volume, addr, block, BLOCK_SIZE);
	if (!fix_write(c, addr, block, BLOCK_SIZE))
		c->slot_valid[index] = true;
}

/* ---- journals ---- */

struct homes {
	struct check *c;
	bool	inodes;		/* they go after everything else, as in a replay */
};

static void write_image(struct table_node *n, void *arg)
{
	const struct chk_image *image = container_of(n, struct chk_image, node);
	uint8_t block[BLOCK_SIZE] BLKDEV_ALIGNED;
	const struct homes *h = arg;

	memcpy(block, image->data, BLOCK_SIZE);
	if (h->inodes == (le32_to_cpu(((struct meta_hdr_disk *)block)->magic) == META_INODE))
		fix_write(h->c, n->key, block, BLOCK_SIZE);
}

static void forget(struct table_node *n, void *arg)
{
	table_remove(arg, n);
	free(container_of(n, struct chk_image, node));
}

/* As a replay: everything goes home, flushed, before a journal says that it did. */
static int write_home(struct check *c)
{
	struct homes h = { .c = c };
	int err = blkdev_flush(c->dev);

	if (err)
		return err;
	table_each(&c->images, write_image, &h);
	h.inodes = true;
	table_each(&c->images, write_image, &h);
	err = c->fix->err ? c->fix->err : blkdev_flush(c->dev);
	if (!err)
		table_each(&c->images, forget, &c->images);
	return err;
}

void fix_journals(struct check *c)
{
	bool any = false;

	for (uint32_t i = 0; i < c->s->slot_count; i++)
		any = any || c->journal_bad[i] || c->transactions[i];
	if (!any || c->fix->err)
		return;
	c->fix->err = write_home(c);
	for (uint32_t i = 0; i < c->s->slot_count && !c->fix->err; i++) {
		if (!c->journal_bad[i] && !c->transactions[i])
			continue;
		c->fix->err = fix_tell_before(c, super_journal_addr(c->s, i),
					      JOURNAL_TAIL_BLOCKS * BLOCK_SIZE);
		if (!c->fix->err)
			c->fix->err = journal_format(c->p->env, c->dev, c->s, i);
		c->transactions[i] = 0;
	}
	c->r->transactions = 0;
}
