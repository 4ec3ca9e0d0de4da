// SPDX-License-Identifier: Apache-2.0
#include "iscsi/scsi_state.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "iscsi/scsi_internal.h"

#define STATE_MAGIC	"LUNSCSI1"

struct reg_disk {
	le64	key;		/*   0 */
	uint8_t	isid[6];	/*   8 */
	le16	port;		/*  14 */
	uint8_t	all_ports;	/*  16  0 or 1 */
	uint8_t	zero[7];	/*  17 */
	char	name[SCSI_NAME_MAX];	/*  24  NUL-padded */
	uint8_t	zero2[8];	/* 248 */
};
static_assert(sizeof(struct reg_disk) == 256, "docs/ISCSI.md, State file");

struct scsi_state_disk {
	char	magic[8];	/*    0  STATE_MAGIC */
	le32	crc;		/*    8  CRC32C of length bytes, itself as 0 */
	le32	length;		/*   12  bytes in use */
	le64	sequence;	/*   16 */
	uint8_t	naa[16];	/*   24  the unit's: a file of another one is not believed */
	le32	generation;	/*   40  PRGENERATION */
	uint8_t	aptpl;		/*   44  0: no reservation persists, count is 0 */
	uint8_t	type;		/*   45  enum scsi_pr_type */
	le16	holder;		/*   46 */
	le16	count;		/*   48  registrations */
	uint8_t	saved;		/*   50  mode pages: 1 WCE, 2 D_SENSE, 4 SWP, 8 TAS */
	uint8_t	method;		/*   51  SANITIZE under way or failed */
	uint8_t	sanitize_flags;	/*   52  1 failed, 2 AUSE, 4 INVERT */
	uint8_t	passes;		/*   53 */
	le16	pattern_len;	/*   54 */
	uint8_t	zero[8];	/*   56 */
	uint8_t	pattern[SCSI_PATTERN_MAX];	/*   64 */
	struct reg_disk regs[SCSI_PR_REGS_MAX];	/* 4160 */
};
static_assert(offsetof(struct scsi_state_disk, regs) == 4160, "docs/ISCSI.md, State file");
static_assert(sizeof(struct scsi_state_disk) <= SCSI_STATE_SLOT, "a state fits its slot");

struct scsi_jobs {
	struct env_thread *thread;
	struct env_mutex mutex;
	struct env_cond changed;
	struct list	queue;		/* scsi_cmd.wait */
	bool		stopping;
	bool		running;
	unsigned int	slot;		/* to be written next */
	void		*buf;
};

/* What a queued command asks for; kept in its walk. */
struct job {
	int (*work)(struct scsi_cmd *cmd);
	void (*next)(struct scsi_cmd *cmd, int err);
};
static_assert(sizeof(struct job) <= sizeof(uint64_t) * 2, "walk[4] and [5] hold a job");

static struct job *job_of(struct scsi_cmd *cmd)
{
	return (struct job *)(void *)&cmd->walk[4];
}

/* ---- encoding ---- */

static uint8_t mode_bits(const struct scsi_mode *m)
{
	return (uint8_t)(m->wce | m->d_sense << 1 | m->swp << 2 | m->tas << 3);
}

static void encode_pr(const struct scsi_pr *pr, struct scsi_state_disk *d)
{
	d->aptpl = 1;
	d->type = pr->type;
	d->holder = cpu_to_le16(pr->holder);
	d->count = cpu_to_le16(pr->count);
	for (unsigned int i = 0; i < pr->count; i++) {
		struct reg_disk *to = &d->regs[i];

		to->key = cpu_to_le64(pr->regs[i].key);
		to->port = cpu_to_le16(pr->regs[i].port);
		to->all_ports = pr->regs[i].all_ports;
		memcpy(to->isid, pr->regs[i].isid, sizeof(to->isid));
		memcpy(to->name, pr->regs[i].name, sizeof(to->name));
	}
}

