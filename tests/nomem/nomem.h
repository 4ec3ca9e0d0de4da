/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that runs out on demand, for product code only.
 *
 * A test program links the product's archives with every call of an allocating function renamed
 * (tests/nomem/symbols, objcopy) to one of nomem.c; tests, CUnit and the simulated world keep
 * the real ones.  Which calls exist need not be said anywhere: each run fails one more of them,
 * until a run has none left to fail.
 */
#ifndef LUNFS_TESTS_NOMEM_H
#define LUNFS_TESTS_NOMEM_H

#include <stdbool.h>
#include <stdint.h>

/** nomem_arm() - from now on allocation number @first (1: the next) and @count - 1 after it fail. */
void nomem_arm(uint64_t first, uint64_t count);

/** nomem_disarm() - none fails any more; returns how many have since nomem_arm(). */
uint64_t nomem_disarm(void);

/** nomem_hits() - how many have failed since nomem_arm(). */
uint64_t nomem_hits(void);

/** nomem_live() - pieces of memory that product code has got and not freed.  What a test gets
 * by blkdev_alloc() counts too. */
int64_t nomem_live(void);

/** nomem_release() - free() of what product code has got and handed to the test. */
void nomem_release(void *p);

/** nomem_where() - stderr: the calls that failed last, as addresses for addr2line(1). */
void nomem_where(void);

/** nomem_note() - stdout: how many allocations failed since the last note, in calls from how many
 * places of the product so far. */
void nomem_note(const char *what);

/** nomem_threads() - threads that @env, a simulated host's, is to start count as allocations. */
struct env;
void nomem_threads(struct env *env);

#endif
