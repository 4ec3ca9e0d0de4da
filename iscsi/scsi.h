/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The SCSI device server: logical units on struct blkdev, without a transport.
 *
 * The transport (session.c, conn.c) makes an I_T nexus a session, fills in a struct scsi_cmd,
 * moves data in and out of its buffer and sends what comes back.  Commands execute here
 * (SAM-5, SPC-5, SBC-4): unit attentions, reservations, mode pages, the block commands.
 *
 *	scsi_cmd_begin()  parses and checks; says how much data goes which way
 *	  (transport: provides the buffer, collects data-out)
 *	scsi_cmd_run()    executes; done() exactly once, also after an abort
 *
 * Threads: a command belongs to the reactor of its connection: begin, run and done() happen
 * there.  Logical units are shared by reactors.
 */
#ifndef LUNFS_ISCSI_SCSI_H
#define LUNFS_ISCSI_SCSI_H

#include <stdatomic.h>

#include "base/reactor.h"
#include "block/blkdev.h"

struct scsi_target;	/* the logical units that one target name offers */
struct scsi_lun;
struct scsi_nexus;	/* initiator port × target port: unit attentions, registrations */

enum {
	SCSI_CDB_MAX	= 260,	/* variable-length commands */
	SCSI_SENSE_MAX	= 252,
	SCSI_NAME_MAX	= 224,	/* iSCSI name, RFC 3720 3.2.6.1 */
	SCSI_LUNS_MAX	= 256,
};

#define SCSI_TRANSFER_MAX	(8 * MIB)	/* bytes in or out of one command */

/* SAM-5, status codes. */
enum scsi_status {
	SCSI_GOOD			= 0x00,
	SCSI_CHECK_CONDITION		= 0x02,
	SCSI_CONDITION_MET		= 0x04,
	SCSI_BUSY			= 0x08,
	SCSI_RESERVATION_CONFLICT	= 0x18,
	SCSI_TASK_SET_FULL		= 0x28,
	SCSI_ACA_ACTIVE			= 0x30,
	SCSI_TASK_ABORTED		= 0x40,
};

enum scsi_attr { SCSI_UNTAGGED, SCSI_SIMPLE, SCSI_ORDERED, SCSI_HEAD_OF_QUEUE, SCSI_ACA };

struct scsi_op;
struct scsi_shard;

/*
 * What a command holds of a logical unit, from scsi_cmd_begin() until it is done
 * (scsi_claim.h).  Scsi's own.
 */
struct scsi_claim {
	struct scsi_cmd *cmd;
	struct scsi_shard *shard;
	struct list	node;		/* begun, blocked or running, of the shard */
	struct list	exclusive_node;	/* the unit's exclusive claims */
	uint64_t	lba, end;	/* the blocks [lba, end); none if equal */
	uint64_t	watch;		/* bit n: the unit's watch n waits for it to go */
	uint8_t		state;
	bool		exclusive;	/* no write to these blocks meanwhile */
	bool		exclusive_reads; /* and no read */
	bool		writes;
	bool		aborted;
	bool		aborted_by_other; /* by another nexus: TAS decides what its initiator hears */
};

/* One command.  The transport allocates it (from its pool) and owns it throughout. */
struct scsi_cmd {
	/* the transport's, before scsi_cmd_begin() */
	struct scsi_nexus *nexus;
	struct reactor	*reactor;
	uint8_t		lun[8];		/* SAM-5 LUN as received */
	uint8_t		cdb[SCSI_CDB_MAX];
	unsigned int	cdb_len;
	enum scsi_attr	attr;
	uint64_t	tag;		/* names it in a task management function */
	uint32_t	expected_out;	/* bytes the initiator says it sends (EDTL) */
	uint32_t	expected_in;	/* bytes the initiator has room for */
	void		(*done)(struct scsi_cmd *cmd);

	/* set by scsi_cmd_begin() */
	uint32_t	out_len;	/* data-out bytes that the command takes, <= expected_out */
	uint32_t	out_want;	/* what the CDB asks for: residuals come from this */
	uint32_t	in_max;		/* room needed for data-in, <= expected_in */

	/*
	 * the transport's, before scsi_cmd_run(): the buffer.  Each base is aligned to
	 * 4096 and each length but the last a multiple of it.  Holds out_len bytes collected,
	 * and/or has room for in_max (a bidirectional command would use one after the other;
	 * there are none here).  The memory behind the last length reaches to the next
	 * multiple of 4096: blocks are read whole, also where only 200 bytes were asked for.
	 * During the command the last length may change; afterwards it is as before.
	 */
	struct iovec	*iov;
	int		iovcnt;

