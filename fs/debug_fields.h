/* SPDX-License-Identifier: Apache-2.0 */
/* Every field of every structure on disk, and how debug.c prints it: F(struct, member, kind). */
#ifndef LUNFS_FS_DEBUG_FIELDS_H
#define LUNFS_FS_DEBUG_FIELDS_H

#define FIELDS_meta_hdr_disk(F) \
	F(meta_hdr_disk, magic, MAGIC) \
	F(meta_hdr_disk, crc, HEX) \
	F(meta_hdr_disk, length, DEC) \
	F(meta_hdr_disk, birth, DEC) \
	F(meta_hdr_disk, volume, UUID) \
	F(meta_hdr_disk, addr, ADDR) \
	F(meta_hdr_disk, owner, DEC) \
	F(meta_hdr_disk, version, DEC) \
	F(meta_hdr_disk, zero, ARRAY)
#define FIELDS_super_disk(F) \
	F(super_disk, hdr, ARRAY) \
	F(super_disk, format_version, DEC) \
	F(super_disk, block_size, DEC) \
	F(super_disk, compat, HEX) \
	F(super_disk, ro_compat, HEX) \
	F(super_disk, incompat, HEX) \
	F(super_disk, volume_id, UUID) \
	F(super_disk, label, TEXT) \
	F(super_disk, size, SIZE) \
	F(super_disk, sector, DEC) \
	F(super_disk, caw, DEC) \
	F(super_disk, beat_ms, DEC) \
	F(super_disk, lease_ms, DEC) \
	F(super_disk, margin_ms, DEC) \
	F(super_disk, slot_count, DEC) \
	F(super_disk, lock_addr, ADDR) \
	F(super_disk, scratch_addr, ADDR) \
	F(super_disk, slots_addr, ADDR) \
	F(super_disk, orphans_addr, ADDR) \
	F(super_disk, orphan_blocks, DEC) \
	F(super_disk, ag_count, DEC) \
	F(super_disk, journals_addr, ADDR) \
	F(super_disk, journal_size, SIZE) \
	F(super_disk, ag_addr, ADDR) \
	F(super_disk, ag_size, SIZE) \
	F(super_disk, root, ID) \
	F(super_disk, copy_addr, ADDR) \
	F(super_disk, hash_key, UUID) \
	F(super_disk, machine_id, UUID) \
	F(super_disk, identity, TEXT) \
	F(super_disk, created, TIME) \
	F(super_disk, extent_count, DEC) \
	F(super_disk, zero0, DEC) \
	F(super_disk, extents, ARRAY) \
	F(super_disk, zero, ARRAY)
#define FIELDS_super_extent_disk(F) \
	F(super_extent_disk, device, UUID) \
	F(super_extent_disk, start, DEC) \
	F(super_extent_disk, length, SIZE)
#define FIELDS_slot_disk(F) \
	F(slot_disk, hdr, ARRAY) \
	F(slot_disk, host_id, UUID) \
	F(slot_disk, boot_id, UUID) \
	F(slot_disk, sequence, DEC) \
	F(slot_disk, generation, DEC) \
	F(slot_disk, state, DEC) \
	F(slot_disk, recoverer, DEC) \
	F(slot_disk, recoverer_generation, DEC) \
	F(slot_disk, key, DEC) \
	F(slot_disk, pid, DEC) \
	F(slot_disk, flags, HEX) \
	F(slot_disk, pid_start, DEC) \
	F(slot_disk, host_name, TEXT) \
	F(slot_disk, software, TEXT) \
	F(slot_disk, want_stamp, DEC) \
	F(slot_disk, wants, ARRAY) \
	F(slot_disk, denials, ARRAY) \
	F(slot_disk, since, TIME) \
	F(slot_disk, zero, ARRAY)
#define FIELDS_slot_want_disk(F) \
	F(slot_want_disk, addr, ADDR) \
	F(slot_want_disk, mode, DEC) \
	F(slot_want_disk, stamp, DEC)
