/* SPDX-License-Identifier: Apache-2.0 */
/* lunfs disk: virtual disks, their snapshots and clones. */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#include "base/text.h"
#include "tools/cmd.h"
#include "tools/progress.h"

/* "DS:/PATH": both, or a complaint. */
static int split(const char *arg, char *ds, const char **path)
{
	cmd_split(arg, ds, path);
	if (*path)
		return CTL_OK;
	fprintf(stderr, "lunfs: \"%s\" names no disk; write DS:/PATH\n", arg);
	return CTL_USAGE;
}

/* --size as bytes. */
static int parse_size(const struct cmd *c, uint64_t *bytes)
{
	if (!c->size) {
		fputs("lunfs: --size is missing; write for example --size 100G\n", stderr);
		return CTL_USAGE;
	}
	return cmd_parse_size("--size", c->size, bytes);
}

/* @cmd on a disk, with @key: @value besides unless @key is NULL. */
static int call(struct cmd *c, const char *cmd, const char *arg, const char *key, json_t *value,
		json_t **result)
{
	char ds[PATH_MAX];
	const char *path;
	json_t *request;
	int err = split(arg, ds, &path);

	if (err) {
		json_decref(value);
		return err;
	}
	request = json_pack("{s:s, s:s, s:s}", "cmd", cmd, "ds", ds, "path", path);
	if (key)
		json_object_set_new(request, key, value);
	return ctl_client_call(&c->client, request, result);
}

static void finish(const struct cmd *c, json_t *result)
{
	if (c->json)
		cmd_print_json(result);
	json_decref(result);
}

/* ---- long work, a piece a request ---- */

static int allocate(struct cmd *c, const char *arg)
{
	struct progress p;
	json_t *result;
	int64_t next = 0;
	bool more = true;
	int err = CTL_OK;

	progress_start(&p, "allocating", c->json);
	while (more && !err) {
		err = call(c, "disk-allocate", arg, "from", json_integer(next), &result);
		if (err)
			break;
		next = ctl_int(result, "next");
		more = ctl_bool(result, "more");
		progress_show(&p, (uint64_t)next, (uint64_t)ctl_int(result, "size"));
		json_decref(result);
	}
	progress_end(&p);
	return err;
}

static int merge(struct cmd *c, const char *arg, int64_t *moved, int64_t *copied)
{
	json_t *result;
	int64_t next = 0;
	bool more = true;
	int err = CTL_OK;

	*moved = *copied = 0;
	while (more && !err) {
		err = call(c, "disk-merge", arg, "from", json_integer(next), &result);
		if (err)
			break;
		next = ctl_int(result, "next");
		more = ctl_bool(result, "more");
		*moved += ctl_int(result, "moved");
		*copied += ctl_int(result, "copied");
		if (!c->json && isatty(STDERR_FILENO) && more)
			fprintf(stderr, "\rmerging: %" PRId64 " MiB", (*moved + *copied) >> 20);
		json_decref(result);
	}
	if (!c->json && isatty(STDERR_FILENO))
		fputs("\r\033[K", stderr);
	return err;
}

int cmd_disk_merge(struct cmd *c, int argc, char **argv)
{
	char a[24], b[24];
	int64_t moved, copied;
	int err = merge(c, argv[0], &moved, &copied);

	(void)argc;
	if (err)
		return err;
	if (c->json)
		printf("{\"moved\": %" PRId64 ", \"copied\": %" PRId64 "}\n", moved, copied);
	else
		printf("%s: %s moved, %s copied\n", argv[0], cmd_size(moved, a),
		       cmd_size(copied, b));
	return CTL_OK;
}

