// SPDX-License-Identifier: Apache-2.0
/*
 * EXTENDED COPY (LID1), block to block, and RECEIVE COPY RESULTS (SPC-5, 5.18, 6.4 to 6.6).
 *
 * Each step is a read of the source or a write of the destination by a command of our own in
 * the initiator's name, claimed on that unit like any other: reservations, aborts and
 * exclusive claims of both units apply to every piece of the copy.
 */
#include <stdlib.h>

#include "iscsi/scsi_internal.h"

enum {
	COPY_HEADER	= 16,
	COPY_TARGET_LEN	= 32,
	COPY_SEGMENT_LEN = 28,
	COPY_BUFFER	= 256 * 1024,
	COPY_RESULTS_MAX = 64,		/* kept for initiators to ask for */
	COPY_DISCARD	= 3,		/* LIST ID USAGE: no identifier */
};

enum { COPY_IN_PROGRESS = 0, COPY_GOOD = 1, COPY_FAILED = 2 };

struct result {
	const struct scsi_nexus *nexus;	/* NULL: free */
	uint64_t	age;
	uint8_t		list_id;
	uint8_t		status;
	uint16_t	segments;
	uint64_t	bytes;
};

struct scsi_copies {
	struct result	results[COPY_RESULTS_MAX];	/* under the unit's mutex */
	uint64_t	age;
};

struct copy {
	struct scsi_cmd	*parent;
	struct scsi_cmd	child;
	struct iovec	iov;
	void		*buf;
	const uint8_t	*segments;
	unsigned int	target_count, segment_count;
	struct scsi_lun	*targets[COPY_TARGETS_MAX];
	bool		usable[COPY_TARGETS_MAX];
	int		result;		/* index, or -1 */

	unsigned int	segment;	/* the one under way */
	struct scsi_lun	*from, *to;
	uint64_t	from_off, to_off, left;	/* bytes */
	uint64_t	bytes;		/* copied in all */
};

static struct copy *copy_of(struct scsi_cmd *cmd)
{
	return cmd->own;
}

/* ---- results ---- */

int copies_create(struct scsi_lun *lun)
{
	lun->copies = calloc(1, sizeof(*lun->copies));
	return lun->copies ? 0 : -ENOMEM;
}

void copies_destroy(struct scsi_lun *lun)
{
	free(lun->copies);
	lun->copies = NULL;
}

void copies_forget(struct scsi_nexus *nexus)
{
	struct scsi_target *t = nexus->target;

	for (unsigned int i = 0; i < SCSI_LUNS_MAX; i++) {
		struct scsi_lun *lun = atomic_load(&t->luns[i]);

		if (!lun)
			continue;
		env_mutex_lock(t->env, &lun->mutex);
		for (unsigned int k = 0; k < COPY_RESULTS_MAX; k++)
			if (lun->copies->results[k].nexus == nexus)
				lun->copies->results[k].nexus = NULL;
		env_mutex_unlock(t->env, &lun->mutex);
	}
}

static int find_result(const struct scsi_cmd *cmd, uint8_t list_id)
{
	const struct result *r = cmd->unit->copies->results;

	for (int i = 0; i < COPY_RESULTS_MAX; i++)
		if (r[i].nexus == cmd->nexus && r[i].list_id == list_id)
			return i;
	return -1;
}

/* The place of the oldest result that is not of a copy under way. */
static int oldest(const struct scsi_copies *c)
{
	int best = -1;

	for (int i = 0; i < COPY_RESULTS_MAX; i++) {
		if (!c->results[i].nexus)
			return i;
		if (c->results[i].status != COPY_IN_PROGRESS &&
		    (best < 0 || c->results[i].age < c->results[best].age))
			best = i;
	}
	return best;
}

