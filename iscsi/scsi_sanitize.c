// SPDX-License-Identifier: Apache-2.0
/*
 * SANITIZE (SBC-4, 4.11 and 5.31): what it does goes on whatever becomes of the command, of
 * its initiator and of this process, until every block is overwritten.
 *
 *   SANITIZE ──► state durable: under way ──► (other commands are refused) ──► each pass,
 *   chunk by chunk ──► flush ──► state durable: none            (or: failed)
 *
 * It runs at the unit's first reactor by a command of its own, at a bounded speed, so that
 * others are served.  After a restart it begins anew.
 */
#include <stdlib.h>

#include "iscsi/scsi_internal.h"

enum {
	CHUNK		= 1024 * 1024,
	ERASE_CHUNK	= 64 * 1024 * 1024,
	SA_OVERWRITE = 0x01, SA_BLOCK_ERASE = 0x02, SA_EXIT_FAILURE = 0x1f,
};

struct scsi_sanitize {
	struct scsi_lun	*lun;
	struct scsi_cmd	cmd;		/* its own: no initiator's */
	struct reactor_timer timer;
	bool		timer_set;
	void		*buf;
	uint64_t	block;		/* the next one of the pass */
	unsigned int	pass;
	uint64_t	done_bytes, start_ns;
	bool		failed;

	/* under the unit's mutex */
	struct scsi_cmd	*waiter;	/* a SANITIZE without IMMED */
	bool		running, stopping;
	struct env_cond	stopped;
};

static void step(struct scsi_cmd *cmd, int err);

static const struct scsi_op runner_op = { .flags = OP_WRITES, .name = "SANITIZE" };

static struct scsi_sanitize *sanitize_of(struct scsi_cmd *cmd)
{
	return container_of(cmd, struct scsi_sanitize, cmd);
}

/* ---- the command that waits for it ---- */

static void waiter_end(struct scsi_cmd *waiter, int err)
{
	if (err)
		scsi_sense(waiter, KEY_MEDIUM_ERROR, ASC_SANITIZE_FAILED);
	scsi_finish(waiter);
}

/* In any reactor: the waiter ends in its own. */
static void release_waiter(struct scsi_sanitize *s, int err)
{
	struct env *env = s->lun->target->env;
	struct scsi_cmd *waiter;

	env_mutex_lock(env, &s->lun->mutex);
	waiter = s->waiter;
	s->waiter = NULL;
	env_mutex_unlock(env, &s->lun->mutex);
	if (waiter)
		scsi_post(waiter, waiter_end, err);
}

/* An abort ends the command that waits, not what it has started. */
static void look_at_waiter(struct scsi_sanitize *s)
{
	struct env *env = s->lun->target->env;
	bool aborted;

	env_mutex_lock(env, &s->lun->mutex);
	aborted = s->waiter && scsi_was_aborted(s->waiter);
	env_mutex_unlock(env, &s->lun->mutex);
	if (aborted)
		release_waiter(s, 0);
}

/* ---- the end ---- */

static void stop_running(struct scsi_sanitize *s)
{
	struct env *env = s->lun->target->env;

	env_mutex_lock(env, &s->lun->mutex);
	s->running = false;
	env_cond_broadcast(env, &s->stopped);
	env_mutex_unlock(env, &s->lun->mutex);
}

static void end_install(struct scsi_cmd *cmd, int err)
{
	struct scsi_sanitize *s = sanitize_of(cmd);
	struct scsi_lun *lun = s->lun;

	/* What cannot be recorded is done once more after a restart: no harm. */
	(void)err;
	unit_lock(lun);
	lun->state.sanitize = lun->next.sanitize;
	unit_unlock(lun);
	state_release(lun);
	if (s->failed)
		log_error(lun->target->env, lun->name, "SANITIZE failed: its data is not gone; "
			  "repeat it, or leave the failure mode");
	free(s->buf);
	s->buf = NULL;
	release_waiter(s, s->failed ? -EIO : 0);
	stop_running(s);
}

static void end_turn(struct scsi_cmd *cmd, int err)
{
	struct scsi_sanitize *s = sanitize_of(cmd);
	struct scsi_lun *lun = s->lun;

	(void)err;
	if (s->failed)
		lun->next.sanitize.failed = true;
	else
		memset(&lun->next.sanitize, 0, sizeof(lun->next.sanitize));
	state_commit(cmd, lun->config.state_fd >= 0, end_install);
}

