/* SPDX-License-Identifier: Apache-2.0 */
/* Devices as people name them, made names that a daemon can open. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "block/blkiscsi.h"
#include "tools/ctl_client.h"

int ctl_device_open_name(const char *program, const char *name, char *buf)
{
	struct blkiscsi_target t;
	char why[512];

	if (blkiscsi_is_url(name)) {
		if (blkiscsi_parse(name, &t, why, sizeof(why)) || strlen(name) >= PATH_MAX) {
			fprintf(stderr, "%s: %s\n", program, why);
			return CTL_FAILED;
		}
		strcpy(buf, name);
		return CTL_OK;
	}
	if (realpath(name, buf))
		return CTL_OK;
	fprintf(stderr, "%s: %s: %s\n", program, name, strerror(errno));
	return CTL_FAILED;
}

char *ctl_device_path(const char *name, char *buf)
{
	/* A label may contain anything but a slash, a device's path has one. */
	if (!strchr(name, '/') || !realpath(name, buf))
		snprintf(buf, PATH_MAX, "%s", name);
	return buf;
}
