/* SPDX-License-Identifier: Apache-2.0 */
#include "iscsi/login_auth.h"

#include <errno.h>

static int deny(const char **why, const char *text)
{
	*why = text;
	return -EACCES;
}

static int broken(const char **why, const char *text)
{
	*why = text;
	return -EPROTO;
}

void tgt_auth_begin(struct tgt_auth_exchange *x, struct env *env, const struct tgt_auth *auth,
		    const struct tgt_initiator *admitted)
{
	memset(x, 0, sizeof(*x));
	x->env = env;
	x->auth = auth;
	x->admitted = admitted;
	x->required = auth->required;
}

bool tgt_auth_may_proceed(const struct tgt_auth_exchange *x)
{
	return x->stage == TGT_AUTH_DONE || (x->stage == TGT_AUTH_OPEN && !x->required);
}

/* ---- the method ---- */

/* In the initiator's order; None only where nothing is asked for: no downgrade. */
static int take_method(struct tgt_auth_exchange *x, const struct tgt_pair *pair,
		       struct tgt_keys *answer, const char **why)
{
	const char *item;
	size_t len;

	if (x->stage != TGT_AUTH_OPEN)
		return broken(why, "AuthMethod twice");
	for (unsigned int i = 0; tgt_pair_item(pair, i, &item, &len); i++) {
		if (len == 4 && !memcmp(item, "CHAP", 4) && x->required) {
			x->stage = TGT_AUTH_CHOSEN;
			tgt_keys_add(answer, "AuthMethod", "CHAP");
			return 0;
		}
		if (len == 4 && !memcmp(item, "None", 4) && !x->required) {
			x->stage = TGT_AUTH_DONE;
			tgt_keys_add(answer, "AuthMethod", "None");
			return 0;
		}
	}
	return deny(why, x->required ? "it does not offer CHAP, which is required" :
		    "it insists on a method of authentication for which there are no secrets");
}

static int take_algorithm(struct tgt_auth_exchange *x, const struct tgt_pair *pair,
			  struct tgt_keys *answer, const char **why)
{
	char hex[2 * TGT_CHAP_CHALLENGE + 3];

	if (x->stage != TGT_AUTH_CHOSEN)
		return broken(why, "CHAP_A out of turn");
	x->alg = tgt_chap_choose(pair, x->auth->algs & tgt_chap_available());
	if (x->alg == TGT_CHAP_NONE)
		return deny(why, "none of its CHAP algorithms is allowed");
	env_random(x->env, &x->id, sizeof(x->id));
	env_random(x->env, x->challenge, sizeof(x->challenge));
	tgt_keys_add_number(answer, "CHAP_A", x->alg);
	tgt_keys_add_number(answer, "CHAP_I", x->id);
	tgt_keys_add(answer, "CHAP_C", tgt_value_hex(x->challenge, sizeof(x->challenge), hex));
	x->stage = TGT_AUTH_CHALLENGED;
	x->fresh = true;
	return 0;
}

/* ---- the response, and a challenge of their own ---- */

static int take_name(struct tgt_auth_exchange *x, const struct tgt_pair *pair, const char **why)
{
	if (x->has_name)
		return broken(why, "CHAP_N twice");
	x->has_name = true;
	/* Nobody has a name that long: the empty one is nobody's either. */
	if (tgt_pair_copy(pair, x->name, sizeof(x->name)))
		x->name[0] = '\0';
	return 0;
}

static int take_response(struct tgt_auth_exchange *x, const struct tgt_pair *pair,
			 const char **why)
{
	int err;

	if (x->has_response)
		return broken(why, "CHAP_R twice");
	x->has_response = true;
	err = tgt_value_binary(pair->value, pair->value_len, x->response, sizeof(x->response),
			       &x->response_len);
	if (err == -EINVAL)
		return broken(why, "CHAP_R is no binary value");
	if (err)
		x->response_len = 0;	/* longer than any: wrong */
	return 0;
}

static int take_their_id(struct tgt_auth_exchange *x, const struct tgt_pair *pair,
			 const char **why)
{
	uint64_t id;

	if (x->has_id)
		return broken(why, "CHAP_I twice");
	if (tgt_value_number(pair->value, pair->value_len, &id) || id > 255)
		return broken(why, "CHAP_I is no number below 256");
	x->has_id = true;
	x->their_id = (uint8_t)id;
	return 0;
}

