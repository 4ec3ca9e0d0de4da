// SPDX-License-Identifier: Apache-2.0
#include "tests/iscsi/login_rig.h"

static struct tgt_params params;
static struct tgt_text *text;
static struct pdu_text_request_wire rq;

static void begin(bool discovery)
{
	rig_open(rig_config);
	memset(&params, 0, sizeof(params));
	params.discovery = discovery;
	params.send_dsl_max = 8192;
	params.recv_dsl_max = 8192;
	strcpy(params.initiator, HOST);
	if (!discovery)
		strcpy(params.target, DISK1);
	CU_ASSERT_EQUAL_FATAL(tgt_text_create(rig.env, rig.config, &rig.peer, &text), 0);
	memset(&rq, 0, sizeof(rq));
	rq.opcode = PDU_TEXT_REQUEST;
	rq.itt = cpu_to_be32(77);
	rq.ttt = cpu_to_be32(PDU_TAG_NONE);
}

static void end(void)
{
	tgt_text_destroy(text);
	rig_close();
}

static void ask(unsigned int flags, const char *lines)
{
	uint8_t data[8192];
	size_t len = strlen(lines);

	for (size_t i = 0; i < len; i++)
		data[i] = lines[i] == '\n' ? 0 : (uint8_t)lines[i];
	rq.flags = (uint8_t)flags;
	rq.data_len = cpu_to_be24((uint32_t)len);
	tgt_text_receive(text, &params, &rq, data, (uint32_t)len, &rig.reply);
	rig_note_reply();
	rq.ttt = rig.reply.text.ttt;
}

static void check_answer(const char *lines, const char *expected)
{
	ask(PDU_FINAL, lines);
	CU_ASSERT_EQUAL(rig.reply.text.opcode, PDU_TEXT_RESPONSE);
	CU_ASSERT_EQUAL(rig.reply.text.flags, PDU_FINAL);
	CU_ASSERT_EQUAL(be32_to_cpu(rig.reply.text.ttt), PDU_TAG_NONE);
	CU_ASSERT_EQUAL(be32_to_cpu(rig.reply.text.itt), 77);
	if (strcmp(rig.said, expected))
		fprintf(stderr, "%s: answered %s\n", lines, rig.said);
	CU_ASSERT_STRING_EQUAL(rig.said, expected);
}

#define PORTALS	"TargetAddress=192.0.2.1:3260,1\nTargetAddress=[2001:db8::1]:3261,7\n"

/* disk2 is not for this initiator, and not shown to it. */
static void discovery_shows_what_the_initiator_may_use(void)
{
	begin(true);
	check_answer("SendTargets=All\n", "TargetName=" DISK1 "\n" PORTALS
		     "TargetName=" DISK3 "\n" PORTALS);
	check_answer("SendTargets=" DISK3 "\n", "TargetName=" DISK3 "\n" PORTALS);
	check_answer("SendTargets=" DISK2 "\n", "");
	check_answer("SendTargets=iqn.2026-01.example:none\n", "");
	check_answer("SendTargets=\n", "SendTargets=Reject\n");
	check_answer("SendTargets=some\n", "SendTargets=Reject\n");
	end();
}

static void a_normal_session_learns_of_its_target_only(void)
{
	begin(false);
	check_answer("SendTargets=\n", "TargetName=" DISK1 "\n" PORTALS);
	check_answer("SendTargets=" DISK1 "\n",
		     "TargetName=" DISK1 "\n" PORTALS);
	check_answer("SendTargets=" DISK3 "\n", "");
	check_answer("SendTargets=All\n", "SendTargets=Reject\n");
	end();
}

