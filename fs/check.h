/* SPDX-License-Identifier: Apache-2.0 */
/* Verifies a whole volume, and repairs it if asked to: fsck.lunfs. */
#ifndef LUNFS_FS_CHECK_H
#define LUNFS_FS_CHECK_H

#include "fs/check/codes.h"
#include "fs/format.h"

#define CHECK_ENUM(symbol, number, name, severity, repair, meaning)	CHECK_##symbol,
enum check_code { CHECK_CODES(CHECK_ENUM) CHECK_CODE_COUNT };
#undef CHECK_ENUM

enum check_severity { CHECK_NOTE, CHECK_ERROR };

/* How far a repair goes; also which repairs a code needs (codes.h). */
enum check_repair {
	CHECK_REPAIR_NONE,	/* only look */
	CHECK_REPAIR_SAFE,	/* what loses nothing */
	CHECK_REPAIR_LOSS,	/* everything: what cannot be believed is given up */
};

/* What a code is; the same in program, manual and scripts. */
struct check_code_info {
	unsigned int number;		/* printed as LUN-0417 */
	const char *name;		/* map-entry-outside-volume */
	enum check_severity severity;
	enum check_repair repair;
	const char *meaning;
};

const struct check_code_info *check_code_info(enum check_code code);

struct check_finding {
	enum check_code code;
	uint64_t addr;			/* of the block that shows it */
	const char *text;		/* object, expected, found; without a newline */
	uint64_t inode;			/* online: id of the inode that it is about, or number; 0: none */
	bool	repaired;		/* is being put right, as far as the device lets us */
};

struct check_params {
	struct env *env;
	struct blkdev *dev;		/* only read, unless @repair */
	/*
	 * Repair: nobody else may use the volume meanwhile (fs/claim.h sees to that), and what
	 * was taken from dead hosts is replayed.  Every write leaves a volume that another run
	 * repairs to the same end.
	 */
	enum check_repair repair;
	/*
	 * With @repair: the caller has looked, without a claim, and found that nothing stands in
	 * the way of CHECK_REPAIR_LOSS, and so the volume is not read once more to find that out.
	 */
	bool looked;
	uint32_t own_slot;		/* with @repair: the slot of who holds the claim, or SLOT_NONE */
	uint32_t notes;			/* with @repair: the most of a kind that a round remembers; 0: usual */
	/* Optional: whether to repair this one after all (fsck(8) asks a person). */
	bool (*may_repair)(void *arg, const struct check_finding *f);
	/*
	 * Optional: [@addr, +@len) is about to be overwritten and holds @old.  An error ends the
	 * repair before the write.
	 */
	int (*before_write)(void *arg, uint64_t addr, const void *old, size_t len);
	void (*report)(void *arg, const struct check_finding *f);
	/* Optional: @phase began, or went on to @done of @total. */
	void (*progress)(void *arg, const char *phase, uint64_t done, uint64_t total);
	void *arg;
};

struct check_result {
	struct super super;
	uint64_t errors, notes;		/* findings by severity; after a repair: those left */
	uint64_t repaired;		/* findings put right, of all rounds */
	unsigned int rounds;		/* times that the volume was read: a repair goes on until
					 * it finds nothing more, or nothing that it may repair */
	uint64_t unreadable;		/* of the errors: the device failed */
	uint64_t lossy;			/* of the errors: a repair would have to give something up */
	uint32_t hosts_live;		/* slots whose heartbeat went on meanwhile */
	uint32_t hosts_silent;		/* slots taken and silent: crashed hosts */
	unsigned int transactions;	/* that replays would write; the check saw them as written */
	/* No journal got or lost a transaction meanwhile: what was read together was so together.
	 * Else findings may be transient.  A host that leaves or is recovered counts as a change. */
	bool	quiet;
	uint64_t directories, files, others, orphans;
	uint64_t blocks, blocks_used;	/* of 4 KiB, in allocation groups */
};

/**
 * check_volume() - reads every metadata block of the volume and compares all with all.
 *
 * With @p->repair it looks first (unless @p->looked), and changes nothing if hosts live, if a block cannot be read
 * (it may be whole: copy the device first), or if @p->repair is CHECK_REPAIR_SAFE and that is
 * not enough (so that nothing is done halfway).  Otherwise it puts right what it finds and begins
 * anew, until a round finds nothing that it may repair; the last one's findings are those left.
 *
 * Journals are taken into account as if replayed.  Memory: 24 bytes an inode, 24 a cluster of inodes,
 * 152 for each 126 MiB of space that is partly used and 8 to 12 for each 256 KiB of it that is, and
 * the journals' images.  A repair's is bounded, too: of mass damage each round repairs a part.
 * If hosts are live it waits until two beats have passed since it began, to tell the living
 * from the dead.  Context: blocks.
 * Return: 0 the check is complete, see @r; as super_read(), -ENOMEM, or what before_write()
 * returned: with @why.
 */
int check_volume(const struct check_params *p, struct check_result *r, char *why,
		 size_t why_size);

#endif
