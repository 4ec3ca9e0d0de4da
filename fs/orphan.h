/* SPDX-License-Identifier: Apache-2.0 */
/*
 * This slot's orphan list: inodes that are unlinked but open, being deleted, or shrinking.
 * Written only by the slot's owner or its recoverer (R1).
 */
#ifndef LUNFS_FS_ORPHAN_H
#define LUNFS_FS_ORPHAN_H

#include "fs/inode.h"

struct orphans;

/** orphan_open() - loads the list; starts the reaper thread, which finishes what an older
 * incarnation or a recovered host left, and deletes closed orphans in the background. */
int orphan_open(struct fs *fs, struct orphans **out);
void orphan_close(struct orphans *o);

/** orphan_reserve() - a free place, before any lock is taken: waits while the list is filling
 * up and the reaper gets on with it.  -ENOSPC the list is full.  orphan_unreserve() gives it
 * back unused. */
int orphan_reserve(struct fs *fs);
void orphan_unreserve(struct fs *fs);

/** orphan_add() - within @txn, uses up a reservation; 1 credit.  Sets INODE_ORPHAN in @di.
 * An inode that is on our list already stays there once. */
int orphan_add(struct txn *txn, struct inode *ino, struct inode_disk *di);

/* Of orphan_remove(): a damaged list may have the id in each of its blocks. */
#define ORPHAN_CREDITS	ORPHAN_BLOCKS

/** orphan_remove() - within @txn; ORPHAN_CREDITS.  Clears INODE_ORPHAN in @di.  If it stands on
 * another slot's list (adopted elsewhere), that entry means nothing from now on. */
int orphan_remove(struct txn *txn, struct inode *ino, struct inode_disk *di);

/** orphan_kick() - @id may now be deleted or shrunk: the reaper does it. */
void orphan_kick(struct fs *fs, uint64_t id);

/** orphan_finish() - does it now, in chains of bounded transactions: frees everything beyond
 * shrink_to, or all and the inode itself when nlink is 0. */
int orphan_finish(struct fs *fs, uint64_t id);

/** orphan_settle_shrink() - @ino, exclusively locked, has a truncation that a crash cut short:
 * finishes it, before anything else is done with its size. */
int orphan_settle_shrink(struct fs *fs, struct inode *ino);

/** orphan_wait() - until the reaper has done what it can now, at most @ms: for callers that
 * found the volume full.  Return: true if anything was deleted meanwhile. */
bool orphan_wait(struct fs *fs, unsigned int ms);

/** orphan_drain() - until the reaper has done all that can be done within @ms, what it has to try
 * again included: for a host that leaves. */
void orphan_drain(struct fs *fs, unsigned int ms);

/** orphan_adopt() - during recovery of @slot: its entries become ours; what does not fit
 * stays for the slot's next owner.  Through our own journal, settled on return. */
int orphan_adopt(struct fs *fs, uint32_t slot);

#endif
