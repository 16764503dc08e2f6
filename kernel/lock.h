// SPDX-License-Identifier: BSD-2-Clause
// A spin lock for the few things that cores share (page pool, log). Never on the packet path.
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

#ifdef DUNLIN_KERNEL
#include "kernel/cpu.h"
#else // unit tests on Linux
#define interrupts_enabled() false
#define interrupts_off() ((void)0)
#define interrupts_on() ((void)0)
#define cpu_pause() ((void)0)
#endif

struct lock {
    atomic_bool held;
};

// Takes the lock with interrupts off, so that an interrupt handler that logs cannot meet its own
// core's lock. Returns what unlock() needs to restore.
static inline bool lock(struct lock *l)
{
    bool enabled = interrupts_enabled();

    interrupts_off();
    while (atomic_exchange_explicit(&l->held, true, memory_order_acquire))
        while (atomic_load_explicit(&l->held, memory_order_relaxed))
            cpu_pause();
    return enabled;
}

static inline void unlock(struct lock *l, bool enabled)
{
    atomic_store_explicit(&l->held, false, memory_order_release);
    if (enabled)
        interrupts_on();
}
