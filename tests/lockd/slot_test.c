/* SPDX-License-Identifier: Apache-2.0 */
#include "lockd/slot.h"

#include <errno.h>

#include "lockd/lockrec.h"
#include "tests/unit.h"

#define ADDR	(3 * (uint64_t)META_BLOCK_SIZE)
#define INDEX	7u

static const uint8_t volume[16] = "slot-test-volume";

static struct slot slot_sample(void)
{
	struct slot s = {
		.index = INDEX, .sequence = 77, .generation = 0x12345678, .state = SLOT_LIVE,
		.recoverer = SLOT_NONE, .key = 0x4c46000000000001, .pid = 4711,
		.flags = SLOT_WATCHDOG, .pid_start = 99, .host_name = "alpha",
		.software = "0.1.0", .want_stamp = 5, .since = 1234567890,
	};

	memset(s.host_id, 0xaa, sizeof(s.host_id));
	memset(s.boot_id, 0xbb, sizeof(s.boot_id));
	s.wants[7] = (struct slot_want){ .addr = 8192, .mode = LOCK_MULTI, .stamp = 6 };
	s.denials[3] = (struct slot_denial){ .addr = 4096, .slot = 95, .stamp = 2 };
	return s;
}

static int decode(const uint8_t *sector, struct slot *s)
{
	return slot_decode(sector, volume, ADDR, INDEX, s, NULL, 0);
}

/* Two hosts that read different things in one block would both think that they own it. */
static void slot_survives_encode_and_decode(void)
{
	struct slot s = slot_sample(), got;
	uint8_t sector[META_BLOCK_SIZE];

	memset(sector, 0xee, sizeof(sector));
	slot_encode(&s, volume, ADDR, sector, sizeof(sector));
	memset(&got, 0, sizeof(got));
	CU_ASSERT_EQUAL(decode(sector, &got), 0);
	CU_ASSERT_EQUAL(memcmp(&got, &s, sizeof(s)), 0);
	/* On 4 KiB sectors the compare-and-write covers the rest too: it must be known. */
	for (size_t i = META_SECTOR_SIZE; i < sizeof(sector); i++)
		CU_ASSERT_EQUAL(sector[i], 0);
}

/* Encoding is a function of the slot: the heartbeat compares with what it wrote before. */
static void slot_encode_is_deterministic(void)
{
	struct slot s = slot_sample();
	uint8_t a[META_SECTOR_SIZE], b[META_SECTOR_SIZE];

	memset(a, 1, sizeof(a));
	memset(b, 2, sizeof(b));
	slot_encode(&s, volume, ADDR, a, sizeof(a));
	slot_encode(&s, volume, ADDR, b, sizeof(b));
	CU_ASSERT_EQUAL(memcmp(a, b, sizeof(a)), 0);
}

/* A misdirected write leaves a valid block in the wrong place (R6): it is not believed there. */
static void slot_decode_refuses_block_of_another_place(void)
{
	const uint8_t other[16] = "another-volume-!";
	struct slot s = slot_sample(), before = slot_sample(), got = slot_sample();
	uint8_t sector[META_SECTOR_SIZE];
	char why[200];

	slot_encode(&s, volume, ADDR, sector, sizeof(sector));
	CU_ASSERT_EQUAL(slot_decode(sector, volume, ADDR + META_BLOCK_SIZE, INDEX, &got, why,
				    sizeof(why)), -EUCLEAN);
	CU_ASSERT_EQUAL(slot_decode(sector, volume, ADDR, INDEX + 1, &got, why, sizeof(why)),
			-EUCLEAN);
	CU_ASSERT_EQUAL(slot_decode(sector, other, ADDR, INDEX, &got, why, sizeof(why)), -EUCLEAN);
	CU_ASSERT(why[0] != '\0');
	CU_ASSERT_EQUAL(memcmp(&got, &before, sizeof(got)), 0);	/* untouched */
}

/* Any single damaged byte would otherwise retire a live generation or revive a dead one. */
static void slot_decode_refuses_every_flipped_byte(void)
{
	struct slot s = slot_sample(), got;
	uint8_t sector[META_SECTOR_SIZE];

	slot_encode(&s, volume, ADDR, sector, sizeof(sector));
	for (size_t i = 0; i < sizeof(sector); i++) {
		sector[i] ^= 0x40;
		CU_ASSERT_NOT_EQUAL(decode(sector, &got), 0);
		sector[i] ^= 0x40;
	}
	CU_ASSERT_EQUAL(decode(sector, &got), 0);
}

