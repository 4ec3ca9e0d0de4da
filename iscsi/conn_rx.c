// SPDX-License-Identifier: Apache-2.0
/*
 * Receiving: headers and small payloads through the connection's buffer, as many as one read
 * brings; long payloads straight to where they belong, with little read ahead behind them.
 *
 *	          header complete: conn_header()
 *	RX_HEADER ────────────────────────────► RX_PAYLOAD
 *	    ▲                                       │ data, padding, digest complete
 *	    └─────────────── conn_pdu_end() ────────┘
 *
 * With data digests the CRC is taken of each piece when it arrives, while it is in the cache.
 */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "iscsi/internal.h"

#define READS_MAX	4	/* of one connection in a round */
#define RX_IOV_MAX	(POOL_IOV_MAX + 3)

static uint32_t payload_left(const struct tgt_conn *conn)
{
	return conn->rx_store + conn->rx_discard + conn->rx_trailer;
}

static void add_crc(struct tgt_conn *conn, const void *p, uint32_t len)
{
	if (conn->params.data_digest)
		conn->rx_crc = crc32c(conn->rx_crc, p, len);
}

/* The iovecs of @task's buffer from @at on, for @len bytes.  Return: how many. */
static int buffer_iov(const struct tgt_task *task, uint32_t at, uint32_t len, struct iovec *iov)
{
	uint32_t i = at / POOL_SLAB, off = at % POOL_SLAB;
	int count = 0;

	/* All pieces of a buffer but the last are whole slabs. */
	assert(at + len <= task->buf.len);
	while (len) {
		uint32_t n = (uint32_t)task->buf.iov[i].iov_len - off;

		if (n > len)
			n = len;
		iov[count].iov_base = (uint8_t *)task->buf.iov[i].iov_base + off;
		iov[count].iov_len = n;
		count++;
		len -= n;
		off = 0;
		i++;
	}
	return count;
}

/* ---- what has arrived ---- */

/* @len bytes of payload lie in the task's buffer, or in the sink. */
static void stored(struct tgt_conn *conn, uint32_t len)
{
	struct iovec iov[POOL_IOV_MAX];
	int i, count;

	if (conn->params.data_digest) {
		count = buffer_iov(conn->rx_task, conn->rx_store_at, len, iov);
		for (i = 0; i < count; i++)
			add_crc(conn, iov[i].iov_base, (uint32_t)iov[i].iov_len);
	}
	conn->rx_store_at += len;
	conn->rx_store -= len;
}

static void trailer_arrived(struct tgt_conn *conn, uint32_t len)
{
	conn->rx_trailer_at += len;
	conn->rx_trailer -= len;
}

/* Copies payload out of the receive buffer.  Return: how many bytes. */
static uint32_t copy_payload(struct tgt_conn *conn)
{
	uint32_t begin = conn->rx_head, n, avail = conn->rx_tail - conn->rx_head;
	const uint8_t *p = conn->rx_buf + conn->rx_head;
	struct iovec iov[POOL_IOV_MAX];
	int i, count;

	n = avail < conn->rx_store ? avail : conn->rx_store;
	if (n) {
		count = buffer_iov(conn->rx_task, conn->rx_store_at, n, iov);
		for (i = 0; i < count; i++) {
			memcpy(iov[i].iov_base, p, iov[i].iov_len);
			p += iov[i].iov_len;
		}
		stored(conn, n);
		avail -= n;
	}
	n = avail < conn->rx_discard ? avail : conn->rx_discard;
	if (n) {
		add_crc(conn, p, n);
		conn->rx_discard -= n;
		p += n;
		avail -= n;
	}
	n = avail < conn->rx_trailer ? avail : conn->rx_trailer;
	if (n && !conn->rx_store && !conn->rx_discard) {
		memcpy(conn->rx_trailer_buf + conn->rx_trailer_at, p, n);
		trailer_arrived(conn, n);
		p += n;
	}
	conn->rx_head = (uint32_t)(p - conn->rx_buf);
	return conn->rx_head - begin;
}

static bool digest_is_right(struct tgt_conn *conn)
{
	le32 want;

	if (!conn->params.data_digest || !be24_to_cpu(conn->rx_bhs.data_len))
		return true;
	add_crc(conn, conn->rx_trailer_buf, conn->rx_pad);
	memcpy(&want, conn->rx_trailer_buf + conn->rx_pad, sizeof(want));
	return le32_to_cpu(want) == conn->rx_crc;
}

