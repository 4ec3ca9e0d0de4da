/* SPDX-License-Identifier: Apache-2.0 */
#include "iscsi/negotiate.h"

#include <errno.h>

#include "iscsi/pdu.h"

/* How two offers become one value (RFC 7143, 6.2.2), or why they do not. */
enum kind {
	NUMBER_MIN,	/* the smaller one */
	NUMBER_MAX,	/* the larger one */
	BOOL_OR,
	BOOL_AND,
	DIGEST,		/* the first of the list that we know */
	TASK_REPORTING,
	DECLARED,	/* the initiator's own; no answer */
	LEVEL,		/* iSCSIProtocolLevel: ours is the least there is */
	MARKER,		/* obsolete, 13.25: No */
	MARKER_INT,	/* obsolete: Reject */
	ELSEWHERE,	/* of another stage or phase, or ours to say: Reject */
	IGNORED,	/* declared for people */
};

enum flags {
	LEADING		= 1 << 0,	/* LO: of the session, settled by its first connection */
	NORMAL		= 1 << 1,	/* irrelevant in a discovery session */
};

struct key {
	const char *name;
	enum kind kind;
	unsigned int flags;
	uint32_t low, high, preset;
	unsigned int off, size;		/* in struct tgt_params */
};

#define FIELD(f) offsetof(struct tgt_params, f), sizeof(((struct tgt_params *)NULL)->f)

static const struct key keys[] = {
	{ "HeaderDigest", DIGEST, 0, 0, 1, 0, FIELD(header_digest) },
	{ "DataDigest", DIGEST, 0, 0, 1, 0, FIELD(data_digest) },
	{ "MaxConnections", NUMBER_MIN, LEADING | NORMAL, 1, 65535, 1, FIELD(connections_max) },
	{ "InitialR2T", BOOL_OR, LEADING | NORMAL, 0, 1, 1, FIELD(initial_r2t) },
	{ "ImmediateData", BOOL_AND, LEADING | NORMAL, 0, 1, 1, FIELD(immediate_data) },
	{ "MaxRecvDataSegmentLength", DECLARED, 0, 512, PDU_DATA_LEN_MAX, 8192,
	  FIELD(send_dsl_max) },
	{ "MaxBurstLength", NUMBER_MIN, LEADING | NORMAL, 512, PDU_DATA_LEN_MAX, 262144,
	  FIELD(burst_max) },
	{ "FirstBurstLength", NUMBER_MIN, LEADING | NORMAL, 512, PDU_DATA_LEN_MAX, 65536,
	  FIELD(first_burst) },
	{ "DefaultTime2Wait", NUMBER_MAX, LEADING, 0, 3600, 2, FIELD(time2wait_s) },
	{ "DefaultTime2Retain", NUMBER_MIN, LEADING, 0, 3600, 20, FIELD(time2retain_s) },
	{ "MaxOutstandingR2T", NUMBER_MIN, LEADING | NORMAL, 1, 65535, 1,
	  FIELD(outstanding_r2t_max) },
	{ "DataPDUInOrder", BOOL_OR, LEADING | NORMAL, 0, 1, 1, FIELD(data_pdu_in_order) },
	{ "DataSequenceInOrder", BOOL_OR, LEADING | NORMAL, 0, 1, 1,
	  FIELD(data_sequence_in_order) },
	{ "ErrorRecoveryLevel", NUMBER_MIN, LEADING, 0, 2, 0, FIELD(error_recovery_level) },
	{ "TaskReporting", TASK_REPORTING, LEADING | NORMAL, 0, 1, 0,
	  FIELD(task_reporting_fast_abort) },
	{ "iSCSIProtocolLevel", LEVEL, LEADING | NORMAL, 0, 31, 1, 0, 0 },
	{ "IFMarker", MARKER, 0, 0, 0, 0, 0, 0 },
	{ "OFMarker", MARKER, 0, 0, 0, 0, 0, 0 },
	{ "IFMarkInt", MARKER_INT, 0, 0, 0, 0, 0, 0 },
	{ "OFMarkInt", MARKER_INT, 0, 0, 0, 0, 0, 0 },
	{ "SendTargets", ELSEWHERE, 0, 0, 0, 0, 0, 0 },
	{ "TargetAlias", ELSEWHERE, 0, 0, 0, 0, 0, 0 },
	{ "TargetAddress", ELSEWHERE, 0, 0, 0, 0, 0, 0 },
	{ "TargetPortalGroupTag", ELSEWHERE, 0, 0, 0, 0, 0, 0 },
	{ "InitiatorAlias", IGNORED, 0, 0, 0, 0, 0, 0 },
};
static_assert(ARRAY_SIZE(keys) <= 32, "tgt_negotiation.answered has a bit for each");

