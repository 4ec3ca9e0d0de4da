/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/checker.h"
#include "fs/grow.h"

struct store_sample {
	struct store	*store;
	char		labels[400];
	bool		has_lockd, has_space;
	uint64_t	scrub_passes, scrub_bad;
	double		scrub_passed;	/* seconds since 1970; 0: never */
	struct lockd_status lockd;
	struct statvfs	space;
};

struct disk_sample {
	char		labels[2 * PATH_MAX + 300];
	unsigned int	reactor, shares;
	bool		connected;
	uint64_t	size;
	struct disk_stats stats;
};

struct samples {
	FILE		*out;
	struct store_sample *stores;
	unsigned int	store_count;
	struct disk_sample *disks;
	unsigned int	disk_count;
	struct disks	*all;
};

/* ---- labels ---- */

/* Names are other people's: \, " and line ends are escaped, the rest of what is no text is ?. */
static char *append_label(char *at, const char *end, const char *name, const char *value)
{
	at += snprintf(at, (size_t)(end - at), "%s=\"", name);
	for (; *value && end - at > 8; value++) {
		if (*value == '\\' || *value == '"')
			*at++ = '\\';
		*at++ = (unsigned char)*value < ' ' || *value == 127 ? '?' : *value;
	}
	return at + snprintf(at, (size_t)(end - at), "\"");
}

/* ---- what there is ---- */

static void sample_scrub(struct store_sample *x)
{
	struct store_checks *c = x->store->checks;

	pthread_mutex_lock(&c->mutex);
	x->scrub_passes = c->scrub.passes;
	x->scrub_bad = c->scrub.count;
	x->scrub_passed = (double)c->scrub.passed_ns / 1e9;
	pthread_mutex_unlock(&c->mutex);
}

static void sample_stores(struct samples *m, struct stores *all)
{
	struct store *s, *tmp;

	pthread_mutex_lock(&all->mutex);
	list_for_each(s, tmp, &all->list, node) {
		if (s->state != STORE_ATTACHED || m->store_count == STORES_MAX)
			continue;
		s->refs++;
		m->stores[m->store_count++].store = s;
	}
	pthread_mutex_unlock(&all->mutex);
	for (unsigned int i = 0; i < m->store_count; i++) {
		struct store_sample *x = &m->stores[i];

		append_label(x->labels, x->labels + sizeof(x->labels), "datastore",
			     x->store->fs->label);
		x->has_lockd = x->store->fs->lockd;
		if (x->has_lockd)
			lockd_status(x->store->fs->lockd, &x->lockd);
		sample_scrub(x);
		/* It waits for the lease; who asks wants to hear now that there is none. */
		x->has_space = (!x->has_lockd || x->lockd.lease_valid) &&
			       !fs_statfs(x->store->fs, &x->space);
	}
}

static void sample_disk(struct attachment *a, void *arg)
{
	struct samples *m = arg;
	struct disk_sample *d;
	char *at, *end;

	if (m->disk_count == DISKS_MAX)
		return;
	d = &m->disks[m->disk_count++];
	at = d->labels;
	end = at + sizeof(d->labels);
	at = append_label(at, end, "datastore", a->store->fs->label);
	*at++ = ',';
	append_label(at, end, "disk", a->path);
	d->reactor = a->reactor;
	d->shares = a->options.limits.shares;
	d->size = blkdev_size(disk_blkdev(a->disk));
	d->connected = disks_connected(a);
	disk_stats(a->disk, &d->stats);
}

/* ---- families ---- */

static void family(struct samples *m, const char *name, const char *type, const char *help)
{
	fprintf(m->out, "# HELP lunfs_%s %s\n# TYPE lunfs_%s %s\n", name, help, name, type);
}

/* Each: a name, its type, what it says, and a value @v of sample @x. */
#define STORE_FAMILY(name, type, help, has, v) do {					\
	family(m, name, type, help);							\
	for (unsigned int i = 0; i < m->store_count; i++) {				\
		const struct store_sample *x = &m->stores[i];				\
											\
		if (has)								\
			fprintf(m->out, "lunfs_" name "{%s} %.17g\n", x->labels, (double)(v)); \
	}										\
} while (0)

#define DISK_FAMILY(name, type, help, v) do {						\
	family(m, name, type, help);							\
	for (unsigned int i = 0; i < m->disk_count; i++) {				\
		const struct disk_sample *x = &m->disks[i];				\
											\
		fprintf(m->out, "lunfs_" name "{%s} %.17g\n", x->labels, (double)(v));	\
	}										\
} while (0)

