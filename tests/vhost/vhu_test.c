/* SPDX-License-Identifier: Apache-2.0 */
/* What a front end may ask of the back end, and what is left of a process before it. */
#include "tests/vhost/vhu_rig.h"

/* ---- the claims ---- */

static void all_requests(void)
{
	struct blk_range_wire range = { cpu_to_le64(8), cpu_to_le32(8), cpu_to_le32(0) };

	device_make();
	front_start();
	for (unsigned int i = 0; i < 40; i++) {	/* round the ring, more than twice */
		memset(mem + AT_DATA, 'a' + (int)(i % 20), 8192);
		CU_ASSERT_EQUAL(request(BLK_T_OUT, i * 16, AT_DATA, 8192), BLK_S_OK);
		memset(mem + AT_DATA, 0, 8192);
		CU_ASSERT_EQUAL(request(BLK_T_IN, i * 16, AT_DATA, 8192), BLK_S_OK);
		CU_ASSERT_EQUAL(mem[AT_DATA + 8191], 'a' + (int)(i % 20));
	}
	CU_ASSERT_EQUAL(request(BLK_T_FLUSH, 0, 0, 0), BLK_S_OK);
	CU_ASSERT_EQUAL(request(BLK_T_GET_ID, 0, AT_DATA, 20), BLK_S_OK);
	CU_ASSERT_EQUAL(memcmp(mem + AT_DATA, "SERIAL\0", 7), 0);
	/* Buffers that the device cannot take are copied. */
	memset(mem + AT_DATA + 100, 'x', 4096);
	CU_ASSERT_EQUAL(request(BLK_T_OUT, 8, AT_DATA + 100, 4096), BLK_S_OK);
	CU_ASSERT_EQUAL(request(BLK_T_IN, 8, AT_DATA + 16389, 4096), BLK_S_OK);
	CU_ASSERT_EQUAL(memcmp(mem + AT_DATA + 100, mem + AT_DATA + 16389, 4096), 0);
	memcpy(mem + AT_DATA, &range, sizeof(range));
	CU_ASSERT_EQUAL(request(BLK_T_WRITE_ZEROES, 0, AT_DATA, 16), BLK_S_OK);
	CU_ASSERT_EQUAL(request(BLK_T_IN, 8, AT_DATA, 4096), BLK_S_OK);
	CU_ASSERT_EQUAL(mem[AT_DATA] | mem[AT_DATA + 4095], 0);
	/* Outside the disk, half sectors, unknown types: an error, and it goes on. */
	CU_ASSERT_EQUAL(request(BLK_T_IN, DISK / 512, AT_DATA, 512), BLK_S_IOERR);
	CU_ASSERT_EQUAL(request(BLK_T_IN, UINT64_MAX / 512, AT_DATA, 512), BLK_S_IOERR);
	CU_ASSERT_EQUAL(request(BLK_T_OUT, 0, AT_DATA, 100), BLK_S_IOERR);
	/* More than its segments were offered to have: all of a reactor would wait for as much as it likes. */
	times = TIMES_MAX;
	CU_ASSERT_EQUAL(request(BLK_T_IN, 0, AT_DATA, 4 * MIB), BLK_S_IOERR);
	CU_ASSERT_EQUAL(request(BLK_T_IN, 0, AT_DATA, 4096), BLK_S_OK);
	times = 1;
	CU_ASSERT_EQUAL(request(77, 0, 0, 0), BLK_S_UNSUPP);
	CU_ASSERT_EQUAL(request(BLK_T_DISCARD, 0, AT_DATA, 5), BLK_S_IOERR);
	CU_ASSERT_EQUAL(atomic_load(&starts), 1);
	front_free();
	device_free();
	CU_ASSERT_EQUAL(atomic_load(&closes), 1);
}

static void requests_of_every_type_on_a_split_ring(void)
{
	packed = false;
	all_requests();
}

static void requests_of_every_type_on_a_packed_ring(void)
{
	packed = true;
	all_requests();
}

