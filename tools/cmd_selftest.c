/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/cmd_selftest.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/text.h"
#include "lockd/lockd.h"
#include "tools/look.h"
#include "tools/selftest/report.h"
#include "tools/volume_open.h"

#define EDGE		(4 * MIB)	/* at either end of an empty LUN: reads zeros */
#define RACE_MS		3000u
#define WAIT_MS		120000u
#define SECONDS_MAX	3600u

enum { EXIT_OK, EXIT_FAILED, EXIT_USAGE };

static const char usage[] =
"usage: lunfs selftest [--hosts N] [--offset OFFSET] [--seconds S] [--force] [--json]\n"
"                      DEVICE...\n"
"\n"
"Tries whether a LUN keeps what LunFS rests on: atomic compare-and-write, reservations that\n"
"fence, flush, unmap.  Several DEVICEs are paths to the same LUN.\n"
"      --hosts N        so many hosts run this at once, and meet on the LUN (1)\n"
"      --offset OFFSET  where the 2 MiB are that are overwritten (near the end)\n"
"      --seconds S      of each race (3)\n"
"  -f, --force          overwrite data there, and clear the LUN's reservations\n"
"      --json           results as JSON\n"
"Exit status: 0 it keeps all, 1 it does not, or could not be tried, 2 wrong usage.\n";

struct request {
	char	**names;
	unsigned int name_count;
	unsigned int hosts;
	uint64_t off;
	bool	has_off, force, json;
	uint32_t race_ms;
	/* what was found of it */
	unsigned int flags;	/* to open it with */
	bool	is_volume;
	uint8_t	*kept;		/* of a volume's scratch block, to be put back */
	uint64_t keys[SELFTEST_PLAYERS_MAX];	/* registered by us; 0 */
};

