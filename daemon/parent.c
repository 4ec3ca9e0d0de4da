/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/parent.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/machine.h"
#include "daemon/guard.h"
#include "proc/notify.h"
#include "proc/spawn.h"

#define OPERATIONS_MAX	64u	/* child processes at a time */
#define OPERATIONS_KEPT	16u	/* of these for fencing: mounts of a hung device shall not stop it */
#define KILL_MS		5000	/* for a killed worker to end */

/* A mount that this daemon made: what it may unmount. */
struct mount_entry {
	bool	used;
	uint32_t dev_minor;
	char	dir[PATH_MAX];
};

/* What a child process tells its parent when it has mounted, unmounted or opened a LUN. */
struct result {
	uint32_t op;
	bool	asked;		/* RPC_OPEN, by root */
	uint32_t dev_minor;
	char	dir[PATH_MAX];
	uint32_t portal_count;
	char	portals[BLKISCSI_PORTALS_MAX][BLKISCSI_PORTAL_SIZE];
};

struct state {
	struct parent p;
	int	run_dir, lock_fd;	/* the directory, and that it is ours */
	struct spawn worker;	/* closes its life with us: the worker ends then */
	struct guard guard;	/* pid -1: none */
	int	signals;
	int	results[2];	/* from our child processes */
	unsigned int operations;
	bool	ready, stopping;
	uint64_t stop_until;	/* boot time: what has not been given back by then is not */
	unsigned int stop_timeout;	/* seconds */
	struct mount_entry mounts[PARENT_MOUNTS_MAX];
	struct parent_portals portals;
	struct parent_opened opened;
	int	state_fd;	/* what the worker remembers of its disks */
	const struct config *config;
};

#define SAY(level, ...)	env_log(env_posix(), level, "lunfsd", __VA_ARGS__)

/* ---- before the worker exists ---- */

static int find_control_group(const struct config *c, struct rpc_hello *h)
{
	struct group *gr;

	if (!c->group[0])
		return 0;
	gr = getgrnam(c->group);
	if (!gr) {
		SAY(LOG_LEVEL_ERROR, "there is no group \"%s\" for the control socket", c->group);
		return -ENOENT;
	}
	h->control_gid = gr->gr_gid;
	h->has_control_group = true;
	return 0;
}

/* A name of its own makes a host of its own: several can be played on one machine. */
static int find_host(const struct config *c, struct rpc_hello *h)
{
	char name[256] = "", why[128];
	struct config checked;
	int err = machine_id(h->machine_id);

	if (!err)
		err = machine_boot_id(h->boot_id);
	if (err) {
		SAY(LOG_LEVEL_ERROR, "this machine has no identity (/etc/machine-id, "
		    "/proc/sys/kernel/random/boot_id): %s", strerror(-err));
		return err;
	}
	if (c->host_name[0]) {
		snprintf(name, sizeof(name), "%s", c->host_name);
		machine_derive_id(h->machine_id, name, h->host_id);
	} else {
		gethostname(name, sizeof(name) - 1);
		name[strcspn(name, ".")] = '\0';
		name[CONFIG_NAME_MAX] = '\0';
		config_init(&checked);
		if (config_set(&checked, "host-name", name, why, sizeof(why)))
			snprintf(name, sizeof(name), "unnamed");
		memcpy(h->host_id, h->machine_id, sizeof(h->host_id));
	}
	if (c->has_host_id)
		memcpy(h->host_id, c->host_id, sizeof(h->host_id));
	memcpy(h->host_name, name, sizeof(h->host_name));
	h->host_name[sizeof(h->host_name) - 1] = '\0';
	return 0;
}

/* Who could exchange what is in it could answer in our place, and lead us astray. */
static int open_run_dir(const char *path)
{
	bool made = !mkdir(path, 0755);
	struct stat st;
	int fd = -1;

	if (made || errno == EEXIST)
		fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	/* Whatever the umask: the control socket decides who may connect. */
	if (fd < 0 || (made && fchmod(fd, 0755)) || fstat(fd, &st)) {
		SAY(LOG_LEVEL_ERROR, "%s: cannot make or use the run directory: %s", path,
		    strerror(errno));
	} else if (st.st_uid || (st.st_mode & (S_IWGRP | S_IWOTH))) {
		SAY(LOG_LEVEL_ERROR, "%s: has to belong to root and be writable by nobody else; name "
		    "another --run-dir", path);
	} else {
		return fd;
	}
	if (fd >= 0)
		close(fd);
	return -1;
}

