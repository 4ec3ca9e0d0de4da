// SPDX-License-Identifier: Apache-2.0
/* The iSCSI backend against a scripted target: answers, silences, broken connections. */
#include "block/blkiscsi.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>

#include "tests/block/mini_target.h"
#include "tests/unit.h"

#define READ		0x88
#define CAW		0x89
#define WRITE		0x8a
#define SAME		0x93
#define SYNC		0x35
#define UNMAP		0x42

static char why[600];

static int open_flags(struct mini_target *t, const char *params, unsigned int flags,
		      struct blkdev **dev)
{
	struct blkiscsi_options o = { .flags = flags };
	struct blkiscsi_target target;
	char url[256];

	CU_ASSERT_EQUAL_FATAL(blkiscsi_parse(mini_url(t, params, url), &target, why, sizeof(why)), 0);
	strcpy(target.initiator, "iqn.2026-11.test:initiator");
	return blkiscsi_open(env_posix(), &target, &o, dev, why, sizeof(why));
}

static struct blkdev *begin(struct mini_target *t, const char *params)
{
	struct blkdev *dev = NULL;

	env_posix_log_level(LOG_LEVEL_ERROR);
	if (!t->sector)
		t->sector = 512;
	CU_ASSERT_EQUAL_FATAL(mini_start(t), 0);
	CU_ASSERT_EQUAL_FATAL(open_flags(t, params, 0, &dev), 0);
	return dev;
}

static void end(struct mini_target *t, struct blkdev *dev)
{
	blkdev_close(dev);
	mini_stop(t);
}

static void fill(uint8_t *buf, size_t len, unsigned int seed)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = (uint8_t)(i * 31 + i / 512 + seed);
}

/* ---- what the LUN is ---- */

static void the_lun_tells_what_it_is(void)
{
	struct mini_target t = { .sector = 4096, .wce = true, .rw_max = 16 };
	struct blkdev *dev = begin(&t, "");

	CU_ASSERT_EQUAL(dev->info.size, MINI_SIZE);
	CU_ASSERT_EQUAL(dev->info.sector, 4096);
	CU_ASSERT_EQUAL(dev->info.io_max, 16 * 4096);
	CU_ASSERT_EQUAL(dev->info.caw, BLK_CAW_SCSI);
	CU_ASSERT_EQUAL(dev->info.discard_granularity, 4096);
	CU_ASSERT(!dev->info.reservations && !dev->info.read_only);
	CU_ASSERT_STRING_EQUAL(dev->info.identity, "naa.3000000000000001");
	CU_ASSERT(dev->info.inflight_ns_max >= 30 * NSEC_PER_SEC);
	end(&t, dev);
}

/* What "lunfs volume grow" asks for after the LUN was made larger: at once, without a new session. */
static void a_lun_that_grows_is_seen_to(void)
{
	struct mini_target t = { .wce = true };
	struct blkdev *dev = begin(&t, "");

	t.size *= 2;	/* no command is under way */
	CU_ASSERT_EQUAL(dev->info.size, MINI_SIZE);
	CU_ASSERT_EQUAL(dev->ops->refresh(dev), 0);
	CU_ASSERT_EQUAL(dev->info.size, 2 * MINI_SIZE);
	end(&t, dev);
}

static void who_cannot_log_in_is_told_why(void)
{
	struct mini_target t = { .sector = 512 };
	struct blkdev *dev = NULL;

	CU_ASSERT_EQUAL_FATAL(mini_start(&t), 0);
	mini_rule_add(&t, (struct mini_rule){ .opcode = 0x12, .count = 99, .action = MINI_SENSE,
					      .key = 5, .asc = 0x2500 });
	CU_ASSERT_EQUAL(open_flags(&t, "", 0, &dev), -ENXIO);
	CU_ASSERT(strstr(why, "no such LUN") != NULL);
	mini_stop(&t);
	CU_ASSERT(open_flags(&t, "", 0, &dev) < 0);
	CU_ASSERT(strstr(why, "127.0.0.1") != NULL);
	CU_ASSERT_PTR_NULL(dev);
}

