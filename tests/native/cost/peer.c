// SPDX-License-Identifier: BSD-2-Clause
// See peer.h. Frames go to the guest through receive sections, several in a packet as a real host sends
// them; what comes from it is read where it lies: in send sections or in the guest's pages.
#include "tests/native/cost/peer.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/unit/fake_host.h"
#include "tests/unit/fake_kernel.h"

#define ETHERNET 14
#define IP 20
#define TCP 32 // with timestamps
#define UDP 8
#define HEAD 128       // of a frame, enough for all headers
#define IN_A_PACKET 48 // receive sections
#define RNDIS_BYTES 92 // in front of the frame: header and three PPIs
#define FLAG_FIN 1
#define FLAG_SYN 2
#define FLAG_RST 4
#define FLAG_ACK 16
#define CHECKED (PPI_RX_TCP_OK | PPI_RX_UDP_OK | PPI_RX_IP_OK)

static const uint8_t guest_mac[6] = {0, 0x15, 0x5d, 1, 2, 3}, peer_mac[6] = {2, 0, 0, 0, 0, 1};
static uint32_t ranges[2 * IN_A_PACKET];
static unsigned range_count, next_section, transfers;
static uint64_t measured, frames_taken;

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "cost: %s\n", what);
    exit(1);
}

static void deliver(void)
{
    if (!range_count)
        return;
    // Sections are used in turns; the guest may hold those of the last so many packets. (There were
    // completions before the first of these packets.)
    if ((int)(++transfers - host.completion_count) > 40)
        fail("the guest keeps receive sections");
    host_transfer(transfers, ranges, range_count);
    range_count = 0;
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

void guest_run(uint64_t duration)
{
    deliver();
    host.paused = true;
    uint64_t start = now_ns();
    fake_run(duration);
    measured += now_ns() - start;
    host.paused = false;
    if (host.bad)
        fail("the guest broke a rule");
}

uint64_t guest_ns(void)
{
    return measured;
}

uint64_t peer_frames(void)
{
    return frames_taken;
}

// ---- To the guest ----

// Part of a frame, the flags of RSC as given, into the next section.
static void put_section(const uint8_t *head, uint32_t head_len, uint32_t payload, uint8_t flags)
{
    if (range_count == IN_A_PACKET)
        deliver();
    uint32_t section = next_section++ % 2000;
    uint8_t *to = host_receive_buffer() + section * HOST_SECTION;
    struct rndis_packet p = {
        .header = {.type = RNDIS_PACKET, .length = RNDIS_BYTES + head_len + payload},
        .data_offset = 36 + 48,
        .data_length = head_len + payload,
        .ppi_offset = 36,
        .ppi_length = 48,
    };
    uint32_t ppis[12] = {16, PPI_PACKET_ID, 12, 1 | (uint32_t)flags << 8,
                         16, PPI_CHECKSUM,  12, CHECKED,
                         16, PPI_HASH,      12, 0x12345678};
    memcpy(to, &p, sizeof(p));
    memcpy(to + 44, ppis, sizeof(ppis));
    if (head_len)
        memcpy(to + RNDIS_BYTES, head, head_len);
    ranges[2 * range_count] = section * HOST_SECTION;
    ranges[2 * range_count + 1] = p.header.length;
    range_count++;
}

static void put_frame(const uint8_t *head, uint32_t head_len, uint32_t payload)
{
    uint32_t first = payload < PEER_MSS ? payload : PEER_MSS;
    uint8_t flags = payload > first ? RNDIS_FRAGMENT | RNDIS_FRAGMENT_FIRST : 0;
    // A frame's sections are of one packet.
    if (range_count + payload / PEER_MSS + 1 > IN_A_PACKET)
        deliver();
    put_section(head, head_len, first, flags);
    for (payload -= first; payload; payload -= first) {
        first = payload < PEER_MSS ? payload : PEER_MSS;
        flags = RNDIS_FRAGMENT | (payload == first ? RNDIS_FRAGMENT_LAST : 0);
        put_section(NULL, 0, first, flags);
    }
}

static void put16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value)
{
    put16(at, value >> 16);
    put16(at + 2, value);
}

