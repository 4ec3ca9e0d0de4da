/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The half of lunvm that may open things: it opens what the configuration names, hands it to the
 * worker, fetches disks again when their server was away, and says how it all ended.  It
 * never sees the guest: from the worker it takes three messages of fixed size.
 */
#include "kvm/parent.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/env.h"
#include "base/text.h"
#include "kvm/restart.h"
#include "kvm/source.h"
#include "proc/notify.h"
#include "proc/packet.h"
#include "proc/spawn.h"

#define RETRY_MS	200	/* while the daemon is away */
#define LISTEN_BACKLOG	128

struct parent {
	const struct vm_config *c;
	const struct run_options *options;
	int		lock, listen, kernel, initrd, kvm;
	char		socket_path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	struct spawn	worker;
	int		signals;
	int		ready;		/* pipe to whoever waits for the start; -1: nobody */
	int		messages;	/* where the last line goes */
	int		events;		/* where JSON goes; -1: nowhere */
	bool		running;	/* the guest has begun */
	uint64_t	begun_ns;	/* when */
	unsigned int	stops;		/* SIGTERMs so far */
	unsigned int	quick;		/* short lives in a row: restart.h */
	bool		wanted[VM_DISKS_MAX];	/* asked for before */
	pid_t		fetchers[VM_DISKS_MAX];	/* processes that ask; 0: none */
	struct source_hold *holds;	/* of each disk; shared with the fetchers */
	enum vm_exit	status;
	char		why[VM_WHY_SIZE];
};

#define FAIL(p, st, ...) \
	((p)->status = (st), text_refuse(-EINVAL, (p)->why, sizeof((p)->why), __VA_ARGS__))

int parent_socket_path(const char *run_dir, const char *name, char *path, size_t path_size)
{
	return snprintf(path, path_size, "%s/%s.sock", run_dir, name) < (int)path_size ? 0 :
	       -ENAMETOOLONG;
}

/* ---- what is opened before anything starts ---- */

/* One machine of a name: the lock goes with the process, however it ends. */
static int take_name(struct parent *p)
{
	const char *dir = p->options->run_dir;
	char path[PATH_MAX];

	if (parent_socket_path(dir, p->c->name, p->socket_path, sizeof(p->socket_path)))
		return FAIL(p, VM_EXIT_CONFIG, "%s/%s.sock: too long for a socket's name", dir,
			    p->c->name);
	snprintf(path, sizeof(path), "%s/%s.lock", dir, p->c->name);
	p->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (p->lock < 0)
		return FAIL(p, VM_EXIT_FAILED, "%s: %s", path, strerror(errno));
	if (flock(p->lock, LOCK_EX | LOCK_NB))
		return FAIL(p, VM_EXIT_LOCKED, "a machine of this name runs on this host already; see "
			    "\"lunvm status %s\"", p->c->name);
	return 0;
}

static int open_control(struct parent *p)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	mode_t old;
	int err = 0;

	memcpy(a.sun_path, p->socket_path, sizeof(a.sun_path));
	p->listen = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	unlink(p->socket_path);	/* of one that was killed: the name is ours */
	old = umask(0177);
	if (p->listen < 0 || bind(p->listen, (struct sockaddr *)&a, sizeof(a)) ||
	    listen(p->listen, LISTEN_BACKLOG))
		err = FAIL(p, VM_EXIT_FAILED, "%s: %s", p->socket_path, strerror(errno));
	umask(old);
	return err;
}

static int open_kvm(struct parent *p)
{
	p->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (p->kvm >= 0)
		return 0;
	return FAIL(p, VM_EXIT_FAILED, "/dev/kvm: %s; %s", strerror(errno), errno == EACCES ?
		    "run it as root, or as a member of the group kvm" :
		    "this host offers no virtualisation: look at its firmware, or load kvm-intel or "
		    "kvm-amd");
}

static int open_file(struct parent *p, const char *what, const char *name, int *fd)
{
	char why[VM_WHY_SIZE];

	*fd = source_open(name, p->options->daemon_dir, &p->status, why, sizeof(why));
	return *fd >= 0 ? 0 : FAIL(p, p->status, "%s %s", what, why);
}

/* It would begin to run, and be killed for want of memory later. */
static int check_memory(struct parent *p)
{
	char wanted[24], there[24];
	struct sysinfo host;
	uint64_t size;

	if (sysinfo(&host))
		return 0;
	size = ((uint64_t)host.totalram + host.totalswap) * host.mem_unit;
	if (p->c->memory <= size)
		return 0;
	return FAIL(p, VM_EXIT_CONFIG, "it is to have %s of memory, and this host has %s with its swap "
		    "space", text_format_size(p->c->memory, wanted, sizeof(wanted)),
		    text_format_size(size, there, sizeof(there)));
}

