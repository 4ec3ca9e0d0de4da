// SPDX-License-Identifier: Apache-2.0
#include "tests/block/mini_target.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define BHS		48u
#define SEGMENT_MAX	(256 * KIB)	/* what libiscsi declares that it takes */

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint64_t get64(const uint8_t *p)
{
	return (uint64_t)get32(p) << 32 | get32(p + 4);
}

static void put32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 24);
	p[1] = (uint8_t)(v >> 16);
	p[2] = (uint8_t)(v >> 8);
	p[3] = (uint8_t)v;
}

static bool get_all(int fd, void *buf, size_t len)
{
	return len == 0 || recv(fd, buf, len, MSG_WAITALL) == (ssize_t)len;
}

static bool put_all(int fd, const uint8_t *buf, size_t len)
{
	while (len) {
		ssize_t n = send(fd, buf, len, MSG_NOSIGNAL);

		if (n <= 0)
			return false;
		buf += n;
		len -= (size_t)n;
	}
	return true;
}

/* One PDU out: @bhs with lengths and sequence numbers filled in, then @data, padded. */
static bool send_pdu(struct mini_conn *c, uint8_t bhs[BHS], const void *data, uint32_t len,
		     uint32_t cmd_sn, bool status)
{
	static const uint8_t pad[3];

	put32(bhs + 4, len);	/* no AHS */
	put32(bhs + 24, status ? c->stat_sn++ : c->stat_sn);
	put32(bhs + 28, cmd_sn + 1);
	put32(bhs + 32, cmd_sn + 128);
	return put_all(c->fd, bhs, BHS) && put_all(c->fd, data, len) &&
	       put_all(c->fd, pad, -len & 3);
}

/* ---- login, NOP, logout ---- */

static uint64_t hash(const void *data, size_t len, uint64_t h)
{
	const uint8_t *p = data;

	while (len--)
		h = (h ^ *p++) * 0x100000001b3ull;
	return h;
}

static void take_name(struct mini_conn *c, const char *text, uint32_t len)
{
	static const char key[] = "InitiatorName=";

	for (uint32_t pos = 0; pos < len; pos += (uint32_t)strlen(text + pos) + 1)
		if (!strncmp(text + pos, key, sizeof(key) - 1))
			snprintf(c->initiator, sizeof(c->initiator), "%s", text + pos + sizeof(key) - 1);
}

/* Session reinstatement: the old one is gone, its tasks with it, before the login ends. */
static void reinstate(struct mini_conn *c, const uint8_t *isid)
{
	struct mini_target *t = c->t;
	uint64_t nexus = hash(isid, 6, hash(c->initiator, strlen(c->initiator), 14695981039346656037ull));
	bool alive;

	do {
		alive = false;
		pthread_mutex_lock(&t->mutex);
		for (unsigned int i = 0; i < MINI_CONNS; i++) {
			struct mini_conn *o = &t->conns[i];

			if (o == c || o->fd < 0 || o->nexus != nexus || o->ended)
				continue;
			shutdown(o->fd, SHUT_RDWR);
			alive = true;
		}
		if (!alive)
			c->nexus = nexus;
		pthread_mutex_unlock(&t->mutex);
		usleep(alive ? 1000 : 0);
	} while (alive);
}

static bool login(struct mini_conn *c, const uint8_t *rq, const char *text, uint32_t text_len)
{
	static const char security[] = "AuthMethod=None\0TargetPortalGroupTag=1";
	static const char operational[] =
		"HeaderDigest=None\0DataDigest=None\0ImmediateData=Yes\0InitialR2T=No\0"
		"MaxBurstLength=1048576\0FirstBurstLength=1048576\0MaxRecvDataSegmentLength=1048576\0"
		"MaxConnections=1\0MaxOutstandingR2T=1\0DefaultTime2Wait=0\0DefaultTime2Retain=0\0"
		"DataPDUInOrder=Yes\0DataSequenceInOrder=Yes\0ErrorRecoveryLevel=0";
	bool first = (rq[1] >> 2 & 3) == 0;
	uint8_t bhs[BHS] = { 0x23, rq[1] & 0xcf };

	take_name(c, text, text_len);
	memcpy(bhs + 8, rq + 8, 6);
	bhs[15] = 1;	/* TSIH */
	memcpy(bhs + 16, rq + 16, 4);
	if (rq[1] & 0x80)
		bhs[1] = rq[1];
	if ((rq[1] & 0x83) == 0x83) {
		reinstate(c, rq + 8);
		pthread_mutex_lock(&c->t->mutex);
		memcpy(c->t->isids[c->t->logins % MINI_CONNS], rq + 8, 6);
		c->t->logins++;
		pthread_mutex_unlock(&c->t->mutex);
	}
	return first ? send_pdu(c, bhs, security, sizeof(security), get32(rq + 24) - 1, true) :
		       send_pdu(c, bhs, operational, sizeof(operational), get32(rq + 24) - 1, true);
}

