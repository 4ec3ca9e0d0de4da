/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/debug_cmd.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/text.h"
#include "fs/dir.h"
#include "fs/journal.h"
#include "fs/super.h"
#include "tools/debug_dump.h"
#include "tools/debug_json.h"
#include "tools/volume_open.h"

enum { EXIT_OK, EXIT_FAILED, EXIT_USAGE };

static const char usage[] =
"usage: lunfs debug [--json] DEVICE super\n"
"       lunfs debug DEVICE slot N | journal N | orphans N\n"
"       lunfs debug DEVICE ag N | index N\n"
"       lunfs debug DEVICE lock ADDRESS | block ADDRESS | bitmap ADDRESS\n"
"       lunfs debug DEVICE inode ID | tree ID | PATH\n"
"       lunfs debug DEVICE dump [--scramble-names] FILE\n"
"       lunfs debug restore FILE NEWFILE\n"
"\n"
"Prints metadata blocks, every field by the name that FORMAT.md gives it: index of a group's\n"
"inodes, bitmap of the block at ADDRESS, tree what is below an inode.  dump writes all\n"
"metadata to a file, for a bug report: names and attributes, not what files hold; restore\n"
"makes a sparse volume of it.  With --scramble-names it has other names, as long as the true ones.\n";

/* What the subcommands work on. */
struct debug {
	struct blkdev *dev;
	struct super s;
	uint8_t *block;
	json_t	*json;		/* what is found, or NULL: text as it is found */
	uint64_t left;		/* blocks that a tree may still have, and one */
};

