/* SPDX-License-Identifier: Apache-2.0 */
/* The file of lunfs-target.conf(5), and the files of secrets that it names. */
#include <errno.h>
#include <stdlib.h>

#include "base/settings.h"
#include "base/text.h"
#include "iscsi/config.h"

#define SPACE	" \t"

struct reading {
	struct tgt_config *config;
	struct tgt_target *target;	/* of the section; NULL: none */
	bool	discovery;		/* it is [discovery] */
};

static int set_number(unsigned int *to, unsigned int low, unsigned int high, unsigned int unit,
		      const char *value, char *why, size_t why_size)
{
	uint64_t n;

	if (tgt_value_number(value, strlen(value), &n) || n < low || n > high)
		return text_refuse(-EINVAL, why, why_size, "\"%s\" is not a number from %u to %u",
				   value, low, high);
	*to = (unsigned int)n * unit;
	return 0;
}

static int set_path(char *to, size_t size, const char *value, char *why, size_t why_size)
{
	if (value[0] != '/' || strlen(value) >= size)
		return text_refuse(-EINVAL, why, why_size,
				   "\"%.100s\" is not an absolute path, or too long", value);
	strcpy(to, value);
	return 0;
}

/* ---- settings of the whole ---- */

static int add_portal(struct tgt_config *c, const char *value, char *why, size_t why_size)
{
	char copy[192], *group;
	unsigned int number = 1;

	if (strlen(value) >= sizeof(copy))
		return text_refuse(-EINVAL, why, why_size, "too long");
	strcpy(copy, value);
	group = copy + strcspn(copy, SPACE);
	if (*group) {
		*group++ = '\0';
		group += strspn(group, SPACE);
		if (set_number(&number, 1, 65535, 1, group, why, why_size))
			return -EINVAL;
	}
	return tgt_config_add_portal(c, copy, (uint16_t)number, why, why_size);
}

static int set_log_level(struct tgt_config *c, const char *value, char *why, size_t why_size)
{
	static const char *const names[] = { "error", "warning", "info", "debug" };

	for (unsigned int i = 0; i < ARRAY_SIZE(names); i++) {
		if (strcmp(value, names[i]))
			continue;
		c->log_level = (enum log_level)i;
		return 0;
	}
	return text_refuse(-EINVAL, why, why_size,
			   "\"%s\" is none of error, warning, info, debug", value);
}

static int set_memory(struct tgt_config *c, const char *value, char *why, size_t why_size)
{
	uint64_t bytes;

	if (text_parse_size(value, &bytes) || bytes < 16 * MIB || bytes > TIB)
		return text_refuse(-EINVAL, why, why_size, "\"%s\" is not a size from 16M to 1T",
				   value);
	c->limits.memory_max = bytes;
	return 0;
}

static const struct {
	const char *name;
	size_t off;		/* of an unsigned int in struct tgt_config */
	unsigned int low, high, unit;
} numbers[] = {
#define LIMIT(f) offsetof(struct tgt_config, limits.f)
	{ "reactors", offsetof(struct tgt_config, reactors), 1, TGT_REACTORS_MAX, 1 },
	{ "poll-us", offsetof(struct tgt_config, poll_us), 0, 1000000, 1 },
	{ "max-connections", LIMIT(connections_max), 1, 65536, 1 },
	{ "max-connections-per-address", LIMIT(connections_address_max), 1, 65536, 1 },
	{ "max-connections-per-session", LIMIT(session_connections_max), 1, 64, 1 },
	{ "max-sessions", LIMIT(sessions_max), 1, 65535, 1 },
	{ "max-logins", LIMIT(half_open_max), 1, 65536, 1 },
	{ "max-logins-per-address", LIMIT(half_open_address_max), 1, 65536, 1 },
	{ "login-timeout", LIMIT(login_timeout_ms), 1, 3600, 1000 },
	{ "nop-interval", LIMIT(nop_interval_ms), 0, 3600, 1000 },
	{ "nop-timeout", LIMIT(nop_timeout_ms), 1, 3600, 1000 },
	{ "queue-depth", LIMIT(commands_max), 1, 4096, 1 },
#undef LIMIT
};

static int set_whole(struct tgt_config *c, const char *key, const char *value, char *why,
		     size_t why_size)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(numbers); i++)
		if (!strcmp(key, numbers[i].name))
			return set_number((unsigned int *)(void *)((char *)c + numbers[i].off),
					  numbers[i].low, numbers[i].high, numbers[i].unit, value,
					  why, why_size);
	if (!strcmp(key, "portal"))
		return add_portal(c, value, why, why_size);
	if (!strcmp(key, "state-dir"))
		return set_path(c->state_dir, sizeof(c->state_dir), value, why, why_size);
	if (!strcmp(key, "log-level"))
		return set_log_level(c, value, why, why_size);
	if (!strcmp(key, "memory"))
		return set_memory(c, value, why, why_size);
	if (strcmp(key, "user"))
		return text_refuse(-ENOENT, why, why_size, "unknown setting \"%s\"", key);
	if (strlen(value) >= sizeof(c->user))
		return text_refuse(-EINVAL, why, why_size, "too long");
	strcpy(c->user, value);
	return 0;
}

