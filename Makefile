# SPDX-License-Identifier: BSD-2-Clause
# The targets people type. Each first calls tools/setup, which is silent when there is nothing to do;
# the build proper is in kernel.mk (and tests/unit/unit.mk), entered once its inputs exist.

VCPUS ?= 2
MEMORY ?= 512
PORT ?= 5201
HEADLESS ?=
QUICK ?=
GDB_PORT ?= 1234
ROUNDS ?= 1000
JOBS ?= $(shell nproc)

SUBMAKE = $(MAKE) --no-print-directory
HV_RUN = tools/hv run --efi build/BOOTX64.EFI --vcpus $(VCPUS) --memory $(MEMORY) \
	--forward $(PORT):5201 $(if $(filter-out 0,$(HEADLESS)),--headless)
C_FILES = $(shell git ls-files 'boot/*.[ch]' 'kernel/*.[ch]' 'drivers/*.[ch]' 'net/*.[ch]' \
	'tests/*.[ch]' 'tools/bench/*.c')

.DEFAULT_GOAL := help
.PHONY: help run test soak image bench debug format lint lint-sources clean

help:
	@echo 'make run     build the image, boot it on the emulated Hyper-V, say what to type'
	@echo '             VCPUS=n MEMORY=mb PORT=p HEADLESS=1 (now $(VCPUS), $(MEMORY), $(PORT))'
	@echo 'make test    unit, native, host, reference (Linux guest) and end-to-end tests; JOBS=n'
	@echo 'make soak    NICs come and go under load, ROUNDS=n times (now $(ROUNDS)); root'
	@echo 'make image   build/BOOTX64.EFI, build/dunlin.vhdx, build/dunlin.iso'
	@echo 'make bench   Dunlin beside Linux: table, charts, build/bench/results.json; QUICK=1: 1 vCPU'
	@echo 'make cost    what driver and stack cost as a Linux program: time and instructions'
	@echo 'make debug   like run, stopped for gdb; prints the gdb line'
	@echo 'make format  format the C files        make lint   clang-tidy and cppcheck'
	@echo 'make clean   remove what was built from this tree (keeps downloads and the host)'

# exec: make is then the direct parent of the runner and passes its signals on.
run:
	@tools/setup run
	@$(SUBMAKE) build/BOOTX64.EFI
	@exec $(HV_RUN)

debug:
	@tools/setup debug
	@$(SUBMAKE) build/BOOTX64.EFI
	@exec $(HV_RUN) --gdb $(GDB_PORT) --symbols build/kernel.elf

image:
	@tools/setup image
	@$(SUBMAKE) build/BOOTX64.EFI
	@tools/image/build build/BOOTX64.EFI build

# What does not compile or does not end is counted as failed by tests/summary.py; nothing of an earlier
# run may stand in for it.
test:
	@mkdir -p build/test && rm -f build/test/*.xml build/test/*.status build/test/unit.log
	@tools/setup test
	@$(SUBMAKE) -j$(JOBS) image
	@$(SUBMAKE) -j$(JOBS) unit || true
	@$(SUBMAKE) -j$(JOBS) native || rm -f build/native/dunlin-native
	@/usr/bin/python3 -m pytest -c tests/pytest.ini -n $(JOBS) --dist loadfile tests; \
		echo $$? >build/test/pytest.status
	@tests/summary.py

soak:
	@tools/setup test
	@$(SUBMAKE) build/BOOTX64.EFI
	@tests/soak $(ROUNDS)

bench:
	@tools/setup test
	@$(SUBMAKE) build/BOOTX64.EFI build/bench/load
	@tools/bench/bench $(if $(filter-out 0,$(QUICK)),--quick)

format:
	@tools/setup lint
	@clang-format -i $(C_FILES)

lint:
	@tools/setup lint
	@$(SUBMAKE) lint-sources

clean:
	@find build -mindepth 1 -maxdepth 1 ! -name download ! -name apt ! -name host ! -name src \
		! -name reference ! -name run -exec rm -rf {} + 2>/dev/null || true

include kernel.mk
include tests/unit/unit.mk
include tests/native/native.mk
include tests/native/cost/cost.mk
include tools/bench/bench.mk

# clang-tidy sees each file with the flags that the build uses for it; checks are in .clang-tidy.
# Its standard error has only counts of what was suppressed. cppcheck takes symbols of the linker for
# unrelated objects, does not see that ASSERT ends, nor that a list node on the stack is taken out.
lint-sources: $(OBJ)/include/jsmn.h
	@echo '  TIDY    kernel drivers net boot'
	@printf '%s\n' $(KERNEL_C) | xargs -P2 -n4 sh -c 'clang-tidy --quiet "$$@" -- \
		$(filter-out -MMD -MP,$(KERNEL_CFLAGS)) $(INIH_FLAGS) $(KERNEL_INCLUDES) 2>/dev/null' tidy
	@clang-tidy --quiet boot/main.c -- $(filter-out -MMD -MP,$(EFI_CFLAGS)) 2>/dev/null
	@echo '  CPPCHECK'
	@cppcheck --quiet --error-exitcode=1 --enable=warning,performance,portability --std=c11 \
		--suppress=missingIncludeSystem --suppress=comparePointers \
		--suppress=arrayIndexOutOfBoundsCond --suppress=autoVariables:drivers/vmbus/offers.c \
		-DDUNLIN_KERNEL -I. -j2 boot kernel drivers net
