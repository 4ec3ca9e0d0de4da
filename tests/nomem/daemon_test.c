// SPDX-License-Identifier: Apache-2.0
/*
 * The daemon without memory: a request is refused for that reason and no other, and a reply is
 * whole or says that it is none.
 */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/config.h"
#include "daemon/ctl.h"
#include "daemon/ctl_json.h"
#include "daemon/mountinfo.h"
#include "tests/nomem/each.h"

static char why[512];

static void each_of(uint64_t (*run)(void *arg, uint64_t n, uint64_t count), const char *what)
{
	struct each one = { .count = 1, .stride = 1, .run = run };
	struct each all = { .count = EACH_ALL, .stride = 1, .run = run };

	each_allocation(&one);
	each_allocation(&all);
	nomem_note(what);
}

/* ---- requests ---- */

static const char request[] =
	"{\"id\": 7, \"cmd\": \"mount\", \"device\": \"/dev/sda\", \"dir\": \"/mnt/a\","
	" \"source\": \"lun\", \"options\": [\"nosuid\", \"ro\", \"resignature\"]}";

static uint64_t parse_request(void *arg, uint64_t n, uint64_t count)
{
	struct ctl_request rq;
	uint64_t hits;
	int err;

	(void)arg;
	nomem_arm(n, count);
	err = ctl_request_parse(request, sizeof(request) - 1, true, &rq, why, sizeof(why));
	hits = nomem_disarm();
	CU_ASSERT_EQUAL(err, hits ? -ENOMEM : 0);
	if (!err) {
		CU_ASSERT_TRUE(rq.read_only && rq.changes);
		CU_ASSERT_STRING_EQUAL(rq.dir, "/mnt/a");
	}
	ctl_request_free(&rq);
	return hits;
}

static void a_request_is_understood_whole_or_refused(void)
{
	each_of(parse_request, "a request");
}

/* ---- replies ---- */

static struct stores stores;
static struct rpc_hello hello = { .host_name = "alpha" };
static char whole[8192];	/* the reply when there is memory */

/* What answers a request of a client, except for the socket. */
static char *answer(struct ctl *c, const char *line, char *brief)
{
	struct ctl_conn conn = { .fd = -1 };
	struct ctl_request rq;
	json_t *result = NULL;
	char *reply;
	int err;

	why[0] = '\0';
	err = ctl_request_parse(line, strlen(line), true, &rq, why, sizeof(why));
	if (!err)
		err = ctl_run(c, &rq, &conn, &result, why, sizeof(why));
	reply = ctl_reply_line(&rq, err, result, why);
	if (!reply)
		ctl_reply_short(&rq, err, brief);
	json_decref(result);
	ctl_request_free(&rq);
	return reply;
}

static uint64_t reply_status(void *arg, uint64_t n, uint64_t count)
{
	struct ctl c = { .stores = &stores, .hello = &hello };
	char brief[CTL_SHORT_MAX] = "", *reply;
	uint64_t hits;
	json_t *o;

	(void)arg;
	nomem_arm(n, count);
	reply = answer(&c, "{\"id\": 3, \"cmd\": \"status\"}", brief);
	hits = nomem_disarm();
	if (!whole[0] && reply)
		snprintf(whole, sizeof(whole), "%s", reply);
	if (reply)
		CU_ASSERT_STRING_EQUAL(reply, whole);
	if (!reply) {
		CU_ASSERT_TRUE(hits > 0);
		o = json_loads(brief, 0, NULL);
		CU_ASSERT_TRUE(json_is_false(json_object_get(o, "ok")));
		CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(
			json_object_get(o, "error"), "name")), "ENOMEM");
		json_decref(o);
	}
	/* Given to jansson's user, who frees it as we would. */
	if (reply)
		nomem_release(reply);
	return hits;
}

static void a_reply_is_whole_or_says_that_it_is_none(void)
{
	pthread_mutex_init(&stores.mutex, NULL);
	list_init(&stores.list);
	each_of(reply_status, "a reply");
}

