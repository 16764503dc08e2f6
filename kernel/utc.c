// SPDX-License-Identifier: BSD-2-Clause
// See utc.h. Core 0 writes, all cores read: a count that is odd while the numbers change tells readers
// to look again. A reader may have interrupted the writer, so it does not look for ever.
#include "kernel/utc.h"

#include <stdatomic.h>
#include <stddef.h>

#include "kernel/console.h"
#include "kernel/log.h"
#include "kernel/time.h"

#define LEAST 17356896000000000ull     // 2025-01-01
#define MOST 72581184000000000ull      // 2200-01-01
#define SLEW_PART 2000                 // 500 ppm
#define SUSPICIOUS ((int64_t)TIME_S)   // samples that are off by more
#define AGREE ((int64_t)TIME_S / 10)   // two of them that say the same
#define LOUD ((int64_t)(10 * TIME_MS)) // steps that are worth a line
#define LEAP ((int64_t)(10 * TIME_S))  // what utc_watch() is for
#define OLD (60 * TIME_S)
#define READ_TRIES 100

static struct {
    atomic_uint changing; // odd: now
    int64_t offset;       // of UTC to reference time at `from`; 0: not known
    int64_t slew;         // to be added bit by bit
    uint64_t from;
} now_is;

static int64_t suspicion; // how far off the last sample was, if that was suspicious
static uint64_t samples, steps, refused;
static void (*watcher)(int64_t by);

// The part of the slew that is done.
static int64_t slewed(int64_t slew, uint64_t elapsed)
{
    int64_t most = (int64_t)(elapsed / SLEW_PART);

    if (slew < 0)
        return slew < -most ? -most : slew;
    return slew > most ? most : slew;
}

static uint64_t utc_at(uint64_t now)
{
    uint64_t elapsed = now > now_is.from ? now - now_is.from : 0;

    return now_is.offset ? now + (uint64_t)(now_is.offset + slewed(now_is.slew, elapsed)) : 0;
}

uint64_t utc_now(void)
{
    for (unsigned i = 0; i < READ_TRIES; i++) {
        unsigned before = atomic_load_explicit(&now_is.changing, memory_order_acquire);
        uint64_t utc = utc_at(time_now());

        atomic_thread_fence(memory_order_acquire);
        if (!(before & 1) && atomic_load_explicit(&now_is.changing, memory_order_relaxed) == before)
            return utc;
    }
    return 0;
}

static void set(uint64_t now, int64_t offset, int64_t slew)
{
    unsigned before = atomic_load_explicit(&now_is.changing, memory_order_relaxed);

    atomic_store_explicit(&now_is.changing, before + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    now_is.offset = offset;
    now_is.slew = slew;
    now_is.from = now;
    atomic_store_explicit(&now_is.changing, before + 2, memory_order_release);
}

static void step(uint64_t now, int64_t offset, int64_t by)
{
    char text[UTC_TEXT_BYTES];
    bool known = now_is.offset;

    set(now, offset, 0);
    suspicion = 0;
    steps++;
    utc_text(now + (uint64_t)offset, text);
    if (!known)
        log_debug("clock: the host says that it is %s", text);
    else if (by > LOUD || by < -LOUD)
        log_info("clock: set %s by %lld ms, to %s", by > 0 ? "ahead" : "back",
                 (long long)((by > 0 ? by : -by) / (int64_t)TIME_MS), text);
    if (known && watcher && (by > LEAP || by < -LEAP))
        watcher(by);
}

bool utc_take(uint64_t utc, uint64_t at, bool sync)
{
    uint64_t now = time_now();

    if (utc < LEAST || utc > MOST || at > now || now - at > OLD) {
        refused++;
        return false;
    }
    int64_t offset = (int64_t)(utc - at);
    int64_t by = now_is.offset ? offset - (int64_t)(utc_at(now) - now) : 0;
    bool far = by > SUSPICIOUS || by < -SUSPICIOUS;
    bool again = far && suspicion && by - suspicion <= AGREE && suspicion - by <= AGREE;
    samples++;
    if (sync || !now_is.offset || again) {
        step(now, offset, by);
    } else if (far) {
        suspicion = by;
    } else {
        suspicion = 0;
        set(now, offset - by, by);
    }
    return true;
}

void utc_watch(void (*fn)(int64_t by))
{
    watcher = fn;
}

// Years and months from days (of the proleptic Gregorian calendar): counted in years that begin in
// March, so that the leap day is a year's last.
static void put_date(uint64_t days, char *text)
{
    uint64_t d = days + 719468; // since 0000-03-01
    uint64_t era = d / 146097, of_era = d % 146097;
    uint64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    uint64_t of_year = of_era - (365 * year + year / 4 - year / 100);
    uint64_t month = (5 * of_year + 2) / 153; // 0: March
    uint64_t day = of_year - (153 * month + 2) / 5 + 1;

    year += era * 400 + (month >= 10);
    month = month < 10 ? month + 3 : month - 9;
    const uint64_t digits[] = {year / 1000, year / 100, year / 10, year,     10,
                               month / 10,  month,      10,        day / 10, day};
    for (unsigned i = 0; i < sizeof(digits) / sizeof(digits[0]); i++)
        text[i] = i == 4 || i == 7 ? '-' : (char)('0' + digits[i] % 10);
}

void utc_text(uint64_t utc, char text[UTC_TEXT_BYTES])
{
    static const char form[UTC_TEXT_BYTES] = "0000-00-00T00:00:00.000Z";
    uint64_t ms = utc / TIME_MS % (24 * 3600 * 1000);
    const struct {
        unsigned at;
        uint64_t unit, modulus;
    } fields[] = {{11, 36000000, 10}, {12, 3600000, 10}, {14, 600000, 6},
                  {15, 60000, 10},    {17, 10000, 6},    {18, 1000, 10},
                  {20, 100, 10},      {21, 10, 10},      {22, 1, 10}};

    for (unsigned i = 0; i < UTC_TEXT_BYTES; i++)
        text[i] = form[i];
    put_date(utc / (24 * 3600 * TIME_S), text);
    for (unsigned i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        text[fields[i].at] = (char)('0' + ms / fields[i].unit % fields[i].modulus);
}

static void write_stats(void)
{
    char text[UTC_TEXT_BYTES];
    uint64_t utc = utc_now();

    utc_text(utc, text);
    stats_print("{\"utc\":\"%s\",\"samples\":%llu,\"steps\":%llu,\"refused\":%llu}",
                utc ? text : "", (unsigned long long)samples, (unsigned long long)steps,
                (unsigned long long)refused);
}

static struct stats_source stats = {.name = "clock", .write = write_stats};

void utc_start(void)
{
    stats_add(&stats);
}