static int take_run_dir(struct state *s)
{
	const char *path = s->p.hello.run_dir;

	s->run_dir = open_run_dir(path);
	if (s->run_dir < 0)
		return -1;
	s->lock_fd = openat(s->run_dir, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (s->lock_fd < 0) {
		SAY(LOG_LEVEL_ERROR, "%s/lock: %s", path, strerror(errno));
		return -1;
	}
	if (flock(s->lock_fd, LOCK_EX | LOCK_NB) == 0) {
		s->state_fd = openat(s->run_dir, PARENT_STATE_FILE,
				     O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
		if (s->state_fd < 0)
			SAY(LOG_LEVEL_ERROR, "%s/" PARENT_STATE_FILE ": %s", path, strerror(errno));
		parent_opened_read(&s->opened, s->run_dir);
		return s->state_fd < 0 ? -1 : 0;
	}
	SAY(LOG_LEVEL_ERROR, "another lunfsd uses %s; give this one a --run-dir of its own", path);
	return -1;
}

static int bind_control(const struct state *s)
{
	const char *name = PARENT_CONTROL_SOCKET;
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	mode_t mask;
	int fd, err;

	if (strlen(s->p.control_path) >= sizeof(addr.sun_path)) {
		SAY(LOG_LEVEL_ERROR, "%s: too long for a socket", s->p.control_path);
		return -1;
	}
	strcpy(addr.sun_path, s->p.control_path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	unlinkat(s->run_dir, name, 0);	/* of a daemon that has died: we hold the lock */
	mask = umask(0177);
	err = bind(fd, (struct sockaddr *)&addr, sizeof(addr));
	umask(mask);
	if (!err && s->p.hello.has_control_group)
		err = fchownat(s->run_dir, name, 0, s->p.hello.control_gid, AT_SYMLINK_NOFOLLOW) ||
		      fchmodat(s->run_dir, name, 0660, 0);
	if (!err && !listen(fd, 16))
		return fd;
	SAY(LOG_LEVEL_ERROR, "%s: cannot listen: %s", addr.sun_path, strerror(errno));
	close(fd);
	return -1;
}

/* ---- the worker ---- */

static int send_given(struct state *s)
{
	static struct rpc_given g;	/* large */
	const struct config *c = s->config;
	int err = 0;

	g.magic = RPC_MAGIC;
	for (unsigned int i = 0; i < c->given_count && !err; i++) {
		g.is_disk = c->given[i].is_disk;
		strcpy(g.text, c->given[i].text);
		if (!g.is_disk)
			parent_opened_add(&s->opened, g.text, false, s->run_dir);
		err = packet_send(s->p.rpc, &g, sizeof(g), NULL, 0);
	}
	return err;
}

static int open_guard(struct state *s)
{
	struct rpc_hello *h = &s->p.hello;
	char why[PATH_MAX + 128];

	s->guard.pid = -1;
	s->guard.pidfd = -1;
	if (!s->config->guard)
		return 0;
	if (guard_open(s->config->watchdog, &s->guard, why, sizeof(why))) {
		SAY(LOG_LEVEL_ERROR, "%s", why);
		return -EINVAL;
	}
	h->has_guard = true;
	h->guard_device_ms = s->guard.device_ms;
	snprintf(h->guard_device, sizeof(h->guard_device), "%.63s", s->config->watchdog);
	return 0;
}

static int start_worker(struct state *s, int control)
{
	int fds[] = { control, s->state_fd, s->guard.page_fd };
	int err = spawn_worker("lunfsd", fds, s->p.hello.has_guard ? 3 : 2, &s->worker);

	if (err)
		return err;
	/* Before the worker can attach anything. */
	if (s->p.hello.has_guard)
		err = guard_start(&s->guard, s->worker.pidfd);
	if (err)
		return err;
	s->p.worker = s->worker.pid;
	s->p.rpc = s->worker.rpc;
	err = packet_send(s->p.rpc, &s->p.hello, sizeof(s->p.hello), NULL, 0);
	return err ? err : send_given(s);
}

/* ---- requests ---- */

static void note_portals(struct state *s, const struct result *r)
{
	struct blkiscsi_target t = { .portal_count = r->portal_count };

	memcpy(t.portals, r->portals, sizeof(t.portals));
	parent_portals_add(&s->portals, &t);
}

static void note_results(struct state *s)
{
	struct result r;

	while (recv(s->results[0], &r, sizeof(r), MSG_DONTWAIT) == sizeof(r)) {
		if (r.op == RPC_OPEN) {
			note_portals(s, &r);
			if (r.asked)
				parent_opened_add(&s->opened, r.dir, true, s->run_dir);
			continue;
		}
		for (unsigned int i = 0; i < PARENT_MOUNTS_MAX; i++) {
			struct mount_entry *m = &s->mounts[i];

			if (r.op == RPC_MOUNT ? m->used :
			    !m->used || m->dev_minor != r.dev_minor || strcmp(m->dir, r.dir))
				continue;
			m->used = r.op == RPC_MOUNT;
			m->dev_minor = r.dev_minor;
			memcpy(m->dir, r.dir, sizeof(m->dir));
			break;
		}
	}
}

static bool is_our_mount(const struct state *s, const struct rpc_umount *rq)
{
	for (unsigned int i = 0; i < PARENT_MOUNTS_MAX; i++) {
		const struct mount_entry *m = &s->mounts[i];

		if (m->used && m->dev_minor == rq->dev_minor && !strcmp(m->dir, rq->dir))
			return true;
	}
	return false;
}

static bool mounts_full(const struct state *s)
{
	for (unsigned int i = 0; i < PARENT_MOUNTS_MAX; i++)
		if (!s->mounts[i].used)
			return false;
	return true;
}

static int run_operation(struct state *s, const struct rpc_request *rq, const int *fds,
			 unsigned int fd_count, struct rpc_reply *reply, int *out, unsigned int *out_count)
{
	struct result r = { .op = rq->op };
	int err;

	switch (rq->op) {
	case RPC_OPEN:
		err = parent_open(&s->p, &rq->open, fd_count ? fds : NULL, reply, out, out_count);
		r.asked = fd_count && !rq->open.flags;
		memcpy(r.dir, rq->open.path, sizeof(r.dir));
		if (!reply->open.is_lun)
			break;
		r.portal_count = reply->open.lun.portal_count;
		memcpy(r.portals, reply->open.lun.portals, sizeof(r.portals));
		break;
	case RPC_LISTEN:
		return parent_listen(&s->p, &rq->socket, reply, out, out_count);
	case RPC_UNLISTEN:
		return parent_unlisten(&s->p, &rq->socket, reply);
	case RPC_PORTAL:
		return parent_portal(s->config, &rq->portal, reply, out, out_count);
	case RPC_METRICS:
		return parent_metrics(s->config, reply, out, out_count);
	case RPC_DIAL:
		return parent_dial(&rq->dial, reply, out, out_count);
	case RPC_HOLD:
		return parent_hold(&s->p, &rq->hold, reply, out, out_count);
	case RPC_MOUNT:
		err = parent_mount(&s->p, &rq->mount, fds, reply, out, out_count);
		r.dev_minor = reply->mount.dev_minor;
		memcpy(r.dir, reply->mount.dir, sizeof(r.dir));
		break;
	case RPC_USERS:
		return parent_users(rq->umount.dev_minor, reply);
	case RPC_UMOUNT:
		err = parent_umount(&rq->umount, reply);
		r.dev_minor = rq->umount.dev_minor;
		memcpy(r.dir, rq->umount.dir, sizeof(r.dir));
		break;
	default:
		return parent_kill(&s->p, &rq->kill, fds, reply);
	}
	/* Before the reply: the worker's next request may build on it. */
	if (!err)
		send(s->results[1], &r, sizeof(r), MSG_NOSIGNAL);
	return err;
}

static void fill_reply(const struct rpc_request *rq, struct rpc_reply *reply, int err)
{
	reply->magic = RPC_MAGIC;
	reply->id = rq->id;
	reply->err = err;
	if (err && !reply->why[0])
		snprintf(reply->why, sizeof(reply->why), "%s", strerror(-err));
}

/* From the parent itself, which waits for nobody: a worker that takes no replies gets none. */
static void answer(struct state *s, const struct rpc_request *rq, struct rpc_reply *reply, int err)
{
	fill_reply(rq, reply, err);
	if (packet_send_now(s->p.rpc, reply, sizeof(*reply)))
		SAY(LOG_LEVEL_WARNING, "the worker does not take the reply to its request %u",
		    rq->op);
}

/* A process for each request: an open or umount that hangs holds up nobody's fencing. */
static int fork_operation(struct state *s, const struct rpc_request *rq, const int *fds,
			  unsigned int fd_count)
{
	static struct rpc_reply reply;	/* large; zero in every child process */
	int out[PACKET_FDS_MAX];
	unsigned int out_count = 0;
	pid_t me = getpid(), pid = fork();
	int err;

	if (pid)
		return pid < 0 ? -errno : 0;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != me)
		_exit(1);
	close(s->worker.life);
	close(s->lock_fd);	/* an operation that hangs keeps no successor from starting */
	err = run_operation(s, rq, fds, fd_count, &reply, out, &out_count);
	fill_reply(rq, &reply, err);
	packet_send(s->p.rpc, &reply, sizeof(reply), out, err ? 0 : out_count);
	_exit(0);
}

void parent_read_comm(uint32_t pid, char comm[25])
{
	char path[32];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%u/comm", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	n = read(fd, comm, 24);
	close(fd);
	comm[n > 0 ? n : 0] = '\0';
	comm[strcspn(comm, "\n")] = '\0';
}

/* Where the worker may not do it for itself, because the limit cannot be raised. */
static int make_realtime(const struct state *s, uint32_t tid)
{
	struct sched_param param = { .sched_priority = RPC_HEARTBEAT_PRIORITY };
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task/%u", (int)s->p.worker, tid);
	if (access(path, F_OK))
		return -EPERM;	/* no thread of ours */
	return sched_setscheduler((pid_t)tid, SCHED_RR | SCHED_RESET_ON_FORK, &param) ? -errno : 0;
}

/* What may be asked now; the rest is judged where it is done. */
static int admit(struct state *s, const struct rpc_request *rq, unsigned int fd_count,
		 struct rpc_reply *reply)
{
	int err = rpc_request_check(rq, fd_count, reply->why, sizeof(reply->why));

	if (err)
		return err;
	note_results(s);
	if ((rq->op == RPC_UMOUNT || rq->op == RPC_USERS) && !is_our_mount(s, &rq->umount)) {
		snprintf(reply->why, sizeof(reply->why), "%.300s: not mounted by this daemon",
			 rq->umount.dir);
		return -EPERM;
	}
	if (rq->op == RPC_MOUNT && mounts_full(s)) {
		snprintf(reply->why, sizeof(reply->why), "this daemon has %d mounts already",
			 PARENT_MOUNTS_MAX);
		return -EMFILE;
	}
	if (rq->op == RPC_OPEN && !fd_count && !parent_opened_has(&s->opened, rq->open.path)) {
		snprintf(reply->why, sizeof(reply->why), "%.300s: root has not asked to open it",
			 rq->open.path);
		return -EPERM;
	}
	if (rq->op == RPC_DIAL && !parent_portal_is_known(&s->portals, rq->dial.portal)) {
		snprintf(reply->why, sizeof(reply->why), "%s: not a portal of a LUN that root asked "
			 "to open", rq->dial.portal);
		return -EPERM;
	}
	if (s->operations < OPERATIONS_MAX - (rq->op == RPC_KILL ? 0 : OPERATIONS_KEPT))
		return 0;
	snprintf(reply->why, sizeof(reply->why), "%u operations hang already", s->operations);
	return -EAGAIN;
}

static void worker_ready(struct state *s)
{
	s->ready = true;
	notify_send("READY=1");
	SAY(LOG_LEVEL_INFO, "version %s serves as host %s on %s", LUNFS_VERSION,
	    s->p.hello.host_name, s->p.control_path);
}

static void handle_request(struct state *s)
{
	static struct rpc_request rq;
	struct rpc_reply reply;
	int fds[PACKET_FDS_MAX];
	unsigned int fd_count;
	int err = packet_recv(s->p.rpc, &rq, sizeof(rq), fds, &fd_count);

	if (err)
		return;	/* its end is reported by the pidfd; a malformed packet is dropped */
	memset(&reply, 0, sizeof(reply));
	err = admit(s, &rq, fd_count, &reply);
	if (err) {
		SAY(LOG_LEVEL_WARNING, "refused the worker's request %u: %s", rq.op, reply.why);
		answer(s, &rq, &reply, err);
	} else if (rq.op == RPC_READY) {
		worker_ready(s);
	} else if (rq.op == RPC_ALIVE) {
		notify_send("WATCHDOG=1");
	} else if (rq.op == RPC_CLOSED) {
		parent_opened_remove(&s->opened, rq.open.path, s->run_dir);
	} else if (rq.op == RPC_COMM) {
		parent_read_comm(rq.comm_pid, reply.comm);
		answer(s, &rq, &reply, 0);
	} else if (rq.op == RPC_REALTIME) {
		answer(s, &rq, &reply, make_realtime(s, rq.realtime_tid));
	} else {
		err = fork_operation(s, &rq, fds, fd_count);
		if (err)
			answer(s, &rq, &reply, err);
		else
			s->operations++;
	}
	packet_close_fds(fds, fd_count);
}

/* ---- the loop ---- */

static void handle_signal(struct state *s)
{
	struct signalfd_siginfo si;

	if (read(s->signals, &si, sizeof(si)) != sizeof(si))
		return;
	if (si.ssi_signo == SIGCHLD) {
		while (s->operations) {
			siginfo_t info = { 0 };

			/* Worker and guard stay to be waited for at the end. */
			if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) || !info.si_pid ||
			    info.si_pid == s->p.worker || info.si_pid == s->guard.pid)
				break;
			waitpid(info.si_pid, NULL, 0);
			s->operations--;
		}
	} else if (!s->stopping && si.ssi_signo != SIGHUP) {
		s->stopping = true;
		s->stop_until = env_now_ns(env_posix()) + s->stop_timeout * NSEC_PER_SEC;
		notify_send("STOPPING=1");
		SAY(LOG_LEVEL_INFO, "%s: unmounting and giving the datastores back",
		    strsignal((int)si.ssi_signo));
		spawn_tell_stop(&s->worker);
	}
}

