// SPDX-License-Identifier: BSD-2-Clause
// What the kernel needs of the hypervisor besides time_now(). Implemented in drivers/hyperv/.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// NULL if this is Hyper-V with all that we need, else what is wrong, for people. Changes nothing.
const char *platform_detect(void);

// Hypercall page, clock, interrupt vectors. Core 0, once, after platform_detect() said yes.
void platform_init(void);

// True once platform_init() is done.
bool platform_running(void);

// SynIC and timer of the calling core. Interrupts are off.
void platform_init_core(void);

// The calling core's VP index.
uint32_t platform_vp_index(void);

// One interrupt (VECTOR_TIMER) on this core at `deadline` (time_now() units) or later; earlier ones
// may come too. UINT64_MAX: none needed. Called with interrupts off.
void timer_arm(uint64_t deadline);

// Tells the host that the guest crashed: five numbers, and a text if the host takes it. Any
// context.
void platform_crash(const uint64_t numbers[5], const char *text, size_t length);

// What a core that panic stopped must do for the one that talks to the host; called again and
// again.
void platform_serve_while_stopped(void);

// Takes back everything that platform_init() and platform_init_core() set up on this core, so that
// the host's pages are out of the memory that the next system will use. No hypercalls from now on.
void platform_stop(void);

// Restarts the machine if the hypervisor has a way; returns if not.
void platform_reset(void);
