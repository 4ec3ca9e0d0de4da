/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A SCSI target without a transport: simulated LUNs, two reactors, initiators; commands are
 * sent and waited for, or left under way.
 */
#ifndef LUNFS_TESTS_ISCSI_SCSI_RIG_H
#define LUNFS_TESTS_ISCSI_SCSI_RIG_H

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "block/simdev.h"
#include "iscsi/scsi_internal.h"
#include "tests/iscsi/fake_reactor.h"
#include "tests/unit.h"

#define RIG_REACTORS	2
#define RIG_LUNS	2
#define RIG_NEXUSES	3
#define RIG_SIZE	(4 * MIB)

struct rig {
	struct sim *sim;
	struct env *env;
	struct simdisk *disks[RIG_LUNS];
	struct simdisk *opening;	/* of the LUN that is being added */
	struct reactor *reactors[RIG_REACTORS];
	struct scsi_target *target;
	struct scsi_nexus *nexus[RIG_NEXUSES];
	struct scsi_lun *removed;
	int state_fd[RIG_LUNS];
	struct scsi_lun_config config;	/* template */
	uint32_t bs;
	uint64_t blocks;
	struct env_mutex mutex;
	struct env_cond changed;
	uint64_t next_tag;
	void (*body)(struct rig *rig);
};

struct rig_cmd {
	struct rig *rig;
	struct scsi_cmd cmd;
	struct reactor_call call;
	struct iovec iov[8];
	uint8_t *buf;
	bool done, begun_only, held;
};

/* ---- making ---- */

static inline int rig_backing_open(void *arg, struct reactor *r, struct blkdev **out)
{
	struct rig *rig = arg;

	(void)r;
	*out = simdisk_open(rig->opening, rig->env);
	return 0;
}

static inline int rig_state_file(void)
{
	return memfd_create("scsi-state", 0);
}

static inline int rig_add_lun(struct rig *rig, unsigned int number)
{
	struct scsi_lun_config c = rig->config;
	char name[16];

	rig->opening = rig->disks[number];
	snprintf(name, sizeof(name), "lun%u", number);
	c.name = name;
	c.backing = (struct scsi_backing){ .open = rig_backing_open, .arg = rig };
	c.naa[0] = 0x60;
	c.naa[15] = (uint8_t)number;
	snprintf(c.serial, sizeof(c.serial), "serial-%u", number);
	c.state_fd = rig->state_fd[number];
	return scsi_lun_add(rig->target, number, &c);
}

static inline void rig_open_nexus(struct rig *rig, unsigned int i, uint16_t port)
{
	char name[64];
	uint8_t isid[6] = { 0x80, 0, 0, 0, 0, (uint8_t)i };

	snprintf(name, sizeof(name), "iqn.2026-01.test:host%u", i);
	CU_ASSERT_EQUAL_FATAL(scsi_nexus_open(rig->target, name, isid, port, &rig->nexus[i]), 0);
}

static inline void rig_start(struct rig *rig)
{
	CU_ASSERT_EQUAL_FATAL(scsi_target_create(rig->env, "iqn.2026-01.test:target", rig->reactors,
						 RIG_REACTORS, &rig->target), 0);
	for (unsigned int i = 0; i < RIG_LUNS; i++)
		CU_ASSERT_EQUAL_FATAL(rig_add_lun(rig, i), 0);
	for (unsigned int i = 0; i < RIG_NEXUSES; i++)
		rig_open_nexus(rig, i, 1);
}

/* The target goes; disks and state files stay, as after a kill. */
static inline void rig_stop(struct rig *rig)
{
	for (unsigned int i = 0; i < RIG_NEXUSES; i++)
		if (rig->nexus[i])
			scsi_nexus_close(rig->nexus[i]);
	memset(rig->nexus, 0, sizeof(rig->nexus));
	scsi_target_destroy(rig->target);
	rig->target = NULL;
}

/* ---- commands ---- */

static inline void rig_done(struct scsi_cmd *cmd)
{
	struct rig_cmd *c = container_of(cmd, struct rig_cmd, cmd);

	env_mutex_lock(c->rig->env, &c->rig->mutex);
	CU_ASSERT_FALSE(c->done);	/* exactly once */
	c->done = true;
	env_cond_broadcast(c->rig->env, &c->rig->changed);
	env_mutex_unlock(c->rig->env, &c->rig->mutex);
}

