// SPDX-License-Identifier: Apache-2.0
/* conn*.c, session.c, task.c, tmf.c, registry.c, portal.c: the transport as initiators see it. */
#include "tests/iscsi/transport_rig.h"

static struct ini a, b, c;
static uint8_t pattern[1 << 20], got[1 << 20];

static void open_world(void)
{
	unsigned int i;

	for (i = 0; i < sizeof(pattern); i++)
		pattern[i] = (uint8_t)(i * 7 + i / 512);
	world_open();
}

/* Writes a whole command by immediate data, unsolicited data and R2Ts as @keys allow. */
static int write_blocks(struct ini *ini, uint32_t lba, uint32_t blocks, bool imm, bool unsol,
			uint32_t first, uint32_t pdu)
{
	uint32_t len = blocks * FAKE_BLOCK, at = 0, sn = 0, itt;
	uint32_t first_len = first < len ? first : len;

	if (imm)
		at = pdu < first_len ? pdu : first_len;
	unsol = unsol && at < first_len;
	itt = ini_command(ini, FAKE_OP_WRITE, (unsol ? 0 : PDU_FINAL) | PDU_CMD_WRITE, lba, blocks,
			  len, pattern, at);
	while (unsol && at < first_len) {
		uint32_t n = first_len - at < pdu ? first_len - at : pdu;

		ini_data_out(ini, itt, PDU_TAG_NONE, sn++, at, pattern, n, at + n == first_len);
		at += n;
	}
	while (ini_receive(ini) == PDU_R2T) {
		uint32_t ttt = be32_to_cpu(ini->r2t.ttt), end;

		CU_ASSERT_EQUAL(be32_to_cpu(ini->r2t.offset), at);
		end = at + be32_to_cpu(ini->r2t.desired_len);
		for (sn = 0; at < end;) {
			uint32_t n = end - at < pdu ? end - at : pdu;

			ini_data_out(ini, itt, ttt, sn++, at, pattern, n, at + n == end);
			at += n;
		}
	}
	CU_ASSERT_EQUAL(at, len);
	CU_ASSERT_EQUAL(ini->bhs.opcode, PDU_SCSI_RESPONSE);
	return ini->response.status;
}

/* What was written comes back, whichever way it went. */
static void data_survives_every_mix_of_immediate_unsolicited_and_solicited(void)
{
	static const char *const digests[] = { "", "HeaderDigest=CRC32C\nDataDigest=CRC32C\n" };
	char keys[512];
	unsigned int i;
	uint32_t len;

	open_world();
	for (i = 0; i < 16; i++) {
		bool imm = i & 1, unsol = i & 2, odd = i & 4;
		uint32_t pdu = odd ? 1532 : 8192, blocks = odd ? 97 : 256;

		snprintf(keys, sizeof(keys), "%sImmediateData=%s\nInitialR2T=%s\n"
			 "FirstBurstLength=16384\nMaxBurstLength=32768\nMaxOutstandingR2T=1\n"
			 "MaxRecvDataSegmentLength=%u\n", digests[i / 8], imm ? "Yes" : "No",
			 unsol ? "No" : "Yes", odd ? 4100u : 65536u);
		ini_log_in(&a, keys);
		memset(fake.disk, 0, 1 << 20);
		CU_ASSERT_EQUAL(write_blocks(&a, 3, blocks, imm, unsol, 16384, pdu), SCSI_GOOD);
		ini_read_blocks(&a, 3, blocks);
		CU_ASSERT_EQUAL(ini_collect(&a, got, &len), SCSI_GOOD);
		CU_ASSERT_EQUAL(len, blocks * FAKE_BLOCK);
		CU_ASSERT_EQUAL(memcmp(got, pattern, len), 0);
		ini_close(&a);
	}
	world_close();
}

/* Lengths that disagree are counted, not guessed (RFC 7143, 11.4.5). */
static void residuals_tell_what_was_too_much_and_too_little(void)
{
	uint32_t len;

	open_world();
	ini_log_in(&a, "");
	ini_command(&a, FAKE_OP_READ, PDU_FINAL | PDU_CMD_READ, 0, 4, 512, NULL, 0);
	CU_ASSERT_EQUAL(ini_collect(&a, got, &len), SCSI_GOOD);
	CU_ASSERT_EQUAL(len, 512);
	CU_ASSERT_TRUE(a.data_in.flags & PDU_RSP_OVERFLOW);
	CU_ASSERT_EQUAL(be32_to_cpu(a.data_in.residual), 3 * 512);
	ini_command(&a, FAKE_OP_READ, PDU_FINAL | PDU_CMD_READ, 0, 1, 2048, NULL, 0);
	CU_ASSERT_EQUAL(ini_collect(&a, got, &len), SCSI_GOOD);
	CU_ASSERT_TRUE(a.data_in.flags & PDU_RSP_UNDERFLOW);
	CU_ASSERT_EQUAL(be32_to_cpu(a.data_in.residual), 3 * 512);
	/* More data than the command takes is thrown away. */
	ini_command(&a, FAKE_OP_WRITE, PDU_FINAL | PDU_CMD_WRITE, 0, 1, 2048, pattern, 2048);
	CU_ASSERT_EQUAL(ini_receive(&a), PDU_SCSI_RESPONSE);
	CU_ASSERT_TRUE(a.response.flags & PDU_RSP_UNDERFLOW);
	CU_ASSERT_EQUAL(fake.disk[600], 0);
	ini_close(&a);
	world_close();
}