/* False: error set. */
static bool take_list_id(struct scsi_cmd *cmd, uint8_t list_id, unsigned int usage)
{
	struct scsi_copies *c = cmd->unit->copies;
	struct env *env = cmd->unit->target->env;
	int i;

	copy_of(cmd)->result = -1;
	if (usage == COPY_DISCARD)
		return true;
	env_mutex_lock(env, &cmd->unit->mutex);
	i = find_result(cmd, list_id);
	if (i >= 0 && c->results[i].status == COPY_IN_PROGRESS) {
		env_mutex_unlock(env, &cmd->unit->mutex);
		scsi_sense(cmd, KEY_ILLEGAL_REQUEST, ASC_OPERATION_IN_PROGRESS);
		return false;
	}
	if (i < 0)
		i = oldest(c);
	if (i >= 0)
		c->results[i] = (struct result){ .nexus = cmd->nexus, .age = ++c->age,
						 .list_id = list_id };
	env_mutex_unlock(env, &cmd->unit->mutex);
	if (i < 0)
		cmd->status = SCSI_BUSY;
	copy_of(cmd)->result = i;
	return i >= 0;
}

static void note_result(struct scsi_cmd *cmd, uint8_t status)
{
	struct copy *copy = copy_of(cmd);
	struct env *env = cmd->unit->target->env;
	struct result *r;

	if (copy->result < 0)
		return;
	env_mutex_lock(env, &cmd->unit->mutex);
	r = &cmd->unit->copies->results[copy->result];
	r->status = status;
	r->segments = (uint16_t)copy->segment;
	r->bytes = copy->bytes;
	env_mutex_unlock(env, &cmd->unit->mutex);
}

/* ---- the end ---- */

/* Units that were removed meanwhile stay for as long as the copy points to them. */
static void put_targets(struct scsi_cmd *cmd)
{
	struct copy *copy = copy_of(cmd);

	for (unsigned int i = 0; copy && i < copy->target_count; i++)
		if (copy->targets[i])
			unit_put(scsi_shard_of(copy->targets[i], cmd->reactor));
}

static void end_copy(struct scsi_cmd *cmd)
{
	note_result(cmd, cmd->status == SCSI_GOOD ? COPY_GOOD : COPY_FAILED);
	put_targets(cmd);
	free(copy_of(cmd)->buf);
	scsi_finish(cmd);
}

static void fail(struct scsi_cmd *cmd, enum scsi_asc asc)
{
	scsi_sense(cmd, KEY_COPY_ABORTED, asc);
	end_copy(cmd);
}

/* ---- one step ---- */

static void child_written(struct scsi_cmd *child);
static void next_piece(struct scsi_cmd *cmd);

static void child_io(struct scsi_cmd *child, int err)
{
	scsi_finish_err(child, err);
}

static void child_run(struct scsi_cmd *child)
{
	bool write = child->op->flags & OP_WRITES;

	rw_submit(child, write ? BLK_WRITE : BLK_READ, write ? scsi_write_flags(child, false) : 0,
		  child->blocks, child_io);
}

static const struct scsi_op child_read = {
	.flags = OP_READS | OP_MEDIUM, .run = child_run, .name = "EXTENDED COPY, source",
};
static const struct scsi_op child_write = {
	.flags = OP_WRITES | OP_MEDIUM | OP_PROTECTED, .run = child_run,
	.name = "EXTENDED COPY, destination",
};

static void start_child(struct copy *copy, const struct scsi_op *op, struct scsi_lun *lun,
			uint64_t off, uint64_t len, void (*done)(struct scsi_cmd *child))
{
	struct scsi_cmd *child = &copy->child, *parent = copy->parent;

	memset(child, 0, sizeof(*child));
	child->nexus = parent->nexus;
	child->reactor = parent->reactor;
	child->tag = parent->tag;	/* an abort of the copy is one of its step */
	child->done = done;
	child->unit = lun;
	child->op = op;
	child->lba = off / lun->block_size;
	child->blocks = len / lun->block_size;
	copy->iov = (struct iovec){ copy->buf, len };
	child->iov = &copy->iov;
	child->iovcnt = 1;
	list_init(&child->wait);
	list_init(&child->claim.node);
	list_init(&child->claim.exclusive_node);
	child->claim.cmd = child;
	child->claim.shard = scsi_shard_of(lun, child->reactor);
	child->claim.lba = child->lba;
	child->claim.end = child->lba + child->blocks;
	child->claim.writes = op == &child_write;
	unit_get(child->claim.shard);
	claim_run(child);
}

