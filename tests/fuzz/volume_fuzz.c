// SPDX-License-Identifier: Apache-2.0
/*
 * A volume that somebody damaged or changed on purpose, and everything that can be done with it.
 *
 * Input: a byte of enum volume_use, a byte (the world's seed), then changes:
 *
 *	kind 1 | block 2 | offset 2 | arguments, by kind modulo 7:
 *	  0  count 1, bytes       1  number 2: an address, id or pointer that exists, or an extreme
 *	  2  sum 1: added to a 64-bit field   3  block 2: its contents   4  32-bit value 4
 *	  5  block 2: all of it, type and owner too
 *	  6  block 2, count 2: so many pointers to it
 *	or, with bit 6 of the kind, modulo 8:
 *	  0  bit 1: flipped       1  block 2: the two are swapped    2  it is what it was earlier
 *	  3  zeros                4  address 2: also there, if nothing is there
 *	  5  block 2, numbers 2: pointer, entry or name of one becomes the other's
 *	  6  seed 1: random bytes behind the header   7  seed 1: all of it
 *
 * Bit 7 of the kind leaves the block's checksum wrong.
 */
#include "tests/fuzz/volume.h"

#define CHANGES_MAX	16u
#define RUN_NS		(2 * 3600 * NSEC_PER_SEC)

struct run {
	struct damage damage;
	struct volume_run use;
	bool super_touched, slots_touched;
	bool intact[FILES_MAX], like_others[FILES_MAX];
};

static struct volume volumes[2];	/* without, with images */

/* Memory that was freed is used again soon: half of a run's time went to fresh pages. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "quarantine_size_mb=8:malloc_context_size=6";
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	volume_make(&volumes[0], false);
	volume_make(&volumes[1], true);
	return 0;
}

/* libFuzzer's own, where it is. */
__attribute__((weak)) size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
	if (LLVMFuzzerMutate && size && seed % 2)
		return LLVMFuzzerMutate(data, size, max_size);
	return damage_make_up(volumes, data, max_size, seed);
}

/* ---- which files the damage has nothing to do with ---- */

static bool is_owner(const struct mblock *b, uint64_t id)
{
	const struct meta_hdr_disk *h = (const void *)b->data;
	uint64_t owner = le64_to_cpu(h->owner);

	switch (b->type) {
	case META_INODE:
		return owner == inode_id_number(id);
	case META_MAP_NODE:
	case META_MAP_LEAF:
		return owner == id;
	default:
		return false;
	}
}

/* Where groups' headers or indices lie, and where inodes are: the one finds what the other lost. */
static bool is_index(enum meta_type type)
{
	return type == META_AG || type == META_ITABLE;
}

static bool is_journal(enum meta_type type)
{
	return type == META_TAIL || type == META_DESC || type == META_COMMIT;
}

static bool id_touched(const struct run *r, uint64_t id)
{
	const struct volume *v = r->damage.v;

	for (unsigned int i = 0; i < v->count; i++)
		if (r->damage.touched[i] && is_owner(&v->blocks[i], id))
			return true;
	for (unsigned int i = 0; i < v->file_count; i++)
		if (v->files[i].id == id && v->files[i].parent)
			return id_touched(r, v->files[i].parent);
	return false;
}

/* Nothing is promised after a change of a superblock, a journal, or of indices and more. */
static const bool *find_intact(struct run *r)
{
	const struct volume *v = r->damage.v;
	bool index = false, other = false, any = false;

	for (unsigned int i = 0; i < v->count; i++) {
		const struct mblock *b = &v->blocks[i];

		if (!r->damage.touched[i])
			continue;
		r->super_touched |= b->type == META_SUPER;
		r->slots_touched |= b->type == META_SLOT;
		any |= b->type == META_SUPER || b->txn || is_journal(b->type);
		index |= is_index(b->type);
		other |= !is_index(b->type);
	}
	if (any || (index && other) || !(r->use.uses & USE_IMAGES) ||
	    r->use.uses & (USE_CHANGE | USE_OTHER | USE_READ | USE_REPLAY))
		return NULL;
	for (unsigned int i = 0; i < v->file_count; i++)
		r->intact[i] = !id_touched(r, v->files[i].id);
	return r->intact;
}

/*
 * Forty files are there for the leaves of their directory.  To change each of them costs half of an
 * input's time and shows what the next one shows: one in four is changed, others by other seeds,
 * and all that the damage touched.
 */
static void find_like_others(struct run *r, uint64_t seed)
{
	const struct volume *v = r->damage.v;

	for (unsigned int i = 0; i < v->file_count; i++)
		r->like_others[i] = v->files[i].small && (i + seed) % 4 &&
				    !id_touched(r, v->files[i].id);
	r->use.like_others = r->like_others;
}

/* ---- using it ---- */

/* Slots and fixed locks are changed by compare-and-write only, the superblock not at all. */
static void saw(void *arg, struct env *env, const struct blk_io *io)
{
	const struct run *r = arg;
	const struct super *s = &r->damage.v->super;

	(void)env;
	if (io->op != BLK_WRITE || r->super_touched)
		return;
	/* But by a repair, which then has all of the volume to itself, and stays within it. */
	FUZZ_CHECK(io->off >= SUPER_ADDR && io->off + io->len <= s->size);
	if (r->use.repairing)
		return;
	FUZZ_CHECK(io->off >= s->orphans_addr);
	FUZZ_CHECK(io->off + io->len <= super_end_addr(s));
	FUZZ_CHECK(io->off + io->len <= s->copy_addr || io->off > s->copy_addr);
	FUZZ_CHECK(io->off + io->len <= s->ag_addr || io->off > s->ag_addr);
}

static void run_thread(void *arg)
{
	struct run *r = arg;

	volume_use(&r->use);
}

static void run(struct run *r, uint64_t seed)
{
	struct simdisk_params p = { .size = VOLUME_SIZE, .sector = 512, .reservations = true,
				    .latency_min_ns = 1000, .latency_max_ns = 100000 };
	struct sim *sim = sim_new(seed);
	struct env_thread *thread;

	r->use.disk = simdisk_new(sim, &p);
	simdisk_restore(r->use.disk, r->damage.v->image);
	r->use.env = sim_host(sim, "fuzz");
	damage_store(&r->damage, r->use.disk);
	simdisk_observe(r->use.disk, saw, r);
	FUZZ_CHECK(env_thread_start(r->use.env, "use", run_thread, r, &thread) == 0);
	FUZZ_CHECK(sim_run(sim, RUN_NS));
	env_thread_join(r->use.env, thread);
	simdisk_free(r->use.disk);
	sim_free(sim);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	struct run *r = calloc(1, sizeof(*r));
	const struct volume *v;
	uint64_t seed;

	FUZZ_CHECK(r);
	r->use.uses = (unsigned int)fuzz_number(&in, 1);
	v = &volumes[!!(r->use.uses & USE_IMAGES)];
	r->use.v = r->damage.v = v;
	r->damage.data = malloc(v->count * sizeof(*r->damage.data));
	FUZZ_CHECK(r->damage.data);
	for (unsigned int i = 0; i < v->count; i++)
		memcpy(r->damage.data[i], v->blocks[i].data, BLOCK_SIZE);
	seed = fuzz_number(&in, 1);
	for (unsigned int i = 0; i < CHANGES_MAX && in.left; i++)
		damage_change(&r->damage, &in);
	r->use.intact = find_intact(r);
	find_like_others(r, seed);
	r->use.may_refuse = r->super_touched || r->slots_touched;
	run(r, seed);
	free(r->damage.data);
	free(r);
	return 0;
}
