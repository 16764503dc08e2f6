// SPDX-License-Identifier: BSD-2-Clause
// What the host's management may ask of the stack (drivers/ic/ic.h), answered on core 0: how it does,
// which addresses it has.
#include "drivers/ic/ic.h"

#include <errno.h>
#include <string.h>

#include "kernel/power.h"
#include "lwip/netif.h"
#include "net/interface.h"
#include "net/net.h"
#include "net/stack.h"

#include <stb_sprintf.h>

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

// Critical: nobody can reach us (no NIC, no link, no address), or memory is short and the stack refuses
// connections.
static enum ic_state state(void)
{
    bool reached = false;
    if (power_ending())
        return IC_STATE_STOPPED;
    for (const struct interface *i = interface_first(); i; i = i->next)
        reached |= reachable(&i->netif);
    return reached && !stack_memory_short() ? IC_STATE_HEALTHY : IC_STATE_CRITICAL;
}

// Adds to a list; what does not fit is left out.
static void add(char *list, size_t size, const char *text)
{
    size_t used = strlen(list);
    if (used + 1 + strlen(text) < size)
        stbsp_snprintf(list + used, (int)(size - used), used ? ";%s" : "%s", text);
}

static void add_address(char *list, size_t size, const ip_addr_t *address)
{
    char text[STACK_NAME_BYTES];
    stack_address(text, address);
    add(list, size, text);
}

static void addresses(enum ic_family family, char *out, size_t size)
{
    *out = 0;
    for (const struct interface *i = interface_first(); i; i = i->next) {
        const struct netif *netif = &i->netif;
        if (family == IC_IP4 && !ip4_addr_isany_val(*netif_ip4_addr(netif)))
            add_address(out, size, netif_ip_addr4(netif));
        for (int a = 0; family == IC_IP6 && a < LWIP_IPV6_NUM_ADDRESSES; a++)
            if (ip6_addr_isvalid(netif_ip6_addr_state(netif, a)))
                add_address(out, size, netif_ip_addr6(netif, a));
    }
}

static bool ip_info(const char *adapter, struct ic_ip_info *out)
{
    (void)adapter, (void)out;
    return false;
}

static int set_ip_info(const char *adapter, const struct ic_ip_info *info)
{
    (void)adapter, (void)info;
    return -ENODEV;
}

const struct ic_client net_ic_client = {
    .state = state, .addresses = addresses, .ip_info = ip_info, .set_ip_info = set_ip_info};
