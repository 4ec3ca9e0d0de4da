/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest that changes its mind: a driver that works, and while the back end serves it
 * overwrites descriptors, tables, headers, rings and the in-flight area with nonsense and puts
 * back what was there, as fast as it can.  What is read twice is found to be two things.
 *
 * The input chooses formats and places; when what is overwritten is up to the machine, so an
 * input that fails may have to be run more than once.
 */
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>

#include "tests/fuzz/vhost_front.h"
#include "tools/vhost_bench/vq.h"

#define MEM		(256 * 1024u)
#define AREA		8192u
#define DEPTH		16u
#define BUFS_MAX	4u	/* header, two of data, status */
#define RING_SIZE	64u
#define SLOT_BYTES	8192u	/* header, status, and from 4096 on data */
#define PLACES_MAX	8u
#define FLIPS		32u
#define SILENCE_NS	(NSEC_PER_MSEC / 2)	/* nothing comes back any more */
#define REQUESTS	1000u

struct guest {
	struct front	f;
	struct vq	vq;
	uint8_t		*area;
	uint64_t	slots_at;	/* in memory: the requests' own */
	uint64_t	rng;
	unsigned int	kinds;		/* of places that are overwritten, a bit each */
	uint64_t	*places[PLACES_MAX];	/* few, so that each is often */
	unsigned int	place_count;
};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc, (void)argv;
	front_init();
	return 0;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

static uint32_t random_next(uint64_t *rng)
{
	*rng = *rng * 6364136223846793005ULL + 1442695040888963407ULL;
	return (uint32_t)(*rng >> 33);
}

/* ---- what is overwritten ---- */

enum { PLACE_DESC = 1, PLACE_TABLE = 2, PLACE_HEADER = 4, PLACE_AVAIL = 8, PLACE_USED = 16,
       PLACE_AREA = 32 };

/* 8 bytes somewhere in what @kind is. */
static void *place(struct guest *g, unsigned int kind)
{
	uint32_t r = random_next(&g->rng), half = random_next(&g->rng) % 2 * 8;

	switch (kind) {
	case PLACE_DESC:
		return (uint8_t *)&g->vq.desc[r % RING_SIZE] + half;
	case PLACE_TABLE:
		return (uint8_t *)&g->vq.tables[r % (DEPTH * BUFS_MAX)] + half;
	case PLACE_HEADER:
		return g->f.mem + g->slots_at + (uint64_t)(r % DEPTH) * SLOT_BYTES + half;
	case PLACE_AVAIL:
		return (uint8_t *)g->vq.avail + r % 17 * 8;
	case PLACE_USED:
		return (uint8_t *)g->vq.used + r % 65 * 8;
	default:
		return g->area + r % (AREA / 8) * 8;
	}
}

static void choose_places(struct guest *g)
{
	unsigned int wanted = 1 + random_next(&g->rng) % PLACES_MAX;

	while (g->kinds % 64 && g->place_count < wanted) {
		unsigned int kind = 1u << random_next(&g->rng) % 6;

		if (g->kinds & kind)
			g->places[g->place_count++] = place(g, kind);
	}
}

/* Something that is right in part and wrong in part. */
static uint64_t bend(uint64_t was, uint64_t *rng)
{
	static const uint64_t values[] = { 0, UINT64_MAX, MEM, MEM - 1, 1ULL << 63, 0xffffffff,
					   0x7fffffff, 4096, 1 };
	uint64_t value = values[random_next(rng) % ARRAY_SIZE(values)];

	switch (random_next(rng) % 5) {
	case 0:		/* a whole field: address, sector */
		return value;
	case 1:		/* length or type */
		return (was & ~0xffffffffULL) | (value & 0xffffffff);
	case 2:		/* flags, of a packed ring next and id */
		return was ^ 1ULL << (32 + random_next(rng) % 32);
	case 3:
		return (was & ~(0xffffULL << 48)) | (uint64_t)random_next(rng) % 70 << 48;
	default:
		return was ^ 1ULL << random_next(rng) % 64;
	}
}

static void pause_for(uint32_t n)
{
	while (n--)
		__asm__ volatile("" ::: "memory");
}

/* A few times: one of the places is something else for a moment. */
static void overwrite(struct guest *g)
{
	for (unsigned int i = 0; i < FLIPS && g->place_count; i++) {
		uint64_t *p = g->places[random_next(&g->rng) % g->place_count];
		uint64_t was = __atomic_load_n(p, __ATOMIC_RELAXED);

		__atomic_store_n(p, bend(was, &g->rng), __ATOMIC_RELAXED);
		pause_for(random_next(&g->rng) % 16);
		/* Most become what they were again: else all would soon be over. */
		if (random_next(&g->rng) % 4096)
			__atomic_store_n(p, was, __ATOMIC_RELAXED);
		pause_for(random_next(&g->rng) % 256);
	}
}

/* ---- the driver ---- */

