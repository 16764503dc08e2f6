// SPDX-License-Identifier: BSD-2-Clause
// How the log gets from its ring to the consoles: at once, or by core 0's loop without its waiting for the
// port; whole and in order whatever comes between: a port that is slow or dead, a full ring, the end.
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define STB_SPRINTF_NOFLOAT
#define STB_SPRINTF_NOUNALIGNED
#define STB_SPRINTF_IMPLEMENTATION
#include <stb_sprintf.h>

#include "kernel/core.h"
#include "kernel/log.h"
#include "kernel/loop.h"
#include "kernel/machine.h"
#include "kernel/time.h"
#include "kernel/utc.h"

#define FIFO 16
#define RING 65536
#define THREADS 4u
#define LINES 500u

struct core cores[MAX_CORES];
static _Thread_local unsigned this_core;
static _Atomic uint64_t now = 100 * TIME_S;
static struct poller *poller;
static struct boot_info info;

static char serial[4 * RING], screen[4 * RING];
static size_t serial_bytes, screen_bytes;
static unsigned rows, wakes, room_looks;
static bool port_full;

uint64_t time_now(void)
{
    return now;
}

uint64_t utc_now(void)
{
    return 0;
}

void utc_text(uint64_t utc, char text[UTC_TEXT_BYTES])
{
    (void)utc, (void)text;
}

unsigned core_id(void)
{
    return this_core;
}

void loop_add(struct poller *p)
{
    poller = p;
}

void apic_send_wake(uint32_t id)
{
    assert_int_equal(id, 7);
    wakes++;
}

void serial_init(uint16_t port)
{
    (void)port;
}

unsigned serial_room(void)
{
    room_looks++;
    return port_full ? 0 : FIFO;
}

void serial_put(char c)
{
    assert_true(serial_bytes < sizeof(serial));
    serial[serial_bytes++] = c;
}

void framebuffer_init(const struct boot_framebuffer *fb)
{
    (void)fb;
}

void framebuffer_put(char c)
{
    assert_true(screen_bytes < sizeof(screen));
    screen[screen_bytes++] = c;
    rows += c == '\n';
}

bool framebuffer_draw(void)
{
    return rows > 0 && rows--;
}

// What the serial port has to have received: `text` with each line's end in two bytes.
static void assert_serial(const char *text)
{
    char *expected = calloc(2, strlen(text) + 1);
    size_t length = 0;

    for (; *text; text++) {
        if (*text == '\n')
            expected[length++] = '\r';
        expected[length++] = *text;
    }
    assert_int_equal(serial_bytes, length);
    assert_memory_equal(serial, expected, length);
    free(expected);
}

static void assert_screen(const char *text)
{
    assert_int_equal(screen_bytes, strlen(text));
    assert_memory_equal(screen, text, strlen(text));
}

static void text(const char *words)
{
    log_text(words, strlen(words));
}

static bool halts(void)
{
    return !poller->arm(NULL) && poller->deadline(NULL) > now;
}

// Turns of core 0's loop without other work, until it could halt for ever.
static unsigned run_idle(void)
{
    unsigned turns = 0;

    cores[0].idle_from = now;
    while (poller->deadline(NULL) != UINT64_MAX) {
        if (halts())
            now = poller->deadline(NULL);
        size_t before = serial_bytes;
        assert_false(poller->poll(NULL));
        assert_true(serial_bytes - before <= FIFO);
        assert_true(++turns < RING);
    }
    return turns;
}

static int start(void **state)
{
    (void)state;
    this_core = 0;
    cores[0].apic_id = 7;
    port_full = false;
    log_init(&info);
    log_start();
    run_idle();
    cores[0].idle_from = 0;
    now += 10 * TIME_S;
    serial_bytes = screen_bytes = 0;
    rows = wakes = 0;
    return 0;
}

static void test_at_once_without_a_loop(void **state)
{
    (void)state;
    log_init(&info);
    log_announce("starting");
    assert_serial("dunlin: starting\n");
    assert_screen("dunlin: starting\n");
    assert_int_equal(rows, 0);
}

static void test_idle_core_writes_soon(void **state)
{
    (void)state;
    cores[0].idle_from = now;
    text("the quick brown fox jumps\nover the lazy dog\n");
    assert_true(halts());
    poller->poll(NULL);
    assert_int_equal(serial_bytes, 0);
    assert_int_equal(poller->deadline(NULL), now + TIME_MS);
    assert_true(run_idle() >= 3);
    assert_serial("the quick brown fox jumps\nover the lazy dog\n");
    assert_screen("the quick brown fox jumps\nover the lazy dog\n");
    assert_int_equal(rows, 0);
    assert_int_equal(poller->deadline(NULL), UINT64_MAX);
}

static void test_busy_core_writes_later(void **state)
{
    (void)state;
    text("twenty-four bytes long.\n");
    now += 99 * TIME_MS;
    poller->poll(NULL);
    assert_int_equal(serial_bytes, 0);
    now += TIME_MS;
    poller->poll(NULL);
    assert_in_range(serial_bytes, FIFO - 1, FIFO);
    poller->poll(NULL);
    assert_serial("twenty-four bytes long.\n");
}

