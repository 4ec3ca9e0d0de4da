/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/config.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>

#include "base/settings.h"
#include "base/text.h"
#include "daemon/exports.h"

void config_init(struct config *c)
{
	memset(c, 0, sizeof(*c));
	snprintf(c->run_dir, sizeof(c->run_dir), "%s", CONFIG_DEFAULT_RUN_DIR);
	c->log_level = LOG_LEVEL_INFO;
	c->stop_timeout = CONFIG_STOP_DEFAULT;
	c->poll_us = CONFIG_POLL_US_DEFAULT;
	c->shares_depth = CONFIG_SHARES_DEPTH_DEFAULT;
	c->scrub_rate = CONFIG_SCRUB_DEFAULT;
}

static int set_text(char *to, size_t size, const char *value, char *why, size_t why_size)
{
	if (strlen(value) < size) {
		strcpy(to, value);
		return 0;
	}
	snprintf(why, why_size, "longer than %zu bytes", size - 1);
	return -EINVAL;
}

static int set_path(char *to, size_t size, const char *value, char *why, size_t why_size)
{
	if (value[0] == '/')
		return set_text(to, size, value, why, why_size);
	snprintf(why, why_size, "\"%s\" is not an absolute path", value);
	return -EINVAL;
}

/* It appears in logs and in other hosts' terminals: letters, digits and a few marks. */
static int set_host_name(struct config *c, const char *value, char *why, size_t why_size)
{
	for (const char *p = value; *p; p++) {
		if (isalnum((unsigned char)*p) || strchr("-._", *p))
			continue;
		snprintf(why, why_size, "\"%s\" has other characters than letters, digits, - . _",
			 value);
		return -EINVAL;
	}
	return set_text(c->host_name, sizeof(c->host_name), value, why, why_size);
}

static int set_host_id(struct config *c, const char *value, char *why, size_t why_size)
{
	static const uint8_t zero[16];

	if (text_parse_uuid(value, c->host_id) || !memcmp(c->host_id, zero, sizeof(zero))) {
		snprintf(why, why_size, "\"%s\" is not a UUID", value);
		return -EINVAL;
	}
	c->has_host_id = true;
	return 0;
}

static int set_log_level(struct config *c, const char *value, char *why, size_t why_size)
{
	static const char *const names[] = { "error", "warning", "info", "debug" };

	for (unsigned int i = 0; i < ARRAY_SIZE(names); i++) {
		if (strcmp(value, names[i]))
			continue;
		c->log_level = (enum log_level)i;
		return 0;
	}
	snprintf(why, why_size, "\"%s\" is none of error, warning, info, debug", value);
	return -EINVAL;
}

static int set_number_from(unsigned int *to, unsigned int min, unsigned int max, const char *value,
			   char *why, size_t why_size)
{
	char *end;
	unsigned long n = strtoul(value, &end, 10);

	if (!isdigit((unsigned char)value[0]) || *end || n < min || n > max) {
		snprintf(why, why_size, "\"%s\" is not a number from %u to %u", value, min, max);
		return -EINVAL;
	}
	*to = (unsigned int)n;
	return 0;
}

static int set_number(unsigned int *to, unsigned int max, const char *value, char *why,
		      size_t why_size)
{
	return set_number_from(to, 1, max, value, why, why_size);
}

/* "1M"; 0 turns it off. */
static int set_scrub_rate(struct config *c, const char *value, char *why, size_t why_size)
{
	uint64_t rate;

	if (!strcmp(value, "0")) {
		c->scrub_rate = 0;
		return 0;
	}
	if (text_parse_size(value, &rate) || rate < CONFIG_SCRUB_MIN || rate > CONFIG_SCRUB_MAX) {
		snprintf(why, why_size, "\"%s\" is neither 0 nor 4K to 1T (bytes a second)", value);
		return -EINVAL;
	}
	c->scrub_rate = rate;
	return 0;
}

static int set_watchdog(struct config *c, const char *value, char *why, size_t why_size)
{
	c->guard = strcmp(value, "none");
	c->watchdog[0] = '\0';
	if (!c->guard || !strcmp(value, "guard"))
		return 0;
	if (value[0] == '/')
		return set_text(c->watchdog, sizeof(c->watchdog), value, why, why_size);
	snprintf(why, why_size, "\"%s\" is none of none, guard, or the path of a watchdog device",
		 value);
	return -EINVAL;
}

/* A datastore to attach, or a disk to serve, from the start on. */
static int add_given(struct config *c, bool is_disk, const char *value, char *why, size_t why_size)
{
	struct config_given *g;

	if (c->given_count == CONFIG_GIVEN_MAX) {
		snprintf(why, why_size, "more than %u datastores and disks", CONFIG_GIVEN_MAX);
		return -EINVAL;
	}
	if (is_disk && !strstr(value, ":/")) {
		snprintf(why, why_size, "\"%s\" names no disk; write DS:/PATH", value);
		return -EINVAL;
	}
	if (!is_disk && value[0] != '/' && strncmp(value, "iscsi://", 8)) {
		snprintf(why, why_size, "\"%s\" is neither an absolute path nor an iSCSI URL", value);
		return -EINVAL;
	}
	g = &c->given[c->given_count++];
	g->is_disk = is_disk;
	return set_text(g->text, sizeof(g->text), value, why, why_size);
}

