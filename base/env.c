// SPDX-License-Identifier: Apache-2.0
#include "base/env.h"

uint64_t env_random_below(struct env *env, uint64_t bound)
{
	/* Numbers below this would make the small remainders likelier: drawn again. */
	uint64_t unfair, x;

	assert(bound > 0);
	unfair = -bound % bound;
	do {
		env_random(env, &x, sizeof(x));
	} while (x < unfair);
	return x % bound;
}

void env_sleep_until(struct env *env, uint64_t deadline_ns)
{
	struct env_mutex mutex;
	struct env_cond never;

	env_mutex_init(env, &mutex);
	env_cond_init(env, &never);
	env_mutex_lock(env, &mutex);
	while (env_now_ns(env) < deadline_ns)
		env_cond_wait(env, &never, &mutex, deadline_ns);
	env_mutex_unlock(env, &mutex);
	env_cond_fini(env, &never);
	env_mutex_fini(env, &mutex);
}

void env_log(struct env *env, enum log_level level, const char *object, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	env->ops->log(env, level, object, fmt, ap);
	va_end(ap);
}

void env_rwlock_init(struct env *env, struct env_rwlock *l)
{
	memset(l, 0, sizeof(*l));
	env_mutex_init(env, &l->mutex);
	env_cond_init(env, &l->changed);
}

void env_rwlock_fini(struct env *env, struct env_rwlock *l)
{
	assert(!l->readers && !l->writer && !l->writers_waiting);
	env_cond_fini(env, &l->changed);
	env_mutex_fini(env, &l->mutex);
}

void env_rwlock_rdlock(struct env *env, struct env_rwlock *l)
{
	env_mutex_lock(env, &l->mutex);
	/* Behind a waiting writer, or readers in turn could keep it out for ever. */
	while (l->writer || l->writers_waiting)
		env_cond_wait(env, &l->changed, &l->mutex, ENV_FOREVER);
	l->readers++;
	env_mutex_unlock(env, &l->mutex);
}

bool env_rwlock_try_rdlock(struct env *env, struct env_rwlock *l)
{
	bool free;

	env_mutex_lock(env, &l->mutex);
	free = !l->writer && !l->writers_waiting;
	if (free)
		l->readers++;
	env_mutex_unlock(env, &l->mutex);
	return free;
}

void env_rwlock_wrlock(struct env *env, struct env_rwlock *l)
{
	env_mutex_lock(env, &l->mutex);
	l->writers_waiting++;
	while (l->writer || l->readers)
		env_cond_wait(env, &l->changed, &l->mutex, ENV_FOREVER);
	l->writers_waiting--;
	l->writer = true;
	env_mutex_unlock(env, &l->mutex);
}

void env_rwlock_rdunlock(struct env *env, struct env_rwlock *l)
{
	env_mutex_lock(env, &l->mutex);
	assert(l->readers > 0);
	if (--l->readers == 0)
		env_cond_broadcast(env, &l->changed);
	env_mutex_unlock(env, &l->mutex);
}

void env_rwlock_wrunlock(struct env *env, struct env_rwlock *l)
{
	env_mutex_lock(env, &l->mutex);
	assert(l->writer);
	l->writer = false;
	env_cond_broadcast(env, &l->changed);
	env_mutex_unlock(env, &l->mutex);
}
