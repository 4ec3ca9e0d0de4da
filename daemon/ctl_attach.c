/* SPDX-License-Identifier: Apache-2.0 */
/* Virtual disks by the control socket: attached, detached, listed. */
#include "daemon/ctl_disk.h"

#include <errno.h>
#include <stdio.h>

#include "base/text.h"
#include "daemon/ctl_json.h"
#include "daemon/disks.h"

static int read_options(const struct ctl_request *rq, struct disk_options *o, char *why,
			size_t why_size)
{
	json_t *options = json_object_get(rq->json, "options"), *value;
	size_t i;
	int err = 0;

	memset(o, 0, sizeof(*o));
	json_array_foreach(options, i, value) {
		err = disks_option(o, json_string_value(value), why, why_size);
		if (err)
			return err;
	}
	return err;
}

/* ---- as JSON ---- */

static void put_limits(json_t *o, const struct disk_limits *l)
{
	json_t *limits = json_object();

	put_int(limits, "iops", l->iops);
	put_int(limits, "iops_burst", l->iops_burst);
	put_int(limits, "bytes", l->bytes);
	put_int(limits, "bytes_burst", l->bytes_burst);
	put_int(limits, "shares", l->shares);
	json_object_set_new(o, "limits", limits);
}

static void put_stats(json_t *o, struct attachment *a)
{
	static const char *const names[DISK_OPS] = { "reads", "writes", "flushes", "discards" };
	json_t *counts = json_object();
	struct disk_stats st;

	disk_stats(a->disk, &st);
	put_bool(o, "open", st.open);
	put_bool(o, "paused", st.paused);
	put_bool(o, "no_space", st.no_space);
	put_bool(o, "lost", st.lost);
	for (unsigned int i = 0; i < DISK_OPS; i++)
		put_int(counts, names[i], st.ops[i]);
	put_int(counts, "bytes_read", st.bytes[DISK_READ]);
	put_int(counts, "bytes_written", st.bytes[DISK_WRITE]);
	put_int(counts, "errors", st.errors);
	put_int(counts, "in_flight", st.in_flight);
	put_int(counts, "first_writes", st.first_writes);
	put_int(counts, "misses", st.misses);
	put_int(counts, "slow", st.slow);
	put_int(counts, "pieces", st.pieces);
	put_int(counts, "throttled", st.throttled);
	put_int(counts, "share_waits", st.share_waits);
	put_int(counts, "map_bytes", st.map_bytes);
	json_object_set_new(o, "stats", counts);
}

json_t *ctl_attachment(struct attachment *a)
{
	char socket[PATH_MAX], ended[sizeof(a->ended)], holder[sizeof(a->holder)];
	json_t *o = json_object();
	bool connected = disks_connected(a);
	char handover[33];

	disks_is_handed_over(a, handover);
	pthread_mutex_lock(&a->all->mutex);
	memcpy(ended, a->ended, sizeof(ended));
	memcpy(holder, a->holder, sizeof(holder));
	pthread_mutex_unlock(&a->all->mutex);
	put_text(o, "ds", a->store->fs->super.label);
	put_text(o, "path", a->path);
	put_text(o, "socket", disks_socket(a, socket));
	put_int(o, "size", disk_blkdev(a->disk)->info.size);
	put_bool(o, "read_only", disk_blkdev(a->disk)->info.read_only);
	put_text(o, "enospc", a->options.enospc == DISK_ENOSPC_REPORT ? "report" : "pause");
	put_text(o, "serial", a->options.serial);
	put_text(o, "user", a->options.user);
	put_int(o, "birth", (int64_t)a->birth);
	put_int(o, "reactor", a->reactor);
	put_text(o, "protocol", a->options.portal[0] ? "iscsi" : "vhost-user-blk");
	put_bool(o, "polled", a->port && a->port->dev);
	put_bool(o, "connected", connected);
	put_text(o, "ended", ended);
	put_text(o, "handover", handover);
	put_bool(o, "incoming", a->options.incoming_s != 0);
	put_text(o, "holder", holder);
	put_limits(o, &a->options.limits);
	put_stats(o, a);
	return o;
}

/* ---- commands ---- */

int ctl_disk_attach(struct disks *disks, struct store *s, const struct ctl_request *rq, json_t **out,
		    char *why, size_t why_size)
{
	struct disk_options options;
	struct attachment *a;
	int err = read_options(rq, &options, why, why_size);

	if (!err)
		err = disks_attach(disks, s, rq->path, &options, &a, why, why_size);
	if (err)
		return err;
	*out = ctl_attachment(a);
	disks_put(a);
	return 0;
}

int ctl_disk_detach(struct disks *disks, struct store *s, const struct ctl_request *rq, json_t **out,
		    char *why, size_t why_size)
{
	int err = disks_detach(disks, s, rq->path, rq->force, why, why_size);

	if (!err)
		*out = json_object();
	return err;
}

int ctl_disk_handover(struct disks *disks, struct store *s, const struct ctl_request *rq, json_t **out,
		      char *why, size_t why_size)
{
	struct attachment *a = disks_find(disks, s, rq->path);
	int err;

	if (!a)
		return text_refuse(-ENOENT, why, why_size, "%.100s:%.300s is not attached; \"lunfs disk "
				   "list\" shows what is", s->fs->label, rq->path);
	err = disks_handover(a, rq->name, why, why_size);
	disks_put(a);
	if (!err)
		*out = json_object();
	return err;
}

struct disk_listing {
	json_t		*list;
	const struct store *only;
};

static void list_one(struct attachment *a, void *arg)
{
	struct disk_listing *l = arg;

	if (!l->only || l->only == a->store)
		json_array_append_new(l->list, ctl_attachment(a));
}

void ctl_disk_list(struct disks *disks, struct store *s, json_t **out)
{
	struct disk_listing l = { json_array(), s };

	disks_each(disks, list_one, &l);
	*out = json_object();
	json_object_set_new(*out, "disks", l.list);
}
