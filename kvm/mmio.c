/* SPDX-License-Identifier: Apache-2.0 */
#include "kvm/mmio.h"

#include "vhost/virtio.h"

enum {
	REG_MAGIC = 0x000, REG_VERSION = 0x004, REG_DEVICE_ID = 0x008, REG_VENDOR_ID = 0x00c,
	REG_FEATURES = 0x010, REG_FEATURES_SEL = 0x014,
	REG_DRIVER_FEATURES = 0x020, REG_DRIVER_FEATURES_SEL = 0x024,
	REG_QUEUE_SEL = 0x030, REG_QUEUE_SIZE_MAX = 0x034, REG_QUEUE_SIZE = 0x038,
	REG_QUEUE_READY = 0x044, REG_INTERRUPT_STATUS = 0x060, REG_INTERRUPT_ACK = 0x064,
	REG_STATUS = 0x070, REG_DESC_LOW = 0x080, REG_DESC_HIGH = 0x084,
	REG_DRIVER_LOW = 0x090, REG_DRIVER_HIGH = 0x094, REG_DEVICE_LOW = 0x0a0,
	REG_DEVICE_HIGH = 0x0a4, REG_SHM_LEN_LOW = 0x0b0, REG_SHM_BASE_HIGH = 0x0bc,
	REG_GENERATION = 0x0fc, REG_CONFIG = 0x100,
};

#define MAGIC			0x74726976u	/* "virt" */
#define VENDOR			0x464e554cu	/* "LUNF" */
#define STATUS_ACKNOWLEDGE	1u
#define STATUS_DRIVER		2u
#define STATUS_DRIVER_OK	4u
#define STATUS_FEATURES_OK	8u
#define STATUS_NEEDS_RESET	64u
#define STATUS_FAILED		128u
#define INTERRUPT_USED		1u
#define INTERRUPT_CONFIG	2u

void mmio_init(struct mmio *d, const struct mmio_params *p)
{
	assert(p->queue_count <= MMIO_QUEUES_MAX);
	memset(d, 0, sizeof(*d));
	pthread_mutex_init(&d->mutex, NULL);
	pthread_mutex_init(&d->config_mutex, NULL);
	d->ops = p->ops;
	d->arg = p->arg;
	d->memory = p->memory;
	d->device_id = p->device_id;
	d->features = p->features;
	d->queue_count = p->queue_count;
}

/* ---- what comes from outside ---- */

static void tell_changed(struct mmio *d)
{
	if (!(atomic_load(&d->status) & STATUS_DRIVER_OK))
		return;
	atomic_store(&d->changed, true);
	d->ops->interrupt(d, d->arg);
}

void mmio_set_config(struct mmio *d, const void *config, size_t size)
{
	assert(size <= MMIO_CONFIG_SIZE);
	pthread_mutex_lock(&d->config_mutex);
	memcpy(d->config, config, size);
	d->generation++;
	pthread_mutex_unlock(&d->config_mutex);
	tell_changed(d);
}

void mmio_fail(struct mmio *d)
{
	atomic_fetch_or(&d->status, STATUS_NEEDS_RESET);
	tell_changed(d);
}

/* ---- the driver's way through the states ---- */

static bool features_are_fine(const struct mmio *d)
{
	return !(d->driver_features & ~d->features) &&
	       d->driver_features & FEATURE(VIRTIO_F_VERSION_1);
}

/* Rings that lie in memory, as the specification aligns them (2.7). */
static bool queue_is_fine(const struct mmio *d, const struct mmio_queue *q)
{
	uint64_t n = q->size;

	if (!q->ready)
		return true;
	return n && n <= MMIO_QUEUE_SIZE_MAX && !(n & (n - 1)) &&
	       !(q->desc % 16) && !(q->driver % 2) && !(q->device % 4) &&
	       memory_at(d->memory, q->desc, n * sizeof(struct desc_wire)) &&
	       memory_at(d->memory, q->driver, sizeof(struct avail_wire) + 2 * n + 2) &&
	       memory_at(d->memory, q->device,
			 sizeof(struct used_wire) + n * sizeof(struct used_elem_wire) + 2);
}

static bool queues_are_fine(const struct mmio *d)
{
	for (unsigned int i = 0; i < d->queue_count; i++)
		if (!queue_is_fine(d, &d->queues[i]))
			return false;
	return true;
}

static void reset(struct mmio *d)
{
	if (d->running)
		d->ops->stop(d, d->arg);
	d->running = false;
	d->status = 0;
	d->driver_features = 0;
	d->features_sel = d->driver_features_sel = d->queue_sel = 0;
	memset(d->queues, 0, sizeof(d->queues));
	atomic_store(&d->changed, false);
}

static void go(struct mmio *d)
{
	if (!(d->status & STATUS_FEATURES_OK) || !queues_are_fine(d)) {
		d->status |= STATUS_NEEDS_RESET;
		tell_changed(d);
		return;
	}
	d->running = true;
	d->ops->start(d, d->arg);
}

static void set_status(struct mmio *d, uint32_t value)
{
	uint32_t added = value & ~d->status;

	if (!value) {
		reset(d);
		return;
	}
	/* Bits are only ever added; NEEDS_RESET is ours. */
	d->status |= value & (STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FAILED);
	if (added & STATUS_FEATURES_OK && features_are_fine(d))
		d->status |= STATUS_FEATURES_OK;
	if (added & STATUS_DRIVER_OK) {
		d->status |= STATUS_DRIVER_OK;
		go(d);
	}
}

