# target/: lunfs-target, the program: its privileged parent and its worker.
target_srcs  := $(filter-out %_main.c,$(wildcard target/*.c))
target_uses  := iscsi proc block base
target_tests := $(wildcard tests/target/*_test.c)
$(eval $(call library,target))
$(eval $(call unit_tests,target))

lunfs-target_main := target/target_main.c
lunfs-target_uses := target
$(eval $(call program,lunfs-target))
