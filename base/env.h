/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The world as library code may see it: clocks, randomness, threads, log.
 *
 * fs/ and lockd/ reach nothing else (docs/ARCHITECTURE.md), so the same code runs on real
 * threads (env_posix.c) and under a deterministic scheduler with virtual time (env_sim.c),
 * where an env is one simulated host.
 */
#ifndef LUNFS_BASE_ENV_H
#define LUNFS_BASE_ENV_H

#include <stdarg.h>

#include "base/list.h"
#include "base/types.h"

struct env;
struct env_thread;

/* Opaque storage, so that they can be members; each env implementation asserts that it fits. */
struct env_mutex { uint64_t opaque[8]; };
struct env_cond { uint64_t opaque[8]; };

#define ENV_FOREVER	UINT64_MAX	/* a deadline that never comes */

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

struct env_ops {
	uint64_t (*now_ns)(struct env *env);
	uint64_t (*realtime_ns)(struct env *env);
	void (*random)(struct env *env, void *buf, size_t len);
	void (*mutex_init)(struct env *env, struct env_mutex *m);
	void (*mutex_fini)(struct env *env, struct env_mutex *m);
	void (*mutex_lock)(struct env *env, struct env_mutex *m);
	void (*mutex_unlock)(struct env *env, struct env_mutex *m);
	void (*cond_init)(struct env *env, struct env_cond *c);
	void (*cond_fini)(struct env *env, struct env_cond *c);
	bool (*cond_wait)(struct env *env, struct env_cond *c, struct env_mutex *m,
			  uint64_t deadline_ns);
	void (*cond_broadcast)(struct env *env, struct env_cond *c);
	int (*thread_start)(struct env *env, const char *name, void (*fn)(void *arg),
			    void *arg, struct env_thread **out);
	void (*thread_join)(struct env *env, struct env_thread *thread);
	void (*log)(struct env *env, enum log_level level, const char *object,
		    const char *fmt, va_list ap);
};

struct env {
	const struct env_ops *ops;
};

/** env_posix() - the process's real environment; never fails, never freed. */
struct env *env_posix(void);

/** env_posix_log_level() - messages above @level are dropped; the default is INFO. */
void env_posix_log_level(enum log_level level);

/** env_posix_log_limit() - from now on no object floods the log (base/log_limit.h); for programs
 * that serve others. */
void env_posix_log_limit(void);

/**
 * env_posix_log_no_wait() - behind env_posix_log_limit() no line of this thread, which others wait for,
 * waits for whoever reads standard error; a line of another thread does for a second.  One for which there
 * is no room is left out, and the next one says how many were.
 */
void env_posix_log_no_wait(void);

/** env_now_ns() - nanoseconds of CLOCK_BOOTTIME (time in suspend counts: R2). */
static inline uint64_t env_now_ns(struct env *env)
{
	return env->ops->now_ns(env);
}

/** env_realtime_ns() - nanoseconds since 1970, for timestamps and to detect gaps (R2). */
static inline uint64_t env_realtime_ns(struct env *env)
{
	return env->ops->realtime_ns(env);
}

/** env_random() - fills @buf with random bytes good enough for keys and identifiers. */
static inline void env_random(struct env *env, void *buf, size_t len)
{
	env->ops->random(env, buf, len);
}

/** env_random_below() - a number in [0, @bound); @bound is not 0. */
uint64_t env_random_below(struct env *env, uint64_t bound);

static inline void env_mutex_init(struct env *env, struct env_mutex *m)
{
	env->ops->mutex_init(env, m);
}

static inline void env_mutex_fini(struct env *env, struct env_mutex *m)
{
	env->ops->mutex_fini(env, m);
}

static inline void env_mutex_lock(struct env *env, struct env_mutex *m)
{
	env->ops->mutex_lock(env, m);
}

static inline void env_mutex_unlock(struct env *env, struct env_mutex *m)
{
	env->ops->mutex_unlock(env, m);
}

static inline void env_cond_init(struct env *env, struct env_cond *c)
{
	env->ops->cond_init(env, c);
}

static inline void env_cond_fini(struct env *env, struct env_cond *c)
{
	env->ops->cond_fini(env, c);
}

/**
 * env_cond_wait() - releases @m, waits for a broadcast or the deadline, takes @m again.
 * @deadline_ns: on the clock of env_now_ns(), or ENV_FOREVER.
 *
 * Spurious wake-ups happen; callers loop on their condition.
 * Return: false if the deadline has passed.
 */
static inline bool env_cond_wait(struct env *env, struct env_cond *c, struct env_mutex *m,
				 uint64_t deadline_ns)
{
	return env->ops->cond_wait(env, c, m, deadline_ns);
}

static inline void env_cond_broadcast(struct env *env, struct env_cond *c)
{
	env->ops->cond_broadcast(env, c);
}

/**
 * env_thread_start() - runs @fn(@arg) in a new thread.
 * @name: at most 15 bytes, shown by ps -L.
 * @out:  to be given to env_thread_join() once, which frees it.
 * Return: 0 or -ENOMEM: no memory, or no more threads are allowed.
 */
static inline int env_thread_start(struct env *env, const char *name, void (*fn)(void *arg),
				   void *arg, struct env_thread **out)
{
	return env->ops->thread_start(env, name, fn, arg, out);
}

static inline void env_thread_join(struct env *env, struct env_thread *thread)
{
	env->ops->thread_join(env, thread);
}

/** env_sleep_until() - blocks the calling thread until @deadline_ns of env_now_ns(). */
void env_sleep_until(struct env *env, uint64_t deadline_ns);

/**
 * env_log() - one line about one fault or event.
 * @object: what it is about: "ds1", "ds1:/vm1/a.img", "slot 3 (alpha)", "block 0x1a000".
 * @fmt:    cause and way out, without a newline.
 */
void env_log(struct env *env, enum log_level level, const char *object, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

#define log_error(env, object, ...)	env_log(env, LOG_LEVEL_ERROR, object, __VA_ARGS__)
#define log_warning(env, object, ...)	env_log(env, LOG_LEVEL_WARNING, object, __VA_ARGS__)
#define log_info(env, object, ...)	env_log(env, LOG_LEVEL_INFO, object, __VA_ARGS__)
#define log_debug(env, object, ...)	env_log(env, LOG_LEVEL_DEBUG, object, __VA_ARGS__)

/* A sleeping reader-writer lock, fair to writers, on top of an env's mutex and condition. */
struct env_rwlock {
	struct env_mutex mutex;
	struct env_cond changed;
	unsigned int readers;
	unsigned int writers_waiting;
	bool writer;
};

void env_rwlock_init(struct env *env, struct env_rwlock *l);
void env_rwlock_fini(struct env *env, struct env_rwlock *l);
void env_rwlock_rdlock(struct env *env, struct env_rwlock *l);
/** env_rwlock_try_rdlock() - false at once if a writer has the lock or waits for it. */
bool env_rwlock_try_rdlock(struct env *env, struct env_rwlock *l);
void env_rwlock_wrlock(struct env *env, struct env_rwlock *l);
void env_rwlock_rdunlock(struct env *env, struct env_rwlock *l);
void env_rwlock_wrunlock(struct env *env, struct env_rwlock *l);

#endif
