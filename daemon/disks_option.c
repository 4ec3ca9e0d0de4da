/* SPDX-License-Identifier: Apache-2.0 */
/* What can be said of a disk when it is attached. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>

#include "base/text.h"
#include "daemon/disks.h"

#define INCOMING_DEFAULT "60"	/* seconds */
#define INCOMING_MAX	600u

static int set_user(struct disk_options *o, const char *value, char *why, size_t why_size)
{
	if (!*value || strlen(value) > DISK_USER_MAX)
		return text_refuse(-EINVAL, why, why_size, "a user's name has 1 to %u characters",
				   DISK_USER_MAX);
	strcpy(o->user, value);
	return 0;
}

static int set_serial(struct disk_options *o, const char *value, char *why, size_t why_size)
{
	for (const char *p = value; *p; p++)
		if (!isgraph((unsigned char)*p))
			return text_refuse(-EINVAL, why, why_size, "serial=%.40s: it has "
					   "letters, digits and signs of ASCII only, no blanks", value);
	if (!*value || strlen(value) > DISK_SERIAL_MAX)
		return text_refuse(-EINVAL, why, why_size, "serial=%.40s: it has 1 to %u characters",
				   value, DISK_SERIAL_MAX);
	strcpy(o->serial, value);
	return 0;
}

static int set_queues(struct disk_options *o, const char *value, char *why, size_t why_size)
{
	uint64_t n;

	if (text_parse_size(value, &n) || !n || n > VHU_QUEUES_MAX)
		return text_refuse(-EINVAL, why, why_size, "queues=%.40s: not a number from 1 to %u",
				   value, VHU_QUEUES_MAX);
	o->queues = (unsigned int)n;
	return 0;
}

static int set_incoming(struct disk_options *o, const char *value, char *why, size_t why_size)
{
	uint64_t n;

	if (text_parse_size(value, &n) || !n || n > INCOMING_MAX)
		return text_refuse(-EINVAL, why, why_size, "incoming=%.40s: not a number of seconds from "
				   "1 to %u", value, INCOMING_MAX);
	o->incoming_s = (unsigned int)n;
	return 0;
}

static int set_shares(struct disk_options *o, const char *value, char *why, size_t why_size)
{
	uint64_t n;

	if (text_parse_size(value, &n) || !n || n > SHARES_MAX)
		return text_refuse(-EINVAL, why, why_size, "shares=%.40s: not a number from 1 to %u; a "
				   "disk of which nothing is said has %u", value, SHARES_MAX,
				   SHARES_DEFAULT);
	o->limits.shares = (unsigned int)n;
	return 0;
}

static int set_rate(uint64_t *rate, const char *text, const char *value, char *why, size_t why_size)
{
	if (text_parse_size(value, rate) || *rate > INT64_MAX)
		return text_refuse(-EINVAL, why, why_size, "%.60s: not a number, as in 500 or 100M",
				   text);
	return 0;
}

int disks_option(struct disk_options *o, const char *text, char *why, size_t why_size)
{
	const struct { const char *name; uint64_t *rate; } rates[] = {
		{ "iops=", &o->limits.iops }, { "iops-burst=", &o->limits.iops_burst },
		{ "bytes=", &o->limits.bytes }, { "bytes-burst=", &o->limits.bytes_burst },
	};

	if (!strcmp(text, "ro") || !strcmp(text, "rw")) {
		o->read_only = text[1] == 'o';
		return 0;
	}
	if (!strcmp(text, "enospc=pause") || !strcmp(text, "enospc=report")) {
		o->enospc = text[7] == 'r' ? DISK_ENOSPC_REPORT : DISK_ENOSPC_PAUSE;
		return 0;
	}
	if (!strncmp(text, "queues=", 7))
		return set_queues(o, text + 7, why, why_size);
	if (!strncmp(text, "serial=", 7))
		return set_serial(o, text + 7, why, why_size);
	if (!strcmp(text, "incoming"))
		return set_incoming(o, INCOMING_DEFAULT, why, why_size);
	if (!strncmp(text, "incoming=", 9))
		return set_incoming(o, text + 9, why, why_size);
	if (!strcmp(text, "iscsi"))
		return exports_portal(EXPORTS_PORTAL_DEFAULT, o->portal, why, why_size);
	if (!strncmp(text, "iscsi=", 6))
		return exports_portal(text + 6, o->portal, why, why_size);
	if (!strncmp(text, "user=", 5))
		return set_user(o, text + 5, why, why_size);
	if (!strcmp(text, "on-lost=disconnect") || !strcmp(text, "on-lost=report")) {
		o->cut_if_lost = !strcmp(text, "on-lost=disconnect");
		return 0;
	}
	if (!strncmp(text, "shares=", 7))
		return set_shares(o, text + 7, why, why_size);
	for (unsigned int i = 0; i < ARRAY_SIZE(rates); i++)
		if (!strncmp(text, rates[i].name, strlen(rates[i].name)))
			return set_rate(rates[i].rate, text, text + strlen(rates[i].name), why,
					why_size);
	return text_refuse(-EINVAL, why, why_size, "unknown option \"%.60s\"", text);
}
