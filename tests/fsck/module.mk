# SPDX-License-Identifier: Apache-2.0
# tests/fsck/: `wreck NAME FILE`, the damage of tests/fs/wrecks.h in a file for fsck.lunfs.
wreck_objs := $(B)/tests/fsck/wreck.o
all_objs += $(wreck_objs)

$(B)/tests/fsck/wreck: $(wreck_objs) $(call archives,fs sim)
	@echo "  LD    $@"
	@$(CC) $(LDFLAGS_ALL) -o $@ $(filter %.o,$^) \
		-Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(LIBS) -lcunit

# Preloaded into fsck.lunfs by killed.sh.
$(B)/tests/fsck/kill_at.so: tests/fsck/kill_at.c
	@echo "  CC    $@"
	@mkdir -p $(@D)
	@$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -fPIC -shared -o $@ $< -ldl

.PHONY: wreck
wreck: $(B)/tests/fsck/wreck $(B)/tests/fsck/kill_at.so