/* ---- headers ---- */

static bool header_digest_is_right(const uint8_t *head, uint32_t len)
{
	le32 want;

	memcpy(&want, head + len, sizeof(want));
	return le32_to_cpu(want) == crc32c(0, head, len);
}

/* Login: the PDU is looked at in one piece, and there are no digests yet. */
static bool process_login(struct tgt_conn *conn)
{
	const uint8_t *p = conn->rx_buf + conn->rx_head;
	uint32_t avail = conn->rx_tail - conn->rx_head;
	uint32_t ahs_len, data_len, len;
	struct pdu_bhs_wire bhs;

	if (avail < PDU_BHS_LEN)
		return false;
	memcpy(&bhs, p, sizeof(bhs));
	ahs_len = bhs.ahs_len * 4u;
	data_len = be24_to_cpu(bhs.data_len);
	if (data_len > PDU_LOGIN_DATA_MAX) {
		conn_close(conn, "login PDU too long");
		return false;
	}
	len = PDU_BHS_LEN + ahs_len + pdu_padded(data_len);
	if (avail < len)
		return false;
	conn->rx_head += len;
	conn_login_pdu(conn, &bhs, p + PDU_BHS_LEN + ahs_len, data_len);
	return true;
}

static void begin_payload(struct tgt_conn *conn, uint32_t data_len)
{
	conn->rx_pad = pdu_padded(data_len) - data_len;
	conn->rx_trailer = data_len ? conn->rx_pad : 0;
	if (data_len && conn->params.data_digest)
		conn->rx_trailer += PDU_DIGEST_LEN;
	conn->rx_trailer_at = 0;
	conn->rx_crc = 0;
	conn->rx_long = data_len >= RX_LONG;
	conn->rx_state = RX_PAYLOAD;
}

/* Return: whether a header was there and taken. */
static bool process_header(struct tgt_conn *conn)
{
	const uint8_t *p = conn->rx_buf + conn->rx_head;
	uint32_t avail = conn->rx_tail - conn->rx_head;
	const struct pdu_bhs_wire *bhs = (const void *)p;
	uint32_t len, whole;
	enum pdu_verdict verdict;

	if (avail < PDU_BHS_LEN)
		return false;
	len = PDU_BHS_LEN + bhs->ahs_len * 4u;
	whole = len + (conn->params.header_digest ? PDU_DIGEST_LEN : 0);
	if (avail < whole)
		return false;
	/* Where the next PDU begins is not known any more: RFC 7143, 7.8. */
	if (conn->params.header_digest && !header_digest_is_right(p, len)) {
		conn_close(conn, "header digest error");
		return false;
	}
	if (be24_to_cpu(bhs->data_len) > conn->params.recv_dsl_max) {
		conn_protocol_error(conn, bhs, PDU_REJECT_PROTOCOL_ERROR,
				    "data segment longer than MaxRecvDataSegmentLength");
		return false;
	}
	conn->rx_task = NULL;
	conn->rx_store = 0;
	conn->rx_discard = be24_to_cpu(bhs->data_len);
	verdict = conn_header(conn, bhs, p + PDU_BHS_LEN, bhs->ahs_len * 4u);
	if (verdict != PDU_ACCEPTED) {
		conn->rx_paused |= verdict == PDU_PAUSE;
		return false;
	}
	conn->rx_bhs = *bhs;
	conn->rx_head += whole;
	begin_payload(conn, be24_to_cpu(bhs->data_len));
	return true;
}

static bool process_payload(struct tgt_conn *conn)
{
	if (payload_left(conn))
		copy_payload(conn);
	if (payload_left(conn))
		return false;
	conn->rx_state = RX_HEADER;
	conn_pdu_end(conn, digest_is_right(conn));
	return true;
}

void conn_process(struct tgt_conn *conn)
{
	bool more = true;

	while (more && !conn->rx_paused && conn_is_open(conn)) {
		if (conn->state == CONN_LOGIN)
			more = process_login(conn);
		else if (conn->rx_state == RX_HEADER)
			more = process_header(conn);
		else
			more = process_payload(conn);
	}
}

/* ---- reading ---- */

