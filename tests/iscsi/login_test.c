// SPDX-License-Identifier: Apache-2.0
#include "iscsi/login.h"

#include "tests/iscsi/login_rig.h"

#define NORMAL(disk)	"InitiatorName=" HOST "\nTargetName=" disk "\nSessionType=Normal\n"

/* One request to a fresh connection that must be refused with @status. */
static void check_refused(unsigned int flags, const char *text, unsigned int status)
{
	rig_connect();
	CU_ASSERT_EQUAL(rig_send(flags, text), TGT_LOGIN_CLOSE);
	if (rig_status() != status)
		fprintf(stderr, "%s: status %04x, not %04x\n", text, rig_status(), status);
	CU_ASSERT_EQUAL(rig_status(), status);
	CU_ASSERT_EQUAL(rig.reply.data_len, 0);
	CU_ASSERT_EQUAL(rig.reply.login.opcode, PDU_LOGIN_RESPONSE);
	CU_ASSERT_EQUAL(be32_to_cpu(rig.reply.login.itt), 0x1234);
}

static void a_login_goes_through_its_stages(void)
{
	rig_open(rig_config);
	rig_connect();
	CU_ASSERT_EQUAL(rig_send(IN_SECURITY | TO_OPERATIONAL, NORMAL(DISK1) "AuthMethod=None\n"),
			TGT_LOGIN_GO_ON);
	CU_ASSERT_EQUAL(rig_status(), PDU_LOGIN_SUCCESS);
	CU_ASSERT_EQUAL(rig.reply.login.flags, PDU_LOGIN_TRANSIT | 1);
	CHECK_SAID("AuthMethod", "None");
	CHECK_SAID("TargetPortalGroupTag", "1");
	CHECK_SAID("TargetAlias", "the first");
	CU_ASSERT_EQUAL(rig_send(IN_OPERATIONAL, "HeaderDigest=CRC32C\nMaxBurstLength=65536\n"),
			TGT_LOGIN_GO_ON);
	CU_ASSERT_EQUAL(rig.reply.login.flags, IN_OPERATIONAL);
	CHECK_SAID("HeaderDigest", "CRC32C");
	CHECK_SAID("MaxRecvDataSegmentLength", "262144");
	CU_ASSERT_PTR_NULL(rig_value("TargetPortalGroupTag"));
	CU_ASSERT_EQUAL(rig_send(IN_OPERATIONAL | TO_FULL, "MaxRecvDataSegmentLength=65536\n"),
			TGT_LOGIN_ATTACH);
	CU_ASSERT_FALSE(rig.reply.valid);
	CU_ASSERT_EQUAL(tgt_login_attached(rig.login, PDU_LOGIN_SUCCESS, 77, &rig.reply),
			TGT_LOGIN_FULL);
	CU_ASSERT_EQUAL(rig.reply.login.flags, PDU_LOGIN_TRANSIT | IN_OPERATIONAL | 3);
	CU_ASSERT_EQUAL(be16_to_cpu(rig.reply.login.tsih), 77);
	CU_ASSERT_EQUAL(memcmp(rig.reply.login.isid, rig.rq.isid, 6), 0);
	rig_close();
}

static void what_is_agreed_is_handed_on(void)
{
	const struct tgt_params *p;

	rig_open(rig_config);
	rig_log_in("SessionType=Normal\nTargetName=IQN.2026-01.example:DISK1\n"
		   "InitiatorName=iqn.2026-01.Example:Host1\nInitiatorAlias=my host\n"
		   "DataDigest=CRC32C\nInitialR2T=No\nMaxRecvDataSegmentLength=65536\n"
		   "MaxConnections=3\n");
	p = tgt_login_params(rig.login);
	CU_ASSERT_STRING_EQUAL(p->initiator, HOST);
	CU_ASSERT_STRING_EQUAL(p->initiator_alias, "my host");
	CU_ASSERT_STRING_EQUAL(p->target, DISK1);
	CU_ASSERT(p->data_digest && !p->header_digest && !p->initial_r2t && !p->discovery);
	CU_ASSERT(p->send_dsl_max == 65536 && p->recv_dsl_max == 262144);
	CU_ASSERT(p->cid == 9 && p->tsih == 5 && p->connections_max == 3);
	CU_ASSERT_EQUAL(memcmp(p->isid, rig.rq.isid, 6), 0);
	rig_close();
}

static void the_security_stage_may_lead_to_full_feature(void)
{
	rig_open(rig_config);
	rig_connect();
	CU_ASSERT_EQUAL(rig_send(IN_SECURITY | TO_FULL, NORMAL(DISK1)), TGT_LOGIN_ATTACH);
	tgt_login_attached(rig.login, PDU_LOGIN_SUCCESS, 1, &rig.reply);
	CU_ASSERT_EQUAL(rig.reply.login.flags, PDU_LOGIN_TRANSIT | 3);
	CU_ASSERT_EQUAL(tgt_login_params(rig.login)->recv_dsl_max, 8192);	/* never declared */
	rig_close();
}

