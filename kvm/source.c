/* SPDX-License-Identifier: Apache-2.0 */
#include "kvm/source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "kvm/parent.h"
#include "tools/ctl_client.h"

#define UNIX_PREFIX	"unix:"
#define LETTING_GO_MS	2000	/* for a front end that has just ended to be gone at the daemon, too */
#define PAUSE_MS	50
#define TAKEN_MS	30000	/* for lunfsd to take a connection; at once, unless it has no processor */
#define PIECE_MAX	(4 << 20)	/* of a file, at a time; lunfsd sends less */

bool source_is_datastore(const char *name)
{
	return *name != '/' && strstr(name, ":/") && strncmp(name, UNIX_PREFIX, 5);
}

/* What one call is about, and what it comes to. */
struct asking {
	const char	*name;		/* "DS:/PATH", for messages */
	char		ds[VM_DISK_NAME_MAX + 1];
	const char	*path;
	struct ctl_client client;
	struct ctl_error error;
	enum vm_exit	*status;
	char		*why;
	size_t		why_size;
};

#define REFUSE(a, err, st, ...) \
	(*(a)->status = (st), text_refuse(err, (a)->why, (a)->why_size, __VA_ARGS__))

static int begin(struct asking *a, const char *name, const char *run_dir)
{
	const char *colon = strstr(name, ":/");
	int err;

	a->name = name;
	a->path = colon + 1;
	snprintf(a->ds, sizeof(a->ds), "%.*s", (int)(colon - name), name);
	err = ctl_client_connect(&a->client, LUNVM_NAME, run_dir, &a->error);
	return err ? REFUSE(a, err, err == -EACCES ? VM_EXIT_FAILED : VM_EXIT_NO_DAEMON, "%s: %s",
			    name, a->error.message) : 0;
}

/* How it ends when the daemon refuses, or goes away while it is asked. */
static int refused(struct asking *a, int err)
{
	static const struct { const char *name; enum vm_exit status; } known[] = {
		{ "EBUSY", VM_EXIT_LOCKED }, { "EHOSTDOWN", VM_EXIT_LOCKED },
		{ "ESTALE", VM_EXIT_LOST },
	};
	enum vm_exit status = err == -EREMOTEIO ? VM_EXIT_FAILED : VM_EXIT_NO_DAEMON;

	for (unsigned int i = 0; i < ARRAY_SIZE(known) && err == -EREMOTEIO; i++)
		if (!strcmp(a->error.name, known[i].name))
			status = known[i].status;
	return REFUSE(a, err, status, "%s%s%s", *a->error.name ? "" : a->name,
		      *a->error.name ? "" : ": ", a->error.message);
}

static int ask(struct asking *a, const char *cmd, const char *key, json_t *value, json_t **result)
{
	json_t *request = json_pack("{s:s, s:s, s:s}", "cmd", cmd, "ds", a->ds, "path", a->path);
	int err;

	if (value)
		json_object_set_new(request, key, value);
	err = ctl_client_ask(&a->client, request, result, &a->error);
	return err ? refused(a, err) : 0;
}

/* ---- disks ---- */

/* What lunfsd says of the disk if it is attached already: a new reference, or NULL. */
static int find_attached(struct asking *a, json_t **out)
{
	json_t *request = json_pack("{s:s, s:s}", "cmd", "disk-list", "ds", a->ds), *result, *d;
	int err = ctl_client_ask(&a->client, request, &result, &a->error);
	size_t i;

	*out = NULL;
	if (err)
		return refused(a, err);
	json_array_foreach(json_object_get(result, "disks"), i, d)
		if (!strcmp(ctl_str(d, "path"), a->path))
			*out = json_incref(d);
	json_decref(result);
	return 0;
}

static void sleep_ms(unsigned int ms)
{
	const struct timespec pause = { .tv_nsec = ms * 1000000L };

	nanosleep(&pause, NULL);
}

