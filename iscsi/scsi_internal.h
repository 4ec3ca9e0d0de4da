/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the SCSI device server share.
 *
 * A logical unit is spread over its shards, one for each reactor: a device handle of its own,
 * the commands that execute there, a mutex.  What is common to the unit (reservations, mode
 * pages, exclusive claims) is read with any one shard's mutex held and changed with all of
 * them (unit_lock()): a command pays one uncontended mutex and yet nothing changes between
 * its checks and its entry among the running ones.
 *
 * Order of locks: target->mutex, lun->mutex, the shards' by index.
 */
#ifndef LUNFS_ISCSI_SCSI_INTERNAL_H
#define LUNFS_ISCSI_SCSI_INTERNAL_H

#include <errno.h>
#include <stdatomic.h>

#include "base/bytes.h"
#include "iscsi/scsi.h"
#include "iscsi/scsi_sense.h"
#include "iscsi/scsi_state.h"

enum {
	SCSI_SCRATCH_LEN	= 64 * 1024,	/* a buffer for commands of several steps */
	SCSI_SCRATCH_MAX	= 8,		/* of them in a shard */
	SCSI_BATCH_MAX		= 64,
	SCSI_BATCH_BYTES	= 512 * 1024,	/* of a batch, about */
	SCSI_WATCHES		= 64,
	SCSI_PARAM_LEN_MAX	= 4096,		/* parameter lists are contiguous in iov[0] */
	SCSI_REPLY_LEN_MAX	= 128 * 1024,	/* of data-in that is not blocks */
	COPY_TARGETS_MAX	= 16,		/* of one EXTENDED COPY */
	COPY_SEGMENTS_MAX	= 32,
	COPY_LIST_MAX		= COPY_TARGETS_MAX * 32 + COPY_SEGMENTS_MAX * 28,
	SCSI_PORTS_MAX		= 64,		/* target ports that have been seen */
};

#define SCSI_ATOMIC_MAX		(MIB)		/* of one WRITE ATOMIC */
#define SCSI_WRITE_SAME_MAX	(16 * MIB)	/* and fewer than 65536 blocks */
#define SCSI_UNMAP_BLOCKS_MAX	(1u << 20)	/* of one UNMAP */
#define SCSI_SANITIZE_BPS	(256 * MIB)	/* unless configured */

/* ---- nexuses ---- */

/* Unit attention conditions, those reported first first (SAM-5, 5.14). */
enum scsi_ua {
	UA_POWER_ON, UA_RESET, UA_NEXUS_LOSS, UA_COMMANDS_CLEARED, UA_MEDIUM, UA_CAPACITY,
	UA_MODE, UA_RESERVATIONS_PREEMPTED, UA_RESERVATIONS_RELEASED, UA_REGISTRATIONS_PREEMPTED,
	UA_LUNS, UA_COUNT,
};

/* What a reservation keeps a nexus from. */
enum scsi_deny {
	DENY_READ	= 1 << 0,
	DENY_WRITE	= 1 << 1,
	DENY_ALL	= 1 << 2,	/* RESERVE(6), RESERVE(10) of another nexus */
};

/* One nexus and one logical unit (I_T_L). */
struct scsi_itl {
	_Atomic uint32_t ua;	/* 1 << enum scsi_ua: pending */
	atomic_bool	lost;	/* a flush failed: its next SYNCHRONIZE CACHE says so (R7) */
	uint8_t		deny;	/* enum scsi_deny; as all of the unit's common state */
	bool		registered;
	bool		preempted;	/* its commands end: see scsi_pr_out.c */
	bool		prevent;	/* PREVENT ALLOW MEDIUM REMOVAL */
	_Atomic uint64_t conflict_log_ns; /* no line about conflicts before that */
};

struct scsi_nexus {
	struct scsi_target *target;
	struct list	node;
	char		name[SCSI_NAME_MAX];
	uint8_t		isid[6];
	uint16_t	port;
	struct scsi_itl	itl[SCSI_LUNS_MAX];
};

/* ---- logical units ---- */

enum claim_state { CLAIM_NONE, CLAIM_BEGUN, CLAIM_BLOCKED, CLAIM_RUNNING };

