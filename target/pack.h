/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A configuration on its way from the parent, which read it, to the worker, which serves by
 * it: in anonymous memory, because it holds secrets.
 */
#ifndef LUNFS_TARGET_PACK_H
#define LUNFS_TARGET_PACK_H

#include "iscsi/config.h"

/** config_pack() - Return: a sealed memory file that holds all of @config, or -errno. */
int config_pack(const struct tgt_config *config);

/**
 * config_unpack() - the other way.  @fd stays the caller's.
 * Return: 0 with @out; -EPROTO it holds something else; -ENOMEM, -errno.
 */
int config_unpack(int fd, struct tgt_config **out);

#endif
