// SPDX-License-Identifier: Apache-2.0
/*
 * Connections as anybody may use them: streams of PDUs, nearly right and wrong, over several
 * connections and sessions, with digests, from the first byte of a login to the last of a
 * session, against the real transport (conn*.c, session.c, task.c, memory.c, tmf.c, registry.c)
 * on reactors and a device server that the input steps.
 *
 * What must hold: whatever the target sends is well-formed, with the next StatSN, a MaxCmdSN that
 * never goes back and right digests; everything is given back at the end; and one who behaves
 * gets in and is served at any time.
 *
 * Input: two bytes of settings, then records of a step and its fields.
 */
#include <errno.h>

#include "tests/fuzz/fuzz.h"

/* The rig of the unit tests, with its claims as this program's. */
#define LUNFS_TESTS_UNIT_H
#define CU_ASSERT_TRUE(x)		FUZZ_CHECK(x)
#define CU_ASSERT_EQUAL(a, b)		FUZZ_CHECK((a) == (b))
#define CU_ASSERT_NOT_EQUAL(a, b)	FUZZ_CHECK((a) != (b))
#define CU_ASSERT_EQUAL_FATAL(a, b)	FUZZ_CHECK((a) == (b))
#define CU_ASSERT_FATAL(x)		FUZZ_CHECK(x)
#define FAKE_KEEP_DISK
#include "tests/iscsi/transport_rig.h"

enum {
	PEERS = 4, STEPS_MAX = 64, R2TS = 8, DATA_MAX = 80000, TEXT_MAX = 300,
	IN_LEN = 1 << 20,
};

struct peer {
	struct ini	ini;
	bool		open;
	bool		full;		/* logged in */
	bool		sn_known;
	uint32_t	max_cmd_sn;
	struct pdu_r2t_wire r2t[R2TS];
	unsigned int	r2ts;		/* received so far */
	uint8_t		in[IN_LEN];	/* received, not yet a whole PDU */
	size_t		in_len;
};

static struct peer peers[PEERS];
static uint8_t payload[DATA_MAX];

static const char *const key_sets[] = {
	"",
	"HeaderDigest=CRC32C\nDataDigest=CRC32C\nMaxConnections=4\n",
	"InitialR2T=No\nImmediateData=Yes\nFirstBurstLength=4096\nMaxBurstLength=8192\n"
	"MaxOutstandingR2T=4\nMaxConnections=4\n",
	"InitialR2T=No\nImmediateData=No\nFirstBurstLength=512\nMaxBurstLength=512\n"
	"DataDigest=CRC32C\nMaxRecvDataSegmentLength=512\n",
	"ImmediateData=No\nMaxBurstLength=1024\nMaxOutstandingR2T=8\nHeaderDigest=CRC32C\n",
	"MaxRecvDataSegmentLength=1000\nMaxConnections=2\nInitialR2T=No\n",
};

/* ---- what the target sends ---- */

static void check_digest(const uint8_t *p, uint32_t len)
{
	le32 want;

	memcpy(&want, p + len, sizeof(want));
	FUZZ_CHECK(le32_to_cpu(want) == crc32c(0, p, len));
}

static void take_login(struct peer *p, const struct pdu_login_response_wire *l,
		       const uint8_t *data, uint32_t len)
{
	if (be16_to_cpu(l->status) || (l->flags & 0x83) != (PDU_LOGIN_TRANSIT | 3))
		return;
	p->full = true;
	p->ini.tsih = be16_to_cpu(l->tsih);
	p->ini.header_digest = memmem(data, len, "HeaderDigest=CRC32C", 19) != NULL;
	p->ini.data_digest = memmem(data, len, "DataDigest=CRC32C", 17) != NULL;
}

