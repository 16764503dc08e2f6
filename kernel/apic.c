// SPDX-License-Identifier: BSD-2-Clause
// The local APIC of each core, as x2APIC where the processor has it and as xAPIC else, and the one
// I/O APIC pin that we use. Interrupts of devices come by SynIC, not by here.
#include "kernel/alloc.h"
#include "kernel/cpu.h"
#include "kernel/log.h"
#include "kernel/machine.h"
#include "kernel/paging.h"
#include "kernel/vectors.h"

#define APIC_BASE_X2APIC 0x400ull
#define APIC_BASE_ENABLE 0x800ull
#define APIC_BASE_ADDRESS 0xffffff000ull
#define X2APIC_MSR 0x800

enum apic_register { // xAPIC offsets; the x2APIC MSR is X2APIC_MSR + offset / 16
    APIC_ID = 0x20,
    APIC_TPR = 0x80,
    APIC_EOI = 0xb0,
    APIC_SPURIOUS = 0xf0,
    APIC_ICR = 0x300,
    APIC_ICR_HIGH = 0x310,
    APIC_LVT_TIMER = 0x320,
    APIC_LVT_LINT0 = 0x350,
    APIC_LVT_LINT1 = 0x360,
    APIC_LVT_ERROR = 0x370,
};
#define APIC_SOFTWARE_ENABLE 0x100
#define LVT_MASKED 0x10000
#define LVT_NMI 0x400
#define ICR_PENDING 0x1000
#define ICR_FIXED 0x4000 // level: assert, as in all of these
#define ICR_NMI 0x4400
#define ICR_INIT 0x4500
#define ICR_STARTUP 0x4600
#define ICR_ALL_OTHERS 0xc0000

#define IOAPIC_SELECT 0
#define IOAPIC_WINDOW 0x10
#define IOAPIC_REDIRECTION 0x10
#define ICR_WAIT_SPINS 1000000

static bool x2apic;
static volatile char *xapic;

static void apic_write(enum apic_register reg, uint32_t value)
{
    if (x2apic)
        wrmsr(X2APIC_MSR + reg / 16, value);
    else
        *(volatile uint32_t *)(xapic + reg) = value;
}

static uint32_t apic_read(enum apic_register reg)
{
    return x2apic ? (uint32_t)rdmsr(X2APIC_MSR + reg / 16) : *(volatile uint32_t *)(xapic + reg);
}

void apic_init(void)
{
    x2apic = cpuid(1, 0).ecx & 1u << 21;
    uint64_t base = rdmsr(MSR_APIC_BASE) & APIC_BASE_ADDRESS;
    if (!x2apic) {
        paging_map(base, PAGE_SIZE, MAP_DEVICE);
        xapic = (volatile char *)base;
    }
}

void apic_init_core(void)
{
    uint64_t base = rdmsr(MSR_APIC_BASE) | APIC_BASE_ENABLE;

    wrmsr(MSR_APIC_BASE, base);
    if (x2apic) // only reachable from the enabled xAPIC state
        wrmsr(MSR_APIC_BASE, base | APIC_BASE_X2APIC);
    apic_write(APIC_LVT_TIMER, LVT_MASKED);
    apic_write(APIC_LVT_LINT0, LVT_MASKED);
    apic_write(APIC_LVT_LINT1, LVT_NMI); // the pin of the host's NMI, on every core
    apic_write(APIC_LVT_ERROR, LVT_MASKED);
    apic_write(APIC_TPR, 0);
    apic_write(APIC_SPURIOUS, APIC_SOFTWARE_ENABLE | VECTOR_SPURIOUS);
}

uint32_t apic_id(void)
{
    return x2apic ? apic_read(APIC_ID) : apic_read(APIC_ID) >> 24;
}

void apic_end_of_interrupt(void)
{
    apic_write(APIC_EOI, 0);
}

static void send(uint32_t id, uint32_t command)
{
    if (x2apic) {
        wrmsr(X2APIC_MSR + APIC_ICR / 16, (uint64_t)id << 32 | command);
        return;
    }
    bool enabled =
        interrupts_enabled(); // a handler that sends must not come between the two writes

    interrupts_off();
    for (unsigned i = 0; i < ICR_WAIT_SPINS && apic_read(APIC_ICR) & ICR_PENDING; i++)
        cpu_pause();
    apic_write(APIC_ICR_HIGH, id << 24);
    apic_write(APIC_ICR, command);
    if (enabled)
        interrupts_on();
}

void apic_send_init(uint32_t id)
{
    send(id, ICR_INIT);
}

void apic_send_startup(uint32_t id, uint8_t page)
{
    send(id, ICR_STARTUP | page);
}

void apic_send_wake(uint32_t id)
{
    send(id, ICR_FIXED | VECTOR_WAKE);
}

void apic_send_nmi_to_others(void)
{
    if (x2apic || xapic)
        send(0, ICR_NMI | ICR_ALL_OTHERS);
}

static void ioapic_write(volatile char *ioapic, uint32_t reg, uint32_t value)
{
    *(volatile uint32_t *)(ioapic + IOAPIC_SELECT) = reg;
    *(volatile uint32_t *)(ioapic + IOAPIC_WINDOW) = value;
}

// Low half of the redirection entry: vector, polarity, trigger mode, mask.
static bool ioapic_set(unsigned isa_irq, uint32_t bits)
{
    uint64_t base;
    uint32_t pin;
    bool level, active_low;

    if (!acpi_isa_irq(isa_irq, &base, &pin, &level, &active_low) || cores[0].apic_id > 0xff)
        return false;
    paging_map(base, PAGE_SIZE, MAP_DEVICE);
    volatile char *ioapic = (volatile char *)base;
    ioapic_write(ioapic, IOAPIC_REDIRECTION + 2 * pin + 1, cores[0].apic_id << 24);
    ioapic_write(ioapic, IOAPIC_REDIRECTION + 2 * pin,
                 bits | (uint32_t)active_low << 13 | (uint32_t)level << 15);
    return true;
}

bool ioapic_route(unsigned isa_irq, uint8_t vector)
{
    return ioapic_set(isa_irq, vector);
}

void ioapic_mask(unsigned isa_irq)
{
    ioapic_set(isa_irq, LVT_MASKED);
}