/* QEMU stops rings when a guest pauses and starts them where they were. */
static void ring_goes_on_where_it_stopped(void)
{
	struct vring_state_wire s = { 0, 0 };

	for (int format = 0; format < 2; format++) {
		packed = format;
		device_make();
		front_start();
		for (int i = 0; i < 3; i++)
			CU_ASSERT_EQUAL(request(BLK_T_OUT, 0, AT_DATA, 512), BLK_S_OK);
		send_msg(VHU_GET_VRING_BASE, 0, &s, sizeof(s), -1);
		CU_ASSERT_EQUAL(receive(&s, sizeof(s), NULL), sizeof(s));
		CU_ASSERT_EQUAL(s.num, packed ? 0x80038003u : 3);
		CU_ASSERT_EQUAL(atomic_load(&stops), 1);
		front_ring(s.num);
		CU_ASSERT_EQUAL(request(BLK_T_IN, 0, AT_DATA, 512), BLK_S_OK);
		CU_ASSERT_EQUAL(atomic_load(&starts), 2);
		front_free();
		device_free();
	}
}

static void want_calls(bool wanted)
{
	struct avail_wire *a = (void *)(mem + AT_AVAIL);

	a->flags = (uint16_t)(wanted ? 0 : AVAIL_F_NO_INTERRUPT);
	a->ring[QSIZE] = wanted ? next_used : (uint16_t)(next_used + 0x4000);
}

/* Interrupts until there were @count of them, within twenty seconds each. */
static bool called(eventfd_t count)
{
	struct pollfd p = { .fd = call_fd, .events = POLLIN };
	eventfd_t n, all = 0;

	while (all < count && poll(&p, 1, 20000) == 1 && !eventfd_read(call_fd, &n))
		all += n;
	return all >= count;
}

static void request_without_kick(void)
{
	eventfd_t n;

	queue_request(BLK_T_GET_ID, 0, AT_DATA, 20);
	eventfd_read(kick_fd, &n);
}

static void wait_used(void)
{
	while (!was_used())
		sched_yield();
	next_used++;
}

/*
 * A driver that has kicked once kicks no more until it is asked to, and one whose interrupt is owed sees
 * none to be missing: what is lost around a start is lost for ever, and the guest hangs.  So a ring that
 * starts is looked at without a kick, its first batch is announced whatever the driver wants, a
 * call descriptor that comes late is signalled for what came before it, and so is what a ring that was
 * disabled was kicked for.
 */
static void a_ring_that_starts_misses_nothing(void)
{
	struct vring_state_wire on = { 0, 1 }, off = { 0, 0 };

	packed = false;
	for (int i = 0; i < 2; i++) {
		event_idx = i;
		device_make();
		front_connect();
		front_memory();
		front_features();
		CU_ASSERT_EQUAL(share_memory(), 0);
		want_calls(false);
		request_without_kick();
		front_ring(0);
		wait_used();
		CU_ASSERT_TRUE(called(2));	/* the descriptor was tried, and then the batch */

		want_calls(true);
		CU_ASSERT_EQUAL(tell_u64(VHU_SET_VRING_CALL, VHU_VRING_NOFD, -1), 0);
		queue_request(BLK_T_GET_ID, 0, AT_DATA, 20);
		wait_used();
		CU_ASSERT_EQUAL(tell_u64(VHU_SET_VRING_CALL, 0, call_fd), 0);
		CU_ASSERT_TRUE(called(1));

		CU_ASSERT_EQUAL(tell(VHU_SET_VRING_ENABLE, &off, sizeof(off), -1), 0);
		queue_request(BLK_T_GET_ID, 0, AT_DATA, 20);
		CU_ASSERT_EQUAL(ask_u64(VHU_GET_QUEUE_NUM), 16);
		CU_ASSERT_FALSE(was_used());
		want_calls(true);
		CU_ASSERT_EQUAL(tell(VHU_SET_VRING_ENABLE, &on, sizeof(on), -1), 0);
		CU_ASSERT_TRUE(called(1));
		wait_used();
		front_free();
		device_free();
	}
	event_idx = false;
}

static bool cut_off(void)
{
	char c;

	return recv(sock, &c, 1, 0) == 0;
}

