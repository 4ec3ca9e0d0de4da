/* SPDX-License-Identifier: Apache-2.0 */
/* fsck.lunfs: verifies a volume, and repairs it.  docs/man/fsck.lunfs.8. */
#include "tools/fsck.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/program.h"
#include "base/text.h"
#include "tools/volume_open.h"

static const char usage[] =
"usage: fsck.lunfs [-afnpvy] [-C[fd]] [--json] [--undo file] device\n"
"       fsck.lunfs [-v] [--json] --undo-apply file device\n"
"       fsck.lunfs --help | --version\n";

static const char help[] =
"Verify a LunFS volume, and repair it while no host has it attached.\n"
"  -n, --no-change  only check\n"
"  -p, -a           repair what loses nothing, without asking; all of it or nothing\n"
"  -y, --yes        repair everything: what cannot be believed is given up\n"
"  (none of these)  ask for each finding at a terminal; elsewhere as -n\n"
"  -f, --force      accepted: every check is a full one\n"
"  -v, --verbose    every finding, and totals\n"
"  -C[FD]           show progress: a bar, or lines on file descriptor FD\n"
"      --undo FILE  keep what is overwritten in the new file FILE\n"
"      --undo-apply FILE  take back the repairs that FILE was written by\n"
"      --json       print the result as JSON\n"
"Exit status: 0 clean, 1 errors were repaired, 4 errors left, 8 it could not be done,\n"
"16 wrong usage, 32 cancelled by a signal; or their sum.\n";

enum { OPT_JSON = 256, OPT_HELP, OPT_VERSION, OPT_UNDO, OPT_UNDO_APPLY };

static const struct option long_options[] = {
	{ "no-change", no_argument, NULL, 'n' },
	{ "yes", no_argument, NULL, 'y' },
	{ "force", no_argument, NULL, 'f' },
	{ "verbose", no_argument, NULL, 'v' },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "undo", required_argument, NULL, OPT_UNDO },
	{ "undo-apply", required_argument, NULL, OPT_UNDO_APPLY },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ NULL, 0, NULL, 0 },
};

/* -n, -p and -y exclude each other, as for other filesystems. */
static bool set_mode(struct fsck *f, enum fsck_mode mode, bool *chosen)
{
	if (*chosen && f->mode != mode) {
		fsck_complain(f, "only one of -n, -p (-a) and -y can be given");
		return false;
	}
	f->mode = mode;
	*chosen = true;
	return true;
}

/* As e2fsck(8) has it: nothing or 0 is a bar for people, N lines for a program. */
static bool set_progress(struct fsck *f, const char *fd)
{
	char *end;
	long n = 0;

	f->progress = true;
	if (!fd)
		return true;
	errno = 0;
	n = strtol(fd, &end, 10);
	if (errno || *end || end == fd || n < 0 || n > INT_MAX ||
	    (n && fcntl((int)n, F_GETFD) < 0)) {
		fsck_complain(f, "-C%s: no open file descriptor", fd);
		return false;
	}
	f->progress_fd = (int)n;
	return true;
}

static bool check_usage(struct fsck *f, int left, bool chosen)
{
	if (left != 1)
		fsck_complain(f, left ? "more than one device given" : "no device given");
	else if (f->undo_path && f->undo_apply_path)
		fsck_complain(f, "--undo and --undo-apply exclude each other");
	else if (f->undo_apply_path && chosen)
		fsck_complain(f, "--undo-apply takes back; it does not check or repair (-n, -p, -y)");
	else if (f->undo_path && f->mode == FSCK_CHECK)
		fsck_complain(f, "--undo keeps what a repair overwrites; give -p or -y with it");
	else
		return true;
	fputs(usage, stderr);
	return false;
}

