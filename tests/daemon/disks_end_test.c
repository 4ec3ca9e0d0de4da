// SPDX-License-Identifier: Apache-2.0
/* disks_end.c: the end of a daemon while something of its disks hangs, or is just coming or going. */
#include "daemon/store_internal.h"
#include "tests/daemon/held_store.h"

#define MANY	20u	/* more than any number of threads that a datastore may have at once */

static struct held_world worlds[8], *w;
static struct serving *s;
static atomic_bool ended;

/* Each test has a world of its own: threads of the last one's are still there. */
static void begin(unsigned int disks_0, unsigned int disks_1)
{
	w = w ? w + 1 : worlds;
	s = &w->serving;
	held_begin(w, (unsigned int[HELD_STORES]){ disks_0, disks_1 });
}

static void *end(void *arg)
{
	(void)arg;
	serving_end(s);
	atomic_store(&ended, true);
	return NULL;
}

/* It has begun, and has had time for what must not follow yet. */
static pthread_t end_begins(void)
{
	pthread_t thread;
	bool begun = false;

	atomic_store(&ended, false);
	CU_ASSERT_EQUAL_FATAL(pthread_create(&thread, NULL, end, NULL), 0);
	while (!begun) {
		pause_ms(1);
		pthread_mutex_lock(&s->disks.mutex);
		begun = s->disks.stopping;
		pthread_mutex_unlock(&s->disks.mutex);
	}
	pause_ms(50);
	CU_ASSERT_FALSE(atomic_load(&ended));
	return thread;
}

static void end_finishes(pthread_t thread)
{
	pthread_join(thread, NULL);
	CU_ASSERT_EQUAL(s->disks.alive + s->disks.count, 0);
	CU_ASSERT(list_empty(&s->disks.list) && list_empty(&s->disks.ports));
	CU_ASSERT_EQUAL(s->disks.load[0] + s->disks.load[1], 0);
	CU_ASSERT_EQUAL(s->stores.count, 0);
	held_end(w);
}

static bool is_listed(const struct store *store)
{
	bool listed;

	pthread_mutex_lock(&s->stores.mutex);
	listed = store_is_listed(&s->stores, store);
	pthread_mutex_unlock(&s->stores.mutex);
	return listed;
}

static unsigned int alive(void)
{
	unsigned int n;

	pthread_mutex_lock(&s->disks.mutex);
	n = s->disks.alive;
	pthread_mutex_unlock(&s->disks.mutex);
	return n;
}

static bool is_detaching(const struct attachment *a)
{
	bool detaching;

	pthread_mutex_lock(&s->disks.mutex);
	detaching = a->detaching;
	pthread_mutex_unlock(&s->disks.mutex);
	return detaching;
}

/* ---- what hangs ---- */

static atomic_uint answered;

static void answer(struct blk_io *io, int err)
{
	(void)io;
	(void)err;
	atomic_fetch_add(&answered, 1);
}

/* A request to each disk of the first datastore: a read of what is there, or a flush, by what blocks. */
static void ask_all(enum blk_op op)
{
	static uint8_t data[4096] BLKDEV_ALIGNED;
	static struct iovec iov = { data, sizeof(data) };
	static struct blk_io ios[MANY];

	atomic_store(&answered, 0);
	for (unsigned int i = 0; i < MANY; i++) {
		struct blk_io *io = &ios[i];
		struct attachment *a;
		char path[24];

		held_disk_path(path, i);
		a = disks_find(&s->disks, w->stores[0], path);
		*io = (struct blk_io){ .op = op, .done = answer };
		if (op == BLK_READ) {
			io->len = sizeof(data);
			io->iov = &iov;
			io->iovcnt = 1;
		}
		blkdev_submit(disk_blkdev(a->disk), &io, 1);
		disks_put(a);
	}
}