/* R9: each of these costs the front end its connection, and the device serves the next one. */
static void nonsense_ends_the_connection_and_nothing_else(void)
{
	struct msg_hdr_wire huge = { VHU_SET_FEATURES, VHU_VERSION, 1u << 30 };
	struct mem_reg_wire reg = { .region = { GPA, UINT64_MAX - 4096, UVA, 0 } };
	struct config_wire config = { .offset = 200, .size = 100 };
	int pipe_fds[2], fd;

	packed = false;
	device_make();
	CU_ASSERT_EQUAL_FATAL(pipe(pipe_fds), 0);
	fd = memfd_create("small", 0);
	for (int i = 0; i < 6; i++) {
		front_connect();
		if (i == 0)
			CU_ASSERT_EQUAL(send(sock, &huge, sizeof(huge), 0), sizeof(huge));
		if (i == 1)
			send_msg(9999, 0, NULL, 0, -1);
		if (i == 2)	/* not an eventfd: its owner could make us wait */
			send_msg(VHU_SET_VRING_KICK, 0, &(uint64_t){ 0 }, 8, pipe_fds[0]);
		if (i == 3)
			send_msg(VHU_ADD_MEM_REG, 0, &reg, sizeof(reg), fd);
		if (i == 4)
			send_msg(VHU_SET_VRING_NUM, 0, &(struct vring_state_wire){ 99, 16 }, 8, -1);
		if (i == 5)
			send_msg(VHU_GET_CONFIG, 0, &config, sizeof(config), -1);
		CU_ASSERT_TRUE(cut_off());
		close(sock);
		while (atomic_load(&closes) != (unsigned int)i + 1)
			sched_yield();
		CU_ASSERT_EQUAL(closed_end, VHU_END_PROTOCOL);
	}
	close(fd);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	front_start();
	CU_ASSERT_EQUAL(request(BLK_T_IN, 0, AT_DATA, 512), BLK_S_OK);
	front_free();
	device_free();
}

/* A peer that takes its memory away must not end the process that serves the others. */
static void memory_that_shrinks_costs_only_its_owner(void)
{
	for (int format = 0; format < 2; format++) {
		packed = format;
		device_make();
		front_start();
		CU_ASSERT_EQUAL(request(BLK_T_IN, 0, AT_DATA, 512), BLK_S_OK);
		CU_ASSERT_EQUAL(ftruncate(mem_fd, 0), 0);
		CU_ASSERT_EQUAL(eventfd_write(kick_fd, 1), 0);
		CU_ASSERT_TRUE(cut_off());
		front_free();
		while (atomic_load(&closes) != 1)
			sched_yield();
		front_start();
		CU_ASSERT_EQUAL(request(BLK_T_IN, 0, AT_DATA, 512), BLK_S_OK);
		front_free();
		device_free();
	}
}

static void refused_start_reads_no_descriptor(void)
{
	packed = false;
	device_make();
	start_err = -EBUSY;
	front_connect();
	front_memory();
	front_features();
	CU_ASSERT_EQUAL(share_memory(), 0);
	queue_request(BLK_T_GET_ID, 0, AT_DATA, 20);
	send_msg(VHU_SET_VRING_NUM, 0, &(struct vring_state_wire){ 0, QSIZE }, 8, -1);
	send_msg(VHU_SET_VRING_ADDR, 0, &(struct vring_addr_wire){ .desc = UVA + AT_DESC,
		 .avail = UVA + AT_AVAIL, .used = UVA + AT_USED }, 40, -1);
	send_msg(VHU_SET_VRING_ENABLE, 0, &(struct vring_state_wire){ 0, 1 }, 8, -1);
	send_msg(VHU_SET_VRING_KICK, 0, &(uint64_t){ 0 }, 8, kick_fd);
	CU_ASSERT_TRUE(cut_off());
	while (!atomic_load(&closes))
		sched_yield();
	CU_ASSERT_EQUAL(closed_end, VHU_END_REFUSED);
	CU_ASSERT_EQUAL(mem[AT_STATUS], 0xff);
	front_free();
	device_free();
}

