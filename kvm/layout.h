/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where everything lies in the guest's physical address space, its ports and its interrupts.
 *
 *   0x00000500  GDT                        below 0x9fc00 all is the guest's, once it runs
 *   0x00007000  zero page (boot parameters)
 *   0x00009000  page tables that map the first 4 GiB one to one
 *   0x00010000  a page a disk, until the first instruction: by it the disk is claimed
 *   0x00020000  command line
 *   0x000e0000  ACPI tables
 *   0x00100000  memory goes on, to 3 GiB at most
 *   0xd0000000  virtio-mmio devices, 4 KiB each
 *   0xfec00000  I/O APIC; 0xfee00000 local APICs; 0xfffbc000 what VT-x wants for itself
 *   0x100000000 the memory beyond 3 GiB
 */
#ifndef LUNFS_KVM_LAYOUT_H
#define LUNFS_KVM_LAYOUT_H

#define GPA_GDT			0x500ull
#define GPA_ZERO_PAGE		0x7000ull
#define GPA_STACK		0x8ff0ull
#define GPA_PML4		0x9000ull	/* PML4, PDPT, four page directories */
#define GPA_CLAIM		0x10000ull
#define GPA_CLAIM_SIZE		0x1000ull
#define GPA_CMDLINE		0x20000ull
#define GPA_CMDLINE_MAX		0x10000ull
#define GPA_BASE_END		0x9fc00ull	/* of conventional memory */
#define GPA_ACPI		0xe0000ull
#define GPA_ACPI_SIZE		0x20000ull
#define GPA_HIGH		0x100000ull
#define GPA_HOLE		0xc0000000ull	/* no memory from here to 4 GiB */
#define GPA_HOLE_END		0x100000000ull
#define GPA_VIRTIO		0xd0000000ull
#define GPA_VIRTIO_SIZE		0x1000ull
#define GPA_IOAPIC		0xfec00000ull
#define GPA_LAPIC		0xfee00000ull
#define GPA_IDENTITY_MAP	0xfffbc000ull
#define GPA_TSS			0xfffbd000ull

#define PORT_UART		0x3f8
#define PORT_UART_SIZE		8
#define PORT_I8042		0x64
#define PORT_PANIC		0x505	/* QEMU's pvpanic: Linux has a driver for it */
#define PORT_SLEEP_CONTROL	0x600	/* ACPI, reduced hardware */
#define PORT_SLEEP_STATUS	0x601
#define PORT_RESET		0x602
#define PORT_RESET_VALUE	1
#define SLEEP_S5		5	/* SLP_TYP of \_S5 */

#define GSI_UART		4
#define GSI_GED			5	/* the power button */
#define GSI_VIRTIO		6	/* and on, one a device */
#define GSI_COUNT		24	/* pins of the I/O APIC */

#define VM_DISKS_MAX		16
#define VM_CPUS_MAX		64
#define VM_MEMORY_MIN		(4ull << 20)
#define VM_MEMORY_MAX		(1ull << 40)

#endif
