/* SPDX-License-Identifier: Apache-2.0 */
#include "target/open.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/text.h"
#include "target/target.h"

#define BACKLOG	1024	/* a burst of logins; the worker takes them as fast as it can */
#define CONTROL_BACKLOG	8
#define WAIT_NS	(3 * NSEC_PER_SEC)	/* for a target that was killed to be gone */
#define LOOK_NS	(20 * NSEC_PER_MSEC)

/*
 * The parent of a killed target ends before its worker, which holds ports and files until the
 * last of its I/O is over.  Return: whether to try again, some time later.
 */
static bool wait_for_former(uint64_t *deadline_ns, const char *what)
{
	struct env *env = env_posix();
	uint64_t now = env_now_ns(env);

	if (!*deadline_ns) {
		*deadline_ns = now + WAIT_NS;
		log_info(env, TARGET_NAME, "%s: in use; waits for a moment, in case that a target "
			 "is ending", what);
	}
	if (now >= *deadline_ns)
		return false;
	env_sleep_until(env, now + LOOK_NS);
	return true;
}

void target_files_init(struct target_files *files)
{
	memset(files, 0, sizeof(*files));
	files->control = -1;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void target_file_sent(struct target_lun_file *f)
{
	close_fd(&f->handle.fd);
	close_fd(&f->state_fd);
	f->sent = true;
}

static void close_luns(struct target_files *files, unsigned int from)
{
	for (unsigned int i = from; i < files->lun_count; i++) {
		target_file_sent(&files->luns[i]);
		close_fd(&files->luns[i].lock_fd);
	}
	files->lun_count = from;
}

void target_files_close(struct target_files *files)
{
	for (unsigned int i = 0; i < files->portal_count; i++)
		close_fd(&files->portals[i]);
	files->portal_count = 0;
	close_fd(&files->control);
	if (files->control_path[0])
		unlink(files->control_path);
	files->control_path[0] = '\0';
	close_luns(files, 0);
	free(files->luns);
	files->luns = NULL;
}

/* ---- portals ---- */

static int listen_on(struct tgt_portal *portal)
{
	socklen_t len = sizeof(portal->addr);
	int fd, one = 1, err;

	fd = socket(portal->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	/* [::] and 0.0.0.0 are portals of their own, which SendTargets shows. */
	if (portal->addr.ss_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	if (!bind(fd, (struct sockaddr *)&portal->addr,
		  portal->addr.ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) :
		  sizeof(struct sockaddr_in)) &&
	    !listen(fd, BACKLOG) &&
	    !getsockname(fd, (struct sockaddr *)&portal->addr, &len))
		return fd;
	err = -errno;
	close(fd);
	return err;
}

static int refuse_portal(int err, const char *text, char *why, size_t why_size)
{
	return text_refuse(err, why, why_size, "portal %s: cannot listen: %s%s", text, strerror(-err),
			   err == -EADDRINUSE ? "; does another target serve there?" : "");
}

int target_portals_open(struct target_files *files, struct tgt_config *config, char *why,
			size_t why_size)
{
	uint64_t deadline_ns = 0;
	char text[64];

	for (unsigned int i = 0; i < config->portal_count; i++) {
		int fd;

		tgt_portal_format(&config->portals[i].addr, text);
		do {
			fd = listen_on(&config->portals[i]);
		} while (fd == -EADDRINUSE && wait_for_former(&deadline_ns, text));
		if (fd < 0)
			return refuse_portal(fd, text, why, why_size);
		files->portals[files->portal_count++] = fd;
	}
	return 0;
}

/* As it was asked for, or as it became: of a port that was left open both name it. */
static unsigned int find_portal(const struct tgt_portal *p, const struct tgt_portal *old,
				const struct tgt_portal *bound, unsigned int count)
{
	unsigned int i = 0;

	while (i < count && memcmp(&p->addr, &old[i].addr, sizeof(p->addr)) &&
	       memcmp(&p->addr, &bound[i].addr, sizeof(p->addr)))
		i++;
	return i;
}

void target_portals_drop(struct target_files *files)
{
	for (unsigned int i = 0; i < files->portal_count; i++)
		close_fd(&files->portals[i]);
	files->portal_count = 0;
}

int target_portals_change(struct target_files *files, const struct tgt_portal *old,
			  const struct tgt_portal *bound, unsigned int count,
			  struct tgt_config *config, char *why, size_t why_size)
{
	char text[64];
	int fd;

	files->portal_count = 0;
	for (unsigned int i = 0; i < config->portal_count; i++) {
		unsigned int n = find_portal(&config->portals[i], old, bound, count);

		fd = -1;
		if (n < count) {
			config->portals[i] = bound[n];
		} else {
			tgt_portal_format(&config->portals[i].addr, text);
			fd = listen_on(&config->portals[i]);
			if (fd < 0) {
				target_portals_drop(files);
				return refuse_portal(fd, text, why, why_size);
			}
		}
		files->portals[files->portal_count++] = fd;
	}
	return 0;
}

/* ---- files ---- */

static int create_file(const struct tgt_lun *lun, char *why, size_t why_size)
{
	int fd, err = 0;

	if (!lun->create_size)
		return 0;
	fd = open(lun->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 && errno == EEXIST)
		return 0;
	if (fd < 0)
		return text_refuse(-errno, why, why_size, "%s: cannot be created: %s", lun->path,
				   strerror(errno));
	if (ftruncate(fd, (off_t)lun->create_size)) {
		err = text_refuse(-errno, why, why_size, "%s: cannot be made %llu bytes long: %s",
				  lun->path, (unsigned long long)lun->create_size,
				  strerror(errno));
		unlink(lun->path);
	}
	close(fd);
	return err;
}

/*
 * Two targets on one file would each keep reservations of their own.  The worker holds the lock
 * too: nobody serves the file before the last write of a former target has landed.
 */
static int lock_file(struct target_lun_file *f, char *why, size_t why_size)
{
	uint64_t deadline_ns = 0;
	int err;

	f->lock_fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (f->lock_fd < 0)
		return text_refuse(-errno, why, why_size, "%s: %s", f->path, strerror(errno));
	do {
		err = flock(f->lock_fd, LOCK_EX | LOCK_NB) ? -errno : 0;
	} while (err == -EWOULDBLOCK && wait_for_former(&deadline_ns, f->path));
	if (!err)
		return 0;
	if (err == -EWOULDBLOCK)
		return text_refuse(-EBUSY, why, why_size,
				   "%s: somebody else serves it already, or has it locked", f->path);
	return text_refuse(err, why, why_size, "%s: cannot be locked: %s", f->path,
			   strerror(-err));
}

static int make_state_dir(const char *path)
{
	char parent[PATH_MAX], *slash;

	strcpy(parent, path);
	slash = strrchr(parent, '/');
	if (slash && slash != parent) {
		*slash = '\0';
		if (mkdir(parent, 0755) && errno != EEXIST)
			return -errno;
	}
	if (mkdir(path, 0700) && errno != EEXIST)
		return -errno;
	return 0;
}

static int open_state(struct target_lun_file *f, const char *dir, char *why, size_t why_size)
{
	char path[PATH_MAX + SCSI_NAME_MAX + 32];
	struct stat st;
	int err = make_state_dir(dir);

	snprintf(path, sizeof(path), "%s/%s.lun%u", dir, f->iqn, f->number);
	if (!err) {
		f->state_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK,
				   0600);
		err = f->state_fd < 0 || fstat(f->state_fd, &st) ? -errno : 0;
	}
	if (!err && !S_ISREG(st.st_mode))
		err = -EINVAL;
	if (!err)
		return 0;
	return text_refuse(err, why, why_size, "%s: reservations could not be kept there: %s; name "
			   "another state directory", path, strerror(-err));
}

static int check_geometry(const struct tgt_lun *lun, const struct blkdev_info *info, char *why,
			  size_t why_size)
{
	if (info->sector > lun->block_size)
		return text_refuse(-EINVAL, why, why_size,
				   "%s: has sectors of %u bytes: needs block-size=%u", lun->path,
				   info->sector, info->sector);
	if (info->size >= lun->block_size)
		return 0;
	return text_refuse(-EINVAL, why, why_size, "%s: is smaller than a block of %u bytes; "
			   "truncate it to a size, or remove it and have size=SIZE make a new one",
			   lun->path, lun->block_size);
}

static int open_lun(struct target_lun_file *f, const struct tgt_lun *lun, const char *iqn,
		    const char *state_dir, char *why, size_t why_size)
{
	unsigned int flags = BLKFILE_NO_LOCK;
	int err;

	strcpy(f->iqn, iqn);
	f->number = lun->number;
	strcpy(f->path, lun->path);
	if (lun->flags & TGT_LUN_READ_ONLY)
		flags |= BLKFILE_READ_ONLY;
	if (lun->block_size == 4096)
		flags |= BLKFILE_SECTOR_4K;
	err = create_file(lun, why, why_size);
	if (!err)
		err = lock_file(f, why, why_size);
	if (!err) {
		err = blkfile_handle_open(f->path, flags, &f->handle, why, why_size);
		if (err)
			f->handle.fd = -1;
	}
	if (!err)
		err = check_geometry(lun, &f->handle.info, why, why_size);
	if (!err && state_dir)
		err = open_state(f, state_dir, why, why_size);
	return err;
}

static struct target_lun_file *find_file(struct target_files *files, const char *iqn,
					 unsigned int number)
{
	for (unsigned int i = 0; i < files->lun_count; i++)
		if (files->luns[i].number == number && !strcmp(files->luns[i].iqn, iqn))
			return &files->luns[i];
	return NULL;
}

static int open_another(struct target_files *files, const struct tgt_lun *lun, const char *iqn,
			const char *state_dir, char *why, size_t why_size)
{
	struct target_lun_file *f, *bigger;

	f = find_file(files, iqn, lun->number);
	if (f && strcmp(f->path, lun->path) != 0)
		return text_refuse(-EEXIST, why, why_size, "target %s: LUN %u cannot become another "
				   "file while it is served", iqn, lun->number);
	if (f)
		return 0;
	bigger = reallocarray(files->luns, files->lun_count + 1, sizeof(*bigger));
	if (!bigger)
		return text_refuse(-ENOMEM, why, why_size, "out of memory");
	files->luns = bigger;
	f = &bigger[files->lun_count++];
	memset(f, 0, sizeof(*f));
	f->lock_fd = -1;
	f->state_fd = -1;
	f->handle.fd = -1;
	return open_lun(f, lun, iqn, state_dir, why, why_size);
}

int target_files_open(struct target_files *files, const struct tgt_config *config, bool state,
		      char *why, size_t why_size)
{
	unsigned int before = files->lun_count;

	for (unsigned int i = 0; i < config->target_count; i++) {
		const struct tgt_target *t = &config->targets[i];

		for (unsigned int n = 0; n < t->lun_count; n++) {
			int err = open_another(files, &t->luns[n], t->iqn,
					       state ? config->state_dir : NULL, why, why_size);

			if (!err)
				continue;
			close_luns(files, before);
			return err;
		}
	}
	return 0;
}

/* ---- the socket for status ---- */

/* Of one that was killed the name is still there. */
static int bind_control(int fd, const struct sockaddr_un *addr)
{
	int probe, alive;

	if (!bind(fd, (const struct sockaddr *)addr, sizeof(*addr)))
		return 0;
	if (errno != EADDRINUSE)
		return -errno;
	probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (probe < 0)
		return -errno;
	alive = !connect(probe, (const struct sockaddr *)addr, sizeof(*addr)) || errno == EAGAIN;
	close(probe);
	if (alive)
		return -EADDRINUSE;
	unlink(addr->sun_path);
	return bind(fd, (const struct sockaddr *)addr, sizeof(*addr)) ? -errno : 0;
}

int target_control_open(struct target_files *files, const char *state_dir, char *why,
			size_t why_size)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd, err;

	if (snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/" TARGET_CONTROL_NAME, state_dir) >=
	    (int)sizeof(addr.sun_path))
		return text_refuse(-ENAMETOOLONG, why, why_size, "%s: too long a name", state_dir);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return text_refuse(-errno, why, why_size, "%s", strerror(errno));
	err = bind_control(fd, &addr);
	if (!err && (chmod(addr.sun_path, 0600) || listen(fd, CONTROL_BACKLOG)))
		err = -errno;
	if (err) {
		close(fd);
		return text_refuse(err, why, why_size, "%s: %s%s", addr.sun_path, strerror(-err),
				   err == -EADDRINUSE ? ": another target keeps its state there" :
				   "");
	}
	files->control = fd;
	strcpy(files->control_path, addr.sun_path);
	return 0;
}

static bool is_configured(const struct tgt_config *config, const struct target_lun_file *f)
{
	const struct tgt_target *t = tgt_config_target(config, f->iqn);

	for (unsigned int i = 0; t && i < t->lun_count; i++)
		if (t->luns[i].number == f->number)
			return true;
	return false;
}

void target_files_forget(struct target_files *files, const struct tgt_config *config)
{
	unsigned int kept = 0;

	for (unsigned int i = 0; i < files->lun_count; i++) {
		struct target_lun_file *f = &files->luns[i];

		if (is_configured(config, f)) {
			if (kept != i)
				files->luns[kept] = *f;
			kept++;
			continue;
		}
		target_file_sent(f);
		close_fd(&f->lock_fd);
	}
	files->lun_count = kept;
}
