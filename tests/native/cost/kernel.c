// SPDX-License-Identifier: BSD-2-Clause
// What net/ uses of the kernel beyond tests/unit/fake_kernel.c, for the cost program: one core.
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/console.h"
#include "kernel/core.h"
#include "kernel/log.h"
#include "kernel/power.h"
#include "kernel/random.h"
#include "kernel/time.h"

#define STB_SPRINTF_IMPLEMENTATION
#define STB_SPRINTF_NOFLOAT
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wimplicit-fallthrough"
#include <stb_sprintf.h>
#pragma GCC diagnostic pop

uint64_t core_busy_time(void)
{
    return time_now(); // it always works
}

uint32_t random_u32(void)
{
    return (uint32_t)rand();
}

// Any hash will do; few connections are made.
uint64_t siphash24(const uint8_t key[16], const void *data, size_t len)
{
    uint64_t hash = key[0];
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ ((const uint8_t *)data)[i]) * 0x100000001b3;
    return hash;
}

void log_announce(const char *format, ...)
{
    (void)format; // "ready: ..." is known here
}

void console_add(struct console_command *command)
{
    (void)command; // nobody types
}

void power_register(const struct power_work *work)
{
    (void)work; // it has no end but exit()
}

bool power_ending(void)
{
    return false;
}
