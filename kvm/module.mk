# kvm/: lunvm, the launcher of virtual machines whose disks come from LunFS.
kvm_srcs  := kvm/acpi.c kvm/boot.c kvm/cmd.c kvm/config.c kvm/console.c kvm/control.c kvm/cpu.c \
		kvm/disk.c kvm/front.c kvm/jail.c kvm/machine.c kvm/memory.c kvm/mmio.c \
		kvm/parent.c kvm/report.c kvm/restart.c kvm/uart.c kvm/worker.c
kvm_uses  := vhost proc base
kvm_tests := $(wildcard tests/kvm/*_test.c)
$(eval $(call library,kvm))
$(eval $(call unit_tests,kvm))

lunvm_main := kvm/lunvm_main.c kvm/autostart.c kvm/source.c tools/ctl_client.c
# Less to map, relocate and lock: each machine is a process of its own.
lunvm_libs := -ljansson -lseccomp -lpthread
lunvm_uses := kvm
$(eval $(call program,lunvm))

# The guest of tests and benchmarks, a program without a system; not installed.
payload_flags := -O2 -Wall -Wextra -Werror -ffreestanding -fno-pic -mno-red-zone -mgeneral-regs-only \
		-fno-stack-protector -fno-asynchronous-unwind-tables -fcf-protection=none
payload_link := -nostdlib -static -no-pie -Wl,-T,tests/kvm/payload/payload.ld -Wl,--build-id=none \
		-Wl,-z,norelro -Wl,--no-warn-rwx-segments
$(B)/tests/kvm/payload.elf: tests/kvm/payload/payload.c tests/kvm/payload/entry.S tests/kvm/payload/payload.ld
	@mkdir -p $(@D)
	@echo "  LD    $@"
	@$(CC) $(payload_flags) $(payload_link) -o $@ $(filter %.c %.S,$^)
all: $(B)/tests/kvm/payload.elf

# lunvm, taken over (tests/kvm/breakout.c); not installed.
breakout_objs := $(lunvm_main:%.c=$(B)/%.o) $(B)/tests/kvm/breakout.o
all_objs += $(B)/tests/kvm/breakout.o
$(B)/tests/kvm/lunvm_breakout: $(breakout_objs) $(call archives,kvm)
	@echo "  LD    $@"
	@$(CC) $(LDFLAGS_ALL) -Wl,--wrap=machine_go,--wrap=uart_write,--wrap=console_view,--wrap=mount,--wrap=packet_recv -o $@ \
		$(breakout_objs) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(lunvm_libs)
all: $(B)/tests/kvm/lunvm_breakout