/* A logical unit at one reactor. */
struct scsi_shard {
	struct scsi_lun	*lun;
	struct reactor	*reactor;
	struct blkdev	*dev;
	bool		polled;
	struct reactor_fd fd;
	struct reactor_poller poller;
	struct reactor_end end;
	struct blk_io	*batch[SCSI_BATCH_MAX];
	unsigned int	batch_count;

	/* the reactor's own: buffers for commands of several steps */
	void		*scratch[SCSI_SCRATCH_MAX];
	unsigned int	scratch_free, scratch_made;
	struct list	scratch_waiters;	/* scsi_cmd.wait */
	unsigned int	users;		/* commands from begin to end, and who else points here */
	bool		leaving;	/* the unit was removed: it goes with the last of them */

	struct env_mutex mutex;
	struct list	begun, blocked, running;	/* scsi_claim.node */
	struct reactor_call wake;	/* blocked ones try again */
};

/* Somebody waits until some claims are gone. */
struct scsi_watch {
	unsigned int	count;		/* claims still there */
	bool		used;
	struct reactor	*reactor;
	struct reactor_call *call;	/* posted there when the last one went */
	atomic_uint	*left;		/* if not NULL: only if this, one less, is 0 */
};

/* SANITIZE under way (scsi_sanitize.c). */
struct scsi_sanitize;

struct scsi_lun {
	struct scsi_target *target;
	unsigned int	number;
	char		name[256];
	struct scsi_lun_config config;
	uint32_t	block_size;
	unsigned int	shard_count;
	struct scsi_shard *shards;

	_Atomic uint64_t blocks;	/* grows, never shrinks while it is offered */

	/* under unit_lock(), read under any shard's mutex */
	struct scsi_state state;	/* what may persist, as in force */
	/* state.mode once more, for those without a mutex */
	atomic_bool	descriptor_sense, write_cache, task_aborted_status, write_protected;
	bool		ejected;
	bool		removed;	/* from the target; nothing is admitted any more */
	uint64_t	removed_ns;
	bool		told_hang;	/* by scsi_lun_close() */
	struct list	removed_node;
	atomic_uint	shards_left;	/* of a removed unit: shards with users, and its remover */
	const struct scsi_nexus *reserved_by;	/* RESERVE(6), (10) */
	struct list	exclusive;	/* claims */
	unsigned int	exclusive_count;
	struct scsi_watch watches[SCSI_WATCHES];
	_Atomic uint32_t sanitize_progress;	/* of 65536 */

	struct env_mutex mutex;		/* taken first by unit_lock() */

	/* one at a time changes the state (scsi_state.c); all under mutex */
	struct scsi_cmd	*state_owner;
	struct list	state_waiters;	/* scsi_cmd.wait */
	struct scsi_state next;		/* the owner's draft */
	struct scsi_jobs *jobs;
	struct scsi_sanitize *sanitize;
	struct scsi_copies *copies;	/* results of EXTENDED COPY */
};

struct scsi_target {
	struct env	*env;
	char		iqn[SCSI_NAME_MAX];
	struct reactor	**reactors;
	unsigned int	reactor_count;
	_Atomic(struct scsi_lun *) luns[SCSI_LUNS_MAX];
	uint8_t		op_first[256];	/* index into the operations; 255: none */

	struct env_mutex mutex;
	struct list	nexuses;
	/* Commands that have not run yet may still point to these: freed with the last of them. */
	struct list	removed_luns;
	uint16_t	ports[SCSI_PORTS_MAX];
	unsigned int	port_count;
};

/* ---- scsi_op.c: what commands there are ---- */

