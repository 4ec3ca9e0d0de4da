/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A launcher that was taken over: lunvm itself, but that a thread of the running machine tries what
 * an attacker would.  The linker puts these functions in front of three that each thread calls
 * (--wrap), so all else is what is installed.  The guest's command line says which thread tries
 * what: "breakout=main,7".  tests/kvm/breakout.sh looks at what comes of it.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "kvm/machine.h"
#include "proc/packet.h"

void __wrap_machine_go(struct machine *m);
void __real_machine_go(struct machine *m);
void __wrap_uart_write(struct uart *u, unsigned int reg, uint8_t value);
void __real_uart_write(struct uart *u, unsigned int reg, uint8_t value);
int __wrap_console_view(struct console *c, int fd);
int __real_console_view(struct console *c, int fd);
int __wrap_packet_recv(int sock, void *msg, size_t len, int *fds, unsigned int *fd_count);
int __real_packet_recv(int sock, void *msg, size_t len, int *fds, unsigned int *fd_count);
int __wrap_mount(const char *from, const char *at, const char *type, unsigned long flags, const void *data);
int __real_mount(const char *from, const char *at, const char *type, unsigned long flags, const void *data);

static long try_connect(void)
{
	const struct sockaddr_un a = { .sun_family = AF_UNIX, .sun_path = "/run/lunfs/control" };

	return connect(1, (const struct sockaddr *)&a, sizeof(a)) ? -errno : 0;
}

static long try_memory(int prot)
{
	return mmap(NULL, 4096, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0;
}

/* Return: what a success leaves; negative where there was none. */
static long attempt(const struct machine *m, unsigned int which)
{
	static char *const shell[] = { (char *)"/bin/sh", NULL };
	static uint8_t page[8192] __attribute__((aligned(4096)));
	struct iovec here = { page, 16 }, there = { (void *)0x400000, 16 };
	pid_t parent = m->plan->parent;

	switch (which) {
	case 0: return open("/etc/passwd", O_RDONLY);
	case 1: return open("/", O_RDONLY | O_DIRECTORY);
	case 2: return open("/proc/self/fd/0", O_RDWR);
	case 3: return syscall(SYS_openat2, AT_FDCWD, "/", page, 24);
	case 4: return socket(AF_INET, SOCK_STREAM, 0);
	case 5: return socket(AF_UNIX, SOCK_STREAM, 0);
	case 6: return try_connect();
	case 7: return execv(shell[0], shell);
	case 8: return syscall(SYS_execveat, 0, "", shell, NULL, AT_EMPTY_PATH);
	case 9: return syscall(SYS_fork);
	case 10: return syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	case 11: return syscall(SYS_clone3, page, 88);
	case 12: return ptrace(PTRACE_SEIZE, parent, 0, 0);
	case 13: return kill(parent, 0);
	case 14: return syscall(SYS_tgkill, parent, parent, 0);
	case 15: return try_memory(PROT_READ | PROT_EXEC);
	case 16: return mprotect(page, sizeof(page), PROT_READ | PROT_EXEC);
	case 17: return mount("none", "/", "tmpfs", 0, NULL);
	case 18: return unshare(CLONE_NEWUSER);
	case 19: return setuid(0);
	case 20: return syscall(SYS_io_uring_setup, 8, page);
	case 21: return syscall(SYS_bpf, 0, page, 64);
	case 22: return syscall(SYS_open_by_handle_at, 0, page, O_RDONLY);
	case 23: return syscall(SYS_process_vm_readv, parent, &here, 1, &there, 1, 0);
	case 24: return syscall(SYS_pidfd_open, parent, 0);
	case 25: return syscall(SYS_memfd_create, "x", 0);
	case 26: return chroot("/");
	case 27: return syscall(SYS_userfaultfd, 0);
	case 28: return syscall(SYS_perf_event_open, page, 0, -1, -1, 0);
	case 29: return syscall(SYS_keyctl, 0, -3, 1);
	case 30: return ioctl(m->kvm, KVM_CREATE_VM, 0);
	case 31: return ioctl(m->vm, KVM_SET_USER_MEMORY_REGION, page);
	case 32: return ioctl(m->vm, KVM_CREATE_VCPU, 33);
	case 33: return syscall(SYS_mknod, "/x", 060600, 0x800);
	case 34: return unlink("/x") && errno == ENOENT ? -1 : 0;
	case 35: return syscall(SYS_finit_module, 0, "", 0);
	default: return -ERANGE;
	}
}

static void say(const char *text)
{
	if (write(STDOUT_FILENO, text, strlen(text)) < 0)
		abort();
}

static void try(const struct machine *m, const char *thread)
{
	const char *wish = strstr(m->plan->cmdline, "breakout=");
	size_t len = strlen(thread);
	long ret;

	if (!wish || strncmp(wish + 9, thread, len) || wish[9 + len] != ',')
		return;
	say("breakout: tries\n");
	ret = attempt(m, (unsigned int)atoi(wish + 10 + len));
	say(ret == -ERANGE ? "breakout: no such attempt\n" :
	    ret < 0 ? "breakout: refused\n" : "breakout: SUCCEEDED\n");
	_exit(0);
}

static bool full_root;

/* With "root=full" there is no empty root directory to be had: Landlock has to do. */
int __wrap_packet_recv(int sock, void *msg, size_t len, int *fds, unsigned int *fd_count)
{
	int err = __real_packet_recv(sock, msg, len, fds, fd_count);
	const struct plan_packet *p = msg;

	if (!err && len == sizeof(*p) && p->op == PLAN_BEGIN && strstr(p->plan.cmdline, "root=full"))
		full_root = true;
	return err;
}

int __wrap_mount(const char *from, const char *at, const char *type, unsigned long flags, const void *data)
{
	if (!full_root)
		return __real_mount(from, at, type, flags, data);
	errno = EPERM;
	return -1;
}

void __wrap_machine_go(struct machine *m)
{
	try(m, "main");
	__real_machine_go(m);
}

void __wrap_uart_write(struct uart *u, unsigned int reg, uint8_t value)
{
	try(u->arg, "cpu");
	__real_uart_write(u, reg, value);
}

int __wrap_console_view(struct console *c, int fd)
{
	try(container_of(c, struct machine, console), "events");
	return __real_console_view(c, fd);
}
