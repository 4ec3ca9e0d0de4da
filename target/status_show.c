/* SPDX-License-Identifier: Apache-2.0 */
/* lunfs-target --status: what a running target says of itself, printed. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/text.h"
#include "target/target.h"

static const char *str(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

static long long num(const json_t *o, const char *key)
{
	return (long long)json_integer_value(json_object_get(o, key));
}

static bool is(const json_t *o, const char *key)
{
	return json_is_true(json_object_get(o, key));
}

static void print_unit(const json_t *u)
{
	json_t *list = json_object_get(u, "registrations"), *r;
	char size[24];
	size_t i;

	printf("    LUN %lld  %s, %lld-byte blocks%s%s%s: %s\n", num(u, "lun"),
	       text_format_size((uint64_t)num(u, "size"), size, sizeof(size)), num(u, "block_size"),
	       is(u, "thin") ? ", thin" : "", is(u, "read_only") ? ", read-only" : "",
	       is(u, "write_cache") ? "" : ", write-through", str(u, "path"));
	if (!json_array_size(list))
		return;
	printf("        reservation  %s%s\n", str(u, "reservation"),
	       is(u, "aptpl") ? "; outlasts a power loss" : "");
	json_array_foreach(list, i, r)
		printf("        registered   %s  %s,%s%s\n", str(r, "key"), str(r, "initiator"),
		       str(r, "isid"), is(r, "holds") ? "  (holds it)" : "");
}

static void print_connection(const json_t *c)
{
	char in[24], out[24];

	printf("    initiator %s%s%s, session 0x%04llx from %s: %lld commands, %s written, %s read\n",
	       str(c, "initiator"), *str(c, "user") ? " as " : "", str(c, "user"), num(c, "session"),
	       str(c, "address"), num(c, "commands"),
	       text_format_size((uint64_t)num(c, "bytes_in"), in, sizeof(in)),
	       text_format_size((uint64_t)num(c, "bytes_out"), out, sizeof(out)));
}

static void print_all(const json_t *o)
{
	json_t *connections = json_object_get(o, "connections"), *t, *u, *c, *p;
	size_t i, k;

	printf("lunfs-target %s, worker process %lld", str(o, "version"), num(o, "worker"));
	json_array_foreach(json_object_get(o, "portals"), i, p)
		printf("%s %s", i ? "," : ", portals", str(p, "portal"));
	putchar('\n');
	json_array_foreach(json_object_get(o, "targets"), i, t) {
		printf("target %s%s\n", str(t, "target"), is(t, "chap") ? ", CHAP" : "");
		json_array_foreach(json_object_get(t, "luns"), k, u)
			print_unit(u);
		json_array_foreach(connections, k, c)
			if (!strcmp(str(c, "target"), str(t, "target")))
				print_connection(c);
	}
}

static int ask(const char *state_dir, FILE **out)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd;

	if (snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/" TARGET_CONTROL_NAME, state_dir) >=
	    (int)sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr))) {
		int err = -errno;

		close(fd);
		return err;
	}
	*out = fdopen(fd, "r");
	return *out ? 0 : -ENOMEM;
}

int target_status_show(const char *state_dir, bool json)
{
	json_error_t error;
	FILE *in = NULL;
	int err = ask(state_dir, &in);
	json_t *o;

	if (err) {
		fprintf(stderr, TARGET_NAME ": %s/" TARGET_CONTROL_NAME ": %s%s\n", state_dir,
			strerror(-err), err == -ENOENT || err == -ECONNREFUSED ?
			"; no target keeps its state there (see --state-dir)" : "");
		return 1;
	}
	o = json_loadf(in, 0, &error);
	fclose(in);
	if (!o) {
		fputs(TARGET_NAME ": the target does not answer\n", stderr);
		return 1;
	}
	if (json) {
		json_dumpf(o, stdout, JSON_INDENT(2));
		putchar('\n');
	} else {
		print_all(o);
	}
	json_decref(o);
	return 0;
}
