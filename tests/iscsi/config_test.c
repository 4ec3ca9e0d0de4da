// SPDX-License-Identifier: Apache-2.0
#include "iscsi/config.h"

#include <errno.h>
#include <netinet/in.h>

#include "tests/unit.h"

#define DISK	"iqn.2026-01.example:disk1"

static struct tgt_config *config;
static char why[512];

static int read_text(const char *text)
{
	FILE *in = fmemopen((void *)(uintptr_t)text, strlen(text), "r");
	int err;

	tgt_config_destroy(config);
	config = NULL;
	CU_ASSERT_EQUAL_FATAL(tgt_config_create(&config), 0);
	why[0] = '\0';
	err = tgt_config_read(config, in, "f", why, sizeof(why));
	fclose(in);
	return err;
}

static void end(void)
{
	tgt_config_destroy(config);
	config = NULL;
}

static void a_whole_file_is_understood(void)
{
	const struct tgt_target *t;
	char text[64];

	CU_ASSERT_EQUAL(read_text(
		"# what we serve\n"
		"portal = 192.0.2.1:3261\n"
		"portal=[2001:db8::1] 2\n"
		"  user = iscsi  \n"
		"state-dir = /srv/state\n"
		"log-level = debug\n"
		"reactors = 3\n"
		"login-timeout = 7\n"
		"max-connections-per-session = 4\n"
		"memory = 64M\n"
		"\n"
		"[discovery]\n"
		"secrets = /d\n"
		"[ target " DISK " ]\n"
		"alias = the first\n"
		"initiator = IQN.2026-01.example:host1 alice\n"
		"initiator = iqn.2026-01.example:*\n"
		"secrets = /s\n"
		"chap-algorithms = sha256, sha3-256\n"
		"lun = /b,lun=3,block-size=4096,read-only,thick\n"
		"lun = /a,lun=1,size=1G,write-through,removable,sanitize-rate=1M\n"
		"lun = /c\n"
		"[target iqn.2026-01.example:disk2]\n"
		"initiator = *\n"), 0);
	CU_ASSERT_STRING_EQUAL(why, "");
	CU_ASSERT(config->portal_count == 2 && config->target_count == 2);
	CU_ASSERT_STRING_EQUAL(tgt_portal_format(&config->portals[0].addr, text), "192.0.2.1:3261");
	CU_ASSERT_STRING_EQUAL(tgt_portal_format(&config->portals[1].addr, text),
			       "[2001:db8::1]:3260");
	CU_ASSERT(config->portals[0].group == 1 && config->portals[1].group == 2);
	CU_ASSERT_STRING_EQUAL(config->user, "iscsi");
	CU_ASSERT_STRING_EQUAL(config->state_dir, "/srv/state");
	CU_ASSERT(config->log_level == LOG_LEVEL_DEBUG && config->reactors == 3);
	CU_ASSERT(config->limits.login_timeout_ms == 7000 && config->limits.memory_max == 64 * MIB);
	CU_ASSERT_EQUAL(config->ours.connections_max, 4);
	CU_ASSERT(config->discovery.required && !strcmp(config->discovery.path, "/d"));
	t = tgt_config_target(config, DISK);
	CU_ASSERT_PTR_NOT_NULL_FATAL(t);
	CU_ASSERT_STRING_EQUAL(t->alias, "the first");
	CU_ASSERT(t->auth.required && !strcmp(t->auth.path, "/s"));
	CU_ASSERT_EQUAL(t->auth.algs, 1u << TGT_CHAP_SHA256 | 1u << TGT_CHAP_SHA3_256);
	CU_ASSERT_EQUAL_FATAL(t->lun_count, 3);
	CU_ASSERT(t->luns[0].number == 1 && !strcmp(t->luns[0].path, "/a"));
	CU_ASSERT(t->luns[0].create_size == GIB && t->luns[0].sanitize_bps == MIB);
	CU_ASSERT(t->luns[0].flags == (TGT_LUN_WRITE_THROUGH | TGT_LUN_REMOVABLE));
	CU_ASSERT(t->luns[1].number == 3 && t->luns[1].block_size == 4096);
	CU_ASSERT(t->luns[1].flags == (TGT_LUN_READ_ONLY | TGT_LUN_THICK));
	CU_ASSERT(t->luns[2].number == 4 && t->luns[2].block_size == 512);
	CU_ASSERT_EQUAL(t->initiator_count, 2);
	CU_ASSERT_STRING_EQUAL(t->initiators[0].name, "iqn.2026-01.example:host1");
	CU_ASSERT_STRING_EQUAL(t->initiators[0].user, "alice");
	end();
}

