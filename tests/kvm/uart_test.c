/* SPDX-License-Identifier: Apache-2.0 */
/* The console's 16550A: what a driver relies on, and what a guest may write without harm. */
#include "kvm/uart.h"
#include "tests/unit.h"

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR };
#define FCR	IIR
#define DLAB	0x80

static struct uart u;
static char out[8192];
static size_t out_len;
static unsigned int interrupts, drains;

static void on_out(void *arg, uint8_t byte)
{
	CU_ASSERT_PTR_EQUAL(arg, &u);
	if (out_len < sizeof(out))
		out[out_len++] = (char)byte;
}

static void on_interrupt(void *arg)
{
	CU_ASSERT_PTR_EQUAL(arg, &u);
	interrupts++;
}

static void on_drained(void *arg)
{
	CU_ASSERT_PTR_EQUAL(arg, &u);
	drains++;
}

static const struct uart_ops ops = { on_out, on_interrupt, on_drained };

static void fresh(void)
{
	uart_init(&u, &ops, &u);
	out_len = 0;
	interrupts = drains = 0;
}

/* What is received without the guest having read it fills all the room there is. */
static void fill(void)
{
	static const uint8_t many[UART_RX_SIZE + 100] = { 1, 2, 3 };

	CU_ASSERT_EQUAL(uart_receive(&u, many, sizeof(many)), UART_RX_SIZE);
}

static void registers_keep_what_is_written(void)
{
	fresh();
	uart_write(&u, SCR, 0xa5);
	uart_write(&u, LCR, 0x03);
	uart_write(&u, MCR, 0xff);
	uart_write(&u, IER, 0xff);
	CU_ASSERT_EQUAL(uart_read(&u, SCR), 0xa5);
	CU_ASSERT_EQUAL(uart_read(&u, LCR), 0x03);
	CU_ASSERT_EQUAL(uart_read(&u, MCR), 0x1f);	/* no such bits as the others */
	CU_ASSERT_EQUAL(uart_read(&u, IER), 0x0f);	/* nor here: a driver tells a 16550A by it */
	uart_write(&u, LSR, 0xff);
	uart_write(&u, MSR, 0xff);
	CU_ASSERT_EQUAL(uart_read(&u, LSR), 0x60);
	fresh();
	CU_ASSERT_EQUAL(uart_read(&u, MSR), 0xb0);	/* somebody is connected */
}

static void divisor_hides_behind_its_bit(void)
{
	fresh();
	CU_ASSERT_EQUAL(uart_read(&u, IER), 0);
	uart_write(&u, LCR, DLAB);
	CU_ASSERT_EQUAL(uart_read(&u, DATA), 1);	/* 115200 */
	uart_write(&u, DATA, 0x0c);
	uart_write(&u, IER, 0x34);
	CU_ASSERT_EQUAL(uart_read(&u, DATA), 0x0c);
	CU_ASSERT_EQUAL(uart_read(&u, IER), 0x34);
	uart_write(&u, LCR, 0x03);
	CU_ASSERT_EQUAL(uart_read(&u, IER), 0);
	CU_ASSERT_EQUAL(out_len, 0);			/* none of it was a character */
	CU_ASSERT_EQUAL(interrupts, 0);
}

static void bytes_leave_at_once_with_an_interrupt_if_asked(void)
{
	fresh();
	uart_write(&u, DATA, 'a');
	CU_ASSERT_EQUAL(interrupts, 0);
	CU_ASSERT_EQUAL(uart_read(&u, IIR), 0x01);	/* nothing is pending that is not enabled */
	uart_write(&u, IER, 2);				/* enabled while empty: it is told */
	CU_ASSERT_EQUAL(interrupts, 1);
	CU_ASSERT_EQUAL(uart_read(&u, IIR), 0x02);
	CU_ASSERT_EQUAL(uart_read(&u, IIR), 0x01);	/* once */
	uart_write(&u, DATA, 'b');
	CU_ASSERT_EQUAL(interrupts, 2);
	CU_ASSERT_EQUAL(uart_read(&u, IIR), 0x02);
	CU_ASSERT(out_len == 2 && !memcmp(out, "ab", 2));
}

