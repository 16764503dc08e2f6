// SPDX-License-Identifier: BSD-2-Clause
// The echo and discard services of the Linux reference guest, for the benchmark: as fast as an
// ordinary program gets. One thread for each processor, each with its own sockets (SO_REUSEPORT) and
// its own epoll; many datagrams a system call; what is discarded is not even copied.
//
//     peer          TCP port 7: echo; TCP and UDP port 9: discard; until it is killed
//     peer stats    what the running one has counted so far, as one line of JSON
//     peer await IF waits, without polling, until there is a network interface of that name
//     peer hashes IF says, once it listens, "listening", then of each TCP SYN that comes in there
//                   the kernel's hash (the NIC's, if it gave one), addresses and ports in hex, as
//                   they are in the packet; until it is killed
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define COUNTERS "/run/peer"
#define MAX_THREADS 64
#define ECHO_PORT 7
#define DISCARD_PORT 9
#define EVENTS 256
#define DATAGRAMS 64
#define BUFFER_BYTES 65536
#define DISCARD_BYTES (1 << 20)
#define BLOCK_BYTES 65536 // of the ring for captured packets
#define BLOCKS 4

// One thread's, in lines of its own.
struct __attribute__((aligned(128))) counters {
    uint64_t datagrams, datagram_bytes, discarded_bytes, echoed_bytes;
};

enum kind { ECHO_LISTENER, DISCARD_LISTENER, DATAGRAM, ECHO, DISCARD };

static struct counters *counters;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static struct counters *map_counters(int flags)
{
    int fd = open(COUNTERS, flags, 0644);
    if (fd < 0 || (flags != O_RDONLY && ftruncate(fd, MAX_THREADS * sizeof(struct counters)) < 0))
        fail(COUNTERS);
    int access = flags == O_RDONLY ? PROT_READ : PROT_READ | PROT_WRITE;
    void *map = mmap(NULL, MAX_THREADS * sizeof(struct counters), access, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        fail("mmap");
    close(fd);
    return map;
}

static int print_stats(void)
{
    const volatile struct counters *c = map_counters(O_RDONLY);
    struct counters sum = {0};
    for (unsigned i = 0; i < MAX_THREADS; i++) {
        sum.datagrams += c[i].datagrams;
        sum.datagram_bytes += c[i].datagram_bytes;
        sum.discarded_bytes += c[i].discarded_bytes;
        sum.echoed_bytes += c[i].echoed_bytes;
    }
    printf("{\"datagrams\":%lu,\"datagram_bytes\":%lu,\"discarded_bytes\":%lu,"
           "\"echoed_bytes\":%lu}\n",
           sum.datagrams, sum.datagram_bytes, sum.discarded_bytes, sum.echoed_bytes);
    return 0;
}

// The kind rides beside the descriptor in the epoll event.
static void watch(int epoll, int fd, enum kind kind)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)kind << 32 | (uint32_t)fd};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        fail("epoll_ctl");
}

static void open_port(int epoll, int type, uint16_t port, enum kind kind)
{
    static const int on = 1, off = 0;
    int fd = socket(AF_INET6, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        fail("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    if (type == SOCK_DGRAM) {
        int bytes = 8 << 20;
        setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
    }
    struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    if (bind(fd, (struct sockaddr *)&any, sizeof(any)) < 0)
        fail("bind");
    if (type == SOCK_STREAM && listen(fd, 1024) < 0)
        fail("listen");
    watch(epoll, fd, kind);
}

static void accept_all(int epoll, int listener, enum kind kind)
{
    static const int on = 1;
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        watch(epoll, fd, kind);
    }
}

static void take_datagrams(int fd, struct counters *mine)
{
    static __thread char buffers[DATAGRAMS][2048];
    static __thread struct iovec pieces[DATAGRAMS];
    static __thread struct mmsghdr messages[DATAGRAMS];
    if (!messages[0].msg_hdr.msg_iov) {
        for (unsigned i = 0; i < DATAGRAMS; i++) {
            pieces[i] = (struct iovec){buffers[i], sizeof(buffers[i])};
            messages[i].msg_hdr = (struct msghdr){.msg_iov = &pieces[i], .msg_iovlen = 1};
        }
    }
    int got;
    do {
        got = recvmmsg(fd, messages, DATAGRAMS, 0, NULL);
        for (int i = 0; i < got; i++)
            mine->datagram_bytes += messages[i].msg_len;
        mine->datagrams += got > 0 ? (uint64_t)got : 0;
    } while (got == DATAGRAMS);
}

// What was read is written back at once; a peer that does not read is waited for, as these are the
// benchmark's own clients.
static void echo(int fd, struct counters *mine)
{
    static __thread char buffer[BUFFER_BYTES];
    ssize_t got = read(fd, buffer, sizeof(buffer));
    if (got <= 0) {
        if (got == 0 || errno != EAGAIN)
            close(fd);
        return;
    }
    for (ssize_t done = 0; done < got;) {
        ssize_t put = write(fd, buffer + done, (size_t)(got - done));
        if (put < 0 && errno != EAGAIN) {
            close(fd);
            return;
        }
        if (put < 0)
            sched_yield();
        else
            done += put;
    }
    mine->echoed_bytes += (uint64_t)got;
}

static void discard(int fd, struct counters *mine)
{
    ssize_t got = recv(fd, NULL, DISCARD_BYTES, MSG_TRUNC); // TCP: skips, copies nothing
    if (got > 0)
        mine->discarded_bytes += (uint64_t)got;
    else if (got == 0 || errno != EAGAIN)
        close(fd);
}

