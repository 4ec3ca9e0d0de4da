/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/ctl_check.h"

#include <errno.h>

#include "base/text.h"
#include "daemon/checker.h"
#include "daemon/ctl_json.h"

#define PIECE		100u	/* findings in one reply */
#define SCRUB_SHOWN	20u	/* in a datastore's status */

static json_t *finding_json(const struct checker_finding *f)
{
	const struct check_code_info *info = check_code_info(f->code);
	json_t *o = json_object();
	char code[16];

	snprintf(code, sizeof(code), "LUN-%04u", info->number);
	put_text(o, "code", code);
	put_text(o, "name", info->name);
	put_text(o, "severity", "error");
	put_int(o, "address", f->addr);
	put_text(o, "text", f->text ? f->text : "");
	if (f->inode)
		put_int(o, "inode", f->inode);
	if (f->path)
		put_text(o, "path", f->path);
	return o;
}

int ctl_check_start(struct store *s, const struct ctl_request *rq, json_t **out, char *why,
		    size_t why_size)
{
	bool joined;
	int err = checker_start(s, rq->rate, &joined);

	if (err == -ENOTSUP)
		return text_refuse(err, why, why_size, "%.100s: attached for rescue, without locks: "
				   "fsck.lunfs -n checks it", s->fs->label);
	if (err)
		return err;
	*out = json_object();
	put_bool(*out, "joined", joined);
	return 0;
}

static void put_result(json_t *o, const struct check_online_result *r)
{
	put_int(o, "errors", r->errors);
	put_int(o, "unreadable", r->unreadable);
	put_int(o, "looked_again", r->looked_again);
	put_int(o, "unproved", r->unproved);
	put_int(o, "directories", r->directories);
	put_int(o, "files", r->files);
	put_int(o, "others", r->others);
	put_int(o, "blocks_read", r->blocks_read);
}

int ctl_check_status(struct store *s, const struct ctl_request *rq, json_t **out, char *why,
		     size_t why_size)
{
	static const char *const states[] = { "never", "running", "done", "failed" };
	const struct checking *k = &s->checks->check;
	json_t *list = json_array();
	uint64_t i;

	checker_asked(s);
	pthread_mutex_lock(&s->checks->mutex);
	if (k->state == CHECKER_FAILED) {
		int err = k->err;

		pthread_mutex_unlock(&s->checks->mutex);
		json_decref(list);
		return text_refuse(err, why, why_size, "%.100s: the check was not completed: %s",
				   s->fs->label, err == -ECANCELED ? "the datastore is being detached" :
				   strerror(-err));
	}
	*out = json_object();
	put_text(*out, "state", states[k->state]);
	put_text(*out, "phase", k->phase ? k->phase : "");
	put_int(*out, "done", k->done);
	put_int(*out, "total", k->total);
	for (i = rq->from; i < k->count && i - rq->from < PIECE; i++)
		json_array_append_new(list, finding_json(&k->findings[i]));
	put_int(*out, "next", i < k->count ? i : k->count);
	put_bool(*out, "more", i < k->count);
	if (k->state == CHECKER_DONE)
		put_result(*out, &k->result);
	pthread_mutex_unlock(&s->checks->mutex);
	json_object_set_new(*out, "findings", list);
	put_text(*out, "label", s->fs->super.label);
	put_uuid(*out, "uuid", s->fs->super.volume_id);
	return 0;
}

void put_scrub(json_t *o, struct store *s)
{
	const struct checking *k = &s->checks->scrub;
	json_t *scrub = json_object(), *list = json_array();

	pthread_mutex_lock(&s->checks->mutex);
	put_int(scrub, "rate", k->state == CHECKER_RUNNING ? k->rate : 0);
	if (k->state == CHECKER_RUNNING) {
		put_int(scrub, "hosts", k->hosts);
		put_text(scrub, "phase", k->phase);
		put_int(scrub, "done", k->done);
		put_int(scrub, "total", k->total);
	}
	put_int(scrub, "passes", k->passes);
	if (k->passes) {
		put_int(scrub, "last_pass", k->passed_ns / NSEC_PER_SEC);
		put_int(scrub, "unproved", k->result.unproved);
	}
	put_int(scrub, "bad", k->count);
	for (unsigned int i = 0; i < k->count && i < SCRUB_SHOWN; i++)
		json_array_append_new(list, finding_json(&k->findings[i]));
	pthread_mutex_unlock(&s->checks->mutex);
	json_object_set_new(scrub, "findings", list);
	json_object_set_new(o, "scrub", scrub);
}
