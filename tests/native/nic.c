// SPDX-License-Identifier: BSD-2-Clause
// A NIC on a Linux TAP device, behind the same interface as drivers/netvsc: received frames lie in a
// few sections that must be given back, large ones in several pieces; frames for sending may be refused
// or held for a while, as the real one does when its ring is full or it sends by reference.
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "drivers/netvsc/netvsc.h"
#include "kernel/config.h"
#include "kernel/core.h"
#include "kernel/loop.h"
#include "kernel/message.h"
#include "tests/native/native.h"

#define SECTIONS 512
#define PIECES_MAX 256       // of a received frame
#define LARGE_SEND_MAX 62780 // longest frame, as Hyper-V has it
#define PIECE_GAP 64
#define BATCH 64
#define HELD 32
#define RING 128 // frames that are taken between two polls

struct section { // holds one frame, in pieces with gaps between them
    bool used;
    uint8_t *bytes;
    struct nic_frame frame;
    struct nic_rx_piece pieces[PIECES_MAX];
    struct section *next; // that waits for the same core
};

struct held {
    struct nic_tx tx;
    struct nic_piece pieces[NIC_TX_PIECES];
    uint8_t head[NIC_TX_HEAD_BYTES];
};

struct side { // what a core has of a NIC
    struct poller poller;
    void *client_data;
    struct section *waiting, **waiting_end; // received for this core
    struct held held[HELD];
    unsigned held_count;
    bool refused;
    unsigned ring_used;
};

struct nic {
    int fd;
    const struct nic_client *client;
    struct nic_info info;
    struct section *sections;
    unsigned section_next, sections_used;
    uint32_t piece_bytes; // the most in one piece of a received frame
    struct side sides[NATIVE_CORES];
};

static struct nic nics[NATIVE_NICS] = {[0 ... NATIVE_NICS - 1] = {.fd = -1}};

static struct side *mine(struct nic *n)
{
    return &n->sides[core_id()];
}

int native_nic_fd(unsigned number)
{
    return nics[number].fd;
}

bool native_nic_can_receive(unsigned number)
{
    return nics[number].sections_used < SECTIONS;
}

const struct nic_info *nic_info(const struct nic *n)
{
    return &n->info;
}

void nic_set_client_data(struct nic *n, void *data)
{
    mine(n)->client_data = data;
}

void *nic_client_data(const struct nic *n)
{
    return n->sides[core_id()].client_data;
}

// Not what RSS computes, but as good; all cores have the same share of flows.

uint32_t nic_flow_hash(const struct nic *n, const struct nic_flow *flow)
{
    struct nic_flow input = *flow;
    if (n->info.channels == 1)
        return 0;
    if (flow->protocol != 6 && flow->protocol != 17) {
        input.protocol = 0;
        input.src_port = input.dst_port = 0;
    }
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < sizeof(input); i++)
        hash = (hash ^ ((const uint8_t *)&input)[i]) * 16777619u;
    return (hash ^ hash >> 15) | 0x80000000u;
}

unsigned nic_flow_core(const struct nic *n, uint32_t hash)
{
    return hash ? hash % NIC_TABLE_SIZE % n->info.channels : 0;
}

// The flow of a frame, as a NIC sees it.
static unsigned core_of_frame(const struct nic *n, const uint8_t *frame, uint32_t len)
{
    struct nic_flow flow = {0};
    const uint8_t *ip = frame + 14, *ports = NULL;
    if (frame[12] == 8 && frame[13] == 0 && len >= 34) {
        bool fragment = (ip[6] & 0x3f) || ip[7];
        ports = fragment ? NULL : ip + (ip[0] & 15) * 4;
        flow.protocol = fragment ? 0 : ip[9];
        memcpy(flow.src, ip + 12, 4);
        memcpy(flow.dst, ip + 16, 4);
    } else if (frame[12] == 0x86 && frame[13] == 0xdd && len >= 54) {
        ports = ip + 40;
        flow.ip6 = true;
        flow.protocol = ip[6];
        memcpy(flow.src, ip + 8, 16);
        memcpy(flow.dst, ip + 24, 16);
    } else {
        return 0;
    }
    if (ports && ports + 4 <= frame + len) {
        memcpy(&flow.src_port, ports, 2);
        memcpy(&flow.dst_port, ports + 2, 2);
    }
    return nic_flow_core(n, nic_flow_hash(n, &flow));
}

