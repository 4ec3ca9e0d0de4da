# SPDX-License-Identifier: Apache-2.0
# tests/sim/: power cuts at every moment of recorded scripts (`make powercut`).
power_cut_objs := $(patsubst %.c,$(B)/%.o,$(wildcard tests/sim/*.c))
all_objs += $(power_cut_objs)

$(B)/tests/sim/power_cut: $(power_cut_objs) $(call archives,fs sim)
	@echo "  LD    $@"
	@$(CC) $(LDFLAGS_ALL) -o $@ $(filter %.o,$^) \
		-Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(LIBS)

.PHONY: power_cut powercut mutants
power_cut: $(B)/tests/sim/power_cut
powercut:
	@tests/sim/powercut.sh full
mutants:
	@tests/sim/mutants.sh
