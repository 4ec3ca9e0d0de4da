/* SPDX-License-Identifier: Apache-2.0 */
/* lunfs: administration of datastores.  lunfs(8). */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/program.h"
#include "base/text.h"
#include "block/blkiscsi.h"
#include "tools/cmd.h"
#include "tools/cmd_scan.h"
#include "tools/cmd_selftest.h"
#include "tools/debug_cmd.h"

#define PROGRAM		"lunfs"
#define ATTACH_PATIENCE_MS	3000	/* for a daemon that was started just before */

static const char usage[] =
	"usage: lunfs [--run-dir DIR] [--json] COMMAND [ARGUMENT...]\n"
	"       lunfs --help | --version\n"
	"\n"
	"  status                 this host, its datastores, slots, leases and fencing\n"
	"  hosts DS               every host of a datastore, and how long it has been silent\n"
	"  lock show DS:/PATH     who holds a file\n"
	"  lock break DS:/PATH    take a file from a host whose death is proven\n"
	"  df [DS]                space\n"
	"  ls DS:/PATH            names, without a mount\n"
	"  info DS[:/PATH]        a volume, or a file\n"
	"  disk create DS:/PATH --size SIZE [--thick | --thin]\n"
	"                         a virtual disk, thin unless told otherwise\n"
	"  disk info DS:/PATH     its size, space and the images that it stands on\n"
	"  disk grow DS:/PATH --size SIZE\n"
	"  disk snapshot create|delete|revert DS:/PATH NAME\n"
	"  disk snapshot list DS:/PATH\n"
	"  disk clone --linked DS:/PATH@NAME DS:/NEW\n"
	"                         a new disk on top of a snapshot, at once\n"
	"  disk clone DS:/PATH DS:/NEW [--thick | --thin]\n"
	"                         a full copy, on the same datastore or another\n"
	"  disk import FILE DS:/PATH [--format FORMAT] [--thick | --thin]\n"
	"  disk export DS:/PATH FILE [--format FORMAT]\n"
	"                         FORMAT is raw, qcow2, vmdk or vhdx\n"
	"  disk discard DS:/PATH  give back what was written with zeros\n"
	"  disk merge DS:/PATH    move what deleted snapshots left into the next image\n"
	"  disk attach DS:/PATH   serve a disk to guests (vhost-user-blk); prints the socket\n"
	"     [--iscsi[=ADDRESS:PORT]]   or to iSCSI initiators; prints the LUN's URL\n"
	"     [--read-only] [--enospc pause|report] [--iops N] [--iops-burst N] [--bytes SIZE]\n"
	"     [--bytes-burst SIZE] [--shares N] [--queues N] [--serial TEXT] [--incoming[=SECONDS]]\n"
	"  disk detach DS:/PATH   stop that  [--force]\n"
	"  disk handover DS:/PATH --to HOST | --cancel\n"
	"                         let another host have it once its guest stops (live migration)\n"
	"  disk list [DS]         what is attached, and how it is doing\n"
	"  volume grow DS [--size SIZE]\n"
	"                         to the size that its device has now\n"
	"  volume reclaim DS [--rate BYTES]\n"
	"                         give free space back to the device, so much a second\n"
	"  check DS [--rate BYTES]\n"
	"                         what is damaged, while hosts use it; so much a second\n"
	"  metrics                what was counted, in Prometheus' text format\n"
	"  attach DEVICE          take part in a datastore, without a mount\n"
	"     [-o ro,rescue,resignature,force-unsafe]\n"
	"  detach DS              leave it  [--force]\n"
	"  selftest DEVICE...     whether a LUN keeps what LunFS rests on: on one host, or\n"
	"     [--hosts N] [--offset OFFSET] [--seconds S] [--force]   on several at once\n"
	"  scan DEVICE [--restore]\n"
	"                         volumes on a device whose beginning is gone; their superblock\n"
	"                         from a copy\n"
	"  debug DEVICE WHAT...   any metadata block, by name and field\n"
	"     [dump [--scramble-names] FILE]   all of them in a file\n"
	"\n"
	"DS is a label, a UUID or the path of a device.\n"
	"\n"
	"  --run-dir DIR          of the lunfsd to ask (default " CTL_DEFAULT_RUN_DIR ")\n"
	"  --json                 results as JSON\n"
	"\n"
	"Exit status: 0 done, 1 failed, 2 wrong usage, 3 somebody else holds it;\n"
	"of check: 0 clean, 4 damage, 8 the check failed, 2 wrong usage.\n";

