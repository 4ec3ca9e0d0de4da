/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/vhost_bench/exercise.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "base/text.h"

#define AT_RANGE	64u
#define AT_STATUS	128u
#define SPAN		(128 * 1024u)	/* bytes at the disk's beginning that are used */
#define NO_ANSWER	0x100		/* in place of a status */

struct exercise {
	struct fe	*f;
	uint8_t		*mem;	/* of slot 0 */
	uint8_t		*data;
	uint64_t	gpa;
	int		failed;
};

static void result(struct exercise *x, bool ok, const char *what)
{
	printf("%s: %s\n", ok ? "ok" : "failed", what);
	x->failed += !ok;
}

static void not_offered(const char *what)
{
	printf("not offered: %s\n", what);
}

static bool has(const struct exercise *x, unsigned int bit)
{
	return x->f->features & FEATURE(bit);
}

/* ---- one request at a time ---- */

/* Sends what @bufs describe and waits.  Return: the status; NO_ANSWER; -EPROTO. */
static int request(struct exercise *x, uint32_t type, uint64_t sector,
		   const struct vq_buf *data, unsigned int count)
{
	struct fe_queue *q = &x->f->queues[0];
	struct blk_header_wire h = { .type = cpu_to_le32(type), .sector = cpu_to_le64(sector) };
	struct vq_buf bufs[VQ_BUFS_MAX];
	struct pollfd p = { .fd = q->call_fd, .events = POLLIN };
	unsigned int slot, n = 0;
	uint64_t one = 1;
	uint32_t len;
	int ret;

	memcpy(x->mem, &h, sizeof(h));
	x->mem[AT_STATUS] = 0xff;
	bufs[n++] = (struct vq_buf){ x->gpa, sizeof(h), false };
	for (unsigned int i = 0; i < count; i++)
		bufs[n++] = data[i];
	bufs[n++] = (struct vq_buf){ x->gpa + AT_STATUS, 1, true };
	vq_add(&q->vq, 0, bufs, n);
	if (vq_publish(&q->vq) && write(q->kick_fd, &one, sizeof(one)) < 0)
		return -EPROTO;
	while (!vq_want_calls(&q->vq, true)) {
		if (poll(&p, 1, FE_ANSWER_MS) <= 0)
			return NO_ANSWER;
		if (read(q->call_fd, &one, sizeof(one)) < 0)
			return -EPROTO;
	}
	ret = vq_next_used(&q->vq, &slot, &len);
	return ret == 1 && slot == 0 ? x->mem[AT_STATUS] : -EPROTO;
}

/* A transfer of @len bytes at @sector from or to data + @skip, in @pieces buffers. */
static int transfer(struct exercise *x, uint32_t type, uint64_t sector, uint32_t skip,
		    uint32_t len, unsigned int pieces)
{
	uint32_t piece = len / pieces;
	struct vq_buf bufs[VQ_BUFS_MAX];

	for (unsigned int i = 0; i < pieces; i++)
		bufs[i] = (struct vq_buf){ x->gpa + FE_SLOT_HEAD + skip + i * piece,
					   i + 1 < pieces ? piece : len - i * piece,
					   type == BLK_T_IN };
	return request(x, type, sector, bufs, pieces);
}

static int range_request(struct exercise *x, uint32_t type, uint64_t sector, uint32_t sectors,
			 uint32_t flags)
{
	struct blk_range_wire r = { .sector = cpu_to_le64(sector),
				    .sectors = cpu_to_le32(sectors),
				    .flags = cpu_to_le32(flags) };
	struct vq_buf buf = { x->gpa + AT_RANGE, sizeof(r), false };

	memcpy(x->mem + AT_RANGE, &r, sizeof(r));
	return request(x, type, 0, &buf, 1);
}

static void fill(struct exercise *x, uint8_t salt)
{
	for (uint32_t i = 0; i < x->f->p.slot_bytes; i++)
		x->data[i] = (uint8_t)(i * 7 + (i >> 9) + salt);
}

static bool holds(const struct exercise *x, uint32_t from, uint32_t len, uint8_t salt)
{
	for (uint32_t i = from; i < from + len; i++)
		if (x->data[i] != (uint8_t)(i * 7 + (i >> 9) + salt))
			return false;
	return true;
}