int cmd_disk_discard(struct cmd *c, int argc, char **argv)
{
	int64_t next = 0, freed = 0;
	struct progress p;
	bool more = true;
	json_t *result;
	char a[24];
	int err = CTL_OK;

	(void)argc;
	progress_start(&p, "discarding", c->json);
	while (more && !err) {
		err = call(c, "disk-discard", argv[0], "from", json_integer(next), &result);
		if (err)
			break;
		next = ctl_int(result, "next");
		more = ctl_bool(result, "more");
		freed += ctl_int(result, "freed");
		progress_show(&p, (uint64_t)ctl_int(result, "at"), (uint64_t)ctl_int(result, "size"));
		json_decref(result);
	}
	progress_end(&p);
	if (err)
		return err;
	if (c->json)
		printf("{\"freed\": %" PRId64 "}\n", freed);
	else
		printf("%s: %s given back\n", argv[0], cmd_size(freed, a));
	return CTL_OK;
}

/* ---- create, grow, info ---- */

int cmd_disk_create(struct cmd *c, int argc, char **argv)
{
	json_t *result;
	uint64_t size;
	int err = parse_size(c, &size);

	(void)argc;
	if (!err)
		err = call(c, "disk-create", argv[0], "size", json_integer((json_int_t)size),
			   &result);
	if (err)
		return err;
	err = c->thick ? allocate(c, argv[0]) : CTL_OK;
	finish(c, result);
	if (err)
		fprintf(stderr, "lunfs: %s is made, but thin: remove it, or use it so\n", argv[0]);
	return err;
}

int cmd_disk_grow(struct cmd *c, int argc, char **argv)
{
	json_t *result;
	uint64_t size;
	int err = parse_size(c, &size);

	(void)argc;
	if (!err)
		err = call(c, "disk-grow", argv[0], "size", json_integer((json_int_t)size), &result);
	if (!err)
		finish(c, result);
	return err;
}

static const char *name_of(const json_t *image)
{
	const char *path = ctl_str(image, "path");

	return ctl_bool(image, "deleted") ? "(deleted)" : path;
}

/* @depth: how many images are above it. */
static void print_image(const json_t *i, size_t depth)
{
	char size[24], own[24], when[32], label[40];
	int indent = depth > 8 ? 8 : (int)depth;
	json_t *branch;
	size_t k;

	snprintf(label, sizeof(label), "%*s%s", indent, "", depth ? "`-" : "");
	printf("%s%-*s %10s %10s  %s", label, 32 - (int)strlen(label), name_of(i),
	       cmd_size(ctl_int(i, "size"), size), cmd_size(ctl_int(i, "allocated"), own),
	       cmd_time(ctl_int(i, "created"), when));
	if (ctl_int(i, "children") > 1)
		printf("  base of %" PRId64 " images", ctl_int(i, "children"));
	if (ctl_bool(i, "merging"))
		fputs("  moving into the image above", stdout);
	if (json_object_get(i, "merged") && ctl_int(i, "size"))
		printf(": %" PRId64 " %%", ctl_int(i, "merged") * 100 / ctl_int(i, "size"));
	putchar('\n');
	json_array_foreach(json_object_get(i, "branches"), k, branch)
		printf("%*s  also below %s\n", indent, "", json_string_value(branch));
}

/* Of a disk that is attached: what it may have of the device. */
static void print_limits(const json_t *attached)
{
	static const struct { const char *key, *unit; } all[] = {
		{ "iops", "requests a second" }, { "iops_burst", "at once after a rest" },
		{ "bytes", "bytes a second" }, { "bytes_burst", "bytes at once after a rest" },
		{ "shares", "shares" },
	};
	const json_t *limits = json_object_get(attached, "limits");
	const char *before = ": ";

	if (!attached)
		return;
	fputs("attached", stdout);
	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		if (!ctl_int(limits, all[i].key))
			continue;
		printf("%s%" PRId64 " %s", before, ctl_int(limits, all[i].key), all[i].unit);
		before = ", ";
	}
	putchar('\n');
}

