/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/cmd_scan.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/text.h"
#include "fs/scan.h"
#include "tools/ctl_client.h"
#include "tools/fsck.h"
#include "tools/look.h"
#include "tools/progress.h"
#include "tools/volume_open.h"

static const char usage[] =
"usage: lunfs scan [--json] [--restore] DEVICE\n"
"\n"
"Reads all of DEVICE and tells which volumes begin where on it, by the copies of their\n"
"superblocks.  With --restore the superblock of the one that begins where DEVICE does is\n"
"written anew from a copy; fsck.lunfs does the rest.\n";

static const char *const place_names[SCAN_PLACES] = { "first", "middle", "end" };

static int fail(int status, const char *text)
{
	fprintf(stderr, "lunfs scan: %s\n", text);
	return status;
}

/* ---- what was found ---- */

static json_t *volume_json(const struct scan_volume *v)
{
	char uuid[UUID_TEXT_SIZE], label[LABEL_MAX + 1];
	json_t *copies = json_array(), *o;

	for (enum scan_place i = 0; i < SCAN_PLACES; i++)
		json_array_append_new(copies, json_pack("{ss sI ss}", "place", place_names[i], "offset",
			(json_int_t)(v->start + scan_place_addr(&v->super, i)), "state",
			scan_copy_name(v->copies[i])));
	text_format_uuid(v->super.volume_id, uuid);
	text_printable(v->super.label, LABEL_MAX, label, sizeof(label));
	o = json_pack("{ss ss sI sI so sb sb si si}", "label", label, "uuid", uuid, "offset",
		      (json_int_t)v->start, "size", (json_int_t)v->super.size, "copies", copies,
		      "sure", v->sure, "inside", v->inside, "groups_seen", (int)v->groups_seen,
		      "groups_tried", (int)v->groups_tried);
	if (v->inside)
		json_object_set_new(o, "outer_offset", json_integer((json_int_t)v->outer));
	return o;
}

static void print_volume(const struct scan_volume *v)
{
	char uuid[UUID_TEXT_SIZE], size[24], label[LABEL_MAX + 1];

	text_printable(v->super.label, LABEL_MAX, label, sizeof(label));
	printf("%s%s%s, %s, at byte %llu (sector %llu)\n", label, label[0] ? ": " : "",
	       text_format_uuid(v->super.volume_id, uuid),
	       text_format_size(v->super.size, size, sizeof(size)), (unsigned long long)v->start,
	       (unsigned long long)v->start / 512);
	printf("    copies    first %s, middle %s, end %s\n", scan_copy_name(v->copies[SCAN_FIRST]),
	       scan_copy_name(v->copies[SCAN_MIDDLE]), scan_copy_name(v->copies[SCAN_END]));
	printf("    groups    %u of %u looked at bear it out\n", v->groups_seen, v->groups_tried);
	if (v->inside)
		printf("    inside    the volume at byte %llu: a guest's disk holds it; not for repair\n",
		       (unsigned long long)v->outer);
	else if (!v->sure)
		puts("    doubtful  neither its first nor its last copy is there: a guest may have made it up");
}

static void print(const char *path, const struct scan_result *r, bool json, bool restored)
{
	json_t *list, *root;

	if (!json) {
		for (size_t i = 0; i < r->count; i++)
			print_volume(&r->volumes[i]);
		if (!r->count)
			printf("%s: no superblock of a LunFS volume, nor a copy of one\n", path);
	} else {
		list = json_array();
		for (size_t i = 0; i < r->count; i++)
			json_array_append_new(list, volume_json(&r->volumes[i]));
		root = json_pack("{ss so sI sI sb}", "device", path, "volumes", list, "unreadable",
				 (json_int_t)r->unreadable, "dropped", (json_int_t)r->dropped,
				 "restored", restored);
		json_dumpf(root, stdout, JSON_INDENT(2));
		putchar('\n');
		json_decref(root);
	}
	if (r->unreadable)
		fprintf(stderr, "lunfs scan: %s: %llu bytes cannot be read\n", path,
			(unsigned long long)r->unreadable);
	if (r->dropped)
		fprintf(stderr, "lunfs scan: %s: there are more volumes than %u; not all are told of\n",
			path, SCAN_VOLUMES_MAX);
}

/* ---- restoring ---- */

