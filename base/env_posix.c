// SPDX-License-Identifier: Apache-2.0
/* The real environment: POSIX threads, the kernel's clocks, stderr. */
#include "base/env.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log_limit.h"
#include "base/text.h"

#define LOG_LINE_MAX	1024
#define THREAD_NAME_MAX	15	/* the kernel's limit, without the NUL */

#define LOG_PATIENCE_MS	1000	/* for a reader of stderr that does not get on */

/*
 * The longest single wait.  pthreads know no CLOCK_BOOTTIME, and CLOCK_MONOTONIC stands still
 * in suspend: a deadline that passes meanwhile is noticed this long after resume.
 */
#define WAIT_NS_MAX	NSEC_PER_SEC

struct env_thread {
	pthread_t id;
	char name[THREAD_NAME_MAX + 1];
	void (*fn)(void *arg);
	void *arg;
};

static_assert(sizeof(pthread_mutex_t) <= sizeof(struct env_mutex), "fits its storage");
static_assert(sizeof(pthread_cond_t) <= sizeof(struct env_cond), "fits its storage");

static _Atomic enum log_level log_level_max = LOG_LEVEL_INFO;	/* changed by a reload, under way */
static bool log_to_journal;
static pthread_once_t log_once = PTHREAD_ONCE_INIT;
static atomic_bool log_is_limited;
static struct log_limit log_limit;
static pthread_mutex_t log_limit_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t log_write_mutex = PTHREAD_MUTEX_INITIALIZER;	/* held for moments */
static uint32_t log_left_out;		/* log_write_mutex */
static __thread bool log_does_not_wait;

static pthread_mutex_t *mutex_of(struct env_mutex *m)
{
	return (pthread_mutex_t *)m->opaque;
}

static pthread_cond_t *cond_of(struct env_cond *c)
{
	return (pthread_cond_t *)c->opaque;
}

/* A failing pthread call here means a bug of ours: a lock not held, a condition in use. */
static void must(int err)
{
	if (err)
		abort();
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec t;

	must(clock_gettime(clock, &t));
	return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

static uint64_t posix_now_ns(struct env *env)
{
	(void)env;
	return clock_ns(CLOCK_BOOTTIME);
}

static uint64_t posix_realtime_ns(struct env *env)
{
	(void)env;
	return clock_ns(CLOCK_REALTIME);
}

static void posix_random(struct env *env, void *buf, size_t len)
{
	uint8_t *p = buf;

	(void)env;
	while (len) {
		ssize_t n = getrandom(p, len, 0);

		if (n < 0) {
			must(errno != EINTR);
			continue;
		}
		p += n;
		len -= (size_t)n;
	}
}

static void posix_mutex_init(struct env *env, struct env_mutex *m)
{
	(void)env;
	must(pthread_mutex_init(mutex_of(m), NULL));
}

static void posix_mutex_fini(struct env *env, struct env_mutex *m)
{
	(void)env;
	must(pthread_mutex_destroy(mutex_of(m)));
}

static void posix_mutex_lock(struct env *env, struct env_mutex *m)
{
	(void)env;
	must(pthread_mutex_lock(mutex_of(m)));
}

static void posix_mutex_unlock(struct env *env, struct env_mutex *m)
{
	(void)env;
	must(pthread_mutex_unlock(mutex_of(m)));
}

static void posix_cond_init(struct env *env, struct env_cond *c)
{
	pthread_condattr_t attr;

	(void)env;
	must(pthread_condattr_init(&attr));
	must(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC));
	must(pthread_cond_init(cond_of(c), &attr));
	must(pthread_condattr_destroy(&attr));
}

static void posix_cond_fini(struct env *env, struct env_cond *c)
{
	(void)env;
	must(pthread_cond_destroy(cond_of(c)));
}

static bool posix_cond_wait(struct env *env, struct env_cond *c, struct env_mutex *m,
			    uint64_t deadline_ns)
{
	uint64_t now, until;
	struct timespec t;
	int err;

	if (deadline_ns == ENV_FOREVER) {
		must(pthread_cond_wait(cond_of(c), mutex_of(m)));
		return true;
	}
	now = posix_now_ns(env);
	if (now >= deadline_ns)
		return false;
	until = deadline_ns - now < WAIT_NS_MAX ? deadline_ns - now : WAIT_NS_MAX;
	until += clock_ns(CLOCK_MONOTONIC);
	t.tv_sec = (time_t)(until / NSEC_PER_SEC);
	t.tv_nsec = (long)(until % NSEC_PER_SEC);
	err = pthread_cond_timedwait(cond_of(c), mutex_of(m), &t);
	if (err != ETIMEDOUT) {
		must(err);
		return true;
	}
	/*
	 * Not waiting on: a broadcast between the timeout and our taking the mutex would be
	 * lost.  To the caller it is a spurious wake-up.
	 */
	return posix_now_ns(env) < deadline_ns;
}

static void posix_cond_broadcast(struct env *env, struct env_cond *c)
{
	(void)env;
	must(pthread_cond_broadcast(cond_of(c)));
}

static void *thread_main(void *arg)
{
	struct env_thread *t = arg;

	pthread_setname_np(pthread_self(), t->name);
	t->fn(t->arg);
	return NULL;
}

static int posix_thread_start(struct env *env, const char *name, void (*fn)(void *arg), void *arg,
			      struct env_thread **out)
{
	struct env_thread *t = calloc(1, sizeof(*t));

	(void)env;
	if (!t)
		return -ENOMEM;
	t->fn = fn;
	t->arg = arg;
	memcpy(t->name, name, strnlen(name, THREAD_NAME_MAX));
	if (pthread_create(&t->id, NULL, thread_main, t)) {
		free(t);
		return -ENOMEM;
	}
	*out = t;
	return 0;
}

