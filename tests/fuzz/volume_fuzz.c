// SPDX-License-Identifier: Apache-2.0
/*
 * A volume whose metadata somebody changed on purpose, with right headers and checksums.
 *
 * Input: a byte of enum volume_use, a byte (the world's seed), then changes:
 *
 *	kind 1 | block 2 | offset 2 | arguments, by kind modulo 7:
 *	  0  count 1, bytes       1  number 2: an address, id or pointer that exists, or an extreme
 *	  2  sum 1: added to a 64-bit field   3  block 2: its contents   4  32-bit value 4
 *	  5  block 2: all of it, type and owner too
 *	  6  block 2, count 2: so many pointers to it
 *
 * Bit 7 of the kind leaves the block's checksum wrong.
 */
#include "base/crc32c.h"
#include "tests/fuzz/volume.h"

#define CHANGES_MAX	16u
#define RAW		0x80u
#define IN_HEAD		0x8000u		/* the offset is one of the block's first fields */
#define RUN_NS		(2 * 3600 * NSEC_PER_SEC)

struct run {
	uint8_t (*data)[BLOCK_SIZE];	/* of all blocks, changed */
	bool touched[BLOCKS_MAX], raw[BLOCKS_MAX];
	bool super_touched;
	struct env *env;
	struct simdisk *disk;
	unsigned int uses;
};

static struct volume volume;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	volume_make(&volume);
	return 0;
}

/* ---- changing it ---- */

static uint64_t pointer_to(const struct mblock *b)
{
	const struct meta_hdr_disk *h = (const void *)b->data;

	return BPTR(b->addr >> BLOCK_SHIFT, le32_to_cpu(h->birth) & UINT16_MAX);
}

