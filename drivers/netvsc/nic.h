// SPDX-License-Identifier: BSD-2-Clause
// Inside drivers/netvsc: one NIC and how its parts (netvsc.c, control.c, rx.c, tx.c) use each other.
// The control path runs in the device's fiber on core 0, the data path in the handler of each channel.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "drivers/netvsc/netvsc.h"
#include "drivers/netvsc/nvsp.h"
#include "drivers/netvsc/rndis.h"
#include "drivers/netvsc/toeplitz.h"
#include "drivers/vmbus/channel.h"
#include "drivers/vmbus/device.h"
#include "drivers/vmbus/gpadl.h"
#include "drivers/vmbus/requests.h"
#include "kernel/console.h"
#include "kernel/core.h"
#include "kernel/fiber.h"
#include "kernel/time.h"

#define CONTROL_TIMEOUT (10 * TIME_S) // an NVSP or RNDIS answer
#define HALT_TIMEOUT (1 * TIME_S)     // the completion of HALT
#define DRAIN_TIMEOUT (1 * TIME_S)    // sends that are out when the NIC goes down
#define CONTROL_REQUEST_BYTES 2048u   // half of the control page; the other is for keepalive
#define CONTROL_REPLY_BYTES 1024u     // longest RNDIS reply that is looked at

#define INBAND_BYTES 128u      // longest in-band message that is looked at
#define RX_BUDGET 64u          // ring packets per turn
#define RX_GROUPS_MAX 16384u   // transfer-page packets that may be open at a time
#define TX_REQUESTS 512u       // packets that may be out; hosts stop reading at 1024
#define TX_REQUESTS_CONTROL 4u // of them, what frames leave to the control path
#define TX_SLOT_BYTES 256u // RNDIS header, PPIs and the first bytes of a frame sent by reference
#define TX_SECTIONS_MAX 1024u
#define TX_COPY_MAX 512u      // longest frame that is copied to a send section
#define TX_MESSAGES_MAX 8u    // frames in one send section
#define TX_PACKET_BYTES 1024u // longest header of a GPA-direct packet
#define TX_RING_RESERVE 1024u // ring space that frames leave to completions and control messages

struct rx_group { // one transfer-page packet; its completion frees all its sections at once
    uint64_t transaction_id;
    uint32_t refs;   // frames that the client holds, and one while it is being parsed
    uint32_t ranges; // sections that its completion gives back
    uint32_t status;
    struct rx_group *next; // free, or to be completed
};

struct rx_assembly {          // a frame of which fragments are still to come
    unsigned count;           // of pieces; 0: none
    uint32_t len;             // sum of the pieces
    struct rndis_frame first; // whose checksum, VLAN and hash are the whole frame's
    struct nic_rx_piece pieces[NIC_RX_PIECES];
    struct rndis_fragment like; // a fragment that was in order, in a range of
    uint32_t like_bytes;        // so many; 0: none yet
};

struct nic_rx {
    struct rx_group *groups;
    uint32_t group_count, group_pages;
    struct rx_group *free;
    struct rx_group *done, **done_tail; // waiting for ring space
    uint32_t section_share;             // of the buffer's sections
    uint32_t held, held_peak;           // frames with the client
    uint32_t pinned, pinned_peak;       // sections that the client's frames keep from the host
    uint64_t packets, bytes, batches, completions, completions_blocked;
    uint64_t dropped[RNDIS_VERDICTS]; // by verdict; [RNDIS_OK]: not UP
    uint64_t bad_packets, bad_ranges, no_group, vlan, csum_ok, csum_bad, coalesced;
    struct rx_assembly assembly;
};

enum tx_kind { TX_COPIED, TX_HELD, TX_CONTROL, TX_KEEPALIVE };

struct tx_request { // by transaction id
    uint8_t kind;   // enum tx_kind
    uint16_t section;
    void *done_ctx;
};

struct tx_open { // the send section that is being filled
    uint32_t id; // 0: none
    uint32_t section;
    uint32_t bytes, count;
    uint32_t last;        // where its last message starts
    uint32_t last_length; // of that message
};

