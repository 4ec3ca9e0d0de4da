/* SPDX-License-Identifier: Apache-2.0 */
#include "iscsi/keys.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

static bool is_upper(char c)
{
	return c >= 'A' && c <= 'Z';
}

static bool is_lower(char c)
{
	return c >= 'a' && c <= 'z';
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/*
 * standard-label of RFC 7143, 6.1, but for the capital that it begins with: the document's own
 * iSCSIProtocolLevel does not.  Not ctype, which asks the locale.
 */
static bool key_is_valid(const char *key, size_t len)
{
	if (!len || len > TGT_KEY_MAX || (!is_upper(key[0]) && !is_lower(key[0])))
		return false;
	for (size_t i = 1; i < len; i++)
		if (!is_upper(key[i]) && !is_lower(key[i]) && !is_digit(key[i]) &&
		    !memchr(".-+@_", key[i], 5))
			return false;
	return true;
}

int tgt_pair_next(const char **pos, const char *end, struct tgt_pair *pair)
{
	const char *p = *pos, *nul, *equals;

	while (p < end && !*p)
		p++;
	*pos = p;
	if (p == end)
		return 0;
	nul = memchr(p, '\0', (size_t)(end - p));
	if (!nul)
		return -EPROTO;
	equals = memchr(p, '=', (size_t)(nul - p));
	if (!equals || !key_is_valid(p, (size_t)(equals - p)))
		return -EPROTO;
	for (const char *c = equals + 1; c < nul; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			return -EPROTO;
	pair->key = p;
	pair->key_len = (size_t)(equals - p);
	pair->value = equals + 1;
	pair->value_len = (size_t)(nul - equals) - 1;
	*pos = nul + 1;
	return 1;
}

bool tgt_pair_is(const struct tgt_pair *pair, const char *key)
{
	return strlen(key) == pair->key_len && !memcmp(key, pair->key, pair->key_len);
}

int tgt_pair_copy(const struct tgt_pair *pair, char *buf, size_t size)
{
	if (pair->value_len >= size)
		return -EMSGSIZE;
	memcpy(buf, pair->value, pair->value_len);
	buf[pair->value_len] = '\0';
	return 0;
}

/* ---- values ---- */

static int hex_digit(char c)
{
	if (is_digit(c))
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

static bool has_prefix(const char *s, size_t len, char lower)
{
	return len > 2 && s[0] == '0' && (s[1] == lower || s[1] == lower - 'a' + 'A');
}

static int read_hex_number(const char *s, size_t len, uint64_t *value)
{
	uint64_t v = 0;

	for (size_t i = 0; i < len; i++) {
		int digit = hex_digit(s[i]);

		if (digit < 0 || v >> 60)
			return -EINVAL;
		v = v << 4 | (unsigned int)digit;
	}
	*value = v;
	return 0;
}

int tgt_value_number(const char *s, size_t len, uint64_t *value)
{
	uint64_t v = 0;

	if (has_prefix(s, len, 'x'))
		return read_hex_number(s + 2, len - 2, value);
	if (!len || (len > 1 && s[0] == '0'))
		return -EINVAL;
	for (size_t i = 0; i < len; i++) {
		if (!is_digit(s[i]) || __builtin_mul_overflow(v, 10, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(s[i] - '0'), &v))
			return -EINVAL;
	}
	*value = v;
	return 0;
}

static int decode_hex(const char *s, size_t len, uint8_t *out, size_t size, size_t *out_len)
{
	if (len % 2)
		return -EINVAL;
	if (len / 2 > size)
		return -EMSGSIZE;
	for (size_t i = 0; i < len; i += 2) {
		int high = hex_digit(s[i]), low = hex_digit(s[i + 1]);

		if (high < 0 || low < 0)
			return -EINVAL;
		out[i / 2] = (uint8_t)(high << 4 | low);
	}
	*out_len = len / 2;
	return 0;
}

static int base64_digit(char c)
{
	if (is_upper(c))
		return c - 'A';
	if (is_lower(c))
		return c - 'a' + 26;
	if (is_digit(c))
		return c - '0' + 52;
	if (c == '+')
		return 62;
	return c == '/' ? 63 : -1;
}

/* RFC 4648 without line breaks; the padding has to be there and what it cuts off zero. */
static int decode_base64(const char *s, size_t len, uint8_t *out, size_t size, size_t *out_len)
{
	size_t n = 0, pad = 0;
	unsigned int bits = 0, have = 0;

	while (pad < 2 && pad < len && s[len - 1 - pad] == '=')
		pad++;
	if (!len || len % 4)
		return -EINVAL;
	for (size_t i = 0; i < len - pad; i++) {
		int digit = base64_digit(s[i]);

		if (digit < 0)
			return -EINVAL;
		bits = (bits << 6 | (unsigned int)digit) & 0xffff;
		have += 6;
		if (have < 8)
			continue;
		have -= 8;
		if (n == size)
			return -EMSGSIZE;
		out[n++] = (uint8_t)(bits >> have);
	}
	if (bits & ((1u << have) - 1))
		return -EINVAL;
	*out_len = n;
	return 0;
}

int tgt_value_binary(const char *s, size_t len, uint8_t *out, size_t size, size_t *out_len)
{
	if (has_prefix(s, len, 'x'))
		return decode_hex(s + 2, len - 2, out, size, out_len);
	if (has_prefix(s, len, 'b'))
		return decode_base64(s + 2, len - 2, out, size, out_len);
	return -EINVAL;
}

char *tgt_value_hex(const uint8_t *data, size_t len, char *out)
{
	static const char digits[] = "0123456789abcdef";
	char *p = out;

	*p++ = '0';
	*p++ = 'x';
	for (size_t i = 0; i < len; i++) {
		*p++ = digits[data[i] >> 4];
		*p++ = digits[data[i] & 15];
	}
	*p = '\0';
	return out;
}

bool tgt_pair_item(const struct tgt_pair *pair, unsigned int index, const char **item,
			size_t *len)
{
	const char *p = pair->value, *end = p + pair->value_len;

	for (;;) {
		const char *comma = memchr(p, ',', (size_t)(end - p));

		if (!index) {
			*item = p;
			*len = (size_t)((comma ? comma : end) - p);
			return true;
		}
		if (!comma)
			return false;
		p = comma + 1;
		index--;
	}
}

/* ---- iSCSI names ---- */

/* "iqn.2026-01.", then what is left of a reversed domain name and what its owner chose. */
static bool iqn_is_valid(const char *s, size_t len)
{
	/* 0 a digit; else the character itself */
	static const char form[] = "iqn.0000-00.";

	if (len <= sizeof(form) - 1)
		return false;
	for (size_t i = 0; i < sizeof(form) - 1; i++)
		if (form[i] == '0' ? !is_digit(s[i]) : s[i] != form[i])
			return false;
	for (size_t i = sizeof(form) - 1; i < len; i++) {
		/* Beyond ASCII: characters of RFC 3722 that need tables to judge. */
		if ((unsigned char)s[i] >= 0x80 || is_lower(s[i]) || is_digit(s[i]))
			continue;
		if (!memchr("-.:", s[i], 3))
			return false;
	}
	return true;
}

static bool digits_are_hex(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (hex_digit(s[i]) < 0)
			return false;
	return true;
}

bool tgt_name_is_valid(const char *s)
{
	size_t len = strlen(s);

	if (len > TGT_NAME_MAX)
		return false;
	if (!strncmp(s, "iqn.", 4))
		return iqn_is_valid(s, len);
	if (!strncmp(s, "eui.", 4))
		return len == 4 + 16 && digits_are_hex(s + 4, 16);
	if (!strncmp(s, "naa.", 4))
		return (len == 4 + 16 || len == 4 + 32) && digits_are_hex(s + 4, len - 4);
	return false;
}

bool tgt_name_normalize(char *s)
{
	size_t len = strlen(s);

	for (char *p = s; *p; p++) {
		if ((unsigned char)*p <= 0x20 || *p == 0x7f || *p == ',')
			return false;
		if (is_upper(*p))
			*p = (char)(*p - 'A' + 'a');
	}
	return len > 4 && len <= TGT_NAME_MAX &&
	       (!memcmp(s, "iqn.", 4) || !memcmp(s, "eui.", 4) || !memcmp(s, "naa.", 4));
}

/* ---- putting together ---- */

void tgt_keys_init(struct tgt_keys *t, char *buf, size_t size)
{
	t->buf = buf;
	t->size = size;
	t->len = 0;
	t->full = false;
}

void tgt_keys_add(struct tgt_keys *t, const char *key, const char *value)
{
	size_t key_len = strlen(key), value_len = strlen(value);
	char *p = t->buf + t->len;

	if (key_len + value_len + 2 > t->size - t->len) {
		t->full = true;
		return;
	}
	memcpy(p, key, key_len);
	p[key_len] = '=';
	memcpy(p + key_len + 1, value, value_len + 1);
	t->len += key_len + value_len + 2;
}

void tgt_keys_add_number(struct tgt_keys *t, const char *key, uint64_t value)
{
	char buf[24];

	snprintf(buf, sizeof(buf), "%" PRIu64, value);
	tgt_keys_add(t, key, buf);
}
