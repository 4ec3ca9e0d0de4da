/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/exports.h"

#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/text.h"
#include "iscsi/config.h"

#define OLD_CONFIGS_MAX	8	/* that logins under way may still use */
#define PORTAL_GROUP	1
#define MEMORY_MAX	(128 * MIB)	/* for the data of a portal's commands */
#define LUN		0u	/* a target has one disk */
#define RETIRE_NS	NSEC_PER_SEC	/* for a session that has no connection any more, or not yet */

/* A target's units: it stays as long as its portal, for sessions may still refer to it. */
struct export_target {
	struct list	node;
	char		iqn[SCSI_NAME_MAX];
	struct scsi_target *scsi;
	bool		retired;	/* nobody logs in; targets_mutex */
};

struct export_portal {
	struct list	node;
	char		name[EXPORTS_PORTAL_SIZE];
	unsigned int	users;		/* exports */
	struct tgt	*tgt;
	bool		stopped;	/* exports_stop() */
	struct tgt_config *config, *old[OLD_CONFIGS_MAX];
	struct tgt_auth	auth;		/* secrets as they were when the portal was opened */
	pthread_mutex_t	targets_mutex;	/* a leaf: logins look them up in a reactor */
	struct list	targets;
	struct list	exports;
};

struct export {
	struct list	node;		/* of its portal */
	struct exports	*all;
	struct export_portal *portal;
	struct export_target *target;
	char		iqn[SCSI_NAME_MAX];
	struct blkdev	*_Atomic disk;	/* NULL: it is cut off */
	void		(*abandon)(void *arg);
	void		*arg;
	struct scsi_lun	*closing;	/* after export_close(): the device has something of it yet */
};

/* ---- the disk as a reactor's device ---- */

/* Requests go on to the disk as they are, which takes them from any thread. */
struct proxy {
	struct blkdev	dev;
	struct export	*e;
};

static void proxy_submit(struct blkdev *dev, struct blk_io **ios, unsigned int count)
{
	struct proxy *p = container_of(dev, struct proxy, dev);
	struct blkdev *disk = atomic_load(&p->e->disk);

	if (disk) {
		blkdev_submit(disk, ios, count);
		return;
	}
	for (unsigned int i = 0; i < count; i++)
		ios[i]->done(ios[i], -ENOMEDIUM);
}

static int proxy_refresh(struct blkdev *dev)
{
	struct proxy *p = container_of(dev, struct proxy, dev);
	struct blkdev *disk = atomic_load(&p->e->disk);

	if (!disk)
		return -ENOMEDIUM;
	blkdev_set_size(dev, blkdev_size(disk));
	return 0;
}

static void proxy_close(struct blkdev *dev)
{
	free(container_of(dev, struct proxy, dev));
}

static const struct blkdev_ops proxy_ops = {
	.submit = proxy_submit, .refresh = proxy_refresh, .close = proxy_close,
};

static int proxy_open(void *arg, struct reactor *r, struct blkdev **out)
{
	struct proxy *p = calloc(1, sizeof(*p));
	struct export *e = arg;

	(void)r;
	if (!p)
		return -ENOMEM;
	p->e = e;
	p->dev.ops = &proxy_ops;
	p->dev.env = env_posix();
	p->dev.info = atomic_load(&e->disk)->info;
	*out = &p->dev;
	return 0;
}

static void proxy_abandon(void *arg)
{
	struct export *e = arg;

	e->abandon(e->arg);
}

/* ---- portals ---- */

int exports_address(const char *text, struct sockaddr_storage *addr, char *why, size_t why_size)
{
	struct tgt_config *c;
	int err = tgt_config_create(&c);

	if (err)
		return text_refuse(err, why, why_size, "out of memory");
	err = tgt_config_add_portal(c, text, PORTAL_GROUP, why, why_size);
	*addr = c->portals[0].addr;
	tgt_config_destroy(c);
	return err;
}

bool exports_is_loopback(const struct sockaddr_storage *addr)
{
	const struct sockaddr_in6 *in6 = (const void *)addr;
	const struct sockaddr_in *in = (const void *)addr;

	if (addr->ss_family == AF_INET6)
		return IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
	return ntohl(in->sin_addr.s_addr) >> 24 == 127;
}

