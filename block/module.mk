# block/: the block-device interface and its backends.
block_srcs  := block/blkdev.c $(wildcard block/blkfile*.c)
block_uses  := base
block_tests := tests/block/blkdev_test.c tests/block/blkfile_test.c tests/block/simdev_test.c
block_test_uses := sim
$(eval $(call library,block))
$(eval $(call unit_tests,block))
