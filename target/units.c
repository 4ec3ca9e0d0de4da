/* SPDX-License-Identifier: Apache-2.0 */
#include "target/units.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/text.h"
#include "block/blkfile.h"
#include "proc/packet.h"

struct unit {
	struct list	node;
	char		iqn[SCSI_NAME_MAX];
	unsigned int	number;
	struct blkdev_info info;
	int		fd, state_fd;
	int		lock_fd;	/* only held: see target/open.c, lock_file() */
	bool		added;
	bool		removed;
	struct scsi_lun	*closing;	/* of a removed one: the device has something of it yet */
};

struct unit_target {
	struct list	node;
	char		iqn[SCSI_NAME_MAX];
	struct scsi_target *scsi;
};

int units_init(struct units *units, struct reactor **reactors, unsigned int reactor_count)
{
	units->reactors = reactors;
	units->reactor_count = reactor_count;
	env_mutex_init(env_posix(), &units->mutex);
	list_init(&units->targets);
	list_init(&units->files);
	return 0;
}

static void close_unit(struct unit *u)
{
	close(u->fd);
	close(u->lock_fd);
	if (u->state_fd >= 0)
		close(u->state_fd);
	list_del(&u->node);
	free(u);
}

void units_fini(struct units *units)
{
	struct unit_target *t, *next_target;
	struct unit *u, *next;

	if (!units->reactors)
		return;
	list_for_each(t, next_target, &units->targets, node) {
		scsi_target_destroy(t->scsi);
		list_del(&t->node);
		free(t);
	}
	list_for_each(u, next, &units->files, node)
		close_unit(u);
	env_mutex_fini(env_posix(), &units->mutex);
}

struct scsi_target *units_find(void *arg, const char *iqn)
{
	struct units *units = arg;
	struct unit_target *t, *next;
	struct scsi_target *found = NULL;

	env_mutex_lock(env_posix(), &units->mutex);
	list_for_each(t, next, &units->targets, node)
		if (!strcmp(t->iqn, iqn))
			found = t->scsi;
	env_mutex_unlock(env_posix(), &units->mutex);
	return found;
}

int units_take(struct units *units, const struct target_packet *packet, const int *fds,
	       unsigned int fd_count)
{
	struct unit *u;

	if (!units->reactors || fd_count < 2 || fd_count > 3) {
		packet_close_fds(fds, fd_count);
		return -EPROTO;
	}
	u = calloc(1, sizeof(*u));
	if (!u) {
		packet_close_fds(fds, fd_count);
		return -ENOMEM;
	}
	strcpy(u->iqn, packet->lun.iqn);
	u->number = packet->lun.number;
	u->info = packet->lun.info;
	u->fd = fds[0];
	u->lock_fd = fds[1];
	u->state_fd = fd_count == 3 ? fds[2] : -1;
	list_add_tail(&units->files, &u->node);
	return 0;
}

/* A description of its own each would change nothing: requests carry their offsets. */
static int open_backing(void *arg, struct reactor *r, struct blkdev **out)
{
	struct unit *u = arg;
	/* Every unit has one on every reactor: 255 of them fit into what Linux has by default. */
	struct blkfile_handle h = { .lock_fd = -1, .info = u->info, .aio_depth = 256 };
	int err;

	(void)r;
	h.fd = fcntl(u->fd, F_DUPFD_CLOEXEC, 0);
	if (h.fd < 0)
		return -errno;
	err = blkfile_new(env_posix(), &h, out);
	if (err)
		close(h.fd);
	return err;
}

/*
 * What names the unit for ever: made of what the administrator named it by and what it lies
 * on, so that it is the same after a restart, and another one for a copy.  NAA 6 with a
 * locally administered company id.
 */
static int name_unit(const struct unit *u, struct scsi_lun_config *c)
{
	char text[SCSI_NAME_MAX + sizeof(u->info.identity) + 16];
	uint8_t hash[EVP_MAX_MD_SIZE];
	int len = snprintf(text, sizeof(text), "%s,%u,%s", u->iqn, u->number, u->info.identity);

	if (!EVP_Digest(text, (size_t)len, hash, NULL, EVP_sha256(), NULL))
		return -EIO;
	memcpy(c->naa, hash, sizeof(c->naa));
	c->naa[0] = 0x60;
	c->naa[1] = 0x20;
	c->naa[2] = 0x00;
	c->naa[3] &= 0x0f;
	text_format_uuid(hash + 16, c->serial);
	return 0;
}

