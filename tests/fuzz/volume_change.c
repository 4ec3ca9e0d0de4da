// SPDX-License-Identifier: Apache-2.0
/* Damage to a volume, from an input's bytes: volume_fuzz.c says how they are read. */
#include "base/crc32c.h"
#include "tests/fuzz/volume.h"

#define WHOLE		0x40u		/* of a kind: the second list */
#define IN_HEAD		0x8000u		/* the offset is one of the block's first fields */
#define KINDS		7u
#define WHOLE_KINDS	8u

/* One change as it was read. */
struct change {
	unsigned int kind, block;
	uint32_t off;
};

static uint64_t pointer_to(const struct mblock *b)
{
	const struct meta_hdr_disk *h = (const void *)b->data;

	return BPTR(b->addr >> BLOCK_SHIFT, le32_to_cpu(h->birth) & UINT16_MAX);
}

static uint64_t interesting(const struct volume *v, uint64_t n)
{
	static const uint64_t extremes[] = { 0, 1, 2, UINT32_MAX, INT64_MAX, UINT64_MAX, 1ULL << 40,
		1ULL << 48, 1ULL << 60, VOLUME_SIZE, VOLUME_SIZE / BLOCK_SIZE, FILE_SIZE_MAX };
	const struct mblock *b = &v->blocks[n / 4 % v->count];
	const struct meta_hdr_disk *h = (const void *)b->data;
	uint64_t block = b->addr >> BLOCK_SHIFT;

	switch (n % 4) {
	case 0:
		return pointer_to(b);
	case 1:
		if (b->type != META_INODE)
			return block;
		return inode_id_make(block - 1, le32_to_cpu(((const struct inode_disk *)h)->generation));
	case 2:
		return b->addr;
	default:
		return extremes[n / 4 % ARRAY_SIZE(extremes)];
	}
}

static void put64(uint8_t *block, uint32_t off, uint64_t v)
{
	le64 d = cpu_to_le64(v);

	memcpy(block + off / 8 % (BLOCK_SIZE / 8) * 8, &d, 8);
}

static uint64_t get64(const uint8_t *block, uint32_t off)
{
	le64 d;

	memcpy(&d, block + off / 8 % (BLOCK_SIZE / 8) * 8, 8);
	return le64_to_cpu(d);
}

static unsigned int other_block(const struct damage *d, struct fuzz_input *in)
{
	return (unsigned int)fuzz_number(in, 2) % d->v->count;
}

/* ---- fields, and whole blocks as they were made ---- */

static void change_field(struct damage *d, const struct change *c, struct fuzz_input *in)
{
	uint8_t *block = d->data[c->block];
	uint32_t off = c->off;
	unsigned int from;
	le32 v;
	size_t n;

	switch (c->kind % KINDS) {
	case 0:
		n = 1 + fuzz_number(in, 1) % 32;
		fuzz_take(in, block + off, n < BLOCK_SIZE - off ? n : BLOCK_SIZE - off);
		break;
	case 1:
		put64(block, off, interesting(d->v, fuzz_number(in, 2)));
		break;
	case 2:
		put64(block, off, get64(block, off) + (uint64_t)(int8_t)fuzz_number(in, 1));
		break;
	case 3:
		from = other_block(d, in);
		memcpy(block + 64, d->v->blocks[from].data + 64, BLOCK_SIZE - 64);
		break;
	case 4:
		v = cpu_to_le32((uint32_t)fuzz_number(in, 4));
		memcpy(block + off / 4 * 4, &v, 4);
		break;
	case 5:
		from = other_block(d, in);
		memcpy(block, d->v->blocks[from].data, BLOCK_SIZE);
		break;
	default:
		from = other_block(d, in);
		for (n = fuzz_number(in, 2); n && off <= BLOCK_SIZE - 8; n--, off += 8)
			put64(block, off, pointer_to(&d->v->blocks[from]));
	}
}

/* ---- whole blocks as they are now ---- */

