// SPDX-License-Identifier: Apache-2.0
/* The transport as a whole: making it, changing it, showing it, ending it. */
#include "iscsi/tgt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "iscsi/internal.h"

void tgt_limits_default(struct tgt_limits *limits)
{
	*limits = (struct tgt_limits){
		.connections_max = 1024,
		.connections_address_max = 256,
		.session_connections_max = 8,
		.sessions_max = 512,
		.half_open_max = 256,
		.half_open_address_max = 64,
		.login_timeout_ms = 15000,
		.nop_interval_ms = 60000,
		.nop_timeout_ms = 60000,
		.commands_max = 128,
		.memory_max = 512 * MIB,
	};
}

/* ---- making ---- */

static int home_init(struct tgt_home *home, struct tgt *tgt, struct reactor *r,
		     unsigned int index, uint64_t memory)
{
	int err;

	home->tgt = tgt;
	home->reactor = r;
	home->index = index;
	list_init(&home->conns);
	list_init(&home->sessions);
	memory_init(home);
	home->sink = malloc(SINK_LEN);
	if (!home->sink)
		return -ENOMEM;
	err = pool_init(&home->pool, memory);
	if (err)
		free(home->sink);
	return err;
}

static void home_fini(struct tgt_home *home)
{
	pool_fini(&home->pool);
	free(home->sink);
}

static struct tgt_config_ref *config_add(struct tgt *tgt, const struct tgt_config *config)
{
	struct tgt_config_ref *ref = calloc(1, sizeof(*ref));

	if (!ref)
		return NULL;
	ref->config = config;
	list_add_tail(&tgt->configs, &ref->node);
	return ref;
}

static int homes_init(struct tgt *tgt, const struct tgt_options *o)
{
	uint64_t memory = o->limits.memory_max / o->reactor_count;
	unsigned int i;
	int err;

	/* Less would let one large command wait for itself. */
	if (memory < 4ULL * POOL_TRANSFER_MAX)
		memory = 4ULL * POOL_TRANSFER_MAX;
	tgt->homes = calloc(o->reactor_count, sizeof(*tgt->homes));
	if (!tgt->homes)
		return -ENOMEM;
	for (i = 0; i < o->reactor_count; i++) {
		err = home_init(&tgt->homes[i], tgt, o->reactors[i], i, memory);
		if (err) {
			while (i-- > 0)
				home_fini(&tgt->homes[i]);
			return err;	/* the array goes with @tgt */
		}
	}
	tgt->home_count = o->reactor_count;
	return 0;
}

static void free_all(struct tgt *tgt)
{
	unsigned int i;

	while (!list_empty(&tgt->configs)) {
		struct tgt_config_ref *ref =
			list_first(&tgt->configs, struct tgt_config_ref, node);

		list_del(&ref->node);
		free(ref);
	}
	for (i = 0; i < tgt->home_count; i++)
		home_fini(&tgt->homes[i]);
	free(tgt->homes);
	env_cond_fini(tgt->env, &tgt->ended);
	env_mutex_fini(tgt->env, &tgt->mutex);
	free(tgt);
}

int tgt_create(const struct tgt_options *options, struct tgt **out)
{
	struct tgt *tgt = calloc(1, sizeof(*tgt));
	int err = -ENOMEM;

	if (!tgt)
		return err;
	tgt->env = options->env;
	tgt->limits = options->limits;
	tgt->find_target = options->find_target;
	tgt->arg = options->arg;
	list_init(&tgt->portals);
	list_init(&tgt->addresses);
	list_init(&tgt->half_open);
	list_init(&tgt->sessions);
	list_init(&tgt->configs);
	env_mutex_init(tgt->env, &tgt->mutex);
	env_cond_init(tgt->env, &tgt->ended);
	tgt->config = config_add(tgt, options->config);
	if (tgt->config)
		err = homes_init(tgt, options);
	if (err) {
		free_all(tgt);
		return err;
	}
	*out = tgt;
	return 0;
}

/* ---- configuration ---- */

struct config_call {
	struct tgt	*tgt;
	const struct tgt_config *config;
	bool		result;
};

static void set_config(void *arg)
{
	struct config_call *call = arg;
	struct tgt_config_ref *ref = config_add(call->tgt, call->config);

	call->result = ref != NULL;
	if (!ref)
		return;
	call->tgt->config = ref;
	registry_enforce(call->tgt);
}

int tgt_set_config(struct tgt *tgt, const struct tgt_config *config)
{
	struct config_call call = { .tgt = tgt, .config = config };

	reactor_call_sync(tgt->homes[0].reactor, set_config, &call);
	return call.result ? 0 : -ENOMEM;
}

static void forget_config(void *arg)
{
	struct config_call *call = arg;
	struct tgt_config_ref *ref, *tmp;

	call->result = true;
	list_for_each(ref, tmp, &call->tgt->configs, node) {
		if (ref->config != call->config)
			continue;
		if (ref == call->tgt->config || atomic_load(&ref->users)) {
			call->result = false;
			return;
		}
		list_del(&ref->node);
		free(ref);
	}
}

