/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the volume fuzzer share. */
#ifndef LUNFS_TESTS_FUZZ_VOLUME_H
#define LUNFS_TESTS_FUZZ_VOLUME_H

#include "block/simdev.h"
#include "fs/fs.h"
#include "tests/fuzz/fuzz.h"

#define VOLUME_SIZE	(64 * MIB)
#define BLOCKS_MAX	512u
#define TXNS_MAX	32u
#define FILES_MAX	64u

/* A metadata block of the volume as it was made. */
struct mblock {
	uint64_t addr;
	enum meta_type type;
	unsigned int txn;	/* 1 + the journal transaction that it belongs to; 0: none */
	bool	has_old;
	uint8_t data[BLOCK_SIZE];
	uint8_t old[BLOCK_SIZE];	/* as it was earlier */
};

/* A transaction that a replay would write: its blocks follow each other in blocks[]. */
struct mtxn {
	unsigned int desc, count;	/* blocks[desc] … images … commit */
};

/* A file with contents that no other one has. */
struct mfile {
	char	name[16];	/* in its directory */
	uint64_t id;
	uint64_t parent;	/* the image that shows through it; 0: none */
	uint32_t sum;		/* volume_sum(); 0: it has no name */
	bool	small;		/* one of many that differ in name and size only */
};

struct volume {
	struct super super;
	struct simdisk_image *image;	/* taken while the host had it attached */
	struct mblock *blocks;
	unsigned int count;
	struct mtxn txns[TXNS_MAX];
	unsigned int txn_count;
	struct mfile files[FILES_MAX];
	unsigned int file_count;
};

/* Names that exist on it, for those who use it. */
#define NAME_BIG	"big-directory"
#define NAME_SPARSE	"sparse.img"

extern const uint8_t volume_host_id[16], volume_boot_id[16];

/**
 * volume_make() - formats and fills one, in a world of its own; the same each time.
 * @images: without the directory that is big enough to have nodes, which takes most of a run's
 * time, but with snapshots, linked clones, a merge half done, a file of several writers.
 */
void volume_make(struct volume *v, bool images);

/** volume_fill_images() - the files of the second kind (volume_images.c). */
void volume_fill_images(struct volume *v, struct fs *fs, const struct fs_cred *cred);

/** volume_sum_all() - of the contents of v->files. */
void volume_sum_all(struct volume *v, struct fs *fs, const struct fs_cred *cred);

/** volume_sum() - a checksum of all blocks of @f that are not zeros.  Return: negative errno. */
int volume_sum(struct fs *fs, struct fs_file *f, uint32_t *sum);

enum volume_use {
	USE_CHECK	= 1 << 0,	/* fsck.lunfs -n */
	USE_REPLAY	= 1 << 1,	/* scan and replay every journal */
	USE_RESCUE	= 1 << 2,	/* attach without locks and read everything */
	USE_READ	= 1 << 3,	/* attach and read everything */
	USE_CHANGE	= 1 << 4,	/* attach and change everything */
	USE_OTHER	= 1 << 5,	/* attach as another host, which recovers the dead one */
	USE_REPAIR	= 1 << 6,	/* fsck.lunfs -y, before all of these */
	USE_IMAGES	= 1 << 7,	/* the volume with images; -y after all of these, then a
					 * host that changes everything, and a clean check */
};

/* What is known of the damage, and what is being done to it. */
struct volume_run {
	const struct volume *v;
	struct env *env;
	struct simdisk *disk;
	unsigned int uses;		/* of enum volume_use */
	bool	repairing;		/* a repair has begun: its writes may go anywhere */
	bool	may_refuse;		/* superblock or slots were changed: a host may not get on */
	const bool *intact;		/* of v->files, whose contents are to be there; or NULL */
	const bool *like_others;	/* of v->files: reading them is enough this time */
};

/** volume_use() - as a thread of @run->env. */
void volume_use(struct volume_run *run);

/** volume_use_disk() - opens the file @name of @dir as a virtual disk, uses and snapshots it. */
void volume_use_disk(struct fs *fs, uint64_t dir, const char *name);

/* ---- damage (volume_change.c) ---- */

#define CHANGE_RAW	0x80u	/* of a change's kind: the block's checksum stays wrong */

/* All blocks as they were changed, before they are sealed. */
struct damage {
	const struct volume *v;
	uint8_t (*data)[BLOCK_SIZE];	/* of v->blocks */
	bool	touched[BLOCKS_MAX], raw[BLOCKS_MAX];
	/* Copies at addresses where there was nothing. */
	unsigned int stray_count;
	struct { uint64_t addr; unsigned int from; bool raw; } strays[16];
};

/** damage_change() - one change from @in: see volume_fuzz.c. */
void damage_change(struct damage *d, struct fuzz_input *in);

/** damage_store() - seals and writes what was changed. */
void damage_store(struct damage *d, struct simdisk *disk);

/** damage_make_up() - an input of @size bytes at most for @volumes, without and with images.
 * Return: its size. */
size_t damage_make_up(const struct volume volumes[2], uint8_t *data, size_t size, uint64_t seed);

/* What a volume is made with works: a failure is the fuzzer's own, and is told. */
#define must(call)								\
	do {									\
		int must_err = (call);						\
										\
		if (must_err)							\
			fprintf(stderr, "%s: %s\n", #call, strerror(-must_err));	\
		FUZZ_CHECK(must_err == 0);					\
	} while (0)

#endif
