/* SPDX-License-Identifier: Apache-2.0 */
#include "kvm/mmio.h"

#include "kvm/layout.h"
#include "tests/unit.h"
#include "vhost/virtio.h"

#define RAM		(64ull << 20)
#define FEATURES	(FEATURE(VIRTIO_F_VERSION_1) | FEATURE(BLK_F_FLUSH))

static struct vm_memory m;
static struct mmio d;
static unsigned int starts, stops, interrupts;

static void on_start(struct mmio *dev, void *arg)
{
	(void)dev;
	(void)arg;
	starts++;
}

static void on_stop(struct mmio *dev, void *arg)
{
	(void)dev;
	(void)arg;
	stops++;
}

static void on_interrupt(struct mmio *dev, void *arg)
{
	(void)dev;
	(void)arg;
	interrupts++;
}

static const struct mmio_ops ops = { on_start, on_stop, on_interrupt };

static void fresh(void)
{
	const struct mmio_params p = { .ops = &ops, .memory = &m, .device_id = 2,
				       .features = FEATURES, .queue_count = 2 };

	if (!m.base && memory_create(RAM, &m))
		abort();
	mmio_init(&d, &p);
	starts = stops = interrupts = 0;
}

static uint32_t get(unsigned int reg)
{
	return (uint32_t)mmio_read(&d, reg, 4);
}

static void set(unsigned int reg, uint32_t v)
{
	mmio_write(&d, reg, 4, v);
}

static void set_queue(unsigned int i, uint32_t size, uint64_t desc, uint64_t avail, uint64_t used)
{
	set(0x30, i);
	set(0x38, size);
	set(0x80, (uint32_t)desc);
	set(0x84, (uint32_t)(desc >> 32));
	set(0x90, (uint32_t)avail);
	set(0x94, (uint32_t)(avail >> 32));
	set(0xa0, (uint32_t)used);
	set(0xa4, (uint32_t)(used >> 32));
	set(0x44, 1);
}

static void take_features(uint64_t f)
{
	set(0x70, 1);
	set(0x70, 3);
	set(0x24, 0);
	set(0x20, (uint32_t)f);
	set(0x24, 1);
	set(0x20, (uint32_t)(f >> 32));
	set(0x70, 11);
}

static void go(void)
{
	take_features(FEATURES);
	set_queue(0, 128, 0x100000, 0x101000, 0x102000);
	set(0x70, 15);
}

static void device_says_what_it_is(void)
{
	fresh();
	CU_ASSERT_EQUAL(get(0x00), 0x74726976);
	CU_ASSERT_EQUAL(get(0x04), 2);
	CU_ASSERT_EQUAL(get(0x08), 2);
	set(0x14, 1);
	CU_ASSERT_EQUAL(get(0x10), 1);
	set(0x14, 7);
	CU_ASSERT_EQUAL(get(0x10), 0);
	set(0x30, 1);
	CU_ASSERT_EQUAL(get(0x34), MMIO_QUEUE_SIZE_MAX);
	set(0x30, 2);
	CU_ASSERT_EQUAL(get(0x34), 0);
	CU_ASSERT_EQUAL(get(0xb0), ~0u);	/* no shared memory */
}

static void driver_gets_going_and_is_reset(void)
{
	fresh();
	go();
	CU_ASSERT_EQUAL(starts, 1);
	CU_ASSERT_EQUAL(d.queues[0].desc, 0x100000);
	CU_ASSERT_EQUAL(d.driver_features, FEATURES);
	CU_ASSERT_EQUAL(get(0x70), 15);
	set(0x70, 15);
	CU_ASSERT_EQUAL(starts, 1);	/* once is enough */
	set(0x70, 0);
	CU_ASSERT_EQUAL(stops, 1);
	CU_ASSERT_EQUAL(get(0x70), 0);
	CU_ASSERT_EQUAL(d.queues[0].ready, false);
	set(0x70, 0);
	CU_ASSERT_EQUAL(stops, 1);
	go();
	CU_ASSERT_EQUAL(starts, 2);
}

/* Features that were not offered, or a driver of before 1.0, end before anything is shared. */
static void features_that_make_no_sense_are_not_taken(void)
{
	fresh();
	take_features(FEATURES | FEATURE(BLK_F_RO));
	CU_ASSERT_EQUAL(get(0x70) & 8, 0);
	set_queue(0, 128, 0x100000, 0x101000, 0x102000);
	set(0x70, 15);
	CU_ASSERT_EQUAL(starts, 0);
	CU_ASSERT(get(0x70) & 64);	/* needs a reset */
	fresh();
	take_features(FEATURE(BLK_F_FLUSH));
	CU_ASSERT_EQUAL(get(0x70) & 8, 0);
}