/* Whose the beginning is now, if it is a volume's at all, is not to be overwritten unasked. */
static int check_first(struct blkdev *dev, const struct super *s, char *why, size_t why_size)
{
	void *block = blkdev_alloc(BLOCK_SIZE);
	struct super now;
	int err = block ? blkdev_read(dev, SUPER_ADDR, block, BLOCK_SIZE) : -ENOMEM;

	if (!err && !super_decode(block, SUPER_ADDR, &now, NULL, 0) &&
	    memcmp(now.volume, s->volume, 16) != 0)
		err = text_refuse(-EEXIST, why, why_size, "%s: another volume begins there; if that is "
				  "a mistake, wipefs -a it first", dev->info.name);
	free(block);
	return err;
}

/* Only where readers would not find a copy by themselves: then nobody can have attached either. */
static int write_first(const char *path, const struct super *s, char *why, size_t why_size)
{
	uint8_t block[BLOCK_SIZE] BLKDEV_ALIGNED;
	unsigned int flags = (s->sector == 4096 ? BLKFILE_SECTOR_4K : 0u) |
			     (s->caw == BLK_CAW_LOCAL ? BLKFILE_CAW_LOCAL : 0u);
	struct blkdev *dev;
	int err = blkopen_is_path(path) ? blkfile_open(env_posix(), path, flags, &dev, why, why_size) :
					  blkopen(env_posix(), path, 0, &dev, why, why_size);

	if (err)
		return err;
	super_encode(s, SUPER_ADDR, block);
	err = blkdev_write(dev, SUPER_ADDR, block, BLOCK_SIZE);
	if (!err)
		err = blkdev_flush(dev);
	blkdev_close(dev);
	return err;
}

static int restore(const char *path, struct blkdev *dev, const struct super *s, char *why,
		   size_t why_size)
{
	struct slot slots[SLOT_COUNT_MAX];
	struct fsck_claim fc;
	struct super found;
	int live, err = check_first(dev, s, why, why_size);

	if (err)
		return err;
	look_at_slots(dev, s, slots);
	live = look_for_beats(dev, s, slots);
	if (live >= 0)
		return text_refuse(-EBUSY, why, why_size, "%s: host %.32s (slot %d) has the volume "
				   "attached; detach it there first", path, slots[live].host_name, live);
	if (super_find(dev, &found, NULL, 0) || memcmp(found.volume, s->volume, 16) != 0)
		err = write_first(path, s, why, why_size);
	if (!err)
		err = fsck_claim_take(path, &fc, why, why_size);
	/* The claim's mark was written to all three copies, and so is its end. */
	return err ? err : fsck_claim_release(&fc, true);
}

/* ---- the command ---- */

static void show(void *arg, uint64_t done, uint64_t total)
{
	progress_show(arg, done, total);
}

static int scan(const char *path, bool want_restore, bool json)
{
	const struct scan_volume *v;
	struct progress progress;
	struct scan_params p = { .progress = show, .arg = &progress };
	struct scan_result r;
	char why[400] = "";
	int err = volume_open(path, &p.dev, why, sizeof(why));

	if (err)
		return fail(CTL_FAILED, why);
	progress_start(&progress, "scanning", json);
	err = scan_device(&p, &r);
	progress_end(&progress);
	if (!err && want_restore) {
		err = scan_choose(&r, p.dev, &v, why, sizeof(why));
		if (!err)
			err = restore(path, p.dev, &v->super, why, sizeof(why));
	}
	print(path, &r, json, want_restore && !err);
	if (!err && want_restore && !json)
		printf("%s: superblock restored, all three copies; now fsck.lunfs %s\n", path, path);
	blkdev_close(p.dev);
	if (err)
		fail(0, why[0] ? why : strerror(-err));
	else if (!r.count)
		err = -ENOENT;
	scan_free(&r);
	return !err ? CTL_OK : err == -EBUSY ? CTL_BUSY : CTL_FAILED;
}

int scan_main(int argc, char **argv, bool json)
{
	static const struct option options[] = {
		{ "restore", no_argument, NULL, 'r' }, { "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' }, { 0 },
	};
	bool want_restore = false;
	int opt;

	optind = 0;
	while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (opt == 'h') {
			fputs(usage, stdout);
			return CTL_OK;
		}
		if (opt == '?') {
			fputs(usage, stderr);
			return CTL_USAGE;
		}
		want_restore = want_restore || opt == 'r';
		json = json || opt == 'j';
	}
	if (argc - optind != 1) {
		fputs(usage, stderr);
		return CTL_USAGE;
	}
	return scan(argv[optind], want_restore, json);
}