static int open_all(struct parent *p)
{
	int err = take_name(p);

	if (!err)
		err = check_memory(p);
	if (!err)
		err = open_kvm(p);
	if (!err)
		err = open_file(p, "kernel", p->c->kernel, &p->kernel);
	if (!err && *p->c->initrd)
		err = open_file(p, "initrd", p->c->initrd, &p->initrd);
	return err ? err : open_control(p);
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* ---- the worker ---- */

/*
 * A terminal that nobody reads any more (Ctrl-S, a connection that hangs) must not hold the worker up,
 * and making it non-blocking would do so for the shell, too: it gets a description of its own.
 */
static void reopen_terminal(void)
{
	int fd = isatty(STDOUT_FILENO) ? open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY |
					      O_CLOEXEC) : -1;

	if (fd < 0)
		return;
	dup2(fd, STDOUT_FILENO);
	close(fd);
}

static void fill_plan(const struct parent *p, struct vm_plan *plan)
{
	strcpy(plan->name, p->c->name);
	plan->memory = p->c->memory;
	plan->cpus = p->c->cpus;
	plan->disk_count = p->c->disk_count;
	for (unsigned int i = 0; i < p->c->disk_count; i++) {
		strcpy(plan->disks[i].name, p->c->disks[i].source);
		plan->disks[i].read_only = p->c->disks[i].read_only;
	}
	strcpy(plan->cmdline, p->c->cmdline);
	plan->initrd = p->initrd >= 0;
	plan->foreground = !p->options->detach && !p->options->json;
	plan->parent = getpid();
	plan->start_ns = p->options->start_ns;
}

static int start_worker(struct parent *p)
{
	struct plan_packet packet = { .magic = PLAN_MAGIC, .op = PLAN_BEGIN };
	const int fds[] = { p->kvm, p->listen, p->kernel, p->initrd };
	char why[256] = "";
	int err = 0;

	fill_plan(p, &packet.plan);
	packet.plan.uid = geteuid();
	packet.plan.gid = getegid();
	/* Started by somebody else than root it has nothing to give up but what that one may do. */
	if (!geteuid())
		err = spawn_user(p->options->user, &packet.plan.uid, &packet.plan.gid, why,
				 sizeof(why));
	if (err)
		return FAIL(p, VM_EXIT_CONFIG, "%s", why);
	err = spawn_worker(LUNVM_NAME, NULL, 0, &p->worker);
	if (!err)
		err = packet_send(p->worker.rpc, &packet, sizeof(packet), fds,
				  p->initrd >= 0 ? 4 : 3);
	return err ? FAIL(p, VM_EXIT_FAILED, "cannot start the machine: %s", strerror(-err)) : 0;
}

/* ---- disks ---- */

/*
 * Launchers that want one disk in the same moment would take each other's attachments for what a dead one
 * left.  One file, a byte of it for each path: disks that meet there only wait.  Until the process ends.
 */
static void lock_disk(const struct parent *p, const char *source)
{
	struct flock l = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1 };
	const char *s = strstr(source, ":/");
	char path[PATH_MAX];
	int fd;

	for (; s && *s; s++)
		l.l_start = (l.l_start * 31 + (unsigned char)*s) & 0xffffff;
	snprintf(path, sizeof(path), "%s/.disks.lock", p->options->run_dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0)	/* else the race is on, which the disk's own lock decides */
		fcntl(fd, F_OFD_SETLKW, &l);
}

/*
 * A process of its own, because the daemon's answer may take as long as a dead host's recovery:
 * the machine can be stopped meanwhile.
 */
static void __attribute__((noreturn)) fetch_disk(struct parent *p, uint32_t disk)
{
	const struct timespec pause = { .tv_nsec = RETRY_MS * 1000000L };
	struct plan_packet packet = { .magic = PLAN_MAGIC, .op = PLAN_DISK, .disk = disk };
	enum vm_exit status = VM_EXIT_FAILED;
	int fd;

	if (!p->wanted[disk])
		lock_disk(p, p->c->disks[disk].source);
	for (;;) {
		fd = source_connect(&p->c->disks[disk], p->c->name, p->options->daemon_dir,
				    &p->holds[disk], &status, packet.why, sizeof(packet.why));
		if (fd >= 0 || !p->wanted[disk] || status != VM_EXIT_NO_DAEMON)
			break;
		nanosleep(&pause, NULL);
	}
	if (fd < 0) {
		packet.op = PLAN_GONE;
		/* What was ours while it ran is not any more. */
		packet.status = p->running ? VM_EXIT_LOST : status == VM_EXIT_LOST ? VM_EXIT_LOCKED : status;
	}
	packet_send(p->worker.rpc, &packet, sizeof(packet), &fd, fd >= 0 ? 1 : 0);
	_exit(0);
}

