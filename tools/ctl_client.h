/* SPDX-License-Identifier: Apache-2.0 */
/* A tool's connection to a running lunfsd.  docs/CONTROL.md is the protocol. */
#ifndef LUNFS_TOOLS_CTL_CLIENT_H
#define LUNFS_TOOLS_CTL_CLIENT_H

#include <jansson.h>

#include "base/types.h"

#define CTL_DEFAULT_RUN_DIR	"/run/lunfs"

/* Exit statuses of lunfs(8) and mount.lunfs(8). */
enum ctl_exit { CTL_OK = 0, CTL_FAILED = 1, CTL_USAGE = 2, CTL_BUSY = 3 };

struct ctl_client {
	const char *program;	/* for messages */
	int	fd;
	bool	raw;		/* texts as they are: for JSON, which escapes what it must */
	char	*buf;		/* what was read and not yet used */
	size_t	filled, size;
};

/** ctl_client_init() - first of all: without memory for what is asked or answered the program ends. */
void ctl_client_init(void);

/**
 * ctl_client_open() - connects to the daemon of @run_dir.
 * @patience_ms: how long to wait for a daemon that is just being started.
 * Prints why it fails, and how a daemon is started.  Return: enum ctl_exit.
 */
int ctl_client_open(struct ctl_client *c, const char *program, const char *run_dir,
		    unsigned int patience_ms);
void ctl_client_close(struct ctl_client *c);

/**
 * ctl_client_call() - sends @request, whose reference it takes, and waits for the reply.
 * @result: receives the result, a new reference.
 * Prints the daemon's message when it refuses.  Return: enum ctl_exit; CTL_BUSY where
 * somebody else has what was asked for.
 */
int ctl_client_call(struct ctl_client *c, json_t *request, json_t **result);

/* An answer that is no result: the daemon's own, or what came between. */
struct ctl_error {
	char	name[24];	/* "EBUSY"; "" if the daemon could not be asked */
	char	message[1024];	/* for people, without control characters */
};

/**
 * ctl_client_connect(), ctl_client_ask() - the same for who prints nothing: connects at once or
 * not; sends @request, whose reference is taken.
 * Return: 0; -errno; -EREMOTEIO the daemon refused.  With @error.
 */
int ctl_client_connect(struct ctl_client *c, const char *program, const char *run_dir,
		       struct ctl_error *error);
int ctl_client_ask(struct ctl_client *c, json_t *request, json_t **result,
		   struct ctl_error *error);

/**
 * ctl_client_bytes() - the @len bytes that follow the last reply, where its result says "bytes".
 * Return: 0; -errno.
 */
int ctl_client_bytes(struct ctl_client *c, void *buf, size_t len);

/**
 * ctl_device_open_name() - the name by which the daemon can open @name: a canonical path, or
 * the URL of an iSCSI LUN, in which a secret is refused.  @buf: PATH_MAX bytes.
 * Return: CTL_OK; CTL_FAILED, with a line on standard error that begins with @program.
 */
int ctl_device_open_name(const char *program, const char *name, char *buf);

/** ctl_device_path() - @name as the daemon finds it again: canonical if it is a path.
 * @buf: of PATH_MAX bytes.  Return: @buf. */
char *ctl_device_path(const char *name, char *buf);

/* Fields of results; 0, false or "" where they are missing or of another type. */
const char *ctl_str(const json_t *o, const char *key);
int64_t ctl_int(const json_t *o, const char *key);
bool ctl_bool(const json_t *o, const char *key);

#endif
