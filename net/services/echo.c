// SPDX-License-Identifier: BSD-2-Clause
// The echo service (RFC 862): what comes on port 7 goes back, by TCP and by UDP. On every core;
// everything happens in lwIP's callbacks. The stack sends the answers of a batch together.
//
// TCP: the window is not opened again before a byte is on its way back, so a client that sends and
// does not read stops itself. UDP: a datagram is turned round where it lies. It is not answered if
// nobody can have meant it: sent to many, or from a port below 1024, where another such service may
// sit and answer the answer.
#include <string.h>

#include "kernel/alloc.h"
#include "kernel/config.h"
#include "kernel/console.h"
#include "kernel/core.h"
#include "net/services/listen.h"
#include "net/services/service.h"
#include "net/stack.h"

#define ECHO_PORT 7
#define MAX_CONNECTIONS 2048 // of one core
#define WINDOW 65535u        // what the handshake offers, and no more for data that waits
#define BUFFER_BYTES 65536u  // a power of two, holds a window
#define QUEUE_BYTES 65535u   // on the way back, of one connection
#define PORT_TRUSTED 1024

struct echo {
    // Received while there was no room to send it back: a ring, there only while it is needed.
    uint8_t *buffer;
    uint32_t from, waiting;
    bool fin; // the client has closed its side
};

static struct service_counters counters[MAX_CORES];

static struct service_counters *mine(void)
{
    return &counters[core_id()];
}

// ---- TCP ----

static void forget(struct echo *echo)
{
    heap_free(echo->buffer);
    heap_free(echo);
    mine()->connections--;
}

// Sends as much as there is room for, and gives the client so much of its window back; how much.
static u16_t send_back(struct tcp_pcb *pcb, const uint8_t *data, uint32_t len)
{
    uint32_t queued = TCP_SND_BUF - pcb->snd_buf; // tcp_sndbuf() is cut to 16 bits
    uint32_t room = queued < QUEUE_BYTES ? QUEUE_BYTES - queued : 0;
    u16_t n = (u16_t)LWIP_MIN(len, room);
    // Copied: the received frame goes back to the host instead of waiting for the client's ACK.
    // Acknowledgements or on_poll() bring us back to what cannot be sent now.
    if (!n || tcp_write(pcb, data, n, TCP_WRITE_FLAG_COPY) != ERR_OK)
        return 0;
    mine()->bytes += n;
    tcp_recved(pcb, n);
    return n;
}

// False: no memory.
static bool keep(struct echo *echo, const uint8_t *data, uint32_t len)
{
    if (!echo->buffer)
        echo->buffer = net_alloc(BUFFER_BYTES);
    if (!echo->buffer)
        return false;
    while (len) {
        uint32_t to = (echo->from + echo->waiting) % BUFFER_BYTES;
        uint32_t n = LWIP_MIN(len, BUFFER_BYTES - to);
        memcpy(echo->buffer + to, data, n);
        echo->waiting += n; // what is kept is not given back, so the window bounds it
        data += n;
        len -= n;
    }
    return true;
}

static void send_kept(struct echo *echo, struct tcp_pcb *pcb)
{
    while (echo->waiting) {
        uint32_t len = LWIP_MIN(echo->waiting, BUFFER_BYTES - echo->from);
        u16_t n = send_back(pcb, echo->buffer + echo->from, len);
        if (!n)
            return;
        echo->from = (echo->from + n) % BUFFER_BYTES;
        echo->waiting -= n;
    }
    heap_free(echo->buffer);
    echo->buffer = NULL;
}

// Closes when all that the client sent is on its way back.
static err_t go_on(struct echo *echo, struct tcp_pcb *pcb)
{
    send_kept(echo, pcb);
    if (!echo->fin || echo->waiting)
        return ERR_OK;
    forget(echo);
    return service_close(pcb);
}

// lwIP sends what was written here when the callback has returned.
static err_t on_receive(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t error)
{
    struct echo *echo = arg;
    (void)error;
    if (!p) {
        echo->fin = true;
        return go_on(echo, pcb);
    }
    bool kept = true;
    struct stack_reader reader;
    const uint8_t *data;
    u16_t len;
    stack_read_from(&reader, p);
    while (kept && (data = stack_read(&reader, &len))) {
        u16_t sent = echo->waiting ? 0 : send_back(pcb, data, len);
        if (sent < len)
            kept = keep(echo, data + sent, len - sent);
    }
    stack_free_received(p);
    if (kept)
        return ERR_OK;
    tcp_abort(pcb); // calls on_error()
    return ERR_ABRT;
}

static err_t on_sent(void *arg, struct tcp_pcb *pcb, u16_t bytes)
{
    struct echo *echo = arg;
    (void)bytes;
    return echo->waiting ? go_on(echo, pcb) : ERR_OK;
}

static err_t on_poll(void *arg, struct tcp_pcb *pcb)
{
    return on_sent(arg, pcb, 0);
}

static void on_error(void *arg, err_t error)
{
    mine()->aborted += error == ERR_ABRT;
    forget(arg);
}

static err_t on_accept(void *arg, struct tcp_pcb *pcb, err_t error)
{
    (void)arg;
    if (error != ERR_OK || !pcb)
        return ERR_VAL;
    struct echo *echo = mine()->connections < MAX_CONNECTIONS ? net_calloc(1, sizeof(*echo)) : NULL;
    if (!echo) {
        mine()->refused++;
        return ERR_MEM; // lwIP resets it
    }
    mine()->connections++;
    mine()->accepted++;
    tcp_arg(pcb, echo);
    tcp_recv(pcb, on_receive);
    tcp_sent(pcb, on_sent);
    tcp_err(pcb, on_error);
    tcp_poll(pcb, on_poll, 2);
    tcp_nagle_disable(pcb);
    service_keepalive(pcb);
    // The client knows of no larger window than the handshake's, so nothing is taken back from it.
    pcb->rcv_wnd = pcb->rcv_ann_wnd = LWIP_MIN(pcb->rcv_wnd, WINDOW);
    pcb->rcv_ann_right_edge = pcb->rcv_nxt + pcb->rcv_wnd;
    return ERR_OK;
}

// ---- UDP ----

static bool meant_for_us(u16_t port)
{
    return port >= PORT_TRUSTED && !ip_addr_ismulticast(ip_current_dest_addr()) &&
           !ip_addr_isbroadcast(ip_current_dest_addr(), ip_current_netif());
}

static void on_datagram(void *arg, struct udp_pcb *pcb, struct pbuf *p, const ip_addr_t *from,
                        u16_t port)
{
    struct service_counters *count = mine();
    (void)arg;
    count->datagrams++;
    count->datagram_bytes += p->tot_len;
    if (!meant_for_us(port) || udp_sendto_if_src(pcb, p, from, port, ip_current_input_netif(),
                                                 ip_current_dest_addr()) != ERR_OK)
        count->dropped++;
    pbuf_free(p);
}

// ---- The service ----

static void write_stats(void)
{
    service_counters_print(counters);
}

static struct stats_source echo_stats = {.name = "echo", .write = write_stats};

static bool echo_wanted(void)
{
    return config.echo;
}

static int echo_start(struct service *service)
{
    struct udp_pcb *pcb;
    int error = service_listen(ECHO_PORT, on_accept);
    if (!error)
        error = service_listen_udp(ECHO_PORT, on_datagram, &pcb);
    if (error)
        return error;
    service->port = ECHO_PORT;
    if (core_id() == 0)
        stats_add(&echo_stats);
    return 0;
}

struct service echo_service = {.name = "echo", .wanted = echo_wanted, .start = echo_start};
