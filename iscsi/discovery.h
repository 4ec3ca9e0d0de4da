/* SPDX-License-Identifier: Apache-2.0 */
/* SendTargets: which targets there are for an initiator, and where (RFC 7143, appendix C). */
#ifndef LUNFS_ISCSI_DISCOVERY_H
#define LUNFS_ISCSI_DISCOVERY_H

#include "iscsi/config.h"
#include "iscsi/login.h"

/**
 * discovery_list() - what SendTargets=@which finds.
 * @which: "All", "" or a target's name.
 * @out:   receives the pairs; full if they do not fit.
 *
 * Targets whose list does not name the initiator are not shown.  Portals are shown as this
 * connection can use them: one on all addresses as the address that the connection came to.
 * Return: 0; -EPERM not to be asked in this kind of session.
 */
int discovery_list(const struct tgt_config *config, const struct tgt_peer *peer,
		   const struct tgt_params *params, const char *which, struct tgt_keys *out);

/** discovery_size() - bytes that the longest answer of @config can have. */
size_t discovery_size(const struct tgt_config *config);

#endif