static uint32_t get16(const uint8_t *at)
{
    return (uint32_t)at[0] << 8 | at[1];
}

static uint32_t get32(const uint8_t *at)
{
    return get16(at) << 16 | get16(at + 2);
}

// Ethernet and IP; returns where the transport header goes. The host vouches for all checksums.
static uint8_t *put_headers(uint8_t *frame, uint8_t protocol, uint32_t len)
{
    memcpy(frame, guest_mac, 6);
    memcpy(frame + 6, peer_mac, 6);
    put16(frame + 12, 0x0800);
    uint8_t *ip = frame + ETHERNET;
    memset(ip, 0, IP);
    ip[0] = 0x45;
    put16(ip + 2, IP + len);
    ip[8] = 64;
    ip[9] = protocol;
    put32(ip + 12, PEER_ADDRESS);
    put32(ip + 16, GUEST_ADDRESS);
    uint32_t sum = 0;
    for (unsigned i = 0; i < IP; i += 2)
        sum += get16(ip + i);
    put16(ip + 10, ~((sum & 0xffff) + (sum >> 16)));
    return ip + IP;
}

static void put_segment(struct peer *p, uint8_t flags, uint32_t len)
{
    static const uint8_t syn_options[20] = {2, 4, 5, 180, 4, 2, 8, 10, 0, 0,
                                            0, 1, 0, 0,   0, 0, 1, 3,  3, 10};
    static uint32_t clock = 1;
    bool syn = flags & FLAG_SYN;
    uint32_t header = syn ? 40 : TCP;
    uint8_t frame[HEAD];
    uint8_t *tcp = put_headers(frame, 6, header + len);
    put16(tcp, p->port);
    put16(tcp + 2, p->guest_port);
    put32(tcp + 4, p->next);
    put32(tcp + 8, p->expected);
    tcp[12] = (uint8_t)(header / 4 << 4);
    tcp[13] = flags;
    put16(tcp + 14, 0xffff); // 64 MB, but for the SYN's
    put32(tcp + 16, 0);
    if (syn) {
        memcpy(tcp + 20, syn_options, sizeof(syn_options));
    } else {
        put32(tcp + 20, 0x0101080a);
        put32(tcp + 24, clock++);
        put32(tcp + 28, p->echo);
    }
    put_frame(frame, ETHERNET + IP + header, len);
    p->next += len + syn;
}

void peer_send(struct peer *p, uint32_t len)
{
    put_segment(p, FLAG_ACK, len);
}

void peer_ack(struct peer *p)
{
    put_segment(p, FLAG_ACK, 0);
}

void peer_datagram(uint16_t guest_port, uint16_t source_port, uint32_t len)
{
    uint8_t frame[HEAD];
    uint8_t *udp = put_headers(frame, 17, UDP + len);
    put16(udp, source_port);
    put16(udp + 2, guest_port);
    put16(udp + 4, UDP + len);
    put16(udp + 6, 1); // any
    put_frame(frame, ETHERNET + IP + UDP, len);
}

// ---- From the guest ----

static void answer_arp(const uint8_t *frame)
{
    uint8_t reply[42];
    if (get16(frame + 20) != 1 || get32(frame + 38) != PEER_ADDRESS)
        return;
    memcpy(reply, frame + 6, 6);
    memcpy(reply + 6, peer_mac, 6);
    memcpy(reply + 12, frame + 12, 8);
    put16(reply + 20, 2);
    memcpy(reply + 22, peer_mac, 6);
    put32(reply + 28, PEER_ADDRESS);
    memcpy(reply + 32, frame + 22, 10);
    put_frame(reply, sizeof(reply), 0);
}

