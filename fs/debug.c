/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/debug.h"

#include <stdio.h>
#include <sys/stat.h>

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

static void walk_fields(struct debug_sink *o, const void *base, const struct debug_field *fields,
			size_t count)
{
	char text[136], uuid[UUID_TEXT_SIZE];

	for (size_t i = 0; i < count; i++) {
		const struct debug_field *f = &fields[i];
		const uint8_t *p = (const uint8_t *)base + f->off;

		if (f->kind == DEBUG_ARRAY)
			continue;
		if (f->kind == DEBUG_UUID)
			o->text(o, f->name, f->kind, text_format_uuid(p, uuid));
		else if (f->kind == DEBUG_TEXT)
			o->text(o, f->name, f->kind,
				text_printable((const char *)p, f->size, text, sizeof(text)));
		else
			o->number(o, f->name, f->kind, number(p, f->size));
	}
}

/* ---- arrays ---- */

static void walk_slot(struct debug_sink *o, const struct slot_disk *d)
{
	for (unsigned int i = 0; i < SLOT_WANTS; i++) {
		if (!le64_to_cpu(d->wants[i].addr))
			continue;
		o->begin(o, "wants", i);
		o->number(o, "addr", DEBUG_ADDR, le64_to_cpu(d->wants[i].addr));
		o->number(o, "mode", DEBUG_DEC, le32_to_cpu(d->wants[i].mode));
		o->number(o, "stamp", DEBUG_DEC, le32_to_cpu(d->wants[i].stamp));
		o->end(o);
	}
	for (unsigned int i = 0; i < SLOT_DENIALS; i++) {
		if (!le64_to_cpu(d->denials[i].addr))
			continue;
		o->begin(o, "denials", i);
		o->number(o, "addr", DEBUG_ADDR, le64_to_cpu(d->denials[i].addr));
		o->number(o, "slot", DEBUG_DEC, le32_to_cpu(d->denials[i].slot));
		o->number(o, "stamp", DEBUG_DEC, le32_to_cpu(d->denials[i].stamp));
		o->end(o);
	}
}

static void walk_lock(struct debug_sink *o, const struct lockrec_disk *d)
{
	for (unsigned int i = 0; i < SLOT_COUNT_MAX; i++) {
		if (!le32_to_cpu(d->sharers[i]))
			continue;
		o->begin(o, "sharers", i);
		o->number(o, "generation", DEBUG_DEC, le32_to_cpu(d->sharers[i]));
		o->end(o);
	}
}

/* Runs of set bits, as an array of theirs. */
static void walk_bits(struct debug_sink *o, const char *name, const uint8_t *bits, uint32_t count)
{
	unsigned int runs = 0;

	for (uint32_t i = 0; i < count; i++) {
		uint32_t first = i;

		if (!(bits[i / 8] & 1u << i % 8))
			continue;
		while (i + 1 < count && bits[(i + 1) / 8] & 1u << (i + 1) % 8)
			i++;
		o->begin(o, name, runs++);
		o->number(o, "first", DEBUG_DEC, first);
		o->number(o, "last", DEBUG_DEC, i);
		o->end(o);
	}
}

static void walk_itable(struct debug_sink *o, const struct itable_disk *d)
{
	uint32_t count = le32_to_cpu(d->count);

	for (uint32_t i = 0; i < count && i < ITABLE_ENTRIES; i++) {
		o->begin(o, "entries", i);
		o->number(o, "block", DEBUG_DEC, le32_to_cpu(d->entries[i].block));
		o->number(o, "used", DEBUG_HEX, le16_to_cpu(d->entries[i].used));
		o->number(o, "count", DEBUG_DEC, le16_to_cpu(d->entries[i].count));
		o->end(o);
	}
}

static void walk_map_entries(struct debug_sink *o, const char *name,
			     const struct map_entry_disk *e, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		uint64_t unit = le64_to_cpu(e[i].unit);

		if (!unit && !le64_to_cpu(e[i].valid))
			continue;
		o->begin(o, name, i);
		o->number(o, "unit", DEBUG_HEX, unit);
		o->number(o, "block", DEBUG_DEC, unit & ((1ULL << ENTRY_BLOCK_BITS) - 1));
		o->number(o, "order", DEBUG_DEC, unit >> ENTRY_ORDER_SHIFT & 15);
		o->number(o, "detached", DEBUG_DEC, unit & ENTRY_DETACHED ? 1 : 0);
		o->number(o, "valid", DEBUG_HEX, le64_to_cpu(e[i].valid));
		o->end(o);
	}
}

