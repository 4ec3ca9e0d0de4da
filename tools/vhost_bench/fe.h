/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vhost-user-blk front end with memory of its own: talks to any server's socket, shares its
 * memory, sets rings up, stops them, and comes back to a server that was restarted.
 *
 * All functions belong to one thread and block; the rings are used by others while no function
 * below runs but fe_config_get().
 */
#ifndef LUNFS_VHOST_BENCH_FE_H
#define LUNFS_VHOST_BENCH_FE_H

#include "tools/vhost_bench/vq.h"

#define FE_QUEUES_MAX	64
#define FE_REGIONS_MAX	8	/* what fits one SET_MEM_TABLE */
#define FE_WHY_SIZE	256
#define FE_ANSWER_MS	10000	/* a server that does not answer for so long is broken */

enum fe_mem {
	FE_MEM_AUTO,		/* single regions where the server can, as QEMU does */
	FE_MEM_TABLE,		/* SET_MEM_TABLE */
	FE_MEM_SLOTS,		/* ADD_MEM_REG */
};

struct fe_params {
	const char	*socket;
	unsigned int	queues;
	unsigned int	queue_size;	/* entries; 0: as many as the depth needs, at least 128 */
	unsigned int	depth;		/* requests a queue */
	unsigned int	bufs_max;	/* descriptors of a request */
	size_t		slot_bytes;	/* data of a request, a multiple of 4096 */
	uint64_t	features_off;	/* features that are not to be negotiated */
	uint64_t	features_wanted; /* without which it is refused */
	uint64_t	protocol_off;
	enum fe_mem	mem;
	unsigned int	regions;	/* that the memory is shared in; 0: one */
	unsigned int	threads;	/* queue i and i + threads share a call descriptor; 0: 1 */
};

struct fe_queue {
	struct vq	vq;
	int		kick_fd;
	int		call_fd;
};

struct fe {
	struct fe_params p;
	int		fd;		/* -1: not connected */
	int		backend_fd;	/* the server's requests arrive here; -1: none */
	int		server_pid;	/* who listens at the socket; 0: unknown */
	uint64_t	offered;	/* features */
	uint64_t	features;
	uint64_t	protocol_offered;
	uint64_t	protocol;
	struct blk_config_wire config;
	struct fe_queue	queues[FE_QUEUES_MAX];

	int		mem_fd;
	uint8_t		*mem;
	size_t		mem_size;
	uint64_t	mem_gpa;	/* of mem[0]; the regions follow each other without gaps */
	size_t		data_at;	/* where the requests' memory begins: after the rings */

	int		inflight_fd;	/* -1: the server does not track requests */
	struct inflight_wire inflight;
	char		why[FE_WHY_SIZE];	/* what went wrong */
};

/**
 * fe_open() - connects, negotiates, makes memory and rings; the rings run.
 * Return: 0, or -errno with f->why.  fe_close() either way.
 */
int fe_open(struct fe *f, const struct fe_params *p);
void fe_close(struct fe *f);

/**
 * fe_reconnect() - the server was restarted: tells a new one all that the old one knew.
 * Return: 0; -ENOTSUP the server does not track requests, so what was under way is lost;
 * -ECONNREFUSED or -ENOENT there is none yet; -errno with f->why.
 */
int fe_reconnect(struct fe *f);

/** fe_lost() - whether the server has hung up.  Takes what it says about its configuration:
 *  *@changed is set if there was something.  Waits up to @timeout_ms. */
bool fe_lost(struct fe *f, int timeout_ms, bool *changed);

/** fe_config_get() - reads @size bytes of configuration space at @offset.  0 or -errno. */
int fe_config_get(struct fe *f, uint32_t offset, uint32_t size, void *buf);
/** fe_config_set() - writes them.  0, or -errno: -EINVAL the server says no. */
int fe_config_set(struct fe *f, uint32_t offset, uint32_t size, const void *buf);

/** fe_queue_stop() - the server gives ring @i up; nothing is in it.  fe_queue_start() again. */
int fe_queue_stop(struct fe *f, unsigned int i);
int fe_queue_start(struct fe *f, unsigned int i);

/** fe_reset() - RESET_DEVICE where there is one, else all rings are stopped; they begin anew. */
int fe_reset(struct fe *f);

/** fe_capacity() - the disk's size in bytes by the configuration that was read last. */
uint64_t fe_capacity(const struct fe *f);

/** fe_slot_mem() - the memory of request @slot of queue @i: slot_bytes of data, and before
 *  them a page for header, ranges and status.  Its guest address goes to *@gpa. */
uint8_t *fe_slot_mem(struct fe *f, unsigned int i, unsigned int slot, uint64_t *gpa);

#define FE_SLOT_HEAD	4096u	/* bytes before the data */

#endif
