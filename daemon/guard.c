/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/watchdog.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/env.h"
#include "base/text.h"

#define FD_WORKER	3
#define FD_DEVICE	4
#define PRIORITY	6	/* of SCHED_RR: above the heartbeat's */

#define SAY(level, ...)	env_log(env_posix(), level, "lunfsd-guard", __VA_ARGS__)

unsigned int guard_judge(const struct guard_page *page, uint64_t now_ns, bool killed,
			 uint64_t *next_ns)
{
	bool lapsed = killed;

	*next_ns = now_ns + GUARD_TICK_MS * NSEC_PER_MSEC;
	for (unsigned int i = 0; i < GUARD_WORDS; i++) {
		uint64_t word = atomic_load(&page->words[i]);

		if (word && word <= now_ns)
			lapsed = true;
		else if (word && word < *next_ns)
			*next_ns = word;
	}
	if (!lapsed)
		return GUARD_FEED;
	return killed ? 0 : GUARD_KILL;
}

/* ---- before the process exists ---- */

static int open_page(void)
{
	int fd = memfd_create("lunfs-guard", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -errno;
	if (!ftruncate(fd, sizeof(struct guard_page)) &&
	    !fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		return fd;
	close(fd);
	return -EIO;
}

/* What cannot be closed without a reset would reset a machine whose daemon ends in order. */
static int refuse_device(int fd, const char *device, const char *what, char *why, size_t why_size)
{
	if (write(fd, "V", 1) < 0) {
		/* Then it resets the machine, as it would have when lunfsd ends. */
	}
	close(fd);
	return text_refuse(-EINVAL, why, why_size, "%s: %s", device, what);
}

static int open_device(struct guard *g, const char *device, char *why, size_t why_size)
{
	struct watchdog_info info;
	int seconds = GUARD_DEVICE_S, fd = open(device, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return text_refuse(-errno, why, why_size, "%s: cannot be opened: %s%s", device,
				   strerror(errno), errno == EBUSY ? " (does systemd or another "
				   "program feed it?)" : "");
	if (ioctl(fd, WDIOC_GETSUPPORT, &info))
		return refuse_device(fd, device, "not a watchdog device", why, why_size);
	if (!(info.options & WDIOF_MAGICCLOSE))
		return refuse_device(fd, device, "this watchdog cannot be stopped again", why,
				     why_size);
	/* A time that cannot be set is as good, if it is short enough for the datastores' leases. */
	ioctl(fd, WDIOC_SETTIMEOUT, &seconds);
	if (ioctl(fd, WDIOC_GETTIMEOUT, &seconds) || seconds <= 0)
		return refuse_device(fd, device, "does not tell in which time it strikes", why,
				     why_size);
	g->device = fd;
	g->device_ms = (uint32_t)seconds * 1000;
	return 0;
}

int guard_open(const char *device, struct guard *g, char *why, size_t why_size)
{
	*g = (struct guard){ .pid = -1, .pidfd = -1, .device = -1 };
	g->page_fd = open_page();
	if (g->page_fd < 0)
		return text_refuse(g->page_fd, why, why_size, "no memory to share with the guard");
	g->page = guard_map(g->page_fd);
	if (!g->page)
		return text_refuse(-ENOMEM, why, why_size, "no memory to share with the guard");
	return device[0] ? open_device(g, device, why, why_size) : 0;
}

/* ---- the process ---- */

static void harden(void)
{
	struct sched_param param = { .sched_priority = PRIORITY };
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd >= 0) {
		if (write(fd, "-1000", 5) < 0) {
			/* Not allowed here; it is small anyway. */
		}
		close(fd);
	}
	prctl(PR_SET_NAME, "lunfsd-guard");
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	mlockall(MCL_CURRENT | MCL_FUTURE);
	sched_setscheduler(0, SCHED_RR, &param);
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
}

/* Only the worker and the device: whatever else it held would outlive its owner. */
static void keep_two(int worker_pidfd, int device)
{
	int worker = fcntl(worker_pidfd, F_DUPFD_CLOEXEC, 64);
	int dev = device >= 0 ? fcntl(device, F_DUPFD_CLOEXEC, 64) : -1;

	if (worker < 0 || dup2(worker, FD_WORKER) < 0 ||
	    (dev >= 0 && dup2(dev, FD_DEVICE) < 0) ||
	    syscall(SYS_close_range, dev >= 0 ? FD_DEVICE + 1 : FD_DEVICE, ~0u, 0))
		_exit(1);
}

static void feed(bool device)
{
	if (device && write(FD_DEVICE, "", 1) < 0) {
		/* It strikes then: the worker stops with it. */
	}
}

_Noreturn static void guard_main(struct guard_page *page, bool device)
{
	struct pollfd pfd = { .fd = FD_WORKER, .events = POLLIN };
	bool killed = false;

	for (;;) {
		uint64_t now = env_now_ns(env_posix()), next;
		unsigned int step = guard_judge(page, now, killed, &next);

		atomic_store(&page->alive_ns, now);
		if (step & GUARD_FEED)
			feed(device);
		if (step & GUARD_KILL) {
			syscall(SYS_pidfd_send_signal, FD_WORKER, SIGKILL, NULL, 0);
			killed = true;
			SAY(LOG_LEVEL_ERROR, "the worker was frozen beyond its lease: killed, so that "
			    "nothing it had begun can reach a LUN that other hosts take over");
		}
		if (poll(&pfd, 1, (int)((next - now) / NSEC_PER_MSEC) + 1) > 0)
			break;
	}
	/* Gone, with all that it had: its connections were reset. */
	if (device && write(FD_DEVICE, "V", 1) < 0)
		SAY(LOG_LEVEL_ERROR, "the watchdog device cannot be stopped: %s", strerror(errno));
	_exit(0);
}

int guard_start(struct guard *g, int worker_pidfd)
{
	atomic_store(&g->page->alive_ns, env_now_ns(env_posix()));
	g->pid = fork();
	if (g->pid < 0)
		return -errno;
	if (!g->pid) {
		keep_two(worker_pidfd, g->device);
		harden();
		guard_main(g->page, g->device >= 0);
	}
	if (g->device >= 0)
		close(g->device);
	g->device = -1;
	g->pidfd = (int)syscall(SYS_pidfd_open, g->pid, 0);
	return g->pidfd < 0 ? -errno : 0;
}

/* ---- in the worker ---- */

struct guard_page *guard_map(int page_fd)
{
	void *p = mmap(NULL, sizeof(struct guard_page), PROT_READ | PROT_WRITE, MAP_SHARED, page_fd, 0);

	return p == MAP_FAILED ? NULL : p;
}

bool guard_is_alive(const struct guard_page *page)
{
	return env_now_ns(env_posix()) - atomic_load(&page->alive_ns) < GUARD_SILENT_NS;
}
