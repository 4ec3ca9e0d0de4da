// SPDX-License-Identifier: Apache-2.0
/* Persistent reservations: who may do what, what fencing rests on, what outlives a kill. */
#include "tests/iscsi/scsi_rig.h"
#include "iscsi/scsi_pr.h"

#define MSEC	NSEC_PER_MSEC

enum { REGISTER = 0, RESERVE = 1, RELEASE = 2, CLEAR = 3, PREEMPT = 4, PREEMPT_ABORT = 5,
       IGNORE = 6, MOVE = 7, APTPL = 1 };

static struct said pr_in(struct rig *rig, unsigned int nexus, uint8_t action, uint8_t *d)
{
	uint8_t cdb[10] = { 0x5e, action, 0, 0, 0, 0, 0, 0x40 };

	return rig_do(rig, nexus, 0, cdb, 10, NULL, 0, d, 0x4000);
}

static unsigned int key_count(struct rig *rig)
{
	uint8_t d[0x4000] = { 0 };

	CU_ASSERT_EQUAL(pr_in(rig, 2, 0, d).status, SCSI_GOOD);
	return get_be32(d + 4) / 8;
}

/* The type in force, 0: none. */
static uint8_t type_held(struct rig *rig, uint64_t *key)
{
	uint8_t d[0x4000] = { 0 };

	CU_ASSERT_EQUAL(pr_in(rig, 2, 1, d).status, SCSI_GOOD);
	if (key)
		*key = get_be64(d + 8);
	return get_be32(d + 4) ? d[21] : 0;
}

/* ---- what each type denies ---- */

static void types_body(struct rig *rig)
{
	/* Nexus 0 holds, 1 is registered, 2 is not: may 1 write, may 1 read, 2 write, 2 read. */
	static const struct { uint8_t type; bool w1, r1, w2, r2; } types[] = {
		{ 1, false, true, false, true }, { 3, false, false, false, false },
		{ 5, true, true, false, true }, { 6, true, true, false, false },
		{ 7, true, true, false, true }, { 8, true, true, false, false },
	};
	uint8_t got[4096];

	rig_clear_ua(rig);
	for (unsigned int i = 0; i < ARRAY_SIZE(types); i++) {
		uint8_t t = types[i].type;

		CU_ASSERT_EQUAL(rig_pr_out(rig, 0, REGISTER, 0, 0, 10, 0).status, SCSI_GOOD);
		CU_ASSERT_EQUAL(rig_pr_out(rig, 1, REGISTER, 0, 0, 11, 0).status, SCSI_GOOD);
		CU_ASSERT_EQUAL(rig_pr_out(rig, 0, RESERVE, t, 10, 0, 0).status, SCSI_GOOD);
		CU_ASSERT_EQUAL(type_held(rig, NULL), t);
		CU_ASSERT_EQUAL(rig_write(rig, 0, 0, 1, 'h').status, SCSI_GOOD);
		CU_ASSERT_EQUAL(rig_write(rig, 1, 0, 1, 'r').status == SCSI_GOOD, types[i].w1);
		CU_ASSERT_EQUAL(rig_read(rig, 1, 0, 1, got).status == SCSI_GOOD, types[i].r1);
		CU_ASSERT_EQUAL(rig_write(rig, 2, 0, 1, 'n').status == SCSI_GOOD, types[i].w2);
		CU_ASSERT_EQUAL(rig_read(rig, 2, 0, 1, got).status == SCSI_GOOD, types[i].r2);
		/* Everybody may look at the unit. */
		CU_ASSERT_EQUAL(rig_do(rig, 2, 0, CDB(0), NULL, 0, NULL, 0).status, SCSI_GOOD);
		CU_ASSERT_EQUAL(rig_pr_out(rig, 0, RELEASE, (uint8_t)(t == 1 ? 3 : 1), 10, 0,
					   0).sense, SENSE(KEY_ILLEGAL_REQUEST,
							   ASC_INVALID_RELEASE));
		CU_ASSERT_EQUAL(rig_pr_out(rig, 0, RELEASE, t, 10, 0, 0).status, SCSI_GOOD);
		CU_ASSERT_EQUAL(rig_do(rig, 1, 0, CDB(0), NULL, 0, NULL, 0).sense, t < 5 ? 0 :
				SENSE(KEY_UNIT_ATTENTION, ASC_RESERVATIONS_RELEASED));
		CU_ASSERT_EQUAL(rig_write(rig, 2, 0, 1, 'n').status, SCSI_GOOD);
		CU_ASSERT_EQUAL(rig_pr_out(rig, 0, CLEAR, 0, 10, 0, 0).status, SCSI_GOOD);
		CU_ASSERT_EQUAL(rig_do(rig, 1, 0, CDB(0), NULL, 0, NULL, 0).sense,
				SENSE(KEY_UNIT_ATTENTION, ASC_RESERVATIONS_PREEMPTED));
		CU_ASSERT_EQUAL(key_count(rig), 0);
	}
}