/* Where the entries of a block lie that refer to something, and how big they are. */
static uint32_t entry_off(const struct volume *v, unsigned int block, unsigned int n,
			  uint32_t *size)
{
	static const struct { enum meta_type type; uint32_t first, size; } lists[] = {
		{ META_INODE, offsetof(struct inode_disk, root), 16 },
		{ META_MAP_LEAF, offsetof(struct map_leaf_disk, entries), 16 },
		{ META_MAP_NODE, offsetof(struct map_node_disk, pointers), 8 },
		{ META_DIR_NODE, offsetof(struct dir_node_disk, entries), 16 },
		{ META_DIR_LEAF, offsetof(struct dir_leaf_disk, entries), 8 },
		{ META_ITABLE, offsetof(struct itable_disk, entries), 8 },
		{ META_ORPHAN, offsetof(struct orphan_disk, ids), 8 },
		{ META_DESC, offsetof(struct journal_desc_disk, entries), 16 },
		{ META_SLOT, offsetof(struct slot_disk, wants), 16 },
		{ META_AG, offsetof(struct ag_disk, itable), 8 },
	};

	*size = 8;
	for (size_t i = 0; i < ARRAY_SIZE(lists); i++) {
		if (lists[i].type == v->blocks[block].type) {
			*size = lists[i].size;
			n %= (BLOCK_SIZE - lists[i].first) / lists[i].size;
			return lists[i].first + n * lists[i].size;
		}
	}
	return 64 + n % 500 * 8;
}

static void cross_link(struct damage *d, const struct change *c, struct fuzz_input *in)
{
	unsigned int from = other_block(d, in), n = (unsigned int)fuzz_number(in, 1);
	unsigned int m = (unsigned int)fuzz_number(in, 1);
	uint32_t size, size_from;
	uint32_t to = entry_off(d->v, c->block, n, &size);
	uint32_t at = entry_off(d->v, from, m, &size_from);

	memmove(d->data[c->block] + to, d->data[from] + at, size < size_from ? size : size_from);
}

static void garble(uint8_t *p, size_t size, uint64_t seed)
{
	uint64_t x = (seed + 1) * 0x9e3779b97f4a7c15;

	for (size_t i = 0; i < size; i++) {
		x ^= x << 13;	/* xorshift64 (Marsaglia 2003) */
		x ^= x >> 7;
		x ^= x << 17;
		p[i] = (uint8_t)x;
	}
}

static void swap(struct damage *d, unsigned int a, unsigned int b)
{
	uint8_t kept[BLOCK_SIZE];

	memcpy(kept, d->data[a], BLOCK_SIZE);
	memcpy(d->data[a], d->data[b], BLOCK_SIZE);
	memcpy(d->data[b], kept, BLOCK_SIZE);
	d->touched[b] = true;
	d->raw[b] |= d->raw[a];
}

static void copy_away(struct damage *d, unsigned int from, uint64_t block, bool raw)
{
	if (d->stray_count == ARRAY_SIZE(d->strays))
		return;
	d->strays[d->stray_count].addr = block % (VOLUME_SIZE / BLOCK_SIZE) * BLOCK_SIZE;
	d->strays[d->stray_count].from = from;
	d->strays[d->stray_count++].raw = raw;
}

static void change_whole(struct damage *d, const struct change *c, struct fuzz_input *in)
{
	const struct mblock *b = &d->v->blocks[c->block];
	uint8_t *block = d->data[c->block];

	switch (c->kind % WHOLE_KINDS) {
	case 0:
		block[c->off] ^= (uint8_t)(1u << fuzz_number(in, 1) % 8);
		break;
	case 1:
		swap(d, c->block, other_block(d, in));
		break;
	case 2:
		if (b->has_old)
			memcpy(block, b->old, BLOCK_SIZE);
		break;
	case 3:
		memset(block, 0, BLOCK_SIZE);
		break;
	case 4:
		copy_away(d, c->block, fuzz_number(in, 2), d->raw[c->block]);
		break;
	case 5:
		cross_link(d, c, in);
		break;
	case 6:
		garble(block + 64, BLOCK_SIZE - 64, fuzz_number(in, 1));
		break;
	default:
		garble(block, BLOCK_SIZE, fuzz_number(in, 1));
	}
}

