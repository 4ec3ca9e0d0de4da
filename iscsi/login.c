/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Login: RFC 7143, 6.3, 11.12 and 11.13.
 *
 *	            first request                 T, NSG=1
 *	(nothing) ───────────────▶ security ───────────────▶ operational
 *	     │     CSG=0                │                         │
 *	     └── CSG=1 ─────────────────┼────────────▶ (as if from there)
 *	                                │ T, NSG=3                │ T, NSG=3
 *	                                └────────▶ ATTACH ◀───────┘
 *	                                             │ tgt_login_attached()
 *	                                             ▼
 *	                                        full feature
 *
 * Any fault ends it: refuse().  Text that is split over requests (C) is collected before it
 * is looked at; an answer that is too long for a PDU goes out in parts, which the initiator
 * fetches with empty requests.
 */
#include "iscsi/login.h"

#include <errno.h>
#include <stdlib.h>

#include "iscsi/config.h"
#include "iscsi/login_auth.h"
#include "iscsi/negotiate.h"

enum {
	TEXT_MAX	= 16384,	/* that one step of the negotiation may say */
	REQUESTS_MAX	= 64,		/* of one login; a real one takes two to six */
	VERSION		= 0,		/* RFC 7143, 11.12.4: the only one */
};

struct tgt_login {
	struct env	*env;
	const struct tgt_config *config;
	const struct tgt_target *target;	/* NULL in a discovery session */
	struct tgt_peer	peer;
	struct tgt_params params;
	struct tgt_negotiation negotiation;
	struct tgt_auth_exchange auth;

	/* of the first request; the others have to repeat it */
	struct pdu_login_request_wire first;
	bool		begun;		/* there was a first request */
	bool		named;		/* we know who it is and what it wants */
	bool		told;		/* TargetPortalGroupTag was sent */
	uint8_t		stage;		/* enum pdu_stage that requests have to be in */
	unsigned int	requests;
	uint8_t		flags;		/* of the request at hand */

	size_t		in_len, out_sent;
	struct tgt_keys	answer;
	char		in[TEXT_MAX], out[TEXT_MAX];
};

int tgt_login_create(struct env *env, const struct tgt_config *config, const struct tgt_peer *peer,
		     struct tgt_login **out)
{
	struct tgt_login *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->env = env;
	l->config = config;
	l->peer = *peer;
	tgt_params_default(&l->params);
	l->negotiation.params = &l->params;
	l->negotiation.ours = &config->ours;
	tgt_keys_init(&l->answer, l->out, sizeof(l->out));
	*out = l;
	return 0;
}

void tgt_login_destroy(struct tgt_login *login)
{
	if (!login)
		return;
	tgt_secret_forget(login, sizeof(*login));
	free(login);
}

const struct tgt_params *tgt_login_params(const struct tgt_login *login)
{
	return &login->params;
}

/* ---- replies ---- */

static unsigned int current_stage(uint8_t flags)
{
	return flags >> PDU_LOGIN_CSG_SHIFT & PDU_LOGIN_STAGE_MASK;
}

static unsigned int next_stage(uint8_t flags)
{
	return flags & PDU_LOGIN_STAGE_MASK;
}

static struct pdu_login_response_wire *begin_reply(const struct tgt_login *l,
						   struct tgt_reply *reply)
{
	struct pdu_login_response_wire *r = &reply->login;

	memset(reply, 0, sizeof(*reply));
	reply->valid = true;
	r->opcode = PDU_LOGIN_RESPONSE;
	r->flags = (uint8_t)(l->flags & PDU_LOGIN_STAGE_MASK << PDU_LOGIN_CSG_SHIFT);
	r->version_max = VERSION;
	r->version_active = VERSION;
	memcpy(r->isid, l->first.isid, sizeof(r->isid));
	r->tsih = l->first.tsih;
	r->itt = l->first.itt;
	return r;
}

static enum tgt_login_result refuse(struct tgt_login *l, enum pdu_login_status status,
				    const char *why, struct tgt_reply *reply)
{
	char from[64];

	begin_reply(l, reply)->status = cpu_to_be16((uint16_t)status);
	log_warning(l->env, tgt_portal_format(&l->peer.remote, from),
		    "login of %s refused (status %04x): %s",
		    l->params.initiator[0] ? l->params.initiator : "an initiator without a name",
		    (unsigned int)status, why);
	return TGT_LOGIN_CLOSE;
}

/* What fits a PDU of what there is to say; sets C where more is to come. */
static void put_text(struct tgt_login *l, struct tgt_reply *reply)
{
	size_t left = l->answer.len - l->out_sent, most = PDU_LOGIN_DATA_MAX;

	if (l->params.send_dsl_max < most)
		most = l->params.send_dsl_max;
	reply->data = (const uint8_t *)l->out + l->out_sent;
	reply->data_len = (uint32_t)(left < most ? left : most);
	reply->login.data_len = cpu_to_be24(reply->data_len);
	l->out_sent += reply->data_len;
	if (left > most)
		reply->login.flags |= PDU_LOGIN_CONTINUE;
}

