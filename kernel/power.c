// SPDX-License-Identifier: BSD-2-Clause
// Orderly ends: power-off and restart, as the host asks by its integration service or by the machine's
// power button, or by the console. What runs is finished or dropped (power.h), the host is told (VMBus)
// and its pages are given back.
#include "kernel/power.h"

#include "drivers/vmbus/vmbus.h"
#include "kernel/config.h"
#include "kernel/cpu.h"
#include "kernel/fiber.h"
#include "kernel/log.h"
#include "kernel/loop.h"
#include "kernel/machine.h"
#include "kernel/platform.h"
#include "kernel/time.h"
#include "kernel/vectors.h"

#define STRAY_MAX 1000 // interrupts of the button's line that are not the button's
#define LOOK_AGAIN (10 * TIME_MS)
#define GRACE (3 * TIME_S)         // for the cores to do what they are told
#define LAST_WORDS (100 * TIME_MS) // for the resets of what was dropped to leave

static volatile bool button_pressed; // by the interrupt, on core 0
static unsigned irq, stray;

static const struct power_work *work;
static struct {
    volatile bool begun;
    enum power_end how;
    uint64_t deadline;
} ending;

static void leave_host(void)
{
    machine_seize();
    if (platform_running()) {
        vmbus_unload();
        platform_stop();
    }
}

_Noreturn void machine_poweroff(void)
{
    leave_host();
    log_announce("power off");
    acpi_poweroff();
    log_announce("the machine does not power off; halted");
    machine_halt();
}

void machine_reset(void)
{
    platform_reset();
    acpi_reset();
    log_announce("the machine does not restart; halted");
}

static _Noreturn void machine_restart(void)
{
    leave_host();
    log_announce("restart");
    machine_reset();
    machine_halt();
}

static _Noreturn void end_now(void)
{
    if (ending.how == POWER_RESTART)
        machine_restart();
    machine_poweroff();
}

static void finish_work(void)
{
    unsigned left;

    work->begin();
    while ((left = work->left()) > 0 && time_now() < ending.deadline)
        fiber_sleep(LOOK_AGAIN);
    if (left == 0)
        return;
    log_info("power: %u connections are dropped", left);
    work->abandon();
    fiber_sleep(LAST_WORDS);
}

static void end_fiber(void *arg)
{
    (void)arg;
    if (work)
        finish_work();
    end_now();
}

void power_register(const struct power_work *w)
{
    work = w;
}

bool power_ending(void)
{
    return ending.begun;
}

void power_end(enum power_end end, bool forced, uint64_t within)
{
    uint64_t most = config.shutdown_timeout * TIME_S;

    if (ending.begun && !forced)
        return;
    ending.how = end;
    if (within == 0 || within > most)
        within = most;
    ending.deadline = time_now() + within;
    if (!ending.begun)
        log_info("power: %s%s", end == POWER_RESTART ? "restart" : "power off",
                 forced ? " at once" : "");
    ending.begun = true;
    if (forced || fiber_spawn("end", end_fiber, NULL) != 0)
        end_now();
}

static void on_acpi(void)
{
    if (acpi_take_power_button())
        button_pressed = true;
    else if (++stray == STRAY_MAX)
        ioapic_mask(irq); // an event that we do not know holds the line: it would never end
}

static bool poll_button(void *ctx)
{
    (void)ctx;
    if (!button_pressed)
        return false;
    button_pressed = false;
    power_end(POWER_OFF, false, 0);
    return true;
}

static bool arm_button(void *ctx)
{
    (void)ctx;
    return button_pressed;
}

static uint64_t last_moment(void *ctx)
{
    (void)ctx;
    return ending.begun ? ending.deadline + GRACE : UINT64_MAX;
}

// The fiber waits for each core to do its part. One that does not answer must not keep the machine.
static bool poll_end(void *ctx)
{
    if (!ending.begun || time_now() < last_moment(ctx))
        return false;
    log_error("power: a core does not answer, the end comes without it");
    end_now();
}

void power_init(void)
{
    static struct poller poller = {.name = "power", .poll = poll_button, .arm = arm_button};
    static struct poller end_poller = {.name = "end", .poll = poll_end, .deadline = last_moment};

    loop_add(&end_poller);
    if (!acpi_enable_power_button(&irq))
        return;
    irq_set(VECTOR_ACPI, on_acpi, true);
    if (ioapic_route(irq, VECTOR_ACPI))
        loop_add(&poller);
}