int exports_portal(const char *text, char out[EXPORTS_PORTAL_SIZE], char *why, size_t why_size)
{
	struct sockaddr_storage addr;
	int err = exports_address(text, &addr, why, why_size);

	static_assert(EXPORTS_PORTAL_SIZE == 64, "as tgt_portal_format() wants");
	if (!err)
		tgt_portal_format(&addr, out);
	return err;
}

static struct scsi_target *find_target(void *arg, const char *iqn)
{
	struct export_portal *p = arg;
	struct export_target *t, *tmp;
	struct scsi_target *found = NULL;

	pthread_mutex_lock(&p->targets_mutex);
	list_for_each(t, tmp, &p->targets, node)
		if (!strcmp(t->iqn, iqn) && !t->retired)
			found = t->scsi;
	pthread_mutex_unlock(&p->targets_mutex);
	return found;
}

/* What it was given CHAP users for, each target asks for. */
static int copy_auth(const struct tgt_auth *from, struct tgt_auth *to)
{
	size_t size = from->incoming_count * sizeof(*from->incoming);

	*to = *from;
	to->incoming = NULL;
	if (!size)
		return 0;
	to->incoming = malloc(size);
	if (!to->incoming) {
		to->incoming_count = 0;
		return -ENOMEM;
	}
	memcpy(to->incoming, from->incoming, size);
	return 0;
}

static int make_config(const struct export_portal *p, struct tgt_config **out)
{
	struct export *e, *tmp;
	struct tgt_config *c;
	struct tgt_target *t;
	char why[256];
	int err = tgt_config_create(&c);

	if (err)
		return err;
	c->limits.memory_max = MEMORY_MAX;
	c->limits.connections_max = EXPORTS_CONNECTIONS_MAX;
	c->limits.connections_address_max = EXPORTS_CONNECTIONS_MAX;
	c->limits.half_open_max = EXPORTS_HALF_OPEN_MAX;
	c->limits.sessions_max = EXPORTS_CONNECTIONS_MAX;
	err = copy_auth(&p->auth, &c->discovery);
	list_for_each(e, tmp, &p->exports, node) {
		if (!err)
			err = tgt_config_add_target(c, e->iqn, &t, why, sizeof(why));
		if (!err)
			err = tgt_target_add_initiator(t, "*", NULL, why, sizeof(why));
		if (!err)
			err = copy_auth(&p->auth, &t->auth);
	}
	if (err)
		tgt_config_destroy(c);
	else
		*out = c;
	return err;
}

static bool free_old_configs(struct export_portal *p, unsigned int *place)
{
	bool room = false;

	for (unsigned int i = 0; i < OLD_CONFIGS_MAX; i++) {
		if (p->old[i] && tgt_config_unused(p->tgt, p->old[i])) {
			tgt_config_destroy(p->old[i]);
			p->old[i] = NULL;
		}
		if (p->old[i])
			continue;
		*place = i;
		room = true;
	}
	return room;
}

/* The portal offers its exports as they are now.  mutex held. */
static int apply_config(struct export_portal *p)
{
	struct tgt_config *c;
	unsigned int place = 0;
	int err;

	/* Logins take moments, or are cut off. */
	while (!free_old_configs(p, &place))
		env_sleep_until(env_posix(), env_now_ns(env_posix()) + 10 * NSEC_PER_MSEC);
	err = make_config(p, &c);
	if (err)
		return err;
	err = tgt_set_config(p->tgt, c);
	if (err) {
		tgt_config_destroy(c);
		return err;
	}
	p->old[place] = p->config;
	p->config = c;
	return 0;
}

static int read_secrets(struct export_portal *p, int fd, char *why, size_t why_size)
{
	FILE *in = fdopen(fd, "r");
	int err;

	if (!in) {
		close(fd);
		return text_refuse(-ENOMEM, why, why_size, "out of memory");
	}
	/* No buffer of the library's keeps secrets after the file is closed. */
	setvbuf(in, NULL, _IONBF, 0);
	err = tgt_auth_read_secrets(&p->auth, in, "iscsi-secrets", why, why_size);
	fclose(in);
	p->auth.required = true;
	return err;
}

