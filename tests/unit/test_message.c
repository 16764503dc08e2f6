// SPDX-License-Identifier: BSD-2-Clause
// Messages between cores, with a thread for each core: all arrive, once, in the order of their sender;
// a full ring is refused; a core that halts is woken by an interrupt, and never sleeps on a message.
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "kernel/alloc.h"
#include "kernel/core.h"
#include "kernel/fiber.h"
#include "kernel/loop.h"
#include "kernel/machine.h"
#include "kernel/message.h"
#include "kernel/panic.h"

#define CORES 4
#define POSTS 20000u // of each core to each core

struct core cores[MAX_CORES];
static _Thread_local unsigned this_core;
static _Thread_local struct poller *poller;

// The interrupt that ends a halt: stays pending if it comes before.
static struct {
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    bool pending;
    unsigned sent;
} interrupt[CORES];

unsigned core_id(void)
{
    return this_core;
}

unsigned core_count(void)
{
    return CORES;
}

void *page_alloc(size_t count)
{
    static _Alignas(PAGE_SIZE)
        uint8_t pages[CORES * CORES * 4 * PAGE_SIZE]; // each test's rings in turn

    assert_true(count * PAGE_SIZE <= sizeof(pages));
    memset(pages, 0, sizeof(pages));
    return pages;
}

void loop_add(struct poller *p)
{
    poller = p;
}

void panic(const char *format, ...)
{
    fprintf(stderr, "panic: %s\n", format);
    abort();
}

void apic_send_wake(uint32_t id)
{
    pthread_mutex_lock(&interrupt[id].mutex);
    interrupt[id].pending = true;
    interrupt[id].sent++;
    pthread_cond_signal(&interrupt[id].cond);
    pthread_mutex_unlock(&interrupt[id].mutex);
}

// False if no interrupt came in ten seconds.
static bool halt(void)
{
    struct timespec end;
    int r = 0;

    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += 10;
    pthread_mutex_lock(&interrupt[this_core].mutex);
    while (!interrupt[this_core].pending && r == 0)
        r = pthread_cond_timedwait(&interrupt[this_core].cond, &interrupt[this_core].mutex, &end);
    interrupt[this_core].pending = false;
    pthread_mutex_unlock(&interrupt[this_core].mutex);
    return r == 0;
}

// Of the fibers only what core_call() needs: the one that waits runs its core's loop meanwhile.
void event_set(struct event *e)
{
    e->set = true;
}

static bool turn(void);

int event_wait(struct event *e, uint64_t timeout)
{
    (void)timeout;
    while (!e->set) {
        if (!turn())
            abort(); // nobody has said that the call is done
    }
    e->set = false;
    return 0;
}

void fiber_sleep(uint64_t duration)
{
    (void)duration;
    turn();
}

// As kernel/loop.c does it. False: nothing came.
static bool turn(void)
{
    bool woken = true;

    if (poller->poll(NULL))
        return true;
    if (!poller->arm(NULL))
        woken = halt();
    messages_awake();
    return woken;
}

static void core_begin(unsigned core)
{
    this_core = core;
    cores[core].apic_id = core;
    messages_start_core();
}

static _Thread_local uint32_t expected[CORES]; // next number from each sender
static _Thread_local uint32_t received;

struct numbered {
    uint32_t from, number;
    uint8_t filler[MESSAGE_BYTES - 8];
};

static void take_numbered(const void *data)
{
    const struct numbered *m = data;

    if ((uintptr_t)data % 16 || m->number != expected[m->from]++)
        abort();
    for (unsigned i = 0; i < sizeof(m->filler); i++) {
        if (m->filler[i] != (uint8_t)(m->number + i))
            abort();
    }
    received++;
}

static void *talk(void *arg)
{
    unsigned sent[CORES] = {0};
    bool more = true;

    core_begin((unsigned)(uintptr_t)arg);
    while (more) {
        more = false;
        for (unsigned to = 0; to < CORES; to++) {
            struct numbered m = {.from = this_core, .number = sent[to]};
            for (unsigned i = 0; i < sizeof(m.filler); i++)
                m.filler[i] = (uint8_t)(m.number + i);
            if (sent[to] < POSTS && message_post(to, take_numbered, &m, sizeof(m)))
                sent[to]++;
            more |= sent[to] < POSTS;
        }
        poller->poll(NULL);
    }
    while (received < CORES * POSTS) {
        if (!turn())
            return "slept on a message";
    }
    return NULL;
}

static void test_all_to_all(void **state)
{
    pthread_t threads[CORES];

    (void)state;
    for (uintptr_t i = 0; i < CORES; i++)
        pthread_create(&threads[i], NULL, talk, (void *)i);
    for (unsigned i = 0; i < CORES; i++) {
        void *failure;
        pthread_join(threads[i], &failure);
        assert_null(failure);
        assert_int_equal(cores[i].messages, CORES * POSTS);
    }
}

// One message to and fro at a time, so that both sleep again and again.
static void pass_on(const void *data)
{
    uint32_t number = *(const uint32_t *)data + 1;

    received++;
    if (number < 2 * POSTS)
        assert_true(message_post(1 - this_core, pass_on, &number, sizeof(number)));
}

static void *ping_pong(void *arg)
{
    uint32_t first = 0;

    core_begin((unsigned)(uintptr_t)arg);
    received = 0;
    if (this_core == 0)
        message_post(1, pass_on, &first, sizeof(first));
    while (received < POSTS) {
        if (!turn())
            return "slept on a message";
    }
    return NULL;
}