static bool nop(struct mini_conn *c, const uint8_t *rq)
{
	uint8_t bhs[BHS] = { 0x20, 0x80 };

	memcpy(bhs + 16, rq + 16, 4);
	memset(bhs + 20, 0xff, 4);
	return send_pdu(c, bhs, NULL, 0, get32(rq + 24) - 1, true);
}

/* ---- answers to commands ---- */

static bool answer(struct mini_conn *c, const uint8_t *rq, uint8_t status, const void *sense,
		   uint32_t len)
{
	uint8_t bhs[BHS] = { 0x21, 0x80, 0, status };

	memcpy(bhs + 16, rq + 16, 4);
	return send_pdu(c, bhs, sense, len, get32(rq + 24), true);
}

static bool answer_sense(struct mini_conn *c, const uint8_t *rq, const struct mini_rule *r)
{
	uint8_t s[2 + 32] = { 0, r->descriptor ? 20 : 18 };
	uint8_t *sense = s + 2;

	if (r->descriptor) {
		sense[0] = 0x72;
		sense[1] = r->key;
		sense[2] = (uint8_t)(r->asc >> 8);
		sense[3] = (uint8_t)r->asc;
		sense[7] = 12;
		sense[9] = 10;
		sense[10] = r->lba ? 0x80 : 0;
		put32(sense + 12, (uint32_t)(r->lba >> 32));
		put32(sense + 16, (uint32_t)r->lba);
	} else {
		sense[0] = r->lba ? 0xf0 : 0x70;
		sense[2] = r->key;
		put32(sense + 3, (uint32_t)r->lba);
		sense[7] = 10;
		sense[12] = (uint8_t)(r->asc >> 8);
		sense[13] = (uint8_t)r->asc;
	}
	return answer(c, rq, 0x02, s, 2u + s[1]);
}

static bool answer_bad(struct mini_conn *c, const uint8_t *rq, uint8_t key, uint16_t asc)
{
	struct mini_rule r = { .key = key, .asc = asc };

	return answer_sense(c, rq, &r);
}

static bool answer_data(struct mini_conn *c, const uint8_t *rq, const uint8_t *data, uint32_t len)
{
	uint32_t wanted = get32(rq + 20), off = 0, sn = 0, more = len > wanted ? len - wanted : 0;

	len -= more;
	do {
		uint32_t n = len - off < SEGMENT_MAX ? len - off : (uint32_t)SEGMENT_MAX;
		bool last = off + n == len;
		uint8_t bhs[BHS] = { 0x25, last ? 0x81 : 0 };

		if (last && len < wanted) {
			bhs[1] |= 0x02;	/* underflow */
			put32(bhs + 44, wanted - len);
		}
		if (last && more) {
			bhs[1] |= 0x04;	/* overflow */
			put32(bhs + 44, more);
		}
		memcpy(bhs + 16, rq + 16, 4);
		memset(bhs + 20, 0xff, 4);
		put32(bhs + 36, sn++);
		put32(bhs + 40, off);
		if (!send_pdu(c, bhs, data + off, n, get32(rq + 24), last))
			return false;
		off += n;
	} while (off < len);
	return true;
}

