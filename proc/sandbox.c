/* SPDX-License-Identifier: Apache-2.0 */
#include "proc/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/pr.h>
#include <sched.h>
#include <scsi/sg.h>
#include <seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REALTIME_PRIORITY_MAX	10
#define OPEN_FILES_MAX		16384

/* As much as is allowed: in a container perhaps no more than there was. */
static void raise_limit(int resource, rlim_t wanted)
{
	struct rlimit limit = { wanted, wanted };

	if (!setrlimit(resource, &limit) || getrlimit(resource, &limit))
		return;
	if (limit.rlim_max > wanted)
		limit.rlim_cur = wanted;
	else
		limit.rlim_cur = limit.rlim_max;
	setrlimit(resource, &limit);
}

void sandbox_keep_realtime(void)
{
	raise_limit(RLIMIT_RTPRIO, REALTIME_PRIORITY_MAX);
	raise_limit(RLIMIT_MEMLOCK, RLIM_INFINITY);
	raise_limit(RLIMIT_NOFILE, OPEN_FILES_MAX);
}

/* Capabilities go with the uid, unless the securebits say otherwise: so explicitly. */
static int drop_capabilities(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[2] = { { 0 } };

	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	return (int)syscall(SYS_capset, &header, none);
}

static void drop_bounding_set(void)
{
	for (int cap = 0; cap <= CAP_LAST_CAP; cap++)
		prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
}

int sandbox_drop(uid_t uid, gid_t gid, pid_t parent, const char **what)
{
	drop_bounding_set();
	*what = "setgroups";
	/* Who is no longer root already, or never was, has no say in its groups. */
	if (!geteuid() && setgroups(0, NULL))
		return -errno;
	*what = "setresgid";
	if (setresgid(gid, gid, gid))
		return -errno;
	*what = "setresuid";
	if (setresuid(uid, uid, uid))
		return -errno;
	*what = "capset";
	if (drop_capabilities())
		return -errno;
	*what = "prctl(PR_SET_NO_NEW_PRIVS)";
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	/* Other processes of that user must not look into this one. */
	*what = "prctl(PR_SET_DUMPABLE)";
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
		return -errno;
	/* Only now: a change of the user id clears it.  The parent may have died before. */
	*what = "prctl(PR_SET_PDEATHSIG)";
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0))
		return -errno;
	*what = "the parent";
	return getppid() == parent ? 0 : -ESRCH;
}

int sandbox_lock_memory(void)
{
	struct rlimit limit;

	/*
	 * Against a limit, locking does harm: mappings beyond it fail, thread stacks among
	 * them.  Without one, ONFAULT: or every thread's whole stack would be filled at once.
	 */
	if (getrlimit(RLIMIT_MEMLOCK, &limit) || limit.rlim_cur != RLIM_INFINITY)
		return -EPERM;
	return mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) ? -errno : 0;
}

/* ---- system calls ---- */

/* Wanted with any arguments: none of these reaches anything that is not open already. */
static const int plain_calls[] = {
	/* descriptors */
	SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv), SCMP_SYS(writev), SCMP_SYS(pread64),
	SCMP_SYS(pwrite64), SCMP_SYS(preadv), SCMP_SYS(pwritev), SCMP_SYS(preadv2),
	SCMP_SYS(pwritev2), SCMP_SYS(close), SCMP_SYS(fstat), SCMP_SYS(fstatfs), SCMP_SYS(lseek),
	SCMP_SYS(dup), SCMP_SYS(fcntl), SCMP_SYS(flock), SCMP_SYS(fsync), SCMP_SYS(fdatasync),
	SCMP_SYS(fallocate), SCMP_SYS(splice), SCMP_SYS(vmsplice), SCMP_SYS(pipe2),
	SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(epoll_create1), SCMP_SYS(epoll_ctl),
	SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_pwait2), SCMP_SYS(eventfd2),
	SCMP_SYS(memfd_create), SCMP_SYS(ftruncate),
	SCMP_SYS(timerfd_create), SCMP_SYS(timerfd_settime), SCMP_SYS(dup2), SCMP_SYS(dup3),
	/* asynchronous I/O */
	SCMP_SYS(io_setup), SCMP_SYS(io_destroy), SCMP_SYS(io_submit), SCMP_SYS(io_getevents),
	SCMP_SYS(io_pgetevents),
	/* sockets that are open already */
	SCMP_SYS(accept4), SCMP_SYS(recvmsg), SCMP_SYS(recvfrom), SCMP_SYS(getsockopt),
	SCMP_SYS(setsockopt), SCMP_SYS(getsockname), SCMP_SYS(getpeername),
	SCMP_SYS(shutdown),
	/* memory */
	SCMP_SYS(brk), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(mlock),
	SCMP_SYS(munlock), SCMP_SYS(mlockall),
	/* threads and signals of this process */
	SCMP_SYS(futex), SCMP_SYS(set_robust_list), SCMP_SYS(rseq), SCMP_SYS(exit),
	SCMP_SYS(exit_group), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigaction),
	SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigtimedwait), SCMP_SYS(sigaltstack),
	SCMP_SYS(restart_syscall), SCMP_SYS(sched_yield), SCMP_SYS(sched_getaffinity),
	SCMP_SYS(sched_getparam), SCMP_SYS(sched_getscheduler), SCMP_SYS(membarrier),
	/* who and when */
	SCMP_SYS(gettid), SCMP_SYS(getpid), SCMP_SYS(getppid), SCMP_SYS(getuid),
	SCMP_SYS(geteuid), SCMP_SYS(getgid), SCMP_SYS(getegid), SCMP_SYS(getrandom),
	SCMP_SYS(clock_gettime), SCMP_SYS(clock_getres), SCMP_SYS(clock_nanosleep),
	SCMP_SYS(nanosleep), SCMP_SYS(gettimeofday), SCMP_SYS(time), SCMP_SYS(getrusage),
	SCMP_SYS(sysinfo), SCMP_SYS(uname), SCMP_SYS(getcpu),
};

