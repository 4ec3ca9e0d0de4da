// SPDX-License-Identifier: Apache-2.0
/*
 * A line that a client sends to the control socket, its reply, and a packet from the worker to
 * its privileged parent.  Input: a byte (0: packet, odd: from root), then the line or packet.
 */
#include <errno.h>

#include "daemon/ctl.h"
#include "tests/fuzz/fuzz.h"

static void control_line(const char *line, size_t len, bool is_root)
{
	struct ctl_request rq;
	char why[STORE_WHY_SIZE] = "", *reply;
	int err;

	err = ctl_request_parse(line, len, is_root, &rq, why, sizeof(why));
	FUZZ_CHECK(err == 0 || why[0]);
	FUZZ_CHECK(err || is_root || (rq.cmd != CTL_ATTACH && rq.cmd != CTL_MOUNT &&
				      rq.cmd != CTL_DETACH && rq.cmd != CTL_LOCK_BREAK));
	reply = ctl_reply_line(&rq, err ? err : -ENOENT, NULL, why);
	/* One line, whatever the request had in it. */
	FUZZ_CHECK(reply && strchr(reply, '\n') == reply + strlen(reply) - 1);
	free(reply);
	ctl_request_free(&rq);
}

static void parent_packet(struct fuzz_input *in)
{
	struct rpc_request *rq = malloc(sizeof(*rq));
	unsigned int fds = (unsigned int)fuzz_number(in, 1) % (PACKET_FDS_MAX + 1);
	char why[RPC_WHY_SIZE] = "";

	FUZZ_CHECK(rq);
	fuzz_take(in, rq, sizeof(*rq));
	rq->magic = RPC_MAGIC;
	if (rpc_request_check(rq, fds, why, sizeof(why)))
		FUZZ_CHECK(why[0]);
	else if (rq->op == RPC_OPEN)
		FUZZ_CHECK(memchr(rq->open.path, 0, sizeof(rq->open.path)));
	else if (rq->op == RPC_MOUNT)
		FUZZ_CHECK(memchr(rq->mount.dir, 0, sizeof(rq->mount.dir)) &&
			   memchr(rq->mount.source, 0, sizeof(rq->mount.source)));
	else if (rq->op == RPC_UMOUNT)
		FUZZ_CHECK(memchr(rq->umount.dir, 0, sizeof(rq->umount.dir)));
	free(rq);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	uint64_t kind = fuzz_number(&in, 1);

	if (kind == 0)
		parent_packet(&in);
	else if (in.left <= CTL_LINE_MAX)
		control_line((const char *)in.p, in.left, kind & 1);
	return 0;
}