void damage_change(struct damage *d, struct fuzz_input *in)
{
	unsigned int kind = (unsigned int)fuzz_number(in, 1);
	struct change c = { kind & ~(CHANGE_RAW | WHOLE), other_block(d, in),
			    (uint32_t)fuzz_number(in, 2) };

	c.off = c.off & IN_HEAD ? 64 + c.off % 192 : c.off % BLOCK_SIZE;
	d->touched[c.block] = true;
	d->raw[c.block] |= kind & CHANGE_RAW;
	if (kind & WHOLE)
		change_whole(d, &c, in);
	else
		change_field(d, &c, in);
}

/* ---- to the disk ---- */

static void seal(const struct damage *d, uint8_t *block, uint64_t addr)
{
	const struct meta_hdr_disk *h = (const void *)block;
	struct meta_expect e = { le32_to_cpu(h->magic), d->v->super.volume, addr,
				 le64_to_cpu(h->owner), le32_to_cpu(h->birth) & UINT16_MAX };

	meta_seal(block, &e, le64_to_cpu(h->version));
}

/* Images by their home addresses, their checksums into the descriptor, its into the record. */
static void seal_txn(struct damage *d, const struct mtxn *t)
{
	struct journal_desc_disk *desc = (void *)d->data[t->desc];
	struct journal_commit_disk *commit = (void *)d->data[t->desc + t->count + 1];

	for (unsigned int i = 0; i < t->count; i++) {
		unsigned int b = t->desc + 1 + i;

		if (d->touched[b] && !d->raw[b])
			seal(d, d->data[b], le64_to_cpu(desc->entries[i].addr));
		desc->entries[i].crc = cpu_to_le32(crc32c(0, d->data[b], BLOCK_SIZE));
	}
	if (!d->raw[t->desc])
		seal(d, (uint8_t *)desc, d->v->blocks[t->desc].addr);
	commit->desc_crc = cpu_to_le32(crc32c(0, desc, BLOCK_SIZE));
	if (!d->raw[t->desc + t->count + 1])
		seal(d, (uint8_t *)commit, d->v->blocks[t->desc + t->count + 1].addr);
	for (unsigned int i = t->desc; i < t->desc + t->count + 2; i++)
		d->touched[i] = true;
}

static void store_stray(struct damage *d, struct simdisk *disk, unsigned int i)
{
	static const uint8_t nothing[BLOCK_SIZE];
	uint8_t there[BLOCK_SIZE], block[BLOCK_SIZE];
	uint64_t addr = d->strays[i].addr;

	simdisk_peek(disk, addr, there, BLOCK_SIZE);
	if (memcmp(there, nothing, BLOCK_SIZE) != 0)
		return;
	memcpy(block, d->data[d->strays[i].from], BLOCK_SIZE);
	if (!d->strays[i].raw)
		seal(d, block, addr);
	simdisk_poke(disk, addr, block, BLOCK_SIZE);
}

void damage_store(struct damage *d, struct simdisk *disk)
{
	bool txn_touched[TXNS_MAX + 1] = { false };

	for (unsigned int i = 0; i < d->v->count; i++)
		txn_touched[d->v->blocks[i].txn] |= d->touched[i];
	for (unsigned int i = 0; i < d->v->txn_count; i++)
		if (txn_touched[i + 1])
			seal_txn(d, &d->v->txns[i]);
	for (unsigned int i = 0; i < d->v->count; i++) {
		const struct mblock *b = &d->v->blocks[i];

		if (!d->touched[i])
			continue;
		if (!b->txn && !d->raw[i])
			seal(d, d->data[i], b->addr);
		simdisk_poke(disk, b->addr, d->data[i], BLOCK_SIZE);
	}
	for (unsigned int i = 0; i < d->stray_count; i++)
		store_stray(d, disk, i);
}

/* ---- inputs ---- */

struct writer {
	uint8_t *p;
	size_t left;
	uint64_t rng;
};

static uint64_t draw(struct writer *w, uint64_t below)
{
	uint64_t z = w->rng += 0x9e3779b97f4a7c15;	/* splitmix64 (Steele 2014) */

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return (z ^ z >> 31) % below;
}

static void put(struct writer *w, uint64_t v, unsigned int bytes)
{
	for (; bytes && w->left; bytes--, v >>= 8, w->left--)
		*w->p++ = (uint8_t)v;
}

