/* SPDX-License-Identifier: Apache-2.0 */
/* Which deleted snapshots could move into the image on top of them: the orphan list knows. */
#include <errno.h>

#include "fs/image.h"
#include "fs/internal.h"
#include "fs/orphan_list.h"

/* The id at or after place *@from of our list, 0 at its end. */
static uint64_t next_orphan(struct fs *fs, uint32_t *from)
{
	struct orphans *o = fs->orphans;
	uint64_t id = 0;

	env_mutex_lock(fs->env, &o->mutex);
	while (!id && *from < o->blocks * ORPHAN_ENTRIES)
		id = o->places[(*from)++].id;
	env_mutex_unlock(fs->env, &o->mutex);
	return id;
}

static int take_child(void *arg, uint64_t child)
{
	*(uint64_t *)arg = child;
	return 1;
}

/* Up from the deleted image @id to a disk on top.  0: it has several children, or none. */
static uint64_t find_top(struct fs *fs, uint64_t id)
{
	struct image_info info;
	uint64_t child;

	if (fs_image_info(fs, id, &info) || !info.frozen || info.nlink || info.children != 1)
		return 0;
	for (unsigned int depth = 0; depth < IMAGE_DEPTH_MAX; depth++) {
		child = 0;
		if (fs_image_children(fs, id, take_child, &child) < 0 || !child ||
		    fs_image_info(fs, child, &info))
			return 0;
		if (!info.frozen)
			return child;
		id = child;
	}
	return 0;
}

int fs_merge_find(struct fs *fs, uint32_t *from, uint64_t *top)
{
	uint64_t id;

	if (fs->rescue || !fs->orphans)
		return 0;
	while ((id = next_orphan(fs, from))) {
		*top = find_top(fs, id);
		if (*top)
			return 1;
	}
	return 0;
}