static void test_others_wake_core_0(void **state)
{
    (void)state;
    cores[0].idle_from = now;
    this_core = 1;
    text("a");
    assert_int_equal(wakes, 0); // it is awake
    this_core = 0;
    assert_true(halts());
    this_core = 1;
    text("b");
    text("c");
    assert_int_equal(wakes, 1);
    this_core = 0;
    text("d"); // by itself
    poller->poll(NULL);
    assert_true(halts());
    text("e");
    assert_int_equal(wakes, 1);
    run_idle();
    assert_serial("abcde");
}

// Turns without anything to do cost nothing, nor does a halted core.
static void test_quiet(void **state)
{
    (void)state;
    room_looks = 0;
    poller->poll(NULL);
    now += TIME_S;
    poller->poll(NULL);
    assert_true(halts());
    assert_int_equal(poller->deadline(NULL), UINT64_MAX);
    assert_int_equal(room_looks, 0);
}

static void test_full_ring(void **state)
{
    char *all = calloc(1, 3 * RING), line[40];

    (void)state;
    for (unsigned i = 0; strlen(all) < 2 * RING; i++) {
        snprintf(line, sizeof(line), "line %u of many\n", i);
        strcat(all, line);
        text(line);
    }
    assert_true(serial_bytes > RING); // the caller wrote
    run_idle();
    assert_serial(all);
    free(all);
}

static void test_slow_port(void **state)
{
    (void)state;
    text("forty bytes are more than what it takes.\n");
    port_full = true;
    cores[0].idle_from = now;
    now += 2 * TIME_MS;
    room_looks = 0;
    poller->poll(NULL);
    poller->poll(NULL); // does not ask again at once
    assert_int_equal(room_looks, 1);
    assert_true(halts());
    assert_int_equal(poller->deadline(NULL), now + TIME_MS);
    now += 5 * TIME_S; // nobody looked, which is not the port's fault
    poller->poll(NULL);
    port_full = false;
    run_idle();
    assert_serial("forty bytes are more than what it takes.\n");
}

static void test_dead_port(void **state)
{
    (void)state;
    text("unheard\n");
    port_full = true;
    uint64_t before = now;
    run_idle();
    assert_in_range(now - before, TIME_S, TIME_S + 10 * TIME_MS);
    assert_screen("unheard\n");
    assert_int_equal(serial_bytes, 0);
    room_looks = 0;
    text("as this\n");
    log_seize();
    assert_in_range(room_looks, 1, 20); // nor is it waited for at the end
    log_start();
    port_full = false;
    text("heard\n");
    run_idle();
    assert_serial("heard\n");
    assert_screen("unheard\nas this\nheard\n");
}

static void test_end(void **state)
{
    char tail[8];

    (void)state;
    text("it waits\n");
    cores[0].idle_from = now;
    now += 2 * TIME_MS;
    poller->poll(NULL); // some of it
    text("so does this\n");
    log_seize();
    assert_serial("it waits\nso does this\n");
    assert_int_not_equal(rows,
                         0); // a fault while drawing must not come again before it is reported
    text("now\n");
    assert_serial("it waits\nso does this\nnow\n");
    assert_int_equal(rows, 0);
    assert_int_equal(log_tail(tail, sizeof(tail)), 4); // whole lines only
    assert_memory_equal(tail, "now\n", 4);
}

static void *log_lines(void *arg)
{
    this_core = (unsigned)(uintptr_t)arg;
    for (unsigned i = 0; i < LINES; i++)
        log_info("line %u of core %u", i, this_core);
    return NULL;
}

// Lines of several cores come whole, those of each in order.
static void test_many_cores(void **state)
{
    pthread_t threads[THREADS];
    unsigned next[THREADS + 1] = {0}, core, number, total = 0;

    (void)state;
    cores[0].idle_from = 1;
    for (uintptr_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, log_lines, (void *)(i + 1)), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        poller->poll(NULL);
        pthread_join(threads[i], NULL);
    }
    run_idle();
    screen[screen_bytes] = 0;
    for (char *line = strtok(screen, "\n"); line; line = strtok(NULL, "\n"), total++) {
        assert_int_equal(sscanf(line, "[%*[^]]] c%*u info: line %u of core %u", &number, &core), 2);
        assert_in_range(core, 1, THREADS);
        assert_int_equal(number, next[core]++);
    }
    assert_int_equal(total, THREADS * LINES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_at_once_without_a_loop), // first: log_start() is for good
        cmocka_unit_test_setup(test_idle_core_writes_soon, start),
        cmocka_unit_test_setup(test_busy_core_writes_later, start),
        cmocka_unit_test_setup(test_others_wake_core_0, start),
        cmocka_unit_test_setup(test_quiet, start),
        cmocka_unit_test_setup(test_full_ring, start),
        cmocka_unit_test_setup(test_slow_port, start),
        cmocka_unit_test_setup(test_dead_port, start),
        cmocka_unit_test_setup(test_many_cores, start),
        cmocka_unit_test_setup(test_end, start),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
