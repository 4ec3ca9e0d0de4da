/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk's slow operations, as its owner sees them: begun here, done by a worker (disk_work.c),
 * ended here.
 *
 * Loads, space and commits go on beside each other and beside requests.  An exclusive one
 * changes what is where: it waits until the requests that had begun before it, and the other
 * operations, have ended; requests to its units, and new operations, wait for it.
 */
#include "base/mutant.h"
#include "fs/disk_internal.h"

static uint64_t disk_units(const struct disk *d)
{
	return DIV_ROUND_UP(d->dev.info.size, UNIT_SIZE);
}

static struct disk_slow *slow_get(struct disk *d, enum disk_slow_kind kind, uint64_t first,
				  uint64_t end)
{
	struct disk_slow *s;

	if (list_empty(&d->slows_free))
		return NULL;
	s = list_first(&d->slows_free, struct disk_slow, node);
	list_del(&s->node);
	s->kind = kind;
	s->first = first;
	s->end = end;
	s->io = NULL;
	s->off = s->len = 0;
	s->err = s->commit_err = 0;
	s->started = false;
	s->found = NULL;
	s->found_count = s->bits_count = 0;
	s->flush = false;
	return s;
}

static void slow_post(struct disk *d, struct disk_slow *s)
{
	STAT_ADD(d->stats.slow, 1);
	s->started = true;
	s->work.fn = disk_work;
	workers_post(d->p.workers, &s->work);
}

static void shared_begin(struct disk *d, struct disk_slow *s)
{
	list_add_tail(&d->slows_active, &s->node);
	d->active++;
	d->loads += s->kind == SLOW_LOAD;
	slow_post(d, s);
}

static void shared_end(struct disk *d, struct disk_slow *s)
{
	list_del(&s->node);
	list_add_head(&d->slows_free, &s->node);
	d->active--;
	d->loads -= s->kind == SLOW_LOAD;
}

/* Whether one of @kind that touches [@first, @end) is under way. */
static bool is_active(struct disk *d, enum disk_slow_kind kind, uint64_t first, uint64_t end)
{
	struct disk_slow *s, *tmp;

	list_for_each(s, tmp, &d->slows_active, node)
		if (s->kind == kind && s->first < end && s->end > first)
			return true;
	return false;
}

/* ---- the map, looked up ---- */

void disk_slow_load(struct disk *d, uint64_t unit)
{
	uint64_t end = unit + DISK_LOAD_UNITS;
	struct disk_slow *s;

	if (d->exclusive || is_active(d, SLOW_LOAD, unit, unit + 1))
		return;
	s = slow_get(d, SLOW_LOAD, unit, end < disk_units(d) ? end : disk_units(d));
	if (!s)
		return;
	s->room_counts = !d->space && d->moves == d->moves_flushed;
	s->spaces_begun = d->spaces_begun;
	STAT_ADD(d->stats.misses, 1);
	shared_begin(d, s);
}

/*
 * Space that is not durable yet must not be written to, or a process that is killed leaves a note of
 * what is nobody's (SPACE makes sure of it): then it is as if there was none.
 */
static void load_end(struct disk *d, struct disk_slow *s)
{
	bool room_counts = s->room_counts && s->spaces_begun == d->spaces_begun;

	for (unsigned int i = 0; i < s->found_count; i++) {
		const struct extent *e = &s->found[i];
		enum extent_kind kind = (enum extent_kind)e->kind;

		if (kind == EXTENT_ROOM && !room_counts && !MUTANT("room-undurable"))
			kind = EXTENT_ZERO;
		extents_set(&d->map, e->start, e->len, kind, e->block);
	}
	free(s->found);
	s->found = NULL;
	if (s->err)
		disk_fail_waiting(d, s->first, s->first + 1, false, s->err);
	else
		disk_fills_overlay(d, s->first, s->reached);
	__atomic_store_n(&d->stats.map_bytes, extents_bytes(&d->map), __ATOMIC_RELAXED);
}

/* ---- space ---- */

static bool is_asked_for(const struct disk_space *space, uint64_t first, uint64_t end)
{
	for (unsigned int i = 0; space && i < space->count; i++)
		if (space->ranges[i].first < end && space->ranges[i].end > first)
			return true;
	return false;
}

/*
 * @unit needs some, and those up to @end will.  A megabyte at a time, as near together as the
 * file is written; more where it is written in turn.
 */
void disk_slow_space(struct disk *d, uint64_t unit, uint64_t end)
{
	uint64_t first = ALIGN_DOWN(unit, DISK_SPACE_UNITS), all = disk_units(d);
	struct disk_space *space = d->space_next;

	if (unit == d->space_end)
		d->space_ahead = UNITS_MAX;
	else
		d->space_ahead = DISK_SPACE_UNITS;
	end = end < first + d->space_ahead ? first + d->space_ahead : end;
	end = end < first + UNITS_MAX ? end : first + UNITS_MAX;
	end = end < all ? end : all;
	if (d->space_exact) {
		first = unit;
		end = unit + 1;
	}
	if (is_asked_for(d->space, first, end) || is_asked_for(space, first, end) ||
	    space->count == DISK_SPACE_RANGES)
		return;
	space->ranges[space->count++] = (struct disk_range){ .first = first, .end = end,
							     .wanted = unit };
	d->space_end = end;
}