static int take_their_challenge(struct tgt_auth_exchange *x, const struct tgt_pair *pair,
				const char **why)
{
	if (x->has_challenge)
		return broken(why, "CHAP_C twice");
	if (tgt_value_binary(pair->value, pair->value_len, x->their_challenge,
			     sizeof(x->their_challenge), &x->their_challenge_len) ||
	    !x->their_challenge_len)
		return broken(why, "CHAP_C is no binary value of 1 to 1024 bytes");
	x->has_challenge = true;
	return 0;
}

int tgt_auth_take(struct tgt_auth_exchange *x, const struct tgt_pair *pair,
		  struct tgt_keys *answer, const char **why)
{
	if (tgt_pair_is(pair, "AuthMethod"))
		return take_method(x, pair, answer, why);
	if (tgt_pair_is(pair, "CHAP_A"))
		return take_algorithm(x, pair, answer, why);
	if (pair->key_len != 6 || memcmp(pair->key, "CHAP_", 5) || !memchr("NRIC", pair->key[5], 4))
		return -ENOENT;
	if (x->stage != TGT_AUTH_CHALLENGED)
		return broken(why, "an answer to a challenge that was not made");
	switch (pair->key[5]) {
	case 'N':
		return take_name(x, pair, why);
	case 'R':
		return take_response(x, pair, why);
	case 'I':
		return take_their_id(x, pair, why);
	default:
		return take_their_challenge(x, pair, why);
	}
}

/* Looks at every user, whichever it is: how long that takes tells nothing. */
static const struct tgt_user *find_user(const struct tgt_auth_exchange *x)
{
	const struct tgt_user *found = NULL;

	for (unsigned int i = 0; i < x->auth->incoming_count; i++)
		if (!strcmp(x->auth->incoming[i].name, x->name))
			found = &x->auth->incoming[i];
	if (!x->admitted || (x->admitted->user[0] && strcmp(x->admitted->user, x->name)))
		found = NULL;
	return found;
}

/* Where there is no secret to compare with, one that nobody knows does the work. */
static bool response_is_right(struct tgt_auth_exchange *x)
{
	const struct tgt_user *user = find_user(x);
	struct tgt_secret nobodys = { .len = 16 };
	bool right;

	env_random(x->env, nobodys.bytes, nobodys.len);
	right = tgt_chap_verify(x->alg, x->id, user ? &user->secret : &nobodys, x->challenge,
				sizeof(x->challenge), x->response, x->response_len);
	return right && user;
}

static int prove_ourselves(struct tgt_auth_exchange *x, struct tgt_keys *answer, const char **why)
{
	uint8_t response[TGT_CHAP_DIGEST_MAX];
	char hex[2 * TGT_CHAP_DIGEST_MAX + 3];

	if (!x->auth->mutual)
		return deny(why, "it wants us to authenticate, but there is no outgoing secret");
	if (tgt_chap_response(x->alg, x->their_id, &x->auth->outgoing.secret, x->their_challenge,
			      x->their_challenge_len, response))
		return deny(why, "libcrypto fails");
	tgt_keys_add(answer, "CHAP_N", x->auth->outgoing.name);
	tgt_keys_add(answer, "CHAP_R",
		     tgt_value_hex(response, tgt_chap_digest_len(x->alg), hex));
	return 0;
}

int tgt_auth_step(struct tgt_auth_exchange *x, struct tgt_keys *answer, const char **why)
{
	bool fresh = x->fresh;

	x->fresh = false;
	/* The step in which the challenge goes out cannot hold the answer to it. */
	if (x->stage != TGT_AUTH_CHALLENGED)
		return 0;
	if (fresh)
		return x->has_name || x->has_response || x->has_id || x->has_challenge ?
		       broken(why, "an answer to a challenge that was not made") : 0;
	if (!x->has_name || !x->has_response)
		return deny(why, "no CHAP_N and CHAP_R where they were due");
	if (x->has_id != x->has_challenge)
		return broken(why, "one of CHAP_I and CHAP_C without the other");
	/* RFC 7143, 9.2.1: our own challenge, sent back, would have us compute its answer. */
	if (x->has_challenge && x->their_challenge_len == sizeof(x->challenge) &&
	    !memcmp(x->their_challenge, x->challenge, sizeof(x->challenge)))
		return deny(why, "it sends our own challenge back");
	if (!response_is_right(x))
		return deny(why, "CHAP user or secret is wrong, or the initiator may not come");
	x->stage = TGT_AUTH_DONE;
	return x->has_challenge ? prove_ourselves(x, answer, why) : 0;
}
