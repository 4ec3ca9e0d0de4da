/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole transport in one thread: fake reactors, a fake device server, the real login, and
 * initiators at the other ends of socket pairs.  Include it in one source file.
 */
#ifndef LUNFS_TESTS_TRANSPORT_RIG_H
#define LUNFS_TESTS_TRANSPORT_RIG_H

#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "iscsi/config.h"
#include "iscsi/internal.h"
#include "tests/iscsi/poll_reactor.h"
#include "tests/iscsi/fake_scsi.h"
#include "tests/unit.h"

#define DISK	"iqn.2026-01.example:disk"
#define HOST	"iqn.2026-01.example:host"

static struct {
	struct tgt	*tgt;
	struct tgt_config *config;
	struct reactor	*reactors[2];
} world;

/* An initiator's connection. */
struct ini {
	int		fd;
	bool		header_digest, data_digest;
	uint16_t	tsih;
	uint32_t	cmd_sn;		/* of the next command that is not immediate */
	uint32_t	stat_sn;	/* expected next */
	uint32_t	itt;
	/* the last PDU received */
	union {
		struct pdu_bhs_wire bhs;
		struct pdu_reply_wire reply;
		struct pdu_scsi_response_wire response;
		struct pdu_data_in_wire data_in;
		struct pdu_r2t_wire r2t;
		struct pdu_tmf_response_wire tmf;
		struct pdu_reject_wire reject;
		struct pdu_login_response_wire login;
		struct pdu_logout_response_wire logout;
		struct pdu_async_wire async;
	};
	uint8_t		data[1 << 20];
	uint32_t	data_len;
};

static inline struct scsi_target *world_find(void *arg, const char *iqn)
{
	(void)arg;
	return strcmp(iqn, DISK) ? NULL : &fake.target;
}

static inline void world_open_limits(void (*set)(struct tgt_limits *limits))
{
	static const char text[] = "portal = 127.0.0.1:3260\n"
				   "[target " DISK "]\ninitiator = *\n";
	struct tgt_options o = { .env = env_posix(), .find_target = world_find };
	char why[300] = "";
	FILE *in = fmemopen((void *)(uintptr_t)text, strlen(text), "r");
	unsigned int i;

	env_posix_log_level(LOG_LEVEL_ERROR);
	fake_init();
	fake_reactor_count = 0;
	assert(in && !tgt_config_create(&world.config));
	assert(!tgt_config_read(world.config, in, "c", why, sizeof(why)));
	fclose(in);
	for (i = 0; i < ARRAY_SIZE(world.reactors); i++)
		world.reactors[i] = fake_reactor();
	o.reactors = world.reactors;
	o.reactor_count = ARRAY_SIZE(world.reactors);
	o.config = world.config;
	tgt_limits_default(&o.limits);
	o.limits.memory_max = 0;	/* the least there may be */
	if (set)
		set(&o.limits);
	assert(!tgt_create(&o, &world.tgt));
}

static inline void world_open(void)
{
	world_open_limits(NULL);
}

/* Everything is given back: the pools and the fake nexuses assert it. */
static inline void world_close(void)
{
	tgt_destroy(world.tgt);
	tgt_config_destroy(world.config);
	CU_ASSERT_EQUAL(fake.nexuses, 0);
	fake_fini();
}

/* ---- an initiator ---- */

static inline void ini_connect_from(struct ini *ini, uint32_t ip)
{
	struct tgt_peer peer = { .portal_group = 1 };
	struct sockaddr_in *in = (void *)&peer.remote;
	int fds[2];

	in->sin_family = AF_INET;
	in->sin_addr.s_addr = htonl(ip);
	peer.local = peer.remote;
	assert(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds));
	memset(ini, 0, offsetof(struct ini, data));
	ini->fd = fds[0];
	ini->cmd_sn = 100;
	ini->stat_sn = 7000;
	ini->itt = 1;
	assert(portal_make_room(world.tgt, &peer.remote));
	CU_ASSERT_EQUAL(conn_create(world.tgt, fds[1], &peer), 0);
	fake_run();
}

static inline void ini_connect(struct ini *ini)
{
	ini_connect_from(ini, 0x7f000001);
}

static inline void ini_close(struct ini *ini)
{
	if (ini->fd >= 0)
		close(ini->fd);
	ini->fd = -1;
	fake_run();
}

static inline void ini_write(struct ini *ini, const void *p, size_t len)
{
	const uint8_t *at = p;

	while (len) {
		ssize_t n = send(ini->fd, at, len, MSG_NOSIGNAL);

		if (n <= 0) {
			fake_run();
			n = send(ini->fd, at, len, MSG_NOSIGNAL);
			if (n <= 0)
				return;	/* the target has had enough */
		}
		at += n;
		len -= (size_t)n;
	}
}

