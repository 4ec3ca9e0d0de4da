// SPDX-License-Identifier: Apache-2.0
/* Targets, logical units and nexuses: their making, their unit attentions, their resets. */
#include <stdio.h>
#include <stdlib.h>

#include "iscsi/scsi_internal.h"

#define LOOK_NS		NSEC_PER_MSEC	/* whether a removed unit's commands have ended */

/* ---- unit attentions ---- */

static const uint16_t ua_asc[UA_COUNT] = {
	[UA_POWER_ON] = ASC_POWER_ON,
	[UA_RESET] = ASC_DEVICE_RESET,
	[UA_NEXUS_LOSS] = ASC_NEXUS_LOSS,
	[UA_COMMANDS_CLEARED] = ASC_COMMANDS_CLEARED,
	[UA_MEDIUM] = ASC_MEDIUM_CHANGED,
	[UA_CAPACITY] = ASC_CAPACITY_CHANGED,
	[UA_MODE] = ASC_MODE_CHANGED,
	[UA_RESERVATIONS_PREEMPTED] = ASC_RESERVATIONS_PREEMPTED,
	[UA_RESERVATIONS_RELEASED] = ASC_RESERVATIONS_RELEASED,
	[UA_REGISTRATIONS_PREEMPTED] = ASC_REGISTRATIONS_PREEMPTED,
	[UA_LUNS] = ASC_LUNS_CHANGED,
};

void scsi_ua_raise(struct scsi_lun *lun, enum scsi_ua ua, const struct scsi_nexus *except)
{
	struct scsi_nexus *n, *tmp;

	list_for_each(n, tmp, &lun->target->nexuses, node)
		if (n != except)
			atomic_fetch_or(&n->itl[lun->number].ua, 1u << ua);
}

uint16_t scsi_ua_take(struct scsi_itl *itl)
{
	uint32_t pending = atomic_load_explicit(&itl->ua, memory_order_relaxed);
	int first;

	if (!pending)
		return 0;
	first = __builtin_ctz(pending);
	/* A power on says it all (SAM-5, 5.14: it may stand for the others). */
	if (first == UA_POWER_ON)
		atomic_fetch_and(&itl->ua, ~(1u << UA_POWER_ON | 1u << UA_RESET |
					     1u << UA_NEXUS_LOSS));
	else
		atomic_fetch_and(&itl->ua, ~(1u << first));
	return ua_asc[first];
}

/* ---- logical units ---- */

void unit_mirror_mode(struct scsi_lun *lun)
{
	atomic_store(&lun->descriptor_sense, lun->state.mode.d_sense);
	atomic_store(&lun->write_cache, lun->state.mode.wce);
	atomic_store(&lun->task_aborted_status, lun->state.mode.tas);
	atomic_store(&lun->write_protected, lun_is_write_protected(lun));
}

void unit_refresh_denials(struct scsi_lun *lun)
{
	struct scsi_nexus *n, *tmp;

	list_for_each(n, tmp, &lun->target->nexuses, node)
		pr_deny(lun, n);
}

void unit_reset(struct scsi_lun *lun)
{
	struct scsi_nexus *n, *tmp;

	lun->reserved_by = NULL;
	lun->state.mode = lun->state.saved;
	unit_mirror_mode(lun);
	list_for_each(n, tmp, &lun->target->nexuses, node)
		n->itl[lun->number].prevent = false;
	unit_refresh_denials(lun);
	scsi_ua_raise(lun, UA_RESET, NULL);
}

unsigned int lun_physical_exponent(const struct scsi_lun *lun)
{
	unsigned int exponent = 0;

	while (lun->block_size << exponent < lun->config.physical_block_size)
		exponent++;
	return exponent;
}

/* The polled device has something, and the reactor sleeps or polls. */
static void shard_ready(struct reactor_fd *f, uint32_t events)
{
	struct scsi_shard *shard = container_of(f, struct scsi_shard, fd);

	(void)events;
	blkdev_poll(shard->dev);
}

static unsigned int shard_poll(struct reactor_poller *p)
{
	struct scsi_shard *shard = container_of(p, struct scsi_shard, poller);

	return blkdev_poll(shard->dev);
}

static bool shard_arm(struct reactor_poller *p)
{
	return shard_poll(p) > 0;
}

struct shard_call {
	struct scsi_shard *shard;
	int err;
};