static void check_wrong(const char *text, const char *where)
{
	CU_ASSERT_EQUAL(read_text(text), -EINVAL);
	if (strncmp(why, where, strlen(where)) != 0)
		fprintf(stderr, "%s: complained %s\n", text, why);
	CU_ASSERT_EQUAL(strncmp(why, where, strlen(where)), 0);
	CU_ASSERT(strlen(why) > strlen(where));
}

/* An administrator must find the line; what is mistyped must not be passed over. */
static void mistakes_are_shown_where_they_are(void)
{
	static const char target[] = "[target " DISK "]\n";
	char text[1024];

	check_wrong("portals = 1\n", "f:1:1: ");
	check_wrong("\nportal = example.com\n", "f:2:10: ");
	check_wrong("portal = 192.0.2.1:99999\n", "f:1:10: ");
	check_wrong("portal = 192.0.2.1 0\n", "f:1:10: ");
	check_wrong("portal = [::1\n", "f:1:10: ");
	check_wrong("portal = ::1\nportal = [::1]:3260\n", "f:2:10: ");
	check_wrong("portal =\n", "f:1:9: ");
	check_wrong("portal\n", "f:1:7: ");
	check_wrong("= 1\n", "f:1:1: ");
	check_wrong("reactors = 0\n", "f:1:12: ");
	check_wrong("memory = 1K\n", "f:1:10: ");
	check_wrong("log-level = loud\n", "f:1:13: ");
	check_wrong("state-dir = here\n", "f:1:13: ");
	check_wrong("[targets]\n", "f:1:2: ");
	check_wrong("[target]\n", "f:1:2: ");
	check_wrong("[target x\n", "f:1:1: ");
	check_wrong("[target disk]\n", "f:1:2: ");
	check_wrong("[target " DISK "]\n[target " DISK "]\n", "f:2:2: ");
	check_wrong("lun = /a\n", "f:1:1: ");
	check_wrong("[discovery]\nlun = /a\n", "f:2:1: ");
	static const struct { const char *line, *where; } bad[] = {
		{ "lun = a\n", "f:2:7: " }, { "lun = /a,what\n", "f:2:7: " },
		{ "lun = /a,block-size=1024\n", "f:2:7: " }, { "lun = /a,lun=256\n", "f:2:7: " },
		{ "lun = /a,size=1\n", "f:2:7: " }, { "lun = /a,size=x\n", "f:2:7: " },
		{ "lun = /a,lun=1\nlun = /b,lun=1\n", "f:3:7: " },
		{ "initiator = host\n", "f:2:13: " }, { "initiator = iqn.*x\n", "f:2:13: " },
		{ "chap-algorithms = md4\n", "f:2:19: " }, { "secrets = s\n", "f:2:11: " },
		{ "portal = 192.0.2.1\n", "f:2:1: " }, { "alias = a\001b\n", "f:2:9: " },
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		snprintf(text, sizeof(text), "%s%s", target, bad[i].line);
		check_wrong(text, bad[i].where);
	}
	end();
}

static void check_whole(const char *text, const char *part)
{
	CU_ASSERT_EQUAL_FATAL(read_text(text), 0);
	CU_ASSERT_EQUAL(tgt_config_check(config, why, sizeof(why)), part ? -EINVAL : 0);
	CU_ASSERT(!part || strstr(why, part));
}

static void what_cannot_work_is_refused_as_a_whole(void)
{
	check_whole("[target " DISK "]\ninitiator = *\n", "no portal");
	check_whole("portal = ::1\n", "no target");
	check_whole("portal = ::1\n[target " DISK "]\n", "nobody may use it");
	check_whole("portal = ::1\n[target " DISK "]\ninitiator = * alice\n", "alice");
	check_whole("portal = ::1\n[target " DISK "]\ninitiator = *\nlun = /a\nlun = /a\n",
		    "/a: serves two");
	check_whole("portal = ::1\n[target " DISK "]\ninitiator = *\nlun = /a\n"
		    "[target " DISK "2]\ninitiator = *\nlun = /a\n", "/a: serves two");
	check_whole("portal = ::1\n[target " DISK "]\ninitiator = *\nlun = /a\n", NULL);
	end();
}

