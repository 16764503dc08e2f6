// SPDX-License-Identifier: BSD-2-Clause
// Cores and the per-core window.
// Each core runs the same loop over its own things. A variable marked PERCORE, and all of lwIP's
// writable data, lives in the window: one virtual range that every core maps to its own pages.
// A pointer into the window must never reach another core or the host.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define MAX_CORES 64

#ifdef DUNLIN_KERNEL
#define PERCORE __attribute__((section(".percore")))
#elif !defined(PERCORE) // unit tests on Linux that need more than one core define it
#define PERCORE
#endif

// How many cores run, 1..MAX_CORES. Constant once cores_start() has returned.
unsigned core_count(void);

// This core's number, 0..core_count()-1. Core 0 booted the machine and runs the control plane.
unsigned core_id(void);

// Hyper-V's VP index of a core (never assume that it equals the core's number or APIC id).
uint32_t core_vp_index(unsigned core);

// For how long all cores together have worked so far, in time_now() units: what a core spends halted, or
// looking for work before it halts, does not count. Any core.
uint64_t core_busy_time(void);

// True if any byte of [p, p+len) lies in the per-core window. Used by asserts.
bool core_in_window(const void *p, uint64_t len);

// Where a core's own copy of a PERCORE variable lies, for reading its counters while it runs: every
// read may be of another moment. Never to be written, nor kept beyond the statement that needs it.
const void *core_peek(unsigned core, const void *p);
