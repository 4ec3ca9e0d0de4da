/* SPDX-License-Identifier: Apache-2.0 */
/* lunfs-target's unprivileged half: everything that faces initiators and devices. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proc/packet.h"
#include "proc/sandbox.h"
#include "proc/spawn.h"
#include "target/pack.h"
#include "target/status.h"
#include "target/target.h"
#include "target/units.h"

#define SAY(level, ...)	env_log(env_posix(), level, TARGET_NAME, __VA_ARGS__)
#define OLD_CONFIGS_MAX	8	/* that logins under way may still use */
#define SIZES_MS	5000	/* how soon a file that has grown is noticed without SIGHUP */
#define CLOSE_MS	1000	/* for a device to answer what a removed unit has sent it … */
#define CLOSING_MS	100	/* … and how often to look afterwards */
#define LOGOUT_MS	1000	/* for initiators to leave by themselves at the end */

struct worker {
	struct target_packet hello;
	struct tgt_config *config;	/* in force */
	struct tgt_config *next;	/* being received */
	struct tgt_config *old[OLD_CONFIGS_MAX];
	struct reactor	*reactors[TGT_REACTORS_MAX];
	unsigned int	reactor_count;
	struct units	units;
	struct tgt	*tgt;
	struct { int fd; uint16_t group; } portals[TGT_PORTALS_MAX];
	unsigned int	portal_count;
	int		control;	/* where status is asked for, or -1 */
	uint64_t	sizes_ns;	/* when files are looked at next */
	bool		serving;
	bool		closing;	/* units that were removed, and whose device has not answered yet */
};

/* ---- starting ---- */

static unsigned int count_reactors(const struct tgt_config *config)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	if (config->reactors)
		return config->reactors;
	if (cpus < 1)
		return 1;
	return cpus < TGT_REACTORS_MAX ? (unsigned int)cpus : TGT_REACTORS_MAX;
}

/* Timers: of each connection a few, of logical units and what serves them some. */
static unsigned int count_timers(const struct tgt_config *config)
{
	const struct tgt_limits *l = &config->limits;

	return 4 * (l->connections_max + l->half_open_max) + 1024;
}

static int start_reactors(struct worker *w)
{
	unsigned int count = count_reactors(w->next);
	char name[16];

	for (unsigned int i = 0; i < count; i++) {
		int err;

		snprintf(name, sizeof(name), "reactor-%u", i % 1000);
		err = reactor_create(env_posix(), name, w->next->poll_us * 1000ULL,
				     count_timers(w->next), &w->reactors[i]);
		if (err)
			return err;
		w->reactor_count++;
	}
	return 0;
}

static int start_target(struct worker *w)
{
	struct tgt_options options = {
		.env = env_posix(), .reactors = w->reactors, .reactor_count = w->reactor_count,
		.limits = w->next->limits, .config = w->next, .find_target = units_find,
		.arg = &w->units,
	};

	return tgt_create(&options, &w->tgt);
}

/* Before the first connection: what libraries open or ask for late they get now. */
static int confine(struct worker *w)
{
	const char *what = "seccomp";
	int err;

	sandbox_keep_realtime();	/* that is, its limit of open files: each connection is one */
	err = sandbox_drop(w->hello.hello.uid, w->hello.hello.gid, w->hello.hello.parent, &what);
	if (!err && tgt_chap_available() != TGT_CHAP_ALL)
		SAY(LOG_LEVEL_WARNING, "libcrypto lacks some algorithms of CHAP here");
	if (!err) {
		what = "seccomp";
		err = sandbox_filter();
	}
	if (err)
		SAY(LOG_LEVEL_ERROR, "the worker cannot give its privileges up: %s: %s", what,
		    strerror(-err));
	if (!err && sandbox_filter_is_open())
		SAY(LOG_LEVEL_WARNING, "the system call filter only logs (LUNFS_SECCOMP, or a build "
		    "with sanitizers): for debugging, not for service");
	return err;
}

