/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FORMAT.md says what the headers say, and each of its structures is shown field by field, by the names
 * that it gives them.  Its tables of structures: debug_test.c.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "fs/debug.h"

#include "tests/fs/volume.h"

static char *page;		/* docs/FORMAT.md; tests run from the top of the tree */

static char *read_text(const char *path)
{
	char *text = NULL;
	size_t size = 0;
	FILE *f = fopen(path, "r");

	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	if (getdelim(&text, &size, '\0', f) < 0)
		CU_FAIL_FATAL("cannot be read");
	fclose(f);
	return text;
}

static bool has(const char *text)
{
	bool found = strstr(page, text);

	if (!found)
		fprintf(stderr, "FORMAT.md does not say: %s\n", text);
	return found;
}

/* ---- constants ---- */

/* Every "NAME = VALUE" of an enum in @path whose name begins with @prefix; how many there are. */
static unsigned int each_constant(const char *path, const char *prefix,
				  void (*check)(const char *name, const char *value))
{
	char *text = read_text(path), *save = NULL;
	unsigned int count = 0;

	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		char name[64], value[64];

		if (sscanf(line, " %63[A-Z0-9_] = %63[^,/]", name, value) != 2 ||
		    strncmp(name, prefix, strlen(prefix)) != 0)
			continue;
		check(name, value);
		count++;
	}
	free(text);
	return count;
}

static void check_magic(const char *name, const char *value)
{
	uint32_t magic = (uint32_t)strtoul(value, NULL, 16);
	char row[128], length[32];
	const char *at;

	snprintf(row, sizeof(row), "| 0x%08x | `%s` | ", magic, name);
	snprintf(length, sizeof(length), " | %u | ", meta_length((enum meta_type)magic));
	CU_ASSERT_TRUE_FATAL(has(row));
	at = strchr(strstr(page, row) + strlen(row), '|') - 1;
	CU_ASSERT_EQUAL(strncmp(at, length, strlen(length)), 0);
	CU_ASSERT_NOT_EQUAL(strcmp(meta_type_name(magic), "unknown"), 0);
}

static unsigned int rows_like(const char *begin)
{
	unsigned int count = 0;

	for (const char *at = page; (at = strstr(at, begin)); at += strlen(begin))
		count++;
	return count;
}

/* A block of a type that the page does not know, or knows by another number, is no block to a reader. */
static void magics_are_those_of_the_header(void)
{
	unsigned int count = each_constant("base/meta.h", "META_", check_magic);

	CU_ASSERT_EQUAL(count, 16);
	CU_ASSERT_EQUAL(rows_like("\n| 0x"), count);
}

static void check_inode_flag(const char *name, const char *value)
{
	unsigned int bit;
	char row[128];

	CU_ASSERT_EQUAL_FATAL(sscanf(value, "1 << %u", &bit), 1);
	snprintf(row, sizeof(row), "\n| %u | `%s` | ", bit, name);
	CU_ASSERT_TRUE(has(row));
}

static void check_named_bit(const char *name, const char *value)
{
	unsigned int bit;
	char text[128];

	if (sscanf(value, "1 << %u", &bit) != 1)
		return;
	snprintf(text, sizeof(text), "bit %u `%s`", bit, name);
	CU_ASSERT_TRUE(has(text));
}

static void flags_are_those_of_the_headers(void)
{
	unsigned int count = each_constant("fs/format.h", "INODE_", check_inode_flag);

	CU_ASSERT_EQUAL(count, (unsigned int)__builtin_popcount(INODE_FLAGS_KNOWN));
	for (unsigned int bit = 0; bit < 32; bit++) {
		char row[32];

		snprintf(row, sizeof(row), "\n| %u | `INODE_", bit);
		CU_ASSERT_EQUAL(rows_like(row), INODE_FLAGS_KNOWN >> bit & 1);
	}
	CU_ASSERT_TRUE(each_constant("lockd/slot.h", "SLOT_", check_named_bit) > 0);
	CU_ASSERT_TRUE(each_constant("fs/format.h", "INCOMPAT_", check_named_bit) > 0);
	/* None of these yet: the page would have to name them. */
	CU_ASSERT_EQUAL((int)RO_COMPAT_KNOWN | (int)COMPAT_KNOWN, 0);
}