/* A front end that has just ended may not be gone at the daemon yet; another one is somebody's. */
static int wait_unconnected(struct asking *a, json_t **out)
{
	int err;

	for (unsigned int waited = 0;; waited += PAUSE_MS) {
		err = find_attached(a, out);
		if (err || !*out || !ctl_bool(*out, "connected"))
			return err;
		json_decref(*out);
		if (waited >= LETTING_GO_MS)
			return REFUSE(a, -EBUSY, VM_EXIT_LOCKED, "%s: in use on this host, where one machine "
				      "can have it, also to read; see \"lunvm list\" and \"lunfs disk list\", or "
				      "make another with \"lunfs disk clone\"", a->name);
		sleep_ms(PAUSE_MS);
	}
}

static void add_option(json_t *options, const char *key, const char *text, int64_t number)
{
	char option[64];

	if (text && *text)
		snprintf(option, sizeof(option), "%s=%.40s", key, text);
	else if (!text && number)
		snprintf(option, sizeof(option), "%s=%lld", key, (long long)number);
	else
		return;
	json_array_append_new(options, json_string(option));
}

/* @old: what the administrator attached it with, which stays; or NULL. */
static json_t *attach_options(const struct config_disk *d, const char *vm, const json_t *old)
{
	const json_t *limits = json_object_get(old, "limits");
	json_t *options = json_array();

	if (d->read_only || ctl_bool(old, "read_only"))
		json_array_append_new(options, json_string("ro"));
	add_option(options, "user", vm, 0);
	add_option(options, "on-lost", "disconnect", 0);
	add_option(options, "enospc", ctl_str(old, "enospc"), 0);
	add_option(options, "serial", ctl_str(old, "serial"), 0);
	add_option(options, "shares", NULL, ctl_int(limits, "shares"));
	add_option(options, "iops", NULL, ctl_int(limits, "iops"));
	add_option(options, "iops-burst", NULL, ctl_int(limits, "iops_burst"));
	add_option(options, "bytes", NULL, ctl_int(limits, "bytes"));
	add_option(options, "bytes-burst", NULL, ctl_int(limits, "bytes_burst"));
	return options;
}

/*
 * Each machine has an attachment of its own: what another one left, that was killed perhaps, is
 * not gone on with, and whoever comes back finds that it is not his any more.
 */
static int attach_once(struct asking *a, const struct config_disk *d, const char *vm,
		       struct source_hold *hold, json_t **out)
{
	char user[32];
	json_t *old, *gone;
	int err = wait_unconnected(a, &old);

	if (err)
		return err;
	if (old) {
		err = ask(a, "disk-detach", NULL, NULL, &gone);
		if (!err)
			json_decref(gone);
	}
	snprintf(user, sizeof(user), "%.24s", vm);
	if (!err)
		err = ask(a, "disk-attach", "options", attach_options(d, user, old), out);
	if (!err) {
		hold->made = hold->made || !old;
		hold->birth = (uint64_t)ctl_int(*out, "birth");
	}
	json_decref(old);
	return err;
}

/* Another launcher may be attaching it at this moment: in the next one it is in use, or free again. */
static int attach_first(struct asking *a, const struct config_disk *d, const char *vm,
			struct source_hold *hold, json_t **out)
{
	int err;

	for (unsigned int waited = 0;; waited += PAUSE_MS) {
		err = attach_once(a, d, vm, hold, out);
		if (err != -EREMOTEIO || strcmp(a->error.name, "EEXIST") || waited >= LETTING_GO_MS)
			return err;
		sleep_ms(PAUSE_MS);
	}
}

