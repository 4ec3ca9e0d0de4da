// SPDX-License-Identifier: Apache-2.0
#include "base/sim_fiber.h"

#include <stdlib.h>
#include <sys/mman.h>
#ifndef __x86_64__
#include <ucontext.h>
#endif

#define GUARD_SIZE	4096

struct fiber {
#ifdef __x86_64__
	void *sp;		/* while switched away: what fiber_swap() saved lies there */
#else
	ucontext_t context;
#endif
	uint8_t *stack;		/* lowest usable byte; NULL: the thread's own stack */
	const void *bottom;	/* what AddressSanitizer knows of the stack */
	size_t size;
	void *fake_stack;	/* AddressSanitizer's, while switched away */
	void *tsan;		/* ThreadSanitizer's view of the fiber */
	struct fiber *from;	/* who switched here last */
	void (*fn)(void *arg);
	void *arg;
};

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

static void asan_before_switch(struct fiber *from, struct fiber *to)
{
	__sanitizer_start_switch_fiber(&from->fake_stack, to->bottom, to->size);
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

/* One that was in the middle of something leaves the red zones of its frames behind. */
static void asan_clean_stack(void *stack)
{
	__asan_unpoison_memory_region(stack, FIBER_STACK_SIZE);
}
#else
void fiber_leaks_are_expected(void)
{
}

static void asan_before_switch(struct fiber *from, struct fiber *to)
{
	(void)from;
	(void)to;
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

/* ---- the registers ---- */

/* For ever, one thing after the other. */
static void fiber_main(struct fiber *f)
{
	asan_after_switch(f);
	for (;;) {
		f->fn(f->arg);
		fiber_switch(f, f->from);
	}
}

#ifdef __x86_64__
/*
 * swapcontext() asks the kernel for the signal mask each time, and AddressSanitizer's cleans all
 * of a stack: a fifth and a third of a simulated command's time.  What a call must preserve is on
 * the stack while a fiber is away (System V ABI, x86-64); @f becomes the first argument of
 * fiber_main(), where a new one begins.
 */
void fiber_swap(void **from_sp, void *to_sp, struct fiber *f);
__asm__(".text\n"
	".hidden fiber_swap\n"
	".globl fiber_swap\n"
	".type fiber_swap, @function\n"
	"fiber_swap:\n"
	"	push %rbp\n"
	"	push %rbx\n"
	"	push %r12\n"
	"	push %r13\n"
	"	push %r14\n"
	"	push %r15\n"
	"	mov %rsp, (%rdi)\n"
	"	mov %rsi, %rsp\n"
	"	mov %rdx, %rdi\n"
	"	pop %r15\n"
	"	pop %r14\n"
	"	pop %r13\n"
	"	pop %r12\n"
	"	pop %rbx\n"
	"	pop %rbp\n"
	"	ret\n"
	".size fiber_swap, . - fiber_swap\n");

/* As if fiber_main() had been called, from nowhere, and had six registers restored first. */
static void context_init(struct fiber *f)
{
	uint64_t *top = (uint64_t *)(f->stack + FIBER_STACK_SIZE);

	top[-2] = (uint64_t)(uintptr_t)fiber_main;	/* above it: nobody to return to, 0 */
	f->sp = &top[-2 - 6];
}

static void context_switch(struct fiber *from, struct fiber *to)
{
	fiber_swap(&from->sp, to->sp, to);
}
#else
/* makecontext() passes ints only, so the pointer comes in two halves. */
static void fiber_main_halves(unsigned int high, unsigned int low)
{
	static_assert(sizeof(uintptr_t) == 8, "two ints hold a pointer");
	fiber_main((struct fiber *)((uintptr_t)high << 32 | low));
}

static void context_init(struct fiber *f)
{
	uintptr_t self = (uintptr_t)f;

	if (getcontext(&f->context))
		abort();
	f->context.uc_stack.ss_sp = f->stack;
	f->context.uc_stack.ss_size = FIBER_STACK_SIZE;
	f->context.uc_link = NULL;
	makecontext(&f->context, (void (*)(void))(void *)fiber_main_halves, 2,
		    (unsigned int)(self >> 32), (unsigned int)self);
}

static void context_switch(struct fiber *from, struct fiber *to)
{
	if (swapcontext(&from->context, &to->context))
		abort();
}
#endif

/* ---- their life ---- */

static uint8_t *stack_new(void)
{
	uint8_t *p = mmap(NULL, GUARD_SIZE + FIBER_STACK_SIZE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);

	if (p == MAP_FAILED || mprotect(p, GUARD_SIZE, PROT_NONE))
		abort();
	return p + GUARD_SIZE;
}

struct fiber *fiber_new_thread(void)
{
	struct fiber *f = calloc(1, sizeof(*f));

	if (!f)
		abort();
	return f;
}

struct fiber *fiber_new(void)
{
	struct fiber *f = fiber_new_thread();

	f->stack = stack_new();
	f->bottom = f->stack;
	f->size = FIBER_STACK_SIZE;
	context_init(f);
	tsan_create(f);
	return f;
}

void fiber_free(struct fiber *f)
{
	if (f->stack) {
		tsan_destroy(f);
		asan_clean_stack(f->stack);	/* the addresses will be mapped again */
		munmap(f->stack - GUARD_SIZE, GUARD_SIZE + FIBER_STACK_SIZE);
	}
	free(f);
}

void fiber_begin(struct fiber *f, void (*fn)(void *arg), void *arg)
{
	f->fn = fn;
	f->arg = arg;
}

void fiber_switch(struct fiber *from, struct fiber *to)
{
	to->from = from;
	asan_before_switch(from, to);
	tsan_switch(from, to);
	context_switch(from, to);
	asan_after_switch(from);
}
