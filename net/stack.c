// SPDX-License-Identifier: BSD-2-Clause
// The network stack of one core: starts lwIP, runs its timers from the core's loop, gives it time,
// memory and unpredictable numbers, and starts the services. Called from the loop only, never from
// an interrupt. Packets come and go through rx.c and tx.c.
#include "net/stack.h"

#include <string.h>

#include "kernel/alloc.h"
#include "kernel/config.h"
#include "kernel/console.h"
#include "kernel/core.h"
#include "kernel/log.h"
#include "kernel/loop.h"
#include "kernel/message.h"
#include "kernel/panic.h"
#include "kernel/random.h"
#include "kernel/time.h"
#include "lwip/dhcp.h"
#include "lwip/init.h"
#include "lwip/ip6_frag.h"
#include "lwip/mld6.h"
#include "lwip/nd6.h"
#include "lwip/netif.h"
#include "lwip/priv/tcp_priv.h"
#include "lwip/stats.h"
#include "lwip/sys.h"
#include "lwip/tcp.h"
#include "lwip/timeouts.h"
#include "net/address6.h"
#include "net/front.h"
#include "net/hooks.h"
#include "net/interface.h"
#include "net/ip6_input.h"
#include "net/net.h"
#include "net/options.h"
#include "net/route.h"
#include "net/sender.h"
#include "net/services/service.h"
#include "net/steer.h"

#include <stb_sprintf.h>

// When less than one page in so many is free, memory is short: objects larger than the small ones
// (timers are small, and whatever there is many of has something larger with it) are refused.
#define RESERVE_PART 16
#define SMALL_BYTES 64
#define LARGE_BYTES 2048

// What a connection may keep out of order, normally and when memory is short.
#define OOSEQ_BYTES TCP_WND // all that the peer may send
#define OOSEQ_BYTES_SHORT (16u * 1024)

#define LEAP_MAX (INT32_MAX / 2u) // of lwIP's clock, ms

// RFC 6528's clock: sequence numbers move on by one every 4 us.
#define ISN_TICK (4 * TIME_US)

// RFC 6056, algorithm 3: the dynamic ports, and how many are tried.
#define PORT_FIRST 49152
#define PORT_COUNT 16384
#define PORT_TRIES 2048 // of 64 cores each gets one port in 64

static uint8_t isn_key[16], port_key[16]; // of all cores, so that a flow may change cores
static PERCORE uint32_t port_counter;
static PERCORE uint8_t retransmits_slot; // which of a pcb's extra arguments counts retransmissions
static bool announced[2];                // core 0's: for IPv4 and IPv6
static PERCORE bool memory_short;        // as of the last look
static PERCORE unsigned overrunning, old_acknowledgements, refused_allocations;

static struct service *const services[] = {&iperf3_service, &echo_service, &discard_service};
#define SERVICE_COUNT (sizeof(services) / sizeof(services[0]))

// lwIP's clock, in milliseconds. Its timers compare by sign: what is due would seem far away after a leap of
// 25 days, as a machine may make that was stopped while its clock ran on. So longer ones count as shorter.
u32_t sys_now(void)
{
    static PERCORE uint64_t last, hidden;
    uint64_t now = time_now() / TIME_MS;

    if (now - last > LEAP_MAX && last)
        hidden += now - last - LEAP_MAX;
    last = now;
    return (u32_t)(now - hidden);
}

static void look_at_memory(void)
{
    struct memory_stats memory;
    memory_stats(&memory);
    memory_short = memory.pages_free < memory.pages_total / RESERVE_PART;
}

bool stack_memory_short(void)
{
    return memory_short;
}

void *net_alloc(size_t size)
{
    if (size >= LARGE_BYTES) // there are other cores, too, and a turn can be long
        look_at_memory();
    void *object = memory_short && size > SMALL_BYTES ? NULL : heap_alloc(size);
    if (!object)
        refused_allocations++;
    return object;
}

void *net_calloc(size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes))
        return NULL;
    void *object = net_alloc(bytes);
    if (object)
        memset(object, 0, bytes);
    return object;
}

_Noreturn void net_lwip_assert(const char *message, const char *file, int line)
{
    panic("lwip: %s:%d: %s", file, line, message);
}

// The bytes of an address, for hashing.
static void put_address(uint32_t out[4], const ip_addr_t *address)
{
    memset(out, 0, 4 * sizeof(out[0]));
    if (IP_IS_V6(address))
        memcpy(out, ip_2_ip6(address)->addr, 4 * sizeof(out[0]));
    else
        out[0] = ip_2_ip4(address)->addr;
}

