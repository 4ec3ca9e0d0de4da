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

pkgs := libaio libisal jansson fuse3 libseccomp blkid uuid libcrypto
pkg_names := libaio-dev libisal-dev libjansson-dev libfuse3-dev libseccomp-dev libblkid-dev uuid-dev libssl-dev

CPPFLAGS_ALL = -I. -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DLUNFS_VERSION='"$(VERSION)"' $(CPPFLAGS)
WARN := -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wpointer-arith \
	-Wstrict-prototypes -Wmissing-prototypes -Wold-style-definition -Wvla -Werror
CFLAGS ?= -O2 -g
CFLAGS_ALL = -std=gnu11 $(WARN) $(CFLAGS) -fPIE -fno-strict-aliasing -fstack-protector-strong \
	$(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer,-D_FORTIFY_SOURCE=2)
LDFLAGS_ALL = -pie -Wl,-z,relro,-z,now $(LDFLAGS) $(if $(SAN),-fsanitize=$(SAN))

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
define unit_tests
unit_progs += $$($(1)_tests:%.c=$$(B)/%)
all_objs += $$($(1)_tests:%.c=$$(B)/%.o)
$$($(1)_tests:%.c=$$(B)/%): $$(B)/%: $$(B)/%.o $$(call archives,$(1) $$($(1)_test_uses))
	@echo "  LD    $$@"
	@$$(CC) $$(LDFLAGS_ALL) -o $$@ $$< -Wl,--start-group $$(filter %.a,$$^) -Wl,--end-group $$(LIBS) -lcunit
endef

# $(call program,NAME): build/bin/NAME from NAME_main (objects) and NAME_uses.
define program
all_objs += $$($(1)_main:%.c=$$(B)/%.o)
programs += $$(B)/bin/$(1)
$$(B)/bin/$(1): $$($(1)_main:%.c=$$(B)/%.o) $$(call archives,$$($(1)_uses))
	@mkdir -p $$(@D)
	@echo "  LD    $$@"
	@$$(CC) $$(LDFLAGS_ALL) -o $$@ $$(filter %.o,$$^) -Wl,--start-group $$(filter %.a,$$^) -Wl,--end-group $$(LIBS)
all: $$(B)/bin/$(1)
endef

PKG_CFLAGS := $(shell pkg-config --cflags libisal jansson fuse3 libseccomp blkid uuid 2>/dev/null)
LIBS := -laio $(shell pkg-config --libs libisal jansson fuse3 libseccomp blkid uuid libcrypto 2>/dev/null) -lpthread

$(B)/%.o: %.c
	@mkdir -p $(@D)
	@echo "  CC    $<"
	@$(CC) $(CPPFLAGS_ALL) $(PKG_CFLAGS) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<

# ---- modules, lowest first ----
include base/module.mk
include block/module.mk
include lockd/module.mk
include fs/module.mk
-include daemon/module.mk
-include fuse/module.mk
-include tools/module.mk

.PHONY: unit clean
unit: $(unit_progs)
	@set -e; for t in $(unit_progs); do echo "== $$t"; $$t; done

clean:
	rm -rf build build-*

-include $(all_objs:.o=.d)
