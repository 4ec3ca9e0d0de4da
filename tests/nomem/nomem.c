/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/nomem/nomem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "block/blkdev.h"

#define SITES_MAX	1024

extern const char __executable_start[];

/*
 * What is to fail.  A program PROGRAM beside which lies a file PROGRAM.nomem has this there, for
 * others to write: so a daemon can be made to run out of memory while it works.
 */
struct control {
	uint64_t calls;		/* since armed */
	uint64_t first, count;	/* which of them fail; first 0: none */
	uint64_t every;		/* also each of so many, 0: none */
	uint64_t hits;
	uint64_t total;
};

/* A call of product code that failed. */
struct site {
	void	*address;	/* to which it returns */
	uint64_t count;
};

static struct control own, *control = &own;
static uint64_t noted;
static struct site sites[SITES_MAX];
static void *last[8];
static int64_t live;			/* pieces that product code has got and not freed */

/* ---- the decision ---- */

static void site_add(void *address)
{
	for (unsigned int i = 0; i < SITES_MAX; i++) {
		void *none = NULL;

		if (__atomic_load_n(&sites[i].address, __ATOMIC_RELAXED) != address &&
		    !__atomic_compare_exchange_n(&sites[i].address, &none, address, false,
						 __ATOMIC_RELAXED, __ATOMIC_RELAXED) &&
		    none != address)
			continue;
		__atomic_add_fetch(&sites[i].count, 1, __ATOMIC_RELAXED);
		return;
	}
}

static bool is_to_fail(uint64_t call)
{
	uint64_t first = __atomic_load_n(&control->first, __ATOMIC_RELAXED);
	uint64_t every = __atomic_load_n(&control->every, __ATOMIC_RELAXED);

	if (first && call >= first && call - first < control->count)
		return true;
	return every && call % every == 0;
}

/* Whether the call that returns to @site fails. */
static bool fails(void *site)
{
	uint64_t n;

	if (!is_to_fail(__atomic_add_fetch(&control->calls, 1, __ATOMIC_RELAXED)))
		return false;
	n = __atomic_fetch_add(&control->hits, 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&control->total, 1, __ATOMIC_RELAXED);
	last[n % (sizeof(last) / sizeof(last[0]))] = site;
	site_add(site);
	errno = ENOMEM;
	return true;
}

#define FAILS()		fails(__builtin_return_address(0))

static void *got(void *p)
{
	if (p)
		__atomic_add_fetch(&live, 1, __ATOMIC_RELAXED);
	return p;
}

int64_t nomem_live(void)
{
	return __atomic_load_n(&live, __ATOMIC_RELAXED);
}

void nomem_arm(uint64_t first, uint64_t count)
{
	control->calls = 0;
	control->hits = 0;
	control->count = count;
	memset(last, 0, sizeof(last));
	__atomic_store_n(&control->first, first, __ATOMIC_SEQ_CST);
}

uint64_t nomem_disarm(void)
{
	__atomic_store_n(&control->first, 0, __ATOMIC_SEQ_CST);
	return control->hits;
}

uint64_t nomem_hits(void)
{
	return __atomic_load_n(&control->hits, __ATOMIC_RELAXED);
}

/* ---- saying which ---- */

static unsigned long offset_of(const void *site)
{
	return (unsigned long)((const char *)site - __executable_start);
}

void nomem_where(void)
{
	fprintf(stderr, "  failed allocations: addr2line -pfie PROGRAM");
	for (unsigned int i = 0; i < sizeof(last) / sizeof(last[0]); i++)
		if (last[i])
			fprintf(stderr, " 0x%lx", offset_of(last[i]) - 1);
	fprintf(stderr, "\n");
}

void nomem_note(const char *what)
{
	unsigned int count = 0;

	while (count < SITES_MAX && sites[count].address)
		count++;
	printf("  note: %s: %llu allocations failed, in %u places so far\n", what,
	       (unsigned long long)(control->total - noted), count);
	noted = control->total;
}

