// SPDX-License-Identifier: Apache-2.0
#include "fs/attrs.h"

#include <errno.h>
#include <stdio.h>

#include "fs/fs.h"

/* ---- the block as it lies on disk ---- */

static const struct xattr_entry_disk *attrs_at(const struct attrs *a, uint32_t off)
{
	return (const struct xattr_entry_disk *)(const void *)(a->bytes + off);
}

static uint32_t entry_bytes(const struct xattr_entry_disk *e)
{
	return (uint32_t)sizeof(*e) + e->name_len + le16_to_cpu(e->value_len);
}

int attrs_decode(const void *block, struct attrs *a)
{
	const struct xattr_disk *d = block;
	const struct xattr_entry_disk *e;
	uint32_t off, count = 0;

	a->used = le32_to_cpu(d->used);
	a->count = le32_to_cpu(d->count);
	if (a->used > XATTR_BYTES_MAX)
		return -EUCLEAN;
	memcpy(a->bytes, d->entries, a->used);
	for (off = 0; off < a->used; off += entry_bytes(e), count++) {
		if (a->used - off < sizeof(*e))
			return -EUCLEAN;
		e = attrs_at(a, off);
		if (e->name_len == 0 || a->used - off < entry_bytes(e) ||
		    memchr(e + 1, '\0', e->name_len))
			return -EUCLEAN;
	}
	return count == a->count ? 0 : -EUCLEAN;
}

void attrs_encode(const struct attrs *a, void *block)
{
	struct xattr_disk *d = block;

	d->used = cpu_to_le32(a->used);
	d->count = cpu_to_le32(a->count);
	memcpy(d->entries, a->bytes, a->used);
	memset(d->entries + a->used, 0, XATTR_BYTES_MAX - a->used);
}

/* ---- in memory ---- */

static bool attrs_locate(const struct attrs *a, const char *name, uint32_t *found)
{
	size_t len = strlen(name);
	uint32_t off;

	for (off = 0; off < a->used; off += entry_bytes(attrs_at(a, off)))
		if (attrs_at(a, off)->name_len == len &&
		    memcmp(attrs_at(a, off) + 1, name, len) == 0) {
			*found = off;
			return true;
		}
	return false;
}

int attrs_find(const struct attrs *a, const char *name, const void **value, size_t *len)
{
	const struct xattr_entry_disk *e;
	uint32_t off;

	if (!attrs_locate(a, name, &off))
		return -ENODATA;
	e = attrs_at(a, off);
	*value = (const uint8_t *)(e + 1) + e->name_len;
	*len = le16_to_cpu(e->value_len);
	return 0;
}

int attrs_del(struct attrs *a, const char *name)
{
	uint32_t off, bytes;

	if (!attrs_locate(a, name, &off))
		return -ENODATA;
	bytes = entry_bytes(attrs_at(a, off));
	memmove(a->bytes + off, a->bytes + off + bytes, a->used - off - bytes);
	a->used -= bytes;
	a->count--;
	return 0;
}

int attrs_put(struct attrs *a, const char *name, const void *value, size_t len)
{
	size_t name_len = strlen(name), old = 0, bytes;
	struct xattr_entry_disk e;
	uint32_t off;

	assert(name_len >= 1 && name_len <= 255);
	bytes = sizeof(e) + name_len + len;
	if (attrs_locate(a, name, &off))
		old = entry_bytes(attrs_at(a, off));
	if (len > XATTR_BYTES_MAX || a->used - old + bytes > XATTR_BYTES_MAX)
		return -ENOSPC;
	attrs_del(a, name);
	e = (struct xattr_entry_disk){ cpu_to_le16((uint16_t)len), (uint8_t)name_len, 0 };
	memcpy(a->bytes + a->used, &e, sizeof(e));
	memcpy(a->bytes + a->used + sizeof(e), name, name_len);
	if (len)
		memcpy(a->bytes + a->used + sizeof(e) + name_len, value, len);
	a->used += (uint32_t)bytes;
	a->count++;
	return 0;
}

int attrs_names(const struct attrs *a, char *names, size_t size, size_t *len)
{
	const struct xattr_entry_disk *e;
	size_t total = 0;
	uint32_t off;

	for (off = 0; off < a->used; off += entry_bytes(e)) {
		e = attrs_at(a, off);
		if (size) {
			if (size - total < (size_t)e->name_len + 1)
				return -ERANGE;
			memcpy(names + total, e + 1, e->name_len);
			names[total + e->name_len] = '\0';
		}
		total += (size_t)e->name_len + 1;
	}
	*len = total;
	return 0;
}

/* ---- the inode's block ---- */

