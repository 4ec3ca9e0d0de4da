/* SPDX-License-Identifier: Apache-2.0 */
#include "kvm/config.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/settings.h"
#include "base/text.h"

#define DEFAULT_MEMORY	(512ull << 20)

void vm_config_init(struct vm_config *c)
{
	memset(c, 0, sizeof(*c));
	c->memory = DEFAULT_MEMORY;
	c->cpus = 1;
	c->restart = true;
}

bool vm_config_name_is_fine(const char *name)
{
	if (!*name || *name == '.' || *name == '-' || strlen(name) > VM_NAME_MAX)
		return false;
	for (; *name; name++)
		if (!isalnum((unsigned char)*name) && !strchr("-_.", *name))
			return false;
	return true;
}

/* ---- values ---- */

#define REFUSE(...)	text_refuse(-EINVAL, why, why_size, __VA_ARGS__)

static int set_name(struct vm_config *c, const char *value, char *why, size_t why_size)
{
	if (!vm_config_name_is_fine(value))
		return REFUSE("not a name: letters, digits, \"-\", \"_\" and \".\", at most %d of them",
			      VM_NAME_MAX);
	strcpy(c->name, value);
	return 0;
}

static int set_memory(struct vm_config *c, const char *value, char *why, size_t why_size)
{
	uint64_t bytes;

	if (text_parse_size(value, &bytes))
		return REFUSE("not a size, such as 512M");
	if (bytes < VM_MEMORY_MIN || bytes > VM_MEMORY_MAX || bytes % 4096)
		return REFUSE("memory is between 4M and 1T, in multiples of 4K");
	c->memory = bytes;
	return 0;
}

static int set_cpus(struct vm_config *c, const char *value, char *why, size_t why_size)
{
	char *end;
	unsigned long n = strtoul(value, &end, 10);

	if (!isdigit((unsigned char)*value) || *end || !n || n > VM_CPUS_MAX)
		return REFUSE("not a number between 1 and %d", VM_CPUS_MAX);
	c->cpus = (unsigned int)n;
	return 0;
}

