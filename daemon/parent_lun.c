/* SPDX-License-Identifier: Apache-2.0 */
/*
 * iSCSI LUNs: the worker speaks iSCSI by itself, unprivileged, but cannot connect to anything.
 * Its parent reads names and secrets, resolves, and makes the TCP connections: only to portals
 * of LUNs that root asked to open.  It reads nothing that a target sends.
 */
#include "daemon/parent.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/siphash.h"
#include "base/text.h"

#define DIAL_MS_MAX	60000u

/* The machine's other names for a LUN must not make another one of it: portals do not count. */
static uint64_t lun_hash(const struct blkiscsi_target *t)
{
	static const uint8_t key[16] = "LunFS iSCSI LUN";

	return siphash24(key, t->iqn, strlen(t->iqn));
}

static int describe(const struct parent *p, const struct rpc_open *rq, struct rpc_reply *reply)
{
	struct blkiscsi_target *t = &reply->open.lun;
	const struct rpc_hello *h = &p->hello;
	int err = blkiscsi_parse(rq->path, t, reply->why, sizeof(reply->why));

	if (err)
		return err;
	/* A host that is not the machine itself is an initiator of its own, too. */
	if (!t->initiator[0] && memcmp(h->host_id, h->machine_id, sizeof(h->host_id)))
		blkiscsi_default_initiator(h->host_id, t->initiator);
	err = blkiscsi_load(t, reply->why, sizeof(reply->why));
	return err ? err : blkiscsi_resolve(t, reply->why, sizeof(reply->why));
}

int parent_open_lun(const struct parent *p, const struct rpc_open *rq, struct rpc_reply *reply,
		    int *out, unsigned int *out_count)
{
	struct blkiscsi_target *t = &reply->open.lun;
	char device[64], name[NAME_MAX + 1], uuid[UUID_TEXT_SIZE];
	int host_lock = -1, err = describe(p, rq, reply);

	if (err)
		return err;
	reply->open.is_lun = true;
	reply->open.backing_dev = UINT64_MAX - t->lun;
	reply->open.backing_ino = lun_hash(t);
	if (rq->flags & RPC_OPEN_NO_HOST_LOCK)
		return 0;
	snprintf(device, sizeof(device), "iscsi-%016llx-%u", (unsigned long long)lun_hash(t), t->lun);
	snprintf(name, sizeof(name), "host-%s-%s", text_format_uuid(p->hello.host_id, uuid), device);
	err = parent_take_host_lock(p, name, t->name, &host_lock, reply);
	if (err)
		return err;
	reply->open.has_host_lock = true;
	out[(*out_count)++] = host_lock;
	return 0;
}

/* ---- connections ---- */

bool parent_portal_is_known(const struct parent_portals *known, const char *portal)
{
	for (unsigned int i = 0; i < known->count; i++)
		if (!strcmp(known->portals[i], portal))
			return true;
	return false;
}

void parent_portals_add(struct parent_portals *known, const struct blkiscsi_target *t)
{
	for (unsigned int i = 0; i < t->portal_count && i < BLKISCSI_PORTALS_MAX; i++)
		if (!parent_portal_is_known(known, t->portals[i]) &&
		    known->count < PARENT_PORTALS_MAX)
			memcpy(known->portals[known->count++], t->portals[i], BLKISCSI_PORTAL_SIZE);
}

int parent_dial(const struct rpc_dial *rq, struct rpc_reply *reply, int *out,
		unsigned int *out_count)
{
	uint32_t ms = rq->timeout_ms < DIAL_MS_MAX ? rq->timeout_ms : DIAL_MS_MAX;
	int fd = blkiscsi_dial(rq->portal, ms);

	if (fd < 0) {
		snprintf(reply->why, sizeof(reply->why), "%s: %s", rq->portal, strerror(-fd));
		return fd;
	}
	out[(*out_count)++] = fd;
	return 0;
}