/* Return: 0; an exit status + 1 if the program is done. */
static int parse_options(struct fsck *f, int argc, char **argv)
{
	bool chosen = false, good = true;
	int c;

	while (good && (c = getopt_long(argc, argv, "afnpvyC::", long_options, NULL)) != -1) {
		switch (c) {
		case 'a': case 'p':
			good = set_mode(f, FSCK_SAFE, &chosen);
			break;
		case 'y':
			good = set_mode(f, FSCK_ALL, &chosen);
			break;
		case 'n':
			good = set_mode(f, FSCK_CHECK, &chosen);
			break;
		case 'f':
			break;
		case 'v':
			f->verbose = true;
			break;
		case 'C':
			good = set_progress(f, optarg);
			break;
		case OPT_JSON:
			f->json = true;
			break;
		case OPT_UNDO:
			f->undo_path = optarg;
			break;
		case OPT_UNDO_APPLY:
			f->undo_apply_path = optarg;
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
	if (!chosen && !f->json && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO))
		f->mode = FSCK_ASK;
	if (!good || !check_usage(f, argc - optind, chosen))
		return EXIT_USAGE + 1;
	f->path = argv[optind];
	return 0;
}

/* ---- looking ---- */

/* The volume as it is, without a claim. */
static int look(struct fsck *f, struct check_result *r, char *why, size_t why_size)
{
	struct check_params p = { .env = env_posix(), .report = fsck_report,
				  .progress = fsck_progress, .arg = f };
	int err = volume_open(f->path, &p.dev, why, why_size);

	if (err)
		return err;
	err = check_volume(&p, r, why, why_size);
	blkdev_close(p.dev);
	return err;
}

/* ---- repairing ---- */

static int keep_old(void *arg, uint64_t addr, const void *old, size_t len)
{
	struct fsck *f = arg;

	return undo_write(f->undo, addr, old, len);
}

static int repair_claimed(struct fsck *f, struct fsck_claim *fc, struct check_result *r,
			  char *why, size_t why_size)
{
	struct check_params p = {
		.env = env_posix(), .dev = claim_dev(fc->claim), .own_slot = claim_slot(fc->claim),
		.repair = f->mode == FSCK_SAFE ? CHECK_REPAIR_SAFE : CHECK_REPAIR_LOSS,
		/* -p does nothing halfway: what came since then must not surprise it. */
		.looked = f->mode != FSCK_SAFE,
		.may_repair = f->mode == FSCK_ASK ? fsck_ask : NULL,
		.report = fsck_report, .progress = fsck_progress, .arg = f,
	};
	int err = 0;

	if (f->undo_path) {
		err = undo_create(f->undo_path, r->super.volume, &f->undo, why, why_size);
		p.before_write = keep_old;
	}
	if (err)
		return err;
	memset(f->seen, 0, sizeof(f->seen));
	f->repairing = true;
	err = check_volume(&p, r, why, why_size);
	if (f->undo && !undo_close(f->undo))
		unlink(f->undo_path);	/* nothing was overwritten */
	return err;
}

static int repair(struct fsck *f, struct check_result *r, char *why, size_t why_size)
{
	uint64_t before = r->errors;
	struct fsck_claim fc;
	int err = fsck_claim_take(f->path, &fc, why, why_size), released;

	if (err)
		return err;
	err = repair_claimed(f, &fc, r, why, why_size);
	/* Some the claim itself has put right: copies of the superblock, slots, an old mark. */
	if (!err && !r->repaired && r->errors < before)
		r->repaired = before - r->errors;
	/* Whatever errors are left were there before; what was cut off halfway is another thing. */
	released = fsck_claim_release(&fc, !err);
	return err ? err : released;
}

/* Whether what was seen calls for a repair that this mode may begin. */
static bool wants_repair(const struct fsck *f, const struct check_result *r)
{
	if (f->mode == FSCK_CHECK || r->hosts_live || r->unreadable)
		return false;
	if (f->mode == FSCK_SAFE && r->lossy)
		return false;
	return r->errors > 0;
}

/* What dead hosts' journals hold goes home, as e2fsck does it; nothing else is wrong. */
static bool wants_replay(const struct fsck *f, const struct check_result *r)
{
	return (f->mode == FSCK_SAFE || f->mode == FSCK_ALL) && !r->errors && r->transactions &&
	       !r->hosts_live;
}

/* Who cannot have the volume for that leaves it to the next host: it is clean all the same. */
static int replay(struct fsck *f, struct check_result *r, char *why, size_t why_size)
{
	unsigned int transactions = r->transactions;
	struct fsck_claim fc;
	int err = fsck_claim_take(f->path, &fc, why, why_size), released;

	if (err) {
		f->not_replayed = strdup(why[0] ? why : strerror(-err));
		return f->not_replayed ? 0 : -ENOMEM;
	}
	err = repair_claimed(f, &fc, r, why, why_size);
	released = fsck_claim_release(&fc, !err);
	if (err || released)
		return err ? err : released;
	f->replayed = transactions - r->transactions;
	return 0;
}

/* The file is read, and refused, before anything is claimed. */
static int open_undo(struct fsck *f, struct super *s, struct undo_reader **out, char *why,
		     size_t why_size)
{
	struct blkdev *dev;
	int err = volume_open(f->path, &dev, why, why_size);

	if (err)
		return err;
	err = super_find(dev, s, why, why_size);
	blkdev_close(dev);
	return err ? err : undo_open(f->undo_apply_path, s, out, why, why_size);
}

static int take_back(struct fsck *f, char *why, size_t why_size)
{
	struct undo_reader *u;
	struct fsck_claim fc;
	struct super s;
	uint64_t count;
	int err = open_undo(f, &s, &u, why, why_size), released;

	if (err)
		return err;
	err = fsck_claim_take(f->path, &fc, why, why_size);
	if (err) {
		undo_free(u);
		return err;
	}
	count = undo_count(u);
	err = undo_apply(u, claim_dev(fc.claim), why, why_size);
	undo_free(u);
	/* It is as damaged as it was before the repair then, but not half repaired. */
	released = fsck_claim_release(&fc, !err);
	if (!err)
		err = released;
	if (!err && f->json) {
		err = fsck_print_object(f, json_pack("{ss sI}", "device", f->shown, "taken_back",
						     (json_int_t)count));
	} else if (!err) {
		printf("%s: %llu writes taken back: the volume is as it was before that repair\n",
		       f->path, (unsigned long long)count);
	}
	return err;
}

/* A program that asked for JSON gets JSON. */
static void print_error(struct fsck *f, const char *why)
{
	char text[400];

	fsck_print_object(f, json_pack("{ss s{ss}}", "device", f->shown, "error", "message",
				       text_printable(why, strlen(why), text, sizeof(text))));
}

static int failed(struct fsck *f, int err, const char *why)
{
	why = why[0] ? why : strerror(-err);
	fsck_complain(f, "%s", why);
	if (f->json)
		print_error(f, why);
	return EXIT_OPERATIONAL;
}

static int begin(struct fsck *f)
{
	size_t size = strlen(f->path) + 1;

	/* Who reads of a repair may go away; the repair does not. */
	signal(SIGPIPE, SIG_IGN);
	env_posix_log_level(f->verbose ? LOG_LEVEL_INFO : LOG_LEVEL_WARNING);
	f->patience_until = env_now_ns(env_posix()) + NSEC_PER_SEC;
	f->shown = malloc(size);
	f->findings = json_array();
	f->repairs = json_array();
	if (!f->shown || !f->findings || !f->repairs)
		return -ENOMEM;
	text_printable(f->path, size, f->shown, size);
	return fsck_watch_signals(f);
}

static void end(struct fsck *f)
{
	free(f->not_replayed);
	free(f->shown);
	json_decref(f->findings);
	json_decref(f->repairs);
}

/* Return: the exit status. */
static int run(struct fsck *f)
{
	struct check_result r;
	char why[400] = "";
	int err = begin(f);

	if (!err && f->undo_apply_path)
		err = take_back(f, why, sizeof(why));
	if (err || f->undo_apply_path)
		return err ? failed(f, err, why) : EXIT_CORRECTED;
	err = look(f, &r, why, sizeof(why));
	if (!err && wants_repair(f, &r))
		err = repair(f, &r, why, sizeof(why));
	else if (!err && wants_replay(f, &r))
		err = replay(f, &r, why, sizeof(why));
	return err ? failed(f, err, why) : fsck_print(f, &r);
}

int main(int argc, char **argv)
{
	static struct fsck f = { .mode = FSCK_CHECK,	/* a thread has it, too */
				 .mutex = PTHREAD_MUTEX_INITIALIZER };
	int status;

	program_begin();
	status = parse_options(&f, argc, argv);
	if (status)
		return status - 1;
	status = run(&f);
	end(&f);
	return status;
}
