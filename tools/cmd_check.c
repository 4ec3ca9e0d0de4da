/* SPDX-License-Identifier: Apache-2.0 */
/* lunfs check: a datastore while hosts use it.  The daemon does it; this asks how far it is. */
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "tools/cmd.h"
#include "tools/progress.h"

#define ASK_NS		(200L * 1000 * 1000)	/* between questions */
#define FINDINGS_MAX	1000			/* that the daemon remembers */

/* Exit statuses of fsck(8). */
enum { CHECK_CLEAN = 0, CHECK_ERRORS = 4, CHECK_OPERATIONAL = 8 };

static void print_finding(const json_t *f)
{
	const char *path = ctl_str(f, "path");

	printf("%s %s at 0x%llx: %s%s%s%s\n", ctl_str(f, "code"), ctl_str(f, "name"),
	       (unsigned long long)ctl_int(f, "address"), ctl_str(f, "text"), *path ? " (" : "", path,
	       *path ? ")" : "");
	fflush(stdout);
}

/* Adds those of @result to @all, or prints them. */
static void take_findings(struct cmd *c, const json_t *result, json_t *all)
{
	json_t *f;
	size_t i;

	json_array_foreach(json_object_get(result, "findings"), i, f) {
		json_array_append(all, f);
		if (!c->json)
			print_finding(f);
	}
}

/* Until it has ended.  *@last: the last answer. */
static int follow(struct cmd *c, const char *ds, json_t *all, json_t **last)
{
	const struct timespec pause = { .tv_nsec = ASK_NS };
	struct progress p;
	bool running = true, more = false;
	json_t *result = NULL;
	int64_t next = 0;
	char what[64];
	int err = CTL_OK;

	snprintf(what, sizeof(what), "checking");
	progress_start(&p, what, c->json);
	while ((running || more) && !err) {
		if (result && !more)
			nanosleep(&pause, NULL);
		json_decref(result);
		result = NULL;
		err = ctl_client_call(&c->client, json_pack("{s:s, s:s, s:I}", "cmd", "check-status",
							    "ds", ds, "from", (json_int_t)next),
				      &result);
		if (err)
			break;
		if (json_array_size(json_object_get(result, "findings")) && !c->json)
			progress_end(&p);
		take_findings(c, result, all);
		next = ctl_int(result, "next");
		more = ctl_bool(result, "more");
		running = !strcmp(ctl_str(result, "state"), "running");
		snprintf(what, sizeof(what), "checking %.40s", ctl_str(result, "phase"));
		progress_show_count(&p, (uint64_t)ctl_int(result, "done"),
				    (uint64_t)ctl_int(result, "total"));
	}
	progress_end(&p);
	*last = result;
	/* Of a datastore that went and came back meanwhile nothing is known: least that it is clean. */
	if (!err && strcmp(ctl_str(result, "state"), "done")) {
		fprintf(stderr, "lunfs: the check was not completed: the datastore was detached "
			"meanwhile\n");
		json_decref(result);
		err = CTL_FAILED;
	}
	return err;
}

static void print_json(const json_t *last, json_t *all)
{
	json_t *root = json_copy((json_t *)(uintptr_t)last);
	static const char *const inner[] = { "state", "phase", "done", "total", "next", "more" };

	for (size_t i = 0; i < ARRAY_SIZE(inner); i++)
		json_object_del(root, inner[i]);
	json_object_set_new(root, "clean", json_boolean(!ctl_int(last, "errors")));
	json_object_set_new(root, "findings_listed", json_integer((json_int_t)json_array_size(all)));
	json_object_set(root, "findings", all);
	cmd_print_json(root);
	json_decref(root);
}

static void print_text(const char *ds, const json_t *last)
{
	long long errors = ctl_int(last, "errors"), unproved = ctl_int(last, "unproved");

	if (errors > FINDINGS_MAX)
		printf("%lld more\n", errors - FINDINGS_MAX);
	if (unproved)
		printf("%lld objects are in use by other hosts, or changed each time they were looked "
		       "at: they may be right or wrong; check again, there or when it is quieter\n",
		       unproved);
	if (errors)
		printf("%s: volume \"%s\": %lld errors\n", ds, ctl_str(last, "label"), errors);
	else
		printf("%s: volume \"%s\": clean, as far as can be told while it is in use (%lld "
		       "directories, %lld files)\n", ds, ctl_str(last, "label"),
		       (long long)ctl_int(last, "directories"), (long long)ctl_int(last, "files"));
}

int cmd_check(struct cmd *c, int argc, char **argv)
{
	char ds[PATH_MAX];
	json_t *request, *result = NULL, *last = NULL, *all = json_array();
	uint64_t rate = 0;
	int err = c->rate ? cmd_parse_size("--rate", c->rate, &rate) : CTL_OK, status;

	(void)argc;
	if (err)
		return err;
	request = json_pack("{s:s, s:s}", "cmd", "check-start", "ds", ctl_device_path(argv[0], ds));
	if (rate)
		json_object_set_new(request, "rate", json_integer((json_int_t)rate));
	err = ctl_client_call(&c->client, request, &result);
	if (!err && ctl_bool(result, "joined"))
		fprintf(stderr, "lunfs: %s: somebody else has begun a check: this is it\n", argv[0]);
	json_decref(result);
	if (!err)
		err = follow(c, ds, all, &last);
	if (err) {
		json_decref(all);
		return CHECK_OPERATIONAL;
	}
	if (c->json)
		print_json(last, all);
	else
		print_text(argv[0], last);
	status = (ctl_int(last, "errors") ? CHECK_ERRORS : CHECK_CLEAN) |
		 (ctl_int(last, "unreadable") ? CHECK_OPERATIONAL : 0);
	if (ctl_int(last, "errors"))
		fprintf(stderr, "lunfs: %s: nothing was changed; detach it on every host, then "
			"fsck.lunfs -y repairs it (--undo FILE keeps what that overwrites)\n", argv[0]);
	if (fflush(stdout))
		status |= CHECK_OPERATIONAL;
	json_decref(last);
	json_decref(all);
	return status;
}