/* Libraries try these and do well without: an error instead of the end. */
static const struct { int call, err; } refused_calls[] = {
	{ SCMP_SYS(open), EACCES },
	{ SCMP_SYS(openat), EACCES },
	{ SCMP_SYS(access), EACCES },
	{ SCMP_SYS(faccessat), EACCES },
	{ SCMP_SYS(faccessat2), EACCES },
	{ SCMP_SYS(readlink), EACCES },
	{ SCMP_SYS(readlinkat), EACCES },
	{ SCMP_SYS(stat), EACCES },
	{ SCMP_SYS(statx), ENOSYS },
	/* libiscsi connects by itself: let it believe so (block/blkiscsi_path.c). */
	{ SCMP_SYS(connect), EINPROGRESS },
	{ SCMP_SYS(clone3), ENOSYS },	/* its flags cannot be seen; glibc falls back to clone */
	{ SCMP_SYS(get_mempolicy), ENOSYS },
	{ SCMP_SYS(set_mempolicy), ENOSYS },
};

static int add_threads(scmp_filter_ctx f)
{
	const uint64_t thread = CLONE_VM | CLONE_THREAD | CLONE_SIGHAND | CLONE_FILES;
	int err;

	err = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
			       SCMP_A0(SCMP_CMP_MASKED_EQ, thread, thread));
	/* abort() and raise(): signals to this process only. */
	if (!err)
		err = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
				       SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));
	if (!err)
		err = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1,
				       SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME));
	if (!err)
		err = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1,
				       SCMP_A0(SCMP_CMP_EQ, 0x53564d41));	/* PR_SET_VMA: names */
	/* Reading limits: a new limit is never given. */
	if (!err)
		err = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 1,
				       SCMP_A2(SCMP_CMP_EQ, 0));
	if (!err)
		err = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(sched_setscheduler), 1,
				       SCMP_A0(SCMP_CMP_EQ, 0));
	return err;
}

/*
 * libiscsi wants to make a socket, whose place then takes one that the parent has connected.
 * A socket that cannot be connected, nor connect by sending (TCP Fast Open), leads nowhere.
 */
static int add_sockets(scmp_filter_ctx f)
{
	static const unsigned int inet[] = { AF_INET, AF_INET6 }, others[] = { AF_UNIX, AF_NETLINK };
	int err = 0;

	for (unsigned int i = 0; i < ARRAY_SIZE(inet) && !err; i++) {
		err = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(socket), 3,
				       SCMP_A0(SCMP_CMP_EQ, inet[i]),
				       SCMP_A1(SCMP_CMP_EQ, SOCK_STREAM), SCMP_A2(SCMP_CMP_EQ, 0));
		if (!err)
			err = seccomp_rule_add(f, SCMP_ACT_ERRNO(EACCES), SCMP_SYS(socket), 2,
					       SCMP_A0(SCMP_CMP_EQ, inet[i]),
					       SCMP_A1(SCMP_CMP_NE, SOCK_STREAM));
	}
	for (unsigned int i = 0; i < ARRAY_SIZE(others) && !err; i++)
		err = seccomp_rule_add(f, SCMP_ACT_ERRNO(EACCES), SCMP_SYS(socket), 1,
				       SCMP_A0(SCMP_CMP_EQ, others[i]));
	if (!err)
		err = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(sendto), 1,
				       SCMP_A3(SCMP_CMP_MASKED_EQ, MSG_FASTOPEN, 0));
	if (!err)
		err = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(sendmsg), 1,
				       SCMP_A2(SCMP_CMP_MASKED_EQ, MSG_FASTOPEN, 0));
	return err;
}

