/* SPDX-License-Identifier: Apache-2.0 */
/* What the fuzzers of vhost/ share: a device on a disk in memory, and a front end's socket. */
#ifndef LUNFS_TESTS_FUZZ_VHOST_FRONT_H
#define LUNFS_TESTS_FUZZ_VHOST_FRONT_H

#include "tests/fuzz/fuzz.h"
#include "vhost/proto.h"
#include "vhost/vhu.h"
#include "vhost/virtio.h"

#define FRONT_DISK	65536u	/* bytes of the disk */

struct front {
	int sock;
	int kick_fd;	/* of the device's life, as pipe_fd: a descriptor of the wrong kind */
	int pipe_fd;
	int mem_fd, area_fd;	/* the guest's memory; the in-flight area, or a dirty log */
	uint8_t *mem;
	size_t mem_size;
};

/** front_init() - the device, one for all inputs: each must leave it as it found it. */
void front_init(void);

/** front_open() - connects, with @mem_size bytes of memory and @area_size of area. */
void front_open(struct front *f, size_t mem_size, size_t area_size);

/** front_close() - hangs up and waits until the device has forgotten us. */
void front_close(struct front *f);

/** front_send() - a message; that the device has cut us off is no fault. */
void front_send(struct front *f, uint32_t request, const void *p, size_t size, int fd);
void front_send_u64(struct front *f, uint32_t request, uint64_t u, int fd);

/** front_barrier() - waits until all that was sent is served, or we were cut off; the last. */
void front_barrier(struct front *f);

#endif