static bool inquiry(struct mini_conn *c, const uint8_t *rq)
{
	static const char port[] = MINI_IQN ",t,0x0001";
	const uint8_t *cdb = rq + 32;
	uint8_t d[96] = { 0 };
	uint32_t len = 64;

	if (!(cdb[1] & 1)) {
		d[2] = 6;
		d[4] = 91;
		memcpy(d + 8, "LunFS   mini            1   ", 28);
		return answer_data(c, rq, d, 96);
	}
	d[1] = cdb[2];
	switch (cdb[2]) {
	case 0x83:
		d[4] = 1;	/* LUN, NAA */
		d[5] = 3;
		d[7] = 8;
		d[8] = 0x30;
		d[15] = c->t->identity;
		d[16] = 0x53;	/* target port, SCSI name string */
		d[17] = 0x98;
		d[19] = sizeof(port);
		memcpy(d + 20, port, sizeof(port));
		d[3] = (uint8_t)(16 + sizeof(port));
		return answer_data(c, rq, d, 4u + d[3]);
	case 0xb0:
		d[3] = 60;
		d[5] = 1;
		put32(d + 8, c->t->rw_max);
		put32(d + 20, 1024);
		put32(d + 24, 1);
		put32(d + 40, c->t->same_max);
		break;
	case 0xb2:
		d[3] = 4;
		d[5] = 0x80;
		len = 8;
		break;
	default:
		return answer_bad(c, rq, 5, 0x2400);
	}
	return answer_data(c, rq, d, len);
}

static bool capacity(struct mini_conn *c, const uint8_t *rq)
{
	uint8_t d[32] = { 0 };

	put32(d, (uint32_t)((c->t->size / c->t->sector - 1) >> 32));
	put32(d + 4, (uint32_t)(c->t->size / c->t->sector - 1));
	put32(d + 8, c->t->sector);
	d[14] = 0x80;	/* thin */
	return answer_data(c, rq, d, sizeof(d));
}

static bool mode_sense(struct mini_conn *c, const uint8_t *rq)
{
	uint8_t d[24] = { 23, 0, 0x10, 0, 0x08, 18, 0x04 };

	if (c->t->no_fua)
		d[2] = 0;
	if (!c->t->wce)
		d[6] = 0;
	return answer_data(c, rq, d, sizeof(d));
}

/* ---- execution; mutex held for what touches the disk ---- */

static bool execute_rw(struct mini_conn *c, const uint8_t *rq, const uint8_t *in, bool silent)
{
	struct mini_target *t = c->t;
	const uint8_t *cdb = rq + 32;
	uint64_t off = get64(cdb + 2) * t->sector;
	uint32_t len = cdb[0] == 0x89 ? t->sector : get32(cdb + 10) * t->sector;
	uint8_t *copy = NULL;
	bool equal = true, ok;

	if (off + len > t->size)
		return answer_bad(c, rq, 5, 0x2100);
	pthread_mutex_lock(&t->mutex);
	if (len > t->biggest)
		t->biggest = len;
	switch (cdb[0]) {
	case 0x88:
		copy = malloc(len);
		if (copy)
			memcpy(copy, t->data + off, len);
		break;
	case 0x8a:
		memcpy(t->data + off, in, len);
		break;
	case 0x89:
		equal = !memcmp(t->data + off, in, len);
		if (t->broken_caw) {
			pthread_mutex_unlock(&t->mutex);
			usleep(100);
			pthread_mutex_lock(&t->mutex);
		}
		if (equal)
			memcpy(t->data + off, in + len, len);
		break;
	default:	/* WRITE SAME */
		for (uint32_t n = 0; n < len; n += t->sector)
			memcpy(t->data + off + n, in, t->sector);
		break;
	}
	pthread_mutex_unlock(&t->mutex);
	if (silent)
		ok = true;
	else if (copy)
		ok = answer_data(c, rq, copy, len);
	else
		ok = equal ? answer(c, rq, 0, NULL, 0) : answer_bad(c, rq, 0xe, 0x1d00);
	free(copy);
	return ok;
}

static bool reserve(struct mini_conn *c, const uint8_t *rq, const uint8_t *in)
{
	struct mini_target *t = c->t;
	uint8_t data[2048] = { 0 }, status = 2;
	uint32_t len = 0;

	if (!t->reservations)
		return answer_bad(c, rq, 5, 0x2000);
	pthread_mutex_lock(&t->mutex);
	if (rq[32] == 0x5f)
		status = mini_pr_out(t, c->nexus, rq + 32, in);
	else
		len = mini_pr_in(t, rq + 32, data);
	pthread_mutex_unlock(&t->mutex);
	if (len)
		return answer_data(c, rq, data, len);
	return status == 2 ? answer_bad(c, rq, 5, 0x2400) : answer(c, rq, status, NULL, 0);
}

