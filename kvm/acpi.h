/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ACPI tables of the machine: hardware-reduced, so that there is no power management
 * hardware to emulate but a byte for power-off and one for reset.
 * Source: ACPI Specification 6.4, chapters 4.1, 5.2 and 20 (AML).
 */
#ifndef LUNFS_KVM_ACPI_H
#define LUNFS_KVM_ACPI_H

#include "base/types.h"

struct acpi_machine {
	unsigned int	cpus;
	unsigned int	virtio_devices;
};

struct acpi_table {
	uint32_t	offset, size;	/* within the buffer */
};

/* Where each lies, for tests; the guest finds them from the RSDP at the buffer's beginning. */
struct acpi_tables {
	struct acpi_table rsdp, xsdt, fadt, madt, dsdt;
};

/**
 * acpi_build() - RSDP, XSDT, FADT, MADT and DSDT into @buf, which will lie at @gpa.
 * @tables: if not NULL, receives where each is.
 * Return: bytes used; -ENOSPC.
 */
int acpi_build(const struct acpi_machine *machine, uint64_t gpa, uint8_t *buf, size_t size,
	       struct acpi_tables *tables);

#endif
