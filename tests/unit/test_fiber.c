// SPDX-License-Identifier: BSD-2-Clause
// Fibers on a clock that the test sets: who runs when, and what the loop is told of it. A core halts by
// fibers_deadline() and does not look at the fibers before that time, so it must never be too late.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/alloc.h"
#include "kernel/fiber.h"
#include "kernel/machine.h"
#include "kernel/paging.h"
#include "kernel/panic.h"
#include "kernel/time.h"

// As in kernel/entry.S.
__asm__(".globl fiber_switch, fiber_begin\n"
        "fiber_switch:\n"
        "    push %rbp; push %rbx; push %r12; push %r13; push %r14; push %r15\n"
        "    mov %rsp, (%rdi); mov %rsi, %rsp\n"
        "    pop %r15; pop %r14; pop %r13; pop %r12; pop %rbx; pop %rbp\n"
        "    ret\n"
        "fiber_begin:\n"
        "    xor %ebp, %ebp; mov %r13, %rdi; call *%r12; call *%r14; ud2\n");

static uint64_t now;
static unsigned looks; // at the clock

uint64_t time_now(void)
{
    looks++;
    return now;
}

void panic(const char *format, ...)
{
    fail_msg("%s", format);
    abort();
}

void *page_alloc(size_t count)
{
    return calloc(count, PAGE_SIZE);
}

void page_free(void *pages, size_t count)
{
    (void)count;
    free(pages);
}

bool paging_unmap(void *page)
{
    (void)page;
    return true;
}

// ---- Fibers that write down what they do ----

static char done[64];

static void note(char c)
{
    done[strlen(done)] = c;
}

#define SAW(text)                                                                                  \
    do {                                                                                           \
        assert_string_equal(done, text);                                                           \
        memset(done, 0, sizeof(done));                                                             \
    } while (0)

static struct event event;

static void sleeps(void *arg)
{
    note('a');
    fiber_sleep(*(uint64_t *)arg);
    note('b');
}

static void waits(void *arg)
{
    int r = event_wait(&event, *(uint64_t *)arg);
    note(r == 0 ? 'e' : 't');
}

static void sets(void *arg)
{
    (void)arg;
    event_set(&event);
    note('s');
}

static void spawns(void *arg)
{
    note('p');
    fiber_spawn("child", sets, arg);
}

static void spawn(void (*fn)(void *arg), uint64_t duration)
{
    static uint64_t durations[16];
    static unsigned next;

    durations[next % 16] = duration;
    assert_int_equal(fiber_spawn("test", fn, &durations[next++ % 16]), 0);
}

// Nothing is left, and an empty turn does not even ask what time it is.
static void expect_none(void)
{
    looks = 0;
    assert_false(fibers_run());
    assert_int_equal(looks, 0);
    assert_true(fibers_deadline() == UINT64_MAX);
}

// ---- Tests ----

static void test_sleep(void **state)
{
    (void)state;

    spawn(sleeps, 100);
    assert_int_equal(fibers_deadline(), 0);
    assert_true(fibers_run());
    SAW("a");
    assert_int_equal(fibers_deadline(), now + 100);
    now += 99;
    assert_false(fibers_run());
    now += 1;
    assert_true(fibers_run());
    SAW("b");
    expect_none();
}

// The first of many tells when, whatever order they are in.
static void test_many(void **state)
{
    (void)state;

    spawn(sleeps, 300);
    spawn(sleeps, 100);
    spawn(sleeps, 200);
    fibers_run();
    SAW("aaa");
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(fibers_deadline(), now + 100);
        now += 100;
        assert_true(fibers_run());
        SAW("b");
    }
    expect_none();
}

static void test_turn(void **state)
{
    (void)state;

    spawn(sleeps, 0);
    fibers_run();
    SAW("a");
    assert_int_equal(fibers_deadline(), 0);
    assert_true(fibers_run());
    SAW("b");
    expect_none();
}

// From the loop, between two turns.
static void test_event(void **state)
{
    (void)state;

    spawn(waits, WAIT_FOREVER);
    fibers_run();
    expect_none();
    event_set(&event);
    assert_int_equal(fibers_deadline(), 0);
    assert_true(fibers_run());
    SAW("e");
    expect_none();
}

// By a fiber that runs after the one that waits, in the same turn, and one that runs before it.
static void test_event_of_fiber(void **state)
{
    (void)state;

    spawn(waits, 1000);
    fibers_run();
    spawn(sets, 0);
    assert_true(fibers_run());
    SAW("s");
    assert_int_equal(fibers_deadline(), 0);
    assert_true(fibers_run());
    SAW("e");

    spawn(sets, 0);
    spawn(waits, 1000);
    assert_true(fibers_run());
    SAW("se");
    expect_none();
}

static void test_timeout(void **state)
{
    (void)state;

    spawn(waits, 50);
    fibers_run();
    assert_int_equal(fibers_deadline(), now + 50);
    now += 50;
    assert_true(fibers_run());
    SAW("t");
    expect_none();
}

// An event that comes in time takes the time-out with it.
static void test_event_before_timeout(void **state)
{
    (void)state;

    spawn(waits, 50);
    spawn(sleeps, 1000);
    fibers_run();
    SAW("a");
    event_set(&event);
    fibers_run();
    SAW("e");
    assert_int_equal(fibers_deadline(), now + 1000);
    now += 1000;
    fibers_run();
    SAW("b");
    expect_none();
}

static void test_spawned_by_fiber(void **state)
{
    (void)state;

    spawn(spawns, 0);
    assert_true(fibers_run());
    SAW("ps");
    event.set = false;
    assert_false(fibers_run());
    expect_none();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sleep),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_turn),
        cmocka_unit_test(test_event),
        cmocka_unit_test(test_event_of_fiber),
        cmocka_unit_test(test_timeout),
        cmocka_unit_test(test_event_before_timeout),
        cmocka_unit_test(test_spawned_by_fiber),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
