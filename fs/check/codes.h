/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything that a check can find, in one table: X(symbol, number, name, severity, meaning).
 *
 * Numbers and names are for ever: scripts and people look for them.  NOTE is no damage.
 */
#ifndef LUNFS_FS_CHECK_CODES_H
#define LUNFS_FS_CHECK_CODES_H

#define CHECK_CODES(X) \
	X(UNREADABLE, 1, "block-unreadable", ERROR, \
	  "the device returned an error for a metadata block") \
	X(SUPER_DAMAGED, 101, "superblock-copy-damaged", ERROR, \
	  "one of the three copies of the superblock cannot be believed") \
	X(SUPER_DIFFERS, 102, "superblock-copy-differs", ERROR, \
	  "a copy of the superblock says something else than the newest one") \
	X(SLOT_DAMAGED, 201, "slot-damaged", ERROR, "a host slot cannot be believed") \
	X(SLOT_RECOVERER, 202, "slot-recoverer-invalid", ERROR, \
	  "a host slot is being recovered by a slot that does not exist") \
	X(SLOT_USED_UP, 203, "slot-used-up", NOTE, \
	  "a host slot has reached its last generation and is never used again") \
	X(LOCK_DAMAGED, 211, "lock-damaged", ERROR, "a lock record cannot be believed") \
	X(LOCK_HOLDER, 212, "lock-holder-invalid", ERROR, \
	  "a lock record names a slot that does not exist, or no holder") \
	X(LOCK_FUTURE, 213, "lock-from-the-future", ERROR, \
	  "a lock record names a generation that its slot has not reached") \
	X(JOURNAL_DAMAGED, 301, "journal-damaged", ERROR, \
	  "a slot's journal cannot be believed") \
	X(JOURNAL_TARGET, 302, "journal-target-invalid", ERROR, \
	  "a journal holds a block for an address outside of the volume's metadata") \
	X(JOURNAL_TWICE, 303, "journal-block-twice", ERROR, \
	  "two journals hold images of one block") \
	X(JOURNAL_REPLAY, 304, "journal-needs-replay", NOTE, \
	  "a slot's journal is not at home; the next host that attaches replays it") \
	X(MAP_DAMAGED, 401, "map-block-damaged", ERROR, "a map block cannot be believed") \
	X(MAP_POINTER, 402, "map-pointer-outside-volume", ERROR, \
	  "a map points to a block that cannot hold a map block") \
	X(MAP_VALID, 415, "map-valid-beyond-unit", ERROR, \
	  "a map entry says that blocks hold data that are not allocated") \
	X(MAP_RESERVED, 416, "map-entry-invalid", ERROR, \
	  "a map entry has unknown flags or an impossible size") \
	X(MAP_OUTSIDE, 417, "map-entry-outside-volume", ERROR, \
	  "a map entry points to space that no file can have") \
	X(MAP_PAST_END, 418, "map-data-past-end", ERROR, \
	  "a file has data behind its end, which would show if it grew") \
	X(INODE_DAMAGED, 501, "inode-damaged", ERROR, "an inode cannot be believed") \
	X(INODE_INVALID, 502, "inode-invalid", ERROR, "a field of an inode is out of range") \
	X(INODE_MASK, 503, "inode-mask-wrong", ERROR, \
	  "an inode is in use and marked free in its group's index, or the reverse") \
	X(INODE_BLOCKS, 504, "inode-block-count-wrong", ERROR, \
	  "an inode's count of blocks is not what it refers to") \
	X(INODE_SIZE, 505, "inode-size-wrong", ERROR, \
	  "an inode's size or count of names is not that of its contents") \
	X(INODE_LINKS, 506, "inode-link-count-wrong", ERROR, \
	  "an inode's link count is not the number of its names") \
	X(INODE_NO_NAME, 507, "inode-without-name", ERROR, \
	  "an inode is in use, has no name and is on no orphan list") \
	X(INODE_NAME_BACK, 508, "inode-name-does-not-lead-back", ERROR, \
	  "the parent and name that an inode states are not where it is found") \
	X(DIR_DAMAGED, 601, "directory-block-damaged", ERROR, \
	  "a directory block cannot be believed") \
	X(DIR_POINTER, 602, "directory-pointer-outside-volume", ERROR, \
	  "a directory points to a block that cannot hold a directory block") \
	X(DIR_ENTRY, 603, "directory-entry-invalid", ERROR, \
	  "a directory entry's name, length or place is impossible") \
	X(DIR_HASH, 604, "directory-hash-wrong", ERROR, \
	  "a directory entry's hash is not that of its name") \
	X(DIR_ORDER, 605, "directory-order-wrong", ERROR, \
	  "a directory entry lies where a search does not find it") \
	X(DIR_DUPLICATE, 606, "directory-name-twice", ERROR, "a directory has a name twice") \
	X(DIR_TARGET, 607, "directory-entry-leads-nowhere", ERROR, \
	  "a name refers to an inode that is free or of another generation") \
	X(DIR_TYPE, 608, "directory-entry-type-wrong", ERROR, \
	  "a name states another type than its inode has") \
	X(DIR_PARENTS, 609, "directory-with-two-parents", ERROR, \
	  "a directory has more than one name") \
	X(DIR_UNREACHABLE, 610, "directory-unreachable", ERROR, \
	  "no path leads from the root to a directory") \
	X(XATTR_DAMAGED, 701, "xattr-block-damaged", ERROR, \
	  "an inode's block of extended attributes cannot be believed") \
	X(XATTR_POINTER, 702, "xattr-pointer-outside-volume", ERROR, \
	  "an inode's attribute block lies where none can be") \
	X(XATTR_ENTRY, 703, "xattr-entry-invalid", ERROR, \
	  "an extended attribute's lengths or name are impossible") \
	X(ORPHAN_DAMAGED, 801, "orphan-list-damaged", ERROR, \
	  "a block of a slot's orphan list cannot be believed") \
	X(ORPHAN_TARGET, 802, "orphan-leads-nowhere", ERROR, \
	  "an orphan list names an inode that there never was") \
	X(ORPHAN_UNMARKED, 803, "orphan-unmarked", NOTE, \
	  "an orphan list names an inode that is not marked as orphan, or one named already") \
	X(ORPHAN_LOST, 804, "orphan-lost", ERROR, \
	  "an inode is marked as orphan and on no orphan list") \
	X(ORPHAN_VOID, 805, "orphan-void", NOTE, \
	  "an orphan list names an inode that another host has deleted since") \
	X(AG_DAMAGED, 901, "group-header-damaged", ERROR, \
	  "an allocation group's header cannot be believed") \
	X(AG_INVALID, 902, "group-header-invalid", ERROR, \
	  "a field of an allocation group's header is out of range") \
	X(AG_FREE, 903, "group-free-count-wrong", ERROR, \
	  "a group's count of free blocks is not that of its bitmap") \
	X(AG_INODES, 904, "group-inode-count-wrong", ERROR, \
	  "a group's counts of inodes are not those of its index") \
	X(BITMAP_DAMAGED, 911, "bitmap-damaged", ERROR, "a bitmap block cannot be believed") \
	X(BITMAP_FREE, 912, "block-used-but-free", ERROR, \
	  "a block is referred to and marked free: it may be given away again") \
	X(BITMAP_LEAK, 913, "block-allocated-but-unused", ERROR, \
	  "a block is marked in use and nothing refers to it") \
	X(BLOCK_TWICE, 914, "block-claimed-twice", ERROR, "two things refer to one block") \
	X(BITMAP_NOT_READY, 915, "bitmap-not-ready", ERROR, \
	  "a block is referred to whose bitmap block was never initialised") \
	X(ITABLE_DAMAGED, 921, "inode-index-damaged", ERROR, \
	  "a block of a group's inode index cannot be believed") \
	X(ITABLE_POINTER, 922, "inode-index-pointer-invalid", ERROR, \
	  "a group's inode index or a cluster lies where none can be") \
	X(ITABLE_ENTRY, 923, "inode-index-entry-invalid", ERROR, \
	  "an entry of a group's inode index is impossible") \
	X(IMAGE_PARENT, 1001, "image-parent-missing", ERROR, \
	  "the image that shows through another is not there, or not frozen") \
	X(IMAGE_RANK, 1002, "image-rank-wrong", ERROR, \
	  "an image does not rank above its parent image: it could be its own ancestor") \
	X(IMAGE_LIMIT, 1003, "image-limit-wrong", ERROR, \
	  "an image shows more of its parent image than that has") \
	X(IMAGE_UNLISTED, 1004, "image-not-listed", ERROR, \
	  "an image is not in its parent image's list of children, which may be deleted") \
	X(IMAGE_NO_LIST, 1005, "image-list-missing", ERROR, \
	  "a frozen image has no list of children") \
	X(CHILDREN_ENTRY, 1006, "children-entry-wrong", ERROR, \
	  "a list of children names an image that is no child") \
	X(CHILDREN_LOST, 1007, "children-list-lost", ERROR, \
	  "a list of children belongs to no image")

#endif
