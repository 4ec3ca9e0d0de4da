/* SPDX-License-Identifier: Apache-2.0 */
/* Names of iSCSI LUNs, and what this machine knows beside them. */
#include "block/blkiscsi.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/machine.h"
#include "base/text.h"

#define SCHEME		"iscsi://"
#define URL_SIZE	2048
#define DEFAULT_PORT	"3260"
#define LUN_MAX		16383u	/* flat space addressing, SAM-5 */
#define SECONDS_MAX	3600u
#define TIMEOUT_MS	30000u
#define DEAD_MS		5000u
#define LOGIN_MS	5000u
#define CHAP_LINE_MAX	512

bool blkiscsi_is_url(const char *name)
{
	return !strncmp(name, SCHEME, strlen(SCHEME));
}

/* ---- the URL ---- */

static int put(char *to, size_t size, const char *from, size_t len)
{
	if (!len || len >= size)
		return -EINVAL;
	memcpy(to, from, len);
	to[len] = '\0';
	return 0;
}

/* HOST, HOST:PORT, [IPV6] or [IPV6]:PORT, always stored with its port. */
static int add_portal(struct blkiscsi_target *t, const char *text)
{
	const char *end = text[0] == '[' ? strchr(text, ']') : text + strcspn(text, ":");
	const char *port;
	unsigned long n;
	char *rest;

	if (!end || t->portal_count == BLKISCSI_PORTALS_MAX)
		return -EINVAL;
	if (text[0] == '[')
		end++;
	if (end - text < (text[0] == '[' ? 3 : 1) || (*end && *end != ':'))
		return -EINVAL;
	port = *end ? end + 1 : DEFAULT_PORT;
	n = strtoul(port, &rest, 10);
	if (!isdigit((unsigned char)port[0]) || *rest || !n || n > 65535)
		return -EINVAL;
	for (const char *p = text; p < end; p++)
		if (!isalnum((unsigned char)*p) && !strchr("-._:[]%", *p))
			return -EINVAL;
	if (end - text > BLKISCSI_PORTAL_SIZE - 8)
		return -EINVAL;
	snprintf(t->portals[t->portal_count++], BLKISCSI_PORTAL_SIZE, "%.*s:%lu",
		 (int)(end - text), text, n);
	return 0;
}

static int set_seconds(uint32_t *ms, const char *value)
{
	char *rest;
	unsigned long n = strtoul(value, &rest, 10);

	if (!isdigit((unsigned char)value[0]) || *rest || !n || n > SECONDS_MAX)
		return -EINVAL;
	*ms = (uint32_t)n * 1000;
	return 0;
}

/* One of two words.  Return: 0 the first, 1 the second, or -EINVAL. */
static int choose(const char *value, const char *first, const char *second)
{
	return !strcmp(value, first) ? 0 : !strcmp(value, second) ? 1 : -EINVAL;
}

/* RFC 7143, 4.2.7: lower-case letters, digits, '-', '.', ':'; others come from real targets. */
static bool name_is_good(const char *s)
{
	if (strncmp(s, "iqn.", 4) && strncmp(s, "eui.", 4) && strncmp(s, "naa.", 4))
		return false;
	for (; *s; s++)
		if (!isalnum((unsigned char)*s) && !strchr("-.:_", *s))
			return false;
	return true;
}

static int set_param(struct blkiscsi_target *t, const char *name, const char *value, char *why,
		     size_t why_size)
{
	int n;

	if (!strcmp(name, "portal"))
		return add_portal(t, value);
	if (!strcmp(name, "chap-file"))
		return value[0] == '/' ? put(t->chap_file, sizeof(t->chap_file), value,
					     strlen(value)) : -EINVAL;
	if (!strcmp(name, "initiator"))
		return name_is_good(value) ? put(t->initiator, sizeof(t->initiator), value,
						 strlen(value)) : -EINVAL;
	if (!strcmp(name, "timeout"))
		return set_seconds(&t->timeout_ms, value);
	if (!strcmp(name, "path-timeout"))
		return set_seconds(&t->dead_ms, value);
	if (!strcmp(name, "login-timeout"))
		return set_seconds(&t->login_ms, value);
	if (!strcmp(name, "header-digest")) {
		n = choose(value, "none", "crc32c");
		t->header_digest = n == 1;
		return n < 0 ? n : 0;
	}
	if (!strcmp(name, "durable")) {
		n = choose(value, "write", "flush");
		t->durable = n == 1 ? BLKISCSI_DURABLE_FLUSH : BLKISCSI_DURABLE_WRITE;
		return n < 0 ? n : 0;
	}
	if (!strcmp(name, "reservations")) {
		n = choose(value, "yes", "no");
		t->no_reservations = n == 1;
		return n < 0 ? n : 0;
	}
	if (!strcmp(name, "data-digest")) {
		if (!strcmp(value, "none"))
			return 0;
		return text_refuse(-EOPNOTSUPP, why, why_size, "%s: data digests are not to be had: "
				   "this libiscsi has none; header-digest=crc32c it has", t->name);
	}
	return text_refuse(-ENOENT, why, why_size, "%s: unknown parameter \"%.40s\"; "
			   "lunfs-iscsi(7) lists them", t->name, name);
}

