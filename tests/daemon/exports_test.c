/* SPDX-License-Identifier: Apache-2.0 */
/* Disks served by iSCSI whose device does not answer while they are taken away. */
#include "daemon/exports.h"

#include <errno.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/parent.h"
#include "tests/unit.h"

#define MSEC	NSEC_PER_MSEC
#define SIZE	(4 * MIB)
#define REACTORS 2

/* ---- a device that answers when it is told to ---- */

struct held {
	struct blkdev	dev;
	pthread_mutex_t	mutex;
	struct list	ios;
	atomic_uint	count;
	atomic_bool	abandoned;
};

static void held_submit(struct blkdev *dev, struct blk_io **ios, unsigned int count)
{
	struct held *h = container_of(dev, struct held, dev);

	pthread_mutex_lock(&h->mutex);
	for (unsigned int i = 0; i < count; i++)
		list_add_tail(&h->ios, &ios[i]->node);
	pthread_mutex_unlock(&h->mutex);
	atomic_fetch_add(&h->count, count);
}

static const struct blkdev_ops held_ops = { .submit = held_submit };

static void held_init(struct held *h)
{
	memset(h, 0, sizeof(*h));
	h->dev = (struct blkdev){
		.ops = &held_ops, .env = env_posix(),
		.info = { .size = SIZE, .sector = 512, .mem_align = 512, .io_max = MIB },
	};
	pthread_mutex_init(&h->mutex, NULL);
	list_init(&h->ios);
}

static void held_answer(struct held *h)
{
	struct blk_io *io, *tmp;

	list_for_each(io, tmp, &h->ios, node) {
		list_del(&io->node);
		io->done(io, 0);
	}
	pthread_mutex_destroy(&h->mutex);
}

static void held_abandon(void *arg)
{
	struct held *h = arg;

	atomic_store(&h->abandoned, true);
}

/* ---- the daemon around it ---- */

static struct exports all;
static struct rpc_client rpc;
static struct reactor *reactors[REACTORS];
static struct config config;
static char portal[EXPORTS_PORTAL_SIZE];

/* The privileged parent, which opens what listens. */
static void *parent(void *arg)
{
	int sock = *(int *)arg, fds[PACKET_FDS_MAX];
	struct rpc_request rq;
	unsigned int count;

	while (!packet_recv(sock, &rq, sizeof(rq), fds, &count)) {
		struct rpc_reply reply = { .magic = RPC_MAGIC, .id = rq.id };

		count = 0;
		reply.err = parent_portal(&config, &rq.portal, &reply, fds, &count);
		packet_send(sock, &reply, sizeof(reply), fds, count);
		packet_close_fds(fds, count);
	}
	return NULL;
}

static void choose_portal(void)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char text[64], why[256];

	CU_ASSERT_EQUAL_FATAL(bind(fd, (struct sockaddr *)&a, len), 0);
	CU_ASSERT_EQUAL_FATAL(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	close(fd);
	snprintf(text, sizeof(text), "127.0.0.1:%u", ntohs(a.sin_port));
	CU_ASSERT_EQUAL_FATAL(exports_portal(text, portal, why, sizeof(why)), 0);
}

static void start(uint64_t patience_ns)
{
	static int socks[2] = { -1 };
	pthread_t thread;

	if (socks[0] < 0) {
		config_init(&config);
		CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks), 0);
		CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, parent, &socks[1]), 0);
		pthread_detach(thread);
		CU_ASSERT_EQUAL_FATAL(rpc_client_start(&rpc, socks[0]), 0);
	}
	for (unsigned int i = 0; i < REACTORS; i++)
		CU_ASSERT_EQUAL_FATAL(reactor_create(env_posix(), "reactor", 0, EXPORTS_TIMERS,
						     &reactors[i]), 0);
	exports_init(&all, &rpc, reactors, REACTORS);
	all.patience_ns = patience_ns;
	choose_portal();
}

static void stop(void)
{
	CU_ASSERT(list_empty(&all.portals));
	for (unsigned int i = 0; i < REACTORS; i++)
		reactor_destroy(reactors[i]);
	pthread_mutex_destroy(&all.mutex);
}

static struct export *offer(struct held *h, const char *name)
{
	struct export_params p = {
		.portal = portal, .name = name, .object = name, .disk = &h->dev,
		.abandon = held_abandon, .arg = h, .serial = "serial", .block_size = 512,
	};
	struct export *e = NULL;
	char why[256] = "";

	memcpy(p.id, name, strlen(name) < 16 ? strlen(name) : 16);
	CU_ASSERT_EQUAL_FATAL(export_new(&all, &p, &e, why, sizeof(why)), 0);
	return e;
}

/* ---- an initiator ---- */

static struct scsi_task *task;

static void nothing(struct iscsi_context *iscsi, int status, void *data, void *arg)
{
	(void)iscsi;
	(void)status;
	(void)data;
	(void)arg;
}

/* Logged in, with a write that the device has and does not answer. */
static struct iscsi_context *write_to(struct export *e, struct held *h)
{
	struct iscsi_context *iscsi = iscsi_create_context("iqn.2026-01.test:host");
	static uint8_t data[512];
	char url[512];
	struct iscsi_url *u;

