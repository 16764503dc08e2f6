// SPDX-License-Identifier: BSD-2-Clause
// RNDIS as Hyper-V's NIC uses it: numbers, layouts, and the one function that decides whether a message
// from the host may be used. Little endian; offsets inside a message count from byte 8.
#pragma once

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum rndis_type {
    RNDIS_PACKET = 1,
    RNDIS_INITIALIZE = 2,
    RNDIS_HALT = 3,
    RNDIS_QUERY = 4,
    RNDIS_SET = 5,
    RNDIS_RESET = 6,
    RNDIS_INDICATE = 7,
    RNDIS_KEEPALIVE = 8,
    RNDIS_COMPLETE = 0x80000000, // or'ed to the type of the request
};

#define RNDIS_STATUS_SUCCESS 0u
#define RNDIS_STATUS_MEDIA_CONNECT 0x4001000bu
#define RNDIS_STATUS_MEDIA_DISCONNECT 0x4001000cu
#define RNDIS_STATUS_LINK_SPEED_CHANGE 0x40010013u
#define RNDIS_STATUS_NETWORK_CHANGE 0x40010018u

enum rndis_oid {
    OID_MAXIMUM_FRAME_SIZE = 0x00010106,
    OID_LINK_SPEED = 0x00010107, // 100 bit/s
    OID_PACKET_FILTER = 0x0001010e,
    OID_MEDIA_CONNECT_STATUS = 0x00010114, // 0: connected
    OID_RSS_CAPABILITIES = 0x00010203,
    OID_RSS_PARAMETERS = 0x00010204,
    OID_PERMANENT_ADDRESS = 0x01010101,
    OID_OFFLOAD_PARAMETERS = 0xfc01020c,
    OID_OFFLOAD_CAPABILITIES = 0xfc01020d,
};

// Directed, all multicast, broadcast.
#define RNDIS_FILTER_UP 0x0du

#define RNDIS_HEADER_BYTES 8u // type and length; offsets count from here

struct rndis_header {
    uint32_t type;
    uint32_t length; // of the whole message
};

struct rndis_packet {
    struct rndis_header header;
    uint32_t data_offset;
    uint32_t data_length;
    uint32_t oob_offset; // these four: 0
    uint32_t oob_length;
    uint32_t oob_count;
    uint32_t ppi_offset;
    uint32_t ppi_length;
    uint32_t vc_handle;
    uint32_t reserved;
};
static_assert(sizeof(struct rndis_packet) == 44, "PACKET");

#define RNDIS_PACKET_BODY 36u // offset of what follows the packet's header

struct rndis_initialize {
    struct rndis_header header;
    uint32_t id;
    uint32_t major, minor;
    uint32_t max_transfer;
};
static_assert(sizeof(struct rndis_initialize) == 24, "INITIALIZE");

struct rndis_initialize_complete {
    struct rndis_header header;
    uint32_t id;
    uint32_t status;
    uint32_t major, minor;
    uint32_t device_flags;
    uint32_t medium;
    uint32_t max_packets; // per message
    uint32_t max_transfer;
    uint32_t alignment; // power of two
    uint32_t reserved[2];
};
static_assert(sizeof(struct rndis_initialize_complete) == 52, "INITIALIZE_CMPLT");

struct rndis_simple { // HALT, KEEPALIVE
    struct rndis_header header;
    uint32_t id;
};

struct rndis_request { // QUERY, SET; information follows
    struct rndis_header header;
    uint32_t id;
    uint32_t oid;
    uint32_t info_length;
    uint32_t info_offset; // 20
    uint32_t vc_handle;
};
static_assert(sizeof(struct rndis_request) == 28, "QUERY and SET");

struct rndis_complete { // SET_CMPLT, KEEPALIVE_CMPLT, and how every other completion starts
    struct rndis_header header;
    uint32_t id;
    uint32_t status;
};
static_assert(sizeof(struct rndis_complete) == 16, "SET_CMPLT");

struct rndis_query_complete {
    struct rndis_header header;
    uint32_t id;
    uint32_t status;
    uint32_t info_length;
    uint32_t info_offset;
};
static_assert(sizeof(struct rndis_query_complete) == 24, "QUERY_CMPLT");

struct rndis_indicate {
    struct rndis_header header;
    uint32_t status;
    uint32_t buffer_length;
    uint32_t buffer_offset;
};
static_assert(sizeof(struct rndis_indicate) == 20, "INDICATE");

// Per-packet information.
struct rndis_ppi {
    uint32_t size;   // multiple of 4, header included
    uint32_t type;   // bit 31: internal
    uint32_t offset; // of the value, from here
};
static_assert(sizeof(struct rndis_ppi) == 12, "PPI");