void disk_space_run(struct disk *d)
{
	struct disk_space *space = d->space_next;
	struct disk_slow *s;

	if (!d->open || !space->count || d->space)
		return;
	s = d->exclusive || d->pauses || d->no_space ? NULL : slow_get(d, SLOW_SPACE, 0, 0);
	if (!s) {
		/* Who wants it waits, and asks again when that is over. */
		space->count = 0;
		return;
	}
	s->space = d->space = space;
	s->covers_moves = d->moves;
	s->flush = d->moves != d->moves_flushed;
	d->spaces_begun++;
	d->space_next = space == d->spaces ? d->spaces + 1 : d->spaces;
	d->space_next->count = 0;
	shared_begin(d, s);
}

static void space_is_short(struct disk *d, const struct disk_range *r)
{
	if (d->p.enospc == DISK_ENOSPC_REPORT) {
		disk_fail_waiting(d, r->first, r->end, true, -ENOSPC);
		return;
	}
	if (!d->stats.no_space) {
		log_error(d->fs->env, d->name, "the datastore is full: what writes where nothing was "
			  "written waits until there is space; delete something, or grow it");
		__atomic_store_n(&d->stats.no_space, true, __ATOMIC_RELAXED);
		if (d->p.events.no_space)
			d->p.events.no_space(d->p.arg, true);
	}
	d->no_space = true;
	disk_tick_set(d);
}

static void space_is_back(struct disk *d)
{
	if (!d->stats.no_space)
		return;
	__atomic_store_n(&d->stats.no_space, false, __ATOMIC_RELAXED);
	log_info(d->fs->env, d->name, "there is space again: it goes on");
	if (d->p.events.no_space)
		d->p.events.no_space(d->p.arg, false);
}

/* What units of @r got, or had. */
static void range_use(struct disk *d, const struct disk_range *r)
{
	disk_fills_reserve(d);
	for (uint64_t unit = r->first; unit < r->reached; unit++) {
		const struct map_entry *e = &r->e[unit - r->first];

		if (!e->block || disk_fill_find(d, unit))
			continue;
		if (e->valid == ~0ULL) {
			/* Full: what made us think otherwise is forgotten. */
			extents_forget(&d->map, unit * UNIT_BLOCKS, UNIT_BLOCKS);
			continue;
		}
		/* Only of what reads as zeros: @e may be older than fills that came and went. */
		extents_room(&d->map, unit * UNIT_BLOCKS, UNIT_BLOCKS, e->block);
		if (unit == r->wanted || disk_unit_shows_parent(d, unit))
			disk_fill_add(d, unit, e);
	}
	disk_fills_overlay(d, r->first, r->reached);
}

/* Return: false if its unit has to be tried alone. */
static bool range_end(struct disk *d, const struct disk_range *r)
{
	if (r->err == -ENOSPC && r->end - r->first > 1)
		return false;	/* there may be enough for the one, or it has some */
	if (r->err == -ENOSPC) {
		space_is_short(d, r);
	} else if (r->err) {
		disk_fail_waiting(d, r->first, r->end, true, r->err);
	} else if (r->reached <= r->wanted) {
		return false;	/* only neighbours before it got some, or had some */
	} else {
		space_is_back(d);
		range_use(d, r);
	}
	return true;
}

static void space_end(struct disk *d, struct disk_slow *s)
{
	bool exact = false;

	if (!s->err && s->flush && s->covers_moves > d->moves_flushed)
		d->moves_flushed = s->covers_moves;
	for (unsigned int i = 0; i < s->space->count; i++)
		if (!range_end(d, &s->space->ranges[i]))
			exact = true;
	d->space_exact = exact;
	/* Not before: what done() submits may ask for space, and the next to be asked would be this. */
	d->space = NULL;
}

/* ---- commit, flush ---- */

void disk_slow_commit(struct disk *d)
{
	struct disk_slow *s;

	d->commit_wanted = true;
	if (d->committing || d->exclusive || d->pauses)
		return;
	s = slow_get(d, SLOW_COMMIT, 0, 0);
	if (!s)
		return;
	d->commit_wanted = false;
	d->committing = true;
	s->bits = d->bits;
	s->bits_count = disk_fills_collect(d, d->bits);
	s->flush = !list_empty(&d->flushes);
	list_splice_tail(&d->flushing, &d->flushes);
	d->map_changes += s->bits_count != 0;
	s->covers = d->writes;
	s->covers_map = d->map_changes;
	s->covers_moves = d->moves;
	shared_begin(d, s);
}