/* A refused command's immediate data must not be taken for the next header. */
static void refused_command_swallows_its_data(void)
{
	open_world();
	ini_log_in(&a, "");
	ini_command(&a, FAKE_OP_FAIL, PDU_FINAL | PDU_CMD_WRITE, 0, 8, 4096, pattern, 4096);
	CU_ASSERT_EQUAL(ini_receive(&a), PDU_SCSI_RESPONSE);
	CU_ASSERT_EQUAL(a.response.status, SCSI_CHECK_CONDITION);
	CU_ASSERT_EQUAL(a.data_len, 20);
	ini_command(&a, FAKE_OP_TEST, PDU_FINAL, 0, 0, 0, NULL, 0);
	CU_ASSERT_EQUAL(ini_receive(&a), PDU_SCSI_RESPONSE);
	CU_ASSERT_EQUAL(a.response.status, SCSI_GOOD);
	ini_close(&a);
	world_close();
}

/* Over two connections commands overtake each other; the device sees them by CmdSN. */
static void commands_run_by_cmd_sn_over_connections(void)
{
	uint32_t first, second;

	open_world();
	ini_log_in(&a, "MaxConnections=4\n");
	ini_join(&b, &a, 2);
	b.cmd_sn = a.cmd_sn + 1;
	b.itt = 1000;
	second = ini_command(&b, FAKE_OP_WRITE, PDU_FINAL | PDU_CMD_WRITE, 5, 2, 1024, pattern,
			     1024);
	CU_ASSERT_EQUAL(fake.begun, 0);
	CU_ASSERT_EQUAL(ini_receive(&b), -1);
	/* The same number once more is ignored, data and all. */
	b.cmd_sn--;
	ini_command(&b, FAKE_OP_WRITE, PDU_FINAL | PDU_CMD_WRITE, 9, 2, 1024, pattern, 1024);
	first = ini_command(&a, FAKE_OP_TEST, PDU_FINAL, 0, 0, 0, NULL, 0);
	CU_ASSERT_EQUAL(fake.begun, 2);
	CU_ASSERT_EQUAL(fake.order[0], first);
	CU_ASSERT_EQUAL(fake.order[1], second);
	CU_ASSERT_EQUAL(ini_receive(&a), PDU_SCSI_RESPONSE);
	CU_ASSERT_EQUAL(ini_receive(&b), PDU_SCSI_RESPONSE);
	CU_ASSERT_EQUAL(be32_to_cpu(b.bhs.itt), second);
	CU_ASSERT_EQUAL(memcmp(fake.disk + 5 * FAKE_BLOCK, pattern, 1024), 0);
	CU_ASSERT_EQUAL(fake.disk[9 * FAKE_BLOCK], 0);
	/* One of them logs out; the session goes on with the other. */
	ini_logout(&b, PDU_LOGOUT_CONNECTION, 2);
	CU_ASSERT_EQUAL(ini_receive(&b), PDU_LOGOUT_RESPONSE);
	ini_close(&b);
	a.cmd_sn = be32_to_cpu(b.reply.exp_cmd_sn);
	ini_command(&a, FAKE_OP_TEST, PDU_FINAL, 0, 0, 0, NULL, 0);
	CU_ASSERT_EQUAL(ini_receive(&a), PDU_SCSI_RESPONSE);
	ini_close(&a);
	world_close();
}

/* MaxCmdSN is a promise: it never goes back, and closes when commands_max are at work. */
static void window_closes_and_opens(void)
{
	unsigned int i;

	open_world();
	ini_log_in(&a, "");
	fake.hold = true;
	for (i = 0; i < 128; i++)
		ini_command(&a, FAKE_OP_TEST, PDU_FINAL, 0, 0, 0, NULL, 0);
	CU_ASSERT_EQUAL(fake.held_count, 128);
	ini_command(&a, FAKE_OP_TEST, PDU_FINAL, 0, 0, 0, NULL, 0);	/* outside: ignored */
	CU_ASSERT_EQUAL(fake.held_count, 128);
	fake_release();
	for (i = 0; i < 128; i++)
		CU_ASSERT_EQUAL(ini_receive(&a), PDU_SCSI_RESPONSE);
	CU_ASSERT_EQUAL(be32_to_cpu(a.reply.max_cmd_sn), be32_to_cpu(a.reply.exp_cmd_sn) + 127);
	a.cmd_sn = be32_to_cpu(a.reply.exp_cmd_sn);
	ini_command(&a, FAKE_OP_TEST, PDU_FINAL, 0, 0, 0, NULL, 0);
	CU_ASSERT_EQUAL(ini_receive(&a), PDU_SCSI_RESPONSE);
	ini_close(&a);
	world_close();
}

