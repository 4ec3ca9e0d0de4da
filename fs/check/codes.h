/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything that a check can find, in one table: X(symbol, number, name, severity, repair,
 * meaning).
 *
 * Numbers and names are for ever: scripts and people look for them.  NOTE is no damage.
 * What a repair does, by class: SAFE puts right what other blocks tell, nothing is lost by it;
 * LOSS gives up what cannot be believed, or has to guess; NONE there is nothing to repair.
 */
#ifndef LUNFS_FS_CHECK_CODES_H
#define LUNFS_FS_CHECK_CODES_H

#define CHECK_CODES(X) \
	X(UNREADABLE, 1, "block-unreadable", ERROR, NONE, \
	  "the device returned an error for a metadata block") \
	X(UNWRITABLE, 2, "block-unwritable", ERROR, NONE, \
	  "the device returned an error for a repair's write") \
	X(SUPER_DAMAGED, 101, "superblock-copy-damaged", ERROR, SAFE, \
	  "one of the three copies of the superblock cannot be believed") \
	X(SUPER_DIFFERS, 102, "superblock-copy-differs", ERROR, SAFE, \
	  "a copy of the superblock belongs to another volume, or is newer than the one in use") \
	X(SUPER_REPAIR, 103, "repair-unfinished", ERROR, NONE, \
	  "a repair has the volume to itself, or was stopped before it ended: hosts refuse it") \
	X(SUPER_OLD, 104, "superblock-copy-old", NOTE, SAFE, \
	  "a copy of the superblock is older than the newest one: a host crashed while it changed " \
	  "them; the next one that attaches writes it anew") \
	X(SLOT_DAMAGED, 201, "slot-damaged", ERROR, SAFE, "a host slot cannot be believed") \
	X(SLOT_RECOVERER, 202, "slot-recoverer-invalid", ERROR, SAFE, \
	  "a host slot is being recovered by a slot that does not exist") \
	X(SLOT_USED_UP, 203, "slot-used-up", NOTE, NONE, \
	  "a host slot has reached its last generation and is never used again") \
	X(LOCK_DAMAGED, 211, "lock-damaged", ERROR, SAFE, "a lock record cannot be believed") \
	X(LOCK_HOLDER, 212, "lock-holder-invalid", ERROR, SAFE, \
	  "a lock record names a slot that does not exist, or no holder") \
	X(LOCK_FUTURE, 213, "lock-from-the-future", ERROR, SAFE, \
	  "a lock record names a generation that its slot has not reached") \
	X(JOURNAL_DAMAGED, 301, "journal-damaged", ERROR, LOSS, \
	  "a slot's journal cannot be believed") \
	X(JOURNAL_TARGET, 302, "journal-target-invalid", ERROR, LOSS, \
	  "a journal holds a block for an address outside of the volume's metadata") \
	X(JOURNAL_TWICE, 303, "journal-block-twice", ERROR, LOSS, \
	  "two journals hold images of one block") \
	X(JOURNAL_REPLAY, 304, "journal-needs-replay", NOTE, NONE, \
	  "a slot's journal is not at home; the next host that attaches replays it") \
	X(MAP_DAMAGED, 401, "map-block-damaged", ERROR, LOSS, "a map block cannot be believed") \
	X(MAP_POINTER, 402, "map-pointer-outside-volume", ERROR, LOSS, \
	  "a map points to a block that cannot hold a map block") \
	X(MAP_VALID, 415, "map-valid-beyond-unit", ERROR, SAFE, \
	  "a map entry says that blocks hold data that are not allocated") \
	X(MAP_RESERVED, 416, "map-entry-invalid", ERROR, LOSS, \
	  "a map entry has unknown flags or an impossible size") \
	X(MAP_OUTSIDE, 417, "map-entry-outside-volume", ERROR, LOSS, \
	  "a map entry points to space that no file can have") \
	X(MAP_PAST_END, 418, "map-data-past-end", ERROR, SAFE, \
	  "a file has data behind its end, which would show if it grew") \
	X(INODE_DAMAGED, 501, "inode-damaged", ERROR, LOSS, "an inode cannot be believed") \
	X(INODE_INVALID, 502, "inode-invalid", ERROR, LOSS, \
	  "a field of an inode is out of range, not all is written of a file of several writers, or " \
	  "an unlinked directory has names") \
	X(INODE_MASK, 503, "inode-mask-wrong", ERROR, SAFE, \
	  "an inode is in use and marked free in its group's index, or the reverse") \
	X(INODE_BLOCKS, 504, "inode-block-count-wrong", ERROR, SAFE, \
	  "an inode's count of blocks is not what it refers to") \
	X(INODE_SIZE, 505, "inode-size-wrong", ERROR, SAFE, \
	  "an inode's size or count of names is not that of its contents") \
	X(INODE_LINKS, 506, "inode-link-count-wrong", ERROR, SAFE, \
	  "an inode's link count is not the number of its names") \
	X(INODE_NO_NAME, 507, "inode-without-name", ERROR, SAFE, \
	  "an inode is in use, has no name and is on no orphan list") \
	X(INODE_NAME_BACK, 508, "inode-name-does-not-lead-back", ERROR, SAFE, \
	  "the parent and name that an inode states are not where it is found") \
	X(DIR_DAMAGED, 601, "directory-block-damaged", ERROR, LOSS, \
	  "a directory block cannot be believed") \
	X(DIR_POINTER, 602, "directory-pointer-outside-volume", ERROR, LOSS, \
	  "a directory points to a block that cannot hold a directory block") \
	X(DIR_ENTRY, 603, "directory-entry-invalid", ERROR, LOSS, \
	  "a directory entry's name, length or place is impossible") \
	X(DIR_HASH, 604, "directory-hash-wrong", ERROR, SAFE, \
	  "a directory entry's hash is not that of its name") \
	X(DIR_ORDER, 605, "directory-order-wrong", ERROR, SAFE, \
	  "a directory entry lies where a search does not find it") \
	X(DIR_DUPLICATE, 606, "directory-name-twice", ERROR, LOSS, "a directory has a name twice") \
	X(DIR_TARGET, 607, "directory-entry-leads-nowhere", ERROR, LOSS, \
	  "a name refers to an inode that is free or of another generation") \
	X(DIR_TYPE, 608, "directory-entry-type-wrong", ERROR, SAFE, \
	  "a name states another type than its inode has") \
	X(DIR_PARENTS, 609, "directory-with-two-parents", ERROR, LOSS, \
	  "a directory has more than one name") \
	X(DIR_UNREACHABLE, 610, "directory-unreachable", ERROR, LOSS, \
	  "no path leads from the root to a directory") \
	X(XATTR_DAMAGED, 701, "xattr-block-damaged", ERROR, LOSS, \
	  "an inode's block of extended attributes cannot be believed") \
	X(XATTR_POINTER, 702, "xattr-pointer-outside-volume", ERROR, LOSS, \
	  "an inode's attribute block lies where none can be") \
	X(XATTR_ENTRY, 703, "xattr-entry-invalid", ERROR, LOSS, \
	  "an extended attribute's lengths or name are impossible") \
	X(ORPHAN_DAMAGED, 801, "orphan-list-damaged", ERROR, SAFE, \
	  "a block of a slot's orphan list cannot be believed") \
	X(ORPHAN_TARGET, 802, "orphan-leads-nowhere", ERROR, SAFE, \
	  "an orphan list names an inode that there never was") \
	X(ORPHAN_UNMARKED, 803, "orphan-unmarked", NOTE, SAFE, \
	  "an orphan list names an inode that is not marked as orphan, or one named already") \
	X(ORPHAN_LOST, 804, "orphan-lost", ERROR, SAFE, \
	  "an inode is marked as orphan and on no orphan list") \
	X(ORPHAN_VOID, 805, "orphan-void", NOTE, SAFE, \
	  "an orphan list names an inode that another host has deleted since") \
	X(AG_DAMAGED, 901, "group-header-damaged", ERROR, LOSS, \
	  "an allocation group's header cannot be believed") \
	X(AG_INVALID, 902, "group-header-invalid", ERROR, SAFE, \
	  "a field of an allocation group's header is out of range") \
	X(AG_FREE, 903, "group-free-count-wrong", ERROR, SAFE, \
	  "a group's count of free blocks is not that of its bitmap") \
	X(AG_INODES, 904, "group-inode-count-wrong", ERROR, SAFE, \
	  "a group's counts of inodes are not those of its index") \
	X(AG_SHORT, 905, "group-not-extended", NOTE, NONE, \
	  "the volume has grown and this group not yet; a host that looks for space does it") \
	X(BITMAP_DAMAGED, 911, "bitmap-damaged", ERROR, SAFE, "a bitmap block cannot be believed") \
	X(BITMAP_FREE, 912, "block-used-but-free", ERROR, SAFE, \
	  "a block is referred to and marked free: it may be given away again") \
	X(BITMAP_LEAK, 913, "block-allocated-but-unused", ERROR, SAFE, \
	  "a block is marked in use and nothing refers to it") \
	X(BLOCK_TWICE, 914, "block-claimed-twice", ERROR, LOSS, "two things refer to one block") \
	X(BITMAP_NOT_READY, 915, "bitmap-not-ready", ERROR, SAFE, \
	  "a block is referred to whose bitmap block was never initialised") \
	X(ITABLE_DAMAGED, 921, "inode-index-damaged", ERROR, LOSS, \
	  "a block of a group's inode index cannot be believed") \
	X(ITABLE_POINTER, 922, "inode-index-pointer-invalid", ERROR, LOSS, \
	  "a group's inode index or a cluster lies where none can be") \
	X(ITABLE_ENTRY, 923, "inode-index-entry-invalid", ERROR, LOSS, \
	  "an entry of a group's inode index is impossible") \
	X(INODE_NOT_INDEXED, 924, "inode-not-indexed", ERROR, SAFE, \
	  "an inode that something refers to is in no group's index") \
	X(IMAGE_PARENT, 1001, "image-parent-missing", ERROR, LOSS, \
	  "the image that shows through another is not there, or not frozen") \
	X(IMAGE_RANK, 1002, "image-rank-wrong", ERROR, LOSS, \
	  "an image does not rank above its parent image: it could be its own ancestor") \
	X(IMAGE_LIMIT, 1003, "image-limit-wrong", ERROR, SAFE, \
	  "an image shows more of its parent image than that has") \
	X(IMAGE_UNLISTED, 1004, "image-not-listed", ERROR, SAFE, \
	  "an image is not in its parent image's list of children, which may be deleted") \
	X(IMAGE_NO_LIST, 1005, "image-list-missing", ERROR, SAFE, \
	  "a frozen image has no list of children, or that is not marked as one") \
	X(CHILDREN_ENTRY, 1006, "children-entry-wrong", ERROR, SAFE, \
	  "a list of children names an image that is no child") \
	X(CHILDREN_LOST, 1007, "children-list-lost", ERROR, SAFE, \
	  "a list of children belongs to no image, or a directory is marked as one")

#endif
