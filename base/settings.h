/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configuration files: "key = value" lines, "[section]" lines where there are sections, and
 * comments that begin with '#'.  Every complaint names file, line and column.
 */
#ifndef LUNFS_BASE_SETTINGS_H
#define LUNFS_BASE_SETTINGS_H

#include <stdio.h>

#include "base/types.h"

struct settings {
	/* "[name]", of line @line; NULL where files have no sections. */
	int (*section)(void *arg, const char *name, unsigned int line, char *why,
		       size_t why_size);
	/*
	 * One setting.  Return: 0; -ENOENT there is none of that name; -ENOMEM; -EINVAL a
	 * value that it cannot have; with @why.
	 */
	int (*set)(void *arg, const char *key, const char *value, char *why, size_t why_size);
	void *arg;
};

/**
 * settings_read() - hands every line of @in, of which @name tells messages, to @s.
 * @why: on failure "NAME:LINE:COLUMN: what is wrong".
 * Return: 0; -EINVAL; -ENOMEM; -EIO.
 */
int settings_read(const struct settings *s, FILE *in, const char *name, char *why,
		  size_t why_size);

#endif