/* A command that waits for data ends only when what was asked for has come. */
static void abort_waits_for_solicited_data(void)
{
	uint32_t itt, ttt;

	open_world();
	ini_log_in(&a, "ImmediateData=No\n");
	itt = ini_command(&a, FAKE_OP_WRITE, PDU_FINAL | PDU_CMD_WRITE, 0, 8, 4096, NULL, 0);
	CU_ASSERT_EQUAL(ini_receive(&a), PDU_R2T);
	ttt = be32_to_cpu(a.r2t.ttt);
	ini_tmf(&a, SCSI_TMF_ABORT_TASK, itt, a.cmd_sn - 1);
	CU_ASSERT_EQUAL(ini_receive(&a), -1);
	ini_data_out(&a, itt, ttt, 0, 0, pattern, 4096, true);
	CU_ASSERT_EQUAL(ini_receive(&a), PDU_TMF_RESPONSE);
	CU_ASSERT_EQUAL(a.tmf.response, SCSI_TMF_COMPLETE);
	CU_ASSERT_EQUAL(fake.cancelled, 1);
	CU_ASSERT_EQUAL(fake.disk[0], 0);
	/* One that sends nothing more is answered after a while, and its late data ignored. */
	itt = ini_command(&a, FAKE_OP_WRITE, PDU_FINAL | PDU_CMD_WRITE, 0, 8, 4096, NULL, 0);
	CU_ASSERT_EQUAL(ini_receive(&a), PDU_R2T);
	ttt = be32_to_cpu(a.r2t.ttt);
	ini_tmf(&a, SCSI_TMF_LUN_RESET, 0, 0);
	CU_ASSERT_EQUAL(ini_receive(&a), -1);
	fake_advance(2 * NSEC_PER_SEC);
	CU_ASSERT_EQUAL(ini_receive(&a), PDU_TMF_RESPONSE);
	ini_data_out(&a, itt, ttt, 0, 0, pattern, 4096, true);
	CU_ASSERT_EQUAL(fake.disk[0], 0);
	/* What runs is the device server's to end; what is over is no task any more. */
	fake.hold = true;
	itt = ini_read_blocks(&a, 0, 1);
	ini_tmf(&a, SCSI_TMF_ABORT_TASK, itt, a.cmd_sn - 1);
	CU_ASSERT_EQUAL(ini_receive(&a), PDU_TMF_RESPONSE);
	CU_ASSERT_EQUAL(a.tmf.response, SCSI_TMF_COMPLETE);
	ini_tmf(&a, SCSI_TMF_ABORT_TASK, itt, a.cmd_sn - 1);
	CU_ASSERT_EQUAL(ini_receive(&a), PDU_TMF_RESPONSE);
	CU_ASSERT_EQUAL(a.tmf.response, SCSI_TMF_NO_TASK);
	ini_close(&a);
	world_close();
}

/* The same initiator port again: the old session is over before the new one begins. */
static void login_reinstates_the_session(void)
{
	open_world();
	ini_log_in(&a, "");
	fake.hold = true;
	ini_read_blocks(&a, 0, 1);
	CU_ASSERT_EQUAL(fake.held_count, 1);
	ini_log_in(&b, "");
	CU_ASSERT_EQUAL(fake.held_count, 0);	/* accounted for */
	CU_ASSERT_EQUAL(fake.nexuses, 1);
	CU_ASSERT_EQUAL(fake.last_tmf, SCSI_TMF_I_T_NEXUS_RESET);
	CU_ASSERT_EQUAL(ini_receive(&a), -1);
	CU_ASSERT_NOT_EQUAL(a.tsih, b.tsih);
	/* A connection for the session that is gone is turned away. */
	ini_connect(&c);
	c.tsih = a.tsih;
	ini_send_login(&c, 1, 2, "");
	CU_ASSERT_EQUAL(ini_login_status(&c), PDU_LOGIN_NO_SESSION);
	ini_close(&a);
	ini_close(&b);
	ini_close(&c);
	world_close();
}

/* The same CID again: the old connection's place, its commands ended. */
static void login_reinstates_the_connection(void)
{
	open_world();
	ini_log_in(&a, "MaxConnections=4\n");
	ini_join(&b, &a, 2);
	ini_join(&c, &a, 2);
	CU_ASSERT_EQUAL(ini_receive(&b), -1);
	CU_ASSERT_EQUAL(fake.nexuses, 1);
	ini_command(&a, FAKE_OP_TEST, PDU_FINAL, 0, 0, 0, NULL, 0);
	CU_ASSERT_EQUAL(ini_receive(&a), PDU_SCSI_RESPONSE);
	ini_close(&b);
	/* A connection that is lost takes the session with it: ERL 0. */
	ini_close(&c);
	CU_ASSERT_EQUAL(fake.nexuses, 0);
	CU_ASSERT_EQUAL(ini_receive(&a), -1);
	ini_close(&a);
	world_close();
}

/* ---- what breaks the protocol ---- */

/* The connection is refused with @reason and ends. */
static void expect_reject_and_end(struct ini *ini, enum pdu_reject_reason reason)
{
	CU_ASSERT_EQUAL(ini_receive(ini), PDU_REJECT);
	CU_ASSERT_EQUAL(ini->reject.reason, reason);
	CU_ASSERT_EQUAL(ini->data_len, PDU_BHS_LEN);
	CU_ASSERT_EQUAL(ini_receive(ini), -1);
	ini_close(ini);
	CU_ASSERT_EQUAL(fake.nexuses, 0);
}

