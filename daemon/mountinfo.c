/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/mountinfo.h"

#include <errno.h>
#include <stdlib.h>

#define FIELDS_MAX	64

struct entry {
	unsigned int major, minor;
	const char *dir;
	const char *type;
};

/* The kernel writes space, tab, newline and backslash as \ and three octal digits. */
static void unescape(char *s)
{
	char *to = s;

	while (*s) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
		    s[3] >= '0' && s[3] <= '7') {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
			s += 4;
		} else {
			*to++ = *s++;
		}
	}
	*to = '\0';
}

/* "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue" */
static bool parse_entry(char *line, struct entry *e)
{
	char *field[FIELDS_MAX], *save = NULL;
	unsigned int count = 0;

	for (char *p = strtok_r(line, " \n", &save); p && count < FIELDS_MAX;
	     p = strtok_r(NULL, " \n", &save))
		field[count++] = p;
	if (count < 8 || sscanf(field[2], "%u:%u", &e->major, &e->minor) != 2)
		return false;
	unescape(field[4]);
	e->dir = field[4];
	for (unsigned int i = 6; i + 1 < count; i++) {
		if (strcmp(field[i], "-"))
			continue;
		e->type = field[i + 1];
		return true;
	}
	return false;
}

int mountinfo_find(FILE *in, const char *dir, uint32_t *minor)
{
	char *line = NULL;
	size_t size = 0;
	int found = -ENOENT;

	/* In the order of mounting: the last one is on top. */
	while (getline(&line, &size, in) > 0) {
		struct entry e;

		if (!parse_entry(line, &e) || strcmp(e.dir, dir))
			continue;
		found = strcmp(e.type, MOUNT_TYPE) ? -EMEDIUMTYPE : 0;
		*minor = e.minor;
	}
	/* Half a table would show what lies beneath as what lies on top. */
	if (!feof(in))
		found = ferror(in) ? -EIO : -ENOMEM;
	free(line);
	return found;
}

int mountinfo_find_now(const char *dir, uint32_t *minor)
{
	FILE *in = fopen("/proc/self/mountinfo", "re");
	int found;

	if (!in)
		return -errno;
	found = mountinfo_find(in, dir, minor);
	fclose(in);
	return found;
}

int mountinfo_where(FILE *in, const char *dir, uint32_t minor, char where[PATH_MAX])
{
	char *line = NULL;
	size_t size = 0;
	int found = 0;

	while (!found && getline(&line, &size, in) > 0) {
		struct entry e;

		found = parse_entry(line, &e) && e.minor == minor && !strcmp(e.type, MOUNT_TYPE) &&
			(!dir || !strcmp(e.dir, dir));
		if (found)
			snprintf(where, PATH_MAX, "%s", e.dir);
	}
	if (!found && !feof(in))
		found = ferror(in) ? -EIO : -ENOMEM;
	free(line);
	return found;
}

int mountinfo_has_minor(const char *dir, uint32_t minor)
{
	FILE *in = fopen("/proc/self/mountinfo", "re");
	char where[PATH_MAX];
	int found;

	if (!in)
		return -errno;
	found = mountinfo_where(in, dir, minor, where);
	fclose(in);
	return found;
}
