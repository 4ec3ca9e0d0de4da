/* SPDX-License-Identifier: Apache-2.0 */
/* An initiator's half of a login, in memory: what login_test.c and text_test.c share. */
#ifndef LUNFS_TESTS_LOGIN_RIG_H
#define LUNFS_TESTS_LOGIN_RIG_H

#include <arpa/inet.h>
#include <errno.h>

#include "base/env.h"
#include "iscsi/config.h"
#include "iscsi/login.h"
#include "tests/unit.h"

#define DISK1	"iqn.2026-01.example:disk1"
#define DISK2	"iqn.2026-01.example:disk2"
#define DISK3	"iqn.2026-01.example:disk3"
#define HOST	"iqn.2026-01.example:host1"

/* disk1 is for anybody, disk2 for one initiator, disk3 with mutual CHAP for one user. */
static const char rig_config[] =
	"portal = 192.0.2.1:3260\n"
	"portal = [2001:db8::1]:3261 7\n"
	"[target " DISK1 "]\n"
	"alias = the first\n"
	"initiator = *\n"
	"[target " DISK2 "]\n"
	"initiator = iqn.2026-01.example:other\n"
	"[target " DISK3 "]\n"
	"initiator = " HOST " alice\n"
	"secrets = /secrets\n";

static const char rig_secrets[] =
	"# comment\n"
	"incoming alice alices secret!\n"
	"incoming bob bobs own secret\n"
	"outgoing disk the disk's secret\n";

struct rig {
	struct env *env;
	struct tgt_config *config;
	struct tgt_peer peer;
	struct tgt_login *login;
	struct tgt_reply reply;
	enum tgt_login_result result;
	struct pdu_login_request_wire rq;
	char	said[65536];	/* the text of the last reply, its NULs as line ends */
};

static struct rig rig;

static void rig_address(struct sockaddr_storage *a, const char *ip, uint16_t port)
{
	struct sockaddr_in *in = (void *)a;

	memset(a, 0, sizeof(*a));
	in->sin_family = AF_INET;
	in->sin_port = htons(port);
	CU_ASSERT_EQUAL(inet_pton(AF_INET, ip, &in->sin_addr), 1);
}

static inline void rig_read_secrets(struct tgt_auth *auth, const char *text)
{
	char why[300] = "";
	FILE *in = fmemopen((void *)(uintptr_t)text, strlen(text), "r");

	CU_ASSERT_EQUAL(tgt_auth_read_secrets(auth, in, "secrets", why, sizeof(why)), 0);
	fclose(in);
}

static inline void rig_open(const char *config)
{
	char why[300] = "";
	FILE *in = fmemopen((void *)(uintptr_t)config, strlen(config), "r");
	struct tgt_target *t;

	memset(&rig, 0, sizeof(rig));
	rig.env = env_posix();
	env_posix_log_level(LOG_LEVEL_ERROR);
	CU_ASSERT_EQUAL_FATAL(tgt_config_create(&rig.config), 0);
	CU_ASSERT_EQUAL_FATAL(tgt_config_read(rig.config, in, "c", why, sizeof(why)), 0);
	fclose(in);
	t = (struct tgt_target *)(uintptr_t)tgt_config_target(rig.config, DISK3);
	if (t)
		rig_read_secrets(&t->auth, rig_secrets);
	CU_ASSERT_EQUAL(tgt_config_check(rig.config, why, sizeof(why)), 0);
	rig_address(&rig.peer.local, "192.0.2.1", 3260);
	rig_address(&rig.peer.remote, "192.0.2.99", 40000);
	rig.peer.portal_group = 1;
}

/* A new connection; the next request is the first of its login. */
static inline void rig_connect(void)
{
	tgt_login_destroy(rig.login);
	rig.login = NULL;
	CU_ASSERT_EQUAL_FATAL(tgt_login_create(rig.env, rig.config, &rig.peer, &rig.login), 0);
	memset(&rig.rq, 0, sizeof(rig.rq));
	rig.rq.opcode = PDU_LOGIN_REQUEST | PDU_IMMEDIATE;
	memcpy(rig.rq.isid, "\200\1\2\3\4\5", 6);
	rig.rq.itt = cpu_to_be32(0x1234);
	rig.rq.cid = cpu_to_be16(9);
}

static inline void rig_close(void)
{
	tgt_login_destroy(rig.login);
	tgt_config_destroy(rig.config);
	memset(&rig, 0, sizeof(rig));
}

static inline void rig_note_reply(void)
{
	CU_ASSERT_FATAL(rig.reply.data_len < sizeof(rig.said));
	if (rig.reply.valid)
		CU_ASSERT_EQUAL(be24_to_cpu(rig.reply.bhs.data_len), rig.reply.data_len);
	if (rig.reply.data_len)
		memcpy(rig.said, rig.reply.data, rig.reply.data_len);
	rig.said[rig.reply.data_len] = '\0';
	for (uint32_t i = 0; i < rig.reply.data_len; i++)
		if (!rig.said[i])
			rig.said[i] = '\n';
}

/* @text: pairs, each with a line end, which becomes its NUL.  @flags: of the request. */
static inline enum tgt_login_result rig_send(unsigned int flags, const char *text)
{
	uint8_t data[65536];
	size_t len = strlen(text);

	CU_ASSERT_FATAL(len < sizeof(data));
	for (size_t i = 0; i < len; i++)
		data[i] = text[i] == '\n' ? 0 : (uint8_t)text[i];
	rig.rq.flags = (uint8_t)flags;
	rig.rq.data_len = cpu_to_be24((uint32_t)len);
	rig.result = tgt_login_receive(rig.login, (const void *)&rig.rq, data, (uint32_t)len,
				       &rig.reply);
	rig_note_reply();
	return rig.result;
}

/* Flags of a request: in a stage, and on to another one. */
#define IN_SECURITY	0u
#define IN_OPERATIONAL	(1u << PDU_LOGIN_CSG_SHIFT)
#define TO_OPERATIONAL	(PDU_LOGIN_TRANSIT | 1u)
#define TO_FULL		(PDU_LOGIN_TRANSIT | 3u)

static inline unsigned int rig_status(void)
{
	return rig.reply.valid ? be16_to_cpu(rig.reply.login.status) : 0xffff;
}

/* What the last reply said for @key, or NULL; good until the next one. */
static inline const char *rig_value(const char *key)
{
	static char value[4096];
	size_t len = strlen(key);

	for (const char *line = rig.said; *line; line += strcspn(line, "\n") + 1) {
		if (strncmp(line, key, len) != 0 || line[len] != '=')
			continue;
		snprintf(value, sizeof(value), "%.*s", (int)strcspn(line + len + 1, "\n"),
			 line + len + 1);
		return value;
	}
	return NULL;
}

#define CHECK_SAID(key, expected)						\
	do {									\
		const char *said = rig_value(key);				\
		CU_ASSERT_PTR_NOT_NULL(said);					\
		CU_ASSERT_STRING_EQUAL(said ? said : "", expected);		\
	} while (0)

/* A login without authentication, up to where the session is attached. */
static inline void rig_log_in(const char *names)
{
	rig_connect();
	CU_ASSERT_EQUAL(rig_send(IN_OPERATIONAL | TO_FULL, names), TGT_LOGIN_ATTACH);
	CU_ASSERT_EQUAL(tgt_login_attached(rig.login, PDU_LOGIN_SUCCESS, 5, &rig.reply),
			TGT_LOGIN_FULL);
	rig_note_reply();
}

#endif
