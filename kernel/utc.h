// SPDX-License-Identifier: BSD-2-Clause
// The wall clock: UTC, as the host tells it (drivers/ic/timesync.c), carried on by reference time. Not
// known at first. Times are 100 ns units since 1970-01-01 00:00 UTC, leap seconds left out.
#pragma once

#include <stdbool.h>
#include <stdint.h>

// What time it is; 0: not known (yet). Any core, any context.
uint64_t utc_now(void);

// It was `utc` at reference time `at`, says the host. `sync`: set the clock to it at once. Else it is a
// sample: the first one counts like sync; then the clock is brought there by at most 500 ppm, so that it
// never goes back; one that is off by more than a second is believed only when the next one says the
// same. False: refused, the clock is what it was (a time before 2025 or after 2200, a moment in the
// future or more than a minute ago). Core 0.
bool utc_take(uint64_t utc, uint64_t at, bool sync);

// Has fn called when the clock was set ahead or back by more than 10 seconds, in time_now() units: the
// machine was probably paused or moved. One function; core 0, start-up. fn runs in core 0's loop.
void utc_watch(void (*fn)(int64_t by));

#define UTC_TEXT_BYTES 25

// "2026-11-23T18:04:31.123Z". Any context.
void utc_text(uint64_t utc, char text[UTC_TEXT_BYTES]);
