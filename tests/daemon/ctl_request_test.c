/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/ctl.h"
#include "daemon/ctl_json.h"

#include <errno.h>

#include "tests/unit.h"

static char why[512];

/* The result of parsing alone; the request is thrown away. */
static int parse(const char *text, bool is_root)
{
	struct ctl_request rq;
	int err;

	why[0] = '\0';
	err = ctl_request_parse(text, strlen(text), is_root, &rq, why, sizeof(why));
	ctl_request_free(&rq);
	return err;
}

static void a_mount_request_is_understood(void)
{
	static const char text[] =
		"{\"id\": 7, \"cmd\": \"mount\", \"device\": \"/dev/sda\", \"dir\": \"/mnt/a\","
		" \"source\": \"lun\", \"options\": [\"nosuid\", \"ro\", \"resignature\"]}";
	struct ctl_request rq;

	CU_ASSERT_EQUAL(ctl_request_parse(text, strlen(text), true, &rq, why, sizeof(why)), 0);
	CU_ASSERT_EQUAL(rq.cmd, CTL_MOUNT);
	CU_ASSERT_STRING_EQUAL(rq.device, "/dev/sda");
	CU_ASSERT_STRING_EQUAL(rq.dir, "/mnt/a");
	CU_ASSERT_STRING_EQUAL(rq.source, "lun");
	CU_ASSERT_TRUE(rq.read_only);
	CU_ASSERT_EQUAL(rq.attach_flags, FS_RESIGNATURE);
	CU_ASSERT_NOT_EQUAL(rq.mount_flags, 0);
	CU_ASSERT_EQUAL(json_integer_value(rq.id), 7);
	ctl_request_free(&rq);
}

/* A member of the status group must not be able to mount over /etc. */
static void only_root_may_change_things(void)
{
	static const char *const changing[] = {
		"{\"cmd\":\"mount\",\"device\":\"/d\",\"dir\":\"/m\"}",
		"{\"cmd\":\"attach\",\"device\":\"/d\"}",
		"{\"cmd\":\"detach\",\"ds\":\"d\"}",
		"{\"cmd\":\"detach\",\"ds\":\"d\",\"force\":true}",
		"{\"cmd\":\"lock-break\",\"ds\":\"d\",\"path\":\"/x\"}",
	};

	for (size_t i = 0; i < ARRAY_SIZE(changing); i++) {
		CU_ASSERT_EQUAL(parse(changing[i], true), 0);
		CU_ASSERT_EQUAL(parse(changing[i], false), -EPERM);
	}
	CU_ASSERT_EQUAL(parse("{\"cmd\":\"status\"}", false), 0);
	CU_ASSERT_EQUAL(parse("{\"cmd\":\"lock-show\",\"ds\":\"d\",\"path\":\"/x\"}", false), 0);
}

/* R9: whatever a client sends, it gets an error and the daemon goes on. */
static void hostile_requests_are_refused(void)
{
	static const char *const bad[] = {
		"", "{", "null", "[]", "7", "\"status\"", "{}", "{\"cmd\":7}", "{\"cmd\":null}",
		"{\"cmd\":\"\"}", "{\"cmd\":\"reboot\"}", "{\"cmd\":\"status\",\"ds\":\"d\"}",
		"{\"cmd\":\"status\",\"cmd\":\"detach\"}", "{\"cmd\":\"hosts\"}",
		"{\"cmd\":\"hosts\",\"ds\":\"\"}", "{\"cmd\":\"hosts\",\"ds\":[\"d\"]}",
		"{\"cmd\":\"hosts\",\"ds\":\"a\\u0000b\"}",
		"{\"cmd\":\"hosts\",\"ds\":\"d\",\"x\":1}",
		"{\"cmd\":\"hosts\",\"ds\":\"\xff\xfe\"}",
		"{\"cmd\":\"attach\",\"device\":\"relative\"}",
		"{\"cmd\":\"detach\",\"ds\":\"d\",\"force\":1}",
		"{\"cmd\":\"mount\",\"device\":\"/d\",\"dir\":\"mnt\"}",
		"{\"cmd\":\"attach\",\"device\":\"/d\",\"options\":\"ro\"}",
		"{\"cmd\":\"attach\",\"device\":\"/d\",\"options\":[7]}",
		"{\"cmd\":\"attach\",\"device\":\"/d\",\"options\":[\"bind\"]}",
		"{\"cmd\":\"attach\",\"device\":\"/d\",\"options\":[\"remount\"]}",
		"{\"cmd\":\"ls\",\"ds\":\"d\",\"path\":\"/\",\"from\":-1}",
		"{\"cmd\":\"ls\",\"ds\":\"d\",\"path\":\"/\",\"from\":1e99}",
		"{\"cmd\":\"ls\",\"ds\":\"d\",\"path\":\"/\",\"from\":99999999999999999999}",
		"{\"cmd\":\"status\",\"id\":{}}", "{\"cmd\":\"status\"} trailing",
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		int err = parse(bad[i], true);

		if (err != -EINVAL)
			printf("\"%s\": %d\n", bad[i], err);
		CU_ASSERT_EQUAL(err, -EINVAL);
		CU_ASSERT_NOT_EQUAL(why[0], '\0');
	}
}

