/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/debug.h"

#include "tests/fs/volume.h"

#define FORMAT_MD	"docs/FORMAT.md"	/* tests run from the top of the tree */

/* ---- FORMAT.md's tables ---- */

static const struct debug_struct *find_struct(const char *name)
{
	unsigned int count;
	const struct debug_struct *all = debug_structs(&count);

	for (unsigned int i = 0; i < count; i++)
		if (strcmp(all[i].name, name) == 0)
			return &all[i];
	return NULL;
}

/* One row: offset, size and name must be those of the next field. */
static bool row_matches(const struct debug_struct *st, unsigned int i, const char *line)
{
	unsigned int off, size;
	char name[64];

	if (sscanf(line, "| %u | %u | `%63[a-z0-9_]` |", &off, &size, name) != 3)
		return false;
	return i < st->count && st->fields[i].off == off && st->fields[i].size == size &&
	       strcmp(st->fields[i].name, name) == 0;
}

/* A reader written from the manual must read what this program writes. */
static void format_tables_agree_with_the_structures(void)
{
	FILE *f = fopen(FORMAT_MD, "r");
	const struct debug_struct *st = NULL;
	unsigned int row = 0, tables = 0, all;
	char line[1024], name[64];
	size_t size;

	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "<!-- struct %63[a-z_]: %zu bytes -->", name, &size) == 2) {
			CU_ASSERT_TRUE(!st || row == st->count);
			st = find_struct(name);
			CU_ASSERT_PTR_NOT_NULL_FATAL(st);
			CU_ASSERT_EQUAL(st->size, size);
			tables++;
			row = 0;
		} else if (st && row < st->count && line[0] == '|' && line[2] >= '0' &&
			   line[2] <= '9') {
			if (!row_matches(st, row, line))
				fprintf(stderr, "%s, field %u: %s", st->name, row, line);
			CU_ASSERT_TRUE(row_matches(st, row, line));
			row++;
		}
	}
	fclose(f);
	CU_ASSERT_TRUE(st && row == st->count);
	debug_structs(&all);
	CU_ASSERT_EQUAL(tables, all);
}

/* Fields in order without gaps: none was forgotten in the table that prints them. */
static void every_byte_of_every_structure_has_a_name(void)
{
	unsigned int count;
	const struct debug_struct *all = debug_structs(&count);

	for (unsigned int i = 0; i < count; i++) {
		size_t off = 0;

		for (unsigned int k = 0; k < all[i].count; k++) {
			CU_ASSERT_EQUAL(all[i].fields[k].off, off);
			off += all[i].fields[k].size;
		}
		CU_ASSERT_EQUAL(off, all[i].size);
	}
}

/* ---- printing ---- */

static char *printed(const void *block, uint64_t addr, const uint8_t *volume)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	CU_ASSERT_PTR_NOT_NULL_FATAL(out);
	debug_print(out, block, addr, volume);
	fclose(out);
	return text;
}

static void print_some(struct volume *v)
{
	char *text;

	CU_ASSERT_EQUAL_FATAL(volume_format(v), 0);
	simdisk_peek(v->disk, SUPER_ADDR, v->block, BLOCK_SIZE);
	text = printed(v->block, SUPER_ADDR, v->s.volume);
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "0x10000: superblock\n"));
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "\nlabel: \"ds1\"\n"));
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "\nsize: 67108864 (64.0 MiB)\n"));
	CU_ASSERT_PTR_NULL(strstr(text, "NOT VALID"));
	free(text);
	/* The same bytes are no superblock anywhere else, and are shown all the same. */
	text = printed(v->block, 0, v->s.volume);
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "NOT VALID"));
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "\nlabel: \"ds1\"\n"));
	free(text);
	simdisk_peek(v->disk, inode_block_addr(v->s.root), v->block, BLOCK_SIZE);
	text = printed(v->block, inode_block_addr(v->s.root), v->s.volume);
	CU_ASSERT_PTR_NOT_NULL(strstr(text, "\nmode: 040755\n"));
	free(text);
}

static void fields_are_printed_by_the_names_of_the_manual(void)
{
	volume_run(1, 64 * MIB, 512, print_some, 0);
}

static void print_garbage(struct volume *v)
{
	static const enum meta_type types[] = {
		META_SUPER, META_SLOT, META_LOCK, META_TAIL, META_DESC, META_COMMIT, META_AG,
		META_BITMAP, META_ITABLE, META_INODE, META_MAP_NODE, META_MAP_LEAF,
		META_DIR_NODE, META_DIR_LEAF, META_XATTR, META_ORPHAN, 0 };

	for (unsigned int round = 0; round < 20; round++)
		for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
			struct meta_hdr_disk *hdr = v->block;

			env_random(v->host, v->block, BLOCK_SIZE);
			hdr->magic = cpu_to_le32(types[i]);
			free(printed(v->block, 4096, NULL));
		}
}

/* People look at damaged blocks: that must not crash the tool (R9). */
static void random_bytes_of_every_type_are_printed(void)
{
	volume_run(2, 64 * MIB, 512, print_garbage, 0);
}

UNIT_MAIN("fs/debug",
	  UNIT_TEST(format_tables_agree_with_the_structures),
	  UNIT_TEST(every_byte_of_every_structure_has_a_name),
	  UNIT_TEST(fields_are_printed_by_the_names_of_the_manual),
	  UNIT_TEST(random_bytes_of_every_type_are_printed));