/* Why lunfsd cut us off, if it did: the next connection would end in the same way. */
static int check_state(struct asking *a, const struct source_hold *hold, const json_t *d)
{
	const char *holder = ctl_str(d, "holder"), *ended = ctl_str(d, "ended");

	if ((uint64_t)ctl_int(d, "birth") != hold->birth)
		return REFUSE(a, -ESTALE, VM_EXIT_LOST, "%s: attached anew meanwhile, for \"%s\"",
			      a->name, ctl_str(d, "user"));
	if (*ended)
		return REFUSE(a, -ESTALE, VM_EXIT_LOST, "%s: %s", a->name, ended);
	if (ctl_bool(d, "lost"))
		return REFUSE(a, -ESTALE, VM_EXIT_LOST, "%s: this host has lost its place in the "
			      "datastore, and the disk's lock with it", a->name);
	if (*holder)
		return REFUSE(a, -EBUSY, VM_EXIT_LOCKED, "%s: in use by %s; end it there, or wait until "
			      "that host is dead", a->name, holder);
	return 0;
}

/*
 * Our connection may be one of several to the socket, of which the daemon takes one and leaves the others
 * waiting: ours is the one, if the attachment is ours and nobody else makes any (parent.c's lock).
 */
static int wait_taken(struct asking *a, const struct source_hold *hold)
{
	json_t *d;
	bool taken;
	int err;

	for (unsigned int waited = 0;; waited += PAUSE_MS) {
		err = find_attached(a, &d);
		if (!err && d)
			err = check_state(a, hold, d);
		else if (!err)
			err = REFUSE(a, -EBUSY, VM_EXIT_LOCKED, "%s: was detached by somebody at once", a->name);
		taken = !err && ctl_bool(d, "connected");
		json_decref(d);
		if (err || taken)
			return err;
		if (waited >= TAKEN_MS)
			return REFUSE(a, -EBUSY, VM_EXIT_LOCKED, "%s: is attached, but lunfsd takes nobody "
				      "on; see \"lunfs disk list\"", a->name);
		sleep_ms(PAUSE_MS);
	}
}

/* The daemon may have to find its datastores and disks again first: to be asked later, then. */
static int attach_again(struct asking *a, const struct source_hold *hold, json_t **out)
{
	int err = find_attached(a, out);

	if (err && strcmp(a->error.name, "ENOENT"))
		return err;
	if (err || !*out)
		return REFUSE(a, -EAGAIN, VM_EXIT_NO_DAEMON, "%s: not served at the moment", a->name);
	return check_state(a, hold, *out);
}

static int connect_to(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd, err;

	if (snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path) >=
	    (int)sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (!connect(fd, (struct sockaddr *)&addr, sizeof(addr)))
		return fd;
	err = -errno;
	close(fd);
	return err;
}

static int connect_disk(struct asking *a, const char *path)
{
	int fd = connect_to(path);

	if (fd >= 0)
		return fd;
	/* A socket that nobody serves just now is a daemon's that is away. */
	return REFUSE(a, fd, fd == -ENOENT || fd == -ECONNREFUSED ? VM_EXIT_NO_DAEMON :
		      VM_EXIT_FAILED, "%s: %s: %s", a->name, path, strerror(-fd));
}

int source_connect(const struct config_disk *d, const char *vm, const char *run_dir,
		   struct source_hold *hold, enum vm_exit *status, char *why, size_t why_size)
{
	struct asking a = { .name = d->source, .status = status, .why = why, .why_size = why_size };
	json_t *attached = NULL;
	bool first;
	int ret, err;

	if (!source_is_datastore(d->source))
		return connect_disk(&a, d->source + strlen(UNIX_PREFIX));
	ret = begin(&a, d->source, run_dir);
	if (ret)
		return ret;
	first = !hold->birth;
	if (first)
		ret = attach_first(&a, d, vm, hold, &attached);
	else
		ret = attach_again(&a, hold, &attached);
	if (!ret)
		ret = connect_disk(&a, ctl_str(attached, "socket"));
	err = ret >= 0 && first ? wait_taken(&a, hold) : 0;
	if (err) {
		close(ret);
		ret = err;
	}
	json_decref(attached);
	ctl_client_close(&a.client);
	return ret;
}

