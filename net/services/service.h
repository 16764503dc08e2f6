// SPDX-License-Identifier: BSD-2-Clause
// What a service is to the stack. A service runs on every core, from that core's loop: in lwIP's
// callbacks, in lwIP's timers and in its own poll().
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct service {
    const char *name; // as it is announced
    uint16_t port;    // set by start(); 0: not started
    // Whether dunlin.conf wants it; NULL: always.
    bool (*wanted)(void);
    // Opens the service's port. 0, or a negative errno.
    int (*start)(struct service *service);
    // Every turn of the loop, outside of lwIP's callbacks. True if there was work. Must be cheap.
    // May be NULL.
    bool (*poll)(void);
};

extern struct service iperf3_service;
extern struct service echo_service;
extern struct service discard_service;
