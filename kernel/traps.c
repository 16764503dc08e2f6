// SPDX-License-Identifier: BSD-2-Clause
// GDT, TSS and IDT, and what happens on a trap: exceptions are the end, interrupts run their
// handler.
#include "kernel/vectors.h"

#include "kernel/alloc.h"
#include "kernel/cpu.h"
#include "kernel/machine.h"
#include "kernel/panic.h"

#define SELECTOR_CODE 0x08
#define SELECTOR_DATA 0x10
#define SELECTOR_TSS 0x18
#define TRAP_STACK_BYTES 16384
#define STUB_BYTES 16
#define IDT_INTERRUPT_GATE 0x8e

struct idt_entry {
    uint16_t offset_low, selector;
    uint8_t ist, type;
    uint16_t offset_middle;
    uint32_t offset_high, reserved;
};

struct tss {
    uint32_t reserved0;
    uint32_t rsp[6]; // unaligned u64 in the architecture; unused, we never leave ring 0
    uint32_t reserved1[2];
    uint32_t ist[14]; // seven u64, low half first
    uint32_t reserved2[2];
    uint16_t reserved3, io_map;
};
_Static_assert(sizeof(struct tss) == 104, "layout of the processor");

struct __attribute__((packed)) table_register {
    uint16_t limit;
    uint64_t base;
};

enum { IST_NMI = 1, IST_DOUBLE_FAULT, IST_MACHINE_CHECK, IST_PAGE_FAULT };

extern const char trap_stubs[];
static struct idt_entry idt[256];
static struct {
    void (*fn)(void);
    bool end_of_interrupt;
} handlers[256];
static PERCORE uint64_t gdt[5];
static PERCORE struct tss tss;

static unsigned ist_of(unsigned vector)
{
    switch (vector) {
    case VECTOR_NMI:
        return IST_NMI;
    case VECTOR_DOUBLE_FAULT:
        return IST_DOUBLE_FAULT;
    case VECTOR_MACHINE_CHECK:
        return IST_MACHINE_CHECK;
    case VECTOR_PAGE_FAULT:
        return IST_PAGE_FAULT; // a stack overflow arrives as one
    default:
        return 0;
    }
}

void traps_init(void)
{
    for (unsigned i = 0; i < 256; i++) {
        uint64_t stub = (uint64_t)(trap_stubs + i * STUB_BYTES);
        idt[i] = (struct idt_entry){
            .offset_low = (uint16_t)stub,
            .selector = SELECTOR_CODE,
            .ist = (uint8_t)ist_of(i),
            .type = IDT_INTERRUPT_GATE,
            .offset_middle = (uint16_t)(stub >> 16),
            .offset_high = (uint32_t)(stub >> 32),
        };
    }
}

static void load_segments(void)
{
    struct table_register gdtr = {sizeof(gdt) - 1, (uint64_t)gdt};
    struct table_register idtr = {sizeof(idt) - 1, (uint64_t)idt};

    __asm__ volatile(
        "lgdt %0\n\t"
        "pushq %2\n\t"
        "leaq 1f(%%rip), %%rax\n\t"
        "pushq %%rax\n\t"
        "lretq\n"
        "1:\n\t"
        "mov %3, %%ds\n\tmov %3, %%es\n\tmov %3, %%ss\n\tmov %3, %%fs\n\tmov %3, %%gs\n\t"
        "ltr %4\n\t"
        "lidt %1"
        :
        : "m"(gdtr), "m"(idtr), "i"(SELECTOR_CODE), "r"(SELECTOR_DATA), "r"((uint16_t)SELECTOR_TSS)
        : "rax", "memory");
}

void traps_init_core(void)
{
    uint64_t base = (uint64_t)&tss;

    for (unsigned i = IST_NMI; i <= IST_PAGE_FAULT; i++) {
        char *stack = stack_new(TRAP_STACK_BYTES);
        if (!stack)
            panic("traps: no memory for stacks");
        uint64_t top = (uint64_t)stack + TRAP_STACK_BYTES;
        tss.ist[2 * (i - 1)] = (uint32_t)top;
        tss.ist[2 * (i - 1) + 1] = (uint32_t)(top >> 32);
    }
    tss.io_map = sizeof(tss);
    gdt[SELECTOR_CODE / 8] = 0x00af9b000000ffff;
    gdt[SELECTOR_DATA / 8] = 0x00cf93000000ffff;
    gdt[SELECTOR_TSS / 8] =
        (sizeof(tss) - 1) | (base & 0xffffff) << 16 | 0x89ull << 40 | (base >> 24 & 0xff) << 56;
    gdt[SELECTOR_TSS / 8 + 1] = base >> 32;
    load_segments();
}

void irq_set(enum vector vector, void (*fn)(void), bool end_of_interrupt)
{
    ASSERT(vector >= VECTOR_EXCEPTIONS && vector < VECTOR_SPURIOUS);
    ASSERT(!handlers[vector].fn);
    handlers[vector].end_of_interrupt = end_of_interrupt;
    handlers[vector].fn = fn;
}

void trap_dispatch(const struct trap_frame *frame); // called by entry.S

void trap_dispatch(const struct trap_frame *frame)
{
    if (frame->vector == VECTOR_NMI) {
        panic_nmi(frame);
    } else if (frame->vector < VECTOR_EXCEPTIONS) {
        panic_trap(frame);
    } else if (frame->vector == VECTOR_SPURIOUS) {
        return;
    } else if (handlers[frame->vector].fn) {
        handlers[frame->vector].fn();
        if (handlers[frame->vector].end_of_interrupt)
            apic_end_of_interrupt();
    } else {
        apic_end_of_interrupt(); // a stray one, left over from the firmware
    }
}