static void walk_pointers(struct debug_sink *o, const char *name, const le64 *p, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		if (!le64_to_cpu(p[i]))
			continue;
		o->begin(o, name, i);
		o->number(o, "pointer", DEBUG_POINTER, le64_to_cpu(p[i]));
		o->end(o);
	}
}

static void walk_dir_entries(struct debug_sink *o, const char *name, const uint8_t *bytes,
			     uint32_t used)
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
		o->begin(o, name, i);
		o->number(o, "hash", DEBUG_HEX, le64_to_cpu(e.hash));
		o->number(o, "id", DEBUG_ID, le64_to_cpu(e.id));
		o->number(o, "type", DEBUG_DEC, e.type);
		o->number(o, "name_len", DEBUG_DEC, e.name_len);
		o->text(o, "name", DEBUG_TEXT, shown);
		o->end(o);
		off += e.name_len;
	}
	if (off < used)
		o->number(o, "cut_off_at", DEBUG_DEC, off);
}

static void walk_dir_index(struct debug_sink *o, const char *name, const struct dir_index_disk *e,
			   uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		o->begin(o, name, i);
		o->number(o, "hash", DEBUG_HEX, le64_to_cpu(e[i].hash));
		o->number(o, "pointer", DEBUG_POINTER, le64_to_cpu(e[i].pointer));
		o->end(o);
	}
}

static uint32_t smaller(uint32_t a, size_t b)
{
	return a < b ? a : (uint32_t)b;
}

static void walk_root_area(struct debug_sink *o, const struct inode_disk *d)
{
	uint32_t mode = le32_to_cpu(d->mode), count = le32_to_cpu(d->root_count);
	bool inside = le32_to_cpu(d->flags) & INODE_INLINE;
	const void *root = d->root;
	char shown[INLINE_SIZE + 1];

	if (inside && S_ISDIR(mode))
		walk_dir_entries(o, "root", root, smaller(count, INLINE_SIZE));
	else if (inside && S_ISLNK(mode))
		o->text(o, "root", DEBUG_TEXT,
			text_printable(root, smaller((uint32_t)le64_to_cpu(d->size), INLINE_SIZE),
				       shown, sizeof(shown)));
	else if (inside)
		o->number(o, "root_bytes", DEBUG_SIZE, le64_to_cpu(d->size));
	else if (S_ISDIR(mode))
		walk_dir_index(o, "root", root, smaller(count, INLINE_ENTRIES));
	else if (le32_to_cpu(d->depth))
		walk_pointers(o, "root", root, smaller(count, INLINE_POINTERS));
	else
		walk_map_entries(o, "root", root, smaller(count, INLINE_ENTRIES));
}

static void walk_inode(struct debug_sink *o, const struct inode_disk *d)
{
	char shown[sizeof(d->name) + 1];

	text_printable((const char *)d->name, smaller(le16_to_cpu(d->name_len), sizeof(d->name)),
		       shown, sizeof(shown));
	o->text(o, "name", DEBUG_TEXT, shown);
	if (le32_to_cpu(d->mode))
		walk_root_area(o, d);
}

static void walk_xattrs(struct debug_sink *o, const struct xattr_disk *d)
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
		o->begin(o, "entries", i);
		o->number(o, "name_len", DEBUG_DEC, e.name_len);
		o->text(o, "name", DEBUG_TEXT, shown);
		o->number(o, "value_len", DEBUG_DEC, le16_to_cpu(e.value_len));
		o->end(o);
		off += e.name_len + (uint32_t)le16_to_cpu(e.value_len);
	}
}

static void walk_orphans(struct debug_sink *o, const struct orphan_disk *d)
{
	for (unsigned int i = 0; i < ORPHAN_ENTRIES; i++) {
		if (!le64_to_cpu(d->ids[i]))
			continue;
		o->begin(o, "ids", i);
		o->number(o, "id", DEBUG_ID, le64_to_cpu(d->ids[i]));
		o->end(o);
	}
}

static void walk_descriptor(struct debug_sink *o, const struct journal_desc_disk *d)
{
	uint32_t count = smaller(le32_to_cpu(d->count), JOURNAL_ENTRIES);

	for (uint32_t i = 0; i < count; i++) {
		o->begin(o, "entries", i);
		o->number(o, "addr", DEBUG_ADDR, le64_to_cpu(d->entries[i].addr));
		o->number(o, "crc", DEBUG_HEX, le32_to_cpu(d->entries[i].crc));
		o->end(o);
	}
}

