/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/rpc.h"

#include <errno.h>
#include <stdio.h>
#include <sys/mount.h>

/* MS_* flags that a mount may ask for. */
#define MOUNT_FLAGS	(MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME | \
			 MS_RELATIME | MS_STRICTATIME | MS_LAZYTIME | MS_SYNCHRONOUS | MS_DIRSYNC)

static const struct { const char *name; unsigned long set, clear; } mount_options[] = {
	{ "ro", MS_RDONLY, 0 },			{ "rw", 0, MS_RDONLY },
	{ "nosuid", MS_NOSUID, 0 },		{ "suid", 0, MS_NOSUID },
	{ "nodev", MS_NODEV, 0 },		{ "dev", 0, MS_NODEV },
	{ "noexec", MS_NOEXEC, 0 },		{ "exec", 0, MS_NOEXEC },
	{ "noatime", MS_NOATIME, 0 },		{ "atime", 0, MS_NOATIME },
	{ "nodiratime", MS_NODIRATIME, 0 },	{ "diratime", 0, MS_NODIRATIME },
	{ "relatime", MS_RELATIME, 0 },		{ "norelatime", 0, MS_RELATIME },
	{ "strictatime", MS_STRICTATIME, 0 },	{ "nostrictatime", 0, MS_STRICTATIME },
	{ "lazytime", MS_LAZYTIME, 0 },		{ "nolazytime", 0, MS_LAZYTIME },
	{ "sync", MS_SYNCHRONOUS, 0 },		{ "async", 0, MS_SYNCHRONOUS },
	{ "dirsync", MS_DIRSYNC, 0 },
	{ "defaults", 0, 0 },
};

int rpc_mount_option(const char *name, unsigned long *flags)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(mount_options); i++) {
		if (strcmp(name, mount_options[i].name))
			continue;
		*flags = (*flags | mount_options[i].set) & ~mount_options[i].clear;
		return 0;
	}
	return -ENOENT;
}

/* ---- what a request must look like ---- */

/* A path that the kernel would take as it stands: absolute, terminated, no "." or "..". */
static bool path_is_plain(const char *path)
{
	const char *p = path;

	if (strnlen(path, PATH_MAX) == PATH_MAX || path[0] != '/')
		return false;
	while (*p) {
		size_t len;

		p++;
		len = strcspn(p, "/");
		if ((len == 1 && p[0] == '.') || (len == 2 && p[0] == '.' && p[1] == '.'))
			return false;
		p += len;
	}
	return true;
}

static const char *mount_wrong(const struct rpc_mount *m)
{
	if (!path_is_plain(m->dir))
		return "the directory is not a plain absolute path";
	if (strnlen(m->source, PATH_MAX) == PATH_MAX || !m->source[0])
		return "the source is empty or not terminated";
	if (m->flags & ~(uint64_t)MOUNT_FLAGS)
		return "a mount flag that is not allowed";
	if (m->max_read < 4096 || m->max_read > (1u << 20))
		return "max_read out of range";
	return NULL;
}

static bool is_socket_name(const char *name)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789-_.";
	size_t len = strnlen(name, RPC_SOCKET_NAME_SIZE);

	return len && len < RPC_SOCKET_NAME_SIZE && name[0] != '.' &&
	       strspn(name, allowed) == len;
}

static const char *request_wrong(const struct rpc_request *rq, unsigned int fd_count,
				 unsigned int *fds_wanted)
{
	*fds_wanted = 0;
	switch (rq->op) {
	case RPC_OPEN:
		*fds_wanted = fd_count != 0;
		if (strnlen(rq->open.path, PATH_MAX) == PATH_MAX ||
		    (!blkiscsi_is_url(rq->open.path) && !path_is_plain(rq->open.path)))
			return "the device is neither a plain absolute path nor an iSCSI URL";
		if (rq->open.flags & ~(RPC_OPEN_READ_ONLY | RPC_OPEN_NO_HOST_LOCK))
			return "an unknown flag";
		if (rq->open.flags == RPC_OPEN_NO_HOST_LOCK)
			return "to write takes the host lock";
		return NULL;
	case RPC_MOUNT:
		*fds_wanted = 1;
		return mount_wrong(&rq->mount);
	case RPC_UMOUNT:
	case RPC_USERS:
		return path_is_plain(rq->umount.dir) ? NULL :
		       "the directory is not a plain absolute path";
	case RPC_KILL:
		*fds_wanted = 1;
		return rq->kill.pid > 1 && rq->kill.pid <= INT_MAX ? NULL :
		       "not the number of a process that can be killed";
	case RPC_DIAL:
		return strnlen(rq->dial.portal, BLKISCSI_PORTAL_SIZE) < BLKISCSI_PORTAL_SIZE ?
		       NULL : "the portal is not terminated";
	case RPC_HOLD:
		return rq->hold.identity[0] && strnlen(rq->hold.identity, 128) < 128 &&
		       strnlen(rq->hold.device, 256) < 256 ?
		       NULL : "the LUN's name is empty or not terminated";
	case RPC_COMM:
		return rq->comm_pid >= 1 && rq->comm_pid <= INT_MAX ? NULL :
		       "not the number of a process";
	case RPC_REALTIME:
		return rq->realtime_tid >= 1 && rq->realtime_tid <= INT_MAX ? NULL :
		       "not the number of a thread";
	case RPC_LISTEN:
	case RPC_UNLISTEN:
		return is_socket_name(rq->socket.name) ? NULL : "not a plain name of a socket";
	case RPC_PORTAL:
		return rq->portal.ss_family == AF_INET || rq->portal.ss_family == AF_INET6 ?
		       NULL : "not an address of a portal";
	case RPC_CLOSED:
		return strnlen(rq->open.path, PATH_MAX) < PATH_MAX ? NULL :
		       "the device is not terminated";
	case RPC_READY:
	case RPC_METRICS:
	case RPC_ALIVE:
		return NULL;
	default:
		return "an unknown operation";
	}
}

int rpc_request_check(const struct rpc_request *rq, unsigned int fd_count, char *why,
		      size_t why_size)
{
	unsigned int fds_wanted = 0;
	const char *wrong;

	if (rq->magic != RPC_MAGIC)
		wrong = "no magic number";
	else
		wrong = request_wrong(rq, fd_count, &fds_wanted);
	if (!wrong && fd_count != fds_wanted)
		wrong = "a wrong number of descriptors";
	if (!wrong)
		return 0;
	snprintf(why, why_size, "malformed request %u: %s", rq->op, wrong);
	return -EINVAL;
}
