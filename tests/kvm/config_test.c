/* SPDX-License-Identifier: Apache-2.0 */
#include "kvm/config.h"

#include <errno.h>

#include "tests/unit.h"

static struct vm_config c;
static char why[1024];

static int read_text(const char *text, const char *base)
{
	FILE *in = fmemopen((void *)(uintptr_t)text, strlen(text), "r");
	int err;

	vm_config_init(&c);
	err = vm_config_read(&c, in, "web1.conf", base, why, sizeof(why));
	fclose(in);
	return err;
}

static void a_whole_file_is_read(void)
{
	CU_ASSERT_EQUAL_FATAL(read_text("# web server\nname = web1\nmemory = 1G\ncpus = 4\n"
					"kernel = vmlinuz\ninitrd = /boot/initrd\n"
					"cmdline = root=/dev/vda1 console=ttyS0\ndisk = root.disk\n"
					"disk = ds2:/iso/a,b.iso,ro\nnet = none\non-reset = exit\n"
					"autostart = yes\n", "ds1:/web1"), 0);
	CU_ASSERT_STRING_EQUAL(c.name, "web1");
	CU_ASSERT_EQUAL(c.memory, 1ull << 30);
	CU_ASSERT_EQUAL(c.cpus, 4);
	CU_ASSERT_STRING_EQUAL(c.kernel, "ds1:/web1/vmlinuz");	/* beside the file */
	CU_ASSERT_STRING_EQUAL(c.initrd, "/boot/initrd");
	CU_ASSERT_STRING_EQUAL(c.cmdline, "root=/dev/vda1 console=ttyS0");
	CU_ASSERT_EQUAL_FATAL(c.disk_count, 2);
	CU_ASSERT_STRING_EQUAL(c.disks[0].source, "ds1:/web1/root.disk");
	CU_ASSERT_FALSE(c.disks[0].read_only);
	CU_ASSERT_STRING_EQUAL(c.disks[1].source, "ds2:/iso/a,b.iso");
	CU_ASSERT_TRUE(c.disks[1].read_only);
	CU_ASSERT_FALSE(c.restart);
	CU_ASSERT_TRUE(c.autostart);
	CU_ASSERT_EQUAL(vm_config_check(&c, why, sizeof(why)), 0);
}

/* An editor of another system ends lines with "\r\n": nobody sees what a message about that would be about. */
static void lines_may_end_as_elsewhere(void)
{
	CU_ASSERT_EQUAL(read_text("name = web1\r\n\r\ncpus = 2\r\nkernel = vmlinuz\r\n", "ds1:/web1"), 0);
	CU_ASSERT_STRING_EQUAL(c.name, "web1");
	CU_ASSERT_STRING_EQUAL(c.kernel, "ds1:/web1/vmlinuz");
}

/* Each mistake is named with its place: line and column. */
static void mistakes_are_shown_where_they_are(void)
{
	static const struct { const char *text, *at; } bad[] = {
		{ "memory = 1X\n", "web1.conf:1:10: " },
		{ "name = a\nmemory = 1M\n", "web1.conf:2:10: " },
		{ "memory = 2T\n", "web1.conf:1:10: " },
		{ "cpus = 0\n", "web1.conf:1:8: " },
		{ "cpus = 65\n", "web1.conf:1:8: " },
		{ "cpus = +1\n", "web1.conf:1:8: " },
		{ "\n  name = ../x\n", "web1.conf:2:10: " },
		{ "name = .hidden\n", "web1.conf:1:8: " },
		{ "colour = red\n", "web1.conf:1:1: unknown setting" },
		{ "disk = /dev/sda\n", "web1.conf:1:8: a disk is DATASTORE:/PATH" },
		{ "disk =\n", "web1.conf:1:7: " },
		{ "net = tap0\n", "web1.conf:1:7: " },
		{ "on-reset = perhaps\n", "web1.conf:1:12: " },
		{ "autostart = 1\n", "web1.conf:1:13: " },
		{ "[vm]\n", "web1.conf:1:1: " },
		{ "kernel\n", "web1.conf:1:7: " },
		{ "memory = 1G\ncpus = 1\nmemory = 2G\n", "web1.conf:3:10: \"memory\" is given a second time" },
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		CU_ASSERT_EQUAL(read_text(bad[i].text, "ds1:/x"), -EINVAL);
		CU_ASSERT_EQUAL(strncmp(why, bad[i].at, strlen(bad[i].at)), 0);
	}
}

