// SPDX-License-Identifier: BSD-2-Clause
// dunlin.conf: which keys there are, what each may say, what happens otherwise. The syntax is
// inih's ([section], key = value, ; or # comments). What then counts for a NIC is config_nic.c's.
// Called once at start-up; a pure function but for the global `config`, so the unit tests run it too.
#include "kernel/config.h"

#include <ini.h>
#include <stddef.h>
#include <string.h>

#include "kernel/log.h"

struct config config;

static const struct config defaults = {
    .log_level = LOG_INFO,
    .net = {.dhcp = true, .mtu = 1500, .checksum = true, .lso = true, .rsc = true},
    .mtu = 1500,
    .rsc = true,
    .receive_buffer = 4u << 20,
    .send_buffer = 1u << 20,
    .ring = 128u << 10,
    .iperf3_port = 5201,
    .on_panic = PANIC_HALT,
    .shutdown_timeout = 10,
};

// ---- values: each parser stores only what is right and else says what would be ----

static bool parse_decimal(const char **text, uint64_t max, uint64_t *out)
{
    const char *p = *text;
    uint64_t value = 0;

    if (*p < '0' || *p > '9')
        return false;
    for (; *p >= '0' && *p <= '9'; p++) {
        value = value * 10 + (uint64_t)(*p - '0');
        if (value > max)
            return false;
    }
    *text = p;
    *out = value;
    return true;
}

// A whole number with an optional k or m (1024, 1024 * 1024).
static bool parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
    uint64_t value;

    if (!parse_decimal(&text, UINT32_MAX, &value))
        return false;
    if (*text == 'k' || *text == 'K') {
        value <<= 10;
        text++;
    } else if (*text == 'm' || *text == 'M') {
        value <<= 20;
        text++;
    }
    if (*text || value < min || value > max)
        return false;
    *out = value;
    return true;
}

