// SPDX-License-Identifier: Apache-2.0
#include "iscsi/negotiate.h"

#include <errno.h>

#include "tests/unit.h"

static struct tgt_params params, ours;
static struct tgt_negotiation n;
static char answer_buf[512];
static struct tgt_keys answer;
static const char *why;

static void begin(void)
{
	tgt_params_default(&params);
	tgt_params_ours(&ours);
	n = (struct tgt_negotiation){ .params = &params, .ours = &ours, .leading = true };
}

static int offer(const char *key, const char *value)
{
	struct tgt_pair pair = { key, value, strlen(key), strlen(value) };

	memset(answer_buf, 0, sizeof(answer_buf));
	tgt_keys_init(&answer, answer_buf, sizeof(answer_buf));
	why = NULL;
	return tgt_negotiate(&n, &pair, &answer, &why);
}

/* A negotiation of its own for each: the same key may not come twice. */
static void check(const char *key, const char *value, const char *expected)
{
	char whole[300] = "";

	begin();
	CU_ASSERT_EQUAL(offer(key, value), 0);
	if (expected)
		snprintf(whole, sizeof(whole), "%s=%s", key, expected);
	if (strcmp(answer_buf, whole))
		fprintf(stderr, "%s=%s: answered \"%s\"\n", key, value, answer_buf);
	CU_ASSERT_STRING_EQUAL(answer_buf, whole);
}

static void defaults_are_those_of_the_standard(void)
{
	begin();
	CU_ASSERT(!params.header_digest && !params.data_digest);
	CU_ASSERT(params.connections_max == 1 && params.initial_r2t && params.immediate_data);
	CU_ASSERT(params.recv_dsl_max == 8192 && params.send_dsl_max == 8192);
	CU_ASSERT(params.burst_max == 262144 && params.first_burst == 65536);
	CU_ASSERT(params.time2wait_s == 2 && params.time2retain_s == 20);
	CU_ASSERT(params.outstanding_r2t_max == 1 && params.error_recovery_level == 0);
	CU_ASSERT(params.data_pdu_in_order && params.data_sequence_in_order);
	CU_ASSERT_FALSE(params.task_reporting_fast_abort);
}

static void the_smaller_number_is_agreed(void)
{
	check("MaxConnections", "4", "4");
	CU_ASSERT_EQUAL(params.connections_max, 4);
	check("MaxConnections", "65535", "8");
	check("MaxBurstLength", "0x10000", "65536");
	CU_ASSERT_EQUAL(params.burst_max, 65536);
	check("MaxBurstLength", "16777215", "1048576");
	check("FirstBurstLength", "512", "512");
	CU_ASSERT_EQUAL(params.first_burst, 512);
	check("DefaultTime2Retain", "20", "0");
	check("MaxOutstandingR2T", "3", "3");
	check("ErrorRecoveryLevel", "2", "0");
	CU_ASSERT_EQUAL(params.error_recovery_level, 0);
}

static void the_larger_time_to_wait_is_agreed(void)
{
	check("DefaultTime2Wait", "0", "0");
	check("DefaultTime2Wait", "3600", "3600");
	CU_ASSERT_EQUAL(params.time2wait_s, 3600);
}

/* What is rejected stays as it was: both sides then have the same idea of it. */
static void inadmissible_offers_are_rejected(void)
{
	check("MaxConnections", "0", "Reject");
	CU_ASSERT_EQUAL(params.connections_max, 1);
	check("MaxConnections", "65536", "Reject");
	check("MaxConnections", "many", "Reject");
	check("MaxConnections", "", "Reject");
	check("MaxConnections", "1~2", "Reject");
	check("MaxBurstLength", "511", "Reject");
	check("MaxBurstLength", "16777216", "Reject");
	check("MaxBurstLength", "18446744073709552128", "Reject");	/* 512 modulo 2^64 */
	check("MaxBurstLength", "4294967808", "Reject");		/* 512 modulo 2^32 */
	CU_ASSERT_EQUAL(params.burst_max, 262144);
	check("DefaultTime2Wait", "3601", "Reject");
	check("ErrorRecoveryLevel", "3", "Reject");
	check("InitialR2T", "yes", "Reject");
	check("ImmediateData", "1", "Reject");
	CU_ASSERT(params.immediate_data);
	check("HeaderDigest", "SHA", "Reject");
	check("TaskReporting", "x", "Reject");
	check("iSCSIProtocolLevel", "32", "Reject");
	check("MaxOutstandingR2T",
	      "0x000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
	      "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
	      "000000000000000000000000000000000000000000000000000000000000000000000000000000000000001",
	      "Reject");
}

