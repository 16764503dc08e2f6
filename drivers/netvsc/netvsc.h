// SPDX-License-Identifier: BSD-2-Clause
// The synthetic NIC as the network stack sees it. Nothing here knows VMBus, nothing behind it knows
// lwIP. A NIC's data functions work on the calling core's channel and are for that core only.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nic;

#define NIC_MAX 8 // at a time

enum nic_csum { // what the host vouches for in a received frame
    NIC_CSUM_IP_OK = 1,
    NIC_CSUM_L4_OK = 2,
    NIC_CSUM_BAD = 4, // the host found a checksum wrong
};

struct nic_piece {
    const void *data; // anywhere but the per-core window
    uint32_t len;     // 1..65535
};

// A piece of a received frame in one word, for there are many of them: where it is in the low 48 bits,
// its length (1..65535) above.
struct nic_rx_piece {
    uint64_t word;
};

static inline struct nic_rx_piece nic_rx_piece(const void *data, uint32_t len)
{
    // A product because clang's analyzer takes the shift, of whatever is unsigned, for undefined.
    return (struct nic_rx_piece){((uintptr_t)data << 16 >> 16) | len * (UINT64_C(1) << 48)};
}

static inline const uint8_t *nic_rx_data(struct nic_rx_piece piece)
{
    return (const uint8_t *)(uintptr_t)((int64_t)(piece.word << 16) >>
                                        16); // addresses are canonical
}

static inline uint32_t nic_rx_len(struct nic_rx_piece piece)
{
    return (uint32_t)(piece.word >> 48);
}

// A received frame. Its pieces lie in the receive buffer, validated to be inside their sections: the
// host may still write them. More than one only for a frame that the host put together (RSC).
struct nic_frame {
    const struct nic_rx_piece
        *pieces;       // in order, Ethernet header first; gone when receive() returns
    unsigned count;    // 1..NIC_RX_PIECES
    uint32_t len;      // sum of the pieces: 14..65535
    uint8_t csum;      // enum nic_csum
    uint16_t segments; // how many frames of the wire these are; 1 unless coalesced
    uint32_t hash;     // RSS hash of the flow; 0: the host gave none
    void *token;       // for nic_rx_release()
};

// The most fragments that a host may put together (NVSP 6.1).
#define NIC_RX_PIECES 562

// Checksums that the host is asked to fill in. The TCP or UDP checksum field of the frame must hold
// the pseudo-header sum (with the length, folded, not inverted), as for any partial checksum.
enum nic_tx_csum {
    NIC_TX_IP4 = 1, // frame is IPv4 (needed with TCP/UDP)
    NIC_TX_IP6 = 2,
    NIC_TX_TCP = 4,
    NIC_TX_UDP = 8,
    NIC_TX_IP_HEADER = 16,
};

#define NIC_TX_PIECES 30

// A first piece of at most so many bytes is always copied: it may be reused at once, HELD or not.
#define NIC_TX_HEAD_BYTES 128

struct nic_tx {
    const struct nic_piece *pieces; // the Ethernet frame without FCS, in order
    unsigned count;                 // 1..NIC_TX_PIECES
    uint32_t len;                   // sum of the pieces
    uint8_t csum;                   // enum nic_tx_csum; only bits that nic_info.tx_csum has
    uint16_t transport_offset;      // from the start of the frame, when csum has TCP or UDP
    uint16_t mss; // not 0: large send, the host cuts the TCP payload into segments of so many bytes
    void *done_ctx; // passed to nic_client.tx_done when the host is finished
};

enum nic_tx_result {
    NIC_TX_COPIED = 0, // taken; the pieces may be reused at once, tx_done will not be called
    NIC_TX_HELD = 1,   // taken; the pieces must stay as they are until tx_done
    NIC_TX_FULL = -1,  // not taken; nic_client.tx_ready will be called when it is worth trying
};

#define NIC_TABLE_SIZE 128 // see nic_flow_hash()

