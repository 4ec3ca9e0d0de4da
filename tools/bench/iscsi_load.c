/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/bench/iscsi_load.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "iscsi/keys.h"
#include "iscsi/pdu.h"

#define NAME		"iqn.2026-01.org.lunfs:bench"
#define RECV_DSL	262144u
#define RX_LEN		(512 * 1024)
#define RX_SKIP		16384u	/* data from here on is thrown away by the kernel, uncopied */
#define RX_AHEAD	512u	/* and then little is read ahead of the next header */
#define IOV_CALL	1024u	/* the kernel's limit of a call */
#define NSEC		1000000000ULL

enum { BUSY = 0x08, TASK_SET_FULL = 0x28 };	/* of SAM-5's statuses */

/* A command, from its header until its status. */
struct slot {
	struct pdu_scsi_command_wire command;
	struct pdu_data_out_wire *outs;	/* out_max of them */
	unsigned int	out_count;
	uint8_t		*buf;
	uint64_t	began_ns;
	bool		busy;
};

struct load {
	struct load_spec spec;
	int		fd;
	bool		stopped;
	bool		full;		/* the target has no memory for more, until one of ours ends */

	/* agreed on */
	uint32_t	send_dsl;	/* what the target takes in one PDU */
	uint32_t	first_burst;
	bool		immediate, initial_r2t;

	uint32_t	cmd_sn, max_cmd_sn, stat_sn;
	uint64_t	blocks;		/* of the unit */
	uint32_t	block_size;
	uint64_t	next;		/* I/O of a sequential load */
	uint64_t	rng;

	struct slot	*slots;
	unsigned int	*free_slots, free_count;
	unsigned int	out_max;
	uint8_t		*memory;

	struct iovec	*iov;		/* to be sent: [iov_at, iov_count) */
	unsigned int	iov_at, iov_count, iov_max;

	uint8_t		*rx;
	uint32_t	rx_at, rx_end;
	bool		in_data;	/* a Data-In's data is being received */
	uint32_t	data_left;	/* padding included */
	struct pdu_data_in_wire data_head;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NSEC + (uint64_t)ts.tv_nsec;
}

static int fail(int err, const char *what)
{
	fprintf(stderr, "iscsi_bench: %s: %s\n", what, strerror(-err));
	return err;
}

/* ---- before the load: one PDU at a time ---- */

