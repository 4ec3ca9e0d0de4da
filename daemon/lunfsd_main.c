/* SPDX-License-Identifier: Apache-2.0 */
/* lunfsd: the daemon of a host.  lunfsd(8). */
#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/program.h"
#include "daemon/config.h"
#include "daemon/parent.h"
#include "daemon/worker.h"

#define LARGE_BYTES	(128 * 1024)	/* a piece of memory that is mapped by itself */

enum { EXIT_FAILED = 1, EXIT_USAGE = 2 };

static const char usage[] =
	"usage: lunfsd [--run-dir DIR] [--host-name NAME] [--host-id UUID] [--config FILE]\n"
	"              [--user USER] [--group GROUP] [--log-level LEVEL] [--threads N]\n"
	"              [--stop-timeout SECONDS] [--watchdog none|guard|DEVICE]\n"
	"       lunfsd --help | --version\n"
	"\n"
	"Serves the datastores of one host, in the foreground, until SIGTERM.\n"
	"\n"
	"  --run-dir DIR     control socket and lock (default " CONFIG_DEFAULT_RUN_DIR ")\n"
	"  --host-name NAME  what other hosts call this one (default: the machine's name)\n"
	"  --host-id UUID    this host's identity (default: the machine's; with --host-name,\n"
	"                    one derived from both, so that a machine can play several hosts)\n"
	"  --config FILE     settings (default " CONFIG_DEFAULT_FILE ", if it exists)\n"
	"  --user USER       whom the worker runs as (default lunfs, else nobody)\n"
	"  --group GROUP     who beside root may ask for status (default nobody)\n"
	"  --log-level LEVEL error, warning, info (default) or debug\n"
	"  --threads N       threads that serve a mount (default: chosen)\n"
	"  --stop-timeout SECONDS  for giving everything back at the end (default 45)\n"
	"  --watchdog WHAT   what ends this host if it freezes, for LUNs without reservations:\n"
	"                    none (default), guard (a process), or a device as /dev/watchdog\n"
	"\n"
	"Exit status: 0 ended as told, 1 failed, 2 wrong usage.\n";

enum { OPT_CONFIG = 1, OPT_ROLE, OPT_HELP, OPT_VERSION, OPT_SETTING };

static const struct option options[] = {
	{ "run-dir", required_argument, NULL, OPT_SETTING },
	{ "host-name", required_argument, NULL, OPT_SETTING },
	{ "host-id", required_argument, NULL, OPT_SETTING },
	{ "user", required_argument, NULL, OPT_SETTING },
	{ "group", required_argument, NULL, OPT_SETTING },
	{ "log-level", required_argument, NULL, OPT_SETTING },
	{ "threads", required_argument, NULL, OPT_SETTING },
	{ "stop-timeout", required_argument, NULL, OPT_SETTING },
	{ "watchdog", required_argument, NULL, OPT_SETTING },
	{ "config", required_argument, NULL, OPT_CONFIG },
	{ "role", required_argument, NULL, OPT_ROLE },	/* ours, of the worker */
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ 0 },
};

static int read_config(struct config *c, const char *path)
{
	char why[1024];
	FILE *in = fopen(path ? path : CONFIG_DEFAULT_FILE, "re");
	int err;

	if (!in && !path && errno == ENOENT)
		return 0;
	if (!in) {
		fprintf(stderr, "lunfsd: %s: %s\n", path ? path : CONFIG_DEFAULT_FILE,
			strerror(errno));
		return EXIT_USAGE;
	}
	err = config_read(c, in, path ? path : CONFIG_DEFAULT_FILE, why, sizeof(why));
	fclose(in);
	if (!err)
		return 0;
	fprintf(stderr, "lunfsd: %s\n", why);
	return EXIT_USAGE;
}

static int apply_setting(struct config *c, const char *name, const char *value)
{
	char why[1024], path[PATH_MAX], cwd[PATH_MAX];

	/* Relative to where it is typed; in the file it has to be absolute. */
	if (!strcmp(name, "run-dir") && value[0] != '/' && value[0] &&
	    getcwd(cwd, sizeof(cwd)) &&
	    snprintf(path, sizeof(path), "%s/%s", cwd, value) < (int)sizeof(path))
		value = path;
	if (!config_set(c, name, value, why, sizeof(why)))
		return 0;
	fprintf(stderr, "lunfsd: --%s: %s\n", name, why);
	return EXIT_USAGE;
}

/* First the file, then the command line, which counts more. */
static int configure(struct config *c, int argc, char **argv)
{
	const char *path = NULL;
	int opt, index = 0, err;

	config_init(c);
	while ((opt = getopt_long(argc, argv, "", options, &index)) != -1) {
		if (opt == '?')
			return EXIT_USAGE;
		if (opt == OPT_CONFIG)
			path = optarg;
	}
	if (optind < argc) {
		fprintf(stderr, "lunfsd: takes no arguments: \"%s\"\n", argv[optind]);
		return EXIT_USAGE;
	}
	err = read_config(c, path);
	optind = 0;	/* begin again */
	while (!err && (opt = getopt_long(argc, argv, "", options, &index)) != -1)
		if (opt == OPT_SETTING)
			err = apply_setting(c, options[index].name, optarg);
	return err;
}

int main(int argc, char **argv)
{
	static struct config config;
	int err;

	program_begin();
	/*
	 * What is large goes back when it is freed.  Left to itself the C library would soon keep
	 * it in the heaps of some thirty threads, of which none gives much back: hundreds of MiB.
	 */
	mallopt(M_MMAP_THRESHOLD, LARGE_BYTES);
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--help")) {
			fputs(usage, stdout);
			return 0;
		}
		if (!strcmp(argv[i], "--version")) {
			puts("lunfsd " LUNFS_VERSION);
			return 0;
		}
	}
	if (argc == 2 && !strcmp(argv[1], "--role=worker"))
		return worker_run();
	err = configure(&config, argc, argv);
	if (err) {
		if (err == EXIT_USAGE)
			fputs("lunfsd: see lunfsd --help\n", stderr);
		return err;
	}
	return parent_run(&config);
}