static void booleans_are_joined_by_their_function(void)
{
	check("InitialR2T", "No", "No");
	CU_ASSERT_FALSE(params.initial_r2t);
	check("InitialR2T", "Yes", "Yes");
	check("ImmediateData", "Yes", "Yes");
	check("ImmediateData", "No", "No");
	CU_ASSERT_FALSE(params.immediate_data);
	check("DataPDUInOrder", "No", "Yes");
	check("DataSequenceInOrder", "No", "Yes");
	CU_ASSERT(params.data_sequence_in_order);
	begin();
	ours.initial_r2t = true;
	ours.immediate_data = false;
	offer("InitialR2T", "No");
	CU_ASSERT_STRING_EQUAL(answer_buf, "InitialR2T=Yes");
	offer("ImmediateData", "Yes");
	CU_ASSERT_STRING_EQUAL(answer_buf, "ImmediateData=No");
}

static void the_first_digest_that_both_know_is_agreed(void)
{
	check("HeaderDigest", "CRC32C,None", "CRC32C");
	CU_ASSERT(params.header_digest && !params.data_digest);
	check("HeaderDigest", "None,CRC32C", "None");
	CU_ASSERT_FALSE(params.header_digest);
	check("DataDigest", "X-com.example.sum,CRC32C", "CRC32C");
	CU_ASSERT(params.data_digest);
	begin();
	ours.data_digest = false;
	offer("DataDigest", "CRC32C");
	CU_ASSERT_STRING_EQUAL(answer_buf, "DataDigest=Reject");
	CU_ASSERT_FALSE(params.data_digest);
}

static void task_reporting_is_chosen_from_a_list(void)
{
	check("TaskReporting", "FastAbort,RFC3720", "FastAbort");
	CU_ASSERT(params.task_reporting_fast_abort);
	check("TaskReporting", "ResponseFence,RFC3720", "RFC3720");
}

/* 13.25: they are understood, whatever became of them. */
static void obsolete_keys_have_their_answers(void)
{
	check("IFMarker", "No", "No");
	check("OFMarker", "Yes", "No");
	check("IFMarkInt", "2048~8192", "Reject");
	check("OFMarkInt", "2048", "Reject");
}

static void unknown_keys_are_not_understood(void)
{
	check("X-com.example.key", "1", "NotUnderstood");
	check("RDMAExtensions", "Yes", "NotUnderstood");
	check("Unknown", "NotUnderstood", NULL);	/* an answer; another would never end */
	check("TargetPortalGroupTag", "1", "Reject");
	check("TargetPortalGroupTag", "NotUnderstood", NULL);
	check("SendTargets", "All", "Reject");
	check("InitiatorAlias", "a host", NULL);
}

static void declarations_get_no_answer(void)
{
	check("MaxRecvDataSegmentLength", "512", NULL);
	CU_ASSERT_EQUAL(params.send_dsl_max, 512);
	check("MaxRecvDataSegmentLength", "16777215", NULL);
	begin();
	CU_ASSERT_EQUAL(offer("MaxRecvDataSegmentLength", "511"), -EPROTO);
	CU_ASSERT_PTR_NOT_NULL(why);
	begin();
	CU_ASSERT_EQUAL(offer("MaxRecvDataSegmentLength", "16777216"), -EPROTO);
	CU_ASSERT_EQUAL(params.send_dsl_max, 8192);
}

static void our_own_declaration_goes_out_once(void)
{
	begin();
	tgt_keys_init(&answer, answer_buf, sizeof(answer_buf));
	tgt_negotiate_declare(&n, &answer);
	CU_ASSERT_STRING_EQUAL(answer_buf, "MaxRecvDataSegmentLength=262144");
	CU_ASSERT_EQUAL(params.recv_dsl_max, 262144);
	tgt_keys_init(&answer, answer_buf, sizeof(answer_buf));
	tgt_negotiate_declare(&n, &answer);
	CU_ASSERT_EQUAL(answer.len, 0);
}

/* Whoever could change an answer that was given would have the two sides disagree. */
static void nothing_is_negotiated_twice(void)
{
	begin();
	CU_ASSERT_EQUAL(offer("MaxBurstLength", "512"), 0);
	CU_ASSERT_EQUAL(offer("MaxBurstLength", "512"), -EPROTO);
	CU_ASSERT_EQUAL(offer("HeaderDigest", "x"), 0);
	CU_ASSERT_EQUAL(offer("HeaderDigest", "None"), -EPROTO);
	CU_ASSERT_EQUAL(offer("MaxRecvDataSegmentLength", "512"), 0);
	CU_ASSERT_EQUAL(offer("MaxRecvDataSegmentLength", "512"), -EPROTO);
}

static void a_later_connection_settles_nothing_of_the_session(void)
{
	begin();
	n.leading = false;
	CU_ASSERT_EQUAL(offer("HeaderDigest", "CRC32C"), 0);
	CU_ASSERT_EQUAL(offer("MaxRecvDataSegmentLength", "65536"), 0);
	CU_ASSERT_EQUAL(offer("MaxBurstLength", "65536"), -EPROTO);
	CU_ASSERT_EQUAL(offer("InitialR2T", "No"), -EPROTO);
}