static void test_sleepers_are_woken(void **state)
{
    pthread_t threads[2];
    void *failure;

    (void)state;
    for (uintptr_t i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, ping_pong, (void *)i);
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(threads[i], &failure);
        assert_null(failure);
    }
    assert_true(interrupt[0].sent + interrupt[1].sent > 0);
}

static unsigned runs;

static void count_run(const void *data)
{
    (void)data;
    runs++;
}

static void test_full_ring(void **state)
{
    unsigned taken = 0;

    (void)state;
    core_begin(3); // of its own thread's life only this ring is used
    runs = 0;
    while (message_post(3, count_run, NULL, 0))
        taken++;
    assert_int_equal(taken, 4 * PAGE_SIZE / 64);
    assert_int_equal(runs, 0);
    uint64_t refused = cores[3].messages_refused;
    assert_false(message_post(3, count_run, NULL, 0));
    assert_int_equal(cores[3].messages_refused, refused + 1);
    while (poller->poll(NULL))
        ;
    assert_int_equal(runs, taken);
    assert_true(message_post(3, count_run, NULL, 0));
    assert_true(poller->poll(NULL));
    assert_int_equal(runs, taken + 1);
    assert_false(poller->poll(NULL));
    // A message that comes after the last look before a halt is seen by the look of arm().
    assert_false(poller->arm(NULL));
    assert_true(message_post(3, count_run, NULL, 0));
    assert_true(poller->arm(NULL));
    while (poller->poll(NULL))
        ;
}

static atomic_bool stop;
static atomic_uint called_on;

static void wake_up(const void *data)
{
    (void)data;
}

// Its message to the caller may be taken just when the call is done: that must not go unnoticed.
static void called(void *arg)
{
    *(unsigned *)arg += 1;
    called_on = this_core;
    if (this_core != 0)
        message_post(0, wake_up, NULL, 0);
}

static void *serve(void *arg)
{
    core_begin((unsigned)(uintptr_t)arg);
    while (!stop) {
        if (!turn())
            return "slept on a call";
    }
    return NULL;
}

static void *call(void *arg)
{
    unsigned *calls = arg;

    core_begin(0);
    core_call(0, called, calls);
    if (called_on != 0)
        return "not on its own core";
    for (unsigned i = 0; i < 5000; i++) {
        core_call(2, called, calls);
        if (*calls != i + 2 || called_on != 2)
            return "returned before it was done";
    }
    stop = true;
    message_post(2, wake_up, NULL, 0);
    return NULL;
}

static void test_core_call(void **state)
{
    pthread_t server, caller;
    unsigned calls = 0;
    void *failure;

    (void)state;
    pthread_create(&server, NULL, serve, (void *)2);
    pthread_create(&caller, NULL, call, &calls);
    pthread_join(caller, &failure);
    assert_null(failure);
    pthread_join(server, &failure);
    assert_null(failure);
    assert_int_equal(calls, 5001);
}

// What follows plays one order of events of two threads, by turns.

_Thread_local void (*before_exchange)(void);
static atomic_bool may_serve, has_served;

static void let_serve(void)
{
    before_exchange = NULL;
    may_serve = true;
    while (!has_served)
        ;
}

// Serves one call when it may.
static void *serve_once(void *arg)
{
    core_begin((unsigned)(uintptr_t)arg);
    while (!may_serve)
        ;
    while (!poller->poll(NULL))
        ;
    has_served = true;
    return NULL;
}

// The call is done after the caller has looked whether it is, and before it takes the bits of all who
// have something for it: that bit goes with the others.
static void *call_done_unseen(void *arg)
{
    core_begin(0);
    assert_true(message_post(0, wake_up, NULL, 0)); // so that there are bits to take
    before_exchange = let_serve;
    core_call(2, called, arg);
    return NULL;
}

// The ring to the called core is full: its core makes room when the caller has been refused.
static void *call_refused(void *arg)
{
    core_begin(0);
    while (message_post(2, wake_up, NULL, 0))
        ;
    may_serve = true;
    core_call(2, called, arg);
    return NULL;
}

static void *serve_until_called(void *arg)
{
    core_begin((unsigned)(uintptr_t)arg);
    while (!may_serve)
        ;
    called_on = 0;
    while (called_on != 2)
        poller->poll(NULL);
    return NULL;
}

static void play(void *(*caller)(void *), void *(*server)(void *))
{
    pthread_t threads[2];
    unsigned calls = 0;

    may_serve = has_served = false;
    pthread_create(&threads[0], NULL, server, (void *)2);
    pthread_create(&threads[1], NULL, caller, &calls);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(calls, 1);
}

static void test_call_done_unseen(void **state)
{
    (void)state;
    play(call_done_unseen, serve_once);
    assert_true(has_served);
}

static void test_call_refused(void **state)
{
    (void)state;
    play(call_refused, serve_until_called);
    assert_true(cores[0].messages_refused > 1);
}

// The positions in the rings are each core's own for ever, and a test's threads are not: new rings.
static int new_rings(void **state)
{
    (void)state;
    for (unsigned i = 0; i < CORES; i++) {
        pthread_mutex_init(&interrupt[i].mutex, NULL);
        pthread_cond_init(&interrupt[i].cond, NULL);
        interrupt[i].pending = false;
        interrupt[i].sent = 0;
        cores[i] = (struct core){0};
    }
    messages_start();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_all_to_all, new_rings),
        cmocka_unit_test_setup(test_sleepers_are_woken, new_rings),
        cmocka_unit_test_setup(test_full_ring, new_rings),
        cmocka_unit_test_setup(test_core_call, new_rings),
        cmocka_unit_test_setup(test_call_done_unseen, new_rings),
        cmocka_unit_test_setup(test_call_refused, new_rings),
    };
    return cmocka_run_group_tests_name("message", tests, NULL, NULL);
}
