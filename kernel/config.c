// SPDX-License-Identifier: BSD-2-Clause
// dunlin.conf: which keys there are, what each may say, what happens otherwise. The syntax is
// inih's ([section], key = value, ; or # comments). Called once at start-up; a pure function but
// for the global `config`, so the unit tests run it too.
#include "kernel/config.h"

#include <ini.h>
#include <stddef.h>
#include <string.h>

#include "kernel/log.h"

struct config config;

static const struct config defaults = {
    .log_level = LOG_INFO,
    .dhcp = true,
    .mtu = 1500,
    .receive_buffer = 4u << 20,
    .send_buffer = 1u << 20,
    .ring = 128u << 10,
    .checksum = true,
    .lso = true,
    .rsc = true,
    .iperf3_port = 5201,
    .on_panic = PANIC_HALT,
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

// Unicast and not loopback; if global, not of one link only.
static bool usable_address6(const uint8_t address[16], bool global)
{
    static const uint8_t zero[10];
    bool link_local = address[0] == 0xfe && (address[1] & 0xc0) == 0x80;

    // ::, ::1 and the forms that carry an IPv4 address have nothing but zeros in front.
    return address[0] != 0xff && memcmp(address, zero, sizeof(zero)) != 0 &&
           !(global && link_local);
}

static bool usable_host_address(uint32_t address)
{
    uint8_t first = *(const uint8_t *)&address;
    return first != 0 && first != 127 && first < 224;
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

static const char *set_address(struct config *c, const char *value)
{
    uint32_t address;
    uint64_t prefix;

    if (strcmp(value, "dhcp") == 0) {
        c->dhcp = true;
        return NULL;
    }
    if (!parse_ip(&value, &address) || *value++ != '/' || !parse_decimal(&value, 30, &prefix) ||
        *value || prefix == 0 || !usable_host_address(address))
        return "address is dhcp or a.b.c.d/prefix with prefix 1 to 30";
    c->dhcp = false;
    c->address = address;
    c->netmask = netmask_of((unsigned)prefix);
    return NULL;
}

static const char *set_gateway(struct config *c, const char *value)
{
    uint32_t gateway;

    if (!parse_ip(&value, &gateway) || *value || !usable_host_address(gateway))
        return "gateway is a.b.c.d";
    c->gateway = gateway;
    return NULL;
}

static const char *set_address6(struct config *c, const char *value)
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
        *value || prefix != 64 || !usable_address6(address, true))
        return "address6 is auto, off or an IPv6 address/64 that is not of the link only";
    c->ip6 = CONFIG_IP6_STATIC;
    memcpy(c->address6, address, sizeof(c->address6));
    return NULL;
}

static const char *set_gateway6(struct config *c, const char *value)
{
    uint8_t gateway[16];

    if (!parse_ip6(&value, gateway) || *value || !usable_address6(gateway, false))
        return "gateway6 is an IPv6 address";
    memcpy(c->gateway6, gateway, sizeof(c->gateway6));
    return NULL;
}

static const char *set_mtu(struct config *c, const char *value)
{
    uint64_t mtu;

    if (!parse_number(value, 576, 9000, &mtu))
        return "mtu is 576 to 9000";
    c->mtu = (uint16_t)mtu;
    return NULL;
}

static const char *set_congestion(struct config *c, const char *value)
{
    c->reno = strcmp(value, "reno") == 0;
    return c->reno || strcmp(value, "bbr") == 0 ? NULL : "congestion is bbr or reno";
}

static const char *set_receive_buffer(struct config *c, const char *value)
{
    uint64_t bytes;

    if (!parse_number(value, 64u << 10, 31u << 20, &bytes) || bytes % 4096)
        return "receive-buffer is 64k to 31m, a multiple of 4k";
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

static const char *parse_switch(const char *value, bool *out)
{
    bool on = strcmp(value, "on") == 0;

    if (!on && strcmp(value, "off") != 0)
        return "this is on or off";
    *out = on;
    return NULL;
}

static const char *set_checksum(struct config *c, const char *value)
{
    return parse_switch(value, &c->checksum);
}

static const char *set_lso(struct config *c, const char *value)
{
    return parse_switch(value, &c->lso);
}

static const char *set_rsc(struct config *c, const char *value)
{
    return parse_switch(value, &c->rsc);
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

static const char *set_spin(struct config *c, const char *value)
{
    uint64_t us;

    if (!parse_number(value, 0, 1000000, &us))
        return "spin is 0 to 1000000 microseconds";
    c->spin = (uint32_t)us;
    return NULL;
}

// ---- the table of keys ----

static const struct key {
    const char *section, *name;
    const char *(*set)(struct config *c, const char *value); // NULL, or what is wrong
} keys[] = {
    {"log", "level", set_log_level},
    {"net", "address", set_address},
    {"net", "gateway", set_gateway},
    {"net", "address6", set_address6},
    {"net", "gateway6", set_gateway6},
    {"net", "mtu", set_mtu},
    {"tcp", "congestion", set_congestion},
    {"netvsc", "receive-buffer", set_receive_buffer},
    {"netvsc", "send-buffer", set_send_buffer},
    {"netvsc", "ring", set_ring},
    {"netvsc", "checksum", set_checksum},
    {"netvsc", "lso", set_lso},
    {"netvsc", "rsc", set_rsc},
    {"iperf3", "port", set_iperf3_port},
    {"services", "echo", set_echo},
    {"services", "discard", set_discard},
    {"system", "on-panic", set_on_panic},
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

static bool section_known(const char *section)
{
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        if (strcmp(section, keys[i].section) == 0)
            return true;
    return false;
}

static int handle(void *user, const char *section, const char *name, const char *value, int line)
{
    struct parse *p = user;
    const char *wrong = "unknown key in this section";

    if (!value) {
        complain(p, line, "not \"key = value\"");
        return 1;
    }
    if (!*section)
        wrong = "a key before any [section]";
    else if (!section_known(section))
        wrong = "unknown section (log, net, tcp, netvsc, iperf3, services, system)";
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        if (strcmp(section, keys[i].section) == 0 && strcmp(name, keys[i].name) == 0)
            wrong = keys[i].set(p->out, value);
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
    return p.bad;
}