struct nic_info {
    uint8_t instance[16]; // the device's GUID, as the host sent it: stays when the NIC comes again
    uint8_t mac[6];
    uint16_t mtu;       // IP MTU that host and configuration agree on
    uint64_t speed_bps; // 0: unknown; the host may change it at any time
    bool link_up;
    uint8_t tx_csum;       // enum nic_tx_csum that the host offloads
    uint8_t tx_large;      // NIC_TX_IP4, NIC_TX_IP6: large send is possible
    uint32_t tx_large_max; // longest frame with mss set
    bool rx_coalesced;     // the host may put received segments together
    unsigned channels;     // cores that have one
    uint32_t rx_sections;  // receive sections in all
    const char *name;      // "nic0"
    unsigned index;        // of the name: 0..NIC_MAX-1, no two NICs have the same
};

// What the stack gives to the driver. All are called on the core named.
struct nic_client {
    // A NIC is there, its link still down: core 0 first, from a fiber, then each other core that has a
    // channel, from its loop. From now on the other functions may be called on that core.
    void (*attach)(struct nic *nic);
    // The NIC is going: on the other cores first, from their loops, core 0 last, from a fiber. Every
    // frame that was HELD has come back by tx_done
    // before, but for those that the host did not let go of: they never do, their memory must not be
    // used again. nic_send() answers NIC_TX_FULL. On return the stack must hold no received frame (it
    // may call nic_rx_release() meanwhile), and must not use the nic any more.
    void (*detach)(struct nic *nic);
    // Link went up or down: core 0, from a fiber, then the others, from their loops. info->link_up is
    // already updated. It is down and up again at once where the host says that the network behind it is
    // another one.
    void (*link)(struct nic *nic);
    // The host would like flows to be spread like this: core 0, from a fiber. May be NULL. A wish, for
    // nic_set_table() to follow when it can.
    void (*balance)(struct nic *nic, const uint8_t core_of[NIC_TABLE_SIZE]);
    // One frame, the core of its channel. The client owns the token and must give it back.
    void (*receive)(struct nic *nic, const struct nic_frame *frame);
    // After a batch of receive() calls on this core: time to send what they caused.
    void (*batch_end)(struct nic *nic);
    void (*tx_done)(struct nic *nic, void *done_ctx);
    void (*tx_ready)(struct nic *nic);
};

// Registers the driver with VMBus; NICs attach as the host offers them. Core 0, before vmbus_start().
void netvsc_start(const struct nic_client *client);

const struct nic_info *nic_info(const struct nic *nic);

// A word for the client's own use (its netif).
void nic_set_client_data(struct nic *nic, void *data);
void *nic_client_data(const struct nic *nic);

// Gives a received frame's memory back. Same core. Completions to the host are batched.
void nic_rx_release(struct nic *nic, void *token);

// True when so many sections are held that the client should copy frames out and release at once. A
// frame that is held holds all sections of its batch; those of the batch that is being received count,
// too. So a client that obeys leaves half of all sections to the host, whatever it keeps and for how
// long (out of order, fragments): what it waits for can always arrive.
bool nic_rx_scarce(const struct nic *nic);

// Queues one frame. Small ones are copied to a send section, large ones go by reference. Nothing is
// signalled before nic_flush() or the end of the loop's turn, whichever comes first.
enum nic_tx_result nic_send(struct nic *nic, const struct nic_tx *tx);

// Publishes and signals what is queued, at most one signal.
void nic_flush(struct nic *nic);

// A flow as its packets arrive: the source is the remote side. Addresses and ports as on the wire;
// IPv4 uses the first four bytes of an address. protocol is that of the IP header, or 0 for what has no
// ports to hash: fragments (the first one, too).
struct nic_flow {
    bool ip6;
    uint8_t protocol;
    uint8_t src[16], dst[16];
    uint16_t src_port, dst_port; // network byte order
};

// The RSS hash of a flow, as the host computes it, and the core that a frame with this hash is delivered
// to: entry hash % NIC_TABLE_SIZE of the table. What the host does not hash (0; all if there is one
// channel) comes on core 0. Any core.
uint32_t nic_flow_hash(const struct nic *nic, const struct nic_flow *flow);
unsigned nic_flow_core(const struct nic *nic, uint32_t hash);

// Sets the table: a core (below nic_info.channels) for each entry. Asks the host, so only from a fiber
// of core 0; frames that are under way still arrive by the old table. 0, or a negative errno with the
// old table in force: -EINVAL, -ENODEV (the NIC goes), -EOPNOTSUPP (refused, or nothing is
// spread), -ETIMEDOUT.
int nic_set_table(struct nic *nic, const uint8_t core_of[NIC_TABLE_SIZE]);
