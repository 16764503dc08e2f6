# SPDX-License-Identifier: BSD-2-Clause
# Builds $(BUILD)/kernel.elf (with symbols for gdb) and $(BUILD)/BOOTX64.EFI. Included by the
# Makefile. CC=gcc or clang. Every .c and .S file below the folders in KERNEL_DIRS is in the kernel,
# and lwIP's sources as net/lwip.mk lists them.

BUILD ?= build
SRC_DIR ?= build/src
INIH_DIR = $(SRC_DIR)/inih
OBJ = $(BUILD)/kernel
OBJCOPY ?= objcopy
KERNEL_LD ?= ld.bfd
KERNEL_DIRS = kernel drivers net
FONT_GZ ?= /usr/share/consolefonts/Unifont-APL8x16.psf.gz

-include net/lwip.mk

KERNEL_C := $(sort $(shell find $(KERNEL_DIRS) -name '*.c'))
KERNEL_S := $(sort $(shell find $(KERNEL_DIRS) -name '*.S'))
KERNEL_OBJECTS = $(KERNEL_C:%.c=$(OBJ)/%.o) $(KERNEL_S:%.S=$(OBJ)/%.S.o) $(OBJ)/inih/ini.o
LWIP_OBJECTS = $(LWIP_SOURCES:%.c=$(OBJ)/lwip/%.o)

KERNEL_INCLUDES = -I. -isystem kernel/libc -isystem $(INIH_DIR) -isystem /usr/include/stb \
	$(LWIP_INCLUDES)
KERNEL_CFLAGS = -std=gnu11 -O2 -g -ffreestanding -fno-pic -fno-pie -mcmodel=kernel -mno-red-zone \
	-mgeneral-regs-only -fno-omit-frame-pointer -fno-asynchronous-unwind-tables \
	-fno-strict-aliasing -fstack-protector-strong -mstack-protector-guard=global \
	-ffunction-sections -fdata-sections -DDUNLIN_KERNEL -Wall -Wextra -Werror -MMD -MP
# jsmn.h is one header straight in /usr/include, where the C library's headers must not be seen.
KERNEL_CFLAGS += -idirafter $(OBJ)/include
# Whole-library code that we compile as it comes.
FOREIGN_CFLAGS = -Wno-unused-parameter -Wno-unused-function -Wno-sign-compare -Wno-type-limits \
	$(LWIP_CFLAGS)
INIH_FLAGS = -DINI_HANDLER_LINENO=1 -DINI_ALLOW_MULTILINE=0 -DINI_ALLOW_NO_VALUE=1 -DINI_MAX_LINE=256

EFI_CFLAGS = -std=gnu11 -O2 -g -ffreestanding -fpic -fshort-wchar -mno-red-zone \
	-fno-stack-protector -fno-strict-aliasing -mgeneral-regs-only -DGNU_EFI_USE_MS_ABI -isystem /usr/include/efi \
	-isystem /usr/include/efi/x86_64 -I. -Wall -Wextra -Werror -MMD -MP
EFI_LIB ?= /usr/lib
BOOT_OBJ = $(BUILD)/boot

# Objects of one compiler must not be linked with those of the other.
$(OBJ)/compiler: FORCE
	@mkdir -p $(OBJ)
	@echo '$(CC) $(KERNEL_CFLAGS) $(INIH_FLAGS)' | cmp -s - $@ || \
		echo '$(CC) $(KERNEL_CFLAGS) $(INIH_FLAGS)' >$@
.PHONY: FORCE

# How many commits there are: what the host is told as our build number. Not from a clone: 0.
BUILD_NUMBER := $(shell test -e .git && git -c safe.directory='*' rev-list --count HEAD 2>/dev/null || echo 0)
$(OBJ)/build_number: FORCE
	@mkdir -p $(OBJ)
	@echo $(BUILD_NUMBER) | cmp -s - $@ || echo $(BUILD_NUMBER) >$@
$(OBJ)/drivers/ic/kvp_auto.o: $(OBJ)/build_number
$(OBJ)/drivers/ic/kvp_auto.o: private KERNEL_CFLAGS += -DDUNLIN_BUILD='"$(BUILD_NUMBER)"'

$(OBJ)/include/jsmn.h: /usr/include/jsmn.h
	@mkdir -p $(@D)
	@cp $< $@

$(OBJ)/font.psf: $(FONT_GZ)
	@mkdir -p $(@D)
	@gzip -dc $< >$@

