// SPDX-License-Identifier: BSD-2-Clause
// Commands typed on COM1, one a line: `help`, `stats`, `poweroff`, `panic`, ... Input is interrupt
// driven; the command runs on core 0 from the loop.
#pragma once

struct console_command {
    const char *name;
    const char *help;              // one line
    void (*run)(const char *args); // text after the name, never NULL
    struct console_command *next;
};

// Core 0, start-up. The structure must live for ever.
void console_add(struct console_command *command);

// The `stats` command prints one line "dunlin: stats: {...}", a JSON object with one member for
// each of these. `write` appends the member's value (a JSON object) by calls of stats_print.
struct stats_source {
    const char *name;
    void (*write)(void);
    struct stats_source *next;
};
void stats_add(struct stats_source *source);
void stats_print(const char *format, ...) __attribute__((format(printf, 1, 2)));
