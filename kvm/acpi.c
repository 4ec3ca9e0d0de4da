/* SPDX-License-Identifier: Apache-2.0 */
#include "kvm/acpi.h"

#include <errno.h>
#include <stdio.h>

#include "kvm/layout.h"

#define OEM_ID		"LUNFS "
#define OEM_TABLE_ID	"LUNVM   "

/* Bits of the FADT's flags and of IAPC_BOOT_ARCH (ACPI 5.2.9). */
#define FADT_WBINVD		(1u << 0)
#define FADT_NO_POWER_BUTTON	(1u << 4)	/* none of fixed hardware: PNP0C0C instead */
#define FADT_NO_SLEEP_BUTTON	(1u << 5)
#define FADT_RESET_REGISTER	(1u << 10)
#define FADT_HW_REDUCED		(1u << 20)
#define BOOT_NO_VGA		(1u << 2)
#define BOOT_NO_CMOS_CLOCK	(1u << 5)
#define MADT_ENABLED		1u

/* ---- tables as they lie in memory ---- */

struct table_header {
	char	signature[4];	/*  0 */
	le32	length;		/*  4 */
	uint8_t	revision;	/*  8 */
	uint8_t	checksum;	/*  9 */
	char	oem_id[6];	/* 10 */
	char	oem_table_id[8]; /* 16 */
	le32	oem_revision;	/* 24 */
	char	creator_id[4];	/* 28 */
	le32	creator_revision; /* 32 */
};
static_assert(sizeof(struct table_header) == 36, "ACPI 5.2.6");

struct rsdp {
	char	signature[8];	/*  0 */
	uint8_t	checksum;	/*  8  of the first 20 bytes */
	char	oem_id[6];	/*  9 */
	uint8_t	revision;	/* 15 */
	le32	rsdt;		/* 16 */
	le32	length;		/* 20 */
	le64	xsdt;		/* 24 */
	uint8_t	all_checksum;	/* 32 */
	uint8_t	reserved[3];	/* 33 */
};
static_assert(sizeof(struct rsdp) == 36, "ACPI 5.2.5.3");

struct generic_address {
	uint8_t	space;		/* 1: ports */
	uint8_t	bit_width;
	uint8_t	bit_offset;
	uint8_t	access;		/* 1: bytes */
	le64	address;
};
static_assert(sizeof(struct generic_address) == 12, "ACPI 5.2.3.2");

struct fadt {
	struct table_header hdr;	/*   0 */
	le32	facs;			/*  36 */
	le32	dsdt;			/*  40 */
	uint8_t	unused0[65];		/*  44  fixed hardware, of which there is none */
	le16	boot_arch;		/* 109 */
	uint8_t	unused1;		/* 111 */
	le32	flags;			/* 112 */
	struct generic_address reset;	/* 116 */
	uint8_t	reset_value;		/* 128 */
	le16	arm_boot_arch;		/* 129 */
	uint8_t	minor;			/* 131 */
	le64	x_facs;			/* 132 */
	le64	x_dsdt;			/* 140 */
	struct generic_address unused2[8]; /* 148 */
	struct generic_address sleep_control; /* 244 */
	struct generic_address sleep_status; /* 256 */
	le64	hypervisor;		/* 268 */
};
static_assert(sizeof(struct fadt) == 276, "ACPI 5.2.9");
static_assert(offsetof(struct fadt, boot_arch) == 109, "ACPI 5.2.9");
static_assert(offsetof(struct fadt, sleep_control) == 244, "ACPI 5.2.9");

struct madt {
	struct table_header hdr;
	le32	lapic;
	le32	flags;
};

struct madt_cpu {
	uint8_t	type, length, uid, apic_id;
	le32	flags;
};
static_assert(sizeof(struct madt_cpu) == 8, "ACPI 5.2.12.2");

struct madt_ioapic {
	uint8_t	type, length, id, reserved;
	le32	address;
	le32	gsi_base;
};
static_assert(sizeof(struct madt_ioapic) == 12, "ACPI 5.2.12.3");

struct madt_nmi {
	uint8_t	type, length, uid;
	le16	flags;
	uint8_t	lint;
};
static_assert(sizeof(struct madt_nmi) == 6, "ACPI 5.2.12.7");

/* ---- writing ---- */

struct writer {
	uint8_t	*buf;
	size_t	used, size;
	bool	full;
};

static void put(struct writer *w, const void *bytes, size_t len)
{
	if (len > w->size - w->used) {
		w->full = true;
		return;
	}
	memcpy(w->buf + w->used, bytes, len);
	w->used += len;
}

