/* SPDX-License-Identifier: Apache-2.0 */
/* fsck.lunfs: verifies a volume.  docs/man/fsck.lunfs.8. */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/text.h"
#include "fs/check.h"
#include "tools/volume_open.h"

/* Bits of fsck(8). */
enum { EXIT_CLEAN = 0, EXIT_ERRORS_LEFT = 4, EXIT_OPERATIONAL = 8, EXIT_USAGE = 16 };

#define SHOWN_MAX	20u	/* findings of one code, without -v */
#define JSON_MAX	10000u	/* findings in a JSON document */

static const char usage[] =
"usage: fsck.lunfs [-afnpvy] [-C[fd]] [--json] device\n"
"       fsck.lunfs --help | --version\n";

static const char help[] =
"Verify a LunFS volume.  Nothing is written; this version does not repair.\n"
"  -n, --no-change  only check; what this version always does\n"
"  -a, -p, -y       accepted for fsck(8): check, and say so if repair were needed\n"
"  -f, --force      accepted: every check is a full one\n"
"  -v, --verbose    every finding, and totals\n"
"  -C[FD]           show progress on standard error\n"
"      --json       print the result as JSON\n"
"Exit status: 0 clean, 4 errors found, 8 the check could not be done, 16 wrong usage.\n";

struct fsck {
	const char *path;
	bool verbose, progress, json, repair_wanted;
	uint64_t seen[CHECK_CODE_COUNT];
	uint64_t listed;
	json_t *findings;
	bool progress_shown;
	uint64_t patience_until;	/* no progress before, unless it is asked for */
};