/* 0.0.0.0 is no address that an initiator could connect to. */
static void a_portal_on_all_addresses_is_shown_as_the_one_in_use(void)
{
	rig_open("portal = 0.0.0.0:3270\nportal = [::]:3270\nportal = 192.0.2.1:3270\n"
		 "portal = 192.0.2.2:3270 2\n[target " DISK1 "]\ninitiator = *\n");
	memset(&params, 0, sizeof(params));
	params.discovery = true;
	params.send_dsl_max = 8192;
	CU_ASSERT_EQUAL_FATAL(tgt_text_create(rig.env, rig.config, &rig.peer, &text), 0);
	check_answer("SendTargets=All\n", "TargetName=" DISK1 "\nTargetAddress=192.0.2.1:3270,1\n"
		     "TargetAddress=192.0.2.2:3270,2\n");
	end();
}

static void long_lists_come_in_parts(void)
{
	char whole[1024] = "";
	unsigned int parts = 0;

	begin(true);
	params.send_dsl_max = 16;
	ask(PDU_FINAL, "SendTargets=All\n");
	while (!(rig.reply.text.flags & PDU_FINAL) && ++parts < 100) {
		CU_ASSERT_EQUAL(rig.reply.text.flags, PDU_LOGIN_CONTINUE);
		CU_ASSERT_NOT_EQUAL(be32_to_cpu(rig.reply.text.ttt), PDU_TAG_NONE);
		CU_ASSERT_EQUAL(rig.reply.data_len, 16);
		strcat(whole, rig.said);
		ask(PDU_FINAL, "");
	}
	strcat(whole, rig.said);
	CU_ASSERT_STRING_EQUAL(whole, "TargetName=" DISK1 "\n" PORTALS
			       "TargetName=" DISK3 "\n" PORTALS);
	CU_ASSERT_EQUAL(be32_to_cpu(rig.reply.text.ttt), PDU_TAG_NONE);
	end();
}

/* Who takes 16 MiB at once gets what the transport has memory for. */
static void a_very_long_list_comes_in_parts_whatever_the_initiator_takes(void)
{
	static char config[200000];
	size_t len = 0, whole = 0;
	unsigned int parts = 1;

	for (unsigned int i = 0; i < 8; i++)
		len += (size_t)snprintf(config + len, sizeof(config) - len, "portal = 192.0.2.%u:3260\n",
					i + 1);
	for (unsigned int i = 0; i < 1000; i++)
		len += (size_t)snprintf(config + len, sizeof(config) - len, "[target "
					"iqn.2026-01.example:disk-%04u]\ninitiator = *\n", i);
	rig_open(config);
	memset(&params, 0, sizeof(params));
	params.discovery = true;
	params.send_dsl_max = PDU_DATA_LEN_MAX;
	CU_ASSERT_EQUAL_FATAL(tgt_text_create(rig.env, rig.config, &rig.peer, &text), 0);
	memset(&rq, 0, sizeof(rq));
	rq.opcode = PDU_TEXT_REQUEST;
	rq.ttt = cpu_to_be32(PDU_TAG_NONE);
	ask(PDU_FINAL, "SendTargets=All\n");
	for (;; parts++) {
		CU_ASSERT_FATAL(rig.reply.data_len <= TGT_TEXT_MAX && parts < 100);
		whole += rig.reply.data_len;
		if (rig.reply.text.flags & PDU_FINAL)
			break;
		ask(PDU_FINAL, "");
	}
	CU_ASSERT_EQUAL(whole, 1000 * (sizeof("TargetName=iqn.2026-01.example:disk-0000") +
				       8 * sizeof("TargetAddress=192.0.2.1:3260,1")));
	CU_ASSERT_EQUAL(parts, whole / TGT_TEXT_MAX + 1);
	end();
}

static void requests_may_be_split(void)
{
	begin(true);
	ask(PDU_LOGIN_CONTINUE, "SendTar");
	CU_ASSERT_EQUAL(rig.reply.text.flags, 0);
	CU_ASSERT_EQUAL(rig.reply.data_len, 0);
	ask(PDU_LOGIN_CONTINUE, "gets=" DISK3);
	ask(PDU_FINAL, "\n");
	CU_ASSERT_STRING_EQUAL(rig.said, "TargetName=" DISK3 "\n" PORTALS);
	CU_ASSERT_EQUAL(rig.reply.text.flags, PDU_FINAL);
	end();
}