/* A number in a sentence: @fmt with @a, @b and @c. */
struct limit {
	const char *fmt;
	unsigned long long a, b, c;
};

static const struct limit limits[] = {
	{ "# The on-disk format of LunFS, version %llu\n", FORMAT_VERSION, 0, 0 },
	{ "| `format_version` | le32 | %llu |", FORMAT_VERSION, 0, 0 },
	{ "Version %llu is the first one that is kept", FORMAT_VERSION, 0, 0 },
	{ "A **block** is %llu bytes", BLOCK_SIZE, 0, 0 },
	{ "A **unit** is %llu KiB of a file: %llu blocks", UNIT_SIZE / KIB, UNIT_BLOCKS, 0 },
	{ "| %llu KiB | superblock, first copy |", SUPER_ADDR / KIB, 0, 0 },
	{ "a file up to 2^%llu bytes", __builtin_ctzll(FILE_SIZE_MAX), 0, 0 },
	{ "a volume has %llu MiB to %llu TiB", VOLUME_SIZE_MIN / MIB, AG_COUNT_MAX * AG_SIZE_MAX / TIB, 0 },
	{ "| `slot_count` | le32 | host slots, 1…%llu |", SLOT_COUNT_MAX, 0, 0 },
	{ "blocks of a slot's orphan list: %llu |", ORPHAN_BLOCKS, 0, 0 },
	{ "allocation groups, 1…%llu |", AG_COUNT_MAX, 0, 0 },
	{ "bytes of a journal, %llu KiB…1 GiB", JOURNAL_SIZE_MIN / KIB, 0, 0 },
	{ "a power of two, %llu GiB…%llu GiB;", AG_SIZE_MIN / GIB, AG_SIZE_MAX / GIB, 0 },
	{ "%llu local (lock file of one machine), %llu SCSI, %llu simulated", BLK_CAW_LOCAL, BLK_CAW_SCSI,
	  BLK_CAW_SIM },
	{ "| `state` | le32 | %llu free, %llu live, %llu recovering", SLOT_FREE, SLOT_LIVE,
	  SLOT_RECOVERING },
	{ "recovering, %llu joining |", SLOT_JOINING, 0, 0 },
	{ "at 0x%llx the slot is used up", SLOT_GENERATION_LAST, 0, 0 },
	{ "| `mode` | le32 | %llu free, %llu shared, %llu exclusive", LOCK_FREE, LOCK_SHARED, LOCK_EXCLUSIVE },
	{ "exclusive, %llu multi-writer |", LOCK_MULTI, 0, 0 },
	{ "bit *i* (least significant first): block %llu × index + *i*", BITMAP_BITS, 0, 0 },
	{ "⌈`ag_size` / %llu / %llu⌉", BLOCK_SIZE, BITMAP_BITS, 0 },
	{ "| `count` | le16 | inodes in the cluster, 1…%llu |", CLUSTER_INODES, 0, 0 },
	{ "A new cluster's %llu blocks", CLUSTER_BLOCKS, 0, 0 },
	{ "| `depth` | le32 | levels of blocks below the root: 0…%llu |", DEPTH_MAX, 0, 0 },
	{ "Depth is at most %llu.", DEPTH_MAX, 0, 0 },
	{ "bits 0–%llu the inode number", INODE_NUMBER_BITS - 1, 0, 0 },
	{ "A **block pointer** is 64 bits: bits 0–%llu the block number, %llu–63 the birth stamp",
	  BPTR_BLOCK_BITS - 1, BPTR_BLOCK_BITS, 0 },
	{ "bits 0–%llu first block number, %llu–51 order, %llu detached", ENTRY_BLOCK_BITS - 1,
	  ENTRY_ORDER_SHIFT, __builtin_ctzll(ENTRY_DETACHED) },
	{ "| `size` bytes, at most %llu;", INLINE_SIZE, 0, 0 },
	{ "map entries (at most %llu)", INLINE_ENTRIES, 0, 0 },
	{ "block pointers (at most %llu), each for %llu × %llu^", INLINE_POINTERS, LEAF_ENTRIES,
	  NODE_POINTERS },
	{ "index entries (1…%llu) |", INLINE_ENTRIES, 0, 0 },
	{ "| `name_len` | le16 | 0…%llu;", NAME_BYTES_MAX, 0, 0 },
	{ "entries in use, 1…%llu |", DIR_NODE_ENTRIES, 0, 0 },
	{ "images that follow, 1…%llu |", JOURNAL_ENTRIES, 0, 0 },
	{ "Blocks 0 and %llu of a journal are the tail", JOURNAL_TAIL_BLOCKS - 1, 0, 0 },
	{ "%llu fifo, %llu character device, %llu directory", DT_FIFO, DT_CHR, DT_DIR },
	{ "%llu block device, %llu regular file, %llu symbolic link", DT_BLK, DT_REG, DT_LNK },
};

