// SPDX-License-Identifier: BSD-2-Clause
// VMBus on the wire: control messages (SynIC message type 1), ring headers and ring packets.
// Numbers and layouts only. Source: the public Hyper-V guest interface as Linux and OpenVMM speak it;
// little endian, offsets from the start of each structure.
#pragma once

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define VMBUS_PAGE_SIZE 4096u
#define VMBUS_PAGE_SHIFT 12
#define VMBUS_MAX_RELID 2048u // relids are 1..2047; event flag 0 is no channel

#define VMBUS_SYNIC_MESSAGE 1u // SynIC message type that carries what follows
#define VMBUS_SINT 2u

// Connection ids to post messages on.
#define VMBUS_CONNECTION_OLD 1u     // everything, before 5.0
#define VMBUS_CONNECTION_CONTACT 4u // INITIATE_CONTACT from 5.0; then the id in the answer

enum vmbus_version {
    VMBUS_VERSION_2_4 = 0x00020004, // Windows 8: one event flag per channel
    VMBUS_VERSION_3_0 = 0x00030000, // UNLOAD
    VMBUS_VERSION_4_0 = 0x00040000, // buffers' GPADLs are torn down after close
    VMBUS_VERSION_4_1 = 0x00040001,
    VMBUS_VERSION_5_0 = 0x00050000, // contact on connection 4, answer names the message connection
    VMBUS_VERSION_5_1 = 0x00050001,
    VMBUS_VERSION_5_2 = 0x00050002,
    VMBUS_VERSION_5_3 = 0x00050003,
};

enum vmbus_message_type {
    VMBUS_OFFER = 1,
    VMBUS_RESCIND = 2,
    VMBUS_REQUEST_OFFERS = 3,
    VMBUS_ALL_OFFERS = 4,
    VMBUS_OPEN = 5,
    VMBUS_OPEN_RESULT = 6,
    VMBUS_CLOSE = 7,
    VMBUS_GPADL_HEADER = 8,
    VMBUS_GPADL_BODY = 9,
    VMBUS_GPADL_CREATED = 10,
    VMBUS_GPADL_TEARDOWN = 11,
    VMBUS_GPADL_TORNDOWN = 12,
    VMBUS_RELID_RELEASED = 13,
    VMBUS_INITIATE_CONTACT = 14,
    VMBUS_VERSION_RESPONSE = 15,
    VMBUS_UNLOAD = 16,
    VMBUS_UNLOAD_RESPONSE = 17,
};

struct guid {
    uint8_t bytes[16]; // the first three groups little endian
};

struct vmbus_header {
    uint32_t type; // enum vmbus_message_type
    uint32_t padding;
};

struct vmbus_initiate_contact {
    struct vmbus_header header;
    uint32_t version;
    uint32_t target_vp; // where messages to the guest go
    uint64_t target;    // < 5.0: GPA of the interrupt page; else SINT in byte 0, VTL in byte 1
    uint64_t monitor_to_guest; // GPAs, both or neither
    uint64_t monitor_to_host;
};
static_assert(sizeof(struct vmbus_initiate_contact) == 40, "INITIATE_CONTACT");

struct vmbus_version_response {
    struct vmbus_header header;
    uint8_t supported;
    uint8_t state; // 0: connected
    uint16_t padding;
    uint32_t connection_id; // from 5.0
};
static_assert(sizeof(struct vmbus_version_response) == 16, "VERSION_RESPONSE");

struct vmbus_offer {
    struct vmbus_header header;
    struct guid class_id;
    struct guid instance_id;
    uint8_t reserved[16];
    uint16_t flags;
    uint16_t mmio_mb;
    uint8_t user_data[120];
    uint16_t subchannel_index;
    uint16_t mmio_optional_mb;
    uint32_t relid;
    uint8_t monitor_id;
    uint8_t monitor_allocated;
    uint16_t is_dedicated; // bit 0: the connection id alone names the channel
    uint32_t connection_id;
};
static_assert(sizeof(struct vmbus_offer) == 196, "OFFER");
static_assert(offsetof(struct vmbus_offer, subchannel_index) == 180, "OFFER");
static_assert(offsetof(struct vmbus_offer, connection_id) == 192, "OFFER");

