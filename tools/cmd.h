/* SPDX-License-Identifier: Apache-2.0 */
/* What the subcommands of lunfs share. */
#ifndef LUNFS_TOOLS_CMD_H
#define LUNFS_TOOLS_CMD_H

#include "tools/ctl_client.h"

enum cmd_option {
	CMD_OPTIONS = 1 << 0, CMD_SIZE = 1 << 1, CMD_THICK = 1 << 2, CMD_LINKED = 1 << 3,
	CMD_FORMAT = 1 << 4, CMD_DISK_OPTION = 1 << 5, CMD_FORCE = 1 << 6, CMD_RATE = 1 << 7,
	CMD_TO = 1 << 8, CMD_CANCEL = 1 << 9,
};

struct cmd {
	const char	*run_dir;
	bool		json;		/* print the result as it came */
	const char	*options;	/* of attach -o; NULL: none */
	const char	*size;		/* --size */
	const char	*format;	/* --format; NULL: not stated */
	bool		thick, linked, force;
	json_t		*disk_options;	/* of disk attach; NULL: none */
	const char	*to;		/* --to, a host; NULL: none */
	bool		cancel;		/* --cancel */
	const char	*rate;		/* --rate, bytes a second */
	struct ctl_client client;	/* connected */
};

/*
 * Each: @argc arguments @argv, the subcommand's name not among them; their number was checked
 * against the table in lunfs_main.c.  Return: enum ctl_exit; cmd_check() as fsck(8).
 */
int cmd_status(struct cmd *c, int argc, char **argv);
int cmd_hosts(struct cmd *c, int argc, char **argv);
int cmd_attach(struct cmd *c, int argc, char **argv);
int cmd_detach(struct cmd *c, int argc, char **argv);
int cmd_lock_show(struct cmd *c, int argc, char **argv);
int cmd_lock_break(struct cmd *c, int argc, char **argv);
int cmd_df(struct cmd *c, int argc, char **argv);
int cmd_ls(struct cmd *c, int argc, char **argv);
int cmd_info(struct cmd *c, int argc, char **argv);
int cmd_disk_create(struct cmd *c, int argc, char **argv);
int cmd_disk_info(struct cmd *c, int argc, char **argv);
int cmd_disk_grow(struct cmd *c, int argc, char **argv);
int cmd_disk_snapshot(struct cmd *c, int argc, char **argv);
int cmd_disk_clone(struct cmd *c, int argc, char **argv);
int cmd_check(struct cmd *c, int argc, char **argv);
int cmd_metrics(struct cmd *c, int argc, char **argv);
int cmd_volume_grow(struct cmd *c, int argc, char **argv);
int cmd_volume_reclaim(struct cmd *c, int argc, char **argv);
int cmd_disk_discard(struct cmd *c, int argc, char **argv);
int cmd_disk_import(struct cmd *c, int argc, char **argv);
int cmd_disk_export(struct cmd *c, int argc, char **argv);
int cmd_disk_merge(struct cmd *c, int argc, char **argv);
int cmd_disk_attach(struct cmd *c, int argc, char **argv);
int cmd_disk_detach(struct cmd *c, int argc, char **argv);
int cmd_disk_handover(struct cmd *c, int argc, char **argv);
int cmd_disk_list(struct cmd *c, int argc, char **argv);

/** cmd_disk_copy() - disk clone without --linked: from @argv[0] to @argv[1]. */
int cmd_disk_copy(struct cmd *c, char **argv);

/** cmd_call() - asks the daemon; prints the result itself with --json, *@result is NULL then. */
int cmd_call(struct cmd *c, json_t *request, json_t **result);

/** cmd_print_json() - @result, readable, and its newline. */
void cmd_print_json(const json_t *result);

/**
 * cmd_split() - "DS:/path" into its parts; a device's path may stand for DS.
 * @ds:   of PATH_MAX bytes.
 * @path: points into @arg; NULL if there is no ":/".
 */
void cmd_split(const char *arg, char *ds, const char **path);

/** cmd_parse_size() - @text of @option as bytes, or a complaint.  Return: enum ctl_exit. */
int cmd_parse_size(const char *option, const char *text, uint64_t *bytes);

/** cmd_age() - "0.4 s", "12 min"; @buf of 32 bytes; returns it. */
char *cmd_age(int64_t ms, char *buf);

/** cmd_time() - seconds since 1970 as local time; @buf of 32 bytes; returns it. */
char *cmd_time(int64_t seconds, char *buf);

/** cmd_size() - a size with its unit; @buf of 24 bytes; returns it. */
char *cmd_size(int64_t bytes, char *buf);

#endif
