/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The console: a 16550A at the ports of COM1.  Source: National Semiconductor, PC16550D.
 * Bytes leave at once, so the transmitter is always empty.
 */
#ifndef LUNFS_KVM_UART_H
#define LUNFS_KVM_UART_H

#include <pthread.h>

#include "base/types.h"

#define UART_RX_SIZE	1024	/* bytes that wait for the guest; a power of two */

struct uart_ops {
	void (*out)(void *arg, uint8_t byte);	/* the guest wrote it */
	void (*interrupt)(void *arg);		/* an edge on its line */
	void (*drained)(void *arg);		/* there is room for input again */
};

/* All calls below take its mutex and call the ops with it held. */
struct uart {
	pthread_mutex_t	mutex;
	const struct uart_ops *ops;
	void		*arg;
	uint8_t		ier, lcr, mcr, scr, dll, dlm, fcr;
	bool		thr_empty;	/* an interrupt of an empty transmitter is pending */
	uint8_t		rx[UART_RX_SIZE];
	unsigned int	rx_head, rx_tail;
	bool		refused;	/* input had to wait */
};

void uart_init(struct uart *u, const struct uart_ops *ops, void *arg);

/** uart_read(), uart_write() - the guest reads, writes register @reg (0 to 7). */
uint8_t uart_read(struct uart *u, unsigned int reg);
void uart_write(struct uart *u, unsigned int reg, uint8_t value);

/** uart_receive() - input for the guest.  Return: how much of it was taken; drained() follows
 * if that was not all. */
size_t uart_receive(struct uart *u, const void *bytes, size_t len);

#endif
