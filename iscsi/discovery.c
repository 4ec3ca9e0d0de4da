/* SPDX-License-Identifier: Apache-2.0 */
#include "iscsi/discovery.h"

#include <arpa/inet.h>
#include <errno.h>

enum { ADDRESS_SIZE = 80 };	/* "[IPv6]:PORT,TPGT" */

static bool is_any(const struct sockaddr_storage *addr)
{
	const struct sockaddr_in *in = (const void *)addr;
	const struct sockaddr_in6 *in6 = (const void *)addr;

	return addr->ss_family == AF_INET6 ? IN6_IS_ADDR_UNSPECIFIED(&in6->sin6_addr) :
	       in->sin_addr.s_addr == htonl(INADDR_ANY);
}

static void set_port(struct sockaddr_storage *addr, const struct sockaddr_storage *from)
{
	in_port_t port = from->ss_family == AF_INET6 ?
			 ((const struct sockaddr_in6 *)from)->sin6_port :
			 ((const struct sockaddr_in *)from)->sin_port;

	if (addr->ss_family == AF_INET6)
		((struct sockaddr_in6 *)addr)->sin6_port = port;
	else
		((struct sockaddr_in *)addr)->sin_port = port;
}

/* Return: false: from where the initiator is that portal has no address that we know. */
static bool portal_text(const struct tgt_portal *portal, const struct tgt_peer *peer,
			char text[ADDRESS_SIZE])
{
	struct sockaddr_storage addr = portal->addr;
	char host[64];

	if (is_any(&addr)) {
		if (peer->local.ss_family != addr.ss_family)
			return false;
		addr = peer->local;
		set_port(&addr, &portal->addr);
	}
	snprintf(text, ADDRESS_SIZE, "%s,%u", tgt_portal_format(&addr, host), portal->group);
	return true;
}

/* 0.0.0.0 and an address of its own beside it may come to the same. */
static bool is_repeated(const struct tgt_config *config, const struct tgt_peer *peer,
			unsigned int index, const char *text)
{
	char other[ADDRESS_SIZE];

	for (unsigned int i = 0; i < index; i++)
		if (portal_text(&config->portals[i], peer, other) && !strcmp(other, text))
			return true;
	return false;
}

/* Nothing but these two keys (RFC 7143, appendix C): initiators take no list with others. */
static void add_target(const struct tgt_config *config, const struct tgt_peer *peer,
		       const struct tgt_target *target, struct tgt_keys *out)
{
	char text[ADDRESS_SIZE];

	tgt_keys_add(out, "TargetName", target->iqn);
	for (unsigned int i = 0; i < config->portal_count; i++)
		if (portal_text(&config->portals[i], peer, text) &&
		    !is_repeated(config, peer, i, text))
			tgt_keys_add(out, "TargetAddress", text);
}

int discovery_list(const struct tgt_config *config, const struct tgt_peer *peer,
		   const struct tgt_params *params, const char *which, struct tgt_keys *out)
{
	bool all = !strcmp(which, "All");

	if (params->discovery ? !*which : all)
		return -EPERM;
	if (!*which)
		which = params->target;
	/* A session with one target learns nothing of others. */
	if (!params->discovery && strcmp(which, params->target) != 0)
		return 0;
	for (unsigned int i = 0; i < config->target_count; i++) {
		const struct tgt_target *target = &config->targets[i];

		if ((all || !strcmp(which, target->iqn)) &&
		    tgt_target_admits(target, params->initiator))
			add_target(config, peer, target, out);
	}
	return 0;
}

size_t discovery_size(const struct tgt_config *config)
{
	const size_t name = sizeof("TargetName=") + SCSI_NAME_MAX;
	const size_t address = sizeof("TargetAddress=") + ADDRESS_SIZE;

	return config->target_count * (name + config->portal_count * address);
}