static void types_deny_what_the_standard_says(void)
{
	rig_run(types_body);
}

/* ---- keys ---- */

static void keys_body(struct rig *rig)
{
	uint64_t key;

	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(rig_pr_out(rig, 0, RESERVE, 5, 1, 0, 0).status, SCSI_RESERVATION_CONFLICT);
	CU_ASSERT_EQUAL(rig_pr_out(rig, 0, REGISTER, 0, 5, 1, 0).status, SCSI_RESERVATION_CONFLICT);
	CU_ASSERT_EQUAL(rig_pr_out(rig, 0, REGISTER, 0, 0, 1, 0).status, SCSI_GOOD);
	CU_ASSERT_EQUAL(rig_pr_out(rig, 0, REGISTER, 0, 2, 3, 0).status, SCSI_RESERVATION_CONFLICT);
	CU_ASSERT_EQUAL(rig_pr_out(rig, 0, REGISTER, 0, 1, 3, 0).status, SCSI_GOOD);
	CU_ASSERT_EQUAL(rig_pr_out(rig, 0, IGNORE, 0, 99, 4, 0).status, SCSI_GOOD);
	CU_ASSERT_EQUAL(rig_pr_out(rig, 0, RESERVE, 3, 3, 0, 0).status, SCSI_RESERVATION_CONFLICT);
	CU_ASSERT_EQUAL(rig_pr_out(rig, 0, RESERVE, 3, 4, 0, 0).status, SCSI_GOOD);
	CU_ASSERT_EQUAL(rig_pr_out(rig, 0, RESERVE, 3, 4, 0, 0).status, SCSI_GOOD);
	CU_ASSERT_EQUAL(rig_pr_out(rig, 0, RESERVE, 1, 4, 0, 0).status, SCSI_RESERVATION_CONFLICT);
	CU_ASSERT_EQUAL(rig_pr_out(rig, 0, RESERVE, 2, 4, 0, 0).sense,
			SENSE(KEY_ILLEGAL_REQUEST, ASC_INVALID_FIELD_IN_CDB));
	CU_ASSERT_EQUAL(type_held(rig, &key), 3);
	CU_ASSERT_EQUAL(key, 4);
	/* Its registration gone, the reservation is gone. */
	CU_ASSERT_EQUAL(rig_pr_out(rig, 0, REGISTER, 0, 4, 0, 0).status, SCSI_GOOD);
	CU_ASSERT_EQUAL(type_held(rig, NULL), 0);
	CU_ASSERT_EQUAL(key_count(rig), 0);
}

static void keys_are_checked(void)
{
	rig_run(keys_body);
}

/* ---- fencing: R3 ---- */

/*
 * The dead host's write is at the device, another waits for its data, a third behind a CAW.
 * After PREEMPT AND ABORT is answered none of them may change a block.
 */