/* ---- settings of a target ---- */

static int set_algs(struct tgt_auth *auth, const char *value, char *why, size_t why_size)
{
	static const struct { const char *name; enum tgt_chap_alg alg; } algs[] = {
		{ "md5", TGT_CHAP_MD5 }, { "sha1", TGT_CHAP_SHA1 }, { "sha256", TGT_CHAP_SHA256 },
		{ "sha3-256", TGT_CHAP_SHA3_256 },
	};
	char copy[128], *save, *word;
	unsigned int mask = 0;

	snprintf(copy, sizeof(copy), "%s", value);
	for (word = strtok_r(copy, ", \t", &save); word; word = strtok_r(NULL, ", \t", &save)) {
		unsigned int i = 0;

		while (i < ARRAY_SIZE(algs) && strcmp(algs[i].name, word))
			i++;
		if (i == ARRAY_SIZE(algs))
			return text_refuse(-EINVAL, why, why_size,
					   "\"%s\" is none of md5, sha1, sha256, sha3-256", word);
		mask |= 1u << algs[i].alg;
	}
	if (!mask)
		return text_refuse(-EINVAL, why, why_size, "no algorithm");
	auth->algs = mask;
	return 0;
}

static int set_auth(struct tgt_auth *auth, const char *key, const char *value, char *why,
		    size_t why_size)
{
	if (!strcmp(key, "chap-algorithms"))
		return set_algs(auth, value, why, why_size);
	if (strcmp(key, "secrets"))
		return text_refuse(-ENOENT, why, why_size,
				   "\"%s\" is no setting of this section", key);
	auth->required = true;
	return set_path(auth->path, sizeof(auth->path), value, why, why_size);
}

static int add_initiator(struct tgt_target *t, const char *value, char *why, size_t why_size)
{
	char copy[SCSI_NAME_MAX + TGT_VALUE_MAX + 8], *user;

	if (strlen(value) >= sizeof(copy))
		return text_refuse(-EINVAL, why, why_size, "too long");
	strcpy(copy, value);
	user = copy + strcspn(copy, SPACE);
	if (*user) {
		*user++ = '\0';
		user += strspn(user, SPACE);
	}
	return tgt_target_add_initiator(t, copy, *user ? user : NULL, why, why_size);
}

static int set_target(struct tgt_target *t, const char *key, const char *value, char *why,
		      size_t why_size)
{
	static const struct tgt_lun preset = { .block_size = 512 };

	if (!strcmp(key, "lun"))
		return tgt_target_add_lun(t, &preset, value, why, why_size);
	if (!strcmp(key, "initiator"))
		return add_initiator(t, value, why, why_size);
	if (strcmp(key, "alias"))
		return set_auth(&t->auth, key, value, why, why_size);
	if (strlen(value) >= sizeof(t->alias))
		return text_refuse(-EINVAL, why, why_size, "longer than %d bytes", TGT_VALUE_MAX);
	strcpy(t->alias, value);
	return 0;
}

static int set(void *arg, const char *key, const char *value, char *why, size_t why_size)
{
	struct reading *r = arg;

	for (const char *p = value; *p; p++)
		if ((unsigned char)*p < 0x20 && *p != '\t')
			return text_refuse(-EINVAL, why, why_size, "control characters");
	if (!*value)
		return text_refuse(-EINVAL, why, why_size, "%s has no value", key);
	if (r->target)
		return set_target(r->target, key, value, why, why_size);
	if (r->discovery)
		return set_auth(&r->config->discovery, key, value, why, why_size);
	return set_whole(r->config, key, value, why, why_size);
}

static int section(void *arg, const char *name, unsigned int line, char *why, size_t why_size)
{
	struct reading *r = arg;
	int err;

	r->target = NULL;
	r->discovery = !strcmp(name, "discovery");
	if (r->discovery)
		return 0;
	if (strncmp(name, "target", 6) != 0 || !name[6] || !strchr(SPACE, name[6]))
		return text_refuse(-EINVAL, why, why_size,
				   "\"%s\" is neither \"discovery\" nor \"target NAME\"", name);
	name += 6;
	name += strspn(name, SPACE);
	err = tgt_config_add_target(r->config, name, &r->target, why, why_size);
	if (!err)
		r->target->line = line;
	return err;
}

