// SPDX-License-Identifier: BSD-2-Clause
// What the driver and the stack cost on Linux, where a profiler works: drivers/vmbus, drivers/netvsc,
// net/ and lwIP as they are, between the scripted host of the unit tests and a peer that makes and
// takes frames. Only the guest's turns are measured. Started by tests/native/cost/run.
//
//     dunlin-cost WORKLOAD MEGABYTES      one JSON object
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "drivers/vmbus/vmbus.h"
#include "kernel/config.h"
#include "kernel/time.h"
#include "lwip/tcp.h"
#include "net/net.h"
#include "net/sender.h"
#include "tests/native/cost/peer.h"
#include "tests/unit/fake_host.h"
#include "tests/unit/fake_kernel.h"

#define DISCARD_PORT 9
#define SOURCE_PORT 5000
#define MB 1000000u
#define DATAGRAM 64u
#define COALESCED (44 * PEER_MSS) // of one frame
#define BATCH 32                  // frames that arrive together
#define TURN (100 * TIME_US)      // of the guest's time, when it sends

static uint64_t frames, bytes; // of payload, both of this workload's direction

// ---- What sends: a service as small as can be ----

static uint8_t pattern[1 << 20];

static void send_more(struct tcp_pcb *pcb)
{
    uint32_t room = sender_room(pcb);
    if (room)
        sender_write(pcb, pattern, room < sizeof(pattern) ? room : sizeof(pattern));
}

static err_t on_sent(void *arg, struct tcp_pcb *pcb, u16_t len)
{
    (void)arg;
    (void)len;
    send_more(pcb);
    return ERR_OK;
}

static err_t on_accept(void *arg, struct tcp_pcb *pcb, err_t error)
{
    (void)arg;
    (void)error;
    tcp_sent(pcb, on_sent);
    send_more(pcb);
    return ERR_OK;
}

static void open_source(void)
{
    struct tcp_pcb *pcb = tcp_new();
    tcp_bind(pcb, IP_ADDR_ANY, SOURCE_PORT);
    tcp_accept(tcp_listen(pcb), on_accept);
}

// ---- Workloads ----

static void receive_stream(uint32_t segment, uint64_t wanted)
{
    struct peer p;
    peer_connect(&p, DISCARD_PORT);
    while (bytes < wanted) {
        // A burst, but never more than the guest's window.
        for (unsigned i = 0; i < BATCH && p.next - p.acked + segment < p.window; i++) {
            peer_send(&p, segment);
            frames++;
            bytes += segment;
            if (segment > PEER_MSS && i == 1)
                break;
        }
        guest_run(0);
        peer_take(&p, 0);
    }
}

static void send_stream(unsigned ack_each, uint64_t wanted)
{
    struct peer p;
    open_source();
    peer_connect(&p, SOURCE_PORT);
    while (p.bytes < wanted) {
        guest_run(TURN);
        peer_take(&p, ack_each);
    }
    frames = p.frames;
    bytes = p.bytes;
}

static void receive_datagrams(uint64_t wanted)
{
    struct peer none = {0};
    for (uint16_t port = 0; bytes < wanted; port++) {
        for (unsigned i = 0; i < BATCH; i++)
            peer_datagram(DISCARD_PORT, 1024 + port % 32, DATAGRAM);
        frames += BATCH;
        bytes += BATCH * DATAGRAM;
        guest_run(0);
        peer_take(&none, 0);
    }
}

// ---- The program ----

static void start(bool large)
{
    config.receive_buffer = 4 << 20;
    config.send_buffer = 1 << 20;
    config.ring = 128 << 10;
    config.net.dhcp = false;
    config.net.address = __builtin_bswap32(GUEST_ADDRESS);
    config.net.netmask = __builtin_bswap32(0xffffff00);
    config.discard = true;
    config.iperf3_port = 5201;
    config.net.lso = config.net.rsc = config.rsc = large;
    host_offers_all();
    vmbus_start_core();
    net_start();
    vmbus_start();
    fake_run(20 * TIME_S);
    host.packet_count = 0;
}

int main(int argc, char **argv)
{
    const char *workload = argc == 3 ? argv[1] : "";
    unsigned megabytes = 0;
    bool large = strstr(workload, "large");

    if (argc != 3 || sscanf(argv[2], "%u", &megabytes) != 1)
        workload = "";
    if (strcmp(workload, "in") && strcmp(workload, "in-large") && strcmp(workload, "out") &&
        strcmp(workload, "out-large") && strcmp(workload, "udp")) {
        fprintf(stderr, "usage: dunlin-cost in|in-large|out|out-large|udp MEGABYTES\n");
        return 2;
    }
    uint64_t wanted = (uint64_t)megabytes * MB;
    start(large);
    uint64_t before = guest_ns();
    if (!strcmp(workload, "udp"))
        receive_datagrams(wanted);
    else if (workload[0] == 'i')
        receive_stream(large ? COALESCED : PEER_MSS, wanted);
    else
        send_stream(large ? 1 : 2, wanted);
    printf("{\"ns\":%lu,\"bytes\":%lu,\"frames\":%lu}\n", guest_ns() - before, bytes, frames);
    fflush(NULL);
    _Exit(0); // the fibers of the drivers are threads that wait
}
