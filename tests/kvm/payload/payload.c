/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The test guest: a virtio-blk driver that writes patterns and reads them back, in ring 3.
 *
 * The command line says what to do: op=write|read|verify|stress|life|talk|count|clock|button|crash|nowhere|reset|panic|cx16|off,
 * n= blocks, bs= bytes each, qd= requests under way, irq=0|1, rounds=, cpus=1|2, seed=, lives= (of op=life: resets in between).
 * What happened is on the console: "payload: …" lines, the last one "payload: done bad=N".
 */
#include <stdint.h>

#define MMIO		0xd0000000ul
#define GSI		6
#define GSI_BUTTON	5
#define IOAPIC		0xfec00000ul
#define LAPIC		0xfee00000ul
#define TRAMPOLINE	0x8000ul
#define CMD_LINE_PTR	0x228		/* in the zero page */
#define QUEUE_SIZE	128
#define DEPTH_MAX	32
#define BLOCK_MAX	(64 << 10)

struct desc { uint64_t addr; uint32_t len; uint16_t flags, next; };
struct avail { uint16_t flags, idx, ring[QUEUE_SIZE]; };
struct used { uint16_t flags, idx; struct { uint32_t id, len; } ring[QUEUE_SIZE]; };
struct header { uint32_t type, reserved; uint64_t sector; };

/* A queue and who uses it: one a processor. */
struct lane {
	struct desc	desc[QUEUE_SIZE] __attribute__((aligned(4096)));
	struct avail	avail __attribute__((aligned(4096)));
	struct used	used __attribute__((aligned(4096)));
	struct header	headers[DEPTH_MAX];
	uint8_t		status[DEPTH_MAX];
	uint64_t	block[DEPTH_MAX];	/* that each request is about */
	unsigned int	index;
	uint16_t	seen;
	uint64_t	bad;
	volatile int	done;
	uint8_t		buf[DEPTH_MAX][BLOCK_MAX] __attribute__((aligned(4096)));
};

static struct lane lanes[2];
static uint64_t opt_n = 1000, opt_bs = 4096, opt_qd = 1, opt_irq = 1, opt_rounds = 1, opt_cpus = 1,
		opt_seed = 1, opt_lives = 0;
static const char *opt_op = "off";
extern volatile uint64_t irq_count;
extern volatile uint8_t clock_info[32];	/* struct pvclock_vcpu_time_info */
extern const uint8_t trampoline[], trampoline_end[];
volatile uint64_t ticks[2];

/* ---- ring 0 ---- */

static void call(uint64_t what, uint64_t a, uint64_t b)
{
	__asm__ volatile("ud2" : "+a"(what) : "b"(a), "d"(b) : "memory");
}

static void outb(unsigned int port, unsigned int byte)
{
	call(0, byte, port);
}

static void print(const char *s)
{
	while (*s)
		outb(0x3f8, (uint8_t)*s++);
}

static void print_number(uint64_t v)
{
	char text[24], *p = text + sizeof(text);

	*--p = '\0';
	do {
		*--p = (char)('0' + v % 10);
	} while (v /= 10);
	print(p);
}

static void say(const char *what, uint64_t v, const char *then)
{
	print(what);
	print_number(v);
	print(then);
}

static void power_off(void)
{
	for (;;)
		outb(0x600, 5 << 2 | 1 << 5);
}

/* ---- command line ---- */

static int same(const char *a, const char *b)
{
	while (*b && *a == *b)
		a++, b++;
	return !*b && (!*a || *a == ' ');
}

static const char *option(const char *line, const char *name)
{
	for (const char *p = line; *p; p++) {
		const char *a = p, *b = name;

		while (*b && *a == *b)
			a++, b++;
		if (!*b && *a == '=' && (p == line || p[-1] == ' '))
			return a + 1;
	}
	return 0;
}

static void take_number(const char *line, const char *name, uint64_t *to)
{
	const char *p = option(line, name);

	if (!p)
		return;
	for (*to = 0; *p >= '0' && *p <= '9'; p++)
		*to = *to * 10 + (uint64_t)(*p - '0');
}