static void names_are_needed_at_once(void)
{
	rig_open(rig_config);
	check_refused(IN_OPERATIONAL, "", PDU_LOGIN_MISSING_PARAMETER);
	check_refused(IN_OPERATIONAL, "TargetName=" DISK1 "\n", PDU_LOGIN_MISSING_PARAMETER);
	check_refused(IN_OPERATIONAL, "InitiatorName=" HOST "\n", PDU_LOGIN_MISSING_PARAMETER);
	check_refused(IN_OPERATIONAL, "InitiatorName=host\nTargetName=" DISK1 "\n",
		      PDU_LOGIN_INITIATOR_ERROR);
	check_refused(IN_OPERATIONAL, NORMAL(DISK1) "InitiatorName=" HOST "\n",
		      PDU_LOGIN_INITIATOR_ERROR);
	check_refused(IN_OPERATIONAL, "InitiatorName=" HOST "\nSessionType=Other\n",
		      PDU_LOGIN_SESSION_TYPE);
	rig_connect();
	rig_send(IN_OPERATIONAL, NORMAL(DISK1));
	CU_ASSERT_EQUAL(rig_send(IN_OPERATIONAL, "TargetName=" DISK2 "\n"), TGT_LOGIN_CLOSE);
	CU_ASSERT_EQUAL(rig_status(), PDU_LOGIN_INITIATOR_ERROR);
	rig_close();
}

static void only_whom_the_list_names_gets_in(void)
{
	rig_open(rig_config);
	check_refused(IN_OPERATIONAL | TO_FULL, NORMAL("iqn.2026-01.example:none"),
		      PDU_LOGIN_NOT_FOUND);
	check_refused(IN_OPERATIONAL | TO_FULL, NORMAL("disk"), PDU_LOGIN_NOT_FOUND);
	check_refused(IN_OPERATIONAL | TO_FULL, NORMAL(DISK2), PDU_LOGIN_FORBIDDEN);
	check_refused(IN_SECURITY, NORMAL(DISK2) "AuthMethod=None\n", PDU_LOGIN_FORBIDDEN);
	rig_log_in("InitiatorName=iqn.2026-01.example:OTHER\nTargetName=" DISK2 "\n");
	rig_close();
}

static void headers_keep_to_the_rules(void)
{
	static const unsigned int bad_flags[] = {
		2 << 2, 3 << 2,						/* no such stage */
		PDU_LOGIN_TRANSIT | PDU_LOGIN_CONTINUE | 1,		/* T and C */
		PDU_LOGIN_TRANSIT | 0, PDU_LOGIN_TRANSIT | 2,		/* nowhere */
		PDU_LOGIN_TRANSIT | IN_OPERATIONAL | 1,			/* where it is */
		PDU_LOGIN_TRANSIT | IN_OPERATIONAL,			/* back */
	};

	rig_open(rig_config);
	for (unsigned int i = 0; i < ARRAY_SIZE(bad_flags); i++)
		check_refused(bad_flags[i], NORMAL(DISK1), PDU_LOGIN_INITIATOR_ERROR);
	rig_connect();
	rig.rq.version_min = 1;
	rig.rq.version_max = 1;
	CU_ASSERT_EQUAL(rig_send(IN_OPERATIONAL, NORMAL(DISK1)), TGT_LOGIN_CLOSE);
	CU_ASSERT_EQUAL(rig_status(), PDU_LOGIN_BAD_VERSION);
	rig_connect();
	rig.rq.version_max = 3;
	CU_ASSERT_EQUAL(rig_send(IN_OPERATIONAL, NORMAL(DISK1)), TGT_LOGIN_GO_ON);
	CU_ASSERT_EQUAL(rig.reply.login.version_active, 0);
	rig_connect();
	rig.rq.ahs_len = 1;
	CU_ASSERT_EQUAL(rig_send(IN_OPERATIONAL, NORMAL(DISK1)), TGT_LOGIN_CLOSE);
	rig_close();
}

static void check_changed(uint8_t *field)
{
	rig_connect();
	CU_ASSERT_EQUAL(rig_send(IN_OPERATIONAL, NORMAL(DISK1)), TGT_LOGIN_GO_ON);
	*field ^= 1;
	CU_ASSERT_EQUAL(rig_send(IN_OPERATIONAL, ""), TGT_LOGIN_CLOSE);
	CU_ASSERT_EQUAL(rig_status(), PDU_LOGIN_INITIATOR_ERROR);
}

