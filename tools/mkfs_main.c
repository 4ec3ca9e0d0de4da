/* SPDX-License-Identifier: Apache-2.0 */
/* mkfs.lunfs: looks before it writes, then makes a volume.  docs/man/mkfs.lunfs.8. */
#include <blkid/blkid.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/machine.h"
#include "base/program.h"
#include "base/text.h"
#include "block/blkopen.h"
#include "fs/mkfs.h"
#include "fs/super.h"
#include "lockd/lockd.h"
#include "tools/look.h"
#include "tools/selftest/report.h"

#define TEST_AT		MIB		/* of the selftest: metadata will lie there */
#define TEST_RACE_MS	3000u
#define QUICK_RACE_MS	200u

enum { EXIT_OK, EXIT_FAILED, EXIT_USAGE };

static const char usage[] =
"usage: mkfs.lunfs [-fKnq] [-L label] [-U uuid] [--size size] [--slots count]\n"
"                  [--journal-size size] [--beat-ms ms] [--lease-ms ms]\n"
"                  [--margin-ms ms] [--caw auto|local] [--sector 512|4096]\n"
"                  [--selftest] [--json] device\n"
"       mkfs.lunfs --help | --version\n";

static const char help[] =
"Make a LunFS volume on a block device, file or iSCSI LUN (iscsi://HOST/IQN/LUN).\n"
"  -L, --label LABEL      name of the datastore, at most 63 bytes\n"
"  -U, --uuid UUID        instead of a random one\n"
"      --size SIZE        create or extend a file to SIZE (64M, 20G, 1.5T); on a block\n"
"                         device or larger file: use only that much\n"
"      --slots COUNT      hosts that can be attached at a time, 1 to 96\n"
"      --journal-size SIZE  journal of each slot, 512K to 1G\n"
"      --beat-ms MS       heartbeat interval (1000)\n"
"      --lease-ms MS      a heartbeat is valid that long (5 beats)\n"
"      --margin-ms MS     clock drift and scheduling (a fifth of the lease)\n"
"      --caw auto|local   local: only this machine will ever use the device\n"
"      --sector 512|4096  sectors of a file (512); a block device has its own\n"
"  -f, --force            overwrite what is there, unless a host is using it\n"
"  -K, --no-discard       do not discard the device first\n"
"      --selftest         first try whether the device keeps what LunFS rests on, as\n"
"                         \"lunfs selftest\" does on one host; about 15 seconds\n"
"  -n, --dry-run          print what would be done, write nothing\n"
"  -q, --quiet            print nothing on success\n"
"      --json             print the volume as JSON\n"
"Exit status: 0 done, 1 refused or failed, 2 wrong usage.\n";

struct options {
	const char *path;
	struct mkfs_params params;
	uint8_t uuid[16];
	uint64_t size;
	uint32_t sector;	/* 0: the device's */
	bool force, dry_run, quiet, json, caw_local, selftest;
};