/* Pieces as the transport would have them: 4096 and 8192 bytes, and the rest. */
static inline void rig_buffer(struct rig_cmd *c, uint32_t len)
{
	static const uint32_t pieces[] = { 4096, 8192, 4096 };
	uint32_t off = 0;
	int n = 0;

	while (off < len) {
		uint32_t piece = n < 3 ? pieces[n] : len - off;

		if (piece > len - off)
			piece = len - off;
		c->iov[n++] = (struct iovec){ c->buf + off, piece };
		off += piece;
	}
	c->cmd.iov = n ? c->iov : NULL;
	c->cmd.iovcnt = n;
}

static inline void rig_call(struct reactor_call *call)
{
	struct rig_cmd *c = container_of(call, struct rig_cmd, call);
	struct scsi_cmd *cmd = &c->cmd;

	if (!c->held) {
		if (!scsi_cmd_begin(cmd)) {
			rig_done(cmd);
			return;
		}
		rig_buffer(c, cmd->out_len ? cmd->out_len : cmd->in_max);
		if (c->begun_only) {
			c->held = true;
			return;
		}
	}
	scsi_cmd_run(cmd);
}

/* Sends it; @out and @in tell what the initiator expects. */
static inline struct rig_cmd *rig_send(struct rig *rig, unsigned int nexus, unsigned int lun,
				unsigned int reactor, const void *cdb, size_t cdb_len,
				const void *out, uint32_t out_len, uint32_t in_len, bool begun_only)
{
	struct rig_cmd *c = calloc(1, sizeof(*c));
	uint32_t room = out_len > in_len ? out_len : in_len;

	CU_ASSERT_PTR_NOT_NULL_FATAL(c);
	c->rig = rig;
	c->begun_only = begun_only;
	c->buf = blkdev_alloc(ALIGN_UP(room, 4096) + 4096);
	if (out_len)
		memcpy(c->buf, out, out_len);
	c->cmd.nexus = rig->nexus[nexus];
	c->cmd.reactor = rig->reactors[reactor];
	c->cmd.lun[1] = (uint8_t)lun;
	memcpy(c->cmd.cdb, cdb, cdb_len);
	c->cmd.cdb_len = cdb_len < 16 ? 16 : (unsigned int)cdb_len;
	c->cmd.attr = SCSI_SIMPLE;
	c->cmd.tag = ++rig->next_tag;
	c->cmd.expected_out = out_len;
	c->cmd.expected_in = in_len;
	c->cmd.done = rig_done;
	c->call.fn = rig_call;
	reactor_post(c->cmd.reactor, &c->call);
	return c;
}

static inline void rig_wait(struct rig_cmd *c)
{
	struct rig *rig = c->rig;

	env_mutex_lock(rig->env, &rig->mutex);
	while (!c->done)
		env_cond_wait(rig->env, &rig->changed, &rig->mutex, ENV_FOREVER);
	env_mutex_unlock(rig->env, &rig->mutex);
}

static inline void rig_free(struct rig_cmd *c)
{
	free(c->buf);
	free(c);
}

/* Lets simulated time pass. */
static inline void rig_sleep(struct rig *rig, uint64_t ns)
{
	env_sleep_until(rig->env, env_now_ns(rig->env) + ns);
}

struct rig_tmf {
	struct rig *rig;
	struct scsi_tmf tmf;
	struct reactor_call call;
	bool done;
};

static inline void rig_tmf_done(struct scsi_tmf *tmf)
{
	struct rig_tmf *t = container_of(tmf, struct rig_tmf, tmf);

	env_mutex_lock(t->rig->env, &t->rig->mutex);
	t->done = true;
	env_cond_broadcast(t->rig->env, &t->rig->changed);
	env_mutex_unlock(t->rig->env, &t->rig->mutex);
}

static inline void rig_tmf_call(struct reactor_call *call)
{
	scsi_tmf(&container_of(call, struct rig_tmf, call)->tmf);
}

static inline enum scsi_tmf_response rig_tmf(struct rig *rig, unsigned int nexus, unsigned int lun,
				      enum scsi_tmf_fn fn, uint64_t tag)
{
	struct rig_tmf t = { .rig = rig, .tmf = { .fn = fn, .nexus = rig->nexus[nexus],
			     .reactor = rig->reactors[0], .tag = tag, .done = rig_tmf_done },
			     .call.fn = rig_tmf_call };

