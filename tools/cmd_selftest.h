/* SPDX-License-Identifier: Apache-2.0 */
/* `lunfs selftest`: whether a LUN keeps what LunFS rests on. */
#ifndef LUNFS_TOOLS_CMD_SELFTEST_H
#define LUNFS_TOOLS_CMD_SELFTEST_H

#include <stdbool.h>

/** selftest_main() - `selftest DEVICE…`, @argv[0] being "selftest".
 * Return: exit status: 0; 1 a property was disproved, or refused or failed; 2 usage. */
int selftest_main(int argc, char **argv, bool json);

#endif
