/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Highly available machines: every host looks at the configurations on the datastores that it
 * has, and starts what nobody runs.  Hosts need not know of each other, for a machine claims its
 * disks before it runs (disk.c): of all hosts that try, one succeeds.
 *
 * What is to be started: at first, when a host has come up, whatever nobody has; afterwards only
 * what a dead host has left behind.  A machine that was stopped is not started again by those
 * that watch.  "At first" is of each datastore: one may come later than the others, or never.
 */
#include "kvm/autostart.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "kvm/cmd.h"
#include "kvm/report.h"
#include "kvm/source.h"
#include "proc/notify.h"

#define LOOK_EVERY_S	2
#define DATASTORES_MAX	64

/* A datastore, by the name or the UUID that it is asked for by. */
struct place {
	char		name[SOURCE_DS_SIZE];
	bool		seen;		/* all there was has been looked at once */
	char		told[VM_WHY_SIZE];	/* why it cannot be looked at: once each time */
};

struct watcher {
	const struct run_options *options;
	struct place	places[DATASTORES_MAX];
	unsigned int	place_count;
	char		told[VM_WHY_SIZE];	/* why there are none */
	bool		first;		/* of the place that is being looked at */
	bool		missed;		/* something there could not be asked for */
	bool		failed;
};

/* A machine without a disk that it writes could run everywhere at once: nothing would decide. */
static const struct config_disk *deciding_disk(const struct vm_config *c)
{
	for (unsigned int i = 0; i < c->disk_count; i++)
		if (!c->disks[i].read_only && source_is_datastore(c->disks[i].source))
			return &c->disks[i];
	return NULL;
}

/* Return: 0 with @c; -ENOENT there is none, or none that is meant; -EINVAL, said. */
static int read_config(struct watcher *w, const char *path, const char *folder,
		       struct vm_config *c)
{
	char why[PATH_MAX + VM_WHY_SIZE];
	enum vm_exit status;
	int fd = source_open(path, w->options->daemon_dir, &status, why, sizeof(why)), err;
	FILE *in;

	if (fd < 0) {
		w->missed = w->missed || status == VM_EXIT_NO_DAEMON;
		return -ENOENT;
	}
	in = fdopen(fd, "r");
	vm_config_init(c);
	err = in ? vm_config_read(c, in, path, folder, why, sizeof(why)) : -ENOMEM;
	if (in)
		fclose(in);
	if (!err && !c->autostart)
		return -ENOENT;
	if (!err)
		err = vm_config_check(c, why, sizeof(why));
	if (!err && !deciding_disk(c))
		err = text_refuse(-EINVAL, why, sizeof(why), "%s: autostart wants a disk on a "
				  "datastore that is written: its lock decides where it runs", path);
	if (err && w->first)
		report_failure(w->options->json, NULL, VM_EXIT_CONFIG, "%s", why);
	return err;
}

/* In a process of its own, as it goes on for as long as the machine does. */
static int start(const struct watcher *w, const struct vm_config *c)
{
	struct run_options options = *w->options;
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		signal(SIGCHLD, SIG_DFL);
		options.detach = true;
		_exit(parent_run(c, &options));
	}
	if (pid < 0)
		return VM_EXIT_FAILED;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : VM_EXIT_FAILED;
}

static void tell_starting(const struct watcher *w, const struct vm_config *c, bool left)
{
	if (w->options->json)
		report_json(STDOUT_FILENO, json_pack("{s:s, s:s, s:s}", "event", "starting", "name",
						     c->name, "cause", left ? "host-died" : "not-running"));
	else
		printf(LUNVM_NAME ": %s: %s: starting it here\n", c->name,
		       left ? "its host has died" : "nobody runs it");
	fflush(stdout);
}

/* Whether the disk says that it is to be started here; what goes wrong is told. */
static bool is_wanted(struct watcher *w, const struct vm_config *c, enum source_past *past)
{
	char why[VM_WHY_SIZE];
	int err = source_past(deciding_disk(c), c->name, w->options->daemon_dir, past, why, sizeof(why));

	if (!err)
		return *past == SOURCE_LEFT || (*past == SOURCE_FREE && w->first);
	if (err != -EREMOTEIO) {	/* not the daemon's answer */
		w->missed = true;
	} else if (w->first) {
		report_failure(w->options->json, c->name, VM_EXIT_FAILED, "%s", why);
		w->failed = true;
	}
	return false;
}