static const struct subcommand {
	const char *name, *second;	/* "lock", "show" */
	int args_min, args_max;
	int (*run)(struct cmd *c, int argc, char **argv);
	unsigned int patience_ms;
	unsigned int options;		/* enum cmd_option that it takes */
} subcommands[] = {
	{ "status", NULL, 0, 0, cmd_status, 0, 0 },
	{ "hosts", NULL, 1, 1, cmd_hosts, 0, 0 },
	{ "attach", NULL, 1, 1, cmd_attach, ATTACH_PATIENCE_MS, CMD_OPTIONS },
	{ "detach", NULL, 1, 1, cmd_detach, 0, CMD_FORCE },
	{ "lock", "show", 1, 1, cmd_lock_show, 0, 0 },
	{ "lock", "break", 1, 1, cmd_lock_break, 0, 0 },
	{ "df", NULL, 0, 1, cmd_df, 0, 0 },
	{ "ls", NULL, 1, 1, cmd_ls, 0, 0 },
	{ "info", NULL, 1, 1, cmd_info, 0, 0 },
	{ "check", NULL, 1, 1, cmd_check, 0, CMD_RATE },
	{ "metrics", NULL, 0, 0, cmd_metrics, 0, 0 },
	{ "volume", "grow", 1, 1, cmd_volume_grow, 0, CMD_SIZE },
	{ "volume", "reclaim", 1, 1, cmd_volume_reclaim, 0, CMD_RATE },
	{ "disk", "create", 1, 1, cmd_disk_create, 0, CMD_SIZE | CMD_THICK },
	{ "disk", "info", 1, 1, cmd_disk_info, 0, 0 },
	{ "disk", "grow", 1, 1, cmd_disk_grow, 0, CMD_SIZE },
	{ "disk", "snapshot", 2, 3, cmd_disk_snapshot, 0, 0 },
	{ "disk", "clone", 2, 2, cmd_disk_clone, 0, CMD_LINKED | CMD_THICK },
	{ "disk", "import", 2, 2, cmd_disk_import, 0, CMD_FORMAT | CMD_THICK },
	{ "disk", "export", 2, 2, cmd_disk_export, 0, CMD_FORMAT },
	{ "disk", "discard", 1, 1, cmd_disk_discard, 0, 0 },
	{ "disk", "merge", 1, 1, cmd_disk_merge, 0, 0 },
	{ "disk", "attach", 1, 1, cmd_disk_attach, ATTACH_PATIENCE_MS, CMD_DISK_OPTION },
	{ "disk", "detach", 1, 1, cmd_disk_detach, 0, CMD_FORCE },
	{ "disk", "handover", 1, 1, cmd_disk_handover, 0, CMD_TO | CMD_CANCEL },
	{ "disk", "list", 0, 1, cmd_disk_list, 0, 0 },
};

/* ---- what the subcommands share ---- */

void cmd_print_json(const json_t *result)
{
	json_dumpf(result, stdout, JSON_INDENT(2));
	putchar('\n');
}

int cmd_call(struct cmd *c, json_t *request, json_t **result)
{
	int err = ctl_client_call(&c->client, request, result);

	if (err || !c->json)
		return err;
	cmd_print_json(*result);
	json_decref(*result);
	*result = NULL;
	return CTL_OK;
}

void cmd_split(const char *arg, char *ds, const char **path)
{
	/* An iSCSI LUN's URL has one in its scheme, which is not meant; "ds1://x" has it before a path. */
	const char *colon = strstr(blkiscsi_is_url(arg) ? strstr(arg, "//") : arg, ":/");
	char name[PATH_MAX];

	*path = colon ? colon + 1 : NULL;
	snprintf(name, sizeof(name), "%.*s",
		 (int)(colon ? (size_t)(colon - arg) : strlen(arg)), arg);
	ctl_device_path(name, ds);
}

int cmd_parse_size(const char *option, const char *text, uint64_t *bytes)
{
	if (!text_parse_size(text, bytes) && *bytes && *bytes <= INT64_MAX)
		return CTL_OK;
	fprintf(stderr, PROGRAM ": %s %s: not a size; write for example 100G\n", option, text);
	return CTL_USAGE;
}

