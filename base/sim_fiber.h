/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fibers: stacks of their own that run in turn on one thread, known to the sanitizers.
 * What env_sim.c makes its simulated threads of; nobody else includes this.
 */
#ifndef LUNFS_BASE_SIM_FIBER_H
#define LUNFS_BASE_SIM_FIBER_H

#include "base/types.h"

#define FIBER_STACK_SIZE	(256 * 1024)	/* below it lies a guard page */

struct fiber;

/** fiber_new_thread() - stands for the thread that calls fiber_switch() from it. */
struct fiber *fiber_new_thread(void);

/** fiber_new() - one with a stack of its own, and nothing to do yet; aborts when out of memory. */
struct fiber *fiber_new(void);

/** fiber_free() - @f, which is not running; what it was in the middle of is forgotten. */
void fiber_free(struct fiber *f);

/**
 * fiber_begin() - @f will run @fn(@arg) when next switched to.  When @fn returns, whoever
 * switched to it last goes on, and @f may be given something else to do.
 */
void fiber_begin(struct fiber *f, void (*fn)(void *arg), void *arg);

/** fiber_switch() - leaves @from, which is running, and goes on in @to. */
void fiber_switch(struct fiber *from, struct fiber *to);

/** fiber_leaks_are_expected() - no leak check when this process ends (a no-op elsewhere). */
void fiber_leaks_are_expected(void);

#endif
