// SPDX-License-Identifier: Apache-2.0
/* Attaching a datastore and leaving it: superblock, slot, journal, caches, orphans. */
#include "fs/fs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mutant.h"
#include "base/text.h"
#include "fs/grow.h"
#include "fs/internal.h"
#include "fs/orphan_list.h"
#include "fs/resign.h"

#define DETACH_REAP_MS	3000u	/* for deletions that are not done when a host leaves */

/* ---- what lockd asks of us ---- */

static int fs_settle(void *arg)
{
	struct fs *fs = arg;
	int err = 0;

	env_rwlock_rdlock(fs->env, &fs->settle_lock);
	/* No journal (yet, or any more): nothing is dirty. */
	if (fs->journal)
		err = journal_settle(fs);
	env_rwlock_rdunlock(fs->env, &fs->settle_lock);
	return err;
}

static void fs_forget(void *arg, struct lock *lock)
{
	struct cover *cover = container_of(lock, struct cover, lock);
	struct fs *fs = arg;

	if (cover == &fs->super_cover)
		return;		/* it orders renames; nothing is cached of the superblock */
	if (cover->is_inode)
		inode_forget(fs, lock->owner);
	else
		alloc_forget(fs, cover);
}

static int fs_replay(void *arg, struct blkdev *dev, uint32_t slot)
{
	struct fs *fs = arg;
	unsigned int replayed = 0;
	int err;

	/* The dead host may have been the first to know that the volume has grown. */
	err = fs_super_refresh_by(fs, dev);
	if (!err)
		err = journal_replay(fs->env, dev, &fs->super, slot, &replayed);
	/*
	 * A write that timed out may land later, when the next attempt has succeeded and somebody
	 * else owns what it is addressed to (R4).
	 */
	if (err && blkdev_drain(dev) && fs->lockd)
		lockd_fail(fs->lockd, "a write of a replay that timed out can neither be ended nor "
			   "waited for");
	if (!err && replayed)
		log_info(fs->env, fs->label, "slot %u: %u transactions replayed", slot, replayed);
	return err;
}

/* The recovery may begin while we are still attaching: our own list comes first. */
static int fs_adopt(void *arg, uint32_t slot)
{
	struct fs *fs = arg;
	int err;

	env_mutex_lock(fs->env, &fs->attach_mutex);
	while (fs->attached == FS_ATTACHING)
		env_cond_wait(fs->env, &fs->attach_changed, &fs->attach_mutex, ENV_FOREVER);
	env_mutex_unlock(fs->env, &fs->attach_mutex);
	env_rwlock_rdlock(fs->env, &fs->settle_lock);
	if (MUTANT("no-adoption"))
		err = 0;
	else
		err = fs->journal && fs->orphans ? orphan_adopt(fs, slot) : -ESTALE;
	env_rwlock_rdunlock(fs->env, &fs->settle_lock);
	return err;
}

static void fs_lost(void *arg)
{
	struct fs *fs = arg;

	__atomic_store_n(&fs->lost, true, __ATOMIC_RELEASE);
}

static const struct lockd_client fs_client = {
	.settle = fs_settle,
	.forget = fs_forget,
	.replay = fs_replay,
	.adopt = fs_adopt,
	.lost = fs_lost,
};

bool fs_is_lost(struct fs *fs)
{
	return __atomic_load_n(&fs->lost, __ATOMIC_ACQUIRE);
}

uint64_t fs_root(const struct fs *fs)
{
	return fs->super.root;
}

static void fs_set_attached(struct fs *fs, int state)
{
	env_mutex_lock(fs->env, &fs->attach_mutex);
	fs->attached = state;
	env_cond_broadcast(fs->env, &fs->attach_changed);
	env_mutex_unlock(fs->env, &fs->attach_mutex);
}

/* ---- may this host have this volume? ---- */

static bool is_zero16(const uint8_t b[16])
{
	static const uint8_t zero[16];

	return memcmp(b, zero, 16) == 0;
}