static bool take_segment(struct peer *p, const uint8_t *ip, uint32_t len)
{
    const uint8_t *tcp = ip + IP;
    uint32_t header = (uint32_t)(tcp[12] >> 4) * 4, payload = len - ETHERNET - IP - header;
    if (get16(tcp + 2) != p->port)
        return false;
    if (tcp[13] & (FLAG_RST | FLAG_FIN))
        fail("the guest ends the connection");
    if (tcp[13] & FLAG_SYN) {
        p->expected = get32(tcp + 4) + 1;
        p->open = true;
    }
    p->acked = get32(tcp + 8);
    p->window = get16(tcp + 14) << (tcp[13] & FLAG_SYN ? 0 : 7); // at least
    if (header == TCP && get32(tcp + 20) == 0x0101080a)
        p->echo = get32(tcp + 24);
    if (!payload)
        return false;
    if (get32(tcp + 4) != p->expected)
        fail("a segment of the guest is out of order");
    p->expected += payload;
    p->bytes += payload;
    p->frames++;
    return true;
}

// An RNDIS message of which at least the headers are here. True if it has data of the connection.
static bool take_message(struct peer *p, const uint8_t *message)
{
    struct rndis_packet r;
    memcpy(&r, message, sizeof(r));
    const uint8_t *frame = message + 8 + r.data_offset;
    frames_taken++;
    if (get16(frame + 12) == 0x0806)
        answer_arp(frame);
    return get16(frame + 12) == 0x0800 && frame[ETHERNET + 9] == 6 &&
           take_segment(p, frame + ETHERNET, r.data_length);
}

// The beginning of what the ranges of a packet describe.
static void gather(const struct host_packet *packet, uint8_t *to, uint32_t wanted)
{
    uint32_t have = 0, at = 24, word[2];
    while (have < wanted && at < packet->header_len) {
        memcpy(word, packet->bytes + at, 8); // bytes, offset
        at += 8;
        for (uint32_t left = word[0]; left; at += 8) {
            uint32_t run = 4096 - word[1] < left ? 4096 - word[1] : left;
            uint64_t pfn;
            memcpy(&pfn, packet->bytes + at, 8);
            if (have < wanted)
                memcpy(to + have, (uint8_t *)(uintptr_t)(pfn << 12) + word[1],
                       run < wanted - have ? run : wanted - have);
            have += run;
            left -= run;
            word[1] = 0;
        }
    }
}

// A packet with one message, or a send section with several; returns how many frames had data.
static unsigned take_packet(struct peer *p, const struct host_packet *packet)
{
    struct nvsp_message m;
    memcpy(&m, packet->bytes + packet->header_len, sizeof(m.type) + sizeof(m.rndis));
    uint32_t size = m.rndis.section_bytes, length;
    if (packet->type == PACKET_GPA_DIRECT) {
        uint8_t head[RNDIS_BYTES + HEAD];
        gather(packet, head, sizeof(head));
        return take_message(p, head);
    }
    const uint8_t *section = host_send_buffer() + m.rndis.section * HOST_SEND_SECTION;
    unsigned with_data = 0;
    for (uint32_t at = 0; at < size; at += length) {
        memcpy(&length, section + at + 4, 4);
        if (length < 44 || length > size - at)
            fail("a message of the guest has a wrong length");
        with_data += take_message(p, section + at);
    }
    return with_data;
}

bool peer_take(struct peer *p, unsigned ack_each)
{
    unsigned with_data = 0;
    host_service();
    if (host.packet_count == HOST_PACKETS)
        fail("the guest sends more packets at once than are kept");
    for (unsigned i = 0; i < host.packet_count; i++) {
        unsigned before = with_data;
        with_data += take_packet(p, &host.packets[i]);
        if (ack_each && with_data / ack_each != before / ack_each)
            peer_ack(p);
    }
    host.packet_count = 0;
    return with_data > 0;
}

void peer_connect(struct peer *p, uint16_t guest_port)
{
    static uint16_t port = 40000;
    *p = (struct peer){.port = port++, .guest_port = guest_port, .next = 1000};
    put_segment(p, FLAG_SYN, 0);
    for (unsigned i = 0; i < 20 && !p->open; i++) {
        guest_run(0);
        peer_take(p, 0);
    }
    if (!p->open)
        fail("the guest does not accept a connection");
    peer_ack(p);
    guest_run(0);
}
