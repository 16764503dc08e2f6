// SPDX-License-Identifier: BSD-2-Clause
// The log: one line per call to a ring in memory, from which core 0's loop shows it on every console
// (serial, framebuffer) a little later, and whose end a panic sends to the host ahead of its report.
// Before there is a loop, and at the end of the machine, lines are shown at once. Any core, any context
// but NMI; lines of several cores never mix.
#pragma once

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

// printf format of stb_sprintf. Lines above the configured level are dropped. The line is
// "[seconds.micros UTC] cN level: subsystem: text", UTC only once it is known (utc.h); write
// "subsystem: text" and no newline.
void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)

// A line for programs that watch the console: printed as "dunlin: <text>", at every level, no
// prefix.
void log_announce(const char *format, ...) __attribute__((format(printf, 1, 2)));
