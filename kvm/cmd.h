/* SPDX-License-Identifier: Apache-2.0 */
/* The subcommands of lunvm that ask a running machine. */
#ifndef LUNFS_KVM_CMD_H
#define LUNFS_KVM_CMD_H

#include "base/types.h"

struct vm_cmd {
	const char	*run_dir;
	bool		json;
	unsigned int	timeout;	/* seconds that "stop" waits; 0: not at all */
};

#define CMD_STOP_SECONDS	60	/* by default */
#define CMD_STOP_SECONDS_MAX	86400

/** cmd_is_request() - "status", "pause", "resume", "stop", "kill" or "console". */
bool cmd_is_request(const char *word);

/** cmd_is_running() - whether a machine @name answers on this host. */
bool cmd_is_running(const char *run_dir, const char *name);

/* Each prints what there is to say.  Return: exit status: 0 done, 1 failed. */
int cmd_list(struct vm_cmd *c);
int cmd_request(struct vm_cmd *c, const char *word, const char *name);

#endif
