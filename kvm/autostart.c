/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Highly available machines: every host looks at the configurations on the datastores that it
 * has, and starts what nobody runs.  Hosts need not know of each other, for a machine claims its
 * disks before it runs (disk.c): of all hosts that try, one succeeds.
 *
 * What is to be started: at first, when a host has come up, whatever nobody has; afterwards only
 * what a dead host has left behind.  A machine that was stopped is not started again by those
 * that watch.
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

struct round {
	const struct run_options *options;
	bool		first;
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
static int read_config(const struct round *r, const char *path, const char *folder,
		       struct vm_config *c)
{
	char why[PATH_MAX + VM_WHY_SIZE];
	enum vm_exit status;
	int fd = source_open(path, r->options->daemon_dir, &status, why, sizeof(why)), err;
	FILE *in;

	if (fd < 0)
		return -ENOENT;
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
	if (err && r->first)
		report_failure(r->options->json, NULL, VM_EXIT_CONFIG, "%s", why);
	return err;
}

/* In a process of its own, as it goes on for as long as the machine does. */
static int start(const struct round *r, const struct vm_config *c)
{
	struct run_options options = *r->options;
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

static void tell_starting(const struct round *r, const struct vm_config *c, bool left)
{
	if (r->options->json)
		report_json(STDOUT_FILENO, json_pack("{s:s, s:s, s:s}", "event", "starting", "name",
						     c->name, "cause", left ? "host-died" : "not-running"));
	else
		printf(LUNVM_NAME ": %s: %s: starting it here\n", c->name,
		       left ? "its host has died" : "nobody runs it");
	fflush(stdout);
}

static void consider(const char *ds, const char *name, void *arg)
{
	static struct vm_config c;	/* large; one thread */
	struct round *r = arg;
	char path[PATH_MAX], folder[PATH_MAX], why[VM_WHY_SIZE];
	enum source_past past;
	int status, err;

	if (!vm_config_name_is_fine(name) || cmd_is_running(r->options->run_dir, name))
		return;
	snprintf(folder, sizeof(folder), "%s:/%s", ds, name);
	snprintf(path, sizeof(path), "%s:/%s/%s.conf", ds, name, name);
	err = read_config(r, path, folder, &c);
	if (err && err != -ENOENT && r->first)
		r->failed = true;
	if (err || source_past(deciding_disk(&c), c.name, r->options->daemon_dir, &past, why, sizeof(why)))
		return;
	if (past == SOURCE_HELD || (past == SOURCE_FREE && !r->first))
		return;
	tell_starting(r, &c, past == SOURCE_LEFT);
	status = start(r, &c);
	if (status && status != VM_EXIT_LOCKED)	/* another host was faster */
		r->failed = true;
}

static int look(struct round *r, char **names, unsigned int count)
{
	static char found[DATASTORES_MAX][SOURCE_DS_SIZE];
	char why[VM_WHY_SIZE];
	int n = (int)count, err = 0;

	if (!count)
		n = source_datastores(r->options->daemon_dir, found, DATASTORES_MAX, why,
				      sizeof(why));
	for (int i = 0; i < n; i++) {
		int ret = source_each_directory(count ? names[i] : found[i], r->options->daemon_dir,
						consider, r, why, sizeof(why));

		err = ret ? ret : err;
	}
	if (n < 0)
		err = n;
	if (err && r->first)
		report_failure(r->options->json, NULL, VM_EXIT_NO_DAEMON, "%s", why);
	return err;
}

int autostart(const struct run_options *options, char **names, unsigned int count, bool watch)
{
	const struct timespec pause = { .tv_sec = LOOK_EVERY_S };
	struct round r = { .options = options, .first = true };
	int err = look(&r, names, count);

	if (!watch)
		return err ? VM_EXIT_NO_DAEMON : r.failed ? VM_EXIT_FAILED : 0;
	notify_send("READY=1");
	for (;;) {
		/* Until all there is was seen once, this host has just come up. */
		if (!err)
			r.first = false;
		nanosleep(&pause, NULL);
		err = look(&r, names, count);
	}
}
