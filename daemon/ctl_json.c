/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/ctl_json.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/text.h"
#include "daemon/ctl.h"

static __thread bool ran_out;

static void *get_memory(size_t size)
{
	void *p = malloc(size);

	if (!p)
		ran_out = true;
	return p;
}

static void watch_memory(void)
{
	json_set_alloc_funcs(get_memory, free);
}

void ctl_json_begin(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, watch_memory);
	ran_out = false;
}

bool ctl_json_is_whole(void)
{
	return !ran_out;
}

json_t *ctl_text(const char *s)
{
	json_t *text = json_string(s);
	char *copy;

	if (text)
		return text;
	copy = get_memory(strlen(s) + 1);
	if (!copy)
		return NULL;
	strcpy(copy, s);
	for (char *p = copy; *p; p++)
		if ((unsigned char)*p >= 0x80)
			*p = '?';
	text = json_string(copy);
	free(copy);
	return text;
}

void put_text(json_t *o, const char *key, const char *value)
{
	json_object_set_new(o, key, ctl_text(value));
}

void put_int(json_t *o, const char *key, uint64_t value)
{
	json_object_set_new(o, key, value > INT64_MAX ? json_null() : json_integer((json_int_t)value));
}

void put_bool(json_t *o, const char *key, bool value)
{
	json_object_set_new(o, key, json_boolean(value));
}

void put_uuid(json_t *o, const char *key, const uint8_t uuid[16])
{
	char text[UUID_TEXT_SIZE];

	put_text(o, key, text_format_uuid(uuid, text));
}

const char *type_name(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:	return "file";
	case S_IFDIR:	return "directory";
	case S_IFLNK:	return "symlink";
	case S_IFCHR:	return "character device";
	case S_IFBLK:	return "block device";
	case S_IFIFO:	return "fifo";
	case S_IFSOCK:	return "socket";
	default:	return "unknown";
	}
}

void put_lockd(json_t *o, struct lockd *ld)
{
	struct lockd_status st;

	lockd_status(ld, &st);
	put_int(o, "slot", st.slot);
	put_int(o, "generation", st.generation);
	put_text(o, "fencing", fence_rung_name(st.rung));
	put_bool(o, "lease_valid", st.lease_valid);
	put_int(o, "lease_age_ms", st.lease_age_ms);
	put_int(o, "lease_ms", st.lease_ms);
	put_int(o, "stalls", st.stalls);
	put_int(o, "takeovers", st.takeovers);
	put_int(o, "caw_retries", st.caw_retries);
	put_int(o, "caw_unclear", st.caw_unclear);
	put_int(o, "locks_cached", st.locks_cached);
	put_int(o, "lock_acquires", st.lock_acquires);
	put_int(o, "lock_releases", st.lock_releases);
	put_int(o, "lock_waits", st.lock_waits);
}

/* ---- reservation keys against slots ---- */

static void put_key(json_t *o, const char *name, uint64_t key)
{
	char text[24];

	snprintf(text, sizeof(text), "0x%016llx", (unsigned long long)key);
	put_text(o, name, text);
}