/* Guests of another datastore had to wait for threads that all hung in this one. */
static void a_datastore_that_hangs_stops_its_own_guests_only(void)
{
	struct attachment *a;
	pthread_t thread;
	char path[24];

	begin(MANY, 1);
	for (unsigned int i = 0; i < MANY; i++)
		held_serve(w, 0, i);
	held_hang(&w->held[0]);
	ask_all(BLK_FLUSH);
	held_serve(w, 1, 0);
	held_disk_path(path, 0);
	a = disks_find(&s->disks, w->stores[1], path);
	CU_ASSERT_EQUAL(blkdev_flush(disk_blkdev(a->disk)), 0);
	disks_put(a);
	CU_ASSERT_EQUAL(atomic_load(&answered), 0);
	held_go_on(&w->held[0]);
	while (atomic_load(&answered) < MANY)
		pause_ms(1);
	end_finishes((pthread_create(&thread, NULL, end, NULL), thread));
}

/* What went to stderr goes into a file. */
static int log_into_memory(int *saved)
{
	int fd = memfd_create("log", MFD_CLOEXEC);

	*saved = dup(STDERR_FILENO);
	dup2(fd, STDERR_FILENO);
	return fd;
}

static bool log_has(int fd, const char *text)
{
	static char log[64 * KIB];
	ssize_t n = pread(fd, log, sizeof(log) - 1, 0);

	log[n > 0 ? n : 0] = '\0';
	return strstr(log, text);
}

/*
 * Its disks are given up as after a kill; those of others, and their datastores, in order: their locks and
 * their slot are free for other hosts.  And it is said what is waited for.
 */
static void many_disks_of_a_datastore_that_hangs_keep_no_other_from_its_end(void)
{
	struct store *hangs, *sound;
	pthread_t thread;
	int saved, log;

	begin(MANY, 1);
	for (unsigned int i = 0; i < MANY; i++)
		held_serve(w, 0, i);
	held_serve(w, 1, 0);
	hangs = w->stores[0];
	sound = w->stores[1];
	s->disks.end_patience_ms = 20;
	log = log_into_memory(&saved);
	held_hang(&w->held[0]);
	ask_all(BLK_READ);
	thread = end_begins();
	while (is_listed(sound) || !log_has(log, " more disks are not given up yet"))
		pause_ms(1);
	dup2(saved, STDERR_FILENO);
	close(saved);
	CU_ASSERT(log_has(log, "ds0:/disk-0: is not given up yet: "));
	CU_ASSERT(log_has(log, "ds0.img hang?"));
	close(log);
	CU_ASSERT_EQUAL(alive(), MANY);
	CU_ASSERT(is_listed(hangs) && !atomic_load(&ended));
	held_go_on(&w->held[0]);
	end_finishes(thread);
}

/* ---- what is coming or going ---- */

struct command {
	const char	*path;
	bool		detach;
	int		err;
	atomic_bool	done;
	pthread_t	thread;
};

static void *run_command(void *arg)
{
	struct command *c = arg;
	struct attachment *a;
	char why[STORE_WHY_SIZE] = "";

	if (c->detach) {
		c->err = disks_detach(&s->disks, w->stores[0], c->path, true, why, sizeof(why));
	} else {
		c->err = held_attach(w, 0, c->path, &a);
		if (!c->err)
			disks_put(a);
	}
	atomic_store(&c->done, true);
	return NULL;
}

static void command_begins(struct command *c)
{
	CU_ASSERT_EQUAL_FATAL(pthread_create(&c->thread, NULL, run_command, c), 0);
}

/* It was freed by the end, and by who attached it when that failed. */
static void what_is_just_being_attached_is_freed_once(void)
{
	struct command sound = { .path = "/disk-0" }, none = { .path = "/none" };
	struct store *store;
	pthread_t thread;

	begin(1, 0);
	store = w->stores[0];
	held_hang(&w->held[0]);
	command_begins(&sound);
	command_begins(&none);
	while (alive() < 2 || !held_count(&w->held[0]))
		pause_ms(1);
	thread = end_begins();
	CU_ASSERT(alive() == 2 && is_listed(store));
	held_go_on(&w->held[0]);
	pthread_join(sound.thread, NULL);
	pthread_join(none.thread, NULL);
	CU_ASSERT_EQUAL(sound.err, 0);
	CU_ASSERT_EQUAL(none.err, -ENOENT);
	end_finishes(thread);
}

