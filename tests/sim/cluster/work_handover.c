// SPDX-License-Identifier: Apache-2.0
/*
 * A disk goes from one host to another under its guest (daemon/disks_handover.c), while anything befalls
 * both: the source shuts it and leaves the lock to the other, which waits for it, for a while; where that
 * does not come, the source takes it back, or gives it up for all.  What must hold:
 *
 *  - never do two hosts serve it: no write of the source's is done once the target has opened it, and a
 *    third host does not get it between the two (rules.c: who takes a lock that is left, R1);
 *  - what was answered is there, wherever it is opened next (R4, R7);
 *  - whoever takes it back, in the same life or the next, finds it as it was left: nobody has had it;
 *  - the wait of the receiver ends.
 */
#include "tests/sim/cluster/work.h"

#define WAIT_MAX_NS	(300 * SEC)	/* whatever befalls a receiver that waits for a few seconds */

/* ---- giving ---- */

static struct sim_host *pick_target(struct session *s)
{
	struct world *w = s->life->w;
	struct sim_host *h = &w->hosts[world_below(w, w->host_count)];
	struct life *to = h->life;

	if (h == s->life->host || h->crashed || !to || !to->attached || to->dead)
		return NULL;
	return h->offer.image && h->offer.to == to ? NULL : h;
}

/* Its front end comes back.  @err of the session: it has it, or not any more. */
static int take_back(struct session *s)
{
	struct life *life = s->life;
	struct world *w = life->w;
	int err = disk_open(s->disk->rig.disk, NULL, &s->disk->rig.holder);

	work_result(life, "taking back of a disk", s->f->id, err);
	w->counters[COUNT_handover_refused] += err == -ESTALE && s->f->writer != life;
	if (err)
		return err;
	s->disk->left = false;
	if (!life->dead && s->f->writer != life)
		world_violation(w, "R1: life %u takes back disk %#llx, and life %u has had it", life->pid,
				(unsigned long long)s->f->id, s->f->writer ? s->f->writer->pid : 0);
	vdisk_note(s);
	w->counters[COUNT_handover_back]++;
	return 0;
}

static void wait_for_heir(struct session *s)
{
	struct life *life = s->life;
	uint64_t until = env_now_ns(life->env) + world_below(life->w, 3000) * MSEC;

	while (env_now_ns(life->env) < until && !life->w->stop && !life->stop && !fs_is_lost(life->fs))
		env_sleep_until(life->env, env_now_ns(life->env) + 50 * MSEC);
}

/* Left: the target may come, and be gone again; return: 0 it is ours once more. */
static int after_leaving(struct session *s)
{
	unsigned int tries = (unsigned int)world_below(s->life->w, 4);
	int err = -ESTALE;

	do {
		wait_for_heir(s);
		if (tries)
			err = take_back(s);
	} while (err == -EBUSY && --tries);
	return err;
}

int vdisk_hand_over(struct session *s)
{
	struct life *life = s->life;
	struct sim_host *h = pick_target(s);
	struct disk *disk = s->disk->rig.disk;
	struct lock_heir heir;
	int err;

	if (!h || !session_counts(s) || s->image->busy)
		return 0;
	heir = (struct lock_heir){ h->life->slot, h->life->generation };
	world_trace(life->w, "host %u hands %s over to host %u", life->host->number, s->image->name,
		    h->number);
	chaos_saw_handover(life, h->life);
	err = disk_leave_to(disk, &heir);
	if (!err)
		err = disk_shut(disk);
	s->disk->left = true;
	work_result(life, "shut to hand over", s->f->id, err);
	for (unsigned int i = 0; !err && session_counts(s) && i < CELLS; i++) {
		chance_durable(&s->f->cells[i]);
		s->disk->discarded[i] = false;
	}
	if (err)
		return err;
	disk_let_go(disk);
	vdisk_note(s);
	life->w->counters[COUNT_handover_left]++;
	h->offer = (struct offer){ .image = s->image, .id = disk_id(disk), .change = s->image->change,
				   .to = h->life };
	return after_leaving(s);
}

void vdisk_free_left(struct session *s)
{
	int err = disk_free_left(s->disk->rig.disk);

	work_result(s->life, "release of what was left", s->f->id, err);
	s->life->w->counters[COUNT_handover_freed] += !err;
}

/* ---- receiving ---- */

int vdisk_receive(struct session *s, uint64_t id)
{
	struct life *life = s->life;
	struct world *w = life->w;
	uint64_t begin = env_now_ns(life->env);
	uint64_t until = begin + (1000 + world_below(w, 5000)) * MSEC;
	int err;

	for (;;) {
		err = vdisk_open(s, id, true);
		if (err != -EBUSY || env_now_ns(life->env) >= until || w->stop || life->stop)
			break;
		vdisk_close(s);
		env_sleep_until(life->env, env_now_ns(life->env) + 25 * MSEC);
	}
	if (!life->dead && env_now_ns(life->env) - begin > WAIT_MAX_NS)
		world_violation(w, "life %u has waited for disk %#llx for %llu s", life->pid,
				(unsigned long long)id,
				(unsigned long long)((env_now_ns(life->env) - begin) / SEC));
	/* Whoever had it in between has snapshotted it: its name has come to be another inode's. */
	if (!err && (s->f->id != id || s->disk->rig.dev->info.read_only))
		err = -ESTALE;
	w->counters[COUNT_handover_received] += !err;
	w->counters[COUNT_handover_late] += err == -EBUSY;
	return err;
}

void work_receive(struct life *life)
{
	struct offer o = life->host->offer;

	if (!o.image)
		return;
	life->host->offer.image = NULL;
	/* Some never come, and of some it is another disk's name by now. */
	if (o.to == life && o.image->file->id == o.id && o.image->change == o.change &&
	    world_chance(life->w, 85))
		work_disk_receive(life, o.image, o.id);
}