/* A front end that has got an area and has not said so yet; maps it. */
static void *area_get(struct inflight_wire *w, int *fd)
{
	void *area;

	front_connect();
	front_memory();
	front_features();
	CU_ASSERT_EQUAL(share_memory(), 0);
	*w = (struct inflight_wire){ .queue_count = 1, .queue_size = QSIZE };
	send_msg(VHU_GET_INFLIGHT_FD, 0, w, sizeof(*w), -1);
	CU_ASSERT_EQUAL(receive(w, sizeof(*w), fd), sizeof(*w));
	CU_ASSERT_FATAL(*fd >= 0 && w->mmap_size >= 16 + 16 * QSIZE);
	area = mmap(NULL, w->mmap_size, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	CU_ASSERT_PTR_NOT_EQUAL_FATAL(area, MAP_FAILED);
	return area;
}

/* The end of a test that began with area_get(). */
static void area_put(void *area, const struct inflight_wire *w, int fd)
{
	munmap(area, w->mmap_size);
	close(fd);
	front_free();
	device_free();
}

/*
 * The back end died with a request under way: the area says so, the ring does not.  Here the
 * test plays the one that died, and writes the area as it leaves it.
 */
static void request_of_before_a_restart_is_completed(void)
{
	struct inflight_wire w;
	struct inflight_split *s;
	int fd = -1;

	packed = false;
	device_make();
	s = area_get(&w, &fd);
	/* Taken as the first of the ring, not given back. */
	queue_request(BLK_T_GET_ID, 0, AT_DATA, 20);
	s->version = 1;
	s->desc_num = QSIZE;
	s->desc[0].inflight = 1;
	s->desc[0].counter = 5;
	CU_ASSERT_EQUAL(tell(VHU_SET_INFLIGHT_FD, &w, sizeof(w), fd), 0);
	front_ring(0);
	while (!was_used())
		sched_yield();
	next_used++;
	CU_ASSERT_EQUAL(mem[AT_STATUS], BLK_S_OK);
	CU_ASSERT_EQUAL(memcmp(mem + AT_DATA, "SERIAL", 6), 0);
	/* Once: the ring's own entry of it is not taken again. */
	CU_ASSERT_EQUAL(request(BLK_T_IN, 0, AT_DATA, 512), BLK_S_OK);
	CU_ASSERT_EQUAL(((struct used_wire *)(void *)(mem + AT_USED))->idx, 2);
	reactor_call_sync(r, nothing, NULL);	/* what is given back is noted after that */
	CU_ASSERT_EQUAL(s->used_idx, 2);
	CU_ASSERT_EQUAL(s->desc[0].inflight, 0);
	area_put(s, &w, fd);
}

/* In the ring's second round; within a minute. */
static bool slot_is_given_back(unsigned int slot)
{
	struct packed_desc_wire *ring = (void *)(mem + AT_DESC);

	for (unsigned int i = 0; i < 60000; i++) {
		if (!(__atomic_load_n(&ring[slot].flags, __ATOMIC_ACQUIRE) &
		      (PACKED_F_AVAIL | PACKED_F_USED)))
			return true;
		usleep(1000);
	}
	return false;
}

/*
 * The back end died over a batch of two: the second descriptor says "used" already, the first
 * does not.  When the next one gives the first back, the driver must not believe the second,
 * whose data was not moved.  Here the second can never be done, so it stays in the ring.
 */
static void half_a_batch_of_before_a_restart_is_not_believed(void)
{
	struct packed_desc_wire *ring;
	struct inflight_packed *s;
	struct inflight_wire w;
	uint16_t flags;
	int fd = -1;

	packed = true;
	device_make();
	s = area_get(&w, &fd);
	ring = (void *)(mem + AT_DESC);
	queue_request(BLK_T_GET_ID, 0, AT_DATA, 20);
	queue_request(BLK_T_GET_ID, 0, AT_DATA, 20);
	s->version = 1;
	s->desc_num = QSIZE;
	s->free_head = s->old_free_head = 2;
	s->used_wrap_counter = s->old_used_wrap_counter = 1;
	for (uint16_t i = 2; i < QSIZE; i++)
		s->desc[i].next = (uint16_t)(i + 1);	/* the free ones */
	for (uint16_t i = 0; i < 2; i++) {
		s->desc[i] = (struct inflight_packed_desc){
			.inflight = 1, .next = i, .last = i, .num = 1, .counter = i, .id = 7,
			.flags = DESC_F_INDIRECT, .len = 48,
			.addr = i ? GPA + MEM : GPA + AT_TABLE };
	}
	ring[1].flags = PACKED_F_AVAIL | PACKED_F_USED;
	CU_ASSERT_EQUAL(tell(VHU_SET_INFLIGHT_FD, &w, sizeof(w), fd), 0);
	front_ring(0x80008000u);
	while (!was_used())
		sched_yield();
	CU_ASSERT_EQUAL(mem[AT_STATUS], BLK_S_OK);
	flags = __atomic_load_n(&ring[1].flags, __ATOMIC_ACQUIRE);
	CU_ASSERT_EQUAL(flags & (PACKED_F_AVAIL | PACKED_F_USED), PACKED_F_AVAIL);
	area_put(s, &w, fd);
}

/*
 * All of the ring was given back, and that was not noted yet: the driver has it again, and made its
 * first slot available once more.  Done twice, a request that the driver has got back would be answered
 * in the place of another.
 */
static void what_the_driver_has_got_back_is_not_done_again(void)
{
	struct packed_desc_wire *ring;
	struct inflight_packed *s;
	struct inflight_wire w;
	int fd = -1;

	packed = true;
	device_make();
	s = area_get(&w, &fd);
	ring = (void *)(mem + AT_DESC);
	s->version = 1;
	s->desc_num = QSIZE;
	s->free_head = QSIZE - 1;
	s->old_free_head = QSIZE;
	s->old_used_wrap_counter = 1;
	for (uint16_t i = 0; i < QSIZE; i++) {
		s->desc[i] = (struct inflight_packed_desc){
			.inflight = 1, .next = (uint16_t)(i ? i - 1u : QSIZE), .last = i, .num = 1,
			.counter = i, .id = 7, .flags = DESC_F_INDIRECT, .len = 48,
			.addr = GPA + AT_TABLE };
		ring[i].flags = PACKED_F_AVAIL | PACKED_F_USED;
	}
	wrap = false;
	queue_request(BLK_T_GET_ID, 0, AT_DATA, 20);
	CU_ASSERT_EQUAL(tell(VHU_SET_INFLIGHT_FD, &w, sizeof(w), fd), 0);
	front_ring(0);
	CU_ASSERT_TRUE(slot_is_given_back(0));
	CU_ASSERT_EQUAL(mem[AT_STATUS], BLK_S_OK);
	for (uint16_t i = 1; i < QSIZE; i++)
		CU_ASSERT_EQUAL(ring[i].flags, PACKED_F_AVAIL | PACKED_F_USED);
	area_put(s, &w, fd);
}

/* It died while it noted a batch that went around the end: the counter is the new one, the index old. */
static void half_a_note_around_the_end_counts(void)
{
	struct packed_desc_wire *ring;
	struct inflight_packed *s;
	struct inflight_wire w;
	int fd = -1;

	packed = true;
	device_make();
	s = area_get(&w, &fd);
	ring = (void *)(mem + AT_DESC);
	s->version = 1;
	s->desc_num = QSIZE;
	s->used_idx = 2;
	s->old_used_idx = QSIZE - 2;
	for (uint16_t i = 0; i < QSIZE; i++) {
		s->desc[i].next = (uint16_t)(i + 1);
		ring[i].flags = i < 2 ? 0 : PACKED_F_AVAIL | PACKED_F_USED;
	}
	next_avail = 2;
	wrap = false;
	queue_request(BLK_T_GET_ID, 0, AT_DATA, 20);
	CU_ASSERT_EQUAL(tell(VHU_SET_INFLIGHT_FD, &w, sizeof(w), fd), 0);
	front_ring(0);
	CU_ASSERT_TRUE(slot_is_given_back(2));
	CU_ASSERT_EQUAL(mem[AT_STATUS], BLK_S_OK);
	area_put(s, &w, fd);
}

UNIT_MAIN("vhost/vhu",
	  UNIT_TEST(requests_of_every_type_on_a_split_ring),
	  UNIT_TEST(requests_of_every_type_on_a_packed_ring),
	  UNIT_TEST(ring_goes_on_where_it_stopped),
	  UNIT_TEST(a_ring_that_starts_misses_nothing),
	  UNIT_TEST(nonsense_ends_the_connection_and_nothing_else),
	  UNIT_TEST(memory_that_shrinks_costs_only_its_owner),
	  UNIT_TEST(refused_start_reads_no_descriptor),
	  UNIT_TEST(request_of_before_a_restart_is_completed),
	  UNIT_TEST(half_a_batch_of_before_a_restart_is_not_believed),
	  UNIT_TEST(what_the_driver_has_got_back_is_not_done_again),
	  UNIT_TEST(half_a_note_around_the_end_counts));