size_t state_encode(const struct scsi_state *state, const uint8_t naa[16], void *slot)
{
	struct scsi_state_disk *d = slot;
	const struct scsi_sanitize_state *s = &state->sanitize;
	size_t length;

	memset(slot, 0, SCSI_STATE_SLOT);
	memcpy(d->magic, STATE_MAGIC, sizeof(d->magic));
	memcpy(d->naa, naa, sizeof(d->naa));
	d->sequence = cpu_to_le64(state->sequence);
	d->generation = cpu_to_le32(state->pr.generation);
	if (state->pr.aptpl)
		encode_pr(&state->pr, d);
	d->saved = mode_bits(&state->saved);
	d->method = s->method;
	d->sanitize_flags = (uint8_t)(s->failed | s->ause << 1 | s->invert << 2);
	d->passes = s->passes;
	d->pattern_len = cpu_to_le16((uint16_t)s->pattern_len);
	memcpy(d->pattern, s->pattern, s->pattern_len);
	length = offsetof(struct scsi_state_disk, regs) +
		 le16_to_cpu(d->count) * sizeof(struct reg_disk);
	d->length = cpu_to_le32((uint32_t)length);
	d->crc = cpu_to_le32(crc32c(0, slot, length));
	return length;
}

static bool type_is_known(uint8_t type)
{
	return type == PR_NONE || type == PR_WRITE_EXCLUSIVE || type == PR_EXCLUSIVE_ACCESS ||
	       (type >= PR_WRITE_EXCLUSIVE_RO && type <= PR_EXCLUSIVE_ACCESS_AR);
}

static bool fields_are_valid(const struct scsi_state_disk *d, uint32_t length)
{
	unsigned int count = le16_to_cpu(d->count);

	if (count > SCSI_PR_REGS_MAX ||
	    length != offsetof(struct scsi_state_disk, regs) + count * sizeof(struct reg_disk))
		return false;
	if (!type_is_known(d->type) || (d->type && le16_to_cpu(d->holder) >= count))
		return false;
	if ((!d->aptpl && (count || d->type)) || d->method > SANITIZE_BLOCK_ERASE)
		return false;
	if (le16_to_cpu(d->pattern_len) > SCSI_PATTERN_MAX ||
	    (d->method == SANITIZE_OVERWRITE && (!le16_to_cpu(d->pattern_len) || !d->passes)))
		return false;
	for (unsigned int i = 0; i < count; i++)
		if (!memchr(d->regs[i].name, 0, sizeof(d->regs[i].name)) ||
		    !le64_to_cpu(d->regs[i].key))
			return false;
	return true;
}

static void decode_pr(const struct scsi_state_disk *d, struct scsi_pr *pr)
{
	memset(pr, 0, sizeof(*pr));
	pr->generation = le32_to_cpu(d->generation);
	pr->aptpl = d->aptpl;
	pr->type = d->type;
	pr->holder = le16_to_cpu(d->holder);
	pr->count = le16_to_cpu(d->count);
	for (unsigned int i = 0; i < pr->count; i++) {
		const struct reg_disk *from = &d->regs[i];
		struct scsi_pr_reg *to = &pr->regs[i];

		to->key = le64_to_cpu(from->key);
		to->port = le16_to_cpu(from->port);
		to->all_ports = from->all_ports;
		memcpy(to->isid, from->isid, sizeof(to->isid));
		memcpy(to->name, from->name, sizeof(to->name));
	}
}

int state_decode(const void *slot, const uint8_t naa[16], struct scsi_state *state)
{
	const struct scsi_state_disk *d = slot;
	const size_t crc_off = offsetof(struct scsi_state_disk, crc);
	static const uint8_t zero[8];
	struct scsi_sanitize_state *s = &state->sanitize;
	uint32_t length = le32_to_cpu(d->length), crc;

	if (!memcmp(d->magic, zero, sizeof(d->magic)) && !length)
		return -ENOENT;
	if (memcmp(d->magic, STATE_MAGIC, sizeof(d->magic)) ||
	    length < offsetof(struct scsi_state_disk, regs) || length > sizeof(*d))
		return -EBADMSG;
	crc = crc32c(0, slot, crc_off);
	crc = crc32c(crc, zero, sizeof(d->crc));
	crc = crc32c(crc, (const uint8_t *)slot + crc_off + 4, length - crc_off - 4);
	if (crc != le32_to_cpu(d->crc))
		return -EBADMSG;
	if (memcmp(d->naa, naa, sizeof(d->naa)) || !fields_are_valid(d, length))
		return -EUCLEAN;
	state->sequence = le64_to_cpu(d->sequence);
	decode_pr(d, &state->pr);
	state->saved = (struct scsi_mode){ d->saved & 1, d->saved >> 1 & 1, d->saved >> 2 & 1,
					   d->saved >> 3 & 1 };
	state->mode = state->saved;
	s->method = d->method;
	s->failed = d->sanitize_flags & 1;
	s->ause = d->sanitize_flags >> 1 & 1;
	s->invert = d->sanitize_flags >> 2 & 1;
	s->passes = d->passes;
	s->pattern_len = le16_to_cpu(d->pattern_len);
	memcpy(s->pattern, d->pattern, sizeof(s->pattern));
	return 0;
}