/* The fields are of different widths: what fits a key's range fits its field. */
static void field_set(struct tgt_params *params, const struct key *key, uint32_t value)
{
	void *field = (char *)params + key->off;
	uint8_t v8 = (uint8_t)value;
	uint16_t v16 = (uint16_t)value;

	switch (key->size) {
	case 1:
		memcpy(field, &v8, 1);
		break;
	case 2:
		memcpy(field, &v16, 2);
		break;
	case 4:
		memcpy(field, &value, 4);
		break;
	default:
		assert(!key->size);
	}
}

static uint32_t field_get(const struct tgt_params *params, const struct key *key)
{
	const void *field = (const char *)params + key->off;
	uint8_t v8;
	uint16_t v16;
	uint32_t v32;

	switch (key->size) {
	case 1:
		memcpy(&v8, field, 1);
		return v8;
	case 2:
		memcpy(&v16, field, 2);
		return v16;
	default:
		assert(key->size == 4);
		memcpy(&v32, field, 4);
		return v32;
	}
}

void tgt_params_default(struct tgt_params *params)
{
	memset(params, 0, sizeof(*params));
	for (unsigned int i = 0; i < ARRAY_SIZE(keys); i++)
		field_set(params, &keys[i], keys[i].preset);
	params->recv_dsl_max = PDU_LOGIN_DATA_MAX;
}

void tgt_params_ours(struct tgt_params *params)
{
	tgt_params_default(params);
	params->header_digest = true;
	params->data_digest = true;
	params->recv_dsl_max = 256 * KIB;
	params->connections_max = 8;
	params->initial_r2t = false;
	params->immediate_data = true;
	params->burst_max = 1 * MIB;
	params->first_burst = 256 * KIB;
	params->outstanding_r2t_max = 16;
	params->data_pdu_in_order = true;
	params->data_sequence_in_order = true;
	params->time2wait_s = 0;
	/* At ErrorRecoveryLevel 0 a lost connection's commands are lost: nothing to retain. */
	params->time2retain_s = 0;
	params->task_reporting_fast_abort = true;
}

static const struct key *find_key(const struct tgt_pair *pair)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(keys); i++)
		if (tgt_pair_is(pair, keys[i].name))
			return &keys[i];
	return NULL;
}

static bool is_word(const struct tgt_pair *pair, const char *word)
{
	return strlen(word) == pair->value_len && !memcmp(pair->value, word, pair->value_len);
}

/* What an answer looks like: it is no offer, and gets no answer (6.2). */
static bool is_answer(const struct tgt_pair *pair)
{
	return is_word(pair, "Reject") || is_word(pair, "Irrelevant") ||
	       is_word(pair, "NotUnderstood");
}

static bool item_is(const char *item, size_t len, const char *word)
{
	return strlen(word) == len && !memcmp(item, word, len);
}

/* ---- one function for each kind; false: Reject ---- */