static int add_portal(struct config *c, const char *value, char *why, size_t why_size)
{
	char portal[EXPORTS_PORTAL_SIZE];

	if (c->iscsi_portal_count == CONFIG_PORTALS_MAX) {
		snprintf(why, why_size, "more than %u portals", CONFIG_PORTALS_MAX);
		return -EINVAL;
	}
	if (exports_portal(value, portal, why, why_size))
		return -EINVAL;
	strcpy(c->iscsi_portals[c->iscsi_portal_count++], portal);
	return 0;
}

/* "9100", on 127.0.0.1, or "[::1]:9100". */
static int set_metrics_port(struct config *c, const char *value, char *why, size_t why_size)
{
	bool is_port = strspn(value, "0123456789") == strlen(value);
	const char *colon = strrchr(value, ':');
	struct sockaddr_storage addr;
	char text[64];

	/* Not the portals' default port, nor one that the kernel chooses. */
	if (!is_port && (!colon || strchr(colon, ']') ||
			 (strchr(value, ':') != colon && value[0] != '['))) {
		snprintf(why, why_size, "\"%s\" is neither PORT nor ADDRESS:PORT", value);
		return -EINVAL;
	}
	snprintf(text, sizeof(text), "%s%.40s", is_port ? "127.0.0.1:" : "", value);
	if (exports_portal(text, c->metrics_port, why, why_size) ||
	    exports_address(c->metrics_port, &addr, why, why_size))
		return -EINVAL;
	if (!strtoul(strrchr(c->metrics_port, ':') + 1, NULL, 10)) {
		snprintf(why, why_size, "\"%s\": a port is 1 to 65535", value);
		return -EINVAL;
	}
	if (exports_is_loopback(&addr))
		return 0;
	snprintf(why, why_size, "\"%s\" is not a loopback address: everybody there could read; let a "
		 "proxy that asks who it is serve others", value);
	return -EINVAL;
}

int config_set(struct config *c, const char *key, const char *value, char *why, size_t why_size)
{
	if (!*value) {
		snprintf(why, why_size, "%s has no value", key);
		return -EINVAL;
	}
	if (!strcmp(key, "run-dir"))
		/* The socket's whole path has to fit into a socket address of 108 bytes. */
		return set_path(c->run_dir, 91, value, why, why_size);
	if (!strcmp(key, "host-name"))
		return set_host_name(c, value, why, why_size);
	if (!strcmp(key, "host-id"))
		return set_host_id(c, value, why, why_size);
	if (!strcmp(key, "user"))
		return set_text(c->user, sizeof(c->user), value, why, why_size);
	if (!strcmp(key, "group"))
		return set_text(c->group, sizeof(c->group), value, why, why_size);
	if (!strcmp(key, "log-level"))
		return set_log_level(c, value, why, why_size);
	if (!strcmp(key, "threads"))
		return set_number(&c->threads, CONFIG_THREADS_MAX, value, why, why_size);
	if (!strcmp(key, "stop-timeout"))
		return set_number(&c->stop_timeout, CONFIG_STOP_MAX, value, why, why_size);
	if (!strcmp(key, "disk-group"))
		return set_text(c->disk_group, sizeof(c->disk_group), value, why, why_size);
	if (!strcmp(key, "reactors"))
		return set_number(&c->reactors, CONFIG_REACTORS_MAX, value, why, why_size);
	if (!strcmp(key, "poll-us"))
		return set_number_from(&c->poll_us, 0, CONFIG_POLL_US_MAX, value, why, why_size);
	if (!strcmp(key, "shares-depth"))
		return set_number(&c->shares_depth, CONFIG_SHARES_DEPTH_MAX, value, why, why_size);
	if (!strcmp(key, "scrub-rate"))
		return set_scrub_rate(c, value, why, why_size);
	if (!strcmp(key, "watchdog"))
		return set_watchdog(c, value, why, why_size);
	if (!strcmp(key, "metrics-port"))
		return set_metrics_port(c, value, why, why_size);
	if (!strcmp(key, "iscsi-portal"))
		return add_portal(c, value, why, why_size);
	if (!strcmp(key, "iscsi-secrets"))
		return set_path(c->iscsi_secrets, sizeof(c->iscsi_secrets), value, why, why_size);
	if (!strcmp(key, "datastore") || !strcmp(key, "disk"))
		return add_given(c, key[1] == 'i', value, why, why_size);
	snprintf(why, why_size, "unknown setting \"%s\"", key);
	return -ENOENT;
}

/* ---- the file ---- */

static int set(void *arg, const char *key, const char *value, char *why, size_t why_size)
{
	return config_set(arg, key, value, why, why_size);
}

int config_read(struct config *c, FILE *in, const char *name, char *why, size_t why_size)
{
	const struct settings s = { .set = set, .arg = c };

	return settings_read(&s, in, name, why, why_size);
}
