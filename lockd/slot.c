/* SPDX-License-Identifier: Apache-2.0 */
#include "lockd/slot.h"

#include <errno.h>
#include <stdio.h>

#include "base/mutant.h"
#include "base/text.h"
#include "lockd/lockrec.h"

static struct meta_expect slot_expect(const uint8_t volume[16], uint64_t addr, uint32_t index)
{
	return (struct meta_expect){
		.type = META_SLOT, .volume = volume, .addr = addr, .owner = index,
	};
}

static void slot_encode_lists(const struct slot *s, struct slot_disk *d)
{
	d->want_stamp = cpu_to_le32(s->want_stamp);
	for (unsigned int i = 0; i < SLOT_WANTS; i++) {
		d->wants[i].addr = cpu_to_le64(s->wants[i].addr);
		d->wants[i].mode = cpu_to_le32(s->wants[i].mode);
		d->wants[i].stamp = cpu_to_le32(s->wants[i].stamp);
	}
	for (unsigned int i = 0; i < SLOT_DENIALS; i++) {
		d->denials[i].addr = cpu_to_le64(s->denials[i].addr);
		d->denials[i].slot = cpu_to_le32(s->denials[i].slot);
		d->denials[i].stamp = cpu_to_le32(s->denials[i].stamp);
	}
}

void slot_encode(const struct slot *s, const uint8_t volume[16], uint64_t addr, void *sector,
		 uint32_t sector_size)
{
	struct meta_expect e = slot_expect(volume, addr, s->index);
	union {
		struct slot_disk disk;
		uint8_t bytes[META_BLOCK_SIZE];
	} u = { 0 };
	struct slot_disk *d = &u.disk;

	assert(sector_size >= META_SECTOR_SIZE && sector_size <= META_BLOCK_SIZE);
	assert(s->index < SLOT_COUNT_MAX && s->generation != 0);
	assert((s->state == SLOT_RECOVERING) == (s->recoverer != SLOT_NONE));
	memcpy(d->host_id, s->host_id, sizeof(d->host_id));
	memcpy(d->boot_id, s->boot_id, sizeof(d->boot_id));
	d->sequence = cpu_to_le64(s->sequence);
	d->generation = cpu_to_le32(s->generation);
	d->state = cpu_to_le32(s->state);
	d->recoverer = cpu_to_le32(s->recoverer);
	d->recoverer_generation = cpu_to_le32(s->recoverer_generation);
	d->key = cpu_to_le64(s->key);
	d->pid = cpu_to_le32(s->pid);
	d->flags = cpu_to_le32(s->flags);
	d->pid_start = cpu_to_le64(s->pid_start);
	memcpy(d->host_name, s->host_name, strnlen(s->host_name, sizeof(d->host_name)));
	memcpy(d->software, s->software, strnlen(s->software, sizeof(d->software)));
	slot_encode_lists(s, d);
	d->since = cpu_to_le64(s->since);
	meta_seal(d, &e, s->sequence);
	memcpy(sector, u.bytes, sector_size);
}

/* What a slot may say; a valid checksum proves the writer, not its good sense (R9). */
static int slot_check(const struct slot_disk *d, uint64_t addr, char *why, size_t why_size)
{
	uint32_t state = le32_to_cpu(d->state), recoverer = le32_to_cpu(d->recoverer);
	const char *field = NULL;

	if (MUTANT("trust-slots"))
		return 0;
	if (le32_to_cpu(d->generation) == 0)
		field = "generation";
	else if (state > SLOT_JOINING)
		field = "state";
	else if (state == SLOT_RECOVERING ? recoverer >= SLOT_COUNT_MAX : recoverer != SLOT_NONE)
		field = "recoverer";
	else if (state == SLOT_RECOVERING && le32_to_cpu(d->recoverer_generation) == 0)
		field = "recoverer generation";
	else if (meta_version(d) != le64_to_cpu(d->sequence))
		field = "version";
	for (unsigned int i = 0; i < SLOT_WANTS; i++)
		if (le32_to_cpu(d->wants[i].mode) > LOCK_MULTI)
			field = "mode of a want";
	for (unsigned int i = 0; i < SLOT_DENIALS; i++)
		if (le64_to_cpu(d->denials[i].addr) != 0 &&
		    le32_to_cpu(d->denials[i].slot) >= SLOT_COUNT_MAX)
			field = "slot of a denial";
	for (size_t i = 0; i < META_SECTOR_SIZE - offsetof(struct slot_disk, zero); i++)
		if (d->zero[i])
			field = "reserved bytes";
	if (!field)
		return 0;
	if (why)
		snprintf(why, why_size, "slot block 0x%llx: impossible %s (state %u, recoverer %u)",
			 (unsigned long long)addr, field, state, recoverer);
	return -EUCLEAN;
}