static void fence_body(struct rig *rig)
{
	struct simdisk_rule rule = { .fault = SIMDISK_DELAY, .ops = 1u << BLK_WRITE, .count = 1,
				     .delay_ns = 700 * MSEC };
	struct rig_cmd *running, *held;
	struct said s;

	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(rig_pr_out(rig, 0, REGISTER, 0, 0, 10, 0).status, SCSI_GOOD);
	CU_ASSERT_EQUAL(rig_pr_out(rig, 1, REGISTER, 0, 0, 11, 0).status, SCSI_GOOD);
	CU_ASSERT_EQUAL(rig_pr_out(rig, 1, RESERVE, 7, 11, 0, 0).status, SCSI_GOOD);
	simdisk_inject(rig->disks[0], &rule);
	running = rig_send_write(rig, 1, 1, 3, 1, 'd');
	held = rig_send(rig, 1, 0, 1, CDB(0x2a, 0, 0, 0, 0, 4, 0, 0, 1, 0), running->buf, rig->bs,
			0, true);
	rig_sleep(rig, MSEC);
	CU_ASSERT_FALSE(running->done);
	CU_ASSERT_EQUAL(rig_pr_out(rig, 0, PREEMPT_ABORT, 7, 10, 11, 0).status, SCSI_GOOD);
	CU_ASSERT_TRUE(running->done);
	CU_ASSERT_FALSE(simdisk_is_busy(rig->disks[0], rig->env));
	s = rig_end(running, NULL);
	CU_ASSERT_TRUE(s.aborted || s.status == SCSI_TASK_ABORTED);
	CU_ASSERT_EQUAL(rig_write(rig, 0, 3, 2, 'n').status, SCSI_GOOD);
	reactor_post(rig->reactors[1], &held->call);
	s = rig_end(held, NULL);
	CU_ASSERT_TRUE(s.aborted || s.status == SCSI_TASK_ABORTED);
	CU_ASSERT_EQUAL(rig_write(rig, 1, 3, 1, 'd').sense,
			SENSE(KEY_UNIT_ATTENTION, ASC_REGISTRATIONS_PREEMPTED));
	CU_ASSERT_EQUAL(rig_write(rig, 1, 3, 1, 'd').status, SCSI_RESERVATION_CONFLICT);
	rig_sleep(rig, 5000 * MSEC);
	CU_ASSERT_TRUE(rig_has(rig, 0, 3, 2, 'n'));
	CU_ASSERT_EQUAL(type_held(rig, NULL), 7);
	CU_ASSERT_EQUAL(key_count(rig), 1);
}

static void preempted_host_writes_no_more(void)
{
	rig_run(fence_body);
	for (uint64_t seed = 30; seed < 36; seed++)
		rig_run_seed(fence_body, 512, &rig_thin, seed);
}

/*
 * The same under load: the victim writes its letter all the time from both reactors.  What
 * the preemptor writes after its PREEMPT AND ABORT was answered stays.
 */
static void fence_load_body(struct rig *rig)
{
	struct rig_cmd *c[64];

	rig_clear_ua(rig);
	for (unsigned int round = 0; round < 8; round++) {
		CU_ASSERT_EQUAL(rig_pr_out(rig, 0, IGNORE, 0, 0, 10, 0).status, SCSI_GOOD);
		CU_ASSERT_EQUAL(rig_pr_out(rig, 1, IGNORE, 0, 0, 11, 0).status, SCSI_GOOD);
		if (!round)
			CU_ASSERT_EQUAL(rig_pr_out(rig, 0, RESERVE, 7, 10, 0, 0).status, SCSI_GOOD);
		for (unsigned int i = 0; i < ARRAY_SIZE(c); i++)
			c[i] = rig_send_write(rig, 1, i % RIG_REACTORS, i % 4, 2, 'v');
		rig_sleep(rig, (round + 1) * 7000);
		CU_ASSERT_EQUAL(rig_pr_out(rig, 0, PREEMPT_ABORT, 7, 10, 11, 0).status, SCSI_GOOD);
		CU_ASSERT_EQUAL(rig_write(rig, 0, 0, 6, 'p').status, SCSI_GOOD);
		for (unsigned int i = 0; i < ARRAY_SIZE(c); i++)
			rig_end(c[i], NULL);
		CU_ASSERT_TRUE(rig_has(rig, 0, 0, 6, 'p'));
		while (rig_do(rig, 1, 0, CDB(0), NULL, 0, NULL, 0).status)
			;
	}
}

