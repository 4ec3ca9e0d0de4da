// SPDX-License-Identifier: Apache-2.0
#include "base/crc32c.h"

#include <isa-l/crc.h>

/* crc32_iscsi() takes its length as an int. */
#define CHUNK_MAX	(1u << 30)

uint32_t crc32c(uint32_t seed, const void *buf, size_t len)
{
	/* ISA-L takes buf without const and does not write to it. */
	unsigned char *p = (unsigned char *)(uintptr_t)buf;
	uint32_t crc = ~seed;	/* it leaves both inversions of the CRC to its caller */

	while (len) {
		size_t chunk = len < CHUNK_MAX ? len : CHUNK_MAX;

		crc = crc32_iscsi(p, (int)chunk, crc);
		p += chunk;
		len -= chunk;
	}
	return ~crc;
}