static void add_transit(const struct tgt_login *l, struct tgt_reply *reply)
{
	reply->login.flags |= (uint8_t)(PDU_LOGIN_TRANSIT | next_stage(l->flags));
}

static enum tgt_login_result go_on(struct tgt_login *l, struct tgt_reply *reply)
{
	begin_reply(l, reply);
	put_text(l, reply);
	return TGT_LOGIN_GO_ON;
}

/* ---- the header ---- */

static const char *check_stages(const struct tgt_login *l, uint8_t flags)
{
	unsigned int now = current_stage(flags), next = next_stage(flags);

	if (now > PDU_STAGE_OPERATIONAL)
		return "there is no login in that stage";
	if (l->begun && now != l->stage)
		return "it is in another stage than was agreed";
	if (!(flags & PDU_LOGIN_TRANSIT))
		return NULL;
	if (flags & PDU_LOGIN_CONTINUE)
		return "T and C at once";
	if (next <= now || next == 2)
		return "there is no transition to that stage";
	return NULL;
}

/* 11.12: what names the login does not change while it lasts. */
static const char *check_same(const struct pdu_login_request_wire *a,
			      const struct pdu_login_request_wire *b)
{
	if (memcmp(&a->itt, &b->itt, sizeof(a->itt)))
		return "its ITT changes";
	if (memcmp(a->isid, b->isid, sizeof(a->isid)) || memcmp(&a->tsih, &b->tsih, sizeof(a->tsih)))
		return "its ISID or TSIH changes";
	if (memcmp(&a->cid, &b->cid, sizeof(a->cid)))
		return "its CID changes";
	if (a->version_max != b->version_max || a->version_min != b->version_min)
		return "its version changes";
	return NULL;
}

static enum pdu_login_status check_header(struct tgt_login *l,
					  const struct pdu_login_request_wire *rq, const char **why)
{
	if (!l->begun) {
		l->first = *rq;
		l->stage = (uint8_t)current_stage(rq->flags);
		memcpy(l->params.isid, rq->isid, sizeof(rq->isid));
		l->params.tsih = be16_to_cpu(rq->tsih);
		l->params.cid = be16_to_cpu(rq->cid);
		l->negotiation.leading = !l->params.tsih;
	}
	*why = "it speaks no version that we do";
	if (rq->version_min > VERSION)
		return PDU_LOGIN_BAD_VERSION;
	*why = rq->ahs_len ? "additional header segments" : check_stages(l, rq->flags);
	if (!*why && l->begun)
		*why = check_same(&l->first, rq);
	if (!*why && ++l->requests > REQUESTS_MAX)
		*why = "too many requests";
	l->begun = true;
	return *why ? PDU_LOGIN_INITIATOR_ERROR : PDU_LOGIN_SUCCESS;
}

/* ---- who it is and what it wants ---- */

struct names {
	char	target[SCSI_NAME_MAX];
	bool	has_initiator, has_target, has_type, has_alias;
};

static bool is_name_key(const struct tgt_pair *pair)
{
	return tgt_pair_is(pair, "InitiatorName") || tgt_pair_is(pair, "TargetName") ||
	       tgt_pair_is(pair, "SessionType") || tgt_pair_is(pair, "InitiatorAlias");
}

static enum pdu_login_status take_text(const struct tgt_pair *pair, bool *has, char *buf,
				       size_t size, const char **why)
{
	if (*has || tgt_pair_copy(pair, buf, size)) {
		*why = *has ? "a name or the session type twice" : "a name is too long";
		return PDU_LOGIN_INITIATOR_ERROR;
	}
	*has = true;
	return PDU_LOGIN_SUCCESS;
}

static enum pdu_login_status take_type(struct tgt_login *l, const struct tgt_pair *pair,
				       struct names *n, const char **why)
{
	char type[16];
	enum pdu_login_status status = take_text(pair, &n->has_type, type, sizeof(type), why);

	if (status)
		return status;
	l->params.discovery = !strcmp(type, "Discovery");
	if (l->params.discovery || !strcmp(type, "Normal"))
		return PDU_LOGIN_SUCCESS;
	*why = "an unknown session type";
	return PDU_LOGIN_SESSION_TYPE;
}

static enum pdu_login_status take_name(struct tgt_login *l, const struct tgt_pair *pair,
				       struct names *n, const char **why)
{
	struct tgt_params *p = &l->params;

