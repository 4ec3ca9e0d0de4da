/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/config.h"

#include <errno.h>

#include "tests/unit.h"

static char why[512];

static int read_text(struct config *c, const char *text)
{
	FILE *in = fmemopen((void *)(uintptr_t)text, strlen(text), "r");
	int err;

	config_init(c);
	why[0] = '\0';
	err = config_read(c, in, "f", why, sizeof(why));
	fclose(in);
	return err;
}

/* What an administrator writes is what the daemon does. */
static void every_setting_is_taken(void)
{
	struct config c;

	CU_ASSERT_EQUAL(read_text(&c, "# of this host\n\n"
				  "run-dir = /run/x\n  host-name=alpha\t\n"
				  "host-id = 3D1219C7-c4c5-404a-aa1f-6d2a48adfda4\n"
				  "user = lunfs\ngroup = storage\nlog-level = debug\nthreads = 8"), 0);
	CU_ASSERT_STRING_EQUAL(c.run_dir, "/run/x");
	CU_ASSERT_STRING_EQUAL(c.host_name, "alpha");
	CU_ASSERT_TRUE(c.has_host_id);
	CU_ASSERT_EQUAL(c.host_id[0], 0x3d);
	CU_ASSERT_STRING_EQUAL(c.user, "lunfs");
	CU_ASSERT_STRING_EQUAL(c.group, "storage");
	CU_ASSERT_EQUAL(c.log_level, LOG_LEVEL_DEBUG);
	CU_ASSERT_EQUAL(c.threads, 8);
}

/* A typo that were ignored would leave a default in force that nobody expects. */
static void a_typo_is_told_with_line_and_column(void)
{
	struct config c;

	CU_ASSERT_EQUAL(read_text(&c, "run-dir = /run/x\n  hostname = alpha\n"), -EINVAL);
	CU_ASSERT_STRING_EQUAL(why, "f:2:3: unknown setting \"hostname\"");
	CU_ASSERT_EQUAL(read_text(&c, "threads = 8x\n"), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "f:1:11: \"8x\" is not a number"));
	CU_ASSERT_EQUAL(read_text(&c, "\n\nrun-dir\n"), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "f:3:8: expected"));
	CU_ASSERT_EQUAL(read_text(&c, "= 5\n"), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "f:1:1: "));
	CU_ASSERT_EQUAL(read_text(&c, "user =\n"), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "f:1:7: user has no value"));
}

static void values_out_of_range_are_refused(void)
{
	static const char *const bad[] = {
		"run-dir = relative/x", "host-name = al pha", "host-name = a\033[2Jb",
		"host-name = 123456789012345678901234567890123", "host-id = 1234",
		"host-id = 00000000-0000-0000-0000-000000000000", "threads = 0", "threads = 65",
		"threads = -1", "threads = 99999999999999999999", "log-level = loud",
	};
	struct config c;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		CU_ASSERT_EQUAL(read_text(&c, bad[i]), -EINVAL);
		CU_ASSERT_EQUAL(strncmp(why, "f:1:", 4), 0);
	}
}

/* What is no device and no word of ours is a typo, which must not leave a host unwatched. */
static void a_watchdog_is_none_a_guard_or_a_device(void)
{
	struct config c;

	CU_ASSERT_EQUAL(read_text(&c, ""), 0);
	CU_ASSERT_FALSE(c.guard);
	CU_ASSERT_EQUAL(read_text(&c, "watchdog = guard"), 0);
	CU_ASSERT(c.guard && !c.watchdog[0]);
	CU_ASSERT_EQUAL(read_text(&c, "watchdog = /dev/watchdog0"), 0);
	CU_ASSERT_TRUE(c.guard);
	CU_ASSERT_STRING_EQUAL(c.watchdog, "/dev/watchdog0");
	CU_ASSERT_EQUAL(read_text(&c, "watchdog = guard\nwatchdog = none"), 0);
	CU_ASSERT_FALSE(c.guard);
	CU_ASSERT_EQUAL(read_text(&c, "watchdog = gaurd"), -EINVAL);
}

/* A rate without its unit, or below a block a second, would scrub next to nothing and look like more. */
static void a_scrub_rate_has_a_unit_or_is_off(void)
{
	struct config c;

	CU_ASSERT_EQUAL(read_text(&c, ""), 0);
	CU_ASSERT_EQUAL(c.scrub_rate, 1024 * 1024);
	CU_ASSERT_EQUAL(read_text(&c, "scrub-rate = 0"), 0);
	CU_ASSERT_EQUAL(c.scrub_rate, 0);
	CU_ASSERT_EQUAL(read_text(&c, "scrub-rate = 8M"), 0);
	CU_ASSERT_EQUAL(c.scrub_rate, 8 * 1024 * 1024);
	CU_ASSERT_EQUAL(read_text(&c, "scrub-rate = 100"), -EINVAL);
	CU_ASSERT_EQUAL(read_text(&c, "scrub-rate = 2T"), -EINVAL);
	CU_ASSERT_EQUAL(read_text(&c, "scrub-rate = fast"), -EINVAL);
}