/* Debian's tgt: a length for it in the block limits, and no such command. */
static void an_announced_compare_and_write_has_to_be_there(void)
{
	struct mini_target t = { .sector = 512 };
	struct blkdev *dev = NULL;

	CU_ASSERT_EQUAL_FATAL(mini_start(&t), 0);
	mini_rule_add(&t, (struct mini_rule){ .opcode = CAW, .count = 1, .action = MINI_SENSE,
					      .key = 5, .asc = 0x2000 });
	CU_ASSERT_EQUAL_FATAL(open_flags(&t, "", 0, &dev), 0);
	CU_ASSERT_EQUAL(dev->info.caw, BLK_CAW_NONE);
	end(&t, dev);
}

/* ---- data ---- */

/* Every segment in its place, although the target takes small commands only. */
static void large_requests_are_split_and_gathered(void)
{
	struct mini_target t = { .rw_max = 24, .same_max = 100 };
	struct blkdev *dev = begin(&t, "");
	size_t len = 300 * 1024;
	uint8_t *out = blkdev_alloc(len), *in = blkdev_alloc(len);
	struct iovec iov[200];
	size_t done = 0;
	int n = 0;

	fill(out, len, 1);
	for (; done < len; n++) {
		size_t piece = (size_t)(n % 11 + 1) * 512;

		piece = piece < len - done ? piece : len - done;
		iov[n] = (struct iovec){ out + done, piece };
		done += piece;
	}
	CU_ASSERT_EQUAL(blkdev_rwv(dev, BLK_WRITE, 0, 512 * 3, iov, n), 0);
	CU_ASSERT(!memcmp(t.data + 512 * 3, out, len));
	CU_ASSERT_EQUAL(t.biggest, 24 * 512);
	for (int i = 0; i < n; i++)
		iov[i].iov_base = in + ((uint8_t *)iov[i].iov_base - out);
	CU_ASSERT_EQUAL(blkdev_rwv(dev, BLK_READ, 0, 512 * 3, iov, n), 0);
	CU_ASSERT(!memcmp(in, out, len));
	CU_ASSERT_EQUAL(blkdev_zero(dev, 512 * 3, 200 * 512), 0);
	CU_ASSERT_EQUAL(mini_seen(&t, SAME), 2);
	CU_ASSERT(t.data[512 * 3] == 0 && t.data[512 * 202] == 0 && t.data[512 * 203 + 1]);
	CU_ASSERT_EQUAL(blkdev_discard(dev, 0, 3000 * 512), 0);
	CU_ASSERT_EQUAL(mini_seen(&t, UNMAP), 3);
	free(out);
	free(in);
	end(&t, dev);
}

/* A segment list of someone else's is not written to, not even for a moment. */
static void more_segments_than_a_command_takes(void)
{
	struct mini_target t = { 0 };
	struct blkdev *dev = begin(&t, "");
	static struct iovec iov[300];
	uint8_t *buf = blkdev_alloc(300 * 512);
	struct iovec before[300];

	fill(buf, 300 * 512, 7);
	for (int i = 0; i < 300; i++)
		iov[i] = (struct iovec){ buf + (size_t)512 * (299 - i), 512 };
	memcpy(before, iov, sizeof(iov));
	CU_ASSERT_EQUAL(blkdev_rwv(dev, BLK_WRITE, 0, 0, iov, 300), 0);
	for (int i = 0; i < 300; i++)
		CU_ASSERT(!memcmp(t.data + (size_t)512 * i, buf + (size_t)512 * (299 - i), 512));
	CU_ASSERT(!memcmp(before, iov, sizeof(iov)));
	free(buf);
	end(&t, dev);
}

static void compare_and_write_changes_all_or_nothing(void)
{
	struct mini_target t = { 0 };
	struct blkdev *dev = begin(&t, "");
	uint8_t *old = blkdev_alloc(512), *new = blkdev_alloc(512);

	fill(new, 512, 3);
	CU_ASSERT_EQUAL(blkdev_caw(dev, 1024, old, new), 0);
	CU_ASSERT(!memcmp(t.data + 1024, new, 512));
	CU_ASSERT_EQUAL(blkdev_caw(dev, 1024, old, old), -EILSEQ);
	CU_ASSERT(!memcmp(t.data + 1024, new, 512));
	free(old);
	free(new);
	end(&t, dev);
}

/* ---- answers ---- */

