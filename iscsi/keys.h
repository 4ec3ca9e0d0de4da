/* SPDX-License-Identifier: Apache-2.0 */
/*
 * key=value text of login and text PDUs: taking apart, putting together, and the encodings of
 * values.  RFC 7143, 6.1 (text format).
 */
#ifndef LUNFS_ISCSI_KEYS_H
#define LUNFS_ISCSI_KEYS_H

#include "base/types.h"

enum {
	TGT_KEY_MAX	= 63,	/* bytes of a key name */
	TGT_VALUE_MAX	= 255,	/* of a value, unless its key says otherwise */
	TGT_NAME_MAX	= 223,	/* of an iSCSI name, RFC 7143, 4.2.7.1 */
	TGT_BINARY_MAX	= 1024,	/* of a decoded CHAP_C or CHAP_R, RFC 7143, 12.1.3 */
};

/* A pair as it lies in the sender's text; nothing is copied. */
struct tgt_pair {
	const char *key, *value;
	size_t key_len, value_len;
};

/**
 * tgt_pair_next() - the next pair of the text that begins at *@pos.
 * @end: behind the text.
 *
 * Empty pairs (a NUL beside another, as padding leaves them) are passed over.
 * Return: 1 with @pair, and *@pos behind it; 0 at the end; -EPROTO a pair without NUL or '=',
 * a key that is none or too long, or a control character.
 */
int tgt_pair_next(const char **pos, const char *end, struct tgt_pair *pair);

/** tgt_pair_is() - whether @pair has the key @key; case counts. */
bool tgt_pair_is(const struct tgt_pair *pair, const char *key);

/** tgt_pair_copy() - the value, terminated.  Return: 0; -EMSGSIZE it does not fit. */
int tgt_pair_copy(const struct tgt_pair *pair, char *buf, size_t size);

/**
 * tgt_value_number() - a decimal or hexadecimal constant below 2^64.
 * Return: 0; -EINVAL anything else, a decimal number with leading zeros too.
 */
int tgt_value_number(const char *s, size_t len, uint64_t *value);

/**
 * tgt_value_binary() - a hexadecimal ("0x") or base64 ("0b") constant of whole bytes.
 * Return: 0 with *@out_len; -EINVAL it is neither; -EMSGSIZE longer than @size.
 */
int tgt_value_binary(const char *s, size_t len, uint8_t *out, size_t size, size_t *out_len);

/** tgt_value_hex() - "0x" and two digits a byte; @out of 2 * @len + 3 bytes.  Returns @out. */
char *tgt_value_hex(const uint8_t *data, size_t len, char *out);

/**
 * tgt_pair_item() - item @index of a comma-separated list.
 * Return: true with its place; false: there are not so many.
 */
bool tgt_pair_item(const struct tgt_pair *pair, unsigned int index, const char **item,
			size_t *len);

/**
 * tgt_name_is_valid() - whether @s is an iSCSI name: "iqn.", "eui." or "naa." of the right
 * form in lower case, at most 223 bytes (RFC 7143, 4.2.7.2; RFC 3722).
 */
bool tgt_name_is_valid(const char *s);

/**
 * tgt_name_normalize() - a peer's iSCSI name, made comparable: ASCII letters become small.
 *
 * More is let through than tgt_name_is_valid() would: initiators are named by people and by
 * QEMU (after the virtual machine), and what matters here is that equal names compare equal.
 * Return: false for what is no name at all, or has spaces, commas or control characters.
 */
bool tgt_name_normalize(char *s);

/* Text that is being put together, in the caller's memory. */
struct tgt_keys {
	char	*buf;
	size_t	size, len;
	bool	full;		/* something did not fit and was left out */
};

/** tgt_keys_init() - empty, in @size bytes at @buf. */
void tgt_keys_init(struct tgt_keys *t, char *buf, size_t size);

/** tgt_keys_add() - appends @key, '=', @value and a NUL; sets @full instead if it is. */
void tgt_keys_add(struct tgt_keys *t, const char *key, const char *value);
void tgt_keys_add_number(struct tgt_keys *t, const char *key, uint64_t value);

#endif