__attribute__((format(printf, 1, 2)))
static int fail(const char *fmt, ...)
{
	va_list ap;

	fputs("lunfs: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return EXIT_FAILED;
}

/* ---- options ---- */

static int parse_count(const char *option, const char *text, unsigned int max, unsigned int *out)
{
	char *end;
	unsigned long v = strtoul(text, &end, 10);

	if (*end || end == text || *text == '-' || !v || v > max) {
		fail("%s: \"%s\" is not a number from 1 to %u", option, text, max);
		return EXIT_USAGE;
	}
	*out = (unsigned int)v;
	return EXIT_OK;
}

static int parse_offset(struct request *rq, const char *text)
{
	rq->has_off = true;
	if ((!strcmp(text, "0") || !text_parse_size(text, &rq->off)) && rq->off % MIB == 0)
		return EXIT_OK;
	fail("--offset: \"%s\" is not a multiple of 1 MiB", text);
	return EXIT_USAGE;
}

static int parse_option(struct request *rq, int c)
{
	unsigned int seconds;
	int err;

	switch (c) {
	case 'n':
		return parse_count("--hosts", optarg, SELFTEST_HOSTS_MAX, &rq->hosts);
	case 'o':
		return parse_offset(rq, optarg);
	case 's':
		err = parse_count("--seconds", optarg, SECONDS_MAX, &seconds);
		rq->race_ms = err ? 0 : seconds * 1000;
		return err;
	case 'f':
		rq->force = true;
		return EXIT_OK;
	case 'j':
		rq->json = true;
		return EXIT_OK;
	default:
		fputs(usage, stderr);
		return EXIT_USAGE;
	}
}

static int parse(struct request *rq, int argc, char **argv)
{
	static const struct option options[] = {
		{ "hosts", required_argument, NULL, 'n' }, { "offset", required_argument, NULL, 'o' },
		{ "seconds", required_argument, NULL, 's' }, { "force", no_argument, NULL, 'f' },
		{ "json", no_argument, NULL, 'j' }, { "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int c, err = EXIT_OK;

	optind = 0;
	while (!err && (c = getopt_long(argc, argv, "f", options, NULL)) != -1) {
		if (c == 'h') {
			fputs(usage, stdout);
			exit(EXIT_OK);
		}
		err = parse_option(rq, c);
	}
	rq->names = argv + optind;
	rq->name_count = (unsigned int)(argc - optind);
	if (!err && (!rq->name_count || rq->name_count > SELFTEST_PLAYERS_MAX)) {
		fputs(usage, stderr);
		err = EXIT_USAGE;
	}
	return err;
}

/* ---- what is there ---- */

/* A volume has a block for this; nothing else of it is touched, whoever uses it. */
static int plan_volume(struct request *rq, const struct super *s, struct selftest *t)
{
	if (rq->hosts > 1 || rq->has_off)
		return fail("%s: holds a LunFS volume, \"%s\": there its compare-and-write can be tried, by "
			    "one host, and nothing else; leave --hosts and --offset away",
			    rq->names[0], s->label);
	rq->is_volume = true;
	t->flags |= SELFTEST_CAW_ONLY;
	t->off = s->scratch_addr;
	rq->flags |= s->caw == BLK_CAW_LOCAL ? BLKFILE_CAW_LOCAL : 0;
	rq->flags |= s->sector == 4096 ? BLKFILE_SECTOR_4K : 0;
	return EXIT_OK;
}

/* Who is registered or reserves it uses it. */
static int look_at_reservations(const struct request *rq, struct blkdev *dev)
{
	struct blkdev_pr_state state = { 0 };
	int err;

	if (!dev->info.reservations || rq->force)
		return EXIT_OK;
	err = dev->ops->pr_read(dev, &state);
	if (err)
		return fail("%s: its reservations cannot be read: %s", rq->names[0], strerror(-err));
	if (state.key_count && state.keys[0] != fence_tool_key(1) && state.keys[0] != fence_tool_key(2))
		return fail("%s: %u hosts are registered on it (key 0x%llx): they may be using it; "
			    "--force clears that", rq->names[0], state.key_count,
			    (unsigned long long)state.keys[0]);
	return EXIT_OK;
}

static int look_for_data(const struct request *rq, struct blkdev *dev, const struct selftest *t)
{
	uint64_t edge = dev->info.size / 2 < EDGE ? dev->info.size / 2 : EDGE;
	char what[LOOK_WHAT_SIZE];
	int zeros = 1, found = look_at_ends(dev, what, sizeof(what));

	if (!found)
		zeros = look_for_zeros(dev, 0, edge);
	/* Other hosts may be on the area already; they looked when they came. */
	if (!found && zeros == 1 && rq->hosts == 1)
		zeros = look_for_zeros(dev, t->off, SELFTEST_AREA);
	if (found < 0 || zeros < 0)
		return fail("%s: cannot be read to see what it holds: %s", rq->names[0],
			    strerror(found < 0 ? -found : -zeros));
	if (!found && zeros)
		return EXIT_OK;
	if (rq->force && rq->has_off)
		return EXIT_OK;
	return fail("%s: holds %s; to overwrite 2 MiB of it, say --force and with --offset where",
		    rq->names[0], found ? what : "data");
}

static int plan_area(struct request *rq, struct blkdev *dev, struct selftest *t)
{
	uint64_t size = dev->info.size;
	int err;

	if (size < 2 * SELFTEST_AREA)
		return fail("%s: is too small: 4 MiB at least", rq->names[0]);
	t->off = rq->has_off ? rq->off : ALIGN_DOWN(size - SELFTEST_AREA, MIB);
	if (t->off > size - SELFTEST_AREA)
		return fail("%s: --offset: the area would end behind the LUN", rq->names[0]);
	err = look_at_reservations(rq, dev);
	return err ? err : look_for_data(rq, dev, t);
}

/* Before anything is opened to be written. */
static int plan(struct request *rq, struct selftest *t)
{
	struct blkdev *dev;
	char why[300];
	struct super s;
	int err = volume_open(rq->names[0], &dev, why, sizeof(why));

	if (err)
		return fail("%s", why);
	if (!super_find(dev, &s, NULL, 0) && s.size <= dev->info.size)
		err = plan_volume(rq, &s, t);
	else
		err = plan_area(rq, dev, t);
	blkdev_close(dev);
	return err;
}

/* ---- the handles ---- */

static int open_one(const struct request *rq, const char *name, struct selftest *t)
{
	struct blkdev *first = t->devs[0], *dev;
	char why[300];

	if (blkopen(t->env, name, rq->flags, &dev, why, sizeof(why)))
		return fail("%s", why);
	t->devs[t->dev_count++] = dev;
	if (dev->info.read_only)
		return fail("%s: is read-only: nothing can be tried on it", name);
	if (dev->info.caw == BLK_CAW_NONE)
		return fail("%s: no compare-and-write here, which hosts need to share it", name);
	if (first && (first->info.size != dev->info.size || !dev->info.identity[0] ||
		      strcmp(first->info.identity, dev->info.identity)))
		return fail("%s and %s are not known to be the same LUN (\"%s\", \"%s\")",
			    rq->names[0], name, first->info.identity, dev->info.identity);
	return EXIT_OK;
}

static int open_all(const struct request *rq, struct selftest *t)
{
	int err = EXIT_OK;

	for (unsigned int i = 0; i < rq->name_count && !err; i++)
		err = open_one(rq, rq->names[i], t);
	/* One host needs two to race; each handle has a session of its own. */
	if (!err && t->dev_count == 1 && rq->hosts == 1)
		err = open_one(rq, rq->names[0], t);
	return err;
}

/* A reserved volume: a key of our own beside its hosts', which means nothing to them. */
static void register_on_volume(struct request *rq, struct selftest *t)
{
	struct blkdev_pr_state state = { 0 };

	if (!t->devs[0]->info.reservations || t->devs[0]->ops->pr_read(t->devs[0], &state) ||
	    !state.key_count)
		return;
	for (unsigned int i = 0; i < t->dev_count; i++) {
		uint32_t nonce;
		uint64_t key;

		env_random(t->env, &nonce, sizeof(nonce));
		key = fence_tool_key(nonce);
		/* Refused where this machine's lunfsd is registered by the same path: that will do. */
		if (!t->devs[i]->ops->pr_register(t->devs[i], 0, key))
			rq->keys[i] = key;
	}
}

static int begin_volume(struct request *rq, struct selftest *t)
{
	int err;

	if (!rq->is_volume)
		return EXIT_OK;
	rq->kept = blkdev_alloc(SELFTEST_CAW_AREA);
	err = rq->kept ? blkdev_read(t->devs[0], t->off, rq->kept, SELFTEST_CAW_AREA) : -ENOMEM;
	if (err)
		return fail("%s: its scratch block cannot be read: %s", rq->names[0], strerror(-err));
	register_on_volume(rq, t);
	return EXIT_OK;
}

static int end_volume(struct request *rq, struct selftest *t)
{
	int err = rq->kept ? blkdev_write(t->devs[0], t->off, rq->kept, SELFTEST_CAW_AREA) : 0;

	for (unsigned int i = 0; i < t->dev_count; i++)
		if (rq->keys[i])
			t->devs[i]->ops->pr_register(t->devs[i], rq->keys[i], 0);
	free(rq->kept);
	rq->kept = NULL;
	return err ? fail("%s: its scratch block cannot be put back: %s", rq->names[0],
			  strerror(-err)) : EXIT_OK;
}

/* ---- results ---- */

static void show_progress(void *arg, const char *what)
{
	const struct request *rq = arg;

	if (!rq->json && isatty(STDERR_FILENO))
		fprintf(stderr, "lunfs: %s…\n", what);
}

static int print(const struct request *rq, const struct selftest *t)
{
	json_t *root;

	if (!rq->json) {
		printf("%s: %u handles, %u host%s\n", rq->names[0], t->dev_count, t->hosts,
		       t->hosts > 1 ? "s" : "");
		selftest_print(t, stdout);
		puts(selftest_failed(t) ? "It must not be used for LunFS." :
		     "Nothing was found that LunFS could not rest on.");
	} else {
		root = json_pack("{ss sI si si sb so}", "device", rq->names[0], "offset",
				 (json_int_t)t->off, "handles", (int)t->dev_count, "hosts",
				 (int)t->hosts, "failed", selftest_failed(t), "properties",
				 selftest_json(t));
		json_dumpf(root, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(root);
	}
	if (fflush(stdout))
		return fail("writing the result failed");
	return selftest_failed(t) ? EXIT_FAILED : EXIT_OK;
}

static int run(struct request *rq, struct selftest *t)
{
	char why[300];
	int put_back, err = begin_volume(rq, t);

	if (err)
		return err;
	if (selftest_run(t, why, sizeof(why)))
		err = fail("%s", why);
	put_back = end_volume(rq, t);
	if (!err)
		err = print(rq, t);
	return err ? err : put_back;
}

int selftest_main(int argc, char **argv, bool json)
{
	struct request rq = { .hosts = 1, .race_ms = RACE_MS, .json = json };
	struct selftest t = { .env = env_posix(), .wait_ms = WAIT_MS, .progress = show_progress,
			      .arg = &rq };
	int err = parse(&rq, argc, argv);

	if (err)
		return err;
	t.hosts = rq.hosts;
	t.race_ms = rq.race_ms;
	err = plan(&rq, &t);
	if (!err)
		err = open_all(&rq, &t);
	if (!err)
		err = run(&rq, &t);
	for (unsigned int i = 0; i < t.dev_count; i++)
		blkdev_close(t.devs[i]);
	return err;
}
