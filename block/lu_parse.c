/* SPDX-License-Identifier: Apache-2.0 */
#include "block/lu.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/bytes.h"

/* ---- VPD page 83h, SPC-4, 7.8.6 ---- */

#define PAGE_HEADER	4u
#define DESC_HEADER	4u

enum { ASSOC_LUN = 0, ASSOC_PORT = 1 };
enum { DESC_T10 = 1, DESC_EUI64 = 2, DESC_NAA = 3, DESC_NAME = 8 };

/* The descriptor at @*pos, if it lies within the page.  @*pos: the one after it. */
static const uint8_t *next_desc(const uint8_t *page, size_t len, size_t *pos)
{
	const uint8_t *desc = page + *pos;
	size_t end = PAGE_HEADER;

	if (len >= PAGE_HEADER)
		end = PAGE_HEADER + get_be16(page + 2);
	if (end > len)
		end = len;
	if (*pos + DESC_HEADER > end || *pos + DESC_HEADER + desc[3] > end)
		return NULL;
	*pos += DESC_HEADER + desc[3];
	return desc;
}

static void put_hex(const char *prefix, const uint8_t *data, size_t len, char *out, size_t size)
{
	size_t n = (size_t)snprintf(out, size, "%s", prefix);

	for (size_t i = 0; i < len && n + 3 <= size; i++)
		n += (size_t)snprintf(out + n, size - n, "%02x", data[i]);
}

/* Printable, and nothing that a log or a superblock could choke on. */
static void put_ascii(const char *prefix, const uint8_t *data, size_t len, char *out, size_t size)
{
	size_t n = (size_t)snprintf(out, size, "%s", prefix);

	if (n >= size)
		return;
	while (len && (data[len - 1] == ' ' || !data[len - 1]))
		len--;
	for (size_t i = 0; i < len && n + 1 < size; i++)
		out[n++] = isgraph(data[i]) ? (char)data[i] : '_';
	out[n] = '\0';
}

void lu_identity(const uint8_t *page, size_t len, char *out, size_t out_size)
{
	static const uint8_t ranks[16] = { [DESC_NAA] = 4, [DESC_EUI64] = 3, [DESC_NAME] = 2,
					   [DESC_T10] = 1 };
	unsigned int best = 0;
	size_t pos = PAGE_HEADER;
	const uint8_t *desc;

	out[0] = '\0';
	while ((desc = next_desc(page, len, &pos))) {
		unsigned int type = desc[1] & 0x0f;

		if ((desc[1] >> 4 & 3) != ASSOC_LUN || !desc[3] || ranks[type] <= best)
			continue;
		best = ranks[type];
		if (type == DESC_NAA)
			put_hex("naa.", desc + DESC_HEADER, desc[3], out, out_size);
		else if (type == DESC_EUI64)
			put_hex("eui.", desc + DESC_HEADER, desc[3], out, out_size);
		else
			put_ascii(type == DESC_T10 ? "t10." : "name.", desc + DESC_HEADER, desc[3],
				  out, out_size);
	}
}

int lu_port_group(const uint8_t *page, size_t len)
{
	size_t pos = PAGE_HEADER;
	const uint8_t *desc;

	while ((desc = next_desc(page, len, &pos))) {
		char name[256], *tag;
		long group;

		if ((desc[1] >> 4 & 3) != ASSOC_PORT || (desc[1] & 0x0f) != DESC_NAME)
			continue;
		memcpy(name, desc + DESC_HEADER, desc[3]);
		name[desc[3]] = '\0';
		tag = strstr(name, ",t,0x");
		if (!tag)
			continue;
		group = strtol(tag + 5, NULL, 16);
		return group >= 0 && group <= 0xffff ? (int)group : -1;
	}
	return -1;
}

/* ---- sense data, SPC-4, 4.5 ---- */

static bool sense_fixed(const uint8_t *s, size_t len, struct lu_sense *out)
{
	if (len < 14)
		return false;
	out->key = s[2] & 0x0f;
	out->asc = (uint16_t)get_be16(s + 12);
	out->has_lba = s[0] & 0x80;
	out->lba = get_be32(s + 3);
	return true;
}

static bool sense_descriptor(const uint8_t *s, size_t len, struct lu_sense *out)
{
	size_t end, pos = 8;

	if (len < 8)
		return false;
	out->key = s[1] & 0x0f;
	out->asc = (uint16_t)get_be16(s + 2);
	end = 8u + s[7] < len ? 8u + s[7] : len;
	for (; pos + 2 <= end; pos += 2u + s[pos + 1]) {
		if (s[pos] != 0 || pos + 12 > end || s[pos + 1] < 10 || !(s[pos + 2] & 0x80))
			continue;
		out->has_lba = true;
		out->lba = get_be64(s + pos + 4);
		break;
	}
	return true;
}

bool lu_sense(const uint8_t *data, size_t len, struct lu_sense *out)
{
	memset(out, 0, sizeof(*out));
	if (len < 1)
		return false;
	switch (data[0] & 0x7f) {
	case 0x70:
		return sense_fixed(data, len, out);
	case 0x72:
		return sense_descriptor(data, len, out);
	default:
		return false;	/* deferred errors (71h, 73h) are about another command */
	}
}