	/* results, when done() is called */
	enum scsi_status status;
	uint32_t	in_len;		/* bytes of data-in in the buffer */
	uint32_t	in_want;	/* what the CDB asked for: residuals come from this */
	uint8_t		sense[SCSI_SENSE_MAX];
	unsigned int	sense_len;
	bool		aborted;	/* by a task management function: send no response */

	/* scsi's own */
	struct scsi_lun	*unit;
	const struct scsi_op *op;
	struct scsi_claim claim;
	struct reactor_call call;	/* what another thread has done for the command is over */
	void		(*next)(struct scsi_cmd *cmd, int err);
	int		err;
	struct blk_io	io;
	struct iovec	piece;		/* of a step that uses a buffer of ours */
	void		*scratch;
	struct list	wait;		/* for a buffer, or for a turn to change the state */
	uint64_t	lba;
	uint64_t	blocks;
	int32_t		pad;		/* bytes by which the last iovec was lengthened */
	uint64_t	walk[6];	/* where a command of several steps is */
	void		*own;		/* allocated by a rare command, freed when it ends */
};

/**
 * scsi_cmd_begin() - parses and checks a command.
 * Return: true: provide the buffer and call scsi_cmd_run() (out_len and in_max may be 0);
 * false: finished, results are set, done() is not called.
 */
bool scsi_cmd_begin(struct scsi_cmd *cmd);

/**
 * scsi_cmd_run() - executes; done() is called once, perhaps before this returns.
 * A command that a task management function ended meanwhile is done at once.
 */
void scsi_cmd_run(struct scsi_cmd *cmd);

/**
 * scsi_cmd_cancel() - a begun command whose data-out never came (connection lost); done() is
 * not called.  After scsi_cmd_run() use scsi_tmf() instead.
 */
void scsi_cmd_cancel(struct scsi_cmd *cmd);

/* SAM-5 task management functions, by the codes of RFC 7143 11.5.1. */
enum scsi_tmf_fn {
	SCSI_TMF_ABORT_TASK = 1, SCSI_TMF_ABORT_TASK_SET = 2, SCSI_TMF_CLEAR_ACA = 3,
	SCSI_TMF_CLEAR_TASK_SET = 4, SCSI_TMF_LUN_RESET = 5, SCSI_TMF_TARGET_WARM_RESET = 6,
	SCSI_TMF_TARGET_COLD_RESET = 7, SCSI_TMF_QUERY_TASK = 8, SCSI_TMF_QUERY_TASK_SET = 9,
	SCSI_TMF_I_T_NEXUS_RESET = 10, SCSI_TMF_QUERY_ASYNC = 11,
};

/* RFC 7143 11.6.1 */
enum scsi_tmf_response {
	SCSI_TMF_COMPLETE = 0, SCSI_TMF_NO_TASK = 1, SCSI_TMF_NO_LUN = 2,
	SCSI_TMF_UNSUPPORTED = 5, SCSI_TMF_SUCCEEDED = 7 /* RFC 7144: a query found something */,
	SCSI_TMF_REJECTED = 255,
};

struct scsi_tmf {
	enum scsi_tmf_fn fn;
	struct scsi_nexus *nexus;
	struct reactor	*reactor;
	uint8_t		lun[8];
	uint64_t	tag;		/* ABORT TASK, QUERY TASK */
	void		(*done)(struct scsi_tmf *tmf);
	enum scsi_tmf_response response;
	struct reactor_call call;	/* scsi's own */
	unsigned int	unit;		/* number of the next one */
	atomic_uint	left;		/* units whose commands are waited for, and one */
};

/**
 * scsi_tmf() - executes a task management function.
 *
 * done() is called in the reactor once every command it affects (of other nexuses too) is
 * accounted for: none can reach the device any more.  Each affected command's own done()
 * comes before, with aborted set or TASK ABORTED as the control mode page's TAS says; but not
 * for commands that are begun and not yet run: they end when they are run or cancelled, and
 * do nothing any more.
 */
void scsi_tmf(struct scsi_tmf *tmf);

/**
 * scsi_nexus_open() - an initiator port logs in to a target port.
 * @initiator: iSCSI name; @isid: 6 bytes; together the initiator port (TransportID).
 * @portal_group: the target port's relative identifier.
 * Raises POWER ON OCCURRED on each logical unit.  Return: 0, -ENOMEM.
 */
int scsi_nexus_open(struct scsi_target *target, const char *initiator, const uint8_t isid[6],
		    uint16_t portal_group, struct scsi_nexus **out);

