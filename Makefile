# SPDX-License-Identifier: Apache-2.0
# LunFS.  `make` builds, `make check` tests, `make demo` shows it; `make help` lists the rest.

VERSION := 0.1.0
PREFIX ?= /usr/local
DESTDIR ?=
CC ?= gcc
SAN ?=
comma := ,

# One build tree per sanitizer, so that switching rebuilds nothing.
B := build$(if $(SAN),-$(subst $(comma),-,$(SAN)))

CPPFLAGS_ALL = -I. -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DLUNFS_VERSION='"$(VERSION)"' $(CPPFLAGS)
WARN := -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wpointer-arith \
	-Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition -Wvla -Werror
# The sanitizers' trees are compiled twice as fast with -O1, and run no slower; lines are all that
# their reports need, and a linker that is quick pays for programs that are so many and so large.
CFLAGS ?= $(if $(SAN),-O1 -g1,-O2 -g)
# What may be uninitialized is said by the plain tree: a sanitizer's instructions hide it from gcc.
WARN += $(if $(SAN),-Wno-maybe-uninitialized)
# A section a function: what a program does not call is not linked into it.
CFLAGS_ALL = -std=gnu11 $(WARN) $(CFLAGS) -fPIE -fno-strict-aliasing -fstack-protector-strong \
	-ffunction-sections -fdata-sections \
	$(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer,-D_FORTIFY_SOURCE=2)
LDFLAGS_ALL = -pie -Wl,-z,relro,-z,now,--gc-sections $(LDFLAGS) $(if $(SAN),-fsanitize=$(SAN) $(quick_linker))
quick_linker := $(if $(SAN),$(if $(shell command -v ld.gold),-fuse-ld=gold))

.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all
all: # the modules below add to it

# ---- how a module, its tests and a program are made ----

# $(call library,NAME): build/NAME.a from NAME_srcs; NAME_uses is all that it may include.
define library
$(1)_objs := $$($(1)_srcs:%.c=$$(B)/%.o)
$$(B)/$(1).a: $$($(1)_objs)
	@rm -f $$@
	@ar rcs $$@ $$^
all: $$(B)/$(1).a
all_objs += $$($(1)_objs)
endef

# Archives of $(1) and of all that it uses, users first.
closure = $(1) $(foreach m,$($(1)_uses),$(call closure,$(m)))
uniq = $(if $(1),$(firstword $(1)) $(call uniq,$(filter-out $(firstword $(1)),$(1))))
archives = $(foreach m,$(call uniq,$(1) $(foreach u,$(1),$(call closure,$(u)))),$(B)/$(m).a)

# $(call unit_tests,NAME): a program for each of NAME_tests, run by `make unit`; a test may
# use NAME_test_uses beside NAME.
unit_frame := $(B)/tests/unit.o
all_objs += $(unit_frame)
define unit_tests
unit_progs += $$($(1)_tests:%.c=$$(B)/%)
all_objs += $$($(1)_tests:%.c=$$(B)/%.o)
$$($(1)_tests:%.c=$$(B)/%): $$(B)/%: $$(B)/%.o $$(unit_frame) $$(call archives,$(1) $$($(1)_test_uses))
	@echo "  LD    $$@"
	@$$(CC) $$(LDFLAGS_ALL) -o $$@ $$(filter %.o,$$^) -Wl,--start-group $$(filter %.a,$$^) -Wl,--end-group $$(LIBS) -lcunit
endef

# $(call program,NAME): build/bin/NAME from NAME_main (objects) and NAME_uses; NAME_libs if it
# wants other libraries than all of them.
define program
all_objs += $$($(1)_main:%.c=$$(B)/%.o)
programs += $$(B)/bin/$(1)
$$(B)/bin/$(1): $$($(1)_main:%.c=$$(B)/%.o) $$(call archives,$$($(1)_uses))
	@mkdir -p $$(@D)
	@echo "  LD    $$@"
	@$$(CC) $$(LDFLAGS_ALL) -o $$@ $$(filter %.o,$$^) -Wl,--start-group $$(filter %.a,$$^) -Wl,--end-group $$(or $$($(1)_libs),$$(LIBS))
