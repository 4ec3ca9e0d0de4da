/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a disk must contain, block by block: which writes were acknowledged, which may have
 * happened.  In memory, or in a file, from which another run (on another host, after a crash)
 * checks the disk.
 *
 * A sector is written with its number and a generation that grows with each write, so that a
 * read finds out whether it got this one, and which life of it.  The seed is another one in
 * each ledger, so that what an earlier run left behind is not taken for this one's.
 *
 *   issue ──► ok      exactly that generation (or zeros) from now on
 *     └────► unclear  that generation or any since the last that was acknowledged
 *
 * Blocks may be used by different threads, one block by one thread at a time.
 */
#ifndef LUNFS_VHOST_BENCH_LEDGER_H
#define LUNFS_VHOST_BENCH_LEDGER_H

#include "base/types.h"

struct ledger_entry;

struct ledger {
	uint64_t	seed;
	uint64_t	offset;		/* where the part of the disk begins, bytes */
	uint64_t	blocks;
	uint32_t	block_size;	/* a multiple of 512 */
	struct ledger_entry *entries;
	void		*map;
	size_t		map_size;
};

enum ledger_op { LEDGER_WRITE, LEDGER_ZERO, LEDGER_DISCARD };

/**
 * ledger_open() - a ledger for @blocks blocks.
 * @path: NULL: in memory; else a file, which is made if it is not there.  One that is must be
 *        of the same part of the disk; its seed is taken.
 * Return: 0, or -errno with @why.
 */
int ledger_open(struct ledger *l, const char *path, uint64_t seed, uint64_t offset,
		uint64_t blocks, uint32_t block_size, char *why, size_t why_size);
void ledger_close(struct ledger *l);

/** ledger_issue() - a write of @block begins: fills @data (LEDGER_WRITE) with its contents. */
void ledger_issue(struct ledger *l, uint64_t block, enum ledger_op op, void *data);

/** ledger_done() - it was acknowledged; without this it stays unclear. */
void ledger_done(struct ledger *l, uint64_t block);

/** ledger_is_known() - whether anything was ever written to @block. */
bool ledger_is_known(const struct ledger *l, uint64_t block);

/**
 * ledger_check() - whether @data is what @block may contain.
 * Return: 0; -EBADMSG with @why: expected and found.
 */
int ledger_check(struct ledger *l, uint64_t block, const void *data, char *why,
		 size_t why_size);

#endif