__attribute__((format(printf, 1, 2)))
static void complain(const char *fmt, ...)
{
	va_list ap;

	fputs("mkfs.lunfs: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

/* ---- options ---- */

static int parse_number(const char *option, const char *text, uint32_t *out)
{
	char *end;
	unsigned long v;

	errno = 0;
	v = strtoul(text, &end, 10);
	if (errno || *end || end == text || *text == '-' || v == 0 || v > 1000000) {
		complain("%s: \"%s\" is not a number from 1 to 1000000", option, text);
		return -EINVAL;
	}
	*out = (uint32_t)v;
	return 0;
}

static int parse_size(const char *option, const char *text, uint64_t *out)
{
	if (text_parse_size(text, out) == 0 && *out)
		return 0;
	complain("%s: \"%s\" is not a size; sizes look like 512K, 64M, 20G, 1.5T", option, text);
	return -EINVAL;
}

enum { OPT_SIZE = 256, OPT_SLOTS, OPT_JOURNAL, OPT_BEAT, OPT_LEASE, OPT_MARGIN, OPT_CAW, OPT_SECTOR,
       OPT_SELFTEST, OPT_JSON, OPT_HELP, OPT_VERSION };

static const struct option long_options[] = {
	{ "label", required_argument, NULL, 'L' },
	{ "uuid", required_argument, NULL, 'U' },
	{ "size", required_argument, NULL, OPT_SIZE },
	{ "slots", required_argument, NULL, OPT_SLOTS },
	{ "journal-size", required_argument, NULL, OPT_JOURNAL },
	{ "beat-ms", required_argument, NULL, OPT_BEAT },
	{ "lease-ms", required_argument, NULL, OPT_LEASE },
	{ "margin-ms", required_argument, NULL, OPT_MARGIN },
	{ "caw", required_argument, NULL, OPT_CAW },
	{ "sector", required_argument, NULL, OPT_SECTOR },
	{ "force", no_argument, NULL, 'f' },
	{ "no-discard", no_argument, NULL, 'K' },
	{ "dry-run", no_argument, NULL, 'n' },
	{ "quiet", no_argument, NULL, 'q' },
	{ "selftest", no_argument, NULL, OPT_SELFTEST },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ NULL, 0, NULL, 0 },
};

static int parse_caw(struct options *o, const char *text)
{
	o->caw_local = strcmp(text, "local") == 0;
	if (o->caw_local || strcmp(text, "auto") == 0)
		return 0;
	complain("--caw: \"%s\" is neither \"auto\" nor \"local\"", text);
	return -EINVAL;
}

static int parse_sector(struct options *o, const char *text)
{
	o->sector = strcmp(text, "4096") == 0 ? 4096 : 512;
	if (o->sector == 4096 || strcmp(text, "512") == 0)
		return 0;
	complain("--sector: \"%s\" is neither 512 nor 4096", text);
	return -EINVAL;
}

static int parse_uuid(struct options *o, const char *text)
{
	o->params.volume_id = o->uuid;
	if (text_parse_uuid(text, o->uuid) == 0)
		return 0;
	complain("-U: \"%s\" is not a UUID", text);
	return -EINVAL;
}

static int parse_option(struct options *o, int c)
{
	struct mkfs_params *p = &o->params;

	switch (c) {
	case 'L':		p->label = optarg; return 0;
	case 'U':		return parse_uuid(o, optarg);
	case OPT_SIZE:		return parse_size("--size", optarg, &o->size);
	case OPT_SLOTS:		return parse_number("--slots", optarg, &p->slot_count);
	case OPT_JOURNAL:	return parse_size("--journal-size", optarg, &p->journal_size);
	case OPT_BEAT:		return parse_number("--beat-ms", optarg, &p->timing.beat_ms);
	case OPT_LEASE:		return parse_number("--lease-ms", optarg, &p->timing.lease_ms);
	case OPT_MARGIN:	return parse_number("--margin-ms", optarg, &p->timing.margin_ms);
	case OPT_CAW:		return parse_caw(o, optarg);
	case OPT_SECTOR:	return parse_sector(o, optarg);
	case 'f':		o->force = true; return 0;
	case 'K':		p->discard = false; return 0;
	case 'n':		o->dry_run = true; return 0;
	case 'q':		o->quiet = true; return 0;
	case OPT_SELFTEST:	o->selftest = true; return 0;
	case OPT_JSON:		o->json = true; return 0;
	default:		return -EINVAL;	/* getopt_long() has said why */
	}
}

/* Return: 0; an exit status + 1 if the program is done. */
static int parse_options(struct options *o, int argc, char **argv)
{
	int c;

	while ((c = getopt_long(argc, argv, "L:U:fKnq", long_options, NULL)) != -1) {
		if (c == OPT_HELP) {
			printf("%s%s", usage, help);
			return EXIT_OK + 1;
		}
		if (c == OPT_VERSION) {
			puts("mkfs.lunfs " LUNFS_VERSION);
			return EXIT_OK + 1;
		}
		if (parse_option(o, c)) {
			fputs(usage, stderr);
			return EXIT_USAGE + 1;
		}
	}
	if (optind + 1 != argc) {
		complain(optind == argc ? "no device given" : "more than one device given");
		fputs(usage, stderr);
		return EXIT_USAGE + 1;
	}
	o->path = argv[optind];
	return 0;
}

/* ---- what is there ---- */

static int refuse_found(const struct options *o, const char *what)
{
	if (o->force)
		return 0;
	complain("%s: holds %s; to overwrite it, say -f", o->path, what);
	return -EBUSY;
}

static int look_with_blkid(const struct options *o)
{
	blkid_probe probe = blkid_new_probe_from_filename(o->path);
	char what[LOOK_WHAT_SIZE];
	int err;

	if (!probe)
		return 0;	/* empty files: nothing to find */
	err = look_found(probe, what, sizeof(what)) ? refuse_found(o, what) : 0;
	blkid_free_probe(probe);
	return err;
}

static int look_at_lun(const struct options *o, struct blkdev *dev)
{
	char what[LOOK_WHAT_SIZE];
	int found = look_at_ends(dev, what, sizeof(what));

	if (found < 0)
		complain("%s: cannot be read to see what it holds: %s", o->path, strerror(-found));
	return found > 0 ? refuse_found(o, what) : found;
}

static void list_hosts(const struct super *s, const struct slot *slots)
{
	char name[40];

	for (uint32_t i = 0; i < s->slot_count; i++)
		if (slots[i].state != SLOT_FREE)
			complain("  slot %u: %s, %s, process %u", i,
				 text_printable(slots[i].host_name, 32, name, sizeof(name)),
				 slot_state_name(slots[i].state), slots[i].pid);
}

/* A LunFS volume: who uses it?  Not even -f overwrites one that a host is using. */
static int look_for_lunfs(const struct options *o, struct blkdev *dev)
{
	struct slot slots[SLOT_COUNT_MAX];
	char uuid[UUID_TEXT_SIZE], label[LABEL_MAX + 1];
	unsigned int taken;
	struct super s;
	int live;

	if (super_find(dev, &s, NULL, 0) || s.size > dev->info.size)
		return 0;
	taken = look_at_slots(dev, &s, slots);
	if (taken && isatty(STDERR_FILENO))
		fprintf(stderr, "mkfs.lunfs: looking whether a host is using the volume that is there…\n");
	if (taken && (live = look_for_beats(dev, &s, slots)) >= 0) {
		complain("%s: holds a LunFS volume that slot %d (%s, process %u) is using: "
			 "detach it on every host first", o->path, live,
			 text_printable(slots[live].host_name, 32, label, sizeof(label)),
			 slots[live].pid);
		return -EBUSY;
	}
	if (o->force)
		return 0;
	complain("%s: holds LunFS volume \"%s\" (%s), %s; to overwrite it, say -f", o->path,
		 text_printable(s.label, LABEL_MAX, label, sizeof(label)),
		 text_format_uuid(s.volume_id, uuid),
		 taken ? "taken by hosts that crashed" : "not in use");
	list_hosts(&s, slots);
	return -EBUSY;
}

/* ---- the device ---- */

/* Keeps a mounted block device from being formatted; held until the end. */
static int claim_device(const char *path, int *fd)
{
	*fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC);
	if (*fd >= 0)
		return 0;
	if (errno == EBUSY)
		complain("%s: is in use: mounted, or part of a volume group or array", path);
	else
		complain("%s: cannot be opened: %s", path, strerror(errno));
	return -EBUSY;
}

