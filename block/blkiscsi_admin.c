/* SPDX-License-Identifier: Apache-2.0 */
/* Commands that a thread waits for: what the LUN is capable of, and persistent reservations. */
#include "block/blkiscsi_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define MODE_SENSE_6		0x1a
#define SERVICE_ACTION_IN_16	0x9e
#define READ_CAPACITY_16	0x10	/* service action */
#define MODE_CACHING		0x08

#define BUF_SIZE		4096u
#define RW_MAX			(1 * MIB)	/* also where the target would take more */
#define UNMAP_MAX		(1 * GIB)
#define SAME_MAX		(32 * MIB)	/* some targets write it out: within its time limit */
#define TRIES			3u	/* of harmless questions whose path was lost */

enum pr_out { PR_REGISTER = 0, PR_RESERVE = 1, PR_CLEAR = 3, PR_PREEMPT_ABORT = 5,
	      PR_REGISTER_IGNORE = 6 };
#define PR_PARAM_SIZE		24
#define PR_APTPL		1

int ini_admin_run(struct ini_dev *d, struct ini_admin *a)
{
	a->done = false;
	a->since_ns = ini_now(d);
	pthread_mutex_lock(&d->mutex);
	list_add_tail(&d->admins_in, &a->node);
	d->awake = true;
	pthread_mutex_unlock(&d->mutex);
	ini_wake(d);
	pthread_mutex_lock(&d->mutex);
	while (!a->done)
		pthread_cond_wait(&d->changed, &d->mutex);
	pthread_mutex_unlock(&d->mutex);
	return a->err;
}

/* A question that changes nothing: asked again if its path was lost. */
static int ask(struct ini_dev *d, struct ini_admin *a)
{
	int err = -EIO;

	for (unsigned int i = 0; i < TRIES && err == -EIO; i++)
		err = ini_admin_run(d, a);
	return err;
}

struct ini_lu {
	struct lu	lu;
	struct ini_dev	*d;
};

static int lu_run(struct lu *lu, struct lu_cmd *cmd)
{
	struct ini_admin a = { .cdb_size = cmd->cdb_size, .out = cmd->out, .buf = cmd->buf,
			       .len = cmd->len, .path = -1 };
	int err;

	memcpy(a.cdb, cmd->cdb, sizeof(a.cdb));
	err = ask(container_of(lu, struct ini_lu, lu)->d, &a);
	cmd->got = a.got;
	return err;
}

static struct ini_lu ini_lu(struct ini_dev *d)
{
	return (struct ini_lu){ .lu.run = lu_run, .d = d };
}

/* ---- what the LUN is ---- */

static int read_capacity(struct ini_dev *d, uint8_t *buf, uint64_t *size, uint32_t *sector)
{
	struct ini_admin a = { .cdb_size = 16, .buf = buf, .len = 32, .path = -1 };
	uint64_t last;
	int err;

	a.cdb[0] = SERVICE_ACTION_IN_16;
	a.cdb[1] = READ_CAPACITY_16;
	put_be32(a.cdb + 10, a.len);
	err = ask(d, &a);
	if (!err && a.got < 12)
		err = -EPROTO;
	if (err)
		return err;
	last = get_be64(buf);
	*sector = get_be32(buf + 8);
	if (!*sector || last >= UINT64_MAX / *sector - 1)
		return -EPROTO;
	*size = (last + 1) * *sector;
	return 0;
}

int ini_refresh(struct blkdev *dev)
{
	uint8_t buf[32] = { 0 };
	uint64_t size;
	uint32_t sector;
	int err = read_capacity(ini_dev(dev), buf, &size, &sector);

	if (err)
		return err;
	if (sector != dev->info.sector)
		return -EMEDIUMTYPE;
	blkdev_set_size(dev, size);
	return 0;
}

static uint64_t limit_bytes(uint64_t blocks, uint32_t sector, uint64_t max)
{
	return blocks && blocks < max / sector ? blocks * sector : max;
}

