// SPDX-License-Identifier: BSD-2-Clause
// A scripted Hyper-V for unit tests: hypercalls and SynIC as drivers/hyperv offers them, VMBus with
// one NIC behind them. It serves the guest at once, but only when signalled, and can be told to fail
// at any one of the questions that the guest asks.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "drivers/netvsc/nvsp.h"
#include "drivers/netvsc/rndis.h"
#include "drivers/vmbus/ring.h"

enum fault {
    FAULT_NONE,
    FAULT_SILENT,  // no answer
    FAULT_RESCIND, // no answer, and the NIC is rescinded
    FAULT_REFUSE,  // the answer is a failure
    FAULT_SHORT,   // the answer is cut off
};

#define HOST_RELID 7u
#define HOST_CONNECTION 0x2107u // of the primary channel
#define HOST_CHANNELS 8u // channel i has relid HOST_RELID + i and connection HOST_CONNECTION + i
#define HOST_MESSAGES 9u // message connection from 5.0
#define HOST_SECTION 1806u
#define HOST_SEND_SECTION 6144u
#define HOST_PACKETS 1024 // that are kept

struct host_packet { // what the guest put on its ring and was not control
    unsigned channel;
    uint16_t type, flags;
    uint64_t transaction_id;
    uint32_t header_len, payload_len;
    uint8_t bytes[2048];
};

struct fake_host {
    // What it is like.
    uint32_t max_version, max_nvsp;
    bool dedicated;
    uint32_t mtu;
    struct ndis_offload offload; // what it says it can do
    unsigned queues;             // channels that it can have
    unsigned refuse_open;        // number of the subchannel that it does not open
    unsigned offers_late;        // subchannels that it does not offer
    bool no_udp_hash;            // offers to hash by UDP ports, but refuses to
    bool no_rss;                 // refuses all parameters
    unsigned fault_at;           // number of the question, from 1; 0: none
    enum fault fault;
    unsigned rescind_at; // message of the guest's, from 1, at which the NIC is taken back; 0: none
    bool rescind_first;  // before it is looked at; else after it was answered
    unsigned rescind_index; // not 0: only that subchannel is
    unsigned busy_posts;    // refuse that many messages with "no buffers"
    unsigned busy_signals;  // refuse that many signals
    uint16_t busy_status;   // with this
    bool paused;            // do not look at the ring
    bool hold;              // do not complete data packets

    // What happened.
    unsigned guest_messages; // posted, and on the rings
    unsigned questions;
    char question[64]; // the last one
    uint32_t version;
    unsigned opens, closes, released, unloads, offers_requested, bad, signals;
    unsigned gpadls_live;
    uint32_t capabilities; // of NVSP's configuration
    struct ndis_offload_parameters parameters;
    uint32_t nvsp, filter, filter_sets, halts, revokes, ndis_mtu;
    unsigned keepalive_replies;
    unsigned subchannels; // asked for and granted
    unsigned rss_disables, rss_sets;
    uint32_t rss_hash, rss_table[128]; // as set last
    uint8_t rss_key[40];
    unsigned wrong_core;       // signals for a channel from a core that is not its own
    uint64_t completions[512]; // transaction ids of the guest's receive completions, in order
    uint32_t completion_status[512];
    unsigned completion_channel[512];
    unsigned completion_count;
    struct host_packet packets[HOST_PACKETS]; // data packets
    unsigned packet_count;
    uint64_t packets_total;
};

extern struct fake_host host;

// The host's hand on the guest's memory.
uint8_t *host_receive_buffer(void);
uint8_t *host_send_buffer(void);
struct ring_header *host_in_header(void);  // of the ring that the host writes, of that channel
struct ring_header *host_out_header(void); // of the ring that the guest writes

// The longest frame that it cuts when it offers large send.
#define HOST_LSO_MAX 62780u

// Every offload there is: checksums and large send of both families, frames put together. Before the
// NIC is brought up; without this it is only IPv4's checksums.
void host_offers_all(void);

void host_offer(uint32_t relid, uint16_t subchannel, uint8_t instance);
void host_rescind(uint32_t relid);
void host_rescind_all(void);         // subchannels first, as hosts do
bool host_offered(unsigned channel); // and not taken back
void host_message(const void *payload, uint8_t len);
void host_event(uint32_t relid);

// Looks at the guest's ring, as if signalled.
void host_service(void);

// The channel that the functions below work on; the primary at first.
void host_channel(unsigned index);

// Puts a packet of any type and signals the guest if it wants that.
void host_put(uint16_t type, uint16_t flags, uint64_t id, const void *extra, uint32_t extra_len,
              const void *payload, uint32_t payload_len);

// A transfer-page packet with the ranges given (offset, bytes in turns).
void host_transfer(uint64_t id, const uint32_t *ranges, unsigned count);

// Writes an Ethernet frame as an RNDIS packet into a receive section; returns the range's bytes.
uint32_t host_frame(uint32_t section, const void *frame, uint32_t len, uint32_t csum);

void host_complete(uint64_t id, uint32_t status);

// Tells the guest by which channels to send: `offset` as the message gives it, the table at `at`.
void host_send_table(uint32_t count, uint32_t offset, uint32_t at, uint32_t bytes);

// An RNDIS message that nobody asked for: RNDIS_INDICATE with a status and 4 bytes of data, or any other
// type of that shape. The guest has looked at it when this returns.
void host_indicate(uint32_t type, uint32_t status, uint32_t offset, uint32_t data);

// The same, in that section, and not looked at yet.
void host_indicate_at(uint32_t section, uint32_t type, uint32_t status, uint32_t offset,
                      uint32_t data);
