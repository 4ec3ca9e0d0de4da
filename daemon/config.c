/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/config.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>

#include "base/text.h"

#define LINE_BYTES_MAX	(PATH_MAX + 256)
#define SPACE		" \t"
#define WHAT_SIZE	512

void config_init(struct config *c)
{
	memset(c, 0, sizeof(*c));
	snprintf(c->run_dir, sizeof(c->run_dir), "%s", CONFIG_DEFAULT_RUN_DIR);
	c->log_level = LOG_LEVEL_INFO;
	c->stop_timeout = CONFIG_STOP_DEFAULT;
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

static int set_run_dir(struct config *c, const char *value, char *why, size_t why_size)
{
	if (value[0] != '/') {
		snprintf(why, why_size, "\"%s\" is not an absolute path", value);
		return -EINVAL;
	}
	/* The socket's whole path has to fit into a socket address of 108 bytes. */
	return set_text(c->run_dir, 91, value, why, why_size);
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

static int set_number(unsigned int *to, unsigned int max, const char *value, char *why,
		      size_t why_size)
{
	char *end;
	unsigned long n = strtoul(value, &end, 10);

	if (!isdigit((unsigned char)value[0]) || *end || n < 1 || n > max) {
		snprintf(why, why_size, "\"%s\" is not a number from 1 to %u", value, max);
		return -EINVAL;
	}
	*to = (unsigned int)n;
	return 0;
}

int config_set(struct config *c, const char *key, const char *value, char *why, size_t why_size)
{
	if (!*value) {
		snprintf(why, why_size, "%s has no value", key);
		return -EINVAL;
	}
	if (!strcmp(key, "run-dir"))
		return set_run_dir(c, value, why, why_size);
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
	snprintf(why, why_size, "unknown setting \"%s\"", key);
	return -ENOENT;
}

/* ---- the file ---- */

struct position {
	const char *name;
	unsigned int line;
	char	*why;
	size_t	why_size;
};

static int complain(const struct position *at, const char *line, const char *where,
		    const char *what)
{
	snprintf(at->why, at->why_size, "%s:%u:%zu: %s", at->name, at->line,
		 (size_t)(where - line) + 1, what);
	return -EINVAL;
}

/* Cuts white space off the end of what begins at @start and ends before @end. */
static void trim_end(char *start, char *end)
{
	while (end > start && strchr(SPACE, end[-1]))
		end--;
	*end = '\0';
}

static int read_line(struct config *c, char *line, const struct position *at)
{
	char *key = line + strspn(line, SPACE);
	char *equals = strchr(key, '=');
	char *value, what[WHAT_SIZE];
	int err;

	if (!*key || *key == '#')
		return 0;
	if (!equals)
		return complain(at, line, key + strcspn(key, SPACE), "expected \"key = value\"");
	if (equals == key)
		return complain(at, line, key, "a setting has no name");
	value = equals + 1;
	value += strspn(value, SPACE);
	trim_end(value, value + strlen(value));
	trim_end(key, equals);
	err = config_set(c, key, value, what, sizeof(what));
	if (!err)
		return 0;
	return complain(at, line, err == -ENOENT ? key : value, what);
}

int config_read(struct config *c, FILE *in, const char *name, char *why, size_t why_size)
{
	struct position at = { name, 0, why, why_size };
	char line[LINE_BYTES_MAX];

	while (fgets(line, sizeof(line), in)) {
		size_t len = strlen(line);
		int err;

		at.line++;
		if (len && line[len - 1] == '\n')
			line[--len] = '\0';
		else if (!feof(in))
			return complain(&at, line, line + len, "the line is too long or holds a NUL");
		err = read_line(c, line, &at);
		if (err)
			return err;
	}
	if (!ferror(in))
		return 0;
	snprintf(why, why_size, "%s: %s", name, strerror(errno));
	return -EIO;
}
