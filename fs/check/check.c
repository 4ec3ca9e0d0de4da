/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/text.h"
#include "fs/check/fix.h"
#include "fs/check/online.h"

#define TEXT_SIZE	640
#define ROUNDS_MAX	100u	/* of a repair, without fewer findings than ever; three are usual */

const struct check_code_info *check_code_info(enum check_code code)
{
#define INFO(symbol, number, name, severity, repair, meaning) \
	{ number, name, CHECK_##severity, CHECK_REPAIR_##repair, meaning },
	static const struct check_code_info infos[] = { CHECK_CODES(INFO) };
#undef INFO
	assert((size_t)code < ARRAY_SIZE(infos));
	return &infos[code];
}

static bool may_repair(const struct check *c, const struct check_finding *f, bool later)
{
	enum check_repair needs = check_code_info(f->code)->repair;

	if (later)
		return false;
	/* What seems to be nobody's may be a lost thing's, as long as something is lost. */
	if ((f->code == CHECK_BITMAP_LEAK || f->code == CHECK_BITMAP_DAMAGED) && c->fix &&
	    (c->fix->hold || c->fix->left))
		return false;
	if (!c->fix || c->fix->err || needs == CHECK_REPAIR_NONE || needs > c->p->repair)
		return false;
	return !c->p->may_repair || c->p->may_repair(c->p->arg, f);
}

bool chk_report(struct check *c, enum check_code code, uint64_t addr, const char *fmt, ...)
{
	char text[TEXT_SIZE];
	struct check_finding f = { code, addr, text, 0, false };
	bool later = c->later;
	va_list ap;

	c->later = false;
	/* What was not looked at for want of memory seems to be wrong or missing. */
	if (c->no_memory)
		return false;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (c->online) {
		online_found(c, code, addr, text);
		return false;
	}
	if (check_code_info(code)->severity == CHECK_ERROR)
		c->r->errors++;
	else
		c->r->notes++;
	if (code == CHECK_UNREADABLE)
		c->r->unreadable++;
	/* What cannot be read may be whole: nothing is concluded from its absence. */
	if (code == CHECK_UNREADABLE && c->fix && !c->fix->err)
		c->fix->err = -EIO;
	if (check_code_info(code)->repair == CHECK_REPAIR_LOSS)
		c->r->lossy++;
	f.repaired = may_repair(c, &f, later);
	if (f.repaired)
		c->fix->repaired++;
	else if (c->fix && check_code_info(code)->severity == CHECK_ERROR)
		c->fix->left++;
	c->p->report(c->p->arg, &f);
	return f.repaired;
}

void chk_progress(struct check *c, const char *phase, uint64_t done, uint64_t total)
{
	if (c->p->progress)
		c->p->progress(c->p->arg, phase, done, total);
}

/* @blocks blocks that were read from @addr become what replay makes of them. */
static void replayed(struct check *c, uint64_t addr, void *buf, uint32_t blocks)
{
	for (uint32_t i = 0; i < blocks && c->images.count; i++) {
		struct table_node *n = table_find(&c->images, addr + (uint64_t)i * BLOCK_SIZE);

		if (n)
			memcpy((uint8_t *)buf + (size_t)i * BLOCK_SIZE,
			       container_of(n, struct chk_image, node)->data, BLOCK_SIZE);
	}
}

static int read_at(struct check *c, uint64_t addr, void *buf, uint32_t blocks, uint8_t **data)
{
	int err = chk_ahead_get(c, addr, blocks, data);

	if (!err) {
		replayed(c, addr, *data, blocks);
		return 0;
	}
	if (err == -EIO)
		return err;
	err = c->online ? online_may_read(c, addr, blocks) : 0;
	if (err)
		return err;
	err = blkdev_read(c->dev, addr, buf, (size_t)blocks * BLOCK_SIZE);
	if (err) {
		chk_report(c, CHECK_UNREADABLE, addr, "%u blocks cannot be read: %s", blocks,
			   strerror(-err));
		return err;
	}
	replayed(c, addr, buf, blocks);
	if (c->online)
		online_has_read(c, addr, buf, blocks);
	*data = buf;
	return 0;
}

uint8_t *chk_at(struct check *c, uint64_t addr, void *buf, uint32_t blocks)
{
	uint8_t *data;

	return read_at(c, addr, buf, blocks, &data) ? NULL : data;
}

int chk_read(struct check *c, uint64_t addr, void *buf, uint32_t blocks)
{
	uint8_t *data;
	int err = read_at(c, addr, buf, blocks, &data);

	if (!err && data != buf)
		memcpy(buf, data, (size_t)blocks * BLOCK_SIZE);
	return err;
}

int chk_verify(struct check *c, const void *block, const struct meta_expect *e,
	       enum check_code code, const char *who)
{
	char why[400];
	int err = meta_verify(block, e, why, sizeof(why));

	c->verify_repair = err && chk_report(c, code, e->addr, "%s: %s", who, why);
	return err;
}

int chk_block(struct check *c, const struct meta_expect *e, void *block, enum check_code code,
	      const char *who)
{
	int err = chk_read(c, e->addr, block, 1);

	c->verify_repair = false;
	return err ? err : chk_verify(c, block, e, code, who);
}

/* ---- the whole ---- */

int chk_open(struct check *c)
{
	table_init(&c->images);
	c->groups = calloc(c->s->ag_count, sizeof(*c->groups));
	c->cluster = blkdev_alloc((size_t)CLUSTER_BLOCKS * BLOCK_SIZE);
	if (!c->groups || !c->cluster)
		return -ENOMEM;
	for (uint32_t ag = 0; ag < c->s->ag_count; ag++)
		c->groups[ag].blocks = super_ag_blocks(c->s, ag);
	for (size_t i = 0; i < ARRAY_SIZE(c->levels); i++) {
		c->levels[i] = blkdev_alloc(BLOCK_SIZE);
		if (!c->levels[i])
			return -ENOMEM;
	}
	return 0;
}

static void free_image(struct table_node *n, void *arg)
{
	table_remove(arg, n);
	free(container_of(n, struct chk_image, node));
}

void chk_close(struct check *c)
{
	chk_ahead_free(c);
	chk_space_free(c);
	for (size_t i = 0; i < ARRAY_SIZE(c->levels); i++)
		free(c->levels[i]);
	table_each(&c->images, free_image, &c->images);
	table_fini(&c->images);
	free(c->cluster);
	free(c->clusters);
	free(c->layers);
	free(c->inodes);
}

/* What only all that was read together lets us put right; bitmaps come last, and say it all. */
static void check_fix(struct check *c)
{
	fix_root(c);
	fix_found(c);
	fix_lost(c);
	fix_orphans(c);
	fix_names(c);
	if (c->fix->hold)
		return;
	fix_directories(c);
	fix_shared(c);
}

static int check_run(struct check *c)
{
	uint64_t began_ns = env_now_ns(c->p->env);
	int err;

	c->r->quiet = c->fix != NULL;		/* a repair has the volume to itself */
	chk_supers(c);
	chk_slots(c);
	err = chk_journals(c);
	if (err)
		return err;
	chk_groups(c);
	chk_layers_sort(c);
	if (!c->no_memory)
		chk_directories(c);
	if (!c->no_memory) {
		chk_layers(c);
		chk_orphans(c);
		chk_links(c);
	}
	if (!c->no_memory && c->fix)
		check_fix(c);
	if (!c->no_memory)
		chk_bitmaps(c);
	if (!c->no_memory && !c->fix)
		chk_hosts_after(c, began_ns);
	return c->no_memory ? -ENOMEM : 0;
}

/* Only reading: how the hosts do their compare-and-write does not matter here. */
static int read_super(struct blkdev *dev, struct super *s, char *why, size_t why_size)
{
	char a[24], b[24];
	int err = super_find(dev, s, why, why_size);

	if (err || s->size <= dev->info.size)
		return err;
	if (why && why_size)
		snprintf(why, why_size, "%s: the volume has %s, the device only %s: the device "
			 "shrank; give it its size back", dev->info.name,
			 text_format_size(s->size, a, sizeof(a)),
			 text_format_size(dev->info.size, b, sizeof(b)));
	return -ENOSPC;
}

/* Reads the volume once; @fix: and repairs it.  *@more: whether there may be more to do. */
static int check_round(const struct check_params *p, struct check_result *r, bool fix,
		       bool *more)
{
	struct check *c = calloc(1, sizeof(*c));
	int err;

	if (!c)
		return -ENOMEM;
	c->p = p;
	c->r = r;
	c->s = &r->super;
	c->dev = p->dev;
	err = chk_open(c);
	if (!err && fix)
		err = fix_begin(c);
	if (!err)
		err = check_run(c);
	if (c->fix) {
		r->repaired += c->fix->repaired;
		*more = c->fix->repaired > 0;
		if (!err)
			err = c->fix->err;
		if (!err)
			err = fix_flush(c);
		fix_end(c);
	}
	chk_close(c);
	free(c);
	return err;
}

/* Whether what the first look found may be repaired, and whether there is anything to. */
static bool may_begin(const struct check_params *p, const struct check_result *r)
{
	if (p->repair == CHECK_REPAIR_NONE || r->hosts_live || r->unreadable)
		return false;
	if (p->repair == CHECK_REPAIR_SAFE && r->lossy)
		return false;
	return r->errors || r->notes;
}

int check_volume(const struct check_params *p, struct check_result *r, char *why,
		 size_t why_size)
{
	bool fix = p->looked && p->repair == CHECK_REPAIR_LOSS, more = true;
	uint64_t repaired = 0, fewest = UINT64_MAX;
	unsigned int rounds = 0, idle = 0;
	int err = 0;

	while (!err && more && idle <= ROUNDS_MAX) {
		memset(r, 0, sizeof(*r));
		err = read_super(p->dev, &r->super, why, why_size);
		if (err)
			return err;
		err = check_round(p, r, fix, &more);
		if (!fix)
			more = may_begin(p, r);
		fix = true;
		idle = r->errors + r->notes < fewest ? 0 : idle + 1;
		fewest = idle ? fewest : r->errors + r->notes;
		repaired += r->repaired;
		r->repaired = repaired;
		r->rounds = ++rounds;
	}
	if (err && why && why_size)
		snprintf(why, why_size, "%s: %s", p->dev->info.name, strerror(-err));
	return err;
}