static int worker_status(struct state *s)
{
	char why[256];
	enum spawn_end end = spawn_status(&s->worker, why, sizeof(why));

	if (end == SPAWN_ENDED && s->stopping)
		return 0;
	/* What failed before it was ready it has said itself. */
	if (end == SPAWN_KILLED || s->ready)
		SAY(LOG_LEVEL_ERROR, "%s", why);
	return 1;
}

/* Its process may stay until its I/O ends; the host locks that it holds keep that safe. */
static int give_up(struct state *s)
{
	struct pollfd pfd = { .fd = s->worker.pidfd, .events = POLLIN };

	SAY(LOG_LEVEL_ERROR, "not everything could be given back within %u s (does a device hang?): "
	    "ending the worker; other hosts recover what it had", s->stop_timeout);
	syscall(SYS_pidfd_send_signal, s->worker.pidfd, SIGKILL, NULL, 0);
	if (poll(&pfd, 1, KILL_MS) <= 0)
		SAY(LOG_LEVEL_ERROR, "the worker, process %d, is killed but does not end: its I/O "
		    "hangs in the kernel", (int)s->p.worker);
	return 1;
}

/* Milliseconds until the time for stopping is over; -1 for ever. */
static int stop_left(const struct state *s)
{
	uint64_t now = env_now_ns(env_posix());

	if (!s->stopping)
		return -1;
	return now < s->stop_until ? (int)((s->stop_until - now) / NSEC_PER_MSEC) + 1 : 0;
}

