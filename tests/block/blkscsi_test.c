/* SPDX-License-Identifier: Apache-2.0 */
/* What of the kernel's SCSI disks can be shown without one; the rest: tests/guest/scsi_disk.sh. */
#include "block/blkscsi.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit.h"

static char sysfs[64];

static void put(const char *name, const char *text)
{
	char path[300];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", sysfs, name);
	for (char *at = path + 1; (at = strchr(at, '/')); at++) {
		*at = '\0';
		mkdir(path, 0755);
		*at = '/';
	}
	f = fopen(path, "w");
	CU_ASSERT_FATAL(f != NULL);
	fputs(text, f);
	fclose(f);
}

static uint64_t bound_s(const char *device)
{
	char path[200];

	snprintf(path, sizeof(path), "%s/%s", sysfs, device);
	return blkscsi_bound_ns(sysfs, path) / NSEC_PER_SEC;
}

#define LOCAL	"devices/pci0/host3/target3:0:0/3:0:0:1"
#define ISCSI	"devices/platform/host4/session2/target4:0:0/4:0:0:0"
#define FC	"devices/pci1/host5/rport-5:0-1/target5:0:0/5:0:0:0"

static void make_sysfs(void)
{
	snprintf(sysfs, sizeof(sysfs), "/tmp/lunfs-sysfs-XXXXXX");
	CU_ASSERT_FATAL(mkdtemp(sysfs) != NULL);
	put(LOCAL "/timeout", "30\n");
	put(ISCSI "/timeout", "30\n");
	put(FC "/timeout", "10\n");
	put("class/scsi_host/host3/eh_deadline", "off\n");
	put("class/scsi_host/host4/eh_deadline", "20\n");
	put("class/scsi_host/host5/eh_deadline", "20\n");
	put("class/iscsi_session/session2/recovery_tmo", "120\n");
	put("class/fc_remote_ports/rport-5:0-1/fast_io_fail_tmo", "5\n");
}

/* A bound that is too low breaks locks of a host whose writes are still to land (R3). */
static void command_life_is_bounded_only_if_every_step_is(void)
{
	char command[100];

	make_sysfs();
	CU_ASSERT_EQUAL(bound_s(LOCAL), 0);	/* the kernel's default: recovery as long as it takes */
	put("class/scsi_host/host3/eh_deadline", "10\n");
	CU_ASSERT_EQUAL(bound_s(LOCAL), 7 * 30 + 10);
	CU_ASSERT_EQUAL(bound_s(ISCSI), 7 * 30 + 20 + 120);
	CU_ASSERT_EQUAL(bound_s(FC), 7 * 10 + 20 + 5);
	put("class/iscsi_session/session2/recovery_tmo", "-1\n");	/* for ever */
	CU_ASSERT_EQUAL(bound_s(ISCSI), 0);
	put("class/fc_remote_ports/rport-5:0-1/fast_io_fail_tmo", "off\n");
	CU_ASSERT_EQUAL(bound_s(FC), 0);
	put(LOCAL "/timeout", "x\n");
	CU_ASSERT_EQUAL(bound_s(LOCAL), 0);
	CU_ASSERT_EQUAL(bound_s("devices"), 0);
	CU_ASSERT_EQUAL(bound_s("nowhere"), 0);
	snprintf(command, sizeof(command), "rm -r %s", sysfs);
	CU_ASSERT_EQUAL(system(command), 0);
}

static int lane = -1, mark = -1;
static pid_t agent_pid;

