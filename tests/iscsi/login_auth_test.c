// SPDX-License-Identifier: Apache-2.0
#include "iscsi/login_auth.h"

#include "tests/iscsi/login_rig.h"

#define NAMES(host)	"InitiatorName=" host "\nTargetName=" DISK3 "\n"
#define FULL_TEXT	2048

struct challenge {
	enum tgt_chap_alg alg;
	uint8_t	id;
	uint8_t	bytes[64];
	size_t	len;
};

/* Up to our challenge, which has to be well-formed. */
static bool get_challenged(const char *names, const char *algorithms, struct challenge *c)
{
	char text[512];
	uint64_t number = 0;

	rig_connect();
	snprintf(text, sizeof(text), "%sAuthMethod=CHAP,None\n", names);
	CU_ASSERT_EQUAL(rig_send(IN_SECURITY | TO_OPERATIONAL, text), TGT_LOGIN_GO_ON);
	CU_ASSERT_EQUAL(rig.reply.login.flags, IN_SECURITY);	/* not yet */
	CHECK_SAID("AuthMethod", "CHAP");
	snprintf(text, sizeof(text), "CHAP_A=%s\n", algorithms);
	if (rig_send(IN_SECURITY | TO_OPERATIONAL, text) != TGT_LOGIN_GO_ON)
		return false;
	CU_ASSERT_EQUAL(rig.reply.login.flags, IN_SECURITY);
	memset(c, 0, sizeof(*c));
	CU_ASSERT_FATAL(rig_value("CHAP_A") && rig_value("CHAP_I") && rig_value("CHAP_C"));
	tgt_value_number(rig_value("CHAP_A"), strlen(rig_value("CHAP_A")), &number);
	c->alg = (enum tgt_chap_alg)number;
	CU_ASSERT_EQUAL(tgt_value_number(rig_value("CHAP_I"), strlen(rig_value("CHAP_I")),
					 &number), 0);
	c->id = (uint8_t)number;
	CU_ASSERT_EQUAL(tgt_value_binary(rig_value("CHAP_C"), strlen(rig_value("CHAP_C")), c->bytes,
					 sizeof(c->bytes), &c->len), 0);
	CU_ASSERT_EQUAL(c->len, TGT_CHAP_CHALLENGE);
	return true;
}

static void make_response(const struct challenge *c, const char *secret, char hex[80])
{
	struct tgt_secret s = { .len = strlen(secret) };
	uint8_t response[TGT_CHAP_DIGEST_MAX];

	memcpy(s.bytes, secret, s.len);
	CU_ASSERT_EQUAL(tgt_chap_response(c->alg, c->id, &s, c->bytes, c->len, response), 0);
	tgt_value_hex(response, tgt_chap_digest_len(c->alg), hex);
}

/* The last step, with @more behind the response.  Return: whether the stage is left. */
static bool answer(const struct challenge *c, const char *user, const char *secret,
		   const char *more)
{
	char hex[80], text[FULL_TEXT + 512];

	make_response(c, secret, hex);
	snprintf(text, sizeof(text), "CHAP_N=%s\nCHAP_R=%s\n%s", user, hex, more);
	return rig_send(IN_SECURITY | TO_OPERATIONAL, text) == TGT_LOGIN_GO_ON &&
	       rig.reply.login.flags == (PDU_LOGIN_TRANSIT | 1);
}

static bool log_in(const char *names, const char *algorithms, const char *user,
		   const char *secret)
{
	struct challenge c;

	return get_challenged(names, algorithms, &c) && answer(&c, user, secret, "");
}

static void the_right_secret_gets_in_by_every_algorithm(void)
{
	rig_open(rig_config);
	CU_ASSERT(log_in(NAMES(HOST), "5", "alice", "alices secret!"));
	CU_ASSERT(log_in(NAMES(HOST), "6", "alice", "alices secret!"));
	CU_ASSERT(log_in(NAMES(HOST), "7", "alice", "alices secret!"));
	CU_ASSERT(log_in(NAMES(HOST), "8", "alice", "alices secret!"));
	CU_ASSERT(log_in(NAMES(HOST), "9,8,5", "alice", "alices secret!"));
	CU_ASSERT_EQUAL(rig_send(IN_OPERATIONAL | TO_FULL, ""), TGT_LOGIN_ATTACH);
	rig_close();
}

