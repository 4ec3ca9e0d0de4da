/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metadata blocks by name and field, for people: `lunfs debug`.
 *
 * The tables here name every field as docs/FORMAT.md does; a test compares the two.
 */
#ifndef LUNFS_FS_DEBUG_H
#define LUNFS_FS_DEBUG_H

#include <stdio.h>

#include "fs/format.h"

enum debug_kind {
	DEBUG_DEC,	/* a number */
	DEBUG_HEX,
	DEBUG_ADDR,	/* byte address */
	DEBUG_SIZE,	/* bytes, with a unit beside */
	DEBUG_TIME,	/* ns since 1970 */
	DEBUG_UUID,
	DEBUG_TEXT,	/* NUL-padded */
	DEBUG_MODE,	/* octal */
	DEBUG_ID,	/* inode id: number and generation */
	DEBUG_POINTER,	/* block pointer: block and birth */
	DEBUG_MAGIC,
	DEBUG_ARRAY,	/* printed by code of its own, or reserved */
};

struct debug_field {
	const char *name;
	uint16_t off, size;
	enum debug_kind kind;
};

struct debug_struct {
	const char *name;		/* as in the headers: "super_disk" */
	size_t size;
	const struct debug_field *fields;
	unsigned int count;
};

/** debug_structs() - all that FORMAT.md has a table for. */
const struct debug_struct *debug_structs(unsigned int *count);

/**
 * debug_print() - the block read from @addr, every field by name, arrays in short.
 * @volume: what its header must say, or NULL; a block that fails is printed all the same,
 * with what is wrong.
 */
void debug_print(FILE *out, const void *block, uint64_t addr, const uint8_t *volume);

#endif
