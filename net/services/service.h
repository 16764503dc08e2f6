// SPDX-License-Identifier: BSD-2-Clause
// What a service is to the stack. A service belongs to one core and runs from that core's loop: in
// lwIP's callbacks, in lwIP's timers and in its own poll().
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct service {
    const char *name; // as it is announced
    uint16_t port;    // set by start()
    // Opens the service's port. 0, or a negative errno.
    int (*start)(struct service *service);
    // Every turn of the loop, outside of lwIP's callbacks. True if there was work. Must be cheap.
    bool (*poll)(void);
};

extern struct service iperf3_service;
