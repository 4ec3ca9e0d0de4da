# lockd/: host slots, heartbeats, leases, locks, fencing, recovery.
lockd_srcs  := $(wildcard lockd/*.c)
lockd_uses  := block base
lockd_tests := $(wildcard tests/lockd/*_test.c)
lockd_test_uses := sim
$(eval $(call library,lockd))
$(eval $(call unit_tests,lockd))
