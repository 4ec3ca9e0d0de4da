/* SPDX-License-Identifier: Apache-2.0 */
/* lunfs volume: whole volumes; lunfs metrics. */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <time.h>

#include "base/env.h"
#include "base/text.h"
#include "tools/cmd.h"
#include "tools/progress.h"

#define PIECES_A_SECOND	5	/* of a rate */

int cmd_volume_grow(struct cmd *c, int argc, char **argv)
{
	char ds[PATH_MAX], a[24], b[24];
	json_t *request, *result;
	uint64_t size;
	int err;

	(void)argc;
	request = json_pack("{s:s, s:s}", "cmd", "volume-grow", "ds", ctl_device_path(argv[0], ds));
	if (c->size) {
		err = cmd_parse_size("--size", c->size, &size);
		if (err) {
			json_decref(request);
			return err;
		}
		json_object_set_new(request, "size", json_integer((json_int_t)size));
	}
	err = cmd_call(c, request, &result);
	if (err || c->json)
		return err;
	if (ctl_int(result, "size") == ctl_int(result, "old_size"))
		printf("%s: nothing to grow by: it has %s, its device %s\n", argv[0],
		       cmd_size(ctl_int(result, "size"), a),
		       cmd_size(ctl_int(result, "device_size"), b));
	else
		printf("%s: grown from %s to %s\n", argv[0], cmd_size(ctl_int(result, "old_size"), a),
		       cmd_size(ctl_int(result, "size"), b));
	json_decref(result);
	return CTL_OK;
}

/* ---- reclaim ---- */

/* So long that @bytes since @start_ns are not more than @rate a second. */
static void hold_back(uint64_t start_ns, uint64_t bytes, uint64_t rate)
{
	uint64_t now, until;
	struct timespec t;

	if (!rate)
		return;
	clock_gettime(CLOCK_MONOTONIC, &t);
	now = (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
	until = start_ns + (uint64_t)((double)bytes / (double)rate * NSEC_PER_SEC);
	if (until <= now)
		return;
	t.tv_sec = (time_t)(until / NSEC_PER_SEC);
	t.tv_nsec = (long)(until % NSEC_PER_SEC);
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL))
		;
}

struct reclaimed { int64_t next, discarded, busy; };

static int reclaim(struct cmd *c, const char *ds, uint64_t rate, struct reclaimed *r)
{
	struct progress p;
	bool more = true;
	json_t *result;
	int err = CTL_OK;

	progress_start(&p, "reclaiming", c->json);
	while (more && !err) {
		json_t *request = json_pack("{s:s, s:s, s:I}", "cmd", "volume-reclaim", "ds", ds, "from",
					    (json_int_t)r->next);

		if (rate)
			json_object_set_new(request, "size", json_integer((json_int_t)
					    (rate / PIECES_A_SECOND ? rate / PIECES_A_SECOND : 1)));
		err = ctl_client_call(&c->client, request, &result);
		if (err)
			break;
		r->next = ctl_int(result, "next");
		r->discarded += ctl_int(result, "discarded");
		r->busy += ctl_int(result, "busy");
		more = ctl_bool(result, "more");
		progress_show(&p, (uint64_t)r->next, (uint64_t)ctl_int(result, "size"));
		json_decref(result);
		hold_back(p.start_ns, (uint64_t)r->discarded, rate);
	}
	progress_end(&p);
	return err;
}

int cmd_volume_reclaim(struct cmd *c, int argc, char **argv)
{
	struct reclaimed r = { 0 };
	char ds[PATH_MAX], a[24];
	uint64_t rate = 0;
	int err = c->rate ? cmd_parse_size("--rate", c->rate, &rate) : CTL_OK;

	(void)argc;
	if (!err)
		err = reclaim(c, ctl_device_path(argv[0], ds), rate, &r);
	if (err)
		return err;
	if (c->json)
		printf("{\"discarded\": %" PRId64 ", \"busy\": %" PRId64 "}\n", r.discarded, r.busy);
	else
		printf("%s: %s given back to the device\n", argv[0], cmd_size(r.discarded, a));
	if (r.busy)
		fprintf(stderr, "lunfs: %s: other hosts were using groups of %s, left out; run it again, "
			"there or here\n", argv[0], cmd_size(r.busy, a));
	return CTL_OK;
}

/* ---- metrics ---- */

int cmd_metrics(struct cmd *c, int argc, char **argv)
{
	json_t *result;
	int err;

	(void)argc;
	(void)argv;
	c->client.raw = true;	/* its lines are meant as they are */
	err = cmd_call(c, json_pack("{s:s}", "cmd", "metrics"), &result);
	if (err || c->json)
		return err;
	fputs(ctl_str(result, "text"), stdout);
	json_decref(result);
	return CTL_OK;
}
