/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hostile front end: a ring of its making, changed while it is read, an in-flight area of
 * its making, and any messages in any order with descriptors of the wrong kind.
 */
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/fuzz/vhost_front.h"

#define MEM	65536u
#define AREA	4096u
#define QSIZE	16u
#define SHRUNK	4096u

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	front_init();
	return 0;
}

/* All that a ring needs, so that what follows is about its contents. */
static void set_up(struct front *f, struct fuzz_input *in)
{
	unsigned int choice = (unsigned int)fuzz_number(in, 1);
	uint32_t base = (uint32_t)fuzz_number(in, 1) * 0x10001u;
	uint64_t features = FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VHU_F_PROTOCOL_FEATURES) |
			    FEATURE(VIRTIO_F_INDIRECT_DESC) | FEATURE(BLK_F_DISCARD) |
			    FEATURE(BLK_F_WRITE_ZEROES);
	struct mem_reg_wire reg = { .region = { 0, MEM, 0, 0 } };
	struct vring_addr_wire addr = { .avail = 0x400, .used = 0x800, .log = 0x800,
					.flags = choice >> 4 & 1 };

	if (choice & 1)
		features |= FEATURE(VIRTIO_F_RING_PACKED);
	if (choice & 2)
		features |= FEATURE(VIRTIO_F_EVENT_IDX);
	if (choice & 16)
		features |= FEATURE(VHU_F_LOG_ALL);
	front_send_u64(f, VHU_SET_PROTOCOL_FEATURES, 0xb22b, -1);
	front_send_u64(f, VHU_SET_FEATURES, features, -1);
	front_send(f, VHU_ADD_MEM_REG, &reg, sizeof(reg), f->mem_fd);
	if (choice & 4)
		front_send(f, VHU_SET_INFLIGHT_FD, &(struct inflight_wire){ AREA, 0, 1, QSIZE, 0 },
			 24, f->area_fd);
	if (choice & 16)
		front_send(f, VHU_SET_LOG_BASE, &(struct log_wire){ 2, 0 }, 16, f->area_fd);
	front_send(f, VHU_SET_VRING_NUM, &(struct vring_state_wire){ 0, QSIZE }, 8, -1);
	front_send(f, VHU_SET_VRING_BASE, &(struct vring_state_wire){ 0, base }, 8, -1);
	front_send(f, VHU_SET_VRING_ADDR, &addr, sizeof(addr), -1);
	front_send_u64(f, VHU_SET_VRING_CALL, 0, f->kick_fd);
	front_send(f, VHU_SET_VRING_ENABLE, &(struct vring_state_wire){ 0, 1 }, 8, -1);
	front_send_u64(f, VHU_SET_VRING_KICK, 0, f->kick_fd);
}

static void any_message(struct front *f, struct fuzz_input *in)
{
	const int fds[] = { -1, f->mem_fd, f->area_fd, f->kick_fd, f->pipe_fd, f->sock, -1, -1 };
	uint32_t request = (uint32_t)fuzz_number(in, 1) % 42;
	int fd = fds[fuzz_number(in, 1) % ARRAY_SIZE(fds)];
	size_t size = fuzz_number(in, 1) % 64;
	uint8_t payload[64];

	fuzz_take(in, payload, size);
	front_send(f, request, payload, size, fd);
}

static void poke(struct front *f, struct fuzz_input *in, bool shrunk)
{
	unsigned int at = (unsigned int)fuzz_number(in, 2) % 0x1800;
	unsigned int len = (unsigned int)fuzz_number(in, 1) % 32;

	if (shrunk)
		at %= SHRUNK - 32;	/* our own access must not fail */
	fuzz_take(in, f->mem + at, len);
	eventfd_write(f->kick_fd, 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	uint8_t area[1024];
	bool shrunk = false;
	struct front f;

	front_open(&f, MEM, AREA);
	fuzz_take(&in, area, fuzz_number(&in, 1) * 4);
	FUZZ_CHECK(pwrite(f.area_fd, area, sizeof(area), 0) == sizeof(area));
	fuzz_take(&in, f.mem, fuzz_number(&in, 2) % 0x1000);
	set_up(&f, &in);
	while (in.left) {
		unsigned int what = (unsigned int)fuzz_number(&in, 1) % 8;

		if (what < 5) {
			poke(&f, &in, shrunk);
		} else if (what < 7) {
			any_message(&f, &in);
		} else {
			shrunk = fuzz_number(&in, 1) & 1;
			FUZZ_CHECK(ftruncate(f.mem_fd, shrunk ? SHRUNK : MEM) == 0);
		}
	}
	front_barrier(&f);
	front_close(&f);
	return 0;
}
