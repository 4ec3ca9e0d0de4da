# tests/guest/: programs that run in guests.
guest_progs := $(B)/tests/guest/scsi_claims
all_objs += $(guest_progs:=.o)
$(guest_progs): %: %.o $(call archives,block)
	@echo "  LD    $@"
	@$(CC) $(LDFLAGS_ALL) -o $@ $< -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(LIBS)
all: $(guest_progs)
