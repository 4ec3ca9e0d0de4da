# tools/: what administrators type.
mkfs.lunfs_main := tools/mkfs_main.c
mkfs.lunfs_uses := fs
$(eval $(call program,mkfs.lunfs))

ifneq ($(and $(wildcard fs/inode.c),$(wildcard lockd/host.c),$(wildcard lockd/recover.c)),)
fsck.lunfs_main := tools/fsck_main.c
fsck.lunfs_uses := fs
$(eval $(call program,fsck.lunfs))
endif