// a.b.c.d into network byte order; *text is left behind the last digit.
static bool parse_ip(const char **text, uint32_t *out)
{
    uint8_t bytes[4];

    for (unsigned i = 0; i < 4; i++) {
        uint64_t value;
        if (i && *(*text)++ != '.')
            return false;
        if (!parse_decimal(text, 255, &value))
            return false;
        bytes[i] = (uint8_t)value;
    }
    memcpy(out, bytes, sizeof(*out));
    return true;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// An IPv6 address (RFC 4291: groups of hex digits, one :: for zeros); *text is left behind it.
static bool parse_ip6(const char **text, uint8_t out[16])
{
    uint8_t bytes[16] = {0};
    unsigned count = 0, gap = 17; // where the :: stands, 17: nowhere
    const char *p = *text;

    if (p[0] == ':' && p[1] != ':')
        return false;
    for (;;) {
        unsigned group = 0, digits = 0;
        if (p[0] == ':' && p[1] == ':') {
            if (gap != 17)
                return false;
            gap = count;
            p += 2;
            if (hex_digit(*p) < 0)
                break;
        }
        for (; digits < 4 && hex_digit(*p) >= 0; digits++)
            group = group << 4 | (unsigned)hex_digit(*p++);
        if (!digits || count == 16)
            return false;
        bytes[count++] = (uint8_t)(group >> 8);
        bytes[count++] = (uint8_t)group;
        if (*p != ':')
            break;
        if (p[1] != ':')
            p++;
    }
    if (gap == 17 ? count != 16 : count > 14)
        return false;
    memset(out, 0, 16);
    unsigned before = gap == 17 ? 16 : gap;
    memcpy(out, bytes, before);
    memcpy(out + 16 - (count - before), bytes + before, count - before);
    *text = p;
    return true;
}

static uint32_t netmask_of(unsigned prefix)
{
    uint8_t bytes[4] = {0};
    uint32_t mask;

    for (unsigned i = 0; i < prefix; i++)
        bytes[i / 8] |= (uint8_t)(0x80 >> (i % 8));
    memcpy(&mask, bytes, sizeof(mask));
    return mask;
}

static const char *set_log_level(struct config *c, const char *value)
{
    static const char *const names[] = {
        [LOG_ERROR] = "error", [LOG_WARN] = "warn", [LOG_INFO] = "info", [LOG_DEBUG] = "debug"};

    for (int i = LOG_ERROR; i <= LOG_DEBUG; i++) {
        if (strcmp(value, names[i]) == 0) {
            c->log_level = i;
            return NULL;
        }
    }
    return "level is error, warn, info or debug";
}

static const char *set_address(struct nic_config *c, const char *value)
{
    uint32_t address;
    uint64_t prefix;

    if (strcmp(value, "dhcp") == 0) {
        c->dhcp = true;
        return NULL;
    }
    if (!parse_ip(&value, &address) || *value++ != '/' || !parse_decimal(&value, 30, &prefix) ||
        *value || prefix == 0 || !config_is_host(address))
        return "address is dhcp or a.b.c.d/prefix with prefix 1 to 30";
    uint32_t netmask = netmask_of((unsigned)prefix);
    if (!config_is_host_of(address, netmask))
        return "address is the first or the last of its subnet, which no host can have";
    c->dhcp = false;
    c->address = address;
    c->netmask = netmask;
    return NULL;
}

static const char *set_gateway(struct nic_config *c, const char *value)
{
    uint32_t gateway;

    if (!parse_ip(&value, &gateway) || *value || !config_is_host(gateway))
        return "gateway is a.b.c.d";
    c->gateway = gateway;
    return NULL;
}

static const char *set_address6(struct nic_config *c, const char *value)
{
    uint8_t address[16];
    uint64_t prefix;

    if (strcmp(value, "auto") == 0) {
        c->ip6 = CONFIG_IP6_AUTO;
        return NULL;
    }
    if (strcmp(value, "off") == 0) {
        c->ip6 = CONFIG_IP6_OFF;
        return NULL;
    }
    if (!parse_ip6(&value, address) || *value++ != '/' || !parse_decimal(&value, 64, &prefix) ||
        *value || prefix != 64 || !config_is_host6(address, true))
        return "address6 is auto, off or an IPv6 address/64 that is not of the link only";
    c->ip6 = CONFIG_IP6_STATIC;
    memcpy(c->address6, address, sizeof(c->address6));
    return NULL;
}

static const char *set_gateway6(struct nic_config *c, const char *value)
{
    uint8_t gateway[16];

    if (!parse_ip6(&value, gateway) || *value || !config_is_host6(gateway, false))
        return "gateway6 is an IPv6 address";
    memcpy(c->gateway6, gateway, sizeof(c->gateway6));
    return NULL;
}

static const char *set_mtu(struct nic_config *c, const char *value)
{
    uint64_t mtu;

    if (!parse_number(value, 576, 9000, &mtu))
        return "mtu is 576 to 9000";
    c->mtu = (uint16_t)mtu;
    return NULL;
}

static const char *set_metric(struct nic_config *c, const char *value)
{
    uint64_t metric;

    if (!parse_number(value, 0, 9999, &metric))
        return "metric is 0 to 9999";
    c->metric = (uint16_t)metric;
    return NULL;
}

static const char *parse_switch(const char *value, bool *out)
{
    bool on = strcmp(value, "on") == 0;

    if (!on && strcmp(value, "off") != 0)
        return "this is on or off";
    *out = on;
    return NULL;
}

static const char *set_checksum(struct nic_config *c, const char *value)
{
    return parse_switch(value, &c->checksum);
}

static const char *set_lso(struct nic_config *c, const char *value)
{
    return parse_switch(value, &c->lso);
}

static const char *set_rsc(struct nic_config *c, const char *value)
{
    return parse_switch(value, &c->rsc);
}

static const char *set_congestion(struct config *c, const char *value)
{
    c->reno = strcmp(value, "reno") == 0;
    return c->reno || strcmp(value, "bbr") == 0 ? NULL : "congestion is bbr or reno";
}

static const char *set_receive_buffer(struct config *c, const char *value)
{
    uint64_t bytes;

    if (!parse_number(value, 128u << 10, 31u << 20, &bytes) || bytes % 4096)
        return "receive-buffer is 128k to 31m, a multiple of 4k";
    c->receive_buffer = (uint32_t)bytes;
    return NULL;
}

static const char *set_send_buffer(struct config *c, const char *value)
{
    uint64_t bytes;

    if (!parse_number(value, 64u << 10, 15u << 20, &bytes) || bytes % 4096)
        return "send-buffer is 64k to 15m, a multiple of 4k";
    c->send_buffer = (uint32_t)bytes;
    return NULL;
}

static const char *set_ring(struct config *c, const char *value)
{
    uint64_t bytes;

    if (!parse_number(value, 16u << 10, 1u << 20, &bytes) || bytes % 4096)
        return "ring is 16k to 1m, a multiple of 4k";
    c->ring = (uint32_t)bytes;
    return NULL;
}

static const char *set_iperf3_port(struct config *c, const char *value)
{
    uint64_t port;

    if (!parse_number(value, 1, 65535, &port))
        return "port is 1 to 65535";
    c->iperf3_port = (uint16_t)port;
    return NULL;
}

static const char *set_echo(struct config *c, const char *value)
{
    return parse_switch(value, &c->echo);
}

static const char *set_discard(struct config *c, const char *value)
{
    return parse_switch(value, &c->discard);
}

static const char *set_on_panic(struct config *c, const char *value)
{
    if (strcmp(value, "halt") == 0)
        c->on_panic = PANIC_HALT;
    else if (strcmp(value, "restart") == 0)
        c->on_panic = PANIC_RESTART;
    else
        return "on-panic is halt or restart";
    return NULL;
}

static const char *set_shutdown_timeout(struct config *c, const char *value)
{
    uint64_t seconds;

    if (!parse_number(value, 0, 3600, &seconds))
        return "shutdown-timeout is 0 to 3600 seconds";
    c->shutdown_timeout = (uint32_t)seconds;
    return NULL;
}

static const char *set_spin(struct config *c, const char *value)
{
    uint64_t us;

    if (!parse_number(value, 0, 1000000, &us))
        return "spin is 0 to 1000000 microseconds";
    c->spin = (uint32_t)us;
    return NULL;
}

// ---- the tables of keys ----

static const struct { // of that section, and of [nic MAC]
    const char *section, *name;
    const char *(*set)(struct nic_config *c, const char *value); // NULL, or what is wrong
} nic_keys[NIC_KEYS] = {
    [KEY_ADDRESS] = {"net", "address", set_address},
    [KEY_GATEWAY] = {"net", "gateway", set_gateway},
    [KEY_ADDRESS6] = {"net", "address6", set_address6},
    [KEY_GATEWAY6] = {"net", "gateway6", set_gateway6},
    [KEY_MTU] = {"net", "mtu", set_mtu},
    [KEY_METRIC] = {"net", "metric", set_metric},
    [KEY_CHECKSUM] = {"netvsc", "checksum", set_checksum},
    [KEY_LSO] = {"netvsc", "lso", set_lso},
    [KEY_RSC] = {"netvsc", "rsc", set_rsc},
};

static const struct key {
    const char *section, *name;
    const char *(*set)(struct config *c, const char *value);
} keys[] = {
    {"log", "level", set_log_level},
    {"tcp", "congestion", set_congestion},
    {"netvsc", "receive-buffer", set_receive_buffer},
    {"netvsc", "send-buffer", set_send_buffer},
    {"netvsc", "ring", set_ring},
    {"iperf3", "port", set_iperf3_port},
    {"services", "echo", set_echo},
    {"services", "discard", set_discard},
    {"system", "on-panic", set_on_panic},
    {"system", "shutdown-timeout", set_shutdown_timeout},
    {"system", "spin", set_spin},
};

struct parse {
    struct config *out;
    void (*report)(unsigned line, const char *reason, void *ctx);
    void *ctx;
    unsigned bad;
};

static void complain(struct parse *p, int line, const char *reason)
{
    p->bad++;
    p->report((unsigned)line, reason, p->ctx);
}

static const char unknown_key[] = "unknown key in this section";

// The key of a NIC that has that name in that section (NULL: in its own); NIC_KEYS: there is none.
static enum nic_key find_nic_key(const char *section, const char *name)
{
    unsigned i = 0;

    while (i < NIC_KEYS && (strcmp(name, nic_keys[i].name) != 0 ||
                            (section && strcmp(section, nic_keys[i].section) != 0)))
        i++;
    return i;
}

// 00:15:5d:01:02:03, 00-15-5d-01-02-03 or 00155d010203, as the host's tools write it.
static bool parse_mac(const char *text, uint8_t mac[6])
{
    char separator = 0;

    for (unsigned i = 0; i < 6; i++) {
        if (i == 1 && (*text == ':' || *text == '-'))
            separator = *text;
        if (i && separator && *text++ != separator)
            return false;
        int high = hex_digit(text[0]), low = high < 0 ? -1 : hex_digit(text[1]);
        if (low < 0)
            return false;
        mac[i] = (uint8_t)(high << 4 | low);
        text += 2;
    }
    return !*text;
}

static const char *set_own_key(struct config *c, const char *mac_text, const char *name,
                               const char *value)
{
    uint8_t mac[6];

    if (!parse_mac(mac_text, mac))
        return "a NIC's section is [nic MAC] with its address, as in [nic 00:15:5d:01:02:03]";
    enum nic_key key = find_nic_key(NULL, name);
    if (key == NIC_KEYS)
        return unknown_key;
    unsigned at = config_find_nic(c, mac);
    if (at == CONFIG_NICS)
        return "more NICs with sections than there is room for (16)";
    struct config_nic *nic = &c->nics[at];
    if (at == c->nic_count) {
        memcpy(nic->mac, mac, sizeof(nic->mac));
        c->nic_count++;
    }
    const char *wrong = nic_keys[key].set(&nic->own, value);
    if (!wrong)
        nic->named |= 1u << key;
    return wrong;
}

static const char *set_key(struct config *c, const char *section, const char *name,
                           const char *value)
{
    const char *wrong =
        "unknown section (log, net, nic MAC, tcp, netvsc, iperf3, services, system)";

    if (!*section)
        return "a key before any [section]";
    if (strncmp(section, "nic ", 4) == 0)
        return set_own_key(c, section + 4, name, value);
    enum nic_key of_all = find_nic_key(section, name);
    if (of_all != NIC_KEYS)
        return nic_keys[of_all].set(&c->net, value);
    if (strcmp(section, "net") == 0)
        return unknown_key;
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (strcmp(section, keys[i].section) != 0)
            continue;
        if (strcmp(name, keys[i].name) == 0)
            return keys[i].set(c, value);
        wrong = unknown_key;
    }
    return wrong;
}

static int handle(void *user, const char *section, const char *name, const char *value, int line)
{
    struct parse *p = user;
    const char *wrong = value ? set_key(p->out, section, name, value) : "not \"key = value\"";

    if (wrong)
        complain(p, line, wrong);
    return 1; // go on with the next line
}

unsigned config_parse(const char *text, struct config *out,
                      void (*report)(unsigned line, const char *reason, void *ctx), void *ctx)
{
    struct parse p = {.out = out, .report = report, .ctx = ctx};

    *out = defaults;
    int line = ini_parse_string(text, handle, &p);
    if (line > 0)
        complain(&p, line, "malformed line: too long, or [section without its ]");
    else if (line < 0)
        complain(&p, 0, "out of memory");
    out->mtu = out->net.mtu;
    out->rsc = out->net.rsc;
    for (unsigned i = 0; i < out->nic_count; i++) { // 0 where it names none
        if (out->nics[i].own.mtu > out->mtu)
            out->mtu = out->nics[i].own.mtu;
        out->rsc |= out->nics[i].own.rsc;
    }
    return p.bad;
}