/* What is new gets a name that fits on a line; what has another one already is found by it. */
static void new_names_have_no_control_characters(void)
{
	static const char *const bad[] = {
		"{\"cmd\":\"disk-create\",\"ds\":\"d\",\"path\":\"/a\\nb\",\"size\":1048576}",
		"{\"cmd\":\"disk-clone\",\"ds\":\"d\",\"path\":\"/a\",\"to\":\"/b\\u001b[2J\"}",
		"{\"cmd\":\"disk-snapshot\",\"ds\":\"d\",\"path\":\"/a\",\"name\":\"x\\ny\"}",
		"{\"cmd\":\"disk-snapshot\",\"ds\":\"d\",\"path\":\"/a\",\"name\":\"x\\u007f\"}",
	};
	static const char *const good[] = {
		"{\"cmd\":\"disk-create\",\"ds\":\"d\",\"path\":\"/a\\n/b c\",\"size\":1048576}",
		"{\"cmd\":\"disk-clone\",\"ds\":\"d\",\"path\":\"/a\\nb\",\"to\":\"/b\"}",
		"{\"cmd\":\"disk-snapshot\",\"ds\":\"d\",\"path\":\"/a\\nb\",\"name\":\"\xc3\xa4\"}",
		"{\"cmd\":\"disk-snapshot-delete\",\"ds\":\"d\",\"path\":\"/a\",\"name\":\"x\\ny\"}",
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		CU_ASSERT_EQUAL(parse(bad[i], true), -EINVAL);
		CU_ASSERT_STRING_EQUAL(why, "a name without control characters is wanted");
		CU_ASSERT_EQUAL(parse(good[i], true), 0);
	}
}

/* A reader that recurses for each bracket must not be led off its stack. */
static void deep_nesting_is_refused(void)
{
	static char text[CTL_LINE_MAX];

	memset(text, '[', sizeof(text) - 1);
	CU_ASSERT_EQUAL(parse(text, true), -EINVAL);
	for (size_t i = 0; i + 6 < sizeof(text); i += 5)
		memcpy(text + i, "{\"a\":", 5);
	CU_ASSERT_EQUAL(parse(text, true), -EINVAL);
}

/* Paths that long reach nothing; and fixed buffers behind this check rely on it. */
static void a_path_as_long_as_path_max_is_refused(void)
{
	static char text[2 * PATH_MAX];
	size_t n = (size_t)sprintf(text, "{\"cmd\":\"attach\",\"device\":\"/");

	memset(text + n, 'x', PATH_MAX - 2);
	strcpy(text + n + PATH_MAX - 2, "\"}");
	CU_ASSERT_EQUAL(parse(text, true), 0);
	memset(text + n, 'x', PATH_MAX - 1);
	strcpy(text + n + PATH_MAX - 1, "\"}");
	CU_ASSERT_EQUAL(parse(text, true), -EINVAL);
}

/* Rescue takes no locks: anything but read-only would tear what others write. */
static void rescue_is_always_read_only(void)
{
	static const char text[] =
		"{\"cmd\":\"mount\",\"device\":\"/d\",\"dir\":\"/m\",\"options\":[\"rescue\",\"rw\"]}";
	struct ctl_request rq;
	unsigned long ro = 0;

	rpc_mount_option("ro", &ro);
	CU_ASSERT_EQUAL(ctl_request_parse(text, strlen(text), true, &rq, why, sizeof(why)), 0);
	CU_ASSERT_TRUE(rq.read_only);
	CU_ASSERT_EQUAL(rq.mount_flags & ro, ro);
	ctl_request_free(&rq);
}

static void only_root_and_the_group_are_let_in(void)
{
	struct rpc_hello none = { 0 }, with = { .has_control_group = true, .control_gid = 50 };
	struct ucred root = { .uid = 0 }, user = { .uid = 1000, .gid = 1000 };
	struct ucred member = { .uid = 1000, .gid = 50 }, zero_group = { .uid = 1000, .gid = 0 };
	gid_t groups[] = { 7, 50 }, others[] = { 7, 8 };

	CU_ASSERT_TRUE(ctl_peer_allowed(&none, &root, NULL, 0));
	CU_ASSERT_FALSE(ctl_peer_allowed(&none, &zero_group, groups, 2));
	CU_ASSERT_TRUE(ctl_peer_allowed(&with, &member, NULL, 0));
	CU_ASSERT_TRUE(ctl_peer_allowed(&with, &user, groups, 2));
	CU_ASSERT_FALSE(ctl_peer_allowed(&with, &user, others, 2));
	CU_ASSERT_FALSE(ctl_peer_allowed(&with, &user, NULL, 0));
}

/* File names may be any bytes: a reply with them must stay JSON. */
static void a_reply_is_one_line_whatever_it_says(void)
{
	struct ctl_request rq = { 0 };
	json_t *o = json_object();
	char *line;

	json_object_set_new(o, "name", ctl_text("a\xff\nb\"c"));
	line = ctl_reply_line(&rq, 0, o, "");
	CU_ASSERT_STRING_EQUAL(line, "{\"ok\":true,\"result\":{\"name\":\"a?\\nb\\\"c\"}}\n");
	free(line);
	line = ctl_reply_line(&rq, -EBUSY, NULL, "held\nby x");
	CU_ASSERT_STRING_EQUAL(line, "{\"ok\":false,\"error\":{\"name\":\"EBUSY\","
			       "\"message\":\"held\\nby x\"}}\n");
	free(line);
	json_decref(o);
}

UNIT_MAIN("ctl_request",
	  UNIT_TEST(a_mount_request_is_understood),
	  UNIT_TEST(only_root_may_change_things),
	  UNIT_TEST(hostile_requests_are_refused),
	  UNIT_TEST(new_names_have_no_control_characters),
	  UNIT_TEST(deep_nesting_is_refused),
	  UNIT_TEST(a_path_as_long_as_path_max_is_refused),
	  UNIT_TEST(rescue_is_always_read_only),
	  UNIT_TEST(only_root_and_the_group_are_let_in),
	  UNIT_TEST(a_reply_is_one_line_whatever_it_says));