/* The parent's answer: the socket, and the file of secrets if there is one. */
static int ask_parent(struct exports *x, struct export_portal *p, int *sock, char *why,
		      size_t why_size)
{
	struct rpc_request rq = { .op = RPC_PORTAL };
	struct rpc_reply reply;
	int fds[PACKET_FDS_MAX], err;
	unsigned int fd_count = 0;

	err = exports_address(p->name, &rq.portal, why, why_size);
	if (err)
		return err;
	err = rpc_call(x->rpc, &rq, -1, &reply, fds, &fd_count);
	if (err)
		return text_refuse(err, why, why_size, "%s", reply.why);
	if (fd_count == 2)
		err = read_secrets(p, fds[1], why, why_size);
	if (err)
		close(fds[0]);
	else
		*sock = fds[0];
	return err;
}

static int portal_start(struct exports *x, struct export_portal *p, int sock)
{
	struct tgt_options options = {
		.env = env_posix(), .reactors = x->reactors, .reactor_count = x->reactor_count,
		.find_target = find_target, .arg = p,
	};
	int err = make_config(p, &p->config);

	if (err) {
		close(sock);
		return err;
	}
	options.limits = p->config->limits;
	options.config = p->config;
	err = tgt_create(&options, &p->tgt);
	if (err) {
		p->tgt = NULL;
		close(sock);
		return err;
	}
	return tgt_listen(p->tgt, sock, PORTAL_GROUP);
}

/*
 * mutex held.  Nobody comes in any more, and all connections are cut; nothing is waited for that a device
 * may hang in.  What waits in a disk, for space, is ended: initiators that were not answered ask the
 * next daemon again.
 */
static void portal_stop(struct export_portal *p)
{
	struct export *e, *tmp;

	p->stopped = true;
	tgt_stop(p->tgt);
	list_for_each(e, tmp, &p->exports, node)
		e->abandon(e->arg);
}

static void portal_free(struct export_portal *p)
{
	struct export_target *t, *tmp;

	/* All exports are gone, and with them whatever had to be waited for. */
	if (p->tgt)
		tgt_destroy(p->tgt);
	list_for_each(t, tmp, &p->targets, node) {
		scsi_target_destroy(t->scsi);
		list_del(&t->node);
		free(t);
	}
	for (unsigned int i = 0; i < OLD_CONFIGS_MAX; i++)
		tgt_config_destroy(p->old[i]);
	tgt_config_destroy(p->config);
	if (p->auth.incoming)
		tgt_secret_forget(p->auth.incoming,
				  p->auth.incoming_count * sizeof(*p->auth.incoming));
	free(p->auth.incoming);
	tgt_secret_forget(&p->auth.outgoing, sizeof(p->auth.outgoing));
	pthread_mutex_destroy(&p->targets_mutex);
	free(p);
}

static int portal_new(struct exports *x, const char *name, struct export_portal **out, char *why,
		      size_t why_size)
{
	struct export_portal *p = calloc(1, sizeof(*p));
	int sock = -1, err;

	if (!p)
		return -ENOMEM;
	snprintf(p->name, sizeof(p->name), "%s", name);
	p->auth.algs = TGT_CHAP_ALL;
	list_init(&p->targets);
	list_init(&p->exports);
	pthread_mutex_init(&p->targets_mutex, NULL);
	err = ask_parent(x, p, &sock, why, why_size);
	if (!err)
		err = portal_start(x, p, sock);
	if (err) {
		portal_free(p);
		return err;
	}
	list_add_tail(&x->portals, &p->node);
	*out = p;
	return 0;
}

