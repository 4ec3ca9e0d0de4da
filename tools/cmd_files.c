/* SPDX-License-Identifier: Apache-2.0 */
/* lunfs lock, df, ls, info. */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>

#include "tools/cmd.h"

static int wants_path(const char *arg)
{
	fprintf(stderr, "lunfs: \"%s\" names no file; write DS:/PATH\n", arg);
	return CTL_USAGE;
}

static int call_on_path(struct cmd *c, const char *cmd, const char *arg, json_t **result)
{
	char ds[PATH_MAX];
	const char *path;

	cmd_split(arg, ds, &path);
	if (!path)
		return wants_path(arg);
	return cmd_call(c, json_pack("{s:s, s:s, s:s}", "cmd", cmd, "ds", ds, "path", path),
			result);
}

/* ---- lock ---- */

static void print_holder(const json_t *h)
{
	char since[32], age[32];
	const json_t *breakable = json_object_get(h, "breakable_ms");

	if (!strcmp(ctl_str(h, "mode"), "free")) {
		puts("free");
		return;
	}
	printf("%s, held by host %s (slot %lld, generation %lld)\n", ctl_str(h, "mode"),
	       ctl_str(h, "host_name"), (long long)ctl_int(h, "slot"),
	       (long long)ctl_int(h, "generation"));
	printf("    since      %s\n", cmd_time(ctl_int(h, "since"), since));
	if (ctl_int(h, "pid"))
		printf("    process    %lld %s\n", (long long)ctl_int(h, "pid"),
		       ctl_str(h, "process"));
	if (ctl_str(h, "heir")[0])
		printf("    left to    %s, and to nobody else\n", ctl_str(h, "heir"));
	printf("    heartbeat  %s ago\n", cmd_age(ctl_int(h, "silent_ms"), age));
	if (!json_is_integer(breakable))
		puts("    breakable  no, the host lives");
	else if (json_integer_value(breakable) == 0)
		puts("    breakable  now");
	else
		printf("    breakable  in %s, if it stays silent\n",
		       cmd_age(json_integer_value(breakable), age));
}

int cmd_lock_show(struct cmd *c, int argc, char **argv)
{
	json_t *result = NULL;
	int err = call_on_path(c, "lock-show", argv[0], &result);

	(void)argc;
	if (!err && result)
		print_holder(result);
	json_decref(result);
	return err;
}

int cmd_lock_break(struct cmd *c, int argc, char **argv)
{
	json_t *result = NULL;
	int err = call_on_path(c, "lock-break", argv[0], &result);

	(void)argc;
	if (!err && result)
		puts("the lock is free");
	json_decref(result);
	return err;
}

/* ---- df ---- */

static void print_space(const json_t *d)
{
	char size[24], used[24], avail[24];
	int64_t total = ctl_int(d, "size");

	printf("%-16s %10s %10s %10s %4" PRId64 "%%  %s\n", ctl_str(d, "label"),
	       cmd_size(total, size), cmd_size(ctl_int(d, "used"), used),
	       cmd_size(ctl_int(d, "free"), avail),
	       total ? (ctl_int(d, "used") * 100 + total - 1) / total : 0, ctl_str(d, "uuid"));
}

static int df_one(struct cmd *c, const char *ds, json_t *list)
{
	json_t *result;
	int err = ctl_client_call(&c->client, json_pack("{s:s, s:s}", "cmd", "df", "ds", ds),
				  &result);

	if (!err)
		json_array_append_new(list, result);
	return err;
}

static int df_all(struct cmd *c, json_t *list)
{
	json_t *status, *d;
	size_t i;
	int err = ctl_client_call(&c->client, json_pack("{s:s}", "cmd", "status"), &status);

	if (err)
		return err;
	json_array_foreach(json_object_get(status, "datastores"), i, d)
		if (!strcmp(ctl_str(d, "state"), "attached")) {
			int e = df_one(c, ctl_str(d, "device"), list);

			err = err ? err : e;
		}
	json_decref(status);
	return err;
}