/* In the shard's reactor. */
static void shard_open(void *arg)
{
	struct shard_call *call = arg;
	struct scsi_shard *shard = call->shard;
	const struct scsi_backing *backing = &shard->lun->config.backing;
	int err = backing->open(backing->arg, shard->reactor, &shard->dev);

	reactor_end_init(&shard->end, shard_end);
	call->err = err;
	if (err)
		return;
	err = blkdev_set_polled(shard->dev);
	if (err) {
		call->err = err == -ENOTSUP ? 0 : err;
		return;
	}
	shard->fd.fd = blkdev_poll_fd(shard->dev);
	shard->fd.ready = shard_ready;
	call->err = reactor_add(shard->reactor, &shard->fd, EPOLLIN | EPOLLET);
	if (call->err)
		return;
	shard->poller.poll = shard_poll;
	shard->poller.arm = shard_arm;
	reactor_poller_add(shard->reactor, &shard->poller);
	shard->polled = true;
}

static void shard_close(void *arg)
{
	struct scsi_shard *shard = arg;

	if (shard->polled) {
		reactor_poller_remove(shard->reactor, &shard->poller);
		reactor_remove(shard->reactor, &shard->fd);
	}
	shard->polled = false;
	reactor_end_cancel(shard->reactor, &shard->end);
	blkdev_close(shard->dev);
	shard->dev = NULL;
	for (unsigned int i = 0; i < shard->scratch_free; i++)
		free(shard->scratch[i]);
	shard->scratch_free = 0;
}

static void shards_free(struct scsi_lun *lun, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		env_mutex_fini(lun->target->env, &lun->shards[i].mutex);
	free(lun->shards);
}

static void shards_close(struct scsi_lun *lun, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		reactor_call_sync(lun->shards[i].reactor, shard_close, &lun->shards[i]);
}

static int shards_open(struct scsi_lun *lun)
{
	struct scsi_target *t = lun->target;

	lun->shards = calloc(t->reactor_count, sizeof(*lun->shards));
	if (!lun->shards)
		return -ENOMEM;
	for (unsigned int i = 0; i < t->reactor_count; i++) {
		struct scsi_shard *shard = &lun->shards[i];
		struct shard_call call = { .shard = shard };

		shard->lun = lun;
		shard->reactor = t->reactors[i];
		list_init(&shard->begun);
		list_init(&shard->blocked);
		list_init(&shard->running);
		list_init(&shard->scratch_waiters);
		shard->wake.fn = shard_wake;
		env_mutex_init(t->env, &shard->mutex);
		reactor_call_sync(shard->reactor, shard_open, &call);
		if (call.err) {
			shards_close(lun, i + 1);
			shards_free(lun, i + 1);
			return call.err;
		}
	}
	lun->shard_count = t->reactor_count;
	return 0;
}

static int check_config(const struct scsi_lun *lun)
{
	const struct scsi_lun_config *c = &lun->config;
	const char *why = NULL;

	if (c->block_size != 512 && c->block_size != 4096)
		why = "its block size is neither 512 nor 4096";
	else if (c->physical_block_size && c->physical_block_size != 512 &&
		 c->physical_block_size != 4096)
		why = "its physical block size is neither 512 nor 4096";
	else if (c->size < c->block_size)
		why = "it is smaller than a block";
	else if (strlen(c->serial) < 4)
		why = "its serial number has fewer than 4 characters";
	if (!why)
		return 0;
	log_error(lun->target->env, lun->name, "not offered: %s", why);
	return -EINVAL;
}

static int check_backing(const struct scsi_lun *lun)
{
	const struct blkdev_info *info = &lun->shards[0].dev->info;
	const char *why = NULL;

	if (lun->block_size % info->sector)
		why = "its backing has larger sectors than its blocks";
	else if (info->mem_align > 4096)
		why = "its backing wants memory aligned to more than 4096";
	else if (info->size < lun->config.size)
		why = "its backing is smaller than configured";
	if (!why)
		return 0;
	log_error(lun->target->env, lun->name, "not offered: %s", why);
	return -EINVAL;
}

