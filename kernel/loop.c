// SPDX-License-Identifier: BSD-2-Clause
// Each core's loop; see loop.h.
#include "kernel/loop.h"

#include "kernel/core.h"
#include "kernel/cpu.h"
#include "kernel/machine.h"
#include "kernel/platform.h"
#include "kernel/time.h"

static PERCORE struct poller *pollers;

void loop_add(struct poller *p)
{
    struct poller **end = &pollers;

    while (*end)
        end = &(*end)->next;
    p->next = NULL;
    *end = p;
}

static bool poll_all(void)
{
    bool worked = false;

    for (struct poller *p = pollers; p; p = p->next)
        worked |= p->poll(p->ctx);
    worked |= fibers_run();
    return worked;
}

static bool arm_all(void)
{
    bool work = false;

    for (struct poller *p = pollers; p; p = p->next)
        if (p->arm)
            work |= p->arm(p->ctx);
    return work;
}

static uint64_t first_deadline(void)
{
    uint64_t first = fibers_deadline();

    for (struct poller *p = pollers; p; p = p->next) {
        uint64_t due = p->deadline ? p->deadline(p->ctx) : UINT64_MAX;
        first = due < first ? due : first;
    }
    return first;
}

// Sleeps until an interrupt unless there is work after all. Interrupts are off from before the last
// look until the halt itself, so none can come unnoticed in between.
static void halt_if_idle(struct core *self)
{
    interrupts_off();
    uint64_t due = arm_all() ? 0 : first_deadline();
    if (due > time_now()) {
        timer_arm(due);
        self->halts++;
        interrupts_on_and_halt();
    }
    interrupts_on();
    messages_awake();
}

_Noreturn void loop_run(void)
{
    struct core *self = &cores[core_id()];

    interrupts_on();
    for (;;) {
        self->turns++;
        if (!poll_all())
            halt_if_idle(self);
    }
}
