/* SPDX-License-Identifier: Apache-2.0 */
/* lunfs-target: an iSCSI target.  lunfs-target(8). */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/program.h"
#include "base/text.h"
#include "target/target.h"

enum { EXIT_FAILED = 1, EXIT_USAGE = 2, LUNS_MAX = 256 };

static const char usage[] =
	"usage: lunfs-target [--config FILE]\n"
	"       lunfs-target --lun FILE[,OPTION…]… --portal ADDRESS[:PORT]… [--iqn NAME]\n"
	"              [--size SIZE] [--block-size 512|4096] [--read-only]\n"
	"              [--initiator NAME]… [--secrets FILE] [--state-dir DIR]\n"
	"              [--user USER] [--log-level LEVEL]\n"
	"       lunfs-target --check [--config FILE]\n"
	"       lunfs-target --status [--json] [--config FILE | --state-dir DIR]\n"
	"       lunfs-target --help | --version\n"
	"\n"
	"Serves files and devices as iSCSI logical units, in the foreground, until SIGTERM.\n"
	"\n"
	"  --config FILE     what to serve (default " TGT_CONFIG_FILE ")\n"
	"  --check           only read the configuration, say what is wrong with it\n"
	"  --status          what the running target serves, who is logged in, who holds what\n"
	"  --json            that, for programs\n"
	"  --lun FILE        without a configuration: a file or device, as LUN 0, 1, …;\n"
	"                    options as in lunfs-target.conf(5)\n"
	"  --portal ADDRESS  where to listen (port 3260 if none is given; IPv6 in brackets)\n"
	"  --iqn NAME        the target's name (default: one made of the machine's)\n"
	"  --size SIZE       make files that are not there, thin, of that size\n"
	"  --block-size N    of the logical units (default 512)\n"
	"  --read-only       refuse writes\n"
	"  --initiator NAME  who may use it (default: anybody who can connect)\n"
	"  --secrets FILE    ask for CHAP with these users and secrets\n"
	"  --state-dir DIR   where reservations outlast a power loss (default as root:\n"
	"                    " TGT_STATE_DIR ")\n"
	"  --user USER       whom the worker runs as (default lunfs, else nobody)\n"
	"  --log-level LEVEL error, warning, info (default) or debug\n"
	"\n"
	"Prints the URL of each logical unit once it serves.  SIGHUP: read the configuration\n"
	"again, and the sizes of what is served.\n"
	"Exit status: 0 ended as told, 1 failed, 2 wrong usage.\n";

enum {
	OPT_CONFIG = 1, OPT_CHECK, OPT_LUN, OPT_PORTAL, OPT_IQN, OPT_SIZE, OPT_BLOCK_SIZE,
	OPT_STATUS, OPT_JSON, OPT_READ_ONLY, OPT_INITIATOR, OPT_SECRETS, OPT_STATE_DIR, OPT_USER, OPT_LOG_LEVEL,
};

static const struct option options[] = {
	{ "config", required_argument, NULL, OPT_CONFIG },
	{ "check", no_argument, NULL, OPT_CHECK },
	{ "status", no_argument, NULL, OPT_STATUS },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "lun", required_argument, NULL, OPT_LUN },
	{ "portal", required_argument, NULL, OPT_PORTAL },
	{ "iqn", required_argument, NULL, OPT_IQN },
	{ "size", required_argument, NULL, OPT_SIZE },
	{ "block-size", required_argument, NULL, OPT_BLOCK_SIZE },
	{ "read-only", no_argument, NULL, OPT_READ_ONLY },
	{ "initiator", required_argument, NULL, OPT_INITIATOR },
	{ "secrets", required_argument, NULL, OPT_SECRETS },
	{ "state-dir", required_argument, NULL, OPT_STATE_DIR },
	{ "user", required_argument, NULL, OPT_USER },
	{ "log-level", required_argument, NULL, OPT_LOG_LEVEL },
	{ 0 },
};

/* What was typed, before it is made a configuration of. */
struct typed {
	const char *config, *iqn, *secrets, *state_dir, *user, *log_level;
	const char *luns[LUNS_MAX], *portals[TGT_PORTALS_MAX], *initiators[TGT_PORTALS_MAX];
	unsigned int lun_count, portal_count, initiator_count;
	struct tgt_lun preset;
	bool	check, status, json;
};

static int complain(const char *what, const char *why)
{
	fprintf(stderr, TARGET_NAME ": %s%s%s\n", what, *what ? ": " : "", why);
	return EXIT_USAGE;
}

static int collect(const char **list, unsigned int *count, unsigned int max, const char *value)
{
	if (*count == max)
		return complain(value, "too many of these");
	list[(*count)++] = value;
	return 0;
}

