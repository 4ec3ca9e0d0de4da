/* SPDX-License-Identifier: Apache-2.0 */
#include "lockd/lockrec.h"

#include <errno.h>
#include <stdio.h>

#include "base/mutant.h"
#include "base/text.h"

/* Modes whose holders are the sharers; the others have none. */
static bool mode_has_sharers(enum lock_mode mode)
{
	return mode == LOCK_SHARED || mode == LOCK_MULTI;
}

static struct meta_expect record_expect(const uint8_t volume[16], uint64_t addr)
{
	return (struct meta_expect){ .type = META_LOCK, .volume = volume, .addr = addr };
}

void lockrec_encode(const struct lockrec *r, const uint8_t volume[16], uint64_t addr,
		    void *sector, uint32_t sector_size)
{
	struct meta_expect e = record_expect(volume, addr);
	struct lockrec_disk d;

	assert(sector_size >= sizeof(d));
	assert(r->mode <= LOCK_MULTI);
	assert((r->mode == LOCK_EXCLUSIVE) == (r->owner != SLOT_NONE));
	assert(r->owner == SLOT_NONE || (r->owner < SLOT_COUNT_MAX && r->owner_generation));
	assert(!r->heir_generation || (r->mode == LOCK_EXCLUSIVE && r->heir < SLOT_COUNT_MAX &&
				       r->heir != r->owner));
	assert(r->heir_generation || !r->heir);
	memset(&d, 0, sizeof(d));
	d.sequence = cpu_to_le64(r->sequence);
	d.mode = cpu_to_le32(r->mode);
	d.owner = cpu_to_le32(r->owner);
	d.owner_generation = cpu_to_le32(r->owner_generation);
	d.pid = cpu_to_le32(r->pid);
	d.since = cpu_to_le64(r->since);
	memcpy(d.comm, r->comm, strnlen(r->comm, sizeof(d.comm)));
	d.heir = cpu_to_le32(r->heir);
	d.heir_generation = cpu_to_le32(r->heir_generation);
	for (unsigned int i = 0; i < SLOT_COUNT_MAX; i++) {
		assert(!r->sharers[i] || mode_has_sharers(r->mode));
		d.sharers[i] = cpu_to_le32(r->sharers[i]);
	}
	meta_seal(&d, &e, 0);
	memset(sector, 0, sector_size);
	memcpy(sector, &d, sizeof(d));
}

static int record_refuse(char *why, size_t why_size, uint64_t addr, const char *field,
			 uint64_t found, const char *expected)
{
	if (why)
		snprintf(why, why_size, "lock record at 0x%llx: %s is %llu, expected %s",
			 (unsigned long long)addr, field, (unsigned long long)found, expected);
	return -EUCLEAN;
}

/* Ranges, and that mode, owner and sharers agree: what a checksum cannot promise (R9). */
static int record_check(const struct lockrec *r, uint64_t addr, char *why, size_t why_size)
{
	if (MUTANT("trust-records"))
		return 0;
	if (!r->sequence || r->sequence > LOCK_SEQUENCE_MAX)
		return record_refuse(why, why_size, addr, "sequence", r->sequence, "1 to 3 * 2^62");
	if (r->mode > LOCK_MULTI)
		return record_refuse(why, why_size, addr, "mode", r->mode, "0 to 3");
	if (r->mode == LOCK_EXCLUSIVE) {
		if (r->owner >= SLOT_COUNT_MAX)
			return record_refuse(why, why_size, addr, "owner", r->owner, "a slot");
		if (!r->owner_generation)
			return record_refuse(why, why_size, addr, "owner_generation", 0,
					     "not 0");
	} else if (r->owner != SLOT_NONE) {
		return record_refuse(why, why_size, addr, "owner", r->owner, "none");
	} else if (r->owner_generation) {
		return record_refuse(why, why_size, addr, "owner_generation", r->owner_generation, "0");
	}
	if (!r->heir_generation && r->heir)
		return record_refuse(why, why_size, addr, "heir", r->heir, "0, or a generation");
	if (r->heir_generation && r->mode != LOCK_EXCLUSIVE)
		return record_refuse(why, why_size, addr, "heir_generation", r->heir_generation, "0");
	if (r->heir_generation && (r->heir >= SLOT_COUNT_MAX || r->heir == r->owner))
		return record_refuse(why, why_size, addr, "heir", r->heir, "another slot");
	for (unsigned int i = 0; i < SLOT_COUNT_MAX; i++)
		if (r->sharers[i] && !mode_has_sharers(r->mode))
			return record_refuse(why, why_size, addr, "slot of a sharer", i, "none");
	return 0;
}

int lockrec_decode(const void *sector, const uint8_t volume[16], uint64_t addr,
		   struct lockrec *r, char *why, size_t why_size)
{
	struct meta_expect e = record_expect(volume, addr);
	struct lockrec_disk d;
	struct lockrec got;
	int err;

	err = meta_verify(sector, &e, why, why_size);
	if (err)
		return err;
	memcpy(&d, sector, sizeof(d));
	memset(&got, 0, sizeof(got));
	got.sequence = le64_to_cpu(d.sequence);
	got.mode = le32_to_cpu(d.mode);
	got.owner = le32_to_cpu(d.owner);
	got.owner_generation = le32_to_cpu(d.owner_generation);
	got.pid = le32_to_cpu(d.pid);
	got.since = le64_to_cpu(d.since);
	text_printable(d.comm, sizeof(d.comm), got.comm, sizeof(got.comm));
	for (unsigned int i = 0; i < SLOT_COUNT_MAX; i++)
		got.sharers[i] = le32_to_cpu(d.sharers[i]);
	got.heir = le32_to_cpu(d.heir);
	got.heir_generation = le32_to_cpu(d.heir_generation);
	err = record_check(&got, addr, why, why_size);
	if (err)
		return err;
	*r = got;
	return 0;
}

void lockrec_init(struct env *env, struct lockrec *r)
{
	memset(r, 0, sizeof(*r));
	r->owner = SLOT_NONE;
	env_random(env, &r->sequence, sizeof(r->sequence));
	/* Half of the range is left to count in: the sequence never wraps. */
	r->sequence = r->sequence >> 1 | !(r->sequence >> 1);
	r->since = env_realtime_ns(env);
}

const char *lock_mode_name(enum lock_mode mode)
{
	switch (mode) {
	case LOCK_FREE:
		return "free";
	case LOCK_SHARED:
		return "shared";
	case LOCK_EXCLUSIVE:
		return "exclusive";
	case LOCK_MULTI:
		return "multi-writer";
	}
	return "unknown";
}