static void protocol_errors_end_that_connection_only(void)
{
	struct pdu_bhs_wire bad;
	uint32_t itt, ttt;

	open_world();
	ini_log_in(&a, "ImmediateData=No\n");	/* immediate data not negotiated */
	ini_command(&a, FAKE_OP_WRITE, PDU_FINAL | PDU_CMD_WRITE, 0, 1, 512, pattern, 512);
	expect_reject_and_end(&a, PDU_REJECT_PROTOCOL_ERROR);
	ini_log_in(&a, "");			/* more than was announced */
	ini_command(&a, FAKE_OP_WRITE, PDU_FINAL | PDU_CMD_WRITE, 0, 1, 512, pattern, 1024);
	expect_reject_and_end(&a, PDU_REJECT_PROTOCOL_ERROR);
	ini_log_in(&a, "");			/* unknown opcode */
	memset(&bad, 0, sizeof(bad));
	bad.opcode = 0x1f;
	ini_send(&a, &bad, pattern, 13);
	expect_reject_and_end(&a, PDU_REJECT_NOT_SUPPORTED);
	ini_log_in(&a, "");			/* longer than we take */
	bad.opcode = PDU_NOP_OUT;
	bad.data_len = cpu_to_be24(PDU_DATA_LEN_MAX);
	ini_write(&a, &bad, sizeof(bad));
	expect_reject_and_end(&a, PDU_REJECT_PROTOCOL_ERROR);
	ini_log_in(&a, "ImmediateData=No\n");	/* more than was asked for, and a wrong TTT */
	itt = ini_command(&a, FAKE_OP_WRITE, PDU_FINAL | PDU_CMD_WRITE, 0, 1, 512, NULL, 0);
	CU_ASSERT_EQUAL(ini_receive(&a), PDU_R2T);
	ttt = be32_to_cpu(a.r2t.ttt);
	ini_data_out(&a, itt, ttt, 0, 0, pattern, 1024, true);
	expect_reject_and_end(&a, PDU_REJECT_PROTOCOL_ERROR);
	ini_log_in(&a, "ImmediateData=No\n");
	itt = ini_command(&a, FAKE_OP_WRITE, PDU_FINAL | PDU_CMD_WRITE, 0, 1, 512, NULL, 0);
	CU_ASSERT_EQUAL(ini_receive(&a), PDU_R2T);
	ini_data_out(&a, itt, be32_to_cpu(a.r2t.ttt) + 77, 0, 0, pattern, 512, true);
	expect_reject_and_end(&a, PDU_REJECT_PROTOCOL_ERROR);
	fake.hold = true;			/* a task tag that is in use */
	ini_log_in(&a, "");
	ini_read_blocks(&a, 0, 1);
	a.itt--;
	ini_read_blocks(&a, 0, 1);
	expect_reject_and_end(&a, PDU_REJECT_TASK_IN_PROGRESS);
	world_close();
}

/* SNACK cannot be served at ERL 0, but it hurts nobody. */
static void snack_is_rejected_and_life_goes_on(void)
{
	struct pdu_snack_wire snack = { .opcode = PDU_SNACK, .flags = PDU_FINAL };
	unsigned int i;

	open_world();
	ini_log_in(&a, "");
	for (i = 0; i < 100; i++)	/* more than there are notes: it waits until we read */
		ini_send(&a, &snack, NULL, 0);
	for (i = 0; i < 100; i++)
		CU_ASSERT_EQUAL(ini_receive(&a), PDU_REJECT);
	ini_command(&a, FAKE_OP_TEST, PDU_FINAL, 0, 0, 0, NULL, 0);
	CU_ASSERT_EQUAL(ini_receive(&a), PDU_SCSI_RESPONSE);
	ini_close(&a);
	world_close();
}

/* RFC 7143, 7.8: a bad data digest fails the task, a bad header digest the connection. */
static void digest_errors(void)
{
	static const char keys[] = "HeaderDigest=CRC32C\nDataDigest=CRC32C\nImmediateData=No\n";
	struct pdu_data_out_wire d = { .opcode = PDU_DATA_OUT, .flags = PDU_FINAL };
	uint32_t itt;
	le32 sum;

	open_world();
	ini_log_in(&a, keys);
	itt = ini_command(&a, FAKE_OP_WRITE, PDU_FINAL | PDU_CMD_WRITE, 0, 1, 512, NULL, 0);
	CU_ASSERT_EQUAL(ini_receive(&a), PDU_R2T);
	d.itt = cpu_to_be32(itt);
	d.ttt = a.r2t.ttt;
	d.data_len = cpu_to_be24(512);
	ini_write(&a, &d, sizeof(d));
	sum = cpu_to_le32(crc32c(0, &d, sizeof(d)));
	ini_write(&a, &sum, 4);
	ini_write(&a, pattern, 512);
	sum = cpu_to_le32(crc32c(0, pattern, 512) ^ 1);
	ini_write(&a, &sum, 4);
	CU_ASSERT_EQUAL(ini_receive(&a), PDU_REJECT);
	CU_ASSERT_EQUAL(a.reject.reason, PDU_REJECT_DATA_DIGEST);
	CU_ASSERT_EQUAL(ini_receive(&a), PDU_SCSI_RESPONSE);
	CU_ASSERT_EQUAL(a.response.status, SCSI_CHECK_CONDITION);
	CU_ASSERT_EQUAL(a.data[2 + 12], 0x47);
	CU_ASSERT_EQUAL(fake.disk[1], 0);
	ini_write(&a, &d, sizeof(d));
	ini_write(&a, &sum, 4);		/* not this header's */
	CU_ASSERT_EQUAL(ini_receive(&a), -1);
	CU_ASSERT_EQUAL(fake.nexuses, 0);
	ini_close(&a);
	world_close();
}

