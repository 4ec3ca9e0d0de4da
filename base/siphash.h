/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LUNFS_BASE_SIPHASH_H
#define LUNFS_BASE_SIPHASH_H

#include "base/types.h"

/** siphash24() - SipHash-2-4 (Aumasson, Bernstein 2012) of @len bytes under a 16-byte key. */
uint64_t siphash24(const uint8_t key[16], const void *buf, size_t len);

#endif