/* For tests/nomem/coverage.sh: a line for each place that failed, and how often it did. */
static void sites_save(void)
{
	const char *path = getenv("LUNFS_NOMEM_SITES");
	FILE *out = path ? fopen(path, "we") : NULL;

	if (!out)
		return;
	for (unsigned int i = 0; i < SITES_MAX && sites[i].address; i++)
		fprintf(out, "%lx %llu\n", offset_of(sites[i].address),
			(unsigned long long)sites[i].count);
	fclose(out);
}

/* ---- in place of the real ones ---- */

#define REPLACES(name)	nomem_##name

void *REPLACES(malloc)(size_t size);
void REPLACES(free)(void *p);
void *REPLACES(calloc)(size_t n, size_t size);
void *REPLACES(realloc)(void *p, size_t size);
void *REPLACES(reallocarray)(void *p, size_t n, size_t size);
void *REPLACES(aligned_alloc)(size_t align, size_t size);
int REPLACES(posix_memalign)(void **p, size_t align, size_t size);
char *REPLACES(strdup)(const char *s);
char *REPLACES(strndup)(const char *s, size_t n);
int REPLACES(asprintf)(char **out, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int REPLACES(asprintf_chk)(char **out, int flag, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
int REPLACES(vasprintf)(char **out, const char *fmt, va_list ap)
	__attribute__((format(printf, 2, 0)));
int REPLACES(vasprintf_chk)(char **out, int flag, const char *fmt, va_list ap)
	__attribute__((format(printf, 3, 0)));
ssize_t REPLACES(getline)(char **line, size_t *size, FILE *in);
ssize_t REPLACES(getdelim)(char **line, size_t *size, int end, FILE *in);
ssize_t REPLACES(getdelim2)(char **line, size_t *size, int end, FILE *in);
FILE *REPLACES(open_memstream)(char **text, size_t *size);
FILE *REPLACES(fopen)(const char *path, const char *mode);
FILE *REPLACES(fopen64)(const char *path, const char *mode);
FILE *REPLACES(fdopen)(int fd, const char *mode);
DIR *REPLACES(opendir)(const char *path);
int REPLACES(pthread_create)(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *arg),
			     void *arg);
void *REPLACES(blkdev_alloc)(size_t size);

void *REPLACES(malloc)(size_t size)
{
	return FAILS() ? NULL : got(malloc(size));
}

void REPLACES(free)(void *p)
{
	if (p)
		__atomic_sub_fetch(&live, 1, __ATOMIC_RELAXED);
	free(p);
}

void nomem_release(void *p)
{
	REPLACES(free)(p);
}

void *REPLACES(calloc)(size_t n, size_t size)
{
	return FAILS() ? NULL : got(calloc(n, size));
}

void *REPLACES(realloc)(void *p, size_t size)
{
	void *q;

	if (FAILS())
		return NULL;
	q = realloc(p, size);
	return p ? q : got(q);
}

void *REPLACES(reallocarray)(void *p, size_t n, size_t size)
{
	void *q;

	if (FAILS())
		return NULL;
	q = reallocarray(p, n, size);
	return p ? q : got(q);
}

/* The one in blkdev_alloc() was asked about where blkdev_alloc() was called. */
static __thread bool asked;

void *REPLACES(aligned_alloc)(size_t align, size_t size)
{
	return !asked && FAILS() ? NULL : got(aligned_alloc(align, size));
}

void *REPLACES(blkdev_alloc)(size_t size)
{
	void *p;

	if (FAILS())
		return NULL;
	asked = true;
	p = blkdev_alloc(size);
	asked = false;
	return p;
}

int REPLACES(posix_memalign)(void **p, size_t align, size_t size)
{
	int err = FAILS() ? ENOMEM : posix_memalign(p, align, size);

	if (!err)
		got(*p);
	return err;
}

char *REPLACES(strdup)(const char *s)
{
	return FAILS() ? NULL : got(strdup(s));
}

char *REPLACES(strndup)(const char *s, size_t n)
{
	return FAILS() ? NULL : got(strndup(s, n));
}

static int text_got(char **out, int n)
{
	if (n >= 0)
		got(*out);
	return n;
}

int REPLACES(vasprintf)(char **out, const char *fmt, va_list ap)
{
	return FAILS() ? -1 : text_got(out, vasprintf(out, fmt, ap));
}

int REPLACES(vasprintf_chk)(char **out, int flag, const char *fmt, va_list ap)
{
	(void)flag;
	return FAILS() ? -1 : text_got(out, vasprintf(out, fmt, ap));
}

int REPLACES(asprintf)(char **out, const char *fmt, ...)
{
	va_list ap;
	int n;

	if (FAILS())
		return -1;
	va_start(ap, fmt);
	n = text_got(out, vasprintf(out, fmt, ap));
	va_end(ap);
	return n;
}

int REPLACES(asprintf_chk)(char **out, int flag, const char *fmt, ...)
{
	va_list ap;
	int n;

	(void)flag;
	if (FAILS())
		return -1;
	va_start(ap, fmt);
	n = text_got(out, vasprintf(out, fmt, ap));
	va_end(ap);
	return n;
}

static ssize_t line_get(char **line, size_t *size, int end, FILE *in)
{
	bool had = *line;
	ssize_t n = getdelim(line, size, end, in);

	if (!had)
		got(*line);
	return n;
}

ssize_t REPLACES(getline)(char **line, size_t *size, FILE *in)
{
	return FAILS() ? -1 : line_get(line, size, '\n', in);
}

ssize_t REPLACES(getdelim)(char **line, size_t *size, int end, FILE *in)
{
	return FAILS() ? -1 : line_get(line, size, end, in);
}

/* What the headers make of getline(). */
ssize_t REPLACES(getdelim2)(char **line, size_t *size, int end, FILE *in)
{
	return FAILS() ? -1 : line_get(line, size, end, in);
}

FILE *REPLACES(open_memstream)(char **text, size_t *size)
{
	return FAILS() ? NULL : open_memstream(text, size);
}

FILE *REPLACES(fopen)(const char *path, const char *mode)
{
	return FAILS() ? NULL : fopen(path, mode);
}

FILE *REPLACES(fopen64)(const char *path, const char *mode)
{
	return FAILS() ? NULL : fopen(path, mode);
}

FILE *REPLACES(fdopen)(int fd, const char *mode)
{
	return FAILS() ? NULL : fdopen(fd, mode);
}

DIR *REPLACES(opendir)(const char *path)
{
	return FAILS() ? NULL : opendir(path);
}

/* A thread is memory too. */
int REPLACES(pthread_create)(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *arg),
			     void *arg)
{
	return FAILS() ? EAGAIN : pthread_create(thread, attr, fn, arg);
}

/* ---- threads of simulated hosts ---- */

static const struct env_ops *real_ops;

static int thread_start(struct env *env, const char *name, void (*fn)(void *arg), void *arg,
			struct env_thread **out)
{
	return FAILS() ? -ENOMEM : real_ops->thread_start(env, name, fn, arg, out);
}

void nomem_threads(struct env *env)
{
	static struct env_ops ops;

	if (env->ops == &ops)
		return;
	real_ops = env->ops;
	ops = *real_ops;
	ops.thread_start = thread_start;
	env->ops = &ops;
}

/* ---- programs that are told from outside ---- */

static void share_control(void)
{
	char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 8);
	void *p = MAP_FAILED;
	int fd;

	if (n <= 0)
		return;
	strcpy(path + n, ".nomem");
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return;
	p = mmap(NULL, sizeof(own), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (p != MAP_FAILED)
		control = p;
}

/* LUNFS_NOMEM: the number of the allocation that fails. */
__attribute__((constructor)) static void begin(void)
{
	const char *told = getenv("LUNFS_NOMEM");

	share_control();
	if (told)
		nomem_arm(strtoull(told, NULL, 10), 1);
}

__attribute__((destructor)) static void end(void)
{
	sites_save();
}
