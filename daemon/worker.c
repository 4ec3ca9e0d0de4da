/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/machine.h"
#include "daemon/checker.h"
#include "daemon/config.h"
#include "daemon/guard.h"
#include "daemon/metrics.h"
#include "proc/sandbox.h"
#include "proc/spawn.h"

struct worker {
	struct rpc_hello hello;
	struct rpc_client rpc;
	struct serving	serving;
	struct rpc_given *given;
	int		parent_stat;	/* /proc/PARENT/stat */
	uint64_t	pid_start;
	struct guard_page *guard;	/* NULL: none watches */
	int		memory_err;	/* of locking memory, to be logged once there is a log */
};

#define SAY(level, ...)	env_log(env_posix(), level, "lunfsd", __VA_ARGS__)

static int go_realtime_now(struct worker *w)
{
	struct sched_param param = { .sched_priority = RPC_HEARTBEAT_PRIORITY };
	struct rpc_request rq = { .op = RPC_REALTIME };
	struct rpc_reply reply;

	if (!sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &param))
		return 0;
	rq.realtime_tid = (uint32_t)gettid();
	return rpc_call(&w->rpc, &rq, -1, &reply, NULL, NULL);
}

/*
 * From its first beat on; threads that it starts, if any, are not.  Where neither the limit
 * nor the parent's privileges allow it the heartbeat competes like everybody.
 */
static void go_realtime(struct worker *w)
{
	static __thread bool tried;
	static atomic_flag said = ATOMIC_FLAG_INIT;
	int err;

	if (tried)
		return;
	tried = true;
	err = go_realtime_now(w);
	if (err && !atomic_flag_test_and_set(&said))
		SAY(LOG_LEVEL_WARNING, "the heartbeat cannot run in real time: %s; under heavy load "
		    "it may be late", strerror(-err));
}

/*
 * Asked by the heartbeat before each beat.  A daemon whose privileged half is stopped can
 * neither fence nor unmount: it counts as frozen as a whole, and stops beating.  So does one
 * whose guard is stopped: nobody would end it if it froze.
 */
static bool may_beat(void *arg)
{
	struct worker *w = arg;
	char text[1024], state = 0;
	uint64_t start;
	ssize_t n = pread(w->parent_stat, text, sizeof(text) - 1, 0);

	if (n <= 0)
		return false;
	text[n] = '\0';
	if (machine_parse_stat(text, &start, &state) || state == 'T' || state == 't')
		return false;
	if (w->guard && !guard_is_alive(w->guard))
		return false;
	go_realtime(w);	/* asks the parent, which runs */
	return true;
}

/* ---- from privileged to not ---- */

static int receive_hello(struct worker *w)
{
	int fds[PACKET_FDS_MAX];
	unsigned int fd_count;
	int err = packet_recv(SPAWN_FD_RPC, &w->hello, sizeof(w->hello), fds, &fd_count);

	if (err)
		return err;
	packet_close_fds(fds, fd_count);
	if (w->hello.magic != RPC_MAGIC || w->hello.given_count > CONFIG_GIVEN_MAX)
		return -EPROTO;
	w->given = calloc(w->hello.given_count + 1, sizeof(*w->given));
	err = w->given ? 0 : -ENOMEM;
	for (unsigned int i = 0; i < w->hello.given_count && !err; i++) {
		err = packet_recv(SPAWN_FD_RPC, &w->given[i], sizeof(w->given[i]), fds, &fd_count);
		if (!err)
			packet_close_fds(fds, fd_count);
	}
	return err;
}

/* What has to be opened or asked for while it is still allowed. */
static int open_views(struct worker *w)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)w->hello.parent);
	w->parent_stat = open(path, O_RDONLY | O_CLOEXEC);
	if (w->parent_stat < 0)
		return -errno;
	if (w->hello.has_guard) {
		w->guard = guard_map(RPC_FD_GUARD);
		close(RPC_FD_GUARD);
		if (!w->guard)
			return -ENOMEM;
	}
	return machine_process_start((uint32_t)getpid(), &w->pid_start, NULL);
}