	t.tmf.lun[1] = (uint8_t)lun;
	reactor_post(rig->reactors[0], &t.call);
	env_mutex_lock(rig->env, &rig->mutex);
	while (!t.done)
		env_cond_wait(rig->env, &rig->changed, &rig->mutex, ENV_FOREVER);
	env_mutex_unlock(rig->env, &rig->mutex);
	return t.tmf.response;
}

/* What a command said: status, and sense key << 16 | code of CHECK CONDITION. */
struct said {
	int status;
	uint32_t sense;
	uint64_t info;
	uint32_t in_len, in_want, out_want;
	bool aborted;
};

static inline struct said rig_said(const struct scsi_cmd *cmd)
{
	struct said s = { .status = cmd->status, .in_len = cmd->in_len, .in_want = cmd->in_want,
			  .out_want = cmd->out_want, .aborted = cmd->aborted };

	if (cmd->status != SCSI_CHECK_CONDITION)
		return s;
	if (cmd->sense[0] & 0x02) {
		s.sense = (uint32_t)cmd->sense[1] << 16 | get_be16(cmd->sense + 2);
		if (cmd->sense[7])
			s.info = get_be64(cmd->sense + 12);
	} else {
		s.sense = (uint32_t)cmd->sense[2] << 16 | get_be16(cmd->sense + 12);
		s.info = cmd->sense[0] & 0x80 ? get_be32(cmd->sense + 3) : UINT64_MAX;
	}
	return s;
}

#define SENSE(key, asc)	((uint32_t)(key) << 16 | (uint32_t)(asc))

static inline struct said rig_end(struct rig_cmd *c, void *in)
{
	struct said s;

	rig_wait(c);
	s = rig_said(&c->cmd);
	if (in && s.in_len)
		memcpy(in, c->buf, s.in_len);
	rig_free(c);
	return s;
}

/* One command from nexus 0 on LUN 0 unless told otherwise, waited for. */
static inline struct said rig_do(struct rig *rig, unsigned int nexus, unsigned int lun, const void *cdb,
			  size_t cdb_len, const void *out, uint32_t out_len, void *in,
			  uint32_t in_len)
{
	return rig_end(rig_send(rig, nexus, lun, nexus % RIG_REACTORS, cdb, cdb_len, out, out_len,
				in_len, false), in);
}

#define CDB(...)	((const uint8_t[]){ __VA_ARGS__ }), sizeof((const uint8_t[]){ __VA_ARGS__ })

/* Takes what every new nexus is told first. */
static inline void rig_clear_ua(struct rig *rig)
{
	for (unsigned int n = 0; n < RIG_NEXUSES; n++)
		for (unsigned int l = 0; l < RIG_LUNS; l++)
			while (rig_do(rig, n, l, CDB(0), NULL, 0, NULL, 0).sense >> 16 ==
			       KEY_UNIT_ATTENTION)
				;
}

/* Blocks of one letter each. */
static inline uint8_t *rig_fill(struct rig *rig, uint8_t letter, uint64_t blocks)
{
	uint8_t *p = malloc(blocks * rig->bs);

	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
	memset(p, letter, blocks * rig->bs);
	return p;
}

static inline void rig_cdb16(uint8_t *cdb, uint8_t op, uint8_t flags, uint64_t lba, uint32_t blocks)
{
	memset(cdb, 0, 16);
	cdb[0] = op;
	cdb[1] = flags;
	put_be64(cdb + 2, lba);
	put_be32(cdb + 10, blocks);
}

static inline struct rig_cmd *rig_send_write(struct rig *rig, unsigned int nexus, unsigned int reactor,
				      uint64_t lba, uint32_t blocks, uint8_t letter)
{
	uint8_t cdb[16], *data = rig_fill(rig, letter, blocks);
	struct rig_cmd *c;

	rig_cdb16(cdb, 0x8a, 0, lba, blocks);
	c = rig_send(rig, nexus, 0, reactor, cdb, 16, data, blocks * rig->bs, 0, false);
	free(data);
	return c;
}

