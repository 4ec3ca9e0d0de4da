/* SPDX-License-Identifier: Apache-2.0 */
#include "lockd/lockrec.h"

#include <errno.h>

#include "base/env_sim.h"
#include "tests/unit.h"

#define ADDR	0x123000ull

static const uint8_t volume[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };

static struct lockrec exclusive_record(void)
{
	struct lockrec r = { .sequence = 77, .mode = LOCK_EXCLUSIVE, .owner = 3,
			     .owner_generation = 0x1234, .pid = 4711, .since = 99,
			     .comm = "qemu-system-x86" };

	return r;
}

static struct lockrec shared_record(void)
{
	struct lockrec r = { .sequence = 78, .mode = LOCK_SHARED, .owner = SLOT_NONE };

	r.sharers[0] = 5;
	r.sharers[SLOT_COUNT_MAX - 1] = 6;
	return r;
}

/* A host that reads back anything but what was written takes a lock that is held. */
static void decode_returns_what_was_encoded(void)
{
	struct lockrec records[] = { exclusive_record(), shared_record(), exclusive_record() }, got;
	uint8_t sector[META_BLOCK_SIZE];

	records[2].heir = SLOT_COUNT_MAX - 1;
	records[2].heir_generation = 0x55667788;
	for (unsigned int i = 0; i < ARRAY_SIZE(records); i++) {
		memset(sector, 0xff, sizeof(sector));
		memset(&got, 0xee, sizeof(got));
		lockrec_encode(&records[i], volume, ADDR, sector, sizeof(sector));
		CU_ASSERT_EQUAL(lockrec_decode(sector, volume, ADDR, &got, NULL, 0), 0);
		CU_ASSERT_EQUAL(memcmp(&got, &records[i], sizeof(got)), 0);
		for (unsigned int b = META_SECTOR_SIZE; b < sizeof(sector); b++)
			CU_ASSERT_EQUAL(sector[b], 0);
	}
}

/* FORMAT.md gives these offsets; another reader relies on them. */
static void fields_lie_where_the_format_says(void)
{
	struct lockrec r = exclusive_record();
	uint8_t sector[META_SECTOR_SIZE];

	lockrec_encode(&r, volume, ADDR, sector, sizeof(sector));
	CU_ASSERT_EQUAL(sector[64], 77);
	CU_ASSERT_EQUAL(sector[72], LOCK_EXCLUSIVE);
	CU_ASSERT_EQUAL(sector[76], 3);
	CU_ASSERT_EQUAL(sector[80], 0x34);
	CU_ASSERT_EQUAL(sector[81], 0x12);
	CU_ASSERT_EQUAL(sector[88], 99);
	CU_ASSERT_EQUAL(memcmp(sector + 96, "qemu", 4), 0);
	r.heir = 7;
	r.heir_generation = 8;
	lockrec_encode(&r, volume, ADDR, sector, sizeof(sector));
	CU_ASSERT_EQUAL(sector[120], 7);
	CU_ASSERT_EQUAL(sector[124], 8);
	r = shared_record();
	lockrec_encode(&r, volume, ADDR, sector, sizeof(sector));
	CU_ASSERT_EQUAL(sector[128], 5);
	CU_ASSERT_EQUAL(sector[508], 6);
}

/* A misdirected write or another volume's block leaves a valid record in the wrong place (R6). */
static void decode_refuses_record_of_another_place(void)
{
	struct lockrec r = exclusive_record(), before = shared_record(), got = before;
	uint8_t sector[META_SECTOR_SIZE], other[16] = { 0 };
	char why[200];

	lockrec_encode(&r, volume, ADDR, sector, sizeof(sector));
	CU_ASSERT_EQUAL(lockrec_decode(sector, volume, ADDR + 8192, &got, why, sizeof(why)),
			-EUCLEAN);
	CU_ASSERT_EQUAL(lockrec_decode(sector, other, ADDR, &got, why, sizeof(why)), -EUCLEAN);
	CU_ASSERT_EQUAL(memcmp(&got, &before, sizeof(got)), 0);
}