/* As many bytes as damage_change() takes of that kind. */
static void put_arguments(struct writer *w, unsigned int kind)
{
	static const uint8_t field[KINDS] = { 0, 2, 1, 2, 4, 2, 2 };
	static const uint8_t whole[WHOLE_KINDS] = { 1, 2, 0, 0, 2, 2, 1, 1 };
	unsigned int n = kind & ~(CHANGE_RAW | WHOLE);

	if (kind & WHOLE) {
		put(w, draw(w, 65536), whole[n]);
		if (n == 5) {	/* among the first entries: those that are in use */
			put(w, draw(w, draw(w, 2) ? 4 : 256), 1);
			put(w, draw(w, draw(w, 2) ? 4 : 256), 1);
		}
		return;
	}
	if (n == 0) {
		unsigned int count = (unsigned int)draw(w, draw(w, 4) ? 4 : 32);

		put(w, count, 1);
		for (unsigned int i = 0; i <= count; i++)
			put(w, draw(w, 256), 1);
	}
	put(w, draw(w, 1ULL << 32), field[n]);
	if (n == 6)
		put(w, draw(w, draw(w, 2) ? 4 : 600), 2);
}

/* From word @word of a block on, and around its contents, the first that is not zero. */
static uint32_t used_word(const uint8_t *block, uint32_t word)
{
	const uint32_t words = (BLOCK_SIZE - 64) / 8;

	for (uint32_t i = 0; i < words; i++) {
		uint32_t off = 64 + (word + i) % words * 8;

		if (get64(block, off))
			return off;
	}
	return 64 + word % words * 8;
}

/*
 * A block, and an offset in it: any; or a type first, of which there may be one block among two
 * hundred, and then mostly one of its fields, or of the few of its entries that are in use.
 */
static void put_place(struct writer *w, const struct volume *v)
{
	static const enum meta_type types[] = {
		META_SUPER, META_SLOT, META_LOCK, META_TAIL, META_DESC, META_COMMIT, META_AG,
		META_BITMAP, META_ITABLE, META_INODE, META_MAP_NODE, META_MAP_LEAF, META_DIR_NODE,
		META_DIR_LEAF, META_XATTR, META_ORPHAN,
	};
	unsigned int block = (unsigned int)draw(w, v->count);
	uint32_t off = (uint32_t)draw(w, 65536);

	if (draw(w, 2)) {
		enum meta_type type = types[draw(w, ARRAY_SIZE(types))];

		for (unsigned int i = 0; i < v->count && v->blocks[block].type != type; i++)
			block = (block + 1) % v->count;
		if (off % 3 == 1)
			off = 64 + (uint32_t)draw(w, 448);
		else if (off % 3 == 2)
			off = used_word(v->blocks[block].data, (uint32_t)draw(w, 504)) +
			      (uint32_t)draw(w, 8);
	}
	put(w, block, 2);
	put(w, off, 2);
}

size_t damage_make_up(const struct volume volumes[2], uint8_t *data, size_t size, uint64_t seed)
{
	/* Mostly a repair alone, after which every file has to be there. */
	static const uint8_t uses[] = {
		USE_IMAGES, USE_IMAGES, USE_IMAGES | USE_CHECK, USE_IMAGES | USE_READ,
		USE_IMAGES | USE_CHANGE, USE_IMAGES | USE_CHANGE, USE_IMAGES | USE_OTHER,
		USE_IMAGES | USE_OTHER, USE_IMAGES | USE_RESCUE, USE_IMAGES | USE_REPLAY,
	};
	struct writer w = { data, size, seed };
	bool old = draw(&w, 32) == 0;	/* slow ones */
	uint64_t use = old ? 1ULL << draw(&w, 7) : uses[draw(&w, sizeof(uses))];

	put(&w, use, 1);
	put(&w, draw(&w, 256), 1);
	for (uint64_t n = 1 + draw(&w, draw(&w, 2) ? 2 : 8); n; n--) {
		unsigned int kind = (unsigned int)(draw(&w, 2) ? WHOLE | draw(&w, WHOLE_KINDS) :
						   draw(&w, KINDS));

		put(&w, kind | (draw(&w, 4) ? 0 : CHANGE_RAW), 1);
		put_place(&w, &volumes[!!(use & USE_IMAGES)]);
		put_arguments(&w, kind);
	}
	return size - w.left;
}
