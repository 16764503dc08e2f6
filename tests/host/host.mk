# SPDX-License-Identifier: BSD-2-Clause
# Builds build/test/NAME.efi from tests/host/NAME.c, the EFI programs of the tests in this folder, which
# enter it.

EFI_LIB ?= /usr/lib
PROBE_CFLAGS = -std=gnu11 -O2 -ffreestanding -fpic -fshort-wchar -mno-red-zone -fno-stack-protector \
	-fno-strict-aliasing -mgeneral-regs-only -DGNU_EFI_USE_MS_ABI -isystem /usr/include/efi \
	-isystem /usr/include/efi/x86_64 -Wall -Wextra -Werror

.PHONY: all
all: build/test/probe.efi build/test/vmbus_probe.efi build/test/ic_probe.efi

build/test/%.efi: tests/host/%.c tests/host/probe.h tests/host/probe_vmbus.h tests/host/host.mk
	@mkdir -p $(@D)
	@$(CC) $(PROBE_CFLAGS) -c -o build/test/$*.o $<
	@ld.bfd -nostdlib -znocombreloc -z noexecstack -shared -Bsymbolic --no-undefined \
		-T $(EFI_LIB)/elf_x86_64_efi.lds -o build/test/$*.so $(EFI_LIB)/crt0-efi-x86_64.o \
		build/test/$*.o -L$(EFI_LIB) -lefi -lgnuefi
	@objcopy -j .text -j .sdata -j .data -j .dynamic -j .dynsym -j .rel -j .rela -j '.rel.*' \
		-j '.rela.*' -j .reloc --target=efi-app-x86_64 build/test/$*.so $@.new
	@mv $@.new $@
