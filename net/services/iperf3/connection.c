// SPDX-License-Identifier: BSD-2-Clause
// The iperf3 server's connections on one core: accepts clients, takes their cookies, hands what follows
// to whoever a connection turns out to belong to. Speaks the protocol of the stock iperf3 from 3.1 on,
// TCP only. Everything happens in lwIP's callbacks, in the tick, in messages of other cores and in
// poll(); only poll() closes connections, so that no callback loses what it works on.
#include <string.h>

#include "kernel/alloc.h"
#include "kernel/config.h"
#include "kernel/core.h"
#include "lwip/timeouts.h"
#include "net/services/iperf3/client_log.h"
#include "net/services/iperf3/server.h"
#include "net/services/listen.h"
#include "net/services/service.h"

#define COOKIE_TIME (10 * TIME_S) // from connecting to the whole cookie, and being told what it is
#define LINGER_TIME (2 * TIME_S)  // for closing its side when all is said

#define WRITE_BYTES 32768 // at once, of a long message

#define TICK 100       // ms, while there is any connection
#define TICK_WAITING 2 // ms, while one waits to be told what it is

// Connections that have not shown their cookie, or linger. Of more the oldest are reset.
#define MAX_IDLE_CONNECTIONS 64

static PERCORE struct connection *connections;
static PERCORE unsigned idle_connections;
static PERCORE bool attention; // poll() has something to close or to free
static PERCORE bool ticking;

struct connection *connections_first(void)
{
    return connections;
}

void connections_attend(void)
{
    attention = true;
}

void connection_close(struct connection *c, enum closing how)
{
    if (c->closing < how)
        c->closing = how;
    attention = true;
}

static void set_idle(struct connection *c, bool idle)
{
    idle_connections += (unsigned)idle - c->idle;
    c->idle = idle;
}

void connection_busy(struct connection *c, enum connection_role role)
{
    set_idle(c, false);
    c->role = role;
}

void connection_linger(struct connection *c)
{
    set_idle(c, true);
    c->role = CONNECTION_LINGER;
    c->deadline = time_now() + LINGER_TIME;
    if (c->fin)
        connection_close(c, CLOSE_GENTLY);
    attention = true;
}

bool connection_write(struct connection *c, const void *data, size_t len)
{
    const char *at = data;
    while (c->pcb && len) {
        u16_t n = (u16_t)LWIP_MIN(len, WRITE_BYTES);
        if (tcp_write(c->pcb, at, n, TCP_WRITE_FLAG_COPY) != ERR_OK)
            return false;
        at += n;
        len -= n;
    }
    if (c->pcb)
        tcp_output(c->pcb);
    return c->pcb;
}

bool connection_say(struct connection *c, int8_t what)
{
    return connection_write(c, &what, 1);
}

// ---- The cookie ----

// Takes bytes of the cookie; returns how many.
static size_t feed_cookie(struct connection *c, const uint8_t *data, size_t len)
{
    size_t taken = 0;
    while (taken < len && c->cookie_bytes < IPERF3_COOKIE) {
        uint8_t byte = data[taken++];
        bool last = c->cookie_bytes == IPERF3_COOKIE - 1;
        if (last ? byte != 0 : byte < 0x20 || byte > 0x7e) {
            LOG_CLIENT(log_warn, "iperf3: garbage from %s dropped", c->name);
            connection_close(c, CLOSE_HARD);
            return len;
        }
        c->cookie[c->cookie_bytes++] = byte;
    }
    if (c->cookie_bytes == IPERF3_COOKIE) {
        c->role = CONNECTION_WAITS;
        join_decide(c);
    }
    return taken;
}

// ---- lwIP's callbacks ----

static void received_fin(struct connection *c)
{
    c->fin = true;
    if (c->role == CONNECTION_CONTROL) {
        test_control_gone(true);
        return;
    }
    if (c->role == CONNECTION_STREAM)
        member_stream_gone(c);
    connection_close(c, CLOSE_GENTLY);
}

static err_t on_receive(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t error)
{
    struct connection *c = arg;
    (void)error;
    if (!p) {
        received_fin(c);
        return ERR_OK;
    }
    if (c->role == CONNECTION_STREAM) {
        stream_receive(c, p);
        return ERR_OK;
    }
    struct stack_reader reader;
    const uint8_t *data;
    u16_t len;
    stack_read_from(&reader, p);
    while ((data = stack_read(&reader, &len))) {
        size_t taken = 0;
        if (c->role == CONNECTION_NEW && !c->closing)
            taken = feed_cookie(c, data, len);
        if (c->role == CONNECTION_CONTROL && taken < len)
            test_feed(data + taken, len - taken);
        else if (c->role == CONNECTION_WAITS)
            c->early += len - taken;
    }
    tcp_recved(pcb, p->tot_len);
    stack_free_received(p);
    return ERR_OK;
}