struct nic_tx_state {
    uint16_t free_sections[TX_SECTIONS_MAX];
    uint32_t free_section_count;
    struct requests requests;
    struct tx_request request[TX_REQUESTS + 1]; // [0] unused
    uint8_t *slots;                             // shared while a request is out
    uint64_t slots_gpa;
    struct tx_open open;
    bool waiting; // the client was told NIC_TX_FULL
    uint64_t packets, bytes, copied, held, large, full, failed, ring_packets, bad_completions;
    uint64_t scratch[TX_PACKET_BYTES / 8];
};

// One channel of a NIC with all that its data path needs. Only its core touches it, but for core 0's
// control fiber before the channel is open and after it is closed. Each has pages of its own.
struct nic_queue {
    struct nic *nic;
    unsigned index; // of the channel, 0: primary
    bool up;        // the client was told of the NIC on this core: frames flow
    struct channel channel;
    void *client_data;
    struct nic_rx rx;
    struct nic_tx_state tx;
};

struct receive_buffer { // one for all channels; the host deals its sections out
    uint8_t *memory;    // shared
    uint32_t pages, bytes;
    struct gpadl gpadl;
    uint32_t section_size, section_count;
};

struct send_buffer { // one for all channels; each queue has sections of its own
    uint8_t *memory; // shared
    uint32_t pages;
    struct gpadl gpadl;
    uint32_t section_size, section_count, section_limit; // limit: bytes used of a section
    uint32_t message_limit, alignment;
};

struct nic_control {
    uint8_t *page; // shared while a request is out
    uint64_t page_gpa;
    uint32_t request; // transaction id that the fiber waits for, 0: none
    bool packet_done;
    struct nvsp_message nvsp; // what completed it
    uint32_t nvsp_len;
    uint32_t next_id;    // of RNDIS requests
    uint32_t rndis_id;   // request that the fiber waits for, 0: none
    uint32_t rndis_type; // of its reply
    bool reply_done;
    uint32_t reply_len;
    uint8_t reply[CONTROL_REPLY_BYTES] __attribute__((aligned(8)));
    struct event event;
    uint32_t keepalive; // transaction id of a keepalive answer that is out
    bool closing;       // no more questions of other fibers
    unsigned askers;    // fibers inside nic_set_table()
    bool taken;         // by a fiber that asks by RNDIS; others wait
    bool link;          // as the host said last; info.link_up is what the client was told
    bool link_flapped;  // it was down in between
    bool speed_changed; // as the host said
    bool table_changed; // the host's wish
    uint64_t unexpected, keepalives, indications, tables;
};

struct nic_rss {
    struct toeplitz hash;
    uint8_t key[TOEPLITZ_KEY];
    uint32_t types; // RSS_HASH_*: what the host hashes
    uint8_t core_of[NIC_TABLE_SIZE];
    bool wished; // the host has said by which channel it wants to be sent to, by hash:
    uint32_t wish[NVSP_SEND_TABLE_SIZE]; // as it came
};

// What is one per NIC. The first part is read by every core on its packet path and written by core 0
// only while no frames flow (but for what the host says of the link); the rest is core 0's.
struct nic {
    struct nic_info info;
    struct receive_buffer receive;
    struct send_buffer send;
    struct nic_rss rss;
    unsigned queue_count;
    struct nic_queue *queue[MAX_CORES]; // by channel and core: channel i is core i's

    struct vmbus_device *device __attribute__((aligned(64)));
    bool leaked;    // the host may still use memory of this NIC: never free it
    unsigned index; // in the table of NICs
    uint32_t nvsp_version;
    uint32_t steps;       // of the bring-up that have been done
    uint32_t frames_lost; // with the client for ever
    struct nic_control control;
};

extern const struct nic_client *nic_client;

// The calling core's queue; it has one, or it has not been told of the NIC.
static inline struct nic_queue *queue_here(const struct nic *nic)
{
    return nic->queue[core_id()];
}