/* SBC-4, 6.6.4: block limits. */
static void learn_limits(struct ini_dev *d, struct lu *lu, uint8_t *buf, bool provisioned)
{
	uint32_t sector = d->dev.info.sector;
	struct ini_limits *l = &d->limits;
	uint32_t blocks, granularity = 1;
	int n = lu_inquiry(lu, LU_VPD_LIMITS, buf, 64);

	l->rw_max = RW_MAX;
	l->same_max = SAME_MAX;
	if (n < 0)
		return;
	if (lu_has_caw(lu, buf, n))
		d->dev.info.caw = BLK_CAW_SCSI;
	l->rw_max = limit_bytes(get_be32(buf + 8), sector, RW_MAX);
	if (n < 44)
		return;
	blocks = get_be32(buf + 20);
	if (provisioned && blocks && get_be32(buf + 24)) {
		l->unmap_max = limit_bytes(blocks, sector, UNMAP_MAX);
		if (get_be32(buf + 28))
			granularity = get_be32(buf + 28);
		if (granularity <= UNMAP_MAX / sector)
			d->dev.info.discard_granularity = granularity * sector;
		else
			l->unmap_max = 0;
	}
	l->same_max = limit_bytes(get_be64(buf + 36), sector, SAME_MAX);
}

static void learn_provisioning(struct ini_dev *d, struct lu *lu, uint8_t *buf)
{
	int n = lu_inquiry(lu, LU_VPD_PROVISIONING, buf, 64);

	if (n < 8)
		return;
	if (!(buf[5] & 0x80))	/* LBPU */
		d->limits.unmap_max = 0;
	d->limits.same_unmap = (buf[5] & 0x40) && (buf[5] >> 2 & 7);	/* LBPWS, LBPRZ */
}

/* A target that does not tell is taken to lose what was not flushed. */
static void learn_cache(struct ini_dev *d, uint8_t *buf)
{
	struct ini_admin a = { .cdb_size = 6, .buf = buf, .len = 64, .path = -1 };
	const uint8_t *page;

	memset(buf, 0, a.len);
	d->limits.wce = true;
	a.cdb[0] = MODE_SENSE_6;
	a.cdb[1] = 0x08;	/* DBD: no block descriptors */
	a.cdb[2] = MODE_CACHING;
	a.cdb[4] = (uint8_t)a.len;
	if (ask(d, &a) || a.got < 4)
		return;
	if (buf[2] & 0x80)	/* WP */
		d->dev.info.read_only = true;
	d->limits.fua = buf[2] & 0x10;	/* DPOFUA */
	page = buf + 4 + buf[3];
	if (page + 3 > buf + a.got || (page[0] & 0x3f) != MODE_CACHING)
		return;
	d->limits.wce = page[2] & 0x04;
}

static int refuse(struct ini_dev *d, int err, const char *what, char *why, size_t why_size)
{
	snprintf(why, why_size, "%s: %s", d->t.name, what);
	return err;
}

static void learn_name(struct ini_dev *d)
{
	struct blkdev_info *info = &d->dev.info;

	snprintf(info->name, sizeof(info->name), "%.255s", d->t.name);
	snprintf(info->identity, sizeof(info->identity), "%s", d->identity);
	info->mem_align = 1;	/* a socket takes any */
	info->direct = true;
	info->inflight_ns_max = ini_life_ns(d);
	info->read_only = d->o.flags & BLKISCSI_READ_ONLY;
}

static int learn(struct ini_dev *d, uint8_t *buf, char *why, size_t why_size)
{
	struct blkdev_info *info = &d->dev.info;
	struct ini_lu lu = ini_lu(d);
	int err = lu_inquiry(&lu.lu, LU_VPD_STANDARD, buf, 96);

	if (err < 0)
		return refuse(d, err, err == -EBADE ? "another initiator has it reserved for itself" :
			      "no answer to INQUIRY", why, why_size);
	if (buf[0] >> 5)
		return refuse(d, -ENXIO, "the target has no such LUN", why, why_size);
	if (buf[0] & 0x1f)
		return refuse(d, -EMEDIUMTYPE, "not a disk", why, why_size);
	err = read_capacity(d, buf, &info->size, &info->sector);
	if (err)
		return refuse(d, err, "its capacity cannot be read", why, why_size);
	if (info->sector != 512 && info->sector != 4096)
		return refuse(d, -EMEDIUMTYPE, "its sectors are neither of 512 nor of 4096 bytes", why,
			      why_size);
	atomic_store(&d->sector, info->sector);
	learn_name(d);
	learn_limits(d, &lu.lu, buf, buf[14] & 0x80);
	learn_provisioning(d, &lu.lu, buf);
	learn_cache(d, buf);
	info->reservations = !d->t.no_reservations && lu_has_pr(&lu.lu, &d->limits.pr_aptpl);
	if (!d->limits.unmap_max)
		info->discard_granularity = 0;
	info->io_max = d->limits.rw_max;
	return 0;
}

