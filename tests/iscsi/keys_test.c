// SPDX-License-Identifier: Apache-2.0
#include "iscsi/keys.h"

#include <errno.h>

#include "tests/unit.h"

static void pairs_are_taken_one_by_one(void)
{
	static const char text[] = "A=1\0\0Key.x-+@_9=v=w\0iEmpty=\0";
	const char *pos = text, *end = text + sizeof(text) - 1;
	struct tgt_pair pair;

	CU_ASSERT_EQUAL(tgt_pair_next(&pos, end, &pair), 1);
	CU_ASSERT(tgt_pair_is(&pair, "A") && !tgt_pair_is(&pair, "a") && !tgt_pair_is(&pair, "AB"));
	CU_ASSERT(pair.value_len == 1 && pair.value[0] == '1');
	CU_ASSERT_EQUAL(tgt_pair_next(&pos, end, &pair), 1);
	CU_ASSERT(tgt_pair_is(&pair, "Key.x-+@_9") && !memcmp(pair.value, "v=w", 4));
	CU_ASSERT_EQUAL(tgt_pair_next(&pos, end, &pair), 1);
	CU_ASSERT(tgt_pair_is(&pair, "iEmpty") && pair.value_len == 0);
	CU_ASSERT_EQUAL(tgt_pair_next(&pos, end, &pair), 0);
	CU_ASSERT_EQUAL(tgt_pair_next(&pos, end, &pair), 0);
}

/* A peer that ends its text in the middle of a pair would otherwise have us read on behind it. */
static void broken_pairs_are_refused(void)
{
	static const struct { const char *text; size_t len; } bad[] = {
		{ "A=1", 3 }, { "A", 2 }, { "=1", 3 }, { "A b=1", 6 }, { "9=1", 4 },
		{ "A=\001", 4 }, { "A=\177", 4 }, { "A=x\ny", 6 },
		{ "Kxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx9=1", 67 },
	};
	struct tgt_pair pair;

	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		const char *pos = bad[i].text;

		CU_ASSERT_EQUAL(tgt_pair_next(&pos, pos + bad[i].len, &pair), -EPROTO);
	}
}

static void check_number(const char *s, int err, uint64_t expected)
{
	uint64_t value = 77;

	CU_ASSERT_EQUAL(tgt_value_number(s, strlen(s), &value), err);
	CU_ASSERT_EQUAL(value, err ? 77 : expected);
}

static void numbers_are_decimal_or_hexadecimal(void)
{
	check_number("0", 0, 0);
	check_number("262144", 0, 262144);
	check_number("0x1fF", 0, 511);
	check_number("0X0", 0, 0);
	check_number("18446744073709551615", 0, UINT64_MAX);
	check_number("0xffffffffffffffff", 0, UINT64_MAX);
	check_number("18446744073709551616", -EINVAL, 0);
	check_number("0x10000000000000000", -EINVAL, 0);
	check_number("", -EINVAL, 0);
	check_number("0x", -EINVAL, 0);
	check_number("01", -EINVAL, 0);
	check_number("-1", -EINVAL, 0);
	check_number("1 ", -EINVAL, 0);
	check_number("1~2", -EINVAL, 0);
	check_number("0xg", -EINVAL, 0);
}

static void check_binary(const char *s, int err, const char *expected)
{
	uint8_t out[5];
	size_t len = 0;

	CU_ASSERT_EQUAL(tgt_value_binary(s, strlen(s), out, sizeof(out), &len), err);
	CU_ASSERT(err || (len == strlen(expected) && !memcmp(out, expected, len)));
}

static void binary_values_are_hexadecimal_or_base64(void)
{
	check_binary("0x6162", 0, "ab");
	check_binary("0X6162636465", 0, "abcde");
	check_binary("0bYQ==", 0, "a");
	check_binary("0bYWI=", 0, "ab");
	check_binary("0BYWJj", 0, "abc");
	check_binary("0bYWJjZGU=", 0, "abcde");
	check_binary("0x616", -EINVAL, "");		/* half a byte */
	check_binary("0x61626364656667", -EMSGSIZE, "");
	check_binary("0bYWJjZGVm", -EMSGSIZE, "");	/* six bytes */
	check_binary("0bYQ", -EINVAL, "");		/* padding missing */
	check_binary("0bYR==", -EINVAL, "");		/* bits behind the end */
	check_binary("0bY===", -EINVAL, "");
	check_binary("0b=", -EINVAL, "");
	check_binary("0x", -EINVAL, "");
	check_binary("6162", -EINVAL, "");
	check_binary("", -EINVAL, "");
}

