/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A deterministic world for tests: coroutines under virtual time, all choices from one seed.
 *
 * One struct sim holds the scheduler; each simulated host is an env made by sim_host().  Its
 * threads are coroutines that switch only when they wait (mutex, condition, sleep, join), so
 * a run is a function of the seed.  Virtual time advances only when nobody can run.
 */
#ifndef LUNFS_BASE_ENV_SIM_H
#define LUNFS_BASE_ENV_SIM_H

#include "base/env.h"

struct sim;

/** sim_new() - a world whose every choice follows from @seed; aborts when out of memory. */
struct sim *sim_new(uint64_t seed);

/**
 * sim_free() - ends the world, after its devices were freed; every thread must have ended or
 * its host been crashed.  Threads that ended but were not joined are lost memory.
 */
void sim_free(struct sim *sim);

/** sim_host() - a new host's env, owned by the world; @name appears in log lines. */
struct env *sim_host(struct sim *sim, const char *name);

/**
 * sim_run() - runs until no thread is left, or @until_ns of true virtual time is reached.
 *
 * Must not be called from within a simulated thread.
 * Return: true if every thread has ended; false at the time limit, or when all threads wait
 * for ever (a deadlock, described on stderr).
 */
bool sim_run(struct sim *sim, uint64_t until_ns);

/** sim_now_ns() - true virtual time (hosts' clocks drift around it). */
uint64_t sim_now_ns(struct sim *sim);

/**
 * sim_at() - calls @fn(@arg) at true time @when_ns; equal times in the order of the calls.
 *
 * It runs in a thread of its own that belongs to no host, so it may take an env's mutex.
 * Events that are due after the last thread has ended stay for the next sim_run().
 */
void sim_at(struct sim *sim, uint64_t when_ns, void (*fn)(void *arg), void *arg);

/** sim_cancel() - forgets every event of @fn and @arg that is still to come. */
void sim_cancel(struct sim *sim, void (*fn)(void *arg), void *arg);

/**
 * sim_interrupt() - runs @fn(@arg) as soon as @env's host can, in a thread of that host:
 * a frozen host later, a crashed one never.  Devices complete requests with it.
 */
void sim_interrupt(struct env *env, void (*fn)(void *arg), void *arg);

/**
 * sim_preempt() - lets a thread lose the processor when it takes a mutex, @permille times in
 * a thousand (0, the default: it runs until it waits).
 */
void sim_preempt(struct sim *sim, unsigned int permille);

/** sim_random() - the world's own random stream (faults, latencies). */
uint64_t sim_random(struct sim *sim);

/**
 * sim_host_crash() - the host's threads never run again; a thread of its own does not return.
 * What they had allocated leaks, so the leak check of this process is off from here on.
 */
void sim_host_crash(struct env *env);

/** sim_current() - the thread that runs now; to be compared with others. */
struct env_thread *sim_current(struct env *env);

/** sim_host_crashed() - whether sim_host_crash() was called: devices drop its completions. */
bool sim_host_crashed(struct env *env);

/** sim_host_freeze() - the host's threads stand still until true time @until_ns. */
void sim_host_freeze(struct env *env, uint64_t until_ns);

/** sim_host_drift() - the host's boot-time clock runs @ppm parts per million fast (or slow). */
void sim_host_drift(struct env *env, int64_t ppm);

/** sim_host_jump() - the host's real-time clock jumps by @ns (a restored snapshot: R2). */
void sim_host_jump(struct env *env, int64_t ns);

/**
 * sim_host_log() - from now on log lines ("object: text") of @env go to @fn (NULL: nowhere).
 * With LUNFS_SIM_LOG in the environment all lines go to stderr as well.
 */
void sim_host_log(struct env *env, void (*fn)(void *arg, enum log_level level,
					      const char *line), void *arg);

#endif