static int fs_check_machine(const struct fs *fs, const struct fs_attach_params *p, char *why,
			    size_t why_size)
{
	const struct super *s = &fs->super;

	if (s->caw != BLK_CAW_LOCAL || is_zero16(s->machine_id) || is_zero16(p->machine_id) ||
	    memcmp(s->machine_id, p->machine_id, 16) == 0)
		return 0;
	snprintf(why, why_size, "%s: %s was made for the daemons of another machine only (its "
		 "compare-and-write is a lock file there); copy its files, or make it on a shared "
		 "block device", fs->label, fs->raw->info.name);
	return -EPERM;
}

static int fs_check_identity(struct fs *fs, const struct fs_attach_params *p, char *why,
			     size_t why_size)
{
	const char *ours = fs->super.identity, *found = fs->raw->info.identity;

	if (!ours[0] || !found[0] || strcmp(ours, found) == 0)
		return 0;
	if (p->flags & FS_RESCUE)
		return 0;
	if (p->flags & FS_RESIGNATURE)
		return resign(fs, why, why_size);
	snprintf(why, why_size, "%s: %s (%s) is a copy of the volume on %s; attach the original, "
		 "or this as a volume of its own with -o resignature", fs->label,
		 fs->raw->info.name, found, ours);
	return -ENOTUNIQ;
}

static int fs_check_writable(const struct fs *fs, const struct super *s,
			     const struct fs_attach_params *p, char *why, size_t why_size)
{
	uint64_t unknown = s->ro_compat & ~(uint64_t)RO_COMPAT_KNOWN;

	if (fs->rescue)
		return 0;
	if (fs->raw->info.read_only) {
		snprintf(why, why_size, "%s: %s is read-only, and a host must write its "
			 "heartbeat; use -o rescue to read it", fs->label, fs->raw->info.name);
		return -EROFS;
	}
	if (unknown && (!(p->flags & FS_READ_ONLY) || p->flags & FS_RESIGNATURE)) {
		snprintf(why, why_size, "%s: has features 0x%llx that this version can only "
			 "read; attach it with -o ro", fs->label, (unsigned long long)unknown);
		return -EROFS;
	}
	return 0;
}

/* A repair has the volume to itself, or left it half done; see fs/claim.h. */
static int fs_check_claim(const struct fs *fs, const struct super *s, char *why, size_t why_size)
{
	if (fs->rescue || !(s->incompat & INCOMPAT_REPAIR))
		return 0;
	snprintf(why, why_size, "%s: fsck.lunfs is repairing %s, or was stopped before it ended: "
		 "wait for it, or run fsck.lunfs -y (-o rescue reads what is there)", fs->label,
		 fs->raw->info.name);
	return -EBUSY;
}

static void fs_set_label(struct fs *fs)
{
	text_printable(fs->super.label, LABEL_MAX, fs->label, sizeof(fs->label));
	if (!fs->label[0])
		text_format_uuid(fs->super.volume_id, fs->label);
}

static int fs_read_super(struct fs *fs, const struct fs_attach_params *p, char *why,
			 size_t why_size)
{
	int err;

	err = super_read(fs->raw, &fs->super, why, why_size);
	if (err)
		return err;
	fs_set_label(fs);
	if (why[0])
		log_warning(fs->env, fs->label, "%s; a copy is used: run fsck.lunfs", why);
	why[0] = '\0';
	err = fs_check_claim(fs, &fs->super, why, why_size);
	/* Before what writes: a resignature does. */
	if (!err)
		err = fs_check_writable(fs, &fs->super, p, why, why_size);
	if (!err)
		err = fs_check_machine(fs, p, why, why_size);
	if (!err)
		err = fs_check_identity(fs, p, why, why_size);
	return err;
}

/* ---- attaching ---- */