/* Sends a PDU with its digests; @bhs->data_len is set from @len. */
static inline void ini_send(struct ini *ini, void *pdu, const void *data, uint32_t len)
{
	struct pdu_bhs_wire *bhs = pdu;
	static const uint8_t zero[4];
	uint32_t pad = pdu_padded(len) - len, crc;
	le32 sum;

	bhs->data_len = cpu_to_be24(len);
	ini_write(ini, bhs, sizeof(*bhs));
	if (ini->header_digest) {
		sum = cpu_to_le32(crc32c(0, bhs, sizeof(*bhs)));
		ini_write(ini, &sum, 4);
	}
	ini_write(ini, data, len);
	ini_write(ini, zero, pad);
	if (ini->data_digest && len) {
		crc = crc32c(crc32c(0, data, len), zero, pad);
		sum = cpu_to_le32(crc);
		ini_write(ini, &sum, 4);
	}
	fake_run();
}

/* Return: whether @len bytes were there. */
static inline bool ini_read(struct ini *ini, void *p, size_t len)
{
	uint8_t *at = p;

	while (len) {
		ssize_t n = recv(ini->fd, at, len, 0);

		if (n < 0) {
			fake_run();
			n = recv(ini->fd, at, len, 0);
		}
		if (n <= 0)
			return false;
		at += n;
		len -= (size_t)n;
	}
	return true;
}

static inline bool carries_status(const struct ini *ini)
{
	switch (ini->bhs.opcode) {
	case PDU_R2T:
		return false;
	case PDU_DATA_IN:
		return ini->data_in.flags & PDU_DATA_IN_STATUS;
	case PDU_NOP_IN:
		return be32_to_cpu(ini->bhs.itt) != PDU_TAG_NONE;
	default:
		return true;
	}
}

/* Receives a PDU; checks digests and StatSN.  Return: its opcode, or -1: nothing there. */
static inline int ini_receive(struct ini *ini)
{
	uint32_t pad;
	uint8_t tail[4];
	le32 sum;

	fake_run();
	if (!ini_read(ini, &ini->bhs, sizeof(ini->bhs)))
		return -1;
	if (ini->header_digest) {
		CU_ASSERT_TRUE(ini_read(ini, &sum, 4));
		CU_ASSERT_EQUAL(le32_to_cpu(sum), crc32c(0, &ini->bhs, sizeof(ini->bhs)));
	}
	ini->data_len = be24_to_cpu(ini->bhs.data_len);
	CU_ASSERT_FATAL(ini->data_len <= sizeof(ini->data));
	CU_ASSERT_TRUE(ini_read(ini, ini->data, ini->data_len));
	pad = pdu_padded(ini->data_len) - ini->data_len;
	CU_ASSERT_TRUE(ini_read(ini, tail, pad));
	if (ini->data_digest && ini->data_len) {
		CU_ASSERT_TRUE(ini_read(ini, &sum, 4));
		CU_ASSERT_EQUAL(le32_to_cpu(sum),
				crc32c(crc32c(0, ini->data, ini->data_len), tail, pad));
	}
	if (ini->bhs.opcode != PDU_DATA_IN || carries_status(ini))
		CU_ASSERT_EQUAL(be32_to_cpu(ini->reply.stat_sn), ini->stat_sn);
	ini->stat_sn += carries_status(ini);
	return ini->bhs.opcode;
}

/* ---- login ---- */

/* Sends a login straight to full feature phase; @keys separated by line ends. */
static inline void ini_send_login(struct ini *ini, uint8_t isid, uint16_t cid, const char *keys)
{
	struct pdu_login_request_wire rq = { .opcode = PDU_LOGIN_REQUEST | PDU_IMMEDIATE };
	char text[4096];
	int len, i;

	len = snprintf(text, sizeof(text),
		       "InitiatorName=" HOST "\nTargetName=" DISK "\nSessionType=Normal\n%s", keys);
	for (i = 0; i < len; i++)
		if (text[i] == '\n')
			text[i] = '\0';
	rq.flags = PDU_LOGIN_TRANSIT | 1 << PDU_LOGIN_CSG_SHIFT | PDU_STAGE_FULL_FEATURE;
	memcpy(rq.isid, "\200\1\2\3\4", 5);
	rq.isid[5] = isid;
	rq.tsih = cpu_to_be16(ini->tsih);
	rq.cid = cpu_to_be16(cid);
	rq.itt = cpu_to_be32(ini->itt++);
	rq.cmd_sn = cpu_to_be32(ini->cmd_sn);
	rq.exp_stat_sn = cpu_to_be32(ini->stat_sn);
	ini_send(ini, &rq, text, (uint32_t)len);
}

/* Return: the login's status. */
static inline unsigned int ini_login_status(struct ini *ini)
{
	if (ini_receive(ini) != PDU_LOGIN_RESPONSE)
		return 0xffff;
	ini->tsih = be16_to_cpu(ini->login.tsih);
	return be16_to_cpu(ini->login.status);
}