/* Other hosts rely on it.  A worker that goes on without it would be one that none watches. */
static void guard_is_gone(struct state *s)
{
	SAY(LOG_LEVEL_ERROR, "the guard was ended by somebody: ending the worker with it");
	syscall(SYS_pidfd_send_signal, s->worker.pidfd, SIGKILL, NULL, 0);
}

/* It ends with the worker, once it has stopped its watchdog device: killed before, it could not. */
static void wait_for_guard(const struct state *s)
{
	struct pollfd pfd = { .fd = s->guard.pidfd, .events = POLLIN };

	if (s->guard.pidfd >= 0 && poll(&pfd, 1, KILL_MS) > 0)
		waitpid(s->guard.pid, NULL, 0);
}

static int loop(struct state *s)
{
	struct pollfd pfd[] = {
		{ .fd = s->worker.pidfd, .events = POLLIN },
		{ .fd = s->signals, .events = POLLIN },
		{ .fd = s->p.rpc, .events = POLLIN },
		{ .fd = s->guard.pidfd, .events = POLLIN },
	};

	for (;;) {
		int left = stop_left(s), n = poll(pfd, ARRAY_SIZE(pfd), left);

		if (n < 0 && errno != EINTR)
			return 1;
		if (n < 0)
			continue;
		if (left == 0 && !pfd[0].revents)
			return give_up(s);
		/* First: once it is dead nothing of it counts any more. */
		if (pfd[0].revents)
			return worker_status(s);
		if (pfd[1].revents)
			handle_signal(s);
		if (pfd[3].revents) {
			guard_is_gone(s);
			pfd[3].fd = -1;
		}
		if (pfd[2].revents & POLLIN)
			handle_request(s);
		else if (pfd[2].revents)
			pfd[2].fd = -1;	/* closed: the pidfd follows */
	}
}