	if (tgt_pair_is(pair, "SessionType"))
		return take_type(l, pair, n, why);
	if (tgt_pair_is(pair, "TargetName"))
		return take_text(pair, &n->has_target, n->target, sizeof(n->target), why);
	if (tgt_pair_is(pair, "InitiatorAlias"))
		return take_text(pair, &n->has_alias, p->initiator_alias,
				 sizeof(p->initiator_alias), why);
	return take_text(pair, &n->has_initiator, p->initiator, sizeof(p->initiator), why);
}

/* What initiators may list but not use is found; what they may not even list, forbidden. */
static enum pdu_login_status find_target(struct tgt_login *l, char *name, const char **why)
{
	const struct tgt_initiator *admitted;

	*why = "there is no such target";
	if (!tgt_name_normalize(name))
		return PDU_LOGIN_NOT_FOUND;
	l->target = tgt_config_target(l->config, name);
	if (!l->target)
		return PDU_LOGIN_NOT_FOUND;
	strcpy(l->params.target, l->target->iqn);
	admitted = tgt_target_admits(l->target, l->params.initiator);
	*why = "the target's list does not name it";
	if (!admitted && !l->target->auth.required)
		return PDU_LOGIN_FORBIDDEN;
	tgt_auth_begin(&l->auth, l->env, &l->target->auth, admitted);
	return PDU_LOGIN_SUCCESS;
}

static enum pdu_login_status settle_names(struct tgt_login *l, struct names *n, const char **why)
{
	static const struct tgt_initiator anybody = { .name = "*" };

	*why = "no InitiatorName";
	if (!n->has_initiator)
		return PDU_LOGIN_MISSING_PARAMETER;
	*why = "its InitiatorName is none";
	if (!tgt_name_normalize(l->params.initiator)) {
		l->params.initiator[0] = '\0';
		return PDU_LOGIN_INITIATOR_ERROR;
	}
	if (l->params.discovery) {
		*why = "a discovery session has one connection only";
		if (l->params.tsih)
			return PDU_LOGIN_NO_SESSION;
		tgt_auth_begin(&l->auth, l->env, &l->config->discovery, &anybody);
		return PDU_LOGIN_SUCCESS;
	}
	*why = "no TargetName";
	if (!n->has_target)
		return PDU_LOGIN_MISSING_PARAMETER;
	return find_target(l, n->target, why);
}

/* The first step says who logs in to what, in any order (6.3.1): so before all else. */
static enum pdu_login_status read_names(struct tgt_login *l, const char **why)
{
	const char *pos = l->in, *end = l->in + l->in_len;
	struct tgt_pair pair;
	struct names n = { .has_type = false };
	enum pdu_login_status status;
	int more;

	while ((more = tgt_pair_next(&pos, end, &pair)) > 0) {
		status = is_name_key(&pair) ? take_name(l, &pair, &n, why) : PDU_LOGIN_SUCCESS;
		if (status)
			return status;
	}
	*why = "malformed text";
	if (more < 0)
		return PDU_LOGIN_INITIATOR_ERROR;
	status = settle_names(l, &n, why);
	if (status)
		return status;
	*why = "it skips the security stage, but CHAP is required";
	if (l->stage != PDU_STAGE_SECURITY && !tgt_auth_may_proceed(&l->auth))
		return PDU_LOGIN_AUTH_FAILURE;
	return PDU_LOGIN_SUCCESS;
}

static void tell_names(struct tgt_login *l)
{
	if (l->told || !l->target)
		return;
	l->told = true;
	if (l->target->alias[0])
		tgt_keys_add(&l->answer, "TargetAlias", l->target->alias);
	tgt_keys_add_number(&l->answer, "TargetPortalGroupTag", l->peer.portal_group);
}

/* ---- a step of the negotiation ---- */

static enum pdu_login_status status_of(int err)
{
	return err == -EACCES ? PDU_LOGIN_AUTH_FAILURE : PDU_LOGIN_INITIATOR_ERROR;
}

static int take_pair(struct tgt_login *l, const struct tgt_pair *pair, bool first, const char **why)
{
	int err;

	if (is_name_key(pair)) {
		*why = "a name or the session type in a later request";
		return first ? 0 : -EPROTO;
	}
	if (l->stage == PDU_STAGE_OPERATIONAL) {
		if (!tgt_pair_is(pair, "AuthMethod"))
			return tgt_negotiate(&l->negotiation, pair, &l->answer, why);
		*why = "AuthMethod behind the security stage";
		return -EPROTO;
	}
	err = tgt_auth_take(&l->auth, pair, &l->answer, why);
	if (err != -ENOENT)
		return err;
	return tgt_negotiate_early(pair, &l->answer, why);
}

static enum pdu_login_status take_pairs(struct tgt_login *l, bool first, const char **why)
{
	const char *pos = l->in, *end = l->in + l->in_len;
	struct tgt_pair pair;
	int more, err;