static void check_numbers(struct peer *p, const struct pdu_reply_wire *r)
{
	struct ini *ini = &p->ini;
	uint32_t max = be32_to_cpu(r->max_cmd_sn);

	memcpy(&ini->bhs, r, sizeof(ini->bhs));
	if (r->opcode != PDU_DATA_IN || carries_status(ini)) {
		FUZZ_CHECK(!p->sn_known || be32_to_cpu(r->stat_sn) == ini->stat_sn);
		ini->stat_sn = be32_to_cpu(r->stat_sn) + carries_status(ini);
		p->sn_known = true;
	}
	if (r->opcode == PDU_LOGIN_RESPONSE)
		return;
	FUZZ_CHECK(!p->max_cmd_sn || !sn_before(max, p->max_cmd_sn));
	FUZZ_CHECK(!sn_before(max + 1, be32_to_cpu(r->exp_cmd_sn)));
	p->max_cmd_sn = max;
}

/* Return: bytes of the PDU that begins at @at, 0 if it is not whole. */
static size_t take_pdu(struct peer *p, size_t at)
{
	const uint8_t *in = p->in + at;
	size_t have = p->in_len - at;
	bool digests = p->full;
	uint32_t head = PDU_BHS_LEN + (digests && p->ini.header_digest ? 4 : 0), len, tail = 0;
	const struct pdu_reply_wire *r = (const void *)in;

	if (have < PDU_BHS_LEN)
		return 0;
	FUZZ_CHECK(r->opcode & 0x20 && !r->ahs_len);
	len = be24_to_cpu(r->data_len);
	FUZZ_CHECK(len <= PDU_DATA_LEN_MAX / 16);
	if (len && digests && p->ini.data_digest)
		tail = 4;
	if (have < head + pdu_padded(len) + tail)
		return 0;
	if (head > PDU_BHS_LEN)
		check_digest(in, PDU_BHS_LEN);
	if (tail)
		check_digest(in + head, pdu_padded(len));
	check_numbers(p, r);
	if (r->opcode == PDU_LOGIN_RESPONSE)
		take_login(p, (const void *)r, in + head, len);
	if (r->opcode == PDU_R2T)
		memcpy(&p->r2t[p->r2ts++ % R2TS], r, sizeof(*r));
	return head + pdu_padded(len) + tail;
}

/* Everything that there is.  What is cut off by the end of the stream is nobody's. */
static void receive(struct peer *p)
{
	ssize_t n;
	size_t used, at;

	while (p->open) {
		fake_run();
		n = recv(p->ini.fd, p->in + p->in_len, sizeof(p->in) - p->in_len, 0);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0) {
			p->open = p->full = false;
			ini_close(&p->ini);
			return;
		}
		p->in_len += (size_t)n;
		for (at = 0; (used = take_pdu(p, at)); at += used)
			;
		p->in_len -= at;
		memmove(p->in, p->in + at, p->in_len);
	}
}

/* ---- steps ---- */

static void open_peer(struct peer *p, unsigned int from)
{
	if (p->open)
		ini_close(&p->ini);
	ini_connect_from(&p->ini, 0x0a000000 + from);
	p->open = true;
	p->full = p->sn_known = false;
	p->max_cmd_sn = 0;
	p->r2ts = 0;
	p->in_len = 0;
}

/* A login: of a session of its own, or a further connection of another peer's. */
static void step_login(struct peer *p, struct fuzz_input *in)
{
	uint8_t how[4];
	const struct peer *of;

	fuzz_take(in, how, sizeof(how));
	of = &peers[how[1] % PEERS];
	open_peer(p, how[2] % 3);
	if (how[0] & 1 && of != p) {
		p->ini.tsih = of->ini.tsih;
		p->ini.cmd_sn = of->ini.cmd_sn;
	}
	ini_send_login(&p->ini, how[2] % 3, how[3] % 4,
		       how[0] & 1 ? "" : key_sets[how[3] % ARRAY_SIZE(key_sets)]);
	receive(p);
}