u32_t net_tcp_isn(const ip_addr_t *local, u16_t local_port, const ip_addr_t *remote,
                  u16_t remote_port)
{
    struct {
        uint32_t local[4], remote[4];
        uint16_t local_port, remote_port;
    } tuple = {.local_port = local_port, .remote_port = remote_port};
    put_address(tuple.local, local);
    put_address(tuple.remote, remote);
    return (u32_t)(time_now() / ISN_TICK + siphash24(isn_key, &tuple, sizeof(tuple)));
}

err_t stack_tcp_connect(struct tcp_pcb *pcb, const ip_addr_t *remote, u16_t remote_port,
                        tcp_connected_fn connected)
{
    struct netif *netif = route_to(remote);
    const ip_addr_t *local = netif ? ip_netif_get_local_ip(netif, remote) : NULL;
    if (!local)
        return ERR_RTE;
    uint32_t tuple[9] = {[8] = remote_port};
    put_address(tuple, local);
    put_address(tuple + 4, remote);
    uint64_t offset = siphash24(port_key, tuple, sizeof(tuple));
    tcp_bind_netif(pcb, netif);
    const ip_addr_t *any = IP_IS_V6(remote) ? IP6_ADDR_ANY : IP4_ADDR_ANY;
    for (unsigned i = 0; i < PORT_TRIES; i++) {
        u16_t port = (u16_t)(PORT_FIRST + (offset + port_counter++) % PORT_COUNT);
        if (!flow_comes_here(netif->state, remote, remote_port, local, port) ||
            tcp_bind(pcb, any, port) != ERR_OK)
            continue;
        err_t error = tcp_connect(pcb, remote, remote_port, connected);
        if (error == ERR_OK)
            flow_connected(netif->state, pcb);
        return error;
    }
    return ERR_USE;
}

u32_t *net_tcp_segment_out(const struct pbuf *p, const struct tcp_hdr *header,
                           const struct tcp_pcb *pcb, u32_t *options)
{
    interface_tcp_out(pcb, header, p->tot_len);
    // Refusals are sent with no connection, and keepalives carry no data.
    if (pcb && TCP_SEQ_LT(lwip_ntohl(header->seqno), pcb->snd_nxt) &&
        p->tot_len > TCPH_HDRLEN_BYTES(header)) {
        uintptr_t count = (uintptr_t)tcp_ext_arg_get(pcb, retransmits_slot);
        // lwIP's only other user of this hook has its pcb const.
        struct tcp_pcb *mine = (struct tcp_pcb *)(uintptr_t)pcb;
        tcp_ext_arg_set(mine, retransmits_slot, (void *)(count + 1));
    }
    return options;
}

uint32_t stack_tcp_retransmits(const struct tcp_pcb *pcb)
{
    return (uint32_t)(uintptr_t)tcp_ext_arg_get(pcb, retransmits_slot) + sender_resent(pcb);
}

static void raise_mss(const struct tcp_options *options, unsigned at)
{
    unsigned mss = *tcp_options_byte(options, at) << 8 | *tcp_options_byte(options, at + 1);
    if (mss >= STACK_MSS_LEAST)
        return;
    *tcp_options_byte(options, at) = 0;
    *tcp_options_byte(options, at + 1) = STACK_MSS_LEAST;
}

// lwIP obeys an MSS option in every segment, and tcp_write() then asserts that what waits to be sent
// fits it: only that of the first SYN may count, others become NOPs. Nor can lwIP do with less than
// the options it sends itself: like Linux we do not go below a least one. Changes our own copy of the
// headers, whose checksum was looked at.
static void mend_mss(const struct tcp_options *options, bool first_syn)
{
    struct tcp_option option = {0};
    while (tcp_options_next(options, &option)) {
        if (option.kind != LWIP_TCP_OPT_MSS)
            continue;
        if (first_syn && option.size == LWIP_TCP_OPT_LEN_MSS)
            raise_mss(options, option.at + 2);
        for (unsigned i = 0; !first_syn && i < option.size; i++)
            *tcp_options_byte(options, option.at + i) = LWIP_TCP_OPT_NOP;
    }
}

// The MTU may have become smaller while lwIP had longer segments.
static void follow_mtu(struct tcp_pcb *pcb)
{
    uint16_t most = interface_link_mss(ip_current_input_netif()->state, pcb);
    if (pcb->mss > most)
        stack_lower_mss(pcb, most, false);
}