static void add_request(struct guest *g, unsigned int slot)
{
	static const uint32_t types[] = { BLK_T_IN, BLK_T_OUT, BLK_T_IN, BLK_T_OUT, BLK_T_FLUSH,
					  BLK_T_GET_ID, BLK_T_DISCARD, BLK_T_WRITE_ZEROES };
	uint32_t type = types[random_next(&g->rng) % ARRAY_SIZE(types)];
	uint64_t at = g->slots_at + (uint64_t)slot * SLOT_BYTES;
	struct blk_header_wire h = { cpu_to_le32(type), cpu_to_le32(0),
				     cpu_to_le64(random_next(&g->rng) % 120) };
	struct blk_range_wire range = { cpu_to_le64(8), cpu_to_le32(8), cpu_to_le32(0) };
	/* At times not aligned: those are copied. */
	uint64_t data = at + 4096 + random_next(&g->rng) % 4 / 3;
	bool in = type == BLK_T_IN || type == BLK_T_GET_ID;
	struct vq_buf bufs[BUFS_MAX] = { { at, sizeof(h), false } };
	unsigned int n = 1;

	memcpy(g->f.mem + at, &h, sizeof(h));
	if (type == BLK_T_IN || type == BLK_T_OUT)
		bufs[n++] = (struct vq_buf){ data, 512, in };
	if (type == BLK_T_DISCARD || type == BLK_T_WRITE_ZEROES) {
		memcpy(g->f.mem + data, &range, sizeof(range));
		bufs[n++] = (struct vq_buf){ data, sizeof(range), false };
	} else if (type != BLK_T_FLUSH) {
		bufs[n++] = (struct vq_buf){ data + 1024, in && type != BLK_T_IN ? 20 : 1024, in };
	}
	bufs[n++] = (struct vq_buf){ at + 64, 1, true };
	vq_add(&g->vq, slot, bufs, n);
}

/* Keeps the ring full until enough was done, nothing comes back, or nonsense does. */
static void drive(struct guest *g)
{
	uint64_t end = now_ns() + 10 * SILENCE_NS;
	unsigned int slot, done = 0;
	uint32_t len;
	int ret = 0;

	for (slot = 0; slot < DEPTH; slot++)
		add_request(g, slot);
	vq_publish(&g->vq);
	eventfd_write(g->f.kick_fd, 1);
	while (done < REQUESTS && ret >= 0 && now_ns() < end) {
		overwrite(g);
		while ((ret = vq_next_used(&g->vq, &slot, &len)) > 0) {
			add_request(g, slot);
			done++;
			end = now_ns() + SILENCE_NS;
		}
		if (vq_publish(&g->vq))
			eventfd_write(g->f.kick_fd, 1);
	}
}

static void set_up(struct guest *g)
{
	struct front *f = &g->f;
	struct mem_reg_wire reg = { .region = { 0, MEM, 0, 0 } };
	struct vring_addr_wire addr = {
		.desc = (uint64_t)((uint8_t *)g->vq.desc - f->mem),
		.avail = (uint64_t)((uint8_t *)g->vq.avail - f->mem),
		.used = (uint64_t)((uint8_t *)g->vq.used - f->mem) };

	front_send_u64(f, VHU_SET_PROTOCOL_FEATURES, 0xb22b, -1);
	front_send_u64(f, VHU_SET_FEATURES, g->vq.features, -1);
	front_send(f, VHU_ADD_MEM_REG, &reg, sizeof(reg), f->mem_fd);
	if (g->kinds & PLACE_AREA)
		front_send(f, VHU_SET_INFLIGHT_FD,
			   &(struct inflight_wire){ AREA, 0, 1, RING_SIZE, 0 }, 24, f->area_fd);
	front_send(f, VHU_SET_VRING_NUM, &(struct vring_state_wire){ 0, RING_SIZE }, 8, -1);
	front_send(f, VHU_SET_VRING_BASE, &(struct vring_state_wire){ 0, vq_base(&g->vq) }, 8, -1);
	front_send(f, VHU_SET_VRING_ADDR, &addr, sizeof(addr), -1);
	front_send_u64(f, VHU_SET_VRING_CALL, 0, f->kick_fd);
	front_send(f, VHU_SET_VRING_ENABLE, &(struct vring_state_wire){ 0, 1 }, 8, -1);
	front_send_u64(f, VHU_SET_VRING_KICK, 0, f->kick_fd);
}

static uint64_t features(unsigned int choice)
{
	return FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VHU_F_PROTOCOL_FEATURES) |
	       FEATURE(BLK_F_DISCARD) | FEATURE(BLK_F_WRITE_ZEROES) | FEATURE(BLK_F_FLUSH) |
	       (choice & 1 ? FEATURE(VIRTIO_F_RING_PACKED) : 0) |
	       (choice & 2 ? FEATURE(VIRTIO_F_EVENT_IDX) : 0) |
	       (choice & 4 ? FEATURE(VIRTIO_F_INDIRECT_DESC) : 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	static struct guest g;

	g = (struct guest){ .vq = { .size = RING_SIZE, .depth = DEPTH, .bufs_max = BUFS_MAX } };
	g.vq.features = features((unsigned int)fuzz_number(&in, 1));
	g.kinds = (unsigned int)fuzz_number(&in, 1);
	g.rng = fuzz_number(&in, 8) | 1;
	front_open(&g.f, MEM, AREA);
	g.area = mmap(NULL, AREA, PROT_READ | PROT_WRITE, MAP_SHARED, g.f.area_fd, 0);
	FUZZ_CHECK(g.area != MAP_FAILED && vq_init(&g.vq, g.f.mem, 0) == 0);
	g.slots_at = vq_bytes(RING_SIZE, DEPTH, BUFS_MAX);
	FUZZ_CHECK(g.slots_at + DEPTH * SLOT_BYTES <= MEM);
	choose_places(&g);
	set_up(&g);
	drive(&g);
	front_barrier(&g.f);
	front_close(&g.f);
	vq_fini(&g.vq);
	munmap(g.area, AREA);
	return 0;
}