static bool execute(struct mini_conn *c, const uint8_t *rq, const uint8_t *in, bool silent)
{
	bool conflict;

	pthread_mutex_lock(&c->t->mutex);
	conflict = mini_pr_conflict(c->t, c->nexus, rq[32]);
	pthread_mutex_unlock(&c->t->mutex);
	if (conflict)
		return answer(c, rq, 0x18, NULL, 0);
	switch (rq[32]) {
	case 0x5e: case 0x5f:
		return reserve(c, rq, in);
	case 0x00: case 0x35: case 0x42:
		return silent || answer(c, rq, 0, NULL, 0);
	case 0x12:
		return inquiry(c, rq);
	case 0x1a:
		return mode_sense(c, rq);
	case 0x9e:
		return capacity(c, rq);
	case 0x89:
		return rq[32 + 13] ? execute_rw(c, rq, in, silent) : answer(c, rq, 0, NULL, 0);
	case 0x88: case 0x8a: case 0x93:
		return execute_rw(c, rq, in, silent);
	default:
		return answer_bad(c, rq, 5, 0x2000);
	}
}

/* Return: whether a rule is about this command; counts it. */
static bool match_rule(struct mini_target *t, const uint8_t *cdb, struct mini_rule *out)
{
	bool found = false;

	pthread_mutex_lock(&t->mutex);
	t->seen[cdb[0]]++;
	t->fua[cdb[0]] += (cdb[1] & 0x08) && cdb[0] != 0x93;
	for (unsigned int i = 0; i < MINI_RULES && !found; i++) {
		struct mini_rule *r = &t->rules[i];

		if (!r->count || r->opcode != cdb[0])
			continue;
		if (r->skip) {
			r->skip--;
			continue;
		}
		r->count--;
		*out = *r;
		found = true;
	}
	pthread_mutex_unlock(&t->mutex);
	return found;
}

static bool command(struct mini_conn *c, const uint8_t *rq, const uint8_t *in)
{
	uint8_t copy[BHS], short_rq[4];
	struct mini_rule r;

	if (!match_rule(c->t, rq + 32, &r))
		return execute(c, rq, in, false);
	switch (r.action) {
	case MINI_SENSE:
		return answer_sense(c, rq, &r);
	case MINI_STATUS:
		return answer(c, rq, r.status, NULL, 0);
	case MINI_DROP:
		return false;
	case MINI_DROP_DONE:
		execute(c, rq, in, true);
		return false;
	case MINI_SILENT:
		return execute(c, rq, in, true);
	case MINI_EMPTY:
		return answer(c, rq, 0, NULL, 0);
	case MINI_SHORT:
		put32(short_rq, get32(rq + 20) - c->t->sector);
		memcpy(copy, rq, BHS);
		memcpy(copy + 20, short_rq, 4);
		put32(copy + 32 + 10, get32(rq + 32 + 10) - 1);
		return execute(c, copy, in, false);
	}
	return false;
}

static bool serve_one(struct mini_conn *c)
{
	uint8_t rq[BHS], bhs[BHS] = { 0 }, *data;
	uint32_t len;
	bool ok;

	if (!get_all(c->fd, rq, BHS))
		return false;
	len = get32(rq + 4) & 0xffffff;
	data = calloc(1, len + 5);
	ok = data && get_all(c->fd, data, (len + 3) & ~3u);
	if (ok) {
		switch (rq[0] & 0x3f) {
		case 0x00:
			ok = get32(rq + 16) == 0xffffffff || nop(c, rq);
			break;
		case 0x01:
			ok = command(c, rq, data);
			break;
		case 0x03:
			ok = login(c, rq, (const char *)data, len);
			break;
		case 0x06:
			bhs[0] = 0x26;
			bhs[1] = 0x80;
			memcpy(bhs + 16, rq + 16, 4);
			send_pdu(c, bhs, NULL, 0, get32(rq + 24), true);
			ok = false;
			break;
		default:
			ok = false;
		}
	}
	free(data);
	return ok;
}

static void *conn_main(void *arg)
{
	struct mini_conn *c = arg;

	while (serve_one(c))
		;
	pthread_mutex_lock(&c->t->mutex);
	c->ended = true;
	pthread_mutex_unlock(&c->t->mutex);
	shutdown(c->fd, SHUT_RDWR);
	return NULL;
}

