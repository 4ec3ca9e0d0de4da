/* SPDX-License-Identifier: Apache-2.0 */
#include "kvm/boot.h"

#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "kvm/layout.h"

#define SECTOR			512u
#define HEADER_AT		offsetof(struct boot_params, hdr)	/* 0x1f1 */
#define HEADER_END_AT		0x201	/* the low byte of a jump over the header */
#define HEADER_MAGIC		0x53726448	/* "HdrS" */
#define PROTOCOL_64_BIT		0x020c	/* 2.12: xloadflags */
#define BOOT_SIGNATURE		0xaa55
#define ENTRY_64		0x200
#define LOADER_UNKNOWN		0xff
#define PROGRAM_HEADERS_MAX	64
#define INITRD_MAX_ELF		0x37ffffff	/* what kernels before 2.03 could reach */
#define CMDLINE_ELF		2047

static_assert(sizeof(struct boot_params) == 4096, "zero-page.rst: one page");
static_assert(HEADER_AT == 0x1f1, "boot.rst: the real-mode kernel header");

struct loader {
	const struct vm_memory *m;
	int		fd;
	uint64_t	size;		/* of the file */
	struct boot_params *zero;	/* being made */
	uint64_t	entry;
	uint64_t	end;		/* of what the kernel needs before it looks at the map */
	char		*why;
	size_t		why_size;
};

#define REFUSE(l, err, ...)	text_refuse(err, (l)->why, (l)->why_size, __VA_ARGS__)

