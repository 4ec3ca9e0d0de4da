// SPDX-License-Identifier: Apache-2.0
#include "base/sim_fiber.h"

#include <stdlib.h>
#include <sys/mman.h>

#define GUARD_SIZE	4096

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/lsan_interface.h>

static bool leaks_expected;

/* Asked by LeakSanitizer before its check when the process ends. */
int __lsan_is_turned_off(void)
{
	return leaks_expected;
}

void fiber_leaks_are_expected(void)
{
	leaks_expected = true;
}

static void asan_before_switch(struct fiber *from, struct fiber *to, bool for_ever)
{
	__sanitizer_start_switch_fiber(for_ever ? NULL : &from->fake_stack, to->bottom, to->size);
}

static void asan_after_switch(struct fiber *to)
{
	const void *bottom;
	size_t size;

	__sanitizer_finish_switch_fiber(to->fake_stack, &bottom, &size);
	to->fake_stack = NULL;
	if (!to->from->stack) {	/* only now the thread's own stack becomes known */
		to->from->bottom = bottom;
		to->from->size = size;
	}
}

/* A dead fiber leaves the red zones of its last frames behind. */
static void asan_clean_stack(void *stack)
{
	__asan_unpoison_memory_region(stack, FIBER_STACK_SIZE);
}
#else
void fiber_leaks_are_expected(void)
{
}

static void asan_before_switch(struct fiber *from, struct fiber *to, bool for_ever)
{
	(void)from;
	(void)to;
	(void)for_ever;
}

static void asan_after_switch(struct fiber *to)
{
	(void)to;
}

static void asan_clean_stack(void *stack)
{
	(void)stack;
}
#endif

#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>

static void tsan_create(struct fiber *f)
{
	f->tsan = __tsan_create_fiber(0);
}

static void tsan_destroy(struct fiber *f)
{
	__tsan_destroy_fiber(f->tsan);
}

static void tsan_switch(struct fiber *from, struct fiber *to)
{
	if (!from->stack)
		from->tsan = __tsan_get_current_fiber();
	__tsan_switch_to_fiber(to->tsan, 0);
}
#else
static void tsan_create(struct fiber *f)
{
	(void)f;
}

static void tsan_destroy(struct fiber *f)
{
	(void)f;
}

static void tsan_switch(struct fiber *from, struct fiber *to)
{
	(void)from;
	(void)to;
}
#endif

void *fiber_stack_new(void)
{
	uint8_t *p = mmap(NULL, GUARD_SIZE + FIBER_STACK_SIZE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);

	if (p == MAP_FAILED || mprotect(p, GUARD_SIZE, PROT_NONE))
		abort();
	return p + GUARD_SIZE;
}

void fiber_stack_free(void *stack)
{
	asan_clean_stack(stack);	/* the addresses will be mapped again for other things */
	munmap((uint8_t *)stack - GUARD_SIZE, GUARD_SIZE + FIBER_STACK_SIZE);
}

void fiber_init_thread(struct fiber *f)
{
	memset(f, 0, sizeof(*f));
}

/* makecontext() passes ints only, so the pointer comes in two halves. */
static void fiber_main(unsigned int high, unsigned int low)
{
	struct fiber *f = (struct fiber *)((uintptr_t)high << 32 | low);

	asan_after_switch(f);
	f->fn(f->arg);
	abort();	/* it must end with fiber_leave() */
}

void fiber_init(struct fiber *f, void *stack, void (*fn)(void *arg), void *arg)
{
	uintptr_t self = (uintptr_t)f;

	static_assert(sizeof(uintptr_t) == 8, "two ints hold a pointer");
	memset(f, 0, sizeof(*f));
	asan_clean_stack(stack);
	f->stack = stack;
	f->bottom = stack;
	f->size = FIBER_STACK_SIZE;
	f->fn = fn;
	f->arg = arg;
	if (getcontext(&f->context))
		abort();
	f->context.uc_stack.ss_sp = stack;
	f->context.uc_stack.ss_size = FIBER_STACK_SIZE;
	f->context.uc_link = NULL;
	makecontext(&f->context, (void (*)(void))(void *)fiber_main, 2,
		    (unsigned int)(self >> 32), (unsigned int)self);
	tsan_create(f);
}

void fiber_fini(struct fiber *f)
{
	tsan_destroy(f);
}

void fiber_switch(struct fiber *from, struct fiber *to)
{
	to->from = from;
	asan_before_switch(from, to, false);
	tsan_switch(from, to);
	if (swapcontext(&from->context, &to->context))
		abort();
	asan_after_switch(from);
}

void fiber_leave(struct fiber *from, struct fiber *to)
{
	to->from = from;
	asan_before_switch(from, to, true);
	tsan_switch(from, to);
	setcontext(&to->context);
	abort();
}
