// SPDX-License-Identifier: BSD-2-Clause
// The benchmark's client for what iperf3 does not measure. Runs on the host's side of the tap; prints
// one JSON object. Called by tools/bench.
//
//     load udp ADDRESS PORT SECONDS BYTES FLOWS RATE     sends RATE datagrams a second (0: all it can)
//     load echo ADDRESS PORT SECONDS BYTES CONNECTIONS   one request at a time on each connection
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_FLOWS 1024
#define MAX_BYTES 1400
#define BATCH 32
#define NS UINT64_C(1000000000)

static struct addrinfo *address;
static int sockets[MAX_FLOWS];
static char payload[MAX_BYTES];

static void fail(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS + (uint64_t)t.tv_nsec;
}

static unsigned number(const char *text, unsigned low, unsigned high)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (*end || value < low || value > high) {
        fprintf(stderr, "load: %s: a number from %u to %u is wanted\n", text, low, high);
        exit(2);
    }
    return (unsigned)value;
}

static void open_sockets(unsigned count, int type)
{
    static const int on = 1;
    for (unsigned i = 0; i < count; i++) {
        sockets[i] = socket(address->ai_family, type, 0);
        if (sockets[i] < 0 || connect(sockets[i], address->ai_addr, address->ai_addrlen) < 0)
            fail("connect");
        if (type == SOCK_STREAM)
            setsockopt(sockets[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
}

static double cpu_seconds(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

// ---- Datagrams ----

static void sleep_until(uint64_t when)
{
    struct timespec t = {(time_t)(when / NS), (long)(when % NS)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

// Sends BATCH datagrams on each flow in turn, never more than `rate` allows since the start. A batch
// costs one system call and goes through the kernel's stack as one packet (UDP_SEGMENT): the tap,
// which takes no such packets, gets it cut into datagrams, each a frame.
static void send_datagrams(unsigned seconds, unsigned bytes, unsigned flows, unsigned rate)
{
    static char batch[BATCH * MAX_BYTES];
    const int segment = (int)bytes;
    for (size_t i = 0; i < BATCH * bytes; i++)
        batch[i] = payload[i % bytes];
    for (unsigned i = 0; i < flows; i++)
        if (setsockopt(sockets[i], SOL_UDP, UDP_SEGMENT, &segment, sizeof(segment)) < 0)
            fail("UDP_SEGMENT");
    uint64_t start = now(), end = start + seconds * NS, t = start, sent = 0, refused = 0;
    for (unsigned flow = 0; t < end; t = now()) {
        if (rate && sent + refused > (t - start) * rate / NS) {
            sleep_until(start + (sent + refused) * NS / rate);
            continue;
        }
        ssize_t taken = send(sockets[flow++ % flows], batch, BATCH * bytes, 0);
        if (taken < 0 && errno != ENOBUFS && errno != EAGAIN && errno != ECONNREFUSED)
            fail("send");
        *(taken > 0 ? &sent : &refused) += BATCH;
    }
    printf("{\"sent\":%lu,\"refused\":%lu,\"seconds\":%.6f,\"cpu_seconds\":%.3f}\n", sent, refused,
           (double)(now() - start) / 1e9, cpu_seconds());
}

// ---- Requests ----

struct request {
    uint64_t sent_at;
    unsigned missing; // bytes of the answer
};

// Times in a histogram of 1/32 steps of each power of two: exact to about 3 %.
#define STEPS 32
static uint64_t histogram[64 * STEPS];

static unsigned slot_of(uint64_t ns)
{
    unsigned power = 63 - (unsigned)__builtin_clzll(ns | STEPS);
    return power * STEPS + (unsigned)(ns >> (power - 5) & (STEPS - 1));
}

// The middle of the slot in which the given part of all times lies.
static double quantile_us(double part, uint64_t count)
{
    uint64_t seen = 0, wanted = (uint64_t)(part * (double)count);
    unsigned slot = 0;
    while (slot < 64 * STEPS - 1 && (seen += histogram[slot]) <= wanted)
        slot++;
    unsigned power = slot / STEPS;
    double low = (double)((uint64_t)(slot % STEPS | STEPS) << (power - 5));
    return (low + (double)(UINT64_C(1) << (power - 5)) / 2) / 1000;
}

static void ask(int fd, struct request *r, unsigned bytes)
{
    r->sent_at = now();
    r->missing = bytes;
    if (write(fd, payload, bytes) != (ssize_t)bytes)
        fail("write");
}

// Whether the answer is complete.
static bool hear(int fd, struct request *r, unsigned bytes)
{
    char answer[MAX_BYTES];
    ssize_t got = read(fd, answer, r->missing);
    if (got <= 0)
        fail("read");
    if (memcmp(answer, payload + (bytes - r->missing), (size_t)got))
        fprintf(stderr, "load: the answer is not what was sent\n"), exit(1);
    r->missing -= (unsigned)got;
    return r->missing == 0;
}

static void exchange(unsigned seconds, unsigned bytes, unsigned connections)
{
    static struct request requests[MAX_FLOWS];
    struct epoll_event events[MAX_FLOWS];
    int epoll = epoll_create1(0);
    for (unsigned i = 0; i < connections; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        epoll_ctl(epoll, EPOLL_CTL_ADD, sockets[i], &event);
    }
    uint64_t start = now(), end = start + seconds * NS, t = start, count = 0, total = 0;
    for (unsigned i = 0; i < connections; i++)
        ask(sockets[i], &requests[i], bytes);
    while (t < end) {
        int ready = epoll_wait(epoll, events, MAX_FLOWS, 5000);
        if (ready <= 0) {
            errno = ready ? errno : ETIMEDOUT;
            fail("waiting for an answer");
        }
        for (int i = 0; i < ready; i++) {
            unsigned n = events[i].data.u32;
            if (!hear(sockets[n], &requests[n], bytes))
                continue;
            t = now();
            histogram[slot_of(t - requests[n].sent_at)]++;
            total += t - requests[n].sent_at;
            count++;
            ask(sockets[n], &requests[n], bytes);
        }
    }
    double lasted = (double)(now() - start) / 1e9;
    printf("{\"requests\":%lu,\"seconds\":%.6f,\"mean_us\":%.2f,\"p50_us\":%.2f,\"p99_us\":%.2f,"
           "\"cpu_seconds\":%.3f}\n",
           count, lasted, count ? (double)total / 1e3 / (double)count : 0.0,
           quantile_us(0.5, count), quantile_us(0.99, count), cpu_seconds());
}

int main(int argc, char **argv)
{
    bool udp = argc == 8 && !strcmp(argv[1], "udp");
    bool tcp = argc == 7 && !strcmp(argv[1], "echo");
    if (!udp && !tcp) {
        fprintf(stderr, "usage: load udp ADDRESS PORT SECONDS BYTES FLOWS RATE\n"
                        "       load echo ADDRESS PORT SECONDS BYTES CONNECTIONS\n");
        return 2;
    }
    unsigned seconds = number(argv[4], 1, 3600), bytes = number(argv[5], 1, MAX_BYTES);
    unsigned flows = number(argv[6], 1, MAX_FLOWS);
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
                             .ai_socktype = udp ? SOCK_DGRAM : SOCK_STREAM};
    int error = getaddrinfo(argv[2], argv[3], &hints, &address);
    if (error) {
        fprintf(stderr, "load: %s: %s\n", argv[2], gai_strerror(error));
        return 1;
    }
    for (unsigned i = 0; i < bytes; i++)
        payload[i] = (char)('a' + i % 26);
    open_sockets(flows, hints.ai_socktype);
    if (udp)
        send_datagrams(seconds, bytes, flows, number(argv[7], 0, 100000000));
    else
        exchange(seconds, bytes, flows);
}