static err_t on_sent(void *arg, struct tcp_pcb *pcb, u16_t bytes)
{
    struct connection *c = arg;
    (void)pcb;
    if (c->role == CONNECTION_STREAM && c->sender)
        stream_sent(c, bytes);
    return ERR_OK;
}

// The connection is gone: reset, timed out, or its interface was removed.
static void on_error(void *arg, err_t error)
{
    struct connection *c = arg;
    (void)error;
    c->pcb = NULL; // lwIP has freed it
    if (c->role == CONNECTION_CONTROL)
        test_control_gone(false);
    else if (c->role == CONNECTION_STREAM)
        member_stream_gone(c);
    attention = true;
}

// There are too many: the one that has been silent for the longest makes room. False: all linger.
static bool drop_oldest(void)
{
    struct connection *oldest = NULL;
    for (struct connection *c = connections; c; c = c->next)
        if (c->role == CONNECTION_NEW && !c->closing)
            oldest = c; // new ones are put in front
    if (oldest)
        connection_close(oldest, CLOSE_HARD);
    return oldest;
}

static err_t on_accept(void *arg, struct tcp_pcb *pcb, err_t error)
{
    (void)arg;
    if (error != ERR_OK || !pcb)
        return ERR_VAL;
    // The streams that a test waits for have their own allowance.
    unsigned limit =
        MAX_IDLE_CONNECTIONS + (gate_state() == GATE_STREAMS ? 2 * IPERF3_MAX_STREAMS : 0);
    struct connection *c = NULL;
    if (idle_connections < limit || drop_oldest())
        c = net_calloc(1, sizeof(*c));
    if (!c)
        return ERR_MEM; // lwIP resets it
    c->pcb = pcb;
    stack_name(c->name, &pcb->remote_ip, pcb->remote_port);
    c->deadline = time_now() + COOKIE_TIME;
    c->next = connections;
    connections = c;
    set_idle(c, true);
    tcp_arg(pcb, c);
    tcp_recv(pcb, on_receive);
    tcp_sent(pcb, on_sent);
    tcp_err(pcb, on_error);
    service_keepalive(pcb);
    if (!ticking)
        connections_tick_now();
    return ERR_OK;
}

// ---- Time ----

static void tick(void *arg)
{
    (void)arg;
    uint64_t now = time_now();
    uint32_t tests = test_tick(now), streams = member_tick(now);
    uint32_t next = LWIP_MIN(tests, streams), datagrams = udp_tick(now);
    next = LWIP_MIN(next, datagrams);
    for (struct connection *c = connections; c; c = c->next) {
        next = LWIP_MIN(next, TICK);
        if (c->role == CONNECTION_WAITS) {
            next = LWIP_MIN(next, TICK_WAITING);
            join_decide(c);
        }
        if (c->role == CONNECTION_LINGER && now > c->deadline)
            connection_close(c, CLOSE_GENTLY);
        if ((c->role == CONNECTION_NEW || c->role == CONNECTION_WAITS) && now > c->deadline)
            connection_close(c, CLOSE_HARD);
    }
    ticking = next != UINT32_MAX;
    sys_untimeout(tick, NULL); // what happened here may have asked for one
    if (ticking)
        sys_timeout(next, tick, NULL);
}

void connections_tick_now(void)
{
    ticking = true;
    sys_untimeout(tick, NULL);
    sys_timeout(0, tick, NULL);
}

// ---- The service ----

// Stops lwIP from calling back, and leaves the connection to it.
static void close_now(struct connection *c)
{
    if (!c->pcb)
        return;
    if (c->role == CONNECTION_STREAM)
        member_stream_gone(c);
    struct tcp_pcb *pcb = c->pcb;
    c->pcb = NULL;
    if (c->closing == CLOSE_HARD) {
        tcp_err(pcb, NULL);
        tcp_abort(pcb);
    } else {
        service_close(pcb);
    }
}

// A test needs its control connection; one that waits for an answer must be there when it comes.
static bool still_needed(const struct connection *c)
{
    return c->pcb || c->role == CONNECTION_CONTROL ||
           (c->role == CONNECTION_WAITS && c->asked && time_now() < c->deadline);
}

static bool iperf3_poll(void)
{
    bool sending = udp_poll();
    if (!attention)
        return sending;
    attention = false;
    test_poll();
    struct connection **link = &connections;
    while (*link) {
        struct connection *c = *link;
        if (c->closing)
            close_now(c);
        if (!still_needed(c)) {
            set_idle(c, false);
            *link = c->next;
            heap_free(c);
        } else {
            link = &c->next;
        }
    }
    return true;
}

static int iperf3_start(struct service *service)
{
    service->port = config.iperf3_port;
    int error = stream_init();
    if (!error)
        error = udp_start(service->port);
    return error ? error : service_listen(service->port, on_accept);
}

struct service iperf3_service = {.name = "iperf3", .start = iperf3_start, .poll = iperf3_poll};