static void every_byte_survives_hexadecimal(void)
{
	uint8_t bytes[256], back[256];
	char text[2 * 256 + 3];
	size_t len;

	for (unsigned int i = 0; i < 256; i++)
		bytes[i] = (uint8_t)i;
	tgt_value_hex(bytes, sizeof(bytes), text);
	CU_ASSERT_EQUAL(tgt_value_binary(text, strlen(text), back, sizeof(back), &len), 0);
	CU_ASSERT(len == 256 && !memcmp(bytes, back, 256));
}

static void lists_are_taken_apart_at_commas(void)
{
	struct tgt_pair pair = { "K", "CRC32C,,None", 1, 12 };
	const char *item;
	size_t len;

	CU_ASSERT(tgt_pair_item(&pair, 0, &item, &len) && len == 6);
	CU_ASSERT(tgt_pair_item(&pair, 1, &item, &len) && len == 0);
	CU_ASSERT(tgt_pair_item(&pair, 2, &item, &len) && len == 4 && *item == 'N');
	CU_ASSERT_FALSE(tgt_pair_item(&pair, 3, &item, &len));
}

static void names_have_the_form_of_the_standard(void)
{
	static const char *const good[] = {
		"iqn.2026-01.example:disk1", "iqn.1994-05.com.red-hat:x", "eui.02004567A425678D",
		"naa.52004567BA64678D", "naa.62004567BA64678D0123456789ABCDEF",
		"iqn.2026-01.ex\303\244mple",
	};
	static const char *const bad[] = {
		"", "iqn", "iqn.", "iqn.2026-01.", "iqn.2026-1.example", "iqn.2026-01.Example",
		"iqn.2026-01.exam ple", "iqn.2026-01.example,1", "iqn.2026-01.exa_mple",
		"eui.123", "naa.52004567BA64678", "eui.0200456gA425678D", "disk1",
	};
	char longest[TGT_NAME_MAX + 2] = "iqn.2026-01.example:";

	for (unsigned int i = 0; i < ARRAY_SIZE(good); i++)
		CU_ASSERT(tgt_name_is_valid(good[i]));
	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++)
		CU_ASSERT_FALSE(tgt_name_is_valid(bad[i]));
	memset(longest + 20, 'x', TGT_NAME_MAX - 20);
	CU_ASSERT(tgt_name_is_valid(longest));
	longest[TGT_NAME_MAX] = 'x';
	CU_ASSERT_FALSE(tgt_name_is_valid(longest));
}

/* An initiator in the list must not get past it, or be kept out, by the case of its letters. */
static void names_of_peers_compare_equal(void)
{
	char name[] = "IQN.1991-05.Com.Microsoft:Host_1", space[] = "iqn.1991-05.com.x y";
	char list[] = "iqn.1991-05.com.x,y", none[] = "host";

	CU_ASSERT(tgt_name_normalize(name));
	CU_ASSERT_STRING_EQUAL(name, "iqn.1991-05.com.microsoft:host_1");
	CU_ASSERT_FALSE(tgt_name_normalize(space));
	CU_ASSERT_FALSE(tgt_name_normalize(list));
	CU_ASSERT_FALSE(tgt_name_normalize(none));
}

static void text_that_does_not_fit_is_left_out_whole(void)
{
	char buf[12];
	struct tgt_keys t;

	tgt_keys_init(&t, buf, sizeof(buf));
	tgt_keys_add(&t, "A", "1");
	tgt_keys_add_number(&t, "Bc", 1234);
	CU_ASSERT(t.len == 12 && !t.full && !memcmp(buf, "A=1\0Bc=1234", 12));
	tgt_keys_add(&t, "C", "");
	CU_ASSERT(t.full && t.len == 12);
}

UNIT_MAIN("keys", UNIT_TEST(pairs_are_taken_one_by_one), UNIT_TEST(broken_pairs_are_refused),
	  UNIT_TEST(numbers_are_decimal_or_hexadecimal),
	  UNIT_TEST(binary_values_are_hexadecimal_or_base64),
	  UNIT_TEST(every_byte_survives_hexadecimal), UNIT_TEST(lists_are_taken_apart_at_commas),
	  UNIT_TEST(names_have_the_form_of_the_standard), UNIT_TEST(names_of_peers_compare_equal),
	  UNIT_TEST(text_that_does_not_fit_is_left_out_whole));