/* Whether a loop device shows what lies in the file: its user would see it change below. */
static bool backs_loop_device(const struct stat *st, char *loop, size_t size)
{
	char path[512], file[PATH_MAX];
	struct dirent *d;
	DIR *dir = opendir("/sys/block");
	bool found = false;

	while (dir && !found && (d = readdir(dir))) {
		struct stat backing;
		FILE *in;

		snprintf(path, sizeof(path), "/sys/block/%s/loop/backing_file", d->d_name);
		in = strncmp(d->d_name, "loop", 4) ? NULL : fopen(path, "re");
		if (!in)
			continue;
		found = fgets(file, sizeof(file), in) != NULL;
		fclose(in);
		file[strcspn(file, "\n")] = '\0';
		found = found && !stat(file, &backing) && backing.st_dev == st->st_dev &&
			backing.st_ino == st->st_ino;
		if (found)
			snprintf(loop, size, "/dev/%s", d->d_name);
	}
	if (dir)
		closedir(dir);
	return found;
}

static int claim_file(const char *path, const struct stat *st)
{
	char loop[300];

	if (!backs_loop_device(st, loop, sizeof(loop)))
		return 0;
	complain("%s: is in use: it is behind %s; make the volume there, or detach it with "
		 "losetup -d", path, loop);
	return -EBUSY;
}

