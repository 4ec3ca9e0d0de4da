/* SPDX-License-Identifier: Apache-2.0 */
/* mount.lunfs: mounts a datastore; by hand, for mount -t lunfs and from fstab. */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/program.h"
#include "block/blkiscsi.h"
#include "tools/ctl_client.h"

#define PROGRAM		"mount.lunfs"
#define PATIENCE_MS	3000	/* a daemon that was started just before may not listen yet */

static const char usage[] =
	"usage: mount.lunfs DEVICE DIR [-fnsv] [-o OPTION[,OPTION...]]\n"
	"       mount.lunfs --help | --version\n"
	"\n"
	"Mounts the LunFS datastore on DEVICE (a block device, a file, or the URL of an iSCSI\n"
	"LUN: iscsi://[USER@]HOST[:PORT]/IQN/LUN[?NAME=VALUE&...]) on DIR.\n"
	"DEVICE may be the label or UUID of a datastore that is attached already.\n"
	"\n"
	"  run-dir=DIR       of the lunfsd to serve it (default " CTL_DEFAULT_RUN_DIR ")\n"
	"  ro, rw            read-only, or not (default)\n"
	"  rescue            read-only, taking no locks: for what cannot be mounted otherwise\n"
	"  resignature       accept a copied device as a volume of its own\n"
	"  force-unsafe      attach although dead hosts cannot be fenced here (rung C)\n"
	"  nosuid, nodev, noexec, noatime, ...  as in mount(8)\n"
	"\n"
	"Exit status: 0 mounted, 1 failed, 2 wrong usage, 3 somebody else has it.\n";

struct args {
	const char *run_dir;
	char	*options;	/* of -o, all together */
	bool	fake;
	bool	sloppy;		/* options that nobody knows are ignored */
};

/* What mount(8), fstab and systemd say to each other and not to us. */
static bool is_for_others(const char *o)
{
	static const char *const names[] = { "auto", "noauto", "user", "nouser", "users", "owner",
					     "group", "_netdev", "nofail", "loop", "iversion",
					     "noiversion", "mand", "nomand", "silent", "loud" };

	for (unsigned int i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(o, names[i]))
			return true;
	return !strncmp(o, "x-", 2) || !strncmp(o, "X-", 2) || !strncmp(o, "comment=", 8) ||
	       !strncmp(o, "user=", 5);
}

static bool is_known(const char *o)
{
	static const char *const names[] = {
		"ro", "rw", "rescue", "resignature", "force-unsafe", "nosuid", "suid", "nodev", "dev",
		"noexec", "exec", "noatime", "atime", "nodiratime", "diratime", "relatime",
		"norelatime", "strictatime", "nostrictatime", "lazytime", "nolazytime", "sync",
		"async", "dirsync", "defaults",
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(o, names[i]))
			return true;
	return false;
}

/* Whether the option is among them, wherever: mount(8) puts the kernel's own before it. */
static bool wants_remount(const char *options)
{
	static const char word[] = "remount";
	const char *p = options;

	while (p && *p) {
		size_t len = strcspn(p, ",");

		if (len == strlen(word) && !memcmp(p, word, len))
			return true;
		p += len + (p[len] == ',');
	}
	return false;
}

/* The daemon knows a mount as it was made; the kernel alone would tell half of the truth. */
static int refuse_remount(void)
{
	fputs(PROGRAM ": a mount cannot be changed; umount it, then mount it with the new "
	      "options\n", stderr);
	return CTL_FAILED;
}

static int add_options(struct args *a, json_t *list)
{
	char *save = NULL;

	if (wants_remount(a->options))
		return refuse_remount();
	for (char *o = a->options ? strtok_r(a->options, ",", &save) : NULL; o;
	     o = strtok_r(NULL, ",", &save)) {
		if (!strncmp(o, "run-dir=", 8))
			a->run_dir = o + 8;
		else if (is_known(o))
			json_array_append_new(list, json_string(o));
		else if (!is_for_others(o) && !a->sloppy) {
			fprintf(stderr, PROGRAM ": unknown option \"%s\"; see " PROGRAM " --help\n",
				o);
			return CTL_USAGE;
		}
	}
	return CTL_OK;
}

