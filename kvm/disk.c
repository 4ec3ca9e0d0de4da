/* SPDX-License-Identifier: Apache-2.0 */
/* A disk of the machine: its registers, which vCPUs touch, and its server, behind a front end. */
#include <errno.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "kvm/machine.h"
#include "vhost/virtio.h"

#define DEVICE_BLOCK	2

/* Beside these a server may offer what is its own affair, or ours: rings are split. */
#define DISK_FEATURES								\
	(FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_F_EVENT_IDX) |		\
	 FEATURE(VIRTIO_F_INDIRECT_DESC) | FEATURE(BLK_F_SIZE_MAX) |		\
	 FEATURE(BLK_F_SEG_MAX) | FEATURE(BLK_F_RO) | FEATURE(BLK_F_BLK_SIZE) |	\
	 FEATURE(BLK_F_FLUSH) | FEATURE(BLK_F_TOPOLOGY) | FEATURE(BLK_F_MQ) |	\
	 FEATURE(BLK_F_DISCARD) | FEATURE(BLK_F_WRITE_ZEROES))

static const char *name_of(const struct vm_disk *d)
{
	return d->m->plan->disks[d->index].name;
}

/* The guest never sees more queues than we have. */
static void publish_config(struct vm_disk *d)
{
	struct blk_config_wire c;

	memcpy(&c, front_config(d->front), sizeof(c));
	c.num_queues = cpu_to_le16((uint16_t)d->queue_count);
	mmio_set_config(&d->mmio, &c, sizeof(c));
}

/* ---- claiming it ---- */

/*
 * A server takes a disk's lock when its rings start, and may find that somebody else has it.  So
 * before the guest's first instruction one request of our own is made, through a ring in the
 * guest's memory that is still ours: what completes it has the lock, and keeps it until we
 * close the connection.  A machine that cannot have its disks never begins to run.
 */
struct claim_page {
	struct desc_wire desc[4];
	uint8_t		avail[64];
	uint8_t		used[64];
	struct blk_header_wire header;
	uint8_t		id[32];
	uint8_t		status;
};
static_assert(sizeof(struct claim_page) <= GPA_CLAIM_SIZE, "a page a disk");
static_assert(GPA_CLAIM + VM_DISKS_MAX * GPA_CLAIM_SIZE <= GPA_CMDLINE, "in nobody's way");

static uint64_t claim_gpa(const struct vm_disk *d)
{
	return GPA_CLAIM + d->index * GPA_CLAIM_SIZE;
}

static struct claim_page *claim_page(const struct vm_disk *d)
{
	return memory_at(&d->m->memory, claim_gpa(d), GPA_CLAIM_SIZE);
}

static struct desc_wire claim_desc(const struct vm_disk *d, size_t offset, uint32_t len,
				   unsigned int flags, unsigned int next)
{
	return (struct desc_wire){ cpu_to_le64(claim_gpa(d) + offset), cpu_to_le32(len),
				   cpu_to_le16((uint16_t)flags), cpu_to_le16((uint16_t)next) };
}

static void put_claim(const struct vm_disk *d)
{
	struct claim_page *p = claim_page(d);
	struct avail_wire *avail = (struct avail_wire *)p->avail;

	p->header.type = cpu_to_le32(BLK_T_GET_ID);
	p->desc[0] = claim_desc(d, offsetof(struct claim_page, header), sizeof(p->header),
				DESC_F_NEXT, 1);
	p->desc[1] = claim_desc(d, offsetof(struct claim_page, id), 20,
				DESC_F_NEXT | DESC_F_WRITE, 2);
	p->desc[2] = claim_desc(d, offsetof(struct claim_page, status), 1, DESC_F_WRITE, 0);
	avail->idx = 1;
}

