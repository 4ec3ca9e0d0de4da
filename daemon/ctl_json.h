/* SPDX-License-Identifier: Apache-2.0 */
/* Our structs as JSON, field by field as docs/CONTROL.md names them. */
#ifndef LUNFS_DAEMON_CTL_JSON_H
#define LUNFS_DAEMON_CTL_JSON_H

#include <jansson.h>

#include "fs/fs.h"
#include "lockd/lock.h"

/*
 * jansson leaves out what it finds no memory for: a reply would lack a field, or a datastore, and
 * nobody would know.
 *
 * ctl_json_begin() - from here on the calling thread is watched.
 * ctl_json_is_whole() - whether everything that it has built or read since is there.
 */
void ctl_json_begin(void);
bool ctl_json_is_whole(void);

/** ctl_text() - a JSON string of bytes that may be anything: '?' where they are not UTF-8. */
json_t *ctl_text(const char *s);

void put_text(json_t *o, const char *key, const char *value);
void put_int(json_t *o, const char *key, uint64_t value);	/* over 2^63: null, "never" */
void put_bool(json_t *o, const char *key, bool value);
void put_uuid(json_t *o, const char *key, const uint8_t uuid[16]);

/** put_lockd() - slot, lease, fencing, counters. */
void put_lockd(json_t *o, struct lockd *ld);
void put_attr(json_t *o, const struct fs_attr *attr);

json_t *peers_json(const struct lockd_peer *peers, uint32_t count);	/* free slots left out */
json_t *holder_json(const struct lock_holder *h);
/** reservation_json() - the keys that the device knows against the slots of @peers. */
json_t *reservation_json(const struct lockd_reservation *r, const struct lockd_peer *peers,
			 uint32_t count);

json_t *super_json(const struct super *s, const struct blkdev_info *info);

/** type_name() - "file", "directory", … of a mode's S_IFMT. */
const char *type_name(uint32_t mode);

#endif
