// SPDX-License-Identifier: BSD-2-Clause
// What dunlin.conf may say, with its defaults. A malformed line is reported as file:line: reason on
// the consoles and the default kept; the machine always boots. Read-only once the kernel runs.
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum config_on_panic { PANIC_HALT, PANIC_RESTART };
enum config_ip6 { CONFIG_IP6_AUTO, CONFIG_IP6_STATIC, CONFIG_IP6_OFF };

#define CONFIG_NICS 16 // NICs with a section of their own

// The keys of a NIC.
enum nic_key {
    KEY_ADDRESS,
    KEY_GATEWAY,
    KEY_ADDRESS6,
    KEY_GATEWAY6,
    KEY_MTU,
    KEY_METRIC,
    KEY_CHECKSUM,
    KEY_LSO,
    KEY_RSC,
    NIC_KEYS
};

struct nic_config {                     // of a NIC
    bool dhcp;                          // address = dhcp (default) or a.b.c.d/prefix
    uint32_t address, netmask, gateway; // network byte order, for a static address
    enum config_ip6 ip6;                // address6 = auto (default), address/64 or off
    uint8_t address6[16];               // for CONFIG_IP6_STATIC
    uint8_t gateway6[16];               // all zero: what routers advertise
    uint16_t mtu;                       // IP MTU 576..9000, default 1500
    uint16_t metric;                    // 0 (default) to 9999: the least is asked first for a way
    bool checksum, lso, rsc; // on (default) | off; without checksum neither of the others
};

struct config {
    // [log]
    int log_level; // enum log_level; level = error|warn|info|debug, default info
    // [net], and the offloads of [netvsc]
    struct nic_config net;
    // [nic MAC]
    unsigned nic_count;
    struct config_nic {
        uint8_t mac[6];
        unsigned named; // a bit for each key (enum nic_key) that it has
        struct nic_config own;
    } nics[CONFIG_NICS];
    uint16_t mtu; // the largest of all
    bool rsc;     // any of them may have it
    // [tcp]
    bool reno; // congestion = bbr (default) | reno
    // [netvsc]
    uint32_t receive_buffer; // bytes, 128k..31m, default 4 MiB
    uint32_t send_buffer;    // bytes, 64k..15m, default 1 MiB
    uint32_t ring;           // bytes each way incl. header page, default 128 KiB
    // [iperf3]
    uint16_t iperf3_port; // default 5201
    // [services]
    bool echo, discard; // on | off (default)
    // [system]
    enum config_on_panic on_panic; // on-panic = halt (default) | restart
    uint32_t shutdown_timeout;     // seconds for connections to finish: 0..3600, default 10
    uint32_t spin; // microseconds that an idle core looks for work before it halts, default 0
};

extern struct config config;

// The place in nics[] of the section of a MAC address; nic_count: it has none.
unsigned config_find_nic(const struct config *config, const uint8_t mac[6]);

// What is configured for the NIC with this MAC address: its own section's keys, and where it has none
// those of [net] and [netvsc]. The addresses and gateways of [net] are for one NIC only: for this one if
// `first`, and if its own section names no address. Returns whether it got them.
bool config_of_nic(const struct config *config, const uint8_t mac[6], bool first,
                   struct nic_config *out);

// Whether an IPv4 address (network byte order) may be one host's: not this network's (0/8), loopback,
// multicast or beyond. And whether it may be in its subnet, too: neither the first nor the last of it.
bool config_is_host(uint32_t address);
bool config_is_host_of(uint32_t address, uint32_t netmask);

// Whether an IPv6 address may be a host's: unicast and not loopback; if global, not of one link only.
bool config_is_host6(const uint8_t address[16], bool global);

// Parses text (NUL terminated) into *out, which starts from defaults. Calls report(line, reason)
// for each bad line. Returns the number of bad lines. Pure: also used by the unit tests.
unsigned config_parse(const char *text, struct config *out,
                      void (*report)(unsigned line, const char *reason, void *ctx), void *ctx);
