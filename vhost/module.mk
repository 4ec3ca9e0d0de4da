# vhost/: the vhost-user-blk back end.
vhost_srcs  := $(wildcard vhost/*.c)
vhost_uses  := block base
vhost_tests := $(wildcard tests/vhost/*_test.c)
$(eval $(call library,vhost))
$(eval $(call unit_tests,vhost))

# Serves a plain file, for tests and benchmarks; not installed.
all_objs += $(B)/tests/vhost/serve.o
$(B)/tests/vhost/serve: $(B)/tests/vhost/serve.o $(call archives,vhost)
	@$(CC) $(LDFLAGS_ALL) -o $@ $< -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(LIBS)

# The load of the guests in tests/vhost/.
all_objs += $(B)/tests/vhost/guest_load.o
$(B)/tests/vhost/guest_load: $(B)/tests/vhost/guest_load.o
	@$(CC) $(LDFLAGS_ALL) -o $@ $<
