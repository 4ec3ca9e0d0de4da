// SPDX-License-Identifier: Apache-2.0
/*
 * One metadata block from the disk: everything that decodes or prints one.
 *
 * Input: a byte of flags, a byte that chooses the type, the block (zeros beyond the input).
 * Unless a flag forbids it the block gets a right header and checksum first: what an attacker
 * who can write to the LUN, or a bug of ours, puts there.
 */
#include "base/meta.h"
#include "fs/attrs.h"
#include "fs/debug.h"
#include "fs/super.h"
#include "lockd/lockrec.h"
#include "tests/fuzz/fuzz.h"

#define FLAG_RAW	1u	/* leave header and checksum as they are */

static const enum meta_type types[] = {
	META_SUPER, META_SLOT, META_LOCK, META_TAIL, META_DESC, META_COMMIT, META_AG, META_BITMAP,
	META_ITABLE, META_INODE, META_MAP_NODE, META_MAP_LEAF, META_DIR_NODE, META_DIR_LEAF,
	META_XATTR, META_ORPHAN,
};
static const uint8_t volume[16] = "fuzzed volume 01";
static FILE *null;
static char why[400];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	null = fopen("/dev/null", "w");
	FUZZ_CHECK(null);
	return 0;
}

static void decode_super(const void *block)
{
	struct super s;
	uint8_t *again, *bits;

	if (super_decode(block, SUPER_ADDR, &s, why, sizeof(why)))
		return;
	/* What was believed can be computed with, for every group. */
	bits = malloc(BITMAP_BYTES);
	again = malloc(BLOCK_SIZE);
	FUZZ_CHECK(bits && again);
	for (uint32_t ag = 0; ag < s.ag_count; ag += 1 + s.ag_count / 64) {
		uint32_t blocks = super_ag_blocks(&s, ag), count = super_ag_bitmaps(&s);

		FUZZ_CHECK(blocks && ag_new_free(&s, ag) < blocks);
		ag_bitmap_fresh(&s, ag, blocks, 0, bits);
		ag_bitmap_fresh(&s, ag, blocks, count - 1, bits);
	}
	super_encode(&s, SUPER_ADDR, again);
	FUZZ_CHECK(super_decode(again, SUPER_ADDR, &s, why, sizeof(why)) == 0);
	free(again);
	free(bits);
}

static void decode_sectors(const void *block, uint64_t owner)
{
	struct lockrec r;
	struct slot s;
	uint8_t again[META_BLOCK_SIZE];

	if (slot_decode(block, volume, SUPER_ADDR, (uint32_t)owner, &s, why, sizeof(why)) == 0) {
		FUZZ_CHECK(s.generation && *slot_state_name(s.state));
		slot_encode(&s, volume, SUPER_ADDR, again, sizeof(again));
		FUZZ_CHECK(memcmp(again, block, 64) == 0 || meta_version(block));
	}
	if (lockrec_decode(block, volume, SUPER_ADDR, &r, why, sizeof(why)) == 0) {
		FUZZ_CHECK(*lock_mode_name(r.mode));
		lockrec_encode(&r, volume, SUPER_ADDR, again, sizeof(again));
	}
}

static void decode_attributes(const void *block)
{
	struct attrs *a = malloc(sizeof(*a));
	char names[XATTR_BYTES_MAX + 1];
	const void *value;
	size_t len;
	uint32_t mode = 0644;

	FUZZ_CHECK(a);
	if (attrs_decode(block, a) == 0) {
		attrs_names(a, names, sizeof(names), &len);
		if (attrs_find(a, ACL_DEFAULT, &value, &len) == 0 && acl_check(value, len)) {
			uint8_t *copy = malloc(len ? len : 1);

			FUZZ_CHECK(copy);
			memcpy(copy, value, len);
			acl_inherit(copy, len, &mode);
			acl_chmod(copy, len, 0751);
			acl_mode(copy, len, &mode);
			free(copy);
		}
		attrs_put(a, "user.fuzz", why, 40);
		attrs_del(a, "user.fuzz");
	}
	free(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	uint64_t flags = fuzz_number(&in, 1);
	struct meta_expect e = { types[fuzz_number(&in, 1) % ARRAY_SIZE(types)], volume, SUPER_ADDR,
				 0, 0 };
	uint8_t *block = aligned_alloc(BLOCK_SIZE, BLOCK_SIZE);
	const struct meta_hdr_disk *hdr = (const void *)block;

	FUZZ_CHECK(block);
	fuzz_take(&in, block, BLOCK_SIZE);
	e.owner = le64_to_cpu(hdr->owner) % SLOT_COUNT_MAX;
	e.birth = le32_to_cpu(hdr->birth) & UINT16_MAX;
	if (!(flags & FLAG_RAW))
		meta_seal(block, &e, le64_to_cpu(hdr->version));
	meta_verify(block, &e, why, sizeof(why));
	debug_print(null, block, SUPER_ADDR, volume);
	decode_super(block);
	decode_sectors(block, e.owner);
	inode_decode_check((const void *)block, why, sizeof(why));
	decode_attributes(block);
	free(block);
	return 0;
}
