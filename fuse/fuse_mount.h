/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A FUSE mount of an attached datastore.
 *
 * The caller (the daemon's worker) gets the kernel's end from its privileged parent, which has
 * already called mount(2); nothing here opens a file, mounts or unmounts: the process is under
 * seccomp and may not.  Several mounts may serve one datastore at the same time.
 */
#ifndef LUNFS_FUSE_FUSE_MOUNT_H
#define LUNFS_FUSE_FUSE_MOUNT_H

#include "fs/fs.h"

struct mnt;

struct mnt_options {
	const char	*dir;		/* mount point, for log lines; copied */
	bool		read_only;	/* refuse changes with -EROFS, whatever the kernel lets through */
	unsigned int	threads;	/* that serve requests; 0: as many as seem useful */
	size_t		max_read;	/* bytes, as given to mount(2) */
	/*
	 * Optional: name of process @pid (of a struct fs_cred), "" when it is gone.  Costs a
	 * round trip to the parent process: ask where a lock is really taken, not on each call.
	 */
	void		(*comm_of)(void *arg, uint32_t pid, char comm[25]);
	/*
	 * The kernel has ended the connection (umount(8), or it was aborted): no request will
	 * come any more.  Called once, from one of the mount's own threads, which may not call
	 * mnt_stop() itself.  Not called when mnt_stop() comes first.
	 */
	void		(*unmounted)(void *arg);
	void		*arg;
};

/**
 * mnt_start() - serves FUSE requests on @fuse_fd by threads of its own.
 * @fs:      attached; borrowed, must outlive the mount.
 * @fuse_fd: /dev/fuse, mounted, before the first request; taken over in every case.
 *
 * Return: 0; -ENOMEM, -EAGAIN no thread, -EPROTO a kernel without FUSE 7.31.
 */
int mnt_start(struct fs *fs, int fuse_fd, const struct mnt_options *o, struct mnt **out);

/**
 * mnt_stop() - ends the threads, closes the files that are still open on @fs and frees @m.
 *
 * Called once for each mount, after unmounted() or to end a connection that is still mounted
 * (its users then see ENOTCONN; the caller unmounts).  Operations that wait for the device
 * or for a lock are waited for.  Context: blocks; not from unmounted().
 */
void mnt_stop(struct mnt *m);

/**
 * mnt_is_over() - whether the kernel has ended the connection, which umount(8) does before it
 * returns: unmounted() is then called in a moment, or was.  Context: any thread, before mnt_stop().
 */
bool mnt_is_over(const struct mnt *m);

/**
 * mnt_invalidate() - what the kernel may have cached of inode @id is no longer covered.
 *
 * The datastore's fs->invalidate calls this for each of its mounts.  Context: any thread, also
 * lockd's; queues and returns, since the kernel may hold the inode while it waits for us.
 */
void mnt_invalidate(struct mnt *m, uint64_t id);

/**
 * mnt_gone() - the datastore's fs->gone calls this for each of its mounts: @attr is of something
 * that has no name any more, and may be open in the kernel without our knowing.
 *
 * Context: any thread that removes names, also of other mounts.
 */
void mnt_gone(struct mnt *m, const struct fs_attr *attr);

struct mnt_status {
	uint64_t	requests, reads, writes;	/* served so far */
	uint64_t	open_files;
};
void mnt_status(struct mnt *m, struct mnt_status *st);

#endif
