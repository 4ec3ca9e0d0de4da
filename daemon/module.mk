# daemon/: lunfsd, its privileged parent and its worker, and the control protocol.
daemon_srcs  := daemon/checker.c daemon/config.c daemon/ctl.c daemon/ctl_attach.c daemon/ctl_check.c daemon/ctl_commands.c daemon/ctl_disk.c \
		daemon/ctl_json.c daemon/ctl_read.c daemon/ctl_request.c daemon/ctl_volume.c daemon/disks.c daemon/disks_end.c daemon/disks_export.c daemon/disks_front.c daemon/disks_handover.c daemon/disks_option.c \
		daemon/disks_port.c daemon/disks_restore.c daemon/disks_run.c daemon/disks_state.c daemon/exports.c daemon/guard.c daemon/merger.c daemon/metrics.c daemon/metrics_http.c daemon/mountinfo.c daemon/parent.c \
		daemon/parent_asked.c daemon/parent_disk.c daemon/parent_kill.c daemon/parent_lun.c \
		daemon/parent_ops.c daemon/parent_portal.c daemon/parent_scsi.c daemon/parent_users.c daemon/parent_volume.c \
		daemon/rpc.c daemon/rpc_client.c daemon/store.c daemon/store_mount.c \
		daemon/worker.c
daemon_uses  := fuse vhost iscsi fs lockd block proc base
daemon_tests := $(wildcard tests/daemon/*_test.c)
$(eval $(call library,daemon))
$(eval $(call unit_tests,daemon))

# Linked once all of fs/ is there.
ifneq ($(and $(wildcard fs/fs.c),$(wildcard fs/namei.c)),)
lunfsd_main := daemon/lunfsd_main.c
lunfsd_uses := daemon
$(eval $(call program,lunfsd))
endif