static void what_was_done_is_not_called_failed(void)
{
	struct ctl_request mounted = { .changes = true }, asked = { .changes = false };
	char brief[CTL_SHORT_MAX];

	CU_ASSERT_STRING_EQUAL(ctl_reply_short(&mounted, 0, brief), "{\"ok\":true,\"result\":{}}\n");
	CU_ASSERT_PTR_NOT_NULL(strstr(ctl_reply_short(&asked, 0, brief), "\"ENOMEM\""));
	CU_ASSERT_PTR_NOT_NULL(strstr(ctl_reply_short(&mounted, -EBUSY, brief), "\"EBUSY\""));
}

/* Names that are no UTF-8 take a copy. */
static uint64_t reply_holder(void *arg, uint64_t n, uint64_t count)
{
	struct lock_holder h = { .mode = LOCK_EXCLUSIVE, .host_name = "al\xffpha", .comm = "x" };
	struct fs_attr attr = { .mode = S_IFREG };
	struct super s = { .label = "ds1" };
	struct blkdev_info info = { .name = "/dev/x" };
	struct lockd_peer peer = { .valid = true, .slot = { .state = SLOT_LIVE } };
	struct ctl_request rq = { 0 };
	json_t *list;
	uint64_t hits;
	char *reply;

	(void)arg;
	nomem_arm(n, count);
	ctl_json_begin();
	list = json_array();
	json_array_append_new(list, holder_json(&h));
	json_array_append_new(list, super_json(&s, &info));
	json_array_append_new(list, peers_json(&peer, 1));
	put_attr(json_array_get(list, 0), &attr);
	reply = ctl_reply_line(&rq, 0, list, "");
	hits = nomem_disarm();
	CU_ASSERT_EQUAL(!reply, hits > 0);
	json_decref(list);
	if (reply)
		nomem_release(reply);
	return hits;
}

static void a_listing_is_whole_or_none(void)
{
	each_of(reply_holder, "a listing");
}

/* ---- what is mounted ---- */

static uint64_t read_mounts(void *arg, uint64_t n, uint64_t count)
{
	static const char table[] =
		"40 22 0:39 / /mnt/a rw - fuse.lunfs /dev/sda rw\n"
		"42 41 0:41 / /mnt/a rw - tmpfs x rw\n";
	FILE *in = fmemopen((void *)(uintptr_t)table, sizeof(table) - 1, "r");
	uint32_t minor;
	uint64_t hits;
	int err;

	(void)arg;
	nomem_arm(n, count);
	err = mountinfo_find(in, "/mnt/a", &minor);
	hits = nomem_disarm();
	CU_ASSERT_EQUAL(err, hits ? -ENOMEM : -EMEDIUMTYPE);
	fclose(in);
	return hits;
}

static uint64_t read_mounts_now(void *arg, uint64_t n, uint64_t count)
{
	uint32_t minor;
	uint64_t hits;
	int err, has;

	(void)arg;
	nomem_arm(n, count);
	err = mountinfo_find_now("/nothing/is/mounted/here", &minor);
	has = mountinfo_has_minor("/nothing/is/mounted/here", 77);
	hits = nomem_disarm();
	CU_ASSERT_EQUAL(err == -ENOENT && has == 0, hits == 0);
	return hits;
}

/* Taking a mount that lies beneath for the one on top would unmount somebody else's. */
static void half_a_table_of_mounts_is_none(void)
{
	each_of(read_mounts, "the mounts");
	each_of(read_mounts_now, "this process's mounts");
}

UNIT_MAIN("nomem daemon",
	UNIT_TEST(a_request_is_understood_whole_or_refused),
	UNIT_TEST(a_reply_is_whole_or_says_that_it_is_none),
	UNIT_TEST(what_was_done_is_not_called_failed),
	UNIT_TEST(a_listing_is_whole_or_none),
	UNIT_TEST(half_a_table_of_mounts_is_none)
);