/* Reseals a block that was changed by hand, as a hostile host would. */
static int decode_forged(struct slot_disk *d, struct slot *got)
{
	struct meta_expect e = { .type = META_SLOT, .volume = volume, .addr = ADDR,
				 .owner = INDEX };

	meta_seal(d, &e, le64_to_cpu(d->sequence));
	return slot_decode(d, volume, ADDR, INDEX, got, NULL, 0);
}

/* A checksum proves who wrote, not good sense (R9): such values would index arrays. */
static void slot_decode_refuses_impossible_fields(void)
{
	union { struct slot_disk d; uint8_t b[META_BLOCK_SIZE]; } good, u;
	struct slot s = slot_sample(), got;

	slot_encode(&s, volume, ADDR, good.b, sizeof(good.b));
	u = good;
	CU_ASSERT_EQUAL(decode_forged(&u.d, &got), 0);
	u.d.generation = cpu_to_le32(0);
	CU_ASSERT_EQUAL(decode_forged(&u.d, &got), -EUCLEAN);
	u = good;
	u.d.state = cpu_to_le32(4);
	CU_ASSERT_EQUAL(decode_forged(&u.d, &got), -EUCLEAN);
	u = good;
	u.d.recoverer = cpu_to_le32(1);
	CU_ASSERT_EQUAL(decode_forged(&u.d, &got), -EUCLEAN);
	u = good;
	u.d.state = cpu_to_le32(SLOT_RECOVERING);
	u.d.recoverer = cpu_to_le32(SLOT_COUNT_MAX);
	u.d.recoverer_generation = cpu_to_le32(1);
	CU_ASSERT_EQUAL(decode_forged(&u.d, &got), -EUCLEAN);
	u.d.recoverer = cpu_to_le32(SLOT_COUNT_MAX - 1);
	CU_ASSERT_EQUAL(decode_forged(&u.d, &got), 0);
	u.d.recoverer_generation = cpu_to_le32(0);
	CU_ASSERT_EQUAL(decode_forged(&u.d, &got), -EUCLEAN);
	u = good;
	u.d.wants[0].mode = cpu_to_le32(LOCK_MULTI + 1);
	CU_ASSERT_EQUAL(decode_forged(&u.d, &got), -EUCLEAN);
	u = good;
	u.d.denials[3].slot = cpu_to_le32(SLOT_COUNT_MAX);
	CU_ASSERT_EQUAL(decode_forged(&u.d, &got), -EUCLEAN);
	u = good;
	u.d.zero[META_SECTOR_SIZE - 1 - offsetof(struct slot_disk, zero)] = 1;
	CU_ASSERT_EQUAL(decode_forged(&u.d, &got), -EUCLEAN);
}

/* A host name with escape sequences would own the administrator's terminal. */
static void slot_decode_makes_names_printable(void)
{
	union { struct slot_disk d; uint8_t b[META_BLOCK_SIZE]; } u;
	struct slot s = slot_sample(), got;

	slot_encode(&s, volume, ADDR, u.b, sizeof(u.b));
	memcpy(u.d.host_name, "\033[2Jevil", 8);
	memset(u.d.host_name + 8, 'x', sizeof(u.d.host_name) - 8);	/* not terminated */
	CU_ASSERT_EQUAL(decode_forged(&u.d, &got), 0);
	CU_ASSERT_EQUAL(got.host_name[0], '?');
	CU_ASSERT_EQUAL(strlen(got.host_name), sizeof(u.d.host_name));
}

static void slot_states_have_names(void)
{
	CU_ASSERT_STRING_EQUAL(slot_state_name(SLOT_FREE), "free");
	CU_ASSERT_STRING_EQUAL(slot_state_name(SLOT_LIVE), "live");
	CU_ASSERT_STRING_EQUAL(slot_state_name(SLOT_RECOVERING), "recovering");
	CU_ASSERT_STRING_EQUAL(slot_state_name(SLOT_JOINING), "joining");
}

UNIT_MAIN("lockd/slot",
	  UNIT_TEST(slot_survives_encode_and_decode),
	  UNIT_TEST(slot_encode_is_deterministic),
	  UNIT_TEST(slot_decode_refuses_block_of_another_place),
	  UNIT_TEST(slot_decode_refuses_every_flipped_byte),
	  UNIT_TEST(slot_decode_refuses_impossible_fields),
	  UNIT_TEST(slot_decode_makes_names_printable),
	  UNIT_TEST(slot_states_have_names));
