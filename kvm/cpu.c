/* SPDX-License-Identifier: Apache-2.0 */
/* vCPUs: how they begin, what they leave the guest for, how they are made to. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "kvm/jail.h"
#include "kvm/machine.h"

#define CPUID_ENTRIES_MAX	256
#define KICK_SIGNAL		SIGUSR1
#define CPU_STACK_SIZE		(256u << 10)

/* ---- CPUID ---- */

int cpu_supported(int kvm, struct kvm_cpuid2 **out)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) +
				      CPUID_ENTRIES_MAX * sizeof(struct kvm_cpuid_entry2));
	int err;

	if (!c)
		return -ENOMEM;
	c->nent = CPUID_ENTRIES_MAX;
	if (!ioctl(kvm, KVM_GET_SUPPORTED_CPUID, c)) {
		*out = c;
		return 0;
	}
	err = -errno;
	free(c);
	return err;
}

static unsigned int bits_for(unsigned int count)
{
	unsigned int bits = 0;

	while (1u << bits < count)
		bits++;
	return bits;
}

/* Levels of the topology: threads, of which a core has one; cores, of which all are in one. */
static void adapt_topology(struct kvm_cpuid_entry2 *e, unsigned int index, unsigned int count)
{
	e->edx = index;
	e->eax = e->index == 1 ? bits_for(count) : 0;
	e->ebx = e->index == 0 ? 1 : e->index == 1 ? count : 0;
	e->ecx = e->index | (e->index == 0 ? 1u << 8 : e->index == 1 ? 2u << 8 : 0);
}

static void adapt_basic(struct kvm_cpuid_entry2 *e, unsigned int index, unsigned int count,
			bool deadline)
{
	e->ebx = (e->ebx & 0x0000ffffu) | index << 24 | count << 16;
	e->ecx |= 1u << 31;			/* there is a hypervisor */
	if (deadline)
		e->ecx |= 1u << 24;		/* KVM's local APIC has it, says a capability */
	if (count > 1)
		e->edx |= 1u << 28;		/* EBX tells how many there are */
}

/* Leaves are adapted where KVM supports them, whoever made the processor. */
void cpu_adapt(struct kvm_cpuid2 *c, unsigned int index, unsigned int count, bool deadline)
{
	for (unsigned int i = 0; i < c->nent; i++) {
		struct kvm_cpuid_entry2 *e = &c->entries[i];

		switch (e->function) {
		case 0x1:
			adapt_basic(e, index, count, deadline);
			break;
		case 0x4:	/* caches: who shares them, cores of a package */
			e->eax = (e->eax & 0x00003fffu) | (count - 1) << 26 |
				 ((e->eax >> 5 & 7) == 3 ? (count - 1) << 14 : 0);
			break;
		case 0xb: case 0x1f:
			adapt_topology(e, index, count);
			break;
		case 0x80000008:	/* cores of a package, bits of their number */
			e->ecx = (count - 1) | bits_for(count) << 12;
			break;
		case 0x8000001e:
			e->eax = index;
			e->ebx = index;		/* one thread a core */
			e->ecx = 0;
			break;
		default:
			break;
		}
	}
}

/* ---- beginning ---- */

static struct kvm_segment segment(unsigned int selector, unsigned int type, bool code)
{
	return (struct kvm_segment){
		.limit = 0xffffffff, .selector = (uint16_t)selector, .type = (uint8_t)type,
		.present = 1, .s = 1, .l = code, .db = !code, .g = 1,
	};
}

/* What boot.rst asks for: 64-bit mode, everything mapped one to one, flat segments at 10h, 18h. */
static int enter_long_mode(struct vcpu *c)
{
	struct kvm_sregs s;
	struct kvm_regs r = { .rflags = 2, .rip = c->m->entry, .rsi = GPA_ZERO_PAGE,
			      .rsp = GPA_STACK };

	if (ioctl(c->fd, KVM_GET_SREGS, &s))
		return -errno;
	s.cs = segment(0x10, 11, true);
	s.ds = s.es = s.fs = s.gs = s.ss = segment(0x18, 3, false);
	s.tr = (struct kvm_segment){ .limit = 0x67, .selector = 0x20, .type = 11, .present = 1 };
	s.gdt.base = GPA_GDT;
	s.gdt.limit = 8 * 6 - 1;
	s.idt.base = 0;
	s.idt.limit = 0;
	s.cr0 = 0x80000033;	/* PG NE ET MP PE */
	s.cr3 = GPA_PML4;
	s.cr4 = 0x20;		/* PAE */
	s.efer = 0x500;		/* LMA LME */
	if (ioctl(c->fd, KVM_SET_SREGS, &s) || ioctl(c->fd, KVM_SET_REGS, &r))
		return -errno;
	return 0;
}