// lwIP's timer for a window that stays too small cuts what waits by the lower 16 bits of the window, and
// asserts when these are 0. The window then is a little smaller.
static void mend_window(const struct tcp_pcb *pcb, const struct tcp_hdr *header)
{
    if (header->wnd && !(((u32_t)header->wnd << pcb->snd_scale) & UINT16_MAX))
        ((struct tcp_hdr *)(uintptr_t)header)->wnd--;
}

// What lies before the window as a whole is old or a guess, and acknowledges nothing new (RFC 9293); lwIP
// would believe it. It is answered, as lwIP does.
static bool acknowledges_by_an_old_segment(struct tcp_pcb *pcb, const struct tcp_hdr *header,
                                           u32_t end)
{
    if (pcb->state < ESTABLISHED || (TCPH_FLAGS(header) & (TCP_SYN | TCP_RST)) ||
        !TCP_SEQ_LT(end, pcb->rcv_nxt) || !TCP_SEQ_GT(header->ackno, pcb->lastack))
        return false;
    old_acknowledgements++;
    tcp_ack_now(pcb);
    tcp_output(pcb);
    return true;
}

// lwIP trims what reaches beyond the window if it is in order or the last out of order, but not
// otherwise, and later asserts that nothing did. No honest peer sends such a segment: the right edge
// of a window never moves left here.
err_t net_tcp_segment_in(struct tcp_pcb *pcb, const struct tcp_hdr *header, u16_t options_len,
                         u16_t here, const u8_t *rest, const struct pbuf *p)
{
    // To lwIP these are not const, either; it only says so to us.
    struct tcp_options options = {(uint8_t *)(uintptr_t)(header + 1), (uint8_t *)(uintptr_t)rest,
                                  here, options_len};
    mend_mss(&options, pcb->state < SYN_RCVD);
    if (pcb->state == LISTEN)
        flow_listens(pcb);
    if (pcb->state < SYN_RCVD || pcb->state == TIME_WAIT)
        return ERR_OK;
    front_learn(pcb);
    mend_window(pcb, header);
    // While there was no window at all tcp_write() makes segments of any length, and asserts when there
    // is a small one.
    pcb->snd_wnd_max = LWIP_MAX(pcb->snd_wnd_max, 2 * STACK_MSS_LEAST);
    u32_t end = header->seqno + p->tot_len + (TCPH_FLAGS(header) & TCP_FIN ? 1 : 0);
    if (TCP_SEQ_GT(header->seqno, pcb->rcv_nxt) && TCP_SEQ_GT(end, pcb->rcv_nxt + pcb->rcv_wnd)) {
        overrunning++;
        return ERR_BUF;
    }
    if (acknowledges_by_an_old_segment(pcb, header, end))
        return ERR_VAL;
    if (!TCP_SEQ_LT(end, pcb->rcv_nxt))
        sender_segment_in(pcb, header, p->tot_len, &options);
    follow_mtu(pcb);
    if (p->tot_len && interface_arriving_segments() > 1)
        ack_at_batch_end(pcb);
    return ERR_OK;
}

u32_t net_ooseq_limit(void)
{
    return memory_short ? OOSEQ_BYTES_SHORT : OOSEQ_BYTES;
}

void stack_address(char text[STACK_NAME_BYTES], const ip_addr_t *address)
{
    ipaddr_ntoa_r(address, text, STACK_NAME_BYTES);
    for (char *c = text; *c; c++)
        if (*c >= 'A' && *c <= 'F')
            *c = (char)(*c - 'A' + 'a'); // RFC 5952
}

void stack_name(char name[STACK_NAME_BYTES], const ip_addr_t *address, uint16_t port)
{
    char text[STACK_NAME_BYTES];
    stack_address(text, address);
    stbsp_snprintf(name, STACK_NAME_BYTES, IP_IS_V6(address) ? "[%s]:%u" : "%s:%u", text, port);
}

void stack_address_up(const ip_addr_t *address)
{
    if (announced[IP_IS_V6(address)])
        return;
    announced[IP_IS_V6(address)] = true;
    char text[STACK_NAME_BYTES];
    stack_address(text, address);
    for (unsigned i = 0; i < SERVICE_COUNT; i++)
        if (services[i]->port)
            log_announce("ready: %s on %s port %u", services[i]->name, text, services[i]->port);
}

// ---- The core's loop ----

