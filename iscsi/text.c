/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text requests in full feature phase: RFC 7143, 11.10 and 11.11.
 *
 * One exchange at a time: its requests carry the TTT that our last response gave.  A request
 * without one begins anew and resets what was not finished.
 */
#include <errno.h>
#include <stdlib.h>

#include "iscsi/config.h"
#include "iscsi/discovery.h"
#include "iscsi/keys.h"
#include "iscsi/login.h"
#include "iscsi/negotiate.h"

enum {
	IN_MAX		= 4096,		/* that one exchange may ask */
	OUT_SPARE	= 8192,		/* of the answer beside the targets */
	REQUESTS_MAX	= 65536,	/* of one exchange: enough for any list in parts of 512 */
};

struct tgt_text {
	struct env	*env;
	const struct tgt_config *config;
	struct tgt_peer	peer;
	uint32_t	ttt;		/* of the exchange, or PDU_TAG_NONE: there is none */
	uint32_t	next_ttt;
	unsigned int	requests;
	uint32_t	declared;	/* MaxRecvDataSegmentLength as of the end of it */
	size_t		in_len, out_sent;
	struct tgt_keys	answer;
	char		in[IN_MAX];
	char		out[];
};

int tgt_text_create(struct env *env, const struct tgt_config *config, const struct tgt_peer *peer,
		    struct tgt_text **out)
{
	size_t size = OUT_SPARE + discovery_size(config);
	struct tgt_text *t = calloc(1, sizeof(*t) + size);

	if (!t)
		return -ENOMEM;
	t->env = env;
	t->config = config;
	t->peer = *peer;
	t->ttt = PDU_TAG_NONE;
	tgt_keys_init(&t->answer, t->out, size);
	*out = t;
	return 0;
}

void tgt_text_destroy(struct tgt_text *text)
{
	free(text);
}

static void reject(struct tgt_text *t, enum pdu_reject_reason reason,
		   const struct pdu_text_request_wire *bhs, struct tgt_reply *reply)
{
	memset(reply, 0, sizeof(*reply));
	reply->valid = true;
	reply->reject.opcode = PDU_REJECT;
	reply->reject.flags = PDU_FINAL;
	reply->reject.reason = (uint8_t)reason;
	reply->reject.itt = cpu_to_be32(PDU_TAG_NONE);
	/* 11.17: the header that is rejected is the data. */
	memcpy(t->in, bhs, sizeof(*bhs));
	reply->data = (const uint8_t *)t->in;
	reply->data_len = sizeof(*bhs);
	reply->reject.data_len = cpu_to_be24(reply->data_len);
	t->ttt = PDU_TAG_NONE;
}

static void begin_exchange(struct tgt_text *t, const struct tgt_params *params)
{
	t->ttt = t->next_ttt++;
	if (t->next_ttt == PDU_TAG_NONE)
		t->next_ttt = 0;
	t->requests = 0;
	t->declared = params->send_dsl_max;
	t->in_len = 0;
	t->out_sent = 0;
	tgt_keys_init(&t->answer, t->out, t->answer.size);
}

static void take_pair(struct tgt_text *t, const struct tgt_params *params,
		      const struct tgt_pair *pair)
{
	char which[SCSI_NAME_MAX];

	if (!tgt_pair_is(pair, "SendTargets")) {
		tgt_renegotiate(pair, &t->declared, &t->answer);
		return;
	}
	if (tgt_pair_copy(pair, which, sizeof(which)) ||
	    (*which && strcmp(which, "All") != 0 && !tgt_name_normalize(which)) ||
	    discovery_list(t->config, &t->peer, params, which, &t->answer))
		tgt_keys_add(&t->answer, "SendTargets", "Reject");
}

/* Return: 0; -EPROTO malformed, or more than can be answered. */
static int take_text(struct tgt_text *t, const struct tgt_params *params)
{
	const char *pos = t->in, *end = t->in + t->in_len;
	struct tgt_pair pair;
	int more;

	while ((more = tgt_pair_next(&pos, end, &pair)) > 0)
		take_pair(t, params, &pair);
	t->in_len = 0;
	return more < 0 || t->answer.full ? -EPROTO : 0;
}

static void put_reply(struct tgt_text *t, struct tgt_params *params,
		      const struct pdu_text_request_wire *bhs, struct tgt_reply *reply)
{
	struct pdu_text_response_wire *r = &reply->text;
	size_t left = t->answer.len - t->out_sent;
	size_t most = params->send_dsl_max < TGT_TEXT_MAX ? params->send_dsl_max : TGT_TEXT_MAX;
	size_t len = left < most ? left : most;

	reply->valid = true;
	r->opcode = PDU_TEXT_RESPONSE;
	memcpy(r->lun, bhs->lun, sizeof(r->lun));
	r->itt = bhs->itt;
	r->data_len = cpu_to_be24((uint32_t)len);
	reply->data = (const uint8_t *)t->out + t->out_sent;
	reply->data_len = (uint32_t)len;
	t->out_sent += len;
	if (len < left)
		r->flags |= PDU_LOGIN_CONTINUE;
	/* 11.11.1: final only where the request was. */
	else if (bhs->flags & PDU_FINAL)
		r->flags |= PDU_FINAL;
	if (r->flags & PDU_FINAL) {
		t->ttt = PDU_TAG_NONE;
		params->send_dsl_max = t->declared;
	}
	r->ttt = cpu_to_be32(t->ttt);
}

static enum pdu_reject_reason take_request(struct tgt_text *t, const struct tgt_params *params,
					   const struct pdu_text_request_wire *bhs,
					   const uint8_t *data, uint32_t data_len)
{
	uint32_t ttt = be32_to_cpu(bhs->ttt);

	if (ttt == PDU_TAG_NONE)
		begin_exchange(t, params);
	else if (ttt != t->ttt)
		return PDU_REJECT_INVALID_FIELD;
	if ((bhs->flags & PDU_FINAL && bhs->flags & PDU_LOGIN_CONTINUE) ||
	    ++t->requests > REQUESTS_MAX)
		return PDU_REJECT_PROTOCOL_ERROR;
	/* While there is more to tell the other side only listens. */
	if (t->out_sent < t->answer.len)
		return data_len ? PDU_REJECT_PROTOCOL_ERROR : 0;
	if (data_len > sizeof(t->in) - t->in_len)
		return PDU_REJECT_OUT_OF_RESOURCES;
	if (data_len)
		memcpy(t->in + t->in_len, data, data_len);
	t->in_len += data_len;
	if (bhs->flags & PDU_LOGIN_CONTINUE)
		return 0;
	tgt_keys_init(&t->answer, t->out, t->answer.size);
	t->out_sent = 0;
	return take_text(t, params) ? PDU_REJECT_PROTOCOL_ERROR : 0;
}

void tgt_text_receive(struct tgt_text *t, struct tgt_params *params,
		      const struct pdu_text_request_wire *bhs, const uint8_t *data,
		      uint32_t data_len, struct tgt_reply *reply)
{
	enum pdu_reject_reason reason;

	memset(reply, 0, sizeof(*reply));
	reason = take_request(t, params, bhs, data, data_len);
	if (reason)
		reject(t, reason, bhs, reply);
	else
		put_reply(t, params, bhs, reply);
}