static void put8(struct writer *w, unsigned int v)
{
	uint8_t b = (uint8_t)v;

	put(w, &b, 1);
}

static void put16(struct writer *w, unsigned int v)
{
	le16 x = cpu_to_le16((uint16_t)v);

	put(w, &x, sizeof(x));
}

static void put32(struct writer *w, uint32_t v)
{
	le32 x = cpu_to_le32(v);

	put(w, &x, sizeof(x));
}

static uint8_t checksum(const void *bytes, size_t len)
{
	const uint8_t *b = bytes;
	uint8_t sum = 0;

	for (size_t i = 0; i < len; i++)
		sum = (uint8_t)(sum + b[i]);
	return (uint8_t)-sum;
}

static struct table_header header_make(const char *signature, unsigned int revision)
{
	struct table_header h = { .revision = (uint8_t)revision, .oem_revision = cpu_to_le32(1),
				  .creator_revision = cpu_to_le32(1) };

	memcpy(h.signature, signature, 4);
	memcpy(h.oem_id, OEM_ID, sizeof(h.oem_id));
	memcpy(h.oem_table_id, OEM_TABLE_ID, sizeof(h.oem_table_id));
	memcpy(h.creator_id, "LUNF", 4);
	return h;
}

/* What was written since @start is a table: its length and checksum; the next is aligned. */
static struct acpi_table table_end(struct writer *w, size_t start)
{
	struct acpi_table t = { (uint32_t)start, (uint32_t)(w->used - start) };
	struct table_header *h = (struct table_header *)(w->buf + start);

	if (!w->full) {
		h->length = cpu_to_le32(t.size);
		h->checksum = checksum(h, t.size);
	}
	while (w->used % 16 && !w->full)
		put8(w, 0);
	return t;
}

/* ---- AML ---- */

enum aml_op {
	AML_NAME = 0x08, AML_BYTE = 0x0a, AML_WORD = 0x0b, AML_DWORD = 0x0c, AML_STRING = 0x0d,
	AML_SCOPE = 0x10, AML_BUFFER = 0x11, AML_PACKAGE = 0x12, AML_METHOD = 0x14,
	AML_EXT = 0x5b, AML_EXT_DEVICE = 0x82, AML_ROOT = 0x5c, AML_NOTIFY = 0x86,
	AML_DUAL_NAME = 0x2e,
};

/*
 * A length is written before what it counts: three bytes are left for it, which hold any length
 * below 1 MiB (20.2.4, PkgLength).
 */
static size_t package_begin(struct writer *w)
{
	size_t at = w->used;

	put(w, "\0\0\0", 3);
	return at;
}

static void package_end(struct writer *w, size_t at)
{
	size_t len = w->used - at;

	if (w->full)
		return;
	w->buf[at] = (uint8_t)(2u << 6 | (len & 0xf));
	w->buf[at + 1] = (uint8_t)(len >> 4);
	w->buf[at + 2] = (uint8_t)(len >> 12);
}

static void put_integer(struct writer *w, uint32_t v)
{
	if (v <= 1) {
		put8(w, v);	/* ZeroOp, OneOp */
	} else if (v <= 0xff) {
		put8(w, AML_BYTE);
		put8(w, v);
	} else if (v <= 0xffff) {
		put8(w, AML_WORD);
		put16(w, v);
	} else {
		put8(w, AML_DWORD);
		put32(w, v);
	}
}

static void put_name(struct writer *w, const char name[5])
{
	put8(w, AML_NAME);
	put(w, name, 4);
}

static void put_string(struct writer *w, const char *s)
{
	put8(w, AML_STRING);
	put(w, s, strlen(s) + 1);
}

static size_t device_begin(struct writer *w, const char name[5])
{
	size_t at;

	put8(w, AML_EXT);
	put8(w, AML_EXT_DEVICE);
	at = package_begin(w);
	put(w, name, 4);
	return at;
}

/* "PNP0C0C" packed into 32 bits, the bytes of which are then swapped (19.3.4, EISAID). */
static void put_eisa_id(struct writer *w, const char *id)
{
	unsigned int product;
	uint32_t v;

	sscanf(id + 3, "%4x", &product);
	v = (uint32_t)(id[0] - '@') << 26 | (uint32_t)(id[1] - '@') << 21 |
	    (uint32_t)(id[2] - '@') << 16 | product;
	put8(w, AML_DWORD);
	put32(w, __builtin_bswap32(v));
}

/* ---- resources: 6.4 ---- */

/* _CRS: a buffer whose size is written before it, as a word. */
static size_t resources_begin(struct writer *w, size_t *size_at)
{
	size_t at;

	put_name(w, "_CRS");
	put8(w, AML_BUFFER);
	at = package_begin(w);
	put8(w, AML_WORD);
	*size_at = w->used;
	put16(w, 0);
	return at;
}