/* ---- NOP, silence, limits ---- */

static void nop_is_echoed_and_a_silent_peer_ends(void)
{
	struct pdu_nop_out_wire nop = { .opcode = PDU_NOP_OUT | PDU_IMMEDIATE, .flags = PDU_FINAL };

	open_world();
	ini_log_in(&a, "MaxRecvDataSegmentLength=512\n");
	nop.itt = cpu_to_be32(55);
	nop.ttt = cpu_to_be32(PDU_TAG_NONE);
	ini_send(&a, &nop, pattern, 1001);
	CU_ASSERT_EQUAL(ini_receive(&a), PDU_NOP_IN);
	CU_ASSERT_EQUAL(a.data_len, 512);
	CU_ASSERT_EQUAL(memcmp(a.data, pattern, 512), 0);
	fake_advance(61 * NSEC_PER_SEC);
	CU_ASSERT_EQUAL(ini_receive(&a), PDU_NOP_IN);
	CU_ASSERT_NOT_EQUAL(be32_to_cpu(a.reply.ttt), PDU_TAG_NONE);
	nop.itt = cpu_to_be32(PDU_TAG_NONE);
	nop.ttt = a.reply.ttt;
	ini_send(&a, &nop, NULL, 0);
	fake_advance(61 * NSEC_PER_SEC);
	CU_ASSERT_EQUAL(fake.nexuses, 1);
	CU_ASSERT_EQUAL(ini_receive(&a), PDU_NOP_IN);
	fake_advance(61 * NSEC_PER_SEC);
	CU_ASSERT_EQUAL(fake.nexuses, 0);
	ini_close(&a);
	world_close();
}

static void few_half_open(struct tgt_limits *limits)
{
	limits->half_open_max = 20;
	limits->half_open_address_max = 10;
}

/* Hundreds who only connect; one who means it gets in at once, and memory stays bounded. */
static void half_open_logins_do_not_keep_a_good_one_out(void)
{
	static struct ini idle[200];
	unsigned int i;

	world_open_limits(few_half_open);
	for (i = 0; i < ARRAY_SIZE(idle); i++)
		ini_connect_from(&idle[i], 0x0a000001 + i % 3);
	CU_ASSERT_TRUE(world.tgt->half_open_count <= 20);
	ini_log_in(&a, "");
	ini_command(&a, FAKE_OP_TEST, PDU_FINAL, 0, 0, 0, NULL, 0);
	CU_ASSERT_EQUAL(ini_receive(&a), PDU_SCSI_RESPONSE);
	/* And the others' time runs out. */
	fake_advance(16 * NSEC_PER_SEC);
	CU_ASSERT_EQUAL(world.tgt->half_open_count, 0);
	CU_ASSERT_EQUAL(world.tgt->connection_count, 1);
	for (i = 0; i < ARRAY_SIZE(idle); i++)
		ini_close(&idle[i]);
	ini_close(&a);
	world_close();
}

/* 4 MiB each; the least memory there may be is 32 MiB, of which 4 are for small ones. */
#define LARGE		8192u
#define LARGE_FIT	7u

static uint32_t large(struct ini *ini, uint8_t op)
{
	return ini_command(ini, op, PDU_FINAL | (op == FAKE_OP_READ ? PDU_CMD_READ : PDU_CMD_WRITE),
			   0, LARGE, LARGE * FAKE_BLOCK, NULL, 0);
}

/* Reads that do not fit into memory wait for it, first come first served; none is lost. */
static void commands_wait_for_memory(void)
{
	unsigned int i;

	open_world();
	ini_log_in(&a, "");
	fake.hold = true;
	for (i = 0; i < LARGE_FIT; i++)
		large(&a, FAKE_OP_READ);
	CU_ASSERT_EQUAL(fake.held_count, LARGE_FIT);
	large(&a, FAKE_OP_READ);
	CU_ASSERT_EQUAL(fake.held_count, LARGE_FIT);
	/* Small ones have a reserve, which large ones could not have anyway. */
	ini_command(&a, FAKE_OP_READ, PDU_FINAL | PDU_CMD_READ, 0, 8, 4096, NULL, 0);
	ini_command(&a, FAKE_OP_WRITE, PDU_FINAL | PDU_CMD_WRITE, 0, 8, 4096, pattern, 4096);
	CU_ASSERT_EQUAL(fake.held_count, LARGE_FIT + 2);
	/* Data that is here already cannot wait: the initiator is told to try again. */
	ini_command(&a, FAKE_OP_WRITE, PDU_FINAL | PDU_CMD_WRITE, 0, 256, 131072, pattern, 4096);
	CU_ASSERT_EQUAL(ini_receive(&a), PDU_SCSI_RESPONSE);
	CU_ASSERT_EQUAL(a.response.status, SCSI_TASK_SET_FULL);
	fake_release();
	for (i = 0; i < LARGE_FIT + 3;) {
		int op = ini_receive(&a);

		CU_ASSERT_FATAL(op == PDU_DATA_IN || op == PDU_SCSI_RESPONSE);
		if (op == PDU_SCSI_RESPONSE || a.data_in.flags & PDU_DATA_IN_STATUS)
			i++;
	}
	ini_close(&a);
	world_close();
}

