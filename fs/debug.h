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

/*
 * Where the fields of a block go, in order.  What lies in an element of an array comes
 * between begin() and end(); elements are never within one another.
 */
struct debug_sink {
	/* First. @type: NULL no metadata of LunFS; @wrong: NULL, or why it is not valid. */
	void (*block)(struct debug_sink *sink, uint64_t addr, const char *type,
		      const char *wrong);
	void (*number)(struct debug_sink *sink, const char *name, enum debug_kind kind,
		       uint64_t value);
	void (*text)(struct debug_sink *sink, const char *name, enum debug_kind kind,
		     const char *value);
	void (*begin)(struct debug_sink *sink, const char *array, unsigned int index);
	void (*end)(struct debug_sink *sink);
};

/**
 * debug_walk() - every field of the block read from @addr, by name; arrays without their
 * empty elements.
 * @volume: what its header must say, or NULL; a block that fails is shown all the same.
 */
void debug_walk(struct debug_sink *sink, const void *block, uint64_t addr,
		const uint8_t *volume);

/** debug_print() - the same as text, a line for each field or element of an array. */
void debug_print(FILE *out, const void *block, uint64_t addr, const uint8_t *volume);

#endif