static const char *admits(const char *initiator)
{
	const struct tgt_initiator *entry = tgt_target_admits(&config->targets[0], initiator);

	return entry ? entry->user : "nobody";
}

static void the_closest_entry_decides(void)
{
	CU_ASSERT_EQUAL(read_text("[target " DISK "]\ninitiator = iqn.2026-01.a:* prefix\n"
				  "initiator = iqn.2026-01.a:b:* longer\n"
				  "initiator = iqn.2026-01.a:b:c whole\n"), 0);
	CU_ASSERT_STRING_EQUAL(admits("iqn.2026-01.a:x"), "prefix");
	CU_ASSERT_STRING_EQUAL(admits("iqn.2026-01.a:"), "prefix");
	CU_ASSERT_STRING_EQUAL(admits("iqn.2026-01.a:b:x"), "longer");
	CU_ASSERT_STRING_EQUAL(admits("iqn.2026-01.a:b:c"), "whole");
	CU_ASSERT_STRING_EQUAL(admits("iqn.2026-01.a:b:cc"), "longer");
	CU_ASSERT_STRING_EQUAL(admits("iqn.2026-01.a"), "nobody");
	CU_ASSERT_STRING_EQUAL(admits("iqn.2026-01.b:x"), "nobody");
	end();
}

static int read_secrets(struct tgt_auth *auth, const char *text)
{
	FILE *in = fmemopen((void *)(uintptr_t)text, strlen(text), "r");
	int err;

	memset(auth, 0, sizeof(*auth));
	why[0] = '\0';
	err = tgt_auth_read_secrets(auth, in, "s", why, sizeof(why));
	fclose(in);
	return err;
}

static void secrets_are_read(void)
{
	struct tgt_auth auth;

	CU_ASSERT_EQUAL(read_secrets(&auth, "# c\n\n incoming\talice  a secret with spaces \n"
				     "incoming bob 123456789012\noutgoing me 1234567890123"), 0);
	CU_ASSERT(auth.incoming_count == 2 && auth.mutual);
	CU_ASSERT_STRING_EQUAL(auth.incoming[0].name, "alice");
	CU_ASSERT_EQUAL(auth.incoming[0].secret.len, strlen("a secret with spaces "));
	CU_ASSERT_STRING_EQUAL(auth.outgoing.name, "me");
	CU_ASSERT_EQUAL(auth.outgoing.secret.len, 13);
	free(auth.incoming);
}

/* No message shows any part of a secret: it goes to the journal. */
static void bad_secrets_are_refused_without_being_shown(void)
{
	static const struct { const char *text, *where; } bad[] = {
		{ "incoming alice SEKRET78901\n", "s:1: " },		/* 11 characters */
		{ "incoming SEKRET789012\n", "s:1: " },
		{ "SEKRET789012\n", "s:1: " },
		{ "in alice SEKRET789012\n", "s:1: " },
		{ "incoming a SEKRET789012\nincoming a SEKRET789012\n", "s:2: " },
		{ "incoming a SEKRET789012\noutgoing b SEKRET789013\noutgoing b SEKRET789014\n",
		  "s:3: " },
		{ "incoming a SEKRET789012\noutgoing b SEKRET789012\n", "s: " },
		{ "outgoing b SEKRET789012\n", "s: " },
	};
	struct tgt_auth auth;

	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		CU_ASSERT_EQUAL(read_secrets(&auth, bad[i].text), -EINVAL);
		CU_ASSERT_EQUAL(strncmp(why, bad[i].where, strlen(bad[i].where)), 0);
		CU_ASSERT_PTR_NULL(strstr(why, "SEKRET"));
		free(auth.incoming);
	}
	CU_ASSERT_EQUAL(read_secrets(&auth, "\n"), -EINVAL);
	free(auth.incoming);
}

UNIT_MAIN("config", UNIT_TEST(a_whole_file_is_understood),
	  UNIT_TEST(mistakes_are_shown_where_they_are),
	  UNIT_TEST(what_cannot_work_is_refused_as_a_whole), UNIT_TEST(the_closest_entry_decides),
	  UNIT_TEST(secrets_are_read), UNIT_TEST(bad_secrets_are_refused_without_being_shown));