/* Return: whether an Async Message of that event came before the connection ended. */
static bool is_told(struct ini *ini, enum pdu_async_event event)
{
	bool told = false;
	int op;

	while ((op = ini_receive(ini)) >= 0)
		told = told || (op == PDU_ASYNC_MESSAGE && ini->async.event == event);
	return told;
}

/* RFC 7143, 11.5.1: as a power on, also for those who did not ask for it. */
static void cold_reset_ends_every_session(void)
{
	open_world();
	ini_log_in(&a, "");
	ini_connect(&b);
	ini_send_login(&b, 2, 1, "");
	CU_ASSERT_EQUAL_FATAL(ini_login_status(&b), PDU_LOGIN_SUCCESS);
	CU_ASSERT_EQUAL(fake.nexuses, 2);
	ini_tmf(&a, SCSI_TMF_TARGET_COLD_RESET, 0, 0);
	CU_ASSERT_EQUAL(fake.last_tmf, SCSI_TMF_TARGET_COLD_RESET);
	CU_ASSERT_EQUAL(ini_receive(&a), PDU_TMF_RESPONSE);
	CU_ASSERT_EQUAL(a.tmf.response, SCSI_TMF_COMPLETE);
	CU_ASSERT_TRUE(is_told(&a, PDU_ASYNC_DROP_SESSION));
	CU_ASSERT_TRUE(is_told(&b, PDU_ASYNC_DROP_SESSION));
	ini_close(&a);
	/* One that keeps its end open is not waited for. */
	fake_advance(3 * NSEC_PER_SEC);
	CU_ASSERT_EQUAL(fake.nexuses, 0);
	ini_close(&b);
	ini_log_in(&a, "");
	CU_ASSERT_EQUAL(fake.nexuses, 1);
	ini_close(&a);
	world_close();
}

/* A warm one resets logical units, and nobody is thrown out. */
static void warm_reset_ends_no_session(void)
{
	open_world();
	ini_log_in(&a, "");
	ini_tmf(&a, SCSI_TMF_TARGET_WARM_RESET, 0, 0);
	CU_ASSERT_EQUAL(ini_receive(&a), PDU_TMF_RESPONSE);
	ini_command(&a, FAKE_OP_TEST, PDU_FINAL, 0, 0, 0, NULL, 0);
	CU_ASSERT_EQUAL(ini_receive(&a), PDU_SCSI_RESPONSE);
	CU_ASSERT_EQUAL(fake.nexuses, 1);
	ini_close(&a);
	world_close();
}

static struct tgt_config *config_of(const char *text)
{
	FILE *in = fmemopen((void *)(uintptr_t)text, strlen(text), "r");
	struct tgt_config *config;
	char why[300] = "";

	CU_ASSERT_FATAL(in && !tgt_config_create(&config));
	CU_ASSERT_EQUAL_FATAL(tgt_config_read(config, in, "c", why, sizeof(why)), 0);
	fclose(in);
	return config;
}

static void change_config(struct tgt_config *config)
{
	CU_ASSERT_EQUAL(tgt_set_config(world.tgt, config), 0);
	fake_run();
	tgt_config_destroy(world.config);	/* nobody looks at it any more: no login is under way */
	world.config = config;
}

/* Whoever is taken from the list must not go on until he leaves by himself. */
static void initiator_that_lost_access_is_asked_to_leave_and_then_ended(void)
{
	static const char *const later[] = {
		"portal = 127.0.0.1:3260\n[target " DISK "]\ninitiator = " HOST "2\n",
		"portal = 127.0.0.1:3260\n[target " DISK "2]\ninitiator = *\n",
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(later); i++) {
		open_world();
		ini_log_in(&a, "");
		change_config(config_of("portal = 127.0.0.1:3260\n[target " DISK "]\n"
					"initiator = " HOST "\n"));
		ini_command(&a, FAKE_OP_TEST, PDU_FINAL, 0, 0, 0, NULL, 0);
		CU_ASSERT_EQUAL(ini_receive(&a), PDU_SCSI_RESPONSE);
		change_config(config_of(later[i]));
		CU_ASSERT_EQUAL(ini_receive(&a), PDU_ASYNC_MESSAGE);
		CU_ASSERT_EQUAL(a.async.event, PDU_ASYNC_LOGOUT);
		CU_ASSERT_EQUAL(be16_to_cpu(a.async.parameter3), 3);
		CU_ASSERT_EQUAL(fake.nexuses, 1);
		fake_advance(4 * NSEC_PER_SEC);
		CU_ASSERT_EQUAL(fake.nexuses, 0);
		CU_ASSERT_EQUAL(ini_receive(&a), -1);
		ini_close(&a);
		ini_connect(&a);
		ini_send_login(&a, 1, 1, "");
		CU_ASSERT_NOT_EQUAL(ini_login_status(&a), PDU_LOGIN_SUCCESS);
		ini_close(&a);
		world_close();
	}
}

