// SPDX-License-Identifier: Apache-2.0
/* What tests see of the simulated LUN, and change behind its hosts' backs. */
#include "block/simdev_internal.h"

#define OP_COUNT	ARRAY_SIZE(((struct simdisk_stats *)NULL)->ops)

struct simdisk_image *simdisk_snapshot(struct simdisk *disk)
{
	struct simdisk_image *image = simdev_alloc(sizeof(*image));

	image->store = simdev_alloc(sizeof(*image->store));
	simstore_copy(image->store, &disk->store);
	image->size = disk->params.size;
	return image;
}

void simdisk_restore(struct simdisk *disk, const struct simdisk_image *image)
{
	assert(disk->store.sector == image->store->sector);
	simstore_fini(&disk->store);
	simstore_share(&disk->store, image->store);
	disk->params.size = image->size;
}

void simdisk_image_free(struct simdisk_image *image)
{
	if (image)
		simstore_put(image->store);
	free(image);
}

void simdisk_peek(struct simdisk *disk, uint64_t off, void *buf, size_t len)
{
	simstore_read(&disk->store, off, buf, len);
}

void simdisk_poke(struct simdisk *disk, uint64_t off, const void *buf, size_t len)
{
	simstore_poke(&disk->store, off, buf, len);
}

void simdisk_resize(struct simdisk *disk, uint64_t size)
{
	if (size < disk->params.size)
		simstore_truncate(&disk->store, size);
	disk->params.size = size;
}

void simdisk_stats(struct simdisk *disk, struct env *host, struct simdisk_stats *out)
{
	struct nexus *n, *tmp;

	memset(out, 0, sizeof(*out));
	list_for_each(n, tmp, &disk->nexuses, node) {
		if (host && n->host != host)
			continue;
		for (size_t i = 0; i < OP_COUNT; i++)
			out->ops[i] += n->stats.ops[i];
		out->bytes_read += n->stats.bytes_read;
		out->bytes_written += n->stats.bytes_written;
	}
}

void simdisk_observe(struct simdisk *disk,
		     void (*fn)(void *arg, struct env *host, const struct blk_io *io), void *arg)
{
	disk->observe = fn;
	disk->observe_arg = arg;
}

void simdisk_observe_submit(struct simdisk *disk,
			    void (*fn)(void *arg, struct env *host, const struct blk_io *io),
			    void *arg)
{
	disk->observe_submit = fn;
	disk->observe_submit_arg = arg;
}

void simdisk_each_pending(struct simdisk *disk, struct env *host,
			  void (*fn)(void *arg, const struct blk_io *io), void *arg)
{
	struct cmd *c, *tmp;

	list_for_each(c, tmp, &disk->cmds, node) {
		if ((!host || c->nexus->host == host) && c->apply_due && c->copy.op != BLK_READ &&
		    c->copy.op != BLK_FLUSH)
			fn(arg, &c->copy);
	}
}

void simdisk_each_volatile(struct simdisk *disk, const struct blkdev *path,
			   void (*fn)(void *arg, uint64_t off, const void *data, uint64_t len),
			   void *arg)
{
	simstore_each_volatile(&disk->store, path, fn, arg);
}

void simdisk_fates(struct simdisk *disk, struct simdisk_fates *out)
{
	*out = disk->fates;
	out->cut_kept = disk->store.cut_kept;
	out->cut_lost = disk->store.cut_lost;
	out->cut_torn = disk->store.cut_torn;
}
