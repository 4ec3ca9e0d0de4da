/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/debug.h"

#include <inttypes.h>
#include <sys/stat.h>
#include <time.h>

#include "base/text.h"
#include "fs/debug_fields.h"

/* ---- the tables ---- */

#define FIELD(st, member, kind) \
	{ #member, offsetof(struct st, member), sizeof(((struct st *)0)->member), DEBUG_##kind },
#define TABLE(st) static const struct debug_field fields_##st[] = { FIELDS_##st(FIELD) };

DEBUG_TABLES(TABLE)

const struct debug_struct *debug_structs(unsigned int *count)
{
#define ENTRY(st) { #st, sizeof(struct st), fields_##st, ARRAY_SIZE(fields_##st) },
	static const struct debug_struct structs[] = { DEBUG_TABLES(ENTRY) };
#undef ENTRY
	*count = ARRAY_SIZE(structs);
	return structs;
}

#define FIELDS_OF(st)	fields_##st, ARRAY_SIZE(fields_##st)

/* ---- one field ---- */

static uint64_t number(const uint8_t *p, size_t size)
{
	uint64_t v = 0;

	while (size--)
		v = v << 8 | p[size];
	return v;
}

static void print_time(FILE *out, uint64_t ns)
{
	time_t t = (time_t)(ns / NSEC_PER_SEC);
	char text[40] = "?";
	struct tm tm;

	if (gmtime_r(&t, &tm))
		strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
	fprintf(out, "%s.%09" PRIu64 "Z\n", text,
		(uint64_t)(ns % NSEC_PER_SEC));
}

static void print_number(FILE *out, enum debug_kind kind, uint64_t v)
{
	char text[40];

	switch (kind) {
	case DEBUG_HEX:
	case DEBUG_ADDR:
		fprintf(out, "0x%" PRIx64 "\n", v);
		break;
	case DEBUG_SIZE:
		fprintf(out, "%" PRIu64 " (%s)\n", v, text_format_size(v, text, sizeof(text)));
		break;
	case DEBUG_TIME:
		print_time(out, v);
		break;
	case DEBUG_MODE:
		fprintf(out, "0%" PRIo64 "\n", v);
		break;
	case DEBUG_ID:
		fprintf(out, "%" PRIu64 " (inode %" PRIu64 ", generation %u)\n", v,
			inode_id_number(v), inode_id_generation(v));
		break;
	case DEBUG_POINTER:
		fprintf(out, "0x%" PRIx64 " (block %" PRIu64 ", birth %u)\n", v,
			bptr_addr(v) >> BLOCK_SHIFT, bptr_birth(v));
		break;
	case DEBUG_MAGIC:
		fprintf(out, "0x%" PRIx64 " (%s)\n", v, meta_type_name((uint32_t)v));
		break;
	default:
		fprintf(out, "%" PRIu64 "\n", v);
	}
}

static void print_fields(FILE *out, const void *base, const struct debug_field *fields,
			 size_t count)
{
	char text[136], uuid[UUID_TEXT_SIZE];

	for (size_t i = 0; i < count; i++) {
		const struct debug_field *f = &fields[i];
		const uint8_t *p = (const uint8_t *)base + f->off;

		if (f->kind == DEBUG_ARRAY)
			continue;
		fprintf(out, "%s: ", f->name);
		if (f->kind == DEBUG_UUID)
			fprintf(out, "%s\n", text_format_uuid(p, uuid));
		else if (f->kind == DEBUG_TEXT)
			fprintf(out, "\"%s\"\n",
				text_printable((const char *)p, f->size, text, sizeof(text)));
		else
			print_number(out, f->kind, number(p, f->size));
	}
}

/* ---- arrays ---- */

static void print_slot(FILE *out, const struct slot_disk *d)
{
	for (unsigned int i = 0; i < SLOT_WANTS; i++)
		if (le64_to_cpu(d->wants[i].addr))
			fprintf(out, "wants[%u]: addr 0x%" PRIx64 ", mode %u, stamp %u\n", i,
				le64_to_cpu(d->wants[i].addr), le32_to_cpu(d->wants[i].mode),
				le32_to_cpu(d->wants[i].stamp));
	for (unsigned int i = 0; i < SLOT_DENIALS; i++)
		if (le64_to_cpu(d->denials[i].addr))
			fprintf(out, "denials[%u]: addr 0x%" PRIx64 ", slot %u, stamp %u\n", i,
				le64_to_cpu(d->denials[i].addr), le32_to_cpu(d->denials[i].slot),
				le32_to_cpu(d->denials[i].stamp));
}

static void print_lock(FILE *out, const struct lockrec_disk *d)
{
	for (unsigned int i = 0; i < SLOT_COUNT_MAX; i++)
		if (le32_to_cpu(d->sharers[i]))
			fprintf(out, "sharers[%u]: generation %u\n", i,
				le32_to_cpu(d->sharers[i]));
}

/* Runs of set bits, "0-12 40 64-127". */
static void print_bits(FILE *out, const char *name, const uint8_t *bits, uint32_t count)
{
	fprintf(out, "%s:", name);
	for (uint32_t i = 0; i < count; i++) {
		uint32_t first = i;

		if (!(bits[i / 8] & 1u << i % 8))
			continue;
		while (i + 1 < count && bits[(i + 1) / 8] & 1u << (i + 1) % 8)
			i++;
		if (i == first)
			fprintf(out, " %u", i);
		else
			fprintf(out, " %u-%u", first, i);
	}
	fputc('\n', out);
}

static void print_itable(FILE *out, const struct itable_disk *d)
{
	uint32_t count = le32_to_cpu(d->count);

	for (uint32_t i = 0; i < count && i < ITABLE_ENTRIES; i++)
		fprintf(out, "entries[%u]: block %u, used 0x%x, count %u\n", i,
			le32_to_cpu(d->entries[i].block), le16_to_cpu(d->entries[i].used),
			le16_to_cpu(d->entries[i].count));
}

static void print_map_entries(FILE *out, const char *name, const struct map_entry_disk *e,
			      uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		uint64_t unit = le64_to_cpu(e[i].unit);

		if (!unit && !le64_to_cpu(e[i].valid))
			continue;
		fprintf(out, "%s[%u]: block %" PRIu64 ", order %u%s, valid 0x%" PRIx64 "\n", name,
			i, (uint64_t)(unit & ((1ULL << ENTRY_BLOCK_BITS) - 1)),
			(unsigned int)(unit >> ENTRY_ORDER_SHIFT & 15),
			unit & ENTRY_DETACHED ? ", detached" : "", le64_to_cpu(e[i].valid));
	}
}

