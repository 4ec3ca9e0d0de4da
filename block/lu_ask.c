/* SPDX-License-Identifier: Apache-2.0 */
#include "block/lu.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bytes.h"

#define INQUIRY		0x12
#define PR_IN		0x5e
#define PR_BUF_SIZE	4096u

enum pr_in { PR_READ_KEYS, PR_READ_RESERVATION, PR_CAPABILITIES };

int lu_inquiry(struct lu *lu, int page, uint8_t *buf, uint32_t size)
{
	struct lu_cmd cmd = { .cdb_size = 6, .buf = buf, .len = size };
	int err;

	memset(buf, 0, size);
	cmd.cdb[0] = INQUIRY;
	cmd.cdb[1] = page >= 0;
	cmd.cdb[2] = page >= 0 ? (uint8_t)page : 0;
	put_be16(cmd.cdb + 3, size);
	err = lu->run(lu, &cmd);
	if (!err && page >= 0 && (cmd.got < 4 || buf[1] != page))
		return -ENOTSUP;
	return err ? err : (int)cmd.got;
}

bool lu_has_caw(struct lu *lu, const uint8_t *limits, int n)
{
	struct lu_cmd cmd = { .cdb = { LU_COMPARE_AND_WRITE }, .cdb_size = 16 };

	/* SBC-4, 6.6.4: MAXIMUM COMPARE AND WRITE LENGTH. */
	return n > 5 && limits[5] && lu->run(lu, &cmd) != -ENOTSUP;
}

/* SPC-4, 6.15: PERSISTENT RESERVE IN. */
static int pr_in(struct lu *lu, enum pr_in action, uint8_t *buf, uint32_t size, uint32_t *got)
{
	struct lu_cmd cmd = { .cdb = { PR_IN, (uint8_t)action }, .cdb_size = 10, .buf = buf,
			      .len = size };
	int err;

	memset(buf, 0, size);
	put_be16(cmd.cdb + 7, size);
	err = lu->run(lu, &cmd);
	if (!err && cmd.got < 8)
		err = -EPROTO;
	*got = cmd.got;
	return err;
}

bool lu_has_pr(struct lu *lu, bool *aptpl)
{
	uint8_t buf[8];
	uint32_t got;

	if (pr_in(lu, PR_CAPABILITIES, buf, sizeof(buf), &got))
		return false;
	*aptpl = buf[2] & 0x01;
	/* Who says which types it has has to have ours. */
	return !(buf[3] & 0x80) || (buf[4] & 0x80);
}

static int read_keys(struct lu *lu, uint8_t *buf, struct blkdev_pr_state *state)
{
	uint32_t got, count;
	int err = pr_in(lu, PR_READ_KEYS, buf, PR_BUF_SIZE, &got);

	if (err)
		return err;
	state->generation = get_be32(buf);
	count = get_be32(buf + 4) / 8;
	state->key_count = count;	/* may be more than fit: then nothing is proven by them */
	for (uint32_t i = 0; i < count && i < ARRAY_SIZE(state->keys) && 16 + 8 * i <= got; i++)
		state->keys[i] = get_be64(buf + 8 + (size_t)8 * i);
	return count < ARRAY_SIZE(state->keys) && 8 + 8 * count > got ? -EPROTO : 0;
}

int lu_pr_read(struct lu *lu, struct blkdev_pr_state *state)
{
	uint8_t *buf = calloc(1, PR_BUF_SIZE);
	uint32_t got;
	int err;

	if (!buf)
		return -ENOMEM;
	err = read_keys(lu, buf, state);
	if (!err)
		err = pr_in(lu, PR_READ_RESERVATION, buf, 64, &got);
	if (!err)
		state->held = get_be32(buf + 4) >= 16 && got >= 24 &&
			      (buf[21] & 0x0f) == LU_PR_TYPE_WEAR;
	free(buf);
	return err;
}