static int read_at(int fd, void *buf, uint64_t len, uint64_t at)
{
	uint64_t done = 0;

	while (done < len) {
		ssize_t n = pread(fd, (char *)buf + done, len - done, (off_t)(at + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;	/* it became shorter */
		done += (uint64_t)n;
	}
	return 0;
}

static int file_size(int fd, uint64_t *size)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	*size = st.st_size < 0 ? 0 : (uint64_t)st.st_size;
	return 0;
}

/* [@gpa, @gpa + @len) as memory that a kernel may be loaded to, or NULL. */
static void *load_place(const struct loader *l, uint64_t gpa, uint64_t len)
{
	return gpa >= GPA_HIGH && gpa < l->m->low ? memory_at(l->m, gpa, len) : NULL;
}

static int too_small(const struct loader *l, uint64_t end)
{
	return REFUSE(l, -ENOMEM, "the kernel wants memory up to %llu MiB, the guest has %llu MiB; "
		      "give it more", (unsigned long long)(end >> 20) + 1,
		      (unsigned long long)(l->m->size >> 20));
}

/* ---- bzImage ---- */

static int check_header(const struct loader *l, const struct setup_header *h)
{
	if (h->boot_flag != BOOT_SIGNATURE || h->header != HEADER_MAGIC)
		return REFUSE(l, -ENOEXEC, "the kernel is neither a bzImage nor an ELF vmlinux");
	if (h->version < PROTOCOL_64_BIT)
		return REFUSE(l, -ENOEXEC, "a bzImage of boot protocol %u.%02u; 2.12 (Linux 3.8) is "
			      "the oldest that can be booted", h->version >> 8, h->version & 0xffu);
	if (!(h->xloadflags & XLF_KERNEL_64))
		return REFUSE(l, -ENOEXEC, "a 32-bit kernel; only 64-bit ones can be booted");
	return 0;
}

static int load_bzimage(struct loader *l, const uint8_t *head, size_t head_len)
{
	struct setup_header *h = &l->zero->hdr;
	size_t header_len = HEADER_END_AT + 1 + head[HEADER_END_AT] - HEADER_AT;
	uint64_t setup, size;
	void *to;
	int err;

	if (header_len > sizeof(*h))
		header_len = sizeof(*h);	/* fields of a later protocol */
	if (HEADER_AT + header_len > head_len)
		return REFUSE(l, -ENOEXEC, "the kernel is neither a bzImage nor an ELF vmlinux");
	memcpy(h, head + HEADER_AT, header_len);
	err = check_header(l, h);
	if (err)
		return err;
	setup = (uint64_t)((h->setup_sects ? h->setup_sects : 4) + 1) * SECTOR;
	if (setup + ENTRY_64 >= l->size)
		return REFUSE(l, -ENOEXEC, "a bzImage that was cut off");
	size = l->size - setup;
	l->end = h->pref_address + (h->init_size > size ? h->init_size : size);
	to = load_place(l, h->pref_address, l->end - h->pref_address);
	if (l->end < h->pref_address || !to)
		return too_small(l, l->end);
	l->entry = h->pref_address + ENTRY_64;
	h->code32_start = (uint32_t)h->pref_address;
	err = read_at(l->fd, to, size, setup);
	return err ? REFUSE(l, err, "reading it: %s", strerror(-err)) : 0;
}

/* ---- ELF ---- */

static int load_segment(struct loader *l, const Elf64_Phdr *p, bool *holds_entry)
{
	void *to;
	int err;

	if (p->p_filesz > p->p_memsz || p->p_offset > l->size ||
	    p->p_filesz > l->size - p->p_offset)
		return REFUSE(l, -ENOEXEC, "an ELF file with a segment that is not in it");
	if (p->p_paddr + p->p_memsz < p->p_paddr || p->p_paddr < GPA_HIGH)
		return REFUSE(l, -ENOEXEC, "an ELF file with a segment at address %#llx; it must lie "
			      "above 1 MiB", (unsigned long long)p->p_paddr);
	to = load_place(l, p->p_paddr, p->p_memsz);
	if (!to)
		return too_small(l, p->p_paddr + p->p_memsz);
	err = read_at(l->fd, to, p->p_filesz, p->p_offset);
	if (err)
		return REFUSE(l, err, "reading it: %s", strerror(-err));
	if (p->p_paddr + p->p_memsz > l->end)
		l->end = p->p_paddr + p->p_memsz;
	if (l->entry >= p->p_paddr && l->entry - p->p_paddr < p->p_filesz)
		*holds_entry = true;
	return 0;
}

static int load_elf(struct loader *l, const Elf64_Ehdr *e)
{
	struct setup_header *h = &l->zero->hdr;
	bool holds_entry = false;
	int err = 0;

	if (e->e_ident[EI_CLASS] != ELFCLASS64 || e->e_ident[EI_DATA] != ELFDATA2LSB ||
	    e->e_machine != EM_X86_64 || e->e_type != ET_EXEC)
		return REFUSE(l, -ENOEXEC, "an ELF file, but no kernel for x86-64");
	if (e->e_phentsize != sizeof(Elf64_Phdr) || !e->e_phnum ||
	    e->e_phnum > PROGRAM_HEADERS_MAX)
		return REFUSE(l, -ENOEXEC, "an ELF file without program headers that make sense");
	l->entry = e->e_entry;
	for (unsigned int i = 0; i < e->e_phnum && !err; i++) {
		uint64_t at = e->e_phoff + i * sizeof(Elf64_Phdr);
		Elf64_Phdr p;

		if (e->e_phoff > l->size || at + sizeof(p) > l->size)
			return REFUSE(l, -ENOEXEC, "an ELF file that was cut off");
		err = read_at(l->fd, &p, sizeof(p), at);
		if (!err && p.p_type == PT_LOAD)
			err = load_segment(l, &p, &holds_entry);
	}
	if (err)
		return err;
	if (!holds_entry)
		return REFUSE(l, -ENOEXEC, "an ELF file whose entry %#llx is in none of its segments",
			      (unsigned long long)l->entry);
	h->boot_flag = BOOT_SIGNATURE;
	h->header = HEADER_MAGIC;
	h->kernel_alignment = 0x1000000;
	h->initrd_addr_max = INITRD_MAX_ELF;
	h->cmdline_size = CMDLINE_ELF;
	return 0;
}

static int load_kernel(struct loader *l)
{
	union { uint8_t bytes[1024]; Elf64_Ehdr elf; } head;
	int err = file_size(l->fd, &l->size);

	if (!err && l->size < sizeof(head))
		return REFUSE(l, -ENOEXEC, "the kernel is neither a bzImage nor an ELF vmlinux");
	if (!err)
		err = read_at(l->fd, head.bytes, sizeof(head), 0);
	if (err)
		return REFUSE(l, err, "reading it: %s", strerror(-err));
	if (!memcmp(head.elf.e_ident, ELFMAG, SELFMAG))
		return load_elf(l, &head.elf);
	return load_bzimage(l, head.bytes, sizeof(head));
}

/* ---- what goes with it ---- */

/* As high as the kernel can reach, where it is in nobody's way. */
static int load_initrd(struct loader *l, int fd)
{
	struct setup_header *h = &l->zero->hdr;
	uint64_t size = 0, top = l->m->low, at;
	int err = file_size(fd, &size);

	if (err)
		return REFUSE(l, err, "the initial RAM disk: %s", strerror(-err));
	if (top > (uint64_t)h->initrd_addr_max + 1)
		top = (uint64_t)h->initrd_addr_max + 1;
	if (size > UINT32_MAX || size > top || (at = (top - size) & ~4095ull) < l->end)
		return REFUSE(l, -ENOMEM, "kernel and initial RAM disk do not fit into %llu MiB; give "
			      "the guest more memory", (unsigned long long)(l->m->size >> 20));
	err = read_at(fd, memory_at(l->m, at, size), size, 0);
	if (err)
		return REFUSE(l, err, "reading the initial RAM disk: %s", strerror(-err));
	h->ramdisk_image = (uint32_t)at;
	h->ramdisk_size = (uint32_t)size;
	return 0;
}

static int put_cmdline(struct loader *l, const char *cmdline)
{
	struct setup_header *h = &l->zero->hdr;
	size_t len = strlen(cmdline), max = h->cmdline_size ? h->cmdline_size : 255;

	if (max >= GPA_CMDLINE_MAX)
		max = GPA_CMDLINE_MAX - 1;
	if (len > max)
		return REFUSE(l, -E2BIG, "the command line has %zu bytes, this kernel takes %zu", len,
			      max);
	memcpy(memory_at(l->m, GPA_CMDLINE, GPA_CMDLINE_MAX), cmdline, len + 1);
	h->cmd_line_ptr = GPA_CMDLINE;
	return 0;
}

int boot_load(const struct vm_memory *m, const struct boot_source *s, uint64_t *entry,
	      char *why, size_t why_size)
{
	struct boot_params zero = { 0 };
	struct loader l = { .m = m, .fd = s->kernel_fd, .zero = &zero, .why = why,
			    .why_size = why_size };
	int err = load_kernel(&l);

	if (!err && s->initrd_fd >= 0)
		err = load_initrd(&l, s->initrd_fd);
	if (!err)
		err = put_cmdline(&l, s->cmdline);
	if (err)
		return err;
	zero.hdr.type_of_loader = LOADER_UNKNOWN;
	zero.acpi_rsdp_addr = s->rsdp;
	zero.e820_entries = (uint8_t)memory_e820(m, zero.e820_table);
	memcpy(memory_at(m, GPA_ZERO_PAGE, sizeof(zero)), &zero, sizeof(zero));
	*entry = l.entry;
	return 0;
}