static void resources_end(struct writer *w, size_t at, size_t size_at)
{
	le16 size;

	put8(w, 0x79);	/* end tag, with a checksum that nobody needs */
	put8(w, 0);
	size = cpu_to_le16((uint16_t)(w->used - size_at - sizeof(size)));
	if (!w->full)
		memcpy(w->buf + size_at, &size, sizeof(size));
	package_end(w, at);
}

static void put_memory(struct writer *w, uint32_t base, uint32_t size)
{
	put8(w, 0x86);	/* Memory32Fixed */
	put16(w, 9);
	put8(w, 1);	/* writable */
	put32(w, base);
	put32(w, size);
}

static void put_ports(struct writer *w, unsigned int base, unsigned int count)
{
	put8(w, 0x47);
	put8(w, 1);	/* 16 bits are decoded */
	put16(w, base);
	put16(w, base);
	put8(w, 1);
	put8(w, count);
}

/* Edges, because an irqfd makes one and nobody has to take it back. */
static void put_interrupt(struct writer *w, uint32_t gsi)
{
	put8(w, 0x89);
	put16(w, 6);
	put8(w, 0x03);	/* consumer, edge, active high, exclusive */
	put8(w, 1);
	put32(w, gsi);
}

/* ---- the devices ---- */

static void put_virtio(struct writer *w, unsigned int index)
{
	char name[5] = { 'V', 'R', (char)('0' + index / 10), (char)('0' + index % 10) };
	size_t at = device_begin(w, name), res, size_at;

	put_name(w, "_HID");
	put_string(w, "LNRO0005");
	put_name(w, "_UID");
	put_integer(w, index);
	res = resources_begin(w, &size_at);
	put_memory(w, (uint32_t)(GPA_VIRTIO + index * GPA_VIRTIO_SIZE), GPA_VIRTIO_SIZE);
	put_interrupt(w, GSI_VIRTIO + index);
	resources_end(w, res, size_at);
	package_end(w, at);
}

static void put_serial(struct writer *w)
{
	size_t at = device_begin(w, "COM1"), res, size_at;

	put_name(w, "_HID");
	put_eisa_id(w, "PNP0501");
	put_name(w, "_UID");
	put_integer(w, 0);
	res = resources_begin(w, &size_at);
	put_ports(w, PORT_UART, PORT_UART_SIZE);
	put_interrupt(w, GSI_UART);
	resources_end(w, res, size_at);
	package_end(w, at);
}

static void put_panic_device(struct writer *w)
{
	size_t at = device_begin(w, "PEVT"), res, size_at;

	put_name(w, "_HID");
	put_string(w, "QEMU0001");
	res = resources_begin(w, &size_at);
	put_ports(w, PORT_PANIC, 1);
	resources_end(w, res, size_at);
	package_end(w, at);
}

static void put_power_button(struct writer *w)
{
	size_t at = device_begin(w, "PWRB");

	put_name(w, "_HID");
	put_eisa_id(w, "PNP0C0C");
	package_end(w, at);
}

/* A generic event device: its interrupt presses the power button (5.6.9). */
static void put_event_device(struct writer *w)
{
	size_t at = device_begin(w, "GED_"), res, size_at;

	put_name(w, "_HID");
	put_string(w, "ACPI0013");
	put_name(w, "_UID");
	put_integer(w, 0);
	res = resources_begin(w, &size_at);
	put_interrupt(w, GSI_GED);
	resources_end(w, res, size_at);
	put8(w, AML_METHOD);
	res = package_begin(w);
	put(w, "_EVT", 4);
	put8(w, 1 | 1 << 3);	/* one argument, serialized */
	put8(w, AML_NOTIFY);
	put8(w, AML_ROOT);
	put8(w, AML_DUAL_NAME);
	put(w, "_SB_PWRB", 8);
	put_integer(w, 0x80);	/* pressed */
	package_end(w, res);
	package_end(w, at);
}

/* _S5: what to write into the sleep control register to power off (7.4.2). */
static void put_power_off(struct writer *w)
{
	size_t at;

	put_name(w, "_S5_");
	put8(w, AML_PACKAGE);
	at = package_begin(w);
	put8(w, 4);
	put_integer(w, SLEEP_S5);
	for (int i = 0; i < 3; i++)
		put_integer(w, 0);
	package_end(w, at);
}

static struct acpi_table put_dsdt(struct writer *w, const struct acpi_machine *machine)
{
	struct table_header h = header_make("DSDT", 6);
	size_t start = w->used, at;