char *cmd_age(int64_t ms, char *buf)
{
	if (ms < 60 * 1000)
		snprintf(buf, 32, "%.1f s", (double)ms / 1000);
	else if (ms < 2 * 60 * 60 * 1000)
		snprintf(buf, 32, "%lld min", (long long)ms / 60000);
	else
		snprintf(buf, 32, "%lld h", (long long)ms / 3600000);
	return buf;
}

char *cmd_time(int64_t seconds, char *buf)
{
	time_t t = (time_t)seconds;
	struct tm tm;

	if (!localtime_r(&t, &tm) || !strftime(buf, 32, "%Y-%m-%d %H:%M:%S", &tm))
		strcpy(buf, "?");
	return buf;
}

char *cmd_size(int64_t bytes, char *buf)
{
	return text_format_size((uint64_t)bytes, buf, 24);
}

/* ---- which ---- */

static const struct subcommand *find_subcommand(int argc, char **argv, int *used)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(subcommands); i++) {
		const struct subcommand *s = &subcommands[i];

		*used = s->second ? 2 : 1;
		if (argc >= *used && !strcmp(argv[0], s->name) &&
		    (!s->second || !strcmp(argv[1], s->second)))
			return s;
	}
	return NULL;
}

/* Says what is wrong with words that are no command of ours.  Return: CTL_USAGE. */
static int complain(const struct subcommand *s, int argc, char **argv)
{
	const char *or = " \"";

	if (s) {
		fprintf(stderr, PROGRAM ": wrong number of arguments to \"%s%s%s\"; see " PROGRAM
			" --help\n", s->name, s->second ? " " : "", s->second ? s->second : "");
		return CTL_USAGE;
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(subcommands); i++) {
		if (!subcommands[i].second || strcmp(subcommands[i].name, argv[0]))
			continue;
		if (or[0] != ',')
			fprintf(stderr, PROGRAM ": \"%s\" wants to know what%s%s%s:", argv[0],
				argc > 1 ? ", and \"" : "", argc > 1 ? argv[1] : "",
				argc > 1 ? "\" is none of it" : "");
		fprintf(stderr, "%s%s %s\"", or, argv[0], subcommands[i].second);
		or = ", \"";
	}
	if (or[0] == ',')
		fputs("; see " PROGRAM " --help\n", stderr);
	else
		fprintf(stderr, PROGRAM ": unknown command \"%s\"; see " PROGRAM " --help\n", argv[0]);
	return CTL_USAGE;
}

/* An option that a command knows nothing of is a mistake, not to be passed over. */
static bool options_fit(const struct cmd *c, const struct subcommand *s)
{
	const struct { unsigned int option; bool given; const char *name; } all[] = {
		{ CMD_OPTIONS, c->options, "-o" }, { CMD_SIZE, c->size, "--size" },
		{ CMD_THICK, c->thick, "--thick" }, { CMD_LINKED, c->linked, "--linked" },
		{ CMD_FORMAT, c->format, "--format" }, { CMD_FORCE, c->force, "--force" },
		{ CMD_DISK_OPTION, c->disk_options, "option of \"disk attach\"" },
		{ CMD_RATE, c->rate, "--rate" }, { CMD_TO, c->to, "--to" },
		{ CMD_CANCEL, c->cancel, "--cancel" },
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(all); i++) {
		if (!all[i].given || all[i].option & s->options)
			continue;
		fprintf(stderr, PROGRAM ": \"%s%s%s\" takes no %s; see " PROGRAM " --help\n",
			s->name, s->second ? " " : "", s->second ? s->second : "", all[i].name);
		return false;
	}
	return true;
}

static int run(struct cmd *c, int argc, char **argv)
{
	const struct subcommand *s;
	int used, err;

	if (!argc) {
		fputs(usage, stderr);
		return CTL_USAGE;
	}
	s = find_subcommand(argc, argv, &used);
	if (!s || argc - used < s->args_min || argc - used > s->args_max)
		return complain(s, argc, argv);
	if (!options_fit(c, s))
		return CTL_USAGE;
	err = ctl_client_open(&c->client, PROGRAM, c->run_dir, s->patience_ms);
	if (err)
		return s->run == cmd_check ? 8 : err;	/* as fsck(8) */
	c->client.raw = c->json;
	err = s->run(c, argc - used, argv + used);
	ctl_client_close(&c->client);
	return err;
}

enum { OPT_READ_ONLY = 256, OPT_DISK, OPT_TO, OPT_CANCEL };