static void names_typed_are_meant_as_they_are(void)
{
	vm_config_init(&c);
	CU_ASSERT_EQUAL(vm_config_set(&c, "kernel", "vmlinuz", why, sizeof(why)), 0);
	CU_ASSERT_STRING_EQUAL(c.kernel, "vmlinuz");
	CU_ASSERT_EQUAL(vm_config_set(&c, "disk", "root.disk", why, sizeof(why)), -EINVAL);
	CU_ASSERT_EQUAL(vm_config_set(&c, "disk", "ds1:/a", why, sizeof(why)), 0);
}

static void what_no_machine_can_be_made_of_is_refused(void)
{
	vm_config_init(&c);
	CU_ASSERT_EQUAL(vm_config_check(&c, why, sizeof(why)), -EINVAL);
	CU_ASSERT_EQUAL(vm_config_set(&c, "name", "a", why, sizeof(why)), 0);
	CU_ASSERT_EQUAL(vm_config_check(&c, why, sizeof(why)), -EINVAL);	/* no kernel */
	CU_ASSERT_EQUAL(vm_config_set(&c, "kernel", "k", why, sizeof(why)), 0);
	CU_ASSERT_EQUAL(vm_config_check(&c, why, sizeof(why)), 0);
	CU_ASSERT_EQUAL(vm_config_set(&c, "disk", "ds:/a", why, sizeof(why)), 0);
	CU_ASSERT_EQUAL(vm_config_set(&c, "disk", "ds:/a,ro", why, sizeof(why)), 0);
	CU_ASSERT_EQUAL(vm_config_check(&c, why, sizeof(why)), -EINVAL);	/* twice */
}

static void more_than_fits_is_refused(void)
{
	char value[8192];

	vm_config_init(&c);
	for (unsigned int i = 0; i < VM_DISKS_MAX; i++) {
		snprintf(value, sizeof(value), "ds:/%u", i);
		CU_ASSERT_EQUAL(vm_config_set(&c, "disk", value, why, sizeof(why)), 0);
	}
	CU_ASSERT_EQUAL(vm_config_set(&c, "disk", "ds:/more", why, sizeof(why)), -EINVAL);
	memset(value, 'x', sizeof(value) - 1);
	value[sizeof(value) - 1] = '\0';
	CU_ASSERT_EQUAL(vm_config_set(&c, "cmdline", value, why, sizeof(why)), -EINVAL);
	CU_ASSERT_EQUAL(vm_config_set(&c, "kernel", value, why, sizeof(why)), -EINVAL);
	CU_ASSERT_EQUAL(vm_config_set(&c, "name", value, why, sizeof(why)), -EINVAL);
	c.disk_count = 0;
	CU_ASSERT_EQUAL(vm_config_set(&c, "disk", value, why, sizeof(why)), -EINVAL);
	memcpy(value, "ds:/", 4);
	CU_ASSERT_EQUAL(vm_config_set(&c, "disk", value, why, sizeof(why)), -EINVAL);
}

UNIT_MAIN("config",
	UNIT_TEST(a_whole_file_is_read),
	UNIT_TEST(lines_may_end_as_elsewhere),
	UNIT_TEST(mistakes_are_shown_where_they_are),
	UNIT_TEST(names_typed_are_meant_as_they_are),
	UNIT_TEST(what_no_machine_can_be_made_of_is_refused),
	UNIT_TEST(more_than_fits_is_refused));
