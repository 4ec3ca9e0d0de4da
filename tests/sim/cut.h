/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Power cuts at every moment.
 *
 *   workload.c   scripts: what hosts do (script.c runs and notes each operation)
 *   record.c     what thereby reaches the LUN: every write, in order, and when it is durable
 *   cuts.c       which states of the LUN a cut can leave behind
 *   judge.c      attaches a fresh host to such a state, checks the volume, reads everything
 *   model.c      what may have been read
 *   power_cut.c  the program
 *
 * A recorded script is a list of moments.  A state is a moment and a choice among the writes
 * that are volatile then; the same numbers always name the same state.
 */
#ifndef LUNFS_TESTS_SIM_CUT_H
#define LUNFS_TESTS_SIM_CUT_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "block/simdev.h"
#include "fs/fs.h"
#include "fs/mkfs.h"

#define HOSTS_MAX	2u
#define ACTORS_MAX	8u
#define PATH_SIZE	512u
#define NEVER		SIZE_MAX
#define XATTRS_MAX	4u

/* In place of an assertion about the script's own world: a test that cannot go on. */
#define MUST(claim) do {								\
	if (!(claim)) {									\
		fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #claim);		\
		abort();								\
	}										\
} while (0)

/* ---- operations ---- */

enum what {
	OP_MKFS, OP_CREATE, OP_MKDIR, OP_SYMLINK, OP_LINK, OP_UNLINK, OP_RMDIR, OP_RENAME,
	OP_WRITE, OP_TRUNCATE, OP_PUNCH, OP_ZERO, OP_ALLOCATE, OP_SETXATTR, OP_REMOVEXATTR,
	OP_CHMOD, OP_FSYNC, OP_SYNC, OP_ATTACH, OP_DETACH, OP_SNAPSHOT, OP_CLONE, OP_REVERT,
	OP_MERGE, OP_GROW,
};

struct op {
	enum what what;
	unsigned int host;
	unsigned int actor;	/* the host's incarnation: its operations keep their order */
	char	path[PATH_SIZE], to[PATH_SIZE];	/* @to: new name, target, attribute's name */
	uint64_t off, len;
	unsigned int flags;
	unsigned int obj;	/* the object: 1 + index of the operation that made it; 0 root */
	unsigned int src;	/* of snapshots and clones: the object that they show */
	size_t	begin, end;	/* moments; NEVER: it has not ended */
	int	err;
};

/* ---- the recording ---- */

struct rec_write {
	struct env *host;
	uint64_t off, len;
	uint8_t	*data;		/* NULL: zeros */
	bool	discard;	/* each block zeros, or as it was */
	bool	fua;
	size_t	applied, completed, hardened, dropped;	/* moments */
	uint64_t number;	/* among completed ones */
};

enum moment_kind { MOMENT_WRITE, MOMENT_COMPLETE, MOMENT_FLUSH, MOMENT_CUT, MOMENT_BEGIN,
		   MOMENT_END };

struct moment { enum moment_kind kind; size_t index; };

struct disk_rig;

struct member {
	struct env *env;
	struct blkdev *dev, *hb_dev;
	struct fs *fs;
	struct fs_file *held;		/* do_hold() */
	struct disk_rig *disk;		/* do_disk_open() */
	unsigned int actor;
};

struct recording {
	const struct workload *w;
	struct simdisk_params disk_params;
	struct sim *sim;		/* until the script has ended */
	struct simdisk *disk;
	struct env *env;		/* the observer's, who runs the script */
	struct member hosts[HOSTS_MAX];
	struct rec_write *writes;
	size_t	write_count, write_max;
	uint64_t completions;
	struct moment *moments;
	size_t	moment_count, moment_max;
	struct op *ops;
	size_t	op_count, op_max;
	size_t	cut_from;		/* first moment to cut at */
	unsigned int attaches, actors;
	unsigned int flushes;		/* under way */
};

struct workload {
	const char *name;
	void	(*script)(struct recording *r);
	uint64_t size;		/* of the LUN */
	uint32_t sector;
	uint64_t journal_size;
	uint32_t slots;
	bool	mkfs;		/* the script formats; else it finds a fresh volume */
	uint64_t arg;		/* the script's */
	bool	copied;		/* hosts find another device than the one it was made on */
	uint64_t volume;	/* bytes of the LUN that are formatted; 0: all */
};

/* What hosts find where the volume is a copy. */
#define COPY_IDENTITY	"power-cut-copy"

extern const struct workload workloads[];
extern const size_t workload_count;

/** record_run() - runs @w's script in a world of its own and records it. */
void record_run(struct recording *r, const struct workload *w);

/** record_open() - @host's path to the LUN, recorded. */
struct blkdev *record_open(struct recording *r, struct env *host);

/** record_moment() - something has happened; returns when. */
size_t record_moment(struct recording *r, enum moment_kind kind, size_t index);

/** record_crash() - @host's commands under way are answered to nobody. */
void record_crash(struct recording *r, struct env *host);

/** record_cut() - all that was volatile is gone. */
void record_cut(struct recording *r);

uint64_t mix64(uint64_t x);

/* ---- scripts ---- */

/* A thread of @host beside the script; one whose host crashes is never joined. */
struct env_thread *do_start(struct recording *r, unsigned int host, void (*fn)(void *r));
void do_join(struct recording *r, unsigned int host, struct env_thread *thread);

