/* SPDX-License-Identifier: Apache-2.0 */
#include "kvm/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/landlock.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "proc/sandbox.h"

/* ---- files ---- */

/* An empty tmpfs in place of everything: there is not even a name to try. */
static int empty_root(void)
{
	/* Any directory will do to put it on; these exist everywhere. */
	const char *at = !access("/tmp", F_OK) ? "/tmp" : "/proc";

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("none", at, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
		  "size=4k,nr_inodes=1,mode=0555") ||
	    chdir(at) || syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) ||
	    chdir("/"))
		return -errno;
	return 0;
}

static int new_namespaces(int more)
{
	if (unshare(more | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS))
		return -errno;
	return empty_root();
}

/* struct landlock_ruleset_attr as Linux 6.12 has it; older headers end before. */
struct ruleset {
	uint64_t fs, net, scoped;
};
static_assert(sizeof(struct ruleset) == 24, "landlock(7)");

/*
 * Nothing may be opened below any directory, connected, bound or signalled: all that this kernel can
 * take away, by landlock(7)'s table of versions.  Linux 5.13 and later, if configured.
 */
static int landlock(void)
{
	int abi = (int)syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	unsigned int rights = abi >= 5 ? 16 : abi >= 3 ? 15 : abi == 2 ? 14 : 13;
	struct ruleset all = { .fs = (1ull << rights) - 1, .net = 3, .scoped = 3 };
	size_t size = abi >= 6 ? 24 : abi >= 4 ? 16 : 8;
	int fd, err = 0;

	if (abi < 1)
		return abi < 0 ? -errno : -EOPNOTSUPP;
	fd = (int)syscall(SYS_landlock_create_ruleset, &all, size, 0);
	if (fd < 0)
		return -errno;
	if (syscall(SYS_landlock_restrict_self, fd, 0))
		err = -errno;
	close(fd);
	return err;
}

int jail_enter(uid_t uid, gid_t gid, pid_t parent, struct jail_state *got, const char **what)
{
	bool root = !geteuid();
	int empty = -EPERM, locked, err;

	if (root)
		empty = new_namespaces(0);
	err = sandbox_drop(uid, gid, parent, what);
	if (err)
		return err;
	/* Who may not make namespaces as he is may do so as the root of one of his own. */
	if (empty)
		empty = new_namespaces(CLONE_NEWUSER);
	locked = landlock();
	*got = (struct jail_state){ !empty, !locked, !sandbox_filter_is_open() };
	if (empty && locked) {
		*what = "neither an empty root directory nor Landlock";
		return -EPERM;
	}
	if (root)
		return 0;
	/* The new user namespace came with capabilities in it; and these go, too. */
	return sandbox_drop(geteuid(), getegid(), parent, what);
}

/* ---- system calls ---- */

#define PART(p)		(1u << (p))
#define START		PART(JAIL_START)
#define MAIN		PART(JAIL_MAIN)
#define EVENTS		PART(JAIL_EVENTS)
#define CPU		PART(JAIL_CPU)
#define ALL		(START | MAIN | EVENTS | CPU)

static const struct { int call; unsigned int parts; } plain_calls[] = {
	{ SCMP_SYS(read), ALL },
	{ SCMP_SYS(write), ALL },
	{ SCMP_SYS(close), START | MAIN | EVENTS },
	{ SCMP_SYS(poll), START | MAIN | EVENTS },
	{ SCMP_SYS(recvmsg), START | MAIN | EVENTS },
	{ SCMP_SYS(recvfrom), START | MAIN | EVENTS },
	{ SCMP_SYS(sendmsg), START | MAIN | EVENTS },
	{ SCMP_SYS(sendto), START | MAIN | EVENTS },
	{ SCMP_SYS(accept4), START | EVENTS },
	{ SCMP_SYS(shutdown), START | EVENTS },
	{ SCMP_SYS(epoll_ctl), START | EVENTS },
	{ SCMP_SYS(epoll_wait), START | EVENTS },
	{ SCMP_SYS(epoll_pwait), START | EVENTS },
	{ SCMP_SYS(epoll_pwait2), START | EVENTS },
	{ SCMP_SYS(epoll_create1), START },
	{ SCMP_SYS(eventfd2), START },
	{ SCMP_SYS(fcntl), START },
	{ SCMP_SYS(fstat), START | EVENTS },
	{ SCMP_SYS(pread64), START },
	{ SCMP_SYS(memfd_create), START },
	{ SCMP_SYS(ftruncate), START },
	{ SCMP_SYS(munmap), ALL },
	{ SCMP_SYS(mremap), START | MAIN | EVENTS },
	{ SCMP_SYS(brk), START | MAIN | EVENTS },
	{ SCMP_SYS(madvise), ALL },
	{ SCMP_SYS(futex), ALL },
	{ SCMP_SYS(set_robust_list), START },
	{ SCMP_SYS(rseq), START },
	{ SCMP_SYS(exit), ALL },
	{ SCMP_SYS(exit_group), ALL },
	{ SCMP_SYS(rt_sigprocmask), ALL },
	{ SCMP_SYS(rt_sigaction), START },
	{ SCMP_SYS(rt_sigreturn), ALL },
	{ SCMP_SYS(restart_syscall), ALL },
	{ SCMP_SYS(sched_yield), ALL },
	{ SCMP_SYS(sched_getaffinity), START },
	{ SCMP_SYS(gettid), ALL },
	{ SCMP_SYS(getpid), ALL },
	{ SCMP_SYS(clock_gettime), ALL },
	{ SCMP_SYS(gettimeofday), ALL },
	{ SCMP_SYS(getrandom), START },
	{ SCMP_SYS(seccomp), START },
};