/** scsi_nexus_close() - I_T nexus loss.  All its commands are done.  Reservations stay (SPC-5). */
void scsi_nexus_close(struct scsi_nexus *nexus);

/*
 * What one logical unit stands on.  open() is called once for each reactor: each gets a
 * handle of its own, so that no thread switch lies between socket and device
 * (blkdev_set_polled(), or completions are posted to the reactor where that is refused).
 */
struct scsi_backing {
	int (*open)(void *arg, struct reactor *r, struct blkdev **out);
	/*
	 * NULL; or told by scsi_lun_remove() when no command finds the unit any more and those under
	 * way are aborted: what waits in it for something may end with an error, which nobody sees.
	 */
	void (*abandon)(void *arg);
	void *arg;
};

struct scsi_lun_config {
	const char	*name;		/* file or device, for messages */
	struct scsi_backing backing;
	uint32_t	block_size;	/* 512 or 4096 */
	uint32_t	physical_block_size; /* what initiators shall align to; 0: block_size */
	uint64_t	size;		/* bytes; the backing may grow (scsi_lun_refresh()) */
	bool		read_only;
	bool		thin;		/* unmap frees space; logical block provisioning reported */
	bool		write_cache;	/* WCE: completed writes need SYNCHRONIZE CACHE */
	uint8_t		naa[16];	/* NAA 6 designator, unique and stable */
	char		serial[37];
	bool		removable;	/* START STOP UNIT may eject the medium */
	uint64_t	sanitize_bps;	/* SANITIZE writes that many bytes a second; 0: a default */
	/*
	 * What persists through power loss (reservations with APTPL, saved mode pages, a
	 * SANITIZE under way): a regular file, opened for reading and writing, borrowed until
	 * the target is destroyed; scsi_state.h has its format.  -1: nothing persists, and
	 * APTPL is refused.
	 */
	int		state_fd;
};

/** scsi_target_create() - @reactors: those whose connections will issue commands. */
int scsi_target_create(struct env *env, const char *iqn, struct reactor **reactors,
		       unsigned int reactor_count, struct scsi_target **out);
void scsi_target_destroy(struct scsi_target *target);

/** scsi_lun_add() - offers a logical unit under @number.  Return: 0 or -errno, with a log line. */
int scsi_lun_add(struct scsi_target *target, unsigned int number,
		 const struct scsi_lun_config *config);

/**
 * scsi_lun_remove() - offers it no longer: its commands are aborted, later ones find no such unit,
 * and initiators hear REPORTED LUNS DATA HAS CHANGED by any other unit.  Its number is free again.
 * @out: receives the unit, for scsi_lun_close(), which is to follow.
 * Return: 0, -ENOENT.  Context: no reactor; the device is not waited for.
 */
int scsi_lun_remove(struct scsi_target *target, unsigned int number, struct scsi_lun **out);

/**
 * scsi_lun_close() - waits for the device to answer all that a removed unit has sent, and gives up
 * what the unit stands on, which is the caller's to close then.  Its reservations stay in its state
 * file.  @lun must not be used afterwards.
 * @patience_ns: how long to wait; ENV_FOREVER.
 * Return: 0; -ETIMEDOUT the device has not answered: nothing has changed, to be called again.
 * Context: blocks, no reactor, one thread at a time.
 */
int scsi_lun_close(struct scsi_lun *lun, uint64_t patience_ns);

#define SCSI_HANG_NS	(10 * NSEC_PER_SEC)	/* a device that takes longer is said to hang */

/* A registration of a persistent reservation, as an administrator sees it. */
struct scsi_registration {
	uint64_t	key;
	char		initiator[SCSI_NAME_MAX];
	uint8_t		isid[6];
	bool		holds;		/* the reservation */
};

struct scsi_lun_status {
	char		name[256];	/* file or device, perhaps cut */
	uint64_t	size;		/* bytes */
	uint32_t	block_size;
	bool		read_only, thin, write_cache;
	uint8_t		reservation;	/* type, SPC-5 table 64; 0: none */
	bool		persists;	/* through a power loss (APTPL) */
	unsigned int	registration_count;
	struct scsi_registration *registrations;	/* the caller frees them */
};

/** scsi_lun_status() - a snapshot.  Return: 0, -ENOENT, -ENOMEM.  Context: no reactor. */
int scsi_lun_status(struct scsi_target *target, unsigned int number, struct scsi_lun_status *out);

/** scsi_lun_refresh() - re-reads the backing's size; CAPACITY DATA HAS CHANGED if it grew. */
int scsi_lun_refresh(struct scsi_target *target, unsigned int number);

#endif
