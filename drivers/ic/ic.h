// SPDX-License-Identifier: BSD-2-Clause
// Hyper-V's integration services, as the rest of the system sees them: what the host's management may
// ask of the stack is a table of functions. All of it on core 0, from its loop.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum ic_state { // of the application, in each heartbeat
    IC_STATE_UNKNOWN = 0,
    IC_STATE_HEALTHY = 1,
    IC_STATE_CRITICAL = 2,
    IC_STATE_STOPPED = 3,
};

enum ic_family { // bits
    IC_IP4 = 1,
    IC_IP6 = 2,
};

// A NIC's configuration as text; lists are separated by semicolons, one subnet for each address:
// 255.255.255.0 for IPv4, /64 for IPv6.
struct ic_ip_info {
    uint8_t families; // enum ic_family: of which it speaks
    bool dhcp;
    char addresses[1024], subnets[1024], gateways[512], dns[1024];
};

struct ic_client {
    enum ic_state (*state)(void);
    // All addresses of all NICs that others can reach, of one family, as a list.
    void (*addresses)(enum ic_family family, char *out, size_t size);
    // Of the NIC that has this instance id ("{...}", braces may lack) or MAC ("00:15:5D:01:02:03"), in
    // either case. False: there is none.
    bool (*ip_info)(const char *adapter, struct ic_ip_info *out);
    // Configures a NIC: 0, -ENODEV (no such NIC), -EINVAL (does not make sense; nothing is changed).
    // What comes in is text, but the host's: not checked.
    int (*set_ip_info)(const char *adapter, const struct ic_ip_info *info);
};

// Registers the drivers of all services with VMBus. Core 0, before vmbus_start(). The client must live
// for ever.
void ic_start(const struct ic_client *client);