static void preempt_and_abort_holds_under_load(void)
{
	for (uint64_t seed = 40; seed < 48; seed++)
		rig_run_seed(fence_load_body, 512, &rig_thin, seed);
}

/* Two hosts preempt each other at once: one of them stays, never none, never both. */
static void duel_body(struct rig *rig)
{
	rig_clear_ua(rig);
	for (unsigned int round = 0; round < 10; round++) {
		struct rig_cmd *a, *b;
		uint8_t cdb[10] = { 0x5f, PREEMPT_ABORT, 7, 0, 0, 0, 0, 0, 24 };
		uint8_t x[24] = { 0 }, y[24] = { 0 };
		int good;

		CU_ASSERT_EQUAL(rig_pr_out(rig, 0, IGNORE, 0, 0, 10, 0).status, SCSI_GOOD);
		CU_ASSERT_EQUAL(rig_pr_out(rig, 1, IGNORE, 0, 0, 11, 0).status, SCSI_GOOD);
		rig_pr_out(rig, 0, RESERVE, 7, 10, 0, 0);
		x[7] = 10;
		x[15] = 11;
		y[7] = 11;
		y[15] = 10;
		a = rig_send(rig, 0, 0, 0, cdb, 10, x, 24, 0, false);
		b = rig_send(rig, 1, 0, 1, cdb, 10, y, 24, 0, false);
		good = (rig_end(a, NULL).status == SCSI_GOOD) + (rig_end(b, NULL).status == SCSI_GOOD);
		CU_ASSERT_EQUAL(good, 1);
		CU_ASSERT_EQUAL(key_count(rig), 1);
		CU_ASSERT_EQUAL(type_held(rig, NULL), 7);
		for (unsigned int n = 0; n < 2; n++)
			while (rig_do(rig, n, 0, CDB(0), NULL, 0, NULL, 0).status)
				;
	}
}

static void of_two_that_preempt_one_stays(void)
{
	for (uint64_t seed = 50; seed < 55; seed++)
		rig_run_seed(duel_body, 512, &rig_thin, seed);
}

/* ---- through power loss ---- */

static void restart(struct rig *rig)
{
	rig_stop(rig);
	rig_start(rig);
	rig_clear_ua(rig);
}

static void aptpl_body(struct rig *rig)
{
	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(rig_pr_out(rig, 0, REGISTER, 0, 0, 10, APTPL).status, SCSI_GOOD);
	CU_ASSERT_EQUAL(rig_pr_out(rig, 1, REGISTER, 0, 0, 11, APTPL).status, SCSI_GOOD);
	CU_ASSERT_EQUAL(rig_pr_out(rig, 0, RESERVE, 7, 10, 0, 0).status, SCSI_GOOD);
	restart(rig);
	CU_ASSERT_EQUAL(type_held(rig, NULL), 7);
	CU_ASSERT_EQUAL(key_count(rig), 2);
	CU_ASSERT_EQUAL(rig_write(rig, 1, 0, 1, 'x').status, SCSI_GOOD);
	CU_ASSERT_EQUAL(rig_write(rig, 2, 0, 1, 'x').status, SCSI_RESERVATION_CONFLICT);
	/* A host that was fenced stays fenced. */
	CU_ASSERT_EQUAL(rig_pr_out(rig, 0, PREEMPT_ABORT, 7, 10, 11, 0).status, SCSI_GOOD);
	restart(rig);
	CU_ASSERT_EQUAL(key_count(rig), 1);
	CU_ASSERT_EQUAL(rig_write(rig, 1, 0, 1, 'x').status, SCSI_RESERVATION_CONFLICT);
	/* Without APTPL nothing stays, the old state included. */
	CU_ASSERT_EQUAL(rig_pr_out(rig, 0, REGISTER, 0, 10, 12, 0).status, SCSI_GOOD);
	restart(rig);
	CU_ASSERT_EQUAL(key_count(rig), 0);
	CU_ASSERT_EQUAL(type_held(rig, NULL), 0);
}

