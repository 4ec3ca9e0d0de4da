/* SPDX-License-Identifier: Apache-2.0 */
/* Verifies a whole volume and changes nothing: fsck.lunfs -n. */
#ifndef LUNFS_FS_CHECK_H
#define LUNFS_FS_CHECK_H

#include "fs/check/codes.h"
#include "fs/format.h"

#define CHECK_ENUM(symbol, number, name, severity, meaning)	CHECK_##symbol,
enum check_code { CHECK_CODES(CHECK_ENUM) CHECK_CODE_COUNT };
#undef CHECK_ENUM

enum check_severity { CHECK_NOTE, CHECK_ERROR };

/* What a code is; the same in program, manual and scripts. */
struct check_code_info {
	unsigned int number;		/* printed as LUN-0417 */
	const char *name;		/* map-entry-outside-volume */
	enum check_severity severity;
	const char *meaning;
};

const struct check_code_info *check_code_info(enum check_code code);

struct check_finding {
	enum check_code code;
	uint64_t addr;			/* of the block that shows it */
	const char *text;		/* object, expected, found; without a newline */
};

struct check_params {
	struct env *env;
	struct blkdev *dev;		/* only read */
	void (*report)(void *arg, const struct check_finding *f);
	/* Optional: @phase began, or went on to @done of @total. */
	void (*progress)(void *arg, const char *phase, uint64_t done, uint64_t total);
	void *arg;
};

struct check_result {
	struct super super;
	uint64_t errors, notes;		/* findings by severity */
	uint64_t unreadable;		/* of the errors: the device failed */
	uint32_t hosts_live;		/* slots whose heartbeat went on meanwhile */
	uint32_t hosts_silent;		/* slots taken and silent: crashed hosts */
	unsigned int transactions;	/* that replays would write; the check saw them as written */
	bool	quiet;			/* no host changed metadata meanwhile */
	uint64_t directories, files, others, orphans;
	uint64_t blocks, blocks_used;	/* of 4 KiB, in allocation groups */
};

/**
 * check_volume() - reads every metadata block of the volume and compares all with all.
 *
 * Journals are taken into account as if replayed.  Memory: about 50 bytes an inode, 4 KiB
 * for each 126 MiB of space that is partly used, and the journals' images.
 * If hosts are live it waits until two beats have passed since it began, to tell the living
 * from the dead.  Context: blocks.
 * Return: 0 the check is complete, see @r; as super_read() or -ENOMEM: with @why.
 */
int check_volume(const struct check_params *p, struct check_result *r, char *why,
		 size_t why_size);

#endif
