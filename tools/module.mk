# tools/: what administrators type.
# Tries what LunFS rests on: lunfs selftest, mkfs.lunfs.
selftest_srcs := $(wildcard tools/selftest/*.c)
selftest_uses := lockd block base
selftest_tests := tests/tools/selftest_test.c
$(eval $(call library,selftest))
$(eval $(call unit_tests,selftest))

# What it has to find.
all_objs += $(B)/tests/tools/broken_target.o
$(B)/tests/tools/broken_target: $(B)/tests/tools/broken_target.o $(mini_objs)
	@echo "  LD    $@"
	@$(CC) $(LDFLAGS_ALL) -o $@ $^ -lpthread
all: $(B)/tests/tools/broken_target

mkfs.lunfs_main := tools/mkfs_main.c tools/look.c
mkfs.lunfs_uses := fs selftest
$(eval $(call program,mkfs.lunfs))

fsck.lunfs_main := tools/fsck_main.c tools/fsck_report.c tools/fsck_claim.c tools/fsck_undo.c tools/volume_open.c
fsck.lunfs_uses := fs
$(eval $(call program,fsck.lunfs))

mount.lunfs_main := tools/mount_main.c tools/ctl_client.c tools/ctl_device.c
mount.lunfs_uses := block
$(eval $(call program,mount.lunfs))

lunfs_main := tools/lunfs_main.c tools/cmd_status.c tools/cmd_files.c tools/cmd_disk.c tools/cmd_attach.c tools/cmd_check.c tools/cmd_copy.c tools/cmd_volume.c \
		tools/copy.c tools/copy_image.c tools/progress.c tools/scratch.c tools/ctl_client.c tools/ctl_device.c tools/debug_cmd.c tools/debug_dump.c tools/debug_scramble.c \
		tools/debug_json.c tools/volume_open.c tools/cmd_selftest.c tools/cmd_scan.c tools/fsck_claim.c tools/look.c
lunfs_uses := fs selftest
$(eval $(call program,lunfs))

# They measure; built by `make bench`, not installed.
bench_progs := $(B)/tools/bench/lock_bench $(B)/tools/bench/iscsi_bench $(B)/tools/bench/check_bench
iscsi_bench_objs := $(B)/tools/bench/iscsi_load.o
check_bench_objs := $(B)/tools/bench/many.o $(B)/tools/bench/many_dev.o
all_objs += $(bench_progs:%=%.o) $(iscsi_bench_objs) $(check_bench_objs)
$(B)/tools/bench/lock_bench: $(call archives,fs)
$(B)/tools/bench/check_bench: $(check_bench_objs) $(call archives,fs)
$(B)/tools/bench/iscsi_bench: $(iscsi_bench_objs) $(call archives,iscsi)
$(bench_progs): %: %.o
	@$(CC) $(LDFLAGS_ALL) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(LIBS)

.PHONY: bench_programs
bench_programs: $(bench_progs)

# The load generator for vhost-user-blk servers.
vhost_bench_srcs := $(wildcard tools/vhost_bench/*.c)
vhost_bench_uses := base
vhost_bench_tests := tests/tools/vhost_bench_test.c
$(eval $(call library,vhost_bench))
$(eval $(call unit_tests,vhost_bench))

lunfs-vhost-bench_main := tools/vhost_bench_main.c
lunfs-vhost-bench_uses := vhost_bench
$(eval $(call program,lunfs-vhost-bench))
