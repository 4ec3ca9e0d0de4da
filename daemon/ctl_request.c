/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/ctl.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon/ctl_json.h"

#define OPTIONS_MAX	64

/* What a command may and must be told. */
enum param {
	P_DS		= 1 << 0,
	P_DEVICE	= 1 << 1,
	P_DIR		= 1 << 2,
	P_PATH		= 1 << 3,
	P_SOURCE	= 1 << 4,
	P_FROM		= 1 << 5,
	P_OPTIONS	= 1 << 6,
	P_SIZE		= 1 << 7,
	P_NAME		= 1 << 8,
	P_TO		= 1 << 9,
	P_FORCE		= 1 << 10,
	P_RATE		= 1 << 12,
	P_DISK_OPTIONS	= 1 << 11,	/* "options", judged by who takes them */
};

static const struct {
	const char *name;
	enum ctl_cmd cmd;
	bool root;		/* changes something: root only */
	unsigned int required, optional;	/* enum param */
} commands[] = {
	{ "ping", CTL_PING, false, 0, 0 },
	{ "status", CTL_STATUS, false, 0, 0 },
	{ "hosts", CTL_HOSTS, false, P_DS, 0 },
	{ "attach", CTL_ATTACH, true, P_DEVICE, P_OPTIONS },
	{ "detach", CTL_DETACH, true, P_DS, P_FORCE },
	{ "mount", CTL_MOUNT, true, P_DEVICE | P_DIR, P_OPTIONS | P_SOURCE },
	{ "lock-show", CTL_LOCK_SHOW, false, P_DS | P_PATH, 0 },
	{ "lock-break", CTL_LOCK_BREAK, true, P_DS | P_PATH, 0 },
	{ "df", CTL_DF, false, P_DS, 0 },
	{ "ls", CTL_LS, false, P_DS | P_PATH, P_FROM },
	{ "info", CTL_INFO, false, P_DS, P_PATH },
	{ "disk-create", CTL_DISK_CREATE, true, P_DS | P_PATH | P_SIZE, 0 },
	{ "disk-allocate", CTL_DISK_ALLOCATE, true, P_DS | P_PATH, P_FROM },
	{ "disk-grow", CTL_DISK_GROW, true, P_DS | P_PATH | P_SIZE, 0 },
	{ "disk-info", CTL_DISK_INFO, false, P_DS | P_PATH, 0 },
	{ "disk-snapshot", CTL_DISK_SNAPSHOT, true, P_DS | P_PATH | P_NAME, 0 },
	{ "disk-snapshot-delete", CTL_DISK_SNAPSHOT_DELETE, true, P_DS | P_PATH | P_NAME, 0 },
	{ "disk-revert", CTL_DISK_REVERT, true, P_DS | P_PATH | P_NAME, 0 },
	{ "disk-clone", CTL_DISK_CLONE, true, P_DS | P_PATH | P_TO, 0 },
	{ "disk-hold", CTL_DISK_HOLD, true, P_DS | P_PATH, 0 },
	{ "disk-read", CTL_DISK_READ, true, 0, P_FROM },
	{ "disk-discard", CTL_DISK_DISCARD, true, P_DS | P_PATH, P_FROM },
	{ "disk-attach", CTL_DISK_ATTACH, true, P_DS | P_PATH, P_DISK_OPTIONS },
	{ "disk-detach", CTL_DISK_DETACH, true, P_DS | P_PATH, P_FORCE },
	{ "disk-handover", CTL_DISK_HANDOVER, true, P_DS | P_PATH, P_NAME },
	{ "disk-list", CTL_DISK_LIST, false, 0, P_DS },
	{ "metrics", CTL_METRICS, false, 0, 0 },
	{ "volume-grow", CTL_VOLUME_GROW, true, P_DS, P_SIZE },
	{ "volume-reclaim", CTL_VOLUME_RECLAIM, true, P_DS, P_FROM | P_SIZE },
	{ "check-start", CTL_CHECK_START, true, P_DS, P_RATE },
	{ "check-status", CTL_CHECK_STATUS, true, P_DS, P_FROM },
	{ "disk-merge", CTL_DISK_MERGE, true, P_DS | P_PATH, P_FROM },
};

