// SPDX-License-Identifier: BSD-2-Clause
// The loop that every core runs for ever: poll everything, run fibers, halt when there is nothing.
#pragma once

#include <stdbool.h>
#include <stdint.h>

// A source of work on one core. Embedded in its owner; never freed.
struct poller {
    const char *name;
    // Does a bounded batch of work; true if it did any (the loop will then come round again).
    bool (*poll)(void *ctx);
    // While the core waits with interrupts on: whether there may be work. Cheap, changes nothing. NULL:
    // poll() and arm() are enough, since what comes can wait until it halts.
    bool (*look)(void *ctx);
    // Before halting: ask for interrupts again and look once more. True if there is work after all.
    // May be NULL. Called with interrupts disabled.
    bool (*arm)(void *ctx);
    // When the next timed work is due, in time_now() units; UINT64_MAX for none. May be NULL.
    uint64_t (*deadline)(void *ctx);
    void *ctx;
    struct poller *next;
};

// Adds to the loop of the calling core, for good. Pollers run in the order they were added.
void loop_add(struct poller *p);

// Runs the calling core's loop. Does not return.
_Noreturn void loop_run(void);
