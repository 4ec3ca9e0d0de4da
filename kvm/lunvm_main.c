/* SPDX-License-Identifier: Apache-2.0 */
/* lunvm: virtual machines whose disks come from LunFS.  lunvm(8). */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/env.h"
#include "base/program.h"
#include "kvm/autostart.h"
#include "kvm/cmd.h"
#include "kvm/parent.h"
#include "kvm/report.h"
#include "kvm/source.h"
#include "kvm/worker.h"

static const char usage[] =
	"usage: lunvm run [OPTION...] CONFIGURATION\n"
	"       lunvm run [OPTION...] --name NAME --kernel FILE [--disk DISK]...\n"
	"       lunvm autostart [--watch] [DATASTORE...]\n"
	"       lunvm list\n"
	"       lunvm status|pause|resume|stop|kill|console NAME\n"
	"       lunvm --help | --version\n"
	"\n"
	"  run                 a machine, until its guest powers off; CONFIGURATION is a file of\n"
	"                      this host or DS:/PATH, see lunvm.conf(5); options count for more\n"
	"     --name NAME      of the machine\n"
	"     --memory SIZE    for the guest (default 512M)\n"
	"     --cpus N         virtual processors (default 1)\n"
	"     --kernel FILE    bzImage or ELF vmlinux, of this host or DS:/PATH\n"
	"     --initrd FILE    initial RAM disk, likewise\n"
	"     --cmdline TEXT   the kernel's command line\n"
	"     --disk DISK      DS:/PATH[,ro]; may be given several times\n"
	"     --net none       there are no network devices\n"
	"     --on-reset WHAT  restart (default) or exit, with status 10\n"
	"     --detach         return when the guest runs\n"
	"     --user USER      whom the machine runs as (default lunfs, else nobody)\n"
	"     --daemon-dir DIR run directory of the lunfsd to ask (default /run/lunfs)\n"
	"  autostart           start what DS:/NAME/NAME.conf says is to be, and nobody runs\n"
	"     --watch          and go on: restart the machines of hosts that die\n"
	"  list                machines that run on this host\n"
	"  status NAME         what a machine is made of and does\n"
	"  pause NAME          stop its processors and drain its disks; resume goes on\n"
	"  stop NAME           press its power button, and wait until it has ended\n"
	"     --timeout SECONDS  for that long at most (default 60; 0: not at all)\n"
	"  kill NAME           end it at once\n"
	"  console NAME        its console; Ctrl-] leaves it\n"
	"\n"
	"  --run-dir DIR       of lunvm itself (default " LUNVM_DEFAULT_RUN_DIR ")\n"
	"  --json              results and errors as JSON; run and autostart: a line for each event,\n"
	"                      and no console on standard output\n"
	"\n"
	"Exit status of run: 0 the guest powered off, 1 failed, 2 bad usage or configuration,\n"
	"3 in use elsewhere, 4 no lunfsd, 5 a disk's lock was lost, 10 guest reset, 11 guest\n"
	"crash, 12 KVM error, 13 killed.  Others: 0 done, 1 failed, 2 bad usage.\n";

enum {
	OPT_CONFIG = 1,		/* an option that is a setting of the same name */
	OPT_RUN_DIR, OPT_DAEMON_DIR, OPT_USER, OPT_DETACH, OPT_WATCH, OPT_TIMEOUT, OPT_JSON, OPT_HELP, OPT_VERSION,
};

static const struct option options[] = {
	{ "name", required_argument, NULL, OPT_CONFIG },
	{ "memory", required_argument, NULL, OPT_CONFIG },
	{ "cpus", required_argument, NULL, OPT_CONFIG },
	{ "kernel", required_argument, NULL, OPT_CONFIG },
	{ "initrd", required_argument, NULL, OPT_CONFIG },
	{ "cmdline", required_argument, NULL, OPT_CONFIG },
	{ "disk", required_argument, NULL, OPT_CONFIG },
	{ "net", required_argument, NULL, OPT_CONFIG },
	{ "on-reset", required_argument, NULL, OPT_CONFIG },
	{ "run-dir", required_argument, NULL, OPT_RUN_DIR },
	{ "daemon-dir", required_argument, NULL, OPT_DAEMON_DIR },
	{ "user", required_argument, NULL, OPT_USER },
	{ "detach", no_argument, NULL, OPT_DETACH },
	{ "watch", no_argument, NULL, OPT_WATCH },
	{ "timeout", required_argument, NULL, OPT_TIMEOUT },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ 0 },
};

#define SETTINGS_MAX	(VM_DISKS_MAX + 16)

/* What was typed; settings are applied after the file's, in their order. */
struct typed {
	struct run_options run;
	struct { const char *key, *value; } settings[SETTINGS_MAX];
	unsigned int setting_count;
	const char *timeout;
	bool	watch;
};

static int complain(const struct typed *t, const char *what, const char *why)
{
	return report_failure(t->run.json, NULL, VM_EXIT_CONFIG, "%s%s%s; see " LUNVM_NAME " --help",
			      what, *what ? ": " : "", why);
}

static int take_setting(struct typed *t, const char *key, const char *value)
{
	if (t->setting_count == SETTINGS_MAX)
		return complain(t, key, "too many options");
	t->settings[t->setting_count].key = key;
	t->settings[t->setting_count++].value = value;
	return 0;
}