static void read_options(const uint8_t *zero_page)
{
	const char *line = (const char *)(uintptr_t)*(const uint32_t *)(zero_page + CMD_LINE_PTR);

	take_number(line, "n", &opt_n);
	take_number(line, "bs", &opt_bs);
	take_number(line, "qd", &opt_qd);
	take_number(line, "irq", &opt_irq);
	take_number(line, "rounds", &opt_rounds);
	take_number(line, "cpus", &opt_cpus);
	take_number(line, "seed", &opt_seed);
	take_number(line, "lives", &opt_lives);
	if (option(line, "op"))
		opt_op = option(line, "op");
}

/* ---- the device ---- */

static uint32_t get(unsigned int reg)
{
	return *(volatile uint32_t *)(MMIO + reg);
}

static void set(unsigned int reg, uint32_t v)
{
	*(volatile uint32_t *)(MMIO + reg) = v;
}

static void set_address(unsigned int reg, const volatile void *p)
{
	set(reg, (uint32_t)(uintptr_t)p);
	set(reg + 4, (uint32_t)((uintptr_t)p >> 32));
}

static void setup_queue(unsigned int i)
{
	struct lane *l = &lanes[i];

	l->index = i;
	l->avail.flags = opt_irq ? 0 : 1;
	set(0x30, i);
	set(0x38, QUEUE_SIZE);
	set_address(0x80, l->desc);
	set_address(0x90, &l->avail);
	set_address(0xa0, &l->used);
	set(0x44, 1);
}

/* Return: sectors; 0 if there is no such device. */
static uint64_t setup_device(void)
{
	uint32_t features;

	if (get(0x00) != 0x74726976 || get(0x04) != 2 || get(0x08) != 2)
		return 0;
	set(0x70, 0);
	set(0x70, 1 | 2);
	set(0x14, 0);
	features = get(0x10) & (1u << 9 | 1u << 12);	/* FLUSH, MQ */
	set(0x24, 0);
	set(0x20, features);
	set(0x24, 1);
	set(0x20, 1);					/* VERSION_1 */
	set(0x70, 1 | 2 | 8);
	if (!(get(0x70) & 8))
		return 0;
	for (unsigned int i = 0; i < opt_cpus; i++)
		setup_queue(i);
	set(0x70, 1 | 2 | 8 | 4);
	return *(volatile uint64_t *)(MMIO + 0x100);
}

static void setup_pin(unsigned int pin)
{
	*(volatile uint32_t *)IOAPIC = 0x10 + 2 * pin;
	*(volatile uint32_t *)(IOAPIC + 0x10) = 0x40;
	*(volatile uint32_t *)IOAPIC = 0x10 + 2 * pin + 1;
	*(volatile uint32_t *)(IOAPIC + 0x10) = 0;
}

static void setup_interrupts(void)
{
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	*(volatile uint32_t *)(LAPIC + 0xf0) = 0x1ff;
	setup_pin(GSI);
}

/* ---- requests ---- */

#define barrier() __asm__ volatile("mfence" : : : "memory")

enum { READ = 0, WRITE = 1, FLUSH = 4 };

static void submit(struct lane *l, unsigned int slot, unsigned int type)
{
	struct desc *d = &l->desc[slot * 3];
	volatile struct used *used = &l->used;
	uint16_t i = (uint16_t)(slot * 3);

	l->headers[slot] = (struct header){ type, 0, l->block[slot] * (opt_bs / 512) };
	l->status[slot] = 0xff;
	d[0] = (struct desc){ (uintptr_t)&l->headers[slot], 16, 1,
			      (uint16_t)(type == FLUSH ? i + 2 : i + 1) };
	d[1] = (struct desc){ (uintptr_t)l->buf[slot], (uint32_t)opt_bs,
			      (uint16_t)(type == READ ? 1 | 2 : 1), (uint16_t)(i + 2) };
	d[2] = (struct desc){ (uintptr_t)&l->status[slot], 1, 2, 0 };
	l->avail.ring[l->avail.idx % QUEUE_SIZE] = i;
	barrier();
	l->avail.idx++;
	barrier();
	if (!(used->flags & 1))
		set(0x50, l->index);
}

