/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listening sockets of iSCSI portals for virtual disks, and of metrics.  A worker that was taken over could ask for
 * any: it gets loopback ones, and those that the configuration names.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "daemon/exports.h"
#include "daemon/parent.h"
#include "iscsi/config.h"

#define PORT_MIN	1024	/* below are other services' */

static uint16_t port_of(const struct sockaddr_storage *a)
{
	const struct sockaddr_in6 *in6 = (const void *)a;
	const struct sockaddr_in *in = (const void *)a;

	return ntohs(a->ss_family == AF_INET6 ? in6->sin6_port : in->sin_port);
}

/* The configuration has them as tgt_portal_format() writes them, and so does @portal. */
static bool is_configured(const struct config *c, const char *portal)
{
	for (unsigned int i = 0; i < c->iscsi_portal_count; i++)
		if (!strcmp(c->iscsi_portals[i], portal))
			return true;
	return false;
}

static int check(const struct config *c, const struct sockaddr_storage *a, const char *portal,
		 struct rpc_reply *reply)
{
	if (port_of(a) < PORT_MIN)
		return text_refuse(-EPERM, reply->why, sizeof(reply->why), "%s: a portal's port is %u "
				   "or above, such as 3260", portal, PORT_MIN);
	if (exports_is_loopback(a) || is_configured(c, portal))
		return 0;
	return text_refuse(-EPERM, reply->why, sizeof(reply->why), "%s: not a loopback address; to "
			   "serve disks there add \"iscsi-portal = %s\" to lunfsd.conf and restart the "
			   "daemon", portal, portal);
}

/* Also of secrets that others may read: who has them can be anybody. */
static int open_secrets(const char *path, struct rpc_reply *reply)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), err;
	struct stat st;

	if (fd < 0 || fstat(fd, &st)) {
		err = -errno;	/* close() may change it */
		if (fd >= 0)
			close(fd);
		return text_refuse(err, reply->why, sizeof(reply->why), "%.300s: %s", path,
				   strerror(-err));
	}
	if (S_ISREG(st.st_mode) && !st.st_uid && !(st.st_mode & (S_IRWXG | S_IRWXO)))
		return fd;
	close(fd);
	return text_refuse(-EPERM, reply->why, sizeof(reply->why), "%.300s: holds secrets, but is not "
			   "root's alone; chown root and chmod 600 it", path);
}

/* @way_out: behind "name another port". */
static int listen_at(const struct sockaddr_storage *a, const char *portal, const char *way_out,
		     struct rpc_reply *reply)
{
	socklen_t len = a->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) :
						   sizeof(struct sockaddr_in);
	int fd = socket(a->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1, err;

	if (fd >= 0 && a->ss_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	if (fd >= 0 && !setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) &&
	    !bind(fd, (const struct sockaddr *)a, len) && !listen(fd, SOMAXCONN))
		return fd;
	err = -errno;
	if (fd >= 0)
		close(fd);
	if (err == -EADDRINUSE)
		return text_refuse(err, reply->why, sizeof(reply->why), "%s: another program listens "
				   "there (ss -ltnp shows it); name another port%s", portal, way_out);
	if (err == -EADDRNOTAVAIL)
		return text_refuse(err, reply->why, sizeof(reply->why), "%s: no address of this machine",
				   portal);
	return text_refuse(err, reply->why, sizeof(reply->why), "%s: %s", portal, strerror(-err));
}

int parent_portal(const struct config *c, const struct sockaddr_storage *a, struct rpc_reply *reply,
		  int *out, unsigned int *out_count)
{
	int secrets = -1, fd, err;
	char portal[64];

	tgt_portal_format(a, portal);
	err = check(c, a, portal, reply);
	if (err)
		return err;
	if (c->iscsi_secrets[0]) {
		secrets = open_secrets(c->iscsi_secrets, reply);
		if (secrets < 0)
			return secrets;
	}
	fd = listen_at(a, portal, ", as in --iscsi=127.0.0.1:3261", reply);
	if (fd < 0) {
		if (secrets >= 0)
			close(secrets);
		return fd;
	}
	out[(*out_count)++] = fd;
	if (secrets >= 0)
		out[(*out_count)++] = secrets;
	return 0;
}

int parent_metrics(const struct config *c, struct rpc_reply *reply, int *out, unsigned int *out_count)
{
	struct sockaddr_storage a;
	int err, fd;

	if (!c->metrics_port[0])
		return text_refuse(-ENOENT, reply->why, sizeof(reply->why), "no metrics-port is configured");
	err = exports_address(c->metrics_port, &a, reply->why, sizeof(reply->why));
	if (err)
		return err;
	fd = listen_at(&a, c->metrics_port, " as metrics-port and restart the daemon", reply);
	if (fd < 0)
		return fd;
	out[(*out_count)++] = fd;
	return 0;
}
