/* SPDX-License-Identifier: Apache-2.0 */
/* Serves a plain file to vhost-user-blk front ends: for tests and benchmarks, until killed. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "block/blkfile.h"
#include "block/blkpoll.h"
#include "vhost/vhu.h"

struct served {
	struct reactor *r;
	struct blkdev *dev;
	struct blkpoll poll;
	struct vhu *v;
	int listen_fd;
	int err;
};

static void begin(void *arg)
{
	struct served *s = arg;

	s->err = blkpoll_start(&s->poll, s->r, s->dev);
	if (!s->err)
		s->err = vhu_listen(s->v, s->listen_fd);
}

static void end(void *arg)
{
	struct served *s = arg;

	blkpoll_stop(&s->poll);
	blkdev_close(s->dev);
}

static int die(const char *what, int err)
{
	fprintf(stderr, "serve: %s: %s\n", what, strerror(-err));
	return 1;
}

static int listen_at(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, 4))
		return -errno;
	return fd;
}

int main(int argc, char **argv)
{
	struct served s = { .listen_fd = -1 };
	struct vhu_server *server;
	struct vhu_params p = { .name = "served", .serial = "LUNFS-TEST", .discard = true };
	uint64_t poll_ns = 50000;
	sigset_t set;
	char why[256];
	int err, opt, sig;

	while ((opt = getopt(argc, argv, "p:q:r")) != -1) {
		if (opt == 'p')
			poll_ns = strtoull(optarg, NULL, 10) * 1000;
		else if (opt == 'q')
			p.queues_max = (unsigned int)atoi(optarg);
		else if (opt == 'r')
			p.read_only = true;
		else
			return 2;
	}
	if (argc - optind != 2) {
		fprintf(stderr, "usage: serve [-p POLL_US] [-q QUEUES] [-r] FILE SOCKET\n");
		return 2;
	}
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	err = blkfile_open(env_posix(), argv[optind], 0, &s.dev, why, sizeof(why));
	if (err) {
		fprintf(stderr, "serve: %s\n", why);
		return 1;
	}
	err = blkdev_set_polled(s.dev);
	if (!err)
		err = reactor_create(env_posix(), "serve", poll_ns, 8, &s.r);
	if (!err)
		err = vhu_server_new(env_posix(), &server);
	p.server = server;
	p.reactor = s.r;
	p.dev = s.dev;
	if (!err)
		err = vhu_new(&p, &s.v);
	if (err)
		return die(argv[optind], err);
	s.listen_fd = listen_at(argv[optind + 1]);
	if (s.listen_fd < 0)
		return die(argv[optind + 1], s.listen_fd);
	reactor_call_sync(s.r, begin, &s);
	if (s.err)
		return die("begin", s.err);
	printf("ready\n");
	fflush(stdout);
	sigwait(&set, &sig);
	vhu_close_sync(s.v);
	reactor_call_sync(s.r, end, &s);
	reactor_destroy(s.r);
	vhu_server_free(server);
	return 0;
}