static int send_all(struct load *l, const void *p, size_t len)
{
	const uint8_t *at = p;

	while (len) {
		ssize_t n = send(l->fd, at, len, MSG_NOSIGNAL);

		if (n <= 0)
			return fail(-EIO, "send");
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

static int recv_all(struct load *l, void *p, size_t len)
{
	ssize_t n = len ? recv(l->fd, p, len, MSG_WAITALL) : 0;

	return (size_t)n == len ? 0 : fail(-ECONNRESET, "the target closes the connection");
}

/* @data of RX_LEN bytes receives the data segment. */
static int recv_pdu(struct load *l, struct pdu_reply_wire *head, uint8_t *data, uint32_t *len)
{
	int err = recv_all(l, head, sizeof(*head));

	if (err)
		return err;
	*len = be24_to_cpu(head->data_len);
	if (pdu_padded(*len) > RX_LEN)
		return fail(-EPROTO, "a PDU too long");
	l->stat_sn = be32_to_cpu(head->stat_sn) + 1;
	l->max_cmd_sn = be32_to_cpu(head->max_cmd_sn);
	return recv_all(l, data, pdu_padded(*len));
}

static void take_key(struct load *l, const struct tgt_pair *pair)
{
	uint64_t n = 0;
	bool yes = pair->value_len == 3;

	if (tgt_pair_is(pair, "ImmediateData"))
		l->immediate = yes;
	else if (tgt_pair_is(pair, "InitialR2T"))
		l->initial_r2t = yes;
	else if (tgt_value_number(pair->value, pair->value_len, &n))
		return;
	if (tgt_pair_is(pair, "MaxRecvDataSegmentLength"))
		l->send_dsl = (uint32_t)n;
	else if (tgt_pair_is(pair, "FirstBurstLength"))
		l->first_burst = (uint32_t)n;
}

static int login_text(const struct load *l, char *text, size_t size)
{
	int len = snprintf(text, size, "InitiatorName=" NAME "%u\nTargetName=%s\n"
			   "SessionType=Normal\nHeaderDigest=None\n"
			   "DataDigest=None\nInitialR2T=No\nImmediateData=Yes\n"
			   "FirstBurstLength=262144\nMaxBurstLength=1048576\n"
			   "MaxRecvDataSegmentLength=%u\nMaxOutstandingR2T=1\n"
			   "ErrorRecoveryLevel=0\n", l->spec.session, l->spec.iqn, RECV_DSL);

	for (int i = 0; i < len; i++)
		if (text[i] == '\n')
			text[i] = '\0';
	return len;
}

static int send_login(struct load *l, unsigned int stage, unsigned int next, uint16_t tsih,
		      const char *text, uint32_t len)
{
	struct pdu_login_request_wire rq = { .opcode = PDU_LOGIN_REQUEST | PDU_IMMEDIATE };
	static const uint8_t zero[4];
	int err;

	rq.flags = (uint8_t)(PDU_LOGIN_TRANSIT | stage << PDU_LOGIN_CSG_SHIFT | next);
	rq.data_len = cpu_to_be24(len);
	memcpy(rq.isid, "\200\0\0\0", 4);
	rq.isid[4] = (uint8_t)(l->spec.session >> 8);
	rq.isid[5] = (uint8_t)l->spec.session;
	rq.tsih = cpu_to_be16(tsih);
	rq.cmd_sn = cpu_to_be32(l->cmd_sn);
	rq.exp_stat_sn = cpu_to_be32(l->stat_sn);
	err = send_all(l, &rq, sizeof(rq));
	if (!err)
		err = send_all(l, text, len);
	return err ? err : send_all(l, zero, pdu_padded(len) - len);
}

/* Security without any, then the operational keys; targets differ in where they go on. */
static int log_in(struct load *l)
{
	unsigned int stage = PDU_STAGE_OPERATIONAL, rounds = 0;
	struct pdu_login_response_wire rs = { 0 };
	struct tgt_pair pair;
	char text[1024];
	uint32_t len;
	int err;

	len = (uint32_t)login_text(l, text, sizeof(text));
	do {
		const char *pos = (const char *)l->rx, *end;

		err = send_login(l, stage, PDU_STAGE_FULL_FEATURE, be16_to_cpu(rs.tsih), text,
				 rounds ? 0 : len);
		if (!err)
			err = recv_pdu(l, (void *)&rs, l->rx, &len);
		if (err)
			return err;
		if (rs.opcode != PDU_LOGIN_RESPONSE || be16_to_cpu(rs.status) || ++rounds > 8) {
			fprintf(stderr, "iscsi_bench: login refused, status 0x%04x\n",
				be16_to_cpu(rs.status));
			return -EACCES;
		}
		end = pos + len;
		while (tgt_pair_next(&pos, end, &pair) == 1)
			take_key(l, &pair);
	} while ((rs.flags & 0x83) != (PDU_LOGIN_TRANSIT | PDU_STAGE_FULL_FEATURE));
	return 0;
}

static void make_command(struct load *l, struct pdu_scsi_command_wire *c, uint32_t itt,
			 uint8_t flags, uint32_t len)
{
	memset(c, 0, sizeof(*c));
	c->opcode = PDU_SCSI_COMMAND;
	c->flags = PDU_FINAL | PDU_ATTR_SIMPLE | flags;
	c->lun[1] = (uint8_t)l->spec.lun;
	c->itt = cpu_to_be32(itt);
	c->expected_len = cpu_to_be32(len);
	c->cmd_sn = cpu_to_be32(l->cmd_sn++);
	c->exp_stat_sn = cpu_to_be32(l->stat_sn);
}

/* A command of the beginning; unit attentions are passed over.  Data-in goes to l->rx. */
static int command(struct load *l, const uint8_t *cdb, uint32_t in_len)
{
	struct pdu_scsi_command_wire c;
	struct pdu_reply_wire rs;
	unsigned int tries;
	uint8_t status = 2;
	uint32_t len;
	int err;

	for (tries = 0; tries < 8 && status; tries++) {
		make_command(l, &c, 0, in_len ? PDU_CMD_READ : 0, in_len);
		memcpy(c.cdb, cdb, sizeof(c.cdb));
		err = send_all(l, &c, sizeof(c));
		do {
			if (!err)
				err = recv_pdu(l, &rs, l->rx, &len);
			if (err)
				return err;
		} while (rs.opcode == PDU_NOP_IN ||
			 (rs.opcode == PDU_DATA_IN && !(rs.flags & PDU_DATA_IN_STATUS)));
		status = rs.specific_2[1];
	}
	return status ? fail(-EIO, "the unit is not ready") : 0;
}

static int learn_size(struct load *l)
{
	static const uint8_t ready[16], capacity[16] = { 0x9e, 0x10, [13] = 32 };
	int err = command(l, ready, 0);

	if (!err)
		err = command(l, capacity, 32);
	if (err)
		return err;
	l->blocks = get_be64(l->rx) + 1;
	l->block_size = get_be32(l->rx + 8);
	if (!l->block_size || l->spec.io_len % l->block_size ||
	    l->blocks * l->block_size < (uint64_t)l->spec.io_len * l->spec.sessions)
		return fail(-EINVAL, "the unit's size or block size");
	return 0;
}

/* ---- life ---- */

void load_close(struct load *l)
{
	if (!l)
		return;
	if (l->fd >= 0)
		close(l->fd);
	for (unsigned int i = 0; l->slots && i < l->spec.depth; i++)
		free(l->slots[i].outs);
	free(l->slots);
	free(l->free_slots);
	free(l->memory);
	free(l->iov);
	free(l->rx);
	free(l);
}

static int make_slots(struct load *l)
{
	unsigned int depth = l->spec.depth;

	if (!depth)
		return 0;
	l->out_max = l->spec.io_len / (l->send_dsl < 512 ? 512 : l->send_dsl) + 8;
	l->iov_max = depth * 2 * (l->out_max + 2);
	l->slots = calloc(depth, sizeof(*l->slots));
	l->free_slots = calloc(depth, sizeof(*l->free_slots));
	l->iov = calloc(l->iov_max, sizeof(*l->iov));
	l->memory = aligned_alloc(4096, (size_t)depth * ALIGN_UP(l->spec.io_len, 4096));
	if (!l->slots || !l->free_slots || !l->iov || !l->memory)
		return fail(-ENOMEM, "memory");
	/* What is written should not compress, nor be all the same. */
	for (size_t i = 0; i < (size_t)depth * l->spec.io_len; i += 8) {
		l->rng = l->rng * 6364136223846793005ULL + 1442695040888963407ULL;
		memcpy(l->memory + i, &l->rng, 8);
	}
	for (unsigned int i = 0; i < depth; i++) {
		l->slots[i].buf = l->memory + (size_t)i * ALIGN_UP(l->spec.io_len, 4096);
		l->slots[i].outs = calloc(l->out_max, sizeof(struct pdu_data_out_wire));
		if (!l->slots[i].outs)
			return fail(-ENOMEM, "memory");
		l->free_slots[l->free_count++] = depth - 1 - i;
	}
	return 0;
}

int load_open(const struct load_spec *spec, struct load **out)
{
	struct load *l = calloc(1, sizeof(*l));
	int err = -ENOMEM, on = 1;

	if (!l)
		return fail(err, "memory");
	l->spec = *spec;
	l->send_dsl = 8192;
	l->first_burst = 65536;
	l->immediate = true;
	l->initial_r2t = true;
	l->cmd_sn = 1;
	l->rng = 0x9e3779b97f4a7c15ULL * (spec->session + 1);
	l->rx = aligned_alloc(4096, RX_LEN);
	l->fd = socket(spec->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (!l->rx || l->fd < 0 ||
	    connect(l->fd, (const struct sockaddr *)&spec->addr, spec->addr_len)) {
		err = fail(l->fd < 0 || !l->rx ? -ENOMEM : -errno, "cannot connect");
		goto close_load;
	}
	setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	err = log_in(l);
	if (!err)
		err = learn_size(l);
	if (!err)
		err = make_slots(l);
	if (err)
		goto close_load;
	/* Each session reads on from a place of its own. */
	l->next = l->blocks * l->block_size / spec->io_len / spec->sessions * spec->session;
	*out = l;
	return 0;

close_load:
	load_close(l);
	return err;
}

int load_fd(const struct load *l)
{
	return l->fd;
}

void load_stop(struct load *l)
{
	l->stopped = true;
}

unsigned int load_under_way(const struct load *l)
{
	return l->spec.depth - l->free_count;
}

/* ---- sending ---- */

static void push(struct load *l, const void *p, uint32_t len)
{
	if (l->iov_count == l->iov_max) {
		l->iov_count -= l->iov_at;
		memmove(l->iov, l->iov + l->iov_at, l->iov_count * sizeof(*l->iov));
		l->iov_at = 0;
	}
	assert(l->iov_count < l->iov_max);
	l->iov[l->iov_count++] = (struct iovec){ (void *)(uintptr_t)p, len };
}

static int flush(struct load *l)
{
	while (l->iov_at < l->iov_count) {
		unsigned int count = l->iov_count - l->iov_at;
		struct msghdr msg = { .msg_iov = l->iov + l->iov_at,
				      .msg_iovlen = count < IOV_CALL ? count : IOV_CALL };
		ssize_t n = sendmsg(l->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN)
			return 1;
		if (n <= 0)
			return fail(-errno, "send");
		while (n) {
			struct iovec *v = &l->iov[l->iov_at];
			size_t part = (size_t)n < v->iov_len ? (size_t)n : v->iov_len;

			v->iov_base = (uint8_t *)v->iov_base + part;
			v->iov_len -= part;
			n -= (ssize_t)part;
			if (!v->iov_len)
				l->iov_at++;
		}
	}
	l->iov_at = l->iov_count = 0;
	return 0;
}

/* Data-Out for [@at, @end), in pieces that the target takes. */
static void push_data(struct load *l, struct slot *s, uint32_t ttt, uint32_t at, uint32_t end)
{
	uint32_t sn = 0;

	while (at < end) {
		uint32_t len = end - at < l->send_dsl ? end - at : l->send_dsl;
		struct pdu_data_out_wire *d = &s->outs[s->out_count++];

		assert(s->out_count <= l->out_max);
		memset(d, 0, sizeof(*d));
		d->opcode = PDU_DATA_OUT;
		d->flags = at + len == end ? PDU_FINAL : 0;
		d->data_len = cpu_to_be24(len);
		memcpy(d->lun, s->command.lun, sizeof(d->lun));
		d->itt = s->command.itt;
		d->ttt = cpu_to_be32(ttt);
		d->exp_stat_sn = cpu_to_be32(l->stat_sn);
		d->data_sn = cpu_to_be32(sn++);
		d->offset = cpu_to_be32(at);
		push(l, d, sizeof(*d));
		push(l, s->buf + at, len);
		at += len;
	}
}

static uint64_t next_lba(struct load *l)
{
	uint64_t ios = l->blocks * l->block_size / l->spec.io_len, at;

	if (l->spec.sequential) {
		at = l->next++ % ios;
	} else {
		l->rng ^= l->rng << 13;
		l->rng ^= l->rng >> 7;
		l->rng ^= l->rng << 17;
		at = l->rng % ios;
	}
	return at * (l->spec.io_len / l->block_size);
}

static void begin(struct load *l, unsigned int index, uint64_t now)
{
	uint32_t len = l->spec.io_len, imm = 0, first = 0;
	struct slot *s = &l->slots[index];
	struct pdu_scsi_command_wire *c = &s->command;

	make_command(l, c, index, l->spec.write ? PDU_CMD_WRITE : PDU_CMD_READ, len);
	c->cdb[0] = l->spec.write ? 0x8a : 0x88;	/* WRITE(16), READ(16) */
	put_be64(c->cdb + 2, next_lba(l));
	put_be32(c->cdb + 10, len / l->block_size);
	s->out_count = 0;
	s->busy = true;
	s->began_ns = now;
	if (l->spec.write) {
		first = len < l->first_burst ? len : l->first_burst;
		if (l->immediate)
			imm = first < l->send_dsl ? first : l->send_dsl;
		if (l->initial_r2t)
			first = imm;
	}
	c->data_len = cpu_to_be24(imm);
	if (first > imm)
		c->flags &= (uint8_t)~PDU_FINAL;
	push(l, c, sizeof(*c));
	if (imm)
		push(l, s->buf, imm);
	push_data(l, s, PDU_TAG_NONE, imm, first);
}

static void begin_all(struct load *l)
{
	uint64_t now;

	if (l->stopped || l->full || !l->free_count)
		return;
	now = now_ns();
	while (l->free_count && !sn_before(l->max_cmd_sn, l->cmd_sn))
		begin(l, l->free_slots[--l->free_count], now);
}

/* ---- receiving ---- */

/*
 * Data that is sent unasked may find no memory: TASK SET FULL, or BUSY, says to try again (SAM-5, 5.3.1).
 * It is no failure, and counts as nothing.
 */
static int end(struct load *l, uint32_t itt, uint8_t status, uint64_t now)
{
	struct slot *s = itt < l->spec.depth ? &l->slots[itt] : NULL;
	bool full = status == TASK_SET_FULL || status == BUSY;

	if (!s || !s->busy || (status && !full)) {
		fprintf(stderr, "iscsi_bench: command %u ends with status 0x%02x\n", itt, status);
		return -EIO;
	}
	s->busy = false;
	l->free_slots[l->free_count++] = itt;
	l->full = full && load_under_way(l);
	if (!full)
		l->spec.ended(l->spec.arg, now - s->began_ns);
	return 0;
}

static int data_is_in(struct load *l, const struct pdu_data_in_wire *d, uint64_t now)
{
	if (!(d->flags & PDU_DATA_IN_STATUS))
		return 0;
	l->stat_sn = be32_to_cpu(d->stat_sn) + 1;
	return end(l, be32_to_cpu(d->itt), d->status, now);
}

static int take_data_in(struct load *l, const struct pdu_data_in_wire *d)
{
	uint32_t itt = be32_to_cpu(d->itt), at = be32_to_cpu(d->offset);
	uint32_t len = be24_to_cpu(d->data_len);

	if (itt >= l->spec.depth || at > l->spec.io_len || len > l->spec.io_len - at)
		return fail(-EPROTO, "data that was not asked for");
	l->in_data = true;
	l->data_head = *d;
	l->data_left = pdu_padded(len);
	return 0;
}

static int take_r2t(struct load *l, const struct pdu_r2t_wire *r)
{
	uint32_t itt = be32_to_cpu(r->itt), at = be32_to_cpu(r->offset);
	uint32_t len = be32_to_cpu(r->desired_len);

	if (itt >= l->spec.depth || at > l->spec.io_len || len > l->spec.io_len - at)
		return fail(-EPROTO, "an R2T beyond the command");
	push_data(l, &l->slots[itt], be32_to_cpu(r->ttt), at, at + len);
	return 0;
}

static int take_nop(struct load *l, const struct pdu_nop_in_wire *n)
{
	struct pdu_nop_out_wire answer = { .opcode = PDU_NOP_OUT | PDU_IMMEDIATE,
					   .flags = PDU_FINAL, .ttt = n->ttt };

	if (be32_to_cpu(n->ttt) == PDU_TAG_NONE)
		return 0;
	answer.itt = cpu_to_be32(PDU_TAG_NONE);
	answer.cmd_sn = cpu_to_be32(l->cmd_sn);
	answer.exp_stat_sn = cpu_to_be32(l->stat_sn);
	/* Rare, and only between PDUs of ours. */
	return l->iov_at < l->iov_count ? 0 : send_all(l, &answer, sizeof(answer));
}

static int take_header(struct load *l, const struct pdu_reply_wire *h, uint64_t now)
{
	uint32_t max = be32_to_cpu(h->max_cmd_sn);

	if (sn_before(l->max_cmd_sn, max))
		l->max_cmd_sn = max;
	switch (h->opcode) {
	case PDU_DATA_IN:
		return take_data_in(l, (const void *)h);
	case PDU_R2T:
		return take_r2t(l, (const void *)h);
	case PDU_NOP_IN:
		return take_nop(l, (const void *)h);
	case PDU_SCSI_RESPONSE:
		l->stat_sn = be32_to_cpu(h->stat_sn) + 1;
		return end(l, be32_to_cpu(h->itt), h->specific_2[1], now);
	default:
		fprintf(stderr, "iscsi_bench: unexpected opcode 0x%02x\n", h->opcode);
		return -EPROTO;
	}
}

/*
 * What was read is not looked at.  An initiator would have it where it belongs; here it is the
 * target that is measured, and a copy by the client would hide what it does.
 */
static int skip_data(struct load *l, uint64_t now)
{
	uint32_t have = l->rx_end - l->rx_at, n = have < l->data_left ? have : l->data_left;

	l->data_left -= n;
	l->rx_at += n;
	if (l->data_left)
		return 0;
	l->in_data = false;
	return data_is_in(l, &l->data_head, now);
}

static int take_all(struct load *l)
{
	uint64_t now = now_ns();
	int err = 0;

	while (!err) {
		const struct pdu_reply_wire *h = (const void *)(l->rx + l->rx_at);
		uint32_t have = l->rx_end - l->rx_at, whole;

		if (l->in_data) {
			err = skip_data(l, now);
			if (l->in_data)
				break;
			continue;
		}
		if (have < PDU_BHS_LEN)
			break;
		whole = PDU_BHS_LEN + h->ahs_len * 4u;
		if (h->opcode != PDU_DATA_IN)
			whole += pdu_padded(be24_to_cpu(h->data_len));
		if (have < whole)
			break;
		l->rx_at += whole;
		err = take_header(l, h, now);
	}
	return err;
}

/* Return: bytes received, 0 none at present, -errno. */
static ssize_t receive(struct load *l)
{
	bool skip = l->in_data && l->data_left >= RX_SKIP, is_long = l->spec.io_len >= RX_SKIP;
	ssize_t n;

	memmove(l->rx, l->rx + l->rx_at, l->rx_end - l->rx_at);
	l->rx_end -= l->rx_at;
	l->rx_at = 0;
	if (skip)
		n = recv(l->fd, NULL, l->data_left, MSG_TRUNC);
	else
		n = recv(l->fd, l->rx + l->rx_end,
			 is_long && !l->spec.write ? l->data_left + RX_AHEAD : RX_LEN - l->rx_end, 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0)
		return fail(n ? -errno : -ECONNRESET, "the connection is lost");
	if (skip)
		l->data_left -= (uint32_t)n;
	else
		l->rx_end += (uint32_t)n;
	return n;
}

int load_run(struct load *l)
{
	ssize_t n;
	int ret;

	for (unsigned int i = 0; i < 8; i++) {
		n = receive(l);
		ret = n > 0 ? take_all(l) : (int)n;
		if (ret)
			return ret;
		begin_all(l);
		ret = flush(l);
		/* Unless a long transfer goes on, the next answers are not there yet. */
		if (ret || !n || l->spec.io_len < RX_SKIP)
			return ret;
	}
	return 0;
}
