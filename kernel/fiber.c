// SPDX-License-Identifier: BSD-2-Clause
// Cooperative fibers; see fiber.h. Each core has its own; they are switched to only by that core's
// loop and always return to it. Stacks are kept for the next fiber, with their guard pages.
#include "kernel/fiber.h"

#include <errno.h>
#include <stddef.h>

#include "kernel/alloc.h"
#include "kernel/core.h"
#include "kernel/machine.h"
#include "kernel/paging.h"
#include "kernel/panic.h"
#include "kernel/time.h"

#define FIBER_STACK_BYTES 16384

enum fiber_state {
    FIBER_READY,   // -> RUNNING
    FIBER_RUNNING, // -> READY (slept 0), WAITING, FINISHED
    FIBER_WAITING, // -> READY (its event was set or its time is over)
    FIBER_FINISHED,
};

struct fiber { // at the top of its own stack
    const char *name;
    enum fiber_state state;
    uint64_t stack_pointer;
    uint64_t due;        // while waiting
    struct event *event; // while waiting for one
    char *stack;
    void (*fn)(void *arg);
    struct fiber *next;
};

static PERCORE struct fiber *fibers;  // all live ones
static PERCORE struct fiber *current; // NULL: the loop
static PERCORE struct fiber *spare;   // finished ones, whose stack can be used again
static PERCORE uint64_t loop_stack;

// So that the loop need not look at each fiber in every turn: whether one may be ready, and when the
// first of those that wait is due, or earlier.
static PERCORE bool some_ready;
static PERCORE uint64_t first_due = UINT64_MAX;

extern void fiber_begin(void); // entry.S

// The guard page is never mapped again, so stacks are never given back.
void *stack_new(size_t bytes)
{
    char *pages = page_alloc(bytes / PAGE_SIZE + 1);

    if (!pages)
        return NULL;
    if (!paging_unmap(pages)) {
        page_free(pages, bytes / PAGE_SIZE + 1);
        return NULL;
    }
    return pages + PAGE_SIZE;
}

static void to_loop(void)
{
    fiber_switch(&current->stack_pointer, loop_stack);
}

static void fiber_end(void)
{
    current->state = FIBER_FINISHED;
    to_loop();
}

static struct fiber *fiber_new(void)
{
    struct fiber *fiber = spare;

    if (fiber) {
        spare = fiber->next;
        return fiber;
    }
    char *stack = stack_new(FIBER_STACK_BYTES);
    if (!stack)
        return NULL;
    fiber = (struct fiber *)(stack + FIBER_STACK_BYTES - ((sizeof(*fiber) + 15) & ~15ul));
    fiber->stack = stack;
    return fiber;
}

int fiber_spawn(const char *name, void (*fn)(void *arg), void *arg)
{
    struct fiber *fiber = fiber_new(), **end = &fibers;

    if (!fiber)
        return -ENOMEM;
    // What fiber_switch() pops: r15, r14, r13, r12, rbx, rbp, return address. The stack is then
    // aligned for fiber_begin's calls.
    uint64_t *frame = (uint64_t *)fiber - 8;
    frame[0] = 0;
    frame[1] = (uint64_t)fiber_end;
    frame[2] = (uint64_t)arg;
    frame[3] = (uint64_t)fn;
    frame[4] = frame[5] = 0;
    frame[6] = (uint64_t)fiber_begin;
    fiber->name = name;
    fiber->stack_pointer = (uint64_t)frame;
    fiber->state = FIBER_READY;
    fiber->event = NULL;
    fiber->next = NULL;
    while (*end)
        end = &(*end)->next;
    *end = fiber;
    some_ready = true;
    return 0;
}

static uint64_t due_after(uint64_t duration)
{
    uint64_t now = time_now();

    return duration > UINT64_MAX - now ? UINT64_MAX : now + duration;
}

int event_wait(struct event *e, uint64_t timeout)
{
    ASSERT(current && !e->waiter);
    if (!e->set && timeout > 0) {
        e->waiter = current;
        current->event = e;
        current->due = due_after(timeout);
        current->state = FIBER_WAITING;
        to_loop();
        e->waiter = NULL;
        current->event = NULL;
    }
    bool was_set = e->set;
    e->set = false;
    return was_set ? 0 : -ETIMEDOUT;
}

void event_set(struct event *e)
{
    e->set = true;
    if (e->waiter) {
        e->waiter->state = FIBER_READY;
        some_ready = true;
    }
}

void fiber_sleep(uint64_t duration)
{
    ASSERT(current);
    current->due = due_after(duration);
    current->state = duration > 0 ? FIBER_WAITING : FIBER_READY;
    to_loop();
}

uint64_t fibers_deadline(void)
{
    return some_ready ? 0 : first_due;
}

static void fiber_run(struct fiber *fiber)
{
    fiber->state = FIBER_RUNNING;
    current = fiber;
    fiber_switch(&loop_stack, fiber->stack_pointer);
    current = NULL;
}

// After its turn: what the next turn of the loop has to know of it.
static void note(const struct fiber *fiber)
{
    if (fiber->state == FIBER_READY)
        some_ready = true;
    else if (fiber->due < first_due)
        first_due = fiber->due;
}

bool fibers_run(void)
{
    struct fiber **at = &fibers;
    bool ran = false;

    if (!some_ready && (first_due == UINT64_MAX || first_due > time_now()))
        return false;
    uint64_t now = time_now();
    some_ready = false;
    first_due = UINT64_MAX;
    while (*at) {
        struct fiber *fiber = *at;
        if (fiber->state == FIBER_WAITING && fiber->due <= now)
            fiber->state = FIBER_READY;
        if (fiber->state == FIBER_READY) {
            fiber_run(fiber);
            ran = true;
        }
        if (fiber->state == FIBER_FINISHED) {
            *at = fiber->next;
            fiber->next = spare;
            spare = fiber;
        } else {
            note(fiber);
            at = &fiber->next;
        }
    }
    return ran;
}
