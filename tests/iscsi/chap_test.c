// SPDX-License-Identifier: Apache-2.0
#include "iscsi/chap.h"

#include "tests/unit.h"

static const struct tgt_secret secret = { 21, "a secret of 21 bytes!" };

/* Computed with Python's hashlib over 5a, the secret, and 00 01 … 1f. */
static const struct {
	enum tgt_chap_alg alg;
	const char *response;
} vectors[] = {
	{ TGT_CHAP_MD5, "0xe25109bd82d7ca17e3af4db9846d4079" },
	{ TGT_CHAP_SHA1, "0xec0ca54f1355ea7da163bede6f31346229a808b1" },
	{ TGT_CHAP_SHA256, "0x1ba48f7e3b2a9fc0c9c1df4e65b74889e0d45f4411219a8bf1d83954ddd1dd9f" },
	{ TGT_CHAP_SHA3_256, "0xc428ddb81cd0502147b3f29a64152915a652648a59f828b7608cfd9f81a8e491" },
};

static void fill(uint8_t challenge[32])
{
	for (unsigned int i = 0; i < 32; i++)
		challenge[i] = (uint8_t)i;
}

static void responses_are_what_others_compute(void)
{
	uint8_t challenge[32], response[TGT_CHAP_DIGEST_MAX];
	char text[2 * TGT_CHAP_DIGEST_MAX + 3];

	fill(challenge);
	for (unsigned int i = 0; i < ARRAY_SIZE(vectors); i++) {
		CU_ASSERT_EQUAL(tgt_chap_response(vectors[i].alg, 0x5a, &secret, challenge, 32,
						  response), 0);
		tgt_value_hex(response, tgt_chap_digest_len(vectors[i].alg), text);
		CU_ASSERT_STRING_EQUAL(text, vectors[i].response);
	}
}

/* Every part counts: the identifier, the secret, the challenge, the algorithm and the length. */
static void only_the_right_response_is_believed(void)
{
	uint8_t challenge[32], r[TGT_CHAP_DIGEST_MAX + 1] = { 0 };
	struct tgt_secret other = secret;

	fill(challenge);
	other.bytes[20] ^= 1;
	for (unsigned int i = 0; i < ARRAY_SIZE(vectors); i++) {
		enum tgt_chap_alg alg = vectors[i].alg;
		size_t len = tgt_chap_digest_len(alg);

		tgt_chap_response(alg, 0x5a, &secret, challenge, 32, r);
		CU_ASSERT(tgt_chap_verify(alg, 0x5a, &secret, challenge, 32, r, len));
		CU_ASSERT_FALSE(tgt_chap_verify(alg, 0x5b, &secret, challenge, 32, r, len));
		CU_ASSERT_FALSE(tgt_chap_verify(alg, 0x5a, &other, challenge, 32, r, len));
		CU_ASSERT_FALSE(tgt_chap_verify(alg, 0x5a, &secret, challenge, 31, r, len));
		CU_ASSERT_FALSE(tgt_chap_verify(alg, 0x5a, &secret, challenge, 32, r, len - 1));
		CU_ASSERT_FALSE(tgt_chap_verify(alg, 0x5a, &secret, challenge, 32, r, len + 1));
		CU_ASSERT_FALSE(tgt_chap_verify(alg, 0x5a, &secret, challenge, 32, r, 0));
		r[len - 1] ^= 1;
		CU_ASSERT_FALSE(tgt_chap_verify(alg, 0x5a, &secret, challenge, 32, r, len));
	}
}

static enum tgt_chap_alg choose(const char *list, unsigned int allowed)
{
	struct tgt_pair pair = { "CHAP_A", list, 6, strlen(list) };

	return tgt_chap_choose(&pair, allowed);
}

static void the_first_algorithm_that_is_allowed_is_chosen(void)
{
	CU_ASSERT_EQUAL(choose("7,5", TGT_CHAP_ALL), TGT_CHAP_SHA256);
	CU_ASSERT_EQUAL(choose("5,7", TGT_CHAP_ALL), TGT_CHAP_MD5);
	CU_ASSERT_EQUAL(choose("5,6,8", 1u << TGT_CHAP_SHA3_256), TGT_CHAP_SHA3_256);
	CU_ASSERT_EQUAL(choose("0x6", TGT_CHAP_ALL), TGT_CHAP_SHA1);
	CU_ASSERT_EQUAL(choose("5", TGT_CHAP_ALL & ~(1u << TGT_CHAP_MD5)), TGT_CHAP_NONE);
	CU_ASSERT_EQUAL(choose("", TGT_CHAP_ALL), TGT_CHAP_NONE);
	CU_ASSERT_EQUAL(choose("0,1,4,9,32,33,64,4294967301,x,-5", ~0u), TGT_CHAP_NONE);
}

static void this_machine_has_all_algorithms(void)
{
	CU_ASSERT_EQUAL(tgt_chap_available(), TGT_CHAP_ALL);
}

UNIT_MAIN("chap", UNIT_TEST(responses_are_what_others_compute),
	  UNIT_TEST(only_the_right_response_is_believed),
	  UNIT_TEST(the_first_algorithm_that_is_allowed_is_chosen),
	  UNIT_TEST(this_machine_has_all_algorithms));
