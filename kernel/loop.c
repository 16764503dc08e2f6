// SPDX-License-Identifier: BSD-2-Clause
// Each core's loop; see loop.h.
#include "kernel/loop.h"

#include "kernel/config.h"
#include "kernel/core.h"
#include "kernel/cpu.h"
#include "kernel/machine.h"
#include "kernel/platform.h"
#include "kernel/spin.h"
#include "kernel/time.h"

#define PAUSES 8 // between two looks, so that the other hyperthread gets on

static PERCORE struct poller *pollers;
static PERCORE struct spin spin;

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

// Other cores read these two for the statistics.
static void set_idle(struct core *self, uint64_t total, uint64_t from)
{
    __atomic_store_n(&self->idle, total, __ATOMIC_RELAXED);
    __atomic_store_n(&self->idle_from, from, __ATOMIC_RELAXED);
}

static bool look_all(void)
{
    bool work = false;

    for (struct poller *p = pollers; p && !work; p = p->next)
        work = p->look && p->look(p->ctx);
    return work;
}

// Looks until there may be work or the time is over. Interrupts are on, but those of the channels that
// were polled last: what these bring costs none.
static bool look_on(uint64_t until)
{
    uint64_t due = first_deadline();

    until = due < until ? due : until;
    do {
        for (unsigned i = 0; i < PAUSES; i++)
            cpu_pause();
        if (look_all())
            return true;
    } while (time_now() < until);
    return false;
}

// Sleeps until an interrupt unless there is work after all. Interrupts are off from before the last
// look until the halt itself, so none can come unnoticed in between. True if it has slept.
static bool halt_if_idle(struct core *self, uint64_t now)
{
    interrupts_off();
    uint64_t due = arm_all() ? 0 : first_deadline();
    bool idle = due > now; // if it is past by now the timer fires at once
    if (idle) {
        timer_arm(due);
        self->halts++;
        interrupts_on_and_halt();
    }
    interrupts_on();
    messages_awake();
    return idle;
}

// Nothing to do: looks on for a while where that is worth it, else halts. What comes while a core looks
// costs no interrupt, and on a real host a halt is a way out to the hypervisor and back. Returns the
// time when that is over.
static uint64_t rest(struct core *self, uint64_t most)
{
    uint64_t from = time_now();

    if (!self->idle_from)
        set_idle(self, self->idle, from);
    bool paused = most && spin_pays(&spin) && look_on(from + most);
    if (!paused)
        paused = halt_if_idle(self, from);
    uint64_t now = time_now();
    if (paused)
        spin_learn(&spin, now - from, most);
    return now;
}

_Noreturn void loop_run(void)
{
    struct core *self = &cores[core_id()];
    const uint64_t most = config.spin * TIME_US;

    interrupts_on();
    for (uint64_t now = 0;;) {
        self->turns++;
        if (!poll_all())
            now = rest(self, most);
        else if (self->idle_from)
            set_idle(self, self->idle + (now - self->idle_from), 0);
    }
}

uint64_t core_busy(unsigned core)
{
    uint64_t now = time_now(), idle = __atomic_load_n(&cores[core].idle, __ATOMIC_RELAXED),
             from = __atomic_load_n(&cores[core].idle_from, __ATOMIC_RELAXED);

    if (from && from < now)
        idle += now - from;
    return now > cores[core].started + idle ? now - cores[core].started - idle : 0;
}

uint64_t core_busy_time(void)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < core_count(); i++)
        sum += core_busy(i);
    return sum;
}
