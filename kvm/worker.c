/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The confined half of lunvm: the machine.  It begins with what its parent gives it, gives all
 * privileges up, and only then looks at kernels, guests and servers.
 */
#include "kvm/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "kvm/control.h"
#include "kvm/jail.h"
#include "kvm/machine.h"
#include "proc/packet.h"
#include "proc/sandbox.h"
#include "proc/spawn.h"

#define TAIL_PATIENCE_MS	2000	/* without a byte taken */
#define TAIL_PAUSE_MS		10

enum { FD_KVM, FD_CONTROL, FD_KERNEL, FD_INITRD };	/* of PLAN_BEGIN, in this order */

struct worker {
	struct plan_packet in;
	int		fds[PACKET_FDS_MAX];
	unsigned int	fd_count;
	struct vm_plan	plan;
	struct machine	machine;
};

/* ---- to the parent ---- */

static int tell(enum plan_op op, uint32_t disk, enum vm_exit status, const char *why)
{
	struct plan_packet p = { .magic = PLAN_MAGIC, .op = op, .disk = disk, .status = status };

	snprintf(p.why, sizeof(p.why), "%s", why);
	return packet_send(SPAWN_FD_RPC, &p, sizeof(p), NULL, 0);
}

static void __attribute__((noreturn)) fail(enum vm_exit status, const char *why)
{
	tell(PLAN_END, 0, status, why);
	_exit(0);
}

static void want_disk(struct machine *m, unsigned int disk)
{
	if (tell(PLAN_WANT, disk, 0, ""))
		machine_end(m, VM_EXIT_FAILED, "the launcher's other half is gone");
}

/* ---- from the parent ---- */

static int receive(struct worker *w)
{
	int err = packet_recv(SPAWN_FD_RPC, &w->in, sizeof(w->in), w->fds, &w->fd_count);

	if (err)
		return err;
	if (w->in.magic == PLAN_MAGIC)
		return 0;
	packet_close_fds(w->fds, w->fd_count);
	return -EPROTO;
}

static void take_disk(struct worker *w)
{
	if (w->fd_count == 1 && w->in.disk < w->plan.disk_count)
		disk_attach(&w->machine.disks[w->in.disk], w->fds[0]);
	else
		packet_close_fds(w->fds, w->fd_count);
}

static void take_packet(struct worker *w)
{
	struct machine *m = &w->machine;

	if (receive(w))
		_exit(1);	/* the parent is gone, and so are we */
	switch (w->in.op) {
	case PLAN_DISK:
		take_disk(w);
		break;
	case PLAN_GONE:
		w->in.why[sizeof(w->in.why) - 1] = '\0';
		machine_end(m, (enum vm_exit)w->in.status, "%s", w->in.why);
		break;
	case PLAN_BUTTON:
		machine_press_button(m);
		break;
	case PLAN_KILL:
		machine_end(m, VM_EXIT_KILLED, "killed");
		break;
	default:
		packet_close_fds(w->fds, w->fd_count);
	}
}

/* ---- beginning ---- */

/* One arena, little of it kept: the launcher's own memory is counted in kilobytes. */
static void be_thrifty(void)
{
	mallopt(M_ARENA_MAX, 1);
	mallopt(M_TRIM_THRESHOLD, 64 << 10);
	mallopt(M_TOP_PAD, 16 << 10);
}

static void confine(struct worker *w)
{
	const char *what = "seccomp";
	char why[VM_WHY_SIZE];
	int err = jail_enter(w->plan.uid, w->plan.gid, w->plan.parent, &w->machine.jail,
			     &what);

	if (!err) {
		what = "seccomp";
		err = jail_filter(JAIL_START);
	}
	if (!err)
		return;
	snprintf(why, sizeof(why), "the launcher cannot give its privileges up: %s: %s", what,
		 strerror(-err));
	fail(VM_EXIT_FAILED, why);
}

static void begin(struct worker *w)
{
	char why[VM_WHY_SIZE] = "";
	int err = receive(w);

	if (err || w->in.op != PLAN_BEGIN || w->fd_count != (w->in.plan.initrd ? 4 : 3))
		_exit(1);
	w->plan = w->in.plan;
	confine(w);
	err = machine_create(&w->machine, &w->plan, w->fds[FD_KVM], w->fds[FD_KERNEL],
			     w->plan.initrd ? w->fds[FD_INITRD] : -1, why, sizeof(why));
	if (err)
		fail(err == -ENOEXEC || err == -E2BIG ? VM_EXIT_CONFIG : VM_EXIT_FAILED, why);
	close(w->fds[FD_KERNEL]);
	if (w->plan.initrd)
		close(w->fds[FD_INITRD]);
}