/* mutex held. */
static int portal_get(struct exports *x, const char *name, struct export_portal **out, char *why,
		      size_t why_size)
{
	struct export_portal *p, *tmp;
	unsigned int count = 0;
	int err;

	if (x->stopping)
		return text_refuse(-ESHUTDOWN, why, why_size, "the daemon is shutting down");
	list_for_each(p, tmp, &x->portals, node) {
		count++;
		if (strcmp(p->name, name))
			continue;
		p->users++;
		*out = p;
		return 0;
	}
	if (count >= EXPORTS_PORTALS_MAX)
		return text_refuse(-EMFILE, why, why_size, "this daemon has %u iSCSI portals already; "
				   "disks can share one", EXPORTS_PORTALS_MAX);
	err = portal_new(x, name, out, why, why_size);
	if (!err)
		(*out)->users++;
	return err;
}

/* mutex held. */
static void portal_put(struct export_portal *p)
{
	if (--p->users)
		return;
	list_del(&p->node);
	portal_free(p);
}

int exports_hold(struct exports *x, const char *portal, struct export_portal **out, char *why,
		 size_t why_size)
{
	int err;

	pthread_mutex_lock(&x->mutex);
	err = portal_get(x, portal, out, why, why_size);
	pthread_mutex_unlock(&x->mutex);
	return err;
}

void exports_release(struct exports *x, struct export_portal *p)
{
	pthread_mutex_lock(&x->mutex);
	portal_put(p);
	pthread_mutex_unlock(&x->mutex);
}

/* ---- exports ---- */

static void target_retire(struct export *e, struct export_target *t, bool retired)
{
	pthread_mutex_lock(&e->portal->targets_mutex);
	t->retired = retired;
	pthread_mutex_unlock(&e->portal->targets_mutex);
}

/* mutex held. */
static int target_get(struct export *e)
{
	struct export_portal *p = e->portal;
	struct export_target *t, *tmp;
	int err;

	list_for_each(t, tmp, &p->targets, node) {
		if (strcmp(t->iqn, e->iqn))
			continue;
		target_retire(e, t, false);
		e->target = t;
		return 0;
	}
	t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	strcpy(t->iqn, e->iqn);
	err = scsi_target_create(env_posix(), t->iqn, e->all->reactors, e->all->reactor_count,
				 &t->scsi);
	if (err) {
		free(t);
		return err;
	}
	pthread_mutex_lock(&p->targets_mutex);
	list_add_tail(&p->targets, &t->node);
	pthread_mutex_unlock(&p->targets_mutex);
	e->target = t;
	return 0;
}

/* mutex held. */
static int offer(struct export *e, const struct export_params *p)
{
	struct scsi_lun_config c = {
		.name = p->object, .backing = { .open = proxy_open, .abandon = proxy_abandon, .arg = e },
		.block_size = p->block_size,
		.physical_block_size = 4096, .size = blkdev_size(p->disk), .read_only = p->read_only,
		.thin = p->disk->info.discard_granularity != 0, .write_cache = true, .state_fd = -1,
	};
	int err = target_get(e);

	if (err)
		return err;
	/* NAA 6 with a locally administered company id. */
	memcpy(c.naa, p->id, sizeof(c.naa));
	c.naa[0] = 0x60;
	c.naa[1] = 0x20;
	c.naa[2] = 0x00;
	c.naa[3] &= 0x0f;
	snprintf(c.serial, sizeof(c.serial), "%s", p->serial);
	err = scsi_lun_add(e->target->scsi, LUN, &c);
	if (err)
		return err;
	list_add_tail(&e->portal->exports, &e->node);
	err = apply_config(e->portal);
	if (!err)
		return 0;
	list_del(&e->node);
	/* Nobody has found it yet. */
	if (!scsi_lun_remove(e->target->scsi, LUN, &e->closing))
		scsi_lun_close(e->closing, ENV_FOREVER);
	return err;
}

