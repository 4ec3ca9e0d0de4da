/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the next daemon of this machine has to know of attached disks: records in a file of the
 * run directory, which the parent opened.
 *
 * Record i has two places of RECORD_SIZE bytes, written in turn: a daemon that is killed while it
 * writes leaves the other one.  Each holds a header and a JSON text, which later versions may
 * extend.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/text.h"
#include "daemon/disks.h"

#define RECORD_SIZE	(20 * 1024)	/* two paths, each byte of which may become six */
#define FRESH_OFFSET	(64 * (off_t)MIB)
#define RECORD_MAGIC	0x44544c4cu

struct record {
	uint32_t magic;
	uint32_t crc;		/* of everything behind it */
	uint64_t seq;		/* the higher one counts */
	uint32_t len;		/* of text; 0: nothing is attached */
	char	text[RECORD_SIZE - 20];
};
static_assert(sizeof(struct record) * 2 * DISKS_MAX <= FRESH_OFFSET, "records end before it");

static uint32_t record_crc(const struct record *r)
{
	return crc32c(0, &r->seq, sizeof(*r) - offsetof(struct record, seq));
}

static off_t place_of(unsigned int i, uint64_t seq)
{
	return (off_t)(2 * i + (seq & 1)) * (off_t)sizeof(struct record);
}

/* ---- writing ---- */

static json_t *claim_json(const struct disk_claim *c)
{
	return json_pack("{s:I, s:I, s:I}", "slot", (json_int_t)c->slot, "generation",
			 (json_int_t)c->generation, "sequence", (json_int_t)c->sequence);
}

static json_t *attachment_json(const struct attachment *a)
{
	const struct disk_options *o = &a->options;
	char volume[UUID_TEXT_SIZE];
	json_t *j = json_pack("{s:s, s:s, s:s, s:I, s:b, s:b, s:I, s:s}", "device", a->store->device,
			      "path", a->path, "name", a->name, "id",
			      (json_int_t)(a->disk ? disk_id(a->disk) : a->saved_id), "ro", o->read_only, "report",
			      o->enospc == DISK_ENOSPC_REPORT, "queues", (json_int_t)o->queues,
			      "serial", o->serial);

	if (!j)
		return NULL;
	json_object_set_new(j, "volume", json_string(text_format_uuid(
				a->store->fs->super.volume_id, volume)));
	json_object_set_new(j, "user", json_string(o->user));
	json_object_set_new(j, "portal", json_string(o->portal));
	json_object_set_new(j, "incoming", json_integer(o->incoming_s));
	json_object_set_new(j, "cut", json_boolean(o->cut_if_lost));
	json_object_set_new(j, "birth", json_integer((json_int_t)a->birth));
	json_object_set_new(j, "iops", json_integer((json_int_t)o->limits.iops));
	json_object_set_new(j, "shares", json_integer(o->limits.shares));
	json_object_set_new(j, "iops_burst", json_integer((json_int_t)o->limits.iops_burst));
	json_object_set_new(j, "bytes", json_integer((json_int_t)o->limits.bytes));
	json_object_set_new(j, "bytes_burst", json_integer((json_int_t)o->limits.bytes_burst));
	if (a->has_claim)
		json_object_set_new(j, "claim", claim_json(&a->claim));
	if (a->shut.generation)
		json_object_set_new(j, "shut", claim_json(&a->shut));
	if (a->next.generation)
		json_object_set_new(j, "next", claim_json(&a->next));
	if (a->ended[0])
		json_object_set_new(j, "ended", json_string(a->ended));
	return j;
}

static void record_write(struct disks *all, unsigned int i, struct record *r)
{
	r->magic = RECORD_MAGIC;
	r->seq = ++all->record_seqs[i];
	r->crc = record_crc(r);
	if (pwrite(all->state_fd, r, sizeof(*r), place_of(i, r->seq)) != sizeof(*r))
		log_warning(env_posix(), "lunfsd", "cannot write down which disks are attached: %s; "
			    "they are not served again by themselves after a crash of the daemon",
			    strerror(errno));
}

void disks_state_save(struct attachment *a)
{
	pthread_mutex_t *writing = &a->all->writing[a->record % DISKS_WRITERS];
	struct record *r = calloc(1, sizeof(*r));
	bool forgotten;
	char *text;
	json_t *j;

	/* Of two that save it the later one writes what holds then. */
	pthread_mutex_lock(writing);
	pthread_mutex_lock(&a->all->mutex);
	forgotten = a->forgotten;
	j = forgotten ? NULL : attachment_json(a);
	pthread_mutex_unlock(&a->all->mutex);
	text = j ? json_dumps(j, JSON_COMPACT) : NULL;
	json_decref(j);
	if (forgotten) {
		;	/* the record is another's, or nobody's */
	} else if (r && text && strlen(text) < sizeof(r->text)) {
		r->len = (uint32_t)strlen(text);
		memcpy(r->text, text, r->len);
		record_write(a->all, a->record, r);
	} else {
		log_warning(env_posix(), a->object, "cannot be written down: out of memory, or too "
			    "long a path; a daemon that is killed does not serve it again");
	}
	pthread_mutex_unlock(writing);
	free(text);
	free(r);
}

