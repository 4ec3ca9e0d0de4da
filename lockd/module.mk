# lockd/: host slots, heartbeats, leases, locks, fencing, recovery.
lockd_srcs  := lockd/cache.c lockd/caw.c lockd/fence.c lockd/gate.c lockd/heartbeat.c lockd/host.c \
	       lockd/lock.c lockd/lockrec.c lockd/observe.c lockd/recover.c lockd/slot.c
lockd_uses  := block base
lockd_tests := tests/lockd/slot_test.c tests/lockd/lockrec_test.c tests/lockd/gate_test.c \
	       tests/lockd/host_test.c tests/lockd/recover_test.c tests/lockd/lock_test.c tests/lockd/cache_test.c
lockd_test_uses := sim
$(eval $(call library,lockd))
$(eval $(call unit_tests,lockd))
