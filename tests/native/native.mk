# SPDX-License-Identifier: BSD-2-Clause
# The network stack and its services as a Linux program: the same net/ and lwIP, with the kernel and
# the NIC replaced by the files here. What each core has a copy of is gathered in section percore
# (tests/native/cores.c). Sanitized, for the tests; `make native-fast` without, to profile.
include net/lwip.mk

NATIVE_OURS := $(wildcard net/*.c net/services/*.c net/services/*/*.c tests/native/*.c) \
	kernel/config_nic.c kernel/utc.c
NATIVE_FLAGS := -std=gnu11 -g -O2 -D_GNU_SOURCE -I. -isystem /usr/include/stb $(LWIP_INCLUDES) \
	-D'PERCORE=__attribute__((section("percore")))'
NATIVE_SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
# lwIP is compiled as it comes: it shifts bytes into sign bits and reads unaligned fields, both of
# which these compilers define.
NATIVE_LWIP := -fno-sanitize=alignment,shift $(LWIP_CFLAGS)

# $(1): directory below build/  $(2): flags
define native_program
build/$(1)/ours/%.o: %.c tests/native/native.mk net/lwip.mk
	@mkdir -p $$(@D)
	@$$(CC) $(NATIVE_FLAGS) $(2) -Wall -Wextra -Werror -MMD -c $$< -o $$@

build/$(1)/lwip/%.o: $(LWIP_DIR)/%.c tests/native/native.mk net/lwip.mk
	@mkdir -p $$(@D)
	@$$(CC) $(NATIVE_FLAGS) $(2) $(NATIVE_LWIP) -MMD -MF $$(@:.o=.d) -MT $$@ -c $$< -o $$@.tmp
	@objcopy --set-section-flags .bss=alloc,load,contents,data --rename-section .bss=percore \
		--rename-section .data=percore --rename-section .data.rel.local=percore $$@.tmp $$@
	@rm $$@.tmp

build/$(1)/dunlin-native: $(NATIVE_OURS:%.c=build/$(1)/ours/%.o) \
		$(LWIP_SOURCES:%.c=build/$(1)/lwip/%.o)
	@echo "  LD      $$@"
	@$$(CC) $(2) $$^ -o $$@

-include $(patsubst %.c,build/$(1)/ours/%.d,$(NATIVE_OURS)) \
	$(patsubst %.c,build/$(1)/lwip/%.d,$(LWIP_SOURCES))
endef
$(eval $(call native_program,native,$(NATIVE_SANITIZE)))
$(eval $(call native_program,native-fast,))

.PHONY: native native-fast
native: build/native/dunlin-native
native-fast: build/native-fast/dunlin-native
