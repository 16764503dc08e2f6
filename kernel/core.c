// SPDX-License-Identifier: BSD-2-Clause
// Cores: who I am, and starting all of them (INIT, SIPI, the trampoline of entry.S).
#include "kernel/core.h"

#include <string.h>

#include "boot/boot_info.h"
#include "drivers/vmbus/vmbus.h"
#include "kernel/alloc.h"
#include "kernel/cpu.h"
#include "kernel/image.h"
#include "kernel/log.h"
#include "kernel/loop.h"
#include "kernel/machine.h"
#include "kernel/paging.h"
#include "kernel/panic.h"
#include "kernel/platform.h"
#include "kernel/time.h"
#include "kernel/vectors.h"

#define CORE_STACK_BYTES 32768
#define LOW_MEMORY_END 0x9f000ull // conventional memory; above may be firmware data
#define INIT_DELAY (10 * TIME_MS)
#define STARTUP_DELAY TIME_MS
#define START_TIMEOUT (5 * TIME_S) // a vCPU of a busy host may be late

extern const char trampoline[], trampoline_end[], trampoline_fields[];

struct trampoline_fields { // see entry.S
    uint64_t first_table, table, stack, entry;
};

struct core cores[MAX_CORES];
static unsigned count = 1;
static volatile unsigned starting; // the number that the next core to arrive takes
static PERCORE unsigned this_core;

unsigned core_count(void)
{
    return count;
}

unsigned core_id(void)
{
    return this_core;
}

uint32_t core_vp_index(unsigned core)
{
    ASSERT(core < count);
    return cores[core].vp_index;
}

bool core_in_window(const void *p, uint64_t len)
{
    uint64_t from = (uint64_t)p, window = (uint64_t)percore_start, end = (uint64_t)percore_end;

    return from < end && (from >= window || len > window - from);
}

void core_describe(void)
{
    cores[this_core].apic_id = apic_id();
    cores[this_core].vp_index = platform_vp_index();
    cores[this_core].started = time_now();
    cores[this_core].running = true;
}

// A started core arrives here on its own stack and page table, interrupts off.
static _Noreturn void core_main(void)
{
    ASSERT(this_core == 0 && core_in_window(&this_core, sizeof(this_core))); // my own window, fresh
    this_core = starting;
    paging_init_core();
    traps_init_core();
    apic_init_core();
    random_init_core();
    platform_init_core();
    vmbus_start_core();
    messages_start_core();
    core_describe();
    loop_run();
}

// Two free pages below 1 MiB: the trampoline and its page table (real mode reaches no further, and
// a core leaving it can load only 32 bits of page table address). 0: there are none.
static uint64_t find_low_pages(const struct boot_info *info)
{
    for (uint32_t i = 0; i < info->range_count; i++) {
        const struct boot_memory_range *range = &info->ranges[i];
        uint64_t base = range->base < PAGE_SIZE ? PAGE_SIZE : range->base;
        uint64_t end = range->base + range->pages * PAGE_SIZE;
        if (end > LOW_MEMORY_END)
            end = LOW_MEMORY_END;
        bool free = range->type == BOOT_MEMORY_FREE || range->type == BOOT_MEMORY_FIRMWARE;
        if (free && base < end && end - base >= 2 * PAGE_SIZE)
            return base;
    }
    return 0;
}

static void wait_for(uint64_t duration, volatile bool *flag)
{
    uint64_t end = time_now() + duration;

    while (time_now() < end && !(flag && *flag))
        cpu_pause();
}

// Starts the core with this APIC id as number `count`. False if it did not arrive; its stack and
// tables then stay with it, as it may still wake up late.
static bool core_start(uint32_t id, uint64_t low)
{
    struct trampoline_fields *fields =
        (struct trampoline_fields *)(low + (uint64_t)trampoline_fields - (uint64_t)trampoline);
    uint64_t table = paging_new_core();
    char *stack = stack_new(CORE_STACK_BYTES);

    if (table == 0 || !stack) {
        log_warn("cores: no memory for another core");
        return false;
    }
    memcpy((void *)(low + PAGE_SIZE), (const void *)table, PAGE_SIZE);
    paging_protect(low, MAP_RAM);
    *fields = (struct trampoline_fields){.first_table = low + PAGE_SIZE,
                                         .table = table,
                                         .stack = (uint64_t)stack + CORE_STACK_BYTES,
                                         .entry = (uint64_t)core_main};
    paging_protect(low, MAP_CODE);
    starting = count;
    apic_send_init(id);
    wait_for(INIT_DELAY, NULL);
    apic_send_startup(id, (uint8_t)(low / PAGE_SIZE));
    wait_for(STARTUP_DELAY, &cores[count].running);
    if (!cores[count].running)
        apic_send_startup(id, (uint8_t)(low / PAGE_SIZE));
    wait_for(START_TIMEOUT, &cores[count].running);
    if (!cores[count].running) {
        apic_send_init(id); // so that it cannot arrive during another one's turn
        return false;
    }
    count++;
    return true;
}

static void on_wake(void)
{
    // That it ended a halt is all.
}

void cores_start(const struct boot_info *info)
{
    const struct acpi_cpu *cpus;
    unsigned total = acpi_cpus(&cpus);
    uint64_t low = find_low_pages(info);

    irq_set(VECTOR_WAKE, on_wake, true);
    messages_start_core();
    if (total > 1 && low == 0)
        log_error("cores: no free memory below 1 MiB, using one core of %u", total);
    if (total > 1 && low != 0) {
        memcpy((void *)low, trampoline, (uint64_t)trampoline_end - (uint64_t)trampoline);
        for (unsigned i = 0; i < total && count < MAX_CORES; i++)
            if (cpus[i].apic_id != cores[0].apic_id && !core_start(cpus[i].apic_id, low))
                log_error("cores: APIC id %u does not start", cpus[i].apic_id);
        paging_protect(low, MAP_RAM);
    }
    if (total > MAX_CORES)
        log_warn("cores: using %u of %u", count, total);
    messages_start();
    log_info("cores: %u running", count);
}
