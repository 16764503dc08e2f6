// SPDX-License-Identifier: BSD-2-Clause
// The table of contents of the kernel: what happens from the first instruction in C to the loop.
#include "drivers/ic/ic.h"
#include "drivers/vmbus/vmbus.h"
#include "kernel/alloc.h"
#include "kernel/log.h"
#include "kernel/loop.h"
#include "kernel/machine.h"
#include "kernel/paging.h"
#include "kernel/panic.h"
#include "kernel/platform.h"
#include "kernel/random.h"
#include "net/net.h"

uintptr_t __stack_chk_guard = 0x5a17c0de00d1e500; // until there are random numbers

static void check_boot_info(const struct boot_info *info)
{
    if (info->magic != BOOT_INFO_MAGIC || info->version != BOOT_INFO_VERSION ||
        info->size != sizeof(*info))
        panic("boot: the boot program speaks another version (%u)", info->version);
}

// A network stack for Hyper-V has no business elsewhere.
static void require_hyperv(void)
{
    const char *reason = platform_detect();

    if (!reason)
        return;
    log_announce("not Hyper-V: %s", reason);
    machine_poweroff();
}

static void report_machine(const struct boot_info *info)
{
    struct memory_stats memory;

    memory_stats(&memory);
    log_info("kernel: %u MiB of memory, %u free; serial port %s, screen %ux%u",
             (unsigned)(memory.pages_total >> 8), (unsigned)(memory.pages_free >> 8),
             info->serial_port ? "COM1" : "none", info->framebuffer.width,
             info->framebuffer.height);
}

// Not protected itself: it changes what a protected function compares with before it returns.
__attribute__((no_stack_protector)) static void set_stack_canary(void)
{
    uintptr_t canary;

    random_bytes(&canary, sizeof(canary));
    __stack_chk_guard = canary & ~(uintptr_t)0xff; // a string overrun cannot write the zero byte
}

// Runs on core 0's own stack; never returns, so it may change the stack protector's canary.
__attribute__((no_stack_protector)) _Noreturn void kernel_main(const struct boot_info *info);

_Noreturn void kernel_main(const struct boot_info *info)
{
    check_boot_info(info);
    log_init(info);
    log_announce("starting");
    memory_init(info);
    paging_init(info);
    traps_init();
    traps_init_core();
    acpi_init(info->acpi_rsdp);
    require_hyperv();

    random_init(info);
    set_stack_canary();
    apic_init();
    apic_init_core();
    platform_init();
    platform_init_core();
    core_describe();
    log_start();
    config_init(info);
    report_machine(info);
    console_init();
    power_init();
    utc_start();

    vmbus_start_core(); // before the stack, which then answers in the same turn of the loop
    cores_start(info);
    net_start();
    ic_start(&net_ic_client);
    vmbus_start();
    loop_run();
}