#define FIELDS_slot_denial_disk(F) \
	F(slot_denial_disk, addr, ADDR) \
	F(slot_denial_disk, slot, DEC) \
	F(slot_denial_disk, stamp, DEC)
#define FIELDS_lockrec_disk(F) \
	F(lockrec_disk, hdr, ARRAY) \
	F(lockrec_disk, sequence, DEC) \
	F(lockrec_disk, mode, DEC) \
	F(lockrec_disk, owner, DEC) \
	F(lockrec_disk, owner_generation, DEC) \
	F(lockrec_disk, pid, DEC) \
	F(lockrec_disk, since, TIME) \
	F(lockrec_disk, comm, TEXT) \
	F(lockrec_disk, heir, DEC) \
	F(lockrec_disk, heir_generation, DEC) \
	F(lockrec_disk, sharers, ARRAY)
#define FIELDS_ag_disk(F) \
	F(ag_disk, hdr, ARRAY) \
	F(ag_disk, blocks, DEC) \
	F(ag_disk, free_blocks, DEC) \
	F(ag_disk, inodes_free, DEC) \
	F(ag_disk, inodes_used, DEC) \
	F(ag_disk, itable, POINTER) \
	F(ag_disk, bitmap_count, DEC) \
	F(ag_disk, zero0, DEC) \
	F(ag_disk, bitmap_ready, ARRAY) \
	F(ag_disk, zero, ARRAY)
#define FIELDS_bitmap_disk(F) \
	F(bitmap_disk, hdr, ARRAY) \
	F(bitmap_disk, bits, ARRAY)
#define FIELDS_itable_disk(F) \
	F(itable_disk, hdr, ARRAY) \
	F(itable_disk, next, POINTER) \
	F(itable_disk, count, DEC) \
	F(itable_disk, zero0, DEC) \
	F(itable_disk, entries, ARRAY)
#define FIELDS_itable_entry_disk(F) \
	F(itable_entry_disk, block, DEC) \
	F(itable_entry_disk, used, HEX) \
	F(itable_entry_disk, count, DEC)
#define FIELDS_inode_disk(F) \
	F(inode_disk, hdr, ARRAY) \
	F(inode_disk, generation, DEC) \
	F(inode_disk, mode, MODE) \
	F(inode_disk, uid, DEC) \
	F(inode_disk, gid, DEC) \
	F(inode_disk, nlink, DEC) \
	F(inode_disk, flags, HEX) \
	F(inode_disk, rdev, DEC) \
	F(inode_disk, size, SIZE) \
	F(inode_disk, blocks, DEC) \
	F(inode_disk, atime, TIME) \
	F(inode_disk, mtime, TIME) \
	F(inode_disk, ctime, TIME) \
	F(inode_disk, btime, TIME) \
	F(inode_disk, parent, ID) \
	F(inode_disk, xattr, POINTER) \
	F(inode_disk, entries, DEC) \
	F(inode_disk, shrink_to, SIZE) \
	F(inode_disk, image_parent, ID) \
	F(inode_disk, birth_counter, DEC) \
	F(inode_disk, depth, DEC) \
	F(inode_disk, root_count, DEC) \
	F(inode_disk, image_children, ID) \
	F(inode_disk, image_limit, SIZE) \
	F(inode_disk, image_rank, DEC) \
	F(inode_disk, reserved, ARRAY) \
	F(inode_disk, name_len, DEC) \
	F(inode_disk, zero0, ARRAY) \
	F(inode_disk, name, ARRAY) \
	F(inode_disk, root, ARRAY)
#define FIELDS_map_entry_disk(F) \
	F(map_entry_disk, unit, HEX) \
	F(map_entry_disk, valid, HEX)
#define FIELDS_map_leaf_disk(F) \
	F(map_leaf_disk, hdr, ARRAY) \
	F(map_leaf_disk, entries, ARRAY)