static void posix_thread_join(struct env *env, struct env_thread *t)
{
	(void)env;
	must(pthread_join(t->id, NULL));
	free(t);
}

/* Whether stderr is the journal's stream, which reads a "<N>" before a line as its priority. */
static void log_find_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	uintmax_t dev, ino;
	struct stat st;

	log_to_journal = stream && sscanf(stream, "%ju:%ju", &dev, &ino) == 2 &&
			 fstat(STDERR_FILENO, &st) == 0 && st.st_dev == dev && st.st_ino == ino;
}

static int log_line(char *line, size_t size, enum log_level level, const char *text)
{
	static const char *const names[] = { "error", "warning", "info", "debug" };
	static const char *const priorities[] = { "<3>", "<4>", "<6>", "<7>" };

	return snprintf(line, size, "%slunfs: %s: %s\n", log_to_journal ? priorities[level] : "",
			names[level], text);
}

/* Whether stderr takes some lines at once: a pipe that does has a page for them. */
static bool log_has_room(int wait_ms)
{
	struct pollfd pfd = { .fd = STDERR_FILENO, .events = POLLOUT };

	return poll(&pfd, 1, wait_ms) != 0;
}

/*
 * As log_put(), but a reader that does not get on stops nobody who serves others.  The mutex keeps the
 * room for who has found it; of other processes with the same stderr only our parent writes, and rarely.
 */
static void log_put_if_room(enum log_level level, const char *text)
{
	char lines[2 * LOG_LINE_MAX], left_out[96];
	int len = 0;

	if (!log_does_not_wait)
		log_has_room(LOG_PATIENCE_MS);
	pthread_mutex_lock(&log_write_mutex);
	if (log_has_room(0)) {
		if (log_left_out) {
			snprintf(left_out, sizeof(left_out), "log: %u lines were left out: nobody read "
				 "them", log_left_out);
			len = log_line(lines, sizeof(lines), LOG_LEVEL_WARNING, left_out);
		}
		len += log_line(lines + len, sizeof(lines) - (size_t)len, level, text);
		log_left_out = write(STDERR_FILENO, lines, (size_t)len) < 0 ? log_left_out + 1 : 0;
	} else {
		log_left_out++;
	}
	pthread_mutex_unlock(&log_write_mutex);
}

/* One write, so that lines of several threads do not mix; nobody to tell if it fails. */
static void log_put(enum log_level level, const char *text)
{
	char line[LOG_LINE_MAX + 32];

	if (atomic_load_explicit(&log_is_limited, memory_order_relaxed))
		log_put_if_room(level, text);
	else if (write(STDERR_FILENO, line, (size_t)log_line(line, sizeof(line), level, text)) < 0)
		return;
}

/* Whether a line about @object may be written; says first what could not. */
static bool log_may(enum log_level level, const char *object)
{
	char raw[LOG_LINE_MAX], text[LOG_LINE_MAX];
	uint32_t left_out = 0;
	bool may;

	if (level == LOG_LEVEL_DEBUG || !atomic_load_explicit(&log_is_limited, memory_order_relaxed))
		return true;
	pthread_mutex_lock(&log_limit_mutex);
	may = log_limit_take(&log_limit, object, env_now_ns(env_posix()), &left_out);
	pthread_mutex_unlock(&log_limit_mutex);
	if (!may || !left_out)
		return may;
	snprintf(raw, sizeof(raw), "%.400s: %u lines were left out: there are too many about it", object,
		 left_out);
	text_printable(raw, sizeof(raw), text, sizeof(text));
	log_put(LOG_LEVEL_WARNING, text);
	return true;
}

static void posix_log(struct env *env, enum log_level level, const char *object, const char *fmt,
		      va_list ap)
{
	char raw[LOG_LINE_MAX], text[LOG_LINE_MAX];
	int len;

	(void)env;
	if (level > atomic_load_explicit(&log_level_max, memory_order_relaxed))
		return;
	pthread_once(&log_once, log_find_journal);
	if (!log_may(level, object))
		return;
	len = snprintf(raw, sizeof(raw) / 2, "%s", object);
	if (len >= (int)sizeof(raw) / 2)
		len = (int)sizeof(raw) / 2 - 1;
	len += snprintf(raw + len, 3, ": ");
	vsnprintf(raw + len, sizeof(raw) - (size_t)len, fmt, ap);
	/* Names from disk and peers may be in it; they must not forge lines (R9). */
	text_printable(raw, sizeof(raw), text, sizeof(text));
	log_put(level, text);
}

static const struct env_ops posix_ops = {
	.now_ns = posix_now_ns,
	.realtime_ns = posix_realtime_ns,
	.random = posix_random,
	.mutex_init = posix_mutex_init,
	.mutex_fini = posix_mutex_fini,
	.mutex_lock = posix_mutex_lock,
	.mutex_unlock = posix_mutex_unlock,
	.cond_init = posix_cond_init,
	.cond_fini = posix_cond_fini,
	.cond_wait = posix_cond_wait,
	.cond_broadcast = posix_cond_broadcast,
	.thread_start = posix_thread_start,
	.thread_join = posix_thread_join,
	.log = posix_log,
};

struct env *env_posix(void)
{
	static struct env env = { .ops = &posix_ops };

	return &env;
}

void env_posix_log_level(enum log_level level)
{
	atomic_store_explicit(&log_level_max, level, memory_order_relaxed);
}

void env_posix_log_limit(void)
{
	atomic_store_explicit(&log_is_limited, true, memory_order_relaxed);
}

void env_posix_log_no_wait(void)
{
	log_does_not_wait = true;
}
