// SPDX-License-Identifier: Apache-2.0
/* What names and files may hold, given what was acknowledged and what was made durable. */
#include "tests/sim/cluster/sim.h"

/* Windows begin at the file's start, about the end of a unit, and where maps grow a level. */
static const uint64_t window_off[WINDOWS] = {
	0, 240 * KIB, 3 * MIB + 512, 56 * MIB - 8 * KIB, 130 * MIB };

static bool chance_has(const struct chance *c, uint64_t value)
{
	for (unsigned int i = 0; i < c->count; i++)
		if (c->of[i] == value)
			return true;
	return false;
}

void chance_issue(struct chance *c, uint64_t value)
{
	if (!c->count)
		c->of[c->count++] = c->cur;
	if (chance_has(c, value))
		return;
	if (c->count == ARRAY_SIZE(c->of))
		c->any = true;
	else
		c->of[c->count++] = value;
}

void chance_ack(struct chance *c, uint64_t value)
{
	chance_issue(c, value);
	c->cur = value;
	c->certain = true;
}

void chance_durable(struct chance *c)
{
	if (!c->certain)
		return;
	c->any = false;
	c->count = 0;
}

void chance_doubt(struct chance *c)
{
	if (c->count > 1 || c->any)
		c->certain = false;
}

void chance_settle(struct chance *c, uint64_t value)
{
	c->cur = value;
	c->certain = true;
}

void chance_set(struct chance *c, uint64_t value)
{
	chance_settle(c, value);
	chance_durable(c);
}

bool chance_allows(const struct chance *c, uint64_t value)
{
	if (c->certain)
		return c->cur == value;
	return c->any || chance_has(c, value);
}

/* ---- cells ---- */

uint64_t cell_off(unsigned int cell)
{
	return window_off[cell / WINDOW_CELLS] + cell % WINDOW_CELLS * CELL;
}

void cell_fill(uint64_t tag, unsigned int cell, uint64_t stamp, uint8_t *buf)
{
	uint64_t words[CELL / 8];

	words[0] = CELL_MAGIC;
	words[1] = tag;
	words[2] = cell;
	for (unsigned int i = 3; i < CELL / 8; i++)
		words[i] = stamp;
	memcpy(buf, words, CELL);
}

bool cell_parse(uint64_t tag, unsigned int cell, const uint8_t *buf, uint64_t *stamp)
{
	uint64_t words[CELL / 8];
	bool zeros = true;

	memcpy(words, buf, CELL);
	for (unsigned int i = 0; i < CELL / 8; i++)
		zeros = zeros && !words[i];
	*stamp = zeros ? 0 : words[3];
	for (unsigned int i = 4; i < CELL / 8; i++)
		if (!zeros && words[i] != words[3])
			return false;
	return zeros || (words[0] == CELL_MAGIC && words[1] == tag && words[2] == cell);
}

bool cell_tag(const uint8_t *block, uint64_t *tag)
{
	uint64_t words[2];

	for (unsigned int i = 0; i < BLOCK_SIZE / CELL; i++) {
		memcpy(words, block + i * CELL, sizeof(words));
		if (words[0] != CELL_MAGIC)
			continue;
		*tag = words[1];
		return true;
	}
	return false;
}

/* ---- attributes ---- */

const char *xattr_name(unsigned int i)
{
	static const char *const names[XATTRS] = { "user.sim.one", "trusted.sim.two" };

	return names[i];
}

/* Values of very different lengths: in the inode's block, and more than that block has room for. */
size_t xattr_fill(uint64_t id, unsigned int i, uint64_t stamp, uint8_t *buf)
{
	uint64_t words[3] = { id, i, stamp };
	size_t len = sizeof(words) + stamp * 2654435761u % (XATTR_MAX - sizeof(words));

	memcpy(buf, words, sizeof(words));
	memset(buf + sizeof(words), (int)(stamp % 251), len - sizeof(words));
	return len;
}

bool xattr_parse(uint64_t id, unsigned int i, const uint8_t *buf, size_t len, uint64_t *stamp)
{
	uint8_t want[XATTR_MAX];
	uint64_t words[3];

	if (len < sizeof(words))
		return false;
	memcpy(words, buf, sizeof(words));
	*stamp = words[2];
	return xattr_fill(id, i, *stamp, want) == len && !memcmp(want, buf, len);
}

/* ---- names of disks ---- */

static unsigned int number_of(const struct life *life)
{
	return life->host->number;
}

void image_changed(struct mimage *im, struct life *life)
{
	memset(im->unsynced, 0, sizeof(im->unsynced));
	im->unsynced[number_of(life)] = life;
}

void image_durable(struct mimage *im)
{
	memset(im->unsynced, 0, sizeof(im->unsynced));
	chance_durable(&im->there);
}

static bool image_is_synced(const struct mimage *im)
{
	for (unsigned int i = 0; i <= HOSTS_MAX; i++)
		if (im->unsynced[i])
			return false;
	return true;
}

void image_home(struct mimage *im, const struct life *life)
{
	for (unsigned int i = 0; i <= HOSTS_MAX; i++)
		if (im->unsynced[i] != life)
			im->unsynced[i] = NULL;
	if (image_is_synced(im))
		chance_durable(&im->there);
}

/* Of several that may have changed it last each has to sync. */
static void image_synced(struct mimage *im, const struct life *life)
{
	if (im->unsynced[number_of(life)] != life || !im->there.certain)
		return;
	im->unsynced[number_of(life)] = NULL;
	if (image_is_synced(im))
		chance_durable(&im->there);
}

