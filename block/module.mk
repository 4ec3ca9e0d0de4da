# block/: the block-device interface and its backends.
block_srcs  := block/blkdev.c block/blkopen.c block/blkpoll.c block/hostlock.c $(wildcard block/blkfile*.c) $(wildcard block/blkiscsi*.c) block/blkscsi.c block/blkscsi_agent.c block/blkscsi_learn.c \
		block/lu_ask.c block/lu_parse.c
block_uses  := base
block_tests := $(wildcard tests/block/*_test.c)
block_test_uses := sim
$(eval $(call library,block))
$(eval $(call unit_tests,block))
# A target in the test's own process, for what a real one cannot be made to do.
mini_objs := $(B)/tests/block/mini_target.o $(B)/tests/block/mini_target_pr.o
all_objs += $(mini_objs)
$(B)/tests/block/blkiscsi_io_test: $(mini_objs)
