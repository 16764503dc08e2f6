// SPDX-License-Identifier: BSD-2-Clause
// The places where lwIP asks us. Included by lwIP itself; the functions are in net/stack.c,
// net/ip4_input.c and where it is said.
#pragma once

#include "lwip/arch.h"
#include "lwip/err.h"
#include "lwip/ip_addr.h"

struct netif;
struct pbuf;
struct tcp_pcb;
struct tcp_hdr;

// Initial sequence number of a new connection (RFC 6528).
u32_t net_tcp_isn(const ip_addr_t *local, u16_t local_port, const ip_addr_t *remote,
                  u16_t remote_port);
#define LWIP_HOOK_TCP_ISN net_tcp_isn

// Called for each segment on its way out; adds no options, counts what goes out once more.
u32_t *net_tcp_segment_out(const struct pbuf *p, const struct tcp_hdr *header,
                           const struct tcp_pcb *pcb, u32_t *options);
#define LWIP_HOOK_TCP_OUT_ADD_TCPOPTS net_tcp_segment_out

// Called for each segment that arrives, before lwIP takes it; its header is in host order, p begins
// behind it. Of the options the first `here` bytes follow the header, the others are at `rest`. ERR_OK,
// or lwIP drops it.
err_t net_tcp_segment_in(struct tcp_pcb *pcb, const struct tcp_hdr *header, u16_t options_len,
                         u16_t here, const u8_t *rest, const struct pbuf *p);
#define LWIP_HOOK_TCP_INPACKET_PCB net_tcp_segment_in

// Called for each IPv4 packet before lwIP looks at it. 1: it went another way, p is gone.
int net_ip4_input(struct pbuf *p, struct netif *netif);
#define LWIP_HOOK_IP4_INPUT net_ip4_input

// Called for each IPv6 packet, before lwIP looks at it (net/ip6_input.c). 0: lwIP goes on with it;
// otherwise it was taken.
int net_ip6_input(struct pbuf *p, struct netif *netif);
#define LWIP_HOOK_IP6_INPUT net_ip6_input

// The router that the configuration names for what is not on the link, or NULL (net/address6.c).
const ip6_addr_t *net_ip6_gateway(struct netif *netif, const ip6_addr_t *destination);
#define LWIP_HOOK_ND6_GET_GW net_ip6_gateway

// The interface by which a packet of nobody's connection leaves, or NULL (net/route.c). source: NULL if
// it has none yet. (That this hook is there other headers of lwIP have to know: net/lwipopts.h.)
struct netif *net_ip4_route(const ip4_addr_t *source, const ip4_addr_t *destination);
struct netif *net_ip6_route(const ip6_addr_t *source, const ip6_addr_t *destination);
#define LWIP_HOOK_IP6_ROUTE net_ip6_route

// Called for the options of DHCP messages that lwIP does not know (net/settings.c). state: lwIP's; message:
// what kind it is, 0: not known yet; the option's value begins at `at` in p.
void net_dhcp_option(struct netif *netif, u8_t state, u8_t message, u8_t option, u8_t len,
                     const struct pbuf *p, u16_t at);
#define LWIP_HOOK_DHCP_PARSE_OPTION(netif, dhcp, state, msg, msg_type, option, len, pbuf, offset)  \
    do {                                                                                           \
        LWIP_UNUSED_ARG(msg);                                                                      \
        net_dhcp_option(netif, state, msg_type, option, len, pbuf, offset);                        \
    } while (0)
#define DHCP_ADD_EXTRA_REQUEST_OPTIONS , DHCP_OPTION_DNS_SERVER, DHCP_OPTION_MTU

// How many bytes a connection may keep out of order; less when memory is short.
u32_t net_ooseq_limit(void);