__attribute__((format(printf, 1, 2)))
static void complain(const char *fmt, ...)
{
	va_list ap;

	fputs("fsck.lunfs: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

enum { OPT_JSON = 256, OPT_HELP, OPT_VERSION };

static const struct option long_options[] = {
	{ "no-change", no_argument, NULL, 'n' },
	{ "force", no_argument, NULL, 'f' },
	{ "verbose", no_argument, NULL, 'v' },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ NULL, 0, NULL, 0 },
};

/* Return: 0; an exit status + 1 if the program is done. */
static int parse_options(struct fsck *f, int argc, char **argv)
{
	int c;

	while ((c = getopt_long(argc, argv, "afnpvyC::", long_options, NULL)) != -1) {
		switch (c) {
		case 'a': case 'p': case 'y':
			f->repair_wanted = true;
			break;
		case 'n': case 'f':
			break;
		case 'v':
			f->verbose = true;
			break;
		case 'C':
			f->progress = true;
			break;
		case OPT_JSON:
			f->json = true;
			break;
		case OPT_HELP:
			printf("%s%s", usage, help);
			return EXIT_CLEAN + 1;
		case OPT_VERSION:
			puts("fsck.lunfs " LUNFS_VERSION);
			return EXIT_CLEAN + 1;
		default:
			fputs(usage, stderr);
			return EXIT_USAGE + 1;
		}
	}
	if (optind + 1 != argc) {
		complain(optind == argc ? "no device given" : "more than one device given");
		fputs(usage, stderr);
		return EXIT_USAGE + 1;
	}
	f->path = argv[optind];
	return 0;
}

/* ---- findings as they come ---- */

static void progress_end(struct fsck *f)
{
	if (f->progress_shown)
		fputc('\n', stderr);
	f->progress_shown = false;
}

static void add_json(struct fsck *f, const struct check_finding *found)
{
	const struct check_code_info *info = check_code_info(found->code);
	char code[16], text[700];
	json_t *item;

	if (++f->listed > JSON_MAX)
		return;
	snprintf(code, sizeof(code), "LUN-%04u", info->number);
	text_printable(found->text, strlen(found->text), text, sizeof(text));
	item = json_pack("{ss ss ss sI ss}", "code", code, "name", info->name, "severity",
			 info->severity == CHECK_ERROR ? "error" : "note", "address",
			 (json_int_t)found->addr, "text", text);
	if (!item)	/* a name that is no UTF-8 */
		item = json_pack("{ss ss sI}", "code", code, "name", info->name, "address",
				 (json_int_t)found->addr);
	json_array_append_new(f->findings, item);
}

static void report(void *arg, const struct check_finding *found)
{
	const struct check_code_info *info = check_code_info(found->code);
	struct fsck *f = arg;
	uint64_t seen = ++f->seen[found->code];

	if (f->json) {
		add_json(f, found);
		return;
	}
	if (seen > SHOWN_MAX && !f->verbose)
		return;
	progress_end(f);
	printf("%sLUN-%04u %s at 0x%llx: %s\n", info->severity == CHECK_NOTE ? "note: " : "",
	       info->number, info->name, (unsigned long long)found->addr, found->text);
}

static void progress(void *arg, const char *phase, uint64_t done, uint64_t total)
{
	struct fsck *f = arg;

	/* At a terminal as soon as somebody might wonder. */
	if (!f->progress && (!isatty(STDERR_FILENO) || env_now_ns(env_posix()) < f->patience_until))
		return;
	fprintf(stderr, "\r%-12s %llu of %llu  ", phase, (unsigned long long)done,
		(unsigned long long)total);
	f->progress_shown = true;
}

/* ---- the result ---- */

static void print_left_out(const struct fsck *f)
{
	for (unsigned int i = 0; i < CHECK_CODE_COUNT && !f->verbose; i++)
		if (f->seen[i] > SHOWN_MAX)
			printf("LUN-%04u %s: %llu more; -v shows all\n",
			       check_code_info(i)->number, check_code_info(i)->name,
			       (unsigned long long)(f->seen[i] - SHOWN_MAX));
}

static void print_hosts(const struct check_result *r)
{
	if (r->hosts_live)
		printf("%u hosts are using the volume%s\n", r->hosts_live, r->quiet ?
		       " and changed nothing meanwhile" :
		       " and changed it meanwhile: findings may be transient; check again while "
		       "it is quiet");
	if (r->hosts_silent)
		printf("%u slots belong to hosts that are silent; the next host that attaches "
		       "recovers them\n", r->hosts_silent);
	if (r->transactions && !r->hosts_live)
		printf("%u transactions are not yet at home: the state is that after their "
		       "replay\n", r->transactions);
}

static void print_text(const struct fsck *f, const struct check_result *r)
{
	char label[LABEL_MAX + 1], a[24], b[24];

	print_left_out(f);
	print_hosts(r);
	if (f->verbose)
		printf("%s: %llu directories, %llu files, %llu others, %llu orphans, %s of %s "
		       "used\n", f->path, (unsigned long long)r->directories,
		       (unsigned long long)r->files, (unsigned long long)r->others,
		       (unsigned long long)r->orphans,
		       text_format_size(r->blocks_used * BLOCK_SIZE, a, sizeof(a)),
		       text_format_size(r->blocks * BLOCK_SIZE, b, sizeof(b)));
	text_printable(r->super.label, LABEL_MAX, label, sizeof(label));
	if (r->errors)
		printf("%s: volume \"%s\": %llu errors\n", f->path, label,
		       (unsigned long long)r->errors);
	else
		printf("%s: volume \"%s\": clean\n", f->path, label);
}

static int print_json(struct fsck *f, const struct check_result *r)
{
	char label[LABEL_MAX + 1], uuid[UUID_TEXT_SIZE];
	json_t *root;
	int bad;

	text_printable(r->super.label, LABEL_MAX, label, sizeof(label));
	root = json_pack("{ss ss* ss sb sI sI si si si sb sI sI sI sI sI sI sI so}",
			 "device", f->path, "label", label, "uuid",
			 text_format_uuid(r->super.volume_id, uuid), "clean", r->errors == 0,
			 "errors", (json_int_t)r->errors, "notes", (json_int_t)r->notes,
			 "hosts_live", (int)r->hosts_live, "hosts_silent", (int)r->hosts_silent,
			 "transactions", (int)r->transactions, "quiet", r->quiet,
			 "directories", (json_int_t)r->directories,
			 "files", (json_int_t)r->files, "others", (json_int_t)r->others,
			 "orphans", (json_int_t)r->orphans,
			 "blocks", (json_int_t)r->blocks,
			 "blocks_used", (json_int_t)r->blocks_used, "findings_listed",
			 (json_int_t)(f->listed < JSON_MAX ? f->listed : JSON_MAX),
			 "findings", f->findings);
	if (!root)
		return -EINVAL;
	bad = json_dumpf(root, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(root);
	return bad ? -EIO : 0;
}

static int print_result(struct fsck *f, const struct check_result *r)
{
	int status = r->errors ? EXIT_ERRORS_LEFT : EXIT_CLEAN;
	int err = 0;

	progress_end(f);
	if (f->json)
		err = print_json(f, r);
	else
		print_text(f, r);
	if (fflush(stdout) || err) {
		complain("writing the result failed");
		status |= EXIT_OPERATIONAL;
	}
	if (r->errors && f->repair_wanted)
		complain("%s: this version only checks and cannot repair: mount with -o rescue to "
			 "copy files out", f->path);
	return status | (r->unreadable ? EXIT_OPERATIONAL : 0);
}

int main(int argc, char **argv)
{
	struct fsck f = { 0 };
	struct check_params p = { .env = env_posix(), .report = report, .progress = progress,
				  .arg = &f };
	struct check_result r;
	char why[400] = "";
	int err, done = parse_options(&f, argc, argv);

	if (done)
		return done - 1;
	f.patience_until = env_now_ns(env_posix()) + NSEC_PER_SEC;
	if (f.json)
		f.findings = json_array();
	if (volume_open(f.path, &p.dev, why, sizeof(why))) {
		complain("%s", why);
		return EXIT_OPERATIONAL;
	}
	err = check_volume(&p, &r, why, sizeof(why));
	blkdev_close(p.dev);
	if (err) {
		progress_end(&f);
		complain("%s", why[0] ? why : strerror(-err));
		json_decref(f.findings);
		return EXIT_OPERATIONAL;
	}
	return print_result(&f, &r);
}
