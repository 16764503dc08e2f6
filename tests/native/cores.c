// SPDX-License-Identifier: BSD-2-Clause
// The kernel's cores and messages for net/ on Linux: cores take turns on one thread. What is PERCORE,
// and all of lwIP's data, lies in section percore; one core's copy at a time is there, as in the
// kernel's window, the others are put by.
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernel/core.h"
#include "kernel/fiber.h"
#include "kernel/loop.h"
#include "kernel/message.h"
#include "kernel/time.h"
#include "tests/native/native.h"

#define SLOTS 64

extern char __start_percore[], __stop_percore[];

struct ring { // from any core to one
    struct {
        void (*fn)(const void *data);
        uint8_t data[MESSAGE_BYTES] __attribute__((aligned(16)));
    } slots[SLOTS];
    unsigned put_at, take_at;
};

static unsigned count = 1, this_core;
static char *windows[NATIVE_CORES];
static struct ring rings[NATIVE_CORES];

unsigned core_count(void)
{
    return count;
}

unsigned core_id(void)
{
    return this_core;
}

uint64_t core_busy_time(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * TIME_S + (uint64_t)now.tv_nsec / 100;
}

// The sanitizer's memcpy() would not cross what lies between two variables.
static void copy(char *to, const char *from)
{
    size_t bytes = (size_t)(__stop_percore - __start_percore);
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
}

void native_core(unsigned core)
{
    if (core == this_core)
        return;
    copy(windows[this_core], __start_percore);
    copy(__start_percore, windows[core]);
    this_core = core;
}

const void *core_peek(unsigned core, const void *p)
{
    return core == this_core ? p : windows[core] + ((const char *)p - __start_percore);
}

bool message_post(unsigned to, void (*fn)(const void *data), const void *data, size_t len)
{
    struct ring *ring = &rings[to];
    if (to >= count || len > MESSAGE_BYTES)
        abort();
    if (ring->put_at - ring->take_at == SLOTS)
        return false;
    // The first message to a core starts its stack, when there is room for certain.
    if (native_options.refuse && ring->put_at && rand() % (int)native_options.refuse == 0)
        return false;
    ring->slots[ring->put_at % SLOTS].fn = fn;
    if (len)
        memcpy(ring->slots[ring->put_at % SLOTS].data, data, len);
    ring->put_at++;
    return true;
}

static bool poll_messages(void *ctx)
{
    struct ring *ring = &rings[this_core];
    unsigned end = ring->put_at;
    bool any = ring->take_at != end;
    (void)ctx;
    while (ring->take_at != end) {
        uint8_t data[MESSAGE_BYTES] __attribute__((aligned(16)));
        void (*fn)(const void *data) = ring->slots[ring->take_at % SLOTS].fn;
        memcpy(data, ring->slots[ring->take_at % SLOTS].data, sizeof(data));
        ring->take_at++;
        fn(data);
    }
    return any;
}

void core_call(unsigned core, void (*fn)(void *arg), void *arg)
{
    unsigned caller = this_core;
    native_core(core);
    poll_messages(NULL); // in order
    fn(arg);
    native_core(caller);
}

static PERCORE struct poller poller = {.name = "messages", .poll = poll_messages};

void native_cores_start(unsigned n)
{
    count = n;
    for (unsigned core = 0; core < n; core++) {
        windows[core] = malloc((size_t)(__stop_percore - __start_percore));
        copy(windows[core], __start_percore);
    }
    for (unsigned core = n; core-- > 0;) {
        native_core(core);
        loop_add(&poller);
    }
}

// There are no fibers. The only one that net/ has would set the NIC's table, which never changes here:
// flows that changed cores are handed over for good.

int fiber_spawn(const char *name, void (*fn)(void *arg), void *arg)
{
    (void)name, (void)fn, (void)arg;
    return 0;
}

void event_set(struct event *e)
{
    (void)e;
}

int event_wait(struct event *e, uint64_t timeout)
{
    (void)e, (void)timeout;
    abort();
}

void fiber_sleep(uint64_t duration)
{
    (void)duration;
    abort();
}
