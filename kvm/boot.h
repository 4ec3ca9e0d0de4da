/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loading a kernel by Linux's 64-bit boot protocol.  Source: Linux,
 * Documentation/arch/x86/boot.rst and zero-page.rst.
 *
 * Kernels come from users and from datastores: every number in them is checked (R9).  What is
 * loaded is read straight into the guest's memory.
 */
#ifndef LUNFS_KVM_BOOT_H
#define LUNFS_KVM_BOOT_H

#include "kvm/memory.h"

struct boot_source {
	int		kernel_fd;	/* a bzImage or an ELF vmlinux; borrowed */
	int		initrd_fd;	/* -1: none; borrowed */
	const char	*cmdline;
	uint64_t	rsdp;		/* guest address of the ACPI tables' root */
};

/**
 * boot_load() - kernel, initial RAM disk, command line and zero page.
 * @entry: receives the guest address of the first instruction, to be reached with the zero
 *         page's address in RSI, in 64-bit mode.
 * @why:   on failure what is wrong with it, and what would help.
 * Context: reads the descriptors with pread().
 * Return: 0; -ENOEXEC not a kernel that can be booted; -ENOMEM the guest's memory is too small;
 * -E2BIG the command line is too long; -errno of reading.
 */
int boot_load(const struct vm_memory *m, const struct boot_source *s, uint64_t *entry,
	      char *why, size_t why_size);

#endif
