// SPDX-License-Identifier: BSD-2-Clause
// See router_dns.h.
#include "net/router_dns.h"

#include <string.h>

#include "kernel/time.h"

#define HEADER_BYTES 8u
#define ADDRESS_BYTES 16u
#define FOR_EVER UINT32_MAX

static void set(struct router_dns *dns, const uint8_t *address, uint64_t until)
{
    static const uint8_t none[ADDRESS_BYTES];
    unsigned soonest = 0; // or free
    if (address[0] == 0xff || !memcmp(address, none, sizeof(none)))
        return;
    for (unsigned i = 0; i < ROUTER_DNS; i++) {
        if (dns->servers[i].until && !memcmp(dns->servers[i].address, address, ADDRESS_BYTES)) {
            dns->servers[i].until = until;
            return;
        }
        if (dns->servers[i].until < dns->servers[soonest].until)
            soonest = i;
    }
    if (!until)
        return;
    memcpy(dns->servers[soonest].address, address, ADDRESS_BYTES);
    dns->servers[soonest].until = until;
}

void router_dns_take(struct router_dns *dns, const uint8_t *option, unsigned bytes, uint64_t now)
{
    if (bytes < HEADER_BYTES)
        return;
    uint32_t lifetime = (uint32_t)option[4] << 24 | (uint32_t)option[5] << 16 |
                        (uint32_t)option[6] << 8 | option[7];
    uint64_t until = lifetime == FOR_EVER ? UINT64_MAX : now + lifetime * TIME_S;
    for (unsigned at = HEADER_BYTES; at + ADDRESS_BYTES <= bytes; at += ADDRESS_BYTES)
        set(dns, option + at, lifetime ? until : 0);
}

void router_dns_age(struct router_dns *dns, uint64_t missed)
{
    for (unsigned i = 0; i < ROUTER_DNS; i++) {
        uint64_t *until = &dns->servers[i].until;
        if (*until != UINT64_MAX)
            *until -= *until < missed ? *until : missed;
    }
}
