/* SPDX-License-Identifier: Apache-2.0 */
#include "kvm/boot.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kvm/layout.h"
#include "tests/unit.h"

#define RAM	(64ull << 20)
#define SETUP	(5 * 512)	/* bytes of a bzImage before its 64-bit part */
#define BODY	8192

static struct vm_memory m;
static char why[256];
static uint64_t entry;

static int file_of(const void *bytes, size_t len)
{
	int fd = memfd_create("test", 0);

	CU_ASSERT_FATAL(fd >= 0 && pwrite(fd, bytes, len, 0) == (ssize_t)len);
	return fd;
}

static int load(int kernel, int initrd, const char *cmdline)
{
	const struct boot_source s = { kernel, initrd, cmdline, GPA_ACPI };

	return boot_load(&m, &s, &entry, why, sizeof(why));
}

/* A bzImage that boots, as far as its numbers go. */
static void make_bzimage(uint8_t file[SETUP + BODY])
{
	struct setup_header *h = (struct setup_header *)(file + 0x1f1);

	memset(file, 0, SETUP + BODY);
	for (unsigned int i = 0; i < BODY; i++)
		file[SETUP + i] = (uint8_t)(i * 7 + 1);
	h->setup_sects = 4;
	h->boot_flag = 0xaa55;
	h->header = 0x53726448;
	h->jump = 0x6aeb;	/* the header ends 6ah bytes after 202h */
	h->version = 0x020f;
	h->xloadflags = XLF_KERNEL_64;
	h->pref_address = 0x1000000;
	h->init_size = 1 << 20;
	h->initrd_addr_max = 0x7fffffff;
	h->cmdline_size = 2047;
}

static const struct boot_params *zero_page(void)
{
	return memory_at(&m, GPA_ZERO_PAGE, 4096);
}

static void bzimage_is_loaded_where_it_wants_to_be(void)
{
	static uint8_t file[SETUP + BODY];
	int fd;

	make_bzimage(file);
	fd = file_of(file, sizeof(file));
	CU_ASSERT_EQUAL_FATAL(load(fd, -1, "console=ttyS0"), 0);
	CU_ASSERT_EQUAL(entry, 0x1000200);
	CU_ASSERT_EQUAL(memcmp(memory_at(&m, 0x1000000, BODY), file + SETUP, BODY), 0);
	CU_ASSERT_EQUAL(zero_page()->hdr.type_of_loader, 0xff);
	CU_ASSERT_EQUAL(zero_page()->hdr.header, 0x53726448);
	CU_ASSERT_EQUAL(zero_page()->hdr.cmd_line_ptr, GPA_CMDLINE);
	CU_ASSERT_EQUAL(zero_page()->acpi_rsdp_addr, GPA_ACPI);
	CU_ASSERT_STRING_EQUAL(memory_at(&m, GPA_CMDLINE, 64), "console=ttyS0");
	close(fd);
}

/* A header that is longer than ours, of a later protocol: what follows it in the zero page stays zero. */
static void a_longer_header_is_cut(void)
{
	static uint8_t file[SETUP + BODY];
	struct setup_header *h = (struct setup_header *)(file + 0x1f1);
	const uint8_t *behind = (const uint8_t *)&zero_page()->hdr + sizeof(*h);
	unsigned int others = 0;
	int fd;

	make_bzimage(file);
	memset(file + 0x1f1 + sizeof(*h), 0xee, 0x200);
	h->jump = 0xffeb;
	fd = file_of(file, sizeof(file));
	CU_ASSERT_EQUAL_FATAL(load(fd, -1, ""), 0);
	while (behind < (const uint8_t *)zero_page()->e820_table)
		others += *behind++ != 0;
	CU_ASSERT_EQUAL(others, 0);
	close(fd);
}

static void initrd_lies_at_the_top_within_reach(void)
{
	static uint8_t file[SETUP + BODY];
	static const char ramdisk[5000] = "a RAM disk";
	int fd, initrd = file_of(ramdisk, sizeof(ramdisk));

	make_bzimage(file);
	((struct setup_header *)(file + 0x1f1))->initrd_addr_max = (32 << 20) - 1;
	fd = file_of(file, sizeof(file));
	CU_ASSERT_EQUAL_FATAL(load(fd, initrd, ""), 0);
	CU_ASSERT_EQUAL(zero_page()->hdr.ramdisk_size, 5000);
	CU_ASSERT_EQUAL(zero_page()->hdr.ramdisk_image, (32 << 20) - 8192);
	CU_ASSERT_STRING_EQUAL(memory_at(&m, (32 << 20) - 8192, 16), "a RAM disk");
	close(fd);
	/* Where the kernel will be there is no place for it. */
	((struct setup_header *)(file + 0x1f1))->init_size = 16 << 20;
	fd = file_of(file, sizeof(file));
	CU_ASSERT_EQUAL(load(fd, initrd, ""), -ENOMEM);
	close(fd);
	close(initrd);
}