/* A login request as the input has it. */
static void step_login_pdu(struct peer *p, struct fuzz_input *in)
{
	struct pdu_login_request_wire rq = { .opcode = PDU_LOGIN_REQUEST | PDU_IMMEDIATE };
	uint8_t text[TEXT_MAX];
	size_t len;

	if (!p->open)
		open_peer(p, 1);
	rq.flags = (uint8_t)fuzz_number(in, 1);
	fuzz_take(in, rq.isid, 6);
	rq.cid = cpu_to_be16((uint16_t)fuzz_number(in, 1));
	rq.cmd_sn = cpu_to_be32(p->ini.cmd_sn);
	len = fuzz_number(in, 2) % TEXT_MAX;
	fuzz_take(in, text, len);
	ini_send(&p->ini, &rq, text, (uint32_t)len);
}

/* Sends a PDU; bits of @how: digests wrong, cut off, in pieces, a wrong length. */
static void send_pdu(struct peer *p, void *pdu, uint32_t len, uint8_t how)
{
	struct ini *ini = &p->ini;
	struct pdu_bhs_wire *bhs = pdu;
	uint32_t crc, pad = pdu_padded(len) - len;
	static const uint8_t zero[4];
	le32 sum;

	if (!p->open)
		return;
	bhs->data_len = cpu_to_be24(how & 0x10 ? len + 1 + (how & 3) : len);
	crc = crc32c(0, bhs, sizeof(*bhs));
	ini_write(ini, bhs, how & 0x20 ? 20 : sizeof(*bhs));
	if (how & 0x40)
		fake_run();
	if (how & 0x20)
		ini_write(ini, (uint8_t *)bhs + 20, sizeof(*bhs) - 20);
	if (ini->header_digest) {
		sum = cpu_to_le32(how & 0x01 && how & 0x80 ? ~crc : crc);
		ini_write(ini, &sum, 4);
	}
	ini_write(ini, payload, len / 2);
	if (how & 0x40)
		fake_run();
	ini_write(ini, payload + len / 2, len - len / 2);
	ini_write(ini, zero, pad);
	if (ini->data_digest && len) {
		crc = crc32c(crc32c(0, payload, len), zero, pad);
		sum = cpu_to_le32(how & 0x02 && how & 0x80 ? ~crc : crc);
		ini_write(ini, &sum, 4);
	}
	fake_run();
}

/* Small numbers, so that tags meet again; now and then any. */
static uint32_t tag(struct fuzz_input *in)
{
	uint32_t n = (uint32_t)fuzz_number(in, 1);

	return n < 240 ? n % 12 : n < 250 ? PDU_TAG_NONE : (uint32_t)fuzz_number(in, 4);
}

/* Mostly the next one. */
static uint32_t number(struct ini *ini, struct fuzz_input *in, bool immediate)
{
	uint8_t n = (uint8_t)fuzz_number(in, 1);

	if (n >= 200)
		return ini->cmd_sn + (uint32_t)(n - 220);
	return immediate ? ini->cmd_sn : ini->cmd_sn++;
}