static int fs_join(struct fs *fs, const struct fs_attach_params *p, char *why, size_t why_size)
{
	struct lockd_params lp = {
		.env = p->env,
		.dev = p->dev,
		.hb_dev = p->hb_dev,
		.datastore = fs->label,
		.slots_addr = fs->super.slots_addr,
		.slot_count = fs->super.slot_count,
		.timing = fs->super.timing,
		.pid = p->pid,
		.pid_start = p->pid_start,
		.watchdog = p->watchdog,
		.watchdog_ms = p->watchdog_ms,
		.guard = p->guard,
		.force_unsafe = p->flags & FS_FORCE_UNSAFE,
		.own_slot_is_dead = p->own_slot_is_dead,
		.kill = p->kill,
		.kill_arg = p->kill_arg,
		.may_beat = p->may_beat,
		.may_beat_arg = p->may_beat_arg,
		.client = &fs_client,
		.client_arg = fs,
	};
	struct super now;
	int err;

	memcpy(lp.volume, fs->super.volume, 16);
	memcpy(lp.host_id, p->host_id, 16);
	memcpy(lp.boot_id, p->boot_id, 16);
	memcpy(lp.host_name, p->host_name, sizeof(lp.host_name));
	err = lockd_join(&lp, &fs->lockd, why, why_size);
	if (err)
		return err;
	fs->dev = lockd_dev(fs->lockd);
	/* Now that every claimer sees our slot: did one come before, and give the volume new features? */
	err = super_find(fs->dev, &now, why, why_size);
	if (!err)
		err = fs_check_claim(fs, &now, why, why_size);
	return err ? err : fs_check_writable(fs, &now, p, why, why_size);
}

static int fs_open_caches(struct fs *fs)
{
	int err;

	err = buf_cache_new(fs, &fs->bufs);
	if (!err)
		err = inode_cache_new(fs, &fs->inodes);
	if (!err && !fs->rescue)
		err = journal_open(fs, &fs->journal);
	if (!err)
		err = alloc_open(fs, &fs->alloc);
	if (!err && !fs->rescue)
		err = orphan_open(fs, &fs->orphans);
	return err;
}

static struct fs *fs_new(const struct fs_attach_params *p)
{
	struct fs *fs = calloc(1, sizeof(*fs));

	if (!fs)
		return NULL;
	fs->env = p->env;
	fs->raw = p->dev;
	fs->dev = p->dev;
	fs->rescue = p->flags & FS_RESCUE;
	fs->read_only = p->flags & (FS_RESCUE | FS_READ_ONLY);
	fs->attached = FS_ATTACHING;
	env_mutex_init(fs->env, &fs->super_mutex);
	env_mutex_init(fs->env, &fs->rename_mutex);
	env_mutex_init(fs->env, &fs->image_mutex);
	env_cond_init(fs->env, &fs->image_linked);
	env_mutex_init(fs->env, &fs->open_mutex);
	env_cond_init(fs->env, &fs->brief_over);
	env_mutex_init(fs->env, &fs->attach_mutex);
	env_cond_init(fs->env, &fs->attach_changed);
	env_rwlock_init(fs->env, &fs->settle_lock);
	list_init(&fs->super_cover.bufs);
	return fs;
}

static void fs_free(struct fs *fs)
{
	env_rwlock_fini(fs->env, &fs->settle_lock);
	env_cond_fini(fs->env, &fs->attach_changed);
	env_mutex_fini(fs->env, &fs->attach_mutex);
	env_cond_fini(fs->env, &fs->brief_over);
	env_mutex_fini(fs->env, &fs->open_mutex);
	env_cond_fini(fs->env, &fs->image_linked);
	env_mutex_fini(fs->env, &fs->image_mutex);
	env_mutex_fini(fs->env, &fs->rename_mutex);
	env_mutex_fini(fs->env, &fs->super_mutex);
	free(fs);
}

/*
 * The journal goes before the slot, because its last blocks need the lease; the caches go
 * after it, because lockd knows the locks in them until it has left.
 */
