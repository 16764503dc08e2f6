// SPDX-License-Identifier: BSD-2-Clause
// Is this Hyper-V, and the order in which its parts are switched on (kernel/platform.h).
#include "kernel/platform.h"

#include "drivers/hyperv/hyperv_regs.h"
#include "drivers/hyperv/private.h"
#include "kernel/alloc.h"
#include "kernel/cpu.h"

static bool running;
static uint32_t may, features, hints; // the CPUID words of the same names

bool hv_auto_eoi(void)
{
    return !(hints & HV_HINT_NO_AUTO_EOI);
}

bool hv_direct_timers(void)
{
    return features & HV_FEATURE_DIRECT_TIMERS;
}

bool hv_reference_tsc(void)
{
    return may & HV_MAY_REFERENCE_TSC;
}

static const char *missing_privilege(void)
{
    if (!(may & HV_MAY_HYPERCALL))
        return "the hypervisor offers no hypercalls";
    if (!(may & HV_MAY_SYNIC))
        return "the hypervisor offers no SynIC";
    if (!(may & HV_MAY_SYNTHETIC_TIMERS))
        return "the hypervisor offers no synthetic timers";
    if (!(may & HV_MAY_TIME_REF_COUNT))
        return "the hypervisor offers no reference time";
    if (!(may & HV_MAY_VP_INDEX))
        return "the hypervisor offers no VP index";
    return NULL;
}

const char *platform_detect(void)
{
    if (!(cpuid(1, 0).ecx & 1u << 31))
        return "no hypervisor is present";
    struct cpuid_result vendor = cpuid(HV_CPUID_VENDOR, 0);
    if (vendor.ebx != 0x7263694d || vendor.ecx != 0x666f736f || vendor.edx != 0x76482074)
        return "the hypervisor is not Microsoft's"; // "Micr" "osof" "t Hv"
    if (vendor.eax < HV_CPUID_LEAST_LEAF || cpuid(HV_CPUID_INTERFACE, 0).eax != HV_INTERFACE_HV1)
        return "the hypervisor lacks the Hv#1 interface";
    struct cpuid_result f = cpuid(HV_CPUID_FEATURES, 0);
    may = f.eax;
    features = f.edx;
    hints = cpuid(HV_CPUID_HINTS, 0).eax;
    return missing_privilege();
}

void hv_enable_page(uint32_t msr, const void *page)
{
    wrmsr(msr, virt_to_phys(page) | (rdmsr(msr) & HV_PAGE_KEEP) | HV_ENABLE);
}

void platform_init(void)
{
    wrmsr(HV_MSR_GUEST_OS_ID, HV_GUEST_OS_ID); // before the hypercall page, else that stays off
    clock_init();
    synic_init();
    crash_init(features & HV_FEATURE_CRASH_MSRS);
    running = true;
}

bool platform_running(void)
{
    return running;
}

void platform_init_core(void)
{
    hypercall_init_core();
    synic_init_core();
    clock_init_core();
}

uint32_t platform_vp_index(void)
{
    return (uint32_t)rdmsr(HV_MSR_VP_INDEX);
}

void platform_stop(void)
{
    synic_stop();
    clock_stop();
    wrmsr(HV_MSR_HYPERCALL, rdmsr(HV_MSR_HYPERCALL) & ~HV_ENABLE);
    wrmsr(HV_MSR_GUEST_OS_ID, 0);
}

void platform_reset(void)
{
    if (may & HV_MAY_RESET)
        wrmsr(HV_MSR_RESET, 1);
}