/* An agent on a file: what passes its checks meets ENOTTY there. */
static void start_agent(void)
{
	char name[] = "/tmp/lunfs-agent-XXXXXX";
	struct blkscsi_agent a = { .s.used = true, .size = MIB, .sector = 512 };
	int pair[2];

	a.fd = mkstemp(name);
	unlink(name);
	strcpy(name, "/tmp/lunfs-agent-XXXXXX");
	a.mark_fd = mark = mkstemp(name);
	unlink(name);
	CU_ASSERT_EQUAL_FATAL(write(mark, "1", 1), 1);
	CU_ASSERT_EQUAL_FATAL(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	agent_pid = fork();
	if (!agent_pid) {
		close(pair[0]);
		blkscsi_agent_serve(&a, pair[1]);
		_exit(0);
	}
	close(pair[1]);
	close(a.fd);
	lane = pair[0];
}

static int raw(const void *packet, size_t len)
{
	struct blkscsi_reply reply = { .err = 1 };

	if (send(lane, packet, len, 0) != (ssize_t)len ||
	    recv(lane, &reply, sizeof(reply), 0) != sizeof(reply))
		return 1;
	return reply.err;
}

/* A worker that was taken over asks for what it likes (R9). */
static void agent_executes_only_what_is_right_and_in_time(void)
{
	struct blkscsi_request ok = { .op = BLKSCSI_CAW, .sector = 512, .until_ns = UINT64_MAX }, rq;
	struct stat st;
	int status;

	start_agent();
	CU_ASSERT_EQUAL(raw(&ok, sizeof(ok)), -ENOTTY);
	CU_ASSERT_EQUAL(raw(&ok, sizeof(ok) - 1), -EINVAL);
	CU_ASSERT_EQUAL(raw("x", 1), -EINVAL);
	rq = ok;
	rq.until_ns = 0;
	CU_ASSERT_EQUAL(raw(&rq, sizeof(rq)), -EBUSY);
	rq = ok;
	rq.off = MIB;
	CU_ASSERT_EQUAL(raw(&rq, sizeof(rq)), -EINVAL);
	rq.off = UINT64_MAX - 511;
	CU_ASSERT_EQUAL(raw(&rq, sizeof(rq)), -EINVAL);
	rq.off = 100;
	CU_ASSERT_EQUAL(raw(&rq, sizeof(rq)), -EINVAL);
	rq = ok;
	rq.sector = 4096;
	CU_ASSERT_EQUAL(raw(&rq, sizeof(rq)), -EINVAL);
	for (uint32_t op = BLKSCSI_REGISTER; op <= BLKSCSI_RESET; op++) {
		rq = ok;
		rq.op = op;
		CU_ASSERT(raw(&rq, sizeof(rq)) < 0);
	}
	rq.op = 0;
	CU_ASSERT_EQUAL(raw(&rq, sizeof(rq)), -EINVAL);
	rq.op = BLKSCSI_BYE + 1;
	CU_ASSERT_EQUAL(raw(&rq, sizeof(rq)), -EINVAL);
	CU_ASSERT(fstat(mark, &st) == 0 && st.st_size == 1);
	rq.op = BLKSCSI_BYE;
	CU_ASSERT_EQUAL(raw(&rq, sizeof(rq)), 0);
	CU_ASSERT(fstat(mark, &st) == 0 && st.st_size == 0);
	/* It ends when its worker has: the host lock that it holds goes with it. */
	close(lane);
	CU_ASSERT_EQUAL(waitpid(agent_pid, &status, 0), agent_pid);
	CU_ASSERT_EQUAL(status, 0);
	close(mark);
}

/* An agent that died may have executed what it was asked for; later ones it has not. */
static void what_a_dead_agent_was_asked_is_unclear(void)
{
	struct blkscsi s = { .used = true };
	struct blkscsi_request rq = { .op = BLKSCSI_READ };
	struct blkscsi_reply reply;
	struct blkscsi_port port;
	int status, err;

	start_agent();
	close(mark);
	blkscsi_port_init(&port, &s, -1, &lane, 1);
	CU_ASSERT(blkscsi_call(&port, &rq, &reply) < 0);
	kill(agent_pid, SIGSTOP);
	kill(agent_pid, SIGKILL);
	waitpid(agent_pid, &status, 0);
	err = blkscsi_call(&port, &rq, &reply);
	CU_ASSERT(err == -EIO || err == -EBUSY);
	blkscsi_port_fini(&port);
}

UNIT_MAIN("blkscsi",
	  UNIT_TEST(command_life_is_bounded_only_if_every_step_is),
	  UNIT_TEST(agent_executes_only_what_is_right_and_in_time),
	  UNIT_TEST(what_a_dead_agent_was_asked_is_unclear));
