/* SPDX-License-Identifier: Apache-2.0 */
#include "kvm/report.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/text.h"

const char *report_reason(enum vm_exit status)
{
	static const struct { enum vm_exit status; const char *reason; } reasons[] = {
		{ VM_EXIT_POWER_OFF, "power-off" }, { VM_EXIT_CONFIG, "configuration" },
		{ VM_EXIT_LOCKED, "locked" },	    { VM_EXIT_NO_DAEMON, "no-daemon" },
		{ VM_EXIT_LOST, "lost" },	    { VM_EXIT_RESET, "reset" },
		{ VM_EXIT_CRASH, "crash" },	    { VM_EXIT_KVM, "kvm" },
		{ VM_EXIT_KILLED, "killed" },
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(reasons); i++)
		if (reasons[i].status == status)
			return reasons[i].reason;
	return "failed";
}

void report_json(int fd, json_t *o)
{
	char *line = o ? json_dumps(o, JSON_COMPACT) : NULL;

	if (line)
		dprintf(fd, "%s\n", line);
	free(line);
	json_decref(o);
}

json_t *report_end(enum vm_exit status, const char *why)
{
	json_t *o = json_pack("{s:b, s:i, s:s}", "ok", status == VM_EXIT_POWER_OFF, "exit_status",
			      (int)status, "reason", report_reason(status));

	if (o && status != VM_EXIT_POWER_OFF)
		json_object_set_new(o, "error", json_string(why));
	return o;
}

int report_failure(bool json, const char *name, enum vm_exit status, const char *fmt, ...)
{
	char raw[VM_WHY_SIZE + PATH_MAX], why[VM_WHY_SIZE + PATH_MAX];
	va_list args;
	json_t *o;

	va_start(args, fmt);
	vsnprintf(raw, sizeof(raw), fmt, args);
	va_end(args);
	/* What was typed, or lies on a datastore, need not be text. */
	text_printable(raw, sizeof(raw), why, sizeof(why));
	fprintf(stderr, LUNVM_NAME ": %s%s%s\n", name ? name : "", name ? ": " : "", why);
	if (!json)
		return (int)status;
	o = report_end(status, why);
	if (o && name)
		json_object_set_new(o, "name", json_string(name));
	fflush(stdout);
	report_json(STDOUT_FILENO, o);
	return (int)status;
}