static void log_in_two(void)
{
	open_world();
	ini_log_in(&a, "ImmediateData=No\n");
	ini_connect(&b);
	ini_send_login(&b, 2, 1, "");
	CU_ASSERT_EQUAL_FATAL(ini_login_status(&b), PDU_LOGIN_SUCCESS);
}

/* An initiator that asks for all memory and sends no data would stop all others for ever (R9). */
static void hoarder_of_memory_is_closed_when_others_wait(void)
{
	unsigned int i, received;

	log_in_two();
	/* The two sessions are spread over two reactors, each with its memory. */
	for (i = 0; i < LARGE_FIT; i++) {
		large(&a, FAKE_OP_WRITE);
		large(&b, FAKE_OP_WRITE);
	}
	/* Nobody waits: they may take their time. */
	fake_advance(30 * NSEC_PER_SEC);
	CU_ASSERT_EQUAL(world.tgt->connection_count, 2);
	ini_connect(&c);
	ini_send_login(&c, 3, 1, "MaxRecvDataSegmentLength=262144\n");
	CU_ASSERT_EQUAL_FATAL(ini_login_status(&c), PDU_LOGIN_SUCCESS);
	large(&c, FAKE_OP_READ);
	CU_ASSERT_EQUAL(ini_receive(&c), -1);
	for (i = 0; i < 4; i++)
		fake_advance(NSEC_PER_SEC);
	/* Whichever of them keeps that reactor's memory is gone; the other one stays. */
	CU_ASSERT_EQUAL(world.tgt->connection_count, 2);
	for (received = 0; received < LARGE * FAKE_BLOCK; received += c.data_len)
		CU_ASSERT_EQUAL_FATAL(ini_receive(&c), PDU_DATA_IN);
	ini_close(&a);
	ini_close(&b);
	ini_close(&c);
	world_close();
}

/* Writes whose data comes with them do not wait, they are refused: again and again, if nobody goes. */
static void hoarder_is_closed_for_those_who_cannot_wait(void)
{
	unsigned int i, tries = 0;
	int status;

	log_in_two();
	for (i = 0; i < LARGE_FIT; i++)
		large(&a, FAKE_OP_WRITE);
	ini_connect(&c);
	ini_send_login(&c, 3, 1, "");
	CU_ASSERT_EQUAL_FATAL(ini_login_status(&c), PDU_LOGIN_SUCCESS);
	do {
		ini_command(&c, FAKE_OP_WRITE, PDU_FINAL | PDU_CMD_WRITE, 0, 256, 131072, pattern,
			    4096);
		status = ini_receive(&c) == PDU_R2T ? -1 : c.response.status;
		CU_ASSERT_TRUE(status == -1 || status == SCSI_TASK_SET_FULL);
		fake_advance(NSEC_PER_SEC);
	} while (status != -1 && ++tries < 10);
	CU_ASSERT_TRUE(tries >= 2 && tries < 6);
	CU_ASSERT_EQUAL(world.tgt->connection_count, 2);
	ini_close(&a);
	ini_close(&b);
	ini_close(&c);
	world_close();
}

/* A slow network is no crime: whoever gets on keeps what it has, and others are served by it. */
static void slow_initiator_that_gets_on_is_left_alone(void)
{
	uint32_t itt[LARGE_FIT], at = 0, ttt, end, sn;
	unsigned int i, second;

	log_in_two();
	for (i = 0; i < LARGE_FIT; i++)
		itt[i] = large(&a, FAKE_OP_WRITE);
	fake.hold = true;
	large(&a, FAKE_OP_READ);	/* waits, of the same reactor */
	CU_ASSERT_EQUAL(fake.held_count, 0);
	for (second = 0; second < 4; second++) {
		while (at < (second + 1) << 20) {
			do {
				CU_ASSERT_EQUAL_FATAL(ini_receive(&a), PDU_R2T);
			} while (be32_to_cpu(a.r2t.itt) != itt[0]);
			ttt = be32_to_cpu(a.r2t.ttt);
			end = at + be32_to_cpu(a.r2t.desired_len);
			for (sn = 0; at < end; at += 65536)
				ini_data_out(&a, itt[0], ttt, sn++, at, pattern - at, 65536,
					     at + 65536 == end);
		}
		fake_advance(NSEC_PER_SEC);
		CU_ASSERT_EQUAL(world.tgt->connection_count, 2);
	}
	/* The write has all its data; when it is over the read has its memory. */
	CU_ASSERT_EQUAL(fake.held_count, 1);
	fake.hold = false;
	fake_release();
	fake_run();
	CU_ASSERT_EQUAL(fake.commands, 2);
	ini_close(&a);
	ini_close(&b);
	world_close();
}

/* The answer comes when the others are gone, whenever that is. */
static void session_logs_out_with_all_its_connections(void)
{
	open_world();
	ini_log_in(&a, "MaxConnections=3\n");
	ini_join(&b, &a, 2);
	ini_join(&c, &a, 3);
	/* One has a command at work, which has to be accounted for. */
	fake.hold = true;
	b.itt = 1000;
	ini_read_blocks(&b, 0, 8);
	ini_logout(&a, PDU_LOGOUT_SESSION, 0);
	CU_ASSERT_EQUAL(ini_receive(&c), -1);
	CU_ASSERT_EQUAL(ini_receive(&a), -1);
	fake_release();
	CU_ASSERT_EQUAL(ini_receive(&a), PDU_LOGOUT_RESPONSE);
	CU_ASSERT_EQUAL(a.logout.response, PDU_LOGOUT_DONE);
	/* What the session had reserved is free by then, however long its socket stays. */
	CU_ASSERT_EQUAL(fake.nexuses, 0);
	ini_close(&a);
	ini_close(&b);
	ini_close(&c);
	CU_ASSERT_EQUAL(world.tgt->session_count, 0);
	world_close();
}