int nic_set_table(struct nic *n, const uint8_t core_of[NIC_TABLE_SIZE])
{
    (void)n, (void)core_of;
    return -EOPNOTSUPP;
}

void nic_rx_release(struct nic *n, void *token)
{
    struct section *section = token;
    if (!section->used)
        abort();                       // given back twice
    memset(section->bytes, 0xee, 256); // whoever still reads it shall notice
    section->used = false;
    n->sections_used--;
}

bool nic_rx_scarce(const struct nic *n)
{
    return n->sections_used > SECTIONS * 3 / 4;
}

static void write_frame(struct nic *n, const struct nic_tx *tx)
{
    struct virtio_net_hdr header = {0};
    if (tx->mss) {
        const uint8_t *headers = tx->pieces[0].data; // whoever sends has them in one piece
        header.gso_type =
            tx->csum & NIC_TX_IP6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4;
        header.gso_size = tx->mss;
        header.hdr_len =
            (uint16_t)(tx->transport_offset + (headers[tx->transport_offset + 12] >> 4) * 4);
        if (!(tx->csum & NIC_TX_TCP) || !(tx->csum & n->info.tx_large) || tx->len > LARGE_SEND_MAX)
            abort();
    } else if (tx->len > n->info.mtu + 14u) {
        abort();
    }
    if (tx->csum) {
        header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
        header.csum_start = tx->transport_offset;
        header.csum_offset = tx->csum & NIC_TX_TCP ? 16 : 6;
    }
    struct iovec iov[NIC_TX_PIECES + 1] = {{&header, sizeof(header)}};
    uint32_t sum = 0;
    for (unsigned i = 0; i < tx->count; i++) {
        iov[i + 1] = (struct iovec){(void *)(uintptr_t)tx->pieces[i].data, tx->pieces[i].len};
        sum += tx->pieces[i].len;
    }
    if (sum != tx->len || tx->count == 0)
        abort();
    if (!n->info.link_up ||
        (native_options.losses && (unsigned)rand() % native_options.losses == 0))
        return;
    if (native_options.wire.on)
        native_wire_send(n->fd, iov, (int)tx->count + 1);
    else if (writev(n->fd, iov, (int)tx->count + 1) < 0 && errno != EIO && errno != EAGAIN)
        perror("native: write to TAP");
}

enum nic_tx_result nic_send(struct nic *n, const struct nic_tx *tx)
{
    unsigned faults = native_options.faults;
    struct side *side = mine(n);
    if (side->ring_used == RING || (faults && (unsigned)rand() % faults == 0)) {
        side->refused = true;
        return NIC_TX_FULL;
    }
    side->ring_used++;
    // Order matters to nobody but the reader of a trace: frames held go out late.
    if (faults && side->held_count < HELD && (unsigned)rand() % faults == 0) {
        struct held *held = &side->held[side->held_count++];
        held->tx = *tx;
        memcpy(held->pieces, tx->pieces, tx->count * sizeof(*tx->pieces));
        if (tx->pieces[0].len <= sizeof(held->head)) {
            memcpy(held->head, tx->pieces[0].data, tx->pieces[0].len);
            held->pieces[0].data = held->head;
        }
        held->tx.pieces = held->pieces;
        return NIC_TX_HELD;
    }
    write_frame(n, tx);
    return NIC_TX_COPIED;
}

void nic_flush(struct nic *n)
{
    (void)n;
}

static struct section *free_section(struct nic *n)
{
    for (unsigned i = 0; i < SECTIONS; i++) {
        struct section *section = &n->sections[n->section_next++ % SECTIONS];
        if (!section->used)
            return section;
    }
    return NULL;
}