static inline void ini_log_in(struct ini *ini, const char *keys)
{
	ini_connect(ini);
	ini_send_login(ini, 1, 1, keys);
	CU_ASSERT_EQUAL_FATAL(ini_login_status(ini), PDU_LOGIN_SUCCESS);
	CU_ASSERT_NOT_EQUAL(ini->tsih, 0);
	ini->header_digest = strstr(keys, "HeaderDigest=CRC32C") != NULL;
	ini->data_digest = strstr(keys, "DataDigest=CRC32C") != NULL;
}

/* A further connection of @of's session. */
static inline void ini_join(struct ini *ini, const struct ini *of, uint16_t cid)
{
	ini_connect(ini);
	ini->tsih = of->tsih;
	ini->cmd_sn = of->cmd_sn;
	ini_send_login(ini, 1, cid, "");
	CU_ASSERT_EQUAL_FATAL(ini_login_status(ini), PDU_LOGIN_SUCCESS);
}

/* ---- commands ---- */

/* A SCSI Command with the next CmdSN; @imm bytes of @data go with it. */
static inline uint32_t ini_command(struct ini *ini, uint8_t op, uint8_t flags, uint32_t lba,
				   uint32_t blocks, uint32_t edtl, const void *data, uint32_t imm)
{
	struct pdu_scsi_command_wire c = { .opcode = PDU_SCSI_COMMAND, .flags = flags };
	be32 at = cpu_to_be32(lba);

	c.itt = cpu_to_be32(ini->itt);
	c.expected_len = cpu_to_be32(edtl);
	c.cmd_sn = cpu_to_be32(ini->cmd_sn++);
	c.exp_stat_sn = cpu_to_be32(ini->stat_sn);
	c.cdb[0] = op;
	memcpy(c.cdb + 2, &at, 4);
	c.cdb[6] = (uint8_t)(blocks >> 16);
	c.cdb[7] = (uint8_t)(blocks >> 8);
	c.cdb[8] = (uint8_t)blocks;
	ini_send(ini, &c, data, imm);
	return ini->itt++;
}

static inline uint32_t ini_read_blocks(struct ini *ini, uint32_t lba, uint32_t blocks)
{
	return ini_command(ini, FAKE_OP_READ, PDU_FINAL | PDU_CMD_READ, lba, blocks,
			   blocks * FAKE_BLOCK, NULL, 0);
}

static inline void ini_data_out(struct ini *ini, uint32_t itt, uint32_t ttt, uint32_t data_sn,
				uint32_t offset, const void *data, uint32_t len, bool final)
{
	struct pdu_data_out_wire d = { .opcode = PDU_DATA_OUT };

	d.flags = final ? PDU_FINAL : 0;
	d.itt = cpu_to_be32(itt);
	d.ttt = cpu_to_be32(ttt);
	d.exp_stat_sn = cpu_to_be32(ini->stat_sn);
	d.data_sn = cpu_to_be32(data_sn);
	d.offset = cpu_to_be32(offset);
	ini_send(ini, &d, (const uint8_t *)data + offset, len);
}

static inline void ini_tmf(struct ini *ini, uint8_t function, uint32_t ref_itt, uint32_t ref_sn)
{
	struct pdu_tmf_request_wire t = { .opcode = PDU_TMF_REQUEST | PDU_IMMEDIATE };

	t.function = PDU_FINAL | function;
	t.itt = cpu_to_be32(ini->itt++);
	t.ref_itt = cpu_to_be32(ref_itt);
	t.cmd_sn = cpu_to_be32(ini->cmd_sn);
	t.ref_cmd_sn = cpu_to_be32(ref_sn);
	ini_send(ini, &t, NULL, 0);
}

static inline void ini_logout(struct ini *ini, uint8_t reason, uint16_t cid)
{
	struct pdu_logout_request_wire l = { .opcode = PDU_LOGOUT_REQUEST | PDU_IMMEDIATE };

	l.reason = PDU_FINAL | reason;
	l.itt = cpu_to_be32(ini->itt++);
	l.cid = cpu_to_be16(cid);
	l.cmd_sn = cpu_to_be32(ini->cmd_sn);
	ini_send(ini, &l, NULL, 0);
}

/* Receives Data-In until the status.  Return: it; *@len is what came, into @buf. */
static inline int ini_collect(struct ini *ini, uint8_t *buf, uint32_t *len)
{
	*len = 0;
	while (ini_receive(ini) == PDU_DATA_IN) {
		CU_ASSERT_EQUAL(be32_to_cpu(ini->data_in.offset), *len);
		memcpy(buf + *len, ini->data, ini->data_len);
		*len += ini->data_len;
		if (ini->data_in.flags & PDU_DATA_IN_STATUS)
			return ini->data_in.status;
	}
	return ini->bhs.opcode == PDU_SCSI_RESPONSE ? ini->response.status : -1;
}

#endif
