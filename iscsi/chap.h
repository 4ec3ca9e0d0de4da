/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CHAP, the arithmetic: RFC 7143, 12.1.3, RFC 1994 and the algorithms that IANA lists for
 * iSCSI.  Who says what when is login_auth.c's.
 */
#ifndef LUNFS_ISCSI_CHAP_H
#define LUNFS_ISCSI_CHAP_H

#include "iscsi/keys.h"

/* IANA, "PPP Authentication Algorithms"; these are what iSCSI may use. */
enum tgt_chap_alg {
	TGT_CHAP_NONE		= 0,
	TGT_CHAP_MD5		= 5,
	TGT_CHAP_SHA1		= 6,
	TGT_CHAP_SHA256		= 7,
	TGT_CHAP_SHA3_256	= 8,
};

enum {
	TGT_CHAP_DIGEST_MAX	= 32,
	TGT_CHAP_CHALLENGE	= 32,	/* bytes of ours: no shorter than any digest */
	TGT_CHAP_SECRET_MIN	= 12,	/* 96 bits: RFC 7143, 9.2.1 */
	TGT_CHAP_SECRET_MAX	= 255,
};

/* The algorithms that are on offer when nothing else is configured, as a mask of 1 << alg. */
#define TGT_CHAP_ALL	(1u << TGT_CHAP_MD5 | 1u << TGT_CHAP_SHA1 | 1u << TGT_CHAP_SHA256 | \
			 1u << TGT_CHAP_SHA3_256)

struct tgt_secret {
	size_t	len;
	uint8_t	bytes[TGT_CHAP_SECRET_MAX];
};

/** tgt_chap_available() - which algorithms libcrypto computes here (a FIPS setting may lack MD5). */
unsigned int tgt_chap_available(void);

/**
 * tgt_chap_choose() - the first algorithm of a CHAP_A list that is in @allowed.
 * Return: it, or TGT_CHAP_NONE.
 */
enum tgt_chap_alg tgt_chap_choose(const struct tgt_pair *list, unsigned int allowed);

/** tgt_chap_digest_len() - bytes of a response. */
size_t tgt_chap_digest_len(enum tgt_chap_alg alg);

/**
 * tgt_chap_response() - what proves the knowledge of @secret.
 * @out: TGT_CHAP_DIGEST_MAX bytes, of which tgt_chap_digest_len() are filled.
 * Return: 0; -EIO libcrypto cannot.
 */
int tgt_chap_response(enum tgt_chap_alg alg, uint8_t id, const struct tgt_secret *secret,
		      const uint8_t *challenge, size_t challenge_len, uint8_t *out);

/**
 * tgt_chap_verify() - whether @response is right, in a time that does not depend on how far
 * it is.  A @response of another length is not.
 */
bool tgt_chap_verify(enum tgt_chap_alg alg, uint8_t id, const struct tgt_secret *secret,
		     const uint8_t *challenge, size_t challenge_len, const uint8_t *response,
		     size_t response_len);

/** tgt_secret_forget() - overwrites what is no longer needed, also where nobody looks again. */
void tgt_secret_forget(void *data, size_t len);

#endif
