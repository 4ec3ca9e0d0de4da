// SPDX-License-Identifier: Apache-2.0
/* Small things that every operation on names needs. */
#include <stdio.h>
#include <stdlib.h>

#include "base/mutant.h"
#include "base/text.h"
#include "fs/icache.h"
#include "fs/internal.h"

#define SEQ_TRIES	4u
#define DROP_TRIES	2000u
#define DROP_PAUSE_NS	NSEC_PER_MSEC
#define PATH_DEPTH_MAX	64u
#define SPACE_WAIT_MS	2000u
#define DEVICE_FULL_NS	(10 * NSEC_PER_SEC)	/* how long that is believed after it was met */

int fs_answer(struct fs *fs, int err)
{
	if (fs->lockd && !MUTANT("names-without-lease") && lockd_wait_lease(fs->lockd))
		return -EIO;
	return fs_result(fs, err);
}

bool inode_may_be_away(struct fs *fs, struct inode *ino)
{
	enum lock_mode held = cluster_held(fs, &ino->cover.lock);

	return held == LOCK_SHARED || held == LOCK_EXCLUSIVE;
}

/* What this host changed is not at home while it still gives the lock up: that is waited for. */
int inode_lock_free(struct fs *fs, uint64_t id, struct inode **out)
{
	struct inode *ino;
	unsigned int i;
	int err;

	if (fs->rescue)
		return -EAGAIN;
	err = inode_get(fs, inode_id_number(id), &ino);
	if (err)
		return err == -EUCLEAN ? -ESTALE : err;
	for (i = 0; i < DROP_TRIES; i++) {
		err = inode_lock(fs, ino, id, LOCK_SHARED, LOCK_TRY, NULL);
		if ((err != -EAGAIN && err != -EBUSY) || !inode_may_be_away(fs, ino))
			break;
		env_sleep_until(fs->env, env_now_ns(fs->env) + DROP_PAUSE_NS);
	}
	if (i == DROP_TRIES)
		err = inode_lock(fs, ino, id, LOCK_SHARED, 0, NULL);
	if (!err) {
		*out = ino;
		return 0;
	}
	inode_put(fs, ino);
	return err == -EBUSY ? -EAGAIN : err;
}

int inode_lock_held(struct fs *fs, uint64_t id, struct inode **out)
{
	struct inode *ino;
	bool held;

	if (fs->rescue)
		return -EAGAIN;
	ino = inode_find(fs, inode_id_number(id));
	held = ino && (!fs->lockd || inode_may_be_away(fs, ino));
	inode_put(fs, ino);
	return held ? inode_lock_free(fs, id, out) : -EAGAIN;
}

void inode_unlock_free(struct fs *fs, struct inode *ino)
{
	/* LOCK_TRY is no kind of use: how the lock was got does not matter to giving it back. */
	inode_unlock(fs, ino, LOCK_SHARED, 0);
	inode_put(fs, ino);
}

int inode_lock_shared(struct fs *fs, uint64_t id, struct inode **out)
{
	struct inode *ino;
	int err;

	err = inode_get(fs, inode_id_number(id), &ino);
	if (err)
		return err == -EUCLEAN ? -ESTALE : err;
	err = inode_lock(fs, ino, id, LOCK_SHARED, 0, NULL);
	if (err)
		inode_put(fs, ino);
	else
		*out = ino;
	return err;
}

static int inode_peek_locked(struct fs *fs, uint64_t id, struct inode_disk *di)
{
	struct inode *ino;
	int err;

	err = inode_lock_shared(fs, id, &ino);
	if (err)
		return err;
	memcpy(di, inode_disk(ino), BLOCK_SIZE);
	inode_unlock_free(fs, ino);
	return 0;
}

int inode_peek(struct fs *fs, uint64_t id, struct inode_disk *di)
{
	struct inode *ino;
	unsigned int i;
	int err;

	err = inode_lock_free(fs, id, &ino);
	if (!err) {
		memcpy(di, inode_disk(ino), BLOCK_SIZE);
		inode_unlock_free(fs, ino);
	}
	if (err != -EAGAIN)
		return err;
	for (i = 0; i < SEQ_TRIES; i++) {
		err = inode_read_unlocked(fs, id, di);
		/* Torn, or not at home yet: nothing that is believed without the lock. */
		if (err != -ESTALE && err != -EUCLEAN && err != -EBADMSG)
			return err;
	}
	return fs->rescue ? err : inode_peek_locked(fs, id, di);
}

