/* SPDX-License-Identifier: Apache-2.0 */
/* Datastores of a daemon, on files, each of which hangs and goes on as it is told. */
#ifndef LUNFS_TESTS_DAEMON_HELD_STORE_H
#define LUNFS_TESTS_DAEMON_HELD_STORE_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "block/blkfile.h"
#include "daemon/checker.h"
#include "daemon/worker.h"
#include "fs/mkfs.h"
#include "tests/unit.h"

#define HELD_VOLUME	(128 * MIB)
#define HELD_DISK	(1 * MIB)
#define HELD_STORES	2u

static const struct fs_cred held_cred = { .comm = "test" };

/* ---- a device that answers when it is told to ---- */

struct held {
	struct blkdev	dev;
	struct blkdev_ops ops;
	struct blkdev	*below;
	pthread_mutex_t	mutex;
	struct list	ios;
	bool		hangs;
};

static inline void held_submit(struct blkdev *dev, struct blk_io **ios, unsigned int count)
{
	struct held *h = container_of(dev, struct held, dev);
	bool hangs;

	pthread_mutex_lock(&h->mutex);
	hangs = h->hangs;
	for (unsigned int i = 0; hangs && i < count; i++)
		list_add_tail(&h->ios, &ios[i]->node);
	pthread_mutex_unlock(&h->mutex);
	if (!hangs)
		blkdev_submit(h->below, ios, count);
}

static inline void held_close(struct blkdev *dev)
{
	struct held *h = container_of(dev, struct held, dev);

	blkdev_close(h->below);
}

static inline void held_hang(struct held *h)
{
	pthread_mutex_lock(&h->mutex);
	h->hangs = true;
	pthread_mutex_unlock(&h->mutex);
}

static inline unsigned int held_count(struct held *h)
{
	struct blk_io *io, *tmp;
	unsigned int n = 0;

	pthread_mutex_lock(&h->mutex);
	list_for_each(io, tmp, &h->ios, node)
		n++;
	pthread_mutex_unlock(&h->mutex);
	return n;
}

static inline void held_go_on(struct held *h)
{
	struct list all;

	list_init(&all);
	pthread_mutex_lock(&h->mutex);
	h->hangs = false;
	list_splice_tail(&all, &h->ios);
	pthread_mutex_unlock(&h->mutex);
	while (!list_empty(&all)) {
		struct blk_io *io = list_first(&all, struct blk_io, node);

		list_del(&io->node);
		blkdev_submit(h->below, &io, 1);
	}
}

/* ---- the daemon around them: some of its threads end with the process only ---- */

struct held_world {
	struct serving	serving;
	struct rpc_hello hello;
	struct rpc_client rpc;
	int		rpc_socks[2];
	int		state_fd;
	char		dir[32];
	struct held	held[HELD_STORES];
	struct store	*stores[HELD_STORES];
};

/* The privileged parent: sockets that have no name but in this network namespace. */
static inline int held_listen(int flags)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);

	if (bind(fd, (struct sockaddr *)&addr, sizeof(sa_family_t)) || listen(fd, 8))
		abort();
	return fd;
}

static inline void *held_parent(void *arg)
{
	int sock = *(int *)arg, fds[PACKET_FDS_MAX];
	struct rpc_request rq;
	unsigned int count;

	while (!packet_recv(sock, &rq, sizeof(rq), fds, &count)) {
		struct rpc_reply reply = { .magic = RPC_MAGIC, .id = rq.id };

		packet_close_fds(fds, count);
		count = 0;
		if (rq.op == RPC_CLOSED || rq.op == RPC_ALIVE)
			continue;
		if (rq.op == RPC_LISTEN)
			fds[count++] = held_listen(SOCK_NONBLOCK);
		packet_send(sock, &reply, sizeof(reply), fds, count);
		packet_close_fds(fds, count);
	}
	return NULL;
}

static inline void held_disk_path(char path[24], unsigned int i)
{
	snprintf(path, 24, "/disk-%u", i);
}

static inline struct fs *held_attach_fs(struct blkdev *dev, struct blkdev *hb_dev)
{
	struct fs_attach_params p = { .env = env_posix(), .dev = dev, .hb_dev = hb_dev,
				      .host_name = "alpha", .pid = 1, .own_slot_is_dead = true,
				      .flags = FS_FORCE_UNSAFE };
	char why[400] = "";
	struct fs *fs = NULL;

	memset(p.host_id, 1, sizeof(p.host_id));
	memset(p.boot_id, 2, sizeof(p.boot_id));
	if (fs_attach(&p, &fs, why, sizeof(why)))
		fprintf(stderr, "%s\n", why);
	CU_ASSERT_PTR_NOT_NULL_FATAL(fs);
	return fs;
}

static inline struct blkdev *held_open(const char *path)
{
	struct blkdev *dev = NULL;
	char why[400];

	CU_ASSERT_EQUAL_FATAL(blkfile_open(env_posix(), path, 0, &dev, why, sizeof(why)), 0);
	return dev;
}

/* A volume with @disks files, of which no host has anything in memory. */
static inline void held_make(const char *path, const char *label, unsigned int disks)
{
	struct mkfs_params mp = { .env = env_posix(), .label = label };
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	struct blkdev *dev, *hb_dev;
	struct super super;
	char why[400];
	struct fs *fs;

	CU_ASSERT_EQUAL_FATAL(ftruncate(fd, HELD_VOLUME), 0);
	close(fd);
	dev = held_open(path);
	hb_dev = held_open(path);
	mp.dev = dev;
	CU_ASSERT_EQUAL_FATAL(mkfs(&mp, &super, why, sizeof(why)), 0);
	fs = held_attach_fs(dev, hb_dev);
	for (unsigned int i = 0; i < disks; i++) {
		struct fs_attr attr = { .size = HELD_DISK };
		char name[24];

		held_disk_path(name, i);
		CU_ASSERT_EQUAL(fs_create(fs, fs_root(fs), name + 1, S_IFREG | 0600, 0, &held_cred, &attr), 0);
		attr.size = HELD_DISK;
		CU_ASSERT_EQUAL(fs_setattr(fs, attr.id, FS_SET_SIZE, &attr), 0);
	}
	CU_ASSERT_EQUAL(fs_detach(fs), 0);
	blkdev_close(hb_dev);
	blkdev_close(dev);
}