static void put_stores(struct samples *m)
{
	STORE_FAMILY("datastore_lost", "gauge", "1: this host has lost its slot there.", true,
		     fs_is_lost(x->store->fs));
	STORE_FAMILY("datastore_size_bytes", "gauge", "Bytes of the volume.", true,
		     super_size(&x->store->fs->super));
	STORE_FAMILY("datastore_free_bytes", "gauge", "Bytes that files can have.", x->has_space,
		     (double)x->space.f_bavail * (double)x->space.f_frsize);
	STORE_FAMILY("lease_valid", "gauge", "1: I/O may be issued.", x->has_lockd,
		     x->lockd.lease_valid);
	STORE_FAMILY("lease_age_seconds", "gauge", "Since the last heartbeat was issued that "
		     "succeeded.", x->has_lockd, (double)x->lockd.lease_age_ms / 1000);
	STORE_FAMILY("lease_seconds", "gauge", "Life of a lease.", x->has_lockd,
		     (double)x->lockd.lease_ms / 1000);
	STORE_FAMILY("stalls_total", "counter", "Requests that had to wait for the lease.",
		     x->has_lockd, x->lockd.stalls);
	STORE_FAMILY("takeovers_total", "counter", "Slots of dead hosts recovered by this one.",
		     x->has_lockd, x->lockd.takeovers);
	STORE_FAMILY("caw_retries_total", "counter", "Compare-and-writes tried again.",
		     x->has_lockd, x->lockd.caw_retries);
	STORE_FAMILY("caw_unclear_total", "counter", "Compare-and-writes whose outcome had to be "
		     "read back.", x->has_lockd, x->lockd.caw_unclear);
	STORE_FAMILY("locks_cached", "gauge", "Locks that this host has.", x->has_lockd,
		     x->lockd.locks_cached);
	STORE_FAMILY("lock_acquires_total", "counter", "Locks taken on the device.", x->has_lockd,
		     x->lockd.lock_acquires);
	STORE_FAMILY("lock_releases_total", "counter", "Locks given up.", x->has_lockd,
		     x->lockd.lock_releases);
	STORE_FAMILY("scrub_passes_total", "counter", "Times that all metadata was read and found "
		     "good or bad.", x->has_lockd, x->scrub_passes);
	STORE_FAMILY("scrub_last_pass_seconds", "gauge", "When the last one ended, since 1970; 0: "
		     "never.", x->has_lockd, x->scrub_passed);
	STORE_FAMILY("scrub_bad", "gauge", "Findings of damage that stand.", x->has_lockd,
		     x->scrub_bad);
	STORE_FAMILY("lock_waits_total", "counter", "Locks that another host had to hand over.",
		     x->has_lockd, x->lockd.lock_waits);
}

static const char *const ops[DISK_OPS] = { "read", "write", "flush", "discard" };

static void put_by_op(struct samples *m, const char *name, const char *help, bool bytes)
{
	family(m, name, "counter", help);
	for (unsigned int i = 0; i < m->disk_count; i++)
		for (unsigned int op = 0; op < DISK_OPS; op++)
			fprintf(m->out, "lunfs_%s{%s,op=\"%s\"} %" PRIu64 "\n", name,
				m->disks[i].labels, ops[op], bytes ? m->disks[i].stats.bytes[op] :
				m->disks[i].stats.ops[op]);
}

/* Bucket i of the counters is below 1 << (i + 10) ns, the last is all else. */
static void put_histogram(struct samples *m, const struct disk_sample *d, unsigned int op)
{
	const uint64_t *latency = d->stats.latency[op];
	uint64_t count = 0;

	for (unsigned int i = 0; i < DISK_LATENCIES; i++) {
		count += latency[i];
		if (i + 1 < DISK_LATENCIES)
			fprintf(m->out, "lunfs_disk_latency_seconds_bucket{%s,op=\"%s\",le=\"%.9g\"} %"
				PRIu64 "\n", d->labels, ops[op], (double)(1ULL << (i + 10)) / 1e9, count);
	}
	fprintf(m->out, "lunfs_disk_latency_seconds_bucket{%s,op=\"%s\",le=\"+Inf\"} %" PRIu64 "\n",
		d->labels, ops[op], count);
	fprintf(m->out, "lunfs_disk_latency_seconds_sum{%s,op=\"%s\"} %.17g\n", d->labels, ops[op],
		(double)d->stats.latency_ns[op] / 1e9);
	fprintf(m->out, "lunfs_disk_latency_seconds_count{%s,op=\"%s\"} %" PRIu64 "\n", d->labels,
		ops[op], count);
}