struct vmbus_relid { // RESCIND, CLOSE, RELID_RELEASED
    struct vmbus_header header;
    uint32_t relid;
};
static_assert(sizeof(struct vmbus_relid) == 12, "relid messages");

struct vmbus_open {
    struct vmbus_header header;
    uint32_t relid;
    uint32_t open_id;
    uint32_t gpadl;
    uint32_t target_vp;
    uint32_t downstream_page; // where the host-to-guest ring starts in the GPADL
    uint8_t user_data[120];
};
static_assert(sizeof(struct vmbus_open) == 148, "OPEN");

struct vmbus_result { // OPEN_RESULT (id = open id), GPADL_CREATED (id = GPADL)
    struct vmbus_header header;
    uint32_t relid;
    uint32_t id;
    uint32_t status; // 0: success
};
static_assert(sizeof(struct vmbus_result) == 20, "results");

struct vmbus_gpadl_header {
    struct vmbus_header header;
    uint32_t relid;
    uint32_t gpadl;
    uint16_t range_bytes; // of all ranges with their headers
    uint16_t range_count;
    uint32_t bytes; // the one range that we use
    uint32_t offset;
    uint64_t pfn[];
} __attribute__((packed, aligned(4)));
static_assert(offsetof(struct vmbus_gpadl_header, pfn) == 28, "GPADL_HEADER");

struct vmbus_gpadl_body {
    struct vmbus_header header;
    uint32_t number;
    uint32_t gpadl;
    uint64_t pfn[];
};
static_assert(sizeof(struct vmbus_gpadl_body) == 16, "GPADL_BODY");

#define VMBUS_GPADL_HEADER_PFNS 26u
#define VMBUS_GPADL_BODY_PFNS 28u
#define VMBUS_GPADL_MAX_PAGES 8190u // range_bytes is 16 bits

struct vmbus_gpadl_teardown {
    struct vmbus_header header;
    uint32_t relid;
    uint32_t gpadl;
};
static_assert(sizeof(struct vmbus_gpadl_teardown) == 16, "GPADL_TEARDOWN");

struct vmbus_gpadl_torndown {
    struct vmbus_header header;
    uint32_t gpadl;
};
static_assert(sizeof(struct vmbus_gpadl_torndown) == 12, "GPADL_TORNDOWN");

// Rings: a header page, then the data.

struct ring_header {
    _Atomic uint32_t write_index; // byte offsets into the data, multiples of 8
    _Atomic uint32_t read_index;
    _Atomic uint32_t interrupt_mask;    // reader's: 1 = do not signal me
    _Atomic uint32_t pending_send_size; // writer's: signal me when that much is free
    uint32_t reserved[12];
    _Atomic uint32_t features;
    uint32_t reserved2[1007];
};
static_assert(offsetof(struct ring_header, features) == 64, "ring header");
static_assert(sizeof(struct ring_header) == VMBUS_PAGE_SIZE, "ring header");

#define RING_FEATURE_PENDING_SEND_SIZE 1u

enum vmbus_packet_type {
    PACKET_INBAND = 6,
    PACKET_TRANSFER_PAGES = 7,
    PACKET_GPA_DIRECT = 9,
    PACKET_COMPLETION = 11,
};

#define PACKET_WANTS_COMPLETION 1u // flag
#define PACKET_TRAILER 8u          // bytes after each packet on the ring

struct packet_descriptor {
    uint16_t type;
    uint16_t header_qwords; // descriptor and extra header
    uint16_t total_qwords;  // header and payload, without the trailer
    uint16_t flags;
    uint64_t transaction_id;
};
static_assert(sizeof(struct packet_descriptor) == 16, "descriptor");

struct transfer_pages_header { // after the descriptor; then the ranges
    uint16_t set_id;
    uint8_t sender_owns;
    uint8_t reserved;
    uint32_t range_count;
};
static_assert(sizeof(struct transfer_pages_header) == 8, "transfer pages");

struct transfer_range {
    uint32_t bytes;
    uint32_t offset;
};

struct gpa_direct_header { // after the descriptor; then the ranges
    uint32_t reserved;
    uint32_t range_count;
};
static_assert(sizeof(struct gpa_direct_header) == 8, "GPA direct");

struct gpa_range { // then the page numbers
    uint32_t bytes;
    uint32_t offset;
};