static void what_a_discovery_session_lacks_is_irrelevant(void)
{
	static const char *const without[] = { "MaxConnections", "InitialR2T", "ImmediateData",
		"MaxBurstLength", "FirstBurstLength", "MaxOutstandingR2T", "DataPDUInOrder",
		"DataSequenceInOrder", "TaskReporting" };
	char expected[64];

	begin();
	params.discovery = true;
	for (unsigned int i = 0; i < ARRAY_SIZE(without); i++) {
		CU_ASSERT_EQUAL(offer(without[i], "1"), 0);
		snprintf(expected, sizeof(expected), "%s=Irrelevant", without[i]);
		CU_ASSERT_STRING_EQUAL(answer_buf, expected);
	}
	CU_ASSERT_EQUAL(offer("ErrorRecoveryLevel", "0"), 0);
	CU_ASSERT_STRING_EQUAL(answer_buf, "ErrorRecoveryLevel=0");
}

static void a_first_burst_needs_unsolicited_data(void)
{
	begin();
	offer("InitialR2T", "Yes");
	offer("ImmediateData", "No");
	offer("FirstBurstLength", "4096");
	CU_ASSERT_STRING_EQUAL(answer_buf, "FirstBurstLength=Irrelevant");
}

/* The preset 65536 exceeds a MaxBurstLength of 4096 without anybody's fault. */
static void the_first_burst_stays_within_the_burst(void)
{
	begin();
	offer("MaxBurstLength", "4096");
	offer("FirstBurstLength", "4096");
	CU_ASSERT_EQUAL(tgt_negotiate_finish(&n, &why), 0);
	begin();
	offer("MaxBurstLength", "4096");
	CU_ASSERT_EQUAL(tgt_negotiate_finish(&n, &why), 0);
	CU_ASSERT_EQUAL(params.first_burst, 4096);
	begin();
	offer("FirstBurstLength", "8192");
	offer("MaxBurstLength", "4096");
	CU_ASSERT_EQUAL(tgt_negotiate_finish(&n, &why), -EPROTO);
	begin();
	ours.burst_max = 4096;
	offer("MaxBurstLength", "65536");
	offer("FirstBurstLength", "65536");
	CU_ASSERT_STRING_EQUAL(answer_buf, "FirstBurstLength=4096");
}

static void check_again(const char *key, const char *value, const char *expected, uint32_t dsl)
{
	struct tgt_pair pair = { key, value, strlen(key), strlen(value) };
	uint32_t declared = 8192;

	memset(answer_buf, 0, sizeof(answer_buf));
	tgt_keys_init(&answer, answer_buf, sizeof(answer_buf));
	tgt_renegotiate(&pair, &declared, &answer);
	CU_ASSERT_STRING_EQUAL(answer_buf, expected);
	CU_ASSERT_EQUAL(declared, dsl);
}

static void only_the_data_segment_may_change_later(void)
{
	check_again("MaxRecvDataSegmentLength", "4096", "", 4096);
	check_again("MaxRecvDataSegmentLength", "1", "MaxRecvDataSegmentLength=Reject", 8192);
	check_again("MaxBurstLength", "4096", "MaxBurstLength=Reject", 8192);
	check_again("HeaderDigest", "None", "HeaderDigest=Reject", 8192);
	check_again("X-foo", "1", "X-foo=NotUnderstood", 8192);
	check_again("X-foo", "Reject", "", 8192);
	check_again("InitiatorAlias", "me", "", 8192);
}

UNIT_MAIN("negotiate", UNIT_TEST(defaults_are_those_of_the_standard),
	  UNIT_TEST(the_smaller_number_is_agreed), UNIT_TEST(the_larger_time_to_wait_is_agreed),
	  UNIT_TEST(inadmissible_offers_are_rejected),
	  UNIT_TEST(booleans_are_joined_by_their_function),
	  UNIT_TEST(the_first_digest_that_both_know_is_agreed),
	  UNIT_TEST(task_reporting_is_chosen_from_a_list),
	  UNIT_TEST(obsolete_keys_have_their_answers), UNIT_TEST(unknown_keys_are_not_understood),
	  UNIT_TEST(declarations_get_no_answer), UNIT_TEST(our_own_declaration_goes_out_once),
	  UNIT_TEST(nothing_is_negotiated_twice),
	  UNIT_TEST(a_later_connection_settles_nothing_of_the_session),
	  UNIT_TEST(what_a_discovery_session_lacks_is_irrelevant),
	  UNIT_TEST(a_first_burst_needs_unsolicited_data),
	  UNIT_TEST(the_first_burst_stays_within_the_burst),
	  UNIT_TEST(only_the_data_segment_may_change_later));
