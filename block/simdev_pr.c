// SPDX-License-Identifier: Apache-2.0
/* Persistent reservations of the simulated LUN: write exclusive, all registrants (SPC-4, 5.13). */
#include "block/simdev_internal.h"

#define KEYS_MAX	ARRAY_SIZE(((struct blkdev_pr_state *)NULL)->keys)

/* A service action takes time too, and is stalled like any command. */
static void pr_travel(struct path *path)
{
	struct simdisk *disk = path->disk;
	struct env *env = path->dev.env;
	uint64_t interval_ns = 0;

	if (disk->params.latency_max_ns)
		env_sleep_until(env, env_now_ns(env) + disk->params.latency_max_ns);
	while (simdev_stalled_until(disk, path->nexus))
		simdev_poll_wait(env, &interval_ns);
}

static unsigned int pr_key_count(const struct simdisk *disk, uint64_t *keys)
{
	unsigned int count = 0;
	struct nexus *n, *tmp;

	list_for_each(n, tmp, &disk->nexuses, node) {
		if (n->registered && count < KEYS_MAX)
			keys[count++] = n->key;
	}
	return count;
}

static void pr_unregister(struct simdisk *disk, struct nexus *n)
{
	uint64_t keys[KEYS_MAX];

	n->registered = false;
	n->key = 0;
	if (!pr_key_count(disk, keys))
		disk->reserved = false;	/* the last registrant was the last holder */
}

int simdev_pr_register(struct blkdev *dev, uint64_t old_key, uint64_t new_key)
{
	struct path *path = path_of(dev);
	struct nexus *n = path->nexus;
	uint64_t keys[KEYS_MAX];

	if (!path->disk->params.reservations)
		return -ENOTSUP;
	pr_travel(path);
	if (old_key != n->key)	/* an unregistered nexus has key 0 */
		return -EBADE;
	if (new_key && !n->registered && pr_key_count(path->disk, keys) == KEYS_MAX)
		return -ENOSPC;
	path->disk->pr_generation++;
	if (new_key) {
		n->registered = true;
		n->key = new_key;
	} else if (n->registered) {
		pr_unregister(path->disk, n);
	}
	return 0;
}

int simdev_pr_reserve(struct blkdev *dev, uint64_t key)
{
	struct path *path = path_of(dev);

	if (!path->disk->params.reservations)
		return -ENOTSUP;
	pr_travel(path);
	if (!path->nexus->registered || path->nexus->key != key)
		return -EBADE;
	path->disk->reserved = true;
	return 0;
}

int simdev_pr_preempt_abort(struct blkdev *dev, uint64_t key, uint64_t victim)
{
	struct path *path = path_of(dev);
	struct simdisk *disk = path->disk;
	struct nexus *n, *tmp;
	bool found = false;

	if (!disk->params.reservations)
		return -ENOTSUP;
	pr_travel(path);
	if (!path->nexus->registered || path->nexus->key != key)
		return -EBADE;
	if (!victim)
		return -EINVAL;
	list_for_each(n, tmp, &disk->nexuses, node) {
		if (n == path->nexus || !n->registered || n->key != victim)
			continue;
		found = true;
		n->registered = false;	/* we stay registered, so the reservation stays */
		n->key = 0;
		simdev_abort_nexus(disk, n);
	}
	if (!found)
		return -EBADE;
	disk->pr_generation++;
	return 0;
}

int simdev_pr_clear(struct blkdev *dev, uint64_t key)
{
	struct path *path = path_of(dev);
	struct simdisk *disk = path->disk;
	struct nexus *n, *tmp;

	if (!disk->params.reservations)
		return -ENOTSUP;
	if (!key)
		return -EINVAL;
	pr_travel(path);
	list_for_each(n, tmp, &disk->nexuses, node) {
		n->registered = false;
		n->key = 0;
	}
	disk->reserved = false;
	disk->pr_generation++;
	return 0;
}

int simdev_pr_read(struct blkdev *dev, struct blkdev_pr_state *state)
{
	struct path *path = path_of(dev);

	if (!path->disk->params.reservations)
		return -ENOTSUP;
	pr_travel(path);
	memset(state, 0, sizeof(*state));
	state->generation = path->disk->pr_generation;
	state->held = path->disk->reserved;
	state->key_count = pr_key_count(path->disk, state->keys);
	return 0;
}

