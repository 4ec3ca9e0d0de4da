/* SPDX-License-Identifier: Apache-2.0 */
#include "kvm/machine.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/text.h"
#include "kvm/acpi.h"
#include "kvm/boot.h"

#define KVM_API	12

/* ---- how it ends ---- */

void machine_end(struct machine *m, enum vm_exit status, const char *fmt, ...)
{
	va_list args;

	pthread_mutex_lock(&m->mutex);
	if (!m->ended) {
		va_start(args, fmt);
		vsnprintf(m->why, sizeof(m->why), fmt, args);
		va_end(args);
		m->status = status;
		m->ended = true;
		pthread_cond_broadcast(&m->cond);
		eventfd_write(m->wake_fd, 1);
	}
	pthread_mutex_unlock(&m->mutex);
}

void machine_press_button(struct machine *m)
{
	eventfd_write(m->button_irq, 1);
}

/* ---- console ---- */

static void uart_out(void *arg, uint8_t byte)
{
	struct machine *m = arg;

	console_put(&m->console, byte);
}

static void uart_interrupt(void *arg)
{
	struct machine *m = arg;

	eventfd_write(m->uart_irq, 1);
}

static void uart_drained(void *arg)
{
	struct machine *m = arg;

	console_drained(&m->console);
}

static const struct uart_ops uart_ops = { uart_out, uart_interrupt, uart_drained };

/* ---- KVM ---- */

static int add_memory(struct machine *m)
{
	struct vm_region r[2];
	unsigned int count = memory_regions(&m->memory, r);

	for (unsigned int i = 0; i < count; i++) {
		struct kvm_userspace_memory_region k = {
			.slot = i, .guest_phys_addr = r[i].gpa, .memory_size = r[i].size,
			.userspace_addr = (uintptr_t)m->memory.base + r[i].offset,
		};

		if (ioctl(m->vm, KVM_SET_USER_MEMORY_REGION, &k))
			return -errno;
	}
	return 0;
}

/* Interrupts go to the I/O APIC alone; the 8259s that KVM makes as well are in nobody's way. */
static int route_interrupts(struct machine *m)
{
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry e[GSI_COUNT];
	} routes = { .head.nr = GSI_COUNT };

	for (unsigned int i = 0; i < GSI_COUNT; i++)
		routes.e[i] = (struct kvm_irq_routing_entry){
			.gsi = i, .type = KVM_IRQ_ROUTING_IRQCHIP,
			.u.irqchip = { .irqchip = KVM_IRQCHIP_IOAPIC, .pin = i } };
	return ioctl(m->vm, KVM_SET_GSI_ROUTING, &routes) ? -errno : 0;
}

static int add_irqfd(struct machine *m, unsigned int gsi, int *fd)
{
	struct kvm_irqfd k = { .gsi = gsi };

	*fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (*fd < 0)
		return -errno;
	k.fd = (uint32_t)*fd;
	return ioctl(m->vm, KVM_IRQFD, &k) ? -errno : 0;
}