static inline struct said rig_write(struct rig *rig, unsigned int nexus, uint64_t lba, uint32_t blocks,
			     uint8_t letter)
{
	return rig_end(rig_send_write(rig, nexus, nexus % RIG_REACTORS, lba, blocks, letter), NULL);
}

static inline struct said rig_read(struct rig *rig, unsigned int nexus, uint64_t lba, uint32_t blocks,
			    void *in)
{
	uint8_t cdb[16];

	rig_cdb16(cdb, 0x88, 0, lba, blocks);
	return rig_do(rig, nexus, 0, cdb, 16, NULL, 0, in, blocks * rig->bs);
}

/* Whether the disk has that letter all over these blocks. */
static inline bool rig_has(struct rig *rig, unsigned int lun, uint64_t lba, uint64_t blocks,
		    uint8_t letter)
{
	uint8_t *p = malloc(blocks * rig->bs);
	bool same = true;

	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
	simdisk_peek(rig->disks[lun], lba * rig->bs, p, blocks * rig->bs);
	for (uint64_t i = 0; i < blocks * rig->bs && same; i++)
		same = p[i] == letter;
	free(p);
	return same;
}

/* PERSISTENT RESERVE OUT with the plain list. */
static inline struct said rig_pr_out(struct rig *rig, unsigned int nexus, uint8_t action, uint8_t type,
			      uint64_t key, uint64_t action_key, uint8_t flags)
{
	uint8_t cdb[10] = { 0x5f, action, type }, list[24] = { 0 };

	cdb[8] = 24;
	put_be64(list, key);
	put_be64(list + 8, action_key);
	list[20] = flags;
	return rig_do(rig, nexus, 0, cdb, 10, list, 24, NULL, 0);
}

/* ---- the world around a test ---- */

static inline void rig_main(void *arg)
{
	struct rig *rig = arg;

	for (unsigned int i = 0; i < RIG_REACTORS; i++)
		CU_ASSERT_EQUAL_FATAL(reactor_create(rig->env, "reactor", 0, 8, &rig->reactors[i]),
				      0);
	rig_start(rig);
	rig->body(rig);
	rig_stop(rig);
	for (unsigned int i = 0; i < RIG_REACTORS; i++)
		reactor_destroy(rig->reactors[i]);
}

static inline void rig_run_seed(void (*body)(struct rig *rig), uint32_t bs,
			 const struct scsi_lun_config *config, uint64_t seed)
{
	struct rig rig = { .sim = sim_new(seed), .bs = bs, .body = body,
			   .blocks = RIG_SIZE / bs };
	struct simdisk_params params = { .size = RIG_SIZE, .sector = bs, .latency_min_ns = 1000,
					 .latency_max_ns = 50000 };
	struct env_thread *thread;

	rig.config = *config;
	rig.config.block_size = bs;
	rig.config.size = RIG_SIZE;
	rig.env = sim_host(rig.sim, "target");
	sim_host_log(rig.env, NULL, NULL);
	sim_preempt(rig.sim, 200);
	env_mutex_init(rig.env, &rig.mutex);
	env_cond_init(rig.env, &rig.changed);
	for (unsigned int i = 0; i < RIG_LUNS; i++) {
		rig.disks[i] = simdisk_new(rig.sim, &params);
		rig.state_fd[i] = config->state_fd < 0 ? -1 : rig_state_file();
	}
	CU_ASSERT_EQUAL(env_thread_start(rig.env, "main", rig_main, &rig, &thread), 0);
	CU_ASSERT_TRUE(sim_run(rig.sim, 3600 * NSEC_PER_SEC));
	env_thread_join(rig.env, thread);
	env_cond_fini(rig.env, &rig.changed);
	env_mutex_fini(rig.env, &rig.mutex);
	for (unsigned int i = 0; i < RIG_LUNS; i++) {
		simdisk_free(rig.disks[i]);
		if (rig.state_fd[i] >= 0)
			close(rig.state_fd[i]);
	}
	sim_free(rig.sim);
}

static const struct scsi_lun_config rig_thin = { .thin = true, .write_cache = true };
static const struct scsi_lun_config rig_thick = { .state_fd = -1 };

/* On 512- and on 4096-byte blocks. */
static inline void rig_run(void (*body)(struct rig *rig))
{
	rig_run_seed(body, 512, &rig_thin, 1);
	rig_run_seed(body, 4096, &rig_thin, 2);
}

#endif