void disks_state_clear(struct disks *all, unsigned int i)
{
	struct record *r = calloc(1, sizeof(*r));

	pthread_mutex_lock(&all->writing[i % DISKS_WRITERS]);
	if (r)
		record_write(all, i, r);
	pthread_mutex_unlock(&all->writing[i % DISKS_WRITERS]);
	free(r);
}

/* ---- first writes ---- */

/* Behind the records, a part for each; space for it is got before, or a store could fail. */
int disks_state_map(struct disks *all, unsigned int i, struct disk_fresh **out)
{
	size_t size = ALIGN_UP(sizeof(struct disk_fresh), 4096);
	off_t off = FRESH_OFFSET + (off_t)i * (off_t)size;
	void *map;

	if (fallocate(all->state_fd, 0, off, (off_t)size))
		return -errno;
	map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, all->state_fd, off);
	if (map == MAP_FAILED)
		return -errno;
	*out = map;
	return 0;
}

void disks_state_unmap(struct disk_fresh *fresh)
{
	if (fresh)
		munmap(fresh, ALIGN_UP(sizeof(*fresh), 4096));
}

/* ---- reading ---- */

static bool record_read(struct disks *all, unsigned int i, uint64_t parity, struct record *r)
{
	return pread(all->state_fd, r, sizeof(*r), place_of(i, parity)) == sizeof(*r) &&
	       r->magic == RECORD_MAGIC && r->crc == record_crc(r) && (r->seq & 1) == parity &&
	       r->len < sizeof(r->text);
}

static uint64_t number(const json_t *o, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(o, key));
}

static bool text(const json_t *o, const char *key, char *to, size_t size)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s && snprintf(to, size, "%s", s) < (int)size;
}

static struct disk_claim claim_read(const json_t *j)
{
	return (struct disk_claim){ (uint32_t)number(j, "slot"), (uint32_t)number(j, "generation"),
				    number(j, "sequence") };
}

static bool saved_read(const json_t *j, struct disks_saved *s)
{
	const json_t *claim = json_object_get(j, "claim");

	if (!text(j, "device", s->device, sizeof(s->device)) ||
	    !text(j, "path", s->path, sizeof(s->path)) || s->path[0] != '/' ||
	    !text(j, "name", s->name, sizeof(s->name)) ||
	    !text(j, "serial", s->options.serial, sizeof(s->options.serial)))
		return false;
	if (!text(j, "volume", s->volume, sizeof(s->volume)))
		s->volume[0] = '\0';
	/* Records of before there were users have none. */
	if (!text(j, "user", s->options.user, sizeof(s->options.user)))
		s->options.user[0] = '\0';
	if (!text(j, "portal", s->options.portal, sizeof(s->options.portal)))
		s->options.portal[0] = '\0';
	s->options.incoming_s = (unsigned int)number(j, "incoming");
	s->id = number(j, "id");
	s->birth = number(j, "birth");
	s->options.cut_if_lost = json_is_true(json_object_get(j, "cut"));
	s->options.read_only = json_is_true(json_object_get(j, "ro"));
	s->options.enospc = json_is_true(json_object_get(j, "report")) ? DISK_ENOSPC_REPORT :
									 DISK_ENOSPC_PAUSE;
	s->options.queues = (unsigned int)number(j, "queues");
	s->options.limits.iops = number(j, "iops");
	s->options.limits.shares = (unsigned int)number(j, "shares");
	s->options.limits.iops_burst = number(j, "iops_burst");
	s->options.limits.bytes = number(j, "bytes");
	s->options.limits.bytes_burst = number(j, "bytes_burst");
	s->has_claim = json_is_object(claim);
	s->claim = claim_read(claim);
	/* Records of before it was kept say nothing of whose it has been since. */
	s->shut = claim_read(json_object_get(j, "shut"));
	s->next = claim_read(json_object_get(j, "next"));
	if (!text(j, "ended", s->ended, sizeof(s->ended)))
		s->ended[0] = '\0';
	return s->options.queues <= VHU_QUEUES_MAX && s->options.limits.shares <= SHARES_MAX;
}

bool disks_state_load(struct disks *all, unsigned int i, struct disks_saved *saved)
{
	struct record *r = calloc(2, sizeof(*r)), *newest = NULL;
	json_t *j = NULL;
	bool found = false;

	for (unsigned int k = 0; r && k < 2; k++)
		if (record_read(all, i, k, &r[k]) && (!newest || r[k].seq > newest->seq))
			newest = &r[k];
	memset(saved, 0, sizeof(*saved));
	saved->record = i;
	if (newest)
		all->record_seqs[i] = newest->seq;
	if (newest && newest->len)
		j = json_loadb(newest->text, newest->len, 0, NULL);
	found = j && saved_read(j, saved);
	json_decref(j);
	free(r);
	return found;
}