static void start_fetching(struct parent *p, uint32_t disk)
{
	sigset_t none;
	pid_t pid;

	if (disk >= p->c->disk_count || p->fetchers[disk])
		return;		/* nobody sane asks */
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		fetch_disk(p, disk);
	}
	if (pid < 0) {
		FAIL(p, VM_EXIT_FAILED, "cannot fetch a disk: %s", strerror(errno));
		kill(p->worker.pid, SIGKILL);
		return;
	}
	p->fetchers[disk] = pid;
	p->wanted[disk] = true;
}

static void reap_fetchers(struct parent *p, bool kill_them)
{
	for (unsigned int i = 0; i < VM_DISKS_MAX; i++) {
		if (!p->fetchers[i])
			continue;
		if (kill_them)
			kill(p->fetchers[i], SIGKILL);
		if (waitpid(p->fetchers[i], NULL, kill_them ? 0 : WNOHANG))
			p->fetchers[i] = 0;
	}
}

/* ---- while it runs ---- */

/* Who started it detached hears of its first life's beginning only. */
static void tell_event(struct parent *p, json_t *event)
{
	if (event)
		json_object_set_new(event, "name", json_string(p->c->name));
	if (p->events >= 0)
		report_json(p->events, event);
	else
		json_decref(event);
}

static void tell_ready(struct parent *p)
{
	p->running = true;
	p->begun_ns = env_now_ns(env_posix());
	tell_event(p, json_pack("{s:s, s:i}", "event", "running", "pid", (int)getpid()));
	notify_send("READY=1");
	if (p->ready < 0)
		return;
	if (write(p->ready, "r", 1) == 1)	/* else nobody waits any more */
		p->messages = STDERR_FILENO;
	close_fd(&p->ready);
	close_fd(&p->events);
}

static void take_packet(struct parent *p)
{
	struct plan_packet packet;
	int fds[PACKET_FDS_MAX];
	unsigned int fd_count;

	if (packet_recv(p->worker.rpc, &packet, sizeof(packet), fds, &fd_count)) {
		close_fd(&p->worker.rpc);	/* its end is near */
		return;
	}
	packet_close_fds(fds, fd_count);
	if (packet.magic != PLAN_MAGIC)
		return;
	switch (packet.op) {
	case PLAN_RUNNING:
		tell_ready(p);
		break;
	case PLAN_WANT:
		reap_fetchers(p, false);
		start_fetching(p, packet.disk);
		break;
	case PLAN_END:
		p->status = (enum vm_exit)packet.status;
		text_printable(packet.why, sizeof(packet.why), p->why, sizeof(p->why));
		break;
	default:
		break;
	}
}

/* The first SIGTERM is the power button, the second the plug. */
static void take_signal(struct parent *p)
{
	struct plan_packet packet = { .magic = PLAN_MAGIC };
	struct signalfd_siginfo info;

	if (read(p->signals, &info, sizeof(info)) != sizeof(info))
		return;
	if (info.ssi_signo == SIGCHLD) {
		reap_fetchers(p, false);
		return;
	}
	packet.op = p->stops++ && p->running ? PLAN_KILL : PLAN_BUTTON;
	if (!p->running)
		packet.op = PLAN_KILL;
	packet_send(p->worker.rpc, &packet, sizeof(packet), NULL, 0);
}

static void watch(struct parent *p)
{
	for (;;) {
		struct pollfd pfd[] = {
			{ .fd = p->worker.rpc, .events = POLLIN },
			{ .fd = p->signals, .events = POLLIN },
			{ .fd = p->worker.pidfd, .events = POLLIN },
		};

		if (poll(pfd, ARRAY_SIZE(pfd), -1) < 0)
			continue;
		if (pfd[0].revents)
			take_packet(p);
		else if (pfd[2].revents)
			return;
		if (pfd[1].revents)
			take_signal(p);
	}
}