enum rndis_ppi_type {
    PPI_CHECKSUM = 0,
    PPI_LSO = 2,
    PPI_VLAN = 6,
    PPI_HASH = 8,
    PPI_PACKET_ID = 0x80000001, // one of ours: struct rndis_packet_id
};

struct rndis_packet_id {
    uint8_t version;
    uint8_t flags; // enum rndis_packet_flags
    uint16_t id;
};

enum rndis_packet_flags { // of a fragment of a frame that the host put together (RSC)
    RNDIS_FRAGMENT = 1,
    RNDIS_FRAGMENT_FIRST = 2,
    RNDIS_FRAGMENT_LAST = 4,
};

// Checksum PPI, transmit.
#define PPI_TX_IPV4 (1u << 0)
#define PPI_TX_IPV6 (1u << 1)
#define PPI_TX_TCP (1u << 2)
#define PPI_TX_UDP (1u << 3)
#define PPI_TX_IP_HEADER (1u << 4)
#define PPI_TX_TRANSPORT_SHIFT 16 // 10 bits: offset of the transport header

// LSO PPI, version 2. Low 20 bits: MSS.
#define PPI_LSO_TCP_OFFSET_SHIFT 20 // 10 bits
#define PPI_LSO_VERSION_2 (1u << 30)
#define PPI_LSO_IPV6 (1u << 31)

// Checksum PPI, receive.
#define PPI_RX_TCP_FAILED (1u << 0)
#define PPI_RX_UDP_FAILED (1u << 1)
#define PPI_RX_IP_FAILED (1u << 2)
#define PPI_RX_TCP_OK (1u << 3)
#define PPI_RX_UDP_OK (1u << 4)
#define PPI_RX_IP_OK (1u << 5)

#define PPI_VLAN_ID(value) ((value) >> 4 & 0xfff)

// Offload negotiation.
struct ndis_object {
    uint8_t type;
    uint8_t revision;
    uint16_t size; // with this header
};

#define NDIS_OBJECT_OFFLOAD 0xa7
#define NDIS_OBJECT_DEFAULT 0x80

struct ndis_offload { // revision 3
    struct ndis_object header;
    uint32_t ip4_tx_encapsulation, ip4_tx;
    uint32_t ip4_rx_encapsulation, ip4_rx;
    uint32_t ip6_tx_encapsulation, ip6_tx;
    uint32_t ip6_rx_encapsulation, ip6_rx;
    uint32_t lso_v1[4];
    uint32_t ipsec_v1[7];
    uint32_t lso_ip4_encapsulation, lso_ip4_max, lso_ip4_min_segments;
    uint32_t lso_ip6_encapsulation, lso_ip6_max, lso_ip6_min_segments, lso_ip6_options;
    uint32_t flags;
    uint8_t ipsec_v2[32];
    uint8_t rsc_ip4, rsc_ip6;
    uint8_t reserved[2];
    uint32_t gre[2];
};
static_assert(offsetof(struct ndis_offload, lso_ip4_encapsulation) == 80, "offload");
static_assert(offsetof(struct ndis_offload, rsc_ip4) == 144, "offload");
static_assert(sizeof(struct ndis_offload) == 156, "offload");

#define NDIS_OFFLOAD_BYTES_REV1 112u
#define NDIS_OFFLOAD_BYTES_REV2 144u

// Checksum flags in struct ndis_offload.
#define NDIS_CSUM_IP_OPTIONS 0x001u // IPv6: extension headers
#define NDIS_CSUM_TCP_OPTIONS 0x004u
#define NDIS_CSUM_TCP 0x010u
#define NDIS_CSUM_UDP 0x040u

// LSOv2 in struct ndis_offload.
#define NDIS_LSO_8023 0x2u           // encapsulation: Ethernet
#define NDIS_LSO_IP6_EXTENSIONS 0x1u // each a field of two bits
#define NDIS_LSO_IP6_TCP_OPTIONS 0x4u
#define NDIS_LSO_MIN_SEGMENTS 2u // what we make has at least two

struct ndis_offload_parameters {
    struct ndis_object header;
    uint8_t ip4_header, tcp4, udp4, tcp6, udp6; // enum ndis_csum_setting
    uint8_t lso_v1, ipsec_v1, lso_ip4, lso_ip6;
    uint8_t connection_offload[2];
    uint8_t padding;
    uint32_t flags;
    uint8_t ipsec_v2, ipsec_v2_ip4, rsc_ip4, rsc_ip6;
    uint8_t encapsulation, encapsulation_types;
    uint8_t padding2[2];
};
static_assert(offsetof(struct ndis_offload_parameters, flags) == 16, "offload parameters");
static_assert(sizeof(struct ndis_offload_parameters) == 28, "offload parameters");

