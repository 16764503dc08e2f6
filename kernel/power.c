// SPDX-License-Identifier: BSD-2-Clause
// Orderly ends: power-off and restart, from the console or by the machine's power button, which is
// how a host asks a guest to stop. The host is told before (VMBus), its pages are given back.
#include "drivers/vmbus/vmbus.h"
#include "kernel/cpu.h"
#include "kernel/log.h"
#include "kernel/loop.h"
#include "kernel/machine.h"
#include "kernel/platform.h"
#include "kernel/vectors.h"

#define STRAY_MAX 1000 // interrupts of the button's line that are not the button's

static volatile bool button_pressed; // by the interrupt, on core 0
static unsigned irq, stray;

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

_Noreturn void machine_restart(void)
{
    leave_host();
    log_announce("restart");
    machine_reset();
    machine_halt();
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
    if (button_pressed)
        machine_poweroff();
    return false;
}

static bool arm_button(void *ctx)
{
    (void)ctx;
    return button_pressed;
}

void power_init(void)
{
    static struct poller poller = {.name = "power", .poll = poll_button, .arm = arm_button};

    if (!acpi_enable_power_button(&irq))
        return;
    irq_set(VECTOR_ACPI, on_acpi, true);
    if (ioapic_route(irq, VECTOR_ACPI))
        loop_add(&poller);
}