void source_release(const struct config_disk *d, const char *run_dir)
{
	enum vm_exit status;
	char why[VM_WHY_SIZE];
	struct asking a = { .status = &status, .why = why, .why_size = sizeof(why) };
	json_t *result;

	if (!source_is_datastore(d->source) || begin(&a, d->source, run_dir))
		return;
	for (unsigned int waited = 0; waited < LETTING_GO_MS; waited += PAUSE_MS) {
		if (!ask(&a, "disk-detach", NULL, NULL, &result)) {
			json_decref(result);
			break;
		}
		if (status != VM_EXIT_LOCKED)
			break;
		sleep_ms(PAUSE_MS);
	}
	ctl_client_close(&a.client);
}

/* ---- looking around ---- */

/* Lock records have room for 24 bytes of it. */
static bool names_vm(const json_t *lock, const char *key, const char *vm)
{
	return !strncmp(ctl_str(lock, key), vm, 24);
}

/*
 * A host that had the lock already, when it made the disk say, writes the name into the record only
 * when somebody asks for it: one without a name may have been this machine's as well.
 */
static bool was_left(const json_t *lock, const char *vm)
{
	const json_t *left = json_object_get(lock, "left_by");

	return left && (!*ctl_str(lock, "left_by") || names_vm(lock, "left_by", vm));
}

int source_past(const struct config_disk *d, const char *vm, const char *run_dir,
		enum source_past *past, char *why, size_t why_size)
{
	enum vm_exit status;
	struct asking a = { .status = &status, .why = why, .why_size = why_size };
	json_t *lock;
	int err = begin(&a, d->source, run_dir);

	if (err)
		return err;
	err = ask(&a, "lock-show", NULL, NULL, &lock);
	if (!err) {
		/* A lock that a host only keeps, after it made the disk, say, has another name. */
		*past = names_vm(lock, "process", vm) ? SOURCE_HELD :
			was_left(lock, vm) ? SOURCE_LEFT : SOURCE_FREE;
		json_decref(lock);
	}
	ctl_client_close(&a.client);
	return err;
}

static int ask_at(const char *run_dir, json_t *request, json_t **result, char *why, size_t why_size)
{
	struct ctl_client client;
	struct ctl_error error;
	int err = ctl_client_connect(&client, LUNVM_NAME, run_dir, &error);

	if (err) {
		json_decref(request);
		return text_refuse(err, why, why_size, "%s", error.message);
	}
	err = ctl_client_ask(&client, request, result, &error);
	ctl_client_close(&client);
	return err ? text_refuse(err, why, why_size, "%s", error.message) : 0;
}

int source_datastores(const char *run_dir, char (*names)[SOURCE_DS_SIZE], unsigned int max,
		      char *why, size_t why_size)
{
	json_t *result, *ds;
	unsigned int n = 0;
	size_t i;
	int err = ask_at(run_dir, json_pack("{s:s}", "cmd", "status"), &result, why, why_size);

	if (err)
		return err;
	json_array_foreach(json_object_get(result, "datastores"), i, ds)
		if (n < max && !strcmp(ctl_str(ds, "state"), "attached") &&
		    !strcmp(ctl_str(ds, "mode"), "read-write"))
			snprintf(names[n++], SOURCE_DS_SIZE, "%s", ctl_str(ds, "uuid"));
	json_decref(result);
	return (int)n;
}

int source_each_directory(const char *ds, const char *run_dir,
			  void (*fn)(const char *ds, const char *name, void *arg), void *arg,
			  char *why, size_t why_size)
{
	json_int_t from = 0;
	bool more = true;

	while (more) {
		json_t *request = json_pack("{s:s, s:s, s:s, s:I}", "cmd", "ls", "ds", ds, "path",
					    "/", "from", from);
		json_t *result, *entry;
		size_t i;
		int err = ask_at(run_dir, request, &result, why, why_size);

		if (err)
			return err;
		json_array_foreach(json_object_get(result, "entries"), i, entry)
			if (!strcmp(ctl_str(entry, "type"), "directory"))
				fn(ds, ctl_str(entry, "name"), arg);
		more = json_object_get(result, "next") != NULL;
		from = json_integer_value(json_object_get(result, "next"));
		json_decref(result);
	}
	return 0;
}