/* ---- the file ---- */

static int read_slot(int fd, unsigned int slot, uint8_t *buf)
{
	size_t got = 0;

	memset(buf, 0, SCSI_STATE_SLOT);
	while (got < SCSI_STATE_SLOT) {
		ssize_t n = pread(fd, buf + got, SCSI_STATE_SLOT - got,
				  (off_t)(slot * (off_t)SCSI_STATE_SLOT + (off_t)got));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		got += (size_t)n;
	}
	return 0;
}

static int write_slot(int fd, unsigned int slot, const uint8_t *buf, size_t len)
{
	size_t put = 0;

	while (put < len) {
		ssize_t n = pwrite(fd, buf + put, len - put,
				   (off_t)(slot * (off_t)SCSI_STATE_SLOT + (off_t)put));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		put += (size_t)n;
	}
	return fdatasync(fd) ? -errno : 0;
}

/* Both slots; the newer valid one wins.  *@bad: one holds something that is not valid. */
static int load_slots(struct scsi_lun *lun, struct scsi_state *found, bool *bad)
{
	int best = -ENOENT;

	for (unsigned int slot = 0; slot < 2; slot++) {
		int err = read_slot(lun->config.state_fd, slot, lun->jobs->buf);

		if (err)
			return err;
		err = state_decode(lun->jobs->buf, lun->config.naa, &lun->next);
		if (err && err != -ENOENT)
			*bad = true;
		if (err || (best >= 0 && lun->next.sequence <= found->sequence))
			continue;
		*found = lun->next;
		best = (int)slot;
	}
	return best;
}

int state_load(struct scsi_lun *lun)
{
	struct env *env = lun->target->env;
	bool bad = false;
	int slot;

	if (lun->config.state_fd < 0)
		return 0;
	slot = load_slots(lun, &lun->state, &bad);
	if (slot == -ENOENT && !bad)
		return 0;
	if (slot == -ENOENT) {
		log_error(env, lun->name, "its state file is damaged or another unit's: the "
			  "reservations in it are lost; remove the file to go on without them");
		return -EUCLEAN;
	}
	if (slot < 0) {
		log_error(env, lun->name, "cannot read its state file: %s", strerror(-slot));
		return slot;
	}
	lun->jobs->slot = (unsigned int)slot ^ 1;
	return 0;
}

static int write_state(struct scsi_cmd *cmd)
{
	struct scsi_lun *lun = cmd->unit;
	struct scsi_jobs *j = lun->jobs;
	size_t len;
	int err;

	if (lun->config.state_fd < 0)
		return -EOPNOTSUPP;
	len = state_encode(&lun->next, lun->config.naa, j->buf);
	err = write_slot(lun->config.state_fd, j->slot, j->buf, len);
	if (err) {
		log_error(lun->target->env, lun->name, "cannot write its state file: %s",
			  strerror(-err));
		return err;
	}
	j->slot ^= 1;
	return 0;
}

/* ---- the thread that may block ---- */

