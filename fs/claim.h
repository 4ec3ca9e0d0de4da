/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A claim on the whole volume: one process repairs it, and no host can attach meanwhile.
 *
 *   joins as a host ──► waits until every other slot is free (dead hosts are fenced and recovered)
 *     ──► sets INCOMPAT_REPAIR in the superblock, flushed ──► looks at the slots again ──► has it
 *
 * Invariant: a host that is live after its own look at the superblock, and a claim, exclude each
 * other.  A host looks at the superblock again once it is LIVE (fs_attach()); a claimer looks at
 * the slots again once the mark is durable.  Whichever came first, the other one sees it: a host
 * that sees the mark leaves, a claimer that sees a host which does not leave gives up.
 *
 * The mark outlives its claimer.  If that died, hosts go on refusing the volume, which is half
 * repaired, until another claim has been given back.
 */
#ifndef LUNFS_FS_CLAIM_H
#define LUNFS_FS_CLAIM_H

#include "fs/super.h"

struct claim;

struct claim_params {
	struct env	*env;
	struct blkdev	*dev, *hb_dev;	/* borrowed until claim_release() */
	uint8_t		host_id[16];	/* of this claim alone: no host's */
	uint8_t		boot_id[16];
	char		host_name[33];
	uint32_t	pid;
	uint64_t	pid_start;
	lockd_kill_fn	kill;		/* as in lockd_params */
	void		*kill_arg;
};

/**
 * claim_take() - claims the volume on @p->dev; blocks up to a minute while dead hosts are
 * recovered.
 * @why: on failure one line: object, cause, way out.
 * Return: 0; -EBUSY a host is attached; -EPROTONOSUPPORT the volume has features that this version
 * does not know; as super_find() and lockd_join().
 */
int claim_take(const struct claim_params *p, struct claim **out, char *why, size_t why_size);

/** claim_dev() - the device, behind the claim's lease. */
struct blkdev *claim_dev(const struct claim *c);

/** claim_slot() - the slot that the claim holds. */
uint32_t claim_slot(const struct claim *c);

/**
 * claim_release() - gives it back, and the volume to its hosts.
 * @whole: false: it is not fit for them; the mark stays.
 * Return: 0; -ESTALE the claim was lost meanwhile; errors: the mark stays.
 */
int claim_release(struct claim *c, bool whole);

#endif