/* bob's secret is right, but the list says that this initiator has to be alice. */
static void nobody_else_gets_in_and_all_hear_the_same(void)
{
	static const struct { const char *names, *user, *secret; } bad[] = {
		{ NAMES(HOST), "alice", "alices secret?" },
		{ NAMES(HOST), "alice", "" },
		{ NAMES(HOST), "mallory", "alices secret!" },
		{ NAMES(HOST), "bob", "bobs own secret" },
		{ NAMES(HOST), "", "alices secret!" },
		{ NAMES(HOST), "disk", "the disk's secret" },
		{ NAMES("iqn.2026-01.example:unknown"), "alice", "alices secret!" },
	};
	struct tgt_reply first;

	rig_open(rig_config);
	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		CU_ASSERT_FALSE(log_in(bad[i].names, "7", bad[i].user, bad[i].secret));
		CU_ASSERT_EQUAL(rig.result, TGT_LOGIN_CLOSE);
		CU_ASSERT_EQUAL(rig_status(), PDU_LOGIN_AUTH_FAILURE);
		if (!i)
			first = rig.reply;
		CU_ASSERT_EQUAL(memcmp(&first.bhs, &rig.reply.bhs, sizeof(first.bhs)), 0);
		CU_ASSERT_EQUAL(rig.reply.data_len, 0);
	}
	rig_close();
}

static void a_downgrade_is_refused(void)
{
	static const struct { unsigned int flags; const char *text; } bad[] = {
		{ IN_SECURITY | TO_OPERATIONAL, NAMES(HOST) "AuthMethod=None\n" },
		{ IN_SECURITY, NAMES(HOST) "AuthMethod=None\n" },
		{ IN_SECURITY, NAMES(HOST) "AuthMethod=SRP,KRB5,None\n" },
		{ IN_SECURITY, NAMES(HOST) "AuthMethod=\n" },
		{ IN_SECURITY | TO_OPERATIONAL, NAMES(HOST) },
		{ IN_SECURITY | TO_FULL, NAMES(HOST) },
		{ IN_OPERATIONAL, NAMES(HOST) },
		{ IN_OPERATIONAL | TO_FULL, NAMES(HOST) },
	};

	rig_open(rig_config);
	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		rig_connect();
		CU_ASSERT_EQUAL(rig_send(bad[i].flags, bad[i].text), TGT_LOGIN_CLOSE);
		CU_ASSERT_EQUAL(rig_status(), PDU_LOGIN_AUTH_FAILURE);
	}
	rig_close();
}

/* To wait is allowed; to go on is not, neither before nor between the steps. */
static void no_step_can_be_left_out(void)
{
	struct challenge c;

	rig_open(rig_config);
	rig_connect();
	CU_ASSERT_EQUAL(rig_send(IN_SECURITY, NAMES(HOST)), TGT_LOGIN_GO_ON);
	CU_ASSERT_EQUAL(rig_send(IN_SECURITY | TO_FULL, ""), TGT_LOGIN_CLOSE);
	CU_ASSERT_EQUAL(rig_status(), PDU_LOGIN_AUTH_FAILURE);

	rig_connect();
	rig_send(IN_SECURITY, NAMES(HOST) "AuthMethod=CHAP\n");
	CU_ASSERT_EQUAL(rig_send(IN_SECURITY | TO_FULL, ""), TGT_LOGIN_GO_ON);
	CU_ASSERT_EQUAL(rig.reply.login.flags, IN_SECURITY);
	CU_ASSERT_EQUAL(rig_send(IN_OPERATIONAL, ""), TGT_LOGIN_CLOSE);

	get_challenged(NAMES(HOST), "5", &c);
	CU_ASSERT_EQUAL(rig_send(IN_SECURITY | TO_OPERATIONAL, ""), TGT_LOGIN_CLOSE);
	CU_ASSERT_EQUAL(rig_status(), PDU_LOGIN_AUTH_FAILURE);
	get_challenged(NAMES(HOST), "5", &c);
	CU_ASSERT_EQUAL(rig_send(IN_SECURITY | TO_OPERATIONAL, "CHAP_N=alice\n"), TGT_LOGIN_CLOSE);
	get_challenged(NAMES(HOST), "5", &c);
	CU_ASSERT_EQUAL(rig_send(IN_SECURITY, "CHAP_A=5\n"), TGT_LOGIN_CLOSE);
	get_challenged(NAMES(HOST), "5", &c);
	CU_ASSERT_EQUAL(rig_send(IN_SECURITY, "AuthMethod=None\n"), TGT_LOGIN_CLOSE);

	rig_connect();
	CU_ASSERT_EQUAL(rig_send(IN_SECURITY, NAMES(HOST) "AuthMethod=CHAP\nCHAP_N=alice\n"
				 "CHAP_R=0x00\n"), TGT_LOGIN_CLOSE);
	rig_connect();
	CU_ASSERT_EQUAL(rig_send(IN_SECURITY, NAMES(HOST) "AuthMethod=CHAP\nCHAP_A=5\n"
				 "CHAP_N=alice\nCHAP_R=0x00\n"), TGT_LOGIN_CLOSE);
	rig_connect();
	rig_send(IN_SECURITY, NAMES(HOST) "AuthMethod=CHAP\n");
	CU_ASSERT_EQUAL(rig_send(IN_SECURITY, "CHAP_A=1,2,3\n"), TGT_LOGIN_CLOSE);
	CU_ASSERT_EQUAL(rig_status(), PDU_LOGIN_AUTH_FAILURE);
	rig_close();
}