static void numbers_are_those_of_the_headers(void)
{
	char text[256];

	for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
		const struct limit *l = &limits[i];

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		snprintf(text, sizeof(text), l->fmt, l->a, l->b, l->c);
#pragma GCC diagnostic pop
		CU_ASSERT_TRUE(has(text));
	}
}

/* ---- what is shown ---- */

/* Names that a block's fields were shown by: "field", or "array.field". */
struct shown {
	struct debug_sink sink;
	char names[200][80];
	unsigned int count;
	const char *array;
};

static void note(struct debug_sink *sink, const char *name)
{
	struct shown *s = container_of(sink, struct shown, sink);

	CU_ASSERT_FATAL(s->count < ARRAY_SIZE(s->names));
	snprintf(s->names[s->count++], sizeof(s->names[0]), "%s%s%s", s->array ? s->array : "",
		 s->array ? "." : "", name);
}

static void on_block(struct debug_sink *sink, uint64_t addr, const char *type, const char *wrong)
{
	(void)sink;
	(void)addr;
	(void)wrong;
	CU_ASSERT_PTR_NOT_NULL(type);
}

static void on_number(struct debug_sink *sink, const char *name, enum debug_kind kind, uint64_t value)
{
	(void)kind;
	(void)value;
	note(sink, name);
}

static void on_text(struct debug_sink *sink, const char *name, enum debug_kind kind, const char *value)
{
	(void)kind;
	(void)value;
	note(sink, name);
}

static void on_begin(struct debug_sink *sink, const char *array, unsigned int index)
{
	(void)index;
	note(sink, array);
	container_of(sink, struct shown, sink)->array = array;
}

static void on_end(struct debug_sink *sink)
{
	container_of(sink, struct shown, sink)->array = NULL;
}

static bool was_shown(const struct shown *s, const char *array, const char *name)
{
	char text[80];

	snprintf(text, sizeof(text), "%s%s%s", array ? array : "", array ? "." : "", name);
	for (unsigned int i = 0; i < s->count; i++)
		if (!strcmp(s->names[i], text))
			return true;
	fprintf(stderr, "not shown: %s\n", text);
	return false;
}

/* What is written as zero says nothing; the header's fields are shown as the block's own. */
static bool says_something(const char *name)
{
	return strncmp(name, "zero", 4) != 0 && strcmp(name, "reserved") != 0 && strcmp(name, "hdr") != 0;
}

