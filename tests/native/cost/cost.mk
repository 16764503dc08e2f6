# SPDX-License-Identifier: BSD-2-Clause
# `make cost`: what driver and stack cost on Linux, see main.c. Compiled as the kernel is, copies
# included and without vectors, but for glibc's malloc in the place of the kernel's heap.
COST_SOURCES := $(wildcard tests/native/cost/*.c net/*.c net/services/*.c net/services/*/*.c \
	drivers/vmbus/*.c drivers/netvsc/*.c) tests/unit/fake_host.c tests/unit/fake_kernel.c \
	kernel/config_nic.c kernel/message.c kernel/utc.c kernel/libc/string.c
COST_OBJECTS = $(COST_SOURCES:%.c=build/cost/ours/%.o) $(LWIP_SOURCES:%.c=build/cost/lwip/%.o)
COST_FLAGS = $(NATIVE_FLAGS) -fno-strict-aliasing -fno-tree-vectorize -MMD

build/cost/ours/%.o: %.c tests/native/cost/cost.mk net/lwip.mk
	@mkdir -p $(@D)
	@gcc $(COST_FLAGS) -Wall -Wextra -Werror -c $< -o $@

build/cost/lwip/%.o: $(LWIP_DIR)/%.c tests/native/cost/cost.mk net/lwip.mk
	@mkdir -p $(@D)
	@gcc $(COST_FLAGS) $(LWIP_CFLAGS) -c $< -o $@

build/cost/dunlin-cost: $(COST_OBJECTS)
	@gcc $^ -lpthread -o $@

-include $(COST_OBJECTS:.o=.d)

.PHONY: cost
cost:
	@tools/setup cost
	@$(SUBMAKE) build/cost/dunlin-cost
	@tests/native/cost/run
