/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors that come from a peer: what they are, and closing them. */
#ifndef LUNFS_VHOST_SERVER_H
#define LUNFS_VHOST_SERVER_H

#include <libaio.h>

#include "vhost/vhu.h"

/**
 * server_discard() - closes @fd without waiting for it.
 *
 * Closing a descriptor of unknown kind can block for as long as its owner likes (a file of
 * a FUSE mount asks that file system).  Those that were checked are simply closed.
 */
void server_discard(struct vhu_server *s, int fd);

/** server_discard_aio() - io_destroy(), which takes tens of milliseconds, elsewhere. */
void server_discard_aio(struct vhu_server *s, io_context_t aio);

/**
 * fd_is_memory() - whether @fd is memory: memfd, tmpfs or hugetlbfs.
 *
 * Asks without waiting for anybody; others may not be mapped, because a page of theirs
 * might never come.
 */
bool fd_is_memory(int fd);

/** fd_is_unix_stream() - whether @fd is a Unix stream socket. */
bool fd_is_unix_stream(int fd);

#endif
