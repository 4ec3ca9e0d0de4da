/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/mountinfo.h"

#include <errno.h>

#include "tests/unit.h"

static const char table[] =
	"22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
	"40 22 0:39 / /mnt/a rw,relatime shared:7 master:3 - fuse.lunfs /dev/sda rw,user_id=0\n"
	"41 22 0:40 / /mnt/b rw - fuse.lunfs /x rw\n"
	"42 41 0:41 / /mnt/b rw - tmpfs x rw\n"
	"43 22 0:42 / /mnt/with\\040space\\134 rw - fuse.lunfs - rw\n"
	"44 43 0:43 / /mnt/with\\040space\\134 rw - fuse.lunfs - rw\n"
	"garbage\n"
	"45 22 0:44 / /mnt/c rw shared:9\n";

static int find(const char *dir, uint32_t *minor)
{
	FILE *in = fmemopen((void *)(uintptr_t)table, sizeof(table) - 1, "r");
	int found = mountinfo_find(in, dir, minor);

	fclose(in);
	return found;
}

/* Unmounting what lies beneath somebody else's mount would take the wrong one away. */
static void the_mount_on_top_is_found(void)
{
	uint32_t minor = 0;

	CU_ASSERT_EQUAL(find("/mnt/a", &minor), 0);
	CU_ASSERT_EQUAL(minor, 39);
	CU_ASSERT_EQUAL(find("/mnt/b", &minor), -EMEDIUMTYPE);
	CU_ASSERT_EQUAL(find("/mnt/with space\\", &minor), 0);
	CU_ASSERT_EQUAL(minor, 43);
}

static void what_is_not_mounted_is_not_found(void)
{
	uint32_t minor = 0;

	CU_ASSERT_EQUAL(find("/mnt", &minor), -ENOENT);
	CU_ASSERT_EQUAL(find("/mnt/a/", &minor), -ENOENT);
	CU_ASSERT_EQUAL(find("/mnt/c", &minor), -ENOENT);	/* a line that breaks off */
	CU_ASSERT_EQUAL(find("", &minor), -ENOENT);
}

static int where(const char *dir, uint32_t minor, char at[PATH_MAX])
{
	FILE *in = fmemopen((void *)(uintptr_t)table, sizeof(table) - 1, "r");
	int found = mountinfo_where(in, dir, minor, at);

	fclose(in);
	return found;
}

static void a_device_is_found_wherever_it_is_mounted(void)
{
	char at[PATH_MAX] = "";

	CU_ASSERT_EQUAL(where(NULL, 40, at), 1);	/* beneath another */
	CU_ASSERT_STRING_EQUAL(at, "/mnt/b");
	CU_ASSERT_EQUAL(where(NULL, 42, at), 1);
	CU_ASSERT_STRING_EQUAL(at, "/mnt/with space\\");
	CU_ASSERT_EQUAL(where("/mnt/b", 40, at), 1);
	CU_ASSERT_EQUAL(where("/mnt/a", 40, at), 0);
	CU_ASSERT_EQUAL(where(NULL, 41, at), 0);	/* not one of ours */
	CU_ASSERT_EQUAL(where(NULL, 44, at), 0);
}

UNIT_MAIN("mountinfo",
	  UNIT_TEST(the_mount_on_top_is_found),
	  UNIT_TEST(a_device_is_found_wherever_it_is_mounted),
	  UNIT_TEST(what_is_not_mounted_is_not_found));
