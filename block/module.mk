# block/: the block-device interface and its backends.
block_srcs  := block/blkdev.c block/blkopen.c block/blkpoll.c $(wildcard block/blkfile*.c) $(wildcard block/blkiscsi*.c)
block_uses  := base
block_tests := $(wildcard tests/block/*_test.c)
block_test_uses := sim
$(eval $(call library,block))
$(eval $(call unit_tests,block))
$(B)/tests/block/blkiscsi_io_test: $(B)/tests/block/mini_target.o
all_objs += $(B)/tests/block/mini_target.o