static void consider(const char *ds, const char *name, void *arg)
{
	static struct vm_config c;	/* large; one thread */
	struct watcher *w = arg;
	char path[PATH_MAX], folder[PATH_MAX];
	enum source_past past;
	int status, err;

	if (!vm_config_name_is_fine(name) || cmd_is_running(w->options->run_dir, name))
		return;
	snprintf(folder, sizeof(folder), "%s:/%s", ds, name);
	snprintf(path, sizeof(path), "%s:/%s/%s.conf", ds, name, name);
	err = read_config(w, path, folder, &c);
	if (err && err != -ENOENT && w->first)
		w->failed = true;
	if (err || !is_wanted(w, &c, &past))
		return;
	tell_starting(w, &c, past == SOURCE_LEFT);
	status = start(w, &c);
	if (status && status != VM_EXIT_LOCKED)	/* another host was faster */
		w->failed = true;
}

/* The same trouble is told once, and again when it had been over. */
static void tell_trouble(const struct watcher *w, char told[VM_WHY_SIZE], const char *why)
{
	if (!strcmp(told, why))
		return;
	snprintf(told, VM_WHY_SIZE, "%s", why);
	report_failure(w->options->json, NULL, VM_EXIT_NO_DAEMON, "%s", why);
}

static struct place *place_of(struct watcher *w, const char *name)
{
	for (unsigned int i = 0; i < w->place_count; i++)
		if (!strcmp(w->places[i].name, name))
			return &w->places[i];
	if (w->place_count == DATASTORES_MAX)
		return NULL;
	snprintf(w->places[w->place_count].name, SOURCE_DS_SIZE, "%.127s", name);	/* fits: autostart() */
	return &w->places[w->place_count++];
}

static int look_at(struct watcher *w, const char *name)
{
	struct place *p = place_of(w, name);
	char why[VM_WHY_SIZE];
	int err;

	if (!p)
		return -E2BIG;
	w->first = !p->seen;
	w->missed = false;
	err = source_each_directory(name, w->options->daemon_dir, consider, w, why, sizeof(why));
	if (err) {
		tell_trouble(w, p->told, why);
		return err;
	}
	p->told[0] = '\0';
	p->seen = p->seen || !w->missed;
	return 0;
}

static int look(struct watcher *w, char **names, unsigned int count)
{
	static char found[DATASTORES_MAX][SOURCE_DS_SIZE];
	char why[VM_WHY_SIZE];
	int n = (int)count, err = 0;

	if (!count)
		n = source_datastores(w->options->daemon_dir, found, DATASTORES_MAX, why,
				      sizeof(why));
	if (n < 0) {
		tell_trouble(w, w->told, why);
		return n;
	}
	w->told[0] = '\0';
	for (int i = 0; i < n; i++) {
		int ret = look_at(w, count ? names[i] : found[i]);

		err = ret ? ret : err;
	}
	return err;
}

int autostart(const struct run_options *options, char **names, unsigned int count, bool watch)
{
	const struct timespec pause = { .tv_sec = LOOK_EVERY_S };
	static struct watcher w;	/* large, and one a process */
	int err;

	w.options = options;
	for (unsigned int i = 0; i < count; i++)
		if (strlen(names[i]) >= SOURCE_DS_SIZE || i == DATASTORES_MAX)
			return report_failure(options->json, NULL, VM_EXIT_CONFIG, "%.100s: no datastore's name "
					      "is as long, or they are too many", names[i]);
	err = look(&w, names, count);
	if (!watch)
		return err ? VM_EXIT_NO_DAEMON : w.failed ? VM_EXIT_FAILED : 0;
	notify_send("READY=1");
	for (;;) {
		nanosleep(&pause, NULL);
		look(&w, names, count);
	}
}