static void each_answer_means_what_the_interface_says(void)
{
	static const struct { uint8_t opcode, status, key; uint16_t asc; int err; } cases[] = {
		{ WRITE, 0x18, 0, 0, -EBADE },			/* RESERVATION CONFLICT */
		{ CAW, 0x18, 0, 0, -EBADE },
		{ READ, 0, 3, 0x1100, -EIO },			/* MEDIUM ERROR */
		{ WRITE, 0, 4, 0x4400, -EIO },			/* HARDWARE ERROR */
		{ WRITE, 0, 7, 0x2700, -EROFS },		/* WRITE PROTECTED */
		{ WRITE, 0, 7, 0x2707, -ENOSPC },		/* SPACE ALLOCATION FAILED */
		{ WRITE, 0, 0xd, 0, -ENOSPC },
		{ READ, 0, 5, 0x2100, -EIO },			/* LBA OUT OF RANGE */
		{ CAW, 0, 5, 0x2000, -ENOTSUP },
		{ UNMAP, 0, 5, 0x2400, -ENOTSUP },
		{ WRITE, 0, 6, 0x2a03, -EBADE },		/* RESERVATIONS PREEMPTED */
		{ WRITE, 0, 6, 0x2a05, -EBADE },
		{ WRITE, 0, 6, 0x2a09, 0 },			/* CAPACITY CHANGED: again */
		{ CAW, 0, 6, 0x2900, 0 },
		{ READ, 0, 0xb, 0x4b00, 0 },			/* ABORTED COMMAND: again */
		{ CAW, 0, 0xb, 0x4b00, -EIO },			/* unclear */
		{ CAW, 0, 0xe, 0x1d00, -EILSEQ },
		{ READ, 0, 1, 0x1700, 0 },			/* RECOVERED ERROR: again */
		{ WRITE, 0, 1, 0x1700, 0 },
	};
	struct mini_target t = { 0 };
	struct blkdev *dev = begin(&t, "");
	uint8_t *buf = blkdev_alloc(512), *zero = blkdev_alloc(512);

	for (unsigned int i = 0; i < ARRAY_SIZE(cases); i++) {
		int err;

		mini_rule_add(&t, (struct mini_rule){
			.opcode = cases[i].opcode, .count = 1, .descriptor = i % 2,
			.action = cases[i].status ? MINI_STATUS : MINI_SENSE, .lba = 5,
			.status = cases[i].status, .key = cases[i].key, .asc = cases[i].asc });
		switch (cases[i].opcode) {
		case READ:
			err = blkdev_read(dev, 0, buf, 512);
			break;
		case WRITE:
			err = blkdev_write(dev, 0, zero, 512);
			break;
		case CAW:
			err = blkdev_caw(dev, 0, zero, zero);
			break;
		default:
			err = blkdev_discard(dev, 0, 512);
			break;
		}
		CU_ASSERT_EQUAL(err, cases[i].err);
		if (err != cases[i].err)
			printf("case %u: %d instead of %d\n", i, err, cases[i].err);
	}
	free(buf);
	free(zero);
	end(&t, dev);
}

static void a_target_that_never_stops_attending_is_given_up(void)
{
	struct mini_target t = { 0 };
	struct blkdev *dev = begin(&t, "");
	uint8_t *buf = blkdev_alloc(512);

	mini_rule_add(&t, (struct mini_rule){ .opcode = READ, .count = 1000, .action = MINI_SENSE,
					      .key = 6, .asc = 0x2900 });
	CU_ASSERT_EQUAL(blkdev_read(dev, 0, buf, 512), -EIO);
	CU_ASSERT(mini_seen(&t, READ) < 50);
	free(buf);
	end(&t, dev);
}

/* ---- lost connections ---- */

/* Under the same ISID: the target then ends what the old session had under way. */
static void a_lost_connection_is_made_again_and_nobody_notices(void)
{
	struct mini_target t = { 0 };
	struct blkdev *dev = begin(&t, "");
	uint8_t *buf = blkdev_alloc(4096);

	fill(buf, 4096, 9);
	mini_rule_add(&t, (struct mini_rule){ .opcode = WRITE, .count = 1, .action = MINI_DROP });
	CU_ASSERT_EQUAL(blkdev_write(dev, 0, buf, 4096), 0);
	CU_ASSERT(!memcmp(t.data, buf, 4096));
	mini_rule_add(&t, (struct mini_rule){ .opcode = READ, .count = 2, .action = MINI_DROP });
	CU_ASSERT_EQUAL(blkdev_read(dev, 0, buf, 4096), 0);
	mini_cut(&t);
	CU_ASSERT_EQUAL(blkdev_read(dev, 0, buf, 4096), 0);
	CU_ASSERT_EQUAL(mini_logins(&t), 5);
	for (unsigned int i = 1; i < mini_logins(&t); i++)
		CU_ASSERT(!memcmp(t.isids[i], t.isids[0], 6));
	free(buf);
	end(&t, dev);
}

