// SPDX-License-Identifier: BSD-2-Clause
// The machine's orderly end: when what runs has finished, when its time is over, and when a core does not
// answer any more, so that nobody can tell.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "drivers/vmbus/vmbus.h"
#include "kernel/config.h"
#include "kernel/fiber.h"
#include "kernel/log.h"
#include "kernel/loop.h"
#include "kernel/machine.h"
#include "kernel/platform.h"
#include "kernel/power.h"
#include "kernel/time.h"
#include "kernel/vectors.h"

struct config config = {.shutdown_timeout = 10};

static uint64_t now = 100 * TIME_S;
static struct poller *poller;
static void (*fiber)(void *arg);
static unsigned connections, dropped;
static jmp_buf end;
enum { GOES_ON, OFF, RESTARTED };

uint64_t time_now(void)
{
    return now;
}

void log_announce(const char *format, ...)
{
    (void)format;
}

void loop_add(struct poller *p)
{
    poller = p;
}

int fiber_spawn(const char *name, void (*fn)(void *arg), void *arg)
{
    (void)name, (void)arg;
    fiber = fn;
    return 0;
}

void fiber_sleep(uint64_t duration)
{
    now += duration;
}

bool acpi_enable_power_button(unsigned *irq)
{
    (void)irq;
    return false;
}

bool acpi_take_power_button(void)
{
    return false;
}

bool ioapic_route(unsigned isa_irq, uint8_t vector)
{
    (void)isa_irq, (void)vector;
    return false;
}

void ioapic_mask(unsigned isa_irq)
{
    (void)isa_irq;
}

void irq_set(enum vector vector, void (*fn)(void), bool eoi)
{
    (void)vector, (void)fn, (void)eoi;
}

bool platform_running(void)
{
    return false;
}

void platform_stop(void)
{
}

void vmbus_unload(void)
{
}

void machine_seize(void)
{
}

bool acpi_poweroff(void)
{
    longjmp(end, OFF);
}

void platform_reset(void)
{
    longjmp(end, RESTARTED);
}

bool acpi_reset(void)
{
    return false;
}

_Noreturn void machine_halt(void)
{
    abort();
}

// ---- What runs ----

static void begin(void)
{
}

static unsigned left(void)
{
    return connections;
}

static void abandon(void)
{
    dropped = connections;
    connections = 0;
}

static const struct power_work work = {.begin = begin, .left = left, .abandon = abandon};

// An end is asked for; what comes of it while the fiber runs.
static int run_fiber(unsigned open, uint64_t within)
{
    int how = setjmp(end);

    if (how)
        return how;
    power_register(&work);
    connections = open;
    power_end(POWER_OFF, false, within);
    fiber(NULL);
    return GOES_ON;
}

static int look(void)
{
    int how = setjmp(end);

    if (!how)
        poller->poll(poller->ctx);
    return how;
}

// Everything stands in one test: an end that has begun stays so.
static void test_end(void **state)
{
    (void)state;
    power_init();
    assert_true(poller->deadline(poller->ctx) == UINT64_MAX);
    assert_int_equal(look(), GOES_ON);
    uint64_t start = now;
    assert_int_equal(run_fiber(3, 5 * TIME_S), OFF); // none of them finishes
    assert_int_equal(dropped, 3);
    assert_true(now >= start + 5 * TIME_S && now < start + 6 * TIME_S);
    // The same, but the fiber waits for a core that does not answer.
    now = start;
    assert_int_equal(look(), GOES_ON);
    uint64_t last = poller->deadline(poller->ctx);
    assert_true(last >= start + 6 * TIME_S && last < start + 15 * TIME_S);
    now = last - 1;
    assert_int_equal(look(), GOES_ON);
    now = last;
    assert_int_equal(look(), OFF);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_end)};

    return cmocka_run_group_tests_name("power", tests, NULL, NULL);
}