/* Each row of FORMAT.md's table of @st, as fields of @array's elements if that is not NULL. */
static unsigned int check_rows(const struct shown *s, const char *st, const char *array)
{
	char head[64], name[64];
	unsigned int off, size, rows = 0;
	const char *at;

	snprintf(head, sizeof(head), "<!-- struct %s: ", st);
	CU_ASSERT_TRUE_FATAL(has(head));
	for (at = strstr(page, head); at && strncmp(at, "\n\n|", 3) != 0; at++)
		;
	for (at += 2; *at == '|'; at = strchr(at, '\n') + 1)
		if (sscanf(at, "| %u | %u | `%63[a-z0-9_]` |", &off, &size, name) == 3) {
			CU_ASSERT_TRUE(!says_something(name) || was_shown(s, array, name));
			rows++;
		}
	CU_ASSERT_TRUE(rows > 0);
	return rows;
}

/* A type of block, its structure, and those within it. */
struct kind {
	enum meta_type type;
	const char *st;
	struct { const char *array, *st; } within[2];
	void (*fill)(void *block);	/* one element of each array */
};

static void fill_super(void *block)
{
	((struct super_disk *)block)->extent_count = cpu_to_le32(1);
}

static void fill_slot(void *block)
{
	((struct slot_disk *)block)->wants[0].addr = cpu_to_le64(4096);
	((struct slot_disk *)block)->denials[0].addr = cpu_to_le64(4096);
}

static void fill_lock(void *block)
{
	((struct lockrec_disk *)block)->sharers[2] = cpu_to_le32(7);
}

static void fill_desc(void *block)
{
	((struct journal_desc_disk *)block)->count = cpu_to_le32(1);
}

static void fill_ag(void *block)
{
	((struct ag_disk *)block)->bitmap_ready[0] = 1;
}

static void fill_bitmap(void *block)
{
	((struct bitmap_disk *)block)->bits[0] = 1;
}

static void fill_itable(void *block)
{
	((struct itable_disk *)block)->count = cpu_to_le32(1);
}

static void fill_file(void *block)
{
	struct inode_disk *d = block;

	d->mode = cpu_to_le32(S_IFREG);
	d->root_count = cpu_to_le32(1);
	((struct map_entry_disk *)(void *)d->root)->unit = cpu_to_le64(9);
}

static void fill_deep_dir(void *block)
{
	struct inode_disk *d = block;

	d->mode = cpu_to_le32(S_IFDIR);
	d->root_count = d->depth = cpu_to_le32(1);
}

static void fill_name(uint8_t *bytes)
{
	((struct dir_entry_disk *)(void *)bytes)->name_len = 1;
	bytes[sizeof(struct dir_entry_disk)] = 'n';
}

static void fill_small_dir(void *block)
{
	struct inode_disk *d = block;

	d->mode = cpu_to_le32(S_IFDIR);
	d->flags = cpu_to_le32(INODE_INLINE);
	d->root_count = cpu_to_le32(sizeof(struct dir_entry_disk) + 1);
	fill_name(d->root);
}

static void fill_map_leaf(void *block)
{
	((struct map_leaf_disk *)block)->entries[1].unit = cpu_to_le64(9);
}

static void fill_map_node(void *block)
{
	((struct map_node_disk *)block)->pointers[1] = cpu_to_le64(9);
}

static void fill_dir_leaf(void *block)
{
	struct dir_leaf_disk *d = block;

	d->count = cpu_to_le32(1);
	d->used = cpu_to_le32(sizeof(struct dir_entry_disk) + 1);
	fill_name(d->entries);
}

static void fill_dir_node(void *block)
{
	((struct dir_node_disk *)block)->count = cpu_to_le32(1);
}

static void fill_xattr(void *block)
{
	struct xattr_disk *d = block;

	d->count = cpu_to_le32(1);
	d->used = cpu_to_le32(sizeof(struct xattr_entry_disk) + 1);
	((struct xattr_entry_disk *)(void *)d->entries)->name_len = 1;
}

static void fill_orphan(void *block)
{
	((struct orphan_disk *)block)->ids[3] = cpu_to_le64(9);
}

