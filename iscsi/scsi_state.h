/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a logical unit remembers, and how it survives a power cut.
 *
 * In force is lun->state.  Whoever changes it waits for a turn (state_change()), works on the
 * draft lun->next, makes that durable (state_commit()) and only then puts it in force under
 * unit_lock(): an initiator never hears of a change that a power cut could take back, and no
 * command sees half of one.
 *
 * The state file is two slots of SCSI_STATE_SLOT bytes.  A slot holds struct
 * scsi_state_disk; the one with the higher sequence whose CRC32C fits is valid.  They are
 * written in turn and synced, so that a torn write leaves the other one (docs/ISCSI.md).
 */
#ifndef LUNFS_ISCSI_SCSI_STATE_H
#define LUNFS_ISCSI_SCSI_STATE_H

#include "iscsi/scsi.h"

enum {
	SCSI_PR_REGS_MAX	= 256,	/* registrations of one unit */
	SCSI_STATE_SLOT		= 128 * 1024,
	SCSI_PATTERN_MAX	= 4096,	/* of SANITIZE: one block */
};

/* SPC-5, persistent reservation types. */
enum scsi_pr_type {
	PR_NONE = 0, PR_WRITE_EXCLUSIVE = 1, PR_EXCLUSIVE_ACCESS = 3,
	PR_WRITE_EXCLUSIVE_RO = 5, PR_EXCLUSIVE_ACCESS_RO = 6,
	PR_WRITE_EXCLUSIVE_AR = 7, PR_EXCLUSIVE_ACCESS_AR = 8,
};

struct scsi_pr_reg {
	uint64_t	key;
	char		name[SCSI_NAME_MAX];
	uint8_t		isid[6];
	uint16_t	port;		/* relative target port; without meaning if all_ports */
	bool		all_ports;
};

struct scsi_pr {
	uint32_t	generation;
	bool		aptpl;
	uint8_t		type;		/* enum scsi_pr_type */
	uint16_t	holder;		/* index of the one holder, unless all registrants hold */
	uint16_t	count;
	struct scsi_pr_reg regs[SCSI_PR_REGS_MAX];
};

/* What MODE SELECT changes. */
struct scsi_mode {
	bool		wce, d_sense, swp, tas;
};

enum { SANITIZE_NONE = 0, SANITIZE_OVERWRITE = 1, SANITIZE_BLOCK_ERASE = 2 };

struct scsi_sanitize_state {
	uint8_t		method;		/* SANITIZE_NONE: none under way */
	bool		failed;		/* the last one failed; method says which it was */
	bool		ause;		/* failure mode may be left without another one */
	bool		invert;
	uint8_t		passes;		/* of OVERWRITE */
	uint32_t	pattern_len;
	uint8_t		pattern[SCSI_PATTERN_MAX];
};

struct scsi_state {
	uint64_t	sequence;
	struct scsi_pr	pr;
	struct scsi_mode mode;		/* in force */
	struct scsi_mode saved;
	struct scsi_sanitize_state sanitize;
};

/** state_encode() - @state as it lies in a slot; returns the bytes used. */
size_t state_encode(const struct scsi_state *state, const uint8_t naa[16], void *slot);

/**
 * state_decode() - believes a slot or not.
 * Return: 0; -ENOENT empty; -EBADMSG checksum; -EUCLEAN a field out of range, or of another
 * unit; @state is untouched then.
 */
int state_decode(const void *slot, const uint8_t naa[16], struct scsi_state *state);

/**
 * state_load() - the state of @lun from its file, at start; an empty file is a fresh unit.
 * Return: 0; -EUCLEAN neither slot can be believed although there is something: reservations
 * may be lost, so the unit is not offered; -errno of pread().  With a log line.
 */
int state_load(struct scsi_lun *lun);

int state_open(struct scsi_lun *lun);	/* starts the thread that writes */
void state_close(struct scsi_lun *lun);

/** state_change() - calls @fn in the reactor when it is @cmd's turn; lun->next is a copy. */
void state_change(struct scsi_cmd *cmd, void (*fn)(struct scsi_cmd *cmd, int err));
/** state_commit() - makes lun->next durable if @persist, then @next; the turn is kept. */
void state_commit(struct scsi_cmd *cmd, bool persist, void (*next)(struct scsi_cmd *cmd, int err));
/** state_release() - ends the turn. */
void state_release(struct scsi_lun *lun);

/** state_work() - runs @work(@cmd), which may block, in the unit's thread, then @next. */
void state_work(struct scsi_cmd *cmd, int (*work)(struct scsi_cmd *cmd),
		void (*next)(struct scsi_cmd *cmd, int err));

#endif
