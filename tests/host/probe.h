/*
 * What the EFI programs that try the emulated host have in common: a line on COM1 for each trial,
 * faults that are expected, MSRs, hypercalls and the message page. Included once by each program.
 *
 * For one processor with interrupts off, on the firmware's identity mapping.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 */

#ifndef DUNLIN_TESTS_PROBE_H
#define DUNLIN_TESTS_PROBE_H

#include <efi.h>

#define MSR_GUEST_OS_ID 0x40000000
#define MSR_HYPERCALL 0x40000001
#define MSR_VP_INDEX 0x40000002
#define MSR_VP_RUNTIME 0x40000010
#define MSR_TIME_REF_COUNT 0x40000020
#define MSR_REFERENCE_TSC 0x40000021
#define MSR_TSC_FREQUENCY 0x40000022
#define MSR_EOI 0x40000070
#define MSR_SCONTROL 0x40000080
#define MSR_SVERSION 0x40000081
#define MSR_SIMP 0x40000083
#define MSR_EOM 0x40000084
#define MSR_SINT(n) (0x40000090 + (n))
#define MSR_STIMER_CONFIG(n) (0x400000b0 + 2 * (n))
#define MSR_STIMER_COUNT(n) (0x400000b1 + 2 * (n))
#define MSR_CRASH_P(n) (0x40000100 + (n))
#define MSR_CRASH_CTL 0x40000105

#define OS_ID 0x8100000000000001ull
#define PAGE 4096
#define MS 10000 /* of reference time */
#define TIMER_EXPIRED 0x80000010u

#define CALL_POST_MESSAGE 0x5cull
#define CALL_SIGNAL_EVENT 0x5dull
#define CALL_FAST (1ull << 16)

struct idt_entry {
    uint16_t offset_low, selector, flags, offset_mid;
    uint32_t offset_high, zero;
};

struct __attribute__((packed)) idt_pointer {
    uint16_t limit;
    uint64_t base;
};

struct message {
    uint32_t type;
    uint8_t size, flags;
    uint16_t reserved;
    uint64_t sender;
    uint64_t payload[30];
};

/* Pages whose place the guest chooses; the hypercall page needs to be executable, as all is here. */
static uint8_t pages[6][PAGE] __attribute__((aligned(PAGE)));
#define HYPERCALL_PAGE pages[0]
#define TSC_PAGE pages[1]
#define SIMP_PAGE pages[2]
#define INPUT_PAGE pages[3] /* and the next one, to cross into */
#define TEXT_PAGE pages[5]

static struct idt_entry idt[256] __attribute__((aligned(16)));
/* Where to go on after a fault that was expected, and the vector of the one that came. */
volatile uint64_t probe_resume __attribute__((visibility("hidden")));
volatile uint64_t probe_fault __attribute__((visibility("hidden")));

/* --- Output ------------------------------------------------------------- */

static inline void put_char(char c)
{
    uint8_t status;

    do {
        __asm__ volatile("inb %%dx, %0" : "=a"(status) : "d"((uint16_t)0x3fd));
    } while (!(status & 0x20));
    __asm__ volatile("outb %0, %%dx" : : "a"(c), "d"((uint16_t)0x3f8));
}

static inline void put(const char *text)
{
    while (*text) {
        put_char(*text++);
    }
}

static inline void put_hex(uint64_t value)
{
    int shift = 60;

    put("0x");
    while (shift > 0 && !(value >> shift)) {
        shift -= 4;
    }
    for (; shift >= 0; shift -= 4) {
        put_char("0123456789abcdef"[value >> shift & 15]);
    }
}

static inline void say(const char *name, const char *result)
{
    put("probe: ");
    put(name);
    put(": ");
    put(result);
    put("\r\n");
}

static inline void say_number(const char *name, uint64_t value)
{
    put("probe: ");
    put(name);
    put(": ");
    put_hex(value);
    put("\r\n");
}

static inline void say_truth(const char *name, int truth)
{
    say(name, truth ? "yes" : "no");
}

/* --- Faults ------------------------------------------------------------- */

/* #UD pushes no error code, #GP does. */
__asm__(".globl probe_ud, probe_gp\n"
        "probe_ud:\n"
        "    movq $6, probe_fault(%rip)\n"
        "    jmp 1f\n"
        "probe_gp:\n"
        "    movq $13, probe_fault(%rip)\n"
        "    addq $8, %rsp\n"
        "1:  pushq %rax\n"
        "    xorl %eax, %eax\n"
        "    xchgq probe_resume(%rip), %rax\n"
        "    testq %rax, %rax\n"
        "2:  jz 2b\n" /* nobody expected it */
        "    movq %rax, 8(%rsp)\n"
        "    popq %rax\n"
        "    iretq\n");
