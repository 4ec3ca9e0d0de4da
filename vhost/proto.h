/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What crosses the socket.  Source: QEMU, docs/interop/vhost-user.rst.  Numbers are in the
 * machine's own byte order: both ends run on it.
 */
#ifndef LUNFS_VHOST_PROTO_H
#define LUNFS_VHOST_PROTO_H

#include "base/types.h"

enum vhu_msg_type {
	VHU_GET_FEATURES = 1,
	VHU_SET_FEATURES = 2,
	VHU_SET_OWNER = 3,
	VHU_RESET_OWNER = 4,
	VHU_SET_MEM_TABLE = 5,
	VHU_SET_LOG_BASE = 6,
	VHU_SET_LOG_FD = 7,
	VHU_SET_VRING_NUM = 8,
	VHU_SET_VRING_ADDR = 9,
	VHU_SET_VRING_BASE = 10,
	VHU_GET_VRING_BASE = 11,
	VHU_SET_VRING_KICK = 12,
	VHU_SET_VRING_CALL = 13,
	VHU_SET_VRING_ERR = 14,
	VHU_GET_PROTOCOL_FEATURES = 15,
	VHU_SET_PROTOCOL_FEATURES = 16,
	VHU_GET_QUEUE_NUM = 17,
	VHU_SET_VRING_ENABLE = 18,
	VHU_SET_BACKEND_REQ_FD = 21,
	VHU_GET_CONFIG = 24,
	VHU_SET_CONFIG = 25,
	VHU_GET_INFLIGHT_FD = 31,
	VHU_SET_INFLIGHT_FD = 32,
	VHU_RESET_DEVICE = 34,
	VHU_GET_MAX_MEM_SLOTS = 36,
	VHU_ADD_MEM_REG = 37,
	VHU_REM_MEM_REG = 38,
};

#define VHU_BACKEND_CONFIG_CHANGE 2	/* the other way, over the back end's channel */

/* Bits of msg_hdr_wire.flags. */
#define VHU_VERSION_MASK	3u
#define VHU_VERSION		1u
#define VHU_FLAG_REPLY		(1u << 2)
#define VHU_FLAG_NEED_REPLY	(1u << 3)

/* Protocol features: bit numbers. */
#define VHU_PF_MQ		0
#define VHU_PF_LOG_SHMFD	1
#define VHU_PF_REPLY_ACK	3
#define VHU_PF_BACKEND_REQ	5
#define VHU_PF_CONFIG		9
#define VHU_PF_INFLIGHT_SHMFD	12
#define VHU_PF_RESET_DEVICE	13
#define VHU_PF_CONFIGURE_MEM_SLOTS 15

/* Feature bits that belong to vhost, beside those of virtio. */
#define VHU_F_LOG_ALL		26
#define VHU_F_PROTOCOL_FEATURES	30

#define VHU_FDS_MAX		8	/* descriptors that come with one message */
#define VHU_CONFIG_MAX		256	/* bytes of configuration space */
#define VHU_VRING_INDEX		0xffu	/* of the u64 that kick, call and err come with */
#define VHU_VRING_NOFD		0x100u
#define VHU_VRING_F_LOG		1u	/* vring_addr_wire.flags */
#define VHU_LOG_PAGE		4096u

struct msg_hdr_wire {
	uint32_t	request;	/* 0  enum vhu_msg_type */
	uint32_t	flags;		/* 4 */
	uint32_t	size;		/* 8  of the payload */
};
static_assert(sizeof(struct msg_hdr_wire) == 12, "the payload follows 12 bytes");

struct vring_state_wire {
	uint32_t	index;
	uint32_t	num;
};

struct vring_addr_wire {
	uint32_t	index;		/*  0 */
	uint32_t	flags;		/*  4 */
	uint64_t	desc;		/*  8  user addresses, all three */
	uint64_t	used;		/* 16  packed: the device's event suppression */
	uint64_t	avail;		/* 24  packed: the driver's event suppression */
	uint64_t	log;		/* 32  guest address of the used ring, for the dirty log */
};
static_assert(sizeof(struct vring_addr_wire) == 40, "vhost-user.rst, vring address");

struct mem_region_wire {
	uint64_t	guest_addr;
	uint64_t	size;
	uint64_t	user_addr;
	uint64_t	mmap_offset;
};
static_assert(sizeof(struct mem_region_wire) == 32, "vhost-user.rst, memory region");

struct mem_table_wire {
	uint32_t	count;
	uint32_t	padding;
	struct mem_region_wire regions[VHU_FDS_MAX];
};
static_assert(sizeof(struct mem_table_wire) == 264, "vhost-user.rst, memory regions");

struct mem_reg_wire {
	uint64_t	padding;
	struct mem_region_wire region;
};
static_assert(sizeof(struct mem_reg_wire) == 40, "vhost-user.rst, single memory region");

struct log_wire {
	uint64_t	size;
	uint64_t	offset;
};

struct config_wire {
	uint32_t	offset;
	uint32_t	size;
	uint32_t	flags;
	uint8_t		bytes[VHU_CONFIG_MAX];
};
static_assert(sizeof(struct config_wire) == 12 + VHU_CONFIG_MAX, "no padding");

struct inflight_wire {
	uint64_t	mmap_size;	/*  0 */
	uint64_t	mmap_offset;	/*  8 */
	uint16_t	queue_count;	/* 16 */
	uint16_t	queue_size;	/* 18 */
	uint32_t	padding;	/* 20  a C struct's; front ends send 24 bytes or 20 */
};
static_assert(sizeof(struct inflight_wire) == 24, "vhost-user.rst, inflight");

union payload_wire {
	uint64_t	u64;
	struct vring_state_wire state;
	struct vring_addr_wire addr;
	struct mem_table_wire mem;
	struct mem_reg_wire mem_reg;
	struct log_wire	log;
	struct config_wire config;
	struct inflight_wire inflight;
	uint8_t		bytes[512];
};

struct vhu_msg {
	struct msg_hdr_wire hdr;
	union payload_wire p;
	int		fds[VHU_FDS_MAX];	/* -1: taken, or never there */
	unsigned int	fd_count;
};

#endif