static void print_pointers(FILE *out, const char *name, const le64 *p, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		if (le64_to_cpu(p[i])) {
			fprintf(out, "%s[%u]: ", name, i);
			print_number(out, DEBUG_POINTER, le64_to_cpu(p[i]));
		}
}

static void print_dir_entries(FILE *out, const char *name, const uint8_t *bytes, uint32_t used)
{
	char shown[NAME_BYTES_MAX + 1];
	uint32_t off = 0;

	for (unsigned int i = 0; off < used; i++) {
		struct dir_entry_disk e;

		if (used - off < sizeof(e))
			break;
		memcpy(&e, bytes + off, sizeof(e));
		off += (uint32_t)sizeof(e);
		if (e.name_len > used - off)
			break;
		text_printable((const char *)bytes + off, e.name_len, shown, sizeof(shown));
		fprintf(out, "%s[%u]: hash 0x%016" PRIx64 ", inode %" PRIu64 ", generation %u, "
			"type %u, \"%s\"\n", name, i, le64_to_cpu(e.hash),
			inode_id_number(le64_to_cpu(e.id)),
			inode_id_generation(le64_to_cpu(e.id)), e.type, shown);
		off += e.name_len;
	}
	if (off < used)
		fprintf(out, "%s: cut off at byte %u of %u\n", name, off, used);
}

static void print_dir_index(FILE *out, const char *name, const struct dir_index_disk *e,
			    uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		fprintf(out, "%s[%u]: hash 0x%016" PRIx64 ", pointer ", name, i,
			le64_to_cpu(e[i].hash));
		print_number(out, DEBUG_POINTER, le64_to_cpu(e[i].pointer));
	}
}

