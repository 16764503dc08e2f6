// SPDX-License-Identifier: BSD-2-Clause
// Where the kernel begins, where other cores begin, where traps arrive, and the fiber switch.

    .section .text.entry, "ax"
// From the boot program: rdi = boot_info, interrupts off, RAM mapped at its own address.
    .globl kernel_entry
kernel_entry:
    lea boot_stack_top(%rip), %rsp
    xor %ebp, %ebp
    push %rbp
    jmp kernel_main

    .text
// Every trap ends up here with vector and error code (or 0) pushed; see struct trap_frame.
trap_common:
    cld
    push %rax
    push %rbx
    push %rcx
    push %rdx
    push %rsi
    push %rdi
    push %rbp
    push %r8
    push %r9
    push %r10
    push %r11
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, %rdi
    call trap_dispatch
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rbp
    pop %rdi
    pop %rsi
    pop %rdx
    pop %rcx
    pop %rbx
    pop %rax
    add $16, %rsp
    iretq

// One stub for each vector, 16 bytes apart.
    .balign 16
    .globl trap_stubs
trap_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || \
          vector == 29 || vector == 30)
    push $0
    .endif
    push $vector
    jmp trap_common
    .set vector, vector + 1
    .endr

// void fiber_switch(uint64_t *save, uint64_t load): leaves the current stack, enters another.
    .globl fiber_switch
fiber_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret

// A new fiber's first return address: r12 = fn, r13 = arg, r14 = where to go when fn returns.
    .globl fiber_begin
fiber_begin:
    xor %ebp, %ebp
    mov %r13, %rdi
    call *%r12
    call *%r14
    ud2

// Copied to a page below 1 MiB, where a started core begins in real mode at offset 0. The fields at
// the end are filled in by kernel/core.c. Uses no stack before the kernel's own.
    .section .rodata.trampoline, "a"
    .globl trampoline, trampoline_end, trampoline_fields
    .code16
trampoline:
    cli
    cld
    mov %cs, %ax
    mov %ax, %ds
    movl $0, %ebx
    mov %cs, %bx
    shl $4, %ebx                                // where this page is
    lea (trampoline_gdt - trampoline)(%ebx), %eax
    mov %eax, (trampoline_gdtr - trampoline + 2)
    lea (trampoline_long - trampoline)(%ebx), %eax
    mov %eax, (trampoline_far - trampoline)
    lgdtl (trampoline_gdtr - trampoline)
    mov $0x20, %eax                             // PAE
    mov %eax, %cr4
    mov (trampoline_fields - trampoline), %eax  // first page table, below 4 GiB
    mov %eax, %cr3
    mov $0xc0000080, %ecx
    rdmsr
    or $0x900, %eax                             // long mode, NX
    wrmsr
    mov $0x80010001, %eax                       // paging, write protection, protection
    mov %eax, %cr0
    ljmpl *(trampoline_far - trampoline)
    .code64
trampoline_long:
    lea trampoline_fields(%rip), %rsi
    xor %eax, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov %eax, %fs
    mov %eax, %gs
    mov 8(%rsi), %rax                           // the core's own page table
    mov 16(%rsi), %rsp
    mov 24(%rsi), %rdx
    xor %ebp, %ebp
    mov %rax, %cr3
    push %rbp
    jmp *%rdx
    .balign 8
trampoline_gdt:
    .quad 0
    .quad 0x00af9a000000ffff                    // 64 bit code
trampoline_gdtr:
    .word 15
    .long 0
trampoline_far:
    .long 0
    .word 8
    .balign 8
trampoline_fields:
    .quad 0, 0, 0, 0
trampoline_end:

    .section .rodata.font, "a"
    .globl font_file, font_file_end
font_file:
    .incbin FONT_FILE
font_file_end:

    .section .note.GNU-stack, "", @progbits