/* Where the next bytes go.  Return: how many iovecs; *@len their sum. */
static int read_iov(struct tgt_conn *conn, struct iovec *iov, size_t *len)
{
	uint32_t ahead, sunk = 0;
	int i, count = 0;

	if (conn->rx_head == conn->rx_tail)
		conn->rx_head = conn->rx_tail = 0;
	if (conn->rx_state == RX_PAYLOAD) {
		assert(conn->rx_tail == 0);
		if (conn->rx_store)
			count = buffer_iov(conn->rx_task, conn->rx_store_at, conn->rx_store, iov);
		if (conn->rx_discard) {
			sunk = conn->rx_discard < SINK_LEN ? conn->rx_discard : SINK_LEN;
			iov[count++] = (struct iovec){ conn->home->sink, sunk };
		}
		if (sunk == conn->rx_discard && conn->rx_trailer)
			iov[count++] = (struct iovec){
				conn->rx_trailer_buf + conn->rx_trailer_at, conn->rx_trailer };
	} else if (conn->rx_head) {
		memmove(conn->rx_buf, conn->rx_buf + conn->rx_head, conn->rx_tail - conn->rx_head);
		conn->rx_tail -= conn->rx_head;
		conn->rx_head = 0;
	}
	ahead = conn->rx_len - conn->rx_tail;
	/* The rest of a header may be longer than that; it comes with the next read. */
	if (conn->rx_long && ahead > RX_AHEAD)
		ahead = RX_AHEAD;
	if (sunk == conn->rx_discard || conn->rx_state == RX_HEADER)
		iov[count++] = (struct iovec){ conn->rx_buf + conn->rx_tail, ahead };
	for (*len = 0, i = 0; i < count; i++)
		*len += iov[i].iov_len;
	return count;
}

/* Sorts @n bytes that read_iov()'s vectors have received. */
static void arrived(struct tgt_conn *conn, uint32_t n)
{
	uint32_t part;

	if (conn->rx_state == RX_PAYLOAD) {
		part = n < conn->rx_store ? n : conn->rx_store;
		if (part)
			stored(conn, part);
		n -= part;
		part = n < conn->rx_discard ? n : conn->rx_discard;
		if (part > SINK_LEN)
			part = SINK_LEN;
		if (part)
			add_crc(conn, conn->home->sink, part);
		conn->rx_discard -= part;
		n -= part;
		part = n < conn->rx_trailer ? n : conn->rx_trailer;
		trailer_arrived(conn, part);
		n -= part;
	}
	conn->rx_tail += n;
}

static ssize_t read_some(struct tgt_conn *conn, bool *full)
{
	struct iovec iov[RX_IOV_MAX];
	struct msghdr msg = { .msg_iov = iov };
	ssize_t n;
	size_t len;

	msg.msg_iovlen = (size_t)read_iov(conn, iov, &len);
	do {
		n = recvmsg(conn->fd.fd, &msg, MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n > 0)
		arrived(conn, (uint32_t)n);
	*full = n > 0 && (size_t)n == len;
	return n;
}

void conn_readable(struct tgt_conn *conn)
{
	bool full = true;
	unsigned int i;

	for (i = 0; i < READS_MAX && full && !conn->rx_paused && conn_is_open(conn); i++) {
		ssize_t n = read_some(conn, &full);

		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return;
		if (n <= 0) {
			conn_close(conn, n ? "connection lost" : "closed by the initiator");
			return;
		}
		conn->rx_ns = reactor_now_ns(conn->home->reactor);
		conn_process(conn);
	}
	conn_kick(conn);
}

void conn_drain(struct tgt_conn *conn)
{
	ssize_t n = recv(conn->fd.fd, conn->home->sink, SINK_LEN, MSG_DONTWAIT);

	if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
		return;
	conn_close(conn, conn->why);
}

void conn_resume(struct tgt_conn *conn)
{
	if (conn->state == CONN_ATTACH)
		return;
	if (conn->state == CONN_LOGIN || conn->login) {
		if (!conn_tx_idle(conn))
			return;
		if (conn->state == CONN_FULL)
			conn_login_end(conn);
	}
	conn->rx_paused = false;
	conn_process(conn);
}

void conn_forget_payload(struct tgt_conn *conn, const struct tgt_task *task)
{
	if (conn->rx_task != task)
		return;
	conn->rx_task = NULL;
	conn->rx_discard += conn->rx_store;
	conn->rx_store = 0;
}