/* Nothing of it is left for the guest to find. */
static void on_claimed(void *arg)
{
	struct vm_disk *d = arg;
	struct machine *m = d->m;
	eventfd_t count;

	memset(claim_page(d), 0, GPA_CLAIM_SIZE);
	eventfd_read(d->kick_fds[0], &count);
	eventfd_read(d->call_fds[0], &count);
	pthread_mutex_lock(&m->mutex);
	d->claimed = true;
	pthread_mutex_unlock(&m->mutex);
	eventfd_write(m->wake_fd, 1);
}

static void claim_ready(struct reactor_fd *f, uint32_t events)
{
	struct vm_disk *d = container_of(f, struct vm_disk, claim);
	const struct used_wire *used = (const struct used_wire *)claim_page(d)->used;
	eventfd_t count;

	(void)events;
	eventfd_read(f->fd, &count);
	if (__atomic_load_n(&used->idx, __ATOMIC_ACQUIRE) != 1)
		return;		/* the front end itself, to be on the safe side */
	reactor_remove(d->m->reactor, f);
	front_halt(d->front, true, on_claimed, d);
}

static void on_ready(struct front *f, void *arg)
{
	struct vm_disk *d = arg;
	struct front_queue q[MMIO_QUEUES_MAX] = { { true, 4,
		claim_gpa(d) + offsetof(struct claim_page, desc),
		claim_gpa(d) + offsetof(struct claim_page, avail),
		claim_gpa(d) + offsetof(struct claim_page, used) } };
	int err;

	put_claim(d);
	d->claim = (struct reactor_fd){ .fd = d->call_fds[0], .ready = claim_ready };
	err = reactor_add(d->m->reactor, &d->claim, EPOLLIN);
	if (err)
		machine_end(d->m, VM_EXIT_FAILED, "disk %s: %s", name_of(d), strerror(-err));
	else
		front_run(f, q, FEATURE(VIRTIO_F_VERSION_1));
}

/* ---- its server, in the reactor's thread ---- */

static void on_changed(struct front *f, void *arg)
{
	struct vm_disk *d = arg;

	(void)f;
	if (d->plugged)
		publish_config(d);
}

static void on_lost(struct front *f, void *arg)
{
	struct vm_disk *d = arg;

	(void)f;
	d->m->want_disk(d->m, d->index);
}

static void on_broken(struct front *f, void *arg, const char *why)
{
	struct vm_disk *d = arg;

	(void)f;
	machine_end(d->m, VM_EXIT_FAILED, "disk %s: %s", name_of(d), why);
}

static const struct front_ops front_ops = { on_ready, on_changed, on_lost, on_broken };

struct attach_call {
	struct vm_disk	*d;
	int		fd;
};

static void attach_in_reactor(void *arg)
{
	struct attach_call *a = arg;
	int err = 0;

	if (front_state(a->d->front) == FRONT_AWAY)
		err = front_attach(a->d->front, a->fd);
	else
		close(a->fd);	/* one too many */
	if (err)
		machine_end(a->d->m, VM_EXIT_FAILED, "disk %s: %s", name_of(a->d), strerror(-err));
}

void disk_attach(struct vm_disk *d, int fd)
{
	struct attach_call a = { d, fd };

	reactor_call_sync(d->m->reactor, attach_in_reactor, &a);
}

/* ---- the driver, in a vCPU's thread ---- */

static void run_in_reactor(void *arg)
{
	struct vm_disk *d = arg;

	front_run(d->front, d->queues, d->features);
}

static void on_start(struct mmio *mmio, void *arg)
{
	struct vm_disk *d = arg;

	for (unsigned int i = 0; i < d->queue_count; i++) {
		const struct mmio_queue *q = &mmio->queues[i];

		d->queues[i] = (struct front_queue){ q->ready, q->size, q->desc, q->driver,
						     q->device };
	}
	d->features = mmio->driver_features;
	reactor_call_sync(d->m->reactor, run_in_reactor, d);
}

static void on_halted(void *arg)
{
	struct vm_disk *d = arg;

	pthread_mutex_lock(&d->m->mutex);
	d->halted = true;
	pthread_cond_broadcast(&d->m->cond);
	pthread_mutex_unlock(&d->m->mutex);
}