// Where the pieces of the next frame go: with --faults of any size.
static unsigned lay_out(const struct nic *n, const struct section *section, struct iovec *iov)
{
    unsigned count = 0;
    for (uint32_t room = 0; room < 65535 && count < PIECES_MAX; count++) {
        uint32_t len = n->piece_bytes;
        if (native_options.faults && count > 0 && count < PIECES_MAX / 4)
            len = 1 + (uint32_t)rand() % len;
        iov[count] = (struct iovec){section->bytes + count * (n->piece_bytes + PIECE_GAP), len};
        room += len;
    }
    return count;
}

static bool receive_frame(struct nic *n)
{
    struct section *section = free_section(n);
    if (!section)
        return false;
    struct virtio_net_hdr header;
    struct iovec iov[1 + PIECES_MAX] = {{&header, sizeof(header)}};
    unsigned room = lay_out(n, section, iov + 1);
    ssize_t got = readv(n->fd, iov, 1 + (int)room);
    if (got <= (ssize_t)sizeof(header))
        return false;
    unsigned losses = native_options.rx_losses;
    if (!n->info.link_up || (losses && (unsigned)rand() % losses == 0))
        return true; // lost
    struct nic_rx_piece *pieces = section->pieces;
    struct nic_frame frame = {.pieces = pieces,
                              .len = (uint32_t)(got - (ssize_t)sizeof(header)),
                              .segments = 1,
                              .token = section};
    for (uint32_t left = frame.len; left; left -= nic_rx_len(pieces[frame.count++])) {
        const struct iovec *from = &iov[1 + frame.count];
        uint32_t len = left < from->iov_len ? left : (uint32_t)from->iov_len;
        pieces[frame.count] = nic_rx_piece(from->iov_base, len);
    }
    if (header.gso_type != VIRTIO_NET_HDR_GSO_NONE)
        frame.segments =
            (uint16_t)((frame.len - header.hdr_len + header.gso_size - 1) / header.gso_size);
    if (header.flags & (VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID))
        frame.csum = NIC_CSUM_L4_OK | NIC_CSUM_IP_OK;
    section->frame = frame;
    section->used = true;
    section->next = NULL;
    n->sections_used++;
    struct side *side = &n->sides[core_of_frame(n, nic_rx_data(pieces[0]), nic_rx_len(pieces[0]))];
    *side->waiting_end = section;
    side->waiting_end = &section->next;
    return true;
}

// Gives the calling core what has arrived for it.
static unsigned deliver(struct nic *n)
{
    struct side *side = mine(n);
    unsigned frames = 0;
    for (; side->waiting && frames < BATCH; frames++) {
        struct section *section = side->waiting;
        side->waiting = section->next;
        if (!side->waiting)
            side->waiting_end = &side->waiting;
        n->client->receive(n, &section->frame);
    }
    return frames;
}

static unsigned send_held(struct nic *n)
{
    struct side *side = mine(n);
    unsigned held = side->held_count;
    for (unsigned i = 0; i < held; i++) {
        write_frame(n, &side->held[i].tx);
        n->client->tx_done(n, side->held[i].tx.done_ctx);
    }
    side->held_count -= held;
    memmove(side->held, side->held + held, side->held_count * sizeof(side->held[0]));
    for (unsigned i = 0; i < side->held_count; i++)
        side->held[i].tx.pieces = side->held[i].pieces;
    return held;
}

static bool nic_poll(void *ctx)
{
    struct nic *n = ctx;
    struct side *side = mine(n);
    if (core_id() == 0)
        native_wire_poll();
    unsigned held = send_held(n);
    side->ring_used = 0;
    bool ready = side->refused;
    side->refused = false;
    if (ready)
        n->client->tx_ready(n);
    unsigned read = 0;
    while (core_id() == 0 && read < BATCH && receive_frame(n))
        read++;
    unsigned frames = deliver(n);
    if (frames)
        n->client->batch_end(n);
    return frames || read || held || ready;
}