static struct scsi_lun *lun_alloc(struct scsi_target *t, unsigned int number,
				  const struct scsi_lun_config *config)
{
	struct scsi_lun *lun = calloc(1, sizeof(*lun));

	if (!lun)
		return NULL;
	lun->target = t;
	lun->number = number;
	lun->config = *config;
	snprintf(lun->name, sizeof(lun->name), "%s", config->name);
	lun->config.name = lun->name;
	lun->block_size = config->block_size;
	if (lun->block_size)
		atomic_store(&lun->blocks, config->size / lun->block_size);
	list_init(&lun->exclusive);
	list_init(&lun->state_waiters);
	list_init(&lun->removed_node);
	env_mutex_init(t->env, &lun->mutex);
	mode_default(&lun->config, &lun->state.saved);
	lun->state.mode = lun->state.saved;
	return lun;
}

static void lun_free(struct scsi_lun *lun)
{
	env_mutex_fini(lun->target->env, &lun->mutex);
	free(lun);
}

static void lun_publish(struct scsi_lun *lun)
{
	struct scsi_target *t = lun->target;
	struct scsi_nexus *n, *tmp;

	env_mutex_lock(t->env, &t->mutex);
	unit_mirror_mode(lun);
	atomic_store_explicit(&t->luns[lun->number], lun, memory_order_release);
	unit_lock(lun);
	list_for_each(n, tmp, &t->nexuses, node) {
		memset(&n->itl[lun->number], 0, sizeof(n->itl[0]));
		atomic_store(&n->itl[lun->number].ua, 1u << UA_POWER_ON);
		pr_deny(lun, n);
	}
	unit_unlock(lun);
	/* Initiators that are here already learn of it by any unit that they use. */
	for (unsigned int i = 0; i < SCSI_LUNS_MAX; i++)
		if (atomic_load(&t->luns[i]) && i != lun->number)
			scsi_ua_raise(t->luns[i], UA_LUNS, NULL);
	env_mutex_unlock(t->env, &t->mutex);
}

int scsi_lun_add(struct scsi_target *target, unsigned int number,
		 const struct scsi_lun_config *config)
{
	struct scsi_lun *lun;
	int err;

	if (number >= SCSI_LUNS_MAX || atomic_load(&target->luns[number]))
		return -EINVAL;
	lun = lun_alloc(target, number, config);
	if (!lun)
		return -ENOMEM;
	err = check_config(lun);
	if (err)
		goto free_lun;
	err = shards_open(lun);
	if (err) {
		log_error(target->env, lun->name, "not offered: cannot open its backing: %s",
			  strerror(-err));
		goto free_lun;
	}
	err = check_backing(lun);
	if (!err)
		err = atomic_recover(lun);
	if (!err)
		err = state_open(lun);
	if (err)
		goto close_shards;
	err = copies_create(lun);
	if (!err)
		err = sanitize_create(lun);
	if (err)
		goto close_state;
	lun_publish(lun);
	sanitize_resume(lun);
	return 0;

close_state:
	copies_destroy(lun);
	state_close(lun);
close_shards:
	shards_close(lun, lun->shard_count);
	shards_free(lun, lun->shard_count);
free_lun:
	lun_free(lun);
	return err;
}

/* One reactor's handle looks again; in that reactor. */
static void shard_refresh(void *arg)
{
	struct shard_call *call = arg;
	struct blkdev *dev = call->shard->dev;

	call->err = dev->ops->refresh ? dev->ops->refresh(dev) : 0;
}

int scsi_lun_refresh(struct scsi_target *target, unsigned int number)
{
	struct scsi_lun *lun = number < SCSI_LUNS_MAX ? atomic_load(&target->luns[number]) : NULL;
	uint64_t size = UINT64_MAX, blocks;

	if (!lun)
		return -ENOENT;
	for (unsigned int i = 0; i < lun->shard_count; i++) {
		struct shard_call call = { .shard = &lun->shards[i] };

		reactor_call_sync(lun->shards[i].reactor, shard_refresh, &call);
		if (call.err)
			return call.err;
		if (lun->shards[i].dev->info.size < size)
			size = lun->shards[i].dev->info.size;
	}
	blocks = size / lun->block_size;
	/* Initiators rely on what they were told: it never shrinks under them. */
	if (blocks < atomic_load(&lun->blocks)) {
		log_error(target->env, lun->name, "its backing shrank; it keeps its size, and "
			  "commands beyond the end will fail");
		return -EINVAL;
	}
	if (blocks == atomic_load(&lun->blocks))
		return 0;
	env_mutex_lock(target->env, &target->mutex);
	atomic_store(&lun->blocks, blocks);
	scsi_ua_raise(lun, UA_CAPACITY, NULL);
	env_mutex_unlock(target->env, &target->mutex);
	log_info(target->env, lun->name, "has grown to %llu bytes",
		 (unsigned long long)(blocks * lun->block_size));
	return 0;
}