static void reservations_with_aptpl_survive(void)
{
	rig_run(aptpl_body);
}

/* A slot torn at any byte: the older one counts; both torn: the unit is not offered. */
static void torn_body(struct rig *rig)
{
	int fd = rig->state_fd[0];
	uint8_t junk[64];

	memset(junk, 0x5a, sizeof(junk));
	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(rig_pr_out(rig, 0, REGISTER, 0, 0, 10, APTPL).status, SCSI_GOOD);
	CU_ASSERT_EQUAL(rig_pr_out(rig, 1, REGISTER, 0, 0, 11, APTPL).status, SCSI_GOOD);
	rig_stop(rig);
	/* The first went to slot 0, the second to slot 1. */
	CU_ASSERT_EQUAL(pwrite(fd, junk, sizeof(junk), SCSI_STATE_SLOT + 4200), sizeof(junk));
	rig_start(rig);
	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(key_count(rig), 1);
	/* What comes next replaces the torn one, not the good one. */
	CU_ASSERT_EQUAL(rig_pr_out(rig, 1, REGISTER, 0, 0, 12, APTPL).status, SCSI_GOOD);
	restart(rig);
	CU_ASSERT_EQUAL(key_count(rig), 2);
	rig_stop(rig);
	CU_ASSERT_EQUAL(pwrite(fd, junk, sizeof(junk), 100), sizeof(junk));
	CU_ASSERT_EQUAL(pwrite(fd, junk, sizeof(junk), SCSI_STATE_SLOT + 100), sizeof(junk));
	CU_ASSERT_EQUAL(scsi_target_create(rig->env, "iqn.2026-01.test:target", rig->reactors,
					   RIG_REACTORS, &rig->target), 0);
	CU_ASSERT_EQUAL(rig_add_lun(rig, 0), -EUCLEAN);
	scsi_target_destroy(rig->target);
	CU_ASSERT_EQUAL(ftruncate(fd, 0), 0);
	rig_start(rig);
}

static void torn_state_is_not_believed(void)
{
	rig_run_seed(torn_body, 512, &rig_thin, 60);
}

/* Where nothing can persist, APTPL is refused instead of forgotten. */
static void no_state_body(struct rig *rig)
{
	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(rig_pr_out(rig, 0, REGISTER, 0, 0, 10, APTPL).sense,
			SENSE(KEY_ILLEGAL_REQUEST, ASC_INVALID_FIELD_IN_PARAMS));
	CU_ASSERT_EQUAL(rig_pr_out(rig, 0, REGISTER, 0, 0, 10, 0).status, SCSI_GOOD);
}

static void aptpl_without_state_file_is_refused(void)
{
	rig_run_seed(no_state_body, 512, &rig_thick, 61);
}

/* ---- the rest of PERSISTENT RESERVE OUT ---- */

static size_t transport_id(uint8_t *d, unsigned int nexus)
{
	struct scsi_pr_reg reg = { .isid = { 0x80, 0, 0, 0, 0, (uint8_t)nexus } };

	snprintf(reg.name, sizeof(reg.name), "iqn.2026-01.test:host%u", nexus);
	return transport_id_encode(&reg, d);
}

static void move_body(struct rig *rig)
{
	uint8_t cdb[10] = { 0x5f, MOVE, 0 }, list[24 + 4 + SCSI_NAME_MAX + 24] = { 0 };
	uint8_t full[0x4000];
	uint64_t key;
	size_t id;

	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(rig_pr_out(rig, 0, REGISTER, 0, 0, 10, 0).status, SCSI_GOOD);
	CU_ASSERT_EQUAL(rig_pr_out(rig, 0, RESERVE, 1, 10, 0, 0).status, SCSI_GOOD);
	put_be64(list, 10);
	put_be64(list + 8, 22);
	list[17] = 0x02;	/* UNREG */
	list[19] = 1;
	id = transport_id(list + 24, 1);
	put_be32(list + 20, id);
	put_be32(cdb + 5, 24 + id);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, cdb, 10, list, (uint32_t)(24 + id), NULL, 0).status,
			SCSI_GOOD);
	CU_ASSERT_EQUAL(type_held(rig, &key), 1);
	CU_ASSERT_EQUAL(key, 22);
	CU_ASSERT_EQUAL(rig_write(rig, 1, 0, 1, 'm').status, SCSI_GOOD);
	CU_ASSERT_EQUAL(rig_write(rig, 0, 0, 1, 'm').status, SCSI_RESERVATION_CONFLICT);
	memset(full, 0, sizeof(full));
	CU_ASSERT_EQUAL(pr_in(rig, 2, 3, full).status, SCSI_GOOD);
	CU_ASSERT_EQUAL(full[8 + 12] & 1, 1);
	CU_ASSERT_EQUAL(full[8 + 13], 1);
	CU_ASSERT_STRING_EQUAL((char *)full + 8 + 24 + 4,
			       "iqn.2026-01.test:host1,i,0x800000000001");
}

