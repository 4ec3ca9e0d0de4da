/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded into fsck.lunfs: ends it with SIGKILL at one of its writes to files, the KILL_AT'th,
 * before it (odd numbers) or after it (even ones).  KILL_COUNT: a file that receives how many there were.
 */
#include <dlfcn.h>
#include <libaio.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_uint writes;
static unsigned int kill_at;

__attribute__((constructor)) static void begin(void)
{
	const char *at = getenv("KILL_AT");

	kill_at = at ? (unsigned int)strtoul(at, NULL, 10) : 0;
}

__attribute__((destructor)) static void end(void)
{
	const char *path = getenv("KILL_COUNT");
	FILE *f = path ? fopen(path, "w") : NULL;

	if (f) {
		fprintf(f, "%u\n", atomic_load(&writes));
		fclose(f);
	}
}

static void *next_one(const char *name)
{
	void *fn = dlsym(RTLD_NEXT, name);

	if (!fn)
		abort();
	return fn;
}

static bool is_file(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && S_ISREG(st.st_mode);
}

/* Return: which write it is. */
static unsigned int before(void)
{
	unsigned int n = atomic_fetch_add(&writes, 1) + 1;

	if (n == kill_at && n % 2)
		kill(getpid(), SIGKILL);
	return n;
}

static void after(unsigned int n)
{
	if (n == kill_at)
		kill(getpid(), SIGKILL);
}

/* With _FILE_OFFSET_BITS it is pwritev64v2() by its right name. */
ssize_t pwritev2(int fd, const struct iovec *iov, int count, off_t off, int flags)
{
	ssize_t (*real)(int, const struct iovec *, int, off_t, int) = next_one("pwritev64v2");
	unsigned int n = before();
	ssize_t done = real(fd, iov, count, off, flags);

	after(n);
	return done;
}

ssize_t write(int fd, const void *data, size_t len)
{
	ssize_t (*real)(int, const void *, size_t) = next_one("write");
	bool counts = is_file(fd);
	unsigned int n = counts ? before() : 0;
	ssize_t done = real(fd, data, len);

	if (counts)
		after(n);
	return done;
}

int io_submit(io_context_t aio, long count, struct iocb **cbs)
{
	int (*real)(io_context_t, long, struct iocb **) = next_one("io_submit");
	unsigned int n = 0;
	int done;

	for (long i = 0; i < count; i++)
		if (cbs[i]->aio_lio_opcode == IO_CMD_PWRITEV || cbs[i]->aio_lio_opcode == IO_CMD_PWRITE)
			n = before();
	done = real(aio, count, cbs);
	if (n)
		after(n);
	return done;
}