/* Rings are handed to another process as addresses: none may lie outside of memory (R9). */
static void rings_outside_of_memory_are_refused(void)
{
	static const struct { uint32_t size; uint64_t desc, avail, used; } bad[] = {
		{ 0, 0x100000, 0x101000, 0x102000 },
		{ 100, 0x100000, 0x101000, 0x102000 },
		{ 512, 0x100000, 0x110000, 0x120000 },
		{ 0x80000000, 0x100000, 0x110000, 0x120000 },
		{ 128, RAM - 2032, 0x101000, 0x102000 },
		{ 128, 0x100000, RAM, 0x102000 },
		{ 128, 0x100000, 0x101000, GPA_VIRTIO },
		{ 128, 0x100000, 0x101000, UINT64_MAX - 3 },
		{ 128, 0x100008, 0x101000, 0x102000 },
		{ 128, 0x100000, 0x101001, 0x102000 },
		{ 128, 0x100000, 0x101000, 0x102002 },
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		fresh();
		take_features(FEATURES);
		set_queue(0, bad[i].size, bad[i].desc, bad[i].avail, bad[i].used);
		set(0x70, 15);
		CU_ASSERT_EQUAL(starts, 0);
		CU_ASSERT(get(0x70) & 64);
		set(0x70, 0);
		CU_ASSERT_EQUAL(stops, 0);
	}
}

/* What the server was told once must not change behind its back. */
static void nothing_moves_while_it_runs(void)
{
	fresh();
	go();
	set_queue(0, 64, 0x200000, 0x201000, 0x202000);
	CU_ASSERT_EQUAL(d.queues[0].desc, 0x100000);
	CU_ASSERT_EQUAL(d.queues[0].size, 128);
	set(0x30, 0);
	set(0x44, 0);
	CU_ASSERT_EQUAL(get(0x44), 1);
	set(0x24, 0);
	set(0x20, 0);
	CU_ASSERT_EQUAL(d.driver_features, FEATURES);
}

static void a_change_of_configuration_is_told_and_acknowledged(void)
{
	uint64_t sectors = 1000;
	uint32_t before;

	fresh();
	mmio_set_config(&d, &sectors, sizeof(sectors));
	CU_ASSERT_EQUAL(interrupts, 0);		/* nobody is there yet */
	go();
	CU_ASSERT_EQUAL(get(0x60), 1);		/* perhaps a used buffer: nobody here knows */
	before = get(0xfc);
	sectors = 2000;
	mmio_set_config(&d, &sectors, sizeof(sectors));
	CU_ASSERT_EQUAL(interrupts, 1);
	CU_ASSERT_EQUAL(get(0x60), 3);
	CU_ASSERT_NOT_EQUAL(get(0xfc), before);
	CU_ASSERT_EQUAL(mmio_read(&d, 0x100, 8), 2000);
	set(0x64, 3);
	CU_ASSERT_EQUAL(get(0x60), 1);
	set(0x70, 0);
	CU_ASSERT_EQUAL(get(0x60), 0);
}

static void a_device_that_fails_says_so(void)
{
	fresh();
	go();
	mmio_fail(&d);
	CU_ASSERT(get(0x70) & 64);
	CU_ASSERT_EQUAL(interrupts, 1);
}

/* Any access at all: read as zero, written to nothing, and nothing else happens. */
static void odd_accesses_do_no_harm(void)
{
	static const unsigned int lens[] = { 1, 2, 3, 4, 8 };

	fresh();
	go();
	for (unsigned int i = 0; i < ARRAY_SIZE(lens); i++)
		for (unsigned int at = 0; at < GPA_VIRTIO_SIZE; at++)
			mmio_read(&d, at, lens[i]);
	CU_ASSERT_EQUAL(mmio_read(&d, 0, 2), 0);
	CU_ASSERT_EQUAL(mmio_read(&d, 2, 4), 0);
	CU_ASSERT_EQUAL(mmio_read(&d, 0x200, 4), 0);
	CU_ASSERT_EQUAL(mmio_read(&d, 0x1fe, 4), 0);
	mmio_write(&d, 0x70, 1, 0);
	mmio_write(&d, 0x70, 8, 0);
	mmio_write(&d, 0x100, 4, 77);
	CU_ASSERT_EQUAL(get(0x70), 15);
	CU_ASSERT_EQUAL(stops, 0);
	set(0x30, UINT32_MAX);
	set(0x44, 1);
	set(0x38, 5);
	CU_ASSERT_EQUAL(get(0x44), 0);
}

UNIT_MAIN("mmio",
	UNIT_TEST(device_says_what_it_is),
	UNIT_TEST(driver_gets_going_and_is_reset),
	UNIT_TEST(features_that_make_no_sense_are_not_taken),
	UNIT_TEST(rings_outside_of_memory_are_refused),
	UNIT_TEST(nothing_moves_while_it_runs),
	UNIT_TEST(a_change_of_configuration_is_told_and_acknowledged),
	UNIT_TEST(a_device_that_fails_says_so),
	UNIT_TEST(odd_accesses_do_no_harm));