static void input_waits_and_interrupts(void)
{
	fresh();
	uart_write(&u, FCR, 1);
	CU_ASSERT_EQUAL(uart_receive(&u, "xy", 2), 2);
	CU_ASSERT_EQUAL(interrupts, 0);
	uart_write(&u, IER, 1);				/* what came before is told now */
	CU_ASSERT_EQUAL(interrupts, 1);
	CU_ASSERT_EQUAL(uart_read(&u, LSR), 0x61);
	CU_ASSERT_EQUAL(uart_read(&u, IIR), 0xc4);
	CU_ASSERT_EQUAL(uart_read(&u, IIR), 0xc4);	/* reading it takes nothing back */
	CU_ASSERT_EQUAL(uart_read(&u, DATA), 'x');
	CU_ASSERT_EQUAL(uart_read(&u, DATA), 'y');
	CU_ASSERT_EQUAL(uart_read(&u, IIR), 0xc1);
	CU_ASSERT_EQUAL(uart_read(&u, LSR), 0x60);
	CU_ASSERT_EQUAL(uart_read(&u, DATA), 0);	/* as of an empty one */
	CU_ASSERT_EQUAL(uart_receive(&u, "z", 1), 1);
	CU_ASSERT_EQUAL(interrupts, 2);
	CU_ASSERT_EQUAL(uart_read(&u, DATA), 'z');
	/* Input before the transmitter: the order of the interrupts' priorities. */
	uart_write(&u, IER, 3);
	uart_write(&u, DATA, 'q');
	CU_ASSERT_EQUAL(uart_receive(&u, "r", 1), 1);
	CU_ASSERT_EQUAL(uart_read(&u, IIR), 0xc4);
	uart_read(&u, DATA);
	CU_ASSERT_EQUAL(uart_read(&u, IIR), 0xc2);
}

static void a_full_queue_takes_no_more_and_says_when_it_does(void)
{
	fresh();
	fill();
	CU_ASSERT_EQUAL(uart_receive(&u, "x", 1), 0);
	for (unsigned int i = 0; i < UART_RX_SIZE; i++) {
		CU_ASSERT_EQUAL(drains, 0);
		uart_read(&u, DATA);
	}
	CU_ASSERT_EQUAL(drains, 1);
	uart_read(&u, DATA);
	CU_ASSERT_EQUAL(drains, 1);
	CU_ASSERT_EQUAL(uart_receive(&u, "x", 1), 1);
}

/* Else what was typed meanwhile would wait for a read that a guest with nothing to read never makes. */
static void input_that_is_thrown_away_makes_room(void)
{
	fresh();
	fill();
	uart_write(&u, FCR, 1 | 2);
	CU_ASSERT_EQUAL(uart_read(&u, LSR), 0x60);
	CU_ASSERT_EQUAL(drains, 1);
	CU_ASSERT_EQUAL(uart_receive(&u, "x", 1), 1);
	CU_ASSERT_EQUAL(uart_read(&u, DATA), 'x');
	uart_write(&u, FCR, 1 | 2);
	CU_ASSERT_EQUAL(drains, 1);
}

static void loop_leads_back(void)
{
	fresh();
	uart_write(&u, MCR, 0x10 | 0x0a);		/* as Linux looks for a 16550A */
	CU_ASSERT_EQUAL(uart_read(&u, MSR) & 0xf0, 0x90);
	uart_write(&u, DATA, 'l');
	CU_ASSERT_EQUAL(out_len, 0);
	CU_ASSERT_EQUAL(uart_read(&u, DATA), 'l');
	for (unsigned int i = 0; i < 3 * UART_RX_SIZE; i++)
		uart_write(&u, DATA, (uint8_t)i);
	CU_ASSERT_EQUAL(u.rx_head - u.rx_tail, UART_RX_SIZE);
	CU_ASSERT_EQUAL(uart_read(&u, DATA), 0);	/* what comes too late is lost, not what was there */
	CU_ASSERT_EQUAL(out_len, 0);
}

/* Any value to any register in any order: nothing leaves its place, and it works as ever after. */
static void hostile_writes_do_no_harm(void)
{
	uint64_t random = 88172645463325252ull;

	fresh();
	for (unsigned int i = 0; i < 200000; i++) {
		unsigned int reg;

		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		reg = random >> 8 & 7;
		if (random & 1)
			uart_write(&u, reg, (uint8_t)(random >> 16));
		else
			uart_read(&u, reg);
		if (!(random >> 24 & 15))
			uart_receive(&u, "0123456789", random >> 32 & 7);
		if (u.rx_head - u.rx_tail > UART_RX_SIZE || u.mcr & ~0x1f || u.ier & ~0x0f) {
			CU_FAIL("a register left its place");
			return;
		}
	}
	uart_write(&u, LCR, 3);
	uart_write(&u, MCR, 0);
	uart_write(&u, FCR, 1 | 2);
	out_len = 0;
	uart_write(&u, DATA, 'o');
	CU_ASSERT(out_len == 1 && out[0] == 'o');
	CU_ASSERT_EQUAL(uart_receive(&u, "i", 1), 1);
	CU_ASSERT_EQUAL(uart_read(&u, DATA), 'i');
}

UNIT_MAIN("uart", UNIT_TEST(registers_keep_what_is_written), UNIT_TEST(divisor_hides_behind_its_bit),
	  UNIT_TEST(bytes_leave_at_once_with_an_interrupt_if_asked), UNIT_TEST(input_waits_and_interrupts),
	  UNIT_TEST(a_full_queue_takes_no_more_and_says_when_it_does),
	  UNIT_TEST(input_that_is_thrown_away_makes_room), UNIT_TEST(loop_leads_back),
	  UNIT_TEST(hostile_writes_do_no_harm));
