/* SPDX-License-Identifier: Apache-2.0 */
#include "vhost/guard.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>

#define RANGES_MAX	4096u
#define BYTES_MAX	(64 * TIB)	/* of all: half of what a process can address is for the rest of it */

struct range {
	_Atomic uintptr_t base;		/* 0: free; set last, cleared first */
	size_t		size;
	atomic_bool	*broken;
};

static struct range ranges[RANGES_MAX];
static _Atomic unsigned int range_high;	/* above it none has ever been used */
static uint64_t range_bytes;		/* of all that are in use; range_mutex */
static pthread_mutex_t range_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction old_action;

/*
 * In the thread that made the access, which waits here.  mmap() is not on POSIX's list of
 * what a handler may call; on Linux it is a system call and nothing else.
 */
static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	uintptr_t addr = (uintptr_t)info->si_addr;
	unsigned int high = atomic_load(&range_high);
	int saved = errno;

	(void)context;
	for (unsigned int i = 0; i < high; i++) {
		uintptr_t base = atomic_load_explicit(&ranges[i].base, memory_order_acquire);

		if (!base || addr < base || addr - base >= ranges[i].size)
			continue;
		/* All of it: a huge page cannot be replaced in part. */
		if (mmap((void *)base, ranges[i].size, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) ==
		    MAP_FAILED)
			break;
		atomic_store(ranges[i].broken, true);
		errno = saved;
		return;
	}
	/* Not ours: the access is made again and ends the process. */
	signal(sig, SIG_DFL);
	errno = saved;
}

int guard_install(void)
{
	struct sigaction action = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO };

	sigemptyset(&action.sa_mask);
	return sigaction(SIGBUS, &action, &old_action) ? -errno : 0;
}

void guard_uninstall(void)
{
	sigaction(SIGBUS, &old_action, NULL);
}

int guard_add(void *base, size_t size, atomic_bool *broken)
{
	int err = -ENOSPC;

	pthread_mutex_lock(&range_mutex);
	for (unsigned int i = 0; i < RANGES_MAX && size <= BYTES_MAX - range_bytes; i++) {
		if (atomic_load(&ranges[i].base))
			continue;
		range_bytes += size;
		ranges[i].size = size;
		ranges[i].broken = broken;
		atomic_store(&ranges[i].base, (uintptr_t)base);
		if (i >= atomic_load(&range_high))
			atomic_store(&range_high, i + 1);
		err = 0;
		break;
	}
	pthread_mutex_unlock(&range_mutex);
	return err;
}

void guard_remove(void *base)
{
	pthread_mutex_lock(&range_mutex);
	for (unsigned int i = 0; i < atomic_load(&range_high); i++)
		if (atomic_load(&ranges[i].base) == (uintptr_t)base) {
			atomic_store(&ranges[i].base, 0);
			range_bytes -= ranges[i].size;
			break;
		}
	pthread_mutex_unlock(&range_mutex);
}
