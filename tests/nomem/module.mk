# SPDX-License-Identifier: Apache-2.0
# tests/nomem/: every allocation of the product made to fail in turn.  Archives and programs in
# build/nomem/ are the product's own with the names of allocating functions replaced.
nomem_libs := $(call uniq,$(call closure,daemon) $(call closure,selftest))
nomem_tests := $(patsubst %.c,%,$(wildcard tests/nomem/*_test.c))
nomem_progs := $(nomem_tests:%=$(B)/%)
nomem_archives := $(nomem_libs:%=$(B)/nomem/%.a)
nomem_runtime := $(B)/tests/nomem/nomem.o
all_objs += $(nomem_runtime) $(nomem_progs:%=%.o)
unit_progs += $(nomem_progs)

# base/ and block/ are below blkdev_alloc(); in all others it counts where it is called.
$(B)/nomem/base.a $(B)/nomem/block.a: $(B)/nomem/%.a: $(B)/%.a tests/nomem/symbols
	@mkdir -p $(@D)
	@objcopy --redefine-syms=tests/nomem/symbols $< $@
$(B)/nomem/%.a: $(B)/%.a tests/nomem/symbols
	@mkdir -p $(@D)
	@objcopy --redefine-syms=tests/nomem/symbols \
		--redefine-sym blkdev_alloc=nomem_blkdev_alloc $< $@

$(nomem_progs): $(B)/%: $(B)/%.o $(unit_frame) $(nomem_runtime) $(nomem_archives) $(B)/sim.a
	@echo "  LD    $@"
	@$(CC) $(LDFLAGS_ALL) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) \
		-Wl,--end-group $(LIBS) -lcunit

# $(call nomem_program,NAME): build/nomem/bin/NAME, for tests/e2e/out_of_memory.sh.
define nomem_program
$$(B)/nomem/bin/$(1): $$($(1)_main:%.c=$$(B)/nomem/%.o) $$(nomem_runtime) $$(nomem_archives)
	@mkdir -p $$(@D)
	@echo "  LD    $$@"
	@$$(CC) $$(LDFLAGS_ALL) -o $$@ $$(filter %.o,$$^) -Wl,--start-group $$(filter %.a,$$^) \
		-Wl,--end-group $$(LIBS)
nomem_bins += $$(B)/nomem/bin/$(1)
endef
$(foreach p,lunfsd lunfs mount.lunfs mkfs.lunfs fsck.lunfs,$(eval $(call nomem_program,$(p))))

$(B)/nomem/%.o: $(B)/%.o tests/nomem/symbols
	@mkdir -p $(@D)
	@objcopy --redefine-syms=tests/nomem/symbols \
		--redefine-sym blkdev_alloc=nomem_blkdev_alloc $< $@

.PHONY: nomem_programs
nomem_programs: $(nomem_bins)
