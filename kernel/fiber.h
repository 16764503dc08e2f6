// SPDX-License-Identifier: BSD-2-Clause
// Cooperative fibers: straight-line code for sequences that wait for the host.
// A fiber belongs to the core that spawned it and runs from that core's loop until it waits.
// Events are for one core too: whoever sets one runs on the same core (never in an interrupt).
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define WAIT_FOREVER UINT64_MAX

struct fiber;

struct event { // zero-initialised = not set
    bool set;
    struct fiber *waiter; // at most one
};

// Starts fn(arg) on the calling core at its next turn of the loop. The stack is 16 KiB with a guard
// page and is freed when fn returns. Returns 0, or -ENOMEM. name must outlive the fiber.
int fiber_spawn(const char *name, void (*fn)(void *arg), void *arg);

// Waits until the event is set or the time is over, and clears it. `timeout` is a duration in
// time_now() units. Only from a fiber. Returns 0, or -ETIMEDOUT.
int event_wait(struct event *e, uint64_t timeout);

// Sets the event and readies its waiter. From the loop or a fiber of the same core.
void event_set(struct event *e);

// Lets the loop run for at least `duration` (0: one turn). Only from a fiber.
void fiber_sleep(uint64_t duration);