/* The slot of one that was completed. */
static unsigned int reap(struct lane *l)
{
	volatile struct used *used = &l->used;
	unsigned int slot;

	for (;;) {
		uint64_t count = irq_count;

		barrier();
		if (used->idx != l->seen)
			break;
		if (opt_irq && !l->index)
			call(1, count, 0);
		else
			__asm__ volatile("pause");
	}
	slot = used->ring[l->seen++ % QUEUE_SIZE].id / 3;
	if (l->status[slot])
		l->bad++;
	return slot;
}

static uint64_t word_of(uint64_t block, uint64_t seed, unsigned int i)
{
	return (block + seed) * 0x9e3779b97f4a7c15ull ^ i * 0xd1b54a32d192ed03ull;
}

static void fill(uint64_t *buf, uint64_t block, uint64_t seed)
{
	for (unsigned int i = 0; i < opt_bs / 8; i++)
		buf[i] = word_of(block, seed, i);
}

static int differs(const uint64_t *buf, uint64_t block, uint64_t seed)
{
	for (unsigned int i = 0; i < opt_bs / 8; i++)
		if (buf[i] != word_of(block, seed, i))
			return 1;
	return 0;
}

enum work { WORK_READ, WORK_WRITE, WORK_VERIFY };

static void begin(struct lane *l, unsigned int slot, uint64_t block, enum work w, uint64_t seed)
{
	l->block[slot] = block;
	if (w == WORK_WRITE)
		fill((uint64_t *)l->buf[slot], block, seed);
	submit(l, slot, w == WORK_WRITE ? WRITE : READ);
}

/* Blocks @first and on, one of opt_n each, qd at a time. */
static void work(struct lane *l, uint64_t first, enum work w, uint64_t seed)
{
	uint64_t issued = 0, done = 0;

	for (; issued < opt_qd && issued < opt_n; issued++)
		begin(l, (unsigned int)issued, first + issued, w, seed);
	for (; done < opt_n; done++) {
		unsigned int slot = reap(l);

		if (w == WORK_VERIFY && differs((uint64_t *)l->buf[slot], l->block[slot], seed))
			l->bad++;
		if (issued < opt_n)
			begin(l, slot, first + issued++, w, seed);
	}
}

static void flush(struct lane *l)
{
	submit(l, 0, FLUSH);
	reap(l);
}

/* ---- a guest with a memory ---- */

#define LIFE_MAGIC	0x6566696c6d766e75ull

static void one(struct lane *l, unsigned int type)
{
	l->block[0] = 0;
	submit(l, 0, type);
	reap(l);
}

/* Looks at what the life before has written, writes all anew, and says so when it is durable. */
static void live(struct lane *l)
{
	volatile uint64_t *word = (uint64_t *)l->buf[0];
	uint64_t before;

	one(l, READ);
	before = word[1] == LIFE_MAGIC ? word[0] : 0;
	if (before)
		work(l, 1, WORK_VERIFY, before);
	say("payload: life ", before + 1, "");
	say(", blocks of the life before that are wrong: ", l->bad, "\n");
	work(l, 1, WORK_WRITE, before + 1);
	flush(l);
	word[0] = before + 1;
	word[1] = LIFE_MAGIC;
	one(l, WRITE);
	flush(l);
	say("payload: life ", before + 1, " has written\n");
	if (opt_lives && before + 1 >= opt_lives)
		return;
	if (opt_lives)
		outb(0x64, 0xfe);
	for (;;)
		work(l, 1, WORK_VERIFY, before + 1);
}

/* ---- the second processor ---- */

static void stress(struct lane *l, uint64_t first)
{
	for (uint64_t r = 1; r <= opt_rounds; r++) {
		work(l, first, WORK_WRITE, opt_seed + r);
		flush(l);
		work(l, first, WORK_VERIFY, opt_seed + r);
		if (!l->index)
			say("payload: round ", r, "\n");
	}
	l->done = 1;
}

void second_main(void);
void second_main(void)
{
	ticks[1] = 1;
	if (same(opt_op, "count"))
		for (;;)
			ticks[1]++;
	stress(&lanes[1], opt_n);
	for (;;)
		__asm__ volatile("pause");
}

