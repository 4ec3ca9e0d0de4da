/* SPDX-License-Identifier: Apache-2.0 */
#include "vhost/mem.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "vhost/guard.h"
#include "vhost/server.h"

void mem_init(struct mem *m, atomic_bool *broken)
{
	memset(m, 0, sizeof(*m));
	m->broken = broken;
}

/* ---- mapping what a peer sent ---- */

int shm_map(int fd, uint64_t offset, uint64_t size, atomic_bool *broken, void **map,
	    size_t *map_size, uint8_t **start)
{
	uint64_t page, skip, end;
	struct stat st;
	int err;

	if (!fd_is_memory(fd))
		return -EBADF;
	if (fstat(fd, &st))
		return -errno;
	/* hugetlbfs: its page size, and offsets are multiples of it. */
	page = st.st_blksize > 4096 ? (uint64_t)st.st_blksize : 4096;
	if (!size || __builtin_add_overflow(offset, size, &end) || end > (uint64_t)st.st_size)
		return -EINVAL;
	skip = offset % page;
	end = skip + size;
	*map_size = ALIGN_UP(end, page);
	*map = mmap(NULL, *map_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd,
		    (off_t)(offset - skip));
	if (*map == MAP_FAILED)
		return -errno;
	/* Guests' memory does not belong into our core dumps. */
	madvise(*map, *map_size, MADV_DONTDUMP);
	err = guard_add(*map, *map_size, broken);
	if (err) {
		munmap(*map, *map_size);
		return err;
	}
	*start = (uint8_t *)*map + skip;
	return 0;
}

void shm_unmap(void *map, size_t map_size)
{
	guard_remove(map);
	munmap(map, map_size);
}

/* ---- regions ---- */

static bool ranges_overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
	return a < b + b_size && b < a + a_size;
}

/* Neither address may wrap, nor meet another region's. */
static bool region_fits(const struct mem *m, const struct mem_region_wire *w)
{
	uint64_t end;

	if (!w->size || __builtin_add_overflow(w->guest_addr, w->size, &end) ||
	    __builtin_add_overflow(w->user_addr, w->size, &end))
		return false;
	for (unsigned int i = 0; i < m->count; i++) {
		const struct mem_region *r = &m->regions[i];

		if (ranges_overlap(r->guest_addr, r->size, w->guest_addr, w->size) ||
		    ranges_overlap(r->user_addr, r->size, w->user_addr, w->size))
			return false;
	}
	return true;
}

int mem_add(struct mem *m, const struct mem_region_wire *wire, int fd)
{
	struct mem_region *r = &m->regions[m->count];
	uint64_t bytes = 0;
	int err;

	for (unsigned int i = 0; i < m->count; i++)
		bytes += m->regions[i].size;
	if (m->count == MEM_REGIONS_MAX || wire->size > MEM_BYTES_MAX - bytes)
		return -ENOSPC;
	if (!region_fits(m, wire))
		return -EINVAL;
	err = shm_map(fd, wire->mmap_offset, wire->size, m->broken, &r->map, &r->map_size,
		      &r->host);
	if (err)
		return err;
	r->guest_addr = wire->guest_addr;
	r->user_addr = wire->user_addr;
	r->size = wire->size;
	m->count++;
	return 0;
}

int mem_remove(struct mem *m, const struct mem_region_wire *wire)
{
	for (unsigned int i = 0; i < m->count; i++) {
		struct mem_region *r = &m->regions[i];

		if (r->guest_addr != wire->guest_addr || r->user_addr != wire->user_addr ||
		    r->size != wire->size)
			continue;
		shm_unmap(r->map, r->map_size);
		*r = m->regions[--m->count];
		m->last = 0;
		return 0;
	}
	return -ENOENT;
}

void mem_clear(struct mem *m)
{
	while (m->count) {
		struct mem_region *r = &m->regions[--m->count];

		shm_unmap(r->map, r->map_size);
	}
	m->last = 0;
}

static struct mem_region *region_at(struct mem *m, uint64_t addr)
{
	unsigned int i;

	if (m->last < m->count && addr - m->regions[m->last].guest_addr < m->regions[m->last].size)
		return &m->regions[m->last];
	for (i = 0; i < m->count; i++)
		if (addr - m->regions[i].guest_addr < m->regions[i].size) {
			m->last = i;
			return &m->regions[i];
		}
	return NULL;
}

void *mem_at_guest(struct mem *m, uint64_t addr, uint64_t *len)
{
	struct mem_region *r = region_at(m, addr);
	uint64_t skip;

	if (!r)
		return NULL;
	skip = addr - r->guest_addr;
	if (*len > r->size - skip)
		*len = r->size - skip;
	return r->host + skip;
}

void *mem_at_user(struct mem *m, uint64_t addr, uint64_t len)
{
	for (unsigned int i = 0; i < m->count; i++) {
		struct mem_region *r = &m->regions[i];
		uint64_t skip = addr - r->user_addr;

		if (skip < r->size)
			return len <= r->size - skip ? r->host + skip : NULL;
	}
	return NULL;
}

bool mem_read(struct mem *m, uint64_t addr, void *buf, size_t len)
{
	while (len) {
		uint64_t n = len;
		const void *p = mem_at_guest(m, addr, &n);

		if (!p)
			return false;
		memcpy(buf, p, n);
		buf = (uint8_t *)buf + n;
		addr += n;
		len -= n;
	}
	return true;
}

/* ---- dirty log ---- */

int mem_set_log(struct mem *m, const struct log_wire *wire, int fd)
{
	size_t map_size;
	uint8_t *start;
	void *map;
	int err;

	if (wire && wire->size > MEM_LOG_MAX)
		return -ENOSPC;
	if (wire) {
		err = shm_map(fd, wire->offset, wire->size, m->broken, &map, &map_size, &start);
		if (err)
			return err;
	}
	if (m->log)
		shm_unmap(m->log_map, m->log_map_size);
	m->log = NULL;
	if (wire) {
		m->log = start;
		m->log_bytes = wire->size;
		m->log_map = map;
		m->log_map_size = map_size;
	}
	return 0;
}

void mem_log(struct mem *m, uint64_t addr, uint64_t len)
{
	uint64_t page, last;

	if (!m->log || !len)
		return;
	last = (addr + len - 1) / VHU_LOG_PAGE;
	for (page = addr / VHU_LOG_PAGE; page <= last && page / 8 < m->log_bytes; page++)
		__atomic_fetch_or(&m->log[page / 8], (uint8_t)(1u << page % 8), __ATOMIC_RELAXED);
}

void mem_log_host(struct mem *m, const void *host, uint64_t len)
{
	for (unsigned int i = 0; m->log && i < m->count; i++) {
		const struct mem_region *r = &m->regions[i];
		uint64_t skip = (uint64_t)((uintptr_t)host - (uintptr_t)r->host);

		if (skip < r->size) {
			mem_log(m, r->guest_addr + skip, len);
			return;
		}
	}
}
