/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets that the parent opens for a worker that may be anybody's by now. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/exports.h"
#include "daemon/parent.h"
#include "tests/unit.h"

static struct config config;
static struct rpc_reply reply;
static int out[PACKET_FDS_MAX];
static unsigned int out_count;

static int ask(const char *portal)
{
	struct sockaddr_storage a;
	char why[256];

	memset(&reply, 0, sizeof(reply));
	out_count = 0;
	CU_ASSERT_EQUAL_FATAL(exports_address(portal, &a, why, sizeof(why)), 0);
	return parent_portal(&config, &a, &reply, out, &out_count);
}

/* "127.0.0.1:PORT" of a port that is free. */
static void free_portal(char text[64])
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CU_ASSERT_EQUAL_FATAL(bind(fd, (struct sockaddr *)&a, len), 0);
	CU_ASSERT_EQUAL(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	close(fd);
	snprintf(text, 64, "127.0.0.1:%u", ntohs(a.sin_port));
}

static void only_loopback_and_what_is_configured_is_opened(void)
{
	char portal[64];

	config_init(&config);
	CU_ASSERT_EQUAL(ask("192.0.2.1:3260"), -EPERM);
	CU_ASSERT_PTR_NOT_NULL(strstr(reply.why, "iscsi-portal = 192.0.2.1:3260"));
	CU_ASSERT_EQUAL(ask("0.0.0.0:3260"), -EPERM);
	CU_ASSERT_EQUAL(ask("[::]:3260"), -EPERM);
	CU_ASSERT_EQUAL(ask("127.0.0.1:1023"), -EPERM);	/* a service of the machine's */
	CU_ASSERT_EQUAL(out_count, 0);
	free_portal(portal);
	CU_ASSERT_EQUAL(ask(portal), 0);
	CU_ASSERT_EQUAL_FATAL(out_count, 1);
	CU_ASSERT(fcntl(out[0], F_GETFD) & FD_CLOEXEC);
	CU_ASSERT(fcntl(out[0], F_GETFL) & O_NONBLOCK);
	/* A second one at the same place: the port is taken, and it is said how to see by whom. */
	int first = out[0];

	CU_ASSERT_EQUAL(ask(portal), -EADDRINUSE);
	CU_ASSERT_PTR_NOT_NULL(strstr(reply.why, "ss -ltnp"));
	CU_ASSERT_EQUAL(out_count, 0);
	close(first);
	/* Configured, but no address of this machine (TEST-NET-1). */
	strcpy(config.iscsi_portals[config.iscsi_portal_count++], "192.0.2.1:3260");
	CU_ASSERT_EQUAL(ask("192.0.2.1:3260"), -EADDRNOTAVAIL);
	CU_ASSERT_EQUAL(ask("192.0.2.1:3261"), -EPERM);
}

static void secrets_that_others_may_read_are_not_used(void)
{
	char path[] = "/tmp/lunfs-secrets-XXXXXX", portal[64];
	int fd = mkstemp(path), want = geteuid() ? -EPERM : 0;

	CU_ASSERT_FATAL(fd >= 0);
	config_init(&config);
	strcpy(config.iscsi_secrets, path);
	free_portal(portal);
	CU_ASSERT_EQUAL(ask(portal), want);
	CU_ASSERT_EQUAL(out_count, want ? 0 : 2);
	for (unsigned int i = 0; i < out_count; i++)
		close(out[i]);
	CU_ASSERT_EQUAL(fchmod(fd, 0640), 0);
	CU_ASSERT_EQUAL(ask(portal), -EPERM);
	CU_ASSERT_EQUAL(out_count, 0);
	CU_ASSERT_PTR_NOT_NULL(strstr(reply.why, "chmod 600"));
	close(fd);
	unlink(path);
	CU_ASSERT_EQUAL(ask(portal), -ENOENT);
	strcpy(config.iscsi_secrets, "/dev/null");	/* no file */
	CU_ASSERT_EQUAL(ask(portal), -EPERM);
}

static void metrics_have_the_port_that_is_configured(void)
{
	config_init(&config);
	memset(&reply, 0, sizeof(reply));
	out_count = 0;
	CU_ASSERT_EQUAL(parent_metrics(&config, &reply, out, &out_count), -ENOENT);
	free_portal(config.metrics_port);
	CU_ASSERT_EQUAL(parent_metrics(&config, &reply, out, &out_count), 0);
	CU_ASSERT_EQUAL_FATAL(out_count, 1);
	CU_ASSERT_EQUAL(parent_metrics(&config, &reply, out + 1, &out_count), -EADDRINUSE);
	CU_ASSERT_PTR_NOT_NULL(strstr(reply.why, "metrics-port"));
	CU_ASSERT_EQUAL(out_count, 1);
	close(out[0]);
}

UNIT_MAIN("parent_portal",
	  UNIT_TEST(only_loopback_and_what_is_configured_is_opened),
	  UNIT_TEST(secrets_that_others_may_read_are_not_used),
	  UNIT_TEST(metrics_have_the_port_that_is_configured));