enum scsi_op_flags {
	OP_ANY_LUN	= 1 << 0,	/* also where there is no logical unit */
	OP_NO_UA	= 1 << 1,	/* does not report unit attentions */
	OP_READS	= 1 << 2,	/* refused where reservations deny reading */
	OP_WRITES	= 1 << 3,	/* refused where reservations deny writing */
	OP_RESERVED_OK	= 1 << 4,	/* allowed while another has reserved by RESERVE(6) */
	OP_MEDIUM	= 1 << 5,	/* wants a medium that is ready */
	OP_PROTECTED	= 1 << 6,	/* refused on a write-protected unit */
	OP_SANITIZE_OK	= 1 << 7,	/* allowed during SANITIZE */
	OP_SANITIZE_FAILED_OK = 1 << 8,	/* allowed after a SANITIZE that failed */
	OP_THIN		= 1 << 9,	/* thin units only */
	OP_STATE	= 1 << 10,	/* needs the state file */
	OP_REMOVABLE	= 1 << 11,	/* unused where the medium cannot be removed */
	OP_NO_BUFFER	= 1 << 12,
};

#define OP_NO_SA	0xffff

struct scsi_op {
	uint8_t		opcode;
	uint16_t	sa;		/* service action, or OP_NO_SA */
	uint8_t		len;
	uint32_t	flags;
	uint32_t	timeout_s;	/* recommended, 0: none */
	/* Parses; sets what is wanted; false: finished, with an error set. */
	bool		(*begin)(struct scsi_cmd *cmd);
	/* Executes as a running command; ends with scsi_finish() sooner or later. */
	void		(*run)(struct scsi_cmd *cmd);
	uint8_t		usage[32];	/* bits that are evaluated; byte 0 is the opcode */
	const char	*name;
};

extern const struct scsi_op scsi_ops[];
extern const unsigned int scsi_op_count;

void scsi_op_index(struct scsi_target *target);
/** scsi_op_find() - the operation of a CDB; *@known tells a known opcode without such action. */
const struct scsi_op *scsi_op_find(const struct scsi_target *target, const uint8_t *cdb,
				   bool *known);
bool scsi_op_is_offered(const struct scsi_lun *lun, const struct scsi_op *op);

/* ---- scsi_claim.c: who may execute when ---- */

void unit_lock(struct scsi_lun *lun);
void unit_unlock(struct scsi_lun *lun);

/** claim_admit() - checks state and reservations; false: results are set.  Shard's mutex held. */
bool claim_admit(struct scsi_cmd *cmd);
/** claim_begin() - a command whose data is to come. Return: as claim_admit(). */
bool claim_begin(struct scsi_cmd *cmd);
/** claim_run() - enters among the running; op->run() follows at once or later. */
void claim_run(struct scsi_cmd *cmd);
/**
 * claim_extend() - a running command learns which blocks it writes, from its data; op->run()
 * is called again, at once or when no exclusive claim is in the way.
 */
void claim_extend(struct scsi_cmd *cmd, uint64_t lba, uint64_t end);
/** claim_leave() - @claim is over: the device has nothing of it.  Return: watches to notify. */
uint64_t claim_leave(struct scsi_claim *claim);
/** claim_notify() - whoever waited for a claim that has left. */
void claim_notify(struct scsi_lun *lun, uint64_t watches);
/** shard_wake() - those that were blocked try again: of struct scsi_shard's wake. */
void shard_wake(struct reactor_call *call);
/** claim_cancel() - leaves without having run. */
void claim_cancel(struct scsi_cmd *cmd);

/** unit_mark() - unit_abort() for who looks by himself when they are gone.  unit_lock() held. */
void unit_mark(struct scsi_lun *lun, bool (*affects)(const struct scsi_claim *c, void *arg),
	       void *arg, const struct scsi_nexus *by);
/**
 * unit_abort() - marks the claims for which @affects says so as aborted by @by.
 * Context: unit_lock() held.  Return: >= 0: @call is posted to @reactor when those that were
 * running or blocked are gone; -ENOENT none was; -EBUSY all watches are in use, nothing is
 * marked.
 */
int unit_abort(struct scsi_lun *lun, bool (*affects)(const struct scsi_claim *c, void *arg),
	       void *arg, const struct scsi_nexus *by, struct reactor *reactor,
	       struct reactor_call *call, atomic_uint *left);

/* ---- scsi_cmd.c ---- */

struct scsi_shard *scsi_shard_of(struct scsi_lun *lun, struct reactor *reactor);
struct scsi_lun *scsi_lun_find(const struct scsi_target *target, const uint8_t lun[8]);
static inline struct scsi_itl *scsi_itl(const struct scsi_cmd *cmd)
{
	return &cmd->nexus->itl[cmd->unit->number];
}