/* Every bit counts: a flipped one must not change who holds the lock. */
static void decode_refuses_any_flipped_bit(void)
{
	struct lockrec r = shared_record(), got;
	uint8_t sector[META_SECTOR_SIZE];
	unsigned int believed = 0;

	lockrec_encode(&r, volume, ADDR, sector, sizeof(sector));
	for (unsigned int bit = 0; bit < META_SECTOR_SIZE * 8; bit++) {
		sector[bit / 8] ^= (uint8_t)(1u << bit % 8);
		believed += lockrec_decode(sector, volume, ADDR, &got, NULL, 0) == 0;
		sector[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	CU_ASSERT_EQUAL(believed, 0);
}

/* Changes a field behind the encoder's back and seals the block again: hostile, not torn (R9). */
static int decode_with(const struct lockrec *r, size_t off, uint32_t value)
{
	struct meta_expect e = { .type = META_LOCK, .volume = volume, .addr = ADDR };
	struct lockrec got;
	uint8_t sector[META_SECTOR_SIZE];
	le32 v = cpu_to_le32(value);
	char why[200] = "";
	int err;

	lockrec_encode(r, volume, ADDR, sector, sizeof(sector));
	memcpy(sector + off, &v, sizeof(v));
	meta_seal(sector, &e, 0);
	err = lockrec_decode(sector, volume, ADDR, &got, why, sizeof(why));
	CU_ASSERT_EQUAL(err != 0, why[0] != '\0');
	return err;
}

/* A record that contradicts itself could make two hosts believe two things. */
static void decode_refuses_what_no_host_writes(void)
{
	struct lockrec x = exclusive_record(), s = shared_record();

	CU_ASSERT_EQUAL(decode_with(&x, 84, 5), 0);
	CU_ASSERT_EQUAL(decode_with(&x, 72, 4), -EUCLEAN);		/* no such mode */
	CU_ASSERT_EQUAL(decode_with(&x, 76, SLOT_COUNT_MAX), -EUCLEAN);
	CU_ASSERT_EQUAL(decode_with(&x, 76, SLOT_NONE), -EUCLEAN);
	CU_ASSERT_EQUAL(decode_with(&x, 80, 0), -EUCLEAN);		/* generation 0 */
	CU_ASSERT_EQUAL(decode_with(&x, 128, 1), -EUCLEAN);		/* a sharer beside */
	CU_ASSERT_EQUAL(decode_with(&x, 120, 1), -EUCLEAN);		/* an heir of no time */
	CU_ASSERT_EQUAL(decode_with(&x, 124, 1), 0);
	CU_ASSERT_EQUAL(decode_with(&s, 124, 1), -EUCLEAN);		/* of what is shared */
	x.heir = 4;
	x.heir_generation = 9;
	CU_ASSERT_EQUAL(decode_with(&x, 120, SLOT_COUNT_MAX), -EUCLEAN);
	CU_ASSERT_EQUAL(decode_with(&x, 120, 3), -EUCLEAN);		/* the owner itself */
	CU_ASSERT_EQUAL(decode_with(&x, 124, 0), -EUCLEAN);
	x = exclusive_record();
	CU_ASSERT_EQUAL(decode_with(&s, 76, 0), -EUCLEAN);		/* an owner beside */
	CU_ASSERT_EQUAL(decode_with(&s, 72, LOCK_FREE), -EUCLEAN);	/* free, with sharers */
	CU_ASSERT_EQUAL(decode_with(&s, 72, LOCK_MULTI), 0);
}

/* Names on disk are hostile: a terminal must not obey them (R9). */
static void decode_makes_the_name_printable(void)
{
	struct lockrec r = exclusive_record(), got;
	uint8_t sector[META_SECTOR_SIZE];

	snprintf(r.comm, sizeof(r.comm), "a\033[2Jb");
	lockrec_encode(&r, volume, ADDR, sector, sizeof(sector));
	CU_ASSERT_EQUAL(lockrec_decode(sector, volume, ADDR, &got, NULL, 0), 0);
	CU_ASSERT_STRING_EQUAL(got.comm, "a?[2Jb");
}

/* Two fresh records alike could make a compare-and-write succeed by coincidence. */
static void init_gives_free_records_that_differ(void)
{
	struct sim *sim = sim_new(1);
	struct env *env = sim_host(sim, "alpha");
	struct lockrec a, b;

	lockrec_init(env, &a);
	lockrec_init(env, &b);
	CU_ASSERT_EQUAL(a.mode, LOCK_FREE);
	CU_ASSERT_EQUAL(a.owner, SLOT_NONE);
	CU_ASSERT_NOT_EQUAL(a.sequence, b.sequence);
	CU_ASSERT_TRUE(a.sequence < 1ull << 63);
	sim_free(sim);
}

static void modes_have_names(void)
{
	CU_ASSERT_STRING_EQUAL(lock_mode_name(LOCK_FREE), "free");
	CU_ASSERT_STRING_EQUAL(lock_mode_name(LOCK_MULTI), "multi-writer");
	CU_ASSERT_STRING_EQUAL(lock_mode_name(9), "unknown");
}

UNIT_MAIN("lockrec",
	  UNIT_TEST(decode_returns_what_was_encoded),
	  UNIT_TEST(fields_lie_where_the_format_says),
	  UNIT_TEST(decode_refuses_record_of_another_place),
	  UNIT_TEST(decode_refuses_any_flipped_bit),
	  UNIT_TEST(decode_refuses_what_no_host_writes),
	  UNIT_TEST(decode_makes_the_name_printable),
	  UNIT_TEST(init_gives_free_records_that_differ),
	  UNIT_TEST(modes_have_names));