/* False: the step failed, and the copy with it. */
static bool child_succeeded(struct copy *copy)
{
	struct scsi_cmd *child = &copy->child;

	if (child->status == SCSI_GOOD && !child->aborted)
		return true;
	fail(copy->parent, ASC_THIRD_PARTY_FAILURE);
	return false;
}

/*
 * What a step calls when it is done must not start the next one from within: a device that
 * answers at once would nest them.
 */
static void after_read(struct scsi_cmd *cmd, int err)
{
	struct copy *copy = copy_of(cmd);

	(void)err;
	if (child_succeeded(copy))
		start_child(copy, &child_write, copy->to, copy->to_off, copy->iov.iov_len,
			    child_written);
}

static void child_have_read(struct scsi_cmd *child)
{
	struct copy *copy = container_of(child, struct copy, child);

	scsi_post(copy->parent, after_read, 0);
}

static void after_write(struct scsi_cmd *cmd, int err)
{
	struct copy *copy = copy_of(cmd);
	uint64_t len = copy->iov.iov_len;

	(void)err;
	if (!child_succeeded(copy))
		return;
	copy->from_off += len;
	copy->to_off += len;
	copy->left -= len;
	copy->bytes += len;
	next_piece(cmd);
}

static void child_written(struct scsi_cmd *child)
{
	struct copy *copy = container_of(child, struct copy, child);

	scsi_post(copy->parent, after_write, 0);
}

/* ---- segments ---- */

static bool in_range(const struct scsi_lun *lun, uint64_t lba, uint64_t blocks)
{
	uint64_t size = atomic_load(&lun->blocks);

	return lba <= size && blocks <= size - lba;
}

/* Sets what the segment copies.  False: it cannot. */
static bool open_segment(struct copy *copy, enum scsi_asc *why)
{
	const uint8_t *s = copy->segments + (size_t)copy->segment * COPY_SEGMENT_LEN;
	unsigned int from = get_be16(s + 4), to = get_be16(s + 6);
	uint64_t blocks = get_be16(s + 10), from_lba = get_be64(s + 12), to_lba = get_be64(s + 20);
	uint32_t from_bs, to_bs;

	*why = ASC_COPY_TARGET_UNREACHABLE;
	if (from >= copy->target_count || to >= copy->target_count ||
	    !copy->usable[from] || !copy->usable[to])
		return false;
	copy->from = copy->targets[from];
	copy->to = copy->targets[to];
	from_bs = copy->from->block_size;
	to_bs = copy->to->block_size;
	/* DC: the count is of destination blocks. */
	copy->left = blocks * (s[1] & 0x02 ? to_bs : from_bs);
	*why = ASC_NONE;
	if (copy->left % from_bs || copy->left % to_bs ||
	    !in_range(copy->from, from_lba, copy->left / from_bs) ||
	    !in_range(copy->to, to_lba, copy->left / to_bs))
		return false;
	copy->from_off = from_lba * from_bs;
	copy->to_off = to_lba * to_bs;
	return true;
}

static void next_piece(struct scsi_cmd *cmd)
{
	struct copy *copy = copy_of(cmd);
	enum scsi_asc why;

	if (scsi_was_aborted(cmd)) {
		fail(cmd, ASC_NONE);
		return;
	}
	while (!copy->left) {
		copy->segment++;
		if (copy->segment == copy->segment_count) {
			end_copy(cmd);
			return;
		}
		if (!open_segment(copy, &why)) {
			fail(cmd, why);
			return;
		}
	}
	start_child(copy, &child_read, copy->from, copy->from_off,
		    copy->left < COPY_BUFFER ? copy->left : COPY_BUFFER, child_have_read);
}

