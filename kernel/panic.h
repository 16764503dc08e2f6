// SPDX-License-Identifier: BSD-2-Clause
// The end: report and stop. Any core, any context.
#pragma once

// Stops all cores, reports registers, backtrace and the text on every console and by the crash
// MSRs, unloads VMBus, then halts or restarts as configured.
_Noreturn void panic(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define ASSERT(cond)                                                                               \
    do {                                                                                           \
        if (!(cond))                                                                               \
            panic("%s:%d: assertion failed: %s", __FILE__, __LINE__, #cond);                       \
    } while (0)
