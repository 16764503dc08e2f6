// SPDX-License-Identifier: BSD-2-Clause
// Each core's loop; see loop.h.
#include "kernel/loop.h"

#include "kernel/core.h"
#include "kernel/cpu.h"
#include "kernel/machine.h"
#include "kernel/platform.h"
#include "kernel/time.h"

static PERCORE struct poller *pollers;
static PERCORE struct poller *cursor; // what the walk below visits next

void loop_add(struct poller *p)
{
    struct poller **end = &pollers;

    while (*end)
        end = &(*end)->next;
    p->next = NULL;
    *end = p;
}

void loop_remove(struct poller *p)
{
    for (struct poller **at = &pollers; *at; at = &(*at)->next) {
        if (*at != p)
            continue;
        *at = p->next;
        if (cursor == p)
            cursor = p->next;
        return;
    }
}

static bool poll_all(void)
{
    bool worked = false;

    for (struct poller *p = pollers; p; p = cursor) {
        cursor = p->next;
        worked |= p->poll(p->ctx);
    }
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
        __atomic_store_n(&self->halted, true, __ATOMIC_SEQ_CST);
        if (!__atomic_load_n(&self->wake, __ATOMIC_SEQ_CST)) {
            self->halts++;
            interrupts_on_and_halt();
        }
        self->halted = false;
    }
    interrupts_on();
}

_Noreturn void loop_run(void)
{
    struct core *self = &cores[core_id()];

    interrupts_on();
    for (;;) {
        self->turns++;
        self->wake = false;
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
        if (!poll_all())
            halt_if_idle(self);
    }
}
