/* SPDX-License-Identifier: Apache-2.0 */
#include "iscsi/config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdlib.h>

#include "base/text.h"
#include "iscsi/negotiate.h"
#include "iscsi/pdu.h"

int tgt_config_create(struct tgt_config **out)
{
	struct tgt_config *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	tgt_limits_default(&c->limits);
	tgt_params_ours(&c->ours);
	c->discovery.algs = TGT_CHAP_ALL;
	c->log_level = LOG_LEVEL_INFO;
	c->poll_us = TGT_POLL_US_DEFAULT;
	strcpy(c->state_dir, TGT_STATE_DIR);
	*out = c;
	return 0;
}

static void free_auth(struct tgt_auth *auth)
{
	if (auth->incoming)
		tgt_secret_forget(auth->incoming,
				  auth->incoming_count * sizeof(*auth->incoming));
	free(auth->incoming);
	tgt_secret_forget(&auth->outgoing, sizeof(auth->outgoing));
}

void tgt_config_destroy(struct tgt_config *config)
{
	if (!config)
		return;
	for (unsigned int i = 0; i < config->target_count; i++) {
		struct tgt_target *t = &config->targets[i];

		free(t->initiators);
		free(t->luns);
		free_auth(&t->auth);
	}
	free(config->targets);
	free_auth(&config->discovery);
	free(config);
}

const struct tgt_target *tgt_config_target(const struct tgt_config *config, const char *iqn)
{
	for (unsigned int i = 0; i < config->target_count; i++)
		if (!strcmp(config->targets[i].iqn, iqn))
			return &config->targets[i];
	return NULL;
}

const struct tgt_initiator *tgt_target_admits(const struct tgt_target *target,
					      const char *initiator)
{
	const struct tgt_initiator *best = NULL;
	size_t best_len = 0;

	for (unsigned int i = 0; i < target->initiator_count; i++) {
		const struct tgt_initiator *entry = &target->initiators[i];
		size_t len = strlen(entry->name);

		if (!strcmp(entry->name, initiator))
			return entry;
		if (entry->name[len - 1] != '*' || strncmp(entry->name, initiator, len - 1) != 0)
			continue;
		if (len > best_len) {
			best = entry;
			best_len = len;
		}
	}
	return best;
}

/* ---- portals ---- */

char *tgt_portal_format(const struct sockaddr_storage *addr, char buf[64])
{
	const struct sockaddr_in *in = (const void *)addr;
	const struct sockaddr_in6 *in6 = (const void *)addr;
	char host[INET6_ADDRSTRLEN] = "?";

	/* A connection to an IPv4 address of a socket for both has a mapped address. */
	if (addr->ss_family == AF_INET6) {
		inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
		snprintf(buf, 64, "[%s]:%u", host, ntohs(in6->sin6_port));
	} else {
		inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
		snprintf(buf, 64, "%s:%u", host, ntohs(in->sin_port));
	}
	return buf;
}

/* "1.2.3.4:5", "[::1]:5", "1.2.3.4", "::1".  Return: false for what is none of these. */
static bool split_portal(const char *text, char *host, size_t host_size, const char **port)
{
	const char *colon = strchr(text, ':'), *start = text;
	size_t len;

	if (text[0] == '[') {
		const char *close = strchr(text, ']');

		if (!close || (close[1] && close[1] != ':'))
			return false;
		start = text + 1;
		len = (size_t)(close - start);
		colon = close[1] ? close + 1 : NULL;
	} else if (colon && strchr(colon + 1, ':')) {
		len = strlen(text);	/* IPv6 without brackets: it has no port */
		colon = NULL;
	} else {
		len = colon ? (size_t)(colon - text) : strlen(text);
	}
	if (!len || len >= host_size)
		return false;
	memcpy(host, start, len);
	host[len] = '\0';
	*port = colon ? colon + 1 : "3260";
	return true;
}

int tgt_config_add_portal(struct tgt_config *config, const char *text, uint16_t group,
			  char *why, size_t why_size)
{
	const struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
					.ai_socktype = SOCK_STREAM };
	struct tgt_portal *p = &config->portals[config->portal_count];
	struct addrinfo *found;
	char host[128];
	const char *port;
	uint64_t number;

	if (config->portal_count == TGT_PORTALS_MAX)
		return text_refuse(-ENOSPC, why, why_size, "more than %d portals", TGT_PORTALS_MAX);
	if (!split_portal(text, host, sizeof(host), &port) ||
	    tgt_value_number(port, strlen(port), &number) || number > 65535 ||
	    getaddrinfo(host, port, &hints, &found))
		return text_refuse(-EINVAL, why, why_size, "\"%s\" is not an address with a port, "
				   "such as 192.0.2.1:3260 or [2001:db8::1]:3260", text);
	memset(p, 0, sizeof(*p));
	memcpy(&p->addr, found->ai_addr, found->ai_addrlen);
	p->group = group;
	freeaddrinfo(found);
	for (unsigned int i = 0; i < config->portal_count; i++)
		if (number && !memcmp(&config->portals[i].addr, &p->addr, sizeof(p->addr)))
			return text_refuse(-EEXIST, why, why_size, "portal %s twice", text);
	config->portal_count++;
	return 0;
}