static void image_died(struct mimage *im, const struct life *life)
{
	bool unsynced = im->unsynced[number_of(life)] == life;

	if (unsynced)
		im->unsynced[number_of(life)] = NULL;
	if (unsynced || im->busy == life)
		chance_doubt(&im->there);
}

/* ---- files ---- */

struct mfile *model_file(struct model *m, uint64_t id)
{
	struct mfile *f;

	for (f = m->files; f && (!id || f->id != id); f = f->next)
		;
	return f;
}

static struct mfile *file_new(struct model *m)
{
	struct mfile *f = calloc(1, sizeof(*f));

	if (!f)
		abort();
	for (unsigned int i = 0; i < CELLS; i++)
		f->cells[i].certain = true;
	for (unsigned int i = 0; i < XATTRS; i++)
		f->xattrs[i].certain = true;
	f->next = m->files;
	m->files = f;
	return f;
}

void model_claim(struct model *m, struct mfile *f, uint64_t id)
{
	struct mfile *before = model_file(m, id);

	/* Again: what created it the first time was undone by a crash. */
	if (before)
		before->id = 0;
	f->id = id;
}

struct mfile *model_add(struct model *m, uint64_t id, bool is_dir)
{
	struct mfile *f = file_new(m);

	model_claim(m, f, id);
	f->tag = id;
	f->is_dir = is_dir;
	return f;
}

void model_opened(struct mfile *f, struct life *life, bool write)
{
	struct life *before = f->writer;

	/*
	 * Who gives a lock up has brought home and flushed first what it wrote (R4); not what a host
	 * that died before it had written and nobody synced.
	 */
	if (before && before != life && !before->dead)
		for (unsigned int i = 0; i < CELLS; i++)
			if (!f->cells[i].by || f->cells[i].by == before)
				chance_durable(&f->cells[i]);
	if (write)
		f->writer = life;
	else if (before != life)
		f->writer = NULL;
}

void model_synced(struct model *m, struct life *life, uint64_t change)
{
	if (life->dead)
		return;
	for (unsigned int i = 0; i < DIRS * NAMES; i++) {
		struct mname *n = &m->dirs[i / NAMES].names[i % NAMES];

		if (n->writer == life && !n->busy && n->change <= change)
			chance_durable(&n->id);
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(m->images); i++) {
		struct mimage *im = &m->images[i];

		if (!im->busy && im->change <= change)
			image_synced(im, life);
	}
	for (struct mfile *f = m->files; f; f = f->next)
		for (unsigned int i = 0; i < XATTRS; i++)
			if (f->xattr_writer == life && !f->xattr_busy && f->xattr_change <= change)
				chance_durable(&f->xattrs[i]);
}

/* The same of all but plain names and contents. */
static void others_died(struct model *m, const struct life *life)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(m->images); i++)
		image_died(&m->images[i], life);
	for (unsigned int i = 0; i < MULTIS * MULTI_CELLS; i++) {
		struct chance *c = &m->multis[i / MULTI_CELLS].cells[i % MULTI_CELLS];

		if (c->by == life)
			chance_doubt(c);
	}
	for (struct mfile *f = m->files; f; f = f->next)
		for (unsigned int i = 0; i < XATTRS; i++)
			if (f->xattr_writer == life || f->xattr_busy == life)
				chance_doubt(&f->xattrs[i]);
}

void model_died(struct model *m, struct life *life)
{
	life->dead = true;
	others_died(m, life);
	for (unsigned int i = 0; i < DIRS * NAMES; i++) {
		struct mname *n = &m->dirs[i / NAMES].names[i % NAMES];

		n->id.any = n->id.any || (n->busy == life && n->creating);
		if (n->writer == life || n->busy == life)
			chance_doubt(&n->id);
	}
	for (struct mfile *f = m->files; f; f = f->next) {
		if (f->writer != life)
			continue;
		for (unsigned int i = 0; i < CELLS; i++)
			chance_doubt(&f->cells[i]);
	}
}

/* ---- the beginning ---- */

static void start_others(struct model *m)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(m->images); i++) {
		struct mimage *im = &m->images[i];

		snprintf(im->name, sizeof(im->name), "disk-%u-%u", i / IMAGES, i % IMAGES);
		im->family = 1 + i / IMAGES;
		im->file = file_new(m);
		im->file->tag = im->family;
		im->there.certain = true;
	}
	for (unsigned int i = 0; i < MULTIS; i++) {
		snprintf(m->multis[i].name, sizeof(m->multis[i].name), "shared-%u", i);
		for (unsigned int k = 0; k < MULTI_CELLS; k++)
			m->multis[i].cells[k].certain = true;
	}
}

void model_start(struct world *w)
{
	struct model *m = calloc(1, sizeof(*m));

	if (!m)
		abort();
	m->w = w;
	w->model = m;
	start_others(m);
	for (unsigned int i = 0; i < DIRS; i++) {
		snprintf(m->dirs[i].name, sizeof(m->dirs[i].name), "dir-%u", i);
		for (unsigned int j = 0; j < NAMES; j++) {
			struct mname *n = &m->dirs[i].names[j];
			int len = snprintf(n->name, sizeof(n->name), "name-%u-%u-", i, j);
			unsigned int more = (unsigned int)world_below(w, 180);

			memset(n->name + len, 'a' + (int)j, more);
			n->id.certain = true;
		}
	}
}
