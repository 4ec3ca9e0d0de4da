/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Integers as they lie on disk (little-endian) and on SCSI wires (big-endian).
 *
 * Each is a struct of bytes, so that arithmetic without a conversion does not compile and
 * nothing pads or needs alignment.
 */
#ifndef LUNFS_BASE_TYPES_H
#define LUNFS_BASE_TYPES_H

#include <assert.h>
#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct { uint8_t b[2]; } le16;
typedef struct { uint8_t b[4]; } le32;
typedef struct { uint8_t b[8]; } le64;

static inline uint16_t le16_to_cpu(le16 v)
{
	uint16_t x;

	memcpy(&x, v.b, sizeof(x));
	return le16toh(x);
}

static inline uint32_t le32_to_cpu(le32 v)
{
	uint32_t x;

	memcpy(&x, v.b, sizeof(x));
	return le32toh(x);
}

static inline uint64_t le64_to_cpu(le64 v)
{
	uint64_t x;

	memcpy(&x, v.b, sizeof(x));
	return le64toh(x);
}

static inline le16 cpu_to_le16(uint16_t x)
{
	le16 v;

	x = htole16(x);
	memcpy(v.b, &x, sizeof(x));
	return v;
}

static inline le32 cpu_to_le32(uint32_t x)
{
	le32 v;

	x = htole32(x);
	memcpy(v.b, &x, sizeof(x));
	return v;
}

static inline le64 cpu_to_le64(uint64_t x)
{
	le64 v;

	x = htole64(x);
	memcpy(v.b, &x, sizeof(x));
	return v;
}

typedef struct { uint8_t b[2]; } be16;
typedef struct { uint8_t b[3]; } be24;
typedef struct { uint8_t b[4]; } be32;
typedef struct { uint8_t b[8]; } be64;

static inline uint16_t be16_to_cpu(be16 v)
{
	uint16_t x;

	memcpy(&x, v.b, sizeof(x));
	return be16toh(x);
}

static inline uint32_t be24_to_cpu(be24 v)
{
	return (uint32_t)v.b[0] << 16 | (uint32_t)v.b[1] << 8 | v.b[2];
}

static inline uint32_t be32_to_cpu(be32 v)
{
	uint32_t x;

	memcpy(&x, v.b, sizeof(x));
	return be32toh(x);
}

static inline uint64_t be64_to_cpu(be64 v)
{
	uint64_t x;

	memcpy(&x, v.b, sizeof(x));
	return be64toh(x);
}

static inline be16 cpu_to_be16(uint16_t x)
{
	be16 v;

	x = htobe16(x);
	memcpy(v.b, &x, sizeof(x));
	return v;
}

/* @x is below 2^24. */
static inline be24 cpu_to_be24(uint32_t x)
{
	be24 v = { { (uint8_t)(x >> 16), (uint8_t)(x >> 8), (uint8_t)x } };

	return v;
}

static inline be32 cpu_to_be32(uint32_t x)
{
	be32 v;

	x = htobe32(x);
	memcpy(v.b, &x, sizeof(x));
	return v;
}

static inline be64 cpu_to_be64(uint64_t x)
{
	be64 v;

	x = htobe64(x);
	memcpy(v.b, &x, sizeof(x));
	return v;
}

#define ARRAY_SIZE(a)		(sizeof(a) / sizeof((a)[0]))
#define DIV_ROUND_UP(n, d)	(((n) + (d) - 1) / (d))
#define ALIGN_UP(x, a)		(DIV_ROUND_UP(x, a) * (a))
#define ALIGN_DOWN(x, a)	((x) / (a) * (a))

#define container_of(ptr, type, member) \
	((type *)(void *)((char *)(ptr) - offsetof(type, member)))

#define KIB	1024ULL
#define MIB	(1024ULL * KIB)
#define GIB	(1024ULL * MIB)
#define TIB	(1024ULL * GIB)

#define NSEC_PER_SEC	1000000000ULL
#define NSEC_PER_MSEC	1000000ULL

#endif