static const struct { const char *name; unsigned int bit; } params[] = {
	{ "ds", P_DS }, { "device", P_DEVICE }, { "dir", P_DIR }, { "path", P_PATH },
	{ "source", P_SOURCE }, { "from", P_FROM }, { "options", P_OPTIONS | P_DISK_OPTIONS },
	{ "size", P_SIZE }, { "name", P_NAME }, { "to", P_TO }, { "force", P_FORCE },
	{ "rate", P_RATE },
};

static int wrong(char *why, size_t why_size, const char *what, const char *name)
{
	snprintf(why, why_size, "%s%s%.100s%s", what, name ? " \"" : "", name ? name : "",
		 name ? "\"" : "");
	return -EINVAL;
}

static bool path_is_absolute(const char *s)
{
	return s[0] == '/';
}

static int set_option(struct ctl_request *rq, const char *name, char *why, size_t why_size)
{
	static const struct { const char *name; unsigned int flag; } attach[] = {
		{ "rescue", FS_RESCUE }, { "resignature", FS_RESIGNATURE },
		{ "force-unsafe", FS_FORCE_UNSAFE },
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(attach); i++) {
		if (strcmp(name, attach[i].name))
			continue;
		rq->attach_flags |= attach[i].flag;
		return 0;
	}
	if (rpc_mount_option(name, &rq->mount_flags))
		return wrong(why, why_size, "unknown option", name);
	if (!strcmp(name, "ro") || !strcmp(name, "rw"))
		rq->read_only = !strcmp(name, "ro");
	return 0;
}

static int set_options(struct ctl_request *rq, const json_t *options, bool judge, char *why,
		       size_t why_size)
{
	size_t i;
	json_t *value;
	int err = 0;

	if (!json_is_array(options) || json_array_size(options) > OPTIONS_MAX)
		return wrong(why, why_size, "\"options\" is not a short array", NULL);
	json_array_foreach(options, i, value) {
		if (!json_is_string(value))
			return wrong(why, why_size, "an option is not a string", NULL);
		if (judge)
			err = set_option(rq, json_string_value(value), why, why_size);
		if (err)
			return err;
	}
	return 0;
}

static int set_param(struct ctl_request *rq, unsigned int bit, const char *key,
		     const json_t *value, char *why, size_t why_size)
{
	const char *s = json_string_value(value);

	if (bit & (P_OPTIONS | P_DISK_OPTIONS))
		return set_options(rq, value, bit == P_OPTIONS, why, why_size);
	if (bit == P_FORCE) {
		if (!json_is_boolean(value))
			return wrong(why, why_size, "neither true nor false:", key);
		rq->force = json_is_true(value);
		return 0;
	}
	if (bit & (P_FROM | P_SIZE | P_RATE)) {
		if (!json_is_integer(value) || json_integer_value(value) < 0)
			return wrong(why, why_size, "not a natural number:", key);
		*(bit == P_FROM ? &rq->from : bit == P_SIZE ? &rq->size : &rq->rate) =
			(uint64_t)json_integer_value(value);
		return 0;
	}
	if (!s)
		return wrong(why, why_size, "not a string:", key);
	if (!*s || json_string_length(value) >= PATH_MAX)
		return wrong(why, why_size, "empty or too long:", key);
	if (bit == P_DEVICE && blkiscsi_is_url(s)) {
		struct blkiscsi_target t;

		/* Wrong ones, and such with a secret in them, get no further than here. */
		if (blkiscsi_parse(s, &t, why, why_size))
			return -EINVAL;
	} else if ((bit & (P_DEVICE | P_DIR | P_PATH | P_TO)) && !path_is_absolute(s)) {
		return wrong(why, why_size, "not an absolute path:", key);
	}
	if (bit == P_DS)
		rq->ds = s;
	else if (bit == P_DEVICE)
		rq->device = s;
	else if (bit == P_DIR)
		rq->dir = s;
	else if (bit == P_PATH)
		rq->path = s;
	else if (bit == P_NAME)
		rq->name = s;
	else if (bit == P_TO)
		rq->to = s;
	else
		rq->source = s;
	return 0;
}

