/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/rpc.h"

#include <errno.h>

#include "tests/unit.h"

static char why[512];

static int check(const struct rpc_request *rq, unsigned int fd_count)
{
	return rpc_request_check(rq, fd_count, why, sizeof(why));
}

static struct rpc_request mount_request(void)
{
	struct rpc_request rq = { .magic = RPC_MAGIC, .op = RPC_MOUNT };

	strcpy(rq.mount.source, "lun");
	strcpy(rq.mount.dir, "/mnt/a");
	rq.mount.max_read = 65536;
	return rq;
}

static void honest_requests_pass(void)
{
	struct rpc_request rq = mount_request();

	CU_ASSERT_EQUAL(check(&rq, 1), 0);
	rq = (struct rpc_request){ .magic = RPC_MAGIC, .op = RPC_OPEN };
	strcpy(rq.open.path, "/dev/disk/by-id/..x");
	CU_ASSERT_EQUAL(check(&rq, 1), 0);
	rq = (struct rpc_request){ .magic = RPC_MAGIC, .op = RPC_KILL, .kill.pid = 4711 };
	CU_ASSERT_EQUAL(check(&rq, 1), 0);
	rq = (struct rpc_request){ .magic = RPC_MAGIC, .op = RPC_COMM, .comm_pid = 1 };
	CU_ASSERT_EQUAL(check(&rq, 0), 0);
	rq = (struct rpc_request){ .magic = RPC_MAGIC, .op = RPC_HOLD };
	CU_ASSERT_EQUAL(check(&rq, 0), -EINVAL);	/* of which LUN? */
	strcpy(rq.hold.identity, "naa.x");
	CU_ASSERT_EQUAL(check(&rq, 0), 0);
	memset(rq.hold.identity, 'x', sizeof(rq.hold.identity));
	CU_ASSERT_EQUAL(check(&rq, 0), -EINVAL);
	strcpy(rq.hold.identity, "naa.x");
	memset(rq.hold.device, 'x', sizeof(rq.hold.device));
	CU_ASSERT_EQUAL(check(&rq, 0), -EINVAL);
}

static void users_of_a_mount_are_asked_for_by_its_place(void)
{
	struct rpc_request rq = { .magic = RPC_MAGIC, .op = RPC_USERS };

	CU_ASSERT_EQUAL(check(&rq, 0), -EINVAL);
	strcpy(rq.umount.dir, "/mnt/../a");
	CU_ASSERT_EQUAL(check(&rq, 0), -EINVAL);
	memset(rq.umount.dir, '/', sizeof(rq.umount.dir));
	CU_ASSERT_EQUAL(check(&rq, 0), -EINVAL);
	strcpy(rq.umount.dir, "/mnt/a");
	CU_ASSERT_EQUAL(check(&rq, 0), 0);
	CU_ASSERT_EQUAL(check(&rq, 1), -EINVAL);
}

/* A worker that was taken over asks the parent for everything: it gets nothing of it. */
static void a_hostile_mount_is_refused(void)
{
	static const char *const dirs[] = { "", "mnt", "/mnt/../etc", "/mnt/.", "/..", "/a/.." };
	struct rpc_request rq = mount_request();

	CU_ASSERT_EQUAL(check(&rq, 0), -EINVAL);	/* no proof that root asked */
	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		strcpy(rq.mount.dir, dirs[i]);
		CU_ASSERT_EQUAL(check(&rq, 1), -EINVAL);
	}
	rq = mount_request();
	memset(rq.mount.dir, '/', sizeof(rq.mount.dir));	/* not terminated */
	CU_ASSERT_EQUAL(check(&rq, 1), -EINVAL);
	rq = mount_request();
	memset(rq.mount.source, 'x', sizeof(rq.mount.source));
	CU_ASSERT_EQUAL(check(&rq, 1), -EINVAL);
	for (unsigned int bit = 0; bit < 64; bit++) {
		static const uint64_t harmless = 1 | 2 | 4 | 8 | 16 | 128 | 1024 | 2048 |
						 1 << 21 | 1 << 24 | 1 << 25;

		rq = mount_request();
		rq.mount.flags = 1ULL << bit;	/* remount, bind, move, shared, … */
		CU_ASSERT_EQUAL(check(&rq, 1) == 0, (harmless >> bit & 1) == 1);
	}
	rq = mount_request();
	rq.mount.max_read = 0xffffffff;
	CU_ASSERT_EQUAL(check(&rq, 1), -EINVAL);
}

/* kill(0), kill(-1) and init: the calls that would end the machine. */
static void processes_that_may_never_be_killed_are_refused(void)
{
	static const uint32_t pids[] = { 0, 1, 0x80000000u, 0xffffffffu };
	struct rpc_request rq = { .magic = RPC_MAGIC, .op = RPC_KILL };

	for (size_t i = 0; i < ARRAY_SIZE(pids); i++) {
		rq.kill.pid = pids[i];
		CU_ASSERT_EQUAL(check(&rq, 1), -EINVAL);
	}
	rq.kill.pid = 4711;
	CU_ASSERT_EQUAL(check(&rq, 0), -EINVAL);
	CU_ASSERT_EQUAL(check(&rq, 2), -EINVAL);
}

/* The parent would read as many bytes of an address as its family says. */
static void a_portal_is_an_address(void)
{
	struct rpc_request rq = { .magic = RPC_MAGIC, .op = RPC_PORTAL };

	for (unsigned int family = 0; family < 64; family++) {
		rq.portal.ss_family = (sa_family_t)family;
		CU_ASSERT_EQUAL(check(&rq, 0) == 0, family == AF_INET || family == AF_INET6);
		CU_ASSERT_EQUAL(check(&rq, 1), -EINVAL);
	}
	rq = (struct rpc_request){ .magic = RPC_MAGIC, .op = RPC_METRICS };
	CU_ASSERT_EQUAL(check(&rq, 0), 0);
	CU_ASSERT_EQUAL(check(&rq, 1), -EINVAL);
}

static void unknown_requests_are_refused(void)
{
	struct rpc_request rq = { .op = RPC_READY };

	CU_ASSERT_EQUAL(check(&rq, 0), -EINVAL);	/* no magic */
	rq.magic = RPC_MAGIC;
	CU_ASSERT_EQUAL(check(&rq, 0), 0);
	CU_ASSERT_EQUAL(check(&rq, 1), -EINVAL);
	for (uint32_t op = RPC_CLOSED + 1; op < RPC_CLOSED + 40; op++) {
		rq.op = op;
		CU_ASSERT_EQUAL(check(&rq, 0), -EINVAL);
	}
	rq.op = 0;
	CU_ASSERT_EQUAL(check(&rq, 0), -EINVAL);
	rq.op = RPC_OPEN;
	strcpy(rq.open.path, "/dev/sda");
	rq.open.flags = 4;
	CU_ASSERT_EQUAL(check(&rq, 1), -EINVAL);
}

UNIT_MAIN("rpc",
	  UNIT_TEST(honest_requests_pass),
	  UNIT_TEST(users_of_a_mount_are_asked_for_by_its_place),
	  UNIT_TEST(a_hostile_mount_is_refused),
	  UNIT_TEST(processes_that_may_never_be_killed_are_refused),
	  UNIT_TEST(a_portal_is_an_address),
	  UNIT_TEST(unknown_requests_are_refused));