/* ---- targets and who may use them ---- */

/* Room for one more of @size bytes; arrays grow by doubling.  Return: the new one, zeroed. */
static void *grow(void **array, unsigned int count, size_t size)
{
	char *bigger = *array;

	/* At each power of two, where the array is full. */
	if (!(count & (count - 1))) {
		bigger = reallocarray(*array, count ? 2 * count : 1, size);
		if (!bigger)
			return NULL;
		*array = bigger;
	}
	memset(bigger + count * size, 0, size);
	return bigger + count * size;
}

int tgt_config_add_target(struct tgt_config *config, const char *iqn, struct tgt_target **out,
			  char *why, size_t why_size)
{
	struct tgt_target *t;

	if (!tgt_name_is_valid(iqn))
		return text_refuse(-EINVAL, why, why_size, "\"%s\" is not an iSCSI name, such as "
				   TGT_DEFAULT_IQN ":disk1", iqn);
	if (tgt_config_target(config, iqn))
		return text_refuse(-EEXIST, why, why_size, "target %s twice", iqn);
	if (config->target_count == TGT_TARGETS_MAX)
		return text_refuse(-ENOSPC, why, why_size, "more than %d targets", TGT_TARGETS_MAX);
	t = grow((void **)&config->targets, config->target_count, sizeof(*t));
	if (!t)
		return text_refuse(-ENOMEM, why, why_size, "out of memory");
	config->target_count++;
	strcpy(t->iqn, iqn);
	t->auth.algs = TGT_CHAP_ALL;
	*out = t;
	return 0;
}

int tgt_target_add_initiator(struct tgt_target *target, const char *name, const char *user,
			     char *why, size_t why_size)
{
	struct tgt_initiator *entry;
	const char *star = strchr(name, '*');
	size_t len = strlen(name);
	char normal[SCSI_NAME_MAX];

	snprintf(normal, sizeof(normal), "%s", name);
	/* "*" alone, or the beginning of a name with a star behind it, or a name. */
	if (len >= sizeof(normal) || (star && star[1]) ||
	    (!tgt_name_normalize(normal) && strcmp(name, "*") != 0))
		return text_refuse(-EINVAL, why, why_size, "\"%s\" is not an iSCSI name; a '*' "
				   "stands for anything, at the end", name);
	if (user && strlen(user) >= sizeof(entry->user))
		return text_refuse(-EINVAL, why, why_size, "the CHAP user's name is too long");
	if (target->initiator_count == TGT_INITIATORS_MAX)
		return text_refuse(-ENOSPC, why, why_size, "more than %d initiators",
				   TGT_INITIATORS_MAX);
	entry = grow((void **)&target->initiators, target->initiator_count, sizeof(*entry));
	if (!entry)
		return text_refuse(-ENOMEM, why, why_size, "out of memory");
	strcpy(entry->name, normal);
	if (user)
		strcpy(entry->user, user);
	target->initiator_count++;
	return 0;
}

/* ---- logical units ---- */

static int lun_number(const char *value, unsigned int max, unsigned int *out)
{
	uint64_t n;

	if (tgt_value_number(value, strlen(value), &n) || n > max)
		return -EINVAL;
	*out = (unsigned int)n;
	return 0;
}

static int lun_flag(struct tgt_lun *lun, const char *name)
{
	static const struct { const char *name; unsigned int flag; } flags[] = {
		{ "read-only", TGT_LUN_READ_ONLY }, { "thick", TGT_LUN_THICK },
		{ "write-through", TGT_LUN_WRITE_THROUGH }, { "removable", TGT_LUN_REMOVABLE },
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(flags); i++) {
		if (strcmp(flags[i].name, name))
			continue;
		lun->flags |= flags[i].flag;
		return 0;
	}
	return -ENOENT;
}

static int lun_option(struct tgt_lun *lun, char *option, bool *numbered, char *why,
		      size_t why_size)
{
	char *value = strchr(option, '=');
	int err;

	if (value)
		*value++ = '\0';
	if (!value) {
		err = lun_flag(lun, option);
	} else if (!strcmp(option, "lun")) {
		err = lun_number(value, SCSI_LUNS_MAX - 1, &lun->number);
		*numbered = true;
	} else if (!strcmp(option, "block-size")) {
		err = lun_number(value, 4096, &lun->block_size);
		if (lun->block_size != 512 && lun->block_size != 4096)
			err = -EINVAL;
	} else if (!strcmp(option, "physical-block")) {
		err = lun_number(value, 4096, &lun->physical_block_size);
		if (lun->physical_block_size != 512 && lun->physical_block_size != 4096)
			err = -EINVAL;
	} else if (!strcmp(option, "size")) {
		err = text_parse_size(value, &lun->create_size);
	} else if (!strcmp(option, "sanitize-rate")) {
		err = text_parse_size(value, &lun->sanitize_bps);
	} else {
		err = -ENOENT;
	}
	if (err == -ENOENT)
		return text_refuse(-EINVAL, why, why_size, "unknown option \"%s\"", option);
	if (err)
		return text_refuse(-EINVAL, why, why_size, "%s cannot be \"%s\"", option, value);
	return 0;
}

