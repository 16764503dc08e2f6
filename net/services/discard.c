// SPDX-License-Identifier: BSD-2-Clause
// The discard service (RFC 863): what comes on port 9, by TCP or by UDP, is counted and thrown away.
// On every core; everything happens in lwIP's callbacks.
#include "kernel/config.h"
#include "kernel/console.h"
#include "kernel/core.h"
#include "net/services/listen.h"
#include "net/services/service.h"
#include "net/stack.h"

#define DISCARD_PORT 9
#define MAX_CONNECTIONS 2048 // of one core

static struct service_counters counters[MAX_CORES];

static struct service_counters *mine(void)
{
    return &counters[core_id()];
}

static err_t on_receive(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t error)
{
    (void)arg;
    (void)error;
    if (!p) {
        mine()->connections--;
        return service_close(pcb);
    }
    mine()->bytes += p->tot_len;
    tcp_recved(pcb, p->tot_len);
    stack_free_received(p);
    return ERR_OK;
}

static void on_error(void *arg, err_t error)
{
    (void)arg;
    mine()->connections--;
    mine()->aborted += error == ERR_ABRT;
}

static err_t on_accept(void *arg, struct tcp_pcb *pcb, err_t error)
{
    (void)arg;
    if (error != ERR_OK || !pcb)
        return ERR_VAL;
    if (mine()->connections == MAX_CONNECTIONS) {
        mine()->refused++;
        return ERR_MEM; // lwIP resets it
    }
    mine()->connections++;
    mine()->accepted++;
    tcp_arg(pcb, NULL);
    tcp_recv(pcb, on_receive);
    tcp_err(pcb, on_error);
    service_keepalive(pcb);
    return ERR_OK;
}

static void on_datagram(void *arg, struct udp_pcb *pcb, struct pbuf *p, const ip_addr_t *from,
                        u16_t port)
{
    (void)arg;
    (void)pcb;
    (void)from;
    (void)port;
    mine()->datagrams++;
    mine()->datagram_bytes += p->tot_len;
    pbuf_free(p);
}

static void write_stats(void)
{
    service_counters_print(counters);
}

static struct stats_source discard_stats = {.name = "discard", .write = write_stats};

static bool discard_wanted(void)
{
    return config.discard;
}

static int discard_start(struct service *service)
{
    struct udp_pcb *pcb;
    int error = service_listen(DISCARD_PORT, on_accept);
    if (!error)
        error = service_listen_udp(DISCARD_PORT, on_datagram, &pcb);
    if (error)
        return error;
    service->port = DISCARD_PORT;
    if (core_id() == 0)
        stats_add(&discard_stats);
    return 0;
}

struct service discard_service = {
    .name = "discard", .wanted = discard_wanted, .start = discard_start};
