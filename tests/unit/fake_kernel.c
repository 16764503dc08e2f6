// SPDX-License-Identifier: BSD-2-Clause
// See fake_kernel.h. Implements kernel/*.h as far as drivers use them.
#include "fake_kernel.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/alloc.h"
#include "kernel/config.h"
#include "kernel/console.h"
#include "kernel/core.h"
#include "kernel/fiber.h"
#include "kernel/log.h"
#include "kernel/loop.h"
#include "kernel/machine.h"
#include "kernel/message.h"
#include "kernel/panic.h"
#include "kernel/random.h"
#include "kernel/time.h"

#define FIBERS 64

struct fiber {
    bool used, ready;
    pthread_t thread;
    sem_t go;
    void (*fn)(void *arg);
    void *arg;
    struct event *waiting;
    uint64_t deadline;
    int result; // of the wait
};

struct config config = {
    .net = {.dhcp = true, .mtu = 1500, .checksum = true, .lso = true, .rsc = true},
    .mtu = 1500,
    .rsc = true,
    .receive_buffer = 1 << 20,
    .send_buffer = 128 << 10,
    .ring = 32 << 10};

static struct fiber fibers[FIBERS];
static struct fiber *current;
static sem_t back; // the running fiber waits or ends
static PERCORE struct poller *pollers;
static uint64_t now = 1000;
static size_t pages_live, objects_live;

uint64_t time_now(void)
{
    return now;
}

// Memory.

static unsigned allocations, refuse_from, refuse_to; // [from, to): these are refused

void fake_refuse(unsigned first, unsigned n)
{
    refuse_from = allocations + first;
    refuse_to = refuse_from + n;
}

unsigned fake_allocations(void)
{
    return allocations;
}

static bool refused(void)
{
    allocations++;
    return allocations >= refuse_from && allocations < refuse_to;
}

void *page_alloc_raw(size_t count)
{
    void *p = refused() ? NULL : aligned_alloc(PAGE_SIZE, count * PAGE_SIZE);

    if (!p)
        return NULL;
    memset(p, 0xa5, count * PAGE_SIZE);
    pages_live += count;
    return p;
}

void *page_alloc(size_t count)
{
    void *p = page_alloc_raw(count);

    return p ? memset(p, 0, count * PAGE_SIZE) : NULL;
}

void page_free(void *pages, size_t count)
{
    pages_live -= count;
    free(pages);
}

void *heap_alloc(size_t size)
{
    if (refused())
        return NULL;
    objects_live++;
    return malloc(size);
}

void heap_free(void *object)
{
    if (object)
        objects_live--;
    free(object);
}

uint64_t virt_to_phys(const void *p)
{
    return (uintptr_t)p;
}

static size_t pages_total = 32768;

void fake_memory(size_t pages)
{
    pages_total = pages;
}

void memory_stats(struct memory_stats *out)
{
    size_t taken = pages_live < pages_total ? pages_live : pages_total;

    *out = (struct memory_stats){.pages_total = pages_total, .pages_free = pages_total - taken};
}

size_t fake_pages_live(void)
{
    return pages_live;
}

size_t fake_objects_live(void)
{
    return objects_live;
}

// Cores.

// What is marked PERCORE lies between these, if the test says so (-DPERCORE). One core's copy at a time
// is there, as in the kernel's window; the others are put by.
extern char __start_percore[] __attribute__((weak)), __stop_percore[] __attribute__((weak));

struct core cores[MAX_CORES];
static unsigned count = 1, this_core;
static char *windows[MAX_CORES];

unsigned core_count(void)
{
    return count;
}

unsigned core_id(void)
{
    return this_core;
}

void fake_core(unsigned core)
{
    size_t bytes = (size_t)(__stop_percore - __start_percore);

    ASSERT(core < count);
    if (core == this_core)
        return;
    memcpy(windows[this_core], __start_percore, bytes);
    memcpy(__start_percore, windows[core], bytes);
    this_core = core;
}

void fake_cores(unsigned n)
{
    size_t bytes = (size_t)(__stop_percore - __start_percore);

    count = n;
    for (unsigned i = 0; i < n; i++) {
        windows[i] = malloc(bytes);
        memcpy(windows[i], __start_percore, bytes);
    }
    messages_start();
    for (unsigned i = n; i-- > 0;) {
        fake_core(i);
        messages_start_core();
    }
}

void apic_send_wake(uint32_t id)
{
    (void)id; // all cores run all the time
}

uint32_t core_vp_index(unsigned core)
{
    return core + 5; // not the core's number
}

void random_bytes(void *out, size_t len)
{
    for (uint8_t *at = out; len--; at++)
        *at = (uint8_t)rand();
}

const void *core_peek(unsigned core, const void *p)
{
    size_t at = (size_t)((const char *)p - __start_percore);

    return core == this_core ? p : windows[core] + at;
}

// Log and panic.