static uint64_t interesting(uint64_t n)
{
	static const uint64_t extremes[] = { 0, 1, 2, UINT32_MAX, INT64_MAX, UINT64_MAX, 1ULL << 40,
		1ULL << 48, 1ULL << 60, VOLUME_SIZE, VOLUME_SIZE / BLOCK_SIZE, FILE_SIZE_MAX };
	const struct mblock *b = &volume.blocks[n / 4 % volume.count];
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

static void change_one(struct run *r, struct fuzz_input *in)
{
	unsigned int kind = (unsigned int)fuzz_number(in, 1);
	unsigned int i = (unsigned int)fuzz_number(in, 2) % volume.count, from;
	uint32_t off = (uint32_t)fuzz_number(in, 2);
	uint8_t *block = r->data[i];
	le32 v;
	size_t n;

	off = off & IN_HEAD ? 64 + off % 192 : off % BLOCK_SIZE;
	r->touched[i] = true;
	r->raw[i] |= kind & RAW;
	r->super_touched |= volume.blocks[i].type == META_SUPER;
	switch ((kind & ~RAW) % 7) {
	case 0:
		n = 1 + fuzz_number(in, 1) % 32;
		fuzz_take(in, block + off, n < BLOCK_SIZE - off ? n : BLOCK_SIZE - off);
		break;
	case 1:
		put64(block, off, interesting(fuzz_number(in, 2)));
		break;
	case 2:
		put64(block, off, get64(block, off) + (uint64_t)(int8_t)fuzz_number(in, 1));
		break;
	case 3:
		from = (unsigned int)fuzz_number(in, 2) % volume.count;
		memcpy(block + 64, volume.blocks[from].data + 64, BLOCK_SIZE - 64);
		break;
	case 4:
		v = cpu_to_le32((uint32_t)fuzz_number(in, 4));
		memcpy(block + off / 4 * 4, &v, 4);
		break;
	case 5:
		from = (unsigned int)fuzz_number(in, 2) % volume.count;
		memcpy(block, volume.blocks[from].data, BLOCK_SIZE);
		break;
	default:
		from = (unsigned int)fuzz_number(in, 2) % volume.count;
		for (n = fuzz_number(in, 2); n && off <= BLOCK_SIZE - 8; n--, off += 8)
			put64(block, off, pointer_to(&volume.blocks[from]));
	}
}

static void seal(uint8_t *block, uint64_t addr)
{
	const struct meta_hdr_disk *h = (const void *)block;
	struct meta_expect e = { le32_to_cpu(h->magic), volume.super.volume, addr,
				 le64_to_cpu(h->owner), le32_to_cpu(h->birth) & UINT16_MAX };

	meta_seal(block, &e, le64_to_cpu(h->version));
}

/* Images by their home addresses, their checksums into the descriptor, its into the record. */
static void seal_txn(struct run *r, const struct mtxn *t)
{
	struct journal_desc_disk *d = (void *)r->data[t->desc];
	struct journal_commit_disk *c = (void *)r->data[t->desc + t->count + 1];

	for (unsigned int i = 0; i < t->count; i++) {
		unsigned int b = t->desc + 1 + i;

		if (r->touched[b] && !r->raw[b])
			seal(r->data[b], le64_to_cpu(d->entries[i].addr));
		d->entries[i].crc = cpu_to_le32(crc32c(0, r->data[b], BLOCK_SIZE));
	}
	if (!r->raw[t->desc])
		seal((uint8_t *)d, volume.blocks[t->desc].addr);
	c->desc_crc = cpu_to_le32(crc32c(0, d, BLOCK_SIZE));
	if (!r->raw[t->desc + t->count + 1])
		seal((uint8_t *)c, volume.blocks[t->desc + t->count + 1].addr);
	for (unsigned int i = t->desc; i < t->desc + t->count + 2; i++)
		r->touched[i] = true;
}

static void store(struct run *r)
{
	bool txn_touched[TXNS_MAX + 1] = { false };

	for (unsigned int i = 0; i < volume.count; i++)
		txn_touched[volume.blocks[i].txn] |= r->touched[i];
	for (unsigned int i = 0; i < volume.txn_count; i++)
		if (txn_touched[i + 1])
			seal_txn(r, &volume.txns[i]);
	for (unsigned int i = 0; i < volume.count; i++) {
		const struct mblock *b = &volume.blocks[i];

		if (!r->touched[i])
			continue;
		if (!b->txn && !r->raw[i])
			seal(r->data[i], b->addr);
		simdisk_poke(r->disk, b->addr, r->data[i], BLOCK_SIZE);
	}
}

/* ---- using it ---- */

/* Slots and fixed locks are changed by compare-and-write only, the superblock not at all. */
static void saw(void *arg, struct env *env, const struct blk_io *io)
{
	const struct super *s = &volume.super;
	const struct run *r = arg;

	(void)env;
	if (io->op != BLK_WRITE || r->super_touched)
		return;
	/* But by a repair, which then has all of the volume to itself, and stays within it. */
	if (r->uses & USE_REPAIR) {
		FUZZ_CHECK(io->off >= SUPER_ADDR && io->off + io->len <= s->size);
		return;
	}
	FUZZ_CHECK(io->off >= s->orphans_addr);
	FUZZ_CHECK(io->off + io->len <= super_end_addr(s));
	FUZZ_CHECK(io->off + io->len <= s->copy_addr || io->off > s->copy_addr);
	FUZZ_CHECK(io->off + io->len <= s->ag_addr || io->off > s->ag_addr);
}

static void run_thread(void *arg)
{
	struct run *r = arg;

	volume_use(r->env, r->disk, &volume.super, r->uses);
}

static void run(struct run *r, uint64_t seed)
{
	struct simdisk_params p = { .size = VOLUME_SIZE, .sector = 512, .reservations = true,
				    .latency_min_ns = 1000, .latency_max_ns = 100000 };
	struct sim *sim = sim_new(seed);
	struct env_thread *thread;

	r->disk = simdisk_new(sim, &p);
	simdisk_restore(r->disk, volume.image);
	r->env = sim_host(sim, "fuzz");
	store(r);
	simdisk_observe(r->disk, saw, r);
	FUZZ_CHECK(env_thread_start(r->env, "use", run_thread, r, &thread) == 0);
	FUZZ_CHECK(sim_run(sim, RUN_NS));
	env_thread_join(r->env, thread);
	simdisk_free(r->disk);
	sim_free(sim);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	struct run *r = calloc(1, sizeof(*r));
	uint64_t seed;

	FUZZ_CHECK(r);
	r->data = malloc(volume.count * sizeof(*r->data));
	FUZZ_CHECK(r->data);
	for (unsigned int i = 0; i < volume.count; i++)
		memcpy(r->data[i], volume.blocks[i].data, BLOCK_SIZE);
	r->uses = (unsigned int)fuzz_number(&in, 1);
	seed = fuzz_number(&in, 1);
	for (unsigned int i = 0; i < CHANGES_MAX && in.left; i++)
		change_one(r, &in);
	run(r, seed);
	free(r->data);
	free(r);
	return 0;
}
