/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contents of a file by the control socket, for who cannot mount: a launcher's kernels and
 * configurations.  A copy, in pieces: a descriptor would have to be a mount's, and would pin it.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/text.h"
#include "daemon/ctl_disk.h"
#include "daemon/ctl_json.h"

#define PIECE	(192u << 10)	/* bytes; a multiple of three, which become four characters */

/* RFC 4648, section 4. */
static char *encode_base64(const uint8_t *in, size_t len)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char *text = malloc((len + 2) / 3 * 4 + 1), *p = text;

	for (size_t i = 0; text && i < len; i += 3) {
		size_t left = len - i;
		uint32_t v = (uint32_t)in[i] << 16 | (left > 1 ? (uint32_t)in[i + 1] << 8 : 0) |
			     (left > 2 ? in[i + 2] : 0);

		*p++ = digits[v >> 18];
		*p++ = digits[v >> 12 & 63];
		*p++ = left > 1 ? digits[v >> 6 & 63] : '=';
		*p++ = left > 2 ? digits[v & 63] : '=';
	}
	if (text)
		*p = '\0';
	return text;
}

static int read_piece(const struct ctl_conn *conn, uint64_t from, json_t **out)
{
	uint8_t *buf = malloc(PIECE);
	char *text = NULL;
	size_t done = 0;
	int err = buf ? fs_read(conn->store->fs, conn->disk, from, buf, PIECE, &done) : -ENOMEM;

	if (!err)
		text = encode_base64(buf, done);
	free(buf);
	if (err || !text)
		return err ? err : -ENOMEM;
	*out = json_object();
	put_text(*out, "data", text);
	put_int(*out, "next", from + done);
	put_bool(*out, "more", done == PIECE);
	free(text);
	return 0;
}

int ctl_disk_read(const struct ctl_conn *conn, const struct ctl_request *rq, json_t **out,
		  char *why, size_t why_size)
{
	int err;

	if (!conn->disk)
		return text_refuse(-ENOTCONN, why, why_size, "this connection holds nothing; "
				   "\"disk-hold\" comes first");
	err = read_piece(conn, rq->from, out);
	return err ? text_refuse(err, why, why_size, "cannot be read: %s", strerror(-err)) : 0;
}
