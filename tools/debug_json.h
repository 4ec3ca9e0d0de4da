/* SPDX-License-Identifier: Apache-2.0 */
#ifndef LUNFS_TOOLS_DEBUG_JSON_H
#define LUNFS_TOOLS_DEBUG_JSON_H

#include <jansson.h>

#include "fs/debug.h"

/**
 * debug_json() - a metadata block as an object: address, type, valid, wrong, and in "fields"
 * every field by its name.
 *
 * Numbers are integers, in bytes and ns; bit masks, hashes, block pointers, magic numbers and
 * what is above 2^63 are strings in hexadecimal.  Arrays hold objects with their "index".
 */
json_t *debug_json(const void *block, uint64_t addr, const uint8_t *volume);

#endif