static void the_data_segment_changes_with_the_end_of_the_exchange(void)
{
	begin(false);
	ask(0, "MaxRecvDataSegmentLength=512\n");
	CU_ASSERT_EQUAL(params.send_dsl_max, 8192);
	CU_ASSERT_EQUAL(rig.reply.text.flags, 0);
	ask(PDU_FINAL, "X-a=1\nMaxBurstLength=512\n");
	CU_ASSERT_STRING_EQUAL(rig.said, "X-a=NotUnderstood\nMaxBurstLength=Reject\n");
	CU_ASSERT_EQUAL(params.send_dsl_max, 512);
	end();
}

static void check_rejected(unsigned int flags, const char *lines, enum pdu_reject_reason reason)
{
	struct pdu_text_request_wire sent = rq;

	ask(flags, lines);
	sent.flags = rq.flags;
	sent.data_len = rq.data_len;
	CU_ASSERT_EQUAL(rig.reply.reject.opcode, PDU_REJECT);
	CU_ASSERT_EQUAL(rig.reply.reject.reason, reason);
	CU_ASSERT_EQUAL(be32_to_cpu(rig.reply.reject.itt), PDU_TAG_NONE);
	CU_ASSERT_EQUAL(rig.reply.data_len, 48);
	CU_ASSERT_EQUAL(memcmp(rig.reply.data, &sent, 48), 0);
	rq.ttt = cpu_to_be32(PDU_TAG_NONE);
}

static void broken_requests_are_rejected(void)
{
	static char much[5001];

	begin(true);
	check_rejected(PDU_FINAL | PDU_LOGIN_CONTINUE, "A=1\n", PDU_REJECT_PROTOCOL_ERROR);
	check_rejected(PDU_FINAL, "SendTargets", PDU_REJECT_PROTOCOL_ERROR);
	memset(much, 'x', 5000);
	check_rejected(PDU_FINAL, much, PDU_REJECT_OUT_OF_RESOURCES);
	rq.ttt = cpu_to_be32(123);
	check_rejected(PDU_FINAL, "", PDU_REJECT_INVALID_FIELD);
	params.send_dsl_max = 16;
	ask(PDU_FINAL, "SendTargets=All\n");
	check_rejected(PDU_FINAL, "A=1\n", PDU_REJECT_PROTOCOL_ERROR);
	params.send_dsl_max = 8192;
	/* And all is well again after each. */
	check_answer("SendTargets=" DISK3 "\n", "TargetName=" DISK3 "\n" PORTALS);
	end();
}

static void a_new_request_resets_what_was_not_finished(void)
{
	begin(true);
	ask(PDU_LOGIN_CONTINUE, "SendTar");
	rq.ttt = cpu_to_be32(PDU_TAG_NONE);
	check_answer("SendTargets=" DISK3 "\n", "TargetName=" DISK3 "\n" PORTALS);
	end();
}

UNIT_MAIN("text", UNIT_TEST(discovery_shows_what_the_initiator_may_use),
	  UNIT_TEST(a_normal_session_learns_of_its_target_only),
	  UNIT_TEST(a_portal_on_all_addresses_is_shown_as_the_one_in_use),
	  UNIT_TEST(long_lists_come_in_parts),
	  UNIT_TEST(a_very_long_list_comes_in_parts_whatever_the_initiator_takes),
	  UNIT_TEST(requests_may_be_split),
	  UNIT_TEST(the_data_segment_changes_with_the_end_of_the_exchange),
	  UNIT_TEST(broken_requests_are_rejected),
	  UNIT_TEST(a_new_request_resets_what_was_not_finished));
