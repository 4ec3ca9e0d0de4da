/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/look.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/text.h"
#include "fs/format.h"

#define LOOK_BYTES	(4 * MIB)	/* at either end */
#define LOOK_CHUNK	(1 * MIB)

static const char *probe_value(blkid_probe probe, const char *name)
{
	const char *value = NULL;

	return blkid_probe_lookup_value(probe, name, &value, NULL) == 0 ? value : NULL;
}

bool look_found(blkid_probe probe, char *what, size_t size)
{
	const char *type, *pttype, *name;
	char label[64];
	int rc;

	blkid_probe_enable_superblocks(probe, 1);
	blkid_probe_set_superblocks_flags(probe, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_LABEL);
	blkid_probe_enable_partitions(probe, 1);
	rc = blkid_do_safeprobe(probe);
	type = probe_value(probe, "TYPE");
	pttype = probe_value(probe, "PTTYPE");
	name = probe_value(probe, "LABEL");
	if (rc == -2) {
		snprintf(what, size, "several filesystems at once, as libblkid sees it");
		return true;
	}
	if (rc || (!type && !pttype))
		return false;
	text_printable(name ? name : "", name ? strlen(name) : 0, label, sizeof(label));
	snprintf(what, size, "%s \"%s\"%s%s%s", type ? "a filesystem or volume of type" :
		 "a partition table of type", type ? type : pttype, name ? " labelled \"" : "", label,
		 name ? "\"" : "");
	return true;
}

static int copy_part(struct blkdev *dev, int fd, uint64_t off, uint64_t end, void *buf)
{
	int err = 0;

	for (; !err && off < end; off += LOOK_CHUNK) {
		size_t n = end - off < LOOK_CHUNK ? end - off : LOOK_CHUNK;

		err = blkdev_read(dev, off, buf, n);
		if (!err && pwrite(fd, buf, n, (off_t)off) != (ssize_t)n)
			err = -EIO;
	}
	return err;
}

/* libblkid reads files only: one in memory, with both ends, where signatures are. */
static int copy_ends(struct blkdev *dev)
{
	uint64_t size = dev->info.size;
	uint64_t head = size < LOOK_BYTES ? size : LOOK_BYTES, tail = size - head;
	int fd = memfd_create("lunfs-look", MFD_CLOEXEC), err = -ENOMEM;
	void *buf = blkdev_alloc(LOOK_CHUNK);

	if (fd >= 0 && buf && !ftruncate(fd, (off_t)size))
		err = copy_part(dev, fd, 0, head, buf);
	if (!err)
		err = copy_part(dev, fd, tail > head ? tail : head, size, buf);
	free(buf);
	if (!err)
		return fd;
	if (fd >= 0)
		close(fd);
	return err;
}

int look_at_ends(struct blkdev *dev, char *what, size_t size)
{
	blkid_probe probe = blkid_new_probe();
	int fd = copy_ends(dev), found = fd < 0 ? fd : -ENOMEM;

	if (fd >= 0 && probe)
		found = !blkid_probe_set_device(probe, fd, 0, 0) && look_found(probe, what, size);
	blkid_free_probe(probe);
	if (fd >= 0)
		close(fd);
	return found;
}

int look_for_zeros(struct blkdev *dev, uint64_t off, uint64_t len)
{
	uint8_t *buf = blkdev_alloc(LOOK_CHUNK);
	int zeros = 1;

	if (!buf)
		return -ENOMEM;
	for (uint64_t at = 0; zeros == 1 && at < len; at += LOOK_CHUNK) {
		size_t n = len - at < LOOK_CHUNK ? len - at : LOOK_CHUNK;
		int err = blkdev_read(dev, off + at, buf, n);

		zeros = err ? err : !buf[0] && !memcmp(buf, buf + 1, n - 1);
	}
	free(buf);
	return zeros;
}

unsigned int look_at_slots(struct blkdev *dev, const struct super *s, struct slot *slots)
{
	uint8_t *block = blkdev_alloc(BLOCK_SIZE);
	unsigned int taken = 0;

	for (uint32_t i = 0; block && i < s->slot_count; i++) {
		uint64_t addr = s->slots_addr + (uint64_t)i * BLOCK_SIZE;

		slots[i] = (struct slot){ .state = SLOT_FREE };
		if (blkdev_read(dev, addr, block, BLOCK_SIZE) == 0 &&
		    slot_decode(block, s->volume, addr, i, &slots[i], NULL, 0) == 0 &&
		    slots[i].state != SLOT_FREE)
			taken++;
	}
	free(block);
	return taken;
}

int look_for_beats(struct blkdev *dev, const struct super *s, const struct slot *before)
{
	struct slot after[SLOT_COUNT_MAX];

	env_sleep_until(dev->env, env_now_ns(dev->env) +
			2 * NSEC_PER_MSEC * s->timing.beat_ms + 100 * NSEC_PER_MSEC);
	look_at_slots(dev, s, after);
	for (uint32_t i = 0; i < s->slot_count; i++)
		if (before[i].state != SLOT_FREE && after[i].sequence != before[i].sequence)
			return (int)i;
	return -1;
}