/* Memory is cached unless told otherwise, as firmware leaves it; not all of KVM takes each. */
static void set_msrs(const struct vcpu *c)
{
	struct { struct kvm_msrs head; struct kvm_msr_entry e[2]; } msrs = {
		.head.nmsrs = 2,
		.e = { { .index = 0x2ff, .data = 0x806 },	/* MTRRs on, write-back */
		       { .index = 0x1a0, .data = 1 } },		/* fast strings */
	};

	ioctl(c->fd, KVM_SET_MSRS, &msrs);
}

int cpu_create(struct machine *m, unsigned int index, const struct kvm_cpuid2 *cpuid)
{
	struct vcpu *c = &m->cpus[index];

	c->m = m;
	c->index = index;
	c->fd = ioctl(m->vm, KVM_CREATE_VCPU, (unsigned long)index);
	if (c->fd < 0)
		return -errno;
	c->run = mmap(NULL, m->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, 0);
	if (c->run == MAP_FAILED || ioctl(c->fd, KVM_SET_CPUID2, cpuid))
		return -errno;
	set_msrs(c);
	/* The others wait in KVM until the first one starts them. */
	return index ? 0 : enter_long_mode(c);
}

/* ---- what a vCPU leaves the guest for ---- */

static void serve_port_out(struct machine *m, unsigned int port, uint32_t value)
{
	if (port >= PORT_UART && port < PORT_UART + PORT_UART_SIZE)
		uart_write(&m->uart, port - PORT_UART, (uint8_t)value);
	else if (port == PORT_SLEEP_CONTROL && value == (SLEEP_S5 << 2 | 1u << 5))
		machine_end(m, VM_EXIT_POWER_OFF, "the guest powered off");
	else if ((port == PORT_RESET && value == PORT_RESET_VALUE) ||
		 (port == PORT_I8042 && value == 0xfe))
		machine_end(m, VM_EXIT_RESET, "the guest reset the machine");
	else if (port == PORT_PANIC && value & 1)
		machine_end(m, VM_EXIT_CRASH, "the guest's kernel panicked, and said so");
}

static uint32_t serve_port_in(struct machine *m, unsigned int port)
{
	if (port >= PORT_UART && port < PORT_UART + PORT_UART_SIZE)
		return uart_read(&m->uart, port - PORT_UART);
	switch (port) {
	case PORT_I8042:	/* nothing waits in it, in either direction */
	case PORT_SLEEP_STATUS:
		return 0;
	case PORT_PANIC:
		return 1;	/* panics are what can be told */
	default:
		return ~0u;
	}
}

static void serve_port(struct vcpu *c)
{
	uint8_t *data = (uint8_t *)c->run + c->run->io.data_offset;
	size_t size = c->run->io.size;

	for (uint32_t i = 0; i < c->run->io.count; i++, data += size) {
		uint32_t value = 0;

		if (c->run->io.direction == KVM_EXIT_IO_OUT) {
			memcpy(&value, data, size);
			serve_port_out(c->m, c->run->io.port, value);
		} else {
			value = serve_port_in(c->m, c->run->io.port);
			memcpy(data, &value, size);
		}
	}
}

static struct mmio *find_device(struct machine *m, uint64_t gpa)
{
	uint64_t index = (gpa - GPA_VIRTIO) / GPA_VIRTIO_SIZE;

	if (gpa < GPA_VIRTIO || index >= m->plan->disk_count)
		return NULL;
	return &m->disks[index].mmio;
}

static void serve_mmio(struct vcpu *c)
{
	struct mmio *d = find_device(c->m, c->run->mmio.phys_addr);
	uint64_t offset = c->run->mmio.phys_addr % GPA_VIRTIO_SIZE;
	uint64_t value = ~0ull;
	unsigned int len = c->run->mmio.len;

	static_assert(GPA_VIRTIO % GPA_VIRTIO_SIZE == 0, "offsets are those in the page");
	if (c->run->mmio.is_write) {
		value = 0;
		memcpy(&value, c->run->mmio.data, len);
		if (d)
			mmio_write(d, offset, len, value);
		return;
	}
	if (d)
		value = mmio_read(d, offset, len);
	memcpy(c->run->mmio.data, &value, len);
}

