/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/text.h"
#include "fs/check/internal.h"

#define TEXT_SIZE	640

const struct check_code_info *check_code_info(enum check_code code)
{
#define INFO(symbol, number, name, severity, meaning) { number, name, CHECK_##severity, meaning },
	static const struct check_code_info infos[] = { CHECK_CODES(INFO) };
#undef INFO
	assert((size_t)code < ARRAY_SIZE(infos));
	return &infos[code];
}

void chk_report(struct check *c, enum check_code code, uint64_t addr, const char *fmt, ...)
{
	char text[TEXT_SIZE];
	struct check_finding f = { code, addr, text };
	va_list ap;

	/* What was not looked at for want of memory seems to be wrong or missing. */
	if (c->no_memory)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (check_code_info(code)->severity == CHECK_ERROR)
		c->r->errors++;
	else
		c->r->notes++;
	if (code == CHECK_UNREADABLE)
		c->r->unreadable++;
	c->p->report(c->p->arg, &f);
}

void chk_progress(struct check *c, const char *phase, uint64_t done, uint64_t total)
{
	if (c->p->progress)
		c->p->progress(c->p->arg, phase, done, total);
}

int chk_read(struct check *c, uint64_t addr, void *buf, uint32_t blocks)
{
	int err = blkdev_read(c->dev, addr, buf, (size_t)blocks * BLOCK_SIZE);

	if (err) {
		chk_report(c, CHECK_UNREADABLE, addr, "%u blocks cannot be read: %s", blocks,
			   strerror(-err));
		return err;
	}
	for (uint32_t i = 0; i < blocks && c->images.count; i++) {
		struct table_node *n = table_find(&c->images, addr + (uint64_t)i * BLOCK_SIZE);

		if (n)
			memcpy((uint8_t *)buf + (size_t)i * BLOCK_SIZE,
			       container_of(n, struct chk_image, node)->data, BLOCK_SIZE);
	}
	return 0;
}

int chk_verify(struct check *c, const void *block, const struct meta_expect *e,
	       enum check_code code, const char *who)
{
	char why[400];
	int err = meta_verify(block, e, why, sizeof(why));

	if (err)
		chk_report(c, code, e->addr, "%s: %s", who, why);
	return err;
}

int chk_block(struct check *c, const struct meta_expect *e, void *block, enum check_code code,
	      const char *who)
{
	int err = chk_read(c, e->addr, block, 1);

	return err ? err : chk_verify(c, block, e, code, who);
}

/* ---- the whole ---- */

static int check_open(struct check *c)
{
	table_init(&c->images);
	c->groups = calloc(c->s->ag_count, sizeof(*c->groups));
	c->cluster = blkdev_alloc((size_t)CLUSTER_BLOCKS * BLOCK_SIZE);
	if (!c->groups || !c->cluster)
		return -ENOMEM;
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

static void check_close(struct check *c)
{
	chk_space_free(c);
	for (size_t i = 0; i < ARRAY_SIZE(c->levels); i++)
		free(c->levels[i]);
	table_each(&c->images, free_image, &c->images);
	table_fini(&c->images);
	free(c->cluster);
	free(c->layers);
	free(c->inodes);
}

static int check_run(struct check *c)
{
	uint64_t began_ns = env_now_ns(c->p->env);
	int err;

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
		chk_bitmaps(c);
	}
	if (!c->no_memory)
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

int check_volume(const struct check_params *p, struct check_result *r, char *why,
		 size_t why_size)
{
	struct check *c;
	int err;

	memset(r, 0, sizeof(*r));
	err = read_super(p->dev, &r->super, why, why_size);
	if (err)
		return err;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->p = p;
	c->r = r;
	c->s = &r->super;
	c->dev = p->dev;
	err = check_open(c);
	if (!err)
		err = check_run(c);
	if (err && why && why_size)
		snprintf(why, why_size, "%s: %s", p->dev->info.name, strerror(-err));
	check_close(c);
	free(c);
	return err;
}