static void block_signals(struct parent *p)
{
	static const int signals[] = { SIGTERM, SIGINT, SIGHUP, SIGCHLD };
	sigset_t set;

	sigemptyset(&set);
	for (unsigned int i = 0; i < ARRAY_SIZE(signals); i++)
		sigaddset(&set, signals[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	p->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	signal(SIGPIPE, SIG_IGN);
}

/* ---- from beginning to end ---- */

/* One life of the machine: until it is powered off, reset, or worse. */
static void run_once(struct parent *p)
{
	char why[VM_WHY_SIZE];

	p->running = false;
	p->stops = 0;
	for (unsigned int i = 0; i < p->c->disk_count; i++)
		p->holds[i].birth = 0;
	memset(p->wanted, 0, sizeof(p->wanted));
	p->status = VM_EXIT_FAILED;
	p->why[0] = '\0';
	if (start_worker(p))
		return;
	watch(p);
	if (spawn_status(&p->worker, why, sizeof(why)) != SPAWN_ENDED || !*p->why) {
		if (!*p->why)
			FAIL(p, VM_EXIT_FAILED, "its machine is gone: %s", why);
	}
	reap_fetchers(p, true);
	close_fd(&p->worker.rpc);
	close_fd(&p->worker.life);
	close_fd(&p->worker.pidfd);
}

/* Its guest has reset it.  Return: whether it begins anew. */
static bool begin_again(struct parent *p)
{
	uint64_t lived_ms = (env_now_ns(env_posix()) - p->begun_ns) / 1000000;
	unsigned int pause_ms = restart_pause_ms(&p->quick, lived_ms);

	if (pause_ms)
		dprintf(p->messages, LUNVM_NAME ": %s: %s again, %.1f s after it began; starting it again "
			"in %u s\n", p->c->name, p->why, (double)lived_ms / 1000, pause_ms / 1000);
	else
		dprintf(p->messages, LUNVM_NAME ": %s: %s; starting it again\n", p->c->name, p->why);
	tell_event(p, json_pack("{s:s, s:i}", "event", "restarting", "pause_ms", (int)pause_ms));
	if (restart_wait(p->c, p->listen, p->signals, pause_ms))
		return true;
	FAIL(p, VM_EXIT_KILLED, "ended before it was started again");
	return false;
}

static void tell_end(struct parent *p)
{
	char why[VM_WHY_SIZE];
	json_t *end;

	text_printable(p->why, sizeof(p->why), why, sizeof(why));
	dprintf(p->messages, LUNVM_NAME ": %s: %s\n", p->c->name, why);
	end = report_end(p->status, why);
	if (end)
		json_object_set_new(end, "event", json_string("ended"));
	tell_event(p, end);
}

static enum vm_exit run_to_the_end(struct parent *p)
{
	block_signals(p);
	p->holds = mmap(NULL, VM_DISKS_MAX * sizeof(*p->holds), PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (p->holds == MAP_FAILED) {
		FAIL(p, VM_EXIT_FAILED, "%s", strerror(errno));
	} else if (!open_all(p)) {
		do {
			run_once(p);
		} while (p->status == VM_EXIT_RESET && p->c->restart && begin_again(p));
		unlink(p->socket_path);
		for (unsigned int i = 0; i < p->c->disk_count; i++)
			if (p->holds[i].made)
				source_release(&p->c->disks[i], p->options->daemon_dir);
	}
	tell_end(p);
	return p->status;
}

/* Nobody looks on once it runs: what there is to say then goes to a file beside the socket. */
static void leave_terminal(struct parent *p)
{
	char path[PATH_MAX];
	int log, null = open("/dev/null", O_RDWR | O_CLOEXEC);

	snprintf(path, sizeof(path), "%s/%s.log", p->options->run_dir, p->c->name);
	log = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	setsid();
	p->messages = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	if (p->events >= 0)
		p->events = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	dup2(log >= 0 ? log : null, STDERR_FILENO);
}

/* What whoever typed the command waits for. */
static int wait_running(pid_t pid, int ready)
{
	char c;
	int status = 0;

	if (read(ready, &c, 1) == 1)
		return VM_EXIT_POWER_OFF;
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : VM_EXIT_FAILED;
}

static int run_detached(struct parent *p)
{
	int ready[2];
	pid_t pid;

	if (pipe2(ready, O_CLOEXEC))
		return VM_EXIT_FAILED;
	pid = fork();
	if (pid < 0)
		return report_failure(p->options->json, p->c->name, VM_EXIT_FAILED, "%s",
				      strerror(errno));
	if (pid) {
		close(ready[1]);
		return wait_running(pid, ready[0]);
	}
	close(ready[0]);
	p->ready = ready[1];
	leave_terminal(p);
	_exit((int)run_to_the_end(p));
}

int parent_run(const struct vm_config *c, const struct run_options *options)
{
	struct parent p = { .c = c, .options = options, .lock = -1, .listen = -1, .kernel = -1,
			    .initrd = -1, .kvm = -1, .signals = -1, .ready = -1,
			    .messages = STDERR_FILENO,
			    .events = options->json ? STDOUT_FILENO : -1 };

	if (mkdir(options->run_dir, 0755) && errno != EEXIST)
		return report_failure(options->json, c->name, VM_EXIT_FAILED, "%s: %s",
				      options->run_dir, strerror(errno));
	if (options->detach)
		return run_detached(&p);
	if (!options->json)
		reopen_terminal();
	return (int)run_to_the_end(&p);
}
