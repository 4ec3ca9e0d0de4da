/* SPDX-License-Identifier: Apache-2.0 */
/* lunfs status, hosts, attach, detach. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/cmd.h"

static void print_reservation(const json_t *r)
{
	size_t count = json_array_size(json_object_get(r, "keys")), i;
	json_t *differs = json_object_get(r, "differs"), *text;

	if (!r)
		return;
	if (!json_array_size(differs)) {
		printf("    keys      %zu, one for each live host\n", count);
		return;
	}
	printf("    keys      %zu registered; what differs:\n", count);
	json_array_foreach(differs, i, text)
		printf("              %s\n", json_string_value(text));
}

static void print_locking(const json_t *d, const char *watchdog)
{
	bool is_bound = ctl_str(d, "fencing")[0] == 'B';
	char age[32], lease[32];

	if (!json_object_get(d, "slot"))
		return;
	printf("    slot      %lld, generation %lld\n", (long long)ctl_int(d, "slot"),
	       (long long)ctl_int(d, "generation"));
	if (ctl_bool(d, "lost"))
		printf("    lease     LOST: unmount and detach it, then attach it again\n");
	else
		printf("    lease     %s, renewed %s ago of %s\n",
		       ctl_bool(d, "lease_valid") ? "valid" : "LAPSED: I/O waits",
		       cmd_age(ctl_int(d, "lease_age_ms"), age),
		       cmd_age(ctl_int(d, "lease_ms"), lease));
	printf("    fencing   %s%s%s\n", ctl_str(d, "fencing"), is_bound ? ", watchdog: " : "",
	       is_bound ? watchdog : "");
	print_reservation(json_object_get(d, "reservation"));
	printf("    locks     %lld cached, %lld taken, %lld waited for; %lld hosts recovered; "
	       "%lld stalls\n", (long long)ctl_int(d, "locks_cached"),
	       (long long)ctl_int(d, "lock_acquires"), (long long)ctl_int(d, "lock_waits"),
	       (long long)ctl_int(d, "takeovers"), (long long)ctl_int(d, "stalls"));
}

/* "2026-11-30 11:20:31", or what there is instead. */
static const char *last_pass(const json_t *scrub, char *buf)
{
	if (!json_object_get(scrub, "last_pass"))
		return "none yet";
	return cmd_time(ctl_int(scrub, "last_pass"), buf);
}

static void print_scrub(const json_t *scrub)
{
	long long total = ctl_int(scrub, "total"), done = ctl_int(scrub, "done");
	char time[32], rate[24];
	size_t i;
	json_t *f;

	if (!scrub || (!ctl_int(scrub, "rate") && !ctl_int(scrub, "passes")))
		return;
	printf("    scrub     %s %lld%%, %s/s by %lld hosts; last complete pass: %s; bad: %lld\n",
	       ctl_str(scrub, "phase"), total ? 100 * done / total : 0,
	       cmd_size(ctl_int(scrub, "rate"), rate), (long long)ctl_int(scrub, "hosts"),
	       last_pass(scrub, time), (long long)ctl_int(scrub, "bad"));
	json_array_foreach(json_object_get(scrub, "findings"), i, f)
		printf("              %s %s at 0x%llx: %s %s\n", ctl_str(f, "code"), ctl_str(f, "name"),
		       (unsigned long long)ctl_int(f, "address"), ctl_str(f, "text"),
		       ctl_str(f, "path"));
}

static void print_store(const json_t *d, const char *watchdog)
{
	size_t i;
	json_t *dir;
	char size[24];

	if (strcmp(ctl_str(d, "state"), "attached")) {
		printf("%s: %s\n", ctl_str(d, "device"), ctl_str(d, "state"));
		return;
	}
	printf("%s%s%s, %s, %s\n", ctl_str(d, "label"), *ctl_str(d, "label") ? ": " : "",
	       ctl_str(d, "uuid"), cmd_size(ctl_int(d, "size"), size), ctl_str(d, "mode"));
	printf("    device    %s%s\n", ctl_str(d, "device"), ctl_bool(d, "o_direct") ? "" :
	       "  (WARNING: O_DIRECT is not in force, flush is fdatasync)");
	print_locking(d, watchdog);
	print_scrub(json_object_get(d, "scrub"));
	json_array_foreach(json_object_get(d, "mounts"), i, dir)
		printf("    mounted   %s\n", json_string_value(dir));
}

