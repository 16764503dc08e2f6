// SPDX-License-Identifier: BSD-2-Clause
// The machine's orderly ends: what runs is finished or dropped, then the host is told, then it is over.
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum power_end { POWER_OFF, POWER_RESTART };

// What is to be finished first, in this order; from a fiber of core 0.
struct power_work {
    void (*begin)(void);    // nothing new from now on
    unsigned (*left)(void); // how much is still going on
    void (*abandon)(void);  // drop it: time is over
};

// Core 0, start-up. The structure must live for ever.
void power_register(const struct power_work *work);

// Ends the machine: after what runs has finished, or at the latest after `within` (time_now() units; 0,
// or more than [system] shutdown-timeout: that), or at once if forced. Asking again changes nothing, but
// that it can be forced then. Returns; the end comes later (at once if forced). Core 0, from the loop or
// a fiber.
void power_end(enum power_end end, bool forced, uint64_t within);

// True when the end has begun. Any core.
bool power_ending(void);