/* Whoever could change it in between could log in as one and go on as another. */
static void a_login_is_one_and_the_same_throughout(void)
{
	rig_open(rig_config);
	check_changed(&rig.rq.isid[5]);
	check_changed(&rig.rq.tsih.b[1]);
	check_changed(&rig.rq.cid.b[1]);
	check_changed(&rig.rq.itt.b[0]);
	check_changed(&rig.rq.version_max);
	rig_connect();
	rig_send(IN_OPERATIONAL, NORMAL(DISK1));
	CU_ASSERT_EQUAL(rig_send(IN_SECURITY, ""), TGT_LOGIN_CLOSE);
	rig_connect();
	rig_send(IN_SECURITY | TO_OPERATIONAL, NORMAL(DISK1));
	CU_ASSERT_EQUAL(rig_send(IN_SECURITY, ""), TGT_LOGIN_CLOSE);
	rig_close();
}

static void other_requests_end_the_login(void)
{
	rig_open(rig_config);
	for (unsigned int op = 0; op <= PDU_OPCODE_MASK; op++) {
		if (op == PDU_LOGIN_REQUEST)
			continue;
		rig_connect();
		rig.rq.opcode = (uint8_t)(op | PDU_IMMEDIATE);
		CU_ASSERT_EQUAL(rig_send(0, ""), TGT_LOGIN_CLOSE);
		CU_ASSERT_EQUAL(rig_status(), PDU_LOGIN_INVALID_REQUEST);
	}
	rig_close();
}

static void keys_belong_to_their_stages(void)
{
	rig_open(rig_config);
	check_refused(IN_SECURITY, NORMAL(DISK1) "MaxBurstLength=512\n",
		      PDU_LOGIN_INITIATOR_ERROR);
	check_refused(IN_OPERATIONAL, NORMAL(DISK1) "AuthMethod=None\n",
		      PDU_LOGIN_INITIATOR_ERROR);
	check_refused(IN_OPERATIONAL, NORMAL(DISK1) "MaxBurstLength=512\nMaxBurstLength=512\n",
		      PDU_LOGIN_INITIATOR_ERROR);
	check_refused(IN_OPERATIONAL, NORMAL(DISK1) "MaxBurstLength\n",
		      PDU_LOGIN_INITIATOR_ERROR);
	check_refused(IN_OPERATIONAL, "InitiatorName=" HOST "\nTargetName=" DISK1,
		      PDU_LOGIN_INITIATOR_ERROR);
	rig_connect();
	rig_send(IN_SECURITY, NORMAL(DISK1) "X-key=1\n");
	CHECK_SAID("X-key", "NotUnderstood");
	rig_close();
}

/* A later connection of a session agrees on what is its own only. */
static void a_later_connection_adds_to_its_session(void)
{
	rig_open(rig_config);
	rig_connect();
	rig.rq.tsih = cpu_to_be16(5);
	CU_ASSERT_EQUAL(rig_send(IN_OPERATIONAL | TO_FULL, NORMAL(DISK1) "HeaderDigest=CRC32C\n"),
			TGT_LOGIN_ATTACH);
	CU_ASSERT_EQUAL(tgt_login_params(rig.login)->tsih, 5);
	CU_ASSERT_EQUAL(tgt_login_attached(rig.login, PDU_LOGIN_NO_SESSION, 0, &rig.reply),
			TGT_LOGIN_CLOSE);
	CU_ASSERT_EQUAL(rig_status(), PDU_LOGIN_NO_SESSION);
	rig_connect();
	rig.rq.tsih = cpu_to_be16(5);
	CU_ASSERT_EQUAL(rig_send(IN_OPERATIONAL, NORMAL(DISK1) "InitialR2T=No\n"),
			TGT_LOGIN_CLOSE);
	CU_ASSERT_EQUAL(rig_status(), PDU_LOGIN_INITIATOR_ERROR);
	rig_close();
}

static void keys_may_be_split_anywhere(void)
{
	static const char text[] = NORMAL(DISK1) "HeaderDigest=CRC32C\nMaxBurstLength=512\n";

	rig_open(rig_config);
	for (size_t cut = 0; cut <= sizeof(text) - 1; cut += 3) {
		char head[sizeof(text)];

		snprintf(head, cut + 1, "%s", text);
		rig_connect();
		CU_ASSERT_EQUAL(rig_send(IN_OPERATIONAL | PDU_LOGIN_CONTINUE, head),
				TGT_LOGIN_GO_ON);
		CU_ASSERT(rig.reply.valid && rig.reply.data_len == 0);
		CU_ASSERT_EQUAL(rig.reply.login.flags, IN_OPERATIONAL);
		CU_ASSERT_EQUAL(rig_send(IN_OPERATIONAL | TO_FULL, text + cut), TGT_LOGIN_ATTACH);
		CU_ASSERT(tgt_login_params(rig.login)->header_digest);
		CU_ASSERT_EQUAL(tgt_login_params(rig.login)->burst_max, 512);
	}
	rig_close();
}

