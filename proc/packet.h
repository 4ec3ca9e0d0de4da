/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Structs and descriptors between the two halves of a program, over a SOCK_SEQPACKET pair.
 * Both ends are the same executable, so structs travel as they are.
 */
#ifndef LUNFS_PROC_PACKET_H
#define LUNFS_PROC_PACKET_H

#include "base/types.h"

#define PACKET_FDS_MAX	8

/** packet_send() - one packet with @fd_count descriptors.  Return: 0 or -errno. */
int packet_send(int sock, const void *msg, size_t len, const int *fds, unsigned int fd_count);

/** packet_send_now() - the same without descriptors; -EAGAIN where it would have to wait. */
int packet_send_now(int sock, const void *msg, size_t len);

/**
 * packet_recv() - one packet of exactly @len bytes and at most PACKET_FDS_MAX descriptors, which
 * the caller then owns; they are close-on-exec.
 * Return: 0; -EPIPE the other end is gone; -EPROTO another length, descriptors closed.
 */
int packet_recv(int sock, void *msg, size_t len, int fds[PACKET_FDS_MAX], unsigned int *fd_count);

/** packet_close_fds() - closes what packet_recv() returned. */
void packet_close_fds(const int *fds, unsigned int count);

#endif
