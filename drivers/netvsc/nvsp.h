// SPDX-License-Identifier: BSD-2-Clause
// NVSP, the protocol between a synthetic NIC's guest and host parts: payload of the packets on the NIC's
// channel. Numbers and layouts only; little endian. Source: Linux's and OpenVMM's netvsc.
#pragma once

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

enum nvsp_version {
    NVSP_VERSION_1 = 0x00002,
    NVSP_VERSION_2 = 0x30002, // NDIS_CONFIG
    NVSP_VERSION_4 = 0x40000,
    NVSP_VERSION_5 = 0x50000, // subchannels, NDIS 6.30, UDP checksum
    NVSP_VERSION_6 = 0x60000,
    NVSP_VERSION_6_1 = 0x60001, // RSC, messages of 40 bytes
};

enum nvsp_status {
    NVSP_STATUS_SUCCESS = 1, // 0 is not success
    NVSP_STATUS_FAILURE = 2,
};

enum nvsp_type {
    NVSP_INIT = 1,
    NVSP_INIT_COMPLETE = 2,
    NVSP_SEND_NDIS_VERSION = 100,
    NVSP_SEND_RECEIVE_BUFFER = 101,
    NVSP_SEND_RECEIVE_BUFFER_COMPLETE = 102,
    NVSP_REVOKE_RECEIVE_BUFFER = 103,
    NVSP_SEND_SEND_BUFFER = 104,
    NVSP_SEND_SEND_BUFFER_COMPLETE = 105,
    NVSP_REVOKE_SEND_BUFFER = 106,
    NVSP_SEND_RNDIS_PACKET = 107,
    NVSP_SEND_RNDIS_PACKET_COMPLETE = 108,
    NVSP_SEND_NDIS_CONFIG = 125,
    NVSP_SEND_VF_ASSOCIATION = 128,
    NVSP_SWITCH_DATA_PATH = 129,
    NVSP_SUBCHANNEL = 133, // and its completion
    NVSP_SEND_INDIRECTION_TABLE = 134,
};

#define NVSP_CHANNEL_DATA 0u
#define NVSP_CHANNEL_CONTROL 1u
#define NVSP_NO_SECTION 0xffffffffu

#define NVSP_CAPABILITY_8021Q (1u << 3)
#define NVSP_CAPABILITY_TEAMING (1u << 5) // link speed changes are told
#define NVSP_CAPABILITY_RSC (1u << 7)     // from 6.1

#define NVSP_RECEIVE_BUFFER_ID 0xcafe
#define NVSP_SEND_BUFFER_ID 0xface

// Every message is sent at the size of version 6.1; any length that covers the fields is accepted.
#define NVSP_MESSAGE_BYTES 40u

struct nvsp_message {
    uint32_t type; // enum nvsp_type
    union {
        struct {
            uint32_t version;
            uint32_t version_again;
        } init;
        struct {
            uint32_t version;
            uint32_t max_mdl_chain;
            uint32_t status;
        } init_complete;
        struct {
            uint32_t major, minor;
        } ndis_version;
        struct {
            uint32_t gpadl;
            uint16_t id;
        } buffer; // SEND_RECEIVE_BUFFER, SEND_SEND_BUFFER
        struct {
            uint32_t status;
            uint32_t section_count; // 1
            uint32_t offset;        // 0
            uint32_t section_size;
            uint32_t count;
            uint32_t end_offset;
        } receive_buffer_complete;
        struct {
            uint32_t status;
            uint32_t section_size;
        } send_buffer_complete;
        struct {
            uint16_t id;
        } revoke;
        struct {
            uint32_t channel; // NVSP_CHANNEL_DATA or _CONTROL
            uint32_t section; // NVSP_NO_SECTION: none
            uint32_t section_bytes;
        } rndis;
        struct {
            uint32_t status;
        } rndis_complete;
        struct {
            uint32_t mtu; // with the Ethernet header
            uint32_t reserved;
            uint32_t capabilities; // low half; the high half is 0
            uint32_t capabilities_high;
        } ndis_config;
        struct {
            uint32_t operation; // NVSP_SUBCHANNEL_ALLOCATE
            uint32_t count;
        } subchannel;
        struct {
            uint32_t status;
            uint32_t count;
        } subchannel_complete;
        struct {
            uint32_t count;
            uint32_t offset; // of 32-bit channel indices, from the message's start
        } send_table;
        uint32_t words[9];
    };
};
static_assert(sizeof(struct nvsp_message) == NVSP_MESSAGE_BYTES, "NVSP message");
static_assert(offsetof(struct nvsp_message, init_complete.status) == 12, "INIT_COMPLETE");
static_assert(offsetof(struct nvsp_message, buffer.id) == 8, "SEND_BUFFER");
static_assert(offsetof(struct nvsp_message, receive_buffer_complete.end_offset) == 24, "RECV_BUF");
static_assert(offsetof(struct nvsp_message, ndis_config.capabilities) == 12, "NDIS_CONFIG");
static_assert(offsetof(struct nvsp_message, rndis.section_bytes) == 12, "RNDIS packet");

#define NVSP_SUBCHANNEL_ALLOCATE 1u
#define NVSP_SEND_TABLE_SIZE 16u
#define NVSP_COMPLETION_BYTES 8u // type and status, what a receive completion carries
