/* SPDX-License-Identifier: Apache-2.0 */
/* `lunfs scan`: volumes on a device whose beginning is gone. */
#ifndef LUNFS_TOOLS_CMD_SCAN_H
#define LUNFS_TOOLS_CMD_SCAN_H

#include <stdbool.h>

/** scan_main() - `scan DEVICE`, @argv[0] being "scan".
 * Return: exit status: 0 found or restored; 1 none, or failed; 2 usage; 3 hosts use it. */
int scan_main(int argc, char **argv, bool json);

#endif