static int parse_lun(struct tgt_lun *lun, char *text, bool *numbered, char *why, size_t why_size)
{
	char *save, *path = strtok_r(text, ",", &save), *option;
	int err = 0;

	if (!path || path[0] != '/')
		return text_refuse(-EINVAL, why, why_size, "\"%s\" is not an absolute path",
				   path ? path : "");
	if (strlen(path) >= sizeof(lun->path))
		return text_refuse(-EINVAL, why, why_size, "the path is too long");
	strcpy(lun->path, path);
	while (!err && (option = strtok_r(NULL, ",", &save)))
		err = lun_option(lun, option, numbered, why, why_size);
	if (!err && lun->create_size % lun->block_size)
		return text_refuse(-EINVAL, why, why_size, "the size is no multiple of %u bytes",
				   lun->block_size);
	return err;
}

int tgt_target_add_lun(struct tgt_target *target, const struct tgt_lun *preset, const char *text,
		       char *why, size_t why_size)
{
	struct tgt_lun lun = *preset, *slot;
	char copy[PATH_MAX + 256];
	bool numbered = false;
	unsigned int at;
	int err;

	if (strlen(text) >= sizeof(copy))
		return text_refuse(-EINVAL, why, why_size, "too long");
	strcpy(copy, text);
	err = parse_lun(&lun, copy, &numbered, why, why_size);
	if (err)
		return err;
	at = target->lun_count;
	if (!numbered)
		lun.number = at ? target->luns[at - 1].number + 1 : 0;
	while (at && target->luns[at - 1].number > lun.number)
		at--;
	if (lun.number >= SCSI_LUNS_MAX || (at && target->luns[at - 1].number == lun.number))
		return text_refuse(-EEXIST, why, why_size, "there cannot be another LUN %u",
				   lun.number);
	slot = grow((void **)&target->luns, target->lun_count, sizeof(*slot));
	if (!slot)
		return text_refuse(-ENOMEM, why, why_size, "out of memory");
	memmove(target->luns + at + 1, target->luns + at,
		(target->lun_count - at) * sizeof(*slot));
	target->luns[at] = lun;
	target->lun_count++;
	return 0;
}

/* ---- the whole ---- */

/* Two logical units on one file would each believe that its reservations protect it. */
static const char *path_used_before(const struct tgt_config *config, unsigned int target,
				    unsigned int lun)
{
	const char *path = config->targets[target].luns[lun].path;

	for (unsigned int i = 0; i <= target; i++) {
		const struct tgt_target *t = &config->targets[i];

		for (unsigned int n = 0; n < (i == target ? lun : t->lun_count); n++)
			if (!strcmp(t->luns[n].path, path))
				return path;
	}
	return NULL;
}

/* A user that the list names and the secrets do not could never come: a mistyped name. */
static const char *missing_user(const struct tgt_target *t)
{
	for (unsigned int i = 0; i < t->initiator_count; i++) {
		const char *user = t->initiators[i].user;
		bool found = !*user;

		for (unsigned int n = 0; n < t->auth.incoming_count && !found; n++)
			found = !strcmp(user, t->auth.incoming[n].name);
		if (!found)
			return user;
	}
	return NULL;
}

int tgt_config_check(const struct tgt_config *config, char *why, size_t why_size)
{
	const char *path, *user;

	if (!config->portal_count)
		return text_refuse(-EINVAL, why, why_size,
				   "there is no portal: where to listen is never guessed");
	if (!config->target_count)
		return text_refuse(-EINVAL, why, why_size, "there is no target");
	for (unsigned int i = 0; i < config->target_count; i++) {
		const struct tgt_target *t = &config->targets[i];

		if (!t->initiator_count)
			return text_refuse(-EINVAL, why, why_size, "target %s: nobody may use it; "
					   "name initiators, or \"initiator = *\"", t->iqn);
		user = missing_user(t);
		if (user)
			return text_refuse(-EINVAL, why, why_size, "target %s: there is no secret "
					   "for CHAP user \"%s\"", t->iqn, user);
		for (unsigned int n = 0; n < t->lun_count; n++) {
			path = path_used_before(config, i, n);
			if (path)
				return text_refuse(-EINVAL, why, why_size,
						   "%s: serves two logical units", path);
		}
	}
	return 0;
}