static int set_params(struct blkiscsi_target *t, char *params, char *why, size_t why_size)
{
	char *save = NULL;

	for (char *p = strtok_r(params, "&", &save); p; p = strtok_r(NULL, "&", &save)) {
		char *value = strchr(p, '=');
		int err = -EINVAL;

		if (value) {
			*value++ = '\0';
			err = set_param(t, p, value, why, why_size);
		}
		if (err == -EINVAL)
			return text_refuse(err, why, why_size, "%s: parameter \"%.40s\" has no value "
					   "that it could have", t->name, p);
		if (err)
			return -EINVAL;
	}
	return 0;
}

static int parse_path(struct blkiscsi_target *t, const char *path)
{
	const char *slash = path ? strchr(path, '/') : NULL;
	unsigned long lun;
	char *rest;

	if (!slash || put(t->iqn, sizeof(t->iqn), path, (size_t)(slash - path)) ||
	    !name_is_good(t->iqn))
		return -EINVAL;
	lun = strtoul(slash + 1, &rest, 10);
	if (!isdigit((unsigned char)slash[1]) || *rest || lun > LUN_MAX)
		return -EINVAL;
	t->lun = (uint32_t)lun;
	return 0;
}

/* "user@host:port"; a '%' before the '@' begins a secret. */
static int parse_authority(struct blkiscsi_target *t, char *text, char *why, size_t why_size)
{
	char *at = strrchr(text, '@');

	if (!at)
		return add_portal(t, text);
	*at = '\0';
	if (strchr(text, '%')) {
		memset(text, 0, strlen(text));
		return text_refuse(-EPERM, why, why_size, "iSCSI: a secret in a URL would be seen by "
				   "everybody who can run ps, and in logs; put it into a file that only "
				   "its owner may read (chap-file=FILE, default %s) and take it as known: "
				   "change it", BLKISCSI_DEFAULT_CHAP);
	}
	if (put(t->user, sizeof(t->user), text, strlen(text)))
		return -EINVAL;
	return add_portal(t, at + 1);
}

static void set_defaults(struct blkiscsi_target *t)
{
	memset(t, 0, sizeof(*t));
	t->timeout_ms = TIMEOUT_MS;
	t->dead_ms = DEAD_MS;
	t->login_ms = LOGIN_MS;
}

/* For messages, until it is understood: without what could be a secret. */
static void name_target(struct blkiscsi_target *t, const char *rest)
{
	size_t len = strcspn(rest, "?");
	const char *at = memrchr(rest, '@', len);
	char text[200];

	if (at) {
		len -= (size_t)(at + 1 - rest);
		rest = at + 1;
	}
	if (memchr(rest, '%', len))
		len = 0;
	snprintf(t->name, sizeof(t->name), SCHEME "%s",
		 text_printable(rest, len, text, sizeof(text)));
}

int blkiscsi_parse(const char *url, struct blkiscsi_target *t, char *why, size_t why_size)
{
	char copy[URL_SIZE], *params, *path;
	int err = -EINVAL;

	set_defaults(t);
	snprintf(t->name, sizeof(t->name), "iSCSI LUN");
	if (!blkiscsi_is_url(url) || strlen(url) >= sizeof(copy))
		return text_refuse(err, why, why_size, "not an iSCSI URL: too long, or it does not "
				   "begin with " SCHEME);
	strcpy(copy, url + strlen(SCHEME));
	name_target(t, copy);
	params = strchr(copy, '?');
	if (params)
		*params++ = '\0';
	path = strchr(copy, '/');
	if (path)
		*path++ = '\0';
	err = parse_authority(t, copy, why, why_size);
	if (err == -EPERM)
		return err;
	if (err || parse_path(t, path))
		return text_refuse(-EINVAL, why, why_size, "%s: not an iSCSI URL; "
				   "iscsi://[USER@]HOST[:PORT]/IQN/LUN[?NAME=VALUE&...] is one", t->name);
	snprintf(t->name, sizeof(t->name), SCHEME "%s/%s/%u", t->portals[0], t->iqn, t->lun);
	return params ? set_params(t, params, why, why_size) : 0;
}