/* Creates or extends the file that --size speaks of.  *@made: it did not exist. */
static int make_file(const struct options *o, bool *made)
{
	struct stat st;
	int fd, err = 0;

	*made = stat(o->path, &st) != 0;
	if (*made && errno != ENOENT) {
		complain("%s: %s", o->path, strerror(errno));
		return -EIO;
	}
	if (!*made && (!S_ISREG(st.st_mode) || (uint64_t)st.st_size >= o->size))
		return 0;
	fd = open(o->path, O_WRONLY | O_CREAT | O_CLOEXEC | (*made ? O_EXCL : 0), 0600);
	if (fd < 0 || ftruncate(fd, (off_t)o->size)) {
		complain("%s: cannot be made %llu bytes large: %s%s", o->path,
			 (unsigned long long)o->size, strerror(errno),
			 errno == EFBIG ? "; this filesystem has a smaller limit" : "");
		err = -EIO;
	}
	if (fd >= 0)
		close(fd);
	if (err && fd >= 0 && *made)
		unlink(o->path);
	*made = *made && !err;
	return err;
}

static int open_device(const struct options *o, unsigned int flags, struct blkdev **dev)
{
	char why[300];

	flags |= o->caw_local ? BLKFILE_CAW_LOCAL : 0;
	flags |= o->sector == 4096 ? BLKFILE_SECTOR_4K : 0;
	if (blkopen(env_posix(), o->path, flags, dev, why, sizeof(why))) {
		complain("%s", why);
		return -EIO;
	}
	if (!o->sector || o->sector == (*dev)->info.sector)
		return 0;
	complain("%s: this block device has sectors of %u bytes, --sector is for files", o->path,
		 (*dev)->info.sector);
	blkdev_close(*dev);
	return -EINVAL;
}

/* ---- results ---- */

static void print_text(const struct options *o, const struct super *s)
{
	uint64_t free_bytes = mkfs_free_bytes(s);
	char uuid[UUID_TEXT_SIZE], a[24], b[24];

	printf("%s: %s LunFS volume \"%s\"\n", o->path, o->dry_run ? "would become" : "is now",
	       s->label);
	if (!o->dry_run)
		printf("  UUID      %s\n", text_format_uuid(s->volume_id, uuid));
	printf("  size      %s, %u-byte sectors\n", text_format_size(s->size, a, sizeof(a)),
	       s->sector);
	printf("  hosts     %u slots, a journal of %s each\n", s->slot_count,
	       text_format_size(s->journal_size, a, sizeof(a)));
	printf("  groups    %u of %s\n", s->ag_count, text_format_size(s->ag_size, a, sizeof(a)));
	printf("  free      %s; metadata takes %s, %.3f %%\n",
	       text_format_size(free_bytes, a, sizeof(a)),
	       text_format_size(s->size - free_bytes, b, sizeof(b)),
	       100.0 * (double)(s->size - free_bytes) / (double)s->size);
	printf("  locks     %s\n", super_caw_name(s->caw));
	printf("  timing    heartbeat %u ms, lease %u ms, margin %u ms\n", s->timing.beat_ms,
	       s->timing.lease_ms, s->timing.margin_ms);
}

