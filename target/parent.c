/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "proc/notify.h"
#include "proc/packet.h"
#include "proc/spawn.h"
#include "target/open.h"
#include "target/pack.h"
#include "target/target.h"

#define SAY(level, ...)	env_log(env_posix(), level, TARGET_NAME, __VA_ARGS__)
#define STOP_MS		20000	/* for commands under way to end */
#define KILL_MS		5000	/* for a killed worker to end */

struct parent {
	const struct target_options *options;
	struct tgt_config *config;	/* that the worker serves by; its portals as they are bound */
	struct tgt_portal asked[TGT_PORTALS_MAX];	/* the same as they were asked for */
	struct target_files files;	/* what is open for it */
	struct spawn	worker;
	int		signals;
	bool		ready, stopping;
	uint64_t	stop_until;
};

static int send_packet(struct parent *p, const struct target_packet *packet, const int *fds,
		       unsigned int fd_count)
{
	int err = packet_send(p->worker.rpc, packet, sizeof(*packet), fds, fd_count);

	if (err)
		SAY(LOG_LEVEL_ERROR, "the worker takes nothing any more: %s", strerror(-err));
	return err;
}

/* ---- what the worker is given ---- */

static int send_config(struct parent *p, const struct tgt_config *config)
{
	struct target_packet packet = { .magic = TARGET_MAGIC, .op = TARGET_CONFIG };
	int fd = config_pack(config), err;

	if (fd < 0) {
		SAY(LOG_LEVEL_ERROR, "the configuration cannot be passed on: %s", strerror(-fd));
		return fd;
	}
	err = send_packet(p, &packet, &fd, 1);
	close(fd);
	return err;
}

/* Those that it has not got yet. */
static int send_portals(struct parent *p, const struct tgt_config *config)
{
	for (unsigned int i = 0; i < p->files.portal_count; i++) {
		struct target_packet packet = { .magic = TARGET_MAGIC, .op = TARGET_PORTAL,
						.portal_group = config->portals[i].group };
		int err;

		if (p->files.portals[i] < 0)
			continue;
		err = send_packet(p, &packet, &p->files.portals[i], 1);
		close(p->files.portals[i]);
		p->files.portals[i] = -1;
		if (err)
			return err;
	}
	return 0;
}

/* Those that it has not got yet. */
static int send_luns(struct parent *p)
{
	for (unsigned int i = 0; i < p->files.lun_count; i++) {
		struct target_lun_file *f = &p->files.luns[i];
		struct target_packet packet = { .magic = TARGET_MAGIC, .op = TARGET_LUN };
		int fds[3] = { f->handle.fd, f->lock_fd, f->state_fd }, err;

		if (f->sent)
			continue;
		strcpy(packet.lun.iqn, f->iqn);
		packet.lun.number = f->number;
		packet.lun.info = f->handle.info;
		err = send_packet(p, &packet, fds, f->state_fd < 0 ? 2 : 3);
		target_file_sent(f);
		if (err)
			return err;
	}
	return 0;
}

static int send_all(struct parent *p, const struct tgt_config *config)
{
	const struct target_packet serve = { .magic = TARGET_MAGIC, .op = TARGET_SERVE };
	const struct target_packet control = { .magic = TARGET_MAGIC, .op = TARGET_CONTROL };
	int err = send_config(p, config);

	if (!err)
		err = send_portals(p, config);
	if (!err)
		err = send_luns(p);
	if (!err && p->files.control >= 0) {
		err = send_packet(p, &control, &p->files.control, 1);
		close(p->files.control);
		p->files.control = -1;
	}
	return err ? err : send_packet(p, &serve, NULL, 0);
}

static int start_worker(struct parent *p)
{
	struct target_packet hello = { .magic = TARGET_MAGIC, .op = TARGET_HELLO };
	char why[256];
	int err = 0;

	hello.hello.parent = getpid();
	hello.hello.uid = geteuid();
	hello.hello.gid = getegid();
	/* Started by somebody else than root it has nothing to give up but what that one may do. */
	if (!geteuid())
		err = spawn_user(p->config->user, &hello.hello.uid, &hello.hello.gid, why,
				 sizeof(why));
	if (err) {
		SAY(LOG_LEVEL_ERROR, "%s", why);
		return err;
	}
	err = spawn_worker(TARGET_NAME, NULL, 0, &p->worker);
	if (err) {
		SAY(LOG_LEVEL_ERROR, "cannot start the worker: %s", strerror(-err));
		return err;
	}
	err = send_packet(p, &hello, NULL, 0);
	return err ? err : send_all(p, p->config);
}