static struct meta_expect attrs_expect(const struct fs *fs, const struct inode *ino,
				       uint64_t pointer)
{
	return (struct meta_expect){
		.type = META_XATTR,
		.volume = fs->super.volume,
		.addr = bptr_addr(pointer),
		.owner = ino->id,
		.birth = bptr_birth(pointer),
	};
}

uint64_t xattr_block(const struct inode *ino)
{
	return bptr_addr(le64_to_cpu(inode_disk(ino)->xattr)) >> BLOCK_SHIFT;
}

int attrs_load(struct fs *fs, struct inode *ino, struct attrs *a)
{
	uint64_t pointer = le64_to_cpu(inode_disk(ino)->xattr);
	char object[LABEL_MAX + 64];
	struct meta_expect e;
	struct buf *buf;
	int err;

	a->used = 0;
	a->count = 0;
	if (!pointer)
		return 0;
	e = attrs_expect(fs, ino, pointer);
	err = buf_get(fs, &ino->cover, &e, &buf);
	if (err)
		return err;
	inode_keep(ino, buf);
	err = attrs_decode(buf->data, a);
	if (err) {
		snprintf(object, sizeof(object), "%s: block 0x%llx", fs->label,
			 (unsigned long long)e.addr);
		log_error(fs->env, object, "attributes of inode %llu: invalid entries; run "
			  "fsck.lunfs", (unsigned long long)ino->number);
	}
	buf_put(fs, buf);
	return err;
}

int attrs_store_prepare(struct fs *fs, struct inode *ino, const struct attrs *a,
			struct attrs_change *c)
{
	static const uint32_t one[] = { 1 };
	uint64_t block = ino ? xattr_block(ino) : 0;
	int err;

	memset(c, 0, sizeof(*c));
	c->credits = 6;
	if (!a->count && block) {
		err = alloc_pin(fs, block, &c->pin);
		if (!err)
			err = alloc_free_prepare(fs, &c->pin, block, 1);
		if (err)
			attrs_store_done(fs, c);
		return err;
	}
	if (a->count && !block) {
		err = ino ? alloc_reserve(fs, one, 1, ino->number, &c->hold) :
			    alloc_reserve_try(fs, one, 1, 0, &c->hold);
		return err ? err : alloc_make_room(fs, &c->hold, 0);
	}
	return 0;
}

/* The first attribute: a block of its own. */
static int attrs_make_block(struct txn *txn, struct inode *ino, struct inode_disk *di,
			    struct attrs_change *c, struct buf **buf)
{
	struct meta_expect e;
	uint64_t pointer;
	int err;

	pointer = BPTR(c->hold.runs[0].block, inode_birth(ino, di));
	e = attrs_expect(txn->fs, ino, pointer);
	err = alloc_take_block(txn, &c->hold, 0, &ino->cover, &e, buf);
	if (err)
		return err;
	di->xattr = cpu_to_le64(pointer);
	di->blocks = cpu_to_le64(le64_to_cpu(di->blocks) + 1);
	return 0;
}

int attrs_store(struct txn *txn, struct inode *ino, struct inode_disk *di, const struct attrs *a,
		struct attrs_change *c)
{
	uint64_t pointer = le64_to_cpu(di->xattr);
	struct meta_expect e;
	struct buf *buf;
	int err;

	if (!a->count) {
		if (pointer)
			xattr_drop(txn, ino, di, &c->pin);
		return 0;
	}
	if (pointer) {
		e = attrs_expect(txn->fs, ino, pointer);
		err = buf_get(txn->fs, &ino->cover, &e, &buf);
	} else {
		err = attrs_make_block(txn, ino, di, c, &buf);
	}
	if (err)
		return err;
	txn_dirty(txn, buf, ino->version);
	attrs_encode(a, buf->data);
	buf_put(txn->fs, buf);
	return 0;
}

void attrs_store_done(struct fs *fs, struct attrs_change *c)
{
	if (c->hold.ag)
		alloc_put(fs, &c->hold);
	if (c->pin.ag)
		alloc_unpin(fs, &c->pin);
	memset(c, 0, sizeof(*c));
}

void xattr_drop(struct txn *txn, struct inode *ino, struct inode_disk *di, struct alloc_pin *pin)
{
	struct meta_expect e = attrs_expect(txn->fs, ino, le64_to_cpu(di->xattr));
	struct buf *buf;

	/* -EUCLEAN of a block that is free already was logged. */
	alloc_free(txn, pin, e.addr >> BLOCK_SHIFT, 1);
	if (!buf_get(txn->fs, &ino->cover, &e, &buf))
		buf_drop(txn->fs, txn, buf);
	di->xattr = cpu_to_le64(0);
	di->blocks = cpu_to_le64(le64_to_cpu(di->blocks) - 1);
}
