// SPDX-License-Identifier: BSD-2-Clause
// The log; see log.h. A line is put together on the stack and written under one lock.
#include "kernel/log.h"

#include <stdarg.h>
#include <string.h>

#include <stb_sprintf.h>

#include "kernel/core.h"
#include "kernel/lock.h"
#include "kernel/machine.h"
#include "kernel/time.h"
#include "kernel/utc.h"

#define LINE_MAX 320
#define RING_BYTES 4096

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static int level_limit = LOG_INFO;
static struct lock log_lock;
static char ring[RING_BYTES];
static uint64_t ring_end; // bytes ever written

void log_init(const struct boot_info *info)
{
    serial_init(info->serial_port);
    framebuffer_init(&info->framebuffer);
}

void log_set_level(int level)
{
    level_limit = level;
}

void log_break_lock(void)
{
    atomic_store(&log_lock.held, false);
}

void log_text(const char *text, size_t length)
{
    bool enabled = lock(&log_lock);

    for (size_t i = 0; i < length; i++)
        ring[ring_end++ % RING_BYTES] = text[i];
    serial_write(text, length);
    framebuffer_write(text, length);
    unlock(&log_lock, enabled);
}

size_t log_tail(char *out, size_t size)
{
    uint64_t from = ring_end > size ? ring_end - size : 0;

    if (from > 0)
        while (from < ring_end && ring[(from - 1) % RING_BYTES] != '\n')
            from++;
    for (uint64_t i = from; i < ring_end; i++)
        out[i - from] = ring[i % RING_BYTES];
    return ring_end - from;
}

void log_line(enum log_level level, const char *format, ...)
{
    char line[LINE_MAX], date[UTC_TEXT_BYTES] = "";
    uint64_t now = time_now(), utc;
    va_list args;

    if ((int)level > level_limit)
        return;
    utc = utc_now();
    if (utc)
        utc_text(utc, date);
    int length = stbsp_snprintf(line, LINE_MAX, "[%5u.%06u%s%s] c%u %s: ", (unsigned)(now / TIME_S),
                                (unsigned)(now % TIME_S / TIME_US), utc ? " " : "", date, core_id(),
                                level_names[level]);
    va_start(args, format);
    length += stbsp_vsnprintf(line + length, LINE_MAX - length, format, args);
    va_end(args);
    if (length > LINE_MAX - 2)
        length = LINE_MAX - 2;
    line[length++] = '\n';
    log_text(line, (size_t)length);
}

void log_announce(const char *format, ...)
{
    char line[LINE_MAX] = "dunlin: ";
    int length = (int)strlen(line);
    va_list args;

    va_start(args, format);
    length += stbsp_vsnprintf(line + length, LINE_MAX - length, format, args);
    va_end(args);
    if (length > LINE_MAX - 2)
        length = LINE_MAX - 2;
    line[length++] = '\n';
    log_text(line, (size_t)length);
}
