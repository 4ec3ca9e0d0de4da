/* SPDX-License-Identifier: Apache-2.0 */
/* Requests of the iSCSI backend on their way out: cut into commands, spread over the paths. */
#include "block/blkiscsi_internal.h"

#include <errno.h>

#define PATH_DEPTH	128u	/* commands in one session */

/* ---- paths ---- */

void ini_path_changed(struct ini_path *p, bool up)
{
	struct ini_dev *d = p->d;
	unsigned int n = 0, failed = 0;

	for (unsigned int i = 0; i < d->t.portal_count; i++) {
		n += d->paths[i].state == INI_UP;
		failed += d->paths[i].state != INI_UP && d->paths[i].err;
	}
	if (n)
		d->no_path_ns = 0;
	else if (!d->no_path_ns)
		d->no_path_ns = ini_now(d);
	pthread_mutex_lock(&d->mutex);
	d->paths_up = n;
	d->paths_failed = failed;
	d->path_is_up[p->index] = p->state == INI_UP;
	if (up || !n)
		pthread_cond_broadcast(&d->changed);
	pthread_mutex_unlock(&d->mutex);
}

/* The least busy path, in turn where they are alike; NULL: none can take more. */
static struct ini_path *choose_path(struct ini_dev *d)
{
	struct ini_path *best = NULL;

	for (unsigned int i = 0; i < d->t.portal_count; i++) {
		struct ini_path *p = &d->paths[(d->turn + i) % d->t.portal_count];

		if (p->state != INI_UP || p->failed || p->active_count >= PATH_DEPTH)
			continue;
		if (!best || p->active_count < best->active_count)
			best = p;
	}
	if (best)
		d->turn = best->index + 1;
	return best;
}

/* ---- issuing ---- */

static struct ini_cmd *cmd_new(struct ini_dev *d)
{
	struct ini_cmd *cmd;

	if (list_empty(&d->free))
		return NULL;
	cmd = list_first(&d->free, struct ini_cmd, node);
	list_del(&cmd->node);
	d->free_count--;
	cmd->io = NULL;
	cmd->admin = NULL;
	cmd->phase = INI_DO;
	cmd->tries = 0;
	cmd->timeouts = 0;
	cmd->losses = 0;
	cmd->again_ns = 0;
	cmd->iovcnt = 0;
	memset(&cmd->task, 0, sizeof(cmd->task));
	return cmd;
}

/* Copies segments, not data, up to @max bytes; advances the request's position. */
static uint64_t take_segments(struct ini_cmd *cmd, struct blk_io *io, uint64_t max)
{
	struct ini_io *s = ini_io(io);
	uint64_t len = 0;

	while (len < max && cmd->iovcnt < (int)INI_IOVS && s->iov_index < (uint32_t)io->iovcnt) {
		const struct iovec *v = &io->iov[s->iov_index];
		uint64_t n = v->iov_len - s->iov_off;

		if (n > max - len)
			n = max - len;
		if (n)
			cmd->iov[cmd->iovcnt++] = (struct iovec){
				.iov_base = (uint8_t *)v->iov_base + s->iov_off, .iov_len = n };
		len += n;
		s->iov_off += n;
		if (s->iov_off == v->iov_len) {
			s->iov_index++;
			s->iov_off = 0;
		}
	}
	return len;
}

static void cut_piece(struct ini_dev *d, struct ini_cmd *cmd, struct blk_io *io)
{
	struct ini_io *s = ini_io(io);
	uint64_t left = io->len - s->issued, max;

	cmd->io = io;
	cmd->off = io->off + s->issued;
	switch (io->op) {
	case BLK_READ:
	case BLK_WRITE:
		max = left < d->limits.rw_max ? left : d->limits.rw_max;
		cmd->len = take_segments(cmd, io, max);
		break;
	case BLK_CAW:
		take_segments(cmd, io, 2 * io->len);
		cmd->len = left;
		break;
	case BLK_DISCARD:
	case BLK_ZERO:
		max = io->op == BLK_ZERO ? d->limits.same_max : d->limits.unmap_max;
		cmd->len = left < max ? left : max;
		break;
	case BLK_FLUSH:
		cmd->len = left;
		break;
	}
	s->issued += cmd->len;
	s->pending++;
	if (s->issued < io->len)
		return;
	list_del(&io->node);
	s->queued = 0;
}

bool ini_lease_lapsed(const struct ini_dev *d, uint64_t now)
{
	return now >= atomic_load(&d->lease_ns);
}

static struct ini_admin *admin_for(struct ini_dev *d, struct ini_path **p)
{
	struct ini_admin *a, *tmp;

	list_for_each(a, tmp, &d->admins, node) {
		*p = a->path < 0 ? choose_path(d) : &d->paths[a->path];
		if (*p && (*p)->state == INI_UP && !(*p)->failed)
			return a;
	}
	return NULL;
}

static void issue_admins(struct ini_dev *d)
{
	struct ini_admin *a;
	struct ini_path *p;
	struct ini_cmd *cmd;

	while ((a = admin_for(d, &p)) && (cmd = cmd_new(d))) {
		list_del(&a->node);
		cmd->admin = a;
		cmd->len = a->len;
		ini_cmd_send(cmd, p);
	}
}

static void issue_again(struct ini_dev *d, uint64_t now)
{
	struct ini_cmd *cmd, *tmp;
	struct ini_path *p;

	list_for_each(cmd, tmp, &d->again, node) {
		if (cmd->again_ns > now)
			continue;
		if (cmd->io && ini_lease_lapsed(d, now)) {
			list_del(&cmd->node);
			/* Never on its way a second time: as if the path had been lost. */
			ini_cmd_finish(d, cmd, cmd->io->op == BLK_CAW ? -EIO : -ECONNRESET);
			continue;
		}
		p = cmd->admin && cmd->admin->path >= 0 ? &d->paths[cmd->admin->path] :
		    choose_path(d);
		if (!p || p->state != INI_UP || p->failed)
			continue;
		list_del(&cmd->node);
		ini_cmd_send(cmd, p);
	}
}

/* Return: 0 to be sent; 1 nothing to be done, it is complete; negative errno. */
static int prepare_io(struct ini_dev *d, struct blk_io *io)
{
	if (io->op != BLK_FLUSH)
		return 0;
	if (d->lost_seq > d->flushed_seq) {
		/* Reported once: what comes after it can be made durable again. */
		d->flushed_seq = d->lost_seq;
		log_error(d->dev.env, d->t.name, "a session was lost before its writes were flushed: "
			  "they may be lost with the target's cache; the flush fails");
		return -EIO;
	}
	ini_io(io)->wseq = d->wseq;
	/* Everything else was durable when it was acknowledged. */
	return d->wseq > d->flushed_seq ? 0 : 1;
}

static void issue_queue(struct ini_dev *d, uint64_t now)
{
	struct ini_cmd *cmd;
	struct ini_path *p;

	while (!list_empty(&d->queue)) {
		struct blk_io *io = list_first(&d->queue, struct blk_io, node);
		int err = ini_io(io)->issued ? 0 : prepare_io(d, io);

		if (!err && ini_lease_lapsed(d, now))
			err = -ECONNRESET;
		if (err) {
			ini_io_fail(d, io, err < 0 ? err : 0);
			continue;
		}
		p = choose_path(d);
		cmd = p ? cmd_new(d) : NULL;
		if (!cmd)
			return;
		cut_piece(d, cmd, io);
		ini_cmd_send(cmd, p);
	}
}

void ini_issue(struct ini_dev *d, uint64_t now)
{
	issue_admins(d);
	issue_again(d, now);
	issue_queue(d, now);
}