static void *serve(void *argument)
{
    unsigned number = (unsigned)(uintptr_t)argument;
    struct counters *mine = &counters[number];
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(number, &cpus);
    sched_setaffinity(0, sizeof(cpus), &cpus);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0)
        fail("epoll_create1");
    open_port(epoll, SOCK_STREAM, ECHO_PORT, ECHO_LISTENER);
    open_port(epoll, SOCK_STREAM, DISCARD_PORT, DISCARD_LISTENER);
    open_port(epoll, SOCK_DGRAM, DISCARD_PORT, DATAGRAM);
    struct epoll_event events[EVENTS];
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int fd = (int)(uint32_t)events[i].data.u64;
            switch ((enum kind)(events[i].data.u64 >> 32)) {
            case ECHO_LISTENER:
                accept_all(epoll, fd, ECHO);
                break;
            case DISCARD_LISTENER:
                accept_all(epoll, fd, DISCARD);
                break;
            case DATAGRAM:
                take_datagrams(fd, mine);
                break;
            case ECHO:
                echo(fd, mine);
                break;
            case DISCARD:
                discard(fd, mine);
                break;
            }
        }
    }
    return NULL;
}

static int await_interface(const char *name)
{
    struct sockaddr_nl links = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (fd < 0 || bind(fd, (struct sockaddr *)&links, sizeof(links)) < 0)
        fail("netlink");
    char message[8192];
    while (!if_nametoindex(name)) {
        if (recv(fd, message, sizeof(message), 0) < 0 && errno != ENOBUFS)
            fail("netlink");
    }
    close(fd);
    return 0;
}

static void print_hex(const void *data, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        printf("%02x", ((const uint8_t *)data)[i]);
}

// A packet with an IP header at `ip`; all but TCP SYNs without extension headers are passed over.
static void print_hash(const void *ip, unsigned bytes, uint32_t hash)
{
    const struct iphdr *ip4 = ip;
    const struct ip6_hdr *ip6 = ip;
    const void *addresses;
    unsigned address_bytes, header;
    if (bytes >= sizeof(*ip4) && ip4->version == 4 && ip4->protocol == IPPROTO_TCP) {
        addresses = &ip4->saddr;
        address_bytes = 8;
        header = ip4->ihl * 4u;
    } else if (bytes >= sizeof(*ip6) && ip4->version == 6 && ip6->ip6_nxt == IPPROTO_TCP) {
        addresses = &ip6->ip6_src;
        address_bytes = 32;
        header = sizeof(*ip6);
    } else {
        return;
    }
    const struct tcphdr *tcp = (const void *)((const char *)ip + header);
    if (bytes < header + sizeof(*tcp) || !tcp->syn || tcp->ack)
        return;
    printf("%08x ", hash);
    print_hex(addresses, address_bytes);
    print_hex(tcp, 4);
    printf("\n");
}

// Only this kind of ring (TPACKET_V3) tells the hash.
static char *open_capture(const char *name, int *fd)
{
    static const int version = TPACKET_V3;
    struct tpacket_req3 ring = {.tp_block_size = BLOCK_BYTES,
                                .tp_block_nr = BLOCKS,
                                .tp_frame_size = 2048,
                                .tp_frame_nr = BLOCK_BYTES / 2048 * BLOCKS,
                                .tp_retire_blk_tov = 10, // milliseconds
                                .tp_feature_req_word = TP_FT_REQ_FILL_RXHASH};
    struct sockaddr_ll all = {.sll_family = AF_PACKET,
                              .sll_protocol = htons(ETH_P_ALL),
                              .sll_ifindex = (int)if_nametoindex(name)};
    *fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (*fd < 0 || setsockopt(*fd, SOL_PACKET, PACKET_VERSION, &version, sizeof(version)) < 0 ||
        setsockopt(*fd, SOL_PACKET, PACKET_RX_RING, &ring, sizeof(ring)) < 0)
        fail("packet socket");
    char *blocks = mmap(NULL, BLOCK_BYTES * BLOCKS, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
    if (blocks == MAP_FAILED || bind(*fd, (struct sockaddr *)&all, sizeof(all)) < 0)
        fail(name);
    return blocks;
}

static _Noreturn void print_hashes(const char *name)
{
    int fd;
    char *blocks = open_capture(name, &fd);
    printf("listening\n");
    for (unsigned number = 0;; number = (number + 1) % BLOCKS) {
        fflush(stdout);
        struct tpacket_block_desc *block = (void *)(blocks + (size_t)number * BLOCK_BYTES);
        while (
            !(__atomic_load_n(&block->hdr.bh1.block_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER)) {
            struct pollfd ready = {.fd = fd, .events = POLLIN};
            poll(&ready, 1, -1);
        }
        char *packet = (char *)block + block->hdr.bh1.offset_to_first_pkt;
        for (unsigned left = block->hdr.bh1.num_pkts; left; left--) {
            const struct tpacket3_hdr *header = (const void *)packet;
            print_hash(packet + header->tp_net,
                       header->tp_mac + header->tp_snaplen - header->tp_net, header->hv1.tp_rxhash);
            packet += header->tp_next_offset;
        }
        __atomic_store_n(&block->hdr.bh1.block_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
    }
}

int main(int argc, char **argv)
{
    if (argc > 2 && !strcmp(argv[1], "hashes"))
        print_hashes(argv[2]);
    if (argc > 2 && !strcmp(argv[1], "await"))
        return await_interface(argv[2]);
    if (argc > 1 && !strcmp(argv[1], "stats"))
        return print_stats();
    counters = map_counters(O_RDWR | O_CREAT | O_TRUNC);
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    if (processors > MAX_THREADS)
        processors = MAX_THREADS;
    for (long i = 1; i < processors; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, serve, (void *)(uintptr_t)i))
            fail("pthread_create");
    }
    serve(NULL);
}
