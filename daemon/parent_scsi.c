/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SCSI disks of the kernel's: the worker reads and writes them by itself, but COMPARE AND WRITE and
 * reservations want privilege when they are executed (block/blkscsi.h).  An agent does that for
 * it: a process for each such datastore, forked here, with two capabilities, a dozen system calls and
 * the one device, that ends when the worker has closed its handles or died.
 */
#include "daemon/parent.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/siphash.h"
#include "proc/sandbox.h"
#include "proc/spawn.h"

#define DATA_LANES	3u	/* compare-and-writes at a time */
#define HB_LANES	1u
#define LANES		(DATA_LANES + HB_LANES)

static_assert(2 + LANES + 1 <= PACKET_FDS_MAX, "a reply holds devices, lanes and host lock");

struct lane {
	struct blkscsi_agent agent;
	int	sock;
	bool	beats;
	pthread_t thread;
};

static void *lane_main(void *arg)
{
	struct lane *lane = arg;
	struct sched_param param = { .sched_priority = RPC_HEARTBEAT_PRIORITY };

	/* As the heartbeat's own thread; where that is not allowed neither is this. */
	if (lane->beats)
		pthread_setschedparam(pthread_self(), SCHED_RR, &param);
	blkscsi_agent_serve(&lane->agent, lane->sock);
	return NULL;
}

static bool is_kept(const struct lane lanes[LANES], int fd)
{
	bool kept = fd <= STDERR_FILENO;

	for (unsigned int i = 0; i < LANES; i++)
		kept = kept || fd == lanes[i].sock || fd == lanes[i].agent.fd ||
		       fd == lanes[i].agent.mark_fd;
	return kept;
}

/* Above all the worker's ends, for whose closing it waits, and what only the parent may have. */
static void close_others(const struct lane lanes[LANES])
{
	int max = (int)sysconf(_SC_OPEN_MAX);

	for (int fd = 0; fd < max; fd++)
		if (!is_kept(lanes, fd))
			close(fd);
}

_Noreturn static void agent_main(struct lane lanes[LANES])
{
	close_others(lanes);
	spawn_ignore_signals();
	prctl(PR_SET_NAME, "lunfsd-scsi");
	sandbox_lock_memory();
	if (sandbox_agent())
		_exit(1);
	for (unsigned int i = 0; i < LANES; i++)
		if (pthread_create(&lanes[i].thread, NULL, lane_main, &lanes[i]))
			_exit(1);
	for (unsigned int i = 0; i < LANES; i++)
		pthread_join(lanes[i].thread, NULL);
	/* The host lock goes with us: nothing of this host is under way here any more. */
	_exit(0);
}

static int make_lanes(struct lane lanes[LANES], int theirs[LANES])
{
	for (unsigned int i = 0; i < LANES; i++) {
		int pair[2];

		if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
			return -errno;	/* the process ends right after the reply */
		lanes[i].sock = pair[0];
		theirs[i] = pair[1];
	}
	return 0;
}

int parent_start_agent(struct blkfile_handle h[2], int host_lock, struct rpc_reply *reply)
{
	struct lane lanes[LANES] = { 0 };
	int theirs[LANES], err = make_lanes(lanes, theirs);
	pid_t pid;

	for (unsigned int i = 0; i < LANES; i++) {
		const struct blkfile_handle *of = &h[i >= DATA_LANES];

		lanes[i].beats = i >= DATA_LANES;
		/* What was unclear before concerns the data handle, and so does its mark. */
		lanes[i].agent = (struct blkscsi_agent){
			.fd = of->fd, .s = of->scsi, .size = of->info.size,
			.sector = of->info.sector, .mark_fd = lanes[i].beats ? -1 : host_lock,
		};
	}
	pid = err ? -1 : fork();
	if (!err && pid < 0)
		err = -errno;
	if (err) {
		snprintf(reply->why, sizeof(reply->why), "cannot start the agent for SCSI commands: %s",
			 strerror(-err));
		return err;
	}
	if (pid == 0)
		agent_main(lanes);
	for (unsigned int i = 0; i < LANES; i++) {
		struct blkfile_handle *of = &h[i >= DATA_LANES];

		close(lanes[i].sock);
		of->lanes[of->lane_count++] = theirs[i];
	}
	return 0;
}

/* BLKSCSI_BYE empties the lock file: one that is not was left by a daemon that died. */
static bool was_left_in_order(const char *name)
{
	char why[RPC_WHY_SIZE];
	struct stat st;
	int dir = blkfile_lock_dir(why, sizeof(why));
	bool left = dir < 0 || fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) || !st.st_size;

	if (dir >= 0)
		close(dir);
	return left;
}

int parent_lock_disk(const struct parent *p, struct blkfile_handle h[2], const char *path, int *out,
		     struct rpc_reply *reply)
{
	static const uint8_t key[16] = "LunFS SCSI disk";
	char name[64];
	struct stat st;
	int err;

	if (fstat(h[0].fd, &st))
		return -errno;
	/* The LUN's name, whichever of its paths is opened. */
	if (h[0].info.identity[0])
		snprintf(name, sizeof(name), "scsi-%016llx", (unsigned long long)
			 siphash24(key, h[0].info.identity, strlen(h[0].info.identity)));
	else
		snprintf(name, sizeof(name), "scsi-b%u-%u", major(st.st_rdev), minor(st.st_rdev));
	h[0].scsi.unclear = !was_left_in_order(name);
	err = parent_take_host_lock(p, name, path, out, reply);
	if (err == -EALREADY)
		snprintf(reply->why, sizeof(reply->why), "%.300s: the LUN is attached on this machine "
			 "already, and both would be one initiator to it: neither could be fenced", path);
	return err;
}