static int check_kvm(struct machine *m, char *why, size_t why_size)
{
	static const struct { int cap; const char *name; } needed[] = {
		{ KVM_CAP_IRQCHIP, "IRQCHIP" }, { KVM_CAP_IRQFD, "IRQFD" },
		{ KVM_CAP_IOEVENTFD, "IOEVENTFD" }, { KVM_CAP_IRQ_ROUTING, "IRQ_ROUTING" },
		{ KVM_CAP_IMMEDIATE_EXIT, "IMMEDIATE_EXIT" },
	};
	int max;

	if (ioctl(m->kvm, KVM_GET_API_VERSION, 0) != KVM_API)
		return text_refuse(-ENOTSUP, why, why_size, "/dev/kvm is no KVM of API %d", KVM_API);
	for (unsigned int i = 0; i < ARRAY_SIZE(needed); i++)
		if (ioctl(m->kvm, KVM_CHECK_EXTENSION, needed[i].cap) <= 0)
			return text_refuse(-ENOTSUP, why, why_size, "this host's KVM lacks %s",
					   needed[i].name);
	max = ioctl(m->kvm, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
	if (max > 0 && m->plan->cpus > (unsigned int)max)
		return text_refuse(-ENOTSUP, why, why_size, "this host's KVM has at most %d vCPUs",
				   max);
	return 0;
}

static int create_vm(struct machine *m)
{
	uint64_t identity = GPA_IDENTITY_MAP;
	int err;

	m->vm = ioctl(m->kvm, KVM_CREATE_VM, 0);
	if (m->vm < 0)
		return -errno;
	if (ioctl(m->vm, KVM_SET_IDENTITY_MAP_ADDR, &identity) ||
	    ioctl(m->vm, KVM_SET_TSS_ADDR, GPA_TSS) || ioctl(m->vm, KVM_CREATE_IRQCHIP, 0))
		return -errno;
	err = route_interrupts(m);
	if (!err)
		err = add_memory(m);
	if (!err)
		err = add_irqfd(m, GSI_UART, &m->uart_irq);
	return err ? err : add_irqfd(m, GSI_GED, &m->button_irq);
}

static int create_cpus(struct machine *m)
{
	bool deadline = ioctl(m->kvm, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0;
	struct kvm_cpuid2 *cpuid;
	int size = ioctl(m->kvm, KVM_GET_VCPU_MMAP_SIZE, 0), err;

	if (size < (int)sizeof(struct kvm_run))
		return -EINVAL;
	m->run_size = (size_t)size;
	err = cpu_supported(m->kvm, &cpuid);
	if (err)
		return err;
	for (unsigned int i = 0; i < m->plan->cpus && !err; i++) {
		cpu_adapt(cpuid, i, m->plan->cpus, deadline);
		err = cpu_create(m, i, cpuid);
	}
	free(cpuid);
	return err;
}

/* ---- what the guest finds in its memory ---- */

/* The first 4 GiB as pages of 2 MiB, and segments as boot.rst asks for; Linux makes its own. */
static void put_tables(struct machine *m)
{
	uint64_t *pml4 = memory_at(&m->memory, GPA_PML4, 6 * 4096);
	uint64_t *pdpt = pml4 + 512, *pd = pdpt + 512;
	uint64_t *gdt = memory_at(&m->memory, GPA_GDT, 8 * 6);

	pml4[0] = (GPA_PML4 + 4096) | 3;
	for (unsigned int i = 0; i < 4; i++)
		pdpt[i] = (GPA_PML4 + (2 + i) * 4096ull) | 3;
	for (uint64_t i = 0; i < 4 * 512; i++)
		pd[i] = i << 21 | 0x83;
	gdt[2] = 0x00af9b000000ffffull;		/* 10h: 64-bit code */
	gdt[3] = 0x00cf93000000ffffull;		/* 18h: data */
	gdt[4] = 0x00008b0000000067ull;		/* 20h: task state, 16 bytes */
}

static int put_acpi(struct machine *m)
{
	const struct acpi_machine a = { m->plan->cpus, m->plan->disk_count };
	int n = acpi_build(&a, GPA_ACPI, memory_at(&m->memory, GPA_ACPI, GPA_ACPI_SIZE),
			   GPA_ACPI_SIZE, NULL);

	return n < 0 ? n : 0;
}

/* ---- pausing ---- */

static void disk_paused(void *arg)
{
	struct machine *m = arg;
	void (*paused)(void *arg) = m->paused;

	if (--m->halting)
		return;
	atomic_store(&m->state, MACHINE_PAUSED);
	m->paused = NULL;
	if (paused)
		paused(m->paused_arg);
}

/* No vCPU can start or reset a device any more: now nothing of the guest's memory may change. */
static void drain_disks(struct reactor_call *call)
{
	struct machine *m = container_of(call, struct machine, all_parked);

	if (atomic_load(&m->state) != MACHINE_PAUSING)
		return;		/* they are just being started */
	m->halting = m->plan->disk_count + 1;
	for (unsigned int i = 0; i < m->plan->disk_count; i++)
		front_halt(m->disks[i].front, false, disk_paused, m);
	disk_paused(m);
}

int machine_pause(struct machine *m, void (*done)(void *arg), void *arg)
{
	switch (atomic_load(&m->state)) {
	case MACHINE_RUNNING:
		break;
	case MACHINE_PAUSED:
		return -EALREADY;
	default:
		return -EBUSY;
	}
	atomic_store(&m->state, MACHINE_PAUSING);
	m->paused = done;
	m->paused_arg = arg;
	pthread_mutex_lock(&m->mutex);
	m->park = true;
	/* Resumed just before, they may not even have left. */
	if (m->parked == m->plan->cpus)
		reactor_post(m->reactor, &m->all_parked);
	pthread_mutex_unlock(&m->mutex);
	cpu_kick_all(m);
	return 0;
}

int machine_resume(struct machine *m)
{
	switch (atomic_load(&m->state)) {
	case MACHINE_PAUSED:
		break;
	case MACHINE_RUNNING:
		return -EALREADY;
	default:
		return -EBUSY;
	}
	for (unsigned int i = 0; i < m->plan->disk_count; i++)
		front_resume(m->disks[i].front);
	atomic_store(&m->state, MACHINE_RUNNING);
	pthread_mutex_lock(&m->mutex);
	m->park = false;
	pthread_cond_broadcast(&m->cond);
	pthread_mutex_unlock(&m->mutex);
	return 0;
}

/* ---- coming into being ---- */

static int init(struct machine *m, const struct vm_plan *plan, int kvm)
{
	m->plan = plan;
	m->kvm = kvm;
	pthread_mutex_init(&m->mutex, NULL);
	pthread_cond_init(&m->cond, NULL);
	m->all_parked.fn = drain_disks;
	m->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return m->wake_fd < 0 ? -errno : 0;
}

int machine_create(struct machine *m, const struct vm_plan *plan, int kvm, int kernel_fd,
		   int initrd_fd, char *why, size_t why_size)
{
	const struct boot_source source = { kernel_fd, initrd_fd, plan->cmdline, GPA_ACPI };
	const char *what = "events";
	int err = init(m, plan, kvm);

	if (!err) {
		err = check_kvm(m, why, why_size);
		if (err)
			return err;
		what = "memory for the guest";
		err = memory_create(plan->memory, &m->memory);
	}
	if (!err) {
		err = boot_load(&m->memory, &source, &m->entry, why, why_size);
		if (err)	/* too little memory for the kernel is no lack of the host's */
			return err == -ENOMEM ? -E2BIG : err;
		put_tables(m);
		what = "ACPI tables";
		err = put_acpi(m);
	}
	if (!err) {
		what = "KVM";
		err = create_vm(m);
	}
	if (!err)
		err = create_cpus(m);
	if (!err) {
		what = "the reactor";
		/* Nothing here is worth polling for: the data path does not come this way. */
		err = reactor_create(env_posix(), "events", 0, CONSOLE_TIMERS, &m->reactor);
	}
	if (err)
		return text_refuse(err, why, why_size, "%s: %s", what, strerror(-err));
	uart_init(&m->uart, &uart_ops, m);
	return 0;
}

int machine_plug(struct machine *m, char *why, size_t why_size)
{
	int err = 0;

	for (unsigned int i = 0; i < m->plan->disk_count && !err; i++) {
		err = disk_plug(&m->disks[i]);
		if (err)
			return text_refuse(err, why, why_size, "disk %s: %s",
					   m->plan->disks[i].name, err == -EROFS ?
					   "is served for writing, but was asked for read-only" :
					   strerror(-err));
	}
	cpu_init_signals();
	m->park = true;
	for (unsigned int i = 0; i < m->plan->cpus && !err; i++)
		err = cpu_start(&m->cpus[i]);
	return err ? text_refuse(err, why, why_size, "a vCPU's thread: %s", strerror(-err)) : 0;
}

void machine_go(struct machine *m)
{
	pthread_mutex_lock(&m->mutex);
	m->park = false;
	atomic_store(&m->state, MACHINE_RUNNING);
	pthread_cond_broadcast(&m->cond);
	pthread_mutex_unlock(&m->mutex);
}