static int take_option(struct typed *t, int opt, int index, char *value, const char *typed)
{
	switch (opt) {
	case OPT_CONFIG:
		return take_setting(t, options[index].name, value);
	case OPT_RUN_DIR:
		t->run.run_dir = value;
		return 0;
	case OPT_DAEMON_DIR:
		t->run.daemon_dir = value;
		return 0;
	case OPT_USER:
		t->run.user = value;
		return 0;
	case OPT_DETACH:
		t->run.detach = true;
		return 0;
	case OPT_WATCH:
		t->watch = true;
		return 0;
	case OPT_TIMEOUT:
		t->timeout = value;
		return 0;
	case OPT_JSON:
		t->run.json = true;
		return 0;
	case OPT_HELP:
		fputs(usage, stdout);
		exit(0);
	case OPT_VERSION:
		puts(LUNVM_NAME " " LUNFS_VERSION);
		exit(0);
	default:
		return complain(t, typed, opt == ':' ? "wants a value" : "no such option");
	}
}

static int parse(struct typed *t, int argc, char **argv)
{
	int opt, index = 0, err;

	/* Also what is wrong before it is told in JSON. */
	for (int i = 1; i < argc && strcmp(argv[i], "--"); i++)
		t->run.json = t->run.json || !strcmp(argv[i], "--json");
	opterr = 0;
	while ((opt = getopt_long(argc, argv, ":", options, &index)) != -1) {
		err = take_option(t, opt, index, optarg, argv[optind - 1]);
		if (err)
			return err;
	}
	return 0;
}

/* ---- run ---- */

/* The folder of @name, in which it looks for what is named without one. */
static void folder_of(const char *name, char *folder)
{
	char *slash;

	if (source_is_datastore(name) || !realpath(name, folder))
		snprintf(folder, PATH_MAX, "%s", name);
	slash = strrchr(folder, '/');
	if (slash)
		*slash = '\0';
}

static int read_file(struct vm_config *c, const struct typed *t, const char *name)
{
	char why[PATH_MAX + VM_WHY_SIZE], folder[PATH_MAX];
	enum vm_exit status = VM_EXIT_CONFIG;
	int fd = source_open(name, t->run.daemon_dir, &status, why, sizeof(why)), err = 0;
	FILE *in = fd >= 0 ? fdopen(fd, "r") : NULL;

	if (fd >= 0 && in) {
		folder_of(name, folder);
		err = vm_config_read(c, in, name, folder, why, sizeof(why));
		fclose(in);
	} else if (fd >= 0) {
		err = -errno;
	}
	if (fd >= 0 && !err)
		return 0;
	return report_failure(t->run.json, NULL, status, "%s", why);
}

static int read_config(struct vm_config *c, const struct typed *t, const char *file)
{
	char why[VM_WHY_SIZE];
	int err;

	vm_config_init(c);
	if (file) {
		err = read_file(c, t, file);
		if (err)
			return err;
	}
	for (unsigned int i = 0; i < t->setting_count; i++) {
		if (vm_config_set(c, t->settings[i].key, t->settings[i].value, why, sizeof(why))) {
			return report_failure(t->run.json, NULL, VM_EXIT_CONFIG, "--%s %s: %s",
					      t->settings[i].key, t->settings[i].value, why);
		}
	}
	return vm_config_check(c, why, sizeof(why)) ? complain(t, "", why) : 0;
}

static int run(struct typed *t, int argc, char **argv)
{
	static struct vm_config c;	/* large */
	int err;

	if (argc > 1)
		return complain(t, argv[1], "one configuration at a time");
	err = read_config(&c, t, argc ? argv[0] : NULL);
	return err ? err : parent_run(&c, &t->run);
}

/* ---- which ---- */

static int take_timeout(const struct typed *t, const char *command, unsigned int *seconds)
{
	char *end;
	const char *typed = t->timeout;
	unsigned long n = strtoul(typed, &end, 10);

	if (strcmp(command, "stop"))
		return complain(t, "--timeout", "only \"stop\" waits");
	if (*typed < '0' || *typed > '9' || *end || n > CMD_STOP_SECONDS_MAX)
		return complain(t, typed, "not a number of seconds, at most a day of them");
	*seconds = (unsigned int)n;
	return 0;
}

static int dispatch(struct typed *t, int argc, char **argv)
{
	struct vm_cmd cmd = { .run_dir = t->run.run_dir, .json = t->run.json,
			      .timeout = CMD_STOP_SECONDS };

	if (!argc)
		return complain(t, "", "no command was given");
	if (t->timeout && take_timeout(t, argv[0], &cmd.timeout))
		return VM_EXIT_CONFIG;
	if (!strcmp(argv[0], "run") && !t->watch)
		return run(t, argc - 1, argv + 1);
	if (!strcmp(argv[0], "autostart") && !t->setting_count)
		return autostart(&t->run, argv + 1, (unsigned int)argc - 1, t->watch);
	if (t->setting_count || t->run.detach || t->watch)
		return complain(t, argv[0], "takes no such option");
	if (!strcmp(argv[0], "list"))
		return argc > 1 ? complain(t, argv[1], "\"list\" takes no name") : cmd_list(&cmd);
	if (!cmd_is_request(argv[0]))
		return complain(t, argv[0], "unknown command");
	if (argc != 2)
		return complain(t, argv[0], "wants the name of one machine");
	if (!vm_config_name_is_fine(argv[1]))
		return complain(t, argv[1], "no machine can be called that");
	return cmd_request(&cmd, argv[0], argv[1]);
}

int main(int argc, char **argv)
{
	struct typed t = { .run = { .run_dir = LUNVM_DEFAULT_RUN_DIR, .daemon_dir = "/run/lunfs",
				    .user = "", .start_ns = env_now_ns(env_posix()) } };
	int err;

	program_begin();
	if (argc == 2 && !strcmp(argv[1], "--role=worker"))
		vm_worker_run();
	err = parse(&t, argc, argv);
	return err ? err : dispatch(&t, argc - optind, argv + optind);
}
