/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/vhost_bench/ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"

#define SECTOR		512u
#define WORDS		(SECTOR / sizeof(uint64_t))
#define FILE_MAGIC	0x6c6c756e66736264ULL
#define FILE_HEADER	4096u

/* What generation "acked" left behind. */
enum kind {
	KIND_OLD,	/* what was there before all this: anything */
	KIND_DATA,
	KIND_ZERO,
	KIND_DISCARDED,	/* zeros, or anything that was ever written here */
};

struct ledger_entry {
	uint32_t	acked;		/* 0: none */
	uint32_t	issued;
	uint8_t		acked_kind;	/* enum kind */
	uint8_t		issued_kind;	/* of the one that was issued last */
	uint8_t		may_be_zero;	/* one of those since "acked" makes zeros */
	uint8_t		may_be_old;	/* one of those discards: any earlier one may come back */
	uint32_t	reserved;
};
static_assert(sizeof(struct ledger_entry) == 16, "the ledger's file");

struct file_header {
	uint64_t magic;
	uint64_t seed;
	uint64_t offset;
	uint64_t blocks;
	uint64_t block_size;
};

static uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ULL;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

/* ---- the pattern ---- */

static void sector_fill(uint64_t *w, uint64_t seed, uint64_t sector, uint32_t generation)
{
	uint64_t base = mix(seed ^ mix(sector) ^ (uint64_t)generation << 32);

	w[0] = sector;
	w[1] = generation;
	for (unsigned int i = 2; i < WORDS; i++)
		w[i] = base + i * 0x9e3779b97f4a7c15ULL;
}

/* The generation that @w is of, 0 for zeros.  Return: whether it is either. */
static bool sector_parse(const uint64_t *w, uint64_t seed, uint64_t sector, uint32_t *generation)
{
	uint64_t should[WORDS], all = 0;

	for (unsigned int i = 0; i < WORDS; i++)
		all |= w[i];
	*generation = 0;
	if (!all)
		return true;
	*generation = (uint32_t)w[1];
	sector_fill(should, seed, sector, *generation);
	return *generation && !memcmp(w, should, sizeof(should));
}

/* ---- life ---- */

static int file_begin(struct ledger *l, struct file_header *h, const char *path, char *why,
		      size_t why_size)
{
	struct file_header want = { FILE_MAGIC, l->seed, l->offset, l->blocks, l->block_size };

	if (!h->magic) {
		*h = want;
		return 0;
	}
	if (h->magic != want.magic || h->offset != want.offset || h->blocks != want.blocks ||
	    h->block_size != want.block_size)
		return text_refuse(-EINVAL, why, why_size, "%s is of another part of a disk, or "
				   "another block size: take the same --offset, --size and --bs, "
				   "or another file", path);
	l->seed = h->seed;
	return 0;
}

static int file_open(const char *path, size_t size, char *why, size_t why_size)
{
	struct stat st;
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

	if (fd < 0 || fstat(fd, &st))
		goto fail;
	if (st.st_size && (size_t)st.st_size != size) {
		close(fd);
		return text_refuse(-EINVAL, why, why_size, "%s is not a ledger of this part of "
				   "the disk", path);
	}
	if (!ftruncate(fd, (off_t)size))
		return fd;
fail:
	text_refuse(-errno, why, why_size, "%s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return -EIO;
}

int ledger_open(struct ledger *l, const char *path, uint64_t seed, uint64_t offset,
		uint64_t blocks, uint32_t block_size, char *why, size_t why_size)
{
	size_t size = FILE_HEADER + blocks * sizeof(struct ledger_entry);
	int fd = -1, flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, err;

	*l = (struct ledger){ .seed = seed, .offset = offset, .blocks = blocks,
			      .block_size = block_size, .map_size = size };
	if (path) {
		fd = file_open(path, size, why, why_size);
		if (fd < 0)
			return fd;
		flags = MAP_SHARED;
	}
	l->map = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);
	if (fd >= 0)
		close(fd);
	if (l->map == MAP_FAILED) {
		l->map = NULL;
		return text_refuse(-errno, why, why_size, "the ledger: %s", strerror(errno));
	}
	l->entries = (struct ledger_entry *)(void *)((uint8_t *)l->map + FILE_HEADER);
	if (!path)
		return 0;
	err = file_begin(l, l->map, path, why, why_size);
	if (err)
		ledger_close(l);
	return err;
}