__attribute__((format(printf, 1, 2)))
static int fail(const char *fmt, ...)
{
	va_list ap;

	fputs("lunfs debug: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	return EXIT_FAILED;
}

static int read_block(struct debug *d, uint64_t addr)
{
	int err;

	if (addr % BLOCK_SIZE || addr > d->dev->info.size - BLOCK_SIZE)
		return fail("0x%llx: not the address of a block: a multiple of 4096 within the "
			    "volume", (unsigned long long)addr);
	err = blkdev_read(d->dev, addr, d->block, BLOCK_SIZE);
	return err ? fail("block 0x%llx: %s", (unsigned long long)addr, strerror(-err)) : 0;
}

static int show_block(struct debug *d, uint64_t addr)
{
	int rc = read_block(d, addr);

	if (rc == 0 && d->json)
		json_array_append_new(json_object_get(d->json, "blocks"),
				      debug_json(d->block, addr, d->s.volume));
	else if (rc == 0)
		debug_print(stdout, d->block, addr, d->s.volume);
	return rc;
}

static void show_gap(const struct debug *d)
{
	if (!d->json)
		putchar('\n');
}

static int show_super(struct debug *d)
{
	const uint64_t places[] = { SUPER_ADDR, d->s.copy_addr, super_end_addr(&d->s) };
	int rc = 0;

	for (size_t i = 0; i < ARRAY_SIZE(places) && rc == 0; i++) {
		if (i)
			show_gap(d);
		rc = show_block(d, places[i]);
	}
	return rc;
}

/* ---- numbers ---- */

static int parse_number(const char *text, uint64_t *out)
{
	char *end;

	errno = 0;
	*out = strtoull(text, &end, 0);
	if (errno || *end || end == text || *text == '-')
		return fail("\"%s\" is not a number; 0x… and decimal ones are", text);
	return 0;
}

static int show_slot(struct debug *d, uint64_t slot)
{
	if (slot >= d->s.slot_count)
		return fail("slot %llu: the volume has slots 0 to %u", (unsigned long long)slot,
			    d->s.slot_count - 1);
	return show_block(d, d->s.slots_addr + slot * BLOCK_SIZE);
}

static int show_ag(struct debug *d, uint64_t ag)
{
	uint64_t addr;
	int rc;

	if (ag >= d->s.ag_count)
		return fail("group %llu: the volume has groups 0 to %u", (unsigned long long)ag,
			    d->s.ag_count - 1);
	addr = super_ag_addr(&d->s, (uint32_t)ag);
	rc = show_block(d, addr + AG_LOCK_BLOCK * BLOCK_SIZE);
	show_gap(d);
	return rc ? rc : show_block(d, addr + AG_HEADER_BLOCK * BLOCK_SIZE);
}

static int show_inode(struct debug *d, uint64_t id)
{
	int rc = show_block(d, inode_lock_addr(id));

	show_gap(d);
	return rc ? rc : show_block(d, inode_block_addr(id));
}

/* ---- lists and trees ---- */

static int show_orphans(struct debug *d, uint64_t slot)
{
	int rc = 0;

	if (slot >= d->s.slot_count)
		return fail("slot %llu: the volume has slots 0 to %u", (unsigned long long)slot,
			    d->s.slot_count - 1);
	for (uint32_t i = 0; i < d->s.orphan_blocks && rc == 0; i++) {
		if (i)
			show_gap(d);
		rc = show_block(d, super_orphan_addr(&d->s, (uint32_t)slot, i));
	}
	return rc;
}

/* The one with the bit of the block at @addr. */
static int show_bitmap(struct debug *d, uint64_t addr)
{
	uint64_t start;
	uint32_t ag;

	if (super_ag_of(&d->s, addr, &ag))
		return fail("0x%llx: in no group: fixed metadata, or beyond the volume",
			    (unsigned long long)addr);
	start = super_ag_addr(&d->s, ag);
	return show_block(d, start + (AG_BITMAP_BLOCK + ((addr - start) >> BLOCK_SHIFT) / BITMAP_BITS) *
				     BLOCK_SIZE);
}

/* From the group's header along; a block that is none ends it, as does a circle. */
static int show_index(struct debug *d, uint64_t ag)
{
	const struct ag_disk *header = (const void *)d->block;
	const struct itable_disk *it = (const void *)d->block;
	uint64_t left = d->s.ag_size >> BLOCK_SHIFT, pointer;
	int rc;

	if (ag >= d->s.ag_count)
		return fail("group %llu: the volume has groups 0 to %u", (unsigned long long)ag,
			    d->s.ag_count - 1);
	rc = read_block(d, super_ag_addr(&d->s, (uint32_t)ag) + AG_HEADER_BLOCK * BLOCK_SIZE);
	pointer = rc ? 0 : le64_to_cpu(header->itable);
	while (pointer && left-- && rc == 0) {
		rc = show_block(d, bptr_addr(pointer));
		pointer = rc == 0 && le32_to_cpu(it->hdr.magic) == META_ITABLE ? le64_to_cpu(it->next) : 0;
		if (pointer)
			show_gap(d);
	}
	return rc;
}

/* The block at @pointer, and @depth levels below it; what cannot be read is passed over. */
static int show_below(struct debug *d, uint64_t pointer, uint32_t depth, bool is_dir)
{
	uint8_t block[BLOCK_SIZE];
	const struct dir_node_disk *dir = (const void *)block;
	const struct map_node_disk *map = (const void *)block;
	uint32_t count = is_dir ? DIR_NODE_ENTRIES : NODE_POINTERS;
	int rc;

	/* Damage can make a bush of few blocks. */
	if (!d->left)
		return EXIT_FAILED;
	if (!--d->left)
		return fail("more blocks than the inode has: pointers lead to the same ones");
	show_gap(d);
	rc = show_block(d, bptr_addr(pointer));
	if (rc || !depth)
		return rc;
	memcpy(block, d->block, sizeof(block));
	if (le32_to_cpu(map->hdr.magic) != (is_dir ? META_DIR_NODE : META_MAP_NODE))
		return 0;	/* it has no pointers */
	if (is_dir && le32_to_cpu(dir->count) < count)
		count = le32_to_cpu(dir->count);
	for (uint32_t i = 0; i < count; i++) {
		pointer = le64_to_cpu(is_dir ? dir->entries[i].pointer : map->pointers[i]);
		if (pointer)
			rc |= show_below(d, pointer, depth - 1, is_dir);
	}
	return rc;
}

/* What the inode in @block has: attributes, map or directory. */
static int show_below_inode(struct debug *d, const uint8_t *block)
{
	const struct inode_disk *di = (const void *)block;
	const struct dir_index_disk *entries = (const void *)di->root;
	const le64 *pointers = (const void *)di->root;
	bool is_dir = S_ISDIR(le32_to_cpu(di->mode));
	uint32_t count = le32_to_cpu(di->root_count), depth = le32_to_cpu(di->depth);
	uint32_t room = is_dir ? INLINE_SIZE / sizeof(*entries) : INLINE_SIZE / sizeof(*pointers);
	int rc = 0;

	d->left = le64_to_cpu(di->blocks) + 1;
	if (le64_to_cpu(di->xattr))
		rc = show_below(d, le64_to_cpu(di->xattr), 0, false);
	if (le32_to_cpu(di->flags) & INODE_INLINE || !depth)
		return rc;
	if (depth > DEPTH_MAX)
		return fail("the inode is not valid");
	for (uint32_t i = 0; i < count && i < room; i++) {
		uint64_t pointer = le64_to_cpu(is_dir ? entries[i].pointer : pointers[i]);

		if (pointer)
			rc |= show_below(d, pointer, depth - 1, is_dir);
	}
	return rc;
}

static int show_tree(struct debug *d, uint64_t id)
{
	uint8_t block[BLOCK_SIZE];
	int rc = show_block(d, inode_block_addr(id));

	if (rc)
		return rc;
	memcpy(block, d->block, sizeof(block));
	return show_below_inode(d, block);
}

/* ---- journals ---- */

static int show_image(void *arg, uint64_t addr, const void *block)
{
	const struct meta_hdr_disk *hdr = block;

	struct debug *d = arg;

	if (d->json)
		return json_array_append_new(json_object_get(d->json, "images"),
			json_pack("{sI ss sI sI}", "addr", (json_int_t)addr,
				  "type", meta_type_name(le32_to_cpu(hdr->magic)),
				  "owner", (json_int_t)le64_to_cpu(hdr->owner),
				  "version", (json_int_t)le64_to_cpu(hdr->version)));
	printf("image: addr 0x%llx, %s, owner %llu, version %llu\n", (unsigned long long)addr,
	       meta_type_name(le32_to_cpu(hdr->magic)), (unsigned long long)le64_to_cpu(hdr->owner),
	       (unsigned long long)le64_to_cpu(hdr->version));
	return 0;
}

static int show_journal(struct debug *d, uint64_t slot)
{
	unsigned int transactions = 0;
	char why[400] = "";
	int rc;

	if (slot >= d->s.slot_count)
		return fail("slot %llu: the volume has slots 0 to %u", (unsigned long long)slot,
			    d->s.slot_count - 1);
	if (d->json)
		json_object_set_new(d->json, "images", json_array());
	for (uint64_t i = 0; i < JOURNAL_TAIL_BLOCKS; i++) {
		rc = show_block(d, super_journal_addr(&d->s, (uint32_t)slot) + i * BLOCK_SIZE);
		if (rc)
			return rc;
		show_gap(d);
	}
	rc = journal_scan(d->dev->env, d->dev, &d->s, (uint32_t)slot, show_image, d,
			  &transactions, why, sizeof(why));
	if (rc)
		return fail("journal of slot %llu: %s", (unsigned long long)slot,
			    why[0] ? why : strerror(-rc));
	if (d->json)
		json_object_set_new(d->json, "transactions", json_integer(transactions));
	else
		printf("transactions: %u\n", transactions);
	return 0;
}

/* ---- paths ---- */

static int read_meta(struct debug *d, enum meta_type type, uint64_t addr, uint64_t owner,
		     uint32_t birth)
{
	struct meta_expect e = { type, d->s.volume, addr, owner, birth };
	char why[400];
	int rc = read_block(d, addr);

	if (rc == 0 && meta_verify(d->block, &e, why, sizeof(why)))
		rc = fail("%s", why);
	return rc;
}

/* The name among packed entries. */
static bool find_entry(const uint8_t *bytes, uint32_t used, const char *name, size_t len,
		       uint64_t *id)
{
	struct dir_entry_disk e;

	for (uint32_t off = 0; off < used && used - off >= sizeof(e);) {
		memcpy(&e, bytes + off, sizeof(e));
		off += (uint32_t)sizeof(e);
		if (e.name_len > used - off)
			break;
		if (e.name_len == len && memcmp(bytes + off, name, len) == 0) {
			*id = le64_to_cpu(e.id);
			return true;
		}
		off += e.name_len;
	}
	return false;
}

static uint64_t choose_child(const struct dir_index_disk *entries, uint32_t count, uint64_t hash)
{
	uint64_t pointer = 0;

	for (uint32_t i = 0; i < count && le64_to_cpu(entries[i].hash) <= hash; i++)
		pointer = le64_to_cpu(entries[i].pointer);
	return pointer;
}

/* Down the tree of directory @id, whose inode block is in d->block. */
static int find_in_tree(struct debug *d, uint64_t id, const char *name, size_t len,
			uint64_t *child)
{
	const struct inode_disk *di = (const void *)d->block;
	const struct dir_leaf_disk *leaf = (const void *)d->block;
	const struct dir_node_disk *node = (const void *)d->block;
	uint64_t hash = dir_hash(&d->s, name, len);
	uint32_t depth = le32_to_cpu(di->depth), count = le32_to_cpu(di->root_count);
	uint64_t pointer;

	if (depth > DEPTH_MAX || count > INLINE_ENTRIES)
		return fail("inode %llu: not valid", (unsigned long long)inode_id_number(id));
	pointer = choose_child((const void *)di->root, count, hash);
	while (depth-- && pointer) {
		int rc = read_meta(d, depth ? META_DIR_NODE : META_DIR_LEAF, bptr_addr(pointer),
				   id, bptr_birth(pointer));
		uint32_t used = le32_to_cpu(leaf->used);

		if (rc)
			return rc;
		if (depth == 0)
			return find_entry(leaf->entries, used < DIR_LEAF_BYTES ? used :
					  DIR_LEAF_BYTES, name, len, child) ? 0 : -ENOENT;
		count = le32_to_cpu(node->count);
		pointer = choose_child(node->entries, count < DIR_NODE_ENTRIES ? count :
				       DIR_NODE_ENTRIES, hash);
	}
	return -ENOENT;
}

/* Return: 0; -ENOENT; EXIT_FAILED, said why. */
static int find_name(struct debug *d, uint64_t dir, const char *name, size_t len, uint64_t *child)
{
	const struct inode_disk *di = (const void *)d->block;
	uint32_t used;
	int rc = read_meta(d, META_INODE, inode_block_addr(dir), inode_id_number(dir), 0);

	if (rc)
		return rc;
	if (!S_ISDIR(le32_to_cpu(di->mode)))
		return -ENOENT;
	used = le32_to_cpu(di->root_count);
	if (le32_to_cpu(di->flags) & INODE_INLINE)
		return find_entry(di->root, used < INLINE_SIZE ? used : INLINE_SIZE, name, len,
				  child) ? 0 : -ENOENT;
	return find_in_tree(d, dir, name, len, child);
}

static int show_path(struct debug *d, const char *path)
{
	uint64_t id = d->s.root;
	const char *at = path;

	while (*at) {
		size_t len = strcspn(at, "/");
		int rc = len ? find_name(d, id, at, len, &id) : 0;

		if (rc == -ENOENT)
			return fail("%s: \"%.*s\" does not exist (journals are not looked at)",
				    path, (int)len, at);
		if (rc)
			return rc;
		at += len;
		at += *at == '/';
	}
	if (d->json)
		json_object_set_new(d->json, "id", json_integer((json_int_t)id));
	else
		printf("%s: id %llu\n", path, (unsigned long long)id);
	return show_inode(d, id);
}

/* ---- all metadata ---- */

static int say_blocks(json_t *json, const char *file, uint64_t blocks)
{
	if (json)
		json_object_set_new(json, "dumped", json_integer((json_int_t)blocks));
	else
		printf("%s: %llu blocks of metadata\n", file, (unsigned long long)blocks);
	return EXIT_OK;
}

static int dump(struct debug *d, const char *file, bool scramble)
{
	char why[400] = "";
	uint64_t blocks;

	if (debug_dump(d->dev, file, scramble, &blocks, why, sizeof(why)))
		return fail("%s", why);
	return say_blocks(d->json, file, blocks);
}

static int restore(const char *file, const char *to)
{
	char why[400] = "";
	uint64_t blocks;

	if (debug_restore(file, to, &blocks, why, sizeof(why)))
		return fail("%s", why);
	return say_blocks(NULL, to, blocks);
}

/* ---- the command ---- */

static int run(struct debug *d, int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*show)(struct debug *d, uint64_t n);
	} commands[] = {
		{ "slot", show_slot }, { "journal", show_journal }, { "ag", show_ag },
		{ "lock", show_block }, { "block", show_block }, { "inode", show_inode },
		{ "orphans", show_orphans }, { "bitmap", show_bitmap }, { "index", show_index },
		{ "tree", show_tree },
	};
	uint64_t n;

	if (argc == 1 && strcmp(argv[0], "super") == 0)
		return show_super(d);
	if (argc == 1 && argv[0][0] == '/')
		return show_path(d, argv[0]);
	if (argc == 2 && strcmp(argv[0], "dump") == 0)
		return dump(d, argv[1], false);
	if (argc == 3 && strcmp(argv[0], "dump") == 0 && strcmp(argv[1], "--scramble-names") == 0)
		return dump(d, argv[2], true);
	for (size_t i = 0; argc == 2 && i < ARRAY_SIZE(commands); i++)
		if (strcmp(argv[0], commands[i].name) == 0)
			return parse_number(argv[1], &n) ? EXIT_USAGE : commands[i].show(d, n);
	fputs(usage, stderr);
	return EXIT_USAGE;
}