int tgt_config_read(struct tgt_config *config, FILE *in, const char *name, char *why,
		    size_t why_size)
{
	struct reading r = { .config = config };
	const struct settings s = { .section = section, .set = set, .arg = &r };
	int err = settings_read(&s, in, name, why, why_size);

	config->ours.connections_max = (uint16_t)config->limits.session_connections_max;
	return err;
}

/* ---- secrets ---- */

/* "USER SECRET": both not empty. */
static int split_secret(char *line, char **user, char **secret)
{
	*user = line + strspn(line, SPACE);
	*secret = *user + strcspn(*user, SPACE);
	if (!**user || !**secret)
		return -EINVAL;
	*(*secret)++ = '\0';
	*secret += strspn(*secret, SPACE);
	return **secret ? 0 : -EINVAL;
}

/* The reason never holds what was read: it goes to a log. */
static const char *fill_user(struct tgt_user *u, const char *name, const char *secret)
{
	size_t len = strlen(secret);

	if (strlen(name) >= sizeof(u->name))
		return "the user's name is too long";
	if (len < TGT_CHAP_SECRET_MIN)
		return "the secret has fewer than 12 characters";
	if (len > TGT_CHAP_SECRET_MAX)
		return "the secret has more than 255 characters";
	strcpy(u->name, name);
	u->secret.len = len;
	memcpy(u->secret.bytes, secret, len);
	return NULL;
}

static bool secrets_equal(const struct tgt_secret *a, const struct tgt_secret *b)
{
	return a->len == b->len && !memcmp(a->bytes, b->bytes, a->len);
}

static const char *add_user(struct tgt_auth *auth, const char *name, const char *secret)
{
	struct tgt_user *bigger;

	for (unsigned int i = 0; i < auth->incoming_count; i++)
		if (!strcmp(auth->incoming[i].name, name))
			return "the user is there already";
	if (auth->incoming_count == TGT_USERS_MAX)
		return "too many users";
	/* Not realloc(): it would leave secrets behind in what it frees. */
	bigger = calloc(auth->incoming_count + 1, sizeof(*bigger));
	if (!bigger)
		return "out of memory";
	if (auth->incoming_count) {
		memcpy(bigger, auth->incoming, auth->incoming_count * sizeof(*bigger));
		tgt_secret_forget(auth->incoming, auth->incoming_count * sizeof(*bigger));
		free(auth->incoming);
	}
	auth->incoming = bigger;
	return fill_user(&bigger[auth->incoming_count++], name, secret);
}

static const char *take_secret(struct tgt_auth *auth, char *line)
{
	char *word = line + strspn(line, SPACE), *rest = word + strcspn(word, SPACE);
	char *user, *secret;

	if (*rest)
		*rest++ = '\0';
	if (split_secret(rest, &user, &secret))
		return "expected \"incoming USER SECRET\" or \"outgoing USER SECRET\"";
	if (!strcmp(word, "incoming"))
		return add_user(auth, user, secret);
	if (strcmp(word, "outgoing"))
		return "expected \"incoming USER SECRET\" or \"outgoing USER SECRET\"";
	if (auth->mutual)
		return "a second outgoing secret";
	auth->mutual = true;
	return fill_user(&auth->outgoing, user, secret);
}

static const char *check_secrets(const struct tgt_auth *auth)
{
	if (!auth->incoming_count)
		return "there is no incoming secret: nobody could log in";
	/* RFC 7143, 9.2.1: or what one side computes would serve to impersonate the other. */
	for (unsigned int i = 0; i < auth->incoming_count && auth->mutual; i++)
		if (secrets_equal(&auth->incoming[i].secret, &auth->outgoing.secret))
			return "the outgoing secret is an incoming one too: they must differ";
	return NULL;
}

int tgt_auth_read_secrets(struct tgt_auth *auth, FILE *in, const char *name, char *why,
			  size_t why_size)
{
	char line[2 * TGT_VALUE_MAX + 256];
	unsigned int number = 0;
	const char *wrong = NULL;

	while (!wrong && fgets(line, sizeof(line), in)) {
		size_t len = strlen(line), start = strspn(line, SPACE);

		number++;
		if (len && line[len - 1] == '\n')
			line[--len] = '\0';
		else if (!feof(in))
			wrong = "the line is too long or holds a NUL";
		if (!wrong && line[start] && line[start] != '#')
			wrong = take_secret(auth, line);
	}
	tgt_secret_forget(line, sizeof(line));
	if (wrong)
		return text_refuse(-EINVAL, why, why_size, "%s:%u: %s", name, number, wrong);
	if (ferror(in))
		return text_refuse(-EIO, why, why_size, "%s: %s", name, strerror(errno));
	wrong = check_secrets(auth);
	return wrong ? text_refuse(-EINVAL, why, why_size, "%s: %s", name, wrong) : 0;
}
