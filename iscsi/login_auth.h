/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The security stage of a login: which method, and CHAP's exchange (RFC 7143, 12.1).
 *
 *	OPEN ──AuthMethod=None──────────────────────────────▶ DONE
 *	  └──AuthMethod=CHAP──▶ CHOSEN ──CHAP_A──▶ CHALLENGED ──CHAP_N, CHAP_R──▶ DONE
 *
 * Whoever fails anywhere learns only that: an unknown initiator, an unknown user and a wrong
 * secret take the same steps, cost the same work and get the same answer.
 */
#ifndef LUNFS_ISCSI_LOGIN_AUTH_H
#define LUNFS_ISCSI_LOGIN_AUTH_H

#include "iscsi/config.h"

enum tgt_auth_stage { TGT_AUTH_OPEN, TGT_AUTH_CHOSEN, TGT_AUTH_CHALLENGED, TGT_AUTH_DONE };

struct tgt_auth_exchange {
	struct env	*env;
	const struct tgt_auth *auth;
	const struct tgt_initiator *admitted;	/* NULL: nobody that we know */
	bool		required;
	enum tgt_auth_stage stage;
	enum tgt_chap_alg alg;
	uint8_t		id;
	uint8_t		challenge[TGT_CHAP_CHALLENGE];

	bool		fresh;	/* the challenge goes out in the step at hand */

	/* what the initiator has said in the step at hand */
	bool		has_name, has_response, has_id, has_challenge;
	char		name[TGT_VALUE_MAX + 1];
	uint8_t		response[TGT_CHAP_DIGEST_MAX];
	size_t		response_len;
	uint8_t		their_id;
	uint8_t		their_challenge[TGT_BINARY_MAX];
	size_t		their_challenge_len;
};

/**
 * tgt_auth_begin() - @admitted: by which entry the initiator may come at all; NULL: it may not,
 * and fails at the end like one with a wrong secret, if there is CHAP at all.
 */
void tgt_auth_begin(struct tgt_auth_exchange *x, struct env *env, const struct tgt_auth *auth,
		    const struct tgt_initiator *admitted);

/**
 * tgt_auth_take() - one pair of the security stage.
 * Return: 0; -ENOENT it is no key of authentication; -EACCES, -EPROTO, with @why for the log.
 */
int tgt_auth_take(struct tgt_auth_exchange *x, const struct tgt_pair *pair,
		  struct tgt_keys *answer, const char **why);

/** tgt_auth_step() - all pairs of a request are taken: answers them.  Return: as above. */
int tgt_auth_step(struct tgt_auth_exchange *x, struct tgt_keys *answer, const char **why);

/** tgt_auth_may_proceed() - whether the security stage may be left now. */
bool tgt_auth_may_proceed(const struct tgt_auth_exchange *x);

#endif