/* Written in whatever way, a portal is compared and shown in one. */
static void portals_of_disks_are_addresses(void)
{
	char line[] = "iscsi-portal = 192.0.2.1:3260\n", text[10 * sizeof(line)] = "";
	struct config c;

	CU_ASSERT_EQUAL(read_text(&c, "iscsi-portal = 192.0.2.1\niscsi-portal = [2001:DB8::0:1]:9\n"
				      "iscsi-secrets = /etc/s"), 0);
	CU_ASSERT_EQUAL(c.iscsi_portal_count, 2);
	CU_ASSERT_STRING_EQUAL(c.iscsi_portals[0], "192.0.2.1:3260");
	CU_ASSERT_STRING_EQUAL(c.iscsi_portals[1], "[2001:db8::1]:9");
	CU_ASSERT_STRING_EQUAL(c.iscsi_secrets, "/etc/s");
	CU_ASSERT_EQUAL(read_text(&c, "iscsi-portal = storage.example"), -EINVAL);
	CU_ASSERT_EQUAL(read_text(&c, "iscsi-portal = 192.0.2.1:65536"), -EINVAL);
	CU_ASSERT_EQUAL(read_text(&c, "iscsi-secrets = etc/s"), -EINVAL);
	for (unsigned int i = 0; i < CONFIG_PORTALS_MAX + 1; i++)
		strcat(text, line);
	CU_ASSERT_EQUAL(read_text(&c, text), -EINVAL);
}

/* The socket's path has to fit into a socket address: found out at once, not at bind(). */
static void a_run_dir_too_long_for_a_socket_is_refused(void)
{
	char text[256] = "run-dir = /";
	struct config c;

	memset(text + strlen(text), 'x', 120);
	CU_ASSERT_EQUAL(read_text(&c, text), -EINVAL);
}

/* A file that is no text must neither run over a buffer nor be half believed. */
static void an_endless_line_is_refused(void)
{
	static char text[3 * PATH_MAX];
	struct config c;

	memset(text, 'x', sizeof(text) - 1);
	CU_ASSERT_EQUAL(read_text(&c, text), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(why, "too long"));
}

/* Whoever could connect would read it: so only this machine can. */
static void metrics_are_for_loopback(void)
{
	static const char *const bad[] = { "0.0.0.0:9100", "192.0.2.1:9100", "[::]:9100", "[2001:db8::1]:9100",
					   "65536", "localhost", "127.0.0.1", "x:9100", "9100x", "127.0.0.1:0", "0", "[::1]", "::1",
					   "111111111111111111111111111111111111111111111111111" };
	struct config c;
	char text[64], message[256];

	config_init(&c);
	CU_ASSERT_EQUAL(c.metrics_port[0], '\0');
	CU_ASSERT_EQUAL(config_set(&c, "metrics-port", "9100", message, sizeof(message)), 0);
	CU_ASSERT_STRING_EQUAL(c.metrics_port, "127.0.0.1:9100");
	CU_ASSERT_EQUAL(config_set(&c, "metrics-port", "[::1]:9101", message, sizeof(message)), 0);
	CU_ASSERT_STRING_EQUAL(c.metrics_port, "[::1]:9101");
	CU_ASSERT_EQUAL(config_set(&c, "metrics-port", "127.1.2.3:9101", message, sizeof(message)), 0);
	for (unsigned int i = 0; i < ARRAY_SIZE(bad); i++) {
		snprintf(text, sizeof(text), "%s", bad[i]);
		message[0] = '\0';
		if (!config_set(&c, "metrics-port", text, message, sizeof(message)))
			CU_FAIL(text);
		CU_ASSERT(message[0] != '\0');
	}
}

UNIT_MAIN("config",
	  UNIT_TEST(metrics_are_for_loopback),
	  UNIT_TEST(every_setting_is_taken),
	  UNIT_TEST(a_typo_is_told_with_line_and_column),
	  UNIT_TEST(values_out_of_range_are_refused),
	  UNIT_TEST(a_watchdog_is_none_a_guard_or_a_device),
	  UNIT_TEST(a_scrub_rate_has_a_unit_or_is_off),
	  UNIT_TEST(portals_of_disks_are_addresses),
	  UNIT_TEST(a_run_dir_too_long_for_a_socket_is_refused),
	  UNIT_TEST(an_endless_line_is_refused));