static int fs_teardown(struct fs *fs)
{
	int err = 0, left = 0;

	orphan_stop(fs->orphans);
	fs_set_attached(fs, FS_DETACHING);
	if (fs->inodes && fs->journal && !fs_is_lost(fs))
		inode_flush_times_all(fs);
	env_rwlock_wrlock(fs->env, &fs->settle_lock);
	if (fs->journal)
		err = journal_close(fs->journal);
	fs->journal = NULL;
	/* After the journal, which still wrote the list's blocks. */
	if (fs->orphans)
		orphan_close(fs->orphans);
	fs->orphans = NULL;
	env_rwlock_wrunlock(fs->env, &fs->settle_lock);
	if (fs->lockd)
		left = lockd_leave(fs->lockd);
	fs->lockd = NULL;
	fs->dev = fs->raw;
	if (fs->inodes)
		inode_cache_free(fs->inodes);
	if (fs->alloc)
		alloc_close(fs->alloc);
	buf_cache_free(fs->bufs);
	if (fs_is_lost(fs))
		err = -EIO;
	fs_free(fs);
	return err ? err : left;
}

int fs_attach(const struct fs_attach_params *p, struct fs **out, char *why, size_t why_size)
{
	struct fs *fs = fs_new(p);
	int err;

	snprintf(why, why_size, "%s", "");
	if (!fs)
		return -ENOMEM;
	err = fs_read_super(fs, p, why, why_size);
	lock_init(&fs->super_cover.lock, fs->super.lock_addr, &fs->super_cover);
	if (!err && !fs->rescue)
		err = fs_join(fs, p, why, why_size);
	if (!err) {
		err = fs_open_caches(fs);
		if (err)
			snprintf(why, why_size, "%s: cannot open journal, groups or orphan list "
				 "(error %d); see the log, or run fsck.lunfs", fs->label, -err);
	}
	if (err) {
		fs_teardown(fs);
		return err;
	}
	fs_set_attached(fs, FS_ATTACHED);
	if (!fs->read_only)
		fs_super_heal(fs);
	*out = fs;
	return 0;
}

int fs_detach(struct fs *fs)
{
	/* A list that is left behind waits for the next owner of the slot, maybe for ever. */
	if (fs->orphans && !fs_is_lost(fs))
		orphan_drain(fs, DETACH_REAP_MS);
	return fs_teardown(fs);
}

/* ---- the whole datastore ---- */

int fs_sync(struct fs *fs)
{
	int err;

	err = fs_may_read(fs);
	if (err || fs->rescue)
		return err;
	err = inode_flush_times_all(fs);
	if (!err)
		err = journal_commit(fs, journal_last_id(fs));
	return fs_result(fs, err);
}

int fs_sync_names(struct fs *fs)
{
	int err = fs_may_read(fs);

	if (err || fs->rescue)
		return err;
	return fs_result(fs, journal_commit(fs, journal_last_id(fs)));
}

int fs_statfs(struct fs *fs, struct statvfs *st)
{
	struct alloc_totals t;
	int err;

	err = fs_may_read(fs);
	if (!err)
		err = fs_answer(fs, alloc_totals(fs, &t));
	if (err)
		return err;
	memset(st, 0, sizeof(*st));
	st->f_bsize = BLOCK_SIZE;
	st->f_frsize = BLOCK_SIZE;
	st->f_blocks = t.blocks;
	st->f_bfree = t.blocks_free;
	st->f_bavail = t.blocks_free;
	/* Free inodes are those of clusters, and those that free space could become. */
	st->f_ffree = t.inodes_free + t.blocks_free / CLUSTER_BLOCKS * CLUSTER_INODES;
	st->f_files = t.inodes_used + st->f_ffree;
	st->f_favail = st->f_ffree;
	memcpy(&st->f_fsid, fs->super.volume_id, sizeof(st->f_fsid));
	st->f_namemax = NAME_BYTES_MAX;
	if (fs->read_only)
		st->f_flag |= ST_RDONLY;
	return 0;
}