int export_new(struct exports *x, const struct export_params *p, struct export **out, char *why,
	       size_t why_size)
{
	struct export *e = calloc(1, sizeof(*e));
	int err;

	if (!e)
		return -ENOMEM;
	e->all = x;
	atomic_store(&e->disk, p->disk);
	e->abandon = p->abandon;
	e->arg = p->arg;
	list_init(&e->node);
	snprintf(e->iqn, sizeof(e->iqn), "%s:%s", TGT_DEFAULT_IQN, p->name);
	for (char *c = e->iqn; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	pthread_mutex_lock(&x->mutex);
	err = portal_get(x, p->portal, &e->portal, why, why_size);
	if (!err) {
		err = offer(e, p);
		if (err)
			portal_put(e->portal);
	}
	pthread_mutex_unlock(&x->mutex);
	if (err)
		free(e);
	else
		*out = e;
	return err;
}

static void retire(void *arg)
{
	struct export *e = arg;

	target_retire(e, e->target, true);
}

int export_retire(struct export *e)
{
	struct env *env = env_posix();
	uint64_t deadline_ns = env_now_ns(env) + RETIRE_NS;
	unsigned int sessions;

	/* One that is about to end, or to begin, decides itself in moments. */
	for (;;) {
		pthread_mutex_lock(&e->all->mutex);
		sessions = tgt_retire(e->portal->tgt, e->iqn, retire, e);
		pthread_mutex_unlock(&e->all->mutex);
		if (!sessions)
			return 0;
		if (export_connections(e) || env_now_ns(env) >= deadline_ns)
			return -EBUSY;
		env_sleep_until(env, env_now_ns(env) + 10 * NSEC_PER_MSEC);
	}
}

static void nothing(void *arg)
{
	(void)arg;
}

/*
 * Others are not kept waiting by a device that does not answer: it is waited for without the mutex.
 * The target stays meanwhile, as the export has its portal.
 */
void export_close(struct export *e)
{
	struct exports *x = e->all;

	pthread_mutex_lock(&x->mutex);
	list_del(&e->node);
	/* Without memory for it the name stays, and leads to nothing. */
	if (!e->portal->stopped)
		apply_config(e->portal);
	scsi_lun_remove(e->target->scsi, LUN, &e->closing);
	pthread_mutex_unlock(&x->mutex);
	if (!scsi_lun_close(e->closing, x->patience_ns))
		e->closing = NULL;
	/* No reactor is between looking at the pointer and using it when all have been asked. */
	atomic_store(&e->disk, NULL);
	for (unsigned int i = 0; i < x->reactor_count; i++)
		reactor_call_sync(x->reactors[i], nothing, NULL);
}

void export_free(struct export *e)
{
	struct exports *x = e->all;

	if (e->closing)
		scsi_lun_close(e->closing, ENV_FOREVER);
	pthread_mutex_lock(&x->mutex);
	portal_put(e->portal);
	pthread_mutex_unlock(&x->mutex);
	free(e);
}

void export_resized(struct export *e)
{
	pthread_mutex_lock(&e->all->mutex);
	scsi_lun_refresh(e->target->scsi, LUN);
	pthread_mutex_unlock(&e->all->mutex);
}

struct count {
	const char	*iqn;
	unsigned int	n;
};

static void count_one(void *arg, const struct tgt_connection_status *status)
{
	struct count *c = arg;

	c->n += !strcmp(status->target, c->iqn);
}

unsigned int export_connections(struct export *e)
{
	struct count c = { .iqn = e->iqn };

	pthread_mutex_lock(&e->all->mutex);
	tgt_each_connection(e->portal->tgt, count_one, &c);
	pthread_mutex_unlock(&e->all->mutex);
	return c.n;
}

char *export_url(const struct export *e, char *buf, size_t size)
{
	snprintf(buf, size, "iscsi://%s/%s/%u", e->portal->name, e->iqn, LUN);
	return buf;
}

/* ---- all ---- */

void exports_init(struct exports *x, struct rpc_client *rpc, struct reactor **reactors,
		  unsigned int reactor_count)
{
	x->rpc = rpc;
	x->reactors = reactors;
	x->reactor_count = reactor_count;
	x->patience_ns = SCSI_HANG_NS;
	x->stopping = false;
	list_init(&x->portals);
	pthread_mutex_init(&x->mutex, NULL);
}

void exports_stop(struct exports *x)
{
	struct export_portal *p, *tmp;

	pthread_mutex_lock(&x->mutex);
	x->stopping = true;
	list_for_each(p, tmp, &x->portals, node)
		portal_stop(p);
	pthread_mutex_unlock(&x->mutex);
}
