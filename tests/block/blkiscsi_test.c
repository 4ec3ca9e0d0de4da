// SPDX-License-Identifier: Apache-2.0
/* Names of iSCSI LUNs, secrets, and what targets say of themselves: no network. */
#include "block/blkiscsi.h"
#include "block/lu.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit.h"

static char why[600];

static int parse(const char *url, struct blkiscsi_target *t)
{
	why[0] = '\0';
	return blkiscsi_parse(url, t, why, sizeof(why));
}

static void a_url_names_portal_target_and_lun(void)
{
	struct blkiscsi_target t;

	CU_ASSERT_EQUAL(parse("iscsi://san1/iqn.2026-11.a:b/3", &t), 0);
	CU_ASSERT_STRING_EQUAL(t.portals[0], "san1:3260");
	CU_ASSERT_STRING_EQUAL(t.iqn, "iqn.2026-11.a:b");
	CU_ASSERT_EQUAL(t.lun, 3);
	CU_ASSERT_EQUAL(t.portal_count, 1);
	CU_ASSERT_EQUAL(t.timeout_ms, 30000);
	CU_ASSERT_EQUAL(t.durable, BLKISCSI_DURABLE_WRITE);
	CU_ASSERT_STRING_EQUAL(t.name, "iscsi://san1:3260/iqn.2026-11.a:b/3");
}

static void a_url_may_name_more_portals_and_limits(void)
{
	struct blkiscsi_target t;

	CU_ASSERT_EQUAL(parse("iscsi://bob@[fe80::1]:99/naa.50/0?portal=h2&portal=[::1]:5&timeout=7"
			      "&path-timeout=2&login-timeout=3&header-digest=crc32c&durable=flush"
			      "&initiator=iqn.2026-11.x:y&chap-file=/etc/c", &t), 0);
	CU_ASSERT_EQUAL(t.portal_count, 3);
	CU_ASSERT_STRING_EQUAL(t.portals[0], "[fe80::1]:99");
	CU_ASSERT_STRING_EQUAL(t.portals[1], "h2:3260");
	CU_ASSERT_STRING_EQUAL(t.portals[2], "[::1]:5");
	CU_ASSERT_STRING_EQUAL(t.user, "bob");
	CU_ASSERT_EQUAL(t.timeout_ms, 7000);
	CU_ASSERT_EQUAL(t.dead_ms, 2000);
	CU_ASSERT_EQUAL(t.login_ms, 3000);
	CU_ASSERT(t.header_digest);
	CU_ASSERT_EQUAL(t.durable, BLKISCSI_DURABLE_FLUSH);
	CU_ASSERT_STRING_EQUAL(t.initiator, "iqn.2026-11.x:y");
	CU_ASSERT_STRING_EQUAL(t.chap_file, "/etc/c");
}

/* ps(1) and logs would show it: the message must not. */
static void a_secret_in_a_url_is_refused_and_not_repeated(void)
{
	struct blkiscsi_target t;

	CU_ASSERT_EQUAL(parse("iscsi://bob%geheim@san1/iqn.2026-11.a:b/3", &t), -EPERM);
	CU_ASSERT(!strstr(why, "geheim"));
	CU_ASSERT(strstr(why, "chap-file") != NULL);
}

static void what_is_no_url_is_refused(void)
{
	static const char *const bad[] = {
		"iscsi://", "iscsi:///iqn.2026-11.a:b/1", "iscsi://h", "iscsi://h/iqn.a", "iscsi://h/iqn.a/",
		"iscsi://h/iqn.a/x", "iscsi://h/iqn.a/16384", "iscsi://h/nope/1", "iscsi://h:0/iqn.a/1",
		"iscsi://h:99999/iqn.a/1", "iscsi://h:x/iqn.a/1", "iscsi://[::1/iqn.a/1",
		"iscsi://[]/iqn.a/1", "iscsi://h h/iqn.a/1", "iscsi://@h/iqn.a/1", "iscsi://h/iqn.a b/1",
		"iscsi://h/iqn.a/1?", "/dev/sda",
		"iscsi://h/iqn.a/1?timeout=0", "iscsi://h/iqn.a/1?timeout=x", "iscsi://h/iqn.a/1?nope=1",
		"iscsi://h/iqn.a/1?chap-file=relative", "iscsi://h/iqn.a/1?header-digest=md5",
		"iscsi://h/iqn.a/1?data-digest=crc32c", "iscsi://h/iqn.a/1?portal",
		"iscsi://h/iqn.a/1?portal=a&portal=b&portal=c&portal=d&portal=e&portal=f&portal=g&portal=h",
	};
	struct blkiscsi_target t;

	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		int err = parse(bad[i], &t);

		/* An empty list of parameters is none. */
		CU_ASSERT_EQUAL(err, strcmp(bad[i], "iscsi://h/iqn.a/1?") ? -EINVAL : 0);
		CU_ASSERT(!err || why[0]);
	}
}

