// SPDX-License-Identifier: Apache-2.0
#include "fs/resign.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/text.h"

/* A slot as it was found, with the sector that a compare-and-write must find again. */
struct resign_slot {
	struct slot slot;
	bool	busy;		/* not free: a host had it when the copy was taken */
};

struct resign {
	struct fs *fs;
	void	*block, *sector;	/* BLOCK_SIZE bytes each */
	struct resign_slot slots[SLOT_COUNT_MAX];
};

static uint64_t resign_addr(const struct fs *fs, uint32_t i)
{
	return fs->super.slots_addr + (uint64_t)i * BLOCK_SIZE;
}

static int resign_read(struct resign *r, uint32_t i, struct slot *s, char *why, size_t why_size)
{
	struct fs *fs = r->fs;
	uint64_t addr = resign_addr(fs, i);
	int err;

	err = blkdev_read(fs->raw, addr, r->block, BLOCK_SIZE);
	if (err) {
		snprintf(why, why_size, "%s: slot %u cannot be read (error %d)", fs->label, i, -err);
		return err;
	}
	return slot_decode(r->block, fs->super.volume, addr, i, s, why, why_size);
}

static int resign_scan(struct resign *r, char *why, size_t why_size)
{
	uint32_t i;
	int err;

	for (i = 0; i < r->fs->super.slot_count; i++) {
		err = resign_read(r, i, &r->slots[i].slot, why, why_size);
		if (err)
			return err;
		r->slots[i].busy = r->slots[i].slot.state != SLOT_FREE;
	}
	return 0;
}

/* Nobody works on the copy if no slot moves for as long as suspicion takes. */
static int resign_watch(struct resign *r, char *why, size_t why_size)
{
	const struct lockd_timing *t = &r->fs->super.timing;
	uint64_t wait_ns = ((uint64_t)t->lease_ms + t->margin_ms + t->beat_ms) * NSEC_PER_MSEC;
	struct fs *fs = r->fs;
	struct slot now;
	uint32_t i;
	int err;

	env_sleep_until(fs->env, env_now_ns(fs->env) + wait_ns);
	for (i = 0; i < fs->super.slot_count; i++) {
		err = resign_read(r, i, &now, why, why_size);
		if (err)
			return err;
		if (now.sequence == r->slots[i].slot.sequence)
			continue;
		snprintf(why, why_size, "%s: host %s (slot %u) is using this copy; detach it "
			 "there before -o resignature", fs->label, now.host_name, i);
		return -EBUSY;
	}
	return 0;
}

static int resign_free_slot(struct resign *r, uint32_t i, char *why, size_t why_size)
{
	struct fs *fs = r->fs;
	struct slot s;
	uint32_t sector = fs->raw->info.sector;
	int err;

	err = journal_replay(fs->env, fs->raw, &fs->super, i, NULL);
	if (err)
		return err;
	err = resign_read(r, i, &s, why, why_size);	/* the bytes to find again */
	if (err)
		return err;
	s.state = SLOT_FREE;
	s.sequence++;
	s.recoverer = SLOT_NONE;
	s.recoverer_generation = 0;
	memset(s.wants, 0, sizeof(s.wants));
	memset(s.denials, 0, sizeof(s.denials));
	slot_encode(&s, fs->super.volume, resign_addr(fs, i), r->sector, sector);
	return blkdev_caw(fs->raw, resign_addr(fs, i), r->block, r->sector);
}

static int resign_super(struct fs *fs)
{
	struct super s = fs->super;
	int err;

	env_random(fs->env, s.volume_id, sizeof(s.volume_id));
	s.volume_id[6] = (uint8_t)((s.volume_id[6] & 0x0f) | 0x40);
	s.volume_id[8] = (uint8_t)((s.volume_id[8] & 0x3f) | 0x80);
	memcpy(s.identity, fs->raw->info.identity, sizeof(s.identity));
	s.version++;
	err = super_write(fs->raw, &s);
	if (!err)
		fs->super = s;
	return err;
}

static int resign_all(struct resign *r, char *why, size_t why_size)
{
	struct fs *fs = r->fs;
	char uuid[UUID_TEXT_SIZE];
	uint32_t i;
	int err;

	err = resign_scan(r, why, why_size);
	if (!err)
		err = resign_watch(r, why, why_size);
	if (err)
		return err;
	for (i = 0; i < fs->super.slot_count && !err; i++)
		if (r->slots[i].busy)
			err = resign_free_slot(r, i, why, why_size);
	if (!err)
		err = blkdev_flush(fs->raw);
	if (!err)
		err = resign_super(fs);
	if (err) {
		snprintf(why, why_size, "%s: the copy cannot be made a volume of its own (error "
			 "%d); see the log", fs->label, -err);
		return err;
	}
	log_info(fs->env, fs->label, "the copy on %s is volume %s from now on",
		 fs->raw->info.name, text_format_uuid(fs->super.volume_id, uuid));
	return 0;
}

int resign(struct fs *fs, char *why, size_t why_size)
{
	struct resign *r = calloc(1, sizeof(*r));
	int err = -ENOMEM;

	if (!r)
		return err;
	r->fs = fs;
	r->block = blkdev_alloc(BLOCK_SIZE);
	r->sector = blkdev_alloc(BLOCK_SIZE);
	if (r->block && r->sector)
		err = resign_all(r, why, why_size);
	free(r->sector);
	free(r->block);
	free(r);
	return err;
}