/* As the daemon takes it; it also judges it. */
static void disk_option(struct cmd *c, const char *name, const char *value)
{
	if (!c->disk_options)
		c->disk_options = json_array();
	json_array_append_new(c->disk_options, value ? json_sprintf("%s=%s", name, value) :
						       json_string(name));
}

static int parse(struct cmd *c, int argc, char **argv, const char *short_options)
{
	static const struct option options[] = {
		{ "run-dir", required_argument, NULL, 'r' },
		{ "json", no_argument, NULL, 'j' },
		{ "options", required_argument, NULL, 'o' },
		{ "size", required_argument, NULL, 's' },
		{ "format", required_argument, NULL, 'f' },
		{ "rate", required_argument, NULL, 'R' },
		{ "thick", no_argument, NULL, 'T' },
		{ "thin", no_argument, NULL, 't' },
		{ "linked", no_argument, NULL, 'l' },
		{ "force", no_argument, NULL, 'F' },
		{ "read-only", no_argument, NULL, OPT_READ_ONLY },
		{ "ro", no_argument, NULL, OPT_READ_ONLY },
		{ "enospc", required_argument, NULL, OPT_DISK },
		{ "iops", required_argument, NULL, OPT_DISK },
		{ "iops-burst", required_argument, NULL, OPT_DISK },
		{ "bytes", required_argument, NULL, OPT_DISK },
		{ "bytes-burst", required_argument, NULL, OPT_DISK },
		{ "shares", required_argument, NULL, OPT_DISK },
		{ "queues", required_argument, NULL, OPT_DISK },
		{ "serial", required_argument, NULL, OPT_DISK },
		{ "iscsi", optional_argument, NULL, OPT_DISK },
		{ "incoming", optional_argument, NULL, OPT_DISK },
		{ "to", required_argument, NULL, OPT_TO },
		{ "cancel", no_argument, NULL, OPT_CANCEL },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ 0 },
	};
	int opt, index = 0;

	optind = 0;	/* begin anew, with the order that short_options says */
	while ((opt = getopt_long(argc, argv, short_options, options, &index)) != -1) {
		switch (opt) {
		case 'r':
			c->run_dir = optarg;
			break;
		case 'j':
			c->json = true;
			break;
		case 'o':
			c->options = optarg;
			break;
		case 's':
			c->size = optarg;
			break;
		case 'f':
			c->format = optarg;
			break;
		case 'R':
			c->rate = optarg;
			break;
		case 'T': case 't':
			c->thick = opt == 'T';
			break;
		case 'l':
			c->linked = true;
			break;
		case 'F':
			c->force = true;
			break;
		case OPT_READ_ONLY:
			disk_option(c, "ro", NULL);
			break;
		case OPT_TO:
			c->to = optarg;
			break;
		case OPT_CANCEL:
			c->cancel = true;
			break;
		case OPT_DISK:
			disk_option(c, options[index].name, optarg);
			break;
		case 'h':
			fputs(usage, stdout);
			exit(CTL_OK);
		case 'V':
			puts(PROGRAM " " LUNFS_VERSION);
			exit(CTL_OK);
		default:
			fputs(PROGRAM ": see " PROGRAM " --help\n", stderr);
			return CTL_USAGE;
		}
	}
	return CTL_OK;
}

int main(int argc, char **argv)
{
	struct cmd c = { .run_dir = CTL_DEFAULT_RUN_DIR, .client.fd = -1 };
	char program[] = PROGRAM;
	int first, err;

	program_begin();
	program_checks_output(PROGRAM);
	ctl_client_init();
	/* Options may stand anywhere, but all that follows "debug", "scan", "selftest" belongs to it. */
	err = parse(&c, argc, argv, "+o:h");
	if (err)
		return err;
	if (optind < argc && !strcmp(argv[optind], "debug"))
		return debug_main(argc - optind, argv + optind, c.json);
	if (optind < argc && !strcmp(argv[optind], "scan"))
		return scan_main(argc - optind, argv + optind, c.json);
	if (optind < argc && !strcmp(argv[optind], "selftest"))
		return selftest_main(argc - optind, argv + optind, c.json);
	first = optind - 1;
	argv[first] = program;
	err = parse(&c, argc - first, argv + first, "o:h");
	return err ? err : run(&c, argc - first - optind, argv + first + optind);
}