static int set_params(struct ctl_request *rq, unsigned int required, unsigned int optional,
		      char *why, size_t why_size)
{
	unsigned int seen = 0;
	const char *key;
	json_t *value;

	json_object_foreach(rq->json, key, value) {
		unsigned int bit = 0;
		int err;

		if (!strcmp(key, "cmd") || !strcmp(key, "id"))
			continue;
		for (unsigned int i = 0; i < ARRAY_SIZE(params); i++)
			if (!strcmp(key, params[i].name))
				bit = params[i].bit & (required | optional);
		if (!bit)
			return wrong(why, why_size, "this command takes no", key);
		err = set_param(rq, bit, key, value, why, why_size);
		if (err)
			return err;
		seen |= bit;
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(params); i++)
		if (params[i].bit & required & ~seen)
			return wrong(why, why_size, "this command wants a", params[i].name);
	return 0;
}

/* What we repeat is small: a number or a short text. */
static int set_id(struct ctl_request *rq, char *why, size_t why_size)
{
	json_t *id = json_object_get(rq->json, "id");

	if (!id)
		return 0;
	if (!json_is_integer(id) && (!json_is_string(id) || json_string_length(id) > 64))
		return wrong(why, why_size, "\"id\" is neither an integer nor a short string", NULL);
	rq->id = id;
	return 0;
}

static int set_command(struct ctl_request *rq, bool is_root, char *why, size_t why_size)
{
	const char *name = json_string_value(json_object_get(rq->json, "cmd"));

	if (!name)
		return wrong(why, why_size, "the request has no \"cmd\"", NULL);
	for (unsigned int i = 0; i < ARRAY_SIZE(commands); i++) {
		if (strcmp(name, commands[i].name))
			continue;
		rq->cmd = commands[i].cmd;
		rq->changes = commands[i].root;
		if (!commands[i].root || is_root)
			return set_params(rq, commands[i].required, commands[i].optional, why,
					  why_size);
		snprintf(why, why_size, "\"%s\" is for root only", name);
		return -EPERM;
	}
	return wrong(why, why_size, "unknown command", name);
}

/*
 * The name that something new gets.  A file may have any, but one that ends a line of a list, or moves
 * the cursor, is a mistake or a trick; what has such a name already is found by it.
 */
static int check_new_name(const struct ctl_request *rq, char *why, size_t why_size)
{
	const char *name = rq->cmd == CTL_DISK_CREATE ? strrchr(rq->path, '/') :
			   rq->cmd == CTL_DISK_CLONE ? strrchr(rq->to, '/') :
			   rq->cmd == CTL_DISK_SNAPSHOT ? rq->name : "";

	for (; *name; name++)
		if (iscntrl((unsigned char)*name))
			return wrong(why, why_size, "a name without control characters is wanted", NULL);
	return 0;
}

int ctl_request_parse(const char *line, size_t len, bool is_root, struct ctl_request *rq,
		      char *why, size_t why_size)
{
	json_error_t error;
	int err;

	memset(rq, 0, sizeof(*rq));
	ctl_json_begin();
	rq->json = json_loadb(line, len, JSON_REJECT_DUPLICATES, &error);
	if (!ctl_json_is_whole()) {
		snprintf(why, why_size, "out of memory; try again");
		return -ENOMEM;
	}
	if (!rq->json) {
		snprintf(why, why_size, "not JSON: column %d: %.100s", error.column, error.text);
		return -EINVAL;
	}
	if (!json_is_object(rq->json))
		return wrong(why, why_size, "the request is not an object", NULL);
	err = set_id(rq, why, why_size);
	if (!err)
		err = set_command(rq, is_root, why, why_size);
	if (!err)
		err = check_new_name(rq, why, why_size);
	if (err)
		return err;
	if (rq->attach_flags & FS_RESCUE) {
		rq->read_only = true;
		return rpc_mount_option("ro", &rq->mount_flags);
	}
	return 0;
}

void ctl_request_free(struct ctl_request *rq)
{
	json_decref(rq->json);
	rq->json = NULL;
	rq->id = NULL;
}