/* What is collected has a bound, in bytes and in requests: nobody fills our memory. */
static void a_login_is_bounded(void)
{
	static char much[8001];
	unsigned int n = 0;

	rig_open(rig_config);
	memset(much, 'x', 8000);
	rig_connect();
	CU_ASSERT_EQUAL(rig_send(IN_OPERATIONAL | PDU_LOGIN_CONTINUE, much), TGT_LOGIN_GO_ON);
	CU_ASSERT_EQUAL(rig_send(IN_OPERATIONAL | PDU_LOGIN_CONTINUE, much), TGT_LOGIN_GO_ON);
	CU_ASSERT_EQUAL(rig_send(IN_OPERATIONAL | PDU_LOGIN_CONTINUE, much), TGT_LOGIN_CLOSE);
	CU_ASSERT_EQUAL(rig_status(), PDU_LOGIN_INITIATOR_ERROR);
	rig_connect();
	rig_send(IN_OPERATIONAL, NORMAL(DISK1));
	while (n < 1000 && rig_send(IN_OPERATIONAL, "") == TGT_LOGIN_GO_ON)
		n++;
	CU_ASSERT(n > 10 && n < 100);
	rig_close();
}

static void long_answers_come_in_parts(void)
{
	static char text[8001];
	unsigned int answers = 0;
	size_t len = (size_t)snprintf(text, sizeof(text), NORMAL(DISK1)
				      "MaxRecvDataSegmentLength=512\n");

	rig_open(rig_config);
	for (unsigned int i = 0; i < 200; i++)
		len += (size_t)snprintf(text + len, sizeof(text) - len, "X-%u=\n", i);
	rig_connect();
	CU_ASSERT_EQUAL(rig_send(IN_OPERATIONAL | TO_FULL, text), TGT_LOGIN_GO_ON);
	CU_ASSERT_EQUAL(rig.reply.login.flags, PDU_LOGIN_CONTINUE | IN_OPERATIONAL);
	CU_ASSERT_EQUAL(rig.reply.data_len, 512);
	for (;;) {
		for (uint32_t i = 0; i < rig.reply.data_len; i++)
			answers += rig.said[i] == '\n';
		if (rig_send(IN_OPERATIONAL | TO_FULL, "") != TGT_LOGIN_GO_ON)
			break;
	}
	CU_ASSERT_EQUAL(rig.result, TGT_LOGIN_ATTACH);
	tgt_login_attached(rig.login, PDU_LOGIN_SUCCESS, 5, &rig.reply);
	rig_note_reply();
	for (uint32_t i = 0; i < rig.reply.data_len; i++)
		answers += rig.said[i] == '\n';
	/* The unknown ones, MaxRecvDataSegmentLength, TargetAlias and TargetPortalGroupTag. */
	CU_ASSERT_EQUAL(answers, 203);
	rig_connect();
	rig_send(IN_OPERATIONAL | TO_FULL, text);
	CU_ASSERT_EQUAL(rig_send(IN_OPERATIONAL, "X-more=1\n"), TGT_LOGIN_CLOSE);
	rig_close();
}

static void a_discovery_session_needs_no_target(void)
{
	rig_open(rig_config);
	rig_log_in("InitiatorName=" HOST "\nSessionType=Discovery\nMaxBurstLength=512\n");
	CU_ASSERT(tgt_login_params(rig.login)->discovery);
	CHECK_SAID("MaxBurstLength", "Irrelevant");
	CU_ASSERT_PTR_NULL(rig_value("TargetPortalGroupTag"));
	rig_connect();
	rig.rq.tsih = cpu_to_be16(3);
	CU_ASSERT_EQUAL(rig_send(IN_OPERATIONAL, "InitiatorName=" HOST "\nSessionType=Discovery\n"),
			TGT_LOGIN_CLOSE);
	CU_ASSERT_EQUAL(rig_status(), PDU_LOGIN_NO_SESSION);
	rig_close();
}

UNIT_MAIN("login", UNIT_TEST(a_login_goes_through_its_stages),
	  UNIT_TEST(what_is_agreed_is_handed_on),
	  UNIT_TEST(the_security_stage_may_lead_to_full_feature),
	  UNIT_TEST(names_are_needed_at_once), UNIT_TEST(only_whom_the_list_names_gets_in),
	  UNIT_TEST(headers_keep_to_the_rules), UNIT_TEST(a_login_is_one_and_the_same_throughout),
	  UNIT_TEST(other_requests_end_the_login), UNIT_TEST(keys_belong_to_their_stages),
	  UNIT_TEST(a_later_connection_adds_to_its_session), UNIT_TEST(keys_may_be_split_anywhere),
	  UNIT_TEST(a_login_is_bounded), UNIT_TEST(long_answers_come_in_parts),
	  UNIT_TEST(a_discovery_session_needs_no_target));
