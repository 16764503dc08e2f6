// SPDX-License-Identifier: BSD-2-Clause
// Tells the host that the guest crashed (TLFS 2.4 guest crash enlightenment): the host writes it to
// its event log. Called once, by panic.
#include <string.h>

#include "drivers/hyperv/hyperv_regs.h"
#include "drivers/hyperv/private.h"
#include "kernel/alloc.h"
#include "kernel/cpu.h"
#include "kernel/platform.h"

static bool available;
static char *text_page; // set aside at start-up: panic allocates nothing

void crash_init(bool crash_msrs)
{
    available = crash_msrs;
    text_page = page_alloc(1);
}

void platform_crash(const uint64_t numbers[5], const char *text, size_t length)
{
    uint64_t control = HV_CRASH_NOTIFY;

    if (!available)
        return;
    for (unsigned i = 0; i < 5; i++)
        wrmsr(HV_MSR_CRASH_P0 + i, i == 1 ? HV_GUEST_OS_ID : numbers[i]); // P1 by the TLFS
    if (text_page && length && (rdmsr(HV_MSR_CRASH_CTL) & HV_CRASH_MESSAGE)) {
        if (length > PAGE_SIZE)
            length = PAGE_SIZE;
        memcpy(text_page, text, length);
        wrmsr(HV_MSR_CRASH_P0 + 3, virt_to_phys(text_page));
        wrmsr(HV_MSR_CRASH_P0 + 4, length);
        control |= HV_CRASH_MESSAGE;
    }
    wrmsr(HV_MSR_CRASH_CTL, control);
}
