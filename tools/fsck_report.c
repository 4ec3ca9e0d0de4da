/* SPDX-License-Identifier: Apache-2.0 */
/* What fsck.lunfs says: findings as they come, progress, the result. */
#include "tools/fsck.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "base/text.h"

#define SHOWN_MAX	20u	/* findings of one code, without -v */
#define JSON_MAX	10000u	/* findings in a JSON document */

static void progress_end(struct fsck *f)
{
	if (f->progress_shown)
		fputc('\n', stderr);
	f->progress_shown = false;
}

void fsck_complain(struct fsck *f, const char *fmt, ...)
{
	va_list ap;

	progress_end(f);
	fputs("fsck.lunfs: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

/* ---- findings as they come ---- */

static void add_json(struct fsck *f, json_t *list, const struct check_finding *found)
{
	const struct check_code_info *info = check_code_info(found->code);
	char code[16], text[700];
	json_t *item;

	if (f->listed == JSON_MAX)
		return;
	snprintf(code, sizeof(code), "LUN-%04u", info->number);
	text_printable(found->text, strlen(found->text), text, sizeof(text));
	item = json_pack("{ss ss ss sI ss}", "code", code, "name", info->name, "severity",
			 info->severity == CHECK_ERROR ? "error" : "note", "address",
			 (json_int_t)found->addr, "text", text);
	pthread_mutex_lock(&f->mutex);
	json_array_append_new(list, item);
	f->listed++;
	pthread_mutex_unlock(&f->mutex);
}

static void print_finding(const char *before, const struct check_finding *found)
{
	const struct check_code_info *info = check_code_info(found->code);

	printf("%sLUN-%04u %s at 0x%llx: %s\n", before, info->number, info->name,
	       (unsigned long long)found->addr, found->text);
}

/*
 * While it repairs, only what it repairs is news, and what keeps it from that: the rest was told
 * by the look before.
 */
void fsck_report(void *arg, const struct check_finding *found)
{
	struct fsck *f = arg;

	if (f->repairing && !found->repaired && found->code != CHECK_UNWRITABLE)
		return;
	if (f->json) {
		add_json(f, found->repaired ? f->repairs : f->findings, found);
		return;
	}
	if (++f->seen[found->code] > SHOWN_MAX && !f->verbose)
		return;
	progress_end(f);
	print_finding(found->repaired ? "repaired: " :
		      check_code_info(found->code)->severity == CHECK_NOTE ? "note: " : "", found);
}

/* Lines as e2fsck(8) writes them, for fsck(8) and others to draw bars from. */
static void progress_line(struct fsck *f, const char *phase, uint64_t done, uint64_t total)
{
	if (f->phase != phase)
		f->pass++;
	f->phase = phase;
	if (dprintf(f->progress_fd, "%u %llu %llu %s\n", f->pass, (unsigned long long)done,
		    (unsigned long long)total, f->path) < 0)
		f->progress_fd = 0;	/* nobody listens any more */
}

void fsck_progress(void *arg, const char *phase, uint64_t done, uint64_t total)
{
	struct fsck *f = arg;

	if (f->progress_fd > 0) {
		progress_line(f, phase, done, total);
		return;
	}
	/* At a terminal as soon as somebody might wonder. */
	if (!f->progress && (!isatty(STDERR_FILENO) || env_now_ns(env_posix()) < f->patience_until))
		return;
	fprintf(stderr, "\r%-12s %llu of %llu  ", phase, (unsigned long long)done,
		(unsigned long long)total);
	f->progress_shown = true;
}

/* Asks a person; an answer that cannot be read is a no. */
bool fsck_ask(void *arg, const struct check_finding *found)
{
	struct fsck *f = arg;
	char answer[16];

	if (f->yes_to_all)
		return true;
	progress_end(f);
	print_finding("", found);
	printf("Repair? (y)es, (n)o, (a)ll: ");
	fflush(stdout);
	if (!fgets(answer, sizeof(answer), stdin))
		return false;
	f->yes_to_all = answer[0] == 'a' || answer[0] == 'A';
	return f->yes_to_all || answer[0] == 'y' || answer[0] == 'Y';
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

#define TRANSIENT	"findings may be transient; check again while it is quiet"

static void print_hosts(const struct fsck *f, const struct check_result *r)
{
	if (r->hosts_live)
		printf("%u hosts are using the volume%s\n", r->hosts_live, r->quiet ?
		       " and changed nothing meanwhile" : " and changed it meanwhile: " TRANSIENT);
	else if (!r->quiet)
		printf("the volume was changed meanwhile: " TRANSIENT "\n");
	if (r->hosts_silent)
		printf("%u slots belong to hosts that are silent; the next host that attaches "
		       "recovers them\n", r->hosts_silent);
	if (f->replayed)
		printf("%u transactions of crashed hosts were replayed\n", f->replayed);
	if (f->not_replayed)
		printf("not replayed, left to the next host that attaches: %s\n",
		       f->not_replayed);
	if (r->transactions && !r->hosts_live)
		printf("%u transactions are not yet at home: the state is that after their "
		       "replay\n", r->transactions);
}

static void print_text(const struct fsck *f, const struct check_result *r)
{
	char label[LABEL_MAX + 1], a[24], b[24];

	print_left_out(f);
	print_hosts(f, r);
	if (f->verbose)
		printf("%s: %llu directories, %llu files, %llu others, %llu orphans, %s of %s "
		       "used\n", f->path, (unsigned long long)r->directories,
		       (unsigned long long)r->files, (unsigned long long)r->others,
		       (unsigned long long)r->orphans,
		       text_format_size(r->blocks_used * BLOCK_SIZE, a, sizeof(a)),
		       text_format_size(r->blocks * BLOCK_SIZE, b, sizeof(b)));
	text_printable(r->super.label, LABEL_MAX, label, sizeof(label));
	if (r->repaired)
		printf("%s: volume \"%s\": %llu findings repaired\n", f->path, label,
		       (unsigned long long)r->repaired);
	if (r->errors)
		printf("%s: volume \"%s\": %llu errors%s\n", f->path, label,
		       (unsigned long long)r->errors, f->repairing ? " left" : "");
	else
		printf("%s: volume \"%s\": clean\n", f->path, label);
}

/* What there is to be said is said from now on; a signal comes too late. */
static void fsck_done(struct fsck *f)
{
	pthread_mutex_lock(&f->mutex);
	f->done = true;
	pthread_mutex_unlock(&f->mutex);
}

int fsck_print_object(struct fsck *f, json_t *root)
{
	int bad;

	fsck_done(f);
	if (!root)
		return -ENOMEM;
	bad = json_dumpf(root, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(root);
	return bad ? -EIO : 0;
}

static int print_json(struct fsck *f, const struct check_result *r)
{
	char label[LABEL_MAX + 1], uuid[UUID_TEXT_SIZE];
	json_t *root;

	text_printable(r->super.label, LABEL_MAX, label, sizeof(label));
	root = json_pack("{ss ss* ss sb sI sI sI si si si si sb sI sI sI sI sI sI sI sO sO}",
			 "device", f->shown, "label", label, "uuid",
			 text_format_uuid(r->super.volume_id, uuid), "clean", r->errors == 0,
			 "errors", (json_int_t)r->errors, "notes", (json_int_t)r->notes,
			 "repaired", (json_int_t)r->repaired,
			 "hosts_live", (int)r->hosts_live, "hosts_silent", (int)r->hosts_silent,
			 "transactions", (int)r->transactions, "replayed", (int)f->replayed, "quiet", r->quiet,
			 "directories", (json_int_t)r->directories,
			 "files", (json_int_t)r->files, "others", (json_int_t)r->others,
			 "orphans", (json_int_t)r->orphans,
			 "blocks", (json_int_t)r->blocks,
			 "blocks_used", (json_int_t)r->blocks_used, "findings_listed",
			 (json_int_t)f->listed, "findings", f->findings, "repairs", f->repairs);
	return fsck_print_object(f, root);
}

/* What is to be said of errors that are left. */
static void print_advice(struct fsck *f, const struct check_result *r)
{
	if (r->unreadable)
		fsck_complain(f, "%s: blocks cannot be read, and what they hold may be whole: copy "
			      "the device to a good one first, and repair that; nothing was changed",
			      f->path);
	else if (r->hosts_live && f->mode != FSCK_CHECK)
		fsck_complain(f, "%s: hosts are using the volume: detach it on every host first; "
			      "nothing was changed", f->path);
	else if (f->mode == FSCK_SAFE && r->lossy)
		fsck_complain(f, "%s: not all of it can be repaired without giving something up: "
			      "run fsck.lunfs by hand (-y, with --undo FILE); nothing was changed",
			      f->path);
	else if (f->mode == FSCK_CHECK && !r->quiet)
		fsck_complain(f, "%s: hosts changed the volume meanwhile: check again while it is "
			      "quiet, or run lunfs check on a host that has it attached; nothing "
			      "was repaired", f->path);
	else if (f->mode == FSCK_CHECK)
		fsck_complain(f, "%s: nothing was changed; fsck.lunfs -y repairs it (--undo FILE "
			      "keeps what that overwrites)", f->path);
}

static void print_unknown(struct fsck *f, const struct super *s)
{
	uint64_t unknown = (s->compat & ~(uint64_t)COMPAT_KNOWN) |
			   (s->ro_compat & ~(uint64_t)RO_COMPAT_KNOWN);

	if (unknown)
		fsck_complain(f, "%s: the volume has features 0x%llx that this version does not know: "
			      "what was found may be theirs", f->path, (unsigned long long)unknown);
}

int fsck_print(struct fsck *f, const struct check_result *r)
{
	int status = r->errors ? EXIT_ERRORS_LEFT : EXIT_CLEAN;
	int err = 0;

	progress_end(f);
	fsck_done(f);
	if (f->json)
		err = print_json(f, r);
	else
		print_text(f, r);
	if (fflush(stdout) || err) {
		fsck_complain(f, "writing the result failed");
		status |= EXIT_OPERATIONAL;
	}
	print_unknown(f, &r->super);
	if (r->errors)
		print_advice(f, r);
	return status | (r->repaired ? EXIT_CORRECTED : 0) |
	       (r->unreadable ? EXIT_OPERATIONAL : 0);
}

/* ---- cancelled ---- */

/* Whoever adds to the lists holds the mutex, and so do we to the end. */
static void print_cancelled(struct fsck *f, const char *what)
{
	json_t *root = json_pack("{ss sb s{ss} sI sO sO}", "device", f->shown, "cancelled", 1, "error",
				 "message", what, "findings_listed", (json_int_t)f->listed,
				 "findings", f->findings, "repairs", f->repairs);

	if (root)
		json_dumpf(root, stdout, JSON_INDENT(2));
	putchar('\n');
}

static void watch_for(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGTERM);
}

static void *wait_for_signal(void *arg)
{
	struct fsck *f = arg;
	const char *what = f->undo_apply_path ?
			   "cancelled; it is half taken back if that had begun: do it again" :
			   "cancelled; a repair that had begun is to be run again";
	int status = EXIT_CANCELLED, sig;
	sigset_t set;

	watch_for(&set);
	while (sigwait(&set, &sig))
		;
	/* Whoever reads of it may not go on reading. */
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	pthread_mutex_lock(&f->mutex);
	if (f->done) {
		pthread_mutex_unlock(&f->mutex);
		return NULL;	/* it has ended, and says how */
	}
	if (f->json)
		print_cancelled(f, what);
	if (dprintf(STDERR_FILENO, "\nfsck.lunfs: %s\n", what) < 0 || fflush(stdout))
		status |= EXIT_OPERATIONAL;
	_exit(status);
}

int fsck_watch_signals(struct fsck *f)
{
	pthread_t thread;
	sigset_t set;

	watch_for(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	if (pthread_create(&thread, NULL, wait_for_signal, f))
		return -ENOMEM;
	pthread_detach(thread);
	return 0;
}
