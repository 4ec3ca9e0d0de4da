/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device server for tests of the transport: one disk in memory, commands that wait until
 * they are told to end, and a count of what went on.  Include it in one source file; the
 * program then does not link the real one.
 */
#ifndef LUNFS_TESTS_FAKE_SCSI_H
#define LUNFS_TESTS_FAKE_SCSI_H

#include <stdlib.h>

#include "iscsi/scsi.h"

enum {
	FAKE_BLOCK = 512, FAKE_BLOCKS = 65536,
	FAKE_OP_TEST = 0x00,	/* nothing to move */
	FAKE_OP_FAIL = 0xf0,	/* refused by scsi_cmd_begin() */
	FAKE_OP_READ = 0x28, FAKE_OP_WRITE = 0x2a,
};

struct scsi_target { int unused; };
struct scsi_nexus { unsigned int begun; };

static struct {
	struct scsi_target target;
	uint8_t		*disk;
	bool		hold;		/* commands wait for fake_release() */
	struct scsi_cmd	*held[256];
	unsigned int	held_count;
	struct scsi_tmf	*tmf_waits;
	unsigned int	nexuses, commands, cancelled, tmfs;
	enum scsi_tmf_fn last_tmf;
	uint32_t	order[256];	/* tags, as they began */
	unsigned int	begun;
} fake;

static inline void fake_fini(void)
{
#ifndef FAKE_KEEP_DISK
	free(fake.disk);
	fake.disk = NULL;
#endif
}

/* With FAKE_KEEP_DISK the disk is made once, and keeps its contents: for thousands of worlds. */
static inline void fake_init(void)
{
	uint8_t *kept;

	fake_fini();
	kept = fake.disk;
	memset(&fake, 0, sizeof(fake));
	fake.disk = kept ? kept : calloc(FAKE_BLOCKS, FAKE_BLOCK);
	assert(fake.disk);
}

static inline uint64_t fake_at(const struct scsi_cmd *cmd)
{
	be32 lba;

	memcpy(&lba, cmd->cdb + 2, sizeof(lba));
	return (uint64_t)be32_to_cpu(lba) * FAKE_BLOCK;
}

static inline uint32_t fake_len(const struct scsi_cmd *cmd)
{
	return (uint32_t)(cmd->cdb[6] << 16 | cmd->cdb[7] << 8 | cmd->cdb[8]) * FAKE_BLOCK;
}

static inline bool fake_refuse(struct scsi_cmd *cmd)
{
	memset(cmd->sense, 0, 18);
	cmd->sense[0] = 0x70;
	cmd->sense[2] = 5;
	cmd->sense_len = 18;
	cmd->status = SCSI_CHECK_CONDITION;
	return false;
}

bool scsi_cmd_begin(struct scsi_cmd *cmd)
{
	uint32_t len = fake_len(cmd);

	fake.order[fake.begun++ % 256] = (uint32_t)cmd->tag;
	cmd->status = SCSI_GOOD;
	if (cmd->cdb[0] == FAKE_OP_TEST)
		return true;
	if (cmd->cdb[0] == FAKE_OP_FAIL || len > 8 << 20 ||
	    fake_at(cmd) + len > (uint64_t)FAKE_BLOCKS * FAKE_BLOCK)
		return fake_refuse(cmd);
	if (cmd->cdb[0] == FAKE_OP_READ) {
		cmd->in_want = len;
		cmd->in_max = len < cmd->expected_in ? len : cmd->expected_in;
	} else if (cmd->cdb[0] == FAKE_OP_WRITE) {
		cmd->out_want = len;
		cmd->out_len = len < cmd->expected_out ? len : cmd->expected_out;
	} else {
		return fake_refuse(cmd);
	}
	if (cmd->in_max || cmd->out_len)
		cmd->nexus->begun++;
	return true;
}

static inline void fake_execute(struct scsi_cmd *cmd)
{
	uint8_t *disk = fake.disk + fake_at(cmd);
	int i;

	fake.commands++;
	if (cmd->in_max)
		cmd->in_len = cmd->in_max;
	for (i = 0; i < cmd->iovcnt; i++) {
		/* What the contract says of buffers. */
		assert((uintptr_t)cmd->iov[i].iov_base % 4096 == 0);
		assert(i == cmd->iovcnt - 1 || cmd->iov[i].iov_len % 4096 == 0);
		if (cmd->cdb[0] == FAKE_OP_READ)
			memcpy(cmd->iov[i].iov_base, disk, cmd->iov[i].iov_len);
		else
			memcpy(disk, cmd->iov[i].iov_base, cmd->iov[i].iov_len);
		disk += cmd->iov[i].iov_len;
	}
	if (cmd->in_max || cmd->out_len)
		cmd->nexus->begun--;
	cmd->done(cmd);
}

void scsi_cmd_run(struct scsi_cmd *cmd)
{
	size_t len = 0;
	int i;

	for (i = 0; i < cmd->iovcnt; i++)
		len += cmd->iov[i].iov_len;
	assert(len == (cmd->out_len ? cmd->out_len : cmd->in_max));
	if (!fake.hold) {
		fake_execute(cmd);
		return;
	}
	assert(fake.held_count < 256);
	fake.held[fake.held_count++] = cmd;
}

void scsi_cmd_cancel(struct scsi_cmd *cmd)
{
	fake.cancelled++;
	if (cmd->in_max || cmd->out_len)
		cmd->nexus->begun--;
}

/* Lets the held commands go on, the last one first: no order is promised. */
static inline void fake_release(void)
{
	fake.hold = false;
	while (fake.held_count)
		fake_execute(fake.held[--fake.held_count]);
	if (fake.tmf_waits) {
		struct scsi_tmf *tmf = fake.tmf_waits;

		fake.tmf_waits = NULL;
		tmf->done(tmf);
	}
}

/* Ends what is held of the nexus, or the one task. */
void scsi_tmf(struct scsi_tmf *tmf)
{
	unsigned int i, kept = 0;

	fake.tmfs++;
	fake.last_tmf = tmf->fn;
	for (i = 0; i < fake.held_count; i++) {
		struct scsi_cmd *cmd = fake.held[i];

		if (cmd->nexus != tmf->nexus ||
		    (tmf->fn == SCSI_TMF_ABORT_TASK && cmd->tag != tmf->tag)) {
			fake.held[kept++] = cmd;
			continue;
		}
		cmd->aborted = true;
		if (cmd->in_max || cmd->out_len)
			cmd->nexus->begun--;
		cmd->done(cmd);
	}
	fake.held_count = kept;
	tmf->response = SCSI_TMF_COMPLETE;
	tmf->done(tmf);
}

int scsi_nexus_open(struct scsi_target *target, const char *initiator, const uint8_t isid[6],
		    uint16_t portal_group, struct scsi_nexus **out)
{
	(void)target;
	(void)initiator;
	(void)isid;
	(void)portal_group;
	*out = calloc(1, sizeof(**out));
	assert(*out);
	fake.nexuses++;
	return 0;
}

void scsi_nexus_close(struct scsi_nexus *nexus)
{
	assert(!nexus->begun);	/* every command is accounted for */
	fake.nexuses--;
	free(nexus);
}

#endif
