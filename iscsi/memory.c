// SPDX-License-Identifier: Apache-2.0
/*
 * Data buffers: who waits for one, and who has to give his back.
 *
 * Commands that find no memory wait, first come, first served; small ones have a reserve of
 * their own (pool.h).  An initiator can keep buffers as long as it likes: by sending no data for
 * its writes, or fetching none of its reads.  That is its own affair until somebody waits: then,
 * if nothing has come free for a while, of the connections that keep buffers and move less than a
 * slow network would the one that keeps most is closed, one a look.
 */
#include "iscsi/internal.h"

#define LOOK_NS		NSEC_PER_SEC
#define PATIENCE_NS	(2 * NSEC_PER_SEC)	/* of who waits, and for who keeps */
#define MOVED_MIN	(1 << 20)		/* bytes between two looks: it is getting on */

static uint32_t need_of(const struct tgt_task *task)
{
	return task->scsi.out_len > task->scsi.in_max ? task->scsi.out_len : task->scsi.in_max;
}

bool memory_get_now(struct tgt_task *task, uint32_t len)
{
	struct tgt_home *home = task->session->home;

	if (!pool_get(&home->pool, len, &task->buf))
		return false;
	task->memory_ns = reactor_now_ns(home->reactor);
	return true;
}

bool memory_get(struct tgt_task *task, bool data_comes)
{
	struct tgt_home *home = task->session->home;
	uint32_t need = need_of(task);
	bool behind = !list_empty(&home->waiting);

	assert(need <= POOL_TRANSFER_MAX);
	if (!need || task->buf.count)
		return true;
	if (behind && !data_comes && !pool_is_entitled(&home->pool, need))
		return false;
	return memory_get_now(task, need);
}

static void watch(struct tgt_home *home, uint64_t now)
{
	if (!home->memory_timer.heap_index)
		reactor_timer_set(home->reactor, &home->memory_timer, now + LOOK_NS);
}

void memory_wait(struct tgt_task *task)
{
	struct tgt_home *home = task->session->home;
	uint64_t now = reactor_now_ns(home->reactor);

	task->state = TASK_MEMORY;
	task->memory_ns = now;
	list_add_tail(&home->waiting, &task->queue);
	watch(home, now);
}

void memory_refused(struct tgt_home *home)
{
	uint64_t now = reactor_now_ns(home->reactor);

	/* Not the one of long ago, but again and again. */
	if (now - home->refused_ns > PATIENCE_NS)
		home->refused_since_ns = now;
	home->refused_ns = now;
	watch(home, now);
}

void memory_freed(struct tgt_home *home)
{
	if (!list_empty(&home->waiting))
		reactor_at_end(home->reactor, &home->memory_end);
}

void memory_put(struct tgt_task *task)
{
	struct tgt_home *home = task->session->home;

	if (!task->buf.count)
		return;
	pool_put(&home->pool, &task->buf);
	memory_freed(home);
}

/* First come, first served: a large one is not starved by small ones. */
static void serve_waiters(struct reactor_end *e)
{
	struct tgt_home *home = container_of(e, struct tgt_home, memory_end);

	while (!list_empty(&home->waiting)) {
		struct tgt_task *task = list_first(&home->waiting, struct tgt_task, queue);

		if (!memory_get_now(task, need_of(task)))
			return;
		list_del(&task->queue);
		task_has_memory(task);
	}
}

/* ---- who keeps it ---- */

/* What @conn's tasks keep, and have kept for a while, without the device being at work on it. */
static uint64_t kept(const struct tgt_conn *conn, uint64_t now)
{
	struct tgt_task *task, *tmp;
	uint64_t sum = 0;

	list_for_each(task, tmp, &conn->tasks, node)
		if (task->buf.count && task->state != TASK_RUNNING &&
		    now - task->memory_ns >= PATIENCE_NS)
			sum += task->buf.len;
	return sum;
}

/* Looks at every connection; of those that do not get on, the one that keeps most. */
static struct tgt_conn *find_hoarder(struct tgt_home *home, uint64_t now)
{
	struct tgt_conn *conn, *tmp, *worst = NULL;
	uint64_t most = 0;

	list_for_each(conn, tmp, &home->conns, home_node) {
		uint64_t moved = conn->bytes_in + conn->bytes_out, sum;
		bool gets_on = moved - conn->moved >= MOVED_MIN;

		conn->moved = moved;
		sum = gets_on ? 0 : kept(conn, now);
		if (sum > most) {
			most = sum;
			worst = conn;
		}
	}
	return worst;
}

static bool is_refusing(const struct tgt_home *home, uint64_t now)
{
	return home->refused_ns && now - home->refused_ns <= PATIENCE_NS;
}

/* For a while nobody has got what he needs. */
static bool is_starving(const struct tgt_home *home, uint64_t now)
{
	if (is_refusing(home, now) && now - home->refused_since_ns >= PATIENCE_NS)
		return true;
	return !list_empty(&home->waiting) &&
	       now - list_first(&home->waiting, struct tgt_task, queue)->memory_ns >= PATIENCE_NS;
}

static void look(struct reactor_timer *t)
{
	struct tgt_home *home = container_of(t, struct tgt_home, memory_timer);
	uint64_t now = reactor_now_ns(home->reactor);
	struct tgt_conn *hoarder;

	if (list_empty(&home->waiting) && !is_refusing(home, now))
		return;
	hoarder = find_hoarder(home, now);
	if (hoarder && is_starving(home, now))
		conn_close(hoarder, "it keeps data buffers that others wait for");
	reactor_timer_set(home->reactor, t, now + LOOK_NS);
}

void memory_init(struct tgt_home *home)
{
	list_init(&home->waiting);
	reactor_end_init(&home->memory_end, serve_waiters);
	home->memory_timer.fn = look;
}

void memory_fini(struct tgt_home *home)
{
	reactor_timer_cancel(home->reactor, &home->memory_timer);
	reactor_end_cancel(home->reactor, &home->memory_end);
}