#define FIELDS_map_node_disk(F) \
	F(map_node_disk, hdr, ARRAY) \
	F(map_node_disk, pointers, ARRAY)
#define FIELDS_dir_entry_disk(F) \
	F(dir_entry_disk, id, ID) \
	F(dir_entry_disk, hash, HEX) \
	F(dir_entry_disk, type, DEC) \
	F(dir_entry_disk, name_len, DEC)
#define FIELDS_dir_leaf_disk(F) \
	F(dir_leaf_disk, hdr, ARRAY) \
	F(dir_leaf_disk, used, DEC) \
	F(dir_leaf_disk, count, DEC) \
	F(dir_leaf_disk, entries, ARRAY)
#define FIELDS_dir_index_disk(F) \
	F(dir_index_disk, hash, HEX) \
	F(dir_index_disk, pointer, POINTER)
#define FIELDS_dir_node_disk(F) \
	F(dir_node_disk, hdr, ARRAY) \
	F(dir_node_disk, count, DEC) \
	F(dir_node_disk, level, DEC) \
	F(dir_node_disk, entries, ARRAY) \
	F(dir_node_disk, zero, ARRAY)
#define FIELDS_xattr_disk(F) \
	F(xattr_disk, hdr, ARRAY) \
	F(xattr_disk, used, DEC) \
	F(xattr_disk, count, DEC) \
	F(xattr_disk, entries, ARRAY)
#define FIELDS_xattr_entry_disk(F) \
	F(xattr_entry_disk, value_len, DEC) \
	F(xattr_entry_disk, name_len, DEC) \
	F(xattr_entry_disk, zero, DEC)
#define FIELDS_orphan_disk(F) \
	F(orphan_disk, hdr, ARRAY) \
	F(orphan_disk, ids, ARRAY)
#define FIELDS_journal_tail_disk(F) \
	F(journal_tail_disk, hdr, ARRAY) \
	F(journal_tail_disk, sequence, DEC) \
	F(journal_tail_disk, block, DEC) \
	F(journal_tail_disk, zero, ARRAY)
#define FIELDS_journal_desc_disk(F) \
	F(journal_desc_disk, hdr, ARRAY) \
	F(journal_desc_disk, sequence, DEC) \
	F(journal_desc_disk, count, DEC) \
	F(journal_desc_disk, generation, DEC) \
	F(journal_desc_disk, entries, ARRAY)
#define FIELDS_journal_entry_disk(F) \
	F(journal_entry_disk, addr, ADDR) \
	F(journal_entry_disk, crc, HEX) \
	F(journal_entry_disk, zero, DEC)
#define FIELDS_journal_commit_disk(F) \
	F(journal_commit_disk, hdr, ARRAY) \
	F(journal_commit_disk, sequence, DEC) \
	F(journal_commit_disk, count, DEC) \
	F(journal_commit_disk, desc_crc, HEX) \
	F(journal_commit_disk, zero, ARRAY)

#define DEBUG_TABLES(S) \
	S(meta_hdr_disk) \
	S(super_disk) \
	S(super_extent_disk) \
	S(slot_disk) \
	S(slot_want_disk) \
	S(slot_denial_disk) \
	S(lockrec_disk) \
	S(ag_disk) \
	S(bitmap_disk) \
	S(itable_disk) \
	S(itable_entry_disk) \
	S(inode_disk) \
	S(map_entry_disk) \
	S(map_leaf_disk) \
	S(map_node_disk) \
	S(dir_entry_disk) \
	S(dir_leaf_disk) \
	S(dir_index_disk) \
	S(dir_node_disk) \
	S(xattr_disk) \
	S(xattr_entry_disk) \
	S(orphan_disk) \
	S(journal_tail_disk) \
	S(journal_desc_disk) \
	S(journal_entry_disk) \
	S(journal_commit_disk)

#endif
