// SPDX-License-Identifier: Apache-2.0
/* Persistent reservations of the scripted target, as far as LunFS uses them (SPC-4). */
#include "tests/block/mini_target.h"

enum { REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_ABORT, REGISTER_IGNORE };

#define CONFLICT	0x18
#define INVALID		0x02
#define WEAR		7	/* write exclusive, all registrants */

static uint64_t get64(const uint8_t *p)
{
	uint64_t v = 0;

	for (int i = 0; i < 8; i++)
		v = v << 8 | p[i];
	return v;
}

static void put64(uint8_t *p, uint64_t v)
{
	for (int i = 7; i >= 0; i--, v >>= 8)
		p[i] = (uint8_t)v;
}

static int find(const struct mini_pr *pr, uint64_t nexus)
{
	for (int i = 0; i < MINI_NEXUSES; i++)
		if (pr->reg[i].key && pr->reg[i].nexus == nexus)
			return i;
	return -1;
}

static unsigned int count(const struct mini_pr *pr)
{
	unsigned int n = 0;

	for (int i = 0; i < MINI_NEXUSES; i++)
		n += pr->reg[i].key != 0;
	return n;
}

bool mini_pr_conflict(const struct mini_target *t, uint64_t nexus, uint8_t opcode)
{
	bool writes = opcode == 0x8a || opcode == 0x89 || opcode == 0x93 || opcode == 0x42;

	return writes && t->pr.type && find(&t->pr, nexus) < 0;
}

static uint8_t do_register(struct mini_pr *pr, uint64_t nexus, uint64_t key, uint64_t sark,
			   bool ignore)
{
	int i = find(pr, nexus);

	if (!ignore && (i < 0 ? key != 0 : pr->reg[i].key != key))
		return CONFLICT;
	for (int n = 0; i < 0 && n < MINI_NEXUSES; n++)
		if (!pr->reg[n].key)
			i = n;
	if (i < 0)
		return INVALID;
	pr->reg[i].nexus = nexus;
	pr->reg[i].key = sark;
	if (!count(pr))
		pr->type = 0;
	pr->generation++;
	return 0;
}

static uint8_t preempt(struct mini_pr *pr, uint64_t sark)
{
	unsigned int gone = 0;

	for (int i = 0; i < MINI_NEXUSES; i++) {
		if (!sark || pr->reg[i].key != sark)
			continue;
		pr->reg[i].key = 0;
		gone++;
	}
	pr->generation += gone > 0;
	return gone ? 0 : CONFLICT;
}

static uint8_t pr_out(struct mini_pr *pr, uint64_t nexus, const uint8_t *cdb, const uint8_t *param)
{
	uint64_t key = get64(param), sark = get64(param + 8);
	int i = find(pr, nexus);

	switch (cdb[1] & 0x1f) {
	case REGISTER:
		return do_register(pr, nexus, key, sark, false);
	case REGISTER_IGNORE:
		return do_register(pr, nexus, key, sark, true);
	default:
		break;
	}
	if (i < 0 || pr->reg[i].key != key)
		return CONFLICT;
	switch (cdb[1] & 0x1f) {
	case RESERVE:
		if (pr->type && pr->type != (cdb[2] & 0xf))
			return CONFLICT;
		pr->type = cdb[2] & 0xf;
		return 0;
	case CLEAR:
		memset(pr->reg, 0, sizeof(pr->reg));
		pr->type = 0;
		pr->generation++;
		return 0;
	case PREEMPT: case PREEMPT_ABORT:
		return preempt(pr, sark);
	default:
		return INVALID;
	}
}

uint8_t mini_pr_out(struct mini_target *t, uint64_t nexus, const uint8_t *cdb,
		    const uint8_t *param)
{
	return pr_out(&t->pr, nexus, cdb, param);
}

uint32_t mini_pr_in(const struct mini_target *t, const uint8_t *cdb, uint8_t out[2048])
{
	const struct mini_pr *pr = &t->pr;
	uint32_t len = 8;

	put64(out, (uint64_t)pr->generation << 32);
	switch (cdb[1] & 0x1f) {
	case 0:		/* READ KEYS */
		for (int i = 0; i < MINI_NEXUSES; i++) {
			if (!pr->reg[i].key)
				continue;
			put64(out + len, pr->reg[i].key);
			len += 8;
		}
		break;
	case 1:		/* READ RESERVATION */
		if (!pr->type)
			break;
		len = 24;
		out[21] = pr->type;
		break;
	case 2:		/* REPORT CAPABILITIES */
		out[1] = 8;
		out[2] = 0x01;
		out[3] = 0x81;
		out[4] = 0x80;
		return 8;
	default:
		return 0;
	}
	out[6] = (uint8_t)((len - 8) >> 8);
	out[7] = (uint8_t)(len - 8);
	return len;
}
