// SPDX-License-Identifier: BSD-2-Clause
// Integration services on the wire: what every message begins with, and the bodies of the four services
// that we have. Numbers and layouts only. Source: the public guest interface as Linux, FreeBSD and
// OpenVMM speak it; little endian, packed.
#pragma once

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

enum ic_message_type {
    IC_NEGOTIATE = 0,
    IC_HEARTBEAT = 1,
    IC_KVP = 2,
    IC_SHUTDOWN = 3,
    IC_TIMESYNC = 4,
};

enum ic_flag {
    IC_TRANSACTION = 1,
    IC_REQUEST = 2,
    IC_RESPONSE = 4,
};

enum ic_status { // HRESULTs
    IC_OK = 0,
    IC_FAIL = 0x80004005,
    IC_INVALID = 0x80070057,
    IC_FULL = 0x80070070,
    IC_NO_MORE = 0x80070103, // the end of an enumeration, and no such key
    IC_NO_ADAPTER = 0x80041002,
};

struct ic_version {
    uint16_t major, minor;
};

struct ic_header { // of every packet's payload
    uint32_t pipe_type;
    uint32_t pipe_length; // of what follows
    struct ic_version framework;
    uint16_t type; // enum ic_message_type
    struct ic_version message;
    uint16_t body_size;
    uint32_t status; // enum ic_status, of the answer
    uint8_t transaction;
    uint8_t flags; // enum ic_flag
    uint16_t reserved;
} __attribute__((packed));
static_assert(offsetof(struct ic_header, status) == 20, "IC header");
static_assert(sizeof(struct ic_header) == 28, "IC header");

struct ic_negotiate { // both ways: then struct ic_version for each, those of the framework first
    uint16_t framework_count;
    uint16_t message_count;
    uint32_t reserved;
} __attribute__((packed));
static_assert(sizeof(struct ic_negotiate) == 8, "negotiate");

#define IC_NEGOTIATE_MAX 100u  // versions of a kind
#define IC_NEGOTIATE_REPLY 16u // body size of the answer

struct ic_shutdown {
    uint32_t reason;
    uint32_t timeout;   // seconds that the host gives, 0: it does not say
    uint32_t flags;     // enum ic_shutdown_flags
    uint8_t text[2048]; // UTF-16, for people
} __attribute__((packed));
static_assert(sizeof(struct ic_shutdown) == 2060, "shutdown");

enum ic_shutdown_flags { // not bits: each is a wish of its own
    IC_POWER_OFF = 0,
    IC_POWER_OFF_FORCED = 1,
    IC_RESTART = 2,
    IC_RESTART_FORCED = 3,
};

struct ic_heartbeat { // older hosts send 40 bytes, of which only the first 8 mean anything
    uint64_t sequence;
    uint32_t state; // enum ic_state
    uint32_t reserved;
} __attribute__((packed));
static_assert(sizeof(struct ic_heartbeat) == 16, "heartbeat");

struct ic_timesync {    // from 4.0
    uint64_t host_time; // 100 ns since 1601-01-01 UTC
    uint64_t reference; // the partition's reference time at that moment
    uint8_t flags;      // enum ic_timesync_flags
    uint8_t leap, stratum;
    uint8_t reserved[3];
} __attribute__((packed));
static_assert(sizeof(struct ic_timesync) == 22, "timesync");

struct ic_timesync_old { // before
    uint64_t host_time;
    uint64_t guest_time, round_trip;
    uint8_t flags;
} __attribute__((packed));
static_assert(sizeof(struct ic_timesync_old) == 25, "timesync");

enum ic_timesync_flags {
    IC_TIME_SYNC = 1,   // set the clock
    IC_TIME_SAMPLE = 2, // what the time is
};

#define IC_UNIX_EPOCH 116444736000000000ull // 1970 since 1601, in 100 ns

enum kvp_operation {
    KVP_GET = 0,
    KVP_SET = 1,
    KVP_DELETE = 2,
    KVP_ENUMERATE = 3,
    KVP_GET_IP = 4,
    KVP_SET_IP = 5,
};

enum kvp_pool {
    KVP_EXTERNAL = 0,      // what the administrator tells the guest
    KVP_GUEST = 1,         // what the guest's own programs tell the host
    KVP_AUTO = 2,          // what every guest tells about itself
    KVP_AUTO_EXTERNAL = 3, // what every host tells about itself and the VM
    KVP_POOLS = 4,
};

enum kvp_type {
    KVP_STRING = 1,
    KVP_EXPAND_STRING = 2,
    KVP_DWORD = 4,
    KVP_QWORD = 11,
};

#define KVP_KEY_BYTES 512u
#define KVP_VALUE_BYTES 2048u

struct kvp_header {
    uint8_t operation; // enum kvp_operation
    uint8_t pool;      // enum kvp_pool
    uint16_t padding;
} __attribute__((packed));

struct kvp_value {
    uint32_t type;       // enum kvp_type
    uint32_t key_size;   // bytes of UTF-16, with the terminator
    uint32_t value_size; // the same of a string
    uint8_t key[KVP_KEY_BYTES];
    uint8_t value[KVP_VALUE_BYTES];
} __attribute__((packed));
static_assert(sizeof(struct kvp_value) == 2572, "KVP value");

struct kvp_exchange { // get, set
    struct kvp_header header;
    struct kvp_value data;
} __attribute__((packed));
static_assert(sizeof(struct kvp_exchange) == 2576, "KVP get and set");

struct kvp_enumerate {
    struct kvp_header header;
    uint32_t index;
    struct kvp_value data;
} __attribute__((packed));
static_assert(sizeof(struct kvp_enumerate) == 2580, "KVP enumerate");

struct kvp_delete {
    struct kvp_header header;
    uint32_t key_size;
    uint8_t key[KVP_KEY_BYTES];
} __attribute__((packed));
static_assert(sizeof(struct kvp_delete) == 520, "KVP delete");

struct kvp_ip { // get and set IP info; lists of UTF-16, separated by semicolons, terminated
    uint8_t operation;
    uint8_t pool;
    uint16_t adapter[128]; // "{instance GUID}", or a MAC as 00:15:5D:...
    uint8_t families;      // enum ic_family
    uint8_t dhcp;
    uint16_t addresses[1024];
    uint16_t subnets[1024]; // 255.255.255.0 or /64 each
    uint16_t gateways[512];
    uint16_t dns[1024];
} __attribute__((packed));
static_assert(offsetof(struct kvp_ip, families) == 258, "KVP IP info");
static_assert(sizeof(struct kvp_ip) == 7428, "KVP IP info");
