/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of fsck.lunfs share. */
#ifndef LUNFS_TOOLS_FSCK_H
#define LUNFS_TOOLS_FSCK_H

#include <jansson.h>
#include <pthread.h>

#include "fs/check.h"
#include "fs/claim.h"

/* Bits of fsck(8). */
enum { EXIT_CLEAN = 0, EXIT_CORRECTED = 1, EXIT_ERRORS_LEFT = 4, EXIT_OPERATIONAL = 8,
       EXIT_USAGE = 16, EXIT_CANCELLED = 32 };

/* What to do about findings. */
enum fsck_mode { FSCK_CHECK, FSCK_ASK, FSCK_SAFE, FSCK_ALL };

struct undo_writer;

struct fsck {
	const char *path;
	enum fsck_mode mode;
	bool	verbose, progress, json;
	const char *undo_path, *undo_apply_path;
	struct undo_writer *undo;

	bool	repairing;		/* the volume is claimed, findings are repaired */
	bool	yes_to_all, asked;
	unsigned int replayed;		/* transactions, on a volume that is clean but for that */
	char	*not_replayed;		/* why not */
	uint64_t seen[CHECK_CODE_COUNT];
	uint64_t listed;		/* in the lists */
	char	*shown;			/* @path as it is printed in JSON: UTF-8 */
	json_t	*findings, *repairs;	/* under @mutex, as is @done */
	pthread_mutex_t mutex;
	bool	done;			/* the result was printed, or is being printed */
	bool	progress_shown;
	int	progress_fd;		/* lines for fsck(8) go there, if positive */
	const char *phase;		/* the last one that was shown … */
	unsigned int pass;		/* … and its number */
	uint64_t patience_until;	/* no progress before, unless it is asked for */
};

/* ---- fsck_report.c ---- */

/** fsck_complain() - one line on standard error. */
void fsck_complain(struct fsck *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* For struct check_params; @arg is the struct fsck. */
void fsck_report(void *arg, const struct check_finding *found);
void fsck_progress(void *arg, const char *phase, uint64_t done, uint64_t total);
bool fsck_ask(void *arg, const struct check_finding *found);

/** fsck_print_object() - @root, which it takes, as the one JSON document; NULL: no memory.
 * Return: 0; -ENOMEM; -EIO it cannot be written. */
int fsck_print_object(struct fsck *f, json_t *root);

/**
 * fsck_watch_signals() - from now on SIGINT and SIGTERM end the program with EXIT_CANCELLED, once it
 * has said what was found and repaired so far; a second one ends it without a word.  A repair that is cut
 * off is run again, a check holds nothing: nothing is tidied up.
 * Context: before any other thread is started.  Return: 0; -ENOMEM.
 */
int fsck_watch_signals(struct fsck *f);

/** fsck_print() - the result; returns the exit status. */
int fsck_print(struct fsck *f, const struct check_result *r);

/* ---- fsck_claim.c ---- */

/* The volume, opened to be written, and claimed. */
struct fsck_claim {
	struct blkdev *dev, *hb_dev;
	int	fd, lock_fd;		/* borrowed from dev; -1: not a file or block device */
	struct claim *claim;
};

/** fsck_claim_take() - opens and claims @path.  Return: 0; negative errno with @why. */
int fsck_claim_take(const char *path, struct fsck_claim *fc, char *why, size_t why_size);

/** fsck_claim_release() - see claim_release(); closes the device. */
int fsck_claim_release(struct fsck_claim *fc, bool whole);

/* ---- fsck_undo.c ---- */

/**
 * undo_create() - a new file @path for what repairs of @volume overwrite.
 * Return: 0; negative errno with @why.
 */
int undo_create(const char *path, const uint8_t volume[16], struct undo_writer **out, char *why,
		size_t why_size);
/** undo_write() - what lies at @addr, durable before the call returns. */
int undo_write(struct undo_writer *u, uint64_t addr, const void *old, size_t len);
/** undo_close() - Return: how many writes it holds. */
uint64_t undo_close(struct undo_writer *u);

struct undo_reader;

/**
 * undo_open() - the undo file at @path, of a repair of volume @s, looked through.
 * Return: 0; -EINVAL no undo file, -EBADMSG damaged, -ESTALE another volume's; with @why.
 */
int undo_open(const char *path, const struct super *s, struct undo_reader **out, char *why,
	      size_t why_size);
/** undo_count() - how many writes it holds. */
uint64_t undo_count(const struct undo_reader *u);
/**
 * undo_apply() - writes back what it holds, the last first, and flushes.  May be done again.
 * Places that whoever holds the claim needs (superblock, host slots) stay as they are.
 * Return: 0; negative errno with @why.
 */
int undo_apply(struct undo_reader *u, struct blkdev *dev, char *why, size_t why_size);
void undo_free(struct undo_reader *u);

#endif