static void a_compare_and_write_whose_answer_is_lost_is_unclear(void)
{
	struct mini_target t = { 0 };
	struct blkdev *dev = begin(&t, "");
	uint8_t *old = blkdev_alloc(512), *new = blkdev_alloc(512);

	new[0] = 1;
	mini_rule_add(&t, (struct mini_rule){ .opcode = CAW, .count = 1,
					      .action = MINI_DROP_DONE });
	CU_ASSERT_EQUAL(blkdev_caw(dev, 0, old, new), -EIO);
	CU_ASSERT_EQUAL(mini_seen(&t, CAW), 2);	/* with the one that asks whether there is any */
	CU_ASSERT_EQUAL(t.data[0], 1);
	free(old);
	free(new);
	end(&t, dev);
}

static void the_heartbeat_gets_an_error_instead(void)
{
	struct mini_target t = { .sector = 512 };
	struct blkdev *dev = NULL;
	uint8_t *buf = blkdev_alloc(512);

	CU_ASSERT_EQUAL_FATAL(mini_start(&t), 0);
	CU_ASSERT_EQUAL_FATAL(open_flags(&t, "", BLKISCSI_HEARTBEAT, &dev), 0);
	mini_rule_add(&t, (struct mini_rule){ .opcode = READ, .count = 1, .action = MINI_DROP });
	CU_ASSERT_EQUAL(blkdev_read(dev, 0, buf, 512), -ETIMEDOUT);
	CU_ASSERT_EQUAL(mini_seen(&t, READ), 1);
	free(buf);
	end(&t, dev);
}

/* A target that takes logins and loses each command's connection would be tried for ever. */
static void a_command_that_costs_every_connection_is_given_up(void)
{
	struct mini_target t = { 0 };
	struct blkdev *dev = begin(&t, "");
	uint8_t *buf = blkdev_alloc(512);

	mini_rule_add(&t, (struct mini_rule){ .opcode = READ, .count = 5, .action = MINI_DROP });
	CU_ASSERT_EQUAL(blkdev_read(dev, 0, buf, 512), -ETIMEDOUT);
	CU_ASSERT_EQUAL(mini_seen(&t, READ), 5);
	CU_ASSERT_EQUAL(blkdev_read(dev, 0, buf, 512), 0);
	free(buf);
	end(&t, dev);
}

/* Some targets do not say that they send less than was asked for. */
static void data_that_has_not_come_is_not_taken_for_data(void)
{
	struct mini_target t = { 0 };
	struct blkdev *dev = begin(&t, "");
	uint8_t *buf = blkdev_alloc(8192), *was = blkdev_alloc(8192);

	fill(was, 8192, 4);
	memcpy(t.data, was, 8192);
	for (unsigned int i = 0; i < 4; i++) {
		struct iovec iov[3] = { { buf, 512 }, { buf + 512, 1024 }, { buf + 1536, 8192 - 1536 } };

		memset(buf, 0, 8192);
		mini_rule_add(&t, (struct mini_rule){ .opcode = READ, .count = 1,
						      .action = i & 1 ? MINI_SHORT : MINI_EMPTY });
		CU_ASSERT_EQUAL(blkdev_rwv(dev, BLK_READ, 0, 0, iov, 3), 0);
		CU_ASSERT(!memcmp(buf, was, 8192));
		CU_ASSERT_EQUAL(mini_seen(&t, READ), 2 * (i + 1));
	}
	mini_rule_add(&t, (struct mini_rule){ .opcode = READ, .count = 99, .action = MINI_SHORT });
	CU_ASSERT_EQUAL(blkdev_read(dev, 0, buf, 8192), -EIO);
	free(was);
	free(buf);
	end(&t, dev);
}

/* ---- the LUN is another one ---- */

/* A handle that does not wait for long for a path. */
static struct blkdev *begin_briefly(struct mini_target *t)
{
	struct blkdev *dev = NULL;