static void jobs_main(void *arg)
{
	struct scsi_lun *lun = arg;
	struct env *env = lun->target->env;
	struct scsi_jobs *j = lun->jobs;

	env_mutex_lock(env, &j->mutex);
	while (!j->stopping || !list_empty(&j->queue)) {
		struct scsi_cmd *cmd;
		struct job job;

		if (list_empty(&j->queue)) {
			env_cond_wait(env, &j->changed, &j->mutex, ENV_FOREVER);
			continue;
		}
		cmd = list_first(&j->queue, struct scsi_cmd, wait);
		list_del(&cmd->wait);
		env_mutex_unlock(env, &j->mutex);
		job = *job_of(cmd);
		scsi_post(cmd, job.next, job.work(cmd));
		env_mutex_lock(env, &j->mutex);
	}
	env_mutex_unlock(env, &j->mutex);
}

void state_work(struct scsi_cmd *cmd, int (*work)(struct scsi_cmd *cmd),
		void (*next)(struct scsi_cmd *cmd, int err))
{
	struct scsi_lun *lun = cmd->unit;
	struct env *env = lun->target->env;

	*job_of(cmd) = (struct job){ work, next };
	env_mutex_lock(env, &lun->jobs->mutex);
	list_add_tail(&lun->jobs->queue, &cmd->wait);
	env_cond_broadcast(env, &lun->jobs->changed);
	env_mutex_unlock(env, &lun->jobs->mutex);
}

int state_open(struct scsi_lun *lun)
{
	struct env *env = lun->target->env;
	struct scsi_jobs *j = calloc(1, sizeof(*j));
	int err = -ENOMEM;

	if (!j)
		return err;
	j->buf = malloc(SCSI_STATE_SLOT);
	if (!j->buf)
		goto free_jobs;
	env_mutex_init(env, &j->mutex);
	env_cond_init(env, &j->changed);
	list_init(&j->queue);
	lun->jobs = j;
	err = state_load(lun);
	if (err)
		goto fini;
	err = env_thread_start(env, "scsi-state", jobs_main, lun, &j->thread);
	if (!err)
		return 0;
fini:
	lun->jobs = NULL;
	env_cond_fini(env, &j->changed);
	env_mutex_fini(env, &j->mutex);
	free(j->buf);
free_jobs:
	free(j);
	return err;
}

void state_close(struct scsi_lun *lun)
{
	struct env *env = lun->target->env;
	struct scsi_jobs *j = lun->jobs;

	if (!j)
		return;
	env_mutex_lock(env, &j->mutex);
	j->stopping = true;
	env_cond_broadcast(env, &j->changed);
	env_mutex_unlock(env, &j->mutex);
	env_thread_join(env, j->thread);
	env_cond_fini(env, &j->changed);
	env_mutex_fini(env, &j->mutex);
	free(j->buf);
	free(j);
	lun->jobs = NULL;
}

/* ---- turns ---- */

void state_change(struct scsi_cmd *cmd, void (*fn)(struct scsi_cmd *cmd, int err))
{
	struct scsi_lun *lun = cmd->unit;
	struct env *env = lun->target->env;
	bool mine;

	cmd->next = fn;
	env_mutex_lock(env, &lun->mutex);
	mine = !lun->state_owner;
	if (mine) {
		lun->state_owner = cmd;
		lun->next = lun->state;
	} else {
		list_add_tail(&lun->state_waiters, &cmd->wait);
	}
	env_mutex_unlock(env, &lun->mutex);
	if (mine)
		fn(cmd, 0);
}

void state_commit(struct scsi_cmd *cmd, bool persist, void (*next)(struct scsi_cmd *cmd, int err))
{
	struct scsi_lun *lun = cmd->unit;

	assert(lun->state_owner == cmd);
	if (!persist) {
		next(cmd, 0);
		return;
	}
	lun->next.sequence = lun->state.sequence + 1;
	/* One that failed may have been written all the same: the next one is newer. */
	lun->state.sequence++;
	state_work(cmd, write_state, next);
}

void state_release(struct scsi_lun *lun)
{
	struct env *env = lun->target->env;
	struct scsi_cmd *next = NULL;

	env_mutex_lock(env, &lun->mutex);
	lun->state_owner = NULL;
	if (!list_empty(&lun->state_waiters)) {
		next = list_first(&lun->state_waiters, struct scsi_cmd, wait);
		list_del(&next->wait);
		lun->state_owner = next;
		lun->next = lun->state;
	}
	env_mutex_unlock(env, &lun->mutex);
	if (next)
		scsi_post(next, next->next, 0);
}
