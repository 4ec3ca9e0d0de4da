/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine: what the guest sees, and who does it.  Threads: one a vCPU, the reactor's for
 * disks, console and control, and the main one, which talks to the parent.
 *
 *   RUNNING ──machine_pause()──► PAUSING ─► (vCPUs parked) ─► (rings drained) ─► PAUSED
 *      ▲                                                                            │
 *      └──────────────────────── machine_resume() ◄─────────────────────────────────┘
 */
#ifndef LUNFS_KVM_MACHINE_H
#define LUNFS_KVM_MACHINE_H

#include <linux/kvm.h>

#include "base/reactor.h"
#include "kvm/console.h"
#include "kvm/front.h"
#include "kvm/jail.h"
#include "kvm/memory.h"
#include "kvm/mmio.h"
#include "kvm/plan.h"
#include "kvm/uart.h"

struct machine;

struct vcpu {
	struct machine	*m;
	unsigned int	index;
	int		fd;
	struct kvm_run	*run;
	pthread_t	thread;
};

struct vm_disk {
	struct machine	*m;
	unsigned int	index;
	struct mmio	mmio;
	struct front	*front;
	unsigned int	queue_count;
	int		kick_fds[MMIO_QUEUES_MAX], call_fds[MMIO_QUEUES_MAX];
	struct reactor_fd claim;	/* the first call, which says that the disk is ours */
	bool		claimed;	/* it is; the machine's mutex */
	bool		plugged;	/* the guest may look at it; the reactor's */
	bool		halted;		/* as a vCPU that resets it asked for; the same */
	/* From a vCPU to the reactor. */
	struct front_queue queues[MMIO_QUEUES_MAX];
	uint64_t	features;
};

enum machine_state { MACHINE_STARTING, MACHINE_RUNNING, MACHINE_PAUSING, MACHINE_PAUSED };

struct machine {
	const struct vm_plan *plan;
	struct jail_state jail;
	int		kvm, vm;
	struct vm_memory memory;
	uint64_t	entry;		/* of the kernel */
	struct reactor	*reactor;
	struct uart	uart;
	int		uart_irq, button_irq;	/* irqfds */
	struct console	console;
	struct vm_disk	disks[VM_DISKS_MAX];
	struct vcpu	cpus[VM_CPUS_MAX];
	size_t		run_size;	/* of a vCPU's shared page */
	void		(*want_disk)(struct machine *m, unsigned int disk);

	pthread_mutex_t	mutex;
	pthread_cond_t	cond;		/* park, halted, ended */
	bool		park;		/* vCPUs are to stay out of the guest */
	unsigned int	parked;
	bool		ended;
	enum vm_exit	status;		/* once ended */
	char		why[VM_WHY_SIZE];

	/* The reactor's. */
	struct reactor_call all_parked;
	unsigned int	halting;	/* disks whose rings are being drained */
	void		(*paused)(void *arg);
	void		*paused_arg;

	atomic_int	state;		/* enum machine_state */
	_Atomic uint64_t first_run_ns;	/* when the first instruction was about to run */
	int		wake_fd;	/* eventfd of the main thread: claimed, ended */
};

/* ---- machine.c ---- */

/**
 * machine_create() - memory, KVM's machine, kernel, tables; vCPUs that do not run yet.
 * @kernel_fd, @initrd_fd: borrowed; @initrd_fd may be -1.  @why on failure.
 * Return: 0 or -errno.
 */
int machine_create(struct machine *m, const struct vm_plan *plan, int kvm, int kernel_fd,
		   int initrd_fd, char *why, size_t why_size);

/** machine_plug() - disks are there: devices, and vCPUs that wait.  Return: 0 or -errno, @why. */
int machine_plug(struct machine *m, char *why, size_t why_size);

/** machine_go() - the guest begins. */
void machine_go(struct machine *m);

/** machine_end() - the first call says how it ended; the machine is gone soon. Any thread. */
void machine_end(struct machine *m, enum vm_exit status, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/**
 * machine_pause() - stops vCPUs, drains the rings; @done(@arg) in the reactor's thread then.
 * Return: 0; -EALREADY it is paused; -EBUSY it is just being paused.  Reactor's thread.
 */
int machine_pause(struct machine *m, void (*done)(void *arg), void *arg);

/** machine_resume() - Return: 0; -EALREADY it runs; -EBUSY it is just being paused. */
int machine_resume(struct machine *m);

/** machine_press_button() - of power.  Any thread. */
void machine_press_button(struct machine *m);

/* ---- cpu.c ---- */

/** cpu_create() - vCPU @index with its CPUID; the first one at @m->entry.  Return: 0 or -errno. */
int cpu_create(struct machine *m, unsigned int index, const struct kvm_cpuid2 *cpuid);

/** cpu_supported() - CPUID as KVM supports it, to be freed.  Return: 0 or -errno. */
int cpu_supported(int kvm, struct kvm_cpuid2 **out);

/** cpu_adapt() - the leaves that tell a vCPU its own number, and how many there are. */
void cpu_adapt(struct kvm_cpuid2 *c, unsigned int index, unsigned int count, bool deadline);

/** cpu_start() - its thread.  Return: 0 or -errno. */
int cpu_start(struct vcpu *c);

/** cpu_kick_all() - every vCPU leaves the guest and looks whether it is to park. */
void cpu_kick_all(struct machine *m);

/** cpu_init_signals() - before the first vCPU starts. */
void cpu_init_signals(void);

/* ---- disk.c ---- */

/** disk_init() - a device whose server is still unknown.  Return: 0 or -errno. */
int disk_init(struct machine *m, unsigned int index);

/** disk_attach() - a connection to its server; takes it over.  Any thread but the reactor's. */
void disk_attach(struct vm_disk *d, int fd);

/** disk_plug() - it is claimed: the device becomes visible.  Return: 0 or -errno. */
int disk_plug(struct vm_disk *d);

#endif