/* Every number of a kernel is its maker's: none may lead out of the guest's memory (R9). */
static void hostile_bzimages_are_refused(void)
{
	static uint8_t file[SETUP + BODY];
	struct setup_header *h = (struct setup_header *)(file + 0x1f1);
	static const struct { const char *what; int err; } cases[] = {
		{ "no magic", -ENOEXEC }, { "old protocol", -ENOEXEC }, { "32 bits", -ENOEXEC },
		{ "beyond memory", -ENOMEM }, { "wraps around", -ENOMEM }, { "huge", -ENOMEM },
		{ "in low memory", -ENOMEM }, { "all setup", -ENOEXEC }, { "no flag", -ENOEXEC },
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		int fd;

		make_bzimage(file);
		switch (i) {
		case 0: h->header = 1; break;
		case 1: h->version = 0x020b; break;
		case 2: h->xloadflags = 0; break;
		case 3: h->pref_address = RAM - 4096; break;
		case 4: h->pref_address = UINT64_MAX - 4095; break;
		case 5: h->init_size = UINT32_MAX; break;
		case 6: h->pref_address = 0x7000; break;
		case 7: h->setup_sects = 255; break;
		default: h->boot_flag = 0; break;
		}
		fd = file_of(file, sizeof(file));
		why[0] = '\0';
		CU_ASSERT_EQUAL(load(fd, -1, ""), cases[i].err);
		CU_ASSERT(why[0] != '\0');
		close(fd);
	}
}

static void what_is_no_kernel_is_refused(void)
{
	static uint8_t junk[4096];
	int fd = file_of(junk, sizeof(junk)), empty = file_of(junk, 0);

	CU_ASSERT_EQUAL(load(fd, -1, ""), -ENOEXEC);
	CU_ASSERT_EQUAL(load(empty, -1, ""), -ENOEXEC);
	close(fd);
	close(empty);
}

struct elf_file {
	Elf64_Ehdr	e;
	Elf64_Phdr	p[2];
	uint8_t		bytes[2048];
};

static void make_elf(struct elf_file *f)
{
	memset(f, 0, sizeof(*f));
	memcpy(f->e.e_ident, ELFMAG, SELFMAG);
	f->e.e_ident[EI_CLASS] = ELFCLASS64;
	f->e.e_ident[EI_DATA] = ELFDATA2LSB;
	f->e.e_machine = EM_X86_64;
	f->e.e_type = ET_EXEC;
	f->e.e_phentsize = sizeof(Elf64_Phdr);
	f->e.e_phnum = 2;
	f->e.e_phoff = offsetof(struct elf_file, p);
	f->e.e_entry = 0x200010;
	f->p[0] = (Elf64_Phdr){ .p_type = PT_LOAD, .p_offset = offsetof(struct elf_file, bytes),
				.p_paddr = 0x200000, .p_filesz = 2048, .p_memsz = 8192 };
	f->p[1] = (Elf64_Phdr){ .p_type = PT_NOTE, .p_paddr = 1, .p_filesz = UINT64_MAX };
	memset(f->bytes, 0x5a, sizeof(f->bytes));
}

static void elf_segments_are_loaded(void)
{
	struct elf_file f;
	int fd;

	make_elf(&f);
	fd = file_of(&f, sizeof(f));
	CU_ASSERT_EQUAL_FATAL(load(fd, -1, "x"), 0);
	CU_ASSERT_EQUAL(entry, 0x200010);
	CU_ASSERT_EQUAL(memcmp(memory_at(&m, 0x200000, 2048), f.bytes, 2048), 0);
	CU_ASSERT_EQUAL(zero_page()->hdr.header, 0x53726448);
	close(fd);
}

static void hostile_elf_files_are_refused(void)
{
	struct elf_file f;

	for (unsigned int i = 0; i < 9; i++) {
		int fd, err = -ENOEXEC;

		make_elf(&f);
		switch (i) {
		case 0: f.p[0].p_filesz = 9000; f.p[0].p_memsz = 1; break;
		case 1: f.p[0].p_offset = UINT64_MAX - 10; break;
		case 2: f.p[0].p_paddr = 0; break;
		case 3: f.p[0].p_paddr = RAM - 4096; err = -ENOMEM; break;
		case 4: f.p[0].p_paddr = UINT64_MAX - 4095; break;
		case 5: f.e.e_phoff = UINT64_MAX - 8; break;
		case 6: f.e.e_entry = 0x300000; break;
		case 7: f.e.e_phnum = 60000; break;
		default: f.e.e_machine = EM_386; break;
		}
		fd = file_of(&f, sizeof(f));
		CU_ASSERT_EQUAL(load(fd, -1, ""), err);
		close(fd);
	}
}