static void walk_super(struct debug_sink *o, const struct super_disk *d)
{
	char uuid[UUID_TEXT_SIZE];
	uint32_t count = smaller(le32_to_cpu(d->extent_count), EXTENTS_MAX);

	for (uint32_t i = 0; i < count; i++) {
		o->begin(o, "extents", i);
		o->text(o, "device", DEBUG_UUID, text_format_uuid(d->extents[i].device, uuid));
		o->number(o, "start", DEBUG_ADDR, le64_to_cpu(d->extents[i].start));
		o->number(o, "length", DEBUG_SIZE, le64_to_cpu(d->extents[i].length));
		o->end(o);
	}
}

/* ---- a block ---- */

/* The scalar fields of each type, then its arrays. */
static void walk_body(struct debug_sink *o, const void *b, uint32_t magic)
{
	switch (magic) {
	case META_SUPER:
		walk_fields(o, b, FIELDS_OF(super_disk));
		walk_super(o, b);
		break;
	case META_SLOT:
		walk_fields(o, b, FIELDS_OF(slot_disk));
		walk_slot(o, b);
		break;
	case META_LOCK:
		walk_fields(o, b, FIELDS_OF(lockrec_disk));
		walk_lock(o, b);
		break;
	case META_AG:
		walk_fields(o, b, FIELDS_OF(ag_disk));
		walk_bits(o, "bitmap_ready", ((const struct ag_disk *)b)->bitmap_ready,
			   BITMAPS_MAX);
		break;
	case META_BITMAP:
		walk_bits(o, "bits", ((const struct bitmap_disk *)b)->bits, BITMAP_BITS);
		break;
	case META_ITABLE:
		walk_fields(o, b, FIELDS_OF(itable_disk));
		walk_itable(o, b);
		break;
	case META_INODE:
		walk_fields(o, b, FIELDS_OF(inode_disk));
		walk_inode(o, b);
		break;
	default:
		break;
	}
}

static void walk_tree_block(struct debug_sink *o, const void *b, uint32_t magic)
{
	const struct dir_leaf_disk *leaf = b;
	const struct dir_node_disk *node = b;

	switch (magic) {
	case META_MAP_LEAF:
		walk_map_entries(o, "entries", ((const struct map_leaf_disk *)b)->entries,
				  LEAF_ENTRIES);
		break;
	case META_MAP_NODE:
		walk_pointers(o, "pointers", ((const struct map_node_disk *)b)->pointers,
			       NODE_POINTERS);
		break;
	case META_DIR_LEAF:
		walk_fields(o, b, FIELDS_OF(dir_leaf_disk));
		walk_dir_entries(o, "entries", leaf->entries,
				  smaller(le32_to_cpu(leaf->used), DIR_LEAF_BYTES));
		break;
	case META_DIR_NODE:
		walk_fields(o, b, FIELDS_OF(dir_node_disk));
		walk_dir_index(o, "entries", node->entries,
				smaller(le32_to_cpu(node->count), DIR_NODE_ENTRIES));
		break;
	case META_XATTR:
		walk_fields(o, b, FIELDS_OF(xattr_disk));
		walk_xattrs(o, b);
		break;
	default:
		break;
	}
}

static void walk_log_block(struct debug_sink *o, const void *b, uint32_t magic)
{
	switch (magic) {
	case META_ORPHAN:
		walk_orphans(o, b);
		break;
	case META_TAIL:
		walk_fields(o, b, FIELDS_OF(journal_tail_disk));
		break;
	case META_DESC:
		walk_fields(o, b, FIELDS_OF(journal_desc_disk));
		walk_descriptor(o, b);
		break;
	case META_COMMIT:
		walk_fields(o, b, FIELDS_OF(journal_commit_disk));
		break;
	default:
		break;
	}
}

void debug_walk(struct debug_sink *sink, const void *block, uint64_t addr, const uint8_t *volume)
{
	const struct meta_hdr_disk *hdr = block;
	uint32_t magic = le32_to_cpu(hdr->magic);
	struct meta_expect e = { (enum meta_type)magic, volume, addr, le64_to_cpu(hdr->owner),
				 le32_to_cpu(hdr->birth) };
	char why[400];
	int wrong;

	if (strcmp(meta_type_name(magic), "unknown") == 0) {
		snprintf(why, sizeof(why), "no metadata block of LunFS (magic 0x%08x)", magic);
		sink->block(sink, addr, NULL, why);
		return;
	}
	wrong = meta_verify(block, &e, why, sizeof(why));
	sink->block(sink, addr, meta_type_name(magic), wrong ? why : NULL);
	walk_fields(sink, block, FIELDS_OF(meta_hdr_disk));
	walk_body(sink, block, magic);
	walk_tree_block(sink, block, magic);
	walk_log_block(sink, block, magic);
}