/* The same by the end, and by who detached it. */
static void what_is_just_being_detached_is_freed_once(void)
{
	struct command c = { .path = "/disk-0", .detach = true };
	pthread_t thread;

	begin(1, 0);
	held_serve(w, 0, 0);
	held_hang(&w->held[0]);
	command_begins(&c);
	while (!held_count(&w->held[0]))
		pause_ms(1);
	thread = end_begins();
	CU_ASSERT_FALSE(atomic_load(&c.done));
	held_go_on(&w->held[0]);
	pthread_join(c.thread, NULL);
	CU_ASSERT_EQUAL(c.err, 0);
	end_finishes(thread);
}

/* A copy that goes on, a detach that waits for it, and the end, which waits for both. */
static void what_a_command_holds_is_there_until_it_lets_go(void)
{
	struct command c = { .path = "/disk-0", .detach = true };
	struct attachment *held, *other;
	pthread_t thread;

	begin(2, 0);
	held_serve(w, 0, 0);
	held_serve(w, 0, 1);
	held = disks_find(&s->disks, w->stores[0], "/disk-0");
	other = disks_find(&s->disks, w->stores[0], "/disk-1");
	command_begins(&c);
	while (!is_detaching(held))
		pause_ms(1);
	thread = end_begins();
	CU_ASSERT(alive() == 2 && !atomic_load(&c.done));
	/* Nobody else gets hold of it any more. */
	CU_ASSERT_PTR_NULL(disks_find(&s->disks, w->stores[0], "/disk-0"));
	CU_ASSERT_PTR_NULL(disks_find_id(&s->disks, w->stores[0], disk_id(other->disk)));
	CU_ASSERT(disk_is_open(held->disk) && disk_is_open(other->disk));
	disks_put(held);
	pthread_join(c.thread, NULL);
	CU_ASSERT_EQUAL(c.err, 0);
	pause_ms(20);
	CU_ASSERT(alive() == 1 && disk_is_open(other->disk) && !atomic_load(&ended));
	disks_put(other);
	end_finishes(thread);
}

/* ---- what was attached before ---- */

/*
 * A daemon is started anew, and a datastore with many disks hangs: those of others are served again, and so
 * does it end.
 */
static void disks_are_restored_whatever_others_hang_in(void)
{
	struct attachment *a = NULL;
	struct store *sound;
	pthread_t thread;

	begin(MANY, 1);
	for (unsigned int i = 0; i < MANY; i++)
		held_serve(w, 0, i);
	held_serve(w, 1, 0);
	sound = w->stores[1];
	merger_stop(&s->merger);
	disks_give_up(&s->disks);
	disks_end_wait(&s->disks);
	for (unsigned int i = 0; i < HELD_STORES; i++)
		held_store_again(w, i);
	disks_shutdown(&s->disks);
	vhu_server_free(s->disks.server);
	held_hang(&w->held[0]);
	held_disks_begin(w);
	CU_ASSERT_EQUAL_FATAL(merger_start(&s->merger, &s->stores, &s->disks), 0);
	while (!(a = disks_find(&s->disks, sound, "/disk-0")))
		pause_ms(1);
	CU_ASSERT_STRING_EQUAL(a->ended, "");
	CU_ASSERT(disk_is_open(a->disk));
	disks_put(a);
	thread = end_begins();
	while (is_listed(sound))
		pause_ms(1);
	CU_ASSERT_FALSE(atomic_load(&ended));
	held_go_on(&w->held[0]);
	end_finishes(thread);
}

UNIT_MAIN("daemon/disks_end",
	  UNIT_TEST(a_datastore_that_hangs_stops_its_own_guests_only),
	  UNIT_TEST(many_disks_of_a_datastore_that_hangs_keep_no_other_from_its_end),
	  UNIT_TEST(what_is_just_being_attached_is_freed_once),
	  UNIT_TEST(what_is_just_being_detached_is_freed_once),
	  UNIT_TEST(what_a_command_holds_is_there_until_it_lets_go),
	  UNIT_TEST(disks_are_restored_whatever_others_hang_in));
