# fuse/: the mount, by libfuse's low-level API.
fuse_srcs := fuse/fuse_mount.c fuse/fuse_names.c fuse/fuse_files.c fuse/fuse_readdir.c \
	fuse/fuse_data.c fuse/fuse_newer.c fuse/fuse_threads.c
fuse_uses := fs lockd block base
$(eval $(call library,fuse))
