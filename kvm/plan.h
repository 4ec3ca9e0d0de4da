/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the two halves of the launcher tell each other: the parent, who may open things and
 * never sees the guest, and the worker, who is the machine.  Packets of one size over the
 * socket pair of proc/spawn.h; both ends are the same executable.
 */
#ifndef LUNFS_KVM_PLAN_H
#define LUNFS_KVM_PLAN_H

#include <sys/types.h>

#include "kvm/layout.h"
#include "base/types.h"

#define VM_NAME_MAX	63
#define VM_CMDLINE_MAX	4095
#define VM_DISK_NAME_MAX 511
#define VM_WHY_SIZE	512

/* Exit statuses of `lunvm run`: lunvm(8). */
enum vm_exit {
	VM_EXIT_POWER_OFF = 0,	/* the guest powered itself off */
	VM_EXIT_FAILED = 1,	/* something else */
	VM_EXIT_CONFIG = 2,	/* wrong usage, or a configuration that makes no sense */
	VM_EXIT_LOCKED = 3,	/* a disk is in use elsewhere: not started */
	VM_EXIT_NO_DAEMON = 4,	/* nobody to ask for a disk, or gone for good */
	VM_EXIT_LOST = 5,	/* the lock of a disk was lost while the guest ran */
	VM_EXIT_RESET = 10,	/* the guest reset itself, and on-reset = exit */
	VM_EXIT_CRASH = 11,	/* the guest crashed: triple fault, or it said so */
	VM_EXIT_KVM = 12,	/* KVM could not go on */
	VM_EXIT_KILLED = 13,	/* lunvm kill, or a second SIGTERM */
};

struct plan_disk {
	char	name[VM_DISK_NAME_MAX + 1];	/* for messages: ds1:/vm1/root.disk */
	bool	read_only;
};

struct vm_plan {
	char		name[VM_NAME_MAX + 1];
	uint64_t	memory;			/* bytes */
	unsigned int	cpus;
	unsigned int	disk_count;
	struct plan_disk disks[VM_DISKS_MAX];
	char		cmdline[VM_CMDLINE_MAX + 1];
	bool		initrd;			/* its descriptor comes after the kernel's */
	bool		foreground;		/* the console is on standard output, too */
	uid_t		uid;
	gid_t		gid;
	pid_t		parent;
	uint64_t	start_ns;		/* CLOCK_BOOTTIME when lunvm began */
};

enum plan_op {
	/* parent to worker */
	PLAN_BEGIN = 1,	/* the plan; /dev/kvm, control socket, kernel, initrd */
	PLAN_DISK,	/* a connection to disk @disk's server */
	PLAN_GONE,	/* there will be none any more: @status, @why */
	PLAN_BUTTON,	/* the power button was pressed */
	PLAN_KILL,	/* end now */
	/* worker to parent */
	PLAN_RUNNING,	/* the first instruction is about to run */
	PLAN_WANT,	/* a new connection for disk @disk */
	PLAN_END,	/* @status, @why */
};

#define PLAN_MAGIC	0x4c56504cu

struct plan_packet {
	uint32_t	magic;		/* PLAN_MAGIC */
	uint32_t	op;		/* enum plan_op */
	uint32_t	disk;
	int32_t		status;		/* enum vm_exit */
	char		why[VM_WHY_SIZE];
	struct vm_plan	plan;		/* PLAN_BEGIN only */
};

#endif