	put(w, &h, sizeof(h));
	put_power_off(w);
	put8(w, AML_SCOPE);
	at = package_begin(w);
	put8(w, AML_ROOT);
	put(w, "_SB_", 4);
	put_power_button(w);
	put_event_device(w);
	put_serial(w);
	put_panic_device(w);
	for (unsigned int i = 0; i < machine->virtio_devices; i++)
		put_virtio(w, i);
	package_end(w, at);
	return table_end(w, start);
}

/* ---- the other tables ---- */

static struct generic_address port(unsigned int number)
{
	return (struct generic_address){ 1, 8, 0, 1, cpu_to_le64(number) };
}

static struct acpi_table put_fadt(struct writer *w, uint64_t dsdt)
{
	struct fadt f = {
		.hdr = header_make("FACP", 6), .dsdt = cpu_to_le32((uint32_t)dsdt),
		.boot_arch = cpu_to_le16(BOOT_NO_VGA | BOOT_NO_CMOS_CLOCK),
		.flags = cpu_to_le32(FADT_WBINVD | FADT_NO_POWER_BUTTON | FADT_NO_SLEEP_BUTTON |
				     FADT_RESET_REGISTER | FADT_HW_REDUCED),
		.reset = port(PORT_RESET), .reset_value = PORT_RESET_VALUE, .minor = 4,
		.x_dsdt = cpu_to_le64(dsdt), .sleep_control = port(PORT_SLEEP_CONTROL),
		.sleep_status = port(PORT_SLEEP_STATUS),
	};
	size_t start = w->used;

	memcpy(&f.hypervisor, "LUNVM\0\0\0", 8);
	put(w, &f, sizeof(f));
	return table_end(w, start);
}

static struct acpi_table put_madt(struct writer *w, unsigned int cpus)
{
	const struct madt_ioapic ioapic = { .type = 1, .length = sizeof(ioapic),
					    .address = cpu_to_le32(GPA_IOAPIC) };
	const struct madt_nmi nmi = { .type = 4, .length = sizeof(nmi), .uid = 0xff, .lint = 1 };
	struct madt m = { .hdr = header_make("APIC", 5), .lapic = cpu_to_le32(GPA_LAPIC) };
	size_t start = w->used;

	put(w, &m, sizeof(m));
	for (unsigned int i = 0; i < cpus; i++) {
		struct madt_cpu c = { .length = sizeof(c), .uid = (uint8_t)i, .apic_id = (uint8_t)i,
				      .flags = cpu_to_le32(MADT_ENABLED) };

		put(w, &c, sizeof(c));
	}
	put(w, &ioapic, sizeof(ioapic));
	put(w, &nmi, sizeof(nmi));
	return table_end(w, start);
}

static struct acpi_table put_xsdt(struct writer *w, uint64_t fadt, uint64_t madt)
{
	struct table_header h = header_make("XSDT", 1);
	le64 entries[2] = { cpu_to_le64(fadt), cpu_to_le64(madt) };
	size_t start = w->used;

	put(w, &h, sizeof(h));
	put(w, entries, sizeof(entries));
	return table_end(w, start);
}

static void fill_rsdp(uint8_t *buf, uint64_t xsdt)
{
	struct rsdp r = { .revision = 2, .length = cpu_to_le32(sizeof(r)),
			  .xsdt = cpu_to_le64(xsdt) };

	memcpy(r.signature, "RSD PTR ", sizeof(r.signature));
	memcpy(r.oem_id, OEM_ID, sizeof(r.oem_id));
	r.checksum = checksum(&r, 20);
	r.all_checksum = checksum(&r, sizeof(r));
	memcpy(buf, &r, sizeof(r));
}

int acpi_build(const struct acpi_machine *machine, uint64_t gpa, uint8_t *buf, size_t size,
	       struct acpi_tables *tables)
{
	struct writer w = { .buf = buf, .used = 48, .size = size };	/* the RSDP, and aligned */
	struct acpi_tables t = { .rsdp = { 0, sizeof(struct rsdp) } };

	if (size < w.used)
		return -ENOSPC;
	t.dsdt = put_dsdt(&w, machine);
	t.fadt = put_fadt(&w, gpa + t.dsdt.offset);
	t.madt = put_madt(&w, machine->cpus);
	t.xsdt = put_xsdt(&w, gpa + t.fadt.offset, gpa + t.madt.offset);
	if (w.full)
		return -ENOSPC;
	fill_rsdp(buf, gpa + t.xsdt.offset);
	if (tables)
		*tables = t;
	return (int)w.used;
}