/* "/PATH", "DS:/PATH", "unix:…" say where; anything else lies beside the configuration. */
static int set_place(const struct vm_config *c, const char *value, char *to, size_t to_size,
		     char *why, size_t why_size)
{
	bool absolute = *value == '/' || strstr(value, ":/");
	int n;

	if (!*value)
		return REFUSE("no name is given");
	for (const char *s = value; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			return REFUSE("a name with control characters");
	n = absolute || !*c->base ? snprintf(to, to_size, "%s", value) :
	    snprintf(to, to_size, "%s/%s", c->base, value);
	return n < (int)to_size ? 0 : REFUSE("the name is too long");
}

static int set_kernel(struct vm_config *c, const char *value, char *why, size_t why_size)
{
	return set_place(c, value, c->kernel, sizeof(c->kernel), why, why_size);
}

static int set_initrd(struct vm_config *c, const char *value, char *why, size_t why_size)
{
	return set_place(c, value, c->initrd, sizeof(c->initrd), why, why_size);
}

static int set_cmdline(struct vm_config *c, const char *value, char *why, size_t why_size)
{
	if (strlen(value) > VM_CMDLINE_MAX)
		return REFUSE("the command line is longer than %d bytes", VM_CMDLINE_MAX);
	strcpy(c->cmdline, value);
	return 0;
}

static int add_disk(struct vm_config *c, const char *value, char *why, size_t why_size)
{
	struct config_disk d = { 0 };
	const char *comma = strrchr(value, ',');
	char name[PATH_MAX];
	int err;

	if (c->disk_count == VM_DISKS_MAX)
		return REFUSE("more than %d disks", VM_DISKS_MAX);
	if (comma && strcmp(comma, ",ro") && strcmp(comma, ",rw"))
		comma = NULL;	/* a comma of the name itself */
	d.read_only = comma && !strcmp(comma, ",ro");
	if (snprintf(name, sizeof(name), "%.*s", (int)(comma ? comma - value : (long)strlen(value)),
		     value) >= (int)sizeof(name))
		return REFUSE("the name is too long");
	err = set_place(c, name, d.source, sizeof(d.source), why, why_size);
	if (err)
		return err;
	if (d.source[0] == '/' || (!strstr(d.source, ":/")))
		return REFUSE("a disk is DATASTORE:/PATH, with \",ro\" after it if it is only read");
	c->disks[c->disk_count++] = d;
	return 0;
}

static int set_net(struct vm_config *c, const char *value, char *why, size_t why_size)
{
	(void)c;
	return strcmp(value, "none") ? REFUSE("only \"none\": lunvm has no network devices") : 0;
}

static int set_on_reset(struct vm_config *c, const char *value, char *why, size_t why_size)
{
	c->restart = !strcmp(value, "restart");
	return c->restart || !strcmp(value, "exit") ? 0 : REFUSE("neither \"restart\" nor \"exit\"");
}

static int set_autostart(struct vm_config *c, const char *value, char *why, size_t why_size)
{
	c->autostart = !strcmp(value, "yes");
	return c->autostart || !strcmp(value, "no") ? 0 : REFUSE("neither \"yes\" nor \"no\"");
}

static const struct {
	const char *key;
	int (*set)(struct vm_config *c, const char *value, char *why, size_t why_size);
} keys[] = {
	{ "name", set_name }, { "memory", set_memory }, { "cpus", set_cpus },
	{ "kernel", set_kernel }, { "initrd", set_initrd }, { "cmdline", set_cmdline },
	{ "disk", add_disk }, { "net", set_net }, { "on-reset", set_on_reset },
	{ "autostart", set_autostart },
};

static unsigned int find_key(const char *key)
{
	unsigned int i = 0;

	while (i < ARRAY_SIZE(keys) && strcmp(key, keys[i].key))
		i++;
	return i;
}

int vm_config_set(struct vm_config *c, const char *key, const char *value, char *why,
	       size_t why_size)
{
	unsigned int i = find_key(key);

	if (i < ARRAY_SIZE(keys))
		return keys[i].set(c, value, why, why_size);
	return text_refuse(-ENOENT, why, why_size, "unknown setting \"%s\"", key);
}

struct reading {
	struct vm_config *c;
	unsigned int	given;		/* a bit of each of the keys */
};

/* Of two that contradict each other nobody knows which is meant. */
static int set_line(void *arg, const char *key, const char *value, char *why, size_t why_size)
{
	struct reading *r = arg;
	unsigned int i = find_key(key);

	if (i < ARRAY_SIZE(keys) && keys[i].set != add_disk && r->given & 1u << i)
		return REFUSE("\"%s\" is given a second time", key);
	r->given |= i < ARRAY_SIZE(keys) ? 1u << i : 0;
	return vm_config_set(r->c, key, value, why, why_size);
}

int vm_config_read(struct vm_config *c, FILE *in, const char *name, const char *base, char *why,
		size_t why_size)
{
	struct reading r = { .c = c };
	const struct settings s = { .set = set_line, .arg = &r };
	int err;

	if (snprintf(c->base, sizeof(c->base), "%s", base) >= (int)sizeof(c->base))
		return text_refuse(-EINVAL, why, why_size, "%s: the name is too long", name);
	err = settings_read(&s, in, name, why, why_size);
	c->base[0] = '\0';	/* what is set later was typed, and is meant as it is */
	return err;
}

int vm_config_check(const struct vm_config *c, char *why, size_t why_size)
{
	if (!*c->name)
		return REFUSE("the machine has no name; give it one with --name");
	if (!*c->kernel)
		return REFUSE("%s has no kernel; name one with --kernel", c->name);
	for (unsigned int i = 0; i < c->disk_count; i++)
		for (unsigned int j = 0; j < i; j++)
			if (!strcmp(c->disks[i].source, c->disks[j].source))
				return REFUSE("%s has the disk %s twice", c->name,
					      c->disks[i].source);
	return 0;
}
