/* SPDX-License-Identifier: Apache-2.0 */
/* The guest's memory as the front end shares it: regions, their addresses, the dirty log. */
#ifndef LUNFS_VHOST_MEM_H
#define LUNFS_VHOST_MEM_H

#include <stdatomic.h>

#include "vhost/proto.h"

#define MEM_REGIONS_MAX	256
/* A file may be sparse and as long as its owner likes; our addresses are those of all front ends. */
#define MEM_BYTES_MAX	(8 * TIB)	/* of one front end's memory */
#define MEM_LOG_MAX	(4 * GIB)	/* of its dirty log: 128 TiB of guest addresses */

struct mem_region {
	uint64_t	guest_addr;
	uint64_t	size;
	uint64_t	user_addr;	/* in the front end's own address space */
	uint8_t		*host;		/* where it begins in ours */
	void		*map;		/* what is mapped: from a page of the file's on */
	size_t		map_size;
};

struct mem {
	struct mem_region regions[MEM_REGIONS_MAX];
	unsigned int	count;
	unsigned int	last;		/* where the last address was found */
	atomic_bool	*broken;	/* set when the peer has taken pages away */
	/* The dirty log: a bit a page of guest memory.  NULL: none. */
	uint8_t		*log;
	uint64_t	log_bytes;
	void		*log_map;
	size_t		log_map_size;
};

/** mem_init() - @broken is borrowed. */
void mem_init(struct mem *m, atomic_bool *broken);

/**
 * mem_add() - maps a region from @fd, which stays the caller's and need not stay open.
 * Return: 0; -EBADF not memory; -EINVAL empty, out of the file, misaligned, or it overlaps
 * one that there is; -ENOSPC too many; -errno of mmap().
 */
int mem_add(struct mem *m, const struct mem_region_wire *wire, int fd);

/** mem_remove() - unmaps the region that is exactly that one.  Return: 0 or -ENOENT. */
int mem_remove(struct mem *m, const struct mem_region_wire *wire);

/** mem_clear() - unmaps all regions; the log stays. */
void mem_clear(struct mem *m);

/**
 * mem_at_guest() - where guest address @addr is here.
 * @len: in: bytes wanted, not 0; out: how many of them lie together, from 1 on.
 * Return: NULL if @addr is in no region.
 */
void *mem_at_guest(struct mem *m, uint64_t addr, uint64_t *len);

/** mem_at_user() - where @len bytes at the front end's @addr are; NULL if not in one region. */
void *mem_at_user(struct mem *m, uint64_t addr, uint64_t len);

/** mem_read() - copies guest memory, once.  Return: false if some of it is in no region. */
bool mem_read(struct mem *m, uint64_t addr, void *buf, size_t len);

/**
 * mem_set_log() - the dirty log lies in @fd at @offset; NULL @wire: no log.
 * Return: 0; -EBADF; -EINVAL; -errno of mmap().
 */
int mem_set_log(struct mem *m, const struct log_wire *wire, int fd);

/** mem_log() - marks guest pages as written; what the log does not cover is left out. */
void mem_log(struct mem *m, uint64_t addr, uint64_t len);

/** mem_log_host() - the same by our address. */
void mem_log_host(struct mem *m, const void *host, uint64_t len);

/** shm_map() - maps @size bytes of shared memory @fd at @offset, guarded.  0 or -errno. */
int shm_map(int fd, uint64_t offset, uint64_t size, atomic_bool *broken, void **map,
	    size_t *map_size, uint8_t **start);
void shm_unmap(void *map, size_t map_size);

#endif