/** scsi_finish() - the command's end: leaves, done(), whoever waited goes on. */
void scsi_finish(struct scsi_cmd *cmd);
/** scsi_finish_err() - the same with the status and sense that @err of a device means. */
void scsi_finish_err(struct scsi_cmd *cmd, int err);
/** scsi_fail_err() - sets them. */
void scsi_fail_err(struct scsi_cmd *cmd, int err);
/** scsi_reply() - data-in of a command that is no block command: @len bytes, cut to @alloc. */
void scsi_reply(struct scsi_cmd *cmd, const void *data, size_t len, uint32_t alloc);
/** scsi_want_in()/scsi_want_out() - for begin(): the blocks that the CDB asks for. */
void scsi_want_in(struct scsi_cmd *cmd, uint64_t len);
/** scsi_want_reply() - the same of other data: @alloc may be any, no answer is that long. */
void scsi_want_reply(struct scsi_cmd *cmd, uint32_t alloc);
void scsi_want_out(struct scsi_cmd *cmd, uint64_t len);
/** scsi_params() - the parameter list, @min bytes of it; NULL: too short, error set. */
const uint8_t *scsi_params(struct scsi_cmd *cmd, uint32_t min);
/** scsi_gather() - copies @len bytes at @off of the data-out. */
void scsi_gather(const struct scsi_cmd *cmd, uint64_t off, void *to, size_t len);
/** scsi_differs() - the first of @len bytes at @off of the data-out that differs; -1: none. */
int64_t scsi_differs(const struct scsi_cmd *cmd, uint64_t off, const void *with, size_t len);
bool scsi_was_aborted(struct scsi_cmd *cmd);

/** scsi_submit() - @cmd->io, with @next called in the reactor when it is done. */
void scsi_submit(struct scsi_cmd *cmd, void (*next)(struct scsi_cmd *cmd, int err));
void scsi_submit_to(struct scsi_shard *shard, struct blk_io *io);
void shard_end(struct reactor_end *end);
/** scsi_piece() - one step on blocks of the unit through @cmd->scratch. */
void scsi_piece(struct scsi_cmd *cmd, enum blk_op op, unsigned int flags, uint64_t lba,
		uint64_t blocks, void (*next)(struct scsi_cmd *cmd, int err));
/** scsi_with_scratch() - calls @fn once @cmd->scratch is a buffer of SCSI_SCRATCH_LEN. */
void scsi_with_scratch(struct scsi_cmd *cmd, void (*fn)(struct scsi_cmd *cmd, int err));
/** scsi_post() - @next in the reactor of @cmd; from any thread. */
void scsi_post(struct scsi_cmd *cmd, void (*next)(struct scsi_cmd *cmd, int err), int err);
unsigned int scsi_write_flags(const struct scsi_cmd *cmd, bool fua);
/** scsi_check_range() - false: error set. */
bool scsi_check_range(struct scsi_cmd *cmd, uint64_t lba, uint64_t blocks);

/* ---- scsi_unit.c: logical units, nexuses, unit attentions ---- */

/** scsi_ua_raise() - for every nexus but @except.  Context: target->mutex held. */
void scsi_ua_raise(struct scsi_lun *lun, enum scsi_ua ua, const struct scsi_nexus *except);
/** scsi_ua_take() - the next pending unit attention as ASC/ASCQ, cleared; 0: none. */
uint16_t scsi_ua_take(struct scsi_itl *itl);
/**
 * unit_get() - keeps a unit's memory, also when it is removed, until unit_put().
 * Context: the shard's reactor, in the same round in which the unit was found.
 */
void unit_get(struct scsi_shard *shard);
void unit_put(struct scsi_shard *shard);
/** unit_mirror_mode() - after a change of state.mode.  unit_lock() held. */
void unit_mirror_mode(struct scsi_lun *lun);
/** unit_reset() - what a logical unit reset does beside ending commands. target->mutex, unit_lock() held. */
void unit_reset(struct scsi_lun *lun);
/** unit_refresh_denials() - after a change of reservations.  target->mutex, unit_lock() held. */
void unit_refresh_denials(struct scsi_lun *lun);