static int add_memory(scmp_filter_ctx f)
{
	static const int calls[] = { SCMP_SYS(mmap), SCMP_SYS(mprotect) };
	int err = 0;

	/* Never executable: what is mapped so, was mapped by the loader. */
	for (unsigned int i = 0; i < ARRAY_SIZE(calls) && !err; i++)
		err = seccomp_rule_add(f, SCMP_ACT_ALLOW, calls[i], 1,
				       SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	return err;
}

static int add_ioctls(scmp_filter_ctx f)
{
	static const unsigned long cmds[] = { BLKDISCARD, BLKZEROOUT, BLKGETSIZE64, BLKFLSBUF };
	int err = 0;

	for (unsigned int i = 0; i < ARRAY_SIZE(cmds) && !err; i++)
		err = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
				       SCMP_A1(SCMP_CMP_EQ, cmds[i]));
	/* fstat() of glibc: newfstatat() of the descriptor itself. */
	if (!err)
		err = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(newfstatat), 1,
				       SCMP_A3(SCMP_CMP_MASKED_EQ, AT_EMPTY_PATH, AT_EMPTY_PATH));
	if (!err)
		err = seccomp_rule_add(f, SCMP_ACT_ERRNO(EACCES), SCMP_SYS(newfstatat), 1,
				       SCMP_A3(SCMP_CMP_MASKED_EQ, AT_EMPTY_PATH, 0));
	/* isatty() before the first line of a stream. */
	if (!err)
		err = seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOTTY), SCMP_SYS(ioctl), 1,
				       SCMP_A1(SCMP_CMP_EQ, 0x5401));	/* TCGETS */
	return err;
}

static int add_rules(scmp_filter_ctx f)
{
	int err = 0;

	for (unsigned int i = 0; i < ARRAY_SIZE(plain_calls) && !err; i++)
		err = seccomp_rule_add(f, SCMP_ACT_ALLOW, plain_calls[i], 0);
	for (unsigned int i = 0; i < ARRAY_SIZE(refused_calls) && !err; i++)
		err = seccomp_rule_add(f, SCMP_ACT_ERRNO(refused_calls[i].err),
				       refused_calls[i].call, 0);
	if (!err)
		err = add_threads(f);
	if (!err)
		err = add_sockets(f);
	if (!err)
		err = add_memory(f);
	return err ? err : add_ioctls(f);
}

bool sandbox_filter_is_open(void)
{
	const char *mode = getenv("LUNFS_SECCOMP");

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	return true;
#endif
	return mode && !strcmp(mode, "log");
}

static int load_filter(int (*add)(scmp_filter_ctx f))
{
	scmp_filter_ctx f = seccomp_init(sandbox_filter_is_open() ? SCMP_ACT_LOG :
					SCMP_ACT_KILL_PROCESS);
	int err;

	if (!f)
		return -ENOMEM;
	err = seccomp_attr_set(f, SCMP_FLTATR_CTL_TSYNC, 1);
	/* A tree instead of a list: the data path makes many system calls. */
	if (!err)
		err = seccomp_attr_set(f, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	if (!err)
		err = add(f);
	if (!err)
		err = seccomp_load(f);
	seccomp_release(f);
	return err;
}

int sandbox_filter(void)
{
	return load_filter(add_rules);
}

/* ---- the agent ---- */

static int add_agent_rules(scmp_filter_ctx f)
{
	static const int calls[] = {
		SCMP_SYS(recvfrom), SCMP_SYS(sendto), SCMP_SYS(close), SCMP_SYS(ftruncate),
		SCMP_SYS(futex), SCMP_SYS(set_robust_list), SCMP_SYS(rseq), SCMP_SYS(exit),
		SCMP_SYS(exit_group), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigaction),
		SCMP_SYS(rt_sigreturn), SCMP_SYS(restart_syscall), SCMP_SYS(sched_yield),
		SCMP_SYS(sched_setscheduler), SCMP_SYS(sched_getparam), SCMP_SYS(sched_getscheduler),
		SCMP_SYS(gettid), SCMP_SYS(getpid), SCMP_SYS(clock_gettime),
		SCMP_SYS(clock_nanosleep), SCMP_SYS(nanosleep), SCMP_SYS(brk), SCMP_SYS(munmap),
		SCMP_SYS(madvise), SCMP_SYS(mremap), SCMP_SYS(getrandom),
	};
	static const unsigned long cmds[] = { SG_IO, SG_SCSI_RESET, IOC_PR_REGISTER, IOC_PR_RESERVE,
					      IOC_PR_PREEMPT_ABORT, IOC_PR_CLEAR };
	int err = 0;

	for (unsigned int i = 0; i < ARRAY_SIZE(calls) && !err; i++)
		err = seccomp_rule_add(f, SCMP_ACT_ALLOW, calls[i], 0);
	for (unsigned int i = 0; i < ARRAY_SIZE(cmds) && !err; i++)
		err = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
				       SCMP_A1(SCMP_CMP_EQ, cmds[i]));
	if (!err)
		err = seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
	if (!err)
		err = add_threads(f);
	return err ? err : add_memory(f);
}

int sandbox_agent(void)
{
	const uint32_t kept = 1u << CAP_SYS_RAWIO | 1u << CAP_SYS_ADMIN;
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { { .effective = kept, .permitted = kept } };

	drop_bounding_set();
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (syscall(SYS_capset, &header, data) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
		return -errno;
	return load_filter(add_agent_rules);
}
