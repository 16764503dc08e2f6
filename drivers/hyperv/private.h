// SPDX-License-Identifier: BSD-2-Clause
// What the files of drivers/hyperv share.
#pragma once

#include <stdbool.h>
#include <stdint.h>

// True if SINTs may acknowledge their interrupts by themselves. Constant after platform_detect().
bool hv_auto_eoi(void);

bool hv_direct_timers(void);
bool hv_reference_tsc(void);

// Points an MSR of the kind "page address and enable bit" to a page, keeping bits 11:1.
void hv_enable_page(uint32_t msr, const void *page);

// hypercall.c: the calling core's input page. Needs the page allocator.
void hypercall_init_core(void);

// synic.c
void synic_init(void);               // core 0
void synic_init_core(void);          // each core; SIMP and SIEFP
void synic_stop(void);               // the calling core
void synic_free_timer_message(void); // the calling core's, if there is one

// clock.c
void clock_init(void);      // core 0
void clock_init_core(void); // each core's timer; after synic_init_core()
void clock_stop(void);      // this core's timer, and the TSC page

// crash.c
void crash_init(bool crash_msrs);
