/* SPDX-License-Identifier: Apache-2.0 */
/* lunfs disk attach, detach, list: disks that guests use. */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>

#include "tools/cmd.h"

/* @cmd on "DS:/PATH", with @key: @value besides unless @value is NULL. */
static int call(struct cmd *c, const char *cmd, const char *arg, const char *key, json_t *value,
		json_t **result)
{
	char ds[PATH_MAX];
	const char *path;
	json_t *request;

	cmd_split(arg, ds, &path);
	if (!path) {
		json_decref(value);
		fprintf(stderr, "lunfs: \"%s\" names no disk; write DS:/PATH\n", arg);
		return CTL_USAGE;
	}
	request = json_pack("{s:s, s:s, s:s}", "cmd", cmd, "ds", ds, "path", path);
	if (value)
		json_object_set_new(request, key, value);
	return cmd_call(c, request, result);
}

int cmd_disk_attach(struct cmd *c, int argc, char **argv)
{
	json_t *result;
	int err = call(c, "disk-attach", argv[0], "options", c->disk_options, &result);

	(void)argc;
	if (!err && result)
		puts(ctl_str(result, "socket"));
	if (!err)
		json_decref(result);
	return err;
}

int cmd_disk_detach(struct cmd *c, int argc, char **argv)
{
	json_t *result;
	int err = call(c, "disk-detach", argv[0], "force", c->force ? json_true() : NULL, &result);

	(void)argc;
	if (!err)
		json_decref(result);
	return err;
}

int cmd_disk_handover(struct cmd *c, int argc, char **argv)
{
	json_t *result;
	int err;

	(void)argc;
	if (!c->to == !c->cancel) {
		fputs("lunfs: disk handover wants --to HOST, or --cancel\n", stderr);
		return CTL_USAGE;
	}
	err = call(c, "disk-handover", argv[0], "name", c->to ? json_string(c->to) : NULL, &result);
	if (!err)
		json_decref(result);
	return err;
}

static const char *state_of(const json_t *d)
{
	if (ctl_str(d, "ended")[0])
		return "ended";
	if (ctl_bool(d, "lost"))
		return "lost";
	if (ctl_bool(d, "no_space"))
		return "no space";
	if (ctl_bool(d, "paused"))
		return "paused";
	if (ctl_bool(d, "open"))
		return ctl_bool(d, "connected") ? "in use" : "waiting";
	return ctl_bool(d, "connected") ? "connected" : "idle";
}

static void print_disk(const json_t *d)
{
	const json_t *st = json_object_get(d, "stats");
	char size[24], name[PATH_MAX];

	snprintf(name, sizeof(name), "%s:%s", ctl_str(d, "ds"), ctl_str(d, "path"));
	printf("%-32s %10s %-9s %12" PRId64 " %12" PRId64 "  %s\n", name,
	       cmd_size(ctl_int(d, "size"), size), state_of(d), ctl_int(st, "reads"),
	       ctl_int(st, "writes"), ctl_str(d, "socket"));
	if (ctl_str(d, "ended")[0])
		printf("  %s\n", ctl_str(d, "ended"));
	if (ctl_str(d, "handover")[0])
		printf("  handed over to %s when its guest stops\n", ctl_str(d, "handover"));
	if (ctl_str(d, "holder")[0])
		printf("  %s has it open; close it there\n", ctl_str(d, "holder"));
}

int cmd_disk_list(struct cmd *c, int argc, char **argv)
{
	json_t *request = json_pack("{s:s}", "cmd", "disk-list"), *result, *d;
	char ds[PATH_MAX];
	const char *path;
	size_t i;
	int err;

	if (argc) {
		cmd_split(argv[0], ds, &path);
		json_object_set_new(request, "ds", json_string(ds));
	}
	err = cmd_call(c, request, &result);
	if (err || !result)
		return err;
	printf("%-32s %10s %-9s %12s %12s  SOCKET\n", "DISK", "SIZE", "STATE", "READS", "WRITES");
	json_array_foreach(json_object_get(result, "disks"), i, d)
		print_disk(d);
	json_decref(result);
	return CTL_OK;
}
