# base/: integers, lists, clocks and threads, block headers: what every module stands on.
base_srcs  := base/crc32c.c base/env.c base/env_posix.c base/log_limit.c base/machine.c base/meta.c base/polling.c base/program.c base/reactor.c base/reactor_ends.c base/settings.c base/siphash.c base/table.c base/text.c base/workers.c
base_tests := $(wildcard tests/base/*_test.c)
base_test_uses := sim
$(eval $(call library,base))

# sim: the deterministic world for tests (env_sim.c, sim_fiber.c) and its LUN (simdev*.c, simstore.c).
sim_srcs := base/env_sim.c base/sim_fiber.c $(wildcard block/simdev*.c) block/simstore.c
sim_uses := block base
$(eval $(call library,sim))
$(eval $(call unit_tests,base))