static uint32_t smaller(uint32_t a, size_t b)
{
	return a < b ? a : (uint32_t)b;
}

static void print_root_area(FILE *out, const struct inode_disk *d)
{
	uint32_t mode = le32_to_cpu(d->mode), count = le32_to_cpu(d->root_count);
	bool inside = le32_to_cpu(d->flags) & INODE_INLINE;
	const void *root = d->root;
	char shown[INLINE_SIZE + 1];

	if (inside && S_ISDIR(mode))
		print_dir_entries(out, "root", root, smaller(count, INLINE_SIZE));
	else if (inside && S_ISLNK(mode))
		fprintf(out, "root: \"%s\"\n",
			text_printable(root, smaller((uint32_t)le64_to_cpu(d->size), INLINE_SIZE),
				       shown, sizeof(shown)));
	else if (inside)
		fprintf(out, "root: %" PRIu64 " bytes of contents\n", le64_to_cpu(d->size));
	else if (S_ISDIR(mode))
		print_dir_index(out, "root", root, smaller(count, INLINE_ENTRIES));
	else if (le32_to_cpu(d->depth))
		print_pointers(out, "root", root, smaller(count, INLINE_POINTERS));
	else
		print_map_entries(out, "root", root, smaller(count, INLINE_ENTRIES));
}

static void print_inode(FILE *out, const struct inode_disk *d)
{
	char shown[sizeof(d->name) + 1];

	text_printable((const char *)d->name, smaller(le16_to_cpu(d->name_len), sizeof(d->name)),
		       shown, sizeof(shown));
	fprintf(out, "name: \"%s\"\n", shown);
	if (le32_to_cpu(d->mode))
		print_root_area(out, d);
}

static void print_xattrs(FILE *out, const struct xattr_disk *d)
{
	uint32_t used = smaller(le32_to_cpu(d->used), XATTR_BYTES_MAX), off = 0;
	char shown[NAME_BYTES_MAX + 1];

	for (unsigned int i = 0; off < used; i++) {
		struct xattr_entry_disk e;

		if (used - off < sizeof(e))
			break;
		memcpy(&e, d->entries + off, sizeof(e));
		off += (uint32_t)sizeof(e);
		if (e.name_len + le16_to_cpu(e.value_len) > used - off)
			break;
		text_printable((const char *)d->entries + off, e.name_len, shown, sizeof(shown));
		fprintf(out, "entries[%u]: \"%s\", %u bytes\n", i, shown,
			le16_to_cpu(e.value_len));
		off += e.name_len + (uint32_t)le16_to_cpu(e.value_len);
	}
}

static void print_orphans(FILE *out, const struct orphan_disk *d)
{
	for (unsigned int i = 0; i < ORPHAN_ENTRIES; i++)
		if (le64_to_cpu(d->ids[i])) {
			fprintf(out, "ids[%u]: ", i);
			print_number(out, DEBUG_ID, le64_to_cpu(d->ids[i]));
		}
}

static void print_descriptor(FILE *out, const struct journal_desc_disk *d)
{
	uint32_t count = smaller(le32_to_cpu(d->count), JOURNAL_ENTRIES);

	for (uint32_t i = 0; i < count; i++)
		fprintf(out, "entries[%u]: addr 0x%" PRIx64 ", crc 0x%08x\n", i,
			le64_to_cpu(d->entries[i].addr), le32_to_cpu(d->entries[i].crc));
}

static void print_super(FILE *out, const struct super_disk *d)
{
	char uuid[UUID_TEXT_SIZE];
	uint32_t count = smaller(le32_to_cpu(d->extent_count), EXTENTS_MAX);

	for (uint32_t i = 0; i < count; i++)
		fprintf(out, "extents[%u]: device %s, start 0x%" PRIx64 ", length %" PRIu64 "\n",
			i, text_format_uuid(d->extents[i].device, uuid),
			le64_to_cpu(d->extents[i].start), le64_to_cpu(d->extents[i].length));
}

