/* SPDX-License-Identifier: Apache-2.0 */
#include "base/settings.h"

#include <errno.h>
#include <limits.h>

#define LINE_BYTES_MAX	(PATH_MAX + 512)
#define SPACE		" \t"
#define WHAT_SIZE	512

struct position {
	const char *name;
	unsigned int line;
	char	*why;
	size_t	why_size;
};

static int complain(const struct position *at, const char *line, const char *where, int err,
		    const char *what)
{
	snprintf(at->why, at->why_size, "%s:%u:%zu: %s", at->name, at->line,
		 (size_t)(where - line) + 1, what);
	return err == -ENOMEM ? err : -EINVAL;
}

/* Cuts white space off the end of what begins at @start and ends before @end. */
static void trim_end(char *start, char *end)
{
	while (end > start && strchr(SPACE, end[-1]))
		end--;
	*end = '\0';
}

static int read_section(const struct settings *s, char *line, char *name,
			const struct position *at)
{
	char *close = strchr(name, ']'), what[WHAT_SIZE] = "";
	int err;

	if (!close || close[1 + strspn(close + 1, SPACE)])
		return complain(at, line, name - 1, -EINVAL, "expected \"[section]\"");
	if (!s->section)
		return complain(at, line, name - 1, -EINVAL, "there are no sections here");
	name += strspn(name, SPACE);
	trim_end(name, close);
	err = s->section(s->arg, name, at->line, what, sizeof(what));
	return err ? complain(at, line, name, err, what) : 0;
}

static int read_line(const struct settings *s, char *line, const struct position *at)
{
	char *key = line + strspn(line, SPACE);
	char *equals = strchr(key, '=');
	char *value, what[WHAT_SIZE] = "";
	int err;

	if (!*key || *key == '#')
		return 0;
	if (*key == '[')
		return read_section(s, line, key + 1, at);
	if (!equals)
		return complain(at, line, key + strcspn(key, SPACE), -EINVAL,
				"expected \"key = value\"");
	if (equals == key)
		return complain(at, line, key, -EINVAL, "a setting has no name");
	value = equals + 1;
	value += strspn(value, SPACE);
	trim_end(value, value + strlen(value));
	trim_end(key, equals);
	err = s->set(s->arg, key, value, what, sizeof(what));
	if (!err)
		return 0;
	return complain(at, line, err == -ENOENT ? key : value, err, what);
}

int settings_read(const struct settings *s, FILE *in, const char *name, char *why,
		  size_t why_size)
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
			return complain(&at, line, line + len, -EINVAL,
					"the line is too long or holds a NUL");
		if (len && line[len - 1] == '\r')
			line[--len] = '\0';
		err = read_line(s, line, &at);
		if (err)
			return err;
	}
	if (!ferror(in))
		return 0;
	snprintf(why, why_size, "%s: %s", name, strerror(errno));
	return -EIO;
}
