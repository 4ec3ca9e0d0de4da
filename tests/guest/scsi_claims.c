/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs in a guest whose two SCSI disks are one LUN, over two sessions: scsi_claims DISK DISK.  What
 * block/blkscsi.h promises of the kernel's SCSI disks, by the same calls as lockd makes.
 * With "unclear" after that, only: an answer that does not come in time (the host stops the target).
 * With "multipath": the first is a multipath device over the second, among others.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "block/blkfile.h"

#define KEY_A	0x4c46000000000001ull
#define KEY_B	0x4c46000100000002ull
#define AT	(8 * MIB)

static struct blkdev *a, *b;
static uint8_t *old, *new, *found;

static void claim(const char *name, bool holds)
{
	printf("GUEST-RESULT: %s: %s\n", holds ? "PASS" : "FAIL", name);
	fflush(stdout);
}

static bool gives(const char *what, int got, int wanted)
{
	if (got != wanted)
		printf("  %s: %d (%s), not %d\n", what, got, strerror(-got), wanted);
	return got == wanted;
}

static struct blkdev *open_disk(const char *path, struct blkfile_handle *h)
{
	char why[300];
	struct blkdev *dev;

	if (blkfile_handle_open(path, 0, h, why, sizeof(why))) {
		printf("%s\n", why);
		exit(1);
	}
	if (blkfile_new(env_posix(), h, &dev))
		exit(1);
	return dev;
}

static bool holds(struct blkdev *dev, const void *want)
{
	return blkdev_read(dev, AT, found, dev->info.sector) == 0 &&
	       memcmp(found, want, dev->info.sector) == 0;
}

static void known_as_what_it_is(const struct blkfile_handle *h)
{
	printf("  %s: caw %d reservations %d fua %d timeout %u identity %s inflight %llu\n",
	       a->info.name, a->info.caw, a->info.reservations, h->scsi.fua, h->scsi.timeout_ms,
	       a->info.identity, (unsigned long long)a->info.inflight_ns_max);
	claim("a SCSI disk with COMPARE AND WRITE is known as one", h->scsi.used &&
	      a->info.caw == BLK_CAW_SCSI && a->info.reservations && h->scsi.timeout_ms);
	claim("both paths to the LUN have its one identity", a->info.identity[0] &&
	      !strcmp(a->info.identity, b->info.identity));
}

static void compare_and_write(void)
{
	uint32_t n = a->info.sector;

	memset(old, 1, n);
	memset(new, 2, n);
	blkdev_write(a, AT, old, n);
	claim("compare-and-write succeeds on what is there",
	      gives("caw", blkdev_caw(a, AT, old, new), 0) && holds(b, new));
	claim("it fails on what is not, and writes nothing",
	      gives("caw", blkdev_caw(b, AT, old, found), -EILSEQ) && holds(a, new));
}

static bool has_key(struct blkdev *dev, uint64_t key)
{
	struct blkdev_pr_state s = { 0 };
	bool has = false;

	if (dev->ops->pr_read(dev, &s))
		return false;
	for (unsigned int i = 0; i < s.key_count && i < ARRAY_SIZE(s.keys); i++)
		has = has || s.keys[i] == key;
	return has;
}

static bool is_held(struct blkdev *dev)
{
	struct blkdev_pr_state s = { 0 };

	return dev->ops->pr_read(dev, &s) == 0 && s.held;
}

static void reservations(void)
{
	uint32_t n = a->info.sector;

	claim("a key is registered, and seen by the other path",
	      gives("register", a->ops->pr_register(a, 0, KEY_A), 0) && has_key(b, KEY_A));
	claim("the reservation is of our type", gives("reserve", a->ops->pr_reserve(a, KEY_A), 0) &&
	      is_held(b));
	claim("who is not registered writes nothing",
	      gives("write", blkdev_write(b, AT, old, n), -EBADE) &&
	      gives("caw", blkdev_caw(b, AT, new, old), -EBADE) && holds(b, new));
	claim("who registers does", gives("register", b->ops->pr_register(b, 0, KEY_B), 0) &&
	      gives("write", blkdev_write(b, AT, old, n), 0) &&
	      gives("caw", blkdev_caw(b, AT, old, new), 0));
	claim("a key that is not one's own cannot be replaced",
	      gives("register", b->ops->pr_register(b, KEY_A, KEY_B + 1), -EBADE));
	claim("preempt and abort takes the other's key away, the reservation stays",
	      gives("preempt", a->ops->pr_preempt_abort(a, KEY_A, KEY_B), 0) && !has_key(a, KEY_B) &&
	      has_key(a, KEY_A) && is_held(a));
	claim("who was preempted writes nothing more",
	      gives("write", blkdev_write(b, AT, old, n), -EBADE) &&
	      gives("caw", blkdev_caw(b, AT, new, old), -EBADE) && holds(a, new));
	claim("a key that is gone cannot be preempted",
	      a->ops->pr_preempt_abort(a, KEY_A, KEY_B) != 0);
	claim("clearing ends reservation and keys, registered or not",
	      gives("clear", b->ops->pr_clear(b, KEY_B), 0) && !is_held(a) && !has_key(a, KEY_A) &&
	      gives("write", blkdev_write(b, AT, new, n), 0));
}

static void drains(void)
{
	claim("nothing unclear, nothing to drain", gives("drain", blkdev_drain(a), 0));
}