static int take_option(struct typed *t, int opt, const char *value)
{
	switch (opt) {
	case OPT_CONFIG:
		t->config = value;
		return 0;
	case OPT_CHECK:
		t->check = true;
		return 0;
	case OPT_STATUS:
		t->status = true;
		return 0;
	case OPT_JSON:
		t->json = true;
		return 0;
	case OPT_LUN:
		return collect(t->luns, &t->lun_count, LUNS_MAX, value);
	case OPT_PORTAL:
		return collect(t->portals, &t->portal_count, TGT_PORTALS_MAX, value);
	case OPT_INITIATOR:
		return collect(t->initiators, &t->initiator_count, TGT_PORTALS_MAX, value);
	case OPT_IQN:
		t->iqn = value;
		return 0;
	case OPT_SIZE:
		return text_parse_size(value, &t->preset.create_size) ?
		       complain("--size", "not a size, such as 10G") : 0;
	case OPT_BLOCK_SIZE:
		t->preset.block_size = !strcmp(value, "4096") ? 4096 : 512;
		return t->preset.block_size == 512 && strcmp(value, "512") ?
		       complain("--block-size", "neither 512 nor 4096") : 0;
	case OPT_READ_ONLY:
		t->preset.flags |= TGT_LUN_READ_ONLY;
		return 0;
	case OPT_SECRETS:
		t->secrets = value;
		return 0;
	case OPT_STATE_DIR:
		t->state_dir = value;
		return 0;
	case OPT_USER:
		t->user = value;
		return 0;
	case OPT_LOG_LEVEL:
		t->log_level = value;
		return 0;
	default:
		return EXIT_USAGE;
	}
}

/* Relative to where it is typed; in the file paths have to be absolute. */
static int make_absolute(const char *path, char *buf, size_t size)
{
	char cwd[PATH_MAX] = "";

	if (path[0] != '/' && !getcwd(cwd, sizeof(cwd)))
		return -errno;
	return snprintf(buf, size, "%s%s%s", cwd, *cwd ? "/" : "", path) < (int)size ?
	       0 : -ENAMETOOLONG;
}

/* The machine's name in what names may be made of. */
static void default_iqn(char iqn[SCSI_NAME_MAX])
{
	char host[65] = "";

	gethostname(host, sizeof(host) - 1);
	for (char *p = host; *p; p++) {
		if (*p >= 'A' && *p <= 'Z')
			*p = (char)(*p - 'A' + 'a');
		else if (!(*p >= 'a' && *p <= 'z') && !(*p >= '0' && *p <= '9') && *p != '.')
			*p = '-';
	}
	snprintf(iqn, SCSI_NAME_MAX, TGT_DEFAULT_IQN ":%s", *host ? host : "target");
}

static int add_luns(struct tgt_target *target, const struct typed *t)
{
	char text[2 * PATH_MAX], why[1024];

	for (unsigned int i = 0; i < t->lun_count; i++) {
		if (make_absolute(t->luns[i], text, sizeof(text)))
			return complain(t->luns[i], "the path is too long");
		if (tgt_target_add_lun(target, &t->preset, text, why, sizeof(why)))
			return complain("--lun", why);
	}
	return 0;
}

static int add_initiators(struct tgt_target *target, const struct typed *t)
{
	char why[1024];

	if (!t->initiator_count)
		return tgt_target_add_initiator(target, "*", NULL, why, sizeof(why));
	for (unsigned int i = 0; i < t->initiator_count; i++)
		if (tgt_target_add_initiator(target, t->initiators[i], NULL, why, sizeof(why)))
			return complain("--initiator", why);
	return 0;
}

static int add_secrets(struct tgt_target *target, const struct typed *t)
{
	char why[1024];

	if (!t->secrets)
		return 0;
	target->auth.required = true;
	if (make_absolute(t->secrets, target->auth.path, sizeof(target->auth.path)))
		return complain(t->secrets, "the path is too long");
	if (!target_read_secrets(&target->auth, why, sizeof(why)))
		return 0;
	complain("--secrets", why);
	return EXIT_FAILED;
}

static int add_target(struct tgt_config *config, const struct typed *t)
{
	char iqn[SCSI_NAME_MAX], why[1024];
	struct tgt_target *target;
	int err;

	default_iqn(iqn);
	if (tgt_config_add_target(config, t->iqn ? t->iqn : iqn, &target, why, sizeof(why)))
		return complain("--iqn", why);
	err = add_luns(target, t);
	if (!err)
		err = add_initiators(target, t);
	if (!err)
		err = add_secrets(target, t);
	if (!err && tgt_config_check(config, why, sizeof(why)))
		err = complain("", why);
	return err;
}