static void open_tap(struct nic *n, const char *name)
{
    n->fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    if (n->fd < 0 || ioctl(n->fd, TUNSETIFF, &request) < 0) {
        perror("native: cannot open the TAP device");
        exit(1);
    }
    unsigned receive =
        native_options.large_receive ? TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 : TUN_F_CSUM;
    ioctl(n->fd, TUNSETOFFLOAD, native_options.offload ? receive : 0);
}

static void join(void *arg)
{
    struct nic *n = arg;
    mine(n)->poller = (struct poller){
        .name = n->info.name, .poll = nic_poll, .deadline = native_wire_deadline, .ctx = n};
    loop_add(&mine(n)->poller);
    n->client->attach(n);
}

static void leave(void *arg)
{
    struct nic *n = arg;
    struct side *side = mine(n);
    native_loop_remove(&side->poller);
    send_held(n);
    side->ring_used = RING; // nothing more is taken
    for (; side->waiting; side->waiting = side->waiting->next)
        nic_rx_release(n, side->waiting);
    n->client->detach(n);
    if (side->held_count)
        abort(); // something was not given back
}

static void start(unsigned number, const struct nic_client *client)
{
    static const char *const names[NATIVE_NICS] = {"nic0", "nic1", "nic2", "nic3",
                                                   "nic4", "nic5", "nic6", "nic7"};
    struct nic *n = &nics[number];
    open_tap(n, native_options.taps[number]);
    n->client = client;
    n->piece_bytes = config.mtu + 14u;
    n->sections = calloc(SECTIONS, sizeof(*n->sections));
    for (unsigned i = 0; i < SECTIONS; i++)
        n->sections[i].bytes = malloc(PIECES_MAX * (n->piece_bytes + PIECE_GAP));
    n->info = (struct nic_info){
        .instance = {[15] = (uint8_t)number},
        .mac = {2, 0, 0, 0x5e, 0, (uint8_t)(2 + number)},
        .mtu = config.mtu,
        .link_up = true,
        .tx_csum = native_options.offload ? NIC_TX_IP4 | NIC_TX_IP6 | NIC_TX_TCP : 0,
        .tx_large = native_options.large_send ? NIC_TX_IP4 | NIC_TX_IP6 : 0,
        .tx_large_max = native_options.large_send ? LARGE_SEND_MAX : 0,
        .rx_coalesced = native_options.large_receive,
        .rx_sections = SECTIONS,
        .channels = core_count(),
        .name = names[number],
        .index = number};
    for (unsigned core = 0; core < core_count(); core++)
        n->sides[core] = (struct side){.waiting_end = &n->sides[core].waiting};
    for (unsigned core = 0; core < core_count(); core++)
        core_call(core, join, n);
}

void netvsc_start(const struct nic_client *client)
{
    for (unsigned i = 0; i < NATIVE_NICS && native_options.taps[i]; i++)
        start(i, client);
}

void native_nic_wish(unsigned number, unsigned core)
{
    uint8_t core_of[NIC_TABLE_SIZE];
    memset(core_of, (int)core, sizeof(core_of));
    nics[number].client->balance(&nics[number], core_of);
}

void native_nic_remove(unsigned number)
{
    struct nic *n = &nics[number];
    for (unsigned core = core_count(); core-- > 0;)
        core_call(core, leave, n);
    if (n->sections_used)
        abort(); // something was not given back
    close(n->fd);
    n->fd = -1;
    for (unsigned i = 0; i < SECTIONS; i++)
        free(n->sections[i].bytes);
    free(n->sections);
}

void native_nic_add(unsigned number)
{
    start(number, nics[number].client);
}

static void link_changed(void *arg)
{
    struct nic *n = arg;
    n->client->link(n);
}

void native_nic_link(unsigned number, bool up)
{
    nics[number].info.link_up = up;
    for (unsigned core = 0; core < core_count(); core++)
        core_call(core, link_changed, &nics[number]);
}