static bool agree_number(struct tgt_negotiation *n, const struct key *key,
			 const struct tgt_pair *pair, struct tgt_keys *answer)
{
	uint32_t ours = field_get(n->ours, key), result;
	uint64_t offer;

	if (tgt_value_number(pair->value, pair->value_len, &offer) || offer < key->low ||
	    offer > key->high)
		return false;
	result = (uint32_t)offer;
	if (key->kind == NUMBER_MIN ? ours < result : ours > result)
		result = ours;
	/* The smaller one of three: FirstBurstLength must not exceed MaxBurstLength (13.14). */
	if (key->off == offsetof(struct tgt_params, first_burst) && result > n->params->burst_max)
		result = n->params->burst_max;
	field_set(n->params, key, result);
	tgt_keys_add_number(answer, key->name, result);
	return true;
}

static bool agree_bool(struct tgt_negotiation *n, const struct key *key,
		       const struct tgt_pair *pair, struct tgt_keys *answer)
{
	bool ours = field_get(n->ours, key), offer = is_word(pair, "Yes");

	if (!offer && !is_word(pair, "No"))
		return false;
	offer = key->kind == BOOL_OR ? offer || ours : offer && ours;
	field_set(n->params, key, offer);
	tgt_keys_add(answer, key->name, offer ? "Yes" : "No");
	return true;
}

static bool agree_digest(struct tgt_negotiation *n, const struct key *key,
			 const struct tgt_pair *pair, struct tgt_keys *answer)
{
	const char *item;
	size_t len;

	for (unsigned int i = 0; tgt_pair_item(pair, i, &item, &len); i++) {
		bool crc = item_is(item, len, "CRC32C");

		if (!item_is(item, len, "None") && !(crc && field_get(n->ours, key)))
			continue;
		field_set(n->params, key, crc);
		tgt_keys_add(answer, key->name, crc ? "CRC32C" : "None");
		return true;
	}
	return false;
}

static bool agree_task_reporting(struct tgt_negotiation *n, const struct key *key,
				 const struct tgt_pair *pair, struct tgt_keys *answer)
{
	static const char *const words[] = { "RFC3720", "FastAbort" };
	const char *item;
	size_t len;

	for (unsigned int i = 0; tgt_pair_item(pair, i, &item, &len); i++) {
		for (unsigned int w = 0; w <= field_get(n->ours, key); w++) {
			if (!item_is(item, len, words[w]))
				continue;
			field_set(n->params, key, w);
			tgt_keys_add(answer, key->name, words[w]);
			return true;
		}
	}
	return false;
}

static bool agree_level(const struct key *key, const struct tgt_pair *pair,
			struct tgt_keys *answer)
{
	uint64_t offer;

	if (tgt_value_number(pair->value, pair->value_len, &offer) || offer > key->high)
		return false;
	tgt_keys_add_number(answer, key->name, offer < key->preset ? offer : key->preset);
	return true;
}

static bool agree(struct tgt_negotiation *n, const struct key *key, const struct tgt_pair *pair,
		  struct tgt_keys *answer)
{
	switch (key->kind) {
	case NUMBER_MIN:
	case NUMBER_MAX:
		return agree_number(n, key, pair, answer);
	case BOOL_OR:
	case BOOL_AND:
		return agree_bool(n, key, pair, answer);
	case DIGEST:
		return agree_digest(n, key, pair, answer);
	case TASK_REPORTING:
		return agree_task_reporting(n, key, pair, answer);
	case LEVEL:
		return agree_level(key, pair, answer);
	case MARKER:
		tgt_keys_add(answer, key->name, "No");
		return true;
	default:
		return false;
	}
}

static bool is_irrelevant(const struct tgt_negotiation *n, const struct key *key)
{
	if (n->params->discovery)
		return key->flags & NORMAL;
	/* 13.14: there is no unsolicited data at all. */
	return key->off == offsetof(struct tgt_params, first_burst) &&
	       n->params->initial_r2t && !n->params->immediate_data;
}

static bool declared_length(const struct tgt_pair *pair, uint32_t *len)
{
	uint64_t v;

	if (tgt_value_number(pair->value, pair->value_len, &v) || v < 512 || v > PDU_DATA_LEN_MAX)
		return false;
	*len = (uint32_t)v;
	return true;
}