bool blkiscsi_same(const char *a, const char *b)
{
	struct blkiscsi_target ta, tb;
	char why[64];

	return !blkiscsi_parse(a, &ta, why, sizeof(why)) &&
	       !blkiscsi_parse(b, &tb, why, sizeof(why)) && ta.lun == tb.lun &&
	       !strcmp(ta.iqn, tb.iqn);
}

/* ---- CHAP ---- */

static int open_secrets(const char *path, char *why, size_t why_size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK), err;
	struct stat st;

	if (fd < 0 || fstat(fd, &st)) {
		err = -errno;
		if (fd >= 0)
			close(fd);
		return text_refuse(err, why, why_size, "%s: the CHAP secrets cannot be read: %s", path,
				   strerror(-err));
	}
	if (S_ISREG(st.st_mode) && !(st.st_mode & 077) && (st.st_uid == geteuid() || !st.st_uid))
		return fd;
	close(fd);
	return text_refuse(-EACCES, why, why_size, "%s: holds secrets, and others may read it; make "
			   "it a plain file of its owner's alone: chown root %s; chmod 600 %s", path,
			   path, path);
}

static char *trim(char *s)
{
	char *end;

	while (*s == ' ' || *s == '\t')
		s++;
	end = s + strlen(s);
	while (end > s && strchr(" \t\r\n", end[-1]))
		end--;
	*end = '\0';
	return s;
}

static int set_secret(struct blkiscsi_target *t, const char *key, const char *value)
{
	const struct { const char *key; char *to; } keys[] = {
		{ "user", t->user }, { "password", t->secret },
		{ "mutual-user", t->mutual_user }, { "mutual-password", t->mutual_secret },
	};

	for (unsigned int i = 0; i < ARRAY_SIZE(keys); i++)
		if (!strcmp(key, keys[i].key))
			return put(keys[i].to, BLKISCSI_SECRET_SIZE, value, strlen(value));
	return -EINVAL;
}

static int read_secrets(struct blkiscsi_target *t, FILE *in, const char *path, char *why,
			size_t why_size)
{
	char line[CHAP_LINE_MAX];
	unsigned int number = 0;
	int err = 0;

	while (!err && fgets(line, sizeof(line), in)) {
		char *key = trim(line), *value = strchr(key, '=');

		number++;
		if (!*key || *key == '#')
			continue;
		err = -EINVAL;
		if (value) {
			*value++ = '\0';
			err = set_secret(t, trim(key), trim(value));
		}
		if (err)
			text_refuse(err, why, why_size, "%s:%u: wants \"user\", \"password\", "
				    "\"mutual-user\" or \"mutual-password\" = a value of at most %d bytes",
				    path, number, BLKISCSI_SECRET_SIZE - 1);
	}
	explicit_bzero(line, sizeof(line));
	return err;
}

static int load_secrets(struct blkiscsi_target *t, char *why, size_t why_size)
{
	const char *path = t->chap_file[0] ? t->chap_file : BLKISCSI_DEFAULT_CHAP;
	int err, fd = open_secrets(path, why, why_size);
	FILE *in;

	if (fd < 0)
		return fd;
	in = fdopen(fd, "r");
	if (!in) {
		close(fd);
		return -ENOMEM;
	}
	setvbuf(in, NULL, _IONBF, 0);	/* no copy of the secrets stays in a buffer */
	err = read_secrets(t, in, path, why, why_size);
	fclose(in);
	if (!err && (!t->user[0] || !t->secret[0] || !t->mutual_user[0] != !t->mutual_secret[0]))
		err = text_refuse(-EINVAL, why, why_size, "%s: CHAP wants a \"user\" and a "
				  "\"password\", mutual CHAP both of the other side's too", path);
	return err;
}

/* ---- the initiator name ---- */

void blkiscsi_default_initiator(const uint8_t host_id[16], char name[BLKISCSI_NAME_SIZE])
{
	char uuid[UUID_TEXT_SIZE];

	snprintf(name, BLKISCSI_NAME_SIZE, "iqn.2026-11.org.lunfs:%s",
		 text_format_uuid(host_id, uuid));
}

