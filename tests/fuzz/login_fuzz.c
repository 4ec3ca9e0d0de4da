// SPDX-License-Identifier: Apache-2.0
/*
 * A login and what text requests may follow it.  The input is a sequence of PDUs: two bytes of
 * length, a byte of flags, one that says what is unusual about the header, then the text.
 */
#include <netinet/in.h>
#include <stdlib.h>

#include "iscsi/config.h"
#include "iscsi/login.h"
#include "tests/fuzz/fuzz.h"

static const char config_text[] =
	"portal = 192.0.2.1:3260\nportal = [::]:3260 2\n"
	"[target iqn.2026-01.example:a]\nalias = a\ninitiator = *\n"
	"[target iqn.2026-01.example:b]\ninitiator = iqn.2026-01.example:h u\nsecrets = /s\n";
static char secrets_text[] = "incoming u 123456789012\noutgoing t 210987654321\n";

static struct tgt_config *config;
static struct tgt_peer peer;

static void make_config(void)
{
	char why[256];
	FILE *in = fmemopen((void *)(uintptr_t)config_text, sizeof(config_text) - 1, "r");

	env_posix_log_level(LOG_LEVEL_ERROR);
	FUZZ_CHECK(!tgt_config_create(&config) &&
		   !tgt_config_read(config, in, "c", why, sizeof(why)));
	fclose(in);
	in = fmemopen(secrets_text, sizeof(secrets_text) - 1, "r");
	FUZZ_CHECK(!tgt_auth_read_secrets(&config->targets[1].auth, in, "s", why, sizeof(why)));
	fclose(in);
	peer.local.ss_family = AF_INET;
	peer.remote.ss_family = AF_INET;
	peer.portal_group = 1;
}

struct input {
	const uint8_t *data;
	size_t size;
};

/* The next PDU of the input; what is unusual is a bit of its own each. */
static bool next_pdu(struct input *in, struct pdu_login_request_wire *rq, const uint8_t **text,
		     uint32_t *len)
{
	unsigned int odd;

	if (in->size < 4)
		return false;
	*len = (uint32_t)(in->data[0] << 8 | in->data[1]) % (PDU_LOGIN_DATA_MAX + 1);
	memset(rq, 0, sizeof(*rq));
	rq->flags = in->data[2];
	odd = in->data[3];
	in->data += 4;
	in->size -= 4;
	if (*len > in->size)
		*len = (uint32_t)in->size;
	*text = in->data;
	in->data += *len;
	in->size -= *len;
	rq->opcode = odd & 1 ? PDU_NOP_OUT : PDU_LOGIN_REQUEST | PDU_IMMEDIATE;
	rq->version_min = odd >> 1 & 1;
	rq->ahs_len = odd >> 2 & 1;
	rq->tsih = cpu_to_be16(odd >> 3 & 1);
	rq->cid = cpu_to_be16(odd >> 4 & 1);
	rq->data_len = cpu_to_be24(*len);
	return true;
}

static void check_reply(const struct tgt_reply *reply)
{
	unsigned int sum = 0;

	if (!reply->valid)
		return;
	FUZZ_CHECK(be24_to_cpu(reply->bhs.data_len) == reply->data_len);
	for (uint32_t i = 0; i < reply->data_len; i++)
		sum += reply->data[i];	/* a sanitizer sees what is not there */
	__asm__ volatile("" : : "r"(sum));
}

/* In full feature phase: the rest of the input is text requests. */
static void talk(struct input *in, const struct tgt_params *agreed)
{
	struct tgt_params params = *agreed;
	struct pdu_text_request_wire rq;
	struct pdu_login_request_wire raw;
	struct tgt_reply reply;
	struct tgt_text *text;
	const uint8_t *data;
	uint32_t len, limit;
	be32 ttt = cpu_to_be32(PDU_TAG_NONE);

	FUZZ_CHECK(!tgt_text_create(env_posix(), config, &peer, &text));
	while (next_pdu(in, &raw, &data, &len)) {
		memcpy(&rq, &raw, sizeof(rq));
		rq.opcode = PDU_TEXT_REQUEST;
		rq.ttt = ttt;
		limit = params.send_dsl_max;
		tgt_text_receive(text, &params, &rq, data, len, &reply);
		FUZZ_CHECK(reply.valid);
		check_reply(&reply);
		FUZZ_CHECK(reply.bhs.opcode == PDU_REJECT || reply.data_len <= limit);
		FUZZ_CHECK(params.send_dsl_max >= 512 && params.send_dsl_max <= PDU_DATA_LEN_MAX);
		ttt = reply.bhs.opcode == PDU_REJECT ? cpu_to_be32(PDU_TAG_NONE) : reply.text.ttt;
	}
	tgt_text_destroy(text);
}

/* Whoever comes this far may: nobody has got to the one with secrets without them. */
static void check_agreed(const struct tgt_params *p)
{
	FUZZ_CHECK(p->initiator[0] && strcmp(p->target, "iqn.2026-01.example:b") != 0);
	FUZZ_CHECK(p->discovery == !p->target[0]);
	FUZZ_CHECK(p->first_burst <= p->burst_max && p->burst_max >= 512);
	FUZZ_CHECK(p->send_dsl_max >= 512 && p->send_dsl_max <= PDU_DATA_LEN_MAX);
	FUZZ_CHECK(p->connections_max >= 1 && p->outstanding_r2t_max >= 1);
	FUZZ_CHECK(!p->error_recovery_level);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct input in = { bytes, size };
	enum tgt_login_result result = TGT_LOGIN_GO_ON;
	struct pdu_login_request_wire rq;
	struct tgt_login *login;
	struct tgt_reply reply;
	const uint8_t *text;
	uint32_t len;

	if (!config)
		make_config();
	env_posix_log_level(LOG_LEVEL_ERROR);
	FUZZ_CHECK(!tgt_login_create(env_posix(), config, &peer, &login));
	while (result == TGT_LOGIN_GO_ON && next_pdu(&in, &rq, &text, &len)) {
		result = tgt_login_receive(login, (const void *)&rq, text, len, &reply);
		check_reply(&reply);
		FUZZ_CHECK(reply.valid == (result != TGT_LOGIN_ATTACH));
		FUZZ_CHECK(!reply.valid || reply.data_len <= PDU_LOGIN_DATA_MAX);
	}
	if (result == TGT_LOGIN_ATTACH) {
		check_agreed(tgt_login_params(login));
		FUZZ_CHECK(tgt_login_attached(login, PDU_LOGIN_SUCCESS, 9, &reply) ==
			   TGT_LOGIN_FULL);
		check_reply(&reply);
		talk(&in, tgt_login_params(login));
	}
	tgt_login_destroy(login);
	return 0;
}
