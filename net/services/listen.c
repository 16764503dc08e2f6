// SPDX-License-Identifier: BSD-2-Clause
// See listen.h.
#include "net/services/listen.h"

#include <errno.h>

#include "kernel/console.h"
#include "kernel/time.h"

#define KEEPALIVE_IDLE 10000    // ms without a packet, then a probe
#define KEEPALIVE_INTERVAL 5000 // ms between probes
#define KEEPALIVE_COUNT 3       // unanswered, then the connection is dead

static PERCORE bool have_slot;
static PERCORE uint8_t arrival_slot; // which of a pcb's extra arguments says when it came

static err_t on_first_segment(u8_t slot, struct tcp_pcb_listen *listener, struct tcp_pcb *pcb)
{
    (void)listener;
    tcp_ext_arg_set(pcb, slot, (void *)(uintptr_t)time_now());
    return ERR_OK;
}

uint64_t service_arrived(const struct tcp_pcb *pcb)
{
    return (uint64_t)(uintptr_t)tcp_ext_arg_get(pcb, arrival_slot);
}

int service_listen(uint16_t port, tcp_accept_fn accept)
{
    static const struct tcp_ext_arg_callbacks callbacks = {.passive_open = on_first_segment};
    struct tcp_pcb *pcb = tcp_new_ip_type(IPADDR_TYPE_ANY);
    if (!pcb)
        return -ENOMEM;
    if (!have_slot)
        arrival_slot = tcp_ext_arg_alloc_id();
    have_slot = true;
    tcp_ext_arg_set_callbacks(pcb, arrival_slot, &callbacks); // the listener takes it over
    if (tcp_bind(pcb, IP_ANY_TYPE, port) != ERR_OK) {
        tcp_abort(pcb);
        return -EADDRINUSE;
    }
    struct tcp_pcb *listener = tcp_listen(pcb);
    if (!listener) {
        tcp_abort(pcb);
        return -ENOMEM;
    }
    tcp_accept(listener, accept);
    return 0;
}

int service_listen_udp(uint16_t port, udp_recv_fn receive, struct udp_pcb **out)
{
    struct udp_pcb *pcb = udp_new_ip_type(IPADDR_TYPE_ANY);
    if (!pcb)
        return -ENOMEM;
    if (udp_bind(pcb, IP_ANY_TYPE, port) != ERR_OK) {
        udp_remove(pcb);
        return -EADDRINUSE;
    }
    udp_recv(pcb, receive, NULL);
    *out = pcb;
    return 0;
}

void service_keepalive(struct tcp_pcb *pcb)
{
    pcb->so_options |= SOF_KEEPALIVE;
    pcb->keep_idle = KEEPALIVE_IDLE;
    pcb->keep_intvl = KEEPALIVE_INTERVAL;
    pcb->keep_cnt = KEEPALIVE_COUNT;
}

err_t service_close(struct tcp_pcb *pcb)
{
    tcp_arg(pcb, NULL);
    tcp_recv(pcb, NULL);
    tcp_sent(pcb, NULL);
    tcp_poll(pcb, NULL, 0);
    tcp_err(pcb, NULL);
    // lwIP would take a window smaller than its own for data that nobody read, and reset.
    pcb->rcv_wnd = TCP_WND_MAX(pcb);
    if (tcp_close(pcb) == ERR_OK)
        return ERR_OK;
    tcp_abort(pcb);
    return ERR_ABRT;
}

void service_counters_print(const struct service_counters of_core[MAX_CORES])
{
    struct service_counters sum = {0};
    for (unsigned i = 0; i < core_count(); i++) {
        sum.connections += of_core[i].connections;
        sum.accepted += of_core[i].accepted;
        sum.refused += of_core[i].refused;
        sum.bytes += of_core[i].bytes;
        sum.aborted += of_core[i].aborted;
        sum.datagrams += of_core[i].datagrams;
        sum.datagram_bytes += of_core[i].datagram_bytes;
        sum.dropped += of_core[i].dropped;
    }
    stats_print("{\"connections\":%llu,\"accepted\":%llu,\"refused\":%llu,\"bytes\":%llu,"
                "\"aborted\":%llu,\"datagrams\":%llu,\"datagram_bytes\":%llu,\"dropped\":%llu}",
                (unsigned long long)sum.connections, (unsigned long long)sum.accepted,
                (unsigned long long)sum.refused, (unsigned long long)sum.bytes,
                (unsigned long long)sum.aborted, (unsigned long long)sum.datagrams,
                (unsigned long long)sum.datagram_bytes, (unsigned long long)sum.dropped);
}