static const struct kind kinds[] = {
	{ META_SUPER, "super_disk", { { "extents", "super_extent_disk" } }, fill_super },
	{ META_SLOT, "slot_disk", { { "wants", "slot_want_disk" }, { "denials", "slot_denial_disk" } },
	  fill_slot },
	{ META_LOCK, "lockrec_disk", { { NULL, NULL } }, fill_lock },
	{ META_TAIL, "journal_tail_disk", { { NULL, NULL } }, NULL },
	{ META_DESC, "journal_desc_disk", { { "entries", "journal_entry_disk" } }, fill_desc },
	{ META_COMMIT, "journal_commit_disk", { { NULL, NULL } }, NULL },
	{ META_AG, "ag_disk", { { NULL, NULL } }, fill_ag },
	{ META_BITMAP, "bitmap_disk", { { NULL, NULL } }, fill_bitmap },
	{ META_ITABLE, "itable_disk", { { "entries", "itable_entry_disk" } }, fill_itable },
	{ META_INODE, "inode_disk", { { "root", "map_entry_disk" } }, fill_file },
	{ META_INODE, "inode_disk", { { "root", "dir_index_disk" } }, fill_deep_dir },
	{ META_INODE, "inode_disk", { { "root", "dir_entry_disk" } }, fill_small_dir },
	{ META_MAP_NODE, "map_node_disk", { { NULL, NULL } }, fill_map_node },
	{ META_MAP_LEAF, "map_leaf_disk", { { "entries", "map_entry_disk" } }, fill_map_leaf },
	{ META_DIR_NODE, "dir_node_disk", { { "entries", "dir_index_disk" } }, fill_dir_node },
	{ META_DIR_LEAF, "dir_leaf_disk", { { "entries", "dir_entry_disk" } }, fill_dir_leaf },
	{ META_XATTR, "xattr_disk", { { "entries", "xattr_entry_disk" } }, fill_xattr },
	{ META_ORPHAN, "orphan_disk", { { NULL, NULL } }, fill_orphan },
};

static void check_kind(const struct kind *k)
{
	uint8_t *block = blkdev_alloc(BLOCK_SIZE);
	struct shown s = { .sink = { on_block, on_number, on_text, on_begin, on_end } };

	((struct meta_hdr_disk *)(void *)block)->magic = cpu_to_le32(k->type);
	if (k->fill)
		k->fill(block);
	debug_walk(&s.sink, block, 4096, NULL);
	check_rows(&s, "meta_hdr_disk", NULL);
	check_rows(&s, k->st, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(k->within) && k->within[i].array; i++)
		check_rows(&s, k->within[i].st, k->within[i].array);
	free(block);
}

static bool is_covered(const char *st)
{
	bool found = !strcmp(st, "meta_hdr_disk");

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		found |= !strcmp(st, kinds[i].st);
		for (size_t w = 0; w < ARRAY_SIZE(kinds[i].within) && kinds[i].within[w].array; w++)
			found |= !strcmp(st, kinds[i].within[w].st);
	}
	return found;
}

/* Whoever reads a dump with the page beside it finds every field that the page has, by its name. */
static void every_field_of_the_page_is_shown_by_its_name(void)
{
	const struct debug_struct *all;
	unsigned int count;

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		check_kind(&kinds[i]);
	all = debug_structs(&count);
	for (unsigned int i = 0; i < count; i++)
		CU_ASSERT_TRUE(is_covered(all[i].name));
}

/* ---- all of them ---- */

#define WITH_PAGE(test) \
	static void test_##test(void) \
	{ \
		page = read_text("docs/FORMAT.md"); \
		test(); \
		free(page); \
	}

WITH_PAGE(magics_are_those_of_the_header)
WITH_PAGE(flags_are_those_of_the_headers)
WITH_PAGE(numbers_are_those_of_the_headers)
WITH_PAGE(every_field_of_the_page_is_shown_by_its_name)

UNIT_MAIN("fs/format",
	  UNIT_TEST(test_magics_are_those_of_the_header),
	  UNIT_TEST(test_flags_are_those_of_the_headers),
	  UNIT_TEST(test_numbers_are_those_of_the_headers),
	  UNIT_TEST(test_every_field_of_the_page_is_shown_by_its_name));
