// SPDX-License-Identifier: BSD-2-Clause
// See coalesce.h. Segments are put together only if nothing is lost by it: all flags, options (but for
// the times in a timestamp), and the class of service are the same, and the host vouches for their
// checksums. The host may still write the frames: headers are copied, then looked at.
#include "net/coalesce.h"

#include <string.h>

#define ETHERNET 14u
#define ETHERTYPE_IP4 0x0008u // as it lies in memory
#define ETHERTYPE_IP6 0xdd86u
#define IP4_HEADER 20u
#define IP6_HEADER 40u
#define IP4_FRAGMENT 0xff3fu // more to come, or an offset; as it lies in memory
#define IP4_ADDRESSES (ETHERNET + 12)
#define IP6_ADDRESSES (ETHERNET + 8)
#define IP_TCP 6
#define TCP_HEADER 20u
#define TCP_TIMESTAMP_HEADER 32u // with NOP, NOP, timestamp
#define TIMESTAMP_OPTION 0x0a080101u
#define FLAG_PSH 0x08
#define FLAG_ACK 0x10
#define FRAME_MAX 65535u

// Offsets in the TCP header.
#define SEQUENCE 4
#define ACKNOWLEDGEMENT 8
#define DATA_OFFSET 12
#define FLAGS 13
#define WINDOW 14
#define OPTIONS 20
#define ECHO_REPLY 28 // of a timestamp

struct segment { // a TCP segment of a plain frame
    const struct nic_frame *frame;
    uint8_t ip;
    uint8_t csum; // of the frame, and what was found here
    uint8_t transport, header_len;
    uint32_t payload, sequence, acknowledged;
    uint8_t header[COALESCE_HEADER];
};

static uint16_t get16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static uint64_t get64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static uint32_t big16(const uint8_t *p)
{
    return __builtin_bswap16(get16(p));
}

static uint32_t big32(const uint8_t *p)
{
    return __builtin_bswap32(get32(p));
}