/* ---- SIGHUP ---- */

/* A group is what sessions of a target were opened by: it stays. */
static void warn_of_groups(const struct tgt_config *asked, const struct tgt_config *config)
{
	char text[64];

	for (unsigned int i = 0; i < config->portal_count; i++)
		if (asked->portals[i].group != config->portals[i].group)
			SAY(LOG_LEVEL_WARNING, "portal %s: its group stays %u until a restart",
			    tgt_portal_format(&config->portals[i].addr, text),
			    config->portals[i].group);
}

/* @asked: the portals as they are in the file; those of *@out are bound, and new ones listen. */
static int reread(struct parent *p, struct tgt_config **out, struct tgt_config *asked)
{
	char why[1024];
	int err = target_read_config(p->options->config_path, out, why, sizeof(why));

	if (!err) {
		*asked = **out;	/* only to look at its portals */
		err = target_portals_change(&p->files, p->asked, p->config->portals,
					    p->config->portal_count, *out, why, sizeof(why));
		if (err)
			tgt_config_destroy(*out);
	}
	if (err)
		SAY(LOG_LEVEL_ERROR, "the configuration stays as it was: %s", why);
	else
		warn_of_groups(asked, *out);
	return err;
}

/*
 * Whom to let in, secrets, portals, targets and logical units that are new or gone, and the sizes
 * of those there are.  Without a file only the last.
 */
static void reload(struct parent *p)
{
	struct tgt_config *config = p->config, asked = *p->config;
	char why[1024];

	if (!p->ready || p->stopping)
		return;
	notify_send("RELOADING=1");
	if (p->options->config_path && reread(p, &config, &asked))
		goto out;
	if (target_files_open(&p->files, config, p->options->state, why, sizeof(why))) {
		SAY(LOG_LEVEL_ERROR, "the configuration stays as it was: %s", why);
		target_portals_drop(&p->files);
		if (config != p->config)
			tgt_config_destroy(config);
		goto out;
	}
	if (send_all(p, config))
		goto out;
	target_files_forget(&p->files, config);
	if (config != p->config) {
		tgt_config_destroy(p->config);
		p->config = config;
		memcpy(p->asked, asked.portals, sizeof(p->asked));
	}
	return;	/* the worker's answer says READY */
out:
	notify_send("READY=1");
}

/* ---- the loop ---- */

static void print_serving(const struct parent *p)
{
	char portal[64];

	for (unsigned int i = 0; i < p->config->target_count; i++) {
		const struct tgt_target *t = &p->config->targets[i];

		tgt_portal_format(&p->config->portals[0].addr, portal);
		if (!t->lun_count)
			printf("iscsi://%s/%s\n", portal, t->iqn);
		for (unsigned int n = 0; n < t->lun_count; n++)
			printf("iscsi://%s/%s/%u %s\n", portal, t->iqn, t->luns[n].number,
			       t->luns[n].path);
	}
	fflush(stdout);
}

static void handle_answer(struct parent *p)
{
	struct target_packet packet;
	int fds[PACKET_FDS_MAX];
	unsigned int fd_count;

	if (packet_recv(p->worker.rpc, &packet, sizeof(packet), fds, &fd_count))
		return;	/* its end is reported by the pidfd */
	packet_close_fds(fds, fd_count);
	if (packet.magic != TARGET_MAGIC || packet.op != TARGET_READY)
		return;
	if (packet.err)
		SAY(LOG_LEVEL_WARNING, "not everything of the configuration is served: see above");
	if (!p->ready) {
		p->ready = true;
		SAY(LOG_LEVEL_INFO, "version %s serves %u targets on %u portals", LUNFS_VERSION,
		    p->config->target_count, p->config->portal_count);
		print_serving(p);
	} else {
		SAY(LOG_LEVEL_INFO, "the configuration was read again");
	}
	notify_send("READY=1");
}