static void command_line_is_bounded_by_the_kernel(void)
{
	static uint8_t file[SETUP + BODY];
	char line[64];
	int fd;

	memset(line, 'x', sizeof(line) - 1);
	line[sizeof(line) - 1] = '\0';
	make_bzimage(file);
	((struct setup_header *)(file + 0x1f1))->cmdline_size = 62;
	fd = file_of(file, sizeof(file));
	CU_ASSERT_EQUAL(load(fd, -1, line), -E2BIG);
	CU_ASSERT_EQUAL(load(fd, -1, line + 1), 0);
	close(fd);
}

/* Memory beyond 3 GiB moves above 4 GiB; nothing that is a device's is ever called memory. */
static void map_covers_memory_and_nothing_else(void)
{
	static const uint64_t sizes[] = { 4ull << 20, 64ull << 20, GPA_HOLE, GPA_HOLE + 4096,
					  16ull << 30 };
	struct boot_e820_entry e[5];

	for (unsigned int i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct vm_memory big = { .size = sizes[i],
					 .low = sizes[i] < GPA_HOLE ? sizes[i] : GPA_HOLE };
		unsigned int n = memory_e820(&big, e);
		uint64_t total = 0, end = 0;

		for (unsigned int j = 0; j < n; j++) {
			CU_ASSERT(e[j].addr >= end);
			end = e[j].addr + e[j].size;
			if (e[j].type == 1) {
				total += e[j].size;
				CU_ASSERT(end <= GPA_HOLE || e[j].addr >= GPA_HOLE_END);
			}
		}
		/* All but what lies between 639 KiB and 1 MiB. */
		CU_ASSERT_EQUAL(total, sizes[i] - (GPA_HIGH - GPA_BASE_END));
		CU_ASSERT_PTR_NULL(memory_at(&big, GPA_VIRTIO, 1));
		CU_ASSERT_PTR_NULL(memory_at(&big, sizes[i] > GPA_HOLE ? GPA_HOLE - 1 :
					     sizes[i] - 1, 2));
		CU_ASSERT_PTR_NULL(memory_at(&big, UINT64_MAX, 1));
		CU_ASSERT_PTR_NULL(memory_at(&big, 0, UINT64_MAX));
	}
}

/* Who shares it cannot make it shorter under us or the daemon, nor take the seal off. */
static void memory_is_sealed(void)
{
	CU_ASSERT(ftruncate(m.fd, 4096) < 0 && errno == EPERM);
	CU_ASSERT(ftruncate(m.fd, 2 * RAM) < 0 && errno == EPERM);
	CU_ASSERT(fcntl(m.fd, F_ADD_SEALS, F_SEAL_WRITE) < 0 && errno == EPERM);
}

static void memory_of_no_sensible_size_is_refused(void)
{
	struct vm_memory bad;

	CU_ASSERT_EQUAL(memory_create(0, &bad), -EINVAL);
	CU_ASSERT_EQUAL(memory_create(RAM + 1, &bad), -EINVAL);
	CU_ASSERT_EQUAL(memory_create(UINT64_MAX - 4095, &bad), -EINVAL);
}

static CU_TestInfo tests[] = {
	UNIT_TEST(bzimage_is_loaded_where_it_wants_to_be),
	UNIT_TEST(a_longer_header_is_cut),
	UNIT_TEST(initrd_lies_at_the_top_within_reach),
	UNIT_TEST(hostile_bzimages_are_refused),
	UNIT_TEST(what_is_no_kernel_is_refused),
	UNIT_TEST(elf_segments_are_loaded),
	UNIT_TEST(hostile_elf_files_are_refused),
	UNIT_TEST(command_line_is_bounded_by_the_kernel),
	UNIT_TEST(map_covers_memory_and_nothing_else),
	UNIT_TEST(memory_is_sealed),
	UNIT_TEST(memory_of_no_sensible_size_is_refused),
	CU_TEST_INFO_NULL,
};

static int setup(void)
{
	return memory_create(RAM, &m);
}

static int teardown(void)
{
	memory_destroy(&m);
	return 0;
}

int main(void)
{
	return unit_run("boot", setup, teardown, tests);
}
