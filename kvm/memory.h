/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's memory: one memfd of a size that nobody can change any more, so that neither
 * the launcher nor the daemon that serves its disks can be hurt by a shrunk mapping.
 */
#ifndef LUNFS_KVM_MEMORY_H
#define LUNFS_KVM_MEMORY_H

#include <asm/bootparam.h>

#include "base/types.h"

struct vm_memory {
	int		fd;
	uint8_t		*base;		/* all of it, in one piece */
	uint64_t	size;
	uint64_t	low;		/* bytes below GPA_HOLE; the rest lies from 4 GiB on */
};

struct vm_region {
	uint64_t	gpa, size, offset;	/* of the memfd */
};

/**
 * memory_create() - @size bytes, a multiple of 4096 between VM_MEMORY_MIN and VM_MEMORY_MAX.
 * Nothing of it takes memory before it is touched.
 * Return: 0; -ENOMEM; -EINVAL; -errno of memfd_create(), ftruncate(), fcntl(), mmap().
 */
int memory_create(uint64_t size, struct vm_memory *m);
void memory_destroy(struct vm_memory *m);

/** memory_at() - where [@gpa, @gpa + @len) lies; NULL if not all of it is memory, in one piece. */
void *memory_at(const struct vm_memory *m, uint64_t gpa, uint64_t len);

/** memory_regions() - its one or two pieces in @r.  Return: how many. */
unsigned int memory_regions(const struct vm_memory *m, struct vm_region r[2]);

/** memory_e820() - the map that the guest is told; @e of at least 5 entries.  Return: how many. */
unsigned int memory_e820(const struct vm_memory *m, struct boot_e820_entry *e);

#endif