static void init_disks(struct worker *w)
{
	struct machine *m = &w->machine;

	m->want_disk = want_disk;
	for (unsigned int i = 0; i < w->plan.disk_count; i++) {
		int err = disk_init(m, i);

		if (err)
			fail(VM_EXIT_FAILED, strerror(-err));
		want_disk(m, i);
	}
}

static bool all_claimed(struct machine *m)
{
	bool all = true;

	pthread_mutex_lock(&m->mutex);
	for (unsigned int i = 0; i < m->plan->disk_count; i++)
		all = all && m->disks[i].claimed;
	pthread_mutex_unlock(&m->mutex);
	return all;
}

struct tail { struct machine *m; bool stopped; uint64_t behind; };

/* First the vCPUs are told to leave their guest: there is to be no more of it. */
static void flush_tail(void *arg)
{
	struct tail *t = arg;

	if (!t->stopped && atomic_load(&t->m->state) != MACHINE_STARTING)
		cpu_kick_all(t->m);
	t->stopped = true;
	console_flush(&t->m->console);
	t->behind = console_behind(&t->m->console);
}

/*
 * The last lines before a crash are those that count: whoever reads standard output slowly gets them, as
 * long as he reads.
 */
static void hand_tail_on(struct machine *m)
{
	struct tail t = { .m = m };
	uint64_t before = UINT64_MAX;

	for (unsigned int waited_ms = 0; waited_ms < TAIL_PATIENCE_MS; waited_ms += TAIL_PAUSE_MS) {
		reactor_call_sync(m->reactor, flush_tail, &t);
		if (!t.behind)
			return;
		if (t.behind < before)
			waited_ms = 0;
		before = t.behind;
		poll(NULL, 0, TAIL_PAUSE_MS);
	}
}

static void __attribute__((noreturn)) end(struct worker *w)
{
	struct machine *m = &w->machine;

	hand_tail_on(m);
	tell(PLAN_END, 0, m->status, m->why);
	_exit(0);	/* with all its threads, wherever they are */
}

static void wait_event(struct worker *w)
{
	struct pollfd pfd[] = {
		{ .fd = SPAWN_FD_RPC, .events = POLLIN },
		{ .fd = w->machine.wake_fd, .events = POLLIN },
	};
	eventfd_t count;
	bool ended;

	if (poll(pfd, ARRAY_SIZE(pfd), -1) <= 0)
		return;
	if (pfd[1].revents)
		eventfd_read(w->machine.wake_fd, &count);
	pthread_mutex_lock(&w->machine.mutex);
	ended = w->machine.ended;
	pthread_mutex_unlock(&w->machine.mutex);
	if (ended)
		end(w);
	if (pfd[0].revents)
		take_packet(w);
}

static void confine_reactor(void *arg)
{
	*(int *)arg = jail_filter(JAIL_EVENTS);
}

static void narrow(struct worker *w)
{
	int err;

	reactor_call_sync(w->machine.reactor, confine_reactor, &err);
	if (!err)
		err = jail_filter(JAIL_MAIN);
	if (err)
		fail(VM_EXIT_FAILED, "the launcher's threads cannot be confined");
}

void vm_worker_run(void)
{
	static struct worker w;		/* large, and one a process */
	struct control *control;
	char why[VM_WHY_SIZE] = "";
	int control_fd, err;

	prctl(PR_SET_NAME, "lunvm");
	spawn_ignore_signals();
	be_thrifty();
	begin(&w);
	console_init(&w.machine.console, w.machine.reactor, &w.machine.uart,
		     w.plan.foreground ? STDOUT_FILENO : -1);
	init_disks(&w);
	control_fd = w.fds[FD_CONTROL];
	while (!all_claimed(&w.machine))
		wait_event(&w);
	err = machine_plug(&w.machine, why, sizeof(why));
	if (err)
		fail(VM_EXIT_FAILED, why);
	narrow(&w);
	/* Only now: nobody is to reach a thread that may still do more than it has to. */
	err = control_new(&w.machine, control_fd, &control);
	if (err)
		fail(VM_EXIT_FAILED, strerror(-err));
	malloc_trim(0);
	machine_go(&w.machine);
	tell(PLAN_RUNNING, 0, 0, "");
	for (;;)
		wait_event(&w);
}
