// SPDX-License-Identifier: BSD-2-Clause
// What the host's management may ask of the stack (drivers/ic/ic.h), answered on core 0: how it does,
// which addresses each NIC has, and other addresses for one. Addresses are text there, numbers here.
#include "drivers/ic/ic.h"

#include <errno.h>
#include <string.h>

#include "kernel/log.h"
#include "kernel/power.h"
#include "kernel/time.h"
#include "kernel/utc.h"
#include "lwip/netif.h"
#include "net/interface.h"
#include "net/net.h"
#include "net/stack.h"

#include <stb_sprintf.h>

// ---- How it does ----

static bool reachable(const struct netif *netif)
{
    if (!netif_is_link_up(netif))
        return false;
    for (int i = 0; i < LWIP_IPV6_NUM_ADDRESSES; i++)
        if (ip6_addr_isvalid(netif_ip6_addr_state(netif, i)) &&
            !ip6_addr_islinklocal(netif_ip6_addr(netif, i)))
            return true;
    return !ip4_addr_isany_val(*netif_ip4_addr(netif));
}

// Critical: nobody can reach us any more (no NIC, no link, no address), or memory is short and the stack
// refuses connections.
static enum ic_state state(void)
{
    static bool ever;
    bool now = false;
    if (power_ending())
        return IC_STATE_STOPPED;
    for (const struct interface *i = interface_first(); i; i = i->next)
        now |= reachable(&i->netif);
    ever |= now;
    if (!ever)
        return IC_STATE_UNKNOWN;
    return now && !stack_memory_short() ? IC_STATE_HEALTHY : IC_STATE_CRITICAL;
}

// ---- Numbers to text ----

// Adds to a list; what does not fit is left out.
static void add(char *list, size_t size, const char *text)
{
    size_t used = strlen(list);
    if (used + 1 + strlen(text) < size)
        stbsp_snprintf(list + used, (int)(size - used), used ? ";%s" : "%s", text);
}

static void add_ip4(char *list, size_t size, uint32_t address)
{
    char text[IP4ADDR_STRLEN_MAX];
    ip4_addr_t ip = {address};
    add(list, size, ip4addr_ntoa_r(&ip, text, sizeof(text)));
}

static void add_ip6(char *list, size_t size, const uint8_t bytes[16])
{
    char text[STACK_NAME_BYTES];
    ip_addr_t ip = IPADDR6_INIT(0, 0, 0, 0);
    memcpy(ip_2_ip6(&ip)->addr, bytes, 16);
    stack_address(text, &ip);
    add(list, size, text);
}

static bool is_zero(const uint8_t bytes[16])
{
    static const uint8_t zero[16];
    return memcmp(bytes, zero, sizeof(zero)) == 0;
}

static struct net_nic_report reports[NIC_MAX];

static void addresses(enum ic_family family, char *out, size_t size)
{
    unsigned count = net_report(reports, NIC_MAX);
    *out = 0;
    for (unsigned i = 0; i < count; i++) {
        const struct net_nic_report *r = &reports[i];
        if (family == IC_IP4 && r->address)
            add_ip4(out, size, r->address);
        for (unsigned a = 0; family == IC_IP6 && a < r->count6; a++)
            add_ip6(out, size, r->address6[a].bytes);
    }
}

static void describe(const struct net_nic_report *r, struct ic_ip_info *out)
{
    memset(out, 0, sizeof(*out));
    out->families = (uint8_t)((r->address ? IC_IP4 : 0) | (r->count6 ? IC_IP6 : 0));
    out->dhcp = r->dhcp;
    if (r->address) {
        add_ip4(out->addresses, sizeof(out->addresses), r->address);
        add_ip4(out->subnets, sizeof(out->subnets), r->netmask);
    }
    if (r->gateway)
        add_ip4(out->gateways, sizeof(out->gateways), r->gateway);
    for (unsigned i = 0; i < r->count6; i++) {
        char prefix[8];
        stbsp_snprintf(prefix, sizeof(prefix), "/%u", r->address6[i].prefix);
        add_ip6(out->addresses, sizeof(out->addresses), r->address6[i].bytes);
        add(out->subnets, sizeof(out->subnets), prefix);
    }
    if (!is_zero(r->gateway6))
        add_ip6(out->gateways, sizeof(out->gateways), r->gateway6);
    for (unsigned i = 0; i < r->dns_count; i++) {
        if (r->dns[i].ip6) {
            add_ip6(out->dns, sizeof(out->dns), r->dns[i].bytes);
        } else {
            uint32_t ip4;
            memcpy(&ip4, r->dns[i].bytes, sizeof(ip4));
            add_ip4(out->dns, sizeof(out->dns), ip4);
        }
    }
}

// ---- Which NIC ----

#define GUID_TEXT 37
#define MAC_TEXT 18

// The first three groups are little endian on the wire.
static void guid_text(const uint8_t b[16], char text[GUID_TEXT])
{
    static const uint8_t order[] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
    char *at = text;
    for (unsigned i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *at++ = '-';
        at += stbsp_snprintf(at, 3, "%02x", b[order[i]]);
    }
}

static bool same(const char *a, size_t len, const char *b)
{
    if (len != strlen(b))
        return false;
    for (size_t i = 0; i < len; i++) {
        char c = a[i] >= 'A' && a[i] <= 'Z' ? (char)(a[i] - 'A' + 'a') : a[i];
        if (c != b[i])
            return false;
    }
    return true;
}

