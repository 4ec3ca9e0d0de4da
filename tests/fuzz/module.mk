# SPDX-License-Identifier: Apache-2.0
# tests/fuzz/: parsers of foreign bytes.  With SAN=…,fuzzer-no-link and CC=clang they are linked
# with libFuzzer, else with a driver of our own (tests/fuzz/run.sh).
fuzz_names := block config conn control kvm login lun ring scsi target text vhost volume
fuzz_progs := $(fuzz_names:%=$(B)/tests/fuzz/%_fuzz)
fuzz_engine := $(if $(findstring fuzzer,$(SAN)),,$(B)/tests/fuzz/driver.o)
volume_fuzz_objs := $(patsubst %,$(B)/tests/fuzz/volume_%.o,change disk images make use)
vhost_front_obj := $(B)/tests/fuzz/vhost_front.o
all_objs += $(fuzz_progs:%=%.o) $(fuzz_engine) $(volume_fuzz_objs) $(vhost_front_obj)

$(B)/tests/fuzz/volume_fuzz: $(volume_fuzz_objs)
$(B)/tests/fuzz/vhost_fuzz: $(vhost_front_obj)
$(B)/tests/fuzz/ring_fuzz: $(vhost_front_obj) $(B)/vhost_bench.a
$(fuzz_progs): $(B)/%: $(B)/%.o $(fuzz_engine) $(call archives,daemon kvm target vhost sim)
	@echo "  LD    $@"
	@$(CC) $(LDFLAGS_ALL) $(if $(fuzz_engine),,-fsanitize=fuzzer) -o $@ $(filter %.o,$^) \
		-Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(LIBS)

.PHONY: fuzz fuzz_programs print_fuzz_names
fuzz_programs: $(fuzz_progs)
print_fuzz_names:
	@echo $(fuzz_names)

TIME ?= 60
fuzz:
	@tools/deps.sh fuzz
	@tests/fuzz/long.sh $(TIME) $(fuzz_names)