/* What open-iscsi keeps there: "InitiatorName=iqn...." */
static bool read_initiator(char name[BLKISCSI_NAME_SIZE])
{
	static const char key[] = "InitiatorName=";
	char line[CHAP_LINE_MAX];
	FILE *in = fopen(BLKISCSI_INITIATOR_FILE, "re");
	bool found = false;

	while (in && !found && fgets(line, sizeof(line), in)) {
		const char *value = trim(line);

		if (strncmp(value, key, sizeof(key) - 1))
			continue;
		value += sizeof(key) - 1;
		found = name_is_good(value) && !put(name, BLKISCSI_NAME_SIZE, value, strlen(value));
	}
	if (in)
		fclose(in);
	return found;
}

int blkiscsi_load(struct blkiscsi_target *t, char *why, size_t why_size)
{
	uint8_t id[16];
	int err = 0;

	if (t->user[0] || t->chap_file[0])
		err = load_secrets(t, why, why_size);
	if (err || t->initiator[0] || read_initiator(t->initiator))
		return err;
	err = machine_id(id);
	if (err)
		return text_refuse(err, why, why_size, "%s: this machine has no id to make an initiator "
				   "name of; write one into %s", t->name, BLKISCSI_INITIATOR_FILE);
	blkiscsi_default_initiator(id, t->initiator);
	return 0;
}

/* ---- addresses ---- */

/* Splits "host:port"; @host without brackets. */
static const char *split_portal(const char *portal, char host[BLKISCSI_PORTAL_SIZE])
{
	const char *colon = strrchr(portal, ':');
	size_t len;

	if (!colon)
		return NULL;
	len = (size_t)(colon - portal);
	if (portal[0] == '[' && len > 2) {
		portal++;
		len -= 2;
	}
	return put(host, BLKISCSI_PORTAL_SIZE, portal, len) ? NULL : colon + 1;
}

static int resolve_one(char portal[BLKISCSI_PORTAL_SIZE], int *gai)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *found = NULL;
	char host[BLKISCSI_PORTAL_SIZE], numeric[64], service[8];
	const char *port = split_portal(portal, host);

	*gai = port ? getaddrinfo(host, port, &hints, &found) : EAI_NONAME;
	if (!*gai)
		*gai = getnameinfo(found->ai_addr, found->ai_addrlen, numeric, sizeof(numeric), service,
				   sizeof(service), NI_NUMERICHOST | NI_NUMERICSERV);
	if (!*gai)
		snprintf(portal, BLKISCSI_PORTAL_SIZE, strchr(numeric, ':') ? "[%s]:%s" : "%s:%s",
			 numeric, service);
	if (found)
		freeaddrinfo(found);
	return *gai ? -EHOSTUNREACH : 0;
}

int blkiscsi_resolve(struct blkiscsi_target *t, char *why, size_t why_size)
{
	unsigned int good = 0;
	int gai = 0;

	for (unsigned int i = 0; i < t->portal_count; i++) {
		char portal[BLKISCSI_PORTAL_SIZE];

		strcpy(portal, t->portals[i]);
		if (resolve_one(portal, &gai))
			text_refuse(0, why, why_size, "%s: portal %s: %s", t->name, t->portals[i],
				    gai_strerror(gai));
		else
			strcpy(t->portals[good++], portal);
	}
	/* What cannot be found now is left out: the others are paths enough. */
	if (good)
		t->portal_count = good;
	return good ? 0 : -EHOSTUNREACH;
}

static int wait_connected(int fd, uint32_t timeout_ms)
{
	struct pollfd pfd = { .fd = fd, .events = POLLOUT };
	socklen_t size = sizeof(int);
	int n, err = 0;

	do {
		n = poll(&pfd, 1, (int)timeout_ms);
	} while (n < 0 && errno == EINTR);
	if (n <= 0)
		return n ? -errno : -ETIMEDOUT;
	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &size) ? -errno : -err;
}

int blkiscsi_dial(const char *portal, uint32_t timeout_ms)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST |
				  AI_NUMERICSERV }, *found = NULL;
	char host[BLKISCSI_PORTAL_SIZE];
	const char *port = split_portal(portal, host);
	int fd, err = 0;

	if (!port || getaddrinfo(host, port, &hints, &found))
		return -EINVAL;
	fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || (connect(fd, found->ai_addr, found->ai_addrlen) && errno != EINPROGRESS))
		err = -errno;
	freeaddrinfo(found);
	if (!err)
		err = wait_connected(fd, timeout_ms);
	if (!err)
		return fd;
	if (fd >= 0)
		close(fd);
	return err;
}
