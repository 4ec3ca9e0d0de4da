/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "block/blkfile.h"
#include "daemon/disks.h"

/* A description of its own would change nothing: requests carry their offsets. */
static int open_raw(struct store *s, struct blkdev **out)
{
	struct blkfile_handle h = { .lock_fd = -1, .info = s->info };
	int err;

	h.fd = fcntl(s->data_fd, F_DUPFD_CLOEXEC, 0);
	if (h.fd < 0)
		return -errno;
	h.info.caw = BLK_CAW_NONE;	/* locks go by the datastore's own handles */
	err = blkfile_new(env_posix(), &h, out);
	if (err)
		blkfile_handle_close(&h);
	return err;
}

struct port_call {
	struct disks	*all;
	struct disks_port *port;
};

static void port_start(void *arg)
{
	struct port_call *c = arg;
	struct disks_port *p = c->port;

	p->err = blkdev_set_polled(p->raw);
	if (!p->err)
		p->err = lockd_port(p->store->fs->lockd, p->raw, &p->dev);
	if (!p->err)
		p->err = blkpoll_start(&p->poll, c->all->reactors[p->reactor], p->dev);
	if (p->err && p->dev) {
		blkdev_close(p->dev);
		p->dev = NULL;
	}
	if (p->err)
		blkdev_close(p->raw);
}

/* Behind what disks that are gone have posted. */
static void port_stop(void *arg)
{
	struct port_call *c = arg;

	if (!c->port->dev)
		return;
	blkpoll_stop(&c->port->poll);
	blkdev_close(c->port->dev);
	blkdev_close(c->port->raw);
}

/* Its own handle.  -ENOTSUP: it can have none. */
static int port_open(struct disks *all, struct disks_port *p)
{
	struct port_call c = { all, p };
	int err;

	if (p->store->data_fd < 0 || !p->store->fs->lockd || p->store->info.reservations)
		return -ENOTSUP;
	err = open_raw(p->store, &p->raw);
	if (err)
		return err;
	reactor_call_sync(all->reactors[p->reactor], port_start, &c);
	return p->err;
}

/* mutex held. */
static struct disks_port *port_find(struct disks *all, const struct store *s, unsigned int r)
{
	struct disks_port *p, *tmp;

	list_for_each(p, tmp, &all->ports, node)
		if (p->store == s && p->reactor == r)
			return p;
	return NULL;
}

/* mutex held.  NULL: out of memory. */
static struct disks_port *port_add(struct disks *all, struct store *s, unsigned int r)
{
	struct disks_port *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->store = s;
	p->reactor = r;
	p->opening = true;
	list_add_tail(&all->ports, &p->node);
	return p;
}

/* The others who want it wait meanwhile: each would open one, to close it again for what that takes. */
static int port_fill(struct disks *all, struct disks_port *p)
{
	int err = port_open(all, p);

	if (err == -ENOTSUP)
		p->lower = p->store->fs->dev;
	else if (!err)
		p->lower = p->dev;
	else
		return err;
	shares_init(&p->shares, p->lower, all->hello->shares_depth);
	return 0;
}

int disks_port_get(struct disks *all, struct store *s, unsigned int r, struct disks_port **out)
{
	struct disks_port *p;
	int err = 0;

	pthread_mutex_lock(&all->mutex);
	while ((p = port_find(all, s, r)) && p->opening)
		pthread_cond_wait(&all->changed, &all->mutex);
	if (!p) {
		p = port_add(all, s, r);
		if (!p) {
			pthread_mutex_unlock(&all->mutex);
			return -ENOMEM;
		}
		pthread_mutex_unlock(&all->mutex);
		err = port_fill(all, p);
		pthread_mutex_lock(&all->mutex);
		p->opening = false;
		if (err)
			list_del(&p->node);
		pthread_cond_broadcast(&all->changed);
	}
	if (!err)
		p->users++;
	pthread_mutex_unlock(&all->mutex);
	if (err)
		free(p);
	else
		*out = p;
	return err;
}

void disks_port_put(struct disks *all, struct disks_port *p)
{
	struct port_call c = { all, p };
	bool last;

	if (!p)
		return;
	pthread_mutex_lock(&all->mutex);
	last = --p->users == 0;
	if (last)
		list_del(&p->node);
	pthread_mutex_unlock(&all->mutex);
	if (!last)
		return;
	reactor_call_sync(all->reactors[p->reactor], port_stop, &c);
	free(p);
}
