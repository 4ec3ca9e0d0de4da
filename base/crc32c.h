/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LUNFS_BASE_CRC32C_H
#define LUNFS_BASE_CRC32C_H

#include "base/types.h"

/**
 * crc32c() - CRC32C (Castagnoli, RFC 3720 appendix B.4) of @len bytes.
 * @seed: 0 to begin, or the result over the preceding bytes to go on.
 */
uint32_t crc32c(uint32_t seed, const void *buf, size_t len);

#endif
