/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration space: virtio 5.2.4. */
#include "vhost/internal.h"

#include <errno.h>

static uint8_t log2_of(uint32_t x)
{
	return (uint8_t)(31 - __builtin_clz(x));
}

static void config_build(const struct vhu *v, struct blk_config_wire *c)
{
	const struct blkdev_info *info = &v->dev->info;
	uint32_t block = v->p.block_size ? v->p.block_size : info->sector;
	uint32_t physical = v->p.physical_size ? v->p.physical_size : 4096;
	uint32_t granularity = info->discard_granularity ? info->discard_granularity : block;

	if (physical < block)
		physical = block;
	memset(c, 0, sizeof(*c));
	c->capacity = cpu_to_le64(info->size / BLK_SECTOR);
	c->size_max = cpu_to_le32(SIZE_MAX_SEG);
	c->seg_max = cpu_to_le32(SEG_MAX);
	c->blk_size = cpu_to_le32(block);
	c->physical_block_exp = log2_of(physical / block);
	c->min_io_size = cpu_to_le16((uint16_t)(physical / block));
	c->opt_io_size = cpu_to_le32(v->p.io_opt / block);
	c->writeback = v->writeback;
	c->num_queues = cpu_to_le16((uint16_t)v->queue_count);
	c->max_discard_sectors = cpu_to_le32(RANGE_SECTORS_MAX);
	c->max_discard_seg = cpu_to_le32(RANGES_MAX);
	c->discard_sector_alignment = cpu_to_le32(granularity / BLK_SECTOR);
	c->max_write_zeroes_sectors = cpu_to_le32(RANGE_SECTORS_MAX);
	c->max_write_zeroes_seg = cpu_to_le32(RANGES_MAX);
	c->write_zeroes_may_unmap = 1;
}

void vhu_config_get(const struct vhu *v, uint32_t offset, uint32_t size, uint8_t *bytes)
{
	uint8_t space[VHU_CONFIG_MAX] = { 0 };
	struct blk_config_wire c;

	assert(offset <= VHU_CONFIG_MAX && size <= VHU_CONFIG_MAX - offset);
	config_build(v, &c);
	memcpy(space, &c, sizeof(c));
	memcpy(bytes, space + offset, size);
}

/* Drivers write one field, "writeback"; some write it with what surrounds it. */
int vhu_config_set(struct vhu *v, uint32_t offset, uint32_t size, const uint8_t *bytes)
{
	uint32_t at = offsetof(struct blk_config_wire, writeback);

	if (offset > at || at - offset >= size || !has_feature(v, BLK_F_CONFIG_WCE))
		return -EINVAL;
	if (bytes[at - offset] > 1)
		return -EINVAL;
	v->writeback = bytes[at - offset];
	return 0;
}
