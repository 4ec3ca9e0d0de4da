/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What lies in the guest's memory: rings and requests.  Source: Virtual I/O Device (VIRTIO)
 * Version 1.2, sections 2.7 (split), 2.8 (packed) and 5.2 (block).  Little-endian.
 */
#ifndef LUNFS_VHOST_VIRTIO_H
#define LUNFS_VHOST_VIRTIO_H

#include "base/types.h"

/* Feature bits. */
#define VIRTIO_F_INDIRECT_DESC	28
#define VIRTIO_F_EVENT_IDX	29
#define VIRTIO_F_VERSION_1	32
#define VIRTIO_F_RING_PACKED	34
#define BLK_F_SIZE_MAX		1
#define BLK_F_SEG_MAX		2
#define BLK_F_RO		5
#define BLK_F_BLK_SIZE		6
#define BLK_F_FLUSH		9
#define BLK_F_TOPOLOGY		10
#define BLK_F_CONFIG_WCE	11
#define BLK_F_MQ		12
#define BLK_F_DISCARD		13
#define BLK_F_WRITE_ZEROES	14

#define FEATURE(bit)		(1ULL << (bit))

/* ---- both rings ---- */

#define DESC_F_NEXT		1u
#define DESC_F_WRITE		2u	/* the device writes it */
#define DESC_F_INDIRECT		4u

/* ---- split ring ---- */

struct desc_wire {
	le64	addr;
	le32	len;
	le16	flags;
	le16	next;
};
static_assert(sizeof(struct desc_wire) == 16, "virtio 2.7.5");

struct avail_wire {
	uint16_t	flags;		/* little-endian, accessed atomically */
	uint16_t	idx;
	uint16_t	ring[];		/* and after it used_event */
};

struct used_elem_wire {
	le32	id;
	le32	len;
};

struct used_wire {
	uint16_t	flags;
	uint16_t	idx;
	struct used_elem_wire ring[];	/* and after it avail_event */
};
static_assert(offsetof(struct used_wire, ring) == 4, "virtio 2.7.8");

#define AVAIL_F_NO_INTERRUPT	1u
#define USED_F_NO_NOTIFY	1u

/* ---- packed ring ---- */

struct packed_desc_wire {
	le64		addr;
	le32		len;
	le16		id;
	uint16_t	flags;		/* accessed atomically, first and last */
};
static_assert(sizeof(struct packed_desc_wire) == 16, "virtio 2.8.13");

#define PACKED_F_AVAIL		(1u << 7)
#define PACKED_F_USED		(1u << 15)

struct packed_event_wire {
	uint16_t	off_wrap;
	uint16_t	flags;
};

#define PACKED_EVENT_ENABLE	0u
#define PACKED_EVENT_DISABLE	1u
#define PACKED_EVENT_DESC	2u

/* ---- block device ---- */

#define BLK_T_IN		0u
#define BLK_T_OUT		1u
#define BLK_T_FLUSH		4u
#define BLK_T_GET_ID		8u
#define BLK_T_DISCARD		11u
#define BLK_T_WRITE_ZEROES	13u

#define BLK_S_OK		0
#define BLK_S_IOERR		1
#define BLK_S_UNSUPP		2

#define BLK_SECTOR		512u	/* the unit of the header, whatever the block size */

struct blk_header_wire {
	le32	type;
	le32	reserved;
	le64	sector;
};
static_assert(sizeof(struct blk_header_wire) == 16, "virtio 5.2.6");

struct blk_range_wire {
	le64	sector;
	le32	sectors;
	le32	flags;		/* bit 0: unmap, for WRITE_ZEROES */
};
static_assert(sizeof(struct blk_range_wire) == 16, "virtio 5.2.6");

struct blk_config_wire {
	le64	capacity;			/*  0  sectors of 512 bytes */
	le32	size_max;			/*  8 */
	le32	seg_max;			/* 12 */
	le16	cylinders;			/* 16 */
	uint8_t	heads;				/* 18 */
	uint8_t	sectors;			/* 19 */
	le32	blk_size;			/* 20 */
	uint8_t	physical_block_exp;		/* 24 */
	uint8_t	alignment_offset;		/* 25 */
	le16	min_io_size;			/* 26  logical blocks */
	le32	opt_io_size;			/* 28  logical blocks */
	uint8_t	writeback;			/* 32 */
	uint8_t	unused0;			/* 33 */
	le16	num_queues;			/* 34 */
	le32	max_discard_sectors;		/* 36 */
	le32	max_discard_seg;		/* 40 */
	le32	discard_sector_alignment;	/* 44 */
	le32	max_write_zeroes_sectors;	/* 48 */
	le32	max_write_zeroes_seg;		/* 52 */
	uint8_t	write_zeroes_may_unmap;		/* 56 */
	uint8_t	unused1[3];			/* 57 */
};
static_assert(sizeof(struct blk_config_wire) == 60, "virtio 5.2.4");
static_assert(offsetof(struct blk_config_wire, writeback) == 32, "virtio 5.2.4");
static_assert(offsetof(struct blk_config_wire, max_write_zeroes_sectors) == 48, "virtio 5.2.4");

#endif
