// SPDX-License-Identifier: Apache-2.0
/* Extended attributes: set, removed and read on all hosts. */
#include "tests/sim/cluster/work.h"

/*
 * What another host did before is durable: it gave the lock up, or died and is in doubt.  Of the
 * one that was changed now both values may be there after a crash.
 */
static void changed(struct life *life, struct mfile *f, unsigned int which, uint64_t old,
		    uint64_t value)
{
	struct life *before = f->xattr_writer;

	for (unsigned int i = 0; before && before != life && !before->dead && i < XATTRS; i++)
		if (i != which) {
			chance_durable(&f->xattrs[i]);
		} else if (f->xattrs[i].certain) {
			f->xattrs[i].count = 0;
			f->xattrs[i].any = false;
			f->xattrs[i].cur = old;
		}
	chance_ack(&f->xattrs[which], value);
	f->xattr_writer = life;
	f->xattr_change = ++life->w->model->changes;
}

static int change(struct life *life, struct mfile *f, unsigned int i, uint64_t value)
{
	uint8_t buf[XATTR_MAX];
	size_t len;
	int err;

	if (!value) {
		err = xattr_remove(life->fs, f->tag, xattr_name(i));
		work_result(life, "removexattr", f->tag, err == -ENODATA ? 0 : err);
		life->w->counters[COUNT_xattr_remove] += !err;
		return err;
	}
	len = xattr_fill(f->tag, i, value, buf);
	err = xattr_set(life->fs, f->tag, xattr_name(i), buf, len, 0);
	work_result(life, "setxattr", f->tag, err);
	life->w->counters[COUNT_xattr_set] += !err;
	return err;
}

static void do_change(struct life *life, struct mfile *f, unsigned int i)
{
	struct world *w = life->w;
	struct chance *c = &f->xattrs[i];
	uint64_t value = world_chance(w, 30) ? 0 : ++w->model->stamp, old = c->cur;
	bool had = !c->certain || c->cur;
	int err;

	if (life->dead)
		return;
	f->xattr_busy = life;
	chance_issue(c, value);
	err = change(life, f, i, value);
	if (f->xattr_busy != life)
		return;
	f->xattr_busy = NULL;
	if (err == -ENODATA && had && c->certain && !life->dead)
		world_violation(w, "attribute %u of %#llx is gone", i, (unsigned long long)f->tag);
	if (err == -ENODATA)
		err = 0;
	if (life->dead || (err && !work_is_refusal(err)))
		chance_doubt(c);
	else if (!err)
		changed(life, f, i, old, value);
}

static void do_read(struct life *life, struct mfile *f, unsigned int i)
{
	struct world *w = life->w;
	uint8_t buf[XATTR_MAX];
	uint64_t stamp = 0, change = f->xattr_change;
	bool own = f->xattr_writer == life && !f->xattr_busy;
	size_t len = 0;
	int err = xattr_get(life->fs, f->tag, xattr_name(i), buf, sizeof(buf), &len);

	work_result(life, "getxattr", f->tag, err == -ENODATA ? 0 : err);
	if ((err && err != -ENODATA) || life->dead)
		return;
	if (!err && !xattr_parse(f->tag, i, buf, len, &stamp))
		world_violation(w, "R8: attribute %u of %#llx holds what was never set there", i,
				(unsigned long long)f->tag);
	/* Of another host's changes the newest need not be at home, where this is read. */
	if (own && f->xattr_writer == life && !f->xattr_busy && f->xattr_change == change &&
	    !chance_allows(&f->xattrs[i], stamp))
		world_violation(w, "R7: attribute %u of %#llx reads as %llu; allowed is %s%llu of %u", i,
				(unsigned long long)f->tag, (unsigned long long)stamp,
				f->xattrs[i].certain ? "only " : "not ",
				(unsigned long long)f->xattrs[i].cur, f->xattrs[i].count);
}

void xattr_step(struct life *life)
{
	struct mdir *dir;
	struct mname *n = pick_name(life, &dir);
	unsigned int i = (unsigned int)world_below(life->w, XATTRS);
	struct mfile *f;

	if (!n || !n->id.certain || !n->id.cur || !name_leads_to(life, dir, n, n->id.cur))
		return;
	f = model_file(life->w->model, n->id.cur);
	if (!f || f->is_dir)
		return;
	/* The dead change nothing any more that counts. */
	if (f->xattr_busy && f->xattr_busy->dead)
		f->xattr_busy = NULL;
	if (world_chance(life->w, 35))
		do_read(life, f, i);
	else if (!f->xattr_busy)
		do_change(life, f, i);
}