/* As store_attach() leaves it, but for who has opened the device. */
static inline void held_store_begin(struct held_world *w, unsigned int i, unsigned int disks)
{
	struct stores *all = &w->serving.stores;
	struct store *s = calloc(1, sizeof(*s));
	struct held *h = &w->held[i];
	char path[64], label[8];

	snprintf(label, sizeof(label), "ds%u", i);
	snprintf(path, sizeof(path), "%s/%s.img", w->dir, label);
	held_make(path, label, disks);
	h->below = held_open(path);
	h->ops = (struct blkdev_ops){ .submit = held_submit, .close = held_close };
	h->dev = (struct blkdev){ .ops = &h->ops, .env = env_posix(), .info = h->below->info };
	pthread_mutex_init(&h->mutex, NULL);
	list_init(&h->ios);
	s->all = all;
	s->checks = checker_new(s);
	strcpy(s->device, path);
	s->state = STORE_ATTACHED;
	s->word = i;
	s->data_fd = s->lock_fd = s->host_lock_fd = s->lun_lock_fd = -1;
	s->dev = &h->dev;
	s->hb_dev = held_open(path);
	list_init(&s->mounts);
	pthread_mutex_init(&s->mounts_mutex, NULL);
	s->fs = held_attach_fs(s->dev, s->hb_dev);
	w->stores[i] = s;
	pthread_mutex_lock(&all->mutex);
	all->words_used |= 1ull << i;
	list_add_tail(&all->list, &s->node);
	all->count++;
	pthread_mutex_unlock(&all->mutex);
}

/* Left and joined anew, as by the daemon's next incarnation; its disks are given up. */
static inline void held_store_again(struct held_world *w, unsigned int i)
{
	struct store *s = w->stores[i];

	workers_destroy(s->workers);
	s->workers = NULL;
	CU_ASSERT_EQUAL(fs_detach(s->fs), 0);
	s->fs = held_attach_fs(s->dev, s->hb_dev);
}

static inline void held_disks_begin(struct held_world *w)
{
	CU_ASSERT_EQUAL_FATAL(disks_init(&w->serving.disks, &w->serving.stores, &w->rpc, &w->hello,
					 w->state_fd, NULL), 0);
}

/* @disks: of each datastore; none: there is no such datastore. */
static inline void held_begin(struct held_world *w, const unsigned int disks[HELD_STORES])
{
	struct serving *s = &w->serving;
	pthread_t thread;

	strcpy(w->dir, "/var/tmp/lunfs-held-XXXXXX");
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(w->dir));
	setenv("LUNFS_LOCK_DIR", w->dir, 1);
	w->hello.reactors = 2;
	w->hello.shares_depth = 32;
	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, w->rpc_socks), 0);
	CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, held_parent, &w->rpc_socks[1]), 0);
	pthread_detach(thread);
	CU_ASSERT_EQUAL_FATAL(rpc_client_start(&w->rpc, w->rpc_socks[0]), 0);
	CU_ASSERT_EQUAL_FATAL(stores_init(&s->stores, &w->rpc, &w->hello, 0, NULL, NULL, NULL), 0);
	for (unsigned int i = 0; i < HELD_STORES; i++)
		if (disks[i])
			held_store_begin(w, i, disks[i]);
	w->state_fd = memfd_create("state", MFD_CLOEXEC);
	held_disks_begin(w);
	CU_ASSERT_EQUAL_FATAL(merger_start(&s->merger, &s->stores, &s->disks), 0);
	CU_ASSERT_EQUAL_FATAL(ctl_start(&s->ctl, held_listen(0), &s->stores, &s->disks, &w->hello), 0);
}

/* Behind serving_end(). */
static inline void held_end(struct held_world *w)
{
	char command[64];

	close(w->state_fd);
	snprintf(command, sizeof(command), "rm -r %s", w->dir);
	CU_ASSERT_EQUAL(system(command), 0);
}

static inline int held_attach(struct held_world *w, unsigned int store, const char *path,
			      struct attachment **a)
{
	struct disk_options options = { .queues = 1 };
	char why[STORE_WHY_SIZE] = "";

	return disks_attach(&w->serving.disks, w->stores[store], path, &options, a, why, sizeof(why));
}

/* Attached, and open as for a guest whose rings have started, with something to be flushed. */
static inline void held_serve(struct held_world *w, unsigned int store, unsigned int i)
{
	uint8_t *data = blkdev_alloc(4096);
	struct attachment *a = NULL;
	char path[24];

	held_disk_path(path, i);
	CU_ASSERT_EQUAL_FATAL(held_attach(w, store, path, &a), 0);
	CU_ASSERT_EQUAL_FATAL(disks_open(a), 0);
	CU_ASSERT_EQUAL(blkdev_write(disk_blkdev(a->disk), 0, data, 4096), 0);
	disks_put(a);
	free(data);
}

static inline void pause_ms(unsigned int ms)
{
	env_sleep_until(env_posix(), env_now_ns(env_posix()) + ms * NSEC_PER_MSEC);
}

#endif
