// SPDX-License-Identifier: BSD-2-Clause
// Messages between cores; see message.h. A ring for each pair of cores: one writer, one reader, and no
// index that both look at, because a slot says itself whether it is full. Beside the rings each core
// has a mailbox: a bit for every core that has sent something, so that a quiet loop reads one word.
#include "kernel/message.h"

#include <stdatomic.h>
#include <string.h>

#include "kernel/alloc.h"
#include "kernel/console.h"
#include "kernel/core.h"
#include "kernel/fiber.h"
#include "kernel/loop.h"
#include "kernel/machine.h"
#include "kernel/panic.h"
#include "kernel/time.h"

// Pages of a ring: more where there are few cores, since there is one for each pair of them.
#define RING_PAGES 4u
#define RING_PAGES_MANY 1u
#define MANY_CORES 17u
#define CALL_RETRY (100 * TIME_US)

struct slot {
    _Atomic(void (*)(const void *data)) fn; // NULL: free. Written last, and freed first
    uint64_t unused;
    uint8_t data[MESSAGE_BYTES];
};
_Static_assert(sizeof(struct slot) == 64, "a cache line");

// Written by any core that sends, read by its owner every turn.
static struct mailbox {
    _Atomic uint64_t senders; // bit: that core has put something into its ring
    atomic_bool sleepy;       // the owner halts, or is about to: wake it
} __attribute__((aligned(64))) mailboxes[MAX_CORES];

static struct slot *rings; // of each pair [from * core_count() + to]
static unsigned slots;     // in each

static PERCORE uint16_t put_at[MAX_CORES], take_at[MAX_CORES]; // next slot of the ring to, from
static PERCORE struct poller poller;

struct call { // on the stack of the fiber that waits
    void (*fn)(void *arg);
    void *arg;
    atomic_bool done;
    bool seen; // that it is done, by core 0's poller
    struct event event;
    struct call *next;
};
static struct call *calls; // core 0's

static struct slot *ring(unsigned from, unsigned to)
{
    return rings + (size_t)(from * core_count() + to) * slots;
}

// Tells a core that there is something for it. The sender writes `senders`, then reads `sleepy`; the
// owner writes `sleepy`, then reads `senders` with interrupts off. Sequential consistency of these
// four lets at least one see the other's write: the owner does not halt, or the interrupt is sent and,
// should it come before hlt, ends that at once. Of many senders one is enough to wake it.
static void notify(unsigned to)
{
    struct mailbox *box = &mailboxes[to];

    atomic_fetch_or(&box->senders, 1ull << core_id());
    if (atomic_load(&box->sleepy) && atomic_exchange(&box->sleepy, false)) {
        cores[core_id()].wakes++;
        apic_send_wake(cores[to].apic_id);
    }
}

bool message_post(unsigned to, void (*fn)(const void *data), const void *data, size_t len)
{
    ASSERT(to < core_count() && len <= MESSAGE_BYTES);
    struct slot *slot = &ring(core_id(), to)[put_at[to]];

    if (atomic_load_explicit(&slot->fn, memory_order_acquire)) {
        cores[core_id()].messages_refused++;
        return false;
    }
    if (len)
        memcpy(slot->data, data, len);
    atomic_store_explicit(&slot->fn, fn, memory_order_release);
    put_at[to] = (uint16_t)((put_at[to] + 1) % slots);
    cores[core_id()].messages++;
    notify(to);
    return true;
}

// Runs what one core has sent, one ring full at most. True if there may be more.
static bool take_from(unsigned from)
{
    struct slot *first = ring(from, core_id());

    for (unsigned i = 0; i < slots; i++) {
        struct slot *slot = &first[take_at[from]];
        void (*fn)(const void *data) = atomic_load_explicit(&slot->fn, memory_order_acquire);
        uint8_t data[MESSAGE_BYTES] __attribute__((aligned(16)));

        if (!fn)
            return false;
        memcpy(data, slot->data, sizeof(data));
        atomic_store_explicit(&slot->fn, NULL, memory_order_release);
        take_at[from] = (uint16_t)((take_at[from] + 1) % slots);
        fn(data);
    }
    return true;
}

// Which calls are done is looked at before the messages are taken, and told after: so whoever waits
// for a call finds all messages taken that its core had sent before.
static void see_calls(void)
{
    for (struct call *call = calls; call; call = call->next)
        call->seen = atomic_load_explicit(&call->done, memory_order_acquire);
}

static void finish_calls(void)
{
    for (struct call *call = calls; call; call = call->next) {
        if (call->seen)
            event_set(&call->event);
        else if (atomic_load_explicit(&call->done, memory_order_acquire))
            atomic_fetch_or(&mailboxes[0].senders, 1); // its bit was taken with others': look again
    }
}

static bool messages_poll(void *ctx)
{
    struct mailbox *box = &mailboxes[core_id()];
    (void)ctx;

    // Reading first keeps the line shared while nothing happens.
    if (!atomic_load_explicit(&box->senders, memory_order_relaxed))
        return false;
    if (core_id() == 0)
        see_calls();
    // Cleared before the rings are read: what comes later sets its bit again.
    uint64_t senders = atomic_exchange(&box->senders, 0), again = 0;
    for (; senders; senders &= senders - 1) {
        unsigned from = (unsigned)__builtin_ctzll(senders);
        if (take_from(from))
            again |= 1ull << from;
    }
    if (again)
        atomic_fetch_or(&box->senders, again);
    if (core_id() == 0)
        finish_calls();
    return true;
}

static bool messages_look(void *ctx)
{
    (void)ctx;
    return atomic_load_explicit(&mailboxes[core_id()].senders, memory_order_relaxed) != 0;
}

// The loop is about to halt, or, when this says so, not after all.
static bool messages_arm(void *ctx)
{
    struct mailbox *box = &mailboxes[core_id()];
    (void)ctx;

    atomic_store(&box->sleepy, true);
    return atomic_load(&box->senders) != 0;
}

void messages_awake(void)
{
    struct mailbox *box = &mailboxes[core_id()];

    if (atomic_load_explicit(&box->sleepy, memory_order_relaxed))
        atomic_store_explicit(&box->sleepy, false, memory_order_relaxed);
}

void messages_start_core(void)
{
    poller = (struct poller){
        .name = "messages", .poll = messages_poll, .look = messages_look, .arm = messages_arm};
    loop_add(&poller);
}

void messages_start(void)
{
    unsigned pages = core_count() < MANY_CORES ? RING_PAGES : RING_PAGES_MANY;

    slots = pages * PAGE_SIZE / sizeof(struct slot);
    rings = page_alloc((size_t)core_count() * core_count() * pages);
    if (!rings)
        panic("messages: no memory for %u cores", core_count());
}

static void run_call(const void *data)
{
    struct call *call = *(struct call *const *)data;

    call->fn(call->arg);
    // Not a message: this one must arrive. Its memory may be gone as soon as it is marked.
    atomic_store_explicit(&call->done, true, memory_order_release);
    notify(0);
}

void core_call(unsigned core, void (*fn)(void *arg), void *arg)
{
    struct call call = {.fn = fn, .arg = arg, .next = calls};
    struct call **link = &calls;

    ASSERT(core_id() == 0);
    if (core == 0) {
        fn(arg);
        return;
    }
    calls = &call;
    while (!message_post_pointer(core, run_call, &call))
        fiber_sleep(CALL_RETRY);
    while (!call.seen)
        event_wait(&call.event, WAIT_FOREVER);
    while (*link != &call)
        link = &(*link)->next;
    *link = call.next;
}