static bool is_zero(const struct exercise *x, uint32_t from, uint32_t len)
{
	for (uint32_t i = from; i < from + len; i++)
		if (x->data[i])
			return false;
	return true;
}

static bool read_back(struct exercise *x)
{
	memset(x->data, 0x5a, SPAN);
	return transfer(x, BLK_T_IN, 0, 0, SPAN, 1) == BLK_S_OK;
}

static bool write_all(struct exercise *x, uint8_t salt)
{
	fill(x, salt);
	return transfer(x, BLK_T_OUT, 0, 0, SPAN, 1) == BLK_S_OK;
}

/* ---- what is tried ---- */

static void try_transfers(struct exercise *x)
{
	result(x, write_all(x, 1) && read_back(x) && holds(x, 0, SPAN, 1),
	       "128 KiB are written and read back");
	memset(x->data, 0x5a, SPAN);
	result(x, transfer(x, BLK_T_IN, 0, 0, SPAN, x->f->p.bufs_max - 2) == BLK_S_OK &&
	       holds(x, 0, SPAN, 1), "and read into as many pieces as a request may have");
	/* 512 bytes, of which the buffer begins anywhere: no device does that by itself. */
	fill(x, 1);
	memmove(x->data + 0x1003, x->data + 0x400, 512);
	result(x, transfer(x, BLK_T_OUT, 2, 0x1003, 512, 1) == BLK_S_OK && read_back(x) &&
	       holds(x, 0, SPAN, 1), "one sector from a buffer at an odd address");
	result(x, transfer(x, BLK_T_IN, fe_capacity(x->f) / BLK_SECTOR, 0, 512, 1) ==
	       BLK_S_IOERR, "a read behind the end is an error");
	result(x, transfer(x, BLK_T_IN, UINT64_MAX - 7, 0, 4096, 1) == BLK_S_IOERR,
	       "and so is one that wraps around");
	result(x, request(x, 0x7777, 0, NULL, 0) == BLK_S_UNSUPP,
	       "an unknown request is unsupported");
}

static void try_serial(struct exercise *x)
{
	struct vq_buf buf = { x->gpa + FE_SLOT_HEAD, 20, true };

	memset(x->data, 0x5a, 64);
	result(x, request(x, BLK_T_GET_ID, 0, &buf, 1) == BLK_S_OK && x->data[20] == 0x5a,
	       "GET_ID writes a serial of 20 bytes and no more");
}

static void try_flush(struct exercise *x)
{
	if (has(x, BLK_F_FLUSH))
		result(x, request(x, BLK_T_FLUSH, 0, NULL, 0) == BLK_S_OK, "FLUSH");
	else
		not_offered("FLUSH");
}

static void try_zeroes(struct exercise *x)
{
	if (!has(x, BLK_F_WRITE_ZEROES)) {
		not_offered("WRITE_ZEROES");
		return;
	}
	for (uint32_t unmap = 0; unmap < 2; unmap++)
		result(x, write_all(x, 2) &&
		       range_request(x, BLK_T_WRITE_ZEROES, 16, 32, unmap) == BLK_S_OK &&
		       read_back(x) && holds(x, 0, 8192, 2) && is_zero(x, 8192, 16384) &&
		       holds(x, 24576, SPAN - 24576, 2),
		       unmap ? "WRITE_ZEROES that may unmap" : "WRITE_ZEROES, just that range");
	result(x, range_request(x, BLK_T_WRITE_ZEROES, fe_capacity(x->f) / BLK_SECTOR - 8, 16, 0) ==
	       BLK_S_IOERR, "WRITE_ZEROES beyond the end is an error");
}