	env_posix_log_level(LOG_LEVEL_ERROR);
	CU_ASSERT_EQUAL_FATAL(mini_start(t), 0);
	CU_ASSERT_EQUAL_FATAL(open_flags(t, "", BLKISCSI_HEARTBEAT, &dev), 0);
	return dev;
}

/* Whichever way it is told, by a unit attention (@asc) or a lost connection: nothing is read or written. */
static void check_not_used(struct mini_target *t, struct blkdev *dev, uint16_t asc)
{
	uint8_t *buf = blkdev_alloc(4096);

	if (asc)
		mini_rule_add(t, (struct mini_rule){ .opcode = WRITE, .count = 1, .action = MINI_SENSE,
						     .key = 6, .asc = asc });
	else
		mini_cut(t);
	memset(buf, 7, 4096);
	CU_ASSERT(blkdev_write(dev, 4096, buf, 4096) < 0);
	CU_ASSERT(blkdev_read(dev, 4096, buf, 4096) < 0);
	CU_ASSERT(blkdev_caw(dev, 4096, buf, buf) < 0);
	CU_ASSERT_EQUAL(mini_seen(t, READ), 0);
	CU_ASSERT_EQUAL(mini_seen(t, WRITE), asc ? 1 : 0);
	for (size_t i = 0; i < MINI_SIZE; i += 512)
		CU_ASSERT_EQUAL_FATAL(t->data[i], 0);
	free(buf);
}

static void another_lun_behind_the_address_is_not_used(void)
{
	static const uint16_t told[] = { 0, 0x3f03, 0x3f0e };

	for (unsigned int i = 0; i < 3; i++) {
		struct mini_target t = { .sector = 512, .identity = 1 };
		struct blkdev *dev = begin_briefly(&t);

		t.identity = 2;
		check_not_used(&t, dev, told[i]);
		end(&t, dev);
	}
}

/* Each address would lead to another place. */
static void a_lun_whose_blocks_have_another_size_is_not_used(void)
{
	static const uint16_t told[] = { 0, 0x2a09 };
	uint8_t *buf = blkdev_alloc(4096);

	for (unsigned int i = 0; i < 2; i++) {
		struct mini_target t = { .sector = 512 };
		struct blkdev *dev = begin_briefly(&t);

		t.sector = 4096;
		check_not_used(&t, dev, told[i]);
		end(&t, dev);
	}
	/* Not told at all: the answer's residual tells. */
	for (unsigned int i = 0; i < 2; i++) {
		struct mini_target t = { .sector = i ? 4096 : 512 };
		struct blkdev *dev = begin_briefly(&t);

		t.sector = i ? 512 : 4096;
		CU_ASSERT_EQUAL(blkdev_read(dev, 0, buf, 4096), -EIO);
		end(&t, dev);
	}
	free(buf);
}

/* It is not kept in the dark for as long as the LUN is away: time tells that it cannot land any more. */
static void what_was_under_way_ends_although_no_login_succeeds(void)
{
	struct mini_target t = { .identity = 1 };
	struct blkdev *dev = begin(&t, "?timeout=2&path-timeout=1");
	uint8_t *buf = blkdev_alloc(512);

	dev->ops->lease(dev, env_now_ns(env_posix()) + 600 * NSEC_PER_SEC);
	mini_rule_add(&t, (struct mini_rule){ .opcode = WRITE, .count = 1, .action = MINI_DROP });
	t.identity = 2;
	CU_ASSERT_EQUAL(blkdev_write(dev, 0, buf, 512), -ECONNRESET);
	CU_ASSERT(mini_logins(&t) > 2);
	free(buf);
	end(&t, dev);
}

/* What only says that something may have changed costs nobody anything if nothing has. */
static void the_same_lun_goes_on_after_a_look(void)
{
	struct mini_target t = { .wce = true };
	struct blkdev *dev = begin(&t, "?durable=flush");
	uint8_t *buf = blkdev_alloc(512);

	buf[0] = 3;
	CU_ASSERT_EQUAL(blkdev_write(dev, 0, buf, 512), 0);
	mini_rule_add(&t, (struct mini_rule){ .opcode = READ, .count = 1, .action = MINI_SENSE,
					      .key = 6, .asc = 0x3f0e });
	CU_ASSERT_EQUAL(blkdev_read(dev, 0, buf, 512), 0);
	CU_ASSERT_EQUAL(buf[0], 3);
	CU_ASSERT_EQUAL(blkdev_flush(dev), 0);	/* no session was lost */
	CU_ASSERT_EQUAL(mini_logins(&t), 1);
	free(buf);
	end(&t, dev);
}