int ini_learn(struct ini_dev *d, char *why, size_t why_size)
{
	uint8_t *buf = calloc(1, BUF_SIZE);
	int err;

	if (!buf)
		return refuse(d, -ENOMEM, "out of memory", why, why_size);
	err = learn(d, buf, why, why_size);
	free(buf);
	return err;
}

/* ---- persistent reservations, SPC-4, 6.15 and 6.16 ---- */

static int pr_out(struct ini_dev *d, int path, enum pr_out action, uint64_t key, uint64_t sark)
{
	uint8_t param[PR_PARAM_SIZE] = { 0 };
	struct ini_admin a = { .cdb_size = 10, .out = true, .buf = param, .len = sizeof(param),
			       .path = path };
	bool registers = action == PR_REGISTER || action == PR_REGISTER_IGNORE;

	a.cdb[0] = LU_PR_OUT;
	a.cdb[1] = (uint8_t)action;
	a.cdb[2] = registers || action == PR_CLEAR ? 0 : LU_PR_TYPE_WEAR;
	put_be32(a.cdb + 5, sizeof(param));
	put_be64(param, key);
	put_be64(param + 8, sark);
	param[20] = registers && d->limits.pr_aptpl ? PR_APTPL : 0;
	return ini_admin_run(d, &a);
}

/*
 * Each session is an I_T nexus of its own and registers by itself.  A path that was registered
 * before, by a command whose answer was lost, has the new key already.
 */
static int register_path(struct ini_dev *d, int path, uint64_t old_key, uint64_t new_key)
{
	int err = pr_out(d, path, PR_REGISTER, old_key, new_key);

	if (err != -EBADE)
		return err;
	if (!new_key)
		return 0;	/* this path is not registered with it: as was wanted */
	return pr_out(d, path, PR_REGISTER, new_key, new_key);
}

/* A copy of the paths' states: they change under us, which the commands then find out. */
static unsigned int copy_paths_up(struct ini_dev *d, bool up[BLKISCSI_PORTALS_MAX])
{
	unsigned int n = 0;

	pthread_mutex_lock(&d->mutex);
	for (unsigned int i = 0; i < d->t.portal_count; i++) {
		up[i] = d->path_is_up[i];
		n += up[i];
	}
	pthread_mutex_unlock(&d->mutex);
	return n;
}

int ini_pr_register(struct blkdev *dev, uint64_t old_key, uint64_t new_key)
{
	struct ini_dev *d = ini_dev(dev);
	bool up[BLKISCSI_PORTALS_MAX];
	int first = copy_paths_up(d, up) ? 0 : -EIO;

	for (unsigned int i = 0; i < d->t.portal_count; i++) {
		int err = up[i] ? register_path(d, (int)i, old_key, new_key) : 0;

		first = first ? first : err;
	}
	return first;
}

int ini_pr_reserve(struct blkdev *dev, uint64_t key)
{
	return pr_out(ini_dev(dev), -1, PR_RESERVE, key, 0);
}

int ini_pr_preempt_abort(struct blkdev *dev, uint64_t key, uint64_t victim)
{
	return pr_out(ini_dev(dev), -1, PR_PREEMPT_ABORT, key, victim);
}

int ini_pr_clear(struct blkdev *dev, uint64_t key)
{
	struct ini_dev *d = ini_dev(dev);
	bool up[BLKISCSI_PORTALS_MAX];
	int path = 0, err;

	if (!copy_paths_up(d, up))
		return -EIO;
	while (!up[path])
		path++;
	err = pr_out(d, path, PR_REGISTER_IGNORE, 0, key);
	return err ? err : pr_out(d, path, PR_CLEAR, key, 0);
}

int ini_pr_read(struct blkdev *dev, struct blkdev_pr_state *state)
{
	struct ini_lu lu = ini_lu(ini_dev(dev));

	return lu_pr_read(&lu.lu, state);
}