static void put_big16(uint8_t *p, uint32_t value)
{
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

static bool ip4_checksum_ok(const uint8_t *h)
{
    uint64_t sum = (uint64_t)get32(h) + get32(h + 4) + get32(h + 8) + get32(h + 12) + get32(h + 16);
    sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    return (sum & 0xffff) + (sum >> 16) == 0xffff;
}

// Where the TCP header is if the frame has one at the usual place and is no fragment, else 0. *length:
// what IP says of the bytes from there. IPv4's checksum is checked if the host has not.
static unsigned find_tcp(struct segment *s, uint32_t len, uint32_t *length)
{
    const uint8_t *h = s->header + ETHERNET;
    uint16_t type = get16(s->header + 12);

    if (type == ETHERTYPE_IP4 && len >= ETHERNET + IP4_HEADER && h[0] == 0x45) {
        if (!(s->csum & NIC_CSUM_IP_OK) && ip4_checksum_ok(h))
            s->csum |= NIC_CSUM_IP_OK;
        s->ip = 4;
        *length = big16(h + 2) - IP4_HEADER;
        return h[9] == IP_TCP && !(get16(h + 6) & IP4_FRAGMENT) ? ETHERNET + IP4_HEADER : 0;
    }
    if (type == ETHERTYPE_IP6 && len >= ETHERNET + IP6_HEADER && h[0] >> 4 == 6) {
        s->ip = 6;
        *length = big16(h + 4);
        return h[6] == IP_TCP ? ETHERNET + IP6_HEADER : 0;
    }
    return 0;
}

// False: a frame that is none of TCP, as most of them would say at one glance, which costs less than a
// copy of their headers. The host may change it behind this: what gets by is only not put together.
static bool may_be_tcp(const struct nic_frame *frame)
{
    const uint8_t *data = nic_rx_data(frame->pieces[0]);

    return nic_rx_len(frame->pieces[0]) >= ETHERNET + IP4_HEADER &&
           (get16(data + 12) == ETHERTYPE_IP4 ? data[ETHERNET + 9] : data[ETHERNET + 6]) == IP_TCP;
}

// Reads the headers of a frame. False: it is none of TCP, or not at the usual place. *plain: it may be
// put together with others.
static bool parse(struct segment *s, const struct nic_frame *frame, bool *plain)
{
    const uint8_t *data = nic_rx_data(frame->pieces[0]);
    uint32_t len = nic_rx_len(frame->pieces[0]), length;

    s->frame = frame;
    s->csum = frame->csum;
    if (len >= COALESCE_HEADER) {
        memcpy(s->header, data, 64);
        memcpy(s->header + 64, data + 64, COALESCE_HEADER - 64);
        len = COALESCE_HEADER;
    } else {
        memcpy(s->header, data, len);
    }
    unsigned at = find_tcp(s, len, &length);
    if (!at || len < at + TCP_HEADER)
        return false;
    const uint8_t *tcp = s->header + at;
    uint32_t tcp_len = (tcp[DATA_OFFSET] >> 4) * 4u;
    s->transport = (uint8_t)at;
    s->sequence = big32(tcp + SEQUENCE);
    s->acknowledged = big32(tcp + ACKNOWLEDGEMENT);
    uint8_t vouched = NIC_CSUM_L4_OK | (s->ip == 4 ? NIC_CSUM_IP_OK : 0);
    *plain = frame->count == 1 && frame->len == at + length && length >= tcp_len &&
             (tcp_len == TCP_HEADER || (tcp_len == TCP_TIMESTAMP_HEADER && at + tcp_len <= len &&
                                        get32(tcp + OPTIONS) == TIMESTAMP_OPTION)) &&
             (tcp[FLAGS] & ~FLAG_PSH) == FLAG_ACK && (s->csum & vouched) == vouched;
    s->header_len = (uint8_t)(at + tcp_len);
    s->payload = length - tcp_len;
    return true;
}

// True if it is IPv4 and the header's sum is right, which costs less here than in lwIP.
static bool ip4_header_ok(const struct nic_frame *frame)
{
    const uint8_t *data = nic_rx_data(frame->pieces[0]);

    return nic_rx_len(frame->pieces[0]) >= ETHERNET + IP4_HEADER &&
           get16(data + 12) == ETHERTYPE_IP4 && data[ETHERNET] == 0x45 &&
           ip4_checksum_ok(data + ETHERNET);
}

static struct coalesce_flow *flow_of(struct coalesce *c, const struct segment *s)
{
    uint32_t hash = s->frame->hash;

    if (!hash) { // the ports, and what differs between hosts of one network
        uint32_t ports = get32(s->header + s->transport);
        hash = (ports ^ ports >> 16) + s->header[s->ip == 4 ? 29 : 37];
        hash ^= hash >> 8;
    }
    return &c->flows[hash % COALESCE_FLOWS];
}

// True if the segment is of the flow's connection.
static bool same_connection(const struct coalesce_flow *f, const struct segment *s)
{
    const uint8_t *a = f->header, *b = s->header;

    if (f->ip != s->ip || get32(a + s->transport) != get32(b + s->transport)) // ports
        return false;
    if (s->ip == 4)
        return get64(a + IP4_ADDRESSES) == get64(b + IP4_ADDRESSES);
    for (unsigned i = IP6_ADDRESSES; i < IP6_ADDRESSES + 32; i += 8)
        if (get64(a + i) != get64(b + i))
            return false;
    return true;
}

static bool continues(const struct coalesce_flow *f, const struct segment *s)
{
    const uint8_t *ip = s->header + ETHERNET;
    const uint8_t *ip_before = f->header + ETHERNET;
    int32_t news = (int32_t)(s->acknowledged - f->acknowledged);

    // An acknowledgement that says the same again tells something by that.
    if (f->payload ? news < 0 || !s->payload : news <= 0)
        return false;
    return s->sequence == f->next && s->header_len == f->header_len && s->payload <= f->payload &&
           f->count < COALESCE_SEGMENTS && f->len + s->payload <= FRAME_MAX &&
           (s->ip == 4 ? get16(ip) == get16(ip_before) : get32(ip) == get32(ip_before));
}

// Makes the header of the first segment that of all. The checksum of TCP is right no more; that the
// host vouches for it is said with the frame.
static void finish_header(struct coalesce_flow *f)
{
    uint8_t *ip = f->header + ETHERNET;
    uint32_t length = f->len - ETHERNET;

    if (f->ip == 6) {
        put_big16(ip + 4, length - IP6_HEADER);
        return;
    }
    uint32_t sum = (~big16(ip + 10) & 0xffff) + (~big16(ip + 2) & 0xffff) + length;
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    put_big16(ip + 10, ~sum);
    put_big16(ip + 2, length);
}

static void flush(struct coalesce *c, struct coalesce_flow *f)
{
    struct nic_frame frame = f->first;

    c->used &= ~(1u << (f - c->flows));
    if (f->count == 1 || !f->payload) {
        frame.pieces = &f->first_piece;
    } else {
        finish_header(f);
        f->pieces[0] = nic_rx_piece(f->header, f->header_len);
        frame.pieces = f->pieces;
        frame.count = 1 + f->count;
        frame.len = f->len;
        frame.segments = (uint16_t)f->count;
        c->segments += f->count;
        c->frames++;
    }
    unsigned count = f->count;
    f->count = 0;
    c->deliver(c->ctx, &frame, f->tokens, count);
}

static void begin(struct coalesce *c, struct coalesce_flow *f, const struct segment *s)
{
    f->ip = s->ip;
    f->transport = s->transport;
    f->header_len = s->header_len;
    f->payload = s->payload;
    f->first = *s->frame;
    f->first.csum = s->csum;
    f->first_piece = s->frame->pieces[0];
    f->len = s->header_len;
    memcpy(f->header, s->header, s->header_len);
    c->used |= 1u << (f - c->flows);
}

// Adds the payload of a segment. What it says of the other direction is news, and replaces what the
// ones before said; the time it was sent at does not: the first one's is echoed.
static void append(struct coalesce_flow *f, const struct segment *s)
{
    const uint8_t *from = s->header + s->transport;
    uint8_t *to = f->header + s->transport;

    f->tokens[f->count++] = s->frame->token;
    f->pieces[f->count] =
        nic_rx_piece(nic_rx_data(s->frame->pieces[0]) + s->header_len, s->payload);
    f->len += s->payload;
    f->next = s->sequence + s->payload;
    f->acknowledged = s->acknowledged;
    memcpy(to + ACKNOWLEDGEMENT, from + ACKNOWLEDGEMENT, 4);
    memcpy(to + WINDOW, from + WINDOW, 2);
    to[FLAGS] |= from[FLAGS];
    if (s->header_len - s->transport == TCP_TIMESTAMP_HEADER)
        memcpy(to + ECHO_REPLY, from + ECHO_REPLY, 4);
}

// An acknowledgement without data that says more than the one before takes its place.
static void supersede(struct coalesce_flow *f, const struct segment *s)
{
    f->tokens[f->count++] = s->frame->token;
    f->first = *s->frame;
    f->first.csum = s->csum;
    f->first_piece = s->frame->pieces[0];
    f->acknowledged = s->acknowledged;
}

void coalesce_receive(struct coalesce *c, const struct nic_frame *frame)
{
    struct segment s;
    bool plain = false;
    void *token = frame->token;

    // Large as it is, and nothing to keep in order with; or there is nothing to be put together.
    if ((frame->count > 1 && !c->used) || !may_be_tcp(frame)) {
        struct nic_frame whole = *frame;
        if (!(frame->csum & NIC_CSUM_IP_OK) && ip4_header_ok(frame))
            whole.csum |= NIC_CSUM_IP_OK;
        c->deliver(c->ctx, &whole, &token, 1);
        return;
    }
    if (parse(&s, frame, &plain)) {
        struct coalesce_flow *f = flow_of(c, &s);
        bool continued = f->count && plain && same_connection(f, &s) && continues(f, &s);

        if (f->count && !continued)
            flush(c, f); // before anything else of this connection; or another one needs its place
        bool last = s.header[s.transport + FLAGS] & FLAG_PSH;
        if (continued || (plain && !last)) {
            if (continued && !s.payload) {
                supersede(f, &s);
                return;
            }
            if (!continued)
                begin(c, f, &s);
            append(f, &s);
            if (last || s.payload < f->payload)
                flush(c, f);
            return;
        }
    }
    struct nic_frame checked = *frame;
    checked.csum = s.csum;
    c->deliver(c->ctx, &checked, &token, 1);
}

void coalesce_flush(struct coalesce *c)
{
    while (c->used)
        flush(c, &c->flows[__builtin_ctz(c->used)]);
}
