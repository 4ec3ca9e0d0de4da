/* SPDX-License-Identifier: Apache-2.0 */
#include "vhost/internal.h"

#include <errno.h>

void chain_begin(struct request *r)
{
	r->iov_count = 0;
	r->out_count = 0;
	r->out_bytes = 0;
	r->in_bytes = 0;
}

int chain_add(struct mem *m, struct request *r, const struct desc *d)
{
	bool in = d->flags & DESC_F_WRITE;
	uint64_t addr = d->addr, left = d->len;

	/* What we read comes before what we write (virtio 2.7.4.2). */
	if (!in && r->in_bytes)
		return -EPROTO;
	while (left) {
		uint64_t n = left;
		void *p = mem_at_guest(m, addr, &n);

		if (!p || r->iov_count == IOV_MAX_REQUEST)
			return -EPROTO;
		r->iov[r->iov_count++] = (struct iovec){ .iov_base = p, .iov_len = n };
		addr += n;
		left -= n;
	}
	if (in) {
		r->in_bytes += d->len;
	} else {
		r->out_bytes += d->len;
		r->out_count = r->iov_count;
	}
	return 0;
}

/*
 * The table is copied once: the guest may change it while we look at it.  It may be longer
 * than a request can be, if the request is not.
 */
int chain_add_indirect(struct mem *m, struct request *r, const struct desc *d, bool packed)
{
	struct desc_wire table[DESCS_MAX];
	unsigned int count = d->len / sizeof(table[0]);
	unsigned int i = 0, n;

	if (!count || d->len % sizeof(table[0]) || (packed && count > DESCS_MAX))
		return -EPROTO;
	if (count > DESCS_MAX)
		count = DESCS_MAX;
	if (!mem_read(m, d->addr, table, count * sizeof(table[0])))
		return -EPROTO;
	for (n = 0; n < count; n++) {
		/* Packed tables have id and flags where split ones have flags and next. */
		struct desc one = {
			.addr = le64_to_cpu(table[i].addr),
			.len = le32_to_cpu(table[i].len),
			.flags = le16_to_cpu(packed ? table[i].next : table[i].flags),
			.next = le16_to_cpu(packed ? table[i].flags : table[i].next),
		};

		if ((one.flags & DESC_F_INDIRECT) || chain_add(m, r, &one))
			return -EPROTO;
		if (packed) {
			i++;
			continue;
		}
		if (!(one.flags & DESC_F_NEXT))
			return 0;
		i = one.next;
		if (i >= count)
			return -EPROTO;
	}
	/* Split: as many as there are, and it still goes on, so it goes round. */
	return packed ? 0 : -EPROTO;
}