/* Whoever has logged out, but not closed yet, keeps nobody from taking its place. */
static void connection_that_logged_out_makes_room(void)
{
	open_world();
	ini_log_in(&a, "MaxConnections=2\n");
	ini_join(&b, &a, 2);
	ini_logout(&b, PDU_LOGOUT_CONNECTION, 2);
	CU_ASSERT_EQUAL(ini_receive(&b), PDU_LOGOUT_RESPONSE);
	ini_join(&c, &a, 3);
	ini_logout(&c, PDU_LOGOUT_CONNECTION, 3);
	CU_ASSERT_EQUAL(ini_receive(&c), PDU_LOGOUT_RESPONSE);
	ini_close(&b);
	ini_join(&b, &a, 3);
	ini_command(&a, FAKE_OP_TEST, PDU_FINAL, 0, 0, 0, NULL, 0);
	CU_ASSERT_EQUAL(ini_receive(&a), PDU_SCSI_RESPONSE);
	/* But the last one takes its session with it. */
	ini_logout(&b, PDU_LOGOUT_CONNECTION, 3);
	CU_ASSERT_EQUAL(ini_receive(&b), PDU_LOGOUT_RESPONSE);
	CU_ASSERT_EQUAL(fake.nexuses, 1);
	ini_logout(&a, PDU_LOGOUT_CONNECTION, 1);
	CU_ASSERT_EQUAL(ini_receive(&a), PDU_LOGOUT_RESPONSE);
	CU_ASSERT_EQUAL(fake.nexuses, 0);
	ini_close(&c);
	ini_connect(&c);
	c.tsih = a.tsih;
	ini_send_login(&c, 1, 1, "");
	CU_ASSERT_EQUAL(ini_login_status(&c), PDU_LOGIN_NO_SESSION);
	ini_close(&a);
	ini_close(&b);
	ini_close(&c);
	world_close();
}

/* What it had at work points to the nexus until it ends, whoever else has gone meanwhile. */
static void logout_of_the_last_connection_takes_no_nexus_from_commands_of_another(void)
{
	open_world();
	ini_log_in(&a, "MaxConnections=2\n");
	ini_join(&b, &a, 2);
	fake.hold = true;
	b.itt = 1000;
	ini_read_blocks(&b, 0, 8);
	ini_logout(&a, PDU_LOGOUT_CONNECTION, 2);
	CU_ASSERT_EQUAL(ini_receive(&a), PDU_LOGOUT_RESPONSE);
	CU_ASSERT_EQUAL(fake.held_count, 1);
	ini_logout(&a, PDU_LOGOUT_CONNECTION, 1);
	CU_ASSERT_EQUAL(ini_receive(&a), PDU_LOGOUT_RESPONSE);
	CU_ASSERT_EQUAL(fake.nexuses, 1);
	ini_close(&a);
	CU_ASSERT_EQUAL(fake.held_count, 0);	/* reset */
	CU_ASSERT_EQUAL(fake.nexuses, 0);
	ini_close(&b);
	CU_ASSERT_EQUAL(world.tgt->session_count, 0);
	world_close();
}

UNIT_MAIN("iscsi transport",
	UNIT_TEST(data_survives_every_mix_of_immediate_unsolicited_and_solicited),
	UNIT_TEST(residuals_tell_what_was_too_much_and_too_little),
	UNIT_TEST(refused_command_swallows_its_data),
	UNIT_TEST(commands_run_by_cmd_sn_over_connections),
	UNIT_TEST(window_closes_and_opens),
	UNIT_TEST(abort_waits_for_solicited_data),
	UNIT_TEST(login_reinstates_the_session),
	UNIT_TEST(login_reinstates_the_connection),
	UNIT_TEST(protocol_errors_end_that_connection_only),
	UNIT_TEST(snack_is_rejected_and_life_goes_on),
	UNIT_TEST(digest_errors),
	UNIT_TEST(nop_is_echoed_and_a_silent_peer_ends),
	UNIT_TEST(half_open_logins_do_not_keep_a_good_one_out),
	UNIT_TEST(commands_wait_for_memory),
	UNIT_TEST(cold_reset_ends_every_session),
	UNIT_TEST(warm_reset_ends_no_session),
	UNIT_TEST(initiator_that_lost_access_is_asked_to_leave_and_then_ended),
	UNIT_TEST(hoarder_of_memory_is_closed_when_others_wait),
	UNIT_TEST(hoarder_is_closed_for_those_who_cannot_wait),
	UNIT_TEST(slow_initiator_that_gets_on_is_left_alone),
	UNIT_TEST(session_logs_out_with_all_its_connections),
	UNIT_TEST(connection_that_logged_out_makes_room),
	UNIT_TEST(logout_of_the_last_connection_takes_no_nexus_from_commands_of_another));
