/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the half of the launcher that faces the guest gives up (R9): docs/LUNVM.md, "Security".
 *
 * Before it looks at a byte of a kernel or runs an instruction of a guest it has an empty, read-only
 * root directory, no network, an unprivileged user, no capabilities, and the system calls of
 * JAIL_START; before the first instruction each thread keeps only those of its part.  No list holds
 * one that could open, connect, execute or signal anything.
 */
#ifndef LUNFS_KVM_JAIL_H
#define LUNFS_KVM_JAIL_H

#include <sys/types.h>

#include "base/types.h"

struct jail_state {
	bool	empty_root;
	bool	landlock;
	bool	filter;		/* calls that are in no list end the process; else they are logged */
};

/**
 * jail_enter() - namespaces, Landlock, user; one thread only.
 * @what: on failure, what could not be had.  @got: what is in force, for status.
 * Return: 0 or -errno; -EPERM neither an empty root directory nor Landlock can be had here.
 */
int jail_enter(uid_t uid, gid_t gid, pid_t parent, struct jail_state *got, const char **what);

enum jail_part {
	JAIL_START,	/* the whole process, from jail_enter() on */
	JAIL_MAIN,	/* the thread that talks to the parent */
	JAIL_EVENTS,	/* the reactor's: disks, console, control */
	JAIL_CPU,	/* a vCPU's */
};

/**
 * jail_filter() - the calling thread, with JAIL_START all threads, makes only the system calls
 * of @part from here on; any other ends the process.  With LUNFS_SECCOMP=log or sanitizers:
 * see sandbox_filter().
 * Return: 0 or -errno.
 */
int jail_filter(enum jail_part part);

#endif