static void flushed(struct scsi_cmd *cmd, int err)
{
	struct scsi_sanitize *s = sanitize_of(cmd);

	if (err)
		s->failed = true;
	state_change(cmd, end_turn);
}

static void finish_up(struct scsi_sanitize *s)
{
	s->cmd.io = (struct blk_io){ .op = BLK_FLUSH };
	scsi_submit(&s->cmd, flushed);
}

/* ---- chunks ---- */

/* The pattern from the start of each block, turned over in every second pass (INVERT). */
static void fill(struct scsi_sanitize *s)
{
	const struct scsi_sanitize_state *st = &s->lun->state.sanitize;
	uint32_t bs = s->lun->block_size;
	uint8_t *buf = s->buf, flip = st->invert && s->pass % 2 ? 0xff : 0x00;

	for (uint32_t i = 0; i < bs; i++)
		buf[i] = st->pattern[i % st->pattern_len] ^ flip;
	for (size_t i = bs; i < CHUNK; i += bs)
		memcpy(buf + i, buf, bs);
}

static void chunk_done(struct scsi_cmd *cmd, int err)
{
	struct scsi_sanitize *s = sanitize_of(cmd);
	struct scsi_lun *lun = s->lun;
	uint64_t size = atomic_load(&lun->blocks);
	unsigned int passes = lun->state.sanitize.method == SANITIZE_OVERWRITE ?
			      lun->state.sanitize.passes : 1;
	uint64_t all = size * passes;

	if (err) {
		log_error(lun->target->env, lun->name, "SANITIZE: block %llu: %s",
			  (unsigned long long)s->block, strerror(-err));
		s->failed = true;
		finish_up(s);
		return;
	}
	s->block += cmd->io.len / lun->block_size;
	s->done_bytes += cmd->io.len;
	if (s->block >= size) {
		s->block = 0;
		s->pass++;
		if (lun->state.sanitize.method == SANITIZE_OVERWRITE && s->pass < passes)
			fill(s);
	}
	atomic_store(&lun->sanitize_progress,
		     (uint32_t)((__uint128_t)(s->pass * size + s->block) * 65535 / all));
	if (s->pass == passes)
		finish_up(s);
	else
		step(cmd, 0);
}

static void submit_chunk(struct scsi_sanitize *s)
{
	struct scsi_lun *lun = s->lun;
	bool erase = lun->state.sanitize.method == SANITIZE_BLOCK_ERASE;
	uint64_t left = (atomic_load(&lun->blocks) - s->block) * lun->block_size;
	uint64_t max = erase ? ERASE_CHUNK : CHUNK, len = left < max ? left : max;

	s->cmd.piece = (struct iovec){ s->buf, len };
	s->cmd.io = (struct blk_io){
		.op = erase ? BLK_ZERO : BLK_WRITE, .off = s->block * lun->block_size, .len = len,
		.iov = &s->cmd.piece, .iovcnt = erase ? 0 : 1,
	};
	scsi_submit(&s->cmd, chunk_done);
}

static void timer_fired(struct reactor_timer *t)
{
	struct scsi_sanitize *s = container_of(t, struct scsi_sanitize, timer);

	s->timer_set = false;
	step(&s->cmd, 0);
}

static bool is_stopping(struct scsi_sanitize *s)
{
	struct env *env = s->lun->target->env;
	bool stopping;

	env_mutex_lock(env, &s->lun->mutex);
	stopping = s->stopping;
	env_mutex_unlock(env, &s->lun->mutex);
	return stopping;
}