static void reservations_can_be_moved(void)
{
	rig_run(move_body);
}

static void spec_body(struct rig *rig)
{
	uint8_t cdb[10] = { 0x5f, REGISTER, 0 }, list[28 + 2 * 300] = { 0 };
	size_t len = 28;

	rig_clear_ua(rig);
	put_be64(list + 8, 33);
	list[20] = 0x08;
	len += transport_id(list + len, 1);
	len += transport_id(list + len, 2);
	put_be32(list + 24, len - 28);
	put_be32(cdb + 5, len);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, cdb, 10, list, (uint32_t)len, NULL, 0).status, SCSI_GOOD);
	CU_ASSERT_EQUAL(key_count(rig), 3);
	CU_ASSERT_EQUAL(rig_pr_out(rig, 2, RESERVE, 7, 33, 0, 0).status, SCSI_GOOD);
	/* A list that names somebody twice changes nothing at all. */
	CU_ASSERT_EQUAL(rig_pr_out(rig, 2, CLEAR, 0, 33, 0, 0).status, SCSI_GOOD);
	transport_id(list + 28, 1);
	transport_id(list + 28 + (len - 28) / 2, 1);
	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, cdb, 10, list, (uint32_t)len, NULL, 0).status,
			SCSI_CHECK_CONDITION);
	CU_ASSERT_EQUAL(key_count(rig), 0);
}

static void others_can_be_registered(void)
{
	rig_run(spec_body);
}

/* ALL_TG_PT: the registration holds through every target port, now and later. */
static void all_ports_body(struct rig *rig)
{
	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(rig_pr_out(rig, 0, REGISTER, 0, 0, 10, 0x04).status, SCSI_GOOD);
	CU_ASSERT_EQUAL(rig_pr_out(rig, 0, RESERVE, 5, 10, 0, 0).status, SCSI_GOOD);
	scsi_nexus_close(rig->nexus[0]);
	rig_open_nexus(rig, 0, 2);
	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(rig_write(rig, 0, 0, 1, 'p').status, SCSI_GOOD);
	CU_ASSERT_EQUAL(rig_pr_out(rig, 0, RELEASE, 5, 10, 0, 0).status, SCSI_GOOD);
	/* Without it, it does not. */
	CU_ASSERT_EQUAL(rig_pr_out(rig, 1, REGISTER, 0, 0, 11, 0).status, SCSI_GOOD);
	scsi_nexus_close(rig->nexus[1]);
	rig_open_nexus(rig, 1, 2);
	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(rig_pr_out(rig, 1, RESERVE, 5, 11, 0, 0).status, SCSI_RESERVATION_CONFLICT);
}

static void registrations_know_their_ports(void)
{
	rig_run(all_ports_body);
}

