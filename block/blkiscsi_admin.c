/* SPDX-License-Identifier: Apache-2.0 */
/* Commands that a thread waits for: what the LUN is capable of, and persistent reservations. */
#include "block/blkiscsi_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define INQUIRY			0x12
#define MODE_SENSE_6		0x1a
#define PR_IN			0x5e
#define PR_OUT			0x5f
#define SERVICE_ACTION_IN_16	0x9e
#define READ_CAPACITY_16	0x10	/* service action */
#define COMPARE_AND_WRITE	0x89

#define VPD_BLOCK_LIMITS	0xb0
#define VPD_PROVISIONING	0xb2
#define MODE_CACHING		0x08

#define BUF_SIZE		4096u
#define RW_MAX			(1 * MIB)	/* also where the target would take more */
#define UNMAP_MAX		(1 * GIB)
#define SAME_MAX		(32 * MIB)	/* some targets write it out: within its time limit */
#define TRIES			3u	/* of harmless questions whose path was lost */

enum pr_in { PR_READ_KEYS, PR_READ_RESERVATION, PR_CAPABILITIES };
enum pr_out { PR_REGISTER = 0, PR_RESERVE = 1, PR_CLEAR = 3, PR_PREEMPT_ABORT = 5,
	      PR_REGISTER_IGNORE = 6 };
#define PR_TYPE_WEAR		7	/* write exclusive, all registrants; scope: logical unit */
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

/* ---- what the LUN is ---- */

/* @page < 0: the standard data.  Return: bytes received or negative errno. */
static int inquiry(struct ini_dev *d, int page, uint8_t *buf, uint32_t size)
{
	struct ini_admin a = { .cdb_size = 6, .buf = buf, .len = size, .path = -1 };
	int err;

	memset(buf, 0, size);
	a.cdb[0] = INQUIRY;
	a.cdb[1] = page >= 0;
	a.cdb[2] = page >= 0 ? (uint8_t)page : 0;
	put_be16(a.cdb + 3, size);
	err = ask(d, &a);
	if (!err && page >= 0 && (a.got < 4 || buf[1] != page))
		return -ENOTSUP;
	return err ? err : (int)a.got;
}

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
	dev->info.size = size;
	return 0;
}

/*
 * A target may announce a length for COMPARE AND WRITE and not have the command (Debian's tgt).
 * One of no blocks compares and writes nothing (SBC-4, 5.3).
 */
static bool lacks_caw(struct ini_dev *d)
{
	struct ini_admin a = { .cdb_size = 16, .path = -1 };

	a.cdb[0] = COMPARE_AND_WRITE;
	return ask(d, &a) == -ENOTSUP;
}

static uint64_t limit_bytes(uint64_t blocks, uint32_t sector, uint64_t max)
{
	return blocks && blocks < max / sector ? blocks * sector : max;
}

/* SBC-4, 6.6.4: block limits. */
static void learn_limits(struct ini_dev *d, uint8_t *buf, bool provisioned)
{
	uint32_t sector = d->dev.info.sector;
	struct ini_limits *l = &d->limits;
	uint32_t blocks, granularity = 1;
	int n = inquiry(d, VPD_BLOCK_LIMITS, buf, 64);

	l->rw_max = RW_MAX;
	l->same_max = SAME_MAX;
	if (n < 0)
		return;
	if (buf[5])
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

static void learn_provisioning(struct ini_dev *d, uint8_t *buf)
{
	int n = inquiry(d, VPD_PROVISIONING, buf, 64);

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

/* SPC-4, 6.15.4: REPORT CAPABILITIES. */
static void learn_reservations(struct ini_dev *d, uint8_t *buf)
{
	struct ini_admin a = { .cdb_size = 10, .buf = buf, .len = 8, .path = -1 };

	memset(buf, 0, a.len);
	a.cdb[0] = PR_IN;
	a.cdb[1] = PR_CAPABILITIES;
	put_be16(a.cdb + 7, a.len);
	if (ask(d, &a) || a.got < 8)
		return;
	d->limits.pr_aptpl = buf[2] & 0x01;
	d->dev.info.reservations = !(buf[3] & 0x80) || (buf[4] & 0x80);
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
	int err = inquiry(d, -1, buf, 96);

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
	learn_name(d);
	learn_limits(d, buf, buf[14] & 0x80);
	learn_provisioning(d, buf);
	if (info->caw != BLK_CAW_NONE && lacks_caw(d))
		info->caw = BLK_CAW_NONE;
	learn_cache(d, buf);
	learn_reservations(d, buf);
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

	a.cdb[0] = PR_OUT;
	a.cdb[1] = (uint8_t)action;
	a.cdb[2] = registers || action == PR_CLEAR ? 0 : PR_TYPE_WEAR;
	put_be32(a.cdb + 5, sizeof(param));
	put_be64(param, key);
	put_be64(param + 8, sark);
	param[20] = registers && d->limits.pr_aptpl ? PR_APTPL : 0;
	return ini_admin_run(d, &a);
}

static int pr_in(struct ini_dev *d, enum pr_in action, uint8_t *buf, uint32_t size, uint32_t *got)
{
	struct ini_admin a = { .cdb_size = 10, .buf = buf, .len = size, .path = -1 };
	int err;

	memset(buf, 0, size);
	a.cdb[0] = PR_IN;
	a.cdb[1] = (uint8_t)action;
	put_be16(a.cdb + 7, size);
	err = ask(d, &a);
	if (!err && a.got < 8)
		err = -EPROTO;
	*got = a.got;
	return err;
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
	struct ini_dev *d = ini_dev(dev);
	uint8_t *buf = calloc(1, BUF_SIZE);
	uint32_t got = 0, count;
	int err;

	if (!buf)
		return -ENOMEM;
	err = pr_in(d, PR_READ_KEYS, buf, BUF_SIZE, &got);
	if (err)
		goto free_buf;
	state->generation = get_be32(buf);
	count = get_be32(buf + 4) / 8;
	state->key_count = count;	/* may be more than fit: then nothing is proven by them */
	for (uint32_t i = 0; i < count && i < ARRAY_SIZE(state->keys) && 16 + 8 * i <= got; i++)
		state->keys[i] = get_be64(buf + 8 + (size_t)8 * i);
	if (count < ARRAY_SIZE(state->keys) && 8 + 8 * count > got) {
		err = -EPROTO;
		goto free_buf;
	}
	err = pr_in(d, PR_READ_RESERVATION, buf, 64, &got);
	if (!err)
		state->held = get_be32(buf + 4) >= 16 && got >= 24 &&
			      (buf[21] & 0x0f) == PR_TYPE_WEAR;
free_buf:
	free(buf);
	return err;
}
