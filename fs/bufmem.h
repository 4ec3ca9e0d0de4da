/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of buffers: blocks cut from larger pieces.  Aligned to their size one by one, as the
 * device wants them, they would take twice their size from the C library.
 */
#ifndef LUNFS_FS_BUFMEM_H
#define LUNFS_FS_BUFMEM_H

#include "base/env.h"

struct bufmem;
struct bufmem_chunk;

struct bufmem *bufmem_new(struct env *env);	/* NULL when out of memory */

/** bufmem_free() - everything was put back; NULL is allowed. */
void bufmem_free(struct bufmem *m);

/**
 * bufmem_get() - BLOCK_SIZE bytes for I/O, zeroed.
 * @chunk: receives what to give to bufmem_put() with them.
 * Context: any thread; takes a mutex that is a leaf.  Return: NULL when out of memory.
 */
void *bufmem_get(struct bufmem *m, struct bufmem_chunk **chunk);
void bufmem_put(struct bufmem_chunk *chunk, void *data);

#endif