/* ---- a block ---- */

/* The scalar fields of each type, then its arrays. */
static void print_body(FILE *out, const void *b, uint32_t magic)
{
	switch (magic) {
	case META_SUPER:
		print_fields(out, b, FIELDS_OF(super_disk));
		print_super(out, b);
		break;
	case META_SLOT:
		print_fields(out, b, FIELDS_OF(slot_disk));
		print_slot(out, b);
		break;
	case META_LOCK:
		print_fields(out, b, FIELDS_OF(lockrec_disk));
		print_lock(out, b);
		break;
	case META_AG:
		print_fields(out, b, FIELDS_OF(ag_disk));
		print_bits(out, "bitmap_ready", ((const struct ag_disk *)b)->bitmap_ready,
			   BITMAPS_MAX);
		break;
	case META_BITMAP:
		print_bits(out, "bits", ((const struct bitmap_disk *)b)->bits, BITMAP_BITS);
		break;
	case META_ITABLE:
		print_fields(out, b, FIELDS_OF(itable_disk));
		print_itable(out, b);
		break;
	case META_INODE:
		print_fields(out, b, FIELDS_OF(inode_disk));
		print_inode(out, b);
		break;
	default:
		break;
	}
}

static void print_tree_block(FILE *out, const void *b, uint32_t magic)
{
	const struct dir_leaf_disk *leaf = b;
	const struct dir_node_disk *node = b;

	switch (magic) {
	case META_MAP_LEAF:
		print_map_entries(out, "entries", ((const struct map_leaf_disk *)b)->entries,
				  LEAF_ENTRIES);
		break;
	case META_MAP_NODE:
		print_pointers(out, "pointers", ((const struct map_node_disk *)b)->pointers,
			       NODE_POINTERS);
		break;
	case META_DIR_LEAF:
		print_fields(out, b, FIELDS_OF(dir_leaf_disk));
		print_dir_entries(out, "entries", leaf->entries,
				  smaller(le32_to_cpu(leaf->used), DIR_LEAF_BYTES));
		break;
	case META_DIR_NODE:
		print_fields(out, b, FIELDS_OF(dir_node_disk));
		print_dir_index(out, "entries", node->entries,
				smaller(le32_to_cpu(node->count), DIR_NODE_ENTRIES));
		break;
	case META_XATTR:
		print_fields(out, b, FIELDS_OF(xattr_disk));
		print_xattrs(out, b);
		break;
	default:
		break;
	}
}

static void print_log_block(FILE *out, const void *b, uint32_t magic)
{
	switch (magic) {
	case META_ORPHAN:
		print_orphans(out, b);
		break;
	case META_TAIL:
		print_fields(out, b, FIELDS_OF(journal_tail_disk));
		break;
	case META_DESC:
		print_fields(out, b, FIELDS_OF(journal_desc_disk));
		print_descriptor(out, b);
		break;
	case META_COMMIT:
		print_fields(out, b, FIELDS_OF(journal_commit_disk));
		break;
	default:
		break;
	}
}

void debug_print(FILE *out, const void *block, uint64_t addr, const uint8_t *volume)
{
	const struct meta_hdr_disk *hdr = block;
	uint32_t magic = le32_to_cpu(hdr->magic);
	struct meta_expect e = { (enum meta_type)magic, volume, addr, le64_to_cpu(hdr->owner),
				 le32_to_cpu(hdr->birth) };
	char why[400];

	if (strcmp(meta_type_name(magic), "unknown") == 0) {
		fprintf(out, "0x%" PRIx64 ": no metadata block of LunFS (magic 0x%08x)\n", addr,
			magic);
		return;
	}
	fprintf(out, "0x%" PRIx64 ": %s\n", addr, meta_type_name(magic));
	if (meta_verify(block, &e, why, sizeof(why)))
		fprintf(out, "NOT VALID: %s\n", why);
	print_fields(out, block, FIELDS_OF(meta_hdr_disk));
	print_body(out, block, magic);
	print_tree_block(out, block, magic);
	print_log_block(out, block, magic);
}