/* All but do_write(), do_allocate() and do_try_create() abort if the operation fails. */
void do_mkfs(struct recording *r);
void do_attach(struct recording *r, unsigned int host);
void do_detach(struct recording *r, unsigned int host);
void do_crash(struct recording *r, unsigned int host);
/* From here on what @host does is not in order with what it did (another thread, or life). */
void new_actor(struct recording *r, unsigned int host);
/* Both hosts and the LUN: nothing that was not flushed is left. */
void do_power_cut(struct recording *r);
/* Opens a file until do_drop() or the end of its host; one at a time. */
void do_hold(struct recording *r, unsigned int host, const char *path);
void do_drop(struct recording *r, unsigned int host);
void do_create(struct recording *r, unsigned int host, const char *path);
/* Returns false if there was no space. */
bool do_try_create(struct recording *r, unsigned int host, const char *path);
void do_mkdir(struct recording *r, unsigned int host, const char *path);
void do_symlink(struct recording *r, unsigned int host, const char *path, const char *target);
void do_link(struct recording *r, unsigned int host, const char *path, const char *to);
void do_unlink(struct recording *r, unsigned int host, const char *path);
void do_rmdir(struct recording *r, unsigned int host, const char *path);
void do_rename(struct recording *r, unsigned int host, const char *path, const char *to,
	       unsigned int flags);
/* Returns how much was written: less than @len only where space ran out. */
uint64_t do_write(struct recording *r, unsigned int host, const char *path, uint64_t off,
		  uint64_t len);
void do_truncate(struct recording *r, unsigned int host, const char *path, uint64_t size);
void do_punch(struct recording *r, unsigned int host, const char *path, uint64_t off,
	      uint64_t len);
void do_zero(struct recording *r, unsigned int host, const char *path, uint64_t off,
	     uint64_t len);
int do_allocate(struct recording *r, unsigned int host, const char *path, unsigned int flags,
		uint64_t off, uint64_t len);
void do_setxattr(struct recording *r, unsigned int host, const char *path, const char *name,
		 uint64_t len);
void do_removexattr(struct recording *r, unsigned int host, const char *path,
		    const char *name);
/* Several writers from now on, or one. */
void do_mark(struct recording *r, unsigned int host, const char *path, bool multi);
/* Images: @path gets a snapshot or clone @to; the file at @to goes back to snapshot @path; what was
 * deleted below @path is merged, @steps steps of it. */
void do_snapshot(struct recording *r, unsigned int host, const char *path, const char *to);
void do_clone(struct recording *r, unsigned int host, const char *path, const char *to);
void do_revert(struct recording *r, unsigned int host, const char *path, const char *to);
void do_merge(struct recording *r, unsigned int host, const char *path, unsigned int steps);
void do_chmod(struct recording *r, unsigned int host, const char *path, uint32_t mode);
void do_fsync(struct recording *r, unsigned int host, const char *path, bool data_only);
void do_sync(struct recording *r, unsigned int host);

/* A file as an open virtual disk, one at a time; whole sectors.  @flags: enum blk_flags; with
 * BLK_FUA everything before has been flushed. */
void do_disk_open(struct recording *r, unsigned int host, const char *path);
void do_disk_close(struct recording *r, unsigned int host);
void do_disk_write(struct recording *r, unsigned int host, const char *path, uint64_t off,
		   uint64_t len, unsigned int flags);
void do_disk_flush(struct recording *r, unsigned int host, const char *path);
void do_disk_discard(struct recording *r, unsigned int host, const char *path, uint64_t off,
		     uint64_t len);
void do_disk_zero(struct recording *r, unsigned int host, const char *path, uint64_t off,
		  uint64_t len);
/* do_grow() - the volume, to @size bytes; 0: all of the LUN. */
void do_grow(struct recording *r, unsigned int host, uint64_t size);
void do_sleep(struct recording *r, uint64_t ms);
/** cut_from_here() - what came before is only preparation. */
void cut_from_here(struct recording *r);

/* ---- the model ---- */

/** pattern() - what operation @op writes, @len bytes at @off of a file. */
void pattern(size_t op, uint64_t off, void *buf, size_t len);

/* A file's bytes from @off on, as found; what lies between is zeros. */
struct extent { uint64_t off, len; uint8_t *data; };

struct found_xattr { char name[64]; uint64_t len; uint8_t *value; };

struct found {
	char	path[PATH_SIZE];
	uint32_t mode, nlink;
	uint64_t ino, size;
	char	target[PATH_SIZE];
	struct extent *extents;
	size_t	extent_count;
	struct found_xattr xattrs[XATTRS_MAX];
	unsigned int xattr_count;
};

struct tree { struct found *found; size_t count, max; };

/**
 * model_object() - which object @path names once the first @count operations have happened;
 * returns false if none.
 */
bool model_object(const struct recording *r, size_t count, const char *path,
		  unsigned int *obj);

/**
 * model_allows() - whether a cut at @moment may leave @tree behind.  If not, @why says what
 * is the matter with it, compared with the earliest state that might have been.
 */
bool model_allows(const struct recording *r, size_t moment, const struct tree *tree, bool verbose,
		  char *why, size_t why_size);

/* ---- states ---- */

/** cuts_count() - how many states a cut at @moment has; 0: no place to cut. */
uint64_t cuts_count(const struct recording *r, size_t moment);

/** cuts_advance() - @disk, which holds what is durable after @from, gets what is after @to. */
void cuts_advance(const struct recording *r, struct simdisk *disk, size_t from, size_t to);

/** cuts_choose() - adds to @disk what state @state of @moment keeps of the volatile writes. */
void cuts_choose(const struct recording *r, struct simdisk *disk, size_t moment,
		 uint64_t state, bool verbose);

/** judge() - whether @disk holds what it may hold; complains on stderr if not. */
bool judge(const struct recording *r, struct sim *sim, struct simdisk *disk, size_t moment,
	   uint64_t state, bool verbose);

#endif