/* ---- registers ---- */

static struct mmio_queue *selected(struct mmio *d)
{
	return d->queue_sel < d->queue_count ? &d->queues[d->queue_sel] : NULL;
}

static uint32_t half(uint64_t v, uint32_t sel)
{
	return sel == 0 ? (uint32_t)v : sel == 1 ? (uint32_t)(v >> 32) : 0;
}

static void set_half(uint64_t *v, bool high, uint32_t value)
{
	if (high)
		*v = (*v & 0xffffffffull) | (uint64_t)value << 32;
	else
		*v = (*v & ~0xffffffffull) | value;
}

static uint32_t interrupt_status(const struct mmio *d)
{
	return (d->running ? INTERRUPT_USED : 0) |
	       (atomic_load(&d->changed) ? INTERRUPT_CONFIG : 0);
}

static uint32_t read_register(struct mmio *d, uint64_t offset)
{
	const struct mmio_queue *q = selected(d);

	switch (offset) {
	case REG_MAGIC:
		return MAGIC;
	case REG_VERSION:
		return 2;
	case REG_DEVICE_ID:
		return d->device_id;
	case REG_VENDOR_ID:
		return VENDOR;
	case REG_FEATURES:
		return half(d->features, d->features_sel);
	case REG_QUEUE_SIZE_MAX:
		return q ? MMIO_QUEUE_SIZE_MAX : 0;
	case REG_QUEUE_READY:
		return q && q->ready;
	case REG_INTERRUPT_STATUS:
		return interrupt_status(d);
	case REG_STATUS:
		return d->status;
	default:
		/* Length and base of shared memory, of which there is none: all ones. */
		return offset >= REG_SHM_LEN_LOW && offset <= REG_SHM_BASE_HIGH ? ~0u : 0;
	}
}

static void write_queue(struct mmio *d, uint64_t offset, uint32_t value)
{
	struct mmio_queue *q = selected(d);

	/* What is served does not move. */
	if (!q || d->running || (q->ready && offset != REG_QUEUE_READY))
		return;
	switch (offset) {
	case REG_QUEUE_SIZE:
		q->size = value;
		break;
	case REG_QUEUE_READY:
		q->ready = value & 1;
		break;
	case REG_DESC_LOW:
	case REG_DESC_HIGH:
		set_half(&q->desc, offset == REG_DESC_HIGH, value);
		break;
	case REG_DRIVER_LOW:
	case REG_DRIVER_HIGH:
		set_half(&q->driver, offset == REG_DRIVER_HIGH, value);
		break;
	case REG_DEVICE_LOW:
	case REG_DEVICE_HIGH:
		set_half(&q->device, offset == REG_DEVICE_HIGH, value);
		break;
	default:
		break;
	}
}

static void write_register(struct mmio *d, uint64_t offset, uint32_t value)
{
	switch (offset) {
	case REG_FEATURES_SEL:
		d->features_sel = value;
		break;
	case REG_DRIVER_FEATURES_SEL:
		d->driver_features_sel = value;
		break;
	case REG_DRIVER_FEATURES:
		if (!(d->status & STATUS_FEATURES_OK) && d->driver_features_sel <= 1)
			set_half(&d->driver_features, d->driver_features_sel, value);
		break;
	case REG_QUEUE_SEL:
		d->queue_sel = value;
		break;
	case REG_INTERRUPT_ACK:
		if (value & INTERRUPT_CONFIG)
			atomic_store(&d->changed, false);
		break;
	case REG_STATUS:
		set_status(d, value);
		break;
	default:
		write_queue(d, offset, value);
	}
}

/* The configuration may be read in pieces of any size; registers only whole. */
static uint64_t read_config(struct mmio *d, uint64_t offset, unsigned int len)
{
	uint64_t value = 0;

	pthread_mutex_lock(&d->config_mutex);
	if (offset == REG_GENERATION)
		value = d->generation;
	else if (len <= sizeof(value) && offset - REG_CONFIG <= MMIO_CONFIG_SIZE - len)
		memcpy(&value, d->config + (offset - REG_CONFIG), len);
	pthread_mutex_unlock(&d->config_mutex);
	return value;
}

uint64_t mmio_read(struct mmio *d, uint64_t offset, unsigned int len)
{
	uint64_t value = 0;

	if (offset >= REG_CONFIG || (offset == REG_GENERATION && len == 4))
		return read_config(d, offset, len);
	pthread_mutex_lock(&d->mutex);
	if (len == 4 && offset % 4 == 0)
		value = read_register(d, offset);
	pthread_mutex_unlock(&d->mutex);
	return value;
}

void mmio_write(struct mmio *d, uint64_t offset, unsigned int len, uint64_t value)
{
	/* Of the configuration nothing can be written: writeback is not offered. */
	if (len != 4 || offset % 4 || offset >= REG_CONFIG)
		return;
	pthread_mutex_lock(&d->mutex);
	write_register(d, offset, (uint32_t)value);
	pthread_mutex_unlock(&d->mutex);
}
