# iscsi/: the iSCSI target: transport (conn, session, task), login, SCSI device server.
iscsi_srcs  := $(filter-out %_main.c,$(wildcard iscsi/*.c))
iscsi_uses  := block base
iscsi_tests := $(wildcard tests/iscsi/*_test.c)
iscsi_test_uses := sim
$(eval $(call library,iscsi))
$(eval $(call unit_tests,iscsi))
