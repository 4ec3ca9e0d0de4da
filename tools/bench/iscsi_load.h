/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One initiator session with a load on it, for iscsi_bench.c.  It does what an initiator has to
 * and no more (one connection, no digests, no recovery), so that the target is what is measured:
 * commands of a round go out in one call, answers of a round come in with one, nothing is
 * allocated once the load runs, and data is received to where it belongs.
 */
#ifndef LUNFS_BENCH_ISCSI_LOAD_H
#define LUNFS_BENCH_ISCSI_LOAD_H

#include <netinet/in.h>

#include "base/types.h"

/* What the load is; the same for every session. */
struct load_spec {
	struct sockaddr_storage addr;
	socklen_t	addr_len;
	char		iqn[224];
	unsigned int	lun;
	bool		write, sequential;
	uint32_t	io_len;		/* bytes of a command */
	unsigned int	depth;		/* commands under way; 0: only log in */
	unsigned int	session, sessions; /* this one's index, of how many */
	/* A command is over. */
	void		(*ended)(void *arg, uint64_t ns);
	void		*arg;
};

struct load;

/**
 * load_open() - connects, logs in, learns the unit's size.  Blocks.
 * Return: 0 or -errno, with a message on stderr.
 */
int load_open(const struct load_spec *spec, struct load **out);
/** load_fd() - to be watched for input, and for output while load_run() says so. */
int load_fd(const struct load *l);
/**
 * load_run() - takes in what has arrived, sends commands up to the depth.
 * Return: 0, 1 the socket is full; -errno with a message on stderr.
 */
int load_run(struct load *l);
/** load_stop() - no further command is begun. */
void load_stop(struct load *l);
unsigned int load_under_way(const struct load *l);
void load_close(struct load *l);

#endif