static int print_json(const struct options *o, const struct super *s)
{
	char uuid[UUID_TEXT_SIZE];
	json_t *root;
	int bad;

	text_format_uuid(s->volume_id, uuid);
	root = json_pack("{ss ss ss sb sI si si sI si sI sI ss si si si}",
			 "device", o->path, "label", s->label, "uuid", o->dry_run ? "" : uuid,
			 "dry_run", o->dry_run, "size", (json_int_t)s->size,
			 "sector", (int)s->sector, "slots", (int)s->slot_count,
			 "journal_size", (json_int_t)s->journal_size,
			 "groups", (int)s->ag_count, "group_size", (json_int_t)s->ag_size,
			 "free", (json_int_t)mkfs_free_bytes(s),
			 "caw", super_caw_name(s->caw), "beat_ms", (int)s->timing.beat_ms,
			 "lease_ms", (int)s->timing.lease_ms,
			 "margin_ms", (int)s->timing.margin_ms);
	if (!root)
		return -EINVAL;
	bad = json_dumpf(root, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(root);
	return bad ? -EIO : 0;
}

static int print_result(const struct options *o, const struct super *s)
{
	int err = 0;

	if (o->json)
		err = print_json(o, s);
	else if (!o->quiet || o->dry_run)
		print_text(o, s);
	if (fflush(stdout) || err) {
		complain("writing the result failed");
		return -EIO;
	}
	return 0;
}

/* ---- the work ---- */

/* What -n says of a file that does not exist yet. */
static int plan_new_file(struct options *o)
{
	struct blkdev dev = { .env = env_posix() };
	char why[300];
	struct super s;

	snprintf(dev.info.name, sizeof(dev.info.name), "%s", o->path);
	dev.info.size = o->size;
	dev.info.sector = o->sector ? o->sector : 512;
	dev.info.caw = BLK_CAW_LOCAL;
	o->params.dev = &dev;
	if (mkfs_layout(&o->params, &s, why, sizeof(why))) {
		complain("%s", why);
		return -EINVAL;
	}
	return print_result(o, &s);
}

/* Before anything is changed, the file's size included. */
static int look(const struct options *o)
{
	struct blkdev *dev;
	bool lun = !blkopen_is_path(o->path);
	int err = lun ? 0 : look_with_blkid(o);

	if (err)
		return err;
	err = open_device(o, BLKFILE_READ_ONLY, &dev);
	if (err)
		return err;
	if (lun)
		err = look_at_lun(o, dev);
	if (!err)
		err = look_for_lunfs(o, dev);
	blkdev_close(dev);
	return err;
}

/* ---- what the volume will rest on ---- */

static int try_device(const struct options *o, struct selftest *t)
{
	char why[300];

	if (selftest_run(t, why, sizeof(why))) {
		complain("%s: whether its compare-and-write is atomic could not be tried: %s", o->path, why);
		return -EIO;
	}
	if (o->selftest && !o->quiet)
		selftest_print(t, o->json ? stderr : stdout);
	if (!selftest_failed(t))
		return 0;
	if (!o->selftest || o->quiet)
		selftest_print(t, stderr);
	complain("%s: must not hold a volume: hosts would destroy each other's data", o->path);
	return -EIO;
}

/*
 * On a LUN that other machines see, its target has to be believed: never without having tried.  The
 * volume will be written over the place.
 */
static int check_compare_and_write(const struct options *o, struct blkdev *dev)
{
	struct selftest t = { .env = env_posix(), .devs = { dev }, .dev_count = 2, .hosts = 1,
			      .flags = o->selftest ? 0 : SELFTEST_QUICK, .off = TEST_AT,
			      .race_ms = o->selftest ? TEST_RACE_MS : QUICK_RACE_MS };
	struct super s;
	char why[300];
	int err;

	if (!o->selftest && dev->info.caw != BLK_CAW_SCSI)
		return 0;
	/* What mkfs() is going to refuse is not written to. */
	if (mkfs_layout(&o->params, &s, why, sizeof(why)))
		return 0;
	err = mkfs_clear_reservation(dev);
	if (err) {
		complain("%s: its persistent reservations cannot be cleared: %s", o->path, strerror(-err));
		return err;
	}
	err = open_device(o, 0, &t.devs[1]);
	if (err)
		return err;
	err = try_device(o, &t);
	blkdev_close(t.devs[1]);
	return err;
}

static int format(struct options *o)
{
	struct blkdev *dev;
	struct super s;
	char why[300];
	int err;

	if (open_device(o, o->dry_run ? BLKFILE_READ_ONLY : 0, &dev))
		return -EIO;
	if (o->dry_run)		/* nothing will be written, and nothing else differs */
		dev->info.read_only = false;
	o->params.dev = dev;
	o->params.size = o->size;
	if (o->size > dev->info.size && !o->dry_run) {
		complain("%s: --size is more than the device has", o->path);
		err = -EINVAL;
	} else if (!o->dry_run && check_compare_and_write(o, dev)) {
		err = -EIO;
	} else {
		if (o->size > dev->info.size)
			dev->info.size = o->size;	/* a file would be extended */
		if (o->params.discard && !o->dry_run && !o->quiet && isatty(STDERR_FILENO))
			fprintf(stderr, "mkfs.lunfs: discarding, which may take a while…\n");
		err = o->dry_run ? mkfs_layout(&o->params, &s, why, sizeof(why)) :
				   mkfs(&o->params, &s, why, sizeof(why));
		if (err)
			complain("%s", why);
	}
	blkdev_close(dev);
	return err ? err : print_result(o, &s);
}

static int format_lun(struct options *o)
{
	int err;

	if (o->caw_local || o->sector) {
		complain("%s: --caw=local and --sector are not for iSCSI LUNs", o->path);
		return -EINVAL;
	}
	err = look(o);
	return err ? err : format(o);
}

static int format_path(struct options *o)
{
	bool made = false;
	struct stat st;
	int fd = -1, err;
	bool exists = stat(o->path, &st) == 0;

	if (!exists && (errno != ENOENT || !o->size)) {
		complain("%s: %s%s", o->path, strerror(errno), errno == ENOENT ?
			 "; --size creates a file" : "");
		return -ENOENT;
	}
	if (!exists && o->dry_run)
		return plan_new_file(o);
	if (exists && S_ISBLK(st.st_mode) && claim_device(o->path, &fd))
		return -EBUSY;
	if (exists && S_ISREG(st.st_mode) && claim_file(o->path, &st))
		return -EBUSY;
	err = exists && st.st_size + S_ISBLK(st.st_mode) > 0 ? look(o) : 0;
	if (!err && o->size && !o->dry_run)
		err = make_file(o, &made);
	if (!err)
		err = format(o);
	if (err && made)
		unlink(o->path);
	if (fd >= 0)
		close(fd);
	return err;
}

int main(int argc, char **argv)
{
	struct options o = { .params = { .env = env_posix(), .discard = true } };
	int done;

	program_begin();
	done = parse_options(&o, argc, argv);
	if (done)
		return done - 1;
	/* Without an id the volume is not bound to this machine; attaching says so. */
	if (machine_id(o.params.machine_id))
		memset(o.params.machine_id, 0, sizeof(o.params.machine_id));
	return (blkopen_is_path(o.path) ? format_path(&o) : format_lun(&o)) ? EXIT_FAILED : EXIT_OK;
}