/* ---- parameters ---- */

static struct scsi_lun *find_unit(struct scsi_target *t, const uint8_t *naa)
{
	for (unsigned int i = 0; i < SCSI_LUNS_MAX; i++) {
		struct scsi_lun *lun = atomic_load(&t->luns[i]);

		if (lun && !memcmp(lun->config.naa, naa, 16))
			return lun;
	}
	return NULL;
}

/* Identification descriptors (E4h), whose LU ID TYPE has no meaning.  False: error set. */
static bool parse_target(struct scsi_cmd *cmd, const uint8_t *list, unsigned int i)
{
	const unsigned int off = COPY_HEADER + i * COPY_TARGET_LEN;
	const uint8_t *d = list + off;
	struct copy *copy = copy_of(cmd);

	if (d[0] != 0xe4) {
		scsi_sense(cmd, KEY_ILLEGAL_REQUEST, ASC_UNSUPPORTED_COPY_TARGET);
		return false;
	}
	if (d[1] & 0x1f) {	/* a disk */
		scsi_bad_param(cmd, off + 1, 4);
		return false;
	}
	if (!(d[1] & 0x20) && (d[4] & 0x0f) == 1 && (d[5] & 0x3f) == 3 && d[7] == 16)
		copy->targets[i] = find_unit(cmd->nexus->target, d + 8);
	if (copy->targets[i])
		unit_get(scsi_shard_of(copy->targets[i], cmd->reactor));
	/* NUL, or nobody of ours: what uses it cannot be reached. */
	copy->usable[i] = copy->targets[i] && (!get_be24(d + 29) ||
			  get_be24(d + 29) == copy->targets[i]->block_size);
	return true;
}

static bool parse_lists(struct scsi_cmd *cmd, const uint8_t *list)
{
	uint32_t target_len = get_be16(list + 2), segment_len = get_be32(list + 8);
	struct copy *copy = copy_of(cmd);

	if (get_be32(list + 12)) {	/* inline data */
		scsi_bad_param(cmd, 12, -1);
		return false;
	}
	if (segment_len > cmd->out_len || COPY_HEADER + target_len + segment_len > cmd->out_len ||
	    target_len % COPY_TARGET_LEN) {
		scsi_sense(cmd, KEY_ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH);
		return false;
	}
	if (target_len / COPY_TARGET_LEN > COPY_TARGETS_MAX) {
		scsi_sense(cmd, KEY_ILLEGAL_REQUEST, ASC_TOO_MANY_COPY_TARGETS);
		return false;
	}
	copy->target_count = target_len / COPY_TARGET_LEN;
	if (segment_len / COPY_SEGMENT_LEN > COPY_SEGMENTS_MAX) {
		scsi_sense(cmd, KEY_ILLEGAL_REQUEST, ASC_TOO_MANY_COPY_SEGMENTS);
		return false;
	}
	for (unsigned int i = 0; i < copy->target_count; i++)
		if (!parse_target(cmd, list, i))
			return false;
	copy->segments = list + COPY_HEADER + target_len;
	for (uint32_t off = 0; off < segment_len; off += COPY_SEGMENT_LEN) {
		const uint8_t *s = copy->segments + off;

		if (s[0] != 0x02) {
			scsi_sense(cmd, KEY_ILLEGAL_REQUEST, ASC_UNSUPPORTED_COPY_SEGMENT);
			return false;
		}
		if (segment_len - off < COPY_SEGMENT_LEN || get_be16(s + 2) != 24) {
			scsi_bad_param(cmd, COPY_HEADER + target_len + off + 2, -1);
			return false;
		}
		copy->segment_count++;
	}
	return true;
}