// control.c: questions to the host, from the device's fiber. 0 or a negative errno.
int nvsp_negotiate(struct nic *nic);
int nvsp_configure(struct nic *nic, uint16_t mtu);
int nvsp_share_receive_buffer(struct nic *nic);
int nvsp_share_send_buffer(struct nic *nic);
int nvsp_request_subchannels(struct nic *nic, unsigned *count); // *count: as granted
void nvsp_revoke_buffer(struct nic *nic, enum nvsp_type type, uint16_t id);
int rndis_initialize(struct nic *nic);
void rndis_halt(struct nic *nic);
int rndis_set(struct nic *nic, uint32_t oid, const void *info, uint32_t length);
// Copies at most `room` bytes of the answer; *length is what the host gave (bounded by room).
int rndis_query(struct nic *nic, uint32_t oid, const void *input, uint32_t input_length, void *out,
                uint32_t room, uint32_t *length);

// offload.c: asks for them and fills in nic_info. 0 or a negative errno.
int rndis_negotiate_offloads(struct nic *nic);

// control.c: what the host says, from the handler.
void control_packet_done(struct nic *nic, uint32_t id, const struct nvsp_message *nvsp,
                         uint32_t length);
void control_message(struct nic *nic, const uint8_t *message, uint32_t length, uint32_t range);
void control_inband(struct nic *nic, const uint8_t *message, uint32_t length);

// control.c: the checks of NVSP completions. 0 or a negative errno.
int nvsp_check_init(const struct nvsp_message *m, uint32_t length);
int nvsp_check_receive_buffer(const struct nvsp_message *m, uint32_t length, uint32_t buffer_bytes);
int nvsp_check_send_buffer(const struct nvsp_message *m, uint32_t length);
int nvsp_check_subchannels(const struct nvsp_message *m, uint32_t length, unsigned asked);

// netvsc.c: memory, from core 0's fiber. Whether so many pages can be taken and enough is left, and how
// many a NIC has.
bool nic_memory_fits(uint32_t pages);
uint32_t nic_pages(const struct nic *nic);

// queue.c: the memory of a queue, from core 0's fiber; the last one is freed first.
struct nic_queue *queue_new(struct nic *nic); // NULL: no memory
void queue_free(struct nic *nic);
uint32_t queue_pages(const struct nic_queue *q);
int queue_open(struct nic_queue *q,
               struct vmbus_device *device); // its channel; 0 or negative errno

// rss.c
void rss_init(struct nic *nic); // a key of its own
int rss_query(struct nic *nic, unsigned *queues);
int rss_start(struct nic *nic);
void rss_balance(struct nic *nic);

// channels.c: from the device's fiber.
int channels_open(struct nic *nic);    // all but the first; 0 or negative errno
void channels_close(struct nic *nic);  // all; if the host did not confirm, nic->leaked
void channels_attach(struct nic *nic); // tells the client, on each core; the same:
void channels_detach(struct nic *nic);
void channels_link(struct nic *nic);
void channels_stop(struct nic *nic); // no frames from now on
uint32_t channels_outstanding(const struct nic *nic);
uint32_t channels_held(const struct nic *nic);
void channels_abort(struct nic *nic); // hands back all that is held

// stats.c: one NIC's part of the console's `stats`.
void nic_write_stats(const struct nic *nic);

// rx.c
int rx_start(struct nic_queue *q); // sections are known: makes the groups
bool rx_poll(struct nic_queue *q, bool *frames);
void rx_flush(struct nic_queue *q); // puts the completions that are due into the ring

// tx.c
void tx_start(struct nic_queue *q, uint32_t first, uint32_t count); // its send sections
bool tx_room(struct nic_queue *q, uint32_t ring_bytes);
bool tx_wait_room(struct nic_queue *q, uint32_t ring_bytes); // true: there is room by now
void tx_close_section(struct nic_queue *q);
void tx_complete(struct nic_queue *q, const struct ring_packet *packet);
void tx_check_ready(struct nic_queue *q);
uint32_t tx_held(const struct nic_queue *q); // frames that have not come back
void tx_abort(struct nic_queue *q);          // hands back all of them
// A packet with one GPA range, from memory that stays until it is completed. False: ring is full.
bool tx_put_control(struct nic_queue *q, uint32_t id, uint64_t gpa, uint32_t length);