/* Which one is meant, of several in a configuration; but a secret that was mistyped is not repeated. */
static void what_is_refused_is_named_without_secrets(void)
{
	static const struct { const char *url, *begin; } bad[] = {
		{ "iscsi://san1/iqn.a", "iscsi://san1/iqn.a: not" },
		{ "iscsi://bob@san1/nope/1?password=geheim", "iscsi://san1/nope/1: not" },
		{ "iscsi://bob:geheim@san1/iqn.a/x", "iscsi://san1/iqn.a/x: not" },
		{ "iscsi://bob%geheim", "iscsi://: not" },
		{ "iscsi://a\nb/iqn.a/x", "iscsi://a?b/iqn.a/x: not" },
		{ "iscsi://bob%geheim@san1/iqn.a/x", "iSCSI: a secret" },
	};
	struct blkiscsi_target t;

	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		CU_ASSERT(parse(bad[i].url, &t) < 0);
		CU_ASSERT_NSTRING_EQUAL(why, bad[i].begin, strlen(bad[i].begin));
		CU_ASSERT_PTR_NULL(strstr(why, "geheim"));
	}
}

static void data_digests_are_refused_with_the_reason(void)
{
	struct blkiscsi_target t;

	CU_ASSERT_EQUAL(parse("iscsi://h/iqn.a/1?data-digest=crc32c", &t), -EINVAL);
	CU_ASSERT(strstr(why, "data digests") != NULL);
	CU_ASSERT_EQUAL(parse("iscsi://h/iqn.a/1?data-digest=none", &t), 0);
}

static void other_portals_and_parameters_name_the_same_lun(void)
{
	CU_ASSERT(blkiscsi_same("iscsi://a/iqn.x/1", "iscsi://b:9/iqn.x/1?timeout=3"));
	CU_ASSERT(!blkiscsi_same("iscsi://a/iqn.x/1", "iscsi://a/iqn.x/2"));
	CU_ASSERT(!blkiscsi_same("iscsi://a/iqn.x/1", "iscsi://a/iqn.y/1"));
}

/* ---- secrets ---- */

static void write_secrets(const char *path, const char *text, mode_t mode)
{
	FILE *f;

	unlink(path);
	f = fopen(path, "w");
	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	fputs(text, f);
	fclose(f);
	chmod(path, mode);
}

static int load(const char *path, const char *text, mode_t mode, struct blkiscsi_target *t)
{
	write_secrets(path, text, mode);
	CU_ASSERT_EQUAL_FATAL(parse("iscsi://h/iqn.a/1?initiator=iqn.me", t), 0);
	strcpy(t->chap_file, path);
	why[0] = '\0';
	return blkiscsi_load(t, why, sizeof(why));
}

static void secrets_come_from_a_file_that_only_its_owner_reads(void)
{
	static const char good[] = "# san1\nuser = bob\npassword=verysecret12\n\nmutual-user = san\n"
				   " mutual-password = othersecret9\n";
	char dir[] = "/tmp/lunfs-chap-XXXXXX", path[64], link[64];
	struct blkiscsi_target t;

	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/chap", dir);
	snprintf(link, sizeof(link), "%s/link", dir);
	CU_ASSERT_EQUAL(load(path, good, 0600, &t), 0);
	CU_ASSERT_STRING_EQUAL(t.user, "bob");
	CU_ASSERT_STRING_EQUAL(t.secret, "verysecret12");
	CU_ASSERT_STRING_EQUAL(t.mutual_user, "san");
	CU_ASSERT_STRING_EQUAL(t.mutual_secret, "othersecret9");
	CU_ASSERT_EQUAL(load(path, good, 0640, &t), -EACCES);
	CU_ASSERT_EQUAL(load(path, good, 0604, &t), -EACCES);
	CU_ASSERT(strstr(why, "chmod 600") != NULL);
	CU_ASSERT_EQUAL(load(path, "user = bob\n", 0600, &t), -EINVAL);
	CU_ASSERT_EQUAL(load(path, "user = b\npassword = x\nmutual-user = m\n", 0600, &t), -EINVAL);
	CU_ASSERT_EQUAL(load(path, "user = b\nsecret = geheim\n", 0600, &t), -EINVAL);
	CU_ASSERT(!strstr(why, "geheim"));
	/* A link could be pointed anywhere by who owns the directory. */
	CU_ASSERT_EQUAL(symlink(path, link), 0);
	strcpy(t.chap_file, link);
	CU_ASSERT_EQUAL(blkiscsi_load(&t, why, sizeof(why)), -ELOOP);
	unlink(link);
	unlink(path);
	strcpy(t.chap_file, path);
	CU_ASSERT_EQUAL(blkiscsi_load(&t, why, sizeof(why)), -ENOENT);
	rmdir(dir);
}

static void a_user_without_its_file_is_no_anonymous_login(void)
{
	struct blkiscsi_target t;

	CU_ASSERT_EQUAL(parse("iscsi://bob@h/iqn.a/1?chap-file=/nonexistent/chap", &t), 0);
	CU_ASSERT_EQUAL(blkiscsi_load(&t, why, sizeof(why)), -ENOENT);
}