all: $$(B)/bin/$(1)
endef

PKG_CFLAGS := $(shell pkg-config --cflags libiscsi libisal jansson fuse3 libseccomp blkid uuid zlib 2>/dev/null)
LIBS := -laio $(shell pkg-config --libs libiscsi libisal jansson fuse3 libseccomp blkid uuid libcrypto zlib 2>/dev/null) -lpthread

$(B)/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC    $<"
	@$(CC) $(CPPFLAGS_ALL) $(PKG_CFLAGS) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<

# Names what is missing instead of letting the compiler guess; `make deps` and others that
# build nothing go on.
quiet_goals := help deps check demo bench fuzz powercut model conformance hosts migration clean
ifneq ($(filter-out $(quiet_goals),$(or $(MAKECMDGOALS),all)),)
missing := $(strip $(foreach p,libisal:libisal-dev jansson:libjansson-dev fuse3:libfuse3-dev \
	libseccomp:libseccomp-dev blkid:libblkid-dev uuid:uuid-dev libcrypto:libssl-dev zlib:zlib1g-dev libiscsi:libiscsi-dev,\
	$(shell pkg-config --exists $(firstword $(subst :, ,$(p))) || echo $(lastword $(subst :, ,$(p))))))
ifneq ($(missing),)
$(error missing Debian packages: $(missing); install them, or run `make deps`)
endif
endif

# ---- modules, lowest first ----
include base/module.mk
include proc/module.mk
include block/module.mk
include lockd/module.mk
include fs/module.mk
include iscsi/module.mk
include vhost/module.mk
include kvm/module.mk
-include target/module.mk
-include fuse/module.mk
-include daemon/module.mk
-include tools/module.mk
include tests/guest/module.mk
include tests/fuzz/module.mk
include tests/nomem/module.mk
include tests/fsck/module.mk
include tests/sim/module.mk
include tests/sim/cluster/module.mk

# ---- what people call ----
.PHONY: help deps check demo bench lint model conformance hosts migration unit unit_programs print_unit_programs install uninstall clean
help:
	@echo "make                build into build/ (SAN=address,undefined or thread: build-…)"
	@echo "make deps           install what is needed, on Debian 12"
	@echo "make check          all tests (installs what they need first)"
	@echo "make demo           two hosts on one machine: share a LUN, crash one, take over"
	@echo "make bench          measure, against the raw device and peers in the same run"
	@echo "make model          search every state of the locking protocol's model (docs/model/)"
	@echo "make install        DESTDIR= PREFIX=$(PREFIX); make uninstall takes that away"
	@echo "make lint           clang-tidy over everything"
	@echo "make unit           only the unit tests of this build tree"
	@echo "make powercut       cut the power at every moment of recorded scripts, ten minutes"
	@echo "make fuzz           search for inputs that break parsers, TIME=60 seconds each"
	@echo "make sim            one run of the cluster simulator with its trace: SEED=1 STEPS=20000"
	@echo "make soak           new seeds of it for TIME=60 seconds, on all cores"
	@echo "make conformance    libiscsi's whole suite against lunfs-target, every configuration; long iSCSI tests"
	@echo "make migration      a guest moves between two hosts under QEMU, while it writes"
	@echo "make hosts          a guest outlives its host, which freezes or is killed; hosts are machines of QEMU's"
	@echo "make mutants        breaks the code on purpose, shows that it is noticed"

deps:
	@tools/deps.sh

# A second make, because the first one read the Makefile before pkg-config knew everything.
check: deps
	@tests/check.sh

demo: deps
	@$(MAKE) -s -j2 all
	@tests/demo.sh
	@tests/demo_vm.sh

bench: deps
	@$(MAKE) -s -j2 all
	@tests/bench.sh