/* Of KVM: what makes a machine is no longer possible once it runs. */
static const struct { unsigned long cmd; unsigned int parts; } kvm_calls[] = {
	{ KVM_GET_API_VERSION, START }, { KVM_CHECK_EXTENSION, START },
	{ KVM_CREATE_VM, START }, { KVM_GET_VCPU_MMAP_SIZE, START },
	{ KVM_GET_SUPPORTED_CPUID, START }, { KVM_SET_IDENTITY_MAP_ADDR, START },
	{ KVM_SET_TSS_ADDR, START }, { KVM_CREATE_IRQCHIP, START },
	{ KVM_SET_GSI_ROUTING, START }, { KVM_SET_USER_MEMORY_REGION, START },
	{ KVM_IRQFD, START }, { KVM_IOEVENTFD, START }, { KVM_CREATE_VCPU, START },
	{ KVM_SET_CPUID2, START }, { KVM_GET_SREGS, START }, { KVM_SET_SREGS, START },
	{ KVM_SET_REGS, START }, { KVM_SET_MSRS, START },
	{ KVM_RUN, START | CPU }, { KVM_KVMCLOCK_CTRL, START | CPU },
	{ KVM_GET_REGS, START | CPU },
};

static int add_plain(scmp_filter_ctx f, unsigned int part)
{
	int err = 0;

	for (unsigned int i = 0; i < ARRAY_SIZE(plain_calls) && !err; i++)
		if (plain_calls[i].parts & part)
			err = seccomp_rule_add(f, SCMP_ACT_ALLOW, plain_calls[i].call, 0);
	for (unsigned int i = 0; i < ARRAY_SIZE(kvm_calls) && !err; i++)
		if (kvm_calls[i].parts & part)
			err = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
					       SCMP_A1(SCMP_CMP_EQ, kvm_calls[i].cmd));
	return err;
}

/* Never executable: what is mapped so, was mapped by the loader. */
static int add_memory(scmp_filter_ctx f)
{
	int err = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
				   SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));

	return err ? err : seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
					    SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
}

/* Threads; clone3() keeps its flags where a filter cannot see them, and glibc does without. */
static int add_start(scmp_filter_ctx f)
{
	const uint64_t thread = CLONE_VM | CLONE_THREAD | CLONE_SIGHAND | CLONE_FILES;
	int err = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
				   SCMP_A0(SCMP_CMP_MASKED_EQ, thread, thread));

	if (!err)
		err = seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
	if (!err)
		err = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1,
				       SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME));
	if (!err)
		err = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1,
				       SCMP_A0(SCMP_CMP_EQ, PR_SET_SECCOMP));
	if (!err)
		err = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 1,
				       SCMP_A2(SCMP_CMP_EQ, 0));
	return err;
}

/* fstat() of a descriptor; a pair of sockets that lead to each other; signals to ourselves. */
static int add_own(scmp_filter_ctx f)
{
	int err = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(newfstatat), 1,
				   SCMP_A3(SCMP_CMP_MASKED_EQ, AT_EMPTY_PATH, AT_EMPTY_PATH));

	if (!err)
		err = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(socketpair), 1,
				       SCMP_A0(SCMP_CMP_EQ, AF_UNIX));
	return err ? err : seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
					    SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));
}

static int add_rules(scmp_filter_ctx f, enum jail_part part)
{
	int err = add_plain(f, PART(part));

	if (!err && part != JAIL_CPU)
		err = add_memory(f);
	if (!err && (part == JAIL_START || part == JAIL_EVENTS))
		err = add_own(f);
	if (!err && part == JAIL_START)
		err = add_start(f);
	return err;
}

int jail_filter(enum jail_part part)
{
	scmp_filter_ctx f = seccomp_init(sandbox_filter_is_open() ? SCMP_ACT_LOG :
					 SCMP_ACT_KILL_PROCESS);
	int err;

	if (!f)
		return -ENOMEM;
	/* no_new_privs is set already (sandbox_drop()), and setting it is in no list. */
	err = seccomp_attr_set(f, SCMP_FLTATR_CTL_NNP, 0);
	if (!err && part == JAIL_START)
		err = seccomp_attr_set(f, SCMP_FLTATR_CTL_TSYNC, 1);
	if (!err)
		err = add_rules(f, part);
	if (!err)
		err = seccomp_load(f);
	seccomp_release(f);
	return err;
}