void fs_backoff(struct fs *fs, unsigned int ms)
{
	uint64_t wait_ns = env_random_below(fs->env, ms * NSEC_PER_MSEC) + NSEC_PER_MSEC;

	env_sleep_until(fs->env, env_now_ns(fs->env) + wait_ns);
}

void fs_note_device_full(struct fs *fs)
{
	atomic_store(&fs->full_ns, env_now_ns(fs->env));
}

bool fs_device_is_full(struct fs *fs)
{
	uint64_t at = atomic_load(&fs->full_ns);

	return at && env_now_ns(fs->env) - at < DEVICE_FULL_NS;
}

bool fs_make_space(struct fs *fs)
{
	bool freed;

	/* Where the device itself is full no block of ours helps, and settling would wait for it. */
	if (fs_is_lost(fs) || fs_device_is_full(fs))
		return false;
	freed = orphan_wait(fs, SPACE_WAIT_MS);
	/* What was freed lately is still in quarantine: settling ends that. */
	return journal_settle(fs) == 0 || freed;
}

int name_check(const char *name)
{
	size_t len = strlen(name);

	if (len > NAME_BYTES_MAX)
		return -ENAMETOOLONG;
	if (len == 0)
		return -ENOENT;
	if (strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return -EINVAL;
	return 0;
}

bool inode_leads_back(const struct inode_disk *di, uint64_t dir, const char *name)
{
	size_t len = strlen(name);

	return le64_to_cpu(di->parent) == dir && le16_to_cpu(di->name_len) == len &&
	       memcmp(di->name, name, len) == 0;
}

void inode_set_name(struct inode_disk *di, uint64_t dir, const char *name)
{
	size_t len = strlen(name);

	di->parent = cpu_to_le64(dir);
	di->name_len = cpu_to_le16((uint16_t)len);
	memset(di->name, 0, sizeof(di->name));
	memcpy(di->name, name, len);
}

void inode_tell_gone(struct fs *fs, const struct inode *ino)
{
	struct fs_attr attr;

	if (!fs->gone)
		return;
	inode_attr(ino, &attr);
	fs->gone(fs->invalidate_arg, &attr);
}

void inode_unlinked(struct fs *fs, struct inode *ino, uint64_t id)
{
	bool open;

	env_mutex_lock(fs->env, &fs->open_mutex);
	open = ino->opens > 0;
	ino->delete_on_close = open;
	env_mutex_unlock(fs->env, &fs->open_mutex);
	if (!open)
		orphan_kick(fs, id);
}

int fs_parent(struct fs *fs, uint64_t id, uint64_t *parent)
{
	struct inode_disk *di;
	int err;

	if (id == fs->super.root) {
		*parent = id;
		return 0;
	}
	di = blkdev_alloc(BLOCK_SIZE);
	if (!di)
		return -ENOMEM;
	err = inode_peek(fs, id, di);
	if (!err)
		*parent = le64_to_cpu(di->parent);
	free(di);
	return fs_answer(fs, err);
}

/* Puts "/NAME" in front of what stands at *@at … end of @buf; false if it does not fit. */
static bool path_prepend(char *buf, size_t *at, const struct inode_disk *di)
{
	uint32_t len = le16_to_cpu(di->name_len);
	char name[NAME_BYTES_MAX + 1];

	if (len == 0 || len > NAME_BYTES_MAX || len + 1 > *at)
		return false;
	text_printable((const char *)di->name, len, name, sizeof(name));
	*at -= len + 1;
	buf[*at] = '/';
	memcpy(buf + *at + 1, name, len);
	return true;
}

static bool path_climb(struct fs *fs, uint64_t id, char *buf, size_t size, struct inode_disk *di)
{
	size_t at = size - 1;
	unsigned int i;

	buf[at] = '\0';
	for (i = 0; i < PATH_DEPTH_MAX && id != fs->super.root; i++) {
		if (inode_read_unlocked(fs, id, di) || !path_prepend(buf, &at, di))
			return false;
		id = le64_to_cpu(di->parent);
	}
	if (id != fs->super.root)
		return false;
	if (at == size - 1)
		buf[--at] = '/';
	memmove(buf, buf + at, size - at);
	return true;
}

char *fs_path(struct fs *fs, uint64_t id, char *buf, size_t size)
{
	struct inode_disk *di = blkdev_alloc(BLOCK_SIZE);

	assert(size > 32);
	if (!di || !path_climb(fs, id, buf, size, di))
		snprintf(buf, size, "inode %llu", (unsigned long long)inode_id_number(id));
	free(di);
	return buf;
}
