/* SPDX-License-Identifier: Apache-2.0 */
#include "kvm/uart.h"

enum { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR };

#define IER_RX		0x01
#define IER_TX		0x02
#define IIR_NONE	0x01
#define IIR_TX		0x02
#define IIR_RX		0x04
#define IIR_FIFO	0xc0
#define FCR_ENABLE	0x01
#define FCR_CLEAR_RX	0x02
#define LCR_DLAB	0x80
#define MCR_LOOP	0x10
#define MCR_LINES	0x0f
#define LSR_READY	0x01
#define LSR_TX_EMPTY	0x60
#define MSR_CONNECTED	0xb0	/* carrier, data set ready, clear to send */

void uart_init(struct uart *u, const struct uart_ops *ops, void *arg)
{
	memset(u, 0, sizeof(*u));
	pthread_mutex_init(&u->mutex, NULL);
	u->ops = ops;
	u->arg = arg;
	u->dll = 1;	/* 115200 */
}

static bool rx_waits(const struct uart *u)
{
	return u->rx_head != u->rx_tail;
}

static void rx_put(struct uart *u, uint8_t byte)
{
	u->rx[u->rx_head++ % UART_RX_SIZE] = byte;
}

/* The line goes up when there is something to tell; an edge too many does no harm. */
static void raise(struct uart *u)
{
	if ((u->ier & IER_RX && rx_waits(u)) || (u->ier & IER_TX && u->thr_empty))
		u->ops->interrupt(u->arg);
}

/* What is read, or thrown away, was all there is: input that had to wait may come. */
static void make_room(struct uart *u)
{
	if (rx_waits(u) || !u->refused)
		return;
	u->refused = false;
	u->ops->drained(u->arg);
}

static uint8_t read_data(struct uart *u)
{
	uint8_t byte = 0;

	if (rx_waits(u))
		byte = u->rx[u->rx_tail++ % UART_RX_SIZE];
	make_room(u);
	return byte;
}

static uint8_t read_iir(struct uart *u)
{
	uint8_t fifo = u->fcr & FCR_ENABLE ? IIR_FIFO : 0;

	if (u->ier & IER_RX && rx_waits(u))
		return fifo | IIR_RX;
	if (u->ier & IER_TX && u->thr_empty) {
		u->thr_empty = false;	/* reading it takes it back */
		return fifo | IIR_TX;
	}
	return fifo | IIR_NONE;
}

/* In a loop the outputs of the modem lines are its inputs. */
static uint8_t read_msr(const struct uart *u)
{
	uint8_t m = u->mcr;

	if (!(m & MCR_LOOP))
		return MSR_CONNECTED;
	return (uint8_t)((m & 0x02) << 3 | (m & 0x01) << 5 | (m & 0x04) << 4 | (m & 0x08) << 4);
}

static uint8_t read_locked(struct uart *u, unsigned int reg)
{
	switch (reg) {
	case REG_DATA:
		return u->lcr & LCR_DLAB ? u->dll : read_data(u);
	case REG_IER:
		return u->lcr & LCR_DLAB ? u->dlm : u->ier;
	case REG_IIR_FCR:
		return read_iir(u);
	case REG_LCR:
		return u->lcr;
	case REG_MCR:
		return u->mcr;
	case REG_LSR:
		return LSR_TX_EMPTY | (rx_waits(u) ? LSR_READY : 0);
	case REG_MSR:
		return read_msr(u);
	default:
		return u->scr;
	}
}

static void write_data(struct uart *u, uint8_t value)
{
	if (u->mcr & MCR_LOOP) {
		if (u->rx_head - u->rx_tail < UART_RX_SIZE)
			rx_put(u, value);
	} else {
		u->ops->out(u->arg, value);
	}
	u->thr_empty = true;
	raise(u);
}

static void write_locked(struct uart *u, unsigned int reg, uint8_t value)
{
	switch (reg) {
	case REG_DATA:
		if (u->lcr & LCR_DLAB)
			u->dll = value;
		else
			write_data(u, value);
		break;
	case REG_IER:
		if (u->lcr & LCR_DLAB) {
			u->dlm = value;
			break;
		}
		if (value & ~u->ier & IER_TX)
			u->thr_empty = true;
		u->ier = value & 0x0f;
		raise(u);
		break;
	case REG_IIR_FCR:
		u->fcr = value;
		if (value & FCR_CLEAR_RX)
			u->rx_tail = u->rx_head;
		make_room(u);
		break;
	case REG_LCR:
		u->lcr = value;
		break;
	case REG_MCR:
		u->mcr = value & (MCR_LOOP | MCR_LINES);
		break;
	case REG_SCR:
		u->scr = value;
		break;
	default:
		break;
	}
}

uint8_t uart_read(struct uart *u, unsigned int reg)
{
	uint8_t value;

	pthread_mutex_lock(&u->mutex);
	value = read_locked(u, reg);
	pthread_mutex_unlock(&u->mutex);
	return value;
}

void uart_write(struct uart *u, unsigned int reg, uint8_t value)
{
	pthread_mutex_lock(&u->mutex);
	write_locked(u, reg, value);
	pthread_mutex_unlock(&u->mutex);
}

size_t uart_receive(struct uart *u, const void *bytes, size_t len)
{
	const uint8_t *b = bytes;
	size_t n = 0;

	pthread_mutex_lock(&u->mutex);
	while (n < len && u->rx_head - u->rx_tail < UART_RX_SIZE)
		rx_put(u, b[n++]);
	u->refused = n < len;
	raise(u);
	pthread_mutex_unlock(&u->mutex);
	return n;
}
