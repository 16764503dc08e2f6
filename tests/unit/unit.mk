# SPDX-License-Identifier: BSD-2-Clause
# `make unit`: builds the tests of parts of the kernel for Linux, with ASan and UBSan, and runs them.
# A test is tests/unit/test_NAME.c; unit_NAME lists what of the kernel it is linked with.

UNIT_DIR = $(BUILD)/unit
UNIT_TESTS = $(patsubst tests/unit/test_%.c,%,$(sort $(wildcard tests/unit/test_*.c)))
UNIT_CFLAGS = -std=gnu11 -O1 -g -Wall -Wextra -Werror -fno-omit-frame-pointer \
	-fsanitize=address,undefined -fno-sanitize-recover=all -I. -Itests/unit -MMD -MP

unit_alloc = kernel/pages.c kernel/heap.c
unit_balance = net/balance.c
unit_cipher = kernel/cipher.c
unit_coalesce = net/coalesce.c
unit_config = kernel/config.c kernel/config_nic.c $(INIH_DIR)/ini.c
unit_config_cflags = -isystem $(INIH_DIR) $(INIH_FLAGS) -Wno-sign-compare
unit_fiber = kernel/fiber.c
unit_ic = $(wildcard drivers/ic/*.c) drivers/vmbus/ring.c tests/unit/fake_ic.c \
	tests/unit/fake_silence.c
unit_kvp = $(unit_ic)
unit_ip6_check = net/ip6_check.c
unit_iperf3_params = net/services/iperf3/json.c net/services/iperf3/params.c \
	net/services/iperf3/results.c
unit_iperf3_params_cflags = -isystem /usr/include/stb -Wno-unused-parameter
unit_log = kernel/log.c
unit_log_cflags = $(unit_iperf3_params_cflags)
unit_message = kernel/message.c
unit_message_cflags = -DPERCORE=_Thread_local -include before_exchange.h
unit_ranges = kernel/ranges.c
unit_ring = drivers/vmbus/ring.c
unit_requests = drivers/vmbus/requests.c tests/unit/fake_kernel.c kernel/message.c
unit_front = net/front.c tests/unit/fake_pcb.c
unit_front_cflags = -DPERCORE= -isystem /usr/include/stb -Inet -isystem \
	$(SRC_DIR)/lwip-2.2.1/src/include
unit_gpadl = drivers/vmbus/gpadl.c tests/unit/fake_kernel.c tests/unit/fake_connection.c \
	kernel/message.c
unit_rndis = drivers/netvsc/rndis.c
unit_toeplitz = drivers/netvsc/toeplitz.c
unit_power = kernel/power.c tests/unit/fake_silence.c
unit_router_dns = net/router_dns.c
unit_recovery = net/recovery.c net/scoreboard.c net/congestion.c net/bbr.c net/reno.c \
	tests/unit/fake_path.c
unit_scoreboard = net/scoreboard.c
unit_sender = net/sender.c net/recovery.c net/scoreboard.c net/congestion.c net/bbr.c net/reno.c \
	tests/unit/fake_pcb.c tests/unit/fake_silence.c
unit_sender_cflags = $(unit_front_cflags)
unit_utc = kernel/utc.c tests/unit/fake_silence.c

# VMBus and netvsc on the scripted host, with the client of most of these tests: compiled once.
UNIT_NETVSC_C = $(wildcard drivers/vmbus/*.c drivers/netvsc/*.c) kernel/message.c kernel/config_nic.c \
	tests/unit/fake_kernel.c tests/unit/fake_host.c tests/unit/netvsc_client.c
UNIT_NETVSC_FLAGS = -D'PERCORE=__attribute__((section("percore")))'
$(foreach t,vmbus $(filter netvsc_%,$(UNIT_TESTS)), \
	$(eval unit_$(t) = $(UNIT_NETVSC_C:%.c=$(UNIT_DIR)/netvsc/%.o)) \
	$(eval unit_$(t)_cflags = $(UNIT_NETVSC_FLAGS)))

$(UNIT_DIR)/netvsc/%.o: %.c tests/unit/unit.mk
	@mkdir -p $(@D)
	@gcc $(UNIT_CFLAGS) $(UNIT_NETVSC_FLAGS) -c -o $@ $<

.PHONY: unit
unit: $(UNIT_TESTS:%=$(UNIT_DIR)/%)
	@mkdir -p $(BUILD)/test
	@tests/unit/run $(BUILD)/test/unit.log $^

.SECONDEXPANSION:
$(UNIT_TESTS:%=$(UNIT_DIR)/%): $(UNIT_DIR)/%: tests/unit/test_%.c $$(unit_$$*) tests/unit/unit.mk
	@mkdir -p $(@D)
	@echo '  UNIT    $*'
	@gcc $(UNIT_CFLAGS) $(unit_$*_cflags) -o $@ $(filter %.c %.o,$^) -lcmocka -lpthread

-include $(wildcard $(UNIT_DIR)/*.d) $(UNIT_NETVSC_C:%.c=$(UNIT_DIR)/netvsc/%.d)