int cmd_status(struct cmd *c, int argc, char **argv)
{
	json_t *result, *list, *d;
	size_t i;
	int err = cmd_call(c, json_pack("{s:s}", "cmd", "status"), &result);

	(void)argc;
	(void)argv;
	if (err || !result)
		return err;
	printf("host %s (%s), lunfsd %s, process %lld, worker %lld\n", ctl_str(result, "host_name"),
	       ctl_str(result, "host_id"), ctl_str(result, "version"),
	       (long long)ctl_int(result, "pid"), (long long)ctl_int(result, "worker_pid"));
	list = json_object_get(result, "datastores");
	if (!json_array_size(list))
		puts("no datastore is attached; mount one, or \"lunfs attach DEVICE\"");
	json_array_foreach(list, i, d)
		print_store(d, ctl_str(result, "watchdog"));
	json_decref(result);
	return CTL_OK;
}

static void print_host(const json_t *h)
{
	char since[32], age[32], breakable[48] = "";

	if (!ctl_bool(h, "valid")) {
		printf("%4lld  (its block cannot be read or believed)\n",
		       (long long)ctl_int(h, "slot"));
		return;
	}
	if (!ctl_bool(h, "self") && json_is_integer(json_object_get(h, "breakable_ms"))) {
		char in[32];

		snprintf(breakable, sizeof(breakable), "  breakable in %s",
			 cmd_age(ctl_int(h, "breakable_ms"), in));
	}
	printf("%4lld  %-16s %-11s %8s  %7lld  %s  %s%s%s\n", (long long)ctl_int(h, "slot"),
	       ctl_str(h, "host_name"), ctl_str(h, "state"),
	       cmd_age(ctl_int(h, "silent_ms"), age), (long long)ctl_int(h, "pid"),
	       cmd_time(ctl_int(h, "since"), since), ctl_str(h, "host_id"),
	       ctl_bool(h, "self") ? "  (this host)" : "", breakable);
}

int cmd_hosts(struct cmd *c, int argc, char **argv)
{
	char ds[PATH_MAX];
	json_t *result, *h;
	size_t i;
	int err = cmd_call(c, json_pack("{s:s, s:s}", "cmd", "hosts", "ds",
					ctl_device_path(argv[0], ds)), &result);

	(void)argc;
	if (err || !result)
		return err;
	printf("SLOT  %-16s %-11s %8s  %7s  %-19s  ID\n", "HOST", "STATE", "SILENT", "PROCESS",
	       "SINCE");
	json_array_foreach(json_object_get(result, "hosts"), i, h)
		print_host(h);
	printf("%zu of %lld slots in use\n", json_array_size(json_object_get(result, "hosts")),
	       (long long)ctl_int(result, "slots"));
	json_decref(result);
	return CTL_OK;
}

static json_t *split_options(const char *options)
{
	json_t *list = json_array();
	char *copy = strdup(options ? options : ""), *save = NULL;

	if (!copy) {
		fputs("lunfs: out of memory\n", stderr);
		exit(CTL_FAILED);
	}
	for (char *o = strtok_r(copy, ",", &save); o; o = strtok_r(NULL, ",", &save))
		json_array_append_new(list, json_string(o));
	free(copy);
	return list;
}

int cmd_attach(struct cmd *c, int argc, char **argv)
{
	char device[PATH_MAX];
	json_t *result;
	int err;

	(void)argc;
	err = ctl_device_open_name("lunfs", argv[0], device);
	if (err)
		return err;
	err = cmd_call(c, json_pack("{s:s, s:s, s:o}", "cmd", "attach", "device", device,
				    "options", split_options(c->options)), &result);
	if (!err && result)
		printf("attached %s (%s)\n", ctl_str(result, "label"), ctl_str(result, "uuid"));
	json_decref(result);
	return err;
}

int cmd_detach(struct cmd *c, int argc, char **argv)
{
	char ds[PATH_MAX];
	json_t *result;
	int err = cmd_call(c, json_pack("{s:s, s:s, s:o*}", "cmd", "detach", "ds",
					ctl_device_path(argv[0], ds), "force",
					c->force ? json_true() : NULL), &result);

	(void)argc;
	json_decref(result);
	return err;
}
