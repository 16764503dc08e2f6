// SPDX-License-Identifier: BSD-2-Clause
// The kernel's cores and messages for net/ on Linux: there is one core. What it tells itself is done at
// the next turn of the loop.
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

static struct {
    void (*fn)(const void *data);
    uint8_t data[MESSAGE_BYTES] __attribute__((aligned(16)));
} ring[SLOTS];
static unsigned put_at, take_at;

unsigned core_count(void)
{
    return 1;
}

unsigned core_id(void)
{
    return 0;
}

uint64_t core_busy_time(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * TIME_S + (uint64_t)now.tv_nsec / 100;
}

const void *core_peek(unsigned core, const void *p)
{
    return core == 0 ? p : NULL;
}

bool message_post(unsigned to, void (*fn)(const void *data), const void *data, size_t len)
{
    if (to != 0 || len > MESSAGE_BYTES)
        abort();
    if (put_at - take_at == SLOTS)
        return false;
    ring[put_at % SLOTS].fn = fn;
    if (len)
        memcpy(ring[put_at % SLOTS].data, data, len);
    put_at++;
    return true;
}

void core_call(unsigned core, void (*fn)(void *arg), void *arg)
{
    if (core != 0)
        abort();
    fn(arg);
}

static bool poll_messages(void *ctx)
{
    unsigned end = put_at;
    bool any = take_at != end;
    (void)ctx;
    for (; take_at != end; take_at++)
        ring[take_at % SLOTS].fn(ring[take_at % SLOTS].data);
    return any;
}

static struct poller poller = {.name = "messages", .poll = poll_messages};

void native_cores_start(void)
{
    loop_add(&poller);
}

// What needs other cores. Nothing here has any.

int fiber_spawn(const char *name, void (*fn)(void *arg), void *arg)
{
    (void)name, (void)fn, (void)arg;
    abort();
}

int event_wait(struct event *e, uint64_t timeout)
{
    (void)e, (void)timeout;
    abort();
}

void event_set(struct event *e)
{
    (void)e;
    abort();
}

void fiber_sleep(uint64_t duration)
{
    (void)duration;
    abort();
}