__attribute__((format(printf, 2, 3)))
static void add_difference(json_t *list, const char *fmt, ...)
{
	char text[200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	json_array_append_new(list, ctl_text(text));
}

static bool key_is_registered(const struct lockd_reservation *r, uint64_t key)
{
	for (unsigned int i = 0; i < r->key_count; i++)
		if (r->keys[i] == key)
			return true;
	return false;
}

static const struct lockd_peer *key_owner(const struct lockd_peer *peers, uint32_t count,
					  uint64_t key)
{
	for (uint32_t i = 0; i < count; i++)
		if (peers[i].valid && peers[i].slot.state != SLOT_FREE && peers[i].slot.key == key)
			return &peers[i];
	return NULL;
}

static json_t *keys_json(const struct lockd_reservation *r, const struct lockd_peer *peers,
			 uint32_t count, json_t *differs)
{
	json_t *list = json_array();

	for (unsigned int i = 0; i < r->key_count; i++) {
		const struct lockd_peer *p = key_owner(peers, count, r->keys[i]);
		json_t *o = json_object();

		put_key(o, "key", r->keys[i]);
		if (p) {
			put_int(o, "slot", p->slot.index);
			put_text(o, "host_name", p->slot.host_name);
		} else {
			add_difference(differs, "key 0x%016llx belongs to no slot: a host that is just "
				       "joining or leaving, or another program's",
				       (unsigned long long)r->keys[i]);
		}
		json_array_append_new(list, o);
	}
	return list;
}

json_t *reservation_json(const struct lockd_reservation *r, const struct lockd_peer *peers,
			 uint32_t count)
{
	json_t *o = json_object(), *differs = json_array();

	put_key(o, "own_key", r->own_key);
	if (r->err) {
		add_difference(differs, "cannot be read: %s", strerror(-r->err));
		json_object_set_new(o, "differs", differs);
		return o;
	}
	put_bool(o, "held", r->held);
	json_object_set_new(o, "keys", keys_json(r, peers, count, differs));
	if (!r->held)
		add_difference(differs, "the reservation is not held: no host is kept from writing");
	for (uint32_t i = 0; i < count; i++) {
		const struct slot *s = &peers[i].slot;

		if (peers[i].valid && s->state == SLOT_LIVE && !key_is_registered(r, s->key))
			add_difference(differs, "slot %u (%.32s) is live, but its key is not registered",
				       s->index, s->host_name);
	}
	json_object_set_new(o, "differs", differs);
	return o;
}

void put_attr(json_t *o, const struct fs_attr *attr)
{
	put_text(o, "type", type_name(attr->mode));
	put_int(o, "inode", attr->ino);
	put_int(o, "mode", attr->mode & 07777);
	put_int(o, "uid", attr->uid);
	put_int(o, "gid", attr->gid);
	put_int(o, "nlink", attr->nlink);
	put_int(o, "size", attr->size);
	put_int(o, "allocated", attr->blocks * BLOCK_SIZE);
	json_object_set_new(o, "mtime", json_integer(attr->mtime_ns / (int64_t)NSEC_PER_SEC));
}

json_t *peers_json(const struct lockd_peer *peers, uint32_t count)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < count; i++) {
		const struct lockd_peer *p = &peers[i];
		json_t *o;

		if (p->valid && p->slot.state == SLOT_FREE)
			continue;
		o = json_object();
		put_int(o, "slot", i);
		put_bool(o, "valid", p->valid);
		json_array_append_new(list, o);
		if (!p->valid)
			continue;
		put_text(o, "host_name", p->slot.host_name);
		put_uuid(o, "host_id", p->slot.host_id);
		put_text(o, "state", slot_state_name(p->slot.state));
		put_bool(o, "self", p->self);
		put_int(o, "generation", p->slot.generation);
		put_int(o, "pid", p->slot.pid);
		put_text(o, "software", p->slot.software);
		put_int(o, "since", p->slot.since / NSEC_PER_SEC);
		put_int(o, "silent_ms", p->silent_ms);
		put_int(o, "breakable_ms", p->breakable_ms);
		if (p->slot.state == SLOT_RECOVERING)
			put_int(o, "recoverer", p->slot.recoverer);
	}
	return list;
}

json_t *holder_json(const struct lock_holder *h)
{
	json_t *o = json_object();

	put_text(o, "mode", lock_mode_name(h->mode));
	if (h->left)
		put_text(o, "left_by", h->left_comm);
	if (h->mode == LOCK_FREE)
		return o;
	put_int(o, "slot", h->slot);
	put_int(o, "generation", h->generation);
	put_text(o, "host_name", h->host_name);
	if (h->heir[0])
		put_text(o, "heir", h->heir);
	put_int(o, "pid", h->pid);
	put_text(o, "process", h->comm);
	put_int(o, "since", h->since / NSEC_PER_SEC);
	put_int(o, "silent_ms", h->silent_ms);
	put_int(o, "breakable_ms", h->breakable_ms);
	return o;
}

json_t *super_json(const struct super *s, const struct blkdev_info *info)
{
	json_t *o = json_object();

	put_text(o, "label", s->label);
	put_uuid(o, "uuid", s->volume_id);
	put_text(o, "device", info->name);
	put_int(o, "size", s->size);
	put_int(o, "device_size", info->size);
	put_int(o, "sector", s->sector);
	put_bool(o, "o_direct", info->direct);
	put_text(o, "compare_and_write", super_caw_name(s->caw));
	put_int(o, "beat_ms", s->timing.beat_ms);
	put_int(o, "lease_ms", s->timing.lease_ms);
	put_int(o, "margin_ms", s->timing.margin_ms);
	put_int(o, "slots", s->slot_count);
	put_int(o, "journal_size", s->journal_size);
	put_int(o, "groups", s->ag_count);
	put_int(o, "group_size", s->ag_size);
	put_int(o, "created", s->created / NSEC_PER_SEC);
	return o;
}
