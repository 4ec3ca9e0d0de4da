/* SPDX-License-Identifier: Apache-2.0 */
/* What lunvm says: a line for people on standard error, JSON for programs where that was asked for. */
#ifndef LUNFS_KVM_REPORT_H
#define LUNFS_KVM_REPORT_H

#include <jansson.h>

#include "kvm/plan.h"

#define LUNVM_NAME	"lunvm"

/** report_reason() - an exit status as a word: "power-off", "locked" …; never NULL. */
const char *report_reason(enum vm_exit status);

/**
 * report_end() - {"ok":…,"exit_status":STATUS,"reason":…}, with "error" unless all went well.
 * @why: UTF-8.  Return: a new reference, or NULL.
 */
json_t *report_end(enum vm_exit status, const char *why);

/**
 * report_failure() - what went wrong, "lunvm: NAME: WHY" on standard error.
 * @json: also report_end() with "name", a line on standard output.
 * @name: the machine; NULL if none is meant.
 * Return: @status.
 */
int report_failure(bool json, const char *name, enum vm_exit status, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/** report_json() - @o as one line to @fd; takes the reference.  NULL, memory ran out, says nothing. */
void report_json(int fd, json_t *o);

#endif