/* ---- the commands; each file's begin and run functions are named in scsi_op.c ---- */

#define SCSI_COMMAND(name) \
	bool name##_begin(struct scsi_cmd *cmd); \
	void name##_run(struct scsi_cmd *cmd)

SCSI_COMMAND(read);
SCSI_COMMAND(write);
SCSI_COMMAND(sync);
SCSI_COMMAND(prefetch);
SCSI_COMMAND(verify);
SCSI_COMMAND(write_verify);
SCSI_COMMAND(caw);
SCSI_COMMAND(orwrite);
SCSI_COMMAND(write_atomic);
SCSI_COMMAND(write_same);
SCSI_COMMAND(unmap);
SCSI_COMMAND(lba_status);
SCSI_COMMAND(capacity10);
SCSI_COMMAND(capacity16);
SCSI_COMMAND(defects);
SCSI_COMMAND(inquiry);
SCSI_COMMAND(mode_sense);
SCSI_COMMAND(mode_select);
SCSI_COMMAND(test_ready);
SCSI_COMMAND(request_sense);
SCSI_COMMAND(report_luns);
SCSI_COMMAND(report_opcodes);
SCSI_COMMAND(report_tmfs);
SCSI_COMMAND(report_ports);
SCSI_COMMAND(start_stop);
SCSI_COMMAND(prevent_allow);
SCSI_COMMAND(reserve);
SCSI_COMMAND(release);
SCSI_COMMAND(pr_in);
SCSI_COMMAND(pr_out);
SCSI_COMMAND(copy);
SCSI_COMMAND(copy_results);
SCSI_COMMAND(sanitize);

/* ---- helpers that cross files ---- */

/** rw_decode() - LBA and number of blocks of a READ, WRITE, VERIFY … CDB of any length. */
void rw_decode(const uint8_t *cdb, uint64_t *lba, uint64_t *blocks);
/** rw_begin() - decodes, checks range and length, claims; false: error set. */
bool rw_begin(struct scsi_cmd *cmd, bool writes, uint64_t bytes_max);
/** rw_trim() - cuts the data-out to whole blocks, which are returned. */
uint64_t rw_trim(struct scsi_cmd *cmd);
/** rw_submit() - the command's own buffer from or to the device. */
void rw_submit(struct scsi_cmd *cmd, enum blk_op op, unsigned int flags, uint64_t blocks,
	       void (*next)(struct scsi_cmd *cmd, int err));

/** scsi_locate() - a read or write failed with @err: finds the block and ends the command. */
void scsi_locate(struct scsi_cmd *cmd, bool write, int err);
/** vpd_designator_lun() - the unit's own NAA designator, 20 bytes; returns that. */
size_t vpd_designator_lun(const struct scsi_lun *lun, uint8_t *d);
void mode_default(const struct scsi_lun_config *config, struct scsi_mode *m);

/** pr_deny() - what reservations keep @nexus from; whether it is registered.  unit_lock() held. */
void pr_deny(const struct scsi_lun *lun, struct scsi_nexus *nexus);
/** lun_physical_exponent() - 2^n logical blocks are one physical block. */
unsigned int lun_physical_exponent(const struct scsi_lun *lun);
bool lun_is_write_protected(const struct scsi_lun *lun);

/** atomic_recover() - finishes a WRITE ATOMIC that a power cut interrupted; at start. */
int atomic_recover(struct scsi_lun *lun);
int sanitize_create(struct scsi_lun *lun);
void sanitize_resume(struct scsi_lun *lun);
/** sanitize_stop() - what runs ends with what the device has of it.  Blocks, no reactor. */
void sanitize_stop(struct scsi_lun *lun);
/** sanitize_is_running() - unit_lock() held. */
bool sanitize_is_running(const struct scsi_lun *lun);
/** sanitize_destroy() - stops it, and waits for the device. */
void sanitize_destroy(struct scsi_lun *lun);
int copies_create(struct scsi_lun *lun);
void copies_destroy(struct scsi_lun *lun);
/** copies_forget() - the results that are kept for @nexus.  target->mutex held. */
void copies_forget(struct scsi_nexus *nexus);

#endif
