# SPDX-License-Identifier: Apache-2.0
# tests/sim/cluster/: the cluster simulator.
sim_prog := $(B)/tests/sim/lunfs_sim
simulator_objs := $(patsubst %.c,$(B)/%.o,$(wildcard tests/sim/cluster/*.c))
all_objs += $(simulator_objs)

$(sim_prog): $(simulator_objs) $(call archives,fs sim)
	@echo "  LD    $@"
	@$(CC) $(LDFLAGS_ALL) -Wl,--wrap=gate_blkdev,--wrap=gate_free -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(LIBS)

.PHONY: sim_program sim soak
sim_program: $(sim_prog)

SEED ?= 1
STEPS ?= 20000
sim: $(sim_prog)
	@$(sim_prog) --seed $(SEED) --steps $(STEPS) --trace

soak: $(sim_prog)
	@$(sim_prog) --soak $(TIME) --steps $(STEPS)