$(OBJ)/lwip/%.o: $(LWIP_DIR)/%.c $(OBJ)/compiler $(OBJ)/include/jsmn.h
	@mkdir -p $(@D)
	@$(CC) $(KERNEL_CFLAGS) $(FOREIGN_CFLAGS) $(KERNEL_INCLUDES) -c -o $@ $<

$(OBJ)/inih/ini.o: $(INIH_DIR)/ini.c $(OBJ)/compiler
	@mkdir -p $(@D)
	@$(CC) $(KERNEL_CFLAGS) $(FOREIGN_CFLAGS) $(INIH_FLAGS) -DINI_CUSTOM_ALLOCATOR=1 \
		$(KERNEL_INCLUDES) -c -o $@ $<

$(OBJ)/%.o: %.c $(OBJ)/compiler $(OBJ)/include/jsmn.h
	@mkdir -p $(@D)
	@$(CC) $(KERNEL_CFLAGS) $(INIH_FLAGS) $(KERNEL_INCLUDES) -c -o $@ $<

$(OBJ)/%.S.o: %.S $(OBJ)/compiler $(OBJ)/font.psf
	@mkdir -p $(@D)
	@$(CC) $(KERNEL_CFLAGS) -DFONT_FILE='"$(OBJ)/font.psf"' $(KERNEL_INCLUDES) -c -o $@ $<

# Linked twice: the first pass tells where the functions are, the second carries that table for
# backtraces. The script checks that they did not move.
KERNEL_LINK = $(KERNEL_LD) -nostdlib -static -z noexecstack -z max-page-size=4096 --gc-sections \
	--build-id=none -T linker/kernel.ld $(KERNEL_LDFLAGS)

$(BUILD)/kernel.elf: $(KERNEL_OBJECTS) $(LWIP_OBJECTS) linker/kernel.ld linker/symbols
	@echo '  LD      $@'
	@linker/symbols --empty >$(OBJ)/symbols0.S
	@$(CC) -c -o $(OBJ)/symbols0.o $(OBJ)/symbols0.S
	@$(KERNEL_LINK) -o $(OBJ)/pass1.elf $(KERNEL_OBJECTS) $(LWIP_OBJECTS) $(OBJ)/symbols0.o
	@linker/symbols $(OBJ)/pass1.elf >$(OBJ)/symbols.S
	@$(CC) -c -o $(OBJ)/symbols.o $(OBJ)/symbols.S
	@$(KERNEL_LINK) -o $@.new $(KERNEL_OBJECTS) $(LWIP_OBJECTS) $(OBJ)/symbols.o
	@linker/symbols $@.new | cmp - $(OBJ)/symbols.S
	@mv $@.new $@

$(OBJ)/stripped.elf: $(BUILD)/kernel.elf
	@$(OBJCOPY) --strip-all $< $@

$(BOOT_OBJ)/main.o: boot/main.c $(OBJ)/compiler
	@mkdir -p $(@D)
	@$(CC) $(EFI_CFLAGS) -c -o $@ $<

$(BOOT_OBJ)/kernel_blob.o: boot/kernel_blob.S $(OBJ)/stripped.elf
	@mkdir -p $(@D)
	@$(CC) -DKERNEL_ELF='"$(OBJ)/stripped.elf"' -c -o $@ $<

$(BUILD)/BOOTX64.EFI: $(BOOT_OBJ)/main.o $(BOOT_OBJ)/kernel_blob.o
	@echo '  EFI     $@'
	@$(KERNEL_LD) -nostdlib -znocombreloc -z noexecstack -shared -Bsymbolic --no-undefined \
		-T $(EFI_LIB)/elf_x86_64_efi.lds -o $(BOOT_OBJ)/boot.so $(EFI_LIB)/crt0-efi-x86_64.o $^ \
		-L$(EFI_LIB) -lefi -lgnuefi
	@$(OBJCOPY) -j .text -j .sdata -j .data -j .dynamic -j .dynsym -j .rel -j .rela -j '.rel.*' \
		-j '.rela.*' -j .reloc --target=efi-app-x86_64 $(BOOT_OBJ)/boot.so $@.new
	@test $$(stat -c %s $@.new) -le 1048576 || { echo '$@ is bigger than 1 MiB' >&2; exit 1; }
	@mv $@.new $@

-include $(shell find $(OBJ) $(BOOT_OBJ) -name '*.d' 2>/dev/null)