/* ---- files ---- */

static int open_here(const char *name, enum vm_exit *status, char *why, size_t why_size)
{
	int fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;

	*status = VM_EXIT_CONFIG;
	if (fd < 0)
		return text_refuse(-errno, why, why_size, "%s: %s", name, strerror(errno));
	if (!fstat(fd, &st) && S_ISREG(st.st_mode))
		return fd;
	close(fd);
	return text_refuse(-EINVAL, why, why_size, "%s: not a regular file", name);
}

/* What a full memory leaves of a write is a part of it; the next one says why. */
static int write_at(int fd, const char *data, size_t len, uint64_t at)
{
	while (len) {
		ssize_t n = pwrite(fd, data, len, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ENOSPC;
		data += n;
		len -= (size_t)n;
		at += (uint64_t)n;
	}
	return 0;
}

/* One piece into @fd.  Return: 1 there is more; 0; -errno. */
static int copy_piece(struct asking *a, int fd, uint64_t *from)
{
	json_t *request = json_pack("{s:s, s:I}", "cmd", "disk-read", "from", (json_int_t)*from);
	json_t *result;
	int64_t len;
	bool more;
	char *data;
	int err = ctl_client_ask(&a->client, request, &result, &a->error);

	if (err)
		return refused(a, err);
	len = ctl_int(result, "bytes");
	more = ctl_bool(result, "more") && len;
	json_decref(result);
	if (len < 0 || len > PIECE_MAX)
		return REFUSE(a, -EPROTO, VM_EXIT_FAILED, "%s: lunfsd is of another version", a->name);
	data = malloc(PIECE_MAX);
	err = data ? ctl_client_bytes(&a->client, data, (size_t)len) : -ENOMEM;
	if (!err)
		err = write_at(fd, data, (size_t)len, *from);
	free(data);
	*from += (uint64_t)len;
	return err ? REFUSE(a, err, err == -EPIPE ? VM_EXIT_NO_DAEMON : VM_EXIT_FAILED, "%s: %s", a->name,
			    strerror(-err)) : more;
}

/*
 * A copy in memory: the launcher cannot mount, and the worker is to read it without anybody's
 * help.  It is held meanwhile, so that the copy is of one time.
 */
static int copy_file(struct asking *a)
{
	int fd = memfd_create("file", MFD_CLOEXEC), ret;
	uint64_t from = 0;
	json_t *held;

	if (fd < 0)
		return REFUSE(a, -errno, VM_EXIT_FAILED, "%s: %s", a->name, strerror(errno));
	ret = ask(a, "disk-hold", NULL, NULL, &held);
	if (!ret)
		json_decref(held);
	while (!ret) {
		ret = copy_piece(a, fd, &from);
		if (ret <= 0)
			break;
		ret = 0;
	}
	if (!ret)
		return fd;
	close(fd);
	return ret;
}

int source_open(const char *name, const char *run_dir, enum vm_exit *status, char *why,
		size_t why_size)
{
	struct asking a = { .status = status, .why = why, .why_size = why_size };
	int ret;

	if (!source_is_datastore(name))
		return open_here(name, status, why, why_size);
	if (strlen(name) >= sizeof(a.ds)) {
		*status = VM_EXIT_CONFIG;
		return text_refuse(-ENAMETOOLONG, why, why_size, "%.100s...: too long", name);
	}
	ret = begin(&a, name, run_dir);
	if (ret)
		return ret;
	ret = copy_file(&a);
	ctl_client_close(&a.client);
	return ret;
}