model: deps
	@docs/model/run.sh full

# Two machines of QEMU's as hosts, one of which freezes, or is killed, while its guest writes: five minutes or so.
hosts: deps
	@$(MAKE) -s -j2 all
	@tests/kvm/linux.sh
	@tests/kvm/linux.sh kill

# A guest under QEMU moves between two daemons while it writes: a minute or three.
migration: deps
	@$(MAKE) -s -j2 all
	@PASSES=20 tests/vhost/guest_migrates.sh

conformance: deps
	@$(MAKE) -s -j2 all
	@bad=0; for part in iscsi/conformance.sh iscsi/core_tests.sh e2e/iscsi_frozen_host.sh \
			guest/long/scsi_multipath.sh; do \
		LONG=1 tests/$$part || bad=1; \
	done; exit $$bad

# Slower than what `make check` looks for; wants Debian's clang-tidy.
lint:
	clang-tidy --quiet $(sort $(all_objs:$(B)/%.o=%.c)) -- $(CPPFLAGS_ALL) $(PKG_CFLAGS) -std=gnu11

unit: $(unit_progs)
	@set -e; for t in $(unit_progs); do echo "== $$t"; $$t; done

unit_programs: $(unit_progs)
print_unit_programs:
	@echo $(unit_progs)

services := daemon/lunfsd target/lunfs-target kvm/lunvm-autostart kvm/lunvm@
install: all
	install -d $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(PREFIX)/share/man/man5 \
		$(DESTDIR)$(PREFIX)/share/man/man7 $(DESTDIR)$(PREFIX)/share/man/man8 $(DESTDIR)/sbin $(DESTDIR)/lib/systemd/system
	install -m 755 $(programs) $(DESTDIR)$(PREFIX)/sbin
	# mount(8), mkfs(8) and fsck(8) look for their helpers there.  Debian's /sbin is /usr/sbin.
	[ "$(PREFIX)" = /usr ] || for p in mount mkfs fsck; do \
		ln -sf $(PREFIX)/sbin/$$p.lunfs $(DESTDIR)/sbin/$$p.lunfs; done
	# By this type the kernel knows our mounts: mount -o remount looks for it.
	ln -sf $(PREFIX)/sbin/mount.lunfs \
		$(DESTDIR)$(if $(filter /usr,$(PREFIX)),/usr)/sbin/mount.fuse.lunfs
	# One file for all programs: the loader looks for the name of the one that is typed.
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	for p in $(notdir $(programs)); do install -m 644 tools/completion.bash \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions/$$p; done
	install -m 644 docs/man/*.5 $(DESTDIR)$(PREFIX)/share/man/man5
	install -m 644 docs/man/*.7 $(DESTDIR)$(PREFIX)/share/man/man7
	install -m 644 docs/man/*.8 $(DESTDIR)$(PREFIX)/share/man/man8
	for s in $(services); do \
		sed 's|/usr/local/sbin|$(PREFIX)/sbin|' $$s.service \
			>$(DESTDIR)/lib/systemd/system/$${s##*/}.service; done

# What `make install` wrote with the same DESTDIR and PREFIX, and no directory: others use them too.
uninstall:
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/sbin/,$(notdir $(programs))) \
		$(addprefix $(DESTDIR)$(PREFIX)/share/bash-completion/completions/,$(notdir $(programs))) \
		$(foreach n,5 7 8,$(addprefix $(DESTDIR)$(PREFIX)/share/man/man$n/,$(notdir $(wildcard docs/man/*.$n)))) \
		$(foreach p,mount mkfs fsck,$(DESTDIR)/sbin/$p.lunfs) \
		$(DESTDIR)$(if $(filter /usr,$(PREFIX)),/usr)/sbin/mount.fuse.lunfs \
		$(foreach s,$(services),$(DESTDIR)/lib/systemd/system/$(notdir $s).service)

clean:
	rm -rf build build-*

-include $(all_objs:.o=.d)