static int open_signals(struct state *s)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	s->signals = signalfd(-1, &set, SFD_CLOEXEC);
	return s->signals < 0 ? -errno : 0;
}

static int prepare(struct state *s, const struct config *c)
{
	struct rpc_hello *h = &s->p.hello;
	char why[256];

	h->magic = RPC_MAGIC;
	h->parent = getpid();
	h->log_level = (uint32_t)c->log_level;
	h->threads = c->threads;
	h->reactors = c->reactors;
	h->poll_us = c->poll_us;
	h->shares_depth = c->shares_depth;
	h->scrub_rate = c->scrub_rate;
	h->watchdog_ms = notify_watchdog_ms() / 2;
	h->given_count = c->given_count;
	h->has_metrics = c->metrics_port[0];
	s->config = c;
	s->stop_timeout = c->stop_timeout;
	strcpy(h->run_dir, c->run_dir);
	snprintf(s->p.control_path, sizeof(s->p.control_path), "%.*s/%s",
		 PATH_MAX - 32, c->run_dir, PARENT_CONTROL_SOCKET);
	if (geteuid()) {
		SAY(LOG_LEVEL_ERROR, "has to be started by root: it opens devices and mounts");
		return -EPERM;
	}
	if (spawn_user(c->user, &h->uid, &h->gid, why, sizeof(why))) {
		SAY(LOG_LEVEL_ERROR, "%s", why);
		return -EINVAL;
	}
	if (find_control_group(c, h) || parent_find_disk_group(c->disk_group, h) || find_host(c, h) ||
	    take_run_dir(s))
		return -EINVAL;
	return 0;
}

int parent_run(const struct config *c)
{
	static struct state s;	/* large, and one a process */
	int control, err, status;

	if (prepare(&s, c))
		return 1;
	control = bind_control(&s);
	if (control < 0)
		return 1;
	err = open_signals(&s);
	if (!err && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s.results))
		err = -errno;
	if (!err)
		err = open_guard(&s);
	if (!err)
		err = start_worker(&s, control);
	if (err)
		SAY(LOG_LEVEL_ERROR, "cannot start the worker: %s", strerror(-err));
	status = err ? 1 : loop(&s);
	wait_for_guard(&s);
	unlinkat(s.run_dir, PARENT_CONTROL_SOCKET, 0);
	return status;
}
