/* SPDX-License-Identifier: Apache-2.0 */
/* What selftest_run() found, for people and for programs. */
#ifndef LUNFS_TOOLS_SELFTEST_REPORT_H
#define LUNFS_TOOLS_SELFTEST_REPORT_H

#include <jansson.h>
#include <stdio.h>

#include "tools/selftest/selftest.h"

/** selftest_print() - a verdict a property, with its figures. */
void selftest_print(const struct selftest *t, FILE *out);

/** selftest_json() - the same; the caller's; NULL out of memory. */
json_t *selftest_json(const struct selftest *t);

#endif
