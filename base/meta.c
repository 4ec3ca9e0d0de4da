// SPDX-License-Identifier: Apache-2.0
#include "base/meta.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/crc32c.h"
#include "base/mutant.h"
#include "base/text.h"

uint32_t meta_length(enum meta_type type)
{
	return type == META_SLOT || type == META_LOCK ? META_SECTOR_SIZE : META_BLOCK_SIZE;
}

/* The checksum of @block with its own field taken as zero. */
static uint32_t block_crc(const void *block, uint32_t length)
{
	const uint8_t *p = block;
	const size_t start = offsetof(struct meta_hdr_disk, crc);
	const size_t end = start + sizeof(le32);
	static const uint8_t zero[sizeof(le32)];
	uint32_t crc;

	crc = crc32c(0, p, start);
	crc = crc32c(crc, zero, sizeof(zero));
	return crc32c(crc, p + end, length - end);
}

void meta_seal(void *block, const struct meta_expect *e, uint64_t version)
{
	struct meta_hdr_disk *hdr = block;
	uint32_t length = meta_length(e->type);

	assert(e->volume);
	assert(e->birth <= UINT16_MAX);
	memset(hdr, 0, sizeof(*hdr));
	hdr->magic = cpu_to_le32(e->type);
	hdr->length = cpu_to_le32(length);
	hdr->birth = cpu_to_le32(e->birth);
	memcpy(hdr->volume, e->volume, sizeof(hdr->volume));
	hdr->addr = cpu_to_le64(e->addr);
	hdr->owner = cpu_to_le64(e->owner);
	hdr->version = cpu_to_le64(version);
	hdr->crc = cpu_to_le32(block_crc(block, length));
}

/* What meta_verify() says about the first thing it does not believe. */
struct complaint {
	const struct meta_expect *e;
	char *why;
	size_t why_size;
};

static int field_differs(const struct complaint *c, const char *field, uint64_t expected,
			 uint64_t found)
{
	if (c->why)
		snprintf(c->why, c->why_size,
			 "%s block 0x%" PRIx64 ": %s is 0x%" PRIx64 ", expected 0x%" PRIx64,
			 meta_type_name(c->e->type), c->e->addr, field, found, expected);
	return -EUCLEAN;
}

static int volume_differs(const struct complaint *c, const uint8_t found[16])
{
	char is[UUID_TEXT_SIZE], should[UUID_TEXT_SIZE];

	if (c->why)
		snprintf(c->why, c->why_size,
			 "%s block 0x%" PRIx64 ": volume is %s, expected %s",
			 meta_type_name(c->e->type), c->e->addr, text_format_uuid(found, is),
			 text_format_uuid(c->e->volume, should));
	return -EUCLEAN;
}

int meta_verify(const void *block, const struct meta_expect *e, char *why, size_t why_size)
{
	static const uint8_t zero[sizeof(((struct meta_hdr_disk *)NULL)->zero)];
	const struct meta_hdr_disk *hdr = block;
	const struct complaint c = { e, why, why_size };
	uint32_t length = meta_length(e->type), crc;

	/* Magic and length first: they say which bytes the checksum covers, if it is one. */
	if (le32_to_cpu(hdr->magic) != e->type)
		return field_differs(&c, "type", e->type, le32_to_cpu(hdr->magic));
	if (le32_to_cpu(hdr->length) != length)
		return field_differs(&c, "length", length, le32_to_cpu(hdr->length));
	crc = block_crc(block, length);
	if (le32_to_cpu(hdr->crc) != crc && !MUTANT("no-checksum")) {
		field_differs(&c, "checksum", crc, le32_to_cpu(hdr->crc));
		return -EBADMSG;
	}
	if (e->volume && memcmp(hdr->volume, e->volume, sizeof(hdr->volume)))
		return volume_differs(&c, hdr->volume);
	if (le64_to_cpu(hdr->addr) != e->addr && !MUTANT("any-address"))
		return field_differs(&c, "address", e->addr, le64_to_cpu(hdr->addr));
	if (le64_to_cpu(hdr->owner) != e->owner)
		return field_differs(&c, "owner", e->owner, le64_to_cpu(hdr->owner));
	if (le32_to_cpu(hdr->birth) != e->birth)
		return field_differs(&c, "birth stamp", e->birth, le32_to_cpu(hdr->birth));
	if (memcmp(hdr->zero, zero, sizeof(zero)))
		return field_differs(&c, "a reserved byte not zero", 0, 1);
	return 0;
}

uint64_t meta_version(const void *block)
{
	const struct meta_hdr_disk *hdr = block;

	return le64_to_cpu(hdr->version);
}

const char *meta_type_name(uint32_t magic)
{
	switch ((enum meta_type)magic) {
	case META_SUPER:	return "superblock";
	case META_SLOT:		return "host slot";
	case META_LOCK:		return "lock";
	case META_TAIL:		return "journal tail";
	case META_DESC:		return "journal descriptor";
	case META_COMMIT:	return "journal commit";
	case META_AG:		return "allocation group";
	case META_BITMAP:	return "bitmap";
	case META_ITABLE:	return "inode table";
	case META_INODE:	return "inode";
	case META_MAP_NODE:	return "map node";
	case META_MAP_LEAF:	return "map leaf";
	case META_DIR_NODE:	return "directory node";
	case META_DIR_LEAF:	return "directory leaf";
	case META_XATTR:	return "extended attributes";
	case META_ORPHAN:	return "orphan list";
	}
	return "unknown";
}