static uint64_t instruction_pointer(const struct vcpu *c)
{
	struct kvm_regs r = { 0 };

	ioctl(c->fd, KVM_GET_REGS, &r);
	return r.rip;
}

static void serve_exit(struct vcpu *c)
{
	struct kvm_run *run = c->run;

	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		serve_port(c);
		break;
	case KVM_EXIT_MMIO:
		serve_mmio(c);
		break;
	case KVM_EXIT_INTR:
		break;
	case KVM_EXIT_SHUTDOWN:
		machine_end(c->m, VM_EXIT_CRASH, "the guest crashed: vCPU %u, triple fault at %#llx",
			    c->index, (unsigned long long)instruction_pointer(c));
		break;
	case KVM_EXIT_FAIL_ENTRY:
		machine_end(c->m, VM_EXIT_KVM, "KVM cannot enter the guest: vCPU %u, hardware "
			    "reason %#llx", c->index, (unsigned long long)
			    run->fail_entry.hardware_entry_failure_reason);
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		machine_end(c->m, VM_EXIT_KVM, "KVM cannot go on: vCPU %u, suberror %u at %#llx%s",
			    c->index, run->internal.suberror,
			    (unsigned long long)instruction_pointer(c),
			    run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION ?
			    " (an instruction that this host's KVM cannot emulate)" : "");
		break;
	default:
		machine_end(c->m, VM_EXIT_KVM, "KVM left the guest for a reason that is not known: "
			    "vCPU %u, %u", c->index, run->exit_reason);
	}
}

/* ---- its thread ---- */

/* Nothing: what it is for is that the ioctl ends. */
static void on_kick(int sig)
{
	(void)sig;
}

void cpu_init_signals(void)
{
	struct sigaction sa = { .sa_handler = on_kick };

	sigaction(KICK_SIGNAL, &sa, NULL);
}

void cpu_kick_all(struct machine *m)
{
	for (unsigned int i = 0; i < m->plan->cpus; i++) {
		/* Before the signal: it may come before KVM_RUN has begun. */
		__atomic_store_n(&m->cpus[i].run->immediate_exit, 1, __ATOMIC_SEQ_CST);
		pthread_kill(m->cpus[i].thread, KICK_SIGNAL);
	}
}

/* Return: whether it may run. */
static bool wait_unparked(struct vcpu *c)
{
	struct machine *m = c->m;
	bool parked = false, ended;

	pthread_mutex_lock(&m->mutex);
	while (m->park && !m->ended) {
		if (!parked && ++m->parked == m->plan->cpus)
			reactor_post(m->reactor, &m->all_parked);
		parked = true;
		pthread_cond_wait(&m->cond, &m->mutex);
	}
	if (parked)
		m->parked--;
	ended = m->ended;
	pthread_mutex_unlock(&m->mutex);
	/* The guest's watchdogs are told that time went by without it; some guests have no clock. */
	if (parked && !ended)
		ioctl(c->fd, KVM_KVMCLOCK_CTRL, 0);
	return !ended;
}

static void *cpu_thread(void *arg)
{
	struct vcpu *c = arg;
	struct machine *m = c->m;
	char name[16];
	int err;

	snprintf(name, sizeof(name), "vcpu-%u", c->index % 1000);
	prctl(PR_SET_NAME, name);
	err = jail_filter(JAIL_CPU);
	if (err)
		machine_end(m, VM_EXIT_FAILED, "a vCPU cannot be confined: %s", strerror(-err));
	for (;;) {
		__atomic_store_n(&c->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
		if (!wait_unparked(c))
			return NULL;
		if (!c->index && !atomic_load(&m->first_run_ns))
			atomic_store(&m->first_run_ns, env_now_ns(env_posix()));
		if (!ioctl(c->fd, KVM_RUN, 0))
			serve_exit(c);
		else if (errno != EINTR && errno != EAGAIN)
			machine_end(m, VM_EXIT_KVM, "KVM_RUN of vCPU %u: %s", c->index,
				    strerror(errno));
	}
}

int cpu_start(struct vcpu *c)
{
	pthread_attr_t attr;
	int err;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, CPU_STACK_SIZE);
	err = pthread_create(&c->thread, &attr, cpu_thread, c);
	pthread_attr_destroy(&attr);
	return -err;
}