static void put_disks(struct samples *m)
{
	DISK_FAMILY("disk_size_bytes", "gauge", "Bytes of an attached disk.", x->size);
	DISK_FAMILY("disk_connected", "gauge", "1: a front end is there.", x->connected);
	DISK_FAMILY("disk_open", "gauge", "1: its lock is this host's.", x->stats.open);
	DISK_FAMILY("disk_paused", "gauge", "1: requests wait for a change of the map.",
		    x->stats.paused);
	DISK_FAMILY("disk_no_space", "gauge", "1: requests wait for space.", x->stats.no_space);
	DISK_FAMILY("disk_in_flight", "gauge", "Requests under way.", x->stats.in_flight);
	DISK_FAMILY("disk_errors_total", "counter", "Requests that failed.", x->stats.errors);
	DISK_FAMILY("disk_throttled_total", "counter", "Requests that waited for a limit.",
		    x->stats.throttled);
	DISK_FAMILY("disk_shares", "gauge", "Its weight where disks compete; 0: nothing is said.",
		    x->shares);
	DISK_FAMILY("disk_share_waits_total", "counter", "Requests, or pieces, that waited for others' "
		    "shares.", x->stats.share_waits);
	DISK_FAMILY("disk_first_writes_total", "counter", "Requests that wrote what had not been "
		    "written.", x->stats.first_writes);
	DISK_FAMILY("disk_map_misses_total", "counter", "Misses of the map's cache.",
		    x->stats.misses);
	DISK_FAMILY("disk_map_bytes", "gauge", "Memory of the map's cache.", x->stats.map_bytes);
	DISK_FAMILY("disk_slow_total", "counter", "Requests, or parts, that went to a worker "
		    "thread.", x->stats.slow);
	put_by_op(m, "disk_requests_total", "Requests of front ends that have ended.", false);
	put_by_op(m, "disk_bytes_total", "Bytes of these.", true);
	family(m, "disk_latency_seconds", "histogram", "From a request's arrival to its answer.");
	for (unsigned int i = 0; i < m->disk_count; i++)
		for (unsigned int op = 0; op < DISK_OPS; op++)
			put_histogram(m, &m->disks[i], op);
}

static void put_reactors(struct samples *m)
{
	static const struct { const char *name, *type, *help; size_t off; } values[] = {
		{ "reactor_rounds_total", "counter", "Rounds of a reactor.",
		  offsetof(struct reactor_stats, rounds) },
		{ "reactor_sleeps_total", "counter", "Times that it went to sleep.",
		  offsetof(struct reactor_stats, sleeps) },
		{ "reactor_wakes_total", "counter", "Times that another thread had to wake it.",
		  offsetof(struct reactor_stats, wakes) },
	};

	for (size_t v = 0; v < ARRAY_SIZE(values); v++) {
		family(m, values[v].name, values[v].type, values[v].help);
		for (unsigned int i = 0; i < m->all->reactor_count; i++) {
			struct reactor_stats st;
			uint64_t value;

			reactor_stats(m->all->reactors[i], &st);
			memcpy(&value, (char *)&st + values[v].off, sizeof(value));
			fprintf(m->out, "lunfs_%s{reactor=\"%u\"} %" PRIu64 "\n", values[v].name, i,
				value);
		}
	}
}

char *metrics_text(struct stores *stores, struct disks *disks)
{
	struct samples m = { .all = disks };
	char *text = NULL;
	size_t size = 0;
	bool failed;

	m.stores = calloc(STORES_MAX, sizeof(*m.stores));
	m.disks = calloc(DISKS_MAX, sizeof(*m.disks));
	m.out = open_memstream(&text, &size);
	failed = !m.stores || !m.disks || !m.out;
	if (!failed) {
		sample_stores(&m, stores);
		if (disks)
			disks_each(disks, sample_disk, &m);
		family(&m, "info", "gauge", "Version of the daemon.");
		fprintf(m.out, "lunfs_info{version=\"%s\"} 1\n", LUNFS_VERSION);
		put_stores(&m);
		put_disks(&m);
		if (disks)
			put_reactors(&m);
		for (unsigned int i = 0; i < m.store_count; i++)
			store_put(m.stores[i].store);
	}
	if (m.out && fclose(m.out))
		failed = true;
	free(m.disks);
	free(m.stores);
	if (!failed)
		return text;
	free(text);
	return NULL;
}
