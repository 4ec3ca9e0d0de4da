/* SPDX-License-Identifier: Apache-2.0 */
/* Attached disks whose users are iSCSI initiators (exports.c): open from attach to detach. */
#include <errno.h>
#include <stdio.h>

#include "base/machine.h"
#include "base/text.h"
#include "daemon/disks.h"

#define SERIAL_MIN	4u	/* of a logical unit */

int disks_export_check(const struct disk_options *o, char *why, size_t why_size)
{
	if (!o->portal[0])
		return 0;
	if (o->queues || o->cut_if_lost || o->incoming_s)
		return text_refuse(-EINVAL, why, why_size, "%s is for vhost-user-blk, not for --iscsi",
				   o->queues ? "--queues" : o->incoming_s ? "--incoming" :
				   "on-lost=disconnect");
	if (o->serial[0] && strlen(o->serial) < SERIAL_MIN)
		return text_refuse(-EINVAL, why, why_size, "with --iscsi a serial has at least %u "
				   "characters", SERIAL_MIN);
	return 0;
}

static void abandon(void *arg)
{
	struct attachment *a = arg;

	disk_abandon(a->disk);
}

int disks_export_start(struct attachment *a, char *why, size_t why_size)
{
	struct export_params p = {
		.portal = a->options.portal, .name = a->name, .object = a->object,
		.disk = disk_blkdev(a->disk), .abandon = abandon, .arg = a,
		.serial = a->options.serial,
		.block_size = a->store->fs->super.sector, .read_only = a->options.read_only,
	};
	struct export *e;
	int err;

	machine_derive_id(a->store->fs->super.volume_id, a->path, p.id);
	err = export_new(&a->all->exports, &p, &e, why, why_size);
	if (err)
		return err;
	pthread_mutex_lock(&a->all->mutex);
	a->export = e;
	pthread_mutex_unlock(&a->all->mutex);
	return 0;
}

struct export *disks_export_stop(struct attachment *a)
{
	struct export *e;

	pthread_mutex_lock(&a->all->mutex);
	e = a->export;
	a->export = NULL;
	/* Who tells initiators of a new size may be at it. */
	while (a->working)
		pthread_cond_wait(&a->all->changed, &a->all->mutex);
	pthread_mutex_unlock(&a->all->mutex);
	if (e)
		export_close(e);
	return e;
}

bool disks_connected(struct attachment *a)
{
	bool connected;

	if (a->export)
		return export_connections(a->export) > 0;
	pthread_mutex_lock(&a->all->mutex);
	connected = a->connected;
	pthread_mutex_unlock(&a->all->mutex);
	return connected;
}

char *disks_socket(const struct attachment *a, char *buf)
{
	if (a->export)
		return export_url(a->export, buf, PATH_MAX);
	if (a->options.portal[0])
		return strcpy(buf, "-");	/* it has ended */
	snprintf(buf, PATH_MAX, "%.*s/disks/%s", PATH_MAX - 64, a->all->hello->run_dir, a->name);
	return buf;
}
