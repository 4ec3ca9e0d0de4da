/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The registers of a virtio-mmio device, version 2, whose queues somebody else serves.
 * Source: Virtual I/O Device (VIRTIO) Version 1.2, 4.2.2 and 3.1.
 *
 *   reset ──► ACKNOWLEDGE ──► DRIVER ──► FEATURES_OK ──► DRIVER_OK: start()
 *     ▲                                                      │
 *     └──────────── the driver writes 0: stop() ◄────────────┘
 *
 * Notifications do not come through here (ioeventfd), nor do interrupts (irqfd).  So nobody
 * here knows whether an interrupt was for used buffers: InterruptStatus says that it was
 * whenever the device runs, and a driver that looks finds none at worst.
 */
#ifndef LUNFS_KVM_MMIO_H
#define LUNFS_KVM_MMIO_H

#include <pthread.h>
#include <stdatomic.h>

#include "kvm/memory.h"

#define MMIO_QUEUES_MAX		16
#define MMIO_QUEUE_SIZE_MAX	256
#define MMIO_CONFIG_SIZE	256
#define MMIO_QUEUE_NOTIFY	0x050	/* register offset, for the ioeventfd */

struct mmio_queue {
	uint32_t	size;
	bool		ready;
	uint64_t	desc, driver, device;	/* guest addresses */
};

struct mmio;

struct mmio_ops {
	/* The driver is ready: serve the queues that are.  Must not block. */
	void (*start)(struct mmio *d, void *arg);
	/* The device is reset: returns when nobody touches its queues any more. */
	void (*stop)(struct mmio *d, void *arg);
	/* Make the device's interrupt. */
	void (*interrupt)(struct mmio *d, void *arg);
};

/*
 * Set up by mmio_init(); then its mutex guards it, but for what is atomic.  A vCPU that resets
 * it holds the mutex as long as stop() takes: other threads than vCPUs must not wait for it.
 */
struct mmio {
	pthread_mutex_t	mutex;
	const struct mmio_ops *ops;
	void		*arg;
	const struct vm_memory *memory;
	uint32_t	device_id;
	uint64_t	features;		/* offered */
	uint64_t	driver_features;	/* taken */
	uint32_t	features_sel, driver_features_sel, queue_sel;
	atomic_uint	status;
	unsigned int	queue_count;
	struct mmio_queue queues[MMIO_QUEUES_MAX];
	bool		running;		/* between start() and stop() */
	atomic_bool	changed;		/* an interrupt for the configuration is pending */
	pthread_mutex_t	config_mutex;		/* guards what follows */
	uint32_t	generation;
	uint8_t		config[MMIO_CONFIG_SIZE];
};

struct mmio_params {
	const struct mmio_ops *ops;
	void		*arg;
	const struct vm_memory *memory;	/* borrowed */
	uint32_t	device_id;	/* 2: block */
	uint64_t	features;	/* with VIRTIO_F_VERSION_1 */
	unsigned int	queue_count;	/* to MMIO_QUEUES_MAX */
};

void mmio_init(struct mmio *d, const struct mmio_params *p);

/** mmio_set_config() - another configuration space; a driver that runs is told. Any thread. */
void mmio_set_config(struct mmio *d, const void *config, size_t size);

/** mmio_fail() - the device needs a reset; the driver is told.  Any thread. */
void mmio_fail(struct mmio *d);

/**
 * mmio_read(), mmio_write() - the guest accesses @len bytes at @offset of the device's page.
 * Accesses that make no sense read as zero and write nothing.  A vCPU's thread; blocks while
 * stop() does.
 */
uint64_t mmio_read(struct mmio *d, uint64_t offset, unsigned int len);
void mmio_write(struct mmio *d, uint64_t offset, unsigned int len, uint64_t value);

#endif