/* One datastore as an object, several as an array. */
int cmd_df(struct cmd *c, int argc, char **argv)
{
	json_t *list = json_array(), *d;
	char ds[PATH_MAX];
	size_t i;
	int err;

	err = argc ? df_one(c, ctl_device_path(argv[0], ds), list) : df_all(c, list);
	if (c->json && (!err || !argc)) {
		cmd_print_json(argc ? json_array_get(list, 0) : list);
	} else if (!err || json_array_size(list)) {
		printf("%-16s %10s %10s %10s %5s  UUID\n", "DATASTORE", "SIZE", "USED", "FREE", "USE");
		json_array_foreach(list, i, d)
			print_space(d);
	}
	json_decref(list);
	return err;
}

/* ---- ls, info ---- */

static void print_mode(const json_t *e)
{
	static const char bits[] = "rwxrwxrwx";
	static const char *const types[][2] = {
		{ "directory", "d" }, { "symlink", "l" }, { "character device", "c" },
		{ "block device", "b" }, { "fifo", "p" }, { "socket", "s" },
	};
	int64_t mode = ctl_int(e, "mode");
	const char *type = "-";
	char text[10];

	for (unsigned int i = 0; i < ARRAY_SIZE(types); i++)
		if (!strcmp(ctl_str(e, "type"), types[i][0]))
			type = types[i][1];
	for (unsigned int i = 0; i < 9; i++)
		text[i] = mode >> (8 - i) & 1 ? bits[i] : '-';
	text[9] = '\0';
	if (mode & 04000)
		text[2] = text[2] == 'x' ? 's' : 'S';
	if (mode & 02000)
		text[5] = text[5] == 'x' ? 's' : 'S';
	if (mode & 01000)
		text[8] = text[8] == 'x' ? 't' : 'T';
	printf("%s%s", type, text);
}

/* Names are other people's: no control characters reach the terminal. */
static void print_name(const char *name)
{
	for (; *name; name++)
		putchar((unsigned char)*name < 0x20 || *name == 0x7f ? '?' : *name);
	putchar('\n');
}

static void print_entry(const json_t *e)
{
	char time[32];

	print_mode(e);
	printf(" %3" PRId64 " %5" PRId64 " %5" PRId64 " %12" PRId64 " %s ", ctl_int(e, "nlink"),
	       ctl_int(e, "uid"), ctl_int(e, "gid"), ctl_int(e, "size"),
	       cmd_time(ctl_int(e, "mtime"), time));
	print_name(ctl_str(e, "name"));
}

/* The daemon gives a long directory in pieces. */
int cmd_ls(struct cmd *c, int argc, char **argv)
{
	json_t *all = json_array(), *result, *e;
	const char *path;
	char ds[PATH_MAX];
	int64_t from = 0;
	size_t i;
	int err;

	(void)argc;
	cmd_split(argv[0], ds, &path);
	do {
		err = ctl_client_call(&c->client,
				      json_pack("{s:s, s:s, s:s, s:I}", "cmd", "ls", "ds", ds,
						"path", path ? path : "/", "from", (json_int_t)from),
				      &result);
		if (err)
			break;
		from = ctl_int(result, "next");
		json_array_foreach(json_object_get(result, "entries"), i, e) {
			if (c->json)
				json_array_append(all, e);
			else
				print_entry(e);
		}
		json_decref(result);
	} while (from);
	if (c->json && !err)
		cmd_print_json(all);
	json_decref(all);
	return err;
}

static void print_field(const char *key, const json_t *value)
{
	printf("%-18s ", key);
	if (json_is_string(value))
		print_name(json_string_value(value));
	else if (!strcmp(key, "mode"))
		printf("%04" PRIo64 "\n", (uint64_t)json_integer_value(value));
	else if (json_is_integer(value))
		printf("%" PRId64 "\n", (int64_t)json_integer_value(value));
	else
		puts(json_is_true(value) ? "yes" : json_is_false(value) ? "no" : "-");
}

int cmd_info(struct cmd *c, int argc, char **argv)
{
	json_t *result = NULL, *value;
	const char *path, *key;
	char ds[PATH_MAX];
	int err;

	(void)argc;
	cmd_split(argv[0], ds, &path);
	if (path)
		err = call_on_path(c, "info", argv[0], &result);
	else
		err = cmd_call(c, json_pack("{s:s, s:s}", "cmd", "info", "ds", ds), &result);
	if (!err && result) {
		json_object_foreach(result, key, value)
			print_field(key, value);
	}
	json_decref(result);
	return err;
}
