/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RPC_USERS: who keeps a mount from ending.
 *
 * A filesystem that was unmounted lives on as long as a process has something of it open, or
 * there is a copy of the mount in another mount namespace (a container's, or one made by
 * unshare(1) or `ip netns exec` while it was mounted, where mounts do not propagate).  Nothing
 * here asks the filesystem itself, which may be one that does not answer.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/mountinfo.h"
#include "daemon/parent.h"

#define SCAN_NS		(10 * NSEC_PER_SEC)	/* of all processes; who was found by then is told */
#define NAMESPACES_MAX	256u			/* looked into */

struct scan {
	uint32_t minor;
	struct rpc_users *users;
	uint64_t until;
	ino_t	namespaces[NAMESPACES_MAX];	/* those that were, our own first */
	unsigned int namespace_count;
};

/* Of what is open anyway: the kernel's answer, without a question to whom it is mounted from. */
static bool is_on(const struct scan *s, int dir, const char *name)
{
	struct statx st;

	return !statx(dir, name, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, 0, &st) &&
	       !st.stx_dev_major && st.stx_dev_minor == s->minor;
}

static bool has_open(const struct scan *s, const char *process)
{
	char path[64];
	struct dirent *d;
	bool found = false;
	DIR *dir;

	snprintf(path, sizeof(path), "%s/fd", process);
	dir = opendir(path);
	if (!dir)
		return false;
	while (!found && (d = readdir(dir)))
		found = d->d_name[0] != '.' && is_on(s, dirfd(dir), d->d_name);
	closedir(dir);
	return found;
}

/* "7f5a2000-7f5a3000 r-xp 00001000 00:2f 131 /mnt/a/program" */
static bool has_mapped(const struct scan *s, const char *process)
{
	char line[256];	/* its path may be longer: what follows is no line of a mapping */
	unsigned int major, minor;
	bool found = false;
	FILE *in;

	snprintf(line, sizeof(line), "%s/maps", process);
	in = fopen(line, "re");
	if (!in)
		return false;
	while (!found && fgets(line, sizeof(line), in))
		found = sscanf(line, "%*x-%*x %*s %*x %x:%x", &major, &minor) == 2 && !major &&
			minor == s->minor;
	fclose(in);
	return found;
}

static bool stands_in(const struct scan *s, const char *process)
{
	static const char *const links[] = { "cwd", "root" };
	char path[64];

	for (unsigned int i = 0; i < ARRAY_SIZE(links); i++) {
		snprintf(path, sizeof(path), "%s/%s", process, links[i]);
		if (is_on(s, AT_FDCWD, path))
			return true;
	}
	return false;
}

/* Whether nobody else of its mount namespace was asked before. */
static bool is_first_of_namespace(struct scan *s, const char *process)
{
	struct stat st;
	char path[64];

	snprintf(path, sizeof(path), "%s/ns/mnt", process);
	if (stat(path, &st) || s->namespace_count == NAMESPACES_MAX)
		return false;
	for (unsigned int i = 0; i < s->namespace_count; i++)
		if (s->namespaces[i] == st.st_ino)
			return false;
	s->namespaces[s->namespace_count++] = st.st_ino;
	return true;
}

/* Return: 1 mounted there, at @where; 0; negative errno. */
static int is_mounted(const struct scan *s, const char *process, char where[PATH_MAX])
{
	char path[64];
	FILE *in;
	int found;

	snprintf(path, sizeof(path), "%s/mountinfo", process);
	in = fopen(path, "re");
	if (!in)
		return -errno;
	found = mountinfo_where(in, NULL, s->minor, where);
	fclose(in);
	return found;
}

static enum rpc_use use_of(struct scan *s, const char *process)
{
	char where[PATH_MAX];

	if (has_open(s, process) || has_mapped(s, process))
		return RPC_USE_FILE;
	if (stands_in(s, process))
		return RPC_USE_DIR;
	if (is_first_of_namespace(s, process) && is_mounted(s, process, where) > 0)
		return RPC_USE_NAMESPACE;
	return RPC_USE_NONE;
}

static void look_at(struct scan *s, uint32_t pid)
{
	struct rpc_users *u = s->users;
	char process[32];
	enum rpc_use use;

	snprintf(process, sizeof(process), "/proc/%u", pid);
	use = use_of(s, process);
	if (use == RPC_USE_NONE)
		return;
	if (u->count < RPC_USERS_MAX) {
		u->list[u->count].pid = pid;
		u->list[u->count].use = use;
		parent_read_comm(pid, u->list[u->count].comm);
	}
	u->count++;
}

int parent_users(uint32_t minor, struct rpc_reply *reply)
{
	struct scan s = { .minor = minor, .users = &reply->users,
			  .until = env_now_ns(env_posix()) + SCAN_NS };
	struct dirent *d;
	DIR *dir;
	int err = is_mounted(&s, "/proc/self", reply->users.dir);

	reply->users.mounted = err > 0;
	if (err)
		return err < 0 ? err : 0;
	is_first_of_namespace(&s, "/proc/self");
	dir = opendir("/proc");
	if (!dir)
		return -errno;
	while ((d = readdir(dir)) && env_now_ns(env_posix()) < s.until)
		if (d->d_name[0] >= '1' && d->d_name[0] <= '9')
			look_at(&s, (uint32_t)strtoul(d->d_name, NULL, 10));
	closedir(dir);
	return 0;
}
