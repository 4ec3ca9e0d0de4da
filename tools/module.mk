# tools/: what administrators type.
mkfs.lunfs_main := tools/mkfs_main.c
mkfs.lunfs_uses := fs
$(eval $(call program,mkfs.lunfs))
