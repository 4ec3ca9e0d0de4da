/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deleted snapshots move into the next image by themselves: after the deletion, after a crash in
 * the middle of it (the orphan list leads there), and once a disk that was in use elsewhere is
 * free.  One step at a time, with a rest as long as the step between two.
 */
#ifndef LUNFS_DAEMON_MERGER_H
#define LUNFS_DAEMON_MERGER_H

#include <pthread.h>

#include "daemon/disks.h"

struct merger {
	struct stores	*stores;
	struct disks	*disks;
	pthread_t	thread;
	pthread_mutex_t	mutex;
	pthread_cond_t	changed;
	bool		stopping, kicked;
};

int merger_start(struct merger *m, struct stores *stores, struct disks *disks);

/** merger_kick() - there may be something to do. */
void merger_kick(struct merger *m);

/** merger_stop() - before disks_shutdown(). */
void merger_stop(struct merger *m);

/**
 * merger_step() - one step for the disk @id of @s, through its attachment if there is one, from
 * where the last one ended, whoever did that.
 * @is_client: for somebody who waits; the merger itself leaves the disk to him meanwhile (0).
 * @m: counts what is moved and copied.
 * Return: as fs_merge_step().
 */
int merger_step(struct disks *disks, struct store *s, uint64_t id, bool is_client, struct merge *m);

/** merger_place() - how far the merge below disk @id has come.  False: that is not known. */
bool merger_place(struct store *s, uint64_t id, struct merge *m);

#endif