static void start_second(void)
{
	uint8_t *to = (uint8_t *)TRAMPOLINE;

	for (const uint8_t *p = trampoline; p < trampoline_end; p++)
		*to++ = *p;
	*(volatile uint32_t *)(LAPIC + 0x310) = 1u << 24;
	*(volatile uint32_t *)(LAPIC + 0x300) = 0x4500;		/* INIT */
	*(volatile uint32_t *)(LAPIC + 0x310) = 1u << 24;
	*(volatile uint32_t *)(LAPIC + 0x300) = 0x4600 | TRAMPOLINE >> 12;
	while (!ticks[1])
		__asm__ volatile("pause");
	print("payload: second processor runs\n");
}

/* Says now and then how far both are, until somebody ends the machine. */
static void count(void)
{
	for (;;) {
		for (ticks[0] = 0; ticks[0] < 300000000; ticks[0]++)
			;
		say("payload: alive ", ticks[1], "\n");
	}
}

/* What a watchdog of Linux asks before it complains: whether the machine stood still (bit 1 of the clock's flags). */
static void watch_clock(void)
{
	uint32_t eax = 0x40000001, ebx, ecx, edx;

	__asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx));
	if (!(eax & 1u << 3)) {
		print("payload: KVM has no clock\n");
		return;
	}
	call(5, 0, 0);
	print("payload: watches its clock\n");
	for (uint64_t looks = 0; !(clock_info[29] & 2); looks++)
		if (looks == 300000000)
			print("payload: nothing so far\n");
	print("payload: was told that it stood still\n");
}

/* Does what a system does when its power button is pressed. */
static void wait_button(void)
{
	uint64_t count = irq_count;

	setup_pin(GSI_BUTTON);
	print("payload: waits for its button\n");
	call(1, count, 0);
	print("payload: the button was pressed\n");
}

static void finish(void)
{
	say("payload: done bad=", lanes[0].bad + lanes[1].bad, "\n");
	power_off();
}

static void end_badly(void)
{
	if (same(opt_op, "crash"))
		call(3, 0, 0);
	if (same(opt_op, "nowhere"))
		call(4, 0, 0);
	if (same(opt_op, "cx16"))
		call(2, 0, 0);
	if (same(opt_op, "reset"))
		outb(0x64, 0xfe);
	if (same(opt_op, "panic"))
		outb(0x505, 1);
}

void main(const uint8_t *zero_page);
void main(const uint8_t *zero_page)
{
	uint64_t sectors;

	read_options(zero_page);
	print("payload: hello\n");
	end_badly();
	if (same(opt_op, "off"))
		finish();
	setup_interrupts();
	if (same(opt_op, "clock")) {
		watch_clock();
		finish();
	}
	if (same(opt_op, "button")) {
		wait_button();
		finish();
	}
	if (same(opt_op, "talk")) {
		for (uint64_t r = 1; r <= opt_rounds; r++)
			say("payload: line ", r, ", which somebody who is slow has to read to its end\n");
		print("payload: that was all of it\n");
		finish();
	}
	if (same(opt_op, "count")) {
		if (opt_cpus > 1)
			start_second();
		count();
	}
	sectors = setup_device();
	say("payload: disk of ", sectors, " sectors\n");
	if (!sectors || opt_n * opt_cpus * (opt_bs / 512) > sectors || opt_qd > DEPTH_MAX ||
	    opt_bs > BLOCK_MAX) {
		print("payload: the disk is too small\n");
		lanes[0].bad++;
		finish();
	}
	if (opt_cpus > 1)
		start_second();
	print("payload: begin\n");
	if (same(opt_op, "write")) {
		work(&lanes[0], 0, WORK_WRITE, opt_seed);
		flush(&lanes[0]);
	} else if (same(opt_op, "read")) {
		for (uint64_t r = 0; r < opt_rounds; r++)
			work(&lanes[0], 0, WORK_READ, 0);
	} else if (same(opt_op, "life")) {
		live(&lanes[0]);
	} else if (same(opt_op, "verify")) {
		work(&lanes[0], 0, WORK_VERIFY, opt_seed);
	} else {
		stress(&lanes[0], 0);
		while (opt_cpus > 1 && !lanes[1].done)
			__asm__ volatile("pause");
	}
	print("payload: end\n");
	finish();
}