bool tgt_config_unused(struct tgt *tgt, const struct tgt_config *config)
{
	struct config_call call = { .tgt = tgt, .config = config };

	reactor_call_sync(tgt->homes[0].reactor, forget_config, &call);
	return call.result;
}

/* ---- every connection ---- */

struct each_call {
	struct tgt_home	*home;
	void		(*fn)(void *arg, const struct tgt_connection_status *status);
	void		*arg;
	const char	*iqn;
	unsigned int	timeout_ms;
};

static void show_each(void *arg)
{
	struct each_call *call = arg;
	struct tgt_connection_status status;
	struct tgt_conn *conn, *tmp;

	list_for_each(conn, tmp, &call->home->conns, home_node) {
		if (conn->state != CONN_FULL)
			continue;
		memset(&status, 0, sizeof(status));
		memcpy(status.initiator, conn->params.initiator, sizeof(status.initiator));
		memcpy(status.target, conn->params.target, sizeof(status.target));
		memcpy(status.user, conn->session->params.user, sizeof(status.user));
		snprintf(status.address, sizeof(status.address), "%s", conn->name);
		status.tsih = conn->session->tsih;
		status.cid = conn->params.cid;
		status.reactor = call->home->index;
		status.commands = conn->commands;
		status.bytes_in = conn->bytes_in;
		status.bytes_out = conn->bytes_out;
		call->fn(call->arg, &status);
	}
}

void tgt_each_connection(struct tgt *tgt,
			 void (*fn)(void *arg, const struct tgt_connection_status *status),
			 void *arg)
{
	unsigned int i;

	for (i = 0; i < tgt->home_count; i++) {
		struct each_call call = { .home = &tgt->homes[i], .fn = fn, .arg = arg };

		reactor_call_sync(tgt->homes[i].reactor, show_each, &call);
	}
}

static void ask_each(void *arg)
{
	struct each_call *call = arg;
	struct tgt_conn *conn, *tmp;

	list_for_each(conn, tmp, &call->home->conns, home_node)
		if (conn->state == CONN_FULL && !conn->logout_ns &&
		    (!call->iqn || !strcmp(call->iqn, conn->params.target)))
			conn_ask_logout(conn, call->timeout_ms);
}

void tgt_logout_all(struct tgt *tgt, const char *iqn, unsigned int timeout_ms)
{
	unsigned int i;

	for (i = 0; i < tgt->home_count; i++) {
		struct each_call call = { .home = &tgt->homes[i], .iqn = iqn,
					  .timeout_ms = timeout_ms };

		reactor_call_sync(tgt->homes[i].reactor, ask_each, &call);
	}
}

struct retire_call {
	struct tgt	*tgt;
	const char	*iqn;
	void		(*retire)(void *arg);
	void		*arg;
	unsigned int	sessions;
};

/* Where logins ask find_target(), too. */
static void retire(void *arg)
{
	struct retire_call *call = arg;

	call->sessions = registry_count(call->tgt, call->iqn);
	if (!call->sessions)
		call->retire(call->arg);
}

unsigned int tgt_retire(struct tgt *tgt, const char *iqn, void (*fn)(void *arg), void *arg)
{
	struct retire_call call = { .tgt = tgt, .iqn = iqn, .retire = fn, .arg = arg };

	reactor_call_sync(tgt->homes[0].reactor, retire, &call);
	return call.sessions;
}

/* ---- the end ---- */

static void begin_end(void *arg)
{
	struct tgt *tgt = arg;

	portal_close_all(tgt);
	registry_close_all(tgt);
}

/* Behind what the reactor has still been told. */
static void home_end(void *arg)
{
	memory_fini(arg);
}

static void nothing(void *arg)
{
	(void)arg;
}

void tgt_stop(struct tgt *tgt)
{
	unsigned int i;

	reactor_call_sync(tgt->homes[0].reactor, begin_end, tgt);
	/* Behind what each reactor was told of its sessions. */
	for (i = 0; i < tgt->home_count; i++)
		reactor_call_sync(tgt->homes[i].reactor, nothing, NULL);
	tgt->stopped = true;
}

void tgt_destroy(struct tgt *tgt)
{
	unsigned int i;

	if (!tgt->stopped)
		tgt_stop(tgt);
	env_mutex_lock(tgt->env, &tgt->mutex);
	while (!tgt->empty)
		env_cond_wait(tgt->env, &tgt->ended, &tgt->mutex, ENV_FOREVER);
	env_mutex_unlock(tgt->env, &tgt->mutex);
	for (i = 0; i < tgt->home_count; i++)
		reactor_call_sync(tgt->homes[i].reactor, home_end, &tgt->homes[i]);
	free_all(tgt);
}