static int add_unit(struct unit *u, struct scsi_target *scsi, const struct tgt_lun *lun)
{
	struct scsi_lun_config c = {
		.name = lun->path,
		.backing = { .open = open_backing, .arg = u },
		.block_size = lun->block_size,
		.physical_block_size = lun->physical_block_size,
		.size = ALIGN_DOWN(u->info.size, lun->block_size),
		.read_only = lun->flags & TGT_LUN_READ_ONLY,
		.thin = !(lun->flags & TGT_LUN_THICK) && u->info.discard_granularity,
		.write_cache = !(lun->flags & TGT_LUN_WRITE_THROUGH),
		.removable = lun->flags & TGT_LUN_REMOVABLE,
		.sanitize_bps = lun->sanitize_bps,
		.state_fd = u->state_fd,
	};
	int err = name_unit(u, &c);

	if (!err)
		err = scsi_lun_add(scsi, lun->number, &c);
	u->added = !err;
	return err;
}

static struct unit *find_unit(struct units *units, const char *iqn, unsigned int number)
{
	struct unit *u, *next;

	list_for_each(u, next, &units->files, node)
		if (!u->removed && u->number == number && !strcmp(u->iqn, iqn))
			return u;
	return NULL;
}

static int add_target(struct units *units, const char *iqn, struct scsi_target **out)
{
	struct unit_target *t = calloc(1, sizeof(*t));
	int err;

	if (!t)
		return -ENOMEM;
	strcpy(t->iqn, iqn);
	err = scsi_target_create(env_posix(), iqn, units->reactors, units->reactor_count, &t->scsi);
	if (err) {
		free(t);
		return err;
	}
	*out = t->scsi;
	env_mutex_lock(env_posix(), &units->mutex);
	list_add_tail(&units->targets, &t->node);
	env_mutex_unlock(env_posix(), &units->mutex);
	return 0;
}

static int apply_target(struct units *units, const struct tgt_target *t)
{
	struct scsi_target *scsi = units_find(units, t->iqn);
	int result = scsi ? 0 : add_target(units, t->iqn, &scsi);

	for (unsigned int i = 0; i < t->lun_count && scsi; i++) {
		struct unit *u = find_unit(units, t->iqn, t->luns[i].number);
		int err;

		if (!u)
			continue;
		err = u->added ? scsi_lun_refresh(scsi, u->number) :
		      add_unit(u, scsi, &t->luns[i]);
		if (err && !result)
			result = err;
		if (err)
			log_error(env_posix(), t->iqn, "LUN %u (%s): %s", u->number,
				  t->luns[i].path, strerror(-err));
	}
	return result;
}

static bool is_configured(const struct tgt_config *config, const struct unit *u)
{
	const struct tgt_target *t = tgt_config_target(config, u->iqn);

	for (unsigned int i = 0; t && i < t->lun_count; i++)
		if (t->luns[i].number == u->number)
			return true;
	return false;
}

/* Nobody finds it any more, and what is under way is told to end. */
static void begin_removing(struct units *units, struct unit *u)
{
	u->removed = true;
	if (u->added)
		scsi_lun_remove(units_find(units, u->iqn), u->number, &u->closing);
}

/*
 * The removed ones go as soon as the device has nothing of them.  Until then the lock stays: nobody
 * else may serve a file into which writes of ours may still go.
 */
bool units_close_removed(struct units *units, uint64_t patience_ns)
{
	uint64_t end_ns = env_now_ns(env_posix()) + patience_ns, now;
	struct unit *u, *next;
	bool left = false;

	list_for_each(u, next, &units->files, node) {
		if (!u->removed)
			continue;
		now = env_now_ns(env_posix());
		if (u->closing && scsi_lun_close(u->closing, now < end_ns ? end_ns - now : 0))
			left = true;
		else
			close_unit(u);
	}
	return left;
}

void units_remove(struct units *units, const struct tgt_config *config)
{
	struct unit *u, *next;

	list_for_each(u, next, &units->files, node)
		if (!u->removed && !is_configured(config, u))
			begin_removing(units, u);
}

int units_apply(struct units *units, const struct tgt_config *config)
{
	int result = 0;

	for (unsigned int i = 0; i < config->target_count; i++) {
		int err = apply_target(units, &config->targets[i]);

		if (err && !result)
			result = err;
	}
	return result;
}

void units_look_at_sizes(struct units *units)
{
	struct unit *u, *next;

	list_for_each(u, next, &units->files, node) {
		off_t size = u->added && !u->removed ? lseek(u->fd, 0, SEEK_END) : -1;

		/* One that has shrunk is told of on SIGHUP, not again and again. */
		if (size > 0 && (uint64_t)size > u->info.size &&
		    !scsi_lun_refresh(units_find(units, u->iqn), u->number))
			u->info.size = (uint64_t)size;
	}
}