static void we_prove_ourselves_when_asked(void)
{
	static const unsigned int algs[] = { 5, 6, 7, 8 };
	uint8_t theirs[16] = "their challenge";

	rig_open(rig_config);
	for (unsigned int i = 0; i < ARRAY_SIZE(algs); i++) {
		char list[4], more[128], hex[80], challenge_hex[40];
		struct challenge c, mine = { .id = 200, .len = sizeof(theirs) };

		snprintf(list, sizeof(list), "%u", algs[i]);
		CU_ASSERT_FATAL(get_challenged(NAMES(HOST), list, &c));
		snprintf(more, sizeof(more), "CHAP_I=200\nCHAP_C=%s\n",
			 tgt_value_hex(theirs, sizeof(theirs), challenge_hex));
		CU_ASSERT(answer(&c, "alice", "alices secret!", more));
		mine.alg = (enum tgt_chap_alg)algs[i];
		memcpy(mine.bytes, theirs, sizeof(theirs));
		make_response(&mine, "the disk's secret", hex);
		CHECK_SAID("CHAP_N", "disk");
		CHECK_SAID("CHAP_R", hex);
	}
	rig_close();
}

/* An oracle: who sends our challenge back would have the answer to it computed by us. */
static void our_own_challenge_is_not_answered(void)
{
	struct challenge c;
	char more[256], hex[80];

	rig_open(rig_config);
	get_challenged(NAMES(HOST), "7", &c);
	snprintf(more, sizeof(more), "CHAP_I=%u\nCHAP_C=%s\n", c.id,
		 tgt_value_hex(c.bytes, c.len, hex));
	CU_ASSERT_FALSE(answer(&c, "alice", "alices secret!", more));
	CU_ASSERT_EQUAL(rig.result, TGT_LOGIN_CLOSE);
	CU_ASSERT_EQUAL(rig_status(), PDU_LOGIN_AUTH_FAILURE);
	CU_ASSERT_PTR_NULL(rig_value("CHAP_R"));
	rig_close();
}

/* Nor does anybody who has not proved himself first. */
static void strangers_get_no_proof(void)
{
	struct challenge c;

	rig_open(rig_config);
	get_challenged(NAMES(HOST), "7", &c);
	CU_ASSERT_FALSE(answer(&c, "alice", "another secret", "CHAP_I=1\nCHAP_C=0x1234\n"));
	CU_ASSERT_EQUAL(rig.reply.data_len, 0);
	rig_close();
}

