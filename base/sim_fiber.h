/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fibers: stacks of their own that run in turn on one thread, known to the sanitizers.
 * What env_sim.c makes its simulated threads of; nobody else includes this.
 */
#ifndef LUNFS_BASE_SIM_FIBER_H
#define LUNFS_BASE_SIM_FIBER_H

#include <ucontext.h>

#include "base/types.h"

#define FIBER_STACK_SIZE	(256 * 1024)	/* below it lies a guard page */

struct fiber {
	ucontext_t context;
	void *stack;		/* lowest usable byte; NULL: the thread's own stack */
	const void *bottom;	/* what AddressSanitizer knows of the stack */
	size_t size;
	void *fake_stack;	/* AddressSanitizer's, while switched away */
	void *tsan;		/* ThreadSanitizer's view of the fiber */
	struct fiber *from;	/* who switched here last */
	void (*fn)(void *arg);
	void *arg;
};

/** fiber_stack_new() - a stack for fiber_init(); aborts when out of memory. */
void *fiber_stack_new(void);
void fiber_stack_free(void *stack);

/** fiber_init_thread() - @f stands for the thread that calls fiber_switch() from it. */
void fiber_init_thread(struct fiber *f);

/** fiber_init() - @f will run @fn(@arg) on @stack when first switched to; @fn never returns. */
void fiber_init(struct fiber *f, void *stack, void (*fn)(void *arg), void *arg);

/** fiber_fini() - forgets @f, which is not running; its stack remains the caller's. */
void fiber_fini(struct fiber *f);

/** fiber_switch() - leaves @from, which is running, and goes on in @to. */
void fiber_switch(struct fiber *from, struct fiber *to);

/** fiber_leave() - the same for the last time: @from is never switched to again. */
void fiber_leave(struct fiber *from, struct fiber *to) __attribute__((noreturn));

/** fiber_leaks_are_expected() - no leak check when this process ends (a no-op elsewhere). */
void fiber_leaks_are_expected(void);

#endif