static void try_discard(struct exercise *x)
{
	if (!has(x, BLK_F_DISCARD)) {
		not_offered("DISCARD");
		return;
	}
	/* It may read as anything afterwards; what is beside it may not change. */
	result(x, write_all(x, 3) && range_request(x, BLK_T_DISCARD, 128, 64, 0) == BLK_S_OK &&
	       read_back(x) && holds(x, 0, 65536, 3) && holds(x, 98304, SPAN - 98304, 3),
	       "DISCARD of 32 KiB touches nothing else");
	result(x, range_request(x, BLK_T_DISCARD, fe_capacity(x->f) / BLK_SECTOR, 8, 0) ==
	       BLK_S_IOERR, "DISCARD beyond the end is an error");
	result(x, range_request(x, BLK_T_DISCARD, 0, 8, 1) == BLK_S_UNSUPP,
	       "DISCARD with the flag that only WRITE_ZEROES has is unsupported");
}

/* Any length: bytes behind what the server knows are zero, the others always the same. */
static int try_config(struct exercise *x)
{
	uint8_t whole[VHU_CONFIG_MAX], part[VHU_CONFIG_MAX];
	bool same = true;
	int err = fe_config_get(x->f, 0, sizeof(whole), whole);

	for (uint32_t n = 1; n <= sizeof(whole) && !err; n++) {
		err = fe_config_get(x->f, 0, n, part);
		same = same && !memcmp(whole, part, n);
	}
	for (uint32_t at = 0; at < sizeof(whole) && !err; at++) {
		err = fe_config_get(x->f, at, 1, part);
		same = same && part[0] == whole[at];
	}
	if (!err)
		result(x, same, "the configuration space, of any length up to 256 and from "
		       "anywhere");
	return err;
}

static int try_cache_mode(struct exercise *x)
{
	uint32_t at = offsetof(struct blk_config_wire, writeback);
	bool same = true;
	int err = 0;

	if (!has(x, BLK_F_CONFIG_WCE)) {
		not_offered("CONFIG_WCE");
		return 0;
	}
	for (uint8_t mode = 2; mode-- > 0 && !err;) {
		struct blk_config_wire c = { .writeback = 0xff };

		err = fe_config_set(x->f, at, 1, &mode);
		if (!err)
			err = fe_config_get(x->f, 0, sizeof(c), &c);
		same = same && c.writeback == mode && write_all(x, mode) && read_back(x) &&
		       holds(x, 0, SPAN, mode);
	}
	if (!err)
		result(x, same, "the cache is switched off and on");
	return err;
}

static int try_stop(struct exercise *x)
{
	bool ok = true;
	int err = 0;

	for (int i = 0; i < 20 && ok && !err; i++) {
		ok = write_all(x, (uint8_t)i);
		err = fe_queue_stop(x->f, 0);
		if (!err)
			err = fe_queue_start(x->f, 0);
		ok = ok && !err && read_back(x) && holds(x, 0, SPAN, (uint8_t)i);
	}
	if (!err)
		result(x, ok, "a ring is stopped and started 20 times");
	return err;
}

static int try_reset(struct exercise *x)
{
	int err = 0;

	for (int i = 0; i < 5 && !err; i++)
		err = fe_reset(x->f);
	if (!err)
		result(x, write_all(x, 9) && read_back(x) && holds(x, 0, SPAN, 9),
		       "the device is reset five times and works");
	return err;
}

/* A "no" is a failure and the rest goes on; without a connection nothing does. */
static int step(struct exercise *x, int (*fn)(struct exercise *x))
{
	int err = fn(x);

	if (!err || err == -ECONNRESET || err == -ETIMEDOUT)
		return err;
	result(x, false, x->f->why);
	return 0;
}

int exercise_run(struct fe *f)
{
	struct exercise x = { .f = f };
	int err;

	assert(f->p.slot_bytes >= SPAN && f->p.bufs_max > 2);
	x.mem = fe_slot_mem(f, 0, 0, &x.gpa);
	x.data = x.mem + FE_SLOT_HEAD;
	if (fe_capacity(f) < 1 * MIB || has(&x, BLK_F_RO))
		return text_refuse(-EROFS, f->why, sizeof(f->why), "the disk is read-only or "
				   "smaller than 1 MiB");
	try_transfers(&x);
	try_serial(&x);
	try_flush(&x);
	try_zeroes(&x);
	try_discard(&x);
	err = step(&x, try_config);
	if (!err)
		err = step(&x, try_cache_mode);
	if (!err)
		err = step(&x, try_stop);
	if (!err)
		err = step(&x, try_reset);
	return err ? err : x.failed;
}