	CU_ASSERT_PTR_NOT_NULL_FATAL(iscsi);
	u = iscsi_parse_full_url(iscsi, export_url(e, url, sizeof(url)));
	CU_ASSERT_PTR_NOT_NULL_FATAL(u);
	iscsi_set_targetname(iscsi, u->target);
	iscsi_set_session_type(iscsi, ISCSI_SESSION_NORMAL);
	iscsi_set_noautoreconnect(iscsi, 1);
	CU_ASSERT_EQUAL_FATAL(iscsi_full_connect_sync(iscsi, u->portal, u->lun), 0);
	iscsi_destroy_url(u);
	task = iscsi_write16_task(iscsi, 0, 8, data, 512, 512, 0, 0, 0, 0, 0, nothing, NULL);
	CU_ASSERT_PTR_NOT_NULL_FATAL(task);
	while (!atomic_load(&h->count)) {
		struct pollfd p = { .fd = iscsi_get_fd(iscsi),
				    .events = (short)iscsi_which_events(iscsi) };

		poll(&p, 1, 10);
		CU_ASSERT_EQUAL_FATAL(iscsi_service(iscsi, p.revents), 0);
	}
	return iscsi;
}

static void leave(struct iscsi_context *iscsi)
{
	iscsi_destroy_context(iscsi);
	scsi_free_scsi_task(task);
}

/* ---- taking it away ---- */

struct closer {
	struct export	*e;
	void		(*fn)(struct export *e);
	atomic_bool	done;
	pthread_t	thread;
};

static void *run_closer(void *arg)
{
	struct closer *c = arg;

	c->fn(c->e);
	atomic_store(&c->done, true);
	return NULL;
}

static void close_elsewhere(struct closer *c, struct export *e, void (*fn)(struct export *e))
{
	*c = (struct closer){ .e = e, .fn = fn };
	CU_ASSERT_EQUAL_FATAL(pthread_create(&c->thread, NULL, run_closer, c), 0);
}

static void pause_ms(unsigned int ms)
{
	env_sleep_until(env_posix(), env_now_ns(env_posix()) + ms * MSEC);
}

/* With the mutex held, who asks for anything else would wait as long as the device hangs. */
static void a_disk_that_hangs_keeps_nobody_else_waiting(void)
{
	struct held hung, sound;
	struct export *a, *b, *c;
	struct iscsi_context *iscsi;
	struct closer closer;

	start(30 * NSEC_PER_SEC);
	held_init(&hung);
	held_init(&sound);
	a = offer(&hung, "a");
	b = offer(&sound, "b");
	iscsi = write_to(a, &hung);
	close_elsewhere(&closer, a, export_close);
	while (!atomic_load(&hung.abandoned))
		pause_ms(1);
	CU_ASSERT_EQUAL(export_connections(b), 0);
	export_resized(b);
	CU_ASSERT_EQUAL(export_retire(b), 0);
	c = offer(&sound, "c");
	export_close(b);
	export_free(b);
	CU_ASSERT_FALSE(atomic_load(&closer.done));
	held_answer(&hung);
	pthread_join(closer.thread, NULL);
	export_free(a);
	export_close(c);
	export_free(c);
	leave(iscsi);
	held_answer(&sound);
	stop();
}

/* Longer than we care to wait: the disk is cut off, and all is given back when it has answered. */
static void what_hangs_for_long_is_given_back_in_the_end(void)
{
	struct iscsi_context *iscsi;
	struct closer closer;
	struct held hung;
	struct export *a;

	start(50 * MSEC);
	held_init(&hung);
	a = offer(&hung, "a");
	iscsi = write_to(a, &hung);
	export_close(a);
	CU_ASSERT_EQUAL(atomic_load(&hung.count), 1);
	close_elsewhere(&closer, a, export_free);
	pause_ms(100);
	CU_ASSERT_FALSE(atomic_load(&closer.done));
	held_answer(&hung);
	pthread_join(closer.thread, NULL);
	leave(iscsi);
	stop();
}

/*
 * At the daemon's end a device that hangs would keep every other disk, and whoever asks about them, for
 * as long: portals close at once, and only the export of the disk in question is waited for.
 */
static void the_end_of_all_portals_waits_for_no_device(void)
{
	struct export *hangs, *other, *late;
	struct iscsi_context *iscsi;
	struct export_params p = { .portal = portal, .name = "late" };
	struct held hung, sound;
	struct closer closer;
	char why[256];

	start(30 * NSEC_PER_SEC);
	held_init(&hung);
	held_init(&sound);
	hangs = offer(&hung, "hangs");
	other = offer(&sound, "other");
	iscsi = write_to(hangs, &hung);
	exports_stop(&all);
	CU_ASSERT(atomic_load(&hung.abandoned) && atomic_load(&sound.abandoned));
	CU_ASSERT_EQUAL(export_new(&all, &p, &late, why, sizeof(why)), -ESHUTDOWN);
	close_elsewhere(&closer, hangs, export_close);
	CU_ASSERT_EQUAL(export_connections(other), 0);
	export_resized(other);
	CU_ASSERT_EQUAL(export_retire(other), 0);
	export_close(other);
	export_free(other);
	CU_ASSERT_FALSE(atomic_load(&closer.done));
	held_answer(&hung);
	pthread_join(closer.thread, NULL);
	export_free(hangs);
	leave(iscsi);
	held_answer(&sound);
	stop();
}

UNIT_MAIN("daemon/exports",
	  UNIT_TEST(the_end_of_all_portals_waits_for_no_device),
	  UNIT_TEST(a_disk_that_hangs_keeps_nobody_else_waiting),
	  UNIT_TEST(what_hangs_for_long_is_given_back_in_the_end));
