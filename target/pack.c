/* SPDX-License-Identifier: Apache-2.0 */
#include "target/pack.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define PACK_MAGIC	0x4c544350u

/* Both ends are the same program: structs go as they are, each array behind its owner. */
struct pack {
	int	fd;
	bool	reading;
	int	err;		/* of the first failure; nothing is done after it */
};

static void move_bytes(struct pack *p, void *data, size_t len)
{
	char *at = data;

	while (len && !p->err) {
		ssize_t n = p->reading ? read(p->fd, at, len) : write(p->fd, at, len);

		if (n <= 0) {
			p->err = n < 0 ? -errno : -EPROTO;
		} else {
			at += n;
			len -= (size_t)n;
		}
	}
}

/* An array of *@count elements at *@array; in reading, that pointer is a stranger's. */
static void move_array(struct pack *p, void **array, unsigned int *count, unsigned int count_max,
		       size_t size)
{
	if (p->reading) {
		*array = NULL;
		if (!p->err && *count > count_max)
			p->err = -EPROTO;
		if (p->err)
			*count = 0;
		if (*count) {
			*array = calloc(*count, size);
			if (!*array) {
				p->err = -ENOMEM;
				*count = 0;
			}
		}
	}
	if (*count)
		move_bytes(p, *array, *count * size);
}

static void move_auth(struct pack *p, struct tgt_auth *auth)
{
	move_array(p, (void **)&auth->incoming, &auth->incoming_count, TGT_USERS_MAX,
		   sizeof(*auth->incoming));
}

static void move_target(struct pack *p, struct tgt_target *t)
{
	move_array(p, (void **)&t->initiators, &t->initiator_count, TGT_INITIATORS_MAX,
		   sizeof(*t->initiators));
	move_array(p, (void **)&t->luns, &t->lun_count, SCSI_LUNS_MAX, sizeof(*t->luns));
	move_auth(p, &t->auth);
}

/* Always to the end, also after a failure: then every pointer is a pointer of ours. */
static void move_config(struct pack *p, struct tgt_config *config)
{
	uint32_t magic = PACK_MAGIC;

	move_bytes(p, &magic, sizeof(magic));
	if (magic != PACK_MAGIC && !p->err)
		p->err = -EPROTO;
	move_bytes(p, config, sizeof(*config));
	if (p->err && p->reading)
		memset(config, 0, sizeof(*config));
	move_array(p, (void **)&config->targets, &config->target_count, TGT_TARGETS_MAX,
		   sizeof(*config->targets));
	if (p->err && p->reading && config->targets)
		memset(config->targets, 0, config->target_count * sizeof(*config->targets));
	for (unsigned int i = 0; i < config->target_count; i++)
		move_target(p, &config->targets[i]);
	move_auth(p, &config->discovery);
}

int config_pack(const struct tgt_config *config)
{
	struct pack p = { .fd = memfd_create("lunfs-target", MFD_CLOEXEC | MFD_ALLOW_SEALING) };

	if (p.fd < 0)
		return -errno;
	move_config(&p, (struct tgt_config *)(uintptr_t)config);	/* only reads it */
	if (!p.err && (lseek(p.fd, 0, SEEK_SET) ||
		       fcntl(p.fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK)))
		p.err = -errno;
	if (!p.err)
		return p.fd;
	close(p.fd);
	return p.err;
}

int config_unpack(int fd, struct tgt_config **out)
{
	struct pack p = { .fd = fd, .reading = true };
	struct tgt_config *config;

	p.err = tgt_config_create(&config);
	if (p.err)
		return p.err;
	move_config(&p, config);
	if (p.err)
		tgt_config_destroy(config);
	else
		*out = config;
	return p.err;
}
