/* SPDX-License-Identifier: Apache-2.0 */
#include "iscsi/chap.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

static const struct {
	enum tgt_chap_alg alg;
	size_t len;
	const EVP_MD *(*md)(void);
} algs[] = {
	{ TGT_CHAP_MD5, 16, EVP_md5 },
	{ TGT_CHAP_SHA1, 20, EVP_sha1 },
	{ TGT_CHAP_SHA256, 32, EVP_sha256 },
	{ TGT_CHAP_SHA3_256, 32, EVP_sha3_256 },
};

static int index_of(enum tgt_chap_alg alg)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(algs); i++)
		if (algs[i].alg == alg)
			return (int)i;
	return -1;
}

unsigned int tgt_chap_available(void)
{
	unsigned int mask = 0;
	uint8_t digest[EVP_MAX_MD_SIZE];

	for (unsigned int i = 0; i < ARRAY_SIZE(algs); i++)
		if (EVP_Digest("", 0, digest, NULL, algs[i].md(), NULL))
			mask |= 1u << algs[i].alg;
	return mask;
}

enum tgt_chap_alg tgt_chap_choose(const struct tgt_pair *list, unsigned int allowed)
{
	const char *item;
	uint64_t number;
	size_t len;

	for (unsigned int i = 0; tgt_pair_item(list, i, &item, &len); i++) {
		if (tgt_value_number(item, len, &number) || number > TGT_CHAP_SHA3_256)
			continue;
		if (allowed & 1u << number && index_of((enum tgt_chap_alg)number) >= 0)
			return (enum tgt_chap_alg)number;
	}
	return TGT_CHAP_NONE;
}

size_t tgt_chap_digest_len(enum tgt_chap_alg alg)
{
	int i = index_of(alg);

	return i < 0 ? 0 : algs[i].len;
}

int tgt_chap_response(enum tgt_chap_alg alg, uint8_t id, const struct tgt_secret *secret,
		      const uint8_t *challenge, size_t challenge_len, uint8_t *out)
{
	int i = index_of(alg);
	EVP_MD_CTX *ctx;
	unsigned int len;
	bool ok;

	assert(i >= 0);
	ctx = EVP_MD_CTX_new();
	if (!ctx)
		return -EIO;
	ok = EVP_DigestInit_ex(ctx, algs[i].md(), NULL) && EVP_DigestUpdate(ctx, &id, 1) &&
	     EVP_DigestUpdate(ctx, secret->bytes, secret->len) &&
	     EVP_DigestUpdate(ctx, challenge, challenge_len) &&
	     EVP_DigestFinal_ex(ctx, out, &len) && len == algs[i].len;
	EVP_MD_CTX_free(ctx);
	return ok ? 0 : -EIO;
}

bool tgt_chap_verify(enum tgt_chap_alg alg, uint8_t id, const struct tgt_secret *secret,
		     const uint8_t *challenge, size_t challenge_len, const uint8_t *response,
		     size_t response_len)
{
	uint8_t expected[TGT_CHAP_DIGEST_MAX];
	bool same;

	if (tgt_chap_response(alg, id, secret, challenge, challenge_len, expected))
		return false;
	same = response_len == tgt_chap_digest_len(alg) &&
	       !CRYPTO_memcmp(expected, response, response_len);
	OPENSSL_cleanse(expected, sizeof(expected));
	return same;
}

void tgt_secret_forget(void *data, size_t len)
{
	OPENSSL_cleanse(data, len);
}