static void malformed_answers_are_refused(void)
{
	static const char *const bad[] = {
		"CHAP_N=alice\nCHAP_R=xyz\n", "CHAP_N=alice\nCHAP_R=\n",
		"CHAP_N=alice\nCHAP_R=0x0\n", "CHAP_N=alice\nCHAP_N=alice\nCHAP_R=0x00\n",
		"CHAP_N=alice\nCHAP_R=0x00\nCHAP_R=0x00\n",
		"CHAP_N=alice\nCHAP_R=0x00\nCHAP_I=256\nCHAP_C=0x00\n",
		"CHAP_N=alice\nCHAP_R=0x00\nCHAP_I=1\n",
		"CHAP_N=alice\nCHAP_R=0x00\nCHAP_C=0x00\n",
		"CHAP_N=alice\nCHAP_R=0x00\nCHAP_I=1\nCHAP_C=\n",
		"CHAP_N=alice\nCHAP_R=0x00\nCHAP_I=1\nCHAP_I=1\nCHAP_C=0x00\n",
	};
	char text[4096], hex[80];
	struct challenge c;

	rig_open(rig_config);
	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		get_challenged(NAMES(HOST), "5", &c);
		CU_ASSERT_EQUAL(rig_send(IN_SECURITY | TO_OPERATIONAL, bad[i]), TGT_LOGIN_CLOSE);
	}
	/* A challenge of more than 1,024 bytes; a response with something behind it. */
	get_challenged(NAMES(HOST), "5", &c);
	make_response(&c, "alices secret!", hex);
	snprintf(text, sizeof(text), "CHAP_N=alice\nCHAP_R=%s\nCHAP_I=1\nCHAP_C=0x%02050d\n", hex,
		 1);
	CU_ASSERT_EQUAL(rig_send(IN_SECURITY | TO_OPERATIONAL, text), TGT_LOGIN_CLOSE);
	get_challenged(NAMES(HOST), "5", &c);
	make_response(&c, "alices secret!", hex);
	snprintf(text, sizeof(text), "CHAP_N=alice\nCHAP_R=%s%0100d\n", hex, 0);
	CU_ASSERT_EQUAL(rig_send(IN_SECURITY | TO_OPERATIONAL, text), TGT_LOGIN_CLOSE);
	CU_ASSERT_EQUAL(rig_status(), PDU_LOGIN_AUTH_FAILURE);
	rig_close();
}

static void challenges_do_not_repeat(void)
{
	struct challenge a, b;

	rig_open(rig_config);
	get_challenged(NAMES(HOST), "5", &a);
	get_challenged(NAMES(HOST), "5", &b);
	CU_ASSERT_NOT_EQUAL(memcmp(a.bytes, b.bytes, a.len), 0);
	rig_close();
}

/* A target without secrets cannot authenticate; it says so instead of pretending. */
static void chap_is_not_agreed_where_there_are_no_secrets(void)
{
	rig_open(rig_config);
	rig_connect();
	rig_send(IN_SECURITY, "InitiatorName=" HOST "\nTargetName=" DISK1
		 "\nAuthMethod=CHAP,None\n");
	CHECK_SAID("AuthMethod", "None");
	rig_connect();
	CU_ASSERT_EQUAL(rig_send(IN_SECURITY, "InitiatorName=" HOST "\nTargetName=" DISK1
				 "\nAuthMethod=CHAP\n"), TGT_LOGIN_CLOSE);
	CU_ASSERT_EQUAL(rig_status(), PDU_LOGIN_AUTH_FAILURE);
	rig_close();
}

static void discovery_can_ask_for_chap_too(void)
{
	struct challenge c;

	rig_open(rig_config);
	rig.config->discovery.required = true;
	rig_read_secrets(&rig.config->discovery, "incoming eve a long secret\n");
	rig_connect();
	CU_ASSERT_EQUAL(rig_send(IN_OPERATIONAL | TO_FULL,
				 "InitiatorName=" HOST "\nSessionType=Discovery\n"),
			TGT_LOGIN_CLOSE);
	CU_ASSERT_EQUAL(rig_status(), PDU_LOGIN_AUTH_FAILURE);
	CU_ASSERT_FATAL(get_challenged("InitiatorName=" HOST "\nSessionType=Discovery\n", "7", &c));
	CU_ASSERT(answer(&c, "eve", "a long secret", ""));
	rig_close();
}

UNIT_MAIN("login_auth", UNIT_TEST(the_right_secret_gets_in_by_every_algorithm),
	  UNIT_TEST(nobody_else_gets_in_and_all_hear_the_same), UNIT_TEST(a_downgrade_is_refused),
	  UNIT_TEST(no_step_can_be_left_out), UNIT_TEST(we_prove_ourselves_when_asked),
	  UNIT_TEST(our_own_challenge_is_not_answered), UNIT_TEST(strangers_get_no_proof),
	  UNIT_TEST(malformed_answers_are_refused), UNIT_TEST(challenges_do_not_repeat),
	  UNIT_TEST(chap_is_not_agreed_where_there_are_no_secrets),
	  UNIT_TEST(discovery_can_ask_for_chap_too));
