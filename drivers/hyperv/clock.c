// SPDX-License-Identifier: BSD-2-Clause
// Time (TLFS 12): reference time from the TSC page, or by MSR where the host gives no page, and one
// one-shot synthetic timer per core.
#include <stdatomic.h>

#include "drivers/hyperv/hyperv_regs.h"
#include "drivers/hyperv/private.h"
#include "kernel/alloc.h"
#include "kernel/core.h"
#include "kernel/cpu.h"
#include "kernel/panic.h"
#include "kernel/platform.h"
#include "kernel/time.h"
#include "kernel/vectors.h"

#define TSC_PAGE_TRIES 100 // the host changes it once in a migration; more is not a working page

static bool running;
static const volatile struct hv_reference_tsc_page *tsc_page; // NULL: only the MSR
static PERCORE uint64_t armed; // deadline of the timer as the host has it; UINT64_MAX: none

// True and *out if the page is valid and did not change while it was read.
static bool read_tsc_page(uint64_t *out)
{
    for (unsigned i = 0; i < TSC_PAGE_TRIES; i++) {
        uint32_t sequence = tsc_page->sequence;
        if (sequence == 0)
            return false;
        atomic_thread_fence(memory_order_acquire);
        uint64_t scale = tsc_page->scale;
        int64_t offset = tsc_page->offset;
        uint64_t tsc = rdtsc_ordered();
        atomic_thread_fence(memory_order_acquire);
        if (tsc_page->sequence == sequence) {
            if (scale == 0)
                return false; // time would stand still, and every time-out with it
            *out = (uint64_t)(((unsigned __int128)tsc * scale) >> 64) + (uint64_t)offset;
            return true;
        }
    }
    return false;
}

uint64_t time_now(void)
{
    uint64_t now;

    if (tsc_page && read_tsc_page(&now))
        return now;
    return running ? rdmsr(HV_MSR_TIME_REF_COUNT) : 0; // 0: before Hyper-V was found
}

void clock_init(void)
{
    if (hv_reference_tsc()) {
        void *page = page_alloc(1);
        if (!page)
            panic("hyperv: no memory for the reference TSC page");
        hv_enable_page(HV_MSR_REFERENCE_TSC, page);
        tsc_page = page;
    }
    running = true;
}

static void timer_fired(void)
{
    armed = UINT64_MAX;
    if (!hv_direct_timers())
        synic_free_timer_message();
}

void clock_init_core(void)
{
    uint64_t config = HV_TIMER_AUTO_ENABLE;

    if (core_id() == 0)
        irq_set(VECTOR_TIMER, timer_fired, hv_direct_timers() || !hv_auto_eoi());
    armed = UINT64_MAX;
    synic_free_timer_message();     // the firmware's, else ours would wait behind it for ever
    wrmsr(HV_MSR_STIMER0_COUNT, 0); // the configuration may only change while it is off
    if (hv_direct_timers()) {
        config |= HV_TIMER_DIRECT | (uint64_t)VECTOR_TIMER << HV_TIMER_VECTOR_SHIFT;
    } else {
        config |= (uint64_t)HV_SINT_TIMER << HV_TIMER_SINT_SHIFT;
        wrmsr(HV_MSR_SINT0 + HV_SINT_TIMER, VECTOR_TIMER | (hv_auto_eoi() ? HV_SINT_AUTO_EOI : 0));
    }
    wrmsr(HV_MSR_STIMER0_CONFIG, config);
}

void timer_arm(uint64_t deadline)
{
    // An earlier interrupt does no harm: it costs less than a write to the MSR at every halt.
    if (deadline >= armed)
        return;
    armed = deadline;
    wrmsr(HV_MSR_STIMER0_COUNT, deadline ? deadline : 1); // 0 would stop it
}

void clock_stop(void)
{
    wrmsr(HV_MSR_STIMER0_COUNT, 0);
    armed = UINT64_MAX;
    if (tsc_page) {
        wrmsr(HV_MSR_REFERENCE_TSC, rdmsr(HV_MSR_REFERENCE_TSC) & ~HV_ENABLE);
        tsc_page = NULL; // from now on by MSR
    }
}
