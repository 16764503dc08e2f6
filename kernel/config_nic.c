// SPDX-License-Identifier: BSD-2-Clause
// Which keys of dunlin.conf count for a NIC: its own section's or those of [net] and [netvsc]; and which
// addresses it may have. Pure; called by net/ and netvsc when a NIC comes, by net/ when the host configures
// one, and by the parser.
#include <string.h>

#include "kernel/config.h"

unsigned config_find_nic(const struct config *config, const uint8_t mac[6])
{
    unsigned i = 0;

    while (i < config->nic_count && memcmp(config->nics[i].mac, mac, 6) != 0)
        i++;
    return i;
}

static void take_own(const struct config_nic *nic, struct nic_config *out)
{
    const struct nic_config *own = &nic->own;

    if (nic->named & 1u << KEY_ADDRESS) {
        out->dhcp = own->dhcp;
        out->address = own->address;
        out->netmask = own->netmask;
    }
    if (nic->named & 1u << KEY_GATEWAY)
        out->gateway = own->gateway;
    if (nic->named & 1u << KEY_ADDRESS6) {
        out->ip6 = own->ip6;
        memcpy(out->address6, own->address6, sizeof(out->address6));
    }
    if (nic->named & 1u << KEY_GATEWAY6)
        memcpy(out->gateway6, own->gateway6, sizeof(out->gateway6));
    if (nic->named & 1u << KEY_MTU)
        out->mtu = own->mtu;
    if (nic->named & 1u << KEY_METRIC)
        out->metric = own->metric;
    if (nic->named & 1u << KEY_CHECKSUM)
        out->checksum = own->checksum;
    if (nic->named & 1u << KEY_LSO)
        out->lso = own->lso;
    if (nic->named & 1u << KEY_RSC)
        out->rsc = own->rsc;
}

bool config_of_nic(const struct config *config, const uint8_t mac[6], bool first,
                   struct nic_config *out)
{
    const unsigned addresses = 1u << KEY_ADDRESS | 1u << KEY_ADDRESS6;
    unsigned at = config_find_nic(config, mac);
    const struct config_nic *nic = at < config->nic_count ? &config->nics[at] : NULL;
    bool gets = first && !(nic && nic->named & addresses);

    *out = config->net;
    if (!gets) {
        out->dhcp = true;
        out->address = out->netmask = out->gateway = 0;
        out->ip6 = out->ip6 == CONFIG_IP6_OFF ? CONFIG_IP6_OFF : CONFIG_IP6_AUTO;
        memset(out->address6, 0, sizeof(out->address6));
        memset(out->gateway6, 0, sizeof(out->gateway6));
    }
    if (nic)
        take_own(nic, out);
    return gets;
}

bool config_is_host(uint32_t address)
{
    uint8_t first = *(const uint8_t *)&address;

    return first != 0 && first != 127 && first < 224;
}

bool config_is_host_of(uint32_t address, uint32_t netmask)
{
    return config_is_host(address) && (address & ~netmask) != 0 &&
           (address | netmask) != UINT32_MAX;
}

bool config_is_host6(const uint8_t address[16], bool global)
{
    static const uint8_t zero[10];
    bool link_local = address[0] == 0xfe && (address[1] & 0xc0) == 0x80;

    // ::, ::1 and the forms that carry an IPv4 address have nothing but zeros in front.
    return address[0] != 0xff && memcmp(address, zero, sizeof(zero)) != 0 &&
           !(global && link_local);
}
