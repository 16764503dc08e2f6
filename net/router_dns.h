// SPDX-License-Identifier: BSD-2-Clause
// The DNS servers that routers advertise (RFC 8106), each for as long as it was said. Pure; used by
// ip6_input.c, link.c and report.c, of core 0's interfaces.
#pragma once

#include <stdint.h>

#define ROUTER_DNS 3

struct router_dns {
    struct {
        uint8_t address[16];
        uint64_t until; // time_now() units; 0: free
    } servers[ROUTER_DNS];
};

// An option of a sound advertisement, `bytes` long from its first byte to its last.
void router_dns_take(struct router_dns *dns, const uint8_t *option, unsigned bytes, uint64_t now);

// So much time passed that `now` does not show.
void router_dns_age(struct router_dns *dns, uint64_t missed);