/* The next chunk, now or when the speed allows it. */
static void step(struct scsi_cmd *cmd, int err)
{
	struct scsi_sanitize *s = sanitize_of(cmd);
	struct scsi_lun *lun = s->lun;
	uint64_t bps = lun->config.sanitize_bps ? lun->config.sanitize_bps : SCSI_SANITIZE_BPS;
	uint64_t now = env_now_ns(lun->target->env), due;

	(void)err;
	if (is_stopping(s)) {
		free(s->buf);
		s->buf = NULL;
		stop_running(s);
		return;
	}
	look_at_waiter(s);
	due = s->start_ns + (uint64_t)((__uint128_t)s->done_bytes * NSEC_PER_SEC / bps);
	if (due <= now || lun->state.sanitize.method == SANITIZE_BLOCK_ERASE) {
		submit_chunk(s);
		return;
	}
	/* Not longer than this, so that an abort is seen soon. */
	if (due > now + 100 * NSEC_PER_MSEC)
		due = now + 100 * NSEC_PER_MSEC;
	s->timer.fn = timer_fired;
	s->timer_set = true;
	reactor_timer_set(s->cmd.reactor, &s->timer, due);
}

/* In the first reactor. */
static void start(struct scsi_cmd *cmd, int err)
{
	struct scsi_sanitize *s = sanitize_of(cmd);

	(void)err;
	s->block = s->done_bytes = 0;
	s->pass = 0;
	s->failed = false;
	s->start_ns = env_now_ns(s->lun->target->env);
	atomic_store(&s->lun->sanitize_progress, 0);
	s->buf = blkdev_alloc(CHUNK);
	if (!s->buf) {
		s->failed = true;
		finish_up(s);
		return;
	}
	if (s->lun->state.sanitize.method == SANITIZE_OVERWRITE)
		fill(s);
	step(cmd, 0);
}

static void launch(struct scsi_sanitize *s, struct scsi_cmd *waiter)
{
	struct env *env = s->lun->target->env;

	env_mutex_lock(env, &s->lun->mutex);
	assert(!s->running);
	s->running = true;
	s->waiter = waiter;
	env_mutex_unlock(env, &s->lun->mutex);
	scsi_post(&s->cmd, start, 0);
}

/* ---- life ---- */

int sanitize_create(struct scsi_lun *lun)
{
	struct scsi_sanitize *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->lun = lun;
	s->cmd.unit = lun;
	s->cmd.op = &runner_op;
	s->cmd.reactor = lun->shards[0].reactor;
	s->cmd.claim.shard = &lun->shards[0];
	list_init(&s->cmd.wait);
	env_cond_init(lun->target->env, &s->stopped);
	lun->sanitize = s;
	return 0;
}

void sanitize_resume(struct scsi_lun *lun)
{
	const struct scsi_sanitize_state *st = &lun->state.sanitize;

	if (st->method == SANITIZE_NONE || st->failed)
		return;
	log_info(lun->target->env, lun->name, "a SANITIZE was interrupted: it begins anew");
	launch(lun->sanitize, NULL);
}

static void stop(void *arg)
{
	struct scsi_sanitize *s = arg;
	struct env *env = s->lun->target->env;

	env_mutex_lock(env, &s->lun->mutex);
	s->stopping = true;
	env_mutex_unlock(env, &s->lun->mutex);
	if (!s->timer_set)
		return;
	reactor_timer_cancel(s->cmd.reactor, &s->timer);
	s->timer_set = false;
	step(&s->cmd, 0);
}

void sanitize_stop(struct scsi_lun *lun)
{
	reactor_call_sync(lun->sanitize->cmd.reactor, stop, lun->sanitize);
}

bool sanitize_is_running(const struct scsi_lun *lun)
{
	return lun->sanitize->running;
}

void sanitize_destroy(struct scsi_lun *lun)
{
	struct scsi_sanitize *s = lun->sanitize;
	struct env *env = lun->target->env;

	sanitize_stop(lun);
	env_mutex_lock(env, &lun->mutex);
	while (s->running)
		env_cond_wait(env, &s->stopped, &lun->mutex, ENV_FOREVER);
	env_mutex_unlock(env, &lun->mutex);
	env_cond_fini(env, &s->stopped);
	free(s);
	lun->sanitize = NULL;
}

/* ---- the command ---- */

static unsigned int action_of(const struct scsi_cmd *cmd)
{
	return cmd->cdb[1] & 0x1f;
}