#define NDIS_OFFLOAD_PARAMETERS_BYTES_OLD 22u // NVSP 4 and below

enum ndis_csum_setting {
    NDIS_CSUM_NO_CHANGE = 0,
    NDIS_CSUM_OFF = 1,
    NDIS_CSUM_TX_ON = 2,
    NDIS_CSUM_RX_ON = 3,
    NDIS_CSUM_BOTH_ON = 4,
};
#define NDIS_OFFLOAD_OFF 1 // LSO, RSC
#define NDIS_OFFLOAD_ON 2

// Receive side scaling.
#define NDIS_OBJECT_RSS_CAPABILITIES 0x88
#define NDIS_OBJECT_RSS_PARAMETERS 0x89

struct ndis_rss_capabilities {
    struct ndis_object header;
    uint32_t flags;
    uint32_t interrupt_messages;
    uint32_t queues;
    uint16_t table_entries; // revision 2
    uint16_t padding;
};
#define NDIS_RSS_CAPABILITIES_BYTES 18u // revision 2
#define NDIS_RSS_CAPABILITIES_BYTES_OLD 16u
static_assert(offsetof(struct ndis_rss_capabilities, table_entries) == 16, "RSS capabilities");

// flags; not the bits of the hash types
#define NDIS_RSS_CAP_TOEPLITZ 0x1u
#define NDIS_RSS_CAP_TCP4 0x100u
#define NDIS_RSS_CAP_TCP6 0x200u
#define NDIS_RSS_CAP_UDP4 0x800u
#define NDIS_RSS_CAP_UDP6 0x1000u

struct ndis_rss_parameters { // offsets count from here
    struct ndis_object header;
    uint16_t flags;
    uint16_t base_cpu;
    uint32_t hash; // RSS_HASH_*
    uint16_t table_bytes;
    uint16_t padding;
    uint32_t table_offset; // of 32-bit channel indices
    uint16_t key_bytes;
    uint16_t padding2;
    uint32_t key_offset;
    uint32_t mask_offset, mask_count, mask_bytes; // 0
};
static_assert(sizeof(struct ndis_rss_parameters) == 40, "RSS parameters");

#define NDIS_RSS_DISABLE 0x10u // flag

#define RSS_HASH_TOEPLITZ 0x1u
#define RSS_HASH_IP4 0x100u
#define RSS_HASH_TCP4 0x200u
#define RSS_HASH_IP6 0x400u
#define RSS_HASH_TCP6 0x1000u
#define RSS_HASH_UDP4 0x4000u
#define RSS_HASH_UDP6 0x8000u

// Why a message from the host was not used.
enum rndis_verdict {
    RNDIS_OK = 0,
    RNDIS_BAD_LENGTH, // message does not fit its range, or is too short for its type
    RNDIS_BAD_DATA,   // frame outside the message, or shorter than an Ethernet header
    RNDIS_BAD_PPI,    // per-packet information outside the message or malformed
    RNDIS_BAD_RSC,    // fragments that make no frame (rx.c)
    RNDIS_VERDICTS,
};

struct rndis_frame { // what a PACKET message says, checked
    uint32_t offset; // of the frame, from the start of the message
    uint32_t length;
    uint32_t csum; // PPI_RX_*; 0 if the host said nothing
    uint32_t vlan; // PPI_VLAN's value: the tag that the host took off the frame; 0: none
    uint32_t hash; // of the flow; 0: the host gave none
    uint8_t flags; // enum rndis_packet_flags; 0: a frame of its own
};

// Checks the header of a message in a range of `range` bytes of host-writable memory and copies it to
// *header: the type is whatever the host says, the length is at least 8 and at most `range`.
enum rndis_verdict rndis_header_check(const uint8_t *message, uint32_t range,
                                      struct rndis_header *header);

// Checks a PACKET message (rndis_header_check said so) with its per-packet information, each byte of
// which is read once. The frame in *out lies inside the message; only a fragment that is not the first
// may be shorter than an Ethernet header.
enum rndis_verdict rndis_check(const uint8_t *message, uint32_t length, struct rndis_frame *out);

// What a host sends for each fragment but the first of a frame: the per-packet information begins with
// what makes it a fragment, and of the rest the first one's counts. The most frequent message by far.
#define RNDIS_FRAGMENT_DATA (sizeof(struct rndis_packet) + sizeof(struct rndis_ppi) + 4) // or later

