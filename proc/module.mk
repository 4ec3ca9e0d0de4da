# proc/: what programs of two halves have in common: a privileged parent, a confined worker.
proc_srcs  := proc/notify.c proc/packet.c proc/sandbox.c proc/spawn.c
proc_uses  := base
proc_tests := $(wildcard tests/proc/*_test.c)
$(eval $(call library,proc))
$(eval $(call unit_tests,proc))