static void step_command(struct peer *p, struct fuzz_input *in, uint8_t how)
{
	static const uint8_t ops[] = { FAKE_OP_READ, FAKE_OP_WRITE, FAKE_OP_TEST, FAKE_OP_FAIL };
	struct pdu_scsi_command_wire c = { .opcode = PDU_SCSI_COMMAND };
	uint8_t f[4];
	uint32_t blocks, len;
	be32 lba;

	fuzz_take(in, f, sizeof(f));
	if (f[0] & 0x80)
		c.opcode |= PDU_IMMEDIATE;
	c.cdb[0] = ops[f[0] % 4];
	c.flags = c.cdb[0] == FAKE_OP_WRITE ? PDU_CMD_WRITE | PDU_FINAL :
		  c.cdb[0] == FAKE_OP_READ ? PDU_CMD_READ | PDU_FINAL : PDU_FINAL;
	if (f[1] & 1)
		c.flags ^= (uint8_t)(f[1] & 0xe0);
	c.itt = cpu_to_be32(tag(in));
	blocks = (uint32_t)fuzz_number(in, 1) << f[1] % 8;
	c.expected_len = cpu_to_be32(f[2] & 1 ? (uint32_t)fuzz_number(in, 3) : blocks * FAKE_BLOCK);
	c.cmd_sn = cpu_to_be32(number(&p->ini, in, f[0] & 0x80));
	c.lun[1] = f[2] >> 7;
	lba = cpu_to_be32((uint32_t)fuzz_number(in, 2));
	memcpy(c.cdb + 2, &lba, 4);
	c.cdb[6] = (uint8_t)(blocks >> 16);
	c.cdb[7] = (uint8_t)(blocks >> 8);
	c.cdb[8] = (uint8_t)blocks;
	len = f[3] & 1 ? (uint32_t)fuzz_number(in, 2) : 0;
	send_pdu(p, &c, len, how);
}

/* Data for one of the latest R2Ts, as asked or nearly so; or unsolicited. */
static void step_data(struct peer *p, struct fuzz_input *in, uint8_t how)
{
	struct pdu_data_out_wire d = { .opcode = PDU_DATA_OUT };
	uint8_t f[4];
	const struct pdu_r2t_wire *r;
	uint32_t len, at, whole;

	fuzz_take(in, f, sizeof(f));
	r = &p->r2t[f[0] % R2TS];
	whole = be32_to_cpu(r->desired_len);
	at = f[1] & 1 ? (uint32_t)fuzz_number(in, 2) : 0;
	len = f[1] & 2 ? (uint32_t)fuzz_number(in, 2) : whole > at ? whole - at : 0;
	if (len > DATA_MAX)
		len = DATA_MAX;
	d.itt = f[1] & 4 ? cpu_to_be32(tag(in)) : r->itt;
	d.ttt = f[1] & 8 ? cpu_to_be32(PDU_TAG_NONE) : r->ttt;
	if (f[1] & 16)
		d.ttt = cpu_to_be32(be32_to_cpu(r->ttt) + f[2]);
	d.flags = f[1] & 32 ? 0 : PDU_FINAL;
	d.data_sn = cpu_to_be32(f[3] < 200 ? f[3] % 4 : 0);
	d.offset = cpu_to_be32((f[1] & 8 ? 0 : be32_to_cpu(r->offset)) + at);
	send_pdu(p, &d, len, how);
}

static void step_request(struct peer *p, struct fuzz_input *in, uint8_t how)
{
	static const uint8_t ops[] = { PDU_NOP_OUT, PDU_TMF_REQUEST, PDU_TEXT_REQUEST,
				       PDU_LOGOUT_REQUEST, PDU_SNACK };
	union {
		struct pdu_request_wire request;
		struct pdu_tmf_request_wire tmf;
		struct pdu_logout_request_wire logout;
		struct pdu_text_request_wire text;
	} u = { 0 };
	uint8_t f[4];

	fuzz_take(in, f, sizeof(f));
	u.request.opcode = ops[f[0] % ARRAY_SIZE(ops)] | (f[0] & 0x80 ? 0 : PDU_IMMEDIATE);
	u.request.flags = (uint8_t)(PDU_FINAL | f[1]);
	u.request.itt = cpu_to_be32(tag(in));
	u.request.specific_20 = cpu_to_be32(tag(in));
	u.request.cmd_sn = cpu_to_be32(number(&p->ini, in, !(f[0] & 0x80)));
	if (ops[f[0] % ARRAY_SIZE(ops)] == PDU_TMF_REQUEST) {
		u.tmf.function = (uint8_t)(PDU_FINAL | f[1] % 14);
		u.tmf.ref_cmd_sn = cpu_to_be32(p->ini.cmd_sn - f[2] % 4);
	} else if (ops[f[0] % ARRAY_SIZE(ops)] == PDU_LOGOUT_REQUEST) {
		u.logout.reason = (uint8_t)(PDU_FINAL | f[1] % 4);
		u.logout.cid = cpu_to_be16(f[2] % 4);
	} else if (f[2] & 1) {
		u.text.flags = (uint8_t)(f[1] & 0xc0);
	}
	send_pdu(p, &u, f[3] & 1 ? f[3] * 40u : 0, how);
}

