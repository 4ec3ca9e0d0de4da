/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operational keys of RFC 7143, section 13, and the rules by which two sides agree on
 * each (6.2).  The initiator offers, we answer; we offer nothing that it did not ask for,
 * but declare what we take.
 */
#ifndef LUNFS_ISCSI_NEGOTIATE_H
#define LUNFS_ISCSI_NEGOTIATE_H

#include "iscsi/keys.h"
#include "iscsi/params.h"

/* One connection's negotiation; part of its login. */
struct tgt_negotiation {
	struct tgt_params *params;		/* what is agreed so far */
	const struct tgt_params *ours;		/* what we would like */
	bool	leading;			/* the session's first connection */
	uint32_t answered;			/* a bit for each key that was negotiated */
	bool	declared;			/* our own MaxRecvDataSegmentLength was sent */
};

/** tgt_params_default() - what holds where nothing is negotiated. */
void tgt_params_default(struct tgt_params *params);

/** tgt_params_ours() - the outer limits of what we agree to. */
void tgt_params_ours(struct tgt_params *params);

/**
 * tgt_negotiate() - one pair that the initiator sent in the operational stage.
 * @answer: receives our answer, if the key wants one.
 * @why:    on -EPROTO, what is wrong with it.
 *
 * An inadmissible offer is answered with Reject and leaves the value as it was; keys that do
 * not apply are answered Irrelevant, unknown ones NotUnderstood.
 * Return: 0; -EPROTO the initiator must not say this, or not say it again (6.2, 13).
 */
int tgt_negotiate(struct tgt_negotiation *n, const struct tgt_pair *pair,
		  struct tgt_keys *answer, const char **why);

/**
 * tgt_negotiate_early() - a pair in the security stage that is no key of it (12): the operational
 * keys have their own stage; what nobody knows is NotUnderstood.
 * Return: 0; -EPROTO with @why.
 */
int tgt_negotiate_early(const struct tgt_pair *pair, struct tgt_keys *answer, const char **why);

/** tgt_negotiate_declare() - adds what we declare for ourselves, once. */
void tgt_negotiate_declare(struct tgt_negotiation *n, struct tgt_keys *answer);

/**
 * tgt_negotiate_finish() - checks what only the whole can tell.
 * Return: 0; -EPROTO with @why.
 */
int tgt_negotiate_finish(struct tgt_negotiation *n, const char **why);

/**
 * tgt_renegotiate() - one pair of a text request in full feature phase: of what is negotiated
 * only the initiator's MaxRecvDataSegmentLength may change.
 * @declared: receives that, or stays as it is.
 */
void tgt_renegotiate(const struct tgt_pair *pair, uint32_t *declared, struct tgt_keys *answer);

#endif