void log_line(enum log_level level, const char *format, ...)
{
    va_list args;

    if (!getenv("UNIT_LOG"))
        return;
    va_start(args, format);
    fprintf(stderr, "%d: ", level);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

void panic(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    abort();
}

// Statistics.

static struct stats_source *sources;
static char stats_text[16384];

void stats_add(struct stats_source *source)
{
    source->next = sources;
    sources = source;
}

void stats_print(const char *format, ...)
{
    va_list args;
    size_t used = strlen(stats_text);

    va_start(args, format);
    vsnprintf(stats_text + used, sizeof(stats_text) - used, format, args);
    va_end(args);
}

const char *fake_stats(void)
{
    stats_text[0] = '\0';
    stats_print("{");
    for (struct stats_source *s = sources; s; s = s->next) {
        stats_print("%s\"%s\":", s == sources ? "" : ",", s->name);
        s->write();
    }
    stats_print("}");
    return stats_text;
}

uint64_t fake_counter(const char *name)
{
    char key[64];

    snprintf(key, sizeof(key), "\"%s\":", name);
    const char *at = strstr(fake_stats(), key);
    if (!at)
        panic("no counter %s", name);
    return strtoull(at + strlen(key), NULL, 10);
}

// Fibers.

static void *fiber_thread(void *arg)
{
    struct fiber *f = arg;

    sem_wait(&f->go);
    f->fn(f->arg);
    f->used = false;
    sem_post(&back);
    return NULL;
}

int fiber_spawn(const char *name, void (*fn)(void *arg), void *arg)
{
    struct fiber *f = fibers;
    (void)name;

    if (refused())
        return -ENOMEM;
    while (f->used)
        f++;
    *f = (struct fiber){.used = true, .ready = true, .fn = fn, .arg = arg};
    sem_init(&f->go, 0, 0);
    pthread_create(&f->thread, NULL, fiber_thread, f);
    pthread_detach(f->thread);
    return 0;
}

static void fiber_yield(void)
{
    struct fiber *f = current;

    sem_post(&back);
    sem_wait(&f->go);
}

int event_wait(struct event *e, uint64_t timeout)
{
    struct fiber *f = current;

    ASSERT(f);
    if (!e->set) {
        e->waiter = f;
        f->waiting = e;
        f->ready = false;
        f->deadline = timeout == WAIT_FOREVER ? UINT64_MAX : now + timeout;
        fiber_yield();
        e->waiter = NULL;
        f->waiting = NULL;
    }
    bool set = e->set;
    e->set = false;
    return set ? 0 : -ETIMEDOUT;
}

void event_set(struct event *e)
{
    e->set = true;
    if (e->waiter)
        e->waiter->ready = true;
}

void fiber_sleep(uint64_t duration)
{
    current->ready = false;
    current->deadline = now + duration;
    fiber_yield();
}

unsigned fake_fibers_live(void)
{
    unsigned n = 0;

    for (struct fiber *f = fibers; f < fibers + FIBERS; f++)
        n += f->used;
    return n;
}

// The loop.

void loop_add(struct poller *p)
{
    struct poller **link = &pollers;

    while (*link)
        link = &(*link)->next;
    p->next = NULL;
    *link = p;
}

void fake_loop_remove(struct poller *p)
{
    struct poller **link = &pollers;

    while (*link != p)
        link = &(*link)->next;
    *link = p->next;
}

static bool run_fibers(void)
{
    bool ran = false;

    for (struct fiber *f = fibers; f < fibers + FIBERS; f++) {
        if (!f->used || (!f->ready && f->deadline > now))
            continue;
        f->ready = true;
        current = f;
        sem_post(&f->go);
        sem_wait(&back);
        current = NULL;
        ran = true;
    }
    return ran;
}

static bool arm_all(void)
{
    bool work = false;

    for (struct poller *p = pollers; p; p = p->next)
        work |= p->arm && p->arm(p->ctx);
    return work;
}

static bool spinning;

void fake_spin(bool on)
{
    spinning = on;
}

bool fake_look(void)
{
    bool any = false;

    for (struct poller *p = pollers; p; p = p->next)
        any |= p->look && p->look(p->ctx);
    return any;
}

// In the order of kernel/loop.c.
static bool core_turn(void)
{
    bool ran = false;

    for (struct poller *p = pollers; p; p = p->next)
        ran |= p->poll(p->ctx);
    if (this_core == 0)
        ran |= run_fibers();
    if (spinning)
        return ran;
    // Twice: an interrupt that comes while arming ends the halt.
    return ran || arm_all() || arm_all();
}

bool fake_turn(void)
{
    bool ran = false;

    for (unsigned i = count; i-- > 0;) {
        fake_core(i);
        ran |= core_turn();
    }
    return ran;
}

static uint64_t next_deadline(void)
{
    uint64_t next = UINT64_MAX;

    for (struct fiber *f = fibers; f < fibers + FIBERS; f++) {
        if (f->used && !f->ready && f->deadline < next)
            next = f->deadline;
    }
    for (unsigned i = count; i-- > 0;) {
        fake_core(i);
        for (struct poller *p = pollers; p; p = p->next) {
            uint64_t due = p->deadline ? p->deadline(p->ctx) : UINT64_MAX;
            next = due < next ? due : next;
        }
    }
    return next;
}

bool fake_run_until(bool (*done)(void), uint64_t duration)
{
    uint64_t end = now + duration;

    for (;;) {
        while (fake_turn())
            ;
        uint64_t next = next_deadline();
        if (done())
            return true;
        if (next > end)
            return false;
        if (next > now)
            now = next;
    }
}

static bool never(void)
{
    return false;
}

void fake_run(uint64_t duration)
{
    fake_run_until(never, duration);
}
