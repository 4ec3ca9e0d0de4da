/* SPDX-License-Identifier: Apache-2.0 */
#include "kvm/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kvm/layout.h"

#define E820_RAM	1
#define E820_RESERVED	2
#define E820_ACPI	3

int memory_create(uint64_t size, struct vm_memory *m)
{
	int err;

	if (size < VM_MEMORY_MIN || size > VM_MEMORY_MAX || size % 4096)
		return -EINVAL;
	m->size = size;
	m->low = size < GPA_HOLE ? size : GPA_HOLE;
	m->fd = memfd_create("guest-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (m->fd < 0)
		return -errno;
	if (ftruncate(m->fd, (off_t)size) ||
	    fcntl(m->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		goto fail;
	m->base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, m->fd, 0);
	if (m->base == MAP_FAILED)
		goto fail;
	/* A core dump of the launcher is of no use with the guest's memory in it. */
	madvise(m->base, size, MADV_DONTDUMP);
	return 0;

fail:
	err = -errno;
	close(m->fd);
	return err;
}

void memory_destroy(struct vm_memory *m)
{
	munmap(m->base, m->size);
	close(m->fd);
}

void *memory_at(const struct vm_memory *m, uint64_t gpa, uint64_t len)
{
	struct vm_region r[2];
	unsigned int count = memory_regions(m, r);

	for (unsigned int i = 0; i < count; i++)
		if (gpa >= r[i].gpa && gpa - r[i].gpa <= r[i].size &&
		    len <= r[i].size - (gpa - r[i].gpa))
			return m->base + r[i].offset + (gpa - r[i].gpa);
	return NULL;
}

unsigned int memory_regions(const struct vm_memory *m, struct vm_region r[2])
{
	r[0] = (struct vm_region){ 0, m->low, 0 };
	if (m->size == m->low)
		return 1;
	r[1] = (struct vm_region){ GPA_HOLE_END, m->size - m->low, m->low };
	return 2;
}

unsigned int memory_e820(const struct vm_memory *m, struct boot_e820_entry *e)
{
	const struct boot_e820_entry map[] = {
		{ 0, GPA_BASE_END, E820_RAM },
		{ GPA_BASE_END, 0xa0000 - GPA_BASE_END, E820_RESERVED },
		{ GPA_ACPI, GPA_ACPI_SIZE, E820_ACPI },
		{ GPA_HIGH, m->low - GPA_HIGH, E820_RAM },
		{ GPA_HOLE_END, m->size - m->low, E820_RAM },
	};
	unsigned int count = m->size > m->low ? 5 : 4;

	memcpy(e, map, count * sizeof(*e));
	return count;
}