/* A setting of the file, from the command line. */
static int set_as_in_file(struct tgt_config *config, const char *key, const char *value)
{
	char line[PATH_MAX + 64], why[1024];
	FILE *in;
	int err;

	if (!value)
		return 0;
	snprintf(line, sizeof(line), "%s = %s\n", key, value);
	in = fmemopen(line, strlen(line), "r");
	if (!in)
		return EXIT_FAILED;
	err = tgt_config_read(config, in, "--", why, sizeof(why));
	fclose(in);
	return err ? complain(key, strchr(why, ' ') + 1) : 0;
}

static int configure_from_options(struct tgt_config *config, const struct typed *t)
{
	char state_dir[PATH_MAX], why[1024];
	int err = set_as_in_file(config, "log-level", t->log_level);

	if (!err)
		err = set_as_in_file(config, "user", t->user);
	if (t->state_dir && make_absolute(t->state_dir, state_dir, sizeof(state_dir)))
		return complain("--state-dir", "the path is too long");
	if (!err)
		err = set_as_in_file(config, "state-dir", t->state_dir ? state_dir : NULL);
	for (unsigned int i = 0; i < t->portal_count && !err; i++)
		if (tgt_config_add_portal(config, t->portals[i], 1, why, sizeof(why)))
			err = complain("--portal", why);
	return err ? err : add_target(config, t);
}

/* Where the target is found that the configuration, or the default, is of. */
static int show_status(const struct typed *t)
{
	struct tgt_config *config;
	char why[1024];
	int status;

	if (t->state_dir)
		return target_status_show(t->state_dir, t->json);
	if (!t->config && access(TGT_CONFIG_FILE, F_OK))
		return target_status_show(TGT_STATE_DIR, t->json);
	if (target_read_config(t->config ? t->config : TGT_CONFIG_FILE, &config, why, sizeof(why)))
		return complain("", why);
	status = target_status_show(config->state_dir, t->json);
	tgt_config_destroy(config);
	return status;
}

static int run(const struct typed *t)
{
	struct target_options o = { .state = true };
	struct tgt_config *config;
	char why[1024];
	int err;

	if (t->status)
		return show_status(t);
	if (!t->lun_count) {
		o.config_path = t->config ? t->config : TGT_CONFIG_FILE;
		if (target_read_config(o.config_path, &config, why, sizeof(why)))
			return complain("", why);
		if (!t->check)
			return target_parent_run(&o, config);
		tgt_config_destroy(config);
		return 0;
	}
	if (tgt_config_create(&config))
		return EXIT_FAILED;
	err = configure_from_options(config, t);
	if (err || t->check) {
		tgt_config_destroy(config);
		return err;
	}
	o.state = t->state_dir || !geteuid();
	if (!o.state)
		log_warning(env_posix(), TARGET_NAME,
			    "reservations do not outlast a power loss without --state-dir");
	return target_parent_run(&o, config);
}

/* The short form and the file exclude each other: no doubt which one counts. */
static const char *conflict(const struct typed *t)
{
	bool other = t->portal_count || t->iqn || t->initiator_count || t->secrets || t->user ||
		     t->log_level || t->preset.create_size || t->preset.flags;
	bool short_form = other || t->state_dir;

	if (t->json && !t->status)
		return "--json goes with --status";
	if (t->status)
		return t->check || t->lun_count || other || (t->config && t->state_dir) ?
		       "--status goes with --json and one of --config and --state-dir" : NULL;
	if (t->lun_count && t->config)
		return "--config and --lun exclude each other";
	if (!t->lun_count && short_form)
		return "that option goes with --lun; a configuration file has settings of its own";
	if (t->lun_count && !t->portal_count)
		return "--lun needs a --portal: where to listen is never guessed";
	return NULL;
}

int main(int argc, char **argv)
{
	struct typed t = { .preset = { .block_size = 512 } };
	const char *wrong;
	int opt, err = 0;

	program_begin();
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--help")) {
			fputs(usage, stdout);
			return 0;
		}
		if (!strcmp(argv[i], "--version")) {
			puts(TARGET_NAME " " LUNFS_VERSION);
			return 0;
		}
	}
	if (argc == 2 && !strcmp(argv[1], "--role=worker"))
		return target_worker_run();
	while (!err && (opt = getopt_long(argc, argv, "", options, NULL)) != -1)
		err = take_option(&t, opt, optarg);
	wrong = conflict(&t);
	if (!err && optind < argc)
		err = complain(argv[optind], "takes no arguments");
	else if (!err && wrong)
		err = complain("", wrong);
	if (!err)
		return run(&t);
	fputs(TARGET_NAME ": see " TARGET_NAME " --help\n", stderr);
	return err;
}