/* ---- life ---- */

static void conn_end(struct mini_conn *c)
{
	if (c->fd < 0)
		return;
	shutdown(c->fd, SHUT_RDWR);
	pthread_join(c->thread, NULL);
	/* Logins on other connections look for what they replace: a number that is closed is not it. */
	pthread_mutex_lock(&c->t->mutex);
	close(c->fd);
	c->fd = -1;
	pthread_mutex_unlock(&c->t->mutex);
}

/* Whether a new connection may use @c: nobody's, or one of which the thread has ended. */
static bool conn_is_free(struct mini_target *t, const struct mini_conn *c)
{
	bool free;

	pthread_mutex_lock(&t->mutex);
	free = c->fd < 0 || c->ended;
	pthread_mutex_unlock(&t->mutex);
	return free;
}

static void *accept_main(void *arg)
{
	struct mini_target *t = arg;
	unsigned int next = 0;
	int one = 1;

	for (;;) {
		int fd = accept(t->listen_fd, NULL, NULL);
		struct mini_conn *c = &t->conns[next++ % MINI_CONNS];

		for (unsigned int i = 0; i < MINI_CONNS && !conn_is_free(t, c); i++)
			c = &t->conns[next++ % MINI_CONNS];
		if (fd < 0)
			return NULL;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		conn_end(c);
		pthread_mutex_lock(&t->mutex);
		*c = (struct mini_conn){ .t = t, .fd = fd, .stat_sn = 1 };
		pthread_mutex_unlock(&t->mutex);
		if (pthread_create(&c->thread, NULL, conn_main, c))
			return NULL;
	}
}

int mini_start(struct mini_target *t)
{
	struct sockaddr_in addr = { .sin_family = AF_INET,
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(addr);
	int one = 1;

	if (!t->identity)
		t->identity = 1;
	if (!t->size)
		t->size = MINI_SIZE;
	t->data = calloc(1, t->size);
	if (!t->data)
		return -ENOMEM;
	for (unsigned int i = 0; i < MINI_CONNS; i++)
		t->conns[i].fd = -1;
	pthread_mutex_init(&t->mutex, NULL);
	t->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(t->listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (t->listen_fd < 0 || bind(t->listen_fd, (struct sockaddr *)&addr, sizeof(addr)) ||
	    listen(t->listen_fd, 16) ||
	    getsockname(t->listen_fd, (struct sockaddr *)&addr, &len))
		return -errno;
	t->port = ntohs(addr.sin_port);
	return -pthread_create(&t->thread, NULL, accept_main, t);
}

void mini_stop(struct mini_target *t)
{
	shutdown(t->listen_fd, SHUT_RDWR);
	pthread_join(t->thread, NULL);
	close(t->listen_fd);
	for (unsigned int i = 0; i < MINI_CONNS; i++)
		conn_end(&t->conns[i]);
	pthread_mutex_destroy(&t->mutex);
	free(t->data);
}

const char *mini_url(const struct mini_target *t, const char *params, char buf[256])
{
	snprintf(buf, 256, "iscsi://127.0.0.1:%u/" MINI_IQN "/0%s", t->port, params);
	return buf;
}

void mini_rule_add(struct mini_target *t, struct mini_rule rule)
{
	pthread_mutex_lock(&t->mutex);
	for (unsigned int i = 0; i < MINI_RULES; i++) {
		if (t->rules[i].count)
			continue;
		t->rules[i] = rule;
		break;
	}
	pthread_mutex_unlock(&t->mutex);
}

void mini_cut(struct mini_target *t)
{
	pthread_mutex_lock(&t->mutex);
	for (unsigned int i = 0; i < MINI_CONNS; i++)
		if (t->conns[i].fd >= 0)
			shutdown(t->conns[i].fd, SHUT_RDWR);
	pthread_mutex_unlock(&t->mutex);
}

unsigned int mini_seen(struct mini_target *t, uint8_t opcode)
{
	unsigned int n;

	pthread_mutex_lock(&t->mutex);
	n = t->seen[opcode];
	pthread_mutex_unlock(&t->mutex);
	return n;
}

unsigned int mini_logins(struct mini_target *t)
{
	unsigned int n;

	pthread_mutex_lock(&t->mutex);
	n = t->logins;
	pthread_mutex_unlock(&t->mutex);
	return n;
}
