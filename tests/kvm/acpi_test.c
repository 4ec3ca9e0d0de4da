/* SPDX-License-Identifier: Apache-2.0 */
#include "kvm/acpi.h"

#include <errno.h>
#include <unistd.h>

#include "kvm/layout.h"
#include "tests/unit.h"

#define SIZE	0x8000

static uint8_t buf[SIZE];

static uint8_t sum(const uint8_t *p, size_t len)
{
	uint8_t s = 0;

	while (len--)
		s = (uint8_t)(s + *p++);
	return s;
}

static uint32_t u32(const uint8_t *p)
{
	le32 v;

	memcpy(&v, p, sizeof(v));
	return le32_to_cpu(v);
}

static uint64_t u64(const uint8_t *p)
{
	le64 v;

	memcpy(&v, p, sizeof(v));
	return le64_to_cpu(v);
}

/* A guest that finds a wrong checksum has no tables, and then no processors and no disks. */
static void every_table_has_its_checksum(void)
{
	const struct acpi_machine m = { 3, 2 };
	struct acpi_tables t;
	const struct acpi_table *all[] = { &t.rsdp, &t.xsdt, &t.fadt, &t.madt, &t.dsdt };

	CU_ASSERT_FATAL(acpi_build(&m, GPA_ACPI, buf, SIZE, &t) > 0);
	for (unsigned int i = 0; i < ARRAY_SIZE(all); i++)
		CU_ASSERT_EQUAL(sum(buf + all[i]->offset, all[i]->size), 0);
	CU_ASSERT_EQUAL(sum(buf, 20), 0);
}

static void tables_lead_to_each_other_by_guest_addresses(void)
{
	const struct acpi_machine m = { 1, 0 };
	struct acpi_tables t;
	const uint8_t *xsdt, *fadt;

	CU_ASSERT_FATAL(acpi_build(&m, GPA_ACPI, buf, SIZE, &t) > 0);
	CU_ASSERT_EQUAL(u64(buf + 24), GPA_ACPI + t.xsdt.offset);
	xsdt = buf + t.xsdt.offset;
	CU_ASSERT_EQUAL(u64(xsdt + 36), GPA_ACPI + t.fadt.offset);
	CU_ASSERT_EQUAL(u64(xsdt + 44), GPA_ACPI + t.madt.offset);
	fadt = buf + t.fadt.offset;
	CU_ASSERT_EQUAL(u64(fadt + 140), GPA_ACPI + t.dsdt.offset);
	CU_ASSERT_EQUAL(u32(fadt + 40), GPA_ACPI + t.dsdt.offset);
	CU_ASSERT(u32(fadt + 112) & 1u << 20);		/* hardware-reduced */
	CU_ASSERT_EQUAL(u64(fadt + 244 + 4), PORT_SLEEP_CONTROL);
	CU_ASSERT_EQUAL(u64(fadt + 116 + 4), PORT_RESET);
}

static void madt_names_every_processor(void)
{
	struct acpi_tables t;
	struct acpi_machine m = { 0, 1 };

	for (m.cpus = 1; m.cpus <= VM_CPUS_MAX; m.cpus++) {
		const uint8_t *p;

		CU_ASSERT_FATAL(acpi_build(&m, GPA_ACPI, buf, SIZE, &t) > 0);
		p = buf + t.madt.offset + 44;
		for (unsigned int i = 0; i < m.cpus; i++, p += 8)
			CU_ASSERT(p[0] == 0 && p[1] == 8 && p[3] == i && u32(p + 4) == 1);
		CU_ASSERT(p[0] == 1 && u32(p + 4) == GPA_IOAPIC);
	}
}

static void what_does_not_fit_is_refused(void)
{
	const struct acpi_machine m = { VM_CPUS_MAX, VM_DISKS_MAX };
	int used = acpi_build(&m, GPA_ACPI, buf, SIZE, NULL);

	CU_ASSERT_FATAL(used > 0);
	CU_ASSERT((unsigned int)used <= GPA_ACPI_SIZE);
	for (size_t size = 0; size < (size_t)used; size += 13)
		CU_ASSERT_EQUAL(acpi_build(&m, GPA_ACPI, buf, size, NULL), -ENOSPC);
}

static bool save(const char *dir, const char *name, const struct acpi_table *t)
{
	char path[128];
	FILE *f;
	bool ok;

	snprintf(path, sizeof(path), "%s/%s.dat", dir, name);
	f = fopen(path, "w");
	ok = f && fwrite(buf + t->offset, t->size, 1, f) == 1;
	return f && !fclose(f) && ok;
}

/* The reference disassembler reads them, and finds in the DSDT what we meant to say. */
static void iasl_understands_them(void)
{
	const struct acpi_machine m = { 4, VM_DISKS_MAX };
	char dir[] = "/tmp/lunfs-acpi-XXXXXX", cmd[1024];
	struct acpi_tables t;

	CU_ASSERT_FATAL(acpi_build(&m, GPA_ACPI, buf, SIZE, &t) > 0);
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(dir));
	CU_ASSERT_FATAL(save(dir, "dsdt", &t.dsdt) && save(dir, "facp", &t.fadt) &&
			save(dir, "apic", &t.madt) && save(dir, "xsdt", &t.xsdt));
	snprintf(cmd, sizeof(cmd), "cd %s && iasl -d dsdt.dat facp.dat apic.dat xsdt.dat >log 2>&1 && "
		 "! grep -iE 'error|warning|unknown|invalid|checksum.*incorrect' log dsdt.dsl facp.dsl "
		 "apic.dsl && grep -q 'LNRO0005' dsdt.dsl && grep -q 'Notify (.*PWRB, 0x80)' dsdt.dsl && "
		 "grep -q 'Name (_S5' dsdt.dsl && grep -q 'Device (VR15)' dsdt.dsl && "
		 "grep -q 'Hardware Reduced (V5) : 1' facp.dsl", dir);
	CU_ASSERT_EQUAL(system(cmd), 0);
	/* What it made of it is accepted by the compiler again. */
	snprintf(cmd, sizeof(cmd), "cd %s && iasl dsdt.dsl >log2 2>&1 && grep -q ' 0 Errors' log2", dir);
	CU_ASSERT_EQUAL(system(cmd), 0);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	CU_ASSERT_EQUAL(system(cmd), 0);
}

UNIT_MAIN("acpi",
	UNIT_TEST(every_table_has_its_checksum),
	UNIT_TEST(tables_lead_to_each_other_by_guest_addresses),
	UNIT_TEST(madt_names_every_processor),
	UNIT_TEST(what_does_not_fit_is_refused),
	UNIT_TEST(iasl_understands_them));