static int confine(struct worker *w)
{
	const char *what = "seccomp";
	int err;

	sandbox_keep_realtime();
	err = sandbox_drop(w->hello.uid, w->hello.gid, w->hello.parent, &what);
	if (!err) {
		w->memory_err = sandbox_lock_memory();
		what = "seccomp";
		err = sandbox_filter();
	}
	if (err)
		SAY(LOG_LEVEL_ERROR, "the worker cannot give its privileges up: %s: %s", what,
		    strerror(-err));
	return err;
}

/* ---- running ---- */

static char *all_metrics(void *arg)
{
	struct serving *s = arg;

	return metrics_text(&s->stores, &s->disks);
}

/* Guests do not wait for a port that another program has: it is told, and the daemon goes on without. */
static void serve_metrics(struct worker *w)
{
	struct metrics_http_params p = { .text = all_metrics, .arg = &w->serving };
	struct rpc_request rq = { .op = RPC_METRICS };
	struct rpc_reply reply = { .err = 0 };
	int fds[PACKET_FDS_MAX], err;
	unsigned int fd_count = 0;

	if (!w->hello.has_metrics)
		return;
	err = rpc_call(&w->rpc, &rq, -1, &reply, fds, &fd_count);
	if (!err) {
		p.sock = fds[0];
		err = metrics_http_start(&p, &w->serving.metrics);
	}
	if (err)
		SAY(LOG_LEVEL_ERROR, "metrics are not served: %s", reply.why[0] ? reply.why :
		    strerror(-err));
}

static int serve(struct worker *w)
{
	struct rpc_request ready = { .magic = RPC_MAGIC, .op = RPC_READY };
	int err = rpc_client_start(&w->rpc, SPAWN_FD_RPC);
	struct serving *s = &w->serving;

	if (!err)
		err = stores_init(&s->stores, &w->rpc, &w->hello, w->pid_start, w->guard, may_beat, w);
	if (!err)
		err = disks_init(&s->disks, &s->stores, &w->rpc, &w->hello, RPC_FD_STATE, w->given);
	if (!err)
		err = merger_start(&s->merger, &s->stores, &s->disks);
	if (!err)
		err = scrubber_start(&s->stores, w->hello.scrub_rate);
	if (!err)
		err = ctl_start(&s->ctl, RPC_FD_CONTROL, &s->stores, &s->disks, &w->hello);
	if (!err)
		serve_metrics(w);
	return err ? err : packet_send(SPAWN_FD_RPC, &ready, sizeof(ready), NULL, 0);
}

int serving_end(struct serving *s)
{
	int err;

	ctl_end(&s->ctl);
	metrics_http_end(s->metrics);
	merger_stop(&s->merger);
	disks_give_up(&s->disks);
	err = stores_shutdown(&s->stores);
	/*
	 * Who asks may hang in a datastore whose device does: neither disks nor datastores of others wait
	 * for that, but what was still used is freed after it.
	 */
	metrics_http_stop(s->metrics);
	ctl_stop(&s->ctl);
	disks_shutdown(&s->disks);
	return err;
}

int worker_run(void)
{
	static struct worker w;	/* one a process; outlives the threads that use it */
	int err;

	prctl(PR_SET_NAME, "lunfsd-worker");
	spawn_ignore_signals();
	err = receive_hello(&w);
	if (err)
		return 1;
	env_posix_log_level((enum log_level)w.hello.log_level);
	env_posix_log_limit();
	err = open_views(&w);
	if (err) {
		SAY(LOG_LEVEL_ERROR, "/proc cannot be read: %s", strerror(-err));
		return 1;
	}
	if (confine(&w))
		return 1;
	if (sandbox_filter_is_open())
		SAY(LOG_LEVEL_WARNING, "the system call filter only logs (LUNFS_SECCOMP, or a build "
		    "with sanitizers): for debugging, not for service");
	if (w.memory_err)
		SAY(LOG_LEVEL_WARNING, "memory cannot be locked: %s; the heartbeat may be late when "
		    "the machine swaps", strerror(-w.memory_err));
	err = serve(&w);
	if (err) {
		SAY(LOG_LEVEL_ERROR, "the worker cannot start: %s", strerror(-err));
		return 1;
	}
	spawn_wait_stop();
	err = serving_end(&w.serving);
	/* Not exit(): threads that serve connections are still there. */
	fflush(NULL);
	_exit(err ? 1 : 0);
}