/* RESERVE(6), and what it means beside persistent reservations. */
static void reserve_body(struct rig *rig)
{
	uint8_t got[4096];

	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, CDB(0x16, 0, 0, 0, 0, 0), NULL, 0, NULL, 0).status,
			SCSI_GOOD);
	CU_ASSERT_EQUAL(rig_read(rig, 1, 0, 1, got).status, SCSI_RESERVATION_CONFLICT);
	CU_ASSERT_EQUAL(rig_do(rig, 1, 0, CDB(0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0), NULL, 0, NULL,
			       0).status, SCSI_RESERVATION_CONFLICT);
	CU_ASSERT_EQUAL(rig_do(rig, 1, 0, CDB(0x17, 0, 0, 0, 0, 0), NULL, 0, NULL, 0).status,
			SCSI_GOOD);
	CU_ASSERT_EQUAL(rig_read(rig, 1, 0, 1, got).status, SCSI_RESERVATION_CONFLICT);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, CDB(0x17, 0, 0, 0, 0, 0), NULL, 0, NULL, 0).status,
			SCSI_GOOD);
	CU_ASSERT_EQUAL(rig_read(rig, 1, 0, 1, got).status, SCSI_GOOD);
	/* It ends with its nexus. */
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, CDB(0x16, 0, 0, 0, 0, 0), NULL, 0, NULL, 0).status,
			SCSI_GOOD);
	scsi_nexus_close(rig->nexus[0]);
	rig_open_nexus(rig, 0, 1);
	CU_ASSERT_EQUAL(rig_read(rig, 1, 0, 1, got).status, SCSI_GOOD);
	rig_clear_ua(rig);
	CU_ASSERT_EQUAL(rig_pr_out(rig, 0, REGISTER, 0, 0, 10, 0).status, SCSI_GOOD);
	CU_ASSERT_EQUAL(rig_do(rig, 1, 0, CDB(0x16, 0, 0, 0, 0, 0), NULL, 0, NULL, 0).status,
			SCSI_RESERVATION_CONFLICT);
	CU_ASSERT_EQUAL(rig_do(rig, 0, 0, CDB(0x16, 0, 0, 0, 0, 0), NULL, 0, NULL, 0).status,
			SCSI_GOOD);
	CU_ASSERT_EQUAL(rig_read(rig, 1, 0, 1, got).status, SCSI_GOOD);
}

static void reserve_and_release(void)
{
	rig_run(reserve_body);
}

/* What a foreign initiator calls itself. */
static void transport_ids(void)
{
	struct scsi_pr_reg reg = { .isid = { 1, 2, 3, 4, 0xab, 6 }, .name = "iqn.2026-01.x:y" };
	uint8_t d[300];
	struct pr_port port;
	size_t len = transport_id_encode(&reg, d);

	CU_ASSERT_EQUAL(len % 4, 0);
	CU_ASSERT_EQUAL(transport_id_decode(d, len, &port), (int)len);
	CU_ASSERT_STRING_EQUAL(port.name, reg.name);
	CU_ASSERT_EQUAL(memcmp(port.isid, reg.isid, 6), 0);
	CU_ASSERT_EQUAL(transport_id_decode(d, len - 1, &port), -EINVAL);
	for (size_t i = 0; i < len; i++) {	/* never beyond its end */
		uint8_t *copy = malloc(i ? i : 1);

		CU_ASSERT_PTR_NOT_NULL_FATAL(copy);
		memcpy(copy, d, i);
		CU_ASSERT_EQUAL(transport_id_decode(copy, i, &port), -EINVAL);
		free(copy);
	}
	d[0] = 0x06;
	CU_ASSERT_EQUAL(transport_id_decode(d, len, &port), -EINVAL);
}

UNIT_MAIN("scsi_pr",
	  UNIT_TEST(types_deny_what_the_standard_says),
	  UNIT_TEST(keys_are_checked),
	  UNIT_TEST(preempted_host_writes_no_more),
	  UNIT_TEST(preempt_and_abort_holds_under_load),
	  UNIT_TEST(of_two_that_preempt_one_stays),
	  UNIT_TEST(reservations_with_aptpl_survive),
	  UNIT_TEST(torn_state_is_not_believed),
	  UNIT_TEST(aptpl_without_state_file_is_refused),
	  UNIT_TEST(reservations_can_be_moved),
	  UNIT_TEST(others_can_be_registered),
	  UNIT_TEST(registrations_know_their_ports),
	  UNIT_TEST(reserve_and_release),
	  UNIT_TEST(transport_ids));