static bool stack_poll(void *ctx)
{
    (void)ctx;
    bool worked = false;
    interface_new_turn();
    look_at_memory();
    if (sys_timeouts_sleeptime() == 0) {
        if (core_id() == 0)
            manage_timers();
        sys_check_timeouts();
        worked = true;
    }
    for (unsigned i = 0; i < SERVICE_COUNT; i++)
        if (services[i]->poll)
            worked |= services[i]->poll();
    worked |= sender_poll(); // last: what the others caused goes out in this turn
    return worked;
}

static uint64_t stack_deadline(void *ctx)
{
    (void)ctx;
    u32_t sleep = sys_timeouts_sleeptime();
    uint64_t due =
        sleep == SYS_TIMEOUTS_SLEEPTIME_INFINITE ? UINT64_MAX : time_now() + sleep * TIME_MS;
    return LWIP_MIN(due, sender_deadline());
}

static PERCORE struct poller stack_poller = {
    .name = "net", .poll = stack_poll, .deadline = stack_deadline};

// ---- Statistics ----

// lwIP's numbers and ours, of all cores.
static void write_tcp_stats(void)
{
    struct stats_proto sum = {0};
    unsigned overran = 0, old = 0, refused = 0;
    for (unsigned core = 0; core < core_count(); core++) {
        const struct stats_ *stats = core_peek(core, &lwip_stats);
        sum.recv += stats->tcp.recv;
        sum.xmit += stats->tcp.xmit;
        sum.drop += stats->tcp.drop;
        sum.chkerr += stats->tcp.chkerr;
        sum.memerr += stats->tcp.memerr;
        overran += *(const unsigned *)core_peek(core, &overrunning);
        old += *(const unsigned *)core_peek(core, &old_acknowledgements);
        refused += *(const unsigned *)core_peek(core, &refused_allocations);
    }
    stats_print("{\"in\":%u,\"out\":%u,\"dropped\":%u,\"bad_checksum\":%u,\"no_memory\":%u,"
                "\"overrunning\":%u,\"old_acks\":%u,\"refused_allocations\":%u}",
                (unsigned)sum.recv, (unsigned)sum.xmit, (unsigned)sum.drop, (unsigned)sum.chkerr,
                (unsigned)sum.memerr, overran, old, refused);
}

static struct stats_source tcp_stats = {.name = "tcp", .write = write_tcp_stats};

// ---- Start ----

// Of lwIP's periodic timers those that have nothing to do on this core, and would wake it for nothing:
// ten times a second for the groups that only core 0 joins.
static bool is_needless(lwip_cyclic_timer_handler timer)
{
    if (config.net.ip6 == CONFIG_IP6_OFF && !config.nic_count &&
        (timer == nd6_tmr || timer == ip6_reass_tmr || timer == mld6_tmr))
        return true;
    return core_id() != 0 &&
           (timer == mld6_tmr || timer == dhcp_fine_tmr || timer == dhcp_coarse_tmr);
}

static void stop_needless_timers(void)
{
    for (int i = 0; i < lwip_num_cyclic_timers; i++)
        if (is_needless(lwip_cyclic_timers[i].handler))
            sys_untimeout(lwip_cyclic_timer, (void *)(uintptr_t)&lwip_cyclic_timers[i]);
}

// The calling core's.
static void stack_start(void)
{
    port_counter = random_u32();
    lwip_init();
    stop_needless_timers();
    retransmits_slot = tcp_ext_arg_alloc_id();
    sender_start();
    stack_narrow_start();
    flow_start();
    front_start();
    loop_add(&stack_poller);
    settings_init();
    address6_init();
    for (unsigned i = 0; i < SERVICE_COUNT; i++) {
        bool wanted = !services[i]->wanted || services[i]->wanted();
        int error = wanted ? services[i]->start(services[i]) : 0;
        if (error)
            log_error("net: cannot start service %s: error %d", services[i]->name, error);
    }
}

static void start_other(const void *data)
{
    (void)data;
    stack_start();
}

void net_start(void)
{
    random_bytes(isn_key, sizeof(isn_key));
    random_bytes(port_key, sizeof(port_key));
    stats_add(&tcp_stats);
    netif_start();
    connect_start();
    drain_start();
    manage_start();
    ip6_input_start();
    stack_start();
    if (core_count() > 1)
        steer_start();
    for (unsigned core = 1; core < core_count(); core++)
        message_post(core, start_other, NULL, 0); // their rings are still empty
    netvsc_start(&netif_nic_client);
}