/* A header as the input has it, additional segments too. */
static void step_raw_header(struct peer *p, struct fuzz_input *in, uint8_t how)
{
	struct pdu_bhs_wire bhs;

	fuzz_take(in, &bhs, sizeof(bhs));
	if (how & 0x04)
		bhs.ahs_len = 0;
	send_pdu(p, &bhs, (uint32_t)fuzz_number(in, 2) % 2048, how & (uint8_t)~0x10);
}

static void step_bytes(struct peer *p, struct fuzz_input *in)
{
	uint8_t bytes[256];
	size_t n = fuzz_number(in, 1);

	if (n > in->left)
		n = in->left;
	fuzz_take(in, bytes, n);
	if (p->open)
		ini_write(&p->ini, bytes, n);
	fake_run();
}

static void step(struct fuzz_input *in)
{
	uint8_t op[3];
	struct peer *p;

	fuzz_take(in, op, sizeof(op));
	p = &peers[op[1] % PEERS];
	switch (op[0] % 16) {
	case 0:
		step_login(p, in);
		break;
	case 1:
		step_login_pdu(p, in);
		break;
	case 2: case 3: case 4:
		step_command(p, in, op[2]);
		break;
	case 5: case 6: case 7:
		receive(p);
		step_data(p, in, op[2]);
		break;
	case 8: case 9:
		step_request(p, in, op[2]);
		break;
	case 10:
		step_raw_header(p, in, op[2]);
		break;
	case 11:
		step_bytes(p, in);
		break;
	case 12:
		fake_advance(op[2] * (NSEC_PER_SEC / 8));
		break;
	case 13:
		if (op[2] % 4 == 0 && p->open) {
			p->open = p->full = false;
			ini_close(&p->ini);
		}
		break;
	case 14:
		fake.hold = op[2] & 1;
		if (!fake.hold)
			fake_release();
		fake_run();
		break;
	default:
		receive(p);
	}
}

/* ---- one input ---- */

static void few(struct tgt_limits *limits)
{
	limits->commands_max = 8;
	limits->half_open_max = 3;
	limits->connections_address_max = 5;
	limits->session_connections_max = 3;
}

static void others_are_served(void)
{
	static struct ini good;

	fake.hold = false;
	fake_release();
	fake_run();
	ini_connect_from(&good, 0x0b000001);
	ini_send_login(&good, 77, 1, "");
	FUZZ_CHECK(ini_login_status(&good) == PDU_LOGIN_SUCCESS);
	good.header_digest = good.data_digest = false;
	ini_read_blocks(&good, 0, 1);
	FUZZ_CHECK(ini_receive(&good) == PDU_DATA_IN && good.data_len == FAKE_BLOCK);
	ini_close(&good);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { data, size };
	uint8_t settings[2];
	unsigned int i;

	fuzz_take(&in, settings, sizeof(settings));
	world_open_limits(settings[0] & 1 ? few : NULL);
	fake.hold = settings[0] & 2;
	for (i = 0; i < STEPS_MAX && in.left; i++)
		step(&in);
	others_are_served();
	for (i = 0; i < PEERS; i++) {
		if (peers[i].open)
			receive(&peers[i]);
		if (peers[i].open)
			ini_close(&peers[i].ini);
		peers[i].open = peers[i].full = false;
		memset(&peers[i].r2t, 0, sizeof(peers[i].r2t));
		peers[i].ini.tsih = 0;
	}
	world_close();
	return 0;
}