/* ---- the lease ---- */

static void nothing_is_sent_without_a_lease(void)
{
	struct mini_target t = { 0 };
	struct blkdev *dev = begin(&t, "");
	uint8_t *buf = blkdev_alloc(512);

	dev->ops->lease(dev, 1);
	CU_ASSERT_EQUAL(blkdev_write(dev, 0, buf, 512), -ECONNRESET);
	CU_ASSERT_EQUAL(blkdev_read(dev, 0, buf, 512), -ECONNRESET);
	CU_ASSERT_EQUAL(mini_seen(&t, WRITE) + mini_seen(&t, READ), 0);
	dev->ops->lease(dev, env_now_ns(env_posix()) + 60 * NSEC_PER_SEC);
	CU_ASSERT_EQUAL(blkdev_write(dev, 0, buf, 512), 0);
	free(buf);
	end(&t, dev);
}

struct late {
	atomic_int err;
	atomic_bool done;
};

static void late_done(struct blk_io *io, int err)
{
	struct late *l = io->arg;

	l->err = err;
	l->done = true;
}

/* A lease that ends cuts the connection; the gate, not we, sends again. */
static void what_is_under_way_when_the_lease_ends_is_cut_off(void)
{
	struct mini_target t = { 0 };
	struct blkdev *dev = begin(&t, "");
	uint8_t *buf = blkdev_alloc(512);
	struct iovec iov = { buf, 512 };
	struct late l = { 0 };
	struct blk_io io = { .op = BLK_WRITE, .len = 512, .iov = &iov, .iovcnt = 1,
			     .done = late_done, .arg = &l }, *ios = &io;

	mini_rule_add(&t, (struct mini_rule){ .opcode = WRITE, .count = 1,
					      .action = MINI_SILENT });
	dev->ops->lease(dev, env_now_ns(env_posix()) + 60 * NSEC_PER_SEC);
	blkdev_submit(dev, &ios, 1);
	while (!mini_seen(&t, WRITE))
		poll(NULL, 0, 1);
	CU_ASSERT(!l.done);
	dev->ops->lease(dev, 0);
	while (!l.done)
		poll(NULL, 0, 1);
	CU_ASSERT_EQUAL(l.err, -ECONNRESET);
	CU_ASSERT_EQUAL(mini_logins(&t), 2);	/* told only when the old session was dead */
	CU_ASSERT_EQUAL(mini_seen(&t, WRITE), 1);
	free(buf);
	end(&t, dev);
}

/* ---- durability ---- */

static void with_a_volatile_cache_each_write_is_durable_by_itself(void)
{
	struct mini_target t = { .wce = true };
	struct blkdev *dev = begin(&t, "");
	uint8_t *buf = blkdev_alloc(512);

	CU_ASSERT_EQUAL(blkdev_write(dev, 0, buf, 512), 0);
	CU_ASSERT_EQUAL(blkdev_caw(dev, 0, buf, buf), 0);
	CU_ASSERT_EQUAL(t.fua[WRITE], 1);
	CU_ASSERT_EQUAL(t.fua[CAW], 1);
	CU_ASSERT_EQUAL(blkdev_zero(dev, 0, 512), 0);
	CU_ASSERT_EQUAL(mini_seen(&t, SYNC), 1);	/* WRITE SAME has no FUA */
	mini_cut(&t);
	CU_ASSERT_EQUAL(blkdev_read(dev, 0, buf, 512), 0);
	CU_ASSERT_EQUAL(blkdev_flush(dev), 0);	/* nothing could be lost */
	free(buf);
	end(&t, dev);
}