/* The initiator's own business; but a value that it cannot have would mislead us later. */
static int take_declared(struct tgt_negotiation *n, const struct tgt_pair *pair, const char **why)
{
	if (declared_length(pair, &n->params->send_dsl_max))
		return 0;
	*why = "MaxRecvDataSegmentLength is none from 512 to 16777215";
	return -EPROTO;
}

/* An answer to what was never offered is passed over: one to it would never end. */
static void not_understood(const struct tgt_pair *pair, struct tgt_keys *answer)
{
	char name[TGT_KEY_MAX + 1];

	if (is_answer(pair))
		return;
	memcpy(name, pair->key, pair->key_len);
	name[pair->key_len] = '\0';
	tgt_keys_add(answer, name, "NotUnderstood");
}

int tgt_negotiate_early(const struct tgt_pair *pair, struct tgt_keys *answer, const char **why)
{
	const struct key *key = find_key(pair);

	if (!key) {
		not_understood(pair, answer);
		return 0;
	}
	if (key->kind == ELSEWHERE && is_answer(pair))
		return 0;
	*why = "an operational key in the security stage";
	return -EPROTO;
}

int tgt_negotiate(struct tgt_negotiation *n, const struct tgt_pair *pair, struct tgt_keys *answer,
		  const char **why)
{
	const struct key *key = find_key(pair);
	uint32_t bit;

	if (!key) {
		not_understood(pair, answer);
		return 0;
	}
	bit = 1u << (key - keys);
	if (n->answered & bit) {
		*why = "a key is negotiated twice";
		return -EPROTO;
	}
	n->answered |= bit;
	if (key->flags & LEADING && !n->leading) {
		*why = "a key of the session is negotiated on a later connection of it";
		return -EPROTO;
	}
	if (key->kind == IGNORED || (key->kind == ELSEWHERE && is_answer(pair)))
		return 0;
	if (key->kind == DECLARED)
		return take_declared(n, pair, why);
	if (is_irrelevant(n, key))
		tgt_keys_add(answer, key->name, "Irrelevant");
	else if (pair->value_len > TGT_VALUE_MAX || !agree(n, key, pair, answer))
		tgt_keys_add(answer, key->name, "Reject");
	return 0;
}

void tgt_negotiate_declare(struct tgt_negotiation *n, struct tgt_keys *answer)
{
	if (n->declared)
		return;
	n->declared = true;
	n->params->recv_dsl_max = n->ours->recv_dsl_max;
	tgt_keys_add_number(answer, "MaxRecvDataSegmentLength", n->params->recv_dsl_max);
}

static bool was_answered(const struct tgt_negotiation *n, size_t off)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(keys); i++)
		if (keys[i].size && keys[i].off == off)
			return n->answered & 1u << i;
	return false;
}

int tgt_negotiate_finish(struct tgt_negotiation *n, const char **why)
{
	struct tgt_params *p = n->params;

	if (p->first_burst <= p->burst_max)
		return 0;
	/*
	 * Nobody asked for as much as the preset value, or there is no unsolicited data that it
	 * could limit (13.14: Irrelevant): the burst is the limit.
	 */
	if (!was_answered(n, offsetof(struct tgt_params, first_burst)) ||
	    (p->initial_r2t && !p->immediate_data)) {
		p->first_burst = p->burst_max;
		return 0;
	}
	*why = "FirstBurstLength exceeds MaxBurstLength";
	return -EPROTO;
}

void tgt_renegotiate(const struct tgt_pair *pair, uint32_t *declared, struct tgt_keys *answer)
{
	const struct key *key = find_key(pair);

	if (!key)
		not_understood(pair, answer);
	else if (!is_answer(pair) && key->kind != IGNORED &&
		 (key->kind != DECLARED || !declared_length(pair, declared)))
		tgt_keys_add(answer, key->name, "Reject");
}