bool copy_begin(struct scsi_cmd *cmd)
{
	uint32_t len = get_be32(cmd->cdb + 10);

	if (len && (len < COPY_HEADER || len > COPY_HEADER + COPY_LIST_MAX ||
		    len > cmd->expected_out)) {
		scsi_sense(cmd, KEY_ILLEGAL_REQUEST, ASC_PARAMETER_LIST_LENGTH);
		return false;
	}
	scsi_want_out(cmd, len);
	return true;
}

void copy_run(struct scsi_cmd *cmd)
{
	const uint8_t *list;
	struct copy *copy;
	enum scsi_asc why;

	if (!cmd->out_len) {
		scsi_finish(cmd);
		return;
	}
	list = scsi_params(cmd, COPY_HEADER);
	copy = list ? calloc(1, sizeof(*copy)) : NULL;
	cmd->own = copy;
	if (list && !copy)
		scsi_fail_err(cmd, -ENOMEM);
	if (!copy || !parse_lists(cmd, list) || !take_list_id(cmd, list[0], list[1] >> 3 & 3)) {
		put_targets(cmd);
		scsi_finish(cmd);
		return;
	}
	copy->parent = cmd;
	copy->buf = blkdev_alloc(COPY_BUFFER);
	if (!copy->buf) {
		scsi_fail_err(cmd, -ENOMEM);
		end_copy(cmd);
	} else if (!copy->segment_count) {
		end_copy(cmd);
	} else if (!open_segment(copy, &why)) {
		fail(cmd, why);
	} else {
		next_piece(cmd);
	}
}

/* ---- RECEIVE COPY RESULTS ---- */

enum { RESULTS_STATUS = 0, RESULTS_PARAMETERS = 3 };

bool copy_results_begin(struct scsi_cmd *cmd)
{
	scsi_want_reply(cmd, get_be32(cmd->cdb + 10));
	return true;
}

static void report_parameters(struct scsi_cmd *cmd)
{
	uint8_t d[46] = { 0 };

	put_be32(d, sizeof(d) - 4);
	d[4] = 0x01;		/* SNLID: a copy without list identifier */
	put_be16(d + 8, COPY_TARGETS_MAX);
	put_be16(d + 10, COPY_SEGMENTS_MAX);
	put_be32(d + 12, COPY_LIST_MAX);
	put_be32(d + 16, 65535u * 4096u);	/* bytes of one segment */
	put_be16(d + 34, COPY_RESULTS_MAX);	/* concurrent copies */
	d[36] = COPY_RESULTS_MAX;
	d[37] = 9;		/* data granularity: 512 */
	d[43] = 2;		/* descriptors known: */
	d[44] = 0x02;
	d[45] = 0xe4;
	scsi_reply(cmd, d, sizeof(d), get_be32(cmd->cdb + 10));
}

static void report_status(struct scsi_cmd *cmd)
{
	struct env *env = cmd->unit->target->env;
	struct result *r = NULL, found;
	uint8_t d[12] = { 0 };
	int i;

	env_mutex_lock(env, &cmd->unit->mutex);
	i = find_result(cmd, cmd->cdb[2]);
	if (i >= 0) {
		r = &cmd->unit->copies->results[i];
		found = *r;
		/* Told once, as SPC-5, 6.4 has it. */
		if (found.status != COPY_IN_PROGRESS)
			r->nexus = NULL;
	}
	env_mutex_unlock(env, &cmd->unit->mutex);
	if (!r) {
		scsi_bad_field(cmd, 2, -1);
		return;
	}
	put_be32(d, 8);
	d[4] = found.status;
	put_be16(d + 5, found.segments);
	d[7] = 0x01;		/* in KiB */
	put_be32(d + 8, found.bytes / KIB);
	scsi_reply(cmd, d, sizeof(d), get_be32(cmd->cdb + 10));
}

void copy_results_run(struct scsi_cmd *cmd)
{
	if ((cmd->cdb[1] & 0x1f) == RESULTS_PARAMETERS)
		report_parameters(cmd);
	else
		report_status(cmd);
	scsi_finish(cmd);
}