/* ---- what the parent sends ---- */

/* Those that no login uses any more; there are never more than one or two. */
static void free_old_configs(struct worker *w)
{
	for (unsigned int i = 0; i < OLD_CONFIGS_MAX; i++) {
		if (!w->old[i] || !tgt_config_unused(w->tgt, w->old[i]))
			continue;
		tgt_config_destroy(w->old[i]);
		w->old[i] = NULL;
	}
}

static int take_config(struct worker *w, const int *fds, unsigned int fd_count)
{
	int err = fd_count == 1 ? config_unpack(fds[0], &w->next) : -EPROTO;

	packet_close_fds(fds, fd_count);
	if (err) {
		SAY(LOG_LEVEL_ERROR, "the configuration does not arrive: %s", strerror(-err));
		return err;
	}
	env_posix_log_level(w->next->log_level);
	env_posix_log_limit();
	if (w->reactor_count)
		return 0;
	err = start_reactors(w);
	if (!err)
		err = units_init(&w->units, w->reactors, w->reactor_count);
	if (err)
		SAY(LOG_LEVEL_ERROR, "cannot start the reactors: %s", strerror(-err));
	return err;
}

static int take_portal(struct worker *w, const struct target_packet *packet, const int *fds,
		       unsigned int fd_count)
{
	if (fd_count != 1 || w->portal_count == TGT_PORTALS_MAX) {
		packet_close_fds(fds, fd_count);
		return -EPROTO;
	}
	w->portals[w->portal_count].fd = fds[0];
	w->portals[w->portal_count++].group = packet->portal_group;
	return 0;
}

static int take_control(struct worker *w, const int *fds, unsigned int fd_count)
{
	if (fd_count != 1 || w->control >= 0) {
		packet_close_fds(fds, fd_count);
		return -EPROTO;
	}
	w->control = fds[0];
	return 0;
}

static int open_portals(struct worker *w)
{
	for (unsigned int i = 0; i < w->portal_count; i++) {
		int err = tgt_listen(w->tgt, w->portals[i].fd, w->portals[i].group);

		if (err)
			return err;
	}
	w->portal_count = 0;	/* theirs now */
	return 0;
}

/* The first time; everything is open by then. */
static int begin_serving(struct worker *w)
{
	int err = start_target(w);

	if (!err)
		err = confine(w);
	if (!err)
		err = open_portals(w);
	if (err)
		SAY(LOG_LEVEL_ERROR, "cannot serve: %s", strerror(-err));
	else
		w->serving = true;
	return err;
}

/* @some: an error that keeps single units from being as configured. */
static int change_config(struct worker *w, int *some)
{
	unsigned int i = 0;
	int err;

	free_old_configs(w);
	while (i < OLD_CONFIGS_MAX && w->old[i])
		i++;
	if (i == OLD_CONFIGS_MAX) {
		SAY(LOG_LEVEL_ERROR, "too many configurations in too short a time");
		tgt_config_destroy(w->next);
		return -EBUSY;
	}
	err = tgt_set_config(w->tgt, w->next);
	if (err) {
		tgt_config_destroy(w->next);
		return err;
	}
	w->old[i] = w->config;
	tgt_listen_only(w->tgt, w->next->portals, w->next->portal_count);
	err = open_portals(w);
	if (err)
		SAY(LOG_LEVEL_ERROR, "not every new portal is served: %s", strerror(-err));
	if (err && !*some)
		*some = err;
	units_remove(&w->units, w->next);
	w->closing = units_close_removed(&w->units, CLOSE_MS * NSEC_PER_MSEC);
	return 0;
}

static int serve(struct worker *w)
{
	struct target_packet answer = { .magic = TARGET_MAGIC, .op = TARGET_READY };
	int err;

	if (!w->next)
		return -EPROTO;
	answer.err = units_apply(&w->units, w->next);
	err = w->serving ? change_config(w, &answer.err) : begin_serving(w);
	if (!err)
		w->config = w->next;
	else if (!w->serving)
		return err;
	else
		answer.err = err;
	w->next = NULL;
	return packet_send(SPAWN_FD_RPC, &answer, sizeof(answer), NULL, 0);
}