static void slot_decode_lists(const struct slot_disk *d, struct slot *s)
{
	s->want_stamp = le32_to_cpu(d->want_stamp);
	for (unsigned int i = 0; i < SLOT_WANTS; i++) {
		s->wants[i].addr = le64_to_cpu(d->wants[i].addr);
		s->wants[i].mode = le32_to_cpu(d->wants[i].mode);
		s->wants[i].stamp = le32_to_cpu(d->wants[i].stamp);
	}
	for (unsigned int i = 0; i < SLOT_DENIALS; i++) {
		s->denials[i].addr = le64_to_cpu(d->denials[i].addr);
		s->denials[i].slot = le32_to_cpu(d->denials[i].slot);
		s->denials[i].stamp = le32_to_cpu(d->denials[i].stamp);
	}
}

int slot_decode(const void *sector, const uint8_t volume[16], uint64_t addr, uint32_t index,
		struct slot *s, char *why, size_t why_size)
{
	struct meta_expect e = slot_expect(volume, addr, index);
	const struct slot_disk *d = sector;
	int err;

	err = meta_verify(sector, &e, why, why_size);
	if (err)
		return err;
	err = slot_check(d, addr, why, why_size);
	if (err)
		return err;
	memset(s, 0, sizeof(*s));
	s->index = index;
	memcpy(s->host_id, d->host_id, sizeof(s->host_id));
	memcpy(s->boot_id, d->boot_id, sizeof(s->boot_id));
	s->sequence = le64_to_cpu(d->sequence);
	s->generation = le32_to_cpu(d->generation);
	s->state = le32_to_cpu(d->state);
	s->recoverer = le32_to_cpu(d->recoverer);
	s->recoverer_generation = le32_to_cpu(d->recoverer_generation);
	s->key = le64_to_cpu(d->key);
	s->pid = le32_to_cpu(d->pid);
	s->flags = le32_to_cpu(d->flags);
	s->pid_start = le64_to_cpu(d->pid_start);
	text_printable(d->host_name, sizeof(d->host_name), s->host_name, sizeof(s->host_name));
	text_printable(d->software, sizeof(d->software), s->software, sizeof(s->software));
	slot_decode_lists(d, s);
	s->since = le64_to_cpu(d->since);
	return 0;
}

void slot_rebuilt(struct env *env, uint32_t index, struct slot *s)
{
	uint64_t minutes = env_realtime_ns(env) / NSEC_PER_SEC / 60;

	*s = (struct slot){
		.index = index, .state = SLOT_FREE, .recoverer = SLOT_NONE,
		.generation = (1u << 31) + (uint32_t)(minutes & 0x3fffffff),
		.sequence = 1 + env_random_below(env, 1ULL << 62),
	};
}

const char *slot_state_name(enum slot_state state)
{
	switch (state) {
	case SLOT_FREE:
		return "free";
	case SLOT_LIVE:
		return "live";
	case SLOT_RECOVERING:
		return "recovering";
	case SLOT_JOINING:
		return "joining";
	}
	return "unknown";
}
