/* SPDX-License-Identifier: Apache-2.0 */
/* Copying the contents of a disk image: what is a hole or holds zeros is not written. */
#ifndef LUNFS_TOOLS_COPY_H
#define LUNFS_TOOLS_COPY_H

#include <stddef.h>

#include "tools/progress.h"

enum copy_format { COPY_RAW, COPY_QCOW2, COPY_VMDK, COPY_VHDX, COPY_FORMATS };

/** copy_format_name() - "qcow2"; copy_format_parse(): -1 unknown. */
const char *copy_format_name(enum copy_format f);
int copy_format_parse(const char *name);

/** copy_format_of_name() - by a file's suffix; raw if that says nothing. */
enum copy_format copy_format_of_name(const char *path);

/** copy_format_of() - by the first bytes of @fd. */
int copy_format_of(int fd, enum copy_format *f);

/* One copy; called back now and then while it goes on. */
struct copy {
	struct progress *progress;
	/* Optional, about every 10 s: keeps connections open.  Non-zero ends the copy. */
	int	(*tick)(void *arg);
	void	*arg;
	uint64_t written;	/* result of copy_raw(): bytes */
	char	why[512];	/* on failure */
};

/** copy_watch_signals() - from now on SIGINT, SIGTERM and SIGHUP end a copy in order. */
void copy_watch_signals(void);
bool copy_was_stopped(void);

/**
 * copy_raw() - the first @size bytes of @in into @out, which reads zeros everywhere.
 * Return: 0; -EINTR a signal came; -errno.
 */
int copy_raw(struct copy *c, int in, int out, uint64_t size);

/**
 * copy_info() - virtual size of an image of @format; qemu-img knows.
 * @trusted: the administrator stated the format.  If not, an image that names other files is
 * refused: a guest could have made it so.
 */
int copy_info(struct copy *c, const char *path, enum copy_format format, bool trusted,
	      uint64_t *size);

/** copy_import() - an image into @out, raw, of the right size, reading zeros.  By qemu-img. */
int copy_import(struct copy *c, const char *path, enum copy_format format, int out,
		uint64_t size);

/** copy_export() - raw @in as an image in the new file @path. */
int copy_export(struct copy *c, int in, const char *path, enum copy_format format, uint64_t size);

#endif