static int take_packet(struct worker *w)
{
	struct target_packet packet;
	int fds[PACKET_FDS_MAX];
	unsigned int fd_count;
	int err = packet_recv(SPAWN_FD_RPC, &packet, sizeof(packet), fds, &fd_count);

	if (err)
		return err;
	if (packet.magic != TARGET_MAGIC) {
		packet_close_fds(fds, fd_count);
		return -EPROTO;
	}
	switch (packet.op) {
	case TARGET_CONFIG:
		return take_config(w, fds, fd_count);
	case TARGET_PORTAL:
		return take_portal(w, &packet, fds, fd_count);
	case TARGET_LUN:
		return units_take(&w->units, &packet, fds, fd_count);
	case TARGET_CONTROL:
		return take_control(w, fds, fd_count);
	case TARGET_SERVE:
		return serve(w);
	default:
		packet_close_fds(fds, fd_count);
		return -EPROTO;
	}
}

static int receive_hello(struct worker *w)
{
	int fds[PACKET_FDS_MAX];
	unsigned int fd_count;
	int err = packet_recv(SPAWN_FD_RPC, &w->hello, sizeof(w->hello), fds, &fd_count);

	if (err)
		return err;
	packet_close_fds(fds, fd_count);
	return w->hello.magic == TARGET_MAGIC && w->hello.op == TARGET_HELLO ? 0 : -EPROTO;
}

static void look_at_units(struct worker *w)
{
	uint64_t now = env_now_ns(env_posix());

	if (!w->serving)
		return;
	if (w->closing)
		w->closing = units_close_removed(&w->units, 0);
	if (now < w->sizes_ns)
		return;
	w->sizes_ns = now + SIZES_MS * NSEC_PER_MSEC;
	units_look_at_sizes(&w->units);
}

/* Return: 0 when the parent says stop. */
static int follow_parent(struct worker *w)
{
	struct pollfd pfd[] = {
		{ .fd = SPAWN_FD_LIFE, .events = POLLIN }, { .fd = SPAWN_FD_RPC, .events = POLLIN },
		{ .events = POLLIN },
	};

	for (;;) {
		int err = 0, timeout = w->closing ? CLOSING_MS : w->serving ? SIZES_MS : -1;

		pfd[2].fd = w->serving ? w->control : -1;
		if (poll(pfd, ARRAY_SIZE(pfd), timeout) < 0 && errno != EINTR)
			return -errno;
		look_at_units(w);
		if (pfd[0].revents)
			break;
		if (pfd[1].revents)
			err = take_packet(w);
		else if (pfd[2].revents)
			status_serve(w->control, w->tgt, &w->units, w->config);
		if (err)
			return err;
	}
	spawn_wait_stop();	/* reads what is there, or finds the parent dead */
	return 0;
}

static void end(struct worker *w)
{
	if (w->serving) {
		tgt_logout_all(w->tgt, NULL, LOGOUT_MS);
		tgt_destroy(w->tgt);
	}
	units_fini(&w->units);
	for (unsigned int i = 0; i < w->reactor_count; i++)
		reactor_destroy(w->reactors[i]);
	for (unsigned int i = 0; i < OLD_CONFIGS_MAX; i++)
		tgt_config_destroy(w->old[i]);
	tgt_config_destroy(w->config);
}

int target_worker_run(void)
{
	static struct worker w = { .control = -1 };	/* large, and one a process */
	int err;

	prctl(PR_SET_NAME, "target-worker");
	spawn_ignore_signals();
	err = receive_hello(&w);
	if (!err)
		err = follow_parent(&w);
	if (err)
		_exit(1);
	end(&w);
	return 0;
}
