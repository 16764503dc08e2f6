// SPDX-License-Identifier: BSD-2-Clause
// The log; see log.h. Text goes into a ring, under one lock, and from there to the consoles: a port takes
// some 20 us a byte on an emulated machine, and each byte is an exit on a real one, so core 0's loop gives
// it no more than its FIFO takes, a turn. It begins when core 0 has been without work for a moment, or,
// if it never is, when text has waited for long. A full ring makes the caller write: nothing is lost.
#include "kernel/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>

#include <stb_sprintf.h>

#include "kernel/core.h"
#include "kernel/lock.h"
#include "kernel/loop.h"
#include "kernel/machine.h"
#include "kernel/time.h"
#include "kernel/utc.h"

#define LINE_MAX 320
#define RING_BYTES 65536ull // the longest text, a line of statistics, has half of that
#define QUIET TIME_MS
#define PATIENCE (100 * TIME_MS)
#define RETRY TIME_MS // of a port that was full
// After so many in a row, RETRY apart, what waits goes to the screen only. (No span of time: the clock may
// leap while nobody looks.)
#define REFUSALS 1000u
#define WAIT_SPINS 2000000 // the same where there is no loop
#define WAIT_SPINS_STUCK 10u

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static int level_limit = LOG_INFO;
static struct lock log_lock;
static bool at_once = true; // until there is a loop, and at the end
static unsigned spins = WAIT_SPINS;
static atomic_bool asleep; // core 0, or it is about to be

// Changed under the lock; core 0 looks without it.
static char ring[RING_BYTES];
static uint64_t written, shown; // bytes ever
static uint64_t since, retry;   // text has waited; not before
static unsigned refused;        // how often in a row the port took nothing
static bool undrawn;            // the screen has more to show

#define LOOK(x) __atomic_load_n(&(x), __ATOMIC_RELAXED)

// Shows what the port takes without waiting. False: nothing.
static bool show_some(void)
{
    unsigned room = serial_room();

    if (room == 0)
        return false;
    refused = 0;
    spins = WAIT_SPINS;
    while (shown < written && room >= 2) { // a newline takes two
        char c = ring[shown % RING_BYTES];
        if (c == '\n') {
            serial_put('\r');
            room--;
        }
        serial_put(c);
        room--;
        framebuffer_put(c);
        shown++; // after all of it: a panic goes on from here
    }
    undrawn = true;
    return true;
}

static void show_on_screen(void)
{
    for (; shown < written; shown++)
        framebuffer_put(ring[shown % RING_BYTES]);
    undrawn = true;
}

// Whoever reads the other end may be slow. One that is dead costs time once, then little.
static bool wait_for_room(void)
{
    for (unsigned i = 0; i < spins; i++) {
        if (serial_room() > 0)
            return true;
        cpu_pause();
    }
    spins = WAIT_SPINS_STUCK;
    return false;
}

static void show_until(uint64_t end)
{
    while (shown < end)
        if (!show_some() && !wait_for_room())
            show_on_screen();
}

static void show_all(void)
{
    show_until(written);
    while (framebuffer_draw())
        ;
    undrawn = false;
}

// ---- Core 0's loop ----

static bool waiting(void)
{
    return LOOK(written) != LOOK(shown) || LOOK(undrawn);
}

static uint64_t due(void)
{
    uint64_t idle = cores[0].idle_from, late = LOOK(since) + PATIENCE;
    uint64_t first = idle && idle + QUIET < late ? idle + QUIET : late;

    return first > retry ? first : retry;
}

// What it does is not work: core 0 counts as idle, and does not halt before the time of its deadline.
static bool log_poll(void *ctx)
{
    uint64_t now;

    (void)ctx;
    if (atomic_load_explicit(&asleep, memory_order_relaxed))
        atomic_store_explicit(&asleep, false, memory_order_relaxed);
    if (!waiting() || (now = time_now()) < due())
        return false;
    bool enabled = lock(&log_lock);
    if (shown < written && !show_some()) {
        if (refused < REFUSALS) {
            refused++;
            retry = now + RETRY;
        } else {
            spins = WAIT_SPINS_STUCK; // nor will the machine's end wait for it
            show_on_screen();
        }
    }
    undrawn = framebuffer_draw();
    unlock(&log_lock, enabled);
    return false;
}

// Then the deadline looks whether there is something; others write, then look whether core 0 sleeps.
static bool log_arm(void *ctx)
{
    (void)ctx;
    atomic_store(&asleep, true);
    return false;
}

static uint64_t log_deadline(void *ctx)
{
    (void)ctx;
    return waiting() ? due() : UINT64_MAX;
}

void log_start(void)
{
    static struct poller poller = {
        .name = "log", .poll = log_poll, .arm = log_arm, .deadline = log_deadline};

    loop_add(&poller);
    at_once = false;
}

// ---- Any core ----

void log_init(const struct boot_info *info)
{
    serial_init(info->serial_port);
    framebuffer_init(&info->framebuffer);
}

void log_set_level(int level)
{
    level_limit = level;
}

void log_seize(void)
{
    atomic_store(&log_lock.held, false);
    at_once = true;
    show_until(written); // on the screen with the text that follows: drawing may be what went wrong
}

void log_text(const char *text, size_t length)
{
    bool enabled = lock(&log_lock);

    if (shown == written)
        since = time_now();
    for (size_t i = 0; i < length; i++) {
        if (written - shown == RING_BYTES)
            show_until(shown + 1);
        ring[written % RING_BYTES] = text[i];
        written++;
    }
    if (at_once)
        show_all();
    unlock(&log_lock, enabled);
    if (core_id() != 0 && atomic_exchange(&asleep, false))
        apic_send_wake(cores[0].apic_id);
}

size_t log_tail(char *out, size_t size)
{
    uint64_t from = written > size ? written - size : 0;

    if (from > 0)
        while (from < written && ring[(from - 1) % RING_BYTES] != '\n')
            from++;
    for (uint64_t i = from; i < written; i++)
        out[i - from] = ring[i % RING_BYTES];
    return written - from;
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
