/* SPDX-License-Identifier: Apache-2.0 */
/* `lunfs debug`: any metadata block by name and field. */
#ifndef LUNFS_TOOLS_DEBUG_CMD_H
#define LUNFS_TOOLS_DEBUG_CMD_H

#include <stdbool.h>

/**
 * debug_main() - `debug DEVICE WHAT…`, @argv[0] being "debug".  Reads the device as it is:
 * no lock is taken, journals are not replayed, and a live volume may change meanwhile.
 * Return: exit status: 0; 1 failed; 2 usage.
 */
int debug_main(int argc, char **argv, bool json);

#endif
