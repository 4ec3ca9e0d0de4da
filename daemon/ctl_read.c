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

#define PIECE	(256u << 10)	/* bytes */

/* Its bytes go behind the reply as they are: a kernel in JSON costs a second of everybody's time. */
static int read_piece(struct ctl_conn *conn, uint64_t from, json_t **out)
{
	void *buf = malloc(PIECE);
	size_t done = 0;
	int err = buf ? fs_read(conn->store->fs, conn->disk, from, buf, PIECE, &done) : -ENOMEM;

	if (err) {
		free(buf);
		return err;
	}
	conn->bytes = buf;
	conn->byte_count = done;
	*out = json_object();
	put_int(*out, "bytes", done);
	put_int(*out, "next", from + done);
	put_bool(*out, "more", done == PIECE);
	return 0;
}

int ctl_disk_read(struct ctl_conn *conn, const struct ctl_request *rq, json_t **out,
		  char *why, size_t why_size)
{
	int err;

	if (!conn->disk)
		return text_refuse(-ENOTCONN, why, why_size, "this connection holds nothing; "
				   "\"disk-hold\" comes first");
	err = read_piece(conn, rq->from, out);
	return err ? text_refuse(err, why, why_size, "cannot be read: %s", strerror(-err)) : 0;
}