/* ---- removing one ---- */

static void lun_destroy(struct scsi_lun *lun)
{
	if (lun->sanitize)
		sanitize_destroy(lun);
	copies_destroy(lun);
	state_close(lun);
	if (lun->shards[0].dev)
		shards_close(lun, lun->shard_count);
	shards_free(lun, lun->shard_count);
	lun_free(lun);
}

/*
 * Who points to a removed unit: commands from scsi_cmd_begin() on, wherever they wait, and copies.
 * Invariant: each is counted in the shard of its reactor, in the round in which it found the unit.
 * So when a reactor has been asked after lun_unpublish(), all that it will ever have of the unit
 * is counted; nobody but counted ones touches it then, and none of those but to end.
 */
static void shard_left(struct scsi_lun *lun)
{
	struct scsi_target *t = lun->target;

	if (atomic_fetch_sub(&lun->shards_left, 1) != 1)
		return;
	env_mutex_lock(t->env, &t->mutex);
	list_del(&lun->removed_node);
	env_mutex_unlock(t->env, &t->mutex);
	lun_destroy(lun);
}

void unit_get(struct scsi_shard *shard)
{
	shard->users++;
}

void unit_put(struct scsi_shard *shard)
{
	assert(shard->users > 0);
	if (!--shard->users && shard->leaving)
		shard_left(shard->lun);
}

static void shard_leave(void *arg)
{
	struct scsi_shard *shard = arg;

	shard->leaving = true;
	if (!shard->users)
		shard_left(shard->lun);
}

/* Its memory goes with the last that points to it, perhaps at once. */
static void lun_leave(struct scsi_lun *lun)
{
	unsigned int count = lun->shard_count;

	atomic_store(&lun->shards_left, count + 1);
	for (unsigned int i = 0; i < count; i++)
		reactor_call_sync(lun->shards[i].reactor, shard_leave, &lun->shards[i]);
	shard_left(lun);
}

static bool everyone(const struct scsi_claim *c, void *arg)
{
	(void)c;
	(void)arg;
	return true;
}

/* Out of sight: no command finds it, and none that did is admitted.  Those at work are marked. */
static void lun_unpublish(struct scsi_lun *lun)
{
	struct scsi_target *t = lun->target;

	env_mutex_lock(t->env, &t->mutex);
	atomic_store(&t->luns[lun->number], NULL);
	unit_lock(lun);
	lun->removed = true;
	unit_mark(lun, everyone, NULL, NULL);
	unit_unlock(lun);
	for (unsigned int i = 0; i < SCSI_LUNS_MAX; i++)
		if (atomic_load(&t->luns[i]))
			scsi_ua_raise(t->luns[i], UA_LUNS, NULL);
	list_add_tail(&t->removed_luns, &lun->removed_node);
	env_mutex_unlock(t->env, &t->mutex);
}

/* Commands, or its SANITIZE: the device may have something of them. */
static bool is_at_work(struct scsi_lun *lun)
{
	bool any = false;

	unit_lock(lun);
	for (unsigned int i = 0; i < lun->shard_count; i++)
		any = any || !list_empty(&lun->shards[i].running) ||
		      !list_empty(&lun->shards[i].blocked);
	any = any || sanitize_is_running(lun);
	unit_unlock(lun);
	return any;
}

int scsi_lun_remove(struct scsi_target *target, unsigned int number, struct scsi_lun **out)
{
	struct scsi_lun *lun = number < SCSI_LUNS_MAX ? atomic_load(&target->luns[number]) : NULL;

	if (!lun)
		return -ENOENT;
	lun->removed_ns = env_now_ns(target->env);
	lun_unpublish(lun);
	if (lun->config.backing.abandon)
		lun->config.backing.abandon(lun->config.backing.arg);
	sanitize_stop(lun);
	*out = lun;
	return 0;
}

static void tell_hang(struct scsi_lun *lun, uint64_t now)
{
	if (lun->told_hang || now - lun->removed_ns < SCSI_HANG_NS)
		return;
	lun->told_hang = true;
	log_error(lun->target->env, lun->name, "its commands do not end (does the device hang?): it is no "
		  "longer offered, but stays open until they do");
}