bool sanitize_begin(struct scsi_cmd *cmd)
{
	uint16_t len = get_be16(cmd->cdb + 7);

	if (cmd->cdb[1] & 0x40)		/* ZNR: of zoned devices */
		return scsi_bad_field(cmd, 1, 6);
	if (action_of(cmd) != SA_OVERWRITE && len)
		return scsi_bad_field(cmd, 7, -1);
	if (action_of(cmd) == SA_OVERWRITE && (len <= 4 || len > cmd->unit->block_size + 4))
		return scsi_bad_field(cmd, 7, -1);
	if (len > cmd->expected_out) {
		scsi_sense(cmd, KEY_ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH);
		return false;
	}
	scsi_want_out(cmd, len);
	/* Alone: what was written before it is overwritten, not written afterwards. */
	if (action_of(cmd) != SA_EXIT_FAILURE) {
		cmd->claim.end = UINT64_MAX;
		cmd->claim.writes = cmd->claim.exclusive = cmd->claim.exclusive_reads = true;
	}
	return true;
}

/* False: error set. */
static bool parse_overwrite(struct scsi_cmd *cmd, struct scsi_sanitize_state *st)
{
	uint32_t bs = cmd->unit->block_size, len;
	uint8_t list[4];

	scsi_gather(cmd, 0, list, sizeof(list));
	len = get_be16(list + 2);
	if (!(list[0] & 0x1f)) {
		scsi_bad_param(cmd, 0, 4);
		return false;
	}
	if (!len || len > bs || len != cmd->out_len - 4) {
		scsi_bad_param(cmd, 2, -1);
		return false;
	}
	st->invert = list[0] & 0x80;
	st->passes = list[0] & 0x1f;
	st->pattern_len = len;
	scsi_gather(cmd, 4, st->pattern, len);
	return true;
}

static void begin_install(struct scsi_cmd *cmd, int err)
{
	struct scsi_lun *lun = cmd->unit;

	if (err) {
		state_release(lun);
		scsi_sense(cmd, KEY_HARDWARE_ERROR, ASC_INTERNAL_FAILURE);
		scsi_finish(cmd);
		return;
	}
	unit_lock(lun);
	lun->state.sanitize = lun->next.sanitize;
	atomic_store(&lun->sanitize_progress, 0);
	unit_unlock(lun);
	state_release(lun);
	if (cmd->cdb[1] & 0x80) {	/* IMMED */
		launch(lun->sanitize, NULL);
		scsi_finish(cmd);
	} else {
		launch(lun->sanitize, cmd);
	}
}

static void exit_install(struct scsi_cmd *cmd, int err)
{
	struct scsi_lun *lun = cmd->unit;

	if (!err) {
		unit_lock(lun);
		lun->state.sanitize = lun->next.sanitize;
		unit_unlock(lun);
	} else {
		scsi_sense(cmd, KEY_HARDWARE_ERROR, ASC_INTERNAL_FAILURE);
	}
	state_release(lun);
	scsi_finish(cmd);
}

/* EXIT FAILURE MODE: if the SANITIZE that failed allowed it (AUSE). */
static void exit_failure(struct scsi_cmd *cmd)
{
	struct scsi_lun *lun = cmd->unit;
	struct scsi_sanitize_state *st = &lun->next.sanitize;

	if (st->failed && st->ause) {
		memset(st, 0, sizeof(*st));
		state_commit(cmd, lun->config.state_fd >= 0, exit_install);
		return;
	}
	if (st->failed)
		scsi_bad_field(cmd, 1, 4);
	state_release(lun);
	scsi_finish(cmd);
}

static void begin_turn(struct scsi_cmd *cmd, int err)
{
	struct scsi_lun *lun = cmd->unit;
	struct scsi_sanitize_state *st = &lun->next.sanitize;

	(void)err;
	if (action_of(cmd) == SA_EXIT_FAILURE) {
		exit_failure(cmd);
		return;
	}
	memset(st, 0, sizeof(*st));
	st->ause = cmd->cdb[1] & 0x20;
	st->method = action_of(cmd) == SA_OVERWRITE ? SANITIZE_OVERWRITE : SANITIZE_BLOCK_ERASE;
	if (st->method == SANITIZE_OVERWRITE && !parse_overwrite(cmd, st)) {
		state_release(lun);
		scsi_finish(cmd);
		return;
	}
	state_commit(cmd, lun->config.state_fd >= 0, begin_install);
}

void sanitize_run(struct scsi_cmd *cmd)
{
	state_change(cmd, begin_turn);
}
