// SPDX-License-Identifier: BSD-2-Clause
// Time: Hyper-V reference time, 100 ns units since the partition started. Monotonic, the same on
// all cores. Any core, any context.
#pragma once

#include <stdint.h>

#define TIME_US 10ull
#define TIME_MS 10000ull
#define TIME_S 10000000ull

uint64_t time_now(void);