static void a_session_lost_before_the_flush_fails_that_flush(void)
{
	struct mini_target t = { .wce = true };
	struct blkdev *dev = begin(&t, "?durable=flush");
	uint8_t *buf = blkdev_alloc(512);

	CU_ASSERT_EQUAL(blkdev_write(dev, 0, buf, 512), 0);
	CU_ASSERT_EQUAL(t.fua[WRITE], 0);
	CU_ASSERT_EQUAL(blkdev_flush(dev), 0);
	CU_ASSERT_EQUAL(mini_seen(&t, SYNC), 1);
	mini_cut(&t);
	CU_ASSERT_EQUAL(blkdev_read(dev, 0, buf, 512), 0);
	CU_ASSERT_EQUAL(blkdev_flush(dev), 0);	/* all was flushed before */
	CU_ASSERT_EQUAL(blkdev_write(dev, 0, buf, 512), 0);
	mini_cut(&t);
	CU_ASSERT_EQUAL(blkdev_read(dev, 0, buf, 512), 0);
	CU_ASSERT_EQUAL(blkdev_flush(dev), -EIO);
	CU_ASSERT_EQUAL(blkdev_flush(dev), 0);	/* told once */
	/* A reset told by unit attention is as bad. */
	CU_ASSERT_EQUAL(blkdev_write(dev, 0, buf, 512), 0);
	mini_rule_add(&t, (struct mini_rule){ .opcode = READ, .count = 1, .action = MINI_SENSE,
					      .key = 6, .asc = 0x2901 });
	CU_ASSERT_EQUAL(blkdev_read(dev, 0, buf, 512), 0);
	CU_ASSERT_EQUAL(blkdev_flush(dev), -EIO);
	free(buf);
	end(&t, dev);
}

static void without_fua_a_flush_follows_what_must_last(void)
{
	struct mini_target t = { .wce = true, .no_fua = true };
	struct blkdev *dev = begin(&t, "");
	uint8_t *buf = blkdev_alloc(512);

	CU_ASSERT_EQUAL(blkdev_caw(dev, 0, buf, buf), 0);
	CU_ASSERT_EQUAL(mini_seen(&t, SYNC), 1);
	CU_ASSERT_EQUAL(blkdev_rw(dev, BLK_WRITE, BLK_FUA, 0, buf, 512), 0);
	CU_ASSERT_EQUAL(mini_seen(&t, SYNC), 2);
	CU_ASSERT_EQUAL(t.fua[WRITE] + t.fua[CAW], 0);
	free(buf);
	end(&t, dev);
}

/* ---- paths ---- */

static void two_paths_share_the_work_and_one_does_it_alone(void)
{
	struct mini_target t = { 0 };
	char params[64];
	struct blkdev *dev;
	uint8_t *buf = blkdev_alloc(64 * 512);
	struct blk_io ios[64];
	struct iovec iov[64];

	env_posix_log_level(LOG_LEVEL_ERROR);
	t.sector = 512;
	CU_ASSERT_EQUAL_FATAL(mini_start(&t), 0);
	snprintf(params, sizeof(params), "?portal=127.0.0.1:%u", t.port);
	CU_ASSERT_EQUAL_FATAL(open_flags(&t, params, 0, &dev), 0);
	while (mini_logins(&t) < 2)
		poll(NULL, 0, 1);
	CU_ASSERT(memcmp(t.isids[0], t.isids[1], 6) != 0);
	for (unsigned int round = 0; round < 20; round++) {
		for (unsigned int i = 0; i < 64; i++) {
			iov[i] = (struct iovec){ buf + 512 * i, 512 };
			ios[i] = (struct blk_io){ .op = i % 2 ? BLK_READ : BLK_WRITE,
						  .off = 512 * i, .len = 512, .iov = &iov[i],
						  .iovcnt = 1 };
		}
		if (round % 4 == 1)
			mini_rule_add(&t, (struct mini_rule){ .opcode = WRITE, .skip = 10,
							      .count = 1, .action = MINI_DROP });
		CU_ASSERT_EQUAL(blkdev_rw_batch(dev, ios, 64), 0);
	}
	CU_ASSERT(mini_logins(&t) >= 7);
	free(buf);
	end(&t, dev);
}

