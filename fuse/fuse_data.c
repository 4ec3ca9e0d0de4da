/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plain reads and writes, past libfuse: for those it would allocate a request, put it on a list
 * under its session's mutex and take it off again.  Answers of what goes to the device
 * asynchronously are written by the thread that sees it complete.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuse/internal.h"

/* ---- slots ---- */

struct mnt_slot *mnt_slot_new(struct mnt *m)
{
	struct mnt_slot *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->mnt = m;
	s->memory = mmap(NULL, SLOT_BYTES, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (s->memory == MAP_FAILED) {
		free(s);
		return NULL;
	}
	return s;
}

void mnt_slot_free(struct mnt_slot *s)
{
	if (!s)
		return;
	munmap(s->memory, SLOT_BYTES);
	free(s);
}

/* The last one given back is the first one taken: its memory is still in the caches. */
struct mnt_slot *mnt_slot_take(struct mnt *m)
{
	struct mnt_slot *s;

	pthread_mutex_lock(&m->slot_mutex);
	s = m->spare;
	if (s)
		m->spare = s->next;
	pthread_mutex_unlock(&m->slot_mutex);
	return s;
}

void mnt_slot_give(struct mnt_slot *s)
{
	struct mnt *m = s->mnt;

	pthread_mutex_lock(&m->slot_mutex);
	s->next = m->spare;
	m->spare = s;
	pthread_mutex_unlock(&m->slot_mutex);
}

int mnt_slots_init(struct mnt *m)
{
	struct mnt_slot *s;

	for (unsigned int i = 0; i < SLOTS_SPARE; i++) {
		s = mnt_slot_new(m);
		if (!s)
			return -ENOMEM;
		mnt_slot_give(s);
	}
	return 0;
}

void mnt_slots_fini(struct mnt *m)
{
	struct mnt_slot *s;

	while ((s = mnt_slot_take(m)))
		mnt_slot_free(s);
}

/* ---- requests ---- */

/*
 * The operations of struct fuse_write_in begin where those of struct fuse_read_in do: fh,
 * offset and size are at the same places in both.
 */
static_assert(sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in) == REQUEST_HEADER,
	      "data of a write begins at a page");
static_assert(offsetof(struct fuse_read_in, size) == offsetof(struct fuse_write_in, size),
	      "reads look like writes");

/* What is more than a write: op_write() appends, and sees to what has to be durable (R7). */
static bool is_special(const struct fuse_write_in *w)
{
	return (w->flags & (O_APPEND | O_DSYNC)) && !(w->write_flags & FUSE_WRITE_CACHE);
}

bool mnt_data_prepare(struct mnt_slot *s, size_t n)
{
	const struct fuse_in_header *in = (const void *)slot_request(s);
	const struct fuse_write_in *arg = (const void *)(in + 1);
	const struct mnt_file *f;
	enum blk_op op;

	if (n < REQUEST_HEADER || (in->opcode != FUSE_READ && in->opcode != FUSE_WRITE))
		return false;
	op = in->opcode == FUSE_READ ? BLK_READ : BLK_WRITE;
	if (arg->size > MNT_IO_MAX)
		return false;
	if (op == BLK_WRITE && (n != REQUEST_HEADER + arg->size || is_special(arg)))
		return false;
	f = (const struct mnt_file *)(uintptr_t)arg->fh;
	s->unique = in->unique;
	fs_cache_opened(s->mnt->fs, f->file);
	if (fs_io_prepare(s->mnt->fs, f->file, op, arg->offset, slot_data(s), arg->size, &s->fio))
		return false;
	if (op == BLK_READ || arg->write_flags & FUSE_WRITE_CACHE ||
	    !fs_io_has_privileges(&s->fio, mnt_clears_set_id(in->uid)))
		return true;
	fs_io_drop(&s->fio);
	return false;
}

/* One write(2): the answer's header lies right before the data. */
static void answer(struct mnt_slot *s, int err)
{
	struct fuse_out_header *out = (void *)(slot_data(s) - sizeof(*out));
	struct fuse_write_out *written = (void *)slot_data(s);
	size_t len = 0;

	if (!err && s->fio.io.op == BLK_READ) {
		len = s->fio.io.len;
	} else if (!err) {
		*written = (struct fuse_write_out){ .size = (uint32_t)s->fio.io.len };
		len = sizeof(*written);
	}
	*out = (struct fuse_out_header){
		.len = (uint32_t)(sizeof(*out) + len),
		.error = err ? -mnt_errno(s->mnt, err) : 0,
		.unique = s->unique,
	};
	/* It fails when nobody waits for the answer any more. */
	if (write(s->mnt->fd, out, out->len) < 0)
		return;
}

/* The file is let go of first: the answer may be followed by its close. */
static void end(struct mnt_slot *s, int err)
{
	struct mnt *m = s->mnt;

	atomic_fetch_add_explicit(s->fio.io.op == BLK_READ ? &m->reads : &m->writes, 1,
				  memory_order_relaxed);
	answer(s, fs_io_end(&s->fio, err));
}

void mnt_data_run(struct mnt_slot *s)
{
	end(s, fs_io_run(&s->fio));
}

static void end_and_give(struct mnt_slot *s, int err)
{
	struct mnt *m = s->mnt;

	end(s, err);
	mnt_slot_give(s);
	atomic_fetch_sub(&m->under_way, 1);	/* last: mnt_stop() waits for it */
}

static void on_done(struct fs_io *fio, int err)
{
	struct mnt_slot *s = container_of(fio, struct mnt_slot, fio);
	struct mnt *m = s->mnt;

	if (err != -ETIMEDOUT) {
		end_and_give(s, err);
		return;
	}
	s->err = err;
	pthread_mutex_lock(&m->mutex);
	s->next = m->late;
	m->late = s;
	pthread_cond_broadcast(&m->changed);
	pthread_mutex_unlock(&m->mutex);
}

void mnt_data_late(struct mnt_slot *s)
{
	end_and_give(s, s->err);
}

void mnt_data_submit(struct mnt *m, struct mnt_slot **slots, unsigned int count)
{
	struct fs_io *fios[FS_IO_BATCH];

	for (unsigned int i = 0; i < count; i++) {
		fios[i] = &slots[i]->fio;
		fios[i]->done = on_done;
	}
	atomic_fetch_add(&m->under_way, count);
	fs_io_submit(m->fs, fios, count);
}