static void handle_signal(struct parent *p)
{
	struct signalfd_siginfo si;

	if (read(p->signals, &si, sizeof(si)) != sizeof(si))
		return;
	if (si.ssi_signo == SIGHUP) {
		reload(p);
	} else if (!p->stopping) {
		p->stopping = true;
		p->stop_until = env_now_ns(env_posix()) + STOP_MS * NSEC_PER_MSEC;
		notify_send("STOPPING=1");
		SAY(LOG_LEVEL_INFO, "%s: ending", strsignal((int)si.ssi_signo));
		spawn_tell_stop(&p->worker);
	}
}

static int worker_ended(struct parent *p)
{
	char why[256];
	enum spawn_end end = spawn_status(&p->worker, why, sizeof(why));

	if (end == SPAWN_ENDED && p->stopping)
		return 0;
	/* What failed before it was ready it has said itself. */
	if (end == SPAWN_KILLED || p->ready)
		SAY(LOG_LEVEL_ERROR, "%s", why);
	return 1;
}

static int give_up(struct parent *p)
{
	struct pollfd pfd = { .fd = p->worker.pidfd, .events = POLLIN };

	SAY(LOG_LEVEL_ERROR, "commands have not ended within %d s (does a device hang?): ending the "
	    "worker", STOP_MS / 1000);
	syscall(SYS_pidfd_send_signal, p->worker.pidfd, SIGKILL, NULL, 0);
	if (poll(&pfd, 1, KILL_MS) <= 0)
		SAY(LOG_LEVEL_ERROR, "the worker, process %d, is killed but does not end: its I/O "
		    "hangs in the kernel", (int)p->worker.pid);
	return 1;
}

/* Milliseconds until the time for stopping is over; -1 for ever. */
static int stop_left(const struct parent *p)
{
	uint64_t now = env_now_ns(env_posix());

	if (!p->stopping)
		return -1;
	return now < p->stop_until ? (int)((p->stop_until - now) / NSEC_PER_MSEC) + 1 : 0;
}

static int loop(struct parent *p)
{
	struct pollfd pfd[] = {
		{ .fd = p->worker.pidfd, .events = POLLIN },
		{ .fd = p->signals, .events = POLLIN },
		{ .fd = p->worker.rpc, .events = POLLIN },
	};

	for (;;) {
		int left = stop_left(p), n = poll(pfd, ARRAY_SIZE(pfd), left);

		if (n < 0 && errno != EINTR)
			return 1;
		if (n < 0)
			continue;
		if (left == 0 && !pfd[0].revents)
			return give_up(p);
		if (pfd[0].revents)
			return worker_ended(p);
		if (pfd[1].revents)
			handle_signal(p);
		if (pfd[2].revents & POLLIN)
			handle_answer(p);
		else if (pfd[2].revents)
			pfd[2].fd = -1;	/* closed: the pidfd follows */
	}
}

static int open_signals(struct parent *p)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	p->signals = signalfd(-1, &set, SFD_CLOEXEC);
	return p->signals < 0 ? -errno : 0;
}

/* A want of it keeps nobody from serving. */
static void open_control(struct parent *p)
{
	char why[256];

	if (p->options->state && target_control_open(&p->files, p->config->state_dir, why, sizeof(why)))
		SAY(LOG_LEVEL_WARNING, "no status can be asked for: %s", why);
}

/* Everything is open: the worker takes it over. */
static int serve(struct parent *p)
{
	if (open_signals(p)) {
		SAY(LOG_LEVEL_ERROR, "no signals: %s", strerror(errno));
		return 1;
	}
	open_control(p);
	return start_worker(p) ? 1 : loop(p);
}

int target_parent_run(const struct target_options *options, struct tgt_config *config)
{
	struct parent p = { .options = options, .config = config };
	char why[1024];
	int status = 1;

	env_posix_log_level(config->log_level);
	target_files_init(&p.files);
	memcpy(p.asked, config->portals, sizeof(p.asked));
	if (target_portals_open(&p.files, config, why, sizeof(why)) ||
	    target_files_open(&p.files, config, options->state, why, sizeof(why)))
		SAY(LOG_LEVEL_ERROR, "%s", why);
	else
		status = serve(&p);
	target_files_close(&p.files);
	tgt_config_destroy(p.config);
	return status;
}