int scsi_lun_close(struct scsi_lun *lun, uint64_t patience_ns)
{
	struct env *env = lun->target->env;
	uint64_t start = env_now_ns(env), now = start;

	/* A command leaves when the device has answered all that was sent for it. */
	while (is_at_work(lun)) {
		tell_hang(lun, now);
		if (now - start >= patience_ns)
			return -ETIMEDOUT;
		env_sleep_until(env, now + LOOK_NS);
		now = env_now_ns(env);
	}
	sanitize_destroy(lun);
	state_close(lun);
	shards_close(lun, lun->shard_count);
	log_info(env, lun->name, "is no longer offered as LUN %u of %s", lun->number,
		 lun->target->iqn);
	lun_leave(lun);
	return 0;
}

/* ---- targets ---- */

int scsi_target_create(struct env *env, const char *iqn, struct reactor **reactors,
		       unsigned int reactor_count, struct scsi_target **out)
{
	struct scsi_target *t;

	assert(reactor_count > 0);
	if (strlen(iqn) >= SCSI_NAME_MAX)
		return -EINVAL;
	t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->reactors = calloc(reactor_count, sizeof(struct reactor *));
	if (!t->reactors) {
		free(t);
		return -ENOMEM;
	}
	memcpy(t->reactors, reactors, reactor_count * sizeof(struct reactor *));
	t->reactor_count = reactor_count;
	t->env = env;
	snprintf(t->iqn, sizeof(t->iqn), "%s", iqn);
	list_init(&t->nexuses);
	list_init(&t->removed_luns);
	env_mutex_init(env, &t->mutex);
	scsi_op_index(t);
	*out = t;
	return 0;
}

void scsi_target_destroy(struct scsi_target *target)
{
	struct scsi_lun *lun, *tmp;

	if (!target)
		return;
	assert(list_empty(&target->nexuses));
	for (unsigned int i = 0; i < SCSI_LUNS_MAX; i++) {
		lun = atomic_load(&target->luns[i]);
		if (lun)
			lun_destroy(lun);
	}
	list_for_each(lun, tmp, &target->removed_luns, removed_node)
		lun_destroy(lun);
	env_mutex_fini(target->env, &target->mutex);
	free(target->reactors);
	free(target);
}

/* ---- nexuses ---- */

static void note_port(struct scsi_target *t, uint16_t port)
{
	for (unsigned int i = 0; i < t->port_count; i++)
		if (t->ports[i] == port)
			return;
	if (t->port_count < SCSI_PORTS_MAX)
		t->ports[t->port_count++] = port;
}

int scsi_nexus_open(struct scsi_target *target, const char *initiator, const uint8_t isid[6],
		    uint16_t portal_group, struct scsi_nexus **out)
{
	struct scsi_nexus *n;

	if (strlen(initiator) >= SCSI_NAME_MAX)
		return -EINVAL;
	n = calloc(1, sizeof(*n));
	if (!n)
		return -ENOMEM;
	n->target = target;
	n->port = portal_group;
	snprintf(n->name, sizeof(n->name), "%s", initiator);
	memcpy(n->isid, isid, sizeof(n->isid));
	env_mutex_lock(target->env, &target->mutex);
	note_port(target, portal_group);
	for (unsigned int i = 0; i < SCSI_LUNS_MAX; i++) {
		struct scsi_lun *lun = atomic_load(&target->luns[i]);

		if (!lun)
			continue;
		atomic_store(&n->itl[i].ua, 1u << UA_POWER_ON);
		unit_lock(lun);
		pr_deny(lun, n);
		unit_unlock(lun);
	}
	list_add_tail(&target->nexuses, &n->node);
	env_mutex_unlock(target->env, &target->mutex);
	*out = n;
	return 0;
}

void scsi_nexus_close(struct scsi_nexus *nexus)
{
	struct scsi_target *t = nexus->target;

	env_mutex_lock(t->env, &t->mutex);
	list_del(&nexus->node);
	for (unsigned int i = 0; i < SCSI_LUNS_MAX; i++) {
		struct scsi_lun *lun = atomic_load(&t->luns[i]);

		if (!lun)
			continue;
		unit_lock(lun);
		if (lun->reserved_by == nexus) {
			lun->reserved_by = NULL;
			unit_refresh_denials(lun);
		}
		unit_unlock(lun);
	}
	copies_forget(nexus);
	env_mutex_unlock(t->env, &t->mutex);
	free(nexus);
}
