// SPDX-License-Identifier: Apache-2.0
#include "base/text.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define SIZE_MAX_BYTES	(1ULL << 63)
#define FRACTION_DIGITS	18	/* 10^18 < 2^60: times 2^50 it still fits 128 bits */

static const char units[] = "BKMGTPE";

/* Reads "K", "KB", "KiB", "B" or "" to the end of the string; the shift, or -1. */
static int parse_unit(const char *s)
{
	int shift = 0;

	if (*s && toupper((unsigned char)*s) != 'B') {
		const char *unit = strchr(units, toupper((unsigned char)*s));

		if (!unit || *unit == 'E')
			return -1;
		shift = 10 * (int)(unit - units);
		s++;
		if (tolower((unsigned char)s[0]) == 'i' && toupper((unsigned char)s[1]) == 'B')
			s++;
	}
	if (toupper((unsigned char)*s) == 'B')
		s++;
	return *s ? -1 : shift;
}

/* Digits at *@s into @value, times ten each; false if none or too many. */
static bool parse_digits(const char **s, uint64_t *value, uint64_t *scale)
{
	const char *p = *s;

	*value = 0;
	*scale = 1;
	for (; isdigit((unsigned char)*p); p++) {
		if (*value > SIZE_MAX_BYTES / 10)
			return false;
		*value = *value * 10 + (uint64_t)(*p - '0');
		if (*scale <= UINT64_MAX / 10)
			*scale *= 10;
	}
	if (p == *s)
		return false;
	*s = p;
	return true;
}

int text_parse_size(const char *s, uint64_t *bytes)
{
	uint64_t whole, fraction = 0, scale = 1;
	unsigned __int128 total, part;
	int shift;

	if (!parse_digits(&s, &whole, &scale))
		return -EINVAL;
	scale = 1;
	if (*s == '.') {
		const char *start = ++s;

		if (!parse_digits(&s, &fraction, &scale) || s - start > FRACTION_DIGITS)
			return -EINVAL;
	}
	shift = parse_unit(s);
	if (shift < 0)
		return -EINVAL;
	part = (unsigned __int128)fraction << shift;
	if (part % scale)
		return -EINVAL;
	total = ((unsigned __int128)whole << shift) + part / scale;
	if (total > SIZE_MAX_BYTES)
		return -EINVAL;
	*bytes = (uint64_t)total;
	return 0;
}

char *text_format_size(uint64_t bytes, char *buf, size_t buf_size)
{
	unsigned __int128 tenths = 0;
	unsigned int unit = 0;

	if (bytes < KIB) {
		snprintf(buf, buf_size, "%" PRIu64 " B", bytes);
		return buf;
	}
	/* The first unit in which the rounded number is below 1024. */
	do {
		unit++;
		tenths = ((unsigned __int128)bytes * 10 + (1ULL << (10 * unit - 1))) >> (10 * unit);
	} while (tenths >= 10240 && units[unit + 1]);
	snprintf(buf, buf_size, "%u.%u %ciB", (unsigned int)tenths / 10,
		 (unsigned int)tenths % 10, units[unit]);
	return buf;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static bool hyphen_before(unsigned int byte)
{
	return byte == 4 || byte == 6 || byte == 8 || byte == 10;
}

int text_parse_uuid(const char *s, uint8_t uuid[16])
{
	uint8_t out[16];

	for (unsigned int i = 0; i < 16; i++) {
		int high, low;

		if (hyphen_before(i) && *s++ != '-')
			return -EINVAL;
		high = hex_digit(s[0]);
		low = high < 0 ? -1 : hex_digit(s[1]);
		if (low < 0)
			return -EINVAL;
		out[i] = (uint8_t)(high << 4 | low);
		s += 2;
	}
	if (*s)
		return -EINVAL;
	memcpy(uuid, out, sizeof(out));
	return 0;
}

char *text_format_uuid(const uint8_t uuid[16], char *buf)
{
	static const char hex[] = "0123456789abcdef";
	char *p = buf;

	for (unsigned int i = 0; i < 16; i++) {
		if (hyphen_before(i))
			*p++ = '-';
		*p++ = hex[uuid[i] >> 4];
		*p++ = hex[uuid[i] & 15];
	}
	*p = '\0';
	return buf;
}

/*
 * Bytes of the well-formed, printable UTF-8 character at @s (Unicode 15, table 3-7), or 0:
 * what is not well-formed would break JSON output, and C1 controls steer terminals.
 */
static size_t printable_length(const uint8_t *s, size_t len)
{
	size_t n;
	uint32_t c;

	if (s[0] < 0x80)
		return s[0] >= 0x20 && s[0] != 0x7f;
	if (s[0] < 0xc2 || s[0] > 0xf4)
		return 0;
	n = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
	if (len < n)
		return 0;
	c = s[0] & (0x7fu >> n);
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3fu);
	}
	if (c < 0xa0 || (n == 3 && c < 0x800) || (n == 4 && c < 0x10000) || c > 0x10ffff ||
	    (c >= 0xd800 && c <= 0xdfff))
		return 0;
	return n;
}

char *text_printable(const char *s, size_t len, char *buf, size_t buf_size)
{
	size_t in = 0, out = 0;

	assert(buf_size > 0);
	len = strnlen(s, len);
	while (in < len) {
		size_t n = printable_length((const uint8_t *)s + in, len - in);

		if (out + (n ? n : 1) >= buf_size)
			break;
		if (n)
			memcpy(buf + out, s + in, n);
		else
			buf[out] = '?';
		in += n ? n : 1;
		out += n ? n : 1;
	}
	buf[out] = '\0';
	return buf;
}

int text_refuse(int err, char *why, size_t why_size, const char *fmt, ...)
{
	va_list ap;

	if (why && why_size) {
		va_start(ap, fmt);
		vsnprintf(why, why_size, fmt, ap);
		va_end(ap);
	}
	return err;
}