void ledger_close(struct ledger *l)
{
	if (l->map)
		munmap(l->map, l->map_size);
	l->map = NULL;
}

/* ---- writing ---- */

void ledger_issue(struct ledger *l, uint64_t block, enum ledger_op op, void *data)
{
	struct ledger_entry *e = &l->entries[block];
	uint64_t sector = (l->offset + block * l->block_size) / SECTOR;

	/* Kinds before the generation: whoever finds it after a crash finds what it means. */
	if (op == LEDGER_ZERO || op == LEDGER_DISCARD)
		e->may_be_zero = 1;
	if (op == LEDGER_DISCARD)
		e->may_be_old = 1;
	e->issued_kind = op == LEDGER_WRITE ? KIND_DATA : op == LEDGER_ZERO ? KIND_ZERO :
			 KIND_DISCARDED;
	__atomic_store_n(&e->issued, e->issued + 1, __ATOMIC_RELEASE);
	for (uint32_t at = 0; op == LEDGER_WRITE && at < l->block_size; at += SECTOR)
		sector_fill((uint64_t *)(void *)((uint8_t *)data + at), l->seed, sector++,
			    e->issued);
}

void ledger_done(struct ledger *l, uint64_t block)
{
	struct ledger_entry *e = &l->entries[block];

	/* A discard of what nobody here wrote may leave it there. */
	if (e->issued_kind != KIND_DISCARDED || e->acked_kind != KIND_OLD)
		e->acked_kind = e->issued_kind;
	__atomic_store_n(&e->acked, e->issued, __ATOMIC_RELEASE);
	e->may_be_zero = 0;
	e->may_be_old = 0;
}

bool ledger_is_known(const struct ledger *l, uint64_t block)
{
	return l->entries[block].issued;
}

/* ---- reading ---- */

static bool may_be_zero(const struct ledger_entry *e)
{
	return e->acked_kind == KIND_ZERO || e->acked_kind == KIND_DISCARDED ||
	       (e->acked != e->issued && e->may_be_zero);
}

static bool may_be_generation(const struct ledger_entry *e, uint32_t generation)
{
	if (generation > e->issued)
		return false;
	if (e->acked_kind == KIND_DISCARDED || (e->acked != e->issued && e->may_be_old))
		return true;
	if (generation == e->acked)
		return e->acked_kind == KIND_DATA;
	return generation > e->acked;
}

static const char *kind_name(const struct ledger_entry *e)
{
	switch (e->acked_kind) {
	case KIND_DATA:
		return "written";
	case KIND_ZERO:
		return "zeroed";
	case KIND_DISCARDED:
		return "discarded";
	default:
		return "never acknowledged";
	}
}

int ledger_check(struct ledger *l, uint64_t block, const void *data, char *why,
		 size_t why_size)
{
	const struct ledger_entry *e = &l->entries[block];
	uint64_t sector = (l->offset + block * l->block_size) / SECTOR;

	for (uint32_t at = 0; at < l->block_size; at += SECTOR, sector++) {
		uint32_t generation;
		const uint64_t *w = (const uint64_t *)(const void *)((const uint8_t *)data + at);
		bool ours = sector_parse(w, l->seed, sector, &generation);

		/* Before the first acknowledged write the old contents may be there. */
		if (e->acked_kind == KIND_OLD)
			continue;
		if (ours && (generation ? may_be_generation(e, generation) : may_be_zero(e)))
			continue;
		return text_refuse(-EBADMSG, why, why_size, "sector %" PRIu64 ": %s generation %u "
				   "(%u issued), found %s %" PRIu64 " (words %#" PRIx64 " %#" PRIx64
				   ")", sector, kind_name(e), e->acked, e->issued,
				   !ours ? "neither that nor zeros: generation" :
				   generation ? "generation" : "zeros:", (uint64_t)generation, w[0],
				   w[1]);
	}
	return 0;
}
