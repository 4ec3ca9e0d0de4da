# fs/: on-disk format, allocation, journal, inodes, directories, check.
fs_srcs  := $(wildcard fs/*.c fs/check/*.c)
fs_uses  := lockd block base
fs_tests := $(wildcard tests/fs/*_test.c)
fs_test_uses := sim
$(eval $(call library,fs))
$(eval $(call unit_tests,fs))