/* Takes "--json" out of @argv, wherever it stands.  Return: whether it was there. */
static bool take_json(int *argc, char **argv)
{
	bool found = false;
	int kept = 0;

	for (int i = 0; i < *argc; i++) {
		if (strcmp(argv[i], "--json") == 0)
			found = true;
		else
			argv[kept++] = argv[i];
	}
	*argc = kept;
	return found;
}

static int run_on(struct debug *d, int argc, char **argv)
{
	char why[400] = "";
	int rc;

	if (volume_open(argv[1], &d->dev, why, sizeof(why)))
		return fail("%s", why);
	d->block = blkdev_alloc(BLOCK_SIZE);
	if (!d->block)
		rc = fail("out of memory");
	else if (super_find(d->dev, &d->s, why, sizeof(why)))
		rc = fail("%s", why);
	else
		rc = run(d, argc - 2, argv + 2);
	free(d->block);
	blkdev_close(d->dev);
	return rc;
}

int debug_main(int argc, char **argv, bool json)
{
	struct debug d = { 0 };
	char device[PATH_MAX];
	int rc;

	json = take_json(&argc, argv) || json;
	if (argc == 2 && strcmp(argv[1], "--help") == 0) {
		fputs(usage, stdout);
		return EXIT_OK;
	}
	if (argc == 4 && strcmp(argv[1], "restore") == 0)
		return restore(argv[2], argv[3]);
	if (argc < 3) {
		fputs(usage, stderr);
		return EXIT_USAGE;
	}
	if (json)
		d.json = json_pack("{ss s[]}", "device", text_printable(argv[1], PATH_MAX, device,
				   sizeof(device)), "blocks");
	rc = run_on(&d, argc, argv);
	if (rc == EXIT_OK && d.json) {
		json_dumpf(d.json, stdout, JSON_INDENT(2));
		putchar('\n');
	}
	json_decref(d.json);
	if (fflush(stdout))
		rc = fail("writing failed");
	return rc;
}