static const struct net_nic_report *find(const char *adapter)
{
    unsigned count = net_report(reports, NIC_MAX);
    size_t len = strlen(adapter);
    if (len >= 2 && adapter[0] == '{' && adapter[len - 1] == '}')
        adapter++, len -= 2;
    for (unsigned i = 0; i < count; i++) {
        const uint8_t *m = reports[i].mac;
        char guid[GUID_TEXT], mac[MAC_TEXT];
        guid_text(reports[i].instance, guid);
        stbsp_snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3],
                       m[4], m[5]);
        if (same(adapter, len, guid) || same(adapter, len, mac))
            return &reports[i];
    }
    return NULL;
}

static bool ip_info(const char *adapter, struct ic_ip_info *out)
{
    const struct net_nic_report *r = find(adapter);
    if (r)
        describe(r, out);
    return r;
}

// ---- Text to numbers ----

// Cuts the next item off a list; false: that was all.
static bool next(const char **list, char item[STACK_NAME_BYTES])
{
    const char *from = *list + strspn(*list, "; ");
    size_t len = strcspn(from, ";");
    *list = from + len;
    if (len == 0)
        return false;
    if (len >= STACK_NAME_BYTES)
        len = 0; // nothing that we know is so long, and "" is no address
    memcpy(item, from, len);
    item[len] = 0;
    return true;
}

// Addresses and subnets go side by side. One address of IPv4 is all that a NIC has here.
static bool parse_addresses(const struct ic_ip_info *info, struct net_nic_settings *s)
{
    const char *list = info->addresses, *subnets = info->subnets;
    char item[STACK_NAME_BYTES], subnet[STACK_NAME_BYTES];
    ip_addr_t address, mask;
    while (next(&list, item)) {
        if (!next(&subnets, subnet) || !ipaddr_aton(item, &address))
            return false;
        if (IP_IS_V6(&address)) {
            if (strcmp(subnet, "/64") != 0 || s->count6 == NET_STATIC6)
                return false;
            memcpy(s->address6[s->count6++], ip_2_ip6(&address)->addr, 16);
            continue;
        }
        if (s->address || !ipaddr_aton(subnet, &mask) || IP_IS_V6(&mask))
            return false;
        s->address = ip_2_ip4(&address)->addr;
        s->netmask = ip_2_ip4(&mask)->addr;
    }
    return true;
}

static bool parse_gateways(const char *list, struct net_nic_settings *s)
{
    char item[STACK_NAME_BYTES];
    ip_addr_t gateway;
    while (next(&list, item)) {
        if (!ipaddr_aton(item, &gateway))
            return false;
        if (IP_IS_V6(&gateway) ? !is_zero(s->gateway6) : s->gateway != 0)
            return false; // one of each
        if (IP_IS_V6(&gateway))
            memcpy(s->gateway6, ip_2_ip6(&gateway)->addr, 16);
        else
            s->gateway = ip_2_ip4(&gateway)->addr;
    }
    return true;
}

static bool parse_dns(const char *list, struct net_nic_settings *s)
{
    char item[STACK_NAME_BYTES];
    ip_addr_t server;
    while (next(&list, item)) {
        if (!ipaddr_aton(item, &server) || s->dns_count == NET_DNS)
            return false;
        struct net_address *to = &s->dns[s->dns_count++];
        to->ip6 = IP_IS_V6(&server);
        if (to->ip6)
            memcpy(to->bytes, ip_2_ip6(&server)->addr, 16);
        else
            memcpy(to->bytes, &ip_2_ip4(&server)->addr, 4);
    }
    return true;
}

// What speaks of IPv6 alone leaves IPv4 as it is.
static void keep_ip4(const struct net_nic_report *r, struct net_nic_settings *s)
{
    s->dhcp = r->dhcp;
    if (r->dhcp)
        return;
    s->address = r->address;
    s->netmask = r->netmask;
    s->gateway = r->gateway;
}

static int set_ip_info(const char *adapter, const struct ic_ip_info *info)
{
    const struct net_nic_report *r = find(adapter);
    struct net_nic_settings s = {.dhcp = info->dhcp};
    if (!r)
        return -ENODEV;
    if (!parse_addresses(info, &s) || !parse_gateways(info->gateways, &s) ||
        !parse_dns(info->dns, &s))
        return -EINVAL;
    s.keep6 = info->families == IC_IP4;
    if (s.dhcp)
        s.address = s.netmask = s.gateway = 0;
    else if (info->families == IC_IP6)
        keep_ip4(r, &s);
    return net_configure(r->instance, &s) ? -EINVAL : 0;
}

const struct ic_client net_ic_client = {
    .state = state, .addresses = addresses, .ip_info = ip_info, .set_ip_info = set_ip_info};

// ---- Pauses ----

#define GAP (10 * TIME_S) // between two turns of lwIP's timers, which come several times a second

// The wall clock went ahead, and time_now() did not: it stood still.
static void clock_leapt(int64_t by)
{
    net_revalidate(by > 0 ? (uint64_t)by : 0, false);
}

void manage_timers(void)
{
    static uint64_t last;
    uint64_t now = time_now(), gap = last ? now - last : 0;
    last = now;
    if (gap < GAP)
        return;
    log_info("net: nothing ran for %u s", (unsigned)(gap / TIME_S));
    net_revalidate(gap, true); // to lwIP's timers it was one turn
}

void manage_start(void)
{
    utc_watch(clock_leapt);
}
