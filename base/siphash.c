// SPDX-License-Identifier: Apache-2.0
/* SipHash-2-4 after Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012. */
#include "base/siphash.h"

struct state {
	uint64_t v0, v1, v2, v3;
};

static inline uint64_t rotl(uint64_t x, unsigned int n)
{
	return x << n | x >> (64 - n);
}

static inline void sip_round(struct state *s)
{
	s->v0 += s->v1;
	s->v1 = rotl(s->v1, 13) ^ s->v0;
	s->v0 = rotl(s->v0, 32);
	s->v2 += s->v3;
	s->v3 = rotl(s->v3, 16) ^ s->v2;
	s->v0 += s->v3;
	s->v3 = rotl(s->v3, 21) ^ s->v0;
	s->v2 += s->v1;
	s->v1 = rotl(s->v1, 17) ^ s->v2;
	s->v2 = rotl(s->v2, 32);
}

static inline uint64_t load64(const uint8_t *p)
{
	uint64_t x;

	memcpy(&x, p, sizeof(x));
	return le64toh(x);
}

static void compress(struct state *s, uint64_t word)
{
	s->v3 ^= word;
	sip_round(s);
	sip_round(s);
	s->v0 ^= word;
}

uint64_t siphash24(const uint8_t key[16], const void *buf, size_t len)
{
	uint64_t k0 = load64(key), k1 = load64(key + 8);
	struct state s = {	/* the paper's constants: "somepseudorandomlygeneratedbytes" */
		.v0 = k0 ^ 0x736f6d6570736575,
		.v1 = k1 ^ 0x646f72616e646f6d,
		.v2 = k0 ^ 0x6c7967656e657261,
		.v3 = k1 ^ 0x7465646279746573,
	};
	const uint8_t *p = buf;
	uint8_t last[8] = { 0 };	/* the bytes left over, and the length in the eighth */
	size_t rest = len % 8;

	for (size_t i = 0; i + 8 <= len; i += 8)
		compress(&s, load64(p + i));
	if (rest)
		memcpy(last, p + len - rest, rest);
	last[7] = (uint8_t)len;
	compress(&s, load64(last));
	s.v2 ^= 0xff;
	for (int i = 0; i < 4; i++)
		sip_round(&s);
	return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}