/* Two portals that lead to two LUNs would tear every file apart. */
static void a_portal_of_another_lun_is_not_used(void)
{
	struct mini_target t = { .sector = 512 }, other = { .sector = 512, .identity = 2 };
	char params[64];
	struct blkdev *dev;
	uint8_t *buf = blkdev_alloc(512);

	env_posix_log_level(LOG_LEVEL_ERROR);
	CU_ASSERT_EQUAL_FATAL(mini_start(&t), 0);
	CU_ASSERT_EQUAL_FATAL(mini_start(&other), 0);
	snprintf(params, sizeof(params), "?portal=127.0.0.1:%u", other.port);
	CU_ASSERT_EQUAL_FATAL(open_flags(&t, params, 0, &dev), 0);
	for (unsigned int i = 0; i < 50 || mini_seen(&t, WRITE) + mini_seen(&other, WRITE) < 50; i++)
		CU_ASSERT_EQUAL(blkdev_write(dev, 0, buf, 512), 0);
	CU_ASSERT(mini_seen(&t, WRITE) == 0 || mini_seen(&other, WRITE) == 0);
	free(buf);
	blkdev_close(dev);
	mini_stop(&t);
	mini_stop(&other);
}

/* ---- polled ---- */

static void an_owner_may_collect_completions_itself(void)
{
	struct mini_target t = { 0 };
	struct blkdev *dev = begin(&t, "");
	uint8_t *buf = blkdev_alloc(512);
	struct iovec iov = { buf, 512 };
	struct late l = { 0 };
	struct blk_io io = { .op = BLK_WRITE, .len = 512, .iov = &iov, .iovcnt = 1,
			     .done = late_done, .arg = &l }, *ios = &io;
	struct pollfd pfd = { .events = POLLIN };

	CU_ASSERT_EQUAL_FATAL(blkdev_set_polled(dev), 0);
	pfd.fd = blkdev_poll_fd(dev);
	buf[0] = 5;
	blkdev_submit(dev, &ios, 1);
	while (!l.done) {
		CU_ASSERT_EQUAL_FATAL(poll(&pfd, 1, 10000), 1);
		blkdev_poll(dev);
	}
	CU_ASSERT_EQUAL(l.err, 0);
	CU_ASSERT_EQUAL(t.data[0], 5);
	/* A connection that breaks is the owner's to make again, by polling. */
	l.done = false;
	mini_rule_add(&t, (struct mini_rule){ .opcode = WRITE, .count = 1, .action = MINI_DROP });
	blkdev_submit(dev, &ios, 1);
	while (!l.done) {
		poll(&pfd, 1, 10000);
		blkdev_poll(dev);
	}
	CU_ASSERT_EQUAL(l.err, 0);
	free(buf);
	end(&t, dev);
}

UNIT_MAIN("blkiscsi_io",
	UNIT_TEST(the_lun_tells_what_it_is),
	UNIT_TEST(a_lun_that_grows_is_seen_to),
	UNIT_TEST(who_cannot_log_in_is_told_why),
	UNIT_TEST(an_announced_compare_and_write_has_to_be_there),
	UNIT_TEST(large_requests_are_split_and_gathered),
	UNIT_TEST(more_segments_than_a_command_takes),
	UNIT_TEST(compare_and_write_changes_all_or_nothing),
	UNIT_TEST(each_answer_means_what_the_interface_says),
	UNIT_TEST(a_target_that_never_stops_attending_is_given_up),
	UNIT_TEST(a_lost_connection_is_made_again_and_nobody_notices),
	UNIT_TEST(a_compare_and_write_whose_answer_is_lost_is_unclear),
	UNIT_TEST(the_heartbeat_gets_an_error_instead),
	UNIT_TEST(a_command_that_costs_every_connection_is_given_up),
	UNIT_TEST(data_that_has_not_come_is_not_taken_for_data),
	UNIT_TEST(another_lun_behind_the_address_is_not_used),
	UNIT_TEST(a_lun_whose_blocks_have_another_size_is_not_used),
	UNIT_TEST(what_was_under_way_ends_although_no_login_succeeds),
	UNIT_TEST(the_same_lun_goes_on_after_a_look),
	UNIT_TEST(nothing_is_sent_without_a_lease),
	UNIT_TEST(what_is_under_way_when_the_lease_ends_is_cut_off),
	UNIT_TEST(with_a_volatile_cache_each_write_is_durable_by_itself),
	UNIT_TEST(a_session_lost_before_the_flush_fails_that_flush),
	UNIT_TEST(without_fua_a_flush_follows_what_must_last),
	UNIT_TEST(two_paths_share_the_work_and_one_does_it_alone),
	UNIT_TEST(a_portal_of_another_lun_is_not_used),
	UNIT_TEST(an_owner_may_collect_completions_itself));