	while ((more = tgt_pair_next(&pos, end, &pair)) > 0) {
		err = take_pair(l, &pair, first, why);
		if (err)
			return status_of(err);
	}
	*why = "malformed text";
	if (more < 0)
		return PDU_LOGIN_INITIATOR_ERROR;
	if (l->stage == PDU_STAGE_SECURITY) {
		err = tgt_auth_step(&l->auth, &l->answer, why);
		if (err)
			return status_of(err);
	} else {
		tgt_negotiate_declare(&l->negotiation, &l->answer);
	}
	*why = "it has more keys than can be answered";
	return l->answer.full ? PDU_LOGIN_INITIATOR_ERROR : PDU_LOGIN_SUCCESS;
}

static enum pdu_login_status take_step(struct tgt_login *l, const char **why)
{
	bool first = !l->named;
	enum pdu_login_status status = first ? read_names(l, why) : PDU_LOGIN_SUCCESS;

	l->named = true;
	tgt_keys_init(&l->answer, l->out, sizeof(l->out));
	l->out_sent = 0;
	if (status)
		return status;
	tell_names(l);
	status = take_pairs(l, first, why);
	l->in_len = 0;
	return status;
}

/* Where the request wants to leave its stage, and may: whereto. */
static enum tgt_login_result leave_stage(struct tgt_login *l, struct tgt_reply *reply)
{
	const char *why;

	if (l->stage == PDU_STAGE_SECURITY && !tgt_auth_may_proceed(&l->auth)) {
		if (l->auth.stage == TGT_AUTH_OPEN)
			return refuse(l, PDU_LOGIN_AUTH_FAILURE,
				      "it offers no authentication, but CHAP is required", reply);
		return go_on(l, reply);	/* its turn; it asks again */
	}
	if (next_stage(l->flags) == PDU_STAGE_FULL_FEATURE) {
		if (tgt_negotiate_finish(&l->negotiation, &why))
			return refuse(l, PDU_LOGIN_INITIATOR_ERROR, why, reply);
		if (l->auth.stage == TGT_AUTH_DONE)
			snprintf(l->params.user, sizeof(l->params.user), "%s", l->auth.name);
		return TGT_LOGIN_ATTACH;
	}
	l->stage = (uint8_t)next_stage(l->flags);
	go_on(l, reply);
	add_transit(l, reply);
	return TGT_LOGIN_GO_ON;
}

static bool fits_one_pdu(const struct tgt_login *l)
{
	size_t left = l->answer.len - l->out_sent;

	return left <= PDU_LOGIN_DATA_MAX && left <= l->params.send_dsl_max;
}

enum tgt_login_result tgt_login_receive(struct tgt_login *l, const struct pdu_bhs_wire *bhs,
					const uint8_t *data, uint32_t data_len,
					struct tgt_reply *reply)
{
	struct pdu_login_request_wire rq;
	enum pdu_login_status status;
	const char *why = "";

	memset(reply, 0, sizeof(*reply));
	memcpy(&rq, bhs, sizeof(rq));
	if (!l->begun)
		l->first.itt = rq.itt;
	if ((rq.opcode & PDU_OPCODE_MASK) != PDU_LOGIN_REQUEST)
		return refuse(l, PDU_LOGIN_INVALID_REQUEST, "something else than a login", reply);
	l->flags = rq.flags;
	status = check_header(l, &rq, &why);
	if (status)
		return refuse(l, status, why, reply);
	if (l->out_sent < l->answer.len) {
		if (data_len)
			return refuse(l, PDU_LOGIN_INITIATOR_ERROR,
				      "it speaks before it has heard all", reply);
	} else {
		if (data_len > sizeof(l->in) - l->in_len)
			return refuse(l, PDU_LOGIN_INITIATOR_ERROR, "its text is too long", reply);
		memcpy(l->in + l->in_len, data, data_len);
		l->in_len += data_len;
		if (l->flags & PDU_LOGIN_CONTINUE)
			return go_on(l, reply);
		status = take_step(l, &why);
		if (status)
			return refuse(l, status, why, reply);
	}
	if (l->flags & PDU_LOGIN_TRANSIT && fits_one_pdu(l))
		return leave_stage(l, reply);
	return go_on(l, reply);
}

enum tgt_login_result tgt_login_attached(struct tgt_login *l, enum pdu_login_status status,
					 uint16_t tsih, struct tgt_reply *reply)
{
	if (status) {
		memset(reply, 0, sizeof(*reply));
		return refuse(l, status, "the session cannot have it", reply);
	}
	l->params.tsih = tsih;
	go_on(l, reply);
	add_transit(l, reply);
	reply->login.tsih = cpu_to_be16(tsih);
	return TGT_LOGIN_FULL;
}
