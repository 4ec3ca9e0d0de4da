/* SPDX-License-Identifier: Apache-2.0 */
/* A virtual disk of a simulated host: its owner is a thread that runs calls one by one. */
#ifndef LUNFS_TESTS_FS_DISK_RIG_H
#define LUNFS_TESTS_FS_DISK_RIG_H

#include <errno.h>
#include <stdlib.h>

#include "base/env_sim.h"
#include "fs/disk.h"

struct sim_owner {
	struct disk_owner owner;
	struct env	*env;
	struct env_mutex mutex;
	struct env_cond	changed;
	struct reactor_call *first, **last;
	struct env_thread *thread, *self;
	bool		stopping;
};

static inline void sim_owner_post(struct disk_owner *owner, struct reactor_call *call)
{
	struct sim_owner *o = container_of(owner, struct sim_owner, owner);

	if (atomic_exchange(&call->queued, true))
		return;
	env_mutex_lock(o->env, &o->mutex);
	call->next = NULL;
	*o->last = call;
	o->last = &call->next;
	env_cond_broadcast(o->env, &o->changed);
	env_mutex_unlock(o->env, &o->mutex);
}

static inline bool sim_owner_is_current(struct disk_owner *owner)
{
	struct sim_owner *o = container_of(owner, struct sim_owner, owner);

	return sim_current(o->env) == o->self;
}

static inline void sim_owner_main(void *arg)
{
	struct sim_owner *o = arg;
	struct reactor_call *call;

	o->self = sim_current(o->env);
	env_mutex_lock(o->env, &o->mutex);
	while (o->first || !o->stopping) {
		call = o->first;
		if (!call) {
			env_cond_wait(o->env, &o->changed, &o->mutex, ENV_FOREVER);
			continue;
		}
		o->first = call->next;
		if (!o->first)
			o->last = &o->first;
		atomic_store(&call->queued, false);
		env_mutex_unlock(o->env, &o->mutex);
		call->fn(call);
		env_mutex_lock(o->env, &o->mutex);
	}
	env_mutex_unlock(o->env, &o->mutex);
}

static inline void sim_owner_start(struct sim_owner *o, struct env *env)
{
	memset(o, 0, sizeof(*o));
	o->owner.post = sim_owner_post;
	o->owner.is_current = sim_owner_is_current;
	o->env = env;
	o->last = &o->first;
	env_mutex_init(env, &o->mutex);
	env_cond_init(env, &o->changed);
	if (env_thread_start(env, "owner", sim_owner_main, o, &o->thread))
		abort();
}

static inline void sim_owner_stop(struct sim_owner *o)
{
	env_mutex_lock(o->env, &o->mutex);
	o->stopping = true;
	env_cond_broadcast(o->env, &o->changed);
	env_mutex_unlock(o->env, &o->mutex);
	env_thread_join(o->env, o->thread);
	env_cond_fini(o->env, &o->changed);
	env_mutex_fini(o->env, &o->mutex);
}

/* What a disk needs, and the disk. */
struct disk_rig {
	struct sim_owner owner;
	struct workers	*workers;
	struct disk_params params;
	struct disk	*disk;
	struct blkdev	*dev;
	struct blkdev	*lower;		/* NULL: the volume's device */
	struct disk_claim *resume;	/* what was left, and … */
	struct disk_claim *next;	/* … foreseen; NULL: nobody cares */
	struct disk_claim *shut;	/* what was left by one that had shut it, with next; or NULL */
	struct lock_holder holder;	/* who has it, if the answer is -EBUSY */
};

/* Both are written down where they are. */
static inline void disk_rig_note(void *arg)
{
	(void)arg;
}

static inline int disk_rig_open(struct disk_rig *rig, struct env *env, struct fs *fs, uint64_t id)
{
	int err = 0;

	sim_owner_start(&rig->owner, env);
	if (workers_create(env, "disk", 4, &rig->workers))
		abort();
	rig->params.fs = fs;
	rig->params.id = id;
	rig->params.name = "ds1:/disk";
	rig->params.owner = &rig->owner.owner;
	rig->params.workers = rig->workers;
	rig->params.lower = rig->lower ? rig->lower : fs->dev;
	if (rig->shut)
		err = disk_foretell(fs, id, rig->shut, rig->next, disk_rig_note, rig);
	else if (rig->next)
		err = disk_take_back(fs, id, rig->resume, rig->next, disk_rig_note, rig);
	if (!err)
		err = disk_new(&rig->params, &rig->disk);
	if (!err && rig->shut)
		err = disk_expect(rig->disk, rig->shut);
	if (!err && rig->shut && disk_left(rig->disk, rig->shut))
		err = disk_foretell(fs, id, rig->shut, rig->next, disk_rig_note, rig);
	if (!err)
		err = disk_open(rig->disk, rig->resume, &rig->holder);
	if (!err)
		rig->dev = disk_blkdev(rig->disk);
	return err;
}

static inline int disk_rig_close(struct disk_rig *rig)
{
	int err = rig->disk ? disk_shut(rig->disk) : 0;

	disk_free(rig->disk);
	workers_destroy(rig->workers);
	sim_owner_stop(&rig->owner);
	rig->disk = NULL;
	return err;
}

#endif
