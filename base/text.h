/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes, durations and UUIDs as people read and write them. */
#ifndef LUNFS_BASE_TEXT_H
#define LUNFS_BASE_TEXT_H

#include "base/types.h"

#define UUID_TEXT_SIZE	37

/**
 * text_parse_size() - "64M", "20G", "1.5TiB", "4096": binary units, K M G T P, any case, an
 * optional "iB" or "B".
 * Return: 0; -EINVAL not a size, a fraction of a byte, or over 2^63.
 */
int text_parse_size(const char *s, uint64_t *bytes);

/** text_format_size() - "20.0 GiB", "512 B"; @buf of at least 16 bytes; returns @buf. */
char *text_format_size(uint64_t bytes, char *buf, size_t buf_size);

/** text_parse_uuid() - 36 characters with hyphens, any case.  Return: 0 or -EINVAL. */
int text_parse_uuid(const char *s, uint8_t uuid[16]);

/** text_format_uuid() - lower case; @buf of UUID_TEXT_SIZE bytes; returns @buf. */
char *text_format_uuid(const uint8_t uuid[16], char *buf);

/**
 * text_printable() - copies at most @len bytes of @s up to a NUL, replacing control
 * characters with '?': on-disk names are hostile (R9).  Returns @buf, always terminated.
 */
char *text_printable(const char *s, size_t len, char *buf, size_t buf_size);

/**
 * text_refuse() - writes the reason to @why, if there is room for one, and returns @err.
 */
int text_refuse(int err, char *why, size_t why_size, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

#endif