struct rndis_said { // what is judged of it, two fields in each
    uint64_t type_length, data, area;
    uint64_t ppi_size_type, ppi_offset_value; // the first PPI
};

struct rndis_fragment { // checked
    uint32_t offset;    // of the data, from the start of the message
    uint32_t length;
    uint8_t flags; // enum rndis_packet_flags
    struct rndis_said said;
};

// Reads what is judged of a message of at least RNDIS_FRAGMENT_DATA bytes.
static inline struct rndis_said rndis_listen(const uint8_t *message)
{
    const uint8_t *ppi = message + sizeof(struct rndis_packet);
    struct rndis_said said;

    memcpy(&said.type_length, message, 8);
    memcpy(&said.data, message + offsetof(struct rndis_packet, data_offset), 8);
    memcpy(&said.area, message + offsetof(struct rndis_packet, ppi_offset), 8);
    memcpy(&said.ppi_size_type, ppi, 8);
    memcpy(&said.ppi_offset_value, ppi + offsetof(struct rndis_ppi, offset), 8);
    return said;
}

// Takes apart such a message. False: it is another one, or not in order, and rndis_header_check() and
// rndis_check() must decide. Reads each byte once, as they do.
static inline bool rndis_continuation(const uint8_t *message, uint32_t range,
                                      struct rndis_fragment *out)
{
    if (range < RNDIS_FRAGMENT_DATA)
        return false;
    const struct rndis_said said = rndis_listen(message);
    __asm__ volatile("" ::: "memory"); // the host may write meanwhile: what was read is judged
    uint32_t length = (uint32_t)(said.type_length >> 32);
    uint32_t begin = (uint32_t)said.data + RNDIS_HEADER_BYTES;
    out->said = said;
    out->offset = begin;
    out->length = (uint32_t)(said.data >> 32);
    out->flags = (uint8_t)(said.ppi_offset_value >> 40);
    return (uint32_t)said.type_length == RNDIS_PACKET && (uint32_t)said.area == RNDIS_PACKET_BODY &&
           said.area >> 32 >= sizeof(struct rndis_ppi) + 4 &&
           said.ppi_size_type == ((uint64_t)PPI_PACKET_ID << 32 | (sizeof(struct rndis_ppi) + 4)) &&
           (uint32_t)said.ppi_offset_value == sizeof(struct rndis_ppi) &&
           (out->flags & (RNDIS_FRAGMENT | RNDIS_FRAGMENT_FIRST)) == RNDIS_FRAGMENT &&
           length <= range && begin >= RNDIS_FRAGMENT_DATA && begin <= length &&
           out->length - 1 < length - begin;
}

static inline bool rndis_same(const uint8_t *at, uint64_t expected)
{
    uint64_t word;

    memcpy(&word, at, sizeof(word));
    if (word != expected)
        return false;
    __asm__ volatile("" ::
                         : "memory"); // one comparison after the other costs less than to join them
    return true;
}

// True if a message says the same as one that is in order, and in a range of the same length: then so is
// this one, and its rndis_fragment is that one's. Reads each byte once.
static inline bool rndis_says(const uint8_t *message, struct rndis_said said)
{
    const uint8_t *ppi = message + sizeof(struct rndis_packet);

    return rndis_same(message, said.type_length) &&
           rndis_same(message + offsetof(struct rndis_packet, data_offset), said.data) &&
           rndis_same(message + offsetof(struct rndis_packet, ppi_offset), said.area) &&
           rndis_same(ppi, said.ppi_size_type) &&
           rndis_same(ppi + offsetof(struct rndis_ppi, offset), said.ppi_offset_value);
}

// Checks a private copy of a query's completion: the information in it, or NULL.
const void *rndis_query_info(const void *reply, uint32_t length, uint32_t *info_length);

struct rndis_offloads {    // what the host can do that is of use here
    uint8_t tx_csum;       // enum nic_tx_csum
    uint32_t rx_csum;      // NDIS_CSUM_*, IPv4 low, IPv6 << 16
    uint8_t tx_large;      // NIC_TX_IP4, NIC_TX_IP6
    uint32_t tx_large_max; // longest frame
    bool rx_coalesce;      // RSC for both
};

// Takes an answer to OID_OFFLOAD_CAPABILITIES apart. False: it is malformed.
bool rndis_offload_check(const void *info, uint32_t length, struct rndis_offloads *out);

// How many channels an answer to OID_RSS_CAPABILITIES allows, 1 if it is malformed or the host's table
// is not for us; *types: the RSS_HASH_* of what the host can hash.
unsigned rndis_rss_check(const void *info, uint32_t length, uint32_t *types);