static void commit_end(struct disk *d, struct disk_slow *s)
{
	struct list all;

	d->committing = false;
	disk_fills_committed(d, s->err);
	if (s->flush && !s->err)
		d->writes_flushed = s->covers;
	if ((s->flush || s->bits_count) && !s->err) {
		d->map_flushed = s->covers_map;
		if (s->covers_moves > d->moves_flushed)
			d->moves_flushed = s->covers_moves;
	}
	list_init(&all);
	list_splice_tail(&all, &d->flushing);
	while (!list_empty(&all)) {
		struct blk_io *io = list_first(&all, struct blk_io, node);

		list_del(&io->node);
		disk_finish(d, io, s->err);
	}
}

/* ---- what timed out ---- */

void disk_slow_drain(struct disk *d)
{
	struct disk_slow *s;

	if (list_empty(&d->timed_out) || !list_empty(&d->draining))
		return;
	s = slow_get(d, SLOW_DRAIN, 0, 0);
	if (!s)
		return;
	list_splice_tail(&d->draining, &d->timed_out);
	shared_begin(d, s);
}

/* ---- exclusive ones ---- */

bool disk_slow_exclusive(struct disk *d, enum disk_slow_kind kind, struct blk_io *io,
			 uint64_t off, uint64_t len)
{
	struct disk_slow *s;

	if (d->exclusive)
		return false;
	s = slow_get(d, kind, off / UNIT_SIZE, DIV_ROUND_UP(off + len, UNIT_SIZE));
	if (!s)
		return false;
	s->io = io;
	s->off = off;
	s->len = len;
	d->exclusive = s;
	/* What begins from now on is none of its business: it keeps out of its units. */
	assert(!d->in_flight[d->epoch ^ 1]);
	d->epoch ^= 1;
	disk_exclusive_run(d);
	return true;
}

void disk_exclusive_run(struct disk *d)
{
	struct disk_slow *s = d->exclusive;

	if (!s || s->started || d->active || d->in_flight[d->epoch ^ 1])
		return;
	s->bits = d->bits;
	s->bits_count = disk_fills_collect(d, d->bits);
	slow_post(d, s);
}

static void exclusive_end(struct disk *d, struct disk_slow *s)
{
	struct blk_io *io = s->io;
	struct disk_req *q = disk_req(io);
	bool again = false;
	int err = s->err;

	disk_fills_committed(d, s->commit_err);
	d->exclusive = NULL;
	list_add_head(&d->slows_free, &s->node);
	/* Without the commit it has done nothing, and fresh blocks are still only the fills'. */
	if (s->kind != SLOW_READ && !s->commit_err) {
		disk_fills_drop(d, s->first, s->end);
		extents_forget(&d->map, s->first * UNIT_BLOCKS, (s->end - s->first) * UNIT_BLOCKS);
		d->map_changes++;
		d->moves++;
	}
	if (err == -ENOSPC && d->p.enospc == DISK_ENOSPC_PAUSE) {
		space_is_short(d, &(struct disk_range){ .first = s->first, .end = s->end });
		again = true;
	} else if (!err && (s->kind == SLOW_DISCARD || s->kind == SLOW_ZERO)) {
		q->next = s->off + s->len - io->off;
		again = true;
	}
	if (again)
		list_add_tail(&d->waiting, &io->node);
	else
		disk_finish(d, io, err);
}

/* ---- the end ---- */

void disk_slow_back(struct reactor_call *call)
{
	struct disk_slow *s = container_of(call, struct disk_slow, back);
	struct disk *d = s->d;

	switch (s->kind) {
	case SLOW_LOAD:
		load_end(d, s);
		shared_end(d, s);
		break;
	case SLOW_SPACE:
		space_end(d, s);
		shared_end(d, s);
		break;
	case SLOW_COMMIT:
		shared_end(d, s);
		commit_end(d, s);
		break;
	case SLOW_DRAIN:
		shared_end(d, s);
		disk_end_drained(d);
		break;
	default:
		exclusive_end(d, s);
		break;
	}
	disk_exclusive_run(d);
	if (d->commit_wanted)
		disk_slow_commit(d);
	disk_slow_drain(d);
	disk_retry(d);
	disk_send(d);
	if (d->quiet_wanted)
		disk_check_quiet(d);
}

void disk_check_quiet(struct disk *d)
{
	if (d->in_flight[0] || d->in_flight[1] || d->active || d->exclusive)
		return;
	d->quiet_wanted = false;
	env_mutex_lock(d->fs->env, &d->mutex);
	d->quiet++;
	env_cond_broadcast(d->fs->env, &d->changed);
	env_mutex_unlock(d->fs->env, &d->mutex);
}

/* ---- now and then ---- */

void disk_tick_set(struct disk *d)
{
	if (d->tick_set || !d->p.reactor)
		return;
	d->tick_set = true;
	reactor_timer_set(d->p.reactor, &d->tick, disk_now_ns(d) + DISK_TICK_NS);
}

void disk_tick(struct reactor_timer *t)
{
	struct disk *d = container_of(t, struct disk, tick);

	d->tick_set = false;
	/* Who paused it has all of it: its fills, too. */
	if (d->pauses) {
		disk_tick_set(d);
		return;
	}
	if (d->no_space) {
		d->no_space = false;
		disk_retry(d);
	}
	if (d->fills_fresh)
		disk_slow_commit(d);
}