/* ---- addresses ---- */

static void addresses_stay_what_they_are_and_strangers_do_not_resolve(void)
{
	struct blkiscsi_target t;

	CU_ASSERT_EQUAL(parse("iscsi://127.0.0.1:77/iqn.a/1?portal=[::1]:78", &t), 0);
	CU_ASSERT_EQUAL(blkiscsi_resolve(&t, why, sizeof(why)), 0);
	CU_ASSERT_STRING_EQUAL(t.portals[0], "127.0.0.1:77");
	CU_ASSERT_STRING_EQUAL(t.portals[1], "[::1]:78");
	CU_ASSERT_EQUAL(parse("iscsi://no-such-host.invalid/iqn.a/1", &t), 0);
	CU_ASSERT_EQUAL(blkiscsi_resolve(&t, why, sizeof(why)), -EHOSTUNREACH);
	CU_ASSERT(strstr(why, "no-such-host.invalid") != NULL);
}

/* ---- page 83h ---- */

static const uint8_t page[] = {
	0x00, 0x83, 0x00, 0x4c,
	0x02, 0x01, 0x00, 0x08, 'L', 'U', 'N', ' ', 'x', ' ', ' ', ' ',		/* T10 */
	0x01, 0x03, 0x00, 0x10, 0x60, 0x01, 0x40, 0x5a, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
	0x01, 0x02, 0x00, 0x08, 1, 2, 3, 4, 5, 6, 7, 8,				/* EUI-64 */
	0x53, 0x98, 0x00, 0x18, 'i', 'q', 'n', '.', 'a', ':', 'b', ',', 't', ',', '0', 'x', '0', '0',
	'2', 'a', 0, 0, 0, 0, 0, 0, 0, 0,
};

static void the_best_name_of_the_lun_is_taken(void)
{
	char id[128];

	lu_identity(page, sizeof(page), id, sizeof(id));
	CU_ASSERT_STRING_EQUAL(id, "naa.6001405a0102030405060708090a0b0c");
	CU_ASSERT_EQUAL(lu_port_group(page, sizeof(page)), 0x2a);
	/* What is cut off is not read: the T10 name is all that is whole. */
	lu_identity(page, 20, id, sizeof(id));
	CU_ASSERT_STRING_EQUAL(id, "t10.LUN_x");
	CU_ASSERT_EQUAL(lu_port_group(page, sizeof(page) - 1), -1);
	for (size_t n = 0; n < 16; n++) {
		lu_identity(page, n, id, sizeof(id));
		CU_ASSERT_STRING_EQUAL(id, "");
	}
	lu_identity(page, sizeof(page), id, 8);
	CU_ASSERT(strlen(id) < 8);
}

static void sense_is_understood_in_both_formats(void)
{
	static const uint8_t fixed[18] = { 0xf0, 0, 3, 0, 1, 2, 3, 10, 0, 0, 0, 0, 0x11, 0x04 };
	static const uint8_t desc[20] = { 0x72, 3, 0x11, 0x04, 0, 0, 0, 12, 0, 10, 0x80, 0,
					  0, 0, 0, 1, 0, 0, 0, 2 };
	static const uint8_t deferred[18] = { 0x71, 0, 3 };
	struct lu_sense s;

	CU_ASSERT(lu_sense(fixed, sizeof(fixed), &s));
	CU_ASSERT(s.key == 3 && s.asc == 0x1104 && s.has_lba && s.lba == 0x10203);
	CU_ASSERT(lu_sense(desc, sizeof(desc), &s));
	CU_ASSERT(s.key == 3 && s.asc == 0x1104 && s.has_lba && s.lba == 0x100000002);
	CU_ASSERT(!lu_sense(deferred, sizeof(deferred), &s));
	CU_ASSERT(!lu_sense(fixed, 13, &s));
	CU_ASSERT(!lu_sense(fixed, 0, &s));
	CU_ASSERT(lu_sense(desc, 12, &s));
	CU_ASSERT(!s.has_lba);
}

UNIT_MAIN("blkiscsi",
	UNIT_TEST(a_url_names_portal_target_and_lun),
	UNIT_TEST(a_url_may_name_more_portals_and_limits),
	UNIT_TEST(a_secret_in_a_url_is_refused_and_not_repeated),
	UNIT_TEST(what_is_no_url_is_refused),
	  UNIT_TEST(what_is_refused_is_named_without_secrets),
	UNIT_TEST(data_digests_are_refused_with_the_reason),
	UNIT_TEST(other_portals_and_parameters_name_the_same_lun),
	UNIT_TEST(secrets_come_from_a_file_that_only_its_owner_reads),
	UNIT_TEST(a_user_without_its_file_is_no_anonymous_login),
	UNIT_TEST(addresses_stay_what_they_are_and_strangers_do_not_resolve),
	UNIT_TEST(the_best_name_of_the_lun_is_taken),
	UNIT_TEST(sense_is_understood_in_both_formats));
