/* SPDX-License-Identifier: Apache-2.0 */
/* What the three files of the volume fuzzer share. */
#ifndef LUNFS_TESTS_FUZZ_VOLUME_H
#define LUNFS_TESTS_FUZZ_VOLUME_H

#include "block/simdev.h"
#include "fs/fs.h"
#include "tests/fuzz/fuzz.h"

#define VOLUME_SIZE	(64 * MIB)
#define BLOCKS_MAX	512u
#define TXNS_MAX	32u

/* A metadata block of the volume as it was made. */
struct mblock {
	uint64_t addr;
	enum meta_type type;
	unsigned int txn;	/* 1 + the journal transaction that it belongs to; 0: none */
	uint8_t data[BLOCK_SIZE];
};

/* A transaction that a replay would write: its blocks follow each other in blocks[]. */
struct mtxn {
	unsigned int desc, count;	/* blocks[desc] … images … commit */
};

struct volume {
	struct super super;
	struct simdisk_image *image;	/* taken while the host had it attached */
	struct mblock *blocks;
	unsigned int count;
	struct mtxn txns[TXNS_MAX];
	unsigned int txn_count;
};

/* Names that exist on it, for those who use it. */
#define NAME_BIG	"big-directory"
#define NAME_SPARSE	"sparse.img"

extern const uint8_t volume_host_id[16], volume_boot_id[16];

/** volume_make() - formats and fills one, in a world of its own; the same each time. */
void volume_make(struct volume *v);

enum volume_use {
	USE_CHECK	= 1 << 0,	/* fsck.lunfs -n */
	USE_REPLAY	= 1 << 1,	/* scan and replay every journal */
	USE_RESCUE	= 1 << 2,	/* attach without locks and read everything */
	USE_READ	= 1 << 3,	/* attach and read everything */
	USE_CHANGE	= 1 << 4,	/* attach and change everything */
	USE_OTHER	= 1 << 5,	/* attach as another host, which recovers the dead one */
	USE_REPAIR	= 1 << 6,	/* fsck.lunfs -y, before all of these */
};

/** volume_use() - as a thread of @env, on @disk; @uses of enum volume_use, one after another. */
void volume_use(struct env *env, struct simdisk *disk, const struct super *s, unsigned int uses);

#endif
