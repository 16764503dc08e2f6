// SPDX-License-Identifier: BSD-2-Clause
// The kernel's ELF file, inside the UEFI program. KERNEL_ELF is given by kernel.mk.
    .section .rodata.kernel, "a"
    .balign 16
    .globl kernel_elf, kernel_elf_end
kernel_elf:
    .incbin KERNEL_ELF
kernel_elf_end:
    .section .note.GNU-stack, "", @progbits