/* @whole: the disk itself too, and what all takes. */
static int show(struct cmd *c, const char *arg, bool whole)
{
	char own[24], shared[24], total[24];
	json_t *result, *i;
	size_t k;
	int err = call(c, "disk-info", arg, NULL, NULL, &result);

	if (err)
		return err;
	if (c->json) {
		cmd_print_json(whole ? result : json_object_get(result, "stands_on"));
	} else {
		printf("%-32s %10s %10s  CREATED\n", "IMAGE", "SIZE", "OWN SPACE");
		if (whole)
			print_image(result, 0);
		json_array_foreach(json_object_get(result, "stands_on"), k, i)
			print_image(i, whole ? k + 1 : 0);
		if (whole)
			print_limits(json_object_get(result, "attached"));
		if (whole)
			printf("%s in all: %s of its own, %s in images that it stands on\n",
			       cmd_size(ctl_int(result, "total"), total),
			       cmd_size(ctl_int(result, "own"), own),
			       cmd_size(ctl_int(result, "shared"), shared));
	}
	json_decref(result);
	return CTL_OK;
}

int cmd_disk_info(struct cmd *c, int argc, char **argv)
{
	(void)argc;
	return show(c, argv[0], true);
}

/* ---- snapshots, clones ---- */

static int snapshot_delete(struct cmd *c, const char *arg, const char *name)
{
	int64_t moved, copied, children;
	json_t *result;
	int err = call(c, "disk-snapshot-delete", arg, "name", json_string(name), &result);

	if (err)
		return err;
	children = ctl_int(result, "children");
	finish(c, result);
	if (children == 1)
		err = merge(c, arg, &moved, &copied);
	if (err)
		fprintf(stderr, "lunfs: %s is deleted; what it holds moves into the next image in the "
			"background, once whoever uses the disk elsewhere has closed it\n", name);
	else if (children > 1)
		fprintf(stderr, "lunfs: %s is deleted; its space stays until at most one of the %"
			PRId64 " images that stand on it is left\n", name, children);
	return CTL_OK;
}

int cmd_disk_snapshot(struct cmd *c, int argc, char **argv)
{
	json_t *result;
	int err;

	if (argc == 2 && !strcmp(argv[0], "list"))
		return show(c, argv[1], false);
	if (argc == 3 && !strcmp(argv[0], "delete"))
		return snapshot_delete(c, argv[1], argv[2]);
	if (argc != 3 || (strcmp(argv[0], "create") && strcmp(argv[0], "revert"))) {
		fputs("lunfs: \"disk snapshot\" wants create, delete or revert with a disk and a "
		      "name, or list with a disk\n", stderr);
		return CTL_USAGE;
	}
	err = call(c, !strcmp(argv[0], "create") ? "disk-snapshot" : "disk-revert", argv[1], "name",
		   json_string(argv[2]), &result);
	if (err)
		return err;
	if (!c->json && json_real_value(json_object_get(result, "pause_ms")) > 0)
		printf("%s@%s: made; the guest's I/O waited for %.1f ms\n", argv[1], argv[2],
		       json_real_value(json_object_get(result, "pause_ms")));
	finish(c, result);
	return CTL_OK;
}

int cmd_disk_clone(struct cmd *c, int argc, char **argv)
{
	char ds[PATH_MAX], to_ds[PATH_MAX];
	const char *path, *to;
	json_t *result;
	int err = split(argv[0], ds, &path);

	(void)argc;
	if (!err)
		err = split(argv[1], to_ds, &to);
	if (err)
		return err;
	if (!c->linked)
		return cmd_disk_copy(c, argv);
	if (c->thick || strcmp(ds, to_ds)) {
		fprintf(stderr, "lunfs: %s\n", c->thick ? "a linked clone is always thin" :
			"a linked clone is on the datastore of its base; without --linked it is a "
			"full copy");
		return CTL_USAGE;
	}
	err = call(c, "disk-clone", argv[0], "to", json_string(to), &result);
	if (!err)
		finish(c, result);
	return err;
}
