// SPDX-License-Identifier: BSD-2-Clause
// A bad wire from the NIC to the TAP device: delay, a rate with a queue before it, loss, reordering and
// duplication of single segments; what the NIC is to cut is cut here. Called by nic.c; of the other
// direction nothing is changed.
#include <errno.h>
#include <linux/virtio_net.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "kernel/time.h"
#include "tests/native/native.h"

#define ETHERNET 14u
#define REORDER_DELAY (3 * TIME_MS)

struct wire_frame {
    struct wire_frame *next;
    int fd;
    uint64_t due;
    uint32_t len;
    struct virtio_net_hdr header;
    uint8_t bytes[];
};

static struct wire_frame *first;
static uint64_t busy_until;

static bool chance(unsigned per_million)
{
    return (unsigned)rand() % 1000000 < per_million;
}

static void put16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static uint32_t get16(const uint8_t *at)
{
    return (uint32_t)at[0] << 8 | at[1];
}

static uint32_t fold(uint32_t sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    return (sum & 0xffff) + (sum >> 16);
}

static void insert(struct wire_frame *frame)
{
    struct wire_frame **link = &first;
    static struct wire_frame *last; // of those in order; valid while it is in the list
    if (first && last && last->due <= frame->due)
        link = &last->next;
    while (*link && (*link)->due <= frame->due)
        link = &(*link)->next;
    frame->next = *link;
    *link = frame;
    if (!frame->next)
        last = frame;
}

static void transmit_at(const struct wire_frame *frame, uint64_t due)
{
    struct wire_frame *copy = malloc(sizeof(*copy) + frame->len);
    memcpy(copy, frame, sizeof(*copy) + frame->len);
    copy->due = due;
    insert(copy);
}

// One segment, as long as the wire takes.
static void transmit(const struct wire_frame *frame)
{
    const struct native_wire *wire = &native_options.wire;
    uint64_t now = time_now(), start = busy_until > now ? busy_until : now;
    if (wire->rate && wire->queue && (start - now) * wire->rate / TIME_S > wire->queue)
        return;
    uint64_t end = wire->rate ? start + frame->len * TIME_S / wire->rate : now;
    busy_until = end;
    if (chance(wire->loss))
        return;
    uint64_t due = end + wire->delay + (chance(wire->reorder) ? REORDER_DELAY : 0);
    transmit_at(frame, due);
    if (chance(wire->duplicate))
        transmit_at(frame, due);
}

// Makes the n-th segment of what the NIC is to cut; `whole` has its bytes.
static void cut_segment(const struct wire_frame *whole, uint32_t offset, struct wire_frame *out)
{
    uint32_t headers = whole->header.hdr_len, mss = whole->header.gso_size;
    uint32_t payload = whole->len - headers, tcp = whole->header.csum_start;
    uint32_t len = payload - offset < mss ? payload - offset : mss;
    out->fd = whole->fd;
    out->len = headers + len;
    out->header = whole->header;
    out->header.gso_type = VIRTIO_NET_HDR_GSO_NONE;
    out->header.gso_size = 0;
    memcpy(out->bytes, whole->bytes, headers);
    memcpy(out->bytes + headers, whole->bytes + headers + offset, len);
    uint8_t *ip = out->bytes + ETHERNET;
    if (whole->header.gso_type == VIRTIO_NET_HDR_GSO_TCPV4) {
        put16(ip + 2, out->len - ETHERNET);
        put16(ip + 10, 0);
        uint32_t sum = 0;
        for (unsigned i = 0; i < tcp - ETHERNET; i += 2)
            sum += get16(ip + i);
        put16(ip + 10, ~fold(sum));
    } else {
        put16(ip + 4, out->len - ETHERNET - 40);
    }
    uint8_t *sequence = out->bytes + tcp + 4;
    uint32_t number = get16(sequence) << 16 | get16(sequence + 2);
    put16(sequence, (number + offset) >> 16);
    put16(sequence + 2, number + offset);
    if (offset + len < payload)
        out->bytes[tcp + 13] &= (uint8_t) ~(0x01 | 0x08); // FIN, PSH
    // The pseudo header's sum holds the length.
    uint8_t *checksum = out->bytes + tcp + 16;
    put16(checksum, fold(get16(checksum) + (0xffff & ~(whole->len - tcp)) + (out->len - tcp)));
}

void native_wire_send(int fd, const struct iovec *iov, int count)
{
    uint32_t len = 0;
    for (int i = 1; i < count; i++)
        len += (uint32_t)iov[i].iov_len;
    struct wire_frame *frame = malloc(sizeof(*frame) + len), *segment;
    frame->fd = fd;
    frame->len = 0;
    memcpy(&frame->header, iov[0].iov_base, sizeof(frame->header));
    for (int i = 1; i < count; i++) {
        memcpy(frame->bytes + frame->len, iov[i].iov_base, iov[i].iov_len);
        frame->len += (uint32_t)iov[i].iov_len;
    }
    if (frame->header.gso_type == VIRTIO_NET_HDR_GSO_NONE) {
        transmit(frame);
    } else {
        segment = malloc(sizeof(*segment) + len);
        for (uint32_t at = 0; at < len - frame->header.hdr_len; at += frame->header.gso_size) {
            cut_segment(frame, at, segment);
            transmit(segment);
        }
        free(segment);
    }
    free(frame);
}

uint64_t native_wire_deadline(void *ctx)
{
    (void)ctx;
    return first ? first->due : UINT64_MAX;
}

void native_wire_poll(void)
{
    for (uint64_t now = time_now(); first && first->due <= now;) {
        struct wire_frame *frame = first;
        first = frame->next;
        const struct iovec iov[2] = {{&frame->header, sizeof(frame->header)},
                                     {frame->bytes, frame->len}};
        if (writev(frame->fd, iov, 2) < 0 && errno != EIO && errno != EAGAIN && errno != EBADF)
            perror("native: write to TAP");
        free(frame);
    }
}

bool native_wire_parse(char *text)
{
    static const char *const names[] = {"delay",   "rate",      "queue", "loss",
                                        "reorder", "duplicate", NULL};
    struct native_wire *wire = &native_options.wire;
    while (*text) {
        char *value;
        int which = getsubopt(&text, (char *const *)names, &value);
        if (which < 0 || !value)
            return false;
        unsigned number = (unsigned)atoi(value);
        switch (which) {
        case 0:
            wire->delay = number * TIME_MS;
            break;
        case 1:
            wire->rate = number * 125ull;
            break;
        case 2:
            wire->queue = number << 10;
            break;
        default:
            *(which == 3 ? &wire->loss : which == 4 ? &wire->reorder : &wire->duplicate) = number;
        }
    }
    wire->on = true;
    return true;
}