void probe_ud(void) __attribute__((visibility("hidden")));
void probe_gp(void) __attribute__((visibility("hidden")));

static inline void catch_fault(unsigned vector, void (*handler)(void))
{
    uint64_t address = (uint64_t)handler;
    uint16_t cs;

    __asm__ volatile("movw %%cs, %0" : "=r"(cs));
    idt[vector] = (struct idt_entry){.offset_low = address & 0xffff,
                                     .selector = cs,
                                     .flags = 0x8e00,
                                     .offset_mid = address >> 16 & 0xffff,
                                     .offset_high = address >> 32};
}

static inline void catch_faults(void)
{
    struct idt_pointer pointer;

    __asm__ volatile("cli; sidt %0" : "=m"(pointer));
    for (unsigned i = 0; i < (pointer.limit + 1u) / 16 && i < 256; i++) {
        idt[i] = ((struct idt_entry *)pointer.base)[i];
    }
    catch_fault(6, probe_ud);
    catch_fault(13, probe_gp);
    pointer = (struct idt_pointer){sizeof(idt) - 1, (uint64_t)idt};
    __asm__ volatile("lidt %0" : : "m"(pointer));
}

static inline void say_fault(const char *name)
{
    say(name, probe_fault == 13 ? "#GP" : probe_fault == 6 ? "#UD" : "done");
}

/* --- The hypervisor's interfaces ---------------------------------------- */

/* Sets probe_fault. */
static inline void write_msr(uint32_t msr, uint64_t value)
{
    probe_fault = 0;
    __asm__ volatile("leaq 1f(%%rip), %%r8\n"
                     "movq %%r8, probe_resume(%%rip)\n"
                     "wrmsr\n"
                     "1:"
                     :
                     : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
                     : "r8", "memory");
}

static inline uint64_t read_msr(uint32_t msr)
{
    uint32_t low = 0, high = 0;

    probe_fault = 0;
    __asm__ volatile("leaq 1f(%%rip), %%r8\n"
                     "movq %%r8, probe_resume(%%rip)\n"
                     "rdmsr\n"
                     "1:"
                     : "+a"(low), "+d"(high)
                     : "c"(msr)
                     : "r8", "memory");
    return (uint64_t)high << 32 | low;
}

static inline void try_write(const char *name, uint32_t msr, uint64_t value)
{
    write_msr(msr, value);
    say_fault(name);
}

static inline void try_read(const char *name, uint32_t msr)
{
    read_msr(msr);
    say_fault(name);
}

static inline uint64_t hypercall(uint64_t control, uint64_t input)
{
    register uint64_t output __asm__("r8") = 0;
    uint64_t result;

    probe_fault = 0;
    __asm__ volatile("leaq 1f(%%rip), %%r9\n"
                     "movq %%r9, probe_resume(%%rip)\n"
                     "call *%[page]\n"
                     "1:"
                     : "=a"(result), "+c"(control), "+d"(input), "+r"(output)
                     : [page] "r"(HYPERCALL_PAGE)
                     : "r9", "r10", "r11", "memory", "cc");
    return result;
}

static inline uint64_t page_msr(const void *page)
{
    return (uint64_t)page | 1;
}

static inline uint64_t now(void)
{
    return read_msr(MSR_TIME_REF_COUNT);
}

static inline void wait_until(uint64_t time)
{
    while (now() < time) {
        __asm__ volatile("pause");
    }
}

/* PostMessage with @size bytes on connection @connection. */
static inline uint64_t post(uint64_t input, uint32_t connection, uint32_t size)
{
    uint32_t *words = (uint32_t *)input;

    words[0] = connection;
    words[1] = 0;
    words[2] = 1;
    words[3] = size;
    return hypercall(CALL_POST_MESSAGE, input);
}

/* The message slot of @sint. */
static inline struct message *slot(unsigned sint)
{
    return (struct message *)SIMP_PAGE + sint;
}

/* Gives the slot back to the host. */
static inline void consume(unsigned sint)
{
    *(volatile uint32_t *)&slot(sint)->type = 0;
    __sync_synchronize();
    if (*(volatile uint8_t *)&slot(sint)->flags & 1) {
        write_msr(MSR_EOM, 0);
    }
}

#endif
