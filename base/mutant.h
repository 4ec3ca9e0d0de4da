/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deliberate breakages of the rules, to show that the tests notice (`make mutants`).
 *
 * Compiled to nothing unless LUNFS_MUTANTS is defined, which no build that is installed does;
 * then the environment variable LUNFS_MUTANT selects one.
 */
#ifndef LUNFS_BASE_MUTANT_H
#define LUNFS_BASE_MUTANT_H

#ifdef LUNFS_MUTANTS
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static inline bool mutant_is(const char *name)
{
	static const char *chosen;

	if (!chosen) {
		chosen = getenv("LUNFS_MUTANT");
		chosen = chosen ? chosen : "";
	}
	return strcmp(chosen, name) == 0;
}
#define MUTANT(name)	mutant_is(name)
#else
#define MUTANT(name)	false
#endif

#endif
