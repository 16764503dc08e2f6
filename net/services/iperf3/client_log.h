// SPDX-License-Identifier: BSD-2-Clause
// Log lines that clients can cause: consoles are slow and must not be flooded.
#pragma once

#include <stdbool.h>

#include "kernel/log.h"

// True if one more such line may be logged by this core now.
bool client_log_allowed(void);

#define LOG_CLIENT(log, ...)                                                                       \
    do {                                                                                           \
        if (client_log_allowed())                                                                  \
            log(__VA_ARGS__);                                                                      \
    } while (0)