static void halt_in_reactor(void *arg)
{
	struct vm_disk *d = arg;

	d->halted = false;
	front_halt(d->front, true, on_halted, d);
}

static void on_stop(struct mmio *mmio, void *arg)
{
	struct vm_disk *d = arg;
	struct machine *m = d->m;

	(void)mmio;
	reactor_call_sync(m->reactor, halt_in_reactor, d);
	pthread_mutex_lock(&m->mutex);
	while (!d->halted && !m->ended)
		pthread_cond_wait(&m->cond, &m->mutex);
	pthread_mutex_unlock(&m->mutex);
}

static void on_interrupt(struct mmio *mmio, void *arg)
{
	struct vm_disk *d = arg;

	(void)mmio;
	eventfd_write(d->call_fds[0], 1);	/* all queues share the interrupt */
}

static const struct mmio_ops mmio_ops = { on_start, on_stop, on_interrupt };

/* ---- coming into being ---- */

static int make_eventfds(struct vm_disk *d)
{
	for (unsigned int i = 0; i < MMIO_QUEUES_MAX; i++) {
		d->kick_fds[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		d->call_fds[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (d->kick_fds[i] < 0 || d->call_fds[i] < 0)
			return -errno;
	}
	return 0;
}

int disk_init(struct machine *m, unsigned int index)
{
	struct vm_disk *d = &m->disks[index];
	struct front_params p = {
		.reactor = m->reactor, .memory = &m->memory, .ops = &front_ops, .arg = d,
		.queues_max = m->plan->cpus < MMIO_QUEUES_MAX ? m->plan->cpus : MMIO_QUEUES_MAX,
		.features = DISK_FEATURES, .kick_fds = d->kick_fds, .call_fds = d->call_fds,
	};
	int err;

	d->m = m;
	d->index = index;
	err = make_eventfds(d);
	return err ? err : front_new(&p, &d->front);
}

/* From now on a notification is a kick, and a call is an interrupt: we are in no one's way. */
static int connect_events(struct vm_disk *d)
{
	for (unsigned int i = 0; i < d->queue_count; i++) {
		struct kvm_ioeventfd kick = {
			.datamatch = i, .len = 4, .fd = d->kick_fds[i],
			.addr = GPA_VIRTIO + d->index * GPA_VIRTIO_SIZE + MMIO_QUEUE_NOTIFY,
			.flags = KVM_IOEVENTFD_FLAG_DATAMATCH,
		};
		struct kvm_irqfd call = { .fd = (uint32_t)d->call_fds[i],
					  .gsi = GSI_VIRTIO + d->index };

		if (ioctl(d->m->vm, KVM_IOEVENTFD, &kick) || ioctl(d->m->vm, KVM_IRQFD, &call))
			return -errno;
	}
	return 0;
}

static void first_config(void *arg)
{
	struct vm_disk *d = arg;

	d->plugged = true;
	publish_config(d);
}

int disk_plug(struct vm_disk *d)
{
	uint64_t features = front_features(d->front);
	struct mmio_params p = { .ops = &mmio_ops, .arg = d, .memory = &d->m->memory,
				 .device_id = DEVICE_BLOCK };

	if (d->m->plan->disks[d->index].read_only && !(features & FEATURE(BLK_F_RO)))
		return -EROFS;
	d->queue_count = front_queue_count(d->front);
	if (d->queue_count < 2)
		features &= ~FEATURE(BLK_F_MQ);
	p.features = features;
	p.queue_count = d->queue_count;
	mmio_init(&d->mmio, &p);
	reactor_call_sync(d->m->reactor, first_config, d);
	for (unsigned int i = d->queue_count; i < MMIO_QUEUES_MAX; i++) {
		close(d->kick_fds[i]);
		close(d->call_fds[i]);
	}
	return connect_events(d);
}
