# block/: the block-device interface and its backends.
block_srcs  := block/blkdev.c block/blkpoll.c $(wildcard block/blkfile*.c)
block_uses  := base
block_tests := $(wildcard tests/block/*_test.c)
block_test_uses := sim
$(eval $(call library,block))
$(eval $(call unit_tests,block))
