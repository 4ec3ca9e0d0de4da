// SPDX-License-Identifier: Apache-2.0
/* What names an iSCSI LUN and what a target says of it: URLs, page 83h, sense data. */
#include "block/blkiscsi.h"
#include "block/lu.h"
#include "tests/fuzz/fuzz.h"

static void url(const char *s)
{
	struct blkiscsi_target t;
	char why[200] = "";
	int err = blkiscsi_parse(s, &t, why, sizeof(why));

	FUZZ_CHECK(err <= 0 && (!err || why[0]));
	blkiscsi_is_url(s);
	if (err)
		return;
	FUZZ_CHECK(t.portal_count >= 1 && t.portal_count <= BLKISCSI_PORTALS_MAX && t.iqn[0]);
	FUZZ_CHECK(!t.secret[0] && t.timeout_ms && t.dead_ms && t.login_ms);
	for (unsigned int i = 0; i < t.portal_count; i++)
		FUZZ_CHECK(strchr(t.portals[i], ':'));
	FUZZ_CHECK(blkiscsi_same(s, t.name));
}

static void page(const uint8_t *data, size_t len, size_t room)
{
	char *out = malloc(room);

	FUZZ_CHECK(out);
	lu_identity(data, len, out, room);
	FUZZ_CHECK(strlen(out) < room);
	for (size_t i = 0; out[i]; i++)
		FUZZ_CHECK(out[i] > ' ' && out[i] < 0x7f);
	FUZZ_CHECK(lu_port_group(data, len) <= 0xffff);
	free(out);
}

static void sense(const uint8_t *data, size_t len)
{
	struct lu_sense s;

	if (lu_sense(data, len, &s))
		FUZZ_CHECK(s.key < 16);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	size_t room = 1 + fuzz_number(&in, 1), len = in.left;
	/* Of its own, so that one byte too far is noticed. */
	uint8_t *copy = malloc(len ? len : 1);
	char *s;

	FUZZ_CHECK(copy);
	memcpy(copy, in.p, len);
	page(copy, len, room);
	sense(copy, len);
	free(copy);
	s = fuzz_text(&in);
	url(s);
	free(s);
	return 0;
}