/* Where a killed daemon's mount still lies on it, a directory does not resolve: its parent does. */
static int resolve_dir(const char *dir, char *real)
{
	char parent[PATH_MAX], *slash;

	if (realpath(dir, real))
		return 0;
	if (errno != ENOTCONN || strlen(dir) >= sizeof(parent))
		return -errno;
	strcpy(parent, dir);
	while (strlen(parent) > 1 && parent[strlen(parent) - 1] == '/')
		parent[strlen(parent) - 1] = '\0';
	slash = strrchr(parent, '/');
	if (!slash || !slash[1]) {
		char cwd[PATH_MAX];

		if (slash || !getcwd(cwd, sizeof(cwd)))
			return -ENOTCONN;
		return snprintf(real, PATH_MAX, "%s/%s", cwd, parent) < PATH_MAX ? 0 : -ENAMETOOLONG;
	}
	*slash = '\0';
	if (!realpath(*parent ? parent : "/", real))
		return -errno;
	if (strlen(real) + strlen(slash + 1) + 2 > PATH_MAX)
		return -ENAMETOOLONG;
	strcat(strcat(real, strcmp(real, "/") ? "/" : ""), slash + 1);
	return 0;
}

/* A datastore that is attached already may be named by label or UUID, as everywhere else. */
static int find_device(struct ctl_client *c, const char *name, char real[PATH_MAX])
{
	json_t *result = NULL;
	const char *device;
	int err;

	if (blkiscsi_is_url(name) || strchr(name, '/') || !access(name, F_OK))
		return ctl_device_open_name(PROGRAM, name, real);
	err = ctl_client_call(c, json_pack("{s:s, s:s}", "cmd", "info", "ds", name), &result);
	device = err ? NULL : json_string_value(json_object_get(result, "device"));
	if (!err && (!device || strlen(device) >= PATH_MAX))
		err = CTL_FAILED;
	if (!err)
		strcpy(real, device);
	json_decref(result);
	return err;
}

static int ask_mount(struct ctl_client *c, const char *device, const char *real_dir, json_t *list)
{
	char real_device[PATH_MAX];
	json_t *result = NULL;
	int err = find_device(c, device, real_device);

	if (err) {
		json_decref(list);
		return err;
	}
	err = ctl_client_call(c, json_pack("{s:s, s:s, s:s, s:s, s:o}", "cmd", "mount",
					   "device", real_device,
					   "source", device[0] == '/' ? device : real_device,
					   "dir", real_dir, "options", list), &result);
	json_decref(result);
	return err;
}

static int do_mount(struct args *a, const char *device, const char *dir)
{
	char real_device[PATH_MAX], real_dir[PATH_MAX];
	json_t *list = json_array();
	struct ctl_client c;
	int err = add_options(a, list);

	if (err)
		return err;
	if (strchr(device, '/') && ctl_device_open_name(PROGRAM, device, real_device))
		return CTL_FAILED;
	err = resolve_dir(dir, real_dir);
	if (err) {
		fprintf(stderr, PROGRAM ": %s: %s\n", dir, strerror(-err));
		return CTL_FAILED;
	}
	if (a->fake)
		return CTL_OK;
	err = ctl_client_open(&c, PROGRAM, a->run_dir, PATIENCE_MS);
	if (err)
		return err;
	err = ask_mount(&c, device, real_dir, list);
	ctl_client_close(&c);
	return err;
}

static void append_options(struct args *a, const char *more)
{
	size_t old = a->options ? strlen(a->options) : 0;
	char *all = realloc(a->options, old + strlen(more) + 2);

	if (!all) {
		fputs(PROGRAM ": out of memory\n", stderr);
		exit(CTL_FAILED);
	}
	sprintf(all + old, "%s%s", old ? "," : "", more);
	a->options = all;
}

static int parse(struct args *a, int argc, char **argv)
{
	static const struct option options[] = {
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ "options", required_argument, NULL, 'o' },
		{ 0 },
	};
	int opt;

	while ((opt = getopt_long(argc, argv, "fnsvwrt:N:o:hV", options, NULL)) != -1) {
		switch (opt) {
		case 'o':
			append_options(a, optarg);
			break;
		case 'r':
			append_options(a, "ro");
			break;
		case 'f':
			a->fake = true;
			break;
		case 's':
			a->sloppy = true;
			break;
		case 'h':
			fputs(usage, stdout);
			exit(CTL_OK);
		case 'V':
			puts(PROGRAM " " LUNFS_VERSION);
			exit(CTL_OK);
		case 'w':
			append_options(a, "rw");
			break;
		case 'n': case 'v': case 't':
			break;
		default:
			return CTL_USAGE;
		}
	}
	if (argc - optind == 2)
		return CTL_OK;
	fputs(PROGRAM ": wants a device and a directory; see " PROGRAM " --help\n", stderr);
	return CTL_USAGE;
}

int main(int argc, char **argv)
{
	struct args a = { .run_dir = CTL_DEFAULT_RUN_DIR };
	int err;

	program_begin();
	program_checks_output("mount.lunfs");
	ctl_client_init();
	err = parse(&a, argc, argv);

	if (!err)
		err = do_mount(&a, argv[optind], argv[optind + 1]);
	free(a.options);
	return err;
}
