// SPDX-License-Identifier: Apache-2.0
#include "base/text.h"

#include <errno.h>

#include "tests/unit.h"

static void check_size(const char *s, uint64_t expected)
{
	uint64_t bytes = ~0ULL;

	if (text_parse_size(s, &bytes) || bytes != expected)
		fprintf(stderr, "\"%s\" gives %llu\n", s, (unsigned long long)bytes);
	CU_ASSERT_EQUAL(bytes, expected);
}

static void sizes_are_read_in_binary_units(void)
{
	check_size("0", 0);
	check_size("4096", 4096);
	check_size("512B", 512);
	check_size("64M", 64 * MIB);
	check_size("64m", 64 * MIB);
	check_size("64MB", 64 * MIB);
	check_size("64MiB", 64 * MIB);
	check_size("20G", 20 * GIB);
	check_size("1.5TiB", TIB + TIB / 2);
	check_size("0.5k", 512);
	check_size("1.0", 1);
	check_size("8192P", 1ULL << 63);
}

/* --size -1 or 20X must not make a volume of some other size. */
static void what_is_not_a_size_is_refused(void)
{
	static const char *const bad[] = {
		"", " 1", "1 ", "-1", "+1", "G", ".5G", "1.", "1.G", "1.5", "0.3K", "1X", "1iB",
		"1Mi", "1BB", "1MM", "1E", "0x10", "1e3", "8193P", "9223372036854775809",
		"99999999999999999999999999", "1,5G", "1.2.3G",
		"0.000000000931322574615478515625G",	/* one byte, but too many digits */
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		uint64_t bytes = 77;

		if (text_parse_size(bad[i], &bytes) != -EINVAL)
			fprintf(stderr, "\"%s\" is accepted\n", bad[i]);
		CU_ASSERT_EQUAL(text_parse_size(bad[i], &bytes), -EINVAL);
		CU_ASSERT_EQUAL(bytes, 77);
	}
}

static void sizes_are_written_as_people_read_them(void)
{
	char buf[16];

	CU_ASSERT_STRING_EQUAL(text_format_size(0, buf, sizeof(buf)), "0 B");
	CU_ASSERT_STRING_EQUAL(text_format_size(1023, buf, sizeof(buf)), "1023 B");
	CU_ASSERT_STRING_EQUAL(text_format_size(1024, buf, sizeof(buf)), "1.0 KiB");
	CU_ASSERT_STRING_EQUAL(text_format_size(20 * GIB, buf, sizeof(buf)), "20.0 GiB");
	CU_ASSERT_STRING_EQUAL(text_format_size(GIB - 1, buf, sizeof(buf)), "1.0 GiB");
	CU_ASSERT_STRING_EQUAL(text_format_size(1536, buf, sizeof(buf)), "1.5 KiB");
	CU_ASSERT_STRING_EQUAL(text_format_size(64 * TIB, buf, sizeof(buf)), "64.0 TiB");
	CU_ASSERT_STRING_EQUAL(text_format_size(UINT64_MAX, buf, sizeof(buf)), "16.0 EiB");
}

static void uuids_survive_writing_and_reading(void)
{
	uint8_t uuid[16], again[16];
	char buf[UUID_TEXT_SIZE];

	for (unsigned int i = 0; i < 16; i++)
		uuid[i] = (uint8_t)(i * 17 + 1);
	text_format_uuid(uuid, buf);
	CU_ASSERT_STRING_EQUAL(buf, "01122334-4556-6778-899a-abbccddeef00");
	CU_ASSERT_EQUAL(text_parse_uuid(buf, again), 0);
	CU_ASSERT_EQUAL(memcmp(uuid, again, 16), 0);
	CU_ASSERT_EQUAL(text_parse_uuid("01122334-4556-6778-899A-ABBCCDDEEF00", again), 0);
	CU_ASSERT_EQUAL(memcmp(uuid, again, 16), 0);
}

static void what_is_not_a_uuid_is_refused(void)
{
	static const char *const bad[] = {
		"", "0", "01122334-4556-6778-899a-abbccddeef0", "01122334-4556-6778-899a-abbccddeef000",
		"011223344556-6778-899a-abbccddeef00", "0112233g-4556-6778-899a-abbccddeef00",
		"01122334-4556-6778-899a_abbccddeef00", "011223344556677889-9aabbccddeef00--",
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		uint8_t uuid[16] = { 9 };

		CU_ASSERT_EQUAL(text_parse_uuid(bad[i], uuid), -EINVAL);
		CU_ASSERT_EQUAL(uuid[0], 9);
	}
}

/* On-disk names are hostile: they must neither steer a terminal nor forge log lines (R9). */
static void hostile_names_are_defused(void)
{
	char buf[32];

	text_printable("a\n\x1b[2Jb\x7f", 32, buf, sizeof(buf));
	CU_ASSERT_STRING_EQUAL(buf, "a??[2Jb?");
	text_printable("gr\xc3\xbc\xc3\x9f", 32, buf, sizeof(buf));
	CU_ASSERT_STRING_EQUAL(buf, "gr\xc3\xbc\xc3\x9f");
	text_printable("\xc2\x9b", 32, buf, sizeof(buf));	/* CSI, a C1 control */
	CU_ASSERT_STRING_EQUAL(buf, "??");
	text_printable("\xff\xc0\xaf\xed\xa0\x80z", 32, buf, sizeof(buf));	/* not UTF-8 */
	CU_ASSERT_STRING_EQUAL(buf, "??????z");
	text_printable("\xe2\x82", 2, buf, sizeof(buf));	/* cut short */
	CU_ASSERT_STRING_EQUAL(buf, "??");
}

static void printable_text_fits_its_buffer(void)
{
	char buf[6];

	text_printable("abcdefgh", 8, buf, sizeof(buf));
	CU_ASSERT_STRING_EQUAL(buf, "abcde");
	text_printable("abcd\xc3\xbc", 8, buf, sizeof(buf));	/* no half character */
	CU_ASSERT_STRING_EQUAL(buf, "abcd");
	text_printable("abcdefgh", 3, buf, sizeof(buf));
	CU_ASSERT_STRING_EQUAL(buf, "abc");
	text_printable("ab\0cd", 5, buf, sizeof(buf));
	CU_ASSERT_STRING_EQUAL(buf, "ab");
	text_printable("ab", 2, buf, 1);
	CU_ASSERT_STRING_EQUAL(buf, "");
}

UNIT_MAIN("text",
	UNIT_TEST(sizes_are_read_in_binary_units),
	UNIT_TEST(what_is_not_a_size_is_refused),
	UNIT_TEST(sizes_are_written_as_people_read_them),
	UNIT_TEST(uuids_survive_writing_and_reading),
	UNIT_TEST(what_is_not_a_uuid_is_refused),
	UNIT_TEST(hostile_names_are_defused),
	UNIT_TEST(printable_text_fits_its_buffer));