/* As the worker of lunfsd has it: unprivileged, through an agent that is not. */
static void by_an_agent(const char *path)
{
	struct blkscsi_agent agent = { .mark_fd = -1 };
	struct blkscsi_request bad = { .op = BLKSCSI_CAW, .sector = 512, .until_ns = UINT64_MAX };
	struct blkscsi_reply reply;
	struct blkfile_handle h;
	int pair[2];
	char why[300];

	if (blkfile_handle_open(path, 0, &h, why, sizeof(why)) ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		exit(1);
	agent.fd = h.fd;
	agent.s = h.scsi;
	agent.size = h.info.size;
	agent.sector = h.info.sector;
	if (fork() == 0) {
		close(pair[1]);
		blkscsi_agent_serve(&agent, pair[0]);
		_exit(0);
	}
	close(pair[0]);
	if (setresuid(65534, 65534, 65534))
		exit(1);
	memset(old, 3, h.info.sector);
	/* First without it: the kernel refuses, whoever opened the descriptor. */
	if (blkfile_new(env_posix(), &h, &a))
		exit(1);
	claim("without privilege neither command passes",
	      gives("caw", blkdev_caw(a, AT, new, old), -EPERM) &&
	      gives("register", a->ops->pr_register(a, 0, KEY_A), -EPERM) && holds(a, new));
	h.fd = dup(h.fd);
	h.lanes[0] = dup(pair[1]);
	h.lane_count = 1;
	if (blkfile_new(env_posix(), &h, &b))
		exit(1);
	claim("through an agent both do", gives("caw", blkdev_caw(b, AT, new, old), 0) && holds(b, old) &&
	      gives("caw", blkdev_caw(b, AT, new, old), -EILSEQ) &&
	      gives("register", b->ops->pr_register(b, 0, KEY_A), 0) && has_key(b, KEY_A) &&
	      gives("register", b->ops->pr_register(b, KEY_A, 0), 0) && !has_key(b, KEY_A));
	bad.off = h.info.size;
	send(pair[1], &bad, sizeof(bad), 0);
	recv(pair[1], &reply, sizeof(reply), 0);
	claim("it executes nothing beyond the device", reply.err == -EINVAL);
	bad.off = AT;
	bad.until_ns = 1;
	send(pair[1], &bad, sizeof(bad), 0);
	recv(pair[1], &reply, sizeof(reply), 0);
	claim("nor what came too late", reply.err == -EBUSY && holds(b, old));
	bad.op = 77;
	bad.until_ns = UINT64_MAX;
	send(pair[1], &bad, sizeof(bad), 0);
	recv(pair[1], &reply, sizeof(reply), 0);
	claim("nor what it does not know", reply.err == -EINVAL);
}

/* The target is stopped: the command times out, and what became of it is found by reading. */
static void no_answer(void)
{
	uint32_t n = a->info.sector;
	int err;

	memset(old, 1, n);
	memset(new, 2, n);
	blkdev_write(a, AT, old, n);
	printf("HOST-STOP\n");
	fflush(stdout);
	sleep(2);
	err = blkdev_caw(a, AT, old, new);
	printf("HOST-GO\n");
	fflush(stdout);
	printf("  caw without an answer: %d (%s)\n", err, strerror(-err));
	claim("a compare-and-write without an answer is unclear", err == -ETIMEDOUT || err == -EIO);
	claim("draining ends it", gives("drain", blkdev_drain(a), 0) &&
	      gives("drain", blkdev_drain(a), 0));
	claim("reading tells what became of it", holds(a, old) || holds(a, new));
}

static bool is_refused(const char *path, const char *with)
{
	struct blkfile_handle h;
	char why[300];
	int err = blkfile_handle_open(path, 0, &h, why, sizeof(why));

	if (!err)
		blkfile_handle_close(&h);
	else
		printf("  %s\n", why);
	return err && strstr(why, with);
}

/* Each path is an initiator of its own to the LUN: what is registered must be so on all of them. */
static void multipath(const char *below)
{
	struct blkdev_pr_state s = { 0 };
	uint32_t n = a->info.sector;
	int err = 0;

	claim("a multipath device over SCSI disks is known as one", a->info.caw == BLK_CAW_SCSI &&
	      a->info.reservations && a->info.identity[0] && !a->info.inflight_ns_max);
	claim("a disk below it is refused, and who uses it named", is_refused(below, "dm-"));
	memset(old, 1, n);
	memset(new, 2, n);
	blkdev_write(a, AT, old, n);
	claim("compare-and-write passes it", gives("caw", blkdev_caw(a, AT, old, new), 0) &&
	      holds(a, new) && gives("caw", blkdev_caw(a, AT, old, new), -EILSEQ));
	claim("a key is registered on every path",
	      gives("register", a->ops->pr_register(a, 0, KEY_A), 0) &&
	      a->ops->pr_read(a, &s) == 0 && s.key_count == 2 && s.keys[0] == KEY_A &&
	      s.keys[1] == KEY_A);
	claim("reserved, it writes by all of them", gives("reserve", a->ops->pr_reserve(a, KEY_A), 0));
	for (unsigned int i = 0; !err && i < 64; i++)
		err = blkdev_write(a, AT + (uint64_t)i * n, new, n);
	claim("none of them meets a conflict", gives("write", err, 0));
	claim("and all keys go", gives("register", a->ops->pr_register(a, KEY_A, 0), 0) &&
	      a->ops->pr_read(a, &s) == 0 && s.key_count == 0 && !s.held);
}

int main(int argc, char **argv)
{
	struct blkfile_handle ha, hb;

	if (argc < 3)
		return 2;
	a = open_disk(argv[1], &ha);
	if (argc < 4 || strcmp(argv[3], "multipath"))
		b = open_disk(argv[2], &hb);
	old = blkdev_alloc(4096);
	new = blkdev_alloc(4096);
	found = blkdev_alloc(4096);
	if (argc > 3) {
		if (b)
			no_answer();
		else
			multipath(argv[2]);
		return 0;
	}
	known_as_what_it_is(&ha);
	compare_and_write();
	reservations();
	drains();
	by_an_agent(argv[1]);
	return 0;
}
