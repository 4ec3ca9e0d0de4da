/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the guest writes to its console, kept so that whoever comes late sees the end of it,
 * and handed to everybody who looks on; and what they type.
 *
 * Nobody who looks on can hold the guest up: who is too slow misses the oldest.
 */
#ifndef LUNFS_KVM_CONSOLE_H
#define LUNFS_KVM_CONSOLE_H

#include <pthread.h>

#include "base/reactor.h"
#include "kvm/uart.h"

#define CONSOLE_SIZE		(64u << 10)	/* bytes kept; a power of two */
#define CONSOLE_VIEWERS_MAX	8
#define CONSOLE_TIMERS		4		/* that the reactor must have room for */

struct console;

struct viewer {
	struct console	*c;
	struct reactor_fd fd;		/* -1: free */
	uint64_t	seen;		/* bytes of all that was ever written */
	char		typed[256];	/* and not taken by the guest yet */
	size_t		typed_len;
};

struct console {
	struct reactor	*reactor;
	struct uart	*uart;
	pthread_mutex_t	mutex;
	uint8_t		ring[CONSOLE_SIZE];	/* guarded by the mutex, as is @written */
	uint64_t	written;		/* bytes ever */
	struct reactor_call output, input;	/* handed over from vCPUs */
	struct viewer	viewers[CONSOLE_VIEWERS_MAX];
	int		copy_fd;		/* -1: none */
	uint64_t	copied;
	struct reactor_timer retry;
};

/** console_init() - @copy_fd: all output goes there as well; -1: nowhere; borrowed. */
void console_init(struct console *c, struct reactor *r, struct uart *uart, int copy_fd);

/** console_put() - the guest wrote @byte.  A vCPU's thread. */
void console_put(struct console *c, uint8_t byte);

/** console_drained() - the guest has room for what was typed.  A vCPU's thread. */
void console_drained(struct console *c);

/** console_view() - @fd, a socket, looks on from now on; taken over.  Reactor's thread.
 * Return: 0; -EUSERS, -errno: then @fd stays the caller's. */
int console_view(struct console *c, int fd);

/** console_flush() - all that can be handed on at once is.  Reactor's thread. */
void console_flush(struct console *c);

/** console_behind() - bytes that the reader of @copy_fd has not been given.  Reactor's thread. */
uint64_t console_behind(struct console *c);

/** console_has_room() - whether one more may look on.  Reactor's thread. */
bool console_has_room(const struct console *c);

#endif
