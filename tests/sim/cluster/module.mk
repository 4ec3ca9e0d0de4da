# SPDX-License-Identifier: Apache-2.0
# tests/sim/cluster/: the cluster simulator.
sim_prog := $(B)/tests/sim/lunfs_sim
simulator_objs := $(patsubst %.c,$(B)/%.o,$(wildcard tests/sim/cluster/*.c))
all_objs += $(simulator_objs)

# Where the simulator gets between fs/ and lockd/, and into lockd/.
sim_wraps := gate_blkdev gate_free gate_take_conflict caw_sector_told record_take record_settle_fate

$(sim_prog): $(simulator_objs) $(call archives,fs sim)
	@echo "  LD    $@"
	@$(CC) $(LDFLAGS_ALL) $(sim_wraps:%=-Wl,--wrap=%) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(LIBS)

.PHONY: sim_program sim soak costs
sim_program: $(sim_prog)

SEED ?= 1
STEPS ?= 20000
sim: $(sim_prog)
	@$(sim_prog) --seed $(SEED) --steps $(STEPS) --trace

soak: $(sim_prog)
	@$(sim_prog) --soak $(TIME) --steps $(STEPS)

# Commands to the LUN for a lock, an allocation and a recovery (docs/PERFORMANCE.md).
costs: $(sim_prog)
	@$(sim_prog) --costs
